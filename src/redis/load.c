/* SPDX-License-Identifier: MIT */
/*
 * A load behind both levels.
 *
 *   look ---- fresh in Redis, and not to be refreshed early ------------> publish it, with what is left of its lives
 *    |  \---- stale, and another machine refreshes it -----------------> publish it likewise, to look again in a while
 *    |  \---- another machine loads it: look again, until wait_ms ------> (one of the others)
 *    |  \---- the lock is ours, or wait_ms is over, or Redis failed: ---> source -> store -> publish
 *    |                                                                          \-> fails: let go
 *    breaker open: source -> publish
 *
 * L.1  Redis takes budget_ms of a load at most: what the first look, the store and letting go need comes off
 *      one budget. Looking again is part of waiting for another machine, which wait_ms bounds; a look that
 *      fails ends it at once.
 * L.2  After a command that failed the load asks Redis nothing more.
 * L.3  The store comes before the publication: its answer says whether the key was deleted meanwhile, and then the
 *      value is published without any life. The caller has it; who waits begins anew.
 * L.4  What is taken over from Redis is older by the time that the answer took.
 *
 * If the process dies: before the store, its machine's heir finds the lock of its own machine and takes it over, and
 * other machines wait until the lease is over. After it, the value is there.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "level.h"

#define MS UINT64_C(1000000)
#define AGE_MOST (INT64_C(1) << 53)
#define POLL_FIRST_MS 5
#define POLL_MOST_MS 50

struct shoal_redis_fill {
	struct shoal_load *load;
	struct shoal_redis_keyspace *k;
	struct shoal_slice key, value_key, lock_key;
	char lock[SCRIPT_LOCK]; /* as script.c has it: id, machine, token */
	int answers;            /* L.2 */
	int held;               /* the lock */
	int ended;              /* published */
	int uncacheable;
	uint64_t spent_ns;         /* L.1 */
	redisReply *reply;         /* of the last look: the bytes of `old` */
	struct record old;         /* value.data NULL: none */
	uint64_t looked;           /* when the lives of `old` were so */
	struct record_lives lives; /* of what is published */
	void *space;               /* reserved */
	size_t capacity;
};

enum verdict { HIT, WAITED, STALE, LED, UNLED, FAILED };

/* ---- commands ---------------------------------------------------------------------------------------------- */

/* One command within what is left of the budget, or within the whole of it. */
static int command(struct shoal_redis_fill *f, enum script script, const struct wire_command *c,
                   struct breaker_visit *visit, int charged, redisReply **reply)
{
	struct shoal_redis *redis = f->k->redis;
	uint64_t begin = wire_now(), budget = redis->budget_ms * MS;
	struct wire_why why = {"its budget is spent"};
	int r = SHOAL_ERR_TIMEOUT;

	if (charged)
		budget = budget > f->spent_ns ? budget - f->spent_ns : 0;
	if (budget)
		r = level_script(redis, script, c, begin + budget, reply, &why);
	else
		level_count(redis, errors, 1);
	if (charged)
		f->spent_ns += wire_now() - begin;
	f->answers = !r;
	level_tell(redis, visit, r, &why);
	return r;
}

static void add_keys(const struct shoal_redis_fill *f, struct wire_command *c)
{
	wire_add(c, f->value_key.data, f->value_key.size);
	wire_add(c, f->lock_key.data, f->lock_key.size);
}

static const char *number(char text[24], uint64_t n)
{
	snprintf(text, 24, "%llu", (unsigned long long)n);
	return text;
}

static int is_look(const redisReply *r)
{
	return r->type == REDIS_REPLY_ARRAY && r->elements == 5 &&
	       (r->element[0]->type == REDIS_REPLY_STRING || r->element[0]->type == REDIS_REPLY_NIL) &&
	       r->element[1]->type == REDIS_REPLY_INTEGER && r->element[2]->type == REDIS_REPLY_INTEGER &&
	       r->element[3]->type == REDIS_REPLY_INTEGER && r->element[4]->type == REDIS_REPLY_STRING &&
	       (r->element[4]->len == SCRIPT_ID || r->element[3]->integer == SCRIPT_UNASKED);
}

/* ---- look -------------------------------------------------------------------------------------------------- */

