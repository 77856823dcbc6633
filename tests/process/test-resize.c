/* SPDX-License-Identifier: MIT */
/*
 * Another size under load (resize.c, Z.1 ...): nobody is told, nothing is wrong, and what was left
 * behind is given back.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include "handle.h"
#include "testing.h"

#define MIB ((size_t)1 << 20)

static const struct shoal_policy lasting = {.fresh_ms = SHOAL_FOREVER, .jitter_permille = SHOAL_NONE, .early = -1};

static struct place open_lasting(const char *name, const struct shoal_config *config)
{
	struct place p = open_place(name, config);

	p.k = keyspace(p.cache, "lasting", &lasting);
	return p;
}

static const struct segment *segment_now(struct shoal *cache)
{
	return &move_member(&cache->member)->segment;
}

static uint64_t bytes_of_file(struct shoal *cache)
{
	struct stat st;

	assert_int_equal(fstat(segment_now(cache)->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* Of a region that was given back: what stays, rounded up to huge pages where the system uses them for all. */
static uint64_t bytes_left(const struct geometry *g)
{
	return g->processes_at + 16 * PAGE;
}

static void key_name(char key[16], unsigned i)
{
	snprintf(key, 16, "key %u", i);
}

/* ---- one process ------------------------------------------------------------------------------------------- */

static void entries_go_along(void **state)
{
	static const size_t sizes[] = {16 * MIB, 4 * MIB, 32 * MIB, 8 * MIB, 8 * MIB};
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 8 * MIB, .max_size = 64 * MIB});
	char key[16];
	unsigned i, round;

	for (i = 0; i < 1000; i++) {
		key_name(key, i);
		assert_set(p.k, key, key);
	}
	for (round = 0; round < COUNT(sizes); round++) {
		assert_int_equal(shoal_resize(p.cache, sizes[round]), SHOAL_OK);
		assert_int_equal(stats_of(p.cache).size, sizes[round]);
		for (i = 0; i < 1000; i++) {
			key_name(key, i);
			if (i % 10 == round)
				assert_int_equal(shoal_delete(p.k, STR(key)), SHOAL_OK);
			if (i % 10 <= round)
				assert_misses(p.k, key);
			else
				assert_gives(p.k, key, key);
		}
	}
	close_place(&p);
}

static void errors_change_nothing(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 4 * MIB, .max_size = 8 * MIB});
	uint64_t before;

	assert_set(p.k, "a", "1");
	before = bytes_of_file(p.cache);
	assert_int_equal(shoal_resize(NULL, 4 * MIB), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_resize(p.cache, 0), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_resize(p.cache, MIB - PAGE), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_resize(p.cache, 8 * MIB + 1), SHOAL_ERR_TOO_BIG);
	assert_int_equal(shoal_resize(p.cache, SIZE_MAX), SHOAL_ERR_TOO_BIG);
	assert_int_equal(bytes_of_file(p.cache), before);
	assert_int_equal(stats_of(p.cache).size, 4 * MIB);
	assert_gives(p.k, "a", "1");
	assert_int_equal(shoal_resize(p.cache, 8 * MIB), SHOAL_OK);
	assert_gives(p.k, "a", "1");
	close_place(&p);

	p = open_lasting(NULL, NULL); /* max_size: as large as it is */
	assert_int_equal(shoal_resize(p.cache, (8 << 20) + 1), SHOAL_ERR_TOO_BIG);
	close_place(&p);

	p = open_lasting(NULL, &(struct shoal_config){.size = 4 * MIB, .max_size = SIZE_MAX}); /* as large as can be */
	assert_int_equal(shoal_resize(p.cache, 8 * MIB), SHOAL_OK);
	close_place(&p);
}

/* Lives, generations, frequencies and an expire of the whole keyspace are what they were. */
static void nothing_else_changes(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct shoal_value value;
	uint64_t generation;
	int i;

	assert_set(p.k, "old", "1");
	assert_int_equal(shoal_get(p.k, STR("old"), &value), SHOAL_OK);
	generation = value.generation;
	shoal_release(&value);
	pass_ms(p.clock, 500);
	assert_set(p.k, "new", "2");
	for (i = 0; i < 5; i++)
		assert_gives(p.k, "new", "2");
	assert_int_equal(shoal_resize(p.cache, 4 << 20), SHOAL_OK);
	assert_int_equal(shoal_get(p.k, STR("old"), &value), SHOAL_OK);
	assert_int_equal(value.generation, generation);
	assert_int_equal(value.freshness, SHOAL_FRESH);
	shoal_release(&value);
	pass_ms(p.clock, 600);
	assert_int_equal(shoal_get(p.k, STR("old"), &value), SHOAL_OK);
	assert_int_equal(value.freshness, SHOAL_STALE);
	shoal_release(&value);
	assert_int_equal(shoal_keyspace_expire(p.k), SHOAL_OK);
	assert_int_equal(shoal_resize(p.cache, 8 << 20), SHOAL_OK);
	assert_int_equal(shoal_get(p.k, STR("new"), &value), SHOAL_OK);
	assert_int_equal(value.freshness, SHOAL_STALE);
	shoal_release(&value);
	assert_set(p.k, "new", "3");
	assert_gives(p.k, "new", "3");
	assert_int_equal(shoal_keyspace_delete(p.k), SHOAL_OK);
	assert_int_equal(shoal_resize(p.cache, 4 << 20), SHOAL_OK);
	assert_misses(p.k, "new");
	close_place(&p);
}

