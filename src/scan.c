/* SPDX-License-Identifier: MIT */
/*
 * What is in a segment, for those who look after it: the scan, a look at one key, and what was hit last. None of it is
 * counted, and nothing holds anybody up.
 */
#include <stdlib.h>
#include <string.h>

#include "store.h"

/* ---- one entry --------------------------------------------------------------------------------------------- */

static int64_t left(uint64_t end, uint64_t now)
{
	return end == UINT64_MAX ? INT64_MAX : (int64_t)(end - now);
}

/* *shown points to the entry's bytes, to *e and to `name`, which gets the name of its keyspace: all of these have to
 * stay while it is used. False: the entry has ended, or is none. */
static bool describe(const struct segment *s, const struct log_entry *e, uint64_t word, char name[NAME_SIZE],
                     struct shoal_entry *shown)
{
	static const struct shoal_policy any = {.stale_ms = SHOAL_FOREVER, .error_ms = SHOAL_FOREVER};
	const struct entry *entry = e->entry;
	uint64_t now = clock_ms(&s->clock);
	struct keyspace *record;
	struct bounds bounds;

	if (e->keyspace >= s->geometry.keyspaces)
		return false;
	/* an expire of the keyspace counts; its bounds are its readers' */
	bounds = store_bounds(s, e->keyspace, entry, &any);
	record = &s->keyspaces[e->keyspace];
	handle_name(record, name);
	if (store_age(&bounds, now) > AGE_STALE)
		return false;
	*shown = (struct shoal_entry){
		.keyspace = name,
		.version = (uint32_t)w64_load(&record->version),
		.key = {e->key, e->key_size},
		.size = store_plain_size(e),
		.age_ms = now > entry->born_ms ? now - entry->born_ms : 0,
		.fresh_left_ms = left(bounds.fresh, now),
		.stale_left_ms = left(bounds.stale, now),
		.frequency = SLOT_FREQUENCY_OF(word),
		.error_left_ms = left(bounds.error, now),
		.generation = entry->generation,
		.schema = ENTRY_SCHEMA(entry->kind),
		.private_fields = {e, s->geometry.flags & SHOAL_CHECKSUM ? entry : NULL},
	};
	return true;
}

/* A copy of the entry behind a slot, for SHOAL_INSPECT, which can't announce what it reads, and for threads whose pins
 * have run out. It is whole if neither the slot nor the extent's sequence has changed meanwhile. To be freed; NULL:
 * none. */
static struct entry *copy_of(const struct segment *s, const word64 *slot, struct log_entry *e, uint64_t *word)
{
	struct entry *copy;
	uint64_t extent;

	*word = w64_load(slot);
	if (!SLOT_IS_USED(*word) || !log_read(s, SLOT_BYTES(*word), e) || !(copy = malloc(e->length)))
		return NULL;
	extent = extents_word(s, extent_of(s, SLOT_BYTES(*word)));
	memcpy(copy, e->entry, e->length);
	barrier_full();
	if (!SLOT_SAME(w64_load(slot), *word) ||
	    EXTENT_SEQUENCE(extents_word(s, extent_of(s, SLOT_BYTES(*word)))) != EXTENT_SEQUENCE(extent)) {
		free(copy);
		return NULL;
	}
	e->value = (unsigned char *)copy + (e->value - (const unsigned char *)e->entry);
	e->entry = copy;
	e->key = copy->key;
	return copy;
}

/* ---- a look at one key ------------------------------------------------------------------------------------- */

/* A copy of the newest entry of that key, or (NULL) of any with that hash; NULL: there is none. */
static struct entry *copy_newest(const struct segment *s, uint32_t keyspace, uint64_t hash,
                                 const struct shoal_slice *key, struct log_entry *e, uint64_t *word)
{
	struct bucket *buckets[2] = {index_bucket(s, hash), index_second(s, hash)};
	struct entry *newest = NULL, *copy;
	struct log_entry found;
	uint64_t seen;
	unsigned i, match;

	for (i = 0; i < 2; i++) {
		for (match = index_match(buckets[i], hash); match; match &= match - 1) {
			copy = copy_of(s, &buckets[i]->slots[__builtin_ctz(match)], &found, &seen);
			if (!copy)
				continue;
			if (found.keyspace != keyspace || (newest && newest->generation >= copy->generation) ||
			    (key ? found.key_size != key->size || memcmp(found.key, key->data, key->size)
				 : index_key(s, keyspace, found.key, found.key_size).hash != hash)) {
				free(copy);
				continue;
			}
			free(newest);
			newest = copy;
			*e = found;
			*word = seen;
		}
	}
	return newest;
}

