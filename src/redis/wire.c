/* SPDX-License-Identifier: MIT */
/* See wire.h. */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

uint64_t wire_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int system_error(struct wire_why *why, const char *what)
{
	int reason = errno;
	char text[80];

	snprintf(why->text, sizeof(why->text), "%s: %s", what, strerror_r(reason, text, sizeof(text)));
	errno = reason;
	return SHOAL_ERR_SYSTEM;
}

/* ---- sockets ----------------------------------------------------------------------------------------------- */

/* Until the socket can be read or written. */
static int ready(int fd, short events, uint64_t deadline, struct wire_why *why)
{
	struct pollfd p = {.fd = fd, .events = events};
	struct timespec left;
	uint64_t now;
	int n;

	do {
		now = wire_now();
		left = now >= deadline ? (struct timespec){0, 0}
		                       : (struct timespec){(time_t)((deadline - now) / 1000000000),
		                                           (long)((deadline - now) % 1000000000)};
		n = ppoll(&p, 1, &left, NULL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return system_error(why, "poll");
	if (!n)
		snprintf(why->text, sizeof(why->text), "no answer in time");
	return n ? SHOAL_OK : SHOAL_ERR_TIMEOUT;
}

static int connect_one(const struct sockaddr *to, socklen_t size, uint64_t deadline, int *fd, struct wire_why *why)
{
	int s = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0, r = SHOAL_OK, reason;
	socklen_t length = sizeof(error);

	if (s < 0)
		return system_error(why, "socket");
	if (connect(s, to, size)) {
		r = errno == EINPROGRESS ? ready(s, POLLOUT, deadline, why) : system_error(why, "connect");
		if (!r && !getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &length) && error) {
			errno = error;
			r = system_error(why, "connect");
		}
	}
	if (to->sa_family != AF_UNIX)
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	if (!r) {
		*fd = s;
		return SHOAL_OK;
	}
	reason = errno;
	close(s);
	errno = reason;
	return r;
}

static int connect_unix(const char *path, uint64_t deadline, int *fd, struct wire_why *why)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(to.sun_path)) {
		errno = ENAMETOOLONG;
		return system_error(why, "connect");
	}
	memcpy(to.sun_path, path, strlen(path) + 1);
	return connect_one((const struct sockaddr *)&to, sizeof(to), deadline, fd, why);
}

static int connect_host(const char *host, unsigned port, uint64_t deadline, int *fd, struct wire_why *why)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *all,
			*a;
	char service[16];
	int r;

	snprintf(service, sizeof(service), "%u", port);
	r = getaddrinfo(host, service, &hints, &all);
	if (r) {
		snprintf(why->text, sizeof(why->text), "%.60s: %s", host, gai_strerror(r));
		errno = r == EAI_SYSTEM ? errno : EHOSTUNREACH;
		return SHOAL_ERR_SYSTEM;
	}
	r = SHOAL_ERR_SYSTEM;
	for (a = all; a && r && r != SHOAL_ERR_TIMEOUT; a = a->ai_next)
		r = connect_one(a->ai_addr, a->ai_addrlen, deadline, fd, why);
	freeaddrinfo(all);
	return r;
}

