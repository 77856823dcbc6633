/* SPDX-License-Identifier: MIT */
/*
 * Processes and threads: who holds which word, and what of a region is given back when.
 *
 *   process slot   process.c
 *   reader slot    owner = {inc, 0} --CAS--> {inc + 1, process} --CAS--> {inc + 1, 0}
 *   alive word     a robust, process-shared mutex that a thread locks at its first operation and unlocks at its exit
 *
 * R.1  A slot is claimed by one CAS that carries the owner's identity: a claimant that dies at any step is found by it.
 * R.2  Owner words and announcements carry incarnations and are cleared by CAS from the dead one's own value, the
 *      owner word last. So a recoverer may die half-way, and one that wakes up late changes nothing of a new owner's.
 * R.3  The alive word proves a thread's death: the kernel walks the thread's robust list, sets FUTEX_OWNER_DIED and
 *      wakes a sleeper. FUTEX_WAITERS is set once, so that it always does. `holder` tells whose word it is now; a
 *      reader whose alive word has another holder is judged by its process.
 * R.4  A dead thread's alive word is taken by the next thread that joins, but only after what the thread held is
 *      recovered (REGISTRY_CORPSE): else its waiters would sleep on a stranger's life. Where nobody joins by it, who
 *      looks for the dead finds it there (life_next_dead_thread).
 * R.5  Alive words lie in a mapping of their own that stays until the last thread that holds one has exited:
 *      munmap before exit would leave the kernel a list into nowhere and never fire the word. glibc keeps the list's
 *      pointers inside the mutexes, so bytes of this area are exempt from the promise that a bad byte crashes no-one.
 * R.6  All that a child of fork must not inherit lies on a MADV_WIPEONFORK page: the child, also one of raw clone,
 *      reads epoch 0 there and joins anew. A raw clone without glibc has no robust list: it holds no alive word, and
 *      its death is found by its process.
 *
 * R.7  A region that has moved is left by one process after the other and given back by who finds it empty. So a
 *      process that comes late claims its slot and then looks at header.moved: either it is seen there, or it sees that
 *      it is too late, and goes on to the next region.
 * R.8  The members of a handle share the thread's key. A thread's seat may be of an earlier member, which lasts until
 *      that thread has left it, at its first call in a later one.
 *
 * What is left at a kill: a locked byte (the kernel drops it), a process slot, reader slots with announcements, alive
 * words marked by the kernel: all found by life_next_corpse and life_next_reader.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "registry.h"

_Thread_local struct registry_here registry_here_cache;

#define OWNER_WORD(incarnation, process, process_incarnation)                                                         \
	((uint64_t)(incarnation) << 32 | (uint64_t)((process) + 1) << 16 | ((process_incarnation) & 0xffff))

/* ---- threads ----------------------------------------------------------------------------------------------- */

static bool has_robust_list(void)
{
	void *head = NULL;
	size_t size;

	return !syscall(SYS_get_robust_list, 0, &head, &size) && head;
}

/* Lock an alive word. *corpse: it was a dead thread's, and this reader is to be recovered first; it is ours already. */
static int64_t take_alive(struct member *m, uint64_t *corpse)
{
	uint32_t i, n = m->segment.geometry.readers;
	int r;

	*corpse = 0;
	if (!has_robust_list())
		return -1;
	for (i = 0; i < n; i++) {
		struct alive *a = &m->segment.alive[i];

		if (w32_peek(member_alive_word(a)) & ~FUTEX_OWNER_DIED & ~FUTEX_WAITERS)
			continue;
		r = pthread_mutex_trylock(&a->mutex);
		if (r == EOWNERDEAD) {
			pthread_mutex_consistent(&a->mutex);
			*corpse = w64_load(&a->holder);
			w64_store(&a->holder, 0); /* the dead one is judged by its process from here on */
		}
		if (r == 0 || r == EOWNERDEAD) {
			if ((w32_peek(member_alive_word(a)) & FUTEX_TID_MASK) == (uint32_t)syscall(SYS_gettid))
				return i;
			pthread_mutex_unlock(&a->mutex);
			return -1; /* glibc's idea of our thread id is not the kernel's */
		}
	}
	return -1;
}

