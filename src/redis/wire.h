/* SPDX-License-Identifier: MIT */
/*
 * Connections to Redis. hiredis spells the commands and reads the replies; the socket is ours, so that each step ends
 * by one deadline and a server that goes away raises no signal.
 *
 * Nothing here may be interrupted by cancellation: the callers see to that.
 */
#ifndef SHOAL_REDIS_WIRE_H
#define SHOAL_REDIS_WIRE_H

#include <hiredis/hiredis.h>
#include <stdint.h>
#include <sys/types.h>

#include <shoal.h>

#include "script.h"

#define WIRE_ARGS 12

struct wire_address {
	char *socket, *host, *user, *password;
	unsigned port, database;
};

struct wire {
	int fd;
	pid_t pid; /* whose connection it is */
	int used;  /* it has served before: its server may have gone meanwhile */
	redisReader *reader;
	char sha[SCRIPTS][41];   /* under which the server knows the scripts */
	size_t limit;            /* of a reply's bytes; more is an error */
	uint64_t sent, received; /* bytes, to be taken away by the caller */
};

struct wire_command {
	int n;
	const char *args[WIRE_ARGS];
	size_t sizes[WIRE_ARGS];
};

uint64_t wire_now(void); /* nanoseconds, CLOCK_MONOTONIC */

void wire_add(struct wire_command *command, const void *data, size_t size);
void wire_add_text(struct wire_command *command, const char *text);

/*
 * All of these end by `deadline`, and return SHOAL_OK or TIMEOUT, SYSTEM (errno), CORRUPT (no reply of Redis, or too
 * long a one), PERMISSION or INVALID (the server's own word); `why` gets it as text.
 */
struct wire_why {
	char text[160];
};

int wire_open(const struct wire_address *address, size_t limit, uint64_t deadline, struct wire **wire,
              struct wire_why *why);

/* A script by its name. `command` has room for three more and begins with the keys, two of them. */
int wire_script(struct wire *wire, enum script script, const struct wire_command *command, uint64_t deadline,
                redisReply **reply, struct wire_why *why);

/* Also a parent's, in a child of fork: that leaves the parent's alone. NULL is harmless. */
void wire_close(struct wire *wire);

#endif
