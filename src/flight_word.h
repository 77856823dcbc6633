/* SPDX-License-Identifier: MIT */
/*
 * The words of a flight's slot: how they are packed, stepped and raised, and who is woken when one moves. Only flight.c
 * and claim.c change them. What they mean, and F.6, is told in flight.c.
 */
#ifndef SHOAL_FLIGHT_WORD_H
#define SHOAL_FLIGHT_WORD_H

#include "bell.h"
#include "futex.h"
#include "life.h"

enum flight_state {
	FLIGHT_FREE,
	FLIGHT_CLAIMING,
	FLIGHT_COMPUTING,
	FLIGHT_PUBLISHING,
	FLIGHT_OVERDUE,
	FLIGHT_ORPHAN,
	FLIGHT_FAILED,
	FLIGHT_UNCACHEABLE,
};

#define FLIGHT_STATE(word) ((enum flight_state)((word) & 15))
#define FLIGHT_LEADER(word) ((uint32_t)((word) >> 32 & 0xffff))
#define FLIGHT_SEQUENCE_BITS 28
#define FLIGHT_SEQUENCE_MASK ((1u << FLIGHT_SEQUENCE_BITS) - 1)
#define FLIGHT_PAYLOAD_BITS 36
#define FLIGHT_PAYLOAD_MASK (((uint64_t)1 << FLIGHT_PAYLOAD_BITS) - 1)
#define FLIGHT_FINGERPRINT(word) ((word) >> 48)
#define FLIGHT_SEQUENCE(word) ((uint32_t)((word) >> 4) & FLIGHT_SEQUENCE_MASK)
#define FLIGHT_TAG(value) ((uint32_t)((value) >> FLIGHT_PAYLOAD_BITS))
#define FLIGHT_RELAY 4
#define FLIGHT_NOBODY 0xffffu /* leads an ORPHAN whose leader died; one that gave up stays named */

/* The next word of a slot: another state and leader, one sequence on. FREE keeps nothing else. */
static inline uint64_t flight_step(uint64_t word, uint32_t leader, enum flight_state state)
{
	uint64_t next = (uint64_t)((FLIGHT_SEQUENCE(word) + 1) & FLIGHT_SEQUENCE_MASK) << 4 | state;

	return state == FLIGHT_FREE ? next : next | FLIGHT_FINGERPRINT(word) << 48 | (uint64_t)leader << 32;
}

static inline bool flight_is_newer(uint32_t a, uint32_t b)
{
	return (int32_t)((a - b) << (32 - FLIGHT_SEQUENCE_BITS)) > 0;
}

/* F.6: to a later sequence, or to more within the same one. */
static inline void flight_raise(word64 *w, uint32_t sequence, uint64_t payload)
{
	uint64_t value = (uint64_t)sequence << FLIGHT_PAYLOAD_BITS | (payload & FLIGHT_PAYLOAD_MASK), now = w64_load(w);

	while (flight_is_newer(sequence, FLIGHT_TAG(now)) || (sequence == FLIGHT_TAG(now) && value > now)) {
		if (w64_cas(w, now, value))
			return;
		now = w64_load(w);
	}
}

static inline uint64_t flight_ticks(uint64_t ms)
{
	return (ms + 3) / 4;
}

static inline uint64_t flight_ms(const word64 *w)
{
	return (w64_load(w) & FLIGHT_PAYLOAD_MASK) * 4;
}

static inline bool flight_is_over(const word64 *w, uint64_t now_ms)
{
	return flight_ms(w) <= now_ms;
}

static inline struct flight *flight_at(const struct segment *s, uint32_t slot)
{
	return &s->flights[slot < s->geometry.flights ? slot : 0];
}

static inline word64 *flight_word_of(const struct segment *s, const struct flight *f)
{
	return &s->flight_words[f - s->flights];
}

static inline bool flight_is_of(const struct flight *f, uint64_t hash, uint64_t second)
{
	return (w64_load(&f->identity[0]) & FLIGHT_PAYLOAD_MASK) == (hash >> 16 & FLIGHT_PAYLOAD_MASK) &&
	       (w64_load(&f->identity[1]) & FLIGHT_PAYLOAD_MASK) == (second & FLIGHT_PAYLOAD_MASK);
}

static inline void flight_wake(const struct segment *s, const struct flight *f, int n)
{
	bell_ring_some(s, &f->watchers, (uint32_t)(f - s->flights), n); /* first: theirs is the longer way */
	futex_wake((word32 *)(void *)flight_word_of(s, f), n);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of the flight's word");

static inline bool flight_leader_is_dead(const struct seat *seat, uint64_t word)
{
	const word32 *alive;
	uint32_t seen;
	uint64_t ref = life_ref(seat->member, FLIGHT_LEADER(word));

	return !ref || life_of(seat->member, ref, &alive, &seen) >= LIFE_THREAD_DEAD;
}

#endif
