/* SPDX-License-Identifier: MIT */
/*
 * Processes and threads that come and go: fork, raw clone, exec, thread exit, limits, handles that are closed under
 * threads, values and loads that outlive what they came from. Holds R.2 (what is the dead one's alone is
 * cleared), R.4 (an alive word is taken after what its holder left is recovered), R.5 (alive words stay until
 * their threads have exited) and R.6 (a child inherits no seat), and promise 5: without a slot the caller's
 * loader still gives it its value.
 */
#include <pthread.h>

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

	shoal_reap(p->cache);
	assert_int_equal(stats_of(p->cache).pins, 0);
	assert_int_equal(stats_of(p->cache).flights, 0);
	assert_true(stats_of(p->cache).processes <= 1);
	assert_true(stats_of(p->cache).threads <= 1);
	close_place(p);
	return 0;
}

static bool can_set(struct shoal_keyspace *k, int key)
{
	char text[16];
	size_t size;

	return shoal_set(k, &key, sizeof(key), "text", 4) == SHOAL_OK &&
	       shoal_read(k, &key, sizeof(key), text, sizeof(text), &size) == SHOAL_OK && size == 4;
}

static pthread_t start(void *(*body)(void *), void *arg)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, body, arg), 0);
	return thread;
}

/* ---- children ---------------------------------------------------------------------------------------------- */

static int use_in_grandchild(void *arg)
{
	must(can_set(((struct place *)arg)->k, 3));
	return 0;
}

static int use_in_child(void *arg)
{
	struct place *p = arg;
	pid_t pid;
	int status;

	must(gives(p->k, "from the parent", SHOAL_OK, "x"));
	must(can_set(p->k, 2));
	pid = fork();
	if (!pid)
		_exit(use_in_grandchild(p));
	must(waitpid(pid, &status, 0) == pid && !status);
	must(can_set(p->k, 2));
	return 0;
}

static void children_and_theirs_join(void **state)
{
	struct place *p = *state;
	int key = 3;
	char text[4];

	assert_set(p->k, "from the parent", "x");
	assert_ends_well(spawn(use_in_child, p));
	assert_int_equal(shoal_read(p->k, &key, sizeof(key), text, 4, NULL), SHOAL_OK);
	assert_int_equal(shoal_reap(p->cache), 2);
}

/* The parent has never used the segment itself. */
static void a_child_may_be_the_first(void **state)
{
	struct place *p = *state;

	assert_ends_well(spawn(use_in_grandchild, p));
	assert_true(can_set(p->k, 3));
}

static void *use_in_thread(void *arg)
{
	struct place *p = arg;
	int i;

	for (i = 0; i < 100; i++)
		if (!can_set(p->k, 1000 + i))
			return NULL;
	return p;
}

static int use_in_threads(void *arg)
{
	pthread_t threads[4];
	void *result;
	int round, i;

	for (round = 0; round < 10; round++) {
		for (i = 0; i < 4; i++)
			must(!pthread_create(&threads[i], NULL, use_in_thread, arg));
		for (i = 0; i < 4; i++)
			must(!pthread_join(threads[i], &result) && result == arg);
	}
	return 0;
}

static void a_child_may_have_threads(void **state)
{
	struct place *p = *state;

	assert_true(can_set(p->k, 1));
	assert_ends_well(spawn(use_in_threads, p));
}

/* No atfork hook runs, and glibc doesn't know of the new process. */
static void a_raw_clone_joins(void **state)
{
	struct place *p = *state;
	pid_t parent = getpid(), pid;

	if (UNDER_TSAN) {
		skipped("a raw clone is beyond ThreadSanitizer");
		return;
	}
	assert_true(can_set(p->k, 1));
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid) {
		become_child(parent);
		must(can_set(p->k, 2));
		must(stats_of(p->cache).processes == 2);
		syscall(SYS_exit_group, 0);
	}
	assert_ends_well(pid);
	assert_int_equal(shoal_reap(p->cache), 1);
	assert_true(can_set(p->k, 3));
}

