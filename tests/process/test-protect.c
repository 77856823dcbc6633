/* SPDX-License-Identifier: MIT */
/*
 * What the origin is spared, with many processes at it. Holds, for a caller of <shoal.h>:
 *
 *   failure       one try per retry period, however many ask
 *   uncacheable   who waits for it is let go to load for itself, beside the others
 *   permits       never more loaders at once than a bound allows, and as many; the dead hold none
 *   leases        one more loader per lease, the first value fills the cache
 *   early         a hot key is refreshed by one process, and nobody misses it
 */
#include <sched.h>

#include "handle.h"
#include "testing.h"

enum { PROCESSES = 8 };

static const struct segment *segment_of(const struct place *p)
{
	return &p->cache->member->segment;
}

/* Until n have asked for what isn't there: they lead, or have joined a load. */
static bool await_misses(struct shoal_keyspace *k, uint64_t n)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;

	while (counts_of(k).misses < n) {
		if (clock_system_ns(CLOCK_MONOTONIC) >= deadline)
			return false;
		sched_yield();
	}
	return true;
}

static bool await_flights(const struct place *p, uint32_t n)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;

	while (stats_of(p->cache).flights != n) {
		if (clock_system_ns(CLOCK_MONOTONIC) >= deadline)
			return false;
		sched_yield();
	}
	return true;
}

static struct shoal_load *begins(struct shoal_keyspace *k, const char *key, int outcome)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), outcome);
	shoal_release(&value);
	return load;
}

/* How many have come here before. */
static uint32_t arrive(word32 *w)
{
	uint32_t number = w32_add(w, 1);

	futex_wake(w, INT_MAX);
	return number;
}

static void spawn_all(pid_t *pids, unsigned n, int (*body)(void *arg), void *arg)
{
	unsigned i;

	for (i = 0; i < n; i++)
		pids[i] = spawn(body, arg);
}

static void assert_all_end_well(const pid_t *pids, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		assert_ends_well(pids[i]);
}

/* ---- failure ----------------------------------------------------------------------------------------------- */

enum { PERIODS = 12, ASKS = 50 };

struct herd {
	struct place *p;
	struct shoal_keyspace *k;
	word32 period, done, runs;
	uint32_t bridged; /* so many periods */
};

static int fail_again(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct herd *h = arg;

	w32_add(&h->runs, 1);
	sched_yield(); /* the others come meanwhile */
	return 7;
}

static int ask_again(void *arg)
{
	struct herd *h = arg;
	struct shoal_value value;
	uint32_t period, i;
	int r;

	for (period = 1; period <= PERIODS; period++) {
		must(await(&h->period, period));
		for (i = 0; i < ASKS; i++) {
			r = shoal_fetch(h->k, STR("a"), fail_again, h, &value);
			must(r == (period <= h->bridged ? SHOAL_OK : SHOAL_ERR_LOAD));
			must(value.load_error == 7);
			must(r ? !value.data : holds(&value, "old") && value.freshness == SHOAL_STALE);
			shoal_release(&value);
		}
		post(&h->done);
	}
	return 0;
}

/* The old value while error_ms lasts, the error after it: one try each minute, which is the longest backoff. */
static void a_failing_key_has_no_herd(void **state)
{
	struct shoal_policy policy = steady;
	struct place p = open_place(NULL, NULL);
	struct herd *h = share(sizeof(*h));
	pid_t pids[PROCESSES];
	uint32_t period;

	policy.stale_ms = SHOAL_NONE;
	policy.error_ms = 5 * 60000 + 30000;
	h->p = &p;
	h->k = keyspace(p.cache, "failing", &policy);
	h->bridged = 6; /* 1 s, 61 s ... 301 s after the set */
	assert_set(h->k, "a", "old");
	pass_ms(p.clock, 1000);
	spawn_all(pids, PROCESSES, ask_again, h);
	for (period = 1; period <= PERIODS; period++) {
		post(&h->period);
		assert_true(await(&h->done, period * PROCESSES));
		assert_int_equal(w32_load(&h->runs), period);
		pass_ms(p.clock, 60000);
	}
	assert_all_end_well(pids, PROCESSES);
	assert_int_equal(counts_of(h->k).loads, PERIODS);
	assert_int_equal(counts_of(h->k).load_errors, PERIODS);
	assert_int_equal(stats_of(p.cache).pins, 0);
	unshare_memory(h, sizeof(*h));
	close_place(&p);
}

struct wait_all {
	struct shoal_keyspace *k;
	word32 runs, go, told;
	uint32_t size;
};

static int fail_when_told(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct wait_all *w = arg;

	w32_add(&w->runs, 1);
	must(await(&w->go, 1));
	return 42;
}