static void the_hottest_stay(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 16 * MIB});
	char key[16], bytes[1000] = {0};
	unsigned i, round, hot = 0, cold = 0;

	for (i = 0; i < 8000; i++) {
		key_name(key, i);
		assert_int_equal(shoal_set(p.k, STR(key), bytes, sizeof(bytes)), SHOAL_OK);
	}
	for (round = 0; round < 3; round++)
		for (i = 0; i < 8000; i += 10) {
			key_name(key, i);
			assert_int_equal(shoal_read(p.k, STR(key), bytes, sizeof(bytes), NULL), SHOAL_OK);
		}
	assert_int_equal(shoal_resize(p.cache, 2 * MIB), SHOAL_OK);
	for (i = 0; i < 8000; i++) {
		key_name(key, i);
		*(i % 10 ? &cold : &hot) += shoal_read(p.k, STR(key), bytes, sizeof(bytes), NULL) == SHOAL_OK;
	}
	printf("# of 800 hot keys %u stay, of 7200 others %u\n", hot, cold);
	assert_true(hot >= 760); /* hits are not counted to the last one */
	assert_in_range(cold, 1, 1300);
	close_place(&p);
}

static void values_in_hand_stay(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 4 * MIB, .max_size = 16 * MIB});
	struct shoal_value held[3];
	struct geometry g[3];
	uint64_t with, without;
	int i, j;

	for (i = 0; i < 3; i++) {
		assert_set(p.k, "a", i == 0 ? "first" : i == 1 ? "second" : "third");
		assert_int_equal(shoal_get(p.k, STR("a"), &held[i]), SHOAL_OK);
		g[i] = segment_now(p.cache)->geometry;
		assert_int_equal(shoal_resize(p.cache, (4 + 4 * (size_t)i) * MIB), SHOAL_OK);
		for (j = 0; j < 2000; j++)
			assert_set(p.k, "a", "other");
		assert_true(holds(&held[0], "first"));
	}
	assert_true(holds(&held[0], "first") && holds(&held[1], "second") && holds(&held[2], "third"));
	with = bytes_of_file(p.cache);
	for (i = 0; i < 3; i++)
		shoal_release(&held[i]);
	without = bytes_of_file(p.cache);
	printf("# file: %" PRIu64 " KiB while held, %" PRIu64 " after\n", with >> 10, without >> 10);
	assert_true(without <=
	            segment_now(p.cache)->geometry.size + bytes_left(&g[0]) + bytes_left(&g[1]) + bytes_left(&g[2]));
	assert_true(with >= without + 3 * MIB);
	close_place(&p);
}