static int close_only(void *arg)
{
	shoal_close(((struct place *)arg)->cache);
	return 0;
}

static int use_and_close(void *arg)
{
	must(can_set(((struct place *)arg)->k, 1));
	shoal_close(((struct place *)arg)->cache);
	return 0;
}

static void a_child_closes_its_own(void **state)
{
	struct place *p = *state;
	struct shoal_value value;

	assert_set(p->k, "a", "x");
	assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
	assert_ends_well(spawn(close_only, p));
	assert_ends_well(spawn(use_and_close, p));
	assert_int_equal(shoal_reap(p->cache), 0); /* it left in order */
	assert_true(holds(&value, "x"));
	assert_true(can_set(p->k, 2));
	shoal_release(&value);
}

static int leave_at_once(void *arg)
{
	return 0;
}

static void many_children_come_and_go(void **state)
{
	struct place p =
		open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_processes = 3, .max_threads = 3});
	int i;

	for (i = 0; i < 300; i++) /* they leave without a word: their slots are found when they are needed */
		assert_ends_well(spawn(i % 2 ? use_in_grandchild : leave_at_once, &p));
	close_place(&p);
}

/* ---- children of busy parents ------------------------------------------------------------------------------ */

struct busy {
	struct place *p;
	word32 stop, running;
};

static void *use_until_told(void *arg)
{
	struct busy *busy = arg;
	struct shoal_value value;

	post(&busy->running);
	while (!w32_load(&busy->stop)) {
		shoal_get(busy->p->k, STR("a"), &value);
		shoal_release(&value);
	}
	return NULL;
}

static void *touch(void *arg)
{
	shoal_read(((struct busy *)arg)->p->k, STR("a"), NULL, 0, NULL);
	return NULL;
}

static void *come_and_go(void *arg)
{
	struct busy *busy = arg;
	pthread_t thread;

	post(&busy->running);
	while (!w32_load(&busy->stop))
		if (!pthread_create(&thread, NULL, touch, busy))
			pthread_join(thread, NULL);
	return NULL;
}

static void fork_while(struct place *p, void *(*work)(void *), int (*child)(void *), int children)
{
	struct busy busy = {.p = p};
	pthread_t threads[2] = {start(work, &busy), start(work, &busy)};
	int i;

	assert_true(await(&busy.running, 2));
	for (i = 0; i < children; i++)
		assert_ends_well(spawn(child, p));
	post(&busy.stop);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* The parent's readers are in the midst of it, and must not be waited for in the child. */
static void fork_while_others_read(void **state)
{
	assert_set(((struct place *)*state)->k, "a", "x");
	fork_while(*state, use_until_told, close_only, 100);
	fork_while(*state, use_until_told, use_and_close, 100);
}

/* The parent's threads join and leave, and what they lock meanwhile must be free in the child. */
static void fork_while_others_come_and_go(void **state)
{
	assert_set(((struct place *)*state)->k, "a", "x");
	fork_while(*state, come_and_go, close_only, 200);
	fork_while(*state, come_and_go, use_and_close, 200);
}

static void *open_and_close(void *arg)
{
	struct busy *busy = arg;
	struct shoal_keyspace *k;
	struct shoal *cache;

	post(&busy->running);
	while (!w32_load(&busy->stop)) {
		if (shoal_open(NULL, &(struct shoal_config){.size = 1 << 20}, &cache))
			continue;
		if (!shoal_keyspace_open(cache, "test", 1, NULL, &k))
			can_set(k, 1);
		shoal_close(cache);
	}
	return NULL;
}

static void fork_while_others_close(void **state)
{
	fork_while(*state, open_and_close, close_only, 100);
	fork_while(*state, open_and_close, use_and_close, 100);
}

/* Each thread's handle is its own; a first use of one must not wait for, nor harm, another's. */
static void threads_with_handles_of_their_own(void **state)
{
	struct place *p = *state;
	struct busy busy = {.p = p};
	pthread_t threads[4];
	int i;

	assert_set(p->k, "a", "x");
	for (i = 0; i < 4; i++)
		threads[i] = start(i < 3 ? open_and_close : use_until_told, &busy);
	assert_true(await(&busy.running, 4));
	for (i = 0; i < 300; i++)
		pthread_join(start(touch, &busy), NULL);
	post(&busy.stop);
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

static void exit_returns_the_slot(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_threads = 2});
	struct busy busy = {.p = &p};
	int i;

	assert_set(p.k, "a", "x");
	for (i = 0; i < 3000; i++) {
		pthread_join(start(touch, &busy), NULL);
		assert_int_equal(stats_of(p.cache).threads, 1);
	}
	assert_int_equal(counts_of(p.k).hits_fresh, 3000);
	close_place(&p);
}

