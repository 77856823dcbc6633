/* SPDX-License-Identifier: MIT */
/* The scheduler and the search: see weave.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "weave.h"

#undef malloc
#undef calloc
#undef free
#undef memcpy
#undef clock_gettime

#define STACK ((size_t)256 << 10)
#define DEPTH 4096u
#define STEPS_MOST 60000u /* of one execution: more is no progress */
#define BUFFER 32u
#define VISITED_BITS_LEAST 12
#define VISITED_BITS_MOST 24 /* 128 MiB; beyond that states are forgotten, and met again */
#define BEGIN_NS (UINT64_C(1000) * 1000000000)
#define DEEPEST 12u
#define NIGHTLY 7 /* seconds for a scenario from which on preemptions are not bounded by its `deep` */

enum life { READY, SLEEPING, ENDED, DEAD };

struct pending {
	volatile void *p;
	unsigned size;
	uint64_t value;
};

struct thread {
	void *sp;
	char *stack;
	enum life life;
	bool begun, woken;
	uint64_t seen; /* digest of all it ever read */
	const void *a, *b;
	uint64_t deadline;
	unsigned stored;
	struct pending buffer[BUFFER];
};

struct cell {
	uint8_t touched, written; /* masks of threads */
	bool shared;              /* between two, and written: as the present pass knows it */
	bool quiet;
};

enum ending { RUNNING, WHOLE, CUT, FAILED };

/* An execution as far as it has come, but for memory and stacks. */
struct now {
	struct thread threads[WEAVE_PARTIES];
	struct thread *self; /* NULL: outside */
	unsigned party;      /* who acts, outside, too */
	unsigned preemptions_left, kills_left, stales_left, steps, slept;
	uint64_t memory; /* digest */
	uint64_t now_ns;
};

/* Where a choice was made: the execution goes on from there as another, without the way to it. */
struct mark {
	struct now now; /* self: who chose, NULL at the begin */
	char *bytes;    /* memory, then the stacks of those who go on */
	size_t capacity, memory;
};

static struct {
	const struct weave_scenario *scenario;
	struct weave_area area;
	char *image;
	uint64_t begin_ns; /* the clock of the image */
	struct cell *keys;
	uint32_t words, n_keys;
	/* the pass */
	unsigned preemptions, kills, stales;
	bool tso;
	bool grew;    /* a word turned out to be shared */
	bool refused; /* a choice was not had for want of budget */
	struct {
		uint8_t n, at;
	} decided[DEPTH];
	unsigned depth, decisions, replayed;
	uint64_t *visited, mask, n_visited;
	struct mark marks[DEPTH];
	/* the execution */
	struct now n;
	void *main_sp;
	bool marking; /* back to whoever chose, after a mark */
	enum ending ending;
	bool replaying; /* by what was decided, from the begin */
	bool trace;
	char message[512];
	/* the count */
	uint64_t executions, cut, states;
	uint64_t in_pass; /* executions of the pass */
} w;

/* ---- coroutines -------------------------------------------------------------------------------------------- */

