/* SPDX-License-Identifier: MIT */
/* Claims: who leads a key, joins, or is told what is remembered of it. Holds F.1, F.4 and F.6 of flight.c. */
#include <inttypes.h>
#include <string.h>

#include "flight.h"

#define PATIENCE 4 /* turns in which a claimant ahead is given way to */

static uint64_t make_word(const struct flight_key *k, uint32_t leader, uint32_t sequence, enum flight_state state)
{
	return (k->hash & 0xffff) << 48 | (uint64_t)leader << 32 | (uint64_t)(sequence & FLIGHT_SEQUENCE_MASK) << 4 |
	       state;
}

static uint32_t window(const struct segment *s)
{
	return (uint32_t)min_u64(FLIGHT_GROUP, s->geometry.flights);
}

static uint32_t probe(const struct segment *s, const struct flight_key *k, uint32_t i)
{
	return flight_group(s, k->hash) + (uint32_t)((k->hash >> 16) + i) % window(s);
}

struct claim {
	struct seat *seat;
	const struct flight_key *key;
	uint64_t now_ms;
	uint32_t lease_ms;
	struct ticket *ticket;
	int *error;
};

enum { LOOK_ON = 0, LOOK_AGAIN = -1, TAKE_OVER = -2 }; /* besides enum flight_outcome */

static enum flight_outcome lead(const struct claim *c, struct flight *f, uint32_t slot, uint32_t sequence)
{
	flight_raise(&f->started, sequence, flight_ticks(c->now_ms));
	*c->ticket = (struct ticket){.slot = slot, .token = sequence};
	return OUTCOME_LEAD;
}

/* From now on, not from when the caller asked: it may have been preempted, and another's lease have ended since. */
static uint64_t end_of_lease(const struct claim *c)
{
	return flight_ticks(clock_ms(&c->seat->member->segment.clock) + c->lease_ms);
}

/* The lease first (F.6): of several heirs the longest counts, and only one CAS succeeds. */
static bool take_over(const struct claim *c, struct flight *f, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;
	uint32_t sequence = (FLIGHT_SEQUENCE(word) + 1) & FLIGHT_SEQUENCE_MASK;

	flight_raise(&f->lease, sequence, end_of_lease(c));
	return w64_cas(flight_word_of(s, f), word, flight_step(word, c->seat->index, FLIGHT_COMPUTING));
}

/* To FREE, and whoever waits for it claims anew. */
static int end_here(const struct segment *s, struct flight *f, uint64_t word)
{
	if (w64_cas(flight_word_of(s, f), word, flight_step(word, 0, FLIGHT_FREE)))
		flight_wake(s, f, FLIGHT_RELAY);
	return LOOK_AGAIN;
}

static void count_overdue(const struct segment *s, const struct flight *f, uint32_t keyspace)
{
	w64_add(&s->keyspaces[keyspace].counters[COUNTER_overdue], 1);
	tell_of(&s->listener, SHOAL_LOG_WARNING,
	        "a load in keyspace %" PRIu32 " has outlived its lease: another begins beside it, flight %td", keyspace,
	        f - s->flights);
}

/* A running load. Its lease comes first: what is late is marked OVERDUE before anybody passes it by, so that neither it
 * nor its heir can be taken for the one that leads (F.4). The clock is read after the word. */
static int judge_running(const struct claim *c, struct flight *f, uint32_t slot, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;
	bool late = flight_is_over(&f->lease, clock_ms(&s->clock));
	bool dead = flight_leader_is_dead(c->seat, word);

	if (FLIGHT_STATE(word) == FLIGHT_PUBLISHING && dead)
		return end_here(s, f, word); /* somebody may have passed it by: never taken over in place */
	if (FLIGHT_STATE(word) == FLIGHT_PUBLISHING && late)
		return LOOK_ON;
	if (late && dead)
		return end_here(s, f, word);
	if (late) {
		if (w64_cas(flight_word_of(s, f), word, flight_step(word, FLIGHT_LEADER(word), FLIGHT_OVERDUE)))
			count_overdue(s, f, c->key->keyspace);
		return LOOK_AGAIN;
	}
	if (dead)
		return TAKE_OVER;
	*c->ticket = (struct ticket){slot, FLIGHT_TAG(w64_load(&f->lease)), word, false};
	return w64_load(flight_word_of(s, f)) == word ? OUTCOME_JOIN : LOOK_AGAIN;
}

/* A failure whose time is over is tried again in its place, so that the next one in a row is remembered for longer. */
static int judge_remembered(const struct claim *c, struct flight *f, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;

	if (flight_is_over(&f->until, c->now_ms))
		return FLIGHT_STATE(word) == FLIGHT_FAILED ? TAKE_OVER : end_here(s, f, word);
	*c->error = (int)(uint32_t)w64_load(&f->error);
	if (w64_load(flight_word_of(s, f)) != word)
		return LOOK_AGAIN;
	return FLIGHT_STATE(word) == FLIGHT_FAILED ? OUTCOME_FAILED : OUTCOME_UNCACHEABLE;
}