static int wait_for_failure(void *arg)
{
	struct wait_all *w = arg;
	struct shoal_value value;

	must(shoal_fetch(w->k, STR("a"), fail_when_told, w, &value) == SHOAL_ERR_LOAD);
	must(value.load_error == 42 && !value.data);
	post(&w->told);
	return 0;
}

/* All who wait for one load get its code, and none tries for itself, though nothing is remembered of it. */
static void waiters_get_the_code(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct shoal_policy policy = steady;
	struct wait_all *w = share(sizeof(*w));
	pid_t pids[PROCESSES];

	policy.retry_ms = SHOAL_NONE;
	policy.wait_ms = PATIENCE_S * 1000;
	w->k = keyspace(p.cache, "waiters", &policy);
	spawn_all(pids, PROCESSES, wait_for_failure, w);
	assert_true(await_misses(w->k, PROCESSES));
	post(&w->go);
	assert_all_end_well(pids, PROCESSES);
	assert_int_equal(w32_load(&w->runs), 1);
	unshare_memory(w, sizeof(*w));
	close_place(&p);
}

/* ---- not cacheable ----------------------------------------------------------------------------------------- */

/* The first waits until the others wait for it. They are let go by what it publishes, and meet in the loader. */
static int load_privately(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct wait_all *w = arg;
	uint32_t number = arrive(&w->runs);
	char *value = calloc(1, w->size);
	int r;

	if (!number) {
		must(await(&w->go, 1));
		if (w->size < 100)
			shoal_load_uncacheable(load, 500);
	} else {
		must(meet(&w->told, PROCESSES - 1));
	}
	memcpy(value, &number, sizeof(number));
	r = shoal_load_publish(load, value, w->size);
	free(value);
	return r;
}

static int want_own(void *arg)
{
	struct wait_all *w = arg;
	struct shoal_value value;

	must(shoal_fetch(w->k, STR("a"), load_privately, w, &value) == SHOAL_OK);
	must(value.size == w->size && value.source == SHOAL_LOADED);
	shoal_release(&value);
	return 0;
}

static void loads_in_parallel(uint32_t size, uint32_t for_ms)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_entry = 10000});
	struct shoal_policy policy = steady;
	struct wait_all *w = share(sizeof(*w));
	struct shoal_keyspace *k;
	struct shoal_load *one, *two;
	pid_t pids[PROCESSES];

	policy.wait_ms = PATIENCE_S * 1000;
	w->k = k = keyspace(p.cache, "private", &policy);
	w->size = size;
	spawn_all(pids, PROCESSES, want_own, w);
	assert_true(await_misses(k, PROCESSES) && await(&w->runs, 1));
	assert_int_equal(w32_load(&w->runs), 1);
	post(&w->go);
	assert_all_end_well(pids, PROCESSES);
	assert_int_equal(w32_load(&w->runs), PROCESSES);
	assert_misses(k, "a");
	assert_int_equal(counts_of(k).uncached, PROCESSES);
	pass_ms(p.clock, for_ms - 1);
	one = begins(k, "a", SHOAL_LEAD); /* each for itself, still */
	two = begins(k, "a", SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(two, STR("x")), SHOAL_ERR_LIMIT);
	shoal_load_cancel(one);
	assert_misses(k, "a");
	pass_ms(p.clock, 1 + 4);
	one = begins(k, "a", SHOAL_LEAD); /* coalesced again */
	two = begins(k, "a", SHOAL_WAIT);
	assert_int_equal(shoal_load_publish(one, STR("x")), SHOAL_OK);
	assert_gives(k, "a", "x");
	shoal_load_cancel(two);
	assert_int_equal(stats_of(p.cache).flights, 0);
	unshare_memory(w, sizeof(*w));
	close_place(&p);
}

static void the_uncacheable_is_loaded_in_parallel(void **state)
{
	loads_in_parallel(8, 500);
}

/* For fresh_ms, by itself. */
static void the_oversized_is_loaded_in_parallel(void **state)
{
	loads_in_parallel(10000, 1000);
}

