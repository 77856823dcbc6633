/* SPDX-License-Identifier: MIT */
/*
 * The right size by fixed-point steps: the tables hardly grow with the segment, so each step adds what the log lacked
 * in the one before. Three or four will do; each clears as much memory as its segment has.
 */
#include "sizing.h"

#include "play.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SEGMENT_LEAST ((uint64_t)1 << 20) /* shoal.h */
#define PAGE_SIZE ((uint64_t)4096)
#define EXTENTS_DEFAULT 64 /* at least; the library's default */
#define RESERVE 2 /* of so few extents; likewise */
#define FEW 64    /* values in an extent, that lose a part of it unless they fill it */
#define ENTRY_HEADER 48
#define ENTRY_MARGIN 160 /* between the largest entry and the extent that holds it: header and rounding */
#define FLIGHT_BYTES 128 /* about: the least segment gives up to 7/16 of it to tables that nobody uses */
#define STEPS_MOST 16

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 7) / 8 * 8;
}

/* ---- what the trace stores --------------------------------------------------------------------------------- */

struct sum {
	uint64_t keys, values, entries; /* how many; bytes of the values; bytes in the log */
};

/* Of each key's size at its first request, where it is at most `most`. */
static struct sum add_up(const struct trace *trace, uint64_t most)
{
	struct sum sum = {0};
	uint32_t seen = 0;

	for (size_t i = 0; i < trace->count; i++) {
		const struct trace_request *request = &trace->requests[i];

		if (request->key < seen)
			continue;
		seen++;
		if (request->size > most)
			continue;
		sum.keys++;
		sum.values += request->size;
		sum.entries += ENTRY_HEADER + padded(PLAY_KEY_SIZE) + padded(request->size);
	}
	return sum;
}

static void find_ends(const struct trace *trace, struct sizing *sizing)
{
	sizing->smallest = UINT64_MAX;
	sizing->largest = 0;
	for (size_t i = 0; i < trace->count; i++) {
		uint64_t size = trace->requests[i].size;

		sizing->smallest = size < sizing->smallest ? size : sizing->smallest;
		sizing->largest = size > sizing->largest ? size : sizing->largest;
	}
}

uint64_t sizing_footprint(const struct trace *trace)
{
	return add_up(trace, UINT64_MAX).values;
}

/* Values that are larger than an extent are never stored: they are no part of the mean. */
int sizing_of(const struct trace *trace, uint64_t capacity, unsigned extents, struct sizing *sizing)
{
	struct sum sum = add_up(trace, capacity / (extents ? extents : EXTENTS_DEFAULT));

	if (!sum.values)
		sum = add_up(trace, UINT64_MAX);
	if (!sum.values) {
		fputs("replay: every size in the trace is 0\n", stderr);
		return -1;
	}
	*sizing = (struct sizing){
		.footprint = sizing_footprint(trace),
		.mean_entry = (PLAY_KEY_SIZE + sum.values / sum.keys) / 2,
		.mean_value = (double)sum.values / (double)sum.keys,
		.header_bytes = (double)(sum.entries - sum.values) / (double)sum.keys,
	};
	find_ends(trace, sizing);
	return 0;
}

void sizing_log(const struct sizing *sizing, uint64_t capacity, unsigned extents, struct sizing_wish *wish)
{
	uint64_t values = sizing->largest ? capacity / sizing->largest : 0, each = values / (EXTENTS_DEFAULT - RESERVE),
		 full;
	double entry = (double)sizing->largest + sizing->header_bytes;

	wish->log_bytes = (uint64_t)((double)capacity * (1 + sizing->header_bytes / sizing->mean_value));
	wish->extents = extents;
	if (extents || sizing->smallest != sizing->largest || each < 1 || each >= FEW)
		return;
	full = values / each - 1; /* for a moment one of the reserve is filled, too */
	wish->extents = (unsigned)full + RESERVE;
	wish->log_bytes = full * (uint64_t)(((double)each + 0.5) * entry); /* half an entry on the safe side */
}

