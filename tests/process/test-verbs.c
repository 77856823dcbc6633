/* SPDX-License-Identifier: MIT */
/*
 * The verbs on values, as <shoal.h> words them: get, read, get_many, set, set_ttl, expire, delete, scan, statistics, on
 * a clock that is set. Holds C.2 (cache.c: the later generation stays) as one process sees it, and promise 5: values
 * are served when pins run out, bad bytes and other schemas are counted misses.
 */
#include <fcntl.h>
#include <pthread.h>

#include "handle.h"
#include "testing.h"

static int set_up(void **state)
{
	static struct place p;

	p = open_place(NULL, NULL);
	*state = &p;
	return 0;
}

static int tear_down(void **state)
{
	close_place(*state);
	return 0;
}

/* ---- get, read, set ---------------------------------------------------------------------------------------- */

static void get_gives_what_was_set(void **state)
{
	struct place *p = *state;
	struct shoal_value one, two;

	assert_misses(p->k, "a");
	assert_set(p->k, "a", "first");
	pass_ms(p->clock, 30);
	assert_int_equal(shoal_get(p->k, STR("a"), &one), SHOAL_OK);
	assert_true(holds(&one, "first"));
	assert_int_equal(one.age_ms, 30);
	assert_int_equal(one.freshness, SHOAL_FRESH);
	assert_int_equal(one.source, SHOAL_HIT);
	assert_int_equal(one.load_error, 0);
	assert_set(p->k, "a", "second");
	assert_int_equal(shoal_get(p->k, STR("a"), &two), SHOAL_OK);
	assert_true(holds(&two, "second"));
	assert_int_equal(two.age_ms, 0);
	assert_true(two.generation > one.generation);
	assert_true(holds(&one, "first"));
	shoal_release(&one);
	shoal_release(&two);
}

static void release_is_harmless(void **state)
{
	struct place *p = *state;
	struct shoal_value value = {0};

	shoal_release(NULL);
	shoal_release(&value);
	assert_set(p->k, "a", "x");
	assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
	assert_int_equal(stats_of(p->cache).pins, 1);
	shoal_release(&value);
	assert_null(value.data);
	shoal_release(&value);
	assert_int_equal(stats_of(p->cache).pins, 0);
	memset(&value, 0xff, sizeof(value));
	assert_int_equal(shoal_get(p->k, STR("none"), &value), SHOAL_MISS);
	assert_memory_equal(&value, &(struct shoal_value){0}, sizeof(value));
	shoal_release(&value);
}

static void an_empty_value_is_a_value(void **state)
{
	struct place *p = *state;
	struct shoal_value value;
	size_t size = 7;

	assert_int_equal(shoal_set(p->k, STR("a"), NULL, 0), SHOAL_OK);
	assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
	assert_non_null(value.data);
	assert_int_equal(value.size, 0);
	shoal_release(&value);
	assert_int_equal(shoal_read(p->k, STR("a"), NULL, 0, &size), SHOAL_OK);
	assert_int_equal(size, 0);
	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_OK);
}

static void data_is_aligned(void **state)
{
	struct place *p = *state;
	struct shoal_value value;
	char key[40] = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";
	size_t n;

	for (n = 1; n < sizeof(key); n++) {
		assert_int_equal(shoal_set(p->k, key, n, key, n % 13), SHOAL_OK);
		assert_int_equal(shoal_get(p->k, key, n, &value), SHOAL_OK);
		assert_int_equal((uintptr_t)value.data % 8, 0);
		assert_int_equal(value.size, n % 13);
		shoal_release(&value);
	}
}

static void keys_are_any_bytes(void **state)
{
	static const struct shoal_slice keys[] = {{"\0", 1},  {"\0\0", 2}, {"a", 1},
	                                          {"a\0", 2}, {"a\0b", 3}, {"\xff", 1}};
	struct place *p = *state;
	char text[2] = "0";
	size_t i, size;

	for (i = 0; i < COUNT(keys); i++)
		assert_int_equal(shoal_set(p->k, keys[i].data, keys[i].size, &(char){(char)('0' + i)}, 1), SHOAL_OK);
	for (i = 0; i < COUNT(keys); i++) {
		assert_int_equal(shoal_read(p->k, keys[i].data, keys[i].size, text, 1, &size), SHOAL_OK);
		assert_int_equal(text[0], '0' + i);
	}
}

