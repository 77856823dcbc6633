/* SPDX-License-Identifier: MIT */
/*
 * The request stream.
 */
#include "stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int stream_zipf(struct stream *stream, unsigned keys, double exponent, uint64_t seed)
{
	double sum = 0;

	memset(stream, 0, sizeof(*stream));
	stream->cumulated = calloc(keys, sizeof(*stream->cumulated));
	if (!stream->cumulated)
		return -1;
	for (unsigned i = 0; i < keys; i++) {
		sum += pow(i + 1, -exponent);
		stream->cumulated[i] = sum;
	}
	for (unsigned i = 0; i < keys; i++)
		stream->cumulated[i] /= sum;
	stream->count = keys;
	stream->random = seed | 1;
	return 0;
}

int stream_trace(struct stream *stream, const char *path)
{
	memset(stream, 0, sizeof(*stream));
	if (trace_read(&stream->trace, path))
		return -1;
	stream->count = stream->trace.count;
	return 0;
}

static struct stream_request request_at(const struct stream *stream, size_t i)
{
	const struct trace_request *request = &stream->trace.requests[i];

	return (struct stream_request){(uint32_t)stream->trace.ids[request->key], (uint32_t)request->size};
}

static double random_unit(struct stream *stream)
{
	stream->random ^= stream->random >> 12; /* xorshift64* */
	stream->random ^= stream->random << 25;
	stream->random ^= stream->random >> 27;
	return (double)((stream->random * 2685821657736338717u) >> 11) / 9007199254740992.0;
}

struct stream_request stream_next(struct stream *stream)
{
	size_t low = 0, high;
	double u;

	if (stream->trace.requests) {
		stream->next = (stream->next + 1) % stream->count;
		return request_at(stream, (stream->next + stream->count - 1) % stream->count);
	}
	u = random_unit(stream);
	high = stream->count - 1;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (stream->cumulated[middle] < u)
			low = middle + 1;
		else
			high = middle;
	}
	return (struct stream_request){.id = (uint32_t)low + 1};
}

static int by_id(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Sort the ids, take the longest run. */
uint32_t stream_hottest(const struct stream *stream)
{
	uint32_t ids[1000], hottest = 1;
	size_t n = stream->next < 1000 ? stream->next : 1000, best = 0;

	if (!stream->trace.requests)
		return hottest;
	for (size_t i = 0; i < n; i++)
		ids[i] = request_at(stream, stream->next - n + i).id;
	qsort(ids, n, sizeof(*ids), by_id);
	for (size_t begin = 0, end; begin < n; begin = end) {
		for (end = begin; end < n && ids[end] == ids[begin];)
			end++;
		if (end - begin > best) {
			best = end - begin;
			hottest = ids[begin];
		}
	}
	return hottest;
}

void stream_close(struct stream *stream)
{
	trace_close(&stream->trace);
	free(stream->cumulated);
	memset(stream, 0, sizeof(*stream));
}
