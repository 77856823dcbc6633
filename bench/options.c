/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <getopt.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"usage: shoal-bench COMMAND [OPTION...]\n"
	"\n"
	"  read       gets, overlapped and isolated\n"
	"  mixed      gets and sets, --writes percent of them\n"
	"  set        sets alone; --capacity 50% makes them evict\n"
	"  multiget   --batch keys in one call, beside single gets\n"
	"  scale      read, for each of the keys, values and processes given as lists\n"
	"  stampede   many processes on one cold key\n"
	"  coldstart  processes that begin with an empty cache\n"
	"  attach     how long until a process has its first hit\n"
	"  replay     the misses of a trace: replay --help\n"
	"  peers      the names of what is measured beside shoal\n"
	"\n"
	"  --peers A,B       who is measured, in turns; the first is what ratios are to\n"
	"  --access A,B      overlapped, isolated, mixed, set, many; default: the command's\n"
	"  --keys N          1000, 10k, 1M; a list for scale\n"
	"  --value N         bytes; 16-1024: uniform between; 64*5+1024*4+4096-65536*1: by weight; a list for scale\n"
	"  --zipf S          exponent; 0 = uniform\n"
	"  --processes N     (threads, where a peer is of one process); a list for scale\n"
	"  --pin LIST        processors, each worker to the next one of the list; none: no pinning\n"
	"  --writes PERCENT  of mixed; default 5\n"
	"  --batch N         of multiget; default 16\n"
	"  --capacity SHARE  of the values that the caches have room for; default: all\n"
	"  --huge            huge pages for those that have the choice\n"
	"  --seconds S       of each round; --warm-up S before the first\n"
	"  --repeats N       rounds\n"
	"  --load-us N       how long a loader takes; default 20000\n"
	"  --seed N\n"
	"  --config FILE     JSON: members named like these options, as in bench/example.json\n"
	"  --json FILE       results; - is standard output\n"
	"  --csv FILE\n"
	"  --plot PREFIX     PREFIX.png and PREFIX.svg, by gnuplot\n"
	"  --compare FILE    a JSON of earlier results: prints what has changed\n";

static const char *const names[] = {
	"peers",   "access",  "keys",    "value",  "zipf",   "processes", "pin",  "writes", "batch", "capacity",
	"seconds", "warm-up", "repeats", "load-us", "seed",  "config",    "json", "csv",    "plot",  "compare",
};
#define NAMES (sizeof(names) / sizeof(names[0]))

void options_usage(void)
{
	fputs(help, stdout);
}

void options_default(struct options *o)
{
	*o = (struct options){
		.keys = {1, {10000}},
		.processes = {1, {1}},
		.size_count = 1,
		.sizes = {{.parts = 1, .part = {{100, 100, 1}}}},
		.zipf = 0,
		.capacity = 1,
		.writes = 5,
		.batch = 16,
		.repeats = 5,
		.seconds = 0.2,
		.warm_up = 0.3,
		.load_us = 20000,
		.seed = 1,
	};
	options_set(o, "pin", "all");
}

static int parse_number(const char *text, const char **end, uint64_t *value)
{
	char *after;

	if (*text < '0' || *text > '9')
		return -1;
	*value = strtoull(text, &after, 10);
	if (*after == 'k' || *after == 'K')
		*value *= 1000, after++;
	else if (*after == 'M')
		*value *= 1000000, after++;
	*end = after;
	return 0;
}

static int parse_list(const char *text, uint64_t least, uint64_t most, struct list *list)
{
	list->count = 0;
	do {
		uint64_t *value = &list->values[list->count++];

		if (parse_number(text, &text, value) || *value < least || *value > most || (*text && *text != ','))
			return -1;
	} while (*text++ && list->count < LIST_MOST);
	return text[-1] ? -1 : 0;
}

/* 100, 16-1024, or several of them, each with its weight: 64*5+1024*4+4096-65536*1 */
static int parse_size(const char **text, struct sizes *sizes)
{
	*sizes = (struct sizes){0};
	do {
		uint64_t from, to, weight = 1;

		*text += sizes->parts && **text == '+';
		if (sizes->parts == SIZE_PARTS || parse_number(*text, text, &from))
			return -1;
		to = from;
		if (**text == '-' && parse_number(*text + 1, text, &to))
			return -1;
		if (**text == '*' && parse_number(*text + 1, text, &weight))
			return -1;
		if (from < VALUE_LEAST || to < from || to > VALUE_MOST || !weight || weight > 1000000)
			return -1;
		sizes->part[sizes->parts].from = (uint32_t)from;
		sizes->part[sizes->parts].to = (uint32_t)to;
		sizes->part[sizes->parts++].weight = (uint32_t)weight;
	} while (**text == '+');
	return 0;
}

static int parse_sizes(const char *text, struct options *o)
{
	o->size_count = 0;
	do {
		if (o->size_count == LIST_MOST || parse_size(&text, &o->sizes[o->size_count++]))
			return -1;
	} while (*text++ == ',');
	return text[-1] ? -1 : 0;
}

void size_text(const struct sizes *sizes, char text[SIZE_TEXT])
{
	int n = 0;

	for (unsigned i = 0; i < sizes->parts; i++) {
		n += snprintf(text + n, (size_t)(SIZE_TEXT - n), "%s%u", i ? "+" : "", sizes->part[i].from);
		if (sizes->part[i].to > sizes->part[i].from)
			n += snprintf(text + n, (size_t)(SIZE_TEXT - n), "-%u", sizes->part[i].to);
		if (sizes->parts > 1)
			n += snprintf(text + n, (size_t)(SIZE_TEXT - n), "*%u", sizes->part[i].weight);
	}
}