static void uncacheable_for_the_policys_time(void **state)
{
	struct place p = open_place(NULL, NULL); /* fresh_ms 1000 */
	struct shoal_load *load = begins(p.k, "a", SHOAL_LEAD), *waiter = begins(p.k, "a", SHOAL_WAIT);
	struct shoal_value value;

	shoal_load_uncacheable(load, 0);
	assert_int_equal(shoal_load_publish(load, STR("mine")), SHOAL_OK);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_LEAD);
	shoal_load_cancel(waiter);
	assert_misses(p.k, "a");
	pass_ms(p.clock, 999);
	shoal_load_cancel(begins(p.k, "a", SHOAL_LEAD));
	assert_int_equal(counts_of(p.k).uncached, 3);
	pass_ms(p.clock, 1);
	load = begins(p.k, "a", SHOAL_LEAD);
	shoal_load_cancel(begins(p.k, "a", SHOAL_WAIT));
	shoal_load_uncacheable(load, 60000);
	assert_int_equal(shoal_load_publish(load, STR("mine")), SHOAL_OK);
	assert_set(p.k, "a", "everybody's"); /* a set ends it */
	begins(p.k, "a", SHOAL_OK);
	shoal_delete(p.k, STR("a"));
	load = begins(p.k, "a", SHOAL_LEAD);
	shoal_load_cancel(begins(p.k, "a", SHOAL_WAIT));
	shoal_load_uncacheable(load, 1000);
	shoal_load_cancel(load); /* said, and not published: nothing is remembered */
	load = begins(p.k, "a", SHOAL_LEAD);
	shoal_load_cancel(begins(p.k, "a", SHOAL_WAIT));
	shoal_load_cancel(load);
	close_place(&p);
}

/* ---- permits ----------------------------------------------------------------------------------------------- */

enum { MACHINE = 3, OWN = 2, BUSY_KEYS = 300, HELD_UP_KEYS = UNDER_TSAN ? 300 : 3000, STORM = UNDER_TSAN ? 200 : 2000 };

/* Nothing ends while the test runs, and nobody refreshes early: a key that is loaded twice is wrong. (With early
 * refresh it would not be: a load that the machine holds up for 15 s of its value's minute is dear, and in one of three
 * runs some reader refreshes it at once.) */
static const struct shoal_policy lasting = {
	.fresh_ms = SHOAL_FOREVER, .wait_ms = PATIENCE_S * 1000, .lease_ms = 3600000, .early = -1};

struct queue {
	struct shoal_keyspace *a, *b;          /* a: OWN at once; b: no bound of its own */
	word32 ready, arrived, next;
	word32 running, running_a, most, most_a;
	word32 runs;
	uint32_t keys, stride;
};

static int load_within_bounds(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct queue *q = arg;
	bool in_a = *(const char *)key == 'a';
	uint32_t n = w32_add(&q->running, 1) + 1, n_a = in_a ? w32_add(&q->running_a, 1) + 1 : 0;
	struct timespec origin = {0, 200000};

	w32_max(&q->most, n);
	w32_max(&q->most_a, n_a);
	w32_add(&q->runs, 1);
	if (q->stride && w32_add(&q->arrived, 1) < MACHINE) /* all permits can be had at once */
		must(meet(&q->next, MACHINE));
	nanosleep(&origin, NULL);
	if (in_a)
		w32_sub(&q->running_a, 1);
	w32_sub(&q->running, 1);
	return shoal_load_publish(load, key, key_size);
}

static int ask_for_many(void *arg)
{
	struct queue *q = arg;
	uint32_t n, i, start = arrive(&q->ready);
	struct shoal_value value;
	char key[16];

	must(await(&q->ready, PROCESSES));
	for (n = 0; n < q->keys; n++) {
		i = (n + start * q->stride) % q->keys;
		snprintf(key, sizeof(key), "%c%u", i % 2 ? 'a' : 'b', i);
		must(shoal_fetch(i % 2 ? q->a : q->b, STR(key), load_within_bounds, q, &value) == SHOAL_OK);
		must(holds(&value, key));
		shoal_release(&value);
	}
	return 0;
}

static int load_at_once(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct queue *q = arg;
	bool in_a = *(const char *)key == 'a';

	w32_max(&q->most, w32_add(&q->running, 1) + 1);
	if (in_a)
		w32_max(&q->most_a, w32_add(&q->running_a, 1) + 1);
	w32_add(&q->runs, 1);
	sched_yield();
	if (in_a)
		w32_sub(&q->running_a, 1);
	w32_sub(&q->running, 1);
	return shoal_load_publish(load, key, key_size);
}

/* Each its own keys, and the loads are short: all there is to it is taking and giving back. */
static int storm(void *arg)
{
	struct queue *q = arg;
	uint32_t n, number = arrive(&q->ready);
	struct shoal_value value;
	char key[16];

	must(await(&q->ready, PROCESSES));
	for (n = 0; n < STORM; n++) {
		snprintf(key, sizeof(key), "%c%u.%u", n % 3 ? 'a' : 'b', number, n);
		must(shoal_fetch(n % 3 ? q->a : q->b, STR(key), load_at_once, q, &value) == SHOAL_OK);
		shoal_release(&value);
	}
	return 0;
}

