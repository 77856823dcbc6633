/* SPDX-License-Identifier: MIT */
/*
 * The public verbs on values: look up, store, take away.
 *
 * C.1  A writer draws its generation, ends the older loads of the key, and then changes the index. A load that was
 *      still CLAIMING when it was passed by draws its generation later, and so has a later one.
 * C.2  Of two writers the later generation stays; the earlier one has then happened just before.
 *
 * Killed at any point a writer leaves: dead bytes; loads that were ended for nothing and are begun anew; two slots of
 * one key, of which every reader takes the newer. Never a half-written value: the index CAS comes last.
 */
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "hit.h"
#include "probe.h"
#include "room.h"
#include "store.h"
#include "watch.h"

/* ---- handles ----------------------------------------------------------------------------------------------- */

EXPORT int shoal_open(const char *name, const struct shoal_config *config, struct shoal **cache)
{
	struct shoal *c;
	struct member *m;
	int r;

	if (!cache)
		return SHOAL_ERR_INVALID;
	c = calloc(1, sizeof(*c));
	m = calloc(1, sizeof(*m));
	if (!c || !m) {
		r = SHOAL_ERR_SYSTEM;
		goto failed;
	}
	r = segment_open(name, config, &m->segment);
	if (r)
		goto failed;
	r = registry_open(m, fetch_thread_exit);
	if (r) {
		segment_close(&m->segment);
		goto failed;
	}
	atomic_store(&c->member, m);
	*cache = c;
	return SHOAL_OK;
failed:
	free(c);
	free(m);
	return r;
}

EXPORT void shoal_close(struct shoal *cache)
{
	struct shoal_keyspace *k, *next;
	struct refresher_loader *l, *l_before;
	struct fallback *f, *f_before;
	struct member *m;

	if (!cache)
		return;
	shoal_refresher_stop(cache);
	watch_close(atomic_exchange(&cache->watch, NULL), handle_token(cache));
	m = cache->member;
	process_notice_fork(m);
	atomic_store(&cache->member, NULL);
	urcu_bp_synchronize_rcu();
	registry_close(m);
	for (k = cache->keyspaces; k; k = next) {
		next = k->next;
		for (f = k->fallback; f; f = f_before) {
			f_before = f->before;
			free(f);
		}
		for (l = k->refresher; l; l = l_before) {
			l_before = l->before;
			free(l);
		}
		free(k);
	}
	free(cache);
}

EXPORT int shoal_unlink(const char *name)
{
	return segment_unlink(name);
}

EXPORT int shoal_reap(struct shoal *cache)
{
	struct seat *seat;
	int r;

	if (!cache)
		return SHOAL_ERR_INVALID;
	seat = handle_enter(cache, &r);
	if (!seat)
		return r;
	r = recover_all(seat->member);
	handle_leave();
	return r;
}

/* ---- look up ----------------------------------------------------------------------------------------------- */

static ALWAYS_INLINE int count_lookup(struct seat *seat, const struct shoal_keyspace *k, const void *key,
                                      size_t key_size, uint64_t hash, enum age age, uint64_t fresh_until_ms)
{
	if (unlikely(age > AGE_STALE)) {
		PROBE(miss, k->id, key, key_size, age);
		store_count_miss(seat, k, age);
		return SHOAL_MISS;
	}
	PROBE(hit, k->id, key, key_size, age);
	if (likely(age == AGE_FRESH))
		handle_count_fresh(seat, k->id, hash);
	else
		handle_count_stale(seat, k->id, hash, fresh_until_ms);
	return SHOAL_OK;
}

static NOINLINE int get_any(struct seat *seat, const struct shoal_keyspace *k, const void *data, size_t size,
                            uint64_t hash, struct shoal_value *value)
{
	struct key key = {.data = data, .size = (uint32_t)size, .keyspace = k->id, .hash = hash};
	enum age age = hit_get_any(seat, k, &key, value);

	if (unlikely(age == AGE_ERROR))
		shoal_release(value);
	return count_lookup(seat, k, data, size, hash, age, store_hold(value)->fresh_until_ms);
}

static ALWAYS_INLINE int get(struct seat *seat, const struct shoal_keyspace *k, const void *data, size_t size,
                             uint64_t hash, struct shoal_value *value)
{
	enum age age = AGE_DEAD;

	if (unlikely(hit_get_usual(seat, k, data, size, hash, value, &age) == UNUSUAL))
		return get_any(seat, k, data, size, hash, value);
	return count_lookup(seat, k, data, size, hash, age, store_hold(value)->fresh_until_ms);
}

