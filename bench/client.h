/* SPDX-License-Identifier: MIT */
/*
 * One non-blocking HTTP/1.1 connection with at most one request on its way. It connects by itself when there is
 * something to send, so a connection that was lost needs only the next request.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

enum client_event {
	CLIENT_PENDING,
	CLIENT_ANSWER, /* status, text and latency are there */
	CLIENT_LOST,   /* the connection went away with a request on it (or was refused) */
};

struct client {
	int fd, epoll_fd, writing; /* fd -1: not connected */
	struct sockaddr_in address;
	char out[256], head[2048];
	size_t out_size, out_sent, head_size;
	size_t body_size, body_got;
	int busy, in_body;
	int status;
	char text[1024]; /* the beginning of the body, a string */
	size_t text_size;
	uint64_t sent_ns; /* when the request was made */
	uint32_t tag;     /* the caller's */
};

void client_init(struct client *client, int epoll_fd, unsigned port);

/* `method` and `path`: no answer may be outstanding. */
enum client_event client_send(struct client *client, const char *method, const char *path);

/* To be called when epoll says that the fd is ready; epoll's data.ptr is the client. */
enum client_event client_ready(struct client *client);

void client_close(struct client *client);
uint64_t client_now(void); /* ns */

#endif
