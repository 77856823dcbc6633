/* SPDX-License-Identifier: MIT */
/*
 * The index, slot by slot. Holds I.1 (of two slots of a key the newer wins, and the older is removed), I.2 (removal
 * takes the older first), I.3 (a CAS that expects an EMPTY fails once anything happened there), I.4 (announcements are
 * taken back, all of them), I.5 (both buckets full: what is not hit goes, and what was hit once does in time) and I.7
 * (what is put on a settled slot is settled).
 */
#include "inside.h"

static int set_up(void **state)
{
	static struct inside in;

	/* the least index: 64 buckets */
	in = go_inside(&(struct shoal_config){.size = 2 << 20, .mean_entry = 1 << 20});
	assert_int_equal(in.s->geometry.buckets, 64);
	w64_store(&in.s->header->generation, 1000); /* those that are made up here are below it */
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

/* An entry in the log, not in the index yet. */
static uint64_t write_entry(struct inside *in, const struct key *key, uint64_t generation, const char *text)
{
	const struct lives lives = {SHOAL_FOREVER, 0, 0};
	uint64_t offset;

	assert_int_equal(room_reserve(in->seat, WRITING, LOG_PROBATION, key->size, strlen(text), &offset), SHOAL_OK);
	memcpy(store_value_at(in->s, offset, key), text, strlen(text));
	store_fill(in->s, offset, key, generation, 0, &lives, (uint32_t)strlen(text), 0, 0, NULL);
	rcu_clear(in->seat, WRITING);
	return offset;
}

static bool commit(struct inside *in, const struct index_target *t, const struct key *key, uint64_t offset)
{
	uint32_t length = w32_load(&log_at(in->s, offset)->length);
	bool done = index_commit(in->s, t, index_word(key, offset, t->own ? t->expected : 0), length, UINT64_MAX);

	if (t->announced)
		rcu_clear(in->seat, t->announced);
	return done;
}

static int put(struct inside *in, const char *name, uint64_t generation, const char *text)
{
	struct key key = make_key(in, name);
	uint64_t offset = write_entry(in, &key, generation, text);
	struct index_target target;
	int r = index_place(in->seat, &key, generation, READING, OTHER, &target);

	if (r)
		return r;
	assert_true(commit(in, &target, &key, offset));
	return SHOAL_OK;
}

static unsigned find(struct inside *in, const char *name, enum index_want want, uint64_t *generation)
{
	struct key key = make_key(in, name);
	struct index_hit hit;
	unsigned n = index_find(in->seat, &key, want, READING, OTHER, &hit);

	if (n) {
		*generation = hit.e.entry->generation;
		assert_true(index_same_key(&hit.e, &key));
		rcu_clear(in->seat, hit.announced);
	}
	assert_true(is_clear(in->seat));
	return n;
}

static word64 *empty_beside(word64 *slot)
{
	struct bucket *b = (struct bucket *)((uintptr_t)slot / sizeof(struct bucket) * sizeof(struct bucket));
	unsigned i;

	for (i = 0; i < BUCKET_SLOTS; i++)
		if (!SLOT_IS_USED(w64_load(&b->slots[i])))
			return &b->slots[i];
	return NULL;
}

/* Where the key's entry lies. */
static word64 *slot_of(struct inside *in, const char *name)
{
	struct key key = make_key(in, name);
	struct index_hit hit;

	assert_true(index_find(in->seat, &key, WANT_NEWEST, READING, OTHER, &hit) > 0);
	rcu_clear(in->seat, hit.announced);
	return hit.slot;
}

/* A second slot of a key, as a race of two inserts leaves it. */
static void put_beside(struct inside *in, const char *name, uint64_t generation, const char *text)
{
	struct key key = make_key(in, name);
	uint64_t offset = write_entry(in, &key, generation, text);
	word64 *slot = empty_beside(slot_of(in, name));

	assert_non_null(slot);
	assert_true(commit(in, &(struct index_target){.slot = slot, .expected = w64_load(slot)}, &key, offset));
}

static void found_replaced_removed(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	uint64_t generation;

	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 0);
	assert_int_equal(put(in, "a", 10, "x"), SHOAL_OK);
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 1);
	assert_int_equal(generation, 10);
	assert_int_equal(put(in, "a", 12, "y"), SHOAL_OK);
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 1);
	assert_int_equal(generation, 12);
	assert_int_equal(put(in, "a", 11, "z"), INDEX_NEWER);
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 1);
	assert_int_equal(generation, 12);
	assert_int_equal(index_remove(in->seat, &key, 12, READING, OTHER), 0); /* below 12 only */
	assert_int_equal(index_remove(in->seat, &key, 13, READING, OTHER), 1);
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 0);
	assert_int_equal(stats_of(in->p.cache).bytes_live, 0);
	assert_int_equal(stats_of(in->p.cache).entries, 0);
}

