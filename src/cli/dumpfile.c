/* SPDX-License-Identifier: MIT */
#include "dumpfile.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAGIC "shoaldmp"
#define VERSION 1
#define HEAD 32
#define RECORD_HEAD 16
#define ENTRY_HEAD 36
#define KEYSPACE_HEAD 8
#define KEY_MOST 65535
#define PIECE 1048576u /* memory is asked for as bytes come */

static void put32(unsigned char *p, uint32_t n)
{
	int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(n >> i * 8);
}

static void put64(unsigned char *p, uint64_t n)
{
	put32(p, (uint32_t)n);
	put32(p + 4, (uint32_t)(n >> 32));
}

static uint32_t get32(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const unsigned char *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static bool put(struct dump_out *out, const void *data, size_t size)
{
	return !size || fwrite(data, 1, size, out->to) == size;
}

bool dump_begin(struct dump_out *out, FILE *to, uint64_t now_ms)
{
	unsigned char head[HEAD] = MAGIC;

	*out = (struct dump_out){.to = to};
	put32(head + 8, VERSION);
	memcpy(head + 12, "\1\2\3\4", 4);
	put64(head + 16, now_ms);
	put64(head + 24, XXH3_64bits_withSeed(head, 24, 0));
	return put(out, head, HEAD);
}

/* In up to three pieces. */
static bool put_record(struct dump_out *out, char kind, const void *const pieces[3], const size_t sizes[3])
{
	unsigned char head[RECORD_HEAD], sum[8];
	XXH3_state_t state;
	int i;

	out->record++;
	put32(head, (unsigned char)kind);
	put32(head + 4, (uint32_t)(sizes[0] + sizes[1] + sizes[2]));
	put64(head + 8, XXH3_64bits_withSeed(head, 8, out->record));
	if (!put(out, head, RECORD_HEAD))
		return false;
	XXH3_64bits_reset_withSeed(&state, out->record);
	for (i = 0; i < 3; i++) {
		if (sizes[i])
			XXH3_64bits_update(&state, pieces[i], sizes[i]);
		if (!put(out, pieces[i], sizes[i]))
			return false;
	}
	put64(sum, XXH3_64bits_digest(&state));
	return put(out, sum, sizeof(sum));
}

bool dump_put_keyspace(struct dump_out *out, uint32_t number, const char *name, uint32_t version)
{
	unsigned char head[KEYSPACE_HEAD];

	put32(head, number);
	put32(head + 4, version);
	return put_record(out, 'K', (const void *[]){head, name, NULL}, (size_t[]){sizeof(head), strlen(name), 0});
}

bool dump_put_entry(struct dump_out *out, const struct dump_entry *e)
{
	unsigned char head[ENTRY_HEAD];

	put32(head, e->keyspace);
	put32(head + 4, e->schema);
	put64(head + 8, e->fresh_until);
	put64(head + 16, e->stale_until);
	put64(head + 24, e->error_until);
	put32(head + 32, (uint32_t)e->key_size);
	out->entries++;
	out->bytes += e->key_size + e->value_size;
	return put_record(out, 'E', (const void *[]){head, e->key, e->value},
	                  (size_t[]){sizeof(head), e->key_size, e->value_size});
}

bool dump_finish(struct dump_out *out)
{
	unsigned char tail[16];

	put64(tail, out->entries);
	put64(tail + 8, out->bytes);
	return put_record(out, 'T', (const void *[]){tail, NULL, NULL}, (size_t[]){sizeof(tail), 0, 0}) &&
	       !fflush(out->to);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static enum dump_found corrupt(struct dump_in *in, const char *why)
{
	in->why = why;
	return DUMP_CORRUPT;
}

static enum dump_found bad(struct dump_in *in, const char *why)
{
	in->why = why;
	in->bad++;
	return DUMP_BAD;
}

static size_t get(struct dump_in *in, void *to, size_t size)
{
	size_t n = fread(to, 1, size, in->from);

	in->offset += n;
	return n;
}

enum dump_found dump_open(struct dump_in *in, FILE *from)
{
	unsigned char head[HEAD];

	*in = (struct dump_in){.from = from};
	if (get(in, head, HEAD) != HEAD || memcmp(head, MAGIC, 8))
		return corrupt(in, "it is no dump");
	if (get32(head + 8) != VERSION || memcmp(head + 12, "\1\2\3\4", 4))
		return corrupt(in, "it is a dump of another version");
	if (get64(head + 24) != XXH3_64bits_withSeed(head, 24, 0))
		return corrupt(in, "its head is damaged");
	in->made_ms = get64(head + 16);
	return DUMP_END;
}

/* The bytes of a record, and their checksum, into in->payload. */
static enum dump_found get_payload(struct dump_in *in, size_t size)
{
	size_t wanted = size + 8, have = 0, step;
	unsigned char *bytes;

	while (have < wanted) {
		step = wanted - have < PIECE ? wanted - have : PIECE;
		if (have + step > in->room) {
			bytes = realloc(in->payload, have + step);
			if (!bytes)
				return corrupt(in, "no memory for a record of it");
			in->payload = bytes;
			in->room = have + step;
		}
		if (get(in, in->payload + have, step) != step)
			return corrupt(in, "it ends in the midst of a record");
		have += step;
	}
	if (get64(in->payload + size) != XXH3_64bits_withSeed(in->payload, size, in->record))
		return bad(in, "the bytes of a record are damaged");
	return DUMP_ENTRY;
}

static enum dump_found add_keyspace(struct dump_in *in, size_t size)
{
	size_t length = size - KEYSPACE_HEAD;
	struct dump_keyspace *keyspaces, *k;
	uint32_t *numbers;

	if (size < KEYSPACE_HEAD || !length || length >= sizeof(k->name) ||
	    memchr(in->payload + KEYSPACE_HEAD, 0, length))
		return bad(in, "a keyspace has no name");
	keyspaces = realloc(in->keyspaces, (in->count + 1) * sizeof(*keyspaces));
	in->keyspaces = keyspaces ? keyspaces : in->keyspaces;
	numbers = realloc(in->numbers, (in->count + 1) * sizeof(*numbers));
	in->numbers = numbers ? numbers : in->numbers;
	if (!keyspaces || !numbers)
		return corrupt(in, "no memory for its keyspaces");
	k = &keyspaces[in->count];
	*k = (struct dump_keyspace){.version = get32(in->payload + 4)};
	memcpy(k->name, in->payload + KEYSPACE_HEAD, length);
	numbers[in->count++] = get32(in->payload);
	return DUMP_ENTRY;
}

static enum dump_found get_entry(struct dump_in *in, size_t size, struct dump_entry *e)
{
	const unsigned char *p = in->payload;
	size_t key_size = size < ENTRY_HEAD ? 0 : get32(p + 32), i;

	if (!key_size || key_size > KEY_MOST || key_size > size - ENTRY_HEAD)
		return bad(in, "an entry has no key");
	for (i = 0; i < in->count && in->numbers[i] != get32(p); i++)
		;
	if (i == in->count)
		return bad(in, "an entry is of no keyspace");
	*e = (struct dump_entry){
		.keyspace = (uint32_t)i,
		.schema = get32(p + 4),
		.fresh_until = get64(p + 8),
		.stale_until = get64(p + 16),
		.error_until = get64(p + 24),
		.key = p + ENTRY_HEAD,
		.key_size = key_size,
		.value = p + ENTRY_HEAD + key_size,
		.value_size = size - ENTRY_HEAD - key_size,
	};
	in->entries++;
	in->bytes += key_size + e->value_size;
	return DUMP_ENTRY;
}

static enum dump_found get_end(struct dump_in *in, size_t size)
{
	unsigned char byte;

	if (size != 16)
		return corrupt(in, "its end is damaged");
	if (!in->bad && (get64(in->payload) != in->entries || get64(in->payload + 8) != in->bytes))
		return corrupt(in, "it has not as many entries as its end says");
	return get(in, &byte, 1) ? corrupt(in, "something follows its end") : DUMP_END;
}

enum dump_found dump_next(struct dump_in *in, struct dump_entry *entry)
{
	unsigned char head[RECORD_HEAD];
	enum dump_found found = DUMP_ENTRY;
	size_t size;

	for (;;) {
		if (get(in, head, RECORD_HEAD) != RECORD_HEAD)
			return corrupt(in, ferror(in->from) ? "it can't be read" : "it ends too early");
		in->record++;
		size = get32(head + 4);
		if (get64(head + 8) != XXH3_64bits_withSeed(head, 8, in->record) || size > DUMP_SIZE_MOST)
			return corrupt(in, "the head of a record is damaged");
		found = get_payload(in, size);
		if (found != DUMP_ENTRY)
			return found;
		switch (get32(head)) {
		case 'K':
			found = add_keyspace(in, size);
			if (found != DUMP_ENTRY)
				return found;
			break;
		case 'E':
			return get_entry(in, size, entry);
		case 'T':
			return get_end(in, size);
		default:
			return bad(in, "a record is of no kind that is known");
		}
	}
}

void dump_close(struct dump_in *in)
{
	free(in->payload);
	free(in->keyspaces);
	free(in->numbers);
}
