/* SPDX-License-Identifier: MIT */
/*
 * The page of one item, in three ways.
 *
 * The habit uses the same segment as shoal does, as a plain cache: get, set, delete. So what differs between the two
 * is coalescing and the stale generation, and nothing else.
 */
#include "item.h"
#include "origin.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_LEAST 256 /* room for the text of any page */
#define NEW_PREFIX "v2:"
#define NEW_PREFIX_SIZE (sizeof(NEW_PREFIX) - 1)

/* A key, and the keyspace that it belongs to: read once, as the deploy may come at any time. */
struct item_key {
	struct shoal_keyspace *keyspace;
	size_t size;
	char text[40];
};

static pthread_key_t connections;

static void close_connection(void *origin)
{
	origin_close(origin);
}

int item_init(void)
{
	return pthread_key_create(&connections, close_connection);
}

static struct origin *connection(struct site *site)
{
	struct origin *origin = pthread_getspecific(connections);

	if (!origin) {
		origin = origin_open(site->origin);
		pthread_setspecific(connections, origin);
	}
	return origin;
}

static struct item_key key_of(const struct site *site, uint64_t id)
{
	unsigned new_keys = board_get(site->board, new_keys) != 0;
	struct item_key key = {.keyspace = site->items[new_keys]};

	key.size = (size_t)snprintf(key.text, sizeof(key.text), "%sitem:%llu", new_keys ? NEW_PREFIX : "",
	                            (unsigned long long)id);
	return key;
}

int item_old_key(const void *key, size_t key_size, void *buffer, size_t capacity, size_t *size, void *arg)
{
	if (key_size <= NEW_PREFIX_SIZE || key_size - NEW_PREFIX_SIZE > capacity)
		return -1;
	*size = key_size - NEW_PREFIX_SIZE;
	memcpy(buffer, (const char *)key + NEW_PREFIX_SIZE, *size);
	return 0;
}

static uint64_t load_mark(void)
{
	static _Atomic uint32_t loads;

	return (uint64_t)getpid() << 32 | (uint32_t)(atomic_fetch_add(&loads, 1) + 1);
}

/* The one place where the database is asked. */
static int query(struct site *site, uint64_t id, struct origin_report *report)
{
	struct board *board = site->board;
	struct origin *origin = connection(site);
	uint64_t mark = 0;
	int rc;

	board_add(board, queries);
	if (id == board_get(board, hot_item)) {
		mark = load_mark();
		board_set(board, hot_load, mark);
	}
	rc = origin ? origin_query(origin, id, report) : -1;
	if (rc)
		board_add(board, failures);
	if (mark) {
		board_set(board, hot_ended, mark);
		atomic_compare_exchange_strong(&board->hot_load, &mark, 0);
	}
	return rc ? EIO : 0;
}

/* The text, then spaces up to `size`: a trace says how large its objects are. */
static size_t render(uint64_t id, const struct origin_report *report, char *page, size_t size)
{
	int n = snprintf(page, size,
	                 "{\"item\":%llu,\"category\":%lld,\"units\":%lld,\"revenue_cents\":%lld,\"buyers\":%lld,"
	                 "\"place\":%lld,\"category_cents\":%lld}\n",
	                 (unsigned long long)id, (long long)report->category, (long long)report->units,
	                 (long long)report->revenue_cents, (long long)report->buyers, (long long)report->place,
	                 (long long)report->category_cents);

	memset(page + n, ' ', size - (size_t)n);
	return size;
}

static int get_by_query(struct site *site, uint64_t id, size_t size, struct item_page *page)
{
	struct origin_report report;

	if (query(site, id, &report))
		return SHOAL_ERR_LOAD;
	page->own = malloc(size);
	if (!page->own)
		return SHOAL_ERR_SYSTEM;
	page->size = render(id, &report, page->own, size);
	page->data = page->own;
	return 0;
}