static int send_all(struct wire *w, const char *data, size_t size, uint64_t deadline, struct wire_why *why)
{
	while (size) {
		ssize_t n = send(w->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? ready(w->fd, POLLOUT, deadline, why)
		                                                           : SHOAL_OK;

		if (r)
			return r;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return system_error(why, "send");
		n = n > 0 ? n : 0;
		data += n;
		size -= (size_t)n;
		w->sent += (uint64_t)n;
	}
	return SHOAL_OK;
}

/* Some bytes into the reader. */
static int receive(struct wire *w, uint64_t deadline, size_t *got, struct wire_why *why)
{
	char buffer[16384];
	int r = ready(w->fd, POLLIN, deadline, why);
	ssize_t n = r ? 0 : recv(w->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

	if (r)
		return r;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? SHOAL_OK : system_error(why, "recv");
	if (!n) {
		errno = ECONNRESET;
		return system_error(why, "recv");
	}
	w->received += (uint64_t)n;
	*got += (size_t)n;
	if (*got <= w->limit && redisReaderFeed(w->reader, buffer, (size_t)n) == REDIS_OK)
		return SHOAL_OK;
	snprintf(why->text, sizeof(why->text), "a reply that is too long");
	return SHOAL_ERR_CORRUPT;
}

/* ---- commands ---------------------------------------------------------------------------------------------- */

void wire_add(struct wire_command *c, const void *data, size_t size)
{
	assert(c->n < WIRE_ARGS);
	c->args[c->n] = data;
	c->sizes[c->n++] = size;
}

void wire_add_text(struct wire_command *c, const char *text)
{
	wire_add(c, text, strlen(text));
}

/* What the server says no with. */
static int refusal(const redisReply *reply, struct wire_why *why)
{
	static const char *const rights[] = {"NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password"};

	snprintf(why->text, sizeof(why->text), "%.*s", (int)reply->len, reply->str);
	for (size_t i = 0; i < sizeof(rights) / sizeof(*rights); i++)
		if (!strncmp(reply->str, rights[i], strlen(rights[i])))
			return SHOAL_ERR_PERMISSION;
	return SHOAL_ERR_INVALID;
}

static int next_reply(struct wire *w, uint64_t deadline, redisReply **reply, struct wire_why *why)
{
	size_t got = 0;
	void *next = NULL;
	int r;

	while (redisReaderGetReply(w->reader, &next) == REDIS_OK) {
		if (next) {
			*reply = next;
			return SHOAL_OK;
		}
		r = receive(w, deadline, &got, why);
		if (r)
			return r;
	}
	snprintf(why->text, sizeof(why->text), "no reply of Redis: %.100s", w->reader->errstr);
	return SHOAL_ERR_CORRUPT;
}

/* The server's refusals are replies like others. */
static int ask(struct wire *w, const struct wire_command *c, uint64_t deadline, redisReply **reply,
               struct wire_why *why)
{
	char *text = NULL;
	int size = redisFormatCommandArgv(&text, c->n, (const char **)(uintptr_t)c->args, c->sizes), r;

	if (size < 0) {
		errno = ENOMEM;
		return system_error(why, "a command");
	}
	r = send_all(w, text, (size_t)size, deadline, why);
	free(text);
	return r ? r : next_reply(w, deadline, reply, why);
}

/* ... and here they are errors. */
static int call(struct wire *w, const struct wire_command *c, uint64_t deadline, redisReply **reply,
                struct wire_why *why)
{
	redisReply *got;
	int r = ask(w, c, deadline, &got, why);

	if (!r && got->type == REDIS_REPLY_ERROR) {
		r = refusal(got, why);
		freeReplyObject(got);
	}
	if (!r)
		*reply = got;
	return r;
}

int wire_script(struct wire *w, enum script script, const struct wire_command *keys, uint64_t deadline,
                redisReply **reply, struct wire_why *why)
{
	for (int whole = 0; whole < 2; whole++) {
		struct wire_command c = {0};
		redisReply *got;
		int r;

		wire_add_text(&c, whole ? "EVAL" : "EVALSHA");
		wire_add_text(&c, whole ? script_text[script] : w->sha[script]);
		wire_add_text(&c, "2");
		for (int i = 0; i < keys->n; i++)
			wire_add(&c, keys->args[i], keys->sizes[i]);
		r = ask(w, &c, deadline, &got, why);
		if (r)
			return r;
		if (got->type != REDIS_REPLY_ERROR) {
			*reply = got;
			return SHOAL_OK;
		}
		if (whole || strncmp(got->str, "NOSCRIPT", 8)) /* else SCRIPT FLUSH: EVAL has it loaded again */
			r = refusal(got, why);
		freeReplyObject(got);
		if (r)
			return r;
	}
	return SHOAL_ERR_INVALID;
}

/* ---- open and close ---------------------------------------------------------------------------------------- */

static int simple(struct wire *w, const struct wire_command *c, uint64_t deadline, struct wire_why *why)
{
	redisReply *reply;
	int r = call(w, c, deadline, &reply, why);

	if (!r)
		freeReplyObject(reply);
	return r;
}

static int log_in(struct wire *w, const struct wire_address *a, uint64_t deadline, struct wire_why *why)
{
	struct wire_command auth = {0}, select = {0};
	char number[16];
	int r = SHOAL_OK;

	if (a->password) {
		wire_add_text(&auth, "AUTH");
		if (a->user)
			wire_add_text(&auth, a->user);
		wire_add_text(&auth, a->password);
		r = simple(w, &auth, deadline, why);
	}
	if (!r && a->database) {
		snprintf(number, sizeof(number), "%u", a->database);
		wire_add_text(&select, "SELECT");
		wire_add_text(&select, number);
		r = simple(w, &select, deadline, why);
	}
	return r;
}

static int load_scripts(struct wire *w, uint64_t deadline, struct wire_why *why)
{
	for (int i = 0; i < SCRIPTS; i++) {
		struct wire_command c = {0};
		redisReply *reply;
		int r;

		wire_add_text(&c, "SCRIPT");
		wire_add_text(&c, "LOAD");
		wire_add_text(&c, script_text[i]);
		r = call(w, &c, deadline, &reply, why);
		if (r)
			return r;
		if (reply->type == REDIS_REPLY_STRING && (size_t)reply->len < sizeof(w->sha[i]))
			memcpy(w->sha[i], reply->str, (size_t)reply->len + 1);
		freeReplyObject(reply);
	}
	return SHOAL_OK;
}

int wire_open(const struct wire_address *a, size_t limit, uint64_t deadline, struct wire **wire, struct wire_why *why)
{
	struct wire *w = calloc(1, sizeof(*w));
	int r;

	if (!w || !(w->reader = redisReaderCreate())) {
		free(w);
		errno = ENOMEM;
		return system_error(why, "a connection");
	}
	w->fd = -1;
	w->pid = getpid();
	w->limit = limit;
	r = a->socket ? connect_unix(a->socket, deadline, &w->fd, why)
	              : connect_host(a->host, a->port, deadline, &w->fd, why);
	if (!r)
		r = log_in(w, a, deadline, why);
	if (!r)
		r = load_scripts(w, deadline, why);
	if (r) {
		wire_close(w);
		return r;
	}
	*wire = w;
	return SHOAL_OK;
}

void wire_close(struct wire *w)
{
	int reason = errno;

	if (!w)
		return;
	if (w->fd >= 0)
		close(w->fd);
	redisReaderFree(w->reader);
	free(w);
	errno = reason;
}
