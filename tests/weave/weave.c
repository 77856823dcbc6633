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
#define VISITED_BITS 22
#define BEGIN_NS (UINT64_C(1000) * 1000000000)
#define DEEPEST 12u

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
	uint64_t *visited;
	uint32_t n_visited, pass;
	/* the execution */
	struct thread threads[WEAVE_PARTIES];
	struct thread *self; /* NULL: outside */
	unsigned party;      /* who acts, outside, too */
	void *main_sp;
	enum ending ending;
	unsigned preemptions_left, kills_left, stales_left, steps, slept;
	uint64_t memory; /* digest */
	uint64_t now_ns;
	bool trace;
	char message[512];
	/* the count */
	uint64_t executions, cut, states;
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
	return (unsigned)(t - w.threads);
}

static void act_as(unsigned party)
{
	if (party != w.party)
		w.area.switched(w.party, party);
	w.party = party;
}

static void go_to(struct thread *to)
{
	struct thread *from = w.self;

	if (to == from)
		return;
	act_as(number(to));
	w.self = to;
	weave_swap(from ? &from->sp : &w.main_sp, to->sp);
}

/* Out of the execution, for good. */
static void leave(enum ending ending)
{
	void *sp;

	w.ending = ending;
	w.self = NULL;
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
	uint64_t h = mix(w.memory + w.pass, w.now_ns);
	unsigned i, j;

	for (i = 0; i < WEAVE_THREADS; i++) {
		const struct thread *t = &w.threads[i];

		h = mix(h, t->seen + (uint64_t)t->life * 3 + t->woken);
		for (j = 0; j < t->stored; j++)
			h = mix(mix(h, (uintptr_t)t->buffer[j].p), t->buffer[j].value);
	}
	h = mix(h, w.slept << 16 | w.kills_left << 8 | w.stales_left);
	return mix(h, (uint64_t)(w.self ? number(w.self) : 7) << 8 | salt);
}

/* Was it met with as many preemptions left, or more? */
static bool met(uint64_t h)
{
	uint64_t mask = ((uint64_t)1 << VISITED_BITS) - 1, at, word = (h & ~(uint64_t)15) | (w.preemptions_left + 1);

	for (at = h >> 20;; at++) {
		uint64_t *slot = &w.visited[at & mask];

		if (!*slot) {
			if (w.n_visited < mask / 4 * 3) {
				w.n_visited++;
				*slot = word;
			}
			return false;
		}
		if ((*slot ^ word) >> 4)
			continue;
		if ((*slot & 15) >= (word & 15))
			return true;
		*slot = word;
		return false;
	}
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
	if (!w.trace && met(state(salt)))
		leave(CUT);
	w.states++;
	w.decided[w.depth].n = (uint8_t)n;
	w.decided[w.depth].at = 0;
	w.decisions = ++w.depth;
	return 0;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list list;

	if (!w.trace)
		return;
	va_start(list, format);
	fprintf(stderr, "# %5u ", w.steps);
	if (w.self)
		fprintf(stderr, "%*sT%u ", (int)number(w.self) * 6, "", number(w.self));
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
			if (is_awake(&w.threads[i]) && !(yielding && &w.threads[i] == w.self))
				able[n++] = &w.threads[i];
		if (n)
			break;
		if (yielding)
			return;
		for (i = 0; i < WEAVE_THREADS; i++)
			if (w.threads[i].life == SLEEPING && (!first || w.threads[i].deadline < first->deadline))
				first = &w.threads[i];
		if (!first)
			leave(WHOLE);
		/* Time passes, as everybody sleeps. */
		w.now_ns = first->deadline > w.now_ns ? first->deadline : w.now_ns;
		w.slept++;
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
	return w.kills_left && w.scenario->killable >> number(t) & 1 && t->begun && t->life != ENDED && t->life != DEAD;
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
		if (&w.threads[i] == w.self || !is_awake(&w.threads[i]))
			continue;
		if (!w.preemptions_left) {
			w.refused = true;
			break;
		}
		options[n].act = TO;
		options[n++].t = &w.threads[i];
	}
	if (dying && may_die(w.self)) {
		options[n].act = KILL;
		options[n++].t = w.self;
	}
	for (i = 0; i < WEAVE_THREADS && life; i++) {
		if (&w.threads[i] == w.self || !may_die(&w.threads[i]))
			continue;
		options[n].act = KILL;
		options[n++].t = &w.threads[i];
	}
	at = choose(n, 3);
	if (!at)
		return;
	if (options[at].act == TO) {
		w.preemptions_left--;
		go_to(options[at].t);
		return;
	}
	w.kills_left--;
	kill_thread(options[at].t);
	if (options[at].t == w.self)
		dispatch(false);
}

