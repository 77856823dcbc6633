/* SPDX-License-Identifier: MIT */
/*
 * The geometry of segments of all sizes, and what an attach refuses, each with its own error (S.3): nothing is read
 * from a file before it has been found regular, ours, not writable by others, of our layout and size, with a header
 * whose checksum holds; and a right checksum is no excuse for areas outside the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "hash.h"
#include "segment.h"
#include "testing.h"

static char folder[64], file[80];

static int set_up(void **state)
{
	strcpy(folder, "/dev/shm/shoal-test-segment.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(file, sizeof(file), "%s/segment", folder);
	return 0;
}

static int tear_down(void **state)
{
	unlink(file);
	rmdir(file);
	return rmdir(folder);
}

static void close_segment(struct segment *s)
{
	if (s->alive)
		segment_unmap_alive(s->alive, &s->geometry);
	segment_unmap(s);
	close(s->fd);
}

static int try_open(const char *name, const struct shoal_config *config)
{
	struct segment s;
	int r = segment_open(name, config, &s), kept = errno;

	if (!r)
		close_segment(&s);
	errno = kept;
	return r;
}

/* ---- geometry ---------------------------------------------------------------------------------------------- */

static void check_geometry(const struct geometry *g)
{
	const uint64_t areas[] = {PAGE,           g->alive_at, g->processes_at, g->readers_at, g->flights_at,
	                          g->keyspaces_at, g->lines_at, g->extents_at,   g->index_at,   g->log_at};
	size_t i;

	for (i = 0; i < COUNT(areas); i++) {
		assert_int_equal(areas[i] % PAGE, 0);
		assert_true(!i || areas[i] >= areas[i - 1]);
	}
	assert_true(g->processes_at - g->alive_at >= g->readers * sizeof(struct alive));
	assert_true(g->readers_at - g->processes_at >= g->processes * sizeof(struct process));
	assert_true(g->flights_at - g->readers_at >= g->readers * sizeof(struct reader));
	assert_true(g->lines_at - g->keyspaces_at >= g->keyspaces * sizeof(struct keyspace));
	assert_true(g->extents_at - g->lines_at >= g->lines * sizeof(struct line));
	assert_true(g->index_at - g->extents_at >= g->extents * sizeof(struct extent));
	assert_true(g->log_at - g->index_at >= (uint64_t)g->buckets * sizeof(struct bucket));
	assert_true(g->log_at + (uint64_t)g->extents * g->extent_size <= g->size);
	assert_true(g->log_at <= g->size / 2); /* at least half of it is for values */
	assert_int_equal(g->extent_size % CACHE_LINE, 0);
	assert_true(g->extent_size >= g->max_entry);
	assert_true(g->extents >= 1);
}

