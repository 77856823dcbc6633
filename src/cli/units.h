/* SPDX-License-Identifier: MIT */
/*
 * Quantities as people write them: durations, sizes, rates, shares. Strict: what isn't wholly understood is refused,
 * and so is what doesn't fit or would have to be rounded. Pure functions of their text.
 *
 * Each returns NULL, or what is wrong ("needs a unit: ms, s, m, h or d"), to be put behind the text;
 * *to is then unchanged.
 */
#ifndef SHOAL_CLI_UNITS_H
#define SHOAL_CLI_UNITS_H

#include <stdint.h>

/* "250ms", "30s", "1.5h", "7d"; "0" and "none" are SHOAL_NONE, "forever" is SHOAL_FOREVER: as in the fields of the
 * library that end in _ms, where 0 is left to say "the default". */
const char *unit_duration(const char *text, uint32_t *to);

/* "4096", "64k", "1.5m", "1g", "2t", in powers of 1024; "64KiB" and "64kb" are the same as "64k". */
const char *unit_size(const char *text, uint64_t *to);

/* "50/s", "50" (a second), "90/m", "10/h"; "none" is INFINITY: no bound. Above 0. */
const char *unit_rate(const char *text, double *to);

/* "5%", "0.5%": 0.05, 0.005. At most 100%; "none" is INFINITY. */
const char *unit_share(const char *text, double *to);

/* Digits alone, from least to most. */
const char *unit_count(const char *text, uint64_t least, uint64_t most, uint64_t *to);

/* "600", "0640" */
const char *unit_mode(const char *text, unsigned *to);

#define UNIT_TEXT 32

/* For people: "64 MiB", "1.5 GiB"; "250 ms", "1m30s", "for ever". Return `to`. */
const char *unit_size_text(uint64_t bytes, char to[UNIT_TEXT]);
const char *unit_duration_text(int64_t ms, char to[UNIT_TEXT]);

#endif
