/* SPDX-License-Identifier: MIT */
/*
 * Loads through the cache, in steps and by fetch, on a clock that is set. Holds, as their callers see them:
 *
 *   P.1  what a set or delete stores or removes never loses to an older load
 *   P.3  a load that has no flight is never stored
 *   F.2  who was superseded or taken over doesn't publish; F.4 an overdue leader may, if nothing newer happened
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "layout.h"
#include "testing.h"

static int set_up(void **state)
{
	static struct place p;

	p = open_place(NULL, NULL);
	*state = &p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	assert_int_equal(stats_of(p->cache).pins, 0);
	assert_int_equal(stats_of(p->cache).flights, 0);
	close_place(p);
	return 0;
}

static struct shoal_load *begins(struct shoal_keyspace *k, const char *key, int outcome)
{
	struct shoal_load *load = (void *)-1;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), outcome);
	assert_int_equal(load != NULL, outcome == SHOAL_LEAD || outcome == SHOAL_REFRESH || outcome == SHOAL_WAIT);
	assert_int_equal(value.data != NULL, outcome == SHOAL_OK || outcome == SHOAL_REFRESH);
	shoal_release(&value);
	return load;
}

#define leads(k, key) begins(k, key, SHOAL_LEAD)
#define waits(k, key) begins(k, key, SHOAL_WAIT)
#define assert_publishes(load, text, outcome) assert_int_equal(shoal_load_publish(load, STR(text)), outcome)

static void assert_waited(struct shoal_load *load, int outcome, const char *text)
{
	struct shoal_value value;

	assert_int_equal(shoal_wait(load, 0, &value), outcome);
	if (outcome == SHOAL_OK) {
		assert_true(holds(&value, text));
		assert_int_equal(value.source, SHOAL_COALESCED);
	} else {
		assert_null(value.data);
	}
	shoal_release(&value);
}

/* ---- begin, wait, publish ---------------------------------------------------------------------------------- */

static void one_leads_and_others_wait(void **state)
{
	struct place *p = *state;
	struct shoal_load *leader = leads(p->k, "a"), *one, *two;
	struct shoal_keyspace_stats counts;

	one = waits(p->k, "a");
	two = waits(p->k, "a");
	assert_int_equal(stats_of(p->cache).flights, 1);
	assert_null(shoal_load_previous(leader));
	assert_waited(one, SHOAL_ERR_TIMEOUT, NULL);
	pass_ms(p->clock, 100);
	assert_int_equal((int)counts_of(p->k).oldest_load_ms, 100);
	assert_publishes(leader, "loaded", SHOAL_OK);
	assert_waited(one, SHOAL_OK, "loaded");
	assert_waited(two, SHOAL_OK, "loaded");
	assert_gives(p->k, "a", "loaded");
	begins(p->k, "a", SHOAL_OK);
	counts = counts_of(p->k);
	assert_int_equal(counts.loads, 1);
	assert_int_equal(counts.coalesced, 2);
	assert_int_equal(counts.misses, 3);
	assert_int_equal(counts.load_errors + counts.takeovers + counts.superseded + counts.uncached, 0);
	assert_true(counts.load_ns_sum > 0);
}

static void stale_is_served_while_one_refreshes(void **state)
{
	struct place *p = *state;
	struct shoal_load *load;
	struct shoal_value value;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 1000);
	assert_int_equal(shoal_begin(p->k, STR("a"), &load, &value), SHOAL_REFRESH);
	assert_true(holds(&value, "old"));
	assert_int_equal(value.freshness, SHOAL_STALE);
	assert_non_null(shoal_load_previous(load));
	assert_true(holds(shoal_load_previous(load), "old"));
	begins(p->k, "a", SHOAL_OK);
	assert_gives(p->k, "a", "old");
	assert_publishes(load, "new", SHOAL_OK);
	assert_gives(p->k, "a", "new");
	assert_true(holds(&value, "old"));
	shoal_release(&value);
}

static void within_error_ms_one_loads(void **state)
{
	struct place *p = *state;
	struct shoal_load *load, *waiter;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 2500);
	load = leads(p->k, "a");
	assert_true(holds(shoal_load_previous(load), "old"));
	waiter = waits(p->k, "a");
	assert_waited(waiter, SHOAL_ERR_TIMEOUT, NULL);
	assert_publishes(load, "new", SHOAL_OK);
	assert_waited(waiter, SHOAL_OK, "new");
}

static void reserve_grows(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");
	struct shoal_value value;
	size_t size, i;
	char *space;

	for (size = 1; size < 20000; size *= 3) {
		space = shoal_load_reserve(load, size);
		assert_non_null(space);
		assert_int_equal((uintptr_t)space % 8, 0);
		for (i = 0; i < size / 3; i++)
			assert_int_equal(space[i], (char)i);
		for (; i < size; i++)
			space[i] = (char)i;
	}
	size /= 3;
	assert_ptr_equal(shoal_load_reserve(load, 5), shoal_load_reserve(load, size));
	assert_int_equal(shoal_load_commit(load, size - 3), SHOAL_OK);
	assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
	assert_int_equal(value.size, size - 3);
	for (i = 0; i < size - 3; i++)
		assert_int_equal(((const char *)value.data)[i], (char)i);
	shoal_release(&value);
}

/* The space is pinned: nobody gets it meanwhile. */
static void reserved_space_stays(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 2 << 20});
	struct shoal_load *load = leads(p.k, "a");
	char *space = shoal_load_reserve(load, 10), big[4000] = {0};
	int key;

	memcpy(space, "0123456789", 10);
	for (key = 0; key < 2000; key++)
		assert_int_equal(shoal_set(p.k, &key, sizeof(key), big, sizeof(big)), SHOAL_OK);
	assert_memory_equal(space, "0123456789", 10);
	assert_int_equal(shoal_load_commit(load, 10), SHOAL_OK);
	assert_gives(p.k, "a", "0123456789");
	close_place(&p);
}

