/* SPDX-License-Identifier: MIT */
/* Killed and stopped at every instruction of what one process does alone: the verbs, loads,
 * joining and leaving. See judge.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "judge.h"

/* ---- operations -------------------------------------------------------------------------------------------- */

static void have_own(void)
{
	assert_int_equal(set(keyspace, OWN, 1), SHOAL_OK);
}

static void have_stale(void)
{
	uint64_t k = OWN;

	have_own();
	assert_int_equal(shoal_expire(keyspace, &k, sizeof(k)), SHOAL_OK);
}

static void lead_for_ever(void *arg)
{
	uint64_t k = arg ? 600 : OWN;
	struct shoal_load *load;
	struct shoal_value v;

	crew_expect(shoal_begin(keyspace, &k, sizeof(k), &load, &v) == SHOAL_LEAD, "no lead to die with");
	for (;;)
		pause();
}

static void hold_for_ever(void *arg)
{
	uint64_t k = 1;
	struct shoal_value v;

	shoal_get(keyspace, &k, sizeof(k), &v); /* held */
	lead_for_ever(arg);
}

static void leave_corpse(void (*body)(void *arg), void *arg)
{
	const struct segment *s = crew_segment(cache);
	pid_t pid = crew_fork(body, arg);
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000, oldest;

	while (!flight_running(s, UINT32_MAX, 0, &oldest) && crew_now() < end)
		sched_yield();
	crew_await_state(pid, "S");
	crew_kill(pid);
}

static void have_dead_leader(void)
{
	leave_corpse(lead_for_ever, NULL);
}

static void have_corpse(void)
{
	have_own();
	leave_corpse(hold_for_ever, cache);
}

/* So full that a set of the child evicts, and what is hit is worth moving. */
static void be_full(void)
{
	const struct segment *s = crew_segment(cache);
	uint64_t k = FILL_KEY, hot;
	struct shoal_value v;

	for (; extents_count(s, EXTENT_FREE) > evict_reserve(s); k++) {
		assert_int_equal(set(keyspace, k, 1), SHOAL_OK);
		for (hot = 0; hot < 3 && k - hot * 12 >= FILL_KEY; hot++) {
			uint64_t key = k - hot * 12;

			shoal_get(keyspace, &key, sizeof(key), &v);
			shoal_release(&v);
		}
	}
}

static void do_get(void)
{
	uint64_t k = OWN;
	struct shoal_value v;
	int r = shoal_get(keyspace, &k, sizeof(k), &v);

	w32_store(&field->result, (uint32_t)r);
	if (r == SHOAL_OK && !is_whole(v.data, v.size, k))
		w32_store(&field->torn, 1);
	shoal_release(&v);
}

static void do_read(void)
{
	uint64_t k = OWN;
	struct value v;
	size_t size;
	int r = shoal_read(keyspace, &k, sizeof(k), &v, sizeof(v), &size);

	w32_store(&field->result, (uint32_t)r);
	if (r == SHOAL_OK && !is_whole(&v, size, k))
		w32_store(&field->torn, 1);
}

static void do_set(void)
{
	w32_store(&field->result, (uint32_t)set(keyspace, OWN, NEW_VERSION));
}

static uint64_t evictions(void)
{
	const struct segment *s = crew_segment(cache);
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < EVICTED_REASONS; i++)
		n += w64_load(&s->header->evicted_by[i]);
	return n;
}

static void do_evicting_sets(void)
{
	uint64_t before = evictions(), k = FILL_KEY << 1;

	for (; evictions() == before && k < (FILL_KEY << 1) + 64; k++)
		w32_store(&field->result, (uint32_t)set(keyspace, k, 1));
}

static void do_delete(void)
{
	uint64_t k = OWN;

	w32_store(&field->result, (uint32_t)shoal_delete(keyspace, &k, sizeof(k)));
}

static void do_expire(void)
{
	uint64_t k = OWN;

	w32_store(&field->result, (uint32_t)shoal_expire(keyspace, &k, sizeof(k)));
}

static struct shoal_load *begin(void)
{
	uint64_t k = OWN;
	struct shoal_load *load;
	struct shoal_value old;
	int r = shoal_begin(keyspace, &k, sizeof(k), &load, &old);

	w32_store(&field->result, (uint32_t)r);
	shoal_release(&old);
	return r == SHOAL_LEAD || r == SHOAL_REFRESH ? load : NULL;
}

static void do_publish(void)
{
	struct shoal_load *load = begin();
	struct value v;

	if (load)
		w32_store(&field->result, (uint32_t)shoal_load_publish(load, make_value(&v, OWN, NEW_VERSION),
								       size_of(OWN, NEW_VERSION)));
}

static void do_fail(void)
{
	struct shoal_load *load = begin();

	if (load)
		w32_store(&field->result, (uint32_t)shoal_load_fail(load, 5));
}

static void do_cancel(void)
{
	shoal_load_cancel(begin());
}