EXPORT int shoal_get(struct shoal_keyspace *k, const void *data, size_t size, struct shoal_value *value)
{
	struct seat *seat;
	uint64_t hash;
	int r;

	if (unlikely(!k || !value))
		return SHOAL_ERR_INVALID;
	memset(value, 0, sizeof(*value));
	if (unlikely(!store_is_key(data, size)))
		return SHOAL_ERR_INVALID;
	hash = store_hash(k, data, size);
	seat = handle_enter(k->cache, &r);
	if (unlikely(!seat))
		return r;
	r = get(seat, k, data, size, hash, value);
	handle_leave();
	return r;
}

static NOINLINE int read_any(struct seat *seat, const struct shoal_keyspace *k, const void *data, size_t key_size,
                                 uint64_t hash, void *buffer, size_t capacity, size_t *size)
{
	struct key key = {.data = data, .size = (uint32_t)key_size, .keyspace = k->id, .hash = hash};
	struct index_hit hit;
	uint64_t fresh_until = 0;
	size_t plain = 0;
	enum age age = store_find(seat, k, &key, READING, &hit);
	int r;

	if (age <= AGE_STALE) {
		store_touch(seat, k->id, hit.slot, hit.word);
		plain = store_plain_size(&hit.e);
		fresh_until = store_bounds(&seat->member->segment, k->id, hit.e.entry, &k->policy).fresh;
		if (unlikely(plain <= capacity && !store_copy(&hit.e, buffer, plain))) {
			store_reject(seat, k, &key, &hit);
			age = AGE_CORRUPT;
		}
	}
	rcu_clear(seat, READING);
	r = count_lookup(seat, k, data, key_size, hash, age, fresh_until);
	if (!r && size)
		*size = plain;
	return !r && unlikely(plain > capacity) ? SHOAL_ERR_TOO_BIG : r;
}

EXPORT int shoal_read(struct shoal_keyspace *k, const void *data, size_t key_size, void *buffer, size_t capacity,
                      size_t *size)
{
	const struct segment *s;
	struct seat *seat;
	enum hit_outcome outcome;
	struct hit hit;
	uint64_t hash;
	int r = SHOAL_OK;

	if (unlikely(!k || (!buffer && capacity) || !store_is_key(data, key_size)))
		return SHOAL_ERR_INVALID;
	hash = store_hash(k, data, key_size);
	seat = handle_enter(k->cache, &r);
	if (unlikely(!seat))
		return r;
	s = &seat->member->segment;
	outcome = hit_find(seat, s, k, data, key_size, hash, READING, clock_coarse_ms(&s->clock), &hit);
	if (unlikely(outcome)) {
		r = outcome == ABSENT ? count_lookup(seat, k, data, key_size, hash, AGE_DEAD, 0)
				      : read_any(seat, k, data, key_size, hash, buffer, capacity, size);
		handle_leave();
		return r;
	}
	count_lookup(seat, k, data, key_size, hash, hit.age, hit.fresh_until_ms);
	if (size)
		*size = hit.size;
	if (unlikely(hit.size > capacity))
		r = SHOAL_ERR_TOO_BIG;
	else if (likely(hit.size)) /* `buffer` may be NULL else */
		memcpy(buffer, hit.value, hit.size);
	rcu_clear(seat, READING);
	handle_leave();
	return r;
}

/* The misses of a batch overlap: first all buckets are fetched, then all entries, then they are read. */
#define BATCH 16u

static void get_batch(struct seat *seat, const struct shoal_keyspace *k, const struct shoal_slice *slices, size_t n,
                      struct shoal_value *values, int *outcomes)
{
	const struct segment *s = &seat->member->segment;
	uint64_t hashes[BATCH];
	size_t i;

	for (i = 0; i < n; i++) {
		if (unlikely(!store_is_key(slices[i].data, slices[i].size)))
			continue;
		hashes[i] = store_hash(k, slices[i].data, slices[i].size);
		index_prefetch(s, hashes[i]);
	}
	for (i = 0; i < n; i++)
		if (likely(store_is_key(slices[i].data, slices[i].size)))
			index_prefetch_entry(s, hashes[i]);
	for (i = 0; i < n; i++)
		outcomes[i] = likely(store_is_key(slices[i].data, slices[i].size))
				      ? get(seat, k, slices[i].data, slices[i].size, hashes[i], &values[i])
				      : SHOAL_ERR_INVALID;
}

