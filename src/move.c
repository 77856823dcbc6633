/* SPDX-License-Identifier: MIT */
/* See move.h, and resize.c for the protocol. */
#include <stdlib.h>

#include "distinct.h"
#include "futex.h"
#include "life.h"
#include "move.h"
#include "tally.h"

#define PATIENCE_MS 1000u    /* with a resizer that has frozen the region; longer where the last round takes longer */
#define BUCKETS_PER_MS 4096u /* of that */
#define ARMED_SLICE_NS 250000000u
#define SLICE_NS 10000000u

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of header.moved");

/* ---- counters ---------------------------------------------------------------------------------------------- */

/* Sums only grow, and are only raised: it may be done at any time, twice, and late. */
void move_inherit_next(const struct segment *from, const struct segment *to)
{
	uint32_t k, c, n = (uint32_t)min_u64(from->geometry.keyspaces, to->geometry.keyspaces);
	uint64_t counts[COUNTER_COUNT];

	w64_max(&to->header->touches, tally_touches(from));
	for (k = 0; k < n && w64_load(&from->keyspaces[k].identity); k++) {
		for (c = 0; c < COUNTER_COUNT; c++)
			counts[c] = 0;
		tally_counts(from, k, counts);
		for (c = 0; c < COUNTER_COUNT; c++)
			w64_max(&to->keyspaces[k].inherited[c], counts[c]);
		distinct_merge(to->keyspaces[k].distinct, from->keyspaces[k].distinct);
	}
}

/* A look at what was given back takes memory again. */
static void punch_if_drained(const struct segment *s)
{
	if (w64_load(&s->header->drained))
		segment_punch(s);
}

/* From one region to the next, up to `to`. Late counts that meet one that was given back end there, and are lost. */
static void inherit(const struct segment *from, const struct segment *to)
{
	struct segment *at = NULL, *next;
	const struct segment *now = from;
	uint64_t moved;

	while (!from->read_only && now->geometry.offset != to->geometry.offset) {
		moved = w64_load(&now->header->moved);
		next = MOVED_STATE(moved) == MOVED ? segment_glance(to, MOVED_NUMBER(moved) * PAGE) : NULL;
		if (next && !w64_load(&now->header->drained)) {
			move_inherit_next(now, next);
			punch_if_drained(now);
			punch_if_drained(next);
		}
		if (at)
			segment_end_glance(at);
		now = at = next;
		if (!next)
			return;
	}
	if (at)
		segment_end_glance(at);
}

/* ---- follow ------------------------------------------------------------------------------------------------ */

static struct member *make_successor(const struct member *from, int *error)
{
	struct member *m = calloc(1, sizeof(*m));

	*error = m ? segment_follow(&from->segment, &m->segment) : SHOAL_ERR_SYSTEM;
	if (!*error && (*error = registry_succeed(m, from)))
		segment_close(&m->segment);
	if (!*error)
		return m;
	free(m);
	return NULL;
}

/* What this process has counted in the old region is told before anybody looks at the new one's counters, and once more
 * when none of its threads is in there any more. */
bool move_replace(member_pointer *member, struct member *from, struct member *to)
{
	struct member *expected = from;
	bool won;

	process_notice_fork(from);
	inherit(&from->segment, &to->segment);
	won = atomic_compare_exchange_strong(member, &expected, to);
	urcu_bp_read_unlock();
	if (!won) {
		registry_close(to);
		return false;
	}
	urcu_bp_synchronize_rcu();
	inherit(&from->segment, &to->segment);
	registry_close(from);
	return true;
}

/* In no state, or moved to where no region can be: it never has. */
bool move_mend(const struct member *m, uint64_t word)
{
	if (MOVED_STATE(word) <= FROZEN || segment_leads_on(segment_fd(&m->segment), &m->segment.geometry, word) ||
	    m->segment.read_only)
		return false;
	return w64_cas(&m->segment.header->moved, word, MOVED_WORD(MOVED_NUMBER(word), SERVING));
}

