/* SPDX-License-Identifier: MIT */
/*
 * A look at a cache. It is opened anew for each, so one that was destroyed and made again is found; its counters are
 * then less than they were, and count from zero.
 *
 * The hottest keys are found by sampling: of each keyspace's hits between two looks, which are counted exactly, a key
 * has the share that it has among the samples.
 */
#include "top.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SAMPLES 20.0   /* between two looks */
#define HALF_LIFE 5.0  /* seconds, of what was seen of a key */
#define KEYS_MOST 2000

double top_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Room for one more, zeroed, in the array that the pointer at `array` leads to; it is full at powers of two,
 * or has shrunk since. */
static void *more(void *array, size_t *n, size_t size)
{
	char *a;

	memcpy(&a, array, sizeof(a));
	if (!(*n & (*n - 1)))
		a = realloc(a, (*n ? 2 * *n : 1) * size);
	if (!a)
		return NULL;
	memcpy(array, &a, sizeof(a));
	return memset(a + (*n)++ * size, 0, size);
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

static struct top_keyspace *keyspace_of(struct top_look *l, const char *name, uint32_t version)
{
	size_t i;

	for (i = 0; i < l->keyspaces_n; i++)
		if (l->keyspaces[i].version == version && !strcmp(l->keyspaces[i].name, name))
			return &l->keyspaces[i];
	return NULL;
}

static uint64_t requests(const struct shoal_keyspace_stats *s)
{
	return s->hits_fresh + s->hits_stale + s->misses;
}

static int see_keyspace(const struct shoal_keyspace_info *info, void *arg)
{
	struct top_look *l = arg;
	struct top_keyspace *k = keyspace_of(l, info->name, info->version);

	if (!k) {
		k = more(&l->keyspaces, &l->keyspaces_n, sizeof(*k));
		if (!k)
			return SHOAL_ERR_SYSTEM;
		snprintf(k->name, sizeof(k->name), "%s", info->name);
		k->version = info->version;
		k->last = info->stats; /* what it has counted before is not of this time */
	} else {
		k->last = k->now;
	}
	if (requests(&k->last) > requests(&info->stats) || k->last.loads > info->stats.loads)
		memset(&k->last, 0, sizeof(k->last));
	k->now = info->stats;
	k->seen = true;
	return SHOAL_OK;
}

static void drop_unseen(struct top_look *l)
{
	size_t i, n = 0;

	for (i = 0; i < l->keyspaces_n; i++)
		if (l->keyspaces[i].seen) {
			l->keyspaces[n] = l->keyspaces[i];
			l->keyspaces[n++].seen = false;
		}
	l->keyspaces_n = n;
}

/* ---- flights, processes ------------------------------------------------------------------------------------ */

static int see_flight(const struct shoal_flight *flight, void *arg)
{
	struct top_look *l = arg;
	struct top_flight *f;

	if (flight->state >= SHOAL_FLIGHT_FAILED && flight->left_ms < 0) /* remembered, but for nobody any more */
		return SHOAL_OK;
	f = more(&l->flights, &l->flights_n, sizeof(*f));
	if (!f)
		return SHOAL_ERR_SYSTEM;
	f->flight = *flight;
	snprintf(f->name, sizeof(f->name), "%s", flight->keyspace);
	if (f->flight.key.size > sizeof(f->key))
		f->flight.key.size = sizeof(f->key);
	memcpy(f->key, flight->key.data, f->flight.key.size);
	return SHOAL_OK;
}

static void read_command(pid_t pid, char *to, size_t size)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (!f || !fgets(to, (int)size, f))
		*to = 0;
	to[strcspn(to, "\n")] = 0;
	if (f)
		fclose(f);
}

