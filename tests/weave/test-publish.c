/* SPDX-License-Identifier: MIT */
/* A load that is being published, and what happens to its key meanwhile: no value comes back (promise 3). */
#include "world.h"

static const char *key = "k";

/* Fact 0: the load has begun. Fact 1: the other has happened. */
static void load_and_publish(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	uint64_t happened = w64_load(weave_fact(1));
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	if (r == SHOAL_OK || r == SHOAL_REFRESH)
		shoal_release(&value);
	if (r == SHOAL_LEAD || r == SHOAL_REFRESH) {
		w64_store(weave_fact(0), 1);
		r = weave_publish(load, 1);
		weave_must(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED);
		if (happened && r)
			weave_fail("P.1: a load that began afterwards was superseded");
	} else {
		weave_must(r == SHOAL_OK);
	}
}

static void delete_it(void)
{
	uint64_t begun = w64_load(weave_fact(0));

	shoal_delete(weave_keyspace(), key, 1);
	*weave_note(1, 0) = begun ? 1 : 2;
	w64_store(weave_fact(1), 1);
	if (begun && weave_get(key, NULL))
		weave_fail("P.2: a load that began before the delete shows after it");
}

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2);
}

static void not_resurrected(void)
{
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get(key, NULL);
	if (*weave_note(1, 0) == 1 && seen)
		weave_fail("P.2: a load that began before the delete shows after it");
	if (*weave_note(1, 0) && seen == 9)
		weave_fail("I.2: a deleted value is back");
	weave_must(any_dead() || weave_count(key) <= 1);
}

static void set_it(void)
{
	uint64_t begun = w64_load(weave_fact(0));

	weave_must(!weave_put(key, 2));
	*weave_note(1, 0) = begun ? 1 : 2;
	w64_store(weave_fact(1), 1);
	if (begun && weave_get(key, NULL) != 2)
		weave_fail("P.2: a load that began before the set shows after it");
}

static void the_set_stays(void)
{
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get(key, NULL);
	if (*weave_note(1, 0) == 1 && seen != 2)
		weave_fail("P.2: %u in place of a set after the load began", seen);
	if (*weave_note(1, 0))
		weave_must(seen == 1 || seen == 2);
	weave_must(any_dead() || weave_count(key) == 1);
}

/* The set's value is evicted at once: not even then. */
static void set_and_drop(void)
{
	uint64_t begun = w64_load(weave_fact(0));
	struct index_hit hit = {0};
	struct key k = weave_key(key);
	uint64_t shown = 0, generation;

	weave_must(!weave_put(key, 2));
	if (index_find(weave_seat(), &k, WANT_NEWEST, READING, OTHER, &hit)) {
		shown = hit.e.entry->generation;
		rcu_clear(weave_seat(), hit.announced);
		/* as an eviction does: the older ones first */
		index_remove(weave_seat(), &k, shown + 1, READING, OTHER);
	}
	*weave_note(1, 1) = shown;
	if (weave_get(key, &generation) && generation < shown)
		weave_fail("P.1: generation %llu was shown after %llu", (unsigned long long)generation,
		           (unsigned long long)shown);
	*weave_note(1, 0) = begun ? 1 : 2;
	w64_store(weave_fact(1), 1);
	if (begun && weave_get(key, NULL) == 1)
		weave_fail("P.2: a load that began before the set shows after it");
}

static void not_the_load(void)
{
	uint64_t generation;
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get(key, &generation);
	if (seen && generation < *weave_note(1, 1))
		weave_fail("P.1: a generation is shown after a later one");
	if (*weave_note(1, 0) == 1 && seen == 1)
		weave_fail("P.2: a load that began before the set shows after it");
}

/* ---- over an entry that is there, stale --------------------------------------------------------------------- */

static void stale_one(void)
{
	weave_must(!weave_put(key, 9));
	weave_pass_ms(2000);
}

static void expire_it(void)
{
	uint64_t begun = w64_load(weave_fact(0));
	struct shoal_value value;

	shoal_expire(weave_keyspace(), key, 1);
	*weave_note(1, 0) = begun ? 1 : 2;
	w64_store(weave_fact(1), 1);
	if (!shoal_get(weave_keyspace(), key, 1, &value) && begun && value.freshness == SHOAL_FRESH)
		weave_fail("P.2: a load that began before the expire is fresh after it");
	shoal_release(&value);
}

