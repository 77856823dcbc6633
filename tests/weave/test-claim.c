/* SPDX-License-Identifier: MIT */
/* Who may load: racing claims, claims that are given up, a leader that dies. */
#include "world.h"

static const char *key = "k";

/* Facts 0, 1, 2: that thread leads, within its lease, and has not begun to end it. */
static void now_i_lead(void)
{
	unsigned i, me = weave_me();

	for (i = 0; i < WEAVE_THREADS; i++)
		if (i != me && !weave_is_dead(i) && w64_load(weave_fact(i)))
			weave_fail("F.1: threads %u and %u lead at once", i, me);
	w64_add(weave_fact(me), 1);
	for (i = 0; i < WEAVE_THREADS; i++)
		if (i != me && !weave_is_dead(i) && w64_load(weave_fact(i)))
			weave_fail("F.1: threads %u and %u lead at once", i, me);
}

static void i_lead_no_more(void)
{
	w64_add(weave_fact(weave_me()), (uint64_t)-1);
}

/* Begin, wait if another leads, and load if nobody has: the value is `mine` or another's. */
static uint32_t load_or_get(uint32_t mine)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	uint32_t got = 0;
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	if (r == SHOAL_WAIT)
		r = shoal_wait(load, 5000, &value);
	if (r == SHOAL_OK) {
		got = weave_value(&value);
		shoal_release(&value);
	} else if (r == SHOAL_LEAD) {
		now_i_lead();
		i_lead_no_more();
		r = weave_publish(load, mine);
		if (r)
			weave_fail("F.2: a leader that nobody superseded can't publish: %d", r);
		got = mine;
	} else {
		weave_fail("begin and wait: %d", r);
	}
	*weave_note(weave_me(), 0) = got;
	return got;
}

static void load_1(void)
{
	load_or_get(1);
}

static void load_2(void)
{
	load_or_get(2);
}

static void load_3(void)
{
	load_or_get(3);
}

/* An ORPHAN may be left by the dead: it is anybody's. */
static void nothing_runs(void)
{
	unsigned i;

	for (i = 0; i < weave_segment()->geometry.flights; i++) {
		unsigned state = (unsigned)(w64_load(&weave_segment()->flight_words[i]) & 15);

		if (state >= FLIGHT_CLAIMING && state <= FLIGHT_OVERDUE)
			weave_fail("F.2: flight %u is left in state %u", i, state);
	}
}

/* All have the same value, and it is there. */
static void one_load(void)
{
	uint64_t loads = w64_load(&weave_segment()->keyspaces[0].counters[COUNTER_loads]);
	bool dead = weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2);
	uint32_t seen;
	unsigned i;

	if (loads > (dead ? 2 : 1))
		weave_fail("F.1: %llu loads", (unsigned long long)loads);
	seen = weave_get(key, NULL);
	for (i = 0; i < WEAVE_THREADS; i++)
		if (*weave_note(i, 0) && *weave_note(i, 0) != seen)
			weave_fail("thread %u has %u, %u is there", i, (unsigned)*weave_note(i, 0), seen);
	if (dead) {
		weave_recover();
		weave_must(weave_get(key, NULL) == seen);
	} else {
		weave_must(seen);
	}
	nothing_runs();
}

/* ---- a claim that is given up ------------------------------------------------------------------------------- */

static void claim_and_cancel(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	if (r == SHOAL_LEAD) {
		now_i_lead();
		i_lead_no_more();
		shoal_load_cancel(load);
	} else if (r == SHOAL_WAIT) {
		shoal_load_cancel(load);
	} else {
		weave_must(r == SHOAL_OK);
		shoal_release(&value);
	}
}

static void fail_or_get(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	if (r == SHOAL_LEAD) {
		now_i_lead();
		i_lead_no_more();
		weave_must(shoal_load_fail(load, 42) == SHOAL_OK);
		return;
	}
	if (r == SHOAL_WAIT) {
		r = shoal_wait(load, 5000, &value);
		if (r == SHOAL_ERR_LOAD)
			shoal_load_cancel(load);
	}
	if (r == SHOAL_LEAD) {
		now_i_lead();
		i_lead_no_more();
		shoal_load_fail(load, 42);
	} else if (r == SHOAL_ERR_LOAD) {
		weave_must(value.load_error == 42);
	} else {
		weave_must(r == SHOAL_OK);
		shoal_release(&value);
	}
}

static void recovered(void)
{
	if (weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2))
		weave_recover();
	nothing_runs();
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "two claimants",
		.holds = "F.1, F.5, F.6, promise 2",
		.thread = {load_1, load_2},
		.check = one_load,
		.killable = 3,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "two claimants, threads of one process",
		.holds = "F.1, F.5, trap 12",
		.config = {.threads = 3},
		.thread = {load_1, load_2},
		.check = one_load,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "three claimants",
		.holds = "F.1, F.5",
		.config = {.flights = 3},
		.thread = {load_1, load_2, load_3},
		.check = one_load,
		.deep = 2,
		.least = 5000,
	},
	{
		.name = "takeover of a dead leader",
		.holds = "F.4, F.5, trap 13",
		.config = {.flights = 4},
		.thread = {load_1, load_2, load_3},
		.check = one_load,
		.killable = 1,
		.deep = 2,
		.least = 5000,
	},
	{
		.name = "claim against cancel",
		.holds = "F.1, F.4",
		.thread = {claim_and_cancel, load_2},
		.check = recovered,
		.killable = 1,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "claim against failure",
		.holds = "F.2, F.5",
		.thread = {fail_or_get, fail_or_get},
		.check = recovered,
		.stale = 1,
		.least = 1000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
