/* SPDX-License-Identifier: MIT */
/*
 * Watches: every way in which a load that is watched may end, by every kind of event loop, and what may go wrong on the way.
 * Holds B.1 to B.7 of watch.c, trap 15 of the design.
 *
 * Nothing is timed: each wait ends with a wake, or as a failure after PATIENCE_S. Where a case is about being told at once,
 * the second look is switched off (no_slices), so that a lost wake is a failure and not a delay.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#ifdef HAVE_LIBUV
#include <uv.h>
#endif
#ifdef HAVE_LIBEVENT
#include <event2/event.h>
#endif

#include "load.h"
#include "testing.h"

#define NONE (-100)
#define LONG_MS 300000 /* for ever, in a test: longer than its patience */

static const struct shoal_policy patient = {
	.wait_ms = LONG_MS, .lease_ms = LONG_MS, .retry_ms = 50, .jitter_permille = SHOAL_NONE, .early = -1,
};

struct stage {
	word32 led, go, done, count;
	word64 at_ns;
	word32 round;
};

static struct shoal *cache;
static struct shoal_keyspace *k;
static struct stage *stage;

static int set_up_with(const struct shoal_config *config)
{
	stage = share(sizeof(*stage));
	assert_int_equal(shoal_open(NULL, config, &cache), SHOAL_OK);
	k = keyspace(cache, "watch", &patient);
	return 0;
}

static int set_up(void **state)
{
	return set_up_with(&(struct shoal_config){.size = 8 << 20});
}

/* Each of a thousand keys finds a flight. */
static int set_up_large(void **state)
{
	return set_up_with(&(struct shoal_config){.size = 32 << 20, .max_flights = 16384});
}

static int tear_down(void **state)
{
	shoal_close(cache);
	unshare_memory(stage, sizeof(*stage));
	return 0;
}

static uint64_t seconds(void)
{
	const char *text = getenv("SHOAL_TEST_SECONDS");

	return text && *text ? strtoull(text, NULL, 0) : 10;
}

/* ---- what is watched --------------------------------------------------------------------------------------- */

struct seen {
	word32 wakes;
	int outcome, error;
	char text[32];
	struct shoal_load *load; /* it leads now, or was not waited for */
};

static void on_wake(struct shoal_load *load, void *arg)
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
}

static struct shoal_load *begins(const char *key, int outcome)
{
	struct shoal_load *load;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), outcome);
	shoal_release(&value);
	return load;
}

#define leads(key) begins(key, SHOAL_LEAD)

static struct shoal_load *watches(const char *key, struct seen *s)
{
	struct shoal_load *load = begins(key, SHOAL_WAIT);

	*s = (struct seen){.outcome = NONE, .load = load};
	assert_int_equal(shoal_watch(load, on_wake, s), SHOAL_OK);
	assert_int_equal(w32_load(&s->wakes), 0);
	return load;
}

static bool is_readable(int fd, int ms)
{
	return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, ms) == 1;
}

/* As a loop of poll(). False: in vain. */
static bool dispatches_until(const word32 *count, uint32_t n)
{
	uint64_t end = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	int fd = shoal_poll_fd(cache);

	while (fd >= 0 && w32_load(count) < n && clock_system_ns(CLOCK_MONOTONIC) < end)
		if (is_readable(fd, 1000) && shoal_dispatch(cache))
			return false;
	return w32_load(count) == n;
}

#define assert_woken(s, result)                                                                                       \
	do {                                                                                                          \
		assert_true(dispatches_until(&(s)->wakes, 1));                                                        \
		assert_int_equal((s)->outcome, result);                                                               \
	} while (0)

/* What is watched now is looked at when something rings, and at no other time. The thread that tells of it sleeps. */
static void no_slices(void)
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

static unsigned watched(void)
{
	struct watch *w = cache->watch;
	unsigned n;

	pthread_mutex_lock(&w->lock);
	n = w->n;
	pthread_mutex_unlock(&w->lock);
	return n;
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static void a_value_comes(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen one, two;

	watches("a", &one);
	watches("a", &two);
	no_slices();
	assert_false(is_readable(shoal_poll_fd(cache), 0));
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK); /* for nothing */
	assert_int_equal(w32_load(&one.wakes), 0);
	assert_int_equal(shoal_load_publish(leader, STR("loaded")), SHOAL_OK);
	assert_woken(&one, SHOAL_OK);
	assert_woken(&two, SHOAL_OK);
	assert_string_equal(one.text, "loaded");
	assert_string_equal(two.text, "loaded");
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
	assert_int_equal(w32_load(&one.wakes), 1);
	assert_int_equal(watched(), 0);
	assert_int_equal(counts_of(k).coalesced, 2);
	assert_true(counts_of(k).wait_ns_sum > 0);
}

static void a_load_fails(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen s;

	watches("a", &s);
	no_slices();
	shoal_load_fail(leader, 42);
	assert_woken(&s, SHOAL_ERR_LOAD);
	assert_int_equal(s.error, 42);
	shoal_load_cancel(s.load);
}

/* Whoever sees the load detached leads the next one. */
static void ends_by(int (*detach)(struct shoal_keyspace *, const void *, size_t))
{
	struct shoal_load *leader = leads("a");
	struct seen s;

	watches("a", &s);
	no_slices();
	detach(k, STR("a"));
	assert_woken(&s, SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(leader, STR("old")), SHOAL_ERR_SUPERSEDED);
	assert_int_equal(shoal_load_publish(s.load, STR("new")), SHOAL_OK);
	assert_gives(k, "a", "new");
}

static void it_is_deleted(void **state)
{
	ends_by(shoal_delete);
}

static void it_is_expired(void **state)
{
	ends_by(shoal_expire);
}

static void it_is_set(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen s;

	watches("a", &s);
	no_slices();
	assert_set(k, "a", "set");
	assert_woken(&s, SHOAL_OK);
	assert_string_equal(s.text, "set");
	shoal_load_cancel(leader);
}

