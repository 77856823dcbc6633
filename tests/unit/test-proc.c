/* SPDX-License-Identifier: MIT */
/*
 * Who a process is, and whether it has ended: proc.h's identity word. Others' promises rest on it (R.1, R.2, promise
 * 4): a zombie is dead, a reused pid is another process, one of another namespace is not judged.
 */
#include <fcntl.h>
#include <pthread.h>

#include "proc.h"
#include "testing.h"

#define START_SHIFT 22
#define START_MASK 0x3ffffffu

static void a_process_knows_itself(void **state)
{
	uint64_t self = proc_self();

	assert_int_equal(PROC_PID(self), getpid());
	assert_int_equal(proc_self(), self);
	assert_true(self >> START_SHIFT & START_MASK);
	assert_true(PROC_NS(self) && !(self & PROC_UNLOCKED));
	assert_int_equal(proc_is_dead(self, self), PROC_ALIVE);
}

static int tell(void *arg)
{
	*(uint64_t *)arg = proc_self();
	return 0;
}

static void the_dead_are_dead(void **state)
{
	uint64_t *identity = share(sizeof(*identity)), self = proc_self();
	pid_t pid = spawn(tell, identity);
	siginfo_t info;

	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(PROC_PID(*identity), pid);
	assert_true(*identity != self);
	assert_int_equal(PROC_NS(*identity), PROC_NS(self));
	assert_int_equal(proc_is_dead(*identity, self), PROC_DEAD); /* a zombie */
	assert_ends_well(pid);
	assert_int_equal(proc_is_dead(*identity, self), PROC_DEAD); /* nobody has that pid */
	unshare_memory(identity, sizeof(*identity));
}

struct lodger {
	uint64_t identity;
	word32 ready;
};

static int stay(void *arg)
{
	struct lodger *l = arg;

	l->identity = proc_self();
	post(&l->ready);
	for (;;)
		pause();
	return 0;
}

static void the_living_and_the_stopped_live(void **state)
{
	struct lodger *l = share(sizeof(*l));
	uint64_t self = proc_self();
	pid_t pid = spawn(stay, l);

	assert_true(await(&l->ready, 1));
	assert_int_equal(proc_is_dead(l->identity, self), PROC_ALIVE);
	kill(pid, SIGSTOP);
	assert_int_equal(proc_is_dead(l->identity, self), PROC_ALIVE);
	kill_child(pid);
	assert_int_equal(proc_is_dead(l->identity, self), PROC_DEAD);
	unshare_memory(l, sizeof(*l));
}

static void *outlive_main(void *arg)
{
	post(&((struct lodger *)arg)->ready);
	for (;;)
		pause();
	return NULL;
}

/* Its main thread is a zombie, its other thread runs on. */
static int leave_a_thread(void *arg)
{
	struct lodger *l = arg;
	pthread_t thread;

	l->identity = proc_self();
	must(!pthread_create(&thread, NULL, outlive_main, l));
	syscall(SYS_exit, 0);
	return 1;
}

static char state_of(pid_t pid)
{
	char path[32], text[512] = "", *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	end = strrchr(text, ')');
	return end[2];
}

static void a_process_outlives_its_main_thread(void **state)
{
	uint64_t self = proc_self(), deadline = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	struct lodger *l = share(sizeof(*l));
	pid_t pid = spawn(leave_a_thread, l);

	assert_true(await(&l->ready, 1));
	while (state_of(pid) != 'Z' && clock_system_ns(CLOCK_MONOTONIC) < deadline)
		spin_hint();
	assert_int_equal(state_of(pid), 'Z');
	assert_int_equal(proc_is_dead(l->identity, self), PROC_ALIVE);
	kill_child(pid);
	assert_int_equal(proc_is_dead(l->identity, self), PROC_DEAD);
	unshare_memory(l, sizeof(*l));
}

/* The same pid with another start time: the one that was meant has ended. */
static void the_start_time_decides(void **state)
{
	uint64_t self = proc_self(), earlier = self - (UINT64_C(1) << START_SHIFT);
	uint64_t unknown = self & ~((uint64_t)START_MASK << START_SHIFT);

	assert_int_equal(proc_is_dead(earlier, self), PROC_DEAD);
	assert_int_equal(proc_is_dead(unknown, self), PROC_ALIVE); /* no start time: the pid alone tells */
}

static void another_namespace_is_not_judged(void **state)
{
	uint64_t self = proc_self();

	assert_int_equal(proc_is_dead(self ^ UINT64_C(1) << 48, self), PROC_FOREIGN);
	assert_int_equal(proc_is_dead((self ^ UINT64_C(1) << 48) | PROC_UNLOCKED, self | PROC_UNLOCKED), PROC_FOREIGN);
	assert_int_equal(proc_is_dead(self | PROC_UNLOCKED, self), PROC_ALIVE); /* without a lock, but of ours */
}

static bool next_pid(pid_t pid)
{
	char text[16];
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	int n = snprintf(text, sizeof(text), "%d", (int)pid - 1);
	bool done = fd >= 0 && write(fd, text, (size_t)n) == n;

	if (fd >= 0)
		close(fd);
	return done;
}

/* The kernel gives a pid again: the new process is not taken for the old one. */
static void a_reused_pid_is_another_process(void **state)
{
	uint64_t *first = share(sizeof(*first)), self = proc_self(), begin = clock_system_ns(CLOCK_BOOTTIME);
	struct lodger *l = share(sizeof(*l));
	pid_t pid = spawn(tell, first), again = 0;
	int i;

	assert_ends_well(pid);
	/* start times count in ticks of 10 ms: let one pass, or the two may be born in the same one */
	while (clock_system_ns(CLOCK_BOOTTIME) < begin + 2 * SECOND_NS / (uint64_t)sysconf(_SC_CLK_TCK))
		spin_hint();
	for (i = 0; i < 100 && again != pid && next_pid(pid); i++) {
		if (again)
			kill_child(again);
		w32_store(&l->ready, 0);
		again = spawn(stay, l);
		assert_true(await(&l->ready, 1));
	}
	if (again == pid) {
		assert_true(l->identity != *first);
		assert_int_equal(proc_is_dead(*first, self), PROC_DEAD);
		assert_int_equal(proc_is_dead(l->identity, self), PROC_ALIVE);
	} else {
		skipped("no pid can be had again (ns_last_pid)");
	}
	if (again)
		kill_child(again);
	unshare_memory(l, sizeof(*l));
	unshare_memory(first, sizeof(*first));
}

static void a_boot_has_an_id(void **state)
{
	assert_true(proc_boot_id());
	assert_int_equal(proc_boot_id(), proc_boot_id());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_knows_itself),
		cmocka_unit_test(the_dead_are_dead),
		cmocka_unit_test(the_living_and_the_stopped_live),
		cmocka_unit_test(a_process_outlives_its_main_thread),
		cmocka_unit_test(the_start_time_decides),
		cmocka_unit_test(another_namespace_is_not_judged),
		cmocka_unit_test(a_reused_pid_is_another_process),
		cmocka_unit_test(a_boot_has_an_id),
	};

	return cmocka_run_group_tests_name("proc", tests, NULL, NULL);
}
