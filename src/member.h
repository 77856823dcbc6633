/* SPDX-License-Identifier: MIT */
/*
 * One process's place in a region, and its threads' places: what the process keeps of them for itself, and how the
 * words in the segment tell whose they are.
 */
#ifndef SHOAL_MEMBER_H
#define SHOAL_MEMBER_H

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
 * One attached region of this process. The mapping goes when the handle is closed, or another region is used in its
 * place, and no value or load is in hand; the rest when the last thread that has a seat has left it or exited.
 */
struct member {
	struct segment segment;
	struct wiped *wiped;
	struct lineage *lineage;
	word32 users;        /* the handle, and each thread that has a seat */
	word64 recovered_ms; /* when this process last looked for the dead; recover.c's */
	bool closed;         /* under the lock, like what follows */
	word32 lock_fd;      /* + 1; it locks our slot's byte behind the region. In a child that hasn't
	                        noticed: the parent's */
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

/* ---- whose ------------------------------------------------------------------------------------------------- */

#define OWNER_PROCESS(owner) ((uint32_t)((owner) >> 16 & 0xffff))

/* The byte of the file that stands for a process slot: locked while its owner lives. */
static inline off_t member_lock_at(const struct geometry *g, uint32_t process)
{
	return (off_t)(g->offset + g->size + process);
}

/* How words in the segment name the reader slot that this seat has. */
static inline uint64_t member_ref(const struct seat *seat)
{
	return seat->tag | (seat->index + 1);
}

/* What the kernel marks when the thread that holds it dies. */
static inline word32 *member_alive_word(const struct alive *a)
{
	return (word32 *)(void *)&a->mutex;
}

#endif
