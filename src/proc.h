/* SPDX-License-Identifier: MIT */
/*
 * Who a process is, in one 64-bit word that can be claimed by one CAS:
 *
 *   63         62           48 47                          22 21              0
 *   +----------+--------------+------------------------------+----------------+
 *   | unlocked | pid namespace|  start time (ticks, low 26)  |      pid       |
 *   +----------+--------------+------------------------------+----------------+
 *
 * pid + start time tells a process from a later one with the same pid. A process of another pid namespace is never
 * judged by its pid (proc_is_dead says PROC_FOREIGN; life.c's lock bytes answer there).
 */
#ifndef SHOAL_PROC_H
#define SHOAL_PROC_H

#include "base.h"

enum { PROC_ALIVE = 0, PROC_DEAD = 1, PROC_FOREIGN = 2 };

#define PROC_PID(identity) ((uint32_t)((identity) & 0x3fffff))
#define PROC_NS(identity) ((uint32_t)((identity) >> 48 & 0x7fff)) /* 0: unknown */
#define PROC_UNLOCKED ((uint64_t)1 << 63) /* it holds no lock byte: from outside its namespace never judged dead */

/* The calling process's word, without PROC_UNLOCKED; never 0. Where /proc is missing, or is that of another pid
 * namespace, the start time is 0, and pids alone judge. */
uint64_t proc_self(void);

/* Has that process ended? A zombie has; one that is dumping core has not. PROC_FOREIGN: of another pid namespace. */
int proc_is_dead(uint64_t identity, uint64_t self);

/* From now on membarrier() of other processes reaches this one, in its children, too. Not 0: it is refused. */
int proc_use_membarrier(void);

/* Of this boot of the machine; 0 if unknown. */
uint64_t proc_boot_id(void);

/* Which CLOCK_MONOTONIC the calling process reads: that of the machine (0), or of a time namespace that shifts it. */
uint64_t proc_clock_id(void);

#endif
