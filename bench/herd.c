/* SPDX-License-Identifier: MIT */
/*
 * Many processes that want what is not there.
 *
 * stampede: all want one key at once, whose loader takes --load-us. What counts begins when the loader has ended: until
 * the process that loaded has its answer, and until the others have theirs. Meanwhile a bystander asks for a key that
 * is there.
 * coldstart: all begin with an empty cache and make their own requests, one after the other.
 */
#include "measure.h"
#include "ticks.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_BELOW 100000000u /* what is cold has numbers from here on */
#define BYSTANDS 256

struct arrival {
	uint64_t at;
	int led, failed;
};

struct herd { /* shared */
	const struct options *o;
	const struct workload *workload;
	uint32_t number, requests;
	unsigned processes;
	atomic_uint loads, ended;
	_Atomic uint64_t loaded; /* when the last loader ended */
	unsigned bystands;
	struct { uint64_t began, ns; } bystood[BYSTANDS];
	struct histogram fetches[1]; /* of coldstart's first process */
	struct arrival arrivals[];
};

static void sleep_us(uint64_t us)
{
	nanosleep(&(struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000}, NULL);
}

static size_t load(struct load *l, const char *key, void *value)
{
	struct herd *h = l->arg;
	size_t size = h->o->sizes[0].part[0].from;

	atomic_fetch_add(&h->loads, 1);
	sleep_us(h->o->load_us);
	memset(value, 7, size);
	memcpy(value, key, VALUE_LEAST);
	atomic_store(&h->loaded, now_ns());
	return size;
}

/* ---- stampede ---------------------------------------------------------------------------------------------- */

static void bystand(const struct peer *peer, struct worker *worker, struct herd *h, char *buffer)
{
	while (atomic_load(&h->ended) < h->processes) {
		const struct request *r =
			&worker->setup->workload->requests[worker->at++ & (worker->setup->workload->count - 1)];
		uint64_t began = now_ns();

		if (peer->get(worker, r, buffer) && h->bystands < BYSTANDS) {
			h->bystood[h->bystands].began = began;
			h->bystood[h->bystands++].ns = now_ns() - began;
		}
		sleep_us(500);
	}
}

static void join_stampede(const struct peer *peer, struct worker *worker, void *arg)
{
	struct herd *h = arg;
	struct load l = {load, h, h->o->load_us, h->o->sizes[0].part[0].from};
	struct fetched f = {0};
	char key[KEY_SIZE], *buffer = malloc(1 << 20);

	workload_key(h->number, key);
	if (worker->number == h->processes) {
		if (peer->get)
			bystand(peer, worker, h, buffer);
	} else {
		int rc = peer->fetch(worker, key, &l, buffer, &f);
		uint64_t at = f.at ? f.at : now_ns();

		if (f.loaded && f.led) { /* by other means */
			atomic_store(&h->loaded, f.loaded);
			atomic_fetch_add(&h->loads, 1);
		}
		rc |= memcmp(buffer, key, VALUE_LEAST) != 0;
		h->arrivals[worker->number] = (struct arrival){at, f.led, rc != 0};
		atomic_fetch_add(&h->ended, 1);
	}
	free(buffer);
}

struct outcome { /* of each round */
	double *loads, *leader, *median, *p99, *bystander;
};

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void look(const struct herd *h, unsigned round, struct outcome *to, unsigned *failures)
{
	uint64_t *late = malloc(h->processes * sizeof(*late)), loaded = atomic_load(&h->loaded), worst = 0;
	unsigned i, n = 0;

	for (i = 0; i < h->processes; i++) {
		uint64_t delay = h->arrivals[i].at > loaded ? h->arrivals[i].at - loaded : 0;

		*failures += h->arrivals[i].failed != 0;
		if (h->arrivals[i].led)
			to->leader[round] = (double)delay / 1000;
		else
			late[n++] = delay;
	}
	for (i = 0; i < h->bystands; i++)
		if (h->bystood[i].began < loaded && h->bystood[i].ns > worst)
			worst = h->bystood[i].ns;
	to->bystander[round] = worst ? (double)worst / 1000 : NAN; /* it came too late to see any of it */
	to->loads[round] = atomic_load(&h->loads);
	qsort(late, n, sizeof(*late), compare_u64);
	to->median[round] = n ? (double)late[n / 2] / 1000 : 0;
	to->p99[round] = n ? (double)late[n - 1 - n / 100] / 1000 : 0;
	free(late);
}

struct entrant {
	const struct peer *peer;
	struct crew *crew;
	struct outcome outcome;
	unsigned failures;
	char directory[DIRECTORY_SIZE];
};