#if !defined(__x86_64__)
#error "weave_swap() is written for x86-64"
#endif
void weave_swap(void **from, void *to);
__asm__(".text\n"
	".globl weave_swap\n"
	".type weave_swap, @function\n"
	"weave_swap:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	".size weave_swap, . - weave_swap\n");

static unsigned number(const struct thread *t)
{
	return (unsigned)(t - w.n.threads);
}

static void act_as(unsigned party)
{
	if (party != w.n.party)
		w.area.switched(w.n.party, party);
	w.n.party = party;
}

static void arrive(void);

static void go_to(struct thread *to)
{
	struct thread *from = w.n.self;

	if (to == from)
		return;
	act_as(number(to));
	w.n.self = to;
	arrive();
	weave_swap(from ? &from->sp : &w.main_sp, to->sp);
}

/* Out of the execution, for good. */
static void leave(enum ending ending)
{
	void *sp;

	w.ending = ending;
	w.n.self = NULL;
	weave_swap(&sp, w.main_sp);
}

/* ---- digests ----------------------------------------------------------------------------------------------- */

static inline uint64_t mix(uint64_t a, uint64_t b)
{
	a = ((a + UINT64_C(0x9fb21c651e98df25)) ^ b) * UINT64_C(0x9e3779b97f4a7c15);
	a ^= a >> 29;
	a *= UINT64_C(0xbf58476d1ce4e5b9);
	return a ^ a >> 32;
}

static uint64_t state(unsigned salt)
{
	uint64_t h = mix(w.n.memory, w.n.now_ns);
	unsigned i, j;

	for (i = 0; i < WEAVE_THREADS; i++) {
		const struct thread *t = &w.n.threads[i];

		h = mix(h, t->seen + (uint64_t)t->life * 3 + t->woken);
		for (j = 0; j < t->stored; j++)
			h = mix(mix(h, (uintptr_t)t->buffer[j].p), t->buffer[j].value);
	}
	h = mix(h, w.n.slept << 16 | w.n.kills_left << 8 | w.n.stales_left);
	return mix(h, (uint64_t)(w.n.self ? number(w.n.self) : 7) << 8 | salt);
}

static uint64_t *visited_slot(uint64_t h)
{
	uint64_t at = h >> 20;

	while (w.visited[at & w.mask] && (w.visited[at & w.mask] ^ h) >> 4)
		at++;
	return &w.visited[at & w.mask];
}

static void resize_visited(unsigned bits)
{
	uint64_t *before = w.visited, i, n = before ? w.mask + 1 : 0;

	w.visited = calloc((size_t)1 << bits, sizeof(*w.visited));
	w.mask = ((uint64_t)1 << bits) - 1;
	for (i = 0; i < n; i++)
		if (before[i])
			*visited_slot(before[i]) = before[i];
	free(before);
}

static void forget_visited(void)
{
	free(w.visited);
	w.visited = NULL;
	w.n_visited = 0;
	resize_visited(VISITED_BITS_LEAST);
}

/* Was it met with as many preemptions left, or more? `note`: it is now. */
static bool met(uint64_t h, bool note)
{
	uint64_t word = (h & ~(uint64_t)15) | (w.n.preemptions_left + 1), *slot = visited_slot(word);

	if (*slot && (*slot & 15) >= (word & 15))
		return true;
	if (!note || (!*slot && w.n_visited == (uint64_t)3 << (VISITED_BITS_MOST - 2)))
		return false;
	w.n_visited += !*slot;
	*slot = word;
	if (w.n_visited > w.mask / 2 && (w.mask + 1) >> VISITED_BITS_MOST == 0)
		resize_visited((unsigned)__builtin_popcountll(w.mask) + 1);
	return false;
}

/* Somebody goes on: what it does is the same from here on as it was, if it was here. */
static void arrive(void)
{
	if (!w.replaying && met(state(5), true))
		leave(CUT);
}

/* It goes on without a choice, as somebody who arrived here did. What it read since it arrived itself
 * tells the two apart. */
static void pass_by(void)
{
	if (!w.replaying && met(state(5), false))
		leave(CUT);
}

/* ---- marks ------------------------------------------------------------------------------------------------- */

/* Who has ended chooses who goes on, on its own stack. */
static size_t stack_of(const struct thread *t)
{
	return t->life == READY || t->life == SLEEPING || t == w.n.self ? (size_t)(t->stack + STACK - (char *)t->sp)
	                                                                : 0;
}

/* Of the choice that is being made, by the one who makes it. */
static void save_mark(struct mark *m)
{
	unsigned i, party = w.n.party;
	size_t n = w.area.in_use();
	char *at;

	act_as(WEAVE_OBSERVER); /* so that what is kept for it outside of memory is there */
	m->memory = n;
	for (i = 0; i < WEAVE_THREADS; i++)
		n += stack_of(&w.n.threads[i]);
	if (n > m->capacity) {
		free(m->bytes);
		m->capacity = n * 2;
		m->bytes = malloc(m->capacity);
	}
	memcpy(m->bytes, w.area.base, m->memory);
	at = m->bytes + m->memory;
	for (i = 0; i < WEAVE_THREADS; at += stack_of(&w.n.threads[i]), i++)
		memcpy(at, w.n.threads[i].sp, stack_of(&w.n.threads[i]));
	act_as(party);
	m->now = w.n;
}

static void restore_mark(const struct mark *m)
{
	const char *at = m->bytes + m->memory;
	unsigned i, party = m->now.party;

	memcpy(w.area.base, m->bytes, m->memory);
	w.n = m->now;
	for (i = 0; i < WEAVE_THREADS; at += stack_of(&w.n.threads[i]), i++)
		memcpy(w.n.threads[i].sp, at, stack_of(&w.n.threads[i]));
	w.n.party = WEAVE_OBSERVER;
	w.area.switched(WEAVE_OBSERVER, WEAVE_OBSERVER);
	act_as(party);
}

/* Until the execution ends. */
static void go_on(void)
{
	do {
		w.marking = false;
		weave_swap(&w.main_sp, w.n.self->sp);
		if (w.marking)
			save_mark(&w.marks[w.depth - 1]);
	} while (w.marking);
}

/* ---- choices ----------------------------------------------------------------------------------------------- */

static unsigned choose(unsigned n, unsigned salt)
{
	if (n == 1)
		return 0;
	if (w.depth == DEPTH)
		weave_fail("too many choices in one execution");
	if (w.depth < w.replayed) {
		if (w.decided[w.depth].n != n) {
			fprintf(stderr, "weave: choice %u is not the same again\n", w.depth);
			abort();
		}
		return w.decided[w.depth++].at;
	}
	if (!w.replaying && met(state(salt), true))
		leave(CUT);
	w.states++;
	w.decided[w.depth].n = (uint8_t)n;
	w.decided[w.depth].at = 0;
	w.decisions = ++w.depth;
	w.marks[w.depth - 1].now.self = NULL;
	if (w.n.self) {
		w.marking = true;
		weave_swap(&w.n.self->sp, w.main_sp);
	}
	return w.decided[w.depth - 1].at; /* of what was chosen since, if it went on from the mark */
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list list;

	if (!w.trace)
		return;
	va_start(list, format);
	fprintf(stderr, "# %5u ", w.n.steps);
	if (w.n.self)
		fprintf(stderr, "%*sT%u ", (int)number(w.n.self) * 6, "", number(w.n.self));
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
}

static void flush(struct thread *t, unsigned n);

static bool is_awake(const struct thread *t)
{
	return t->life == READY || (t->life == SLEEPING && t->woken);
}

/* Somebody else, at no cost: the one who ran can't, or says that it waits. */
static void dispatch(bool yielding)
{
	struct thread *able[WEAVE_THREADS], *first = NULL;
	unsigned i, n = 0;

	for (;;) {
		for (i = 0; i < WEAVE_THREADS; i++)
			if (is_awake(&w.n.threads[i]) && !(yielding && &w.n.threads[i] == w.n.self))
				able[n++] = &w.n.threads[i];
		if (n)
			break;
		if (yielding)
			return;
		for (i = 0; i < WEAVE_THREADS; i++)
			if (w.n.threads[i].life == SLEEPING && (!first || w.n.threads[i].deadline < first->deadline))
				first = &w.n.threads[i];
		if (!first)
			leave(WHOLE);
		/* Time passes, as everybody sleeps. */
		w.n.now_ns = first->deadline > w.n.now_ns ? first->deadline : w.n.now_ns;
		w.n.slept++;
		first->woken = true;
		say("sleeps till its deadline: T%u", number(first));
	}
	go_to(able[choose(n, yielding ? 2 : 1)]);
}

static void kill_thread(struct thread *t)
{
	say("KILLED: T%u", number(t));
	flush(t, t->stored);
	t->life = DEAD;
	w.area.died(number(t));
}

static bool may_die(const struct thread *t)
{
	return w.n.kills_left && w.scenario->killable >> number(t) & 1 && t->begun && t->life != ENDED &&
	       t->life != DEAD;
}

enum act { ON, TO, KILL };

/* What may happen before an access. */
static void decide(bool switches, bool dying, bool life)
{
	struct {
		enum act act;
		struct thread *t;
	} options[1 + 2 * WEAVE_THREADS];
	unsigned n = 1, i, at;

	for (i = 0; i < WEAVE_THREADS && switches; i++) {
		if (&w.n.threads[i] == w.n.self || !is_awake(&w.n.threads[i]))
			continue;
		if (!w.n.preemptions_left) {
			w.refused = true;
			break;
		}
		options[n].act = TO;
		options[n++].t = &w.n.threads[i];
	}
	if (dying && may_die(w.n.self)) {
		options[n].act = KILL;
		options[n++].t = w.n.self;
	}
	for (i = 0; i < WEAVE_THREADS && life; i++) {
		if (&w.n.threads[i] == w.n.self || !may_die(&w.n.threads[i]))
			continue;
		options[n].act = KILL;
		options[n++].t = &w.n.threads[i];
	}
	if (n == 1) {
		pass_by();
		return;
	}
	at = choose(n, 3);
	if (!at)
		return;
	if (options[at].act == TO) {
		w.n.preemptions_left--;
		go_to(options[at].t);
		return;
	}
	w.n.kills_left--;
	kill_thread(options[at].t);
	if (options[at].t == w.n.self)
		dispatch(false);
}

static void learn(struct cell *k, bool write)
{
	uint8_t bit = (uint8_t)(1u << number(w.n.self));

	if ((k->touched & bit) && (!write || (k->written & bit)))
		return;
	k->touched |= bit;
	k->written |= write ? bit : 0;
	if (!k->shared && k->written && k->touched & (k->touched - 1))
		w.grew = true;
}

/* Each step is a bijection of what was before and of what is new; state() stirs the result. */
static inline void observe(uint64_t value)
{
	uint64_t h = (w.n.self->seen ^ value) * UINT64_C(0x9e3779b97f4a7c15);

	w.n.self->seen = h ^ h >> 32;
}

void weave_observe(uint64_t value)
{
	if (w.n.self)
		observe(value);
}

static void point(uint32_t key, bool write, bool life)
{
	struct cell *k = &w.keys[key];

	if (++w.n.steps > STEPS_MOST)
		weave_fail("no progress: %u steps", w.n.steps);
	if (k->quiet)
		return;
	learn(k, write);
	if (k->shared || (w.n.kills_left && (write || life)))
		decide(k->shared, write, life);
	observe(key); /* it is one step on, also where it learns nothing: two states, not one */
}

void weave_life(uint64_t seen)
{
	if (!w.n.self)
		return;
	if (w.n.kills_left)
		decide(true, false, true);
	weave_observe(seen);
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static inline bool is_shared(const volatile void *p)
{
	return (size_t)((const volatile char *)p - w.area.base) < w.area.shared;
}

static inline uint32_t key_of(const volatile void *p)
{
	return (uint32_t)((const volatile char *)p - w.area.base) / 4;
}

static inline uint64_t get(const volatile void *p, unsigned size)
{
	return size == 8   ? *(const volatile uint64_t *)p
	       : size == 4 ? *(const volatile uint32_t *)p
	                   : *(const volatile uint8_t *)p;
}

static inline void put(volatile void *p, unsigned size, uint64_t value)
{
	if (size == 8)
		*(volatile uint64_t *)p = value;
	else if (size == 4)
		*(volatile uint32_t *)p = (uint32_t)value;
	else
		*(volatile uint8_t *)p = (uint8_t)value;
}

static void write_through(volatile void *p, unsigned size, uint64_t value)
{
	uint32_t key = key_of(p);
	uint64_t before = get(p, size);

	if (!w.keys[key].quiet)
		w.n.memory += mix(key, value) - mix(key, before);
	put(p, size, value);
	w.area.written((const void *)p, before, value);
}

static void spell(const volatile void *p, char *text, size_t n)
{
	w.area.spell((const void *)p, text, n);
}

static void tell_all(const char *what, const volatile void *p, uint64_t a, uint64_t b, bool two)
{
	char text[96];

	if (is_shared(p) && w.keys[key_of(p)].quiet)
		return;
	spell(p, text, sizeof(text));
	if (two)
		say("%-6s %s %" PRIx64 " -> %" PRIx64, what, text, a, b);
	else
		say("%-6s %s %" PRIx64, what, text, a);
}

static inline void tell(const char *what, const volatile void *p, uint64_t a, uint64_t b, bool two)
{
	if (w.trace)
		tell_all(what, p, a, b, two);
}

/* The n oldest stores of a buffer become visible. */
static void flush(struct thread *t, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		tell("flush", t->buffer[i].p, t->buffer[i].value, number(t), false);
		write_through(t->buffer[i].p, t->buffer[i].size, t->buffer[i].value);
	}
	t->stored -= n;
	memmove(t->buffer, t->buffer + n, t->stored * sizeof(t->buffer[0]));
}

static bool overlaps(const struct pending *b, const volatile void *p, unsigned size)
{
	const volatile char *x = b->p, *y = p;

	return x < y + size && y < x + b->size;
}

/* What waits in others' buffers for this word: seen now, or not yet. */
static void meet_stores(const volatile void *p, unsigned size)
{
	unsigned i, j;

	for (i = 0; i < WEAVE_THREADS; i++) {
		struct thread *t = &w.n.threads[i];

		for (j = 0; t != w.n.self && j < t->stored; j++) {
			if (!overlaps(&t->buffer[j], p, size))
				continue;
			if (!w.n.stales_left)
				w.refused = true;
			if (choose(w.n.stales_left ? 2 : 1, 4)) {
				w.n.stales_left--;
				break;
			}
			flush(t, j + 1);
			j = UINT32_MAX;
		}
	}
}

static uint64_t see(const volatile void *p, unsigned size)
{
	struct thread *t = w.n.self;
	unsigned i;

	if (!w.tso)
		return get(p, size);
	for (i = t->stored; i-- > 0;) {
		if (!overlaps(&t->buffer[i], p, size))
			continue;
		if (t->buffer[i].p == p && t->buffer[i].size == size)
			return t->buffer[i].value;
		flush(t, i + 1);
		break;
	}
	meet_stores(p, size);
	return get(p, size);
}

uint64_t weave_load(const volatile void *p, unsigned size)
{
	uint64_t value;

	if (!w.n.self || !is_shared(p))
		return get(p, size);
	point(key_of(p), false, w.n.kills_left && w.area.is_life((const void *)p));
	value = see(p, size);
	if (!w.keys[key_of(p)].quiet)
		observe(value);
	tell("load", p, value, 0, false);
	return value;
}

void weave_store(volatile void *p, unsigned size, uint64_t value)
{
	struct thread *t = w.n.self;

	if (!is_shared(p)) {
		put(p, size, value);
		return;
	}
	if (!t) {
		write_through(p, size, value);
		return;
	}
	point(key_of(p), true, false);
	tell("store", p, value, 0, false);
	weave_observe(1);
	if (!w.tso) {
		write_through(p, size, value);
		return;
	}
	if (t->stored == BUFFER)
		flush(t, 1);
	t->buffer[t->stored++] = (struct pending){p, size, value};
}

/* In front of a locked instruction. */
static void lock_bus(volatile void *p, unsigned size)
{
	point(key_of(p), true, w.n.kills_left && w.area.is_life((const void *)p));
	if (!w.tso)
		return;
	flush(w.n.self, w.n.self->stored);
	meet_stores(p, size);
}

bool weave_cas(volatile void *p, unsigned size, void *expected, uint64_t value)
{
	bool scheduled = w.n.self && is_shared(p), done;
	uint64_t now;

	if (scheduled)
		lock_bus(p, size);
	now = get(p, size);
	done = now == get(expected, size);
	if (scheduled) {
		weave_observe(now);
		tell(done ? "cas" : "cas (no)", p, now, value, true);
	}
	if (!done)
		put(expected, size, now);
	else if (is_shared(p))
		write_through(p, size, value);
	else
		put(p, size, value);
	return done;
}

enum change { ADD, OR, EXCHANGE };

static uint64_t change(volatile void *p, unsigned size, uint64_t n, enum change how)
{
	static const char *const names[] = {"add", "or", "swap"};
	bool scheduled = w.n.self && is_shared(p);
	uint64_t now;

	if (scheduled)
		lock_bus(p, size);
	now = get(p, size);
	n = how == ADD ? now + n : how == OR ? now | n : n;
	if (scheduled) {
		tell(names[how], p, now, n, true);
		if (!w.keys[key_of(p)].quiet)
			weave_observe(now);
	}
	if (is_shared(p))
		write_through(p, size, n);
	else
		put(p, size, n);
	return now;
}

uint64_t weave_add(volatile void *p, unsigned size, uint64_t n)
{
	return change(p, size, n, ADD);
}

uint64_t weave_or(volatile void *p, unsigned size, uint64_t bits)
{
	return change(p, size, bits, OR);
}

uint64_t weave_exchange(volatile void *p, unsigned size, uint64_t value)
{
	return change(p, size, value, EXCHANGE);
}

void weave_fence(void)
{
	if (w.n.self)
		flush(w.n.self, w.n.self->stored);
}

void weave_barrier(void)
{
	unsigned i;

	for (i = 0; i < WEAVE_THREADS; i++)
		flush(&w.n.threads[i], w.n.threads[i].stored);
}

void weave_set(volatile void *p, unsigned size, uint64_t value)
{
	tell("kernel", p, value, 0, false);
	write_through(p, size, value);
}

void weave_touch(unsigned pseudo, uint64_t digest)
{
	if (!w.n.self)
		return;
	learn(&w.keys[w.words + pseudo], true);
	w.n.memory += mix(pseudo + 1, digest);
}

static uint64_t digest_of(const void *p, size_t n)
{
	uint64_t h = n, part;

	for (; n; n -= n < 8 ? n : 8, p = (const char *)p + 8) {
		part = 0;
		memcpy(&part, p, n < 8 ? n : 8);
		h = mix(h, part);
	}
	return h;
}

static void touch_content(const void *p, size_t n, bool write)
{
	int pseudo = w.n.self && is_shared(p) ? w.area.content(p) : -1;
	char text[96];

	if (pseudo < 0)
		return;
	point(w.words + (uint32_t)pseudo, write, false);
	if (w.trace) {
		spell(p, text, sizeof(text));
		say("%-6s %s, %zu bytes", write ? "write" : "read", text, n);
	}
	w.area.copied(p, n, write);
}

void *weave_copy(void *to, const void *from, size_t n)
{
	int pseudo;

	if (!w.n.self || (!is_shared(from) && !is_shared(to)))
		return memmove(to, from, n);
	touch_content(from, n, false);
	touch_content(to, n, true);
	memmove(to, from, n);
	weave_observe(digest_of(to, n));
	if (is_shared(to) && (pseudo = w.area.content(to)) >= 0)
		weave_touch((unsigned)pseudo, mix((uintptr_t)to, digest_of(to, n)));
	return to;
}

uint64_t weave_read(const void *p)
{
	uint64_t value;

	touch_content(p, sizeof(value), false);
	memcpy(&value, p, sizeof(value));
	weave_observe(value);
	return value;
}

/* ---- waiting and time -------------------------------------------------------------------------------------- */

void weave_yield(void)
{
	if (!w.n.self)
		return;
	if (++w.n.steps > STEPS_MOST)
		weave_fail("no progress: %u steps", w.n.steps);
	weave_observe(2);
	dispatch(true);
	weave_observe(2);
}

void weave_sleep(const void *a, uint32_t a_seen, const void *b, uint32_t b_seen, uint64_t deadline)
{
	struct thread *t = w.n.self;

	if (!t) {
		w.n.now_ns = deadline > w.n.now_ns ? deadline : w.n.now_ns;
		return;
	}
	weave_fence();
	if (b)
		point(key_of(b), false, w.n.kills_left);
	point(key_of(a), false, w.n.kills_left);
	weave_observe(get(a, 4));
	weave_observe(b ? get(b, 4) : 0);
	if (get(a, 4) != a_seen || (b && get(b, 4) != b_seen) || deadline <= w.n.now_ns)
		return;
	say("sleeps");
	t->a = a;
	t->b = b;
	t->deadline = deadline;
	t->woken = false;
	t->life = SLEEPING;
	dispatch(false);
	t->life = READY;
	weave_observe(w.n.now_ns);
}

int weave_wake(const void *p, int n)
{
	int i, woken = 0;

	if (w.n.self) {
		weave_fence();
		point(key_of(p), false, false);
	}
	for (i = 0; i < WEAVE_THREADS && woken < n; i++) {
		struct thread *t = &w.n.threads[i];

		if (t->life != SLEEPING || t->woken || (t->a != p && t->b != p))
			continue;
		t->woken = true;
		woken++;
		say("wakes T%d", i);
	}
	return woken;
}

uint64_t weave_clock(void)
{
	if (w.n.self) {
		point(w.n_keys - 1, false, false);
		weave_observe(w.n.now_ns);
	}
	return w.n.now_ns;
}

void weave_pass_ms(uint64_t ms)
{
	if (w.n.self)
		point(w.n_keys - 1, true, false);
	w.n.now_ns += ms * 1000000;
	say("%" PRIu64 " ms pass", ms);
}

uint64_t weave_now_ns(void)
{
	return w.n.now_ns;
}

unsigned weave_me(void)
{
	return w.n.party;
}

bool weave_is_dead(unsigned thread)
{
	return w.n.threads[thread].life == DEAD;
}

void weave_act_as(unsigned party)
{
	act_as(party);
}

void weave_fail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	if (!w.message[0])
		vsnprintf(w.message, sizeof(w.message), format, list);
	va_end(list);
	if (w.n.self)
		leave(FAILED);
	w.ending = FAILED;
}

