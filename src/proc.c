/* SPDX-License-Identifier: MIT */
/* Process identity and death: see proc.h. */
#include <errno.h>
#include <fcntl.h>
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

static uint64_t own_namespace(void)
{
	struct stat st;
	uint64_t ns;

	if (stat("/proc/self/ns/pid", &st))
		return 0;
	ns = hash_mix(st.st_ino) & 0xffff;
	return ns == PROC_NS_UNLOCKED ? 1 : ns;
}

uint64_t proc_self(void)
{
	uint32_t pid = (uint32_t)getpid();
	struct stat_line line;
	uint64_t start = read_stat(pid, &line) ? line.start & START_MASK : 0;

	return own_namespace() << PROC_NS_SHIFT | start << PID_BITS | pid;
}

static bool is_another(uint64_t identity, const struct stat_line *line)
{
	uint64_t start = identity >> PID_BITS & START_MASK;

	return start && (line->start & START_MASK) != start;
}

/* A zombie main thread whose other threads run on has state Z too, but more than one thread. */
static bool is_zombie(const struct stat_line *line)
{
	return (line->state == 'Z' && line->threads <= 1) || line->state == 'X';
}

int proc_is_dead(uint64_t identity, uint64_t self)
{
	uint32_t pid = PROC_PID(identity);
	struct stat_line line;
	bool ended;
	int fd;

	if (identity >> PROC_NS_SHIFT != self >> PROC_NS_SHIFT)
		return PROC_FOREIGN;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0 && errno == ESRCH)
		return PROC_DEAD;
	if (fd < 0) { /* no pidfd here (old kernel, seccomp, no descriptor left): the signal and /proc tell less exactly */
		if (kill((pid_t)pid, 0) && errno == ESRCH)
			return PROC_DEAD;
		return read_stat(pid, &line) && (is_another(identity, &line) || is_zombie(&line)) ? PROC_DEAD : PROC_ALIVE;
	}
	ended = poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
	close(fd);
	if (!ended && read_stat(pid, &line))
		ended = is_another(identity, &line);
	return ended ? PROC_DEAD : PROC_ALIVE;
}

uint64_t proc_boot_id(void)
{
	char text[64];
	ssize_t n = read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	return n > 0 ? hash_bytes(text, (size_t)n, 0) : 0;
}
