/* SPDX-License-Identifier: MIT */
/*
 * What the command reads: quantities, command lines, escaped text. An input is a byte that says which, and the text.
 *
 *   - a quantity that is understood is of what units.h says: one of its words, or digits and a unit, never negative;
 *     anything else is refused with a reason, and what it was to be put into is unchanged
 *   - a size is the number that it would be by exact arithmetic
 *   - a command line ends as options.h says, and its values are of their kinds; the same line gives the same again
 *   - what is printed as escaped text is one printable line, and gives the same bytes when it is read back
 */
#include <math.h>
#include <shoal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/escape.h"
#include "cli/options.h"
#include "cli/units.h"
#include "fuzz.h"

#define TEXT_MOST 4096

static struct {
	const uint8_t *data;
	size_t size;
} whole;

static void unexpected(int line, const char *what)
{
	size_t i;

	fprintf(stderr, "%s:%d: %s\ninput:", __FILE__, line, what);
	for (i = 0; i < whole.size; i++)
		fprintf(stderr, " %02x", whole.data[i]);
	fprintf(stderr, "\n");
	abort();
}

#define EXPECT(condition) ((condition) ? (void)0 : unexpected(__LINE__, #condition))

/* ---- quantities -------------------------------------------------------------------------------------------- */

/* digits[.digits] and a tail of letters, % and /: the shape of all quantities that are no word. */
static bool has_shape(const char *text)
{
	size_t n = strspn(text, "0123456789");

	if (!n)
		return false;
	text += n;
	if (*text == '.') {
		n = strspn(text + 1, "0123456789");
		if (!n)
			return false;
		text += n + 1;
	}
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ%/") == strlen(text);
}

static bool is_reason(const char *wrong)
{
	return *wrong && strlen(wrong) < 80 && !strchr(wrong, '\n');
}

static void try_size(const char *text)
{
	uint64_t size = 12345;
	const char *wrong = unit_size(text, &size), *unit;
	long double exact;

	if (wrong) {
		EXPECT(is_reason(wrong) && size == 12345);
		return;
	}
	EXPECT(has_shape(text));
	unit = text + strspn(text, "0123456789.");
	exact = strtold(text, NULL);
	exact *= powl(1024, *unit && strchr("kK", *unit)   ? 1
	                    : *unit && strchr("mM", *unit) ? 2
	                    : *unit && strchr("gG", *unit) ? 3
	                    : *unit && strchr("tT", *unit) ? 4
	                                                   : 0);
	EXPECT(fabsl((long double)size - exact) <= exact * 1e-15L);
}

static void try_quantities(const char *text)
{
	uint32_t ms = 12345;
	double rate = -1, share = -1;
	unsigned mode = 12345;
	uint64_t count = 12345;
	const char *wrong;

	wrong = unit_duration(text, &ms);
	EXPECT(wrong ? is_reason(wrong) && ms == 12345
	             : ms && (has_shape(text) || !strcmp(text, "none") || !strcmp(text, "forever")));
	EXPECT(wrong || ms < SHOAL_FOREVER || !strcmp(text, "forever") || !strcmp(text, "none") ||
	       !text[strspn(text, "0.msdh")]);
	wrong = unit_rate(text, &rate);
	EXPECT(wrong ? is_reason(wrong) && rate < 0
	             : rate > 0 && (isinf(rate) ? !strcmp(text, "none") : has_shape(text)));
	wrong = unit_share(text, &share);
	EXPECT(wrong ? is_reason(wrong) && share < 0
	             : share >= 0 && (isinf(share) ? !strcmp(text, "none") : share <= 1 && has_shape(text)));
	wrong = unit_mode(text, &mode);
	EXPECT(wrong ? is_reason(wrong) && mode == 12345 : mode <= 0777);
	wrong = unit_count(text, 3, 1000, &count);
	EXPECT(wrong ? is_reason(wrong) && count == 12345 : count >= 3 && count <= 1000 && has_shape(text));
	try_size(text);
}

/* ---- command lines ----------------------------------------------------------------------------------------- */

struct values {
	bool flag, other;
	const char *text;
	struct option_list list;
	uint64_t count, size;
	uint32_t duration;
	double rate;
	struct option_share share;
	unsigned mode, choice;
	struct option_keyspace keyspace;
};