static void commit_hands_the_value_over(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");
	struct shoal_value value;

	memcpy(shoal_load_reserve(load, 5), "12345", 5);
	assert_int_equal(shoal_load_commit_value(load, 5, &value), SHOAL_OK);
	assert_true(holds(&value, "12345"));
	assert_int_equal(value.source, SHOAL_LOADED);
	assert_int_equal(value.freshness, SHOAL_FRESH);
	shoal_release(&value);
	assert_gives(p->k, "a", "12345");
	load = leads(p->k, "b");
	memcpy(shoal_load_reserve(load, 5), "12345", 5);
	shoal_delete(p->k, STR("b"));
	assert_int_equal(shoal_load_commit_value(load, 5, &value), SHOAL_ERR_SUPERSEDED); /* and is the caller's */
	assert_true(holds(&value, "12345"));
	shoal_release(&value);
	assert_misses(p->k, "b");
}

static void an_empty_value_is_published(void **state)
{
	struct place *p = *state;

	assert_int_equal(shoal_load_publish(leads(p->k, "a"), NULL, 0), SHOAL_OK);
	assert_gives(p->k, "a", "");
	begins(p->k, "a", SHOAL_OK);
}

static void without_pins_space_is_heap(void **state)
{
	enum { N = READER_WORDS - PINS };
	struct place *p = *state;
	struct shoal_load *loads[2 * N];
	char key[16], *space;
	int i;

	for (i = 0; i < 2 * N; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		loads[i] = leads(p->k, key);
		space = shoal_load_reserve(loads[i], 100);
		assert_non_null(space);
		memcpy(space, key, strlen(key));
	}
	assert_int_equal(stats_of(p->cache).pins, N);
	for (i = 0; i < 2 * N; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		assert_int_equal(shoal_load_commit(loads[i], strlen(key)), SHOAL_OK);
		assert_gives(p->k, key, key);
	}
}

static void what_is_too_big_is_not_stored(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a"), *waiter = waits(p->k, "a"), *again;
	size_t size = 1 << 20;
	char *big = calloc(1, size);
	struct shoal_value value;

	assert_int_equal(shoal_load_publish(load, big, size), SHOAL_ERR_TOO_BIG);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_LEAD); /* each for itself meanwhile */
	again = leads(p->k, "a");
	assert_int_equal(counts_of(p->k).uncached, 3);
	memset(shoal_load_reserve(waiter, size), 1, size);
	assert_true(shoal_load_commit_value(waiter, size, &value) < 0);
	assert_int_equal(value.size, size);
	shoal_release(&value);
	shoal_load_cancel(again);
	pass_ms(p->clock, 1000); /* fresh_ms: then it may have shrunk */
	assert_publishes(leads(p->k, "a"), "small", SHOAL_OK);
	assert_gives(p->k, "a", "small");
	free(big);
}

static void this_value_has_its_own_life(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");

	shoal_load_ttl(load, 10, SHOAL_NONE);
	assert_publishes(load, "x", SHOAL_OK);
	pass_ms(p->clock, 9);
	assert_gives(p->k, "a", "x");
	pass_ms(p->clock, 1);
	assert_misses(p->k, "a");
	shoal_load_ttl(NULL, 1, 1);
}

static void a_life_counts_from_the_publication(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");

	pass_ms(p->clock, 5000);
	assert_publishes(load, "x", SHOAL_OK);
	pass_ms(p->clock, 999);
	begins(p->k, "a", SHOAL_OK);
}