/* ---- one execution ----------------------------------------------------------------------------------------- */

static void body(void)
{
	struct thread *t = w.n.self;

	t->begun = true;
	weave_observe(3);
	w.scenario->thread[number(t)]();
	say("ends");
	t->life = ENDED;
	dispatch(false);
	abort();
}

static void prepare(struct thread *t)
{
	const struct weave_scenario *s = w.scenario;
	void **top = (void **)(void *)(t->stack + STACK);

	t->life = s->corpses >> number(t) & 1 ? DEAD : s->thread[number(t)] ? READY : ENDED;
	t->begun = t->woken = false;
	t->seen = 0;
	t->stored = 0;
	t->a = t->b = NULL;
	top[-2] = (void *)(uintptr_t)body;
	t->sp = &top[-8];
}

static bool any_dead(void)
{
	unsigned i;

	for (i = 0; i < WEAVE_THREADS; i++)
		if (w.n.threads[i].life == DEAD)
			return true;
	return false;
}

static enum ending finish(void)
{
	if (w.ending == WHOLE) {
		weave_barrier();
		act_as(WEAVE_OBSERVER);
		if (w.n.slept && !w.scenario->sleeps && !(w.scenario->slices && any_dead()))
			weave_fail("F.5: everybody slept, and time had to pass: a wake was lost");
		weave_audit();
		if (w.scenario->check)
			w.scenario->check();
	}
	return w.ending;
}

