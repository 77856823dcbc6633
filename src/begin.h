/* SPDX-License-Identifier: MIT */
/*
 * Getting to lead a load, or to wait for one:
 *
 *   begin    look up -- fresh -----------------------------------------------> OK
 *                 \---- claim -- joined: stale ? OK : WAIT
 *                            \-- mine: look up once more (someone may have published since the first look)
 *                                     -- fresh: end the flight -------------> OK
 *                                     -- draw the generation ---------------> LEAD, REFRESH
 *
 * Where loads are bounded a permit comes between the last two, and where there is an older version of the keyspace, its
 * value.
 *
 *   operation     may run beside    another process is killed
 *   begin_key     everything        its flight: taken over, or joined till that is found
 *   begin_wait    everything        the leader: one of those who wait goes on in its place
 */
#ifndef SHOAL_BEGIN_H
#define SHOAL_BEGIN_H

#include "load.h"

struct attempt {
	struct shoal_keyspace *k;
	struct seat *seat;
	struct key key;
	struct flight_key fk;
	struct ticket ticket;
	enum age age; /* of *value */
	struct shoal_value *value;
	bool fetch;
};

/* What shoal_begin() says. The attempt has its keyspace, its value and `fetch`. */
int begin_key(struct attempt *a, const void *data, size_t size, struct shoal_load **load);
/* One look at what it waits for: OK, LEAD, an error, or SHOAL_WAIT. */
int begin_look(struct shoal_load *l, struct shoal_value *value);
/* What shoal_wait() says; the handle is left, whatever that is. */
int begin_wait(struct shoal_load *l, uint32_t timeout_ms, struct shoal_value *value);

#endif