static int give_own(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return shoal_load_publish(load, "own", 3);
}

struct crowd {
	struct place *p;
	word32 arrived, limited, served, fetched, leave;
};

/* Without a slot: get and set say so, fetch gives the value. */
static void try_all(struct crowd *crowd)
{
	struct shoal_load *load;
	struct shoal_value value;
	int outcome = 0, r = shoal_get(crowd->p->k, STR("a"), &value);

	if (r == SHOAL_ERR_LIMIT && shoal_set(crowd->p->k, "b", 1, "x", 1) == r &&
	    shoal_delete(crowd->p->k, "b", 1) == r && shoal_expire(crowd->p->k, "b", 1) == r &&
	    shoal_read(crowd->p->k, "b", 1, NULL, 0, NULL) == r &&
	    shoal_begin(crowd->p->k, "b", 1, &load, &value) == r && !load && !value.data &&
	    shoal_get_many(crowd->p->k, &(struct shoal_slice){"a", 1}, 1, &value, &outcome) == SHOAL_OK &&
	    outcome == r && shoal_reap(crowd->p->cache) == r)
		w32_add(&crowd->limited, 1);
	else if (r == SHOAL_OK)
		w32_add(&crowd->served, 1);
	shoal_release(&value);
	if (shoal_fetch(crowd->p->k, STR("b"), give_own, NULL, &value) == SHOAL_OK && holds(&value, "own"))
		w32_add(&crowd->fetched, 1);
	shoal_release(&value);
}

static void *try_in_crowd(void *arg)
{
	struct crowd *crowd = arg;

	try_all(crowd);
	post(&crowd->arrived);
	await(&crowd->leave, 1);
	return NULL;
}

static void more_threads_than_slots(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_threads = 3});
	struct crowd crowd = {.p = &p};
	pthread_t threads[8];
	int i;

	assert_set(p.k, "a", "x");
	for (i = 0; i < 8; i++)
		threads[i] = start(try_in_crowd, &crowd);
	assert_true(await(&crowd.arrived, 8));
	assert_int_equal(w32_load(&crowd.served), 2);
	assert_int_equal(w32_load(&crowd.limited), 6);
	assert_int_equal(w32_load(&crowd.fetched), 8);
	assert_true(counts_of(p.k).uncached >= 6);
	post(&crowd.leave);
	for (i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stats_of(p.cache).threads, 1);
	pthread_join(start(try_in_crowd, &crowd), NULL); /* there is room again */
	assert_int_equal(w32_load(&crowd.served), 3);
	close_place(&p);
}

static int try_in_child(void *arg)
{
	struct crowd *crowd = arg;

	try_all(crowd);
	post(&crowd->arrived);
	must(await(&crowd->leave, 1));
	return 0;
}

