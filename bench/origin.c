/* SPDX-License-Identifier: MIT */
/*
 * The origin: what both databases share, and the choice between them.
 */
#include "origin.h"

#include <stdio.h>
#include <string.h>

const char origin_table_text[] =
	"CREATE TABLE line_items ("
	"	category_id INTEGER NOT NULL,"
	"	id INTEGER NOT NULL,"
	"	item_id INTEGER NOT NULL,"
	"	customer_id INTEGER NOT NULL,"
	"	quantity INTEGER NOT NULL,"
	"	price_cents INTEGER NOT NULL,"
	"	PRIMARY KEY (category_id, id))";

const char origin_query_text[] =
	"SELECT units, revenue, buyers, place, category_revenue FROM ("
	"	SELECT item_id,"
	"		SUM(quantity) AS units,"
	"		SUM(quantity * price_cents) AS revenue,"
	"		COUNT(DISTINCT customer_id) AS buyers,"
	"		RANK() OVER (ORDER BY SUM(quantity * price_cents) DESC) AS place,"
	"		SUM(SUM(quantity * price_cents)) OVER () AS category_revenue"
	"	FROM line_items WHERE category_id = $1 GROUP BY item_id) AS ranked "
	"WHERE item_id = $2";

static const struct origin_driver *const drivers[] = {
	&origin_sqlite,
#ifdef WITH_POSTGRES
	&origin_postgres,
#endif
};

static const struct origin_driver *driver_of(const char *spec, const char **where)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++) {
		size_t n = strlen(drivers[i]->name);

		if (!strncmp(spec, drivers[i]->name, n) && spec[n] == ':') {
			*where = spec + n + 1;
			return drivers[i];
		}
	}
	fprintf(stderr, "no such origin in this build: %s\n", spec);
	return NULL;
}

int origin_build(const char *spec)
{
	const char *where;
	const struct origin_driver *driver = driver_of(spec, &where);

	return driver ? driver->build(where) : -1;
}

struct origin *origin_open(const char *spec)
{
	const char *where;
	const struct origin_driver *driver = driver_of(spec, &where);

	return driver ? driver->open(where) : NULL;
}

int origin_query(struct origin *origin, uint64_t id, struct origin_report *report)
{
	int64_t item = (int64_t)(id % ORIGIN_ITEMS);

	return origin->driver->query(origin, item % ORIGIN_CATEGORIES, item, report);
}

void origin_close(struct origin *origin)
{
	if (origin)
		origin->driver->close(origin);
}
