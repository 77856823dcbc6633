/* SPDX-License-Identifier: MIT */
/*
 * The flights of a key, arrow by arrow. Holds F.1 (at most one COMPUTING within its lease: in a race), F.2 (each step
 * of a leader is from its own leadership), F.4 (a dead leader is replaced, a slow one passed by) and F.6 (words beside
 * the flight's only rise: who wakes up late changes nothing).
 */
#include <pthread.h>

#include "inside.h"

enum { LEASE = 1000, NOW = 1000000 };

static int set_up(void **state)
{
	static struct inside in;

	in = go_inside(&(struct shoal_config){.size = 1 << 20, .max_flights = 64});
	*state = &in;
	return 0;
}

static int tear_down(void **state)
{
	struct inside *in = *state;

	assert_int_equal(w32_load(&in->seat->loads), 0);
	close_place(&in->p);
	return 0;
}

static struct flight_key key_of(const struct inside *in, const char *text)
{
	struct key key = make_key(in, text);

	return store_flight_key(in->s, &key);
}

static enum flight_outcome claim(struct inside *in, const char *text, uint64_t now, struct ticket *t, int *error)
{
	struct flight_key fk = key_of(in, text);

	w64_store(&in->p.clock->ns, now * 1000000);
	return flight_claim(in->seat, &fk, now, LEASE, t, error);
}

#define assert_claims(in, text, now, t, outcome) assert_int_equal(claim(in, text, now, t, &(int){0}), outcome)

/* The end of a leadership, as load.c ends it. */
static bool end(struct inside *in, const struct ticket *t, enum flight_state to)
{
	bool r = flight_end(in->seat, t, to);

	w32_sub(&in->seat->loads, 1);
	return r;
}

static enum flight_state state_of(const struct inside *in, const struct ticket *t)
{
	return FLIGHT_STATE(w64_load(&in->s->flight_words[t->slot]));
}

static void claim_join_end(void **state)
{
	struct inside *in = *state;
	struct ticket one, two, other;
	uint64_t oldest;

	assert_claims(in, "a", NOW, &one, OUTCOME_LEAD);
	assert_int_equal(state_of(in, &one), FLIGHT_COMPUTING);
	assert_int_equal(w32_load(&in->seat->loads), 1);
	assert_claims(in, "a", NOW, &two, OUTCOME_JOIN);
	assert_int_equal(two.slot, one.slot);
	assert_true(two.word == w64_load(&in->s->flight_words[one.slot]));
	assert_claims(in, "b", NOW, &other, OUTCOME_LEAD);
	assert_int_equal(flight_running(in->s, UINT32_MAX, NOW + 100, &oldest), 2);
	assert_int_equal(oldest, 100);
	assert_true(end(in, &other, FLIGHT_FREE));
	assert_true(end(in, &one, FLIGHT_FREE));
	assert_int_equal(flight_running(in->s, UINT32_MAX, NOW, &oldest), 0);
	assert_false(flight_end(in->seat, &one, FLIGHT_FREE)); /* once */
	assert_claims(in, "a", NOW, &two, OUTCOME_LEAD);
	assert_true(end(in, &two, FLIGHT_FREE));
}

static void publishing_and_back(void **state)
{
	struct inside *in = *state;
	struct ticket t, waiter;

	assert_claims(in, "a", NOW, &t, OUTCOME_LEAD);
	assert_true(flight_publishing(in->seat, &t));
	assert_int_equal(state_of(in, &t), FLIGHT_PUBLISHING);
	assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
	assert_false(flight_renew(in->seat, &t, NOW, LEASE)); /* of one that computes only */
	assert_true(flight_unpublish(in->seat, &t));
	assert_int_equal(state_of(in, &t), FLIGHT_COMPUTING);
	assert_false(flight_unpublish(in->seat, &t));
	assert_true(flight_publishing(in->seat, &t));
	assert_true(end(in, &t, FLIGHT_FREE));
}