static void more_processes_than_slots(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_processes = 3});
	struct crowd *crowd = share(sizeof(*crowd));
	pid_t pids[6];
	int i;

	crowd->p = &p;
	assert_set(p.k, "a", "x");
	for (i = 0; i < 6; i++)
		pids[i] = spawn(try_in_child, crowd);
	assert_true(await(&crowd->arrived, 6));
	assert_int_equal(w32_load(&crowd->served), 2);
	assert_int_equal(w32_load(&crowd->limited), 4);
	assert_int_equal(w32_load(&crowd->fetched), 6);
	for (i = 0; i < 6; i++)
		kill_child(pids[i]);
	post(&crowd->leave);
	assert_ends_well(spawn(try_in_child, crowd)); /* recovers the dead for want of a slot */
	assert_int_equal(w32_load(&crowd->served), 3);
	unshare_memory(crowd, sizeof(*crowd));
	close_place(&p);
}

/* A thread that leaves past its destructors dies inside a process that lives. */
static void *leave_raw(void *arg)
{
	struct busy *busy = arg;
	struct shoal_load *load;
	struct shoal_value value;

	if (shoal_begin(busy->p->k, STR("raw"), &load, &value) == SHOAL_LEAD)
		post(&busy->running);
	syscall(SYS_exit, 0);
	return NULL;
}

static int wait_for_the_raw(void *arg)
{
	struct place *p = arg;
	struct busy busy = {.p = p};
	struct shoal_load *load;
	struct shoal_value value;
	pthread_t thread;
	int i, r;

	for (i = 0; i < 20; i++) {
		must(!pthread_create(&thread, NULL, leave_raw, &busy));
		must(await(&busy.running, (uint32_t)i + 1));
		r = shoal_begin(p->k, STR("raw"), &load, &value);
		if (r == SHOAL_WAIT)
			r = shoal_wait(load, PATIENCE_S * 1000, &value);
		must(r == SHOAL_LEAD);
		shoal_load_cancel(load);
		pthread_detach(thread);
	}
	return 0;
}

static void a_thread_dies_raw(void **state)
{
	struct place *p = *state;

	if (UNDER_TSAN) {
		skipped("threads that leave past their destructors are beyond ThreadSanitizer");
		return;
	}
	assert_ends_well(spawn(wait_for_the_raw, p));
}

/* ---- values in hand ---------------------------------------------------------------------------------------- */

struct hand {
	struct place *p;
	struct shoal_value value;
	word32 has, leave;
};

static void *take_and_leave(void *arg)
{
	struct hand *hand = arg;

	shoal_get(hand->p->k, STR("a"), &hand->value);
	return NULL;
}

static void *take_and_stay(void *arg)
{
	struct hand *hand = arg;

	shoal_get(hand->p->k, STR("a"), &hand->value);
	post(&hand->has);
	await(&hand->leave, 1);
	return NULL;
}

static void overwrite_all(struct place *p)
{
	static const char big[20000];
	int key;

	for (key = 0; key < 2000; key++)
		assert_int_equal(shoal_set(p->k, &key, sizeof(key), big, sizeof(big)), SHOAL_OK);
	assert_true(stats_of(p->cache).evicted_extents > 100);
}

static void a_value_outlives_its_thread(void **state)
{
	struct place *p = *state;
	struct hand hand = {.p = p};

	assert_set(p->k, "a", "in hand");
	pthread_join(start(take_and_leave, &hand), NULL);
	assert_int_equal(stats_of(p->cache).threads, 2); /* its slot holds the pin */
	overwrite_all(p);
	assert_true(holds(&hand.value, "in hand"));
	shoal_release(&hand.value);
	assert_int_equal(stats_of(p->cache).threads, 1);
	assert_int_equal(stats_of(p->cache).pins, 0);
}

static unsigned mappings(void)
{
	char line[4096];
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, "memfd:shoal") != NULL;
	if (f)
		fclose(f);
	return n;
}

