/* SPDX-License-Identifier: MIT */
#include "options.h"
#include "units.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#define SPECS_MOST 48
#define NAME_MOST 32

/* ---- values ------------------------------------------------------------------------------------------------ */

const char *options_keyspace(const char *text, struct option_keyspace *to)
{
	const char *at = strchr(text, '@'), *wrong;
	size_t n = at ? (size_t)(at - text) : strlen(text);
	uint64_t version = 1;

	if (!n || n >= sizeof(to->name) ||
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") < n)
		return "is no keyspace: NAME or NAME@VERSION, the name of 1 to 63 of A-Z a-z 0-9 . _ -";
	wrong = at ? unit_count(at + 1, 0, UINT32_MAX, &version) : NULL;
	if (wrong)
		return "is no keyspace: its version is no number below 2^32";
	*to = (struct option_keyspace){.version = (uint32_t)version, .given = true, .any = !at};
	memcpy(to->name, text, n);
	return NULL;
}

static const char *add_to_list(const char *text, struct option_list *list)
{
	if (list->count == OPTION_LIST_MOST)
		return "is one too many of them";
	list->items[list->count++] = text;
	return NULL;
}

/* The place of `text` in "one|two|three", from 1 on; 0: it is not there. */
static unsigned choice_of(const char *choices, const char *text)
{
	size_t n = strlen(text), m;
	unsigned i;

	for (i = 1; n; i++) {
		m = strcspn(choices, "|");
		if (m == n && !memcmp(choices, text, n))
			return i;
		if (!choices[m])
			break;
		choices += m + 1;
	}
	return 0;
}

static const char *set_share(const char *text, struct option_share *to)
{
	const char *wrong = unit_share(text, &to->share);

	to->given = !wrong;
	return wrong;
}

static const char *set_size(const char *text, uint64_t *to)
{
	uint64_t size;
	const char *wrong = unit_size(text, &size);

	if (!wrong && !size)
		wrong = "has to be more than 0";
	if (!wrong)
		*to = size;
	return wrong;
}

static const char *set(const struct option_spec *spec, const char *text, void *to)
{
	switch (spec->kind) {
	case KIND_FLAG:
		return *(bool *)to = true, NULL;
	case KIND_TEXT:
		return *(const char **)to = text, NULL;
	case KIND_LIST:
		return add_to_list(text, to);
	case KIND_COUNT:
		return unit_count(text, 1, spec->most ? spec->most : UINT32_MAX, to);
	case KIND_DURATION:
		return unit_duration(text, to);
	case KIND_SIZE:
		return set_size(text, to);
	case KIND_RATE:
		return unit_rate(text, to);
	case KIND_SHARE:
		return set_share(text, to);
	case KIND_MODE:
		return unit_mode(text, to);
	case KIND_KEYSPACE:
		return options_keyspace(text, to);
	case KIND_CHOICE:
		*(unsigned *)to = choice_of(spec->value, text);
		return *(unsigned *)to ? NULL : "is none of them";
	}
	return "is not understood";
}

/* ---- parsing ----------------------------------------------------------------------------------------------- */

static const char *spec_name(size_t i, const void *arg)
{
	return ((const struct option_spec *)arg)[i].name;
}

static size_t count_of(const struct option_spec *specs)
{
	size_t n = 0;

	while (specs[n].name)
		n++;
	return n;
}

/* What getopt_long takes: +: stop at the first argument, no messages of its own. */
static void translate(const struct option_spec *specs, bool early, struct option *longs, char *letters)
{
	size_t i;

	if (early)
		*letters++ = '+';
	*letters++ = ':';
	for (i = 0; i < SPECS_MOST && specs[i].name; i++) {
		bool has = specs[i].kind != KIND_FLAG;

		longs[i] = (struct option){specs[i].name, has ? required_argument : no_argument, NULL, 256 + (int)i};
		if (specs[i].letter) {
			*letters++ = specs[i].letter;
			if (has)
				*letters++ = ':';
		}
	}
	longs[i] = (struct option){"help", no_argument, NULL, 'h'};
	*letters++ = 'h';
	*letters = 0;
}

static const struct option_spec *spec_of(const struct option_spec *specs, int c)
{
	if (c >= 256)
		return specs + (c - 256);
	while (specs->name && specs->letter != c)
		specs++;
	return specs->name ? specs : NULL;
}

/* getopt has refused `word`. */
static void explain(const struct option_spec *specs, int c, const char *word, char error[OPTION_ERROR])
{
	const struct option_spec *spec = optopt ? spec_of(specs, optopt) : NULL;
	const char *near;
	int n = (int)strcspn(word, "=");

	if (c == ':' && spec)
		snprintf(error, OPTION_ERROR, "--%s needs %s", spec->name, spec->value);
	else if (optopt && (spec || optopt == 'h'))
		snprintf(error, OPTION_ERROR, "--%s takes no value", spec ? spec->name : "help");
	else if (optopt)
		snprintf(error, OPTION_ERROR, "no option -%c", optopt >= 0x20 && optopt < 0x7f ? optopt : '?');
	else {
		char name[NAME_MOST] = "";

		if (n - 2 < NAME_MOST && n > 2)
			snprintf(name, sizeof(name), "%.*s", n - 2, word + 2);
		near = options_nearest(name, spec_name, count_of(specs), specs);
		snprintf(error, OPTION_ERROR, "no option %.*s%s%s%s", n < 100 ? n : 100, word,
		         near ? ": did you mean --" : "", near ? near : "", near ? "?" : "");
	}
}

int options_parse(const struct option_spec *specs, bool early, int argc, char **argv, void *values,
                  char error[OPTION_ERROR])
{
	struct option longs[SPECS_MOST + 2] = {0};
	char letters[SPECS_MOST * 2 + 8];
	const struct option_spec *spec;
	const char *wrong;
	int c, before = 1;

	translate(specs, early, longs, letters);
	optind = 0; /* glibc: begin anew */
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (c == 'h')
			return OPTIONS_HELP;
		if (c == '?' || c == ':') {
			before = optind > 1 ? optind - 1 : 1;
			explain(specs, c, argv[before < argc ? before : argc - 1], error);
			return OPTIONS_WRONG;
		}
		spec = spec_of(specs, c);
		wrong = spec ? set(spec, optarg, (char *)values + spec->offset) : "is not understood";
		if (wrong) {
			snprintf(error, OPTION_ERROR, "--%s: '%.100s' %s", spec ? spec->name : "?",
			         optarg ? optarg : "", wrong);
			if (spec && spec->kind == KIND_CHOICE)
				snprintf(error, OPTION_ERROR, "--%s: '%.100s' is none of %s", spec->name, optarg,
				         spec->value);
			return OPTIONS_WRONG;
		}
	}
	return optind;
}

