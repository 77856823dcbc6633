/* SPDX-License-Identifier: MIT */
/*
 * futex_waitv (Linux 5.16) sleeps on the flight and on its leader's life at once. Where it is missing or refused, a
 * plain wait on the first word in slices stands in: the caller looks at the second one after each.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "futex.h"

#define SLICE_NS 10000000u

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* False: the kernel can't. */
static bool wait_for(const struct futex_word *words, unsigned n, uint64_t deadline_ns)
{
	struct futex_waitv vector[FUTEX_WORDS];
	struct timespec until = to_timespec(deadline_ns);
	unsigned i;

	for (i = 0; i < n; i++)
		vector[i] = (struct futex_waitv){
			.val = words[i].seen, .uaddr = (uintptr_t)words[i].word, .flags = FUTEX_32};
	return syscall(SYS_futex_waitv, vector, n, 0, &until, CLOCK_MONOTONIC) >= 0 ||
	       (errno != ENOSYS && errno != EPERM);
}

static int wait_one(const word32 *a, uint32_t a_seen, const struct timespec *until)
{
	return (int)syscall(SYS_futex, a, FUTEX_WAIT_BITSET, a_seen, until, NULL, FUTEX_BITSET_MATCH_ANY);
}

void futex_wait(const word32 *a, uint32_t a_seen, const word32 *b, uint32_t b_seen, uint64_t deadline_ns)
{
	struct timespec until;
	uint64_t now;

	if (b && wait_for((struct futex_word[]){{a, a_seen}, {b, b_seen}}, 2, deadline_ns))
		return;
	while (w32_load(a) == a_seen && (!b || w32_load(b) == b_seen)) {
		now = clock_system_ns(CLOCK_MONOTONIC);
		if (now >= deadline_ns)
			return;
		until = to_timespec(b ? min_u64(deadline_ns, now + SLICE_NS) : deadline_ns);
		if (!wait_one(a, a_seen, &until) || errno == EINTR)
			return;
	}
}

void futex_wait_any(const struct futex_word *words, unsigned n, uint64_t deadline_ns)
{
	struct timespec until;

	if (wait_for(words, n, deadline_ns))
		return;
	until = to_timespec(min_u64(deadline_ns, clock_system_ns(CLOCK_MONOTONIC) + SLICE_NS));
	wait_one(words[0].word, words[0].seen, &until);
}

int futex_wake(const word32 *w, int n)
{
	return (int)syscall(SYS_futex, w, FUTEX_WAKE, n, NULL, NULL, 0);
}
