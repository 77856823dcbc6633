/* SPDX-License-Identifier: MIT */
/*
 * One process, instruction by instruction. The parent steps a child over a shared segment and compares the segment with
 * what it was an instruction before: all tables, and the extents that somebody but itself announces. It may look at
 * each state, let others do to the segment what they like, put it back, and step on: the child notices nothing.
 *
 * A state is told from another by a hash of all but the counters. One that differs in bytes of an extent alone is
 * counted apart: there the child copies a value that nothing points to yet.
 */
#ifndef SHOAL_TEST_STEPPER_H
#define SHOAL_TEST_STEPPER_H

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/stat.h>
#include <sys/user.h>

#include "hash.h"
#include "proc.h"
#include "traced.h"

#define STEPPER_SEEN (1u << 16) /* power of two */
#define STEPPER_MOST 4000000u   /* instructions of one operation */

struct stepper {
	const struct segment *segment;
	const word32 *done;  /* the child has ended its operation */
	pid_t pid, tid;
	uint32_t self;       /* our own reader slot */
	char *last, *kept;   /* the segment: as compared last, and to be put back */
	uint64_t *seen;
	uint64_t steps;
	unsigned states;     /* distinct ones of the tables */
	unsigned copying;    /* of an extent's bytes alone */
	bool tables;         /* the last new state was one of the tables */
	uint64_t *trail;     /* the address of the next instruction, after each step */
	bool regions;        /* it may build others, behind this one in the file */
	struct segment *next; /* the one it has moved to, and its tables as compared last */
	char *next_last;
	char *behind;        /* these, as kept */
	uint64_t behind_size;
	void (*settle)(void); /* while a step blocked others have acted: until they are done; or NULL */
};

static void stepper_begin(struct stepper *t, const struct segment *s, uint32_t self, const word32 *done)
{
	*t = (struct stepper){.segment = s, .self = self, .done = done};
	t->last = malloc(s->geometry.size);
	t->kept = malloc(s->geometry.size);
	t->seen = calloc(STEPPER_SEEN, sizeof(*t->seen));
	t->trail = mmap(NULL, STEPPER_MOST * sizeof(*t->trail), PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!t->last || !t->kept || !t->seen || t->trail == MAP_FAILED)
		abort();
	memcpy(t->last, s->base, s->geometry.size);
}

static void stepper_end(struct stepper *t)
{
	if (t->pid)
		crew_kill(t->pid);
	free(t->last);
	free(t->kept);
	free(t->seen);
	free(t->behind);
	free(t->next_last);
	if (t->next)
		segment_end_glance(t->next);
	munmap(t->trail, STEPPER_MOST * sizeof(*t->trail));
}

/* ---- the child --------------------------------------------------------------------------------------------- */

/* And those are done who acted while the step blocked. */
static enum stepped stepper_await(const struct stepper *t, int signal)
{
	enum stepped r = traced_await(t->tid, signal);

	if (t->settle)
		t->settle();
	return r;
}

/* The child submits itself; `tid`: or a thread of it, which has said who it is. */
static enum stepped stepper_take(struct stepper *t, pid_t pid, word32 *tid)
{
	t->pid = pid;
	t->tid = pid;
	if (tid && crew_await(tid, 1)) /* in vain, where it is refused: then its process has ended */
		t->tid = (pid_t)w32_load(tid);
	return stepper_await(t, SIGSTOP);
}

/* Without a look, to the end of its operation. */
static CREW_UNUSED bool stepper_finish(const struct stepper *t)
{
	if (ptrace(PTRACE_CONT, t->tid, 0, 0))
		return false;
	stepper_await(t, SIGSTOP);
	return w32_load(t->done);
}

/* ---- what is new ------------------------------------------------------------------------------------------- */

/* Where it has moved to. */
static struct segment *stepper_next_region(const struct segment *s)
{
	uint64_t moved = w64_load(&s->header->moved);

	return MOVED_STATE(moved) == MOVED ? segment_glance(s, MOVED_NUMBER(moved) * PAGE) : NULL;
}

static bool stepper_differs(struct stepper *t, uint64_t at, uint64_t size)
{
	if (!memcmp(t->last + at, t->segment->base + at, size))
		return false;
	memcpy(t->last + at, t->segment->base + at, size);
	return true;
}

/* From here on: what was before is no change. */
static CREW_UNUSED void stepper_look_anew(struct stepper *t)
{
	memcpy(t->last, t->segment->base, t->segment->geometry.size);
}

