/* SPDX-License-Identifier: MIT */
#include "escape.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The code point that `data` begins with, and its length; 0: no UTF-8 (RFC 3629). */
static size_t decode(const unsigned char *data, size_t size, uint32_t *point)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t i, n = *data < 0x80 ? 1 : *data < 0xc2 ? 0 : *data < 0xe0 ? 2 : *data < 0xf0 ? 3 : *data < 0xf5 ? 4 : 0;

	if (!n || n > size)
		return 0;
	*point = n == 1 ? *data : *data & (0x7fu >> n);
	for (i = 1; i < n; i++) {
		if ((data[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (data[i] & 0x3f);
	}
	return *point < least[n] || *point > 0x10ffff || (*point >= 0xd800 && *point < 0xe000) ? 0 : n;
}

static bool is_printable(uint32_t point)
{
	return point >= 0x20 && !(point >= 0x7f && point < 0xa0) && !(point >= 0x200b && point <= 0x200f) &&
	       !(point >= 0x2028 && point <= 0x202e) && !(point >= 0x2060 && point <= 0x206f) && point != 0xfeff;
}

bool escape_is_utf8(const void *data, size_t size)
{
	const unsigned char *d = data;
	uint32_t point;
	size_t n;

	for (; size; d += n, size -= n) {
		n = decode(d, size, &point);
		if (!n)
			return false;
	}
	return true;
}

void escape_print(FILE *to, const void *data, size_t size)
{
	static const char special[] = "\\\t\n\r", letters[] = "\\tnr";
	const unsigned char *d = data;
	const char *s;
	uint32_t point;
	size_t i, n;

	for (; size; d += n, size -= n) {
		n = decode(d, size, &point);
		if (n == 1 && point && (s = strchr(special, (int)point))) {
			fprintf(to, "\\%c", letters[s - special]);
			continue;
		}
		if (n && is_printable(point)) {
			fwrite(d, 1, n, to);
			continue;
		}
		n = n ? n : 1;
		for (i = 0; i < n; i++)
			fprintf(to, "\\x%02x", d[i]);
	}
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

const char *escape_undo(char *text, size_t *size)
{
	static const char special[] = "\\\t\n\r", letters[] = "\\tnr";
	const char *from = text, *end = text + *size, *l;
	char *to = text;

	while (from < end) {
		if (*from != '\\') {
			*to++ = *from++;
			continue;
		}
		if (end - from >= 2 && from[1] && (l = strchr(letters, from[1]))) {
			*to++ = special[l - letters];
			from += 2;
		} else if (end - from >= 4 && from[1] == 'x' && hex_value(from[2]) >= 0 && hex_value(from[3]) >= 0) {
			*to++ = (char)(hex_value(from[2]) << 4 | hex_value(from[3]));
			from += 4;
		} else {
			return "has a backslash that begins none of \\\\, \\t, \\n, \\r and \\xHH";
		}
	}
	*size = (size_t)(to - text);
	return NULL;
}

char *escape_base64(const void *data, size_t size)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *d = data;
	char *text = malloc(size / 3 * 4 + 5), *t = text;
	uint32_t group;
	size_t i, n;

	if (!text)
		return NULL;
	for (; size; d += n, size -= n) {
		n = size < 3 ? size : 3;
		for (group = 0, i = 0; i < 3; i++)
			group = group << 8 | (i < n ? d[i] : 0);
		for (i = 0; i < 4; i++)
			*t++ = i > n ? '=' : letters[group >> (18 - 6 * i) & 63];
	}
	*t = 0;
	return text;
}