static void a_storm_keeps_the_bounds(void **state)
{
	static const struct shoal_config config = {.size = 8 << 20, .max_loads = MACHINE};
	struct shoal_policy policy = lasting;
	struct queue *q = share(sizeof(*q));
	pid_t pids[PROCESSES];
	struct shoal *cache;

	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	q->b = keyspace(cache, "b", &policy);
	policy.max_loads = OWN;
	q->a = keyspace(cache, "a", &policy);
	spawn_all(pids, PROCESSES, storm, q);
	assert_all_end_well(pids, PROCESSES);
	printf("# %d processes, short loads: %u, %u at once at most, %u of the keyspace that may have %d\n", PROCESSES,
	       w32_load(&q->runs), w32_load(&q->most), w32_load(&q->most_a), OWN);
	assert_int_equal(w32_load(&q->runs), PROCESSES * STORM);
	assert_in_range(w32_load(&q->most), 1, MACHINE);
	assert_in_range(w32_load(&q->most_a), 1, OWN);
	assert_int_equal(stats_of(cache).permits_used, 0);
	shoal_close(cache);
	unshare_memory(q, sizeof(*q));
}

/* Some of them stop for a while, wherever they are, again and again till all have ended. */
static void hold_up(const pid_t *pids, unsigned n)
{
	struct timespec stopped = {0, 0}, between = {0, 0};
	bool ended[PROCESSES] = {false};
	uint64_t seed = clock_system_ns(CLOCK_MONOTONIC);
	unsigned i, left = n;
	siginfo_t info;

	while (left) {
		i = (unsigned)(draw(&seed) % n);
		info.si_pid = 0;
		if (!ended[i] && !waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT) &&
		    info.si_pid == pids[i]) {
			ended[i] = true;
			left--;
		}
		if (ended[i])
			continue;
		stopped.tv_nsec = (long)(draw(&seed) % (draw(&seed) % 16 ? 100000 : 5000000));
		between.tv_nsec = (long)(draw(&seed) % 100000);
		kill(pids[i], SIGSTOP);
		nanosleep(&stopped, NULL);
		kill(pids[i], SIGCONT);
		nanosleep(&between, NULL);
	}
}

/* Each key is loaded once, whatever the processes do, and by nothing but a miss. On the machine's clock. */
static void load_each_key_once(uint32_t keys, uint32_t stride, bool held_up)
{
	static const struct shoal_config config = {.size = 8 << 20, .max_loads = MACHINE};
	struct shoal_policy policy = lasting;
	struct queue *q = share(sizeof(*q));
	pid_t pids[PROCESSES];
	struct shoal_keyspace_stats total;
	struct shoal *cache;

	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	q->keys = keys;
	q->stride = stride;
	q->b = keyspace(cache, "b", &policy);
	policy.max_loads = OWN;
	q->a = keyspace(cache, "a", &policy);
	spawn_all(pids, PROCESSES, ask_for_many, q);
	if (held_up)
		hold_up(pids, PROCESSES);
	assert_all_end_well(pids, PROCESSES);
	total = stats_of(cache).total;
	printf("# %d processes, %u keys%s: %u loads, %u at once at most, %u of the keyspace that may have %d; %" PRIu64
	       " early, %" PRIu64 " taken over, %" PRIu64 " superseded, %" PRIu64 " not stored, %" PRIu64 " evicted\n",
	       PROCESSES, keys, held_up ? ", held up" : "", w32_load(&q->runs), w32_load(&q->most),
	       w32_load(&q->most_a), OWN, total.early_refreshes, total.takeovers, total.superseded, total.uncached,
	       stats_of(cache).evicted_entries);
	assert_int_equal(w32_load(&q->runs), keys);
	assert_int_equal(total.loads, keys);
	assert_int_equal(total.takeovers + total.superseded + total.uncached + total.timeouts + total.busy, 0);
	assert_in_range(w32_load(&q->most), stride ? MACHINE : 1, MACHINE);
	assert_in_range(w32_load(&q->most_a), 1, OWN);
	assert_int_equal(stats_of(cache).permits_used, 0);
	assert_int_equal(stats_of(cache).flights, 0);
	shoal_close(cache);
	unshare_memory(q, sizeof(*q));
}

static void no_more_loaders_than_permits(void **state)
{
	load_each_key_once(BUSY_KEYS, 37, false);
}

/* A process may be stopped anywhere, and all want the same key at the same time: none is loaded twice. */
static void who_is_held_up_loads_nothing_twice(void **state)
{
	load_each_key_once(HELD_UP_KEYS, 0, true);
}