static void counters_go_on(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct shoal_keyspace_stats before, after;
	int i;

	for (i = 0; i < 10; i++) {
		assert_set(p.k, "a", "1");
		assert_gives(p.k, "a", "1");
		assert_misses(p.k, "b");
		before = counts_of(p.k);
		assert_int_equal(before.hits_fresh, i + 1);
		assert_int_equal(before.misses, i + 1);
		assert_int_equal(shoal_resize(p.cache, (size_t)(2 + i % 3 * 3) * MIB), SHOAL_OK);
		after = counts_of(p.k);
		assert_int_equal(after.hits_fresh, i + 1);
		assert_int_equal(after.misses, i + 1);
	}
	close_place(&p);
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

struct thread {
	struct place *p;
	word32 go, ready;
};

static void *use_and_wait(void *arg)
{
	struct thread *t = arg;

	must(gives(t->p->k, "a", SHOAL_OK, "1"));
	post(&t->ready);
	must(await(&t->go, 1));
	must(gives(t->p->k, "a", SHOAL_OK, "2"));
	return NULL;
}

/* Idle threads stay behind and hold up nobody; the region's memory goes. */
static void idle_threads_follow(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct thread t = {.p = &p};
	pthread_t threads[4];
	struct geometry g = segment_now(p.cache)->geometry;
	unsigned i;

	assert_set(p.k, "a", "1");
	for (i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_and_wait, &t), 0);
	assert_true(await(&t.ready, COUNT(threads)));
	for (i = 0; i < 5; i++)
		assert_int_equal(shoal_resize(p.cache, (4 + i % 2) * MIB), SHOAL_OK);
	assert_true(bytes_of_file(p.cache) <= 4 * MIB + 5 * bytes_left(&g));
	assert_set(p.k, "a", "2");
	post(&t.go);
	for (i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	close_place(&p);
}

/* ---- loads ------------------------------------------------------------------------------------------------- */

struct meeting {
	struct place *p;
	word32 loading, go_on, waiting;
};

static int slow_loader(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	struct meeting *m = arg;

	post(&m->loading);
	must(await(&m->go_on, 1));
	return shoal_load_publish(load, STR("slow"));
}

static int quick_loader(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	return shoal_load_publish(load, STR("quick"));
}

static int fetch_slowly(void *arg)
{
	struct meeting *m = arg;
	struct shoal_value value;

	must(shoal_fetch(m->p->k, STR("a"), slow_loader, m, &value) == SHOAL_OK);
	must(holds(&value, "slow") && value.source == SHOAL_LOADED);
	shoal_release(&value);
	return 0;
}

static int wait_for_load(void *arg)
{
	struct meeting *m = arg;
	struct shoal_value value;
	struct shoal_load *load;

	must(shoal_begin(m->p->k, STR("a"), &load, &value) == SHOAL_WAIT);
	post(&m->waiting);
	must(shoal_wait(load, 60000, &value) == SHOAL_LEAD);
	must(shoal_load_publish(load, STR("heir's")) == SHOAL_OK);
	return 0;
}

static void waiters_lead_and_leaders_get_their_value(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct meeting *m = share(sizeof(*m));
	pid_t leader, waiter;

	m->p = &p;
	leader = spawn(fetch_slowly, m);
	assert_true(await(&m->loading, 1));
	waiter = spawn(wait_for_load, m);
	assert_true(await(&m->waiting, 1));
	assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	assert_ends_well(waiter);
	assert_gives(p.k, "a", "heir's");
	post(&m->go_on);
	assert_ends_well(leader);
	assert_gives(p.k, "a", "heir's"); /* P.4 */
	assert_int_equal(counts_of(p.k).loads, 2);
	unshare_memory(m, sizeof(*m));
	close_place(&p);
}

/* In steps: not stored, and said so. What comes after the move is the next region's. */
static void loads_end_in_their_region(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct shoal_load *load, *failed, *cancelled, *waits, *reserved;
	struct shoal_value value;

	assert_int_equal(shoal_begin(p.k, STR("a"), &load, &value), SHOAL_LEAD);
	assert_int_equal(shoal_begin(p.k, STR("a"), &waits, &value), SHOAL_WAIT);
	assert_int_equal(shoal_begin(p.k, STR("b"), &failed, &value), SHOAL_LEAD);
	assert_int_equal(shoal_begin(p.k, STR("c"), &cancelled, &value), SHOAL_LEAD);
	assert_int_equal(shoal_begin(p.k, STR("d"), &reserved, &value), SHOAL_LEAD);
	memcpy(shoal_load_reserve(reserved, 100), "there", 5);
	assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	assert_int_equal(shoal_load_renew(load), SHOAL_OK);
	assert_int_equal(shoal_load_publish(load, STR("late")), SHOAL_ERR_SUPERSEDED);
	assert_misses(p.k, "a");
	assert_int_equal(shoal_wait(waits, 0, &value), SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(waits, STR("anew")), SHOAL_OK);
	assert_gives(p.k, "a", "anew");
	shoal_load_fail(failed, 7);
	shoal_load_cancel(cancelled);
	memcpy((char *)shoal_load_reserve(reserved, 200) + 5, " too", 4);
	assert_int_equal(shoal_load_commit_value(reserved, 9, &value), SHOAL_ERR_SUPERSEDED);
	assert_true(holds(&value, "there too"));
	shoal_release(&value);
	assert_int_equal(shoal_fetch(p.k, STR("b"), quick_loader, NULL, &value), SHOAL_OK);
	shoal_release(&value);
	assert_int_equal(stats_of(p.cache).flights, 0);
	assert_int_equal(stats_of(p.cache).pins, 0);
	close_place(&p);
}

static int resizing_loader(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	struct place *p = arg;
	struct shoal_value value;

	must(shoal_resize(p->cache, 5 * MIB) == SHOAL_OK);
	must(shoal_fetch(p->k, STR("inner"), quick_loader, NULL, &value) == SHOAL_OK);
	must(holds(&value, "quick"));
	shoal_release(&value);
	return shoal_load_publish(load, STR("outer"));
}

static void a_loader_may_resize(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 8 * MIB, .max_loads = 1});
	struct shoal_value value;
	int i;

	for (i = 0; i < 3; i++) {
		assert_int_equal(shoal_fetch(p.k, STR("a"), resizing_loader, &p, &value), SHOAL_OK);
		assert_true(holds(&value, "outer"));
		shoal_release(&value);
		assert_gives(p.k, "inner", "quick");
		assert_misses(p.k, "a");
		assert_int_equal(stats_of(p.cache).permits_used, 0);
	}
	close_place(&p);
}

static int wait_for_permit(void *arg)
{
	struct meeting *m = arg;
	struct shoal_value value;
	struct shoal_load *load;

	must(shoal_begin(m->p->k, STR("b"), &load, &value) == SHOAL_WAIT);
	post(&m->waiting);
	must(shoal_wait(load, 60000, &value) == SHOAL_LEAD);
	must(shoal_load_publish(load, STR("permitted")) == SHOAL_OK);
	return 0;
}

static void permits_are_asked_anew(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 8 * MIB, .max_loads = 1});
	struct meeting *m = share(sizeof(*m));
	struct shoal_value value;
	struct shoal_load *load;
	pid_t waiter;

	m->p = &p;
	assert_int_equal(shoal_begin(p.k, STR("a"), &load, &value), SHOAL_LEAD);
	waiter = spawn(wait_for_permit, m);
	assert_true(await(&m->waiting, 1));
	assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	assert_ends_well(waiter); /* the old one's permit is no bound of the new one's */
	assert_gives(p.k, "b", "permitted");
	shoal_load_cancel(load);
	assert_int_equal(stats_of(p.cache).permits_used, 0);
	unshare_memory(m, sizeof(*m));
	close_place(&p);
}

/* ---- fork, attach, inspect --------------------------------------------------------------------------------- */

struct child {
	struct place *p;
	struct shoal_value *held;
	word32 ready, go;
};

