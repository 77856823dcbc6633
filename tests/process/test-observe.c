/* SPDX-License-Identifier: MIT */
/*
 * What can be seen of a cache, by programs of <shoal.h>: counters by reason, that add up and never fall; keyspaces,
 * flights, processes; single values; what was hit last; all of it as Prometheus text, which says the same; and the log.
 */
#include <errno.h>
#include <pthread.h>

#include "handle.h"
#include "proc.h"
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
	struct place *p = *state;

	assert_int_equal(stats_of(p->cache).pins, 0);
	close_place(p);
	return 0;
}

static int failing(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return 7;
}

static int loading(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return shoal_load_publish(load, STR("loaded"));
}

static struct shoal_load *begins(struct shoal_keyspace *k, const char *key, int outcome)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), outcome);
	shoal_release(&value);
	return load;
}

/* ---- counters ---------------------------------------------------------------------------------------------- */

struct misses {
	uint64_t all, expired, schema, corrupt;
};

#define assert_missed(k, ...)                                                                                         \
	do {                                                                                                          \
		struct misses m_ = __VA_ARGS__;                                                                       \
		struct shoal_keyspace_stats c_ = counts_of(k);                                                        \
		assert_int_equal(c_.misses, m_.all);                                                                  \
		assert_int_equal(c_.misses_expired, m_.expired);                                                      \
		assert_int_equal(c_.schema_mismatches, m_.schema);                                                    \
		assert_int_equal(c_.misses_corrupt, m_.corrupt);                                                      \
	} while (0)

static void each_miss_has_one_reason(void **state)
{
	struct place *p = *state;
	struct shoal_policy policy = steady;
	struct shoal_keyspace *other;
	struct shoal_value value;
	char buffer[16];

	policy.schema = 2;
	other = keyspace(p->cache, "test", &policy);
	assert_misses(p->k, "a");
	assert_missed(p->k, {1, 0, 0, 0});
	assert_set(p->k, "a", "1");
	assert_misses(other, "a");
	assert_int_equal(shoal_read(other, STR("a"), buffer, sizeof(buffer), NULL), SHOAL_MISS);
	assert_missed(p->k, {3, 0, 2, 0});
	/* looks several times, misses once */
	assert_int_equal(shoal_fetch(other, STR("a"), failing, NULL, &value), SHOAL_ERR_LOAD);
	assert_missed(p->k, {4, 0, 3, 0});
	pass_ms(p->clock, 2500); /* within error_ms: a miss for a get */
	assert_misses(p->k, "a");
	assert_missed(p->k, {5, 1, 3, 0});
	pass_ms(p->clock, 2500);
	assert_misses(p->k, "a");
	assert_int_equal(shoal_fetch(p->k, STR("a"), loading, NULL, &value), SHOAL_OK);
	shoal_release(&value);
	assert_missed(p->k, {7, 3, 3, 0});
	assert_int_equal(shoal_keyspace_delete(p->k), SHOAL_OK);
	assert_misses(p->k, "a");
	assert_missed(p->k, {8, 4, 3, 0});
}

/* The segment's bytes are in reach of who made it: find the value's and change one. */
static void scribble(const char *path, const char *text)
{
	FILE *f = fopen(path, "r+e");
	size_t size, at, n = strlen(text);
	char *bytes;

	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	size = (size_t)ftell(f);
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
	assert_ptr_not_equal(bytes, MAP_FAILED);
	for (at = 0; at + n <= size && memcmp(bytes + at, text, n);)
		at++;
	assert_true(at + n <= size);
	bytes[at] ^= 1;
	munmap(bytes, size);
	fclose(f);
}

static void what_is_corrupt_is_a_miss(void **state)
{
	char path[64];
	struct place p;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-observe.%d", (int)getpid());
	p = open_place(path, &(struct shoal_config){.size = 2 << 20, .flags = SHOAL_CHECKSUM});
	assert_set(p.k, "a", "a value that is nowhere else");
	scribble(path, "a value that is nowhere else");
	assert_misses(p.k, "a");
	assert_missed(p.k, {1, 0, 0, 1});
	assert_int_equal(counts_of(p.k).corrupt, 1);
	assert_misses(p.k, "a");
	assert_missed(p.k, {2, 0, 0, 1});
	close_place(&p);
	shoal_unlink(path);
}

