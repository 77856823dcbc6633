/* SPDX-License-Identifier: MIT */
/* What the dead held, given back by several at once, one of whom may be late, or die. */
#include "world.h"

static bool any_dead(void)
{
	return weave_is_dead(0) || weave_is_dead(1);
}

/* Thread 2 died while it led a load, evicted an extent, held a head's lock, had announced and pinned. */
static void died_amid(void)
{
	const struct segment *s = weave_segment();
	struct shoal_value value;
	struct shoal_load *load;
	struct seat *seat;

	weave_must(!weave_put("k", 9));
	weave_seal_heads();
	weave_must(!weave_put("other", 8));
	weave_act_as(2);
	seat = weave_seat();
	weave_must(shoal_begin(weave_keyspace(), "led", 3, &load, &value) == SHOAL_LEAD);
	weave_must(!shoal_get(weave_keyspace(), "other", 5, &value));
	weave_must(extents_claim(seat, 0));
	w64_store(&s->extents[1].lock, seat->tag | (seat->index + 1));
	rcu_announce(seat, WRITING, 1);
}

static void use_it(void)
{
	struct shoal_value value, again;
	struct shoal_load *load = NULL;
	uint32_t me = weave_me() + 1, seen;
	int r;

	r = shoal_begin(weave_keyspace(), "led", 3, &load, &value);
	if (r == SHOAL_LEAD)
		r = weave_publish(load, me);
	else if (r == SHOAL_WAIT)
		shoal_load_cancel(load);
	else
		weave_must(r == SHOAL_OK);
	shoal_release(&value);
	if (shoal_get(weave_keyspace(), "other", 5, &value))
		weave_fail("what nobody removed is not there");
	shoal_get(weave_keyspace(), "k", 1, &again);
	seen = weave_value(&value);
	weave_must(seen == 8);
	if (store_hold(&value)->pin && !w64_load(&weave_seat()->reader->words[store_hold(&value)->pin]))
		weave_fail("R.2: a late recoverer cleared a new owner's pin");
	shoal_release(&again);
	shoal_release(&value);
}

static void hold_a_pin(void)
{
	struct shoal_value value;

	weave_must(!shoal_get(weave_keyspace(), "other", 5, &value));
	weave_must(weave_value(&value) == 8);
	if (store_hold(&value)->pin && !w64_load(&weave_seat()->reader->words[store_hold(&value)->pin]))
		weave_fail("R.2: a late recoverer cleared a new owner's pin");
	shoal_release(&value);
}

static void nothing_else(void)
{
}

static void recover(void)
{
	recover_all(weave_seat()->member);
}

static void recover_and_use(void)
{
	recover();
	use_it();
}

static void recover_and_put_a(void)
{
	recover();
	weave_must(!weave_put("a", 1));
	weave_must(weave_get("a", NULL) == 1);
}

static void recover_and_put_b(void)
{
	recover();
	weave_must(!weave_put("b", 2));
	weave_must(weave_get("b", NULL) == 2);
}

/* The dead one's place is the only one that is left. */
static void join_and_use(void)
{
	use_it();
}

static void all_given_back(void)
{
	const struct segment *s = weave_segment();
	uint32_t i;

	weave_act_as(weave_is_dead(0));
	recover_all(weave_seat()->member);
	for (i = 0; i < s->geometry.readers; i++) {
		uint64_t ref = life_ref(weave_seat()->member, i);
		const word32 *word;
		uint32_t seen;

		if (ref && life_of(weave_seat()->member, ref, &word, &seen) >= LIFE_THREAD_DEAD)
			weave_fail("R.2: reader slot %u is a dead one's for ever", i);
	}
	for (i = 0; i < s->geometry.extents; i++) {
		if (EXTENT_STATE(extents_word(s, i)) == EXTENT_EVICTING)
			weave_fail("E.3: extent %u is being evicted for ever", i);
		if (w64_load(&s->extents[i].lock))
			weave_fail("L.1: extent %u is locked for ever", i);
	}
	for (i = 0; i < s->geometry.flights; i++) {
		unsigned state = (unsigned)(w64_load(&s->flight_words[i]) & 15);

		if (state >= FLIGHT_CLAIMING && state <= FLIGHT_OVERDUE)
			weave_fail("F.2: flight %u is left in state %u", i, state);
	}
	weave_must(weave_get("other", NULL) == 8);
	weave_must(any_dead() || weave_get("led", NULL));
}

