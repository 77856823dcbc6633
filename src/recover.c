/* SPDX-License-Identifier: MIT */
/*
 * Recovery, by kill point of the dead one:
 *
 *   inside a head lock       the lock is given back; the tail is consistent (log.h, L.1)
 *   OPEN extent, no head     sealed by the next who is short of room (log_sweep)
 *   EVICTING                 back to SEALED: what it had removed or moved stays so, the rest is evicted at its turn; a
 *                            copy that no slot points to is dead bytes
 *   CLAIMING ... OVERDUE     the flight goes to its waiters as an ORPHAN, or to FREE
 *   permits                  given back, or their place in the queue
 *   a resize                 thawed by who waits for it; the memory of the new region given back
 *   announcements, pins      cleared, then the reader slot is freed, then the process slot
 *
 * A thread that dies in a process that lives (it left by a raw exit, past its destructors) loses all but its pins:
 * values in hand belong to the process, any thread of which may release them.
 */
#include "flight.h"
#include "life.h"
#include "log.h"
#include "permit.h"
#include "proc.h"
#include "recover.h"

/* EVICTING of the dead reader: no one else may claim it while its owner lives, so the word tells. */
static void recover_extents(struct seat *nobody, uint64_t ref)
{
	const struct segment *s = &nobody->member->segment;
	uint32_t x;
	uint64_t word;

	for (x = 0; x < s->geometry.extents; x++) {
		word = extents_word(s, x);
		if (EXTENT_STATE(word) == EXTENT_EVICTING && EXTENT_OWNER(word) == REF_READER(ref) &&
		    EXTENT_OWNER_INCARNATION(word) == (REF_INCARNATION(ref) & 0xffff))
			extents_move(nobody, x, word, EXTENT_SEALED);
	}
}

/* Recovery needs no seat of its own: it may be what makes room for one. */
static void recover_held(struct member *m, uint64_t ref)
{
	struct seat nobody = {.member = m};

	log_recover(&m->segment, ref);
	recover_extents(&nobody, ref);
	flight_recover(&nobody, ref);
	permit_recover(m, ref);
}

/* Nobody may ever join by their alive words (R.4), nor be in want of what they hold. How many they were: more than
 * none, and a slot may be free. */
static int recover_threads(struct member *m)
{
	uint32_t cursor = 0;
	uint64_t ref;
	int found = 0;

	while (life_next_dead_thread(m, &cursor, &ref)) {
		recover_held(m, ref);
		found += life_free_reader(m, ref, PINS);
	}
	return found;
}

int recover_all(struct member *m)
{
	uint32_t cursor = 0, reader;
	struct corpse corpse;
	uint64_t ref;
	int found = 0;

	recover_threads(m);
	while (life_next_corpse(m, &cursor, &corpse)) {
		tell_of(&m->segment.listener, SHOAL_LOG_WARNING, "process %u is dead: what it held is recovered",
		        PROC_PID(corpse.owner));
		reader = 0;
		while (life_next_reader(m, &corpse, &reader, &ref)) {
			recover_held(m, ref);
			life_free_reader(m, ref, READER_WORDS);
		}
		life_free_process(m, &corpse);
		found++;
	}
	move_clean(m);
	return found;
}

void recover_sometimes(struct member *m)
{
	uint64_t now = clock_system_ns(CLOCK_MONOTONIC_COARSE) / 1000000, last = w64_peek(&m->recovered_ms);

	if (now - last >= 1000 && w64_cas(&m->recovered_ms, last, now))
		recover_all(m);
}

/* To the region that serves, without a seat of another one: OK, and inside a read-side section; else outside. */
static int settle_in(member_pointer *member)
{
	struct seat *left;
	int r;

	for (;;) {
		if (segment_has_moved(&move_member(member)->segment)) {
			r = move_follow(member);
			if (r)
				return r;
		} else if ((left = registry_left_behind(move_member(member)))) {
			urcu_bp_read_unlock();
			registry_leave(left);
		} else {
			return SHOAL_OK;
		}
		urcu_bp_read_lock();
	}
}

struct seat *recover_enter(member_pointer *member, int *error)
{
	struct member *m;
	struct seat *seat;
	uint64_t dead;
	int tries, alone = 0, r = SHOAL_ERR_LIMIT;

	for (tries = 0; tries < 100; tries++) {
		r = settle_in(member);
		if (r) {
			*error = r;
			return NULL;
		}
		m = move_member(member);
		seat = registry_here(m);
		if (seat)
			return seat;
		if (m->segment.read_only) {
			r = SHOAL_ERR_PERMISSION;
			break;
		}
		r = registry_join(m, &seat, &dead);
		if (r == SHOAL_OK)
			return seat;
		if (r == PROCESS_MOVED) {
			continue;
		} else if (r == REGISTRY_CORPSE && dead) {
			recover_held(m, dead);
			life_free_reader(m, dead, PINS);
		} else if (r != SHOAL_ERR_LIMIT || (!(recover_threads(m) + recover_all(m)) && alone++)) {
			/* nobody is dead, twice: the first time another may have recovered them just before us */
			break;
		}
	}
	urcu_bp_read_unlock();
	*error = r < 0 ? r : SHOAL_ERR_LIMIT;
	return NULL;
}
