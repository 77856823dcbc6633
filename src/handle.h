/* SPDX-License-Identifier: MIT */
/*
 * The handles that callers hold, and how a call enters: by a read-side section of urcu-bp, which keeps the mapping that
 * it found until it leaves, so that a segment can be replaced under running threads.
 */
#ifndef SHOAL_HANDLE_H
#define SHOAL_HANDLE_H

#include <string.h>

#include "flight.h"
#include "hash.h"
#include "index.h"
#include "permit.h"
#include "recover.h"
#include "refresher.h"
#include "tally.h"

struct watch;

struct shoal {
	member_pointer member;
	_Atomic(struct shoal_keyspace *) keyspaces;
	_Atomic(struct refresher *) refresher;
	_Atomic(struct watch *) watch;
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
	uint64_t seed;   /* of its keys' hashes; the same in all regions */
	uint64_t record; /* bytes from the first keyspace's record to this one's */
	uint64_t kind;   /* of its entries, but for the size of the key */
	struct shoal_policy policy; /* resolved: no 0 stands for a default any more, SHOAL_NONE is 0 */
	_Atomic(struct fallback *) fallback;
	_Atomic(struct refresher_loader *) refresher; /* likewise kept */
	struct shoal_keyspace *next;
};

/* What the caller has set: 0 stands for the default, SHOAL_NONE for 0. */
static inline uint32_t handle_or_default(uint32_t given, uint32_t otherwise)
{
	return given == SHOAL_NONE ? 0 : given ? given : otherwise;
}

/* What a keyspace's record is claimed with. `name` is padded with 0. */
static inline uint64_t handle_keyspace_identity(const struct segment *s, const char name[NAME_SIZE], uint64_t version)
{
	return hash_bytes(name, NAME_SIZE, s->geometry.seed ^ version) | 1;
}

/* What hits compute with, of a keyspace whose id and policy are known. */
static inline void handle_prepare(struct shoal_keyspace *k, const struct segment *s)
{
	k->seed = index_seed(s, k->id);
	k->record = k->id * sizeof(struct keyspace);
	k->kind = ENTRY_KIND(k->policy.schema, k->id, 0);
}

static inline struct keyspace *handle_record(const struct segment *s, const struct shoal_keyspace *k)
{
	return (struct keyspace *)((char *)s->keyspaces + k->record);
}

/* The calling thread's seat, inside a read-side section; NULL: *error, and not inside. */
static ALWAYS_INLINE struct seat *handle_enter(struct shoal *cache, int *error)
{
	struct member *m;
	struct seat *seat;

	urcu_bp_read_lock();
	m = move_member(&cache->member);
	seat = unlikely(segment_has_moved(&m->segment)) ? NULL : registry_here(m);
	return likely(seat) ? seat : recover_enter(&cache->member, error);
}

/* Likewise, for those who need no seat: the member. NULL: it can't be followed to where it has moved. */
static inline struct member *handle_look(struct shoal *cache, int *error)
{
	struct member *m;

	urcu_bp_read_lock();
	while (unlikely(segment_has_moved(&(m = move_member(&cache->member))->segment))) {
		*error = move_follow(&cache->member);
		if (*error)
			return NULL;
		urcu_bp_read_lock();
	}
	return m;
}

static inline void handle_leave(void)
{
	urcu_bp_read_unlock();
}

/* The end of a look without a seat, which doesn't keep the region from being given back meanwhile. False: it has moved,
 * so what was seen may be nothing; look again. */
static inline bool handle_looked(const struct member *m)
{
	bool valid;

	barrier_full(); /* the look, before this; partner: who gives memory back does so after `moved` says so */
	valid = !segment_has_moved(&m->segment);
	handle_leave();
	return valid;
}

/* A keyspace's name, which may be half written: then it is another one. */
static inline void handle_name(const struct keyspace *record, char name[NAME_SIZE])
{
	uint64_t part;
	unsigned i;

	for (i = 0; i < NAME_SIZE / 8; i++) {
		part = w64_load(&record->name[i]);
		memcpy(name + i * 8, &part, 8);
	}
	name[NAME_SIZE - 1] = 0;
}

