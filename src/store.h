/* SPDX-License-Identifier: MIT */
/*
 * What the public verbs share: look a key up and judge its age, write an entry, take flights out of the way of a newer
 * value. Everything here runs inside a read-side section, on the seat of the calling thread.
 *
 *   operation         may run beside    another process is killed
 *   store_find        everything        no effect
 *   store_supersede   everything        between kill and detach: the flight goes on, and places again
 */
#ifndef SHOAL_STORE_H
#define SHOAL_STORE_H

#include "codec.h"
#include "distinct.h"
#include "handle.h"

/* ---- age --------------------------------------------------------------------------------------------------- */

/* From AGE_DEAD on there is no value, for a reason: the others say that there was one. */
enum age { AGE_FRESH, AGE_STALE, AGE_ERROR, AGE_DEAD, AGE_EXPIRED, AGE_SCHEMA, AGE_CORRUPT };

struct lives {
	uint32_t fresh, stale, error; /* ms, each from the end of the one before; SHOAL_FOREVER */
};

/* When its states end; UINT64_MAX = never. Only ever made earlier than the entry's own. */
struct bounds {
	uint64_t fresh, stale, error;
};

/* Of an entry of a keyspace, with what was expired or deleted as a whole. */
struct bounds store_bounds(const struct segment *s, uint32_t keyspace, const struct entry *e,
                           const struct shoal_policy *policy);
/* Stale since then: the policy's bounds count from then, but never end later than the entry's own. */
struct bounds store_expired(const struct bounds *own, uint64_t at_ms, const struct shoal_policy *policy);
enum age store_age(const struct bounds *b, uint64_t now_ms);
/* When it ends, as `until` of an extent: UINT64_MAX = never. */
uint64_t store_end(uint64_t born_ms, const struct lives *l);
/* From begin to end in ms, as an entry has it: SHOAL_FOREVER if there is no end. */
uint32_t store_life(uint64_t begin, uint64_t end);
/* What a value published now gets: overrides (0 = the policy's) and jitter. */
struct lives store_lives(const struct shoal_keyspace *k, uint32_t fresh_ms, uint32_t stale_ms, uint64_t random);

/* ---- look-up ----------------------------------------------------------------------------------------------- */

/* The readable entry of the key: AGE_FRESH ... AGE_ERROR, announced in hit->announced, which is `a`; else AGE_DEAD
 * or above, nothing announced. Counts corruption, not hits and misses. */
enum age store_find(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, unsigned a,
                    struct index_hit *hit);

/* A look-up that ends without a value, for that reason. */
void store_count_ended(struct seat *seat, const struct shoal_keyspace *k, enum age age);
static inline void store_count_miss(struct seat *seat, const struct shoal_keyspace *k, enum age age)
{
	if (likely(age == AGE_DEAD))
		handle_count_hot(seat, k->id, COUNTER_misses);
	else
		store_count_ended(seat, k, age);
}

/* A value was stored. */
static inline void store_count(const struct segment *s, const struct shoal_keyspace *k, uint64_t hash, uint64_t now_ms)
{
	struct keyspace *record = handle_record(s, k);

	w64_poke(&record->stored_ms, now_ms);
	distinct_add(record->distinct, hash);
}

void store_reject(struct seat *seat, const struct shoal_keyspace *k, const struct key *key,
                  const struct index_hit *hit);

/* XFetch: is this reader the one that refreshes a value before it is stale? */
bool store_is_early(struct seat *seat, const struct shoal_keyspace *k, const struct shoal_value *value);

static inline bool store_is_key(const void *data, size_t size)
{
	return likely(data && size - 1 < KEY_MAX);
}

static inline uint64_t store_hash(const struct shoal_keyspace *k, const void *key, size_t size)
{
	return hash_bytes(key, size, k->seed);
}

bool store_key(const struct shoal_keyspace *k, const void *data, size_t size, struct key *key);
/* A key's spelling in the keyspace that `k` falls back on. */
struct old_key {
	const struct fallback *fallback;
	const void *data;
	size_t size;
	void *owned; /* to be freed; NULL: it is spelt as it was */
};
/* SHOAL_MISS: there is none. */
int store_old_key(const struct shoal_keyspace *k, const void *key, size_t size, struct old_key *old);
struct flight_key store_flight_key(const struct segment *s, const struct key *key);

/* A hit, remembered in its index slot while that is short of its cap. */
void store_touch(struct seat *seat, uint32_t keyspace, word64 *slot, uint64_t word);

