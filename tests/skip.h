/* SPDX-License-Identifier: MIT */
/*
 * The one way for a case, or a child of its, to say that it can't run here: it says so and returns. report.py takes the
 * case for skipped, and run.sh --ci wants it in skips.txt.
 */
#ifndef SHOAL_TEST_SKIP_H
#define SHOAL_TEST_SKIP_H

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* By one write: what a parent's stdio holds back is not said twice. */
static inline __attribute__((format(printf, 1, 2))) void skipped(const char *format, ...)
{
	char line[300];
	va_list args;
	int n = snprintf(line, sizeof(line), "# skipped: ");

	va_start(args, format);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
	va_end(args);
	n = n < (int)sizeof(line) - 1 ? n : (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		_exit(97);
}

#endif