static void a_value_outlives_its_handle(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct shoal_value one, two;

	assert_set(p.k, "a", "in hand");
	assert_int_equal(shoal_get(p.k, STR("a"), &one), SHOAL_OK);
	assert_int_equal(shoal_get(p.k, STR("a"), &two), SHOAL_OK);
	close_place(&p);
	assert_true(holds(&one, "in hand") && holds(&two, "in hand"));
	shoal_release(&one);
	assert_true(holds(&two, "in hand"));
	assert_true(mappings() > 0);
	shoal_release(&two);
	assert_int_equal(mappings(), 0);
}

static void a_value_outlives_handle_and_thread(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct hand stays = {.p = &p}, left = {.p = &p};
	pthread_t thread;

	assert_set(p.k, "a", "in hand");
	pthread_join(start(take_and_leave, &left), NULL);
	thread = start(take_and_stay, &stays);
	assert_true(await(&stays.has, 1));
	close_place(&p);
	assert_true(holds(&left.value, "in hand") && holds(&stays.value, "in hand"));
	shoal_release(&left.value);
	post(&stays.leave);
	pthread_join(thread, NULL);
	assert_true(holds(&stays.value, "in hand"));
	shoal_release(&stays.value);
	assert_int_equal(mappings(), 0);
}

