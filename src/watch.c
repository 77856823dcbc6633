/* SPDX-License-Identifier: MIT */
/*
 * Watching: event loops wait for loads without sleeping in them.
 *
 *   completer (any process)                 watcher's process
 *     CAS of the flight's word                thread    sleeps on its bell and on the lives of leaders
 *     watchers != 0? take a bit                         takes the bits, makes the fd readable, sleeps again
 *     set bits in that process's bell         loop      is told by the fd; shoal_dispatch() takes the bits of bells and
 *     there were none: wake its thread                  of the thread, looks at what is watched under
 *                                                       them, calls the wakes
 *
 * Why a thread. A leader's death has to arrive at once, and only a futex tells of it in time: the kernel marks the
 * alive word before it gives the memory back, and makes a pidfd readable, or closes a socket, after that: 100 ms later
 * for 1 GiB (measured). No descriptor waits for a futex, so somebody has to sleep there. And as that one is there, it
 * sleeps on the bell as well: no socket, so no address in the segment that a stranger could send to or fill, nothing
 * that ends at a network namespace, nothing that a sandbox without sockets refuses. It costs a second hop: 31 us where
 * all are on one processor, of a load that is waited for 25, of a plain futex 11; and hardly more across two (92, 83 and
 * 73), where any wake is dear (process/watch prints it).
 * Where threads are refused the fd is a timerfd that ticks while something is watched, each 10 ms, as a blocking
 * waiter does without futex_waitv.
 *
 * A watched load is in one of three places, under the lock:
 *   in a class      by its number: waiting
 *   due             to be looked at; shoal_dispatch() does, and either calls its wake, or puts it in a class again
 *   in none         its wake is being called, or was; or it was taken back
 *
 * B.1  Nothing is missed: a watcher sets its bit in flight.watchers, then looks at the word once more, and for its
 *      value; a completer changes these, then looks at the watchers. All four are seq_cst, so one of the two sees the
 *      other. For a permit it is process.listens and the kick counter.
 * B.2  Bits are taken before words are looked at, by the thread and by dispatch: a change after that look rings anew.
 *      What the thread has taken is in `rung` before the fd is readable, and dispatch empties the fd before it takes
 *      `rung`. A dispatch between the two leaves nothing to find: the fd is readable once for nothing.
 * B.3  A wake that was lost costs 250 ms: the words of each watched load are looked at again after that, whatever
 *      rang. Lost are those of a completer, or of one who relays, that dies between taking a bit and the wake. A load
 *      is also looked at for good when its lease or its time ends, and each 2 s; each 10 ms if nothing tells of its
 *      leader's death.
 * B.4  A ring is a hint. The wake is called when dispatch has looked, and the outcome is in hand (or the time over):
 *      so never for nothing, and once for each watch.
 * B.5  All of it is the process's own: a child of fork has another token and never touches its parent's, whose lock
 *      may be held for ever there. The bell is found by the process slot, which is another one in the child.
 * B.6  The thread reads words only of sources that somebody uses, whose load has a hold on the mapping. Others it
 *      passes to the kernel, at most twice: what is not mapped any more ends a sleep, what is mapped anew ends none
 *      that matters.
 * B.7  The thread is told of what it has to know earlier than it would wake: a new source, an earlier time. In the
 *      steady state that is nothing: leaders are the same, and it wakes each 250 ms anyway.
 * B.8  Not each ring changes the word: a flight is nudged, too (flight.h), and only the bit that was taken tells. Who
 *      sets it again for one load takes the others of the flight for rung.
 *
 * B.9  Bits outlive the flight: who claims its slot leaves them, as who ended it may be about to take them, and ring.
 *
 * Any number of loads: bits share 32 classes, and each class has its own next time, so that a ring or a tick looks at
 * a 32nd of what is watched: three words each. All of one flight are due together, and each is then looked at once.
 *
 * What is left if the process dies: its bits in flights' `watchers`, and `listens` in its slot. They cost who
 * completes a bit in a word that nobody reads. Bits of an earlier owner of the slot cost the next one a look.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "futex.h"
#include "watch.h"

#define NEVER UINT64_MAX
#define AGAIN_NS UINT64_C(250000000)
#define TICK_NS 10000000
#define STACK ((size_t)64 << 10)

_Static_assert(WATCH_SOURCES < FUTEX_WORDS, "and `news`");

static uint64_t now_ns(void)
{
	return clock_system_ns(CLOCK_MONOTONIC);
}

/* ---- the descriptor ---------------------------------------------------------------------------------------- */