/* I.1 */
static void the_newer_of_two_wins(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	uint64_t generation;
	int newer_first;

	for (newer_first = 0; newer_first < 2; newer_first++) {
		assert_int_equal(put(in, "a", newer_first ? 20 : 10, newer_first ? "new" : "old"), SHOAL_OK);
		put_beside(in, "a", newer_first ? 10 : 20, newer_first ? "old" : "new");
		assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 2);
		assert_int_equal(generation, 20);
		assert_int_equal(find(in, "a", WANT_OLDEST, &generation), 2);
		assert_int_equal(generation, 10);
		if (newer_first)
			index_settle(in->seat, &key, 0, READING, OTHER);
		else
			assert_gives(in->p.k, "a", "new"); /* a reader that sees two removes the older */
		assert_int_equal(find(in, "a", WANT_OLDEST, &generation), 1);
		assert_int_equal(generation, 20);
		assert_int_equal(stats_of(in->p.cache).entries, 1);
		assert_int_equal(index_remove(in->seat, &key, UINT64_MAX, READING, OTHER), 1);
	}
}

/* I.2 */
static void removal_takes_the_older_first(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	uint64_t generation;

	assert_int_equal(put(in, "a", 30, "c"), SHOAL_OK);
	put_beside(in, "a", 10, "a");
	put_beside(in, "a", 20, "b");
	assert_int_equal(find(in, "a", WANT_OLDEST, &generation), 3);
	assert_int_equal(generation, 10);
	assert_int_equal(index_remove(in->seat, &key, 11, READING, OTHER), 1);
	assert_int_equal(find(in, "a", WANT_OLDEST, &generation), 2);
	assert_int_equal(generation, 20);
	assert_int_equal(index_remove(in->seat, &key, 31, READING, OTHER), 2);
	assert_int_equal(find(in, "a", WANT_OLDEST, &generation), 0);
}

/* I.3 */
static void a_killed_target_stays_dead(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a"), other = make_key(in, "b");
	uint64_t offset = write_entry(in, &key, 5, "late"), generation;
	struct index_target target, again;

	assert_int_equal(index_place(in->seat, &key, 5, READING, OTHER, &target), SHOAL_OK);
	assert_false(SLOT_IS_USED(target.expected));
	index_kill(in->seat, index_number(in->s, target.slot), target.expected, READING);
	assert_false(SLOT_IS_USED(w64_load(target.slot)));
	assert_true(w64_load(target.slot) != target.expected);
	assert_false(commit(in, &target, &key, offset));
	/* an entry that came and went leaves another EMPTY than the one that was */
	assert_int_equal(index_place(in->seat, &key, 5, READING, OTHER, &target), SHOAL_OK);
	again = target;
	assert_true(commit(in, &again, &key, write_entry(in, &key, 6, "x")));
	assert_int_equal(index_remove(in->seat, &key, 7, READING, OTHER), 1);
	assert_false(commit(in, &target, &key, offset));
	/* over an entry of the key: killed with it */
	assert_int_equal(put(in, "a", 8, "old"), SHOAL_OK);
	assert_int_equal(index_place(in->seat, &key, 9, READING, OTHER, &target), SHOAL_OK);
	assert_true(target.own);
	index_kill(in->seat, index_number(in->s, target.slot), target.expected, OTHER);
	assert_false(commit(in, &target, &key, offset));
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 0);
	/* what has changed already is left alone */
	assert_int_equal(put(in, "b", 8, "x"), SHOAL_OK);
	index_kill(in->seat, index_number(in->s, slot_of(in, "b")), target.expected, READING);
	assert_int_equal(find(in, "b", WANT_NEWEST, &generation), 1);
	index_kill(in->seat, UINT64_MAX, target.expected, READING); /* a bad byte */
	assert_int_equal(index_remove(in->seat, &other, 9, READING, OTHER), 1);
}

