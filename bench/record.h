/* SPDX-License-Identifier: MIT */
/*
 * What was measured: a latency histogram of the whole act and one of the current tick, the hit rate, a CSV line per
 * tick.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_SLOTS 1792 /* 64 linear steps per power of two of microseconds, up to 2^33: 1.6 % */

struct histogram {
	uint32_t slots[HISTOGRAM_SLOTS];
	uint64_t count, max_us;
};

void histogram_add(struct histogram *histogram, uint64_t us);
double histogram_ms(const struct histogram *histogram, double share); /* upper bound of its slot, at most the max */

/* Look-ups of this epoch so far; an event like a switch of keys begins another. */
struct lookups {
	uint64_t epoch, hits, count;
};

struct record {
	struct histogram all, tick;
	uint64_t answers; /* of all, also those that a restart dropped from the histogram */
	uint64_t errors, tick_errors;
	uint64_t queries, first_queries, tick_queries; /* latest, at the beginning, at the last tick */
	struct lookups counted; /* when the hit rate was last taken */
	double hit_percent;     /* of this tick; negative: too few look-ups to say */
	double lowest_percent;  /* since the restart; negative: none taken */
	FILE *csv;
};

int record_open(struct record *record, const char *path);
void record_answer(struct record *record, uint64_t us);
void record_error(struct record *record, uint64_t us);

/* The latest look-ups, before record_tick(). A rate is taken of 50 or more, be that one tick or twenty. */
void record_hits(struct record *record, const struct lookups *now);

/* The figures of the act begin here; the CSV has it all. */
void record_restart(struct record *record);
void record_tick(struct record *record, double seconds);
int record_close(struct record *record);

#endif
