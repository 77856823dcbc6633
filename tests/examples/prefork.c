/* SPDX-License-Identifier: MIT */
/*
 * A prefork web server in front of a slow origin. The workers are processes, block, and know nothing of each other; a
 * page that several of them are asked for at once is asked of the origin once. If the worker that asks is killed, one
 * of the others that wait asks anew, and its client is the only one to notice.
 *
 *   usage: prefork ORIGIN-PORT [WORKERS]
 *
 * It prints its address. SHOAL_CACHE names the cache, so that `shoal top` shows it and a restart finds it warm; without
 * a name it is the workers' alone.
 */
#include <shoal.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "http.h"

#define MAX_WORKERS 64

/* The loader runs in the worker that leads. 0 after a publish; else an error, which the waiters get as well. */
static int ask_origin(struct shoal_load *load, const void *target, size_t size, void *port)
{
	struct http in = {.size = 0};
	struct part body;
	int fd = http_connect(*(unsigned *)port, 0), error = 502;

	if (fd < 0)
		return error;
	if (!http_ask(fd, target, size))
		while (http_read(fd, &in) > 0)
			if (http_response(&in, &body)) {
				error = body.status == 200 ? shoal_load_publish(load, body.data, body.size)
				                           : body.status;
				break;
			}
	close(fd);
	return error;
}

static void serve(int client, struct shoal_keyspace *pages, unsigned port)
{
	struct http in = {.size = 0};
	struct part target;
	struct shoal_value value;
	int outcome;

	while (!http_request(&in, &target))
		if (http_read(client, &in) <= 0)
			return;
	outcome = shoal_fetch(pages, target.data, target.size, ask_origin, &port, &value);
	if (outcome == SHOAL_OK)
		http_answer(client, 200, value.data, value.size);
	else
		http_answer(client, outcome == SHOAL_ERR_LOAD && value.load_error > 0 ? value.load_error : 503,
		            NULL, 0);
	shoal_release(&value); /* soon: a value in hand pins a piece of the memory */
}

static pid_t worker(int listener, const sigset_t *signals, struct shoal_keyspace *pages, unsigned port)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* a worker that is told to end just ends: its death gives back all it held */
	sigprocmask(SIG_UNBLOCK, signals, NULL);
	for (;;) {
		int client = accept(listener, NULL, NULL);

		if (client >= 0) {
			serve(client, pages, port);
			close(client);
		}
	}
}

/* Keep `n` workers until told to end. */
static void watch_over(unsigned n, int listener, struct shoal *cache, struct shoal_keyspace *pages, unsigned port)
{
	pid_t workers[MAX_WORKERS], dead;
	sigset_t signals;
	int number = SIGCHLD;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (unsigned i = 0; i < n; i++)
		workers[i] = worker(listener, &signals, pages, port);
	for (; number == SIGCHLD; sigwait(&signals, &number))
		while ((dead = waitpid(-1, NULL, WNOHANG)) > 0) {
			/* who waited for it knows already; this gives back the rest now, not when it is met */
			shoal_reap(cache);
			for (unsigned i = 0; i < n; i++)
				if (workers[i] == dead)
					workers[i] = worker(listener, &signals, pages, port);
		}
	for (unsigned i = 0; i < n; i++)
		if (workers[i] > 0)
			kill(workers[i], SIGTERM);
	while (wait(NULL) > 0)
		;
}

int main(int argc, char **argv)
{
	/* Old pages are served for an hour while one worker refreshes them, and for a day if the origin is down. */
	struct shoal_policy policy = {
		.fresh_ms = 600000, .stale_ms = 3600000, .error_ms = 86400000, .retry_ms = 10000, .wait_ms = 60000,
		.lease_ms = 60000};
	unsigned port = argc > 1 ? (unsigned)atoi(argv[1]) : 0, workers = argc > 2 ? (unsigned)atoi(argv[2]) : 4;
	struct shoal_keyspace *pages;
	struct shoal *cache;
	int listener;
	/* Before the fork: it is opened once, and what is wrong with it is known before there are workers. */
	int outcome = shoal_open(getenv("SHOAL_CACHE"), NULL, &cache);

	if (outcome == SHOAL_OK)
		outcome = shoal_keyspace_open(cache, "page", 1, &policy, &pages);
	if (outcome != SHOAL_OK)
		return fprintf(stderr, "shoal: %s\n", shoal_strerror(outcome)), 1;
	listener = http_listen(0);
	if (listener < 0)
		return perror("listen"), 1;
	watch_over(workers < MAX_WORKERS ? workers : MAX_WORKERS, listener, cache, pages, port);
	shoal_close(cache);
	return 0;
}
