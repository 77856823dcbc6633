/* SPDX-License-Identifier: MIT */
/*
 * usage: bench-instructions [BUDGETS]
 * What each operation costs in instructions of the program's own, the kernel's not counted: time depends on the machine and
 * on who else is at it, this doesn't. A child runs the operation between two breakpoints, its parent steps it and counts.
 * The middle one of nine; each of them may not cost more than its line in BUDGETS says. Prints TAP.
 */
#include <inttypes.h>
#include <shoal.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <sys/user.h>

#define KEY_SIZE 20
#define SAMPLES 9
#define WARM 20
#define BATCH 16
#define MARK __asm__ volatile("int3" ::: "memory")

struct stage {
	struct shoal *cache;
	struct shoal_keyspace *keyspace;
	struct shoal_load *load;
	struct shoal_value value;
	struct shoal_value values[BATCH];
	int outcomes[BATCH];
	char buffer[4096];
};

static const char hot[] = "the key of twenty b.", none[] = "another of twenty b.", fresh[] = "a new one of twenty ";
static char hundred[100] = "a value of one hundred bytes";

/* ---- operations: what comes before the mark is not counted -------------------------------------------------- */

static int read_it(struct stage *s, const char *key)
{
	size_t size;
	int outcome;

	MARK;
	outcome = shoal_read(s->keyspace, key, KEY_SIZE, s->buffer, sizeof(s->buffer), &size);
	MARK;
	return outcome;
}

static int hit(struct stage *s, unsigned i)
{
	return read_it(s, hot) != SHOAL_OK;
}

static int miss(struct stage *s, unsigned i)
{
	return read_it(s, none) != SHOAL_MISS;
}

static int hit_in_place(struct stage *s, unsigned i)
{
	int outcome;

	MARK;
	outcome = shoal_get(s->keyspace, hot, KEY_SIZE, &s->value);
	shoal_release(&s->value);
	MARK;
	return outcome;
}

static int sixteen(struct stage *s, unsigned i)
{
	struct shoal_slice keys[BATCH];
	int outcome = 0;

	for (unsigned k = 0; k < BATCH; k++)
		keys[k] = (struct shoal_slice){hot, KEY_SIZE};
	MARK;
	shoal_get_many(s->keyspace, keys, BATCH, s->values, s->outcomes);
	for (unsigned k = 0; k < BATCH; k++)
		shoal_release(&s->values[k]);
	MARK;
	for (unsigned k = 0; k < BATCH; k++)
		outcome |= s->outcomes[k];
	return outcome;
}

static int never(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	return 1;
}

static int fetch_hit(struct stage *s, unsigned i)
{
	int outcome;

	MARK;
	outcome = shoal_fetch(s->keyspace, hot, KEY_SIZE, never, NULL, &s->value);
	shoal_release(&s->value);
	MARK;
	return outcome;
}

static const char *new_key(unsigned i)
{
	static char key[KEY_SIZE + 8];

	snprintf(key, sizeof(key), "%.*s%04u", KEY_SIZE - 4, fresh, i);
	return key;
}

static int set_again(struct stage *s, unsigned i)
{
	int outcome;

	MARK;
	outcome = shoal_set(s->keyspace, fresh, KEY_SIZE, hundred, sizeof(hundred));
	MARK;
	return outcome;
}

static int set_new(struct stage *s, unsigned i)
{
	const char *key = new_key(i);
	int outcome;

	MARK;
	outcome = shoal_set(s->keyspace, key, KEY_SIZE, hundred, sizeof(hundred));
	MARK;
	return outcome;
}

static int begin(struct stage *s, unsigned i)
{
	const char *key = new_key(i);
	int outcome;

	MARK;
	outcome = shoal_begin(s->keyspace, key, KEY_SIZE, &s->load, &s->value);
	MARK;
	shoal_load_cancel(s->load);
	return outcome != SHOAL_LEAD;
}

static int publish(struct stage *s, unsigned i)
{
	int outcome = shoal_begin(s->keyspace, new_key(i), KEY_SIZE, &s->load, &s->value);

	if (outcome != SHOAL_LEAD)
		return 1;
	MARK;
	outcome = shoal_load_publish(s->load, hundred, sizeof(hundred));
	MARK;
	return outcome;
}

static int del(struct stage *s, unsigned i)
{
	const char *key = new_key(i);
	int outcome;

	if (shoal_set(s->keyspace, key, KEY_SIZE, hundred, sizeof(hundred)))
		return 1;
	MARK;
	outcome = shoal_delete(s->keyspace, key, KEY_SIZE);
	MARK;
	return outcome;
}

