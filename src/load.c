/* SPDX-License-Identifier: MIT */
/*
 * The leader's side of a load: its handle, space for the value, and its ends. How one gets to lead or to wait is in
 * begin.c; load.h says what holds for all of it.
 *
 *   publish  end older loads -> place -> PUBLISHING -> index CAS -> settle duplicates -> FREE, wake
 *
 * Killed while it leads: the heir looks the key up first, so a value that made it into the index is used. The half of a
 * value that was written is dead bytes.
 *
 * The stepping functions may be called by another thread than the one that began: the publisher's own seat goes into
 * the flight while it publishes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "load.h"
#include "probe.h"
#include "room.h"

_Thread_local struct shoal_load *load_running;

/* ---- begin and end of a handle ----------------------------------------------------------------------------- */

struct shoal_load *load_new(struct shoal_keyspace *k, struct seat *seat, const struct key *key,
                            const struct flight_key *fk, bool fetch)
{
	struct shoal_load *l = calloc(1, sizeof(*l) + key->size);

	if (!l)
		return NULL;
	memcpy(l->bytes, key->data, key->size);
	l->k = k;
	l->seat = seat;
	if (seat)
		registry_hold(seat);
	l->epoch = seat ? seat->epoch : 0;
	l->fetch = fetch;
	l->key = *key;
	l->fk = *fk;
	l->key.data = l->fk.data = l->bytes;
	l->began_ns = seat ? clock_ns(&seat->member->segment.clock) : 0;
	return l;
}

bool load_is_ours(const struct shoal_load *l)
{
	return !l->seat || w64_peek(&l->seat->member->wiped->epoch) == l->epoch;
}

void load_drop_space(struct shoal_load *l)
{
	free(l->heap);
	l->heap = NULL;
	if (l->pin && load_is_ours(l))
		registry_settle(l->space_seat, l->pin);
	l->pin = 0;
	l->source = NULL;
	l->capacity = 0;
}

void load_give_permit_back(struct shoal_load *l)
{
	if (!l->permitted)
		return;
	l->permitted = l->queued = false;
	if (!load_is_ours(l))
		return;
	permit_return(&l->permit);
	registry_settle(l->permit.seat, 0);
}

void load_settle_left(struct shoal_load *l)
{
	struct seat *left = l->left;

	l->left = NULL;
	if (!left)
		return;
	registry_drop(left);
	registry_settle(left, 0);
}

void load_take_seat(struct shoal_load *l, struct seat *seat)
{
	if (l->seat == seat)
		return;
	registry_hold(seat);
	l->left = l->seat;
	l->seat = seat;
	l->epoch = seat->epoch;
}

void load_free(struct shoal_load *l)
{
	bool ours = load_is_ours(l);

	if (ours)
		watch_remove(&l->watched);
	load_give_permit_back(l);
	load_drop_space(l);
	shoal_release(&l->previous);
	if (l->woken)
		shoal_release(&l->result);
	if (ours)
		l->left = l->seat;
	load_settle_left(l);
	free(l);
}

void load_unjoin(struct shoal_load *l)
{
	if (l->joined)
		flight_join(load_segment(l), &l->ticket, -1);
	l->joined = false;
}

void load_end(struct shoal_load *l)
{
	struct seat *seat = l->seat;

	if (l->coalesced && load_is_ours(l)) {
		registry_drop(seat);
		registry_settle(seat, 0);
	}
	l->coalesced = false;
	l->state = ENDED;
	load_drop_space(l);
	if (!l->fetch)
		load_free(l);
}

