/* SPDX-License-Identifier: MIT */
/*
 * The turn goes round: each process sleeps on a semaphore of its own, makes its requests, and posts the next
 * one's. What they count, and the size that each key was stored with, lies in memory that they share; only who
 * has the turn uses it.
 */
#include "play.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLE_EVERY 256 /* requests; shoal_stats() walks some tables */

struct shared {
	struct play_result result;
	atomic_int stopped; /* somebody failed: no more turns */
	sem_t turns[PLAY_PROCESSES_MOST];
	uint64_t sizes[]; /* of each key, when it was stored last */
};

struct crew {
	const struct play *play;
	struct shoal_keyspace *keyspace;
	struct shared *shared;
	unsigned char *value; /* the next to store */
};

static int failed(const char *what, int error)
{
	fprintf(stderr, "replay: %s: %s\n", what, error == SHOAL_ERR_SYSTEM ? strerror(errno) : shoal_strerror(error));
	return -1;
}

/* ---- values ------------------------------------------------------------------------------------------------ */

/* A value begins with one number made of its key and size, and ends with another; what is between is not looked at. */
static void marks(uint64_t id, uint64_t size, uint64_t mark[2])
{
	mark[0] = (id ^ size << 40) * 0x9e3779b97f4a7c15u + 1;
	mark[1] = (id + size) * 0xc2b2ae3d27d4eb4fu + 2;
}

static void value_write(unsigned char *value, uint64_t id, size_t size)
{
	uint64_t mark[2];
	size_t n = size < 8 ? size : 8;

	marks(id, size, mark);
	memcpy(value, &mark[0], n);
	if (size >= 16)
		memcpy(value + size - 8, &mark[1], 8);
}

static int value_is_right(const struct shoal_value *value, uint64_t id, size_t size)
{
	uint64_t mark[2];
	size_t n = size < 8 ? size : 8;

	marks(id, size, mark);
	return value->size == size && !memcmp(value->data, &mark[0], n) &&
	       (size < 16 || !memcmp((const unsigned char *)value->data + size - 8, &mark[1], 8));
}

/* ---- a request --------------------------------------------------------------------------------------------- */

static int hit(const struct crew *crew, struct shoal_value *value, uint32_t key)
{
	uint64_t id = crew->play->trace->ids[key];
	int right = value_is_right(value, id, crew->shared->sizes[key]);

	shoal_release(value);
	if (right)
		return 0;
	fprintf(stderr, "replay: key %llu: the cache gave a value that was not stored under it\n",
	        (unsigned long long)id);
	return -1;
}

static int miss(const struct crew *crew, const struct trace_request *request)
{
	const struct play *play = crew->play;
	struct play_result *result = &crew->shared->result;
	uint64_t id = play->trace->ids[request->key];
	int outcome = SHOAL_ERR_TOO_BIG;

	result->misses++;
	result->miss_bytes += request->size;
	if (request->size + PLAY_KEY_SIZE <= play->max_entry) {
		value_write(crew->value, id, request->size);
		outcome = shoal_set(crew->keyspace, &id, PLAY_KEY_SIZE, crew->value, request->size);
		crew->shared->sizes[request->key] = request->size;
	}
	result->too_big += outcome == SHOAL_ERR_TOO_BIG;
	result->no_space += outcome == SHOAL_ERR_NO_SPACE;
	if (outcome == SHOAL_OK || outcome == SHOAL_ERR_TOO_BIG || outcome == SHOAL_ERR_NO_SPACE)
		return 0;
	return failed("set", outcome);
}

static int sample(const struct crew *crew)
{
	struct play_result *result = &crew->shared->result;
	struct shoal_stats stats;
	int outcome = shoal_stats(crew->play->cache, &stats);
	double bytes;

	if (outcome != SHOAL_OK)
		return failed("stats", outcome);
	bytes = (double)stats.bytes_live - (double)stats.entries * crew->play->header_bytes;
	if (bytes > (double)result->value_bytes_peak)
		result->value_bytes_peak = (uint64_t)bytes;
	return 0;
}

