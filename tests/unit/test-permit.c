/* SPDX-License-Identifier: MIT */
/*
 * Permits, by the invariants of permit.c: bounds (Q.1), leases (Q.2), late steps (Q.3), who is told (Q.4), who is in
 * the way (Q.5), and the order.
 *
 * Most cases are scripted, by one thread with many tickets and a clock that stands still unless it is told to pass.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>

#include "testing.h"

#include "handle.h"
#include "permit.h"

#if UNDER_TSAN || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define LEASE_MS 60000u
#define FOR_EVER (clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS)

struct hall {
	struct shoal *cache;
	struct member *m;
	const struct segment *s;
	struct seat *seat;
	struct test_clock *clock; /* NULL: the system's */
};

static struct seat *sit(struct shoal *cache)
{
	int error;
	struct seat *seat = handle_enter(cache, &error);

	if (seat)
		handle_leave();
	return seat;
}

static struct hall open_hall(unsigned max_loads, unsigned nodes, bool real_time)
{
	struct shoal_config c = {.size = 4 << 20, .max_threads = nodes, .max_loads = max_loads};
	struct hall h = {0};

	if (!real_time) {
		h.clock = share(sizeof(struct test_clock));
		w64_store(&h.clock->ns, 1000 * SECOND_NS);
		c.clock = test_clock_read;
		c.clock_arg = h.clock;
	}
	assert_int_equal(shoal_open(NULL, &c, &h.cache), SHOAL_OK);
	h.seat = sit(h.cache);
	assert_non_null(h.seat);
	h.m = h.seat->member;
	h.s = &h.m->segment;
	return h;
}

static uint32_t nodes_in(const struct segment *s, enum permit_state state)
{
	uint32_t i, n = 0;

	for (i = 0; i < s->geometry.readers; i++)
		n += PERMIT_STATE(w64_load(&s->permits[i].word)) == state;
	return n;
}

/* Nothing is left behind, in the table or in the seat. */
static void close_hall(struct hall *h)
{
	assert_int_equal(nodes_in(h->s, PERMIT_FREE), h->s->geometry.readers);
	assert_int_equal(w32_load(&h->seat->loads), 0);
	shoal_close(h->cache);
	if (h->clock)
		unshare_memory(h->clock, sizeof(struct test_clock));
}

static enum permit_outcome ask(struct hall *h, uint32_t keyspace, uint32_t bound, struct permit_ticket *t)
{
	return permit_try(h->seat, &(struct permit_request){keyspace, bound, LEASE_MS}, t);
}

#define assert_granted(outcome) assert_int_equal(outcome, PERMIT_GRANTED)
#define assert_waits(outcome) assert_int_equal(outcome, PERMIT_WAIT)
#define assert_returned(t) assert_true(permit_return(t))

/* How many of n tickets have been told to look. */
static unsigned told(const struct permit_ticket *t, unsigned n)
{
	unsigned i, count = 0;

	for (i = 0; i < n; i++)
		count += permit_is_kicked(&t[i]);
	return count;
}

/* ---- order ------------------------------------------------------------------------------------------------- */

static void first_come_first_served(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket t[20];
	unsigned i, j;

	assert_granted(ask(&h, 1, 0, &t[0]));
	for (i = 1; i < COUNT(t); i++)
		assert_waits(ask(&h, 1, 0, &t[i]));
	assert_int_equal(told(t + 1, COUNT(t) - 1), 0);
	for (i = 0; i < COUNT(t); i++) {
		assert_int_equal(permit_held(h.s, UINT32_MAX), 1);
		assert_returned(&t[i]);
		if (i + 1 == COUNT(t))
			break;
		assert_int_equal(told(t + i + 1, COUNT(t) - i - 1), 1); /* Q.4: that one alone */
		assert_true(permit_is_kicked(&t[i + 1]));
		for (j = COUNT(t) - 1; j > i + 1; j--)
			assert_waits(permit_poll(&t[j]));
		assert_granted(permit_poll(&t[i + 1]));
	}
	close_hall(&h);
}

