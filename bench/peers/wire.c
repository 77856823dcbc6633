/* SPDX-License-Identifier: MIT */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRIES 1000 /* of 10 ms */
#define ROOM (256u << 10)

struct wire {
	int fd;
	size_t from, to, out;
	char in[ROOM], put[ROOM];
};

/* It is what it is to be, or has ended: nobody has to wait for a server that isn't installed. */
static pid_t await_exec(pid_t pid)
{
	nanosleep(&(struct timespec){0, 20000000}, NULL);
	return pid < 0 || waitpid(pid, NULL, WNOHANG) ? -1 : pid;
}

pid_t wire_serve(const char *directory, const char *const argv[])
{
	pid_t parent = getpid(), pid = fork();
	char path[4096];
	int log;

	if (pid)
		return await_exec(pid);
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* nginx ends its workers then */
	snprintf(path, sizeof(path), "%s:/usr/sbin:/usr/local/sbin", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
	setenv("PATH", path, 1);
	log = chdir(directory) ? -1 : open("log", O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (log < 0 || getppid() != parent)
		_exit(1);
	dup2(log, 1);
	dup2(log, 2);
	execvp(argv[0], (char **)(uintptr_t)argv);
	_exit(127);
}

int wire_link(const char *directory, const char *name, const char *file)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return symlink(file, path);
}

struct wire *wire_open(const char *directory, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct wire *w = calloc(1, sizeof(*w));

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
	w->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	for (int i = 0; i < TRIES; i++) {
		if (!connect(w->fd, (struct sockaddr *)&address, sizeof(address)))
			return w;
		nanosleep(&(struct timespec){0, 10000000}, NULL);
	}
	fprintf(stderr, "bench: %s: %s\n", address.sun_path, strerror(errno));
	wire_close(w);
	return NULL;
}

void wire_close(struct wire *w)
{
	close(w->fd);
	free(w);
}

int wire_flush(struct wire *w)
{
	for (size_t done = 0; done < w->out;) {
		ssize_t n = send(w->fd, w->put + done, w->out - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return -1;
		done += n > 0 ? (size_t)n : 0;
	}
	w->out = 0;
	return 0;
}

void wire_put(struct wire *w, const void *data, size_t size)
{
	while (size) {
		size_t n = ROOM - w->out < size ? ROOM - w->out : size;

		memcpy(w->put + w->out, data, n);
		w->out += n;
		data = (const char *)data + n;
		size -= n;
		if (w->out == ROOM && wire_flush(w))
			return;
	}
}

void wire_print(struct wire *w, const char *format, ...)
{
	char text[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	wire_put(w, text, (size_t)n);
}

size_t wire_pending(const struct wire *w)
{
	return w->out;
}

static int more(struct wire *w)
{
	ssize_t n;

	if (w->from == w->to)
		w->from = w->to = 0;
	if (w->to == ROOM) {
		memmove(w->in, w->in + w->from, w->to - w->from);
		w->to -= w->from;
		w->from = 0;
	}
	if (w->to == ROOM)
		return -1;
	while ((n = recv(w->fd, w->in + w->to, ROOM - w->to, 0)) < 0 && errno == EINTR)
		;
	if (n <= 0)
		return -1;
	w->to += (size_t)n;
	return 0;
}

const char *wire_line(struct wire *w)
{
	size_t seen = 0;

	for (;;) {
		char *line = w->in + w->from, *end = memchr(line + seen, '\n', w->to - w->from - seen);

		if (end) {
			w->from += (size_t)(end - line) + 1;
			*end = 0;
			if (end > line && end[-1] == '\r')
				end[-1] = 0;
			return line;
		}
		seen = w->to - w->from;
		if (more(w))
			return NULL;
	}
}

int wire_take(struct wire *w, void *buffer, size_t size)
{
	while (size) {
		size_t n = w->to - w->from < size ? w->to - w->from : size;

		if (!n) {
			if (more(w))
				return -1;
			continue;
		}
		if (buffer) {
			memcpy(buffer, w->in + w->from, n);
			buffer = (char *)buffer + n;
		}
		w->from += n;
		size -= n;
	}
	return 0;
}
