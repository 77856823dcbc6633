/* SPDX-License-Identifier: MIT */
/*
 * shoal-replay: a trace on the real library, and how many of its requests miss.
 */
#include "play.h"
#include "sizing.h"
#include "trace.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 16 /* a switch of processes takes some microseconds, as long as many hits */
#define CAPACITY_MOST ((uint64_t)1 << 46)

struct replay {
	const char *path, *policy;
	uint64_t capacity; /* bytes of values */
	double share;      /* of the footprint, in place of a capacity; 0: none */
	unsigned processes, batch, extents;
	int json;

	struct trace trace;
	struct sizing sizing;
};

struct run {
	struct shoal_config config;
	struct play_result result;
	struct shoal_stats stats;
	uint64_t log_bytes;
	double seconds;
};

/* ---- runs -------------------------------------------------------------------------------------------------- */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run_on(const struct replay *replay, const struct sizing_segment *segment, struct run *run)
{
	struct play what = {
		.trace = &replay->trace,
		.cache = segment->cache,
		.max_entry = segment->config.max_entry,
		.header_bytes = replay->sizing.header_bytes,
		.processes = replay->processes,
		.batch = replay->batch,
	};
	double began = now();

	if (play(&what, &run->result) || shoal_stats(segment->cache, &run->stats) != SHOAL_OK)
		return -1;
	run->seconds = now() - began;
	run->config = segment->config;
	run->log_bytes = segment->log_bytes;
	return 0;
}

static int run_all(const struct replay *replay, struct run *run)
{
	struct sizing_wish wish = {
		.processes = replay->processes,
		.flags = strcmp(replay->policy, "fifo") ? 0 : SHOAL_FIFO,
	};
	struct sizing_segment segment;
	int rc;

	sizing_log(&replay->sizing, replay->capacity, replay->extents, &wish);
	if (sizing_open(&replay->sizing, &wish, &segment))
		return -1;
	rc = run_on(replay, &segment, run);
	shoal_close(segment.cache);
	return rc;
}

/* ---- output ------------------------------------------------------------------------------------------------ */

static double ratio(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

static uint64_t headers_in_log(const struct replay *replay, const struct run *run)
{
	const struct sizing *sizing = &replay->sizing;

	return (uint64_t)((double)run->log_bytes * sizing->header_bytes / (sizing->header_bytes + sizing->mean_value));
}

static void number(const char *name, uint64_t value)
{
	printf(",\n  \"%s\": %" PRIu64, name, value);
}

static void print_json(const struct replay *replay, const struct run *run)
{
	const struct play_result *result = &run->result;
	const struct shoal_stats *stats = &run->stats;

	printf("{\n  \"policy\": \"%s\"", replay->policy);
	number("processes", replay->processes);
	number("capacity", replay->capacity);
	number("requests", result->requests);
	number("misses", result->misses);
	printf(",\n  \"miss_ratio\": %.6f", ratio(result->misses, result->requests));
	printf(",\n  \"byte_miss_ratio\": %.6f", ratio(result->miss_bytes, result->request_bytes));
	number("keys", replay->trace.keys);
	number("footprint", replay->sizing.footprint);
	number("too_big", result->too_big);
	number("no_space", result->no_space);
	number("evicted_extents", stats->evicted_extents);
	number("evicted_entries", stats->evicted_entries);
	number("reappended_bytes", stats->reappended_bytes);
	number("hits_that_wrote", stats->frequency_writes);
	number("value_bytes_peak", result->value_bytes_peak);
	printf(",\n  \"header_bytes_per_entry\": %.1f", replay->sizing.header_bytes);
	number("header_bytes", headers_in_log(replay, run));
	number("log_bytes", run->log_bytes);
	number("reserve_bytes", stats->bytes_reserve);
	number("table_bytes", stats->bytes_overhead);
	number("segment_bytes", stats->size);
	number("extents", run->config.extents);
	number("max_entry", run->config.max_entry);
	number("mean_entry", run->config.mean_entry);
	printf(",\n  \"seconds\": %.3f\n}\n", run->seconds);
}

static void row(const char *name, uint64_t value)
{
	printf("  %-28s %16" PRIu64 "\n", name, value);
}

static void share(const char *name, uint64_t value, double percent, const char *of)
{
	printf("  %-28s %16" PRIu64 "  %6.2f %% of %s\n", name, value, percent, of);
}

static void print_table(const struct replay *replay, const struct run *run)
{
	const struct play_result *result = &run->result;
	const struct shoal_stats *stats = &run->stats;
	uint64_t hits = result->requests - result->misses, headers = headers_in_log(replay, run);

	row("requests", result->requests);
	share("misses", result->misses, 100 * ratio(result->misses, result->requests), "the requests");
	share("bytes missed", result->miss_bytes, 100 * ratio(result->miss_bytes, result->request_bytes), "the bytes");
	share("hits that wrote", stats->frequency_writes, 100 * ratio(stats->frequency_writes, hits), "the hits");
	row("misses too big to store", result->too_big);
	row("misses without space", result->no_space);
	row("extents evicted", stats->evicted_extents);
	row("bytes re-appended", stats->reappended_bytes);
	share("capacity, bytes of values", replay->capacity, 100 * ratio(replay->capacity, replay->sizing.footprint),
	      "the footprint");
	share("most values held, bytes", result->value_bytes_peak,
	      100 * ratio(result->value_bytes_peak, replay->capacity), "the capacity");
	share("log, bytes", run->log_bytes, 100 * ratio(run->log_bytes, replay->capacity), "the capacity");
	share("headers and keys in it", headers, 100 * ratio(headers, run->log_bytes), "the log");
	share("reserve beside it, bytes", stats->bytes_reserve, 100 * ratio(stats->bytes_reserve, run->log_bytes),
	      "the log");
	share("tables beside it, bytes", stats->bytes_overhead, 100 * ratio(stats->bytes_overhead, run->log_bytes),
	      "the log");
	printf("  %-28s %16.3f\n", "seconds", run->seconds);
}

/* ---- command line ------------------------------------------------------------------------------------------ */

static void usage(FILE *out)
{
	fputs("usage: replay --trace FILE --capacity BYTES [--policy s3fifo|fifo] [--processes N] [--extents N]\n"
	      "              [--batch N] [--json]\n"
	      "\n"
	      "For each line \"<key-id> <size>\" of the trace: get the key; on a miss, "
	      "set it to a value of that size.\n"
	      "A hit changes nothing, and nothing is left out: the first request of a key is a miss.\n"
	      "\n"
	      "  --trace FILE       plain or zstd; - is standard input\n"
	      "  --capacity BYTES   of values, or a share of the trace's footprint: 10%\n"
	      "  --policy NAME      what leaves a full cache: s3fifo (default) or fifo\n"
	      "  --processes N      take turns at the requests, in the order of the trace; default 1\n"
	      "  --batch N          requests in a turn; default 16\n"
	      "  --extents N        that the log is cut into; default: the library's\n"
	      "  --json             instead of a table\n"
	      "\n"
	      "The index and the other tables come on top. Values that don't fit an extent are not stored: "
	      "each request\n"
	      "of theirs is a miss. Exit status: 0, 1 after an error, 2 after a wrong command line.\n",
	      out);
}

static int wrong(const char *what, const char *text)
{
	fprintf(stderr, "replay: %s: %s (see --help)\n", what, text);
	return -1;
}

static int parse_count(const char *name, const char *text, unsigned most, unsigned *count)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || n < 1 || n > most)
		return wrong(name, text);
	*count = (unsigned)n;
	return 0;
}