static void the_leader_gives_up(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen one, two;

	watches("a", &one);
	watches("a", &two);
	no_slices();
	shoal_load_cancel(leader);
	assert_woken(&one, SHOAL_LEAD);
	assert_int_equal(w32_load(&two.wakes), 0);
	no_slices();
	assert_int_equal(shoal_load_publish(one.load, STR("x")), SHOAL_OK);
	assert_woken(&two, SHOAL_OK);
}

static void it_is_not_to_be_stored(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen s;

	watches("a", &s);
	no_slices();
	shoal_load_uncacheable(leader, 1000);
	shoal_load_publish(leader, STR("mine"));
	assert_woken(&s, SHOAL_LEAD);
	shoal_load_cancel(s.load);
}

/* A load that leads now and is cancelled without a wait goes to the next. */
static void a_wake_that_does_nothing(struct shoal_load *load, void *arg)
{
	w32_add(arg, 1);
}

static void a_lead_is_given_back(void **state)
{
	struct shoal_load *leader = leads("a"), *load = begins("a", SHOAL_WAIT);
	word32 woken = 0;
	struct seen s;

	assert_int_equal(shoal_watch(load, a_wake_that_does_nothing, (void *)&woken), SHOAL_OK);
	shoal_load_cancel(leader);
	assert_true(dispatches_until(&woken, 1));
	assert_int_equal(shoal_watch(load, a_wake_that_does_nothing, (void *)&woken), SHOAL_OK); /* still its outcome */
	assert_true(dispatches_until(&woken, 2));
	watches("a", &s);
	shoal_load_cancel(load);
	assert_woken(&s, SHOAL_LEAD);
	shoal_load_cancel(s.load);
	load = leads("a");
	shoal_load_cancel(load);
	assert_int_equal(stats_of(cache).flights, 0);
}

/* Values in hand of one that was woken and is cancelled are let go. */
static void a_value_is_not_fetched(void **state)
{
	struct shoal_load *leader = leads("a"), *load = begins("a", SHOAL_WAIT);
	word32 woken = 0;

	assert_int_equal(shoal_watch(load, a_wake_that_does_nothing, (void *)&woken), SHOAL_OK);
	shoal_load_publish(leader, STR("x"));
	assert_true(dispatches_until(&woken, 1));
	assert_int_equal(stats_of(cache).pins, 1);
	shoal_load_cancel(load);
	assert_int_equal(stats_of(cache).pins, 0);
}

static void a_lease_ends(void **state)
{
	struct shoal_policy policy = patient;
	struct shoal_load *leader;
	struct seen s;

	policy.lease_ms = 100;
	k = keyspace(cache, "lease", &policy);
	leader = leads("a");
	watches("a", &s);
	assert_woken(&s, SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(leader, STR("late")), SHOAL_OK);
	shoal_load_cancel(s.load);
}

/* Another load of the key, of which the younger one under way is told by a nudge: no word changes. */
static void an_older_load_is_published(void **state)
{
	struct shoal_policy policy = patient;
	struct shoal_keyspace *hasty;
	struct shoal_load *older, *early;
	struct shoal_value value;
	struct seen younger, one, two = {.outcome = NONE};

	policy.lease_ms = 100;
	hasty = keyspace(cache, "watch", &policy);
	assert_int_equal(shoal_begin(hasty, STR("a"), &older, &value), SHOAL_LEAD);
	watches("a", &younger);
	assert_woken(&younger, SHOAL_LEAD);
	watches("a", &one);
	early = begins("a", SHOAL_WAIT);
	no_slices();
	assert_int_equal(shoal_load_publish(older, STR("old")), SHOAL_OK);
	assert_woken(&one, SHOAL_OK);
	assert_int_equal(shoal_watch(early, on_wake, &two), SHOAL_OK); /* it has come before that */
	no_slices();
	assert_woken(&two, SHOAL_OK);
	assert_string_equal(one.text, "old");
	shoal_load_cancel(younger.load);
}

/* B.8: one of a flight has been rung for, and another is watched before that is looked at. */
static void the_others_are_roused(void **state)
{
	struct shoal_load *leader = leads("a"), *load;
	struct seen one, two;

	load = watches("a", &one);
	no_slices();
	w64_store(&load_segment(load)->flights[load->ticket.slot].watchers, 0); /* as who nudges does, before it rings */
	watches("a", &two);
	assert_true(load->watched.due);
	assert_true(is_readable(shoal_poll_fd(cache), PATIENCE_S * 1000));
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
	assert_false(load->watched.due);
	shoal_load_publish(leader, STR("x"));
	assert_woken(&one, SHOAL_OK);
	assert_woken(&two, SHOAL_OK);
}

static void it_takes_too_long(void **state)
{
	struct shoal_policy policy = patient;
	struct shoal_load *leader;
	struct seen s;

	policy.wait_ms = 50;
	k = keyspace(cache, "wait", &policy);
	leader = leads("a");
	watches("a", &s);
	assert_woken(&s, SHOAL_ERR_TIMEOUT);
	assert_int_equal(counts_of(k).timeouts, 1);
	assert_int_equal(shoal_watch(s.load, on_wake, &s), SHOAL_OK); /* for another wait_ms */
	assert_int_equal(shoal_load_publish(leader, STR("late")), SHOAL_OK);
	assert_true(dispatches_until(&s.wakes, 2));
	assert_int_equal(s.outcome, SHOAL_OK);
}

static void a_permit_comes(void **state)
{
	struct shoal_policy policy = patient;
	struct shoal_load *holder, *queued;
	struct seen one, two;

	policy.max_loads = 1;
	k = keyspace(cache, "permit", &policy);
	holder = leads("a");
	queued = watches("b", &one);
	watches("c", &two);
	no_slices();
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
	assert_int_equal(w32_load(&one.wakes), 0);
	shoal_load_publish(holder, STR("x"));
	assert_woken(&one, SHOAL_LEAD);
	assert_ptr_equal(one.load, queued);
	assert_int_equal(w32_load(&two.wakes), 0);
	shoal_load_cancel(one.load);
	assert_woken(&two, SHOAL_LEAD);
	shoal_load_cancel(two.load);
	assert_int_equal(stats_of(cache).permits_used, 0);
}

