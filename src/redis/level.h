/* SPDX-License-Identifier: MIT */
/* The handles, and one command to Redis as all of them give it. */
#ifndef SHOAL_REDIS_LEVEL_H
#define SHOAL_REDIS_LEVEL_H

#include <stdatomic.h>

#include "breaker.h"
#include "record.h"
#include "script.h"
#include "shoal-redis.h"
#include "wire.h"

#define LEVEL_IDLE 32 /* connections of a process that are kept; more threads at once open and close theirs */
#define LEVEL_COUNTERS (offsetof(struct shoal_redis_stats, reserved) / sizeof(uint64_t))

/* In memory that children of fork share. */
struct level_shared {
	_Atomic uint64_t counters[LEVEL_COUNTERS]; /* in the order of struct shoal_redis_stats */
	_Atomic unsigned failed;
};

struct shoal_redis {
	struct shoal *cache;
	struct wire_address address;
	char *prefix;
	char name[128];        /* of the server, in messages */
	char breaker_key[260]; /* and with user and prefix: a program that is refused doesn't speak for others */
	uint32_t budget_ms, wait_ms, lease_ms, recheck_ms;
	size_t max_value;
	shoal_log *log;
	void *log_arg;
	struct breaker breaker;
	char machine[SCRIPT_ID + 1];
	struct level_shared *shared;
	_Atomic(struct wire *) idle[LEVEL_IDLE]; /* taken by exchange: no lock that a fork could leave held */
	_Atomic(struct shoal_redis_keyspace *) keyspaces;
};

struct shoal_redis_keyspace {
	struct shoal_redis *redis;
	struct shoal_keyspace *keyspace;
	struct shoal_redis_keyspace *next;
	char *name; /* prefix and all, for KEYS: see level_keys() */
	size_t name_size;
	struct record_lives lives;
	uint32_t schema, wait_ms, lease_ms, retry_ms;
};

#define level_count(redis, field, n)                                                                                   \
	atomic_fetch_add_explicit(                                                                                     \
		&(redis)->shared->counters[offsetof(struct shoal_redis_stats, field) / sizeof(uint64_t)], n,           \
		memory_order_relaxed) /* nobody decides on it */

/* What the caller has set: 0 stands for the default, SHOAL_NONE for 0. */
static inline uint32_t level_given(uint32_t value, uint32_t otherwise)
{
	return value == SHOAL_NONE ? 0 : value ? value : otherwise;
}

/* The two keys in Redis of one key, by malloc: *value and *lock lie in one block that begins with
 * *value. 0 or SYSTEM. */
int level_keys(const struct shoal_redis_keyspace *k, const void *key, size_t key_size, struct shoal_slice *value,
               struct shoal_slice *lock);

/* Hexadecimal digits by chance, 8 for each four bytes of them; not 0-terminated. */
void level_random(char *to, size_t digits);

/*
 * A script, over a connection of this process, until `deadline`. Counts its errors, and has the breaker neither asked
 * nor told. A connection that was idle and turns out to be closed is opened anew.
 */
int level_script(struct shoal_redis *redis, enum script script, const struct wire_command *keys_and_args,
                 uint64_t deadline, redisReply **reply, struct wire_why *why);

/* breaker_tell(), counted and logged. */
void level_tell(struct shoal_redis *redis, struct breaker_visit *visit, int result, const struct wire_why *why);

#endif