/* No bound of the machine, and one of the keyspace: handles that say nothing of it are not bound. */
static void a_keyspace_has_its_own_bound(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct shoal_policy policy = steady;
	struct shoal_keyspace *bound;
	struct shoal_load *loads[4], *queued;
	struct shoal_value value;

	policy.max_loads = 2;
	policy.wait_ms = 20;
	bound = keyspace(p.cache, "bound", &policy);
	loads[0] = begins(bound, "a", SHOAL_LEAD);
	loads[1] = begins(bound, "b", SHOAL_LEAD);
	assert_int_equal(stats_of(p.cache).permits_used, 2);
	queued = begins(bound, "c", SHOAL_WAIT);
	assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_ERR_BUSY);
	loads[2] = begins(p.k, "c", SHOAL_LEAD);
	loads[3] = begins(p.k, "d", SHOAL_LEAD);
	assert_int_equal(stats_of(p.cache).permits_used, 2);
	assert_int_equal(shoal_load_publish(loads[0], STR("x")), SHOAL_OK);
	assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(queued, STR("y")), SHOAL_OK);
	assert_gives(bound, "c", "y");
	assert_int_equal(shoal_load_fail(loads[1], 1), SHOAL_OK);
	shoal_load_cancel(loads[2]);
	shoal_load_cancel(loads[3]);
	assert_int_equal(stats_of(p.cache).permits_used, 0);
	close_place(&p);
}

static int must_not_run(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	++*(int *)arg;
	return shoal_load_publish(load, "ran", 3);
}

/* The stale value at once, else BUSY after wait_ms. However a load ends, its permit is back. */
static void without_a_permit_stale_or_busy(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 1});
	struct shoal_policy policy = steady;
	struct shoal_keyspace *k;
	struct shoal_load *holder, *queued, *second;
	struct shoal_value value;
	int ran = 0, way;

	policy.wait_ms = 5;
	k = keyspace(p.cache, "busy", &policy);
	assert_set(k, "stale", "old");
	assert_set(k, "error", "old");
	assert_int_equal(shoal_set_ttl(k, STR("stale"), STR("old"), 1000, 100000), SHOAL_OK);
	pass_ms(p.clock, 2500);
	for (way = 0; way < 5; way++) {
		holder = begins(k, "holder", SHOAL_LEAD);
		assert_int_equal(stats_of(p.cache).permits_used, 1);
		assert_int_equal(shoal_fetch(k, STR("stale"), must_not_run, &ran, &value), SHOAL_OK);
		assert_true(holds(&value, "old"));
		assert_int_equal(value.freshness, SHOAL_STALE);
		assert_int_equal(value.load_error, 0);
		shoal_release(&value);
		begins(k, "stale", SHOAL_OK);
		assert_int_equal(shoal_fetch(k, STR("new"), must_not_run, &ran, &value), SHOAL_ERR_BUSY);
		assert_null(value.data);
		assert_int_equal(shoal_fetch(k, STR("error"), must_not_run, &ran, &value), SHOAL_ERR_BUSY);
		assert_null(value.data);
		assert_int_equal(counts_of(k).busy, 2 + 3 * way);
		queued = begins(k, "new", SHOAL_WAIT);
		assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_ERR_BUSY);
		assert_int_equal(shoal_wait(queued, 5, &value), SHOAL_ERR_BUSY);
		assert_int_equal(ran, 0);
		assert_int_equal(counts_of(k).busy, 3 + 3 * way);
		second = begins(k, "new", SHOAL_WAIT); /* coalesced with the one in the queue */
		switch (way) {
		case 0:
			assert_int_equal(shoal_load_publish(holder, STR("x")), SHOAL_OK);
			break;
		case 1:
			assert_int_equal(shoal_load_fail(holder, 1), SHOAL_OK);
			break;
		case 2:
			shoal_load_cancel(holder);
			break;
		case 3:
			shoal_load_uncacheable(holder, 1);
			assert_int_equal(shoal_load_publish(holder, STR("x")), SHOAL_OK);
			break;
		default:
			assert_non_null(shoal_load_reserve(holder, 10));
			assert_int_equal(shoal_load_commit(holder, 11), SHOAL_ERR_INVALID);
		}
		assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_LEAD);
		assert_int_equal(stats_of(p.cache).permits_used, 1);
		assert_int_equal(shoal_load_publish(queued, STR("y")), SHOAL_OK);
		assert_int_equal(shoal_wait(second, 0, &value), SHOAL_OK);
		assert_true(holds(&value, "y"));
		shoal_release(&value);
		assert_int_equal(stats_of(p.cache).permits_used, 0);
		shoal_delete(k, STR("new"));
		shoal_delete(k, STR("holder"));
	}
	assert_int_equal(counts_of(k).loads, 2 * way);
	close_place(&p);
}