static int parse_pin(const char *text, struct pinning *pinning)
{
	cpu_set_t set;
	struct list list;

	pinning->count = 0;
	if (!strcmp(text, "none"))
		return 0;
	if (strcmp(text, "all")) {
		if (parse_list(text, 0, CPUS_MOST - 1, &list))
			return -1;
		for (; pinning->count < list.count; pinning->count++)
			pinning->cpus[pinning->count] = (int)list.values[pinning->count];
		return 0;
	}
	if (sched_getaffinity(0, sizeof(set), &set))
		return 0;
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			pinning->cpus[pinning->count++] = i;
	return 0;
}

static int parse_real(const char *text, double least, double most, double *value)
{
	char *end;

	*value = strtod(text, &end);
	if (*end == '%' && end[1] == 0)
		*value /= 100;
	else if (*end || end == text)
		return -1;
	return *value >= least && *value <= most ? 0 : -1;
}

static int parse_count(const char *text, uint64_t least, uint64_t most, unsigned *value)
{
	struct list list;

	if (parse_list(text, least, most, &list) || list.count != 1)
		return -1;
	*value = (unsigned)list.values[0];
	return 0;
}

static int set(struct options *o, const char *name, const char *value)
{
	unsigned n;

#define IS(option) (!strcmp(name, option))
	if (IS("peers"))
		return o->peers = value, 0;
	if (IS("access"))
		return o->access = value, 0;
	if (IS("keys"))
		return parse_list(value, 1, 100000000, &o->keys);
	if (IS("value"))
		return parse_sizes(value, o);
	if (IS("zipf"))
		return parse_real(value, 0, 4, &o->zipf);
	if (IS("processes"))
		return parse_list(value, 1, 1024, &o->processes);
	if (IS("pin"))
		return parse_pin(value, &o->pinning);
	if (IS("writes"))
		return parse_count(value, 0, 100, &o->writes);
	if (IS("batch"))
		return parse_count(value, 1, 256, &o->batch);
	if (IS("capacity"))
		return parse_real(value, 0.01, 100, &o->capacity);
	if (IS("seconds"))
		return parse_real(value, 0.001, 3600, &o->seconds);
	if (IS("warm-up"))
		return parse_real(value, 0, 3600, &o->warm_up);
	if (IS("repeats"))
		return parse_count(value, 1, 1000, &o->repeats);
	if (IS("load-us"))
		return parse_count(value, 0, 10000000, &n) ? -1 : (o->load_us = n, 0);
	if (IS("seed"))
		return parse_count(value, 0, UINT32_MAX, &n) ? -1 : (o->seed = n, 0);
	if (IS("config"))
		return options_read(o, value);
	if (IS("json"))
		return o->json = value, 0;
	if (IS("csv"))
		return o->csv = value, 0;
	if (IS("plot"))
		return o->plot = value, 0;
	if (IS("compare"))
		return o->compare = value, 0;
	return -1;
#undef IS
}

int options_set(struct options *o, const char *name, const char *value)
{
	if (!set(o, name, value))
		return 0;
	fprintf(stderr, "shoal-bench: --%s: %s (see --help)\n", name, value);
	return -1;
}

static char *text_of(json_t *value)
{
	char *text = NULL, *part, *more;
	size_t i;
	json_t *item;

	if (json_is_string(value))
		return strdup(json_string_value(value));
	if (!json_is_array(value))
		return json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	json_array_foreach(value, i, item) {
		part = text_of(item);
		if (asprintf(&more, "%s%s%s", text ? text : "", text ? "," : "", part) < 0)
			more = NULL;
		free(part);
		free(text);
		text = more;
	}
	return text ? text : strdup("");
}

int options_read(struct options *o, const char *path)
{
	json_error_t error;
	json_t *root = json_load_file(path, 0, &error), *value;
	const char *name;
	char *text;
	int rc = 0;

	if (!json_is_object(root)) {
		fprintf(stderr, "shoal-bench: %s:%d: %s\n", path, error.line, root ? "not an object" : error.text);
		json_decref(root);
		return -1;
	}
	json_object_foreach(root, name, value) {
		if (!strcmp(name, "huge")) {
			o->huge = json_is_true(value);
			continue;
		}
		text = o->text_count < sizeof(o->texts) / sizeof(o->texts[0]) ? text_of(value) : NULL;
		if (!text || !strcmp(name, "config") || options_set(o, name, text))
			rc = -1;
		if (text)
			o->texts[o->text_count++] = text;
	}
	json_decref(root);
	return rc;
}

void options_free(struct options *o)
{
	while (o->text_count)
		free(o->texts[--o->text_count]);
}

int options_parse(struct options *o, int argc, char **argv)
{
	struct option options[NAMES + 3] = {0};
	int c;

	for (size_t i = 0; i < NAMES; i++)
		options[i] = (struct option){names[i], required_argument, NULL, 1 + (int)i};
	options[NAMES] = (struct option){"huge", no_argument, &o->huge, 1};
	options[NAMES + 1] = (struct option){"help", no_argument, NULL, 'h'};
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'h')
			return 1;
		if (c == '?' || (c && options_set(o, names[c - 1], optarg)))
			return -1;
	}
	if (optind < argc) {
		fprintf(stderr, "shoal-bench: unexpected: %s (see --help)\n", argv[optind]);
		return -1;
	}
	return 0;
}
