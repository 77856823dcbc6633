/* SPDX-License-Identifier: MIT */
/*
 * Keyspaces and their versions, and the forms a value has: on a clock that is set, by several processes where they
 * race. Holds, for a caller of <shoal.h>:
 *
 *   keyspaces    versions live side by side; delete and expire of a whole one also reach the loads that are under way
 *   fallback     a new version takes the old one's values over, each once, with the life that is left; what is done to
 *                a key of the new one is done to the old one's first
 *   refusals     another schema, bytes that don't unpack, and what a caller rejects are misses that are counted and
 *                loaded anew, once
 *   compression  shows in the room a value takes, and nowhere else
 */
#include <ctype.h>

#include "codec.h"
#include "handle.h"
#include "testing.h"

enum { PROCESSES = 8 };

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
	assert_int_equal(stats_of(p->cache).flights, 0);
	close_place(p);
	return 0;
}

static struct shoal_keyspace *version(struct shoal *cache, uint32_t n, const struct shoal_policy *policy)
{
	struct shoal_keyspace *k = NULL;

	assert_int_equal(shoal_keyspace_open(cache, "versions", n, policy, &k), SHOAL_OK);
	return k;
}

static struct shoal_load *begins(struct shoal_keyspace *k, const char *key, int outcome)
{
	struct shoal_load *load = NULL;
	struct shoal_value value;

	assert_int_equal(shoal_begin(k, STR(key), &load, &value), outcome);
	shoal_release(&value);
	return load;
}

struct job {
	struct place *p;
	struct shoal_keyspace *k;
	const char *text;
	int runs, code;
};

static int run_job(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *job = arg;

	job->runs++;
	return job->code ? job->code : shoal_load_publish(load, STR(job->text));
}

/* A fetch gives this text, of this source. */
static void assert_fetches(struct shoal_keyspace *k, const char *key, struct job *job, const char *text,
                           enum shoal_source source)
{
	struct shoal_value value;

	assert_int_equal(shoal_fetch(k, STR(key), run_job, job, &value), SHOAL_OK);
	assert_true(holds(&value, text));
	assert_int_equal(value.source, source);
	shoal_release(&value);
}

static int freshness(struct shoal_keyspace *k, const char *key)
{
	struct shoal_value value;
	int f = shoal_get(k, STR(key), &value) ? -1 : (int)value.freshness;

	shoal_release(&value);
	return f;
}

struct lives {
	unsigned n;
	uint32_t version; /* looked for */
	int64_t fresh, stale;
	size_t size;
};

static int note_lives(const struct shoal_entry *entry, void *arg)
{
	struct lives *l = arg;

	if (entry->version != l->version)
		return 0;
	l->n++;
	l->fresh = entry->fresh_left_ms;
	l->stale = entry->stale_left_ms;
	l->size = entry->size;
	return 0;
}

static struct lives lives_of(struct shoal *cache, uint32_t n)
{
	struct lives l = {.version = n};

