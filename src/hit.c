/* SPDX-License-Identifier: MIT */
/* A value in hand, also what hit.h does not call usual. */
#include <stdlib.h>
#include <string.h>

#include "hit.h"

static bool hold_copy(struct shoal_value *value, const struct log_entry *e)
{
	void *copy = malloc(value->size ? value->size : 1);

	if (!copy || !store_copy(e, copy, value->size)) {
		free(copy);
		return false;
	}
	value->data = copy;
	store_hold(value)->heap = copy;
	return true;
}

enum age hit_get_any(struct seat *seat, const struct shoal_keyspace *k, const struct key *key,
                     struct shoal_value *value)
{
	const struct segment *s = &seat->member->segment;
	uint64_t now = clock_coarse_ms(&s->clock);
	unsigned pin = store_pin(seat, now);
	struct index_hit hit;
	enum age age = store_find(seat, k, key, pin ? pin : READING, &hit);
	struct hold *hold = store_hold(value);

	if (age >= AGE_DEAD)
		return age;
	store_touch(seat, k->id, hit.slot, hit.word);
	value->size = store_plain_size(&hit.e);
	value->generation = hit.e.entry->generation;
	value->age_ms = now > hit.e.entry->born_ms ? now - hit.e.entry->born_ms : 0;
	value->freshness = age == AGE_FRESH ? SHOAL_FRESH : SHOAL_STALE;
	value->source = SHOAL_HIT;
	hold->cost_us = hit.e.entry->cost_us;
	hold->fresh_until_ms = store_bounds(s, k->id, hit.e.entry, &k->policy).fresh;
	if (likely(pin && !STORED_CODEC(hit.e.stored))) {
		value->data = hit.e.value;
		hold->seat = seat;
		hold->epoch = seat->epoch;
		hold->pin = pin;
		return age;
	}
	if (!hold_copy(value, &hit.e)) {
		memset(value, 0, sizeof(*value));
		store_reject(seat, k, key, &hit);
		age = AGE_CORRUPT;
	}
	rcu_clear(seat, hit.announced);
	return age;
}

enum age hit_get(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, struct shoal_value *value)
{
	enum age age = AGE_DEAD;

	if (unlikely(hit_get_usual(seat, k, key->data, key->size, key->hash, value, &age) == UNUSUAL))
		return hit_get_any(seat, k, key, value);
	return age;
}
