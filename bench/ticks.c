/* SPDX-License-Identifier: MIT */
#include "ticks.h"

double ticks_per_ns(void)
{
#ifdef __x86_64__
	uint64_t began = now_ns(), from = ticks(), now;

	while ((now = now_ns()) - began < 5000000)
		;
	return (double)(ticks() - from) / (double)(now - began);
#else
	return 1;
#endif
}

uint64_t ticks_of_itself(void)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t t = ticks();

		t = ticks() - t;
		if (t < least)
			least = t;
	}
	return least;
}
