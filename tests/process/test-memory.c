/* SPDX-License-Identifier: MIT */
/*
 * Memory, for a caller of <shoal.h>: what is kept and what goes, room for whatever comes, accounting that adds up, and
 * what values in hand cost the others.
 */
#include <math.h>
#include <pthread.h>

#include "crew.h"
#include "testing.h"

static char bytes[1 << 20];

static const struct shoal_policy for_ever = {.fresh_ms = SHOAL_FOREVER, .jitter_permille = SHOAL_NONE, .early = -1};

static bool is_there(struct shoal_keyspace *k, uint64_t key)
{
	int r = shoal_read(k, &key, sizeof(key), NULL, 0, NULL);

	return r == SHOAL_OK || r == SHOAL_ERR_TOO_BIG;
}

static void put(struct shoal_keyspace *k, uint64_t key, size_t size)
{
	assert_int_equal(shoal_set(k, &key, sizeof(key), bytes, size), SHOAL_OK);
}

static uint64_t log_bytes(struct shoal *cache)
{
	struct shoal_stats stats = stats_of(cache);

	return stats.size - stats.bytes_overhead;
}

/* ---- what is kept ------------------------------------------------------------------------------------------ */

/* How many of 1,000 keys, a third of the space, are there after ten times the space was set beside them. */
static unsigned left_after_scan(unsigned flags, unsigned hits)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 4 << 20, .flags = flags});
	struct shoal_keyspace *k = keyspace(p.cache, "kept", &for_ever);
	unsigned key, i, left = 0;

	for (key = 0; key < 1000; key++)
		put(k, key, 1200);
	for (key = 0; key < 200; key++) /* the last extent is written to no more */
		put(k, 500000 + key, 1200);
	for (i = 0; i < hits; i++)
		for (key = 0; key < 1000; key++)
			assert_true(is_there(k, key));
	for (key = 0; key < 32000; key++)
		put(k, 1000000 + key, 1200);
	for (key = 0; key < 1000; key++)
		left += is_there(k, key);
	assert_in_range(stats_of(p.cache).frequency_writes, hits * 1000, hits * 1000 + left);
	close_place(&p);
	return left;
}

static void a_scan_leaves_what_was_hit(void **state)
{
	assert_in_range(left_after_scan(0, 3), 950, 1000);
	assert_in_range(left_after_scan(0, 0), 0, 50);
	assert_in_range(left_after_scan(SHOAL_FIFO, 3), 0, 50);
}

/* Each entry is written three times by its hits, until it is moved. */
static void hits_write_three_times(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct shoal_keyspace *k = keyspace(p.cache, "hot", &for_ever);
	unsigned i;

	put(k, 1, 100);
	for (i = 0; i < 1000; i++)
		assert_true(is_there(k, 1));
	assert_int_equal(stats_of(p.cache).frequency_writes, 0); /* what was just set is not judged yet */
	for (i = 0; i < 20; i++)
		put(k, 2 + i, 20000);
	for (i = 0; i < 1000; i++)
		assert_true(is_there(k, 1));
	assert_int_equal(stats_of(p.cache).frequency_writes, 3);
	close_place(&p);
}

/* ---- room -------------------------------------------------------------------------------------------------- */

struct mix {
	uint64_t keys;
	double least, most; /* sizes, log-uniform between them */
	bool lives;         /* from 50 ms to for ever */
};

static size_t size_in(const struct mix *m, uint64_t *seed)
{
	return (size_t)(m->least * pow(m->most / m->least, (double)(draw(seed) >> 11) * 0x1p-53));
}

static uint32_t life_in(const struct mix *m, uint64_t *seed)
{
	static const uint32_t lives[] = {50, 5000, 600000, SHOAL_FOREVER};

	return m->lives ? lives[draw(seed) % COUNT(lives)] : SHOAL_FOREVER;
}

