/* SPDX-License-Identifier: MIT */
/* stat: what is counted, of a cache and of its keyspaces; once, or again and again with what was added. */
#include "cli.h"
#include "escape.h"
#include "json.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct stat {
	struct cache_options cache;
	struct option_keyspace keyspace;
	uint32_t watch;
	uint64_t count;
	bool json, prom;
};

static const struct option_spec stat_options[] = {
	OPTION_CACHE(struct stat),
	{"keyspace", 'k', OPTION_KEYSPACE(struct stat, keyspace), "KEYSPACE",
	 "of this one alone; NAME without @VERSION: all versions of it", 0},
	{"watch", 'w', OPTION_DURATION(struct stat, watch), "DURATION",
	 "again and again, with what was added in each such time", 0},
	{"count", 'n', OPTION_COUNT(struct stat, count), "N", "of --watch: end after N times (for ever)", 0},
	{"json", 'j', OPTION_FLAG(struct stat, json), NULL, "JSON, a line for each keyspace and one for the cache", 0},
	{"prom", 0, OPTION_FLAG(struct stat, prom), NULL, "Prometheus text, of all keyspaces", 0},
	OPTIONS_END,
};

struct row {
	char name[64]; /* "": the whole segment */
	uint32_t version;
	struct shoal_keyspace_stats now, last;
};

struct view {
	const struct stat *o;
	struct row *rows; /* the segment's first, then each keyspace's */
	size_t count;
	struct shoal_stats stats, last;
	double seconds; /* since the last look; 0: the first */
};

/* ---- a look ------------------------------------------------------------------------------------------------ */

static bool is_wanted(const struct option_keyspace *k, const char *name, uint32_t version)
{
	return !k->given || (!strcmp(k->name, name) && (k->any || k->version == version));
}

static struct row *row_of(struct view *v, const char *name, uint32_t version)
{
	struct row *more;
	size_t i;

	for (i = 0; i < v->count; i++)
		if (v->rows[i].version == version && !strcmp(v->rows[i].name, name))
			return &v->rows[i];
	more = realloc(v->rows, (v->count + 1) * sizeof(*more));
	if (!more)
		return NULL;
	v->rows = more;
	more = &v->rows[v->count++];
	memset(more, 0, sizeof(*more));
	snprintf(more->name, sizeof(more->name), "%s", name);
	more->version = version;
	return more;
}

static int see(struct view *v, const char *name, uint32_t version, const struct shoal_keyspace_stats *now)
{
	struct row *r = row_of(v, name, version);

	if (!r)
		return SHOAL_ERR_SYSTEM;
	r->last = r->now;
	r->now = *now;
	return SHOAL_OK;
}

static int see_keyspace(const struct shoal_keyspace_info *k, void *arg)
{
	struct view *v = arg;

	return is_wanted(&v->o->keyspace, k->name, k->version) ? see(v, k->name, k->version, &k->stats) : SHOAL_OK;
}

static int look(struct view *v, struct shoal *cache)
{
	int r;

	v->last = v->stats;
	r = shoal_stats(cache, &v->stats);
	if (r == SHOAL_OK && !v->o->keyspace.given)
		r = see(v, "", 0, &v->stats.total);
	return r == SHOAL_OK ? shoal_keyspaces(cache, see_keyspace, v) : r;
}

/* ---- figures ----------------------------------------------------------------------------------------------- */

static uint64_t requests(const struct shoal_keyspace_stats *s)
{
	return s->hits_fresh + s->hits_stale + s->misses;
}

/* Per cent of what there were; negative: there were none. */
static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : -1;
}

/* Those of a keyspace that only rise. */
#define COUNTERS(C) \
	C(hits_fresh) C(hits_stale) C(misses) C(misses_expired) C(misses_corrupt) C(loads) C(load_errors) C(coalesced) \
	C(takeovers) C(takeovers_gave_up) C(overdue) C(superseded) C(timeouts) C(busy) C(uncached) C(uncacheable) \
	C(early_refreshes) C(migrated) C(rejected) C(schema_mismatches) C(corrupt) C(load_ns_sum) C(wait_ns_sum) \
	C(stale_ms_sum)

