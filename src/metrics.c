/* SPDX-License-Identifier: MIT */
/*
 * The statistics as Prometheus text, version 0.0.4: one family after the other, each with all of its series, so
 * everything is looked at first. A histogram's buckets are whole octaves of histogram.h, whose edges are powers of two
 * of 1.024 us.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

/* ---- what is looked at ------------------------------------------------------------------------------------- */

struct seen_keyspace {
	char name[NAME_SIZE];
	uint32_t version;
	struct shoal_keyspace_stats stats;
	struct times times;
};

struct seen_process {
	pid_t pid;
	unsigned blocks;
};

struct seen {
	const char *name; /* NULL: no label */
	struct shoal *cache;
	struct shoal_stats stats;
	struct shoal_info info;
	struct seen_keyspace *keyspaces;
	struct seen_process *blockers;
	size_t n, blockers_n;
};

/* Room for one more; full at powers of two. */
static void *grown(void *array, size_t n, size_t size)
{
	return n & (n - 1) ? array : realloc(array, (n ? 2 * n : 1) * size);
}

static int see_keyspace(const struct shoal_keyspace_info *info, void *arg)
{
	struct seen *seen = arg;
	struct seen_keyspace *all = grown(seen->keyspaces, seen->n, sizeof(*all)), *k;

	if (!all)
		return SHOAL_ERR_SYSTEM;
	seen->keyspaces = all;
	k = &all[seen->n++];
	memcpy(k->name, info->name, NAME_SIZE);
	k->version = info->version;
	return stats_of(seen->cache, info->number, &k->stats, &k->times);
}

static int see_process(const struct shoal_process *p, void *arg)
{
	struct seen *seen = arg;
	struct seen_process *all;

	if (!p->blocks)
		return 0;
	all = grown(seen->blockers, seen->blockers_n, sizeof(*all));
	if (!all)
		return SHOAL_ERR_SYSTEM;
	seen->blockers = all;
	all[seen->blockers_n++] = (struct seen_process){p->pid, p->blocks};
	return 0;
}

static int see(struct seen *seen, const char *name, struct shoal *cache)
{
	int r;

	seen->name = name;
	seen->cache = cache;
	r = shoal_info(cache, &seen->info);
	if (!r)
		r = shoal_stats(cache, &seen->stats);
	if (!r)
		r = shoal_keyspaces(cache, see_keyspace, seen);
	return r ? r : shoal_processes(cache, see_process, seen);
}

/* ---- how it is written ------------------------------------------------------------------------------------- */

struct text {
	FILE *to;
	const struct seen *seen;
	size_t n;
};

enum source { COUNT, SECONDS_OF_MS, SECONDS_OF_NS, MS_DOUBLE, MS32 };

/* A series of each keyspace or each cache. The first of a family says what it is. */
struct series {
	const char *family, *type, *help; /* NULL: one more of the family before */
	const char *label;                /* or "" */
	size_t at;                        /* of the field in the statistics */
	enum source source;
	size_t minus[3];                  /* fields to be taken off it; 0: none */
};

static double value_at(const void *stats, size_t at, enum source source)
{
	const char *field = (const char *)stats + at;

	switch (source) {
	case MS_DOUBLE: return *(const double *)(const void *)field / 1e3;
	case MS32: return *(const uint32_t *)(const void *)field / 1e3;
	case SECONDS_OF_MS: return (double)*(const uint64_t *)(const void *)field / 1e3;
	case SECONDS_OF_NS: return (double)*(const uint64_t *)(const void *)field / 1e9;
	default: return (double)*(const uint64_t *)(const void *)field;
	}
}

static double value_of(const void *stats, const struct series *s)
{
	double value = value_at(stats, s->at, s->source);
	unsigned i;

	for (i = 0; i < 3 && s->minus[i]; i++)
		value -= value_at(stats, s->minus[i], s->source);
	return value;
}

/* {cache="...",keyspace="...",version="1",reason="..."}; names have no character that would need an escape but for
 * those that callers give to shoal_metrics_all(). */
