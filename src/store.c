/* SPDX-License-Identifier: MIT */
/* See store.h. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

/* ---- age --------------------------------------------------------------------------------------------------- */

static uint64_t after(uint64_t begin, uint32_t life)
{
	return begin == UINT64_MAX || life == SHOAL_FOREVER ? UINT64_MAX : begin + life;
}

static struct bounds own_bounds(const struct entry *e)
{
	struct bounds b;

	b.fresh = after(e->born_ms, e->fresh_for);
	b.stale = after(b.fresh, e->stale_for);
	b.error = after(b.stale, e->error_for);
	if (!e->fresh_for) /* expired: not by any clock, not even one that lags behind its birth */
		b.fresh = 0;
	return b;
}

struct bounds store_expired(const struct bounds *own, uint64_t at_ms, const struct shoal_policy *p)
{
	struct bounds b;

	b.fresh = min_u64(own->fresh, at_ms);
	b.stale = min_u64(own->stale, after(at_ms, p->stale_ms));
	b.error = min_u64(own->error, after(b.stale, p->error_ms));
	return b;
}

/* Since when is a generation stale by an expire of the keyspace: the first one that came after it. 0: dead; UINT64_MAX:
 * not at all. An expire that is being written may be missed for its first instant; what it is written over is not, as
 * `forgotten` was raised before. */
static uint64_t expired_at(const struct keyspace *k, uint64_t generation)
{
	uint64_t best = UINT64_MAX, at = UINT64_MAX, g;
	unsigned i;

	if (generation <= w64_load(&k->deleted) || generation <= w64_load(&k->forgotten))
		return 0;
	for (i = 0; i < BARRIERS; i++) {
		g = w64_load(&k->expired[i].generation);
		if (g < generation || g >= best)
			continue;
		best = g;
		at = w64_load(&k->expired[i].at_ms);
	}
	return at;
}

static struct bounds after_barrier(const struct bounds *own, uint64_t at, const struct shoal_policy *p)
{
	return at == UINT64_MAX ? *own : at ? store_expired(own, at, p) : (struct bounds){0};
}

struct bounds store_bounds(const struct segment *s, uint32_t keyspace, const struct entry *e,
                           const struct shoal_policy *policy)
{
	const struct keyspace *k = &s->keyspaces[keyspace];
	struct bounds own;

	if (likely(e->generation > w64_load(&k->barrier)))
		return own_bounds(e);
	own = own_bounds(e);
	return after_barrier(&own, expired_at(k, e->generation), policy);
}

enum age store_age(const struct bounds *b, uint64_t now_ms)
{
	return now_ms < b->fresh   ? AGE_FRESH
	       : now_ms < b->stale ? AGE_STALE
	       : now_ms < b->error ? AGE_ERROR
	                           : AGE_EXPIRED;
}

/* The coarse clock decides where it can't be wrong: what is fresh by more than its lag is fresh. */
static enum age age_now(const struct clock *clock, const struct bounds *b)
{
	if (likely(clock_coarse_ms(clock) + CLOCK_COARSE_LAG_MS < b->fresh))
		return AGE_FRESH;
	return store_age(b, clock_ms(clock));
}

uint64_t store_end(uint64_t born_ms, const struct lives *l)
{
	return log_end(born_ms, l->fresh, l->stale, l->error);
}

uint32_t store_life(uint64_t begin, uint64_t end)
{
	return end == UINT64_MAX ? SHOAL_FOREVER : end <= begin ? 0 : (uint32_t)min_u64(end - begin, SHOAL_FOREVER - 1);
}

/* Jitter shortens only: fresh_ms stays a bound. */
struct lives store_lives(const struct shoal_keyspace *k, uint32_t fresh_ms, uint32_t stale_ms, uint64_t random)
{
	struct lives l = {handle_or_default(fresh_ms, k->policy.fresh_ms),
	                  handle_or_default(stale_ms, k->policy.stale_ms), k->policy.error_ms};