static void do_commit(void)
{
	struct shoal_load *load = begin();
	struct value v;
	void *space = load ? shoal_load_reserve(load, size_of(OWN, NEW_VERSION)) : NULL;

	if (!space)
		return;
	memcpy(space, make_value(&v, OWN, NEW_VERSION), size_of(OWN, NEW_VERSION));
	w32_store(&field->result, (uint32_t)shoal_load_commit(load, size_of(OWN, NEW_VERSION)));
}

static void do_renew_and_keep(void)
{
	struct shoal_load *load = begin();

	if (!load)
		return;
	shoal_load_renew(load);
	w32_store(&field->result, (uint32_t)shoal_load_keep(load));
}

static void do_uncacheable(void)
{
	struct shoal_load *load = begin();
	struct value v;

	if (!load)
		return;
	shoal_load_uncacheable(load, 0);
	w32_store(&field->result, (uint32_t)shoal_load_publish(load, make_value(&v, OWN, NEW_VERSION),
							       size_of(OWN, NEW_VERSION)));
}

static void do_reject(void)
{
	uint64_t k = OWN;
	struct shoal_value v;

	if (!shoal_get(keyspace, &k, sizeof(k), &v))
		w32_store(&field->result, (uint32_t)shoal_reject(keyspace, &k, sizeof(k), &v));
}

static void do_fetch(void)
{
	w32_store(&field->result, (uint32_t)fetch(keyspace, OWN, NEW_VERSION));
}

static void do_close(void)
{
	shoal_close(cache);
}

static void do_attach(void)
{
	const struct shoal_config config = {.flags = SHOAL_ATTACH};

	if (shoal_open(path, &config, &cache) || shoal_keyspace_open(cache, "step", 1, NULL, &keyspace))
		return;
	do_get();
	shoal_close(cache);
}

static void do_keyspace_open(void)
{
	struct shoal_keyspace *k;

	w32_store(&field->result, (uint32_t)shoal_keyspace_open(cache, "new", 1, NULL, &k));
}

static void do_keyspace_expire(void)
{
	w32_store(&field->result, (uint32_t)shoal_keyspace_expire(keyspace));
}

static void do_keyspace_delete(void)
{
	w32_store(&field->result, (uint32_t)shoal_keyspace_delete(keyspace));
}

static void do_reap(void)
{
	shoal_reap(cache);
}

static const struct operation operations[] = {
	{"read", have_own, NULL, do_read, OLD, OLD, 0, 2},
	{"get_miss", NULL, NULL, do_get, MISS, MISS, 0, 1},
	{"refresh", have_stale, NULL, do_publish, OLD, NEW, 0, 40},
	{"commit", NULL, NULL, do_commit, MISS, NEW, 0, 31},
	{"keep", have_stale, NULL, do_renew_and_keep, OLD, OLD, 0, 42},
	{"uncacheable", NULL, NULL, do_uncacheable, MISS, MISS, 0, 26},
	{"reject", have_own, NULL, do_reject, OLD, MISS, 0, 9},
	{"thread_exit", have_own, NULL, do_get, OLD, OLD, THREAD, 5},
	{"close", have_own, NULL, do_close, OLD, OLD, 0, 5},
	{"attach", have_own, NULL, do_attach, OLD, OLD, UNJOINED | NAMED, 20},
	{"keyspace_open", have_own, NULL, do_keyspace_open, OLD, OLD, 0, 4},
	{"keyspace_expire", have_own, NULL, do_keyspace_expire, OLD, OLD, 0, 6},
	{"keyspace_delete", have_own, NULL, do_keyspace_delete, OLD, MISS, EVICTS, 4},
	{"reap", have_corpse, NULL, do_reap, OLD, OLD, UNJOINED, 13},
	{"get", have_own, NULL, do_get, OLD, OLD, REAL, 2},
	{"set_new", NULL, NULL, do_set, MISS, NEW, REAL, 12},
	{"set_replacing", have_own, NULL, do_set, OLD, NEW, REAL, 14},
	{"delete", have_own, NULL, do_delete, OLD, MISS, REAL, 8},
	{"expire", have_own, NULL, do_expire, OLD, OLD, REAL, 15},
	{"publish", NULL, NULL, do_publish, MISS, NEW, REAL, 32},
	{"fail", NULL, NULL, do_fail, MISS, MISS, FAILS | REAL, 20},
	{"cancel", NULL, NULL, do_cancel, MISS, MISS, REAL, 18},
	{"fetch", NULL, NULL, do_fetch, MISS, NEW, REAL, 32},
	{"takeover", have_dead_leader, NULL, do_fetch, MISS, NEW, REAL, 29},
	{"first_call", have_own, NULL, do_get, OLD, OLD, UNJOINED | REAL, 15},
	{"set_evicting", be_full, NULL, do_evicting_sets, MISS, MISS, EVICTS | REAL, 250},
};

int main(int argc, char **argv)
{
	return step_all(operations, sizeof(operations) / sizeof(operations[0]), argc > 1 ? argv[1] : NULL);
}