static void stale_hits_have_an_age(void **state)
{
	struct place *p = *state;
	struct shoal_value value;
	struct shoal_load *load;
	char c;

	assert_set(p->k, "a", "1");
	pass_ms(p->clock, 1300);
	assert_gives(p->k, "a", "1");
	assert_int_equal(counts_of(p->k).stale_ms_sum, 300);
	pass_ms(p->clock, 200);
	assert_int_equal(shoal_read(p->k, STR("a"), &c, 1, NULL), SHOAL_OK);
	assert_int_equal(counts_of(p->k).stale_ms_sum, 800);
	load = begins(p->k, "a", SHOAL_REFRESH);
	assert_int_equal(counts_of(p->k).stale_ms_sum, 1300);
	assert_int_equal(shoal_fetch(p->k, STR("a"), loading, NULL, &value), SHOAL_OK); /* another refreshes */
	shoal_release(&value);
	assert_int_equal(counts_of(p->k).stale_ms_sum, 1800);
	assert_int_equal(counts_of(p->k).hits_stale, 4);
	shoal_load_cancel(load);
}

static int lead_and_die(void *arg)
{
	must(begins(((struct place *)arg)->k, "a", SHOAL_LEAD));
	raise(SIGKILL);
	return 0;
}

static void takeovers_by_reason(void **state)
{
	struct place *p = *state;
	struct shoal_load *leader, *waiter;
	struct shoal_value value;
	pid_t pid;

	leader = begins(p->k, "a", SHOAL_LEAD);
	waiter = begins(p->k, "a", SHOAL_WAIT);
	shoal_load_cancel(leader);
	assert_int_equal(shoal_wait(waiter, 1000, &value), SHOAL_LEAD);
	assert_int_equal(counts_of(p->k).takeovers, 1);
	assert_int_equal(counts_of(p->k).takeovers_gave_up, 1);
	shoal_load_cancel(waiter);

	pid = spawn(lead_and_die, p);
	assert_int_equal(ending_of(pid), SIGKILL);
	leader = begins(p->k, "a", SHOAL_LEAD);
	assert_int_equal(counts_of(p->k).takeovers, 2);
	assert_int_equal(counts_of(p->k).takeovers_gave_up, 1);
	assert_int_equal(counts_of(p->k).overdue, 0);

	pass_ms(p->clock, 30001);
	waiter = begins(p->k, "a", SHOAL_LEAD);
	assert_int_equal(counts_of(p->k).takeovers, 2);
	assert_int_equal(counts_of(p->k).overdue, 1);
	shoal_load_cancel(leader);
	shoal_load_cancel(waiter);
}

static void the_uncacheable_are_told_apart(void **state)
{
	static const char big[1 << 20];
	struct place *p = *state;
	struct shoal_load *load = begins(p->k, "a", SHOAL_LEAD);

	shoal_load_uncacheable(load, 10);
	assert_int_equal(shoal_load_publish(load, STR("x")), SHOAL_OK);
	assert_int_equal(counts_of(p->k).uncached, 1);
	assert_int_equal(counts_of(p->k).uncacheable, 1);
	load = begins(p->k, "b", SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(load, big, sizeof(big)), SHOAL_ERR_TOO_BIG);
	assert_int_equal(counts_of(p->k).uncached, 2);
	assert_int_equal(counts_of(p->k).uncacheable, 1);
}

static uint64_t sum_of(const struct shoal_stats *stats)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < COUNT(stats->evicted_by); i++)
		sum += stats->evicted_by[i];
	return sum;
}

static void evictions_by_reason(void **state)
{
	struct place *p = *state;
	char value[2000] = {0}, key[32];
	struct shoal_stats before, after;
	unsigned i;

	for (i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		assert_int_equal(shoal_set(p->k, STR(key), value, sizeof(value)), SHOAL_OK);
	}
	before = stats_of(p->cache);
	assert_true(before.evicted_entries > 10000 && !before.evicted_expired);
	assert_true(before.evicted_extents > 10 && sum_of(&before) == before.evicted_extents);
	assert_int_equal(before.evicted_by[SHOAL_EVICTED_EXPIRED], 0);
	pass_ms(p->clock, 10000);
	for (i = 0; i < 4000; i++) {
		snprintf(key, sizeof(key), "new %u", i);
		assert_int_equal(shoal_set(p->k, STR(key), value, sizeof(value)), SHOAL_OK);
	}
	after = stats_of(p->cache);
	assert_true(after.evicted_expired > 1000 && after.evicted_by[SHOAL_EVICTED_EXPIRED] > 0);
	assert_int_equal(sum_of(&after), after.evicted_extents);
}

/* One bucket pair overflows long before the room does. */
static void the_index_displaces(void **state)
{
	struct place p =
		open_place(NULL, &(struct shoal_config){.size = 4 << 20, .mean_entry = 60000, .max_entry = 65536});
	struct shoal_stats stats;
	char key[32];
	unsigned i;

	for (i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		assert_set(p.k, key, "v");
	}
	stats = stats_of(p.cache);
	assert_true(stats.displaced_entries > 0 &&
	            stats.displaced_entries + stats.entries + stats.evicted_entries <= 20000 + 100);
	assert_true(stats.displaced_entries + stats.entries + stats.evicted_entries >= 20000 - 100);
	close_place(&p);
}

