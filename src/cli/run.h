/* SPDX-License-Identifier: MIT */
/* `shoal run`, in two files: run.c decides who runs the command, lead.c runs it as the one who does. */
#ifndef SHOAL_CLI_RUN_H
#define SHOAL_CLI_RUN_H

#include "cli.h"
#include "frame.h"

struct run_options {
	struct cache_options cache;
	const char *key;
	bool key_from_args, cwd, cache_failures;
	struct option_list env;
	struct option_keyspace keyspace;
	uint32_t fresh, stale, stale_error, retry, timeout, refresh_limit;
	uint64_t max_loads;
};

struct run {
	const struct call *call;
	const struct run_options *options;
	struct cache_options cache; /* with the name that is used */
	char name[64];
	struct option_keyspace keyspace;
	struct shoal *shoal;
	struct shoal_keyspace *outputs;
	char *key;
	size_t key_size;
	char *mark; /* for the environment of the command: the keys that are being run around it */
};

#define RUN_LEASE_MS 10000u
/* a failure's output outlasts the time that the library remembers the failure, a minute */
#define RUN_FAILURE_MS 120000u

int run_open(struct run *run); /* 0, or a message and the exit status that belongs to it */
void run_close(struct run *run);
struct shoal_keyspace *run_failures(struct run *run); /* of what failed; NULL: not to be had */

/* Write a frame to where it belongs. Returns the exit status: `status`, unless it can't be written. */
int run_replay(const struct run *run, const void *bytes, size_t size, unsigned status);

/* Run the command, as the leader of `load`, which ends; `behind`: for nobody but the cache. Returns the exit status. */
int lead_run(struct run *run, struct shoal_load *load, bool behind);

#endif