/* Nodes are used again in any order: the place in the table says nothing. */
static void order_is_not_of_nodes(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket t[6], late;
	unsigned i;

	assert_granted(ask(&h, 1, 0, &t[0]));
	for (i = 1; i < COUNT(t); i++)
		assert_waits(ask(&h, 1, 0, &t[i]));
	assert_returned(&t[1]);
	assert_waits(ask(&h, 1, 0, &late));
	assert_int_equal(late.node, 1);
	for (i = 0; i < COUNT(t); i++) {
		if (i == 1)
			continue;
		assert_returned(&t[i]);
		if (i + 1 < COUNT(t)) {
			assert_waits(permit_poll(&late));
			assert_granted(permit_poll(&t[i ? i + 1 : 2]));
		}
	}
	assert_granted(permit_poll(&late));
	assert_returned(&late);
	close_hall(&h);
}

static void a_crowd_starves_nobody(void **state)
{
	struct hall h = open_hall(1, 600, false);
	struct permit_ticket crowd[500], single;
	unsigned i, before = 0;

	assert_granted(ask(&h, 1, 0, &crowd[0]));
	for (i = 1; i < COUNT(crowd); i++)
		assert_waits(ask(&h, 1, 0, &crowd[i]));
	for (i = 0; i < 10; i++) { /* some are served; then another keyspace comes */
		assert_returned(&crowd[i]);
		assert_granted(permit_poll(&crowd[i + 1]));
	}
	assert_waits(ask(&h, 2, 0, &single));
	for (i = 10; i < COUNT(crowd); i++) {
		assert_returned(&crowd[i]);
		if (permit_poll(&single) == PERMIT_GRANTED)
			break;
		before++;
		assert_granted(permit_poll(&crowd[i + 1]));
	}
	assert_in_range(before, 0, 1);
	assert_returned(&single);
	for (i = 0; i < COUNT(crowd); i++)
		permit_return(&crowd[i]);
	close_hall(&h);
}

/* Three keyspaces that always have someone waiting are served in turn. */
static void keyspaces_take_turns(void **state)
{
	struct hall h = open_hall(1, 200, false);
	struct permit_ticket t[3][30], *holder;
	unsigned served[3] = {0}, i, k, n;

	for (k = 0; k < 3; k++)
		for (i = 0; i < COUNT(t[k]); i++)
			ask(&h, k, 0, &t[k][i]);
	holder = &t[0][0];
	served[0] = 1;
	for (n = 1; n < 3 * COUNT(t[0]); n++) {
		assert_returned(holder);
		for (k = 0; k < 3; k++)
			if (served[k] < COUNT(t[k]) && permit_poll(&t[k][served[k]]) == PERMIT_GRANTED)
				break;
		assert_in_range(k, 0, 2);
		holder = &t[k][served[k]++];
		for (k = 0; k < 3; k++)
			assert_in_range(served[k] + 1, (n + 1) / 3, (n + 1) / 3 + 3);
	}
	assert_returned(holder);
	close_hall(&h);
}

/* One that slept while another was served has saved no turns up: from when it comes, they take turns. */
static void idle_keyspaces_save_no_turns(void **state)
{
	struct hall h = open_hall(1, 200, false);
	struct permit_ticket busy[60], idle[20], *holder = &busy[0];
	unsigned i, n, of_busy = 0, of_idle = 0;

	for (i = 0; i < COUNT(busy); i++)
		ask(&h, 1, 0, &busy[i]);
	for (i = 1; i < 40; i++) {
		assert_returned(holder);
		holder = &busy[i];
		assert_granted(permit_poll(holder));
	}
	for (i = 0; i < COUNT(idle); i++)
		assert_waits(ask(&h, 2, 0, &idle[i]));
	for (n = 0; n < 30; n++) {
		assert_returned(holder);
		if (permit_poll(&idle[of_idle]) == PERMIT_GRANTED) {
			holder = &idle[of_idle++];
		} else {
			holder = &busy[40 + of_busy++];
			assert_granted(permit_poll(holder));
		}
		assert_in_range(of_idle, n / 2, n / 2 + 2);
	}
	assert_returned(holder);
	for (i = 40 + of_busy; i < COUNT(busy); i++)
		assert_returned(&busy[i]);
	for (i = of_idle; i < COUNT(idle); i++)
		assert_returned(&idle[i]);
	close_hall(&h);
}

/* ---- bounds ------------------------------------------------------------------------------------------------ */

