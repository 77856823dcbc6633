/* SPDX-License-Identifier: MIT */
/*
 * Ghosts: which keys were evicted from the probation log a short while ago. One that comes back within about the main
 * log's size of evictions had been evicted too early, and its next value goes to the main log at once (Yang et al., FIFO
 * queues are all you need for cache eviction, SOSP 2023).
 *
 * A table of 16-way buckets of 32-bit words {fingerprint:16 | stamp:16}. The clock is the bytes ever put in, in units of
 * a few thousandths of the log, so a stamp says how much has been evicted since. The oldest word of a bucket gives way.
 * One look-up in 4,000 takes a stranger for a ghost, which costs a place in the wrong log and nothing else.
 *
 *   operation       may run beside    another process is killed
 *   ghost_add       everything        no effect: words are hints, written whole
 *   ghost_take      everything        no effect
 */
#ifndef SHOAL_GHOST_H
#define SHOAL_GHOST_H

#include "segment.h"

/* The key of that hash was evicted, with an entry of `length` bytes. */
void ghost_add(const struct segment *s, uint64_t hash, uint32_t length);
/* Was it, lately? It is forgotten then. */
bool ghost_take(const struct segment *s, uint64_t hash);

#endif
