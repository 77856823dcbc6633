/* SPDX-License-Identifier: MIT */
/*
 * The log: entries appended to a few OPEN extents (heads), and walked extent by extent. There are two of them, the
 * probation and the main log (evict.h), each with heads of its own.
 *
 * L.1  A head's lock is held only to write the new entry's length and to move the tail. After a kill at any
 *      instruction the tail is consistent: the length counts only once the tail has passed it. So a dead owner's lock
 *      is taken over as it is.
 * L.2  A busy head is passed by for another. One that stays busy because its owner is stopped is replaced by a new
 *      extent, never stolen; who unlocks an extent that is no head any more seals it.
 * L.3  The payload is copied after the lock is released; nothing refers to the entry before the index CAS. A crash
 *      while writing costs its bytes until the extent is evicted.
 * L.4  An entry that fits no head opens another one, up to three of each log, so that small entries fill up what large
 *      ones leave; but a head that is full is sealed, and so is, when there are three, one that is old, or the fullest.
 *      With entries of up to a quarter of an extent one head would lose 6% of the log to the rests of extents, in
 *      simulation. Writers that find heads busy open others, up to HEADS_MAX.
 *
 *   operation      may run beside             another process is killed
 *   log_append     everything                 its lock is taken over; LOG_FULL is never due to a lock
 *   log_next       writers of other extents   no effect
 */
#ifndef SHOAL_LOG_H
#define SHOAL_LOG_H

#include "extents.h"

enum { LOG_FULL = 1 };

/* The parts of an entry that was read once and checked to lie in one extent: safe to use whatever the bytes say. */
struct log_entry {
	const struct entry *entry;
	const unsigned char *key, *value;
	uint32_t length, stored, value_size; /* stored: value_size and codec */
	uint16_t key_size, keyspace;
};

/* Entries begin where the one before ended, at 8 bytes. At a cache line's begin a hit touches half a line less, which
 * could not be seen in its time (35.3 ns, not 35.5, hot), and entries of 100 bytes take 9% more of the log. */
static inline uint64_t log_length(const struct segment *s, size_t key_size, size_t value_size)
{
	return sizeof(struct entry) + align_up(key_size, 8) + align_up(value_size, 8) +
	       (s->geometry.flags & SHOAL_CHECKSUM ? 8 : 0);
}

/*
 * Reserve `length` bytes. SHOAL_OK: *offset is where, its extent is announced in `word`, and its length is written.
 * LOG_FULL: no free extent; make room and call again. *opened: a free extent was used up.
 */
int log_append(struct seat *seat, unsigned word, enum log_kind kind, uint32_t length, uint64_t *offset, bool *opened);

static inline struct entry *log_at(const struct segment *s, uint64_t offset)
{
	return (struct entry *)(s->base + offset);
}

/* Is that a place in the log at all? */
static inline bool log_holds(const struct segment *s, uint64_t offset)
{
	return offset >= s->geometry.log_at && offset < s->geometry.size - sizeof(struct entry) &&
	       extent_of(s, offset) < s->geometry.extents;
}

/* The entry at an offset that log_holds(), in extent x; false if the bytes are none. Sizes are read once. */
static inline bool log_read_in(const struct segment *s, uint32_t x, uint64_t offset, struct log_entry *e)
{
	uint64_t end = s->geometry.log_at + (uint64_t)(x + 1) * s->geometry.extent_size;
	const struct entry *entry = log_at(s, offset);

	e->entry = entry;
	e->length = w32_peek(&entry->length);
	e->key_size = ENTRY_KEY_SIZE(entry->kind);
	e->keyspace = ENTRY_KEYSPACE(entry->kind);
	e->stored = entry->stored;
	e->value_size = STORED_SIZE(e->stored);
	e->key = entry->key;
	e->value = e->key + align_up(e->key_size, 8);
	return e->length <= end - offset && log_length(s, e->key_size, e->value_size) <= e->length;
}

static inline bool log_read(const struct segment *s, uint64_t offset, struct log_entry *e)
{
	return log_holds(s, offset) && log_read_in(s, extent_of(s, offset), offset, e);
}

/* When an entry ends by its own deadlines; UINT64_MAX = never. */
static inline uint64_t log_end(uint64_t born_ms, uint32_t fresh, uint32_t stale, uint32_t error)
{
	if (fresh == SHOAL_FOREVER || stale == SHOAL_FOREVER || error == SHOAL_FOREVER)
		return UINT64_MAX;
	return born_ms + fresh + stale + error;
}

/* Walk an extent that is EVICTING by the caller: begin with *at = 0. */
bool log_next(const struct segment *s, uint32_t x, uint32_t *at, uint64_t *offset);

/* The checksum of a whole entry, which follows its value (SHOAL_CHECKSUM). */
uint64_t log_checksum(const struct log_entry *e);
uint64_t *log_checksum_at(const struct log_entry *e);
static inline bool log_is_intact(const struct log_entry *e)
{
	return *log_checksum_at(e) == log_checksum(e);
}

/* Give back the locks of a dead reader. */
void log_recover(const struct segment *s, uint64_t ref);
/* Seal OPEN extents that are neither locked nor heads: a writer died between two steps. And what is in no state at all,
 * or being evicted by nobody. */
void log_sweep(struct seat *seat);

#endif
