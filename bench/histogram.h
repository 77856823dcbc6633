/* SPDX-License-Identifier: MIT */
/* Log-linear buckets, 256 to each power of two: medians to 0.4 percent. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 8
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS) << HISTOGRAM_BITS)

struct histogram {
	uint64_t count, max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t v)
{
	unsigned shift;

	if (v < 2u << HISTOGRAM_BITS)
		return (unsigned)v;
	shift = 63 - HISTOGRAM_BITS - (unsigned)__builtin_clzll(v);
	return (shift << HISTOGRAM_BITS) + (unsigned)(v >> shift);
}

static inline void histogram_add(struct histogram *h, uint64_t v)
{
	unsigned b = histogram_bucket(v);

	h->buckets[b < HISTOGRAM_BUCKETS ? b : HISTOGRAM_BUCKETS - 1]++;
	h->count++;
	if (v > h->max)
		h->max = v;
}

static inline void histogram_merge(struct histogram *to, const struct histogram *from)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
	to->count += from->count;
	if (from->max > to->max)
		to->max = from->max;
}

/* The middle of the bucket that holds this share of all. */
static inline double histogram_at(const struct histogram *h, double share)
{
	uint64_t seen = 0, want = (uint64_t)(share * (double)h->count), within = (1u << HISTOGRAM_BITS) - 1;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen > want) {
			unsigned shift = i < 2u << HISTOGRAM_BITS ? 0 : (i >> HISTOGRAM_BITS) - 1;
			uint64_t low = shift ? ((i & within) + within + 1) << shift : i;

			return (double)low + (double)((1ull << shift) - 1) / 2;
		}
	}
	return (double)h->max;
}

#endif
