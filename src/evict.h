/* SPDX-License-Identifier: MIT */
/*
 * Which extent goes next. The policy knows extents and no index: the coordinator (cache.c, make_room) asks for a
 * victim, walks it, and decides entry by entry with the policy's word.
 */
#ifndef SHOAL_EVICT_H
#define SHOAL_EVICT_H

#include "log.h"

/* The SEALED extent whose turn it is after those with stamps up to *after; -1: none. *after becomes its stamp. */
int64_t evict_victim(const struct segment *s, uint64_t *after);

/* How many extents should be FREE or on their way, so that a writer seldom waits for a grace period. */
static inline unsigned evict_reserve(const struct segment *s)
{
	return s->geometry.extents >= 64 ? 3 : 1;
}

#endif
