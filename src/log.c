/* SPDX-License-Identifier: MIT */
/* Appending and walking: see log.h. */
#include <sched.h>
#include <string.h>

#include "hash.h"
#include "life.h"
#include "log.h"

#define HEAD(sequence, x) ((uint64_t)(sequence) << 32 | ((x) + 1))
#define HEAD_EXTENT(head) ((uint32_t)(head) - 1)
#define BUSY_ROUNDS 64u /* over all heads, before one is replaced; after a quarter of them we yield in between */
#define FITTING 3u      /* heads of a log that are kept for entries of different sizes (L.4) */
#define SMALL_REST 32u  /* its part of an extent is not worth a head */
#define OLD 16u         /* a head is, when so many extents were sealed since it was opened: nothing seems to fit it */
#define SPREAD_AT 4u    /* busy rounds from which on another head is opened rather than waited for */

/* ---- heads ------------------------------------------------------------------------------------------------- */

static bool is_head(const struct segment *s, uint32_t x)
{
	const word64 *heads = &s->header->heads[0][0];
	uint32_t h;

	for (h = 0; h < LOGS * HEADS_MAX; h++)
		if ((uint32_t)w64_load(&heads[h]) == x + 1)
			return true;
	return false;
}

static void seal_if_no_head(struct seat *seat, uint32_t x)
{
	uint64_t word = extents_word(&seat->member->segment, x);

	if (EXTENT_STATE(word) == EXTENT_OPEN && !is_head(&seat->member->segment, x))
		extents_seal(seat, x, word);
}

/* L.2: the unlocker frees the lock, then looks for the head, mostly where it was; replace_head() changes the head, then
 * looks at the lock. Both steps are CASes, so at least one of the two sees the other's and seals. */
static void unlock(struct seat *seat, uint32_t x, const word64 *head, uint64_t word)
{
	w64_cas(&seat->member->segment.extents[x].lock, member_ref(seat), 0);
	if (unlikely(w64_load(head) != word))
		seal_if_no_head(seat, x);
}

/* A dead owner's lock is taken over by a CAS from its own word; L.1 makes that all there is to do. */
static bool take_lock(struct seat *seat, uint32_t x, bool ask)
{
	struct extent *e = &seat->member->segment.extents[x];
	uint64_t mine = member_ref(seat), owner = w64_load(&e->lock);
	const word32 *word;
	uint32_t seen;

	if (!owner)
		return w64_cas(&e->lock, 0, mine);
	return ask && life_of(seat->member, owner, &word, &seen) >= LIFE_THREAD_DEAD && w64_cas(&e->lock, owner, mine);
}

/* Where to append: a place among the heads of a log, and what it holds. */
struct place_of_head {
	word64 *head;
	uint64_t word;
	bool fits;
};

/* What is left in a head; a bad one has nothing. A look without the lock, decided on under it. */
static uint32_t rest_of(const struct segment *s, uint64_t head)
{
	uint32_t x = HEAD_EXTENT(head), tail;

	if (x >= s->geometry.extents)
		return 0;
	tail = w32_peek(&s->extents[x].tail);
	return tail > s->geometry.extent_size || tail % 8 ? 0 : s->geometry.extent_size - tail;
}

/* How many extents were sealed since it was opened. */
static uint64_t age_of(const struct segment *s, uint64_t head)
{
	uint32_t x = HEAD_EXTENT(head);

	return x < s->geometry.extents ? w64_peek(&s->header->stamp) - w64_peek(&s->extents[x].stamp) : UINT64_MAX;
}

/* The first head from `start` on that has room; else, by L.4, a place without one, or the head to be given up.
 * `spread`: rather a place without a head than one that is busy. */
