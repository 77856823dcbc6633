/* SPDX-License-Identifier: MIT */
#ifndef BENCH_PAGES_H
#define BENCH_PAGES_H

/* Kilobytes of shared memory that are mapped by huge pages: what was asked for needn't have been given. */
unsigned pages_huge_kb(void);

/* Touches each page that there is of the shared mappings, so that it is in the page table, as in a process that has run
 * for a while. Memory that was inherited by fork is there, and large; pages of a shared mapping come by a fault each, and
 * a hypervisor that shadows page tables (14 us a fault) forgets them again while the others have their turn: a million
 * keys' take longer than a round. */
void pages_touch(void);

#endif