static int claim_reader(struct member *m, struct seat *seat)
{
	const struct wiped *self = m->wiped;
	uint32_t i, w;

	for (i = 0; i < m->segment.geometry.readers; i++) {
		struct reader *r = &m->segment.readers[i];
		uint64_t owner = w64_peek(&r->owner);
		uint32_t incarnation = (uint32_t)(owner >> 32) + 1;

		if ((uint32_t)owner ||
		    !w64_cas(&r->owner, owner, OWNER_WORD(incarnation, self->process, self->incarnation)))
			continue;
		seat->reader = r;
		seat->index = i;
		seat->tag = (uint64_t)incarnation << 32;
		for (w = 0; w < READER_WORDS; w++) /* nobody's: of a scribble */
			w64_store(&r->words[w], 0);
		w64_poke(&m->segment.header->pins, 0); /* to be counted anew: one more who may pin */
		return SHOAL_OK;
	}
	return SHOAL_ERR_LIMIT;
}

static void arm(struct seat *seat)
{
	struct alive *a;

	w64_store(&seat->reader->waits, 0);
	w64_store(&seat->reader->changing, 0);
	if (seat->alive < 0) {
		w32_store(&seat->reader->alive, 0);
		return;
	}
	a = &seat->member->segment.alive[seat->alive];
	w64_store(&a->holder, member_ref(seat));
	atomic_fetch_or(member_alive_word(a), FUTEX_WAITERS);
	w32_store(&seat->reader->alive, (uint32_t)seat->alive + 1);
}

/* By the thread itself: nobody else can unlock its mutex. */
static void disarm(struct seat *seat)
{
	if (seat->alive < 0)
		return;
	pthread_mutex_unlock(&seat->member->segment.alive[seat->alive].mutex);
	seat->alive = -1;
}

static struct seat *new_seat(struct member *m)
{
	size_t size = sizeof(struct seat) + m->segment.geometry.keyspaces * sizeof(struct line *);
	struct seat *seat = m->graves;

	if (seat)
		m->graves = seat->next;
	else
		seat = calloc(1, size);
	if (!seat)
		return NULL;
	seat->epoch = w64_peek(&m->wiped->epoch);
	seat->member = m;
	seat->reader = NULL;
	seat->next = NULL;
	seat->alive = -1;
	seat->listed = false;
	seat->threaded = true;
	w32_store(&seat->abandoned, 0);
	memset(seat->lines, 0, size - sizeof(struct seat));
	return seat;
}

static void bury(struct member *m, struct seat *seat)
{
	seat->next = m->graves;
	m->graves = seat;
}

static void list(struct wiped *w, struct seat *seat)
{
	seat->next = w->seats;
	w->seats = seat;
	seat->listed = true;
}

static void unlist(struct wiped *w, struct seat *seat)
{
	struct seat **at = &w->seats;

	while (*at != seat)
		at = &(*at)->next;
	*at = seat->next;
	seat->listed = false;
}

static int begin_seat(struct member *m, struct seat **out, uint64_t *dead)
{
	struct seat *seat = new_seat(m);

	if (!seat || pthread_setspecific(m->lineage->key, seat)) {
		if (seat)
			bury(m, seat);
		return SHOAL_ERR_SYSTEM;
	}
	w32_add(&m->users, 1);
	seat->alive = take_alive(m, dead);
	*out = seat;
	return *dead ? REGISTRY_CORPSE : SHOAL_OK;
}

/* The thread's seat is kept between the two calls of a REGISTRY_CORPSE: it holds the alive word already. */
static int join_thread(struct member *m, struct seat **out, uint64_t *dead)
{
	struct seat *seat = pthread_getspecific(m->lineage->key);
	int r;

	if (!seat && (r = begin_seat(m, &seat, dead)))
		return r;
	r = claim_reader(m, seat);
	if (r) {
		disarm(seat);
		pthread_setspecific(m->lineage->key, NULL);
		w32_sub(&m->users, 1);
		bury(m, seat);
		return r;
	}
	arm(seat);
	list(m->wiped, seat);
	seat->random = seat->epoch + seat->tag + seat->index;
	registry_here_cache = (struct registry_here){seat->epoch, seat};
	*out = seat;
	return SHOAL_OK;
}

