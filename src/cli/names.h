/* SPDX-License-Identifier: MIT */
/* The caches that have a name: files /dev/shm/shoal.NAME.vN, N being the layout version. */
#ifndef SHOAL_CLI_NAMES_H
#define SHOAL_CLI_NAMES_H

#include <limits.h>
#include <sys/stat.h>

struct cache_file {
	char name[64], path[PATH_MAX];
	unsigned layout;
	struct stat st;
};

/*
 * The regular files of one name, or of all (NULL), in the order of name and layout. Returns how many, to be freed with
 * free(*to); negative: no memory, or the folder can't be read (errno).
 */
int names_list(const char *name, struct cache_file **to);

/* How many processes map that file, of those that we may look into. The library counts those that have made a call, and
 * only in segments of its own layout. */
unsigned names_mapped_by(const struct stat *st);

#endif
