/* SPDX-License-Identifier: MIT */
/*
 * Creating, attaching, unlinking. Holds S.1 (a half-made segment is never visible, a killed creator leaves nothing),
 * S.2 (of several creators one wins, the others attach to its segment) and S.4 (a file of an earlier boot is made
 * anew). What an attach refuses (S.3) is in unit/test-segment.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#include "hash.h"
#include "layout.h"
#include "testing.h"

static char folder[64];
static char file[80]; /* in it */
static const char *self;

static int set_up(void **state)
{
	strcpy(folder, "/dev/shm/shoal-test-attach.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(file, sizeof(file), "%s/segment", folder);
	return 0;
}

static int tear_down(void **state)
{
	unlink(file);
	return rmdir(folder);
}

static unsigned entries_of(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static const struct shoal_config small = {.size = 1 << 20};

/* ---- races ------------------------------------------------------------------------------------------------- */

enum { CREATORS = 8, RACES = 30 };

struct race {
	word32 ready, opened, set, created, existed;
	unsigned flags;
};

static int create(void *arg)
{
	struct race *race = arg;
	struct shoal_config config = {.size = 1 << 20, .flags = race->flags};
	struct shoal_keyspace *k;
	struct shoal *cache;
	size_t size;
	pid_t me = getpid(), other;
	uint32_t i, number;
	int r;

	must(meet(&race->ready, CREATORS));
	r = shoal_open(file, &config, &cache);
	number = w32_add(r == SHOAL_OK ? &race->created : &race->existed, 1);
	must(meet(&race->opened, CREATORS));
	if (race->flags & SHOAL_EXCLUSIVE) {
		must(r == SHOAL_OK || r == SHOAL_ERR_EXISTS);
		return 0;
	}
	must(r == SHOAL_OK);
	must(shoal_keyspace_open(cache, "race", 1, NULL, &k) == SHOAL_OK);
	must(shoal_set(k, &number, sizeof(number), &me, sizeof(me)) == SHOAL_OK);
	must(meet(&race->set, CREATORS));
	for (i = 0; i < CREATORS; i++) {
		must(shoal_read(k, &i, sizeof(i), &other, sizeof(other), &size) == SHOAL_OK);
		must((i == number) == (other == me));
	}
	shoal_close(cache);
	return 0;
}

static void run_race(struct race *race, unsigned flags)
{
	pid_t pids[CREATORS];
	int i;

	memset(race, 0, sizeof(*race));
	race->flags = flags;
	for (i = 0; i < CREATORS; i++)
		pids[i] = spawn(create, race);
	for (i = 0; i < CREATORS; i++)
		assert_ends_well(pids[i]);
	assert_int_equal(entries_of(folder), 1);
}

static void all_creators_share_one_segment(void **state)
{
	struct race *race = share(sizeof(*race));
	int i;

	for (i = 0; i < RACES; i++) {
		run_race(race, 0);
		assert_int_equal(shoal_unlink(file), SHOAL_OK);
	}
	unshare_memory(race, sizeof(*race));
}

static void one_creates_exclusively(void **state)
{
	struct race *race = share(sizeof(*race));
	int i;

	for (i = 0; i < RACES / 3; i++) {
		run_race(race, SHOAL_EXCLUSIVE);
		assert_int_equal(w32_load(&race->created), 1);
		assert_int_equal(w32_load(&race->existed), CREATORS - 1);
		assert_int_equal(shoal_unlink(file), SHOAL_OK);
	}
	unshare_memory(race, sizeof(*race));
}

/* ---- names and flags --------------------------------------------------------------------------------------- */

static void a_name_lies_in_dev_shm(void **state)
{
	char name[40], path[100];
	struct shoal *cache;
	struct stat st;

	snprintf(name, sizeof(name), "test-attach.%d", (int)getpid());
	snprintf(path, sizeof(path), "/dev/shm/shoal.%s.v%d", name, LAYOUT_VERSION);
	assert_int_equal(shoal_open(name, &small, &cache), SHOAL_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 1 << 20);
	assert_true(st.st_blocks * 512 >= st.st_size); /* allocated: a full /dev/shm can't hit us later */
	shoal_close(cache);
	assert_int_equal(shoal_unlink(name), SHOAL_OK);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(shoal_unlink(name), SHOAL_ERR_NOT_FOUND);
}

static void wrong_names_are_refused(void **state)
{
	static const char *const wrong[] = {
		"",    ".hidden",  "a b",
		"a\n", "\xc3\xa4", "0123456789012345678901234567890123456789012345678901234567890123"};
	struct shoal *cache = (void *)&wrong;
	char deep[5000];
	size_t i;

	for (i = 0; i < COUNT(wrong); i++) {
		assert_int_equal(shoal_open(wrong[i], &small, &cache), SHOAL_ERR_INVALID);
		assert_int_equal(shoal_unlink(wrong[i]), SHOAL_ERR_INVALID);
	}
	memset(deep, '/', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = 0;
	assert_int_equal(shoal_open(deep, &small, &cache), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_open("name", &small, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_unlink(NULL), SHOAL_ERR_INVALID);
	assert_ptr_equal(cache, &wrong);
	shoal_close(NULL);
}

static void flags_say_who_creates(void **state)
{
	struct shoal_config exclusive = {.size = 1 << 20, .flags = SHOAL_EXCLUSIVE}, attach = {.flags = SHOAL_ATTACH},
			    both = {.flags = SHOAL_ATTACH | SHOAL_EXCLUSIVE}, inspect = {.flags = SHOAL_INSPECT},
			    odd = {.flags = SHOAL_INSPECT | SHOAL_EXCLUSIVE};
	struct shoal *one, *two;

	assert_int_equal(shoal_open(file, &attach, &one), SHOAL_ERR_NOT_FOUND);
	assert_int_equal(shoal_open(file, &inspect, &one), SHOAL_ERR_NOT_FOUND);
	assert_int_equal(shoal_open(file, &both, &one), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_open(file, &odd, &one), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_open(NULL, &attach, &one), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_open(NULL, &inspect, &one), SHOAL_ERR_INVALID);
	assert_int_equal(entries_of(folder), 0);
	assert_int_equal(shoal_open(file, &exclusive, &one), SHOAL_OK);
	assert_int_equal(shoal_open(file, &exclusive, &two), SHOAL_ERR_EXISTS);
	assert_int_equal(shoal_open(file, &attach, &two), SHOAL_OK);
	shoal_close(two);
	assert_int_equal(shoal_open(file, NULL, &two), SHOAL_OK);
	assert_int_equal(stats_of(two).size, 1 << 20); /* an existing one keeps its own configuration */
	shoal_close(two);
	shoal_close(one);
	assert_int_equal(shoal_open("/nowhere/segment", &small, &one), SHOAL_ERR_SYSTEM);
	assert_int_equal(errno, ENOENT);
}

static void a_mode_is_kept(void **state)
{
	struct shoal_config config = {.size = 1 << 20, .mode = 0664};
	struct shoal *one, *two;
	struct stat st;
	mode_t mask = umask(077);

	assert_int_equal(shoal_open(file, &config, &one), SHOAL_OK);
	umask(mask);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0664);
	assert_int_equal(shoal_open(file, &small, &two), SHOAL_OK); /* 0664 was its creator's wish */
	shoal_close(one);
	shoal_close(two);
	assert_int_equal(shoal_unlink(file), SHOAL_OK);
	config.mode = 01777;
	assert_int_equal(shoal_open(file, &config, &one), SHOAL_ERR_INVALID);
}

/* ---- addresses, descriptors -------------------------------------------------------------------------------- */

static void addresses_differ(void **state)
{
	struct shoal *one, *two;
	struct shoal_keyspace *k1, *k2;
	struct shoal_value v1, v2;

	assert_int_equal(shoal_open(file, &small, &one), SHOAL_OK);
	assert_int_equal(shoal_open(file, &small, &two), SHOAL_OK);
	k1 = keyspace(one, "test", NULL);
	k2 = keyspace(two, "test", NULL);
	assert_set(k1, "a", "shared");
	assert_int_equal(shoal_get(k1, STR("a"), &v1), SHOAL_OK);
	assert_int_equal(shoal_get(k2, STR("a"), &v2), SHOAL_OK);
	assert_ptr_not_equal(v1.data, v2.data);
	assert_true(holds(&v1, "shared") && holds(&v2, "shared"));
	shoal_release(&v1);
	shoal_release(&v2);
	shoal_close(one);
	assert_gives(k2, "a", "shared");
	shoal_close(two);
}

/* What this program does when it is started with a path. */
static int be_a_stranger(const char *path)
{
	struct shoal_keyspace *k;
	struct shoal *cache;
	char text[8];
	size_t size;
	DIR *fds;
	int n = 0;

	alarm(PATIENCE_S);
	fds = opendir("/proc/self/fd");
	while (fds && readdir(fds))
		n++;
	if (fds)
		closedir(fds);
	must(n <= 2 + 3 + 1); /* nothing of the parent's segment came through exec */
	must(shoal_open(path, &(struct shoal_config){.flags = SHOAL_ATTACH}, &cache) == SHOAL_OK);
	must(shoal_keyspace_open(cache, "test", 1, NULL, &k) == SHOAL_OK);
	must(shoal_read(k, "q", 1, text, sizeof(text), &size) == SHOAL_OK && size == 2);
	must(shoal_set(k, "a", 1, "pong", 4) == SHOAL_OK);
	shoal_close(cache);
	return 0;
}

static int exec_stranger(void *arg)
{
	unsigned fd;

	for (fd = 3; fd < 256; fd++) { /* meson's own, if any; ours are to be close-on-exec */
		int flags = fcntl((int)fd, F_GETFD);
		char link[300] = "", path[32];

		snprintf(path, sizeof(path), "/proc/self/fd/%u", fd);
		if (flags < 0 || readlink(path, link, sizeof(link) - 1) < 0)
			continue;
		if (strstr(link, "shm"))
			must(flags & FD_CLOEXEC);
		else
			close((int)fd);
	}
	execl(self, self, file, (char *)NULL);
	return 1;
}

static void strangers_meet(void **state)
{
	struct shoal *cache;
	struct shoal_keyspace *k;

	assert_int_equal(shoal_open(file, &small, &cache), SHOAL_OK);
	k = keyspace(cache, "test", NULL);
	assert_set(k, "q", "hi");
	assert_ends_well(spawn(exec_stranger, NULL));
	assert_gives(k, "a", "pong");
	assert_int_equal(stats_of(cache).processes, 1);
	shoal_close(cache);
}

static unsigned lines_with(const char *path, const char *text)
{
	char line[4096];
	FILE *f = fopen(path, "re");
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void close_leaves_nothing(void **state)
{
	unsigned fds, i;
	struct shoal *cache;
	struct shoal_value value;

	for (i = 0; i < 200; i++) {
		if (i == 1)
			fds = entries_of("/proc/self/fd");
		assert_int_equal(shoal_open(i % 2 ? file : NULL, &small, &cache), SHOAL_OK);
		if (i % 3)
			shoal_get(keyspace(cache, "test", NULL), STR("a"), &value);
		shoal_close(cache);
	}
	assert_int_equal(entries_of("/proc/self/fd"), fds);
	assert_int_equal(lines_with("/proc/self/maps", folder), 0);
	assert_int_equal(lines_with("/proc/self/maps", "memfd:shoal"), 0);
}

static void a_refused_open_leaves_nothing(void **state)
{
	struct shoal_config exclusive = {.size = 1 << 20, .flags = SHOAL_EXCLUSIVE};
	unsigned fds, maps, i;
	struct shoal *cache, *other;

	assert_int_equal(shoal_open(file, &small, &cache), SHOAL_OK);
	fds = entries_of("/proc/self/fd");
	maps = lines_with("/proc/self/maps", folder);
	for (i = 0; i < 20; i++) {
		assert_int_equal(shoal_open(file, &exclusive, &other), SHOAL_ERR_EXISTS);
		assert_int_equal(shoal_open(folder, &small, &other), SHOAL_ERR_INVALID);
	}
	assert_int_equal(entries_of("/proc/self/fd"), fds);
	assert_int_equal(lines_with("/proc/self/maps", folder), maps);
	assert_int_equal(entries_of(folder), 1);
	shoal_close(cache);
}

/* ---- unlink, boots ----------------------------------------------------------------------------------------- */

static void unlinked_is_still_shared(void **state)
{
	struct shoal *one, *two, *other;
	struct shoal_keyspace *k1, *k2;

	assert_int_equal(shoal_open(file, &small, &one), SHOAL_OK);
	assert_int_equal(shoal_open(file, &small, &two), SHOAL_OK);
	k1 = keyspace(one, "test", NULL);
	k2 = keyspace(two, "test", NULL);
	assert_int_equal(shoal_unlink(file), SHOAL_OK);
	assert_int_equal(shoal_unlink(file), SHOAL_ERR_NOT_FOUND);
	assert_set(k1, "a", "x");
	assert_gives(k2, "a", "x");
	assert_int_equal(shoal_open(file, &small, &other), SHOAL_OK); /* another one of that name */
	assert_misses(keyspace(other, "test", NULL), "a");
	shoal_close(other);
	shoal_close(two);
	assert_gives(k1, "a", "x");
	shoal_close(one);
}

/* Make the file look as if it were of another boot. */
static void age_by_a_boot(void)
{
	struct geometry g;
	int fd = open(file, O_RDWR | O_CLOEXEC);

	assert_int_equal(pread(fd, &g, sizeof(g), 0), sizeof(g));
	g.boot_id ^= 1;
	g.checksum = hash_bytes(&g, offsetof(struct geometry, checksum), 0);
	assert_int_equal(pwrite(fd, &g, sizeof(g), 0), sizeof(g));
	close(fd);
}

static void an_earlier_boots_is_made_anew(void **state)
{
	struct race *race = share(sizeof(*race));
	struct shoal *cache;
	struct stat before, after;
	int i;

	assert_int_equal(shoal_open(file, &small, &cache), SHOAL_OK);
	assert_set(keyspace(cache, "test", NULL), "a", "x");
	shoal_close(cache);
	age_by_a_boot();
	assert_int_equal(stat(file, &before), 0);
	assert_int_equal(shoal_open(file, &(struct shoal_config){.flags = SHOAL_INSPECT}, &cache), SHOAL_ERR_LAYOUT);
	assert_int_equal(stat(file, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(shoal_open(file, &small, &cache), SHOAL_OK);
	assert_misses(keyspace(cache, "test", NULL), "a");
	shoal_close(cache);
	age_by_a_boot();
	assert_int_equal(shoal_open(file, &(struct shoal_config){.flags = SHOAL_ATTACH}, &cache), SHOAL_ERR_NOT_FOUND);
	for (i = 0; i < RACES / 3; i++) { /* several meet it at once */
		unlink(file);
		assert_int_equal(shoal_open(file, &small, &cache), SHOAL_OK);
		shoal_close(cache);
		age_by_a_boot();
		run_race(race, 0);
	}
	unshare_memory(race, sizeof(*race));
}

/* ---- no room, no life -------------------------------------------------------------------------------------- */

static int fill_a_small_disk(void *arg)
{
	struct shoal *cache;
	int r;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", folder, "tmpfs", 0, "size=3m")) {
		skipped("no tmpfs of our own (%s)", strerror(errno));
		return 0;
	}
	must(shoal_open(file, &(struct shoal_config){.size = 4 << 20}, &cache) == SHOAL_ERR_SYSTEM);
	must(errno == ENOSPC);
	must(access(file, F_OK));
	must((r = shoal_open(file, &(struct shoal_config){.size = 2 << 20}, &cache)) == SHOAL_OK);
	shoal_close(cache);
	must(umount2(folder, MNT_DETACH) == 0);
	return 0;
}

static void a_full_disk_is_an_error(void **state)
{
	assert_ends_well(spawn(fill_a_small_disk, NULL));
}

/* Traced: stops at each entry to and return from a system call. */
static int create_traced(void *arg)
{
	struct shoal *cache;

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 97;
	raise(SIGSTOP);
	return shoal_open(file, &small, &cache);
}

/* Kill the creator at its n-th stop; false: it came to its end before. */
static bool kill_at(int n, bool *refused)
{
	pid_t pid = spawn(create_traced, NULL);
	int status = 0;

	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		if (n-- == 0) {
			kill_child(pid);
			return true;
		}
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL)) {
			kill_child(pid);
			break;
		}
	}
	*refused = WIFEXITED(status) && WEXITSTATUS(status) == 97;
	if (!*refused)
		assert_int_equal(status, 0);
	return false;
}

static void a_killed_creator_leaves_nothing(void **state)
{
	bool refused = false;
	struct shoal *cache;
	int n, whole = 0;

	for (n = 1; kill_at(n, &refused); n++) {
		if (access(file, F_OK)) {
			assert_int_equal(entries_of(folder), 0);
			continue;
		}
		whole++;
		assert_int_equal(shoal_open(file, &(struct shoal_config){.flags = SHOAL_ATTACH}, &cache), SHOAL_OK);
		assert_set(keyspace(cache, "test", NULL), "a", "x");
		assert_gives(keyspace(cache, "test", NULL), "a", "x");
		shoal_close(cache);
		assert_int_equal(shoal_unlink(file), SHOAL_OK);
	}
	if (refused)
		skipped("ptrace is refused");
	else
		assert_true(n > 10 && whole > 0 && whole < n);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(all_creators_share_one_segment),
		CASE(one_creates_exclusively),
		CASE(a_name_lies_in_dev_shm),
		CASE(wrong_names_are_refused),
		CASE(flags_say_who_creates),
		CASE(a_mode_is_kept),
		CASE(addresses_differ),
		CASE(strangers_meet),
		CASE(close_leaves_nothing),
		CASE(a_refused_open_leaves_nothing),
		CASE(unlinked_is_still_shared),
		CASE(an_earlier_boots_is_made_anew),
		CASE(a_full_disk_is_an_error),
		CASE(a_killed_creator_leaves_nothing),
	};

	if (argc > 1)
		return be_a_stranger(argv[1]);
	self = "/proc/self/exe";
	return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
