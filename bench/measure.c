/* SPDX-License-Identifier: MIT */
/*
 * Peers side by side. All are opened and filled first; then each round visits every peer in turn (A B C, A B C), as the
 * machine's own speed changes while we measure. A ratio is of two figures of one round.
 */
#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEAMS_MOST 32
#define BLOCK 1000u
#define BLOCK_SLOW 64u

static const char *const access_names[ACCESS_KINDS] = {"overlapped", "isolated", "mixed", "set", "many"};

struct team {
	const struct peer *peer;
	struct crew *crew;
	char directory[DIRECTORY_SIZE];
	double *ns[ACCESS_KINDS], *ratio[ACCESS_KINDS], *rate[ACCESS_KINDS];
	double found[ACCESS_KINDS];
	struct histogram each[ACCESS_KINDS];
};

struct field { /* one point of the measurement */
	const struct options *o;
	struct workload workload;
	unsigned processes, team_count, access_count, steps, step;
	struct sizes sizes;
	struct team *teams;
	enum access access[ACCESS_KINDS];
};

/* ---- who and what ------------------------------------------------------------------------------------------ */

static int parse_access(struct field *f, const char *list)
{
	char *copy = strdup(list), *rest = copy, *word;
	unsigned i;

	while ((word = strsep(&rest, ","))) {
		for (i = 0; i < ACCESS_KINDS && strcmp(word, access_names[i]); i++)
			;
		if (i == ACCESS_KINDS || f->access_count == ACCESS_KINDS) {
			fprintf(stderr, "shoal-bench: no such access: %s\n", word);
			free(copy);
			return -1;
		}
		f->access[f->access_count++] = (enum access)i;
	}
	free(copy);
	return 0;
}

static int parse_peers(struct field *f, const char *list)
{
	char *copy = strdup(list), *rest = copy, *word;
	int rc = 0;

	while (!rc && (word = strsep(&rest, ","))) {
		struct team *t = &f->teams[f->team_count];

		t->peer = peer_named(word);
		if (!t->peer || f->team_count == TEAMS_MOST) {
			fprintf(stderr, "shoal-bench: no such peer here: %s\n", word);
			rc = -1;
		}
		for (unsigned a = 0; a < ACCESS_KINDS; a++) {
			t->ns[a] = calloc(f->o->repeats, sizeof(double));
			t->ratio[a] = calloc(f->o->repeats, sizeof(double));
			t->rate[a] = calloc(f->o->repeats, sizeof(double));
		}
		f->team_count++;
	}
	free(copy);
	return rc;
}

static int can(const struct peer *peer, enum access access)
{
	return !(peer->flags & PEER_NO_SET) || (access != ACCESS_SET && access != ACCESS_MIXED);
}

/* ---- rounds ------------------------------------------------------------------------------------------------ */

static void step(struct field *f, const char *what)
{
	progress(f->o, what, f->step < f->steps ? f->step++ : f->steps, f->steps);
}

/* Copies of large values take long: a block is for some hundreds of microseconds at most. */
static uint32_t block_of(const struct workload *w)
{
	uint64_t mean = w->value_bytes / w->keys;

	return mean <= 4096 ? BLOCK : (uint32_t)(BLOCK * 4096ull / mean) + 1;
}

static int play(struct field *f, struct team *t, enum access access, int each, double seconds, struct tally *tally)
{
	struct round round = {
		.access = access,
		.each = each,
		.ns = (uint64_t)(seconds * 1e9),
		.block = t->peer->flags & PEER_SLOW ? BLOCK_SLOW : block_of(&f->workload),
		.batch = f->o->batch,
	};

	if (!t->crew)
		return -1;
	step(f, t->peer->name);
	if (!crew_round(t->crew, &round, tally))
		return 0;
	fprintf(stderr, "bench: %s died, and is left out\n", t->peer->name);
	crew_end(t->crew);
	t->crew = NULL;
	return -1;
}

static void one_round(struct field *f, enum access access, unsigned round, struct tally *tally)
{
	double first = 0;

	for (unsigned i = 0; i < f->team_count; i++) {
		struct team *t = &f->teams[i];

		if (!can(t->peer, access) || play(f, t, access, 0, f->o->seconds, tally))
			continue;
		t->ns[access][round] = histogram_at(&tally->times, 0.5) / 1000;
		t->rate[access][round] = (double)tally->operations * 1e9 / (double)tally->ns;
		t->found[access] = (double)tally->hits / (double)tally->operations;
		if (i == 0)
			first = t->ns[access][round];
		t->ratio[access][round] = first > 0 ? t->ns[access][round] / first : 0;
	}
}

