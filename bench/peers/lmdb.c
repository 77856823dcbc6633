/* SPDX-License-Identifier: MIT */
/*
 * LMDB in /dev/shm, without any syncing. Each worker opens it for itself, keeps one read transaction, and renews it for
 * each get (for each batch), so that it sees what others have set. A set is a transaction.
 */
#include "../loops.h"

#include <lmdb.h>
#include <stdio.h>

struct state {
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *txn;
	const struct peer_setup *setup;
};

static int failed(const char *what, int rc)
{
	if (rc)
		fprintf(stderr, "lmdb: %s: %s\n", what, mdb_strerror(rc));
	return rc ? -1 : 0;
}

static int open_env(struct state *s)
{
	const struct workload *w = s->setup->workload;
	size_t size = ((w->value_bytes + w->keys * 64ull) * 3 + (64u << 20)) & ~(size_t)0xfffff;
	int rc = mdb_env_create(&s->env);

	if (!rc)
		rc = mdb_env_set_mapsize(s->env, size);
	if (!rc)
		rc = mdb_env_set_maxreaders(s->env, s->setup->processes + 8);
	if (!rc)
		rc = mdb_env_open(s->env, s->setup->directory,
		                  MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC | MDB_NORDAHEAD, 0600);
	return failed("open", rc);
}

static int open_dbi(struct state *s, unsigned flags)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(s->env, NULL, flags, &txn);

	if (!rc)
		rc = mdb_dbi_open(txn, NULL, 0, &s->dbi);
	if (!rc)
		rc = mdb_txn_commit(txn);
	return failed("dbi", rc);
}

static int lmdb_open(const struct peer_setup *setup, void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	s->setup = setup;
	*state = s;
	return open_env(s) || open_dbi(s, 0) || failed("begin", mdb_txn_begin(s->env, NULL, 0, &s->txn)) ? -1 : 0;
}

static int put(MDB_txn *txn, MDB_dbi dbi, const char *key, const void *value, size_t size)
{
	MDB_val k = {KEY_SIZE, (void *)(uintptr_t)key}, v = {size, (void *)(uintptr_t)value};

	return mdb_put(txn, dbi, &k, &v, 0);
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	struct state *s = state;

	return failed("put", put(s->txn, s->dbi, key, value, size));
}

/* Not carried across fork. */
static int filled(void *state)
{
	struct state *s = state;
	int rc = failed("commit", mdb_txn_commit(s->txn));

	mdb_env_close(s->env);
	return rc;
}

static int join(struct worker *worker)
{
	struct state *s = calloc(1, sizeof(*s));

	s->setup = worker->setup;
	worker->state = s;
	if (open_env(s) || open_dbi(s, MDB_RDONLY) || failed("begin", mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->txn)))
		return -1;
	mdb_txn_reset(s->txn);
	return 0;
}

static size_t one(struct state *s, const struct request *r, void *buffer)
{
	MDB_val k = {KEY_SIZE, (void *)(uintptr_t)r->key}, v;

	if (mdb_get(s->txn, s->dbi, &k, &v))
		return 0;
	memcpy(buffer, v.mv_data, v.mv_size);
	return v.mv_size;
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	struct state *s = worker->state;
	size_t size;

	if (mdb_txn_renew(s->txn))
		return 0;
	size = one(s, r, buffer);
	mdb_txn_reset(s->txn);
	return size;
}

static size_t many(struct worker *worker, const struct request *r, unsigned n, void *buffer)
{
	struct state *s = worker->state;
	size_t hits = 0;

	if (mdb_txn_renew(s->txn))
		return 0;
	for (unsigned i = 0; i < n; i++)
		hits += one(s, &r[i], buffer) != 0;
	mdb_txn_reset(s->txn);
	return hits;
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	struct state *s = worker->state;
	MDB_txn *txn;

	if (mdb_txn_begin(s->env, NULL, 0, &txn))
		return -1;
	if (put(txn, s->dbi, r->key, value, size)) {
		mdb_txn_abort(txn);
		return -1;
	}
	return mdb_txn_commit(txn);
}

PEER_RUN(run, get, set, many)

static void leave(struct worker *worker)
{
	struct state *s = worker->state;

	mdb_txn_abort(s->txn);
	mdb_env_close(s->env);
}

const struct peer peer_lmdb = {
	.name = "lmdb",
	.what = "LMDB in /dev/shm, no sync, a renewed read transaction per get",
	.flags = PEER_ATTACHES,
	.open = lmdb_open,
	.join = join,
	.set = fill,
	.filled = filled,
	.get = get,
	.run = run,
	.leave = leave,
};
