/* SPDX-License-Identifier: MIT */
/*
 * shoal-redis: a second level behind the loader, in a Redis that several machines share.
 *
 * shoal_redis_load() is a loader (shoal.h) around your own. What the machine's segment has not is looked for in Redis
 * first, by the one process of the machine that loads the key; what isn't there either is loaded by one machine, while
 * the others wait for its value or go on with the stale one. Values keep their age: what is left of its lives is what a
 * machine takes over, so that staleness doesn't add up over the levels.
 *
 * Redis is never needed. A server that is gone, slow, full or wrong is a miss that costs a load `budget_ms` at most;
 * after some of them in a row the machine doesn't ask for a while.
 *
 * Conventions are those of shoal.h: results, structs, units. Handles work in a child of fork(), which opens connections
 * of its own; every function may be called by any thread. No call needs SIGPIPE to be ignored.
 * Not for Redis Cluster, nor by TLS.
 */
#ifndef SHOAL_REDIS_H
#define SHOAL_REDIS_H

#include <shoal.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the server -------------------------------------------------------------------------------------------- */

struct shoal_redis_config {
	const char *socket;    /* path of a unix socket; else: */
	const char *host;      /* default 127.0.0.1. A name is looked up whenever a connection is opened, and that is
	                          not bounded by the budget: give an address where it matters */
	unsigned port;         /* default 6379 */
	unsigned database;
	const char *user;      /* of ACLs; default none */
	const char *password;  /* default none */
	const char *prefix;    /* of all keys in Redis; default "shoal:" */
	uint32_t budget_ms;    /* what Redis may add to a load, all its commands together; default 50 */
	uint32_t wait_ms;      /* how long to wait for another machine's load; default the policy's wait_ms */
	uint32_t lease_ms;     /* of the lock on a key in Redis, longer than the slowest load;
	                          default the policy's lease_ms */
	uint32_t recheck_ms;   /* a stale value that another machine refreshes is not asked for again so long;
	                          default 50 */
	unsigned failures;     /* in a row, of this program and its forked children, until Redis is left alone;
	                          default 3 */
	uint32_t cool_down_ms; /* for so long, doubled by each failure after that, up to 16 times; default 1 000 */
	uint32_t reserved32;
	size_t max_value;      /* larger ones are not stored in Redis; default 1 MiB */
	shoal_log *log;        /* told when Redis is left alone, and when it is back; NULL = silence */
	void *log_arg;
	uint64_t reserved[8];
};

struct shoal_redis;
struct shoal_redis_keyspace;

/*
 * A second level for `cache`. Opens no connection: each is opened by the process that needs it, when it does. Strings
 * are copied; config NULL = all defaults. Takes a keyspace "shoal.redis" of the cache, in which its processes tell each
 * other that the server fails. Errors: INVALID, SYSTEM, and those of shoal_keyspace_open().
 */
int shoal_redis_open(struct shoal *cache, const struct shoal_redis_config *config, struct shoal_redis **redis);

/* Close this process's connections, and free the handle and its keyspaces. Before shoal_close(); no other thread may be
 * inside a call on it. NULL is harmless. */
void shoal_redis_close(struct shoal_redis *redis);

/*
 * For a program's start: is the server there, does it take the password, may its scripts run? One connection of its
 * own, within budget_ms; whatever else failed before. On an error `why`, if not NULL, says it in one line.
 * TIMEOUT, SYSTEM (errno), PERMISSION (the password, or an ACL), INVALID (the server says no for another reason).
 */
int shoal_redis_check(struct shoal_redis *redis, char *why, size_t capacity);

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

/*
 * shoal_keyspace_open() of the cache, and the same name, version and policy in Redis. Its lives and its schema go into
 * what is stored there. Freed with `redis`.
 */
int shoal_redis_keyspace_open(struct shoal_redis *redis, const char *name, uint32_t version,
                              const struct shoal_policy *policy, struct shoal_redis_keyspace **keyspace);

/* The keyspace in the cache, for the calls of shoal.h. */
struct shoal_keyspace *shoal_redis_keyspace(struct shoal_redis_keyspace *keyspace);

/*
 * shoal_delete() and shoal_expire() in Redis and then in this machine's cache. A load that is under way on any machine
 * can't store the old value in Redis any more, and its machine doesn't keep it. Values that other machines have already
 * are theirs until their fresh life ends: choose it for that. MISS: no value in either.
 * Negative: Redis may still have the value. It is gone from this machine's cache all the same,
 * but may come back from there.
 */
