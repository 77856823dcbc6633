/* SPDX-License-Identifier: MIT */
/* Getting in: begin and wait. See begin.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "begin.h"
#include "probe.h"

/* ---- begin ------------------------------------------------------------------------------------------------- */

static void count_takeover(struct shoal_load *l)
{
	load_count(l, l->ticket.gave_up ? COUNTER_takeovers_gave_up : COUNTER_takeovers);
	PROBE(takeover, l->k->id, l->key.data, l->key.size, l->ticket.gave_up);
	if (!l->ticket.gave_up)
		tell_of(&load_segment(l)->listener, SHOAL_LOG_WARNING,
		        "a load in keyspace %" PRIu32 " is taken over: its leader died", l->k->id);
}

/* The right to load is had: it begins. */
static void lead(struct shoal_load *l)
{
	l->state = LEADING;
	l->queued = false;
	l->began_ns = clock_ns(&load_segment(l)->clock);
	load_count(l, COUNTER_loads);
	distinct_add(handle_record(load_segment(l), l->k)->distinct, l->key.hash);
	PROBE(load__start, l->k->id, l->key.data, l->key.size, l->coalesced);
	if (l->takeover)
		count_takeover(l);
	if (!l->coalesced) {
		load_count(l, COUNTER_uncached);
		return;
	}
	l->generation = segment_draw(load_segment(l)); /* P.1 */
	flight_drew(l->seat, &l->ticket, l->generation);
	hit_get(l->seat, l->k, &l->key, &l->previous);
}

/* A load inside a loader runs while that one waits for it: the outer permit is enough, or the two would wait for each
 * other where there is but one. Not one whose lease is over: another may have it, and its loader may be gone by
 * longjmp. */
static bool is_permitted_already(const struct shoal *cache)
{
	const struct shoal_load *l;

	for (l = load_running; l; l = l->outer)
		if (l->permitted && l->k->cache == cache && load_is_ours(l) && permit_is_held(&l->permit))
			return true;
	return false;
}

/* Ask for a permit, where loads are bounded. False: queued for one. A queue that is full bounds nobody. */
static bool may_load(struct shoal_load *l, struct seat *seat)
{
	const struct shoal_policy *p = &l->k->policy;
	struct permit_request request = {.keyspace = l->k->id, .bound = p->max_loads, .lease_ms = p->lease_ms};
	enum permit_outcome outcome;

	if ((!seat->member->segment.geometry.max_loads && !p->max_loads) || is_permitted_already(l->k->cache))
		return true;
	outcome = permit_try(seat, &request, &l->permit);
	l->permitted = outcome == PERMIT_GRANTED || outcome == PERMIT_WAIT;
	l->queued = outcome == PERMIT_WAIT;
	return !l->queued;
}

/* A stale value in place of what can't be had. */
static int serve_stale(const struct attempt *a, int error)
{
	a->value->load_error = error;
	PROBE(hit, a->k->id, a->key.data, a->key.size, AGE_STALE);
	handle_count_stale(a->seat, a->k->id, a->key.hash, store_hold(a->value)->fresh_until_ms);
	return SHOAL_OK;
}

static int give_error(struct shoal_value *value, int error, int result)
{
	shoal_release(value);
	value->load_error = error;
	return result;
}

/* The token, too: our own flight may have been ended, and its slot be another's. */
static bool is_loading_here(const struct seat *seat, const struct ticket *t)
{
	const struct shoal_load *l;

	for (l = load_running; l; l = l->outer)
		if (l->coalesced && l->state == LEADING && load_is_ours(l) && l->seat->member == seat->member &&
		    l->ticket.slot == t->slot && l->ticket.token == t->token)
			return true;
	return false;
}

static void missed(const struct attempt *a)
{
	PROBE(miss, a->k->id, a->key.data, a->key.size, a->age);
	store_count_miss(a->seat, a->k, a->age);
}

static int serve_fresh(struct attempt *a)
{
	PROBE(hit, a->k->id, a->key.data, a->key.size, AGE_FRESH);
	handle_count_fresh(a->seat, a->k->id, a->key.hash);
	return SHOAL_OK;
}

/* No permit now, and a value that may be served: someone else refreshes it later. */
static int serve_meanwhile(struct attempt *a, struct shoal_load *l)
{
	if (l->coalesced)
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	l->fetch = false;
	load_end(l);
	return a->age == AGE_FRESH ? serve_fresh(a) : serve_stale(a, 0);
}

