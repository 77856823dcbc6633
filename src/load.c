/* SPDX-License-Identifier: MIT */
/*
 * Loads: begin, wait, publish, and fetch, which is the three of them around a loader.
 *
 *   begin    look up -- fresh -----------------------------------------------> OK
 *                 \---- claim -- joined: stale ? OK : WAIT
 *                            \-- mine: look up once more (someone may have published since the first look)
 *                                     -- fresh: end the flight -------------> OK
 *                                     -- draw the generation ---------------> LEAD, REFRESH
 *   publish  end older loads -> place -> PUBLISHING -> index CAS -> settle duplicates -> FREE, wake
 *
 * P.1  The generation is drawn after the flight is COMPUTING: a set or delete that passed the flight by while it was
 *      CLAIMING has an older number, so what it stores or removes never loses to an older load.
 * P.2  The index CAS happens while the flight is PUBLISHING with that very target on record (flight.c, F.3). If it fails,
 *      the flight goes back to COMPUTING, unless someone has ended it.
 * P.3  A load that has no flight (no slot, not cacheable) is never stored: nobody could tell it of a delete.
 *
 * Killed while it leads: the heir looks the key up first, so a value that made it into the index is used. The half of a
 * value that was written is dead bytes.
 *
 * P.4  A load belongs to the region in which it began, and ends there. After the region has moved its leader's value is
 *      stored nowhere: a delete that came since has not met it. Who waits for it, or for a permit, begins anew in the
 *      next region. So a resize costs at most one more load for each key that is being loaded.
 *
 * The stepping functions may be called by another thread than the one that began: the publisher's own seat goes into the
 * flight while it publishes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "load.h"
#include "room.h"
#include "store.h"

enum load_state { LEADING, WAITING, ENDED };

struct shoal_load {
	struct shoal_keyspace *k;
	enum load_state state;
	bool warming;         /* by shoal_warm_keys */
	bool fetch;           /* inside shoal_fetch: the value is kept for the caller, the handle is fetch's */
	bool coalesced;       /* it leads a flight */
	bool joined;          /* counted among its flight's waiters */
	bool takeover;        /* from a leader that died or gave up */
	bool queued;          /* WAITING: for a permit, leading or not */
	bool permitted;       /* `permit` is in hand, queued or granted */
	bool published;       /* fetch: `result` has the value */
	int code;             /* what it was failed with */
	uint64_t epoch;       /* of the process that began it */
	struct seat *seat;    /* whom the flight names, or who waits; it has a hold on it: the load keeps its region */
	struct seat *left;    /* one that it has no use for any more, to be settled outside a read-side section */
	struct ticket ticket;
	struct permit_ticket permit;
	uint64_t generation;
	uint32_t fresh_ms, stale_ms;
	bool migrating;       /* a converter runs: it can't end the leadership, which goes on as a normal load */
	struct lives inherited; /* then: the remaining life of the old value, */
	uint64_t inherited_ms;  /* from when on, */
	struct bounds bounds;   /* and its ends */
	bool uncacheable;
	uint32_t uncacheable_ms;
	uint64_t began_ns;       /* by the segment's clock, as deadlines are */
	struct key key;
	struct flight_key fk;
	struct seat *space_seat; /* reserved space: in the log, pinned ... */
	unsigned pin;
	uint64_t offset;
	void *heap;              /* ... or here */
	size_t capacity;
	struct shoal_value previous, result;
	struct shoal_load *outer; /* of the same thread: the loader that this one runs inside */
	struct refresher_job job; /* handed to a refresher thread, with this */
	const struct refresher_loader *refresher;
	unsigned char bytes[];    /* of the key */
};

static const struct segment *segment_of(const struct shoal_load *l)
{
	return &l->seat->member->segment;
}

static void count(const struct shoal_load *l, enum counter c)
{
	handle_count_now(l->k->cache, l->k->id, c, 1);
}

/* The innermost loader that runs on this thread. */
static _Thread_local struct shoal_load *running;

/* ---- begin and end of a handle ----------------------------------------------------------------------------- */

