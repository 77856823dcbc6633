/* SPDX-License-Identifier: MIT */
/*
 * A small segment with a bit of everything in it, an image of it to go back to, and a script of operations that knows
 * what each key may show. Whatever byte is changed in between: a key shows the value it was given last, or none.
 *
 * Time begins anew with each script, so that nothing of the image gets old.
 */
#ifndef SHOAL_TEST_SCENE_H
#define SHOAL_TEST_SCENE_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "handle.h"

#define SCENE_KEYS 96u       /* that the image has; as many more are used by scripts */
#define SCENE_VALUE 9000u    /* bytes at most; most are shorter */
#define SCENE_BEGAN 100000u  /* s, on the scene's clock */

struct scene {
	struct shoal *cache;
	struct shoal_keyspace *k, *other;
	const struct segment *s;
	word64 *began_ns;
	char *image;
	uint64_t versions;                /* given out */
	uint64_t may[2 * SCENE_KEYS];     /* the version that each key may show; 0: none */
	char wrong[256];
	bool lenient;                     /* any version that is whole will do */
};

static inline uint64_t scene_now(void *began)
{
	return SCENE_BEGAN * UINT64_C(1000000000) + clock_system_ns(CLOCK_MONOTONIC) - w64_load(began);
}

/* ---- values ------------------------------------------------------------------------------------------------ */

struct scene_value {
	uint64_t key, version, size;
	unsigned char pattern[SCENE_VALUE];
};

static inline uint64_t scene_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static inline size_t scene_size(uint64_t key, uint64_t version)
{
	uint64_t x = scene_mix(key * 1000003 + version);

	if (key >= SCENE_KEYS)
		return 24 + x % 3500;
	return 24 + (x % 8 ? x % 700 : x % 3000);
}

/* Bytes that count up from any number. */
static unsigned char scene_ramp[512];

static inline const unsigned char *scene_pattern(uint64_t key, uint64_t version)
{
	size_t i;

	for (i = 0; !scene_ramp[1] && i < sizeof(scene_ramp); i++)
		scene_ramp[i] = (unsigned char)i;
	return scene_ramp + (unsigned char)(key + version * 7);
}

static inline size_t scene_make(struct scene_value *v, uint64_t key, uint64_t version)
{
	const unsigned char *pattern = scene_pattern(key, version);
	size_t i, n = scene_size(key, version);

	v->key = key;
	v->version = version;
	v->size = n;
	for (i = 0; i < n - 24; i += 256)
		memcpy(v->pattern + i, pattern, min_u64(n - 24 - i, 256));
	return n;
}

/* The version that it shows; 0: it is none of the key's. */
static inline uint64_t scene_version(const void *data, size_t size, uint64_t key)
{
	const struct scene_value *v = data;
	const unsigned char *pattern;
	uint64_t head[3];
	size_t i;

	if (size < 24 || size > sizeof(*v))
		return 0;
	memcpy(head, data, 24);
	if (head[0] != key || head[2] != size || scene_size(key, head[1]) != size)
		return 0;
	pattern = scene_pattern(key, head[1]);
	for (i = 0; i < size - 24; i += 256)
		if (memcmp(v->pattern + i, pattern, min_u64(size - 24 - i, 256)))
			return 0;
	return head[1];
}

