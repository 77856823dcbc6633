/* SPDX-License-Identifier: MIT */
#include "words.h"

#include <stdlib.h>
#include <string.h>

/* One word, from *text to where it is written, which is never behind it. NULL, or what is wrong. */
static const char *cut_one(char **text, char **to)
{
	char *in = *text, *out = *to, quote = 0;

	for (; *in && (quote || !strchr(" \t\n", *in)); in++) {
		if (quote ? *in == quote : *in == '\'' || *in == '"') {
			quote = quote ? 0 : *in;
			continue;
		}
		if (*in == '\\' && quote != '\'' && (!quote || strchr("\"\\$`", in[1])))
			in++;
		if (!*in)
			return "ends with a \\";
		*out++ = *in;
	}
	if (quote)
		return quote == '"' ? "has no closing \"" : "has no closing '";
	*text = *in ? in + 1 : in;
	*out = 0;
	*to = out + 1;
	return NULL;
}

const char *words_cut(char *text, char **words, size_t most)
{
	char *to = text;
	const char *wrong;
	size_t n = 0;

	for (;;) {
		text += strspn(text, " \t\n");
		if (!*text)
			break;
		if (n == most)
			return "has too many words";
		words[n++] = to;
		wrong = cut_one(&text, &to);
		if (wrong)
			return wrong;
	}
	words[n] = NULL;
	return n ? NULL : "is empty";
}

char *words_fill(const char *word, const char *with)
{
	size_t size = strlen(word) + 1, n = strlen(with);
	const char *at;
	char *filled, *to;

	for (at = word; (at = strstr(at, "{}")); at += 2)
		size += n;
	filled = to = malloc(size);
	if (!filled)
		return NULL;
	while ((at = strstr(word, "{}"))) {
		memcpy(to, word, (size_t)(at - word));
		to += at - word;
		memcpy(to, with, n);
		to += n;
		word = at + 2;
	}
	strcpy(to, word);
	return filled;
}
