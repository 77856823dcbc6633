/* SPDX-License-Identifier: MIT */
/* TAP for programs that use nothing but the library: check() names what it checks, done() ends main(). C and C++. */
#ifndef TAP_H
#define TAP_H

#include <stdio.h>

static int tap_count, tap_failed;

#define check(condition, name) tap_check((condition) ? 1 : 0, name, __FILE__, __LINE__, #condition)

static void tap_check(int good, const char *name, const char *file, int line, const char *condition)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++tap_count, name);
	if (!good) {
		printf("# %s:%d: %s\n", file, line, condition);
		tap_failed++;
	}
	fflush(stdout);
}

static int done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed != 0;
}

#endif
