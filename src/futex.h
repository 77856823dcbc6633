/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on shared words: the one wait loop of the tree. A wake is a hint, the words are the truth.
 */
#ifndef SHOAL_FUTEX_H
#define SHOAL_FUTEX_H

#include "atomic.h"

/*
 * Sleep until *a != a_seen, or b && *b != b_seen, or CLOCK_MONOTONIC reaches deadline_ns, or a wake: whichever is
 * first. May return early; the caller looks again.
 */
void futex_wait(const word32 *a, uint32_t a_seen, const word32 *b, uint32_t b_seen, uint64_t deadline_ns);

struct futex_word {
	const word32 *word;
	uint32_t seen;
};
#define FUTEX_WORDS 128u /* that one can sleep on at once */

/* Likewise on n words; if one of them is not mapped any more it returns at once. Where the kernel can't, it sleeps on
 * the first alone, for a slice. */
void futex_wait_any(const struct futex_word *words, unsigned n, uint64_t deadline_ns);

/* Wake up to n sleepers of a word, in any process; returns how many there were. */
int futex_wake(const word32 *w, int n);

#endif
