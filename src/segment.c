/* SPDX-License-Identifier: MIT */
/*
 * Creation and attach.
 *
 *   unnamed file, memory allocated -> geometry and tables written -> linkat: visible -> others attach
 *
 * S.1  A half-made segment is never visible: the file has no name before its last word is written. A creator that dies
 *      at any step leaves nothing behind; the kernel frees an unnamed file.
 * S.2  Of several creators exactly one gives its file the name; the others attach to that one.
 * S.3  Nothing is read from a file before the attach has found it regular, of one name, ours (or root's, or the
 *      owner's), not writable by others, of our layout, of the size it says, with a header whose checksum holds. The
 *      geometry is copied out once and every area is checked to lie inside the file.
 * S.4  Deadlines are of CLOCK_MONOTONIC, so a file from an earlier boot is worth nothing: it is removed under flock, by
 *      one of those who meet it, and made anew. One of another time namespace is refused: its deadlines are not ours.
 * S.5  No part of the file is used for a second region: `reach` is raised before memory is given out behind it. So who
 *      comes late to an old region touches what nobody else uses. The file never holds more than `reach` says.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proc.h"
#include "segment.h"

/* ---- names ------------------------------------------------------------------------------------------------- */

/* Not by isalnum(), for which it depends on the program's locale. */
bool segment_is_name(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n >= 1 && n < NAME_SIZE && !name[n];
}

static int name_to_path(const char *name, char *path, size_t capacity)
{
	if (strchr(name, '/')) {
		if ((size_t)snprintf(path, capacity, "%s", name) >= capacity)
			return SHOAL_ERR_INVALID;
		return SHOAL_OK;
	}
	if (!segment_is_name(name) || name[0] == '.')
		return SHOAL_ERR_INVALID;
	snprintf(path, capacity, "/dev/shm/shoal.%s.v%d", name, LAYOUT_VERSION);
	return SHOAL_OK;
}

/* ---- mapping ----------------------------------------------------------------------------------------------- */

static int map_areas(int fd, const struct geometry *g, bool read_only, struct segment *s)
{
	char *base = mapping_map(fd, g->offset, g->size, !read_only);
	struct file_id file;

	if (!base)
		return SHOAL_ERR_SYSTEM;
	if (g->flags & SHOAL_HUGE_PAGES)
		mapping_use_huge(base, g->size, false);
	if (!mapping_identify(fd, &file)) {
		mapping_unmap(base, g->size);
		return SHOAL_ERR_SYSTEM;
	}
	/* Else a process that crashes would write the log of a file without a name to its core, and live until it
	 * has. */
	mapping_keep_from_cores(base + g->log_at, align_up(g->size, PAGE) - g->log_at);
	*s = (struct segment){
		.base = base,
		.geometry = *g,
		.header = (struct header *)base,
		.processes = (struct process *)(base + g->processes_at),
		.readers = (struct reader *)(base + g->readers_at),
		.flight_words = (word64 *)(base + g->words_at),
		.flights = (struct flight *)(base + g->flights_at),
		.permits = (struct permit *)(base + g->permits_at),
		.keyspaces = (struct keyspace *)(base + g->keyspaces_at),
		.lines = (struct line *)(base + g->lines_at),
		.extents = (struct extent *)(base + g->extents_at),
		.ghosts = (struct ghosts *)(base + g->ghosts_at),
		.index = (struct bucket *)(base + g->index_at),
		.log = base + g->log_at,
		.fence = g->flags & SEGMENT_FENCE,
		.read_only = read_only,
		.fd = fd,
		.file = file,
		.clock.read = clock_find_reader(),
	};
	segment_prepare(s);
	if (read_only)
		return SHOAL_OK;
	s->alive = mapping_map(fd, g->offset + g->alive_at, g->processes_at - g->alive_at, true);
	if (s->alive)
		return SHOAL_OK;
	segment_unmap(s);
	return SHOAL_ERR_SYSTEM;
}

void segment_unmap(struct segment *s)
{
	int kept = errno;

	mapping_unmap(s->base, s->geometry.size);
	s->base = NULL;
	errno = kept;
}

static void unmap_whole(struct segment *s)
{
	segment_unmap_alive(s->alive, &s->geometry);
	segment_unmap(s);
}

void segment_close(struct segment *s)
{
	int kept = errno;

	unmap_whole(s);
	segment_close_fd(s);
	errno = kept;
}

int segment_fd(const struct segment *s)
{
	if (mapping_is(s->fd, &s->file))
		return s->fd;
	errno = EBADF;
	return -1;
}

void segment_close_fd(const struct segment *s)
{
	if (segment_fd(s) >= 0)
		close(s->fd);
}

