/* SPDX-License-Identifier: MIT */
/* See mapping.h. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "mapping.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

int mapping_close(int fd)
{
	int kept = errno;

	close(fd);
	errno = kept;
	return SHOAL_ERR_SYSTEM;
}

/* In memory, as a memfd is, too, which has no bound of its own: the kernel would end process after process to find room
 * for what never fits. */
static bool is_more_than_there_is(int fd, uint64_t size)
{
	struct statfs fs;
	struct sysinfo all;

	return !fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC && !sysinfo(&all) &&
	       size / all.mem_unit > (uint64_t)all.totalram + all.totalswap;
}

/* fallocate(2) alone: posix_fallocate falls back to writing, which a full tmpfs answers half-way. */
static bool give_memory(int fd, uint64_t offset, uint64_t size)
{
	struct rlimit limit;
	int r;

	if (is_more_than_there_is(fd, size)) {
		errno = ENOSPC;
		return false;
	}
	if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY && offset + size > limit.rlim_cur) {
		errno = EFBIG; /* the kernel would add a SIGXFSZ */
		return false;
	}
	do
		r = fallocate(fd, 0, (off_t)offset, (off_t)size);
	while (r && errno == EINTR);
	return !r;
}

int mapping_extend(int fd, uint64_t offset, uint64_t size)
{
	return give_memory(fd, offset, size) ? SHOAL_OK : SHOAL_ERR_SYSTEM;
}

void mapping_punch(int fd, uint64_t offset, uint64_t size)
{
	int kept = errno;

	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
	errno = kept;
}

int mapping_anonymous(uint64_t size)
{
	int fd = memfd_create("shoal", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) /* refused by seccomp, or before Linux 3.17 */
		return mapping_unnamed("/dev/shm/shoal", size, 0600);
	if (!give_memory(fd, 0, size))
		return mapping_close(fd);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL);
	return fd;
}

int mapping_unnamed(const char *path, uint64_t size, mode_t mode)
{
	char folder[PATH_MAX];
	int fd;

	if (strlen(path) >= sizeof(folder)) {
		errno = ENAMETOOLONG;
		return SHOAL_ERR_SYSTEM;
	}
	fd = open(dirname(strcpy(folder, path)), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return SHOAL_ERR_SYSTEM;
	if (fchmod(fd, mode) || !give_memory(fd, 0, size))
		return mapping_close(fd);
	return fd;
}

static void fd_path(int fd, char text[static 32])
{
	snprintf(text, 32, "/proc/self/fd/%d", fd);
}

int mapping_name(int fd, const char *path)
{
	char self[32];

	fd_path(fd, self);
	if (!linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW))
		return SHOAL_OK;
	if (errno == ENOENT && !linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH)) /* no /proc: needs a capability */
		return SHOAL_OK;
	return errno == EEXIST ? SHOAL_ERR_EXISTS : SHOAL_ERR_SYSTEM;
}

/* Address space with room for `size` at a place that is congruent to `offset`; the rest is given back. */
static char *reserve_congruent(uint64_t offset, uint64_t size)
{
	uint64_t all = align_up(size, PAGE) + MAPPING_HUGE, skip;
	char *base = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return NULL;
	skip = (offset - (uintptr_t)base) % MAPPING_HUGE;
	if (skip)
		munmap(base, skip);
	munmap(base + skip + align_up(size, PAGE), MAPPING_HUGE - skip);
	return base + skip;
}

void *mapping_map(int fd, uint64_t offset, uint64_t size, bool writable)
{
	char *at = size >= 2 * MAPPING_HUGE ? reserve_congruent(offset, size) : NULL;
	void *base = mmap(at, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | (at ? MAP_FIXED : 0), fd,
	                  (off_t)offset);

	if (base != MAP_FAILED)
		return base;
	if (at)
		munmap(at, align_up(size, PAGE));
	return NULL;
}

void mapping_unmap(void *base, uint64_t size)
{
	if (base)
		munmap(base, size);
}

void mapping_keep_from_cores(void *base, uint64_t size)
{
	int kept = errno;

	madvise(base, size, MADV_DONTDUMP);
	errno = kept;
}

void mapping_use_huge(void *base, uint64_t size, bool collapse)
{
	int kept = errno;

	madvise(base, size, MADV_HUGEPAGE);
	if (collapse)
		madvise(base, size, MADV_COLLAPSE);
	errno = kept;
}

int mapping_reopen(int fd)
{
	char self[32];

	fd_path(fd, self);
	return open(self, O_RDWR | O_CLOEXEC);
}

int mapping_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

bool mapping_identify(int fd, struct file_id *id)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return false;
	*id = (struct file_id){st.st_dev, st.st_ino};
	return true;
}

bool mapping_is(int fd, const struct file_id *id)
{
	struct file_id now;

	return mapping_identify(fd, &now) && now.device == id->device && now.inode == id->inode;
}
