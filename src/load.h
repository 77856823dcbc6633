/* SPDX-License-Identifier: MIT */
/* Loads through the cache: fetch, and the same in steps. All of it is public but this. */
#ifndef SHOAL_LOAD_H
#define SHOAL_LOAD_H

/* What a thread that exits inside a loader, or with a seat, leaves: its loads fail, its seat is given back. */
void load_thread_exit(void *seat);

#endif
