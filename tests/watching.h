/* SPDX-License-Identifier: MIT */
/*
 * What tests of watches share: a cache whose loads take as long as they like, wakes that write down what has come, the
 * loop that calls them, and leaders in other processes. The key is "a", where one is enough.
 *
 * Nothing is timed: each wait ends with a wake, or as a failure after PATIENCE_S. Where a case is about being told at
 * once, the second look is switched off (no_slices), so that a lost wake is a failure and not a delay.
 */
#ifndef SHOAL_TEST_WATCHING_H
#define SHOAL_TEST_WATCHING_H

#include <errno.h>
#include <pthread.h>

#include "load.h"
#include "testing.h"

#define LONG_MS 300000 /* for ever, in a test: longer than its patience */
#define POLICY(...)                                                                                                   \
	(&(const struct shoal_policy){.retry_ms = 50, .jitter_permille = SHOAL_NONE, .early = -1, __VA_ARGS__})
#define PATIENT POLICY(.wait_ms = LONG_MS, .lease_ms = LONG_MS)

/* What came of one that is watched. */
struct seen {
	word32 wakes;
	int outcome, error;
	char text[32];
	struct shoal_load *load; /* it leads now, or was not waited for */
};

#define UNSEEN ((struct seen){.outcome = -100})

/* For parents and children to wait on. */
struct stage {
	word32 led; /* by who was spawned */
	word32 go;  /* to who leads: end it */
	word32 done, count;
	word64 at_ns;
};

static struct shoal *cache;
static struct shoal_keyspace *k;
static struct stage *stage;
static struct shoal_load *leader; /* of "a", if it is one of ours */
static struct seen one, two;      /* who watch */
static word32 woken;              /* how often anybody in this process was */

/* Each of a thousand keys finds a flight. */
static inline int set_up(void **state)
{
	struct shoal_config config = {.size = 32 << 20, .max_flights = 16384};

	stage = share(sizeof(*stage));
	w32_store(&woken, 0);
	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	k = keyspace(cache, "watch", PATIENT);
	return 0;
}

static inline void close_cache(void)
{
	shoal_close(cache);
	cache = NULL;
}

static inline int tear_down(void **state)
{
	close_cache();
	unshare_memory(stage, sizeof(*stage));
	return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* ---- loads, and who watches them --------------------------------------------------------------------------- */

/* NULL: the outcome is another one. */
static inline struct shoal_load *begin(const void *key, size_t size, int outcome)
{
	struct shoal_load *load = NULL;
	struct shoal_value value = {0};
	int r = shoal_begin(k, key, size, &load, &value);

	shoal_release(&value);
	return r == outcome ? load : NULL;
}

static inline struct shoal_load *begins(const char *key, int outcome)
{
	struct shoal_load *load = begin(STR(key), outcome);

	assert_non_null(load);
	return load;
}

#define leads(key) begins(key, SHOAL_LEAD)
#define assert_published(load, text) assert_int_equal(shoal_load_publish(load, STR(text)), SHOAL_OK)

static inline void on_wake(struct shoal_load *load, void *arg)
{
	struct seen *s = arg;
	struct shoal_value value;

	s->outcome = shoal_wait(load, 0, &value);
	s->error = value.load_error;
	s->load = s->outcome == SHOAL_OK ? NULL : load;
	if (value.data)
		snprintf(s->text, sizeof(s->text), "%.*s", (int)value.size, (const char *)value.data);
	shoal_release(&value);
	w32_add(&s->wakes, 1);
	w32_add(&woken, 1);
}

static inline struct shoal_load *watches_by(const char *key, shoal_wake *wake, void *arg)
{
	struct shoal_load *load = begins(key, SHOAL_WAIT);

	assert_int_equal(shoal_watch(load, wake, arg), SHOAL_OK);
	return load;
}

static inline struct shoal_load *watches(const char *key, struct seen *s)
{
	*s = UNSEEN;
	s->load = watches_by(key, on_wake, s);
	assert_int_equal(w32_load(&s->wakes), 0);
	return s->load;
}

static inline unsigned watched(void)
{
	struct watch *w = cache->watch;
	unsigned n;

	pthread_mutex_lock(&w->lock);
	n = w->n;
	pthread_mutex_unlock(&w->lock);
	return n;
}

/* What is watched now is looked at when something rings, and at no other time. The thread that tells of it sleeps. */
static inline void no_slices(void)
{
	struct watch *w = cache->watch;
	struct watched *e;
	unsigned i;

	pthread_mutex_lock(&w->lock);
	w->again_ns = UINT64_MAX;
	for (i = 0; i < BELL_BITS * WATCH_LISTS; i++) {
		cds_list_for_each_entry(e, &w->loads[i / WATCH_LISTS][i % WATCH_LISTS], node)
			e->next_ns = UINT64_MAX;
		w->next_ns[i / WATCH_LISTS] = UINT64_MAX;
	}
	pthread_mutex_unlock(&w->lock);
}

static inline void watch_each(struct seen *const *each)
{
	for (; *each; each++)
		watches("a", *each);
	no_slices();
}

/* "a" is led, by another process or from now on by ours, and these struct seen watch it, without slices. */
#define watched_by(...) watch_each((struct seen *const[]){__VA_ARGS__, NULL})
#define led_and_watched_by(...) (leader = leads("a"), watched_by(__VA_ARGS__))

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static inline bool is_readable(int fd, int ms)
{
	return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, ms) == 1;
}