static void key_sizes_have_limits(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_entry = 128 << 10});
	char *key = calloc(1, KEY_MAX + 1);
	struct shoal_value value;
	size_t size;

	assert_int_equal(shoal_set(p.k, key, KEY_MAX, "x", 1), SHOAL_OK);
	assert_int_equal(shoal_get(p.k, key, KEY_MAX, &value), SHOAL_OK);
	assert_true(holds(&value, "x"));
	shoal_release(&value);
	assert_int_equal(shoal_get(p.k, key, KEY_MAX - 1, &value), SHOAL_MISS);
	assert_int_equal(shoal_set(p.k, key, KEY_MAX + 1, "x", 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_set(p.k, key, 0, "x", 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_set(p.k, NULL, 1, "x", 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_set(p.k, key, 1, NULL, 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get(p.k, key, KEY_MAX + 1, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get(p.k, key, 0, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get(p.k, NULL, 1, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get(NULL, key, 1, &value), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get(p.k, key, 1, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_read(p.k, key, 0, NULL, 0, &size), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_read(p.k, key, 1, NULL, 1, &size), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_delete(p.k, key, 0), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_delete(NULL, key, 1), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_expire(p.k, key, 0), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_expire(NULL, key, 1), SHOAL_ERR_INVALID);
	free(key);
	close_place(&p);
}

static void too_big_leaves_no_older_value(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_entry = 10000});
	char *data = calloc(1, 10000);
	struct shoal_value value;

	assert_int_equal(shoal_set(p.k, "key", 3, data, 10000 - 3), SHOAL_OK);
	assert_int_equal(shoal_get(p.k, "key", 3, &value), SHOAL_OK);
	assert_int_equal(value.size, 10000 - 3);
	shoal_release(&value);
	assert_int_equal(shoal_set(p.k, "key", 3, data, 10000 - 2), SHOAL_ERR_TOO_BIG);
	assert_misses(p.k, "key");
	assert_int_equal(shoal_set(p.k, "key", 3, data, SIZE_MAX), SHOAL_ERR_TOO_BIG);
	free(data);
	close_place(&p);
}

static void read_copies_out(void **state)
{
	struct place *p = *state;
	char buffer[8];
	size_t size = 0;

	assert_int_equal(shoal_read(p->k, STR("a"), buffer, sizeof(buffer), &size), SHOAL_MISS);
	assert_set(p->k, "a", "12345678");
	assert_int_equal(shoal_read(p->k, STR("a"), buffer, 8, &size), SHOAL_OK);
	assert_int_equal(size, 8);
	assert_memory_equal(buffer, "12345678", 8);
	size = 0;
	assert_int_equal(shoal_read(p->k, STR("a"), buffer, 7, &size), SHOAL_ERR_TOO_BIG);
	assert_int_equal(size, 8);
	size = 0;
	assert_int_equal(shoal_read(p->k, STR("a"), NULL, 0, &size), SHOAL_ERR_TOO_BIG);
	assert_int_equal(size, 8);
	assert_int_equal(shoal_read(p->k, STR("a"), buffer, 8, NULL), SHOAL_OK);
	assert_int_equal(stats_of(p->cache).pins, 0);
}

static void get_many_is_many_gets(void **state)
{
	enum { N = 50 };
	struct place *p = *state;
	struct shoal_slice keys[N];
	struct shoal_value values[N];
	char names[N][8];
	int outcomes[N], i;

	for (i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "key%d", i);
		keys[i] = (struct shoal_slice){names[i], strlen(names[i])};
		if (i % 3 == 0)
			assert_set(p->k, names[i], names[i]);
	}
	keys[1].size = 0;
	keys[2].data = NULL;
	assert_int_equal(shoal_get_many(p->k, keys, N, values, outcomes), SHOAL_OK);
	for (i = 0; i < N; i++) {
		assert_int_equal(outcomes[i], i % 3 == 0 ? SHOAL_OK : i < 3 ? SHOAL_ERR_INVALID : SHOAL_MISS);
		assert_true(outcomes[i] ? !values[i].data : holds(&values[i], names[i]));
		shoal_release(&values[i]);
	}
	assert_int_equal(stats_of(p->cache).pins, 0);
	assert_int_equal(shoal_get_many(p->k, NULL, 0, NULL, NULL), SHOAL_OK);
	assert_int_equal(shoal_get_many(p->k, NULL, 1, values, outcomes), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get_many(p->k, keys, 1, NULL, outcomes), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get_many(p->k, keys, 1, values, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_get_many(NULL, keys, 1, values, outcomes), SHOAL_ERR_INVALID);
}

/* ---- lives ------------------------------------------------------------------------------------------------- */

static int freshness(struct shoal_keyspace *k, const char *key)
{
	struct shoal_value value;
	int r = shoal_get(k, STR(key), &value);
	int f = r == SHOAL_OK ? (int)value.freshness : -r;

	if (r == SHOAL_MISS)
		assert_memory_equal(&value, &(struct shoal_value){0}, sizeof(value));
	shoal_release(&value);
	return r == SHOAL_MISS ? -1 : f;
}

static void fresh_then_stale_then_gone(void **state)
{
	static const struct shoal_policy policy = {
		.fresh_ms = 100, .stale_ms = 50, .error_ms = 25, .jitter_permille = SHOAL_NONE, .early = -1};
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "lives", &policy);
	struct shoal_keyspace_stats counts;
	size_t size;

	assert_set(k, "a", "x");
	pass_ms(p->clock, 99);
	assert_int_equal(freshness(k, "a"), SHOAL_FRESH);
	pass_ms(p->clock, 1);
	assert_int_equal(freshness(k, "a"), SHOAL_STALE);
	assert_int_equal(shoal_read(k, STR("a"), &(char){0}, 1, &size), SHOAL_OK);
	pass_ms(p->clock, 49);
	assert_int_equal(freshness(k, "a"), SHOAL_STALE);
	pass_ms(p->clock, 1); /* within error_ms only: a miss to get */
	assert_int_equal(freshness(k, "a"), -1);
	assert_int_equal(shoal_read(k, STR("a"), &(char){0}, 1, &size), SHOAL_MISS);
	pass_ms(p->clock, 1000);
	assert_int_equal(freshness(k, "a"), -1);
	counts = counts_of(k);
	assert_int_equal(counts.hits_fresh, 1);
	assert_int_equal(counts.hits_stale, 3);
	assert_int_equal(counts.misses, 3);
	assert_int_equal(stats_of(p->cache).pins, 0);
}

static void set_ttl_is_for_this_value(void **state)
{
	struct place *p = *state; /* fresh 1000, stale 1000 */

	assert_int_equal(shoal_set_ttl(p->k, STR("policy"), "x", 1, 0, 0), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("short"), "x", 1, 10, SHOAL_NONE), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("long"), "x", 1, 5000, 0), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("stale"), "x", 1, SHOAL_NONE, 5000), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("nothing"), "x", 1, SHOAL_NONE, SHOAL_NONE), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("ever"), "x", 1, SHOAL_FOREVER, 0), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("ever stale"), "x", 1, 1, SHOAL_FOREVER), SHOAL_OK);
	assert_int_equal(freshness(p->k, "policy"), SHOAL_FRESH);
	assert_int_equal(freshness(p->k, "short"), SHOAL_FRESH);
	assert_int_equal(freshness(p->k, "stale"), SHOAL_STALE);
	assert_int_equal(freshness(p->k, "nothing"), -1);
	pass_ms(p->clock, 10);
	assert_int_equal(freshness(p->k, "short"), -1);
	pass_ms(p->clock, 1990);
	assert_int_equal(freshness(p->k, "policy"), -1);
	assert_int_equal(freshness(p->k, "long"), SHOAL_FRESH);
	assert_int_equal(freshness(p->k, "stale"), SHOAL_STALE);
	pass_ms(p->clock, 3999);
	assert_int_equal(freshness(p->k, "long"), SHOAL_STALE);
	assert_int_equal(freshness(p->k, "stale"), -1);
	pass_ms(p->clock, 1000 * UINT64_C(86400000)); /* longer than 32 bits of ms */
	assert_int_equal(freshness(p->k, "long"), -1);
	assert_int_equal(freshness(p->k, "ever"), SHOAL_FRESH);
	assert_int_equal(freshness(p->k, "ever stale"), SHOAL_STALE);
}