static const struct operation {
	const char *name;
	int (*run)(struct stage *s, unsigned i);
	unsigned share;
} operations[] = {
	{"hit", hit, 1},
	{"hit-in-place", hit_in_place, 1},
	{"hit-of-sixteen", sixteen, BATCH},
	{"fetch-hit", fetch_hit, 1},
	{"miss", miss, 1},
	{"set", set_again, 1},
	{"set-new", set_new, 1},
	{"begin", begin, 1},
	{"publish", publish, 1},
	{"delete", del, 1},
};

/* ---- the child ---------------------------------------------------------------------------------------------- */


/* It stands still: steps are slow, and what is done now and then only would be due at each of them. */
static uint64_t no_time(void *arg)
{
	return 1000000000000;
}

static void on_trap(int signal)
{
}

/* Untraced, a mark is a signal that does nothing. */
static void child(const struct operation *operation)
{
	static struct stage s;
	static char filler[1000];
	unsigned i;

	if (shoal_open(NULL, &(struct shoal_config){.clock = no_time}, &s.cache) || shoal_keyspace_open(s.cache, "instructions", 1, NULL, &s.keyspace))
		_exit(3);
	if (shoal_set(s.keyspace, hot, KEY_SIZE, hundred, sizeof(hundred)))
		_exit(3);
	for (i = 0; i < 1200; i++) /* until its extent is full: hits count from then on */
		if (shoal_set(s.keyspace, "filler", 6, filler, sizeof(filler)))
			_exit(3);
	signal(SIGTRAP, on_trap);
	for (i = 0; i < WARM; i++)
		if (operation->run(&s, i))
			_exit(4);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(7);
	raise(SIGSTOP);
	for (; i < WARM + SAMPLES; i++)
		if (operation->run(&s, i))
			_exit(4);
	_exit(0);
}

/* ---- its parent --------------------------------------------------------------------------------------------- */

static int stopped(pid_t pid, int *status)
{
	return waitpid(pid, status, 0) == pid && WIFSTOPPED(*status);
}

/* From behind one mark to the next; a repeated string instruction is one. -1: something else happened. */
static long count_to_mark(pid_t pid, int *status)
{
	struct user_regs_struct regs;
	unsigned long long last = 0;
	long count = 0;

	for (;;) {
		if (ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return -1;
		if ((ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)regs.rip, NULL) & 0xff) == 0xcc)
			return count;
		count += regs.rip != last;
		last = regs.rip;
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || !stopped(pid, status) || WSTOPSIG(*status) != SIGTRAP)
			return -1;
	}
}

static int compare_longs(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

/* Instructions; negative: why not. */
static long measure(const struct operation *operation)
{
	long counts[SAMPLES], result = 0;
	int i, status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		child(operation);
	if (!stopped(pid, &status))
		return WIFEXITED(status) ? -WEXITSTATUS(status) : -1;
	for (i = 0; i < SAMPLES && !result; i++) {
		if (ptrace(PTRACE_CONT, pid, NULL, NULL) || !stopped(pid, &status) || WSTOPSIG(status) != SIGTRAP)
			result = -1;
		else if ((counts[i] = count_to_mark(pid, &status)) < 0)
			result = -1;
		else if (ptrace(PTRACE_CONT, pid, NULL, NULL) || !stopped(pid, &status)) /* over the second mark */
			result = -1;
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (result)
		return result;
	qsort(counts, SAMPLES, sizeof(counts[0]), compare_longs);
	return (counts[SAMPLES / 2] + operation->share / 2) / operation->share;
}

static long budget_of(const char *path, const char *name)
{
	char line[256], word[64];
	long budget = -1, n;
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %ld", word, &n) == 2 && !strcmp(word, name))
			budget = n;
	if (f)
		fclose(f);
	return budget;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : BUDGETS;
	unsigned i, n = sizeof(operations) / sizeof(operations[0]);
	int failed = 0;

	for (i = 0; i < n; i++) {
		long count = measure(&operations[i]), budget = budget_of(path, operations[i].name);
		int ok = count > 0 && count <= budget;

		if (count == -7) {
			printf("1..0 # SKIP ptrace is refused\n");
			return 0;
		}
		printf("%s %u - %s: %ld instructions of %ld\n", ok ? "ok" : "not ok", i + 1, operations[i].name, count,
		       budget);
		failed |= !ok;
	}
	printf("1..%u\n", n);
	return failed;
}
#else
int main(void)
{
	printf("1..0 # SKIP instructions are counted on x86-64 alone\n");
	return 0;
}
#endif
