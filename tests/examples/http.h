/* SPDX-License-Identifier: MIT */
/*
 * As much HTTP as the examples need, so that what they show is the cache: GET over loopback, one request for each
 * connection, messages of 16 KiB at most. Not an HTTP server to be copied.
 */
#ifndef EXAMPLE_HTTP_H
#define EXAMPLE_HTTP_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct http {
	size_t size;
	char data[16384];
};

/* What a request asks for, or the body of a response. */
struct part {
	const char *data;
	size_t size;
	int status; /* of a response */
};

/* Non-blocking sockets where `kind` is SOCK_NONBLOCK, else 0. -1: errno says why. */
static inline int http_listen(int kind)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | kind, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) || listen(fd, 1024) ||
	    getsockname(fd, (struct sockaddr *)&at, &size))
		return -1;
	printf("http://127.0.0.1:%d\n", ntohs(at.sin_port));
	fflush(stdout);
	return fd;
}

static inline int http_connect(unsigned port, int kind)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | kind, 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline int http_ask(int fd, const void *target, size_t size)
{
	char head[4096];
	int n = snprintf(head, sizeof(head), "GET %.*s HTTP/1.1\r\nHost: origin\r\n\r\n", (int)size,
	                 (const char *)target);

	return n < (int)sizeof(head) && send(fd, head, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -1;
}

/* A small answer fits into the buffer of a socket that nothing was written to, so this doesn't block. */
static inline void http_answer(int fd, int status, const void *body, size_t size)
{
	char text[sizeof(((struct http *)0)->data) + 256];
	int n = snprintf(text, 256, "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status,
	                 size);

	if (size > sizeof(text) - 256)
		return;
	if (size)
		memcpy(text + n, body, size);
	if (send(fd, text, (size_t)n + size, MSG_NOSIGNAL) < 0)
		perror("send"); /* it has left, most likely */
}

/* What has come: 1, or 0 if that is all there will be; -1: errno, EAGAIN of a non-blocking socket among them. */
static inline int http_read(int fd, struct http *in)
{
	ssize_t n = recv(fd, in->data + in->size, sizeof(in->data) - 1 - in->size, 0);

	if (n > 0)
		in->size += (size_t)n;
	in->data[in->size] = '\0';
	return n > 0 ? 1 : (int)n;
}

/* Nothing more will come, after that result of http_read(). */
static inline int http_is_over(int came)
{
	return came == 0 || (came < 0 && errno != EAGAIN);
}

/* The target of a request that is whole. */
static inline int http_request(const struct http *in, struct part *target)
{
	const char *end;

	if (!strstr(in->data, "\r\n\r\n") || strncmp(in->data, "GET ", 4))
		return 0;
	end = strchr(in->data + 4, ' ');
	if (!end || end == in->data + 4)
		return 0;
	*target = (struct part){.data = in->data + 4, .size = (size_t)(end - in->data - 4)};
	return 1;
}

/* The body of a response that is whole. */
static inline int http_response(const struct http *in, struct part *body)
{
	const char *end = strstr(in->data, "\r\n\r\n"), *length = strstr(in->data, "Content-Length: ");

	if (!end || !length || length > end || sscanf(in->data, "HTTP/1.1 %d", &body->status) != 1)
		return 0;
	body->data = end + 4;
	body->size = strtoul(length + 16, NULL, 10);
	return body->data + body->size <= in->data + in->size;
}

#endif
