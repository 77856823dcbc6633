/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TICKS_H
#define BENCH_TICKS_H

#include <stdint.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* For single operations: what was before it has ended, what follows has not begun. */
#ifdef __x86_64__
static inline uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}
#else
static inline uint64_t ticks(void)
{
	return now_ns();
}
#endif

double ticks_per_ns(void);     /* measured once in a process */
uint64_t ticks_of_itself(void); /* of two in a row */

#endif