/* From the begin, and by what is decided already. */
static enum ending run(void)
{
	unsigned i, used;

	memcpy(w.area.base, w.image, w.area.size);
	w.n.self = NULL;
	w.n.party = WEAVE_OBSERVER;
	w.ending = RUNNING;
	w.n.preemptions_left = w.preemptions;
	w.n.kills_left = w.kills;
	w.n.stales_left = w.stales;
	w.n.steps = w.n.slept = w.depth = 0;
	w.n.memory = 0;
	w.n.now_ns = w.begin_ns;
	w.message[0] = 0;
	w.area.switched(WEAVE_OBSERVER, WEAVE_OBSERVER);
	for (i = 0; i < WEAVE_THREADS; i++)
		prepare(&w.n.threads[i]);
	for (used = 0; used < WEAVE_THREADS && w.scenario->thread[used]; used++)
		;
	w.n.self = &w.n.threads[choose(used, 0)];
	act_as(number(w.n.self));
	go_on();
	return finish();
}

/* From the last choice, which is another now. */
static enum ending run_from_mark(void)
{
	const struct mark *m = &w.marks[w.decisions - 1];

	if (!m->now.self) {
		w.replayed = w.decisions;
		return run();
	}
	restore_mark(m);
	w.replayed = 0;
	w.depth = w.decisions;
	w.ending = RUNNING;
	go_on();
	return finish();
}

