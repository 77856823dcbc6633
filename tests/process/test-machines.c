/* SPDX-License-Identifier: MIT */
/*
 * Poor and hostile machines: each case works, or says clearly what is wrong. Memory that is short or taken away,
 * limits, namespaces, pids that come again, programs that close descriptors or replace themselves. What needs
 * root, namespaces or /proc is skipped where there are none. Kernels that refuse system calls are in
 * test-seccomp.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "handle.h"
#include "proc.h"
#include "refuse.h"
#include "testing.h"

static char folder[64], file[80];

static int set_up(void **state)
{
	strcpy(folder, "/dev/shm/shoal-test-machines.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(file, sizeof(file), "%s/segment", folder);
	return 0;
}

static int tear_down(void **state)
{
	unlink(file);
	return rmdir(folder);
}

static int not_here(const char *what)
{
	skipped("no %s (%s)", what, strerror(errno));
	return 0;
}

/* ---- one cache, and what is asked of it -------------------------------------------------------------------- */

struct scene {
	struct shoal *cache;
	struct shoal_keyspace *k;
	word32 leads, seen, leave;
	uint64_t identity;
	pid_t pid, child;
};

static const struct shoal_policy patient = {.wait_ms = PATIENCE_S * 1000, .lease_ms = PATIENCE_S * 1000, .retry_ms = 1};

static int open_in(struct scene *s, const char *name, const struct shoal_config *config)
{
	int r = shoal_open(name, config, &s->cache);

	return r ? r : shoal_keyspace_open(s->cache, "test", 1, &patient, &s->k);
}

static struct scene *open_scene(const char *name, const struct shoal_config *config)
{
	struct scene *s = share(sizeof(*s));

	assert_int_equal(open_in(s, name, config ? config : &(struct shoal_config){.size = 2 << 20}), SHOAL_OK);
	return s;
}

static void close_scene(struct scene *s)
{
	shoal_close(s->cache);
	unshare_memory(s, sizeof(*s));
}

static int give_own(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	return shoal_load_publish(load, "own", 3);
}

static bool fetches(struct shoal_keyspace *k, const char *key)
{
	struct shoal_value value;
	bool right = shoal_fetch(k, STR(key), give_own, NULL, &value) == SHOAL_OK && holds(&value, "own");

	shoal_release(&value);
	return right;
}

/* Everything in turn, and enough of it to evict all several times. */
static void use(struct shoal_keyspace *k, int rounds)
{
	static const char big[5000];
	char buffer[5000];
	size_t size;
	int key;

	for (key = 0; key < rounds; key++) {
		must(shoal_set(k, &key, sizeof(key), big, sizeof(big)) == SHOAL_OK);
		must(shoal_read(k, &key, sizeof(key), buffer, sizeof(buffer), &size) == SHOAL_OK &&
		     size == sizeof(big));
	}
	must(fetches(k, "fetched") && gives(k, "fetched", SHOAL_OK, "own"));
	must(shoal_delete(k, STR("fetched")) == SHOAL_OK && gives(k, "fetched", SHOAL_MISS, NULL));
}

/* Leads a load, has a value in hand, and stays so. */
static void take_hold(struct scene *s)
{
	static struct shoal_value held;
	struct shoal_load *load;
	struct shoal_value value;

	must(shoal_set(s->k, STR("held"), STR("x")) == SHOAL_OK);
	must(shoal_get(s->k, STR("held"), &held) == SHOAL_OK);
	must(shoal_begin(s->k, STR("led"), &load, &value) == SHOAL_LEAD);
	s->identity = proc_self();
	s->pid = getpid();
	post(&s->leads);
}

static int lead_for_ever(void *arg)
{
	take_hold(arg);
	for (;;)
		pause();
	return 0;
}

/* The leader of "led" is gone, or will be in a moment: its waiter leads, and what it held comes back. */
static bool inherits(struct scene *s)
{
	struct shoal_load *load;
	struct shoal_value value;
	int r = shoal_begin(s->k, STR("led"), &load, &value);

	if (r == SHOAL_WAIT)
		r = shoal_wait(load, PATIENCE_S * 1000, &value);
	if (r != SHOAL_LEAD) {
		fprintf(stderr, "the heir has %s\n", shoal_strerror(r));
		return false;
	}
	return shoal_load_publish(load, "heir's", 6) == SHOAL_OK;
}

static bool has_recovered(struct scene *s, unsigned processes)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	struct shoal_stats stats;

	do {
		if (shoal_reap(s->cache) < 0 || shoal_stats(s->cache, &stats))
			return false;
		if (stats.processes <= processes && !stats.pins && !stats.flights)
			return true;
		sched_yield();
	} while (clock_system_ns(CLOCK_MONOTONIC) < deadline);
	fprintf(stderr, "%u processes, %u pins, %u flights are left\n", stats.processes, stats.pins, stats.flights);
	return false;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static bool own_tmpfs(const char *where, const char *options)
{
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", where, "tmpfs", 0, options);
}

