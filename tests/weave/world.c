/* SPDX-License-Identifier: MIT */
/*
 * The world of a scenario: a segment of some 20 KiB laid out by hand, the private part of each process, and what stands
 * in for floor 0: libc's and the kernel's part of registry.c, futex.c and proc.c. And the audit: what must hold
 * whenever all threads have ended or are dead, whatever happened.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "futex.h"
#include "hash.h"
#include "mapping.h"
#include "proc.h"
#include "world.h"

#undef malloc
#undef calloc
#undef free
#undef memcpy

#define AREA ((size_t)256 << 10)
#define ARENA ((size_t)64 << 10) /* what engine and scripts allocate, of all parties */
#define FACTS 16u
#define NOTES 16u
#define PID_OF(party) (100 + (party))
#define TID_OF(party) (1000u + (party))
#define POISON 0xdb

struct party {
	struct shoal cache;
	struct shoal_keyspace k;
	struct member m;
	struct lineage lineage;
	_Alignas(CACHE_LINE) struct wiped wiped;
	const void *specific;
	struct registry_here here;
	uint64_t notes[NOTES];
};

static _Alignas(PAGE) char area[AREA];

static struct {
	struct segment s;
	size_t shared;    /* of the area: the segment, and with threads of one process all of it */
	size_t segment;
	unsigned threads;
	word64 *facts;
	struct party *parties; /* behind the shared part, like all that is private */
	size_t *used;          /* of the arena */
	char *arena;
	uint32_t max_entry;
} world;

static struct party *party(void)
{
	return &world.parties[weave_me()];
}

/* The first of the threads that are one. */
static unsigned process_of(unsigned who)
{
	return world.threads >> who & 1 ? (unsigned)__builtin_ctz(world.threads) : who;
}

static struct party *process(void)
{
	return &world.parties[process_of(weave_me())];
}

/* ---- libc -------------------------------------------------------------------------------------------------- */

void *weave_getspecific(pthread_key_t key)
{
	return (void *)(uintptr_t)party()->specific;
}

int weave_setspecific(pthread_key_t key, const void *value)
{
	party()->specific = value;
	return 0;
}

static bool in_segment(const volatile void *p)
{
	return (size_t)((const volatile char *)p - area) < world.segment;
}

/* A lock of the process: a thread that dies with one has its process hang, which is so in life. */
int weave_mutex_lock(pthread_mutex_t *m)
{
	word32 *word = (word32 *)(void *)m;

	while (world.threads && !w32_cas(word, 0, TID_OF(weave_me())))
		spin_hint();
	return 0;
}

int weave_mutex_trylock(pthread_mutex_t *m)
{
	word32 *word = (word32 *)(void *)m;
	uint32_t now = w32_peek(word);

	if (now & FUTEX_OWNER_DIED)
		return w32_cas(word, now, TID_OF(weave_me()) | (now & FUTEX_WAITERS)) ? EOWNERDEAD : EBUSY;
	if (now & FUTEX_TID_MASK)
		return EBUSY;
	return w32_cas(word, now, TID_OF(weave_me())) ? 0 : EBUSY;
}

int weave_mutex_unlock(pthread_mutex_t *m)
{
	word32 *word = (word32 *)(void *)m;

	if (!in_segment(m) && !world.threads)
		return 0;
	if (!in_segment(m)) {
		w32_store(word, 0);
		return 0;
	}
	while (!w32_cas(word, w32_peek(word), 0))
		;
	futex_wake(word, 1);
	return 0;
}

ssize_t weave_getrandom(void *to, size_t n, unsigned flags)
{
	memset(to, (int)weave_me() + 1, n);
	return (ssize_t)n;
}

int weave_clock_gettime(clockid_t id, struct timespec *t)
{
	uint64_t now = weave_clock();

	*t = (struct timespec){.tv_sec = (time_t)(now / 1000000000u), .tv_nsec = (long)(now % 1000000000u)};
	return 0;
}

