/* SPDX-License-Identifier: MIT */
/*
 * Every interleaving: the engine's own code, a few threads with small scripts, and a scheduler that runs them in every
 * order, up to a number of preemptions.
 *
 * A thread here is a coroutine that acts as a process of its own, or some of them as one: its own handle, identity and
 * seat, one shared segment of some 20 KiB. All run on one kernel thread. Each access of a shared word is a point where
 * another may go on instead.
 *
 *   bounds    preemptions, counted as CHESS does (Musuvathi, Qadeer, PLDI 2007): a switch at a point costs one; one
 *             where a thread ends, sleeps or says spin_hint() is free. 0 first, then 1, 2 ...
 *   kill      at most one: before any shared write of a thread, or, of one that was preempted, before another looks
 *             whether it lives. It never runs again; the kernel's part is played by world.c
 *   TSO       stores wait in the thread's buffer, first in, first out, and it sees its own; a fence, a CAS, a system
 *             call empties it, membarrier() everybody's. Who reads a word that waits in another's buffer reads the new
 *             value or, `stale` times in an execution, the old one
 *
 * Two reductions. Nothing is preempted before an access to a word that no two threads touch, one of them writing; which
 * these are is learnt, and what was explored before a new one was found is explored again. And what leads to a state
 * that was met before, with no fewer preemptions left, is cut off: a state is all that shared memory holds, all that
 * waits in buffers, and for each thread all that it ever read, which determines where it stands and what it knows,
 * also what it added to counters that nobody decides on. States are noted at each choice, and where somebody goes on
 * after a switch; looked up there, and at each point where there is nothing to choose: to be switched back to at one
 * access or at a later one is the same when nothing in between has to do with the other. So of the interleavings that
 * are counted most end soon.
 *
 * Nothing is run twice, either: at each choice memory and stacks are copied, and the next execution goes on from the
 * last copy. A part of the executions is run again from the begin, and has to end in the same state.
 *
 * How far that goes is printed by mode: "all N interleavings up to 3 preemptions", or without any bound.
 * SHOAL_TEST_SECONDS is what all programs take, ten times over; with 7 s for a scenario and more, preemptions are
 * bounded by that time alone. At 60, which is CI's: 2,000 to 600,000 executions for each scenario, two or three
 * preemptions explored whole in most. At 800, 8 to 17 s of one core each: 90,000 to 450,000 executions a second, and
 * 0.7 to 7 million of them, up to three to ten preemptions; some end before, with all interleavings there are:
 * insert against delete, delete of duplicates, expire against delete, and without store buffers evict against read
 * and evict against delete.
 *
 * Not modelled: a resize (two regions, and a mapping that is replaced under urcu-bp, which is nothing here); orders
 * weaker than TSO (ARM); and of two buffered stores of two threads to one word the later flush wins. Plain bytes of
 * entries are copied by memcpy() in the engine: each copy is a point.
 */
#ifndef SHOAL_WEAVE_H
#define SHOAL_WEAVE_H

#include "store.h"
#include "room.h"

enum { WEAVE_THREADS = 3, WEAVE_OBSERVER = WEAVE_THREADS, WEAVE_PARTIES };

struct weave_config {
	uint32_t extents, extent_size, flights, readers, processes; /* 0: enough */
	uint32_t max_loads; /* 0: no bound */
	unsigned threads;   /* mask: they are one process, and what is private to it is shared between them */
	bool fence; /* a segment of a machine that refuses membarrier */
	uint32_t fresh_ms, stale_ms, lease_ms;
};

struct weave_scenario {
	const char *name;
	const char *holds; /* the invariants it is about, by their numbers in the headers and essays */
	struct weave_config config;
	void (*setup)(void);
	void (*thread[WEAVE_THREADS])(void);
	void (*check)(void);
	unsigned killable;  /* mask of threads; 0: nobody is killed */
	unsigned stale;     /* old values read under TSO; 0: that mode is passed by */
	unsigned deep;      /* preemptions that are explored at most, unless there is time without end; 0: 3 */
	uint64_t least;     /* executions, or it is no test */
	unsigned corpses;   /* mask of threads that have died in the setup */
	unsigned joins;     /* mask of threads that take their place in the segment by themselves */
	bool sleeps;        /* somebody may sleep till a deadline: no lost wake */
	bool slices;        /* likewise, but only where another has died: nothing wakes who waits for a
	                       permit of the dead */
};

int weave_main(int argc, char **argv, const struct weave_scenario *scenarios, unsigned n);

/* ---- for scripts and checks -------------------------------------------------------------------------------- */

void weave_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define weave_must(condition)                                                                                         \
	do {                                                                                                          \
		if (!(condition))                                                                                     \
			weave_fail("%s:%d: %s", __FILE__, __LINE__, #condition);                                      \
	} while (0)

unsigned weave_me(void);
bool weave_is_dead(unsigned thread);
uint64_t weave_now_ns(void);
void weave_pass_ms(uint64_t ms);
/* Are the bytes there? A plain read, and a point. */
uint64_t weave_read(const void *p);

/* ---- between weave.c and world.c --------------------------------------------------------------------------- */

struct weave_area {
	char *base; /* shared, then private; all of it is put back before each execution */
	size_t shared, size;
	uint32_t keys;         /* pseudo-words behind the shared ones: contents of extents */
	bool (*is_quiet)(const void *p);  /* nobody decides on it: counters */
	bool (*is_life)(const void *p);   /* tells of a thread's death */
	void (*written)(const void *p, uint64_t before, uint64_t value);
	void (*copied)(const void *p, size_t n, bool write);
	void (*switched)(unsigned from, unsigned to);
	void (*died)(unsigned thread);
	void (*spell)(const void *p, char *text, size_t capacity);
	int (*content)(const void *p);    /* which pseudo-word, or -1 */
	size_t (*in_use)(void);           /* bytes from the base on: what lies behind them is nobody's */
};
void weave_world(const struct weave_scenario *scenario, struct weave_area *area);
void weave_join(const struct weave_scenario *scenario); /* those who are there from the begin */
void weave_audit(void);

void weave_act_as(unsigned party); /* outside an execution */
void weave_set(volatile void *p, unsigned size, uint64_t value); /* by the kernel */
void weave_touch(unsigned pseudo, uint64_t change); /* contents changed: a write nobody has to stop before */
void weave_life(uint64_t seen_when_alive);          /* a point: somebody's life is looked at */
void weave_observe(uint64_t value);
void weave_barrier(void);
void weave_sleep(const void *a, uint32_t a_seen, const void *b, uint32_t b_seen, uint64_t deadline_ns);
int weave_wake(const void *w, int n);
uint64_t weave_clock(void);

#endif
