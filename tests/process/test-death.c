/* SPDX-License-Identifier: MIT */
/*
 * Leaders die under waiters, one after the other: of each death one waiter takes over, and the others get its value.
 * How long that took is printed, and not judged: it is the machine's.
 *
 *   lean    killed with nothing else in hand than the load
 *   fat     with much memory of its own, which the kernel takes apart before anybody can wait for the process: the word
 *           that tells of a death is woken first
 *   core    while it dumps core, a process is not dead. The kernel lets go of the word after that,
 *           so the lease bounds it
 *
 *   SHOAL_TEST_SECONDS   100 lean deaths up to 10, 500 from 50 on; 64 MiB of memory, 1 GiB from 600 on
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "crew.h"

#define WAITERS 4u
#define DEATHS_MAX 500u

struct deaths {
	const char *name;
	unsigned n;
	size_t memory;
	int signal;
	size_t segment;
};

struct field {
	word32 round, leading, go, done, loads;
	word64 killed_ns, led_ns[DEATHS_MAX + 1];
};

static struct field *field;
static struct shoal *cache;
static struct shoal_keyspace *keyspace;
static char folder[64];

static uint64_t seconds(void)
{
	const char *text = getenv("SHOAL_TEST_SECONDS");

	return text && *text ? strtoull(text, NULL, 0) : 10;
}

/* ---- the leader -------------------------------------------------------------------------------------------- */

static int load_for_ever(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	crew_signal(&field->leading);
	for (;;)
		pause();
	return 0;
}

static void lead_and_die(void *arg)
{
	const struct deaths *d = arg;
	uint32_t round = w32_load(&field->round);
	struct rlimit core = {RLIM_INFINITY, RLIM_INFINITY};
	struct shoal_value v;
	char *memory;

	if (d->memory) {
		memory = mmap(NULL, d->memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			abort();
		memset(memory, 1, d->memory);
	}
	if (d->signal == SIGABRT) {
		signal(SIGABRT, SIG_DFL);
		if (chdir(folder))
			abort();
		setrlimit(RLIMIT_CORE, &core);
	}
	shoal_fetch(keyspace, &round, sizeof(round), load_for_ever, NULL, &v);
}

/* ---- the waiters ------------------------------------------------------------------------------------------- */

static int inherit(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	w64_store(&field->led_ns[w32_load(&field->round)], crew_now());
	w32_add(&field->loads, 1);
	return shoal_load_publish(load, key, size);
}

static void wait_each_round(void *arg)
{
	unsigned n = *(unsigned *)arg;
	struct shoal_value v;
	uint32_t round;
	int r;

	for (round = 1; round <= n; round++) {
		crew_await(&field->go, round);
		r = shoal_fetch(keyspace, &round, sizeof(round), inherit, NULL, &v);
		crew_expect(r == SHOAL_OK && v.size == sizeof(round) && !memcmp(v.data, &round, sizeof(round)),
		            "round %u: %s", round, shoal_strerror(r));
		shoal_release(&v);
		crew_signal(&field->done);
	}
}

static void await_sleepers(const pid_t *pids)
{
	const struct segment *s = crew_segment(cache);
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000;
	uint32_t i, most;

	do {
		for (most = 0, i = 0; i < s->geometry.flights; i++)
			if (FLIGHT_STATE(w64_load(&s->flight_words[i])) == FLIGHT_COMPUTING)
				most = w32_load(&s->flights[i].waiters);
		sched_yield();
	} while (most < WAITERS && crew_now() < end);
	crew_expect(most == WAITERS, "%u wait", most);
	for (i = 0; i < WAITERS; i++)
		crew_await_state(pids[i], "S");
}

/* ---- deaths ------------------------------------------------------------------------------------------------ */

static void one_death(const struct deaths *d, uint32_t round, const pid_t *waiters, struct shoal_stats *before)
{
	pid_t leader;
	struct shoal_stats after;
	int status;

	w32_store(&field->round, round);
	leader = crew_fork(lead_and_die, (void *)(uintptr_t)d);
	crew_await(&field->leading, round);
	crew_signal(&field->go);
	await_sleepers(waiters);
	w64_store(&field->killed_ns, crew_now());
	kill(leader, d->signal);
	crew_await(&field->done, round * WAITERS);
	field->led_ns[round] -= w64_load(&field->killed_ns);
	status = crew_join(leader);
	crew_expect(WIFSIGNALED(status) && WTERMSIG(status) == d->signal, "the leader ended with status %#x", status);
	crew_expect(shoal_stats(cache, &after) == SHOAL_OK, "no statistics");
	crew_expect(after.total.loads - before->total.loads == 2, "round %u: %u loads", round,
		    (unsigned)(after.total.loads - before->total.loads));
	crew_expect(after.total.takeovers - before->total.takeovers == 1, "round %u: %u takeovers", round,
		    (unsigned)(after.total.takeovers - before->total.takeovers));
	crew_expect(w32_load(&field->loads) == round, "round %u: %u heirs", round, w32_load(&field->loads));
	*before = after;
}

static void let_them_die(const struct deaths *d)
{
	struct shoal_policy policy = {.wait_ms = CREW_PATIENCE_MS, .lease_ms = CREW_PATIENCE_MS};
	struct shoal_config config = {.size = d->segment ? d->segment : 4 << 20};
	struct shoal_stats stats = {0};
	uint64_t took[DEATHS_MAX];
	pid_t waiters[WAITERS];
	unsigned i, n = d->n;
	uint32_t round;

	crew_begin();
	field = crew_memory(sizeof(*field));
	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "death", 1, &policy, &keyspace), SHOAL_OK);
	for (i = 0; i < WAITERS; i++)
		waiters[i] = crew_fork(wait_each_round, &n);
	for (round = 1; round <= n && !w32_load(&crew_verdict->count); round++)
		one_death(d, round, waiters, &stats);
	for (i = 0; i < WAITERS; i++)
		if (w32_load(&crew_verdict->count))
			crew_kill(waiters[i]);
		else
			crew_join_well(waiters[i]);
	crew_expect(stats.total.timeouts == 0, "%u timed out", (unsigned)stats.total.timeouts);
	crew_expect(shoal_reap(cache) >= 0, "reap failed");
	crew_expect(shoal_stats(cache, &stats) == SHOAL_OK && stats.processes == 1 && !stats.flights,
	            "%u processes, %u flights", stats.processes, stats.flights);
	if (!w32_load(&crew_verdict->count)) {
		for (i = 0; i < n; i++)
			took[i] = w64_load(&field->led_ns[i + 1]);
		qsort(took, n, sizeof(took[0]), crew_compare);
		printf("# %u %s leaders of %zu MiB died under %u waiters: the heir leads after %.0f us (median), "
		       "%.0f (p99), %.0f (max)\n",
		       n, d->name, d->memory >> 20, WAITERS, (double)took[n / 2] / 1e3,
		       (double)took[(n * 99 - 1) / 100] / 1e3, (double)took[n - 1] / 1e3);
	}
	shoal_close(cache);
	munmap(field, sizeof(*field));
	assert_int_equal(crew_wrongs(), 0);
}