/* The alive words stay for threads that used the handle, and go with the last of them. */
static void close_before_the_threads_leave(void **state)
{
	struct crowd crowd = {0};
	pthread_t threads[4];
	struct place p;
	int round, i;

	for (round = 0; round < 50; round++) {
		p = open_place(NULL, NULL);
		crowd = (struct crowd){.p = &p};
		assert_set(p.k, "a", "x");
		for (i = 0; i < 4; i++)
			threads[i] = start(try_in_crowd, &crowd);
		assert_true(await(&crowd.arrived, 4));
		assert_int_equal(w32_load(&crowd.fetched), 4);
		close_place(&p);
		assert_int_equal(mappings(), 1);
		post(&crowd.leave);
		for (i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(mappings(), 0);
	}
}

struct relay {
	struct place *p[2];
	word32 turn, done;
	bool right;
};

static void *use_one_then_the_other(void *arg)
{
	struct relay *relay = arg;

	relay->right = can_set(relay->p[0]->k, 1);
	post(&relay->done);
	await(&relay->turn, 1);
	relay->right &= can_set(relay->p[1]->k, 1);
	return NULL;
}

/* A thread goes on with another handle after one it used was closed by another thread. */
static void a_thread_changes_handles(void **state)
{
	struct place one = open_place(NULL, NULL), two;
	struct relay relay = {.p = {&one, &two}};
	pthread_t thread = start(use_one_then_the_other, &relay);

	assert_true(await(&relay.done, 1));
	close_place(&one);
	two = open_place(NULL, NULL);
	post(&relay.turn);
	pthread_join(thread, NULL);
	assert_true(relay.right);
	close_place(&two);
	assert_int_equal(mappings(), 0);
}

/* ---- across fork ------------------------------------------------------------------------------------------- */

struct family {
	struct place *p;
	struct shoal_value value;
	struct shoal_load *led, *waited, *dropped, *reserved;
};

static int handle_the_parents(void *arg)
{
	struct family *f = arg;
	struct shoal_value value;

	must(holds(&f->value, "in hand"));
	shoal_release(&f->value);
	must(!f->value.data);
	must(can_set(f->p->k, 5));
	must(shoal_load_renew(f->led) == SHOAL_ERR_SUPERSEDED);
	must(!shoal_load_reserve(f->led, 10));
	must(shoal_load_publish(f->led, "child's", 7) == SHOAL_ERR_SUPERSEDED);
	must(shoal_wait(f->waited, 0, &value) == SHOAL_ERR_SUPERSEDED && !value.data);
	shoal_load_cancel(f->waited);
	shoal_load_cancel(f->dropped);
	must(shoal_load_commit(f->reserved, 6) == SHOAL_ERR_SUPERSEDED);
	must(shoal_begin(f->p->k, STR("led"), &f->led, &value) == SHOAL_WAIT);
	shoal_load_cancel(f->led);
	return 0;
}

static int drop_the_parents_unjoined(void *arg)
{
	struct family *f = arg;

	shoal_release(&f->value);
	must(shoal_load_fail(f->led, 1) == SHOAL_ERR_SUPERSEDED);
	shoal_load_cancel(f->waited);
	shoal_load_cancel(f->reserved);
	return 0;
}

static int close_then_drop_the_parents(void *arg)
{
	struct family *f = arg;

	must(can_set(f->p->k, 5));
	shoal_close(f->p->cache);
	shoal_release(&f->value);
	return 0;
}

static int close_unjoined_then_drop_the_parents(void *arg)
{
	struct family *f = arg;

	shoal_close(f->p->cache);
	shoal_release(&f->value);
	return 0;
}

/* A child's release, publish, cancel of what the parent has in hand leave the parent's alone. */
static void what_is_in_hand_stays_the_parents(void **state)
{
	int (*const bodies[])(void *) = {handle_the_parents, drop_the_parents_unjoined, close_then_drop_the_parents,
	                                 close_unjoined_then_drop_the_parents};
	struct place *p = *state;
	struct family f = {.p = p};
	struct shoal_value none;
	size_t i;

	assert_set(p->k, "a", "in hand");
	assert_int_equal(shoal_get(p->k, STR("a"), &f.value), SHOAL_OK);
	assert_int_equal(shoal_begin(p->k, STR("led"), &f.led, &none), SHOAL_LEAD);
	assert_int_equal(shoal_begin(p->k, STR("led"), &f.waited, &none), SHOAL_WAIT);
	assert_int_equal(shoal_begin(p->k, STR("dropped"), &f.dropped, &none), SHOAL_LEAD);
	assert_int_equal(shoal_begin(p->k, STR("reserved"), &f.reserved, &none), SHOAL_LEAD);
	memcpy(shoal_load_reserve(f.reserved, 6), "parent", 6);
	for (i = 0; i < COUNT(bodies); i++)
		assert_ends_well(spawn(bodies[i], &f));
	shoal_reap(p->cache);
	assert_int_equal(stats_of(p->cache).pins, 2);
	assert_int_equal(stats_of(p->cache).flights, 3);
	overwrite_all(p);
	assert_true(holds(&f.value, "in hand"));
	shoal_release(&f.value);
	assert_int_equal(shoal_load_publish(f.led, "x", 1), SHOAL_OK);
	assert_int_equal(shoal_wait(f.waited, 0, &none), SHOAL_OK);
	assert_true(holds(&none, "x"));
	shoal_release(&none);
	assert_int_equal(shoal_load_publish(f.dropped, "x", 1), SHOAL_OK);
	assert_int_equal(shoal_load_commit(f.reserved, 6), SHOAL_OK);
	assert_gives(p->k, "reserved", "parent");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(children_and_theirs_join),
		CASE(a_child_may_be_the_first),
		CASE(a_child_may_have_threads),
		CASE(a_raw_clone_joins),
		CASE(a_child_closes_its_own),
		cmocka_unit_test(many_children_come_and_go),
		CASE(fork_while_others_read),
		CASE(fork_while_others_come_and_go),
		CASE(fork_while_others_close),
		CASE(threads_with_handles_of_their_own),
		cmocka_unit_test(exit_returns_the_slot),
		cmocka_unit_test(more_threads_than_slots),
		cmocka_unit_test(more_processes_than_slots),
		CASE(a_thread_dies_raw),
		CASE(a_value_outlives_its_thread),
		cmocka_unit_test(a_value_outlives_its_handle),
		cmocka_unit_test(a_value_outlives_handle_and_thread),
		cmocka_unit_test(close_before_the_threads_leave),
		cmocka_unit_test(a_thread_changes_handles),
		CASE(what_is_in_hand_stays_the_parents),
	};

	return cmocka_run_group_tests_name("join", tests, NULL, NULL);
}
