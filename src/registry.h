/* SPDX-License-Identifier: MIT */
/*
 * Who is here: processes and threads of a segment. A process takes a process slot and a thread a reader slot, lazily
 * at the first operation, also after fork. What a thread knows of its place is its `seat`, private to the process.
 *
 *   operation            may run beside          another process is killed
 *   registry_here        everything              no effect
 *   registry_join        everything              no effect; its half-made claims carry its identity
 *   registry_leave       all but use of the seat no effect
 */
#ifndef SHOAL_REGISTRY_H
#define SHOAL_REGISTRY_H

#include <urcu/urcu-bp.h>

#include "life.h"
#include "process.h"

struct registry_here {
	uint64_t epoch;
	struct seat *seat;
};
/* One entry of cache in front of pthread_getspecific. Epochs are random per process and handle, so that one compare
 * notices another handle, a closed one and a fork. */
extern _Thread_local struct registry_here registry_here_cache;

/* at_exit gets the seat of a thread that exits; it ends with registry_leave(). */
int registry_open(struct member *m, void (*at_exit)(void *seat));
/* A member that takes another one's place, for the same handle. */
int registry_succeed(struct member *m, const struct member *before);
/* The handle's end, or that of its use of this region: every seat is abandoned. May free `m`. No read-side section may
 * be open. */
void registry_close(struct member *m);
/* The calling thread's seat in a member before `m`, to be left before it joins; NULL: none. */
struct seat *registry_left_behind(struct member *m);
/* A load in hand needs this seat. It ends with registry_drop(), and registry_settle(seat, 0) after that. */
static inline void registry_hold(struct seat *seat)
{
	w32_add(&seat->loads, 1);
}

static inline void registry_drop(struct seat *seat)
{
	w32_sub(&seat->loads, 1);
}

struct seat *registry_find(struct member *m);

/* The calling thread's seat, or NULL: registry_join makes one. */
static inline struct seat *registry_here(struct member *m)
{
	if (likely(registry_here_cache.epoch == w64_peek(&m->wiped->epoch)))
		return registry_here_cache.seat;
	return registry_find(m);
}

/* SHOAL_OK; SHOAL_ERR_LIMIT, SYSTEM; or REGISTRY_CORPSE: *dead is a reader whose thread died; recover it, call again;
 * or PROCESS_MOVED: the process is too late for this region. */
enum { REGISTRY_CORPSE = PROCESS_MOVED + 1 };
int registry_join(struct member *m, struct seat **seat, uint64_t *dead);

/* A seat that is no thread's, in a region that the process is about to go to; without an alive word. */
int registry_guest(struct member *m, struct seat **seat);
void registry_end_guest(struct seat *seat);

/* The calling thread is done with its seat: freed now, or with its last pin and load. */
void registry_leave(struct seat *seat);
/* Clear a pin (0: none; a load has ended) of a seat that may be abandoned, from any thread of the process. Outside any
 * read-side section. */
void registry_settle(struct seat *seat, unsigned pin);

#endif
