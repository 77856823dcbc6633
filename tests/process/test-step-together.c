/* SPDX-License-Identifier: MIT */
/*
 * Killed and stopped at every instruction of what one process does together with others: it waits for another's load,
 * or for a permit, it supersedes a load that another is at, it carries values over from an older version. See judge.h.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "judge.h"

#define HELD ((uint64_t)600) /* and the next one: keys that the companion leads, and nobody asks for */

/* ---- the companion ----------------------------------------------------------------------------------------- */

static struct shoal_load *lead(uint64_t key)
{
	struct shoal_load *load = NULL;
	struct shoal_value v;
	int r = shoal_begin(keyspace, &key, sizeof(key), &load, &v);

	crew_expect(r == SHOAL_LEAD, "the companion does not lead: %s", shoal_strerror(r));
	shoal_release(&v);
	return load;
}

static int publish(struct shoal_load *load, uint64_t key, uint64_t version)
{
	struct value v;

	return shoal_load_publish(load, make_value(&v, key, version), size_of(key, version));
}

static void lead_only(void)
{
	lead(OWN);
	crew_signal(&field->ready);
}

/* What it did may have been superseded by a judge, of a child that was resumed. */
static void expect_done(int r, const char *what)
{
	crew_expect(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED, "the companion's %s: %s", what, shoal_strerror(r));
}

static void lead_and_publish(void)
{
	struct shoal_load *load = lead(OWN);

	await_sleep(ACTS);
	expect_done(publish(load, OWN, NEW_VERSION), "publish");
}

static void lead_and_fail(void)
{
	struct shoal_load *load = lead(OWN);

	await_sleep(ACTS);
	expect_done(shoal_load_fail(load, 5), "fail");
}

static void lead_and_cancel(void)
{
	struct shoal_load *load = lead(OWN);

	await_sleep(ACTS);
	shoal_load_cancel(load);
}

static void lead_and_refuse(void)
{
	struct shoal_load *load = lead(OWN);

	await_sleep(ACTS);
	shoal_load_uncacheable(load, 0);
	expect_done(publish(load, OWN, NEW_VERSION), "publish");
}

static void lead_and_set(void)
{
	struct shoal_load *load = lead(OWN);

	await_sleep(ACTS);
	expect_done(set(keyspace, OWN, NEW_VERSION), "set");
	shoal_load_cancel(load);
}

static void lead_and_delete(void)
{
	struct shoal_load *load = lead(OWN);
	uint64_t k = OWN;
	int r;

	await_sleep(ACTS);
	r = shoal_delete(keyspace, &k, sizeof(k));
	crew_expect(r == SHOAL_OK || r == SHOAL_MISS, "the companion's delete: %s", shoal_strerror(r));
	shoal_load_cancel(load); /* its permit was its own still */
}

static void lead_and_die(void)
{
	lead(OWN);
	await_sleep(DIES);
	raise(SIGKILL);
}

/* All permits there are, until the child is in line. */
static void hold_permits(void)
{
	struct shoal_load *load = lead(HELD);

	lead(HELD + 1);
	await_sleep(ACTS);
	expect_done(publish(load, HELD, 1), "publish");
}

static void hold_one(void)
{
	struct shoal_load *load = lead(HELD);

	await_sleep(ACTS);
	expect_done(publish(load, HELD, 1), "publish");
}

static void resize_only(void)
{
	expect_done(shoal_resize(cache, SEGMENT), "resize");
	crew_signal(&field->ready);
}

/* ---- the child --------------------------------------------------------------------------------------------- */

static void end_with(int r)
{
	w32_store(&field->result, (uint32_t)r);
}

static void take(struct shoal_value *v, uint64_t key)
{
	if (!is_whole(v->data, v->size, key))
		w32_store(&field->torn, 1);
	shoal_release(v);
}

