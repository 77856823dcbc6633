/* SPDX-License-Identifier: MIT */
/* The policy on extents that are made up, the ghosts, and one walk of a real extent. */
#include "evict.h"
#include "ghost.h"
#include "inside.h"
#include "room.h"

static int set_up(void **state)
{
	static struct inside in;

	in = go_inside(&(struct shoal_config){.size = 4 << 20, .max_entry = 4 << 10});
	*state = &in;
	return 0;
}

static int tear_down(void **state)
{
	struct inside *in = *state;

	assert_true(is_clear(in->seat));
	close_place(&in->p);
	return 0;
}

/* ---- the choice -------------------------------------------------------------------------------------------- */

/* A sealed extent with one live entry of `live` bytes among `used`. */
static void make_up(const struct inside *in, uint32_t x, enum log_kind kind, uint64_t stamp, uint32_t used,
                    uint32_t live, uint64_t until_ms)
{
	struct extent *e = &in->s->extents[x];

	w64_store(&e->word, (uint64_t)EXTENT_SEALED << 60);
	w32_store(&e->kind, kind);
	w64_store(&e->stamp, stamp);
	w32_store(&e->tail, used);
	w64_store(&e->counts, (uint64_t)(live > 0) << 32 | live);
	w64_store(&e->until_ms, until_ms);
}

static void forget_extents(const struct inside *in)
{
	uint32_t x;

	for (x = 0; x < in->s->geometry.extents; x++) {
		make_up(in, x, LOG_PROBATION, 0, 0, 0, 0);
		w64_store(&in->s->extents[x].word, 0);
	}
}

static uint32_t chosen(const struct inside *in, enum evict_reason reason, bool urgent)
{
	struct evict_turn turn = {.now_ms = 1000};

	evict_look(in->s, &turn);
	assert_int_equal(evict_choose(in->s, &turn, urgent), reason);
	return reason == EVICT_REASONS ? 0 : turn.first[reason].x;
}

static void the_empty_then_the_expired_then_the_oldest(void **state)
{
	const struct inside *in = *state;
	uint32_t full = in->s->geometry.extent_size;

	make_up(in, 3, LOG_MAIN, 1, full, full, UINT64_MAX);
	make_up(in, 9, LOG_MAIN, 2, full, full, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_MAIN, false), 3);
	make_up(in, 5, LOG_PROBATION, 8, full, full, 1001);
	assert_int_equal(chosen(in, EVICT_MAIN, false), 3); /* one is not more than a tenth */
	make_up(in, 6, LOG_PROBATION, 7, full, full, 1000);
	assert_int_equal(chosen(in, EVICT_EXPIRED, false), 6);
	make_up(in, 7, LOG_MAIN, 6, full, 0, 5000);
	assert_int_equal(chosen(in, EVICT_EMPTY, false), 7);
	forget_extents(in);
	chosen(in, EVICT_REASONS, false);
}

static void probation_has_a_tenth(void **state)
{
	const struct inside *in = *state;
	uint32_t x, share = in->s->geometry.extents / 10, full = in->s->geometry.extent_size;

	assert_true(share > 2);
	make_up(in, 0, LOG_MAIN, 1, full, full, UINT64_MAX);
	for (x = 1; x <= share; x++)
		make_up(in, x, LOG_PROBATION, 100 - x, full, full, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_MAIN, false), 0);
	make_up(in, x, LOG_PROBATION, 100, full, full, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_PROBATION, false), share);
	forget_extents(in);
	make_up(in, 2, LOG_PROBATION, 5, full, full, UINT64_MAX); /* nothing else there */
	assert_int_equal(chosen(in, EVICT_PROBATION, false), 2);
	forget_extents(in);
}

static void the_deadest_is_cleaned(void **state)
{
	const struct inside *in = *state;
	uint32_t x, full = in->s->geometry.extent_size, n = in->s->geometry.extents / 2;

	for (x = 0; x < n; x++)
		make_up(in, x, LOG_MAIN, x + 1, full, full - full / 25, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_MAIN, false), 0); /* few bytes are dead in all: not worth the copies */
	for (x = 0; x < n; x++)
		make_up(in, x, LOG_MAIN, x + 1, full, full - full / 4 - 8 * x, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_DEAD, false), n - 1);
	assert_int_equal(chosen(in, EVICT_MAIN, true), 0); /* it would yield too little now */
	make_up(in, 4, LOG_MAIN, 5, full, full / 3, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_DEAD, true), 4);
	for (x = 0; x < n; x++) /* the rest of an extent that nothing fitted in is not dead */
		make_up(in, x, LOG_MAIN, x + 1, full / 2, full / 2, UINT64_MAX);
	assert_int_equal(chosen(in, EVICT_MAIN, false), 0);
	forget_extents(in);
}

