/* SPDX-License-Identifier: MIT */
/*
 * The request stream: which item is asked for next. Zipf over a set of hot keys, or a trace.
 */
#ifndef STREAM_H
#define STREAM_H

#include "trace.h"

struct stream_request {
	uint32_t id, size; /* size 0: as it comes */
};

struct stream {
	struct trace trace;
	double *cumulated; /* of Zipf: probability of ranks 0..i; rank i is item i + 1 */
	size_t count, next;
	uint64_t random;
};

/* 0, or -1 with errno. The same seed gives the same stream. */
int stream_zipf(struct stream *stream, unsigned keys, double exponent, uint64_t seed);

/* -1: see stream->trace.error. A trace that ends begins again; ids and sizes lose what is above 32 bits. */
int stream_trace(struct stream *stream, const char *path);

struct stream_request stream_next(struct stream *stream);

/* The item asked for most: of Zipf the first rank, of a trace the one that led the last 1,000 requests. */
uint32_t stream_hottest(const struct stream *stream);
void stream_close(struct stream *stream);

#endif
