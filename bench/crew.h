/* SPDX-License-Identifier: MIT */
/* A peer's host and its workers, each pinned to its processor, which sleep between rounds and begin them together. */
#ifndef BENCH_CREW_H
#define BENCH_CREW_H

#include "peer.h"

#define CPUS_MOST 1024

struct pinning {
	unsigned count; /* 0: nobody is pinned */
	int cpus[CPUS_MOST];
};

struct crew;

/* NULL: it failed */
struct crew *crew_start(const struct peer *peer, const struct peer_setup *setup, const struct pinning *pinning);
/* of the keys that were looked up after filling, the share that was there */
double crew_found(const struct crew *crew);
double crew_huge_mb(const struct crew *crew); /* that a worker has mapped in huge pages */
int crew_round(struct crew *crew, const struct round *round, struct tally *sum); /* sum or NULL; -1: somebody died */
void crew_end(struct crew *crew);

#define DIRECTORY_SIZE 64
int directory_begin(void);                     /* what all of ours are in, in memory */
void directory_end(void);
int directory_make(char path[DIRECTORY_SIZE]); /* for a peer's files and sockets */
void directory_remove(const char *path);

int crew_fork(void (*body)(void *arg), void *arg); /* a child that doesn't outlive us */
void pin(const struct pinning *pinning, unsigned number);

#endif
