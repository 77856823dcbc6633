/* SPDX-License-Identifier: MIT */
#include "pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

unsigned pages_huge_kb(void)
{
	static const char *const names[] = {"ShmemPmdMapped:", "FilePmdMapped:", "Shared_Hugetlb:"};
	FILE *f = fopen("/proc/self/smaps_rollup", "re");
	char line[256];
	unsigned sum = 0;

	while (f && fgets(line, sizeof(line), f))
		for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			if (!strncmp(line, names[i], strlen(names[i])))
				sum += (unsigned)strtoul(line + strlen(names[i]), NULL, 10);
	if (f)
		fclose(f);
	return sum;
}

/* What is written for the first time costs another fault where there was a read: so a byte of it is, as it is. */
static void touch(volatile unsigned char *byte, int writable)
{
	unsigned char as_it_is = *byte;

	if (writable)
		__atomic_compare_exchange_n(byte, &as_it_is, as_it_is, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Not the holes, which it would fill. */
static void touch_what_is_there(unsigned char *start, size_t pages, size_t page_size, int writable)
{
	unsigned char there[16384];
	size_t i, n;

	for (; pages; pages -= n, start += n * page_size) {
		n = pages < sizeof(there) ? pages : sizeof(there);
		if (mincore(start, n * page_size, there))
			return;
		for (i = 0; i < n; i++)
			if (there[i] & 1)
				touch(start + i * page_size, writable);
	}
}

void pages_touch(void)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], mode[5];
	void *start, *end;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%p-%p %4s", &start, &end, mode) == 3 && mode[0] == 'r' && mode[3] == 's')
			touch_what_is_there(start, (size_t)((char *)end - (char *)start) / page_size, page_size,
			                    mode[1] == 'w');
	if (f)
		fclose(f);
}