/* Who waits for its own keyspace holds up no other. */
static void own_bound_blocks_itself(void **state)
{
	struct hall h = open_hall(3, 64, false);
	struct permit_ticket slow[10], other[3];
	unsigned i;

	assert_granted(ask(&h, 1, 1, &slow[0]));
	for (i = 1; i < COUNT(slow); i++)
		assert_waits(ask(&h, 1, 1, &slow[i]));
	assert_granted(ask(&h, 2, 0, &other[0]));
	assert_granted(ask(&h, 2, 0, &other[1]));
	assert_waits(ask(&h, 2, 0, &other[2]));
	assert_int_equal(permit_held(h.s, 1), 1);
	assert_int_equal(permit_held(h.s, 2), 2);
	assert_int_equal(permit_held(h.s, UINT32_MAX), 3);

	assert_returned(&other[0]); /* the machine has room: for the other keyspace alone */
	assert_int_equal(told(slow + 1, COUNT(slow) - 1), 0);
	assert_granted(permit_poll(&other[2]));
	for (i = 0; i + 1 < COUNT(slow); i++) {
		assert_returned(&slow[i]);
		assert_int_equal(told(slow + i + 1, COUNT(slow) - i - 1), 1);
		assert_granted(permit_poll(&slow[i + 1]));
	}
	assert_returned(&slow[i]);
	assert_returned(&other[1]);
	assert_returned(&other[2]);
	close_hall(&h);
}

static void keyspace_bound_alone(void **state)
{
	struct hall h = open_hall(0, 64, false);
	struct permit_ticket t[4];

	assert_granted(ask(&h, 1, 2, &t[0]));
	assert_granted(ask(&h, 1, 2, &t[1]));
	assert_waits(ask(&h, 1, 2, &t[2]));
	assert_granted(ask(&h, 2, 1, &t[3]));
	assert_returned(&t[1]);
	assert_granted(permit_poll(&t[2]));
	assert_returned(&t[0]);
	assert_returned(&t[2]);
	assert_returned(&t[3]);
	close_hall(&h);
}

static void who_leaves_the_queue_passes_it_on(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket t[4];
	unsigned i;

	assert_granted(ask(&h, 1, 0, &t[0]));
	for (i = 1; i < COUNT(t); i++)
		assert_waits(ask(&h, 1, 0, &t[i]));
	assert_returned(&t[0]);
	assert_true(permit_is_kicked(&t[1]));
	assert_returned(&t[1]); /* Q.4: told, and gone */
	assert_true(permit_is_kicked(&t[2]));
	assert_false(permit_is_kicked(&t[3]));
	assert_granted(permit_poll(&t[2]));
	assert_returned(&t[3]);
	assert_returned(&t[2]);
	assert_false(permit_return(&t[2]));
	close_hall(&h);
}

static void a_full_table(void **state)
{
	struct hall h = open_hall(1, 4, false);
	struct permit_ticket t[4], more;
	unsigned i;

	assert_granted(ask(&h, 1, 0, &t[0]));
	for (i = 1; i < COUNT(t); i++)
		assert_waits(ask(&h, 1, 0, &t[i]));
	assert_int_equal(ask(&h, 1, 0, &more), PERMIT_FULL);
	assert_false(permit_return(&more));
	assert_int_equal(w32_load(&h.seat->loads), 4);
	pass_ms(h.clock, LEASE_MS); /* a holder past its lease makes room */
	assert_waits(ask(&h, 1, 0, &more));
	assert_granted(permit_poll(&t[1]));
	assert_false(permit_return(&t[0]));
	for (i = 1; i < COUNT(t); i++)
		assert_returned(&t[i]);
	assert_returned(&more);
	close_hall(&h);
}

/* ---- leases ------------------------------------------------------------------------------------------------ */

static void a_lease_ends(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket late, heir, next;

	assert_granted(ask(&h, 1, 0, &late));
	assert_waits(ask(&h, 1, 0, &heir));
	pass_ms(h.clock, LEASE_MS - 1);
	assert_waits(permit_poll(&heir));
	pass_ms(h.clock, 1);
	assert_int_equal(permit_held(h.s, UINT32_MAX), 0);
	assert_granted(permit_poll(&heir));
	assert_waits(ask(&h, 1, 0, &next)); /* in the late one's node */
	assert_int_equal(next.node, late.node);

	assert_false(permit_renew(&late, LEASE_MS)); /* Q.3 */
	assert_false(permit_return(&late));
	assert_int_equal(permit_held(h.s, UINT32_MAX), 1);
	assert_waits(permit_poll(&next));
	assert_returned(&heir);
	assert_granted(permit_poll(&next));
	assert_returned(&next);
	close_hall(&h);
}

