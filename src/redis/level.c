/* SPDX-License-Identifier: MIT */
/* Handles, connections and the calls that are no load. See shoal-redis.h. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "level.h"

static_assert(LEVEL_COUNTERS == 21, "counters of struct shoal_redis_stats");

void level_random(char *to, size_t digits)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char bytes[SCRIPT_LOCK];

	assert(digits <= sizeof(bytes));
	if (getrandom(bytes, digits, 0) != (ssize_t)digits) /* interrupted, or refused: what no other thread has now */
		for (size_t i = 0; i < digits; i++)
			bytes[i] = (unsigned char)((wire_now() ^ (uint64_t)getpid() << 20 ^ (uintptr_t)&bytes >> 8) *
			                                   (2 * i + 1) * 0x9e3779b97f4a7c15u >>
			                           56);
	for (size_t i = 0; i < digits; i++)
		to[i] = hex[bytes[i] & 15];
}

/* ---- connections ------------------------------------------------------------------------------------------- */

static struct wire *take_idle(struct shoal_redis *redis)
{
	for (int i = 0; i < LEVEL_IDLE; i++) {
		struct wire *w = atomic_load_explicit(&redis->idle[i], memory_order_relaxed)
		                         ? atomic_exchange(&redis->idle[i], NULL)
		                         : NULL;

		if (w && w->pid == getpid())
			return w;
		wire_close(w); /* the parent's, before a fork: in this process a copy of its descriptor */
	}
	return NULL;
}

static void count_bytes(struct shoal_redis *redis, struct wire *w)
{
	level_count(redis, sent_bytes, w->sent);
	level_count(redis, received_bytes, w->received);
	w->sent = w->received = 0;
}

static void put_back(struct shoal_redis *redis, struct wire *w)
{
	w->used = 1;
	count_bytes(redis, w);
	for (int i = 0; i < LEVEL_IDLE; i++) {
		struct wire *none = NULL;

		if (atomic_compare_exchange_strong(&redis->idle[i], &none, w))
			return;
	}
	wire_close(w);
}

static int open_new(struct shoal_redis *redis, uint64_t deadline, struct wire **w, struct wire_why *why)
{
	int r = wire_open(&redis->address, redis->max_value + 65536, deadline, w, why);

	if (!r)
		level_count(redis, connections, 1);
	return r;
}

/* The server closed it while it was idle, by its own timeout or to restart. */
static int was_closed(const struct wire *w, int result)
{
	return w->used && result == SHOAL_ERR_SYSTEM && (errno == EPIPE || errno == ECONNRESET);
}

int level_script(struct shoal_redis *redis, enum script script, const struct wire_command *c, uint64_t deadline,
                 redisReply **reply, struct wire_why *why)
{
	struct wire *w = take_idle(redis);
	int r = w ? SHOAL_OK : open_new(redis, deadline, &w, why);

	if (!r)
		r = wire_script(w, script, c, deadline, reply, why);
	while (w && was_closed(w, r)) {
		wire_close(w);
		w = take_idle(redis);
		r = w ? SHOAL_OK : open_new(redis, deadline, &w, why);
		if (!r)
			r = wire_script(w, script, c, deadline, reply, why);
	}
	if (r)
		level_count(redis, errors, 1);
	if (w && (!r || r == SHOAL_ERR_INVALID || r == SHOAL_ERR_PERMISSION)) { /* in step with the server */
		put_back(redis, w);
	} else if (w) {
		count_bytes(redis, w);
		wire_close(w);
	}
	return r;
}

