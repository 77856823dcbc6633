/* SPDX-License-Identifier: MIT */
/* Fetch: begin, wait and publish around a loader, in the calling thread or in the background. See fetch.h. */
#include <errno.h>
#include <string.h>

#include "begin.h"
#include "fetch.h"

/* ---- fetch ------------------------------------------------------------------------------------------------- */

/* What there is to serve now, within error_ms: while the loader ran, a bound may have passed or the key been
 * deleted. */
static void bridge(struct shoal_load *l, struct shoal_value *value)
{
	struct seat *seat = l->seat ? handle_enter(l->k->cache, &(int){0}) : NULL;

	if (!seat)
		return;
	hit_get(seat, l->k, &l->key, value);
	handle_leave();
}

/* The loader has returned; the handle is ours. */
static int after_loader(struct shoal_load *l, int code, struct shoal_value *value)
{
	if (l->state == LEADING)
		shoal_load_fail(l, code);
	else if (!code)
		code = l->code;
	if (l->published) {
		*value = l->result;
		return SHOAL_OK;
	}
	bridge(l, value);
	value->load_error = code;
	return value->data ? SHOAL_OK : SHOAL_ERR_LOAD;
}

static int run_loader(struct shoal_load *l, shoal_loader *loader, void *arg, struct shoal_value *value)
{
	struct seat *seat = l->seat ? handle_enter(l->k->cache, &(int){0}) : NULL; /* the one that runs it */
	int code, r;

	if (seat) {
		handle_leave();
		l->outer = load_running;
		load_running = l;
	}
	shoal_release(value);
	code = loader(l, l->key.data, l->key.size, arg);
	if (seat)
		load_running = l->outer;
	r = after_loader(l, code, value);
	load_free(l);
	return r;
}

static void count_alone(const struct shoal_keyspace *k)
{
	handle_count_now(k->cache, k->id, COUNTER_loads, 1);
	handle_count_now(k->cache, k->id, COUNTER_uncached, 1);
}

/* ---- in the background ------------------------------------------------------------------------------------- */

static void run_job(struct refresher_job *job, struct refresher_thread *thread)
{
	struct shoal_load *l = (struct shoal_load *)(void *)((char *)job - offsetof(struct shoal_load, job));
	struct shoal_value nothing = {0};
	void *context;

	if (!thread) {
		shoal_load_cancel(l);
		load_free(l);
	} else if (!refresher_context(thread, l->refresher, &context)) {
		shoal_load_fail(l, ENOMEM);
		load_free(l);
	} else {
		run_loader(l, l->refresher->load, context, &nothing);
		shoal_release(&nothing);
	}
}

/* Hand a refresh to a thread of its own. False: there is none, or its queue is full. */
static bool hand_over(struct shoal_load *l)
{
	bool pushed;

	l->refresher = atomic_load(&l->k->refresher);
	l->job.run = run_job;
	if (!l->refresher || !l->refresher->load)
		return false;
	urcu_bp_read_lock(); /* keeps the refresher: partner: the grace period in shoal_refresher_stop */
	pushed =
		refresher_push(atomic_load(&l->k->cache->refresher), w64_peek(&l->seat->member->wiped->token), &l->job);
	urcu_bp_read_unlock();
	return pushed;
}

EXPORT int shoal_refresher_start(struct shoal *cache, unsigned threads, unsigned queue)
{
	struct refresher *r = NULL, *before;
	uint64_t token;
	int result;

	if (!cache || !threads || !queue)
		return SHOAL_ERR_INVALID;
	if (!handle_enter(cache, &result)) /* joins: a process that has not has no token */
		return result;
	handle_leave();
	token = handle_token(cache);
	before = atomic_load(&cache->refresher);
	if (before && refresher_is_of(before, token))
		return SHOAL_ERR_INVALID;
	result = refresher_start(token, threads, queue, &r);
	if (!result && !atomic_compare_exchange_strong(&cache->refresher, &before, r)) {
		refresher_stop(r, token);
		result = SHOAL_ERR_INVALID;
	}
	return result;
}

EXPORT void shoal_refresher_stop(struct shoal *cache)
{
	struct refresher *r;

	if (!cache || !(r = atomic_exchange(&cache->refresher, NULL)))
		return;
	urcu_bp_synchronize_rcu();
	refresher_stop(r, handle_token(cache));
}

/* ---- fetch, for those without a place ---------------------------------------------------------------------- */

/* No place in the segment for this process or thread, or no way in: the caller's loader still gives it its value. */
static int load_alone(struct attempt *a, const void *data, size_t size, struct shoal_load **load)
{
	a->key = (struct key){.data = data, .size = (uint32_t)size, .keyspace = a->k->id};
	a->seat = NULL;
	*load = load_new(a->k, NULL, &a->key, &a->fk, true);
	if (!*load)
		return SHOAL_ERR_SYSTEM;
	(*load)->state = LEADING;
	count_alone(a->k);
	return SHOAL_LEAD;
}

/* It has waited; the handle goes on if it leads now. */
static int waited(struct shoal_load *l, int r)
{
	if (r == SHOAL_LEAD)
		return r;
	if (r == SHOAL_OK)
		load_end(l);
	else
		shoal_load_cancel(l);
	load_free(l);
	return r;
}

int fetch_unjoined(struct shoal_keyspace *k, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                  struct shoal_value *value)
{
	struct attempt a = {.k = k, .value = value, .fetch = true};
	struct shoal_load *l;
	int r;

	r = begin_key(&a, key, key_size, &l);
	if (l)
		l->warming = true;
	if (r == SHOAL_WAIT) {
		r = begin_wait(l, 0, value);
		if (r == SHOAL_ERR_BUSY)
			r = begin_wait(l, k->policy.wait_ms, value);
		r = waited(l, r);
	}
	return r == SHOAL_LEAD || r == SHOAL_REFRESH ? run_loader(l, loader, arg, value) : r;
}

EXPORT int shoal_fetch(struct shoal_keyspace *k, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                       struct shoal_value *value)
{
	struct attempt a = {.k = k, .value = value, .fetch = true};
	struct shoal_load *l;
	int r;

	if (!k || !loader || !value || !key || key_size < 1 || key_size > KEY_MAX)
		return SHOAL_ERR_INVALID;
	r = begin_key(&a, key, key_size, &l);
	if (r == SHOAL_ERR_LIMIT || r == SHOAL_ERR_SYSTEM || r == SHOAL_ERR_LAYOUT || r == SHOAL_ERR_CORRUPT)
		r = load_alone(&a, key, key_size, &l);
	if (r == SHOAL_WAIT)
		r = waited(l, begin_wait(l, k->policy.wait_ms, value));
	if (r == SHOAL_REFRESH && hand_over(l))
		return SHOAL_OK;
	return r == SHOAL_LEAD || r == SHOAL_REFRESH ? run_loader(l, loader, arg, value) : r;
}

/* ---- thread exit ------------------------------------------------------------------------------------------- */

void fetch_thread_exit(void *arg)
{
	struct seat *seat = arg;
	struct shoal_load *l;

	while ((l = load_running)) {
		load_running = l->outer;
		if (!load_is_ours(l)) /* the parent's, in a child that was forked inside its loader */
			continue;
		if (l->state == LEADING)
			shoal_load_fail(l, 0);
		shoal_release(&l->result);
		load_free(l);
	}
	registry_leave(seat);
}