static void no_permit_comes(void **state)
{
	struct shoal_policy policy = patient;
	struct shoal_load *holder;
	struct seen s;

	policy.max_loads = 1;
	policy.wait_ms = 50;
	k = keyspace(cache, "permit", &policy);
	holder = leads("a");
	watches("b", &s);
	assert_woken(&s, SHOAL_ERR_BUSY);
	assert_int_equal(counts_of(k).busy, 1);
	shoal_load_cancel(s.load);
	shoal_load_cancel(holder);
}

/* It ended before it was watched. */
static void what_has_ended_is_due_at_once(void **state)
{
	struct shoal_load *leader = leads("a"), *load = begins("a", SHOAL_WAIT);
	struct seen s = {.outcome = NONE};

	shoal_load_publish(leader, STR("x"));
	assert_int_equal(shoal_watch(load, on_wake, &s), SHOAL_OK);
	assert_int_equal(w32_load(&s.wakes), 0);
	assert_woken(&s, SHOAL_OK);
}

static void what_is_cancelled_wakes_nobody(void **state)
{
	struct shoal_load *leader = leads("a"), *load, *waited;
	struct shoal_value value;
	struct seen one, two, three;

	load = watches("a", &one);
	waited = watches("a", &two);
	watches("a", &three);
	shoal_load_cancel(load);
	assert_int_equal(shoal_wait(waited, 0, &value), SHOAL_ERR_TIMEOUT); /* a wait ends the watching as well */
	assert_int_equal(watched(), 1);
	shoal_load_publish(leader, STR("x"));
	assert_woken(&three, SHOAL_OK);
	assert_int_equal(w32_load(&one.wakes) + w32_load(&two.wakes), 0);
	assert_int_equal(shoal_wait(waited, 0, &value), SHOAL_OK);
	shoal_release(&value);
}

