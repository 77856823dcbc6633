/* SPDX-License-Identifier: MIT */
/*
 * The index: a lock-free hash table of 64-byte buckets with eight 64-bit slots, two candidate buckets per key.
 *
 *   slot   EMPTY(version) --place--> entry --replace--> entry' --remove--> EMPTY(version')
 *
 * Each arrow is one CAS of one slot. Both candidates of a key lie in one page, so a look-up costs one TLB entry.
 *
 * I.1  Racing inserts of one key may leave two slots. The higher generation wins for every reader, so every look-up
 *      looks at both buckets, and whoever sees two removes the older.
 * I.2  Every removal of a key takes the older generations first: after a kill between two removals the older one can't
 *      come back.
 * I.3  Each EMPTY carries a number that no-one else drew: a CAS that expects an EMPTY fails once anything happened there.
 * I.4  Who compares or replaces an entry announces its extent first and looks at the slot again, and keeps the
 *      announcement past its CAS: the word can't come back by reuse of the same offset.
 * I.5  Both buckets full: the coldest of the 16 makes room.
 *
 *   operation        may run beside    another process is killed
 *   index_find       everything        no effect
 *   index_commit     everything        the slot is as before, or changed; live bytes may count too many by this entry
 *                                      until its extent is evicted (extents.h, E.5)
 *   index_remove     everything        likewise
 */
#ifndef SHOAL_INDEX_H
#define SHOAL_INDEX_H

#include "log.h"

#define SLOT_USED ((uint64_t)1 << 63)
#define SLOT_TAG_SHIFT 47
#define SLOT_FREQUENCY_SHIFT 45
#define SLOT_FREQUENCY ((uint64_t)3 << SLOT_FREQUENCY_SHIFT)
#define SLOT_OFFSET ((uint64_t)-1 >> 19)

#define SLOT_IS_USED(word) ((word) >> 63)
#define SLOT_BYTES(word) (((word) & SLOT_OFFSET) * 8)
#define SLOT_FREQUENCY_OF(word) ((unsigned)((word) >> SLOT_FREQUENCY_SHIFT & 3))
#define SLOT_SAME(a, b) (!(((a) ^ (b)) & ~SLOT_FREQUENCY))

struct key {
	const void *data;
	uint32_t size;
	uint32_t keyspace;
	uint64_t hash;
};

struct index_hit {
	word64 *slot;
	uint64_t word;      /* what it held */
	struct log_entry e;
	unsigned announced; /* the word that protects it; the caller clears it */
	unsigned bad;       /* slots that pointed to no entry, and were removed */
};

enum index_want { WANT_NEWEST, WANT_OLDEST };

void index_hash(const struct segment *s, struct key *k);

/* How many entries the key has (0, mostly 1); the wanted one in *hit, protected by announcement a or b. */
unsigned index_find(struct seat *seat, const struct key *k, enum index_want want, unsigned a, unsigned b,
                    struct index_hit *hit);

/* Remember a hit, up to three in a row; not in an extent that is still written to (evict.h). True if that was a write. */
static inline bool index_touch(const struct segment *s, const struct index_hit *hit)
{
	return unlikely((hit->word & SLOT_FREQUENCY) != SLOT_FREQUENCY) &&
	       EXTENT_STATE(w64_peek(&s->extents[extent_of(s, SLOT_BYTES(hit->word))].word)) != EXTENT_OPEN &&
	       w64_cas(hit->slot, hit->word, hit->word + ((uint64_t)1 << SLOT_FREQUENCY_SHIFT));
}

void index_prefetch(const struct segment *s, uint64_t hash);
void index_prefetch_entry(const struct segment *s, uint64_t hash);

/* ---- change ------------------------------------------------------------------------------------------------ */

struct index_target {
	word64 *slot;
	uint64_t expected;   /* an EMPTY, an entry of this key, or the coldest */
	bool own;            /* it is of this key */
	uint32_t old_length; /* of what is replaced */
	unsigned announced;  /* what protects `expected`, if anything does (READING is 0): the caller clears it */
};

/* Where an entry of that generation would go. INDEX_NEWER: the key has a newer one. */
enum { INDEX_NEWER = 1 };
int index_place(struct seat *seat, const struct key *k, uint64_t generation, unsigned a, unsigned b,
                struct index_target *target);
uint64_t index_word(const struct key *k, uint64_t offset, uint64_t old);
/* The word of an entry that has moved, with that frequency. */
static inline uint64_t index_moved(uint64_t word, uint64_t offset, unsigned frequency)
{
	return (word & ~(SLOT_OFFSET | SLOT_FREQUENCY)) | offset / 8 | (uint64_t)frequency << SLOT_FREQUENCY_SHIFT;
}

/* The CAS that publishes. False: the slot has changed; place again. */
bool index_commit(const struct segment *s, const struct index_target *target, uint64_t word, uint32_t length,
                  uint64_t until_ms);

/* Remove the key's generations below `below`, oldest first; returns how many. */
unsigned index_remove(struct seat *seat, const struct key *k, uint64_t below, unsigned a, unsigned b);
/* Remove all but the newest. */
void index_settle(struct seat *seat, const struct key *k, unsigned a, unsigned b);
/* Remove what `hit` shows, if it is still there. */
bool index_drop(const struct segment *s, const struct index_hit *hit);

/* The same for a slot whose entry is not there any more, or no entry: nothing counts it. */
bool index_forget(const struct segment *s, const struct index_hit *hit);
/* Is it of a generation that the segment has not come to? Then it is older than any (a scribble; counted). */
bool index_is_ahead(const struct segment *s, const struct index_hit *hit);

/* A publisher's target, by number, so that it can be named in the segment. Kill: after this, a CAS that expects
 * `expected` there fails for ever. */
uint64_t index_number(const struct segment *s, const word64 *slot);
void index_kill(struct seat *seat, uint64_t number, uint64_t expected, unsigned announce);

bool index_is(const struct index_hit *hit, const struct key *k);

/* ---- walks ------------------------------------------------------------------------------------------------- */

/* The slot that points to this very entry, whose extent is announced or walked by the caller: hit->slot and word.
 * *alone: no other slot can be of the key. */
bool index_locate(const struct segment *s, const struct key *k, uint64_t offset, struct index_hit *hit, bool *alone);
/* What a slot of the key holds, or of a stranger with its tag; 0: none. */
uint64_t index_guess(const struct segment *s, uint64_t hash);
/* The entry in slot `number`, protected by `announce`; false: none there. */
bool index_at(struct seat *seat, uint64_t number, unsigned announce, struct index_hit *hit);
uint64_t index_slots(const struct segment *s);

#endif
