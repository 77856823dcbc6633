/* SPDX-License-Identifier: MIT */
/* Appending and walking: see log.h. */
#include <sched.h>
#include <string.h>

#include "hash.h"
#include "log.h"

#define HEAD(sequence, x) ((uint64_t)(sequence) << 32 | ((x) + 1))
#define HEAD_EXTENT(head) ((uint32_t)(head) - 1)
#define BUSY_ROUNDS 64u /* over all heads, before one is replaced; from the 16th on we give up the processor in between */

/* ---- heads ------------------------------------------------------------------------------------------------- */

static bool is_head(const struct segment *s, uint32_t x)
{
	uint32_t h;

	for (h = 0; h < s->geometry.heads; h++)
		if ((uint32_t)w64_load(&s->header->heads[h]) == x + 1)
			return true;
	return false;
}

static void seal_if_no_head(struct seat *seat, uint32_t x)
{
	uint64_t word = extents_word(&seat->member->segment, x);

	if (EXTENT_STATE(word) == EXTENT_OPEN && !is_head(&seat->member->segment, x))
		extents_seal(seat, x, word);
}

/* L.2: the unlocker frees the lock, then looks for the head; replace_head() changes the head, then looks at the lock.
 * Both steps are CASes, so at least one of the two sees the other's and seals. */
static void unlock(struct seat *seat, uint32_t x)
{
	w64_cas(&seat->member->segment.extents[x].lock, seat->tag | (seat->index + 1), 0);
	seal_if_no_head(seat, x);
}

/* A dead owner's lock is taken over by a CAS from its own word; L.1 makes that all there is to do. */
static bool take_lock(struct seat *seat, uint32_t x, bool ask)
{
	struct extent *e = &seat->member->segment.extents[x];
	uint64_t mine = seat->tag | (seat->index + 1), owner = w64_load(&e->lock);
	const word32 *word;
	uint32_t seen;

	if (!owner)
		return w64_cas(&e->lock, 0, mine);
	return ask && registry_life(seat->member, owner, &word, &seen) >= LIFE_THREAD_DEAD && w64_cas(&e->lock, owner, mine);
}

/* Put a new extent in the place of head `old`. LOG_FULL: there is none. */
static int replace_head(struct seat *seat, unsigned announce, uint32_t h, uint64_t old, bool *opened)
{
	const struct segment *s = &seat->member->segment;
	int64_t x = extents_open(seat, announce);
	uint64_t word;
	bool made;

	if (x < 0)
		return LOG_FULL;
	word = extents_word(s, (uint32_t)x);
	*opened = true;
	made = w64_cas(&s->header->heads[h], old, HEAD(EXTENT_SEQUENCE(word), (uint32_t)x));
	if (!made)
		extents_move(seat, (uint32_t)x, word, EXTENT_RETIRED); /* another was first */
	rcu_clear(seat, announce);
	if (made && old && !w64_load(&s->extents[HEAD_EXTENT(old)].lock))
		seal_if_no_head(seat, HEAD_EXTENT(old));
	return SHOAL_OK;
}

/* ---- append ------------------------------------------------------------------------------------------------ */

enum { BUSY = 2, AGAIN };

/* Under the lock. */
static int move_tail(struct seat *seat, uint32_t x, uint32_t h, uint64_t head, uint32_t length, uint64_t *offset)
{
	const struct segment *s = &seat->member->segment;
	struct extent *e = &s->extents[x];
	uint32_t tail = w32_peek(&e->tail);

	if (tail > s->geometry.extent_size || s->geometry.extent_size - tail < length) {
		w64_cas(&s->header->heads[h], head, 0);
		return AGAIN; /* unlock() seals it */
	}
	*offset = s->geometry.log_at + (uint64_t)x * s->geometry.extent_size + tail;
	w32_poke(&log_at(s, *offset)->length, length);
	w32_store(&e->tail, tail + length); /* the word that publishes the length to walks */
	return SHOAL_OK;
}

static int append_at(struct seat *seat, unsigned word, uint32_t h, uint64_t head, uint32_t length, bool ask,
                     uint64_t *offset)
{
	const struct segment *s = &seat->member->segment;
	uint32_t x = HEAD_EXTENT(head);
	uint64_t w;
	int r;

	if (x >= s->geometry.extents) { /* a bad byte */
		w64_cas(&s->header->heads[h], head, 0);
		return AGAIN;
	}
	rcu_announce(seat, word, x);
	w = extents_word(s, x); /* E.1: after the announcement */
	if (EXTENT_STATE(w) != EXTENT_OPEN || EXTENT_SEQUENCE(w) != head >> 32) {
		w64_cas(&s->header->heads[h], head, 0);
		return AGAIN;
	}
	if (!take_lock(seat, x, ask))
		return BUSY;
	r = extents_word(s, x) == w ? move_tail(seat, x, h, head, length, offset) : AGAIN;
	unlock(seat, x);
	return r;
}

int log_append(struct seat *seat, unsigned word, uint32_t length, uint64_t *offset, bool *opened)
{
	const struct segment *s = &seat->member->segment;
	uint32_t heads = s->geometry.heads, h = seat->index % heads, rounds, busy = 0;
	uint64_t head;
	int r = AGAIN;

	if (length > s->geometry.extent_size)
		return SHOAL_ERR_TOO_BIG;
	for (rounds = 0; rounds < 1000; rounds++) {
		head = w64_load(&s->header->heads[h]);
		r = head ? append_at(seat, word, h, head, length, busy > BUSY_ROUNDS / 2, offset)
			 : replace_head(seat, word, h, 0, opened);
		if (r == SHOAL_OK && head)
			return SHOAL_OK;
		rcu_clear(seat, word);
		if (r == LOG_FULL)
			return LOG_FULL;
		if (r != BUSY)
			continue;
		if (++busy > BUSY_ROUNDS) {
			r = replace_head(seat, word, h, head, opened);
			if (r)
				return r;
			busy = 0; /* one is enough: go on in it */
			continue;
		}
		h = (h + 1) % heads;
		if (busy > BUSY_ROUNDS / 4)
			sched_yield();
		else
			spin_hint();
	}
	return LOG_FULL;
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

/* A new extent whose opener has not made it a head yet is taken for lost, too: it is sealed empty, its opener's head is
 * dropped by the next writer, and nothing but the extent's turn is lost. */
void log_sweep(struct seat *seat)
{
	const struct segment *s = &seat->member->segment;
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++)
		if (EXTENT_STATE(extents_word(s, x)) == EXTENT_OPEN && !w64_load(&s->extents[x].lock))
			seal_if_no_head(seat, x);
}
