/* SPDX-License-Identifier: MIT */
/*
 * Watched loads: every way in which one may end, by whom it is told of, and how long that takes. Who watches, in which
 * loops, and where, is in test-watch-loops.c. The two hold B.1 to B.8 of watch.c, trap 15 of the design.
 *
 *   SHOAL_TEST_SECONDS   how long completers are killed (10: a fifth of it); how many leaders are, 100 up to 10, 500
 *                        from 50 on; how much memory the fat ones have, 64 MiB, 1 GiB from 60 on
 */
#include <sched.h>

#include "watching.h"

static uint64_t seconds(void)
{
	const char *text = getenv("SHOAL_TEST_SECONDS");

	return text && *text ? strtoull(text, NULL, 0) : 10;
}

/* It is neither waited for nor cancelled. */
static void count_it(struct shoal_load *load, void *arg)
{
	w32_add(&woken, 1);
}

/* Of all watchers of its flight: as who completes it, or nudges them, does before it rings. */
static void take_bits(const struct shoal_load *load)
{
	w64_store(&load_segment(load)->flights[load->ticket.slot].watchers, 0);
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static void a_value_comes(void **state)
{
	led_and_watched_by(&one, &two);
	assert_false(is_readable(shoal_poll_fd(cache), 0));
	assert_dispatches(); /* for nothing */
	assert_not_woken(&one);
	assert_published(leader, "loaded");
	assert_given(&one, "loaded");
	assert_given(&two, "loaded");
	assert_dispatches();
	assert_int_equal(w32_load(&one.wakes), 1);
	assert_int_equal(watched(), 0);
	assert_int_equal(counts_of(k).coalesced, 2);
	assert_true(counts_of(k).wait_ns_sum > 0);
}

static void a_load_fails(void **state)
{
	led_and_watched_by(&one);
	shoal_load_fail(leader, 42);
	assert_woken(&one, SHOAL_ERR_LOAD);
	assert_int_equal(one.error, 42);
	shoal_load_cancel(one.load);
}

/* Whoever sees the load detached leads the next one. */
static void it_is_deleted_or_expired(void **state)
{
	static int (*const detach[])(struct shoal_keyspace *, const void *, size_t) = {shoal_delete, shoal_expire};
	unsigned i;

	for (i = 0; i < COUNT(detach); i++) {
		led_and_watched_by(&one);
		detach[i](k, STR("a"));
		assert_woken(&one, SHOAL_LEAD);
		assert_int_equal(shoal_load_publish(leader, STR("old")), SHOAL_ERR_SUPERSEDED);
		assert_published(one.load, "new");
		assert_gives(k, "a", "new");
		shoal_delete(k, STR("a"));
	}
}

static void it_is_set(void **state)
{
	led_and_watched_by(&one);
	assert_set(k, "a", "set");
	assert_given(&one, "set");
	shoal_load_cancel(leader);
}

/* And the other waits on. */
static void one_takes_over(void)
{
	assert_woken(&one, SHOAL_LEAD);
	assert_not_woken(&two);
	no_slices();
	assert_published(one.load, "x");
	assert_given(&two, "x");
}

static void the_leader_gives_up(void **state)
{
	led_and_watched_by(&one, &two);
	shoal_load_cancel(leader);
	one_takes_over();
}

static void it_is_not_to_be_stored(void **state)
{
	led_and_watched_by(&one);
	shoal_load_uncacheable(leader, 1000);
	shoal_load_publish(leader, STR("mine"));
	assert_woken(&one, SHOAL_LEAD);
	shoal_load_cancel(one.load);
}

/* A load that leads now and is cancelled without a wait goes to the next. */
static void a_lead_is_given_back(void **state)
{
	struct shoal_load *load;

	leader = leads("a");
	load = watches_by("a", count_it, NULL);
	shoal_load_cancel(leader);
	assert_true(dispatches_until(&woken, 1));
	assert_int_equal(shoal_watch(load, count_it, NULL), SHOAL_OK); /* still its outcome */
	assert_true(dispatches_until(&woken, 2));
	watches("a", &one);
	shoal_load_cancel(load);
	assert_woken(&one, SHOAL_LEAD);
	shoal_load_cancel(one.load);
	shoal_load_cancel(leads("a"));
	assert_int_equal(stats_of(cache).flights, 0);
}

/* Values in hand of one that was woken and is cancelled are let go. */
static void a_value_is_not_fetched(void **state)
{
	struct shoal_load *load;

	leader = leads("a");
	load = watches_by("a", count_it, NULL);
	assert_published(leader, "x");
	assert_true(dispatches_until(&woken, 1));
	assert_int_equal(stats_of(cache).pins, 1);
	shoal_load_cancel(load);
	assert_int_equal(stats_of(cache).pins, 0);
}

static void a_lease_ends(void **state)
{
	k = keyspace(cache, "lease", POLICY(.wait_ms = LONG_MS, .lease_ms = 500));
	leader = leads("a");
	watches("a", &one);
	assert_woken(&one, SHOAL_LEAD);
	assert_published(leader, "late");
	shoal_load_cancel(one.load);
}

/* Another load of the key, of which the younger one under way is told by a nudge: no word changes. */
static void an_older_load_is_published(void **state)
{
	struct shoal_keyspace *calm = k;
	struct shoal_load *older, *early;
	struct seen younger;

	k = keyspace(cache, "watch", POLICY(.wait_ms = LONG_MS, .lease_ms = 500));
	older = leads("a");
	k = calm;
	watches("a", &younger);
	assert_woken(&younger, SHOAL_LEAD);
	early = begins("a", SHOAL_WAIT);
	watched_by(&one);
	assert_published(older, "old");
	assert_given(&one, "old");
	two = UNSEEN;
	assert_int_equal(shoal_watch(early, on_wake, &two), SHOAL_OK); /* it has come before that */
	no_slices();
	assert_given(&two, "old");
	shoal_load_cancel(younger.load);
}

/* B.8: one of a flight has been rung for, and another is watched before that is looked at. */
static void the_others_are_roused(void **state)
{
	struct shoal_load *load;

	led_and_watched_by(&one);
	load = one.load;
	take_bits(load);
	watches("a", &two);
	assert_true(load->watched.due);
	assert_true(is_readable(shoal_poll_fd(cache), PATIENCE_S * 1000));
	assert_dispatches();
	assert_false(load->watched.due);
	assert_published(leader, "x");
	assert_given(&one, "x");
	assert_given(&two, "x");
}

static void it_takes_too_long(void **state)
{
	k = keyspace(cache, "wait", POLICY(.wait_ms = 50, .lease_ms = LONG_MS));
	leader = leads("a");
	watches("a", &one);
	assert_woken(&one, SHOAL_ERR_TIMEOUT);
	assert_int_equal(counts_of(k).timeouts, 1);
	assert_int_equal(shoal_watch(one.load, on_wake, &one), SHOAL_OK); /* for another wait_ms */
	assert_published(leader, "late");
	assert_true(dispatches_until(&one.wakes, 2));
	assert_int_equal(one.outcome, SHOAL_OK);
}

/* The one permit of a keyspace. */
static void lead_by_permit(uint32_t wait_ms)
{
	k = keyspace(cache, "permit", POLICY(.max_loads = 1, .wait_ms = wait_ms, .lease_ms = LONG_MS));
	leader = leads("a");
}

static void a_permit_comes(void **state)
{
	struct shoal_load *queued;

	lead_by_permit(LONG_MS);
	queued = watches("b", &one);
	watches("c", &two);
	no_slices();
	assert_dispatches();
	assert_not_woken(&one);
	assert_published(leader, "x");
	assert_woken(&one, SHOAL_LEAD);
	assert_ptr_equal(one.load, queued);
	assert_not_woken(&two);
	shoal_load_cancel(one.load);
	assert_woken(&two, SHOAL_LEAD);
	shoal_load_cancel(two.load);
	assert_int_equal(stats_of(cache).permits_used, 0);
}

static void no_permit_comes(void **state)
{
	lead_by_permit(50);
	watches("b", &one);
	assert_woken(&one, SHOAL_ERR_BUSY);
	assert_int_equal(counts_of(k).busy, 1);
	shoal_load_cancel(one.load);
	shoal_load_cancel(leader);
}

/* It ended before it was watched. */
static void what_has_ended_is_due_at_once(void **state)
{
	struct shoal_load *load;

	leader = leads("a");
	load = begins("a", SHOAL_WAIT);
	assert_published(leader, "x");
	one = UNSEEN;
	assert_int_equal(shoal_watch(load, on_wake, &one), SHOAL_OK);
	assert_not_woken(&one);
	assert_given(&one, "x");
}

static void what_is_cancelled_wakes_nobody(void **state)
{
	struct seen cancelled, waited, s;
	struct shoal_value value;

	led_and_watched_by(&cancelled, &waited, &s);
	shoal_load_cancel(cancelled.load);
	assert_int_equal(shoal_wait(waited.load, 0, &value), SHOAL_ERR_TIMEOUT); /* a wait ends the watching as well */
	assert_int_equal(watched(), 1);
	assert_published(leader, "x");
	assert_given(&s, "x");
	assert_not_woken(&cancelled);
	assert_not_woken(&waited);
	assert_int_equal(shoal_wait(waited.load, 0, &value), SHOAL_OK);
	shoal_release(&value);
}

static void what_is_invalid(void **state)
{
	struct shoal_load *load;

	led_and_watched_by(&one);
	assert_int_equal(shoal_watch(one.load, on_wake, &one), SHOAL_ERR_INVALID); /* it is already */
	assert_int_equal(shoal_watch(leader, on_wake, &one), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_watch(NULL, on_wake, &one), SHOAL_ERR_INVALID);
	shoal_load_cancel(one.load);
	load = begins("a", SHOAL_WAIT);
	assert_int_equal(shoal_watch(load, NULL, &one), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_poll_fd(NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_dispatch(NULL), SHOAL_ERR_INVALID);
	shoal_load_cancel(load);
	shoal_load_cancel(leader);
}

static void close_with_watched_loads(void **state)
{
	led_and_watched_by(&one);
	close_cache();
	shoal_load_cancel(one.load);
	shoal_load_cancel(leader);
	assert_not_woken(&one);
}

/* B.3: a completer that dies between taking our bit and ringing. */
static void a_lost_wake_is_made_up_for(void **state)
{
	leader = leads("a");
	take_bits(watches("a", &one));
	assert_published(leader, "x");
	assert_given(&one, "x");
}

/* ---- other processes --------------------------------------------------------------------------------------- */

static void another_process_publishes(void **state)
{
	pid_t pid = leads_elsewhere("a", publish_it);

	watched_by(&one);
	post(&stage->go);
	assert_given(&one, "theirs");
	assert_ends_well(pid);
}

/* Told at once, by its alive word, and not by a look in time. */
static void the_leader_is_killed(void **state)
{
	pid_t pid = leads_till_killed("a", 0);

	watched_by(&one, &two);
	kill_child(pid);
	one_takes_over();
	assert_int_equal(counts_of(k).takeovers, 1);
}

/* Without a word. */
static void leaves(int (*body)(void *part), int (*end)(struct shoal_load *load))
{
	pid_t pid = spawn_leader(body, (struct part){"a", end, 0});

	watched_by(&one);
	post(&stage->go);
	assert_woken(&one, SHOAL_LEAD);
	post(&stage->done);
	assert_ends_well(pid);
	shoal_load_cancel(one.load);
}

static int exit_with_it(struct shoal_load *load)
{
	return 0;
}

static void the_leader_exits(void **state)
{
	leaves(lead_a_part, exit_with_it);
}

/* Past the destructors of its thread, in a process that lives. */
static int leave_raw(struct shoal_load *load)
{
	syscall(SYS_exit, 0);
	return 0;
}

static void *lead_in_a_thread(void *part)
{
	lead_a_part(part);
	return NULL;
}

static int have_a_thread_lead(void *part)
{
	pthread_t thread;

	must(!pthread_create(&thread, NULL, lead_in_a_thread, part));
	must(await(&stage->done, 1));
	return 0;
}

static void the_leading_thread_dies(void **state)
{
	if (UNDER_TSAN)
		skipped("a thread can't leave past its destructors");
	else
		leaves(have_a_thread_lead, leave_raw);
}

static int lead_in_a_namespace(void *part)
{
	if (!unshare(CLONE_NEWNET))
		return lead_a_part(part);
	post(&stage->count);
	post(&stage->led);
	return 0;
}

static void another_network_namespace(void **state)
{
	pid_t pid = spawn_leader(lead_in_a_namespace, (struct part){"a", publish_it, 0});

	if (w32_load(&stage->count)) {
		skipped("a network namespace");
	} else {
		watched_by(&one);
		post(&stage->go);
		assert_given(&one, "theirs");
	}
	assert_ends_well(pid);
}

static int resize_it(void *arg)
{
	return shoal_resize(cache, 16 << 20);
}

/* Another process does. In the next region it is another load. */
static void one_leads_when_it_is_resized(void)
{
	pid_t pid;

	no_slices();
	pid = spawn(resize_it, NULL);
	assert_woken(&one, SHOAL_LEAD);
	assert_ends_well(pid);
}

/* The old leader's value is stored nowhere. */
static void it_is_resized(void **state)
{
	led_and_watched_by(&one);
	one_leads_when_it_is_resized();
	watched_by(&two);
	assert_int_equal(shoal_load_publish(leader, STR("old")), SHOAL_ERR_SUPERSEDED);
	assert_published(one.load, "new");
	assert_given(&two, "new");
}

static void a_permit_is_waited_for_in_the_next_region(void **state)
{
	lead_by_permit(LONG_MS);
	watches("b", &one);
	one_leads_when_it_is_resized();
	shoal_load_cancel(leader);
	shoal_load_cancel(one.load);
}

/* ---- deaths of those who tell ------------------------------------------------------------------------------ */

/* Leads and publishes one key after the other, till it is killed in the midst of one. Spins, to be quick when told. */
static int lead_till_killed(void *first)
{
	uint64_t key = *(uint64_t *)first;
	struct shoal_load *load;
	uint32_t n;

	for (n = 1;; n++, key++) {
		load = begin(&key, sizeof(key), SHOAL_LEAD);
		must(load);
		post(&stage->led);
		while (w32_load(&stage->go) < n)
			sched_yield();
		must(shoal_load_publish(load, &key, sizeof(key)) == SHOAL_OK);
	}
}

static void on_any_end(struct shoal_load *load, void *arg)
{
	struct shoal_value value;

	if (shoal_wait(load, 0, &value) != SHOAL_OK)
		shoal_load_cancel(load);
	shoal_release(&value);
	w32_add(&woken, 1);
}

/* How many loads have been watched by then. */
static uint32_t a_completer_is_killed(uint64_t key, uint64_t *seed, uint32_t begun)
{
	uint32_t i, n = (uint32_t)(1 + draw(seed) % 20);
	struct shoal_load *load;
	pid_t pid;

	w32_store(&stage->led, 0);
	w32_store(&stage->go, 0);
	pid = spawn(lead_till_killed, &key);
	for (i = 1; i <= n; i++, key++) {
		assert_true(await(&stage->led, i));
		load = begin(&key, sizeof(key), SHOAL_WAIT);
		assert_non_null(load);
		assert_int_equal(shoal_watch(load, on_any_end, NULL), SHOAL_OK);
		begun++;
		w32_store(&stage->go, i);
		if (draw(seed) % 2)
			assert_true(dispatches_until(&woken, begun));
	}
	for (i = (uint32_t)(draw(seed) % 3000); i; i--)
		spin_hint();
	kill_child(pid);
	assert_true(dispatches_until(&woken, begun));
	return begun;
}

/* Every watch ends, wherever its completer dies: after its CAS, before its ring. */
static void completers_are_killed(void **state)
{
	uint64_t seed = 7, end = clock_system_ns(CLOCK_MONOTONIC) + max_u64(2, seconds() / 5) * SECOND_NS;
	uint32_t begun = 0, deaths;

	for (deaths = 0; clock_system_ns(CLOCK_MONOTONIC) < end; deaths++)
		begun = a_completer_is_killed((uint64_t)(deaths + 1) << 32, &seed, begun);
	printf("# %u watches, %u completers killed\n", begun, deaths);
	assert_int_equal(watched(), 0);
}

/* ---- figures ----------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print_latency(const char *what, uint64_t *ns, unsigned n)
{
	qsort(ns, n, sizeof(*ns), compare);
	printf("# %-34s %8.1f us (median) %8.1f (p90) %9.1f (p99)\n", what, (double)ns[n / 2] / 1e3,
	       (double)ns[n * 9 / 10] / 1e3, (double)ns[n * 99 / 100] / 1e3);
}

/* Of a word, of a load that is waited for, of one that is watched: each in turn. */
enum { FUTEX, BLOCKING, POLLED, WAYS, WAKES = 400 };

/* A wake across processors may take many times one on the same, and the scheduler chooses anew for each of the two hops
 * of a watch: so both are measured. The n-th processor that we may use; false, and all of them: there are fewer. */
static bool stay_on(int n)
{
	static cpu_set_t all;
	cpu_set_t chosen;
	int i;

	if (!CPU_COUNT(&all))
		sched_getaffinity(0, sizeof(all), &all);
	for (i = 0; i < CPU_SETSIZE && !(CPU_ISSET((unsigned)i, &all) && !n--); i++)
		;
	CPU_ZERO(&chosen);
	CPU_SET((unsigned)i, &chosen); /* of none, beyond the last */
	return !sched_setaffinity(0, sizeof(chosen), i < CPU_SETSIZE ? &chosen : &all) && i < CPU_SETSIZE;
}

static int tell_each_round(void *arg)
{
	struct shoal_load *load = NULL;
	uint32_t i;

	for (i = 0; i < WAYS * WAKES; i++) {
		if (i % WAYS != FUTEX)
			must((load = begin(&i, sizeof(i), SHOAL_LEAD)));
		post(&stage->led);
		must(await(&stage->go, i + 1));
		usleep(300); /* the other sleeps by now: or the figure is another, and no failure */
		w64_store(&stage->at_ns, clock_system_ns(CLOCK_MONOTONIC));
		if (i % WAYS == FUTEX)
			post(&stage->count);
		else
			must(shoal_load_publish(load, "x", 1) == SHOAL_OK);
	}
	return 0;
}

/* Nanoseconds. */
static uint64_t wait_for_a_wake(uint32_t i)
{
	struct seen s = UNSEEN;
	struct shoal_load *load = NULL;
	struct shoal_value value = {0};
	uint64_t took;

	assert_true(await(&stage->led, i + 1));
	if (i % WAYS != FUTEX)
		assert_non_null((load = begin(&i, sizeof(i), SHOAL_WAIT)));
	if (i % WAYS == POLLED)
		assert_int_equal(shoal_watch(load, on_wake, &s), SHOAL_OK);
	post(&stage->go);
	if (i % WAYS == FUTEX)
		assert_true(await(&stage->count, i / WAYS + 1));
	else if (i % WAYS == BLOCKING)
		assert_int_equal(shoal_wait(load, LONG_MS, &value), SHOAL_OK);
	else
		assert_woken(&s, SHOAL_OK);
	took = clock_system_ns(CLOCK_MONOTONIC) - w64_load(&stage->at_ns);
	shoal_release(&value);
	return took;
}

static void measure_wakes(int processor)
{
	static uint64_t took[WAYS][WAKES];
	pid_t pid;
	uint32_t i;

	if (!stay_on(processor)) {
		skipped("there is one processor");
		return;
	}
	pid = spawn(tell_each_round, NULL);
	stay_on(0);
	for (i = 0; i < WAYS * WAKES; i++)
		took[i % WAYS][i / WAYS] = wait_for_a_wake(i);
	assert_ends_well(pid);
	stay_on(CPU_SETSIZE);
	print_latency("a plain futex", took[FUTEX], WAKES);
	print_latency("a load that is waited for", took[BLOCKING], WAKES);
	print_latency("a load that is watched", took[POLLED], WAKES);
}

static void how_long_a_wake_takes_on_one_processor(void **state)
{
	measure_wakes(0);
}

static void how_long_a_wake_takes_across_two(void **state)
{
	measure_wakes(1);
}

/* When the watcher sleeps: or the figure is another, and no failure. */
static int kill_in_a_while(void *pid)
{
	usleep(5000);
	w64_store(&stage->at_ns, clock_system_ns(CLOCK_MONOTONIC));
	return kill(*(pid_t *)pid, SIGKILL);
}

static void kill_leaders(unsigned n, size_t memory)
{
	uint64_t took[500];
	char what[48];
	pid_t pid, killer;
	unsigned i;

	for (i = 0; i < n; i++) {
		pid = leads_till_killed("a", memory);
		watches("a", &one);
		killer = spawn(kill_in_a_while, &pid);
		assert_woken(&one, SHOAL_LEAD);
		took[i] = clock_system_ns(CLOCK_MONOTONIC) - w64_load(&stage->at_ns);
		shoal_load_cancel(one.load);
		assert_ends_well(killer);
		kill_child(pid);
	}
	snprintf(what, sizeof(what), "killed leaders of %zu MiB, polled", memory >> 20);
	print_latency(what, took, n);
}

static void how_long_a_death_takes(void **state)
{
	kill_leaders((unsigned)max_u64(100, min_u64(seconds() * 10, 500)), 0);
	kill_leaders(seconds() < 600 ? 5 : 20, seconds() < 60 ? (size_t)64 << 20 : (size_t)1 << 30);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(a_value_comes),
		CASE(a_load_fails),
		CASE(it_is_deleted_or_expired),
		CASE(it_is_set),
		CASE(the_leader_gives_up),
		CASE(it_is_not_to_be_stored),
		CASE(a_lead_is_given_back),
		CASE(a_value_is_not_fetched),
		CASE(a_lease_ends),
		CASE(an_older_load_is_published),
		CASE(the_others_are_roused),
		CASE(it_takes_too_long),
		CASE(a_permit_comes),
		CASE(no_permit_comes),
		CASE(what_has_ended_is_due_at_once),
		CASE(what_is_cancelled_wakes_nobody),
		CASE(what_is_invalid),
		CASE(close_with_watched_loads),
		CASE(a_lost_wake_is_made_up_for),
		CASE(another_process_publishes),
		CASE(the_leader_is_killed),
		CASE(the_leader_exits),
		CASE(the_leading_thread_dies),
		CASE(another_network_namespace),
		CASE(it_is_resized),
		CASE(a_permit_is_waited_for_in_the_next_region),
		CASE(completers_are_killed),
		CASE(how_long_a_wake_takes_on_one_processor),
		CASE(how_long_a_wake_takes_across_two),
		CASE(how_long_a_death_takes),
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