int move_follow(member_pointer *member)
{
	struct member *from = move_member(member), *to;
	uint64_t word = w64_load(&from->segment.header->moved);
	int error = SHOAL_OK;

	if (MOVED_STATE(word) == MOVED &&
	    !segment_leads_on(segment_fd(&from->segment), &from->segment.geometry, word)) {
		move_mend(from, word);
		urcu_bp_read_unlock();
		return from->segment.read_only ? SHOAL_ERR_CORRUPT : SHOAL_OK;
	}
	to = make_successor(from, &error);
	if (to)
		move_replace(member, from, to);
	else
		urcu_bp_read_unlock();
	return error;
}

/* ---- wait -------------------------------------------------------------------------------------------------- */

void move_wait(const struct member *m, uint64_t word)
{
	const struct header *h = m->segment.header;
	const word32 *low = (const word32 *)(const void *)&h->moved, *alive = NULL;
	uint64_t now = clock_system_ns(CLOCK_MONOTONIC), ref, slice;
	uint64_t end = now + (PATIENCE_MS + m->segment.geometry.buckets / BUCKETS_PER_MS) * 1000000;
	enum life_state life;
	uint32_t seen = 0;

	while (w64_load(&h->moved) == word) {
		ref = w64_load(&h->resizer);
		life = ref ? life_of(m, ref, &alive, &seen) : LIFE_GONE;
		now = clock_system_ns(CLOCK_MONOTONIC);
		if (life >= LIFE_THREAD_DEAD || now >= end) {
			if (w64_cas((word64 *)&h->moved, word, MOVED_WORD(MOVED_NUMBER(word), SERVING)))
				futex_wake(low, INT32_MAX);
			return;
		}
		slice = now + (life == LIFE_ARMED ? ARMED_SLICE_NS : SLICE_NS);
		futex_wait(low, (uint32_t)word, life == LIFE_ARMED ? alive : NULL, seen, min_u64(end, slice));
	}
}

bool move_spared(const struct member *m)
{
	uint64_t word;

	while (MOVED_STATE(word = w64_load(&m->segment.header->moved)) == FROZEN || move_mend(m, word))
		move_wait(m, word);
	return MOVED_STATE(word) == SERVING;
}

/* ---- what is left ------------------------------------------------------------------------------------------ */

/* Without its memory, and out of the chain. Who does it late finds that it has been done: `drained` comes after the
 * memory, and nobody enters a region that has moved. */
static bool clean_one(const struct member *m, const struct segment *old)
{
	if (w64_load(&old->header->drained))
		return true;
	if (!life_is_deserted(m, old))
		return false;
	inherit(old, &m->segment);
	segment_punch(old);
	w64_store(&old->header->drained, 1);
	return true;
}

static void clean_before(const struct member *m)
{
	const struct segment *later = &m->segment;
	uint64_t before = w64_load(&later->header->before), limit = later->geometry.offset;
	struct segment *old, *held = NULL;

	/* Offsets fall on the way back; those of a scribble need not. */
	while (before & BEFORE_IS && before < limit &&
	       (old = segment_glance(&m->segment, before & ~(uint64_t)BEFORE_IS))) {
		limit = old->geometry.offset;
		if (clean_one(m, old)) {
			w64_cas(&later->header->before, before, w64_load(&old->header->before));
			before = w64_load(&old->header->before);
			segment_end_glance(old);
			continue;
		}
		if (held)
			segment_end_glance(held);
		later = held = old;
		before = w64_load(&old->header->before);
	}
	if (held)
		segment_end_glance(held);
}

/* A resizer died, or gave up, and left memory. It alone gave any out while it was named: what it reached was read
 * before we look whether it is named still. Whoever resizes later goes behind that, so it is never too late to give it
 * back; and as it is dead, the region it built will never serve if it doesn't now. */
static void clean_behind(const struct member *m)
{
	struct header *h = m->segment.header;
	uint64_t ref = w64_load(&h->resizer), reach;
	const word32 *alive;
	uint32_t seen;

	if (!ref || life_of(m, ref, &alive, &seen) < LIFE_THREAD_DEAD)
		return;
	reach = segment_reach(&m->segment);
	if (!reach || w64_load(&h->resizer) != ref || segment_has_moved(&m->segment))
		return;
	segment_punch_behind(&m->segment, reach);
	w64_cas(&h->resizer, ref, 0);
}

void move_clean(struct member *m)
{
	if (m->segment.read_only)
		return;
	clean_behind(m);
	if (w64_load(&m->segment.header->before))
		clean_before(m);
}