/* Loading is over, one way or the other. */
static void count_time(struct shoal_load *l, bool failed)
{
	uint64_t ns = clock_ns(&load_segment(l)->clock) - l->began_ns;
	struct keyspace *record;

	urcu_bp_read_lock();
	record = &move_member(&l->k->cache->member)->segment.keyspaces[l->k->id];
	histogram_add(record->load_histogram, ns);
	w64_add(&record->counters[COUNTER_load_ns_sum], ns);
	urcu_bp_read_unlock();
	PROBE(load__end, l->k->id, l->key.data, l->key.size, ns);
	if (failed) {
		load_count(l, COUNTER_load_errors);
		tell_of(&load_segment(l)->listener, SHOAL_LOG_WARNING, "a load in keyspace %" PRIu32 " failed: %d",
		        l->k->id, l->code);
	}
}

/* ---- space for the value ----------------------------------------------------------------------------------- */

static bool leads(const struct shoal_load *l)
{
	return l && l->state == LEADING && load_is_ours(l);
}

/* What is warmed begins in the probation log, as nobody has asked for it. */
static enum log_kind kind_of(const struct shoal_load *l, const struct seat *seat, size_t size)
{
	return l->warming ? LOG_PROBATION : room_kind(&seat->member->segment, &l->key, size);
}

/* In the log, behind a pin of this thread. False: no room, no pin, too big, not to be stored. */
static bool reserve_in_log(struct shoal_load *l, struct seat *seat, size_t size, uint64_t *offset, unsigned *pin)
{
	*pin = store_pin(seat, load_now_ms(&seat->member->segment));
	return l->coalesced && l->seat->member == seat->member && *pin && !(l->k->policy.flags & SHOAL_COMPRESS) &&
	       !room_reserve(seat, *pin, kind_of(l, seat, size), l->key.size, size, offset);
}

static void *space_at(const struct shoal_load *l)
{
	return l->pin ? store_value_at(&l->space_seat->member->segment, l->offset, &l->key) : l->heap;
}

static void *reserve(struct shoal_load *l, size_t size)
{
	struct seat *seat = l->seat ? handle_enter(l->k->cache, &(int){0}) : NULL;
	uint64_t offset;
	unsigned pin = 0;
	void *space;

	if (!seat || !reserve_in_log(l, seat, size, &offset, &pin))
		pin = 0;
	space = pin ? store_value_at(&seat->member->segment, offset, &l->key) : malloc(size ? size : 1);
	if (space && l->capacity)
		memcpy(space, space_at(l), min_u64(l->capacity, size));
	if (seat)
		handle_leave();
	if (!space)
		return NULL;
	load_drop_space(l);
	l->space_seat = seat;
	l->pin = pin;
	l->offset = offset;
	l->heap = pin ? NULL : space;
	l->capacity = size;
	return space;
}

EXPORT void *shoal_load_reserve(struct shoal_load *l, size_t size)
{
	if (!leads(l) || l->published) {
		errno = EINVAL;
		return NULL;
	}
	if (l->capacity && size <= l->capacity)
		return space_at(l);
	return reserve(l, size);
}

/* ---- publish ----------------------------------------------------------------------------------------------- */

/* The loads of the key that are older than mine end before mine shows: else an overdue one, already past its look at
 * the index, could come after mine was seen and evicted. */
static bool end_older(struct shoal_load *l, struct seat *seat)
{
	struct turn turn = {.seen.below = l->generation};

	while (store_supersede(seat, &l->key, &l->fk, l->ticket.slot, &turn))
		index_remove(seat, &l->key, l->generation, READING, OTHER);
	return turn.younger;
}

static void name_target(struct seat *seat, const struct index_target *target)
{
	w64_store(&seat->reader->target, index_number(&seat->member->segment, target->slot));
	w64_store(&seat->reader->expected, target->expected);
}

/* A delete or expire of the whole keyspace since the load began. One that comes later still finds an entry below it. */
static bool is_behind_barrier(const struct shoal_load *l, const struct segment *s)
{
	return l->generation <= w64_load(&s->keyspaces[l->k->id].barrier);
}

