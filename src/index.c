/* SPDX-License-Identifier: MIT */
/* The index: see index.h. */
#include <string.h>

#include "index.h"

#define GENERATION_MOST ((uint64_t)1 << 62)
#define GENERATION_MARGIN ((uint64_t)1 << 20)

struct key index_key(const struct segment *s, uint32_t keyspace, const void *key, size_t size)
{
	return (struct key){key, (uint32_t)size, keyspace, hash_bytes(key, size, index_seed(s, keyspace))};
}

void index_prefetch_entry(const struct segment *s, uint64_t hash)
{
	const struct bucket *b = index_bucket(s, hash);
	unsigned found = index_match(b, hash);

	if (unlikely(!found)) {
		b = index_second(s, hash);
		found = index_match(b, hash);
	}
	for (; found; found &= found - 1) /* wherever that is: a prefetch never faults */
		__builtin_prefetch(
			(const void *)((uintptr_t)s->base + SLOT_BYTES(w64_peek(&b->slots[__builtin_ctz(found)]))));
}

/* ---- look-up ----------------------------------------------------------------------------------------------- */

enum { NOT_OURS, OURS, CHANGED };

static uint64_t empty_word(const struct segment *s)
{
	return segment_draw(s) & ~SLOT_USED;
}

/* Protect and read what a slot points to. The second load is acquire: the entry's bytes were written before it. */
static inline int protect(struct seat *seat, word64 *slot, uint64_t word, unsigned announce, struct index_hit *hit)
{
	const struct segment *s = &seat->member->segment;
	uint64_t offset = SLOT_BYTES(word);
	uint32_t x = extent_of(s, offset);

	if (unlikely(!SLOT_IS_USED(word)))
		return CHANGED;
	hit->word = word;
	if (unlikely(!log_holds(s, offset)))
		return NOT_OURS;
	/* its lines are fetched side by side, not one after the other as they are read */
	__builtin_prefetch(s->base + offset);
	__builtin_prefetch(s->base + offset + CACHE_LINE);
	__builtin_prefetch(s->base + offset + 2 * CACHE_LINE);
	rcu_announce(seat, announce, x);
	hit->word = w64_load(slot); /* I.4 */
	if (unlikely(!SLOT_SAME(hit->word, word)))
		return CHANGED;
	hit->slot = slot;
	hit->announced = announce;
	return log_read_in(s, x, offset, &hit->e) ? OURS : NOT_OURS;
}

/* A slot that points to no entry (a scribble) is removed, so that it is met once. */
static void remove_bad(const struct segment *s, word64 *slot, uint64_t word, struct index_hit *best)
{
	best->bad += w64_cas(slot, word, empty_word(s));
}

/* One slot with the key's tag. The first of its entries is read right into *best. */
static inline int look(struct seat *seat, const struct key *k, word64 *slot, unsigned announce, struct index_hit *hit)
{
	int r = protect(seat, slot, w64_peek(slot), announce, hit);

	if (unlikely(r == NOT_OURS))
		remove_bad(&seat->member->segment, slot, hit->word, hit);
	return r == OURS && !index_same_key(&hit->e, k) ? NOT_OURS : r;
}

/* A second entry of the key (I.1). */
static int look_beside(struct seat *seat, const struct key *k, word64 *slot, enum index_want want, unsigned announce,
                       struct index_hit *best)
{
	struct index_hit hit = {.bad = 0};
	int r = look(seat, k, slot, announce, &hit);

	best->bad += hit.bad;
	hit.bad = best->bad;
	if (r == OURS && (hit.e.entry->generation > best->e.entry->generation) == (want == WANT_NEWEST))
		*best = hit;
	else
		rcu_clear(seat, announce); /* also of a stranger with the same tag: nobody else would */
	return r;
}

unsigned index_find(struct seat *seat, const struct key *k, enum index_want want, unsigned a, unsigned b,
                    struct index_hit *hit)
{
	const struct segment *s = &seat->member->segment;
	struct bucket *buckets[2] = {index_bucket(s, k->hash), index_second(s, k->hash)};
	unsigned count, side, found;
	word64 *slot;
	int r;

