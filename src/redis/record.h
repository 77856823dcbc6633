/* SPDX-License-Identifier: MIT */
/*
 * A value as it lies in Redis, and what is left of its lives. Numbers are little-endian.
 *
 *     0        16     20       24      28      32      36      40         48
 *     | stored | SHR1 | schema | fresh | stale | error | flags | checksum | value ...
 *
 *   stored    milliseconds of Redis's own clock, 16 decimal digits, written by the script that stores it: no clock of
 *             a machine is compared with another's
 *   fresh     and the other two: lives in milliseconds from then on, SHOAL_FOREVER among them
 *   flags     0; others are of a format to come
 *   checksum  of what stands before it from SHR1 on, the key, and the value
 *
 * The scripts read `stored`, SHR1 with the schema, and the lives: see script.c.
 */
#ifndef SHOAL_REDIS_RECORD_H
#define SHOAL_REDIS_RECORD_H

#include <shoal.h>

#define RECORD_STAMP 16  /* the part that Redis writes */
#define RECORD_HEADER 32 /* the part that we write before the value */
#define RECORD_TAG 8     /* SHR1 and the schema */

enum record_kind { RECORD_OK, RECORD_DEAD, RECORD_CORRUPT };

struct record_lives {
	uint32_t fresh_ms, stale_ms, error_ms; /* one after the other; 0 = none, SHOAL_FOREVER */
};

struct record {
	struct record_lives left;
	struct shoal_slice value; /* inside the bytes that were read */
};

void record_tag(unsigned char tag[RECORD_TAG], uint32_t schema);

/* The header of a value. */
void record_write(unsigned char header[RECORD_HEADER], const struct record_lives *lives, uint32_t schema,
                  const struct shoal_slice *key, const struct shoal_slice *value);

/*
 * Read any bytes. `age_ms` since it was stored; `left_ms`, what Redis gives it yet (negative: no end). RECORD_DEAD: all
 * its lives are over. RECORD_CORRUPT: of this tag, and not what record_write() wrote for the key.
 * *record is unchanged but for OK.
 */
enum record_kind record_read(const struct shoal_slice *bytes, uint32_t schema, const struct shoal_slice *key,
                             int64_t age_ms, int64_t left_ms, struct record *record);

/* The same lives so much later. */
void record_pass(struct record_lives *lives, uint64_t ms);

/* How long Redis has to keep it; 0 = for ever. */
uint64_t record_life(const struct record_lives *lives);

#endif
