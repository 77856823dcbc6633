/* SPDX-License-Identifier: MIT */
/* See clock.h. */
#include <dlfcn.h>

#include "clock.h"

clock_reader *clock_find_reader(void)
{
	void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
	void *found = vdso ? dlsym(vdso, "__vdso_clock_gettime") : NULL;

	return found ? __extension__ (clock_reader *)found : clock_gettime;
}