static struct place_of_head choose(const struct segment *s, enum log_kind kind, uint32_t start, uint32_t length,
                                   bool spread)
{
	struct place_of_head empty = {0}, full = {0}, old = {0}, p = {0};
	uint32_t i, rest, least = UINT32_MAX, there = 0, heads = s->geometry.heads;
	uint64_t age = OLD;

	for (i = 0; i < heads; i++) {
		p.head = &s->header->heads[kind][(start + i) % heads];
		p.word = w64_load(p.head);
		p.fits = false;
		if (!p.word) {
			empty = empty.head ? empty : p;
			continue;
		}
		rest = rest_of(s, p.word);
		p.fits = rest >= length;
		if (p.fits && !spread)
			return p;
		if (rest < least || !there) {
			least = rest;
			full = p;
		}
		if (age_of(s, p.word) > age) {
			age = age_of(s, p.word);
			old = p;
		}
		there++;
	}
	if (spread && !empty.head)
		return choose(s, kind, start, length, false);
	if (empty.head && (spread || !there || (there < FITTING && least >= s->geometry.extent_size / SMALL_REST)))
		return empty;
	return old.head && least >= s->geometry.extent_size / SMALL_REST ? old : full;
}

/* Put a new extent in a head's place. LOG_FULL: there is none. */
static int replace_head(struct seat *seat, unsigned announce, enum log_kind kind, const struct place_of_head *p,
                        bool *opened)
{
	const struct segment *s = &seat->member->segment;
	int64_t x = extents_open(seat, announce, kind);
	uint32_t old = HEAD_EXTENT(p->word);
	uint64_t word;
	bool made;

	if (x < 0)
		return LOG_FULL;
	word = extents_word(s, (uint32_t)x);
	*opened = true;
	made = w64_cas(p->head, p->word, HEAD(EXTENT_SEQUENCE(word), (uint32_t)x));
	/* another was first; swept meanwhile, it may be an evictor's (E.3) */
	if (!made && EXTENT_STATE(word) == EXTENT_OPEN)
		extents_move(seat, (uint32_t)x, word, EXTENT_RETIRED);
	rcu_clear(seat, announce);
	if (made && old < s->geometry.extents && !w64_load(&s->extents[old].lock))
		seal_if_no_head(seat, old);
	return SHOAL_OK;
}

/* ---- append ------------------------------------------------------------------------------------------------ */

enum { BUSY = 2, AGAIN };

/* Under the lock. */
static int move_tail(const struct segment *s, uint32_t x, uint32_t length, uint64_t *offset)
{
	struct extent *e = &s->extents[x];
	uint32_t tail = w32_peek(&e->tail);

	if (tail > s->geometry.extent_size || tail % 8 || s->geometry.extent_size - tail < length)
		return AGAIN; /* choose() sees it, too */
	*offset = s->geometry.log_at + (uint64_t)x * s->geometry.extent_size + tail;
	w32_poke(&log_at(s, *offset)->length, length);
	w32_store(&e->tail, tail + length); /* the word that publishes the length to walks */
	return SHOAL_OK;
}

static int append_at(struct seat *seat, unsigned word, const struct place_of_head *p, uint32_t length, bool ask,
                     uint64_t *offset)
{
	const struct segment *s = &seat->member->segment;
	uint32_t x = HEAD_EXTENT(p->word);
	uint64_t w;
	int r;

	rcu_announce(seat, word, x);
	w = extents_word(s, x); /* E.1: after the announcement */
	if (EXTENT_STATE(w) != EXTENT_OPEN || EXTENT_SEQUENCE(w) != p->word >> 32) {
		w64_cas(p->head, p->word, 0);
		return AGAIN;
	}
	if (!take_lock(seat, x, ask))
		return BUSY;
	r = extents_word(s, x) == w ? move_tail(s, x, length, offset) : AGAIN;
	unlock(seat, x, p->head, p->word);
	return r;
}