static void what_is_invalid(void **state)
{
	struct shoal_load *leader = leads("a"), *load;
	struct seen s;

	load = watches("a", &s);
	assert_int_equal(shoal_watch(load, on_wake, &s), SHOAL_ERR_INVALID); /* it is already */
	assert_int_equal(shoal_watch(leader, on_wake, &s), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_watch(NULL, on_wake, &s), SHOAL_ERR_INVALID);
	shoal_load_cancel(load);
	load = begins("a", SHOAL_WAIT);
	assert_int_equal(shoal_watch(load, NULL, &s), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_poll_fd(NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_dispatch(NULL), SHOAL_ERR_INVALID);
	shoal_load_cancel(load);
	shoal_load_cancel(leader);
}

static void one_descriptor(void **state)
{
	int fd = shoal_poll_fd(cache);

	assert_true(fd >= 0);
	assert_int_equal(shoal_poll_fd(cache), fd);
	assert_false(is_readable(fd, 0));
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
}

static void close_with_watched_loads(void **state)
{
	struct shoal_load *leader = leads("a"), *load;
	struct seen s;

	load = watches("a", &s);
	shoal_close(cache);
	shoal_load_cancel(load);
	shoal_load_cancel(leader);
	assert_int_equal(w32_load(&s.wakes), 0);
	set_up(NULL);
}

/* B.3: a completer that dies between taking our bit and ringing. */
static void a_lost_wake_is_made_up_for(void **state)
{
	struct shoal_load *leader = leads("a"), *load;
	struct seen s;

	load = watches("a", &s);
	w64_store(&load_segment(load)->flights[load->ticket.slot].watchers, 0);
	shoal_load_publish(leader, STR("x"));
	assert_woken(&s, SHOAL_OK);
}

/* ---- other processes --------------------------------------------------------------------------------------- */

struct part {
	const char *key;
	int (*end)(struct shoal_load *load);
	size_t memory;
};

static int lead_a_part(void *arg)
{
	const struct part *p = arg;
	struct shoal_load *load;
	struct shoal_value value;
	char *memory;

	if (p->memory) {
		memory = mmap(NULL, p->memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(memory != MAP_FAILED);
		memset(memory, 1, p->memory);
	}
	must(shoal_begin(k, STR(p->key), &load, &value) == SHOAL_LEAD);
	post(&stage->led);
	must(await(&stage->go, 1));
	return p->end(load);
}

static int publish_it(struct shoal_load *load)
{
	return shoal_load_publish(load, STR("theirs"));
}

static int sleep_on_it(struct shoal_load *load)
{
	while (pause())
		;
	return 0;
}

static int exit_with_it(struct shoal_load *load)
{
	return 0;
}

static void another_process_publishes(void **state)
{
	struct part part = {"a", publish_it, 0};
	pid_t pid = spawn(lead_a_part, &part);
	struct seen s;

	assert_true(await(&stage->led, 1));
	watches("a", &s);
	no_slices();
	post(&stage->go);
	assert_woken(&s, SHOAL_OK);
	assert_string_equal(s.text, "theirs");
	assert_ends_well(pid);
}

/* Told at once, by its alive word, and not by a look in time. */
static void the_leader_is_killed(void **state)
{
	struct part part = {"a", sleep_on_it, 0};
	pid_t pid = spawn(lead_a_part, &part);
	struct seen one, two;

	assert_true(await(&stage->led, 1));
	watches("a", &one);
	watches("a", &two);
	no_slices();
	kill_child(pid);
	assert_woken(&one, SHOAL_LEAD);
	assert_int_equal(w32_load(&two.wakes), 0);
	assert_int_equal(counts_of(k).takeovers, 1);
	no_slices();
	shoal_load_publish(one.load, STR("x"));
	assert_woken(&two, SHOAL_OK);
}

static void the_leader_exits(void **state)
{
	struct part part = {"a", exit_with_it, 0};
	pid_t pid = spawn(lead_a_part, &part);
	struct seen s;

	assert_true(await(&stage->led, 1));
	watches("a", &s);
	no_slices();
	post(&stage->go);
	assert_woken(&s, SHOAL_LEAD);
	assert_ends_well(pid);
	shoal_load_cancel(s.load);
}

/* Past its destructors, in a process that lives. */
static void *lead_and_die_raw(void *arg)
{
	struct shoal_load *load;
	struct shoal_value value;

	must(shoal_begin(k, STR("a"), &load, &value) == SHOAL_LEAD);
	post(&stage->led);
	must(await(&stage->go, 1));
	syscall(SYS_exit, 0);
	return NULL;
}

static int have_a_thread_die(void *arg)
{
	pthread_t thread;

	must(!pthread_create(&thread, NULL, lead_and_die_raw, NULL));
	must(await(&stage->done, 1));
	return 0;
}

static void the_leading_thread_dies(void **state)
{
	struct seen s;
	pid_t pid;

	if (UNDER_TSAN) {
		skipped("a thread can't leave past its destructors");
		return;
	}
	pid = spawn(have_a_thread_die, NULL);
	assert_true(await(&stage->led, 1));
	watches("a", &s);
	no_slices();
	post(&stage->go);
	assert_woken(&s, SHOAL_LEAD);
	post(&stage->done);
	assert_ends_well(pid);
	shoal_load_cancel(s.load);
}

static int resize_it(void *arg)
{
	must(shoal_resize(cache, 4 << 20) == SHOAL_OK);
	return 0;
}

/* In the next region it is another load. The old leader's value is stored nowhere. */
static void it_is_resized(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen one, two;
	pid_t pid;

	watches("a", &one);
	no_slices();
	pid = spawn(resize_it, NULL);
	assert_woken(&one, SHOAL_LEAD);
	assert_ends_well(pid);
	watches("a", &two);
	no_slices();
	assert_int_equal(shoal_load_publish(leader, STR("old")), SHOAL_ERR_SUPERSEDED);
	assert_int_equal(shoal_load_publish(one.load, STR("new")), SHOAL_OK);
	assert_woken(&two, SHOAL_OK);
	assert_string_equal(two.text, "new");
}

static void a_permit_is_waited_for_in_the_next_region(void **state)
{
	struct shoal_policy policy = patient;
	struct shoal_load *holder;
	struct seen s;
	pid_t pid;

	policy.max_loads = 1;
	k = keyspace(cache, "permit", &policy);
	holder = leads("a");
	watches("b", &s);
	no_slices();
	pid = spawn(resize_it, NULL);
	assert_woken(&s, SHOAL_LEAD);
	assert_ends_well(pid);
	shoal_load_cancel(holder);
	shoal_load_cancel(s.load);
}

/* ---- many -------------------------------------------------------------------------------------------------- */

enum { MANY = 1000 };

static int lead_many(void *arg)
{
	struct shoal_load *loads[MANY];
	struct shoal_value value;
	uint64_t seed = 1, i;
	uint32_t j;

	for (i = 0; i < MANY; i++)
		must(shoal_begin(k, &i, sizeof(i), &loads[i], &value) == SHOAL_LEAD);
	post(&stage->led);
	must(await(&stage->go, 1));
	for (i = MANY; i > 0; i--) {
		j = (uint32_t)(draw(&seed) % i);
		must(shoal_load_publish(loads[j], loads[j]->bytes, 8) == SHOAL_OK);
		loads[j] = loads[i - 1];
	}
	return 0;
}

struct one_of_many {
	uint64_t key;
	word32 wakes;
	word32 *count;
};

static void on_one_of_many(struct shoal_load *load, void *arg)
{
	struct one_of_many *o = arg;
	struct shoal_value value;

	if (shoal_wait(load, 0, &value) == SHOAL_OK && value.size == 8 && !memcmp(value.data, &o->key, 8))
		w32_add(&o->wakes, 1);
	shoal_release(&value);
	post(o->count);
}

static void watch_many(struct one_of_many *many, word32 *count)
{
	struct shoal_load *load;
	struct shoal_value value;
	uint64_t i;

	for (i = 0; i < MANY; i++) {
		many[i] = (struct one_of_many){.key = i, .count = count};
		assert_int_equal(shoal_begin(k, &i, sizeof(i), &load, &value), SHOAL_WAIT);
		assert_int_equal(shoal_watch(load, on_one_of_many, &many[i]), SHOAL_OK);
	}
}

static void each_was_woken_once(const struct one_of_many *many)
{
	uint32_t i;

	for (i = 0; i < MANY; i++)
		assert_int_equal(w32_load(&many[i].wakes), 1);
	assert_int_equal(watched(), 0);
}

static void a_thousand(void **state)
{
	static struct one_of_many many[MANY];
	word32 count = 0;
	pid_t pid = spawn(lead_many, NULL);

	assert_true(await(&stage->led, 1));
	watch_many(many, &count);
	assert_int_equal(watched(), MANY);
	no_slices();
	post(&stage->go);
	assert_true(dispatches_until(&count, MANY));
	assert_ends_well(pid);
	each_was_woken_once(many);
}

/* Of one key: they are due together, and each is told. */
static void a_thousand_of_one_key(void **state)
{
	static struct seen seen[MANY];
	struct shoal_load *leader = leads("a");
	word32 i;

	for (i = 0; i < MANY; i++)
		watches("a", &seen[i]);
	no_slices();
	shoal_load_publish(leader, STR("x"));
	for (i = 0; i < MANY; i++)
		assert_woken(&seen[i], SHOAL_OK);
}

static void *dispatch_till_all_came(void *arg)
{
	word32 *count = arg;
	int fd = shoal_poll_fd(cache);

	while (w32_load(count) < MANY) {
		is_readable(fd, 10);
		must(shoal_dispatch(cache) == SHOAL_OK);
	}
	return NULL;
}

static void several_threads_dispatch(void **state)
{
	static struct one_of_many many[MANY];
	word32 count = 0;
	pid_t pid = spawn(lead_many, NULL);
	pthread_t threads[4];
	unsigned i;

	assert_true(await(&stage->led, 1));
	watch_many(many, &count);
	for (i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, dispatch_till_all_came, (void *)&count), 0);
	post(&stage->go);
	assert_true(await(&count, MANY));
	for (i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	assert_ends_well(pid);
	each_was_woken_once(many);
}

/* Each of these threads watches what the next leads; one thread dispatches for all. */
enum { WATCHERS = 4, TURNS = 200 };

static void on_turn(struct shoal_load *load, void *arg)
{
	struct shoal_value value;

	must(shoal_wait(load, 0, &value) == SHOAL_OK);
	shoal_release(&value);
	post(arg);
}

static void *watch_and_lead(void *arg)
{
	struct shoal_load *leader, *load;
	struct shoal_value value;
	uint64_t key = (uintptr_t)arg << 32;
	word32 woken = 0;
	uint32_t i;

	for (i = 1; i <= TURNS; i++) {
		key++;
		must(shoal_begin(k, &key, sizeof(key), &leader, &value) == SHOAL_LEAD);
		must(shoal_begin(k, &key, sizeof(key), &load, &value) == SHOAL_WAIT);
		must(shoal_watch(load, on_turn, (void *)&woken) == SHOAL_OK);
		must(shoal_load_publish(leader, "x", 1) == SHOAL_OK);
		must(await(&woken, i));
	}
	post(&stage->done);
	return NULL;
}

static void several_threads_watch(void **state)
{
	pthread_t threads[WATCHERS];
	uintptr_t i;

	assert_true(shoal_poll_fd(cache) >= 0);
	for (i = 0; i < WATCHERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, watch_and_lead, (void *)(i + 1)), 0);
	assert_true(dispatches_until(&stage->done, WATCHERS));
	for (i = 0; i < WATCHERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(watched(), 0);
}

/* ---- what a wake may do ------------------------------------------------------------------------------------ */

struct busy {
	struct seen seen, next;
	struct shoal_load *other, *leader;
};

/* Lead another key, publish it, cancel what is watched, watch anew, and dispatch. */
static void do_much(struct shoal_load *load, void *arg)
{
	struct busy *b = arg;

	on_wake(load, &b->seen);
	shoal_load_cancel(b->other);
	b->leader = leads("b");
	watches("b", &b->next);
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
	assert_int_equal(shoal_load_publish(b->leader, STR("y")), SHOAL_OK);
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
}

static void a_wake_does_much(void **state)
{
	struct shoal_load *leader = leads("a"), *load;
	struct seen other;
	struct busy b = {.next.wakes = 0};

	load = begins("a", SHOAL_WAIT);
	assert_int_equal(shoal_watch(load, do_much, &b), SHOAL_OK);
	b.other = watches("a", &other);
	shoal_load_publish(leader, STR("x"));
	assert_woken(&b.seen, SHOAL_OK);
	assert_woken(&b.next, SHOAL_OK);
	assert_string_equal(b.next.text, "y");
	assert_int_equal(w32_load(&other.wakes), 0);
}

static void close_it(struct shoal_load *load, void *arg)
{
	on_wake(load, arg);
	shoal_close(cache);
}

static void a_wake_closes(void **state)
{
	struct shoal_load *leader = leads("a"), *load, *other;
	struct seen one = {.outcome = NONE}, two;
	int fd = shoal_poll_fd(cache);

	load = begins("a", SHOAL_WAIT);
	assert_int_equal(shoal_watch(load, close_it, &one), SHOAL_OK);
	other = watches("a", &two);
	shoal_load_publish(leader, STR("x"));
	assert_true(is_readable(fd, PATIENCE_S * 1000));
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
	assert_int_equal(one.outcome, SHOAL_OK);
	assert_int_equal(w32_load(&two.wakes), 0);
	shoal_load_cancel(other);
	set_up(NULL);
}

/* ---- fork -------------------------------------------------------------------------------------------------- */

struct family {
	int fd;
	struct shoal_load *load;
	struct seen *seen;
};

static int be_a_child(void *arg)
{
	const struct family *f = arg;
	struct seen s;
	int fd;

	must(shoal_dispatch(cache) == SHOAL_OK); /* the parent's: nothing of ours */
	must(w32_load(&f->seen->wakes) == 0);
	must(shoal_watch(f->load, on_wake, &s) != SHOAL_OK);
	shoal_load_cancel(f->load);
	fd = shoal_poll_fd(cache);
	must(fd >= 0 && fd != f->fd);
	watches("a", &s);
	no_slices();
	post(&stage->led);
	must(dispatches_until(&s.wakes, 1) && s.outcome == SHOAL_OK);
	must(is_readable(f->fd, PATIENCE_S * 1000)); /* the parent is told, too, and what we did has taken nothing of it */
	shoal_close(cache);
	must(is_readable(f->fd, 0));
	return 0;
}

/* Trap 15: the child's own. */
static void a_child_has_its_own(void **state)
{
	struct shoal_load *leader = leads("a");
	struct seen s;
	struct family f = {.load = watches("a", &s), .seen = &s, .fd = shoal_poll_fd(cache)};
	pid_t pid;

	if (UNDER_TSAN) {
		skipped("it can't follow threads of a child whose parent has some");
		shoal_load_cancel(f.load);
		shoal_load_cancel(leader);
		return;
	}
	no_slices();
	pid = spawn(be_a_child, &f);
	assert_true(await(&stage->led, 1));
	assert_int_equal(shoal_load_publish(leader, STR("x")), SHOAL_OK);
	assert_ends_well(pid);
	assert_woken(&s, SHOAL_OK);
}

/* A child that never asks for one closes nothing of its parent's. */
static int be_a_quiet_child(void *arg)
{
	must(shoal_dispatch(cache) == SHOAL_OK);
	shoal_close(cache);
	must(is_readable(*(int *)arg, 0) == false);
	return 0;
}

static void a_child_leaves_its_parents_alone(void **state)
{
	struct shoal_load *leader = leads("a");
	int fd = shoal_poll_fd(cache);
	struct seen s;

	watches("a", &s);
	no_slices();
	assert_ends_well(spawn(be_a_quiet_child, &fd));
	assert_int_equal(shoal_load_publish(leader, STR("x")), SHOAL_OK);
	assert_woken(&s, SHOAL_OK);
}

static void fork_in_a_wake(struct shoal_load *load, void *arg)
{
	pid_t *child = arg;

	shoal_load_cancel(load);
	fflush(NULL);
	*child = fork();
}

/* The child goes on where the parent does, in the dispatch, whatever the parent's other threads hold. */
static void a_wake_forks(void **state)
{
	struct shoal_load *leader = leads("a"), *load = begins("a", SHOAL_WAIT);
	pid_t child = -1, parent = getpid();

	if (UNDER_TSAN) {
		skipped("it can't follow threads of a child whose parent has some");
		shoal_load_cancel(load);
		shoal_load_cancel(leader);
		return;
	}
	assert_int_equal(shoal_watch(load, fork_in_a_wake, &child), SHOAL_OK);
	shoal_load_publish(leader, STR("x"));
	while (child < 0 && is_readable(shoal_poll_fd(cache), PATIENCE_S * 1000))
		shoal_dispatch(cache);
	if (getpid() != parent) {
		alarm(PATIENCE_S);
		_exit(!gives(k, "a", SHOAL_OK, "x") || shoal_dispatch(cache) || shoal_poll_fd(cache) < 0);
	}
	assert_true(child > 0);
	assert_ends_well(child);
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
}

/* ---- poor machines ----------------------------------------------------------------------------------------- */

static int poor_in(const int *calls, size_t n, int error)
{
	struct sock_filter code[20] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	unsigned at = 1;
	size_t i;

	for (i = 0; i < n; i++) {
		code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){(unsigned short)at, code});
}

struct poverty {
	int calls[6];
	size_t n;
	int error;
	bool fails;
};

/* Two loads: one is published, the other's leader is killed. */
static int watch_in_poverty(void *arg)
{
	const struct poverty *p = arg;
	struct shoal_load *a, *b;
	struct shoal_value value;
	struct seen one = {.outcome = NONE}, two = {.outcome = NONE};
	int r;

	must(shoal_begin(k, STR("a"), &a, &value) == SHOAL_WAIT && shoal_begin(k, STR("b"), &b, &value) == SHOAL_WAIT);
	if (poor_in(p->calls, p->n, p->error)) {
		skipped("seccomp is refused");
		post(&stage->led);
		return 0;
	}
	r = shoal_watch(a, on_wake, &one);
	if (p->fails) {
		must(r == SHOAL_ERR_SYSTEM && shoal_poll_fd(cache) == SHOAL_ERR_SYSTEM && errno == p->error);
		post(&stage->led);
		return 0;
	}
	must(r == SHOAL_OK && shoal_watch(b, on_wake, &two) == SHOAL_OK);
	post(&stage->led);
	must(dispatches_until(&one.wakes, 1) && one.outcome == SHOAL_OK);
	must(dispatches_until(&two.wakes, 1) && two.outcome == SHOAL_LEAD);
	must(shoal_load_publish(two.load, STR("x")) == SHOAL_OK);
	return 0;
}

static void run_in_poverty(struct poverty *p)
{
	struct part part = {"b", sleep_on_it, 0};
	struct shoal_load *leader;
	pid_t victim, pid;

	w32_store(&stage->led, 0);
	victim = spawn(lead_a_part, &part);
	leader = leads("a");
	assert_true(await(&stage->led, 1));
	pid = spawn(watch_in_poverty, p);
	assert_true(await(&stage->led, 2));
	shoal_load_publish(leader, STR("x"));
	kill_child(victim);
	assert_ends_well(pid);
	shoal_delete(k, STR("a"));
	shoal_delete(k, STR("b"));
	shoal_reap(cache);
}

#define RUN_WITHOUT(failing, ...)                                                                                     \
	do {                                                                                                          \
		int poor_errors[] = {EPERM, ENOSYS};                                                                  \
		for (unsigned poor = 0; poor < 2; poor++)                                                             \
			run_in_poverty(&(struct poverty){.calls = {__VA_ARGS__}, .n = COUNT(((int[]){__VA_ARGS__})),      \
		                                         .error = poor_errors[poor], .fails = failing});              \
	} while (0)

static void without_threads(void **state)
{
	RUN_WITHOUT(false, SYS_clone, SYS_clone3);
}

static void without_futex_waitv(void **state)
{
	RUN_WITHOUT(false, SYS_futex_waitv);
}

static void without_eventfd(void **state)
{
	RUN_WITHOUT(false, SYS_eventfd2);
}

static void without_sockets(void **state)
{
	RUN_WITHOUT(false, SYS_socket, SYS_socketpair, SYS_sendto, SYS_sendmsg, SYS_pidfd_open);
}

static void without_any_descriptor(void **state)
{
	RUN_WITHOUT(true, SYS_eventfd2, SYS_timerfd_create);
}

static int use_the_last_descriptors(void *arg)
{
	struct rlimit limit, none = {0, 0};
	struct shoal_load *load = begins("a", SHOAL_WAIT);
	struct seen s = {.outcome = NONE};

	must(!getrlimit(RLIMIT_NOFILE, &limit));
	none.rlim_max = limit.rlim_max;
	must(!setrlimit(RLIMIT_NOFILE, &none));
	must(shoal_poll_fd(cache) == SHOAL_ERR_SYSTEM && errno == EMFILE);
	must(shoal_watch(load, on_wake, &s) == SHOAL_ERR_SYSTEM && errno == EMFILE);
	must(!setrlimit(RLIMIT_NOFILE, &limit));
	must(shoal_watch(load, on_wake, &s) == SHOAL_OK);
	post(&stage->led);
	must(dispatches_until(&s.wakes, 1) && s.outcome == SHOAL_OK);
	return 0;
}

static void no_descriptor_is_left(void **state)
{
	struct shoal_load *leader = leads("a");
	pid_t pid = spawn(use_the_last_descriptors, NULL);

	assert_true(await(&stage->led, 1));
	shoal_load_publish(leader, STR("x"));
	assert_ends_well(pid);
}

static int lead_elsewhere(void *arg)
{
	struct part part = {"a", publish_it, 0};

	if (unshare(CLONE_NEWNET)) {
		post(&stage->count);
		post(&stage->led);
		return 0;
	}
	return lead_a_part(&part);
}

static void another_network_namespace(void **state)
{
	pid_t pid = spawn(lead_elsewhere, NULL);
	struct seen s;

	assert_true(await(&stage->led, 1));
	if (w32_load(&stage->count)) {
		skipped("a network namespace");
		assert_ends_well(pid);
		return;
	}
	watches("a", &s);
	no_slices();
	post(&stage->go);
	assert_woken(&s, SHOAL_OK);
	assert_ends_well(pid);
}

/* ---- deaths of those who tell ------------------------------------------------------------------------------ */

/* Leads and publishes one key after the other, till it is killed in the midst of one. */
static int lead_till_killed(void *arg)
{
	struct shoal_load *load;
	struct shoal_value value;
	uint32_t round = w32_load(&stage->round), i;
	uint64_t key;

	for (i = 0;; i++) {
		key = (uint64_t)round << 32 | i;
		if (shoal_begin(k, &key, sizeof(key), &load, &value) != SHOAL_LEAD)
			return 1;
		w32_store(&stage->count, i + 1);
		while (w32_load(&stage->done) <= i)
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
	post(arg);
}

/* Every watch ends, wherever its completer dies: after its CAS, before its ring. */
static void completers_are_killed(void **state)
{
	uint64_t seed = 7, end = clock_system_ns(CLOCK_MONOTONIC) + max_u64(2, seconds() / 5) * SECOND_NS, key;
	uint32_t round, i, watches_begun = 0, deaths = 0;
	word32 ended = 0;
	struct shoal_load *load;
	struct shoal_value value;
	pid_t pid;
	int r;

	for (round = 1; clock_system_ns(CLOCK_MONOTONIC) < end; round++, deaths++) {
		w32_store(&stage->round, round);
		w32_store(&stage->count, 0);
		w32_store(&stage->done, 0);
		pid = spawn(lead_till_killed, NULL);
		for (i = 0; i < 1 + draw(&seed) % 20; i++) {
			while (w32_load(&stage->count) <= i)
				sched_yield();
			key = (uint64_t)round << 32 | i;
			r = shoal_begin(k, &key, sizeof(key), &load, &value);
			assert_int_equal(r, SHOAL_WAIT);
			assert_int_equal(shoal_watch(load, on_any_end, (void *)&ended), SHOAL_OK);
			watches_begun++;
			w32_store(&stage->done, i + 1);
			if (draw(&seed) % 2)
				assert_true(dispatches_until(&ended, watches_begun));
		}
		for (i = (uint32_t)(draw(&seed) % 3000); i; i--)
			spin_hint();
		kill_child(pid);
		assert_true(dispatches_until(&ended, watches_begun));
	}
	printf("# %u watches, %u completers killed\n", watches_begun, deaths);
	assert_int_equal(watched(), 0);
}

/* ---- loops of others --------------------------------------------------------------------------------------- */

static void in_an_epoll(bool edge)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), fd = shoal_poll_fd(cache);
	struct epoll_event event = {.events = EPOLLIN | (edge ? EPOLLET : 0)};
	struct shoal_load *leader;
	char key[16];
	struct seen s;
	int i;

	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
	for (i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "%s%d", edge ? "edge" : "level", i);
		leader = leads(key);
		watches(key, &s);
		no_slices();
		shoal_load_publish(leader, STR("x"));
		while (!w32_load(&s.wakes)) {
			assert_int_equal(epoll_wait(ep, &event, 1, PATIENCE_S * 1000), 1);
			assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
		}
		assert_int_equal(s.outcome, SHOAL_OK);
	}
	close(ep);
}