static void not_fresh(void)
{
	struct shoal_value value;

	if (any_dead())
		weave_recover();
	if (!shoal_get(weave_keyspace(), key, 1, &value) && *weave_note(1, 0) == 1 && value.freshness == SHOAL_FRESH)
		weave_fail("P.2: a load that began before the expire is fresh after it");
	shoal_release(&value);
}

/* ---- an overdue leader and its heir ------------------------------------------------------------------------- */

#define LEASE_MS 100

static void late_publish(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r = shoal_begin(weave_keyspace(), key, 1, &load, &value);

	weave_must(r == SHOAL_LEAD);
	*weave_note(0, 1) = w64_load(&weave_segment()->header->generation);
	w64_store(weave_fact(0), 1);
	weave_pass_ms(2 * LEASE_MS);
	r = weave_publish(load, 1);
	weave_must(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED);
	*weave_note(0, 0) = r ? 2 : 1;
}

static void inherit(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r;

	if (!w64_load(weave_fact(0)))
		return;
	r = shoal_begin(weave_keyspace(), key, 1, &load, &value);
	if (r == SHOAL_OK)
		weave_must(weave_value(&value) == 1);
	shoal_release(&value);
	if (r == SHOAL_WAIT)
		shoal_load_cancel(load);
	if (r != SHOAL_LEAD)
		return;
	r = weave_publish(load, 2);
	if (r == SHOAL_ERR_SUPERSEDED) /* passed by before it had drawn its generation: its load had not begun */
		return;
	weave_must(r == SHOAL_OK);
	*weave_note(1, 0) = 1;
	if (weave_get(key, NULL) != 2)
		weave_fail("F.4: an overdue leader's value in place of its heir's");
}

static void the_heir_stays(void)
{
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get(key, NULL);
	if (*weave_note(1, 0))
		weave_must(seen == 2);
	if (*weave_note(0, 0) == 1)
		weave_must(seen);
}

/* ---- an overdue leader that renews --------------------------------------------------------------------------- */

/* Facts 2 and 3: that one leads within its lease. */
static void lead_alone(unsigned other)
{
	w64_add(weave_fact(2 + !other), 1);
	if (!weave_is_dead(other) && w64_load(weave_fact(2 + other)))
		weave_fail("F.1: both lead, within their leases");
}

static void late_renewal(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;

	weave_must(shoal_begin(weave_keyspace(), key, 1, &load, &value) == SHOAL_LEAD);
	w64_store(weave_fact(0), 1);
	weave_pass_ms(2 * LEASE_MS);
	if (shoal_load_renew(load) == SHOAL_OK) {
		lead_alone(1);
		w64_add(weave_fact(2), (uint64_t)-1);
	}
	shoal_load_cancel(load);
}

static void inherit_alone(void)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;
	int r;

	if (!w64_load(weave_fact(0)))
		return;
	r = shoal_begin(weave_keyspace(), key, 1, &load, &value);
	weave_must(r == SHOAL_LEAD || r == SHOAL_WAIT);
	if (r == SHOAL_LEAD && shoal_load_renew(load) == SHOAL_OK) { /* time may have passed since it was had */
		lead_alone(0);
		w64_add(weave_fact(3), (uint64_t)-1);
	}
	shoal_load_cancel(load);
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "publish against delete",
		.holds = "P.1, P.2, F.3",
		.thread = {load_and_publish, delete_it},
		.check = not_resurrected,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "refresh against delete",
		.holds = "P.1, P.2, F.3, I.2",
		.config = {.fresh_ms = 1000, .stale_ms = 10000},
		.setup = stale_one,
		.thread = {load_and_publish, delete_it},
		.check = not_resurrected,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "publish against set",
		.holds = "P.1, P.2, F.3, C.1, C.2",
		.thread = {load_and_publish, set_it},
		.check = the_set_stays,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "publish against set and eviction",
		.holds = "P.2, F.3, I.3",
		.thread = {load_and_publish, set_and_drop},
		.check = not_the_load,
		.least = 5000,
	},
	{
		.name = "refresh against expire",
		.holds = "P.2, F.3",
		.config = {.fresh_ms = 1000, .stale_ms = 10000},
		.setup = stale_one,
		.thread = {load_and_publish, expire_it},
		.check = not_fresh,
		.killable = 3,
		.least = 5000,
	},
	{
		.name = "heir against late publish",
		.holds = "F.2, F.4, F.6",
		.config = {.lease_ms = LEASE_MS},
		.thread = {late_publish, inherit},
		.check = the_heir_stays,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "heir against late renewal",
		.holds = "F.1, F.4, F.6",
		.config = {.lease_ms = LEASE_MS},
		.thread = {late_renewal, inherit_alone},
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
