/* SPDX-License-Identifier: MIT */
/*
 * What tests with many processes share: memory that survives fork, children that can't outlive the test nor hang it,
 * counters to wait on, and a place where a child can say what is wrong (cmocka's assertions belong to the parent).
 *
 * Nothing here waits without a bound: who waits too long calls crew_wrong() and goes on.
 */
#ifndef SHOAL_TEST_CREW_H
#define SHOAL_TEST_CREW_H

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "clock.h"
#include "futex.h"
#include "handle.h"
#include "skip.h"

#define CREW_UNUSED __attribute__((unused))
/* longer than anything takes that is not stuck, also under a sanitizer on a busy machine */
#define CREW_PATIENCE_MS 60000
#define CREW_LINES 16

/* ---- shared memory, time, chance --------------------------------------------------------------------------- */

static void *crew_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static uint64_t crew_now(void)
{
	return clock_system_ns(CLOCK_MONOTONIC);
}

/* What a slow origin does, or the time between two blows: never a substitute for waiting on a word. */
static CREW_UNUSED void crew_pass_us(uint64_t us)
{
	struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static CREW_UNUSED uint64_t crew_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static CREW_UNUSED uint64_t crew_below(uint64_t *state, uint64_t n)
{
	return crew_random(state) % n;
}

/* ---- what is wrong ----------------------------------------------------------------------------------------- */

struct crew_verdict {
	word32 count;
	char lines[CREW_LINES][256];
};

static struct crew_verdict *crew_verdict;

static void crew_begin(void)
{
	if (!crew_verdict)
		crew_verdict = crew_memory(sizeof(*crew_verdict));
	memset(crew_verdict, 0, sizeof(*crew_verdict));
}

static __attribute__((format(printf, 1, 2))) void crew_wrong(const char *format, ...)
{
	uint32_t n = w32_add(&crew_verdict->count, 1);
	va_list args;

	if (n >= CREW_LINES)
		return;
	va_start(args, format);
	vsnprintf(crew_verdict->lines[n], sizeof(crew_verdict->lines[n]), format, args);
	va_end(args);
}

#define crew_expect(condition, ...)                                                                                   \
	do {                                                                                                          \
		if (!(condition))                                                                                     \
			crew_wrong(__VA_ARGS__);                                                                      \
	} while (0)

/* How much was wrong; said on the way. For the parent to assert on. */
static uint32_t crew_wrongs(void)
{
	uint32_t i, n = w32_load(&crew_verdict->count);

	for (i = 0; i < n && i < CREW_LINES; i++)
		printf("# wrong: %s\n", crew_verdict->lines[i]);
	if (n > CREW_LINES)
		printf("# ... and %u more\n", n - CREW_LINES);
	fflush(stdout);
	return n;
}

/* ---- counters to wait on ----------------------------------------------------------------------------------- */

static CREW_UNUSED void crew_signal(word32 *w)
{
	w32_add(w, 1);
	futex_wake(w, INT32_MAX);
}

/* Until *w has reached `least`. */
static CREW_UNUSED bool crew_await(word32 *w, uint32_t least)
{
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000;
	uint32_t now;

	while ((now = w32_load(w)) < least) {
		if (crew_now() >= end) {
			crew_wrong("waited %u s for %u of %u", CREW_PATIENCE_MS / 1000, now, least);
			return false;
		}
		futex_wait(w, now, NULL, 0, end);
	}
	return true;
}

/* ---- children ---------------------------------------------------------------------------------------------- */

static CREW_UNUSED pid_t crew_fork(void (*body)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		abort();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(9);
	body(arg);
	_exit(0);
}

/* Its wait status; a child that doesn't end in time is killed, and wrong. */
static int crew_join(pid_t pid)
{
	int status = -1, fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd >= 0 && poll(&p, 1, CREW_PATIENCE_MS) != 1) {
		crew_wrong("child %d did not end", (int)pid);
		kill(pid, SIGKILL);
	}
	if (fd >= 0)
		close(fd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static CREW_UNUSED void crew_join_well(pid_t pid)
{
	int status = crew_join(pid);

	crew_expect(WIFEXITED(status) && !WEXITSTATUS(status), "child %d ended with status %#x", (int)pid, status);
}

static CREW_UNUSED void crew_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	crew_join(pid);
}

/* The state letter of /proc/PID/stat; 0: no such process. */
static CREW_UNUSED char crew_state(pid_t pid)
{
	char path[32], text[512], *end;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	end = strrchr(text, ')');
	return end && end[1] ? end[2] : 0;
}

/* Until it sleeps in the kernel, or is stopped there. */
static CREW_UNUSED bool crew_await_state(pid_t pid, const char *states)
{
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000;
	char c;

	do {
		c = crew_state(pid);
		if (c && strchr(states, c))
			return true;
		sched_yield();
	} while (crew_now() < end);
	crew_wrong("child %d is in state %c, not %s", (int)pid, c ? c : '-', states);
	return false;
}

/* ---- figures ----------------------------------------------------------------------------------------------- */

static CREW_UNUSED int crew_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* ---- the segment ------------------------------------------------------------------------------------------- */

/* Behind a handle, for tests that look at its words. */
static CREW_UNUSED const struct segment *crew_segment(const struct shoal *cache)
{
	return &cache->member->segment;
}

static CREW_UNUSED bool crew_is_head(const struct segment *s, uint32_t x)
{
	const word64 *heads = &s->header->heads[0][0];
	uint32_t h;

	for (h = 0; h < LOGS * HEADS_MAX; h++)
		if ((uint32_t)w64_load(&heads[h]) == x + 1)
			return true;
	return false;
}

static int crew_fault(const char *what, int recoverable, void *arg)
{
	if (!recoverable)
		crew_wrong("%s", what);
	return 0;
}

/* The whole segment is as it should be, whoever is at it. */
static CREW_UNUSED void crew_check(struct shoal *cache)
{
	int r = shoal_check(cache, crew_fault, NULL);

	crew_expect(r >= 0, "check: %s", shoal_strerror(r));
}

/* While nobody else is at it: likewise, and the extents that are `exact` count what is theirs, and no more. (A writer
 * that was killed leaves a count that is too high until its extent was evicted.) */
static CREW_UNUSED void crew_check_counts(struct shoal *cache, const bool *exact)
{
	const struct segment *s = crew_segment(cache);
	uint64_t n, word, *live = calloc(s->geometry.extents, sizeof(*live));
	uint32_t x, *entries = calloc(s->geometry.extents, sizeof(*entries));
	struct log_entry e;

	crew_check(cache);
	for (n = 0; n < index_slots(s); n++) {
		word = w64_load(&s->index[n / BUCKET_SLOTS].slots[n % BUCKET_SLOTS]);
		if (!SLOT_IS_USED(word) || !log_read(s, SLOT_BYTES(word), &e))
			continue;
		live[extent_of(s, SLOT_BYTES(word))] += e.length;
		entries[extent_of(s, SLOT_BYTES(word))]++;
	}
	for (x = 0; x < s->geometry.extents; x++)
		if (exact[x] && (EXTENT_STATE(extents_word(s, x)) == EXTENT_OPEN ||
		                 EXTENT_STATE(extents_word(s, x)) == EXTENT_SEALED))
			crew_expect(w64_load(&s->extents[x].counts) == ((uint64_t)entries[x] << 32 | live[x]),
				    "extent %u has %" PRIu64 " bytes in %u entries, and counts %u in %u", x, live[x],
				    entries[x], EXTENT_LIVE(w64_load(&s->extents[x].counts)),
				    EXTENT_ENTRIES(w64_load(&s->extents[x].counts)));
	free(live);
	free(entries);
}

/*
 * Nothing is lost: fill it three times over, and every extent comes into use again while nothing is refused. A turn of
 * an extent is five steps of its sequence. One writer has one head; the other heads stay as they are, and are in use,
 * and so does the main log, which new keys don't push out.
 */
static CREW_UNUSED void crew_fill(struct shoal *cache, struct shoal_keyspace *keyspace)
{
	const struct segment *s = crew_segment(cache);
	uint32_t x, steps, reused = 0, *before = calloc(s->geometry.extents, sizeof(*before));
	bool *exact = calloc(s->geometry.extents, sizeof(*exact));
	uint64_t key = (uint64_t)1 << 60, bytes = 0;
	size_t size = s->geometry.max_entry / 2;
	void *value = calloc(1, size);
	struct shoal_stats stats = {0};
	int r = SHOAL_OK;

	for (x = 0; x < s->geometry.extents; x++)
		before[x] = EXTENT_SEQUENCE(extents_word(s, x));
	for (; bytes < 3 * s->geometry.size && !r; key++, bytes += size) {
		r = shoal_set(keyspace, &key, sizeof(key), value, size);
		crew_expect(r == SHOAL_OK, "set after %" PRIu64 " bytes: %s", bytes, shoal_strerror(r));
	}
	for (x = 0; x < s->geometry.extents; x++) {
		steps = (EXTENT_SEQUENCE(extents_word(s, x)) - before[x]) & 0xfffffff;
		exact[x] = steps >= 5;
		reused += exact[x];
		crew_expect(steps >= 5 || crew_is_head(s, x) || w32_load(&s->extents[x].kind) == LOG_MAIN,
		            "extent %u did not come into use: state %u, %u steps", x, EXTENT_STATE(extents_word(s, x)),
		            steps);
	}
	crew_expect(shoal_stats(cache, &stats) == SHOAL_OK, "no statistics");
	crew_expect(stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_overhead == stats.size,
		    "the bytes do not add up");
	printf("# filled again with %.1f MB: %u of %u extents came into use\n", (double)bytes / 1e6, reused,
	       s->geometry.extents);
	crew_check_counts(cache, exact);
	free(value);
	free(before);
	free(exact);
}

#endif
