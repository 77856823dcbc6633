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
	uint64_t *fields = &stats->hits_fresh, counts[COUNTER_COUNT] = {0};
	unsigned c;

	registry_counts(s, id, counts);
	for (c = 0; c < COUNTER_COUNT; c++)
		fields[c] += counts[c];
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

/* The end of a look without a seat, which keeps no region from being given back: false: look again. */
static bool looked(const struct member *m)
{
	bool valid;

	barrier_full(); /* partner: who gave it back did so after it had moved */
	valid = !segment_has_moved(&m->segment);
	handle_leave();
	return valid;
}

EXPORT int shoal_keyspace_stats(struct shoal_keyspace *k, struct shoal_keyspace_stats *stats)
{
	struct times times;
	struct member *m;
	int r;

	if (!k || !stats)
		return SHOAL_ERR_INVALID;
	do {
		memset(stats, 0, sizeof(*stats));
		memset(&times, 0, sizeof(times));
		if (!(m = handle_look(k->cache, &r)))
			return r;
		add_keyspace(&m->segment, k->id, stats, &times);
		finish(&m->segment, k->id, stats, &times);
	} while (!looked(m));
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
	stats->evicted_entries = w64_peek(&s->header->evicted_entries);
	stats->evicted_extents = w64_peek(&s->header->evicted_extents);
	stats->reappended_bytes = w64_peek(&s->header->reappended_bytes);
	stats->grace_blocked_ms = w64_peek(&s->header->grace_blocked_ms);
	stats->frequency_writes = registry_touches(s);
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
	} while (!looked(m));
	return SHOAL_OK;
}

/* ---- scan -------------------------------------------------------------------------------------------------- */

/* Groups of the index lie in the order of hashes, whatever their number, and a key's slots in one group; index.c. */
#define GROUP_SLOTS (64 * BUCKET_SLOTS)

struct scan {
	bool over;
	const char *only; /* a keyspace's name, or NULL */
	uint64_t number;  /* the next slot ... */
	uint64_t slots;   /* ... of so many, */
	uint64_t offset;  /* of the region there */
	char name[NAME_SIZE];
};

/* The next slot in a region; false: the scan is at its end. After a resize some are seen twice, rather than not at all. */
static bool find_place(struct scan *scan, const struct segment *s)
{
	uint64_t slots = index_slots(s);

	if (scan->slots && scan->offset != s->geometry.offset)
		scan->number = (uint64_t)((unsigned __int128)(scan->number / GROUP_SLOTS) * (slots / GROUP_SLOTS) /
					  (scan->slots / GROUP_SLOTS)) * GROUP_SLOTS;
	scan->slots = slots;
	scan->offset = s->geometry.offset;
	return scan->number < slots;
}

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

/* Of an entry whose bytes stay where they are meanwhile, in a region that does. False: not to be shown. */
static bool describe(struct scan *scan, const struct segment *s, const struct log_entry *e, uint64_t word,
                     struct shoal_entry *shown)
{
	static const struct shoal_policy any = {.stale_ms = SHOAL_FOREVER, .error_ms = SHOAL_FOREVER};
	const struct entry *entry = e->entry;
	uint64_t now = clock_ms(&s->clock);
	struct keyspace *record;
	struct bounds bounds;

	if (e->keyspace >= s->geometry.keyspaces)
		return false;
	bounds = store_bounds(s, e->keyspace, entry, &any); /* an expire of the keyspace counts; its bounds are its readers' */
	record = &s->keyspaces[e->keyspace];
	read_name(record, scan->name);
	if (store_age(&bounds, now) > AGE_STALE || (scan->only && strcmp(scan->only, scan->name)))
		return false;
	*shown = (struct shoal_entry){
		.keyspace = scan->name,
		.version = (uint32_t)w64_load(&record->version),
		.key = {e->key, e->key_size},
		.size = store_plain_size(e),
		.age_ms = now > entry->born_ms ? now - entry->born_ms : 0,
		.fresh_left_ms = left(bounds.fresh, now),
		.stale_left_ms = left(bounds.stale, now),
		.frequency = SLOT_FREQUENCY_OF(word),
	};
	return true;
}