/* One who waits for a permit is served by a value that comes meanwhile, and leaves no trace when it gives up. */
static void a_queue_is_left(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 1});
	struct shoal_load *holder = begins(p.k, "holder", SHOAL_LEAD), *queued = begins(p.k, "a", SHOAL_WAIT), *other;
	struct shoal_value value;

	assert_set(p.k, "a", "set");
	assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_OK);
	assert_true(holds(&value, "set"));
	shoal_release(&value);
	queued = begins(p.k, "b", SHOAL_WAIT);
	other = begins(p.k, "c", SHOAL_WAIT);
	shoal_load_cancel(queued);
	assert_int_equal(stats_of(p.cache).flights, 2);
	shoal_load_cancel(holder);
	assert_int_equal(shoal_wait(other, 0, &value), SHOAL_LEAD);
	shoal_load_cancel(other);
	holder = begins(p.k, "b", SHOAL_LEAD);
	shoal_load_cancel(holder);
	assert_int_equal(stats_of(p.cache).permits_used, 0);
	assert_int_equal(stats_of(p.cache).flights, 0);
	close_place(&p);
}

struct doomed {
	struct place *p;
	word32 number, holding, go, led;
};

static int hold_until_killed(void *arg)
{
	struct doomed *d = arg;
	struct shoal_load *load;
	struct shoal_value value;
	char key[16];

	snprintf(key, sizeof(key), "doomed%u", w32_add(&d->number, 1));
	must(shoal_begin(d->p->k, STR(key), &load, &value) == SHOAL_LEAD);
	post(&d->holding);
	for (;;)
		pause();
	return 0;
}

static int queue_until_killed(void *arg)
{
	struct doomed *d = arg;
	struct shoal_load *load;
	struct shoal_value value;

	must(shoal_begin(d->p->k, STR("queued"), &load, &value) == SHOAL_WAIT);
	post(&d->holding);
	for (;;)
		pause();
	return 0;
}

/* By who wants them, or by a reap; no lease of theirs ends, the clock stands. */
static void the_dead_hold_no_permits(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 3});
	struct doomed *d = share(sizeof(*d));
	struct shoal_load *load, *more[2];
	struct shoal_value value;
	pid_t pids[4];
	int round, i;

	d->p = &p;
	for (round = 0; round < 6; round++) {
		w32_store(&d->holding, 0);
		spawn_all(pids, 3, hold_until_killed, d);
		assert_true(await(&d->holding, 3));
		assert_int_equal(stats_of(p.cache).permits_used, 3);
		pids[3] = spawn(queue_until_killed, d); /* before us in the queue */
		assert_true(await(&d->holding, 4));
		load = begins(p.k, "ours", SHOAL_WAIT);
		assert_int_equal(shoal_wait(load, 0, &value), SHOAL_ERR_BUSY);
		kill_child(pids[3]);
		assert_int_equal(shoal_wait(load, 0, &value), SHOAL_ERR_BUSY);
		for (i = 0; i < 3; i++)
			kill_child(pids[i]);
		if (round % 2) {
			assert_int_equal(shoal_reap(p.cache), 4);
			assert_int_equal(stats_of(p.cache).permits_used, 0);
		}
		assert_int_equal(shoal_wait(load, PATIENCE_S * 1000, &value), SHOAL_LEAD);
		more[0] = begins(p.k, "more", SHOAL_LEAD);
		more[1] = begins(p.k, "and more", SHOAL_LEAD);
		assert_int_equal(stats_of(p.cache).permits_used, 3);
		shoal_load_cancel(load);
		shoal_load_cancel(more[0]);
		shoal_load_cancel(more[1]);
		shoal_reap(p.cache);
		assert_int_equal(stats_of(p.cache).permits_used, 0);
		assert_int_equal(stats_of(p.cache).flights, 0);
		assert_int_equal(stats_of(p.cache).processes, 1);
	}
	unshare_memory(d, sizeof(*d));
	close_place(&p);
}

static int load_when_free(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return shoal_load_publish(load, key, key_size);
}

static int fetch_behind(void *arg)
{
	struct doomed *d = arg;
	struct shoal_value value;

	must(shoal_fetch(d->p->k, STR("behind"), load_when_free, d, &value) == SHOAL_OK);
	shoal_release(&value);
	return 0;
}