void level_tell(struct shoal_redis *redis, struct breaker_visit *visit, int result, const struct wire_why *why)
{
	enum breaker_change change = breaker_tell(&redis->breaker, visit, result != SHOAL_OK);
	char line[384];

	if (change == BREAKER_OPENED)
		level_count(redis, opens, 1);
	if (!redis->log || change == BREAKER_AS_IT_WAS || change == BREAKER_REOPENED)
		return;
	if (change == BREAKER_OPENED)
		snprintf(line, sizeof(line), "redis %s is left alone: %s", redis->name, why->text);
	else
		snprintf(line, sizeof(line), "redis %s is back", redis->name);
	redis->log(change == BREAKER_OPENED ? SHOAL_LOG_WARNING : SHOAL_LOG_INFO, line, redis->log_arg);
}

/* ---- open and close ---------------------------------------------------------------------------------------- */

static char *copy_of(const char *text, const char *otherwise)
{
	return text ? strdup(text) : otherwise ? strdup(otherwise) : NULL;
}

/* SYSTEM: no memory. */
static int take_config(struct shoal_redis *r, const struct shoal_redis_config *c)
{
	r->address = (struct wire_address){
		.socket = copy_of(c->socket, NULL),
		.host = copy_of(c->host, "127.0.0.1"),
		.user = copy_of(c->user, NULL),
		.password = copy_of(c->password, NULL),
		.port = c->port ? c->port : 6379,
		.database = c->database,
	};
	r->prefix = copy_of(c->prefix, "shoal:");
	r->budget_ms = c->budget_ms ? c->budget_ms : 50;
	r->wait_ms = c->wait_ms;
	r->lease_ms = c->lease_ms;
	r->recheck_ms = level_given(c->recheck_ms, 50);
	r->max_value = c->max_value ? c->max_value : 1 << 20;
	r->log = c->log;
	r->log_arg = c->log_arg;
	r->breaker.failures = c->failures ? c->failures : 3;
	r->breaker.cool_down_ms = c->cool_down_ms ? c->cool_down_ms : 1000;
	if ((c->socket && !r->address.socket) || !r->address.host || (c->user && !r->address.user) ||
	    (c->password && !r->address.password) || !r->prefix)
		return SHOAL_ERR_SYSTEM;
	if (c->socket)
		snprintf(r->name, sizeof(r->name), "%.100s/%u", c->socket, c->database);
	else
		snprintf(r->name, sizeof(r->name), "%.80s:%u/%u", r->address.host, r->address.port, c->database);
	snprintf(r->breaker_key, sizeof(r->breaker_key), "%s %.64s %.64s", r->name, c->user ? c->user : "", r->prefix);
	return SHOAL_OK;
}

static int draw_machine(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	char id[SCRIPT_ID];

	level_random(id, sizeof(id));
	shoal_load_ttl(load, SHOAL_FOREVER, SHOAL_NONE);
	return shoal_load_publish(load, id, sizeof(id));
}

/* Its private keyspace, and what the processes of the machine have in common there. */
static int join_machine(struct shoal_redis *r)
{
	struct shoal_policy policy = {.stale_ms = SHOAL_FOREVER, .jitter_permille = SHOAL_NONE, .early = -1};
	struct shoal_value id;
	int result = shoal_keyspace_open(r->cache, BREAKER_KEYSPACE, 1, &policy, &r->breaker.keyspace);

	if (result)
		return result;
	r->breaker.key = (struct shoal_slice){r->breaker_key, strlen(r->breaker_key)};
	r->breaker.failed = &r->shared->failed;
	level_random(r->machine, SCRIPT_ID);
	if (shoal_fetch(r->breaker.keyspace, "machine", 7, draw_machine, NULL, &id) == SHOAL_OK) {
		if (id.size == SCRIPT_ID)
			memcpy(r->machine, id.data, SCRIPT_ID);
		shoal_release(&id);
	}
	return SHOAL_OK;
}