static void write_labels(FILE *to, const char *cache, const struct seen_keyspace *k, const char *more)
{
	const char *c, *comma = "";

	if (!cache && !k && !*more)
		return;
	fputc('{', to);
	if (cache) {
		fputs("cache=\"", to);
		for (c = cache; *c; c++) {
			if (*c == '\\' || *c == '"' || *c == '\n')
				fputc('\\', to);
			fputc(*c == '\n' ? 'n' : *c, to);
		}
		fputc('"', to);
		comma = ",";
	}
	if (k) {
		fprintf(to, "%skeyspace=\"%s\",version=\"%" PRIu32 "\"", comma, k->name, k->version);
		comma = ",";
	}
	if (*more)
		fprintf(to, "%s%s", comma, more);
	fputc('}', to);
}

static void write_value(FILE *to, double value)
{
	fprintf(to, " %.15g\n", value);
}

static void head(FILE *to, const char *family, const char *type, const char *help)
{
	if (family)
		fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", family, help, family, type);
}

/* The n rows of a family, for each keyspace of each cache, or for each cache. */
static void write_family(const struct text *t, const struct series *rows, size_t n, bool of_keyspace)
{
	const struct seen *seen;
	size_t i, k;

	head(t->to, rows->family, rows->type, rows->help);
	for (seen = t->seen; seen < t->seen + t->n; seen++) {
		for (k = 0; k < (of_keyspace ? seen->n : 1); k++) {
			for (i = 0; i < n; i++) {
				fputs(rows->family, t->to);
				write_labels(t->to, seen->name, of_keyspace ? &seen->keyspaces[k] : NULL,
				             rows[i].label);
				write_value(t->to, value_of(of_keyspace ? (const void *)&seen->keyspaces[k].stats
									: (const void *)&seen->stats, &rows[i]));
			}
		}
	}
}

static void write_table(const struct text *t, const struct series *rows, size_t n, bool of_keyspace)
{
	size_t from, to;

	for (from = 0; from < n; from = to) {
		for (to = from + 1; to < n && !rows[to].family;)
			to++;
		write_family(t, rows + from, to - from, of_keyspace);
	}
}

/* ---- the tables -------------------------------------------------------------------------------------------- */

#define K(field) offsetof(struct shoal_keyspace_stats, field)
#define MORE NULL, NULL, NULL