static void one_who_gave_up_is_followed(void **state)
{
	struct inside *in = *state;
	struct ticket t, waiter, heir;

	assert_claims(in, "a", NOW, &t, OUTCOME_LEAD);
	assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
	flight_join(in->s, &waiter, 1);
	assert_true(end(in, &t, FLIGHT_ORPHAN));
	assert_int_equal(state_of(in, &t), FLIGHT_ORPHAN);
	assert_claims(in, "a", NOW, &heir, OUTCOME_TAKEOVER);
	flight_join(in->s, &waiter, -1);
	assert_int_equal(heir.slot, t.slot);
	assert_true(heir.token != t.token);
	assert_false(flight_publishing(in->seat, &t));
	assert_true(end(in, &heir, FLIGHT_ORPHAN)); /* nobody waits any more */
	assert_int_equal(state_of(in, &heir), FLIGHT_FREE);
}

static void a_lease_ends(void **state)
{
	struct inside *in = *state;
	struct ticket slow, heir, third;

	assert_claims(in, "a", NOW, &slow, OUTCOME_LEAD);
	assert_claims(in, "a", NOW + LEASE - 1, &heir, OUTCOME_JOIN);
	assert_true(flight_renew(in->seat, &slow, NOW + LEASE - 1, LEASE));
	assert_claims(in, "a", NOW + 2 * LEASE - 4, &heir, OUTCOME_JOIN);
	assert_claims(in, "a", NOW + 2 * LEASE + 4, &heir, OUTCOME_LEAD);
	assert_true(heir.slot != slow.slot);
	assert_int_equal(state_of(in, &slow), FLIGHT_OVERDUE);
	assert_false(flight_renew(in->seat, &slow, NOW + 2 * LEASE, LEASE));
	assert_claims(in, "a", NOW + 2 * LEASE + 4, &third, OUTCOME_JOIN);
	assert_int_equal(third.slot, heir.slot);
	assert_true(flight_publishing(in->seat, &slow)); /* F.4: it may still */
	assert_true(end(in, &slow, FLIGHT_FREE));
	assert_int_equal(state_of(in, &heir), FLIGHT_COMPUTING);
	assert_true(end(in, &heir, FLIGHT_FREE));
}

static void a_slow_publisher_is_passed_by(void **state)
{
	struct inside *in = *state;
	struct ticket slow, heir;

	assert_claims(in, "a", NOW, &slow, OUTCOME_LEAD);
	assert_true(flight_publishing(in->seat, &slow));
	assert_claims(in, "a", NOW + LEASE + 4, &heir, OUTCOME_LEAD);
	assert_int_equal(state_of(in, &slow), FLIGHT_PUBLISHING);
	assert_true(end(in, &heir, FLIGHT_FREE));
	assert_true(end(in, &slow, FLIGHT_FREE));
}

static void failures_are_remembered(void **state)
{
	struct inside *in = *state;
	struct ticket t, waiter, again;
	int error = 99;

	assert_claims(in, "a", NOW, &t, OUTCOME_LEAD);
	assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
	assert_false(flight_error(in->s, &waiter, &error));
	assert_true(flight_fail(in->seat, &t, -7, NOW, 100));
	w32_sub(&in->seat->loads, 1);
	assert_true(flight_error(in->s, &waiter, &error));
	assert_int_equal(error, -7);
	error = 99;
	assert_int_equal(claim(in, "a", NOW + 80, &again, &error), OUTCOME_FAILED);
	assert_int_equal(error, -7);
	assert_claims(in, "a", NOW + 120, &again, OUTCOME_LEAD);
	assert_true(end(in, &again, FLIGHT_FREE));
}