	__builtin_prefetch(buckets[1]);
	hit->bad = 0;
again:
	count = 0;
	for (side = 0; side < 2; side++) {
		for (found = index_match(buckets[side], k->hash); found; found &= found - 1) {
			slot = &buckets[side]->slots[__builtin_ctz(found)];
			if (likely(!count))
				r = look(seat, k, slot, a, hit);
			else
				r = look_beside(seat, k, slot, want, hit->announced == a ? b : a, hit);
			if (unlikely(r == CHANGED)) {
				rcu_clear(seat, b);
				goto again;
			}
			count += r == OURS;
		}
	}
	if (unlikely(count != 1)) /* the other one may be announced, too */
		rcu_clear(seat, count && hit->announced == a ? b : a);
	if (unlikely(!count))
		rcu_clear(seat, b);
	return count;
}

/* ---- change ------------------------------------------------------------------------------------------------ */

static unsigned count_empty(const struct bucket *b)
{
	unsigned i, n = 0;

	for (i = 0; i < BUCKET_SLOTS; i++)
		n += !SLOT_IS_USED(w64_peek(&b->slots[i]));
	return n;
}

/*
 * In simulation, with a load of 57% (an index as it is sized, when the log is full of entries of the mean size), 80,
 * 90:
 *
 *                                    keys in their second bucket     keys that have to go
 *   one bucket alone                      none   none   none        1.6%   6.7%  10.1%
 *   the second if the first is full       1.6%   5.8%   7.8%        0.1%   1.7%   4.1%
 *   the first while it has three free     6.9%  14.3%  16.4%        none   0.2%   1.6%
 *   the emptier                          30.9%  31.7%  32.0%        none   0.04%  0.9%
 */
#define FIRST_WHILE_FREE 3u

static struct bucket *emptier(struct bucket *const buckets[2])
{
	unsigned first = count_empty(buckets[0]);

	return buckets[first < FIRST_WHILE_FREE && first < count_empty(buckets[1])];
}

static bool place_in_empty(struct bucket *b, struct index_target *target)
{
	unsigned i;

	for (i = 0; i < BUCKET_SLOTS; i++) {
		target->slot = &b->slots[i];
		target->expected = w64_load(target->slot);
		if (!SLOT_IS_USED(target->expected))
			return true;
	}
	return false;
}

/* I.2, for an entry of another key that has to go: its older duplicates go before it. */
static void settle_other(struct seat *seat, const struct index_hit *hit, unsigned b)
{
	struct key k = index_key(&seat->member->segment, hit->e.keyspace, hit->e.key, hit->e.key_size);

	index_settle(seat, &k, 0, b, WALKING);
}

/* I.5. From where the hash says, so that no position is always the victim. */
static bool place_in_coldest(struct seat *seat, struct bucket *const buckets[2], uint64_t hash, unsigned a, unsigned b,
                             struct index_target *target)
{
	unsigned i = (unsigned)(hash >> 28) % (2 * BUCKET_SLOTS),
		 end = i + (SLOT_FREQUENCY_MOST + 1) * 2 * BUCKET_SLOTS;
	struct index_hit hit = {0};
	uint64_t word = 0;
	word64 *slot;

	for (; i < end; i++) {
		slot = &buckets[i / BUCKET_SLOTS % 2]->slots[i % BUCKET_SLOTS];
		word = w64_load(slot);
		if (SLOT_IS_USED(word) && !SLOT_FREQUENCY_OF(word))
			break;
		if (SLOT_IS_USED(word))
			w64_cas(slot, word, word - SLOT_HIT);
	}
	if (i == end)
		return false;
	target->slot = slot;
	target->expected = word;
	switch (protect(seat, target->slot, target->expected, a, &hit)) {
	case CHANGED:
		rcu_clear(seat, a);
		return false;
	case OURS:
		settle_other(seat, &hit, b);
		target->old_length = hit.e.length;
		target->expected = hit.word;
	}
	target->announced = a;
	return true;
}

/* I.7. As look() does it, in one piece, and only what matters. */
bool index_place_on(struct seat *seat, const struct key *k, uint64_t generation, word64 *slot, unsigned a,
                    struct index_target *target)
{
	const struct segment *s = &seat->member->segment;
	uint64_t word = w64_peek(slot), at = SLOT_BYTES(word) - s->geometry.log_at, now;
	uint32_t x = extent_of(s, SLOT_BYTES(word)), length;
	const struct entry *e = log_at(s, SLOT_BYTES(word));

