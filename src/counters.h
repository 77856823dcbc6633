/* SPDX-License-Identifier: MIT */
/*
 * The counters of a keyspace, in the order of the fields of struct shoal_keyspace_stats, which lie in two runs. The
 * first COUNTERS_HOT, and stale_ms_sum, are counted on the read path: each thread has its own lines for them (layout.h,
 * struct line), never folded and never reset, so they are exact whoever is killed. The others are rare and are added
 * with a locked instruction to the keyspace's record.
 *
 * Each event adds to one counter. Of what is counted by reason (misses, takeovers, uncached) the first has only those
 * events that no other reason has, and who reads them makes the sum. So neither a reason nor the sum ever falls,
 * whoever is killed.
 *
 * Of a hit, as in atomic.h, and by two processes at once (the median of the quietest of five runs):
 *
 *                               ns    isolated    two processes
 *   a line of the thread's    35.5      51.6          43
 *   a locked add              36.5      51.9          51
 *   not counted               36.8      51.9          48    no gain: less than the code's place in memory makes
 */
#ifndef SHOAL_COUNTERS_H
#define SHOAL_COUNTERS_H

#define COUNTERS_FIRST(X)                                                                                              \
	X(hits_fresh, "fresh values served from the segment")                                                          \
	X(hits_stale, "stale values served from the segment")                                                          \
	X(misses, "look-ups of a key that isn't there")                                                                \
	X(loads, "loads begun")                                                                                        \
	X(load_errors, "loads that failed")                                                                            \
	X(coalesced, "callers that got the value of another's load")                                                   \
	X(takeovers, "loads taken over from a leader that died")                                                       \
	X(superseded, "loads whose value was not stored because something newer had happened")                         \
	X(timeouts, "waits that ended without a value")                                                                \
	X(busy, "callers that got no permit to load")                                                                  \
	X(uncached, "loads that were not coalesced or not stored: no slot, no space, too big")                         \
	X(early_refreshes, "refreshes before the value was stale")                                                     \
	X(migrated, "values carried over from another version")                                                        \
	X(rejected, "values that their reader could not decode")                                                       \
	X(schema_mismatches, "values of another schema, read as misses")                                               \
	X(corrupt, "values that failed a check, read as misses")                                                       \
	X(load_ns_sum, "nanoseconds spent loading")                                                                    \
	X(wait_ns_sum, "nanoseconds spent waiting for others' loads")

#define COUNTERS_SECOND(X)                                                                                             \
	X(misses_expired, "look-ups that found a value too old to be served")                                          \
	X(misses_corrupt, "look-ups that found a value that failed a check")                                           \
	X(takeovers_gave_up, "loads taken over from a leader that gave up")                                            \
	X(overdue, "loads that outlived their lease")                                                                  \
	X(uncacheable, "loads not stored since their loader said so")                                                  \
	X(stale_ms_sum, "milliseconds that stale values served had not been fresh any more")

enum counter {
#define X(name, help) COUNTER_##name,
	COUNTERS_FIRST(X)
	COUNTERS_SECOND(X)
#undef X
	COUNTER_COUNT,
	COUNTERS_HOT = COUNTER_loads,
};

#endif
