/* SPDX-License-Identifier: MIT */
/*
 * Static tracepoints for perf, bpftrace, gdb and systemtap: shoal:hit and so on. Each is one nop and a note in the ELF
 * file that says where the arguments are; nothing is computed for them. Without sys/sdt.h they are nothing at all.
 *
 *   hit          keyspace's number, key, its size, enum shoal_freshness
 *   miss         likewise, and why: enum age of store.h (2 or 4 too old, 3 absent, 5 schema, 6 corrupt)
 *   load__start  keyspace's number, key, its size, 1 if coalesced
 *   load__end    keyspace's number, key, its size, nanoseconds
 *   wait         keyspace's number, key, its size, nanoseconds
 *   takeover     keyspace's number, key, its size, 1 if the leader had given up, 0 if it was dead
 *   evict        extent, enum shoal_evicted, bytes that were kept, entries that were dropped
 *   grace        extent, milliseconds that it had to wait for its readers
 */
#ifndef SHOAL_PROBE_H
#define SHOAL_PROBE_H

#if SHOAL_USDT
#include <sys/sdt.h>
#define PROBE(name, a, b, c, d) DTRACE_PROBE4(shoal, name, a, b, c, d)
#define PROBE2(name, a, b) DTRACE_PROBE2(shoal, name, a, b)
#else
#define PROBE(name, a, b, c, d) ((void)0)
#define PROBE2(name, a, b) ((void)0)
#endif

#endif
