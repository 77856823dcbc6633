/* SPDX-License-Identifier: MIT */
/*
 * liburcu's lock-free hash table in the memory of one process: nodes from malloc, replaced as a whole, freed by
 * call_rcu. It has its buckets from the start: growing by itself it doubles them without end where keys are replaced
 * fast. Included once for each flavor, which its includer has chosen. A thread between rounds is offline.
 */
#include "../loops.h"

#include <stdio.h>
#include <urcu/rculfhash.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct item {
	struct cds_lfht_node node;
	struct rcu_head rcu;
	uint32_t size;
	char key[KEY_SIZE];
	char value[];
};

static int matches(struct cds_lfht_node *node, const void *key)
{
	return !memcmp(caa_container_of(node, struct item, node)->key, key, KEY_SIZE);
}

static void item_free(struct rcu_head *head)
{
	free(caa_container_of(head, struct item, rcu));
}

static int lfht_open(const struct peer_setup *setup, void **state)
{
	unsigned long buckets = 64;

	while (buckets < setup->workload->keys)
		buckets *= 2;
	rcu_register_thread();
	*state = cds_lfht_new(buckets, buckets, 0, 0, NULL);
	return *state ? 0 : -1;
}

static int put(struct cds_lfht *table, const char *key, const void *value, size_t size)
{
	struct item *item = malloc(sizeof(*item) + size);
	struct cds_lfht_node *old;

	if (!item)
		return -1;
	cds_lfht_node_init(&item->node);
	item->size = (uint32_t)size;
	memcpy(item->key, key, KEY_SIZE);
	memcpy(item->value, value, size);
	rcu_read_lock();
	old = cds_lfht_add_replace(table, XXH3_64bits(key, KEY_SIZE), matches, item->key, &item->node);
	rcu_read_unlock();
	if (old)
		call_rcu(&caa_container_of(old, struct item, node)->rcu, item_free);
	return 0;
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	return put(state, key, value, size);
}

static int filled(void *state)
{
	rcu_unregister_thread();
	return 0;
}

LOOP_INLINE size_t find(struct worker *worker, const struct request *r, void *buffer)
{
	struct cds_lfht_iter iterator;
	struct cds_lfht_node *node;
	size_t size = 0;

	rcu_read_lock();
	cds_lfht_lookup(worker->state, XXH3_64bits(r->key, KEY_SIZE), matches, r->key, &iterator);
	node = cds_lfht_iter_get_node(&iterator);
	if (node) {
		const struct item *item = caa_container_of(node, struct item, node);

		size = item->size;
		memcpy(buffer, item->value, size);
	}
	rcu_read_unlock();
	return size;
}

LOOP_INLINE size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	size_t size = find(worker, r, buffer);

	rcu_quiescent_state();
	return size;
}

LOOP_INLINE int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	int rc = put(worker->state, r->key, value, size);

	rcu_quiescent_state();
	return rc;
}

static int join(struct worker *worker)
{
	rcu_register_thread();
	return 0;
}

static size_t check(struct worker *worker, const struct request *r, void *buffer)
{
	return get(worker, r, buffer);
}

PEER_MANY(many, get)
PEER_RUN(loops, get, set, many)

/* The first round of a thread has it online from its join. */
static void run(struct worker *worker, const struct round *round, struct tally *tally)
{
	rcu_thread_online();
	loops(worker, round, tally);
	rcu_thread_offline();
}

static void leave(struct worker *worker)
{
	rcu_unregister_thread();
}

#define LFHT_PEER                                                                                                      \
	.flags = PEER_THREADS, .open = lfht_open, .set = fill, .filled = filled, .join = join, .get = check,           \
	.run = run, .leave = leave