int shoal_redis_delete(struct shoal_redis_keyspace *keyspace, const void *key, size_t key_size);
int shoal_redis_expire(struct shoal_redis_keyspace *keyspace, const void *key, size_t key_size);

/* ---- loading ----------------------------------------------------------------------------------------------- */

struct shoal_redis_fill;

/*
 * Your loader, behind both levels. It is as a shoal_loader, but publishes by the functions below: what it publishes has
 * to get into Redis before the waiters of this machine see it, and a struct shoal_load can't be looked into.
 */
typedef int shoal_redis_source(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg);

/* What shoal_redis_load() gets as its `arg`. One may serve any number of calls at once; the caller's. */
struct shoal_redis_loader {
	struct shoal_redis_keyspace *keyspace;
	shoal_redis_source *source;
	void *arg;
	uint64_t reserved[4];
};

/*
 * The loader, wherever shoal.h takes one: shoal_fetch(), shoal_keyspace_refresher() (what its `setup` makes is a struct
 * shoal_redis_loader), shoal_warm_keys() (whose `arg` is for `next` as well: let the struct begin yours); also with the
 * load of a shoal_begin(), which it ends if it returns 0. In that keyspace only. It blocks: for budget_ms at most, and
 * for wait_ms while another machine loads the key. In it a thread can be cancelled inside `source` alone.
 */
int shoal_redis_load(struct shoal_load *load, const void *key, size_t key_size, void *loader);

/* As shoal_load_publish(), _reserve(), _commit(), _keep(), _ttl(), _error_ttl(), _uncacheable() and _renew(), which
 * also holds on to the lock in Redis. What is uncacheable is not stored in Redis, either. */
int shoal_redis_publish(struct shoal_redis_fill *fill, const void *data, size_t size);
void *shoal_redis_reserve(struct shoal_redis_fill *fill, size_t size);
int shoal_redis_commit(struct shoal_redis_fill *fill, size_t size);
int shoal_redis_keep(struct shoal_redis_fill *fill);
void shoal_redis_ttl(struct shoal_redis_fill *fill, uint32_t fresh_ms, uint32_t stale_ms);
void shoal_redis_error_ttl(struct shoal_redis_fill *fill, uint32_t error_ms);
void shoal_redis_uncacheable(struct shoal_redis_fill *fill, uint32_t for_ms);
int shoal_redis_renew(struct shoal_redis_fill *fill);

/* The value that is to be replaced, from this machine's cache or from Redis; data NULL: none.
 * Valid until the load ends. */
struct shoal_slice shoal_redis_previous(struct shoal_redis_fill *fill);

/* ---- observation ------------------------------------------------------------------------------------------- */

/* Of this handle, in all processes that were forked since it was opened. */
struct shoal_redis_stats {
	uint64_t loads;       /* that came here; each counted in one of the next seven */
	uint64_t hits;        /* fresh in Redis */
	uint64_t waited;      /* of another machine's load, and got it */
	uint64_t stale;       /* a stale value of Redis, which another machine refreshes */
	uint64_t led;         /* loaded here, with the lock */
	uint64_t unled;       /* loaded here beside another machine, for which this one had waited wait_ms */
	uint64_t failed;      /* loaded here, as Redis failed */
	uint64_t passed;      /* loaded here without asking Redis, as it had failed before */
	uint64_t stored;      /* values, in Redis */
	uint64_t locks_lost;  /* not stored: the load outlived its lease */
	uint64_t superseded;  /* not stored, and not kept here: deleted or expired meanwhile */
	uint64_t too_big;     /* not stored: more than max_value */
	uint64_t bridged;     /* a stale value of Redis in place of a load that failed */
	uint64_t inherited;   /* locks of a process of this machine that died */
	uint64_t corrupt;     /* values in Redis that are none */
	uint64_t mismatches;  /* of another schema or format, or larger than max_value */
	uint64_t errors;      /* commands or connections that failed */
	uint64_t opens;       /* how often Redis was left alone */
	uint64_t connections; /* opened */
	uint64_t sent_bytes, received_bytes;
	uint64_t reserved[11];
};

int shoal_redis_stats(struct shoal_redis *redis, struct shoal_redis_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