static inline size_t scene_key(char text[64], uint64_t key)
{
	return (size_t)snprintf(text, 64, "key-%" PRIu64 "%.*s", key, (int)(key % 24), "........................");
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static __attribute__((format(printf, 2, 3))) bool scene_wrong(struct scene *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (!c->wrong[0])
		vsnprintf(c->wrong, sizeof(c->wrong), format, args);
	va_end(args);
	return false;
}

static inline bool scene_judge(struct scene *c, const char *how, uint64_t key, const void *data, size_t size)
{
	uint64_t version = scene_version(data, size, key);

	return (version && (version == c->may[key] || c->lenient)) ||
	       scene_wrong(c, "%s: key %" PRIu64 " shows version %" PRIu64 " in %zu bytes, may show %" PRIu64, how, key,
	                   version, size, c->may[key]);
}

static inline bool scene_get(struct scene *c, uint64_t key)
{
	struct shoal_value v;
	char name[64];
	size_t n = scene_key(name, key);
	int r = shoal_get(c->k, name, n, &v);
	bool right = r == SHOAL_MISS || r == SHOAL_ERR_LIMIT ||
		     (r == SHOAL_OK ? scene_judge(c, "get", key, v.data, v.size)
				    : scene_wrong(c, "get: key %" PRIu64 ": %s", key, shoal_strerror(r)));

	shoal_release(&v);
	return right;
}

static inline bool scene_set(struct scene *c, uint64_t key)
{
	struct scene_value v;
	char name[64];
	size_t size = scene_make(&v, key, ++c->versions);
	int r = shoal_set(c->k, name, scene_key(name, key), &v, size);

	if (r == SHOAL_ERR_LIMIT)
		return true;
	c->may[key] = r == SHOAL_OK ? v.version : 0;
	return r == SHOAL_OK || r == SHOAL_ERR_NO_SPACE || r == SHOAL_ERR_TOO_BIG ||
	       scene_wrong(c, "set: key %" PRIu64 ": %s", key, shoal_strerror(r));
}

static inline bool scene_delete(struct scene *c, uint64_t key)
{
	char name[64];
	int r = shoal_delete(c->k, name, scene_key(name, key));

	if (r == SHOAL_ERR_LIMIT)
		return true;
	c->may[key] = 0;
	return r == SHOAL_OK || r == SHOAL_MISS ||
	       scene_wrong(c, "delete: key %" PRIu64 ": %s", key, shoal_strerror(r));
}

static inline bool scene_expire(struct scene *c, uint64_t key)
{
	char name[64];
	int r = shoal_expire(c->k, name, scene_key(name, key));

	return r == SHOAL_OK || r == SHOAL_MISS || r == SHOAL_ERR_LIMIT ||
	       scene_wrong(c, "expire: key %" PRIu64 ": %s", key, shoal_strerror(r));
}

struct scene_load {
	struct scene *c;
	uint64_t key, version;
};

static inline int scene_loader(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	struct scene_load *l = arg;
	struct scene_value v;
	void *space;

	size = scene_make(&v, l->key, l->version = ++l->c->versions);
	if (l->key % 3)
		return shoal_load_publish(load, &v, size);
	space = shoal_load_reserve(load, size);
	if (!space)
		return 1;
	memcpy(space, &v, size);
	return shoal_load_commit(load, size);
}

/* Whatever the flights say, the caller gets a value, or is told that another loads, or that loading failed. */
static inline bool scene_fetch(struct scene *c, uint64_t key)
{
	struct scene_load l = {c, key, 0};
	struct shoal_value v;
	char name[64];
	int r = shoal_fetch(c->k, name, scene_key(name, key), scene_loader, &l, &v);
	bool right;

	if (l.version)
		c->may[key] = l.version;
	if (r == SHOAL_OK)
		right = scene_judge(c, "fetch", key, v.data, v.size);
	else
		right = r == SHOAL_ERR_TIMEOUT || r == SHOAL_ERR_LOAD || r == SHOAL_ERR_BUSY || r == SHOAL_ERR_LIMIT ||
			scene_wrong(c, "fetch: key %" PRIu64 ": %s", key, shoal_strerror(r));
	shoal_release(&v);
	return right;
}

static inline int scene_visit(const struct shoal_entry *e, void *arg)
{
	struct scene *c = arg;

	if (e->size > c->s->geometry.max_entry)
		scene_wrong(c, "scan: an entry of %zu bytes", e->size);
	return memchr(e->keyspace, 0, NAME_SIZE) ? 0 : 1;
}

static inline bool scene_look(struct scene *c, bool check)
{
	struct shoal_keyspace_stats ks;
	struct shoal_stats stats;

	shoal_scan(c->cache, NULL, scene_visit, c);
	shoal_keyspace_stats(c->k, &ks);
	shoal_stats(c->cache, &stats);
	if (stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_overhead != stats.size)
		scene_wrong(c, "the bytes do not add up");
	shoal_reap(c->cache);
	if (check)
		shoal_check(c->cache, NULL, NULL);
	return !c->wrong[0];
}

/* Values in hand stay what they are, while enough is set to turn the whole log over. */
static inline bool scene_turn_over(struct scene *c, unsigned sets)
{
	struct shoal_value held[4];
	char name[64];
	uint64_t i, key;
	int r[4];

	for (i = 0; i < 4; i++) {
		key = (c->versions + i * 29) % SCENE_KEYS;
		r[i] = shoal_get(c->k, name, scene_key(name, key), &held[i]);
		if (!r[i] && !scene_judge(c, "get", key, held[i].data, held[i].size))
			break;
	}
	for (i = 0; i < sets && scene_set(c, SCENE_KEYS + i % SCENE_KEYS); i++)
		if (!scene_get(c, SCENE_KEYS + i * 7 % SCENE_KEYS))
			break;
	for (i = 0; i < 4; i++) {
		key = (c->versions - sets + i * 29) % SCENE_KEYS;
		if (r[i] == SHOAL_OK &&
		    !scene_version(held[i].data, held[i].size, ((const struct scene_value *)held[i].data)->key))
			scene_wrong(c, "a value changed in hand");
		shoal_release(&held[i]);
	}
	return !c->wrong[0];
}

/* All of it, by a process of its own or not. With turns also the log's, and a check of what became of it. */
static inline bool scene_script(struct scene *c, unsigned turns)
{
	struct shoal_keyspace *again;
	uint64_t i;

	for (i = 0; i < SCENE_KEYS; i++)
		if (!scene_get(c, i))
			return false;
	for (i = 0; i < SCENE_KEYS; i += 5)
		if (!scene_set(c, i) || !scene_get(c, i) || !scene_delete(c, i + 1) || !scene_get(c, i + 1) ||
		    !scene_expire(c, i + 2) || !scene_get(c, i + 2) ||
		    (i % 4 == 0 && (!scene_fetch(c, i + 1) || !scene_get(c, i + 1))))
			return false;
	shoal_keyspace_open(c->cache, "third", 1, NULL, &again);
	if (!scene_look(c, false))
		return false;
	if (turns && !scene_turn_over(c, turns))
		return false;
	for (i = 0; i < 2 * SCENE_KEYS; i++)
		if (!scene_get(c, i))
			return false;
	return scene_look(c, turns != 0);
}

/* ---- the image --------------------------------------------------------------------------------------------- */

/* Lies in shared memory: who forks saves it, a child restores it. */
static inline bool scene_save(struct scene *c)
{
	size_t size = c->s->geometry.size;

	if (!c->image) {
		c->image = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (c->image == MAP_FAILED)
			return false;
	}
	memcpy(c->image, c->s->base, size);
	return true;
}

/* What must be as the image says, and every word that a process waits on. Nobody else is there. */
static inline void scene_restore(struct scene *c)
{
	size_t at, size = c->s->geometry.size;

	for (at = 0; at < size; at += PAGE)
		if (memcmp(c->s->base + at, c->image + at, PAGE))
			memcpy(c->s->base + at, c->image + at, PAGE);
	w64_store(c->began_ns, clock_system_ns(CLOCK_MONOTONIC));
}

/* The alive words are glibc's, and exempt (registry.c, R.5). */
static inline bool scene_is_exempt(const struct scene *c, uint64_t at)
{
	return at >= c->s->geometry.alive_at && at < c->s->geometry.processes_at;
}

static const struct shoal_policy scene_policy __attribute__((unused)) = {
	.fresh_ms = SHOAL_FOREVER,
	.stale_ms = SHOAL_FOREVER,
	.wait_ms = 20,
	.retry_ms = 1,
	.lease_ms = SHOAL_FOREVER / 2,
	.jitter_permille = SHOAL_NONE,
	.early = -1,
};

/* `began` is shared with whoever forks. The log is turned over once, so that no state is missing. */
static inline bool scene_open(struct scene *c, word64 *began)
{
	struct shoal_config config = {
		.size = 1 << 20,
		.max_entry = 4096,
		.mean_entry = 1500,
		.max_processes = 8,
		.max_threads = 12,
		.max_flights = 24,
		.max_keyspaces = 4,
		.max_loads = 3,
		.flags = SHOAL_CHECKSUM,
		.clock = scene_now,
		.clock_arg = began,
	};
	unsigned i;

	memset(c, 0, sizeof(*c));
	c->began_ns = began;
	w64_store(began, clock_system_ns(CLOCK_MONOTONIC));
	if (shoal_open(NULL, &config, &c->cache) || shoal_keyspace_open(c->cache, "scene", 1, &scene_policy, &c->k) ||
	    shoal_keyspace_open(c->cache, "other", 2, &scene_policy, &c->other))
		return false;
	c->s = &c->cache->member->segment;
	for (i = 0; i < 30 * SCENE_KEYS; i++)
		if (!scene_set(c, i % (2 * SCENE_KEYS)) || !scene_get(c, i * 7 % (2 * SCENE_KEYS)))
			return false;
	shoal_keyspace_expire(c->other);
	shoal_keyspace_delete(c->other);
	for (i = SCENE_KEYS; i < 2 * SCENE_KEYS; i++)
		scene_delete(c, i);
	for (i = 0; i < SCENE_KEYS; i++)
		if (!scene_set(c, i) || !scene_get(c, i))
			return false;
	return true;
}

#endif
