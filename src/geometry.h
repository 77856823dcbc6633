/* SPDX-License-Identifier: MIT */
/* How large a region's areas are and where they lie. A geometry is written once, in a region's header, with a
 * checksum. */
#ifndef SHOAL_GEOMETRY_H
#define SHOAL_GEOMETRY_H

#include "layout.h"

/* At least so many, whatever the size would have by default. */
struct geometry_needs {
	uint32_t processes, readers, keyspaces;
};

/* Of a segment's first region. `fence`: membarrier is refused here. */
int geometry_from(const struct shoal_config *config, bool fence, struct geometry *geometry);
/* As the creator configured it, for another size; what it left to the default follows the size, but is at least what is
 * in use. Entries have to fit. Its offset is not set yet, nor the checksum. */
int geometry_resized(const struct geometry *old, uint64_t size, const struct geometry_needs *needs,
                     struct geometry *geometry);
/* The last word, when nothing of it changes any more. */
void geometry_sign(struct geometry *geometry);

/* Of the region that begins at `offset` of a file, checked whole: each area lies inside the file. */
int geometry_read(int fd, uint64_t offset, struct geometry *geometry);
/* 0 where there is no /proc. False: it can't be told just now, for want of a descriptor or of memory. */
bool geometry_know_boot(uint64_t *id);

/* The end of a region: its bytes, and behind them the lock bytes of its processes. */
static inline uint64_t geometry_end(const struct geometry *g)
{
	return g->offset + g->size + PROCESSES_MAX;
}

#endif
