/* SPDX-License-Identifier: MIT */
#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REQUESTS_MOST (1u << 18) /* an interpreter has an object for each */
#define TRIES 12000              /* of 10 ms */

struct state {
	FILE *in, *out;
};

static FILE *create(const struct peer_setup *setup, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", setup->directory, name);
	return fopen(path, "we");
}

static int make_fifo(const struct peer_setup *setup, const char *name, unsigned number)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s.%u", setup->directory, name, number);
	return mkfifo(path, 0600);
}

int script_files(const struct peer_setup *setup)
{
	const struct workload *w = setup->workload;
	FILE *keys = create(setup, "keys"), *requests = create(setup, "requests");
	char key[KEY_SIZE];
	uint32_t i, word;
	int rc = 0;

	if (!keys || !requests)
		return -1;
	for (i = 0; i < w->keys; i++) {
		workload_key(i, key);
		fwrite(key, KEY_SIZE, 1, keys);
		fwrite(&w->sizes[i], 4, 1, keys);
	}
	for (i = 0; i < w->count && i < REQUESTS_MOST; i++) {
		word = w->requests[i].number | w->requests[i].write << 31;
		fwrite(&word, 4, 1, requests);
	}
	for (i = 0; i < setup->processes; i++)
		rc |= make_fifo(setup, "in", i) | make_fifo(setup, "out", i);
	return fclose(keys) || fclose(requests) || rc ? -1 : 0;
}

/* A FIFO can be opened for writing once it is read. */
static FILE *open_fifo(const struct worker *worker, const char *name, int flags, const char *mode)
{
	char path[128];
	int fd = -1;

	snprintf(path, sizeof(path), "%s/%s.%u", worker->setup->directory, name, worker->number);
	for (int i = 0; i < TRIES && fd < 0; i++) {
		fd = open(path, flags | O_CLOEXEC);
		if (fd < 0)
			nanosleep(&(struct timespec){0, 10000000}, NULL);
	}
	if (fd < 0)
		return NULL;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fdopen(fd, mode);
}

int script_join(struct worker *worker)
{
	struct state *s = calloc(1, sizeof(*s));

	worker->state = s;
	s->in = open_fifo(worker, "in", O_WRONLY | O_NONBLOCK, "w");
	s->out = s->in ? open_fifo(worker, "out", O_RDONLY, "r") : NULL;
	if (s->out)
		return 0;
	fprintf(stderr, "bench: %s: no script\n", worker->setup->directory);
	return -1;
}

/* It has died, and with it the worker. */
static void gone(const struct worker *worker)
{
	fprintf(stderr, "bench: %s: the script has ended\n", worker->setup->directory);
	exit(1);
}

static size_t take_value(struct worker *worker, void *buffer)
{
	struct state *s = worker->state;
	unsigned long size;

	if (fscanf(s->out, "%lu", &size) != 1 || fgetc(s->out) != '\n' || (size && fread(buffer, size, 1, s->out) != 1))
		gone(worker);
	return size;
}

size_t script_get(struct worker *worker, const struct request *r, void *buffer)
{
	struct state *s = worker->state;

	fprintf(s->in, "get %.*s\n", KEY_SIZE, r->key);
	fflush(s->in);
	return take_value(worker, buffer);
}

int script_fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	struct state *s = worker->state;

	fprintf(s->in, "fetch %.*s %zu %" PRIu64 "\n", KEY_SIZE, key, load->size, load->us);
	fflush(s->in);
	if (fscanf(s->out, "%d %" SCNu64 " %" SCNu64, &fetched->led, &fetched->loaded, &fetched->at) != 3)
		gone(worker);
	return take_value(worker, buffer) != load->size;
}

void script_run(struct worker *worker, const struct round *round, struct tally *tally)
{
	static const char *const names[ACCESS_KINDS] = {"overlapped", "isolated", "mixed", "set", "overlapped"};
	struct state *s = worker->state;
	uint64_t operations, hits, ns, value, count;

	fprintf(s->in, "round %s %d %" PRIu64 " %u\n", names[round->access], round->each, round->ns, round->block);
	fflush(s->in);
	if (fscanf(s->out, "%" SCNu64 " %" SCNu64 " %" SCNu64, &operations, &hits, &ns) != 3)
		gone(worker);
	tally->operations += operations;
	tally->hits += hits;
	tally->ns += ns;
	while (fscanf(s->out, "%" SCNu64 " %" SCNu64, &value, &count) == 2)
		while (count--)
			histogram_add(&tally->times, value);
	if (fscanf(s->out, "end%*c") != 0)
		gone(worker);
}

void script_leave(struct worker *worker)
{
	struct state *s = worker->state;

	if (!s || !s->in || !s->out)
		return;
	fclose(s->in);
	fclose(s->out);
}
