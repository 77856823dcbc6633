/* SPDX-License-Identifier: MIT */
/*
 * Kernels and sandboxes that refuse system calls. Each case runs in a child that refuses itself some of them, by EPERM
 * and by ENOSYS, and starts this program anew, as liburcu looks at its kernel when it is loaded: membarrier (fence mode
 * at creation, a refused attach to a segment that relies on it), futex_waitv, pidfd_open, memfd_create (what stands in
 * for them works), and all that a sandbox may lack at once.
 *
 * Holds the last line of rcu.h's essay: no reader goes without a barrier.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "handle.h"
#include "refuse.h"
#include "testing.h"

struct sandbox {
	int calls[5];
	size_t n;
	int error;
	const char *body;
};

static char path[64];

/* EXECUTABLE BODY PATH CALL ERROR */
static int enter(void *arg)
{
	const struct sandbox *s = arg;
	char call[16], error[16];

	if (!refuse(s->calls, s->n, s->error)) {
		skipped("seccomp is refused");
		return 0;
	}
	snprintf(call, sizeof(call), "%d", s->calls[0]);
	snprintf(error, sizeof(error), "%d", s->error);
	execl("/proc/self/exe", "test-seccomp", s->body, path, call, error, (char *)NULL);
	return 97;
}

static void run_in(const int *calls, size_t n, const char *body)
{
	struct sandbox s = {.n = n, .body = body};
	int i;

	memcpy(s.calls, calls, n * sizeof(*calls));
	for (i = 0; i < 2; i++) {
		s.error = i ? ENOSYS : EPERM;
		assert_ends_well(spawn(enter, &s));
	}
}

#define RUN_WITHOUT(body, ...) run_in((int[]){__VA_ARGS__}, COUNT(((int[]){__VA_ARGS__})), #body)

/* ---- what is tried in there -------------------------------------------------------------------------------- */

static struct shoal *cache;
static struct shoal_keyspace *k;

static int open_anonymous(void)
{
	must(shoal_open(NULL, &(struct shoal_config){.size = 2 << 20}, &cache) == SHOAL_OK);
	must(shoal_keyspace_open(cache, "test", 1, &(struct shoal_policy){.wait_ms = PATIENCE_S * 1000}, &k) ==
	     SHOAL_OK);
	return 0;
}

/* Enough to evict everything several times, with a value in hand meanwhile. */
static void turn_over(void)
{
	static const char big[5000];
	struct shoal_value value;
	struct shoal_stats stats;
	size_t size;
	int key;

	must(shoal_set(k, "in hand", 7, "a value", 7) == SHOAL_OK);
	must(shoal_get(k, "in hand", 7, &value) == SHOAL_OK);
	for (key = 0; key < 2000; key++) {
		must(shoal_set(k, &key, sizeof(key), big, sizeof(big)) == SHOAL_OK);
		must(shoal_read(k, &key, sizeof(key), (char[5000]){0}, 5000, &size) == SHOAL_OK && size == 5000);
	}
	must(holds(&value, "a value"));
	shoal_release(&value);
	must(shoal_stats(cache, &stats) == SHOAL_OK && stats.evicted_extents > 100);
}

struct wait {
	struct shoal_load *load;
	word32 waiting;
	int outcome;
	bool right;
};

static void *wait_for_it(void *arg)
{
	struct wait *w = arg;
	struct shoal_value value;

	post(&w->waiting);
	w->outcome = shoal_wait(w->load, SHOAL_FOREVER, &value);
	w->right = holds(&value, "loaded");
	shoal_release(&value);
	return NULL;
}

static void coalesce(void)
{
	struct shoal_load *load;
	struct shoal_value value;
	struct wait w = {0};
	pthread_t thread;

	shoal_delete(k, "load", 4);
	must(shoal_begin(k, "load", 4, &load, &value) == SHOAL_LEAD);
	must(shoal_begin(k, "load", 4, &w.load, &value) == SHOAL_WAIT);
	must(!pthread_create(&thread, NULL, wait_for_it, &w));
	must(await(&w.waiting, 1));
	must(shoal_load_publish(load, "loaded", 6) == SHOAL_OK);
	pthread_join(thread, NULL);
	must(w.outcome == SHOAL_OK && w.right);
}

struct leader {
	word32 leads;
};

static int lead_and_stay(void *arg)
{
	struct shoal_load *load;
	struct shoal_value value;

	must(shoal_begin(k, "led", 3, &load, &value) == SHOAL_LEAD);
	post(&((struct leader *)arg)->leads);
	for (;;)
		pause();
}

static pid_t fork_leader(struct leader *l)
{
	pid_t parent = getpid(), pid = fork();

	if (!pid) {
		become_child(parent);
		_exit(lead_and_stay(l));
	}
	must(pid > 0 && await(&l->leads, 1));
	return pid;
}

static void *kill_it(void *arg)
{
	kill(*(pid_t *)arg, SIGKILL);
	return NULL;
}

