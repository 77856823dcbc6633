/* SPDX-License-Identifier: MIT */
/*
 * Concurrency Kit's hash table (one writer at a time, readers beside it) in the memory of one process, with its epochs
 * for what was replaced.
 */
#include "../loops.h"

#include <ck_epoch.h>
#include <ck_ht.h>
#include <ck_spinlock.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct item {
	ck_epoch_entry_t entry;
	uint32_t size;
	char key[KEY_SIZE];
	char value[];
};

struct state {
	ck_ht_t table;
	ck_epoch_t epoch;
	ck_spinlock_t writer;
};

static struct state table; /* one to a process: a host has one peer */
static __thread ck_epoch_record_t *record;

static void *ck_malloc(size_t size)
{
	return malloc(size);
}

static void ck_free(void *p, size_t size, bool defer)
{
	if (!defer) /* else a reader may be in it: a table that is grown while it is read is not given back */
		free(p);
}

static struct ck_malloc allocator = {.malloc = ck_malloc, .free = ck_free};

static void hash(struct ck_ht_hash *h, const void *key, size_t size, uint64_t seed)
{
	h->value = XXH3_64bits_withSeed(key, size, seed);
}

static void item_free(ck_epoch_entry_t *entry)
{
	free((char *)entry - offsetof(struct item, entry));
}

static int join(struct worker *worker)
{
	record = malloc(sizeof(*record));
	ck_epoch_register(&table.epoch, record, NULL);
	return 0;
}

static int ck_open(const struct peer_setup *setup, void **state)
{
	ck_epoch_init(&table.epoch);
	ck_spinlock_init(&table.writer);
	*state = &table;
	if (!ck_ht_init(&table.table, CK_HT_MODE_BYTESTRING, hash, &allocator, setup->workload->keys * 2ull, 1))
		return -1;
	return join(NULL);
}

static int put(const char *key, const void *value, size_t size)
{
	struct item *item = malloc(sizeof(*item) + size);
	ck_ht_entry_t entry;
	ck_ht_hash_t h;
	bool done;

	if (!item)
		return -1;
	item->size = (uint32_t)size;
	memcpy(item->key, key, KEY_SIZE);
	memcpy(item->value, value, size);
	ck_ht_hash(&h, &table.table, item->key, KEY_SIZE);
	ck_ht_entry_set(&entry, h, item->key, KEY_SIZE, item);
	ck_spinlock_lock(&table.writer);
	done = ck_ht_set_spmc(&table.table, h, &entry);
	ck_spinlock_unlock(&table.writer);
	if (!done)
		return -1;
	if (!ck_ht_entry_empty(&entry) && ck_ht_entry_value(&entry) != item) {
		struct item *old = ck_ht_entry_value(&entry);

		ck_epoch_call(record, &old->entry, item_free);
		ck_epoch_poll(record);
	}
	return 0;
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	return put(key, value, size);
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	ck_ht_entry_t entry;
	ck_ht_hash_t h;
	size_t size = 0;

	ck_ht_hash(&h, &table.table, r->key, KEY_SIZE);
	ck_ht_entry_key_set(&entry, r->key, KEY_SIZE);
	ck_epoch_begin(record, NULL);
	if (ck_ht_get_spmc(&table.table, h, &entry)) {
		const struct item *item = ck_ht_entry_value(&entry);

		size = item->size;
		memcpy(buffer, item->value, size);
	}
	ck_epoch_end(record, NULL);
	return size;
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	return put(r->key, value, size);
}

PEER_MANY(many, get)
PEER_RUN(run, get, set, many)

const struct peer peer_ck = {
	.name = "ck-ht",
	.what = "Concurrency Kit ck_ht with ck_epoch, threads",
	.flags = PEER_THREADS,
	.open = ck_open,
	.join = join,
	.set = fill,
	.get = get,
	.run = run,
};
