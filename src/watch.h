/* SPDX-License-Identifier: MIT */
/*
 * Watches: what loads that wait have in common in a process whose event loop must not sleep in them. One descriptor,
 * and one thread, which sleeps in its place (watch.c). Knows words, not loads: dispatch.c does the looking.
 *
 *   operation      may run beside    another process is killed
 *   watch_add ...  everything        no effect: all of this is private to the process
 *
 * All but watch_open, watch_close and watch_remove want the lock. No user code runs under it.
 */
#ifndef SHOAL_WATCH_H
#define SHOAL_WATCH_H

#include <pthread.h>
#include <urcu/list.h>

#include "bell.h"

#define WATCH_SOURCES 120u

/* A word that the thread sleeps on: our bell in a region, or a leader's life. */
struct watch_source {
	const word32 *word;  /* NULL: free */
	uint32_t seen;
	uint32_t users;      /* watches that need it; without any it may not be mapped, and is for the
	                        kernel to read only */
	uint32_t idle;       /* turns of the thread without any */
	uint32_t bits;       /* that it rings for, if it is a life */
	bool is_bell;
	bool slept_on;       /* the thread knows it */
	bool gone;           /* the life has ended */
};

#define WATCH_LISTS 16u /* of each class, which is a bit */

struct watch {
	pthread_mutex_t lock;
	uint64_t token;      /* of the process and handle that it belongs to */
	pid_t pid;
	unsigned users;      /* the handle, and who is in a dispatch */
	bool closed;
	int fd;
	bool helped;         /* fd is an eventfd, told by the thread; else a timerfd, ... */
	bool ticking;        /* ... which ticks */
	bool told;           /* the fd is readable, or about to be */
	pthread_t helper;
	word32 news;         /* counted up, for the thread to look at the rest anew */
	uint64_t sleeps_until;
	uint32_t rung;       /* bits taken off the bells, and not yet looked at */
	unsigned n;          /* that are watched */
	uint64_t again_ns;   /* the second look: after this the words are looked at again, whatever rang */
	struct cds_list_head due;
	unsigned n_due;
	uint64_t next_ns[BELL_BITS]; /* of each class: the earliest that one of it is to be looked at, or before */
	struct cds_list_head loads[BELL_BITS][WATCH_LISTS]; /* by the rest of their numbers:
	                                                       those of one flight lie in one */
	unsigned n_sources;  /* none is used from there on */
	struct watch_source sources[WATCH_SOURCES];
};

/* One that is watched; part of its load. */
struct watched {
	_Atomic(struct watch *) of; /* NULL: not watched; written under the lock */
	struct cds_list_head node;
	bool due;
	struct bell_words words;
	const struct segment *segment;
	struct watch_source *bell, *life;
	uint64_t next_ns, deadline_ns, began_ns;
	shoal_wake *wake;
	void *arg;
};

int watch_open(uint64_t token, struct watch **w);
/* What is watched is so no more. In a child of fork the parent's is left alone. */
void watch_close(struct watch *w, uint64_t token);
void watch_release(struct watch *w); /* unlocks; the last user frees it */
/* From any list it may be in; harmless if in none. Takes the lock. */
void watch_remove(struct watched *e);

/* It is watched by these words, of that member, from now on. */
void watch_add(struct watch *w, struct watched *e, const struct member *m);
/* ... or due at once. */
void watch_add_due(struct watch *w, struct watched *e);
/* Others of that flight, after flight_watch(): the bit that it has set had been taken. */
void watch_rouse(struct watch *w, const struct bell_words *words);
/* Out of its list, without an end of its being watched. */
void watch_take(struct watch *w, struct watched *e);
/* What rang, or whose time has come, to the due ones. */
void watch_collect(struct watch *w);
/* Something is due. */
void watch_tell(struct watch *w);
/* After a dispatch: what is still due, and when the next is. */
void watch_go_on(struct watch *w);

#endif
