// SPDX-License-Identifier: MIT
/*
 * Refreshes in threads of their own, and loads that wait for each other. The caller that wins a refresh gets the old
 * value at once and hands the load over, with a copy of the key; a full queue, a child of fork, and a refresher that
 * was stopped leave it with the caller. Two loaders that ask for each other's keys are told so.
 */
#include <errno.h>
#include <pthread.h>

#include "testing.h"

/* What the loaders did. In shared memory: a child's are counted, too. */
struct desk {
	struct place p;
	word32 inside, go, front, back, set_up, torn_down, deadlocks, started, ended;
	uint32_t circle;
	int code;
};

static int load_in_front(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	w32_add(&((struct desk *)arg)->front, 1);
	return shoal_load_publish(load, STR("front"));
}

static int set_up(void *arg, void **context)
{
	w32_add(&((struct desk *)arg)->set_up, 1);
	*context = (char *)arg + 1; /* not arg itself: the loader must get this one */
	return 0;
}

static void tear_down(void *context)
{
	w32_add(&((struct desk *)(void *)((char *)context - 1))->torn_down, 1);
}

/* Says that it is inside, and waits until it may go on. */
static int load_in_the_back(struct shoal_load *load, const void *key, size_t key_size, void *context)
{
	struct desk *d = (void *)((char *)context - 1);

	post(&d->inside);
	if (!await(&d->go, 1))
		return ETIME;
	post(&d->back);
	return d->code ? d->code : shoal_load_publish(load, key, key_size);
}

static struct desk *open_desk(unsigned threads, unsigned queue)
{
	struct desk *d = share(sizeof(*d));

	d->p = open_place(NULL, NULL);
	assert_int_equal(shoal_keyspace_refresher(d->p.k, load_in_the_back, set_up, tear_down, d), SHOAL_OK);
	if (threads)
		assert_int_equal(shoal_refresher_start(d->p.cache, threads, queue), SHOAL_OK);
	return d;
}

static void close_desk(struct desk *d)
{
	close_place(&d->p);
	unshare_memory(d, sizeof(*d));
}

/* The value that a fetch gives right now. */
static bool fetches(struct desk *d, const char *key, const char *text, enum shoal_freshness freshness)
{
	struct shoal_value value;
	char copy[16]; /* gone when the refresh runs */
	bool right;

	snprintf(copy, sizeof(copy), "%s", key);
	right = shoal_fetch(d->p.k, STR(copy), load_in_front, d, &value) == SHOAL_OK && holds(&value, text) &&
		value.freshness == freshness;
	shoal_release(&value);
	memset(copy, 'z', sizeof(copy));
	return right;
}

static void a_stale_key_is_refreshed_behind(void **state)
{
	struct desk *d = open_desk(2, 8);

	assert_true(fetches(d, "a", "front", SHOAL_FRESH)); /* a miss is loaded by its caller */
	pass_ms(d->p.clock, 1500);
	assert_true(fetches(d, "a", "front", SHOAL_STALE));
	assert_true(await(&d->inside, 1));
	assert_true(fetches(d, "a", "front", SHOAL_STALE)); /* while it runs */
	post(&d->go);
	shoal_refresher_stop(d->p.cache); /* after the refresh that a thread is at */
	assert_gives(d->p.k, "a", "a");
	assert_int_equal(w32_load(&d->front), 1);
	assert_int_equal(w32_load(&d->back), 1);
	assert_int_equal(w32_load(&d->set_up), 1); /* at the first use, by the thread that had it */
	assert_int_equal(w32_load(&d->torn_down), 1);
	assert_int_equal(stats_of(d->p.cache).flights + stats_of(d->p.cache).pins, 0);
	close_desk(d);
}

static void what_finds_the_queue_full_is_refreshed_in_front(void **state)
{
	struct desk *d = open_desk(1, 1);

	assert_set(d->p.k, "a", "old");
	assert_set(d->p.k, "b", "old");
	assert_set(d->p.k, "c", "old");
	pass_ms(d->p.clock, 1500);
	assert_true(fetches(d, "a", "old", SHOAL_STALE));
	assert_true(await(&d->inside, 1)); /* popped: the queue is empty again */
	assert_true(fetches(d, "b", "old", SHOAL_STALE));
	assert_true(fetches(d, "c", "front", SHOAL_FRESH));
	assert_int_equal(w32_load(&d->front), 1);
	post(&d->go);
	assert_true(await(&d->back, 2));
	shoal_refresher_stop(d->p.cache);
	assert_gives(d->p.k, "a", "a");
	assert_gives(d->p.k, "b", "b");
	close_desk(d);
}

static void *let_go_when_stopping(void *arg)
{
	post(&((struct desk *)arg)->go);
	return NULL;
}

/* What is queued when it stops is given up, and refreshed by who asks next. */
static void a_stop_gives_up_what_is_queued(void **state)
{
	struct desk *d = open_desk(1, 8);
	pthread_t thread;

	assert_set(d->p.k, "a", "old");
	assert_set(d->p.k, "b", "old");
	pass_ms(d->p.clock, 1500);
	assert_true(fetches(d, "a", "old", SHOAL_STALE));
	assert_true(await(&d->inside, 1));
	assert_true(fetches(d, "b", "old", SHOAL_STALE));
	assert_int_equal(pthread_create(&thread, NULL, let_go_when_stopping, d), 0);
	shoal_refresher_stop(d->p.cache);
	pthread_join(thread, NULL);
	assert_int_equal(stats_of(d->p.cache).flights, 0);
	if (w32_load(&d->back) == 1)
		assert_true(fetches(d, "b", "front", SHOAL_FRESH));
	shoal_refresher_stop(d->p.cache); /* twice is harmless */
	close_desk(d);
}

