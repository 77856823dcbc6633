/* SPDX-License-Identifier: MIT */
/*
 * The index: a lock-free hash table of 64-byte buckets with eight 64-bit slots. A key lies in its first bucket, or in
 * its second one if the first was rather full; both are in one page, so a look-up costs one TLB entry, and mostly one
 * line.
 *
 *   slot   EMPTY(version) --place--> entry --settle--> entry, settled --replace--> entry',
 *          settled --remove--> EMPTY(version')
 *
 * Each arrow is one CAS of one slot.
 *
 * I.1  Racing inserts of one key may leave two slots. The higher generation wins for every reader, and whoever sees two
 *      removes the older.
 * I.2  Every removal of a key takes the older generations first: after a kill between two removals the older one can't
 *      come back.
 * I.3  Each EMPTY carries a number that no-one else drew: a CAS that expects an EMPTY fails once anything happened
 *      there.
 * I.4  Who compares or replaces an entry announces its extent first and looks at the slot again, and keeps the
 *      announcement past its CAS: the word can't come back by reuse of the same offset.
 * I.5  Both buckets full: one of the 16 makes room, the first that was not hit lately. Those that are passed are taken
 *      a hit off (GCLOCK: Smith, Sequentiality and prefetching in database systems, 1978), or what was hot once would
 *      stay for ever.
 * I.6  A reader that finds the key's one settled slot in the first bucket looks no further. A slot is settled when a
 *      look at both buckets, begun when the entry was there already, finds no other of the key. Of two inserts at least
 *      one sees the other, so of two slots at most the earlier is settled, and its reader misses one that was being
 *      inserted. A reader that finds an entry in the second bucket, not settled, and none in the first, settles it
 *      before it is returned: else one that is older could be settled in the first bucket, and be found there by the
 *      next reader.
 * I.7  A writer that finds a settled slot of the key looks no further, either: what replaces it by CAS is settled, too,
 *      as there is at most one that is, and the slot has not been empty since the look that settled it. Another slot of
 *      the key is that of an insert which looked before there was this one, and settles after: it will see both, and
 *      the older one goes. If it is killed first, its slot stays, unsettled, and goes before this one when that is
 *      removed (I.2).
 *
 *   operation        may run beside    another process is killed
 *   index_find       everything        no effect
 *   index_commit     everything        the slot is as before, or changed; live bytes may count too many by this entry
 *                                      until its extent is evicted (extents.h, E.5); not settled: a look-up costs more
 *   index_remove     everything        likewise
 */
#ifndef SHOAL_INDEX_H
#define SHOAL_INDEX_H

#include <string.h>

#include "hash.h"
#include "log.h"

#define SLOT_USED ((uint64_t)1 << 63)
#define SLOT_TAG_SHIFT 47
#define SLOT_FREQUENCY_SHIFT 45
#define SLOT_FREQUENCY_MOST 3u
#define SLOT_FREQUENCY ((uint64_t)SLOT_FREQUENCY_MOST << SLOT_FREQUENCY_SHIFT)
#define SLOT_HIT ((uint64_t)1 << SLOT_FREQUENCY_SHIFT)
#define SLOT_SETTLED ((uint64_t)1 << 44) /* I.6 */
#define SLOT_OFFSET ((uint64_t)-1 >> 20)

#define SLOT_IS_USED(word) ((word) >> 63)
#define SLOT_BYTES(word) (((word) & SLOT_OFFSET) * 8)
#define SLOT_FREQUENCY_OF(word) ((unsigned)((word) >> SLOT_FREQUENCY_SHIFT & 3))
#define SLOT_BARE(word) ((word) & ~(SLOT_FREQUENCY | SLOT_SETTLED)) /* what changes with its entry alone */
#define SLOT_SAME(a, b) (!SLOT_BARE((a) ^ (b)))

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

/* Of the hash of its keys. */
static inline uint64_t index_seed(const struct segment *s, uint32_t keyspace)
{
	return s->geometry.seed + keyspace;
}

struct key index_key(const struct segment *s, uint32_t keyspace, const void *key, size_t size);

/*
 * Where a key lies follows from its hash:
 *
 *   63                          32 31          28 27                   12 11     6 5         0
 *   +-----------------------------+--------------+-----------------------+--------+-----------+
 *   |      group (by range)       |   coldest    |          tag          | second |   first   |
 *   +-----------------------------+--------------+-----------------------+--------+-----------+
 *
 * A group is a page of buckets. Of tags, with an index as full as it is sized for (57%):
 *
 *   8 bits    one look-up in 56 meets a stranger, which costs a cache miss and the way of what is not usual
 *   12        one in 900
 *   16        one in 14,000, and leaves an offset of 44 bits, in units of 8 bytes
 */
static inline struct bucket *index_group(const struct segment *s, uint64_t hash)
{
	return s->index + ((hash >> 32) * (s->geometry.buckets / INDEX_GROUP) >> 32) * INDEX_GROUP;
}

static inline struct bucket *index_bucket(const struct segment *s, uint64_t hash)
{
	return index_group(s, hash) + hash % INDEX_GROUP;
}

static inline struct bucket *index_second(const struct segment *s, uint64_t hash)
{
	/* never the first one: the lowest bit differs */
	return index_group(s, hash) + (hash ^ (hash >> 6 | 1)) % INDEX_GROUP;
}

static inline uint32_t index_tag(uint64_t hash)
{
	return 1u << 16 | (hash >> 12 & 0xffff); /* with SLOT_USED, shifted down */
}

/* The slots of a bucket with the key's tag. Relaxed: a match is loaded again after its announcement, and that is what
 * is decided on. */
static inline unsigned index_match(const struct bucket *b, uint64_t hash)
{
	return w64_match8(b->slots, SLOT_TAG_SHIFT, index_tag(hash));
}

