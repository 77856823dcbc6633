/* SPDX-License-Identifier: MIT */
/*
 * attach: processes that have not seen the cache yet, one after the other. Each is forked from one that has opened
 * nothing: how long until it is in, until its first hit, and what the next thousand cost, most of which meet pages that
 * are new to the process. Again in a process that has threads already, which membarrier's registration stops.
 */
#include "measure.h"
#include "ticks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define HITS 1000
#define THREADS 4

struct entry { /* shared */
	const struct peer *peer;
	struct worker worker;
	int threads, failed;
	uint64_t attach_ns, first_ns, next_ns, worst_ns;
	atomic_uint begun;
	atomic_int ended;
};

static void *spin(void *arg)
{
	struct entry *e = arg;

	atomic_fetch_add(&e->begun, 1);
	while (!atomic_load(&e->ended))
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	return NULL;
}

static int hit(struct entry *e, uint32_t number, void *buffer, uint64_t *took)
{
	const struct workload *w = e->worker.setup->workload;
	uint64_t began = now_ns();
	size_t size = e->peer->get(&e->worker, &w->requests[number & (w->count - 1)], buffer);

	*took = now_ns() - began;
	return !size;
}

static void enter(void *arg)
{
	struct entry *e = arg;
	char *buffer = calloc(1, e->worker.setup->workload->value_to + 64u);
	uint64_t began, took;
	pthread_t thread;

	memset(buffer, 1, e->worker.setup->workload->value_to);
	now_ns();
	for (int i = 0; i < e->threads; i++)
		e->failed |= pthread_create(&thread, NULL, spin, e);
	while ((int)atomic_load(&e->begun) < e->threads)
		sched_yield();
	began = now_ns();
	e->failed |= e->peer->join(&e->worker);
	e->attach_ns = now_ns() - began;
	e->failed = e->failed || hit(e, 0, buffer, &e->first_ns);
	for (uint32_t i = 1; i <= HITS && !e->failed; i++) {
		e->failed |= hit(e, i, buffer, &took);
		e->next_ns += took;
		e->worst_ns = took > e->worst_ns ? took : e->worst_ns;
	}
	atomic_store(&e->ended, 1);
	if (!e->failed && e->peer->leave)
		e->peer->leave(&e->worker);
}

static int attach_rounds(const struct options *o, const struct peer *peer, const struct peer_setup *setup, int threads,
                         json_t *report)
{
	double *figures[4];
	unsigned i, r, failed = 0;
	char value[SIZE_TEXT];
	json_t *row;

	for (i = 0; i < 4; i++)
		figures[i] = calloc(o->repeats, sizeof(double));
	for (r = 0; r < o->repeats; r++) {
		struct entry *e = shared_memory(sizeof(*e));
		int status = -1;
		pid_t pid;

		*e = (struct entry){.peer = peer, .worker = {.setup = setup}, .threads = threads};
		pid = crew_fork(enter, e);
		waitpid(pid, &status, 0);
		failed += status != 0 || e->failed;
		figures[0][r] = (double)e->attach_ns / 1000;
		figures[1][r] = (double)e->first_ns / 1000;
		figures[2][r] = (double)e->next_ns / 1000 / HITS;
		figures[3][r] = (double)e->worst_ns / 1000;
		shared_memory_free(e, sizeof(*e));
	}
	row = report_row(report, peer->name, threads ? "attach-threads" : "attach");
	size_text(&o->sizes[0], value);
	json_object_set_new(row, "keys", json_integer(setup->workload->keys));
	json_object_set_new(row, "value", json_string(value));
	report_figure(row, "attach_us", figures[0], o->repeats);
	report_figure(row, "first_hit_us", figures[1], o->repeats);
	report_figure(row, "next_thousand_us", figures[2], o->repeats);
	report_figure(row, "worst_us", figures[3], o->repeats);
	json_object_set_new(row, "failed", json_integer(failed));
	for (i = 0; i < 4; i++)
		free(figures[i]);
	return 0;
}

static void attach_peer(const struct options *o, const struct peer *peer, const struct workload *w, json_t *report)
{
	char directory[DIRECTORY_SIZE];
	struct peer_setup setup = {
		.workload = w, .processes = 1, .capacity = 1, .huge = o->huge, .directory = directory};
	struct crew *crew = directory_make(directory) ? NULL : crew_start(peer, &setup, &o->pinning);

	if (crew) {
		attach_rounds(o, peer, &setup, 0, report);
		attach_rounds(o, peer, &setup, THREADS, report);
		crew_end(crew);
	}
	directory_remove(directory);
}

int attach(const struct options *o, json_t *report)
{
	const char *list = o->peers ? o->peers : "shoal-named,lmdb,memcached,redis";

	for (unsigned k = 0; k < o->keys.count; k++) {
		struct workload w = {.keys = (uint32_t)o->keys.values[k],
		                     .sizes_wanted = o->sizes[0],
		                     .zipf = o->zipf,
		                     .seed = o->seed};
		char *copy = strdup(list), *rest = copy, *word;

		if (workload_make(&w))
			return -1;
		while ((word = strsep(&rest, ","))) {
			const struct peer *peer = peer_named(word);

			progress(o, word, 0, 1);
			if (peer && peer->flags & PEER_ATTACHES)
				attach_peer(o, peer, &w, report);
			else
				fprintf(stderr, "shoal-bench: %s: %s, left out\n", word,
				        peer ? "can't be attached" : "not here");
		}
		free(copy);
		workload_free(&w);
	}
	return during(o, report);
}