static void misuse_is_answered(void **state)
{
	struct place *p = *state;
	struct shoal_load *load, *waiter;
	struct shoal_value value;

	assert_int_equal(shoal_begin(NULL, STR("a"), &load, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_begin(p->k, NULL, 1, &load, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_begin(p->k, "a", 0, &load, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_begin(p->k, STR("a"), NULL, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_begin(p->k, STR("a"), &load, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_wait(NULL, 0, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_load_publish(NULL, "x", 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_load_commit(NULL, 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_load_fail(NULL, 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_load_renew(NULL), SHOAL_ERR_INVALID);
	assert_null(shoal_load_previous(NULL));
	errno = 0;
	assert_null(shoal_load_reserve(NULL, 1));
	assert_int_equal(errno, EINVAL);
	shoal_load_cancel(NULL);
	load = leads(p->k, "a");
	assert_int_equal(shoal_load_publish(load, NULL, 1), SHOAL_ERR_INVALID); /* ends it all the same */
	load = leads(p->k, "a");
	assert_int_equal(shoal_wait(load, 0, &value), SHOAL_ERR_INVALID); /* a leader has nothing to wait for */
	waiter = waits(p->k, "a");
	errno = 0;
	assert_null(shoal_load_reserve(waiter, 1));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(shoal_load_renew(waiter), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_load_publish(waiter, "x", 1), SHOAL_ERR_INVALID); /* ends the waiter */
	assert_non_null(shoal_load_reserve(load, 10));
	assert_int_equal(shoal_load_commit(load, 11), SHOAL_ERR_INVALID); /* more than was reserved */
	load = leads(p->k, "a");
	assert_int_equal(shoal_load_commit(load, 0), SHOAL_ERR_INVALID); /* nothing was */
	load = leads(p->k, "a");
	assert_publishes(load, "x", SHOAL_OK);
}

/* ---- fail, cancel ------------------------------------------------------------------------------------------ */

static void assert_remembers(struct shoal_keyspace *k, const char *key, int code)
{
	struct shoal_value value;
	struct shoal_load *load;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), SHOAL_ERR_LOAD);
	assert_null(load);
	assert_null(value.data);
	assert_int_equal(value.load_error, code);
}

static void a_failure_is_remembered(void **state)
{
	static const int codes[] = {EIO, 0, -1, INT_MAX, INT_MIN};
	struct place *p = *state; /* retry_ms 100 */
	struct shoal_load *load, *waiter;
	struct shoal_value value;
	unsigned wait;
	size_t i;

	for (i = 0; i < COUNT(codes); i++) {
		load = leads(p->k, "a");
		waiter = waits(p->k, "a");
		assert_int_equal(shoal_load_fail(load, codes[i]), SHOAL_OK);
		assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_ERR_LOAD);
		assert_int_equal(value.load_error, codes[i]);
		shoal_load_cancel(waiter);
		assert_remembers(p->k, "a", codes[i]);
		wait = 100u << i; /* doubled each time, and less by an eighth at most */
		pass_ms(p->clock, wait - (i ? wait / 8 : 0) - 4);
		assert_remembers(p->k, "a", codes[i]);
		pass_ms(p->clock, wait / 8 + 8);
	}
	assert_int_equal(counts_of(p->k).load_errors, COUNT(codes));
	assert_publishes(leads(p->k, "a"), "x", SHOAL_OK);
	assert_gives(p->k, "a", "x");
}

static void failures_in_a_row_wait_a_minute_at_most(void **state)
{
	struct place *p = *state;
	int i;

	for (i = 0; i < 40; i++) {
		assert_int_equal(shoal_load_fail(leads(p->k, "a"), 1), SHOAL_OK);
		pass_ms(p->clock, 60000 / 8 * 9 + 5);
	}
	assert_publishes(leads(p->k, "a"), "x", SHOAL_OK);
	pass_ms(p->clock, 10000);
	assert_int_equal(shoal_load_fail(leads(p->k, "a"), 1), SHOAL_OK);
	pass_ms(p->clock, 120); /* a success ended the row */
	shoal_load_cancel(leads(p->k, "a"));
}

/* The waiter looks late: the failure is forgotten by its time, and is still the answer to this wait. */
static void a_late_waiter_gets_the_failure(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a"), *waiter = waits(p->k, "a");
	struct shoal_value value;

	assert_int_equal(shoal_load_fail(load, 5), SHOAL_OK);
	pass_ms(p->clock, 1000);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, 5);
	shoal_load_cancel(waiter);
}

static void a_failure_without_memory(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k;
	int i;

	policy.retry_ms = SHOAL_NONE;
	k = keyspace(p->cache, "no-retry", &policy);
	for (i = 0; i < 5; i++) { /* whatever the flight's resolution */
		assert_int_equal(shoal_load_fail(leads(k, "a"), 1), SHOAL_OK);
		pass_ms(p->clock, 1);
		assert_int_equal(shoal_load_fail(leads(k, "a"), 1), SHOAL_OK);
		shoal_load_cancel(leads(k, "a"));
	}
}

static void a_set_ends_the_failure(void **state)
{
	struct place *p = *state;

	assert_int_equal(shoal_load_fail(leads(p->k, "a"), 1), SHOAL_OK);
	assert_set(p->k, "a", "x");
	begins(p->k, "a", SHOAL_OK);
	shoal_delete(p->k, STR("a"));
	shoal_load_cancel(leads(p->k, "a"));
}

static void a_failure_is_bridged_within_error_ms(void **state)
{
	struct place *p = *state; /* fresh, stale, error: 1000 each */
	struct shoal_load *load, *waiter;
	struct shoal_value value;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 2500);
	load = leads(p->k, "a");
	waiter = waits(p->k, "a");
	assert_int_equal(shoal_load_fail(load, 7), SHOAL_OK);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_OK);
	assert_true(holds(&value, "old"));
	assert_int_equal(value.load_error, 7);
	assert_int_equal(value.freshness, SHOAL_STALE);
	shoal_release(&value);
	assert_int_equal(shoal_begin(p->k, STR("a"), &load, &value), SHOAL_OK);
	assert_true(holds(&value, "old"));
	assert_int_equal(value.load_error, 7);
	shoal_release(&value);
	assert_misses(p->k, "a"); /* get does not serve it */
	pass_ms(p->clock, 500);
	shoal_load_cancel(leads(p->k, "a"));
}

static void one_who_cancels_is_followed(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a"), *one = waits(p->k, "a"), *two = waits(p->k, "a");

	shoal_load_cancel(load);
	assert_waited(two, SHOAL_LEAD, NULL);
	assert_waited(one, SHOAL_ERR_TIMEOUT, NULL);
	assert_publishes(two, "x", SHOAL_OK);
	assert_waited(one, SHOAL_OK, "x");
	assert_int_equal(counts_of(p->k).takeovers, 1);
	assert_int_equal(counts_of(p->k).loads, 2);
}

static void one_who_stops_waiting_is_forgotten(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");

	shoal_load_cancel(waits(p->k, "a"));
	shoal_load_cancel(load);
	assert_int_equal(stats_of(p->cache).flights, 0);
	shoal_load_cancel(leads(p->k, "a"));
}

/* ---- something newer happens to the key -------------------------------------------------------------------- */

static void delete_supersedes(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a"), *waiter = waits(p->k, "a");

	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_MISS);
	assert_waited(waiter, SHOAL_LEAD, NULL);
	assert_publishes(load, "old", SHOAL_ERR_SUPERSEDED);
	assert_misses(p->k, "a");
	assert_publishes(waiter, "new", SHOAL_OK);
	assert_gives(p->k, "a", "new");
	assert_int_equal(counts_of(p->k).superseded, 1);
}

static void a_late_publish_changes_nothing(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");

	shoal_delete(p->k, STR("a"));
	assert_publishes(leads(p->k, "a"), "new", SHOAL_OK);
	assert_publishes(load, "old", SHOAL_ERR_SUPERSEDED);
	assert_gives(p->k, "a", "new");
	load = leads(p->k, "b");
	shoal_delete(p->k, STR("b"));
	assert_int_equal(shoal_load_fail(load, 1), SHOAL_ERR_SUPERSEDED); /* nor does a late failure */
	assert_publishes(leads(p->k, "b"), "x", SHOAL_OK);
	load = leads(p->k, "c");
	shoal_delete(p->k, STR("c"));
	assert_int_equal(shoal_load_renew(load), SHOAL_ERR_SUPERSEDED);
	shoal_load_cancel(load);
}

static void set_supersedes(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a"), *waiter = waits(p->k, "a");

	assert_set(p->k, "a", "set");
	assert_waited(waiter, SHOAL_OK, "set");
	assert_publishes(load, "loaded", SHOAL_ERR_SUPERSEDED);
	assert_gives(p->k, "a", "set");
}

static void expire_supersedes(void **state)
{
	struct place *p = *state;
	struct shoal_load *load;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 1500);
	load = begins(p->k, "a", SHOAL_REFRESH);
	assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
	assert_publishes(load, "read before the expire", SHOAL_ERR_SUPERSEDED);
	assert_gives(p->k, "a", "old");
	load = leads(p->k, "b");
	assert_int_equal(shoal_expire(p->k, STR("b")), SHOAL_MISS);
	assert_publishes(load, "read before the expire", SHOAL_ERR_SUPERSEDED);
	assert_misses(p->k, "b");
}

static void another_key_supersedes_nothing(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "other", &steady);
	struct shoal_load *load = leads(p->k, "a");

	assert_set(p->k, "b", "x");
	assert_set(k, "a", "x");
	shoal_delete(k, STR("a"));
	shoal_expire(p->k, STR("b"));
	assert_publishes(load, "x", SHOAL_OK);
	assert_gives(p->k, "a", "x");
}