static void what_is_uncacheable_is_remembered(void **state)
{
	struct inside *in = *state;
	struct ticket t, waiter;
	int error;

	assert_claims(in, "a", NOW, &t, OUTCOME_LEAD);
	assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
	assert_true(flight_refuse(in->seat, &t, NOW + 100));
	w32_sub(&in->seat->loads, 1);
	assert_false(flight_error(in->s, &waiter, &error));
	assert_claims(in, "a", NOW + 50, &waiter, OUTCOME_UNCACHEABLE);
	assert_claims(in, "a", NOW + 104, &t, OUTCOME_LEAD);
	assert_true(end(in, &t, FLIGHT_FREE));
}

static void detached_is_superseded(void **state)
{
	struct inside *in = *state;
	struct flight_key fk = key_of(in, "a"), other = key_of(in, "b");
	struct flight_seen seen = {.below = UINT64_MAX}, late;
	struct ticket t, next;
	uint32_t cursor = 0;

	assert_claims(in, "a", NOW, &t, OUTCOME_LEAD);
	flight_drew(in->seat, &t, segment_draw(in->s));
	assert_false(flight_next(in->seat, &other, &(uint32_t){0}, &seen));
	seen.below = segment_draw(in->s);
	assert_true(flight_next(in->seat, &fk, &cursor, &seen));
	assert_int_equal(seen.slot, t.slot);
	assert_true(seen.older);
	assert_false(seen.publishing);
	late = seen;
	assert_true(flight_detach(in->s, &seen));
	assert_false(flight_detach(in->s, &late));
	assert_false(flight_next(in->seat, &fk, &(uint32_t){0}, &seen));
	assert_claims(in, "a", NOW, &next, OUTCOME_LEAD);
	assert_int_equal(next.slot, t.slot);
	assert_false(flight_detach(in->s, &late));
	assert_false(flight_publishing(in->seat, &t));
	assert_false(end(in, &t, FLIGHT_FREE));
	assert_int_equal(state_of(in, &next), FLIGHT_COMPUTING);
	assert_true(end(in, &next, FLIGHT_FREE));
}

/* A leader that was stopped and superseded wakes up, and says all it can to a slot that has another leader now. */
static void late_words_change_nothing(void **state)
{
	struct inside *in = *state;
	struct flight_key fk = key_of(in, "a");
	struct flight_seen seen = {.below = UINT64_MAX};
	struct ticket late, now, waiter;
	uint64_t word, lease, generation;
	struct flight *f;
	int error;

	assert_claims(in, "a", NOW, &late, OUTCOME_LEAD);
	assert_true(flight_next(in->seat, &fk, &(uint32_t){0}, &seen));
	assert_true(flight_detach(in->s, &seen));
	assert_claims(in, "a", NOW + 5, &now, OUTCOME_LEAD);
	assert_int_equal(now.slot, late.slot);
	flight_drew(in->seat, &now, 77);
	assert_claims(in, "a", NOW + 5, &waiter, OUTCOME_JOIN);
	f = &in->s->flights[now.slot];
	word = w64_load(&in->s->flight_words[now.slot]);
	lease = w64_load(&f->lease);
	generation = w64_load(&f->generation);
	assert_false(flight_renew(in->seat, &late, NOW + 100000, LEASE));
	flight_drew(in->seat, &late, 12345);
	assert_false(flight_refuse(in->seat, &late, NOW + 1000000));
	assert_false(flight_fail(in->seat, &late, 5, NOW + 100000, 100000));
	assert_false(flight_publishing(in->seat, &late));
	assert_false(flight_unpublish(in->seat, &late));
	assert_false(end(in, &late, FLIGHT_ORPHAN));
	assert_true(w64_load(&in->s->flight_words[now.slot]) == word);
	assert_true(w64_load(&f->lease) == lease && w64_load(&f->generation) == generation);
	assert_false(flight_error(in->s, &waiter, &error));
	assert_true(flight_fail(in->seat, &now, 6, NOW + 5, 100)); /* its own code and time, not the late one's */
	w32_sub(&in->seat->loads, 1);
	assert_true(flight_error(in->s, &waiter, &error));
	assert_int_equal(error, 6);
	assert_claims(in, "a", NOW + 5 + 120, &now, OUTCOME_LEAD);
	assert_true(end(in, &now, FLIGHT_FREE));
}

