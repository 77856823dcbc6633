/* SPDX-License-Identifier: MIT */
/* Files that are mapped by several processes: made without a name, given one when they are whole, mapped. */
#ifndef SHOAL_MAPPING_H
#define SHOAL_MAPPING_H

#include "base.h"

#define MAPPING_HUGE ((uint64_t)2 << 20)

/* Each returns a descriptor (close-on-exec) or a negative error, errno kept. Memory is allocated at once: a full
 * /dev/shm is ENOSPC here and not a SIGBUS later. */
int mapping_anonymous(uint64_t size);                            /* sealed against shrinking */
int mapping_unnamed(const char *path, uint64_t size, mode_t mode); /* in path's folder, to be named later */

/* errno is kept. Returns SHOAL_ERR_SYSTEM, for who closes it because something failed. */
int mapping_close(int fd);

/* Give an unnamed file its name. SHOAL_ERR_EXISTS: another was first. */
int mapping_name(int fd, const char *path);

/* Give that part of the file memory, behind its end or in a hole; and take it away. */
int mapping_extend(int fd, uint64_t offset, uint64_t size);
void mapping_punch(int fd, uint64_t offset, uint64_t size);

/* NULL: errno. What is large lies so that huge pages fit: its address is congruent to its offset in the file. */
void *mapping_map(int fd, uint64_t offset, uint64_t size, bool writable);
void mapping_unmap(void *base, uint64_t size);
void mapping_keep_from_cores(void *base, uint64_t size);
/* Huge pages from now on, and, with `collapse`, what is there already. Where the system has none, nothing changes. */
void mapping_use_huge(void *base, uint64_t size, bool collapse);

/* A description of its own of the same file, for locks of its own: -1 where /proc is missing. */
int mapping_reopen(int fd);

/* A file, whatever descriptors it has: a program may close ours under our feet, and have the number for another
 * file. */
struct file_id {
	uint64_t device, inode;
};
bool mapping_identify(int fd, struct file_id *id);
bool mapping_is(int fd, const struct file_id *id);
int mapping_dup(int fd); /* -1: errno */

#endif
