/* SPDX-License-Identifier: MIT */
/* shoal itself: shoal_read, which copies, and shoal_get with shoal_release, which doesn't; in pages of either size. */
#include "../loops.h"

#include <shoal.h>
#include <stdio.h>

#define HEADER 64 /* at most, with the rounding */
#define MANY_MOST 256
#define ROOM 2.0     /* of what the values take: keys that are set over and over leave dead ones behind */

struct state {
	struct shoal *cache;
	struct shoal_keyspace *keyspace;
};

static int failed(const char *what, int outcome)
{
	fprintf(stderr, "shoal: %s: %s\n", what, shoal_strerror(outcome));
	return -1;
}

static const struct shoal_policy policy = {.fresh_ms = 3600 * 1000, .wait_ms = 60000};

static int open_named(const char *name, const struct shoal_config *config, void **result)
{
	struct state *state = calloc(1, sizeof(*state));
	int outcome = shoal_open(name, config, &state->cache);

	if (outcome == SHOAL_OK)
		outcome = shoal_keyspace_open(state->cache, "bench", 1, &policy, &state->keyspace);
	*result = state;
	return outcome == SHOAL_OK ? 0 : failed("open", outcome);
}

static int open_with(const struct peer_setup *setup, const char *name, void **result, unsigned flags)
{
	const struct workload *w = setup->workload;
	uint64_t mean = w->value_bytes / w->keys + KEY_SIZE, need = w->keys * (mean + HEADER);
	double room = setup->capacity < 1 ? setup->capacity : ROOM;
	struct shoal_config config = {
		.size = (size_t)((double)need * room) + (8u << 20),
		/* an index for the keys, not the room */
		.mean_entry = setup->capacity < 1 ? mean : (size_t)((double)mean * ROOM / 1.25),
		.max_processes = setup->processes + 16,
		.max_threads = setup->processes + 64,
		.flags = flags,
	};

	if (config.size / 64 < w->value_to + HEADER)
		config.size = (w->value_to + HEADER) * 64ull;
	if (config.size / 256 < w->value_to + HEADER || w->value_to + HEADER > 1u << 20)
		config.max_entry = w->value_to + HEADER;
	return open_named(name, &config, result);
}

static int shoal_peer_open(const struct peer_setup *setup, void **result)
{
	return open_with(setup, NULL, result, setup->huge ? SHOAL_HUGE_PAGES : 0);
}

static int huge_open(const struct peer_setup *setup, void **result)
{
	return open_with(setup, NULL, result, SHOAL_HUGE_PAGES);
}

/* In a file, which each worker attaches for itself. */
static const char *file_of(const struct peer_setup *setup)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/segment", setup->directory);
	return path;
}

static int named_open(const struct peer_setup *setup, void **result)
{
	return open_with(setup, file_of(setup), result, setup->huge ? SHOAL_HUGE_PAGES : 0);
}

static int named_join(struct worker *worker)
{
	return open_named(file_of(worker->setup), &(struct shoal_config){.flags = SHOAL_ATTACH}, &worker->state);
}

static int fill(void *p, const char *key, uint32_t number, const void *value, size_t size)
{
	struct state *state = p;
	int outcome = shoal_set(state->keyspace, key, KEY_SIZE, value, size);

	(void)number;
	return outcome == SHOAL_OK ? 0 : failed("set", outcome);
}

LOOP_INLINE size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	const struct state *state = worker->state;
	size_t size;

	if (shoal_read(state->keyspace, r->key, KEY_SIZE, buffer, worker->setup->workload->value_to, &size) != SHOAL_OK)
		return 0;
	return size;
}

LOOP_INLINE int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	const struct state *state = worker->state;

	return shoal_set(state->keyspace, r->key, KEY_SIZE, value, size);
}

/* Values are looked at where they are: their first 8 bytes. */
LOOP_INLINE size_t hold(struct worker *worker, const struct request *r, void *buffer)
{
	const struct state *state = worker->state;
	struct shoal_value value;
	size_t size;

	if (shoal_get(state->keyspace, r->key, KEY_SIZE, &value) != SHOAL_OK)
		return 0;
	size = value.size;
	memcpy(buffer, value.data, 8);
	shoal_release(&value);
	return size;
}

LOOP_INLINE size_t get_many(struct worker *worker, const struct request *r, unsigned n, void *buffer, int copy)
{
	const struct state *state = worker->state;
	struct shoal_slice keys[MANY_MOST];
	struct shoal_value values[MANY_MOST];
	int outcomes[MANY_MOST];
	size_t hits = 0;
	unsigned i;

	for (i = 0; i < n; i++)
		keys[i] = (struct shoal_slice){r[i].key, KEY_SIZE};
	shoal_get_many(state->keyspace, keys, n, values, outcomes);
	for (i = 0; i < n; i++) {
		if (outcomes[i] != SHOAL_OK)
			continue;
		memcpy(buffer, values[i].data, copy ? values[i].size : 8);
		shoal_release(&values[i]);
		hits++;
	}
	return hits;
}

LOOP_INLINE size_t many(struct worker *worker, const struct request *r, unsigned n, void *buffer)
{
	return get_many(worker, r, n, buffer, 1);
}

LOOP_INLINE size_t hold_many(struct worker *worker, const struct request *r, unsigned n, void *buffer)
{
	return get_many(worker, r, n, buffer, 0);
}

PEER_RUN(run, get, set, many)
PEER_RUN(hold_run, hold, set, hold_many)

struct call {
	struct load *load;
	void *buffer;
	int led;
};

static int loader(struct shoal_load *handle, const void *key, size_t key_size, void *arg)
{
	struct call *call = arg;
	size_t size = call->load->run(call->load, key, call->buffer);

	call->led = 1;
	return shoal_load_publish(handle, call->buffer, size);
}

static int fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	const struct state *state = worker->state;
	struct call call = {load, buffer, 0};
	struct shoal_value value;
	int outcome = shoal_fetch(state->keyspace, key, KEY_SIZE, loader, &call, &value);

	if (outcome != SHOAL_OK)
		return failed("fetch", outcome);
	memcpy(buffer, value.data, value.size);
	shoal_release(&value);
	fetched->led = call.led;
	return 0;
}

static size_t check(struct worker *worker, const struct request *r, void *buffer)
{
	return get(worker, r, buffer);
}

static void shoal_peer_close(void *p)
{
	struct state *state = p;

	shoal_close(state->cache);
}

#define COMMON .set = fill, .get = check, .fetch = fetch, .close = shoal_peer_close

const struct peer peer_shoal = {
	.name = "shoal", .what = "shoal_read", .open = shoal_peer_open, .run = run, COMMON,
};
const struct peer peer_shoal_get = {
	.name = "shoal-get", .what = "shoal_get + shoal_release, no copy", .open = shoal_peer_open,
	.run = hold_run, COMMON,
};
const struct peer peer_shoal_huge = {
	.name = "shoal-huge", .what = "shoal_read, in huge pages", .open = huge_open, .run = run, COMMON,
};
const struct peer peer_shoal_named = {
	.name = "shoal-named",
	.what = "shoal_read, of a named segment that each worker attaches",
	.flags = PEER_ATTACHES,
	.open = named_open,
	.join = named_join,
	.run = run,
	COMMON,
};