static int get_by_habit(struct site *site, uint64_t id, size_t size, struct item_page *page)
{
	struct item_key key = key_of(site, id);
	int rc;

	if (shoal_get(key.keyspace, key.text, key.size, &page->value) == SHOAL_OK) {
		page->data = page->value.data;
		page->size = page->value.size;
		return 0;
	}
	rc = get_by_query(site, id, size, page);
	if (!rc)
		shoal_set(key.keyspace, key.text, key.size, page->data, page->size); /* not stored = a miss next time */
	return rc;
}

struct load {
	struct site *site;
	uint64_t id;
	size_t size;
};

static int load_item(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct load *item = arg;
	struct origin_report report;
	char *space;

	if (query(item->site, item->id, &report))
		return EIO;
	space = shoal_load_reserve(load, item->size);
	if (!space)
		return errno;
	return shoal_load_commit(load, render(item->id, &report, space, item->size));
}

static int get_by_shoal(struct site *site, uint64_t id, size_t size, struct item_page *page)
{
	struct load load = {.site = site, .id = id, .size = size};
	struct item_key key = key_of(site, id);
	int rc = shoal_fetch(key.keyspace, key.text, key.size, load_item, &load, &page->value);

	page->data = page->value.data;
	page->size = page->value.size;
	return rc;
}

int item_get(struct site *site, uint64_t id, size_t size, struct item_page *page)
{
	if (size < PAGE_LEAST)
		size = PAGE_LEAST;
	memset(page, 0, sizeof(*page));
	switch (site->mode) {
	case MODE_HABIT:
		return get_by_habit(site, id, size, page);
	case MODE_SHOAL:
		return get_by_shoal(site, id, size, page);
	default:
		return get_by_query(site, id, size, page);
	}
}

void item_release(struct item_page *page)
{
	shoal_release(&page->value);
	free(page->own);
	page->own = NULL;
}

/* The baseline is read first: counters only rise. */
void item_hits(struct site *site, struct item_hits *hits)
{
	struct shoal_keyspace_stats stats = {0};
	unsigned new_keys = board_get(site->board, new_keys) != 0;
	uint64_t hits_before = board_get(site->board, hits_before[new_keys]);
	uint64_t lookups_before = board_get(site->board, lookups_before[new_keys]);

	hits->epoch = board_get(site->board, epoch);
	if (site->cache)
		shoal_keyspace_stats(site->items[new_keys], &stats);
	hits->migrated = stats.migrated;
	hits->hits = stats.hits_fresh + stats.hits_stale + stats.migrated - hits_before;
	hits->lookups = hits->hits + hits_before + stats.misses - lookups_before;
}

/* What was hit until now would hide for a while what is missed from now on. */
static void begin_epoch(struct site *site)
{
	unsigned new_keys = board_get(site->board, new_keys) != 0;
	struct item_hits hits;

	item_hits(site, &hits);
	board_set(site->board, hits_before[new_keys], hits.hits + board_get(site->board, hits_before[new_keys]));
	board_set(site->board, lookups_before[new_keys],
	          hits.lookups + board_get(site->board, lookups_before[new_keys]));
	board_add(site->board, epoch);
}

void item_use_new_keys(struct site *site)
{
	board_set(site->board, new_keys, 1); /* their counters begin at nothing */
	board_add(site->board, epoch);
}

struct sweep {
	struct site *site;
	int count;
};

static int expire_one(const struct shoal_entry *entry, void *arg)
{
	struct sweep *sweep = arg;
	struct shoal_keyspace *items = sweep->site->items[entry->version - 1];

	if (sweep->site->mode == MODE_HABIT)
		shoal_delete(items, entry->key.data, entry->key.size);
	else
		shoal_expire(items, entry->key.data, entry->key.size);
	sweep->count++;
	return 0;
}

int item_expire_all(struct site *site)
{
	struct sweep sweep = {.site = site};
	int rc = site->cache ? shoal_scan(site->cache, "items", expire_one, &sweep) : 0;

	begin_epoch(site);
	return rc ? rc : sweep.count;
}

int item_forget(struct site *site, uint64_t id)
{
	struct item_key key = key_of(site, id);

	return site->cache ? shoal_delete(key.keyspace, key.text, key.size) : SHOAL_MISS;
}
