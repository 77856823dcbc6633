/* SPDX-License-Identifier: MIT */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

#define COUNT(array) (sizeof(array) / sizeof(array[0]))

/* ---- start ------------------------------------------------------------------------------------------------- */

static void block(struct command *c)
{
	struct sigaction now, plain = {.sa_handler = SIG_DFL}, ignored = {.sa_handler = SIG_IGN};
	sigset_t set;
	size_t i;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (i = 0; i < COUNT(passed_on); i++) /* a blocked signal would come in spite of being ignored */
		if (!sigaction(passed_on[i], NULL, &now) && now.sa_handler != SIG_IGN)
			sigaddset(&set, passed_on[i]);
	sigprocmask(SIG_BLOCK, &set, &c->mask);
	sigaction(SIGCHLD, &plain, &c->child);
	sigaction(SIGPIPE, &ignored, &c->pipe);
	c->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void unblock(const struct command *c)
{
	sigaction(SIGPIPE, &c->pipe, NULL);
	sigaction(SIGCHLD, &c->child, NULL);
	sigprocmask(SIG_SETMASK, &c->mask, NULL);
}

static bool read_nothing(void)
{
	int null = open("/dev/null", O_RDONLY);

	if (null < 0)
		return false;
	if (null != STDIN_FILENO) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	return true;
}

static void become(struct command *c, const struct command_wish *wish, const int pipes[3], pid_t parent)
{
	int error;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(127);
	if (read_nothing() && dup2(pipes[0], STDOUT_FILENO) >= 0 &&
	    (pipes[1] < 0 || dup2(pipes[1], STDERR_FILENO) >= 0)) {
		if (wish->variable)
			putenv((char *)wish->variable);
		if (wish->mask)
			c->mask = *wish->mask;
		unblock(c);
		execvp(wish->argv[0], wish->argv);
	}
	error = errno;
	if (write(pipes[2], &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

int command_pipe(int ends[2])
{
	int i, up;

	if (pipe2(ends, O_CLOEXEC)) {
		ends[0] = ends[1] = -1;
		return errno;
	}
	for (i = 0; i < 2; i++) {
		if (ends[i] > STDERR_FILENO)
			continue;
		up = fcntl(ends[i], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		close(ends[i]);
		ends[i] = up;
	}
	return ends[0] >= 0 && ends[1] >= 0 ? 0 : errno;
}

void command_close_pipe(int ends[2])
{
	int i;

	for (i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
	ends[0] = ends[1] = -1;
}

/* 0, or the errno with which execution failed, which is the child's last word. */
static int read_error(int fd)
{
	int error = 0;
	ssize_t n;

	do
		n = read(fd, &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	return n == sizeof(error) ? error : 0;
}

static int launch(struct command *c, const struct command_wish *wish, int pipes[3][2], bool *found)
{
	const int theirs[3] = {pipes[0][1], pipes[1][1], pipes[2][1]};
	pid_t parent = getpid();
	int error, i;

	fflush(NULL);
	c->pid = fork();
	if (c->pid < 0)
		return errno;
	if (!c->pid)
		become(c, wish, theirs, parent);
	close(pipes[2][1]);
	pipes[2][1] = -1;
	error = read_error(pipes[2][0]);
	*found = !error;
	if (error) {
		waitpid(c->pid, NULL, 0);
		return error;
	}
	for (i = 0; i < 2; i++) {
		c->streams[i] = pipes[i][0];
		pipes[i][0] = -1;
		if (c->streams[i] >= 0)
			fcntl(c->streams[i], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

int command_start(struct command *c, const struct command_wish *wish, bool *found)
{
	int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, error, i;

	*c = (struct command){.streams = {-1, -1}, .signals = -1};
	*found = true;
	block(c);
	error = c->signals < 0 ? errno : command_pipe(pipes[0]);
	if (!error && wish->both)
		error = command_pipe(pipes[1]);
	if (!error)
		error = command_pipe(pipes[2]);
	if (!error)
		error = launch(c, wish, pipes, found);
	for (i = 0; i < 3; i++)
		command_close_pipe(pipes[i]);
	if (error)
		command_end(c);
	return error;
}

/* ---- while it runs ----------------------------------------------------------------------------------------- */

static void reap(struct command *c)
{
	int status;

	if (c->ended || waitpid(c->pid, &status, WNOHANG) != c->pid)
		return;
	c->ended = true;
	c->killer = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	c->status = c->killer ? 128 + c->killer : WEXITSTATUS(status);
}

void command_signals(struct command *c)
{
	struct signalfd_siginfo info;

	while (read(c->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		c->told = (int)info.ssi_signo;
		if (info.ssi_code != SI_KERNEL && !c->ended) /* a terminal's reach it, too */
			kill(c->pid, c->told);
	}
	reap(c);
}

bool command_was_stopped(const struct command *c)
{
	size_t i;

	for (i = 0; i < COUNT(passed_on); i++)
		if (c->killer == passed_on[i])
			return true;
	return c->killer == SIGKILL;
}

ssize_t command_read(struct command *c, int stream, void *buffer, size_t size)
{
	ssize_t n;

	if (c->streams[stream] < 0)
		return 0;
	do
		n = read(c->streams[stream], buffer, size);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return -1;
	if (n > 0)
		return n;
	command_close(c, stream);
	return 0;
}

void command_close(struct command *c, int stream)
{
	if (c->streams[stream] >= 0)
		close(c->streams[stream]);
	c->streams[stream] = -1;
}

bool command_has_more(const struct command *c)
{
	struct pollfd fds[2] = {{c->streams[0], POLLIN, 0}, {c->streams[1], POLLIN, 0}};

	return poll(fds, 2, 0) > 0 && ((fds[0].revents | fds[1].revents) & POLLIN);
}

void command_end(struct command *c)
{
	command_close(c, 0);
	command_close(c, 1);
	if (c->signals >= 0)
		close(c->signals);
	c->signals = -1;
	unblock(c);
}

/* ---- without us -------------------------------------------------------------------------------------------- */

int command_not_run(const char *name, int error)
{
	fprintf(stderr, "shoal: %s: %s\n", name, strerror(error));
	return error == ENOENT ? 127 : 126;
}

int command_exec(char *const *argv)
{
	if (read_nothing())
		execvp(argv[0], argv);
	return command_not_run(argv[0], errno);
}
