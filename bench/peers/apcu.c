/* SPDX-License-Identifier: MIT */
/* APCu, in the forked processes of one PHP, as under php-fpm; apcu_entry where something is to be loaded. */
#include "script.h"
#include "wire.h"

#include <stdio.h>

static int apcu_open(const struct peer_setup *setup, void **state)
{
	const struct workload *w = setup->workload;
	double room = (double)(w->value_bytes + w->keys * 256ull) * (setup->capacity < 1 ? setup->capacity : 1.5);
	char size[64], hint[64], processes[16];
	const char *argv[] = {"php", "-d", "apc.enable_cli=1", "-d", "apc.use_request_time=0", "-d", "memory_limit=-1",
	                      "-d", size, "-d", hint, BENCH_PEERS "/apcu.php", setup->directory, processes, NULL};

	snprintf(size, sizeof(size), "apc.shm_size=%.0fM", room / (1 << 20) + 32);
	snprintf(hint, sizeof(hint), "apc.entries_hint=%u", w->keys);
	snprintf(processes, sizeof(processes), "%u", setup->processes);
	if (!script_files(setup) && wire_serve(setup->directory, argv) > 0)
		return 0;
	fprintf(stderr, "php: can't be run\n");
	return -1;
}

const struct peer peer_apcu = {
	.name = "apcu",
	.what = "APCu in PHP",
	.flags = PEER_SLOW,
	.open = apcu_open,
	.join = script_join,
	.get = script_get,
	.run = script_run,
	.fetch = script_fetch,
	.leave = script_leave,
};
