/* SPDX-License-Identifier: MIT */
/*
 * Ghosts: which keys were evicted a short while ago. A key that comes back within about the log's size of evictions
 * from the probation log had left it too early, and its next value goes to the main log at once (Yang et al., FIFO
 * queues are all you need for cache eviction, SOSP 2023). Those that come back very soon tell evict.c, also when they
 * left the main log, which of the two logs is short of space.
 *
 * A table of 16-way buckets of 32-bit words {fingerprint:16 | left the main log:1 | stamp:15}. The clock of each log is
 * the bytes that were ever evicted from it, in units of a thousandth of the log or half of that, so a stamp says how
 * much has been evicted since. The oldest word of a bucket gives way. One look-up in 4,000 takes a stranger for a
 * ghost, which costs a place in the wrong log and nothing else.
 *
 *   operation       may run beside    another process is killed
 *   ghost_add       everything        no effect: words are hints, written whole
 *   ghost_take      everything        no effect
 */
#ifndef SHOAL_GHOST_H
#define SHOAL_GHOST_H

#include "segment.h"

void ghost_prefetch(const struct segment *s, uint64_t hash);

/* The key of that hash was evicted from that log, with an entry of `length` bytes. */
void ghost_add(const struct segment *s, uint64_t hash, uint32_t length, enum log_kind from);

struct ghost {
	enum log_kind from;
	bool young; /* it was evicted very lately */
};
/* Was it, lately? It is forgotten then. */
bool ghost_take(const struct segment *s, uint64_t hash, struct ghost *ghost);

#endif