/* As a loop of poll(). False: in vain. */
static inline bool dispatches_until(const word32 *count, uint32_t n)
{
	uint64_t end = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	int fd = shoal_poll_fd(cache);

	while (fd >= 0 && w32_load(count) < n && clock_system_ns(CLOCK_MONOTONIC) < end)
		if (is_readable(fd, 100) && shoal_dispatch(cache))
			return false;
	return w32_load(count) == n;
}

/* Is it woken, once, with this outcome and, if there is one to be, this text? */
static inline bool comes(struct seen *s, int outcome, const char *text)
{
	bool right = dispatches_until(&s->wakes, 1) && s->outcome == outcome && (!text || !strcmp(s->text, text));

	if (!right)
		fprintf(stderr, "%u wakes: %d \"%s\", not %d \"%s\"\n", w32_load(&s->wakes), s->outcome, s->text,
		        outcome, text ? text : "");
	return right;
}

#define assert_woken(s, outcome) assert_true(comes(s, outcome, NULL))
#define assert_given(s, text) assert_true(comes(s, SHOAL_OK, text))
#define assert_not_woken(s) assert_int_equal(w32_load(&(s)->wakes), 0)
#define assert_dispatches() assert_int_equal(shoal_dispatch(cache), SHOAL_OK)

/* ---- leaders in other processes ---------------------------------------------------------------------------- */

struct part {
	const char *key;
	int (*end)(struct shoal_load *load);
	size_t memory;
};

static inline int lead_a_part(void *arg)
{
	const struct part *p = arg;
	struct shoal_load *load;
	char *memory;

	if (p->memory) {
		memory = mmap(NULL, p->memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(memory != MAP_FAILED);
		memset(memory, 1, p->memory);
	}
	load = begin(STR(p->key), SHOAL_LEAD);
	must(load);
	post(&stage->led);
	must(await(&stage->go, 1));
	return p->end(load);
}

static inline int publish_it(struct shoal_load *load)
{
	return shoal_load_publish(load, STR("theirs"));
}

/* When that returns it leads, and waits for `go`. */
static inline pid_t spawn_leader(int (*body)(void *part), struct part part)
{
	pid_t pid;

	w32_store(&stage->led, 0);
	pid = spawn(body, &part);
	assert_true(await(&stage->led, 1));
	return pid;
}

#define leads_elsewhere(key, end) spawn_leader(lead_a_part, (struct part){key, end, 0})
#define leads_till_killed(key, memory) spawn_leader(lead_a_part, (struct part){key, NULL, memory})

#endif
