/* SPDX-License-Identifier: MIT */
/*
 * A process is dead when proc.c says so of its pid and start time. One of another pid namespace is judged by the lock
 * on its byte behind the region, which the kernel drops. One that has called exec() keeps both pid and start time: it
 * has left when its lock is gone and the kernel has marked the alive words of all its threads. A thread is dead when
 * its alive word says so (R.3).
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>

#include "futex.h"
#include "life.h"
#include "proc.h"

/* Asked by our own open file description: the lock is held by one of the other process, so it shows. */
static bool byte_is_free(const struct member *m, const struct segment *s, uint32_t process)
{
	struct flock lock = {.l_type = F_WRLCK,
	                     .l_whence = SEEK_SET,
	                     .l_start = member_lock_at(&s->geometry, process),
	                     .l_len = 1};

	int fd = (int)w32_load(&m->lock_fd) - 1;

	return fd >= 0 && mapping_is(fd, &m->segment.file) && !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type == F_UNLCK;
}

/*
 * exec() leaves the pid and start time as they were, and takes everything else: the lock byte is free, and the kernel
 * has marked the alive words of all threads. A process that lives on may have lost either (its descriptors were closed
 * by the program, its threads have left), so both have to be so; a thread without an alive word may be alive.
 */
static bool has_left_by_exec(const struct member *m, const struct segment *s, uint32_t i, uint64_t owner)
{
	uint32_t r, alive, seen;
	uint64_t reader;

	if (owner & PROC_UNLOCKED || !byte_is_free(m, s, i))
		return false;
	for (r = 0; r < s->geometry.readers; r++) {
		reader = w64_load(&s->readers[r].owner);
		if (OWNER_PROCESS(reader) != i + 1)
			continue;
		alive = w32_load(&s->readers[r].alive);
		if (!alive || alive > s->geometry.readers)
			return false;
		seen = w32_load(member_alive_word(&s->alive[alive - 1]));
		if (w64_load(&s->alive[alive - 1].holder) == READER_REF(reader >> 32, r) && seen & FUTEX_TID_MASK &&
		    !(seen & FUTEX_OWNER_DIED))
			return false;
	}
	return w64_load(&s->processes[i].owner) == owner && byte_is_free(m, s, i);
}

static bool process_is_dead(const struct member *m, const struct segment *s, uint32_t i, uint64_t owner)
{
	const struct wiped *w = m->wiped;

	if (s == &m->segment && w64_peek(&w->epoch) && i == w->process)
		return false;
	switch (proc_is_dead(owner, w64_load(&w->identity))) {
	case PROC_DEAD:
		return true;
	case PROC_FOREIGN:
		return !(owner & PROC_UNLOCKED) && byte_is_free(m, s, i) && w64_load(&s->processes[i].owner) == owner;
	}
	return has_left_by_exec(m, s, i, owner);
}

uint32_t life_process(const struct segment *s, uint32_t reader)
{
	return reader < s->geometry.readers ? OWNER_PROCESS(w64_load(&s->readers[reader].owner)) - 1 : UINT32_MAX;
}

uint64_t life_ref(const struct member *m, uint32_t reader)
{
	uint64_t owner;

	if (reader >= m->segment.geometry.readers)
		return 0;
	owner = w64_load(&m->segment.readers[reader].owner);
	return (uint32_t)owner ? READER_REF(owner >> 32, reader) : 0;
}

static enum life_state of_process(const struct member *m, uint64_t owner)
{
	uint32_t i = OWNER_PROCESS(owner) - 1;
	uint64_t identity;

	if (i >= m->segment.geometry.processes)
		return LIFE_GONE;
	identity = w64_load(&m->segment.processes[i].owner);
	if (!identity || (w32_load(&m->segment.processes[i].incarnation) & 0xffff) != (owner & 0xffff))
		/* and its slot freed already, before this reader was: a recoverer died between */
		return LIFE_PROCESS_DEAD;
	return process_is_dead(m, &m->segment, i, identity) ? LIFE_PROCESS_DEAD : LIFE_UNARMED;
}

enum life_state life_of(const struct member *m, uint64_t ref, const word32 **word, uint32_t *seen)
{
	uint32_t i = REF_READER(ref), alive;
	enum life_state life;
	uint64_t owner;
	struct alive *a;