	assert_int_equal(shoal_scan(cache, "versions", note_lives, &l), SHOAL_OK);
	return l;
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

static void versions_live_side_by_side(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct shoal_load *load;

	assert_set(one, "a", "1");
	assert_misses(two, "a");
	load = begins(two, "a", SHOAL_LEAD);
	assert_set(one, "a", "1 again"); /* supersedes nothing of the other */
	assert_int_equal(shoal_load_publish(load, STR("2")), SHOAL_OK);
	assert_gives(one, "a", "1 again");
	assert_gives(two, "a", "2");
	assert_int_equal(shoal_keyspace_expire(one), SHOAL_OK);
	assert_int_equal(freshness(one, "a"), SHOAL_STALE);
	assert_int_equal(freshness(two, "a"), SHOAL_FRESH);
	assert_int_equal(shoal_keyspace_delete(two), SHOAL_OK);
	assert_gives(one, "a", "1 again");
	assert_misses(two, "a");
	assert_int_equal(shoal_keyspace_delete(NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_expire(NULL), SHOAL_ERR_INVALID);
}

static int count_visit(const struct shoal_entry *entry, void *arg)
{
	++*(int *)arg;
	return 0;
}

static int get_in_child(void *arg)
{
	struct job *job = arg;

	must(gives(job->k, "a", SHOAL_MISS, NULL));
	must(shoal_keyspace_delete(job->k) == SHOAL_OK);
	return 0;
}

/* For every process, and for every way to look. */
static void a_deleted_keyspace_is_empty(void **state)
{
	struct place *p = *state;
	struct job job = {.p = p, .k = p->k, .text = "new"};
	struct shoal_slice slice = {STR("a")};
	struct shoal_value value;
	int outcome, n = 0;
	size_t size;
	char c;

	assert_set(p->k, "a", "old");
	assert_set(p->k, "b", "old");
	assert_int_equal(shoal_keyspace_delete(p->k), SHOAL_OK);
	assert_misses(p->k, "a");
	assert_int_equal(shoal_read(p->k, STR("b"), &c, 1, &size), SHOAL_MISS);
	assert_int_equal(shoal_get_many(p->k, &slice, 1, &value, &outcome), SHOAL_OK);
	assert_int_equal(outcome, SHOAL_MISS);
	assert_int_equal(shoal_scan(p->cache, NULL, count_visit, &n), SHOAL_OK);
	assert_int_equal(n, 0);
	assert_int_equal(shoal_expire(p->k, STR("a")), SHOAL_MISS);
	job.code = 7; /* nor is a failure bridged by it */
	assert_int_equal(shoal_fetch(p->k, STR("b"), run_job, &job, &value), SHOAL_ERR_LOAD);
	job.code = 0;
	assert_fetches(p->k, "a", &job, "new", SHOAL_LOADED);
	assert_gives(p->k, "a", "new");
	assert_int_equal(shoal_keyspace_delete(p->k), SHOAL_OK);
	assert_ends_well(spawn(get_in_child, &job));
	assert_set(p->k, "a", "set");
	assert_gives(p->k, "a", "set");
}

static void an_expired_keyspace_is_stale(void **state)
{
	struct place *p = *state;
	struct job job = {.p = p, .k = p->k, .text = "new"};
	struct shoal_keyspace *no_stale = version(p->cache, 1, &(struct shoal_policy){.early = -1});

	assert_set(p->k, "a", "old");
	assert_set(no_stale, "a", "old");
	pass_ms(p->clock, 10);
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	assert_int_equal(shoal_keyspace_expire(no_stale), SHOAL_OK);
	assert_int_equal(freshness(p->k, "a"), SHOAL_STALE);
	assert_int_equal(freshness(no_stale, "a"), -1);
	assert_set(p->k, "b", "after it");
	assert_int_equal(freshness(p->k, "b"), SHOAL_FRESH);
	assert_fetches(p->k, "a", &job, "new", SHOAL_LOADED);
	assert_int_equal(freshness(p->k, "a"), SHOAL_FRESH);
	assert_int_equal(job.runs, 1);
}

/* A load that began before may have read what was true before: nobody waits for it any more. */
static void a_keyspace_delete_reaches_loads_under_way(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = begins(p->k, "a", SHOAL_LEAD), *waiter = begins(p->k, "a", SHOAL_WAIT), *refresh;
	struct shoal_value value;

	assert_set(p->k, "b", "old");
	pass_ms(p->clock, 1500);
	refresh = begins(p->k, "b", SHOAL_REFRESH);
	assert_int_equal(shoal_keyspace_delete(p->k), SHOAL_OK);
	assert_int_equal(shoal_wait(waiter, 0, &value), SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(load, STR("read before it")), SHOAL_ERR_SUPERSEDED);
	assert_misses(p->k, "a");
	assert_int_equal(shoal_load_publish(waiter, STR("read after it")), SHOAL_OK);
	assert_gives(p->k, "a", "read after it");
	assert_int_equal(shoal_load_keep(refresh), SHOAL_ERR_SUPERSEDED);
	assert_misses(p->k, "b");
	assert_int_equal(counts_of(p->k).superseded, 2);
}

static void a_keyspace_expire_reaches_loads_under_way(void **state)
{
	struct place *p = *state;
	struct shoal_load *load = begins(p->k, "a", SHOAL_LEAD), *refresh;

	assert_set(p->k, "b", "old");
	pass_ms(p->clock, 1500);
	refresh = begins(p->k, "b", SHOAL_REFRESH);
	assert_int_equal(shoal_keyspace_expire(p->k), SHOAL_OK);
	assert_int_equal(shoal_load_publish(load, STR("read before it")), SHOAL_ERR_SUPERSEDED);
	assert_int_not_equal(freshness(p->k, "a"), SHOAL_FRESH);
	/* one that begins after it is as good as any, and waits for none of before */
	load = begins(p->k, "b", SHOAL_REFRESH);
	assert_int_equal(shoal_load_keep(refresh), SHOAL_ERR_SUPERSEDED);
	assert_int_equal(freshness(p->k, "b"), SHOAL_STALE);
	assert_int_equal(shoal_load_publish(load, STR("new")), SHOAL_OK);
	assert_int_equal(freshness(p->k, "b"), SHOAL_FRESH);
	pass_ms(p->clock, 500); /* the bounds of the old value were its own */
	shoal_load_cancel(begins(p->k, "a", SHOAL_LEAD));
}

struct cut {
	struct shoal_keyspace *k;
	bool expires;
};

static int cutting(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct cut *cut = arg;

	assert_int_equal(cut->expires ? shoal_keyspace_expire(cut->k) : shoal_keyspace_delete(cut->k), SHOAL_OK);
	return shoal_load_publish(load, STR("read before it"));
}

/* Its caller has its value all the same. */
static void a_fetch_that_is_cut_off_has_its_value(void **state)
{
	struct place *p = *state;
	struct cut cut = {p->k, false};
	struct shoal_value value;
	int i;

	for (i = 0; i < 2; i++, cut.expires = true) {
		assert_int_equal(shoal_fetch(p->k, STR("a"), cutting, &cut, &value), SHOAL_OK);
		assert_true(holds(&value, "read before it"));
		shoal_release(&value);
		assert_int_not_equal(freshness(p->k, "a"), SHOAL_FRESH);
	}
}

/* ---- fallback ---------------------------------------------------------------------------------------------- */

static int upper(struct shoal_load *load, const struct shoal_value *old)
{
	char text[64];
	size_t i;

	for (i = 0; i < old->size && i < sizeof(text); i++)
		text[i] = (char)toupper(((const unsigned char *)old->data)[i]);
	return shoal_load_publish(load, text, i);
}

struct shift {
	struct place *p;
	int runs, code;
	uint64_t takes_ms;
};

static int convert(struct shoal_load *load, const void *key, size_t key_size, const struct shoal_value *old, void *arg)
{
	struct shift *shift = arg;

	shift->runs++;
	pass_ms(shift->p->clock, shift->takes_ms);
	return shift->code ? shift->code : upper(load, old);
}

static int prefixed(const void *key, size_t key_size, void *buffer, size_t capacity, size_t *size, void *arg)
{
	if (key_size + 4 > capacity || *(const char *)key == '!')
		return 1;
	memcpy(buffer, "old:", 4);
	memcpy((char *)buffer + 4, key, key_size);
	*size = key_size + 4;
	return 0;
}

static void carried_over_once(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct shift shift = {.p = p};
	struct job job = {.text = "loaded"};

	assert_set(one, "old:a", "a of one");
	assert_set(one, "b", "b of one");
	assert_set(one, "!c", "c of one");
	assert_int_equal(shoal_keyspace_fallback(two, one, prefixed, convert, &shift), SHOAL_OK);
	assert_misses(two, "a"); /* not by a get */
	assert_int_equal(shoal_read(two, STR("a"), NULL, 0, NULL), SHOAL_MISS);
	assert_int_equal(shift.runs, 0);
	assert_fetches(two, "a", &job, "A OF ONE", SHOAL_MIGRATED);
	assert_gives(two, "a", "A OF ONE");
	assert_gives(one, "old:a", "a of one"); /* for who is still of the old version */
	assert_fetches(two, "a", &job, "A OF ONE", SHOAL_HIT);
	assert_int_equal(shift.runs, 1);
	assert_int_equal(job.runs, 0);
	assert_fetches(two, "b", &job, "loaded", SHOAL_LOADED); /* spelt "old:b" there, and not found */
	assert_fetches(two, "!c", &job, "loaded", SHOAL_LOADED); /* without an old spelling */
	assert_int_equal(shift.runs, 1);
	assert_int_equal(counts_of(two).migrated, 1);
	assert_int_equal(counts_of(two).loads, 2);
	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, NULL, NULL), SHOAL_OK); /* the same key, as it is */
	assert_set(one, "d", "d of one");
	begins(two, "d", SHOAL_OK); /* in steps, too */
	assert_gives(two, "d", "d of one");
	assert_int_equal(shoal_keyspace_fallback(two, NULL, NULL, NULL, NULL), SHOAL_OK);
	assert_set(one, "e", "e of one");
	shoal_load_cancel(begins(two, "e", SHOAL_LEAD));
	assert_int_equal(shoal_keyspace_fallback(two, two, NULL, NULL, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_fallback(NULL, one, NULL, NULL, NULL), SHOAL_ERR_INVALID);
}

static void no_ring(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady),
			      *three = version(p->cache, 3, &steady);

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, NULL, NULL), SHOAL_OK);
	assert_int_equal(shoal_keyspace_fallback(one, two, NULL, NULL, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_keyspace_fallback(three, two, NULL, NULL, NULL), SHOAL_OK);
	assert_int_equal(shoal_keyspace_fallback(one, three, prefixed, NULL, NULL), SHOAL_ERR_INVALID);
	assert_set(one, "a", "a of one");
	assert_int_equal(shoal_delete(three, STR("a")), SHOAL_OK); /* through two to one */
	assert_misses(one, "a");
	assert_int_equal(shoal_keyspace_fallback(two, NULL, NULL, NULL, NULL), SHOAL_OK);
	assert_int_equal(shoal_keyspace_fallback(one, three, NULL, NULL, NULL), SHOAL_OK); /* no ring any more */
	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, NULL, NULL), SHOAL_ERR_INVALID);
}

