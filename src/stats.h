/* SPDX-License-Identifier: MIT */
/* The statistics of one keyspace, for those who show more of them than the public structs. */
#ifndef SHOAL_STATS_H
#define SHOAL_STATS_H

#include "handle.h"
#include "histogram.h"

struct times {
	uint64_t load[HISTOGRAM_BUCKETS], wait[HISTOGRAM_BUCKETS];
};

int stats_of(struct shoal *cache, uint32_t keyspace, struct shoal_keyspace_stats *stats, struct times *times);

#endif