/* A hit that is counted meanwhile is no change. */
static void hits_do_not_disturb(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	struct index_target target;
	uint64_t generation;

	assert_int_equal(put(in, "a", 8, "old"), SHOAL_OK);
	assert_int_equal(index_place(in->seat, &key, 9, READING, OTHER, &target), SHOAL_OK);
	w64_add(target.slot, SLOT_HIT);
	assert_true(commit(in, &target, &key, write_entry(in, &key, 9, "new")));
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 1);
	assert_int_equal(generation, 9);
}

/* I.5. Of more keys than there are slots: each is put, and is there then. */
static void fill_the_index(struct inside *in)
{
	char name[16];
	int i;

	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "key%d", i);
		assert_set(in->p.k, name, name);
		assert_gives(in->p.k, name, name);
	}
	w64_store(&in->s->header->heads[LOG_PROBATION][0], 0);
	log_sweep(in->seat); /* hits count in sealed extents */
}

static bool hit(struct inside *in, const char *prefix, int i)
{
	char name[16];

	snprintf(name, sizeof(name), "%s%d", prefix, i);
	return shoal_read(in->p.k, STR(name), (char[16]){0}, 16, NULL) == SHOAL_OK;
}

static void what_is_hit_stays(void **state)
{
	struct inside *in = *state;
	char name[16];
	int i, j, hot = 0, kept = 0;

	fill_the_index(in);
	for (j = 0; j < 1000; j += 20)
		hot += hit(in, "key", j) && hit(in, "key", j) && hit(in, "key", j);
	assert_true(hot > 10);
	for (i = 1000; i < 1300; i++) {
		snprintf(name, sizeof(name), "key%d", i);
		assert_set(in->p.k, name, name);
		for (kept = j = 0; i % 30 == 9 && j < 1000; j += 20)
			kept += hit(in, "key", j);
	}
	assert_int_equal(kept, hot);
	assert_int_equal(stats_of(in->p.cache).evicted_extents, 0);
	assert_true(stats_of(in->p.cache).entries <= 512);
	assert_true(stats_of(in->p.cache).entries > 400);
}

static void what_was_hit_once_goes(void **state)
{
	struct inside *in = *state;
	char name[16];
	int i, round, there = 0, old = 0;

	fill_the_index(in);
	for (round = 0; round < 3; round++)
		for (i = 0; i < 1000; i++)
			hit(in, "key", i);
	for (round = 0; round < 20; round++) {
		for (there = i = 0; i < 300; i++) {
			snprintf(name, sizeof(name), "new%d", i);
			if (hit(in, "new", i))
				there++;
			else
				assert_set(in->p.k, name, name);
		}
		w64_store(&in->s->header->heads[LOG_PROBATION][0], 0);
		log_sweep(in->seat);
	}
	for (i = 0; i < 1000; i++)
		old += hit(in, "key", i);
	printf("# of 300 keys that are asked for %d are there, and %d that were\n", there, old);
	assert_true(there > 75); /* in turn: each is put before the last was hit */
}

/* ---- bad and strange slots --------------------------------------------------------------------------------- */

static void a_bad_slot_is_met_once(void **state)
{
	static const uint64_t offsets[] = {0, 8, UINT64_C(1) << 40, SLOT_OFFSET * 8};
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	struct index_hit hit;
	uint64_t word, generation;
	word64 *slot;
	size_t i;

	for (i = 0; i < COUNT(offsets); i++) {
		assert_int_equal(put(in, "a", 10 + i, "x"), SHOAL_OK);
		slot = slot_of(in, "a");
		word = w64_load(slot);
		w64_store(slot, (word & ~SLOT_OFFSET) | offsets[i] / 8);
		assert_int_equal(index_find(in->seat, &key, WANT_NEWEST, READING, OTHER, &hit), 0);
		assert_int_equal(hit.bad, 1);
		assert_false(SLOT_IS_USED(w64_load(slot)));
		assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 0);
	}
	assert_int_equal(put(in, "a", 50, "x"), SHOAL_OK);
	slot = slot_of(in, "a");
	w64_store(slot, w64_load(slot) & ~SLOT_OFFSET);
	assert_misses(in->p.k, "a");
	assert_misses(in->p.k, "a");
	assert_int_equal(counts_of(in->p.k).corrupt, 1);
}