	if (l.fresh != SHOAL_FOREVER)
		l.fresh -= (uint32_t)((uint64_t)l.fresh * k->policy.jitter_permille / 1000 * (hash_mix(random) >> 44) >>
		                      20);
	return l;
}

/* ---- look-up ----------------------------------------------------------------------------------------------- */

bool store_key(const struct shoal_keyspace *k, const void *data, size_t size, struct key *key)
{
	if (unlikely(!store_is_key(data, size)))
		return false;
	*key = (struct key){data, (uint32_t)size, k->id, store_hash(k, data, size)};
	return true;
}

int store_old_key(const struct shoal_keyspace *k, const void *key, size_t size, struct old_key *old)
{
	const struct fallback *f = atomic_load(&((struct shoal_keyspace *)k)->fallback);

	*old = (struct old_key){f, key, size, NULL};
	if (likely(!f || !f->old) || !store_is_key(key, size))
		return SHOAL_MISS;
	if (f->old_key) {
		old->data = old->owned = malloc(KEY_MAX);
		if (!old->owned)
			return SHOAL_ERR_SYSTEM;
		if (f->old_key(key, size, old->owned, KEY_MAX, &old->size, f->arg))
			old->size = 0;
	}
	if (store_is_key(old->data, old->size))
		return SHOAL_OK;
	free(old->owned);
	return SHOAL_MISS;
}

struct flight_key store_flight_key(const struct segment *s, const struct key *key)
{
	return (struct flight_key){
		.hash = key->hash,
		.second = hash_bytes(key->data, key->size, ~s->geometry.seed - key->keyspace),
		.keyspace = key->keyspace,
		.size = key->size,
		.data = key->data,
	};
}

/* Is it among the entries of an extent in use? A slot that was left behind by a scribble may point to what will be
 * written over, checksum and all, while the value is in hand. */
static bool is_kept(const struct segment *s, const struct index_hit *hit)
{
	uint64_t offset = SLOT_BYTES(hit->word);
	uint32_t x = extent_of(s, offset);
	enum extent_state state = EXTENT_STATE(extents_word(s, x));

	return state >= EXTENT_OPEN && state <= EXTENT_EVICTING &&
	       (uint64_t)((const char *)hit->e.entry - extent_bytes(s, x)) + hit->e.length <=
	               w32_load(&s->extents[x].tail);
}

bool store_is_whole(const struct segment *s, const struct log_entry *e)
{
	return !(s->geometry.flags & SHOAL_CHECKSUM) || log_is_intact(e);
}

bool store_keeps(struct shoal_value *value, const struct key *key)
{
	const struct hold *hold = store_hold(value);
	const struct segment *s;
	struct log_entry e;

	if (hold->heap || !hold->seat)
		return true;
	s = &hold->seat->member->segment;
	return log_read(s, (uint64_t)((const char *)value->data - (const char *)log_at(s, 0)) -
	                   offsetof(struct entry, key) - align_up(key->size, 8), &e) &&
	       store_is_whole(s, &e);
}

/* Bytes that are not what was stored: out with them, counted, and no older duplicate in their place. */
void store_reject(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, const struct index_hit *hit)
{
	handle_count(&seat->member->segment, k->id, COUNTER_corrupt, 1);
	tell_of(&seat->member->segment.listener, SHOAL_LOG_ERROR,
	        "a value in keyspace %" PRIu32 " is corrupt, and removed", k->id);
	index_settle(seat, key, 0, OTHER, WALKING);
	index_drop(&seat->member->segment, hit);
}

/* The newest entry, announced in `a`. Two of them: without the older one, it is announced where it is wanted. Likewise
 * one that has to be settled (I.6). */
static bool find_newest(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, unsigned a,
                        struct index_hit *hit)
{
	unsigned count;

	for (;;) {
		count = index_find(seat, key, WANT_NEWEST, a, OTHER, hit);
		if (unlikely(hit->bad))
			handle_count(&seat->member->segment, k->id, COUNTER_corrupt, hit->bad);
		if (likely(!count || (hit->announced == a && !index_is_unsure(&seat->member->segment, key, hit))))
			return count;
		rcu_clear(seat, hit->announced);
		index_settle(seat, key, 0, READING, OTHER);
	}
}