/* The late one's node has become a holder's again: neither its return nor its renewal touches that. */
static void late_steps_touch_no_successor(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket late, heir;
	uint64_t until;

	assert_granted(ask(&h, 1, 0, &late));
	pass_ms(h.clock, LEASE_MS);
	assert_granted(ask(&h, 2, 0, &heir));
	assert_returned(&heir);
	assert_granted(ask(&h, 2, 0, &heir));
	assert_int_equal(heir.node, late.node);
	until = w64_load(&h.s->permits[heir.node].until);
	assert_false(permit_renew(&late, LEASE_MS * 10));
	assert_false(permit_return(&late));
	assert_true(w64_load(&h.s->permits[heir.node].until) == until);
	assert_returned(&heir);
	close_hall(&h);
}

static void a_renewed_lease_goes_on(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket holder, other;
	int i;

	assert_granted(ask(&h, 1, 0, &holder));
	assert_waits(ask(&h, 1, 0, &other));
	for (i = 0; i < 5; i++) {
		pass_ms(h.clock, LEASE_MS - 1);
		assert_waits(permit_poll(&other));
		assert_true(permit_renew(&holder, LEASE_MS));
	}
	assert_returned(&holder);
	assert_granted(permit_poll(&other));
	pass_ms(h.clock, LEASE_MS);
	assert_true(permit_renew(&other, LEASE_MS)); /* late, but nobody has noticed */
	assert_returned(&other);
	close_hall(&h);
}

/* ---- stopped ----------------------------------------------------------------------------------------------- */

/* A ticket that nobody polls is a stopped process. */
static void stopped_first_in_line(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket holder, stopped, other, third;

	assert_granted(ask(&h, 1, 0, &holder));
	assert_waits(ask(&h, 1, 0, &stopped));
	assert_waits(ask(&h, 1, 0, &other));
	assert_returned(&holder);
	assert_waits(permit_poll(&other));
	assert_int_equal(other.slice_ms, 10); /* there is room: it looks again soon */
	pass_ms(h.clock, 10);
	assert_granted(permit_poll(&other)); /* Q.5 */
	assert_waits(ask(&h, 1, 0, &third));
	assert_returned(&other);
	assert_true(permit_is_kicked(&third)); /* it is known to be stopped */
	assert_granted(permit_poll(&stopped)); /* it goes on, and is first */
	assert_waits(permit_poll(&third));
	assert_returned(&stopped);
	assert_granted(permit_poll(&third));
	assert_returned(&third);
	close_hall(&h);
}

static void stopped_while_taking(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket holder, stopped, other;
	word64 *word;

	assert_granted(ask(&h, 1, 0, &holder));
	assert_waits(ask(&h, 1, 0, &stopped));
	assert_waits(ask(&h, 1, 0, &other));
	word = &h.s->permits[stopped.node].word;
	assert_returned(&holder);
	assert_true(w64_cas(word, stopped.word, (stopped.word & ~(uint64_t)3) | PERMIT_TAKING));
	assert_waits(permit_poll(&other));
	pass_ms(h.clock, 10);
	assert_granted(permit_poll(&other));
	assert_true(w64_load(word) == stopped.word); /* aborted */
	assert_returned(&other);
	assert_granted(permit_poll(&stopped));
	assert_returned(&stopped);
	close_hall(&h);
}

/* ---- dead -------------------------------------------------------------------------------------------------- */

struct victim {
	struct hall *h;
	word32 ready;
	word64 ref;
	enum permit_state to;
};

/* A child that gets that far, and is killed there. */
static int be_victim(void *arg)
{
	struct victim *v = arg;
	struct seat *seat = sit(v->h->cache);
	struct permit_request request = {1, 0, LEASE_MS};
	struct permit_ticket t;
	word64 *word;

	must(seat);
	w64_store(&v->ref, seat->tag | (seat->index + 1));
	must(permit_try(seat, &request, &t) == (v->to == PERMIT_HELD ? PERMIT_GRANTED : PERMIT_WAIT));
	word = &seat->member->segment.permits[t.node].word;
	if (v->to == PERMIT_TAKING)
		must(w64_cas(word, t.word, (t.word & ~(uint64_t)3) | PERMIT_TAKING));
	post(&v->ready);
	for (;;)
		pause();
}

static struct victim *make_victim(struct hall *h, enum permit_state to)
{
	struct victim *v = share(sizeof(*v));
	pid_t pid;