/* Outside of any section: the copy is ours. */
static int show(const struct shoal_keyspace *k, const struct log_entry *e, const struct bounds *bounds, uint64_t now,
                struct shoal_value *value)
{
	enum age age = store_age(bounds, now);
	size_t size = store_plain_size(e);
	void *plain;

	if (age > AGE_STALE || ENTRY_SCHEMA(e->entry->kind) != k->policy.schema)
		return SHOAL_MISS;
	plain = malloc(size ? size : 1);
	if (!plain)
		return SHOAL_ERR_SYSTEM;
	if (!store_copy(e, plain, size)) {
		free(plain);
		return SHOAL_MISS;
	}
	*value = (struct shoal_value){
		.data = plain,
		.size = size,
		.generation = e->entry->generation,
		.age_ms = now > e->entry->born_ms ? now - e->entry->born_ms : 0,
		.freshness = age == AGE_FRESH ? SHOAL_FRESH : SHOAL_STALE,
		.source = SHOAL_HIT,
	};
	store_hold(value)->heap = plain;
	return SHOAL_OK;
}

EXPORT int shoal_peek(struct shoal_keyspace *k, const void *key, size_t key_size, struct shoal_value *value)
{
	struct shoal_slice slice = {key, key_size};
	struct bounds bounds = {0};
	struct entry *copy = NULL;
	struct log_entry e;
	struct member *m;
	uint64_t now, word;
	int r = SHOAL_OK;

	if (!k || !value)
		return SHOAL_ERR_INVALID;
	memset(value, 0, sizeof(*value));
	if (!store_is_key(key, key_size))
		return SHOAL_ERR_INVALID;
	do {
		free(copy);
		if (!(m = handle_look(k->cache, &r)))
			return r;
		now = clock_ms(&m->segment.clock);
		copy = copy_newest(&m->segment, k->id, store_hash(k, key, key_size), &slice, &e, &word);
		if (copy && m->segment.geometry.flags & SHOAL_CHECKSUM && !log_is_intact(&e)) {
			free(copy);
			copy = NULL;
		}
		if (copy)
			bounds = store_bounds(&m->segment, k->id, copy, &k->policy);
	} while (!handle_looked(m));
	r = copy ? show(k, &e, &bounds, now, value) : SHOAL_MISS;
	free(copy);
	return r;
}

/* ---- what was hit last ------------------------------------------------------------------------------------- */

/* The line's key, if it is still there. */
static struct entry *copy_recent(const struct segment *s, const struct line *line, char name[NAME_SIZE],
                                 struct log_entry *e, struct shoal_entry *shown)
{
	uint32_t keyspace = w32_load(&line->keyspace) - 1;
	uint64_t hash = w64_peek(&line->recent), word;
	struct entry *copy = NULL;

	if (hash && keyspace < s->geometry.keyspaces)
		copy = copy_newest(s, keyspace, hash, NULL, e, &word);
	if (copy && !describe(s, e, word, name, shown)) {
		free(copy);
		copy = NULL;
	}
	return copy;
}

EXPORT int shoal_recent(struct shoal *cache, shoal_visit *visit, void *arg)
{
	struct shoal_entry shown;
	char name[NAME_SIZE];
	struct entry *copy;
	struct log_entry e;
	struct member *m;
	uint32_t i, n = 1;
	int r = 0;

	if (!cache || !visit)
		return SHOAL_ERR_INVALID;
	for (i = 0; i < n && !r; i++) {
		m = handle_look(cache, &r);
		if (!m)
			return r;
		n = (uint32_t)min_u64(w32_load(&m->segment.header->lines_used), m->segment.geometry.lines);
		copy = i < n ? copy_recent(&m->segment, &m->segment.lines[i], name, &e, &shown) : NULL;
		if (handle_looked(m) && copy)
			r = visit(&shown, arg);
		free(copy);
	}
	return r;
}

