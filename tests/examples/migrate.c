/* SPDX-License-Identifier: MIT */
/*
 * A release that spells its keys and values in another way, without a cold cache.
 *
 *   release 1    people@1    "user:7" -> "Ada"
 *   release 2    people@2    "7"      -> "name=Ada"
 *
 * Both run for as long as the rollout takes, each with its own version of the keyspace, on one cache. What
 * release 2 misses it takes from people@1, converted, once for each key across all processes; only what isn't
 * there either is loaded.
 *
 *   usage: SHOAL_CACHE=NAME migrate 1|2 FILE get ID...         FILE is the database: lines "ID NAME"
 *          SHOAL_CACHE=NAME migrate 1|2 FILE changed ID...     after a change to it
 */
#include <errno.h>
#include <shoal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the database says: 0 or an errno. */
static int find(const char *file, const char *id, size_t size, char name[100])
{
	FILE *f = fopen(file, "re");
	char is[100];
	int found = 0;

	if (!f)
		return errno;
	while (!found && fscanf(f, "%99s %99s", is, name) == 2)
		found = strlen(is) == size && !memcmp(is, id, size);
	fclose(f);
	return found ? 0 : ENOENT;
}

/* ---- release 1 --------------------------------------------------------------------------------------------- */

static int load_1(struct shoal_load *load, const void *key, size_t size, void *file)
{
	char name[100];
	int error = find(file, (const char *)key + 5, size - 5, name); /* behind "user:" */

	return error ? error : shoal_load_publish(load, name, strlen(name));
}

/* ---- release 2 --------------------------------------------------------------------------------------------- */

static int publish_2(struct shoal_load *load, const char *name, int size)
{
	char text[200];
	int n = snprintf(text, sizeof(text), "name=%.*s", size, name);

	return shoal_load_publish(load, text, (size_t)n);
}

static int load_2(struct shoal_load *load, const void *key, size_t size, void *file)
{
	char name[100];
	int error = find(file, key, size, name);

	return error ? error : publish_2(load, name, (int)strlen(name));
}

/* How release 1 spells this key. Non-zero: it had none like it. */
static int old_key(const void *key, size_t size, void *buffer, size_t capacity, size_t *old_size, void *arg)
{
	int n = snprintf(buffer, capacity, "user:%.*s", (int)size, (const char *)key);

	*old_size = (size_t)n;
	return (size_t)n >= capacity;
}

/* Its value in the new form. Non-zero: it makes no sense, and is loaded. What is left of its life it keeps. */
static int convert(struct shoal_load *load, const void *key, size_t size, const struct shoal_value *old, void *arg)
{
	return old->size == 0 || old->size >= 100 ? EINVAL : publish_2(load, old->data, (int)old->size);
}

/* ---- both -------------------------------------------------------------------------------------------------- */

static int open_release(struct shoal *cache, int release, struct shoal_keyspace **people)
{
	struct shoal_policy policy = {.fresh_ms = 3600000, .stale_ms = 3600000};
	struct shoal_keyspace *old;
	int outcome = shoal_keyspace_open(cache, "people", (uint32_t)release, &policy, people);

	if (outcome == SHOAL_OK && release == 2) { /* until nobody runs release 1 any more and its values have ended */
		outcome = shoal_keyspace_open(cache, "people", 1, &policy, &old);
		if (outcome == SHOAL_OK)
			outcome = shoal_keyspace_fallback(*people, old, old_key, convert, NULL);
	}
	return outcome;
}

static int get(struct shoal_keyspace *people, const char *key, shoal_loader *loader, char *file)
{
	static const char *const sources[] = {"hit", "loaded", "coalesced", "migrated"};
	struct shoal_value value;
	int outcome = shoal_fetch(people, key, strlen(key), loader, file, &value);

	if (outcome != SHOAL_OK)
		return fprintf(stderr, "%s: %s\n", key, shoal_strerror(outcome)), 1;
	printf("%s: %.*s (%s)\n", key, (int)value.size, (const char *)value.data, sources[value.source]);
	shoal_release(&value);
	return 0;
}

int main(int argc, char **argv)
{
	struct shoal_keyspace *people;
	struct shoal *cache;
	int release = argc > 4 ? atoi(argv[1]) : 0, outcome, failed = 0;

	if (release < 1 || release > 2)
		return 2;
	outcome = shoal_open(getenv("SHOAL_CACHE"), NULL, &cache);
	if (outcome == SHOAL_OK)
		outcome = open_release(cache, release, &people);
	if (outcome != SHOAL_OK)
		return fprintf(stderr, "shoal: %s\n", shoal_strerror(outcome)), 1;
	for (int i = 4; i < argc; i++) {
		char key[100];

		snprintf(key, sizeof(key), "%s%s", release == 1 ? "user:" : "", argv[i]);
		if (strcmp(argv[3], "changed"))
			failed |= get(people, key, release == 1 ? load_1 : load_2, argv[2]);
		else
			/* release 2: in people@1 first, then in its own */
			failed |= shoal_delete(people, key, strlen(key)) < 0;
	}
	shoal_close(cache);
	return failed;
}