/* One that sleeps in the queue is woken by it, well within its wait of five seconds a round. */
static void sleepers_get_the_permits_of_the_dead(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 1});
	struct doomed *d = share(sizeof(*d));
	pid_t holder, sleeper;
	int round;

	d->p = &p;
	for (round = 0; round < 3; round++) {
		w32_store(&d->holding, 0);
		holder = spawn(hold_until_killed, d);
		assert_true(await(&d->holding, 1));
		sleeper = spawn(fetch_behind, d);
		assert_true(await_flights(&p, 2)); /* it is in the queue, or about to be */
		kill_child(holder);
		assert_ends_well(sleeper);
		shoal_delete(p.k, STR("behind"));
		shoal_reap(p.cache);
	}
	assert_int_equal(stats_of(p.cache).permits_used, 0);
	unshare_memory(d, sizeof(*d));
	close_place(&p);
}

/* A permit has the load's lease, which a leader renews with it. */
static void a_permit_has_a_lease(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 1});
	struct shoal_policy policy = steady;
	struct shoal_keyspace *k;
	struct shoal_load *slow, *queued;
	struct shoal_value value;
	int i;

	policy.lease_ms = 400;
	k = keyspace(p.cache, "lease", &policy);
	slow = begins(k, "slow", SHOAL_LEAD);
	queued = begins(k, "queued", SHOAL_WAIT);
	for (i = 0; i < 10; i++) {
		pass_ms(p.clock, 390);
		assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_ERR_BUSY);
		assert_int_equal(shoal_load_renew(slow), SHOAL_OK);
	}
	pass_ms(p.clock, 399);
	assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_ERR_BUSY);
	pass_ms(p.clock, 1);
	assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(slow, STR("slow")), SHOAL_OK); /* and takes nobody's permit with it */
	assert_int_equal(stats_of(p.cache).permits_used, 1);
	shoal_load_cancel(begins(k, "third", SHOAL_WAIT));
	assert_int_equal(shoal_load_publish(queued, STR("x")), SHOAL_OK);
	assert_gives(k, "slow", "slow");
	assert_gives(k, "queued", "x");
	assert_int_equal(stats_of(p.cache).permits_used, 0);
	close_place(&p);
}

/* ---- leases ------------------------------------------------------------------------------------------------ */

struct slow {
	struct shoal_keyspace *k;
	word32 loaders, let_go[PROCESSES], done;
};

static int load_slowly(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct slow *s = arg;
	uint32_t number = arrive(&s->loaders);
	char text[2] = {(char)('0' + number), 0};

	must(number < PROCESSES);
	must(await(&s->let_go[number], 1));
	return shoal_load_publish(load, text, 1);
}

static int ask_slowly(void *arg)
{
	struct slow *s = arg;
	struct shoal_value value;
	bool first;

	must(shoal_fetch(s->k, STR("a"), load_slowly, s, &value) == SHOAL_OK);
	first = holds(&value, "1");
	must(first || value.source == SHOAL_LOADED);
	shoal_release(&value);
	if (first)
		post(&s->done);
	return 0;
}

/* Loaders of three leases: three of them, one by one, while the others go on waiting. The second is done first. */
static void slower_than_the_lease(void **state)
{
	enum { LEASES = 3 };
	struct place p = open_place(NULL, NULL);
	struct shoal_policy policy = steady;
	struct slow *s = share(sizeof(*s));
	pid_t pids[PROCESSES];
	uint32_t i;

	policy.lease_ms = 1000;
	policy.fresh_ms = 1000000;
	policy.wait_ms = PATIENCE_S * 1000;
	s->k = keyspace(p.cache, "slow", &policy);
	spawn_all(pids, PROCESSES, ask_slowly, s);
	assert_true(await_misses(s->k, PROCESSES));
	for (i = 1; i <= LEASES; i++) {
		assert_true(await(&s->loaders, i));
		pass_ms(p.clock, 996);
		shoal_load_cancel(begins(s->k, "a", SHOAL_WAIT));
		assert_int_equal(w32_load(&s->loaders), i);
		if (i < LEASES)
			pass_ms(p.clock, 4);
	}
	post(&s->let_go[1]);
	assert_true(await(&s->done, PROCESSES - LEASES + 1));
	assert_gives(s->k, "a", "1");
	post(&s->let_go[0]);
	post(&s->let_go[2]);
	assert_all_end_well(pids, PROCESSES);
	assert_gives(s->k, "a", "2");
	assert_int_equal(w32_load(&s->loaders), LEASES);
	assert_int_equal(counts_of(s->k).loads, LEASES);
	assert_int_equal(counts_of(s->k).superseded, 1);
	unshare_memory(s, sizeof(*s));
	close_place(&p);
}

/* ---- early refresh ----------------------------------------------------------------------------------------- */

enum { READERS = 4, LIFE = 400, COST = 5, NEAR = 60 };

struct hot {
	struct place *p;
	struct shoal_keyspace *k;
	word32 ready, loads, doubles, wrong;
	uint32_t periods;
	word64 born_ms, last;
};