static int be_a_child(void *arg)
{
	struct desk *d = arg;

	must(fetches(d, "a", "front", SHOAL_FRESH)); /* in its own time: the threads are the parent's */
	if (UNDER_TSAN) {
		skipped("ThreadSanitizer can't follow threads of a child whose parent has some");
		return 0;
	}
	must(shoal_refresher_start(d->p.cache, 1, 4) == SHOAL_OK);
	pass_ms(d->p.clock, 1500);
	must(fetches(d, "a", "front", SHOAL_STALE));
	must(await(&d->back, 1));
	shoal_close(d->p.cache);
	return 0;
}

static void a_child_has_none_until_it_starts_its_own(void **state)
{
	struct desk *d = open_desk(1, 4);

	assert_int_equal(shoal_refresher_start(d->p.cache, 1, 4), SHOAL_ERR_INVALID); /* one is enough */
	assert_set(d->p.k, "a", "old");
	pass_ms(d->p.clock, 1500);
	post(&d->go);
	assert_ends_well(spawn(be_a_child, d));
	assert_gives(d->p.k, "a", UNDER_TSAN ? "front" : "a");
	close_desk(d);
}

static void a_failure_behind_is_remembered(void **state)
{
	struct desk *d = open_desk(1, 4);

	d->code = EIO;
	assert_set(d->p.k, "a", "old");
	pass_ms(d->p.clock, 1500);
	post(&d->go);
	assert_true(fetches(d, "a", "old", SHOAL_STALE));
	assert_true(await(&d->inside, 1));
	shoal_refresher_stop(d->p.cache);
	assert_int_equal(w32_load(&d->back), 1);
	assert_true(fetches(d, "a", "old", SHOAL_STALE)); /* nobody tries within retry_ms */
	assert_int_equal(w32_load(&d->front), 0);
	assert_int_equal(counts_of(d->p.k).load_errors, 1);
	close_desk(d);
}

/* ---- crossed ----------------------------------------------------------------------------------------------- */

static int publish_short(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return shoal_load_publish(load, STR("short"));
}

/* When all are inside, each asks for the next one's key. */
static int ask_for_the_next(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct desk *d = arg;
	char next = (char)('a' + (*(const char *)key - 'a' + 1) % (int)d->circle);
	struct shoal_value value;
	int r;

	must(meet(&d->inside, d->circle));
	r = shoal_fetch(d->p.k, &next, 1, publish_short, NULL, &value);
	shoal_release(&value);
	if (r == SHOAL_ERR_DEADLOCK)
		w32_add(&d->deadlocks, 1);
	return r == SHOAL_OK ? shoal_load_publish(load, STR("long")) : EDEADLK;
}

static int ask_for_one(void *arg)
{
	struct desk *d = arg;
	char key = (char)('a' + w32_add(&d->started, 1));
	struct shoal_value value;
	int r = shoal_fetch(d->p.k, &key, 1, ask_for_the_next, d, &value);

	must(r == SHOAL_OK || (r == SHOAL_ERR_LOAD && value.load_error == EDEADLK));
	shoal_release(&value);
	post(&d->ended);
	return 0;
}

/* wait_ms is longer than the test's patience: only the circle's discovery ends this. */
static void a_circle_of_waiters_is_found(void **state)
{
	struct shoal_policy policy = steady;
	struct desk *d;
	uint32_t n, i;
	pid_t pids[4];

	policy.wait_ms = policy.lease_ms = 3600000;
	for (n = 2; n <= COUNT(pids); n++) {
		d = share(sizeof(*d));
		d->p = open_place(NULL, NULL);
		d->circle = n;
		d->p.k = keyspace(d->p.cache, "crossed", &policy);
		for (i = 0; i < n; i++)
			pids[i] = spawn(ask_for_one, d);
		assert_true(await(&d->ended, n));
		for (i = 0; i < n; i++)
			assert_ends_well(pids[i]);
		assert_in_range(w32_load(&d->deadlocks), 1, n);
		assert_int_equal(counts_of(d->p.k).timeouts, w32_load(&d->deadlocks));
		assert_int_equal(stats_of(d->p.cache).pins, 0);
		close_desk(d);
	}
}

/* ---- one inside another ------------------------------------------------------------------------------------ */

static int ask_for_a_part(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct shoal_value value;
	int r = shoal_fetch(arg, STR("part"), publish_short, NULL, &value);

	shoal_release(&value);
	return r ? r : shoal_load_publish(load, STR("whole"));
}

/* With one permit on the machine, a loader that needs another key must not wait for itself. */
static void a_load_inside_a_loader_needs_no_second_permit(void **state)
{
	struct shoal_config config = {.size = 8 << 20, .max_loads = 1};
	struct place p = open_place(NULL, &config);
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p.k, STR("all"), ask_for_a_part, p.k, &value), SHOAL_OK);
	assert_true(holds(&value, "whole"));
	shoal_release(&value);
	assert_gives(p.k, "part", "short");
	assert_int_equal(counts_of(p.k).busy, 0);
	assert_int_equal(stats_of(p.cache).permits_used, 0);
	close_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_load_inside_a_loader_needs_no_second_permit),
		cmocka_unit_test(a_stale_key_is_refreshed_behind),
		cmocka_unit_test(what_finds_the_queue_full_is_refreshed_in_front),
		cmocka_unit_test(a_stop_gives_up_what_is_queued),
		cmocka_unit_test(a_child_has_none_until_it_starts_its_own),
		cmocka_unit_test(a_failure_behind_is_remembered),
		cmocka_unit_test(a_circle_of_waiters_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