static void the_longest_lives_add_up(void **state)
{
	static const struct shoal_policy policy = {.fresh_ms = SHOAL_FOREVER - 1, .stale_ms = SHOAL_FOREVER - 1,
	                                           .jitter_permille = SHOAL_NONE, .early = -1};
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "long", &policy);

	assert_set(k, "a", "x");
	pass_ms(p->clock, SHOAL_FOREVER - 2);
	assert_int_equal(freshness(k, "a"), SHOAL_FRESH);
	pass_ms(p->clock, SHOAL_FOREVER - 1);
	assert_int_equal(freshness(k, "a"), SHOAL_STALE);
	pass_ms(p->clock, 1);
	assert_int_equal(freshness(k, "a"), -1);
}

static int sum_fresh(const struct shoal_entry *entry, void *arg)
{
	int64_t *extremes = arg;

	if (entry->fresh_left_ms < extremes[0])
		extremes[0] = entry->fresh_left_ms;
	if (entry->fresh_left_ms > extremes[1])
		extremes[1] = entry->fresh_left_ms;
	return 0;
}

static void jitter_shortens_only(void **state)
{
	static const struct shoal_policy policy = {.fresh_ms = 100000, .jitter_permille = 500, .early = -1};
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "jitter", &policy);
	int64_t extremes[2] = {INT64_MAX, 0};
	int i;

	for (i = 0; i < 500; i++)
		assert_int_equal(shoal_set(k, &i, sizeof(i), "x", 1), SHOAL_OK);
	assert_int_equal(shoal_scan(p->cache, "jitter", sum_fresh, extremes), SHOAL_OK);
	assert_in_range(extremes[0], 50000, 60000);
	assert_in_range(extremes[1], 90000, 100000);
}

static void a_set_after_death_lives(void **state)
{
	struct place *p = *state;

	assert_set(p->k, "a", "old");
	pass_ms(p->clock, 10000);
	assert_misses(p->k, "a");
	assert_set(p->k, "a", "new");
	assert_gives(p->k, "a", "new");
}

/* ---- expire, delete ---------------------------------------------------------------------------------------- */

static void delete_takes_away(void **state)
{
	struct place *p = *state;

	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_MISS);
	assert_set(p->k, "a", "x");
	assert_set(p->k, "b", "y");
	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_OK);
	assert_misses(p->k, "a");
	assert_gives(p->k, "b", "y");
	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_MISS);
	assert_set(p->k, "a", "z");
	assert_gives(p->k, "a", "z");
}

static void expire_makes_stale(void **state)
{
	struct place *p = *state;

	assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_MISS);
	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 10);
	assert_int_equal(freshness(p->k, "a"), SHOAL_FRESH);
	assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
	assert_int_equal(freshness(p->k, "a"), SHOAL_STALE);
	assert_gives(p->k, "a", "x");
	pass_ms(p->clock, 999);
	assert_int_equal(freshness(p->k, "a"), SHOAL_STALE);
	pass_ms(p->clock, 1); /* stale_ms after the expire, not after the end of fresh */
	assert_int_equal(freshness(p->k, "a"), -1);
}

static void expire_keeps_age(void **state)
{
	struct place *p = *state;
	struct shoal_value value;

	assert_set(p->k, "a", "x");
	pass_ms(p->clock, 10);
	assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_OK);
	pass_ms(p->clock, 5);
	assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
	assert_int_equal(value.age_ms, 15);
	shoal_release(&value);
}

