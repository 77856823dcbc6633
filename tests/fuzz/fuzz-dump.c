/* SPDX-License-Identifier: MIT */
/*
 * What the command reads from outside: dumps, the outputs of `shoal run`, command lines. The first byte says which. The
 * sums of a dump are mostly made right first, as who means it ill would. What is accepted must be what it says it is,
 * and come back the same when it is written again.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "cli/dumpfile.h"
#include "cli/frame.h"
#include "cli/words.h"
#include "expect.h"
#include "fuzz.h"

enum { DUMP, SUMMED_DUMP, SUMMED_AGAIN, FRAME, WORDS, KINDS };

/* ---- dumps ------------------------------------------------------------------------------------------------- */

static void put_sum(uint8_t *at, const uint8_t *data, size_t size, uint64_t seed)
{
	uint64_t sum = XXH3_64bits_withSeed(data, size, seed);

	memcpy(at, &sum, sizeof(sum));
}

/* As far as its records go. */
static void make_right(uint8_t *data, size_t size)
{
	size_t at = 32;
	uint64_t record = 0;
	uint32_t length;

	if (size < at)
		return;
	memcpy(data, "shoaldmp\1\0\0\0\1\2\3\4", 16);
	put_sum(data + 24, data, 24, 0);
	while (size - at >= 24) {
		memcpy(&length, data + at + 4, 4);
		if (length > size - at - 24) {
			length = (uint32_t)(size - at - 24);
			memcpy(data + at + 4, &length, 4);
		}
		record++;
		put_sum(data + at + 8, data + at, 8, record);
		put_sum(data + at + 16 + length, data + at + 16, length, record);
		at += 24 + length;
	}
}

static bool is_inside(const struct dump_in *in, const void *data, size_t size)
{
	const unsigned char *at = data;

	return at >= in->payload && size <= in->room && at + size <= in->payload + in->room;
}

/* Read it; whatever is good goes to `again`. */
static uint64_t read_dump(const uint8_t *data, size_t size, FILE *to, bool *whole)
{
	FILE *from = fmemopen((void *)data, size, "r");
	struct dump_in in;
	struct dump_out out;
	struct dump_entry e;
	enum dump_found found;
	uint64_t sum = 0;
	uint32_t number;

	EXPECT(from);
	EXPECT(!to || dump_begin(&out, to, 1));
	found = dump_open(&in, from);
	while (found != DUMP_CORRUPT && (found = dump_next(&in, &e)) != DUMP_END && found != DUMP_CORRUPT) {
		if (found == DUMP_BAD)
			continue;
		EXPECT(e.key_size >= 1 && e.key_size <= 65535 && e.keyspace < in.count);
		EXPECT(is_inside(&in, e.key, e.key_size) && is_inside(&in, e.value, e.value_size));
		EXPECT(memchr(in.keyspaces[e.keyspace].name, 0, 64) && *in.keyspaces[e.keyspace].name);
		sum = XXH3_64bits_withSeed(e.key, e.key_size,
		                           XXH3_64bits_withSeed(e.value, e.value_size, sum + e.schema + e.fresh_until));
		if (!to)
			continue;
		number = (uint32_t)out.entries; /* each in a keyspace of its own */
		EXPECT(dump_put_keyspace(&out, number, in.keyspaces[e.keyspace].name,
		                         in.keyspaces[e.keyspace].version));
		e.keyspace = number;
		EXPECT(dump_put_entry(&out, &e));
	}
	EXPECT(found == DUMP_END || in.why);
	*whole = found == DUMP_END && !in.bad;
	EXPECT(!to || dump_finish(&out));
	dump_close(&in);
	fclose(from);
	return sum;
}

static void try_dump(const uint8_t *data, size_t size)
{
	char *again = NULL;
	size_t again_size = 0;
	FILE *to = open_memstream(&again, &again_size);
	bool whole;
	uint64_t sum = read_dump(data, size, to, &whole);

	fclose(to);
	EXPECT(read_dump((uint8_t *)again, again_size, NULL, &whole) == sum && whole);
	free(again);
}

/* ---- outputs ----------------------------------------------------------------------------------------------- */

static void try_frame(const uint8_t *data, size_t size)
{
	struct frame frame = {0};
	struct frame_place place = {0}, other = {0};
	struct frame_part part, same;
	unsigned status, again;
	size_t parts = 0, bytes = 0;

	if (!frame_check(data, size, &status))
		return;
	EXPECT(frame_begin(&frame));
	frame_set_status(&frame, status);
	while (frame_at(data, size, &place, &part)) {
		EXPECT(part.size && part.data >= data && part.data + part.size <= data + size);
		EXPECT(frame_add(&frame, part.error, part.data, part.size));
		parts++;
		bytes += part.size;
		place.done += part.size;
	}
	EXPECT(size == 8 + 4 * parts + bytes);
	EXPECT(frame_check(frame.bytes, frame.size, &again) && again == status);
	/* byte by byte */
	for (place = (struct frame_place){0}; frame_at(data, size, &place, &part); place.done++, other.done++)
		EXPECT(frame_at(frame.bytes, frame.size, &other, &same) && *same.data == *part.data &&
		       same.error == part.error);
	EXPECT(!frame_at(frame.bytes, frame.size, &other, &same));
	frame_end(&frame);
}

/* ---- command lines ----------------------------------------------------------------------------------------- */

static void try_words(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), *words[9], *filled;
	size_t i, total = 0, room = text ? strlen(text) : 0;

	EXPECT(text);
	if (!words_cut(text, words, 8)) {
		for (i = 0; words[i]; i++) {
			total += strlen(words[i]) + 1;
			EXPECT(words[i] >= text && words[i] + strlen(words[i]) <= text + room);
			filled = words_fill(words[i], "{}{}");
			EXPECT(filled && strlen(filled) >= strlen(words[i]));
			free(filled);
		}
		EXPECT(i >= 1 && i <= 8 && total <= room + 1);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (size < 2)
		return 0;
	copy = malloc(size - 1); /* so that a byte too far is seen */
	EXPECT(copy);
	memcpy(copy, data + 1, size - 1);
	switch (*data % KINDS) {
	case SUMMED_DUMP:
	case SUMMED_AGAIN:
		make_right(copy, size - 1);
		/* fall through */
	case DUMP:
		try_dump(copy, size - 1);
		break;
	case FRAME:
		try_frame(copy, size - 1);
		break;
	default:
		try_words(copy, size - 1);
	}
	free(copy);
	return 0;
}
