/* SPDX-License-Identifier: MIT */
/*
 * Room for entries: reserve space in the log, and evict when it is short. This is one of the two places where a cache
 * grows cycles, so it is said once: the coordinator asks the policy for a victim, walks its entries, has the index move
 * or drop each, and hands the extent to rcu.
 *
 * Ahead of need: who opens an extent sees to it that evict_reserve() of them are free, or sets header.room_wanted for
 * the next writer. A call walks one extent at most, unless none is free at all. That bounds a writer's pause.
 *
 *   operation         may run beside    another process is killed
 *   room_reserve      everything        its half-written entries are dead bytes until their extent goes
 *   room_make         everything        EVICTING: back to SEALED by recovery, what it had moved or dropped stays so
 */
#ifndef SHOAL_ROOM_H
#define SHOAL_ROOM_H

#include "evict.h"
#include "index.h"
#include "recover.h"

/* Which log the key's next value belongs to. Asked once for each value: it takes the key from among the ghosts. */
enum log_kind room_kind(const struct segment *s, const struct key *key, size_t value_size);
/* Likewise, when index_guess() has said `word`. */
enum log_kind room_kind_guessed(const struct segment *s, const struct key *key, size_t value_size, uint64_t word);

/* Space for an entry, announced in `word`. SHOAL_ERR_TOO_BIG, NO_SPACE. Nothing else may be announced in READING,
 * OTHER, WALKING or COPYING. */
int room_reserve(struct seat *seat, unsigned word, enum log_kind kind, size_t key_size, size_t value_size,
                 uint64_t *offset);

/* Evict one extent, if the reserve is not full. */
void room_make(struct seat *seat);

#endif