/* The extents that others announce. */
static bool stepper_copies(struct stepper *t)
{
	const struct segment *s = t->segment;
	uint32_t r, w, x;
	bool differs = false;

	for (r = 0; r < s->geometry.readers; r++) {
		if (r == t->self || !w64_peek(&s->readers[r].owner))
			continue;
		for (w = WRITING; w < READER_WORDS; w++) {
			x = (uint32_t)w64_peek(&s->readers[r].words[w]) - 1;
			if (x < s->geometry.extents)
				differs |= stepper_differs(
					t, s->geometry.log_at + (uint64_t)x * s->geometry.extent_size,
					s->geometry.extent_size);
		}
	}
	return differs;
}

static bool stepper_is_new(struct stepper *t, uint64_t hash)
{
	uint64_t i;

	hash |= !hash;
	for (i = hash; t->seen[i % STEPPER_SEEN]; i++)
		if (t->seen[i % STEPPER_SEEN] == hash)
			return false;
	t->seen[i % STEPPER_SEEN] = hash;
	return true;
}

/* The tables but the counters. */
static uint64_t stepper_hash(const struct stepper *t)
{
	const struct geometry *g = &t->segment->geometry;
	uint64_t sum = hash_bytes(t->last, g->keyspaces_at, 1);
	uint32_t k;

	if (t->next)
		sum = hash_bytes(t->next_last, t->next->geometry.keyspaces_at, sum);
	for (k = 0; k < g->keyspaces; k++)
		sum = hash_bytes(t->last + g->keyspaces_at + k * sizeof(struct keyspace),
		                 offsetof(struct keyspace, counters), sum);
	return hash_bytes(t->last + g->extents_at, g->log_at - g->extents_at, sum);
}

/* Of the region it has moved to: who is there. */
static bool stepper_next_differs(struct stepper *t)
{
	uint64_t size;

	if (!t->regions || (!t->next && !(t->next = stepper_next_region(t->segment))))
		return false;
	size = t->next->geometry.keyspaces_at;
	if (!t->next_last)
		t->next_last = calloc(1, size);
	if (!memcmp(t->next_last, t->next->base, size))
		return false;
	memcpy(t->next_last, t->next->base, size);
	return true;
}

static bool stepper_look(struct stepper *t)
{
	bool next = stepper_next_differs(t);
	bool tables = stepper_differs(t, 0, t->segment->geometry.log_at) || next, bytes = stepper_copies(t);

	t->tables = tables && stepper_is_new(t, stepper_hash(t));
	if (!t->tables && !bytes)
		return false;
	if (t->states + t->copying >= STEPPER_SEEN / 2)
		return false;
	t->states += t->tables;
	t->copying += !t->tables;
	return true;
}

#ifdef __x86_64__
static uint64_t stepper_at(const struct stepper *t)
{
	return (uint64_t)ptrace(PTRACE_PEEKUSER, t->tid, offsetof(struct user, regs.rip), 0);
}

static bool stepper_break_at(const struct stepper *t, uint64_t address)
{
	return !ptrace(PTRACE_POKEUSER, t->tid, offsetof(struct user, u_debugreg[0]), address) &&
	       !ptrace(PTRACE_POKEUSER, t->tid, offsetof(struct user, u_debugreg[7]), 1);
}
#else
static uint64_t stepper_at(const struct stepper *t)
{
	return 0;
}

static bool stepper_break_at(const struct stepper *t, uint64_t address)
{
	return false;
}
#endif

/* A place in an operation: before the instruction at that address, which is come to the n-th time. Another child of the
 * same parent has it at the same address. */
struct point {
	uint64_t address, steps;
	unsigned times;
};

/* A string instruction is stepped through in pieces, but come to once. */
static CREW_UNUSED struct point stepper_point(const uint64_t *trail, uint64_t steps)
{
	struct point p = {.address = trail[steps - 1], .steps = steps};
	uint64_t i;

	for (i = 0; i < steps; i++)
		p.times += trail[i] == p.address && !(i && trail[i - 1] == p.address);
	return p;
}

/* At full speed, by a breakpoint of the processor; where there is none, by steps. False: it ended before, as nothing
 * makes it take the same way each time. */