static void distinct_keys_are_counted(void **state)
{
	struct place *p = *state;
	struct shoal_value value;
	uint64_t n;
	char key[32];
	unsigned i;

	for (i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		if (i % 2)
			assert_set(p->k, key, "v");
		else
			assert_int_equal(shoal_fetch(p->k, STR(key), i % 4 ? loading : failing, NULL, &value),
			                 i % 4 ? SHOAL_OK : SHOAL_ERR_LOAD);
		shoal_release(&value);
		memset(&value, 0, sizeof(value));
	}
	n = counts_of(p->k).distinct_keys;
	assert_in_range(n, 800, 1200);
	for (i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		assert_set(p->k, key, "w");
	}
	assert_int_equal(counts_of(p->k).distinct_keys, n);
	assert_misses(p->k, "never stored");
	assert_int_equal(counts_of(p->k).distinct_keys, n);
}

static void all_of_it_survives_a_resize(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 4 << 20, .max_size = 16 << 20});
	struct shoal_keyspace_stats before, after;
	struct shoal_stats all, all_after;
	char key[32], value[3000] = {0};
	unsigned i;

	for (i = 0; i < 4000; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		assert_int_equal(shoal_set(p.k, STR(key), value, sizeof(value)), SHOAL_OK);
	}
	pass_ms(p.clock, 1500);
	snprintf(key, sizeof(key), "key %u", 3999);
	assert_int_equal(shoal_read(p.k, STR(key), value, sizeof(value), NULL), SHOAL_OK);
	before = counts_of(p.k);
	all = stats_of(p.cache);
	assert_true(before.stale_ms_sum && before.distinct_keys && all.evicted_entries);
	assert_int_equal(shoal_resize(p.cache, 8 << 20), SHOAL_OK);
	after = counts_of(p.k);
	all_after = stats_of(p.cache);
	assert_int_equal(after.stale_ms_sum, before.stale_ms_sum);
	assert_int_equal(after.distinct_keys, before.distinct_keys);
	assert_true(after.last_store_ms == before.last_store_ms);
	assert_int_equal(after.lease_ms, before.lease_ms);
	assert_int_equal(all_after.evicted_entries, all.evicted_entries);
	assert_memory_equal(all_after.evicted_by, all.evicted_by, sizeof(all.evicted_by));
	close_place(&p);
}

static void policy_and_last_store(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace_stats c = counts_of(p->k);

	assert_int_equal(c.fresh_ms, 1000);
	assert_int_equal(c.stale_ms, 1000);
	assert_int_equal(c.error_ms, 1000);
	assert_int_equal(c.lease_ms, 30000);
	assert_true(c.last_store_ms < 0);
	assert_set(p->k, "a", "1");
	pass_ms(p->clock, 70);
	assert_true(counts_of(p->k).last_store_ms == 70);
	assert_int_equal(shoal_load_publish(begins(p->k, "b", SHOAL_LEAD), STR("x")), SHOAL_OK);
	assert_true(counts_of(p->k).last_store_ms == 0);
}

/* ---- one value --------------------------------------------------------------------------------------------- */

static struct shoal *inspect(const char *path, struct test_clock *clock)
{
	struct shoal *cache = NULL;
	struct shoal_config config = {.flags = SHOAL_INSPECT | SHOAL_ATTACH, .clock = test_clock_read,
	                              .clock_arg = clock};

	assert_int_equal(shoal_open(path, &config, &cache), SHOAL_OK);
	return cache;
}

static void peeks(struct shoal_keyspace *k, const char *key, int outcome, const char *text,
                  enum shoal_freshness freshness)
{
	struct shoal_value value;

	assert_int_equal(shoal_peek(k, STR(key), &value), outcome);
	if (!outcome) {
		assert_true(holds(&value, text));
		assert_int_equal(value.freshness, freshness);
	} else {
		assert_null(value.data);
	}
	shoal_release(&value);
}

