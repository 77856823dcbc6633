/* SPDX-License-Identifier: MIT */
/*
 * Announcements and the reclaimer's scan (rcu.h): what any live reader announces is held, in each of its words, and
 * nothing else is; so an extent is reused only after the last of them is cleared.
 */
#include <pthread.h>

#include "extents.h"
#include "inside.h"

static bool held(const struct inside *in, unsigned from_word, uint32_t x)
{
	bool answer[3] = {false};

	assert_int_equal(rcu_announced(in->s, in->seat, from_word, (uint32_t[]){x + 1, x, x + 2}, 3, answer), SHOAL_OK);
	assert_false(answer[0]);
	assert_false(answer[2]);
	return answer[1];
}

static void each_word_is_seen(void **state)
{
	struct inside in = go_inside(&(struct shoal_config){.size = 1 << 20});
	unsigned w;

	assert_false(held(&in, READING, 5));
	for (w = 0; w < READER_WORDS; w++) {
		rcu_announce(in.seat, w, 5);
		assert_int_equal(held(&in, READING, 5), w != WALKING); /* its own walk doesn't hold it up */
		assert_int_equal(held(&in, WRITING, 5), w >= WRITING && w != WALKING);
		rcu_clear(in.seat, w);
		assert_false(held(&in, READING, 5));
	}
	assert_true(is_clear(in.seat));
	close_place(&in.p);
}

static void pins_run_out(void **state)
{
	struct inside in = go_inside(&(struct shoal_config){.size = 1 << 20});
	unsigned i, pin;

	for (i = PINS; i < READER_WORDS; i++) {
		pin = rcu_free_pin(in.seat);
		assert_in_range(pin, PINS, READER_WORDS - 1);
		rcu_announce(in.seat, pin, i);
	}
	assert_int_equal(rcu_free_pin(in.seat), 0);
	rcu_clear(in.seat, PINS + 3);
	assert_int_equal(rcu_free_pin(in.seat), PINS + 3);
	for (i = PINS; i < READER_WORDS; i++)
		rcu_clear(in.seat, i);
	close_place(&in.p);
}

struct other {
	struct inside *in;
	word32 here, go;
	bool walk;
};

static void *announce_and_stay(void *arg)
{
	struct other *o = arg;
	struct seat *seat = take_seat(o->in->p.cache);

	rcu_announce(seat, o->walk ? WALKING : READING, 7);
	post(&o->here);
	await(&o->go, 1);
	rcu_clear(seat, o->walk ? WALKING : READING);
	post(&o->here);
	await(&o->go, 2);
	return NULL;
}

static void other_threads_are_seen(void **state)
{
	struct inside in = go_inside(&(struct shoal_config){.size = 1 << 20});
	struct other o;
	pthread_t thread;
	int i;

	for (i = 0; i < 2; i++) {
		o = (struct other){.in = &in, .walk = i};
		assert_int_equal(pthread_create(&thread, NULL, announce_and_stay, &o), 0);
		assert_true(await(&o.here, 1));
		assert_true(held(&in, READING, 7));
		assert_int_equal(held(&in, WRITING, 7), i);
		post(&o.go);
		assert_true(await(&o.here, 2));
		assert_false(held(&in, READING, 7));
		post(&o.go);
		pthread_join(thread, NULL);
	}
	close_place(&in.p);
}

static int announce_and_die(void *arg)
{
	struct other *o = arg;
	int r;
	struct seat *seat = handle_enter(o->in->p.cache, &r);

	must(seat);
	rcu_announce(seat, READING, 9);
	rcu_announce(seat, PINS + 1, 9);
	post(&o->here);
	for (;;)
		pause();
	return 0;
}

/* The dead hold an extent until they are recovered. */
static void the_dead_are_cleared(void **state)
{
	struct inside in = go_inside(&(struct shoal_config){.size = 1 << 20});
	struct other *o = share(sizeof(*o));
	pid_t pid;

	o->in = &in;
	pid = spawn(announce_and_die, o);
	assert_true(await(&o->here, 1));
	assert_true(held(&in, READING, 9));
	assert_true(held(&in, WRITING, 9));
	kill_child(pid);
	assert_int_equal(shoal_reap(in.p.cache), 1);
	assert_false(held(&in, READING, 9));
	unshare_memory(o, sizeof(*o));
	close_place(&in.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_word_is_seen),
		cmocka_unit_test(pins_run_out),
		cmocka_unit_test(other_threads_are_seen),
		cmocka_unit_test(the_dead_are_cleared),
	};

	return cmocka_run_group_tests_name("rcu", tests, NULL, NULL);
}
