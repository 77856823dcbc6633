/* SPDX-License-Identifier: MIT */
/*
 * The file that `shoal dump` makes (shoal(5)). Numbers are little-endian; times are milliseconds since 1970,
 * all ones: never.
 *
 *	head     0  "shoaldmp"   8  version, 1 : 32   12  the bytes 1 2 3 4   16  when it was made : 64
 *	         24  checksum of these : 64
 *	record   0  kind : 32    4  size : 32   8  checksum of these : 64   16  so many bytes
 *	         then  their checksum : 64
 *
 *	kind K, a keyspace   0  number : 32   4  version : 32   8  name
 *	kind E, an entry     0  number of its keyspace : 32   4  schema : 32   8  fresh until : 64
 *	                     16  stale until : 64   24  served on errors until : 64   32  size of the key : 32
 *	                     36  key, value
 *	kind T, the end      0  entries : 64   8  bytes of their keys and values : 64      nothing follows
 *
 * A checksum is XXH3, 64 bits, seeded with the number of the record, the head being 0: so one that is lost,
 * doubled or in another place is noticed as well. The size has a checksum of its own, so that what is wrong in the
 * bytes is one record's.
 */
#ifndef SHOAL_CLI_DUMPFILE_H
#define SHOAL_CLI_DUMPFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DUMP_NEVER UINT64_MAX
#define DUMP_SIZE_MOST (1u << 30) /* of a record */

struct dump_keyspace {
	char name[64];
	uint32_t version;
};

struct dump_entry {
	uint32_t keyspace; /* an index in dump_in.keyspaces; for writing: its number */
	uint32_t schema;
	uint64_t fresh_until, stale_until, error_until;
	const void *key, *value;
	size_t key_size, value_size;
};

/* ---- writing: false after an error, which the stream has ---------------------------------------------------- */

struct dump_out {
	FILE *to;
	uint64_t record, entries, bytes;
};

bool dump_begin(struct dump_out *out, FILE *to, uint64_t now_ms);
bool dump_put_keyspace(struct dump_out *out, uint32_t number, const char *name, uint32_t version);
bool dump_put_entry(struct dump_out *out, const struct dump_entry *entry);
bool dump_finish(struct dump_out *out);

/* ---- reading ------------------------------------------------------------------------------------------------ */

enum dump_found {
	DUMP_ENTRY,
	DUMP_END,
	DUMP_BAD,     /* this record is wrong: in->why; the next can be read */
	DUMP_CORRUPT, /* there is no going on: in->why, at in->offset */
};

struct dump_in {
	FILE *from;
	uint64_t made_ms, record, entries, bytes, offset, bad;
	unsigned char *payload;
	size_t room;
	struct dump_keyspace *keyspaces;
	uint32_t *numbers;
	size_t count;
	const char *why;
};

enum dump_found dump_open(struct dump_in *in, FILE *from); /* DUMP_END: it is one */
enum dump_found dump_next(struct dump_in *in, struct dump_entry *entry); /* valid until the next */
void dump_close(struct dump_in *in);

#endif