static void what_is_held_is_passed_by(void **state)
{
	const struct inside *in = *state;
	struct evict_turn turn = {.now_ms = 1000};
	uint32_t full = in->s->geometry.extent_size, x;

	for (x = 0; x < 5; x++)
		make_up(in, x, LOG_PROBATION, 10 + x, full, full, UINT64_MAX);
	for (x = 0; x < 5; x++) {
		evict_look(in->s, &turn);
		assert_int_equal(evict_choose(in->s, &turn, false), EVICT_PROBATION);
		assert_int_equal(turn.first[EVICT_PROBATION].x, x);
		evict_pass(&turn, EVICT_PROBATION);
	}
	evict_look(in->s, &turn);
	assert_int_equal(evict_choose(in->s, &turn, false), EVICT_REASONS);
	forget_extents(in);
}

/* ---- ghosts ------------------------------------------------------------------------------------------------ */

static bool take(const struct inside *in, uint64_t hash, enum log_kind from, bool young)
{
	struct ghost ghost;

	return ghost_take(in->s, hash, &ghost) && ghost.from == from && ghost.young == young;
}

static uint64_t log_of(const struct inside *in)
{
	return (uint64_t)in->s->geometry.extents * in->s->geometry.extent_size;
}

static void a_ghost_is_taken_once(void **state)
{
	const struct inside *in = *state;
	struct ghost ghost;

	assert_false(ghost_take(in->s, 12345, &ghost));
	ghost_add(in->s, 12345, 100, LOG_PROBATION);
	ghost_add(in->s, 23456, 100, LOG_MAIN);
	assert_false(ghost_take(in->s, 54321, &ghost));
	assert_true(take(in, 12345, LOG_PROBATION, true));
	assert_true(take(in, 23456, LOG_MAIN, true));
	assert_false(ghost_take(in->s, 12345, &ghost));
	assert_false(ghost_take(in->s, 23456, &ghost));
}

/* Within about the log's size of evictions, of the main log a twentieth; also where the stamps wrap. */
static void ghosts_fade(void **state)
{
	const struct inside *in = *state;
	uint64_t log = log_of(in);
	struct ghost ghost;
	unsigned round;

	for (round = 0; round < 40; round++) {
		ghost_add(in->s, 77, 100, LOG_PROBATION);
		ghost_add(in->s, 88, 100, LOG_MAIN);
		w64_add(&in->s->header->ghost_bytes[LOG_PROBATION], log / 2);
		assert_true(take(in, 88, LOG_MAIN, true)); /* has a clock of its own */
		assert_true(take(in, 77, LOG_PROBATION, false));
		ghost_add(in->s, 77, 100, LOG_PROBATION);
		ghost_add(in->s, 88, 100, LOG_MAIN);
		w64_add(&in->s->header->ghost_bytes[LOG_MAIN], log / 10);
		assert_false(ghost_take(in->s, 88, &ghost));
		w64_add(&in->s->header->ghost_bytes[LOG_PROBATION], log);
		assert_false(ghost_take(in->s, 77, &ghost));
	}
}

static void the_oldest_ghost_gives_way(void **state)
{
	const struct inside *in = *state;
	uint64_t seed = 1, first[200], n = (uint64_t)in->s->geometry.ghosts * GHOST_WAYS, i, there = 0;
	uint32_t length = (uint32_t)(log_of(in) / n / 4); /* all fit, by their age */
	struct ghost ghost;

	for (i = 0; i < n; i++)
		ghost_add(in->s, i < 200 ? (first[i] = draw(&seed)) : draw(&seed), length, LOG_PROBATION);
	for (i = 0; i < 200; i++)
		there += ghost_take(in->s, first[i], &ghost);
	assert_in_range(there, 80, 200); /* the table is as full as it gets, and those are the oldest */
	for (i = 0; i < 200; i++)
		ghost_add(in->s, first[i], length, LOG_PROBATION);
	for (i = 0; i < 4 * n; i++)
		ghost_add(in->s, draw(&seed), length, LOG_PROBATION);
	for (there = i = 0; i < 200; i++)
		there += ghost_take(in->s, first[i], &ghost);
	assert_in_range(there, 0, 5);
}

