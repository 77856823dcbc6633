/* SPDX-License-Identifier: MIT */
/* Loads through the cache: fetch, and the same in steps. All of it is public but this. */
#ifndef SHOAL_LOAD_H
#define SHOAL_LOAD_H

#include "base.h"

/* What a thread that exits inside a loader, or with a seat, leaves: its loads fail, its seat is given back. */
void load_thread_exit(void *seat);

/* As shoal_fetch(), but it joins nobody's load, and runs no loader whose value can't be stored for want of a seat.
 * SHOAL_ERR_TIMEOUT: the key has no value and is being loaded by another. For a permit it waits up to wait_ms. */
int load_unjoined(struct shoal_keyspace *keyspace, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                  struct shoal_value *value);

#endif
