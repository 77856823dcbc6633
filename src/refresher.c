/* SPDX-License-Identifier: MIT */
/* See refresher.h. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "clock.h"
#include "futex.h"
#include "refresher.h"

struct context {
	const struct refresher_loader *loader;
	void *context;
	struct context *next;
};

struct refresher_thread {
	struct refresher *of;
	pthread_t id;
	struct context *contexts;
};

struct refresher {
	uint64_t epoch;
	struct cds_wfcq_head head;
	struct cds_wfcq_tail tail;
	word32 queued; /* bounds the queue; counted before a push, and down after a pop */
	word32 news;   /* the futex: counted up by pushes and by the stop */
	word32 stop;
	unsigned limit, n;
	struct refresher_thread threads[];
};

static struct refresher_job *pop(struct refresher *r)
{
	struct cds_wfcq_node *node = cds_wfcq_dequeue_blocking(&r->head, &r->tail);

	if (!node)
		return NULL;
	w32_sub(&r->queued, 1);
	return (struct refresher_job *)((char *)node - offsetof(struct refresher_job, node));
}

static void tear_down(struct refresher_thread *t)
{
	struct context *c;

	while ((c = t->contexts)) {
		t->contexts = c->next;
		if (c->loader->teardown)
			c->loader->teardown(c->context);
		free(c);
	}
}

/* The count is read before the queue is looked at: a push in between changes it, and the sleep ends at once. */
static void *work(void *arg)
{
	struct refresher_thread *t = arg;
	struct refresher *r = t->of;
	struct refresher_job *job;
	uint32_t news;

	while (!w32_load(&r->stop)) {
		news = w32_load(&r->news);
		job = pop(r);
		if (job)
			job->run(job, t);
		else if (!w32_load(&r->stop))
			futex_wait(&r->news, news, NULL, 0, clock_system_ns(CLOCK_MONOTONIC) + 1000000000u);
	}
	tear_down(t);
	return NULL;
}

/* Signals are the application's: none is delivered to these threads. */
static int start_threads(struct refresher *r, unsigned threads)
{
	sigset_t all, before;
	int error = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (r->n = 0; r->n < threads && !error; r->n += !error) {
		r->threads[r->n].of = r;
		error = pthread_create(&r->threads[r->n].id, NULL, work, &r->threads[r->n]);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

int refresher_start(uint64_t epoch, unsigned threads, unsigned queue, struct refresher **out)
{
	struct refresher *r = calloc(1, sizeof(*r) + threads * sizeof(r->threads[0]));
	int error;

	if (!r)
		return SHOAL_ERR_SYSTEM;
	r->epoch = epoch;
	r->limit = queue;
	cds_wfcq_init(&r->head, &r->tail);
	error = start_threads(r, threads);
	if (error) {
		refresher_stop(r, epoch);
		errno = error;
		return SHOAL_ERR_SYSTEM;
	}
	*out = r;
	return SHOAL_OK;
}

void refresher_stop(struct refresher *r, uint64_t epoch)
{
	struct refresher_job *job;
	unsigned i;

	if (!r || r->epoch != epoch)
		return; /* the parent's: its locks may be held for ever here, so it is left alone */
	w32_store(&r->stop, 1);
	w32_add(&r->news, 1);
	futex_wake(&r->news, (int)r->n);
	for (i = 0; i < r->n; i++)
		pthread_join(r->threads[i].id, NULL);
	while ((job = pop(r)))
		job->run(job, NULL);
	cds_wfcq_destroy(&r->head, &r->tail);
	free(r);
}

bool refresher_is_of(const struct refresher *r, uint64_t epoch)
{
	return r->epoch == epoch;
}

bool refresher_push(struct refresher *r, uint64_t epoch, struct refresher_job *job)
{
	if (!r || r->epoch != epoch)
		return false;
	if (w32_add(&r->queued, 1) >= r->limit) {
		w32_sub(&r->queued, 1);
		return false;
	}
	cds_wfcq_node_init(&job->node);
	cds_wfcq_enqueue(&r->head, &r->tail, &job->node);
	w32_add(&r->news, 1);
	futex_wake(&r->news, 1);
	return true;
}

bool refresher_context(struct refresher_thread *t, const struct refresher_loader *loader, void **context)
{
	struct context *c;

	for (c = t->contexts; c; c = c->next)
		if (c->loader == loader) {
			*context = c->context;
			return true;
		}
	c = calloc(1, sizeof(*c));
	if (!c)
		return false;
	c->loader = loader;
	c->context = loader->arg;
	if (loader->setup && loader->setup(loader->arg, &c->context)) {
		free(c);
		return false;
	}
	c->next = t->contexts;
	t->contexts = c;
	*context = c->context;
	return true;
}
