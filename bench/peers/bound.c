/* SPDX-License-Identifier: MIT */
/*
 * No cache at all: what any of them has to do at least. XXH3 of the key, a load that finds the value, a load of the
 * value that depends on it, the copy. The slot is the hash's own or `hint` further, which was found while filling: so
 * no slot is looked at in vain, and no key compared. A set is a copy into the same place, torn or not.
 */
#include "../loops.h"

#include "bound.h"

#include <stdio.h>

static int bound_open(const struct peer_setup *setup, void **state)
{
	struct bound *b = calloc(1, sizeof(*b));

	b->workload = setup->workload;
	b->huge = setup->huge;
	b->mask = 63;
	while (b->mask + 1 < setup->workload->keys * 3ull / 2)
		b->mask = b->mask * 2 + 1;
	b->size = (uint64_t)setup->workload->keys * (BOUND_HEAD + 64) + setup->workload->value_bytes;
	b->slots = shared_memory((b->mask + 1) * 8);
	b->memory = shared_memory(b->size);
	b->hints = calloc(setup->workload->keys, sizeof(*b->hints));
	*state = b;
	return b->hints ? 0 : -1;
}

static int bound_fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	struct bound *b = state;
	uint64_t hash = XXH3_64bits(key, KEY_SIZE), at = hash;
	char *object = b->memory + b->used;

	while (b->slots[at & b->mask])
		at++;
	b->slots[at & b->mask] = b->used + 1;
	b->hints[number] = (uint32_t)(at - hash);
	memcpy(object, key, KEY_SIZE);
	memcpy(object + BOUND_HEAD - 4, &(uint32_t){(uint32_t)size}, 4);
	memcpy(object + BOUND_HEAD, value, size);
	b->used += (BOUND_HEAD + size + 63) & ~63ull;
	return 0;
}

static int bound_filled(void *state)
{
	struct bound *b = state;

	if (b->huge) {
		shared_memory_huge(b->slots, (b->mask + 1) * 8);
		shared_memory_huge(b->memory, b->size);
	}

	for (uint32_t i = 0; i < b->workload->count; i++)
		b->workload->requests[i].hint = b->hints[b->workload->requests[i].number];
	return 0;
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	return bound_read(worker->state, r, buffer);
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	return bound_write(worker->state, r, value, size);
}

PEER_MANY(many, get)
PEER_RUN(run, get, set, many)

static int huge_open(const struct peer_setup *setup, void **state)
{
	int rc = bound_open(setup, state);

	((struct bound *)*state)->huge = 1;
	return rc;
}

const struct peer peer_bound = {
	.name = "bound",
	.what = "XXH3, two dependent loads and the copy; no cache",
	.open = bound_open,
	.set = bound_fill,
	.filled = bound_filled,
	.get = get,
	.run = run,
};

const struct peer peer_bound_huge = {
	.name = "bound-huge",
	.what = "bound in huge pages",
	.open = huge_open,
	.set = bound_fill,
	.filled = bound_filled,
	.get = get,
	.run = run,
};
