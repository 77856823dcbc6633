/* SPDX-License-Identifier: MIT */
/*
 * Warming: load what is missing or stale, no faster than told, and stop before the origin suffers.
 *
 * The rate is a token bucket in the form of GCRA, the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"),
 * which needs one word for all who share it: the time at which the next load is due if all are spaced evenly.
 *
 *        due                 due - now <= tolerance: a load may begin, and due = max(due, now) + interval
 *   ------|------|------|----->
 *        now          due      else it may at due - tolerance
 *
 * interval = 1 / rate, tolerance = (burst - 1) intervals.
 *
 * W.1  `due` moves by one CAS, from a value that was read before the clock was. Who is killed before the CAS has taken
 *      nothing; after it, one load that nobody makes. There is nothing to repair.
 * W.2  Callers at one rate never leave `due` beyond now + tolerance + interval. If it is found there, a slower one has
 *      left it (or it is garbage), and it is brought back to that: so nobody waits for more than one interval and those
 *      who are served before him, and rates that differ add up at most.
 *
 * The turn is taken before the key is claimed: nobody should have to wait for a leader that waits for its turn. If the
 * key turns out to need no load any more, the turn is kept for the next one.
 */
#include <sched.h>
#include <string.h>
#include <time.h>

#include "fetch.h"
#include "store.h"

#define SLICE_NS 50000000u /* sleeps are cut, so that `progress` is called in time */
#define DAY_NS 86400000000000.0
#define WINDOW 32u         /* loads that are judged: a bit each */
#define ERRORS_FROM 16u    /* loads that make a share */
#define SLOW_LOADS 2       /* of WINDOW: what the 95th percentile of 32 is made of */

struct pace {
	uint64_t interval, tolerance; /* ns; interval 0: no bound */
};

struct warming {
	struct shoal_keyspace *k;
	shoal_next_key *next;
	shoal_loader *loader;
	void *arg;
	struct shoal_warm config; /* resolved */
	struct pace pace;
	bool may_load;            /* its turn has come, and no load was made of it yet */
	bool ran;                 /* the loader did, for the key in hand */
	int code;                 /* then: what it returned ... */
	uint64_t load_ns;         /* ... and its time */
	uint32_t slow, bad;       /* of the last loads, the latest in bit 0 */
	uint64_t began_ns, told_ns;
	struct shoal_warm_report *report;
};

/* ---- time -------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(const struct shoal_keyspace *k)
{
	uint64_t now;

	urcu_bp_read_lock();
	now = clock_ns(&move_member(&k->cache->member)->segment.clock);
	urcu_bp_read_unlock();
	return now;
}

/* Towards that time, but not for long. A clock of the caller's is asked again at once: it isn't ours to sleep by. */
static void sleep_towards(const struct shoal_keyspace *k, uint64_t at_ns)
{
	struct timespec t;
	bool system;

	urcu_bp_read_lock();
	system = !move_member(&k->cache->member)->segment.clock.now;
	urcu_bp_read_unlock();
	if (!system) {
		sched_yield();
		return;
	}
	at_ns = min_u64(at_ns, clock_system_ns(CLOCK_MONOTONIC) + SLICE_NS);
	t = (struct timespec){(time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000)};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL); /* a signal: looks again, which is harmless */
}

/* ---- the rate ---------------------------------------------------------------------------------------------- */

static struct pace pace_of(const struct shoal_warm *config)
{
	double interval = 1e9 / config->per_second;
	uint64_t burst = max_u64(min_u64(config->processes, READERS_MAX), 1);
	struct pace p;

	if (interval < 1)
		return (struct pace){0};
	if (interval > DAY_NS)
		interval = DAY_NS;
	p.interval = (uint64_t)interval;
	p.interval += (double)p.interval < interval;
	burst = max_u64(burst, (uint64_t)(config->per_second / 10));
	p.tolerance = (burst - 1) * p.interval;
	return p;
}

