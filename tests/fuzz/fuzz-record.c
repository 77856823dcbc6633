/* SPDX-License-Identifier: MIT */
/*
 * What comes from Redis as a value: any bytes, of any age. An input is how old it is said to be, how long Redis keeps
 * it yet, whether its checksum is to be made right, and the bytes.
 *
 *   - what is accepted lies within the bytes, and is what would be written again
 *   - no life is longer than it was, than its age leaves of it, or than Redis keeps it
 *   - what isn't accepted leaves the record as it was
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"
#include "fuzz.h"
#include "redis/record.h"

enum { AGE_AT = 0, LEFT_AT = 8, RIGHT_AT = 16, BYTES_AT = 17, VALUE_AT = RECORD_STAMP + RECORD_HEADER };

static const struct shoal_slice key = {"key", 3};

static uint32_t number(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static struct record_lives lives_of(const uint8_t *bytes)
{
	return (struct record_lives){number(bytes + 24), number(bytes + 28), number(bytes + 32)};
}

/* Of what is left of the three, in turn, the time until the end. */
static uint64_t end_of(const struct record_lives *l)
{
	return record_life(l) ? record_life(l) : UINT64_MAX;
}

static void look_at(const uint8_t *bytes, size_t size, int64_t age, int64_t left, const struct record *r)
{
	struct record_lives was = lives_of(bytes);
	struct shoal_slice value = {bytes + VALUE_AT, size - VALUE_AT};
	unsigned char again[RECORD_HEADER];

	EXPECT(r->value.data == value.data && r->value.size == value.size);
	record_write(again, &was, 7, &key, &value);
	EXPECT(!memcmp(again, bytes + RECORD_STAMP, RECORD_HEADER));
	EXPECT(r->left.fresh_ms <= was.fresh_ms && r->left.stale_ms <= was.stale_ms &&
	       r->left.error_ms <= was.error_ms);
	EXPECT(r->left.fresh_ms || r->left.stale_ms || r->left.error_ms);
	EXPECT(r->left.fresh_ms != SHOAL_NONE && r->left.stale_ms != SHOAL_NONE && r->left.error_ms != SHOAL_NONE);
	EXPECT(left < 0 || end_of(&r->left) <= (uint64_t)left);
	EXPECT(was.fresh_ms == SHOAL_FOREVER || age < was.fresh_ms || !r->left.fresh_ms);
	EXPECT(end_of(&was) == UINT64_MAX || age <= 0 || end_of(&r->left) + (uint64_t)age <= end_of(&was));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record r = {{1, 2, 3}, {data, 4}};
	int64_t age, left;
	uint8_t *bytes;

	if (size < BYTES_AT)
		return 0;
	memcpy(&age, data + AGE_AT, sizeof(age));
	memcpy(&left, data + LEFT_AT, sizeof(left));
	size -= BYTES_AT;
	bytes = malloc(size ? size : 1); /* so that a byte too many is seen */
	memcpy(bytes, data + BYTES_AT, size);
	if (data[RIGHT_AT] & 1 && size >= VALUE_AT) {
		struct record_lives lives = lives_of(bytes);
		struct shoal_slice value = {bytes + VALUE_AT, size - VALUE_AT};

		memcpy(bytes, "0001700000000000", RECORD_STAMP);
		record_write(bytes + RECORD_STAMP, &lives, 7, &key, &value);
	}
	if (record_read(&(struct shoal_slice){bytes, size}, 7, &key, age, left, &r) == RECORD_OK)
		look_at(bytes, size, age, left, &r);
	else
		EXPECT(r.left.fresh_ms == 1 && r.left.stale_ms == 2 && r.left.error_ms == 3 && r.value.data == data);
	free(bytes);
	return 0;
}
