/* SPDX-License-Identifier: MIT */
/*
 * Which region a call works in, while one takes another's place (resize.c): waiting while one is frozen, following to
 * the next, and giving back what nobody uses any more.
 *
 *   operation         may run beside    another process is killed
 *   move_wait         everything        a dead resizer's freeze is ended
 *   move_follow       everything        no effect; several threads of one process: one of them wins
 *   move_clean        everything        each step may be done twice, also late
 */
#ifndef SHOAL_MOVE_H
#define SHOAL_MOVE_H

#include "rcu.h"

typedef _Atomic(struct member *) member_pointer;

/* In a read-side section, of urcu-bp. */
static inline struct member *move_member(const member_pointer *member)
{
	return atomic_load_explicit((member_pointer *)member, memory_order_acquire);
}

/* Called inside a read-side section that found the region moved; returns outside of it. SHOAL_OK: look again. */
int move_follow(member_pointer *member);

/* Put a member in the place of one that has moved, and close that one. Likewise. False: another was first; `to` is
 * closed. */
bool move_replace(member_pointer *member, struct member *from, struct member *to);

/* The region is frozen, as `word` says: until it isn't. Ends the freeze of a resizer that is dead, or stands still. */
void move_wait(const struct member *m, uint64_t word);

/* The word can't be: set it right. */
bool move_mend(const struct member *m, uint64_t word);

/* It is frozen or has moved: wait for the outcome. False: it has moved. */
bool move_spared(const struct member *m);

/* What `from` and the regions before it have counted is told to the very next region, which nobody has been in. */
void move_inherit_next(const struct segment *from, const struct segment *to);

/* Regions before this one that nobody uses any more are given back, and what a dead resizer has left. */
void move_clean(struct member *m);

#endif