/* The leadership is had, and the handle: the permit, and the outcome. */
static int go_on(struct attempt *a, struct shoal_load *l, struct shoal_load **load)
{
	if (!may_load(l, a->seat)) {
		if (a->age <= AGE_STALE)
			return serve_meanwhile(a, l);
		l->state = WAITING;
		*load = l;
		missed(a);
		return give_error(a->value, 0, SHOAL_WAIT);
	}
	lead(l);
	*load = l;
	if (a->age == AGE_FRESH) {
		load_count(l, COUNTER_early_refreshes);
		serve_fresh(a);
		return SHOAL_REFRESH;
	}
	if (a->age == AGE_STALE) {
		serve_stale(a, 0);
		return SHOAL_REFRESH;
	}
	missed(a);
	return give_error(a->value, 0, SHOAL_LEAD);
}

enum { BEGIN_MIGRATE = 100 }; /* between begin() and its caller: *load is to try the old version first */

static int become_leader(struct attempt *a, bool coalesced, bool takeover, struct shoal_load **load)
{
	const struct fallback *f = atomic_load(&a->k->fallback);
	struct shoal_load *l = load_new(a->k, a->seat, &a->key, &a->fk, a->fetch);

	if (!l) {
		if (coalesced) {
			flight_end(a->seat, &a->ticket, FLIGHT_ORPHAN);
			registry_drop(a->seat);
		}
		return give_error(a->value, 0, SHOAL_ERR_SYSTEM);
	}
	l->ticket = a->ticket;
	l->coalesced = coalesced;
	l->takeover = takeover;
	if (!coalesced || a->age <= AGE_STALE || !f || !f->old)
		return go_on(a, l, load);
	*load = l;
	return BEGIN_MIGRATE;
}

/* The flight is mine. Someone may have published between my first look and my claim: then there is nothing to load,
 * also if I came to refresh a fresh value early. */
static int claimed(struct attempt *a, bool takeover, struct shoal_load **load)
{
	uint64_t seen = a->age == AGE_FRESH ? a->value->generation : 0;

	shoal_release(a->value);
	a->age = hit_get(a->seat, a->k, &a->key, a->value);
	if (a->age != AGE_FRESH || a->value->generation == seen)
		return become_leader(a, true, takeover, load);
	flight_end(a->seat, &a->ticket, FLIGHT_FREE);
	registry_drop(a->seat);
	return serve_fresh(a);
}

static void join(struct shoal_load *l, const struct ticket *t)
{
	load_unjoin(l);
	l->ticket = *t;
	flight_join(load_segment(l), t, 1);
	l->joined = true;
}

static int joined(struct attempt *a, struct shoal_load **load)
{
	struct shoal_load *l;

	if (a->age == AGE_STALE)
		return serve_stale(a, 0);
	missed(a);
	if (is_loading_here(a->seat, &a->ticket))
		return give_error(a->value, 0, SHOAL_ERR_DEADLOCK);
	l = load_new(a->k, a->seat, &a->key, &a->fk, a->fetch);
	if (!l)
		return give_error(a->value, 0, SHOAL_ERR_SYSTEM);
	l->state = WAITING;
	l->ticket = a->ticket;
	join(l, &a->ticket);
	*load = l;
	return give_error(a->value, 0, SHOAL_WAIT);
}

static int failed_before(struct attempt *a, int error)
{
	if (a->age <= AGE_ERROR)
		return serve_stale(a, error);
	missed(a);
	return give_error(a->value, error, SHOAL_ERR_LOAD);
}