static size_t much(void)
{
	return seconds() < 600 ? (size_t)64 << 20 : (size_t)1 << 30;
}

static void lean_leaders(void **state)
{
	struct deaths d = {"lean", (unsigned)max_u64(100, min_u64(seconds() * 10, DEATHS_MAX)), 0, SIGKILL, 0};

	let_them_die(&d);
}

static void fat_leaders(void **state)
{
	struct deaths d = {"fat", 20, much(), SIGKILL, 0};

	let_them_die(&d);
}

/* Returns the bytes of the largest; 0: there are none here. */
static size_t remove_cores(void)
{
	DIR *dir = opendir(folder);
	struct dirent *e;
	struct stat st;
	size_t most = 0;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &st, 0))
			continue;
		most = max_u64(most, (uint64_t)st.st_blocks * 512);
		unlinkat(dirfd(dir), e->d_name, 0);
	}
	closedir(dir);
	return most;
}

/* The values of a segment are not in them, or they would take as long as it is large, in each process that crashes. */

static void leaders_that_dump_core(void **state)
{
	struct deaths d = {"dumping", 3, much() / 2, SIGABRT, much()};
	size_t size;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skipped("sanitizers forbid core dumps");
	return;
#endif
	strcpy(folder, "/dev/shm/shoal-test-death.XXXXXX");
	assert_non_null(mkdtemp(folder));
	let_them_die(&d);
	size = remove_cores();
	printf("# core files: %zu MiB, with a segment of %zu MiB\n", size >> 20, d.segment >> 20);
	assert_int_equal(rmdir(folder), 0);
	assert_true(size < d.memory + d.segment / 2);
}

/* ---- a relay ------------------------------------------------------------------------------------------------ */

enum { LED = 4, SLEEPERS = 2 * LED, ROUNDS = 4, NO_PTRACE = 77 };

/* One thread leads them all, so one alive word is slept on. */
static void lead_many(void *arg)
{
	uint32_t round = *(uint32_t *)arg, key[2] = {round};
	struct shoal_load *load;
	struct shoal_value v;

	for (key[1] = 0; key[1] < LED; key[1]++)
		if (shoal_begin(keyspace, key, sizeof(key), &load, &v) != SHOAL_LEAD)
			crew_wrong("round %u: key %u is not led", round, key[1]);
	crew_signal(&field->leading);
	for (;;)
		pause();
}

