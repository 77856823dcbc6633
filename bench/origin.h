/* SPDX-License-Identifier: MIT */
/*
 * The origin: a real database behind the demo's pages.
 *
 * One table of order lines, 24 categories of 60,000 rows each. The page of an item shows where it stands in its
 * category, so its query reads the category's 60,000 rows, groups, counts distinct buyers and ranks: 20-100 ms of
 * honest work, the same text and (as the rows come from one arithmetic formula) the same answer in both databases.
 *
 * A connection belongs to one thread and is opened after fork().
 */
#ifndef ORIGIN_H
#define ORIGIN_H

#include <stdint.h>

#define ORIGIN_CATEGORIES 24
#define ORIGIN_CATEGORY_ROWS 60000
#define ORIGIN_CATEGORY_ITEMS 833
#define ORIGIN_ITEMS (ORIGIN_CATEGORIES * ORIGIN_CATEGORY_ITEMS)

struct origin_report {
	int64_t category;
	int64_t units, revenue_cents, buyers; /* of the item */
	int64_t place, category_cents;        /* its rank in the category, and the category's revenue */
};

struct origin_driver;
struct origin {
	const struct origin_driver *driver;
};

/* What a database has to do. 0 done, -1 failed and said so on stderr. */
struct origin_driver {
	const char *name;
	int (*build)(const char *where); /* create table and rows unless they are there; all or nothing */
	struct origin *(*open)(const char *where);
	int (*query)(struct origin *origin, int64_t category, int64_t item, struct origin_report *report);
	void (*close)(struct origin *origin);
};

extern const struct origin_driver origin_sqlite, origin_postgres;
extern const char origin_query_text[]; /* $1 = category, $2 = item */
extern const char origin_table_text[];

/* `spec` is driver:where, as "sqlite:/path/to.db" or "postgres:host=/run/x port=5432". */
int origin_build(const char *spec);
struct origin *origin_open(const char *spec);
int origin_query(struct origin *origin, uint64_t id, struct origin_report *report); /* any id: the items repeat */
void origin_close(struct origin *origin);

#endif