static struct herd *herd_new(const struct options *o, const struct workload *w, unsigned processes)
{
	struct herd *h = shared_memory(sizeof(*h) + processes * sizeof(struct arrival));

	h->o = o;
	h->workload = w;
	h->processes = processes;
	return h;
}

static void herd_free(struct herd *h)
{
	shared_memory_free(h, sizeof(*h) + h->processes * sizeof(struct arrival));
}

static int one_stampede(struct entrant *e, struct herd *h, unsigned round)
{
	struct round r = {.job = join_stampede, .arg = h};

	h->number++;
	h->bystands = 0;
	atomic_store(&h->loads, 0);
	atomic_store(&h->ended, 0);
	atomic_store(&h->loaded, 0);
	if (crew_round(e->crew, &r, NULL)) {
		fprintf(stderr, "bench: %s died, and is left out\n", e->peer->name);
		crew_end(e->crew);
		e->crew = NULL;
		return -1;
	}
	look(h, round, &e->outcome, &e->failures);
	return 0;
}

static void report_stampede(const struct options *o, const struct entrant *e, unsigned processes, json_t *report)
{
	json_t *row = report_row(report, e->peer->name, "stampede");

	json_object_set_new(row, "processes", json_integer(processes));
	json_object_set_new(row, "load_us", json_integer((json_int_t)o->load_us));
	report_figure(row, "loads", e->outcome.loads, o->repeats);
	report_figure(row, "leader_us", e->outcome.leader, o->repeats);
	report_figure(row, "waiters_us", e->outcome.median, o->repeats);
	report_figure(row, "waiters_p99_us", e->outcome.p99, o->repeats);
	if (e->peer->get)
		report_figure(row, "bystander_us", e->outcome.bystander, o->repeats);
	json_object_set_new(row, "failed", json_integer(e->failures));
}

static unsigned enter(struct entrant *entrants, const char *list, unsigned repeats)
{
	char *copy = strdup(list), *rest = copy, *word;
	unsigned n = 0;

	while ((word = strsep(&rest, ","))) {
		struct entrant *e = &entrants[n];

		*e = (struct entrant){.peer = peer_named(word)};
		if (!e->peer || !e->peer->fetch || n == 15) {
			fprintf(stderr, "shoal-bench: %s: %s, left out\n", word, e->peer ? "doesn't load" : "not here");
			continue;
		}
		e->outcome = (struct outcome){calloc(repeats, 8), calloc(repeats, 8), calloc(repeats, 8),
		                              calloc(repeats, 8), calloc(repeats, 8)};
		n++;
	}
	free(copy);
	return n;
}

static void start(struct entrant *e, const struct workload *w, unsigned processes)
{
	struct peer_setup setup = {.workload = w, .processes = processes, .capacity = 1, .directory = e->directory};
	struct pinning nobody = {0};

	e->crew = directory_make(e->directory) ? NULL : crew_start(e->peer, &setup, &nobody);
}

static void end(struct entrant *e)
{
	if (e->crew)
		crew_end(e->crew);
	directory_remove(e->directory);
	free(e->outcome.loads);
	free(e->outcome.leader);
	free(e->outcome.median);
	free(e->outcome.p99);
	free(e->outcome.bystander);
}

/* As many sleepers don't disturb who runs: all peers at once, in turns. */
static int stampede_of(const struct options *o, const struct workload *w, unsigned processes, json_t *report)
{
	struct entrant entrants[16];
	struct herd *h = herd_new(o, w, processes);
	unsigned i, r, n;

	n = enter(entrants, o->peers ? o->peers : "futex-relay,futex-wake-all,shoal,redis,memcached,nginx-cache,apcu",
	          o->repeats);
	h->number = KEYS_BELOW;
	for (i = 0; i < n; i++)
		start(&entrants[i], w, processes + 1);
	for (r = 0; r <= o->repeats; r++)
		for (i = 0; i < n; i++) {
			progress(o, entrants[i].peer->name, r * n + i, (o->repeats + 1) * n);
			if (entrants[i].crew)
				one_stampede(&entrants[i], h, r ? r - 1 : 0); /* the first one warms up */
		}
	for (i = 0; i < n; i++) {
		if (entrants[i].crew)
			report_stampede(o, &entrants[i], processes, report);
		end(&entrants[i]);
	}
	herd_free(h);
	return 0;
}

int stampede(const struct options *o, json_t *report)
{
	struct workload w = {.keys = 1000, .sizes_wanted = o->sizes[0], .seed = o->seed};
	int rc = workload_make(&w);

	for (unsigned i = 0; i < o->processes.count && !rc; i++)
		rc = stampede_of(o, &w, (unsigned)o->processes.values[i], report);
	return rc;
}

