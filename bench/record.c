/* SPDX-License-Identifier: MIT */
/*
 * What was measured. Errors have no latency of their own in the percentiles, but they count for the maximum: who got
 * an error after two seconds has waited two seconds.
 */
#include "record.h"

#include <string.h>

#define LOOKUPS_LEAST 50

static unsigned slot_of(uint64_t us)
{
	unsigned shift;

	if (us < 64)
		return (unsigned)us;
	shift = 57 - (unsigned)__builtin_clzll(us); /* leaves 64..127 */
	return 64 * shift + (unsigned)(us >> shift);
}

void histogram_add(struct histogram *histogram, uint64_t us)
{
	unsigned slot = slot_of(us);

	histogram->slots[slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1]++;
	histogram->count++;
	if (us > histogram->max_us)
		histogram->max_us = us;
}

double histogram_ms(const struct histogram *histogram, double share)
{
	uint64_t rank = (uint64_t)(share * (double)histogram->count), seen = 0, us = histogram->max_us;

	for (unsigned i = 0; i < HISTOGRAM_SLOTS; i++) {
		seen += histogram->slots[i];
		if (seen > rank) {
			unsigned shift = i < 128 ? 0 : i / 64 - 1;
			uint64_t top = (((uint64_t)i - 64 * (uint64_t)shift + 1) << shift) - 1;

			us = top < us ? top : us;
			break;
		}
	}
	return (double)us / 1000;
}

int record_open(struct record *record, const char *path)
{
	memset(record, 0, sizeof(*record));
	record->hit_percent = record->lowest_percent = -1;
	if (!path)
		return 0;
	record->csv = fopen(path, "w");
	if (!record->csv)
		return -1;
	fputs("seconds,requests,errors,p50_ms,p99_ms,max_ms,queries,hit_percent\n", record->csv);
	return 0;
}

void record_answer(struct record *record, uint64_t us)
{
	record->answers++;
	histogram_add(&record->all, us);
	histogram_add(&record->tick, us);
}

void record_error(struct record *record, uint64_t us)
{
	record->errors++;
	record->tick_errors++;
	if (us > record->all.max_us)
		record->all.max_us = us;
	if (us > record->tick.max_us)
		record->tick.max_us = us;
}

/* Another epoch's counters began at nothing. */
void record_hits(struct record *record, const struct lookups *now)
{
	struct lookups *last = &record->counted;

	record->hit_percent = -1;
	if (now->epoch != last->epoch)
		*last = (struct lookups){.epoch = now->epoch};
	if (now->count < last->count + LOOKUPS_LEAST)
		return;
	record->hit_percent = 100.0 * (double)(now->hits - last->hits) / (double)(now->count - last->count);
	if (record->lowest_percent < 0 || record->hit_percent < record->lowest_percent)
		record->lowest_percent = record->hit_percent;
	*last = *now;
}

void record_restart(struct record *record)
{
	record->lowest_percent = -1;
	memset(&record->all, 0, sizeof(record->all));
	record->errors = 0;
	record->first_queries = record->queries;
}

/* A tick without answers has no latency, one with few look-ups no hit rate: their fields are empty. */
void record_tick(struct record *record, double seconds)
{
	const struct histogram *tick = &record->tick;

	if (record->csv) {
		fprintf(record->csv, "%.2f,%llu,%llu,", seconds, (unsigned long long)tick->count,
		        (unsigned long long)record->tick_errors);
		if (tick->count)
			fprintf(record->csv, "%.3f,%.3f,%.3f,", histogram_ms(tick, 0.5), histogram_ms(tick, 0.99),
			        (double)tick->max_us / 1000);
		else
			fputs(",,,", record->csv);
		fprintf(record->csv, "%llu,", (unsigned long long)(record->queries - record->tick_queries));
		if (record->hit_percent >= 0)
			fprintf(record->csv, "%.2f", record->hit_percent);
		fputc('\n', record->csv);
	}
	memset(&record->tick, 0, sizeof(record->tick));
	record->tick_errors = 0;
	record->tick_queries = record->queries;
}

int record_close(struct record *record)
{
	int rc = record->csv && (ferror(record->csv) | fclose(record->csv)) ? -1 : 0;

	record->csv = NULL;
	return rc;
}
