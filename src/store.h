/* SPDX-License-Identifier: MIT */
/*
 * What the public verbs share: look a key up and judge its age, make room and write an entry, take flights out of the
 * way of a newer value. Everything here runs inside a read-side section, on the seat of the calling thread.
 *
 *   operation         may run beside    another process is killed
 *   store_find        everything        no effect
 *   store_reserve     everything        its half-written entries are dead bytes until their extent goes
 *   store_supersede   everything        between kill and detach: the flight goes on, and places again
 */
#ifndef SHOAL_STORE_H
#define SHOAL_STORE_H

#include "handle.h"

/* ---- age --------------------------------------------------------------------------------------------------- */

enum age { AGE_FRESH, AGE_STALE, AGE_ERROR, AGE_DEAD };

struct lives {
	uint32_t fresh, stale, error; /* ms, each from the end of the one before; SHOAL_FOREVER */
};

enum age store_age(const struct entry *e, uint64_t now_ms);
/* When it ends, as `until` of an extent: UINT64_MAX = never. */
uint64_t store_end(uint64_t born_ms, const struct lives *l);
/* What a value published now gets: overrides (0 = the policy's) and jitter. */
struct lives store_lives(const struct shoal_keyspace *k, uint32_t fresh_ms, uint32_t stale_ms, uint64_t random);

/* ---- look-up ----------------------------------------------------------------------------------------------- */

/* The readable entry of the key: AGE_FRESH ... AGE_ERROR, announced in hit->announced, which is `a`; else AGE_DEAD,
 * nothing announced. Counts corruption and schema mismatches, not hits and misses. */
enum age store_find(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, unsigned a,
                    struct index_hit *hit);

/* The same into a value: pinned in place, or a heap copy when the pins have run out. */
enum age store_get(struct seat *seat, const struct shoal_keyspace *k, const struct key *key, struct shoal_value *value);

bool store_key(const struct shoal_keyspace *k, const struct segment *s, const void *data, size_t size, struct key *key);
struct flight_key store_flight_key(const struct segment *s, const struct key *key);

/* ---- values in hand ---------------------------------------------------------------------------------------- */

/* The private fields of struct shoal_value. */
struct hold {
	struct seat *seat; /* whose pin it is; NULL: none */
	uint64_t epoch;    /* of the process that has it */
	uint64_t pin;
	void *heap;
};
_Static_assert(sizeof(struct hold) <= sizeof(((struct shoal_value *)0)->private_fields), "hold fits a value");

static inline struct hold *store_hold(struct shoal_value *value)
{
	return (struct hold *)(void *)value->private_fields;
}

/* ---- change ------------------------------------------------------------------------------------------------ */

/* Space for an entry, announced in `word`. SHOAL_ERR_TOO_BIG, NO_SPACE. Nothing else may be announced in READING,
 * OTHER or WALKING. */
int store_reserve(struct seat *seat, unsigned word, size_t key_size, size_t value_size, uint64_t *offset);

/* Write all of an entry but its value's bytes, and the checksum if the segment has them: call it last. */
void store_fill(const struct segment *s, uint64_t offset, const struct key *key, uint64_t generation, uint64_t born_ms,
                const struct lives *lives, size_t value_size, uint32_t schema, uint64_t cost_us);
void *store_value_at(const struct segment *s, uint64_t offset, const struct key *key);

/* Evict ahead of need: keeps evict_reserve() extents free. */
void store_make_room(struct seat *seat);

/*
 * Before a newer thing happens to the key: end the loads of it whose generation is below `turn->seen.below`, and what is
 * remembered of it. Begin with a zeroed turn but for that, and call until it returns false. True: a load is being
 * published over an entry of this very key; the caller changes or removes that entry, which kills the load's target, and
 * calls again. `except`: a flight slot to pass by, UINT32_MAX for none.
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