static int fill_dev_shm(void *arg)
{
	struct shoal_value value;
	struct scene s = {0};
	int fd;

	if (!own_tmpfs("/dev/shm", "size=6m"))
		return not_here("/dev/shm of our own");
	must(open_in(&s, "full", &(struct shoal_config){.size = 8 << 20}) == SHOAL_ERR_SYSTEM && errno == ENOSPC);
	must(open_in(&s, "full", &(struct shoal_config){.size = 2 << 20}) == SHOAL_OK);
	fd = open("/dev/shm/rest", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	must(fd >= 0 && fallocate(fd, 0, 0, 8 << 20) && !fallocate(fd, 0, 0, 3 << 20));
	while (write(fd, s.k, 1) == 1)
		lseek(fd, 4095, SEEK_CUR);
	must(errno == ENOSPC || errno == EFBIG);
	must(shoal_set(s.k, STR("held"), STR("x")) == SHOAL_OK && shoal_get(s.k, STR("held"), &value) == SHOAL_OK);
	use(s.k, 2000); /* its memory was its own from the beginning */
	must(shoal_resize(s.cache, 4 << 20) == SHOAL_ERR_SYSTEM && errno == ENOSPC);
	use(s.k, 2000);
	must(holds(&value, "x"));
	shoal_release(&value);
	shoal_close(s.cache);
	return 0;
}

static void a_full_dev_shm(void **state)
{
	assert_ends_well(spawn(fill_dev_shm, NULL));
}

static int use_truncated(void *arg)
{
	struct scene *s = arg;

	must(!truncate(file, PAGE));
	use(s->k, 10);
	return 0;
}

/* Who may write to a segment may cut it short: those attached get SIGBUS, which is beyond the promises. What is cut is
 * refused afterwards, and an anonymous one can't be. */
static void a_truncated_file(void **state)
{
	struct scene *s = open_scene(NULL, NULL);
	struct shoal *other;
	int status;

	assert_int_equal(ftruncate(segment_fd(&s->cache->member->segment), PAGE), -1);
	assert_int_equal(errno, EPERM);
	close_scene(s);
	if (UNDER_ASAN || UNDER_TSAN) {
		skipped("sanitizers have handlers of their own for SIGBUS");
	} else {
		s = open_scene(file, NULL);
		status = ending_of(spawn(use_truncated, s));
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
		assert_int_equal(shoal_open(file, NULL, &other), SHOAL_ERR_CORRUPT);
		assert_int_equal(shoal_unlink(file), SHOAL_OK);
		truncate(file, 2 << 20);
	}
}

struct hole {
	const char *name;
	uint64_t at, size;
};

static void *come_and_go(void *arg)
{
	must(fetches(arg, "in a thread"));
	return NULL;
}

static int count(const struct shoal_entry *e, void *arg)
{
	++*(int *)arg;
	return 0;
}

/* What it finds is right or missing. */
static void use_with_holes(struct scene *s)
{
	struct shoal_load *load;
	struct shoal_value value;
	struct shoal_stats stats;
	pthread_t thread;
	char key[16];
	int i, r;

	for (i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		r = shoal_get(s->k, STR(key), &value);
		must(r == SHOAL_MISS || (r == SHOAL_OK && holds(&value, key)));
		shoal_release(&value);
	}
	for (i = 0; i < 1500; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		r = shoal_set(s->k, STR(key), STR(key));
		must(r == SHOAL_OK || r == SHOAL_ERR_NO_SPACE);
		r = shoal_get(s->k, STR(key), &value);
		must(r == SHOAL_MISS || (r == SHOAL_OK && holds(&value, key)));
		shoal_release(&value);
		snprintf(key, sizeof(key), "own %d", i);
		must(fetches(s->k, key));
		shoal_expire(s->k, STR(key));
		shoal_delete(s->k, STR(key));
	}
	r = shoal_begin(s->k, STR("steps"), &load, &value);
	must(r == SHOAL_LEAD && shoal_load_publish(load, "x", 1) != SHOAL_ERR_INVALID);
	shoal_delete(s->k, STR("steps"));
	i = 0;
	shoal_scan(s->cache, NULL, count, &i);
	must(!shoal_stats(s->cache, &stats));
	must(shoal_reap(s->cache) >= 0);
	must(!pthread_create(&thread, NULL, come_and_go, s->k) && !pthread_join(thread, NULL));
}

static int punch(void *arg)
{
	const struct hole *hole = arg;
	struct shoal_value held;
	struct scene s = {0};
	char key[16];
	int i, fd;

	must(open_in(&s, file, &(struct shoal_config){.size = 2 << 20, .flags = SHOAL_CHECKSUM}) == SHOAL_OK);
	for (i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		must(shoal_set(s.k, STR(key), STR(key)) == SHOAL_OK);
	}
	must(shoal_get(s.k, STR("key 7"), &held) == SHOAL_OK);
	fd = open(file, O_RDWR | O_CLOEXEC);
	must(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)hole->at, (off_t)hole->size));
	close(fd);
	use_with_holes(&s);
	shoal_release(&held);
	shoal_close(s.cache);
	return 0;
}