int registry_join(struct member *m, struct seat **seat, uint64_t *dead)
{
	int r;

	*dead = 0;
	pthread_mutex_lock(&m->wiped->lock);
	r = process_join(m);
	if (!r)
		r = join_thread(m, seat, dead);
	pthread_mutex_unlock(&m->wiped->lock);
	return r;
}

/* A seat of the parent's, found in a child of fork, is memory to be used again and nothing else. */
struct seat *registry_find(struct member *m)
{
	struct seat *seat = pthread_getspecific(m->lineage->key);

	if (!seat || seat->member != m)
		return NULL;
	if (seat->epoch != w64_peek(&m->wiped->epoch)) {
		pthread_setspecific(m->lineage->key, NULL);
		return NULL;
	}
	if (!seat->reader)
		return NULL;
	registry_here_cache = (struct registry_here){seat->epoch, seat};
	return seat;
}

struct seat *registry_left_behind(struct member *m)
{
	struct seat *seat = pthread_getspecific(m->lineage->key);

	if (!seat || seat->member == m)
		return NULL;
	pthread_setspecific(m->lineage->key, NULL);
	return seat;
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static bool holds_something(const struct seat *seat)
{
	unsigned i;

	for (i = PINS; i < READER_WORDS; i++)
		if (w64_load(&seat->reader->words[i]) >> 32 == seat->tag >> 32)
			return true;
	return w32_load(&seat->loads) != 0;
}

/* Closed, and no value or load in hand: the mapping and the process slot go. */
static void end_mapping(struct member *m)
{
	struct wiped *w = m->wiped;

	if (!m->closed || w->seats || m->ended)
		return;
	m->ended = true;
	if (w64_peek(&w->epoch))
		process_free(m);
	if (segment_has_moved(&m->segment) && !m->segment.read_only && life_is_deserted(m, &m->segment)) {
		segment_punch(&m->segment);
		/* after it: who dies between leaves it to the next who looks */
		w64_store(&m->segment.header->drained, 1);
	}
	if (!m->inherited || !segment_has_moved(&m->segment)) /* a child may look at values of its parent's */
		segment_unmap(&m->segment);
	segment_close_fd(&m->segment);
}

/* Under the lock, so that one of several does it. Returns whether this was the end of the mapping. */
static bool settle(struct member *m, struct seat *seat)
{
	if (!w32_peek(&seat->abandoned) || !seat->listed || holds_something(seat))
		return false;
	unlist(m->wiped, seat);
	life_free_reader(m, member_ref(seat), PINS);
	if (!seat->threaded)
		bury(m, seat);
	end_mapping(m);
	return m->ended;
}

static int make_guest(struct member *m, struct seat **out)
{
	struct seat *seat = new_seat(m);
	int r = seat ? claim_reader(m, seat) : SHOAL_ERR_SYSTEM;

	if (r) {
		if (seat)
			bury(m, seat);
		return r;
	}
	seat->threaded = false;
	arm(seat);
	list(m->wiped, seat);
	*out = seat;
	return SHOAL_OK;
}

int registry_guest(struct member *m, struct seat **seat)
{
	int r;

	pthread_mutex_lock(&m->wiped->lock);
	r = process_join(m);
	if (!r)
		r = make_guest(m, seat);
	pthread_mutex_unlock(&m->wiped->lock);
	return r;
}

void registry_end_guest(struct seat *seat)
{
	struct member *m = seat->member;

	pthread_mutex_lock(&m->wiped->lock);
	w32_store(&seat->abandoned, 1);
	settle(m, seat);
	pthread_mutex_unlock(&m->wiped->lock);
}

static void drop_lineage(struct lineage *l)
{
	if (w32_sub(&l->members, 1) > 1)
		return;
	pthread_key_delete(l->key);
	free(l);
}

static void end_member(struct member *m)
{
	struct seat *seat;

	urcu_bp_synchronize_rcu(); /* those who are in registry_settle */
	segment_unmap_alive(m->segment.alive, &m->segment.geometry);
	drop_lineage(m->lineage);
	if (m->inherited)
		/* values of the parent's may still be released here, which looks at `wiped` through their seats */
		return;
	while ((seat = m->graves)) {
		m->graves = seat->next;
		free(seat);
	}
	munmap(m->wiped, PAGE);
	free(m);
}

/* The pin is cleared before the look at `abandoned`; who abandons a seat sets that before it looks at the pins. So one
 * of the two sees that the last pin has gone. */
void registry_settle(struct seat *seat, unsigned pin)
{
	struct member *m;
	bool last = false;

	urcu_bp_read_lock();
	if (pin)
		w64_store(&seat->reader->words[pin], 0);
	if (unlikely(w32_load(&seat->abandoned))) {
		m = seat->member;
		pthread_mutex_lock(&m->wiped->lock);
		last = settle(m, seat) && !w32_peek(&m->users);
		pthread_mutex_unlock(&m->wiped->lock);
	}
	urcu_bp_read_unlock();
	if (unlikely(last))
		end_member(m);
}

static void leave(struct member *m, struct seat *seat)
{
	if (registry_here_cache.seat == seat)
		registry_here_cache = (struct registry_here){0, NULL};
	disarm(seat);
	seat->threaded = false;
	w32_store(&seat->abandoned, 1);
	if (seat->listed)
		settle(m, seat);
	else
		bury(m, seat); /* its handle was closed before */
	w32_sub(&m->users, 1);
}

void registry_leave(struct seat *seat)
{
	struct member *m = seat->member;
	bool last;

	if (seat->epoch != w64_peek(&m->wiped->epoch))
		return; /* the parent's, in a child */
	pthread_mutex_lock(&m->wiped->lock);
	leave(m, seat);
	last = !w32_peek(&m->users) && m->ended;
	pthread_mutex_unlock(&m->wiped->lock);
	if (last)
		end_member(m);
}

static int open_with(struct member *m, struct lineage *lineage)
{
	m->wiped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->wiped == MAP_FAILED)
		return SHOAL_ERR_SYSTEM;
	if (madvise(m->wiped, PAGE, MADV_WIPEONFORK)) {
		munmap(m->wiped, PAGE);
		return SHOAL_ERR_SYSTEM;
	}
	w32_add(&lineage->members, 1);
	m->lineage = lineage;
	w32_store(&m->wiped->ours, 1);
	w32_store(&m->users, 1);
	return SHOAL_OK;
}

