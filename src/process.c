/* SPDX-License-Identifier: MIT */
/*
 * The process's own slot, and what fork does to it.
 *
 *   process slot   owner = 0 --CAS--> identity --CAS--> 0      (incarnation + 1 by the claimant, its only writer: of
 *                                                               several recoverers a late one has nothing to bump)
 *
 * Holds R.1 (a claim carries its claimant's identity), R.6 (a child of fork inherits nothing) and R.7 (nobody joins a
 * region that has moved) of registry.c. What is left at a kill: a locked byte, which the kernel drops, and the slot,
 * which life_next_corpse finds.
 */
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <urcu/urcu-bp.h>

#include "life.h"
#include "mapping.h"
#include "proc.h"
#include "process.h"

/* ---- the slot ---------------------------------------------------------------------------------------------- */

static bool lock_byte(int fd, const struct geometry *g, uint32_t process)
{
	struct flock lock = {.l_type = F_WRLCK,
	                     .l_whence = SEEK_SET,
	                     .l_start = member_lock_at(g, process),
	                     .l_len = 1};

	return !fcntl(fd, F_OFD_SETLK, &lock);
}

static void unlock_byte(int fd, const struct geometry *g, uint32_t process)
{
	struct flock lock = {.l_type = F_UNLCK,
	                     .l_whence = SEEK_SET,
	                     .l_start = member_lock_at(g, process),
	                     .l_len = 1};

	fcntl(fd, F_OFD_SETLK, &lock);
}

static void close_lock(struct member *m)
{
	int fd = (int)w32_load(&m->lock_fd) - 1;

	w32_store(&m->lock_fd, 0);
	if (fd >= 0 && mapping_is(fd, &m->segment.file))
		close(fd);
}

/* The byte is locked before the slot is claimed: a judge that sees our identity must find it locked. */
static int claim_process(struct member *m, struct wiped *w)
{
	const struct geometry *g = &m->segment.geometry;
	int fd = mapping_reopen(segment_fd(&m->segment));
	uint32_t i;

	w64_store(&w->identity, proc_self() | (fd < 0 ? PROC_UNLOCKED : 0));
	for (i = 0; i < g->processes; i++) {
		struct process *p = &m->segment.processes[i];

		if (w64_peek(&p->owner) || (fd >= 0 && !lock_byte(fd, g, i)))
			continue;
		if (w64_cas(&p->owner, 0, w64_peek(&w->identity))) {
			w->process = i;
			w->incarnation = w32_add(&p->incarnation, 1) + 1;
			w64_store(&p->joined_ms, clock_ms(&m->segment.clock));
			w32_store(&p->listens, 0);
			w32_store(&m->lock_fd, (uint32_t)fd + 1);
			return SHOAL_OK;
		}
		if (fd >= 0)
			unlock_byte(fd, g, i);
	}
	if (fd >= 0)
		close(fd);
	return SHOAL_ERR_LIMIT;
}

void process_free(struct member *m)
{
	const struct wiped *w = m->wiped;

	life_free_process(m, &(struct corpse){w->process, w->incarnation, w64_peek(&w->identity)});
	close_lock(m);
}

/* ---- fork -------------------------------------------------------------------------------------------------- */

/*
 * urcu-bp keeps the threads of a process in a registry behind locks. A child of fork must find the locks free and the
 * parent's threads gone, or its first grace period would wait for them: so fork goes through urcu-bp's own hooks,
 * before the child has a second thread. A raw clone runs no hooks: its first call makes up for it. Nowhere else: it
 * would take the protection of the threads that are there away.
 */
static word32 urcu_process; /* whose threads are in the registry */
static int hook_error;

static void after_fork_child(void)
{
	urcu_bp_after_fork_child();
	w32_store(&urcu_process, (uint32_t)getpid());
}

static void watch_forks(void)
{
	w32_store(&urcu_process, (uint32_t)getpid());
	hook_error = pthread_atfork(urcu_bp_before_fork, urcu_bp_after_fork_parent, after_fork_child);
}

int process_watch_forks(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_forks);
	return hook_error;
}

static void forget_parent_threads(void)
{
	uint32_t pid = (uint32_t)getpid(), before = w32_load(&urcu_process);

	if (before == pid || !w32_cas(&urcu_process, before, pid))
		return;
	urcu_bp_before_fork();
	urcu_bp_after_fork_child();
}

/* Under the lock: the child's threads may come at once. */
static void notice_fork(struct member *m)
{
	if (w32_peek(&m->wiped->ours))
		return;
	forget_parent_threads();
	close_lock(m); /* the parent's: it would be held as long as we live */
	m->inherited |= m->joined;
	w32_store(&m->users, 1); /* the handle; the parent's threads are not ours */
	w32_store(&m->wiped->ours, 1);
}

void process_notice_fork(struct member *m)
{
	if (w32_load(&m->wiped->ours))
		return;
	pthread_mutex_lock(&m->wiped->lock);
	notice_fork(m);
	pthread_mutex_unlock(&m->wiped->lock);
}

/* ---- join -------------------------------------------------------------------------------------------------- */

int process_join(struct member *m)
{
	struct wiped *w = m->wiped;
	uint64_t epoch[2];
	int r;

	if (w64_peek(&w->epoch))
		return SHOAL_OK;
	notice_fork(m);
	if (!w32_peek(&w->opened) && !segment_has_our_clock(&m->segment))
		return SHOAL_ERR_LAYOUT;
	if (!m->segment.fence && proc_use_membarrier())
		return SHOAL_ERR_SYSTEM;
	if (getrandom(epoch, sizeof(epoch), 0) != sizeof(epoch))
		return SHOAL_ERR_SYSTEM;
	r = claim_process(m, w);
	if (r)
		return r;
	if (segment_has_moved(&m->segment)) { /* R.7, after the CAS that claimed */
		process_free(m);
		return PROCESS_MOVED;
	}
	m->joined = true;
	if (!w64_peek(&w->token))
		w64_store(&w->token, epoch[1] | 1);
	w64_store(&w->epoch, epoch[0] | 1);
	return SHOAL_OK;
}
