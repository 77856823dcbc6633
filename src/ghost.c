/* SPDX-License-Identifier: MIT */
/* See ghost.h. */
#include "ghost.h"
#include "hash.h"

#define UNITS 4096u      /* of the clock in the log's size, or up to twice as many */
#define REACH_PERCENT 90 /* of the log's size, in bytes evicted since: how long a ghost is remembered */

#define GHOST(hash, stamp) ((uint32_t)((hash) >> 48) << 16 | ((stamp) & 0xffff))
#define IS_OF(word, hash) ((word) >> 16 == (hash) >> 48)

static uint64_t log_bytes(const struct segment *s)
{
	return (uint64_t)s->geometry.extents * s->geometry.extent_size;
}

static unsigned shift(const struct segment *s)
{
	return (unsigned)(63 - __builtin_clzll(max_u64(log_bytes(s) / UNITS, 1)));
}

static uint32_t age(uint32_t word, uint64_t now)
{
	return (now - word) & 0xffff;
}

static struct ghosts *bucket_of(const struct segment *s, uint64_t mixed)
{
	return &s->ghosts[(mixed & UINT32_MAX) * s->geometry.ghosts >> 32];
}

void ghost_add(const struct segment *s, uint64_t hash, uint32_t length)
{
	uint64_t mixed = hash_mix(hash), now = w64_add(&s->header->ghost_bytes, length) >> shift(s);
	struct ghosts *b = bucket_of(s, mixed);
	unsigned i, oldest = 0;
	uint32_t word;

	for (i = 0; i < GHOST_WAYS; i++) {
		word = w32_peek(&b->words[i]);
		if (!word || IS_OF(word, mixed)) {
			oldest = i;
			break;
		}
		if (age(word, now) > age(w32_peek(&b->words[oldest]), now))
			oldest = i;
	}
	w32_poke(&b->words[oldest], GHOST(mixed, now));
}

bool ghost_take(const struct segment *s, uint64_t hash)
{
	uint64_t mixed = hash_mix(hash), now = w64_peek(&s->header->ghost_bytes) >> shift(s);
	uint64_t reach = log_bytes(s) / 100 * REACH_PERCENT >> shift(s);
	struct ghosts *b = bucket_of(s, mixed);
	uint32_t word;
	unsigned i;

	for (i = 0; i < GHOST_WAYS; i++) {
		word = w32_peek(&b->words[i]);
		if (!word || !IS_OF(word, mixed))
			continue;
		w32_poke(&b->words[i], 0);
		return age(word, now) <= reach;
	}
	return false;
}