static NOINLINE int append(struct seat *seat, unsigned word, enum log_kind kind, uint32_t length, uint64_t *offset,
                           bool *opened)
{
	const struct segment *s = &seat->member->segment;
	uint32_t start = seat->index, rounds, busy = 0;
	struct place_of_head p;
	int r;

	if (length > s->geometry.extent_size)
		return SHOAL_ERR_TOO_BIG;
	for (rounds = 0; rounds < 1000; rounds++) {
		p = choose(s, kind, start, length, busy == SPREAD_AT);
		if (!p.fits) {
			r = replace_head(seat, word, kind, &p, opened);
			if (r && busy != SPREAD_AT)
				return r;
			busy += busy == SPREAD_AT; /* spread once */
			continue;
		}
		r = append_at(seat, word, &p, length, busy > BUSY_ROUNDS / 2, offset);
		if (!r)
			return SHOAL_OK;
		rcu_clear(seat, word);
		if (r != BUSY)
			continue;
		start++;
		if (++busy > BUSY_ROUNDS) {
			r = replace_head(seat, word, kind, &p, opened);
			if (r)
				return r;
			busy = 0; /* one is enough: go on in it */
		} else if (busy > BUSY_ROUNDS / 4) {
			sched_yield();
		} else {
			spin_hint();
		}
	}
	return LOG_FULL;
}

/* Mostly the first head that append() would choose has room, and is not busy. */
int log_append(struct seat *seat, unsigned word, enum log_kind kind, uint32_t length, uint64_t *offset, bool *opened)
{
	const struct segment *s = &seat->member->segment;
	struct place_of_head p = {.head = &s->header->heads[kind][seat->index % s->geometry.heads]};

	p.word = w64_load(p.head);
	if (likely(HEAD_EXTENT(p.word) < s->geometry.extents && !append_at(seat, word, &p, length, false, offset)))
		return SHOAL_OK;
	rcu_clear(seat, word);
	return append(seat, word, kind, length, offset, opened);
}

/* ---- read -------------------------------------------------------------------------------------------------- */

bool log_next(const struct segment *s, uint32_t x, uint32_t *at, uint64_t *offset)
{
	uint32_t tail = w32_load(&s->extents[x].tail), length;

	if (tail > s->geometry.extent_size || *at >= tail || tail - *at < sizeof(struct entry))
		return false;
	*offset = s->geometry.log_at + (uint64_t)x * s->geometry.extent_size + *at;
	length = w32_peek(&log_at(s, *offset)->length);
	if (length < sizeof(struct entry) || length % 8 || length > tail - *at)
		return false;
	*at += length;
	return true;
}

uint64_t *log_checksum_at(const struct log_entry *e)
{
	return (uint64_t *)(uintptr_t)(e->value + align_up(e->value_size, 8));
}

/* Key and value on their own: the padding between them is nobody's. */
uint64_t log_checksum(const struct log_entry *e)
{
	size_t head = offsetof(struct entry, key) - offsetof(struct entry, stored);
	uint64_t sum = hash_bytes(&e->entry->stored, head, 0);

	sum = hash_bytes(e->key, e->key_size, sum);
	return hash_bytes(e->value, e->value_size, sum);
}

/* ---- recovery ---------------------------------------------------------------------------------------------- */

void log_recover(const struct segment *s, uint64_t ref)
{
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++)
		if (w64_load(&s->extents[x].lock) == ref)
			w64_cas(&s->extents[x].lock, ref, 0);
}

/* No step leaves an extent like that: a scribble. Who evicts an extent announces it from before the CAS to the end. */
static bool is_astray(const struct segment *s, uint32_t x, uint64_t word)
{
	enum extent_state state = EXTENT_STATE(word);
	uint32_t owner = EXTENT_OWNER(word);

	return state > EXTENT_RETIRED ||
	       (state == EXTENT_EVICTING &&
		(owner >= s->geometry.readers || (uint32_t)w64_load(&s->readers[owner].words[WALKING]) != x + 1));
}

/* A new extent whose opener has not made it a head yet is taken for lost, too: it is sealed empty, its opener's head is
 * dropped by the next writer, and nothing but the extent's turn is lost. */
void log_sweep(struct seat *seat)
{
	const struct segment *s = &seat->member->segment;
	uint64_t word;
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++) {
		word = extents_word(s, x);
		if (is_astray(s, x, word))
			extents_move(seat, x, word, EXTENT_SEALED);
		else if (EXTENT_STATE(word) == EXTENT_OPEN && !w64_load(&s->extents[x].lock))
			seal_if_no_head(seat, x);
	}
}