static const struct option_spec specs[] = {
	{"flag", 'f', OPTION_FLAG(struct values, flag), NULL, "a flag", 0},
	{"flags", 0, OPTION_FLAG(struct values, other), NULL, "another", 0},
	{"text", 't', OPTION_TEXT(struct values, text), "TEXT", "a text", 0},
	{"list", 'l', OPTION_LIST(struct values, list), "TEXT", "several", 0},
	{"count", 'n', OPTION_COUNT(struct values, count), "N", "a count", 1000},
	{"size", 's', OPTION_SIZE(struct values, size), "SIZE", "a size", 0},
	{"duration", 'd', OPTION_DURATION(struct values, duration), "DURATION", "a duration", 0},
	{"rate", 'r', OPTION_RATE(struct values, rate), "RATE", "a rate", 0},
	{"share", 0, OPTION_SHARE(struct values, share), "SHARE", "a share", 0},
	{"mode", 'm', OPTION_MODE(struct values, mode), "MODE", "a mode", 0},
	{"keyspace", 'k', OPTION_KEYSPACE(struct values, keyspace), "KEYSPACE", "a keyspace", 0},
	{"choice", 0, OPTION_CHOICE(struct values, choice), "one|two|three", "one of them", 0},
	OPTIONS_END,
};

/* Words end at newlines. */
static int split(char *text, char **words, int most)
{
	int n = 0;

	words[n++] = (char[]){"verb"};
	while (n < most - 1 && text) {
		words[n++] = text;
		text = strchr(text, '\n');
		if (text)
			*text++ = 0;
	}
	words[n] = NULL;
	return n;
}

static void check_values(const struct values *v)
{
	EXPECT(v->count <= 1000 && v->choice <= 3 && v->mode <= 0777 && v->list.count <= OPTION_LIST_MOST);
	EXPECT(v->rate >= 0 && v->share.share >= 0 && (isinf(v->share.share) || v->share.share <= 1));
	EXPECT(!v->keyspace.given || (*v->keyspace.name && strnlen(v->keyspace.name, 64) < 64));
	EXPECT(!v->keyspace.any || v->keyspace.version == 1);
}

static void try_line(const char *text, bool early)
{
	char copies[2][TEXT_MOST + 1], *words[2][80], errors[2][OPTION_ERROR] = {"", ""};
	struct values values[2];
	int ends[2], i, n = 0;

	for (i = 0; i < 2; i++) {
		memset(&values[i], 0, sizeof(values[i]));
		strcpy(copies[i], text);
		n = split(copies[i], words[i], 80);
		ends[i] = options_parse(specs, early, n, words[i], &values[i], errors[i]);
	}
	EXPECT(ends[0] == ends[1] && !strcmp(errors[0], errors[1]));
	EXPECT(ends[0] == OPTIONS_HELP || ends[0] == OPTIONS_WRONG || (ends[0] >= 1 && ends[0] <= n));
	EXPECT((ends[0] == OPTIONS_WRONG) == (*errors[0] != 0));
	EXPECT(strlen(errors[0]) < OPTION_ERROR);
	if (ends[0] > 0) {
		check_values(&values[0]);
		EXPECT(values[0].count == values[1].count && values[0].duration == values[1].duration &&
		       values[0].size == values[1].size);
	}
}

/* ---- escaped text ------------------------------------------------------------------------------------------ */

static void try_escape(const uint8_t *data, size_t size)
{
	char *line = NULL, *back;
	size_t n = 0, i;
	FILE *to = open_memstream(&line, &n);

	escape_print(to, data, size);
	EXPECT(!fclose(to));
	for (i = 0; i < n; i++)
		EXPECT((unsigned char)line[i] >= 0x20 && line[i] != 0x7f &&
		       !(line[i] == '\xc2' && (unsigned char)line[i + 1] < 0xa0));
	EXPECT(escape_is_utf8(line, n));
	EXPECT(!escape_undo(line, &n) && n == size && (!n || !memcmp(line, data, n)));
	free(line);
	back = malloc(size + 1);
	if (size)
		memcpy(back, data, size);
	n = size;
	if (!escape_undo(back, &n))
		EXPECT(n <= size);
	free(back);
	back = escape_base64(data, size);
	EXPECT(strlen(back) == (size + 2) / 3 * 4);
	free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[TEXT_MOST + 1];
	size_t n;

	whole.data = data;
	whole.size = size;
	if (!size)
		return 0;
	n = size - 1 < TEXT_MOST ? size - 1 : TEXT_MOST;
	memcpy(text, data + 1, n);
	text[n] = 0;
	switch (*data % 4) {
	case 0:
		try_quantities(text);
		break;
	case 1:
		try_line(text, false);
		break;
	case 2:
		try_line(text, true);
		break;
	default:
		try_escape(data + 1, size - 1);
	}

	return 0;
}