/* What went on from marks has to be what comes from the begin. */
static void replay_alike(void)
{
	uint64_t h = state(0);
	unsigned depth = w.depth;

	w.replaying = true;
	w.replayed = w.depth;
	if (run() != WHOLE || w.depth != depth || state(0) != h) {
		fprintf(stderr, "weave: an execution is not the same from its begin\n");
		abort();
	}
	w.replaying = false;
}

/* ---- the search -------------------------------------------------------------------------------------------- */

/* Of our own: what others leave of the machine is no measure of the search. */
static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void begin_pass(void)
{
	uint32_t i;

	for (i = 0; i < w.n_keys; i++) {
		struct cell *k = &w.keys[i];

		k->shared = !k->quiet && k->written && k->touched & (k->touched - 1);
	}
	forget_visited();
	w.decisions = 0;
	w.in_pass = 0;
	w.grew = w.refused = false;
}

static bool advance(void)
{
	while (w.decisions && w.decided[w.decisions - 1].at + 1 == w.decided[w.decisions - 1].n)
		w.decisions--;
	if (!w.decisions)
		return false;
	w.decided[w.decisions - 1].at++;
	return true;
}

static void show_failure(void)
{
	char message[sizeof(w.message)];

	strcpy(message, w.message);
	w.trace = w.replaying = true;
	w.replayed = w.depth;
	run();
	w.trace = w.replaying = false;
	fprintf(stderr, "# %s (%s), %u preemptions%s%s: %s\n", w.scenario->name, w.scenario->holds, w.preemptions,
	        w.kills ? ", one kill" : "", w.tso ? ", TSO" : "", message);
}