/* May a load begin now? Else when to ask again. */
static bool take_turn(const struct shoal_keyspace *k, const struct pace *p, uint64_t *ask_at)
{
	const struct segment *s;
	struct member *m;
	uint64_t due, now, latest;
	int error;
	bool taken = false;
	word64 *word;

	if (!p->interval)
		return true;
	if (!(m = handle_look(k->cache, &error)))
		return true; /* whoever looks the key up next tells why */
	s = &m->segment;
	word = &s->keyspaces[k->id].warm;
	due = w64_load(word);
	now = clock_ns(&s->clock); /* W.1: not before the word */
	latest = now + p->tolerance + p->interval;
	*ask_at = due > p->tolerance ? due - p->tolerance : 0;
	if (due > latest) { /* W.2 */
		w64_cas(word, due, latest);
		*ask_at = now;
	} else if (*ask_at <= now) {
		taken = w64_cas(word, due, max_u64(due, now) + p->interval);
	}
	handle_leave();
	return taken;
}

/* ---- the report -------------------------------------------------------------------------------------------- */

static void dealt_with(struct warming *w, uint64_t *kind)
{
	(*kind)++;
	w->report->consumed++;
	w->report->key = (struct shoal_slice){0};
}

static void measure(struct warming *w, uint64_t now)
{
	struct shoal_warm_report *report = w->report;
	double ms = (double)(now - w->began_ns) / 1e6;

	report->elapsed_ms = (now - w->began_ns) / 1000000;
	report->loads_per_second = ms > 0 ? (double)(report->loaded + report->failed) * 1000 / ms : 0;
	report->eta_ms = -1;
	if (!report->total || !report->consumed || ms <= 0)
		return;
	report->eta_ms = (int64_t)((double)(report->total - min_u64(report->consumed, report->total)) * ms /
				   (double)report->consumed);
}

/* False: the caller has had enough. */
static bool tell(struct warming *w)
{
	uint64_t now;

	if (!w->config.progress)
		return true;
	now = now_ns(w->k);
	if (now - w->told_ns < (uint64_t)w->config.progress_ms * 1000000)
		return true;
	w->told_ns = now;
	measure(w, now);
	if (w->config.progress(w->report, w->arg))
		w->report->stopped = SHOAL_WARM_CALLER;
	return !w->report->stopped;
}

/* ---- one key ----------------------------------------------------------------------------------------------- */

/* Not by shoal_get(): a look of ours is no hit, and makes no value hot. */
static int look(const struct warming *w, const struct shoal_slice *slice, bool *fresh)
{
	struct index_hit hit;
	struct seat *seat;
	struct key key;
	int r = SHOAL_OK;

	seat = handle_enter(w->k->cache, &r);
	if (!seat)
		return r;
	if (store_key(w->k, slice->data, slice->size, &key)) {
		*fresh = store_find(seat, w->k, &key, READING, &hit) == AGE_FRESH;
		rcu_clear(seat, READING);
	} else {
		r = SHOAL_ERR_INVALID;
	}
	handle_leave();
	return r;
}

static int run_timed(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct warming *w = arg;
	uint64_t began = now_ns(w->k);

	w->ran = true;
	w->code = w->loader(load, key, key_size, w->arg);
	w->load_ns = now_ns(w->k) - began;
	return w->code;
}

static bool is_slow(const struct warming *w)
{
	return w->config.stop_load_ms != SHOAL_NONE && w->load_ns > (uint64_t)w->config.stop_load_ms * 1000000;
}

static void judge(struct warming *w, bool bad)
{
	const struct shoal_warm_report *report = w->report;
	uint64_t n = min_u64(report->loaded + report->failed, WINDOW);

	w->may_load = false;
	w->slow = w->slow << 1 | is_slow(w);
	w->bad = w->bad << 1 | bad;
	if ((double)w->load_ns / 1e6 > report->slowest_ms)
		w->report->slowest_ms = (double)w->load_ns / 1e6;
	if (__builtin_popcount(w->slow) >= SLOW_LOADS)
		w->report->stopped = SHOAL_WARM_SLOW;
	else if (w->config.stop_error_permille != SHOAL_NONE && n >= ERRORS_FROM &&
		 (uint64_t)__builtin_popcount(w->bad) * 1000 > n * w->config.stop_error_permille)
		w->report->stopped = SHOAL_WARM_ERRORS;
}