static int load_hot(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct hot *h = arg;
	const struct shoal_value *previous = shoal_load_previous(load);
	uint64_t generation = previous ? previous->generation : 0;

	/* Each generation is replaced once, and not by who threw the dice for the one before: at LIFE - 50 ms from the
	 * end they say no (exp(-350 / 5) of them). */
	if (!previous || w64_load(&h->last) >= generation || previous->age_ms < 50)
		w32_add(&h->doubles, 1);
	w64_store(&h->last, generation);
	pass_ms(h->p->clock, COST);
	w64_store(&h->born_ms, test_clock_read(h->p->clock) / 1000000);
	w32_add(&h->loads, 1);
	return shoal_load_publish(load, "x", 1);
}

/* Nearer to the end in small steps, and not to it: who moves the clock leaves room for a load. Not while one runs, so
 * that what a load costs is what it says. */
static void tick(struct hot *h)
{
	uint64_t now = test_clock_read(h->p->clock) / 1000000, end = w64_load(&h->born_ms) + LIFE, oldest;

	if (now + 2 * COST >= end || flight_running(segment_of(h->p), UINT32_MAX, now, &oldest))
		return;
	pass_ms(h->p->clock, now + NEAR + 20 < end ? 20 : 1);
}

static int read_hot(void *arg)
{
	struct hot *h = arg;
	struct shoal_value value;
	uint32_t number = arrive(&h->ready);
	int i;

	must(await(&h->ready, READERS));
	while (w32_load(&h->loads) < h->periods) {
		for (i = 0; i < 10; i++) {
			if (shoal_fetch(h->k, "hot", 3, load_hot, h, &value) || value.freshness != SHOAL_FRESH)
				w32_add(&h->wrong, 1);
			shoal_release(&value);
		}
		if (!number)
			tick(h);
	}
	return 0;
}

/* However many read it, one load per period, and never a miss. */
static void one_process_refreshes_early(void **state)
{
	static const struct shoal_policy policy = {.fresh_ms = LIFE, .jitter_permille = SHOAL_NONE};
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_flights = 16});
	struct hot *h = share(sizeof(*h));
	struct shoal_keyspace_stats counts;
	struct shoal_load *load;
	pid_t pids[READERS];

	h->p = &p;
	h->k = keyspace(p.cache, "hot", &policy);
	h->periods = UNDER_TSAN ? 500 : 5000;
	load = begins(h->k, "hot", SHOAL_LEAD);
	pass_ms(p.clock, COST);
	w64_store(&h->born_ms, test_clock_read(p.clock) / 1000000);
	assert_int_equal(shoal_load_publish(load, "x", 1), SHOAL_OK);
	spawn_all(pids, READERS, read_hot, h);
	assert_all_end_well(pids, READERS);
	counts = counts_of(h->k);
	printf("# %d processes, %u periods: %u loads, %u of them for nothing, %" PRIu64 " misses\n", READERS,
	       h->periods, w32_load(&h->loads), w32_load(&h->doubles), counts.misses - 1);
	assert_int_equal(w32_load(&h->wrong), 0);
	assert_int_equal(w32_load(&h->doubles), 0);
	assert_int_equal(counts.loads, w32_load(&h->loads) + 1);
	assert_int_equal(counts.early_refreshes, w32_load(&h->loads));
	assert_int_equal(counts.misses, 1); /* the first; not one who was held up between two looks */
	assert_int_equal(counts.hits_stale, 0);
	assert_int_equal(counts.superseded + counts.takeovers, 0);
	unshare_memory(h, sizeof(*h));
	close_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failing_key_has_no_herd),
		cmocka_unit_test(waiters_get_the_code),
		cmocka_unit_test(the_uncacheable_is_loaded_in_parallel),
		cmocka_unit_test(the_oversized_is_loaded_in_parallel),
		cmocka_unit_test(uncacheable_for_the_policys_time),
		cmocka_unit_test(no_more_loaders_than_permits),
		cmocka_unit_test(who_is_held_up_loads_nothing_twice),
		cmocka_unit_test(a_storm_keeps_the_bounds),
		cmocka_unit_test(a_keyspace_has_its_own_bound),
		cmocka_unit_test(without_a_permit_stale_or_busy),
		cmocka_unit_test(a_queue_is_left),
		cmocka_unit_test(the_dead_hold_no_permits),
		cmocka_unit_test(sleepers_get_the_permits_of_the_dead),
		cmocka_unit_test(a_permit_has_a_lease),
		cmocka_unit_test(slower_than_the_lease),
		cmocka_unit_test(one_process_refreshes_early),
	};

	return cmocka_run_group_tests_name("protect", tests, NULL, NULL);
}