static const struct series of_keyspaces[] = {
	{"shoal_hits_total", "counter", "Look-ups answered from the segment.", "freshness=\"fresh\"", K(hits_fresh),
	 COUNT, {0}},
	{MORE, "freshness=\"stale\"", K(hits_stale), COUNT, {0}},
	{"shoal_misses_total", "counter", "Look-ups without a value.", "reason=\"absent\"", K(misses), COUNT,
	 {K(misses_expired), K(schema_mismatches), K(misses_corrupt)}},
	{MORE, "reason=\"expired\"", K(misses_expired), COUNT, {0}},
	{MORE, "reason=\"schema\"", K(schema_mismatches), COUNT, {0}},
	{MORE, "reason=\"corrupt\"", K(misses_corrupt), COUNT, {0}},
	{"shoal_loads_total", "counter", "Loads begun.", "", K(loads), COUNT, {0}},
	{"shoal_load_errors_total", "counter", "Loads that failed.", "", K(load_errors), COUNT, {0}},
	{"shoal_loads_running", "gauge", "Loads that run now.", "", K(running), COUNT, {0}},
	{"shoal_oldest_load_seconds", "gauge", "Age of the oldest load that runs now.", "", K(oldest_load_ms),
	 MS_DOUBLE, {0}},
	{"shoal_coalesced_total", "counter", "Callers that got the value of another's load.", "", K(coalesced),
	 COUNT, {0}},
	{"shoal_takeovers_total", "counter", "Loads begun because the leader died, gave up, or outlived its lease.",
	 "reason=\"dead\"", K(takeovers), COUNT, {K(takeovers_gave_up)}},
	{MORE, "reason=\"gave_up\"", K(takeovers_gave_up), COUNT, {0}},
	{MORE, "reason=\"lease\"", K(overdue), COUNT, {0}},
	{"shoal_superseded_total", "counter", "Loads whose value was not stored because something newer had happened.",
	 "", K(superseded), COUNT, {0}},
	{"shoal_timeouts_total", "counter", "Waits for another's load that ended without a value.", "", K(timeouts),
	 COUNT, {0}},
	{"shoal_busy_total", "counter", "Callers that got no permit to load.", "", K(busy), COUNT, {0}},
	{"shoal_uncached_total", "counter", "Loads that were not coalesced or not stored.", "reason=\"uncacheable\"",
	 K(uncacheable), COUNT, {0}},
	{MORE, "reason=\"no_room\"", K(uncached), COUNT, {K(uncacheable)}},
	{"shoal_stale_age_seconds_total", "counter",
	 "For how long the stale values served had not been fresh, summed up.", "",
	 K(stale_ms_sum), SECONDS_OF_MS, {0}},
	{"shoal_early_refreshes_total", "counter", "Refreshes before the value was stale.", "", K(early_refreshes),
	 COUNT, {0}},
	{"shoal_migrated_total", "counter", "Values carried over from another version.", "", K(migrated), COUNT, {0}},
	{"shoal_rejected_total", "counter", "Values that their reader could not decode.", "", K(rejected), COUNT, {0}},
	{"shoal_corrupt_total", "counter", "Values that failed a check.", "", K(corrupt), COUNT, {0}},
	{"shoal_distinct_keys", "gauge", "Keys ever loaded or set: an estimate, off by 3 percent.", "",
	 K(distinct_keys), COUNT, {0}},
	{"shoal_policy_seconds", "gauge", "The policy that the keyspace was last opened with.", "bound=\"fresh\"",
	 K(fresh_ms), MS32, {0}},
	{MORE, "bound=\"stale\"", K(stale_ms), MS32, {0}},
	{MORE, "bound=\"error\"", K(error_ms), MS32, {0}},
	{MORE, "bound=\"lease\"", K(lease_ms), MS32, {0}},
};

#define S(field) offsetof(struct shoal_stats, field)

static const struct series of_caches[] = {
	{"shoal_bytes", "gauge", "The segment's memory by state.", "state=\"live\"", S(bytes_live), COUNT, {0}},
	{MORE, "state=\"dead\"", S(bytes_dead), COUNT, {0}},
	{MORE, "state=\"free\"", S(bytes_free), COUNT, {0}},
	{MORE, "state=\"overhead\"", S(bytes_overhead), COUNT, {0}},
	{"shoal_entries", "gauge", "Values in the segment.", "", S(entries), COUNT, {0}},
	{"shoal_evicted_entries_total", "counter", "Values that were evicted.", "reason=\"cold\"", S(evicted_entries),
	 COUNT, {S(evicted_expired)}},
	{MORE, "reason=\"expired\"", S(evicted_expired), COUNT, {0}},
	{MORE, "reason=\"displaced\"", S(displaced_entries), COUNT, {0}},
	{"shoal_evicted_extents_total", "counter", "Pieces of the log that were emptied.", "reason=\"empty\"",
	 S(evicted_by[SHOAL_EVICTED_EMPTY]), COUNT, {0}},
	{MORE, "reason=\"expired\"", S(evicted_by[SHOAL_EVICTED_EXPIRED]), COUNT, {0}},
	{MORE, "reason=\"dead\"", S(evicted_by[SHOAL_EVICTED_DEAD]), COUNT, {0}},
	{MORE, "reason=\"probation\"", S(evicted_by[SHOAL_EVICTED_PROBATION]), COUNT, {0}},
	{MORE, "reason=\"main\"", S(evicted_by[SHOAL_EVICTED_MAIN]), COUNT, {0}},
	{"shoal_reappended_bytes_total", "counter", "Bytes of values that eviction kept.", "", S(reappended_bytes),
	 COUNT, {0}},
	{"shoal_grace_blocked_seconds_total", "counter",
	 "How long evicted extents had to wait for readers to leave them.", "",
	 S(grace_blocked_ms), SECONDS_OF_MS, {0}},
	{"shoal_grace_waiting_extents", "gauge", "Evicted extents that wait for readers now.", "", S(grace_waiting),
	 COUNT, {0}},
};