/* Another key's entry under the same tag: neither found nor left announced, wherever it lies. */
static void a_stranger_with_the_same_tag(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	uint64_t generation, stranger;
	struct bucket *b;
	word64 *slot;
	unsigned i;

	assert_int_equal(put(in, "a", 10, "x"), SHOAL_OK);
	assert_int_equal(put(in, "b", 11, "y"), SHOAL_OK);
	slot = slot_of(in, "a");
	b = (struct bucket *)((uintptr_t)slot / sizeof(struct bucket) * sizeof(struct bucket));
	stranger = index_word(&key, SLOT_BYTES(w64_load(slot_of(in, "b"))), 0);
	for (i = 0; i < BUCKET_SLOTS; i++) {
		uint64_t before = w64_load(&b->slots[i]);

		if (SLOT_IS_USED(before))
			continue;
		w64_store(&b->slots[i], stranger);
		assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 1);
		assert_int_equal(generation, 10);
		assert_gives(in->p.k, "a", "x");
		assert_true(is_clear(in->seat));
		w64_store(&b->slots[i], before);
	}
}

static void a_slot_is_shown(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	struct index_hit hit, located;
	word64 *slot;
	uint64_t number;
	bool alone;

	assert_int_equal(put(in, "a", 10, "x"), SHOAL_OK);
	slot = slot_of(in, "a");
	number = index_number(in->s, slot);
	assert_true(number < index_slots(in->s));
	assert_true(index_at(in->seat, number, PINS, &hit));
	assert_true(index_same_key(&hit.e, &key));
	assert_true(index_locate(in->s, &key, SLOT_BYTES(hit.word), &located, &alone) && alone);
	assert_false(index_locate(in->s, &key, SLOT_BYTES(hit.word) + 8, &located, &alone));
	rcu_clear(in->seat, PINS);
	assert_true(index_drop(in->s, &hit));
	assert_false(index_drop(in->s, &hit));
	assert_false(index_at(in->seat, number, PINS, &hit));
}

/* I.6 */
static void who_changes_or_reads_settles(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a");
	struct index_target target = {0};
	uint64_t offset;

	assert_set(in->p.k, "a", "set");
	assert_true(w64_load(slot_of(in, "a")) & SLOT_SETTLED);
	assert_set(in->p.k, "a", "replaced");
	assert_true(w64_load(slot_of(in, "a")) & SLOT_SETTLED);
	put_beside(in, "a", segment_draw(in->s), "beside");
	assert_set(in->p.k, "a", "over both");
	assert_int_equal(stats_of(in->p.cache).entries, 1);
	assert_int_equal(shoal_delete(in->p.k, "a", 1), SHOAL_OK);

	offset = write_entry(in, &key, segment_draw(in->s), "second");
	target.slot = &index_second(in->s, key.hash)->slots[3];
	target.expected = w64_load(target.slot);
	assert_true(commit(in, &target, &key, offset));
	assert_false(w64_load(slot_of(in, "a")) & SLOT_SETTLED);
	assert_gives(in->p.k, "a", "second");
	assert_true(w64_load(slot_of(in, "a")) & SLOT_SETTLED);
}

/* I.7: on a settled slot of the key, whatever is beside it; on nothing else. */
static void a_settled_slot_is_enough(void **state)
{
	struct inside *in = *state;
	struct key key = make_key(in, "a"), other = make_key(in, "b");
	struct index_target target = {0};
	uint64_t offset, word, generation;
	word64 *slot, *second = &index_second(in->s, key.hash)->slots[3];

	assert_null(index_guess(in->s, key.hash, &word));
	assert_set(in->p.k, "a", "settled");
	slot = index_guess(in->s, key.hash, &word);
	assert_ptr_equal(slot, slot_of(in, "a"));
	assert_int_equal(word, w64_load(slot));
	assert_false(index_place_on(in->seat, &other, UINT64_MAX, slot, READING, &target));
	assert_false(index_place_on(in->seat, &key, 1, slot, READING, &target)); /* it has a newer one */
	assert_true(is_clear(in->seat));
	w64_sub(slot, SLOT_SETTLED);
	assert_false(index_place_on(in->seat, &key, UINT64_MAX, slot, READING, &target));
	w64_add(slot, SLOT_SETTLED);
	w32_add(&log_at(in->s, SLOT_BYTES(word))->length, in->s->geometry.extent_size); /* a scribble */
	assert_false(index_place_on(in->seat, &key, UINT64_MAX, slot, READING, &target));
	w32_sub(&log_at(in->s, SLOT_BYTES(word))->length, in->s->geometry.extent_size);
	assert_true(is_clear(in->seat));
	assert_true(index_place_on(in->seat, &key, UINT64_MAX, slot, READING, &target));
	assert_true(target.own && target.alone && target.slot == slot && target.old_length);
	rcu_clear(in->seat, READING);

	/* an insert was killed before it settled: what it left shows to nobody, and is gone with the key */
	offset = write_entry(in, &key, segment_draw(in->s), "killed");
	target = (struct index_target){.slot = second, .expected = w64_load(second)};
	assert_true(commit(in, &target, &key, offset));
	assert_set(in->p.k, "a", "over the settled one");
	assert_gives(in->p.k, "a", "over the settled one");
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 2);
	assert_int_equal(shoal_delete(in->p.k, "a", 1), SHOAL_OK);
	assert_int_equal(find(in, "a", WANT_NEWEST, &generation), 0);
	assert_int_equal(stats_of(in->p.cache).entries, 0);
}

