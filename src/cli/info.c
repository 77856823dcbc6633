/* SPDX-License-Identifier: MIT */
/* Verbs about which caches there are: info, destroy. */
#include "cli.h"
#include "escape.h"
#include "json.h"
#include "names.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- info -------------------------------------------------------------------------------------------------- */

struct info {
	struct cache_options cache;
	bool all, json;
};

static const struct option_spec info_options[] = {
	OPTION_CACHE(struct info),
	{"all", 'a', OPTION_FLAG(struct info, all), NULL,
	 "list the caches of this machine, whatever SHOAL_CACHE says", 0},
	{"json", 'j', OPTION_FLAG(struct info, json), NULL, "JSON, a line for each cache", 0},
	OPTIONS_END,
};

static const char *user_name(uid_t id, char to[UNIT_TEXT])
{
	const struct passwd *user = getpwuid(id);

	if (user)
		snprintf(to, UNIT_TEXT, "%.31s", user->pw_name);
	else
		snprintf(to, UNIT_TEXT, "%u", (unsigned)id);
	return to;
}

/* A look at one file of the list: -1 if the library here can't. A stranger's file is not opened: its owner may cut it
 * short under our feet. */
static int64_t processes_of(const struct cache_file *file)
{
	struct shoal_config config = {.flags = SHOAL_ATTACH | SHOAL_INSPECT};
	struct shoal_stats stats;
	struct shoal *cache;
	int64_t n = -1;

	if (shoal_open(file->path, &config, &cache) != SHOAL_OK)
		return -1;
	if (shoal_stats(cache, &stats) == SHOAL_OK)
		n = stats.processes;
	shoal_close(cache);
	return n;
}

static int list_line(const struct cache_file *f, bool json)
{
	char size[UNIT_TEXT], memory[UNIT_TEXT], user[UNIT_TEXT], mode[UNIT_TEXT];
	uint64_t taken = (uint64_t)f->st.st_blocks * 512;
	int64_t processes = processes_of(f);
	json_t *o;

	user_name(f->st.st_uid, user);
	snprintf(mode, sizeof(mode), "%03o", (unsigned)(f->st.st_mode & 0777));
	if (json) {
		o = json_object();
		json_set_bytes(o, "cache", f->name, strlen(f->name));
		json_object_set_new(o, "path", json_string(f->path));
		json_object_set_new(o, "layout", json_integer(f->layout));
		json_object_set_new(o, "size", json_integer((json_int_t)f->st.st_size));
		json_object_set_new(o, "memory", json_integer((json_int_t)taken));
		json_object_set_new(o, "owner", json_string(user));
		json_object_set_new(o, "mode", json_string(mode));
		json_object_set_new(o, "processes", processes < 0 ? json_null() : json_integer(processes));
		return json_print(o);
	}
	printf("%6u  %9s  %9s  %s  %-10s ", f->layout, unit_size_text((uint64_t)f->st.st_size, size),
	       unit_size_text(taken, memory), mode, user);
	if (processes < 0)
		printf("%9s  ", "-");
	else
		printf("%9" PRId64 "  ", processes);
	escape_print(stdout, f->name, strlen(f->name));
	putchar('\n');
	return EXIT_DONE;
}

static int list_caches(const struct call *call, bool json)
{
	struct cache_file *files = NULL;
	int n = names_list(NULL, &files), status = EXIT_DONE, i;

	if (n < 0) {
		cli_error(call, "/dev/shm: %s", strerror(errno));
		return EXIT_FAILED;
	}
	if (n && !json)
		printf("%6s  %9s  %9s  %s  %-10s %9s  %s\n", "LAYOUT", "SIZE", "MEMORY", "MODE", "OWNER", "PROCESSES",
		       "CACHE");
	for (i = 0; i < n && !status; i++)
		status = list_line(&files[i], json);
	if (!n)
		cli_log(call, LOG_INFO, "no cache has a name here");
	free(files);
	return status;
}

struct known {
	struct shoal_info info;
	struct shoal_stats stats;
	uint64_t keyspaces;
};

static int count_keyspace(const struct shoal_keyspace_info *keyspace, void *arg)
{
	++*(uint64_t *)arg;
	return 0;
}

