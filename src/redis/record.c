/* SPDX-License-Identifier: MIT */
/* See record.h. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "record.h"

enum { SCHEMA_AT = 4, FRESH_AT = 8, STALE_AT = 12, ERROR_AT = 16, FLAGS_AT = 20, CHECKSUM_AT = 24 }; /* from SHR1 on */

static void put(unsigned char *at, uint64_t n, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (unsigned char)(n >> 8 * i);
}

static uint64_t get(const unsigned char *at, int bytes)
{
	uint64_t n = 0;

	for (int i = 0; i < bytes; i++)
		n |= (uint64_t)at[i] << 8 * i;
	return n;
}

static uint64_t sum(const unsigned char *header, const struct shoal_slice *key, const struct shoal_slice *value)
{
	uint64_t h = XXH3_64bits(header, CHECKSUM_AT);

	h = XXH3_64bits_withSeed(key->data, key->size, h);
	return value->size ? XXH3_64bits_withSeed(value->data, value->size, h) : h;
}

void record_tag(unsigned char tag[RECORD_TAG], uint32_t schema)
{
	memcpy(tag, "SHR1", SCHEMA_AT);
	put(tag + SCHEMA_AT, schema, 4);
}

void record_write(unsigned char header[RECORD_HEADER], const struct record_lives *lives, uint32_t schema,
                  const struct shoal_slice *key, const struct shoal_slice *value)
{
	record_tag(header, schema);
	put(header + FRESH_AT, lives->fresh_ms, 4);
	put(header + STALE_AT, lives->stale_ms, 4);
	put(header + ERROR_AT, lives->error_ms, 4);
	put(header + FLAGS_AT, 0, 4);
	put(header + CHECKSUM_AT, sum(header, key, value), 8);
}

/* What is left of a life when *passed of it and those before it has passed, and how much of that is for the next. */
static uint32_t after(uint32_t life, uint64_t *passed)
{
	uint64_t of_this = *passed < life ? *passed : life;

	if (life == SHOAL_NONE)
		return 0;
	if (life == SHOAL_FOREVER) {
		*passed = 0;
		return life;
	}
	*passed -= of_this;
	return (uint32_t)(life - of_this);
}

/* Within what Redis gives it yet. */
static uint32_t within(uint32_t life, int64_t *left)
{
	if (*left < 0)
		return life;
	if (life == SHOAL_FOREVER) /* which it isn't, in Redis: the longest that has an end */
		life--;
	if (life > *left)
		life = (uint32_t)*left;
	*left -= life;
	return life;
}

static int is_stamp(const unsigned char *at)
{
	for (int i = 0; i < RECORD_STAMP; i++)
		if (at[i] < '0' || at[i] > '9')
			return 0;
	return 1;
}

enum record_kind record_read(const struct shoal_slice *bytes, uint32_t schema, const struct shoal_slice *key,
                             int64_t age_ms, int64_t left_ms, struct record *record)
{
	const unsigned char *header = (const unsigned char *)bytes->data + RECORD_STAMP;
	struct shoal_slice value;
	struct record_lives left;
	unsigned char tag[RECORD_TAG];

	record_tag(tag, schema);
	if (bytes->size < RECORD_STAMP + RECORD_HEADER || !is_stamp(bytes->data) || memcmp(header, tag, RECORD_TAG))
		return RECORD_CORRUPT;
	value = (struct shoal_slice){header + RECORD_HEADER, bytes->size - RECORD_STAMP - RECORD_HEADER};
	if (get(header + FLAGS_AT, 4) || get(header + CHECKSUM_AT, 8) != sum(header, key, &value))
		return RECORD_CORRUPT;
	left.fresh_ms = (uint32_t)get(header + FRESH_AT, 4);
	left.stale_ms = (uint32_t)get(header + STALE_AT, 4);
	left.error_ms = (uint32_t)get(header + ERROR_AT, 4);
	record_pass(&left, age_ms > 0 ? (uint64_t)age_ms : 0);
	left.fresh_ms = within(left.fresh_ms, &left_ms);
	left.stale_ms = within(left.stale_ms, &left_ms);
	left.error_ms = within(left.error_ms, &left_ms);
	if (!left.fresh_ms && !left.stale_ms && !left.error_ms)
		return RECORD_DEAD;
	*record = (struct record){left, value};
	return RECORD_OK;
}

void record_pass(struct record_lives *lives, uint64_t ms)
{
	lives->fresh_ms = after(lives->fresh_ms, &ms);
	lives->stale_ms = after(lives->stale_ms, &ms);
	lives->error_ms = after(lives->error_ms, &ms);
}

uint64_t record_life(const struct record_lives *l)
{
	if (l->fresh_ms == SHOAL_FOREVER || l->stale_ms == SHOAL_FOREVER || l->error_ms == SHOAL_FOREVER)
		return 0;
	return (uint64_t)l->fresh_ms + l->stale_ms + l->error_ms;
}
