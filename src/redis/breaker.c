/* SPDX-License-Identifier: MIT */
/* See breaker.h. */
#include <stdatomic.h>
#include <string.h>

#include "breaker.h"

static void begin_probe(const struct breaker *b, struct breaker_visit *visit)
{
	struct shoal_value value = {0};

	switch (shoal_begin(b->keyspace, b->key.data, b->key.size, &visit->probe, &value)) {
	case SHOAL_REFRESH:
		visit->state = BREAKER_PROBE;
		if (value.size == sizeof(visit->cool_down_ms))
			memcpy(&visit->cool_down_ms, value.data, sizeof(visit->cool_down_ms));
		break;
	case SHOAL_OK:
		visit->state = BREAKER_OPEN;
		break;
	case SHOAL_LEAD: /* it has gone meanwhile */
	case SHOAL_WAIT:
		shoal_load_cancel(visit->probe);
		visit->probe = NULL;
		break;
	}
	shoal_release(&value);
}

enum breaker_state breaker_ask(const struct breaker *b, struct breaker_visit *visit)
{
	struct shoal_value value = {0};

	if (shoal_peek(b->keyspace, b->key.data, b->key.size, &value) != SHOAL_OK)
		return visit->state = BREAKER_CLOSED;
	if (value.freshness == SHOAL_FRESH)
		visit->state = BREAKER_OPEN;
	else
		begin_probe(b, visit);
	shoal_release(&value);
	return visit->state;
}

static enum breaker_change reopen(const struct breaker *b, struct breaker_visit *visit)
{
	uint32_t most = b->cool_down_ms << BREAKER_DOUBLINGS, next = visit->cool_down_ms * 2;

	if (next > most || next < b->cool_down_ms)
		next = most;
	shoal_load_ttl(visit->probe, next, SHOAL_FOREVER);
	shoal_load_publish(visit->probe, &next, sizeof(next));
	return BREAKER_REOPENED;
}

enum breaker_change breaker_tell(const struct breaker *b, struct breaker_visit *visit, int failed)
{
	if (failed && visit->probe)
		return reopen(b, visit);
	if (failed) {
		if ((atomic_fetch_add(b->failed, 1) + 1) % b->failures)
			return BREAKER_AS_IT_WAS;
		shoal_set_ttl(b->keyspace, b->key.data, b->key.size, &b->cool_down_ms, sizeof(b->cool_down_ms),
		              b->cool_down_ms, SHOAL_FOREVER);
		return BREAKER_OPENED;
	}
	if (atomic_load_explicit(b->failed, memory_order_relaxed)) /* a hint, and not written by each load */
		atomic_store(b->failed, 0);
	if (!visit->probe)
		return BREAKER_AS_IT_WAS;
	shoal_delete(b->keyspace, b->key.data, b->key.size);
	shoal_load_cancel(visit->probe);
	return BREAKER_ENDED;
}