static void learn(struct cell *k, bool write)
{
	uint8_t bit = (uint8_t)(1u << number(w.self));

	if ((k->touched & bit) && (!write || (k->written & bit)))
		return;
	k->touched |= bit;
	k->written |= write ? bit : 0;
	if (!k->shared && k->written && k->touched & (k->touched - 1))
		w.grew = true;
}

void weave_observe(uint64_t value)
{
	if (w.self)
		w.self->seen = mix(w.self->seen, value);
}

static void point(uint32_t key, bool write, bool life)
{
	struct cell *k = &w.keys[key];

	if (++w.steps > STEPS_MOST)
		weave_fail("no progress: %u steps", w.steps);
	if (k->quiet)
		return;
	learn(k, write);
	if (k->shared || (w.kills_left && (write || life)))
		decide(k->shared, write, life);
	weave_observe(key); /* it is one step on, also where it learns nothing: two states, not one */
}

void weave_life(uint64_t seen)
{
	if (!w.self)
		return;
	if (w.kills_left)
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
	return size == 8 ? *(const volatile uint64_t *)p : size == 4 ? *(const volatile uint32_t *)p : *(const volatile uint8_t *)p;
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
		w.memory += mix(key, value) - mix(key, before);
	put(p, size, value);
	w.area.written((const void *)p, value);
}

static void spell(const volatile void *p, char *text, size_t n)
{
	w.area.spell((const void *)p, text, n);
}

static void tell(const char *what, const volatile void *p, uint64_t a, uint64_t b, bool two)
{
	char text[96];

	if (!w.trace || (is_shared(p) && w.keys[key_of(p)].quiet))
		return;
	spell(p, text, sizeof(text));
	if (two)
		say("%-6s %s %" PRIx64 " -> %" PRIx64, what, text, a, b);
	else
		say("%-6s %s %" PRIx64, what, text, a);
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
		struct thread *t = &w.threads[i];

		for (j = 0; t != w.self && j < t->stored; j++) {
			if (!overlaps(&t->buffer[j], p, size))
				continue;
			if (!w.stales_left)
				w.refused = true;
			if (choose(w.stales_left ? 2 : 1, 4)) {
				w.stales_left--;
				break;
			}
			flush(t, j + 1);
			j = UINT32_MAX;
		}
	}
}

static uint64_t see(const volatile void *p, unsigned size)
{
	struct thread *t = w.self;
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

	if (!w.self || !is_shared(p))
		return get(p, size);
	point(key_of(p), false, w.kills_left && w.area.is_life((const void *)p));
	value = see(p, size);
	if (!w.keys[key_of(p)].quiet)
		weave_observe(value);
	tell("load", p, value, 0, false);
	return value;
}

void weave_store(volatile void *p, unsigned size, uint64_t value)
{
	struct thread *t = w.self;

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
	point(key_of(p), true, w.kills_left && w.area.is_life((const void *)p));
	if (!w.tso)
		return;
	flush(w.self, w.self->stored);
	meet_stores(p, size);
}

bool weave_cas(volatile void *p, unsigned size, void *expected, uint64_t value)
{
	bool scheduled = w.self && is_shared(p), done;
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
	bool scheduled = w.self && is_shared(p);
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
	if (w.self)
		flush(w.self, w.self->stored);
}