/* By words, the last ones overlapping: a call of memcmp costs a short key more than the comparison. */
static inline bool index_same_bytes(const unsigned char *a, const unsigned char *b, size_t n)
{
	uint64_t x[4], y[4];

	if (unlikely(n < 8 || n > 32))
		return !memcmp(a, b, n);
	memcpy(x, a, 8);
	memcpy(y, b, 8);
	memcpy(x + 1, a + n - 8, 8);
	memcpy(y + 1, b + n - 8, 8);
	if (n <= 16)
		return !((x[0] ^ y[0]) | (x[1] ^ y[1]));
	memcpy(x + 2, a + 8, 8);
	memcpy(y + 2, b + 8, 8);
	memcpy(x + 3, a + n - 16, 8);
	memcpy(y + 3, b + n - 16, 8);
	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]));
}

static inline bool index_same_key(const struct log_entry *e, const struct key *k)
{
	return e->key_size == k->size && e->keyspace == k->keyspace && index_same_bytes(e->key, k->data, k->size);
}

/* Does a look-up that has found it have to settle the key first? */
static inline bool index_is_unsure(const struct segment *s, const struct key *k, const struct index_hit *hit)
{
	return unlikely(!(hit->word & SLOT_SETTLED)) &&
	       (size_t)(hit->slot - index_bucket(s, k->hash)->slots) >= BUCKET_SLOTS;
}

/* How many entries the key has (0, mostly 1); the wanted one in *hit, protected by announcement a or b. */
unsigned index_find(struct seat *seat, const struct key *k, enum index_want want, unsigned a, unsigned b,
                    struct index_hit *hit);

/* Remember a hit, up to three in a row; not in an extent that is still written to (evict.h). True if that was a
 * write. */
static inline bool index_touch(const struct segment *s, word64 *slot, uint64_t word)
{
	return (word & SLOT_FREQUENCY) != SLOT_FREQUENCY &&
	       EXTENT_STATE(w64_peek(&s->extents[extent_of(s, SLOT_BYTES(word))].word)) != EXTENT_OPEN &&
	       w64_cas(slot, word, word + SLOT_HIT);
}

static inline void index_prefetch(const struct segment *s, uint64_t hash)
{
	__builtin_prefetch(index_bucket(s, hash));
}

void index_prefetch_entry(const struct segment *s, uint64_t hash);

/* What a slot of the key holds, or of a stranger with its tag; 0: none. The slot, or NULL: none, or there are two. */
static inline word64 *index_guess(const struct segment *s, uint64_t hash, uint64_t *word)
{
	struct bucket *b = index_bucket(s, hash);
	unsigned found = index_match(b, hash);

	*word = 0;
	if (!found) {
		b = index_second(s, hash);
		found = index_match(b, hash);
	}
	if (!found)
		return NULL;
	*word = w64_peek(&b->slots[__builtin_ctz(found)]);
	if (unlikely(!SLOT_IS_USED(*word)))
		*word = 0;
	return likely(!(found & (found - 1))) ? &b->slots[__builtin_ctz(found)] : NULL;
}

/* What a writer reads of the entry behind that; wherever it is: a prefetch never faults. */
static inline void index_prefetch_guessed(const struct segment *s, uint64_t word)
{
	__builtin_prefetch(s->base + SLOT_BYTES(word));
	__builtin_prefetch(s->base + SLOT_BYTES(word) + CACHE_LINE);
}

/* ---- change ------------------------------------------------------------------------------------------------ */

struct index_target {
	word64 *slot;
	uint64_t expected;   /* an EMPTY, an entry of this key, or the one that makes room */
	bool own;            /* it is of this key */
	bool alone;          /* and settled, and there is no other: what takes its place needs no index_settle() */
	uint32_t old_length; /* of what is replaced */
	unsigned announced;  /* what protects `expected`, if anything does (READING is 0): the caller clears it */
};

/* Where an entry of that generation would go. INDEX_NEWER: the key has a newer one. */
enum { INDEX_NEWER = 1 };
int index_place(struct seat *seat, const struct key *k, uint64_t generation, unsigned a, unsigned b,
                struct index_target *target);
/* Likewise, in a slot of index_guess(). False: that is not the key's, not settled, or newer; nothing is announced. */
bool index_place_on(struct seat *seat, const struct key *k, uint64_t generation, word64 *slot, unsigned a,
                    struct index_target *target);
static inline uint64_t index_word(const struct key *k, uint64_t offset, uint64_t old)
{
	return SLOT_USED | (k->hash >> 12 & 0xffff) << SLOT_TAG_SHIFT | offset / 8 |
	       (SLOT_IS_USED(old) ? old & (SLOT_FREQUENCY | SLOT_SETTLED) : 0);
}
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
/* Remove all but the newest, and settle that. `seen`: what the caller has seen or put there before, or 0. */
void index_settle(struct seat *seat, const struct key *k, uint64_t seen, unsigned a, unsigned b);
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

/* ---- walks ------------------------------------------------------------------------------------------------- */

/* The slot that points to this very entry, whose extent is announced or walked by the caller: hit->slot and word.
 * *alone: no other slot can be of the key. */
bool index_locate(const struct segment *s, const struct key *k, uint64_t offset, struct index_hit *hit, bool *alone);
/* The entry in slot `number`, protected by `announce`; false: none there. */
bool index_at(struct seat *seat, uint64_t number, unsigned announce, struct index_hit *hit);
uint64_t index_slots(const struct segment *s);
static inline word64 *index_slot_at(const struct segment *s, uint64_t number)
{
	return &s->index[number / BUCKET_SLOTS].slots[number % BUCKET_SLOTS];
}

#endif
