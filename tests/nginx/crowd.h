/* SPDX-License-Identifier: MIT */
/* Many clients that ask for the same, of all workers, and how a test knows that all of them wait. */
#ifndef SHOAL_TEST_CROWD_H
#define SHOAL_TEST_CROWD_H

#include "suite.h"

#define CROWD 64

struct crowd {
	struct web clients[CROWD];
	pid_t workers[CROWD]; /* whom each is served by */
	unsigned n;
	uint64_t misses; /* counted before */
};

static inline bool is_of_one_worker(const struct crowd *c)
{
	for (unsigned i = 1; i < c->n; i++)
		if (c->workers[i] != c->workers[0])
			return false;
	return true;
}

/* Each is known by its worker, and these are several. Of those before none is left, who might take a client and end. */
static inline void gather_at(struct crowd *c, unsigned n, unsigned port, struct web (*connect_to)(unsigned port))
{
	uint64_t began = 0;

	await_workers(&site);
	c->n = n;
	c->misses = site_stats(&site).total.misses;
	for (unsigned i = 0; i < n; i++) {
		c->clients[i] = connect_to(port);
		c->workers[i] = worker_of(&c->clients[i]);
	}
	for (; is_of_one_worker(c); site_turn(&began)) {
		web_close(&c->clients[n - 1]);
		c->clients[n - 1] = connect_to(port);
		c->workers[n - 1] = worker_of(&c->clients[n - 1]);
	}
}

static inline void gather(struct crowd *c, unsigned n)
{
	gather_at(c, n, site.port, web_connect);
}

static inline void all_ask(struct crowd *c, const char *target)
{
	for (unsigned i = 0; i < c->n; i++)
		web_ask(&c->clients[i], "GET", target, NULL);
}

/* One leads and n wait: each of them has counted a miss. (A flight's `waiters` is not exact where its slot is
 * claimed twice.) */
static inline void await_crowd(const struct crowd *c, unsigned n)
{
	uint64_t began = 0;

	while (site_stats(&site).total.misses < c->misses + n + 1)
		site_turn(&began);
}

static inline void disperse(struct crowd *c)
{
	for (unsigned i = 0; i < c->n; i++)
		web_close(&c->clients[i]);
}

static inline double ms_since(uint64_t began)
{
	return (double)(clock_system_ns(CLOCK_MONOTONIC) - began) / 1e6;
}

/* All of them get the nth body; returns how long after the first the last was answered. */
static inline double all_get(struct crowd *c, const char *path, unsigned n)
{
	struct pollfd polled[CROWD];
	uint64_t first = 0;
	unsigned left = c->n;
	double last = 0;

	for (unsigned i = 0; i < c->n; i++)
		polled[i] = (struct pollfd){.fd = c->clients[i].fd, .events = POLLIN};
	for (; left; last = ms_since(first)) {
		assert_true(poll(polled, c->n, PATIENCE_S * 1000) > 0);
		if (!first)
			first = clock_system_ns(CLOCK_MONOTONIC);
		for (unsigned i = 0; i < c->n; i++)
			if (polled[i].revents) {
				struct response r = web_read(&c->clients[i]);

				assert_body(&r, path, n, 64);
				web_free(&r);
				polled[i].fd = -1;
				left--;
			}
	}
	return last;
}

#endif