static void in_epoll(void **state)
{
	in_an_epoll(false);
	in_an_epoll(true);
}

#ifdef HAVE_LIBUV
static void uv_told(uv_poll_t *handle, int status, int events)
{
	assert_int_equal(status, 0);
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
	if (w32_load(&((struct seen *)handle->data)->wakes))
		uv_poll_stop(handle);
}

static void in_libuv(void **state)
{
	struct part part = {"a", publish_it, 0};
	pid_t pid = spawn(lead_a_part, &part);
	struct seen s;
	uv_loop_t loop;
	uv_poll_t handle = {.data = &s};

	assert_true(await(&stage->led, 1));
	watches("a", &s);
	no_slices();
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(uv_poll_init(&loop, &handle, shoal_poll_fd(cache)), 0);
	assert_int_equal(uv_poll_start(&handle, UV_READABLE, uv_told), 0);
	post(&stage->go);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(s.outcome, SHOAL_OK);
	uv_close((uv_handle_t *)&handle, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_ends_well(pid);
}
#else
static void in_libuv(void **state)
{
	skipped("libuv is not there");
}
#endif

#ifdef HAVE_LIBEVENT
static void event_told(evutil_socket_t fd, short what, void *arg)
{
	assert_int_equal(shoal_dispatch(cache), SHOAL_OK);
}

static void in_libevent(void **state)
{
	struct part part = {"a", publish_it, 0};
	pid_t pid = spawn(lead_a_part, &part);
	struct event_base *base = event_base_new();
	struct event *event = event_new(base, shoal_poll_fd(cache), EV_READ | EV_PERSIST, event_told, NULL);
	struct timeval patience = {PATIENCE_S, 0};
	struct seen s = {.outcome = NONE};
	struct shoal_load *load;

	assert_true(await(&stage->led, 1));
	load = begins("a", SHOAL_WAIT);
	assert_int_equal(shoal_watch(load, on_wake, &s), SHOAL_OK);
	no_slices();
	event_add(event, NULL);
	event_base_loopexit(base, &patience);
	post(&stage->go);
	while (!w32_load(&s.wakes) && !event_base_got_exit(base))
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(s.outcome, SHOAL_OK);
	event_free(event);
	event_base_free(base);
	assert_ends_well(pid);
}
#else
static void in_libevent(void **state)
{
	skipped("libevent is not there");
}
#endif

/* ---- figures ----------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void print_latency(const char *what, uint64_t *ns, unsigned n)
{
	qsort(ns, n, sizeof(*ns), compare);
	printf("# %-34s %8.1f us (median) %8.1f (p90) %9.1f (p99)\n", what, (double)ns[n / 2] / 1e3, (double)ns[n * 9 / 10] / 1e3,
	       (double)ns[n * 99 / 100] / 1e3);
}

enum { WAKES = 400, FUTEX, BLOCKING, POLLED };

/* A wake across processors may take many times one on the same, and the scheduler chooses anew for each of the two hops of a
 * watch: so both are measured. The n-th processor that we may use; false, and all of them:
 * there are not so many. */
static bool stay_on(int n)
{
	static cpu_set_t all;
	cpu_set_t one;
	int i;

	if (!CPU_COUNT(&all))
		sched_getaffinity(0, sizeof(all), &all);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET((unsigned)i, &all) && !n--)
			break;
	if (i == CPU_SETSIZE) {
		sched_setaffinity(0, sizeof(all), &all);
		return false;
	}
	CPU_ZERO(&one);
	CPU_SET((unsigned)i, &one);
	return !sched_setaffinity(0, sizeof(one), &one);
}