int shoal_redis_open(struct shoal *cache, const struct shoal_redis_config *config, struct shoal_redis **redis)
{
	static const struct shoal_redis_config defaults;
	struct shoal_redis *r;
	void *shared;
	int result;

	if (!cache || !redis ||
	    (config && (config->cool_down_ms > UINT32_MAX >> BREAKER_DOUBLINGS || config->port > 65535)))
		return SHOAL_ERR_INVALID;
	r = calloc(1, sizeof(*r));
	shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!r || shared == MAP_FAILED) {
		free(r);
		if (shared != MAP_FAILED)
			munmap(shared, sizeof(*r->shared));
		return SHOAL_ERR_SYSTEM;
	}
	r->cache = cache;
	r->shared = shared;
	result = take_config(r, config ? config : &defaults);
	if (!result)
		result = join_machine(r);
	if (result) {
		shoal_redis_close(r);
		return result;
	}
	*redis = r;
	return SHOAL_OK;
}

void shoal_redis_close(struct shoal_redis *r)
{
	struct shoal_redis_keyspace *k, *next;

	if (!r)
		return;
	for (int i = 0; i < LEVEL_IDLE; i++)
		wire_close(atomic_exchange(&r->idle[i], NULL));
	for (k = atomic_load(&r->keyspaces); k; k = next) {
		next = k->next;
		free(k->name);
		free(k);
	}
	free(r->address.socket);
	free(r->address.host);
	free(r->address.user);
	free(r->address.password);
	free(r->prefix);
	munmap(r->shared, sizeof(*r->shared));
	free(r);
}

int shoal_redis_check(struct shoal_redis *redis, char *text, size_t capacity)
{
	struct wire_why why = {""};
	struct wire *w;
	int r, state;

	if (!redis)
		return SHOAL_ERR_INVALID;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	r = wire_open(&redis->address, redis->max_value + 65536, wire_now() + redis->budget_ms * UINT64_C(1000000), &w,
	              &why);
	if (!r)
		wire_close(w);
	else if (text && capacity)
		snprintf(text, capacity, "redis %s: %s", redis->name, why.text);
	pthread_setcancelstate(state, NULL);
	return r;
}