static int attach_to_holes(void *arg)
{
	struct scene s = {0};
	int r = open_in(&s, file, &(struct shoal_config){.flags = SHOAL_ATTACH});

	must(r == SHOAL_OK || r == SHOAL_ERR_LAYOUT || r == SHOAL_ERR_CORRUPT);
	if (!r)
		use_with_holes(&s);
	return 0;
}

/* An area of a segment that is in use turns to zeros. */
static void a_hole_in_each_area(void **state)
{
	struct scene *s = open_scene(file, &(struct shoal_config){.size = 2 << 20, .flags = SHOAL_CHECKSUM});
	struct geometry g = s->cache->member->segment.geometry;
	struct hole holes[] = {
		{"header", 0, g.alive_at},
		{"alive words", g.alive_at, g.processes_at - g.alive_at},
		{"processes", g.processes_at, g.readers_at - g.processes_at},
		{"readers", g.readers_at, g.flights_at - g.readers_at},
		{"flights", g.flights_at, g.permits_at - g.flights_at},
		{"permits", g.permits_at, g.keyspaces_at - g.permits_at},
		{"keyspaces", g.keyspaces_at, g.lines_at - g.keyspaces_at},
		{"lines", g.lines_at, g.extents_at - g.lines_at},
		{"extents", g.extents_at, g.ghosts_at - g.extents_at},
		{"ghosts", g.ghosts_at, g.index_at - g.ghosts_at},
		{"index", g.index_at, g.log_at - g.index_at},
		{"log", g.log_at, g.size - g.log_at},
	};
	size_t i;
	int status;

	close_scene(s);
	for (i = 0; i < COUNT(holes); i++) {
		if (UNDER_TSAN && i == 1) {
			skipped("a hole in the alive words: ThreadSanitizer keeps books on mutexes");
			continue;
		}
		unlink(file);
		status = ending_of(spawn(punch, &holes[i]));
		if (status)
			fail_msg("a hole in the %s: status %#x", holes[i].name, status);
		status = ending_of(spawn(attach_to_holes, NULL));
		if (status)
			fail_msg("a hole in the %s, and attached then: status %#x", holes[i].name, status);
	}
}

/* ---- limits ------------------------------------------------------------------------------------------------ */

static void limit(int what, rlim_t most)
{
	struct rlimit r;

	must(!getrlimit(what, &r));
	r.rlim_cur = most;
	must(!setrlimit(what, &r));
}