EXPORT int shoal_get_many(struct shoal_keyspace *k, const struct shoal_slice *keys, size_t n,
                          struct shoal_value *values, int *outcomes)
{
	struct seat *seat;
	size_t i;
	int r;

	if (!k || (n && (!keys || !values || !outcomes)))
		return SHOAL_ERR_INVALID;
	if (n)
		memset(values, 0, n * sizeof(*values));
	seat = handle_enter(k->cache, &r);
	if (unlikely(!seat)) {
		for (i = 0; i < n; i++)
			outcomes[i] = store_is_key(keys[i].data, keys[i].size) ? r : SHOAL_ERR_INVALID;
		return SHOAL_OK;
	}
	for (i = 0; i < n; i += BATCH)
		get_batch(seat, k, keys + i, min_u64(BATCH, n - i), values + i, outcomes + i);
	handle_leave();
	return SHOAL_OK;
}

EXPORT void shoal_release(struct shoal_value *value)
{
	struct hold *hold;

	if (!value)
		return;
	hold = store_hold(value);
	free(hold->heap);
	/* Another epoch: a child's copy of a parent's value. The pin is the parent's. */
	if (hold->seat && w64_peek(&hold->seat->member->wiped->epoch) == hold->epoch)
		registry_settle(hold->seat, (unsigned)hold->pin);
	memset(value, 0, sizeof(*value));
}

/* ---- the version before ------------------------------------------------------------------------------------ */

typedef int change(struct shoal_keyspace *k, const void *key, size_t size);

/* What is done to a key is done to its old spelling first, or a miss would bring the old value back. */
static int change_old(struct shoal_keyspace *k, const void *key, size_t size, change *verb)
{
	struct old_key old;
	int r = SHOAL_MISS;

	if (likely(!atomic_load(&k->fallback)) || (r = store_old_key(k, key, size, &old)))
		return r;
	r = verb(old.fallback->old, old.data, old.size);
	free(old.owned);
	return r;
}

/* ---- store ------------------------------------------------------------------------------------------------- */

/* Put a written entry into the index, mostly in the slot that was guessed (or NULL). INDEX_NEWER: the key has a newer
 * generation. */
static int put(struct seat *seat, const struct key *key, word64 *slot, uint64_t offset, uint64_t generation,
               uint64_t until_ms)
{
	const struct segment *s = &seat->member->segment;
	uint32_t length = w32_peek(&log_at(s, offset)->length);
	struct index_target target;
	uint64_t word = 0;
	bool done;
	int r;

	do {
		r = slot && index_place_on(seat, key, generation, slot, READING, &target)
			    ? SHOAL_OK
			    : index_place(seat, key, generation, READING, OTHER, &target);
		if (r)
			break;
		word = index_word(key, offset, target.own ? target.expected : 0);
		done = index_commit(s, &target, word, length, until_ms);
		rcu_clear(seat, target.announced);
	} while (!done);
	if (r || !target.alone)
		/* also beneath a newer one, or an older one could come back after it */
		index_settle(seat, key, r ? 0 : word, READING, OTHER);
	return r;
}

/* End the older loads, and remove what they are being published over. */
static unsigned end_loads(struct seat *seat, const struct key *key, struct turn *turn)
{
	struct flight_key fk;
	unsigned removed = 0;

	if (likely(!flight_match(&seat->member->segment, key->hash)))
		return 0;
	fk = store_flight_key(&seat->member->segment, key);
	while (store_supersede(seat, key, &fk, UINT32_MAX, turn))
		removed += index_remove(seat, key, turn->seen.below, READING, OTHER);
	return removed;
}

static int remove_key(struct seat *seat, const struct key *key, uint64_t *generation)
{
	struct turn turn = {.seen.below = handle_draw(&seat->member->segment, generation)};
	unsigned removed = end_loads(seat, key, &turn);

	removed += index_remove(seat, key, turn.seen.below, READING, OTHER);
	return removed ? SHOAL_OK : SHOAL_MISS;
}