/*
 * To change something: as handle_enter(), and announced, so that a resize waits for the change, or the change for the
 * resize. What was drawn for a change that handle_changed() calls undone is to be used again when it is done anew.
 */
static inline struct seat *handle_change(struct shoal *cache, int *error)
{
	struct seat *seat;
	uint64_t word;

	while ((seat = handle_enter(cache, error))) {
		rcu_change(seat);
		word = w64_load(&seat->member->segment.header->moved); /* after it: resize.c, Z.2 */
		if (likely(MOVED_STATE(word) == SERVING))
			break;
		rcu_changed(seat);
		if (MOVED_STATE(word) == FROZEN)
			move_wait(seat->member, word);
		else
			move_mend(seat->member, word);
		handle_leave();
	}
	return seat;
}

/* The number of a change: drawn once, also when it is done again in another region. */
static inline uint64_t handle_draw(const struct segment *s, uint64_t *generation)
{
	if (!*generation)
		*generation = segment_draw(s);
	return *generation;
}

/* The end of a change, and of the call. False: the region has moved without it, so do it again. Z.3 */
static inline bool handle_changed(struct seat *seat)
{
	bool done = true;

	/* after the change's CAS, both seq_cst */
	if (likely(MOVED_STATE(atomic_load(&seat->member->segment.header->moved)) == SERVING))
		rcu_changed(seat);
	else if (rcu_changed_late(seat))
		done = move_spared(seat->member);
	handle_leave();
	return likely(done);
}

/* A rare event of a keyspace: one locked add to its record. */
static inline void handle_count(const struct segment *s, uint32_t keyspace, enum counter c, uint64_t n)
{
	w64_add(&s->keyspaces[keyspace].counters[c], n);
}

/* Likewise, where the handle points now: also of a load that began in a region before. Inside a section or not. */
static inline void handle_count_now(struct shoal *cache, uint32_t keyspace, enum counter c, uint64_t n)
{
	urcu_bp_read_lock();
	handle_count(&move_member(&cache->member)->segment, keyspace, c, n);
	urcu_bp_read_unlock();
}

/* The process's, of this handle, also after a resize; 0: it has not joined, like a child of fork that has made no
 * call. */
static inline uint64_t handle_token(struct shoal *cache)
{
	uint64_t token;

	urcu_bp_read_lock();
	token = w64_peek(&move_member(&cache->member)->wiped->token);
	urcu_bp_read_unlock();
	return token;
}

/* A look-up's outcome: no locked instruction (counters.h). */
static inline void handle_count_fresh(struct seat *seat, uint32_t keyspace, uint64_t hash)
{
	struct line *line = seat->lines[keyspace];

	if (unlikely(!line) && !(line = tally_line(seat, keyspace))) {
		handle_count(&seat->member->segment, keyspace, COUNTER_hits_fresh, 1);
		return;
	}
	w64_bump(&line->counters[COUNTER_hits_fresh], 1);
	w64_poke(&line->recent, hash);
}

/* Likewise, of a value that has been stale since then. */
static inline void handle_count_stale(struct seat *seat, uint32_t keyspace, uint64_t hash, uint64_t since_ms)
{
	const struct segment *s = &seat->member->segment;
	uint64_t now = clock_coarse_ms(&s->clock), for_ms = now > since_ms ? now - since_ms : 0;
	struct line *line = seat->lines[keyspace];

	if (unlikely(!line) && !(line = tally_line(seat, keyspace))) {
		handle_count(s, keyspace, COUNTER_hits_stale, 1);
		handle_count(s, keyspace, COUNTER_stale_ms_sum, for_ms);
		return;
	}
	w64_bump(&line->counters[COUNTER_hits_stale], 1);
	w64_bump(&line->stale_ms, for_ms);
	w64_poke(&line->recent, hash);
}

static inline void handle_count_hot(struct seat *seat, uint32_t keyspace, enum counter c)
{
	struct line *line = seat->lines[keyspace];

	if (unlikely(!line) && !(line = tally_line(seat, keyspace)))
		handle_count(&seat->member->segment, keyspace, c, 1);
	else
		w64_bump(&line->counters[c], 1);
}

#endif
