/* SPDX-License-Identifier: MIT */
/* A whole keyspace is deleted or expired while one of its keys is set, loaded and read (trap 7). */
#include "world.h"

static const char *key = "k";

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1);
}

static void one_there(void)
{
	weave_must(!weave_put(key, 9));
}

/* Fact 0: the set or load has begun; fact 1: it has ended; fact 2: the barrier stands. */
static void set_2(void)
{
	uint64_t stands = w64_load(weave_fact(2));

	w64_store(weave_fact(0), 1);
	weave_must(!weave_put(key, 2));
	w64_store(weave_fact(1), 1);
	*weave_note(0, 0) = stands ? 2 : 1;
}

static void load_2(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	uint64_t stands = w64_load(weave_fact(2));
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	if (r == SHOAL_OK || r == SHOAL_REFRESH)
		shoal_release(&value);
	if (r != SHOAL_LEAD && r != SHOAL_REFRESH) {
		weave_must(r == SHOAL_OK);
		return;
	}
	w64_store(weave_fact(0), 1);
	r = weave_publish(load, 2);
	weave_must(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED);
	if (stands && r)
		weave_fail("P.1: a load that began after the barrier was superseded");
	if (!r)
		*weave_note(0, 0) = stands ? 2 : 1;
}

/* What began before is gone: a load from its begin, a set from its end. */
static void delete_all(unsigned fact)
{
	uint64_t before = w64_load(weave_fact(fact));
	uint32_t seen;

	weave_must(!shoal_keyspace_delete(weave_keyspace()));
	*weave_note(1, 0) = before ? 1 : 2;
	w64_store(weave_fact(2), 1);
	seen = weave_get(key, NULL);
	if (seen == 9 || (before && seen))
		weave_fail("barrier: %u shows after its keyspace was deleted", seen);
}

static void delete_after_set(void)
{
	delete_all(1);
}

static void delete_after_load(void)
{
	delete_all(0);
}

static void is_deleted(void)
{
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get(key, NULL);
	if (*weave_note(1, 0) && seen == 9)
		weave_fail("barrier: a deleted value is back");
	if (*weave_note(1, 0) == 1 && seen)
		weave_fail("barrier: %u is back after its keyspace was deleted", seen);
	if (*weave_note(0, 0) == 2 && seen != 2)
		weave_fail("barrier: what was stored after the barrier is not there");
}

static bool shows_fresh(void)
{
	struct shoal_value value;
	bool fresh;

	if (shoal_get(weave_keyspace(), key, 1, &value))
		return false;
	fresh = value.freshness == SHOAL_FRESH;
	shoal_release(&value);
	return fresh;
}

static void expire_all(unsigned fact)
{
	uint64_t before = w64_load(weave_fact(fact));

	weave_must(!shoal_keyspace_expire(weave_keyspace()));
	*weave_note(1, 0) = before ? 1 : 2;
	w64_store(weave_fact(2), 1);
	if (before && shows_fresh())
		weave_fail("barrier: fresh after its keyspace was expired");
}

static void expire_after_set(void)
{
	expire_all(1);
}

static void expire_after_load(void)
{
	expire_all(0);
}

static void is_expired(void)
{
	if (any_dead())
		weave_recover();
	if (*weave_note(1, 0) == 1 && shows_fresh())
		weave_fail("barrier: fresh again after its keyspace was expired");
	if (*weave_note(0, 0) == 2 && !any_dead() && !shows_fresh())
		weave_fail("barrier: what was stored after the barrier is not fresh");
	weave_must(any_dead() || !*weave_note(0, 0) || weave_get(key, NULL)); /* stale, not lost */
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "keyspace delete against set",
		.holds = "promise 3, trap 7",
		.setup = one_there,
		.thread = {set_2, delete_after_set},
		.check = is_deleted,
		.killable = 3,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "keyspace delete against load",
		.holds = "promise 3, P.1, trap 7",
		.thread = {load_2, delete_after_load},
		.check = is_deleted,
		.killable = 3,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "keyspace expire against set",
		.holds = "promise 3, trap 7",
		.config = {.stale_ms = 10000},
		.setup = one_there,
		.thread = {set_2, expire_after_set},
		.check = is_expired,
		.killable = 3,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "keyspace expire against load",
		.holds = "promise 3, P.1, trap 7",
		.config = {.stale_ms = 10000},
		.thread = {load_2, expire_after_load},
		.check = is_expired,
		.killable = 2,
		.stale = 1,
		.least = 1000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
