/* SPDX-License-Identifier: MIT */
#include "report.h"
#include "machine.h"

#include <shoal.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

json_t *report_new(const struct options *o)
{
	json_t *report = json_object();

	json_object_set_new(report, "shoal", json_string(shoal_version()));
	json_object_set_new(report, "command", json_string(o->command));
	json_object_set_new(report, "machine", machine_facts());
	json_object_set_new(report, "options",
	                    json_pack("{s:f, s:f, s:f, s:i, s:i, s:i, s:f, s:I, s:b}", "seconds", o->seconds, "warm_up",
	                              o->warm_up, "capacity", o->capacity, "repeats", (int)o->repeats, "batch",
	                              (int)o->batch, "writes", (int)o->writes, "zipf", o->zipf, "seed",
	                              (json_int_t)o->seed, "huge", o->huge));
	json_object_set_new(report, "results", json_array());
	return report;
}

json_t *report_row(json_t *report, const char *peer, const char *access)
{
	json_t *row = json_pack("{s:s, s:s}", "peer", peer, "access", access);

	json_array_append_new(json_object_get(report, "results"), row);
	return row;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void report_figure(json_t *row, const char *name, const double *values, unsigned count)
{
	double *sorted = malloc((count + 1) * sizeof(*sorted)), median;
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (!isnan(values[i]))
			sorted[n++] = values[i];
	count = n;
	if (!count)
		return free(sorted);
	qsort(sorted, count, sizeof(*sorted), compare_doubles);
	median = (sorted[count / 2] + sorted[(count - 1) / 2]) / 2;
	json_object_set_new(row, name, json_pack("{s:f, s:f, s:f}", "median", median, "min", sorted[0], "max",
	                                         sorted[count - 1]));
	free(sorted);
}

/* ---- tables ------------------------------------------------------------------------------------------------ */

/* Every member of a row, the nested ones as name.part, in the order of the first row that has it. */
static void flatten(json_t *row, json_t *flat)
{
	const char *name, *part;
	json_t *value, *inner;
	char path[96];

	json_object_foreach(row, name, value) {
		if (!json_is_object(value)) {
			json_object_set(flat, name, value);
			continue;
		}
		json_object_foreach(value, part, inner) {
			snprintf(path, sizeof(path), "%s.%s", name, part);
			json_object_set(flat, path, inner);
		}
	}
}

static void number_text(json_t *value, char text[64])
{
	if (json_is_string(value))
		snprintf(text, 64, "%s", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(text, 64, "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		snprintf(text, 64, json_real_value(value) < 1000 ? "%.4g" : "%.0f", json_real_value(value));
	else
		snprintf(text, 64, "%s", "");
}

/* The name of a column on a terminal; NULL: not shown there, the bounds of figures that medians stand for. */
static const char *short_name(json_t *columns, const char *name)
{
	static char shown[96], median[96];
	char *dot;

	snprintf(shown, sizeof(shown), "%s", name);
	dot = strrchr(shown, '.');
	if (dot && strncmp(name, "ns.", 3)) {
		snprintf(median, sizeof(median), "%.*s.median", (int)(dot - shown), shown);
		if (strcmp(dot, ".median") && json_object_get(columns, median))
			return NULL;
	}
	if (dot && !strcmp(dot, ".median"))
		*dot = 0;
	return strncmp(shown, "latency_ns.", 11) ? shown : shown + 11;
}

static void print_cell(FILE *out, const char *shown, const char *text, unsigned column, int aligned)
{
	if (!shown)
		return;
	if (!text)
		text = shown;
	if (!aligned)
		fprintf(out, "%s%s", column ? "," : "", text);
	else if (column < 2)
		fprintf(out, "%-16s", text);
	else
		fprintf(out, " %*s", strlen(shown) > 8 ? (int)strlen(shown) : 8, text);
}

static void print_rows(json_t *report, FILE *out, int aligned)
{
	json_t *rows = json_object_get(report, "results"), *columns = json_object(), *row, *value;
	char text[64];
	const char *name;
	size_t i;

	json_array_foreach(rows, i, row)
		flatten(row, columns);
	for (size_t line = 0; line <= json_array_size(rows); line++) {
		json_t *flat = json_object();
		unsigned column = 0;

		if (line)
			flatten(json_array_get(rows, line - 1), flat);
		json_object_foreach(columns, name, value) {
			number_text(json_object_get(flat, name), text);
			print_cell(out, aligned ? short_name(columns, name) : name, line ? text : NULL, column++,
			           aligned);
		}
		fputc('\n', out);
		json_decref(flat);
	}
	json_decref(columns);
}

static int write_csv(json_t *report, const char *path)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return perror(path), -1;
	print_rows(report, f, 0);
	return fclose(f) ? -1 : 0;
}

/* ---- against an earlier run -------------------------------------------------------------------------------- */

static int same_point(json_t *a, json_t *b)
{
	static const char *const names[] = {"peer", "access", "keys", "value", "zipf", "processes"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		json_t *x = json_object_get(a, names[i]), *y = json_object_get(b, names[i]);

		if (json_is_number(x) && json_is_number(y) && json_number_value(x) == json_number_value(y))
			continue;
		if (!json_equal(x, y) && (x || y))
			return 0;
	}
	return 1;
}

static double median_of(json_t *row, const char *name)
{
	return json_number_value(json_object_get(json_object_get(row, name), "median"));
}

static void compare_rows(json_t *now, json_t *then)
{
	char keys[64], value[64];
	double ratio = median_of(now, "ratio"), before = median_of(then, "ratio");

	number_text(json_object_get(now, "keys"), keys);
	number_text(json_object_get(now, "value"), value);
	printf("%-18s %-12s %9s %9s %9.4g %9.4g %+7.1f%%   %8.3f %8.3f %+7.1f%%\n",
	       json_string_value(json_object_get(now, "peer")), json_string_value(json_object_get(now, "access")), keys,
	       value, median_of(then, "ns"), median_of(now, "ns"),
	       100 * (median_of(now, "ns") / median_of(then, "ns") - 1), before, ratio,
	       before > 0 ? 100 * (ratio / before - 1) : 0);
}

int report_compare(json_t *report, const char *path)
{
	json_error_t error;
	json_t *old = json_load_file(path, 0, &error), *now, *then;
	size_t i, j;

	if (!old)
		return fprintf(stderr, "shoal-bench: %s:%d: %s\n", path, error.line, error.text), -1;
	printf("\n%-18s %-12s %9s %9s %9s %9s %8s   %8s %8s %8s\n", "peer", "access", "keys", "value", "ns then",
	       "ns now", "", "ratio", "now", "");
	json_array_foreach(json_object_get(report, "results"), i, now)
		json_array_foreach(json_object_get(old, "results"), j, then)
			if (same_point(now, then))
				compare_rows(now, then);
	json_decref(old);
	return 0;
}

/* ---- output ------------------------------------------------------------------------------------------------ */

int report_write(json_t *report, const struct options *o)
{
	int rc = 0, quiet = o->json && !strcmp(o->json, "-");

	progress(o, NULL, 0, 0);
	if (quiet)
		rc |= json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6)), putchar('\n');
	else if (o->json)
		rc |= json_dump_file(report, o->json, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	if (!quiet)
		print_rows(report, stdout, 1);
	if (o->csv)
		rc |= write_csv(report, o->csv);
	if (o->plot)
		rc |= report_plot(report, o->plot);
	if (o->compare)
		rc |= report_compare(report, o->compare);
	return rc ? -1 : 0;
}

void progress(const struct options *o, const char *what, unsigned done, unsigned all)
{
	static const char bar[] = "########################################";

	if (!isatty(STDERR_FILENO))
		return;
	if (!what)
		fputs("\r\033[K", stderr);
	else
		fprintf(stderr, "\r\033[K%-10s [%-40.*s] %s", o->command, (int)(40ull * done / all), bar, what);
	fflush(stderr);
}
