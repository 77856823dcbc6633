/* SPDX-License-Identifier: MIT */
/*
 * Reading: file -> (zstd ->) lines -> requests, with a hash table from ids to keys that lives as long as the reading.
 */
#include "trace.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define ZSTD_FIRST_BYTE 0x28          /* of its magic number; no line begins with it */
#define SIZE_MOST ((uint64_t)1 << 48) /* sums of them stay in 64 bits */

/* ---- zstd as a FILE ---------------------------------------------------------------------------------------- */

struct unpacking {
	FILE *packed;
	ZSTD_DStream *stream;
	ZSTD_inBuffer in;
	int more;   /* it has output that did not fit */
	int inside; /* a frame has begun and not ended */
	char buffer[1 << 17];
};

static int refill(struct unpacking *u)
{
	u->in = (ZSTD_inBuffer){u->buffer, fread(u->buffer, 1, sizeof(u->buffer), u->packed), 0};
	if (!u->in.size && u->inside && !ferror(u->packed))
		errno = EBADMSG; /* it ends in the middle */
	return u->in.size || (!ferror(u->packed) && !u->inside) ? 0 : -1;
}

static ssize_t unpack(void *cookie, char *data, size_t capacity)
{
	struct unpacking *u = cookie;
	ZSTD_outBuffer out = {data, capacity, 0};

	while (!out.pos) {
		size_t left;

		if (!u->more && u->in.pos == u->in.size) {
			if (refill(u))
				return -1;
			if (!u->in.size)
				return 0;
		}
		left = ZSTD_decompressStream(u->stream, &out, &u->in);
		if (ZSTD_isError(left)) {
			errno = EBADMSG;
			return -1;
		}
		u->inside = left != 0;
		u->more = out.pos == capacity;
	}
	return (ssize_t)out.pos;
}

static int unpack_close(void *cookie)
{
	struct unpacking *u = cookie;

	ZSTD_freeDStream(u->stream);
	fclose(u->packed);
	free(u);
	return 0;
}

static FILE *unpacked(FILE *packed)
{
	struct unpacking *u = calloc(1, sizeof(*u));
	FILE *file = NULL;

	if (u) {
		u->packed = packed;
		u->stream = ZSTD_createDStream();
	}
	if (u && u->stream)
		file = fopencookie(u, "r", (cookie_io_functions_t){.read = unpack, .close = unpack_close});
	if (file)
		return file;
	if (u)
		ZSTD_freeDStream(u->stream);
	free(u);
	fclose(packed);
	errno = ENOMEM;
	return NULL;
}

static FILE *open_lines(const char *path)
{
	FILE *file = strcmp(path, "-") ? fopen(path, "r") : stdin;
	int first;

	if (!file)
		return NULL;
	first = getc(file);
	if (first != EOF)
		ungetc(first, file);
	return first == ZSTD_FIRST_BYTE ? unpacked(file) : file;
}

/* ---- ids to keys ------------------------------------------------------------------------------------------- */

struct table {
	uint32_t *slots; /* key + 1; 0: free */
	size_t mask;
};

static uint32_t *table_slot(const struct table *table, const struct trace *trace, uint64_t id)
{
	size_t at = (size_t)((id * 0x9e3779b97f4a7c15u) >> 20);

	for (;; at++) {
		uint32_t *slot = &table->slots[at & table->mask];

		if (!*slot || trace->ids[*slot - 1] == id)
			return slot;
	}
}

/* At most half full, with as much room in trace->ids. */
static int table_grow(struct table *table, struct trace *trace)
{
	size_t size = table->slots ? (table->mask + 1) * 2 : 1 << 17;
	uint32_t *slots = calloc(size, sizeof(*slots));
	uint64_t *ids = realloc(trace->ids, size / 2 * sizeof(*ids));

	if (ids)
		trace->ids = ids;
	if (!slots || !ids) {
		free(slots);
		return -1;
	}
	free(table->slots);
	*table = (struct table){slots, size - 1};
	for (uint32_t key = 0; key < trace->keys; key++)
		*table_slot(table, trace, trace->ids[key]) = key + 1;
	return 0;
}

static int key_of(struct table *table, struct trace *trace, uint64_t id, uint32_t *key)
{
	uint32_t *slot;

	if ((!table->slots || trace->keys > table->mask / 2) && table_grow(table, trace))
		return -1;
	slot = table_slot(table, trace, id);
	if (!*slot) {
		if (trace->keys == UINT32_MAX - 1) {
			errno = EOVERFLOW;
			return -1;
		}
		trace->ids[trace->keys++] = id;
		*slot = trace->keys;
	}
	*key = *slot - 1;
	return 0;
}

/* ---- lines to requests ------------------------------------------------------------------------------------- */

static int parse_number(const char **text, uint64_t *number)
{
	char *end;

	if (!isdigit((unsigned char)**text))
		return -1;
	errno = 0;
	*number = strtoull(*text, &end, 10);
	*text = end;
	return errno ? -1 : 0;
}

static int parse_line(const char *text, uint64_t *id, uint64_t *size)
{
	if (parse_number(&text, id) || !isblank((unsigned char)*text))
		return -1;
	while (isblank((unsigned char)*text))
		text++;
	if (parse_number(&text, size))
		return -1;
	while (isspace((unsigned char)*text))
		text++;
	return *text || *size > SIZE_MOST ? -1 : 0;
}

static int append(struct trace *trace, size_t *room, struct trace_request request)
{
	if (trace->count == *room) {
		size_t more = *room ? *room * 2 : 1 << 16;
		struct trace_request *requests = realloc(trace->requests, more * sizeof(*requests));

		if (!requests)
			return -1;
		trace->requests = requests;
		*room = more;
	}
	trace->requests[trace->count++] = request;
	return 0;
}

static int fail(struct trace *trace)
{
	snprintf(trace->error, sizeof(trace->error), " %s",
	         errno == EBADMSG ? "broken or cut off zstd" : strerror(errno));
	return -1;
}

static int read_lines(struct trace *trace, FILE *file, struct table *table)
{
	struct trace_request request;
	size_t room = 0, capacity = 0;
	char *line = NULL;
	uint64_t id;
	int rc = 0;

	while (!rc && getline(&line, &capacity, file) > 0) {
		if (parse_line(line, &id, &request.size)) {
			snprintf(trace->error, sizeof(trace->error), "%zu: not \"<key-id> <size>\"", trace->count + 1);
			rc = -1;
		} else if (key_of(table, trace, id, &request.key) || append(trace, &room, request)) {
			rc = fail(trace);
		}
	}
	if (!rc && ferror(file)) {
		rc = fail(trace);
	} else if (!rc && !trace->count) {
		snprintf(trace->error, sizeof(trace->error), " no request in it");
		rc = -1;
	}
	free(line);
	return rc;
}

int trace_read(struct trace *trace, const char *path)
{
	struct table table = {0};
	FILE *file;
	int rc;

	memset(trace, 0, sizeof(*trace));
	file = open_lines(path);
	if (!file)
		return fail(trace);
	rc = read_lines(trace, file, &table);
	fclose(file);
	free(table.slots);
	if (rc)
		trace_close(trace);
	return rc;
}

/* Leaves `error`. */
void trace_close(struct trace *trace)
{
	free(trace->requests);
	free(trace->ids);
	trace->requests = NULL;
	trace->ids = NULL;
	trace->count = trace->keys = 0;
}
