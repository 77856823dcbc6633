/* SPDX-License-Identifier: MIT */
/*
 * A report as a picture, by gnuplot: PREFIX.gp, which stands by itself, PREFIX.png and PREFIX.svg. A panel for
 * each access; a line for each peer over what varies (keys, value sizes or processes), or a bar for each,
 * where nothing does.
 */
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const figures[][2] = {
	{"ns", "ns per operation, median"},
	{"waiters_us", "us from the end of the load to the waiters' median"},
	{"attach_us", "us to attach"},
	{"seconds", "s until all have made their requests"},
};

static double number_of(json_t *value)
{
	return json_is_string(value) ? atof(json_string_value(value)) : json_number_value(value);
}

static const char *what_varies(json_t *rows)
{
	static const char *const names[] = {"keys", "value", "processes"};
	json_t *row, *value, *first = json_array_get(rows, 0);
	size_t i;

	for (unsigned n = 0; n < 3; n++)
		json_array_foreach(rows, i, row) {
			value = json_object_get(row, names[n]);
			if (value && !json_equal(value, json_object_get(first, names[n])))
				return names[n];
		}
	return NULL;
}

/* The different texts under `name`, as a set. */
static json_t *different(json_t *rows, const char *name, const char *figure)
{
	json_t *set = json_object(), *row;
	size_t i;

	json_array_foreach(rows, i, row)
		if (json_object_get(row, figure))
			json_object_set_new(set, json_string_value(json_object_get(row, name)), json_true());
	return set;
}

static int is_of(json_t *row, const char *name, const char *text)
{
	return !strcmp(json_string_value(json_object_get(row, name)), text);
}

static void print_point(FILE *gp, json_t *row, const char *figure, const char *x)
{
	json_t *f = json_object_get(row, figure);
	double middle = json_is_object(f) ? json_number_value(json_object_get(f, "median")) : json_number_value(f);
	double low = json_is_object(f) ? json_number_value(json_object_get(f, "min")) : middle;
	double high = json_is_object(f) ? json_number_value(json_object_get(f, "max")) : middle;

	if (x)
		fprintf(gp, "%g", number_of(json_object_get(row, x)));
	else
		fprintf(gp, "\"%s\"", json_string_value(json_object_get(row, "peer")));
	fprintf(gp, " %g %g %g\n", middle, low, high);
}

static void print_data(FILE *gp, json_t *rows, const char *figure, const char *access, const char *peer, const char *x)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
		if (is_of(row, "access", access) && (!peer || is_of(row, "peer", peer)) && json_object_get(row, figure))
			print_point(gp, row, figure, x);
	fputs("EOD\n", gp);
}

static void print_panel(FILE *gp, json_t *rows, const char *figure, const char *access, json_t *of_peers, const char *x,
                        unsigned panel)
{
	const char *peer;
	json_t *value;
	unsigned n = 0;

	fprintf(gp, "set title '%s' noenhanced\n", access);
	if (!x) {
		fprintf(gp, "$p%u << EOD\n", panel);
		print_data(gp, rows, figure, access, NULL, NULL);
		fprintf(gp, "plot $p%u using 0:2:3:4:(0.7):xtic(1) with boxerrorbars fs solid 0.5 notitle\n", panel);
		return;
	}
	json_object_foreach(of_peers, peer, value) {
		fprintf(gp, "$p%u_%u << EOD\n", panel, n++);
		print_data(gp, rows, figure, access, peer, x);
	}
	n = 0;
	fputs("plot ", gp);
	json_object_foreach(of_peers, peer, value) {
		fprintf(gp, "%s$p%u_%u using 1:2:3:4 with yerrorlines pt 7 ps 0.5 title '%s' noenhanced", n ? ", " : "",
		        panel, n, peer);
		n++;
	}
	fputc('\n', gp);
}

static void print_script(FILE *gp, json_t *report, const char *prefix, const char *figure, const char *label)
{
	json_t *rows = json_object_get(report, "results");
	json_t *accesses = different(rows, "access", figure), *of_peers = different(rows, "peer", figure);
	const char *x = what_varies(rows), *access;
	unsigned panels = (unsigned)json_object_size(accesses), columns = panels < 3 ? panels : 3, lines, panel = 0;
	json_t *value;

	lines = (panels + columns - 1) / columns;
	fprintf(gp, "# gnuplot -e \"terminal='pngcairo'; picture='%s.png'\" %s.gp\n", prefix, prefix);
	fprintf(gp, "set terminal terminal size %u, %u font 'sans,11'\nset output picture\n", 700 * columns,
	        520 * lines);
	fprintf(gp, "set multiplot layout %u, %u title '%s' noenhanced\n", lines, columns,
	        json_string_value(json_object_get(json_object_get(report, "machine"), "processor")));
	fprintf(gp, "set logscale y\nset ylabel \"%s\"\nset grid ytics lc rgb '#dddddd'\n", label);
	fputs("set key top left samplen 2\nset border 3\nset tics nomirror\n", gp);
	if (x)
		fprintf(gp, "set logscale x\nset xlabel '%s'\n", strcmp(x, "value") ? x : "bytes of the value");
	else
		fputs("set xtics rotate by -35 noenhanced\nset yrange [1:*]\nset offsets 0.5, 0.5, 0, 0\n", gp);
	json_object_foreach(accesses, access, value)
		print_panel(gp, rows, figure, access, of_peers, x, panel++);
	fputs("unset multiplot\n", gp);
	json_decref(accesses);
	json_decref(of_peers);
}

static int draw(const char *prefix, const char *terminal, const char *ending)
{
	char settings[512], script[512];
	int status = -1;
	pid_t pid;

	snprintf(settings, sizeof(settings), "terminal='%s'; picture='%s.%s'", terminal, prefix, ending);
	snprintf(script, sizeof(script), "%s.gp", prefix);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		execlp("gnuplot", "gnuplot", "-e", settings, script, (char *)NULL);
		perror("shoal-bench: gnuplot");
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status ? -1 : 0;
}

int report_plot(json_t *report, const char *prefix)
{
	json_t *first = json_array_get(json_object_get(report, "results"), 0);
	char path[512];
	unsigned f;
	FILE *gp;

	for (f = 0; f < 3 && !json_object_get(first, figures[f][0]); f++)
		;
	snprintf(path, sizeof(path), "%s.gp", prefix);
	gp = fopen(path, "we");
	if (!gp)
		return perror(path), -1;
	print_script(gp, report, prefix, figures[f][0], figures[f][1]);
	if (fclose(gp))
		return perror(path), -1;
	return draw(prefix, "pngcairo", "png") || draw(prefix, "svg", "svg") ? -1 : 0;
}