static int set(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, const void *data, size_t size,
               uint32_t fresh_ms, uint32_t stale_ms, uint64_t *drawn)
{
	const struct segment *s = &seat->member->segment;
	uint64_t offset, generation, born, there;
	struct flight_key fk;
	word64 *slot;
	struct turn turn = {0};
	struct lives lives;
	struct packed packed;
	int r;

	index_prefetch(s, key->hash);
	store_pack(k, data, size, &packed);
	born = clock_ms(&s->clock); /* this and what follows is done while the bucket is fetched */
	generation = handle_draw(s, drawn);
	lives = store_lives(k, fresh_ms, stale_ms, key->hash ^ generation);
	turn.seen.below = generation;
	end_loads(seat, key, &turn);
	slot = index_guess(s, key->hash, &there);
	index_prefetch_guessed(s, there); /* what it replaces is fetched while the new one is written */
	r = room_reserve(seat, WRITING, room_kind_guessed(s, key, packed.size, there), key->size, packed.size, &offset);
	if (r) { /* the caller has a newer value than the one here: better none than the older */
		remove_key(seat, key, drawn);
		free(packed.owned);
		return r;
	}
	if (packed.size)
		memcpy(store_value_at(s, offset, key), packed.data, packed.size);
	store_fill(s, offset, key, generation, born, &lives, STORED(packed.codec, packed.size), k->policy.schema, 0,
	           packed.data);
	if (unlikely(packed.owned))
		free(packed.owned);
	/* a newer one is there: ours was just before it */
	put(seat, key, slot, offset, generation, store_end(born, &lives));
	store_count(s, k, key->hash, born);
	if (unlikely(turn.younger)) {
		fk = store_flight_key(s, key);
		store_nudge(seat, &fk, UINT32_MAX);
	}
	rcu_clear(seat, WRITING);
	return SHOAL_OK;
}

EXPORT int shoal_set_ttl(struct shoal_keyspace *k, const void *data, size_t key_size, const void *value, size_t size,
                         uint32_t fresh_ms, uint32_t stale_ms)
{
	uint64_t drawn = 0;
	struct seat *seat;
	struct key key;
	int r;

	if (!k || (!value && size))
		return SHOAL_ERR_INVALID;
	r = change_old(k, data, key_size, shoal_delete);
	if (unlikely(r < 0))
		return r;
	if (unlikely(!store_key(k, data, key_size, &key)))
		return SHOAL_ERR_INVALID;
	do {
		seat = handle_change(k->cache, &r);
		if (!seat)
			return r;
		r = set(seat, k, &key, value, size, fresh_ms, stale_ms, &drawn);
	} while (!handle_changed(seat));
	return r;
}

EXPORT int shoal_set(struct shoal_keyspace *k, const void *key, size_t key_size, const void *data, size_t size)
{
	return shoal_set_ttl(k, key, key_size, data, size, 0, 0);
}

/* ---- take away --------------------------------------------------------------------------------------------- */

/* A change that takes away. `before`: what it did to the key's older version. */
typedef int take_away(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, uint64_t *generation);

static int change_key(struct shoal_keyspace *k, const void *data, size_t size, take_away *verb, uint64_t generation,
                      int before)
{
	struct seat *seat;
	struct key key;
	int r;

	if (unlikely(before < 0))
		return before;
	do {
		seat = handle_change(k->cache, &r);
		if (!seat)
			return r;
		r = store_key(k, data, size, &key) ? verb(seat, k, &key, &generation) : SHOAL_ERR_INVALID;
		if (r == SHOAL_OK)
			before = r;
	} while (!handle_changed(seat));
	return r == SHOAL_MISS ? before : r;
}

static int delete(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, uint64_t *generation)
{
	return remove_key(seat, key, generation);
}

EXPORT int shoal_delete(struct shoal_keyspace *k, const void *data, size_t size)
{
	if (!k)
		return SHOAL_ERR_INVALID;
	return change_key(k, data, size, delete, 0, change_old(k, data, size, shoal_delete));
}

static int reject(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, uint64_t *generation)
{
	struct index_hit hit = {0};
	bool there = true, dropped = false;

	index_settle(seat, key, 0, READING, OTHER); /* no older one may show instead */
	while (there && !dropped && index_find(seat, key, WANT_NEWEST, READING, OTHER, &hit)) {
		there = hit.e.entry->generation == *generation;
		dropped = there && index_drop(&seat->member->segment, &hit); /* unless it has just been moved */
		rcu_clear(seat, hit.announced);
	}
	return dropped ? SHOAL_OK : SHOAL_MISS;
}

EXPORT int shoal_reject(struct shoal_keyspace *k, const void *data, size_t size, struct shoal_value *value)
{
	int r;

	if (!k || !value)
		return SHOAL_ERR_INVALID;
	r = change_key(k, data, size, reject, value->generation, SHOAL_MISS);
	if (r == SHOAL_OK || r == SHOAL_MISS)
		handle_count_now(k->cache, k->id, COUNTER_rejected, 1);
	if (r == SHOAL_OK) /* it may have been carried over from there, and would be again */
		change_old(k, data, size, shoal_delete);
	shoal_release(value);
	return r;
}

