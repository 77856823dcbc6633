/* SPDX-License-Identifier: MIT */
/*
 * One non-blocking HTTP/1.1 connection. It knows what the demo server sends: a head with Content-Length, and a body.
 */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t client_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void client_init(struct client *client, int epoll_fd, unsigned port)
{
	memset(client, 0, sizeof(*client));
	client->fd = -1;
	client->epoll_fd = epoll_fd;
	client->address = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

void client_close(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	client->busy = 0;
}

static enum client_event lost(struct client *client)
{
	client_close(client);
	return CLIENT_LOST;
}

static int watch(struct client *client, int operation, int writing)
{
	struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = client};

	client->writing = writing;
	return epoll_ctl(client->epoll_fd, operation, client->fd, &event);
}

static int connect_now(struct client *client)
{
	int one = 1;

	client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (client->fd < 0)
		return -1;
	setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(client->fd, (struct sockaddr *)&client->address, sizeof(client->address)) && errno != EINPROGRESS)
		return -1;
	return watch(client, EPOLL_CTL_ADD, 1);
}

static enum client_event push(struct client *client)
{
	while (client->out_sent < client->out_size) {
		ssize_t n = send(client->fd, client->out + client->out_sent, client->out_size - client->out_sent,
		                 MSG_NOSIGNAL);

		if (n > 0)
			client->out_sent += (size_t)n;
		else if (errno == EAGAIN || errno == ENOTCONN)
			return client->writing || !watch(client, EPOLL_CTL_MOD, 1) ? CLIENT_PENDING : lost(client);
		else
			return lost(client);
	}
	if (client->writing && watch(client, EPOLL_CTL_MOD, 0))
		return lost(client);
	return CLIENT_PENDING;
}

enum client_event client_send(struct client *client, const char *method, const char *path)
{
	client->out_size =
		(size_t)snprintf(client->out, sizeof(client->out), "%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n",
	                         method, path, *method == 'P' ? "Content-Length: 0\r\n" : "");
	client->out_sent = client->head_size = client->text_size = 0;
	client->in_body = 0;
	client->busy = 1;
	client->sent_ns = client_now();
	if (client->fd < 0 && connect_now(client))
		return lost(client);
	return push(client);
}

static void take_body(struct client *client, const char *data, size_t size)
{
	size_t room = sizeof(client->text) - 1 - client->text_size;
	size_t n = size < room ? size : room;

	memcpy(client->text + client->text_size, data, n);
	client->text_size += n;
	client->text[client->text_size] = '\0';
	client->body_got += size;
}

/* Returns 0 when there is no whole head yet, -1 when it is none that we know. */
static int take_head(struct client *client)
{
	char *end, *length;

	client->head[client->head_size] = '\0';
	end = strstr(client->head, "\r\n\r\n");
	if (!end)
		return client->head_size + 1 < sizeof(client->head) ? 0 : -1;
	*end = '\0';
	length = strcasestr(client->head, "\r\nContent-Length:");
	if (sscanf(client->head, "HTTP/1.1 %d", &client->status) != 1 || !length)
		return -1;
	client->body_size = strtoul(length + 17, NULL, 10);
	client->body_got = 0;
	client->in_body = 1;
	end += 4;
	take_body(client, end, client->head_size - (size_t)(end - client->head));
	return 1;
}

static enum client_event pull(struct client *client)
{
	static char buffer[65536];
	ssize_t n;

	do {
		if (client->in_body)
			n = recv(client->fd, buffer, sizeof(buffer), 0);
		else
			n = recv(client->fd, client->head + client->head_size,
			         sizeof(client->head) - 1 - client->head_size, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return CLIENT_PENDING;
		if (n <= 0)
			return lost(client);
		if (client->in_body) {
			take_body(client, buffer, (size_t)n);
		} else {
			client->head_size += (size_t)n;
			if (take_head(client) < 0)
				return lost(client);
		}
	} while (!client->in_body || client->body_got < client->body_size);
	client->busy = 0;
	return CLIENT_ANSWER;
}

/* A connection that goes while nothing was asked is no loss: the next request makes another. */
static enum client_event idle(struct client *client)
{
	client_close(client);
	return CLIENT_PENDING;
}

enum client_event client_ready(struct client *client)
{
	if (!client->busy)
		return idle(client);
	if (client->out_sent < client->out_size) {
		enum client_event event = push(client);

		if (event != CLIENT_PENDING || client->out_sent < client->out_size)
			return event;
	}
	return pull(client);
}