static int after_loader(struct warming *w, bool loaded)
{
	struct shoal_warm_report *report = w->report;
	struct shoal_slice key = report->key;
	bool there = false;
	int r = SHOAL_OK;

	dealt_with(w, loaded ? &report->loaded : &report->failed);
	if (loaded) {
		r = look(w, &key, &there);
		report->unstored += !there;
	} else {
		report->load_error = w->code;
	}
	judge(w, !loaded);
	return r;
}

/* No loader was needed, or none may run. */
static int without_loader(struct warming *w, int r, const struct shoal_value *value)
{
	struct shoal_warm_report *report = w->report;

	switch (r) {
	case SHOAL_OK:
		dealt_with(w, value->source == SHOAL_MIGRATED ? &report->migrated
			      : value->freshness == SHOAL_FRESH ? &report->fresh
								: &report->skipped);
		return SHOAL_OK;
	case SHOAL_ERR_LOAD:
	case SHOAL_ERR_TIMEOUT:
	case SHOAL_ERR_DEADLOCK: /* by a loader of this very thread */
		dealt_with(w, &report->skipped);
		return SHOAL_OK;
	case SHOAL_ERR_BUSY:
		report->stopped = SHOAL_WARM_BUSY;
		return SHOAL_OK;
	default:
		return r;
	}
}

static int load_key(struct warming *w)
{
	const struct shoal_slice *key = &w->report->key;
	struct shoal_value value = {0};
	uint64_t ask_at = 0;
	int r;

	while (!w->may_load && !(w->may_load = take_turn(w->k, &w->pace, &ask_at))) {
		if (!tell(w))
			return SHOAL_OK;
		sleep_towards(w->k, ask_at);
	}
	w->ran = false;
	r = fetch_unjoined(w->k, key->data, key->size, run_timed, w, &value);
	r = w->ran ? after_loader(w, r == SHOAL_OK && value.source == SHOAL_LOADED) : without_loader(w, r, &value);
	shoal_release(&value);
	return r;
}

static int warm_next(struct warming *w)
{
	struct shoal_slice key = {0};
	bool fresh = false;
	int r;

	r = w->next(w->arg, &key);
	if (r == SHOAL_MISS) {
		w->report->stopped = SHOAL_WARM_DONE;
		return SHOAL_OK;
	}
	if (r)
		return r < 0 ? r : SHOAL_ERR_INVALID;
	w->report->key = key;
	r = look(w, &key, &fresh);
	if (r)
		return r;
	if (fresh)
		dealt_with(w, &w->report->fresh);
	else
		r = load_key(w);
	if (!r && !w->report->stopped)
		tell(w);
	return r;
}

/* ---- the call ---------------------------------------------------------------------------------------------- */

static struct shoal_warm resolve(const struct shoal_warm *given, const struct shoal_policy *policy)
{
	struct shoal_warm c = {0};

	if (given)
		c = *given;
	if (c.per_second == 0)
		c.per_second = 100;
	if (!c.stop_load_ms)
		c.stop_load_ms = policy->lease_ms ? policy->lease_ms / 2 : SHOAL_NONE;
	if (!c.stop_error_permille)
		c.stop_error_permille = 200;
	c.progress_ms = handle_or_default(c.progress_ms, 1000);
	return c;
}

EXPORT int shoal_warm_keys(struct shoal_keyspace *k, shoal_next_key *next, shoal_loader *loader, void *arg,
                           const struct shoal_warm *config, struct shoal_warm_report *report)
{
	struct warming w = {.k = k, .next = next, .loader = loader, .arg = arg, .report = report};
	int r = SHOAL_OK;

	if (!k || !next || !loader || !report || (config && !(config->per_second >= 0)))
		return SHOAL_ERR_INVALID;
	w.config = resolve(config, &k->policy);
	w.pace = pace_of(&w.config);
	w.began_ns = w.told_ns = now_ns(k);
	memset(report, 0, sizeof(*report));
	report->total = w.config.total;
	while (!r && !report->stopped)
		r = warm_next(&w);
	if (r)
		report->stopped = SHOAL_WARM_ABORTED;
	measure(&w, now_ns(k));
	return r;
}