/* Sets until `turns` times the log was written: the average of live bytes, in a thousand of the log. */
static unsigned churn(struct place *p, struct shoal_keyspace *k, const struct mix *m, unsigned turns, uint64_t *seed)
{
	uint64_t log = log_bytes(p->cache), written = 0, live = 0, looks = 0, key, n;
	struct shoal_stats stats;
	size_t size;

	for (n = 0; written < turns * log; n++) {
		size = size_in(m, seed);
		key = draw(seed) % m->keys;
		assert_int_equal(shoal_set_ttl(k, &key, sizeof(key), bytes, size, life_in(m, seed), 0), SHOAL_OK);
		written += size + 56;
		pass_ms(p->clock, 20);
		if (n % 64)
			continue;
		stats = stats_of(p->cache);
		live += stats.bytes_live;
		looks++;
	}
	return (unsigned)(live * 1000 / looks / log);
}

/* Sizes and lives of every kind, in turns, for a long time: never "no space", live bytes 85% at least once it is full,
 * and the mean of each turn as good as that of the first full one. Hours pass on its clock. */
static void churns_for_ever(void **state)
{
	static const struct mix mixes[] = {
		{.keys = UINT64_C(1) << 40, .least = 16, .most = 30000},
		{.keys = 6000, .least = 16, .most = 30000, .lives = true},
		{.keys = 3000, .least = 1000, .most = 30000},
		{.keys = 100000, .least = 300, .most = 1000, .lives = true},
		{.keys = 1000, .least = 4000, .most = 30000},
	};
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_entry = 30100});
	struct shoal_keyspace *k = keyspace(p.cache, "churn", &for_ever);
	uint64_t seed = 20;
	unsigned round, i, live, all, first = 0;

	for (round = 0; round < 4; round++) {
		for (all = i = 0; i < COUNT(mixes); i++) {
			churn(&p, k, &mixes[i], 2, &seed); /* from the mix before to this one */
			live = churn(&p, k, &mixes[i], 12, &seed);
			printf("# round %u, sizes %.0f-%.0f: %u permille live\n", round, mixes[i].least, mixes[i].most,
			       live);
			assert_in_range(live, 850, 1000);
			all += live;
		}
		if (round == 1) /* the first began empty */
			first = all;
		assert_true(all + 10 * COUNT(mixes) > first);
	}
	printf("# %.1f hours\n", (double)(test_clock_read(p.clock) / SECOND_NS - 1000) / 3600);
	close_place(&p);
}

/* A call of a writer walks one extent at most. */
static void no_call_evicts_twice(void **state)
{
	static const struct mix mixed = {.keys = 20000, .least = 16, .most = 30000};
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .max_entry = 30100});
	struct shoal_keyspace *k = keyspace(p.cache, "pause", &for_ever);
	uint64_t seed = 3, before, now = 0;
	unsigned n, most = 0;

	for (n = 0; n < 30000; n++) {
		before = now;
		put(k, draw(&seed) % mixed.keys, size_in(&mixed, &seed));
		is_there(k, draw(&seed) % mixed.keys);
		now = stats_of(p.cache).evicted_extents;
		most = now - before > most ? (unsigned)(now - before) : most;
	}
	assert_true(now > 1000);
	assert_int_equal(most, 1);
	close_place(&p);
}

static void extents_are_settable(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .extents = 1000});
	struct shoal_stats before = stats_of(p.cache);
	unsigned key;

	assert_int_equal(crew_segment(p.cache)->geometry.extents, 1000);
	assert_int_equal(shoal_set(p.k, "big", 3, bytes, 9000), SHOAL_ERR_TOO_BIG); /* max_entry would be 32 KiB */
	for (key = 0; key < 10000; key++)
		put(p.k, key, 5000);
	assert_true(stats_of(p.cache).evicted_extents > 4000);
	assert_int_equal(before.bytes_overhead, stats_of(p.cache).bytes_overhead);
	close_place(&p);
	assert_int_equal(shoal_open(NULL, &(struct shoal_config){.size = 8 << 20, .extents = 1u << 30}, &p.cache),
			 SHOAL_ERR_INVALID);
}

