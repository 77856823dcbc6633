/* SPDX-License-Identifier: MIT */
/* First in, first out by extent: the oldest sealed one. */
#include "evict.h"

int64_t evict_victim(const struct segment *s, uint64_t *after)
{
	uint64_t least = UINT64_MAX, stamp;
	int64_t victim = -1;
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++) {
		if (EXTENT_STATE(extents_word(s, x)) != EXTENT_SEALED)
			continue;
		stamp = w64_peek(&s->extents[x].stamp);
		if (stamp > *after && stamp < least) {
			least = stamp;
			victim = x;
		}
	}
	if (victim >= 0)
		*after = least;
	return victim;
}