enum pass { PASS_COMPLETE, PASS_LATE, PASS_FAILED };

static enum pass explore(double until, uint64_t least)
{
	unsigned turn = 0;
	bool afresh = true;

	for (begin_pass();; afresh = w.grew) {
		if (w.grew)
			begin_pass();
		if (afresh) {
			w.replayed = 0;
			run();
		} else {
			run_from_mark();
		}
		if (w.ending == FAILED) {
			show_failure();
			return PASS_FAILED;
		}
		w.executions++;
		w.in_pass++;
		w.cut += w.ending == CUT;
		if (w.ending == CUT && afresh) {
			fprintf(stderr, "weave: two states of one execution have one digest\n");
			abort();
		}
		if (w.grew)
			continue;
		if (w.ending == WHOLE && !(w.executions & 1023))
			replay_alike();
		if (!advance())
			return PASS_COMPLETE;
		if (!(++turn & 255) && seconds() > until && w.executions >= least)
			return PASS_LATE;
	}
}

struct mode {
	const char *name;
	unsigned kills;
	bool tso;
	int complete;   /* the last bound that was explored whole; -1: none */
	bool exhausted; /* without any bound */
	uint64_t explored; /* executions of that one */
};

static void describe(const struct mode *m)
{
	char text[64] = "";

	if (m->complete < 0)
		snprintf(text, sizeof(text), "not even those without a preemption");
	else if (m->exhausted)
		snprintf(text, sizeof(text), "all %" PRIu64 " interleavings", m->explored);
	else
		snprintf(text, sizeof(text), "all %" PRIu64 " interleavings up to %d preemption%s", m->explored,
		         m->complete, m->complete == 1 ? "" : "s");
	printf("#   %-5s %s\n", m->name, text);
}

