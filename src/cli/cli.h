/* SPDX-License-Identifier: MIT */
/*
 * The `shoal` command. It is built on <shoal.h> alone, as any program is.
 *
 * To add a verb:
 *   1. In a file of its own or of its group: a struct for its options, their table (options.h), a function, and
 *
 *	const struct verb verb_touch = {
 *		.name = "touch", .group = GROUP_ENTRIES,
 *		.summary = "one line, begins small, no full stop",
 *		.arguments = "KEY...", .least = 1, .most = ANY_NUMBER,
 *		.options = touch_options, .size = sizeof(struct touch),
 *		.notes = "What else the help should say, with examples.\n",
 *		.run = touch,
 *	};
 *
 *   2. Its line in VERBS below, and its file in meson.build's list for the command.
 *   3. Its section in a man page of src/man: NAME, synopsis and each option, which tests/cli/help.sh
 *      compares with the table.
 *   4. Its cases in tests/cli, and a line of bad input in tests/cli/usage.sh.
 *
 * Data goes to standard output, all that is said to standard error. The function returns the exit status;
 * main() flushes standard output and looks whether all of it was written, so a verb needn't. Help and
 * completion come by themselves.
 */
#ifndef SHOAL_CLI_H
#define SHOAL_CLI_H

#include "options.h"

#include <shoal.h>

/* A verb is in the table by its line here; help lists them in this order. */
#define VERBS(VERB) \
	/* segments */ \
	VERB(create) \
	VERB(info) \
	VERB(check) \
	VERB(reap) \
	VERB(resize) \
	VERB(destroy) \
	/* watching */ \
	VERB(stat) \
	VERB(canary) \
	VERB(top) \
	VERB(metrics) \
	/* entries */ \
	VERB(keys) \
	VERB(get) \
	VERB(set) \
	VERB(delete) \
	VERB(expire) \
	VERB(flush) \
	/* running commands */ \
	VERB(run) \
	VERB(warm) \
	/* moving */ \
	VERB(migrate) \
	VERB(dump) \
	VERB(restore) \
	/* help */ \
	VERB(help) \
	VERB(completion) \
	VERB(version)

/* What the command answers; shoal(1) documents it. `run` answers what its command does. */
enum {
	EXIT_DONE = 0,
	EXIT_NONE = 1,          /* the key, keyspace or cache asked for is not there */
	EXIT_USAGE = 2,
	EXIT_CANNOT_ATTACH = 3, /* no such cache, or it may not be used */
	EXIT_CORRUPT = 4,
	EXIT_TIMEOUT = 5,       /* also: no permit */
	EXIT_FAILED = 6,        /* anything else: no space, no memory, output that can't be written */
};

enum verb_group { GROUP_SEGMENTS, GROUP_WATCH, GROUP_ENTRIES, GROUP_RUN, GROUP_MOVE, GROUP_HELP };

#define ANY_NUMBER 0x7fffffff
#define KEY_MOST 65535 /* bytes of a key */

struct call;

struct verb {
	const char *name;
	enum verb_group group;
	const char *summary;
	const char *arguments; /* behind the options in the synopsis; NULL: none */
	int least, most;       /* how many of them */
	bool early;            /* options end at the first argument: the rest is another command's */
	const struct option_spec *options;
	size_t size;           /* of the struct that they fill */
	const char *notes;     /* or NULL */
	int (*run)(const struct call *call);
};

/* One use of a verb. */
struct call {
	const struct verb *verb;
	const void *options; /* the verb's struct */
	int count;           /* of arguments */
	char **arguments;    /* ends with NULL */
};

#define DECLARE_VERB(name) extern const struct verb verb_##name;
VERBS(DECLARE_VERB)
#undef DECLARE_VERB

/* All verbs in the order of VERBS; NULL: there is none. */
const struct verb *cli_verb(size_t i);
const struct verb *cli_find_verb(const char *name);
const char *cli_nearest_verb(const char *name);
void cli_help(const struct verb *verb, FILE *to);

/* ---- messages: cli.c --------------------------------------------------------------------------------------- */

/* "shoal VERB: ..." and a newline to standard error. */
void cli_error(const struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An error in how the verb was called: adds where help is. Returns EXIT_USAGE. */
int cli_usage(const struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Said if SHOAL_LOG asks for that much: error, warning (the default), info, debug. */
enum cli_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
void cli_log(const struct call *call, enum cli_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool cli_logs(enum cli_level level);

/* An outcome of the library, negative or a miss, as an error about `what` (a key, a file...).
 * Returns the exit status. */
int cli_failed(const struct call *call, const char *what, int outcome);
int cli_status(int outcome); /* the exit status alone */

/* May what goes there be coloured? It is a terminal, not a dumb one, and NO_COLOR is not set. */
bool cli_colour(FILE *to);

/* ---- the cache --------------------------------------------------------------------------------------------- */

/* First in the struct of a verb's options, and in their table. */
struct cache_options {
	const char *name, *owner;
};
#define OPTION_CACHE(type) \
	{"cache", 'c', OPTION_TEXT(type, cache.name), "NAME", \
	 "the cache: its name, or a path with a / (SHOAL_CACHE)", 0}, \
	{"owner", 0, OPTION_TEXT(type, cache.owner), "USER", "accept a cache of this user, too", 0}

/* The name: --cache, or else the environment's SHOAL_CACHE, or NULL. */
const char *cli_cache_name(const struct cache_options *cache);

/* config->owner of --owner, or say what is wrong with it and return the exit status. */
int cli_owner(const struct call *call, const char *owner, struct shoal_config *config);

/* Open it, or say why not and return the exit status. A look (SHOAL_INSPECT) changes nothing. */
int cli_look(const struct call *call, const struct cache_options *cache, struct shoal **to);
int cli_attach(const struct call *call, const struct cache_options *cache, struct shoal **to);
int cli_open(const struct call *call, const struct cache_options *cache, const struct shoal_config *config,
             struct shoal **to);

/*
 * A handle of a keyspace that is there; if it isn't, EXIT_NONE and a message. Lives and the lease that are 0
 * in `policy` are those that the keyspace's own programs opened it with last, and what they see there stays
 * theirs (SHOAL_EXISTING).
 */
int cli_keyspace(const struct call *call, const struct cache_options *options, struct shoal *cache,
                 const struct option_keyspace *name, const struct shoal_policy *policy, struct shoal_keyspace **to);

/* Likewise, but one that isn't there is made, with that policy. Says nothing: returns the library's outcome. */
int cli_keyspace_or_make(struct shoal *cache, const struct option_keyspace *name, const struct shoal_policy *policy,
                         struct shoal_keyspace **to);

#endif
