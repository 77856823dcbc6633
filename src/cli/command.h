/* SPDX-License-Identifier: MIT */
/*
 * A command that a verb runs as its child, whose output it reads.
 *
 * Its standard input is /dev/null. It is in our process group, so a terminal's signals reach it without us; those that
 * are sent to us alone are passed on: INT, TERM, HUP, QUIT, but for those that were ignored when we began. From start
 * to end they are blocked here and read from a signalfd, and so is SIGCHLD; SIGPIPE is ignored here, not in the
 * command. When we are killed, the command gets SIGTERM.
 */
#ifndef SHOAL_CLI_COMMAND_H
#define SHOAL_CLI_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct command {
	pid_t pid;
	int streams[2]; /* its standard output and error, not blocking; -1: closed, or not ours */
	int signals;    /* readable: call command_signals() */
	bool ended;
	int status;     /* then: as a shell says it: 128 + n for signal n */
	int killer;     /* and the signal, or 0 */
	int told;       /* the last signal that was passed on, or 0 */
	sigset_t mask;  /* what it was before */
	struct sigaction pipe, child;
};

struct command_wish {
	char *const *argv;
	const char *variable; /* "NAME=VALUE" in its environment, or NULL */
	const sigset_t *mask; /* its signal mask; NULL: ours */
	bool both;            /* its standard error is read, too */
};

/* 0, or an errno: then `*found` says whether it was the command that couldn't be executed,
 * or something else that was short. */
int command_start(struct command *c, const struct command_wish *wish, bool *found);

void command_signals(struct command *c);

/* Ended by a signal that someone sent, rather than by what it did. */
bool command_was_stopped(const struct command *c);

/* What it has written: a size; 0: that stream has ended, and is closed; -1: nothing now. */
ssize_t command_read(struct command *c, int stream, void *buffer, size_t size);
void command_close(struct command *c, int stream);
bool command_has_more(const struct command *c); /* to be read at once */

/* After it has ended. */
void command_end(struct command *c);

/* A pipe that is closed on exec, none of whose ends is 0, 1 or 2, also if those are closed. 0,
 * or an errno and both -1. */
int command_pipe(int ends[2]);
void command_close_pipe(int ends[2]); /* those that aren't -1 */

/* In place of this process: with /dev/null as standard input. Returns the exit status if that fails,
 * after a message. */
int command_exec(char *const *argv);
int command_not_run(const char *name, int error);

#endif
