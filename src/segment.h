/* SPDX-License-Identifier: MIT */
/*
 * A segment as one process sees it: where its mapping is and where the areas begin. Everything here was validated at
 * attach and is private to the process, so that no later scribble over the header can lead us out of the mapping.
 */
#ifndef SHOAL_SEGMENT_H
#define SHOAL_SEGMENT_H

#include "clock.h"
#include "layout.h"

struct segment {
	char *base;
	struct geometry geometry; /* our own copy */
	struct header *header;
	struct alive *alive;      /* a mapping of its own; NULL in a read-only view */
	struct process *processes;
	struct reader *readers;
	struct flight *flights;
	struct permit *permits;
	struct keyspace *keyspaces;
	struct line *lines;
	struct extent *extents;
	struct ghosts *ghosts;
	struct bucket *index;
	char *log;
	uint64_t per_extent;      /* 2^64 / lines of an extent, rounded up: division by multiplication */
	bool fence;               /* readers fence; see rcu.h */
	bool read_only;
	int fd;
	struct clock clock;
};

int segment_open(const char *name, const struct shoal_config *config, struct segment *segment);
int segment_unlink(const char *name);
void segment_unmap(struct segment *segment);       /* all but the alive words */
void segment_unmap_alive(struct alive *alive, const struct geometry *geometry);

/* A number that no-one else draws: generations, EMPTY versions. */
static inline uint64_t segment_draw(const struct segment *s)
{
	return w64_add(&s->header->generation, 1) + 1;
}

#endif