	if (life_ref(m, i) != ref)
		return LIFE_GONE;
	owner = w64_load(&m->segment.readers[i].owner);
	alive = w32_load(&m->segment.readers[i].alive);
	if (alive && alive <= m->segment.geometry.readers) {
		a = &m->segment.alive[alive - 1];
		*seen = w32_load(member_alive_word(a));
		*word = member_alive_word(a);
		if (w64_load(&a->holder) == ref && *seen & FUTEX_TID_MASK && !(*seen & FUTEX_OWNER_DIED))
			return LIFE_ARMED;
		if (w64_load(&a->holder) == ref && *seen & FUTEX_OWNER_DIED) {
			futex_wake(member_alive_word(a), INT_MAX); /* the kernel wakes one; that one wakes the rest */
			life = of_process(m, owner);
			return life == LIFE_UNARMED ? LIFE_THREAD_DEAD : life;
		}
	}
	return of_process(m, owner);
}

bool life_next_corpse(const struct member *m, uint32_t *cursor, struct corpse *corpse)
{
	for (; *cursor < m->segment.geometry.processes; ++*cursor) {
		struct process *p = &m->segment.processes[*cursor];
		uint32_t incarnation = w32_load(&p->incarnation);
		uint64_t owner = w64_load(&p->owner);

		if (!owner || !process_is_dead(m, &m->segment, *cursor, owner))
			continue;
		*corpse = (struct corpse){*cursor, incarnation, owner};
		++*cursor;
		return true;
	}
	return false;
}

bool life_next_reader(const struct member *m, const struct corpse *c, uint32_t *cursor, uint64_t *ref)
{
	for (; *cursor < m->segment.geometry.readers; ++*cursor) {
		uint64_t owner = w64_load(&m->segment.readers[*cursor].owner);

		if (OWNER_PROCESS(owner) != c->process + 1 || (owner & 0xffff) != (c->incarnation & 0xffff))
			continue;
		*ref = READER_REF(owner >> 32, *cursor);
		++*cursor;
		return true;
	}
	return false;
}

bool life_next_dead_thread(const struct member *m, uint32_t *cursor, uint64_t *ref)
{
	while (*cursor < m->segment.geometry.readers) {
		const struct alive *a = &m->segment.alive[(*cursor)++];

		/* In this order: else one who takes the word after its owner's death, and lives, is taken for the
		 * dead. */
		*ref = w64_load(&a->holder);
		if (!(w32_load(member_alive_word(a)) & FUTEX_OWNER_DIED))
			continue;
		if (*ref && life_ref(m, REF_READER(*ref)) == *ref &&
		    w32_load(&m->segment.readers[REF_READER(*ref)].alive) == *cursor)
			return true;
	}
	return false;
}

/* The fence: our own slot was given back before we look at the others'. */
bool life_is_deserted(const struct member *m, const struct segment *s)
{
	uint64_t owner;
	uint32_t i;

	barrier_full();
	for (i = 0; i < s->geometry.processes; i++) {
		owner = w64_load(&s->processes[i].owner);
		if (owner && !process_is_dead(m, s, i, owner))
			return false;
	}
	return true;
}

bool life_free_reader(const struct member *m, uint64_t ref, unsigned words)
{
	struct reader *r = &m->segment.readers[REF_READER(ref)];
	uint64_t owner = w64_load(&r->owner), word;
	bool held = false;
	unsigned i;

	if (owner >> 32 != REF_INCARNATION(ref) || !(uint32_t)owner)
		return false;
	for (i = 0; i < READER_WORDS; i++) {
		word = w64_load(&r->words[i]);
		if (!word || word >> 32 != REF_INCARNATION(ref))
			continue;
		if (i < words)
			w64_cas(&r->words[i], word, 0);
		else
			held = true;
	}
	return !held && w64_cas(&r->owner, owner, owner >> 32 << 32);
}

void life_free_process(const struct member *m, const struct corpse *c)
{
	struct process *p = &m->segment.processes[c->process];

	/* Who comes back to the slot after exec() has the very same identity: of it the incarnation tells. */
	if (w32_load(&p->incarnation) == c->incarnation)
		w64_cas(&p->owner, c->owner, 0);
}