/*
 * The segment refreshes a value that is still fresh: the one in Redis is refreshed, too, if it is as old, and not one
 * that was loaded since. The difference between the two ages is what a publication may take.
 */
static long long early_from(const struct shoal_redis_fill *f)
{
	const struct shoal_value *here = shoal_load_previous(f->load);
	uint64_t slack = f->k->redis->budget_ms + UINT64_C(100);

	if (!here || here->freshness != SHOAL_FRESH || here->age_ms > INT64_MAX >> 11) /* a number of Lua's */
		return -1;
	return here->age_ms > slack ? (long long)(here->age_ms - slack) : 0;
}

/* From what is no Redis, or has other ideas of our scripts. */
static int refuse_answer(struct shoal_redis_fill *f)
{
	struct breaker_visit none = {0};
	struct wire_why why = {"an answer that makes no sense"};

	level_count(f->k->redis, errors, 1);
	level_tell(f->k->redis, &none, SHOAL_ERR_CORRUPT, &why);
	f->answers = 0;
	return SHOAL_ERR_CORRUPT;
}

static int ask(struct shoal_redis_fill *f, int corrupt, struct breaker_visit *visit, int charged)
{
	unsigned char tag[RECORD_TAG];
	char lease[24], most[24], early[24];
	struct wire_command c = {0};
	redisReply *reply = NULL;
	int r;

	record_tag(tag, f->k->schema);
	add_keys(f, &c);
	wire_add(&c, tag, sizeof(tag));
	wire_add(&c, f->lock + SCRIPT_ID, SCRIPT_LOCK - SCRIPT_ID);
	wire_add_text(&c, number(lease, f->k->lease_ms));
	wire_add_text(&c, number(most, f->k->redis->max_value + RECORD_STAMP + RECORD_HEADER));
	wire_add_text(&c, corrupt ? "1" : "0");
	snprintf(early, sizeof(early), "%lld", early_from(f));
	wire_add_text(&c, early);
	r = command(f, SCRIPT_LOOK, &c, visit, charged, &reply);
	if (!r && !is_look(reply)) {
		freeReplyObject(reply);
		return refuse_answer(f);
	}
	if (!r) {
		freeReplyObject(f->reply);
		f->reply = reply;
	}
	return r;
}

/* The answer: `old`, and whether the lock is ours. */
static enum record_kind take_answer(struct shoal_redis_fill *f, uint64_t took_ns)
{
	redisReply *const *e = f->reply->element;
	struct shoal_slice bytes = {e[0]->str, (size_t)e[0]->len};
	int64_t age;

	f->held = e[3]->integer == SCRIPT_OURS || e[3]->integer == SCRIPT_INHERITED;
	if (e[3]->integer == SCRIPT_INHERITED)
		level_count(f->k->redis, inherited, 1);
	if (e[4]->len == SCRIPT_ID)
		memcpy(f->lock, e[4]->str, SCRIPT_ID);
	f->looked = wire_now();
	if (e[0]->type != REDIS_REPLY_STRING)
		return RECORD_DEAD;
	age = e[1]->integer < 0 ? 0 : e[1]->integer > AGE_MOST ? AGE_MOST : e[1]->integer;
	return record_read(&bytes, f->k->schema, &f->key, age + (int64_t)(took_ns / MS) + 1, e[2]->integer, &f->old);
}

/* One look, and another where what it showed is of no use. */
static int look(struct shoal_redis_fill *f, struct breaker_visit *visit, int charged)
{
	enum record_kind kind = RECORD_OK;
	struct breaker_visit none = {0};
	int r = SHOAL_OK, again;

	f->old = (struct record){{0}, {0}};
	for (int i = 0; i < 2; i++) {
		uint64_t begin = wire_now();

		r = ask(f, kind != RECORD_OK, i ? &none : visit, charged);
		if (r)
			return r;
		if (!i && f->reply->element[1]->integer == SCRIPT_MISMATCH)
			level_count(f->k->redis, mismatches, 1);
		kind = take_answer(f, wire_now() - begin);
		if (kind == RECORD_CORRUPT)
			level_count(f->k->redis, corrupt, 1);
		again = kind != RECORD_OK && f->reply->element[3]->integer == SCRIPT_UNASKED;
		if (!again)
			break;
	}
	return r;
}

