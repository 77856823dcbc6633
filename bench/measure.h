/* SPDX-License-Identifier: MIT */
/* The commands, each of which adds rows to a report. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "report.h"

/* read, mixed, set, multiget, scale */
int measure(const struct options *o, json_t *report, const char *who, const char *access);
int stampede(const struct options *o, json_t *report);
int coldstart(const struct options *o, json_t *report);
int attach(const struct options *o, json_t *report);
int during(const struct options *o, json_t *report); /* with attach */

#endif
