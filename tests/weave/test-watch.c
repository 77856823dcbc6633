/* SPDX-License-Identifier: MIT */
/*
 * Who watches a load misses nothing: it registers, looks, dispatches, while others publish, fail, give up, delete,
 * return permits. There is no thread here that sleeps on the bell; the watcher does so itself, as that thread
 * would, and what it then makes of it is shoal_dispatch(). Nobody rings for it and it sleeps till a deadline: a
 * lost wake, and a failure.
 */
#include "futex.h"
#include "load.h"
#include "world.h"

static const char *key = "k";

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2);
}

/* ---- those who end it -------------------------------------------------------------------------------------- */

static struct shoal_load *begin_a_load(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	if (r == SHOAL_OK)
		shoal_release(&value);
	if (r == SHOAL_WAIT)
		shoal_load_cancel(load);
	return r == SHOAL_LEAD ? load : NULL;
}

static void publish_it(void)
{
	struct shoal_load *load = begin_a_load();
	int r;

	if (!load)
		return;
	r = weave_publish(load, 1);
	weave_must(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED);
}

static void fail_it(void)
{
	struct shoal_load *load = begin_a_load();

	if (load)
		shoal_load_fail(load, 7);
}

static void give_it_up(void)
{
	shoal_load_cancel(begin_a_load());
}

static void delete_it(void)
{
	shoal_delete(weave_keyspace(), key, 1);
}

/* ---- the watcher ------------------------------------------------------------------------------------------- */

enum { WOKEN, OUTCOME };

static void woken(struct shoal_load *load, void *arg)
{
	struct shoal_value value;
	int r = shoal_wait(load, 0, &value);

	if (++*weave_note(weave_me(), WOKEN) > 1)
		weave_fail("B.4: woken twice");
	*weave_note(weave_me(), OUTCOME) = (uint64_t)(r + 100);
	if (r == SHOAL_OK)
		weave_must(weave_value(&value) == 1);
	else if (r == SHOAL_LEAD)
		weave_must((r = weave_publish(load, 2)) == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED);
	else if (r == SHOAL_ERR_LOAD)
		shoal_load_cancel(load);
	else
		weave_fail("B.4: woken for nothing: %d", r);
	shoal_release(&value);
}

static void sleep_on_the_bell(void)
{
	const struct segment *s = weave_segment();

	futex_wait(&s->processes[weave_seat()->member->wiped->process].bell, 0, NULL, 0, weave_now_ns() + 250000000);
}

static void watch_and_dispatch(struct shoal_load *load)
{
	weave_must(shoal_watch(load, woken, NULL) == SHOAL_OK);
	weave_must(!*weave_note(weave_me(), WOKEN));
	for (;;) {
		weave_must(shoal_dispatch(weave_cache()) == SHOAL_OK);
		if (*weave_note(weave_me(), WOKEN))
			break;
		if (!weave_cache()->watch->n_due)
			sleep_on_the_bell();
	}
	weave_must(!weave_cache()->watch->n);
}

static void watch_it(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	shoal_release(&value);
	if (r == SHOAL_WAIT)
		watch_and_dispatch(load);
	else if (r == SHOAL_LEAD)
		shoal_load_cancel(load);
	else
		weave_must(r == SHOAL_OK || r == SHOAL_ERR_LOAD);
}

static void nothing_is_left(void)
{
	unsigned i;

	if (any_dead())
		weave_recover();
	for (i = 0; i < weave_segment()->geometry.readers; i++)
		weave_must(!w64_load(&weave_segment()->permits[i].word));
}

/* ---- permits ----------------------------------------------------------------------------------------------- */

static const char *const keys[] = {"a", "b", "c"};

static void load_mine(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), keys[weave_me()], 1, &load, &value);

	if (r == SHOAL_WAIT)
		r = shoal_wait(load, 5000, &value);
	weave_must(r == SHOAL_LEAD);
	weave_must(weave_publish(load, 2) == SHOAL_OK);
}

static void watch_for_a_permit(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), keys[weave_me()], 1, &load, &value);

	if (r == SHOAL_LEAD)
		weave_must(weave_publish(load, 2) == SHOAL_OK);
	else
		watch_and_dispatch(load);
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "watch against publish",
		.holds = "B.1, B.2, B.4, trap 15",
		.thread = {publish_it, watch_it},
		.check = nothing_is_left,
		.killable = 1,
		.stale = 1,
		.least = 2000,
		.slices = true,
	},
	{
		.name = "watch against failure",
		.holds = "B.1, B.2",
		.thread = {fail_it, watch_it},
		.check = nothing_is_left,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "watch against a leader that gives up",
		.holds = "B.1, B.2",
		.thread = {give_it_up, watch_it},
		.check = nothing_is_left,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "watch against publish and delete",
		.holds = "B.1, B.2",
		.thread = {publish_it, watch_it, delete_it},
		.check = nothing_is_left,
		.deep = 2,
		.least = 2000,
	},
	{
		.name = "two watch one load",
		.holds = "B.1, B.2, B.9",
		.config = {.flights = 4}, /* or a third claimant finds none, and loads uncoalesced */
		.thread = {publish_it, watch_it, watch_it},
		.check = nothing_is_left,
		.deep = 2,
		.least = 2000,
	},
	{
		.name = "watch for a permit",
		.holds = "B.1, B.2, Q.4",
		.config = {.max_loads = 1, .flights = 4},
		.thread = {load_mine, watch_for_a_permit},
		.check = nothing_is_left,
		.killable = 1,
		.stale = 1,
		.least = 2000,
		.slices = true,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