int shoal_redis_stats(struct shoal_redis *redis, struct shoal_redis_stats *stats)
{
	uint64_t *fields = (uint64_t *)stats;

	if (!redis || !stats)
		return SHOAL_ERR_INVALID;
	memset(stats, 0, sizeof(*stats));
	for (size_t i = 0; i < LEVEL_COUNTERS; i++)
		fields[i] = atomic_load_explicit(&redis->shared->counters[i], memory_order_relaxed);
	return SHOAL_OK;
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

static void take_policy(struct shoal_redis_keyspace *k, const struct shoal_policy *p)
{
	const struct shoal_redis *redis = k->redis;

	k->lives.fresh_ms = level_given(p->fresh_ms, 60000);
	k->lives.stale_ms = level_given(p->stale_ms, 0);
	k->lives.error_ms = level_given(p->error_ms, 0);
	k->schema = p->schema;
	k->retry_ms = level_given(p->retry_ms, 1000);
	k->wait_ms = level_given(redis->wait_ms ? redis->wait_ms : p->wait_ms, 5000);
	k->lease_ms = level_given(redis->lease_ms ? redis->lease_ms : p->lease_ms, 30000);
	if (!k->lease_ms || k->lease_ms > SHOAL_FOREVER / 2)
		k->lease_ms = 30000; /* the lock of a machine that is gone has to end */
}

int shoal_redis_keyspace_open(struct shoal_redis *redis, const char *name, uint32_t version,
                              const struct shoal_policy *policy, struct shoal_redis_keyspace **keyspace)
{
	static const struct shoal_policy defaults;
	struct shoal_redis_keyspace *k;
	int r, n;

	if (!redis || !name || !keyspace)
		return SHOAL_ERR_INVALID;
	k = calloc(1, sizeof(*k));
	if (!k)
		return SHOAL_ERR_SYSTEM;
	k->redis = redis;
	take_policy(k, policy ? policy : &defaults);
	n = asprintf(&k->name, "%s%s@%lu:", redis->prefix, name, (unsigned long)version);
	r = n < 0 ? SHOAL_ERR_SYSTEM : shoal_keyspace_open(redis->cache, name, version, policy, &k->keyspace);
	if (r) {
		if (n >= 0)
			free(k->name);
		free(k);
		return r;
	}
	k->name_size = (size_t)n;
	k->next = atomic_load(&redis->keyspaces);
	while (!atomic_compare_exchange_weak(&redis->keyspaces, &k->next, k))
		;
	*keyspace = k;
	return SHOAL_OK;
}

struct shoal_keyspace *shoal_redis_keyspace(struct shoal_redis_keyspace *k)
{
	return k ? k->keyspace : NULL;
}

/* A value is prefix NAME @ VERSION : KEY, and its lock the same with # for the colon: no name has either. */
int level_keys(const struct shoal_redis_keyspace *k, const void *key, size_t key_size, struct shoal_slice *value,
               struct shoal_slice *lock)
{
	size_t size = k->name_size + key_size;
	char *both = malloc(2 * size);

	if (!both)
		return SHOAL_ERR_SYSTEM;
	for (int i = 0; i < 2; i++) {
		memcpy(both + (size_t)i * size, k->name, k->name_size);
		memcpy(both + (size_t)i * size + k->name_size, key, key_size);
	}
	both[size + k->name_size - 1] = '#';
	*value = (struct shoal_slice){both, size};
	*lock = (struct shoal_slice){both + size, size};
	return SHOAL_OK;
}

/* ---- delete and expire ------------------------------------------------------------------------------------- */

/* In Redis: 0, MISS, or an error. It is not asked where it is left alone, but told. */
static int change_there(struct shoal_redis_keyspace *k, enum script script, const void *key, size_t key_size)
{
	struct shoal_redis *redis = k->redis;
	struct breaker_visit visit = {0};
	struct wire_command c = {0};
	struct wire_why why = {""};
	struct shoal_slice value, lock;
	redisReply *reply = NULL;
	char id[SCRIPT_ID], life[24];
	int r = level_keys(k, key, key_size, &value, &lock);

	if (r)
		return r;
	level_random(id, sizeof(id));
	snprintf(life, sizeof(life), "%llu", 2ull * k->lease_ms);
	wire_add(&c, value.data, value.size);
	wire_add(&c, lock.data, lock.size);
	wire_add(&c, id, sizeof(id));
	wire_add_text(&c, life);
	r = level_script(redis, script, &c, wire_now() + redis->budget_ms * UINT64_C(1000000), &reply, &why);
	level_tell(redis, &visit, r, &why);
	if (!r)
		r = reply->type == REDIS_REPLY_INTEGER && reply->integer ? SHOAL_OK : SHOAL_MISS;
	freeReplyObject(reply); /* NULL is harmless */
	free((void *)(uintptr_t)value.data);
	return r;
}

/*
 * There first: a load that begins here in between would bring the old value back from there. One that has it in hand by
 * then is superseded by the change here.
 */
static int change(struct shoal_redis_keyspace *k, enum script script, const void *key, size_t key_size)
{
	int there, here, state, reason;

	if (!k || !key || !key_size || key_size > 65535)
		return SHOAL_ERR_INVALID;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	there = change_there(k, script, key, key_size);
	reason = errno;
	here = script == SCRIPT_DELETE ? shoal_delete(k->keyspace, key, key_size)
	                               : shoal_expire(k->keyspace, key, key_size);
	pthread_setcancelstate(state, NULL);
	errno = there < 0 ? reason : errno;
	return there < 0 ? there : here < 0 ? here : there && here ? SHOAL_MISS : SHOAL_OK;
}

int shoal_redis_delete(struct shoal_redis_keyspace *k, const void *key, size_t key_size)
{
	return change(k, SCRIPT_DELETE, key, key_size);
}

int shoal_redis_expire(struct shoal_redis_keyspace *k, const void *key, size_t key_size)
{
	return change(k, SCRIPT_EXPIRE, key, key_size);
}