static void a_full_window(void **state)
{
	struct inside in = go_inside(&(struct shoal_config){.size = 1 << 20, .max_flights = 4});
	const char *const names[] = {"a", "b", "c", "d"};
	struct ticket t[4], more;
	int i;

	for (i = 0; i < 4; i++)
		assert_claims(&in, names[i], NOW, &t[i], OUTCOME_LEAD);
	assert_claims(&in, "e", NOW, &more, OUTCOME_FULL);
	assert_int_equal(w32_load(&in.seat->loads), 4);
	assert_true(flight_fail(in.seat, &t[1], 1, NOW, 1000));
	assert_true(flight_fail(in.seat, &t[2], 1, NOW, 5000));
	w32_sub(&in.seat->loads, 2);
	assert_claims(&in, "e", NOW, &t[1], OUTCOME_LEAD); /* in the place of what would be forgotten first */
	assert_claims(&in, "c", NOW, &more, OUTCOME_FAILED);
	assert_claims(&in, "f", NOW, &t[2], OUTCOME_LEAD);
	assert_claims(&in, "g", NOW, &more, OUTCOME_FULL);
	for (i = 0; i < 4; i++)
		assert_true(end(&in, &t[i], FLIGHT_FREE));
	close_place(&in.p);
}

/* ---- the dead ---------------------------------------------------------------------------------------------- */

struct victim {
	struct inside *in;
	bool publishing;
	word32 ready;
};

static int claim_and_stay(void *arg)
{
	struct victim *v = arg;
	struct inside in = *v->in;
	struct flight_key fk;
	struct ticket t;
	int r;

	in.seat = handle_enter(in.p.cache, &r);
	must(in.seat);
	fk = key_of(&in, "a");
	must(flight_claim(in.seat, &fk, NOW, LEASE, &t, &r) == OUTCOME_LEAD);
	must(!v->publishing || flight_publishing(in.seat, &t));
	post(&v->ready);
	for (;;)
		pause();
	return 0;
}

static void a_dead_leader_is_replaced(void **state)
{
	struct inside *in = *state;
	struct victim *v = share(sizeof(*v));
	struct ticket waiter, heir;
	pid_t pid;
	int i;

	v->in = in;
	for (i = 0; i < 2; i++) {
		v->publishing = i;
		w32_store(&v->ready, 0);
		pid = spawn(claim_and_stay, v);
		assert_true(await(&v->ready, 1));
		assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
		kill_child(pid);
		/* one that was PUBLISHING may have been passed by: it is ended, not taken over in place */
		assert_claims(in, "a", NOW, &heir, i ? OUTCOME_LEAD : OUTCOME_TAKEOVER);
		assert_true(end(in, &heir, FLIGHT_FREE));
		assert_int_equal(shoal_reap(in->p.cache), 1);
	}
	unshare_memory(v, sizeof(*v));
}

static void recovery_leaves_an_orphan_to_the_waiters(void **state)
{
	struct inside *in = *state;
	struct victim *v = share(sizeof(*v));
	struct ticket waiter, heir;
	pid_t pid;
	int i;

	v->in = in;
	for (i = 0; i < 2; i++) {
		w32_store(&v->ready, 0);
		pid = spawn(claim_and_stay, v);
		assert_true(await(&v->ready, 1));
		assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
		if (i)
			flight_join(in->s, &waiter, 1);
		kill_child(pid);
		assert_int_equal(shoal_reap(in->p.cache), 1);
		assert_int_equal(state_of(in, &waiter), i ? FLIGHT_ORPHAN : FLIGHT_FREE);
		assert_claims(in, "a", NOW, &heir, i ? OUTCOME_TAKEOVER : OUTCOME_LEAD);
		assert_true(end(in, &heir, FLIGHT_FREE));
	}
	unshare_memory(v, sizeof(*v));
}

