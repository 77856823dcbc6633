/* SPDX-License-Identifier: MIT */
/*
 * Loads that are watched: the public face of watch.c, which has the protocol.
 *
 * Dispatch takes one due load after the other, looks under the lock, and calls its wake without it. So a wake may call
 * anything, several threads may dispatch at once, and one that cancels a load of another thread's finds it in a list or
 * waits for a look, which is short.
 */
#include <string.h>
#include <unistd.h>

#include "begin.h"

/* This process's: the child of a fork sees its parent's, and has none. NULL likewise. */
static struct watch *watch_of(struct shoal *cache)
{
	struct watch *w = atomic_load(&cache->watch);

	return w && w->token == handle_token(cache) ? w : NULL;
}

/* ... which a handle gets when it is first asked for. */
static int have_watch(struct shoal *cache, struct watch **w)
{
	struct watch *before, *made;
	struct seat *seat;
	uint64_t token;
	int r;

	*w = watch_of(cache);
	if (*w)
		return SHOAL_OK;
	seat = handle_enter(cache, &r); /* joins: a process that has not has no token */
	if (!seat)
		return r;
	handle_leave();
	token = handle_token(cache);
	before = atomic_load(&cache->watch);
	if (!before || before->token != token) {
		r = watch_open(token, &made);
		if (r)
			return r;
		if (!atomic_compare_exchange_strong(&cache->watch, &before, made))
			watch_close(made, token);
	}
	*w = atomic_load(&cache->watch);
	return SHOAL_OK;
}

EXPORT int shoal_poll_fd(struct shoal *cache)
{
	struct watch *w;
	int r;

	if (!cache)
		return SHOAL_ERR_INVALID;
	r = have_watch(cache, &w);
	return r ? r : w->fd;
}

/* To be rung for the flight that it waits for. */
static bool watch_flight(struct watch *w, struct shoal_load *l)
{
	if (l->queued || !l->joined || !flight_watch(l->seat, &l->ticket, &l->watched.words))
		return false;
	watch_rouse(w, &l->watched.words);
	return true;
}

/*
 * Under the lock: listen, set the bit, and then look for good, so that nothing comes between (B.1); a nudge changes no
 * word. SHOAL_WAIT: it is watched; else the outcome. What it waits for may be another flight after it: then once more.
 */
static int arm(struct watch *w, struct shoal_load *l)
{
	const struct member *m = l->seat->member;
	struct ticket before = l->ticket;
	bool rings;
	int r;

	bell_listen(m);
	rings = watch_flight(w, l);
	memset(&l->result, 0, sizeof(l->result));
	r = begin_look(l, &l->result);
	if (r != SHOAL_WAIT)
		return r;
	if (l->queued) {
		m = l->permit.seat->member;
		bell_listen(m);
		rings = permit_watch(&l->permit, &l->watched.words);
	} else {
		rings = rings && m == l->seat->member && before.slot == l->ticket.slot && before.word == l->ticket.word;
	}
	if (rings && !segment_has_moved(&m->segment))
		watch_add(w, &l->watched, m);
	else
		watch_add_due(w, &l->watched);
	return SHOAL_WAIT;
}

/* It has an outcome, which goes to the wait that follows. */
static void keep(struct shoal_load *l, int r)
{
	l->woken = true;
	l->woken_with = r;
	load_count_wait(l, clock_system_ns(CLOCK_MONOTONIC) - l->watched.began_ns);
}

EXPORT int shoal_watch(struct shoal_load *l, shoal_wake *wake, void *arg)
{
	struct watch *w;
	uint32_t wait_ms;
	int r;

	if (!l || !wake || l->watched.of || l->fetch || (l->state != WAITING && !l->woken))
		return SHOAL_ERR_INVALID;
	if (!load_is_ours(l))
		return SHOAL_ERR_SUPERSEDED;
	r = have_watch(l->k->cache, &w);
	if (r)
		return r;
	wait_ms = l->k->policy.wait_ms;
	pthread_mutex_lock(&w->lock);
	l->watched.wake = wake;
	l->watched.arg = arg;
	l->watched.began_ns = clock_system_ns(CLOCK_MONOTONIC);
	l->watched.deadline_ns =
		wait_ms == SHOAL_FOREVER ? UINT64_MAX : l->watched.began_ns + (uint64_t)wait_ms * 1000000;
	if (!l->woken && (r = arm(w, l)) != SHOAL_WAIT)
		keep(l, r);
	if (l->woken)
		watch_add_due(w, &l->watched);
	if (l->watched.due)
		watch_tell(w);
	pthread_mutex_unlock(&w->lock);
	return SHOAL_OK;
}

/* Under the lock. True: its wake is to be called, with the outcome in hand, or its time is over. */
static bool has_ended(struct watch *w, struct shoal_load *l)
{
	bool late = clock_system_ns(CLOCK_MONOTONIC) >= l->watched.deadline_ns;
	int r;

	if (l->woken)
		return true;
	if (l->joined && !l->queued)
		flight_relay_bells(load_segment(l), &l->ticket);
	r = arm(w, l);
	if (r != SHOAL_WAIT) {
		keep(l, r);
		return true;
	}
	if (!late)
		return false;
	watch_take(w, &l->watched);
	load_count_wait(l, clock_system_ns(CLOCK_MONOTONIC) - l->watched.began_ns);
	load_count(l, l->queued ? COUNTER_busy : COUNTER_timeouts);
	return true;
}

static struct shoal_load *first_due(struct watch *w)
{
	struct watched *e = cds_list_first_entry(&w->due, struct watched, node);

	return (struct shoal_load *)(void *)((char *)e - offsetof(struct shoal_load, watched));
}

/* As many as were due when it began: what becomes due meanwhile makes the fd readable again. False: a wake has forked,
 * and this is the child, in which the lock may be held for ever. */
static bool attend(struct watch *w)
{
	unsigned n = w->n_due;
	struct shoal_load *l;
	shoal_wake *wake;
	void *arg;

	while (n-- && !w->closed && w->n_due) {
		l = first_due(w);
		watch_take(w, &l->watched);
		if (!has_ended(w, l))
			continue;
		l->watched.of = NULL;
		wake = l->watched.wake;
		arg = l->watched.arg;
		pthread_mutex_unlock(&w->lock);
		wake(l, arg);
		if (getpid() != w->pid)
			return false;
		pthread_mutex_lock(&w->lock);
	}
	return true;
}

EXPORT int shoal_dispatch(struct shoal *cache)
{
	struct watch *w;

	if (!cache)
		return SHOAL_ERR_INVALID;
	w = watch_of(cache);
	if (!w)
		return SHOAL_OK;
	pthread_mutex_lock(&w->lock);
	w->users++;
	watch_collect(w);
	if (!attend(w))
		return SHOAL_OK;
	if (!w->closed)
		watch_go_on(w);
	watch_release(w);
	return SHOAL_OK;
}