static int load_big(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return shoal_load_publish(load, bytes, 9000);
}

/* What doesn't fit an extent is loaded for its caller, and counted. */
static void what_fits_no_extent_is_uncacheable(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .extents = 1000});
	struct shoal_value value;

	assert_int_equal(shoal_fetch(p.k, STR("big"), load_big, NULL, &value), SHOAL_OK);
	assert_int_equal(value.size, 9000);
	shoal_release(&value);
	assert_int_equal(counts_of(p.k).uncached, 1);
	assert_misses(p.k, "big");
	close_place(&p);
}

/* ---- accounting -------------------------------------------------------------------------------------------- */

struct crowd {
	struct shoal_keyspace *k;
	word32 number;
};

static int set_and_delete(void *arg)
{
	struct crowd *c = arg;
	uint64_t seed = w32_add(&c->number, 1), key;
	unsigned n;

	for (n = 0; n < 30000; n++) {
		key = draw(&seed) % 5000;
		switch (draw(&seed) % 8) {
		case 0:
			must(shoal_delete(c->k, &key, sizeof(key)) >= 0);
			break;
		case 1:
			must(shoal_expire(c->k, &key, sizeof(key)) >= 0);
			break;
		case 2:
		case 3:
			must(shoal_set(c->k, &key, sizeof(key), bytes, draw(&seed) % 6000) == SHOAL_OK);
			break;
		default:
			is_there(c->k, key);
		}
	}
	return 0;
}

/* Four processes at once; then the extents count just what the index points to. */
static void the_bytes_add_up(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 4 << 20});
	struct crowd *c = share(sizeof(*c));
	struct shoal_stats stats;
	bool *exact;
	pid_t pids[4];
	unsigned i;

	crew_begin();
	c->k = p.k;
	for (i = 0; i < COUNT(pids); i++)
		pids[i] = spawn(set_and_delete, c);
	for (i = 0; i < COUNT(pids); i++)
		assert_ends_well(pids[i]);
	stats = stats_of(p.cache);
	assert_true(stats.evicted_extents > 100 && stats.reappended_bytes > 0);
	exact = malloc(crew_segment(p.cache)->geometry.extents);
	memset(exact, 1, crew_segment(p.cache)->geometry.extents);
	crew_check_counts(p.cache, exact);
	assert_int_equal(crew_wrongs(), 0);
	free(exact);
	unshare_memory(c, sizeof(*c));
	close_place(&p);
}

/* ---- values in hand ---------------------------------------------------------------------------------------- */

struct holder {
	struct shoal_keyspace *k;
	word32 holds, go;
	uint64_t first;
};

enum { HELD = 12 };

static int hold_and_stay(void *arg)
{
	struct holder *h = arg;
	struct shoal_value values[HELD];
	unsigned i, n;
	uint64_t key;

	for (i = 0; i < HELD; i++) {
		key = h->first + 100 * i; /* extents apart */
		must(shoal_get(h->k, &key, sizeof(key), &values[i]) == SHOAL_OK);
	}
	post(&h->holds);
	must(await(&h->go, 1));
	for (i = 0; i < HELD; i++) {
		for (n = 0; n < values[i].size; n++)
			must(((const char *)values[i].data)[n] == (char)(h->first + 100 * i));
		shoal_release(&values[i]);
	}
	return 0;
}

static uint32_t extents_in_use_again(const struct segment *s, const uint32_t *before)
{
	uint32_t x, n = 0;

	for (x = 0; x < s->geometry.extents; x++)
		n += EXTENT_SEQUENCE(extents_word(s, x)) != before[x];
	return n;
}

static void note_extents(const struct segment *s, uint32_t *sequences)
{
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++)
		sequences[x] = EXTENT_SEQUENCE(extents_word(s, x));
}

