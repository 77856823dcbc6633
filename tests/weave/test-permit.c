/* SPDX-License-Identifier: MIT */
/* Permits: so many loads at once and no more, whoever dies, is late, or wants one at the same time. */
#include "load.h"
#include "world.h"

#define LEASE_MS 100

static const char *const keys[] = {"a", "b", "c"};

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2);
}

/* Facts 0, 1, 2: that thread loads, within its lease. */
static void now_i_load(void)
{
	unsigned i, me = weave_me(), others = 0, most = weave_segment()->geometry.max_loads;

	w64_add(weave_fact(me), 1);
	for (i = 0; i < WEAVE_THREADS; i++)
		others += i != me && !weave_is_dead(i) && w64_load(weave_fact(i));
	if (others >= most)
		weave_fail("Q.1: %u loads at once", others + 1);
}

static void i_load_no_more(void)
{
	w64_add(weave_fact(weave_me()), (uint64_t)-1);
}

/* Each a key of its own: only the permit is wanted by several. */
static void load_mine(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), keys[weave_me()], 1, &load, &value);

	if (r == SHOAL_WAIT)
		r = shoal_wait(load, 5000, &value);
	if (r != SHOAL_LEAD)
		weave_fail("Q.4: begin and wait: %d", r);
	now_i_load();
	i_load_no_more();
	weave_must(weave_publish(load, weave_me() + 1) == SHOAL_OK);
	*weave_note(weave_me(), 0) = 1;
}

static void all_given_back(void)
{
	unsigned i;

	if (any_dead())
		weave_recover();
	for (i = 0; i < weave_segment()->geometry.readers; i++)
		if (w64_load(&weave_segment()->permits[i].word))
			weave_fail("Q.3: permit %u is held for ever", i);
	for (i = 0; i < WEAVE_THREADS; i++)
		if (*weave_note(i, 0))
			weave_must(weave_get(keys[i], NULL) == i + 1);
}

/* ---- a holder whose lease is over ---------------------------------------------------------------------------- */

static void load_if_held(struct shoal_load *load)
{
	if (shoal_load_renew(load) != SHOAL_OK || !permit_is_held(&load->permit))
		return;
	now_i_load();
	i_load_no_more();
}

static void hold_too_long(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), keys[0], 1, &load, &value);

	weave_must(r == SHOAL_LEAD || r == SHOAL_WAIT);
	if (r == SHOAL_LEAD) {
		weave_pass_ms(2 * LEASE_MS);
		load_if_held(load);
	}
	shoal_load_cancel(load);
}

static void load_after_it(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), keys[1], 1, &load, &value);

	weave_must(r == SHOAL_LEAD || r == SHOAL_WAIT);
	if (r == SHOAL_WAIT)
		r = shoal_wait(load, 5000, &value);
	if (r != SHOAL_LEAD)
		weave_fail("Q.4: begin and wait: %d", r);
	load_if_held(load); /* time may have passed since it was had */
	weave_must(weave_publish(load, 2) == SHOAL_OK);
	*weave_note(1, 0) = 1;
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "two want the last permit",
		.holds = "Q.1, Q.3, Q.4",
		.config = {.max_loads = 1, .flights = 4},
		.thread = {load_mine, load_mine},
		.check = all_given_back,
		.killable = 3,
		.stale = 1,
		.least = 5000,
		.slices = true,
	},
	{
		.name = "three want two permits",
		.holds = "Q.1, Q.4",
		.config = {.max_loads = 2, .flights = 4},
		.thread = {load_mine, load_mine, load_mine},
		.check = all_given_back,
		.deep = 2,
		.least = 5000,
	},
	{
		.name = "a permit whose lease is over",
		.holds = "Q.2, trap 14",
		.config = {.max_loads = 1, .flights = 4, .lease_ms = LEASE_MS},
		.thread = {hold_too_long, load_after_it},
		.check = all_given_back,
		.killable = 1,
		.stale = 1,
		.least = 5000,
		.sleeps = true,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
