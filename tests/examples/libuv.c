/* SPDX-License-Identifier: MIT */
/*
 * The same server as epoll.c, in libuv: shoal's descriptor is one uv_poll_t. Both may share a cache:
 * they ask for the same keys.
 *
 *   usage: SHOAL_CACHE=NAME libuv ORIGIN-PORT        it prints its address
 */
#define _GNU_SOURCE /* accept4 */
#include <shoal.h>
#include <uv.h>

#include "http.h"

struct client {
	uv_poll_t poll; /* first: its address is the client's */
	int fd;
	struct http in;
	struct part target;
	struct shoal_load *load; /* that it waits for */
	struct origin *origin;   /* that is asked for it */
};

/* A request to the origin. It belongs to the load, not to the client that caused it. */
struct origin {
	uv_poll_t poll;
	int fd;
	struct http in;
	char *target;
	struct shoal_load *load;
	struct client *client; /* NULL: it has left, or was answered with the old value */
};

static unsigned origin_port;
static struct shoal *cache;
static struct shoal_keyspace *pages;

static void client_free(uv_handle_t *handle)
{
	struct client *c = (struct client *)handle;

	close(c->fd);
	free(c);
}

static void client_end(struct client *c)
{
	shoal_load_cancel(c->load);
	c->load = NULL;
	if (c->origin)
		c->origin->client = NULL;
	uv_close((uv_handle_t *)&c->poll, client_free);
}

static void client_answer(struct client *c, int status, const void *body, size_t size)
{
	http_answer(c->fd, status, body, size);
	client_end(c);
}

/* ---- the origin -------------------------------------------------------------------------------------------- */

static void origin_free(uv_handle_t *handle)
{
	struct origin *o = (struct origin *)handle;

	close(o->fd);
	free(o->target);
	free(o);
}

static void origin_end(struct origin *o, int status, const void *body, size_t size)
{
	if (status == 200)
		shoal_load_publish(o->load, body, size);
	else
		shoal_load_fail(o->load, status);
	if (o->client) {
		o->client->origin = NULL;
		client_answer(o->client, status, body, size);
	}
	uv_close((uv_handle_t *)&o->poll, origin_free);
}

static void origin_answers(uv_poll_t *poll, int status, int events)
{
	struct origin *o = (struct origin *)poll;
	struct part body;
	int came = http_read(o->fd, &o->in);

	if (came > 0 && http_response(&o->in, &body))
		origin_end(o, body.status, body.data, body.size);
	else if (http_is_over(came))
		origin_end(o, 502, NULL, 0);
}

static void origin_connected(uv_poll_t *poll, int status, int events)
{
	struct origin *o = (struct origin *)poll;

	if (status < 0 || http_ask(o->fd, o->target, strlen(o->target)))
		origin_end(o, 502, NULL, 0);
	else
		uv_poll_start(poll, UV_READABLE, origin_answers);
}

static void origin_ask(struct client *c, struct part target, struct shoal_load *load)
{
	int fd = http_connect(origin_port, SOCK_NONBLOCK);
	struct origin *o = calloc(1, sizeof(*o));
	char *copy = strndup(target.data, target.size);

	if (fd < 0 || !o || !copy) {
		shoal_load_fail(load, 502);
		if (c)
			client_answer(c, 502, NULL, 0);
		close(fd);
		free(o);
		free(copy);
		return;
	}
	*o = (struct origin){.fd = fd, .target = copy, .load = load, .client = c};
	if (c)
		c->origin = o;
	uv_poll_init(uv_default_loop(), &o->poll, fd);
	uv_poll_start(&o->poll, UV_WRITABLE, origin_connected);
}

/* ---- clients ----------------------------------------------------------------------------------------------- */

static void client_woken(struct shoal_load *load, void *client);

/* Of shoal_begin(), and later of shoal_wait(). */
static void client_outcome(struct client *c, int outcome, struct shoal_load *load, struct shoal_value *value)
{
	c->load = NULL;
	if (outcome == SHOAL_REFRESH)
		origin_ask(NULL, c->target, load);
	if (outcome == SHOAL_OK || outcome == SHOAL_REFRESH) {
		client_answer(c, 200, value->data, value->size);
		shoal_release(value);
	} else if (outcome == SHOAL_LEAD) {
		origin_ask(c, c->target, load);
	} else {
		c->load = load;
		if (outcome != SHOAL_WAIT || shoal_watch(load, client_woken, c) != SHOAL_OK)
			client_answer(c, outcome == SHOAL_ERR_LOAD && value->load_error > 0 ? value->load_error : 503,
			              NULL, 0);
	}
}

static void client_woken(struct shoal_load *load, void *client)
{
	struct shoal_value value;
	int outcome = shoal_wait(load, 0, &value);

	client_outcome(client, outcome, load, &value);
}

static void client_ready(uv_poll_t *poll, int status, int events)
{
	struct client *c = (struct client *)poll;
	int came = http_read(c->fd, &c->in);
	struct shoal_value value;
	struct shoal_load *load;

	if (http_is_over(came)) {
		client_end(c);
	} else if (!c->target.size && http_request(&c->in, &c->target)) {
		int outcome = shoal_begin(pages, c->target.data, c->target.size, &load, &value);

		client_outcome(c, outcome, load, &value);
	}
}

static void accept_one(uv_poll_t *listener, int status, int events)
{
	int fd = accept4(*(int *)listener->data, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c = fd < 0 ? NULL : calloc(1, sizeof(*c));

	if (c) {
		c->fd = fd;
		uv_poll_init(uv_default_loop(), &c->poll, fd);
		uv_poll_start(&c->poll, UV_READABLE, client_ready);
	}
}

static void dispatch(uv_poll_t *poll, int status, int events)
{
	shoal_dispatch(cache);
}

int main(int argc, char **argv)
{
	struct shoal_policy policy = {
		.fresh_ms = 600000, .stale_ms = 3600000, .retry_ms = 10000, .wait_ms = 60000, .lease_ms = 60000};
	int outcome = shoal_open(getenv("SHOAL_CACHE"), NULL, &cache), fd, listening;
	uv_poll_t woken, listener = {.data = &listening};

	if (outcome == SHOAL_OK)
		outcome = shoal_keyspace_open(cache, "page", 1, &policy, &pages);
	fd = outcome == SHOAL_OK ? shoal_poll_fd(cache) : outcome;
	if (fd < 0)
		return fprintf(stderr, "shoal: %s\n", shoal_strerror(fd)), 1;
	uv_poll_init(uv_default_loop(), &woken, fd);
	uv_poll_start(&woken, UV_READABLE, dispatch);
	origin_port = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	listening = http_listen(SOCK_NONBLOCK);
	uv_poll_init(uv_default_loop(), &listener, listening);
	uv_poll_start(&listener, UV_READABLE, accept_one);
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