/* One per round: by a word, by a load that is waited for, by one that is watched. */
static int tell_each_round(void *arg)
{
	struct shoal_load *load;
	struct shoal_value value;
	uint32_t round, way;
	uint64_t key;

	for (round = 1; round <= 3 * WAKES; round++) {
		way = FUTEX + round % 3;
		key = (uint64_t)1 << 60 | round;
		if (way != FUTEX)
			must(shoal_begin(k, &key, sizeof(key), &load, &value) == SHOAL_LEAD);
		post(&stage->led);
		must(await(&stage->go, round));
		usleep(300); /* the other sleeps by now: or the figure is another, and no failure */
		w64_store(&stage->at_ns, clock_system_ns(CLOCK_MONOTONIC));
		if (way == FUTEX)
			post(&stage->count);
		else
			must(shoal_load_publish(load, "x", 1) == SHOAL_OK);
	}
	return 0;
}

static void measure_wakes(int processor)
{
	static uint64_t took[POLLED + 1][WAKES];
	unsigned n[POLLED + 1] = {0};
	pid_t pid;
	uint32_t round, way, words = 0;
	struct shoal_load *load;
	struct shoal_value value;
	struct seen s;
	uint64_t key;

	if (!stay_on(processor)) {
		skipped("there is one processor");
		return;
	}
	pid = spawn(tell_each_round, NULL);
	stay_on(0);
	for (round = 1; round <= 3 * WAKES; round++) {
		way = FUTEX + round % 3;
		key = (uint64_t)1 << 60 | round;
		assert_true(await(&stage->led, round));
		if (way != FUTEX)
			assert_int_equal(shoal_begin(k, &key, sizeof(key), &load, &value), SHOAL_WAIT);
		if (way == POLLED) {
			s = (struct seen){.outcome = NONE};
			assert_int_equal(shoal_watch(load, on_wake, &s), SHOAL_OK);
		}
		post(&stage->go);
		if (way == FUTEX)
			assert_true(await(&stage->count, ++words));
		else if (way == BLOCKING)
			assert_int_equal(shoal_wait(load, LONG_MS, &value), SHOAL_OK);
		else
			assert_woken(&s, SHOAL_OK);
		took[way][n[way]++] = clock_system_ns(CLOCK_MONOTONIC) - w64_load(&stage->at_ns);
		if (way == BLOCKING)
			shoal_release(&value);
	}
	assert_ends_well(pid);
	stay_on(CPU_SETSIZE);
	print_latency("a plain futex", took[FUTEX], n[FUTEX]);
	print_latency("a load that is waited for", took[BLOCKING], n[BLOCKING]);
	print_latency("a load that is watched", took[POLLED], n[POLLED]);
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
static int kill_in_a_while(void *arg)
{
	usleep(5000);
	w64_store(&stage->at_ns, clock_system_ns(CLOCK_MONOTONIC));
	return kill(*(pid_t *)arg, SIGKILL);
}

static void kill_leaders(const char *name, unsigned n, size_t memory)
{
	uint64_t took[500];
	struct part part = {NULL, sleep_on_it, memory};
	char key[48];
	struct seen s;
	pid_t pid, killer;
	unsigned i;

	for (i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "%s%u", name, i);
		part.key = key;
		w32_store(&stage->led, 0);
		pid = spawn(lead_a_part, &part);
		assert_true(await(&stage->led, 1));
		watches(key, &s);
		killer = spawn(kill_in_a_while, &pid);
		assert_woken(&s, SHOAL_LEAD);
		took[i] = clock_system_ns(CLOCK_MONOTONIC) - w64_load(&stage->at_ns);
		shoal_load_cancel(s.load);
		assert_ends_well(killer);
		kill_child(pid);
	}
	snprintf(key, sizeof(key), "killed leaders of %zu MiB, polled", memory >> 20);
	print_latency(key, took, n);
}

