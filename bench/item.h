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