static bool search(const struct weave_scenario *s, double budget)
{
	struct mode modes[] = {{"plain", 0, false, -1, false, 0},
	                       {"kill", 1, false, -1, false, 0},
	                       {"TSO", 0, true, -1, false, 0}};
	double begun = seconds(), until = begun + budget, left;
	unsigned deep = budget > NIGHTLY ? DEEPEST : s->deep ? s->deep : 3, i, bound;
	enum pass r = PASS_COMPLETE;
	bool more = true, weak;
	unsigned live;

	modes[1].exhausted = !s->killable;
	modes[2].exhausted = !s->stale;
	for (bound = 0; bound <= deep && more && r != PASS_FAILED; bound++) {
		more = false;
		for (i = live = 0; i < 3; i++)
			live += !modes[i].exhausted;
		for (i = 0; i < 3 && r != PASS_FAILED; i++) {
			struct mode *m = &modes[i];

			if (m->exhausted || m->complete < (int)bound - 1)
				continue;
			w.preemptions = bound;
			w.kills = m->kills;
			w.tso = m->tso;
			w.stales = m->tso ? s->stale : 0;
			left = until - seconds();
			if (left <= 0 && w.executions >= s->least)
				break;
			r = explore(seconds() + left / live, w.executions < s->least ? s->least : 0);
			live -= live > 1;
			if (r != PASS_COMPLETE)
				continue;
			m->complete = (int)bound;
			m->exhausted = !w.refused;
			m->explored = w.in_pass;
			more |= !m->exhausted;
		}
	}
	weak = r != PASS_FAILED && w.executions < s->least;
	printf("# %s (%s): %" PRIu64 " executions, %" PRIu64 " cut off, %" PRIu64 " states, %.0f a second\n", s->name,
	       s->holds, w.executions, w.cut, w.states, (double)w.executions / (seconds() - begun));
	for (i = 0; i < 3; i++)
		if (!(i == 1 && !s->killable) && !(i == 2 && !s->stale))
			describe(&modes[i]);
	if (weak)
		printf("# fewer executions than %" PRIu64 ": the scenario is no test any more\n", s->least);
	return r != PASS_FAILED && !weak;
}