/*
 * Pinned extents can't be evicted, so pins may hold a quarter of the extents, about. The count is kept in the segment
 * as
 * {when:40 | threads:16 | many:8}.
 */
#define PINS_COUNT_AGAIN_MS 64u

bool store_count_pins(struct seat *seat, uint64_t now_ms);

/* Are so many extents pinned that new values are copied? `own`: how many pins the thread has. */
static inline bool store_many_are_pinned(struct seat *seat, uint32_t own, uint64_t now_ms)
{
	const struct segment *s = &seat->member->segment;
	uint64_t word = w64_peek(&s->header->pins), old = (now_ms - (word >> 24)) & 0xffffffffffu;
	bool close = (uint64_t)(own + 1) * (word >> 8 & 0xffff) >= s->geometry.extents / 4;

	if (likely(word && old < PINS_COUNT_AGAIN_MS && !(close && (old || (own >= 4 && !(own & (own - 1)))))))
		return word & 1;
	return store_count_pins(seat, now_ms);
}

/* A pin for a value or a reservation; 0: out of them, or too many. */
static inline unsigned store_pin(struct seat *seat, uint64_t now_ms)
{
	unsigned pin = rcu_free_pin(seat);

	return pin && unlikely(store_many_are_pinned(seat, pin - PINS, now_ms)) ? 0 : pin;
}

/* ---- values in hand ---------------------------------------------------------------------------------------- */

/* The private fields of struct shoal_value. */
struct hold {
	struct seat *seat; /* whose pin it is; NULL: none */
	uint64_t epoch;    /* of the process that has it */
	uint32_t pin;
	uint32_t cost_us;  /* of its load */
	uint64_t fresh_until_ms;
	void *heap;
};
_Static_assert(sizeof(struct hold) <= sizeof(((struct shoal_value *)0)->private_fields), "hold fits a value");

static inline struct hold *store_hold(struct shoal_value *value)
{
	return (struct hold *)(void *)value->private_fields;
}

/* ---- change ------------------------------------------------------------------------------------------------ */

/* A value as it will lie in the log: compressed where the policy wants it and it gets smaller by an eighth. */
struct packed {
	const void *data;
	size_t size;
	enum codec codec;
	void *owned; /* to be freed */
};
void store_compress(const struct shoal_keyspace *k, struct packed *packed);

static inline void store_pack(const struct shoal_keyspace *k, const void *data, size_t size, struct packed *packed)
{
	*packed = (struct packed){.data = data, .size = size};
	if (unlikely(k->policy.flags & SHOAL_COMPRESS))
		store_compress(k, packed);
}

/* The size of an entry's value for its reader. */
size_t store_plain_size(const struct log_entry *e);
/* Copy it out, plain; false: it can't be unpacked. */
bool store_copy(const struct log_entry *e, void *to, size_t size);

/* Is an entry what was stored? Looked at after it was copied, it tells of the copy. And a value in hand, of this key.
 * In a segment without checksums it is. */
bool store_is_whole(const struct segment *s, const struct log_entry *e);
bool store_keeps(struct shoal_value *value, const struct key *key);

/* Write all of an entry but its value's bytes, and the checksum if the segment has them: call it last.
 * `source`: what the value was copied from, so that a copy that is spoilt already has no checksum that holds;
 * NULL: it was made in place. */
void store_fill(const struct segment *s, uint64_t offset, const struct key *key, uint64_t generation, uint64_t born_ms,
                const struct lives *lives, uint32_t stored, uint32_t schema, uint64_t cost_us, const void *source);
void *store_value_at(const struct segment *s, uint64_t offset, const struct key *key);

/*
 * Before a newer thing happens to the key: end the loads of it whose generation is below `turn->seen.below`, and what
 * is remembered of it. Begin with a zeroed turn but for that, and call until it returns false. True: a load is being
 * published over an entry of this very key; the caller changes or removes that entry, which kills the load's target,
 * and calls again. `except`: a flight slot to pass by, UINT32_MAX for none.
 */
struct turn {
	struct flight_seen seen;
	uint32_t cursor;
	bool left;
	bool younger; /* there are loads that go on: store_nudge() when the new value is in */
};
bool store_supersede(struct seat *seat, const struct key *key, const struct flight_key *fk, uint32_t except,
                     struct turn *turn);
/* Let those who wait for a load of the key look the key up. */
void store_nudge(struct seat *seat, const struct flight_key *fk, uint32_t except);

#endif