static void the_overdue_dead_are_freed(void **state)
{
	struct inside *in = *state;
	struct victim *v = share(sizeof(*v));
	struct ticket waiter, heir;
	pid_t pid;

	v->in = in;
	pid = spawn(claim_and_stay, v);
	assert_true(await(&v->ready, 1));
	assert_claims(in, "a", NOW, &waiter, OUTCOME_JOIN);
	assert_claims(in, "a", NOW + LEASE + 4, &heir, OUTCOME_LEAD);
	assert_int_equal(state_of(in, &waiter), FLIGHT_OVERDUE);
	kill_child(pid);
	assert_claims(in, "a", NOW + LEASE + 4, &(struct ticket){0}, OUTCOME_JOIN);
	assert_int_equal(shoal_reap(in->p.cache), 1);
	assert_int_equal(state_of(in, &waiter), FLIGHT_FREE);
	assert_true(end(in, &heir, FLIGHT_FREE));
	unshare_memory(v, sizeof(*v));
}

/* ---- races ------------------------------------------------------------------------------------------------- */

enum { RACERS = 4, ROUNDS = 3000 };

struct race {
	struct inside *in;
	word32 leaders, most, led, joined;
	word32 start;
};

static void *race(void *arg)
{
	struct race *race = arg;
	struct inside in = *race->in;
	struct flight_key fk[2];
	struct ticket t;
	int i, error;

	in.seat = handle_enter(in.p.cache, &error);
	handle_leave();
	if (!in.seat)
		return NULL;
	fk[0] = key_of(&in, "a");
	fk[1] = key_of(&in, "b"); /* passes by */
	meet(&race->start, RACERS);
	for (i = 0; i < ROUNDS; i++) {
		if (i % 8 == 0 && flight_claim(in.seat, &fk[1], NOW, LEASE, &t, &error) == OUTCOME_LEAD) {
			flight_end(in.seat, &t, FLIGHT_FREE);
			w32_sub(&in.seat->loads, 1);
		}
		switch (flight_claim(in.seat, &fk[0], NOW, LEASE, &t, &error)) {
		case OUTCOME_LEAD:
			w32_max(&race->most, w32_add(&race->leaders, 1) + 1);
			w32_add(&race->led, 1);
			w32_sub(&race->leaders, 1);
			flight_end(in.seat, &t, FLIGHT_FREE);
			w32_sub(&in.seat->loads, 1);
			break;
		case OUTCOME_JOIN:
			w32_add(&race->joined, 1);
			break;
		default:
			w32_max(&race->most, 99);
		}
	}
	return NULL;
}

static void one_leads_at_a_time(void **state)
{
	struct race r = {.in = *state};
	pthread_t threads[RACERS];
	int i;

	for (i = 0; i < RACERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race, &r), 0);
	for (i = 0; i < RACERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(w32_load(&r.most), 1);
	assert_int_equal(w32_load(&r.led) + w32_load(&r.joined), RACERS * ROUNDS);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(claim_join_end),
		CASE(publishing_and_back),
		CASE(one_who_gave_up_is_followed),
		CASE(a_lease_ends),
		CASE(a_slow_publisher_is_passed_by),
		CASE(failures_are_remembered),
		CASE(what_is_uncacheable_is_remembered),
		CASE(detached_is_superseded),
		CASE(late_words_change_nothing),
		cmocka_unit_test(a_full_window),
		CASE(a_dead_leader_is_replaced),
		CASE(recovery_leaves_an_orphan_to_the_waiters),
		CASE(the_overdue_dead_are_freed),
		CASE(one_leads_at_a_time),
	};

	return cmocka_run_group_tests_name("flight", tests, NULL, NULL);
}
