/* SPDX-License-Identifier: MIT */
/*
 * A region of a segment's file as one process sees it: where its mapping is and where the areas begin. Everything here
 * was validated at attach and is private to the process, so that no later scribble over the header can lead us out of
 * the mapping. A segment is one region until a resize puts another one in its place (resize.c).
 */
#ifndef SHOAL_SEGMENT_H
#define SHOAL_SEGMENT_H

#include "clock.h"
#include "geometry.h"
#include "mapping.h"
#include "tell.h"

struct segment {
	char *base;
	struct geometry geometry; /* our own copy */
	struct header *header;
	struct alive *alive;      /* a mapping of its own; NULL in a read-only view */
	struct process *processes;
	struct reader *readers;
	word64 *flight_words;
	struct flight *flights;
	struct permit *permits;
	struct keyspace *keyspaces;
	struct line *lines;
	struct extent *extents;
	struct ghosts *ghosts;
	struct bucket *index;
	char *log;
	uint64_t quick_size;      /* hit.h reads entries that begin before this; 0: none, as they have checksums */
	uint64_t per_extent;      /* 2^64 / lines of an extent, rounded up: division by multiplication */
	bool fence;               /* readers fence; see rcu.h */
	bool read_only;
	int fd;                   /* while segment_fd() says so */
	struct file_id file;
	struct clock clock;
	struct listener listener;
};

/* What hits compute with, from the geometry. */
static inline void segment_prepare(struct segment *s)
{
	const struct geometry *g = &s->geometry;
	uint64_t log_size = (uint64_t)g->extents * g->extent_size;

	s->per_extent = UINT64_MAX / (g->extent_size / CACHE_LINE) + 1;
	s->quick_size = g->flags & SHOAL_CHECKSUM ? 0 : log_size - sizeof(struct entry);
}

int segment_open(const char *name, const struct shoal_config *config, struct segment *segment);
int segment_unlink(const char *name);
/* 1-63 of [A-Za-z0-9._-], as segments and keyspaces are called; a segment's has no dot at its begin. */
bool segment_is_name(const char *name);
void segment_close(struct segment *segment);       /* all of it */
void segment_unmap(struct segment *segment);       /* all but the alive words */
void segment_unmap_alive(struct alive *alive, const struct geometry *geometry);

/* Our descriptor of the file; -1 (EBADF): the program has closed it, and its number may be another file's. */
int segment_fd(const struct segment *segment);
void segment_close_fd(const struct segment *segment);
/* Deadlines in it are of the clock that this process reads, or of the caller's own. */
bool segment_has_our_clock(const struct segment *segment);

/* ---- regions ----------------------------------------------------------------------------------------------- */

/* Another region is to be used from now on. A plain load of a word that no call writes. */
static inline bool segment_has_moved(const struct segment *s)
{
	return (w64_load(&s->header->moved) & 3) == MOVED;
}

/* Does that word lead to a place where a region may be? Else it is a scribble. */
bool segment_leads_on(int fd, const struct geometry *g, uint64_t moved);

/* A new region of the same file, behind all others, mapped; nobody finds it before header.moved says so. */
int segment_extend(const struct segment *from, uint64_t size, const struct geometry_needs *needs, struct segment *to);
/* The one that serves, behind `from`; by our own descriptor, as we may not open the file any more. */
int segment_follow(const struct segment *from, struct segment *to);
/* A region's tables without its index and log, for a short look. NULL: not to be had. */
struct segment *segment_glance(const struct segment *of, uint64_t offset);
void segment_end_glance(struct segment *glance);

/* Give the memory of a region back, all but the header and the alive words, which threads may still have locked. */
void segment_punch(const struct segment *s);
/* All of a region that nobody ever found. */
void segment_forget(const struct segment *of, const struct geometry *g);
/* What was given out behind the serving region `s`, up to `reach`, is nobody's. */
void segment_punch_behind(const struct segment *s, uint64_t reach);

uint64_t segment_reach(const struct segment *s);
void segment_raise_latest(const struct segment *s, uint64_t offset);

/* A number that no-one else draws: generations, EMPTY versions. */
static inline uint64_t segment_draw(const struct segment *s)
{
	return w64_add(&s->header->generation, 1) + 1;
}

#endif
