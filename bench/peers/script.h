/* SPDX-License-Identifier: MIT */
/*
 * A cache that lives in another language's interpreter, with the timed loops in its script: apcu.php, nginx.lua. The
 * keys and requests are files in the peer's directory (`keys`: key and 32-bit size of each; `requests`: 32-bit
 * numbers of keys, the top bit for a set), and each worker has a pair of FIFOs, in.N and out.N, on which the script's
 * N-th process is told
 *
 *   round ACCESS EACH NS BLOCK     it answers "OPERATIONS HITS NS", "VALUE COUNT"... for the histogram, "end"
 *   get KEY                        SIZE, a newline, and the value
 *   fetch KEY SIZE US              LED LOADED AT, and the value as above
 */
#ifndef BENCH_SCRIPT_H
#define BENCH_SCRIPT_H

#include "../peer.h"

int script_files(const struct peer_setup *setup);
int script_join(struct worker *worker); /* waits until the script has filled its cache */
size_t script_get(struct worker *worker, const struct request *r, void *buffer);
int script_fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched);
void script_run(struct worker *worker, const struct round *round, struct tally *tally);
void script_leave(struct worker *worker);

#endif
