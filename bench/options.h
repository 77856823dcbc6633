/* SPDX-License-Identifier: MIT */
/* What is to be measured: from the command line, or from a JSON file whose members are named like the options. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "crew.h"

#define LIST_MOST 16
#define SIZE_TEXT 160

struct list {
	unsigned count;
	uint64_t values[LIST_MOST];
};

struct options {
	const char *command;
	const char *peers; /* comma-separated; NULL: the command's */
	const char *access;
	struct list keys, processes;
	unsigned size_count;
	struct sizes sizes[LIST_MOST];
	double zipf, capacity;
	unsigned writes, batch, repeats;
	double seconds, warm_up; /* of each round */
	uint64_t load_us; /* of a loader */
	uint64_t seed;
	int huge;
	struct pinning pinning;
	unsigned text_count;
	char *texts[64]; /* of a file: others point into them */
	const char *json, *csv, *plot, *compare;
};

void options_default(struct options *o);
int options_parse(struct options *o, int argc, char **argv); /* 0, -1 it is wrong, 1 help was asked for */
int options_set(struct options *o, const char *name, const char *value);
int options_read(struct options *o, const char *path); /* JSON */
void options_free(struct options *o);
void options_usage(void);
void size_text(const struct sizes *sizes, char text[SIZE_TEXT]);

#endif