static void expire_never_prolongs(void **state)
{
	struct place *p = *state; /* fresh 1000, stale 1000 */
	int i;

	assert_set(p->k, "again", "x");
	assert_set(p->k, "late", "x");
	assert_int_equal(shoal_set_ttl(p->k, STR("short"), "x", 1, 1000, 10), SHOAL_OK);
	assert_int_equal(shoal_expire(p->k, STR("short")), SHOAL_OK);
	pass_ms(p->clock, 999);
	assert_int_equal(freshness(p->k, "short"), SHOAL_STALE); /* 1010 in all; now + 1000 would be more */
	pass_ms(p->clock, 1);
	assert_int_equal(freshness(p->k, "short"), -1); /* now + stale_ms comes first */
	assert_int_equal(freshness(p->k, "late"), SHOAL_STALE);
	for (i = 0; i < 10; i++) {
		assert_int_equal(shoal_expire(p->k, STR("again")), SHOAL_OK);
		assert_int_equal(shoal_expire(p->k, STR("late")), SHOAL_OK);
		pass_ms(p->clock, 99);
		assert_int_equal(freshness(p->k, "again"), SHOAL_STALE);
	}
	pass_ms(p->clock, 9);
	assert_int_equal(freshness(p->k, "late"), SHOAL_STALE);
	pass_ms(p->clock, 1); /* 2000 since the set */
	assert_int_equal(freshness(p->k, "late"), -1);
	assert_int_equal(freshness(p->k, "again"), -1);
	assert_int_equal(shoal_expire(p->k, STR("again")) == SHOAL_OK ? freshness(p->k, "again") : -1, -1);
	pass_ms(p->clock, 1000);
	assert_int_equal(shoal_expire(p->k, STR("again")), SHOAL_MISS);
}

static void expire_of_forever(void **state)
{
	static const struct shoal_policy policy = {.fresh_ms = SHOAL_FOREVER, .stale_ms = SHOAL_FOREVER, .early = -1};
	struct place *p = *state;
	struct shoal_keyspace *ever = keyspace(p->cache, "ever", &policy);

	assert_set(ever, "a", "x");
	assert_int_equal(shoal_set_ttl(p->k, STR("b"), "x", 1, SHOAL_FOREVER, SHOAL_FOREVER), SHOAL_OK);
	pass_ms(p->clock, 100 * UINT64_C(86400000)); /* its age doesn't fit 32 bits */
	assert_int_equal(shoal_expire(ever, STR("a")), SHOAL_OK);
	assert_int_equal(shoal_expire(p->k, STR("b")), SHOAL_OK);
	assert_int_equal(freshness(ever, "a"), SHOAL_STALE);
	assert_int_equal(freshness(p->k, "b"), SHOAL_STALE);
	pass_ms(p->clock, 1000);
	assert_int_equal(freshness(p->k, "b"), -1);
	pass_ms(p->clock, 100 * UINT64_C(86400000));
	assert_int_equal(freshness(ever, "a"), SHOAL_STALE);
}

static void expire_without_stale_is_delete(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k = keyspace(p->cache, "no-stale", &(struct shoal_policy){.fresh_ms = 1000});

	assert_set(k, "a", "x");
	assert_int_equal(shoal_expire(k, STR("a")), SHOAL_OK);
	assert_misses(k, "a");
	assert_int_equal(shoal_expire(k, STR("a")), SHOAL_MISS);
}

/* ---- pins -------------------------------------------------------------------------------------------------- */

/* More values in hand than a thread has pins, while everything behind them is overwritten. */
static void values_in_hand_stay(void **state)
{
	enum { N = 60 };
	struct place p = open_place(NULL, &(struct shoal_config){.size = 2 << 20});
	struct shoal_value values[N];
	char name[16], big[4000] = {0};
	int i, round;

	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "key%d", i);
		assert_set(p.k, name, name);
		assert_int_equal(shoal_get(p.k, STR(name), &values[i]), SHOAL_OK);
	}
	assert_int_equal(stats_of(p.cache).pins, READER_WORDS - PINS);
	for (round = 0; round < 4000; round++)
		assert_int_equal(shoal_set(p.k, &round, sizeof(round), big, sizeof(big)), SHOAL_OK);
	assert_true(stats_of(p.cache).evicted_extents > 500);
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "key%d", i);
		assert_true(holds(&values[i], name));
		assert_int_equal((uintptr_t)values[i].data % 8, 0);
		shoal_release(&values[i]);
	}
	assert_int_equal(stats_of(p.cache).pins, 0);
	close_place(&p);
}

struct pinner {
	struct place *p;
	word32 *gate;
	uint32_t first; /* of the extents it holds */
};

static char big[12000];

/* What values in hand do, but without end: those are counted, and copied where they would hold too much. */
static void *pin_extents(void *arg)
{
	struct pinner *one = arg;
	struct seat *seat = handle_enter(one->p->cache, &(int){0});
	unsigned w;

	assert_non_null(seat);
	for (w = PINS; w < READER_WORDS; w++)
		if (one->first + w - PINS < seat->member->segment.geometry.extents)
			rcu_announce(seat, w, one->first + w - PINS);
	handle_leave();
	post(&one->gate[0]);
	await(&one->gate[1], 1);
	for (w = PINS; w < READER_WORDS; w++)
		rcu_clear(seat, w);
	return NULL;
}

/* Every extent held: NO_SPACE, and rather no value than the older one. */
static void no_space_when_all_is_pinned(void **state)
{
	enum { THREADS = 8, EACH = READER_WORDS - PINS };
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_entry = 16 << 10});
	struct pinner pinners[THREADS];
	word32 gate[2] = {0};
	pthread_t threads[THREADS];
	int i, r = SHOAL_OK;

	assert_set(p.k, "key", "old");
	for (i = 0; i < THREADS; i++) {
		pinners[i] = (struct pinner){.p = &p, .gate = gate, .first = (uint32_t)i * EACH};
		assert_int_equal(pthread_create(&threads[i], NULL, pin_extents, &pinners[i]), 0);
	}
	assert_true(await(&gate[0], THREADS));
	for (i = 0; i < 1000 && r == SHOAL_OK; i++)
		r = shoal_set(p.k, &i, sizeof(i), big, sizeof(big));
	assert_int_equal(r, SHOAL_ERR_NO_SPACE);
	assert_int_equal(shoal_set(p.k, "key", 3, big, sizeof(big)), SHOAL_ERR_NO_SPACE);
	assert_misses(p.k, "key");
	post(&gate[1]);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stats_of(p.cache).pins, 0);
	assert_int_equal(shoal_set(p.k, "key", 3, big, sizeof(big)), SHOAL_OK);
	close_place(&p);
}