/* Stale from now: the stale bound counts from now and never lies behind the old one; the error bound likewise. A value
 * that is older than 49 days has its birth moved up, so that its age fits. The copy never was fresh: "until now" would
 * be fresh once more to who reads a coarse clock that lags by more than it may (12 ms were seen on a busy machine). */
static struct lives expired_lives(const struct segment *s, const struct shoal_keyspace *k, const struct entry *e,
                                  uint64_t *born)
{
	struct bounds own = store_bounds(s, k->id, e, &k->policy);
	struct bounds b = store_expired(&own, clock_ms(&s->clock), &k->policy);

	*born = max_u64(e->born_ms,
	                b.stale != UINT64_MAX && b.stale > SHOAL_FOREVER - 1 ? b.stale - (SHOAL_FOREVER - 1) : 0);
	return (struct lives){0, store_life(*born, b.stale), store_life(b.stale, b.error)};
}

/* Write the copy of an announced entry with new deadlines, and put it in that entry's very place. False: the place has
 * changed. */
static bool put_expired(struct seat *seat, const struct shoal_keyspace *k, const struct key *key,
                        const struct index_hit *hit, uint64_t offset)
{
	const struct segment *s = &seat->member->segment;
	struct index_target target = {hit->slot, hit->word, true, false, hit->e.length, hit->announced};
	const struct entry *old = hit->e.entry;
	uint64_t born;
	struct lives lives = expired_lives(s, k, old, &born);

	memcpy(store_value_at(s, offset, key), hit->e.value, hit->e.value_size);
	if (unlikely(!store_is_whole(s, &hit->e))) /* spoilt since it was found: who finds it again sees it */
		return false;
	store_fill(s, offset, key, old->generation, born, &lives, hit->e.stored, ENTRY_SCHEMA(old->kind), old->cost_us,
	           NULL);
	return index_commit(s, &target, index_word(key, offset, hit->word), w32_peek(&log_at(s, offset)->length),
			    store_end(born, &lives));
}

/*
 * Entries are immutable: the value is copied with new deadlines. The copy keeps the generation, or a set or delete that
 * drew its own just before ours would take the old value for a newer one and leave it. It replaces the entry it was
 * made from and nothing else, or an older value could come back over a newer one. Its length is learnt first, so that
 * nothing is announced while room is made.
 */
static int copy_expired(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, uint64_t generation)
{
	const struct segment *s = &seat->member->segment;
	uint64_t offset = 0, reserved = 0;
	struct index_hit hit;
	bool done = false;
	int r = SHOAL_OK;

	while (!done && !r) {
		if (store_find(seat, k, key, READING, &hit) >= AGE_DEAD) {
			r = SHOAL_MISS;
		} else if (hit.e.entry->generation >= generation && index_is_ahead(s, &hit)) {
			index_drop(s, &hit);
			r = SHOAL_MISS;
		} else if (hit.e.entry->generation >= generation) {
			done = true; /* newer than this call */
		} else if (offset && hit.e.value_size <= reserved) {
			done = put_expired(seat, k, key, &hit, offset);
		} else {
			reserved = hit.e.value_size;
			rcu_clear(seat, READING);
			r = room_reserve(seat, WRITING, room_kind(s, key, reserved), key->size, reserved, &offset);
		}
		rcu_clear(seat, READING);
	}
	rcu_clear(seat, WRITING);
	if (r) /* dead, or no room for the copy: then it goes */
		index_remove(seat, key, generation, READING, OTHER);
	else
		index_settle(seat, key, 0, READING, OTHER);
	return r;
}

/* The copy kills the target of a load that is being published over its original, too. */
static int expire(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, uint64_t *drawn)
{
	const struct segment *s = &seat->member->segment;
	struct flight_key fk = store_flight_key(s, key);
	struct turn turn = {.seen.below = handle_draw(s, drawn)};
	uint64_t generation = turn.seen.below;
	int r;

	if (!k->policy.stale_ms)
		return remove_key(seat, key, drawn);
	while (store_supersede(seat, key, &fk, UINT32_MAX, &turn))
		copy_expired(seat, k, key, generation);
	r = copy_expired(seat, k, key, generation);
	return r == SHOAL_MISS ? r : SHOAL_OK;
}

EXPORT int shoal_expire(struct shoal_keyspace *k, const void *data, size_t size)
{
	if (!k)
		return SHOAL_ERR_INVALID;
	return change_key(k, data, size, expire, 0, change_old(k, data, size, shoal_expire));
}
