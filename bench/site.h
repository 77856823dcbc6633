/* SPDX-License-Identifier: MIT */
/*
 * What the demo server's master and workers share: the configuration, inherited through fork(), and the board, a page
 * of shared memory for what only the demo wants to know.
 *
 *	board field      written by                                read by
 *	queries          worker: +1 before each query              /stats
 *	failures         worker: +1 after a failed one             /stats
 *	hot_item         worker, on POST /kill/N?item=ID           workers
 *	hot_load         worker: mine at the start of a query for  master, before it kills and after a death
 *	                 hot_item, 0 at its end by CAS
 *	hot_ended        worker: mine at the end of that query      master, after it killed
 *	kill_asked       worker, on the same, after it             master
 *	new_keys         worker, on POST /new-keys                 workers, before each look-up
 *	epoch, ..._before worker, after expiring, or new_keys      /stats
 *	kill_done, ...   master                                    /stats
 *
 * All of it is counted, none of it decides about a value, so every access is relaxed. A worker may die anywhere: a
 * query that it began stays counted, and never gets to be hot_ended, which is how the master knows that it died in it.
 */
#ifndef SITE_H
#define SITE_H

#include <shoal.h>
#include <stdatomic.h>
#include <stdint.h>

#define MAX_WORKERS 64

enum mode {
	MODE_NONE,  /* every request is a query */
	MODE_HABIT, /* get, else query and set; expiring is deleting, and the next readers refill */
	MODE_SHOAL, /* fetch: one query per key, stale values meanwhile */
};

struct board {
	_Atomic uint64_t queries, failures;
	_Atomic uint64_t hot_item;
	_Atomic uint64_t hot_load, hot_ended; /* pid << 32 | a number that differs from load to load */
	_Atomic uint32_t kill_asked, kill_done;
	_Atomic uint32_t killed_loading; /* of those killed, how many died in a query for the hot item */
	_Atomic uint32_t respawned;
	_Atomic uint32_t new_keys; /* the deploy: all workers build the keys in the new way from now on */
	_Atomic uint32_t epoch;    /* of the hit rate: what was looked up before the last such event is not in it */
	_Atomic uint64_t hits_before[2], lookups_before[2]; /* by version */
};

#define board_get(board, field) atomic_load_explicit(&(board)->field, memory_order_relaxed)
#define board_set(board, field, to) atomic_store_explicit(&(board)->field, to, memory_order_relaxed)
#define board_add(board, field) atomic_fetch_add_explicit(&(board)->field, 1, memory_order_relaxed)

struct site {
	enum mode mode;
	const char *mode_name;
	const char *origin; /* spec for origin_open() */
	unsigned workers, connections;
	unsigned segment_mb, max_loads;
	int no_fallback; /* the new keys begin cold in MODE_SHOAL, too */
	int listen_fd;
	pid_t master;
	struct board *board;
	struct shoal *cache; /* NULL in MODE_NONE */
	struct shoal_keyspace *items[2]; /* by version: old keys, new keys */
};

/* A worker's whole life; returns its exit status. */
int worker_run(struct site *site);

#endif