static int request_one(const struct crew *crew, const struct trace_request *request)
{
	uint64_t id = crew->play->trace->ids[request->key];
	struct play_result *result = &crew->shared->result;
	struct shoal_value value;
	int outcome = shoal_get(crew->keyspace, &id, PLAY_KEY_SIZE, &value), rc;

	if (outcome == SHOAL_OK)
		rc = hit(crew, &value, request->key);
	else if (outcome == SHOAL_MISS)
		rc = miss(crew, request);
	else
		rc = failed("get", outcome);
	result->request_bytes += request->size;
	if (!rc && (++result->requests % SAMPLE_EVERY == 0 || result->requests == crew->play->trace->count))
		rc = sample(crew);
	return rc;
}

/* ---- processes --------------------------------------------------------------------------------------------- */

static int take_turn(const struct crew *crew, size_t first)
{
	const struct trace *trace = crew->play->trace;
	size_t end = trace->count - first < crew->play->batch ? trace->count : first + crew->play->batch;

	for (size_t i = first; i < end; i++)
		if (request_one(crew, &trace->requests[i]))
			return -1;
	return 0;
}

static int work(const struct crew *crew, unsigned me)
{
	const struct play *play = crew->play;
	size_t batch = play->batch;
	sem_t *turns = crew->shared->turns;

	for (size_t first = me * batch; first < play->trace->count; first += play->processes * batch) {
		while (sem_wait(&turns[me]) && errno == EINTR)
			;
		if (atomic_load(&crew->shared->stopped) || take_turn(crew, first))
			return -1;
		sem_post(&turns[(me + 1) % play->processes]);
	}
	return 0;
}

static void stop(const struct crew *crew)
{
	atomic_store(&crew->shared->stopped, 1);
	for (unsigned i = 0; i < crew->play->processes; i++)
		sem_post(&crew->shared->turns[i]);
}

static int is_one_of(pid_t child, const pid_t *children, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (children[i] == child)
			return 1;
	return 0;
}

/* Wait for those that were started; the first that fails stops the others. */
static int join(const struct crew *crew, const pid_t *children, unsigned count)
{
	unsigned ended = 0;
	int status, rc = 0;

	while (ended < count) {
		pid_t child = wait(&status);

		if (child < 0 && errno != EINTR)
			return failed("wait", SHOAL_ERR_SYSTEM);
		if (!is_one_of(child, children, count))
			continue;
		ended++;
		if (!status || rc)
			continue;
		if (WIFSIGNALED(status))
			fprintf(stderr, "replay: a process died of signal %d\n", WTERMSIG(status));
		stop(crew);
		rc = -1;
	}
	return rc;
}

static int work_in_children(const struct crew *crew)
{
	pid_t children[PLAY_PROCESSES_MOST], parent = getpid();
	unsigned started = 0;
	int rc = 0;

	fflush(NULL);
	while (started < crew->play->processes && !rc) {
		pid_t child = fork();

		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(getppid() != parent || work(crew, started) ? 1 : 0);
		}
		if (child > 0)
			children[started++] = child;
		else
			rc = failed("fork", SHOAL_ERR_SYSTEM);
	}
	if (rc)
		stop(crew);
	return join(crew, children, started) || rc ? -1 : 0;
}

/* ---- set-up ------------------------------------------------------------------------------------------------ */

static int prepare(struct crew *crew, size_t shared_size)
{
	static const struct shoal_policy policy = {
		.fresh_ms = SHOAL_FOREVER,
		.jitter_permille = SHOAL_NONE,
		.early = -1,
	};
	int outcome = shoal_keyspace_open(crew->play->cache, "replay", 1, &policy, &crew->keyspace);

	if (outcome != SHOAL_OK)
		return failed("keyspace", outcome);
	crew->value = calloc(1, crew->play->max_entry);
	crew->shared = mmap(NULL, shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!crew->value || crew->shared == MAP_FAILED)
		return failed("memory", SHOAL_ERR_SYSTEM);
	for (unsigned i = 0; i < crew->play->processes; i++)
		if (sem_init(&crew->shared->turns[i], 1, i == 0))
			return failed("semaphore", SHOAL_ERR_SYSTEM);
	return 0;
}

int play(const struct play *play, struct play_result *result)
{
	struct crew crew = {.play = play, .shared = MAP_FAILED};
	size_t shared_size = sizeof(*crew.shared) + play->trace->keys * sizeof(uint64_t);
	int rc = prepare(&crew, shared_size);

	if (!rc)
		rc = play->processes == 1 ? work(&crew, 0) : work_in_children(&crew);
	if (!rc)
		*result = crew.shared->result;
	if (crew.shared != MAP_FAILED)
		munmap(crew.shared, shared_size);
	free(crew.value);
	return rc;
}