	v->h = h;
	v->to = to;
	pid = spawn(be_victim, v);
	assert_true(await(&v->ready, 1));
	kill_child(pid);
	return v;
}

static void dead_holder(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct victim *v = make_victim(&h, PERMIT_HELD);
	struct permit_ticket t;

	assert_int_equal(permit_held(h.s, UINT32_MAX), 1);
	assert_granted(ask(&h, 1, 0, &t)); /* Q.5: found at once by who is in need */
	assert_returned(&t);
	unshare_memory(v, sizeof(*v));
	close_hall(&h);
}

static void dead_in_line(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct permit_ticket holder, other;
	enum permit_state states[] = {PERMIT_QUEUED, PERMIT_TAKING};
	struct victim *v;
	unsigned i;

	for (i = 0; i < COUNT(states); i++) {
		assert_granted(ask(&h, 1, 0, &holder));
		v = make_victim(&h, states[i]);
		assert_waits(ask(&h, 1, 0, &other));
		assert_returned(&holder);
		assert_granted(permit_poll(&other));
		assert_returned(&other);
		permit_recover(h.m, w64_load(&v->ref));
		unshare_memory(v, sizeof(*v));
	}
	close_hall(&h);
}

static void recovery_returns_all_of_it(void **state)
{
	struct hall h = open_hall(2, 64, false);
	struct permit_ticket t[3];
	struct victim *v = make_victim(&h, PERMIT_HELD);
	uint64_t ref = w64_load(&v->ref);

	assert_granted(ask(&h, 1, 0, &t[0]));
	permit_recover(h.m, ref);
	assert_int_equal(nodes_in(h.s, PERMIT_HELD), 1);
	assert_granted(ask(&h, 1, 0, &t[1]));
	assert_waits(ask(&h, 1, 0, &t[2]));
	permit_recover(h.m, ref); /* Q.3: again, and late */
	assert_int_equal(nodes_in(h.s, PERMIT_HELD), 2);
	assert_int_equal(nodes_in(h.s, PERMIT_QUEUED), 1);
	assert_returned(&t[2]);
	assert_returned(&t[1]);
	assert_returned(&t[0]);
	unshare_memory(v, sizeof(*v));
	close_hall(&h);
}

static void recovery_tells_the_next(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct victim *v = share(sizeof(*v));
	struct permit_ticket t;
	pid_t pid;

	*v = (struct victim){.h = &h, .to = PERMIT_HELD};
	pid = spawn(be_victim, v);
	assert_true(await(&v->ready, 1));
	assert_waits(ask(&h, 1, 0, &t));
	kill_child(pid);
	permit_recover(h.m, w64_load(&v->ref));
	assert_true(permit_is_kicked(&t));
	assert_granted(permit_poll(&t));
	assert_returned(&t);
	unshare_memory(v, sizeof(*v));
	close_hall(&h);
}

struct leaver {
	struct hall *h;
	struct permit_ticket held, queued;
	enum permit_outcome first, second;
};

/* A thread that goes past its destructors, in a process that lives. */
static void *leave_raw(void *arg)
{
	struct leaver *l = arg;
	struct permit_request request = {1, 0, LEASE_MS};
	struct seat *seat = sit(l->h->cache);

	l->first = permit_try(seat, &request, &l->held);
	l->second = permit_try(seat, &request, &l->queued);
	syscall(SYS_exit, 0);
	return NULL;
}

