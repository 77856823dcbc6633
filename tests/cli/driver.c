/* SPDX-License-Identifier: MIT */
/*
 * usage: driver CACHE KEYSPACE VERSION WORD...
 *
 * A program that uses the cache, for the tests of the command. Each WORD is one call: get:KEY, set:KEY, load:KEY (a
 * fetch whose loader gives the key itself), fail:KEY (one whose loader fails), delete:KEY, stale:KEY (set for 1 ms of
 * fresh time, and wait until it is over); wait (for a line of standard input), die (by SIGKILL). The policy: fresh for
 * an hour, stale for a day, no jitter, no early refresh.
 */
#include <shoal.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int load_key(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	return arg ? *(int *)arg : shoal_load_publish(load, key, size);
}

static int wait_till_stale(struct shoal_keyspace *k, const char *key, size_t n)
{
	enum shoal_freshness is = SHOAL_FRESH;
	struct shoal_value value;
	int r = shoal_set_ttl(k, key, n, key, n, 1, 0);

	while (r == SHOAL_OK && is == SHOAL_FRESH) {
		r = shoal_peek(k, key, n, &value);
		is = value.freshness;
		shoal_release(&value);
	}
	return r;
}

static int call(struct shoal_keyspace *k, const char *word)
{
	const char *key = strchr(word, ':') ? strchr(word, ':') + 1 : "";
	size_t n = strlen(key);
	struct shoal_value value = {0};
	int r = SHOAL_ERR_INVALID, error = 42;

	if (!strncmp(word, "get:", 4))
		r = shoal_get(k, key, n, &value);
	else if (!strncmp(word, "set:", 4))
		r = shoal_set(k, key, n, key, n);
	else if (!strncmp(word, "load:", 5))
		r = shoal_fetch(k, key, n, load_key, NULL, &value);
	else if (!strncmp(word, "fail:", 5))
		r = shoal_fetch(k, key, n, load_key, &error, &value) == SHOAL_ERR_LOAD ? SHOAL_OK : SHOAL_ERR_INVALID;
	else if (!strncmp(word, "delete:", 7))
		r = shoal_delete(k, key, n);
	else if (!strncmp(word, "stale:", 6))
		r = wait_till_stale(k, key, n);
	else if (!strcmp(word, "wait"))
		r = puts("waiting") < 0 || fflush(stdout) || getchar() == EOF ? SHOAL_ERR_SYSTEM : SHOAL_OK;
	else if (!strcmp(word, "die"))
		raise(SIGKILL);
	shoal_release(&value);
	return r;
}

int main(int argc, char **argv)
{
	struct shoal_policy policy = {
		.fresh_ms = 3600000, .stale_ms = 86400000, .retry_ms = SHOAL_NONE, .jitter_permille = SHOAL_NONE,
		.early = -1,
	};
	struct shoal_keyspace *k;
	struct shoal *cache;
	int r, i;

	if (argc < 4)
		return fprintf(stderr, "usage: driver CACHE KEYSPACE VERSION WORD...\n"), 2;
	r = shoal_open(argv[1], NULL, &cache);
	if (r == SHOAL_OK)
		r = shoal_keyspace_open(cache, argv[2], (uint32_t)strtoul(argv[3], NULL, 10), &policy, &k);
	for (i = 4; r >= SHOAL_OK && i < argc; i++)
		r = call(k, argv[i]);
	if (r < SHOAL_OK)
		return fprintf(stderr, "driver: %s: %s\n", i > 4 && i <= argc ? argv[i - 1] : "open",
		               shoal_strerror(r)), 1;
	shoal_close(cache);
	return 0;
}