static void a_peek_leaves_no_trace(void **state)
{
	struct shoal_policy policy = steady;
	struct shoal_keyspace *handles[4];
	struct shoal_keyspace_stats before, after;
	struct shoal *inspector;
	char path[64], big[4000];
	struct place p;
	unsigned i;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-observe.%d", (int)getpid());
	p = open_place(path, &(struct shoal_config){.size = 2 << 20});
	memset(big, 'b', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	policy.flags = SHOAL_COMPRESS;
	handles[0] = keyspace(p.cache, "test", &policy);
	inspector = inspect(path, p.clock);
	handles[1] = keyspace(inspector, "test", &policy);
	policy.schema = 3;
	handles[2] = keyspace(p.cache, "test", &policy);
	handles[3] = keyspace(inspector, "test", &policy);
	assert_set(handles[0], "a", "1");
	assert_set(handles[0], "big", big);
	before = counts_of(p.k);
	for (i = 0; i < 2; i++) {
		peeks(handles[i], "a", SHOAL_OK, "1", SHOAL_FRESH);
		peeks(handles[i], "big", SHOAL_OK, big, SHOAL_FRESH);
		peeks(handles[i], "none", SHOAL_MISS, NULL, 0);
		peeks(handles[2 + i], "a", SHOAL_MISS, NULL, 0);
	}
	pass_ms(p.clock, 1500);
	peeks(handles[0], "a", SHOAL_OK, "1", SHOAL_STALE);
	peeks(handles[1], "a", SHOAL_OK, "1", SHOAL_STALE);
	pass_ms(p.clock, 1000);
	peeks(handles[1], "a", SHOAL_MISS, NULL, 0);
	after = counts_of(p.k);
	assert_memory_equal(&after, &before, offsetof(struct shoal_keyspace_stats, last_store_ms));
	assert_int_equal(shoal_peek(handles[0], NULL, 1, &(struct shoal_value){0}), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_peek(handles[0], "", 0, &(struct shoal_value){0}), SHOAL_ERR_INVALID);
	shoal_close(inspector);
	close_place(&p);
	shoal_unlink(path);
}

static void a_peek_finds_the_newest(void **state)
{
	struct place *p = *state;
	char key[32], text[32];
	struct shoal_value value;
	unsigned i, turn;

	for (turn = 0; turn < 3; turn++) {
		for (i = 0; i < 2000; i++) {
			snprintf(key, sizeof(key), "key %u", i);
			snprintf(text, sizeof(text), "%u of %u", turn, i);
			assert_set(p->k, key, text);
			assert_int_equal(shoal_peek(p->k, STR(key), &value), SHOAL_OK);
			assert_true(holds(&value, text));
			shoal_release(&value);
		}
	}
	for (i = 100000; i < 300000; i++) { /* some have the tag of one that is there, and its length */
		snprintf(key, sizeof(key), "ke%u", i);
		assert_int_equal(shoal_peek(p->k, STR(key), &value), SHOAL_MISS);
	}
}

static void an_existing_one_or_none(void **state)
{
	struct place *p = *state;
	struct shoal_policy policy = {.flags = SHOAL_EXISTING};
	struct shoal_keyspace *k;

	assert_int_equal(shoal_keyspace_open(p->cache, "none", 1, &policy, &k), SHOAL_ERR_NOT_FOUND);
	assert_int_equal(shoal_keyspace_open(p->cache, "test", 1, &policy, &k), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(p->cache, "test", 2, &policy, &k), SHOAL_ERR_NOT_FOUND);
}

/* ---- who and what ------------------------------------------------------------------------------------------ */

static int see_keyspace(const struct shoal_keyspace_info *info, void *arg)
{
	char *text = arg;

	snprintf(text + strlen(text), 200 - strlen(text), "%u:%s@%u:%u ", info->number, info->name, info->version,
	         (unsigned)info->stats.hits_fresh);
	return !strcmp(info->name, "stop") ? 42 : 0;
}

static void keyspaces_are_shown(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *two;
	char text[200] = "";

	assert_int_equal(shoal_keyspace_open(p->cache, "test", 2, NULL, &two), SHOAL_OK);
	assert_set(two, "a", "1");
	assert_gives(two, "a", "1");
	assert_int_equal(shoal_keyspaces(p->cache, see_keyspace, text), SHOAL_OK);
	assert_string_equal(text, "0:test@1:0 1:test@2:1 ");
	keyspace(p->cache, "stop", NULL);
	keyspace(p->cache, "unseen", NULL);
	*text = 0;
	assert_int_equal(shoal_keyspaces(p->cache, see_keyspace, text), 42);
	assert_string_equal(text, "0:test@1:0 1:test@2:1 2:stop@1:0 ");
	assert_int_equal(shoal_keyspaces(p->cache, NULL, text), SHOAL_ERR_INVALID);
}

static void how_it_was_made(void **state)
{
	struct place *p = *state;
	struct shoal_info info;

	assert_int_equal(shoal_info(p->cache, &info), SHOAL_OK);
	assert_int_equal(info.size, 8 << 20);
	assert_int_equal(info.mean_entry, 512);
	assert_true(info.max_entry == (8 << 20) / 256 && info.extents >= 64 &&
	            info.extents * info.extent_size < 8 << 20);
	assert_int_equal(info.layout, shoal_layout());
	assert_int_equal(info.max_loads, 0);
	assert_int_equal(shoal_info(p->cache, NULL), SHOAL_ERR_INVALID);
}

struct flights {
	struct shoal_flight seen[8];
	char keys[8][64], keyspace[64];
	unsigned n;
};

static int see_flight(const struct shoal_flight *f, void *arg)
{
	struct flights *all = arg;

	assert_true(all->n < COUNT(all->seen));
	memcpy(all->keys[all->n], f->key.data, f->key.size);
	snprintf(all->keyspace, sizeof(all->keyspace), "%s", f->keyspace);
	all->seen[all->n++] = *f;
	return 0;
}

static struct flights flights_of(struct shoal *cache)
{
	struct flights all;

	memset(&all, 0, sizeof(all));
	assert_int_equal(shoal_flights(cache, see_flight, &all), SHOAL_OK);
	return all;
}

static void flights_are_shown(void **state)
{
	struct place *p = *state;
	struct shoal_load *leader, *waiter;
	char key[100], cut[49] = "";
	struct flights all;

	memset(key, 'k', sizeof(key) - 1);
	key[sizeof(key) - 1] = 0;
	memcpy(cut, key, 48);
	assert_int_equal(flights_of(p->cache).n, 0);
	leader = begins(p->k, key, SHOAL_LEAD);
	waiter = begins(p->k, key, SHOAL_WAIT);
	pass_ms(p->clock, 400);
	all = flights_of(p->cache);
	assert_int_equal(all.n, 1);
	assert_int_equal(all.seen[0].state, SHOAL_FLIGHT_LOADING);
	assert_int_equal(all.seen[0].leader, getpid());
	assert_int_equal(all.seen[0].waiters, 1);
	assert_int_equal(all.seen[0].key_size, sizeof(key) - 1);
	assert_string_equal(all.keys[0], cut);
	assert_string_equal(all.keyspace, "test");
	assert_int_equal(all.seen[0].version, 1);
	assert_in_range(all.seen[0].age_ms, 396, 404);
	assert_in_range(all.seen[0].left_ms, 29590, 29610);
	pass_ms(p->clock, 30000);
	shoal_load_cancel(begins(p->k, key, SHOAL_LEAD));
	assert_int_equal(flights_of(p->cache).seen[0].state, SHOAL_FLIGHT_OVERDUE);
	assert_true(flights_of(p->cache).seen[0].left_ms < 0);
	shoal_load_cancel(waiter);
	shoal_load_cancel(leader);
	assert_int_equal(flights_of(p->cache).n, 0);
	assert_int_equal(shoal_load_fail(begins(p->k, "f", SHOAL_LEAD), 77), SHOAL_OK);
	all = flights_of(p->cache);
	assert_int_equal(all.n, 1);
	assert_int_equal(all.seen[0].state, SHOAL_FLIGHT_FAILED);
	assert_int_equal(all.seen[0].error, 77);
	assert_int_equal(all.seen[0].leader, 0);
	assert_in_range(all.seen[0].left_ms, 90, 110);
	assert_int_equal(shoal_flights(p->cache, NULL, NULL), SHOAL_ERR_INVALID);
}

struct guest {
	struct place *place;
	word32 *words; /* it is in; it may go */
};

static int hold_a_value(void *arg)
{
	struct guest *g = arg;
	struct shoal_value value;

	must(begins(g->place->k, "led", SHOAL_LEAD));
	must(!shoal_get(g->place->k, STR("held"), &value));
	post(&g->words[0]);
	must(await(&g->words[1], 1));
	return 0;
}

struct processes {
	struct shoal_process seen[4];
	unsigned n;
};

static int see_process(const struct shoal_process *process, void *arg)
{
	struct processes *all = arg;

	assert_true(all->n < COUNT(all->seen));
	all->seen[all->n++] = *process;
	return 0;
}

static struct shoal_process process_of(struct shoal *cache, pid_t pid, unsigned n)
{
	struct processes all = {.n = 0};
	unsigned i;

	assert_int_equal(shoal_processes(cache, see_process, &all), SHOAL_OK);
	assert_int_equal(all.n, n);
	for (i = 0; i < n && all.seen[i].pid != pid; i++)
		;
	assert_true(i < n);
	return all.seen[i];
}

/* As if it had been stopped in the midst of a look at that extent. */
static void read_there(const struct segment *s, pid_t pid, uint32_t extent)
{
	uint32_t r;
	uint64_t owner, of;

	for (r = 0; r < s->geometry.readers; r++) {
		owner = w64_load(&s->readers[r].owner);
		of = (uint32_t)owner ? w64_load(&s->processes[(owner >> 16 & 0xffff) - 1].owner) : 0;
		if (PROC_PID(of) == (uint32_t)pid)
			w64_store(&s->readers[r].words[READING], owner >> 32 << 32 | (extent + 1));
	}
}

/* Evict until what it reads is waited for; what it has pinned is passed by. */
static void processes_are_shown(void **state)
{
	struct place *p = *state;
	struct guest guest = {p, share(2 * sizeof(word32))};
	struct shoal_process seen;
	char value[2000] = {0}, key[32];
	unsigned i;
	pid_t pid;

	assert_set(p->k, "held", "x");
	pass_ms(p->clock, 50);
	pid = spawn(hold_a_value, &guest);
	assert_true(await(&guest.words[0], 1));
	pass_ms(p->clock, 70);
	seen = process_of(p->cache, pid, 2);
	assert_int_equal(seen.threads, 1);
	assert_int_equal(seen.pins, 1);
	assert_int_equal(seen.flights, 1);
	assert_int_equal(seen.blocks, 0);
	assert_int_equal(seen.other_namespace, 0);
	assert_int_equal(seen.age_ms, 70);
	assert_int_equal(process_of(p->cache, getpid(), 2).age_ms, 120);
	assert_int_equal(process_of(p->cache, getpid(), 2).pins, 0);
	read_there(&p->cache->member->segment, pid, 1);
	for (i = 0; i < 20000 && !process_of(p->cache, pid, 2).blocks; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		assert_int_equal(shoal_set(p->k, STR(key), value, sizeof(value)), SHOAL_OK);
	}
	assert_int_equal(process_of(p->cache, pid, 2).blocks, 1);
	assert_int_equal(stats_of(p->cache).grace_waiting, 1);
	post(&guest.words[1]);
	assert_ends_well(pid);
	assert_int_equal(shoal_reap(p->cache), 1);
	process_of(p->cache, getpid(), 1);
	unshare_memory(guest.words, 2 * sizeof(word32));
}

static int see_entry(const struct shoal_entry *e, void *arg)
{
	char *text = arg;

	snprintf(text + strlen(text), 100 - strlen(text), "%s:%.*s ", e->keyspace, (int)e->key.size,
	         (const char *)e->key.data);
	return 0;
}

static void *hit_in_thread(void *arg)
{
	assert_gives((struct shoal_keyspace *)arg, "b", "2");
	return NULL;
}

static void recent_hits_are_shown(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *other = keyspace(p->cache, "other", &steady);
	char text[100] = "";
	pthread_t thread;

	assert_int_equal(shoal_recent(p->cache, see_entry, text), SHOAL_OK);
	assert_string_equal(text, "");
	assert_set(p->k, "a", "1");
	assert_set(p->k, "b", "2");
	assert_set(other, "c", "3");
	assert_gives(p->k, "b", "2");
	assert_gives(p->k, "a", "1");
	assert_gives(other, "c", "3");
	assert_misses(other, "a");
	assert_int_equal(pthread_create(&thread, NULL, hit_in_thread, p->k), 0);
	pthread_join(thread, NULL);
	assert_int_equal(shoal_recent(p->cache, see_entry, text), SHOAL_OK);
	assert_string_equal(text, "test:a other:c test:b ");
	assert_int_equal(shoal_delete(p->k, STR("b")), SHOAL_OK);
	pass_ms(p->clock, 5000);
	*text = 0;
	assert_int_equal(shoal_recent(p->cache, see_entry, text), SHOAL_OK);
	assert_string_equal(text, "");
}

/* ---- as text ----------------------------------------------------------------------------------------------- */

static char *metrics_of(struct shoal *const *caches, const char *const *names, size_t n)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	assert_int_equal(shoal_metrics_all(caches, names, n, f), SHOAL_OK);
	fclose(f);
	return text;
}

