/* SPDX-License-Identifier: MIT */
/*
 * What shoal_check says, and what becomes of scribbles that once led the engine astray: each is made anew here, a
 * process goes through all operations after it (scene.h), and the segment is looked at afterwards.
 */
#include "testing.h"

#include "scene.h"

static struct scene scene;
static word64 *began;
static char said[320]; /* the first fault */

/* ---- tools ------------------------------------------------------------------------------------------------- */

static int on_fault(const char *what, int recoverable, void *arg)
{
	unsigned *recoverables = arg;

	if (recoverable && recoverables)
		++*recoverables;
	if (!recoverable && !said[0])
		snprintf(said, sizeof(said), "%s", what);
	return 0;
}

/* How many faults, and the first of them in said[]. */
static int check(void)
{
	said[0] = 0;
	return shoal_check(scene.cache, on_fault, NULL);
}

static int setup(void **state)
{
	began = share(sizeof(*began));
	assert_true(scene_open(&scene, began));
	scene_save(&scene);
	return 0;
}

static int restore(void **state)
{
	scene_restore(&scene);
	return 0;
}

static int teardown(void **state)
{
	shoal_close(scene.cache);
	munmap(scene.image, 1 << 20);
	return 0;
}

/* Of the extents, when the script begins; 0: it is open, and will get another one when it is sealed. */
static uint64_t stamps[64];

/* Where no walk came by: a key that a ghost of another one, one in 4,000, let into the main log at once, may lie
 * there; and where the index is what is full, extents with dead bytes go before the oldest one, which then is
 * left as it was. */
static bool was_passed_by(const char *what)
{
	const char *at = strstr(what, " extent ");
	const struct extent *e = scene.s->extents;
	unsigned x;

	if (!at || sscanf(at, " extent %u", &x) != 1 || x >= scene.s->geometry.extents)
		return false;
	if (w32_load(&e[x].kind) == LOG_MAIN)
		return true;
	return x < COUNT(stamps) && strstr(what, "points to no entry") &&
	       EXTENT_STATE(extents_word(scene.s, x)) == EXTENT_SEALED &&
	       (!stamps[x] || w64_load(&e[x].stamp) == stamps[x]);
}

static int on_dangling(const char *what, int recoverable, void *arg)
{
	bool tells = (strstr(what, "index slot") && !was_passed_by(what)) || strstr(what, ": state ") ||
	             strstr(what, "announcement");

	return on_fault(what, recoverable || !tells, NULL);
}

static int script(void *arg)
{
	uint64_t i;
	uint32_t x;

	alarm(20);
	for (x = 0; x < COUNT(stamps) && x < scene.s->geometry.extents; x++)
		stamps[x] = EXTENT_STATE(extents_word(scene.s, x)) == EXTENT_OPEN
		                    ? 0
		                    : w64_load(&scene.s->extents[x].stamp);
	must(scene_script(&scene, 1000) || !fprintf(stderr, "%s\n", scene.wrong));
	for (i = UINT64_C(1) << 40; i % 4096 < 4000; i++)
		must(shoal_set(scene.other, &i, sizeof(i), &scene, 300) == SHOAL_OK);
	for (i = 0; i < SCENE_KEYS; i++) { /* what it is full of is one's own by now */
		must(scene_set(&scene, i));
		must(scene_get(&scene, i) || !fprintf(stderr, "%s\n", scene.wrong));
	}
	said[0] = 0;
	shoal_check(scene.cache, on_dangling, NULL);
	if (arg && said[0])
		fprintf(stderr, "left: %s\n", said);
	return arg && said[0];
}

/* The script finds nothing wrong; with `mended`, all slots point to entries after it, and all extents are in use. (What
 * lies in the main log is not pushed out by the script: its lengths and counts may stay wrong.) */
#define assert_bears(mended) assert_ends_well(spawn(script, (mended) ? &scene : NULL))

/* The extent that holds most entries, and one of its slots. */
static uint32_t fullest(word64 **slot)
{
	const struct segment *s = scene.s;
	uint32_t x, best = 0;
	uint64_t i;

	for (x = 0; x < s->geometry.extents; x++)
		if (EXTENT_STATE(extents_word(s, x)) == EXTENT_SEALED &&
		    EXTENT_ENTRIES(w64_load(&s->extents[x].counts)) >
		            EXTENT_ENTRIES(w64_load(&s->extents[best].counts)))
			best = x;
	for (i = 0; i < index_slots(s); i++) {
		*slot = &s->index[i / BUCKET_SLOTS].slots[i % BUCKET_SLOTS];
		if (SLOT_IS_USED(w64_load(*slot)) && extent_of(s, SLOT_BYTES(w64_load(*slot))) == best)
			return best;
	}
	fail();
	return best;
}

static void set_state(uint32_t x, unsigned to)
{
	word64 *word = &scene.s->extents[x].word;

	w64_store(word, (w64_load(word) & ~(UINT64_C(15) << 60)) | (uint64_t)to << 60);
}