enum { SCAN_END = 1, SCAN_NOTHING, SCAN_ENTRY, SCAN_NO_PIN };

/* Copied out, and shown if neither slot nor extent has changed meanwhile: SHOAL_INSPECT, which can't announce what it
 * reads, and threads whose pins have run out. */
static int copy_next(struct scan *scan, const struct segment *s, struct entry **copy, struct shoal_entry *shown)
{
	struct log_entry e;
	uint64_t word, extent;
	const word64 *slot;

	if (!find_place(scan, s))
		return SCAN_END;
	slot = &s->index[scan->number / BUCKET_SLOTS].slots[scan->number % BUCKET_SLOTS];
	scan->number++;
	word = w64_load(slot);
	if (!SLOT_IS_USED(word) || !log_read(s, SLOT_BYTES(word), &e) || !(*copy = malloc(e.length)))
		return SCAN_NOTHING;
	extent = extents_word(s, extent_of(s, SLOT_BYTES(word)));
	memcpy(*copy, e.entry, e.length);
	barrier_full();
	if (!SLOT_SAME(w64_load(slot), word) ||
	    EXTENT_SEQUENCE(extents_word(s, extent_of(s, SLOT_BYTES(word)))) != EXTENT_SEQUENCE(extent))
		return SCAN_NOTHING;
	e.value = (unsigned char *)*copy + (e.value - (const unsigned char *)e.entry);
	e.entry = *copy;
	e.key = (*copy)->key;
	return describe(scan, s, &e, word, shown) ? SCAN_ENTRY : SCAN_NOTHING;
}

static int scan_copied(struct shoal *cache, struct scan *scan, shoal_visit *visit, void *arg)
{
	struct entry *copy = NULL;
	struct shoal_entry shown;
	struct member *m;
	int found, r = 0;

	m = handle_look(cache, &r);
	if (!m)
		return r;
	found = copy_next(scan, &m->segment, &copy, &shown);
	if (!looked(m)) {
		scan->number -= found != SCAN_END; /* again, where it has moved to */
		found = SCAN_NOTHING;
	}
	if (found == SCAN_ENTRY)
		r = visit(&shown, arg);
	free(copy);
	scan->over = found == SCAN_END;
	return r;
}

/* With a seat: the entry is pinned during its visit. */
static int pin_next(struct scan *scan, struct seat *seat, unsigned *pin, struct shoal_entry *shown)
{
	const struct segment *s = &seat->member->segment;
	struct index_hit hit;

	if (!find_place(scan, s))
		return SCAN_END;
	*pin = rcu_free_pin(seat);
	if (!*pin)
		return SCAN_NO_PIN;
	if (!index_at(seat, scan->number++, *pin, &hit))
		return SCAN_NOTHING;
	if (describe(scan, s, &hit.e, hit.word, shown))
		return SCAN_ENTRY;
	rcu_clear(seat, *pin);
	return SCAN_NOTHING;
}

static int scan_pinned(struct shoal *cache, struct scan *scan, shoal_visit *visit, void *arg)
{
	struct shoal_entry shown;
	struct seat *seat;
	unsigned pin = 0;
	int found, r;

	seat = handle_enter(cache, &r);
	if (!seat)
		return r;
	found = pin_next(scan, seat, &pin, &shown);
	handle_leave(); /* the pin holds the extent, and its mapping */
	if (found == SCAN_NO_PIN)
		return scan_copied(cache, scan, visit, arg);
	scan->over = found == SCAN_END;
	if (found != SCAN_ENTRY)
		return 0;
	r = visit(&shown, arg);
	registry_settle(seat, pin);
	return r;
}

EXPORT int shoal_scan(struct shoal *cache, const char *keyspace, shoal_visit *visit, void *arg)
{
	struct scan scan = {.only = keyspace};
	bool read_only;
	int r = 0;

	if (!cache || !visit)
		return SHOAL_ERR_INVALID;
	urcu_bp_read_lock();
	read_only = move_member(&cache->member)->segment.read_only;
	urcu_bp_read_unlock();
	while (!r && !scan.over)
		r = read_only ? scan_copied(cache, &scan, visit, arg) : scan_pinned(cache, &scan, visit, arg);
	return r;
}