/* The value of the series that is spelt so; -1: there is none. */
static double series(const char *text, const char *name)
{
	size_t n = strlen(name);
	const char *at;

	for (at = text; at && *at; at = strchr(at, '\n') + 1)
		if (!strncmp(at, name, n) && at[n] == ' ')
			return strtod(at + n, NULL);
	return -1;
}

#define assert_series(text, name, value)                                                                              \
	do {                                                                                                          \
		if (series(text, name) != (double)(value))                                                            \
			fail_msg("%s is %g, not %g", name, series(text, name), (double)(value));                      \
	} while (0)

static void each_family_comes_once(const char *text)
{
	const char *at, *end, *other;
	char line[200];

	for (at = text; *at; at = end + 1) {
		end = strchr(at, '\n');
		assert_non_null(end);
		if (strncmp(at, "# TYPE ", 7))
			continue;
		snprintf(line, sizeof(line), "\n%.*s ", (int)(strchr(at + 7, ' ') - at), at);
		other = strstr(end, line);
		assert_null(other);
	}
}

static void the_text_says_the_same(void **state)
{
	struct place *p = *state;
	struct shoal_value value;
	char name[100], *text;
	struct shoal_stats all;
	double before = 0, now;
	unsigned i;

	assert_set(p->k, "a", "1");
	for (i = 0; i < 5; i++)
		assert_gives(p->k, "a", "1");
	assert_misses(p->k, "b");
	assert_int_equal(shoal_fetch(p->k, STR("c"), loading, NULL, &value), SHOAL_OK);
	shoal_release(&value);
	assert_int_equal(shoal_fetch(p->k, STR("d"), failing, NULL, &value), SHOAL_ERR_LOAD);
	pass_ms(p->clock, 1250);
	assert_gives(p->k, "a", "1");
	text = metrics_of(&p->cache, NULL, 1);
	each_family_comes_once(text);
	assert_series(text, "shoal_hits_total{keyspace=\"test\",version=\"1\",freshness=\"fresh\"}", 5);
	assert_series(text, "shoal_hits_total{keyspace=\"test\",version=\"1\",freshness=\"stale\"}", 1);
	assert_series(text, "shoal_misses_total{keyspace=\"test\",version=\"1\",reason=\"absent\"}", 3);
	assert_series(text, "shoal_misses_total{keyspace=\"test\",version=\"1\",reason=\"expired\"}", 0);
	assert_series(text, "shoal_loads_total{keyspace=\"test\",version=\"1\"}", 2);
	assert_series(text, "shoal_load_errors_total{keyspace=\"test\",version=\"1\"}", 1);
	assert_series(text, "shoal_load_duration_seconds_count{keyspace=\"test\",version=\"1\"}", 2);
	assert_series(text, "shoal_load_duration_seconds_bucket{keyspace=\"test\",version=\"1\",le=\"+Inf\"}", 2);
	assert_series(text, "shoal_stale_age_seconds_total{keyspace=\"test\",version=\"1\"}", 0.25);
	assert_series(text, "shoal_policy_seconds{keyspace=\"test\",version=\"1\",bound=\"lease\"}", 30);
	assert_series(text, "shoal_last_store_age_seconds{keyspace=\"test\",version=\"1\"}", 1.25);
	assert_series(text, "shoal_distinct_keys{keyspace=\"test\",version=\"1\"}", 3);
	all = stats_of(p->cache);
	assert_series(text, "shoal_bytes{state=\"live\"}", all.bytes_live);
	assert_series(text, "shoal_bytes{state=\"overhead\"}", all.bytes_overhead);
	assert_series(text, "shoal_entries", 2);
	assert_series(text, "shoal_processes", 1);
	assert_series(text, "shoal_flights_limit", 1024);
	snprintf(name, sizeof(name), "shoal_build_info{version=\"%s\",layout=\"%u\"}", shoal_version(), shoal_layout());
	assert_series(text, name, 1);
	for (i = 3; i <= 26; i++) {
		snprintf(name, sizeof(name),
		         "shoal_load_duration_seconds_bucket{keyspace=\"test\",version=\"1\",le=\"%.9g\"}",
		         (double)((uint64_t)2048 << i) / 1e9);
		now = series(text, name);
		assert_true(now >= before && now <= 2);
		before = now;
	}
	free(text);
}

