/* SPDX-License-Identifier: MIT */
#ifndef BENCH_PAGES_H
#define BENCH_PAGES_H

/* Kilobytes of shared memory that are mapped by huge pages: what was asked for needn't have been given. */
unsigned pages_huge_kb(void);

/* Enters what there is of the shared mappings into the page table, as in a process that has run for a while. Memory that
 * was inherited by fork is there; pages of a shared one come by a fault each, which a random walk through a million
 * keys takes longer for than a round lasts. */
void pages_map(void);

#endif