static int inherit_one(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	w32_add(&field->loads, 1);
	return shoal_load_publish(load, key, size);
}

static void wait_for_one(void *arg)
{
	const uint32_t *key = arg;
	struct shoal_value v;
	int r = shoal_fetch(keyspace, key, 8, inherit_one, NULL, &v);

	crew_expect(r == SHOAL_OK && v.size == 8 && !memcmp(v.data, key, 8), "round %u, key %u: %s", key[0], key[1],
	            shoal_strerror(r));
	shoal_release(&v);
	crew_signal(&field->done);
}

static void wait_traced(void *arg)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(NO_PTRACE);
	raise(SIGSTOP);
	wait_for_one(arg);
}

/* From one stop at a system call to the next, till it is about to sleep on two words. False: it can't be had. */
static bool let_it_sleep(pid_t pid)
{
	struct __ptrace_syscall_info info;
	int status;

	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		memset(&info, 0, sizeof(info));
		ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(uintptr_t)PTRACE_O_TRACESYSGOOD);
		ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info);
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL))
			return false;
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_futex_waitv)
			return true;
	}
	return false;
}

static uint32_t who_wait(void)
{
	const struct segment *s = crew_segment(cache);
	uint32_t i, n = 0;

	for (i = 0; i < s->geometry.flights; i++)
		if (FLIGHT_STATE(w64_load(&s->flight_words[i])) == FLIGHT_COMPUTING)
			n += w32_load(&s->flights[i].waiters);
	return n;
}

static void await_who_wait(uint32_t n)
{
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000;

	while (who_wait() < n && crew_now() < end)
		sched_yield();
	crew_expect(who_wait() == n, "%u wait, not %u", who_wait(), n);
}

/* The first to sleep is held at its return from there. False: not to be had. */
static bool one_relay(uint32_t round)
{
	uint32_t i, key[2] = {round};
	pid_t leader = crew_fork(lead_many, &round), sleepers[SLEEPERS];
	bool held;
	int status;

	crew_await(&field->leading, round + 1);
	sleepers[0] = crew_fork(wait_traced, key);
	held = let_it_sleep(sleepers[0]) && crew_await_state(sleepers[0], "S");
	for (i = 1; held && i < SLEEPERS; i++) {
		key[1] = i % LED;
		sleepers[i] = crew_fork(wait_for_one, key);
	}
	if (held) {
		await_who_wait(SLEEPERS);
		for (i = 1; i < SLEEPERS; i++)
			crew_await_state(sleepers[i], "S");
	}
	crew_kill(leader);
	if (!held) {
		crew_kill(sleepers[0]);
		return false;
	}
	crew_expect(waitpid(sleepers[0], &status, 0) == sleepers[0] && WIFSTOPPED(status), "it did not wake");
	crew_await(&field->done, (round + 1) * SLEEPERS - 1); /* all but the one that is held */
	ptrace(PTRACE_DETACH, sleepers[0], NULL, NULL);
	for (i = 0; i < SLEEPERS; i++)
		crew_join_well(sleepers[i]);
	crew_expect(w32_load(&field->loads) == (round + 1) * LED, "round %u: %u loads", round, w32_load(&field->loads));
	return true;
}

/*
 * Trap 13. The kernel wakes one of those who sleep on a dead leader, of whichever of its keys: the first that came, and
 * that one wakes the rest. It is held before it does: the others go on without it, by the slices of their sleep.
 */
static void a_relay_that_is_lost_holds_up_nobody(void **state)
{
	struct shoal_policy policy = {.wait_ms = CREW_PATIENCE_MS * 2, .lease_ms = CREW_PATIENCE_MS * 2};
	struct shoal_config config = {.size = 4 << 20};
	uint32_t round;

#if defined(__SANITIZE_THREAD__)
	skipped("it comes by signals that ThreadSanitizer holds back");
	return;
#endif
	crew_begin();
	field = crew_memory(sizeof(*field));
	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "death", 1, &policy, &keyspace), SHOAL_OK);
	for (round = 0; round < ROUNDS && !w32_load(&crew_verdict->count); round++)
		if (!one_relay(round)) {
			skipped("ptrace is refused, or there is no futex_waitv");
			break;
		}
	shoal_close(cache);
	munmap(field, sizeof(*field));
	assert_int_equal(crew_wrongs(), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lean_leaders),
		cmocka_unit_test(fat_leaders),
		cmocka_unit_test(leaders_that_dump_core),
		cmocka_unit_test(a_relay_that_is_lost_holds_up_nobody),
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("death", tests, NULL, NULL);
}