/* Some milliseconds, more each time, and not as many as others. */
static void pause_before(unsigned look, uint64_t until)
{
	uint64_t ms = POLL_FIRST_MS, now = wire_now(), left = until > now ? (until - now) / MS + 1 : 0;
	char chance;

	while (look-- && ms < POLL_MOST_MS)
		ms = ms * 3 / 2 < POLL_MOST_MS ? ms * 3 / 2 : POLL_MOST_MS;
	level_random(&chance, 1);
	ms = ms / 2 + (ms * (uint64_t)(chance & 15) >> 4) + 1;
	poll(NULL, 0, (int)(ms < left ? ms : left));
}

static enum verdict ask_redis(struct shoal_redis_fill *f, struct breaker_visit *visit)
{
	struct breaker_visit none = {0};
	uint64_t until = wire_now() + f->k->wait_ms * MS;

	for (unsigned n = 0;; n++) {
		if (look(f, n ? &none : visit, !n))
			return FAILED;
		if (f->held)
			return LED;
		if (f->old.left.fresh_ms)
			return n ? WAITED : HIT;
		if (f->old.left.stale_ms)
			return STALE;
		if (wire_now() >= until)
			return UNLED;
		pause_before(n, until);
		shoal_load_renew(f->load); /* the lease is for the source, which has not begun */
	}
}

/* ---- publish ----------------------------------------------------------------------------------------------- */

static uint32_t life(uint32_t ms)
{
	return ms ? ms : SHOAL_NONE;
}

/* Let it be fresh for `ms`, or for what is left of the later life *of, which gets shorter by that. */
static void lend(uint32_t *fresh, uint32_t *of, uint32_t ms)
{
	*fresh = *of < ms ? *of : ms;
	if (*of != SHOAL_FOREVER)
		*of -= *fresh;
}

static int publish_old(struct shoal_redis_fill *f)
{
	const struct record_lives *l = &f->old.left;

	shoal_load_ttl(f->load, life(l->fresh_ms), life(l->stale_ms));
	shoal_load_error_ttl(f->load, life(l->error_ms));
	shoal_load_publish(f->load, f->old.value.data, f->old.value.size);
	f->ended = 1;
	return SHOAL_OK;
}

/* What a script found of the lock, counted. True: the key was deleted since the look. */
static int read_end(struct shoal_redis_fill *f, redisReply *reply, int stores)
{
	long long end = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : SCRIPT_LOST;

	freeReplyObject(reply);
	if (stores && end == SCRIPT_DONE)
		level_count(f->k->redis, stored, 1);
	else if (stores && end == SCRIPT_LOST && f->held)
		level_count(f->k->redis, locks_lost, 1);
	else if (end == SCRIPT_DELETED)
		level_count(f->k->redis, superseded, 1);
	return end == SCRIPT_DELETED;
}

/* The lock for another lease, or let go. Also tells whether the key was deleted. */
static int hold(struct shoal_redis_fill *f, uint64_t lease_ms, int charged)
{
	struct breaker_visit none = {0};
	struct wire_command c = {0};
	redisReply *reply = NULL;
	char lease[24], tombstone[24];

	if (!f->answers)
		return 0;
	add_keys(f, &c);
	wire_add(&c, f->lock, sizeof(f->lock));
	wire_add_text(&c, number(lease, lease_ms));
	wire_add_text(&c, number(tombstone, 2ull * f->k->lease_ms));
	if (command(f, SCRIPT_HOLD, &c, &none, charged, &reply))
		return 0;
	return read_end(f, reply, 0);
}

static int send_record(struct shoal_redis_fill *f, const char *record, size_t size)
{
	struct breaker_visit none = {0};
	struct wire_command c = {0};
	redisReply *reply = NULL;
	char px[24], tombstone[24];

	add_keys(f, &c);
	wire_add(&c, f->lock, sizeof(f->lock));
	wire_add(&c, record, size);
	wire_add_text(&c, number(px, record_life(&f->lives)));
	wire_add_text(&c, number(tombstone, 2ull * f->k->lease_ms));
	return command(f, SCRIPT_STORE, &c, &none, 1, &reply) ? 0 : read_end(f, reply, 1);
}

