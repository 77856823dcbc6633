/* SPDX-License-Identifier: MIT */
/*
 * The origin in SQLite: one file, opened read-only and mapped, so that what a query costs is its own computation.
 */
#include "origin.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sqlite_origin {
	struct origin base;
	sqlite3 *db;
	sqlite3_stmt *query;
};

static int complain(sqlite3 *db, const char *what)
{
	fprintf(stderr, "sqlite: %s: %s\n", what, db ? sqlite3_errmsg(db) : "out of memory");
	return -1;
}

static int fill(sqlite3 *db)
{
	char sql[768];

	/* Rows lie in category order (WITHOUT ROWID: the table is its primary key), items are spread at random. */
	snprintf(sql, sizeof(sql),
	         "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; %s WITHOUT ROWID;"
	         "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d),"
	         "	h(i, x) AS (SELECT i, i * 2654435761 %% 4294967296 FROM n)"
	         "INSERT INTO line_items SELECT i / %d, i %% %d, x / 64 %% %d * %d + i / %d,"
	         "	x / 4096 %% 20000, 1 + x / 1048576 %% 5, 199 + x / 256 %% 9800 FROM h;",
	         origin_table_text, ORIGIN_CATEGORIES * ORIGIN_CATEGORY_ROWS - 1, ORIGIN_CATEGORY_ROWS,
	         ORIGIN_CATEGORY_ROWS, ORIGIN_CATEGORY_ITEMS, ORIGIN_CATEGORIES, ORIGIN_CATEGORY_ROWS);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return complain(db, "build");
	return 0;
}

static int sqlite_build(const char *path)
{
	char part[4096];
	sqlite3 *db = NULL;
	int rc;

	if (!access(path, R_OK))
		return 0;
	snprintf(part, sizeof(part), "%s.%d", path, (int)getpid());
	rc = sqlite3_open(part, &db) == SQLITE_OK ? fill(db) : complain(db, part);
	if (sqlite3_close(db) != SQLITE_OK)
		rc = -1;
	if (!rc && rename(part, path)) {
		fprintf(stderr, "sqlite: %s: %s\n", path, strerror(errno));
		rc = -1;
	}
	if (rc)
		unlink(part);
	return rc;
}

static void sqlite_close(struct origin *base)
{
	struct sqlite_origin *origin = (struct sqlite_origin *)base;

	sqlite3_finalize(origin->query);
	sqlite3_close(origin->db);
	free(origin);
}

static struct origin *sqlite_open(const char *path)
{
	struct sqlite_origin *origin = calloc(1, sizeof(*origin));

	if (!origin)
		return NULL;
	origin->base.driver = &origin_sqlite;
	if (sqlite3_open_v2(path, &origin->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
	    sqlite3_exec(origin->db, "PRAGMA mmap_size = 268435456; PRAGMA cache_size = -16000", NULL, NULL, NULL) ||
	    sqlite3_prepare_v2(origin->db, origin_query_text, -1, &origin->query, NULL) != SQLITE_OK) {
		complain(origin->db, path);
		sqlite_close(&origin->base);
		return NULL;
	}
	return &origin->base;
}

static int sqlite_query(struct origin *base, int64_t category, int64_t item, struct origin_report *report)
{
	struct sqlite_origin *origin = (struct sqlite_origin *)base;
	sqlite3_stmt *query = origin->query;
	int rc = 0;

	sqlite3_bind_int64(query, sqlite3_bind_parameter_index(query, "$1"), category);
	sqlite3_bind_int64(query, sqlite3_bind_parameter_index(query, "$2"), item);
	if (sqlite3_step(query) == SQLITE_ROW)
		*report = (struct origin_report){
			.category = category,
			.units = sqlite3_column_int64(query, 0),
			.revenue_cents = sqlite3_column_int64(query, 1),
			.buyers = sqlite3_column_int64(query, 2),
			.place = sqlite3_column_int64(query, 3),
			.category_cents = sqlite3_column_int64(query, 4),
		};
	else
		rc = complain(origin->db, "query");
	sqlite3_reset(query);
	return rc;
}

const struct origin_driver origin_sqlite = {
	.name = "sqlite",
	.build = sqlite_build,
	.open = sqlite_open,
	.query = sqlite_query,
	.close = sqlite_close,
};
