/* SPDX-License-Identifier: MIT */
/*
 * Threads of this process that refresh what its callers would else refresh in their own time. A bounded queue of jobs
 * (liburcu's wait-free queue: pushing never waits), some threads, and what each thread has set up for each loader.
 *
 * A child of fork has the queue's memory and none of its threads: a refresher belongs to the epoch of the process that
 * started it, and is as good as none in another. (`epoch` here is the token of the handle's lineage.)
 */
#ifndef SHOAL_REFRESHER_H
#define SHOAL_REFRESHER_H

#include <urcu/wfcqueue.h>

#include "base.h"

struct refresher;
struct refresher_thread;

/* The caller's; run by one of the threads, or given back by refresher_stop. */
struct refresher_job {
	struct cds_wfcq_node node;
	void (*run)(struct refresher_job *job, struct refresher_thread *thread); /* thread NULL: give it up */
};

/* What a keyspace's loader needs in each thread. */
struct refresher_loader {
	shoal_loader *load;
	shoal_setup *setup;
	shoal_teardown *teardown;
	void *arg;
	struct refresher_loader *before;
};

int refresher_start(uint64_t epoch, unsigned threads, unsigned queue, struct refresher **refresher);
/* Ends the threads after the job that each of them is at, gives the rest up, and frees it. */
void refresher_stop(struct refresher *r, uint64_t epoch);
bool refresher_is_of(const struct refresher *r, uint64_t epoch);
/* False: full, or of another process. */
bool refresher_push(struct refresher *r, uint64_t epoch, struct refresher_job *job);
/* The argument for the loader in this thread, set up at its first use. False: the set-up failed. */
bool refresher_context(struct refresher_thread *thread, const struct refresher_loader *loader, void **context);

#endif