static int describe_json(const char *name, const struct known *k)
{
	const struct shoal_info *i = &k->info;
	json_t *o = json_object();
	char mode[8];

	snprintf(mode, sizeof(mode), "%03o", (unsigned)(i->mode & 0777));
	json_set_bytes(o, "cache", name, strlen(name));
#define SET(field) json_object_set_new(o, #field, json_integer((json_int_t)i->field))
	SET(layout);
	SET(size);
	SET(max_entry);
	SET(mean_entry);
	SET(extents);
	SET(extent_size);
	SET(max_processes);
	SET(max_threads);
	SET(max_flights);
	SET(max_keyspaces);
	SET(max_loads);
#undef SET
	json_object_set_new(o, "mode", json_string(mode));
	json_object_set_new(o, "huge_pages", json_boolean(i->flags & SHOAL_HUGE_PAGES));
	json_object_set_new(o, "checksum", json_boolean(i->flags & SHOAL_CHECKSUM));
	json_object_set_new(o, "fifo", json_boolean(i->flags & SHOAL_FIFO));
	json_object_set_new(o, "processes", json_integer((json_int_t)k->stats.processes));
	json_object_set_new(o, "threads", json_integer((json_int_t)k->stats.threads));
	json_object_set_new(o, "keyspaces", json_integer((json_int_t)k->keyspaces));
	json_object_set_new(o, "entries", json_integer((json_int_t)k->stats.entries));
	json_object_set_new(o, "version", json_string(shoal_version()));
	return json_print(o);
}

static void describe_text(const char *name, const struct known *k)
{
	const struct shoal_info *i = &k->info;
	char text[UNIT_TEXT];

	fputs("cache          ", stdout);
	escape_print(stdout, name, strlen(name));
	printf("\nlayout         %u\nsize           %s\n", i->layout, unit_size_text(i->size, text));
	printf("largest entry  %s\n", unit_size_text(i->max_entry, text));
	printf("mean entry     %s, expected\n", unit_size_text(i->mean_entry, text));
	printf("extents        %u of %s\n", i->extents, unit_size_text(i->extent_size, text));
	printf("entries        %" PRIu64 "\n", k->stats.entries);
	printf("keyspaces      %" PRIu64 " of %u\n", k->keyspaces, i->max_keyspaces);
	printf("processes      %" PRIu32 " of %u\n", k->stats.processes, i->max_processes);
	printf("threads        %" PRIu32 " of %u\n", k->stats.threads, i->max_threads);
	printf("flights        %" PRIu32 " of %u\n", k->stats.flights, i->max_flights);
	if (i->max_loads)
		printf("loads          %" PRIu32 " of %u\n", k->stats.permits_used, i->max_loads);
	printf("mode           %03o%s%s%s\n", (unsigned)(i->mode & 0777),
	       i->flags & SHOAL_HUGE_PAGES ? ", huge pages" : "", i->flags & SHOAL_CHECKSUM ? ", checksums" : "",
	       i->flags & SHOAL_FIFO ? ", fifo" : "");
}

static int describe(const struct call *call)
{
	const struct info *o = call->options;
	const char *name = cli_cache_name(&o->cache);
	struct known known = {0};
	struct shoal *cache;
	int status = cli_look(call, &o->cache, &cache), outcome;

	if (status)
		return status;
	outcome = shoal_info(cache, &known.info);
	if (outcome == SHOAL_OK)
		outcome = shoal_stats(cache, &known.stats);
	if (outcome == SHOAL_OK)
		outcome = shoal_keyspaces(cache, count_keyspace, &known.keyspaces);
	shoal_close(cache);
	if (outcome != SHOAL_OK)
		return cli_failed(call, name, outcome);
	if (o->json)
		return describe_json(name, &known);
	describe_text(name, &known);
	return EXIT_DONE;
}

static int info(const struct call *call)
{
	const struct info *o = call->options;

	if (o->all && o->cache.name)
		return cli_usage(call, "one of --all and --cache");
	return o->all || !cli_cache_name(&o->cache) ? list_caches(call, o->json) : describe(call);
}

const struct verb verb_info = {
	.name = "info", .group = GROUP_SEGMENTS,
	.summary = "how a cache was made; or, if none is named, which there are",
	.options = info_options, .size = sizeof(struct info),
	.notes = "Those with a path of their own are not listed. MEMORY is what the system has given to it, "
		 "SIZE also counts what\n"
		 "no longer or not yet is.\n",
	.run = info,
};

