/* SPDX-License-Identifier: MIT */
/* What a get and a set have to do at least: bound.c says more. Also stepped by tests/bench/instructions.c. */
#ifndef BENCH_PEERS_BOUND_H
#define BENCH_PEERS_BOUND_H

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../workload.h"

#define BOUND_HEAD 32 /* key and size, as in any cache, though nobody reads the key */

struct bound {
	uint64_t *slots, mask;
	char *memory;
	uint64_t used, size;
	uint32_t *hints; /* of each key */
	const struct workload *workload;
	int huge;
};

/* Not inlined, so that objdump shows it by itself: a call costs what a library's does. */
static __attribute__((noinline)) size_t bound_read(const struct bound *b, const struct request *r, void *buffer)
{
	uint64_t slot = b->slots[(XXH3_64bits(r->key, KEY_SIZE) + r->hint) & b->mask];
	const char *object = b->memory + slot - 1;
	uint32_t size;

	memcpy(&size, object + BOUND_HEAD - 4, 4);
	memcpy(buffer, object + BOUND_HEAD, size);
	return size;
}

static __attribute__((noinline)) int bound_write(const struct bound *b, const struct request *r, const void *value,
                                                 size_t size)
{
	uint64_t slot = b->slots[(XXH3_64bits(r->key, KEY_SIZE) + r->hint) & b->mask];

	memcpy(b->memory + slot - 1 + BOUND_HEAD, value, size);
	return 0;
}

#endif