static void open_scenario(const struct weave_scenario *s)
{
	uint32_t i;

	w.scenario = s;
	w.n.self = NULL;
	w.executions = w.cut = w.states = 0;
	w.n.party = WEAVE_OBSERVER;
	w.n.now_ns = BEGIN_NS;
	w.words = w.n_keys = 0;
	w.message[0] = 0;
	w.ending = RUNNING;
	for (i = 0; i < WEAVE_THREADS; i++)
		w.n.threads[i].stored = 0; /* of a run of the scenario before that was cut off */
	w.area.shared = 0; /* nothing is, until it is laid out */
	weave_world(s, &w.area);
	w.words = (uint32_t)(w.area.shared / 4);
	w.n_keys = w.words + w.area.keys + 1;
	w.keys = calloc(w.n_keys, sizeof(*w.keys));
	for (i = 0; i < w.words; i++)
		w.keys[i].quiet = w.area.is_quiet(w.area.base + i * 4);
	weave_join(s);
	act_as(0);
	if (s->setup)
		s->setup();
	act_as(WEAVE_OBSERVER);
	for (i = 0; i < WEAVE_THREADS; i++)
		if (s->corpses >> i & 1)
			w.area.died(i);
	if (w.ending == FAILED) {
		fprintf(stderr, "# %s: setup: %s\n", s->name, w.message);
		exit(1);
	}
	w.begin_ns = w.n.now_ns;
	w.image = malloc(w.area.size);
	memcpy(w.image, w.area.base, w.area.size);
}

static void close_scenario(void)
{
	free(w.keys);
	free(w.image);
}

int weave_main(int argc, char **argv, const struct weave_scenario *scenarios, unsigned n)
{
	const char *given = getenv("SHOAL_TEST_SECONDS");
	/* all of these programs take as long as one torture test */
	double until = seconds() + (given ? atof(given) : 60) / 10;
	unsigned i, failed = 0, done = 0, only = argc > 1;
	bool good;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < WEAVE_THREADS; i++)
		w.n.threads[i].stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < n; i++) {
		if (argc > 1 && strcmp(argv[1], scenarios[i].name))
			continue;
		open_scenario(&scenarios[i]);
		/* what others did not need, too */
		good = search(&scenarios[i], (until - seconds()) / (only ? n : n - i));
		failed += !good;
		printf("%s %u - %s\n", good ? "ok" : "not ok", ++done, scenarios[i].name);
		close_scenario();
	}
	printf("1..%u\n", done);
	return failed || !done;
}
