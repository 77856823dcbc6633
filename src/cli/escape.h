/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as one line of text and back: shoal(5) names the form. Printable UTF-8 stands for itself; a backslash is
 * written \\, a tab \t, a newline \n, a carriage return \r, and everything else \xHH: control characters (also those
 * that turn the direction of text), and bytes that are no UTF-8. What comes out is safe to be shown on a terminal.
 */
#ifndef SHOAL_CLI_ESCAPE_H
#define SHOAL_CLI_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

void escape_print(FILE *to, const void *data, size_t size);

/* In place; *size is cut to what it stands for. NULL, or what is wrong. */
const char *escape_undo(char *text, size_t *size);

bool escape_is_utf8(const void *data, size_t size);

/* An allocated string; NULL: no memory. */
char *escape_base64(const void *data, size_t size);

#endif