static int begin(struct attempt *a, struct shoal_load **load)
{
	const struct segment *s = &a->seat->member->segment;
	enum flight_outcome outcome;
	int error = 0;

	a->age = hit_get(a->seat, a->k, &a->key, a->value);
	if (likely(a->age == AGE_FRESH && !store_is_early(a->seat, a->k, a->value)))
		return serve_fresh(a);
	if (a->age <= AGE_STALE && flight_is_led(a->seat, a->key.hash, clock_coarse_ms(&s->clock)))
		return a->age == AGE_FRESH ? serve_fresh(a) : serve_stale(a, 0);
	a->fk = store_flight_key(s, &a->key);
	outcome = flight_claim(a->seat, &a->fk, load_now_ms(s), a->k->policy.lease_ms, &a->ticket, &error);
	if (a->age == AGE_FRESH && outcome != OUTCOME_LEAD && outcome != OUTCOME_TAKEOVER)
		return serve_fresh(a);
	switch (outcome) {
	case OUTCOME_LEAD:
	case OUTCOME_TAKEOVER:
		return claimed(a, outcome == OUTCOME_TAKEOVER, load);
	case OUTCOME_JOIN:
		return joined(a, load);
	case OUTCOME_FAILED:
		return failed_before(a, error);
	default: /* UNCACHEABLE, FULL */
		if (outcome == OUTCOME_FULL && a->age == AGE_STALE)
			return serve_stale(a, 0);
		return become_leader(a, false, false, load);
	}
}

/* What the old version has of the key, pinned, and its remaining life. */
static bool find_old(struct shoal_load *l, const struct old_key *key, struct shoal_value *old)
{
	const struct shoal_keyspace *before = key->fallback->old;
	struct seat *seat = handle_enter(l->k->cache, &(int){0});
	const struct segment *s;
	struct bounds *b = &l->bounds;
	struct index_hit hit;
	struct key k;
	bool found = false;
	uint64_t now, generation;

	if (!seat)
		return false;
	s = &seat->member->segment;
	if (store_key(before, key->data, key->size, &k) && store_find(seat, before, &k, READING, &hit) <= AGE_STALE) {
		l->inherited_ms = now = load_now_ms(s);
		generation = hit.e.entry->generation;
		*b = store_bounds(s, before->id, hit.e.entry, &before->policy);
		rcu_clear(seat, READING);
		l->inherited = (struct lives){store_life(now, b->fresh), store_life(max_u64(now, b->fresh), b->stale),
					      store_life(max_u64(now, b->stale), b->error)};
		found = hit_get(seat, before, &k, old) <= AGE_STALE && old->generation == generation;
	}
	rcu_clear(seat, READING);
	handle_leave();
	return found;
}

/* Carry the old version's value over, as the leader of the new key's flight. */
static bool carry_over(struct shoal_load *l, const struct old_key *key)
{
	const struct fallback *f = key->fallback;
	struct shoal_value old = {0};

	if (!find_old(l, key, &old)) {
		shoal_release(&old);
		return false;
	}
	l->state = LEADING;
	l->migrating = true;
	l->generation = segment_draw(load_segment(l)); /* P.1 */
	flight_drew(l->seat, &l->ticket, l->generation);
	if (f->convert)
		f->convert(l, l->key.data, l->key.size, &old, f->arg);
	else
		shoal_load_publish(l, old.data, old.size);
	shoal_release(&old);
	l->migrating = false;
	return l->published;
}

static int begin_again(struct attempt *a, struct shoal_load *l, struct shoal_load **load)
{
	flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	l->fetch = false;
	load_end(l);
	shoal_release(a->value);
	return begin_key(a, a->key.data, a->key.size, load);
}

/* Outside a read-side section: the converter is the caller's code. */
static int migrate(struct attempt *a, struct shoal_load **load)
{
	struct shoal_load *l = *load;
	struct old_key old;
	int r;

	*load = NULL;
	l->fetch = true; /* the handle outlives the publication */
	if (store_old_key(a->k, a->key.data, a->key.size, &old) == SHOAL_OK) {
		carry_over(l, &old);
		free(old.owned);
	}
	if (l->published) {
		load_count(l, COUNTER_migrated);
		shoal_release(a->value);
		*a->value = l->result;
		a->value->source = SHOAL_MIGRATED;
		a->value->freshness = load_now_ms(load_segment(l)) < l->bounds.fresh ? SHOAL_FRESH : SHOAL_STALE;
		load_free(l);
		return SHOAL_OK;
	}
	load_drop_space(l);
	l->fetch = a->fetch;
	a->seat = handle_enter(a->k->cache, &r);
	if (!a->seat) {
		shoal_load_cancel(l);
		if (a->fetch)
			load_free(l);
		return r;
	}
	if (a->seat->member != l->seat->member) { /* P.4 */
		handle_leave();
		return begin_again(a, l, load);
	}
	r = go_on(a, l, load);
	handle_leave();
	return r;
}