/* New fresh, stale, error: an hour each. What is left of the old value's second is what it has. */
static void carried_over_with_what_is_left(void **state)
{
	static const struct {
		uint64_t age, takes;
		int64_t fresh, stale; /* left, when it is there */
	} turns[] = {{0, 0, 1000, 2000},   {300, 0, 700, 1700},   {300, 200, 500, 1500}, {999, 0, 1, 1001},
	             {1500, 0, -500, 500}, {900, 300, -200, 800}, {1500, 499, -999, 1}};
	static const struct shoal_policy hours = {.fresh_ms = 3600000, .stale_ms = 3600000, .error_ms = 3600000,
						  .jitter_permille = SHOAL_NONE, .early = -1};
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &hours);
	struct shift shift = {.p = p};
	struct job job = {.code = 7};
	struct shoal_value value;
	struct lives l;
	uint64_t t;
	size_t i;
	int r;

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, convert, &shift), SHOAL_OK);
	for (i = 0; i < COUNT(turns); i++) {
		assert_set(one, "a", "x");
		pass_ms(p->clock, turns[i].age);
		shift.takes_ms = turns[i].takes;
		assert_int_equal(shoal_fetch(two, STR("a"), run_job, &job, &value), SHOAL_OK);
		assert_int_equal(value.source, SHOAL_MIGRATED);
		assert_int_equal(value.freshness, turns[i].fresh > 0 ? SHOAL_FRESH : SHOAL_STALE);
		shoal_release(&value);
		l = lives_of(p->cache, 2);
		assert_int_equal(l.n, 1);
		if (turns[i].fresh > 0)
			assert_int_equal(l.fresh, turns[i].fresh);
		else
			assert_true(l.fresh <= 0);
		assert_int_equal(l.stale, turns[i].stale);
		shoal_keyspace_fallback(two, NULL, NULL, NULL, NULL);
		for (t = turns[i].age + turns[i].takes; t < 4000; t += 100 - t % 100) {
			r = shoal_fetch(two, STR("a"), run_job, &job, &value); /* fails */
			assert_int_equal(r, t < 3000 ? SHOAL_OK : SHOAL_ERR_LOAD);
			assert_true(t >= 3000 || holds(&value, "X"));
			shoal_release(&value);
			pass_ms(p->clock, 100 - t % 100);
		}
		shoal_keyspace_fallback(two, one, NULL, convert, &shift);
		shoal_delete(two, STR("a"));
	}
}

/* Nothing is carried over past its bound, also if the converter took that long. */
static void nothing_is_carried_over_its_end(void **state)
{
	static const struct {
		uint64_t age, takes;
		int runs;
	} turns[] = {{2000, 0, 0}, {2500, 0, 0}, {5000, 0, 0}, {1500, 500, 1}, {500, 5000, 1}};
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct shift shift = {.p = p};
	struct job job = {.text = "loaded"};
	size_t i;

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, convert, &shift), SHOAL_OK);
	for (i = 0; i < COUNT(turns); i++) {
		assert_set(one, "a", "x");
		pass_ms(p->clock, turns[i].age);
		shift.takes_ms = turns[i].takes;
		shift.runs = 0;
		assert_fetches(two, "a", &job, "loaded", SHOAL_LOADED);
		assert_int_equal(shift.runs, turns[i].runs);
		assert_int_equal(freshness(two, "a"), SHOAL_FRESH);
		assert_int_equal(lives_of(p->cache, 2).fresh, 1000);
		assert_int_equal(shoal_delete(two, STR("a")), SHOAL_OK);
	}
	assert_int_equal(counts_of(two).migrated, 0);
	assert_int_equal(counts_of(two).loads, COUNT(turns));
}

/* The checksum of a value that is made in place is not of what the converter had, whose bytes are another's by now. */
static void what_was_converted_in_vain_is_forgotten(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .flags = SHOAL_CHECKSUM});
	struct shoal_keyspace *one = version(p.cache, 1, &steady), *two = version(p.cache, 2, &steady);
	struct shift shift = {.p = &p, .takes_ms = 5000};
	struct shoal_load *load;

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, convert, &shift), SHOAL_OK);
	assert_set(one, "a", "x");
	load = begins(two, "a", SHOAL_LEAD);
	assert_int_equal(shift.runs, 1);
	memcpy(shoal_load_reserve(load, 8), "in place", 8);
	assert_int_equal(shoal_load_commit(load, 8), SHOAL_OK);
	assert_gives(two, "a", "in place");
	assert_int_equal(counts_of(two).corrupt, 0);
	close_place(&p);
}