static unsigned descriptors(void)
{
	unsigned n = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void leave_no_descriptor(void)
{
	limit(RLIMIT_NOFILE, 256);
	while (dup(0) >= 0)
		;
	must(errno == EMFILE);
}

static int wait_without_descriptors(void *arg)
{
	struct scene *s = arg;
	struct shoal *other;

	leave_no_descriptor();
	must(shoal_open(NULL, NULL, &other) == SHOAL_ERR_SYSTEM && errno == EMFILE);
	must(shoal_open(file, NULL, &other) == SHOAL_ERR_SYSTEM && errno == EMFILE);
	use(s->k, 1000);
	post(&s->seen);
	must(inherits(s));
	return 0;
}

/* The first call of a child, its waits, and the death of its leader, who stays a zombie. */
static void out_of_descriptors(void **state)
{
	struct scene *s = open_scene(NULL, NULL);
	pid_t leader = spawn(lead_for_ever, s), waiter;

	assert_true(await(&s->leads, 1));
	waiter = spawn(wait_without_descriptors, s);
	assert_true(await(&s->seen, 1));
	kill(leader, SIGKILL);
	assert_ends_well(waiter);
	assert_true(has_recovered(s, 1));
	kill_child(leader);
	close_scene(s);
}

/* All but so many are taken. */
static void leave_descriptors(int n)
{
	leave_no_descriptor();
	while (n)
		close(255 - --n);
}

static int open_with_the_last(void *arg)
{
	struct scene *s = arg, other = {0};
	struct stat before, after;
	struct shoal *made;
	char name[100];
	int n, r, failed = 0;

	snprintf(name, sizeof(name), "%s/made", folder);
	must(!stat(file, &before));
	leave_no_descriptor();
	for (n = 0; n < 12; n++) {
		leave_descriptors(n);
		r = open_in(&other, file, &(struct shoal_config){.flags = SHOAL_ATTACH});
		must(r == SHOAL_OK || (r == SHOAL_ERR_SYSTEM && errno == EMFILE));
		if (!r) {
			must(gives(other.k, "a", SHOAL_OK, "theirs"));
			shoal_close(other.cache);
		}
		failed += r != 0;
		must(!stat(file, &after) && after.st_ino == before.st_ino); /* not taken for that of an earlier boot */
		leave_descriptors(n);
		r = shoal_open(name, &(struct shoal_config){.size = 2 << 20}, &made);
		must(r == SHOAL_OK
		             ? made->member->segment.geometry.boot_id == s->cache->member->segment.geometry.boot_id
		             : r == SHOAL_ERR_SYSTEM && errno == EMFILE && access(name, F_OK));
		if (!r) {
			shoal_close(made);
			must(!unlink(name));
		}
	}
	must(failed && failed < 12); /* from none to enough */
	return 0;
}

/* With one descriptor a file can be opened, and nothing else be asked. A live segment was removed for that. */
static void the_last_descriptors(void **state)
{
	struct scene *s = open_scene(file, NULL);

	assert_set(s->k, "a", "theirs");
	assert_ends_well(spawn(open_with_the_last, s));
	assert_gives(s->k, "a", "theirs");
	close_scene(s);
}

static int map_too_much(void *arg)
{
	struct scene s = {0};
	unsigned fds = descriptors();

	limit(RLIMIT_AS, (rlim_t)256 << 20);
	must(open_in(&s, file, &(struct shoal_config){.size = 512 << 20}) == SHOAL_ERR_SYSTEM && errno == ENOMEM);
	must(access(file, F_OK) && descriptors() == fds);
	must(open_in(&s, NULL, &(struct shoal_config){.size = 512 << 20}) == SHOAL_ERR_SYSTEM && errno == ENOMEM);
	must(open_in(&s, file, &(struct shoal_config){.size = 2 << 20}) == SHOAL_OK);
	use(s.k, 1000);
	must(shoal_resize(s.cache, 512 << 20) == SHOAL_ERR_SYSTEM && errno == ENOMEM);
	use(s.k, 1000);
	shoal_close(s.cache);
	return 0;
}

static void too_little_address_space(void **state)
{
	if (UNDER_ASAN || UNDER_TSAN) {
		skipped("sanitizers take all the address space");
		return;
	}
	assert_ends_well(spawn(map_too_much, NULL));
}

static int make_too_large_a_file(void *arg)
{
	struct scene s = {0};

	limit(RLIMIT_FSIZE, 4 << 20);
	must(open_in(&s, file, &(struct shoal_config){.size = 8 << 20}) == SHOAL_ERR_SYSTEM && errno == EFBIG);
	must(open_in(&s, NULL, &(struct shoal_config){.size = 8 << 20}) == SHOAL_ERR_SYSTEM && errno == EFBIG);
	must(open_in(&s, file, &(struct shoal_config){.size = 2 << 20}) == SHOAL_OK);
	use(s.k, 1000);
	must(shoal_resize(s.cache, 8 << 20) == SHOAL_ERR_SYSTEM && errno == EFBIG);
	use(s.k, 1000);
	return 0;
}

/* An error, where the kernel would end the process by SIGXFSZ. */
static void too_small_a_file_limit(void **state)
{
	assert_ends_well(spawn(make_too_large_a_file, NULL));
}

/* A unit mistaken for another. The limit is for the day that this is broken: the machine would not outlive it. */
static int ask_for_too_much(void *arg)
{
	const size_t much = (size_t)1 << 46;
	struct scene s = {0};

	limit(RLIMIT_FSIZE, 4 << 20);
	must(open_in(&s, NULL, &(struct shoal_config){.size = much}) == SHOAL_ERR_SYSTEM && errno == ENOSPC);
	must(open_in(&s, NULL, &(struct shoal_config){.size = 2 << 20, .max_size = much}) == SHOAL_OK);
	use(s.k, 1000);
	must(shoal_resize(s.cache, much) == SHOAL_ERR_SYSTEM && errno == ENOSPC);
	use(s.k, 1000);
	return 0;
}

static void more_than_the_machine_has(void **state)
{
	assert_ends_well(spawn(ask_for_too_much, NULL));
}

static int use_after_closing_all(void *arg)
{
	struct scene *s = arg;
	char other[100], text[4];
	struct stat st;
	int fd;

	use(s->k, 10);
	for (fd = 3; fd < 256; fd++)
		close(fd);
	snprintf(other, sizeof(other), "%s/log", folder);
	for (fd = 0; fd < 20; fd++)
		must(open(other, O_CREAT | O_RDWR | O_CLOEXEC | O_TRUNC, 0600) == 3 + fd);
	must(write(3, "log", 3) == 3);
	use(s->k, 1000);
	must(shoal_reap(s->cache) == 0);
	must(shoal_resize(s->cache, 1 << 20) == SHOAL_ERR_SYSTEM && errno == EBADF);
	use(s->k, 1000);
	shoal_close(s->cache);
	must(!unlink(other) && pread(3, text, 4, 0) == 3 && !fstat(3, &st) && st.st_size == 3);
	for (fd = 0; fd < 20; fd++)
		must(fcntl(3 + fd, F_GETFD) >= 0); /* none of them was taken for ours */
	return 0;
}

static int fork_after_closing_all(void *arg)
{
	struct scene *s = arg;
	int fd;

	for (fd = 3; fd < 256; fd++)
		close(fd);
	return use_after_closing_all(s);
}

/* As daemons do: the library's descriptors are gone, and their numbers are other files'. */
static void a_program_closes_all_descriptors(void **state)
{
	struct scene *s = open_scene(NULL, NULL);

	assert_ends_well(spawn(use_after_closing_all, s));
	assert_ends_well(spawn(fork_after_closing_all, s));
	assert_true(has_recovered(s, 1));
	close_scene(s);
}

static int without_barriers(void *arg)
{
	struct scene *s = arg;
	struct shoal_value value;

	if (!refuse((const int[]){SYS_membarrier}, 1, EPERM))
		return not_here("seccomp");
	if (s->cache->member->segment.fence)
		return not_here("membarrier to begin with");
	must(shoal_get(s->k, STR("a"), &value) == SHOAL_ERR_SYSTEM && errno == EPERM);
	must(fetches(s->k, "a")); /* no cache, but a value */
	return 0;
}

static uint32_t free_extents(struct scene *s)
{
	const struct segment *segment = &s->cache->member->segment;
	uint32_t x, n = 0;

	for (x = 0; x < segment->geometry.extents; x++)
		n += EXTENT_STATE(w64_load(&segment->extents[x].word)) == EXTENT_FREE;
	return n;
}

/* What it took out of use it can't ask the readers about: nothing of that is used again. */
static int fill_without_barriers(void *arg)
{
	static const char big[5000];
	struct scene *s = arg;
	uint64_t bytes = 0;
	int key, r;

	must(gives(s->k, "a", SHOAL_OK, "ours")); /* it has registered */
	if (!refuse((const int[]){SYS_membarrier}, 1, EPERM))
		return not_here("seccomp");
	for (key = 0; (r = shoal_set(s->k, &key, sizeof(key), big, sizeof(big))) == SHOAL_OK && bytes < 8 << 20; key++)
		bytes += sizeof(big);
	must(r == SHOAL_ERR_NO_SPACE && bytes < 2 << 20 && !free_extents(s));
	must(fetches(s->k, "b"));
	key = 0;
	r = shoal_delete(s->k, &key, sizeof(key));
	must(r == SHOAL_OK || r == SHOAL_MISS);
	return 0;
}

/* Trap 18, and in the midst of it: what is retired stays so till somebody who may asks. */
static void membarrier_is_refused_midway(void **state)
{
	struct scene *s = open_scene(NULL, NULL);

	if (s->cache->member->segment.fence) {
		not_here("membarrier to begin with");
	} else {
		assert_set(s->k, "a", "ours");
		assert_ends_well(spawn(fill_without_barriers, s));
		use(s->k, 2000);
	}
	close_scene(s);
}

/* A worker locks itself up after the segment was made for it. */
static void membarrier_is_refused_later(void **state)
{
	struct scene *s = open_scene(NULL, NULL);

	assert_ends_well(spawn(without_barriers, s));
	close_scene(s);
}

/* ---- namespaces -------------------------------------------------------------------------------------------- */

struct inside {
	int flags;
	bool own_proc;
	int (*body)(void *);
	void *arg;
};

/* A child of that child is the first to be inside a pid or time namespace. */
static int enter_namespace(void *arg)
{
	const struct inside *in = arg;
	pid_t parent = getpid(), pid;
	int status;

	if (unshare(in->flags))
		return 77;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent && getppid() != 0)
			_exit(98);
		alarm(2 * PATIENCE_S);
		if (in->own_proc &&
		    (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("proc", "/proc", "proc", 0, NULL)))
			_exit(77);
		_exit(in->body(in->arg));
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 96;
}

