/* SPDX-License-Identifier: MIT */
/*
 * The timed loops, inlined into each peer's file with its own operations:
 *
 *   size_t get(struct worker *, const struct request *, void *buffer)      copies the value; its size, or 0
 *   int set(struct worker *, const struct request *, const void *, size_t) 0, or it failed
 *   size_t many(struct worker *, const struct request *, unsigned n, void *buffer)   n gets; how many were hits
 */
#ifndef BENCH_LOOPS_H
#define BENCH_LOOPS_H

#include "peer.h"
#include "ticks.h"

#include <stdlib.h>
#include <string.h>

#define LOOP_INLINE static inline __attribute__((always_inline))

typedef size_t loop_get(struct worker *, const struct request *, void *);
typedef int loop_set(struct worker *, const struct request *, const void *, size_t);
typedef size_t loop_many(struct worker *, const struct request *, unsigned, void *);

struct loop {
	struct worker *worker;
	char *buffer; /* what was got, and what is set */
	uint64_t zero; /* of the last value; the compiler doesn't know that it is */
};

LOOP_INLINE size_t loop_put(struct loop *l, const struct request *r, loop_set *set)
{
	uint64_t head[2] = {0, r->number};

	memcpy(l->buffer, head, sizeof(head));
	return !set(l->worker, r, l->buffer, l->worker->setup->workload->sizes[r->number]);
}

LOOP_INLINE size_t loop_one(struct loop *l, enum access access, uint32_t batch, loop_get *get, loop_set *set,
                            loop_many *many)
{
	const struct workload *w = l->worker->setup->workload;
	const struct request *r = &w->requests[l->worker->at];
	size_t hits;

	if (access == ACCESS_MANY) {
		if (l->worker->at + batch > w->count)
			r = w->requests, l->worker->at = 0;
		l->worker->at = (l->worker->at + batch) & (w->count - 1);
		return many(l->worker, r, batch, l->buffer);
	}
	l->worker->at = (l->worker->at + 1) & (w->count - 1);
	if (access == ACCESS_SET || (access == ACCESS_MIXED && r->write))
		return loop_put(l, r, set);
	if (access != ACCESS_ISOLATED)
		return get(l->worker, r, l->buffer) != 0;
	hits = get(l->worker, (const struct request *)((const char *)r + l->zero), l->buffer) != 0;
	memcpy(&l->zero, l->buffer, sizeof(l->zero));
	return hits;
}

LOOP_INLINE void loop_blocks(struct loop *l, enum access access, const struct round *round, struct tally *tally,
                             loop_get *get, loop_set *set, loop_many *many)
{
	uint64_t began = now_ns(), from = began, to;
	uint32_t per = access == ACCESS_MANY ? round->batch : 1, calls = round->block / per + !(round->block / per), i;

	do {
		size_t hits = 0;

		for (i = 0; i < calls; i++)
			hits += loop_one(l, access, round->batch, get, set, many);
		to = now_ns();
		tally->hits += hits;
		tally->operations += (uint64_t)calls * per;
		histogram_add(&tally->times, (to - from) * 1000 / ((uint64_t)calls * per));
		from = to;
	} while (to - began < round->ns);
	tally->ns += to - began;
}

LOOP_INLINE void loop_each(struct loop *l, enum access access, const struct round *round, struct tally *tally,
                           loop_get *get, loop_set *set, loop_many *many)
{
	double rate = 1 / ticks_per_ns();
	uint64_t itself = ticks_of_itself(), began = now_ns(), from, took;
	uint32_t per = access == ACCESS_MANY ? round->batch : 1, i;

	do {
		for (i = 0; i < round->block; i++) {
			from = ticks();
			tally->hits += loop_one(l, access, round->batch, get, set, many);
			took = ticks() - from;
			took = took > itself ? took - itself : 0;
			histogram_add(&tally->times, (uint64_t)((double)took * rate / per));
		}
		tally->operations += (uint64_t)round->block * per;
	} while (now_ns() - began < round->ns);
	tally->ns += now_ns() - began;
}

LOOP_INLINE void loop_run(struct worker *worker, const struct round *round, struct tally *tally, loop_get *get,
                          loop_set *set, loop_many *many)
{
	static __thread char *buffer;
	struct loop l = {.worker = worker};

	if (!buffer)
		buffer = aligned_alloc(64, (worker->setup->workload->value_to + 127u) & ~63u);
	l.buffer = buffer;
	memset(buffer, 0, worker->setup->workload->value_to);

#define LOOP_CASE(a)                                                                                                  \
	case a:                                                                                                       \
		if (round->each)                                                                                      \
			loop_each(&l, a, round, tally, get, set, many);                                               \
		else                                                                                                  \
			loop_blocks(&l, a, round, tally, get, set, many);                                             \
		break
	switch (round->access) {
	LOOP_CASE(ACCESS_OVERLAPPED);
	LOOP_CASE(ACCESS_ISOLATED);
	LOOP_CASE(ACCESS_MIXED);
	LOOP_CASE(ACCESS_SET);
	LOOP_CASE(ACCESS_MANY);
	default: break;
	}
#undef LOOP_CASE
}

/* For a peer that has no call for several keys. */
#define PEER_MANY(name, get)                                                                                          \
	LOOP_INLINE size_t name(struct worker *worker, const struct request *r, unsigned n, void *buffer)             \
	{                                                                                                             \
		size_t hits = 0;                                                                                      \
                                                                                                                      \
		for (unsigned i = 0; i < n; i++)                                                                      \
			hits += get(worker, &r[i], buffer) != 0;                                                      \
		return hits;                                                                                          \
	}

#define PEER_RUN(name, get, set, many)                                                                                \
	static void name(struct worker *worker, const struct round *round, struct tally *tally)                       \
	{                                                                                                             \
		loop_run(worker, round, tally, get, set, many);                                                       \
	}

#endif