/* Fields of 32 bits, and of struct shoal_info. */
static void write_gauges(const struct text *t)
{
	static const struct {
		const char *family, *help;
		size_t at;
		bool of_info;
	} rows[] = {
		{"shoal_processes", "Processes that are attached.", S(processes), false},
		{"shoal_threads", "Threads that have used the segment.", S(threads), false},
		{"shoal_pins", "Pieces of the log held by values in hand.", S(pins), false},
		{"shoal_flights", "Keys that are being loaded.", S(flights), false},
		{"shoal_permits_used", "Loads that hold a permit.", S(permits_used), false},
		{"shoal_processes_limit", "Processes that can be attached.", offsetof(struct shoal_info, max_processes),
		 true},
		{"shoal_threads_limit", "Threads that can use the segment.", offsetof(struct shoal_info, max_threads),
		 true},
		{"shoal_flights_limit", "Keys that can be loaded at once.", offsetof(struct shoal_info, max_flights),
		 true},
		{"shoal_permits_limit", "Loads that may run at once; 0: no bound.",
		 offsetof(struct shoal_info, max_loads), true},
	};
	const struct seen *seen;
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		head(t->to, rows[i].family, "gauge", rows[i].help);
		for (seen = t->seen; seen < t->seen + t->n; seen++) {
			const char *at =
				(rows[i].of_info ? (const char *)&seen->info : (const char *)&seen->stats) + rows[i].at;

			fputs(rows[i].family, t->to);
			write_labels(t->to, seen->name, NULL, "");
			write_value(t->to, *(const uint32_t *)(const void *)at);
		}
	}
}

/* ---- the others -------------------------------------------------------------------------------------------- */

#define FIRST_OCTAVE 3u /* up to 16.384 us */
#define LAST_OCTAVE 26u /* up to 137 s */

static void write_buckets(const struct text *t, const char *family, const char *cache, const struct seen_keyspace *k,
                          const uint64_t histogram[HISTOGRAM_BUCKETS], uint64_t ns_sum)
{
	uint64_t count = 0;
	unsigned bucket = 0, octave;
	char label[32];

	for (octave = FIRST_OCTAVE; octave <= LAST_OCTAVE; octave++) {
		for (; bucket < octave * 4; bucket++)
			count += histogram[bucket];
		snprintf(label, sizeof(label), "le=\"%.9g\"", (double)((uint64_t)2048 << octave) / 1e9);
		fprintf(t->to, "%s_bucket", family);
		write_labels(t->to, cache, k, label);
		write_value(t->to, (double)count);
	}
	for (; bucket < HISTOGRAM_BUCKETS; bucket++)
		count += histogram[bucket];
	fprintf(t->to, "%s_bucket", family);
	write_labels(t->to, cache, k, "le=\"+Inf\"");
	write_value(t->to, (double)count);
	fprintf(t->to, "%s_sum", family);
	write_labels(t->to, cache, k, "");
	write_value(t->to, (double)ns_sum / 1e9);
	fprintf(t->to, "%s_count", family);
	write_labels(t->to, cache, k, "");
	write_value(t->to, (double)count);
}