/* The old version's expire and delete bind what is carried over. */
static void the_old_keyspaces_barriers_hold(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct job job = {.text = "loaded"};

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, NULL, NULL), SHOAL_OK);
	assert_set(one, "a", "x");
	assert_set(one, "b", "x");
	pass_ms(p->clock, 200);
	assert_int_equal(shoal_keyspace_expire(one), SHOAL_OK);
	pass_ms(p->clock, 100);
	begins(two, "a", SHOAL_OK);
	assert_int_equal(freshness(two, "a"), SHOAL_STALE);
	assert_int_equal(lives_of(p->cache, 2).stale, 900);
	assert_int_equal(shoal_keyspace_delete(one), SHOAL_OK);
	assert_fetches(two, "b", &job, "loaded", SHOAL_LOADED);
}

static void verbs_reach_the_old_key(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct job job = {.text = "loaded"};

	assert_int_equal(shoal_keyspace_fallback(two, one, prefixed, NULL, NULL), SHOAL_OK);
	assert_set(one, "old:a", "x");
	assert_int_equal(shoal_delete(two, STR("a")), SHOAL_OK);
	assert_misses(one, "old:a");
	assert_int_equal(shoal_delete(two, STR("a")), SHOAL_MISS);
	assert_fetches(two, "a", &job, "loaded", SHOAL_LOADED);
	assert_set(one, "old:b", "x");
	assert_set(two, "b", "set");
	assert_misses(one, "old:b");
	assert_int_equal(shoal_delete(two, STR("b")), SHOAL_OK);
	assert_fetches(two, "b", &job, "loaded", SHOAL_LOADED);
	assert_set(one, "old:c", "x");
	assert_int_equal(shoal_expire(two, STR("c")), SHOAL_OK);
	assert_int_equal(freshness(one, "old:c"), SHOAL_STALE);
	begins(two, "c", SHOAL_OK);
	assert_int_equal(freshness(two, "c"), SHOAL_STALE);
	assert_set(one, "old:d", "x");
	assert_int_equal(shoal_set_ttl(two, STR("d"), STR("set"), 10, SHOAL_NONE), SHOAL_OK);
	pass_ms(p->clock, 10);
	assert_fetches(two, "d", &job, "loaded", SHOAL_LOADED);
	assert_set(one, "a", "x"); /* another key of the old version */
	assert_int_equal(shoal_delete(two, STR("a")), SHOAL_OK);
	assert_gives(one, "a", "x");
}

static int deleting(struct shoal_load *load, const void *key, size_t key_size, const struct shoal_value *old, void *arg)
{
	shoal_delete(arg, key, key_size);
	return upper(load, old);
}

/* A delete while the value is converted: it does not come back. */
static void a_delete_beats_the_converter(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct job job = {.text = "loaded"};

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, deleting, two), SHOAL_OK);
	assert_set(one, "a", "x");
	begins(two, "a", SHOAL_OK); /* of the caller that was there before */
	assert_misses(two, "a");
	assert_misses(one, "a");
	assert_fetches(two, "a", &job, "loaded", SHOAL_LOADED);
}

static int leaving(struct shoal_load *load, const void *key, size_t key_size, const struct shoal_value *old, void *arg)
{
	struct shift *shift = arg;

	shift->runs++;
	switch (shift->code) {
	case 1:
		return 1;
	case 2:
		return 0;
	case 3:
		return shoal_load_fail(load, 9);
	case 4:
		shoal_load_cancel(load);
		return 0;
	case 5:
		return shoal_load_keep(load);
	default:
		memcpy(shoal_load_reserve(load, 10), "0123456789", 10);
		return shoal_load_commit(load, 11);
	}
}

/* However it fails: a normal miss, of which the converter leaves nothing. */
static void a_failing_converter_is_a_miss(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct shift shift = {.p = p};
	struct job job = {.text = "loaded"};
	struct shoal_load *load;

	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, leaving, &shift), SHOAL_OK);
	for (shift.code = 1; shift.code <= 6; shift.code++) {
		assert_set(one, "a", "x");
		assert_fetches(two, "a", &job, "loaded", SHOAL_LOADED);
		assert_int_equal(shift.runs, 2 * shift.code - 1);
		assert_int_equal(job.runs, shift.code);
		assert_int_equal(lives_of(p->cache, 2).fresh, 1000);
		assert_int_equal(shoal_delete(two, STR("a")), SHOAL_OK);
		assert_set(one, "a", "x");
		load = begins(two, "a", SHOAL_LEAD);
		assert_int_equal(shoal_load_publish(load, STR("led")), SHOAL_OK);
		assert_gives(two, "a", "led");
		assert_int_equal(shoal_delete(two, STR("a")), SHOAL_OK);
	}
	assert_int_equal(counts_of(two).migrated, 0);
	assert_int_equal(counts_of(two).load_errors, 0);
	assert_int_equal(counts_of(two).loads, 12);
}

enum { CACHED = 150, ALL = 300 };

struct rollout {
	struct place *p;
	struct shoal_keyspace *one, *two;
	word32 ready;
	word32 loads[ALL], conversions[ALL], next;
};

static int load_new(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct rollout *r = arg;
	uint32_t i;

	memcpy(&i, key, sizeof(i));
	w32_add(&r->loads[i], 1);
	return shoal_load_publish(load, key, key_size);
}

static int convert_number(struct shoal_load *load, const void *key, size_t key_size, const struct shoal_value *old,
                          void *arg)
{
	struct rollout *r = arg;
	uint64_t twice;
	uint32_t i;

	memcpy(&i, key, sizeof(i));
	w32_add(&r->conversions[i], 1);
	must(old->size == sizeof(i) && !memcmp(old->data, &i, sizeof(i)));
	twice = 2 * (uint64_t)i;
	return shoal_load_publish(load, &twice, sizeof(twice));
}