/* What does a slot of my key mean to a claimant? */
static int judge(const struct claim *c, struct flight *f, uint32_t slot, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;

	switch (FLIGHT_STATE(word)) {
	case FLIGHT_COMPUTING:
	case FLIGHT_PUBLISHING:
		return judge_running(c, f, slot, word);
	case FLIGHT_ORPHAN: /* one whose lease is over may have been passed by while it was PUBLISHING */
		return flight_is_over(&f->lease, clock_ms(&s->clock)) ? end_here(s, f, word) : TAKE_OVER;
	case FLIGHT_OVERDUE:
		return flight_leader_is_dead(c->seat, word) ? end_here(s, f, word) : LOOK_ON;
	case FLIGHT_FAILED:
	case FLIGHT_UNCACHEABLE:
		return judge_remembered(c, f, word);
	default:
		return LOOK_ON;
	}
}

/* Judge a slot if it holds my key. *word is what was judged. */
static int judge_slot(const struct claim *c, uint32_t slot, uint64_t *word)
{
	const struct segment *s = &c->seat->member->segment;
	struct flight *f = flight_at(s, slot);
	int r;

	do {
		*word = w64_load(flight_word_of(s, f));
		if (FLIGHT_STATE(*word) <= FLIGHT_CLAIMING || FLIGHT_FINGERPRINT(*word) != (c->key->hash & 0xffff) ||
		    !flight_is_of(f, c->key->hash, c->key->second))
			return LOOK_ON;
		r = judge(c, f, slot, *word);
	} while (r == LOOK_AGAIN);
	return r;
}

/* A full window: what is only remembered goes, the one that would be forgotten first before the others. */
static bool forget_one(const struct claim *c)
{
	const struct segment *s = &c->seat->member->segment;
	uint64_t word, oldest_word = 0, oldest = UINT64_MAX, until;
	struct flight *f, *found = NULL;
	uint32_t i;

	for (i = 0; i < window(s); i++) {
		f = flight_at(s, probe(s, c->key, i));
		word = w64_load(flight_word_of(s, f));
		if (FLIGHT_STATE(word) < FLIGHT_ORPHAN || FLIGHT_STATE(word) > FLIGHT_UNCACHEABLE)
			continue;
		until = FLIGHT_STATE(word) == FLIGHT_ORPHAN ? w64_load(&f->lease) : w64_load(&f->until);
		until &= FLIGHT_PAYLOAD_MASK;
		if (until < oldest) {
			oldest = until;
			oldest_word = word;
			found = f;
		}
	}
	return found && w64_cas(flight_word_of(s, found), oldest_word, flight_step(oldest_word, 0, FLIGHT_FREE));
}

static enum flight_outcome take(const struct claim *c, struct flight *f, uint32_t slot, uint64_t word)
{
	lead(c, f, slot, (FLIGHT_SEQUENCE(word) + 1) & FLIGHT_SEQUENCE_MASK);
	c->ticket->gave_up = FLIGHT_STATE(word) == FLIGHT_ORPHAN && FLIGHT_LEADER(word) != FLIGHT_NOBODY;
	return FLIGHT_STATE(word) == FLIGHT_FAILED ? OUTCOME_LEAD : OUTCOME_TAKEOVER;
}

/* First look: what is there of my key, and where is room? *slot: the first FREE one, UINT32_MAX if none. */
static int look_for_room(const struct claim *c, uint32_t *slot)
{
	const struct segment *s = &c->seat->member->segment;
	uint32_t i, at;
	uint64_t word;
	int r;

	*slot = UINT32_MAX;
	for (i = 0; i < window(s); i++) {
		at = probe(s, c->key, i);
		r = judge_slot(c, at, &word);
		if (r == TAKE_OVER) {
			struct flight *f = flight_at(s, at);

			if (take_over(c, f, word))
				return take(c, f, at, word);
			i--; /* somebody else was first */
		} else if (r != LOOK_ON) {
			return r;
		}
		if (FLIGHT_STATE(word) == FLIGHT_FREE && *slot == UINT32_MAX)
			*slot = at;
	}
	return LOOK_ON;
}

