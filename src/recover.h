/* SPDX-License-Identifier: MIT */
/*
 * Death: what a dead process or thread held is given back, by whoever meets it. The registry says who is dead; this
 * file calls each floor's repair, in order, and frees the slots last.
 *
 *   operation        may run beside          another process is killed
 *   recover_all      everything, and itself  a recoverer's death changes nothing: every step is a CAS from the dead
 *                                            one's own words, and its slots are freed last, so the next one finds it
 */
#ifndef SHOAL_RECOVER_H
#define SHOAL_RECOVER_H

#include "move.h"

/* The slow half of handle_enter: follow a segment that was resized, join it, recovering the dead where slots are short.
 * Called inside a read-side section; returns a seat inside one, or NULL outside. */
struct seat *recover_enter(member_pointer *member, int *error);

/* Recover every dead process, and dead threads of living ones; how many processes there were. */
int recover_all(struct member *m);
/* The same, at most once a second per process: for those who meet something held and can't tell by whom. */
void recover_sometimes(struct member *m);

#endif
