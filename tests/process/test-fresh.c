/* SPDX-License-Identifier: MIT */
/*
 * The policy over time, on a clock that is set. Holds, for a caller of <shoal.h>:
 *
 *   bounds    fresh_ms, stale_ms and error_ms end a value on every path: looked up, refreshed, failing, hung, busy, its
 *             leader dead, expired or kept; nothing makes them slide
 *   jitter    ends are spread, and never later than fresh_ms says
 *   early     a key that is read often is refreshed before its end, by one reader
 *   failure   remembered for longer each time in a row, a minute at most
 *   leases    one more load per lease; the first to publish fills the cache
 */
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
	struct shoal_load *load = NULL;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), outcome);
	shoal_release(&value);
	return load;
}

#define assert_publishes(load, text, outcome) assert_int_equal(shoal_load_publish(load, STR(text)), outcome)
#define assert_fails(load) assert_int_equal(shoal_load_fail(load, 5), SHOAL_OK)

/* ---- bounds: one walk along a value's life, by many ways of asking ----------------------------------------------- */

enum seen { NOTHING, FRESH, OLD };

static const char *const seen_names[] = {"nothing", "a fresh value", "an old value"};

static enum seen judge(struct shoal_value *value)
{
	enum seen seen = !value->data ? NOTHING : value->freshness == SHOAL_FRESH ? FRESH : OLD;

	if (value->data)
		assert_true(holds(value, "x"));
	shoal_release(value);
	return seen;
}

typedef enum seen ask(struct place *p, struct shoal_keyspace *k);

static enum seen by_get(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_value value;

	shoal_get(k, STR("a"), &value);
	return judge(&value);
}

static enum seen by_get_many(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_slice keys[2] = {{STR("none")}, {STR("a")}};
	struct shoal_value values[2];
	int outcomes[2];

	shoal_get_many(k, keys, 2, values, outcomes);
	assert_int_equal(outcomes[0], SHOAL_MISS);
	return judge(&values[1]);
}

/* Can't tell old from fresh. */
static enum seen by_read(struct place *p, struct shoal_keyspace *k)
{
	enum seen seen = by_get(p, k);
	size_t size;
	char c;

	assert_int_equal(shoal_read(k, STR("a"), &c, 1, &size), seen == NOTHING ? SHOAL_MISS : SHOAL_OK);
	return seen;
}

static int failing(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return 7;
}

static int silent(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return 0;
}

static enum seen by_fetch(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_value value;
	int r = shoal_fetch(k, STR("a"), failing, NULL, &value);

	assert_int_equal(r, value.data ? SHOAL_OK : SHOAL_ERR_LOAD);
	assert_true(value.load_error == (value.data && value.freshness == SHOAL_FRESH ? 0 : 7));
	return judge(&value);
}

static enum seen by_silent_fetch(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_value value;
	int r = shoal_fetch(k, STR("a"), silent, NULL, &value);

	assert_int_equal(r, value.data ? SHOAL_OK : SHOAL_ERR_LOAD);
	return judge(&value);
}

/* In steps, and another waits for it. */
static enum seen by_failing_steps(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_load *load, *waiter;
	struct shoal_value value;
	enum seen seen;
	int r = shoal_begin(k, STR("a"), &load, &value);

	seen = judge(&value);
	if (r == SHOAL_REFRESH)
		assert_fails(load);
	if (r != SHOAL_LEAD)
		return seen;
	assert_int_equal(seen, NOTHING);
	waiter = begins(k, "a", SHOAL_WAIT);
	assert_fails(load);
	r = shoal_wait(waiter, 0, &value);
	assert_int_equal(r, value.data ? SHOAL_OK : SHOAL_ERR_LOAD);
	if (r)
		shoal_load_cancel(waiter);
	return judge(&value);
}

static struct shoal_load *held[256];
static unsigned holding;

/* Whoever gets the load hangs in it. */
static enum seen by_hanging(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_load *load;
	struct shoal_value value;
	int r = shoal_begin(k, STR("a"), &load, &value);

	if (r == SHOAL_WAIT)
		r = shoal_wait(load, 0, &value);
	assert_true(holding < COUNT(held));
	if (r == SHOAL_REFRESH || r == SHOAL_LEAD)
		held[holding++] = load;
	else if (r != SHOAL_OK)
		shoal_load_cancel(load);
	assert_true(r >= 0 || r == SHOAL_ERR_TIMEOUT || r == SHOAL_ERR_BUSY);
	return judge(&value);
}

static void let_go(void)
{
	while (holding)
		shoal_load_cancel(held[--holding]);
}

/* A fetch that waits for one that hangs. */
static enum seen by_waiting(struct place *p, struct shoal_keyspace *k)
{
	struct shoal_value value;
	enum seen seen = by_hanging(p, k);
	int r = shoal_fetch(k, STR("a"), failing, NULL, &value);

	assert_int_equal(r, value.data ? SHOAL_OK : SHOAL_ERR_TIMEOUT);
	assert_int_equal(judge(&value), seen);
	return seen;
}

struct mortal {
	struct shoal_keyspace *k;
	word32 *leading;
};

static int lead_until_killed(void *arg)
{
	struct mortal *m = arg;
	struct shoal_load *load;
	struct shoal_value value;

	shoal_begin(m->k, STR("a"), &load, &value);
	post(m->leading);
	for (;;)
		pause();
	return 0;
}

static enum seen by_crash(struct place *p, struct shoal_keyspace *k)
{
	struct mortal m = {k, share(sizeof(word32))};
	pid_t pid = spawn(lead_until_killed, &m);
	struct shoal_load *load;
	struct shoal_value value;

	assert_true(await(m.leading, 1));
	kill_child(pid);
	shoal_begin(k, STR("a"), &load, &value);
	shoal_load_cancel(load);
	assert_int_equal(shoal_reap(p->cache), 1);
	unshare_memory(m.leading, sizeof(word32));
	return judge(&value);
}

static enum seen by_expire(struct place *p, struct shoal_keyspace *k)
{
	shoal_expire(k, STR("a"));
	return by_get(p, k);
}

static enum seen by_expire_and_fetch(struct place *p, struct shoal_keyspace *k)
{
	shoal_expire(k, STR("a"));
	return by_failing_steps(p, k);
}

static enum seen by_keyspace_expire(struct place *p, struct shoal_keyspace *k)
{
	assert_int_equal(shoal_keyspace_expire(k), SHOAL_OK);
	return by_failing_steps(p, k);
}