void *weave_calloc(size_t n, size_t size)
{
	size_t at = *world.used;

	*world.used += align_up(n * size, 16);
	if (*world.used > ARENA) {
		fprintf(stderr, "weave: the arena is full\n");
		abort();
	}
	return memset(world.arena + at, 0, n * size);
}

void weave_free(void *p)
{
}

/* ---- kernel ------------------------------------------------------------------------------------------------ */

long weave_syscall(long n, ...)
{
	va_list list;
	void **head;

	va_start(list, n);
	if (n == SYS_get_robust_list) {
		(void)va_arg(list, int);
		head = va_arg(list, void **);
		*head = area;
	}
	if (n == SYS_membarrier && va_arg(list, int) == MEMBARRIER_CMD_GLOBAL_EXPEDITED)
		weave_barrier();
	va_end(list);
	return n == SYS_gettid ? TID_OF(weave_me()) : 0;
}

void futex_wait(const word32 *a, uint32_t a_seen, const word32 *b, uint32_t b_seen, uint64_t deadline_ns)
{
	weave_sleep(a, a_seen, b, b_seen, deadline_ns);
}

/* Of a thread that is never started here. */
void futex_wait_any(const struct futex_word *words, unsigned n, uint64_t deadline_ns)
{
	abort();
}

int futex_wake(const word32 *w, int n)
{
	return weave_wake(w, n);
}

uint64_t proc_self(void)
{
	return (uint64_t)1 << 22 | PID_OF(process_of(weave_me()));
}

int proc_is_dead(uint64_t identity, uint64_t self)
{
	unsigned who = PROC_PID(identity) - PID_OF(0), i;
	bool dead = who < WEAVE_THREADS;

	weave_life(0);
	for (i = 0; i < WEAVE_THREADS; i++)
		dead = dead && (process_of(i) != who || weave_is_dead(i));
	weave_observe(dead);
	return dead ? PROC_DEAD : PROC_ALIVE;
}

uint64_t proc_boot_id(void)
{
	return 1;
}

int proc_use_membarrier(void)
{
	return 0;
}

uint64_t proc_clock_id(void)
{
	return 0;
}

