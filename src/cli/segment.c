/* SPDX-License-Identifier: MIT */
/* Verbs about segments: create, check, reap, resize. */
#include "cli.h"
#include "escape.h"
#include "json.h"
#include "units.h"

#include <string.h>

/* ---- create ------------------------------------------------------------------------------------------------ */

struct create {
	struct cache_options cache;
	uint64_t size, max_entry, mean_entry, processes, threads, flights, keyspaces, loads, extents;
	unsigned mode;
	bool huge_pages, checksum, fifo, exclusive;
};

static const struct option_spec create_options[] = {
	OPTION_CACHE(struct create),
	{"size", 's', OPTION_SIZE(struct create, size), "SIZE", "bytes of the whole segment, at least 1m (64m)", 0},
	{"max-entry", 0, OPTION_SIZE(struct create, max_entry), "SIZE",
	 "largest key and value together (size / 256)", 0},
	{"mean-entry", 0, OPTION_SIZE(struct create, mean_entry), "SIZE", "expected mean of key and value (512)", 0},
	{"max-processes", 0, OPTION_COUNT(struct create, processes), "N", "attached at once (256)", 0},
	{"max-threads", 0, OPTION_COUNT(struct create, threads), "N", "of all processes (1024)", 0},
	{"max-flights", 0, OPTION_COUNT(struct create, flights), "N", "keys being loaded at once (4096)", 0},
	{"max-keyspaces", 0, OPTION_COUNT(struct create, keyspaces), "N", "keyspaces, each version counts (64)", 0},
	{"max-loads", 0, OPTION_COUNT(struct create, loads), "N",
	 "loaders that run at once on this machine (no bound)", 0},
	{"extents", 0, OPTION_COUNT(struct create, extents), "N",
	 "pieces of the log, the unit of eviction (64 or more)", 0},
	{"mode", 'm', OPTION_MODE(struct create, mode), "MODE", "permissions of the file (600)", 0},
	{"huge-pages", 0, OPTION_FLAG(struct create, huge_pages), NULL, "in huge pages where the system has them", 0},
	{"checksum", 0, OPTION_FLAG(struct create, checksum), NULL, "verify every value when it is read", 0},
	{"fifo", 0, OPTION_FLAG(struct create, fifo), NULL, "evict first in, first out; for comparison", 0},
	{"exclusive", 'x', OPTION_FLAG(struct create, exclusive), NULL, "fail if it is there already", 0},
	OPTIONS_END,
};

static int create(const struct call *call)
{
	const struct create *o = call->options;
	struct shoal_config config = {
		.size = o->size,
		.max_entry = o->max_entry,
		.mean_entry = o->mean_entry,
		.max_processes = (unsigned)o->processes,
		.max_threads = (unsigned)o->threads,
		.max_flights = (unsigned)o->flights,
		.max_keyspaces = (unsigned)o->keyspaces,
		.max_loads = (unsigned)o->loads,
		.extents = (unsigned)o->extents,
		.mode = o->mode,
		.flags = (o->huge_pages ? SHOAL_HUGE_PAGES : 0) | (o->checksum ? SHOAL_CHECKSUM : 0) |
		         (o->fifo ? SHOAL_FIFO : 0) | (o->exclusive ? SHOAL_EXCLUSIVE : 0),
	};
	struct shoal *cache;
	int status = cli_open(call, &o->cache, &config, &cache);

	if (status)
		return status;
	shoal_close(cache);
	return EXIT_DONE;
}

const struct verb verb_create = {
	.name = "create", .group = GROUP_SEGMENTS,
	.summary = "make a cache, if it is not there",
	.options = create_options, .size = sizeof(struct create),
	.notes = "One that is there keeps its size and its limits. A program that opens a cache makes it, too, "
		 "so this is only\n"
		 "needed to give it another size, or other limits, than the program would.\n\n"
		 "  shoal create --cache shop --size 1g --max-loads 16\n",
	.run = create,
};

/* ---- check ------------------------------------------------------------------------------------------------- */

struct only_cache {
	struct cache_options cache;
	bool json;
};

