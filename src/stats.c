/* SPDX-License-Identifier: MIT */
/*
 * Observation: counters, and memory by state. Nothing here holds anybody up; figures of one call may be some operations
 * apart from each other, but the bytes always add up to the segment's size.
 */
#include <errno.h>
#include <string.h>

#include "evict.h"
#include "stats.h"
#include "store.h"

/* ---- counters ---------------------------------------------------------------------------------------------- */

/* The table is in the order of the struct's fields. */
#define SECOND COUNTER_misses_expired
_Static_assert(offsetof(struct shoal_keyspace_stats, wait_ns_sum) == COUNTER_wait_ns_sum * sizeof(uint64_t) &&
               COUNTER_wait_ns_sum + 1 == SECOND, "counters.h");
_Static_assert(offsetof(struct shoal_keyspace_stats, stale_ms_sum) -
                                       offsetof(struct shoal_keyspace_stats, misses_expired) ==
                               (COUNTER_stale_ms_sum - SECOND) * sizeof(uint64_t) &&
                       COUNTER_stale_ms_sum + 1 == COUNTER_COUNT,
               "counters.h");

static void add_counters(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats)
{
	uint64_t *first = &stats->hits_fresh, *second = &stats->misses_expired, counts[COUNTER_COUNT] = {0};
	unsigned c;

	tally_counts(s, id, counts);
	for (c = 0; c < COUNTER_COUNT; c++)
		*(c < SECOND ? &first[c] : &second[c - SECOND]) += counts[c];
	stats->misses +=
		counts[COUNTER_misses_expired] + counts[COUNTER_schema_mismatches] + counts[COUNTER_misses_corrupt];
	stats->takeovers += counts[COUNTER_takeovers_gave_up];
	stats->uncached += counts[COUNTER_uncacheable];
}

static void add_histogram(const word64 *shared, uint64_t sum[HISTOGRAM_BUCKETS])
{
	unsigned i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum[i] += w64_peek(&shared[i]);
}

static double quantile(const uint64_t histogram[HISTOGRAM_BUCKETS], double q)
{
	uint64_t n = 0, seen = 0;
	unsigned i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += histogram[i];
	for (i = 0; n && i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram[i];
		if ((double)seen >= q * (double)n)
			return histogram_ms(i);
	}
	return 0;
}

static void add_keyspace(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats, struct times *times)
{
	add_counters(s, id, stats);
	add_histogram(s->keyspaces[id].load_histogram, times->load);
	add_histogram(s->keyspaces[id].wait_histogram, times->wait);
}

static void finish(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats, const struct times *times)
{
	uint64_t oldest;

	stats->running = flight_running(s, id, clock_ms(&s->clock), &oldest);
	stats->load_p50_ms = quantile(times->load, 0.50);
	stats->load_p95_ms = quantile(times->load, 0.95);
	stats->load_p99_ms = quantile(times->load, 0.99);
	stats->wait_p50_ms = quantile(times->wait, 0.50);
	stats->wait_p99_ms = quantile(times->wait, 0.99);
	stats->oldest_load_ms = (double)oldest;
}

/* What is of one keyspace, and no sum. */
static void add_own(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats)
{
	const struct keyspace *record = &s->keyspaces[id];
	uint64_t now = clock_ms(&s->clock), stored = w64_peek(&record->stored_ms);

	stats->distinct_keys = distinct_estimate(record->distinct);
	stats->last_store_ms = stored ? (double)(now > stored ? now - stored : 0) : -1;
	stats->fresh_ms = w32_peek(&record->fresh_ms);
	stats->stale_ms = w32_peek(&record->stale_ms);
	stats->error_ms = w32_peek(&record->error_ms);
	stats->lease_ms = w32_peek(&record->lease_ms);
}