	if (unlikely(!SLOT_IS_USED(word) || !(word & SLOT_SETTLED) || at >= s->quick_size))
		return false;
	rcu_announce(seat, a, x);
	now = w64_load(slot); /* I.4 */
	length = w32_peek(&e->length);
	if (unlikely(!SLOT_SAME(now, word) || at + length > (uint64_t)(x + 1) * s->geometry.extent_size ||
	             length < log_length(s, k->size, STORED_SIZE(e->stored)) ||
	             (uint32_t)e->kind != (uint32_t)ENTRY_KIND(0, k->keyspace, k->size) ||
	             !index_same_bytes(e->key, k->data, k->size) || e->generation > generation)) {
		rcu_clear(seat, a);
		return false;
	}
	*target = (struct index_target){slot, now, true, true, length, a};
	return true;
}

int index_place(struct seat *seat, const struct key *k, uint64_t generation, unsigned a, unsigned b,
                struct index_target *target)
{
	const struct segment *s = &seat->member->segment;
	struct bucket *buckets[2] = {index_bucket(s, k->hash), index_second(s, k->hash)};
	struct index_hit hit = {0};
	unsigned count;

	for (;;) {
		*target = (struct index_target){0};
		count = index_find(seat, k, WANT_NEWEST, a, b, &hit);
		if (count) {
			if (hit.e.entry->generation > generation && !index_is_ahead(s, &hit)) {
				rcu_clear(seat, hit.announced);
				return INDEX_NEWER;
			}
			*target = (struct index_target){hit.slot, hit.word, true, count == 1 && hit.word & SLOT_SETTLED,
			                                hit.e.length, hit.announced};
			return SHOAL_OK;
		}
		if (place_in_empty(emptier(buckets), target) || place_in_coldest(seat, buckets, k->hash, a, b, target))
			return SHOAL_OK;
	}
}

/* The word that publishes an entry: all its bytes were written before (the CAS releases; partner: protect()'s load).
 * A reader that counted a hit meanwhile changed the frequency only: then the CAS is tried again. */
bool index_commit(const struct segment *s, const struct index_target *t, uint64_t word, uint32_t length,
                  uint64_t until_ms)
{
	uint64_t now = t->expected;

	extents_add(s, extent_of(s, SLOT_BYTES(word)), length, until_ms);
	while (!w64_cas(t->slot, now, word)) {
		now = w64_load(t->slot);
		if (!SLOT_IS_USED(t->expected) || !SLOT_SAME(now, t->expected)) {
			extents_drop(s, extent_of(s, SLOT_BYTES(word)), length);
			return false;
		}
	}
	if (t->old_length)
		extents_drop(s, extent_of(s, SLOT_BYTES(t->expected)), t->old_length);
	if (unlikely(t->old_length && !t->own))
		w64_add(&s->header->displaced_entries, 1);
	return true;
}

/* Above all entries, and the loads that are under way. Unprotected looks: a wrong one raises it for nothing. */
static void repair_generation(const struct segment *s)
{
	uint64_t i, word, most = 0;
	struct log_entry e;

	for (i = 0; i < index_slots(s); i++) {
		word = w64_load(index_slot_at(s, i));
		if (SLOT_IS_USED(word) && log_read(s, SLOT_BYTES(word), &e) && e.entry->generation < GENERATION_MOST)
			most = max_u64(most, e.entry->generation);
	}
	w64_max(&s->header->generation, most + GENERATION_MARGIN);
}

/* A number that nobody has drawn: the counter was put back by a scribble, or the number is one. */
bool index_is_ahead(const struct segment *s, const struct index_hit *hit)
{
	if (likely(hit->e.entry->generation <= w64_load(&s->header->generation)))
		return false;
	repair_generation(s);
	if (hit->e.keyspace < s->geometry.keyspaces)
		w64_add(&s->keyspaces[hit->e.keyspace].counters[COUNTER_corrupt], 1);
	return true;
}