/* P.2 */
static int publish_entry(struct shoal_load *l, struct seat *seat, uint64_t offset, uint64_t until_ms)
{
	const struct segment *s = &seat->member->segment;
	uint32_t length = w32_peek(&log_at(s, offset)->length);
	struct index_target target;
	bool done = false, mine, younger = end_older(l, seat);
	uint64_t word = 0;

	while (!done) {
		if (is_behind_barrier(l, s) || index_place(seat, &l->key, l->generation, READING, OTHER, &target)) {
			flight_end(seat, &l->ticket, FLIGHT_FREE);
			return SHOAL_ERR_SUPERSEDED;
		}
		name_target(seat, &target);
		mine = flight_publishing(seat, &l->ticket);
		word = index_word(&l->key, offset, target.own ? target.expected : 0);
		done = mine && index_commit(s, &target, word, length, until_ms);
		rcu_clear(seat, target.announced);
		if (!mine || (!done && !flight_unpublish(seat, &l->ticket)))
			return SHOAL_ERR_SUPERSEDED;
	}
	if (!target.alone)
		index_settle(seat, &l->key, word, READING, OTHER);
	if (younger)
		store_nudge(seat, &l->fk, l->ticket.slot);
	store_count(s, l->k, l->key.hash, load_now_ms(s));
	return flight_end(seat, &l->ticket, FLIGHT_FREE) ? SHOAL_OK : SHOAL_ERR_SUPERSEDED;
}

/* Write the entry around the value and publish it. */
static int store_value(struct shoal_load *l, struct seat *seat, size_t size)
{
	const struct segment *s = &seat->member->segment;
	uint64_t offset = l->offset, born = l->migrating ? l->inherited_ms : load_now_ms(s), cost_us;
	struct lives lives = l->migrating ? l->inherited : store_lives(l->k, l->fresh_ms, l->stale_ms, l->generation);
	struct packed packed = {.size = size};
	int r = SHOAL_OK;

	if (l->error_ms && !l->migrating)
		lives.error = l->error_ms == SHOAL_NONE ? 0 : l->error_ms;
	if (!l->pin) {
		store_pack(l->k, l->heap, size, &packed);
		r = room_reserve(seat, WRITING, kind_of(l, seat, packed.size), l->key.size, packed.size, &offset);
		if (!r)
			memcpy(store_value_at(s, offset, &l->key), packed.data, packed.size);
		if (r) {
			free(packed.owned);
			return r;
		}
	}
	cost_us = (clock_ns(&s->clock) - l->began_ns) / 1000;
	store_fill(s, offset, &l->key, l->generation, born, &lives, STORED(packed.codec, packed.size),
	           l->k->policy.schema, cost_us, l->pin ? l->source : packed.data);
	free(packed.owned);
	r = publish_entry(l, seat, offset, store_end(born, &lives));
	rcu_clear(seat, WRITING);
	return r;
}

/* What can't be stored must not make its waiters load one after the other: they are told to load for themselves. */
static void refuse(struct shoal_load *l, struct seat *seat, int error)
{
	uint32_t for_ms = l->uncacheable              ? l->uncacheable_ms
			  : error == SHOAL_ERR_TOO_BIG ? l->k->policy.fresh_ms
						       : l->k->policy.retry_ms;

	if (error == SHOAL_ERR_SUPERSEDED) {
		load_count(l, COUNTER_superseded);
		return;
	}
	load_count(l, l->uncacheable ? COUNTER_uncacheable : COUNTER_uncached);
	flight_refuse(seat, &l->ticket, load_now_ms(&seat->member->segment) + for_ms);
}

/* P.4: its region has moved. */
static int publish_late(struct shoal_load *l)
{
	count_time(l, false);
	flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	if (l->uncacheable)
		return SHOAL_OK;
	load_count(l, COUNTER_superseded);
	return SHOAL_ERR_SUPERSEDED;
}