struct walk {
	ask *ask;
	uint64_t fresh, stale, error; /* till when, from now */
	bool at_most;                 /* may end earlier */
	unsigned step;                /* a divisor of all three */
};

/* Asked at each step, and one millisecond before it. */
static void walk(struct place *p, struct shoal_keyspace *k, const struct walk *w)
{
	uint64_t t = 0;
	unsigned part = 0;
	enum seen seen, expected;

	while (t < w->error + 3000) {
		expected = t < w->fresh ? FRESH : t < w->stale || t < w->error ? OLD : NOTHING;
		seen = w->ask(p, k);
		if (seen != expected && !(w->at_most && seen == NOTHING)) {
			fprintf(stderr, "after %" PRIu64 " ms: %s, not %s\n", t, seen_names[seen],
			        seen_names[expected]);
			fail();
		}
		part = part ? 0 : w->step - 1;
		pass_ms(p->clock, part ? part : 1);
		t += part ? part : 1;
	}
	let_go();
	shoal_delete(k, STR("a")); /* what is remembered of it */
}

static void bounds_end_what_is_looked_up(void **state)
{
	static ask *const asks[] = {by_get, by_get_many, by_read};
	struct place *p = *state; /* fresh, stale, error: 1000 each */
	size_t i;

	for (i = 0; i < COUNT(asks); i++) {
		assert_set(p->k, "a", "x");
		walk(p, p->k, &(struct walk){asks[i], 1000, 2000, 2000, .step = 50});
	}
}

static void bounds_end_what_failure_is_bridged_by(void **state)
{
	static ask *const asks[] = {by_fetch, by_silent_fetch, by_failing_steps};
	struct place *p = *state;
	size_t i;

	for (i = 0; i < COUNT(asks); i++) {
		assert_set(p->k, "a", "x");
		walk(p, p->k, &(struct walk){asks[i], 1000, 2000, 3000, .step = 50});
	}
}

/* Failing again and again, at each look. */
static void bounds_do_not_slide_by_failure(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k;

	policy.retry_ms = SHOAL_NONE;
	k = keyspace(p->cache, "no-retry", &policy);
	assert_set(k, "a", "x");
	walk(p, k, &(struct walk){by_fetch, 1000, 2000, 3000, .step = 5});
	assert_true(counts_of(k).loads > 400);
}

static void bounds_end_without_stale_or_error(void **state)
{
	static const struct {
		uint32_t stale_ms, error_ms;
	} lives[] = {{0, 0}, {0, 500}, {500, 0}, {SHOAL_NONE, SHOAL_NONE}, {1, 1}};
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k;
	uint32_t stale, error;
	char name[16];
	size_t i;

	for (i = 0; i < COUNT(lives); i++) {
		policy.stale_ms = lives[i].stale_ms;
		policy.error_ms = lives[i].error_ms;
		stale = policy.stale_ms == SHOAL_NONE ? 0 : policy.stale_ms;
		error = policy.error_ms == SHOAL_NONE ? 0 : policy.error_ms;
		snprintf(name, sizeof(name), "lives%zu", i);
		k = keyspace(p->cache, name, &policy);
		assert_set(k, "a", "x");
		walk(p, k, &(struct walk){by_get, 1000, 1000 + stale, 1000 + stale, .step = 50});
		assert_set(k, "a", "x");
		walk(p, k,
		     &(struct walk){by_fetch, 1000, 1000 + stale, 1000 + stale + error, .step = stale == 1 ? 2 : 50});
	}
}

/* Nobody ends it: what is stale is served to its bound, and then nothing is. */
static void bounds_end_under_a_hung_refresh(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k, *impatient;

	assert_set(p->k, "a", "x");
	walk(p, p->k, &(struct walk){by_hanging, 1000, 2000, 2000, .step = 50});
	assert_int_equal(counts_of(p->k).loads, 1);
	policy.lease_ms = 400; /* and with each lease another one hangs */
	k = keyspace(p->cache, "lease", &policy);
	assert_set(k, "a", "x");
	walk(p, k, &(struct walk){by_hanging, 1000, 2000, 2000, .step = 50});
	assert_in_range(counts_of(k).loads, 9, 4000 / 400 + 1);
	policy.wait_ms = 1;
	policy.lease_ms = 0;
	impatient = keyspace(p->cache, "impatient", &policy);
	assert_set(impatient, "a", "x");
	walk(p, impatient, &(struct walk){by_waiting, 1000, 2000, 2000, .step = 250});
}

static void bounds_end_when_leaders_die(void **state)
{
	struct place *p = *state;

	assert_set(p->k, "a", "x");
	walk(p, p->k, &(struct walk){by_crash, 1000, 2000, 2000, .step = 250});
}

static void bounds_end_without_a_permit(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_loads = 1});
	struct shoal_load *other = begins(p.k, "other", SHOAL_LEAD);

	assert_set(p.k, "a", "x");
	walk(&p, p.k, &(struct walk){by_hanging, 1000, 2000, 2000, .step = 50});
	assert_int_equal(counts_of(p.k).loads, 1);
	shoal_load_cancel(other);
	close_place(&p);
}

static void bounds_count_from_the_expire(void **state)
{
	static ask *const asks[] = {by_get, by_expire};
	static ask *const failures[] = {by_fetch, by_expire_and_fetch};
	struct place *p = *state;
	size_t i;

	for (i = 0; i < COUNT(asks); i++) {
		assert_set(p->k, "a", "x");
		pass_ms(p->clock, 300);
		assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
		walk(p, p->k, &(struct walk){asks[i], 0, 1000, 1000, .step = 50});
		assert_set(p->k, "a", "x");
		pass_ms(p->clock, 1300); /* stale already: its own bounds are nearer */
		assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
		walk(p, p->k, &(struct walk){asks[i], 0, 700, 700, .step = 50});
	}
	for (i = 0; i < COUNT(failures); i++) {
		assert_set(p->k, "a", "x");
		pass_ms(p->clock, 300);
		assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
		walk(p, p->k, &(struct walk){failures[i], 0, 1000, 2000, .step = 50});
		assert_set(p->k, "a", "x");
		pass_ms(p->clock, 2500);
		assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
		walk(p, p->k, &(struct walk){failures[i], 0, 0, 500, .step = 50});
	}
}

