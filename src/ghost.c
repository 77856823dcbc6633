/* SPDX-License-Identifier: MIT */
/* See ghost.h. */
#include "ghost.h"
#include "hash.h"

#define UNITS 1024u      /* of the ghosts' clocks in the size of the log, or up to twice as many */
#define REACH_PERCENT 90 /* of that size, evicted since: then a ghost of the probation log ends */
#define YOUNG_PERCENT 5  /* likewise: then it is no longer young, and a ghost of the main log ends */

#define GHOST(hash, from, stamp) ((uint32_t)((hash) >> 48) << 16 | (uint32_t)(from) << 15 | ((stamp) & 0x7fff))
#define IS_OF(word, hash) ((word) >> 16 == (hash) >> 48)
#define FROM(word) ((word) >> 15 & 1 ? LOG_MAIN : LOG_PROBATION)

static uint64_t log_bytes(const struct segment *s)
{
	return (uint64_t)s->geometry.extents * s->geometry.extent_size;
}

static unsigned shift(const struct segment *s)
{
	return (unsigned)(63 - __builtin_clzll(max_u64(log_bytes(s) / UNITS, 1)));
}

/* In units. */
static uint32_t percent(const struct segment *s, unsigned n)
{
	return (uint32_t)(log_bytes(s) / 100 * n >> shift(s));
}

static uint32_t age(const struct segment *s, uint32_t word)
{
	return ((uint32_t)(w64_peek(&s->header->ghost_bytes[FROM(word)]) >> shift(s)) - word) & 0x7fff;
}

/* The word with the highest one gives way to a new ghost; one whose ghost has ended comes before the others. */
static uint32_t staleness(const struct segment *s, uint32_t word)
{
	uint32_t n = age(s, word);

	return !word || (FROM(word) == LOG_MAIN && n > percent(s, YOUNG_PERCENT)) ? UINT32_MAX : n;
}

static struct ghosts *bucket_of(const struct segment *s, uint64_t mixed)
{
	return &s->ghosts[(mixed & UINT32_MAX) * s->geometry.ghosts >> 32];
}

void ghost_prefetch(const struct segment *s, uint64_t hash)
{
	__builtin_prefetch(bucket_of(s, hash_mix(hash)), 1);
}

void ghost_add(const struct segment *s, uint64_t hash, uint32_t length, enum log_kind from)
{
	uint64_t mixed = hash_mix(hash), now = w64_add(&s->header->ghost_bytes[from], length) >> shift(s);
	struct ghosts *b = bucket_of(s, mixed);
	unsigned i, oldest = 0;
	uint32_t word, most = 0, n;

	for (i = 0; i < GHOST_WAYS; i++) {
		word = w32_peek(&b->words[i]);
		n = word && IS_OF(word, mixed) ? UINT32_MAX : staleness(s, word);
		if (n <= most)
			continue;
		most = n;
		oldest = i;
	}
	w32_poke(&b->words[oldest], GHOST(mixed, from, now));
}

bool ghost_take(const struct segment *s, uint64_t hash, struct ghost *ghost)
{
	uint64_t mixed = hash_mix(hash);
	struct ghosts *b = bucket_of(s, mixed);
	uint32_t word, n;
	unsigned i;

	for (i = 0; i < GHOST_WAYS; i++) {
		word = w32_peek(&b->words[i]);
		if (!word || !IS_OF(word, mixed))
			continue;
		n = age(s, word);
		w32_poke(&b->words[i], 0);
		*ghost = (struct ghost){FROM(word), n <= percent(s, YOUNG_PERCENT)};
		return ghost->young || (ghost->from == LOG_PROBATION && n <= percent(s, REACH_PERCENT));
	}
	return false;
}
