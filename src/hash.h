/* SPDX-License-Identifier: MIT */
/*
 * XXH3 (xxHash), with a random seed per segment so that nobody can choose keys that collide. Its output is frozen
 * since xxHash 0.8.0, so processes with different builds agree. Hashes choose places; keys are compared whole.
 */
#ifndef SHOAL_HASH_H
#define SHOAL_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base.h"

static inline uint64_t hash_bytes(const void *data, size_t size, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, size, seed);
}

static inline uint64_t hash_mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15u;
	return x ^ x >> 29;
}

#endif