/* False: not to be had here. */
static bool runs_inside(int flags, bool own_proc, int (*body)(void *), void *arg)
{
	struct inside in = {flags, own_proc, body, arg};
	int status = ending_of(spawn(enter_namespace, &in));

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		not_here("such a namespace");
		return false;
	}
	assert_int_equal(status, 0);
	return true;
}

static int try_unshare(void *arg)
{
	return unshare(*(int *)arg) ? 77 : 0;
}

static bool has_namespace(int flags)
{
	return !ending_of(spawn(try_unshare, &flags)) || not_here("such a namespace");
}

static pid_t enter(struct inside *in)
{
	return spawn(enter_namespace, in);
}

static int clone_with_pid(pid_t pid)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};

	return (int)syscall(SYS_clone3, &args, sizeof(args));
}

static int stay(void *arg)
{
	post(&((struct scene *)arg)->seen);
	for (;;)
		pause();
	return 0;
}

/* By clone3 with set_tid, in a namespace of our own: nobody else takes a pid there. */
static int reuse_a_pid(void *arg)
{
	enum { PID = 300 };
	struct scene *s = arg;
	uint64_t begin = clock_system_ns(CLOCK_BOOTTIME);
	pid_t pid = clone_with_pid(PID);

	if (!pid)
		_exit(lead_for_ever(s));
	if (pid < 0)
		return not_here("clone3 with set_tid");
	must(await(&s->leads, 1) && s->pid == PID);
	while (clock_system_ns(CLOCK_BOOTTIME) < begin + 3 * SECOND_NS / (uint64_t)sysconf(_SC_CLK_TCK))
		sched_yield();
	kill(pid, SIGKILL);
	must(waitpid(pid, NULL, 0) == pid);
	pid = clone_with_pid(PID);
	if (!pid)
		_exit(stay(s));
	must(pid == PID && await(&s->seen, 1));
	must(inherits(s));
	must(has_recovered(s, 1));
	kill_child(pid);
	return 0;
}