static int wake_up_and_use(void *arg)
{
	struct child *c = arg;

	post(&c->ready);
	must(await(&c->go, 1));
	must(gives(c->p->k, "a", SHOAL_OK, "2"));
	must(!c->held || holds(c->held, "1"));
	must(shoal_set(c->p->k, STR("a"), STR("3")) == SHOAL_OK);
	must(gives(c->p->k, "a", SHOAL_OK, "3"));
	must(!c->held || holds(c->held, "1"));
	return 0;
}

static void an_idle_child_follows(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct child *c = share(sizeof(*c));
	struct shoal_value value;
	pid_t pid;

	c->p = &p;
	c->held = &value;
	assert_set(p.k, "a", "1");
	assert_int_equal(shoal_get(p.k, STR("a"), &value), SHOAL_OK);
	pid = spawn(wake_up_and_use, c);
	assert_true(await(&c->ready, 1));
	assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	assert_set(p.k, "a", "2");
	assert_int_equal(shoal_resize(p.cache, 6 * MIB), SHOAL_OK);
	post(&c->go);
	assert_ends_well(pid);
	assert_gives(p.k, "a", "3");
	assert_true(holds(&value, "1"));
	shoal_release(&value);
	unshare_memory(c, sizeof(*c));
	close_place(&p);
}

static int count_entry(const struct shoal_entry *entry, void *arg)
{
	++*(unsigned *)arg;
	return 0;
}

static void attaching_and_inspecting(void **state)
{
	const char *name = "test-resize-attach";
	struct place p, q;
	struct shoal *inspect;
	struct shoal_stats stats;
	unsigned seen = 0;
	char key[16];
	int i;

	shoal_unlink(name);
	p = open_lasting(name, &(struct shoal_config){.size = 4 * MIB});
	assert_int_equal(shoal_open(name, &(struct shoal_config){.flags = SHOAL_INSPECT}, &inspect), SHOAL_OK);
	for (i = 0; i < 100; i++) {
		key_name(key, (unsigned)i);
		assert_set(p.k, key, "1");
	}
	assert_int_equal(shoal_resize(inspect, 8 * MIB), SHOAL_ERR_PERMISSION);
	assert_int_equal(shoal_resize(p.cache, 24 * MIB), SHOAL_OK);
	assert_int_equal(shoal_stats(inspect, &stats), SHOAL_OK);
	assert_int_equal(stats.size, 24 * MIB);
	assert_int_equal(shoal_scan(inspect, NULL, count_entry, &seen), SHOAL_OK);
	assert_int_equal(seen, 100);
	for (i = 0; i < 5; i++) {
		assert_int_equal(shoal_resize(p.cache, (size_t)(8 + i) * MIB), SHOAL_OK);
		q = open_lasting(name, NULL);
		assert_int_equal(stats_of(q.cache).size, (size_t)(8 + i) * MIB);
		assert_gives(q.k, "key 7", "1");
		assert_int_equal(shoal_resize(q.cache, 6 * MIB), SHOAL_OK);
		close_place(&q);
		assert_gives(p.k, "key 8", "1");
	}
	seen = 0;
	assert_int_equal(shoal_scan(inspect, "lasting", count_entry, &seen), SHOAL_OK);
	assert_int_equal(seen, 100);
	shoal_close(inspect);
	close_place(&p);
	shoal_unlink(name);
}

/* A scan that a resize overtakes sees every entry that is there throughout. */
static int visit_and_resize(const struct shoal_entry *entry, void *arg)
{
	static unsigned calls;
	struct place *p = ((void **)arg)[0];
	unsigned char *seen = ((void **)arg)[1];

	seen[atoi((const char *)entry->key.data + 4)] = 1;
	if (calls++ % 300 == 100)
		must(shoal_resize(p->cache, (3 + calls % 7) * MIB) == SHOAL_OK);
	return 0;
}

static void a_scan_goes_on(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	unsigned char seen[1000] = {0};
	void *arg[] = {&p, seen};
	char key[16];
	unsigned i;

	for (i = 0; i < COUNT(seen); i++) {
		key_name(key, i);
		assert_int_equal(shoal_set(p.k, key, strlen(key) + 1, "1", 1), SHOAL_OK);
	}
	assert_int_equal(shoal_scan(p.cache, NULL, visit_and_resize, arg), SHOAL_OK);
	for (i = 0; i < COUNT(seen); i++)
		assert_true(seen[i]);
	close_place(&p);
}

/* ---- under load -------------------------------------------------------------------------------------------- */

/*
 * Each key has one owner, who changes it: `begun` is raised before, `done` after, to the number of the change. A
 * value is {key, number, a pattern that follows from both}. Nobody may get a number below what was done, or seen
 * by anyone, before his call began; and none that was deleted: deletes have numbers, too, and what comes after
 * them has a higher one.
 */
#define WORKERS 8
#define KEYS 512u

struct fact {
	word64 begun, done, seen;
};

struct load {
	struct place *p;
	struct fact facts[KEYS];
	word32 ready, stop, wrong, standing;
	word64 operations, hits, longest_ns, loads;
	bool changes_only;
};

static size_t make_value(uint64_t bytes[64], uint64_t key, uint64_t number)
{
	size_t i, n = 2 + (number * 7 + key) % 60;

	bytes[0] = key;
	bytes[1] = number;
	for (i = 2; i < n; i++)
		bytes[i] = (key << 32 ^ number) * (i + 1);
	return n * 8;
}

