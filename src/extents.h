/* SPDX-License-Identifier: MIT */
/*
 * Extents: fixed-size pieces of the log, the unit of eviction and reclamation.
 *
 *   FREE --open--> OPEN --seal--> SEALED --claim--> EVICTING --retire--> RETIRED --free--> FREE
 *                                    ^------back-------'
 *
 * Each arrow is one CAS of extent.word, which carries the state, a sequence that grows with each arrow, and the reader
 * who did it (its owner while OPEN and not yet a head, and while EVICTING).
 *
 * E.1  A writer announces X (WRITING, or a pin) before it looks at X's word, and goes on only if that is OPEN with the
 *      sequence of the head. It keeps the announcement past its index CAS. An evictor sets EVICTING first and scans
 *      for such announcements before it walks. So nobody writes into, or publishes from, an extent being walked.
 * E.2  An extent is RETIRED only when no index slot points into it, and FREE only after a grace period (rcu.h).
 * E.3  A live owner's EVICTING is left alone, if it announces it (else it is a scribble: log_sweep). A dead one's is
 *      taken over by a CAS that changes the word.
 * E.4  An opener announces X, in a word that evictors look at, from before the CAS to OPEN until X is a head. Others
 *      may seal X meanwhile, but not evict it: so an opener that was stopped resets its own X and not a later one.
 *
 * E.5  An extent's `counts` never count less than the index slots that point into it: it is raised before the CAS that
 *      makes one point there and lowered after the CAS that ends it, while the extent is announced, so no late step
 *      counts in a later use of it. Killed in between they count too many until the extent is evicted. So an extent
 *      with none is retired without a walk. Entries and their bytes are one word, so that each of the two steps is one
 *      locked instruction: with a word for each a set had eight of them instead of six, and took 1% longer.
 *
 *   operation         may run beside    another process is killed
 *   extents_open      everything        OPEN and no head: recovery seals it
 *   extents_seal      everything        no effect
 *   extents_claim     everything        EVICTING: recovery claims it and goes on
 *   extents_collect   everything        no effect
 */
#ifndef SHOAL_EXTENTS_H
#define SHOAL_EXTENTS_H

#include "rcu.h"

#define EXTENT_STATE(word) ((enum extent_state)((word) >> 60))
#define EXTENT_SEQUENCE(word) ((uint32_t)(word) & 0xfffffffu)
#define EXTENT_OWNER(word) ((uint32_t)((word) >> 44 & 0xffff))
#define ONE_ENTRY ((uint64_t)1 << 32) /* in extent.counts */
#define EXTENT_OWNER_INCARNATION(word) ((uint32_t)((word) >> 28 & 0xffff))

/* Which log it is of; of a bad byte, the probation log. */
static inline enum log_kind extent_kind(const struct segment *s, uint32_t x)
{
	return w32_peek(&s->extents[x].kind) == LOG_MAIN ? LOG_MAIN : LOG_PROBATION;
}

static inline char *extent_bytes(const struct segment *s, uint32_t x)
{
	return s->log + (uint64_t)x * s->geometry.extent_size;
}

/* Of an offset from the segment's begin, which must lie in the log. A division would cost a hit 5 ns each. */
static inline uint32_t extent_of(const struct segment *s, uint64_t offset)
{
	uint64_t lines = (offset - s->geometry.log_at) / CACHE_LINE;

	return (uint32_t)((uint128)lines * s->per_extent >> 64);
}

/* One CAS to another state, owned by `seat`; false if the word was not `from` any more. */
bool extents_move(struct seat *seat, uint32_t x, uint64_t from, enum extent_state to);
static inline uint64_t extents_word(const struct segment *s, uint32_t x)
{
	return w64_load(&s->extents[x].word);
}

/* Make a free extent OPEN and empty, announced in `word` until the caller has made it a head (E.4); -1: none is
 * free. */
int64_t extents_open(struct seat *seat, unsigned word, enum log_kind kind);
/* OPEN -> SEALED, if it is still as `from`. */
bool extents_seal(struct seat *seat, uint32_t x, uint64_t from);
/* Take a SEALED extent for eviction: EVICTING, announced in WALKING, no writer and no pin in it; else false, and it is
 * as before. */
bool extents_claim(struct seat *seat, uint32_t x);
/* EVICTING -> RETIRED: no index slot points into it any more. Ends the announcement. */
void extents_retire(struct seat *seat, uint32_t x);
/* Free the RETIRED extents whose grace period is over; returns how many. */
unsigned extents_collect(struct seat *seat);
unsigned extents_count(const struct segment *s, enum extent_state state);

/* The index is about to point to an entry of `length` bytes that lives until `until_ms`; it points there no more, or
 * never did. The extent is announced (E.5). */
static inline void extents_add(const struct segment *s, uint32_t x, uint32_t length, uint64_t until_ms)
{
	w64_add(&s->extents[x].counts, ONE_ENTRY | length);
	w64_max(&s->extents[x].until_ms, until_ms);
}

static inline void extents_drop(const struct segment *s, uint32_t x, uint32_t length)
{
	w64_sub(&s->extents[x].counts, ONE_ENTRY | length);
}

#endif
