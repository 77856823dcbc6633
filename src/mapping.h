/* SPDX-License-Identifier: MIT */
/* Files that are mapped by several processes: made without a name, given one when they are whole, mapped. */
#ifndef SHOAL_MAPPING_H
#define SHOAL_MAPPING_H

#include "base.h"

/* Each returns a descriptor (close-on-exec) or a negative error, errno kept. Memory is allocated at once: a full
 * /dev/shm is ENOSPC here and not a SIGBUS later. */
int mapping_anonymous(uint64_t size);                            /* sealed against resizing */
int mapping_unnamed(const char *path, uint64_t size, mode_t mode); /* in path's folder, to be named later */

/* Give an unnamed file its name. SHOAL_ERR_EXISTS: another was first. */
int mapping_name(int fd, const char *path);

void *mapping_map(int fd, uint64_t offset, uint64_t size, bool writable); /* NULL: errno */
void mapping_unmap(void *base, uint64_t size);

/* A description of its own of the same file, for locks of its own: -1 where /proc is missing. */
int mapping_reopen(int fd);

#endif
