/* SPDX-License-Identifier: MIT */
/* A table under one PTHREAD_PROCESS_SHARED rwlock. */
#include "table.h"

static int table_open(const struct peer_setup *setup, void **state)
{
	struct table *t = table_new(setup->workload);
	pthread_rwlockattr_t attributes;

	if (!t)
		return -1;
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	*state = t;
	return pthread_rwlock_init(&t->rwlock, &attributes) ? -1 : 0;
}

static int put(struct table *t, const char *key, const void *value, size_t size)
{
	int rc;

	pthread_rwlock_wrlock(&t->rwlock);
	rc = table_set(t, key, value, size);
	pthread_rwlock_unlock(&t->rwlock);
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

	pthread_rwlock_rdlock(&t->rwlock);
	size = table_get(t, r->key, buffer);
	pthread_rwlock_unlock(&t->rwlock);
	return size;
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	return put(worker->state, r->key, value, size);
}

PEER_MANY(many, get)
PEER_RUN(run, get, set, many)

const struct peer peer_rwlock = {
	.name = "rwlock",
	.what = "hash table under a process-shared rwlock",
	.open = table_open,
	.set = fill,
	.get = get,
	.run = run,
};
