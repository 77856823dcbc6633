/* SPDX-License-Identifier: MIT */
/*
 * usage: bench-instructions [BUDGETS]
 *        bench-instructions --trace OPERATION FILE
 * What each operation costs in instructions of the program's own, the kernel's not counted: time depends on the machine
 * and on who else is at it, this doesn't. A child runs the operation between two breakpoints, its parent steps it and
 * counts. The middle one of nine; each of them may not cost more than its line in BUDGETS says. Prints TAP.
 *
 * --trace, for bench/profile.py: writes the registers before each instruction of each sample, with a line of
 * zeros before it, and prints the page faults of each and the process's mappings. Of any operation, also of those
 * that have no budget.
 */
#include <shoal.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <sys/user.h>

#include "../../bench/peers/bound.h"

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
	char name[64];    /* of the segment, where it has one */
	size_t size;      /* of the hot key's value */
	struct bound bound;
	struct request request;
	char buffer[4096];
};

static const char hot[] = "the key of twenty b.", none[] = "another of twenty b.", fresh[] = "a new one of twenty ";
static char hundred[100] = "a value of one hundred bytes", filler[4096];

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

/* ---- what is traced alone ----------------------------------------------------------------------------------- */

static int bound_get(struct stage *s, unsigned i)
{
	size_t size;

	MARK;
	size = bound_read(&s->bound, &s->request, s->buffer);
	MARK;
	return size != s->size;
}

static int bound_set(struct stage *s, unsigned i)
{
	MARK;
	bound_write(&s->bound, &s->request, hundred, sizeof(hundred));
	MARK;
	return 0;
}

/* A process that was just forked, and never saw the segment, but has all the code in memory. */
static int attach(struct stage *s, unsigned i)
{
	const struct shoal_config config = {.flags = SHOAL_ATTACH};
	struct shoal *cache;
	int outcome;

	MARK;
	outcome = shoal_open(s->name, &config, &cache);
	MARK;
	return outcome;
}

static int first_hit(struct stage *s, unsigned i)
{
	struct shoal *cache;

	return shoal_open(s->name, &(struct shoal_config){.flags = SHOAL_ATTACH}, &cache) ||
	       shoal_keyspace_open(cache, "instructions", 1, NULL, &s->keyspace) || read_it(s, hot) != SHOAL_OK;
}

enum { LARGE = 1, ONCE = 2, NAMED = 4, STILL = 8 }; /* STILL: or the pins would be counted each time */

static const struct operation {
	const char *name;
	int (*run)(struct stage *s, unsigned i);
	unsigned share; /* 0: traced alone */
	int how;
} operations[] = {
	{"hit", hit, 1, 0},
	{"hit-in-place", hit_in_place, 1, 0},
	{"hit-of-sixteen", sixteen, BATCH, 0},
	{"fetch-hit", fetch_hit, 1, 0},
	{"miss", miss, 1, 0},
	{"set", set_again, 1, 0},
	{"set-new", set_new, 1, 0},
	{"begin", begin, 1, 0},
	{"publish", publish, 1, 0},
	{"delete", del, 1, 0},
	{"hit-4k", hit, 0, LARGE},
	{"hit-in-place-4k", hit_in_place, 0, LARGE | STILL},
	{"bound", bound_get, 0, 0},
	{"bound-4k", bound_get, 0, LARGE},
	{"bound-set", bound_set, 0, 0},
	{"attach", attach, 0, ONCE | NAMED},
	{"first-hit", first_hit, 0, ONCE | NAMED},
};

/* ---- the child ---------------------------------------------------------------------------------------------- */


static FILE *trace;

/* It stands still: steps are slow, and what is done now and then only would be due at each of them. */
static uint64_t no_time(void *arg)
{
	return 1000000000000;
}

static void on_trap(int signal)
{
}

static int prepare_bound(struct stage *s)
{
	s->bound.slots = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s->bound.slots == MAP_FAILED)
		return -1;
	s->bound.slots[0] = 1;
	s->bound.memory = (char *)s->bound.slots + 64;
	memcpy(s->request.key, hot, KEY_SIZE);
	memcpy(s->bound.memory + BOUND_HEAD - 4, &(uint32_t){(uint32_t)s->size}, 4);
	return 0;
}

/* With the real clock if it is to be looked at. */
static int prepare(struct stage *s, const char *name, int how)
{
	struct shoal_config config = {.clock = trace && !(how & STILL) ? NULL : no_time,
	                              .flags = name ? SHOAL_EXCLUSIVE : 0};
	unsigned i;

	s->size = how & LARGE ? sizeof(filler) : sizeof(hundred);
	if (shoal_open(name, &config, &s->cache) ||
	    shoal_keyspace_open(s->cache, "instructions", 1, NULL, &s->keyspace))
		return -1;
	if (shoal_set(s->keyspace, hot, KEY_SIZE, how & LARGE ? filler : hundred, s->size))
		return -1;
	for (i = 0; i < 1200; i++) /* until its extent is full: hits count from then on */
		if (shoal_set(s->keyspace, "filler", 6, filler, 1000))
			return -1;
	return prepare_bound(s);
}

