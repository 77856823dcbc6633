/* SPDX-License-Identifier: MIT */
#include "units.h"

#include <inttypes.h>
#include <math.h>
#include <shoal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NANO 1000000000u

/* A decimal number, exactly: whole + nano / 10^9. */
struct decimal {
	uint64_t whole, nano;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *scan_whole(const char **text, uint64_t *to)
{
	const char *t = *text;
	uint64_t n = 0;

	if (!is_digit(*t))
		return *t == '-' ? "is negative" : "is no number";
	for (; is_digit(*t); t++)
		if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*t - '0'), &n))
			return "is too large";
	*text = t;
	*to = n;
	return NULL;
}

static const char *scan(const char **text, struct decimal *to)
{
	struct decimal d = {0};
	const char *wrong = scan_whole(text, &d.whole), *t;
	uint64_t place = NANO / 10;

	if (wrong)
		return wrong;
	if (**text == '.') {
		t = *text + 1;
		if (!is_digit(*t))
			return "is no number";
		for (; is_digit(*t); t++, place /= 10) {
			if (!place)
				return "has too many digits";
			d.nano += place * (uint64_t)(*t - '0');
		}
		*text = t;
	}
	*to = d;
	return NULL;
}

/* d * by, if that is a whole number that fits. */
static const char *multiply(const struct decimal *d, uint64_t by, uint64_t *to)
{
	uint64_t whole, part = by / NANO * d->nano, rest = by % NANO * d->nano; /* by < 2^41: neither overflows */

	if (__builtin_mul_overflow(d->whole, by, &whole))
		return "is too large";
	if (rest % NANO)
		return "is too fine";
	if (__builtin_add_overflow(whole, part + rest / NANO, &whole))
		return "is too large";
	*to = whole;
	return NULL;
}

const char *unit_duration(const char *text, uint32_t *to)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	const char *wrong;
	struct decimal d;
	uint64_t ms;
	size_t i;

	if (!strcmp(text, "none"))
		return *to = SHOAL_NONE, NULL;
	if (!strcmp(text, "forever"))
		return *to = SHOAL_FOREVER, NULL;
	wrong = scan(&text, &d);
	if (wrong)
		return wrong;
	if (!*text && !d.whole && !d.nano)
		return *to = SHOAL_NONE, NULL;
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(text, units[i].name))
			break;
	if (i == sizeof(units) / sizeof(units[0]))
		return "needs a unit: ms, s, m, h or d (or is none, or forever)";
	wrong = multiply(&d, units[i].ms, &ms);
	if (wrong)
		return wrong;
	if (ms >= SHOAL_FOREVER)
		return "is more than 49 days: say forever";
	*to = ms ? (uint32_t)ms : SHOAL_NONE;
	return NULL;
}

const char *unit_size(const char *text, uint64_t *to)
{
	static const char letters[] = "kmgt";
	const char *wrong, *letter;
	struct decimal d;
	unsigned shift = 0;

	wrong = scan(&text, &d);
	if (wrong)
		return wrong;
	letter = *text ? memchr(letters, *text | 0x20, 4) : NULL;
	if (letter) {
		shift = 10 * (unsigned)(letter - letters + 1);
		text++;
	}
	if (*text && strcasecmp(text, "b") && !(letter && !strcasecmp(text, "ib")))
		return "needs one of k, m, g, t behind the number, or nothing";
	return multiply(&d, UINT64_C(1) << shift, to);
}

const char *unit_rate(const char *text, double *to)
{
	const char *wrong;
	struct decimal d;
	double per = 1;

	if (!strcmp(text, "none"))
		return *to = INFINITY, NULL;
	wrong = scan(&text, &d);
	if (wrong)
		return wrong;
	if (!strcmp(text, "/m"))
		per = 60;
	else if (!strcmp(text, "/h"))
		per = 3600;
	else if (*text && strcmp(text, "/s"))
		return "needs /s, /m or /h behind the number, or nothing";
	if (!d.whole && !d.nano)
		return "has to be more than 0 (or is none: no bound)";
	*to = ((double)d.whole + (double)d.nano / NANO) / per;
	return NULL;
}

const char *unit_share(const char *text, double *to)
{
	const char *wrong;
	struct decimal d;

	if (!strcmp(text, "none"))
		return *to = INFINITY, NULL;
	wrong = scan(&text, &d);
	if (wrong)
		return wrong;
	if (strcmp(text, "%"))
		return "needs a % behind the number (or is none)";
	if (d.whole > 100 || (d.whole == 100 && d.nano))
		return "is more than 100%";
	*to = ((double)d.whole + (double)d.nano / NANO) / 100;
	return NULL;
}

const char *unit_count(const char *text, uint64_t least, uint64_t most, uint64_t *to)
{
	const char *wrong;
	uint64_t n;

	wrong = scan_whole(&text, &n);
	if (wrong)
		return wrong;
	if (*text)
		return "is no whole number";
	if (n < least)
		return "is too small";
	if (n > most)
		return "is too large";
	*to = n;
	return NULL;
}

const char *unit_mode(const char *text, unsigned *to)
{
	size_t n = strlen(text);
	unsigned mode = 0;

	if (n < 3 || n > 4 || strspn(text, "01234567") != n || (n == 4 && *text != '0'))
		return "is no mode: three octal digits, as in 640";
	for (; *text; text++)
		mode = mode << 3 | (unsigned)(*text - '0');
	*to = mode;
	return NULL;
}

const char *unit_size_text(uint64_t bytes, char to[UNIT_TEXT])
{
	static const char units[] = "KMGTPE";
	double n = (double)bytes;
	unsigned u = 0;

	if (bytes < 1024)
		return snprintf(to, UNIT_TEXT, "%" PRIu64 " B", bytes), to;
	for (n /= 1024; n >= 999.95 && u < sizeof(units) - 2; u++)
		n /= 1024;
	snprintf(to, UNIT_TEXT, n >= 99.95 || n == floor(n) ? "%.0f %ciB" : "%.1f %ciB", n, units[u]);
	return to;
}

const char *unit_duration_text(int64_t ms, char to[UNIT_TEXT])
{
	const char *sign = ms < 0 ? "-" : "";
	uint64_t n = ms < 0 ? -(uint64_t)ms : (uint64_t)ms, s = n / 1000;

	if (ms == INT64_MAX)
		snprintf(to, UNIT_TEXT, "for ever");
	else if (n < 1000)
		snprintf(to, UNIT_TEXT, "%s%" PRIu64 " ms", sign, n);
	else if (s < 60)
		snprintf(to, UNIT_TEXT, "%s%" PRIu64 ".%" PRIu64 " s", sign, s, n % 1000 / 100);
	else if (s < 3600)
		snprintf(to, UNIT_TEXT, "%s%" PRIu64 "m%02" PRIu64 "s", sign, s / 60, s % 60);
	else if (s < 2 * 86400)
		snprintf(to, UNIT_TEXT, "%s%" PRIu64 "h%02" PRIu64 "m", sign, s / 3600, s / 60 % 60);
	else
		snprintf(to, UNIT_TEXT, "%s%" PRIu64 "d%02" PRIu64 "h", sign, s / 86400, s / 3600 % 24);
	return to;
}