/* Whatever an expiring handle would allow, the value's own bounds stay. */
static void an_expire_by_another_policy_prolongs_nothing(void **state)
{
	struct shoal_policy brief = {.fresh_ms = 1000, .stale_ms = 500, .error_ms = 200, .retry_ms = 100,
				     .jitter_permille = SHOAL_NONE, .early = -1};
	struct shoal_policy generous = brief;
	struct place *p = *state;
	struct shoal_keyspace *k, *other;
	int whole;

	generous.stale_ms = generous.error_ms = 100000;
	k = keyspace(p->cache, "brief", &brief);
	other = keyspace(p->cache, "brief", &generous);
	for (whole = 0; whole < 2; whole++) {
		assert_set(k, "a", "x");
		pass_ms(p->clock, 1100);
		assert_int_equal(whole ? shoal_keyspace_expire(other) : shoal_expire(other, STR("a")), SHOAL_OK);
		walk(p, other, &(struct walk){by_fetch, 0, 400, 600, .step = 50});
	}
}

static void bounds_count_from_the_keyspace_expire(void **state)
{
	struct place *p = *state;

	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 300);
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	walk(p, p->k, &(struct walk){by_get, 0, 1000, 1000, .step = 50});
	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 300);
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	walk(p, p->k, &(struct walk){by_fetch, 0, 1000, 2000, .step = 50});
	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 1300);
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	walk(p, p->k, &(struct walk){by_fetch, 0, 700, 1700, .step = 50});
	assert_set(p->k, "a", "x"); /* and another at each look */
	walk(p, p->k, &(struct walk){by_keyspace_expire, 0, 1000, 2000, .at_most = true, .step = 50});
	assert_set(p->k, "a", "x"); /* one that came after it is untouched */
	walk(p, p->k, &(struct walk){by_fetch, 1000, 2000, 3000, .step = 50});
}

/* Remembered or not, the first of N expires bounds the value; the value is gone rather than prolonged. */
static void many_keyspace_expires_do_not_prolong(void **state)
{
	struct place *p = *state;
	unsigned n, i, t;

	for (n = 1; n <= 12; n++) {
		assert_set(p->k, "a", "x");
		for (i = 0; i < n; i++) {
			assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
			pass_ms(p->clock, 50);
		}
		if (n <= 4)
			assert_gives(p->k, "a", "x");
		for (t = 50 * n; t < 2500; t += 50) {
			assert_true(by_get(p, p->k) == NOTHING || t < 1000);
			pass_ms(p->clock, 50);
		}
		assert_misses(p->k, "a");
	}
}

/* Each value has the bounds of the first expire after it. */
static void each_value_has_its_own_expire(void **state)
{
	struct place *p = *state;

	assert_set(p->k, "a", "x");
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	pass_ms(p->clock, 400);
	assert_set(p->k, "b", "x");
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	assert_set(p->k, "c", "x");
	pass_ms(p->clock, 599);
	assert_gives(p->k, "a", "x");
	pass_ms(p->clock, 1);
	assert_misses(p->k, "a");
	assert_gives(p->k, "b", "x");
	pass_ms(p->clock, 399);
	assert_gives(p->k, "b", "x");
	pass_ms(p->clock, 1);
	assert_misses(p->k, "b");
	assert_gives(p->k, "c", "x");
	pass_ms(p->clock, 999);
	assert_gives(p->k, "c", "x");
	pass_ms(p->clock, 1);
	assert_misses(p->k, "c");
}

/* An update has its own life, shorter or longer than what was there. */
static void an_update_has_its_own_bounds(void **state)
{
	struct place *p = *state;
	struct shoal_load *load;

	assert_int_equal(shoal_set_ttl(p->k, STR("a"), "x", 1, SHOAL_FOREVER, SHOAL_FOREVER), SHOAL_OK);
	assert_set(p->k, "a", "x");
	walk(p, p->k, &(struct walk){by_fetch, 1000, 2000, 3000, .step = 50});
	assert_int_equal(shoal_set_ttl(p->k, STR("a"), "x", 1, SHOAL_FOREVER, SHOAL_FOREVER), SHOAL_OK);
	assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
	load = begins(p->k, "a", SHOAL_REFRESH);
	shoal_load_ttl(load, 100, 50);
	assert_publishes(load, "x", SHOAL_OK);
	walk(p, p->k, &(struct walk){by_fetch, 100, 150, 1150, .step = 50});
	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 1500);
	assert_publishes(begins(p->k, "a", SHOAL_REFRESH), "x", SHOAL_OK);
	walk(p, p->k, &(struct walk){by_fetch, 1000, 2000, 3000, .step = 50});
}

/* ... also of failure, which the policy bridges for 1000 ms. */
static void an_update_says_how_long_failure_is_bridged(void **state)
{
	struct place *p = *state;
	uint32_t error_ms[] = {200, 5000, SHOAL_NONE, 0};
	uint64_t ends[] = {2200, 7000, 2000, 3000};
	struct shoal_load *load;

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		assert_int_equal(shoal_delete(p->k, STR("a")), i ? SHOAL_OK : SHOAL_MISS);
		load = begins(p->k, "a", SHOAL_LEAD);
		shoal_load_error_ttl(load, error_ms[i]);
		assert_publishes(load, "x", SHOAL_OK);
		walk(p, p->k, &(struct walk){by_fetch, 1000, 2000, ends[i], .step = 50});
		assert_set(p->k, "a", "x");
	}
	shoal_load_error_ttl(NULL, 1);
}

/* A load that was begun before the end of a value, and ends after it. */
struct slow {
	struct place *p;
	struct shoal_keyspace *k;
	uint64_t takes_ms;
	bool deletes;
};

static int slow_failing(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct slow *slow = arg;

	pass_ms(slow->p->clock, slow->takes_ms);
	if (slow->deletes)
		shoal_delete(slow->k, key, key_size);
	return 7;
}

static void a_slow_failure_serves_nothing_past_its_bound(void **state)
{
	static const struct {
		uint64_t age, takes, error_ms;
		enum seen seen;
	} turns[] = {
		{1900, 50, 1000, OLD},     {1990, 10, 1000, OLD},        {1990, 20, 0, NOTHING},
		{1990, 9, 0, OLD},         {1990, 10, 0, NOTHING},       {2990, 9, 1000, OLD},
		{2990, 10, 1000, NOTHING}, {1500, 10000, 1000, NOTHING}, {2500, 10000, 1000, NOTHING},
	};
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_value value;
	struct slow slow = {.p = p};
	size_t i;
	int r;

	for (i = 0; i < COUNT(turns); i++) {
		policy.error_ms = turns[i].error_ms ? turns[i].error_ms : SHOAL_NONE;
		slow.k = keyspace(p->cache, "slow", &policy);
		slow.takes_ms = turns[i].takes;
		assert_set(slow.k, "a", "x");
		pass_ms(p->clock, turns[i].age);
		r = shoal_fetch(slow.k, STR("a"), slow_failing, &slow, &value);
		assert_int_equal(r, turns[i].seen == NOTHING ? SHOAL_ERR_LOAD : SHOAL_OK);
		assert_int_equal(value.load_error, 7);
		assert_int_equal(judge(&value), turns[i].seen);
	}
}

