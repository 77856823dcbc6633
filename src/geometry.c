/* SPDX-License-Identifier: MIT */
/* Sizes: from a configuration, or from another region's geometry; or read from a file, of which nothing is believed. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "geometry.h"
#include "hash.h"
#include "proc.h"

#define EXTENTS_MIN 64u
#define EXTENT_LEAST 1024u
#define ENTRY_EXTRA (sizeof(struct entry) + 3 * 8) /* two paddings and a checksum */
#define EXTENT_MAX ((uint64_t)1 << 20)
/* Keeps the division of segment.h exact: lines < 2^41 times lines of an extent < 2^23. */
#define EXTENT_LIMIT ((uint64_t)1 << 29)

static uint32_t limit_of(unsigned configured, uint64_t size, uint64_t bytes_per_unit, uint32_t least, uint32_t most)
{
	return configured ? configured : (uint32_t)max_u64(least, min_u64(most, size / bytes_per_unit));
}

static uint64_t take(uint64_t *at, uint64_t bytes)
{
	uint64_t begin = *at;

	*at = align_up(begin + bytes, PAGE);
	return begin;
}

static uint32_t buckets_for(uint64_t entries)
{
	uint64_t buckets = align_up(entries * 3 / 2 / BUCKET_SLOTS + 1, INDEX_GROUP);

	return buckets > UINT32_MAX / 2 ? UINT32_MAX / 2 / INDEX_GROUP * INDEX_GROUP : (uint32_t)buckets;
}

/* Twice as many as there are entries: small ones leave sooner than large ones, so there are more of them here. */
static uint32_t ghosts_for(uint64_t entries, uint32_t flags)
{
	return flags & SHOAL_FIFO ? 1 : (uint32_t)min_u64(entries * 2 / GHOST_WAYS + 1, UINT32_MAX / 2);
}

/* Where the areas lie follows from the counts alone, so an attacher can recompute and compare it. Returns the first
 * byte behind the index. */
static uint64_t place_areas(struct geometry *g)
{
	uint64_t at = PAGE;

	g->alive_at = take(&at, (uint64_t)g->readers * sizeof(struct alive));
	g->processes_at = take(&at, (uint64_t)g->processes * sizeof(struct process));
	g->readers_at = take(&at, (uint64_t)g->readers * sizeof(struct reader));
	g->words_at = take(&at, align_up(g->flights, FLIGHT_GROUP) * sizeof(word64));
	g->flights_at = take(&at, (uint64_t)g->flights * sizeof(struct flight));
	g->permits_at = take(&at, (uint64_t)g->readers * sizeof(struct permit));
	g->keyspaces_at = take(&at, (uint64_t)g->keyspaces * sizeof(struct keyspace));
	g->lines_at = take(&at, (uint64_t)g->lines * sizeof(struct line));
	g->extents_at = take(&at, (uint64_t)g->extents * sizeof(struct extent));
	g->ghosts_at = take(&at, (uint64_t)g->ghosts * sizeof(struct ghosts));
	g->index_at = take(&at, (uint64_t)g->buckets * sizeof(struct bucket));
	g->log_at = at;
	return at;
}

static uint64_t sum_of(const struct geometry *g)
{
	return hash_bytes(g, offsetof(struct geometry, checksum), 0);
}

void geometry_sign(struct geometry *g)
{
	g->checksum = sum_of(g);
}

static uint64_t footprint_max(const struct geometry *g)
{
	return align_up((uint64_t)g->max_entry + ENTRY_EXTRA, CACHE_LINE);
}

/* 64 to 128, or as many as there are MiB. Extents that are not large beside the largest entries lose room at their
 * ends; so do few extents, by their reserve. */
static uint64_t extents_for(const struct geometry *g, uint64_t log)
{
	uint64_t large = footprint_max(g),
		 size = min_u64(max_u64(4 * large, log / (2 * EXTENTS_MIN)), log / EXTENTS_MIN);

	return max_u64(log / max_u64(min_u64(size, max_u64(EXTENT_MAX, 2 * large)), large), 1);
}

