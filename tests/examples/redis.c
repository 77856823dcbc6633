/* SPDX-License-Identifier: MIT */
/* first.c with a second level: a value is loaded once for all machines that share a Redis.
 * Without one, once for each. */
#include <shoal-redis.h>
#include <stdio.h>
#include <unistd.h>

static int load_profile(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *db)
{
	char row[256];

	(void)db;
	usleep(100 * 1000); /* a slow query */
	int n = snprintf(row, sizeof(row), "%.*s, as process %d found it", (int)key_size, (const char *)key, getpid());
	return shoal_redis_publish(fill, row, (size_t)n);
}

int main(int argc, char **argv)
{
	struct shoal_redis_config config = {.socket = argc > 1 ? argv[1] : NULL}; /* NULL: 127.0.0.1, port 6379 */
	struct shoal_policy policy = {.fresh_ms = 30000, .stale_ms = 300000};
	struct shoal_redis_loader profiles = {.source = load_profile};
	struct shoal_value value;
	struct shoal_redis *redis;
	struct shoal *cache;
	char why[200];
	int outcome = shoal_open(NULL, NULL, &cache);

	if (outcome == SHOAL_OK)
		outcome = shoal_redis_open(cache, &config, &redis);
	if (outcome == SHOAL_OK)
		outcome = shoal_redis_keyspace_open(redis, "user.profile", 1, &policy, &profiles.keyspace);
	if (outcome != SHOAL_OK)
		return fprintf(stderr, "shoal: %s\n", shoal_strerror(outcome)), 1;
	if (shoal_redis_check(redis, why, sizeof(why)) != SHOAL_OK)
		fprintf(stderr, "%s; going on without\n", why);

	outcome =
		shoal_fetch(shoal_redis_keyspace(profiles.keyspace), "user:7", 6, shoal_redis_load, &profiles, &value);
	if (outcome == SHOAL_OK)
		printf("%.*s\n", (int)value.size, (const char *)value.data);
	shoal_release(&value);
	shoal_redis_close(redis);
	shoal_close(cache);
	return outcome != SHOAL_OK;
}
