/* SPDX-License-Identifier: MIT */
/* Eight processes want the same key at once; one of them asks the database. */
#include <shoal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int load_profile(struct shoal_load *load, const void *key, size_t key_size, void *db)
{
	char row[256];

	(void)db;
	usleep(100 * 1000); /* a slow query */
	int n = snprintf(row, sizeof(row), "%.*s, as process %d found it", (int)key_size, (const char *)key, getpid());
	return shoal_load_publish(load, row, (size_t)n); /* or an errno: the others get it, or the stale value */
}

int main(void)
{
	struct shoal_policy policy = {.fresh_ms = 30000, .stale_ms = 300000};
	struct shoal_keyspace *profiles;
	struct shoal *cache;
	int outcome = shoal_open(NULL, NULL, &cache); /* NULL: shared with the children forked later; or a name */

	if (outcome == SHOAL_OK)
		outcome = shoal_keyspace_open(cache, "user.profile", 1, &policy, &profiles);
	if (outcome != SHOAL_OK)
		return fprintf(stderr, "shoal: %s\n", shoal_strerror(outcome)), 1;

	for (int i = 0; i < 8; i++) {
		if (fork() == 0) {
			struct shoal_value value;

			outcome = shoal_fetch(profiles, "user:7", 6, load_profile, NULL, &value);
			if (outcome == SHOAL_OK) {
				printf("%d: %.*s\n", getpid(), (int)value.size, (const char *)value.data);
				fflush(stdout);
				shoal_release(&value);
			}
			_exit(outcome != SHOAL_OK);
		}
	}

	int status, failed = 0;
	while (wait(&status) > 0)
		failed |= status;
	shoal_close(cache);
	return failed != 0;
}