static void judge(struct load *l, unsigned key, const struct shoal_value *value, uint64_t least)
{
	const uint64_t *bytes = value->data;
	uint64_t wanted[64];
	struct fact *f = &l->facts[key];
	uint64_t number = value->size >= 16 ? bytes[1] : 0;

	if (make_value(wanted, key, number) != value->size || memcmp(wanted, bytes, value->size) || number < least ||
	    number > w64_load(&f->begun)) {
		fprintf(stderr, "key %u: number %" PRIu64 " (%zu bytes), at least %" PRIu64 ", begun %" PRIu64 "\n",
		        key, number, value->size, least, w64_load(&f->begun));
		w32_add(&l->wrong, 1);
	}
	w64_max(&f->seen, number);
	w64_add(&l->hits, 1);
}

struct loading {
	struct load *l;
	unsigned key;
};

static int load_number(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	struct loading *loading = arg;
	uint64_t bytes[64];

	w64_add(&loading->l->loads, 1);
	size = make_value(bytes, loading->key, w64_load(&loading->l->facts[loading->key].begun));
	return shoal_load_publish(load, bytes, size);
}

/* The upper half of the keys is loaded, and deleted when the origin has changed; the lower one is set. */
static int change_key(struct load *l, unsigned key, const char *name)
{
	struct fact *f = &l->facts[key];
	uint64_t bytes[64], number = w64_load(&f->done) + 1;
	size_t size;
	int r;

	w64_store(&f->begun, number);
	if (key >= KEYS / 2 || number % 4 == 0) {
		r = shoal_delete(l->p->k, name, strlen(name));
		r = r == SHOAL_MISS ? SHOAL_OK : r;
	} else {
		size = make_value(bytes, key, number);
		r = shoal_set(l->p->k, name, strlen(name), bytes, size);
	}
	w64_store(&f->done, number + (key < KEYS / 2 && number % 4 == 0)); /* a delete: what it deleted is below */
	if (key < KEYS / 2 && number % 4 == 0)
		w64_store(&f->begun, number + 1);
	return r;
}

static int look_up(struct load *l, unsigned key, const char *name)
{
	struct fact *f = &l->facts[key];
	struct loading loading = {l, key};
	uint64_t least = max_u64(w64_load(&f->done), w64_load(&f->seen));
	struct shoal_value value;
	int r;

	if (key < KEYS / 2)
		r = shoal_get(l->p->k, name, strlen(name), &value);
	else
		r = shoal_fetch(l->p->k, name, strlen(name), load_number, &loading, &value);
	if (r == SHOAL_OK)
		judge(l, key, &value, least);
	shoal_release(&value);
	return r == SHOAL_MISS && key < KEYS / 2 ? SHOAL_OK : r;
}

struct worker {
	struct load *l;
	unsigned number;
};

static int work(void *arg)
{
	struct worker *w = arg;
	struct load *l = w->l;
	uint64_t seed = w->number, began, took;
	unsigned key;
	char name[16];
	int r;

	post(&l->ready);
	while (!w32_load(&l->stop)) {
		key = (unsigned)(draw(&seed) % KEYS);
		began = clock_system_ns(CLOCK_MONOTONIC);
		if (l->changes_only || draw(&seed) % 4 == 0) {
			key = key / WORKERS * WORKERS + w->number;
			key_name(name, key);
			r = change_key(l, key, name);
		} else {
			key_name(name, key);
			r = look_up(l, key, name);
		}
		took = clock_system_ns(CLOCK_MONOTONIC) - began;
		w64_max(&l->longest_ns, took);
		w64_add(&l->operations, 1);
		if (r)
			fprintf(stderr, "key %u: %s\n", key, shoal_strerror(r));
		must(!r);
	}
	return 0;
}

static struct load *begin_load(struct place *p, pid_t workers[WORKERS])
{
	struct load *l = share(sizeof(*l));
	struct worker w = {.l = l};

	l->p = p;
	for (w.number = 0; w.number < WORKERS; w.number++)
		workers[w.number] = spawn(work, &w);
	assert_true(await(&l->ready, WORKERS));
	return l;
}

static void end_load(struct load *l, pid_t workers[WORKERS])
{
	int i;

	w32_store(&l->stop, 1);
	for (i = 0; i < WORKERS; i++)
		assert_ends_well(workers[i]);
	printf("# %" PRIu64 " operations, %" PRIu64 " values judged, %" PRIu64 " loads, longest %.1f ms\n",
	       w64_load(&l->operations), w64_load(&l->hits), w64_load(&l->loads),
	       (double)w64_load(&l->longest_ns) / 1e6);
	assert_int_equal(w32_load(&l->wrong), 0);
	unshare_memory(l, sizeof(*l));
}

/* Until the workers have done something since. */
static void let_them_work(struct load *l, uint64_t operations)
{
	uint64_t from = w64_load(&l->operations), end = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;

	while (w64_load(&l->operations) < from + operations) {
		assert_true(clock_system_ns(CLOCK_MONOTONIC) < end);
		sched_yield();
	}
}

