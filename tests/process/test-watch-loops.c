/* SPDX-License-Identifier: MIT */
/*
 * Who watches: in the loops of others, a thousand loads at once, in several threads, from within a wake, after fork,
 * and on machines that refuse what the library would use. How what is watched may end is in test-watch.c.
 */
#include <sys/epoll.h>
#include <sys/resource.h>
#ifdef HAVE_LIBUV
#include <uv.h>
#endif
#ifdef HAVE_LIBEVENT
#include <event2/event.h>
#endif

#include "refuse.h"
#include "watching.h"

/* ---- loops of others --------------------------------------------------------------------------------------- */

static void in_an_epoll(uint32_t flags)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), fd = shoal_poll_fd(cache), i;
	struct epoll_event event = {.events = EPOLLIN | flags};

	assert_true(fd >= 0);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
	for (i = 0; i < 100; i++) {
		led_and_watched_by(&one);
		assert_published(leader, "x");
		while (!w32_load(&one.wakes)) {
			assert_int_equal(epoll_wait(ep, &event, 1, PATIENCE_S * 1000), 1);
			assert_dispatches();
		}
		assert_int_equal(one.outcome, SHOAL_OK);
		shoal_delete(k, STR("a"));
	}
	close(ep);
}

static void in_epoll(void **state)
{
	int fd = shoal_poll_fd(cache);

	assert_int_equal(shoal_poll_fd(cache), fd); /* there is one */
	assert_false(is_readable(fd, 0));
	assert_dispatches();
	in_an_epoll(0);
	in_an_epoll(EPOLLET);
}

#ifdef HAVE_LIBUV
static void uv_told(uv_poll_t *handle, int status, int events)
{
	assert_int_equal(status, 0);
	assert_dispatches();
	if (w32_load(&((struct seen *)handle->data)->wakes))
		uv_poll_stop(handle);
}

static void in_libuv(void **state)
{
	pid_t pid = leads_elsewhere("a", publish_it);
	uv_loop_t loop;
	uv_poll_t handle = {.data = &one};

	watched_by(&one);
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(uv_poll_init(&loop, &handle, shoal_poll_fd(cache)), 0);
	assert_int_equal(uv_poll_start(&handle, UV_READABLE, uv_told), 0);
	post(&stage->go);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(one.outcome, SHOAL_OK);
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
	assert_dispatches();
}

static void in_libevent(void **state)
{
	pid_t pid = leads_elsewhere("a", publish_it);
	struct event_base *base = event_base_new();
	struct event *event = event_new(base, shoal_poll_fd(cache), EV_READ | EV_PERSIST, event_told, NULL);

	watched_by(&one);
	event_add(event, NULL);
	event_base_loopexit(base, &(struct timeval){PATIENCE_S, 0});
	post(&stage->go);
	while (!w32_load(&one.wakes) && !event_base_got_exit(base))
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(one.outcome, SHOAL_OK);
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

/* ---- many -------------------------------------------------------------------------------------------------- */

enum { MANY = 1000, THREADS = 4, TURNS = 200 };

static struct seen many[MANY];

static const char *name_of(uint32_t i)
{
	static char name[12]; /* each of the same length */

	snprintf(name, sizeof(name), "%08" PRIu32, i);
	return name;
}

/* Each load of a thousand gives its key for a value, in any order. */
static int lead_many(void *arg)
{
	struct shoal_load *loads[MANY];
	uint64_t seed = 1;
	uint32_t i, j;

	for (i = 0; i < MANY; i++)
		must((loads[i] = begin(STR(name_of(i)), SHOAL_LEAD)));
	post(&stage->led);
	must(await(&stage->go, 1));
	for (i = MANY; i > 0; i--) {
		j = (uint32_t)(draw(&seed) % i);
		must(shoal_load_publish(loads[j], loads[j]->bytes, strlen(name_of(j))) == SHOAL_OK);
		loads[j] = loads[i - 1];
	}
	return 0;
}

static pid_t watches_many(void)
{
	pid_t pid = spawn_leader(lead_many, (struct part){0});
	uint32_t i;

	for (i = 0; i < MANY; i++)
		watches(name_of(i), &many[i]);
	assert_int_equal(watched(), MANY);
	return pid;
}

static void each_was_woken_once(pid_t pid)
{
	uint32_t i;

	for (i = 0; i < MANY; i++) {
		assert_int_equal(w32_load(&many[i].wakes), 1);
		assert_string_equal(many[i].text, name_of(i));
	}
	assert_int_equal(watched(), 0);
	assert_ends_well(pid);
}

static void a_thousand(void **state)
{
	pid_t pid = watches_many();

	no_slices();
	post(&stage->go);
	assert_true(dispatches_until(&woken, MANY));
	each_was_woken_once(pid);
}

/* Of one key: they are due together, and each is told. */
static void a_thousand_of_one_key(void **state)
{
	uint32_t i;

	leader = leads("a");
	for (i = 0; i < MANY; i++)
		watches("a", &many[i]);
	no_slices();
	assert_published(leader, "x");
	for (i = 0; i < MANY; i++)
		assert_given(&many[i], "x");
}

static void in_threads(pthread_t *threads, void *(*body)(void *number))
{
	uintptr_t i;

	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, body, (void *)i), 0);
}