static void how_long_a_death_takes(void **state)
{
	kill_leaders("lean", (unsigned)max_u64(100, min_u64(seconds() * 10, 500)), 0);
	kill_leaders("fat", 20, seconds() < 60 ? (size_t)64 << 20 : (size_t)1 << 30);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#define LARGE(name) cmocka_unit_test_setup_teardown(name, set_up_large, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(a_value_comes),
		CASE(a_load_fails),
		CASE(it_is_deleted),
		CASE(it_is_expired),
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
		CASE(one_descriptor),
		CASE(close_with_watched_loads),
		CASE(a_lost_wake_is_made_up_for),
		CASE(another_process_publishes),
		CASE(the_leader_is_killed),
		CASE(the_leader_exits),
		CASE(the_leading_thread_dies),
		CASE(it_is_resized),
		CASE(a_permit_is_waited_for_in_the_next_region),
		LARGE(a_thousand),
		CASE(a_thousand_of_one_key),
		LARGE(several_threads_dispatch),
		CASE(several_threads_watch),
		CASE(a_wake_does_much),
		CASE(a_wake_closes),
		CASE(a_child_has_its_own),
		CASE(a_child_leaves_its_parents_alone),
		CASE(a_wake_forks),
		CASE(without_threads),
		CASE(without_futex_waitv),
		CASE(without_eventfd),
		CASE(without_sockets),
		CASE(without_any_descriptor),
		CASE(no_descriptor_is_left),
		CASE(another_network_namespace),
		CASE(completers_are_killed),
		CASE(in_epoll),
		CASE(in_libuv),
		CASE(in_libevent),
		CASE(how_long_a_wake_takes_on_one_processor),
		CASE(how_long_a_wake_takes_across_two),
		CASE(how_long_a_death_takes),
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