static void several_caches_in_one_text(void **state)
{
	struct place *p = *state, other = open_place(NULL, NULL);
	struct shoal *caches[] = {p->cache, other.cache};
	const char *names[] = {"one", "a \"quoted\"\\\n"};
	char *text;

	assert_set(other.k, "a", "1");
	assert_gives(other.k, "a", "1");
	text = metrics_of(caches, names, 2);
	each_family_comes_once(text);
	assert_series(text, "shoal_hits_total{cache=\"one\",keyspace=\"test\",version=\"1\",freshness=\"fresh\"}", 0);
	assert_series(text, "shoal_hits_total{cache=\"a \\\"quoted\\\"\\\\\\n\","
	                    "keyspace=\"test\",version=\"1\",freshness=\"fresh\"}", 1);
	assert_series(text, "shoal_entries{cache=\"one\"}", 0);
	free(text);
	close_place(&other);
}

static void a_full_disk_is_an_error(void **state)
{
	struct place *p = *state;
	FILE *full = fopen("/dev/full", "we");

	assert_non_null(full);
	assert_int_equal(shoal_metrics(p->cache, full), SHOAL_ERR_SYSTEM);
	assert_int_equal(errno, ENOSPC);
	fclose(full);
	assert_int_equal(shoal_metrics(NULL, stdout), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_metrics(p->cache, NULL), SHOAL_ERR_INVALID);
}

