/* SPDX-License-Identifier: MIT */
/* memcached over a unix socket, a connection per worker. Several keys: one get for all of them. */
#include "../loops.h"
#include "wire.h"

#include <stdio.h>
#include <unistd.h>

#define POLL_NS 50000000

static int answered(struct wire *w, const char *what)
{
	const char *line = wire_line(w);

	if (line && !strncmp(line, what, strlen(what)))
		return 1;
	fprintf(stderr, "memcached: %s\n", line ? line : "gone");
	return 0;
}

static int memcached_open(const struct peer_setup *setup, void **state)
{
	double room = (double)(setup->workload->value_bytes + setup->workload->keys * 120ull) *
	              (setup->capacity < 1 ? setup->capacity : 1.6);
	char megabytes[32];
	const char *argv[] = {
		"memcached", "-s",      "memcached.sock",        "-U",   "0", "-t", "2", "-c", "4096", "-I", "2m",
		"-m",        megabytes, geteuid() ? NULL : "-u", "root", NULL};

	snprintf(megabytes, sizeof(megabytes), "%.0f", room / (1 << 20) + 64);
	if (wire_serve(setup->directory, argv) < 0) {
		fprintf(stderr, "%s: can't be run\n", argv[0]);
		return -1;
	}
	*state = wire_open(setup->directory, "memcached.sock");
	return *state ? 0 : -1;
}

static void put(struct wire *w, const char *key, const void *value, size_t size, const char *more)
{
	wire_put(w, "set ", 4);
	wire_put(w, key, KEY_SIZE);
	wire_print(w, " 0 0 %zu%s\r\n", size, more);
	wire_put(w, value, size);
	wire_put(w, "\r\n", 2);
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	put(state, key, value, size, " noreply");
	return 0;
}

static int filled(void *state)
{
	wire_print(state, "version\r\n");
	return wire_flush(state) || !answered(state, "VERSION") ? -1 : 0;
}

static int join(struct worker *worker)
{
	worker->state = wire_open(worker->setup->directory, "memcached.sock");
	return worker->state ? 0 : -1;
}

/* VALUE lines and their data until END: how many, and the last one's size. */
static size_t answer(struct wire *w, void *buffer, size_t *hits)
{
	size_t size = 0;
	const char *line;

	while ((line = wire_line(w)) && !strncmp(line, "VALUE ", 6)) {
		size = strtoul(strrchr(line, ' '), NULL, 10);
		if (wire_take(w, buffer, size) || wire_take(w, NULL, 2))
			return 0;
		++*hits;
	}
	return size;
}

static size_t many(struct worker *worker, const struct request *r, unsigned n, void *buffer)
{
	size_t hits = 0;

	wire_put(worker->state, "get", 3);
	for (unsigned i = 0; i < n; i++) {
		wire_put(worker->state, " ", 1);
		wire_put(worker->state, r[i].key, KEY_SIZE);
	}
	wire_put(worker->state, "\r\n", 2);
	wire_flush(worker->state);
	answer(worker->state, buffer, &hits);
	return hits;
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	size_t hits = 0;

	wire_put(worker->state, "get ", 4);
	wire_put(worker->state, r->key, KEY_SIZE);
	wire_put(worker->state, "\r\n", 2);
	wire_flush(worker->state);
	return answer(worker->state, buffer, &hits);
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	put(worker->state, r->key, value, size, "");
	wire_flush(worker->state);
	return !answered(worker->state, "STORED");
}

/* add makes the lock; who doesn't get it looks again after a while, and who gets it looks again first: the last one may
 * have given it back between. */
static int fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	struct wire *w = worker->state;
	struct request r;
	const char *line;
	size_t size;

	memcpy(r.key, key, KEY_SIZE);
	while (!get(worker, &r, buffer)) {
		wire_print(w, "add lock:%.*s 0 30 1\r\n1\r\n", KEY_SIZE, key);
		if (wire_flush(w) || !(line = wire_line(w)))
			return -1;
		if (strcmp(line, "STORED")) {
			nanosleep(&(struct timespec){0, POLL_NS}, NULL);
			continue;
		}
		fetched->led = !get(worker, &r, buffer);
		if (fetched->led) {
			size = load->run(load, key, buffer);
			put(w, key, buffer, size, "");
		}
		wire_print(w, "delete lock:%.*s noreply\r\n", KEY_SIZE, key);
		return wire_flush(w) || (fetched->led && !answered(w, "STORED")) ? -1 : 0;
	}
	return 0;
}

PEER_RUN(run, get, set, many)

const struct peer peer_memcached = {
	.name = "memcached",
	.what = "memcached over a unix socket",
	.flags = PEER_SLOW | PEER_ATTACHES,
	.open = memcached_open,
	.join = join,
	.set = fill,
	.filled = filled,
	.get = get,
	.run = run,
	.fetch = fetch,
};
