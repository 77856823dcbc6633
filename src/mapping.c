/* SPDX-License-Identifier: MIT */
/* See mapping.h. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mapping.h"

static int fail_closing(int fd)
{
	int kept = errno;

	close(fd);
	errno = kept;
	return SHOAL_ERR_SYSTEM;
}

/* fallocate(2) alone: posix_fallocate falls back to writing, which a full tmpfs answers half-way. */
static bool give_size(int fd, uint64_t size)
{
	int r;

	do
		r = fallocate(fd, 0, 0, (off_t)size);
	while (r && errno == EINTR);
	return !r;
}

int mapping_anonymous(uint64_t size)
{
	int fd = memfd_create("shoal", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) /* refused by seccomp, or before Linux 3.17 */
		return mapping_unnamed("/dev/shm/shoal", size, 0600);
	if (!give_size(fd, size))
		return fail_closing(fd);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
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
	if (fchmod(fd, mode) || !give_size(fd, size))
		return fail_closing(fd);
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

void *mapping_map(int fd, uint64_t offset, uint64_t size, bool writable)
{
	void *base = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, (off_t)offset);

	return base == MAP_FAILED ? NULL : base;
}

void mapping_unmap(void *base, uint64_t size)
{
	if (base)
		munmap(base, size);
}

int mapping_reopen(int fd)
{
	char self[32];

	fd_path(fd, self);
	return open(self, O_RDWR | O_CLOEXEC);
}