/* Nor what was deleted while it failed. */
static void a_failure_does_not_bring_back_the_deleted(void **state)
{
	struct place *p = *state;
	struct slow slow = {.p = p, .k = p->k, .deletes = true};
	struct shoal_value value;
	unsigned age;

	for (age = 1500; age < 3000; age += 1000) {
		assert_set(p->k, "a", "x");
		pass_ms(p->clock, age);
		assert_int_equal(shoal_fetch(p->k, STR("a"), slow_failing, &slow, &value), SHOAL_ERR_LOAD);
		assert_int_equal(value.load_error, 7);
		assert_null(value.data);
		shoal_delete(p->k, STR("a"));
	}
}

/* What is shorter than any resolution ends all the same. */
static void short_lives_end(void **state)
{
	struct shoal_policy policy = {.fresh_ms = 1, .stale_ms = 1, .error_ms = 1, .retry_ms = 1,
	                              .jitter_permille = 1000, .early = -1, .lease_ms = 1};
	struct place *p = *state;
	struct shoal_keyspace *k;
	struct shoal_load *load;
	char name[16];
	int i;

	for (policy.fresh_ms = 1; policy.fresh_ms < 20; policy.fresh_ms++) {
		snprintf(name, sizeof(name), "short%u", policy.fresh_ms);
		k = keyspace(p->cache, name, &policy);
		for (i = 0; i < 50; i++) {
			assert_set(k, "a", "x");
			assert_gives(k, "a", "x"); /* for one millisecond at least */
			pass_ms(p->clock, policy.fresh_ms + 1);
			assert_misses(k, "a");
			pass_ms(p->clock, 1);
			load = begins(k, "a", SHOAL_LEAD);
			assert_null(shoal_load_previous(load));
			assert_fails(load);
			pass_ms(p->clock, 60000);
			load = begins(k, "a", SHOAL_LEAD); /* the failure has been forgotten */
			pass_ms(p->clock, 4);
			shoal_load_cancel(begins(k, "a", SHOAL_LEAD)); /* and the lease is over */
			shoal_load_uncacheable(load, 1);
			shoal_load_publish(load, "x", 1);
			pass_ms(p->clock, 8);
			load = begins(k, "a", SHOAL_LEAD);
			shoal_load_cancel(load);
			shoal_delete(k, STR("a"));
		}
	}
	assert_int_equal(shoal_set_ttl(p->k, STR("none"), "x", 1, SHOAL_NONE, SHOAL_NONE), SHOAL_OK);
	assert_misses(p->k, "none");
	load = begins(p->k, "none", SHOAL_LEAD); /* within error_ms */
	shoal_load_ttl(load, SHOAL_NONE, SHOAL_NONE);
	assert_publishes(load, "x", SHOAL_OK);
	assert_misses(p->k, "none");
}

/* ---- jitter ------------------------------------------------------------------------------------------------ */

enum { KEYS = 10000, BINS = 10 };

struct ends {
	int64_t least, most;
	unsigned n, bins[BINS + 1];
	int64_t from, width;
};

static int note_end(const struct shoal_entry *entry, void *arg)
{
	struct ends *ends = arg;
	int64_t left = entry->fresh_left_ms, bin = (left - ends->from) * BINS / ends->width;

	ends->n++;
	ends->least = left < ends->least ? left : ends->least;
	ends->most = left > ends->most ? left : ends->most;
	ends->bins[bin < 0 ? 0 : bin > BINS ? BINS : bin]++;
	assert_int_equal(entry->stale_left_ms, left + 1000);
	return 0;
}

/* All at one instant, set or loaded. */
static struct ends spread(uint32_t permille, bool loaded)
{
	struct shoal_policy policy = {.fresh_ms = 60000, .stale_ms = 1000, .jitter_permille = permille, .early = -1};
	struct place p = open_place(NULL, &(struct shoal_config){.size = 16 << 20, .mean_entry = 100});
	struct shoal_keyspace *k = keyspace(p.cache, "jitter", &policy);
	uint32_t share = permille == SHOAL_NONE ? 0 : permille ? permille : 50;
	struct ends ends = {.least = INT64_MAX, .from = 60000 - 60 * share, .width = share ? 60 * share : 1};
	struct shoal_load *load;
	struct shoal_value value;
	uint32_t i;

	for (i = 0; i < KEYS; i++) {
		if (!loaded) {
			assert_int_equal(shoal_set(k, &i, sizeof(i), "x", 1), SHOAL_OK);
			continue;
		}
		assert_int_equal(shoal_begin(k, &i, sizeof(i), &load, &value), SHOAL_LEAD);
		assert_publishes(load, "x", SHOAL_OK);
	}
	assert_int_equal(shoal_scan(p.cache, "jitter", note_end, &ends), SHOAL_OK);
	assert_int_equal(ends.n, KEYS);
	printf("# %u keys %s at once, fresh for 60,000 ms, jitter %u permille: %" PRId64 " to %" PRId64 " ms left\n",
	       ends.n, loaded ? "loaded" : "set", share, ends.least, ends.most);
	close_place(&p);
	return ends;
}

static void ends_are_spread(void **state)
{
	static const uint32_t shares[] = {50, 0, 500, 1000}; /* 0: the default, 50 */
	struct ends ends;
	size_t i, loaded, bin;

	for (i = 0; i < COUNT(shares); i++)
		for (loaded = 0; loaded < 2; loaded++) {
			ends = spread(shares[i], loaded);
			assert_true(ends.most <= 60000 && ends.least >= ends.from);
			assert_true(ends.least < ends.from + ends.width / 100);
			assert_true(ends.most > 60000 - ends.width / 100);
			for (bin = 0; bin < BINS; bin++)
				assert_in_range(ends.bins[bin], KEYS / BINS / 4 * 3, KEYS / BINS / 4 * 5);
		}
}

static void without_jitter_ends_are_exact(void **state)
{
	struct ends ends;
	int loaded;

	for (loaded = 0; loaded < 2; loaded++) {
		ends = spread(SHOAL_NONE, loaded);
		assert_int_equal(ends.least, 60000);
		assert_int_equal(ends.most, 60000);
	}
}

/* ---- early refresh ----------------------------------------------------------------------------------------- */

enum { LIFE = 70, COST = 5, READS = 12 };