static int spell_number(const void *key, size_t key_size, void *buffer, size_t capacity, size_t *size, void *arg)
{
	uint32_t i;

	memcpy(&i, key, sizeof(i));
	*size = (size_t)snprintf(buffer, capacity, "number %u", i);
	return 0;
}

static int fetch_all(void *arg)
{
	struct rollout *r = arg;
	struct shoal_value value;
	uint64_t twice;
	uint32_t n, i, start = w32_add(&r->next, 1) % 2; /* in step, half of them backwards */

	must(meet(&r->ready, PROCESSES));
	for (n = 0; n < ALL; n++) {
		i = start ? n : ALL - 1 - n;
		must(shoal_fetch(r->two, &i, sizeof(i), load_new, r, &value) == SHOAL_OK);
		twice = 2 * (uint64_t)i;
		must(value.size == (i < CACHED ? sizeof(twice) : sizeof(i)));
		must(!memcmp(value.data, i < CACHED ? (void *)&twice : (void *)&i, value.size));
		shoal_release(&value);
	}
	return 0;
}

/* Eight processes and a new version: as many loads as there are keys that nobody had, and each value converted once. */
static void a_rollout_is_not_cold(void **state)
{
	struct place *p = *state;
	struct rollout *r = share(sizeof(*r));
	pid_t pids[PROCESSES];
	char name[32];
	uint32_t i;

	r->p = p;
	r->one = version(p->cache, 1, &steady);
	r->two = version(p->cache, 2, &steady);
	assert_int_equal(shoal_keyspace_fallback(r->two, r->one, spell_number, convert_number, r), SHOAL_OK);
	for (i = 0; i < CACHED; i++) {
		snprintf(name, sizeof(name), "number %u", i);
		assert_int_equal(shoal_set(r->one, STR(name), &i, sizeof(i)), SHOAL_OK);
	}
	for (i = 0; i < PROCESSES; i++)
		pids[i] = spawn(fetch_all, r);
	for (i = 0; i < PROCESSES; i++)
		assert_ends_well(pids[i]);
	for (i = 0; i < ALL; i++) {
		assert_int_equal(w32_load(&r->loads[i]), i >= CACHED);
		assert_int_equal(w32_load(&r->conversions[i]), i < CACHED);
	}
	assert_int_equal(counts_of(r->two).migrated, CACHED);
	assert_int_equal(counts_of(r->two).loads, ALL - CACHED);
	unshare_memory(r, sizeof(*r));
}

/* ---- schemas ----------------------------------------------------------------------------------------------- */