static void eight_processes_under_full_load(void **state)
{
	static const size_t sizes[] = {16, 2, 8, 4, 32, 3};
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 8 * MIB, .max_size = 64 * MIB});
	struct geometry first = segment_now(p.cache)->geometry;
	int rounds = UNDER_TSAN || UNDER_ASAN ? 12 : 60, i, busy = 0, r;
	pid_t workers[WORKERS];
	struct load *l = begin_load(&p, workers);
	uint64_t bytes;

	for (i = 0; i < rounds; i++) {
		r = shoal_resize(p.cache, sizes[(unsigned)i % COUNT(sizes)] * MIB);
		busy += r == SHOAL_ERR_BUSY;
		assert_true(r == SHOAL_OK || r == SHOAL_ERR_BUSY);
		let_them_work(l, 1000);
	}
	end_load(l, workers);
	assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	shoal_reap(p.cache);
	bytes = bytes_of_file(p.cache);
	printf("# %d resizes, %d busy; file: %" PRIu64 " KiB\n", rounds, busy, bytes >> 10);
	assert_true(busy < rounds / 10 + 1);
	assert_true(bytes <= 4 * MIB + (unsigned)(rounds + 1) * bytes_left(&first));
	assert_int_equal(stats_of(p.cache).pins, 0);
	assert_int_equal(stats_of(p.cache).flights, 0);
	close_place(&p);
}

/* ---- killed and stopped ------------------------------------------------------------------------------------ */

static int resize_for_ever(void *arg)
{
	struct place *p = arg;
	unsigned i;
	int r;

	for (i = 0;; i++) {
		r = shoal_resize(p->cache, (2 + i % 5 * 2) * MIB);
		must(r == SHOAL_OK || r == SHOAL_ERR_BUSY);
	}
	return 0;
}

/* A blow at a random moment. */
static void kill_some_time(pid_t pid, uint64_t *seed, uint64_t most_us)
{
	struct timespec t = {.tv_nsec = (long)(draw(seed) % most_us * 1000)};

	nanosleep(&t, NULL);
	kill_child(pid);
}

static void a_killed_resizer_leaves_nothing(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 4 * MIB, .max_size = 16 * MIB});
	struct geometry first = segment_now(p.cache)->geometry;
	int rounds = UNDER_TSAN || UNDER_ASAN ? 20 : 200, i;
	uint64_t seed = 1, regions, bytes;

	assert_set(p.k, "a", "1");
	for (i = 0; i < rounds; i++) {
		kill_some_time(spawn(resize_for_ever, &p), &seed, 15000);
		assert_gives(p.k, "a", "1");
		assert_set(p.k, "b", "2");
		assert_int_equal(shoal_delete(p.k, STR("b")), SHOAL_OK);
		if (i % 4 == 0)
			assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	}
	assert_int_equal(shoal_resize(p.cache, 4 * MIB), SHOAL_OK);
	shoal_reap(p.cache);
	regions = segment_now(p.cache)->geometry.offset / (4 * MIB) +
	          1; /* at most: each begins at a huge page, behind 2 MiB */
	bytes = bytes_of_file(p.cache);
	printf("# %d killed; file: %" PRIu64 " KiB, reach %" PRIu64 " MiB\n", rounds, bytes >> 10,
	       segment_reach(segment_now(p.cache)) >> 20);
	assert_true(bytes <= 4 * MIB + regions * bytes_left(&first));
	assert_int_equal(stats_of(p.cache).processes, 1);
	assert_int_equal(w64_load(&segment_now(p.cache)->header->before), 0);
	close_place(&p);
}

static void a_killed_resizer_under_load(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 8 * MIB, .max_size = 64 * MIB});
	int rounds = UNDER_TSAN || UNDER_ASAN ? 5 : 30, i, r;
	pid_t workers[WORKERS];
	struct load *l = begin_load(&p, workers);
	uint64_t seed = 2;

	for (i = 0; i < rounds; i++) {
		kill_some_time(spawn(resize_for_ever, &p), &seed, 40000);
		let_them_work(l, 200);
		do
			r = shoal_resize(p.cache, 8 * MIB);
		while (r == SHOAL_ERR_BUSY);
		assert_int_equal(r, SHOAL_OK);
		let_them_work(l, 200);
	}
	end_load(l, workers);
	close_place(&p);
}

/* Z.3: workers are stopped anywhere, most of them in the midst of a change. */
static void stopped_workers_hold_up_nobody(void **state)
{
	struct place p = open_lasting(NULL, &(struct shoal_config){.size = 8 * MIB, .max_size = 64 * MIB});
	int rounds = UNDER_TSAN || UNDER_ASAN ? 5 : 30, i, r;
	pid_t workers[WORKERS];
	struct load *l = begin_load(&p, workers);

	l->changes_only = true;
	for (i = 0; i < rounds; i++) {
		let_them_work(l, 100);
		kill(workers[i % WORKERS], SIGSTOP);
		kill(workers[(i + 1) % WORKERS], SIGSTOP);
		r = shoal_resize(p.cache, (4 + (size_t)i % 5) * MIB);
		assert_int_equal(r, SHOAL_OK);
		l->changes_only = i % 2;
		let_them_work(l, 100);
		kill(workers[i % WORKERS], SIGCONT);
		kill(workers[(i + 1) % WORKERS], SIGCONT);
	}
	end_load(l, workers);
	close_place(&p);
}

/* ---- in the midst of a change ------------------------------------------------------------------------------ */

/* A clock at which a child stands still when it is asked in the midst of a change. */
struct halt {
	struct test_clock clock; /* first: tests read it by that name */
	struct place *p;
	word32 armed, there, go;
	struct fact fact;
};

