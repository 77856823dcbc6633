/* SPDX-License-Identifier: MIT */
/* A server of the peer's own on a unix socket, and a connection to it: what is sent is gathered,
 * what comes is buffered. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stddef.h>
#include <sys/types.h>

struct wire;

/* started in that directory; ends with us; its log is there */
pid_t wire_serve(const char *directory, const char *const argv[]);
int wire_link(const char *directory, const char *name, const char *file); /* its configuration, where it looks for it */
struct wire *wire_open(const char *directory, const char *name); /* waits until somebody listens; NULL: nobody */
void wire_close(struct wire *w);

void wire_put(struct wire *w, const void *data, size_t size);
void wire_print(struct wire *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
int wire_flush(struct wire *w);
size_t wire_pending(const struct wire *w); /* put and not flushed */

const char *wire_line(struct wire *w);                  /* the next line without its CR LF; NULL: the end */
int wire_take(struct wire *w, void *buffer, size_t size); /* buffer NULL: passed over */

#endif
