/* SPDX-License-Identifier: MIT */
/* Redis over a unix socket, a connection per worker. Several keys: as many GETs in one write. */
#include "../loops.h"
#include "wire.h"

#include <stdio.h>
#include <unistd.h>

#define FLUSH_AT (128u << 10)
#define POLL_NS 50000000

struct state {
	struct wire *wire;
	unsigned unanswered;
};

static int redis_open(const struct peer_setup *setup, void **state)
{
	struct state *s = calloc(1, sizeof(*s));
	double room = (double)(setup->workload->value_bytes + setup->workload->keys * 160ull) *
	              (setup->capacity < 1 ? setup->capacity : 2);
	char memory[32];
	const char *argv[] = {"redis-server", BENCH_PEERS "/redis.conf", "--maxmemory", memory, NULL};

	snprintf(memory, sizeof(memory), "%.0f", room + (16 << 20));
	*state = s;
	if (wire_serve(setup->directory, argv) < 0) {
		fprintf(stderr, "%s: can't be run\n", argv[0]);
		return -1;
	}
	s->wire = wire_open(setup->directory, "redis.sock");
	return s->wire ? 0 : -1;
}

static void ask(struct wire *w, const struct request *r)
{
	wire_put(w, "*2\r\n$3\r\nGET\r\n$20\r\n", 18);
	wire_put(w, r->key, KEY_SIZE);
	wire_put(w, "\r\n", 2);
}

static size_t answer(struct wire *w, void *buffer)
{
	const char *line = wire_line(w);
	long size = line && *line == '$' ? atol(line + 1) : -1;

	if (size < 0 || wire_take(w, buffer, (size_t)size) || wire_take(w, NULL, 2))
		return 0;
	return (size_t)size;
}

static void put(struct wire *w, const char *key, const void *value, size_t size)
{
	wire_put(w, "*3\r\n$3\r\nSET\r\n$20\r\n", 18);
	wire_put(w, key, KEY_SIZE);
	wire_print(w, "\r\n$%zu\r\n", size);
	wire_put(w, value, size);
	wire_put(w, "\r\n", 2);
}

static int is_ok(struct wire *w)
{
	const char *line = wire_line(w);

	if (line && !strcmp(line, "+OK"))
		return 1;
	fprintf(stderr, "redis: %s\n", line ? line : "gone");
	return 0;
}

static int filled(void *state)
{
	struct state *s = state;

	if (wire_flush(s->wire))
		return -1;
	for (; s->unanswered; s->unanswered--)
		if (!is_ok(s->wire))
			return -1;
	return 0;
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	struct state *s = state;

	put(s->wire, key, value, size);
	s->unanswered++;
	return wire_pending(s->wire) > FLUSH_AT || s->unanswered > 500 ? filled(s) : 0;
}

static int join(struct worker *worker)
{
	struct state *s = calloc(1, sizeof(*s));

	worker->state = s;
	s->wire = wire_open(worker->setup->directory, "redis.sock");
	return s->wire ? 0 : -1;
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	struct state *s = worker->state;

	ask(s->wire, r);
	wire_flush(s->wire);
	return answer(s->wire, buffer);
}

static size_t many(struct worker *worker, const struct request *r, unsigned n, void *buffer)
{
	struct state *s = worker->state;
	size_t hits = 0;
	unsigned i;

	for (i = 0; i < n; i++)
		ask(s->wire, &r[i]);
	wire_flush(s->wire);
	for (i = 0; i < n; i++)
		hits += answer(s->wire, buffer) != 0;
	return hits;
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	struct state *s = worker->state;

	put(s->wire, r->key, value, size);
	wire_flush(s->wire);
	return !is_ok(s->wire);
}

/* SET NX makes the lock; who doesn't get it looks again after a while, and who gets it looks again first: the last one
 * may have given it back between. */
static int fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	struct wire *w = ((struct state *)worker->state)->wire;
	struct request r;
	const char *line;
	size_t size;

	memcpy(r.key, key, KEY_SIZE);
	while (!get(worker, &r, buffer)) {
		wire_print(w, "SET lock:%.*s %d NX PX 30000\r\n", KEY_SIZE, key, getpid());
		if (wire_flush(w) || !(line = wire_line(w)))
			return -1;
		if (*line != '+') {
			nanosleep(&(struct timespec){0, POLL_NS}, NULL);
			continue;
		}
		fetched->led = !get(worker, &r, buffer);
		if (fetched->led) {
			size = load->run(load, key, buffer);
			put(w, key, buffer, size);
		}
		wire_print(w, "DEL lock:%.*s\r\n", KEY_SIZE, key);
		return wire_flush(w) || (fetched->led && !is_ok(w)) || !wire_line(w) ? -1 : 0;
	}
	return 0;
}

PEER_RUN(run, get, set, many)

const struct peer peer_redis = {
	.name = "redis",
	.what = "Redis over a unix socket; several keys are pipelined",
	.flags = PEER_SLOW | PEER_ATTACHES,
	.open = redis_open,
	.join = join,
	.set = fill,
	.filled = filled,
	.get = get,
	.run = run,
	.fetch = fetch,
};
