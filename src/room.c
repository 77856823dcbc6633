/* SPDX-License-Identifier: MIT */
/*
 * See room.h. An entry moves by the CAS of its slot from the old place to the new: no reader misses it meanwhile.
 * Whatever else happened to the key since the look at the slot makes that CAS fail, and the copy is dead bytes.
 */
#include <string.h>

#include "ghost.h"
#include "probe.h"
#include "room.h"

#define BATCH 16u /* entries whose lines of index and ghosts are fetched side by side */

/* ---- one extent -------------------------------------------------------------------------------------------- */

struct walk {
	struct seat *seat;
	enum evict_reason reason;
	enum log_kind kind;
	uint64_t now_ms;
	uint32_t walks;  /* before it, for the same extent */
	bool full;       /* nothing more can be moved */
	uint64_t moved, dropped, expired; /* dropped: alive */
};

struct found {
	struct log_entry e;
	struct key key;
	uint64_t offset;
};

static uint64_t end_of(const struct entry *e)
{
	return log_end(e->born_ms, e->fresh_for, e->stale_for, e->error_for);
}

static bool is_dead(const struct walk *w, const struct log_entry *e)
{
	const struct segment *s = &w->seat->member->segment;

	return end_of(e->entry) <= w->now_ms || e->keyspace >= s->geometry.keyspaces ||
	       e->entry->generation <= w64_load(&s->keyspaces[e->keyspace].deleted);
}

/* Append a copy, and let the slot point to it. False: no room. */
static bool move_entry(struct walk *w, const struct log_entry *e, const struct index_hit *hit, enum log_kind to,
                       unsigned frequency)
{
	const struct segment *s = &w->seat->member->segment;
	struct index_target target = {hit->slot, hit->word, true, false, e->length, 0};
	uint32_t length = (uint32_t)log_length(s, e->key_size, e->value_size);
	struct entry *copy;
	uint64_t offset;
	bool opened;

	w->full = w->full || log_append(w->seat, COPYING, to, length, &offset, &opened);
	if (w->full)
		return false;
	copy = log_at(s, offset);
	memcpy(&copy->stored, &e->entry->stored, length - offsetof(struct entry, stored));
	if (index_commit(s, &target, index_moved(hit->word, offset, frequency), length, end_of(e->entry)))
		w->moved += length;
	rcu_clear(w->seat, COPYING);
	return true;
}

/* Older duplicates of the key go before it (index.h, I.2). */
static void drop_entry(struct walk *w, const struct found *f, const struct index_hit *hit, bool alone, bool dead)
{
	const struct segment *s = &w->seat->member->segment;

	if (!(alone ? index_drop(s, hit)
	            : index_remove(w->seat, &f->key, f->e.entry->generation + 1, READING, OTHER) > 0))
		return;
	*(dead ? &w->expired : &w->dropped) += 1;
	if (!dead)
		evict_dropped(s, w->kind, f->key.hash, f->e.length);
}

static void walk_entry(struct walk *w, const struct found *f)
{
	const struct segment *s = &w->seat->member->segment;
	struct index_hit hit = {.e = f->e};
	enum log_kind to;
	unsigned left;
	bool alone, dead;

	if (!index_locate(s, &f->key, f->offset, &hit, &alone))
		return;
	dead = w->reason == EVICT_EXPIRED || is_dead(w, &f->e);
	if (!dead && evict_keeps(s, w->reason, w->kind, SLOT_FREQUENCY_OF(hit.word), w->walks, &to, &left)) {
		if (!alone)
			/* if this is the older one, it doesn't move */
			index_settle(w->seat, &f->key, 0, READING, OTHER);
		if (move_entry(w, &f->e, &hit, to, left))
			return;
	}
	drop_entry(w, f, &hit, alone, dead);
}

/* What the walk did not come to can't be found by its keys: all slots are asked. */
static void forget_rest(struct walk *w, uint32_t x)
{
	const struct segment *s = &w->seat->member->segment;
	uint64_t i, word;
	struct index_hit hit;
	struct found f;

	for (i = 0; i < index_slots(s); i++) {
		hit.slot = index_slot_at(s, i);
		hit.word = word = w64_load(hit.slot);
		if (!SLOT_IS_USED(word) || !log_holds(s, SLOT_BYTES(word)) || extent_of(s, SLOT_BYTES(word)) != x)
			continue;
		if (log_read_in(s, x, SLOT_BYTES(word), &f.e) && f.e.key_size) {
			f.key = index_key(s, f.e.keyspace, f.e.key, f.e.key_size);
			drop_entry(w, &f, &hit, false, true);
		}
		while (SLOT_SAME(hit.word, word) && !index_forget(s, &hit))
			hit.word = w64_load(hit.slot);
	}
}

