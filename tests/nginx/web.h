/* SPDX-License-Identifier: MIT */
/*
 * A client of HTTP/1.1 by plain sockets, one request at a time and connection, as slow or as rude as a test wants it.
 * Nothing waits longer than PATIENCE_S.
 */
#ifndef SHOAL_TEST_WEB_H
#define SHOAL_TEST_WEB_H

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <strings.h>
#include <sys/socket.h>

#include "testing.h"

struct response {
	int status;   /* 0: the connection ended before the response did */
	char *head, *body;
	size_t size;
};

struct web;

/* What is between it and its socket, if something is. */
struct web_layer {
	ssize_t (*recv)(struct web *w, void *data, size_t size);
	ssize_t (*send)(const struct web *w, const void *data, size_t size);
	void (*end)(struct web *w);
};

struct web {
	int fd;
	const struct web_layer *layer; /* NULL: nothing */
	void *session;                 /* the layer's */
	char *data;                    /* read and not used */
	size_t size, capacity;
};

static inline struct web web_connect(unsigned port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct timeval patience = {.tv_sec = PATIENCE_S};
	struct web w = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(w.fd >= 0);
	assert_int_equal(setsockopt(w.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(connect(w.fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return w;
}

static inline void web_close(struct web *w)
{
	if (w->layer)
		w->layer->end(w);
	close(w->fd);
	free(w->data);
	*w = (struct web){.fd = -1};
}

static inline void web_send(const struct web *w, const char *data, size_t size)
{
	ssize_t n;

	while (size && (n = w->layer ? w->layer->send(w, data, size) : send(w->fd, data, size, MSG_NOSIGNAL)) > 0) {
		data += n;
		size -= (size_t)n;
	}
}

/* `more`: header lines, each with its CR LF. */
static inline void web_ask(const struct web *w, const char *method, const char *target, const char *more)
{
	char request[4096];
	int n = snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: shop\r\n%s\r\n", method, target,
	                 more ? more : "");

	assert_true(n > 0 && (size_t)n < sizeof(request));
	web_send(w, request, (size_t)n);
}

static inline bool web_more(struct web *w)
{
	ssize_t n;

	if (w->size == w->capacity) {
		w->capacity = w->capacity ? 2 * w->capacity : 8192;
		w->data = realloc(w->data, w->capacity + 1);
		assert_non_null(w->data);
	}
	n = w->layer ? w->layer->recv(w, w->data + w->size, w->capacity - w->size)
		     : recv(w->fd, w->data + w->size, w->capacity - w->size, 0);
	if (n <= 0) {
		if (n < 0 && errno == EAGAIN)
			fail_msg("no answer within %d s", PATIENCE_S);
		return false;
	}
	w->size += (size_t)n;
	w->data[w->size] = '\0';
	return true;
}

/* The first n bytes of what was read, out of it. */
static inline char *web_take(struct web *w, size_t n)
{
	char *taken = malloc(n + 1);

	assert_non_null(taken);
	if (n)
		memcpy(taken, w->data, n);
	taken[n] = '\0';
	w->size -= n;
	if (w->size)
		memmove(w->data, w->data + n, w->size);
	if (w->data)
		w->data[w->size] = '\0';
	return taken;
}

static inline bool web_need(struct web *w, size_t n)
{
	while (w->size < n)
		if (!web_more(w))
			return false;
	return true;
}

static inline char *web_line(struct web *w)
{
	const char *end;

	while (!w->size || !(end = strstr(w->data, "\r\n")))
		if (!web_more(w))
			return NULL;
	return web_take(w, (size_t)(end - w->data) + 2);
}

/* Of this name, or NULL; static storage. */
static inline const char *web_header(const struct response *r, const char *name)
{
	static char value[1024];
	size_t length = strlen(name);
	const char *line, *end;

	for (line = r->head ? strstr(r->head, "\r\n") : NULL; line && line[2]; line = strstr(line + 2, "\r\n")) {
		if (strncasecmp(line + 2, name, length) || line[2 + length] != ':')
			continue;
		line += 2 + length + 1;
		line += strspn(line, " ");
		end = strstr(line, "\r\n");
		snprintf(value, sizeof(value), "%.*s", (int)(end - line), line);
		return value;
	}
	return NULL;
}

static inline bool web_chunks(struct web *w, struct response *r)
{
	for (;;) {
		char *line = web_line(w), *chunk;
		size_t n = line ? strtoul(line, NULL, 16) : 0;

		if (!line)
			return false;
		free(line);
		if (!web_need(w, n + 2))
			return false;
		chunk = web_take(w, n + 2);
		r->body = realloc(r->body, r->size + n + 1);
		assert_non_null(r->body);
		memcpy(r->body + r->size, chunk, n);
		r->size += n;
		r->body[r->size] = '\0';
		free(chunk);
		if (!n)
			return true;
	}
}

static inline bool web_body(struct web *w, struct response *r, bool head)
{
	const char *length;

	r->body = calloc(1, 1);
	if (head || r->status == 204 || r->status == 304)
		return true;
	if (web_header(r, "Transfer-Encoding"))
		return web_chunks(w, r);
	length = web_header(r, "Content-Length");
	if (!length || !web_need(w, strtoul(length, NULL, 10)))
		return false;
	free(r->body);
	r->size = strtoul(web_header(r, "Content-Length"), NULL, 10);
	r->body = web_take(w, r->size);
	return true;
}

static inline bool web_head(struct web *w, struct response *r)
{
	const char *end;

	while (!w->size || !(end = strstr(w->data, "\r\n\r\n")))
		if (!web_more(w))
			return false;
	r->head = web_take(w, (size_t)(end - w->data) + 4);
	return sscanf(r->head, "HTTP/1.1 %d", &r->status) == 1;
}

static inline struct response web_read_any(struct web *w, bool head)
{
	struct response r = {0};

	if (!web_head(w, &r) || !web_body(w, &r, head))
		r.status = 0;
	return r;
}

/* That after hints (103), if there are some. */
static inline struct response web_read_final(struct web *w)
{
	struct response r = {0};

	do
		free(r.head);
	while (web_head(w, &r) && r.status == 103);
	if (!r.head || !web_body(w, &r, false))
		r.status = 0;
	return r;
}

static inline struct response web_read(struct web *w)
{
	return web_read_any(w, false);
}

static inline void web_free(struct response *r)
{
	free(r->head);
	free(r->body);
	*r = (struct response){0};
}

static inline struct response web_do(unsigned port, const char *method, const char *target, const char *more)
{
	struct web w = web_connect(port);
	struct response r;

	web_ask(&w, method, target, more);
	r = web_read_any(&w, !strcmp(method, "HEAD"));
	web_close(&w);
	return r;
}

static inline struct response web_get(unsigned port, const char *target)
{
	return web_do(port, "GET", target, NULL);
}

#endif