/* ---- more than fits ---------------------------------------------------------------------------------------- */

static void what_does_not_fit_goes(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 2 << 20});
	struct shoal_stats stats;
	char value[700];
	size_t size;
	int key, there = 0;

	for (key = 0; key < 20000; key++) {
		memset(value, key & 0xff, sizeof(value));
		assert_int_equal(shoal_set(p.k, &key, sizeof(key), value, 500 + (size_t)key % 200), SHOAL_OK);
		assert_int_equal(shoal_read(p.k, &key, sizeof(key), value, sizeof(value), &size), SHOAL_OK);
		assert_int_equal(size, 500 + key % 200);
		assert_int_equal((unsigned char)value[size - 1], key & 0xff);
	}
	for (key = 0; key < 20000; key++) {
		if (shoal_read(p.k, &key, sizeof(key), value, sizeof(value), &size))
			continue;
		there++;
		assert_int_equal(size, 500 + key % 200);
		assert_int_equal((unsigned char)value[0], key & 0xff);
	}
	stats = stats_of(p.cache);
	assert_in_range(there, 1000, 2800);
	assert_int_equal(stats.entries, there);
	assert_true(stats.evicted_entries >= 17000 && stats.evicted_extents > 100);
	assert_true(stats.bytes_live > 500 * (uint64_t)there);
	close_place(&p);
}

/* ---- bad bytes, other schemas ------------------------------------------------------------------------------ */

/* Change the one place of the file that holds `text`. */
static void scribble(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	off_t size = lseek(fd, 0, SEEK_END);
	char *base = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *at;

	assert_ptr_not_equal(base, MAP_FAILED);
	at = memmem(base, (size_t)size, text, strlen(text));
	assert_non_null(at);
	*at ^= 1;
	munmap(base, (size_t)size);
	close(fd);
}

static void a_bad_byte_is_a_counted_miss(void **state)
{
	char path[64];
	struct place p;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-verbs-%d", (int)getpid());
	p = open_place(path, &(struct shoal_config){.size = 1 << 20, .flags = SHOAL_CHECKSUM});
	assert_set(p.k, "a", "a value to be spoilt");
	assert_set(p.k, "the key to be spoilt", "b");
	assert_set(p.k, "c", "unspoilt");
	assert_gives(p.k, "a", "a value to be spoilt");
	scribble(path, "a value to be spoilt");
	scribble(path, "the key to be spoilt");
	assert_int_equal(counts_of(p.k).corrupt, 0);
	assert_misses(p.k, "a");
	assert_int_equal(counts_of(p.k).corrupt, 1);
	assert_misses(p.k, "a");
	assert_int_equal(counts_of(p.k).corrupt, 1); /* met once */
	assert_misses(p.k, "the key to be spoilt");
	assert_gives(p.k, "c", "unspoilt");
	assert_set(p.k, "a", "again");
	assert_gives(p.k, "a", "again");
	assert_int_equal(shoal_unlink(path), SHOAL_OK);
	close_place(&p);
}

/* What was spoilt while a refresh had it in hand: a new copy would carry a checksum that holds. */
static void a_bad_byte_is_not_kept(void **state)
{
	static const struct shoal_policy stale = {.fresh_ms = SHOAL_NONE, .stale_ms = SHOAL_FOREVER};
	struct shoal_keyspace *k;
	struct shoal_value value;
	struct shoal_load *load;
	char path[64];
	struct place p;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-kept-%d", (int)getpid());
	p = open_place(path, &(struct shoal_config){.size = 1 << 20, .flags = SHOAL_CHECKSUM});
	assert_int_equal(shoal_keyspace_open(p.cache, "stale", 1, &stale, &k), SHOAL_OK);
	assert_set(k, "a", "a value that is kept");
	assert_int_equal(shoal_begin(k, STR("a"), &load, &value), SHOAL_REFRESH);
	shoal_release(&value);
	assert_int_equal(shoal_load_keep(load), SHOAL_OK);
	assert_int_equal(shoal_delete(k, STR("a")), SHOAL_OK);
	assert_set(k, "a", "a value to be spoilt in hand");
	assert_int_equal(shoal_begin(k, STR("a"), &load, &value), SHOAL_REFRESH);
	shoal_release(&value);
	scribble(path, "a value to be spoilt in hand");
	assert_int_equal(shoal_load_keep(load), SHOAL_ERR_CORRUPT);
	assert_misses(k, "a");
	assert_int_equal(counts_of(k).corrupt, 1);
	assert_int_equal(shoal_begin(k, STR("a"), &load, &value), SHOAL_LEAD); /* the load has ended */
	shoal_load_cancel(load);
	assert_int_equal(shoal_unlink(path), SHOAL_OK);
	close_place(&p);
}

/* Expired copies and empty values carry a checksum that holds. */
static void checksums_hold(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .flags = SHOAL_CHECKSUM});
	char data[64] = "0123456789012345678901234567890123456789012345678901234567890";
	char key[9] = "kkkkkkkk";
	struct shoal_value value;
	size_t n, m;

	for (n = 0; n < 20; n++)
		for (m = 1; m < 9; m++) {
			assert_int_equal(shoal_set(p.k, key, m, data, n), SHOAL_OK);
			assert_int_equal(shoal_expire(p.k, key, m), SHOAL_OK);
			assert_int_equal(shoal_get(p.k, key, m, &value), SHOAL_OK);
			assert_int_equal(value.freshness, SHOAL_STALE);
			assert_int_equal(value.size, n);
			assert_memory_equal(value.data, data, n);
			shoal_release(&value);
		}
	assert_int_equal(counts_of(p.k).corrupt, 0);
	close_place(&p);
}

