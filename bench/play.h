/* SPDX-License-Identifier: MIT */
/*
 * Play a trace on a cache: get each key, and on a miss set it to a value of the request's size. A hit changes nothing,
 * also where its request gives another size. Nothing is left out: the first requests of a key count as misses.
 */
#ifndef PLAY_H
#define PLAY_H

#include "trace.h"

#include <shoal.h>

struct play {
	const struct trace *trace;
	struct shoal *cache;
	size_t max_entry;    /* key + value; what is larger is not tried */
	double header_bytes; /* that an entry takes beside its value, on average */
	unsigned processes;
	unsigned batch; /* requests in a turn */
};

struct play_result {
	uint64_t requests, misses;
	uint64_t request_bytes, miss_bytes;
	uint64_t too_big, no_space; /* misses that could not be stored */
	uint64_t value_bytes_peak;  /* most bytes of live values, as sampled */
};

#define PLAY_KEY_SIZE 8 /* the id, as it lies in memory */
#define PLAY_PROCESSES_MOST 256

/*
 * The processes take turns: request i is made by process i / batch % processes when request i - 1 has ended, so the
 * cache sees the requests in the order of the trace. (One process: the calling one.) -1 after a message on stderr: a
 * wrong value, an error of the library, or a process that died.
 */
int play(const struct play *play, struct play_result *result);

#endif