static void tick(struct watch *w, bool on)
{
	struct itimerspec each = {.it_interval.tv_nsec = on ? TICK_NS : 0, .it_value.tv_nsec = on ? TICK_NS : 0};

	if (w->helped || w->ticking == on)
		return;
	w->ticking = on;
	timerfd_settime(w->fd, 0, &each, NULL);
}

/* A full counter is readable, too. */
static void make_readable(const struct watch *w)
{
	uint64_t one = 1;
	ssize_t n = write(w->fd, &one, sizeof(one));

	(void)n;
}

/* True: it was not, and the caller is to make it so, now or when it has let go of the lock. */
static bool set_told(struct watch *w)
{
	if (w->told || !w->helped)
		return false;
	w->told = true;
	return true;
}

void watch_tell(struct watch *w)
{
	if (set_told(w))
		make_readable(w);
}

static void be_told(struct watch *w)
{
	uint64_t count;
	ssize_t n = read(w->fd, &count, sizeof(count));

	(void)n;
	w->told = false;
}

/* For the thread: look at the rest anew. */
static void give_news(struct watch *w)
{
	w32_add(&w->news, 1);
	futex_wake(&w->news, 1);
}

/* ---- sources ----------------------------------------------------------------------------------------------- */

/* NULL: no room, so it is looked at in slices. */
static struct watch_source *use_source(struct watch *w, const word32 *word, uint32_t seen, bool is_bell, uint32_t bits)
{
	struct watch_source *s, *found = NULL;

	for (s = w->sources; s < w->sources + w->n_sources; s++) {
		if (s->word == word && s->seen == seen && !s->gone) {
			found = s;
			break;
		}
		if (!found && !s->users && (!s->word || s->idle || s->gone))
			found = s;
	}
	if (!found && w->n_sources == WATCH_SOURCES)
		return NULL;
	found = found ? found : &w->sources[w->n_sources++];
	if (found->word != word || found->seen != seen || found->gone)
		*found = (struct watch_source){.word = word, .seen = seen, .is_bell = is_bell};
	found->users++;
	found->idle = 0;
	found->bits |= bits;
	if (w->helped && !found->slept_on)
		give_news(w);
	return found;
}

static void drop_source(struct watch_source *s)
{
	if (s)
		s->users--;
}

/* The kernel wakes one sleeper of a dead leader's; that one wakes the rest. */
static uint32_t look_at_source(struct watch_source *s)
{
	if (s->is_bell)
		return w32_load(s->word) ? atomic_exchange((word32 *)s->word, 0) : 0;
	if (s->gone || w32_load(s->word) == s->seen)
		return 0;
	s->gone = true;
	futex_wake(s->word, INT_MAX);
	return s->bits;
}

static uint32_t look_at_sources(struct watch *w)
{
	struct watch_source *s;
	uint32_t bits = 0;

	for (s = w->sources; s < w->sources + w->n_sources; s++)
		if (s->word && s->users)
			bits |= look_at_source(s);
	return bits;
}

/* ---- the thread -------------------------------------------------------------------------------------------- */

static bool is_to_be_slept_on(struct watch_source *s)
{
	if (s->users)
		s->idle = 0;
	else if (s->word && s->idle++)
		*s = (struct watch_source){.word = NULL};
	return s->slept_on = s->word && !s->gone;
}

/* A bell first: where there is no futex_waitv, it is slept on alone. */
static unsigned what_to_sleep_on(struct watch *w, struct futex_word words[FUTEX_WORDS])
{
	struct watch_source *s;
	struct futex_word first;
	unsigned n = 1;

	words[0] = (struct futex_word){&w->news, w32_load(&w->news)};
	for (s = w->sources; s < w->sources + w->n_sources; s++) {
		if (!is_to_be_slept_on(s))
			continue;
		words[n++] = (struct futex_word){s->word, s->seen};
		if (s->is_bell) {
			first = words[0];
			words[0] = words[n - 1];
			words[n - 1] = first;
		}
	}
	while (w->n_sources && !w->sources[w->n_sources - 1].word)
		w->n_sources--;
	return n;
}

