/* SPDX-License-Identifier: MIT */
/* Compression of values, by lz4 or zstd. A packed value is {plain size:32, compressed bytes}. */
#ifndef SHOAL_CODEC_H
#define SHOAL_CODEC_H

#include "base.h"

enum codec { CODEC_NONE, CODEC_LZ4, CODEC_ZSTD };

#define CODEC_THRESHOLD 512u /* bytes below which compression costs a hit more than the room is worth */
#define CODEC_MOST 0x7e000000u   /* LZ4_MAX_INPUT_SIZE */

/* Pack into `to`, which has n - n / 8 bytes: fewer are "not smaller". Returns the size, 0 if it didn't get so small. */
size_t codec_pack(enum codec c, const void *from, size_t n, void *to);
/* How large it will be plain; 0 if it can't be told. */
size_t codec_plain_size(const void *from, size_t n);
/* False: these bytes are not what was packed. */
bool codec_unpack(enum codec c, const void *from, size_t n, void *to, size_t plain);

#endif