/* The robust list of a dead thread: each lock is marked, and one sleeper woken. */
static void thread_died(unsigned who)
{
	uint32_t i, word;

	for (i = 0; i < world.s.geometry.readers; i++) {
		memcpy(&word, &world.s.alive[i].mutex, sizeof(word));
		if ((word & FUTEX_TID_MASK) != TID_OF(who))
			continue;
		weave_set(&world.s.alive[i].mutex, 4, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
		weave_wake(&world.s.alive[i].mutex, 1);
	}
}

static void switched(unsigned from, unsigned to)
{
	if (from == to) {
		registry_here_cache = (struct registry_here){0, NULL};
		return;
	}
	world.parties[from].here = registry_here_cache;
	registry_here_cache = world.parties[to].here;
}

/* ---- what the scheduler asks ------------------------------------------------------------------------------- */

static bool within(const void *p, const void *begin, size_t size)
{
	return (size_t)((const char *)p - (const char *)begin) < size;
}

static bool is_quiet(const void *p)
{
	const struct segment *s = &world.s;
	uint32_t i;

	for (i = 0; i < s->geometry.keyspaces; i++)
		if (within(p, s->keyspaces[i].counters,
			   sizeof(struct keyspace) - offsetof(struct keyspace, counters)))
			return true;
	return within(p, &s->header->evicted_cold,
	              offsetof(struct header, ghost_bytes) - offsetof(struct header, evicted_cold)) ||
	       within(p, s->lines, s->geometry.lines * sizeof(struct line)) || within(p, &s->header->lines_used, 4);
}

static bool is_life(const void *p)
{
	const struct segment *s = &world.s;

	return within(p, s->alive, s->geometry.readers * sizeof(struct alive)) &&
	       ((const char *)p - (const char *)s->alive) % sizeof(struct alive) == 0;
}

static int content(const void *p)
{
	const struct segment *s = &world.s;

	return within(p, s->log, (size_t)s->geometry.extents * s->geometry.extent_size)
		       ? (int)(((const char *)p - s->log) / s->geometry.extent_size)
		       : -1;
}

static size_t in_use(void)
{
	return (size_t)(world.arena - area) + *world.used;
}

static uint64_t word_now(uint32_t x)
{
	uint64_t word;

	memcpy(&word, &world.s.extents[x].word, sizeof(word));
	return word;
}

/* E.3: whoever evicts it and announces it, alive, has it. */
static void keep_off(uint32_t x, uint64_t before)
{
	const struct seat *seat;
	uint64_t word;
	unsigned i;

	for (i = 0; i < WEAVE_THREADS; i++) {
		seat = world.parties[i].specific;
		if (i == weave_me() || weave_is_dead(i) || !seat || !seat->reader ||
		    seat->index != EXTENT_OWNER(before))
			continue;
		memcpy(&word, &seat->reader->words[WALKING], sizeof(word));
		if ((uint32_t)word == x + 1)
			weave_fail("E.3: extent %u is taken from thread %u, which evicts it", x, i);
	}
}

/* E.2: what is freed is overwritten at once. */
static void written(const void *p, uint64_t before, uint64_t value)
{
	const struct segment *s = &world.s;
	uint32_t x;

	if (!within(p, s->extents, s->geometry.extents * sizeof(struct extent)) ||
	    ((const char *)p - (const char *)s->extents) % sizeof(struct extent))
		return;
	x = (uint32_t)(((const char *)p - (const char *)s->extents) / sizeof(struct extent));
	if (EXTENT_STATE(before) == EXTENT_EVICTING)
		keep_off(x, before);
	if (EXTENT_STATE(value) != EXTENT_FREE)
		return;
	memset(extent_bytes(s, x), POISON, s->geometry.extent_size);
	weave_touch(x, value);
}

static void copied(const void *p, size_t n, bool write)
{
	uint32_t x = (uint32_t)content(p);
	enum extent_state state = EXTENT_STATE(word_now(x));

	if (state == EXTENT_FREE)
		weave_fail("E.2: %s extent %u, which is FREE", write ? "writes into" : "reads", x);
	if (write && state == EXTENT_RETIRED)
		weave_fail("E.1: writes into extent %u, which is RETIRED", x);
}

static void spell(const void *p, char *text, size_t n)
{
	const struct segment *s = &world.s;
	const struct {
		const char *name;
		const void *at;
		size_t size, count;
	} areas[] = {
		{"header", s->header, sizeof(struct header), 1},
		{"alive", s->alive, sizeof(struct alive), s->geometry.readers},
		{"process", s->processes, sizeof(struct process), s->geometry.processes},
		{"reader", s->readers, sizeof(struct reader), s->geometry.readers},
		{"flight word", s->flight_words, sizeof(word64), s->geometry.flights},
		{"flight", s->flights, sizeof(struct flight), s->geometry.flights},
		{"permit", s->permits, sizeof(struct permit), s->geometry.readers},
		{"keyspace", s->keyspaces, sizeof(struct keyspace), s->geometry.keyspaces},
		{"extent", s->extents, sizeof(struct extent), s->geometry.extents},
		{"ghosts", s->ghosts, sizeof(struct ghosts), s->geometry.ghosts},
		{"bucket", s->index, sizeof(struct bucket), s->geometry.buckets},
		{"log of extent", s->log, s->geometry.extent_size, s->geometry.extents},
		{"fact", world.facts, sizeof(word64), FACTS},
	};
	size_t i, at;

	snprintf(text, n, "private %p", p);
	for (i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		if (!within(p, areas[i].at, areas[i].size * areas[i].count))
			continue;
		at = (size_t)((const char *)p - (const char *)areas[i].at);
		snprintf(text, n, "%s %zu + %zu", areas[i].name, at / areas[i].size, at % areas[i].size);
	}
}

/* ---- the segment ------------------------------------------------------------------------------------------- */

static void *take(size_t *at, size_t size)
{
	size_t begin = *at;

	*at = align_up(begin + size, CACHE_LINE);
	if (*at > AREA) {
		fprintf(stderr, "weave: the area is too small\n");
		abort();
	}
	return area + begin;
}

static void lay_out(const struct weave_config *c, size_t *at)
{
	struct segment *s = &world.s;
	struct geometry *g = &s->geometry;

	*s = (struct segment){.base = area, .fd = -1};
	*g = (struct geometry){
		.processes = c->processes ? c->processes : WEAVE_PARTIES,
		.readers = c->readers ? c->readers : WEAVE_PARTIES,
		.flights = c->flights ? c->flights : 2,
		.keyspaces = 1,
		.lines = 8,
		.heads = 2,
		.extents = c->extents ? c->extents : 4,
		.extent_size = c->extent_size ? c->extent_size : 1024,
		.buckets = 64,
		.ghosts = 1,
		.max_loads = c->max_loads,
		.seed = 5,
	};
	g->max_entry = g->extent_size - 128;
	s->header = take(at, sizeof(struct header));
	s->alive = take(at, g->readers * sizeof(struct alive));
	s->processes = take(at, g->processes * sizeof(struct process));
	s->readers = take(at, g->readers * sizeof(struct reader));
	s->flight_words = take(at, align_up(g->flights, FLIGHT_GROUP) * sizeof(word64));
	s->flights = take(at, g->flights * sizeof(struct flight));
	s->permits = take(at, g->readers * sizeof(struct permit));
	s->keyspaces = take(at, sizeof(struct keyspace));
	s->lines = take(at, g->lines * sizeof(struct line));
	s->extents = take(at, g->extents * sizeof(struct extent));
	s->ghosts = take(at, sizeof(struct ghosts));
	s->index = take(at, g->buckets * sizeof(struct bucket));
	g->log_at = *at;
	s->log = take(at, (size_t)g->extents * g->extent_size);
	g->size = *at;
	world.facts = take(at, FACTS * sizeof(word64));
	s->fence = c->fence;
	s->clock.read = clock_gettime;
	segment_prepare(s);
	s->header->geometry = *g;
}

static void furnish(struct party *p, const struct weave_config *c)
{
	p->m.segment = world.s;
	p->m.wiped = &p->wiped;
	p->m.lineage = &p->lineage;
	w32_store(&p->m.users, 1);
	w32_store(&p->wiped.ours, 1);
	p->cache.member = &p->m;
	p->k.cache = &p->cache;
	p->k.policy = (struct shoal_policy){
		.fresh_ms = c->fresh_ms ? c->fresh_ms : 60000,
		.stale_ms = c->stale_ms,
		.retry_ms = 1000,
		.wait_ms = 5000,
		.lease_ms = c->lease_ms ? c->lease_ms : 30000,
	};
	handle_prepare(&p->k, &world.s);
}

static void join(unsigned who)
{
	int r;

	weave_act_as(who);
	if (!handle_enter(weave_cache(), &r))
		weave_fail("cannot join: %d", r);
	weave_act_as(WEAVE_OBSERVER);
}

void weave_world(const struct weave_scenario *scenario, struct weave_area *a)
{
	size_t at = 0;
	unsigned i;

	memset(area, 0, sizeof(area));
	lay_out(&scenario->config, &at);
	world.shared = world.segment = at;
	world.threads = scenario->config.threads;
	world.parties = take(&at, WEAVE_PARTIES * sizeof(struct party));
	world.used = take(&at, sizeof(size_t));
	world.arena = take(&at, ARENA);
	for (i = 0; i < WEAVE_PARTIES; i++)
		furnish(&world.parties[i], &scenario->config);
	if (world.threads)
		world.shared = at;
	*a = (struct weave_area){
		.base = area,
		.shared = world.shared,
		.size = at,
		.keys = world.s.geometry.extents,
		.is_quiet = is_quiet,
		.is_life = is_life,
		.written = written,
		.copied = copied,
		.switched = switched,
		.died = thread_died,
		.spell = spell,
		.content = content,
		.in_use = in_use,
	};
	registry_here_cache = (struct registry_here){0, NULL};
}

void weave_join(const struct weave_scenario *scenario)
{
	unsigned i;

	for (i = 0; i < WEAVE_THREADS; i++)
		if ((scenario->thread[i] || scenario->corpses >> i & 1) && !(scenario->joins >> i & 1))
			join(i);
}

/* ---- for scripts ------------------------------------------------------------------------------------------- */

struct shoal *weave_cache(void)
{
	return &process()->cache;
}

struct shoal_keyspace *weave_keyspace(void)
{
	return &process()->k;
}

struct seat *weave_seat(void)
{
	int r;
	struct seat *seat = handle_enter(weave_cache(), &r);

	if (!seat)
		weave_fail("no seat: %d", r);
	return seat;
}

const struct segment *weave_segment(void)
{
	return &world.s;
}

struct key weave_key(const char *text)
{
	struct key key;

	store_key(weave_keyspace(), text, strlen(text), &key);
	return key;
}

word64 *weave_fact(unsigned i)
{
	return &world.facts[i];
}

uint64_t *weave_note(unsigned thread, unsigned i)
{
	return &world.parties[thread].notes[i];
}

static uint64_t bytes_of(uint32_t value)
{
	return (uint64_t)~value << 32 | value;
}

int weave_put(const char *key, uint32_t value)
{
	uint64_t bytes[2] = {bytes_of(value), bytes_of(value)};

	return shoal_set(weave_keyspace(), key, strlen(key), bytes, sizeof(bytes));
}

int weave_publish(struct shoal_load *load, uint32_t value)
{
	uint64_t bytes[2] = {bytes_of(value), bytes_of(value)};

	return shoal_load_publish(load, bytes, sizeof(bytes));
}

uint32_t weave_value(const struct shoal_value *value)
{
	uint64_t a, b;

	if (!value->data)
		return 0;
	if (value->size != 16)
		weave_fail("E.2: a value of %zu bytes", value->size);
	a = weave_read(value->data);
	b = weave_read((const char *)value->data + 8);
	if (a != b || a != bytes_of((uint32_t)a))
		weave_fail("E.2: a torn value: %016llx %016llx", (unsigned long long)a, (unsigned long long)b);
	return (uint32_t)a;
}

uint32_t weave_get(const char *key, uint64_t *generation)
{
	struct shoal_value value;
	uint32_t n;
	int r = shoal_get(weave_keyspace(), key, strlen(key), &value);

	if (r < 0)
		weave_fail("get: %d", r);
	n = weave_value(&value);
	if (generation)
		*generation = value.generation;
	shoal_release(&value);
	return n;
}

static bool slot_of(uint32_t i, const struct key *k, struct log_entry *e)
{
	uint64_t word;

	memcpy(&word, &world.s.index[i / BUCKET_SLOTS].slots[i % BUCKET_SLOTS], sizeof(word));
	return SLOT_IS_USED(word) && log_read(&world.s, SLOT_BYTES(word), e) &&
	       (!k || (e->key_size == k->size && !memcmp(e->key, k->data, k->size)));
}

unsigned weave_count(const char *text)
{
	struct key k = weave_key(text);
	struct log_entry e;
	uint32_t i, n = 0;

	for (i = 0; i < index_slots(&world.s); i++)
		n += slot_of(i, &k, &e);
	return n;
}

uint64_t weave_newest(const char *text)
{
	struct key k = weave_key(text);
	struct log_entry e;
	uint64_t newest = 0, offset;
	uint32_t x, at;

	for (x = 0; x < world.s.geometry.extents; x++) {
		if (EXTENT_STATE(word_now(x)) == EXTENT_FREE)
			continue;
		for (at = 0; log_next(&world.s, x, &at, &offset);)
			if (log_read(&world.s, offset, &e) && e.key_size == k.size && !memcmp(e.key, k.data, k.size))
				newest = max_u64(newest, e.entry->generation);
	}
	return newest;
}

uint64_t weave_write(const char *text, uint32_t value)
{
	struct key k = weave_key(text);
	struct seat *seat = weave_seat();
	const struct segment *s = &world.s;
	uint64_t bytes[2] = {bytes_of(value), bytes_of(value)}, offset;
	struct lives lives = {60000, 0, 0};
	bool opened = false;

	if (log_append(seat, WRITING, LOG_PROBATION, (uint32_t)log_length(s, k.size, 16), &offset, &opened))
		weave_fail("no room for an entry");
	memcpy(store_value_at(s, offset, &k), bytes, 16);
	store_fill(s, offset, &k, segment_draw(s), weave_now_ns() / 1000000, &lives, STORED(CODEC_NONE, 16), 0, 0,
	           NULL);
	rcu_clear(seat, WRITING);
	return offset;
}

void weave_duplicate(const char *text, uint32_t value)
{
	struct key k = weave_key(text);
	const struct segment *s = &world.s;
	uint64_t offset = weave_write(text, value);
	struct index_target target = {0};
	uint32_t i;

	for (i = 0; i < index_slots(s) && !target.slot; i++) {
		struct bucket *b = &s->index[i / BUCKET_SLOTS];
		struct log_entry e;

		if (slot_of(i, &k, &e)) {
			for (target.slot = &b->slots[0]; SLOT_IS_USED(w64_load(target.slot)); target.slot++)
				;
			target.expected = w64_load(target.slot);
		}
	}
	if (!target.slot ||
	    !index_commit(s, &target, index_word(&k, offset, 0), (uint32_t)log_length(s, k.size, 16), UINT64_MAX))
		weave_fail("no slot for a duplicate");
}

void weave_hit(const char *text)
{
	struct key k = weave_key(text);
	struct seat *seat = weave_seat();
	struct index_hit hit = {0};

	if (!index_find(seat, &k, WANT_NEWEST, READING, OTHER, &hit) || !index_touch(&world.s, hit.slot, hit.word))
		weave_fail("%s cannot be hit", text);
	rcu_clear(seat, READING);
}

void weave_seal_heads(void)
{
	struct seat *seat = weave_seat();
	unsigned i, kind;

	for (kind = 0; kind < LOGS; kind++)
		for (i = 0; i < HEADS_MAX; i++)
			w64_store(&world.s.header->heads[kind][i], 0);
	log_sweep(seat);
}

void weave_occupy(uint32_t from)
{
	const struct segment *s = &world.s;
	struct seat *seat;
	uint32_t x;

	weave_act_as(WEAVE_OBSERVER);
	seat = weave_seat();
	for (x = from; x < s->geometry.extents; x++) {
		extents_move(seat, x, word_now(x), EXTENT_OPEN);
		w64_store(&s->extents[x].lock, seat->tag | (seat->index + 1));
	}
	weave_act_as(0);
}

/* ---- audit ------------------------------------------------------------------------------------------------- */

/* The index and the log: every slot points to an entry of an extent that is in use, and is counted there. */
static void audit_log(void)
{
	const struct segment *s = &world.s;
	uint32_t i, x, entries[16] = {0};
	uint64_t live[16] = {0};
	struct log_entry e;

	for (i = 0; i < index_slots(s); i++) {
		uint64_t word = w64_load(&s->index[i / BUCKET_SLOTS].slots[i % BUCKET_SLOTS]);

		if (!SLOT_IS_USED(word))
			continue;
		if (!slot_of(i, NULL, &e)) {
			weave_fail("I.4: slot %u points to no entry", i);
			return;
		}
		x = extent_of(s, SLOT_BYTES(word));
		if (EXTENT_STATE(word_now(x)) == EXTENT_FREE || EXTENT_STATE(word_now(x)) == EXTENT_RETIRED)
			weave_fail("E.2: slot %u points into extent %u, which is in state %d", i, x,
			           EXTENT_STATE(word_now(x)));
		entries[x]++;
		live[x] += e.length;
	}
	for (x = 0; x < s->geometry.extents; x++) {
		if (EXTENT_STATE(word_now(x)) == EXTENT_FREE || EXTENT_STATE(word_now(x)) == EXTENT_RETIRED)
			continue;
		if (EXTENT_ENTRIES(w64_load(&s->extents[x].counts)) < entries[x] ||
		    EXTENT_LIVE(w64_load(&s->extents[x].counts)) < live[x])
			weave_fail("E.5: extent %u counts %u entries, %u are there", x,
			           EXTENT_ENTRIES(w64_load(&s->extents[x].counts)), entries[x]);
	}
}

/* Nobody alive has anything announced but pins of values in hand, which scripts release; no load is counted. */
static void audit_readers(void)
{
	unsigned i, word;

	for (i = 0; i < WEAVE_THREADS; i++) {
		struct seat *seat = (struct seat *)(uintptr_t)world.parties[i].specific;

		if (!seat || !seat->reader || weave_is_dead(i))
			continue;
		for (word = 0; word < READER_WORDS; word++)
			if (w64_load(&seat->reader->words[word]))
				weave_fail("thread %u left an announcement in word %u", i, word);
		if (w32_load(&seat->loads))
			weave_fail("thread %u left %u loads counted", i, w32_load(&seat->loads));
		if (life_ref(seat->member, seat->index) != (seat->tag | (seat->index + 1)))
			weave_fail("R.2: thread %u lost its slot", i);
		if (w64_load(&world.s.processes[seat->member->wiped->process].owner) != seat->member->wiped->identity)
			weave_fail("R.2: process %u lost its slot", i);
	}
}

void weave_audit(void)
{
	audit_log();
	audit_readers();
}

/* Values in hand belong to the process: they keep the slot of a thread that has died in one that lives (recover.c). */
static bool keeps_pins(unsigned who, const struct seat *dead)
{
	bool lives = false;
	unsigned i, word;

	for (i = 0; i < WEAVE_THREADS; i++)
		lives |= process_of(i) == process_of(who) && !weave_is_dead(i);
	for (word = PINS; lives && word < READER_WORDS; word++)
		if (w64_load(&dead->reader->words[word]))
			return true;
	return false;
}

void weave_recover(void)
{
	const struct segment *s = &world.s;
	struct seat *seat = weave_seat();
	uint32_t i;

	if (!seat)
		return;
	recover_all(seat->member);
	log_sweep(seat);
	for (i = 0; i < WEAVE_THREADS; i++) {
		const struct seat *dead = world.parties[i].specific;

		if (!weave_is_dead(i) || (dead && dead->reader && keeps_pins(i, dead)))
			continue;
		if (dead && dead->reader && life_ref(seat->member, dead->index) == (dead->tag | (dead->index + 1)))
			weave_fail("R.2: the reader slot of the dead thread %u is not freed", i);
	}
	for (i = 0; i < s->geometry.extents; i++) {
		if (w64_load(&s->extents[i].lock) && w64_load(&s->extents[i].lock) != (seat->tag | (seat->index + 1)))
			weave_fail("L.1: extent %u is locked for ever", i);
		if (EXTENT_STATE(word_now(i)) == EXTENT_EVICTING)
			weave_fail("E.3: extent %u is being evicted for ever", i);
	}
	for (i = 0; i < s->geometry.flights; i++)
		if ((w64_load(&s->flight_words[i]) & 15) == FLIGHT_PUBLISHING)
			weave_fail("F.3: flight %u is being published for ever", i);
	if (weave_put("new", 77) || weave_get("new", NULL) != 77)
		weave_fail("nothing can be stored after the recovery");
	weave_audit();
}