struct hot {
	struct shoal_keyspace *handles[4];
	unsigned wrong, refreshes, doubles;
	uint64_t left_sum; /* when it was refreshed */
};

/* A key that is read READS times a millisecond, whose loads take COST. */
static struct hot keep_hot(struct place *p, const char *name, const struct shoal_policy *policy, unsigned periods)
{
	struct hot hot = {0};
	struct shoal_load *load, *in_hand;
	struct shoal_value value;
	uint64_t generation = 0, age = 0;
	unsigned i, taken = 0;
	int r;

	for (i = 0; i < COUNT(hot.handles); i++)
		hot.handles[i] = keyspace(p->cache, name, policy);
	in_hand = begins(hot.handles[0], "hot", SHOAL_LEAD);
	pass_ms(p->clock, COST);
	assert_publishes(in_hand, "x", SHOAL_OK);
	in_hand = NULL;
	while (hot.refreshes < periods && !hot.wrong) {
		for (i = 0; i < READS; i++) {
			r = shoal_begin(hot.handles[i % COUNT(hot.handles)], STR("hot"), &load, &value);
			if (r == SHOAL_REFRESH) {
				hot.doubles += in_hand != NULL || value.generation == generation;
				in_hand = load;
				generation = value.generation;
				hot.left_sum += LIFE - age;
			}
			hot.wrong += (r != SHOAL_OK && r != SHOAL_REFRESH) || value.freshness != SHOAL_FRESH;
			shoal_release(&value);
		}
		pass_ms(p->clock, 1);
		age++;
		if (in_hand && ++taken == COST) {
			hot.wrong += shoal_load_publish(in_hand, "x", 1) != SHOAL_OK;
			hot.refreshes++;
			in_hand = NULL;
			age = taken = 0;
		}
	}
	shoal_load_cancel(in_hand);
	return hot;
}

/* 12 draws a millisecond: that none of them wins by the last 5 ms has a chance of exp(-12 * 5 / e) = 3e-10. */
/* For ever is the largest number of milliseconds but one, and more than that. */
static void for_ever_is_not_49_days(void **state)
{
	static const uint32_t fresh[] = {SHOAL_FOREVER, SHOAL_FOREVER - 1};
	static const uint32_t stale[] = {1000, SHOAL_FOREVER - 1, SHOAL_FOREVER};
	struct place p = open_place(NULL, NULL);
	struct shoal_value v;
	unsigned i;

	for (i = 0; i < COUNT(fresh) * COUNT(stale); i++) {
		assert_int_equal(shoal_set_ttl(p.k, STR("a"), "x", 1, fresh[i % 2], stale[i / 2]), SHOAL_OK);
		pass_ms(p.clock, (uint64_t)SHOAL_FOREVER + 200);
		assert_int_equal(shoal_get(p.k, STR("a"), &v), SHOAL_OK);
		assert_int_equal(v.freshness, fresh[i % 2] == SHOAL_FOREVER ? SHOAL_FRESH : SHOAL_STALE);
		shoal_release(&v);
	}
	close_place(&p);
}

static void a_hot_key_never_misses(void **state)
{
	static const struct shoal_policy policy = {.fresh_ms = LIFE, .jitter_permille = SHOAL_NONE};
	unsigned periods = UNDER_TSAN ? 1000 : 10000;
	struct place *p = *state;
	struct hot hot = keep_hot(p, "hot", &policy, periods);
	struct shoal_keyspace_stats counts = counts_of(hot.handles[0]);

	printf("# %u periods of %d ms, loads of %d ms: %" PRIu64 " loads, refreshed %.1f ms before the end\n",
	       hot.refreshes, LIFE, COST, counts.loads, (double)hot.left_sum / hot.refreshes);
	assert_int_equal(hot.wrong, 0);
	assert_int_equal(hot.doubles, 0);
	assert_int_equal(hot.refreshes, periods);
	assert_int_equal(counts.loads, periods + 1);
	assert_int_equal(counts.early_refreshes, periods);
	assert_int_equal(counts.misses, 1);
	assert_int_equal(counts.hits_stale, 0);
	assert_true(hot.left_sum / hot.refreshes < 8 * COST); /* not long before it has to be */
	assert_int_equal(counts.load_ns_sum, (periods + 1) * UINT64_C(1000000) * COST);
}

/* The more, the earlier. */
static void beta_sets_how_early(void **state)
{
	struct shoal_policy policy = {.fresh_ms = LIFE, .jitter_permille = SHOAL_NONE, .early = 1};
	struct place *p = *state;
	double left[3];
	char name[16];
	size_t i;

	for (i = 0; i < 3; i++, policy.early *= 1.6f) {
		struct hot hot;

		snprintf(name, sizeof(name), "beta%zu", i);
		hot = keep_hot(p, name, &policy, 300);
		assert_int_equal(hot.wrong + hot.doubles, 0);
		left[i] = (double)hot.left_sum / hot.refreshes;
	}
	printf("# beta 1, 1.6, 2.56: refreshed %.1f, %.1f, %.1f ms before the end\n", left[0], left[1], left[2]);
	assert_true(left[0] + 2 < left[1] && left[1] + 2 < left[2]);
}

/* Nothing to be early for: refused, never ending, or a value whose load cost nothing. */
static void not_early(void **state)
{
	static const struct shoal_policy policies[] = {
		{.fresh_ms = LIFE, .stale_ms = 10, .jitter_permille = SHOAL_NONE, .early = -1},
		{.fresh_ms = SHOAL_FOREVER, .stale_ms = 10, .jitter_permille = SHOAL_NONE},
		{.fresh_ms = LIFE, .stale_ms = 10, .jitter_permille = SHOAL_NONE},
		{.fresh_ms = LIFE * 1000, .stale_ms = 10, .jitter_permille = SHOAL_NONE}, /* far from the end */
	};
	struct place *p = *state;
	struct shoal_keyspace *k;
	struct shoal_load *load;
	char name[16];
	size_t i;
	int n;

	for (i = 0; i < COUNT(policies); i++) {
		snprintf(name, sizeof(name), "policy%zu", i);
		k = keyspace(p->cache, name, &policies[i]);
		load = begins(k, "hot", SHOAL_LEAD);
		pass_ms(p->clock, i == 2 ? 0 : COST);
		assert_publishes(load, "x", SHOAL_OK);
		for (n = 0; n < LIFE * READS; n++) {
			begins(k, "hot", SHOAL_OK);
			if (n % READS == READS - 1)
				pass_ms(p->clock, 1);
		}
		assert_int_equal(counts_of(k).early_refreshes, 0);
		assert_int_equal(counts_of(k).loads, 1);
		assert_int_equal(counts_of(k).hits_fresh, LIFE * READS);
	}
}