/* Second look, with my CLAIMING visible. LOOK_ON: the key is mine. */
static int look_for_rivals(const struct claim *c, uint32_t mine, unsigned turn)
{
	const struct segment *s = &c->seat->member->segment;
	bool ahead = true;
	uint32_t i, at;
	uint64_t word;
	int r;

	for (i = 0; i < window(s); i++) {
		at = probe(s, c->key, i);
		if (at == mine) {
			ahead = false;
			continue;
		}
		r = judge_slot(c, at, &word);
		if (r != LOOK_ON)
			return r;
		/* A claimant's key may not be written yet: its fingerprint counts. A stranger with the same one is
		 * aborted for nothing, and claims again. */
		if (FLIGHT_STATE(word) != FLIGHT_CLAIMING || FLIGHT_FINGERPRINT(word) != (c->key->hash & 0xffff))
			continue;
		if (ahead && turn < PATIENCE)
			return LOOK_AGAIN;
		/* Aborted: go on, whoever claims there next sees me. Not: look again. */
		if (!w64_cas(&s->flight_words[at], word, flight_step(word, 0, FLIGHT_FREE)))
			i--;
	}
	return LOOK_ON;
}

static void describe(const struct claim *c, struct flight *f, uint32_t sequence)
{
	const struct flight_key *k = c->key;
	uint64_t part;
	uint32_t i;

	flight_raise(&f->identity[0], sequence, k->hash >> 16);
	flight_raise(&f->identity[1], sequence, k->second);
	flight_raise(&f->lease, (sequence + 1) & FLIGHT_SEQUENCE_MASK, end_of_lease(c));
	w32_store(&f->waiters, 0);
	w32_store(&f->keyspace, k->keyspace);
	w32_store(&f->key_size, k->size);
	for (i = 0; i < FLIGHT_KEY / 8; i++) {
		part = 0;
		if (i * 8 < k->size)
			memcpy(&part, (const char *)k->data + i * 8, min_u64(8, k->size - i * 8));
		w64_poke(&f->key[i], part);
	}
}

static int claim_once(const struct claim *c, unsigned turn)
{
	const struct segment *s = &c->seat->member->segment;
	uint64_t free_word, word;
	uint32_t slot, sequence;
	struct flight *f;
	int r = look_for_room(c, &slot);

	if (r != LOOK_ON)
		return r;
	if (slot == UINT32_MAX)
		return forget_one(c) ? LOOK_AGAIN : OUTCOME_FULL;
	f = flight_at(s, slot);
	free_word = w64_load(flight_word_of(s, f));
	sequence = (FLIGHT_SEQUENCE(free_word) + 1) & FLIGHT_SEQUENCE_MASK;
	word = make_word(c->key, c->seat->index, sequence, FLIGHT_CLAIMING);
	if (FLIGHT_STATE(free_word) != FLIGHT_FREE || !w64_cas(flight_word_of(s, f), free_word, word))
		return LOOK_AGAIN;
	barrier_full(); /* F.1: mine is visible before I look at theirs; partner: the same line of a rival */
	describe(c, f, sequence);
	r = look_for_rivals(c, slot, turn);
	if (r == LOOK_ON && w64_cas(flight_word_of(s, f), word, flight_step(word, c->seat->index, FLIGHT_COMPUTING)))
		return lead(c, f, slot, (sequence + 1) & FLIGHT_SEQUENCE_MASK);
	w64_cas(flight_word_of(s, f), word, flight_step(word, 0, FLIGHT_FREE));
	return r == LOOK_ON || r == TAKE_OVER ? LOOK_AGAIN : r;
}

enum flight_outcome flight_claim(struct seat *seat, const struct flight_key *key, uint64_t now_ms, uint32_t lease_ms,
                                 struct ticket *ticket, int *error)
{
	struct claim c = {seat, key, now_ms, lease_ms, ticket, error};
	unsigned turn;
	int r;

	registry_hold(seat); /* before a flight may name this seat */
	for (turn = 0;; turn++) {
		r = claim_once(&c, turn);
		if (r != LOOK_AGAIN)
			break;
		spin_hint();
	}
	if (r != OUTCOME_LEAD && r != OUTCOME_TAKEOVER)
		registry_drop(seat);
	return (enum flight_outcome)r;
}

bool flight_is_led(struct seat *seat, uint64_t hash, uint64_t now_ms)
{
	const struct segment *s = &seat->member->segment;
	unsigned found;
	struct flight *f;
	uint64_t word;

	for (found = flight_match(s, hash); found; found &= found - 1) {
		f = flight_at(s, flight_group(s, hash) + (uint32_t)__builtin_ctz(found));
		word = w64_load(flight_word_of(s, f));
		if (FLIGHT_STATE(word) == FLIGHT_COMPUTING &&
		    (w64_load(&f->identity[0]) & FLIGHT_PAYLOAD_MASK) == (hash >> 16 & FLIGHT_PAYLOAD_MASK) &&
		    !flight_is_over(&f->lease, now_ms + CLOCK_COARSE_LAG_MS) && !flight_leader_is_dead(seat, word) &&
		    w64_load(flight_word_of(s, f)) == word)
			return true;
	}
	return false;
}