bool geometry_know_boot(uint64_t *id)
{
	errno = 0;
	*id = proc_boot_id();
	return *id || (errno != EMFILE && errno != ENFILE && errno != ENOMEM);
}

/* Extents take what the tables leave; the tables of extents and index depend on it in turn, so they are sized for a
 * log of the whole segment. */
int geometry_from(const struct shoal_config *c, bool fence, struct geometry *g)
{
	uint64_t size = align_up(c->size ? c->size : (size_t)64 << 20, PAGE);
	uint64_t log, count, entries, boot;

	if (size < SIZE_MIN || size > SIZE_MAX_SEGMENT || c->max_entry > size / 64 ||
	    c->max_entry > EXTENT_LIMIT / 2 || c->max_processes > PROCESSES_MAX ||
	    c->max_threads > READERS_MAX || c->max_keyspaces > KEYSPACES_MAX || c->mean_entry > size ||
	    c->extents > size / EXTENT_LEAST || (c->mode & ~0777u))
		return SHOAL_ERR_INVALID;
	if (!geometry_know_boot(&boot))
		return SHOAL_ERR_SYSTEM;
	*g = (struct geometry){
		.magic = LAYOUT_MAGIC,
		.layout = LAYOUT_VERSION,
		.flags = (c->flags & (SHOAL_CHECKSUM | SHOAL_HUGE_PAGES | SHOAL_FIFO)) | (fence ? SEGMENT_FENCE : 0),
		.size = size,
		.max_size = align_up(max_u64(min_u64(c->max_size, SIZE_MAX_SEGMENT), size), PAGE),
		.asked_entry = (uint32_t)c->max_entry,
		.asked_mean = (uint32_t)min_u64(c->mean_entry, UINT32_MAX),
		.asked_processes = c->max_processes,
		.asked_readers = c->max_threads,
		.asked_flights = c->max_flights,
		.asked_keyspaces = c->max_keyspaces,
		.asked_extents = c->extents,
		.boot_id = boot,
		.clock_id = proc_clock_id(),
		.mode = c->mode ? c->mode : 0600,
		.max_loads = c->max_loads,
		.processes = limit_of(c->max_processes, size, 32 << 10, 32, 256),
		.readers = limit_of(c->max_threads, size, 16 << 10, 64, 1024),
		.flights = limit_of(c->max_flights, size, 8 << 10, 128, 4096),
		.keyspaces = limit_of(c->max_keyspaces, size, 128 << 10, 8, 64),
		.heads = HEADS_MAX,
		.max_entry = (uint32_t)(c->max_entry ? c->max_entry : min_u64(size / 256, EXTENT_MAX)),
	};
	entries = size / ((c->mean_entry ? c->mean_entry : MEAN_ENTRY) + sizeof(struct entry) + 8);
	g->lines = g->readers * 2;
	if (g->flights > FLIGHT_GROUP)
		g->flights = (uint32_t)min_u64(align_up(g->flights, FLIGHT_GROUP), UINT32_MAX - FLIGHT_GROUP + 1);
	g->extent_size = (uint32_t)max_u64(min_u64(EXTENT_MAX, size / EXTENTS_MIN / CACHE_LINE * CACHE_LINE),
	                                   footprint_max(g));
	g->extents = c->extents ? c->extents : (uint32_t)(size / g->extent_size) + EXTENTS_MIN;
	g->buckets = buckets_for(entries);
	g->ghosts = ghosts_for(entries, g->flags);
	if (place_areas(g) > size / 2)
		return SHOAL_ERR_INVALID;
	log = size - g->log_at;
	count = c->extents ? c->extents : extents_for(g, log);
	if (log / count < EXTENT_LEAST || log / count > EXTENT_LIMIT)
		return SHOAL_ERR_INVALID;
	g->extent_size = (uint32_t)(log / count / CACHE_LINE * CACHE_LINE);
	g->extents = (uint32_t)count;
	g->max_entry = (uint32_t)min_u64(g->max_entry, g->extent_size - ENTRY_EXTRA);
	place_areas(g);
	if (getrandom(&g->seed, sizeof(g->seed), 0) != sizeof(g->seed))
		return SHOAL_ERR_SYSTEM;
	geometry_sign(g);
	return SHOAL_OK;
}

