/* SPDX-License-Identifier: MIT */
/* Results are JSON from the start; tables, CSV and plots are made of it. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "options.h"

#include <jansson.h>

json_t *report_new(const struct options *o);
json_t *report_row(json_t *report, const char *peer, const char *access); /* a new one, to be filled */
/* {median, min, max}; not a number: left out */
void report_figure(json_t *row, const char *name, const double *values, unsigned count);
int report_write(json_t *report, const struct options *o); /* wherever the options say, and a table */
int report_plot(json_t *report, const char *prefix);
int report_compare(json_t *report, const char *path);

void progress(const struct options *o, const char *what, unsigned done, unsigned all); /* on a terminal */

#endif