/* By another process; what it leaves goes by its name. */
static int prepare_named(struct stage *s, int how)
{
	int status;
	pid_t pid;

	snprintf(s->name, sizeof(s->name), "instructions-%d", (int)getppid());
	s->size = sizeof(hundred);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		status = prepare(s, s->name, how);
		shoal_close(s->cache); /* nobody has to recover it */
		_exit(status != 0);
	}
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* Untraced, a mark is a signal that does nothing. */
static void child(const struct operation *operation)
{
	static struct stage s;
	unsigned i, warm = operation->how & ONCE ? 0 : WARM;

	if (operation->how & NAMED ? prepare_named(&s, operation->how) : prepare(&s, NULL, operation->how))
		_exit(3);
	signal(SIGTRAP, on_trap);
	for (i = 0; i < warm; i++)
		if (operation->run(&s, i))
			_exit(4);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(7);
	raise(SIGSTOP);
	for (; i < warm + SAMPLES; i++)
		if (operation->run(&s, i))
			_exit(4);
	_exit(0);
}

/* ---- its parent --------------------------------------------------------------------------------------------- */

static int stopped(pid_t pid, int *status)
{
	return waitpid(pid, status, 0) == pid && WIFSTOPPED(*status);
}

/* The page faults of a process so far. */
static long faults_of(pid_t pid)
{
	char path[64], line[512] = "";
	long faults = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f) && strrchr(line, ')'))
		sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %ld", &faults);
	if (f)
		fclose(f);
	return faults;
}

static void print_mappings(pid_t pid)
{
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		fputs(line, stdout);
	if (f)
		fclose(f);
}

/* From behind one mark to the next; a repeated string instruction is one. -1: something else happened. */
static long count_to_mark(pid_t pid, int *status)
{
	struct user_regs_struct regs;
	unsigned long long last = 0;
	long count = 0, faults = faults_of(pid);

	memset(&regs, 0, sizeof(regs));
	if (trace)
		fwrite(&regs, sizeof(regs), 1, trace);
	for (;;) {
		if (ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return -1;
		if ((ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)regs.rip, NULL) & 0xff) == 0xcc) {
			if (trace)
				printf("faults %ld\n", faults_of(pid) - faults);
			return count;
		}
		if (trace && regs.rip != last)
			fwrite(&regs, sizeof(regs), 1, trace);
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
	int i, status, samples = operation->how & ONCE ? 1 : SAMPLES;
	long counts[SAMPLES], result = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		child(operation);
	if (!stopped(pid, &status))
		return WIFEXITED(status) ? -WEXITSTATUS(status) : -1;
	for (i = 0; i < samples && !result; i++) {
		if (ptrace(PTRACE_CONT, pid, NULL, NULL) || !stopped(pid, &status) || WSTOPSIG(status) != SIGTRAP)
			result = -1;
		else if ((counts[i] = count_to_mark(pid, &status)) < 0)
			result = -1;
		else if (ptrace(PTRACE_CONT, pid, NULL, NULL) || !stopped(pid, &status)) /* over the second mark */
			result = -1;
	}
	if (trace)
		print_mappings(pid);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (result)
		return result;
	qsort(counts, (size_t)samples, sizeof(counts[0]), compare_longs);
	return operation->share ? (counts[samples / 2] + operation->share / 2) / operation->share : counts[samples / 2];
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

static int trace_one(const char *name, const char *path)
{
	unsigned i, n = sizeof(operations) / sizeof(operations[0]);
	char segment[64];
	long count = -1;

	trace = fopen(path, "we");
	for (i = 0; i < n && trace; i++)
		if (!strcmp(operations[i].name, name))
			count = measure(&operations[i]);
	snprintf(segment, sizeof(segment), "instructions-%d", (int)getpid());
	shoal_unlink(segment);
	if (count < 0)
		fprintf(stderr, "bench-instructions: %s: %ld\n", name, count);
	return !trace || fclose(trace) || count < 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--trace"))
		return trace_one(argv[2], argv[3]);

	const char *path = argc > 1 ? argv[1] : BUDGETS;
	unsigned i, n = sizeof(operations) / sizeof(operations[0]), tests = 0;
	int failed = 0;

	for (i = 0; i < n; i++) {
		if (!operations[i].share)
			continue;
		long count = measure(&operations[i]), budget = budget_of(path, operations[i].name);
		int ok = count > 0 && count <= budget;

		if (count == -7) {
			printf("1..0 # SKIP ptrace is refused\n");
			return 0;
		}
		printf("%s %u - %s: %ld instructions of %ld\n", ok ? "ok" : "not ok", ++tests, operations[i].name,
		       count, budget);
		failed |= !ok;
	}
	printf("1..%u\n", tests);
	return failed;
}
#else
int main(void)
{
	printf("1..0 # SKIP instructions are counted on x86-64 alone\n");
	return 0;
}
#endif