/* ---- leases ------------------------------------------------------------------------------------------------ */

static struct shoal_keyspace *short_leases(struct place *p)
{
	struct shoal_policy policy = steady;

	policy.lease_ms = 400;
	return keyspace(p->cache, "lease", &policy);
}

static void renewed_is_kept(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *load = leads(k, "a");
	int i;

	for (i = 0; i < 5; i++) {
		pass_ms(p->clock, 390);
		shoal_load_cancel(waits(k, "a"));
		assert_int_equal(shoal_load_renew(load), SHOAL_OK);
	}
	assert_publishes(load, "x", SHOAL_OK);
	assert_int_equal(counts_of(k).loads, 1);
}

static void overdue_still_publishes(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *slow = leads(k, "a"), *heir;

	pass_ms(p->clock, 404);
	heir = leads(k, "a");
	assert_int_equal(shoal_load_renew(slow), SHOAL_ERR_SUPERSEDED);
	assert_publishes(slow, "slow", SHOAL_OK);
	assert_gives(k, "a", "slow");
	assert_publishes(heir, "heir", SHOAL_OK);
	assert_gives(k, "a", "heir");
}

static void an_heirs_value_stays(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *slow = leads(k, "a"), *heir;

	pass_ms(p->clock, 404);
	heir = leads(k, "a");
	shoal_load_cancel(waits(k, "a")); /* the heir is waited for */
	assert_publishes(heir, "heir", SHOAL_OK);
	assert_publishes(slow, "slow", SHOAL_ERR_SUPERSEDED);
	assert_gives(k, "a", "heir");
	assert_int_equal(counts_of(k).superseded, 1);
}

static void an_overdue_waiter_becomes_heir(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *slow = leads(k, "a"), *one = waits(k, "a"), *two = waits(k, "a");

	pass_ms(p->clock, 404);
	assert_waited(one, SHOAL_LEAD, NULL);
	assert_waited(two, SHOAL_ERR_TIMEOUT, NULL);
	assert_publishes(slow, "slow", SHOAL_OK);
	assert_waited(two, SHOAL_OK, "slow");
	shoal_load_cancel(one);
}

static void delete_reaches_the_overdue(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *slow = leads(k, "a"), *heir;

	pass_ms(p->clock, 404);
	heir = leads(k, "a");
	shoal_delete(k, STR("a"));
	assert_publishes(slow, "slow", SHOAL_ERR_SUPERSEDED);
	assert_publishes(heir, "heir", SHOAL_ERR_SUPERSEDED);
	assert_misses(k, "a");
}

/* ---- no slot ----------------------------------------------------------------------------------------------- */

static void without_a_slot_nothing_is_stored(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_flights = 4});
	struct shoal_load *loads[4], *alone;
	struct shoal_value value;
	char key[2] = "a";
	int i;

	assert_set(p.k, "stale", "old");
	pass_ms(p.clock, 1000);
	for (i = 0; i < 4; i++, key[0]++)
		loads[i] = leads(p.k, key);
	assert_int_equal(stats_of(p.cache).flights, 4);
	alone = leads(p.k, key);
	shoal_load_cancel(leads(p.k, key)); /* not coalesced */
	assert_int_equal(shoal_load_renew(alone), SHOAL_ERR_INVALID);
	memcpy(shoal_load_reserve(alone, 3), "own", 3);
	assert_int_equal(shoal_load_commit_value(alone, 3, &value), SHOAL_ERR_LIMIT);
	assert_true(holds(&value, "own"));
	shoal_release(&value);
	assert_misses(p.k, key);
	begins(p.k, "stale", SHOAL_OK); /* served rather than loaded by everybody */
	assert_int_equal(counts_of(p.k).uncached, 2);
	shoal_load_fail(loads[0], 1); /* what is only remembered makes room */
	assert_publishes(leads(p.k, key), "x", SHOAL_OK);
	assert_gives(p.k, key, "x");
	for (i = 1; i < 4; i++)
		shoal_load_cancel(loads[i]);
	close_place(&p);
}

/* ---- fetch ------------------------------------------------------------------------------------------------- */

struct job {
	struct place *p;
	int runs, publishes, outcome, code, inner;
	const char *text;
	size_t size;
};

static int run_job(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *job = arg;
	int i;

	job->runs++;
	assert_memory_equal(key, "a", 1);
	assert_int_equal(key_size, 1);
	for (i = 0; i < job->publishes; i++)
		job->outcome = shoal_load_publish(load, job->text, job->size ? job->size : strlen(job->text));
	return job->code;
}