static void write_histograms(const struct text *t)
{
	const struct seen *seen;
	const struct seen_keyspace *k;

	head(t->to, "shoal_load_duration_seconds", "histogram", "How long loads took.");
	for (seen = t->seen; seen < t->seen + t->n; seen++)
		for (k = seen->keyspaces; k < seen->keyspaces + seen->n; k++)
			write_buckets(t, "shoal_load_duration_seconds", seen->name, k, k->times.load,
			              k->stats.load_ns_sum);
	head(t->to, "shoal_wait_duration_seconds", "histogram",
	     "How long callers waited for another's load or a permit.");
	for (seen = t->seen; seen < t->seen + t->n; seen++)
		for (k = seen->keyspaces; k < seen->keyspaces + seen->n; k++)
			write_buckets(t, "shoal_wait_duration_seconds", seen->name, k, k->times.wait,
			              k->stats.wait_ns_sum);
}

/* A keyspace in which nothing was ever stored has no such series: an alert on its absence is another one. */
static void write_last_store(const struct text *t)
{
	const struct seen *seen;
	const struct seen_keyspace *k;

	head(t->to, "shoal_last_store_age_seconds", "gauge", "Since a value was last stored.");
	for (seen = t->seen; seen < t->seen + t->n; seen++) {
		for (k = seen->keyspaces; k < seen->keyspaces + seen->n; k++) {
			if (k->stats.last_store_ms < 0)
				continue;
			fputs("shoal_last_store_age_seconds", t->to);
			write_labels(t->to, seen->name, k, "");
			write_value(t->to, k->stats.last_store_ms / 1e3);
		}
	}
}

static void write_blockers(const struct text *t)
{
	const struct seen *seen;
	char label[32];
	size_t i;

	head(t->to, "shoal_grace_blocking_extents", "gauge", "Evicted extents that a process has not left.");
	for (seen = t->seen; seen < t->seen + t->n; seen++) {
		for (i = 0; i < seen->blockers_n; i++) {
			snprintf(label, sizeof(label), "pid=\"%d\"", (int)seen->blockers[i].pid);
			fputs("shoal_grace_blocking_extents", t->to);
			write_labels(t->to, seen->name, NULL, label);
			write_value(t->to, seen->blockers[i].blocks);
		}
	}
}

static void write_build(const struct text *t)
{
	const struct seen *seen;
	char label[64];

	head(t->to, "shoal_build_info", "gauge", "1, with the versions of library and layout.");
	for (seen = t->seen; seen < t->seen + t->n; seen++) {
		snprintf(label, sizeof(label), "version=\"%s\",layout=\"%u\"", shoal_version(), seen->info.layout);
		fputs("shoal_build_info", t->to);
		write_labels(t->to, seen->name, NULL, label);
		write_value(t->to, 1);
	}
}

static int write_all(const struct text *t)
{
	write_build(t);
	write_table(t, of_keyspaces, sizeof(of_keyspaces) / sizeof(*of_keyspaces), true);
	write_histograms(t);
	write_last_store(t);
	write_table(t, of_caches, sizeof(of_caches) / sizeof(*of_caches), false);
	write_gauges(t);
	write_blockers(t);
	return fflush(t->to) || ferror(t->to) ? SHOAL_ERR_SYSTEM : SHOAL_OK;
}

EXPORT int shoal_metrics_all(struct shoal *const *caches, const char *const *names, size_t n, FILE *to)
{
	struct seen *seen;
	size_t i;
	int r = SHOAL_OK;

	if (!to || !n || !caches)
		return SHOAL_ERR_INVALID;
	seen = calloc(n, sizeof(*seen));
	if (!seen)
		return SHOAL_ERR_SYSTEM;
	for (i = 0; i < n && !r; i++)
		r = caches[i] ? see(&seen[i], names ? names[i] : NULL, caches[i]) : SHOAL_ERR_INVALID;
	if (!r)
		r = write_all(&(struct text){to, seen, n});
	for (i = 0; i < n; i++) {
		free(seen[i].keyspaces);
		free(seen[i].blockers);
	}
	free(seen);
	return r;
}

EXPORT int shoal_metrics(struct shoal *cache, FILE *to)
{
	return shoal_metrics_all(&cache, NULL, 1, to);
}
