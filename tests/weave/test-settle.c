/* SPDX-License-Identifier: MIT */
/* One key in its two buckets: I.6. */
#include "world.h"

static uint64_t older, newer; /* offsets of entries */
static struct index_target second;

/* Two writers have written their entries. One of them found the first bucket rather full when it looked, so it is about
 * to place its own, the newer, in the second bucket. */
static void before_the_index(void)
{
	const struct segment *s = weave_segment();
	struct key key = weave_key("k");

	older = weave_write("k", 1);
	newer = weave_write("k", 2);
	second.slot = &index_second(s, key.hash)->slots[0];
	second.expected = w64_load(second.slot);
}

static uint32_t length_of(uint64_t offset)
{
	return w32_peek(&log_at(weave_segment(), offset)->length);
}

/* A set's last part. */
static void put_older(void)
{
	struct key key = weave_key("k");
	struct index_target target;
	uint64_t word = 0;

	if (!index_place(weave_seat(), &key, log_at(weave_segment(), older)->generation, READING, OTHER, &target)) {
		word = index_word(&key, older, target.own ? target.expected : 0);
		if (!index_commit(weave_segment(), &target, word, length_of(older), UINT64_MAX))
			weave_fail("somebody has taken the slot");
		rcu_clear(weave_seat(), target.announced);
	}
	index_settle(weave_seat(), &key, word, READING, OTHER);
}

/* Another's, which is killed before it has settled, */
static void put_newer_unsettled(void)
{
	struct key key = weave_key("k");

	if (!index_commit(weave_segment(), &second, index_word(&key, newer, 0), length_of(newer), UINT64_MAX))
		weave_fail("somebody has taken the slot");
}

/* or isn't. */
static void put_newer(void)
{
	struct key key = weave_key("k");

	put_newer_unsettled();
	index_settle(weave_seat(), &key, index_word(&key, newer, 0), READING, OTHER);
}

static void look_twice(void)
{
	uint32_t before = weave_get("k", NULL), now = weave_get("k", NULL);

	if (now < before)
		weave_fail("I.6: %u was shown after %u", now, before);
}

/* As a look-up that did not try for a usual hit before. */
static uint64_t look(void)
{
	struct key key = weave_key("k");
	struct index_hit hit;
	uint64_t generation = 0;

	if (store_find(weave_seat(), weave_keyspace(), &key, READING, &hit) == AGE_FRESH) {
		generation = hit.e.entry->generation;
		rcu_clear(weave_seat(), READING);
	}
	return generation;
}

static void look_then_get(void)
{
	uint64_t before = look(), now = before;

	if (weave_get("k", &now) && now < before)
		weave_fail("I.6: generation %llu was shown after %llu", (unsigned long long)now,
		           (unsigned long long)before);
}

static void one_is_left(void)
{
	bool killed = weave_is_dead(0) || weave_is_dead(1);

	if (killed)
		weave_recover();
	weave_must(weave_get("k", NULL) == 2 || killed);
	weave_must(weave_get("k", NULL) == 0 || weave_count("k") == 1 || killed);
}

/* Where the newer one's set does not end. */
static void none_goes_back(void)
{
	if (weave_is_dead(0))
		weave_recover();
	weave_must(weave_get("k", NULL));
}

/* What a set leaves that was killed before it had settled. */
static void unsettled_in_second(void)
{
	before_the_index();
	put_newer_unsettled();
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "into both buckets",
		.holds = "I.1, I.6",
		.setup = before_the_index,
		.thread = {put_older, put_newer, look_twice},
		.check = one_is_left,
		.killable = 3,
		.stale = 1,
		.deep = 4,
		.least = 2000,
	},
	{
		.name = "settled by who reads",
		.holds = "I.6",
		.setup = before_the_index,
		.thread = {put_older, put_newer_unsettled, look_then_get},
		.check = none_goes_back,
		.killable = 1,
		.stale = 1,
		.deep = 4,
		.least = 2000,
	},
	{
		.name = "settled by two who read",
		.holds = "I.6",
		.setup = unsettled_in_second,
		.thread = {put_older, look_twice, look_twice},
		.check = one_is_left,
		.killable = 1,
		.stale = 1,
		.deep = 4,
		.least = 2000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