/* Into Redis, if it is to be there. True: the key was deleted meanwhile. */
static int store(struct shoal_redis_fill *f, const void *data, size_t size)
{
	struct shoal_slice value = {data, size};
	char *record;
	int deleted;

	if (!f->answers)
		return 0;
	if (size > f->k->redis->max_value)
		level_count(f->k->redis, too_big, 1);
	if (f->uncacheable || size > f->k->redis->max_value ||
	    !(f->lives.fresh_ms || f->lives.stale_ms || f->lives.error_ms))
		return hold(f, 0, 1);
	record = malloc(RECORD_HEADER + size);
	if (!record)
		return hold(f, 0, 1);
	record_write((unsigned char *)record, &f->lives, f->k->schema, &f->key, &value);
	if (size)
		memcpy(record + RECORD_HEADER, data, size);
	deleted = send_record(f, record, RECORD_HEADER + size);
	free(record);
	return deleted;
}

/* L.3 */
static void store_first(struct shoal_redis_fill *f, const void *data, size_t size)
{
	struct record_lives l = f->lives;
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	if (store(f, data, size))
		l = (struct record_lives){0, 0, 0};
	pthread_setcancelstate(state, NULL);
	f->held = 0;
	f->ended = 1;
	shoal_load_ttl(f->load, life(l.fresh_ms), life(l.stale_ms));
	shoal_load_error_ttl(f->load, life(l.error_ms));
}

int shoal_redis_publish(struct shoal_redis_fill *f, const void *data, size_t size)
{
	if (!f || f->ended || (!data && size))
		return SHOAL_ERR_INVALID;
	store_first(f, data, size);
	return shoal_load_publish(f->load, data, size);
}

void *shoal_redis_reserve(struct shoal_redis_fill *f, size_t size)
{
	if (!f || f->ended) {
		errno = EINVAL;
		return NULL;
	}
	f->space = shoal_load_reserve(f->load, size);
	f->capacity = f->space && size > f->capacity ? size : f->capacity;
	return f->space;
}

int shoal_redis_commit(struct shoal_redis_fill *f, size_t size)
{
	if (!f || f->ended || !f->space || size > f->capacity)
		return SHOAL_ERR_INVALID;
	store_first(f, f->space, size);
	return shoal_load_commit(f->load, size);
}

struct shoal_slice shoal_redis_previous(struct shoal_redis_fill *f)
{
	const struct shoal_value *here = f ? shoal_load_previous(f->load) : NULL;

	if (here)
		return (struct shoal_slice){here->data, here->size};
	return f ? f->old.value : (struct shoal_slice){NULL, 0};
}

int shoal_redis_keep(struct shoal_redis_fill *f)
{
	struct shoal_slice previous = shoal_redis_previous(f);

	return previous.data ? shoal_redis_publish(f, previous.data, previous.size) : SHOAL_ERR_INVALID;
}

void shoal_redis_ttl(struct shoal_redis_fill *f, uint32_t fresh_ms, uint32_t stale_ms)
{
	if (!f)
		return;
	f->lives.fresh_ms = level_given(fresh_ms, f->k->lives.fresh_ms);
	f->lives.stale_ms = level_given(stale_ms, f->k->lives.stale_ms);
}

void shoal_redis_error_ttl(struct shoal_redis_fill *f, uint32_t error_ms)
{
	if (f)
		f->lives.error_ms = level_given(error_ms, f->k->lives.error_ms);
}

void shoal_redis_uncacheable(struct shoal_redis_fill *f, uint32_t for_ms)
{
	if (!f || f->ended)
		return;
	f->uncacheable = 1;
	shoal_load_uncacheable(f->load, for_ms);
}

int shoal_redis_renew(struct shoal_redis_fill *f)
{
	int state;

	if (!f || f->ended)
		return SHOAL_ERR_INVALID;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	if (f->held)
		hold(f, f->k->lease_ms, 0);
	pthread_setcancelstate(state, NULL);
	return shoal_load_renew(f->load);
}

/* ---- the source -------------------------------------------------------------------------------------------- */

