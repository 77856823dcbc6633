/* SPDX-License-Identifier: MIT */
/*
 * What test programs share: a clock they can set, children that can't hang or outlive them, and shared words to wait
 * on. Every wait ends after PATIENCE_S at the latest, as a failure.
 *
 * A child has no cmocka: it says must(), whose failure it prints and exits with.
 */
#ifndef SHOAL_TESTING_H
#define SHOAL_TESTING_H

#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <shoal.h>

#include "atomic.h"
#include "clock.h"
#include "futex.h"
#include "skip.h"

#define PATIENCE_S 60
#define STR(text) (text), strlen(text)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SECOND_NS UINT64_C(1000000000)

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

/* ---- shared words ------------------------------------------------------------------------------------------ */

/* Zeroed memory that children of fork share. */
static inline void *share(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static inline void unshare_memory(void *p, size_t size)
{
	munmap(p, size);
}

/* Wait until *w is at least n. False: in vain. */
static inline bool await(const word32 *w, uint32_t n)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	uint32_t now;

	while ((now = w32_load(w)) < n) {
		if (clock_system_ns(CLOCK_MONOTONIC) >= deadline)
			return false;
		futex_wait(w, now, NULL, 0, deadline);
	}
	return true;
}

static inline void post(word32 *w)
{
	w32_add(w, 1);
	futex_wake(w, INT_MAX);
}

/* All n parties meet. */
static inline bool meet(word32 *w, uint32_t n)
{
	post(w);
	return await(w, n);
}

/* ---- children ---------------------------------------------------------------------------------------------- */

#define must(condition)                                                                                               \
	do {                                                                                                          \
		if (!(condition)) {                                                                                   \
			fprintf(stderr, "%s:%d: child %d: %s\n", __FILE__, __LINE__, (int)getpid(), #condition);      \
			_exit(99);                                                                                    \
		}                                                                                                     \
	} while (0)

static inline void become_child(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(98);
	if (!UNDER_ASAN && !UNDER_TSAN) { /* cmocka's handlers would go on with the next case, in the child */
		signal(SIGBUS, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
	}
	alarm(2 * PATIENCE_S);
}

/* A child of fork that runs body(arg) and exits with what it returns. */
static inline pid_t spawn(int (*body)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		become_child(parent);
		_exit(body(arg));
	}
	assert_true(pid > 0);
	return pid;
}

/* How the child ended, as wait() says; one that doesn't is killed, by SIGXCPU so that it can be told. */
static inline int ending_of(pid_t pid)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), status = -1, left;

	do
		left = (int)((int64_t)(deadline - clock_system_ns(CLOCK_MONOTONIC)) / 1000000);
	while (fd >= 0 && left > 0 && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, left) < 0);
	if (fd >= 0 && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 0)
		kill(pid, SIGXCPU);
	if (fd >= 0)
		close(fd);
	while (waitpid(pid, &status, 0) < 0)
		;
	return status;
}

/* The child is well: it returned 0. */
#define assert_ends_well(pid) assert_int_equal(ending_of(pid), 0)

static inline void kill_child(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

/* ---- a clock to set ---------------------------------------------------------------------------------------- */

/* Lies in shared memory, so that children see the same time. */
struct test_clock {
	word64 ns;
};

static inline uint64_t test_clock_read(void *arg)
{
	return w64_load(&((struct test_clock *)arg)->ns);
}

static inline void pass_ms(struct test_clock *c, uint64_t ms)
{
	w64_add(&c->ns, ms * 1000000);
}

/* ---- a cache to test --------------------------------------------------------------------------------------- */

struct place {
	struct shoal *cache;
	struct shoal_keyspace *k;
	struct test_clock *clock;
};

/* Lives that end when they say: no jitter, no early refresh. */
static const struct shoal_policy steady = {
	.fresh_ms = 1000,
	.stale_ms = 1000,
	.error_ms = 1000,
	.retry_ms = 100,
	.jitter_permille = SHOAL_NONE,
	.early = -1,
};

static inline struct shoal_keyspace *keyspace(struct shoal *cache, const char *name, const struct shoal_policy *policy)
{
	struct shoal_keyspace *k = NULL;

	assert_int_equal(shoal_keyspace_open(cache, name, 1, policy, &k), SHOAL_OK);
	assert_non_null(k);
	return k;
}

/* `config` without its clock; NULL: 8 MiB. */
static inline struct place open_place(const char *name, const struct shoal_config *config)
{
	struct shoal_config c = config ? *config : (struct shoal_config){.size = 8 << 20};
	struct place p = {.clock = share(sizeof(struct test_clock))};

	w64_store(&p.clock->ns, 1000 * SECOND_NS);
	c.clock = test_clock_read;
	c.clock_arg = p.clock;
	assert_int_equal(shoal_open(name, &c, &p.cache), SHOAL_OK);
	p.k = keyspace(p.cache, "test", &steady);
	return p;
}

static inline void close_place(struct place *p)
{
	shoal_close(p->cache);
	unshare_memory(p->clock, sizeof(struct test_clock));
}

static inline struct shoal_stats stats_of(struct shoal *cache)
{
	struct shoal_stats stats;

	assert_int_equal(shoal_stats(cache, &stats), SHOAL_OK);
	assert_int_equal(stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_overhead, stats.size);
	return stats;
}

static inline struct shoal_keyspace_stats counts_of(struct shoal_keyspace *k)
{
	struct shoal_keyspace_stats stats;

	assert_int_equal(shoal_keyspace_stats(k, &stats), SHOAL_OK);
	return stats;
}

static inline bool holds(const struct shoal_value *value, const char *text)
{
	return value->data && text && value->size == strlen(text) && !memcmp(value->data, text, value->size);
}

/* Does a get say `outcome` and, with SHOAL_OK, this text? */
static inline bool gives(struct shoal_keyspace *k, const char *key, int outcome, const char *text)
{
	struct shoal_value value;
	int r = shoal_get(k, STR(key), &value);
	bool right = r == outcome && (r ? !value.data : holds(&value, text));

	if (!right)
		fprintf(stderr, "get %s: %d \"%.*s\", not %d \"%s\"\n", key, r, value.data ? (int)value.size : 0,
		        value.data ? (const char *)value.data : "", outcome, text ? text : "");
	shoal_release(&value);
	return right;
}

#define assert_gives(k, key, text) assert_true(gives(k, key, SHOAL_OK, text))
#define assert_misses(k, key) assert_true(gives(k, key, SHOAL_MISS, NULL))
#define assert_set(k, key, text) assert_int_equal(shoal_set(k, STR(key), STR(text)), SHOAL_OK)

/* A random sequence that its seed repeats (splitmix64). */
static inline uint64_t draw(uint64_t *seed)
{
	uint64_t x = *seed += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

#endif
