/* SPDX-License-Identifier: MIT */
/*
 * Clients that go on while things happen, each a process, and the book that is kept of them. What a client may
 * lose is told here: a kept connection may be closed before anything of an answer has come, as any server's may,
 * and is asked again; an answer that breaks off, or a new connection without one, is lost, and that only if a
 * worker was killed meanwhile.
 */
#ifndef SHOAL_TEST_LOAD_H
#define SHOAL_TEST_LOAD_H

#include "tls.h"

struct load {
	word32 answers, closed, lost, wrong, stop;
	word32 kills, gone; /* begun; over: the worker is no more */
	word32 slow;        /* clients that wait for the others' answers */
};

struct caller {
	struct load *load;
	unsigned port;
	struct web (*connect_to)(unsigned port);
	struct web web;
	bool kept; /* it has answered before */
	bool open;
};

static inline void hang_up(struct caller *c)
{
	if (c->open)
		web_close(&c->web);
	c->open = c->kept = false;
}

static inline void wrong(struct load *load, const char *target, const struct response *r)
{
	printf("# %s: %d, %zu bytes: %.100s\n%.600s\n", target, r->status, r->size, r->body ? r->body : "",
	       r->head ? r->head : "");
	fflush(stdout);
	w32_add(&load->wrong, 1);
}

/* Of a stream that was reset curl leaves the head, and a part of the body. */
static inline bool is_broken(const struct response *r, size_t size)
{
	return !r->status || (r->status == 200 && r->size < size);
}

/* Was a worker killed since so many were over? */
static inline void count_lost(struct load *load, uint32_t gone, const char *target, const struct response *r)
{
	if (w32_load(&load->kills) > gone)
		w32_add(&load->lost, 1);
	else
		wrong(load, target, r);
}

/* The status is 0 if the answer was lost. */
static inline struct response call(struct caller *c, const char *method, const char *target, const char *more,
                                   const char *body)
{
	for (;;) {
		uint32_t gone = w32_load(&c->load->gone);
		bool kept = c->kept, nothing;
		struct response r;

		if (!c->open)
			c->web = c->connect_to(c->port);
		c->open = true;
		web_ask(&c->web, method, target, more);
		if (body)
			web_send(&c->web, body, strlen(body));
		r = web_read_any(&c->web, !strcmp(method, "HEAD"));
		nothing = !r.head && !c->web.size;
		c->kept = r.status &&
		          !(web_header(&r, "Connection") && !strcasecmp(web_header(&r, "Connection"), "close"));
		if (!c->kept)
			hang_up(c);
		if (r.status)
			return r;
		if (kept && nothing) {
			w32_add(&c->load->closed, 1);
			web_free(&r);
			continue;
		}
		count_lost(c->load, gone, target, &r);
		return r;
	}
}

/*
 * Until curl has ended. One whose worker was killed may wait for ever with what it has not sent: it is given up when
 * the others have had some answers.
 */
static inline void await_curl(struct load *load, pid_t pid, uint32_t gone)
{
	uint32_t answers = w32_load(&load->answers);
	uint64_t began = 0;
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		if (w32_load(&load->kills) == gone)
			answers = w32_load(&load->answers);
		if (w32_load(&load->answers) - answers > 100 || w32_load(&load->stop))
			kill(pid, SIGKILL);
		site_turn(&began);
	}
}

static inline bool may_ask_again(const struct load *load, const struct response *r, uint32_t gone)
{
	return !r->status && !w32_load(&load->stop) && w32_load(&load->kills) == gone;
}

/*
 * The ith of a curl's. A connection of HTTP/2 that was opened when its worker was told to quit may be sent GOAWAY
 * before its first stream is looked at (RFC 9113, 6.8), which curl asks again on kept connections only: a stream of
 * which nothing came is asked again here.
 */
static inline struct response stream_answer(struct caller *c, const char *name, unsigned i, const char *target,
                                            uint32_t gone)
{
	struct response r = curl_answer(name, i);

	for (unsigned turn = 0; turn < 3 && may_ask_again(c->load, &r, gone); turn++) {
		web_free(&r);
		w32_add(&c->load->closed, 1);
		await_curl(c->load, curl_start("again", 1, target, NULL), gone);
		r = curl_answer("again", 0);
	}
	return r;
}

/* At the end nobody asks again for a stream of which nothing came. */
static inline void count_lost_stream(struct load *load, uint32_t gone, const char *target, const struct response *r)
{
	if (r->status || !w32_load(&load->stop))
		count_lost(load, gone, target, r);
}

/* The nth body of this path, whichever n; 0: it is not. */
static inline unsigned body_number(const struct response *r, const char *path, size_t size)
{
	unsigned n;

	if (r->size <= strlen(path) || memcmp(r->body, path, strlen(path)) ||
	    sscanf(r->body + strlen(path), " %u|", &n) != 1)
		return 0;
	return is_body(r, path, n, size) ? n : 0;
}

/* A process that does this until it is told to stop. */
static inline pid_t go_on(struct load *load, void (*turn)(struct caller *c, unsigned *seed), struct caller c,
                          unsigned seed)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	c.load = load;
	while (!w32_load(&load->stop) && !w32_load(&load->wrong))
		turn(&c, &seed);
	hang_up(&c);
	SSL_CTX_free(tls_context);
	fflush(stdout);
	_exit(0);
}

static inline void stop_all(struct load *load, const pid_t *pids, unsigned n)
{
	w32_store(&load->stop, 1);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(ending_of(pids[i]), 0);
}

/* Until so many more answers were had (under a sanitizer, which is slow, a part of them), or a wrong one. */
static inline void await_answers(struct load *load, uint32_t more)
{
	uint32_t wanted = w32_load(&load->answers) + (UNDER_ASAN ? more / 5 : more);
	uint64_t began = 0;

	while (w32_load(&load->answers) < wanted && !w32_load(&load->wrong))
		site_turn(&began);
}

static inline void end_worker(struct load *load, pid_t pid, int signal)
{
	uint64_t began = 0;

	w32_add(&load->kills, 1);
	kill(pid, signal);
	while (is_worker(&site, pid))
		site_turn(&began);
	w32_add(&load->gone, 1);
}

#endif
