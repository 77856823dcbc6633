/* SPDX-License-Identifier: MIT */
/*
 * Which extent goes next, and what of it is worth keeping: S3-FIFO (Yang et al., FIFO queues are all you need for cache
 * eviction, SOSP 2023), by extents. New entries enter the probation log, at first a tenth of the space. What was hit
 * there moves on to the main log; what was not is remembered as a ghost, and goes to the main log when it comes back.
 * Entries of the main log that were hit are appended to it again, each time for one hit less.
 *
 * What differs from the paper was simulated on 38 traces at 10 to 90 capacities, and kept where it won or tied; mean
 * points of miss ratio against the paper's algorithm at object granularity, on three traces and on the others (in
 * brackets):
 *
 *   by extents, as the paper has it                                                     +0.30  (+0.42)
 *   promoted at one hit instead of two, starting from none                              -0.63  (+0.12)
 *   and the probation log's share follows the ghosts: those that come back young        -0.73  (-0.08)
 *   and hits in an extent that is still written to don't count: a burst is one access   -0.80  (-0.23)
 *   and the longer the search for room, the more hits it takes to be kept               -0.83  (-0.24)
 *
 * The third also spares 60% of the writes of frequencies, the last bounds the walks for one extent by 25.
 *
 * The policy knows extents and no index: the coordinator (room.c) asks for a victim, walks it, and decides entry by
 * entry by the policy's word. In this order:
 *
 *   EVICT_EMPTY      no index slot points into it: retired without a walk
 *   EVICT_EXPIRED    the latest deadline of its entries has passed: nothing is kept
 *   EVICT_DEAD       replaced and removed entries take too much of the log: the extent with most of
 *                    them, all else is kept
 *   EVICT_PROBATION  the probation log has more than its share: its oldest
 *   EVICT_MAIN       else the oldest of the main log
 */
#ifndef SHOAL_EVICT_H
#define SHOAL_EVICT_H

#include "log.h"

enum evict_reason { EVICT_EMPTY, EVICT_EXPIRED, EVICT_DEAD, EVICT_PROBATION, EVICT_MAIN, EVICT_REASONS };

_Static_assert(EVICT_REASONS == EVICTED_REASONS && EVICT_EMPTY == (int)SHOAL_EVICTED_EMPTY &&
                       EVICT_MAIN == (int)SHOAL_EVICTED_MAIN,
               "shoal.h shows them in this order");

/* A look at all extents, and the first victim of each reason behind `after`. Begin with zeros but for the time. */
struct evict_turn {
	uint64_t now_ms;
	uint64_t after[EVICT_REASONS]; /* passed by: evict_pass() */
	uint32_t free, coming;         /* FREE; and those that are RETIRED or being evicted */
	uint32_t retired, probation;   /* `probation`: extents of that log */
	uint64_t dead;                 /* used bytes that no slot points to */
	struct {
		uint64_t order;        /* of the candidates of this reason, the least; UINT64_MAX: none */
		uint32_t x;
	} first[EVICT_REASONS];
};

void evict_look(const struct segment *s, struct evict_turn *turn);
/* Whose turn it is; EVICT_REASONS: nobody's. `urgent`: no free extent is left, so an extent that is cleaned has to
 * yield at least a half. */
enum evict_reason evict_choose(const struct segment *s, const struct evict_turn *turn, bool urgent);
/* This reason's victim is held: on with the next one. */
void evict_pass(struct evict_turn *turn, enum evict_reason reason);

/* Is an entry with that frequency kept, in the walk after `walks` others for the same extent? Then where, and with what
 * frequency. */
bool evict_keeps(const struct segment *s, enum evict_reason reason, enum log_kind kind, unsigned frequency,
                 uint32_t walks, enum log_kind *to, unsigned *left);
/* An entry was dropped for want of room; a key that isn't there gets a value, which belongs to that log. */
void evict_dropped(const struct segment *s, enum log_kind from, uint64_t hash, uint32_t length);
enum log_kind evict_admits(const struct segment *s, uint64_t hash, uint32_t length);

/* How many extents should be FREE, or on their way, so that a writer seldom waits for a grace period. */
static inline uint32_t evict_reserve(const struct segment *s)
{
	return s->geometry.extents < 16 ? 1 : s->geometry.extents < 128 ? 2 : 3;
}

#endif
