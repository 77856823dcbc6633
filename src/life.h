/* SPDX-License-Identifier: MIT */
/*
 * Who lives and who is dead, of the processes and threads of a segment, and what is freed of the dead.
 *
 *   operation            may run beside   another process is killed
 *   life_of              everything       says so
 *   life_next_*          everything       finds it, now or at the next look
 *   life_is_deserted     everything       it is no longer counted
 *   life_free_*          everything       no effect: each step is a CAS from the dead one's own word
 */
#ifndef SHOAL_LIFE_H
#define SHOAL_LIFE_H

#include "member.h"

enum life_state {
	LIFE_ARMED,        /* alive, and its alive word tells at once when it dies */
	LIFE_UNARMED,      /* its process is alive; ask again in a while */
	LIFE_THREAD_DEAD,  /* died inside a call, in a process that lives */
	LIFE_PROCESS_DEAD,
	LIFE_GONE,         /* the slot has another owner, or none */
};

/* The process slot of a reader slot's present owner; any number. */
uint32_t life_process(const struct segment *s, uint32_t reader);
/* The ref of a reader slot's present owner; 0 if free. */
uint64_t life_ref(const struct member *m, uint32_t reader);

/* How is the reader that `ref` names? LIFE_ARMED: *word is what to sleep on and *seen what it held. */
enum life_state life_of(const struct member *m, uint64_t ref, const word32 **word, uint32_t *seen);

struct corpse {
	uint32_t process, incarnation;
	uint64_t owner;
};
/* The next process slot from *cursor on whose process is dead. */
bool life_next_corpse(const struct member *m, uint32_t *cursor, struct corpse *corpse);
/* The next reader slot from *cursor on that the corpse holds. */
bool life_next_reader(const struct member *m, const struct corpse *corpse, uint32_t *cursor, uint64_t *ref);
/* The next reader slot, by alive words from *cursor on, whose thread has died: its process may live. */
bool life_next_dead_thread(const struct member *m, uint32_t *cursor, uint64_t *ref);

/* No process is left that lives, by the judgement of `m` on the region that it is in or on another one, `s`. */
bool life_is_deserted(const struct member *m, const struct segment *s);

/* Clear its announcements below `words`; then, if none is left, free the slot: true if it did. */
bool life_free_reader(const struct member *m, uint64_t ref, unsigned words);
void life_free_process(const struct member *m, const struct corpse *corpse);

#endif