int stats_of(struct shoal *cache, uint32_t id, struct shoal_keyspace_stats *stats, struct times *times)
{
	struct member *m;
	int r;

	do {
		memset(stats, 0, sizeof(*stats));
		memset(times, 0, sizeof(*times));
		if (!(m = handle_look(cache, &r)))
			return r;
		add_keyspace(&m->segment, id, stats, times);
		finish(&m->segment, id, stats, times);
		add_own(&m->segment, id, stats);
	} while (!handle_looked(m));
	return SHOAL_OK;
}

EXPORT int shoal_keyspace_stats(struct shoal_keyspace *k, struct shoal_keyspace_stats *stats)
{
	struct times times;

	return k && stats ? stats_of(k->cache, k->id, stats, &times) : SHOAL_ERR_INVALID;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static void add_extents(const struct segment *s, struct shoal_stats *stats)
{
	uint64_t used, live, counts, size = s->geometry.extent_size;
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++) {
		enum extent_state state = EXTENT_STATE(extents_word(s, x));

		used = state == EXTENT_FREE   ? 0
		       : state == EXTENT_OPEN ? min_u64(w32_load(&s->extents[x].tail), size)
					      : size;
		/* A writer that died between its index CAS and its count leaves a count that is off until the extent
		 * is evicted. */
		counts = w64_peek(&s->extents[x].counts);
		live = state == EXTENT_FREE ? 0 : min_u64(EXTENT_LIVE(counts), used);
		stats->bytes_live += live;
		stats->bytes_dead += used - live;
		stats->bytes_free += size - used;
		stats->grace_waiting += state == EXTENT_RETIRED;
		if (state != EXTENT_FREE && live)
			stats->entries += EXTENT_ENTRIES(counts);
	}
	stats->bytes_overhead = stats->size - stats->bytes_live - stats->bytes_dead - stats->bytes_free;
}

static void add_members(const struct segment *s, struct shoal_stats *stats)
{
	uint32_t i, w;

	for (i = 0; i < s->geometry.processes; i++)
		stats->processes += w64_peek(&s->processes[i].owner) != 0;
	for (i = 0; i < s->geometry.readers; i++) {
		stats->threads += (uint32_t)w64_peek(&s->readers[i].owner) != 0;
		for (w = PINS; w < READER_WORDS; w++)
			stats->pins += w64_peek(&s->readers[i].words[w]) != 0;
	}
}

static void add_all(const struct segment *s, struct shoal_stats *stats)
{
	struct times times = {0};
	uint64_t oldest;
	uint32_t i;

	memset(stats, 0, sizeof(*stats));
	stats->size = s->geometry.size;
	for (i = 0; i < s->geometry.keyspaces && w64_load(&s->keyspaces[i].identity); i++)
		add_keyspace(s, i, &stats->total, &times);
	finish(s, UINT32_MAX, &stats->total, &times);
	add_extents(s, stats);
	add_members(s, stats);
	stats->flights = flight_running(s, UINT32_MAX, clock_ms(&s->clock), &oldest);
	stats->permits_used = permit_held(s, UINT32_MAX);
	stats->evicted_expired = w64_peek(&s->header->evicted_expired);
	stats->evicted_entries = w64_peek(&s->header->evicted_cold) + stats->evicted_expired;
	stats->displaced_entries = w64_peek(&s->header->displaced_entries);
	for (i = 0; i < EVICTED_REASONS; i++) {
		stats->evicted_by[i] = w64_peek(&s->header->evicted_by[i]);
		stats->evicted_extents += stats->evicted_by[i];
	}
	stats->reappended_bytes = w64_peek(&s->header->reappended_bytes);
	stats->grace_blocked_ms = w64_peek(&s->header->grace_blocked_ms);
	stats->frequency_writes = tally_touches(s);
	stats->bytes_reserve = (uint64_t)evict_reserve(s) * s->geometry.extent_size;
}

EXPORT int shoal_stats(struct shoal *cache, struct shoal_stats *stats)
{
	struct member *m;
	int r;

	if (!cache || !stats)
		return SHOAL_ERR_INVALID;
	do {
		m = handle_look(cache, &r);
		if (!m)
			return r;
		add_all(&m->segment, stats);
	} while (!handle_looked(m));
	return SHOAL_OK;
}
