/* SPDX-License-Identifier: MIT */
/*
 * One table of counters: the fields of struct shoal_keyspace_stats in its order. From it come the enum, the names and
 * the help texts. The first COUNTERS_HOT are counted on the read path: each thread has its own lines for them
 * (layout.h, struct line), never folded and never reset, so they are exact whoever is killed. The others are rare and
 * are added with a locked instruction to the keyspace's record.
 */
#ifndef SHOAL_COUNTERS_H
#define SHOAL_COUNTERS_H

#define COUNTERS(X)                                                                                                   \
	X(hits_fresh, "fresh values served from the segment")                                                         \
	X(hits_stale, "stale values served from the segment")                                                         \
	X(misses, "look-ups without a value")                                                                         \
	X(loads, "loads begun")                                                                                       \
	X(load_errors, "loads that failed")                                                                           \
	X(coalesced, "callers that got the value of another's load")                                                  \
	X(takeovers, "loads taken over from a leader that died or gave up")                                           \
	X(superseded, "loads whose value was not stored because something newer had happened")                        \
	X(timeouts, "waits that ended without a value")                                                               \
	X(busy, "callers that got no permit to load")                                                                 \
	X(uncached, "loads that were not coalesced or not stored: no slot, no space, too big")                        \
	X(early_refreshes, "refreshes before the value was stale")                                                    \
	X(migrated, "values carried over from another version")                                                       \
	X(rejected, "values that their reader could not decode")                                                      \
	X(schema_mismatches, "values of another schema, read as misses")                                              \
	X(corrupt, "values that failed a check, read as misses")                                                      \
	X(load_ns_sum, "nanoseconds spent loading")                                                                   \
	X(wait_ns_sum, "nanoseconds spent waiting for others' loads")

enum counter {
#define X(name, help) COUNTER_##name,
	COUNTERS(X)
#undef X
	COUNTER_COUNT,
	COUNTERS_HOT = COUNTER_loads,
};

#endif
