/* SPDX-License-Identifier: MIT */
/* nginx's lua_shared_dict, from the Lua code of its workers. */
#include "script.h"
#include "wire.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int write_to(const struct peer_setup *setup, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", setup->directory, name);
	f = fopen(path, "we");
	return f && fputs(text, f) >= 0 && !fclose(f) ? 0 : -1;
}

static int nginx_open(const struct peer_setup *setup, void **state)
{
	const struct workload *w = setup->workload;
	double room = (double)(w->value_bytes + w->keys * 160ull) * (setup->capacity < 1 ? setup->capacity : 2);
	char prefix[128], text[256];
	const char *argv[] = {"nginx", "-p", prefix, "-c", "nginx.conf", NULL};

	snprintf(prefix, sizeof(prefix), "%s/", setup->directory);
	snprintf(text, sizeof(text), "worker_processes %u;\n%s", setup->processes, geteuid() ? "" : "user root;\n");
	if (script_files(setup) || wire_link(setup->directory, "nginx.lua", BENCH_PEERS "/nginx.lua") ||
	    wire_link(setup->directory, "nginx.conf", BENCH_PEERS "/nginx-lua.conf") ||
	    write_to(setup, "processes.conf", text))
		return -1;
	snprintf(text, sizeof(text), "lua_shared_dict bench %.0fm;\n", room / (1 << 20) + 16);
	if (write_to(setup, "dict.conf", text))
		return -1;
	if (wire_serve(setup->directory, argv) > 0)
		return 0;
	fprintf(stderr, "nginx: can't be run\n");
	return -1;
}

const struct peer peer_nginx_lua = {
	.name = "nginx-lua",
	.what = "nginx's lua_shared_dict, in Lua",
	.flags = PEER_SLOW,
	.open = nginx_open,
	.join = script_join,
	.get = script_get,
	.run = script_run,
	.leave = script_leave,
};