/* exp(-left / cost) of the readers, right after a load, too, if it was held up: 20 s of a life of 60 s is one in 20. So
 * a load that the machine stalled is soon repeated, well within its lease, and nobody waits for it. */
static void what_was_held_up_is_refreshed_soon(void **state)
{
	enum { STALLED = 1000, STALL_MS = 20000 };
	static const struct shoal_policy policy = {.fresh_ms = 60000, .jitter_permille = SHOAL_NONE};
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "stalled", &policy);
	struct shoal_load *load;
	struct shoal_value value;
	unsigned i, early;
	char key[16];
	int r;

	for (i = 0; i < STALLED; i++) {
		snprintf(key, sizeof(key), "%u", i);
		load = begins(k, key, SHOAL_LEAD);
		pass_ms(p->clock, STALL_MS);
		assert_publishes(load, "x", SHOAL_OK);
		r = shoal_begin(k, STR(key), &load, &value);
		assert_true(r == SHOAL_OK || r == SHOAL_REFRESH);
		assert_int_equal(value.freshness, SHOAL_FRESH);
		shoal_release(&value);
		shoal_load_cancel(load);
	}
	early = (unsigned)counts_of(k).early_refreshes;
	printf("# loads held up for a third of their life: %u of %d refreshed by the next reader, 50 expected\n", early,
	       STALLED);
	assert_in_range(early, 10, 110); /* 50 +- 7 */
	assert_int_equal(counts_of(k).loads, STALLED + early);
}

/* While it runs, and while its failure is remembered, the others have the fresh value; so has who refreshed. */
static void an_early_refresh_may_fail(void **state)
{
	static const struct shoal_policy policy = {.fresh_ms = LIFE, .jitter_permille = SHOAL_NONE, .early = 1000};
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "early", &policy);
	struct shoal_load *load = begins(k, "hot", SHOAL_LEAD);
	struct shoal_value value;
	int i, r;

	pass_ms(p->clock, COST);
	assert_publishes(load, "x", SHOAL_OK);
	for (i = 0; i < 100; i++) {
		r = shoal_begin(k, STR("hot"), &load, &value);
		assert_true(r == SHOAL_OK || r == SHOAL_REFRESH);
		assert_true(holds(&value, "x"));
		assert_int_equal(value.freshness, SHOAL_FRESH);
		shoal_release(&value);
		if (r == SHOAL_REFRESH)
			break;
	}
	assert_int_equal(r, SHOAL_REFRESH);
	assert_true(holds(shoal_load_previous(load), "x"));
	for (i = 0; i < 100; i++)
		begins(k, "hot", SHOAL_OK);
	assert_fails(load);
	for (i = 0; i < 100; i++) {
		assert_int_equal(shoal_begin(k, STR("hot"), &load, &value), SHOAL_OK);
		assert_int_equal(value.freshness, SHOAL_FRESH);
		assert_int_equal(value.load_error, 0);
		shoal_release(&value);
	}
	assert_int_equal(counts_of(k).loads, 2);
	assert_int_equal(counts_of(k).hits_stale, 0);
	pass_ms(p->clock, LIFE);
	assert_int_equal(shoal_begin(k, STR("hot"), &load, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, 5);
	shoal_delete(k, STR("hot"));
}

/* ---- failure ----------------------------------------------------------------------------------------------- */

static void remembers(struct shoal_keyspace *k, const void *key, size_t size, int code)
{
	struct shoal_load *load;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, key, size, &load, &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, code);
	assert_null(value.data);
	assert_null(load);
}

/* 100 ms to the millisecond, then twice that and so on, less an eighth at most, up to a minute. */
static void failures_back_off(void **state)
{
	struct place *p = *state; /* retry_ms 100 */
	uint64_t wait, least;
	struct shoal_load *load;
	struct shoal_value value;
	int i, round;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < 16; i++) {
			wait = 100u << i < 60000 ? 100u << i : 60000;
			least = i ? wait / 8 * 7 : wait;
			load = begins(p->k, "a", SHOAL_LEAD);
			assert_int_equal(shoal_load_fail(load, 1000 + i), SHOAL_OK);
			remembers(p->k, STR("a"), 1000 + i);
			pass_ms(p->clock, least - 1);
			remembers(p->k, STR("a"), 1000 + i);
			pass_ms(p->clock, wait - least + 1 + (i ? 3 : 0)); /* the flight's resolution is 4 ms */
		}
		assert_publishes(begins(p->k, "a", SHOAL_LEAD), "x", SHOAL_OK);
		walk(p, p->k, &(struct walk){by_get, 1000, 2000, 2000, .step = 50});
		assert_int_equal(shoal_begin(p->k, STR("a"), &load, &value), SHOAL_LEAD); /* the row has ended */
		assert_int_equal(shoal_load_fail(load, 1), SHOAL_OK);
		pass_ms(p->clock, 99);
		remembers(p->k, STR("a"), 1);
		pass_ms(p->clock, 4);
		load = begins(p->k, "a", SHOAL_LEAD);
		assert_publishes(load, "x", SHOAL_OK);
		shoal_delete(p->k, STR("a"));
	}
}

/* Its own retry_ms, if that is longer than the minute. */
static void a_long_retry_is_kept(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *k;
	int i;

	policy.retry_ms = 300000;
	k = keyspace(p->cache, "long", &policy);
	for (i = 0; i < 3; i++) {
		assert_fails(begins(k, "a", SHOAL_LEAD));
		pass_ms(p->clock, 300000 / 8 * 7 - 1);
		remembers(k, STR("a"), 5);
		pass_ms(p->clock, 300000 / 8 + 5);
	}
	shoal_load_cancel(begins(k, "a", SHOAL_LEAD));
}

