/* SPDX-License-Identifier: MIT */
/* The caller's log: what happens seldom and somebody may want to know. Silent where there is none. */
#ifndef SHOAL_TELL_H
#define SHOAL_TELL_H

#include "base.h"

struct listener {
	shoal_log *log; /* NULL: nobody listens */
	void *arg;
};

void tell_listener(const struct listener *to, enum shoal_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define tell_of(to, ...)                                                                                               \
	do {                                                                                                           \
		if (unlikely((to)->log))                                                                               \
			tell_listener(to, __VA_ARGS__);                                                                \
	} while (0)

#endif
