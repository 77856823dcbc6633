/* SPDX-License-Identifier: MIT */
/* An extent goes while it is read, pinned, written into and superseded. */
#include "world.h"

/* Three entries fit an extent; of 16 extents two should be free, so that walks move what they keep. */
#define CONFIG {.extents = 16, .extent_size = 256}

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1) || weave_is_dead(2);
}

static uint32_t extent_with(const char *text)
{
	struct key k = weave_key(text);
	struct index_hit hit = {0};
	uint32_t x = UINT32_MAX;

	if (index_find(weave_seat(), &k, WANT_NEWEST, READING, OTHER, &hit)) {
		x = extent_of(weave_segment(), SLOT_BYTES(hit.word));
		rcu_clear(weave_seat(), hit.announced);
	}
	return x;
}

/* "k" was hit and lies in a sealed extent beside one that was not: a walk moves the one and drops the other. */
static void sealed(void)
{
	weave_must(!weave_put("k", 9));
	weave_must(!weave_put("cold", 8));
	weave_seal_heads();
	weave_hit("k");
	w32_store(&weave_segment()->header->room_wanted, 0);
	weave_must(extent_with("k") == 0);
}

/* One extent is free where two should be: a walk that has room to move. */
static void room_to_move(void)
{
	sealed();
	weave_occupy(2);
}

static void room_for_two(void)
{
	sealed();
	weave_occupy(3);
}

/* None is free: all that a walk meets goes. */
static void no_room(void)
{
	sealed();
	weave_occupy(1);
}

static void evict(void)
{
	room_make(weave_seat());
}

static void evict_and_reuse(void)
{
	room_make(weave_seat());
	weave_put("x", 5);
	weave_put("y", 6);
}

static void read_in_place(void)
{
	uint32_t seen;
	unsigned i;

	for (i = 0; i < 2; i++) {
		seen = weave_get("k", NULL);
		if (seen && seen != 9)
			weave_fail("E.2: %u is another key's value", seen);
	}
}

/* A hit entry moves; no reader misses it meanwhile. */
static void read_and_find(void)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		if (weave_get("k", NULL) != 9)
			weave_fail("room.c: a reader missed an entry that was moved");
}

static void read_pinned(void)
{
	struct shoal_value value;
	uint32_t seen;
	unsigned i;

	if (shoal_get(weave_keyspace(), "k", 1, &value))
		return;
	for (i = 0; i < 3; i++) {
		seen = weave_value(&value);
		if (seen != 9)
			weave_fail("E.2: %u in place of a pinned value", seen);
	}
	shoal_release(&value);
}

static void still_there(void)
{
	uint32_t seen;

	weave_must(weave_get("k", NULL) == 9);
	weave_must(weave_count("k") == 1);
	if (any_dead())
		weave_recover(); /* which may evict it */
	seen = weave_get("k", NULL);
	weave_must(seen == 9 || (!seen && any_dead()));
}

static void whole(void)
{
	uint32_t seen = weave_get("k", NULL);

	weave_must(!seen || seen == 9);
}

/* ---- evict against change ---------------------------------------------------------------------------------- */

static void set_2(void)
{
	int r = weave_put("k", 2);

	/* while the other holds what there is; then none is there */
	weave_must(r == SHOAL_OK || r == SHOAL_ERR_NO_SPACE);
	if (weave_get("k", NULL) == 9)
		weave_fail("I.2: the eviction brought the older value back");
}

static void set_stays(void)
{
	uint32_t seen = weave_get("k", NULL);

	weave_must(weave_count("k") <= 1 || any_dead());
	weave_must(!seen || seen == 2 || weave_is_dead(1)); /* its own walk may have dropped it */
	if (any_dead())
		weave_recover();
}

static void delete_k(void)
{
	shoal_delete(weave_keyspace(), "k", 1);
	if (weave_get("k", NULL))
		weave_fail("I.2: the eviction brought a deleted value back");
}

static void gone(void)
{
	weave_must(any_dead() || !weave_count("k"));
	if (any_dead())
		weave_recover();
	weave_must(weave_is_dead(1) || !weave_get("k", NULL));
}

/* An older duplicate in the extent that goes, or the newer one. */
static void duplicate(void)
{
	sealed();
	weave_duplicate("k", 10);
	weave_seal_heads();
	w32_store(&weave_segment()->header->room_wanted, 0);
}

static void duplicates_in_two(void)
{
	duplicate();
	weave_occupy(3);
}

static void evict_twice(void)
{
	room_make(weave_seat());
	room_make(weave_seat());
}

static void never_the_older(void)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		if (weave_get("k", NULL) == 9)
			weave_fail("I.2: the older duplicate is shown");
}