/* Keys that come back soon after they left a log say that it is short; within 3 and 30% of the whole. */
static void the_share_is_learnt(void **state)
{
	const struct inside *in = *state;
	uint64_t log = log_of(in), i, share;
	uint32_t length = (uint32_t)(log / 100);

	assert_int_equal(evict_admits(in->s, 5, length), LOG_PROBATION);
	assert_int_equal(w64_load(&in->s->header->probation_bytes), 0);
	for (i = 0; i < 3; i++) {
		evict_dropped(in->s, LOG_PROBATION, 5, length);
		assert_int_equal(evict_admits(in->s, 5, length), LOG_MAIN);
	}
	share = w64_load(&in->s->header->probation_bytes);
	assert_in_range(share, log / 100 * 12, log / 100 * 14);
	evict_dropped(in->s, LOG_MAIN, 6, length);
	assert_int_equal(evict_admits(in->s, 6, length), LOG_PROBATION);
	assert_int_equal(w64_load(&in->s->header->probation_bytes), share - 2 * length);
	for (i = 0; i < 100; i++) {
		evict_dropped(in->s, LOG_PROBATION, 7, length);
		evict_admits(in->s, 7, length);
	}
	assert_in_range(w64_load(&in->s->header->probation_bytes), log / 100 * 29, log / 100 * 30);
	for (i = 0; i < 100; i++) {
		evict_dropped(in->s, LOG_MAIN, 7, length);
		evict_admits(in->s, 7, length);
	}
	assert_in_range(w64_load(&in->s->header->probation_bytes), log / 100 * 2, log / 100 * 3);
}

static void longer_searches_ask_for_more(void **state)
{
	const struct inside *in = *state;
	enum log_kind to;
	unsigned left, frequency, walks;

	for (walks = 0; walks < 30; walks++) {
		for (frequency = 0; frequency < 4; frequency++) {
			bool kept = frequency >= 1 + walks / 8;

			assert_int_equal(evict_keeps(in->s, EVICT_MAIN, LOG_MAIN, frequency, walks, &to, &left), kept);
			assert_true(!kept || (to == LOG_MAIN && left == frequency - 1));
			assert_int_equal(evict_keeps(in->s, EVICT_PROBATION, LOG_PROBATION, frequency, walks, &to,
			                             &left),
			                 kept);
			assert_true(!kept || (to == LOG_MAIN && left == 0));
			assert_true(evict_keeps(in->s, EVICT_DEAD, LOG_PROBATION, frequency, walks, &to, &left));
			assert_true(to == LOG_PROBATION && left == frequency);
		}
	}
}

/* ---- a walk ------------------------------------------------------------------------------------------------ */

static char filler[3000];

static void set_key(const struct inside *in, uint32_t key)
{
	assert_int_equal(shoal_set(in->p.k, &key, sizeof(key), filler, sizeof(filler)), SHOAL_OK);
}

static bool there(const struct inside *in, uint32_t key)
{
	char value[sizeof(filler)];

	return shoal_read(in->p.k, &key, sizeof(key), value, sizeof(value), NULL) == SHOAL_OK;
}

static struct extent *extent_with(const struct inside *in, uint32_t key, unsigned *frequency)
{
	struct index_hit hit;
	struct key k;

	assert_true(store_key(in->p.k, &key, sizeof(key), &k));
	if (index_find(in->seat, &k, WANT_NEWEST, READING, OTHER, &hit) != 1)
		return NULL;
	rcu_clear(in->seat, hit.announced);
	*frequency = SLOT_FREQUENCY_OF(hit.word);
	return &in->s->extents[extent_of(in->s, SLOT_BYTES(hit.word))];
}

/* Fill with new keys until that one's extent has been walked. */
static void walk_past(const struct inside *in, uint32_t key, uint32_t *next)
{
	const struct extent *before, *now;
	unsigned frequency;

	before = now = extent_with(in, key, &frequency);
	for (; now && now == before && *next < 100000; ++*next) {
		set_key(in, *next);
		now = extent_with(in, key, &frequency);
	}
}