/* Of the segment, likewise; and what it is like now. */
#define SEGMENT_COUNTERS(C) \
	C(evicted_entries) C(evicted_expired) C(evicted_extents) C(displaced_entries) C(reappended_bytes) \
	C(grace_blocked_ms) C(frequency_writes)
#define SEGMENT_STATE(S) \
	S(size) S(bytes_live) S(bytes_dead) S(bytes_free) S(bytes_overhead) S(bytes_reserve) S(entries) S(processes) \
	S(threads) S(pins) S(flights) S(permits_used) S(grace_waiting)

/* What was counted since the last look. What is no counter is as it is now. */
static struct shoal_keyspace_stats since(const struct shoal_keyspace_stats *now,
                                         const struct shoal_keyspace_stats *last)
{
	struct shoal_keyspace_stats d = *now;

#define SINCE(field) d.field = now->field - last->field;
	COUNTERS(SINCE)
#undef SINCE
	return d;
}

/* ---- for people -------------------------------------------------------------------------------------------- */

static const char *share_text(double percent, char to[UNIT_TEXT])
{
	if (percent < 0)
		snprintf(to, UNIT_TEXT, "-");
	else
		snprintf(to, UNIT_TEXT, "%.1f%%", percent);
	return to;
}

static const char *ratio_text(uint64_t part, uint64_t whole, char to[UNIT_TEXT])
{
	if (!whole)
		snprintf(to, UNIT_TEXT, "-");
	else
		snprintf(to, UNIT_TEXT, "%.4f", (double)part / (double)whole);
	return to;
}

static const char *ms_text(double ms, char to[UNIT_TEXT])
{
	snprintf(to, UNIT_TEXT, ms <= 0 ? "-" : ms < 10 ? "%.2f" : "%.0f", ms);
	return to;
}

/* 1234567 as 1.23M: the columns stay where they are. */
static const char *count_text(double n, char to[UNIT_TEXT])
{
	static const char units[] = " kMGTPE";
	unsigned u = 0;

	for (; n >= 999.5 && u < sizeof(units) - 2; u++)
		n /= 1000;
	if (u)
		snprintf(to, UNIT_TEXT, n < 9.995 ? "%.2f%c" : n < 99.95 ? "%.1f%c" : "%.0f%c", n, units[u]);
	else
		snprintf(to, UNIT_TEXT, n < 10 && n > 0 && n != (double)(int)n ? "%.1f" : "%.0f", n);
	return to;
}

static void print_row(const struct view *v, const struct row *r)
{
	struct shoal_keyspace_stats s = since(&r->now, &r->last);
	double per = v->seconds > 0 ? v->seconds : 1;
	char a[UNIT_TEXT], b[UNIT_TEXT], c[UNIT_TEXT], d[UNIT_TEXT], e[UNIT_TEXT], f[UNIT_TEXT], g[UNIT_TEXT],
		h[UNIT_TEXT], i[UNIT_TEXT], j[UNIT_TEXT], k[UNIT_TEXT];

	printf("%8s %6s %6s %8s %7s %7s %7s %7s %8s %8s %8s  ", count_text((double)requests(&s) / per, a),
	       share_text(percent(s.hits_fresh + s.hits_stale, requests(&s)), b),
	       share_text(percent(s.hits_stale, requests(&s)), c), count_text((double)s.loads / per, d),
	       ratio_text(s.loads, requests(&s), e), count_text((double)s.coalesced / per, f),
	       count_text((double)s.load_errors / per, g), count_text((double)s.takeovers / per, h),
	       ms_text(s.load_p50_ms, i), ms_text(s.load_p99_ms, j), ms_text(s.oldest_load_ms, k));
	if (*r->name) {
		escape_print(stdout, r->name, strlen(r->name)); /* a corrupt segment's may be anything */
		printf("@%" PRIu32 "\n", r->version);
	} else {
		puts("total");
	}
}