static void every_size_has_a_geometry(void **state)
{
	struct segment s;
	uint64_t size;

	for (size = 1 << 20; size <= 1 << 30; size = size * 3 / 2 + 12345) {
		int r = segment_open(NULL, &(struct shoal_config){.size = size}, &s);

		if (r == SHOAL_ERR_SYSTEM && errno == ENOSPC) {
			skipped("no room for %zu bytes", (size_t)size);
			break;
		}
		assert_int_equal(r, SHOAL_OK);
		assert_int_equal(s.geometry.size, align_up(size, PAGE));
		check_geometry(&s.geometry);
		assert_true(s.geometry.extents >= 32);
		/* and no more is wasted */
		assert_true(s.geometry.size - s.geometry.log_at -
		                    (uint64_t)s.geometry.extents * s.geometry.extent_size <
		            (uint64_t)s.geometry.extents * CACHE_LINE + size / 1024 + 2 * PAGE);
		/* a resize adds to it */
		assert_int_equal(fcntl(s.fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK);
		close_segment(&s);
	}
}

static void defaults_are_as_documented(void **state)
{
	struct segment s;

	assert_int_equal(segment_open(NULL, NULL, &s), SHOAL_OK);
	assert_int_equal(s.geometry.size, 64 << 20);
	assert_int_equal(s.geometry.max_entry, (64 << 20) / 256);
	assert_int_equal(s.geometry.processes, 256);
	assert_int_equal(s.geometry.readers, 1024);
	assert_int_equal(s.geometry.flights, 4096);
	assert_int_equal(s.geometry.keyspaces, 64);
	assert_true(s.geometry.extents >= 64);
	close_segment(&s);
	assert_int_equal(segment_open(NULL, &(struct shoal_config){.size = 600 << 20}, &s), SHOAL_OK);
	assert_int_equal(s.geometry.max_entry, 1 << 20);
	close_segment(&s);
}

static void configuration_is_taken(void **state)
{
	struct shoal_config config = {.size = 32 << 20, .max_entry = (32 << 20) / 64, .mean_entry = 4096,
	                              .max_processes = 7, .max_threads = 11, .max_flights = 13, .max_keyspaces = 17,
	                              .max_loads = 3, .flags = SHOAL_CHECKSUM};
	struct segment s;
	uint32_t buckets;

	assert_int_equal(segment_open(NULL, &config, &s), SHOAL_OK);
	assert_int_equal(s.geometry.max_entry, (32 << 20) / 64);
	assert_int_equal(s.geometry.processes, 7);
	assert_int_equal(s.geometry.readers, 11);
	assert_int_equal(s.geometry.flights, 13);
	assert_int_equal(s.geometry.keyspaces, 17);
	assert_int_equal(s.geometry.max_loads, 3);
	assert_true(s.geometry.flags & SHOAL_CHECKSUM);
	check_geometry(&s.geometry);
	buckets = s.geometry.buckets;
	close_segment(&s);
	config.mean_entry = 256;
	assert_int_equal(segment_open(NULL, &config, &s), SHOAL_OK);
	assert_true(s.geometry.buckets > 8 * buckets);
	check_geometry(&s.geometry);
	close_segment(&s);
}

static void wrong_configurations_are_refused(void **state)
{
	static const struct shoal_config wrong[] = {
		{.size = (1 << 20) - PAGE},
		{.size = 1},
		{.size = SIZE_MAX},
		{.size = (size_t)1 << 48},
		{.size = 1 << 20, .max_entry = (1 << 20) / 64 + 1},
		{.size = 1 << 20, .max_processes = 65536},
		{.size = 1 << 20, .max_threads = 65536},
		{.size = 1 << 20, .max_threads = 4000},
		{.size = 1 << 20, .max_flights = UINT_MAX},
		{.size = 1 << 20, .max_keyspaces = UINT_MAX},
		{.size = 512 << 20, .max_keyspaces = 65537}, /* an entry names its keyspace by 16 bits */
		{.size = 1 << 20, .mean_entry = SIZE_MAX - sizeof(struct entry) - 7}, /* and 56 is 0 */
		{.size = 1 << 20, .mode = 01600},
		{.size = 1 << 20, .flags = SHOAL_EXCLUSIVE | SHOAL_ATTACH},
	};
	size_t i;

	for (i = 0; i < COUNT(wrong); i++)
		if (try_open(NULL, &wrong[i]) != SHOAL_ERR_INVALID)
			fail_msg("configuration %zu is accepted", i);
}

/* ---- refusals ---------------------------------------------------------------------------------------------- */

static const struct shoal_config small = {.size = 1 << 20}, attach = {.flags = SHOAL_ATTACH},
				 inspect = {.flags = SHOAL_INSPECT};

static void assert_refused(int error)
{
	assert_int_equal(try_open(file, &small), error);
	assert_int_equal(try_open(file, &attach), error);
	assert_int_equal(try_open(file, &inspect), error);
}

static void make(void)
{
	unlink(file);
	assert_int_equal(try_open(file, &small), SHOAL_OK);
}

static void only_regular_files(void **state)
{
	char other[100];

	assert_int_equal(mkdir(file, 0700), 0);
	assert_refused(SHOAL_ERR_INVALID);
	rmdir(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_refused(SHOAL_ERR_INVALID);
	unlink(file);
	snprintf(other, sizeof(other), "%s/other", folder);
	assert_int_equal(try_open(other, &small), SHOAL_OK);
	assert_int_equal(symlink(other, file), 0); /* not even to a good one */
	assert_refused(SHOAL_ERR_INVALID);
	unlink(file);
	unlink(other);
	assert_int_equal(symlink("/dev/null", file), 0);
	assert_refused(SHOAL_ERR_INVALID);
	unlink(file);
	assert_int_equal(try_open("/dev/null", &attach), SHOAL_ERR_INVALID);
}

static int as_another_user(void *arg)
{
	uid_t owner = *(uid_t *)arg;
	struct shoal_config config = attach;

	must(!setuid(12345));
	must(try_open(file, &attach) == (owner == 0 || owner == 12345 ? SHOAL_OK : SHOAL_ERR_PERMISSION));
	must(try_open(file, &small) == (owner == 0 || owner == 12345 ? SHOAL_OK : SHOAL_ERR_PERMISSION));
	config.owner = 23456;
	must(try_open(file, &config) == SHOAL_OK || owner == 34567);
	return 0;
}

/* Ours, root's or the configured owner's. Written to by everybody by its creator's wish,
 * so that the mode lets us in. */
static void only_trusted_owners(void **state)
{
	static const uid_t owners[] = {0, 12345, 23456, 34567};
	struct shoal_config config = {.size = 1 << 20, .mode = 0666};
	size_t i;

	if (geteuid()) {
		skipped("not root: no files of other users");
		return;
	}
	assert_int_equal(chmod(folder, 0755), 0);
	assert_int_equal(try_open(file, &config), SHOAL_OK);
	for (i = 0; i < COUNT(owners); i++) {
		assert_int_equal(chown(file, owners[i], (gid_t)-1), 0);
		assert_ends_well(spawn(as_another_user, (void *)&owners[i]));
	}
	assert_int_equal(try_open(file, &attach), SHOAL_ERR_PERMISSION); /* root trusts nobody either */
	assert_int_equal(chown(file, 0, (gid_t)-1), 0);
	assert_int_equal(chmod(file, 0600), 0);
}

static int without_access(void *arg)
{
	must(!setuid(12345));
	must(try_open(file, &attach) == SHOAL_ERR_PERMISSION);
	must(try_open(file, &small) == SHOAL_ERR_PERMISSION);
	must(segment_unlink(file) == SHOAL_ERR_PERMISSION);
	return 0;
}

static void only_with_access(void **state)
{
	if (geteuid()) {
		skipped("not root: no other user to be");
		return;
	}
	make();
	assert_int_equal(chmod(folder, 0755), 0);
	assert_ends_well(spawn(without_access, NULL));
}

static void not_writable_by_others(void **state)
{
	make();
	assert_int_equal(chmod(file, 0620), 0);
	assert_refused(SHOAL_ERR_PERMISSION);
	assert_int_equal(chmod(file, 0602), 0);
	assert_refused(SHOAL_ERR_PERMISSION);
	assert_int_equal(chmod(file, 0644), 0); /* reading is no danger */
	assert_int_equal(try_open(file, &attach), SHOAL_OK);
}

static void change(void (*how)(struct geometry *g), bool sign)
{
	struct geometry g;
	int fd;

	make();
	fd = open(file, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &g, sizeof(g), 0), sizeof(g));
	how(&g);
	if (sign)
		g.checksum = hash_bytes(&g, offsetof(struct geometry, checksum), 0);
	assert_int_equal(pwrite(fd, &g, sizeof(g), 0), sizeof(g));
	close(fd);
}

static void wrong_magic(struct geometry *g)
{
	g->magic ^= 1;
}

static void wrong_layout(struct geometry *g)
{
	g->layout++;
}

static void wrong_seed(struct geometry *g)
{
	g->seed ^= 1;
}

static void only_our_layout(void **state)
{
	int fd;

	change(wrong_magic, true);
	assert_refused(SHOAL_ERR_LAYOUT);
	change(wrong_layout, true);
	assert_refused(SHOAL_ERR_LAYOUT);
	change(wrong_seed, false);
	assert_refused(SHOAL_ERR_CORRUPT);
	unlink(file);
	fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	assert_refused(SHOAL_ERR_LAYOUT); /* empty */
	assert_int_equal(write(fd, "text", 4), 4);
	assert_refused(SHOAL_ERR_LAYOUT);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_refused(SHOAL_ERR_LAYOUT);
	close(fd);
}

static void only_its_own_size(void **state)
{
	static const off_t sizes[] = {PAGE, 2 * PAGE, (1 << 19), (1 << 20) - 1, (1 << 20) + 1, 1 << 21};
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		make();
		assert_int_equal(truncate(file, sizes[i]), 0);
		assert_refused(SHOAL_ERR_CORRUPT);
	}
	make();
	assert_int_equal(truncate(file, PAGE - 1), 0);
	assert_refused(SHOAL_ERR_LAYOUT);
}