static void fetch_loads_once(void **state)
{
	struct place *p = *state;
	struct job job = {.publishes = 1, .text = "loaded", .outcome = 99};
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_int_equal(job.outcome, SHOAL_OK);
	assert_true(holds(&value, "loaded"));
	assert_int_equal(value.source, SHOAL_LOADED);
	assert_int_equal(value.freshness, SHOAL_FRESH);
	shoal_release(&value);
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_true(holds(&value, "loaded"));
	assert_int_equal(value.source, SHOAL_HIT);
	shoal_release(&value);
	assert_int_equal(job.runs, 1);
	pass_ms(p->clock, 1500);
	job.text = "again";
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_true(holds(&value, "again")); /* who refreshes gets what it loaded */
	shoal_release(&value);
	assert_int_equal(job.runs, 2);
	assert_int_equal(shoal_fetch(p->k, NULL, 1, run_job, &job, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_fetch(p->k, "a", 0, run_job, &job, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_fetch(p->k, "a", 1, NULL, &job, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_fetch(NULL, "a", 1, run_job, &job, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_fetch(p->k, "a", 1, run_job, &job, NULL), SHOAL_ERR_INVALID);
}

static void fetch_tells_of_failure(void **state)
{
	struct place *p = *state;
	struct job job = {.code = EIO};
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, EIO);
	assert_null(value.data);
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, EIO);
	assert_int_equal(job.runs, 1); /* remembered */
	pass_ms(p->clock, 104);
	job.code = 0; /* returns without having published */
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, 0);
	pass_ms(p->clock, 204); /* twice in a row */
	job = (struct job){.publishes = 2, .text = "x"}; /* the second time is an error of its own, and harmless */
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_int_equal(job.outcome, SHOAL_ERR_INVALID);
	assert_true(holds(&value, "x"));
	shoal_release(&value);
	pass_ms(p->clock, 1000);
	job = (struct job){.code = 5}; /* stale: bridges the failure */
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_true(holds(&value, "x"));
	assert_int_equal(value.load_error, 5);
	shoal_release(&value);
	pass_ms(p->clock, 1000); /* within error_ms, too */
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_int_equal(job.runs, 2);
	assert_true(holds(&value, "x"));
	assert_int_equal(value.load_error, 5);
	assert_int_equal(value.freshness, SHOAL_STALE);
	shoal_release(&value);
	pass_ms(p->clock, 1000);
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
	assert_null(value.data);
}

static int superseded_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *job = arg;

	shoal_delete(job->p->k, key, key_size);
	return shoal_load_publish(load, job->text, job->size ? job->size : strlen(job->text));
}

static void fetch_gives_what_is_not_stored(void **state)
{
	struct place *p = *state;
	struct job job = {.p = p, .publishes = 1, .text = "own"};
	struct shoal_value value;
	size_t size = 1 << 20;
	char *big = calloc(1, size);

	assert_int_equal(shoal_fetch(p->k, STR("a"), superseded_loader, &job, &value), SHOAL_OK);
	assert_true(holds(&value, "own"));
	shoal_release(&value);
	assert_misses(p->k, "a");
	assert_int_equal(counts_of(p->k).superseded, 1);
	job = (struct job){.publishes = 1, .text = big, .size = size};
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_OK);
	assert_int_equal(job.outcome, SHOAL_OK);
	assert_int_equal(value.size, size);
	shoal_release(&value);
	assert_misses(p->k, "a");
	assert_int_equal(counts_of(p->k).uncached, 1);
	free(big);
}

static int inner_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *job = arg;
	struct shoal_value value;
	char next = *(const char *)key;

	if (++next <= 'd') {
		job->outcome = shoal_fetch(job->p->k, &next, 1, inner_loader, job, &value);
		if (job->outcome)
			return 1;
		shoal_release(&value);
	}
	job->runs++;
	job->inner = shoal_fetch(job->p->k, "a", 1, inner_loader, job, &value);
	if (job->inner != SHOAL_ERR_DEADLOCK || value.data)
		return 2;
	return shoal_load_publish(load, key, key_size);
}

static void loaders_may_load(void **state)
{
	struct place *p = *state;
	struct job job = {.p = p};
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p->k, STR("a"), inner_loader, &job, &value), SHOAL_OK);
	shoal_release(&value);
	assert_int_equal(job.runs, 4);
	assert_int_equal(job.inner, SHOAL_ERR_DEADLOCK);
	assert_gives(p->k, "a", "a");
	assert_gives(p->k, "d", "d");
}

static int begin_again(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *job = arg;
	struct shoal_load *again = NULL;
	struct shoal_value value;

	job->inner = shoal_begin(job->p->k, key, key_size, &again, &value);
	job->runs += again != NULL;
	return shoal_load_publish(load, "x", 1);
}

enum { ALL_FLIGHTS = 16 };

static int ended_meanwhile(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct shoal_load *others[ALL_FLIGHTS];
	struct shoal_keyspace *k = arg;
	char other[16];
	int i;

	assert_int_equal(shoal_delete(k, key, key_size), SHOAL_MISS);
	for (i = 0; i < ALL_FLIGHTS; i++) {
		snprintf(other, sizeof(other), "other%d", i);
		others[i] = leads(k, other);
		shoal_load_cancel(waits(k, other)); /* no deadlock: it is not this loader's */
	}
	for (i = 0; i < ALL_FLIGHTS; i++)
		shoal_load_cancel(others[i]);
	return shoal_load_publish(load, STR("mine"));
}

/* A loader's flight was ended by a delete, and another key has its slot. */
static void a_slot_that_was_ours_is_no_deadlock(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_flights = ALL_FLIGHTS});
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p.k, STR("a"), ended_meanwhile, p.k, &value), SHOAL_OK);
	assert_true(holds(&value, "mine"));
	shoal_release(&value);
	assert_misses(p.k, "a");
	assert_int_equal(counts_of(p.k).uncached, 0); /* all slots were used */
	close_place(&p);
}

static void a_step_inside_a_loader_is_a_deadlock(void **state)
{
	struct place *p = *state;
	struct job job = {.p = p};
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p->k, STR("a"), begin_again, &job, &value), SHOAL_OK);
	shoal_release(&value);
	assert_int_equal(job.inner, SHOAL_ERR_DEADLOCK);
	assert_int_equal(job.runs, 0);
}

static int ends_it(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *job = arg;

	if (job->inner)
		shoal_load_cancel(load);
	else
		shoal_load_fail(load, 9);
	return job->code;
}