static int parse_capacity(struct replay *replay, const char *text)
{
	char *end;

	errno = 0;
	replay->share = 0;
	replay->capacity = strtoull(text, &end, 10);
	if (*end && end != text) {
		replay->share = strtod(text, &end) / 100;
		if (strcmp(end, "%") || !(replay->share > 0 && replay->share <= 100))
			return wrong("--capacity", text);
		return 0;
	}
	if (*text < '0' || *text > '9' || errno || !replay->capacity || replay->capacity > CAPACITY_MOST)
		return wrong("--capacity", text);
	return 0;
}

static int parse_policy(struct replay *replay, const char *text)
{
	replay->policy = text;
	return strcmp(text, "fifo") && strcmp(text, "s3fifo") ? wrong("--policy", text) : 0;
}

static const struct option options[] = {
	{"trace", required_argument, NULL, 't'},   {"capacity", required_argument, NULL, 'c'},
	{"policy", required_argument, NULL, 'p'},  {"processes", required_argument, NULL, 'n'},
	{"extents", required_argument, NULL, 'x'},
	{"batch", required_argument, NULL, 'b'},   {"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},          {0},
};

static int parse(struct replay *replay, int argc, char **argv)
{
	int c, rc = 0;

	while (!rc && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 't': replay->path = optarg; break;
		case 'c': rc = parse_capacity(replay, optarg); break;
		case 'p': rc = parse_policy(replay, optarg); break;
		case 'n': rc = parse_count("--processes", optarg, PLAY_PROCESSES_MOST, &replay->processes); break;
		case 'b': rc = parse_count("--batch", optarg, UINT32_MAX, &replay->batch); break;
		case 'x': rc = parse_count("--extents", optarg, UINT32_MAX, &replay->extents); break;
		case 'j': replay->json = 1; break;
		case 'h': usage(stdout); exit(0);
		default: rc = -1;
		}
	}
	if (rc)
		return rc;
	if (optind < argc)
		return wrong("unexpected", argv[optind]);
	if (!replay->path || !(replay->capacity || replay->share > 0))
		return wrong("missing", replay->path ? "--capacity" : "--trace");
	return 0;
}

static int prepare(struct replay *replay)
{
	if (trace_read(&replay->trace, replay->path)) {
		fprintf(stderr, "replay: %s:%s\n", replay->path, replay->trace.error);
		return -1;
	}
	if (replay->share > 0)
		replay->capacity = (uint64_t)((double)sizing_footprint(&replay->trace) * replay->share);
	return sizing_of(&replay->trace, replay->capacity, replay->extents, &replay->sizing);
}

int main(int argc, char **argv)
{
	struct replay replay = {.policy = "s3fifo", .processes = 1, .batch = BATCH};
	struct run run = {0};
	int rc;

	if (parse(&replay, argc, argv))
		return 2;
	rc = prepare(&replay) || run_all(&replay, &run);
	if (!rc && replay.json)
		print_json(&replay, &run);
	else if (!rc)
		print_table(&replay, &run);
	trace_close(&replay.trace);
	if (!rc && fflush(stdout)) {
		perror("replay: output");
		rc = 1;
	}
	return rc ? 1 : 0;
}
