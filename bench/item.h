/* SPDX-License-Identifier: MIT */
/*
 * The page of one item: got from the database, through a plain cache, or through shoal, as the site's mode says.
 */
#ifndef ITEM_H
#define ITEM_H

#include "site.h"

#include <stddef.h>

struct item_page {
	const char *data;
	size_t size;
	struct shoal_value value; /* holds `data` when it came from the cache */
	char *own;                /* holds it otherwise */
};

/* How a key was spelt before the deploy: a shoal_old_key. */
int item_old_key(const void *key, size_t key_size, void *buffer, size_t capacity, size_t *size, void *arg);

/* Look-ups in all workers since all items expired or the new keys came, by the keys in use. A value that is carried
 * over is a hit: nobody waited for a query. */
struct item_hits {
	uint32_t epoch;
	uint64_t hits, lookups, migrated;
};
void item_hits(struct site *site, struct item_hits *hits);

/* The deploy: from now on all workers build the keys in the new way. */
void item_use_new_keys(struct site *site);

/* Once, before the first thread: each thread gets its own connection to the origin, closed when the thread ends. */
int item_init(void);

/* The page of `id`, padded to `size` bytes. 0, or an error of shoal.h: *page is to be released after 0. */
int item_get(struct site *site, uint64_t id, size_t size, struct item_page *page);
void item_release(struct item_page *page);

/* All cached items expire, in the way of the mode: deleted by habit, stale in shoal. Returns how many, or an error. */
int item_expire_all(struct site *site);

/* The item is gone from the cache. */
int item_forget(struct site *site, uint64_t id);

#endif