/* ---- the segment ------------------------------------------------------------------------------------------- */

/* No larger than an extent, or the library would have to cut the log into fewer. */
static size_t max_entry(const struct sizing *sizing, const struct sizing_wish *wish)
{
	uint64_t extent = wish->log_bytes / (wish->extents ? wish->extents : EXTENTS_DEFAULT);
	uint64_t most = extent > ENTRY_MARGIN ? extent - ENTRY_MARGIN : 0;
	uint64_t wanted = PLAY_KEY_SIZE + sizing->largest;

	return (size_t)(wanted < most ? wanted : most);
}

static int open_one(const struct sizing_wish *wish, size_t size, struct sizing_segment *segment)
{
	struct shoal_stats stats;
	int outcome;

	segment->config.size = size;
	segment->cache = NULL;
	outcome = shoal_open(NULL, &segment->config, &segment->cache);
	if (outcome == SHOAL_OK)
		outcome = shoal_stats(segment->cache, &stats);
	if (outcome != SHOAL_OK) {
		shoal_close(segment->cache);
		fprintf(stderr, "replay: a segment of %zu bytes: %s\n", size,
		        outcome == SHOAL_ERR_SYSTEM ? strerror(errno) : shoal_strerror(outcome));
		return -1;
	}
	segment->log_bytes = stats.size - stats.bytes_overhead - stats.bytes_reserve;
	return 0;
}

static int too_small(const struct sizing *sizing, const struct sizing_segment *segment)
{
	fprintf(stderr,
	        "replay: the capacity is too small: the least segment (1 MiB) can't hold less than %.0f bytes of "
	        "these values\n",
	        (double)(segment->log_bytes - SEGMENT_LEAST * 7 / 16) /
	                (1 + sizing->header_bytes / sizing->mean_value));
	return -1;
}

static uint64_t next_size(uint64_t size, uint64_t wanted, uint64_t log_bytes)
{
	int64_t next = (int64_t)size + (int64_t)wanted - (int64_t)log_bytes;

	next = (next + (int64_t)PAGE_SIZE - 1) / (int64_t)PAGE_SIZE * (int64_t)PAGE_SIZE;
	return next > (int64_t)SEGMENT_LEAST ? (uint64_t)next : SEGMENT_LEAST;
}

int sizing_open(const struct sizing *sizing, const struct sizing_wish *wish, struct sizing_segment *segment)
{
	uint64_t slack = wish->log_bytes / 1000 > 2 * PAGE_SIZE ? wish->log_bytes / 1000 : 2 * PAGE_SIZE;
	uint64_t aim = wish->log_bytes - slack / 2, size = next_size(0, wish->log_bytes, 0);

	*segment = (struct sizing_segment){
		.config =
			{
				.max_entry = max_entry(sizing, wish),
				.mean_entry = sizing->mean_entry,
				.max_processes = wish->processes + 2,
				.max_threads = wish->processes + 2,
				.max_flights = 16,
				.max_keyspaces = 2,
				.extents = wish->extents,
				.flags = wish->flags,
			},
	};
	if (!segment->config.max_entry && wish->log_bytes >= SEGMENT_LEAST) {
		fputs("replay: with so many extents no value fits one\n", stderr);
		return -1;
	}
	for (int step = 0; step < STEPS_MOST; step++) {
		if (open_one(wish, size, segment))
			return -1;
		if (segment->log_bytes <= wish->log_bytes && segment->log_bytes + slack >= wish->log_bytes)
			return 0;
		shoal_close(segment->cache);
		if (size == SEGMENT_LEAST && segment->log_bytes > wish->log_bytes) {
			if (segment->log_bytes - wish->log_bytes > SEGMENT_LEAST * 7 / 16)
				return too_small(sizing, segment);
			segment->config.max_flights += (unsigned)((segment->log_bytes - aim) / FLIGHT_BYTES);
			continue;
		}
		size = next_size(size, aim, segment->log_bytes);
	}
	fputs("replay: found no segment whose log has the wanted size\n", stderr);
	return -1;
}
