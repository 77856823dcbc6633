/* SPDX-License-Identifier: MIT */
/*
 * How large a segment has to be so that so many bytes of a trace's values fit into its log, with their headers. What
 * the tables take (index, processes, flights) and the extents that are kept free come on top, and the library alone
 * knows how much that is: so segments are made, asked for bytes_overhead and bytes_reserve, and made again a little
 * larger or smaller.
 */
#ifndef SIZING_H
#define SIZING_H

#include "trace.h"

#include <shoal.h>

struct sizing {
	uint64_t footprint;  /* sum of each key's size at its first request */
	uint64_t smallest, largest; /* value */
	double mean_value;   /* of what can be stored */
	double header_bytes; /* of such an entry: what it takes in the log beside its value, on average */
	uint64_t mean_entry; /* for the index: half of that mean, since small ones may stay longer than large ones */
};

struct sizing_wish {
	uint64_t log_bytes;
	unsigned processes, extents; /* extents 0: the library's default */
	unsigned flags;
};

struct sizing_segment {
	struct shoal *cache;
	struct shoal_config config;
	uint64_t log_bytes; /* of its log, without the reserve */
};

/* The footprint alone, before the capacity is known. */
uint64_t sizing_footprint(const struct trace *trace);

/* -1 after a message: the trace has no bytes to store. */
int sizing_of(const struct trace *trace, uint64_t capacity, unsigned extents, struct sizing *sizing);

/* The log that `capacity` bytes of values fill with their headers: *wish but for the processes and flags. Few values of
 * one size need extents that they fill, unless the number of extents is given. */
void sizing_log(const struct sizing *sizing, uint64_t capacity, unsigned extents, struct sizing_wish *wish);

/* Make the anonymous segment whose log is the largest that is not larger than wished. -1 after a message. */
int sizing_open(const struct sizing *sizing, const struct sizing_wish *wish, struct sizing_segment *segment);

#endif