/* ---- coldstart --------------------------------------------------------------------------------------------- */

static void start_cold(const struct peer *peer, struct worker *worker, void *arg)
{
	struct herd *h = arg;
	struct load l = {load, h, h->o->load_us, h->o->sizes[0].part[0].from};
	char key[KEY_SIZE], *buffer = malloc(1 << 20);
	int failed = 0;

	for (uint32_t i = 0; i < h->requests && !failed; i++) {
		struct fetched f = {0};
		uint64_t began = now_ns();

		workload_key(h->number + h->workload->requests[(worker->at + i) & (h->workload->count - 1)].number,
		             key);
		failed = peer->fetch(worker, key, &l, buffer, &f) || memcmp(buffer, key, VALUE_LEAST);
		if (f.loaded && f.led)
			atomic_fetch_add(&h->loads, 1);
		if (worker->number == 0)
			histogram_add(h->fetches, now_ns() - began);
	}
	h->arrivals[worker->number] = (struct arrival){now_ns(), 0, failed};
	free(buffer);
}

static uint32_t distinct(const struct workload *w, unsigned processes, uint32_t requests)
{
	char *seen = calloc(w->keys, 1);
	uint32_t n = 0;

	for (unsigned p = 0; p < processes; p++)
		for (uint32_t i = 0; i < requests; i++) {
			uint32_t at = (uint32_t)((uint64_t)w->count * p / processes);
			char *key = &seen[w->requests[(at + i) & (w->count - 1)].number];

			n += !*key;
			*key = 1;
		}
	free(seen);
	return n;
}

static int one_coldstart(const struct options *o, struct entrant *e, struct herd *h, json_t *report)
{
	struct round r = {.job = start_cold, .arg = h};
	uint64_t began, last = 0;
	unsigned i, failed = 0;
	double seconds;
	json_t *row;

	h->number += 1000000;
	atomic_store(&h->loads, 0);
	memset(h->fetches, 0, sizeof(h->fetches));
	began = now_ns();
	if (crew_round(e->crew, &r, NULL))
		return -1;
	for (i = 0; i < h->processes; i++) {
		last = h->arrivals[i].at > last ? h->arrivals[i].at : last;
		failed += h->arrivals[i].failed != 0;
	}
	seconds = (double)(last - began) / 1e9;
	row = report_row(report, e->peer->name, "coldstart");
	json_object_set_new(row, "keys", json_integer(h->workload->keys));
	json_object_set_new(row, "zipf", json_real(h->workload->zipf));
	json_object_set_new(row, "processes", json_integer(h->processes));
	json_object_set_new(row, "load_us", json_integer((json_int_t)o->load_us));
	json_object_set_new(row, "requests", json_integer((json_int_t)h->requests * h->processes));
	json_object_set_new(row, "distinct", json_integer(distinct(h->workload, h->processes, h->requests)));
	json_object_set_new(row, "loads", json_integer(atomic_load(&h->loads)));
	json_object_set_new(row, "seconds", json_real(seconds));
	json_object_set_new(row, "fetch_us",
	                    json_pack("{s:f, s:f, s:f}", "p50", histogram_at(h->fetches, 0.5) / 1000, "p99",
	                              histogram_at(h->fetches, 0.99) / 1000, "max", (double)h->fetches->max / 1000));
	json_object_set_new(row, "failed", json_integer(failed));
	return 0;
}

/* One at a time: a cold start is of the whole machine. */
static int coldstart_of(const struct options *o, const struct workload *w, unsigned processes, json_t *report)
{
	struct entrant entrants[16];
	struct herd *h = herd_new(o, w, processes);
	unsigned i, n = enter(entrants, o->peers ? o->peers : "private,shoal,redis,memcached,apcu", o->repeats);

	h->number = KEYS_BELOW;
	/* if each of them were loaded */
	h->requests = (uint32_t)(o->seconds * 1e6 / (double)(o->load_us ? o->load_us : 1)) + 1;
	for (i = 0; i < n; i++) {
		progress(o, entrants[i].peer->name, i, n);
		start(&entrants[i], w, processes);
		if (entrants[i].crew)
			one_coldstart(o, &entrants[i], h, report);
		end(&entrants[i]);
	}
	herd_free(h);
	return 0;
}

int coldstart(const struct options *o, json_t *report)
{
	struct workload w = {
		.keys = (uint32_t)o->keys.values[0], .sizes_wanted = o->sizes[0], .zipf = o->zipf, .seed = o->seed,
	};
	int rc = workload_make(&w);

	for (unsigned i = 0; i < o->processes.count && !rc; i++)
		rc = coldstart_of(o, &w, (unsigned)o->processes.values[i], report);
	return rc;
}