int begin_key(struct attempt *a, const void *data, size_t size, struct shoal_load **load)
{
	int r;

	memset(a->value, 0, sizeof(*a->value));
	*load = NULL;
	a->seat = handle_enter(a->k->cache, &r);
	if (!a->seat)
		return r;
	r = store_key(a->k, data, size, &a->key) ? begin(a, load) : SHOAL_ERR_INVALID;
	handle_leave();
	return r == BEGIN_MIGRATE ? migrate(a, load) : r;
}

EXPORT int shoal_begin(struct shoal_keyspace *k, const void *key, size_t key_size, struct shoal_load **load,
                       struct shoal_value *value)
{
	struct attempt a = {.k = k, .value = value};

	if (!k || !load || !value)
		return SHOAL_ERR_INVALID;
	return begin_key(&a, key, key_size, load);
}

/* ---- wait -------------------------------------------------------------------------------------------------- */

static int got_value(struct shoal_load *l, struct shoal_value *value)
{
	load_unjoin(l);
	value->source = SHOAL_COALESCED;
	load_count(l, COUNTER_coalesced);
	return SHOAL_OK;
}

/* A fresh value has come while this one led, or waited to: nothing to load. */
static int got_instead(struct shoal_load *l, struct shoal_value *value)
{
	if (l->coalesced)
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	value->source = SHOAL_COALESCED;
	load_count(l, COUNTER_coalesced);
	return SHOAL_OK;
}

static int now_leading(struct shoal_load *l, struct seat *seat, struct shoal_value *value, const struct ticket *t,
                       enum flight_outcome outcome)
{
	load_unjoin(l);
	l->ticket = *t;
	l->coalesced = outcome == OUTCOME_LEAD || outcome == OUTCOME_TAKEOVER;
	l->takeover = outcome == OUTCOME_TAKEOVER;
	if (l->coalesced && hit_get(seat, l->k, &l->key, value) == AGE_FRESH)
		return got_instead(l, value);
	shoal_release(value);
	if (!may_load(l, seat))
		return SHOAL_WAIT;
	lead(l);
	return SHOAL_LEAD;
}

/* Waiting for a permit: the flight, if there is one, is kept within its lease meanwhile. One that was superseded gives
 * its load nothing to store under. */
static int look_at_queue(struct shoal_load *l, struct seat *seat, struct shoal_value *value)
{
	enum permit_outcome outcome;

	if (hit_get(seat, l->k, &l->key, value) == AGE_FRESH)
		return got_instead(l, value);
	shoal_release(value);
	if (l->coalesced &&
	    !flight_renew(l->seat, &l->ticket, load_now_ms(&seat->member->segment), l->k->policy.lease_ms)) {
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
		registry_drop(l->seat);
		l->coalesced = false;
	}
	outcome = permit_poll(&l->permit);
	if (outcome == PERMIT_LOST)
		l->permitted = false;
	if (outcome == PERMIT_WAIT || (outcome == PERMIT_LOST && !may_load(l, seat)))
		return SHOAL_WAIT;
	lead(l);
	return SHOAL_LEAD;
}

/* P.4: its flight ends, if it leads one and waits for a permit; its place in the queue does outside, in
 * begin_wait(). */
static void begin_anew(struct shoal_load *l, struct seat *seat)
{
	load_unjoin(l);
	flight_uncross(l->seat);
	if (l->coalesced) {
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
		registry_drop(l->seat);
	}
	l->coalesced = l->queued = false;
	load_take_seat(l, seat);
}

/* One look at the words: OK, LEAD, an error, or SHOAL_WAIT. */
static int look(struct shoal_load *l, struct seat *seat, struct shoal_value *value)
{
	const struct segment *s = &seat->member->segment;
	enum flight_outcome outcome = OUTCOME_FAILED;
	struct ticket t;
	int error = 0;
	enum age age;

	if (l->seat->member != seat->member)
		begin_anew(l, seat);
	if (l->queued)
		return look_at_queue(l, seat, value);
	load_take_seat(l, seat);
	age = hit_get(seat, l->k, &l->key, value);
	if (age <= AGE_STALE)
		return got_value(l, value);
	if (!l->joined || !flight_error(s, &l->ticket, &error))
		outcome = flight_claim(seat, &l->fk, load_now_ms(s), l->k->policy.lease_ms, &t, &error);
	if (outcome == OUTCOME_FAILED && age == AGE_ERROR) {
		value->load_error = error;
		return got_value(l, value);
	}
	shoal_release(value);
	if (outcome == OUTCOME_FAILED)
		return give_error(value, error, SHOAL_ERR_LOAD);
	if (outcome != OUTCOME_JOIN)
		return now_leading(l, seat, value, &t, outcome);
	join(l, &t);
	return SHOAL_WAIT;
}

