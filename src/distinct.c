/* SPDX-License-Identifier: MIT */
/* See distinct.h. */
#include <math.h>

#include "distinct.h"

#define REGISTERS (DISTINCT_WORDS * 8)

static uint64_t higher(uint64_t a, uint64_t b)
{
	uint64_t word = 0, mask;

	for (mask = 0xff; mask; mask <<= 8)
		word |= max_u64(a & mask, b & mask);
	return word;
}

void distinct_merge(word64 *registers, const word64 *others)
{
	uint64_t now, wanted;
	unsigned i;

	for (i = 0; i < DISTINCT_WORDS; i++) {
		do {
			now = w64_load(&registers[i]);
			wanted = higher(now, w64_load(&others[i]));
		} while (wanted != now && !w64_cas(&registers[i], now, wanted));
	}
}

/* A scribbled register counts as one that is full. */
uint64_t distinct_estimate(const word64 *registers)
{
	double sum = 0, estimate;
	unsigned i, empty = 0;
	uint64_t word, rank;

	for (i = 0; i < REGISTERS; i++) {
		word = w64_peek(&registers[i / 8]);
		rank = min_u64(word >> (i % 8 * 8) & 0xff, 64 - DISTINCT_BITS + 1);
		sum += ldexp(1, -(int)rank);
		empty += !rank;
	}
	estimate = 0.7213 / (1 + 1.079 / REGISTERS) * REGISTERS * REGISTERS / sum;
	if (estimate <= 2.5 * REGISTERS && empty)
		estimate = REGISTERS * log((double)REGISTERS / empty);
	return (uint64_t)fmin(estimate + 0.5, 1e18);
}