int registry_open(struct member *m, void (*at_exit)(void *seat))
{
	struct lineage *lineage;
	int r;

	if ((errno = process_watch_forks()) || !(lineage = calloc(1, sizeof(*lineage))))
		return SHOAL_ERR_SYSTEM;
	if ((errno = pthread_key_create(&lineage->key, at_exit))) {
		free(lineage);
		return SHOAL_ERR_SYSTEM;
	}
	w32_store(&lineage->members, 1);
	r = open_with(m, lineage);
	if (!r)
		w32_poke(&m->wiped->opened, 1);
	drop_lineage(lineage);
	return r;
}

int registry_succeed(struct member *m, const struct member *before)
{
	int r = open_with(m, before->lineage);

	if (!r) {
		w64_store(&m->wiped->token, w64_load(&before->wiped->token)); /* 0 in a child: drawn when it joins */
		w32_poke(&m->wiped->opened, w32_peek(&before->wiped->opened));
	}
	return r;
}

void registry_close(struct member *m)
{
	struct seat *own = pthread_getspecific(m->lineage->key), *seat, *next;
	bool last;

	pthread_mutex_lock(&m->wiped->lock);
	m->closed = true;
	if (own && own->member == m && own->epoch == w64_peek(&m->wiped->epoch)) {
		pthread_setspecific(m->lineage->key, NULL);
		leave(m, own);
	}
	for (seat = m->wiped->seats; seat; seat = next) {
		next = seat->next;
		w32_store(&seat->abandoned, 1);
		settle(m, seat);
	}
	end_mapping(m);
	last = w32_sub(&m->users, 1) == 1 && m->ended;
	pthread_mutex_unlock(&m->wiped->lock);
	if (last)
		end_member(m);
}