/* A client that reads for minutes, stopped: its extents are passed by, the others serve on, and all come back after. */
static void a_stopped_holder_costs_its_extents(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 4 << 20});
	struct shoal_keyspace *k = keyspace(p.cache, "held", &for_ever);
	const struct segment *s = crew_segment(p.cache);
	struct holder *h = share(sizeof(*h));
	uint32_t *before = calloc(s->geometry.extents, sizeof(*before)), used;
	uint64_t key;
	pid_t pid;

	h->k = k;
	h->first = 7;
	for (key = 0; key < 2000; key++) {
		memset(bytes, (char)key, 1000);
		put(k, key, 1000);
	}
	pid = spawn(hold_and_stay, h);
	assert_true(await(&h->holds, 1));
	assert_int_equal(stats_of(p.cache).pins, HELD);
	kill(pid, SIGSTOP);
	note_extents(s, before);
	for (key = 10000; key < 50000; key++)
		put(k, key, 1000);
	used = extents_in_use_again(s, before);
	assert_in_range(used, s->geometry.extents - HELD, s->geometry.extents);
	kill(pid, SIGCONT);
	post(&h->go);
	assert_ends_well(pid);
	note_extents(s, before);
	for (key = 50000; key < 90000; key++)
		put(k, key, 1000);
	/* but what was read and moved */
	assert_in_range(extents_in_use_again(s, before), s->geometry.extents - 2, s->geometry.extents);
	free(before);
	unshare_memory(h, sizeof(*h));
	close_place(&p);
}

struct pinner {
	struct shoal_keyspace *k;
	word32 *gate;
	unsigned number;
};

enum { PINNERS = 12, EACH = 8 };

static void *pin_some(void *arg)
{
	struct pinner *one = arg;
	struct shoal_value values[EACH];
	uint64_t key;
	unsigned i;

	for (i = 0; i < EACH; i++) {
		key = (one->number * EACH + i) * 20;
		if (shoal_get(one->k, &key, sizeof(key), &values[i]) != SHOAL_OK)
			abort();
	}
	post(&one->gate[0]);
	await(&one->gate[1], 1);
	for (i = 0; i < EACH; i++)
		shoal_release(&values[i]);
	return NULL;
}

/* Values spread over all extents, in many hands: pins stop at a quarter of the extents or little more, the rest is
 * copied, and writers find room. */
static void pins_hold_a_quarter(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 4 << 20});
	struct shoal_keyspace *k = keyspace(p.cache, "pinned", &for_ever);
	struct pinner pinners[PINNERS];
	pthread_t threads[PINNERS];
	word32 gate[2] = {0};
	uint32_t extents = crew_segment(p.cache)->geometry.extents, i;
	uint64_t key;

	for (key = 0; key < 2000; key++)
		put(k, key, 1500);
	for (i = 0; i < PINNERS; i++) {
		pass_ms(p.clock, 2);
		pinners[i] = (struct pinner){k, gate, i};
		assert_int_equal(pthread_create(&threads[i], NULL, pin_some, &pinners[i]), 0);
		assert_true(await(&gate[0], i + 1));
	}
	assert_in_range(rcu_pinned(crew_segment(p.cache), &i), extents / 8, extents / 4 + EACH);
	assert_int_equal(i, PINNERS + 1);
	for (key = 10000; key < 40000; key++)
		put(k, key, 1500);
	post(&gate[1]);
	for (i = 0; i < PINNERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stats_of(p.cache).pins, 0);
	close_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scan_leaves_what_was_hit),
		cmocka_unit_test(hits_write_three_times),
		cmocka_unit_test(churns_for_ever),
		cmocka_unit_test(no_call_evicts_twice),
		cmocka_unit_test(extents_are_settable),
		cmocka_unit_test(what_fits_no_extent_is_uncacheable),
		cmocka_unit_test(the_bytes_add_up),
		cmocka_unit_test(a_stopped_holder_costs_its_extents),
		cmocka_unit_test(pins_hold_a_quarter),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