/* Without the bound of a policy: while it is looked at the time goes by. */
static void do_wait(void)
{
	uint64_t k = OWN;
	struct shoal_load *load;
	struct shoal_value v;
	int r = shoal_begin(keyspace, &k, sizeof(k), &load, &v);

	shoal_release(&v);
	if (r == SHOAL_WAIT)
		r = shoal_wait(load, HOUR_MS, &v);
	if (r == SHOAL_OK)
		take(&v, OWN);
	else if (r == SHOAL_LEAD)
		r = publish(load, OWN, NEW_VERSION);
	else
		shoal_load_cancel(load);
	end_with(r == SHOAL_ERR_LOAD || r == SHOAL_ERR_LIMIT ? SHOAL_OK : r); /* LIMIT: not coalesced, so not stored */
}

static void do_set(void)
{
	end_with(set(keyspace, OWN, NEW_VERSION));
}

static void do_delete(void)
{
	uint64_t k = OWN;

	end_with(shoal_delete(keyspace, &k, sizeof(k)));
}

static void do_expire(void)
{
	uint64_t k = OWN;

	end_with(shoal_expire(keyspace, &k, sizeof(k)));
}

static void do_keyspace_delete(void)
{
	end_with(shoal_keyspace_delete(keyspace));
}

/* A loader that needs another key. */
static int load_after_other(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	uint64_t k = HELD;
	struct shoal_load *other;
	struct shoal_value v;
	int r = shoal_begin(keyspace, &k, sizeof(k), &other, &v);

	(void)key, (void)size, (void)arg;
	shoal_release(&v);
	if (r == SHOAL_WAIT)
		r = shoal_wait(other, HOUR_MS, &v);
	if (r == SHOAL_OK)
		take(&v, HELD);
	else
		shoal_load_cancel(other);
	return publish(load, OWN, NEW_VERSION);
}

static void do_nested_fetch(void)
{
	uint64_t k = OWN;
	struct shoal_value v;
	int r = shoal_fetch(keyspace, &k, sizeof(k), load_after_other, NULL, &v);

	end_with(r);
	if (r == SHOAL_OK)
		take(&v, OWN);
}

static void do_fetch(void)
{
	end_with(fetch(own, OWN, NEW_VERSION));
}

static void do_get(void)
{
	uint64_t k = OWN;
	struct shoal_value v;
	int r = shoal_get(own, &k, sizeof(k), &v);

	end_with(r);
	if (r == SHOAL_OK)
		take(&v, OWN);
}

static void do_get_many(void)
{
	uint64_t keys[] = {1, OWN, HELD, 2};
	struct shoal_slice slices[4];
	struct shoal_value values[4];
	int outcomes[4], i;

	for (i = 0; i < 4; i++)
		slices[i] = (struct shoal_slice){&keys[i], sizeof(keys[i])};
	end_with(shoal_get_many(keyspace, slices, 4, values, outcomes));
	for (i = 0; i < 4; i++)
		if (outcomes[i] == SHOAL_OK)
			take(&values[i], keys[i]);
}

static int visit(const struct shoal_entry *entry, void *arg)
{
	(void)entry;
	++*(unsigned *)arg;
	return 0;
}

static void do_scan(void)
{
	unsigned n = 0;

	end_with(shoal_scan(cache, NULL, visit, &n));
	crew_expect(n == KEYS + 1, "%u keys were seen", n);
}

static void do_set_big(void)
{
	struct value v;
	uint64_t k = OWN;

	end_with(shoal_set_ttl(keyspace, &k, sizeof(k), make_value(&v, k, BIG_VERSION), size_of(k, BIG_VERSION),
	                       HOUR_MS, HOUR_MS));
}

static int next_key(void *arg, struct shoal_slice *key)
{
	static uint64_t k;
	unsigned *n = arg;

	k = *n ? 1 : OWN;
	*key = (struct shoal_slice){&k, sizeof(k)};
	return (*n)++ < 2 ? SHOAL_OK : SHOAL_MISS;
}

static int load_new_version(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	(void)key, (void)size, (void)arg;
	return publish(load, OWN, NEW_VERSION);
}

static void do_warm(void)
{
	struct shoal_warm warm = {.per_second = INFINITY, .stop_load_ms = SHOAL_NONE};
	struct shoal_warm_report report;
	unsigned n = 0;

	end_with(shoal_warm_keys(keyspace, next_key, load_new_version, &n, &warm, &report));
}

/* ---- an older version -------------------------------------------------------------------------------------- */

