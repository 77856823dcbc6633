/* SPDX-License-Identifier: MIT */
/*
 * Log-linear latency histograms of shared words: four buckets per octave of 1.024 us units, so a quantile is off by at
 * most an eighth. (HdrHistogram's idea, fixed in size, without a pointer.)
 */
#ifndef SHOAL_HISTOGRAM_H
#define SHOAL_HISTOGRAM_H

#include "layout.h"

static inline unsigned histogram_bucket(uint64_t ns)
{
	uint64_t v = ns >> 10;
	unsigned e;

	if (v < 4)
		return (unsigned)v;
	e = 63 - (unsigned)__builtin_clzll(v);
	return e > 32 ? HISTOGRAM_BUCKETS - 1 : (e - 1) * 4 + (unsigned)(v >> (e - 2) & 3);
}

/* The middle of a bucket, in ms. */
static inline double histogram_ms(unsigned bucket)
{
	double low, width;

	if (bucket < 4)
		return (bucket + 0.5) * 1.024e-3;
	width = (double)((uint64_t)1 << (bucket / 4 - 1));
	low = (4 + bucket % 4) * width;
	return (low + width / 2) * 1.024e-3;
}

static inline void histogram_add(word64 *histogram, uint64_t ns)
{
	w64_add(&histogram[histogram_bucket(ns)], 1);
}

#endif
