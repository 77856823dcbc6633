/* SPDX-License-Identifier: MIT */
/*
 * Included in front of every engine file by the compiler (-include), so that the engine itself, line by line as it is
 * shipped, runs under the scheduler of weave.c: what atomic.h makes of C11 atomics goes there, and what the kernel and
 * libc do for floor 0 is done by world.c. Nothing above floor 0 is replaced.
 */
#ifndef SHOAL_WEAVE_INJECT_H
#define SHOAL_WEAVE_INJECT_H

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <urcu/urcu-bp.h>

/* ---- shared words: weave.c --------------------------------------------------------------------------------- */

uint64_t weave_load(const volatile void *p, unsigned size);
void weave_store(volatile void *p, unsigned size, uint64_t value);
bool weave_cas(volatile void *p, unsigned size, void *expected, uint64_t value);
uint64_t weave_add(volatile void *p, unsigned size, uint64_t n);
uint64_t weave_exchange(volatile void *p, unsigned size, uint64_t value);
uint64_t weave_or(volatile void *p, unsigned size, uint64_t bits);
void weave_fence(void);
void weave_yield(void);
void *weave_copy(void *to, const void *from, size_t n);

#undef atomic_load
#undef atomic_store
#undef atomic_exchange
#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_fetch_or
#undef atomic_thread_fence

#define atomic_load_explicit(p, order)                                                                                \
	__extension__({                                                                                               \
		__typeof__((void)0, *(p)) weave_value;                                                                \
		uint64_t weave_word = weave_load((p), sizeof(*(p)));                                                  \
		(memcpy)(&weave_value, &weave_word, sizeof(weave_value));                                             \
		weave_value;                                                                                          \
	})
#define atomic_store_explicit(p, v, order) weave_store((p), sizeof(*(p)), (uint64_t)(v))
#define atomic_load(p) atomic_load_explicit((p), memory_order_seq_cst) /* of x86: the store has the fence */
#define atomic_store(p, v) ((void)weave_exchange((p), sizeof(*(p)), (uint64_t)(v)))
#define atomic_exchange(p, v)                                                                                         \
	__extension__({                                                                                               \
		__typeof__((void)0, *(p)) weave_value;                                                                \
		uint64_t weave_word = weave_exchange((p), sizeof(*(p)), (uint64_t)(v));                               \
		(memcpy)(&weave_value, &weave_word, sizeof(weave_value));                                             \
		weave_value;                                                                                          \
	})
#define atomic_compare_exchange_strong(p, expected, v) weave_cas((p), sizeof(*(p)), (expected), (uint64_t)(v))
#define atomic_compare_exchange_weak(p, expected, v) weave_cas((p), sizeof(*(p)), (expected), (uint64_t)(v))
#define atomic_fetch_add(p, n)                                                                                         \
	__extension__({ (__typeof__((void)0, *(p)))weave_add((p), sizeof(*(p)), (uint64_t)(n)); })
#define atomic_fetch_sub(p, n)                                                                                         \
	__extension__({ (__typeof__((void)0, *(p)))weave_add((p), sizeof(*(p)), -(uint64_t)(n)); })
#define atomic_fetch_or(p, n) weave_or((p), sizeof(*(p)), (uint64_t)(n))
#define atomic_thread_fence(order) weave_fence()

/* The loop of w64_match8: a look at each word of its own, not SSE2's at eight of them. */
#undef __SSE2__

/* ---- the machine: world.c ---------------------------------------------------------------------------------- */

void *weave_getspecific(pthread_key_t key);
int weave_setspecific(pthread_key_t key, const void *value);
int weave_mutex_lock(pthread_mutex_t *m);
int weave_mutex_trylock(pthread_mutex_t *m);
int weave_mutex_unlock(pthread_mutex_t *m);
long weave_syscall(long number, ...);
ssize_t weave_getrandom(void *to, size_t n, unsigned flags);
int weave_clock_gettime(clockid_t id, struct timespec *t);
void *weave_calloc(size_t n, size_t size);
void weave_free(void *p);

#define pthread_getspecific weave_getspecific
#define pthread_setspecific weave_setspecific
#define pthread_mutex_lock weave_mutex_lock
#define pthread_mutex_trylock weave_mutex_trylock
#define pthread_mutex_unlock weave_mutex_unlock
#define pthread_mutex_consistent(m) ((void)0)
#define syscall weave_syscall
#define getrandom weave_getrandom
#define clock_gettime weave_clock_gettime
#define calloc weave_calloc
#define malloc(n) weave_calloc(1, (n))
#define free weave_free
#define memcpy weave_copy
#define sched_yield weave_yield
#define __builtin_ia32_pause weave_yield /* spin_hint() */

/* Watches without a thread, and with a timer that tells nothing: who waits sleeps on the bell itself. */
#define eventfd(count, flags) (-1)
#define timerfd_create(clock, flags) (1 << 20)
#define timerfd_settime(fd, flags, new, old) weave_no_timer(new)

static inline void weave_no_timer(const void *new)
{
	(void)new;
}

/* A mapping is never replaced here. */
#define urcu_bp_read_lock() ((void)0)
#define urcu_bp_read_unlock() ((void)0)
#define urcu_bp_synchronize_rcu() ((void)0)
#undef rcu_dereference
#define rcu_dereference(p) (p)

#endif