static void a_pid_comes_again(void **state)
{
	struct scene *s = open_scene(NULL, NULL);

	runs_inside(CLONE_NEWPID | CLONE_NEWNS, true, reuse_a_pid, s);
	close_scene(s);
}

static int judge_the_first(void *arg)
{
	struct scene *s = arg;

	must(proc_is_dead(s->identity, proc_self()) == PROC_ALIVE);
	return 0;
}

/* We are pid 1 here, with a /proc of our own; our child sees that of the outer namespace,
 * where pid 1 is another one. */
static int be_judged_by_an_outer_proc(void *arg)
{
	struct scene *s = arg;
	pid_t pid;
	int status;

	s->identity = proc_self();
	must(getpid() == 1 && s->identity >> 22 & 0x3ffffff);
	pid = fork();
	if (!pid) {
		must(!umount2("/proc", MNT_DETACH));
		_exit(judge_the_first(s));
	}
	must(waitpid(pid, &status, 0) == pid && !status);
	return 0;
}

static void a_foreign_proc_tells_nothing(void **state)
{
	struct scene *s = open_scene(NULL, NULL);

	runs_inside(CLONE_NEWPID | CLONE_NEWNS, true, be_judged_by_an_outer_proc, s);
	close_scene(s);
}

/* Killed over there: its lock byte is free. */
static void a_leader_in_another_pid_namespace(void **state)
{
	struct scene *s = open_scene(NULL, NULL);
	struct inside in = {CLONE_NEWPID, false, lead_for_ever, s};
	struct shoal_load *load;
	struct shoal_value value;
	pid_t pid;
	int status;

	if (!has_namespace(CLONE_NEWPID)) {
		close_scene(s);
		return;
	}
	pid = enter(&in);
	assert_true(await(&s->leads, 1));
	assert_int_equal(s->pid, 1);
	assert_int_equal(proc_is_dead(s->identity, proc_self()), PROC_FOREIGN);
	assert_int_equal(shoal_begin(s->k, STR("led"), &load, &value), SHOAL_WAIT);
	assert_int_equal(shoal_reap(s->cache), 0); /* it lives, though no pid of ours tells */
	assert_int_equal(stats_of(s->cache).processes, 2);
	kill(pid, SIGKILL); /* with it goes the namespace's first process, by its death signal */
	assert_int_equal(shoal_wait(load, PATIENCE_S * 1000, &value), SHOAL_LEAD);
	assert_int_equal(shoal_load_publish(load, "x", 1), SHOAL_OK);
	waitpid(pid, &status, 0);
	assert_true(has_recovered(s, 1));
	close_scene(s);
}

static int stay_as_child(void *arg)
{
	struct scene *s = arg;

	use(s->k, 1);
	post(&s->seen);
	await(&s->leave, 1);
	return 0;
}

/* Not the first of its namespace, or its child would die with it. */
static int lead_with_a_child(void *arg)
{
	struct scene *s = arg;
	pid_t leader = fork();
	int status;

	if (!leader) {
		take_hold(s);
		if (!fork())
			_exit(stay_as_child(s));
		for (;;)
			pause();
	}
	must(await(&s->leads, 1) && await(&s->seen, 1));
	kill(leader, SIGKILL);
	waitpid(leader, &status, 0);
	post(&s->leads);
	must(await(&s->leave, 1));
	return 0;
}