static void join(const pthread_t *threads)
{
	unsigned i;

	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void *dispatch_till_all_came(void *number)
{
	must(dispatches_until(&woken, MANY));
	return NULL;
}

static void several_threads_dispatch(void **state)
{
	pid_t pid = watches_many();
	pthread_t threads[THREADS];

	in_threads(threads, dispatch_till_all_came);
	post(&stage->go);
	join(threads);
	each_was_woken_once(pid);
}

static void on_turn(struct shoal_load *load, void *arg)
{
	struct seen *s = arg;

	on_wake(load, s);
	futex_wake(&s->wakes, 1);
}

/* Each of these threads watches what it leads; one thread dispatches for all. */
static void *lead_and_watch(void *number)
{
	struct shoal_load *mine, *load;
	struct seen seen[TURNS];
	uint64_t key = (uintptr_t)number << 32;
	uint32_t i;

	for (i = 0; i < TURNS; i++, key++) {
		seen[i] = UNSEEN;
		must((mine = begin(&key, sizeof(key), SHOAL_LEAD)));
		must((load = begin(&key, sizeof(key), SHOAL_WAIT)));
		must(shoal_watch(load, on_turn, &seen[i]) == SHOAL_OK);
		must(shoal_load_publish(mine, "x", 1) == SHOAL_OK);
		must(await(&seen[i].wakes, 1) && seen[i].outcome == SHOAL_OK);
	}
	post(&stage->done);
	return NULL;
}

static void several_threads_watch(void **state)
{
	pthread_t threads[THREADS];

	assert_true(shoal_poll_fd(cache) >= 0);
	in_threads(threads, lead_and_watch);
	assert_true(dispatches_until(&stage->done, THREADS));
	join(threads);
	assert_int_equal(w32_load(&woken), THREADS * TURNS);
	assert_int_equal(watched(), 0);
}

/* ---- what a wake may do ------------------------------------------------------------------------------------ */

/* Cancel what is watched, lead another key and watch it, publish that, and dispatch. */
static void do_much(struct shoal_load *load, void *arg)
{
	struct shoal_load *next;

	on_wake(load, &one);
	shoal_load_cancel(two.load);
	next = leads("b");
	watches("b", arg);
	assert_dispatches();
	assert_published(next, "y");
	assert_dispatches();
}

static void a_wake_does_much(void **state)
{
	struct seen next = UNSEEN;

	leader = leads("a");
	one = UNSEEN;
	watches_by("a", do_much, &next);
	watches("a", &two);
	assert_published(leader, "x");
	assert_given(&one, "x");
	assert_given(&next, "y");
	assert_not_woken(&two);
}

static void close_it(struct shoal_load *load, void *arg)
{
	on_wake(load, arg);
	close_cache();
}

static void a_wake_closes(void **state)
{
	leader = leads("a");
	one = UNSEEN;
	watches_by("a", close_it, &one);
	watches("a", &two);
	assert_published(leader, "x");
	assert_true(is_readable(shoal_poll_fd(cache), PATIENCE_S * 1000));
	assert_dispatches();
	assert_null(cache);
	assert_int_equal(w32_load(&one.wakes), 1);
	assert_int_equal(one.outcome, SHOAL_OK);
	assert_not_woken(&two);
	shoal_load_cancel(two.load);
}

/* ---- fork -------------------------------------------------------------------------------------------------- */

static int be_a_child(void *arg)
{
	const int *parents = arg;
	struct shoal_load *load;
	struct seen s = UNSEEN;
	int fd;

	must(shoal_dispatch(cache) == SHOAL_OK); /* the parent's: nothing of ours */
	must(w32_load(&one.wakes) == 0);
	must(shoal_watch(one.load, on_wake, &s) != SHOAL_OK);
	shoal_load_cancel(one.load);
	fd = shoal_poll_fd(cache);
	must(fd >= 0 && fd != *parents);
	must((load = begin(STR("a"), SHOAL_WAIT)));
	must(shoal_watch(load, on_wake, &s) == SHOAL_OK && w32_load(&s.wakes) == 0);
	no_slices();
	post(&stage->led);
	must(comes(&s, SHOAL_OK, "x"));
	must(is_readable(*parents, PATIENCE_S * 1000)); /* it is told, too, and what we did has taken nothing of it */
	shoal_close(cache);
	must(is_readable(*parents, 0));
	return 0;
}

/* Trap 15: the child's own. */
static void a_child_has_its_own(void **state)
{
	pid_t pid;
	int fd;

	if (UNDER_TSAN) {
		skipped("it can't follow threads of a child whose parent has some");
		return;
	}
	led_and_watched_by(&one);
	fd = shoal_poll_fd(cache);
	pid = spawn(be_a_child, &fd);
	assert_true(await(&stage->led, 1));
	assert_published(leader, "x");
	assert_ends_well(pid);
	assert_given(&one, "x");
}

/* It never asks for one, and closes nothing of its parent's. */
static int be_a_quiet_child(void *fd)
{
	must(shoal_dispatch(cache) == SHOAL_OK);
	shoal_close(cache);
	must(is_readable(*(int *)fd, 0) == false);
	return 0;
}

static void a_child_leaves_its_parents_alone(void **state)
{
	int fd = shoal_poll_fd(cache);

	led_and_watched_by(&one);
	assert_ends_well(spawn(be_a_quiet_child, &fd));
	assert_published(leader, "x");
	assert_given(&one, "x");
}

static void fork_in_a_wake(struct shoal_load *load, void *child)
{
	shoal_load_cancel(load);
	fflush(NULL);
	*(pid_t *)child = fork();
}

/* The child goes on where the parent does, in the dispatch, whatever the parent's other threads hold. */
static void a_wake_forks(void **state)
{
	pid_t child = -1, parent = getpid();

	if (UNDER_TSAN) {
		skipped("it can't follow threads of a child whose parent has some");
		return;
	}
	leader = leads("a");
	watches_by("a", fork_in_a_wake, &child);
	assert_published(leader, "x");
	while (child < 0 && is_readable(shoal_poll_fd(cache), PATIENCE_S * 1000))
		shoal_dispatch(cache);
	if (getpid() != parent) {
		alarm(PATIENCE_S);
		_exit(!gives(k, "a", SHOAL_OK, "x") || shoal_dispatch(cache) || shoal_poll_fd(cache) < 0);
	}
	assert_true(child > 0);
	assert_ends_well(child);
	assert_dispatches();
}

/* ---- poor machines ----------------------------------------------------------------------------------------- */

struct poverty {
	bool fails; /* nothing stands in for these */
	int calls[5];
	size_t n;
	int error;
};

/* Two loads: one is published, the other's leader is killed. */
static int watch_in_poverty(void *arg)
{
	const struct poverty *p = arg;
	struct shoal_load *a = begin(STR("a"), SHOAL_WAIT), *b = begin(STR("b"), SHOAL_WAIT);
	bool refused = refuse(p->calls, p->n, p->error);

	must(a && b);
	one = two = UNSEEN;
	if (!refused)
		skipped("seccomp is refused");
	else if (p->fails)
		must(shoal_watch(a, on_wake, &one) == SHOAL_ERR_SYSTEM && errno == p->error &&
		     shoal_poll_fd(cache) == SHOAL_ERR_SYSTEM && errno == p->error);
	else
		must(shoal_watch(a, on_wake, &one) == SHOAL_OK && shoal_watch(b, on_wake, &two) == SHOAL_OK);
	post(&stage->led);
	if (refused && !p->fails)
		must(comes(&one, SHOAL_OK, "x") && comes(&two, SHOAL_LEAD, NULL) &&
		     shoal_load_publish(two.load, STR("y")) == SHOAL_OK);
	return 0;
}

static void without(void **state)
{
	static const int errors[] = {EPERM, ENOSYS};
	struct poverty *p = *state;
	pid_t victim, pid;
	unsigned i;

	for (i = 0; i < COUNT(errors); i++) {
		p->error = errors[i];
		victim = leads_till_killed("b", 0);
		leader = leads("a");
		pid = spawn(watch_in_poverty, p);
		assert_true(await(&stage->led, 2));
		assert_published(leader, "x");
		kill_child(victim);
		assert_ends_well(pid);
		shoal_delete(k, STR("a"));
		shoal_delete(k, STR("b"));
		shoal_reap(cache);
	}
}

#define WITHOUT(name, fails, ...)                                                                                     \
	{name, without, set_up, tear_down, &(struct poverty){fails, {__VA_ARGS__}, COUNT(((int[]){__VA_ARGS__})), 0}}

static int use_the_last_descriptors(void *arg)
{
	struct rlimit limit, none = {0, 0};
	struct shoal_load *load = begin(STR("a"), SHOAL_WAIT);

	must(load && !getrlimit(RLIMIT_NOFILE, &limit));
	one = UNSEEN;
	none.rlim_max = limit.rlim_max;
	must(!setrlimit(RLIMIT_NOFILE, &none));
	must(shoal_poll_fd(cache) == SHOAL_ERR_SYSTEM && errno == EMFILE);
	must(shoal_watch(load, on_wake, &one) == SHOAL_ERR_SYSTEM && errno == EMFILE);
	must(!setrlimit(RLIMIT_NOFILE, &limit));
	must(shoal_watch(load, on_wake, &one) == SHOAL_OK);
	post(&stage->led);
	must(comes(&one, SHOAL_OK, "x"));
	return 0;
}

static void no_descriptor_is_left(void **state)
{
	pid_t pid;

	leader = leads("a");
	pid = spawn(use_the_last_descriptors, NULL);
	assert_true(await(&stage->led, 1));
	assert_published(leader, "x");
	assert_ends_well(pid);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(in_epoll),
		CASE(in_libuv),
		CASE(in_libevent),
		CASE(a_thousand),
		CASE(a_thousand_of_one_key),
		CASE(several_threads_dispatch),
		CASE(several_threads_watch),
		CASE(a_wake_does_much),
		CASE(a_wake_closes),
		CASE(a_child_has_its_own),
		CASE(a_child_leaves_its_parents_alone),
		CASE(a_wake_forks),
		WITHOUT("without_threads", false, SYS_clone, SYS_clone3),
		WITHOUT("without_futex_waitv", false, SYS_futex_waitv),
		WITHOUT("without_eventfd", false, SYS_eventfd2),
		WITHOUT("without_sockets", false, SYS_socket, SYS_socketpair, SYS_sendto, SYS_sendmsg, SYS_pidfd_open),
		WITHOUT("without_any_descriptor", true, SYS_eventfd2, SYS_timerfd_create),
		CASE(no_descriptor_is_left),
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("watch-loops", tests, NULL, NULL);
}
