/* SPDX-License-Identifier: MIT */
/*
 * A command line that is given as one argument: words between spaces and tabs, with '...', "..." and \ as a shell has
 * them, and nothing else of a shell: no variables, no substitution, so that what is put in for {} can't be taken for
 * more than a piece of a word.
 */
#ifndef SHOAL_CLI_WORDS_H
#define SHOAL_CLI_WORDS_H

#include <stddef.h>

/* Cut `text`, which is changed, into at most `most` words, and NULL behind them. NULL, or what is wrong. */
const char *words_cut(char *text, char **words, size_t most);

/* The word with {} replaced by `with`, wherever it stands: allocated; NULL: no memory. */
char *words_fill(const char *word, const char *with);

#endif