/* Someone waits while the leader is killed, and while it is a zombie. */
static void take_over(void)
{
	struct leader *l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct shoal_load *load;
	struct shoal_value value;
	pthread_t thread;
	pid_t pid;

	must(l != MAP_FAILED);
	pid = fork_leader(l);
	must(shoal_begin(k, "led", 3, &load, &value) == SHOAL_WAIT);
	must(!pthread_create(&thread, NULL, kill_it, &pid));
	must(shoal_wait(load, SHOAL_FOREVER, &value) == SHOAL_LEAD);
	pthread_join(thread, NULL);
	must(shoal_load_publish(load, "x", 1) == SHOAL_OK);
	must(!waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT));
	must(shoal_reap(cache) == 1); /* a zombie is dead */
	must(waitpid(pid, NULL, 0) == pid);
}

static int all_works(void)
{
	open_anonymous();
	turn_over();
	coalesce();
	take_over();
	shoal_close(cache);
	return 0;
}

/* ---- the cases --------------------------------------------------------------------------------------------- */

static int fence_mode_works(void)
{
	open_anonymous();
	must(cache->member->segment.fence);
	shoal_close(cache);
	return all_works();
}

static void without_membarrier_readers_fence(void **state)
{
	RUN_WITHOUT(fence_mode_works, SYS_membarrier);
}

static int attach_is_refused(void)
{
	struct shoal *other = (void *)path;
	struct stat before, after;

	must(!stat(path, &before));
	must(shoal_open(path, NULL, &other) == SHOAL_ERR_SYSTEM);
	must(errno == EPERM || errno == ENOSYS);
	must(other == (void *)path);
	must(!stat(path, &after) && before.st_ino == after.st_ino);
	/* it announces nothing */
	must(shoal_open(path, &(struct shoal_config){.flags = SHOAL_INSPECT}, &other) == SHOAL_OK);
	shoal_close(other);
	return 0;
}

/* A segment that relies on membarrier takes nobody who can't take part. */
static void without_membarrier_no_attach(void **state)
{
	snprintf(path, sizeof(path), "/dev/shm/shoal-test-seccomp-%d", (int)getpid());
	assert_int_equal(shoal_open(path, &(struct shoal_config){.size = 1 << 20}, &cache), SHOAL_OK);
	if (cache->member->segment.fence) {
		skipped("membarrier is refused to begin with");
	} else {
		k = keyspace(cache, "test", NULL);
		assert_set(k, "a", "x");
		RUN_WITHOUT(attach_is_refused, SYS_membarrier);
		assert_gives(k, "a", "x");
	}
	shoal_unlink(path);
	shoal_close(cache);
}

static int attach_and_use(void)
{
	must(shoal_open(path, NULL, &cache) == SHOAL_OK);
	must(cache->member->segment.fence);
	must(shoal_keyspace_open(cache, "test", 1, &(struct shoal_policy){.wait_ms = PATIENCE_S * 1000}, &k) ==
	     SHOAL_OK);
	turn_over();
	coalesce();
	shoal_close(cache);
	return 0;
}

static int create_and_leave(void)
{
	must(shoal_open(path, &(struct shoal_config){.size = 2 << 20}, &cache) == SHOAL_OK);
	shoal_close(cache);
	return 0;
}

/* And one that was made in fence mode is used so by everybody. */
static void fence_mode_is_the_segments(void **state)
{
	snprintf(path, sizeof(path), "/dev/shm/shoal-test-seccomp-%d", (int)getpid());
	RUN_WITHOUT(create_and_leave, SYS_membarrier);
	if (!access(path, F_OK)) {
		RUN_WITHOUT(attach_and_use, SYS_membarrier);
		assert_int_equal(shoal_open(path, NULL, &cache), SHOAL_OK);
		assert_true(cache->member->segment.fence);
		shoal_close(cache);
	}
	shoal_unlink(path);
}

static void without_futex_waitv(void **state)
{
	RUN_WITHOUT(all_works, SYS_futex_waitv);
}

static void without_pidfd_open(void **state)
{
	RUN_WITHOUT(all_works, SYS_pidfd_open);
}

static void without_memfd_create(void **state)
{
	RUN_WITHOUT(all_works, SYS_memfd_create);
}

static void without_any_of_them(void **state)
{
	RUN_WITHOUT(all_works, SYS_membarrier, SYS_futex_waitv, SYS_pidfd_open, SYS_memfd_create);
}

/* What this program does when it is started in a sandbox. */
static int be_inside(char **argv)
{
	static const struct {
		const char *name;
		int (*body)(void);
	} bodies[] = {
		{"all_works", all_works},
		{"fence_mode_works", fence_mode_works},
		{"attach_is_refused", attach_is_refused},
		{"attach_and_use", attach_and_use},
		{"create_and_leave", create_and_leave},
	};
	size_t i;

	alarm(2 * PATIENCE_S);
	snprintf(path, sizeof(path), "%s", argv[2]);
	errno = 0;
	must(syscall(atoi(argv[3]), 0, 0, 0, 0) == -1 && errno == atoi(argv[4]));
	for (i = 0; i < COUNT(bodies); i++)
		if (!strcmp(argv[1], bodies[i].name))
			return bodies[i].body();
	return 96;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_membarrier_readers_fence),
		cmocka_unit_test(without_membarrier_no_attach),
		cmocka_unit_test(fence_mode_is_the_segments),
		cmocka_unit_test(without_futex_waitv),
		cmocka_unit_test(without_pidfd_open),
		cmocka_unit_test(without_memfd_create),
		cmocka_unit_test(without_any_of_them),
	};

	if (argc == 5)
		return be_inside(argv);
	return cmocka_run_group_tests_name("seccomp", tests, NULL, NULL);
}