/* ---- destroy ----------------------------------------------------------------------------------------------- */

struct destroy {
	struct cache_options cache;
	bool force;
};

static const struct option_spec destroy_options[] = {
	OPTION_CACHE(struct destroy),
	{"force", 'f', OPTION_FLAG(struct destroy, force), NULL, "also while processes are attached", 0},
	OPTIONS_END,
};

/* Processes that use it, the dead ones recovered first, as far as we may; or that map it,
 * without having used it yet. */
static unsigned users_of(const struct cache_file *file)
{
	unsigned mapped = names_mapped_by(&file->st);
	int64_t n = processes_of(file);
	struct shoal *cache;

	if (n > 0 && shoal_open(file->path, &(struct shoal_config){.flags = SHOAL_ATTACH}, &cache) == SHOAL_OK) {
		shoal_reap(cache);
		shoal_close(cache);
		n = processes_of(file);
	}
	return n > mapped ? (unsigned)n : mapped;
}

/* A path leads anywhere: is it a cache, or was it one? */
static bool is_cache(const char *path)
{
	struct shoal_config config = {.flags = SHOAL_ATTACH | SHOAL_INSPECT};
	struct shoal *cache;
	int outcome = shoal_open(path, &config, &cache);

	if (outcome == SHOAL_OK)
		shoal_close(cache);
	return outcome == SHOAL_OK || outcome == SHOAL_ERR_CORRUPT;
}

static int destroy_files(const struct call *call, const struct cache_file *files, int count)
{
	const struct destroy *o = call->options;
	unsigned users = 0;
	int i, status = EXIT_DONE;

	for (i = 0; i < count; i++)
		users += users_of(&files[i]);
	if (users && !o->force) {
		cli_error(call, "%u process%s attached", users, users == 1 ? " is" : "es are");
		fputs("end them first; or --force: they go on with what they have, and who comes later "
		      "has another one\n",
		      stderr);
		return EXIT_FAILED;
	}
	for (i = 0; i < count; i++) {
		if (unlink(files[i].path) && errno != ENOENT) {
			cli_error(call, "%s: %s", files[i].path, strerror(errno));
			status = EXIT_FAILED;
			continue;
		}
		cli_log(call, LOG_INFO, "%s is removed", files[i].path);
	}
	if (users && !status)
		cli_log(call, LOG_WARNING, "%u process%s still attached", users, users == 1 ? " is" : "es are");
	return status;
}

static int destroy_path(const struct call *call, const char *path)
{
	const struct destroy *o = call->options;
	struct cache_file one = {0};

	if (strlen(path) >= sizeof(one.path))
		return cli_usage(call, "the path is too long");
	strcpy(one.path, path);
	if (lstat(path, &one.st)) {
		cli_error(call, "cache '%s': %s", path, strerror(errno));
		return errno == ENOENT ? EXIT_NONE : EXIT_FAILED;
	}
	if (!S_ISREG(one.st.st_mode) || (!o->force && !is_cache(path))) {
		cli_error(call, "'%s' is no cache, or of another layout version: --force removes any file", path);
		return EXIT_FAILED;
	}
	return destroy_files(call, &one, 1);
}

static int destroy(const struct call *call)
{
	const struct destroy *o = call->options;
	const char *name = cli_cache_name(&o->cache);
	struct cache_file *files = NULL;
	int n, status;

	if (!name)
		return cli_usage(call, "which cache? --cache NAME, or SHOAL_CACHE in the environment");
	if (strchr(name, '/'))
		return destroy_path(call, name);
	n = names_list(name, &files);
	if (n > 0) {
		status = destroy_files(call, files, n);
	} else {
		cli_error(call, "cache '%s': %s", name, n < 0 ? strerror(errno) : shoal_strerror(SHOAL_ERR_NOT_FOUND));
		status = n < 0 ? EXIT_FAILED : EXIT_NONE;
	}
	free(files);
	return status;
}

const struct verb verb_destroy = {
	.name = "destroy", .group = GROUP_SEGMENTS,
	.summary = "remove a cache, of all layout versions",
	.options = destroy_options, .size = sizeof(struct destroy),
	.notes = "Its values are lost. It is refused while processes are attached: they would go on with the old one, "
		 "and who opens\n"
		 "it later would have another. Exit status 1: there is none.\n",
	.run = destroy,
};