static enum age judge(struct seat *seat, const struct shoal_keyspace *k, const struct key *key,
                      const struct index_hit *hit)
{
	const struct segment *s = &seat->member->segment;
	struct bounds bounds = store_bounds(s, k->id, hit->e.entry, &k->policy);
	enum age age = age_now(&s->clock, &bounds);

	if (unlikely(s->geometry.flags & SHOAL_CHECKSUM && age < AGE_DEAD)) {
		if (!is_kept(s, hit)) { /* or it was removed since, and its extent retired: then the slot has changed */
			if (index_forget(s, hit))
				handle_count(s, k->id, COUNTER_corrupt, 1);
			return AGE_CORRUPT;
		}
		if (!log_is_intact(&hit->e)) {
			store_reject(seat, k, key, hit);
			return AGE_CORRUPT;
		}
	}
	return unlikely(age < AGE_DEAD && ENTRY_SCHEMA(hit->e.entry->kind) != k->policy.schema) ? AGE_SCHEMA : age;
}

/* What has ended may have been replaced between the look at the slot and the look at the clock: then look again, or a
 * reader that was preempted there would miss a key that always had a fresh value. */
enum age store_find(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, unsigned a,
                    struct index_hit *hit)
{
	enum age age;

	do {
		if (!find_newest(seat, k, key, a, hit))
			return unlikely(hit->bad) ? AGE_CORRUPT : AGE_DEAD;
		age = judge(seat, k, key, hit);
	} while (unlikely(age != AGE_FRESH) && !SLOT_SAME(w64_load(hit->slot), hit->word) &&
		 SLOT_IS_USED(w64_load(hit->slot)));
	if (unlikely(age >= AGE_DEAD))
		rcu_clear(seat, a);
	return age;
}

void store_count_ended(struct seat *seat, const struct shoal_keyspace *k, enum age age)
{
	handle_count(&seat->member->segment, k->id,
	             age == AGE_SCHEMA    ? COUNTER_schema_mismatches
	             : age == AGE_CORRUPT ? COUNTER_misses_corrupt
					  : COUNTER_misses_expired, 1);
}

void store_touch(struct seat *seat, uint32_t keyspace, word64 *slot, uint64_t word)
{
	struct line *line;

	if (index_touch(&seat->member->segment, slot, word) && (line = tally_line(seat, keyspace)))
		w64_bump(&line->touches, 1);
}

size_t store_plain_size(const struct log_entry *e)
{
	return STORED_CODEC(e->stored) ? codec_plain_size(e->value, e->value_size) : e->value_size;
}

bool store_copy(const struct log_entry *e, void *to, size_t size)
{
	if (STORED_CODEC(e->stored))
		return codec_unpack((enum codec)STORED_CODEC(e->stored), e->value, e->value_size, to, size);
	if (size) /* `to` may be NULL else */
		memcpy(to, e->value, size);
	return true;
}

/* Made anew now and then, and more often where the pins of all threads together could be too many: once per
 * millisecond, and in a thread that pins value after value. */
bool store_count_pins(struct seat *seat, uint64_t now_ms)
{
	const struct segment *s = &seat->member->segment;
	uint32_t threads;
	uint64_t word = rcu_pinned(s, &threads) >= s->geometry.extents / 4;

	w64_poke(&s->header->pins, now_ms << 24 | (uint64_t)threads << 8 | word);
	return word;
}

/*
 * Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015. Refresh when
 * now - cost * beta * ln(random) >= end, which is random <= exp(-left / (cost * beta)). Far from the end that is
 * nothing, and costs a comparison.
 */
bool store_is_early(struct seat *seat, const struct shoal_keyspace *k, const struct shoal_value *value)
{
	const struct hold *hold = store_hold((struct shoal_value *)value);
	double scale_ms = (double)hold->cost_us * (double)k->policy.early * 1e-3, left_ms;
	uint64_t now = clock_coarse_ms(&seat->member->segment.clock);

	if (scale_ms <= 0 || hold->fresh_until_ms == UINT64_MAX)
		return false;
	left_ms = hold->fresh_until_ms > now ? (double)(hold->fresh_until_ms - now) : 0;
	if (left_ms > 40 * scale_ms)
		return false;
	seat->random += 0x9e3779b97f4a7c15u;
	return (double)(hash_mix(hash_mix(seat->random)) >> 11) * 0x1p-53 < exp(-left_ms / scale_ms);
}