static int see_process(const struct shoal_process *process, void *arg)
{
	struct top_look *l = arg;
	struct top_process *p = more(&l->processes, &l->processes_n, sizeof(*p));

	if (!p)
		return SHOAL_ERR_SYSTEM;
	p->process = *process;
	if (!process->other_namespace)
		read_command(process->pid, p->command, sizeof(p->command));
	return SHOAL_OK;
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

static int see_hit(const struct shoal_entry *e, void *arg)
{
	struct top_look *l = arg;
	struct top_keyspace *keyspace = keyspace_of(l, e->keyspace, e->version);
	struct top_key *k;
	size_t i;

	if (!keyspace)
		return SHOAL_OK;
	keyspace->samples++;
	for (i = 0; i < l->keys_n; i++) {
		k = &l->keys[i];
		if (k->key_size == e->key.size && k->version == e->version &&
		    !memcmp(k->key, e->key.data, k->key_size) && !strcmp(k->name, e->keyspace))
			break;
	}
	if (i == l->keys_n) {
		if (i == KEYS_MOST)
			return SHOAL_OK;
		k = more(&l->keys, &l->keys_n, sizeof(*k));
		if (!k || !(k->key = malloc(e->key.size)))
			return k ? l->keys_n--, SHOAL_ERR_SYSTEM : SHOAL_ERR_SYSTEM;
		memcpy(k->key, e->key.data, k->key_size = e->key.size);
		snprintf(k->name, sizeof(k->name), "%s", e->keyspace);
		k->version = e->version;
	}
	k = &l->keys[i];
	k->samples++;
	k->size = e->size;
	return SHOAL_OK;
}

bool top_sample(struct top_look *l)
{
	errno = 0;
	return !l->cache || shoal_recent(l->cache, see_hit, l) != SHOAL_ERR_SYSTEM || errno != ENOMEM;
}

double top_next_sample(double every)
{
	return -log(1 - drand48()) * every / SAMPLES;
}

/* The samples become hits a second, and those of before count less. */
static void weigh_keys(struct top_look *l)
{
	double kept = exp2(-l->seconds / HALF_LIFE), hits;
	const struct top_keyspace *k;
	size_t i, n = 0;

	l->weight = l->weight * kept + (1 - kept);
	for (i = 0; i < l->keys_n; i++) {
		struct top_key *key = &l->keys[i];

		k = keyspace_of(l, key->name, key->version);
		hits = k ? (double)(k->now.hits_fresh + k->now.hits_stale - k->last.hits_fresh - k->last.hits_stale)
		         : 0;
		key->rate = key->rate * kept +
			    (k && k->samples > 0 ? key->samples / k->samples * hits / l->seconds : 0) * (1 - kept);
		key->samples = 0;
		if (key->rate * HALF_LIFE > 0.01)
			l->keys[n++] = *key;
		else
			free(key->key);
	}
	l->keys_n = n;
	for (i = 0; i < l->keyspaces_n; i++)
		l->keyspaces[i].samples = 0;
}

/* ---- the look ---------------------------------------------------------------------------------------------- */

static int look_at(struct top_look *l)
{
	int r = shoal_info(l->cache, &l->info);

	l->last = l->stats;
	if (r == SHOAL_OK)
		r = shoal_stats(l->cache, &l->stats);
	if (r == SHOAL_OK)
		r = shoal_keyspaces(l->cache, see_keyspace, l);
	if (r == SHOAL_OK)
		r = shoal_flights(l->cache, see_flight, l);
	return r == SHOAL_OK ? shoal_processes(l->cache, see_process, l) : r;
}

static void close_cache(struct top_look *l)
{
	if (l->cache)
		shoal_close(l->cache);
	l->cache = NULL;
}

static void say_trouble(struct top_look *l, int outcome)
{
	snprintf(l->trouble, sizeof(l->trouble), "cache '%.63s': %s", l->name,
	         outcome == SHOAL_ERR_SYSTEM ? strerror(errno) : shoal_strerror(outcome));
}

bool top_look(struct top_look *l)
{
	double now = top_now();
	int r;

	l->flights_n = l->processes_n = 0;
	l->seconds = l->at > 0 ? now - l->at : 0;
	l->at = now;
	*l->trouble = 0;
	close_cache(l);
	r = shoal_open(l->name, &l->config, &l->cache);
	errno = r == SHOAL_ERR_SYSTEM ? errno : 0;
	if (r == SHOAL_OK)
		r = look_at(l);
	if (r != SHOAL_OK) {
		say_trouble(l, r);
		l->at = 0; /* rates begin anew */
	}
	drop_unseen(l);
	if (l->seconds > 0 && r == SHOAL_OK)
		weigh_keys(l);
	return r != SHOAL_ERR_SYSTEM || errno != ENOMEM;
}

void top_forget(struct top_look *l)
{
	size_t i;

	close_cache(l);
	for (i = 0; i < l->keys_n; i++)
		free(l->keys[i].key);
	free(l->keyspaces);
	free(l->flights);
	free(l->keys);
	free(l->processes);
}