struct shown {
	int good, corrupt, packed;
	uint32_t schema;
};

static int read_shown(const struct shoal_entry *entry, void *arg)
{
	char buffer[4096];
	struct shown *shown = arg;
	int r = shoal_entry_read(entry, buffer, sizeof(buffer));

	shown->corrupt += r == SHOAL_ERR_CORRUPT;
	shown->good += r == SHOAL_OK && entry->size == 10 && !memcmp(buffer, "0123456789", 10);
	shown->packed += r == SHOAL_OK && entry->size == sizeof(buffer) && buffer[0] == 'x' && buffer[4095] == 'x';
	shown->schema += entry->schema;
	assert_true(entry->error_left_ms >= entry->stale_left_ms && entry->stale_left_ms >= entry->fresh_left_ms);
	assert_int_equal(shoal_entry_read(entry, buffer, entry->size - 1), SHOAL_ERR_TOO_BIG);
	return 0;
}

/* What a scan reads is no hit, of any schema, packed or not; and a bad byte is not handed out. */
static void a_scan_reads_values(void **state)
{
	char path[64], value[4096];
	struct shoal_policy packed = {.flags = SHOAL_COMPRESS, .schema = 7};
	struct shoal_keyspace *k;
	struct shown shown = {0};
	struct place p;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-verbs-%d", (int)getpid());
	p = open_place(path, &(struct shoal_config){.size = 1 << 20, .flags = SHOAL_CHECKSUM});
	k = keyspace(p.cache, "packed", &packed);
	memset(value, 'x', sizeof(value));
	assert_set(p.k, "good", "0123456789");
	assert_set(p.k, "bad", "a value to be spoilt");
	assert_int_equal(shoal_set(k, "big", 3, value, sizeof(value)), SHOAL_OK);
	scribble(path, "a value to be spoilt");
	assert_int_equal(shoal_scan(p.cache, NULL, read_shown, &shown), SHOAL_OK);
	assert_int_equal(shown.good, 1);
	assert_int_equal(shown.corrupt, 1);
	assert_int_equal(shown.packed, 1);
	assert_int_equal(shown.schema, 7);
	assert_int_equal(counts_of(p.k).hits_fresh + counts_of(k).hits_fresh + counts_of(k).schema_mismatches, 0);
	assert_int_equal(shoal_unlink(path), SHOAL_OK);
	close_place(&p);
}