/* ---- entries ----------------------------------------------------------------------------------------------- */

void store_compress(const struct shoal_keyspace *k, struct packed *p)
{
	size_t made, size = p->size;

	if (size < CODEC_THRESHOLD || size > CODEC_MOST || !(p->owned = malloc(size - size / 8)))
		return;
	p->codec = k->policy.flags & SHOAL_COMPRESS_ZSTD & ~SHOAL_COMPRESS ? CODEC_ZSTD : CODEC_LZ4;
	made = codec_pack(p->codec, p->data, size, p->owned);
	if (made) {
		p->data = p->owned;
		p->size = made;
	} else {
		p->codec = CODEC_NONE;
	}
}

void *store_value_at(const struct segment *s, uint64_t offset, const struct key *key)
{
	return log_at(s, offset)->key + align_up(key->size, 8);
}

void store_fill(const struct segment *s, uint64_t offset, const struct key *key, uint64_t generation, uint64_t born_ms,
                const struct lives *lives, uint32_t stored, uint32_t schema, uint64_t cost_us, const void *source)
{
	struct entry *e = log_at(s, offset);
	struct log_entry whole;
	uint64_t *checksum;

	e->stored = stored;
	e->generation = generation;
	e->born_ms = born_ms;
	e->fresh_for = lives->fresh;
	e->stale_for = lives->stale;
	e->error_for = lives->error;
	e->cost_us = (uint32_t)min_u64(cost_us, UINT32_MAX);
	e->kind = ENTRY_KIND(schema, key->keyspace, key->size);
	memcpy(e->key, key->data, key->size);
	if (s->geometry.flags & SHOAL_CHECKSUM && log_read(s, offset, &whole)) {
		checksum = log_checksum_at(&whole);
		whole.key = key->data;
		whole.value = source ? source : whole.value;
		*checksum = log_checksum(&whole);
	}
}

/* ---- flights in the way ------------------------------------------------------------------------------------ */

static bool expects_own_key(struct seat *seat, const struct key *key, const struct flight_seen *seen)
{
	struct index_hit hit;
	bool own;

	if (!SLOT_IS_USED(seen->expected) || seen->target >= index_slots(&seat->member->segment) ||
	    !index_at(seat, seen->target, READING, &hit))
		return false;
	own = SLOT_SAME(hit.word, seen->expected) && index_same_key(&hit.e, key);
	rcu_clear(seat, READING);
	return own;
}

/* flight.c, F.3: the target first, then the flight. What changed meanwhile is looked at again. */
bool store_supersede(struct seat *seat, const struct key *key, const struct flight_key *fk, uint32_t except,
                     struct turn *turn)
{
	const struct segment *s = &seat->member->segment;
	struct flight_seen *seen = &turn->seen;

	if (turn->left) {
		turn->left = false;
		if (!flight_detach(s, seen))
			turn->cursor--;
	}
	while (flight_next(seat, fk, &turn->cursor, seen)) {
		if (seen->slot == except)
			continue;
		if (!seen->older) {
			turn->younger = true;
			continue;
		}
		if (seen->publishing && expects_own_key(seat, key, seen)) {
			turn->left = true;
			return true;
		}
		if (seen->publishing)
			index_kill(seat, seen->target, seen->expected, READING);
		if (!flight_detach(s, seen))
			turn->cursor--;
	}
	return false;
}

void store_nudge(struct seat *seat, const struct flight_key *fk, uint32_t except)
{
	struct flight_seen seen = {0};
	uint32_t cursor = 0;

	while (flight_next(seat, fk, &cursor, &seen))
		if (seen.slot != except)
			flight_nudge(&seat->member->segment, &seen);
}