/* Keys that failed together are tried again one by one. */
static void retries_are_spread(void **state)
{
	enum { N = 100, RETRY = 8000 };
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_flights = 2048});
	struct shoal_policy policy = steady;
	struct shoal_keyspace *k;
	struct shoal_load *load;
	struct shoal_value value;
	unsigned t, i, n = 0, busiest = 0, now;
	bool again[N] = {false};

	policy.retry_ms = RETRY;
	k = keyspace(p.cache, "spread", &policy);
	for (i = 0; i < 2 * N; i++) {
		if (i == N)
			pass_ms(p.clock, RETRY);
		t = i % N;
		assert_int_equal(shoal_begin(k, &t, sizeof(t), &load, &value), SHOAL_LEAD);
		assert_fails(load);
	}
	pass_ms(p.clock, 2 * RETRY / 8 * 7 - 4);
	for (t = 0; t <= 2 * RETRY / 8 + 8; t += 4, pass_ms(p.clock, 4)) {
		for (now = i = 0; i < N; i++) {
			if (again[i] || shoal_begin(k, &i, sizeof(i), &load, &value) != SHOAL_LEAD)
				continue;
			shoal_load_cancel(load);
			again[i] = true;
			now++;
		}
		assert_true(t || !now);
		n += now;
		busiest = now > busiest ? now : busiest;
	}
	printf("# %d keys that failed twice together: %u at most are tried again within 4 ms\n", N, busiest);
	assert_int_equal(n, N);
	assert_true(busiest <= N / 10);
	close_place(&p);
}

/* ---- not modified ------------------------------------------------------------------------------------------ */

static void kept_is_fresh_again(void **state)
{
	static const unsigned ages[] = {1000, 1999, 2000, 2999};
	struct place *p = *state;
	struct shoal_load *load;
	struct shoal_value value;
	uint64_t generation;
	size_t i;

	for (i = 0; i < COUNT(ages); i++) {
		assert_set(p->k, "a", "x");
		assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
		generation = value.generation;
		shoal_release(&value);
		pass_ms(p->clock, ages[i]);
		load = begins(p->k, "a", ages[i] < 2000 ? SHOAL_REFRESH : SHOAL_LEAD);
		assert_non_null(shoal_load_previous(load));
		assert_true(holds(shoal_load_previous(load), "x"));
		assert_true(shoal_load_previous(load)->generation == generation);
		assert_int_equal(shoal_load_previous(load)->age_ms, ages[i]);
		pass_ms(p->clock, 100);
		assert_int_equal(shoal_load_keep(load), SHOAL_OK);
		walk(p, p->k, &(struct walk){by_fetch, 1000, 2000, 3000, .step = 50});
	}
	assert_int_equal(stats_of(p->cache).pins, 0);
}

static void kept_has_the_life_it_is_given(void **state)
{
	struct place *p = *state;
	struct shoal_load *load;

	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 1500);
	load = begins(p->k, "a", SHOAL_REFRESH);
	shoal_load_ttl(load, 100, SHOAL_NONE);
	assert_int_equal(shoal_load_keep(load), SHOAL_OK);
	walk(p, p->k, &(struct walk){by_get, 100, 100, 100, .step = 50});
}

static void nothing_to_keep(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = begins(p->k, "a", SHOAL_LEAD);

	assert_null(shoal_load_previous(load));
	assert_int_equal(shoal_load_keep(load), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_load_keep(NULL), SHOAL_ERR_INVALID);
	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 3000); /* over every bound */
	load = begins(p->k, "a", SHOAL_LEAD);
	assert_null(shoal_load_previous(load));
	assert_int_equal(shoal_load_keep(load), SHOAL_ERR_INVALID);
	assert_misses(p->k, "a");
}

/* What was deleted or replaced meanwhile stays so. */
static void keep_brings_nothing_back(void **state)
{
	struct place *p = *state;
	struct shoal_load *load;

	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 1500);
	load = begins(p->k, "a", SHOAL_REFRESH);
	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_OK);
	assert_true(holds(shoal_load_previous(load), "x")); /* valid until the load ends */
	assert_int_equal(shoal_load_keep(load), SHOAL_ERR_SUPERSEDED);
	assert_misses(p->k, "a");
	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 1500);
	load = begins(p->k, "a", SHOAL_REFRESH);
	assert_set(p->k, "a", "newer");
	assert_int_equal(shoal_load_keep(load), SHOAL_ERR_SUPERSEDED);
	assert_gives(p->k, "a", "newer");
}

static int keeping(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	assert_true(holds(shoal_load_previous(load), "x"));
	return shoal_load_keep(load);
}

static void a_fetch_may_keep(void **state)
{
	struct place *p = *state;
	struct shoal_value value;

	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 2500);
	assert_int_equal(shoal_fetch(p->k, STR("a"), keeping, NULL, &value), SHOAL_OK);
	assert_true(holds(&value, "x"));
	assert_int_equal(value.source, SHOAL_LOADED);
	assert_int_equal(value.freshness, SHOAL_FRESH);
	shoal_release(&value);
	walk(p, p->k, &(struct walk){by_get, 1000, 2000, 2000, .step = 50});
}

/* ---- loads within loads ------------------------------------------------------------------------------------ */

struct nest {
	struct place *p;
	struct shoal_keyspace *k, *same;
	int depth, outcomes[3];
	bool stale;
};

static int nested(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct nest *nest = arg;
	struct shoal_load *step;
	struct shoal_value value;
	char next = (char)('a' + ++nest->depth);

	if (nest->depth < 3) {
		if (!shoal_fetch(nest->k, &next, 1, nested, nest, &value))
			shoal_release(&value);
	} else { /* of the outermost key: by fetch, by another handle, in steps */
		nest->outcomes[0] = shoal_fetch(nest->k, "a", 1, nested, nest, &value);
		nest->stale = value.data && value.freshness == SHOAL_STALE;
		shoal_release(&value);
		nest->outcomes[1] = shoal_fetch(nest->same, "a", 1, nested, nest, &value);
		shoal_release(&value);
		nest->outcomes[2] = shoal_begin(nest->k, "a", 1, &step, &value);
		shoal_release(&value);
	}
	return shoal_load_publish(load, key, key_size);
}

/* At once: a wait of the policy's hour would not end. */
static void own_key_is_a_deadlock(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct nest nest = {.p = p};
	struct shoal_value value;
	int i;

	policy.wait_ms = 3600000;
	nest.k = keyspace(p->cache, "nest", &policy);
	nest.same = keyspace(p->cache, "nest", &policy);
	assert_int_equal(shoal_fetch(nest.k, "a", 1, nested, &nest, &value), SHOAL_OK);
	shoal_release(&value);
	for (i = 0; i < 3; i++)
		assert_int_equal(nest.outcomes[i], SHOAL_ERR_DEADLOCK);
	assert_int_equal(counts_of(nest.k).loads, 3);
	assert_gives(nest.k, "a", "a");
	pass_ms(p->clock, 1500); /* a refresh is no deadlock: there is a value to give */
	nest.depth = 0;
	assert_int_equal(shoal_fetch(nest.k, "a", 1, nested, &nest, &value), SHOAL_OK);
	shoal_release(&value);
	for (i = 0; i < 3; i++)
		assert_int_equal(nest.outcomes[i], SHOAL_OK);
	assert_true(nest.stale);
	pass_ms(p->clock, 2500); /* within error_ms it is one */
	nest.depth = 0;
	assert_int_equal(shoal_fetch(nest.k, "a", 1, nested, &nest, &value), SHOAL_OK);
	shoal_release(&value);
	for (i = 0; i < 3; i++)
		assert_int_equal(nest.outcomes[i], SHOAL_ERR_DEADLOCK);
}