#define assert_says(part)                                                                                             \
	do {                                                                                                          \
		assert_true(check() > 0);                                                                             \
		if (!strstr(said, part))                                                                              \
			print_error("said: %s\n", said);                                                              \
		assert_non_null(strstr(said, part));                                                                  \
		scene_restore(&scene);                                                                                \
	} while (0)

/* ---- what it says ------------------------------------------------------------------------------------------ */

static void nothing_is_wrong(void **state)
{
	assert_int_equal(check(), 0);
	assert_string_equal(said, "");
	assert_int_equal(shoal_check(NULL, NULL, NULL), SHOAL_ERR_INVALID);
}

static void faults_are_named(void **state)
{
	const struct segment *s = scene.s;
	struct log_entry e = {0};
	struct entry *entry;
	word64 *slot;
	uint32_t x = fullest(&slot);

	w64_store(slot, w64_load(slot) ^ (UINT64_C(1) << SLOT_TAG_SHIFT));
	assert_says("points to an entry whose key has no place there");
	w64_store(slot, w64_load(slot) ^ 1);
	assert_says("index slot");
	w64_store(slot, (w64_load(slot) & ~SLOT_OFFSET) | 1);
	assert_says("points out of the log");
	assert_true(log_read(s, SLOT_BYTES(w64_load(slot)), &e));
	entry = (struct entry *)(uintptr_t)e.entry;
	entry->generation++;
	assert_says("points to an entry whose checksum is wrong");
	*(unsigned char *)(uintptr_t)e.value ^= 1;
	assert_says("points to an entry whose checksum is wrong");
	entry->kind ^= 0x8000;
	assert_says("points to no entry");
	set_state(x, EXTENT_FREE);
	assert_says("which is in state 0");
	set_state(x, 9);
	assert_says("state 9");
	set_state(x, EXTENT_EVICTING);
	assert_says("doesn't announce it");
	w32_store(&s->extents[x].tail, w32_load(&s->extents[x].tail) + 8);
	assert_says("its tail is at");
	w64_sub(&s->extents[x].counts, (uint64_t)1 << 32);
	assert_says("the index has");
	w64_sub(&s->extents[x].counts, 8);
	assert_says("the index has");
	w64_store(&s->extents[x].lock, 77);
	assert_says("no reader that is here");
	w64_store(&s->header->heads[0][0], UINT64_C(5) << 32 | (x + 1));
	assert_says("head 0 of log 0");
	w64_store(&s->header->heads[1][2], UINT64_C(5) << 32 | 0x7fffffff);
	assert_says("head 2 of log 1");
	w64_store(&s->header->generation, 5);
	assert_true(check() > 1);
	scene_restore(&scene);
	w64_store(&s->flight_words[3], 13);
	assert_says("flight 3: state 13");
	w64_store(&s->flight_words[3], UINT64_C(9) << 32 | FLIGHT_COMPUTING);
	assert_says("led by reader slot 9, which is free");
	w64_store(&s->permits[2].word, PERMIT_HELD);
	assert_says("permit 2");
	w64_store(&s->readers[0].owner, w64_load(&s->readers[0].owner) ^ 1 << 17);
	assert_says("reader slot 0: owner");
	w64_store(&s->readers[0].words[PINS], s->geometry.extents + 7);
	assert_says("reader slot 0: announcement 5");
	w64_store(&s->keyspaces[0].name[0], 0x6161616161616161);
	assert_says("keyspace 0: identity");
	w64_store(&s->keyspaces[1].deleted, UINT64_MAX);
	assert_says("a barrier is newer");
	s->header->geometry.seed++;
	assert_says("header: its geometry");
}

static int come_and_die(void *arg)
{
	struct shoal_value value;
	char name[64];

	must(shoal_get(scene.k, name, scene_key(name, 3), &value) == SHOAL_OK);
	_exit(0);
}

static void the_dead_are_no_fault(void **state)
{
	unsigned recoverables = 0;

	assert_ends_well(spawn(come_and_die, NULL));
	assert_int_equal(shoal_check(scene.cache, on_fault, &recoverables), 0);
	assert_int_equal(recoverables, 1);
	assert_int_equal(shoal_reap(scene.cache), 1);
	recoverables = 0;
	assert_int_equal(shoal_check(scene.cache, on_fault, &recoverables), 0);
	assert_int_equal(recoverables, 0);
}

static void an_inspector_checks_too(void **state)
{
	struct shoal_config config = {.size = 1 << 20, .flags = SHOAL_CHECKSUM};
	struct shoal_config inspect = {.flags = SHOAL_INSPECT};
	struct shoal_keyspace *k;
	struct shoal *cache, *view;
	char name[64];

	snprintf(name, sizeof(name), "check-%d", (int)getpid());
	assert_int_equal(shoal_open(name, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "test", 1, &steady, &k), SHOAL_OK);
	assert_set(k, "key", "value");
	assert_int_equal(shoal_open(name, &inspect, &view), SHOAL_OK);
	assert_int_equal(shoal_check(view, on_fault, NULL), 0);
	w64_store(&cache->member->segment.flight_words[1], 14);
	assert_int_equal(shoal_check(view, on_fault, NULL), 1);
	w64_store(&cache->member->segment.header->moved, MOVED);
	assert_int_equal(shoal_check(view, on_fault, NULL), SHOAL_ERR_CORRUPT);
	assert_gives(k, "key", "value");
	shoal_close(view);
	shoal_close(cache);
	shoal_unlink(name);
}

