/* SPDX-License-Identifier: MIT */
/*
 * Bells: event loops sleep in no futex of a flight or permit. Each process has one word, on which a thread of its own
 * sleeps for all that it watches (watch.c). Who completes something sets bits there, and wakes it if there were none.
 *
 *   operation          may run beside    another process is killed
 *   bell_ring_reader   everything        between bit and wake: who is rung for looks by itself, after 250 ms at most
 *   bell_ring_some     everything        likewise; those who were not rung yet, too
 *
 * A ring is a hint, the words are the truth: what is watched has a number (of its flight or permit), and numbers share
 * bits.
 */
#ifndef SHOAL_BELL_H
#define SHOAL_BELL_H

#include "registry.h"

#define BELL_BITS 32u
#define BELL_BIT(number) ((uint32_t)1 << ((number) % BELL_BITS))

/* What to look at when it rang: nothing has come before one of these has changed, or the time is over. */
struct bell_words {
	const word64 *word;
	uint64_t word_seen;
	const word64 *watchers; /* our bit was taken: rung for, though the word may be as it was. NULL: none */
	uint64_t bit;
	bool is_first;       /* of this process, since it was taken */
	const word32 *low;   /* NULL: none */
	uint32_t low_seen;
	bool is_life;        /* `low` tells of a leader's death: nobody rings then, it is to be slept on */
	uint32_t number;
	uint64_t slice_ms;   /* look anew after this, whatever these say */
};

/* From now on this process's bell rings. Before it says so anywhere else. */
word32 *bell_listen(const struct member *m);

/* The process of that reader, which is to look at what those bits stand for. */
void bell_ring_reader(const struct segment *s, uint32_t reader, uint32_t bits);
/* All who listen. */
void bell_ring_everyone(const struct segment *s);

/* This process is to be rung. Then look at the word once more. */
void bell_add_watcher(const struct member *m, word64 *watchers, struct bell_words *words);
void bell_ring_these(const struct segment *s, word64 *watchers, uint32_t number, int n);

/* After the change, which was a CAS: up to n of the watchers, who are none any more. One load, if there are none:
 * seq_cst, and the CAS, too; partner: bell_add_watcher and the look after it. */
static inline void bell_ring_some(const struct segment *s, const word64 *watchers, uint32_t number, int n)
{
	if (unlikely(atomic_load((word64 *)watchers)))
		bell_ring_these(s, (word64 *)watchers, number, n);
}

#endif