/* Fill with new keys until that one's extent is written to no more: hits count from then on. */
static void seal_over(const struct inside *in, uint32_t key, uint32_t *next)
{
	struct extent *e;
	unsigned frequency;

	while ((e = extent_with(in, key, &frequency)) && EXTENT_STATE(w64_load(&e->word)) == EXTENT_OPEN)
		set_key(in, (*next)++);
	assert_non_null(e);
}

static void hit(const struct inside *in, uint32_t key, unsigned times)
{
	while (times--)
		assert_true(there(in, key));
}

static void what_was_hit_moves_on(void **state)
{
	const struct inside *in = *state;
	uint32_t next = 1000, cold = 7;
	const struct extent *e;
	unsigned frequency;

	set_key(in, 1);
	set_key(in, cold);
	hit(in, 1, 3);
	e = extent_with(in, 1, &frequency);
	assert_int_equal(frequency, 0); /* still written to */
	seal_over(in, 1, &next);
	seal_over(in, cold, &next);
	hit(in, 1, 3);
	e = extent_with(in, 1, &frequency);
	assert_int_equal(frequency, 3);
	walk_past(in, cold, &next); /* and key 1, which is beside it */
	assert_null(extent_with(in, cold, &frequency));
	e = extent_with(in, 1, &frequency);
	assert_non_null(e);
	assert_int_equal(w32_load(&e->kind), LOG_MAIN);
	assert_int_equal(frequency, 0); /* it has to prove itself again */
	assert_true(stats_of(in->p.cache).reappended_bytes > 0);
	set_key(in, cold); /* a ghost */
	e = extent_with(in, cold, &frequency);
	assert_int_equal(w32_load(&e->kind), LOG_MAIN);
	set_key(in, cold); /* what is there stays in its log */
	e = extent_with(in, cold, &frequency);
	assert_int_equal(w32_load(&e->kind), LOG_MAIN);
}

/* As two racing inserts leave them: the newer one, and the older one beside it, which was hit. */
static uint64_t make_duplicate(const struct inside *in, const struct key *k, uint32_t key)
{
	struct index_hit old, now;
	word64 *slot;

	assert_int_equal(index_find(in->seat, k, WANT_NEWEST, READING, OTHER, &old), 1);
	rcu_clear(in->seat, old.announced);
	w64_store(old.slot, 0);
	set_key(in, key);
	slot = (word64 *)((uintptr_t)old.slot / CACHE_LINE * CACHE_LINE); /* of its bucket */
	while (SLOT_IS_USED(w64_load(slot)))
		slot++;
	w64_store(slot, old.word);
	assert_int_equal(index_find(in->seat, k, WANT_NEWEST, READING, OTHER, &now), 2);
	rcu_clear(in->seat, READING);
	rcu_clear(in->seat, OTHER);
	return now.e.entry->generation;
}

/* It must not be moved on, or it would outlive the newer one. */
static void an_older_duplicate_goes(void **state)
{
	const struct inside *in = *state;
	uint32_t next = 1000, key = 1, i;
	struct index_hit now;
	uint64_t generation;
	struct key k;

	set_key(in, key);
	seal_over(in, key, &next);
	hit(in, key, 3);
	assert_true(store_key(in->p.k, &key, sizeof(key), &k));
	generation = make_duplicate(in, &k, key);
	for (i = 0; i < 20000; i++) {
		set_key(in, next++);
		if (index_find(in->seat, &k, WANT_NEWEST, READING, OTHER, &now))
			assert_int_equal(now.e.entry->generation, generation);
		rcu_clear(in->seat, READING);
		rcu_clear(in->seat, OTHER);
	}
	assert_false(there(in, key));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_empty_then_the_expired_then_the_oldest),
		CASE(probation_has_a_tenth),
		CASE(the_deadest_is_cleaned),
		CASE(what_is_held_is_passed_by),
		CASE(a_ghost_is_taken_once),
		CASE(ghosts_fade),
		CASE(the_oldest_ghost_gives_way),
		CASE(the_share_is_learnt),
		CASE(longer_searches_ask_for_more),
		CASE(what_was_hit_moves_on),
		CASE(an_older_duplicate_goes),
	};

	return cmocka_run_group_tests_name("evict", tests, NULL, NULL);
}