static int count_and_die(void *arg)
{
	struct place *p = arg;
	unsigned i;

	for (i = 0; i < 1000; i++)
		must(gives(p->k, "a", SHOAL_OK, "1") && gives(p->k, "b", SHOAL_MISS, NULL));
	raise(SIGKILL);
	return 0;
}

static void counts_outlive_the_dead(void **state)
{
	struct place *p = *state;
	unsigned i;

	assert_set(p->k, "a", "1");
	for (i = 1; i <= 20; i++) {
		assert_int_equal(ending_of(spawn(count_and_die, p)), SIGKILL);
		assert_int_equal(counts_of(p->k).hits_fresh, i * 1000);
		assert_int_equal(counts_of(p->k).misses, i * 1000);
		if (i % 3 == 0)
			shoal_reap(p->cache);
	}
}

/* ---- the log ----------------------------------------------------------------------------------------------- */

struct log {
	char text[1000];
	unsigned levels[3];
};

static void note(enum shoal_level level, const char *text, void *arg)
{
	struct log *log = arg;

	assert_null(strchr(text, '\n'));
	log->levels[level]++;
	snprintf(log->text + strlen(log->text), sizeof(log->text) - strlen(log->text), "%s\n", text);
	errno = ERANGE; /* nobody's business */
}

