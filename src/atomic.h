/* SPDX-License-Identifier: MIT */
/*
 * The ordering words: every word that two processes share goes through these, so that ThreadSanitizer sees them and a
 * scheduler can be put in their place; or, where it takes a sequentially consistent load, an exchange or an OR, through
 * <stdatomic.h>, and the place says why.
 *
 *   peek / poke    relaxed: nobody decides on it, or the decision is re-checked by a CAS or a fence that is named there
 *   load / store   acquire / release: what was written before the store is seen after the load
 *   cas, add       sequentially consistent. On x86 and on ARMv8.1 that costs what acquire-release does, and it
 *                  shortens every proof of the kind "I changed mine, then looked at yours".
 */
#ifndef SHOAL_ATOMIC_H
#define SHOAL_ATOMIC_H

#include <stdatomic.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base.h"

typedef _Atomic uint64_t word64;
typedef _Atomic uint32_t word32;

_Static_assert(sizeof(word64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit words must be lock-free");
_Static_assert(sizeof(word32) == 4 && ATOMIC_INT_LOCK_FREE == 2, "32-bit words must be lock-free");

#define WORD_OPERATIONS(name, word, value)                                                                            \
	static inline value name##_peek(const word *w)                                                                \
	{                                                                                                             \
		return atomic_load_explicit((word *)w, memory_order_relaxed);                                         \
	}                                                                                                             \
	static inline void name##_poke(word *w, value v)                                                              \
	{                                                                                                             \
		atomic_store_explicit(w, v, memory_order_relaxed);                                                    \
	}                                                                                                             \
	static inline value name##_load(const word *w)                                                                \
	{                                                                                                             \
		return atomic_load_explicit((word *)w, memory_order_acquire);                                         \
	}                                                                                                             \
	static inline void name##_store(word *w, value v)                                                             \
	{                                                                                                             \
		atomic_store_explicit(w, v, memory_order_release);                                                    \
	}                                                                                                             \
	static inline bool name##_cas(word *w, value from, value to)                                                  \
	{                                                                                                             \
		return atomic_compare_exchange_strong(w, &from, to);                                                  \
	}                                                                                                             \
	/* returns the value before */                                                                                \
	static inline value name##_add(word *w, value n)                                                              \
	{                                                                                                             \
		return atomic_fetch_add(w, n);                                                                        \
	}                                                                                                             \
	static inline value name##_sub(word *w, value n)                                                              \
	{                                                                                                             \
		return atomic_fetch_sub(w, n);                                                                        \
	}                                                                                                             \
	/* a counter with one writer: exact without a locked instruction */                                           \
	static inline void name##_bump(word *w, value n)                                                              \
	{                                                                                                             \
		name##_poke(w, name##_peek(w) + n);                                                                   \
	}                                                                                                             \
	static inline void name##_max(word *w, value v)                                                               \
	{                                                                                                             \
		value now = name##_peek(w);                                                                           \
		while (now < v && !atomic_compare_exchange_weak(w, &now, v))                                          \
			;                                                                                             \
	}

WORD_OPERATIONS(w64, word64, uint64_t)
WORD_OPERATIONS(w32, word32, uint32_t)

/*
 * Which of eight adjacent words have `top` above bit `shift`, at least 32: a relaxed look at all of
 * them. By SSE2, which every x86-64 has; a lane is loaded whole there. Of a hit (20-byte key, 100 bytes, 10 k keys; the
 * least ns of many runs that took turns; isolated: each waits for the one before):
 *
 *               instructions    ns    isolated
 *   one by one        387      40.8     54.1
 *   SSE2              308      35.5     51.6
 *   AVX2              316      35.7     50.9    it clears the upper halves before it calls memcpy,
 *                                              and not every machine has it
 */
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
static inline unsigned w64_match8(const word64 *w, int shift, uint32_t top)
{
	const __m128 *v = (const __m128 *)(const void *)w;
	__m128i wanted = _mm_set1_epi32((int)top), a, b;

#define HIGH_HALVES(i) _mm_castps_si128(_mm_shuffle_ps(v[i], v[(i) + 1], _MM_SHUFFLE(3, 1, 3, 1)))
	a = _mm_cmpeq_epi32(_mm_srli_epi32(HIGH_HALVES(0), shift - 32), wanted);
	b = _mm_cmpeq_epi32(_mm_srli_epi32(HIGH_HALVES(2), shift - 32), wanted);
#undef HIGH_HALVES
	return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(a, b), _mm_setzero_si128()));
}
#else
static inline unsigned w64_match8(const word64 *w, int shift, uint32_t top)
{
	unsigned i, found = 0;

	for (i = 0; i < 8; i++)
		found |= (unsigned)(w64_peek(&w[i]) >> shift == top) << i;
	return found;
}
#endif

/* The reader's half of the asymmetric barrier: the reclaimer's half is membarrier() (rcu.c). */
static inline void barrier_light(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void barrier_full(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

static inline void spin_hint(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#else
	barrier_light();
#endif
}

#endif