/* ---- a head's lock ------------------------------------------------------------------------------------------ */

static void set_a(void)
{
	weave_must(!weave_put("a", 1));
	weave_must(weave_get("a", NULL) == 1);
}

static void set_b(void)
{
	weave_must(!weave_put("b", 2));
	weave_must(weave_get("b", NULL) == 2);
}

/* Every entry that a slot points to is met by a walk of its extent. */
static bool is_walked(const char *text)
{
	struct key k = weave_key(text);
	struct index_hit hit = {0};
	uint64_t offset, wanted;
	uint32_t at = 0, x;

	if (!index_find(weave_seat(), &k, WANT_NEWEST, READING, OTHER, &hit))
		return false;
	wanted = SLOT_BYTES(hit.word);
	x = extent_of(weave_segment(), wanted);
	rcu_clear(weave_seat(), hit.announced);
	while (log_next(weave_segment(), x, &at, &offset))
		if (offset == wanted)
			return true;
	weave_fail("L.1: a walk of extent %u does not meet %s", x, text);
	return false;
}

static void log_is_whole(void)
{
	bool a = is_walked("a"), b = is_walked("b");

	weave_must(a || weave_is_dead(0));
	weave_must(b || weave_is_dead(1));
	if (any_dead())
		weave_recover();
}

/* One head, and nothing to put in its place. */
static void one_head(void)
{
	weave_must(!weave_put("first", 7));
	weave_occupy(1);
}

static const struct weave_scenario scenarios[] = {
	{
		.name = "recover against new owner",
		.holds = "R.1, R.2, R.4, E.3",
		.config = {.extents = 16, .extent_size = 256, .readers = 2, .processes = 2},
		.setup = died_amid,
		.thread = {recover_and_use, join_and_use},
		.check = all_given_back,
		.corpses = 4,
		.joins = 2,
		.killable = 1,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "late recoverer",
		.holds = "R.2",
		.config = {.extents = 16, .extent_size = 256, .readers = 2, .processes = 2},
		.setup = died_amid,
		.thread = {recover, hold_a_pin},
		.check = nothing_else,
		.corpses = 4,
		.joins = 2,
		.stale = 1,
		.least = 1000,
	},
	{
		.name = "recover against recover",
		.holds = "R.2, E.3, F.4",
		.setup = died_amid,
		.thread = {recover_and_use, recover_and_use},
		.check = all_given_back,
		.corpses = 4,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "lock of the dead against recoverers",
		.holds = "R.2, L.1",
		.setup = died_amid,
		.thread = {recover_and_put_a, recover_and_put_b},
		.check = log_is_whole,
		.corpses = 4,
		.killable = 3,
		.least = 5000,
	},
	{
		.name = "lock of a dead writer",
		.holds = "L.1, L.2, L.3",
		.config = {.extents = 2},
		.setup = one_head,
		.thread = {set_a, set_b},
		.check = log_is_whole,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "threads of one process join",
		.holds = "R.1, R.2, R.4",
		.config = {.threads = 3},
		.thread = {set_a, set_b},
		.check = log_is_whole,
		.joins = 3,
		.stale = 1,
		.least = 5000,
	},
	{
		.name = "racing heads",
		.holds = "L.2, L.4, E.4",
		.thread = {set_a, set_b},
		.check = log_is_whole,
		.killable = 3,
		.stale = 1,
		.least = 5000,
	},
};

int main(int argc, char **argv)
{
	return weave_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