/* Each 32-bit word of the geometry in turn, with values that are near and far, under a checksum that is right. None may
 * lead out of the file, whatever is accepted. */
static void a_hostile_geometry(void **state)
{
	static const uint32_t values[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff};
	size_t i, j, words = offsetof(struct geometry, checksum) / 4;
	struct geometry good, g;
	struct segment s;
	uint32_t word;
	int fd, r;

	make();
	fd = open(file, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &good, sizeof(good), 0), sizeof(good));
	for (i = 0; i < words; i++)
		for (j = 0; j < COUNT(values) + 2; j++) {
			if (i * 4 >= offsetof(struct geometry, boot_id) &&
			    i * 4 < offsetof(struct geometry, boot_id) + 8)
				continue;
			g = good;
			memcpy(&word, (char *)&g + i * 4, 4);
			word = j < COUNT(values) ? values[j] : j == COUNT(values) ? word + 1 : word - 1;
			memcpy((char *)&g + i * 4, &word, 4);
			g.checksum = hash_bytes(&g, offsetof(struct geometry, checksum), 0);
			assert_int_equal(pwrite(fd, &g, sizeof(g), 0), sizeof(g));
			r = segment_open(file, &attach, &s);
			assert_true(r == SHOAL_OK || r == SHOAL_ERR_CORRUPT || r == SHOAL_ERR_LAYOUT ||
			            r == SHOAL_ERR_SYSTEM);
			if (r)
				continue;
			check_geometry(&s.geometry);
			close_segment(&s);
		}
	close(fd);
}

