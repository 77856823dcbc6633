/* SPDX-License-Identifier: MIT */
/* Process identity and death: see proc.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hash.h"
#include "proc.h"

#define START_BITS 26
#define START_MASK ((1u << START_BITS) - 1)
#define PID_BITS 22
#define MACHINE_TIME 0xeffffffau /* of the first time namespace, on every machine (linux/nsfs.h) */
#define MACHINE_PIDS 0xeffffffcu /* likewise */

static ssize_t read_file(const char *path, char *text, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, capacity - 1);
	close(fd);
	if (n >= 0)
		text[n] = 0;
	return n;
}

struct stat_line {
	char state;
	unsigned long threads;
	unsigned long long start;
};

/* proc(5): the command in parentheses may hold anything, so count the fields from its last ')'. */
static bool read_stat(uint32_t pid, struct stat_line *line)
{
	char path[32], text[1024], *field;
	int i;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	if (read_file(path, text, sizeof(text)) <= 0 || !(field = strrchr(text, ')')))
		return false;
	field += 2;
	line->state = *field;
	for (i = 3; i < 22; i++) {
		if (i == 20)
			line->threads = strtoul(field, NULL, 10);
		field = strchr(field, ' ');
		if (!field)
			return false;
		field++;
	}
	line->start = strtoull(field, NULL, 10);
	return true;
}

static ino_t own_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) ? 0 : st.st_ino;
}

/*
 * Is /proc that of our own pid namespace? A container may see the /proc of an outer one, in which our pid is another
 * process's. NSpid lists our pid in the namespace of /proc and in each one below it: one number says that it is our
 * own. Without NSpid (before Linux 4.1, or cut off behind very many groups) it has to do that /proc/self has our pid.
 * The first namespace needs no look, which takes 10 to 40 us: it has no outer one, and no "self" in the /proc of an
 * inner one.
 */
static bool proc_is_of(uint32_t pid, ino_t namespace)
{
	char text[4096], *at;

	if (namespace == MACHINE_PIDS)
		return true;
	if (read_file("/proc/self/status", text, sizeof(text)) <= 0)
		return false;
	at = strstr(text, "\nNSpid:\t");
	if (at)
		return strtoul(at + strlen("\nNSpid:\t"), &at, 10) == pid && *at == '\n';
	return read_file("/proc/self/stat", text, sizeof(text)) > 0 && strtoul(text, NULL, 10) == pid;
}

static uint64_t start_of(uint64_t identity)
{
	return identity >> PID_BITS & START_MASK;
}

uint64_t proc_self(void)
{
	uint32_t pid = (uint32_t)getpid();
	struct stat_line line;
	ino_t namespace = own_namespace();
	uint64_t start = proc_is_of(pid, namespace) && read_stat(pid, &line) ? line.start & START_MASK : 0;

	return (namespace ? max_u64(hash_mix(namespace) & 0x7fff, 1) : 0) << 48 | start << PID_BITS | pid;
}

static bool is_another(uint64_t identity, const struct stat_line *line)
{
	uint64_t start = start_of(identity);

	return start && (line->start & START_MASK) != start;
}

/* A zombie main thread whose other threads run on has state Z too, but more than one thread. */
static bool is_zombie(const struct stat_line *line)
{
	return (line->state == 'Z' && line->threads <= 1) || line->state == 'X';
}

int proc_is_dead(uint64_t identity, uint64_t self)
{
	bool has_proc = start_of(self) != 0, ended;
	uint32_t pid = PROC_PID(identity);
	struct stat_line line;
	int fd;

	if (PROC_NS(identity) != PROC_NS(self))
		return PROC_FOREIGN;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0 && errno == ESRCH)
		return PROC_DEAD;
	/* no pidfd here (old kernel, seccomp, no descriptor left): the signal and /proc tell less exactly */
	if (fd < 0) {
		if (kill((pid_t)pid, 0) && errno == ESRCH)
			return PROC_DEAD;
		return has_proc && read_stat(pid, &line) && (is_another(identity, &line) || is_zombie(&line))
		               ? PROC_DEAD
		               : PROC_ALIVE;
	}
	ended = poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
	close(fd);
	if (!ended && has_proc && read_stat(pid, &line))
		ended = is_another(identity, &line);
	return ended ? PROC_DEAD : PROC_ALIVE;
}

int proc_use_membarrier(void)
{
	return (int)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
}

/* When the library is loaded, mostly: once a process has threads the kernel takes some milliseconds over it. */
static __attribute__((constructor)) void use_membarrier_early(void)
{
	int kept = errno;

	proc_use_membarrier();
	errno = kept;
}

uint64_t proc_boot_id(void)
{
	char text[64];
	ssize_t n = read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	return n > 0 ? hash_bytes(text, (size_t)n, 0) : 0;
}

/* The file shows the offsets of the time namespace that our children will have. Between unshare and fork that is
 * another one than ours; then ours is told by its inode. */
uint64_t proc_clock_id(void)
{
	struct stat own, children;
	long long seconds;
	char text[256];
	long ns;

	if (stat("/proc/self/ns/time", &own))
		return 0;
	if (own.st_ino == MACHINE_TIME)
		return 0;
	if (stat("/proc/self/ns/time_for_children", &children) || own.st_ino != children.st_ino ||
	    read_file("/proc/self/timens_offsets", text, sizeof(text)) <= 0 ||
	    sscanf(text, "monotonic %lld %ld", &seconds, &ns) != 2)
		return hash_mix(own.st_ino) | 1;
	return seconds || ns ? hash_mix((uint64_t)seconds * 1000000000u + (uint64_t)ns) | 1 : 0;
}
