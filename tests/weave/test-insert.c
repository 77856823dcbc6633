/* SPDX-License-Identifier: MIT */
/* Two writers of one key: racing inserts, set and delete, removal of duplicates. */
#include "world.h"

/* ---- racing first inserts ---------------------------------------------------------------------------------- */

static void set_1(void)
{
	weave_must(!weave_put("k", 1));
	w64_store(weave_fact(0), 1);
}

static void set_2(void)
{
	weave_must(!weave_put("k", 2));
	w64_store(weave_fact(1), 1);
}

/* No reader sees the key go back (I.1), whatever is removed in between. */
static void watch(void)
{
	uint64_t before = 0, now = 0;
	unsigned i;

	for (i = 0; i < 3; i++) {
		if (!weave_get("k", &now))
			continue;
		if (now < before)
			weave_fail("I.1: generation %llu was shown after %llu", (unsigned long long)now,
			           (unsigned long long)before);
		before = now;
	}
}

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2);
}

static void one_is_left(void)
{
	uint64_t generation;

	if (!any_dead()) {
		weave_must(weave_count("k") == 1);
		weave_get("k", &generation);
		weave_must(generation == weave_newest("k"));
		return;
	}
	weave_recover();
	if (!weave_is_dead(0) || !weave_is_dead(1))
		weave_must(weave_get("k", NULL)); /* the living one's, or a newer one */
}

/* ---- insert against delete --------------------------------------------------------------------------------- */

static void set_0(void)
{
	weave_must(!weave_put("k", 9));
}

static void delete_between(void)
{
	uint64_t before = w64_load(weave_fact(1));

	shoal_delete(weave_keyspace(), "k", 1);
	*weave_note(0, 0) = before ? 1 : 2;
	w64_store(weave_fact(0), 1);
	if (before)
		weave_must(!weave_get("k", NULL));
	else
		weave_must(weave_get("k", NULL) != 9);
}

static void set_between(void)
{
	uint64_t before = w64_load(weave_fact(0));

	weave_must(!weave_put("k", 2));
	*weave_note(1, 0) = before ? 1 : 2;
	w64_store(weave_fact(1), 1);
}

/* 9 is gone: never back. What is set after the delete is there, what was set before it is not. */
static void deleted(void)
{
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get("k", NULL);
	weave_must(weave_count("k") <= 1 || any_dead());
	if (*weave_note(0, 0) && seen == 9)
		weave_fail("I.2: a deleted value is back");
	if (*weave_note(0, 0) == 1 && seen)
		weave_fail("C.1: a set before the delete is still there");
	if (*weave_note(1, 0) == 1 && seen != 2)
		weave_fail("C.1: a set after the delete is lost");
}

/* ---- duplicates -------------------------------------------------------------------------------------------- */

static void two_slots(void)
{
	set_0();
	weave_duplicate("k", 10);
	weave_must(weave_count("k") == 2);
}

static void delete_both(void)
{
	shoal_delete(weave_keyspace(), "k", 1);
	w64_store(weave_fact(0), 1);
}

/* The newer one goes last: whoever saw it, or none, never sees the older one again. */
static void never_back(void)
{
	uint32_t before = 10, now;
	unsigned i;

	for (i = 0; i < 3; i++) {
		now = weave_get("k", NULL);
		if (now == 9)
			weave_fail("I.2: the older duplicate is shown, after %u", before);
		if (before == 0 && now)
			weave_fail("I.2: the key is back");
		before = now;
	}
}

static void nothing_older(void)
{
	if (any_dead())
		weave_recover();
	weave_must(weave_get("k", NULL) != 9);
	if (!any_dead())
		weave_must(!weave_count("k"));
}

/* ---- expire against delete ---------------------------------------------------------------------------------- */

static void expire_it(void)
{
	weave_must(shoal_expire(weave_keyspace(), "k", 1) >= 0);
}

static void delete_it(void)
{
	weave_must(shoal_delete(weave_keyspace(), "k", 1) >= 0);
}

/* A copy that expire makes is no newer than what it is made from. */
static void is_gone(void)
{
	if (any_dead())
		weave_recover();
	weave_must(weave_is_dead(1) || !weave_count("k"));
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "expire against delete",
		.holds = "C.1, C.2, I.4",
		.config = {.fresh_ms = 1000, .stale_ms = 10000},
		.setup = set_0,
		.thread = {expire_it, delete_it},
		.check = is_gone,
		.killable = 3,
		.stale = 1,
		.least = 500,
	},
	{
		.name = "racing inserts",
		.holds = "I.1, I.3, C.2",
		.thread = {set_1, set_2},
		.check = one_is_left,
		.killable = 3,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "racing inserts, watched",
		.holds = "I.1, I.4, E.1",
		.thread = {set_1, set_2, watch},
		.check = one_is_left,
		.killable = 3,
		.stale = 1,
		.deep = 2,
		.least = 5000,
	},
	{
		.name = "insert against delete",
		.holds = "C.1, I.2, I.3",
		.setup = set_0,
		.thread = {delete_between, set_between},
		.check = deleted,
		.killable = 3,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "delete of duplicates",
		.holds = "I.2",
		.setup = two_slots,
		.thread = {delete_both, never_back},
		.check = nothing_older,
		.killable = 1,
		.stale = 2,
		.least = 5000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
