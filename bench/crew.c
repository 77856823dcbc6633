/* SPDX-License-Identifier: MIT */
#include "crew.h"
#include "pages.h"
#include "ticks.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_NS 50000000 /* between two looks whether the host lives */
#define CHECKS 20000u    /* gets whose value is looked at, over all workers */

struct seat {
	sem_t go;
	struct tally tally;
};

struct board { /* shared */
	sem_t done;
	atomic_int failed, ending;
	atomic_uint arrived;
	atomic_uint checked, missing, huge_kb;
	struct round round;
	unsigned rounds;
	struct seat seats[];
};

struct crew {
	const struct peer *peer;
	struct peer_setup setup;
	struct pinning pinning;
	struct board *board;
	size_t board_size;
	pid_t host;
};

struct member {
	const struct crew *crew;
	struct worker worker;
};

/* ---- workers ----------------------------------------------------------------------------------------------- */

void pin(const struct pinning *pinning, unsigned number)
{
	cpu_set_t set;

	if (!pinning->count)
		return;
	CPU_ZERO(&set);
	CPU_SET(pinning->cpus[number % pinning->count], &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void all_together(struct board *board, unsigned processes)
{
	unsigned spins = 0;

	atomic_fetch_add(&board->arrived, 1);
	while (atomic_load(&board->arrived) < processes)
		if (++spins % 64 == 0)
			sched_yield();
}

/* The values are those that were stored. */
static int check(const struct crew *crew, struct worker *worker)
{
	const struct workload *w = crew->setup.workload;
	char *buffer = malloc(w->value_to + 64);
	unsigned i, n = CHECKS / crew->setup.processes + 1, missing = 0;
	int rc = 0;

	for (i = 0; i < n && !rc && crew->peer->get; i++) {
		const struct request *r = &w->requests[(worker->at + i * 97u) & (w->count - 1)];
		size_t size = crew->peer->get(worker, r, buffer);

		missing += !size;
		if (size && !workload_value_is_right(w, r->number, buffer, size)) {
			fprintf(stderr, "%s: key %u has a value that was not stored under it\n", crew->peer->name,
			        r->number);
			rc = -1;
		}
	}
	atomic_fetch_add(&crew->board->checked, n);
	atomic_fetch_add(&crew->board->missing, missing);
	free(buffer);
	return rc;
}

static void *work(void *arg)
{
	struct member *m = arg;
	const struct crew *crew = m->crew;
	struct board *board = crew->board;
	struct seat *seat = &board->seats[m->worker.number];

	pin(&crew->pinning, m->worker.number);
	if ((crew->peer->join && crew->peer->join(&m->worker)) || check(crew, &m->worker))
		atomic_store(&board->failed, 1);
	if (m->worker.number == 0)
		atomic_store(&board->huge_kb, pages_huge_kb());
	sem_post(&board->done);
	while (!atomic_load(&board->failed)) {
		while (sem_wait(&seat->go) && errno == EINTR)
			;
		if (atomic_load(&board->ending))
			break;
		if (board->round.job) {
			board->round.job(crew->peer, &m->worker, board->round.arg);
		} else {
			pages_touch();
			all_together(board, crew->setup.processes);
			crew->peer->run(&m->worker, &board->round, &seat->tally);
		}
		sem_post(&board->done);
	}
	if (crew->peer->leave)
		crew->peer->leave(&m->worker);
	return NULL;
}

static void work_as_process(void *arg)
{
	work(arg);
}

/* ---- host -------------------------------------------------------------------------------------------------- */

static int fill(const struct crew *crew, void *state)
{
	const struct workload *w = crew->setup.workload;
	char key[KEY_SIZE], *value = malloc(w->value_to);
	int rc = 0;

	for (uint32_t i = 0; i < w->keys && !rc && crew->peer->set; i++) {
		workload_key(i, key);
		workload_value(w, i, value);
		rc = crew->peer->set(state, key, i, value, w->sizes[i]);
	}
	free(value);
	return rc || (crew->peer->filled && crew->peer->filled(state)) ? -1 : 0;
}

int crew_fork(void (*body)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(9);
	body(arg);
	_exit(0);
}

/* Threads see the host's mappings by one page table, forked workers each by its own: as their users would have it. */
static void host(void *arg)
{
	struct crew *crew = arg;
	unsigned i, n = crew->setup.processes;
	struct member *members = calloc(n, sizeof(*members));
	pthread_t *threads = calloc(n, sizeof(*threads));
	int status = 0, rc = 0;
	void *state = NULL;

	if (crew->peer->open(&crew->setup, &state) || fill(crew, state)) {
		atomic_store(&crew->board->failed, 1);
		_exit(1);
	}
	for (i = 0; i < n; i++) {
		uint32_t at = (uint32_t)((uint64_t)crew->setup.workload->count * i / n);

		members[i] = (struct member){crew, {&crew->setup, i, at, state}};
		if (crew->peer->flags & PEER_THREADS)
			rc |= pthread_create(&threads[i], NULL, work, &members[i]);
		else
			rc |= crew_fork(work_as_process, &members[i]) < 0;
	}
	for (i = 0; i < n && !rc && crew->peer->flags & PEER_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < n && !rc && !(crew->peer->flags & PEER_THREADS); i++) {
		while (wait(&status) < 0 && errno == EINTR)
			;
		rc |= status;
	}
	if (crew->peer->close)
		crew->peer->close(state);
	_exit(rc != 0);
}

/* ---- directories ------------------------------------------------------------------------------------------- */

static char base[] = "/dev/shm/shoal-bench.XXXXXX";

int directory_begin(void)
{
	if (mkdtemp(base) && !chmod(base, 0755)) /* servers may change to a user of their own */
		return 0;
	perror("shoal-bench: /dev/shm");
	return -1;
}

void directory_end(void)
{
	directory_remove(base);
}

int directory_make(char path[DIRECTORY_SIZE])
{
	static unsigned number;

	snprintf(path, DIRECTORY_SIZE, "%s/%u", base, number++);
	if (!mkdir(path, 0755))
		return 0;
	perror(path);
	path[0] = 0;
	return -1;
}

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *w)
{
	return remove(path);
}

void directory_remove(const char *path)
{
	if (path[0])
		nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- from outside ------------------------------------------------------------------------------------------ */

/* All have done it, or one of them can't. */
static int await_all(struct crew *crew)
{
	for (unsigned n = 0; n < crew->setup.processes;) {
		struct timespec t;

		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += LOOK_NS;
		t.tv_sec += t.tv_nsec / 1000000000;
		t.tv_nsec %= 1000000000;
		if (!sem_timedwait(&crew->board->done, &t))
			n++;
		else if (crew->host && waitpid(crew->host, NULL, WNOHANG) == crew->host)
			crew->host = 0;
		if (!crew->host || atomic_load(&crew->board->failed))
			return -1;
	}
	return 0;
}

struct crew *crew_start(const struct peer *peer, const struct peer_setup *setup, const struct pinning *pinning)
{
	struct crew *crew = calloc(1, sizeof(*crew));

	crew->peer = peer;
	crew->setup = *setup;
	crew->pinning = *pinning;
	crew->board_size = sizeof(*crew->board) + setup->processes * sizeof(struct seat);
	crew->board = shared_memory(crew->board_size);
	sem_init(&crew->board->done, 1, 0);
	for (unsigned i = 0; i < setup->processes; i++)
		sem_init(&crew->board->seats[i].go, 1, 0);
	crew->host = crew_fork(host, crew);
	if (crew->host < 0 || await_all(crew)) {
		fprintf(stderr, "bench: %s is left out\n", peer->name);
		crew_end(crew);
		return NULL;
	}
	return crew;
}

double crew_found(const struct crew *crew)
{
	unsigned checked = atomic_load(&crew->board->checked);

	return checked ? 1 - (double)atomic_load(&crew->board->missing) / checked : 0;
}

double crew_huge_mb(const struct crew *crew)
{
	return atomic_load(&crew->board->huge_kb) / 1024.0;
}

int crew_round(struct crew *crew, const struct round *round, struct tally *sum)
{
	struct board *board = crew->board;
	unsigned i;

	board->round = *round;
	atomic_store(&board->arrived, 0);
	for (i = 0; sum && i < crew->setup.processes; i++)
		memset(&board->seats[i].tally, 0, sizeof(struct tally));
	for (i = 0; i < crew->setup.processes; i++)
		sem_post(&board->seats[i].go);
	if (await_all(crew))
		return -1;
	if (!sum)
		return 0;
	memset(sum, 0, sizeof(*sum));
	for (i = 0; i < crew->setup.processes; i++) {
		const struct tally *t = &board->seats[i].tally;

		sum->operations += t->operations;
		sum->hits += t->hits;
		if (t->ns > sum->ns)
			sum->ns = t->ns;
		histogram_merge(&sum->times, &t->times);
	}
	return 0;
}

void crew_end(struct crew *crew)
{
	if (crew->host > 0) {
		int killed = atomic_load(&crew->board->failed);

		atomic_store(&crew->board->ending, 1);
		for (unsigned i = 0; i < crew->setup.processes; i++)
			sem_post(&crew->board->seats[i].go);
		if (killed)
			kill(crew->host, SIGKILL);
		while (waitpid(crew->host, NULL, 0) < 0 && errno == EINTR)
			;
	}
	shared_memory_free(crew->board, crew->board_size);
	free(crew);
}