static void a_loader_may_end_its_load(void **state)
{
	struct place *p = *state;
	struct job job = {.inner = 1, .code = 3};
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p->k, STR("a"), ends_it, &job, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, 3);
	job = (struct job){.code = 9};
	assert_int_equal(shoal_fetch(p->k, STR("a"), ends_it, &job, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, 9);
	assert_remembers(p->k, "a", 9);
}

/* Who waits in parts waits once: for the counters, too. */
static void a_wait_in_parts_is_one(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k;
	struct shoal_load *load, *waiter;
	struct shoal_value value;
	uint64_t timeouts;

	policy.wait_ms = PATIENCE_S * 1000;
	k = keyspace(p->cache, "patient", &policy);
	load = leads(k, "a");
	waiter = waits(k, "a");
	for (int i = 0; i < 3; i++)
		assert_int_equal(shoal_wait(waiter, 1, &value), SHOAL_ERR_TIMEOUT);
	assert_int_equal(counts_of(k).timeouts, 0);
	assert_int_equal(counts_of(k).wait_ns_sum, 0);
	assert_publishes(load, "x", SHOAL_OK);
	assert_int_equal(shoal_wait(waiter, 1, &value), SHOAL_OK);
	shoal_release(&value);
	assert_true(counts_of(k).wait_ns_sum >= 3 * 1000000);

	load = leads(k, "b");
	waiter = waits(k, "b");
	assert_int_equal(shoal_wait(waiter, 1, &value), SHOAL_ERR_TIMEOUT);
	shoal_load_cancel(waiter);
	assert_int_equal(counts_of(k).timeouts, 1);
	assert_publishes(load, "x", SHOAL_OK);

	load = leads(k, "c");
	waiter = waits(k, "c");
	assert_int_equal(shoal_wait(waiter, 1, &value), SHOAL_ERR_TIMEOUT);
	shoal_load_cancel(load);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_LEAD); /* the wait is over, and not in vain */
	shoal_load_cancel(waiter);
	assert_int_equal(counts_of(k).timeouts, 1);

	policy.wait_ms = 3;
	k = keyspace(p->cache, "impatient", &policy);
	load = leads(k, "a");
	waiter = waits(k, "a");
	do
		assert_int_equal(shoal_wait(waiter, 1, &value), SHOAL_ERR_TIMEOUT);
	while (!counts_of(k).wait_ns_sum);
	assert_int_equal(counts_of(k).timeouts, 1);
	assert_true(counts_of(k).wait_ns_sum >= 3 * 1000000);
	assert_int_equal(shoal_wait(waiter, 1, &value), SHOAL_ERR_TIMEOUT);
	timeouts = counts_of(k).timeouts; /* one more, if that took 3 ms */
	shoal_load_cancel(waiter);
	assert_int_equal(counts_of(k).timeouts, timeouts);
	assert_publishes(load, "x", SHOAL_OK);
}

static void fetch_times_out(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k;
	struct shoal_load *load;
	struct shoal_value value;
	struct job job = {0};

	policy.wait_ms = 1;
	k = keyspace(p->cache, "impatient", &policy);
	load = leads(k, "a");
	assert_int_equal(shoal_fetch(k, STR("a"), run_job, &job, &value), SHOAL_ERR_TIMEOUT);
	assert_int_equal(counts_of(k).timeouts, 1);
	assert_int_equal(job.runs, 0);
	assert_publishes(load, "x", SHOAL_OK);
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

struct crowd {
	struct place *p;
	word32 arrived, runs, right, inside, go;
};

static int crowd_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct crowd *crowd = arg;

	w32_add(&crowd->runs, 1);
	post(&crowd->inside);
	await(&crowd->go, 1);
	return shoal_load_publish(load, "of all", 6);
}

static void *one_of_the_crowd(void *arg)
{
	struct crowd *crowd = arg;
	struct shoal_value value;
	int r;

	meet(&crowd->arrived, 8);
	r = shoal_fetch(crowd->p->k, STR("a"), crowd_loader, crowd, &value);
	w32_add(&crowd->right, r == SHOAL_OK && holds(&value, "of all"));
	shoal_release(&value);
	return NULL;
}

static void a_crowd_loads_once(void **state)
{
	struct place *p = *state;
	struct crowd crowd = {.p = p};
	pthread_t threads[8];
	int i;

	for (i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, one_of_the_crowd, &crowd), 0);
	assert_true(await(&crowd.inside, 1));
	post(&crowd.go);
	for (i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(w32_load(&crowd.runs), 1);
	assert_int_equal(w32_load(&crowd.right), 8);
	assert_int_equal(counts_of(p->k).loads, 1);
}

static int leaving_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct crowd *crowd = arg;
	struct shoal_value value;

	if (!w32_add(&crowd->runs, 1)) /* first from inside another loader */
		shoal_fetch(crowd->p->k, "b", 1, leaving_loader, crowd, &value);
	shoal_load_reserve(load, 100);
	post(&crowd->inside);
	await(&crowd->go, 1);
	pthread_exit(NULL);
}

static void *leave_inside(void *arg)
{
	struct crowd *crowd = arg;
	struct shoal_value value;

	shoal_fetch(crowd->p->k, STR("a"), leaving_loader, crowd, &value);
	return NULL;
}

/* Each loader of the thread's ends its flight as a failure, and the thread's slot comes back. */
static void a_thread_leaves_its_loaders(void **state)
{
	struct place *p = *state;
	struct crowd crowd = {.p = p};
	struct shoal_load *a, *b;
	struct shoal_value value;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, leave_inside, &crowd), 0);
	assert_true(await(&crowd.inside, 1));
	a = waits(p->k, "a");
	b = waits(p->k, "b");
	assert_int_equal(stats_of(p->cache).threads, 2);
	post(&crowd.go);
	assert_int_equal(shoal_wait(a, PATIENCE_S * 1000, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, 0);
	assert_int_equal(shoal_wait(b, PATIENCE_S * 1000, &value), SHOAL_ERR_LOAD);
	shoal_load_cancel(a);
	shoal_load_cancel(b);
	pthread_join(thread, NULL);
	assert_int_equal(stats_of(p->cache).threads, 1);
	assert_int_equal(counts_of(p->k).load_errors, 2);
}