static uint64_t halting_clock(void *arg)
{
	struct halt *h = arg;
	struct seat *seat =
		w32_load(&h->armed) == (uint32_t)getpid() ? registry_here(move_member(&h->p->cache->member)) : NULL;

	if (seat && w64_load(&seat->reader->changing)) {
		w32_store(&h->armed, 0);
		post(&h->there);
		must(await(&h->go, 1));
	}
	return w64_load(&h->clock.ns);
}

static struct halt *open_halting(struct place *p)
{
	struct halt *h = share(sizeof(*h));
	struct shoal_config c = {.size = 4 * MIB, .clock = halting_clock, .clock_arg = h};

	w64_store(&h->clock.ns, 1000 * SECOND_NS);
	h->p = p;
	*p = (struct place){.clock = &h->clock};
	assert_int_equal(shoal_open(NULL, &c, &p->cache), SHOAL_OK);
	p->k = keyspace(p->cache, "lasting", &lasting);
	return h;
}

static int set_and_halt(void *arg)
{
	struct halt *h = arg;

	must(gives(h->p->k, "b", SHOAL_MISS, NULL)); /* it has a seat */
	w32_store(&h->armed, (uint32_t)getpid());
	must(shoal_set(h->p->k, STR("a"), STR("late")) == SHOAL_OK);
	return 0;
}

static void a_change_is_done_again(void **state)
{
	struct place p;
	struct halt *h = open_halting(&p);
	pid_t pid = spawn(set_and_halt, h);

	assert_true(await(&h->there, 1));
	assert_int_equal(shoal_resize(p.cache, 3 * MIB), SHOAL_OK);
	assert_misses(p.k, "a");
	post(&h->go);
	assert_ends_well(pid);
	assert_gives(p.k, "a", "late");
	shoal_close(p.cache);
	unshare_memory(h, sizeof(*h));
}

static void what_is_newer_stays(void **state)
{
	struct place p;
	struct halt *h = open_halting(&p);
	pid_t pid = spawn(set_and_halt, h);

	assert_true(await(&h->there, 1));
	assert_int_equal(shoal_resize(p.cache, 3 * MIB), SHOAL_OK);
	assert_set(p.k, "a", "newer");
	post(&h->go);
	assert_ends_well(pid);
	assert_gives(p.k, "a", "newer");
	shoal_close(p.cache);
	unshare_memory(h, sizeof(*h));
}

static int halting_loader(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	struct halt *h = arg;

	w32_store(&h->armed, (uint32_t)getpid());
	return shoal_load_publish(load, STR("loaded"));
}

static int load_and_halt(void *arg)
{
	struct halt *h = arg;
	struct shoal_value value;

	must(shoal_fetch(h->p->k, STR("a"), halting_loader, h, &value) == SHOAL_OK);
	must(holds(&value, "loaded"));
	shoal_release(&value);
	return 0;
}

/* Z.4 */
static void a_late_load_does_not_come_back(void **state)
{
	struct place p;
	struct halt *h = open_halting(&p);
	pid_t pid = spawn(load_and_halt, h);

	assert_true(await(&h->there, 1));
	assert_int_equal(shoal_resize(p.cache, 3 * MIB), SHOAL_OK);
	assert_int_equal(shoal_delete(p.k, STR("a")), SHOAL_MISS);
	post(&h->go);
	assert_ends_well(pid);
	assert_misses(p.k, "a");
	assert_int_equal(counts_of(p.k).superseded, 1);
	shoal_close(p.cache);
	unshare_memory(h, sizeof(*h));
}

static int resize_when_told(void *arg)
{
	struct child *c = arg;

	must(await(&c->go, 1));
	must(shoal_resize(c->p->cache, 5 * MIB) == SHOAL_OK);
	return 0;
}

/* The resizer in FROZEN, as we don't end a change: what then is done to it. */
static pid_t freeze(struct place *p, struct seat **seat)
{
	uint64_t end = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	struct child *c = share(sizeof(*c));
	pid_t pid;
	int r;

	c->p = p;
	pid = spawn(resize_when_told, c); /* not forked in the midst of a call */
	*seat = handle_change(p->cache, &r);
	assert_non_null(*seat);
	post(&c->go);
	while (MOVED_STATE(w64_load(&segment_now(p->cache)->header->moved)) != FROZEN) {
		assert_true(clock_system_ns(CLOCK_MONOTONIC) < end);
		sched_yield();
	}
	unshare_memory(c, sizeof(*c));
	return pid;
}

static uint64_t time_a_set(struct place *p, const char *text)
{
	uint64_t began = clock_system_ns(CLOCK_MONOTONIC);

	assert_set(p->k, "a", text);
	return (clock_system_ns(CLOCK_MONOTONIC) - began) / 1000000;
}

static void a_stopped_resizer_is_given_up(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct seat *seat;
	uint64_t took;
	pid_t pid;

	assert_set(p.k, "b", "1");
	pid = freeze(&p, &seat);
	kill(pid, SIGSTOP);
	waitpid(pid, NULL, WUNTRACED);
	assert_gives(p.k, "b", "1");       /* Z.1 */
	assert_true(handle_changed(seat)); /* it was not given up */
	took = time_a_set(&p, "2");
	printf("# a set took %" PRIu64 " ms\n", took);
	assert_in_range(took, 500, 2000);
	assert_int_equal(shoal_resize(p.cache, 2 * MIB), SHOAL_ERR_BUSY);
	kill(pid, SIGCONT);
	assert_ends_well(pid);
	assert_gives(p.k, "a", "2");
	assert_int_equal(stats_of(p.cache).size, 5 * MIB);
	close_place(&p);
}

