/* SPDX-License-Identifier: MIT */
/*
 * Time: CLOCK_MONOTONIC of one machine, so there is no skew between processes. The coarse clock lags by a tick, which a
 * busy host may deliver 50 ms late: who decides on a deadline that is nearer than that asks the precise one. In ns:
 *
 *   precise                                  22
 *   coarse                                    4.6
 *   coarse, by the vDSO's own function        3.0    58 instructions; a hit without any clock would take 31.6 ns,
 *                                                   not 35.5
 *   rdtsc                                     9.5    to see whether a time that is remembered will do: it costs more
 *
 * A clock of the caller's (shoal_config.clock) takes the place of both.
 */
#ifndef SHOAL_CLOCK_H
#define SHOAL_CLOCK_H

#include <time.h>

#include "base.h"

#define CLOCK_COARSE_LAG_MS 100

typedef int clock_reader(clockid_t id, struct timespec *t);

struct clock {
	uint64_t (*now)(void *arg); /* NULL: the system's */
	void *arg;
	clock_reader *read;
};

/* clock_gettime(), or what the kernel has mapped behind it. */
clock_reader *clock_find_reader(void);

static inline uint64_t clock_system_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_ns(const struct clock *c)
{
	return unlikely(c->now) ? c->now(c->arg) : clock_system_ns(CLOCK_MONOTONIC);
}

static inline uint64_t clock_ms(const struct clock *c)
{
	return clock_ns(c) / 1000000;
}

static inline uint64_t clock_coarse_ms(const struct clock *c)
{
	struct timespec t;

	if (unlikely(c->now))
		return c->now(c->arg) / 1000000;
	c->read(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#endif