/* A lock is its description's, which a child of fork has, too: it gives its parent's back at its first call. */
static void a_child_does_not_hold_its_parents_lock(void **state)
{
	struct scene *s = open_scene(NULL, NULL);
	struct inside in = {CLONE_NEWPID, false, lead_with_a_child, s};
	pid_t pid;

	if (!has_namespace(CLONE_NEWPID)) {
		close_scene(s);
		return;
	}
	pid = enter(&in);
	assert_true(await(&s->leads, 2));
	assert_true(inherits(s));
	assert_true(has_recovered(s, 2)); /* we, and the child that lives */
	post(&s->leave);
	ending_of(pid);
	close_scene(s);
}

static int use_it(void *arg)
{
	struct scene *s = arg, other = {0};

	use(s->k, 1000);
	must(open_in(&other, file, NULL) == SHOAL_OK);
	use(other.k, 1000);
	shoal_close(other.cache);
	return 0;
}

static void another_network_namespace(void **state)
{
	struct scene *s = open_scene(file, NULL);

	runs_inside(CLONE_NEWNET, false, use_it, s);
	close_scene(s);
}

static int meet_inside(void *arg)
{
	struct scene other = {0};
	pid_t pid;
	int status;

	must(open_in(&other, NULL, &(struct shoal_config){.size = 2 << 20}) == SHOAL_OK);
	must(other.cache->member->segment.geometry.clock_id);
	use(other.k, 10);
	pid = fork();
	if (!pid) {
		use(other.k, 10);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid && !status);
	return 0;
}

/* CLOCK_MONOTONIC is 1000 s ahead: what is in the segment would be long dead there. */
static int be_in_another_time(void *arg)
{
	struct scene *s = arg;
	int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	pid_t parent = getpid(), pid;
	struct shoal_value value;
	struct shoal *other = (void *)s;
	int status;

	if (fd < 0 || write(fd, "1 1000 0", 8) != 8)
		return not_here("timens_offsets");
	close(fd);
	pid = fork();
	if (!pid) {
		become_child(parent);
		must(proc_clock_id());
		must(shoal_open(file, NULL, &other) == SHOAL_ERR_LAYOUT && other == (void *)s);
		must(shoal_open(file, &(struct shoal_config){.flags = SHOAL_INSPECT}, &other) == SHOAL_ERR_LAYOUT);
		must(shoal_get(s->k, STR("a"), &value) == SHOAL_ERR_LAYOUT && !value.data);
		must(shoal_set(s->k, STR("a"), STR("x")) == SHOAL_ERR_LAYOUT);
		must(fetches(s->k, "a"));
		_exit(meet_inside(s));
	}
	must(waitpid(pid, &status, 0) == pid && !status);
	must(!proc_clock_id()); /* children alone were to go there */
	must(gives(s->k, "a", SHOAL_OK, "ours"));
	return 0;
}

static int unshare_time(void *arg)
{
	return unshare(CLONE_NEWTIME) ? not_here("time namespaces") : be_in_another_time(arg);
}

static void another_time_namespace(void **state)
{
	struct scene *s = open_scene(file, NULL);

	assert_set(s->k, "a", "ours");
	assert_ends_well(spawn(unshare_time, s));
	assert_gives(s->k, "a", "ours");
	close_scene(s);
}

/* ---- deaths ------------------------------------------------------------------------------------------------ */

static int lead_as_nobody(void *arg)
{
	if (setuid(65534))
		return not_here("another user");
	return lead_for_ever(arg);
}

/* Workers that gave their rights up can't open the file any more, and so have no lock byte: their pid tells. */
static void a_worker_without_rights(void **state)
{
	struct scene *s = open_scene(file, NULL);
	pid_t pid;

	if (geteuid()) {
		not_here("another user");
		close_scene(s);
		return;
	}
	pid = spawn(lead_as_nobody, s);
	assert_true(await(&s->leads, 1));
	assert_int_equal(shoal_reap(s->cache), 0);
	kill(pid, SIGKILL);
	assert_true(inherits(s));
	ending_of(pid);
	assert_true(has_recovered(s, 1));
	close_scene(s);
}

static void a_zombie_leader(void **state)
{
	struct scene *s = open_scene(NULL, NULL);
	pid_t pid = spawn(lead_for_ever, s);

	assert_true(await(&s->leads, 1));
	kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT), 0);
	assert_true(inherits(s));
	assert_true(has_recovered(s, 1));
	kill_child(pid);
	close_scene(s);
}

/* A raw clone has no alive word. */
static int clone_a_leader(void *arg)
{
	struct scene *s = arg;
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (!pid)
		_exit(lead_for_ever(s));
	must(await(&s->leads, 1));
	kill(pid, SIGKILL);
	must(inherits(s));
	must(waitpid(pid, NULL, 0) == pid);
	must(has_recovered(s, 1));
	return 0;
}

