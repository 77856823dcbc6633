/* SPDX-License-Identifier: MIT */
/*
 * Observation: counters, memory by state, and the scan. Nothing here holds anybody up; figures of one call may be some
 * operations apart from each other, but the bytes always add up to the segment's size.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "evict.h"
#include "histogram.h"
#include "store.h"

/* ---- counters ---------------------------------------------------------------------------------------------- */

/* COUNTERS is in the order of the struct's fields. */
_Static_assert(offsetof(struct shoal_keyspace_stats, wait_ns_sum) == COUNTER_wait_ns_sum * sizeof(uint64_t), "counters.h");

static void add_counters(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats)
{
	uint64_t *fields = &stats->hits_fresh, hot[COUNTERS_HOT] = {0};
	unsigned c;

	registry_counts(s, id, hot);
	for (c = 0; c < COUNTER_COUNT; c++)
		fields[c] += w64_peek(&s->keyspaces[id].counters[c]) + (c < COUNTERS_HOT ? hot[c] : 0);
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

struct times {
	uint64_t load[HISTOGRAM_BUCKETS], wait[HISTOGRAM_BUCKETS];
};

static void add_keyspace(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats, struct times *times)
{
	add_counters(s, id, stats);
	add_histogram(s->keyspaces[id].load_histogram, times->load);
	add_histogram(s->keyspaces[id].wait_histogram, times->wait);
}

static void finish(const struct segment *s, uint32_t id, struct shoal_keyspace_stats *stats, const struct times *times)
{
	uint64_t oldest;

	flight_running(s, id, clock_ms(&s->clock), &oldest);
	stats->load_p50_ms = quantile(times->load, 0.50);
	stats->load_p95_ms = quantile(times->load, 0.95);
	stats->load_p99_ms = quantile(times->load, 0.99);
	stats->wait_p50_ms = quantile(times->wait, 0.50);
	stats->wait_p99_ms = quantile(times->wait, 0.99);
	stats->oldest_load_ms = (double)oldest;
}

EXPORT int shoal_keyspace_stats(struct shoal_keyspace *k, struct shoal_keyspace_stats *stats)
{
	struct times times = {0};
	const struct segment *s;

	if (!k || !stats)
		return SHOAL_ERR_INVALID;
	memset(stats, 0, sizeof(*stats));
	urcu_bp_read_lock();
	s = &rcu_dereference(k->cache->member)->segment;
	add_keyspace(s, k->id, stats, &times);
	finish(s, k->id, stats, &times);
	urcu_bp_read_unlock();
	return SHOAL_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static void add_extents(const struct segment *s, struct shoal_stats *stats)
{
	uint64_t used, live, size = s->geometry.extent_size;
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++) {
		enum extent_state state = EXTENT_STATE(extents_word(s, x));

		used = state == EXTENT_FREE   ? 0
		       : state == EXTENT_OPEN ? min_u64(w32_load(&s->extents[x].tail), size)
					      : size;
		/* A writer that died between its index CAS and its count leaves a count that is off until the extent
		 * is evicted. */
		live = state == EXTENT_FREE ? 0 : min_u64(w64_peek(&s->extents[x].live), used);
		if ((int64_t)w64_peek(&s->extents[x].live) < 0)
			live = 0;
		stats->bytes_live += live;
		stats->bytes_dead += used - live;
		stats->bytes_free += size - used;
		if (state != EXTENT_FREE && live)
			stats->entries += w32_peek(&s->extents[x].entries);
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

EXPORT int shoal_stats(struct shoal *cache, struct shoal_stats *stats)
{
	struct times times = {0};
	const struct segment *s;
	uint64_t oldest;
	uint32_t i;

	if (!cache || !stats)
		return SHOAL_ERR_INVALID;
	memset(stats, 0, sizeof(*stats));
	urcu_bp_read_lock();
	s = &rcu_dereference(cache->member)->segment;
	stats->size = s->geometry.size;
	for (i = 0; i < s->geometry.keyspaces && w64_load(&s->keyspaces[i].identity); i++)
		add_keyspace(s, i, &stats->total, &times);
	finish(s, UINT32_MAX, &stats->total, &times);
	add_extents(s, stats);
	add_members(s, stats);
	stats->flights = flight_running(s, UINT32_MAX, clock_ms(&s->clock), &oldest);
	stats->permits_used = permit_held(s, UINT32_MAX);
	stats->evicted_entries = w64_peek(&s->header->evicted_entries);
	stats->evicted_extents = w64_peek(&s->header->evicted_extents);
	stats->reappended_bytes = w64_peek(&s->header->reappended_bytes);
	stats->grace_blocked_ms = w64_peek(&s->header->grace_blocked_ms);
	stats->frequency_writes = registry_touches(s);
	stats->bytes_reserve = (uint64_t)evict_reserve(s) * s->geometry.extent_size;
	urcu_bp_read_unlock();
	return SHOAL_OK;
}

/* ---- scan -------------------------------------------------------------------------------------------------- */

struct scan {
	const struct segment *s;
	const char *only; /* a keyspace's name, or NULL */
	shoal_visit *visit;
	void *arg;
};

static void read_name(const struct keyspace *record, char name[NAME_SIZE])
{
	uint64_t part;
	unsigned i;

	for (i = 0; i < NAME_SIZE / 8; i++) {
		part = w64_load(&record->name[i]);
		memcpy(name + i * 8, &part, 8);
	}
	name[NAME_SIZE - 1] = 0;
}

static int64_t left(uint64_t end, uint64_t now)
{
	return end == UINT64_MAX ? INT64_MAX : (int64_t)(end - now);
}

/* Show an entry whose bytes stay where they are meanwhile. */
static int show(const struct scan *scan, const struct log_entry *e, uint64_t word)
{
	static const struct shoal_policy any = {.stale_ms = SHOAL_FOREVER, .error_ms = SHOAL_FOREVER};
	const struct entry *entry = e->entry;
	uint64_t now = clock_ms(&scan->s->clock);
	struct keyspace *record;
	struct bounds bounds;
	char name[NAME_SIZE];

	if (e->keyspace >= scan->s->geometry.keyspaces)
		return 0;
	bounds = store_bounds(scan->s, e->keyspace, entry, &any); /* an expire of the keyspace counts; its bounds are its readers' */
	if (store_age(&bounds, now) > AGE_STALE)
		return 0;
	record = &scan->s->keyspaces[e->keyspace];
	read_name(record, name);
	if (scan->only && strcmp(scan->only, name))
		return 0;
	return scan->visit(&(struct shoal_entry){
				   .keyspace = name,
				   .version = (uint32_t)w64_load(&record->version),
				   .key = {e->key, e->key_size},
				   .size = store_plain_size(e),
				   .age_ms = now > entry->born_ms ? now - entry->born_ms : 0,
				   .fresh_left_ms = left(bounds.fresh, now),
				   .stale_left_ms = left(bounds.stale, now),
				   .frequency = SLOT_FREQUENCY_OF(word),
			   },
			   scan->arg);
}

/* Copied out, and shown if neither slot nor extent has changed meanwhile: SHOAL_INSPECT, which can't announce what it
 * reads, and threads whose pins have run out. */
static int scan_copied(struct shoal *cache, struct scan *scan, uint64_t number, uint64_t *slots)
{
	struct entry *copy = NULL;
	struct log_entry e;
	uint64_t word, extent;
	const word64 *slot;
	bool same = false;
	int r = 0;

	urcu_bp_read_lock();
	scan->s = &rcu_dereference(cache->member)->segment;
	*slots = index_slots(scan->s);
	slot = &scan->s->index[number / BUCKET_SLOTS].slots[number % BUCKET_SLOTS];
	word = w64_load(slot);
	if (SLOT_IS_USED(word) && log_read(scan->s, SLOT_BYTES(word), &e) && (copy = malloc(e.length))) {
		extent = extents_word(scan->s, extent_of(scan->s, SLOT_BYTES(word)));
		memcpy(copy, e.entry, e.length);
		barrier_full();
		same = SLOT_SAME(w64_load(slot), word) &&
		       EXTENT_SEQUENCE(extents_word(scan->s, extent_of(scan->s, SLOT_BYTES(word)))) == EXTENT_SEQUENCE(extent);
		e.value = (unsigned char *)copy + (e.value - (const unsigned char *)e.entry);
		e.entry = copy;
		e.key = copy->key;
	}
	urcu_bp_read_unlock();
	if (same)
		r = show(scan, &e, word);
	free(copy);
	return r;
}

/* With a seat: the entry is pinned during its visit. */
static int scan_pinned(struct shoal *cache, struct scan *scan, uint64_t number, uint64_t *slots)
{
	struct index_hit hit;
	struct seat *seat;
	bool found;
	unsigned pin;
	int r;

	seat = handle_enter(cache, &r);
	if (!seat)
		return r;
	scan->s = &seat->member->segment;
	*slots = index_slots(scan->s);
	pin = rcu_free_pin(seat);
	found = pin && index_at(seat, number, pin, &hit);
	handle_leave(); /* the pin holds the extent, and its mapping */
	if (!pin)
		return scan_copied(cache, scan, number, slots);
	if (!found)
		return 0;
	r = show(scan, &hit.e, hit.word);
	registry_settle(seat, pin);
	return r;
}

EXPORT int shoal_scan(struct shoal *cache, const char *keyspace, shoal_visit *visit, void *arg)
{
	struct scan scan = {.only = keyspace, .visit = visit, .arg = arg};
	uint64_t number, slots = 1;
	bool read_only;
	int r = 0;

	if (!cache || !visit)
		return SHOAL_ERR_INVALID;
	read_only = cache->member->segment.read_only;
	for (number = 0; number < slots && !r; number++)
		r = read_only ? scan_copied(cache, &scan, number, &slots) : scan_pinned(cache, &scan, number, &slots);
	return r;
}