/* Also when it was to refresh a stale value, which it had in hand. */
static void a_thread_leaves_a_refresh(void **state)
{
	struct place *p = *state;
	struct crowd crowd = {.p = p, .runs = 1, .go = 1};
	pthread_t thread;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 1000);
	assert_int_equal(pthread_create(&thread, NULL, leave_inside, &crowd), 0);
	pthread_join(thread, NULL);
	assert_int_equal(stats_of(p->cache).pins, 0);
	assert_int_equal(stats_of(p->cache).threads, 1);
}

struct jump {
	struct place *p;
	word32 jumped, go, wrong;
	jmp_buf out;
};

static int jumping_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	longjmp(((struct jump *)arg)->out, 1);
}

static int loads_of_another(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return shoal_load_publish(load, "x", 1);
}

#define note_wrong(condition) w32_add(&j->wrong, !(condition))

/* Its flight and its permit are held till the lease is over; then the thread has none that would do for others. */
static void *jump_out(void *arg)
{
	struct jump *j = arg;
	struct shoal_load *load, *other;
	struct shoal_value value;

	if (!setjmp(j->out))
		shoal_fetch(j->p->k, STR("a"), jumping_loader, j, &value);
	note_wrong(shoal_begin(j->p->k, STR("a"), &load, &value) == SHOAL_ERR_DEADLOCK);
	post(&j->jumped);
	await(&j->go, 1);
	note_wrong(shoal_begin(j->p->k, STR("b"), &load, &value) == SHOAL_LEAD);
	note_wrong(stats_of(j->p->cache).permits_used == 1);
	note_wrong(shoal_begin(j->p->k, STR("c"), &other, &value) == SHOAL_WAIT);
	shoal_load_cancel(other);
	shoal_load_cancel(load);
	note_wrong(shoal_fetch(j->p->k, STR("a"), loads_of_another, j, &value) == SHOAL_OK);
	shoal_release(&value);
	return NULL;
}

static void a_loader_jumps_out(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 1});
	struct shoal_policy policy = steady;
	struct shoal_load *waiter, *queued;
	struct jump j = {.p = &p};
	struct shoal_value value;
	pthread_t thread;

	policy.lease_ms = 400;
	p.k = keyspace(p.cache, "jump", &policy);
	assert_int_equal(pthread_create(&thread, NULL, jump_out, &j), 0);
	assert_true(await(&j.jumped, 1));
	waiter = waits(p.k, "a");
	queued = waits(p.k, "d");
	pass_ms(p.clock, 399);
	assert_waited(waiter, SHOAL_ERR_TIMEOUT, NULL);
	assert_int_equal(shoal_wait(queued, 0, &value), SHOAL_ERR_BUSY);
	shoal_load_cancel(waiter);
	shoal_load_cancel(queued);
	pass_ms(p.clock, 1);
	post(&j.go);
	pthread_join(thread, NULL);
	assert_int_equal(w32_load(&j.wrong), 0);
	assert_gives(p.k, "a", "x");
	assert_int_equal(stats_of(p.cache).permits_used + stats_of(p.cache).flights + stats_of(p.cache).pins, 0);
	assert_int_equal(stats_of(p.cache).threads, 1);
	close_place(&p);
}

static int sleeping_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	post(&((struct crowd *)arg)->inside);
	for (;;) { /* not in pause(): ThreadSanitizer loses track of a thread that is cancelled in there */
		pthread_testcancel();
		sched_yield();
	}
	return 0;
}

static void *sleep_inside(void *arg)
{
	struct crowd *crowd = arg;
	struct shoal_value value;

	shoal_fetch(crowd->p->k, STR("a"), sleeping_loader, crowd, &value);
	return NULL;
}

static void a_cancelled_thread_fails_its_load(void **state)
{
	struct place *p = *state;
	struct crowd crowd = {.p = p};
	struct shoal_load *a;
	struct shoal_value value;
	pthread_t thread;

	if (UNDER_ASAN) {
		skipped("AddressSanitizer takes the stack of a cancelled thread for poisoned");
		return;
	}
	assert_int_equal(pthread_create(&thread, NULL, sleep_inside, &crowd), 0);
	assert_true(await(&crowd.inside, 1));
	a = waits(p->k, "a");
	pthread_cancel(thread);
	assert_int_equal(shoal_wait(a, PATIENCE_S * 1000, &value), SHOAL_ERR_LOAD);
	shoal_load_cancel(a);
	pthread_join(thread, NULL);
	assert_int_equal(stats_of(p->cache).threads, 1);
}

struct handed {
	struct place *p;
	struct shoal_load *load;
};

static void *begin_and_leave(void *arg)
{
	struct handed *h = arg;
	struct shoal_value value;

	if (shoal_begin(h->p->k, STR("a"), &h->load, &value) != SHOAL_LEAD)
		h->load = NULL;
	else
		memcpy(shoal_load_reserve(h->load, 6), "handed", 6);
	return NULL;
}

/* A load outlives its thread, and so do its flight and its space. */
static void a_load_is_handed_to_another_thread(void **state)
{
	struct place *p = *state;
	struct handed h = {.p = p};
	struct shoal_load *waiter;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, begin_and_leave, &h), 0);
	pthread_join(thread, NULL);
	assert_non_null(h.load);
	waiter = waits(p->k, "a");
	assert_waited(waiter, SHOAL_ERR_TIMEOUT, NULL);
	assert_int_equal(shoal_load_renew(h.load), SHOAL_OK);
	assert_int_equal(shoal_load_commit(h.load, 6), SHOAL_OK);
	assert_waited(waiter, SHOAL_OK, "handed");
	assert_int_equal(stats_of(p->cache).threads, 1);
}

static void *wait_elsewhere(void *arg)
{
	struct handed *h = arg;
	struct shoal_value value;
	int r = shoal_wait(h->load, PATIENCE_S * 1000, &value);

	h->load = NULL;
	if (r == SHOAL_OK && holds(&value, "x"))
		h->p = NULL;
	shoal_release(&value);
	return NULL;
}

