/* SPDX-License-Identifier: MIT */
/*
 * top, in three parts: top-look.c looks at a cache, again and again, and keeps what is needed to tell of the time
 * between two looks; top-page.c makes lines of text of that; top-screen.c (by ncurses, or top-screen-none.c) shows them
 * and takes keys. A look is not a page: what is paused can be sorted, and shown in another size.
 */
#ifndef SHOAL_CLI_TOP_H
#define SHOAL_CLI_TOP_H

#include "cli.h"

#include <sys/types.h>

/* ---- a look: top-look.c ------------------------------------------------------------------------------------ */

struct top_keyspace {
	char name[64];
	uint32_t version;
	struct shoal_keyspace_stats now, last; /* at first, or counted anew: last is zero */
	bool seen;                             /* in this look */
	double samples;                        /* since the last look */
};

struct top_flight {
	char name[64];
	struct shoal_flight flight; /* its key lies here */
	char key[48];
};

/* What was found among the last hits. */
struct top_key {
	char name[64];
	uint32_t version;
	char *key;
	size_t key_size, size;
	double samples; /* since the last look */
	double rate;    /* of hits a second, of the last looks, those longer ago less */
};

struct top_process {
	struct shoal_process process;
	char command[20];
};

struct top_look {
	const char *name;
	struct shoal_config config;
	struct shoal *cache; /* NULL: not there now, for `trouble` */
	char trouble[160];
	double at, seconds;  /* when it was; since the last one: 0 if that was none */
	double weight;       /* of all looks, in what rates are a mean of */
	struct shoal_info info;
	struct shoal_stats stats, last;
	struct top_keyspace *keyspaces;
	struct top_flight *flights;
	struct top_key *keys;
	struct top_process *processes;
	size_t keyspaces_n, flights_n, keys_n, processes_n;
};

double top_now(void); /* seconds */

/* Look again. What can't be is told by `trouble`; but false: no memory. */
bool top_look(struct top_look *l);

/* Between looks, at any time: what is hit now? */
bool top_sample(struct top_look *l);

/* When to do that next, if looks are `every` seconds apart: at times that nothing else keeps to. */
double top_next_sample(double every);

void top_forget(struct top_look *l);

/* ---- a page: top-page.c ------------------------------------------------------------------------------------ */

enum top_view { VIEW_ALL, VIEW_KEYSPACES, VIEW_FLIGHTS, VIEW_KEYS, VIEW_PROCESSES, VIEW_MEMORY, VIEW_HELP,
                VIEWS = VIEW_HELP };

#define TOP_SORTS "req|hit|stale|load|ratio|coal|ld50|ld99|wt50|wt99|oldest|err|keys|name"
enum { TOP_SORT_COUNT = 14 };

struct top_choice {
	enum top_view view;
	unsigned sort;   /* of TOP_SORTS */
	bool reverse, totals, paused;
	unsigned scroll; /* rows of a view of one table that are above the page */
};

enum top_style { STYLE_PLAIN, STYLE_TITLE, STYLE_HEAD, STYLE_ALARM };

struct top_line {
	enum top_style style;
	char *text;
};

struct top_page {
	unsigned width, height; /* 0: no end */
	struct top_line *lines;
	size_t count;
};

/* Make the lines of it, of the width and height that it says; false: no memory. */
bool top_page(struct top_page *page, struct top_look *l, struct top_choice *choice);
void top_page_end(struct top_page *page);

const char *top_sort_name(unsigned sort); /* as the column's head says it */

/* ---- the screen: top-screen.c ------------------------------------------------------------------------------ */

enum { SCREEN_NONE = -1 };

/* Until the user has seen enough. Returns the exit status; SCREEN_NONE: there is none. A signal that ends it is
 * raised again when the terminal is as it was. */
int top_screen(const struct call *call, struct top_look *l, struct top_choice *choice, double every);

#endif