void weave_barrier(void)
{
	unsigned i;

	for (i = 0; i < WEAVE_THREADS; i++)
		flush(&w.threads[i], w.threads[i].stored);
}

void weave_set(volatile void *p, unsigned size, uint64_t value)
{
	tell("kernel", p, value, 0, false);
	write_through(p, size, value);
}

void weave_touch(unsigned pseudo, uint64_t digest)
{
	if (!w.self)
		return;
	learn(&w.keys[w.words + pseudo], true);
	w.memory += mix(pseudo + 1, digest);
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
	int pseudo = w.self && is_shared(p) ? w.area.content(p) : -1;
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

	if (!w.self || (!is_shared(from) && !is_shared(to)))
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
	if (!w.self)
		return;
	if (++w.steps > STEPS_MOST)
		weave_fail("no progress: %u steps", w.steps);
	weave_observe(2);
	dispatch(true);
}

void weave_sleep(const void *a, uint32_t a_seen, const void *b, uint32_t b_seen, uint64_t deadline)
{
	struct thread *t = w.self;

	if (!t) {
		w.now_ns = deadline > w.now_ns ? deadline : w.now_ns;
		return;
	}
	weave_fence();
	if (b)
		point(key_of(b), false, w.kills_left);
	point(key_of(a), false, w.kills_left);
	weave_observe(get(a, 4));
	weave_observe(b ? get(b, 4) : 0);
	if (get(a, 4) != a_seen || (b && get(b, 4) != b_seen) || deadline <= w.now_ns)
		return;
	say("sleeps");
	t->a = a;
	t->b = b;
	t->deadline = deadline;
	t->woken = false;
	t->life = SLEEPING;
	dispatch(false);
	t->life = READY;
	weave_observe(w.now_ns);
}