static void another_schema_is_a_counted_miss(void **state)
{
	struct place *p = *state;
	struct shoal_policy policy = steady;
	struct shoal_keyspace *one, *two;

	policy.schema = 1;
	one = keyspace(p->cache, "schema", &policy);
	policy.schema = 2;
	two = keyspace(p->cache, "schema", &policy);
	assert_set(one, "a", "of schema 1");
	assert_gives(one, "a", "of schema 1");
	assert_misses(two, "a");
	assert_int_equal(counts_of(two).schema_mismatches, 1);
	assert_gives(one, "a", "of schema 1");
	assert_set(two, "a", "of schema 2");
	assert_misses(one, "a");
	assert_gives(two, "a", "of schema 2");
	assert_int_equal(counts_of(one).schema_mismatches, 2);
	assert_int_equal(counts_of(one).misses, 2);
	assert_int_equal(counts_of(one).corrupt, 0);
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

static void keyspaces_are_apart(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *b1, *b2, *again;

	assert_int_equal(shoal_keyspace_open(p->cache, "b", 1, NULL, &b1), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(p->cache, "b", 2, NULL, &b2), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(p->cache, "b", 1, NULL, &again), SHOAL_OK);
	assert_ptr_not_equal(b1, again);
	assert_set(p->k, "a", "0");
	assert_set(b1, "a", "1");
	assert_set(b2, "a", "2");
	assert_gives(p->k, "a", "0");
	assert_gives(b1, "a", "1");
	assert_gives(again, "a", "1");
	assert_gives(b2, "a", "2");
	assert_int_equal(shoal_delete(again, STR("a")), SHOAL_OK);
	assert_misses(b1, "a");
	assert_gives(b2, "a", "2");
	assert_int_equal(counts_of(b1).hits_fresh, 2);
	assert_int_equal(counts_of(again).misses, 1);
	assert_int_equal(counts_of(b2).hits_fresh, 2);
}

static void keyspace_names_have_limits(void **state)
{
	static const char *const wrong[] = {
		"",    "a b",      "a/b",
		"a\n", "\xc3\xa4", "0123456789012345678901234567890123456789012345678901234567890123"};
	struct place p = open_place(NULL, &(struct shoal_config){.size = 1 << 20, .max_keyspaces = 5});
	struct shoal_keyspace *k = (void *)&p;
	size_t i;

	for (i = 0; i < COUNT(wrong); i++)
		assert_int_equal(shoal_keyspace_open(p.cache, wrong[i], 1, NULL, &k), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_open(NULL, "a", 1, NULL, &k), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_open(p.cache, NULL, 1, NULL, &k), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_open(p.cache, "a", 1, NULL, NULL), SHOAL_ERR_INVALID);
	assert_ptr_equal(k, &p);
	for (i = 1; i < 5; i++)
		assert_int_equal(shoal_keyspace_open(p.cache, "Aa0._-", (uint32_t)i, NULL, &k), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(p.cache, "Aa0._-", 5, NULL, &k), SHOAL_ERR_LIMIT);
	assert_int_equal(shoal_keyspace_open(p.cache, "Aa0._-", 1, NULL, &k), SHOAL_OK);
	close_place(&p);
}

/* ---- scan -------------------------------------------------------------------------------------------------- */

struct seen {
	struct place *p;
	int n, stop_at, bytes;
	uint32_t versions;
	struct shoal_entry last;
};

static int see(const struct shoal_entry *entry, void *arg)
{
	struct seen *seen = arg;

	seen->n++;
	seen->versions |= 1u << entry->version;
	seen->bytes += (int)entry->size;
	seen->last = *entry;
	return seen->n == seen->stop_at ? 77 : 0;
}

static void scan_shows_what_is_readable(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *b1, *b2;
	struct seen seen = {0};
	int key;

	assert_int_equal(shoal_scan(p->cache, NULL, see, &seen), SHOAL_OK);
	assert_int_equal(seen.n, 0);
	assert_int_equal(shoal_keyspace_open(p->cache, "b", 1, &steady, &b1), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(p->cache, "b", 2, &steady, &b2), SHOAL_OK);
	for (key = 0; key < 100; key++)
		assert_int_equal(shoal_set(p->k, &key, sizeof(key), "12", 2), SHOAL_OK);
	for (key = 0; key < 10; key++) {
		assert_int_equal(shoal_set(b1, &key, sizeof(key), "345", 3), SHOAL_OK);
		assert_int_equal(shoal_set_ttl(b2, &key, sizeof(key), "6789", 4, 100, SHOAL_NONE), SHOAL_OK);
	}
	assert_int_equal(shoal_scan(p->cache, NULL, see, &seen), SHOAL_OK);
	assert_int_equal(seen.n, 120);
	seen = (struct seen){0};
	assert_int_equal(shoal_scan(p->cache, "b", see, &seen), SHOAL_OK);
	assert_int_equal(seen.n, 20);
	assert_int_equal(seen.bytes, 70);
	assert_int_equal(seen.versions, 1u << 1 | 1u << 2);
	seen = (struct seen){0};
	assert_int_equal(shoal_scan(p->cache, "none", see, &seen), SHOAL_OK);
	assert_int_equal(seen.n, 0);
	seen = (struct seen){.stop_at = 7};
	assert_int_equal(shoal_scan(p->cache, NULL, see, &seen), 77);
	assert_int_equal(seen.n, 7);
	pass_ms(p->clock, 10000); /* all dead */
	seen = (struct seen){0};
	assert_int_equal(shoal_scan(p->cache, NULL, see, &seen), SHOAL_OK);
	assert_int_equal(seen.n, 0);
	assert_int_equal(shoal_scan(NULL, NULL, see, &seen), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_scan(p->cache, NULL, NULL, &seen), SHOAL_ERR_INVALID);
	assert_int_equal(stats_of(p->cache).pins, 0);
}

static int check_fields(const struct shoal_entry *entry, void *arg)
{
	++*(int *)arg;
	assert_string_equal(entry->keyspace, "test");
	assert_int_equal(entry->version, 1);
	assert_int_equal(entry->size, 5);
	assert_int_equal(entry->age_ms, 30);
	if (entry->key.size == 1) {
		assert_memory_equal(entry->key.data, "a", 1);
		assert_int_equal(entry->fresh_left_ms, 970);
		assert_int_equal(entry->stale_left_ms, 1970);
		assert_int_equal(entry->frequency, 3);
	} else if (entry->key.size == 2) {
		assert_int_equal(entry->fresh_left_ms, -20);
		assert_int_equal(entry->stale_left_ms, 980);
		assert_int_equal(entry->frequency, 0);
	} else {
		assert_true(entry->fresh_left_ms == INT64_MAX);
		assert_true(entry->stale_left_ms == INT64_MAX);
	}
	return 0;
}

static void scan_tells_ages(void **state)
{
	struct place *p = *state;
	int i, n = 0;

	assert_set(p->k, "a", "12345");
	assert_int_equal(shoal_set_ttl(p->k, STR("bb"), "12345", 5, 10, 0), SHOAL_OK);
	assert_int_equal(shoal_set_ttl(p->k, STR("ccc"), "12345", 5, SHOAL_FOREVER, 0), SHOAL_OK);
	for (i = 0; i < 300; i++) { /* until their extent is full: hits count from then on */
		assert_int_equal(shoal_set(p->k, STR("fill"), big, 1000), SHOAL_OK);
		assert_int_equal(shoal_delete(p->k, STR("fill")), SHOAL_OK);
	}
	for (i = 0; i < 5; i++)
		assert_gives(p->k, "a", "12345");
	pass_ms(p->clock, 30);
	assert_int_equal(shoal_scan(p->cache, "test", check_fields, &n), SHOAL_OK);
	assert_int_equal(n, 3);
}

/* A visit may use the cache, also to take away what it sees. */
static int use_cache(const struct shoal_entry *entry, void *arg)
{
	struct seen *seen = arg;
	char copy[16];
	int inner = 0;
	size_t size;

	seen->n++;
	memcpy(copy, entry->key.data, entry->key.size);
	assert_int_equal(shoal_read(seen->p->k, copy, entry->key.size, copy, sizeof(copy), &size), SHOAL_OK);
	assert_int_equal(shoal_set(seen->p->k, STR("other"), "12345", 5), SHOAL_OK);
	assert_int_equal(shoal_delete(seen->p->k, entry->key.data, entry->key.size), SHOAL_OK);
	assert_int_equal(shoal_delete(seen->p->k, STR("other")) & ~1, SHOAL_OK);
	shoal_scan(seen->p->cache, NULL, see, &(struct seen){.n = inner});
	return 0;
}

static void a_visit_may_use_the_cache(void **state)
{
	struct place *p = *state;
	struct seen seen = {.p = p};
	char key[16];
	int i;

	for (i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		assert_set(p->k, key, key);
	}
	assert_int_equal(shoal_scan(p->cache, NULL, use_cache, &seen), SHOAL_OK);
	assert_in_range(seen.n, 50, 100);
	for (i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		assert_misses(p->k, key);
	}
	assert_int_equal(stats_of(p->cache).pins, 0);
}

static void inspecting_changes_nothing(void **state)
{
	struct shoal_keyspace *k = NULL, *none = NULL;
	struct shoal_value value;
	struct seen seen = {0};
	struct shoal *view;
	char path[64];
	struct place p;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-verbs-%d", (int)getpid());
	assert_int_equal(shoal_open(path, &(struct shoal_config){.flags = SHOAL_INSPECT}, &view), SHOAL_ERR_NOT_FOUND);
	p = open_place(path, &(struct shoal_config){.size = 1 << 20});
	assert_set(p.k, "a", "12345");
	assert_int_equal(shoal_open(path,
	                            &(struct shoal_config){.flags = SHOAL_INSPECT, .clock = test_clock_read,
	                                                   .clock_arg = p.clock},
	                            &view),
	                 SHOAL_OK);
	assert_int_equal(shoal_scan(view, NULL, see, &seen), SHOAL_OK);
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.bytes, 5);
	assert_int_equal(shoal_keyspace_open(view, "test", 1, NULL, &k), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(view, "test", 2, NULL, &none), SHOAL_ERR_NOT_FOUND);
	assert_int_equal(stats_of(view).entries, 1);
	assert_int_equal(stats_of(view).threads, 1);
	assert_int_equal(counts_of(k).hits_fresh, 0);
	assert_int_equal(shoal_get(k, STR("a"), &value), SHOAL_ERR_PERMISSION);
	assert_int_equal(shoal_set(k, STR("a"), "x", 1), SHOAL_ERR_PERMISSION);
	assert_int_equal(shoal_delete(k, STR("a")), SHOAL_ERR_PERMISSION);
	assert_int_equal(shoal_reap(view), SHOAL_ERR_PERMISSION);
	assert_int_equal(shoal_refresher_start(view, 1, 1), SHOAL_ERR_PERMISSION);
	shoal_close(view);
	assert_gives(p.k, "a", "12345");
	shoal_unlink(path);
	close_place(&p);
}