static void walk_extent(struct walk *w, uint32_t x)
{
	const struct segment *s = &w->seat->member->segment;
	struct found batch[BATCH];
	unsigned i, n = BATCH;
	uint32_t at = 0;

	while (n == BATCH) {
		for (n = 0; n < BATCH && log_next(s, x, &at, &batch[n].offset);) {
			struct found *f = &batch[n];

			if (!log_read_in(s, x, f->offset, &f->e) || !f->e.key_size)
				continue;
			f->key = index_key(s, f->e.keyspace, f->e.key, f->e.key_size);
			index_prefetch(s, f->key.hash);
			ghost_prefetch(s, f->key.hash);
			n++;
		}
		for (i = 0; i < n; i++)
			walk_entry(w, &batch[i]);
	}
	if (unlikely(at != w32_load(&s->extents[x].tail))) /* a length or the tail is a scribble: who was behind it? */
		forget_rest(w, x);
}

/* ---- the reserve ------------------------------------------------------------------------------------------- */

/* The first victim that is not held. */
static enum evict_reason claim(struct seat *seat, struct evict_turn *turn, uint32_t *x)
{
	const struct segment *s = &seat->member->segment;
	enum evict_reason reason;

	while ((reason = evict_choose(s, turn, !turn->free)) != EVICT_REASONS) {
		*x = turn->first[reason].x;
		if (extents_claim(seat, *x))
			break;
		recover_sometimes(seat->member); /* held, perhaps by a dead one */
		evict_pass(turn, reason);
		evict_look(s, turn);
	}
	return reason;
}

static bool evict_one(struct seat *seat, struct evict_turn *turn)
{
	const struct segment *s = &seat->member->segment;
	struct walk w = {.seat = seat, .now_ms = turn->now_ms, .full = !turn->free};
	uint32_t x;

	w.reason = claim(seat, turn, &x);
	if (w.reason == EVICT_REASONS)
		return false;
	if (w.reason == EVICT_PROBATION || w.reason == EVICT_MAIN)
		w.walks = w32_add(&s->header->walks, 1);
	w.kind = extent_kind(s, x);
	/* E.5: nobody writes into it any more */
	if (w.reason != EVICT_EMPTY || EXTENT_ENTRIES(w64_peek(&s->extents[x].counts)))
		walk_extent(&w, x);
	extents_retire(seat, x);
	PROBE(evict, x, w.reason, w.moved, w.dropped + w.expired);
	w64_add(&s->header->evicted_by[w.reason], 1);
	if (w.dropped)
		w64_add(&s->header->evicted_cold, w.dropped);
	if (w.expired)
		w64_add(&s->header->evicted_expired, w.expired);
	if (w.moved)
		w64_add(&s->header->reappended_bytes, w.moved);
	return true;
}

void room_make(struct seat *seat)
{
	const struct segment *s = &seat->member->segment;
	struct evict_turn turn = {.now_ms = clock_coarse_ms(&s->clock)};
	uint32_t want = evict_reserve(s), freed;

	evict_look(s, &turn);
	freed = turn.retired ? extents_collect(seat) : 0;
	turn.free += freed;
	turn.coming -= freed;
	if (turn.free < want) {
		log_sweep(seat);
		if ((turn.free + turn.coming < want || !turn.free) && evict_one(seat, &turn))
			extents_collect(seat);
		turn.free = extents_count(s, EXTENT_FREE);
	}
	w32_store(&s->header->room_wanted, turn.free < want);
}

enum log_kind room_kind(const struct segment *s, const struct key *key, size_t value_size)
{
	uint64_t word;

	index_guess(s, key->hash, &word);
	return room_kind_guessed(s, key, value_size, word);
}

enum log_kind room_kind_guessed(const struct segment *s, const struct key *key, size_t value_size, uint64_t word)
{
	if (!word)
		return evict_admits(s, key->hash,
		                    (uint32_t)min_u64(log_length(s, key->size, value_size), s->geometry.extent_size));
	if (!log_holds(s, SLOT_BYTES(word)))
		return LOG_PROBATION;
	return extent_kind(s, extent_of(s, SLOT_BYTES(word)));
}

int room_reserve(struct seat *seat, unsigned word, enum log_kind kind, size_t key_size, size_t value_size,
                 uint64_t *offset)
{
	const struct segment *s = &seat->member->segment;
	bool opened = false, made = false;
	unsigned tries;
	uint64_t length;
	int r;

	if (value_size > s->geometry.max_entry || key_size + value_size > s->geometry.max_entry)
		return SHOAL_ERR_TOO_BIG;
	length = log_length(s, key_size, value_size);
	if (unlikely(w32_peek(&s->header->room_wanted))) {
		room_make(seat);
		made = true;
	}
	for (tries = 0; tries < s->geometry.extents + 8; tries++) {
		r = log_append(seat, word, kind, (uint32_t)length, offset, &opened);
		if (r != LOG_FULL)
			break;
		room_make(seat);
		made = true;
		if (extents_count(s, EXTENT_FREE))
			continue;
		if (tries == 0) /* the dead may be what holds the room */
			recover_all(seat->member);
		else if (tries > 64)
			break;
	}
	if (r == LOG_FULL)
		return SHOAL_ERR_NO_SPACE;
	if (r || !opened)
		return r;
	w32_store(&s->header->walks, 0);
	if (made)
		w32_store(&s->header->room_wanted, 1);
	else
		room_make(seat);
	return SHOAL_OK;
}