/* ---- scribbles --------------------------------------------------------------------------------------------- */

/* New values lost to the ones before them, and deleted ones stayed. */
static void the_generation_is_put_back(void **state)
{
	w64_sub(&scene.s->header->generation, 3000);
	assert_bears(true);
	scene_restore(&scene);
	w64_store(&scene.s->header->generation, 0);
	assert_bears(true);
}

/* Every caller hung. */
static void it_never_moved(void **state)
{
	struct header *h = scene.s->header;

	w64_store(&h->moved, MOVED);
	assert_bears(true);
	scene_restore(&scene);
	w64_store(&h->moved, MOVED_WORD(7, MOVED));
	assert_bears(true);
	scene_restore(&scene);
	assert_int_equal(ftruncate(segment_fd(scene.s), 8 << 20), 0);
	w64_store(&h->moved, MOVED_WORD(0x345, MOVED)); /* no region begins there */
	assert_bears(true);
	scene_restore(&scene);
	w64_store(&h->moved, MOVED_WORD(0x400 * 32, MOVED)); /* behind the end of the file */
	assert_bears(true);
	scene_restore(&scene);
	w64_store(&h->moved, 3);
	assert_bears(true);
	scene_restore(&scene);
	w64_store(&h->before, BEFORE_IS);
	assert_bears(true);
}

/* Values were served from extents that were about to be used again. */
static void an_extent_is_taken_for_free(void **state)
{
	word64 *slot;
	uint32_t x;

	set_state(fullest(&slot), EXTENT_FREE);
	assert_bears(true);
	scene_restore(&scene);
	for (x = 0; x < scene.s->geometry.extents; x++)
		set_state(x, EXTENT_FREE);
	assert_bears(true);
	scene_restore(&scene);
	for (x = 0; x < scene.s->geometry.extents; x++)
		w64_store(&scene.s->extents[x].counts, 0);
	assert_bears(false);
	scene_restore(&scene);
	for (x = 0; x < scene.s->geometry.extents; x++)
		w32_store(&scene.s->extents[x].tail, 0);
	assert_bears(true);
}

/* What a walk didn't come to kept its slots. */
static void a_length_leads_a_walk_astray(void **state)
{
	const struct segment *s = scene.s;
	uint64_t offset;
	uint32_t x, at;

	for (x = 0; x < 400; x++) /* of keys that nobody asks for any more */
		assert_int_equal(shoal_set(scene.other, &x, sizeof(x), &scene, 300), SHOAL_OK);
	for (x = 0; x < s->geometry.extents; x++) {
		at = 0;
		if (log_next(s, x, &at, &offset) && log_next(s, x, &at, &offset))
			w32_store(&log_at(s, offset)->length, x % 2 ? 0 : 64);
	}
	assert_bears(true);
}

/* Entries were written where no word may lie, and their slots pointed beside them. */
static void a_tail_is_odd(void **state)
{
	uint32_t x;

	for (x = 0; x < scene.s->geometry.extents; x++)
		w32_add(&scene.s->extents[x].tail, 1 + x % 7);
	assert_bears(true);
}

/* Nobody took them again. */
static void extents_are_in_no_state(void **state)
{
	uint32_t x;

	for (x = 0; x < scene.s->geometry.extents; x++)
		set_state(x, 5 + x % 11);
	assert_bears(true);
	scene_restore(&scene);
	for (x = 0; x < scene.s->geometry.extents; x++)
		set_state(x, EXTENT_EVICTING);
	assert_bears(true);
}

/* It held the extent for as long as its next owner was there. */
static void a_free_slot_announces(void **state)
{
	uint32_t r, w;

	for (r = 1; r < scene.s->geometry.readers; r++)
		for (w = 0; w < READER_WORDS; w++)
			w64_store(&scene.s->readers[r].words[w],
			          UINT64_C(7) << 32 | (r * READER_WORDS + w) % scene.s->geometry.extents);
	assert_bears(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nothing_is_wrong, restore),
		cmocka_unit_test_setup(faults_are_named, restore),
		cmocka_unit_test_setup(the_dead_are_no_fault, restore),
		cmocka_unit_test_setup(an_inspector_checks_too, restore),
		cmocka_unit_test_setup(the_generation_is_put_back, restore),
		cmocka_unit_test_setup(it_never_moved, restore),
		cmocka_unit_test_setup(an_extent_is_taken_for_free, restore),
		cmocka_unit_test_setup(a_length_leads_a_walk_astray, restore),
		cmocka_unit_test_setup(a_tail_is_odd, restore),
		cmocka_unit_test_setup(extents_are_in_no_state, restore),
		cmocka_unit_test_setup(a_free_slot_announces, restore),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