/* Keys of one first bucket, more than it has slots: all are there. */
static void a_full_bucket_has_a_second(void **state)
{
	enum { MANY = 2 * BUCKET_SLOTS };
	struct inside *in = *state;
	const struct bucket *first = NULL;
	char names[MANY][8];
	struct shoal_slice keys[MANY];
	struct shoal_value values[MANY];
	int outcomes[MANY];
	unsigned n = 0, i, second = 0;
	struct key key;

	for (i = 0; n < MANY; i++) {
		snprintf(names[n], sizeof(names[n]), "%u", i);
		key = make_key(in, names[n]);
		if (!first)
			first = index_bucket(in->s, key.hash);
		if (first != index_bucket(in->s, key.hash))
			continue;
		assert_set(in->p.k, names[n], names[n]);
		keys[n] = (struct shoal_slice){names[n], strlen(names[n])};
		n++;
	}
	for (i = 0; i < MANY; i++) {
		assert_gives(in->p.k, names[i], names[i]);
		second += (size_t)(slot_of(in, names[i]) - first->slots) >= BUCKET_SLOTS;
	}
	assert_true(second >= MANY - BUCKET_SLOTS);
	assert_int_equal(shoal_get_many(in->p.k, keys, MANY, values, outcomes), SHOAL_OK);
	for (i = 0; i < MANY; i++) {
		assert_int_equal(outcomes[i], SHOAL_OK);
		shoal_release(&values[i]);
	}
	for (i = 0; i < MANY; i++) {
		assert_int_equal(shoal_delete(in->p.k, names[i], strlen(names[i])), SHOAL_OK);
		assert_int_equal(find(in, names[i], WANT_NEWEST, &(uint64_t){0}), 0);
	}
}

/* Spoilt between the copy and its checksum: no checksum holds. */
static void a_spoilt_copy_shows(void **state)
{
	struct inside in = go_inside(&(struct shoal_config){.size = 2 << 20, .flags = SHOAL_CHECKSUM});
	const struct lives lives = {SHOAL_FOREVER, 0, 0};
	static const char text[] = "what it is copied from";
	struct key key = make_key(&in, "a");
	struct log_entry e;
	uint64_t offset;
	char *copy;
	int spoilt;

	for (spoilt = 0; spoilt < 2; spoilt++) {
		assert_int_equal(room_reserve(in.seat, WRITING, LOG_PROBATION, key.size, sizeof(text), &offset),
		                 SHOAL_OK);
		copy = store_value_at(in.s, offset, &key);
		memcpy(copy, text, sizeof(text));
		copy[5] ^= (char)spoilt;
		store_fill(in.s, offset, &key, 1, 0, &lives, sizeof(text), 0, 0, text);
		assert_true(log_read(in.s, offset, &e));
		assert_int_equal(store_is_whole(in.s, &e), !spoilt);
		rcu_clear(in.seat, WRITING);
	}
	close_place(&in.p);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(found_replaced_removed),
		CASE(the_newer_of_two_wins),
		CASE(removal_takes_the_older_first),
		CASE(a_killed_target_stays_dead),
		CASE(hits_do_not_disturb),
		CASE(what_is_hit_stays),
		CASE(what_was_hit_once_goes),
		CASE(a_bad_slot_is_met_once),
		CASE(a_stranger_with_the_same_tag),
		CASE(a_slot_is_shown),
		CASE(who_changes_or_reads_settles),
		CASE(a_settled_slot_is_enough),
		CASE(a_full_bucket_has_a_second),
		cmocka_unit_test(a_spoilt_copy_shows),
	};

	return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