static void swap_areas(struct geometry *g)
{
	uint64_t kept = g->index_at;

	g->index_at = g->log_at;
	g->log_at = kept;
}

static void huge_entries(struct geometry *g)
{
	g->max_entry = UINT32_MAX;
}

static void log_beyond_the_end(struct geometry *g)
{
	g->extents++;
}

static void no_whole_group(struct geometry *g)
{
	g->buckets--;
}

static void areas_must_be_where_they_follow_from(void **state)
{
	change(swap_areas, true);
	assert_refused(SHOAL_ERR_CORRUPT);
	change(huge_entries, true);
	assert_refused(SHOAL_ERR_CORRUPT);
	change(log_beyond_the_end, true);
	assert_refused(SHOAL_ERR_CORRUPT);
	change(no_whole_group, true);
	assert_refused(SHOAL_ERR_CORRUPT);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_has_a_geometry),
		cmocka_unit_test(defaults_are_as_documented),
		cmocka_unit_test(configuration_is_taken),
		cmocka_unit_test(wrong_configurations_are_refused),
		CASE(only_regular_files),
		CASE(only_trusted_owners),
		CASE(only_with_access),
		CASE(not_writable_by_others),
		CASE(only_our_layout),
		CASE(only_its_own_size),
		CASE(a_hostile_geometry),
		CASE(areas_must_be_where_they_follow_from),
	};

	return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