static int convert(struct shoal_load *load, const void *key, size_t size, const struct shoal_value *old, void *arg)
{
	(void)key, (void)size, (void)arg;
	if (!is_whole(old->data, old->size, OWN))
		w32_store(&field->torn, 1);
	return publish(load, OWN, NEW_VERSION);
}

static void have_older_version(void)
{
	struct shoal_policy policy = {.fresh_ms = HOUR_MS, .stale_ms = HOUR_MS, .lease_ms = HOUR_MS, .early = -1,
				      .wait_ms = WAIT_MS, .jitter_permille = SHOAL_NONE};

	assert_int_equal(set(keyspace, OWN, 1), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "step", 2, &policy, &own), SHOAL_OK);
	policy.wait_ms = 10 * BOUND_MS;
	assert_int_equal(shoal_keyspace_open(cache, "step", 2, &policy, &own_patient), SHOAL_OK);
	assert_int_equal(shoal_keyspace_fallback(own, keyspace, NULL, convert, NULL), SHOAL_OK);
	assert_int_equal(shoal_keyspace_fallback(own_patient, keyspace, NULL, convert, NULL), SHOAL_OK);
}

static void do_delete_both(void)
{
	uint64_t k = OWN;

	end_with(shoal_delete(own, &k, sizeof(k)));
}

static void do_resize(void)
{
	end_with(shoal_resize(cache, SEGMENT));
}

static void have_own(void)
{
	assert_int_equal(set(keyspace, OWN, 1), SHOAL_OK);
}

static const struct operation operations[] = {
	{"set_led", NULL, lead_only, do_set, MISS, NEW, LED, 12},
	{"delete_led", NULL, lead_only, do_delete, MISS, MISS, LED, 4},
	{"expire_led", NULL, lead_only, do_expire, MISS, MISS, LED, 4},
	{"keyspace_delete_led", NULL, lead_only, do_keyspace_delete, MISS, MISS, LED | EVICTS, 4},
	{"get_many", have_own, NULL, do_get_many, OLD, OLD, 0, 5},
	{"scan", have_own, NULL, do_scan, OLD, OLD, SLOW, 3},
	{"set_big", have_own, NULL, do_set_big, OLD, NEW, 0, 17},
	{"warm", NULL, NULL, do_warm, MISS, NEW, 0, 32},
	{"migrate", have_older_version, NULL, do_fetch, MISS, NEW, 0, 26},
	{"delete_both", have_older_version, NULL, do_delete_both, MISS, MISS, 0, 10},
	{"follow", have_own, resize_only, do_get, OLD, OLD, RESIZES | LATE | SLOW, 20},
	{"follow_set", have_own, resize_only, do_set, OLD, NEW, RESIZES | LATE | SLOW, 20},
	{"thread_life", have_own, NULL, do_get, OLD, OLD, THREAD | FIRST, 14},
	{"wait_failed", NULL, lead_and_fail, do_wait, MISS, MISS, LED | FAILS, 4},
	{"wait_refused", NULL, lead_and_refuse, do_wait, MISS, MISS, LED, 11},
	{"wait_set", NULL, lead_and_set, do_wait, MISS, NEW, LED, 5},
	{"wait_deleted", NULL, lead_and_delete, do_wait, MISS, NEW, LED, 33},
	{"resize", have_own, NULL, do_resize, OLD, OLD, RESIZES | SLOW | REAL, 20},
	{"wait_published", NULL, lead_and_publish, do_wait, MISS, NEW, LED | REAL, 5},
	{"wait_cancelled", NULL, lead_and_cancel, do_wait, MISS, NEW, LED | REAL, 30},
	{"wait_died", NULL, lead_and_die, do_wait, MISS, NEW, LED | REAL, 31},
	{"queue", NULL, hold_permits, do_wait, MISS, NEW, HOGS | REAL, 37},
	{"queue_one", NULL, hold_one, do_wait, MISS, NEW, HOGS | SCARCE | REAL, 37},
	{"nested", NULL, hold_one, do_nested_fetch, MISS, NEW, HOGS | REAL, 38},
};

int main(int argc, char **argv)
{
	return step_all(operations, sizeof(operations) / sizeof(operations[0]), argc > 1 ? argv[1] : NULL);
}
