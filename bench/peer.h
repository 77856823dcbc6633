/* SPDX-License-Identifier: MIT */
/*
 * A cache beside which shoal is measured: one file of peers/ each, one struct peer, listed in peers.c.
 *
 * A peer has a process of its own, its host, which opens and fills it and has the workers: forked ones, or threads
 * where the peer's memory is one process's (PEER_THREADS). Calls, in order: open and set (host); join, run..., leave
 * (each worker); close (host). A function that fails says why on stderr and returns -1; the peer is left out then.
 *
 * `run` is the timed loop, made by PEER_RUN of loops.h from inline functions, so that no peer pays for a call through a
 * pointer that another is spared.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include "histogram.h"
#include "workload.h"

enum access {
	ACCESS_OVERLAPPED, /* independent gets: the processor begins the next one before the last has ended */
	ACCESS_ISOLATED,   /* each get's key depends on the last value */
	ACCESS_MIXED,      /* gets, and sets where the request says so */
	ACCESS_SET,
	ACCESS_MANY,       /* `batch` keys in one call */
	ACCESS_KINDS,
};

enum {
	PEER_THREADS = 1 << 0, /* workers are threads of the host */
	PEER_SLOW = 1 << 1,    /* microseconds to a get: shorter blocks */
	PEER_ATTACHES = 1 << 3, /* join needs nothing of the host's: any process may */
	PEER_NO_SET = 1 << 2,  /* filled by other means; no set, no mixed */
};

struct peer;
struct worker;
struct tally;

struct round {
	/* in place of the peer's loops; or NULL */
	void (*job)(const struct peer *peer, struct worker *worker, void *arg);
	void *arg; /* shared memory */
	enum access access;
	int each;        /* time each operation by itself */
	uint64_t ns;     /* for how long */
	uint32_t block;  /* operations between two looks at the clock */
	uint32_t batch;
};

struct tally {
	uint64_t operations, hits, ns;
	struct histogram times; /* of blocks: picoseconds to an operation; of operations: nanoseconds */
};

struct peer_setup {
	const struct workload *workload;
	unsigned processes;
	double capacity; /* room for this share of the values; at least 1: for all */
	int huge;        /* in huge pages, where it has the choice */
	const char *directory; /* the peer's own, for sockets and files */
};

/* A loader: `run` fills the value in, takes `us` for it, and returns its size. A peer that can't call it does the like:
 * the value begins with the key. */
struct load {
	size_t (*run)(struct load *load, const char *key, void *value);
	void *arg;
	uint64_t us;
	size_t size;
};

/* How a fetch went; the peer fills in what is known to it alone. */
struct fetched {
	uint64_t at;     /* when it was there (CLOCK_MONOTONIC); 0: when fetch returned */
	uint64_t loaded; /* when the loader had ended, where it was not `run`; 0: it was */
	int led;         /* loaded it itself */
};

struct worker {
	const struct peer_setup *setup;
	unsigned number;
	uint32_t at; /* the next request */
	void *state; /* of the peer's open; join may put the worker's own in its place */
};

struct peer {
	const char *name, *what;
	unsigned flags;
	int (*open)(const struct peer_setup *setup, void **state);
	int (*join)(struct worker *worker);  /* or NULL */
	int (*set)(void *state, const char *key, uint32_t number, const void *value, size_t size); /* while filling */
	int (*filled)(void *state);          /* or NULL */
	/* its size, 0: none; or NULL */
	size_t (*get)(struct worker *worker, const struct request *request, void *buffer);
	void (*run)(struct worker *worker, const struct round *round, struct tally *tally);
	/* or NULL */
	int (*fetch)(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched);
	void (*leave)(struct worker *worker); /* or NULL */
	void (*close)(void *state);           /* or NULL */
};

extern const struct peer *const peers[]; /* ends with NULL */
const struct peer *peer_named(const char *name);

#endif