/* Where the region has moved it is out of the old one's queue first, or it might get two permits. */
int begin_look(struct shoal_load *l, struct shoal_value *value)
{
	struct seat *seat;
	int r;

	seat = handle_enter(l->k->cache, &r);
	if (seat && l->permitted && (l->permit.seat->member != seat->member || l->seat->member != seat->member)) {
		handle_leave();
		load_give_permit_back(l);
		seat = handle_enter(l->k->cache, &r);
	}
	if (!seat)
		return r;
	r = look(l, seat, value);
	handle_leave();
	load_settle_left(l);
	return r;
}

/* A part of a wait is over, which began at `now_ns` or in the part before. Who waits in parts, to look after other
 * things between them, waits once: it ends with an outcome, or as a timeout after wait_ms, or when it gives up. */
static void count_part(struct shoal_load *l, int r, uint64_t now_ns)
{
	uint64_t waited_ns;

	if (!l->waits_ns)
		l->waits_ns = now_ns;
	waited_ns = clock_system_ns(CLOCK_MONOTONIC) - l->waits_ns;
	if (r == SHOAL_WAIT && waited_ns < (uint64_t)l->k->policy.wait_ms * 1000000)
		return;
	l->waits_ns = 0;
	load_count_wait(l, waited_ns);
	if (r == SHOAL_WAIT) {
		l->timed_out = true;
		load_count(l, l->queued ? COUNTER_busy : COUNTER_timeouts);
	}
}

/* The wait loop: look, sleep, wake some others, look. What is published at the very deadline is still returned. */
int begin_wait(struct shoal_load *l, uint32_t timeout_ms, struct shoal_value *value)
{
	uint64_t begin_ns = clock_system_ns(CLOCK_MONOTONIC), deadline = begin_ns + (uint64_t)timeout_ms * 1000000;
	bool late;
	int r;

	for (;;) {
		late = clock_system_ns(CLOCK_MONOTONIC) >= deadline;
		r = begin_look(l, value);
		if (r != SHOAL_WAIT || late)
			break;
		if (!l->queued && load_running && flight_is_crossed(l->seat, &l->ticket)) {
			r = SHOAL_ERR_DEADLOCK;
			load_count(l, COUNTER_timeouts);
			break;
		}
		if (l->queued) {
			permit_sleep(&l->permit, deadline);
		} else {
			flight_sleep(l->seat, &l->ticket, deadline);
			flight_relay(load_segment(l), &l->ticket);
		}
	}
	if (load_running)
		flight_uncross(l->seat);
	if (timeout_ms || (l->waits_ns && r != SHOAL_WAIT)) /* who only asks may learn that a wait in parts is over */
		count_part(l, r, begin_ns);
	if (r != SHOAL_WAIT)
		return r;
	return l->queued ? SHOAL_ERR_BUSY : SHOAL_ERR_TIMEOUT;
}

/* What a dispatch has seen, in hand or not. */
static int give_woken(struct shoal_load *l, struct shoal_value *value)
{
	l->woken = false;
	*value = l->result;
	memset(&l->result, 0, sizeof(l->result));
	return l->woken_with;
}

EXPORT int shoal_wait(struct shoal_load *l, uint32_t timeout_ms, struct shoal_value *value)
{
	int r;

	if (!l || !value)
		return SHOAL_ERR_INVALID;
	memset(value, 0, sizeof(*value));
	if (l->state != WAITING && !l->woken)
		return SHOAL_ERR_INVALID;
	if (!load_is_ours(l))
		return SHOAL_ERR_SUPERSEDED;
	watch_remove(&l->watched);
	if (l->woken)
		r = give_woken(l, value);
	else
		r = begin_wait(l, timeout_ms == SHOAL_FOREVER ? l->k->policy.wait_ms : timeout_ms, value);
	if (r == SHOAL_OK)
		load_end(l);
	return r;
}