static struct shoal_load *new_load(struct shoal_keyspace *k, struct seat *seat, const struct key *key,
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

static bool is_ours(const struct shoal_load *l)
{
	return !l->seat || w64_peek(&l->seat->member->wiped->epoch) == l->epoch;
}

static void drop_space(struct shoal_load *l)
{
	free(l->heap);
	l->heap = NULL;
	if (l->pin && is_ours(l))
		registry_settle(l->space_seat, l->pin);
	l->pin = 0;
	l->capacity = 0;
}

static void give_permit_back(struct shoal_load *l)
{
	if (!l->permitted)
		return;
	l->permitted = l->queued = false;
	if (!is_ours(l))
		return;
	permit_return(&l->permit);
	registry_settle(l->permit.seat, 0);
}

/* The hold on a seat that is not used any more ends. */
static void settle_left(struct shoal_load *l)
{
	struct seat *left = l->left;

	l->left = NULL;
	if (!left)
		return;
	registry_drop(left);
	registry_settle(left, 0);
}

/* Another seat, inside a read-side section, after settle_left(). */
static void take_seat(struct shoal_load *l, struct seat *seat)
{
	if (l->seat == seat)
		return;
	registry_hold(seat);
	l->left = l->seat;
	l->seat = seat;
	l->epoch = seat->epoch;
}

static void free_load(struct shoal_load *l)
{
	bool ours = is_ours(l);

	give_permit_back(l);
	drop_space(l);
	shoal_release(&l->previous);
	if (ours)
		l->left = l->seat;
	settle_left(l);
	free(l);
}

/* Its leadership or its waiting is over; inside shoal_fetch the loader may still run, and keeps its permit. Outside a
 * read-side section. */
static void end_load(struct shoal_load *l)
{
	struct seat *seat = l->seat;

	if (l->coalesced && is_ours(l)) {
		w32_sub(&seat->loads, 1);
		registry_settle(seat, 0);
	}
	l->coalesced = false;
	l->state = ENDED;
	drop_space(l);
	if (!l->fetch)
		free_load(l);
}

/* Loading is over, one way or the other. */
static void count_time(struct shoal_load *l, bool failed)
{
	uint64_t ns = clock_ns(&segment_of(l)->clock) - l->began_ns;
	struct keyspace *record;

	urcu_bp_read_lock();
	record = &move_member(&l->k->cache->member)->segment.keyspaces[l->k->id];
	histogram_add(record->load_histogram, ns);
	w64_add(&record->counters[COUNTER_load_ns_sum], ns);
	urcu_bp_read_unlock();
	if (failed)
		count(l, COUNTER_load_errors);
}

/* ---- begin ------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(const struct segment *s)
{
	return clock_ms(&s->clock);
}

/* The right to load is had: it begins. */
static void lead(struct shoal_load *l)
{
	l->state = LEADING;
	l->queued = false;
	l->began_ns = clock_ns(&segment_of(l)->clock);
	count(l, COUNTER_loads);
	if (l->takeover)
		count(l, COUNTER_takeovers);
	if (!l->coalesced) {
		count(l, COUNTER_uncached);
		return;
	}
	l->generation = segment_draw(segment_of(l)); /* P.1 */
	flight_drew(l->seat, &l->ticket, l->generation);
	store_get(l->seat, l->k, &l->key, &l->previous);
}

/* A load inside a loader runs while that one waits for it: the outer permit is enough, or the two would wait for each
 * other where there is but one. Not one whose lease is over: another may have it, and its loader may be gone by longjmp. */
static bool is_permitted_already(const struct shoal *cache)
{
	const struct shoal_load *l;

	for (l = running; l; l = l->outer)
		if (l->permitted && l->k->cache == cache && is_ours(l) && permit_is_held(&l->permit))
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
static int serve_stale(struct seat *seat, const struct shoal_keyspace *k, struct shoal_value *value, int error)
{
	value->load_error = error;
	handle_count_hot(seat, k->id, COUNTER_hits_stale);
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

	for (l = running; l; l = l->outer)
		if (l->coalesced && l->state == LEADING && is_ours(l) && l->seat->member == seat->member &&
		    l->ticket.slot == t->slot && l->ticket.token == t->token)
			return true;
	return false;
}

struct attempt {
	struct shoal_keyspace *k;
	struct seat *seat;
	struct key key;
	struct flight_key fk;
	struct ticket ticket;
	enum age age; /* of *value */
	struct shoal_value *value;
	bool fetch;
};

static int serve_fresh(struct attempt *a)
{
	handle_count_hot(a->seat, a->k->id, COUNTER_hits_fresh);
	return SHOAL_OK;
}

/* No permit now, and a value that may be served: someone else refreshes it later. */
static int serve_meanwhile(struct attempt *a, struct shoal_load *l)
{
	if (l->coalesced)
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	l->fetch = false;
	end_load(l);
	return a->age == AGE_FRESH ? serve_fresh(a) : serve_stale(a->seat, a->k, a->value, 0);
}

/* The leadership is had, and the handle: the permit, and the outcome. */
static int go_on(struct attempt *a, struct shoal_load *l, struct shoal_load **load)
{
	if (!may_load(l, a->seat)) {
		if (a->age <= AGE_STALE)
			return serve_meanwhile(a, l);
		l->state = WAITING;
		*load = l;
		handle_count_hot(a->seat, a->k->id, COUNTER_misses);
		return give_error(a->value, 0, SHOAL_WAIT);
	}
	lead(l);
	*load = l;
	if (a->age == AGE_FRESH) {
		count(l, COUNTER_early_refreshes);
		serve_fresh(a);
		return SHOAL_REFRESH;
	}
	if (a->age == AGE_STALE) {
		serve_stale(a->seat, a->k, a->value, 0);
		return SHOAL_REFRESH;
	}
	handle_count_hot(a->seat, a->k->id, COUNTER_misses);
	return give_error(a->value, 0, SHOAL_LEAD);
}

enum { BEGIN_MIGRATE = 100 }; /* between begin() and its caller: *load is to try the old version first */

static int become_leader(struct attempt *a, bool coalesced, bool takeover, struct shoal_load **load)
{
	const struct fallback *f = atomic_load(&a->k->fallback);
	struct shoal_load *l = new_load(a->k, a->seat, &a->key, &a->fk, a->fetch);

	if (!l) {
		if (coalesced) {
			flight_end(a->seat, &a->ticket, FLIGHT_ORPHAN);
			w32_sub(&a->seat->loads, 1);
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

/* The flight is mine. Someone may have published between my first look and my claim: then there is nothing to load, also
 * if I came to refresh a fresh value early. */
static int claimed(struct attempt *a, bool takeover, struct shoal_load **load)
{
	uint64_t seen = a->age == AGE_FRESH ? a->value->generation : 0;

	shoal_release(a->value);
	a->age = store_get(a->seat, a->k, &a->key, a->value);
	if (a->age != AGE_FRESH || a->value->generation == seen)
		return become_leader(a, true, takeover, load);
	flight_end(a->seat, &a->ticket, FLIGHT_FREE);
	w32_sub(&a->seat->loads, 1);
	return serve_fresh(a);
}

static void unjoin(struct shoal_load *l)
{
	if (l->joined)
		flight_join(segment_of(l), &l->ticket, -1);
	l->joined = false;
}

static void join(struct shoal_load *l, const struct ticket *t)
{
	unjoin(l);
	l->ticket = *t;
	flight_join(segment_of(l), t, 1);
	l->joined = true;
}

static int joined(struct attempt *a, struct shoal_load **load)
{
	struct shoal_load *l;

	if (a->age == AGE_STALE)
		return serve_stale(a->seat, a->k, a->value, 0);
	handle_count_hot(a->seat, a->k->id, COUNTER_misses);
	if (is_loading_here(a->seat, &a->ticket))
		return give_error(a->value, 0, SHOAL_ERR_DEADLOCK);
	l = new_load(a->k, a->seat, &a->key, &a->fk, a->fetch);
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
		return serve_stale(a->seat, a->k, a->value, error);
	handle_count_hot(a->seat, a->k->id, COUNTER_misses);
	return give_error(a->value, error, SHOAL_ERR_LOAD);
}

static int begin(struct attempt *a, struct shoal_load **load)
{
	const struct segment *s = &a->seat->member->segment;
	enum flight_outcome outcome;
	int error = 0;

	a->age = store_get(a->seat, a->k, &a->key, a->value);
	if (likely(a->age == AGE_FRESH && !store_is_early(a->seat, a->k, a->value)))
		return serve_fresh(a);
	a->fk = store_flight_key(s, &a->key);
	outcome = flight_claim(a->seat, &a->fk, now_ms(s), a->k->policy.lease_ms, &a->ticket, &error);
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
			return serve_stale(a->seat, a->k, a->value, 0);
		return become_leader(a, false, false, load);
	}
}

/* What the old version has of the key, pinned, and its remaining life. */
static bool find_old(struct shoal_load *l, const struct fallback *f, const void *key, size_t size,
                     struct shoal_value *old)
{
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
	if (store_key(f->old, s, key, size, &k) && store_find(seat, f->old, &k, READING, &hit) <= AGE_STALE) {
		l->inherited_ms = now = now_ms(s);
		generation = hit.e.entry->generation;
		*b = store_bounds(s, f->old->id, hit.e.entry, &f->old->policy);
		rcu_clear(seat, READING);
		l->inherited = (struct lives){store_life(now, b->fresh), store_life(max_u64(now, b->fresh), b->stale),
					      store_life(max_u64(now, b->stale), b->error)};
		found = store_get(seat, f->old, &k, old) <= AGE_STALE && old->generation == generation;
	}
	rcu_clear(seat, READING);
	handle_leave();
	return found;
}

/* Carry the old version's value over, as the leader of the new key's flight. */
static bool carry_over(struct shoal_load *l, const struct fallback *f, const void *key, size_t size)
{
	struct shoal_value old = {0};

	if (!find_old(l, f, key, size, &old)) {
		shoal_release(&old);
		return false;
	}
	l->state = LEADING;
	l->migrating = true;
	l->generation = segment_draw(segment_of(l)); /* P.1 */
	flight_drew(l->seat, &l->ticket, l->generation);
	if (f->convert)
		f->convert(l, l->key.data, l->key.size, &old, f->arg);
	else
		shoal_load_publish(l, old.data, old.size);
	shoal_release(&old);
	l->migrating = false;
	return l->published;
}

static int enter_and_begin(struct attempt *a, const void *data, size_t size, struct shoal_load **load);

static int begin_again(struct attempt *a, struct shoal_load *l, struct shoal_load **load)
{
	flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	l->fetch = false;
	end_load(l);
	return enter_and_begin(a, a->key.data, a->key.size, load);
}

/* Outside a read-side section: the converter is the caller's code. */
static int migrate(struct attempt *a, struct shoal_load **load)
{
	struct shoal_load *l = *load;
	const struct fallback *f;
	void *key;
	size_t size;
	int r;

	*load = NULL;
	l->fetch = true; /* the handle outlives the publication */
	if (store_old_key(a->k, a->key.data, a->key.size, &f, &key, &size)) {
		carry_over(l, f, key, size);
		free(key);
	}
	if (l->published) {
		count(l, COUNTER_migrated);
		shoal_release(a->value);
		*a->value = l->result;
		a->value->source = SHOAL_MIGRATED;
		a->value->freshness = now_ms(segment_of(l)) < l->bounds.fresh ? SHOAL_FRESH : SHOAL_STALE;
		free_load(l);
		return SHOAL_OK;
	}
	drop_space(l);
	l->fetch = a->fetch;
	a->seat = handle_enter(a->k->cache, &r);
	if (!a->seat) {
		shoal_load_cancel(l);
		if (a->fetch)
			free_load(l);
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

static int enter_and_begin(struct attempt *a, const void *data, size_t size, struct shoal_load **load)
{
	int r;

	memset(a->value, 0, sizeof(*a->value));
	*load = NULL;
	a->seat = handle_enter(a->k->cache, &r);
	if (!a->seat)
		return r;
	r = store_key(a->k, &a->seat->member->segment, data, size, &a->key) ? begin(a, load) : SHOAL_ERR_INVALID;
	handle_leave();
	return r == BEGIN_MIGRATE ? migrate(a, load) : r;
}

EXPORT int shoal_begin(struct shoal_keyspace *k, const void *key, size_t key_size, struct shoal_load **load,
                       struct shoal_value *value)
{
	struct attempt a = {.k = k, .value = value};

	if (!k || !load || !value)
		return SHOAL_ERR_INVALID;
	return enter_and_begin(&a, key, key_size, load);
}

/* ---- wait -------------------------------------------------------------------------------------------------- */

static int got_value(struct shoal_load *l, struct shoal_value *value)
{
	unjoin(l);
	value->source = SHOAL_COALESCED;
	count(l, COUNTER_coalesced);
	return SHOAL_OK;
}

/* A fresh value has come while this one led, or waited to: nothing to load. */
static int got_instead(struct shoal_load *l, struct shoal_value *value)
{
	if (l->coalesced)
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	value->source = SHOAL_COALESCED;
	count(l, COUNTER_coalesced);
	return SHOAL_OK;
}

static int now_leading(struct shoal_load *l, struct seat *seat, struct shoal_value *value, const struct ticket *t,
                       enum flight_outcome outcome)
{
	unjoin(l);
	l->ticket = *t;
	l->coalesced = outcome == OUTCOME_LEAD || outcome == OUTCOME_TAKEOVER;
	l->takeover = outcome == OUTCOME_TAKEOVER;
	if (l->coalesced && store_get(seat, l->k, &l->key, value) == AGE_FRESH)
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

	if (store_get(seat, l->k, &l->key, value) == AGE_FRESH)
		return got_instead(l, value);
	shoal_release(value);
	if (l->coalesced && !flight_renew(l->seat, &l->ticket, now_ms(&seat->member->segment), l->k->policy.lease_ms)) {
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
		w32_sub(&l->seat->loads, 1);
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

/* P.4: its flight ends, if it leads one and waits for a permit; its place in the queue does outside, in wait_for(). */
static void begin_anew(struct shoal_load *l, struct seat *seat)
{
	unjoin(l);
	flight_uncross(l->seat);
	if (l->coalesced) {
		flight_end(l->seat, &l->ticket, FLIGHT_FREE);
		registry_drop(l->seat);
	}
	l->coalesced = l->queued = false;
	take_seat(l, seat);
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
	take_seat(l, seat);
	age = store_get(seat, l->k, &l->key, value);
	if (age <= AGE_STALE)
		return got_value(l, value);
	if (!l->joined || !flight_error(s, &l->ticket, &error))
		outcome = flight_claim(seat, &l->fk, now_ms(s), l->k->policy.lease_ms, &t, &error);
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

static void count_wait(const struct shoal_load *l, uint64_t ns)
{
	struct keyspace *record;

	urcu_bp_read_lock();
	record = &move_member(&l->k->cache->member)->segment.keyspaces[l->k->id];
	histogram_add(record->wait_histogram, ns);
	w64_add(&record->counters[COUNTER_wait_ns_sum], ns);
	urcu_bp_read_unlock();
}

/* Where the region has moved it is out of the old one's queue first, or it might get two permits. */
static int enter_and_look(struct shoal_load *l, struct shoal_value *value)
{
	struct seat *seat;
	int r;

	seat = handle_enter(l->k->cache, &r);
	if (seat && l->permitted && (l->permit.seat->member != seat->member || l->seat->member != seat->member)) {
		handle_leave();
		give_permit_back(l);
		seat = handle_enter(l->k->cache, &r);
	}
	if (!seat)
		return r;
	r = look(l, seat, value);
	handle_leave();
	settle_left(l);
	return r;
}

/* The wait loop: look, sleep, wake some others, look. What is published at the very deadline is still returned. */
static int wait_for(struct shoal_load *l, uint32_t timeout_ms, struct shoal_value *value)
{
	uint64_t begin_ns = clock_system_ns(CLOCK_MONOTONIC), deadline = begin_ns + (uint64_t)timeout_ms * 1000000;
	bool late;
	int r;

	for (;;) {
		late = clock_system_ns(CLOCK_MONOTONIC) >= deadline;
		r = enter_and_look(l, value);
		if (r != SHOAL_WAIT || late)
			break;
		if (!l->queued && running && flight_is_crossed(l->seat, &l->ticket)) {
			r = SHOAL_ERR_DEADLOCK;
			count(l, COUNTER_timeouts);
			break;
		}
		if (l->queued) {
			permit_sleep(&l->permit, deadline);
		} else {
			flight_sleep(l->seat, &l->ticket, deadline);
			flight_relay(segment_of(l), &l->ticket);
		}
	}
	if (running)
		flight_uncross(l->seat);
	if (timeout_ms)
		count_wait(l, clock_system_ns(CLOCK_MONOTONIC) - begin_ns);
	if (r != SHOAL_WAIT)
		return r;
	if (timeout_ms)
		count(l, l->queued ? COUNTER_busy : COUNTER_timeouts);
	return l->queued ? SHOAL_ERR_BUSY : SHOAL_ERR_TIMEOUT;
}

EXPORT int shoal_wait(struct shoal_load *l, uint32_t timeout_ms, struct shoal_value *value)
{
	int r;

	if (!l || !value)
		return SHOAL_ERR_INVALID;
	memset(value, 0, sizeof(*value));
	if (l->state != WAITING)
		return SHOAL_ERR_INVALID;
	if (!is_ours(l))
		return SHOAL_ERR_SUPERSEDED;
	r = wait_for(l, timeout_ms == SHOAL_FOREVER ? l->k->policy.wait_ms : timeout_ms, value);
	if (r == SHOAL_OK)
		end_load(l);
	return r;
}

/* ---- space for the value ----------------------------------------------------------------------------------- */

static bool leads(const struct shoal_load *l)
{
	return l && l->state == LEADING && is_ours(l);
}

/* What is warmed has to prove itself. */
static enum log_kind kind_of(const struct shoal_load *l, const struct seat *seat, size_t size)
{
	return l->warming ? LOG_PROBATION : room_kind(&seat->member->segment, &l->key, size);
}

/* In the log, behind a pin of this thread. False: no room, no pin, too big, not to be stored. */
static bool reserve_in_log(struct shoal_load *l, struct seat *seat, size_t size, uint64_t *offset, unsigned *pin)
{
	*pin = store_pin(seat, now_ms(&seat->member->segment));
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
	drop_space(l);
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

/* The loads of the key that are older than mine end before mine shows: else an overdue one, already past its look at the
 * index, could come after mine was seen and evicted. */
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
	uint64_t word;

	while (!done) {
		if (is_behind_barrier(l, s) || index_place(seat, &l->key, l->generation, READING, OTHER, &target)) {
			flight_end(seat, &l->ticket, FLIGHT_FREE);
			return SHOAL_ERR_SUPERSEDED;
		}
		name_target(seat, &target);
		mine = flight_publishing(seat, &l->ticket);
		word = index_word(&l->key, offset, target.own ? target.expected : 0);
		done = mine && index_commit(s, &target, word, length, until_ms);
		if (target.announced)
			rcu_clear(seat, target.announced);
		if (!mine || (!done && !flight_unpublish(seat, &l->ticket)))
			return SHOAL_ERR_SUPERSEDED;
	}
	index_settle(seat, &l->key, READING, OTHER);
	if (younger)
		store_nudge(seat, &l->fk, l->ticket.slot);
	return flight_end(seat, &l->ticket, FLIGHT_FREE) ? SHOAL_OK : SHOAL_ERR_SUPERSEDED;
}

/* Write the entry around the value and publish it. */
static int store_value(struct shoal_load *l, struct seat *seat, size_t size)
{
	const struct segment *s = &seat->member->segment;
	uint64_t offset = l->offset, born = l->migrating ? l->inherited_ms : now_ms(s), cost_us;
	struct lives lives = l->migrating ? l->inherited : store_lives(l->k, l->fresh_ms, l->stale_ms, l->generation);
	struct packed packed = {.size = size};
	int r = SHOAL_OK;

	if (!l->pin) {
		store_pack(l->k, l->heap, size, &packed);
		r = room_reserve(seat, WRITING, kind_of(l, seat, packed.size), l->key.size, packed.size, &offset);
		if (!r)
			memcpy(store_value_at(s, offset, &l->key), packed.data, packed.size);
		free(packed.owned);
		if (r)
			return r;
	}
	cost_us = (clock_ns(&s->clock) - l->began_ns) / 1000;
	store_fill(s, offset, &l->key, l->generation, born, &lives, STORED(packed.codec, packed.size), l->k->policy.schema,
		   cost_us);
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
		count(l, COUNTER_superseded);
		return;
	}
	count(l, COUNTER_uncached);
	flight_refuse(seat, &l->ticket, now_ms(&seat->member->segment) + for_ms);
}

/* P.4: its region has moved. */
static int publish_late(struct shoal_load *l)
{
	count_time(l, false);
	flight_end(l->seat, &l->ticket, FLIGHT_FREE);
	if (l->uncacheable)
		return SHOAL_OK;
	count(l, COUNTER_superseded);
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
	count(l, COUNTER_superseded);
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

	if (l->migrating && store_age(&l->bounds, now_ms(segment_of(l))) > AGE_STALE) { /* it ended while it was converted */
		drop_space(l);
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
	end_load(l);
	return r;
}

/* By one who doesn't lead, or in a child of fork: the handle ends all the same. */
static int not_leading(struct shoal_load *l)
{
	int r = l && !is_ours(l) ? SHOAL_ERR_SUPERSEDED : SHOAL_ERR_INVALID;

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
	if (l->published || (!data && size))
		return SHOAL_ERR_INVALID;
	space = shoal_load_reserve(l, size);
	if (!space) {
		shoal_load_cancel(l);
		return SHOAL_ERR_SYSTEM;
	}
	if (size)
		memcpy(space, data, size);
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
		mine = flight_fail(l->seat, &l->ticket, code, now_ms(segment_of(l)), l->k->policy.retry_ms);
	if (l->seat)
		count_time(l, true);
	end_load(l);
	return mine ? SHOAL_OK : SHOAL_ERR_SUPERSEDED;
}

EXPORT void shoal_load_cancel(struct shoal_load *l)
{
	if (!l || l->state == ENDED || l->migrating)
		return;
	if (is_ours(l) && l->coalesced)
		flight_end(l->seat, &l->ticket, FLIGHT_ORPHAN);
	else if (is_ours(l) && l->joined)
		unjoin(l);
	end_load(l);
}

EXPORT int shoal_load_renew(struct shoal_load *l)
{
	if (!leads(l) || !l->coalesced)
		return l && !is_ours(l) ? SHOAL_ERR_SUPERSEDED : SHOAL_ERR_INVALID;
	if (l->permitted)
		permit_renew(&l->permit, l->k->policy.lease_ms);
	return flight_renew(l->seat, &l->ticket, now_ms(segment_of(l)), l->k->policy.lease_ms) ? SHOAL_OK
											       : SHOAL_ERR_SUPERSEDED;
}

EXPORT void shoal_load_ttl(struct shoal_load *l, uint32_t fresh_ms, uint32_t stale_ms)
{
	if (!l)
		return;
	l->fresh_ms = fresh_ms;
	l->stale_ms = stale_ms;
}

EXPORT void shoal_load_uncacheable(struct shoal_load *l, uint32_t for_ms)
{
	if (!leads(l))
		return;
	l->uncacheable = true;
	l->uncacheable_ms = for_ms == SHOAL_NONE ? 0 : for_ms ? for_ms : l->k->policy.fresh_ms;
}

EXPORT const struct shoal_value *shoal_load_previous(struct shoal_load *l)
{
	return l && l->previous.data ? &l->previous : NULL;
}

/* ---- fetch ------------------------------------------------------------------------------------------------- */

/* What there is to serve now, within error_ms: while the loader ran, a bound may have passed or the key been deleted. */
static void bridge(struct shoal_load *l, struct shoal_value *value)
{
	struct seat *seat = l->seat ? handle_enter(l->k->cache, &(int){0}) : NULL;

	if (!seat)
		return;
	store_get(seat, l->k, &l->key, value);
	handle_leave();
}

/* The loader has returned; the handle is ours. */
static int after_loader(struct shoal_load *l, int code, struct shoal_value *value)
{
	if (l->state == LEADING)
		shoal_load_fail(l, code);
	else if (!code)
		code = l->code;
	if (l->published) {
		*value = l->result;
		return SHOAL_OK;
	}
	bridge(l, value);
	value->load_error = code;
	return value->data ? SHOAL_OK : SHOAL_ERR_LOAD;
}

static int run_loader(struct shoal_load *l, shoal_loader *loader, void *arg, struct shoal_value *value)
{
	struct seat *seat = l->seat ? handle_enter(l->k->cache, &(int){0}) : NULL; /* the one that runs it */
	int code, r;

	if (seat) {
		handle_leave();
		l->outer = running;
		running = l;
	}
	shoal_release(value);
	code = loader(l, l->key.data, l->key.size, arg);
	if (seat)
		running = l->outer;
	r = after_loader(l, code, value);
	free_load(l);
	return r;
}

static void count_alone(const struct shoal_keyspace *k)
{
	handle_count_now(k->cache, k->id, COUNTER_loads, 1);
	handle_count_now(k->cache, k->id, COUNTER_uncached, 1);
}

/* ---- in the background ------------------------------------------------------------------------------------- */

static void run_job(struct refresher_job *job, struct refresher_thread *thread)
{
	struct shoal_load *l = (struct shoal_load *)(void *)((char *)job - offsetof(struct shoal_load, job));
	struct shoal_value nothing = {0};
	void *context;

	if (!thread) {
		shoal_load_cancel(l);
		free_load(l);
	} else if (!refresher_context(thread, l->refresher, &context)) {
		shoal_load_fail(l, ENOMEM);
		free_load(l);
	} else {
		run_loader(l, l->refresher->load, context, &nothing);
		shoal_release(&nothing);
	}
}

/* Hand a refresh to a thread of its own. False: there is none, or its queue is full. */
static bool hand_over(struct shoal_load *l)
{
	bool pushed;

	l->refresher = atomic_load(&l->k->refresher);
	l->job.run = run_job;
	if (!l->refresher || !l->refresher->load)
		return false;
	urcu_bp_read_lock(); /* keeps the refresher: partner: the grace period in shoal_refresher_stop */
	pushed = refresher_push(atomic_load(&l->k->cache->refresher), w64_peek(&l->seat->member->wiped->token), &l->job);
	urcu_bp_read_unlock();
	return pushed;
}

/* The process's, of this handle, also after a resize. */
static uint64_t token_of(struct shoal *cache)
{
	struct seat *seat;
	uint64_t token;
	int error;

	seat = handle_enter(cache, &error); /* joins: a process that has not has none */
	if (!seat)
		return 0;
	token = w64_peek(&seat->member->wiped->token);
	handle_leave();
	return token;
}

EXPORT int shoal_refresher_start(struct shoal *cache, unsigned threads, unsigned queue)
{
	struct refresher *r = NULL, *before;
	uint64_t token;
	int result;

	if (!cache || !threads || !queue)
		return SHOAL_ERR_INVALID;
	token = token_of(cache);
	if (!token)
		return SHOAL_ERR_LIMIT;
	before = atomic_load(&cache->refresher);
	if (before && refresher_is_of(before, token))
		return SHOAL_ERR_INVALID;
	result = refresher_start(token, threads, queue, &r);
	if (!result && !atomic_compare_exchange_strong(&cache->refresher, &before, r)) {
		refresher_stop(r, token);
		result = SHOAL_ERR_INVALID;
	}
	return result;
}

EXPORT void shoal_refresher_stop(struct shoal *cache)
{
	struct refresher *r;
	uint64_t token;

	if (!cache || !(r = atomic_exchange(&cache->refresher, NULL)))
		return;
	urcu_bp_synchronize_rcu();
	urcu_bp_read_lock();
	token = w64_peek(&move_member(&cache->member)->wiped->token);
	urcu_bp_read_unlock();
	refresher_stop(r, token);
}

/* ---- fetch, for those without a place ---------------------------------------------------------------------- */

/* No place in the segment for this process or thread: the caller's loader still gives it its value. */
static int load_alone(struct attempt *a, const void *data, size_t size, struct shoal_load **load)
{
	a->key = (struct key){.data = data, .size = (uint32_t)size, .keyspace = a->k->id};
	a->seat = NULL;
	*load = new_load(a->k, NULL, &a->key, &a->fk, true);
	if (!*load)
		return SHOAL_ERR_SYSTEM;
	(*load)->state = LEADING;
	count_alone(a->k);
	return SHOAL_LEAD;
}

/* It has waited; the handle goes on if it leads now. */
static int waited(struct shoal_load *l, int r)
{
	if (r == SHOAL_LEAD)
		return r;
	if (r == SHOAL_OK)
		end_load(l);
	else
		shoal_load_cancel(l);
	free_load(l);
	return r;
}

int load_unjoined(struct shoal_keyspace *k, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                  struct shoal_value *value)
{
	struct attempt a = {.k = k, .value = value, .fetch = true};
	struct shoal_load *l;
	int r;

	r = enter_and_begin(&a, key, key_size, &l);
	if (l)
		l->warming = true;
	if (r == SHOAL_WAIT) {
		r = wait_for(l, 0, value);
		if (r == SHOAL_ERR_BUSY)
			r = wait_for(l, k->policy.wait_ms, value);
		r = waited(l, r);
	}
	return r == SHOAL_LEAD || r == SHOAL_REFRESH ? run_loader(l, loader, arg, value) : r;
}

EXPORT int shoal_fetch(struct shoal_keyspace *k, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                       struct shoal_value *value)
{
	struct attempt a = {.k = k, .value = value, .fetch = true};
	struct shoal_load *l;
	int r;

	if (!k || !loader || !value || !key || key_size < 1 || key_size > KEY_MAX)
		return SHOAL_ERR_INVALID;
	r = enter_and_begin(&a, key, key_size, &l);
	if (r == SHOAL_ERR_LIMIT)
		r = load_alone(&a, key, key_size, &l);
	if (r == SHOAL_WAIT)
		r = waited(l, wait_for(l, k->policy.wait_ms, value));
	if (r == SHOAL_REFRESH && hand_over(l))
		return SHOAL_OK;
	return r == SHOAL_LEAD || r == SHOAL_REFRESH ? run_loader(l, loader, arg, value) : r;
}

/* ---- thread exit ------------------------------------------------------------------------------------------- */

void load_thread_exit(void *arg)
{
	struct seat *seat = arg;
	struct shoal_load *l;

	while ((l = running)) {
		running = l->outer;
		if (!is_ours(l)) /* the parent's, in a child that was forked inside its loader */
			continue;
		if (l->state == LEADING)
			shoal_load_fail(l, 0);
		shoal_release(&l->result);
		free_load(l);
	}
	registry_leave(seat);
}
