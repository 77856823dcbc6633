/* SPDX-License-Identifier: MIT */
/*
 * The usual hit, in one piece, for the verbs that read: one slot of the first bucket has the key's tag, it is settled,
 * and it shows the key's entry, plain, of the reader's schema, fresh or stale beyond doubt, in a segment without
 * checksums. And the usual miss: no slot has the tag. What is not usual is left to store_find(), which begins anew.
 * This does what that does, in the same order: announce, look at the slot again, read.
 *
 * A hit of shoal_read() is some 310 instructions for a key of 20 bytes and a value of 100, and 45 more where the clock
 * is the system's: bench/instructions.sh --profile has them part by part. It was 640 with everything called in turn and
 * both buckets read. Hits that overlap take as long as their instructions: the bound's 65 take 11.6 ns, these 35.5.
 * What would be left of that (10 k keys; the least of many runs that took turns), and of 51.6 ns where each hit waits
 * for the one before:
 *
 *   without the clock                       31.6   49.2    it can't be left out, nor asked for cheaper (clock.h)
 *   without urcu-bp around it               33.0   51.0    23 instructions; see below
 *   without its counter                     35.5   51.9    nothing: counters.h
 *
 * Urcu-bp keeps the mapping from a resize or a close. A flag of the thread's own could do the same: set it, then look
 * whether the handle still has the member that the thread's seat is of. But there the seat, which is freed with its
 * member, would be looked at before anything protects it, so seats would have to outlive their handles, and a replacer
 * would have to find and wait for the flags of all threads of its process, those that just begin among them, which is
 * what urcu-bp's registry does. That was not thought worth 2.5 ns.
 */
#ifndef SHOAL_HIT_H
#define SHOAL_HIT_H

#include "store.h"

struct hit {
	const struct entry *entry;
	const unsigned char *value;
	size_t size;
	enum age age;
	uint64_t fresh_until_ms;
};

/* By the coarse clock, which is right at `now_ms` and may lag: AGE_DEAD is what it can't tell. */
static ALWAYS_INLINE enum age hit_age(const struct entry *e, uint64_t fresh_until_ms, uint64_t now_ms)
{
	if (likely(fresh_until_ms > now_ms + CLOCK_COARSE_LAG_MS && e->fresh_for))
		return AGE_FRESH;
	if (fresh_until_ms <= now_ms && fresh_until_ms + e->stale_for > now_ms + CLOCK_COARSE_LAG_MS &&
	    e->fresh_for != SHOAL_FOREVER) /* which is 49 days, as a number */
		return AGE_STALE;
	return AGE_DEAD;
}

/* HIT: *hit is announced in `a`; its touch is counted, the hit isn't. Else nothing is. ABSENT: no slot has the key's
 * tag. */
enum hit_outcome { HIT, ABSENT, UNUSUAL };

static ALWAYS_INLINE enum hit_outcome hit_find(struct seat *seat, const struct segment *s,
                                               const struct shoal_keyspace *k, const void *key, size_t key_size,
                                               uint64_t hash, unsigned a, uint64_t now_ms, struct hit *hit)
{
	struct bucket *bucket = index_bucket(s, hash);
	unsigned found = index_match(bucket, hash);
	const struct entry *e;
	uint64_t word, at, value_at;
	word64 *slot;

	if (unlikely(!found || found & (found - 1)))
		return found || index_match(index_second(s, hash), hash) ? UNUSUAL : ABSENT;
	slot = &bucket->slots[__builtin_ctz(found)];
	word = w64_peek(slot);
	at = SLOT_BYTES(word) - s->geometry.log_at;
	if (unlikely(word >> SLOT_TAG_SHIFT != index_tag(hash) || !(word & SLOT_SETTLED) || at >= s->quick_size))
		return UNUSUAL;
	rcu_announce(seat, a, extent_of(s, SLOT_BYTES(word)));
	if (unlikely(!SLOT_SAME(w64_load(slot), word)))
		goto unusual;
	e = (const struct entry *)(s->log + at);
	value_at = align_up(key_size, 8);
	hit->size = e->stored;
	if (unlikely(STORED_CODEC(hit->size) || at + value_at + hit->size > s->quick_size ||
	             e->kind != (k->kind | key_size) || !index_same_bytes(e->key, key, key_size)))
		goto unusual;
	hit->fresh_until_ms = e->born_ms + e->fresh_for;
	hit->age = hit_age(e, hit->fresh_until_ms, now_ms);
	if (unlikely(hit->age == AGE_DEAD || e->generation <= w64_load(&handle_record(s, k)->barrier)))
		goto unusual;
	if (unlikely((word & SLOT_FREQUENCY) != SLOT_FREQUENCY))
		store_touch(seat, k->id, slot, word);
	hit->entry = e;
	hit->value = e->key + value_at;
	return HIT;
unusual:
	rcu_clear(seat, a);
	return UNUSUAL;
}

/* Into a value, which is zeroed, pinned in place. Else nothing was done. */
static ALWAYS_INLINE enum hit_outcome hit_get_usual(struct seat *seat, const struct shoal_keyspace *k, const void *key,
                                                    size_t key_size, uint64_t hash, struct shoal_value *value,
                                                    enum age *age)
{
	const struct segment *s = &seat->member->segment;
	struct hold *hold = store_hold(value);
	uint64_t now = clock_coarse_ms(&s->clock);
	unsigned pin = store_pin(seat, now);
	enum hit_outcome outcome = UNUSUAL;
	const struct entry *e;
	struct hit hit;

	if (likely(pin))
		outcome = hit_find(seat, s, k, key, key_size, hash, pin, now, &hit);
	if (unlikely(outcome))
		return outcome;
	e = hit.entry;
	value->data = hit.value;
	value->size = hit.size;
	value->generation = e->generation;
	value->age_ms = now > e->born_ms ? now - e->born_ms : 0;
	value->freshness = hit.age == AGE_FRESH ? SHOAL_FRESH : SHOAL_STALE;
	value->source = SHOAL_HIT;
	hold->cost_us = e->cost_us;
	hold->fresh_until_ms = likely(e->fresh_for != SHOAL_FOREVER) ? hit.fresh_until_ms : UINT64_MAX;
	hold->seat = seat;
	hold->epoch = seat->epoch;
	hold->pin = pin;
	*age = hit.age;
	return HIT;
}

/* Likewise, whatever is the matter: also a heap copy when the pins have run out. AGE_DEAD or above: nothing is held. */
enum age hit_get(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, struct shoal_value *value);
/* The same, known to be not usual. */
enum age hit_get_any(struct seat *seat, const struct shoal_keyspace *k, const struct key *key,
                     struct shoal_value *value);

#endif