bool index_forget(const struct segment *s, const struct index_hit *hit)
{
	return w64_cas(hit->slot, hit->word, empty_word(s));
}

bool index_drop(const struct segment *s, const struct index_hit *hit)
{
	uint64_t now = hit->word, empty = empty_word(s);

	while (SLOT_SAME(now, hit->word)) {
		if (w64_cas(hit->slot, now, empty)) {
			extents_drop(s, extent_of(s, SLOT_BYTES(now)), hit->e.length);
			return true;
		}
		now = w64_load(hit->slot);
	}
	return false;
}

unsigned index_remove(struct seat *seat, const struct key *k, uint64_t below, unsigned a, unsigned b)
{
	struct index_hit hit = {0};
	unsigned removed = 0;
	bool older;

	while (index_find(seat, k, WANT_OLDEST, a, b, &hit)) {
		older = hit.e.entry->generation < below || index_is_ahead(&seat->member->segment, &hit);
		removed += older && index_drop(&seat->member->segment, &hit);
		rcu_clear(seat, hit.announced);
		if (!older)
			break;
	}
	return removed;
}

/* I.6. */
void index_settle(struct seat *seat, const struct key *k, uint64_t seen, unsigned a, unsigned b)
{
	struct index_hit hit = {0};
	unsigned n;

	for (;;) {
		if (seen)
			/* what was seen, before the look; partner: the one of another insert of the key */
			barrier_full();
		n = index_find(seat, k, WANT_OLDEST, a, b, &hit);
		if (!n)
			return;
		if (n > 1)
			index_drop(&seat->member->segment, &hit);
		else if (hit.word & SLOT_SETTLED ||
		         (SLOT_SAME(hit.word, seen) && w64_cas(hit.slot, hit.word, hit.word | SLOT_SETTLED)))
			break;
		else
			seen = hit.word;
		rcu_clear(seat, hit.announced);
	}
	rcu_clear(seat, hit.announced);
}

uint64_t index_slots(const struct segment *s)
{
	return (uint64_t)s->geometry.buckets * BUCKET_SLOTS;
}

uint64_t index_number(const struct segment *s, const word64 *slot)
{
	return (uint64_t)(slot - s->index[0].slots);
}

void index_kill(struct seat *seat, uint64_t number, uint64_t expected, unsigned announce)
{
	const struct segment *s = &seat->member->segment;
	struct index_hit hit = {0};
	word64 *slot;

	if (number >= index_slots(s))
		return;
	slot = index_slot_at(s, number);
	if (!SLOT_IS_USED(expected)) {
		w64_cas(slot, expected, empty_word(s));
		return;
	}
	switch (protect(seat, slot, expected, announce, &hit)) {
	case OURS:
		settle_other(seat, &hit, OTHER);
		index_drop(s, &hit);
		break;
	case NOT_OURS:
		w64_cas(slot, expected, empty_word(s));
	}
	rcu_clear(seat, announce);
}

/* ---- walks ------------------------------------------------------------------------------------------------- */

bool index_locate(const struct segment *s, const struct key *k, uint64_t offset, struct index_hit *hit, bool *alone)
{
	struct bucket *buckets[2] = {index_bucket(s, k->hash), index_second(s, k->hash)};
	unsigned side, found, count = 0;
	word64 *slot;
	uint64_t word;

	hit->slot = NULL;
	for (side = 0; side < 2; side++) {
		for (found = index_match(buckets[side], k->hash); found; found &= found - 1) {
			slot = &buckets[side]->slots[__builtin_ctz(found)];
			word = w64_load(slot);
			count += SLOT_IS_USED(word);
			if (!SLOT_IS_USED(word) || SLOT_BYTES(word) != offset)
				continue;
			hit->slot = slot;
			hit->word = word;
		}
	}
	*alone = count == 1;
	return hit->slot;
}

bool index_at(struct seat *seat, uint64_t number, unsigned announce, struct index_hit *hit)
{
	word64 *slot = index_slot_at(&seat->member->segment, number);
	uint64_t word = w64_load(slot);

	if (!SLOT_IS_USED(word))
		return false;
	if (protect(seat, slot, word, announce, hit) == OURS)
		return true;
	rcu_clear(seat, announce);
	return false;
}
