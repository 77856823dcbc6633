/* SPDX-License-Identifier: MIT */
/*
 * The hash table in shared memory that people write themselves: chains, one lock around all of it, values written over
 * in place. It has room for every key, and evicts nothing. Its users bring the lock.
 */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#include "../loops.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct node {
	uint64_t next; /* offset, 0: none */
	uint32_t size, room;
	char key[KEY_SIZE];
	uint32_t hash;
	char value[];
};

struct table {
	union {
		pthread_rwlock_t rwlock;
		pthread_mutex_t mutex;
		char line[128];
	};
	uint64_t mask, used, size;
	uint64_t heads[];
};

static inline struct table *table_new(const struct workload *w)
{
	uint64_t heads = 64, size;
	struct table *t;

	while (heads < w->keys)
		heads *= 2;
	size = sizeof(*t) + heads * 8 + w->keys * (sizeof(struct node) + 64ull) + w->value_bytes;
	t = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (t == MAP_FAILED)
		return NULL;
	t->mask = heads - 1;
	t->size = size;
	t->used = (sizeof(*t) + heads * 8 + 63) & ~63ull;
	return t;
}

static inline struct node *table_find(struct table *t, const char *key, uint64_t hash)
{
	uint64_t at = t->heads[hash & t->mask];

	while (at) {
		struct node *n = (struct node *)((char *)t + at);

		if (n->hash == (uint32_t)(hash >> 32) && !memcmp(n->key, key, KEY_SIZE))
			return n;
		at = n->next;
	}
	return NULL;
}

static inline size_t table_get(struct table *t, const char *key, void *buffer)
{
	struct node *n = table_find(t, key, XXH3_64bits(key, KEY_SIZE));

	if (!n)
		return 0;
	memcpy(buffer, n->value, n->size);
	return n->size;
}

static inline int table_set(struct table *t, const char *key, const void *value, size_t size)
{
	uint64_t hash = XXH3_64bits(key, KEY_SIZE), *head = &t->heads[hash & t->mask];
	struct node *n = table_find(t, key, hash);

	if (!n) {
		n = (struct node *)((char *)t + t->used);
		if (t->used + sizeof(*n) + size > t->size)
			return -1;
		*n = (struct node){.next = *head, .room = (uint32_t)size, .hash = (uint32_t)(hash >> 32)};
		memcpy(n->key, key, KEY_SIZE);
		*head = t->used;
		t->used = (t->used + sizeof(*n) + size + 63) & ~63ull;
	}
	if (size > n->room)
		return -1;
	memcpy(n->value, value, size);
	n->size = (uint32_t)size;
	return 0;
}

#endif
