/* SPDX-License-Identifier: MIT */
/*
 * How many distinct keys a keyspace ever saw: HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, AofA 2007) over the
 * hashes that keys have anyway, in 1,024 registers of a byte: off by 3.3% (standard error), and by less below some
 * 2,500, where the empty registers are counted instead. Registers only rise, so one that a killed process did not write
 * is written by the next who sees the key.
 */
#ifndef SHOAL_DISTINCT_H
#define SHOAL_DISTINCT_H

#include "layout.h"

#define DISTINCT_BITS 10

/* Mostly a load and a compare: the register is as high already. */
static inline void distinct_add(word64 *registers, uint64_t hash)
{
	word64 *word = &registers[hash >> (64 - DISTINCT_BITS) & (DISTINCT_WORDS - 1)];
	unsigned shift = (unsigned)(hash >> (64 - DISTINCT_BITS) >> 7 << 3);
	uint64_t rank = (uint64_t)__builtin_clzll(hash << DISTINCT_BITS | (uint64_t)1 << (DISTINCT_BITS - 1)) + 1,
		 now = w64_peek(word);

	while ((now >> shift & 0xff) < rank && !w64_cas(word, now, (now & ~((uint64_t)0xff << shift)) | rank << shift))
		now = w64_peek(word);
}

/* All that the others saw. */
void distinct_merge(word64 *registers, const word64 *others);
uint64_t distinct_estimate(const word64 *registers);

#endif
