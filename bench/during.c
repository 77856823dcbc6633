/* SPDX-License-Identifier: MIT */
/*
 * Hits while something is being loaded: another process leads the load of one key, and the refresh of one that is
 * stale. A hit on a third key, and on the stale one, beside hits when nothing is loaded. With `attach`.
 */
#include "measure.h"
#include "ticks.h"

#include <shoal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 1000

struct scene {
	struct shoal *cache;
	struct shoal_keyspace *keyspace;
	atomic_uint *leads; /* shared: 1 when the other has begun */
	char value[100];
};

static int never(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return 1;
}

static void nap(void)
{
	nanosleep(&(struct timespec){0, 2000000}, NULL);
}

/* The other process: holds both loads until it is told to end. */
static void lead(void *arg)
{
	struct scene *s = arg;
	struct shoal_load *cold = NULL, *stale = NULL;
	struct shoal_value value;
	int ok;

	ok = shoal_begin(s->keyspace, "a key that is loaded", 20, &cold, &value) == SHOAL_LEAD;
	ok &= shoal_begin(s->keyspace, "a key that is stale.", 20, &stale, &value) == SHOAL_REFRESH;
	atomic_store(s->leads, ok ? 1 : 3);
	while (atomic_load(s->leads) == 1)
		nap();
	shoal_release(&value);
	shoal_load_cancel(cold);
	shoal_load_cancel(stale);
}

static double block_ns(struct scene *s, const char *key, int by_fetch)
{
	uint64_t began = now_ns();
	struct shoal_value value;
	size_t size;
	int failed = 0;

	for (int i = 0; i < BLOCK; i++) {
		if (by_fetch) {
			failed |= shoal_fetch(s->keyspace, key, 20, never, NULL, &value);
			memcpy(s->value, value.data, value.size);
			shoal_release(&value);
		} else {
			failed |= shoal_read(s->keyspace, key, 20, s->value, sizeof(s->value), &size);
		}
	}
	return failed ? -1 : (double)(now_ns() - began) / BLOCK;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Blocks of the fresh key and, if it may be asked for, of the stale one, in turns. */
static void one_round(struct scene *s, unsigned count, int by_fetch, double seconds, double medians[2])
{
	static const char *const keys[] = {"a key that is fresh.", "a key that is stale."};
	enum { MOST = 20000 };
	double *blocks[2] = {malloc(MOST * 8), malloc(MOST * 8)};
	uint64_t began = now_ns();
	unsigned n = 0, i;

	do {
		for (i = 0; i < count; i++)
			blocks[i][n] = block_ns(s, keys[i], by_fetch);
	} while (++n < MOST && (double)(now_ns() - began) < seconds * 1e9);
	for (i = 0; i < count; i++) {
		qsort(blocks[i], n, sizeof(double), compare_doubles);
		medians[i] = blocks[i][0] < 0 ? -1 : blocks[i][n / 2];
	}
	free(blocks[0]);
	free(blocks[1]);
}

static void report_during(const struct options *o, json_t *report, const char *access, const double *ns,
                          const double *ratio)
{
	json_t *row = report_row(report, "shoal", access);

	report_figure(row, "ns", ns, o->repeats);
	report_figure(row, "ratio", ratio, o->repeats);
}

static int open_scene(struct scene *s)
{
	struct shoal_policy policy = {.fresh_ms = 3600000, .stale_ms = 3600000, .early = -1};

	*s = (struct scene){.leads = shared_memory(sizeof(*s->leads))};
	if (shoal_open(NULL, NULL, &s->cache) || shoal_keyspace_open(s->cache, "during", 1, &policy, &s->keyspace) ||
	    shoal_set(s->keyspace, "a key that is fresh.", 20, s->value, sizeof(s->value)) ||
	    shoal_set_ttl(s->keyspace, "a key that is stale.", 20, s->value, sizeof(s->value), 1, 3600000))
		return -1;
	for (int i = 0; i < 10; i++)
		nap();
	return 0;
}

/* In a child: the caller stays a process that has opened nothing. */
struct result { /* shared */
	const struct options *o;
	int done;
	double ns[2][3][1000], ratio[2][3][1000]; /* read, fetch; hit, hit and stale during loads */
};

static void run_during(void *arg)
{
	struct result *result = arg;
	const struct options *o = result->o;
	struct scene s;
	double quiet[2], busy[2];
	int status = 1;

	if (open_scene(&s))
		return;
	for (unsigned r = 0; r < o->repeats; r++)
		for (int by_fetch = 0; by_fetch < 2; by_fetch++) {
			pid_t pid;

			/* the fresh key alone: a fetch of the stale one would begin its refresh */
			one_round(&s, 1, by_fetch, o->seconds / 10, quiet);
			one_round(&s, 1, by_fetch, o->seconds / 2, quiet);
			atomic_store(s.leads, 0);
			pid = crew_fork(lead, &s);
			while (!atomic_load(s.leads))
				nap();
			if (atomic_load(s.leads) == 1)
				one_round(&s, 2, by_fetch, o->seconds / 2, busy);
			atomic_fetch_add(s.leads, 1);
			waitpid(pid, &status, 0);
			if (status || atomic_load(s.leads) != 2)
				return;
			result->ns[by_fetch][0][r] = quiet[0];
			result->ns[by_fetch][1][r] = busy[0];
			result->ns[by_fetch][2][r] = busy[1];
			for (int i = 0; i < 3; i++)
				result->ratio[by_fetch][i][r] = result->ns[by_fetch][i][r] / quiet[0];
		}
	result->done = 1;
}

int during(const struct options *o, json_t *report)
{
	static const char *const names[2][3] = {
		{"read-hit", "read-hit-during-load", "read-stale-during-refresh"},
		{"fetch-hit", "fetch-hit-during-load", "fetch-stale-during-refresh"},
	};
	struct result *result = shared_memory(sizeof(*result));

	result->o = o;
	waitpid(crew_fork(run_during, result), NULL, 0);
	if (!result->done) {
		fprintf(stderr, "shoal-bench: hits during a load could not be measured\n");
		return -1;
	}
	for (int f = 0; f < 2; f++)
		for (int i = 0; i < 3; i++)
			report_during(o, report, names[f][i], result->ns[f][i], result->ratio[f][i]);
	return 0;
}
