/* SPDX-License-Identifier: MIT */
/*
 * The origin in PostgreSQL: the same rows and the same query, one backend process per connection.
 */
#include "origin.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

#define STATEMENT "rank"

struct postgres_origin {
	struct origin base;
	PGconn *connection;
};

static int complain(PGconn *connection, const char *what)
{
	fprintf(stderr, "postgres: %s: %s", what, PQerrorMessage(connection));
	return -1;
}

static int execute(PGconn *connection, const char *sql)
{
	PGresult *result = PQexec(connection, sql);
	ExecStatusType status = PQresultStatus(result);

	PQclear(result);
	return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : complain(connection, "statement");
}

static PGconn *connect_to(const char *where)
{
	PGconn *connection = PQconnectdb(where);

	if (PQstatus(connection) == CONNECTION_OK)
		return connection;
	complain(connection, "connect");
	PQfinish(connection);
	return NULL;
}

/* One transaction: the table is there with all its rows, or not at all. */
static int fill(PGconn *connection)
{
	char sql[768];

	snprintf(sql, sizeof(sql),
	         "BEGIN; %s;"
	         "INSERT INTO line_items SELECT i / %d, i %% %d, x / 64 %% %d * %d + i / %d,"
	         "	x / 4096 %% 20000, 1 + x / 1048576 %% 5, 199 + x / 256 %% 9800 "
	         "FROM (SELECT i, i * 2654435761 %% 4294967296 AS x FROM generate_series(0::bigint, %d) AS i) AS h;"
	         "COMMIT",
	         origin_table_text, ORIGIN_CATEGORY_ROWS, ORIGIN_CATEGORY_ROWS, ORIGIN_CATEGORY_ITEMS,
	         ORIGIN_CATEGORIES, ORIGIN_CATEGORY_ROWS, ORIGIN_CATEGORIES * ORIGIN_CATEGORY_ROWS - 1);
	return execute(connection, sql) || execute(connection, "VACUUM ANALYZE line_items") ? -1 : 0;
}

static int postgres_build(const char *where)
{
	PGconn *connection = connect_to(where);
	PGresult *result;
	int rc;

	if (!connection)
		return -1;
	result = PQexec(connection, "SELECT to_regclass('line_items') IS NOT NULL");
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		rc = complain(connection, "look for the table");
	else
		rc = PQgetvalue(result, 0, 0)[0] == 't' ? 0 : fill(connection);
	PQclear(result);
	PQfinish(connection);
	return rc;
}

static void postgres_close(struct origin *base)
{
	struct postgres_origin *origin = (struct postgres_origin *)base;

	PQfinish(origin->connection);
	free(origin);
}

static struct origin *postgres_open(const char *where)
{
	struct postgres_origin *origin = calloc(1, sizeof(*origin));
	PGresult *result;
	ExecStatusType status;

	if (!origin)
		return NULL;
	origin->base.driver = &origin_postgres;
	origin->connection = connect_to(where);
	if (!origin->connection) {
		free(origin);
		return NULL;
	}
	/* One query = one core, as with SQLite. */
	if (!execute(origin->connection,
	             "SET max_parallel_workers_per_gather = 0; SET jit = off; SET work_mem = '32MB'")) {
		result = PQprepare(origin->connection, STATEMENT, origin_query_text, 2, NULL);
		status = PQresultStatus(result);
		PQclear(result);
		if (status == PGRES_COMMAND_OK)
			return &origin->base;
		complain(origin->connection, "prepare");
	}
	postgres_close(&origin->base);
	return NULL;
}

static int64_t number(const PGresult *result, int column)
{
	return strtoll(PQgetvalue(result, 0, column), NULL, 10);
}

static int postgres_query(struct origin *base, int64_t category, int64_t item, struct origin_report *report)
{
	struct postgres_origin *origin = (struct postgres_origin *)base;
	char first[24], second[24];
	const char *const values[] = {first, second};
	PGresult *result;
	int rc = 0;

	snprintf(first, sizeof(first), "%lld", (long long)category);
	snprintf(second, sizeof(second), "%lld", (long long)item);
	result = PQexecPrepared(origin->connection, STATEMENT, 2, values, NULL, NULL, 0);
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
		*report = (struct origin_report){
			.category = category,
			.units = number(result, 0),
			.revenue_cents = number(result, 1),
			.buyers = number(result, 2),
			.place = number(result, 3),
			.category_cents = number(result, 4),
		};
	else
		rc = complain(origin->connection, "query");
	PQclear(result);
	return rc;
}

const struct origin_driver origin_postgres = {
	.name = "postgres",
	.build = postgres_build,
	.open = postgres_open,
	.query = postgres_query,
	.close = postgres_close,
};