/* ---- statistics -------------------------------------------------------------------------------------------- */

static void statistics_count(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *b = keyspace(p->cache, "b", &steady);
	struct shoal_stats stats;
	int i;

	assert_set(p->k, "a", "x");
	for (i = 0; i < 10; i++)
		assert_gives(p->k, "a", "x");
	for (i = 0; i < 3; i++)
		assert_misses(b, "a");
	stats = stats_of(p->cache);
	assert_int_equal(stats.size, 8 << 20);
	assert_int_equal(stats.entries, 1);
	assert_int_equal(stats.processes, 1);
	assert_int_equal(stats.threads, 1);
	assert_int_equal(stats.total.hits_fresh, 10);
	assert_int_equal(stats.total.misses, 3);
	assert_int_equal(counts_of(p->k).hits_fresh, 10);
	assert_int_equal(counts_of(p->k).misses, 0);
	assert_int_equal(counts_of(b).misses, 3);
	assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_OK);
	assert_int_equal(stats_of(p->cache).entries, 0);
	assert_int_equal(stats_of(p->cache).bytes_live, 0);
	assert_int_equal(shoal_stats(NULL, &stats), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_stats(p->cache, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_stats(NULL, &stats.total), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_stats(b, NULL), SHOAL_ERR_INVALID);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(get_gives_what_was_set),
		CASE(release_is_harmless),
		CASE(an_empty_value_is_a_value),
		CASE(data_is_aligned),
		CASE(keys_are_any_bytes),
		cmocka_unit_test(key_sizes_have_limits),
		cmocka_unit_test(too_big_leaves_no_older_value),
		CASE(read_copies_out),
		CASE(get_many_is_many_gets),
		CASE(fresh_then_stale_then_gone),
		CASE(set_ttl_is_for_this_value),
		CASE(the_longest_lives_add_up),
		CASE(jitter_shortens_only),
		CASE(a_set_after_death_lives),
		CASE(delete_takes_away),
		CASE(expire_makes_stale),
		CASE(expire_keeps_age),
		CASE(expire_never_prolongs),
		CASE(expire_of_forever),
		CASE(expire_without_stale_is_delete),
		cmocka_unit_test(values_in_hand_stay),
		cmocka_unit_test(no_space_when_all_is_pinned),
		cmocka_unit_test(what_does_not_fit_goes),
		cmocka_unit_test(a_bad_byte_is_a_counted_miss),
		cmocka_unit_test(a_bad_byte_is_not_kept),
		cmocka_unit_test(a_scan_reads_values),
		cmocka_unit_test(checksums_hold),
		CASE(another_schema_is_a_counted_miss),
		CASE(keyspaces_are_apart),
		cmocka_unit_test(keyspace_names_have_limits),
		CASE(scan_shows_what_is_readable),
		CASE(scan_tells_ages),
		CASE(a_visit_may_use_the_cache),
		cmocka_unit_test(inspecting_changes_nothing),
		CASE(statistics_count),
	};

	return cmocka_run_group_tests_name("verbs", tests, NULL, NULL);
}
