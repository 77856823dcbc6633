/* SPDX-License-Identifier: MIT */
/* GET /metrics over HTTP: listen.c by libmicrohttpd, or listen-none.c where it is not there. */
#ifndef SHOAL_CLI_LISTEN_H
#define SHOAL_CLI_LISTEN_H

#include "cli.h"

/* The text as it is now. SHOAL_OK, or an outcome: then what was written is the reason, for people. Called by one thread
 * at a time, which is not the one that calls listen_serve(). */
typedef int listen_text(FILE *to, void *arg);

/*
 * Serve until SIGTERM, SIGINT or SIGHUP. The address is PORT (of 127.0.0.1), HOST:PORT or [HOST]:PORT, in numbers; of
 * port 0 the system chooses one. Where it listens is said on standard error. Returns the exit status.
 */
int listen_serve(const struct call *call, const char *address, listen_text *text, void *arg);

#endif