/* The earliest that something is to be looked at. */
static uint64_t next_of(const struct watch *w)
{
	uint64_t next = NEVER;
	unsigned i;

	for (i = 0; i < BELL_BITS; i++)
		next = min_u64(next, w->next_ns[i]);
	return next;
}

/* It tells last, without the lock: the loop, which wants it at once, may push it off the processor there. */
static void *help(void *arg)
{
	struct watch *w = arg;
	struct futex_word words[FUTEX_WORDS];
	uint64_t now;
	uint32_t bits;
	unsigned n;
	bool tells;

	pthread_mutex_lock(&w->lock);
	while (!w->closed) {
		bits = look_at_sources(w);
		w->rung |= bits;
		now = now_ns();
		tells = (bits || next_of(w) <= now) && set_told(w);
		n = what_to_sleep_on(w, words);
		w->sleeps_until = next_of(w) <= now ? now + AGAIN_NS : next_of(w); /* over: dispatch is told */
		pthread_mutex_unlock(&w->lock);
		if (tells)
			make_readable(w);
		futex_wait_any(words, n, w->sleeps_until);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Signals are the application's: none is delivered to it. */
static int start_helper(struct watch *w)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int error;

	sigfillset(&all);
	if (pthread_attr_init(&attr))
		return -1;
	pthread_attr_setstacksize(&attr, STACK + (size_t)PTHREAD_STACK_MIN);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&w->helper, &attr, help, w);
	if (error == EINVAL) /* too small for the program's thread-local variables */
		error = pthread_create(&w->helper, NULL, help, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return error;
}

/* ---- begin and end ----------------------------------------------------------------------------------------- */

/* With a thread, or without. */
static int open_descriptor(struct watch *w)
{
	w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->helped = w->fd >= 0;
	if (w->helped && !start_helper(w))
		return SHOAL_OK;
	if (w->helped)
		close(w->fd);
	w->helped = false;
	w->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	return w->fd < 0 ? SHOAL_ERR_SYSTEM : SHOAL_OK;
}

int watch_open(uint64_t token, struct watch **out)
{
	struct watch *w = calloc(1, sizeof(*w));
	unsigned i;
	int error;

	if (!w)
		return SHOAL_ERR_SYSTEM;
	pthread_mutex_init(&w->lock, NULL);
	w->token = token;
	w->users = 1;
	w->again_ns = AGAIN_NS;
	w->pid = getpid();
	CDS_INIT_LIST_HEAD(&w->due);
	for (i = 0; i < BELL_BITS; i++)
		w->next_ns[i] = NEVER;
	for (i = 0; i < BELL_BITS * WATCH_LISTS; i++)
		CDS_INIT_LIST_HEAD(&w->loads[i / WATCH_LISTS][i % WATCH_LISTS]);
	if (open_descriptor(w)) {
		error = errno;
		free(w);
		errno = error;
		return SHOAL_ERR_SYSTEM;
	}
	*out = w;
	return SHOAL_OK;
}

void watch_release(struct watch *w)
{
	bool last = !--w->users;

	pthread_mutex_unlock(&w->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static void forget(struct watch *w, struct watched *e)
{
	watch_take(w, e);
	e->of = NULL;
}

static void forget_all(struct watch *w, struct cds_list_head *list)
{
	while (!cds_list_empty(list))
		forget(w, cds_list_first_entry(list, struct watched, node));
}

void watch_close(struct watch *w, uint64_t token)
{
	unsigned i;

	if (!w || w->token != token)
		return;
	pthread_mutex_lock(&w->lock);
	w->closed = true;
	for (i = 0; i < BELL_BITS * WATCH_LISTS; i++)
		forget_all(w, &w->loads[i / WATCH_LISTS][i % WATCH_LISTS]);
	forget_all(w, &w->due);
	pthread_mutex_unlock(&w->lock);
	if (w->helped) {
		give_news(w);
		pthread_join(w->helper, NULL);
	}
	close(w->fd);
	pthread_mutex_lock(&w->lock);
	watch_release(w);
}

/* ---- what is watched --------------------------------------------------------------------------------------- */

void watch_take(struct watch *w, struct watched *e)
{
	cds_list_del(&e->node);
	w->n--;
	w->n_due -= e->due;
	e->due = false;
	drop_source(e->bell);
	drop_source(e->life);
	e->bell = e->life = NULL;
}

void watch_remove(struct watched *e)
{
	struct watch *w = e->of;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	if (e->of)
		forget(w, e);
	pthread_mutex_unlock(&w->lock);
}

void watch_add_due(struct watch *w, struct watched *e)
{
	e->of = w;
	e->due = true;
	w->n++;
	w->n_due++;
	cds_list_add_tail(&e->node, &w->due);
	tick(w, true);
}

static struct cds_list_head *list_of(struct watch *w, const struct bell_words *words)
{
	return &w->loads[words->number % BELL_BITS][words->number / BELL_BITS % WATCH_LISTS];
}

static void is_due_now(struct watch *w, struct watched *e)
{
	watch_take(w, e);
	watch_add_due(w, e);
}

/* B.8 */
void watch_rouse(struct watch *w, const struct bell_words *words)
{
	struct watched *e, *next;

	if (!words->is_first)
		return;
	cds_list_for_each_entry_safe(e, next, list_of(w, words), node) {
		if (e->words.watchers != words->watchers)
			continue;
		is_due_now(w, e);
		watch_tell(w);
	}
}

static uint64_t later(uint64_t now, uint64_t ns)
{
	return ns < NEVER - now ? now + ns : NEVER;
}

/* A source that finds no room is looked at each tick. */
void watch_add(struct watch *w, struct watched *e, const struct member *m)
{
	uint64_t slice_ns = e->words.slice_ms * 1000000, now = now_ns(), next,
		 *earliest = &w->next_ns[e->words.number % BELL_BITS];

	e->of = w;
	e->segment = &m->segment;
	e->bell = use_source(w, bell_listen(m), 0, true, 0);
	if (e->words.is_life)
		e->life = use_source(w, e->words.low, e->words.low_seen, false, BELL_BIT(e->words.number));
	if (!e->bell || (e->words.is_life && !e->life))
		slice_ns = min_u64(slice_ns, TICK_NS);
	e->next_ns = min_u64(e->deadline_ns, now + slice_ns);
	next = min_u64(e->next_ns, later(now, w->again_ns));
	cds_list_add_tail(&e->node, list_of(w, &e->words));
	w->n++;
	*earliest = min_u64(*earliest, next);
	if (w->helped && next < w->sleeps_until)
		give_news(w);
	tick(w, true);
}

static bool is_due(const struct watched *e, uint64_t now)
{
	return now >= e->next_ns || w64_load(e->words.word) != e->words.word_seen ||
	       (e->words.watchers && !(w64_load(e->words.watchers) & e->words.bit)) ||
	       (e->words.low && w32_load(e->words.low) != e->words.low_seen) || segment_has_moved(e->segment);
}

/* Returns the earliest that one of the rest is to be looked at. */
static uint64_t collect_list(struct watch *w, struct cds_list_head *list, uint64_t now)
{
	struct watched *e, *next;
	uint64_t earliest = NEVER;

	cds_list_for_each_entry_safe(e, next, list, node) {
		if (is_due(e, now))
			is_due_now(w, e);
		else
			earliest = min_u64(earliest, min_u64(e->next_ns, later(now, w->again_ns)));
	}
	return earliest;
}

static void collect_class(struct watch *w, unsigned class, uint64_t now)
{
	unsigned i;

	w->next_ns[class] = NEVER;
	for (i = 0; i < WATCH_LISTS; i++)
		w->next_ns[class] = min_u64(w->next_ns[class], collect_list(w, &w->loads[class][i], now));
}

void watch_collect(struct watch *w)
{
	uint64_t now;
	uint32_t bits;
	unsigned i;

	be_told(w);
	bits = w->rung | look_at_sources(w); /* B.2: then we look */
	w->rung = 0;
	now = now_ns();
	for (i = 0; i < BELL_BITS; i++)
		if (bits >> i & 1 || now >= w->next_ns[i])
			collect_class(w, i, now);
	if (!w->n)
		tick(w, false);
}

void watch_go_on(struct watch *w)
{
	if (w->n_due)
		watch_tell(w);
	if (w->helped && next_of(w) < w->sleeps_until)
		give_news(w);
}
