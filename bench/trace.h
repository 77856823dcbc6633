/* SPDX-License-Identifier: MIT */
/*
 * A trace in memory: a request a line, "<key-id> <size>", plain or zstd. Ids are any numbers below 2^64; keys are
 * numbered from 0 by first appearance, so requests[i] is its key's first one if its key is the highest so far + 1.
 */
#ifndef TRACE_H
#define TRACE_H

#include <stddef.h>
#include <stdint.h>

struct trace_request {
	uint64_t size;
	uint32_t key;
};

struct trace {
	struct trace_request *requests;
	uint64_t *ids; /* of each key */
	size_t count;
	uint32_t keys;
	char error[64]; /* why trace_read() failed: "LINE: ..." when a line is to blame */
};

/* `path` "-" is standard input. -1: see `error`, nothing to close. */
int trace_read(struct trace *trace, const char *path);
void trace_close(struct trace *trace);

#endif