/* The region has moved while it was stored there, and it was carried over if it was seen in time. */
static bool was_carried(const struct shoal_load *l)
{
	struct seat *seat = handle_enter(l->k->cache, &(int){0});
	struct index_hit hit;
	bool carried = false;

	if (!seat)
		return false;
	if (index_find(seat, &l->key, WANT_NEWEST, READING, OTHER, &hit)) {
		carried = hit.e.entry->generation == l->generation;
		rcu_clear(seat, hit.announced);
	}
	handle_leave();
	return carried;
}

/* The publisher's seat takes the flight over from the one that began it, so that the record of F.3 is its own. */
static int publish(struct shoal_load *l, size_t size)
{
	struct seat *seat;
	int r;

	if (!l->coalesced) {
		if (l->seat)
			count_time(l, false);
		return SHOAL_ERR_LIMIT; /* P.3 */
	}
	seat = handle_change(l->k->cache, &r);
	if (!seat) {
		flight_end(l->seat, &l->ticket, FLIGHT_ORPHAN);
		return r;
	}
	if (seat->member != l->seat->member) {
		handle_changed(seat);
		return publish_late(l);
	}
	registry_hold(seat);
	r = l->uncacheable ? SHOAL_OK : store_value(l, seat, size);
	count_time(l, false);
	if (r || l->uncacheable)
		refuse(l, seat, r);
	registry_drop(seat);
	if (handle_changed(seat) || r || l->uncacheable || was_carried(l))
		return r;
	load_count(l, COUNTER_superseded);
	return SHOAL_ERR_SUPERSEDED;
}

/* The value itself, stored or not, out of the reserved space. */
static void take_value(struct shoal_load *l, size_t size, struct shoal_value *value)
{
	*value = (struct shoal_value){
		.data = space_at(l),
		.size = size,
		.generation = l->generation,
		.freshness = SHOAL_FRESH,
		.source = SHOAL_LOADED,
	};
	*store_hold(value) = (struct hold){
		.seat = l->pin ? l->space_seat : NULL, .epoch = l->epoch, .pin = l->pin, .heap = l->heap};
	l->pin = 0;
	l->heap = NULL;
}

static int commit(struct shoal_load *l, size_t size, struct shoal_value *value)
{
	int r;

	/* it ended while it was converted */
	if (l->migrating && store_age(&l->bounds, load_now_ms(load_segment(l))) > AGE_STALE) {
		load_drop_space(l);
		return SHOAL_ERR_SUPERSEDED;
	}
	r = publish(l, size);
	if (l->fetch) {
		take_value(l, size, &l->result);
		l->published = true;
		r = SHOAL_OK;
	} else if (value) {
		take_value(l, size, value);
	}
	load_end(l);
	return r;
}

/* By one who doesn't lead, or in a child of fork: the handle ends all the same. */
static int not_leading(struct shoal_load *l)
{
	int r = l && !load_is_ours(l) ? SHOAL_ERR_SUPERSEDED : SHOAL_ERR_INVALID;

	shoal_load_cancel(l);
	return r;
}

EXPORT int shoal_load_commit_value(struct shoal_load *l, size_t size, struct shoal_value *value)
{
	if (value)
		memset(value, 0, sizeof(*value));
	if (!leads(l))
		return not_leading(l);
	if (l->published)
		return SHOAL_ERR_INVALID;
	if (size > l->capacity || !space_at(l)) {
		shoal_load_cancel(l);
		return SHOAL_ERR_INVALID;
	}
	return commit(l, size, value);
}

EXPORT int shoal_load_commit(struct shoal_load *l, size_t size)
{
	return shoal_load_commit_value(l, size, NULL);
}

EXPORT int shoal_load_publish(struct shoal_load *l, const void *data, size_t size)
{
	void *space;

	if (!leads(l))
		return not_leading(l);
	if (l->published)
		return SHOAL_ERR_INVALID;
	space = data || !size ? shoal_load_reserve(l, size) : NULL;
	if (!space) {
		shoal_load_cancel(l);
		return data || !size ? SHOAL_ERR_SYSTEM : SHOAL_ERR_INVALID;
	}
	if (size)
		memcpy(space, data, size);
	l->source = size ? data : NULL;
	return commit(l, size, NULL);
}