static void print_memory(const struct shoal_stats *s)
{
	char size[UNIT_TEXT], live[UNIT_TEXT], dead[UNIT_TEXT], free_[UNIT_TEXT], over[UNIT_TEXT], evicted[UNIT_TEXT],
		n[UNIT_TEXT];

	printf("%s entries; of %s: %s live, %s dead, %s free, %s tables; evicted: %s entries\n",
	       count_text((double)s->entries, n), unit_size_text(s->size, size), unit_size_text(s->bytes_live, live),
	       unit_size_text(s->bytes_dead, dead), unit_size_text(s->bytes_free, free_),
	       unit_size_text(s->bytes_overhead, over),
	       count_text((double)(s->evicted_entries + s->displaced_entries), evicted));
	printf("%" PRIu32 " processes, %" PRIu32 " threads, %" PRIu32 " pins, %" PRIu32 " flights, %" PRIu32
	       " permits taken\n\n",
	       s->processes, s->threads, s->pins, s->flights, s->permits_used);
}

static void print_table(const struct view *v)
{
	const char *per = v->seconds > 0 ? "/s" : "";
	char requests_[16], loads[16];
	size_t i;

	if (!v->o->keyspace.given)
		print_memory(&v->stats);
	snprintf(requests_, sizeof(requests_), "REQ%s", per);
	snprintf(loads, sizeof(loads), "LOADS%s", per);
	printf("%8s %6s %6s %8s %7s %7s %7s %7s %8s %8s %8s  %s\n", requests_, "HITS", "STALE", loads, "L/REQ", "COAL",
	       "ERRORS", "TAKEN", "P50 ms", "P99 ms", "OLDEST", "KEYSPACE");
	for (i = 0; i < v->count; i++)
		print_row(v, &v->rows[i]);
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

static void set_count(json_t *o, const char *name, uint64_t n)
{
	json_object_set_new(o, name, json_integer((json_int_t)n));
}

static void set_real(json_t *o, const char *name, double n)
{
	json_object_set_new(o, name, json_real(n));
}

/* null: there was nothing to divide by. */
static void set_ratio(json_t *o, const char *name, uint64_t part, uint64_t whole)
{
	json_object_set_new(o, name, whole ? json_real((double)part / (double)whole) : json_null());
}

static void set_life(json_t *o, const char *name, uint32_t ms)
{
	json_object_set_new(o, name, ms == SHOAL_FOREVER ? json_null() : json_integer(ms));
}

static void set_counters(json_t *o, const struct shoal_keyspace_stats *s)
{
#define SET(field) set_count(o, #field, s->field);
	COUNTERS(SET)
	SET(running)
#undef SET
	set_ratio(o, "hit_rate", s->hits_fresh + s->hits_stale, requests(s));
	set_ratio(o, "stale_share", s->hits_stale, requests(s));
	set_ratio(o, "loads_per_request", s->loads, requests(s));
#define SET(field) set_real(o, #field, s->field)
	SET(load_p50_ms);
	SET(load_p95_ms);
	SET(load_p99_ms);
	SET(wait_p50_ms);
	SET(wait_p99_ms);
	SET(oldest_load_ms);
#undef SET
}

static json_t *keyspace_json(const struct row *r, const struct shoal_keyspace_stats *s)
{
	json_t *o = json_object();

	json_set_bytes(o, "keyspace", r->name, strlen(r->name));
	set_count(o, "version", r->version);
	set_counters(o, s);
	set_count(o, "distinct_keys", s->distinct_keys);
	json_object_set_new(o, "last_store_ms", s->last_store_ms < 0 ? json_null() : json_real(s->last_store_ms));
	set_life(o, "fresh_ms", s->fresh_ms);
	set_life(o, "stale_ms", s->stale_ms);
	set_life(o, "error_ms", s->error_ms);
	set_life(o, "lease_ms", s->lease_ms);
	return o;
}

static json_t *total_json(const struct view *v, const struct shoal_keyspace_stats *total)
{
	const struct shoal_stats *s = &v->stats;
	json_t *o = json_object();

	json_set_bytes(o, "cache", cli_cache_name(&v->o->cache), strlen(cli_cache_name(&v->o->cache)));
	set_counters(o, total);
#define SET(field) set_count(o, #field, s->field);
	SEGMENT_STATE(SET)
#undef SET
#define SET(field) set_count(o, #field, s->field - v->last.field);
	SEGMENT_COUNTERS(SET)
#undef SET
	return o;
}

static int print_json(const struct view *v)
{
	struct shoal_keyspace_stats s;
	int status = EXIT_DONE;
	json_t *o;
	size_t i;

	for (i = 0; i < v->count && !status; i++) {
		s = since(&v->rows[i].now, &v->rows[i].last);
		o = *v->rows[i].name ? keyspace_json(&v->rows[i], &s) : total_json(v, &s);
		if (v->o->watch)
			set_real(o, "seconds", v->seconds);
		status = json_print(o);
	}
	return status;
}

/* ---- the verb ---------------------------------------------------------------------------------------------- */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_for(uint32_t ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

/* Once, or until it is enough. The first of many tells of all time. */
static int show(const struct call *call, struct view *v, struct shoal *cache)
{
	const struct stat *o = v->o;
	double before = 0, at;
	uint64_t i;
	int outcome;

	for (i = 0;; i++) {
		at = now();
		v->seconds = i ? at - before : 0;
		before = at;
		outcome = look(v, cache);
		if (outcome != SHOAL_OK)
			return cli_failed(call, cli_cache_name(&o->cache), outcome);
		if (!v->count && !i) {
			cli_error(call, "no keyspace '%s' in cache '%s'", o->keyspace.name, cli_cache_name(&o->cache));
			return EXIT_NONE;
		}
		if (i && !o->json)
			putchar('\n');
		if (o->json && print_json(v))
			return EXIT_FAILED;
		if (!o->json)
			print_table(v);
		if (fflush(stdout) || !o->watch || (o->count && i + 1 >= o->count))
			return EXIT_DONE;
		pause_for(o->watch);
	}
}

static int stat(const struct call *call)
{
	const struct stat *o = call->options;
	struct view v = {.o = o};
	struct shoal *cache;
	int status, outcome;

	if (o->json && o->prom)
		return cli_usage(call, "one of --json and --prom");
	if (o->prom && (o->keyspace.given || o->watch))
		return cli_usage(call, "--prom is of all keyspaces, once");
	if (o->watch == SHOAL_NONE || o->watch == SHOAL_FOREVER)
		return cli_usage(call, "--watch needs a duration above 0");
	if (o->count && !o->watch)
		return cli_usage(call, "--count needs --watch");
	status = cli_look(call, &o->cache, &cache);
	if (status)
		return status;
	if (o->prom) {
		outcome = shoal_metrics(cache, stdout);
		status = outcome == SHOAL_OK || ferror(stdout) ? EXIT_DONE
		                                               : cli_failed(call, cli_cache_name(&o->cache), outcome);
	} else {
		status = show(call, &v, cache);
	}
	free(v.rows);
	shoal_close(cache);
	return status;
}

const struct verb verb_stat = {
	.name = "stat", .group = GROUP_WATCH,
	.summary = "hits, misses, loads and memory, of a cache and its keyspaces",
	.options = stat_options, .size = sizeof(struct stat),
	.notes = "REQ are gets and fetches, HITS the share of them that found a value, STALE that found a stale one; "
		 "L/REQ loads for each\n"
		 "of them: what the origin sees. COAL waited for the load of another, "
		 "TAKEN were taken over from a dead leader. P50 and\n"
		 "P99 of how long loads take, OLDEST how long the oldest that runs has run. "
		 "With --watch the first table tells of all\n"
		 "time, each other one of the time since.\n\n"
		 "  shoal stat --cache shop --watch 1s --keyspace user.profile\n",
	.run = stat,
};