static CREW_UNUSED bool stepper_run_to(struct stepper *t, struct point p)
{
	bool fast = p.address && stepper_break_at(t, p.address);
	uint64_t i, n = fast ? p.times : p.steps;

	for (i = 0; i < n && !w32_load(t->done); i++)
		if (ptrace(fast ? PTRACE_CONT : PTRACE_SINGLESTEP, t->tid, 0, 0) ||
		    stepper_await(t, SIGTRAP) != STEP_MADE)
			return false;
	if (fast)
		stepper_break_at(t, 0);
	t->steps = p.steps;
	return !w32_load(t->done);
}

/* To the next state that has not been seen. */
static enum stepped stepper_next(struct stepper *t)
{
	enum stepped r;

	while (!w32_load(t->done)) {
		if (t->steps >= STEPPER_MOST || ptrace(PTRACE_SINGLESTEP, t->tid, 0, 0))
			return STEP_LOST;
		r = stepper_await(t, SIGTRAP);
		if (r != STEP_MADE)
			return r;
		t->trail[t->steps++] = stepper_at(t);
		if (stepper_look(t))
			return STEP_MADE;
	}
	return STEP_ENDED;
}

/* ---- the segment as it was --------------------------------------------------------------------------------- */

static void stepper_clear_behind(const struct segment *s)
{
	struct stat st;

	if (!fstat(segment_fd(s), &st) && (uint64_t)st.st_size > s->geometry.size)
		fallocate(segment_fd(s), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)s->geometry.size,
			  st.st_size - (off_t)s->geometry.size);
}

static void stepper_keep_behind(struct stepper *t)
{
	uint64_t size = t->segment->geometry.size;
	struct stat st;

	if (fstat(segment_fd(t->segment), &st))
		abort();
	t->behind_size = (uint64_t)st.st_size - size;
	t->behind = realloc(t->behind, t->behind_size + 1);
	if (pread(segment_fd(t->segment), t->behind, t->behind_size, (off_t)size) != (ssize_t)t->behind_size)
		abort();
}

/* Pages that nobody has written stay holes. */
static void stepper_put_behind_back(const struct stepper *t)
{
	static const char zero[4096];
	uint64_t at, n, size = t->segment->geometry.size;

	stepper_clear_behind(t->segment);
	for (at = 0; at < t->behind_size; at += n) {
		n = min_u64(t->behind_size - at, sizeof(zero));
		if (memcmp(t->behind + at, zero, n) &&
		    pwrite(segment_fd(t->segment), t->behind + at, n, (off_t)(size + at)) != (ssize_t)n)
			abort();
	}
}

/* While nobody runs. Alive words, too: who holds one is stopped, and finds it as it left it. */
static void stepper_keep(struct stepper *t)
{
	memcpy(t->kept, t->segment->base, t->segment->geometry.size);
	if (t->regions)
		stepper_keep_behind(t);
}

static void stepper_put_back(const struct stepper *t)
{
	memcpy(t->segment->base, t->kept, t->segment->geometry.size);
	if (t->regions)
		stepper_put_behind_back(t);
}

/* What the kernel does to the alive words of a thread that dies. */
static CREW_UNUSED void stepper_declare_thread_dead(const struct segment *s, pid_t pid, pid_t tid)
{
	struct segment *next = stepper_next_region(s);
	uint32_t i, word;
	word32 *alive;

	if (next) {
		stepper_declare_thread_dead(next, pid, tid);
		segment_end_glance(next);
	}
	for (i = 0; i < s->geometry.readers; i++) {
		alive = (word32 *)(void *)&s->alive[i].mutex;
		word = w32_load(alive);
		if ((word & FUTEX_TID_MASK) == (uint32_t)tid || (word & FUTEX_TID_MASK) == (uint32_t)pid)
			w32_store(alive, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
	}
}

/* The process is dead, as far as the segment says: its slot is that of another one that had its pid. Returns how many
 * process slots it had. */
static CREW_UNUSED int stepper_declare_dead(const struct segment *s, pid_t pid, pid_t tid)
{
	struct segment *next = stepper_next_region(s);
	uint32_t i;
	int n = 0;

	stepper_declare_thread_dead(s, pid, tid);
	if (next)
		n = stepper_declare_dead(next, pid, tid);
	for (i = 0; i < s->geometry.processes; i++) {
		uint64_t owner = w64_load(&s->processes[i].owner);

		if (!owner || PROC_PID(owner) != (uint32_t)pid)
			continue;
		w64_store(&s->processes[i].owner, owner ^ (uint64_t)1 << 22);
		n += !next; /* of the region that serves */
	}
	if (next)
		segment_end_glance(next);
	return n;
}

#endif