/* Of a region at `offset`. */
static int check(const struct geometry *g, uint64_t offset, uint64_t file_size)
{
	struct geometry again = *g;

	if (g->magic != LAYOUT_MAGIC || g->layout != LAYOUT_VERSION)
		return SHOAL_ERR_LAYOUT;
	if (g->checksum != sum_of(g) || g->offset != offset ||
	    offset > file_size || g->size > file_size - offset)
		return SHOAL_ERR_CORRUPT;
	/* The checksum is no signature: a hostile header may carry a right one. */
	if (!g->processes || g->processes > PROCESSES_MAX || !g->readers || g->readers > READERS_MAX || !g->flights ||
	    !g->keyspaces || g->keyspaces > KEYSPACES_MAX || g->heads < 1 || g->heads > HEADS_MAX || !g->extents ||
	    !g->buckets || !g->ghosts || g->buckets % INDEX_GROUP || g->size > SIZE_MAX_SEGMENT ||
	    g->extent_size % CACHE_LINE || g->extent_size < footprint_max(g) || g->extent_size > EXTENT_LIMIT)
		return SHOAL_ERR_CORRUPT;
	if (place_areas(&again) > g->size || memcmp(&again, g, sizeof(again)) ||
	    (g->size - g->log_at) / g->extent_size < g->extents)
		return SHOAL_ERR_CORRUPT;
	return SHOAL_OK;
}

int geometry_read(int fd, uint64_t offset, struct geometry *g)
{
	struct stat st;

	if (fstat(fd, &st))
		return SHOAL_ERR_SYSTEM;
	if ((uint64_t)st.st_size < offset + PAGE || pread(fd, g, sizeof(*g), (off_t)offset) != (ssize_t)sizeof(*g))
		return offset ? SHOAL_ERR_CORRUPT : SHOAL_ERR_LAYOUT;
	return check(g, offset, (uint64_t)st.st_size);
}

int geometry_resized(const struct geometry *old, uint64_t size, const struct geometry_needs *needs, struct geometry *g)
{
	struct shoal_config c = {
		.size = size,
		.max_entry = min_u64(old->asked_entry, size / 64),
		.mean_entry = min_u64(old->asked_mean, size / 64),
		.max_processes = old->asked_processes,
		.max_threads = old->asked_readers,
		.max_flights = old->asked_flights,
		.max_keyspaces = old->asked_keyspaces,
		.max_loads = old->max_loads,
		.extents = old->asked_extents,
		.mode = old->mode,
		.flags = old->flags,
	};
	int r = geometry_from(&c, old->flags & SEGMENT_FENCE, g);

	if (!r && (g->processes < needs->processes || g->readers < needs->readers || g->keyspaces < needs->keyspaces)) {
		c.max_processes = (unsigned)max_u64(g->processes, needs->processes);
		c.max_threads = (unsigned)max_u64(g->readers, needs->readers);
		c.max_keyspaces = (unsigned)max_u64(g->keyspaces, needs->keyspaces);
		r = geometry_from(&c, old->flags & SEGMENT_FENCE, g);
	}
	if (r)
		return r;
	g->flags |= old->flags & SEGMENT_ANONYMOUS;
	g->seed = old->seed;
	g->max_size = old->max_size;
	g->asked_entry = old->asked_entry;
	g->asked_mean = old->asked_mean;
	g->asked_processes = old->asked_processes;
	g->asked_readers = old->asked_readers;
	g->asked_keyspaces = old->asked_keyspaces;
	return SHOAL_OK;
}