/* ---- help -------------------------------------------------------------------------------------------------- */

#define VALUE_WIDE 24 /* a choice of more has a line of its own */

static bool is_wide(const struct option_spec *s)
{
	return s->kind == KIND_CHOICE && strlen(s->value) > VALUE_WIDE;
}

/* The words of a choice, indented, in lines that end behind a word. */
static void print_choice(const char *words, size_t indent, FILE *to)
{
	size_t n, room = 110 - indent;

	for (; *words; words += n) {
		n = strlen(words);
		if (n > room) {
			for (n = room; n && words[n - 1] != '|'; n--)
				;
			n = n ? n : room;
		}
		fprintf(to, "%*s%.*s\n", (int)indent, "", (int)n, words);
	}
}

void options_help(const struct option_spec *specs, FILE *to)
{
	static const struct option_spec help = {"help", 'h', KIND_FLAG, 0, NULL, "this text", 0};
	const struct option_spec *s;
	const char *value;
	char left[80], letter[8];
	size_t width = 0, n = count_of(specs), i, w;

	for (i = 0; i < n; i++) {
		value = is_wide(&specs[i]) ? "WORD" : specs[i].value;
		w = strlen(specs[i].name) + (value ? strlen(value) + 1 : 0);
		width = w > width ? w : width;
	}
	for (i = 0; i <= n; i++) {
		s = i < n ? &specs[i] : &help;
		value = is_wide(s) ? "WORD" : s->value;
		snprintf(letter, sizeof(letter), s->letter ? "-%c, " : "    ", s->letter);
		snprintf(left, sizeof(left), "%s%s%s", s->name, value ? " " : "", value ? value : "");
		fprintf(to, "  %s--%-*s  %s%s\n", letter, (int)width, left, s->help, is_wide(s) ? ":" : "");
		if (is_wide(s))
			print_choice(s->value, width + 10, to);
	}
}

/* ---- the near one ------------------------------------------------------------------------------------------ */

static size_t least_of(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many characters have to be put in, left out, changed, or swapped with the next one. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][NAME_MOST + 1], n = strlen(a), m = strlen(b), i, j;
	size_t *before = rows[0], *last = rows[1], *row = rows[2], *spare;

	for (j = 0; j <= m; j++)
		before[j] = last[j] = j;
	for (i = 1; i <= n; i++) {
		row[0] = i;
		for (j = 1; j <= m; j++) {
			row[j] = least_of(least_of(last[j] + 1, row[j - 1] + 1), last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = least_of(row[j], before[j - 2] + 1);
		}
		spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[m];
}

const char *options_nearest(const char *text, const char *(*name)(size_t i, const void *arg), size_t n, const void *arg)
{
	const char *best = NULL;
	size_t i, d, least, length = strnlen(text, NAME_MOST + 1);

	if (!length || length > NAME_MOST)
		return NULL;
	least = length <= 3 ? 2 : length <= 6 ? 3 : 4; /* nearer than this */
	for (i = 0; i < n; i++) {
		if (strlen(name(i, arg)) > NAME_MOST)
			continue;
		d = distance(text, name(i, arg));
		if (d < least) {
			least = d;
			best = name(i, arg);
		}
	}
	return best;
}
