/* SPDX-License-Identifier: MIT */
/*
 * The options of a verb, declared once: parsing them (by getopt_long), the help text and the completion come from the
 * same table. A verb has a struct of its own, whose fields are zero when an option is not given:
 *
 *	struct set {
 *		struct cache_options cache;
 *		uint32_t fresh;
 *		bool quiet;
 *	};
 *	static const struct option_spec set_options[] = {
 *		OPTION_CACHE(struct set),
 *		{"fresh", 0, OPTION_DURATION(struct set, fresh), "DURATION", "how long it is fresh (60s)"},
 *		{"quiet", 'q', OPTION_FLAG(struct set, quiet), NULL, "say nothing"},
 *		OPTIONS_END,
 *	};
 *
 * Every table gets --help, -h besides.
 */
#ifndef SHOAL_CLI_OPTIONS_H
#define SHOAL_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_kind {
	KIND_FLAG,     /* bool */
	KIND_TEXT,     /* const char *: of argv */
	KIND_LIST,     /* struct option_list: may be given several times */
	KIND_COUNT,    /* uint64_t, from 1 to most (0: UINT32_MAX) */
	KIND_DURATION, /* uint32_t: ms, SHOAL_NONE, SHOAL_FOREVER */
	KIND_SIZE,     /* uint64_t: bytes, not 0 */
	KIND_RATE,     /* double: a second; INFINITY is none */
	KIND_SHARE,    /* double: 0 to 1; INFINITY is none. Whether it was given, see option_share */
	KIND_MODE,     /* unsigned */
	KIND_KEYSPACE, /* struct option_keyspace */
	KIND_CHOICE,   /* unsigned: 1 for the first of `value`, which is as "one|two|three" */
};

#define OPTION_LIST_MOST 64
#define OPTION_ERROR 320 /* bytes of a message */

struct option_list {
	unsigned count;
	const char *items[OPTION_LIST_MOST];
};

/* NAME@VERSION; NAME alone is NAME@1, and `any` says so to who would rather take it as all versions. */
struct option_keyspace {
	char name[64];
	uint32_t version;
	bool given, any;
};

struct option_share {
	double share;
	bool given;
};

struct option_spec {
	const char *name;  /* NULL: the end of the table */
	char letter;       /* or 0 */
	enum option_kind kind;
	size_t offset;
	const char *value; /* what help calls it; NULL for a flag */
	const char *help;  /* one line, begins small, no full stop; the default in brackets */
	uint64_t most;     /* of a count; 0: UINT32_MAX */
};

/* The offset of a field that has to be of that type: the comparison only makes the compiler say when it isn't. */
#define OPTION_FIELD(type, field, of) (offsetof(type, field) + 0 * sizeof((of *)0 == &((type *)0)->field))

#define OPTION_FLAG(type, field) KIND_FLAG, OPTION_FIELD(type, field, bool)
#define OPTION_TEXT(type, field) KIND_TEXT, OPTION_FIELD(type, field, const char *)
#define OPTION_LIST(type, field) KIND_LIST, OPTION_FIELD(type, field, struct option_list)
#define OPTION_COUNT(type, field) KIND_COUNT, OPTION_FIELD(type, field, uint64_t)
#define OPTION_DURATION(type, field) KIND_DURATION, OPTION_FIELD(type, field, uint32_t)
#define OPTION_SIZE(type, field) KIND_SIZE, OPTION_FIELD(type, field, uint64_t)
#define OPTION_RATE(type, field) KIND_RATE, OPTION_FIELD(type, field, double)
#define OPTION_SHARE(type, field) KIND_SHARE, OPTION_FIELD(type, field, struct option_share)
#define OPTION_MODE(type, field) KIND_MODE, OPTION_FIELD(type, field, unsigned)
#define OPTION_KEYSPACE(type, field) KIND_KEYSPACE, OPTION_FIELD(type, field, struct option_keyspace)
#define OPTION_CHOICE(type, field) KIND_CHOICE, OPTION_FIELD(type, field, unsigned)
#define OPTIONS_END {NULL, 0, KIND_FLAG, 0, NULL, NULL, 0}

enum { OPTIONS_WRONG = -1, OPTIONS_HELP = -2 };

/*
 * Fill *values from argv[1] on. Returns the index of the first argument that is no option: argv is reordered, so that
 * all of those come last; `early`: at the first of them options end (the rest is another command's). OPTIONS_HELP: help
 * is asked for. OPTIONS_WRONG: `error` says what.
 */
int options_parse(const struct option_spec *specs, bool early, int argc, char **argv, void *values,
                  char error[OPTION_ERROR]);

/* NULL, or what is wrong. */
const char *options_keyspace(const char *text, struct option_keyspace *to);

void options_help(const struct option_spec *specs, FILE *to);

/* Of `n` names the one that is meant by `text`, or NULL if none is near. name(i, arg) gives the names. */
const char *options_nearest(const char *text, const char *(*name)(size_t i, const void *arg), size_t n,
                            const void *arg);

#endif