EXPORT int shoal_load_keep(struct shoal_load *l)
{
	if (!leads(l))
		return not_leading(l);
	if (!l->previous.data) {
		shoal_load_cancel(l);
		return SHOAL_ERR_INVALID;
	}
	if (!store_keeps(&l->previous, &l->key)) { /* the new copy would carry a checksum that holds */
		shoal_load_cancel(l);
		return SHOAL_ERR_CORRUPT;
	}
	return shoal_load_publish(l, l->previous.data, l->previous.size);
}

/* ---- other ends, and the rest of a leader's calls ---------------------------------------------------------- */

EXPORT int shoal_load_fail(struct shoal_load *l, int code)
{
	bool mine = true;

	if (!leads(l))
		return not_leading(l);
	if (l->published)
		return SHOAL_ERR_INVALID;
	if (l->migrating)
		return SHOAL_OK;
	l->code = code;
	if (l->coalesced)
		mine = flight_fail(l->seat, &l->ticket, code, load_now_ms(load_segment(l)), l->k->policy.retry_ms);
	if (l->seat)
		count_time(l, true);
	load_end(l);
	return mine ? SHOAL_OK : SHOAL_ERR_SUPERSEDED;
}

void load_count_wait(const struct shoal_load *l, uint64_t ns)
{
	struct keyspace *record;

	urcu_bp_read_lock();
	record = &move_member(&l->k->cache->member)->segment.keyspaces[l->k->id];
	histogram_add(record->wait_histogram, ns);
	w64_add(&record->counters[COUNTER_wait_ns_sum], ns);
	PROBE(wait, l->k->id, l->key.data, l->key.size, ns);
	urcu_bp_read_unlock();
}

/* It waited in parts (begin.c) and gives up after one of them. */
static void count_given_up(struct shoal_load *l)
{
	load_count_wait(l, clock_system_ns(CLOCK_MONOTONIC) - l->waits_ns);
	load_count(l, l->queued ? COUNTER_busy : COUNTER_timeouts);
}

EXPORT void shoal_load_cancel(struct shoal_load *l)
{
	if (!l || l->state == ENDED || l->migrating)
		return;
	if (load_is_ours(l) && l->waits_ns && !l->timed_out)
		count_given_up(l);
	if (load_is_ours(l) && l->coalesced)
		flight_end(l->seat, &l->ticket, FLIGHT_ORPHAN);
	else if (load_is_ours(l) && l->joined)
		load_unjoin(l);
	load_end(l);
}

EXPORT int shoal_load_renew(struct shoal_load *l)
{
	if (!leads(l) || !l->coalesced)
		return l && !load_is_ours(l) ? SHOAL_ERR_SUPERSEDED : SHOAL_ERR_INVALID;
	if (l->permitted)
		permit_renew(&l->permit, l->k->policy.lease_ms);
	return flight_renew(l->seat, &l->ticket, load_now_ms(load_segment(l)), l->k->policy.lease_ms) ? SHOAL_OK
											       : SHOAL_ERR_SUPERSEDED;
}

EXPORT void shoal_load_ttl(struct shoal_load *l, uint32_t fresh_ms, uint32_t stale_ms)
{
	if (!l)
		return;
	l->fresh_ms = fresh_ms;
	l->stale_ms = stale_ms;
}

EXPORT void shoal_load_error_ttl(struct shoal_load *l, uint32_t error_ms)
{
	if (l)
		l->error_ms = error_ms;
}

EXPORT void shoal_load_uncacheable(struct shoal_load *l, uint32_t for_ms)
{
	if (!leads(l))
		return;
	l->uncacheable = true;
	l->uncacheable_ms = handle_or_default(for_ms, l->k->policy.fresh_ms);
}

EXPORT const struct shoal_value *shoal_load_previous(struct shoal_load *l)
{
	return l && l->previous.data ? &l->previous : NULL;
}
