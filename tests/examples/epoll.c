/* SPDX-License-Identifier: MIT */
/*
 * A web server that is one event loop, in front of a slow origin: it sleeps in epoll_wait() and nowhere else.
 * Start several: with the same SHOAL_CACHE they share one cache, and a page that all of them are asked for is
 * asked of the origin once.
 *
 *   usage: SHOAL_CACHE=NAME epoll ORIGIN-PORT        it prints its address
 *
 * A request to the origin belongs to the load and not to the client that caused it, who may leave while others wait.
 */
#define _GNU_SOURCE /* accept4 */
#include <shoal.h>
#include <sys/epoll.h>

#include "http.h"

/* What epoll hands back. One event is dealt with before the next is asked for: nothing that is freed has one left. */
struct source {
	int fd;
	void (*ready)(struct source *source);
};

struct client {
	struct source source;
	struct http in;
	struct part target;
	struct shoal_load *load; /* that it waits for */
	struct origin *origin;   /* that is asked for it */
};

struct origin {
	struct source source;
	struct http in;
	char *target; /* a copy: the client may leave first */
	struct shoal_load *load;
	struct client *client; /* NULL: it has left, or was answered with the old value */
};

static int loop;
static unsigned origin_port;
static struct shoal *cache;
static struct shoal_keyspace *pages;

static void look_for(int operation, struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	if (epoll_ctl(loop, operation, source->fd, &event))
		perror("epoll_ctl");
}

static void client_end(struct client *c)
{
	shoal_load_cancel(c->load); /* it waits no more; NULL is harmless */
	if (c->origin)
		c->origin->client = NULL;
	close(c->source.fd);
	free(c);
}

static void client_answer(struct client *c, int status, const void *body, size_t size)
{
	http_answer(c->source.fd, status, body, size);
	client_end(c);
}

/* ---- the origin -------------------------------------------------------------------------------------------- */

static void origin_end(struct origin *o, int status, const void *body, size_t size)
{
	if (status == 200)
		shoal_load_publish(o->load, body, size); /* wakes who waits, in whatever process */
	else
		shoal_load_fail(o->load, status); /* they get the status, or an old value if the policy has one */
	if (o->client) {
		o->client->origin = NULL;
		client_answer(o->client, status, body, size);
	}
	close(o->source.fd);
	free(o->target);
	free(o);
}

static void origin_answers(struct source *source)
{
	struct origin *o = (struct origin *)source;
	struct part body;
	int came = http_read(source->fd, &o->in);

	if (came > 0 && http_response(&o->in, &body))
		origin_end(o, body.status, body.data, body.size);
	else if (http_is_over(came))
		origin_end(o, 502, NULL, 0);
}

static void origin_connected(struct source *source)
{
	struct origin *o = (struct origin *)source;

	source->ready = origin_answers;
	if (http_ask(source->fd, o->target, strlen(o->target)))
		origin_end(o, 502, NULL, 0);
	else
		look_for(EPOLL_CTL_MOD, source, EPOLLIN);
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
	*o = (struct origin){.source = {fd, origin_connected}, .target = copy, .load = load, .client = c};
	if (c)
		c->origin = o;
	look_for(EPOLL_CTL_ADD, &o->source, EPOLLOUT);
}

/* ---- clients ----------------------------------------------------------------------------------------------- */

static void client_woken(struct shoal_load *load, void *arg);

/* Of shoal_begin(), and later of shoal_wait(). */
static void client_outcome(struct client *c, int outcome, struct shoal_load *load, struct shoal_value *value)
{
	c->load = NULL;
	if (outcome == SHOAL_REFRESH) /* the client has the old value now; we get the next one, for all processes */
		origin_ask(NULL, c->target, load);
	if (outcome == SHOAL_OK || outcome == SHOAL_REFRESH) {
		client_answer(c, 200, value->data, value->size);
		shoal_release(value);
	} else if (outcome == SHOAL_LEAD) {
		origin_ask(c, c->target, load);
	} else {
		c->load = load; /* NULL, or to be cancelled when the client ends */
		if (outcome != SHOAL_WAIT || shoal_watch(load, client_woken, c) != SHOAL_OK)
			client_answer(c, outcome == SHOAL_ERR_LOAD && value->load_error > 0 ? value->load_error : 503,
			              NULL, 0);
	}
}

static void client_woken(struct shoal_load *load, void *client)
{
	struct shoal_value value;
	int outcome = shoal_wait(load, 0, &value); /* doesn't wait: there is an outcome */

	client_outcome(client, outcome, load, &value);
}

static void client_ready(struct source *source)
{
	struct client *c = (struct client *)source;
	int came = http_read(source->fd, &c->in);
	struct shoal_value value;
	struct shoal_load *load;

	if (http_is_over(came)) {
		client_end(c); /* it has left */
	} else if (!c->target.size && http_request(&c->in, &c->target)) {
		int outcome = shoal_begin(pages, c->target.data, c->target.size, &load, &value);

		client_outcome(c, outcome, load, &value);
	}
}

static void accept_one(struct source *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c = fd < 0 ? NULL : calloc(1, sizeof(*c));

	if (c) {
		c->source = (struct source){fd, client_ready};
		look_for(EPOLL_CTL_ADD, &c->source, EPOLLIN);
	}
}

static void dispatch(struct source *source)
{
	shoal_dispatch(cache); /* calls client_woken() of each whose load has an outcome */
}

int main(int argc, char **argv)
{
	struct shoal_policy policy = {
		.fresh_ms = 600000, .stale_ms = 3600000, .retry_ms = 10000, .wait_ms = 60000, .lease_ms = 60000};
	int outcome = shoal_open(getenv("SHOAL_CACHE"), NULL, &cache);
	struct source listener, woken;
	struct epoll_event event;

	if (outcome == SHOAL_OK)
		outcome = shoal_keyspace_open(cache, "page", 1, &policy, &pages);
	woken = (struct source){outcome == SHOAL_OK ? shoal_poll_fd(cache) : -1, dispatch};
	if (woken.fd < 0)
		return fprintf(stderr, "shoal: %s\n", shoal_strerror(outcome ? outcome : woken.fd)), 1;
	loop = epoll_create1(EPOLL_CLOEXEC);
	listener = (struct source){http_listen(SOCK_NONBLOCK), accept_one};
	origin_port = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	look_for(EPOLL_CTL_ADD, &listener, EPOLLIN);
	look_for(EPOLL_CTL_ADD, &woken, EPOLLIN);
	for (;;)
		if (epoll_wait(loop, &event, 1, -1) == 1)
			((struct source *)event.data.ptr)->ready(event.data.ptr);
}