static void another_schema_is_loaded_anew(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *one, *two;
	struct shoal_slice slice = {STR("a")};
	struct job job = {.text = "of schema 2", .code = 7};
	struct shoal_value value;
	uint64_t before;
	int outcome;
	char c;

	policy.schema = 1;
	one = version(p->cache, 1, &policy);
	policy.schema = 2;
	two = version(p->cache, 1, &policy);
	assert_set(one, "a", "of schema 1");
	assert_int_equal(shoal_read(two, STR("a"), &c, 1, NULL), SHOAL_MISS);
	assert_int_equal(shoal_get_many(two, &slice, 1, &value, &outcome), SHOAL_OK);
	assert_int_equal(outcome, SHOAL_MISS);
	assert_int_equal(counts_of(two).schema_mismatches, 2);
	assert_int_equal(counts_of(two).misses, 2);
	assert_int_equal(counts_of(two).corrupt + counts_of(two).rejected, 0);
	pass_ms(p->clock, 1500);
	/* never served, not for want of better */
	assert_int_equal(shoal_fetch(two, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
	before = counts_of(two).schema_mismatches;
	assert_true(before > 2);
	pass_ms(p->clock, 100);
	job.code = 0;
	assert_fetches(two, "a", &job, "of schema 2", SHOAL_LOADED);
	assert_int_equal(job.runs, 2);
	assert_true(counts_of(two).schema_mismatches > before);
	assert_gives(two, "a", "of schema 2");
	assert_misses(one, "a");
	assert_int_equal(shoal_expire(two, STR("a")), SHOAL_OK); /* the copy keeps it */
	assert_gives(two, "a", "of schema 2");
}

static void schemas_are_no_fallback(void **state)
{
	struct shoal_policy policy = steady;
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two, *read_by;
	struct job job = {.text = "loaded"};

	policy.schema = 9;
	read_by = version(p->cache, 1, &policy);
	two = version(p->cache, 2, &policy);
	assert_set(one, "a", "of no schema");
	assert_int_equal(shoal_keyspace_fallback(two, read_by, NULL, NULL, NULL), SHOAL_OK);
	assert_fetches(two, "a", &job, "loaded", SHOAL_LOADED); /* read_by can't read it */
	assert_set(one, "b", "of no schema");
	assert_int_equal(shoal_keyspace_fallback(two, one, NULL, NULL, NULL), SHOAL_OK);
	assert_fetches(two, "b", &job, "of no schema", SHOAL_MIGRATED);
	assert_gives(two, "b", "of no schema"); /* of schema 9 now */
}

/* ---- rejects ----------------------------------------------------------------------------------------------- */

static struct shoal_value got(struct shoal_keyspace *k, const char *key)
{
	struct shoal_value value;

	assert_int_equal(shoal_get(k, STR(key), &value), SHOAL_OK);
	return value;
}

static void rejected_by_many_loaded_once(void **state)
{
	enum { READERS = 5 };
	struct place *p = *state;
	struct job job = {.text = "good"};
	struct shoal_value values[READERS], late;
	int i;

	assert_set(p->k, "a", "bad");
	for (i = 0; i < READERS; i++)
		assert_int_equal(shoal_get(p->k, STR("a"), &values[i]), SHOAL_OK);
	assert_int_equal(shoal_get(p->k, STR("a"), &late), SHOAL_OK);
	for (i = 0; i < READERS; i++) {
		assert_int_equal(shoal_reject(p->k, STR("a"), &values[i]), i ? SHOAL_MISS : SHOAL_OK);
		assert_null(values[i].data);
		assert_fetches(p->k, "a", &job, "good", i ? SHOAL_HIT : SHOAL_LOADED);
	}
	assert_int_equal(shoal_reject(p->k, STR("a"), &late), SHOAL_MISS); /* the new value stays */
	assert_gives(p->k, "a", "good");
	assert_int_equal(job.runs, 1);
	assert_int_equal(counts_of(p->k).rejected, READERS + 1);
	assert_int_equal(counts_of(p->k).loads, 1);
	assert_int_equal(counts_of(p->k).corrupt + counts_of(p->k).schema_mismatches, 0);
	assert_int_equal(shoal_reject(p->k, NULL, 1, &late), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_reject(NULL, STR("a"), &late), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_reject(p->k, STR("a"), NULL), SHOAL_ERR_INVALID);
}

/* Also a stale one, and one that was expired after it was got. */
static void a_rejected_value_bridges_nothing(void **state)
{
	struct place *p = *state;
	struct job job = {.code = 7};
	struct shoal_value value;

	assert_set(p->k, "a", "bad");
	pass_ms(p->clock, 1500);
	value = got(p->k, "a");
	assert_int_equal(shoal_reject(p->k, STR("a"), &value), SHOAL_OK);
	assert_int_equal(shoal_fetch(p->k, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
	assert_null(value.data);
	assert_set(p->k, "b", "bad");
	assert_int_equal(shoal_get(p->k, STR("b"), &value), SHOAL_OK);
	assert_int_equal(shoal_expire(p->k, STR("b")), SHOAL_OK);
	assert_int_equal(shoal_reject(p->k, STR("b"), &value), SHOAL_OK);
	assert_misses(p->k, "b");
	shoal_delete(p->k, STR("a"));
}

/* What was carried over and can't be decoded is not carried over again. */
static void a_rejected_migration_is_loaded(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *one = version(p->cache, 1, &steady), *two = version(p->cache, 2, &steady);
	struct job job = {.text = "good"};
	struct shoal_value value;

	assert_int_equal(shoal_keyspace_fallback(two, one, prefixed, NULL, NULL), SHOAL_OK);
	assert_set(one, "old:a", "bad");
	begins(two, "a", SHOAL_OK);
	value = got(two, "a");
	assert_int_equal(shoal_reject(two, STR("a"), &value), SHOAL_OK);
	assert_fetches(two, "a", &job, "good", SHOAL_LOADED);
	assert_int_equal(job.runs, 1);
}

struct readers {
	struct place *p;
	word32 ready, got, runs, rejected;
};

static int load_better(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct readers *r = arg;

	return w32_add(&r->runs, 1) ? shoal_load_publish(load, "good", 4) : shoal_load_publish(load, "bad", 3);
}

static int read_and_reject(void *arg)
{
	struct readers *r = arg;
	struct shoal_value value;

	must(meet(&r->ready, PROCESSES));
	must(shoal_fetch(r->p->k, STR("a"), load_better, r, &value) == SHOAL_OK);
	must(holds(&value, "bad"));
	must(meet(&r->got, PROCESSES)); /* all have it */
	w32_add(&r->rejected, shoal_reject(r->p->k, STR("a"), &value) == SHOAL_OK);
	must(shoal_fetch(r->p->k, STR("a"), load_better, r, &value) == SHOAL_OK);
	must(holds(&value, "good"));
	shoal_release(&value);
	return 0;
}

static void processes_reject_the_same_value(void **state)
{
	struct place *p = *state;
	struct readers *r = share(sizeof(*r));
	pid_t pids[PROCESSES];
	int i, round;

	for (round = 0; round < 20; round++) {
		*r = (struct readers){.p = p};
		for (i = 0; i < PROCESSES; i++)
			pids[i] = spawn(read_and_reject, r);
		for (i = 0; i < PROCESSES; i++)
			assert_ends_well(pids[i]);
		assert_int_equal(w32_load(&r->runs), 2);
		assert_int_equal(w32_load(&r->rejected), 1);
		assert_int_equal(shoal_delete(p->k, STR("a")), SHOAL_OK);
	}
	assert_int_equal(counts_of(p->k).rejected, 20 * PROCESSES);
	unshare_memory(r, sizeof(*r));
}

/* ---- compression ------------------------------------------------------------------------------------------- */

static const unsigned codecs[] = {SHOAL_COMPRESS, SHOAL_COMPRESS_ZSTD};

static struct shoal_keyspace *packing(struct place *p, unsigned flags)
{
	struct shoal_policy policy = steady;
	struct shoal_keyspace *k = NULL;
	char name[16];

	policy.flags = flags;
	snprintf(name, sizeof(name), "pack%u", flags);
	assert_int_equal(shoal_keyspace_open(p->cache, name, 1, &policy, &k), SHOAL_OK);
	return k;
}

/* The entry of a key as it lies there. */
static struct log_entry entry_of(struct shoal_keyspace *k, const char *name)
{
	struct log_entry e = {0};
	struct index_hit hit;
	struct key key;
	struct seat *seat = handle_enter(k->cache, &(int){0});

	assert_non_null(seat);
	key = index_key(&seat->member->segment, k->id, name, strlen(name));
	if (index_find(seat, &key, WANT_NEWEST, READING, OTHER, &hit)) {
		e = hit.e;
		w64_store(&seat->reader->words[hit.announced], 0);
	}
	handle_leave();
	return e;
}

static void fill_text(char *text, size_t size, unsigned seed)
{
	size_t i;

	for (i = 0; i < size; i++)
		text[i] = "shoal of fish "[(i + seed + i / 100) % 14];
}

static void fill_noise(char *text, size_t size)
{
	uint64_t seed = 7;
	size_t i;

	for (i = 0; i < size; i++)
		text[i] = (char)draw(&seed);
}

static int note_size(const struct shoal_entry *entry, void *arg)
{
	size_t *size = arg;

	if (entry->key.size == 1 && *(const char *)entry->key.data == 'a')
		*size = entry->size;
	return 0;
}

/* By every way to look: these bytes. */
static void assert_reads(struct place *p, struct shoal_keyspace *k, const char *text, size_t size)
{
	struct shoal_slice slices[2] = {{STR("none")}, {STR("a")}};
	char *copy = malloc(size + 1);
	struct shoal_value values[2];
	size_t n = 0;
	int outcomes[2];

	assert_int_equal(shoal_get(k, STR("a"), &values[0]), SHOAL_OK);
	assert_int_equal(values[0].size, size);
	assert_memory_equal(values[0].data, text, size);
	assert_int_equal((uintptr_t)values[0].data % 8, 0);
	shoal_release(&values[0]);
	assert_int_equal(shoal_read(k, STR("a"), copy, size, &n), SHOAL_OK);
	assert_int_equal(n, size);
	assert_memory_equal(copy, text, size);
	n = 0;
	assert_int_equal(shoal_read(k, STR("a"), copy, size - 1, &n), SHOAL_ERR_TOO_BIG);
	assert_int_equal(n, size);
	assert_int_equal(shoal_get_many(k, slices, 2, values, outcomes), SHOAL_OK);
	assert_int_equal(outcomes[1], SHOAL_OK);
	assert_int_equal(values[1].size, size);
	assert_memory_equal(values[1].data, text, size);
	shoal_release(&values[1]);
	n = 0;
	assert_int_equal(shoal_scan(p->cache, NULL, note_size, &n), SHOAL_OK);
	assert_int_equal(n, size);
	free(copy);
}

static void packed_values_read_plain(void **state)
{
	static const size_t sizes[] = {1, 511, 512, 513, 1000, 4096, 20000};
	struct place *p = *state;
	struct shoal_keyspace *k;
	char text[20000];
	size_t c, i;

	for (c = 0; c < COUNT(codecs); c++) {
		k = packing(p, codecs[c]);
		for (i = 0; i < COUNT(sizes); i++) {
			fill_text(text, sizes[i], (unsigned)i);
			assert_int_equal(shoal_set(k, STR("a"), text, sizes[i]), SHOAL_OK);
			assert_reads(p, k, text, sizes[i]);
			if (sizes[i] < 512) { /* the threshold */
				assert_int_equal(STORED_CODEC(entry_of(k, "a").stored), CODEC_NONE);
				assert_int_equal(entry_of(k, "a").value_size, sizes[i]);
			} else {
				assert_int_equal(STORED_CODEC(entry_of(k, "a").stored), c ? CODEC_ZSTD : CODEC_LZ4);
				assert_true(entry_of(k, "a").value_size < sizes[i] / 2);
			}
			assert_int_equal(shoal_delete(k, STR("a")), SHOAL_OK);
		}
	}
	assert_int_equal(stats_of(p->cache).total.corrupt, 0);
}

/* Noise is stored as it is; so is everything where the policy doesn't ask. */
static void packed_only_if_smaller(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k;
	char text[4000];
	size_t c;

	fill_noise(text, sizeof(text));
	for (c = 0; c < COUNT(codecs); c++) {
		k = packing(p, codecs[c]);
		assert_int_equal(shoal_set(k, STR("a"), text, sizeof(text)), SHOAL_OK);
		assert_reads(p, k, text, sizeof(text));
		assert_int_equal(STORED_CODEC(entry_of(k, "a").stored), CODEC_NONE);
		assert_int_equal(entry_of(k, "a").value_size, sizeof(text));
		assert_int_equal(shoal_delete(k, STR("a")), SHOAL_OK);
	}
	fill_text(text, sizeof(text), 0);
	assert_int_equal(shoal_set(p->k, STR("a"), text, sizeof(text)), SHOAL_OK);
	assert_int_equal(entry_of(p->k, "a").value_size, sizeof(text));
	assert_reads(p, p->k, text, sizeof(text));
}

/* Loads, in reserved space, too; what is kept, expired, carried over; readers with another policy. */
static void packed_values_live_like_others(void **state)
{
	struct place *p = *state;
	struct shoal_keyspace *k, *plain;
	struct shoal_load *load;
	struct shoal_value value;
	char text[4000];
	size_t c;

	for (c = 0; c < COUNT(codecs); c++) {
		k = packing(p, codecs[c]);
		fill_text(text, sizeof(text), (unsigned)c);
		load = begins(k, "a", SHOAL_LEAD);
		memcpy(shoal_load_reserve(load, 5000), text, sizeof(text));
		assert_int_equal(shoal_load_commit_value(load, sizeof(text), &value), SHOAL_OK);
		assert_int_equal(value.size, sizeof(text));
		assert_memory_equal(value.data, text, sizeof(text));
		shoal_release(&value);
		assert_true(entry_of(k, "a").value_size < 1000);
		assert_reads(p, k, text, sizeof(text));
		pass_ms(p->clock, 1500);
		load = begins(k, "a", SHOAL_REFRESH);
		assert_int_equal(shoal_load_previous(load)->size, sizeof(text));
		assert_memory_equal(shoal_load_previous(load)->data, text, sizeof(text));
		assert_int_equal(shoal_load_keep(load), SHOAL_OK);
		assert_true(entry_of(k, "a").value_size < 1000);
		assert_int_equal(freshness(k, "a"), SHOAL_FRESH);
		assert_reads(p, k, text, sizeof(text));
		assert_int_equal(shoal_expire(k, STR("a")), SHOAL_OK);
		assert_int_equal(freshness(k, "a"), SHOAL_STALE);
		assert_true(entry_of(k, "a").value_size < 1000);
		assert_reads(p, k, text, sizeof(text));
		assert_int_equal(shoal_keyspace_fallback(p->k, k, NULL, NULL, NULL), SHOAL_OK);
		begins(p->k, "a", SHOAL_OK);
		assert_int_equal(entry_of(p->k, "a").value_size, sizeof(text));
		assert_int_equal(shoal_get(p->k, STR("a"), &value), SHOAL_OK);
		assert_memory_equal(value.data, text, sizeof(text));
		shoal_release(&value);
		assert_int_equal(shoal_keyspace_fallback(p->k, NULL, NULL, NULL, NULL), SHOAL_OK);
		shoal_delete(p->k, STR("a"));
		assert_int_equal(shoal_keyspace_open(p->cache, c ? "pack3" : "pack1", 1, &steady, &plain), SHOAL_OK);
		assert_reads(p, plain, text, sizeof(text));
		assert_int_equal(shoal_set(plain, STR("a"), "plain", 5), SHOAL_OK);
		assert_reads(p, k, "plain", 5);
		assert_int_equal(shoal_delete(k, STR("a")), SHOAL_OK);
	}
}

/* Many in hand, which are copies and no pins. */
static void packed_values_in_hand_stay(void **state)
{
	enum { N = 60 };
	struct place *p = *state;
	struct shoal_keyspace *k = packing(p, SHOAL_COMPRESS);
	struct shoal_value values[N];
	char text[2000], key[16];
	unsigned i;

	for (i = 0; i < N; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		fill_text(text, sizeof(text), i);
		assert_int_equal(shoal_set(k, STR(key), text, sizeof(text)), SHOAL_OK);
		assert_int_equal(shoal_get(k, STR(key), &values[i]), SHOAL_OK);
		assert_int_equal(shoal_delete(k, STR(key)), SHOAL_OK);
	}
	assert_int_equal(stats_of(p->cache).pins, 0);
	for (i = 0; i < N; i++) {
		fill_text(text, sizeof(text), i);
		assert_memory_equal(values[i].data, text, sizeof(text));
		shoal_release(&values[i]);
	}
}

enum { BY_GET, BY_READ, BY_GET_MANY, BY_FETCH, WAYS };

/* What does not unpack is met once, counted, removed, and loaded anew. */
static void what_does_not_unpack_is_a_counted_miss(void **state)
{
	struct place *p = *state;
	struct shoal_slice slice = {STR("a")};
	struct job job = {.text = "anew"};
	struct shoal_keyspace *k;
	struct log_entry e;
	struct shoal_value value;
	char text[4000], copy[8000];
	uint64_t met = 0;
	int outcome;
	size_t c, spoilt, way;

	fill_text(text, sizeof(text), 0);
	for (c = 0; c < COUNT(codecs); c++, met = 0)
		for (spoilt = 0; spoilt < 2; spoilt++) /* its bytes, or its size */
			for (way = 0; way < WAYS; way++) {
				k = packing(p, codecs[c]);
				assert_int_equal(shoal_set(k, STR("a"), text, sizeof(text)), SHOAL_OK);
				e = entry_of(k, "a");
				assert_true(e.value_size > 20);
				if (spoilt)
					*(unsigned char *)(uintptr_t)e.value ^= 1;
				else
					memset((unsigned char *)(uintptr_t)e.value + 4, 0xff, e.value_size - 4);
				if (way == BY_GET)
					assert_misses(k, "a");
				else if (way == BY_READ)
					assert_int_equal(shoal_read(k, STR("a"), copy, sizeof(copy), NULL), SHOAL_MISS);
				else if (way == BY_FETCH)
					assert_fetches(k, "a", &job, "anew", SHOAL_LOADED);
				else
					assert_int_equal(shoal_get_many(k, &slice, 1, &value, &outcome), SHOAL_OK);
				if (way == BY_GET_MANY)
					assert_int_equal(outcome, SHOAL_MISS);
				assert_int_equal(counts_of(k).corrupt, ++met);
				assert_true(gives(k, "a", way == BY_FETCH ? SHOAL_OK : SHOAL_MISS,
				                  way == BY_FETCH ? "anew" : NULL));
				assert_int_equal(counts_of(k).corrupt, met); /* and removed */
				assert_int_equal(counts_of(k).schema_mismatches + counts_of(k).rejected, 0);
				shoal_delete(k, STR("a"));
			}
}

/* Nor do bytes that don't match their checksum bridge a failure. */
static void what_does_not_verify_is_loaded_anew(void **state)
{
	struct place p = open_place(NULL, &(struct shoal_config){.size = 8 << 20, .flags = SHOAL_CHECKSUM});
	struct job job = {.text = "anew", .code = 7};
	struct shoal_value value;
	unsigned flags, met = 0;
	char text[1000];

	fill_text(text, sizeof(text), 0);
	for (flags = 0; flags < 4; flags++) {
		struct shoal_keyspace *k = packing(&p, flags);

		assert_int_equal(shoal_set(k, STR("a"), text, sizeof(text)), SHOAL_OK);
		assert_reads(&p, k, text, sizeof(text));
		pass_ms(p.clock, 1500);
		assert_reads(&p, k, text, sizeof(text));
		*(unsigned char *)(uintptr_t)(entry_of(k, "a").value + 10) ^= 4;
		job.code = 7;
		assert_int_equal(shoal_fetch(k, STR("a"), run_job, &job, &value), SHOAL_ERR_LOAD);
		assert_int_equal(counts_of(k).corrupt, 1);
		assert_int_equal(stats_of(p.cache).total.corrupt, ++met);
		pass_ms(p.clock, 100);
		job.code = 0;
		assert_fetches(k, "a", &job, "anew", SHOAL_LOADED);
		assert_gives(k, "a", "anew");
		assert_int_equal(shoal_delete(k, STR("a")), SHOAL_OK);
	}
	close_place(&p);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(versions_live_side_by_side),
		CASE(a_deleted_keyspace_is_empty),
		CASE(an_expired_keyspace_is_stale),
		CASE(a_keyspace_delete_reaches_loads_under_way),
		CASE(a_keyspace_expire_reaches_loads_under_way),
		CASE(a_fetch_that_is_cut_off_has_its_value),
		CASE(carried_over_once),
		CASE(no_ring),
		CASE(carried_over_with_what_is_left),
		CASE(nothing_is_carried_over_its_end),
		cmocka_unit_test(what_was_converted_in_vain_is_forgotten),
		CASE(the_old_keyspaces_barriers_hold),
		CASE(verbs_reach_the_old_key),
		CASE(a_delete_beats_the_converter),
		CASE(a_failing_converter_is_a_miss),
		CASE(a_rollout_is_not_cold),
		CASE(another_schema_is_loaded_anew),
		CASE(schemas_are_no_fallback),
		CASE(rejected_by_many_loaded_once),
		CASE(a_rejected_value_bridges_nothing),
		CASE(a_rejected_migration_is_loaded),
		CASE(processes_reject_the_same_value),
		CASE(packed_values_read_plain),
		CASE(packed_only_if_smaller),
		CASE(packed_values_live_like_others),
		CASE(packed_values_in_hand_stay),
		CASE(what_does_not_unpack_is_a_counted_miss),
		cmocka_unit_test(what_does_not_verify_is_loaded_anew),
	};

	return cmocka_run_group_tests_name("versions", tests, NULL, NULL);
}