static void all_rounds(struct field *f)
{
	struct tally *tally = malloc(sizeof(*tally));
	unsigned a, i, r;

	for (i = 0; i < f->team_count; i++)
		for (a = 0; a < f->access_count; a++)
			if (can(f->teams[i].peer, f->access[a]))
				play(f, &f->teams[i], f->access[a], 0, f->o->warm_up / f->access_count, tally);
	for (r = 0; r < f->o->repeats; r++)
		for (a = 0; a < f->access_count; a++)
			one_round(f, f->access[a], r, tally);
	for (a = 0; a < f->access_count; a++)
		for (i = 0; i < f->team_count; i++)
			if (can(f->teams[i].peer, f->access[a]) &&
			    !play(f, &f->teams[i], f->access[a], 1, f->o->seconds, tally))
				f->teams[i].each[f->access[a]] = tally->times;
	free(tally);
}

/* ---- a point ----------------------------------------------------------------------------------------------- */

static void start_teams(struct field *f)
{
	for (unsigned i = 0; i < f->team_count; i++) {
		struct team *t = &f->teams[i];
		struct peer_setup setup = {
			.workload = &f->workload,
			.processes = f->processes,
			.capacity = f->o->capacity,
			.huge = f->o->huge,
			.directory = t->directory,
		};

		step(f, t->peer->name);
		t->crew = directory_make(t->directory) ? NULL : crew_start(t->peer, &setup, &f->o->pinning);
	}
}

static void end_teams(struct field *f)
{
	for (unsigned i = 0; i < f->team_count; i++) {
		if (f->teams[i].crew)
			crew_end(f->teams[i].crew);
		directory_remove(f->teams[i].directory);
		for (unsigned a = 0; a < ACCESS_KINDS; a++) {
			free(f->teams[i].ns[a]);
			free(f->teams[i].ratio[a]);
			free(f->teams[i].rate[a]);
		}
	}
	free(f->teams);
}

static void report_team(const struct field *f, const struct team *t, enum access a, json_t *report)
{
	json_t *row = report_row(report, t->peer->name, access_names[a]);
	char text[SIZE_TEXT];
	const struct histogram *h = &t->each[a];

	size_text(&f->sizes, text);
	json_object_set_new(row, "keys", json_integer(f->workload.keys));
	json_object_set_new(row, "value", json_string(text));
	json_object_set_new(row, "zipf", json_real(f->workload.zipf));
	json_object_set_new(row, "processes", json_integer(f->processes));
	report_figure(row, "ns", t->ns[a], f->o->repeats);
	report_figure(row, "ratio", t->ratio[a], f->o->repeats);
	report_figure(row, "per_second", t->rate[a], f->o->repeats);
	json_object_set_new(row, "latency_ns",
	                    json_pack("{s:f, s:f, s:f, s:I}", "p50", histogram_at(h, 0.5), "p99", histogram_at(h, 0.99),
	                              "p999", histogram_at(h, 0.999), "max", (json_int_t)h->max));
	json_object_set_new(row, "hits", json_real(t->found[a]));
	json_object_set_new(row, "huge_mb", json_real(crew_huge_mb(t->crew)));
}

static int measure_point(const struct options *o, json_t *report, const char *who, const char *access, uint32_t keys,
                         struct sizes sizes, unsigned processes)
{
	struct field f = {.o = o, .processes = processes, .sizes = sizes};
	int rc;

	f.teams = calloc(TEAMS_MOST + 1, sizeof(*f.teams));
	f.workload = (struct workload){
		.keys = keys, .sizes_wanted = sizes, .zipf = o->zipf, .writes = o->writes, .seed = o->seed,
	};
	rc = parse_access(&f, access) || parse_peers(&f, who) || workload_make(&f.workload);
	if (!rc) {
		f.steps = f.team_count * (1 + f.access_count * (2 + o->repeats));
		start_teams(&f);
		all_rounds(&f);
		for (unsigned a = 0; a < f.access_count; a++)
			for (unsigned i = 0; i < f.team_count; i++)
				if (f.teams[i].crew && can(f.teams[i].peer, f.access[a]))
					report_team(&f, &f.teams[i], f.access[a], report);
	}
	end_teams(&f);
	if (!rc)
		workload_free(&f.workload);
	return rc ? -1 : 0;
}

int measure(const struct options *o, json_t *report, const char *who, const char *access)
{
	unsigned k, s, p;

	if (o->peers)
		who = o->peers;
	if (o->access)
		access = o->access;
	for (k = 0; k < o->keys.count; k++)
		for (s = 0; s < o->size_count; s++)
			for (p = 0; p < o->processes.count; p++)
				if (measure_point(o, report, who, access, (uint32_t)o->keys.values[k], o->sizes[s],
				                  (unsigned)o->processes.values[p]))
					return -1;
	return 0;
}
