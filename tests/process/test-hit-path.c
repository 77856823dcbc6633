// SPDX-License-Identifier: MIT
/*
 * Promise 1, instruction by instruction: a child runs one hit under single-step, and every instruction it executes is
 * looked at. Once the entry's frequency is saturated, none of them may be locked (a lock prefix, or xchg with memory),
 * a fence, or a system call: a hit waits for nobody and writes no line that another process reads for its own hits.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <shoal.h>

#if defined(__x86_64__)
#include <sys/user.h>

enum { MARK = 0xcc }; /* int3: begin and end of what is looked at */

struct path {
	unsigned long instructions, locked, fences, calls;
};

static bool is_prefix(unsigned char c)
{
	return c == 0x66 || c == 0xf2 || c == 0xf3 || c == 0x2e || c == 0x36 || c == 0x3e || c == 0x26 || c == 0x64 ||
	       c == 0x65 || (c & 0xf0) == 0x40;
}

static void classify(const unsigned char *code, struct path *path)
{
	unsigned i = 0;

	path->instructions++;
	while (i < 8 && (is_prefix(code[i]) || code[i] == 0xf0))
		path->locked += code[i++] == 0xf0;
	if ((code[i] == 0x86 || code[i] == 0x87) && code[i + 1] >> 6 != 3) /* xchg with memory locks by itself */
		path->locked++;
	if (code[i] == 0x0f && code[i + 1] == 0x05)
		path->calls++;
	if (code[i] == 0x0f && code[i + 1] == 0xae && code[i + 2] >= 0xe8) /* lfence, mfence, sfence */
		path->fences++;
}

static void code_at(pid_t child, unsigned long long at, unsigned char code[16])
{
	long part[2];
	int i;

	for (i = 0; i < 2; i++)
		part[i] = ptrace(PTRACE_PEEKTEXT, child, (void *)(uintptr_t)(at + (unsigned)i * 8), NULL);
	memcpy(code, part, 16);
}

static int stopped(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSTOPPED(status));
	return WSTOPSIG(status);
}

/* Follow the child from its first int3 to its second. */
static struct path follow(pid_t child)
{
	struct user_regs_struct regs;
	struct path path = {0};
	unsigned char code[16];

	assert_int_equal(stopped(child), SIGSTOP);
	ptrace(PTRACE_CONT, child, NULL, NULL);
	assert_int_equal(stopped(child), SIGTRAP);
	for (;;) {
		ptrace(PTRACE_GETREGS, child, NULL, &regs);
		code_at(child, regs.rip, code);
		if (code[0] == MARK)
			break;
		classify(code, &path);
		ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
		assert_int_equal(stopped(child), SIGTRAP);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return path;
}

enum what { COPY, PIN, MISS };

static void child_main(struct shoal_keyspace *k, enum what what, unsigned warm)
{
	char buffer[128];
	size_t size;
	struct shoal_value value;
	unsigned i;

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	for (i = 0; i <= warm; i++) {
		if (i == warm) {
			raise(SIGSTOP);
			__asm__ volatile("int3" ::: "memory");
		}
		if (what == PIN) {
			shoal_get(k, "the key of twenty b.", 20, &value);
			shoal_release(&value);
		} else {
			shoal_read(k, what == MISS ? "another of twenty b." : "the key of twenty b.", 20, buffer,
				   sizeof(buffer), &size);
		}
		if (i == warm)
			__asm__ volatile("int3" ::: "memory");
	}
	_exit(0);
}

static struct path path_of(enum what what, unsigned warm, const char *name)
{
	static char value[100] = "a value of one hundred bytes", filler[1000];
	struct shoal_keyspace *k;
	struct shoal *cache;
	struct path path;
	pid_t child;
	int i;

	assert_int_equal(shoal_open(NULL, NULL, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "path", 1, NULL, &k), SHOAL_OK);
	assert_int_equal(shoal_set(k, "the key of twenty b.", 20, value, sizeof(value)), SHOAL_OK);
	for (i = 0; i < 1200; i++) /* until its extent is full: hits count from then on */
		assert_int_equal(shoal_set(k, "filler", 6, filler, sizeof(filler)), SHOAL_OK);
	child = fork();
	if (!child)
		child_main(k, what, warm);
	path = follow(child);
	printf("# %s: %lu instructions, %lu locked, %lu fences, %lu system calls\n", name, path.instructions,
	       path.locked, path.fences, path.calls);
	shoal_close(cache);
	return path;
}

static void a_saturated_hit_is_free_of_locks(void **state)
{
	static const enum what all[] = {COPY, PIN, MISS};
	static const char *names[] = {"shoal_read, 100 B", "shoal_get + shoal_release", "shoal_read, miss"};
	unsigned i;

	for (i = 0; i < 3; i++) {
		struct path path = path_of(all[i], 16, names[i]);

		assert_in_range(path.instructions, 50, 2000);
		assert_int_equal(path.locked + path.fences + path.calls, 0);
	}
}

/* The test can fail: the first hit of an entry counts its frequency, with one locked instruction. */
static void the_second_hit_counts(void **state)
{
	struct path path = path_of(COPY, 1, "shoal_read, frequency below its cap");

	assert_int_equal(path.locked, 1);
	assert_int_equal(path.calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_saturated_hit_is_free_of_locks),
		cmocka_unit_test(the_second_hit_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
	printf("1..1\nok 1 - single-step is read for x86-64 alone # SKIP\n");
	return 0;
}
#endif
