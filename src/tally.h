/* SPDX-License-Identifier: MIT */
/*
 * Counters that each thread has for itself, in lines of its reader slot, one for each keyspace that it uses; and their
 * sums.
 *
 *   operation       may run beside   another process is killed
 *   tally_line      everything       between draw and link: a line is lost, and no count
 *   tally_counts    everything       no effect
 */
#ifndef SHOAL_TALLY_H
#define SHOAL_TALLY_H

#include "registry.h"

/* This seat's counters of a keyspace; NULL if the segment has no line left (count in the record then). */
struct line *tally_line(struct seat *seat, uint32_t keyspace);
/* All of a keyspace, with what the regions before have counted. */
void tally_counts(const struct segment *s, uint32_t keyspace, uint64_t counts[COUNTER_COUNT]);
/* Hits that wrote a frequency, of all; likewise. */
uint64_t tally_touches(const struct segment *s);

#endif
