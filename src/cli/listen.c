/* SPDX-License-Identifier: MIT */
#include "listen.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS 16 /* at once */
#define SECONDS 10     /* a connection that says nothing */

/* ---- the socket -------------------------------------------------------------------------------------------- */

/* "[::1]:9123", "127.0.0.1:9123", "9123" as host and port. False: none of them. */
static bool split(const char *address, char host[64], char port[8])
{
	const char *colon = strrchr(address, ':'), *begin = address, *end = colon;

	if (!colon) {
		begin = "127.0.0.1";
		end = begin + strlen(begin);
	} else if (*address == '[') {
		begin++;
		end--;
		if (end < begin || *end != ']')
			return false;
	} else if (memchr(address, ':', (size_t)(colon - address))) {
		return false; /* without brackets, whose is the last one? */
	}
	if (end == begin || end - begin >= 64)
		return false;
	snprintf(host, 64, "%.*s", (int)(end - begin), begin);
	snprintf(port, 8, "%s", colon ? colon + 1 : address);
	return *port && strlen(port) < 6 && strspn(port, "0123456789") == strlen(port) && atoi(port) < 65536;
}

static int open_socket(const struct addrinfo *where)
{
	int fd = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, error;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, where->ai_addr, where->ai_addrlen) && !listen(fd, CONNECTIONS))
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

static int listening(const struct call *call, const char *address, int *fd)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM},
			*where;
	char host[64], port[8];
	int error;

	if (!split(address, host, port) || getaddrinfo(host, port, &hints, &where))
		return cli_usage(call, "--listen: '%s' is no address: PORT, or HOST:PORT or [HOST]:PORT in numbers",
		                 address);
	*fd = open_socket(where);
	error = errno;
	freeaddrinfo(where);
	if (*fd >= 0)
		return EXIT_DONE;
	cli_error(call, "--listen %s: %s", address, strerror(error));
	if (error == EADDRINUSE)
		fputs("another program listens there: choose another port, or 0 for any\n", stderr);
	return EXIT_FAILED;
}

static void say_where(const struct call *call, int fd)
{
	struct sockaddr_storage at = {0};
	socklen_t size = sizeof(at);
	char host[64] = "", port[8] = "";
	bool six;

	getsockname(fd, (struct sockaddr *)&at, &size);
	getnameinfo((struct sockaddr *)&at, size, host, sizeof(host), port, sizeof(port),
	            NI_NUMERICHOST | NI_NUMERICSERV);
	six = at.ss_family == AF_INET6;
	fprintf(stderr, "shoal %s: http://%s%s%s:%s/metrics\n", call->verb->name, six ? "[" : "", host, six ? "]" : "",
	        port);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

struct server {
	listen_text *text;
	void *arg;
};

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type, char *text, size_t size,
                              enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(size, text, mode);
	enum MHD_Result r;

	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	r = MHD_queue_response(c, status, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result answer_text(struct MHD_Connection *c, unsigned status, const char *text)
{
	return answer(c, status, "text/plain; charset=utf-8", (char *)(uintptr_t)text, strlen(text),
	              MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result answer_metrics(struct MHD_Connection *c, const struct server *s)
{
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);
	int outcome;

	if (!to)
		return MHD_NO;
	outcome = s->text(to, s->arg);
	if (fclose(to)) {
		free(text);
		return MHD_NO;
	}
	return answer(c, outcome == SHOAL_OK ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
	              outcome == SHOAL_OK ? "text/plain; version=0.0.4; charset=utf-8" : "text/plain; charset=utf-8",
	              text, size, MHD_RESPMEM_MUST_FREE);
}

/* Called once with the request's head, and then without a body. */
static enum MHD_Result asked(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *body, size_t *body_size, void **seen)
{
	(void)version, (void)body, (void)body_size;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET /metrics\n");
	if (!*seen) {
		*seen = c;
		return MHD_YES;
	}
	if (strcmp(url, "/metrics") != 0)
		return answer_text(c, MHD_HTTP_NOT_FOUND, "it is at /metrics\n");
	return answer_metrics(c, arg);
}

/* ---- the server -------------------------------------------------------------------------------------------- */

int listen_serve(const struct call *call, const char *address, listen_text *text, void *arg)
{
	struct server server = {text, arg};
	struct MHD_Daemon *daemon;
	int fd = -1, status = listening(call, address, &fd), signal;
	sigset_t ends;

	if (status)
		return status;
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &ends, NULL); /* before there is a thread that could take them */
	daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO, 0, NULL, NULL, asked, &server,
	                          MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
	                          MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SECONDS, MHD_OPTION_END);
	if (!daemon) {
		cli_error(call, "--listen %s: the server can not be started: %s", address, strerror(errno));
		close(fd);
		return EXIT_FAILED;
	}
	say_where(call, fd);
	while (sigwait(&ends, &signal))
		;
	MHD_stop_daemon(daemon); /* and closes fd */
	return EXIT_DONE;
}