int weave_wake(const void *p, int n)
{
	int i, woken = 0;

	if (w.self) {
		weave_fence();
		point(key_of(p), false, false);
	}
	for (i = 0; i < WEAVE_THREADS && woken < n; i++) {
		struct thread *t = &w.threads[i];

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
	if (w.self) {
		point(w.n_keys - 1, false, false);
		weave_observe(w.now_ns);
	}
	return w.now_ns;
}

void weave_pass_ms(uint64_t ms)
{
	if (w.self)
		point(w.n_keys - 1, true, false);
	w.now_ns += ms * 1000000;
	say("%" PRIu64 " ms pass", ms);
}

uint64_t weave_now_ns(void)
{
	return w.now_ns;
}

unsigned weave_me(void)
{
	return w.party;
}

bool weave_is_dead(unsigned thread)
{
	return w.threads[thread].life == DEAD;
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
	if (w.self)
		leave(FAILED);
	w.ending = FAILED;
}

/* ---- one execution ----------------------------------------------------------------------------------------- */

static void body(void)
{
	struct thread *t = w.self;

	t->begun = true;
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

static enum ending run(void)
{
	unsigned i, used;

	memcpy(w.area.base, w.image, w.area.size);
	w.self = NULL;
	w.party = WEAVE_OBSERVER;
	w.ending = RUNNING;
	w.preemptions_left = w.preemptions;
	w.kills_left = w.kills;
	w.stales_left = w.stales;
	w.steps = w.slept = w.depth = 0;
	w.memory = 0;
	w.now_ns = w.begin_ns;
	w.message[0] = 0;
	w.area.switched(WEAVE_OBSERVER, WEAVE_OBSERVER);
	for (i = 0; i < WEAVE_THREADS; i++)
		prepare(&w.threads[i]);
	for (used = 0; used < WEAVE_THREADS && w.scenario->thread[used]; used++)
		;
	go_to(&w.threads[choose(used, 0)]);
	if (w.ending == WHOLE) {
		weave_barrier();
		act_as(WEAVE_OBSERVER);
		if (w.slept && !w.scenario->sleeps)
			weave_fail("F.5: everybody slept, and time had to pass: a wake was lost");
		weave_audit();
		if (w.scenario->check)
			w.scenario->check();
	}
	return w.ending;
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
	w.pass++; /* what earlier ones met is of another digest */
	if (w.n_visited > 1u << (VISITED_BITS - 1)) {
		memset(w.visited, 0, sizeof(*w.visited) << VISITED_BITS);
		w.n_visited = 0;
	}
	w.decisions = 0;
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
	w.trace = true;
	w.replayed = w.decisions = w.depth;
	run();
	w.trace = false;
	fprintf(stderr, "# %s (%s), %u preemptions%s%s: %s\n", w.scenario->name, w.scenario->holds, w.preemptions,
	        w.kills ? ", one kill" : "", w.tso ? ", TSO" : "", message);
}

enum pass { PASS_COMPLETE, PASS_LATE, PASS_FAILED };

static enum pass explore(double until, uint64_t least)
{
	unsigned turn = 0;

	begin_pass();
	for (;;) {
		w.replayed = w.decisions;
		if (run() == FAILED) {
			show_failure();
			return PASS_FAILED;
		}
		w.executions++;
		w.cut += w.ending == CUT;
		if (w.ending == CUT && !w.replayed) {
			fprintf(stderr, "weave: two states of one execution have one digest\n");
			abort();
		}
		if (w.grew) {
			begin_pass();
			continue;
		}
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
	unsigned bound; /* the next one */
	int complete;   /* the last one that was explored whole; -1: none */
	bool exhausted; /* without any bound */
};

static void describe(const struct mode *m)
{
	char text[32];

	if (m->exhausted)
		snprintf(text, sizeof(text), "all");
	else
		snprintf(text, sizeof(text), "%d", m->complete);
	printf("#   %-5s preemptions explored whole: %s\n", m->name, text);
}

static bool search(const struct weave_scenario *s, double budget)
{
	struct mode modes[] = {{"plain", 0, false, 0, -1, false}, {"kill", 1, false, 0, -1, false}, {"TSO", 0, true, 0, -1, false}};
	double begun = seconds(), until = begun + budget, left;
	unsigned deep = budget > 60 ? DEEPEST : s->deep ? s->deep : 3, i, bound;
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
			more |= !m->exhausted;
		}
	}
	weak = r != PASS_FAILED && w.executions < s->least;
	printf("# %s (%s): %" PRIu64 " executions, %" PRIu64 " cut off, %" PRIu64 " states, %.0f a second\n", s->name, s->holds,
	       w.executions, w.cut, w.states, (double)w.executions / (seconds() - begun));
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
	w.self = NULL;
	w.executions = w.cut = w.states = 0;
	w.party = WEAVE_OBSERVER;
	w.now_ns = BEGIN_NS;
	w.words = w.n_keys = 0;
	w.message[0] = 0;
	w.ending = RUNNING;
	for (i = 0; i < WEAVE_THREADS; i++)
		w.threads[i].stored = 0; /* of a run of the scenario before that was cut off */
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
	w.begin_ns = w.now_ns;
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
	double budget = (given ? atof(given) : 60) / 10 / n; /* all of these programs take as long as one torture test */
	unsigned i, failed = 0, done = 0;
	bool good;

	setvbuf(stdout, NULL, _IOLBF, 0);
	w.visited = mmap(NULL, sizeof(*w.visited) << VISITED_BITS, PROT_READ | PROT_WRITE,
	                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (i = 0; i < WEAVE_THREADS; i++)
		w.threads[i].stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < n; i++) {
		if (argc > 1 && strcmp(argv[1], scenarios[i].name))
			continue;
		open_scenario(&scenarios[i]);
		good = search(&scenarios[i], budget);
		failed += !good;
		printf("%s %u - %s\n", good ? "ok" : "not ok", ++done, scenarios[i].name);
		close_scenario();
	}
	printf("1..%u\n", done);
	return failed || !done;
}