static const struct option_spec check_options[] = {
	OPTION_CACHE(struct only_cache),
	{"json", 'j', OPTION_FLAG(struct only_cache, json), NULL, "a line of JSON for each fault", 0},
	OPTIONS_END,
};

static int print_fault(const char *what, int recoverable, void *arg)
{
	const struct only_cache *o = arg;
	json_t *j;

	if (o->json) {
		j = json_object();
		json_set_bytes(j, "fault", what, strlen(what)); /* it may quote what is wrong */
		json_object_set_new(j, "recoverable", json_boolean(recoverable));
		return json_print(j);
	}
	escape_print(stdout, what, strlen(what));
	puts(recoverable ? " (left by a dead process: shoal reap)" : "");
	return 0;
}

static int check(const struct call *call)
{
	struct only_cache o = *(const struct only_cache *)call->options;
	struct shoal *cache;
	int status = cli_look(call, &o.cache, &cache), faults;

	if (status)
		return status;
	faults = shoal_check(cache, print_fault, &o);
	shoal_close(cache);
	if (faults < 0)
		return cli_failed(call, cli_cache_name(&o.cache), faults);
	if (!faults)
		return EXIT_DONE;
	cli_error(call, "%d fault%s", faults, faults == 1 ? "" : "s");
	fputs("bytes of the segment are wrong. They are counted misses where they are met; "
	      "shoal destroy makes room for a new one\n",
	      stderr);
	return EXIT_CORRUPT;
}

const struct verb verb_check = {
	.name = "check", .group = GROUP_SEGMENTS,
	.summary = "look at every byte of a cache, and name what can't be",
	.options = check_options, .size = sizeof(struct only_cache),
	.notes = "It changes nothing and may be used while others work. Exit status 4: there are faults. "
		 "What a dead process\n"
		 "left, and others will recover, is named and no fault.\n",
	.run = check,
};

/* ---- reap -------------------------------------------------------------------------------------------------- */

static const struct option_spec reap_options[] = {OPTION_CACHE(struct only_cache), OPTIONS_END};

static int reap(const struct call *call)
{
	const struct only_cache *o = call->options;
	struct shoal *cache;
	int status = cli_attach(call, &o->cache, &cache), found;

	if (status)
		return status;
	found = shoal_reap(cache);
	shoal_close(cache);
	if (found < 0)
		return cli_failed(call, cli_cache_name(&o->cache), found);
	printf("%d\n", found);
	return EXIT_DONE;
}

const struct verb verb_reap = {
	.name = "reap", .group = GROUP_SEGMENTS,
	.summary = "recover what dead processes held, and print how many there were",
	.options = reap_options, .size = sizeof(struct only_cache),
	.notes = "Others do it as well, when they meet what was held. After a resize it gives back the memory of "
		 "the old size.\n",
	.run = reap,
};

/* ---- resize ------------------------------------------------------------------------------------------------ */

static const struct option_spec resize_options[] = {OPTION_CACHE(struct only_cache), OPTIONS_END};

static int resize(const struct call *call)
{
	const struct only_cache *o = call->options;
	const char *text = call->arguments[0], *wrong;
	struct shoal *cache;
	uint64_t size;
	int status, outcome;

	wrong = unit_size(text, &size);
	if (wrong)
		return cli_usage(call, "SIZE: '%s' %s", text, wrong);
	status = cli_attach(call, &o->cache, &cache);
	if (status)
		return status;
	outcome = shoal_resize(cache, size);
	if (outcome == SHOAL_ERR_INVALID)
		status = cli_usage(call, "'%s' is too small for this cache, or too large for any", text);
	else if (outcome != SHOAL_OK)
		status = cli_failed(call, text, outcome);
	shoal_close(cache);
	return status;
}

const struct verb verb_resize = {
	.name = "resize", .group = GROUP_SEGMENTS,
	.summary = "give a cache another size, while it is used",
	.arguments = "SIZE", .least = 1, .most = 1,
	.options = resize_options, .size = sizeof(struct only_cache),
	.notes = "Every process goes over at its next call. Values are carried over, the most used ones first. "
		 "While it runs the\n"
		 "memory of both sizes is taken. Exit status 5: another resize is at it.\n\n"
		 "  shoal resize --cache shop 2g\n",
	.run = resize,
};