static void not_the_older(void)
{
	if (any_dead())
		weave_recover();
	never_the_older();
}

/* ---- a writer in the extent that goes ----------------------------------------------------------------------- */

static void set_a(void)
{
	weave_must(!weave_put("a", 3));
	weave_must(weave_get("a", NULL) == 3 || w64_load(weave_fact(1)));
}

/* Seals the extent that the other writes into, and evicts what it finds. */
static void seal_and_evict(void)
{
	weave_seal_heads();
	w64_store(weave_fact(1), 1);
	room_make(weave_seat());
	extents_collect(weave_seat());
}

static void anything(void)
{
	uint32_t seen;

	if (any_dead())
		weave_recover();
	seen = weave_get("a", NULL);
	weave_must(!seen || seen == 3);
}

/* ---- heads that are opened while an evictor sweeps ------------------------------------------------------------ */

static void set_c(void)
{
	weave_must(!weave_put("c", 4));
	weave_must(weave_get("c", NULL) == 4);
}

static void set_d(void)
{
	weave_must(!weave_put("d", 5));
	weave_must(weave_get("d", NULL) == 5);
}

/* Takes what was opened and is no head yet for lost. Only what nobody writes into is had. */
static void sweep_and_evict(void)
{
	struct seat *seat = weave_seat();
	uint32_t x;

	log_sweep(seat);
	for (x = 0; x < 2; x++) {
		if (!extents_claim(seat, x))
			continue;
		if (EXTENT_ENTRIES(w64_peek(&weave_segment()->extents[x].counts)))
			extents_move(seat, x, extents_word(weave_segment(), x), EXTENT_SEALED);
		else
			extents_retire(seat, x);
		rcu_clear(seat, WALKING);
	}
	extents_collect(seat);
}

static void both_are_there(void)
{
	weave_must(weave_get("c", NULL) == 4);
	weave_must(weave_get("d", NULL) == 5);
}

/* Either may find no room to move to, and drop. */
static void whole_and_recovered(void)
{
	whole();
	if (any_dead())
		weave_recover();
	whole();
}

/* Each walks what it claimed: nobody else does. */
static void evict_all(void)
{
	struct seat *seat = weave_seat();

	room_make(seat);
	extents_collect(seat);
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "evict against read",
		.holds = "E.2, I.4, room.c: no reader misses what is moved",
		.config = CONFIG,
		.setup = room_to_move,
		.thread = {evict, read_and_find},
		.check = still_there,
		.killable = 1,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "reuse against read",
		.holds = "E.2, I.4",
		.config = CONFIG,
		.setup = no_room,
		.thread = {evict_and_reuse, read_in_place},
		.check = whole,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "pin against reclaim",
		.holds = "E.1, E.2, rcu.h",
		.config = CONFIG,
		.setup = no_room,
		.thread = {evict_and_reuse, read_pinned},
		.check = whole,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "pin against reclaim, fenced",
		.holds = "E.1, E.2, rcu.h: fence mode",
		.config = {.extents = 16, .extent_size = 256, .fence = true},
		.setup = no_room,
		.thread = {evict_and_reuse, read_pinned},
		.check = whole,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "evict against set",
		.holds = "I.1, I.4, E.5",
		.config = CONFIG,
		.setup = room_to_move,
		.thread = {evict, set_2},
		.check = set_stays,
		.killable = 1,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "evict against delete",
		.holds = "I.2, I.4, E.5",
		.config = CONFIG,
		.setup = room_to_move,
		.thread = {evict, delete_k},
		.check = gone,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "evict of duplicates",
		.holds = "I.2, trap 5",
		.config = CONFIG,
		.setup = duplicates_in_two,
		.thread = {evict_twice, never_the_older},
		.check = not_the_older,
		.killable = 1,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "write against evict",
		.holds = "E.1, E.4, L.2, L.3, trap 1",
		.config = CONFIG,
		.setup = room_for_two,
		.thread = {set_a, seal_and_evict},
		.check = anything,
		.killable = 1,
		.stale = 2,
		.least = 5000,
	},
	{
		.name = "racing heads against evict",
		.holds = "E.3, E.4, E.5, L.2",
		.config = {.extents = 4},
		.thread = {set_c, sweep_and_evict, set_d}, /* the outer two begin at one head */
		.check = both_are_there,
		.deep = 2,
		.least = 5000,
	},
	{
		.name = "evict against evict",
		.holds = "E.3, E.5, I.4",
		.config = CONFIG,
		.setup = room_to_move,
		.thread = {evict_all, evict_all},
		.check = whole_and_recovered,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