/* ---- scan -------------------------------------------------------------------------------------------------- */

/* Groups of the index lie in the order of hashes, however many they are, and a key's slots lie in one group
 * (index.h). */
#define GROUP_SLOTS (INDEX_GROUP * BUCKET_SLOTS)

struct scan {
	bool over;
	const char *only; /* a keyspace's name, or NULL */
	uint64_t number;  /* the next slot ... */
	uint64_t slots;   /* ... of so many, */
	uint64_t offset;  /* of the region there */
	char name[NAME_SIZE];
};

/* The next slot in a region; false: the scan is at its end. After a resize some are seen twice, rather than not at
 * all. */
static bool find_place(struct scan *scan, const struct segment *s)
{
	uint64_t slots = index_slots(s);

	if (scan->slots && scan->offset != s->geometry.offset)
		scan->number = (uint64_t)((uint128)(scan->number / GROUP_SLOTS) * (slots / GROUP_SLOTS) /
				     (scan->slots / GROUP_SLOTS)) * GROUP_SLOTS;
	scan->slots = slots;
	scan->offset = s->geometry.offset;
	return scan->number < slots;
}

static bool is_shown(struct scan *scan, const struct segment *s, const struct log_entry *e, uint64_t word,
                     struct shoal_entry *shown)
{
	return describe(s, e, word, scan->name, shown) && (!scan->only || !strcmp(scan->only, scan->name));
}

enum { SCAN_END = 1, SCAN_NOTHING, SCAN_ENTRY, SCAN_NO_PIN };

static int copy_next(struct scan *scan, const struct segment *s, struct entry **copy, struct log_entry *e,
                     struct shoal_entry *shown)
{
	uint64_t word;

	if (!find_place(scan, s))
		return SCAN_END;
	*copy = copy_of(s, index_slot_at(s, scan->number), e, &word);
	scan->number++;
	return *copy && is_shown(scan, s, e, word, shown) ? SCAN_ENTRY : SCAN_NOTHING;
}

static int scan_copied(struct shoal *cache, struct scan *scan, shoal_visit *visit, void *arg)
{
	struct entry *copy = NULL;
	struct shoal_entry shown;
	struct log_entry e;
	struct member *m;
	int found, r = 0;

	m = handle_look(cache, &r);
	if (!m)
		return r;
	found = copy_next(scan, &m->segment, &copy, &e, &shown);
	if (!handle_looked(m)) {
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
static int pin_next(struct scan *scan, struct seat *seat, unsigned *pin, struct index_hit *hit,
                    struct shoal_entry *shown)
{
	const struct segment *s = &seat->member->segment;

	if (!find_place(scan, s))
		return SCAN_END;
	*pin = rcu_free_pin(seat);
	if (!*pin)
		return SCAN_NO_PIN;
	if (!index_at(seat, scan->number++, *pin, hit))
		return SCAN_NOTHING;
	if (is_shown(scan, s, &hit->e, hit->word, shown))
		return SCAN_ENTRY;
	rcu_clear(seat, *pin);
	return SCAN_NOTHING;
}

static int scan_pinned(struct shoal *cache, struct scan *scan, shoal_visit *visit, void *arg)
{
	struct shoal_entry shown;
	struct index_hit hit;
	struct seat *seat;
	unsigned pin = 0;
	int found, r;

	seat = handle_enter(cache, &r);
	if (!seat)
		return r;
	found = pin_next(scan, seat, &pin, &hit, &shown);
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

EXPORT int shoal_entry_read(const struct shoal_entry *entry, void *buffer, size_t capacity)
{
	const struct log_entry *e = entry ? entry->private_fields[0] : NULL;

	if (!e || (!buffer && entry->size))
		return SHOAL_ERR_INVALID;
	if (entry->size > capacity)
		return SHOAL_ERR_TOO_BIG;
	if (entry->private_fields[1] && !log_is_intact(e))
		return SHOAL_ERR_CORRUPT;
	return store_copy(e, buffer, entry->size) ? SHOAL_OK : SHOAL_ERR_CORRUPT;
}