/* ---- leases ------------------------------------------------------------------------------------------------ */

static struct shoal_keyspace *short_leases(struct place *p)
{
	struct shoal_policy policy = steady;

	policy.lease_ms = 400;
	return keyspace(p->cache, "lease", &policy);
}

/* Five leases long: one more load each, and no more however many ask; the first to publish fills the cache. */
static void a_lease_gives_one_more_load(void **state)
{
	enum { LEASES = 5 };
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *leaders[LEASES + 1], *waiters[3];
	struct shoal_value value;
	int i, t, n, heirs, last;

	for (last = 0; last <= LEASES; last++) { /* it is the last-th that publishes first */
		leaders[0] = begins(k, "a", SHOAL_LEAD);
		for (n = 0; n < 3; n++)
			waiters[n] = begins(k, "a", SHOAL_WAIT);
		for (i = 1; i <= LEASES; i++) {
			for (t = 0; t < 396; t += 36, pass_ms(p->clock, 36))
				for (n = 0; n < 3; n++)
					assert_int_equal(shoal_wait(waiters[n], 0, &value), SHOAL_ERR_TIMEOUT);
			pass_ms(p->clock, 4);
			leaders[i] = begins(k, "a", SHOAL_LEAD);
			for (heirs = n = 0; n < 3; n++)
				heirs += shoal_wait(waiters[n], 0, &value) == SHOAL_LEAD;
			assert_int_equal(heirs, 0);
			shoal_load_cancel(begins(k, "a", SHOAL_WAIT));
		}
		assert_publishes(leaders[last], "first", SHOAL_OK);
		assert_gives(k, "a", "first");
		for (n = 0; n < 3; n++) {
			assert_int_equal(shoal_wait(waiters[n], 0, &value), SHOAL_OK);
			assert_true(holds(&value, "first"));
			shoal_release(&value);
		}
		begins(k, "a", SHOAL_OK);
		for (i = 0; i <= LEASES; i++)
			if (i != last)
				assert_publishes(leaders[i], "later", i < last ? SHOAL_ERR_SUPERSEDED : SHOAL_OK);
		assert_gives(k, "a", last == LEASES ? "first" : "later");
		assert_int_equal(counts_of(k).loads, (LEASES + 1) * (unsigned)(last + 1));
		shoal_delete(k, STR("a"));
	}
}

/* A stale value that is being refreshed too slowly: one more per lease, too. */
static void a_slow_refresh_is_passed_by(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *slow, *heir;

	assert_set(k, "a", "old");
	pass_ms(p->clock, 1000);
	slow = begins(k, "a", SHOAL_REFRESH);
	pass_ms(p->clock, 396);
	begins(k, "a", SHOAL_OK);
	pass_ms(p->clock, 4);
	heir = begins(k, "a", SHOAL_REFRESH);
	begins(k, "a", SHOAL_OK);
	assert_publishes(slow, "slow", SHOAL_OK);
	assert_gives(k, "a", "slow");
	assert_publishes(heir, "heir", SHOAL_OK);
	assert_gives(k, "a", "heir");
	assert_int_equal(counts_of(k).loads, 2);
}

/* Who renews in time is never passed by, a whole day long; who is overdue is told so. */
static void a_leader_renews(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = short_leases(p);
	struct shoal_load *load = begins(k, "a", SHOAL_LEAD), *waiter = begins(k, "a", SHOAL_WAIT), *heir;
	struct shoal_value value;
	int i;

	for (i = 0; i < 1000; i++) {
		pass_ms(p->clock, 396);
		assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_ERR_TIMEOUT);
		assert_int_equal(shoal_load_renew(load), SHOAL_OK);
	}
	assert_int_equal(counts_of(k).loads, 1);
	pass_ms(p->clock, 404);
	heir = begins(k, "a", SHOAL_LEAD);
	assert_int_equal(shoal_load_renew(load), SHOAL_ERR_SUPERSEDED);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_ERR_TIMEOUT);
	assert_publishes(load, "slow", SHOAL_OK);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_OK);
	assert_true(holds(&value, "slow"));
	shoal_release(&value);
	shoal_load_cancel(heir);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(bounds_end_what_is_looked_up),
		CASE(bounds_end_what_failure_is_bridged_by),
		CASE(bounds_do_not_slide_by_failure),
		CASE(bounds_end_without_stale_or_error),
		CASE(bounds_end_under_a_hung_refresh),
		CASE(bounds_end_when_leaders_die),
		cmocka_unit_test(bounds_end_without_a_permit),
		CASE(bounds_count_from_the_expire),
		CASE(an_expire_by_another_policy_prolongs_nothing),
		CASE(bounds_count_from_the_keyspace_expire),
		CASE(many_keyspace_expires_do_not_prolong),
		CASE(each_value_has_its_own_expire),
		CASE(an_update_has_its_own_bounds),
		CASE(an_update_says_how_long_failure_is_bridged),
		CASE(a_slow_failure_serves_nothing_past_its_bound),
		CASE(a_failure_does_not_bring_back_the_deleted),
		CASE(short_lives_end),
		cmocka_unit_test(ends_are_spread),
		cmocka_unit_test(without_jitter_ends_are_exact),
		CASE(for_ever_is_not_49_days),
		CASE(a_hot_key_never_misses),
		CASE(beta_sets_how_early),
		CASE(not_early),
		CASE(what_was_held_up_is_refreshed_soon),
		CASE(an_early_refresh_may_fail),
		CASE(failures_back_off),
		CASE(a_long_retry_is_kept),
		cmocka_unit_test(retries_are_spread),
		CASE(kept_is_fresh_again),
		CASE(kept_has_the_life_it_is_given),
		CASE(nothing_to_keep),
		CASE(keep_brings_nothing_back),
		CASE(a_fetch_may_keep),
		CASE(own_key_is_a_deadlock),
		CASE(a_lease_gives_one_more_load),
		CASE(a_slow_refresh_is_passed_by),
		CASE(a_leader_renews),
	};

	return cmocka_run_group_tests_name("fresh", tests, NULL, NULL);
}