static void a_leader_by_raw_clone(void **state)
{
	struct scene *s = open_scene(NULL, NULL);

	if (UNDER_TSAN)
		skipped("a raw clone is beyond ThreadSanitizer");
	else
		assert_ends_well(spawn(clone_a_leader, s));
	close_scene(s);
}

/* ---- exec, vfork ------------------------------------------------------------------------------------------- */

static int be_another_program(char **argv)
{
	struct scene s = {0};
	char link[300], path[32];
	int fd;

	alarm(2 * PATIENCE_S);
	for (fd = 3; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		memset(link, 0, sizeof(link));
		must(readlink(path, link, sizeof(link) - 1) < 0 || !strstr(link, "shoal"));
	}
	if (!strcmp(argv[1], "again")) {
		must(open_in(&s, argv[2], &(struct shoal_config){.flags = SHOAL_ATTACH}) == SHOAL_OK);
		use(s.k, 100);
		must(shoal_set(s.k, STR("again"), STR("x")) == SHOAL_OK);
	}
	if (strcmp(argv[1], "end"))
		for (;;)
			pause();
	return 0;
}

static int lead_and_exec(void *arg)
{
	take_hold(arg);
	execl("/proc/self/exe", "test-machines", ((struct scene *)arg)->child ? "again" : "stay", file, (char *)NULL);
	return 97;
}

/* It has the same pid and start time, and nothing else of what it was. */
static void a_leader_that_execs(void **state)
{
	struct scene *s = open_scene(file, NULL);
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	struct shoal_value value;
	pid_t pid;
	int again;

	for (again = 0; again < 2; again++) {
		s->child = again;
		pid = spawn(lead_and_exec, s);
		assert_true(await(&s->leads, (uint32_t)again + 1));
		assert_true(inherits(s));
		if (again) {
			while (shoal_get(s->k, STR("again"), &value) && clock_system_ns(CLOCK_MONOTONIC) < deadline)
				sched_yield();
			assert_gives(s->k, "again", "x");
			shoal_release(&value);
		}
		assert_true(has_recovered(s, again ? 2 : 1)); /* in its new life it may be attached again */
		assert_int_equal(stats_of(s->cache).processes, again ? 2 : 1);
		assert_int_equal(kill(pid, 0), 0);
		kill_child(pid);
		assert_true(has_recovered(s, 1));
		assert_int_equal(shoal_delete(s->k, STR("led")), SHOAL_OK);
	}
	close_scene(s);
}

/* A child that shares our memory until it is another program takes nothing from us. */
static void vfork_and_exec(void **state)
{
	struct scene *s = open_scene(NULL, NULL);
	char *argv[] = {(char *)"test-machines", (char *)"end", NULL}, *none[] = {NULL};
	struct shoal_load *load, *waits;
	struct shoal_value value;
	pid_t pid;

	assert_int_equal(shoal_begin(s->k, STR("led"), &load, &value), SHOAL_LEAD);
	pid = vfork();
	if (!pid) {
		execve("/proc/self/exe", argv, none);
		_exit(97);
	}
	assert_ends_well(pid);
	assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, none), 0);
	assert_ends_well(pid);
	assert_int_equal(shoal_reap(s->cache), 0);
	assert_int_equal(shoal_begin(s->k, STR("led"), &waits, &value), SHOAL_WAIT);
	shoal_load_cancel(waits);
	assert_int_equal(shoal_load_publish(load, "x", 1), SHOAL_OK);
	assert_gives(s->k, "led", "x");
	close_scene(s);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(a_full_dev_shm),
		CASE(a_truncated_file),
		CASE(a_hole_in_each_area),
		CASE(out_of_descriptors),
		CASE(the_last_descriptors),
		CASE(too_little_address_space),
		CASE(too_small_a_file_limit),
		CASE(more_than_the_machine_has),
		CASE(a_program_closes_all_descriptors),
		CASE(membarrier_is_refused_later),
		CASE(membarrier_is_refused_midway),
		CASE(a_pid_comes_again),
		CASE(a_foreign_proc_tells_nothing),
		CASE(a_leader_in_another_pid_namespace),
		CASE(a_child_does_not_hold_its_parents_lock),
		CASE(another_network_namespace),
		CASE(another_time_namespace),
		CASE(a_worker_without_rights),
		CASE(a_zombie_leader),
		CASE(a_leader_by_raw_clone),
		CASE(a_leader_that_execs),
		CASE(vfork_and_exec),
	};

	if (argc > 1 && (!strcmp(argv[1], "end") || !strcmp(argv[1], "stay") || !strcmp(argv[1], "again")))
		return be_another_program(argv);
	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("machines", tests, NULL, NULL);
}