static void dead_thread(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct leaver l = {.h = &h};
	struct permit_ticket t;
	pthread_t thread;

	if (SANITIZED) {
		skipped("a thread can't leave that way under a sanitizer");
		close_hall(&h);
		return;
	}
	assert_int_equal(pthread_create(&thread, NULL, leave_raw, &l), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_granted(l.first);
	assert_waits(l.second);
	assert_granted(ask(&h, 1, 0, &t));
	assert_int_equal(permit_poll(&l.queued), PERMIT_LOST);
	assert_false(permit_return(&l.queued));
	assert_false(permit_return(&l.held));
	assert_returned(&t);
	close_hall(&h);
}

/* ---- killed anywhere --------------------------------------------------------------------------------------- */

static int step_through(void *arg)
{
	struct victim *v = arg;
	struct seat *seat = sit(v->h->cache);
	struct permit_request request = {1, 1, LEASE_MS};
	struct permit_ticket a, b;

	must(seat);
	w64_store(&v->ref, seat->tag | (seat->index + 1));
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 77;
	raise(SIGSTOP);
	must(permit_try(seat, &request, &a) == PERMIT_GRANTED);
	must(permit_try(seat, &request, &b) == PERMIT_WAIT);
	must(permit_return(&a));
	must(permit_poll(&b) == PERMIT_GRANTED);
	must(permit_renew(&b, LEASE_MS));
	must(permit_return(&b));
	return 0;
}

/* What others can see of a permit. */
struct snapshot {
	uint64_t words[4 * 64], turns[2];
	uint32_t used;
};

static struct snapshot snapshot_of(const struct segment *s)
{
	struct snapshot now = {.turns = {w64_load(&s->header->turn), w64_load(&s->keyspaces[1].turn)}};

	now.used = w32_load(&s->header->permits_used);
	memcpy(now.words, s->permits, sizeof(now.words));
	return now;
}

enum { TRACED, ENDED_WELL, REFUSED, FAILED };

/* Step through the child and kill it after its nth change of what others can see: between two changes it makes no
 * difference where. */
static int kill_after(struct victim *v, unsigned n)
{
	struct snapshot last = snapshot_of(v->h->s), now;
	pid_t pid = spawn(step_through, v);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	while (!WIFEXITED(status) && n) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid)
			return FAILED;
		now = snapshot_of(v->h->s);
		n -= memcmp(&now, &last, sizeof(now)) != 0;
		last = now;
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 77 ? REFUSED : WEXITSTATUS(status) ? FAILED : ENDED_WELL;
	kill_child(pid);
	return TRACED;
}

/* Whatever was left, another takes its permit at once, and recovery leaves nothing. */
static void killed_anywhere(void **state)
{
	struct hall h = open_hall(1, 64, false);
	struct victim *v = share(sizeof(*v));
	struct permit_ticket t;
	unsigned n;
	int r;

	v->h = &h;
	for (n = 1; (r = SANITIZED ? REFUSED : kill_after(v, n)) == TRACED; n++) {
		pass_ms(h.clock, 10); /* it may have been told to take */
		if (n % 2)
			permit_recover(h.m, w64_load(&v->ref));
		assert_granted(ask(&h, 1, 1, &t));
		assert_int_equal(permit_held(h.s, UINT32_MAX), 1);
		assert_returned(&t);
		permit_recover(h.m, w64_load(&v->ref));
		assert_int_equal(nodes_in(h.s, PERMIT_FREE), h.s->geometry.readers);
		recover_all(h.m);
	}
	if (r == REFUSED)
		skipped(SANITIZED ? "a sanitizer has too many steps" : "ptrace is refused");
	else
		assert_int_equal(r, ENDED_WELL);
	print_message("# killed after each of %u changes\n", n - 1);
	unshare_memory(v, sizeof(*v));
	close_hall(&h);
}

/* ---- many at once ------------------------------------------------------------------------------------------ */

#define MACHINE 3u
#define SPACES 4u

struct field {
	struct hall *h;
	uint32_t bounds[SPACES], turns, threads;
	word32 ready, running, running_of[SPACES], over, served, seed, done;
};

static void *work(void *arg)
{
	struct field *f = arg;
	struct seat *seat = sit(f->h->cache);
	uint64_t seed = w32_add(&f->seed, 1);
	struct permit_ticket t;
	enum permit_outcome r;
	uint32_t n, i, k;

	must(seat);
	meet(&f->ready, f->threads);
	for (n = 0; n < f->turns; n++) {
		k = (uint32_t)(draw(&seed) % SPACES);
		r = permit_try(seat, &(struct permit_request){k, f->bounds[k], LEASE_MS}, &t);
		must(r == PERMIT_GRANTED || r == PERMIT_WAIT);
		while (r == PERMIT_WAIT) {
			permit_sleep(&t, FOR_EVER);
			r = permit_poll(&t);
		}
		must(r == PERMIT_GRANTED);
		if (w32_add(&f->running, 1) >= MACHINE)
			w32_add(&f->over, 1);
		if (w32_add(&f->running_of[k], 1) >= (f->bounds[k] ? f->bounds[k] : MACHINE))
			w32_add(&f->over, 1);
		for (i = (uint32_t)(draw(&seed) % 4); i; i--)
			sched_yield();
		w32_sub(&f->running_of[k], 1);
		w32_sub(&f->running, 1);
		must(permit_return(&t));
		w32_add(&f->served, 1);
	}
	return NULL;
}

