/* SPDX-License-Identifier: MIT */
/* See tell.h. errno stays as the caller has it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "tell.h"

void tell_listener(const struct listener *to, enum shoal_level level, const char *format, ...)
{
	int kept = errno;
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	to->log(level, text, to->arg);
	errno = kept;
}
