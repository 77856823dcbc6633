/* SPDX-License-Identifier: MIT */
/*
 * What every file may use: compiler words, alignment, and the one error contract.
 *
 * The error contract, of every int-returning function in this tree: 0 done; positive = an outcome the caller must
 * handle; negative = an error of shoal.h, passed up untouched; out-parameters are unchanged on failure.
 */
#ifndef SHOAL_BASE_H
#define SHOAL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shoal.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define EXPORT __attribute__((visibility("default")))

#define CACHE_LINE 64
#define PAGE 4096

/* For products that are divided again; __extension__, as a parent project may be -pedantic. */
__extension__ typedef unsigned __int128 uint128;

static inline uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
