/* SPDX-License-Identifier: MIT */
/* A table under one robust, process-shared mutex. */
#include "table.h"

static int table_open(const struct peer_setup *setup, void **state)
{
	struct table *t = table_new(setup->workload);
	pthread_mutexattr_t attributes;

	if (!t)
		return -1;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	*state = t;
	return pthread_mutex_init(&t->mutex, &attributes) ? -1 : 0;
}

static void lock(struct table *t)
{
	if (pthread_mutex_lock(&t->mutex) == EOWNERDEAD)
		pthread_mutex_consistent(&t->mutex);
}

static int put(struct table *t, const char *key, const void *value, size_t size)
{
	int rc;

	lock(t);
	rc = table_set(t, key, value, size);
	pthread_mutex_unlock(&t->mutex);
	return rc;
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	return put(state, key, value, size);
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	struct table *t = worker->state;
	size_t size;

	lock(t);
	size = table_get(t, r->key, buffer);
	pthread_mutex_unlock(&t->mutex);
	return size;
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	return put(worker->state, r->key, value, size);
}

PEER_MANY(many, get)
PEER_RUN(run, get, set, many)

const struct peer peer_mutex = {
	.name = "robust-mutex",
	.what = "hash table under a robust process-shared mutex",
	.open = table_open,
	.set = fill,
	.get = get,
	.run = run,
};
