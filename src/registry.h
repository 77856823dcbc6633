/* SPDX-License-Identifier: MIT */
/*
 * Who is here: processes and threads of a segment. A process takes a process slot and a thread a reader slot, lazily
 * at the first operation, also after fork. What a thread knows of its place is its `seat`, private to the process.
 *
 *   operation            may run beside          another process is killed
 *   registry_here        everything              no effect
 *   registry_join        everything              no effect; its half-made claims carry its identity
 *   registry_leave       all but use of the seat no effect
 *   registry_is_alive    everything              says so
 *   registry_free_*      everything, also itself no effect: each step is a CAS from the dead one's own word
 */
#ifndef SHOAL_REGISTRY_H
#define SHOAL_REGISTRY_H

#include <urcu/urcu-bp.h>

#include "segment.h"

struct shoal_load;

/* Process-private state that a child of fork must not inherit: it lies on a page that the kernel wipes in the child. */
struct wiped {
	word32 ours;          /* 0 in a child of fork that has not noticed yet */
	word32 opened;        /* by this very process, so its clock was asked for: 0 in a child of fork */
	word64 epoch;         /* random, never 0 in a registered process */
	word64 token;         /* likewise, and the same in all members of a lineage */
	pthread_mutex_t lock; /* all zero is an unlocked mutex; guards the rest */
	word64 identity;      /* proc_self(); read without the lock by who looks for the dead */
	uint32_t process;     /* our slot */
	uint32_t incarnation; /* of it */
	struct seat *seats;
};

/* What the members of one handle have in common: one after the other, as the segment is resized. */
struct lineage {
	pthread_key_t key;   /* thread -> its seat, of the member that it was last in */
	word32 members;
};

/*
 * One attached region of this process. The mapping goes when the handle is closed, or another region is used in its place,
 * and no value or load is in hand; the rest when the last thread that has a seat has left it or exited.
 */
struct member {
	struct segment segment;
	struct wiped *wiped;
	struct lineage *lineage;
	word32 users;        /* the handle, and each thread that has a seat */
	word64 recovered_ms; /* when this process last looked for the dead; recover.c's */
	bool closed;         /* under the lock, like what follows */
	word32 lock_fd;      /* + 1; locks the byte of our slot behind the region; in a child that has not noticed: the parent's */
	bool ended;          /* nothing of it is in hand any more: its process slot is free, its mapping gone */
	bool joined;         /* there have been seats, here or in an ancestor */
	bool inherited;      /* in an ancestor: what they name stays */
	struct seat *graves; /* seats to be used again: type-stable, so a late look at one is harmless */
};

struct seat {
	uint64_t epoch;        /* the member's, when it was taken */
	struct member *member;
	struct reader *reader;
	uint64_t tag;          /* incarnation << 32: the high half of our announcements */
	uint32_t index;
	int64_t alive;         /* the alive word that this thread holds; -1: none */
	word32 loads;          /* flights that name this seat as leader, permits, and load handles that refer to it */
	word32 abandoned;      /* its thread is gone, or its handle; freed after its last pin and load */
	bool listed;           /* it has its reader slot; both under the lock */
	bool threaded;         /* a thread points to it */
	uint32_t changes;      /* number of the last one; rcu.h */
	uint64_t random;       /* state of store.c's dice */
	struct seat *next;
	struct line *lines[];  /* by keyspace; NULL until counted */
};

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
/* Before anything that waits for a grace period of urcu-bp: a child of fork forgets the parent's threads. */
void registry_notice_fork(struct member *m);
/* The handle's end, or that of its use of this region: every seat is abandoned. May free `m`. No read-side section may be
 * open. */
void registry_close(struct member *m);
/* The calling thread's seat in a member before `m`, to be left before it joins; NULL: none. */
struct seat *registry_left_behind(struct member *m);
/* Something is in hand that needs this seat; ends with registry_settle(seat, 0) after registry_drop(). */
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

/* SHOAL_OK; SHOAL_ERR_LIMIT, SYSTEM; or REGISTRY_CORPSE: *dead is a reader whose thread died; recover it, call again; or
 * REGISTRY_MOVED: the process is too late for this region. */
enum { REGISTRY_CORPSE = 1, REGISTRY_MOVED };
int registry_join(struct member *m, struct seat **seat, uint64_t *dead);

/* A seat that is no thread's, in a region that the process is about to go to; without an alive word. */
int registry_guest(struct member *m, struct seat **seat);
void registry_end_guest(struct seat *seat);

/* The calling thread is done with its seat: freed now, or with its last pin and load. */
void registry_leave(struct seat *seat);
/* Clear a pin (0: none; a load has ended) of a seat that may be abandoned, from any thread of the process. Outside any
 * read-side section. */
void registry_settle(struct seat *seat, unsigned pin);

/* ---- life and death ---------------------------------------------------------------------------------------- */

enum registry_life {
	LIFE_ARMED,        /* alive, and its alive word tells at once when it dies */
	LIFE_UNARMED,      /* its process is alive; ask again in a while */
	LIFE_THREAD_DEAD,  /* died inside a call, in a process that lives */
	LIFE_PROCESS_DEAD,
	LIFE_GONE,         /* the slot has another owner, or none */
};

/* How is the reader that `ref` names? LIFE_ARMED: *word is what to sleep on and *seen what it held. */
enum registry_life registry_life(const struct member *m, uint64_t ref, const word32 **word, uint32_t *seen);
/* The process slot of a reader slot's present owner; any number. */
uint32_t registry_process(const struct segment *s, uint32_t reader);
/* The ref of a reader slot's present owner; 0 if free. */
uint64_t registry_ref(const struct member *m, uint32_t reader);

struct corpse {
	uint32_t process, incarnation;
	uint64_t owner;
};
/* The next process slot from *cursor on whose process is dead. */
bool registry_next_corpse(const struct member *m, uint32_t *cursor, struct corpse *corpse);
/* The next reader slot from *cursor on that the corpse holds. */
bool registry_next_reader(const struct member *m, const struct corpse *corpse, uint32_t *cursor, uint64_t *ref);

/* The next reader slot, by alive words from *cursor on, whose thread has died: its process may live. */
bool registry_next_dead_thread(const struct member *m, uint32_t *cursor, uint64_t *ref);

/* Clear its announcements below `words`; then, if none is left, free the slot: true if it did. */
bool registry_free_reader(const struct member *m, uint64_t ref, unsigned words);
void registry_free_process(const struct member *m, const struct corpse *corpse);
/* No process is left that lives, by the judgement of `m` on the region that it is in or on another one, `s`. */
bool registry_is_deserted(const struct member *m, const struct segment *s);

/* ---- counters ---------------------------------------------------------------------------------------------- */

/* This seat's counters of a keyspace; NULL if the segment has no line left (count in the record then). */
struct line *registry_line(struct seat *seat, uint32_t keyspace);
/* All of a keyspace, with what the regions before have counted. */
void registry_counts(const struct segment *s, uint32_t keyspace, uint64_t counts[COUNTER_COUNT]);
/* Hits that wrote a frequency, of all; likewise. */
uint64_t registry_touches(const struct segment *s);

#endif
