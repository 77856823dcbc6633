/* SPDX-License-Identifier: MIT */
/*
 * This process in a region: its slot, from the first operation on. A child of fork has none, and takes its own.
 *
 *   operation             may run beside                       another process is killed
 *   process_join          everything; under the member's lock  its half-made claim carries its identity
 *   process_free          likewise                             no effect
 *   process_notice_fork   everything; takes that lock          no effect
 */
#ifndef SHOAL_PROCESS_H
#define SHOAL_PROCESS_H

#include "member.h"

/* SHOAL_OK, also if it has joined before; SHOAL_ERR_LIMIT, LAYOUT, SYSTEM; PROCESS_MOVED: too late for this region. */
enum { PROCESS_MOVED = 1 };
int process_join(struct member *m);
void process_free(struct member *m);

/* Once for the program, before any handle: errno, or 0. */
int process_watch_forks(void);
/* Before anything that waits for a grace period of urcu-bp: a child of fork forgets the parent's threads. */
void process_notice_fork(struct member *m);

#endif
