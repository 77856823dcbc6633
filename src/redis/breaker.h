/* SPDX-License-Identifier: MIT */
/*
 * Whether to ask Redis at all. That it failed is told in the machine's segment, as an entry of the keyspace
 * "shoal.redis" under the server's address, so that all processes of the machine leave it alone at once:
 *
 *   no entry      closed: ask
 *   fresh         open: don't, for the cool-down that is the entry's fresh life
 *   stale         half open: one process asks, whichever begins the refresh of the entry first, while the others go on
 *                 without. Its answer ends the refresh: the entry is deleted, or published anew with
 *                 twice the cool-down
 *
 * A prober that dies has an heir, as any load. An entry that is evicted closes the breaker too early: the server is
 * asked once more.
 *
 *                     | another asks           | another tells of a failure | another process is killed
 *   breaker_ask       | one of them probes     | open from then on          | a prober's heir probes
 *   breaker_tell      | fine                   | the later one's cool-down  | not told: the next one tells
 */
#ifndef SHOAL_REDIS_BREAKER_H
#define SHOAL_REDIS_BREAKER_H

#include <shoal.h>

#define BREAKER_KEYSPACE "shoal.redis"
#define BREAKER_DOUBLINGS 4

struct breaker {
	struct shoal_keyspace *keyspace;
	struct shoal_slice key; /* the server */
	uint32_t cool_down_ms;
	unsigned failures;        /* in a row that open it */
	_Atomic unsigned *failed; /* so many in a row: shared by the processes that were forked since */
};

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBE };

struct breaker_visit { /* of one load; zeroed before */
	enum breaker_state state;
	struct shoal_load *probe;
	uint32_t cool_down_ms;
};

enum breaker_change { BREAKER_AS_IT_WAS, BREAKER_OPENED, BREAKER_REOPENED, BREAKER_ENDED };

/* May Redis be asked? Then breaker_tell() has to say what became of it. */
enum breaker_state breaker_ask(const struct breaker *b, struct breaker_visit *visit);
enum breaker_change breaker_tell(const struct breaker *b, struct breaker_visit *visit, int failed);

#endif