static void a_wait_is_handed_to_another_thread(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = leads(p->k, "a");
	struct handed h = {p, waits(p->k, "a")};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, wait_elsewhere, &h), 0);
	assert_publishes(load, "x", SHOAL_OK);
	pthread_join(thread, NULL);
	assert_null(h.p);
}

/* ---- a leader's death -------------------------------------------------------------------------------------- */

struct leader {
	struct place *p;
	word32 *ready;
};

static int lead_until_killed(void *arg)
{
	struct leader *l = arg;
	struct shoal_load *load;
	struct shoal_value value;

	must(shoal_begin(l->p->k, STR("a"), &load, &value) >= SHOAL_REFRESH);
	must(shoal_load_reserve(load, 100));
	post(l->ready);
	for (;;)
		pause();
}

static void a_dead_leader_is_followed(void **state)
{
	struct place *p = *state;
	struct leader l = {p, share(sizeof(word32))};
	struct shoal_load *waiter, *late;
	struct shoal_value value;
	pid_t pid = spawn(lead_until_killed, &l);

	assert_true(await(l.ready, 1));
	waiter = waits(p->k, "a");
	kill_child(pid);
	assert_int_equal(shoal_wait(waiter, PATIENCE_S * 1000, &value), SHOAL_LEAD);
	late = waits(p->k, "a");
	assert_publishes(waiter, "x", SHOAL_OK);
	assert_waited(late, SHOAL_OK, "x");
	assert_int_equal(counts_of(p->k).takeovers, 1);
	assert_int_equal(shoal_reap(p->cache), 1);
	assert_int_equal(shoal_reap(p->cache), 0);
	assert_int_equal(stats_of(p->cache).processes, 1);
	unshare_memory(l.ready, sizeof(word32));
}

/* Those who have a stale value don't wait, but they don't live on it either. */
static void a_dead_refresher_is_followed(void **state)
{
	struct place *p = *state;
	struct leader l = {p, share(sizeof(word32))};
	struct shoal_load *load;
	struct shoal_value value;
	pid_t pid;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 1500);
	pid = spawn(lead_until_killed, &l);
	assert_true(await(l.ready, 1));
	assert_int_equal(shoal_begin(p->k, STR("a"), &load, &value), SHOAL_OK);
	assert_int_equal(value.freshness, SHOAL_STALE);
	shoal_release(&value);
	kill_child(pid);
	assert_publishes(begins(p->k, "a", SHOAL_REFRESH), "new", SHOAL_OK);
	assert_gives(p->k, "a", "new");
	assert_int_equal(counts_of(p->k).takeovers, 1);
	assert_int_equal(shoal_reap(p->cache), 1);
	unshare_memory(l.ready, sizeof(word32));
}

static void reap_frees_the_flights_of_the_dead(void **state)
{
	struct place *p = *state;
	struct leader l = {p, share(sizeof(word32))};
	pid_t pid = spawn(lead_until_killed, &l);

	assert_true(await(l.ready, 1));
	assert_int_equal(stats_of(p->cache).flights, 1);
	assert_int_equal(stats_of(p->cache).pins, 1);
	kill_child(pid);
	assert_int_equal(shoal_reap(p->cache), 1);
	assert_int_equal(stats_of(p->cache).flights, 0);
	assert_int_equal(stats_of(p->cache).pins, 0);
	assert_int_equal(stats_of(p->cache).threads, 1);
	assert_publishes(leads(p->k, "a"), "x", SHOAL_OK);
	unshare_memory(l.ready, sizeof(word32));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(one_leads_and_others_wait),
		CASE(stale_is_served_while_one_refreshes),
		CASE(within_error_ms_one_loads),
		CASE(reserve_grows),
		cmocka_unit_test(reserved_space_stays),
		CASE(commit_hands_the_value_over),
		CASE(an_empty_value_is_published),
		CASE(without_pins_space_is_heap),
		CASE(what_is_too_big_is_not_stored),
		CASE(this_value_has_its_own_life),
		CASE(a_life_counts_from_the_publication),
		CASE(misuse_is_answered),
		CASE(a_failure_is_remembered),
		CASE(failures_in_a_row_wait_a_minute_at_most),
		CASE(a_late_waiter_gets_the_failure),
		CASE(a_failure_without_memory),
		CASE(a_set_ends_the_failure),
		CASE(a_failure_is_bridged_within_error_ms),
		CASE(one_who_cancels_is_followed),
		CASE(one_who_stops_waiting_is_forgotten),
		CASE(delete_supersedes),
		CASE(a_late_publish_changes_nothing),
		CASE(set_supersedes),
		CASE(expire_supersedes),
		CASE(another_key_supersedes_nothing),
		CASE(renewed_is_kept),
		CASE(overdue_still_publishes),
		CASE(an_heirs_value_stays),
		CASE(an_overdue_waiter_becomes_heir),
		CASE(delete_reaches_the_overdue),
		cmocka_unit_test(without_a_slot_nothing_is_stored),
		CASE(fetch_loads_once),
		CASE(fetch_tells_of_failure),
		CASE(fetch_gives_what_is_not_stored),
		CASE(loaders_may_load),
		CASE(a_step_inside_a_loader_is_a_deadlock),
		cmocka_unit_test(a_slot_that_was_ours_is_no_deadlock),
		CASE(a_loader_may_end_its_load),
		CASE(a_wait_in_parts_is_one),
		CASE(fetch_times_out),
		CASE(a_crowd_loads_once),
		CASE(a_thread_leaves_its_loaders),
		CASE(a_thread_leaves_a_refresh),
		cmocka_unit_test(a_loader_jumps_out),
		CASE(a_cancelled_thread_fails_its_load),
		CASE(a_load_is_handed_to_another_thread),
		CASE(a_wait_is_handed_to_another_thread),
		CASE(a_dead_leader_is_followed),
		CASE(a_dead_refresher_is_followed),
		CASE(reap_frees_the_flights_of_the_dead),
	};

	return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