static int work_in_threads(void *arg)
{
	struct field *f = arg;
	pthread_t threads[4];
	unsigned i;

	for (i = 0; i < COUNT(threads); i++)
		must(!pthread_create(&threads[i], NULL, work, f));
	for (i = 0; i < COUNT(threads); i++)
		must(!pthread_join(threads[i], NULL));
	return 0;
}

/* Q.1, Q.4: everybody is served; nobody ever runs beside more than the bounds allow. */
static void bounds_hold(void **state)
{
	struct hall h = open_hall(MACHINE, 64, true);
	struct field *f = share(sizeof(*f));
	pid_t pids[3];
	unsigned i;

	f->h = &h;
	f->bounds[1] = 1;
	f->bounds[2] = 2;
	f->turns = UNDER_TSAN ? 100 : 1000;
	f->threads = COUNT(pids) * 4;
	for (i = 0; i < COUNT(pids); i++)
		pids[i] = spawn(work_in_threads, f);
	for (i = 0; i < COUNT(pids); i++)
		assert_ends_well(pids[i]);
	assert_int_equal(w32_load(&f->served), f->turns * f->threads);
	assert_int_equal(w32_load(&f->over), 0);
	assert_int_equal(w32_load(&f->running), 0);
	unshare_memory(f, sizeof(*f));
	close_hall(&h);
}

/* Without the counts of those who run, which the dead would leave wrong. */
static int work_for_ever(void *arg)
{
	struct field *f = arg;
	struct seat *seat = sit(f->h->cache);
	uint64_t seed = w32_add(&f->seed, 1);
	struct permit_ticket t;
	enum permit_outcome r;
	uint32_t k;

	must(seat);
	while (!w32_load(&f->done)) {
		k = (uint32_t)(draw(&seed) % SPACES);
		r = permit_try(seat, &(struct permit_request){k, f->bounds[k], LEASE_MS}, &t);
		while (r == PERMIT_WAIT) {
			permit_sleep(&t, FOR_EVER);
			r = permit_poll(&t);
		}
		must(r == PERMIT_GRANTED);
		must(permit_return(&t));
		post(&f->served);
	}
	return 0;
}

/* The others go on after each of the killings. */
static void survivors_go_on(void **state)
{
	struct hall h = open_hall(2, 64, true);
	struct field *f = share(sizeof(*f));
	pid_t well[2], victim;
	uint32_t n;
	unsigned i;

	f->h = &h;
	f->bounds[1] = 1;
	for (i = 0; i < COUNT(well); i++)
		well[i] = spawn(work_for_ever, f);
	for (i = 0; i < 40; i++) {
		victim = spawn(work_for_ever, f);
		n = w32_load(&f->served);
		assert_true(await(&f->served, n + 20 + i * 7 % 50));
		kill_child(victim);
		n = w32_load(&f->served);
		assert_true(await(&f->served, n + 50));
	}
	post(&f->done);
	for (i = 0; i < COUNT(well); i++)
		assert_ends_well(well[i]);
	for (i = 0; i < h.s->geometry.readers; i++)
		if (life_ref(h.m, i) && i != h.seat->index)
			permit_recover(h.m, life_ref(h.m, i));
	unshare_memory(f, sizeof(*f));
	close_hall(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_come_first_served),
		cmocka_unit_test(order_is_not_of_nodes),
		cmocka_unit_test(a_crowd_starves_nobody),
		cmocka_unit_test(keyspaces_take_turns),
		cmocka_unit_test(idle_keyspaces_save_no_turns),
		cmocka_unit_test(own_bound_blocks_itself),
		cmocka_unit_test(keyspace_bound_alone),
		cmocka_unit_test(who_leaves_the_queue_passes_it_on),
		cmocka_unit_test(a_full_table),
		cmocka_unit_test(a_lease_ends),
		cmocka_unit_test(late_steps_touch_no_successor),
		cmocka_unit_test(a_renewed_lease_goes_on),
		cmocka_unit_test(stopped_first_in_line),
		cmocka_unit_test(stopped_while_taking),
		cmocka_unit_test(dead_holder),
		cmocka_unit_test(dead_in_line),
		cmocka_unit_test(recovery_returns_all_of_it),
		cmocka_unit_test(recovery_tells_the_next),
		cmocka_unit_test(dead_thread),
		cmocka_unit_test(killed_anywhere),
		cmocka_unit_test(bounds_hold),
		cmocka_unit_test(survivors_go_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