static void a_resizer_killed_in_its_freeze(void **state)
{
	struct place p = open_lasting(NULL, NULL);
	struct seat *seat;
	uint64_t took;
	pid_t pid;

	pid = freeze(&p, &seat);
	rcu_changed(seat);
	handle_leave();
	kill_child(pid);
	if (MOVED_STATE(w64_load(&segment_now(p.cache)->header->moved)) == FROZEN) {
		took = time_a_set(&p, "2");
		printf("# a set took %" PRIu64 " ms\n", took);
		assert_true(took < 800);
	}
	assert_int_equal(shoal_resize(p.cache, 3 * MIB), SHOAL_OK);
	close_place(&p);
}

/* ---- figures ----------------------------------------------------------------------------------------------- */

struct watch {
	const struct header *header;
	word32 stop;
	uint64_t frozen_ns;
};

static void *watch_the_freeze(void *arg)
{
	struct watch *w = arg;
	uint64_t began = 0, word;

	while (!w32_load(&w->stop)) {
		usleep(20);
		word = w64_load(&w->header->moved);
		if (MOVED_STATE(word) == FROZEN && !began)
			began = clock_system_ns(CLOCK_MONOTONIC);
		if (MOVED_STATE(word) == MOVED && began) {
			w->frozen_ns = clock_system_ns(CLOCK_MONOTONIC) - began;
			break;
		}
	}
	return NULL;
}

static int set_for_ever(void *arg)
{
	struct load *l = arg;
	uint64_t n = 0, key;

	while (!w32_load(&l->stop)) {
		key = n++ % 1000;
		must(shoal_set(l->p->k, &key, sizeof(key), &n, sizeof(n)) == SHOAL_OK);
		if (n == 1000)
			post(&l->ready);
		if (n > 1000)
			usleep(50);
	}
	return 0;
}

/* Not judged but for its outcome: how long changes wait. Beside one process that sets. */
static void measure_the_freeze(uint64_t entries)
{
	size_t size = align_up(entries * 100 + 8 * MIB, MIB);
	struct place p =
		open_lasting(NULL, &(struct shoal_config){.size = size, .max_size = 2 * size, .mean_entry = 24});
	struct load *l = share(sizeof(*l));
	struct watch w = {.header = segment_now(p.cache)->header};
	struct shoal_value held; /* keeps the header mapped */
	uint64_t i, began, took;
	pthread_t thread;
	pid_t pid;

	l->p = &p;
	for (i = 0; i < entries; i++)
		assert_int_equal(shoal_set(p.k, &i, sizeof(i), &i, sizeof(i)), SHOAL_OK);
	pid = spawn(set_for_ever, l);
	assert_true(await(&l->ready, 1));
	assert_int_equal(pthread_create(&thread, NULL, watch_the_freeze, &w), 0);
	assert_int_equal(shoal_get(p.k, &(uint64_t){entries - 1}, 8, &held), SHOAL_OK);
	began = clock_system_ns(CLOCK_MONOTONIC);
	assert_int_equal(shoal_resize(p.cache, size + size / 2), SHOAL_OK);
	took = clock_system_ns(CLOCK_MONOTONIC) - began;
	w32_store(&w.stop, 1);
	pthread_join(thread, NULL);
	shoal_release(&held);
	w32_store(&l->stop, 1);
	assert_ends_well(pid);
	printf("# %" PRIu64 " entries: %.1f ms, of which frozen %.2f ms\n", stats_of(p.cache).entries,
	       (double)took / 1e6, (double)w.frozen_ns / 1e6);
	unshare_memory(l, sizeof(*l));
	close_place(&p);
}

static void the_freeze_is_short(void **state)
{
	measure_the_freeze(100000);
	if (getenv("SHOAL_TEST_LARGE"))
		measure_the_freeze(1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_go_along),
		cmocka_unit_test(errors_change_nothing),
		cmocka_unit_test(nothing_else_changes),
		cmocka_unit_test(the_hottest_stay),
		cmocka_unit_test(values_in_hand_stay),
		cmocka_unit_test(counters_go_on),
		cmocka_unit_test(idle_threads_follow),
		cmocka_unit_test(waiters_lead_and_leaders_get_their_value),
		cmocka_unit_test(loads_end_in_their_region),
		cmocka_unit_test(a_loader_may_resize),
		cmocka_unit_test(permits_are_asked_anew),
		cmocka_unit_test(an_idle_child_follows),
		cmocka_unit_test(attaching_and_inspecting),
		cmocka_unit_test(a_scan_goes_on),
		cmocka_unit_test(eight_processes_under_full_load),
		cmocka_unit_test(a_killed_resizer_leaves_nothing),
		cmocka_unit_test(a_killed_resizer_under_load),
		cmocka_unit_test(stopped_workers_hold_up_nobody),
		cmocka_unit_test(a_change_is_done_again),
		cmocka_unit_test(what_is_newer_stays),
		cmocka_unit_test(a_late_load_does_not_come_back),
		cmocka_unit_test(a_stopped_resizer_is_given_up),
		cmocka_unit_test(a_resizer_killed_in_its_freeze),
		cmocka_unit_test(the_freeze_is_short),
	};

	if (getenv("SHOAL_TEST_ONLY"))
		cmocka_set_test_filter(getenv("SHOAL_TEST_ONLY"));
	return cmocka_run_group_tests_name("resize", tests, NULL, NULL);
}
