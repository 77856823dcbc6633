/* SPDX-License-Identifier: MIT */
/* See codec.h. */
#include <lz4.h>
#include <string.h>
#include <zstd.h>

#include "codec.h"

_Static_assert(CODEC_MOST == LZ4_MAX_INPUT_SIZE, "lz4 takes no more");

#define PREFIX sizeof(uint32_t)
#define ZSTD_LEVEL 3

size_t codec_pack(enum codec c, const void *from, size_t n, void *to)
{
	size_t room = n - n / 8, size = 0;
	uint32_t plain = (uint32_t)n;
	char *at = (char *)to + PREFIX;
	int made;

	if (n < CODEC_THRESHOLD || n > CODEC_MOST)
		return 0;
	room -= PREFIX;
	if (c == CODEC_LZ4) {
		made = LZ4_compress_default(from, at, (int)n, (int)room);
		size = made > 0 ? (size_t)made : 0;
	} else if (c == CODEC_ZSTD) {
		size = ZSTD_compress(at, room, from, n, ZSTD_LEVEL);
		size = ZSTD_isError(size) ? 0 : size;
	}
	if (!size)
		return 0;
	memcpy(to, &plain, PREFIX);
	return PREFIX + size;
}

size_t codec_plain_size(const void *from, size_t n)
{
	uint32_t plain;

	if (n <= PREFIX)
		return 0;
	memcpy(&plain, from, PREFIX);
	return plain;
}

bool codec_unpack(enum codec c, const void *from, size_t n, void *to, size_t plain)
{
	const char *at = (const char *)from + PREFIX;

	if (n <= PREFIX || plain > CODEC_MOST)
		return false;
	n -= PREFIX;
	if (c == CODEC_LZ4)
		return LZ4_decompress_safe(at, to, (int)n, (int)plain) == (int)plain;
	return c == CODEC_ZSTD && ZSTD_decompress(to, plain, at, n) == plain;
}
