/* SPDX-License-Identifier: MIT */
/* The life of an extent: see extents.h. */
#include <inttypes.h>

#include "extents.h"
#include "probe.h"

#define COLLECT_AT_ONCE 32u

bool extents_move(struct seat *seat, uint32_t x, uint64_t from, enum extent_state to)
{
	uint64_t word = (uint64_t)to << 60 | (uint64_t)seat->index << 44 | (seat->tag >> 32 & 0xffff) << 28 |
			((from + 1) & 0xfffffffu);

	return w64_cas(&seat->member->segment.extents[x].word, from, word);
}

/* By the opener, which is its only user until it is made a head (E.4): a late collector must have nothing to write
 * here. */
static void reset(struct extent *e, enum log_kind kind, uint64_t stamp)
{
	w32_poke(&e->kind, kind);
	w64_poke(&e->stamp, stamp);
	w32_poke(&e->tail, 0);
	w64_poke(&e->counts, 0);
	w64_poke(&e->until_ms, 0);
}

int64_t extents_open(struct seat *seat, unsigned announce, enum log_kind kind)
{
	const struct segment *s = &seat->member->segment;
	uint32_t n = s->geometry.extents, i, x, hint = w32_peek(&s->header->free_hint);
	uint64_t word;

	for (i = 0; i < n; i++) {
		x = (hint + i) % n;
		word = extents_word(s, x);
		if (EXTENT_STATE(word) != EXTENT_FREE)
			continue;
		rcu_announce(seat, announce, x); /* E.4 */
		if (!extents_move(seat, x, word, EXTENT_OPEN))
			continue;
		w32_poke(&s->header->free_hint, x + 1);
		reset(&s->extents[x], kind, w64_peek(&s->header->stamp));
		return x;
	}
	rcu_clear(seat, announce);
	return -1;
}

bool extents_seal(struct seat *seat, uint32_t x, uint64_t from)
{
	struct extent *e = &seat->member->segment.extents[x];

	/* Before the word: the policy looks at stamps of SEALED extents only. */
	w64_poke(&e->stamp, w64_add(&seat->member->segment.header->stamp, 1) + 1);
	return extents_move(seat, x, from, EXTENT_SEALED);
}

bool extents_claim(struct seat *seat, uint32_t x)
{
	const struct segment *s = &seat->member->segment;
	uint64_t word = extents_word(s, x);
	bool held;

	if (EXTENT_STATE(word) != EXTENT_SEALED)
		return false;
	rcu_announce(seat, WALKING, x);
	if (!extents_move(seat, x, word, EXTENT_EVICTING)) {
		rcu_clear(seat, WALKING);
		return false;
	}
	/* E.1: partner of log.c's announcement and second look at the word. */
	rcu_announced(s, seat, WRITING, &x, 1, &held);
	if (!held)
		return true;
	extents_move(seat, x, extents_word(s, x), EXTENT_SEALED);
	rcu_clear(seat, WALKING);
	return false;
}

void extents_retire(struct seat *seat, uint32_t x)
{
	w64_poke(&seat->member->segment.extents[x].until_ms, 0);
	extents_move(seat, x, extents_word(&seat->member->segment, x), EXTENT_RETIRED);
	rcu_clear(seat, WALKING);
}

/* A grace period is over, or is found not to be: the first to find that notes since when. */
static bool collect(struct seat *seat, uint32_t x, uint64_t word, bool held)
{
	const struct segment *s = &seat->member->segment;
	uint64_t now = clock_coarse_ms(&s->clock), since = w64_peek(&s->extents[x].until_ms);

	if (held && !since)
		w64_poke(&s->extents[x].until_ms, now);
	if (held || !extents_move(seat, x, word, EXTENT_FREE))
		return false;
	if (since && since < now) {
		w64_add(&s->header->grace_blocked_ms, now - since);
		PROBE2(grace, x, now - since);
		if (now - since > 1000)
			tell_of(&s->listener, SHOAL_LOG_WARNING,
			        "extent %" PRIu32 " had to wait %" PRIu64 " ms for a reader", x, now - since);
	}
	return true;
}

unsigned extents_collect(struct seat *seat)
{
	const struct segment *s = &seat->member->segment;
	uint32_t x, n = 0, candidates[COLLECT_AT_ONCE];
	uint64_t words[COLLECT_AT_ONCE];
	bool held[COLLECT_AT_ONCE];
	unsigned i, freed = 0;

	for (x = 0; x < s->geometry.extents && n < COLLECT_AT_ONCE; x++) {
		words[n] = extents_word(s, x);
		if (EXTENT_STATE(words[n]) == EXTENT_RETIRED)
			candidates[n++] = x;
	}
	if (!n || rcu_announced(s, seat, READING, candidates, n, held))
		return 0;
	for (i = 0; i < n; i++)
		freed += collect(seat, candidates[i], words[i], held[i]);
	return freed;
}

unsigned extents_count(const struct segment *s, enum extent_state state)
{
	uint32_t x;
	unsigned n = 0;

	for (x = 0; x < s->geometry.extents; x++)
		n += EXTENT_STATE(extents_word(s, x)) == state;
	return n;
}