#define assert_noted(log, part)                                                                                       \
	do {                                                                                                          \
		if (!strstr((log)->text, part))                                                                       \
			fail_msg("no \"%s\" in: %s", part, (log)->text);                                              \
	} while (0)

static void what_is_rare_is_told(void **state)
{
	struct log log = {.text = ""};
	struct shoal_load *leader;
	struct shoal_value value;
	char path[64];
	struct place p;

	snprintf(path, sizeof(path), "/dev/shm/shoal-test-observe.%d", (int)getpid());
	p = open_place(path,
	               &(struct shoal_config){.size = 2 << 20, .flags = SHOAL_CHECKSUM, .log = note, .log_arg = &log});
	assert_noted(&log, "made a segment of 2097152 bytes");
	assert_misses(p.k, "a"); /* or it would join by the dead one's alive word, and recover its load first */
	assert_int_equal(ending_of(spawn(lead_and_die, &p)), SIGKILL);
	leader = begins(p.k, "a", SHOAL_LEAD);
	assert_noted(&log, "is taken over: its leader died");
	assert_int_equal(shoal_reap(p.cache), 1);
	assert_noted(&log, "is dead: what it held is recovered");
	pass_ms(p.clock, 30001);
	shoal_load_cancel(begins(p.k, "a", SHOAL_LEAD));
	assert_noted(&log, "has outlived its lease");
	shoal_load_cancel(leader);
	assert_int_equal(shoal_fetch(p.k, STR("a"), failing, NULL, &value), SHOAL_ERR_LOAD);
	assert_noted(&log, "failed: 7");
	assert_set(p.k, "b", "a value that is nowhere else");
	scribble(path, "a value that is nowhere else");
	assert_misses(p.k, "b");
	assert_noted(&log, "is corrupt");
	assert_int_equal(shoal_resize(p.cache, 4 << 20), SHOAL_OK);
	assert_noted(&log, "resized to 4194304 bytes");
	*log.text = 0;
	/* in the new region, too */
	assert_int_equal(shoal_fetch(p.k, STR("c"), failing, NULL, &value), SHOAL_ERR_LOAD);
	assert_noted(&log, "failed: 7");
	assert_int_equal(log.levels[SHOAL_LOG_ERROR], 1);
	close_place(&p);
	shoal_unlink(path);
}

int main(void)
{
#define WITH_PLACE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		WITH_PLACE(each_miss_has_one_reason),
		cmocka_unit_test(what_is_corrupt_is_a_miss),
		WITH_PLACE(stale_hits_have_an_age),
		WITH_PLACE(takeovers_by_reason),
		WITH_PLACE(the_uncacheable_are_told_apart),
		WITH_PLACE(evictions_by_reason),
		cmocka_unit_test(the_index_displaces),
		WITH_PLACE(distinct_keys_are_counted),
		cmocka_unit_test(all_of_it_survives_a_resize),
		WITH_PLACE(policy_and_last_store),
		cmocka_unit_test(a_peek_leaves_no_trace),
		WITH_PLACE(a_peek_finds_the_newest),
		WITH_PLACE(an_existing_one_or_none),
		WITH_PLACE(keyspaces_are_shown),
		WITH_PLACE(how_it_was_made),
		WITH_PLACE(flights_are_shown),
		WITH_PLACE(processes_are_shown),
		WITH_PLACE(recent_hits_are_shown),
		WITH_PLACE(the_text_says_the_same),
		WITH_PLACE(several_caches_in_one_text),
		WITH_PLACE(a_full_disk_is_an_error),
		WITH_PLACE(counts_outlive_the_dead),
		cmocka_unit_test(what_is_rare_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