bool segment_has_our_clock(const struct segment *s)
{
	return s->clock.now || s->geometry.clock_id == proc_clock_id();
}

void segment_unmap_alive(struct alive *alive, const struct geometry *g)
{
	mapping_unmap(alive, g->processes_at - g->alive_at);
}

/* ---- create ------------------------------------------------------------------------------------------------ */

static bool membarrier_refused(void)
{
	return proc_use_membarrier() ||
	       syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
}

static int init_alive(struct alive *alive, uint32_t n)
{
	pthread_mutexattr_t attributes;
	uint32_t i;
	int r = pthread_mutexattr_init(&attributes);

	if (r)
		return SHOAL_ERR_SYSTEM;
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	for (i = 0; i < n && !r; i++)
		r = pthread_mutex_init(&alive[i].mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
	return r ? SHOAL_ERR_SYSTEM : SHOAL_OK;
}

/* The file is all zero, which is the initial state of every table but two: the alive words and the geometry. */
static int fill(int fd, const struct geometry *g, struct segment *s)
{
	int r = map_areas(fd, g, false, s);

	if (r)
		return r;
	r = init_alive(s->alive, g->readers);
	if (r) {
		unmap_whole(s);
		return r;
	}
	if (g->flags & SHOAL_HUGE_PAGES)
		mapping_use_huge(s->base, g->size, true);
	s->header->geometry = *g;
	return SHOAL_OK;
}

static int create(const char *path, const struct shoal_config *c, struct segment *s)
{
	struct geometry g;
	int fd, r = geometry_from(c, membarrier_refused(), &g);

	if (r)
		return r;
	if (!path) {
		g.flags |= SEGMENT_ANONYMOUS;
		geometry_sign(&g);
	}
	fd = path ? mapping_unnamed(path, g.size, g.mode) : mapping_anonymous(g.size);
	if (fd < 0)
		return fd;
	r = fill(fd, &g, s);
	if (!r)
		w64_store(&s->header->reach, g.size);
	if (!r && path) {
		r = mapping_name(fd, path); /* S.2: the word that publishes */
		if (r)
			unmap_whole(s);
	}
	if (r)
		mapping_close(fd);
	return r;
}

/* ---- attach ------------------------------------------------------------------------------------------------ */

enum { ATTACH_AGAIN = 1 }; /* the file was of an earlier boot, and is gone */

static int check_file(int fd, const struct shoal_config *c, struct stat *st)
{
	if (fstat(fd, st))
		return SHOAL_ERR_SYSTEM;
	if (!S_ISREG(st->st_mode) || st->st_nlink > 1) /* a second name leads to a file that is another segment's */
		return SHOAL_ERR_INVALID;
	if (st->st_uid != geteuid() && st->st_uid != 0 && !(c->owner && st->st_uid == c->owner))
		return SHOAL_ERR_PERMISSION;
	return SHOAL_OK;
}

/* A region stands in the file before any word names it. Where the file can't be asked, the word has to do. */
bool segment_leads_on(int fd, const struct geometry *g, uint64_t moved)
{
	uint64_t to = MOVED_NUMBER(moved) * PAGE;
	struct stat st;

	return MOVED_STATE(moved) == MOVED && MOVED_NUMBER(moved) < SIZE_MAX_SEGMENT / PAGE && to >= geometry_end(g) &&
	       to % MAPPING_HUGE == 0 && (fstat(fd, &st) || (uint64_t)st.st_size >= to + PAGE);
}

/* Does another region serve in the place of this one? */
static int next_region(int fd, const struct geometry *g, const struct header *h, struct geometry *next, bool *more)
{
	uint64_t moved = w64_load(&h->moved), latest = g->offset ? 0 : w64_load(&h->latest);
	int r;

	*more = segment_leads_on(fd, g, moved);
	if (latest > (*more ? MOVED_NUMBER(moved) * PAGE : g->offset) && !geometry_read(fd, latest, next))
		*more = true; /* the short cut; a scribble there leads nowhere */
	else if (*more && (r = geometry_read(fd, MOVED_NUMBER(moved) * PAGE, next)))
		return r;
	return SHOAL_OK;
}

/* The file's size (NULL: not asked) is read before `reach`, which is raised before the file grows. */
static bool reaches_too_far(const struct segment *s, const struct stat *st)
{
	return st && !s->geometry.offset && (uint64_t)st->st_size > w64_load(&s->header->reach);
}

/* From the first region to the one that serves, which mostly is that one, so it is mapped first and looked at then: a
 * mapping for the look alone takes 12 us. Offsets rise on the way, so it ends. */
static int map_serving(int fd, const struct stat *st, struct geometry *g, bool read_only, struct segment *s)
{
	struct geometry next = {0};
	bool more = false;
	int r;

	for (;;) {
		r = map_areas(fd, g, read_only, s);
		if (r)
			return r;
		r = reaches_too_far(s, st) ? SHOAL_ERR_CORRUPT : next_region(fd, g, s->header, &next, &more);
		if (!r && !more)
			return SHOAL_OK;
		unmap_whole(s);
		if (r)
			return r;
		*g = next;
	}
}

static int remove_old_boot(int fd, const char *path, const struct stat *st)
{
	struct stat now;
	int r = ATTACH_AGAIN;

	if (flock(fd, LOCK_EX))
		return SHOAL_ERR_SYSTEM;
	if (!stat(path, &now) && now.st_ino == st->st_ino && now.st_dev == st->st_dev && unlink(path) &&
	    errno != ENOENT)
		r = SHOAL_ERR_SYSTEM;
	flock(fd, LOCK_UN);
	return r;
}

static int attach_file(int fd, const char *path, const struct shoal_config *c, struct segment *s)
{
	bool read_only = c->flags & SHOAL_INSPECT;
	struct geometry g;
	struct stat st;
	uint64_t boot;
	int r = check_file(fd, c, &st);

	if (r || (r = geometry_read(fd, 0, &g)))
		return r;
	if (st.st_mode & 0022 & ~g.mode)
		return SHOAL_ERR_PERMISSION;
	if (!geometry_know_boot(&boot) || (!boot && g.boot_id)) /* it may be in use: nothing to remove */
		return SHOAL_ERR_SYSTEM;
	if (g.boot_id != boot)
		return read_only ? SHOAL_ERR_LAYOUT : remove_old_boot(fd, path, &st);
	if (!c->clock && g.clock_id != proc_clock_id())
		return SHOAL_ERR_LAYOUT;
	if (!(g.flags & SEGMENT_FENCE) && !read_only && proc_use_membarrier())
		return SHOAL_ERR_SYSTEM; /* our reads would get no barrier: the others would reuse what we read */
	return map_serving(fd, &st, &g, read_only, s);
}

static int attach(const char *path, const struct shoal_config *c, struct segment *s)
{
	int access = c->flags & SHOAL_INSPECT ? O_RDONLY : O_RDWR;
	int fd = open(path, access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	int r;

	if (fd < 0 && errno == ENOENT)
		return SHOAL_ERR_NOT_FOUND;
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return SHOAL_ERR_PERMISSION;
	if (fd < 0) /* a folder, a symbolic link, a socket: not a regular file */
		return errno == EISDIR || errno == ELOOP || errno == ENXIO ? SHOAL_ERR_INVALID : SHOAL_ERR_SYSTEM;
	r = attach_file(fd, path, c, s);
	if (r)
		mapping_close(fd);
	return r;
}

int segment_open(const char *name, const struct shoal_config *config, struct segment *s)
{
	const struct shoal_config defaults = {0}, *c = config ? config : &defaults;
	bool made = !name, rebuilt = false;
	char path[4096];
	int tries, r;

	*s = (struct segment){0};
	if ((c->flags & SHOAL_EXCLUSIVE) && (c->flags & (SHOAL_ATTACH | SHOAL_INSPECT)))
		return SHOAL_ERR_INVALID;
	if (!name)
		r = c->flags & (SHOAL_ATTACH | SHOAL_INSPECT) ? SHOAL_ERR_INVALID : create(NULL, c, s);
	else
		r = name_to_path(name, path, sizeof(path));
	/* Someone may unlink between our attach and our create, or create between: a few turns settle it. */
	for (tries = 0; name && !r && tries < 100; tries++) {
		r = c->flags & SHOAL_EXCLUSIVE ? SHOAL_ERR_NOT_FOUND : attach(path, c, s);
		rebuilt |= r == ATTACH_AGAIN;
		made = r == SHOAL_ERR_NOT_FOUND && !(c->flags & (SHOAL_ATTACH | SHOAL_INSPECT));
		if (made)
			r = create(path, c, s);
		if (r == SHOAL_OK)
			break;
		if (r == ATTACH_AGAIN || (r == SHOAL_ERR_EXISTS && !(c->flags & SHOAL_EXCLUSIVE)))
			r = SHOAL_OK;
	}
	if (!r && !s->base)
		r = SHOAL_ERR_SYSTEM;
	if (r)
		return r;
	s->clock = (struct clock){c->clock, c->clock_arg, s->clock.read};
	s->listener = (struct listener){c->log, c->log_arg};
	if (made)
		tell_of(&s->listener, SHOAL_LOG_INFO, "made a segment of %" PRIu64 " bytes%s%s", s->geometry.size,
		        rebuilt ? " in place of one of an earlier boot" : "",
		        s->fence ? ", in fence mode: membarrier is refused here" : "");
	return SHOAL_OK;
}

/* ---- regions ----------------------------------------------------------------------------------------------- */

static struct header *map_first(const struct segment *s)
{
	return mapping_map(segment_fd(s), 0, PAGE, !s->read_only);
}

static void unmap_first(struct header *h)
{
	mapping_unmap(h, PAGE);
}

uint64_t segment_reach(const struct segment *s)
{
	struct header *h = map_first(s);
	uint64_t reach;

	if (!h)
		return 0;
	reach = w64_load(&h->reach);
	unmap_first(h);
	return reach;
}

void segment_raise_latest(const struct segment *s, uint64_t offset)
{
	struct header *h = map_first(s);

	if (!h)
		return;
	w64_max(&h->latest, offset);
	unmap_first(h);
}

/* S.5. Huge pages begin where the region does. */
static int give_out(const struct segment *from, struct geometry *g)
{
	struct header *h = map_first(from);
	uint64_t reach;

	if (!h)
		return SHOAL_ERR_SYSTEM;
	do {
		reach = w64_load(&h->reach);
		g->offset = align_up(max_u64(reach, from->geometry.offset + from->geometry.size) + PROCESSES_MAX,
		                     MAPPING_HUGE);
	} while (!w64_cas(&h->reach, reach, g->offset + g->size));
	unmap_first(h);
	return SHOAL_OK;
}

static void inherit(const struct segment *from, struct segment *to)
{
	to->clock = from->clock;
	to->listener = from->listener;
}

int segment_extend(const struct segment *from, uint64_t size, const struct geometry_needs *needs, struct segment *to)
{
	struct geometry g;
	int fd, r = geometry_resized(&from->geometry, size, needs, &g);

	if (r || (r = give_out(from, &g)))
		return r;
	geometry_sign(&g);
	fd = mapping_dup(segment_fd(from));
	if (fd < 0)
		return SHOAL_ERR_SYSTEM;
	r = mapping_extend(fd, g.offset, g.size);
	if (!r && !(r = fill(fd, &g, to)))
		inherit(from, to);
	if (r) {
		mapping_punch(fd, g.offset, g.size);
		mapping_close(fd);
	}
	return r;
}

int segment_follow(const struct segment *from, struct segment *to)
{
	struct geometry g = from->geometry, next = {0};
	int r, fd = mapping_dup(segment_fd(from));
	bool more;

	if (fd < 0)
		return SHOAL_ERR_SYSTEM;
	r = next_region(fd, &g, from->header, &next, &more);
	if (!r && !(r = map_serving(fd, NULL, more ? &next : &g, from->read_only, to)))
		inherit(from, to);
	if (r)
		mapping_close(fd);
	return r;
}

struct segment *segment_glance(const struct segment *of, uint64_t offset)
{
	struct segment *s = calloc(1, sizeof(*s));
	struct geometry g;
	char *base = NULL;

	if (s && !geometry_read(segment_fd(of), offset, &g))
		base = mapping_map(of->fd, offset, g.extents_at, true);
	if (!base) {
		free(s);
		return NULL;
	}
	*s = (struct segment){
		.base = base,
		.geometry = g,
		.header = (struct header *)base,
		.alive = (struct alive *)(base + g.alive_at),
		.processes = (struct process *)(base + g.processes_at),
		.readers = (struct reader *)(base + g.readers_at),
		.keyspaces = (struct keyspace *)(base + g.keyspaces_at),
		.lines = (struct line *)(base + g.lines_at),
		.fd = of->fd,
		.file = of->file,
	};
	return s;
}

void segment_end_glance(struct segment *s)
{
	mapping_unmap(s->base, s->geometry.extents_at);
	free(s);
}

void segment_punch(const struct segment *s)
{
	const struct geometry *g = &s->geometry;

	mapping_punch(segment_fd(s), g->offset + g->processes_at, g->size - g->processes_at);
}

void segment_forget(const struct segment *of, const struct geometry *g)
{
	mapping_punch(segment_fd(of), g->offset, g->size);
}

void segment_punch_behind(const struct segment *s, uint64_t reach)
{
	uint64_t from = align_up(geometry_end(&s->geometry), PAGE);

	if (reach > from)
		mapping_punch(segment_fd(s), from, reach - from);
}

int segment_unlink(const char *name)
{
	char path[4096];
	int r;

	if (!name)
		return SHOAL_ERR_INVALID;
	r = name_to_path(name, path, sizeof(path));
	if (r || !unlink(path))
		return r;
	return errno == ENOENT                     ? SHOAL_ERR_NOT_FOUND
	       : errno == EACCES || errno == EPERM ? SHOAL_ERR_PERMISSION
	                                           : SHOAL_ERR_SYSTEM;
}