static void drop(struct shoal_redis_fill *f)
{
	freeReplyObject(f->reply);
	free((void *)(uintptr_t)f->value_key.data);
	f->reply = NULL;
	f->value_key.data = NULL;
}

/* The source leaves by pthread_exit or cancellation. */
static void abandon(void *fill)
{
	struct shoal_redis_fill *f = fill;

	if (f->held && !f->ended)
		hold(f, 0, 1);
	drop(f);
}

static int run_source(struct shoal_redis_fill *f, const struct shoal_redis_loader *l, int cancel_state)
{
	int code;

	pthread_cleanup_push(abandon, f);
	pthread_setcancelstate(cancel_state, NULL);
	code = l->source(f, f->key.data, f->key.size, l->arg);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_pop(0);
	return code;
}

/* It has failed. Where this machine has nothing to serve in its place, Redis may have. */
static int after_failure(struct shoal_redis_fill *f, int code)
{
	struct record_lives *l = &f->old.left;

	if (f->held)
		hold(f, 0, 1);
	if (f->old.value.data && !shoal_load_previous(f->load)) {
		record_pass(l, (wire_now() - f->looked) / MS + 1);
		if (l->stale_ms || l->error_ms) {
			lend(&l->fresh_ms, l->stale_ms ? &l->stale_ms : &l->error_ms, f->k->retry_ms);
			level_count(f->k->redis, bridged, 1);
			return publish_old(f);
		}
	}
	if (!code)
		shoal_load_fail(f->load, 0);
	return code;
}

static int from_source(struct shoal_redis_fill *f, const struct shoal_redis_loader *l, int cancel_state)
{
	int code = run_source(f, l, cancel_state);

	return f->ended ? SHOAL_OK : after_failure(f, code);
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static void count_verdict(struct shoal_redis *redis, enum verdict verdict)
{
	static const size_t fields[] = {
		[HIT] = offsetof(struct shoal_redis_stats, hits),
		[WAITED] = offsetof(struct shoal_redis_stats, waited),
		[STALE] = offsetof(struct shoal_redis_stats, stale),
		[LED] = offsetof(struct shoal_redis_stats, led),
		[UNLED] = offsetof(struct shoal_redis_stats, unled),
		[FAILED] = offsetof(struct shoal_redis_stats, failed),
	};

	atomic_fetch_add_explicit(&redis->shared->counters[fields[verdict] / sizeof(uint64_t)], 1,
	                          memory_order_relaxed);
}

static int load_by(struct shoal_redis_fill *f, const struct shoal_redis_loader *l, int cancel_state)
{
	struct shoal_redis *redis = f->k->redis;
	struct breaker_visit visit = {0};
	enum verdict verdict;

	level_count(redis, loads, 1);
	if (breaker_ask(&redis->breaker, &visit) == BREAKER_OPEN) {
		level_count(redis, passed, 1);
		return from_source(f, l, cancel_state);
	}
	verdict = ask_redis(f, &visit);
	count_verdict(redis, verdict);
	if (verdict == STALE)
		lend(&f->old.left.fresh_ms, &f->old.left.stale_ms, redis->recheck_ms);
	if (verdict == HIT || verdict == WAITED || verdict == STALE)
		return publish_old(f);
	return from_source(f, l, cancel_state);
}

int shoal_redis_load(struct shoal_load *load, const void *key, size_t key_size, void *loader)
{
	const struct shoal_redis_loader *l = loader;
	struct shoal_redis_fill f = {.load = load, .key = {key, key_size}};
	int r, state;

	if (!load || !l || !l->keyspace || !l->source)
		return EINVAL;
	f.k = l->keyspace;
	f.lives = f.k->lives;
	memcpy(f.lock, SCRIPT_NO_DELETE, SCRIPT_ID);
	memcpy(f.lock + SCRIPT_ID, f.k->redis->machine, SCRIPT_ID);
	level_random(f.lock + SCRIPT_ID + SCRIPT_ID, SCRIPT_TOKEN);
	if (level_keys(f.k, key, key_size, &f.value_key, &f.lock_key))
		return ENOMEM;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	r = load_by(&f, l, state);
	drop(&f);
	pthread_setcancelstate(state, NULL);
	return r;
}
