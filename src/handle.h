/* SPDX-License-Identifier: MIT */
/*
 * The handles that callers hold, and how a call enters: by a read-side section of urcu-bp, which keeps the mapping that
 * it found until it leaves, so that a segment can be replaced under running threads.
 */
#ifndef SHOAL_HANDLE_H
#define SHOAL_HANDLE_H

#include "index.h"
#include "flight.h"
#include "permit.h"
#include "recover.h"
#include "refresher.h"

struct shoal {
	struct member *member;            /* published by rcu_assign_pointer */
	_Atomic(struct shoal_keyspace *) keyspaces;
	_Atomic(struct refresher *) refresher;
};

/* Where values of an older version are found. Immutable; an earlier one is kept till the cache is closed. */
struct fallback {
	struct shoal_keyspace *old;
	shoal_old_key *old_key;
	shoal_migrate *convert;
	void *arg;
	struct fallback *before;
};

struct shoal_keyspace {
	struct shoal *cache;
	uint32_t id;
	struct shoal_policy policy; /* resolved: no 0 stands for a default any more, SHOAL_NONE is 0 */
	_Atomic(struct fallback *) fallback;
	_Atomic(struct refresher_loader *) refresher; /* likewise kept */
	struct shoal_keyspace *next;
};

/* The calling thread's seat, inside a read-side section; NULL: *error, and not inside. */
static inline struct seat *handle_enter(struct shoal *cache, int *error)
{
	struct seat *seat;

	urcu_bp_read_lock();
	seat = registry_here(rcu_dereference(cache->member));
	return likely(seat) ? seat : recover_enter(&cache->member, error);
}

static inline void handle_leave(void)
{
	urcu_bp_read_unlock();
}

/* A rare event of a keyspace: one locked add to its record. */
static inline void handle_count(const struct segment *s, uint32_t keyspace, enum counter c, uint64_t n)
{
	w64_add(&s->keyspaces[keyspace].counters[c], n);
}

/* A look-up's outcome: no locked instruction (counters.h). */
static inline void handle_count_hot(struct seat *seat, uint32_t keyspace, enum counter c)
{
	struct line *line = seat->lines[keyspace];

	if (unlikely(!line) && !(line = registry_line(seat, keyspace)))
		handle_count(&seat->member->segment, keyspace, c, 1);
	else
		w64_bump(&line->counters[c], 1);
}

/* A hit, remembered in its index slot while that is short of its cap. */
static inline void handle_touch(struct seat *seat, uint32_t keyspace, const struct index_hit *hit)
{
	struct line *line;

	if (unlikely(index_touch(&seat->member->segment, hit)) && (line = registry_line(seat, keyspace)))
		w64_bump(&line->touches, 1);
}

#endif
