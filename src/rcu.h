/* SPDX-License-Identifier: MIT */
/*
 * Read-copy-update for the segment: liburcu's membarrier flavor with its state in the segment, and one grace period
 * per extent, so that a stopped reader holds back one extent and not the whole cache.
 *
 *   reader                                      reclaimer (extent X: no index slot points to it any more)
 *   word = load(index slot)                     membarrier(GLOBAL_EXPEDITED)
 *   announce(extent of word)                    any live reader's word announces X ? try later : X is free
 *   compiler barrier
 *   load(index slot) == word ? read : again
 *   store-release of 0 to the announcement
 *
 * Either the reclaimer's scan sees the announcement, or the reader's second load sees that the slot has changed:
 * membarrier puts a full fence into every running thread of every registered process, between the two halves. In fence
 * mode the reader has one of its own instead.
 *
 *   operation         may run beside     another process is killed
 *   rcu_announce      everything         its announcements stay until the registry frees its slots
 *   rcu_clear         everything         no effect
 *   rcu_announced     everything         may see the dead one's announcement: the extent waits for the recovery
 */
#ifndef SHOAL_RCU_H
#define SHOAL_RCU_H

#include "registry.h"

/* In its final word at once: an announcement never moves to another word, or a scan could miss it in between. */
static inline void rcu_announce(const struct seat *seat, unsigned word, uint32_t extent)
{
	w64_poke(&seat->reader->words[word], seat->tag | (extent + 1));
	if (unlikely(seat->member->segment.fence))
		barrier_full(); /* partner: the fence in rcu_barrier */
	else
		barrier_light(); /* partner: the membarrier in rcu_barrier */
}

/* Release: what was read in the extent was read before it may be reused (partner: the loads of rcu_announced). */
static inline void rcu_clear(const struct seat *seat, unsigned word)
{
	w64_store(&seat->reader->words[word], 0);
}

/* A pin word that is free, or 0. */
static inline unsigned rcu_free_pin(const struct seat *seat)
{
	unsigned i;

	for (i = PINS; i < READER_WORDS; i++)
		if (!w64_peek(&seat->reader->words[i]))
			return i;
	return 0;
}

/* How many extents are held by pins, about; *readers: by how many threads they could be. */
uint32_t rcu_pinned(const struct segment *s, uint32_t *readers);

/*
 * Changes of the region are announced likewise, so that a resize can wait for those that began before it froze the
 * region: either it sees the announcement, or the changer sees the freeze. (Partner: the barrier of rcu_barrier.)
 */
static inline void rcu_change(struct seat *seat)
{
	seat->changes += 2; /* even */
	w64_poke(&seat->reader->changing, seat->tag | (seat->changes ? seat->changes : (seat->changes = 2)));
	if (unlikely(seat->member->segment.fence))
		barrier_full();
	else
		barrier_light();
}

static inline void rcu_changed(const struct seat *seat)
{
	w64_store(&seat->reader->changing, 0);
}

#define CHANGE_GIVEN_UP 1u /* by who waited for it to end */

/* The end, where the region isn't what it was. True: it was given up. */
static inline bool rcu_changed_late(const struct seat *seat)
{
	return atomic_exchange(&seat->reader->changing, 0) & CHANGE_GIVEN_UP;
}

/* What every thread wrote before, it is seen to have written; what it reads after, it reads anew. An error: refused. */
int rcu_barrier(const struct segment *s);

/* Which of n extents does a reader announce in its words from `from_word` on? held[i] is set. An error: the barrier was
 * refused, and all count as held. What `self` itself walks is passed over. */
int rcu_announced(const struct segment *s, const struct seat *self, unsigned from_word, const uint32_t *extents,
                  unsigned n, bool *held);

#endif
