/* SPDX-License-Identifier: MIT */
/* Loads around a loader. Most of it is public; this is the rest. */
#ifndef SHOAL_FETCH_H
#define SHOAL_FETCH_H

#include "base.h"

/* What a thread that exits inside a loader, or with a seat, leaves: its loads fail, its seat is given back. */
void fetch_thread_exit(void *seat);

/* As shoal_fetch(), but it joins nobody's load, and runs no loader whose value can't be stored for want of a seat.
 * SHOAL_ERR_TIMEOUT: the key has no value and is being loaded by another. For a permit it waits up to wait_ms. */
int fetch_unjoined(struct shoal_keyspace *keyspace, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                   struct shoal_value *value);

#endif
