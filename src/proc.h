/* SPDX-License-Identifier: MIT */
/*
 * Who a process is, in one 64-bit word that can be claimed by one CAS:
 *
 *   63           48 47                          22 21              0
 *   +--------------+------------------------------+----------------+
 *   | pid namespace|  start time (ticks, low 26)  |      pid       |
 *   +--------------+------------------------------+----------------+
 *
 * pid + start time tells a process from a later one with the same pid. A process of another pid namespace is never
 * judged by its pid (proc_is_dead says PROC_FOREIGN; segment.c's lock bytes answer there).
 */
#ifndef SHOAL_PROC_H
#define SHOAL_PROC_H

#include "base.h"

enum { PROC_ALIVE = 0, PROC_DEAD = 1, PROC_FOREIGN = 2 };

#define PROC_PID(identity) ((uint32_t)((identity) & 0x3fffff))
#define PROC_NS_SHIFT 48
#define PROC_NS_UNLOCKED 0xffffu /* a process that holds no lock byte: from outside its namespace never judged dead */

/* The calling process's word; never 0. /proc missing: start time and namespace are 0, which judge by pid alone. */
uint64_t proc_self(void);

/* Has that process ended? A zombie has; one that is dumping core has not. PROC_FOREIGN: of another pid namespace. */
int proc_is_dead(uint64_t identity, uint64_t self);

/* Of this boot of the machine; 0 if unknown. */
uint64_t proc_boot_id(void);

#endif
