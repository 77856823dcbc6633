/* SPDX-License-Identifier: MIT */
/*
 * Processes that use a cache, for the tests of what watches it. workload MODE CACHE:
 *
 *   exact RUN   does things whose counts are known, in several processes, some of which are killed, and prints
 *               what each series has to be higher by, one a line. RUN, a number, makes its keys others than
 *               those of another run
 *   hold        hits, misses, and loads a key without end, for which another process waits; prints "PID" of who loads
 *               it when all of that is so. It ends when its standard input does
 */
#include <shoal.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOUR 3600000

#define must(x)                                                                                                       \
	do {                                                                                                          \
		if (!(x)) {                                                                                           \
			fprintf(stderr, "workload:%d: %s\n", __LINE__, #x);                                           \
			_exit(1);                                                                                     \
		}                                                                                                     \
	} while (0)

static struct shoal *cache;
static struct shoal_keyspace *users, *other, *next, *hasty, *few;
static unsigned run;

static const char *key_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *key_of(const char *format, ...)
{
	static char key[4][100];
	static unsigned i;
	va_list args;
	int n;

	i = (i + 1) % COUNT(key);
	n = snprintf(key[i], sizeof(key[i]), "%u:", run);
	va_start(args, format);
	vsnprintf(key[i] + n, sizeof(key[i]) - (size_t)n, format, args);
	va_end(args);
	return key[i];
}

static struct shoal_keyspace *keyspace(const char *name, uint32_t version, const struct shoal_policy *policy)
{
	struct shoal_keyspace *k;

	must(shoal_keyspace_open(cache, name, version, policy, &k) == SHOAL_OK);
	return k;
}

static void open_all(const char *name)
{
	struct shoal_policy steady = {
		.fresh_ms = HOUR, .stale_ms = HOUR, .early = -1, .lease_ms = HOUR, .wait_ms = HOUR};
	struct shoal_policy schema = steady, brief = steady, one = steady;

	schema.schema = 7;
	brief.wait_ms = 1;
	one.max_loads = 1;
	one.wait_ms = 1;
	must(shoal_open(name, &(struct shoal_config){.flags = SHOAL_ATTACH}, &cache) == SHOAL_OK);
	other = keyspace("users", 1, &schema);
	hasty = keyspace("users", 1, &brief);
	users = keyspace("users", 1, &steady);
	next = keyspace("users", 2, &steady);
	few = keyspace("few", 1, &one);
}

static void get(struct shoal_keyspace *k, const char *key, int outcome)
{
	struct shoal_value value;

	must(shoal_get(k, key, strlen(key), &value) == outcome);
	shoal_release(&value);
}

static int loader(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	return arg ? *(int *)arg : shoal_load_publish(load, key, size);
}

static int uncacheable(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	shoal_load_uncacheable(load, 1);
	return shoal_load_publish(load, key, size);
}

static int too_big(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	static const char much[1 << 20];

	return shoal_load_publish(load, much, sizeof(much));
}

static void fetch(struct shoal_keyspace *k, const char *key, shoal_loader *by, void *arg, int outcome)
{
	struct shoal_value value;

	must(shoal_fetch(k, key, strlen(key), by, arg, &value) == outcome);
	shoal_release(&value);
}

static struct shoal_load *begin(struct shoal_keyspace *k, const char *key, int outcome)
{
	struct shoal_load *load;
	struct shoal_value value;

	must(shoal_begin(k, key, strlen(key), &load, &value) == outcome);
	return load;
}

/* A child of ours, that ends with us; 0: it is this. */
static pid_t child(void)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void ended(pid_t pid, int by)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	must(by ? WIFSIGNALED(status) && WTERMSIG(status) == by : WIFEXITED(status) && !WEXITSTATUS(status));
}

/* ---- exact ------------------------------------------------------------------------------------------------- */

#define WORKERS 6u

static void work(unsigned id)
{
	int code = 5;
	unsigned i;

	for (i = 0; i < 1000 * (id + 1); i++)
		get(users, key_of("hot %u", i % 10), SHOAL_OK);
	for (i = 0; i < 100; i++)
		get(users, key_of("none"), SHOAL_MISS);
	for (i = 0; i < 50; i++) {
		fetch(users, key_of("own %u %u", id, i), loader, NULL, SHOAL_OK);
		get(users, key_of("own %u %u", id, i), SHOAL_OK);
		get(next, key_of("own %u %u", id, i), SHOAL_MISS);
	}
	for (i = 0; i < 10; i++)
		fetch(users, key_of("bad %u %u", id, i), loader, &code, SHOAL_ERR_LOAD);
	if (id % 2)
		raise(SIGKILL);
	_exit(0);
}

static int sum_waiters(const struct shoal_flight *f, void *arg)
{
	*(unsigned *)arg += f->waiters;
	return 0;
}

static void wait_for_waiters(unsigned n)
{
	unsigned now;

	do {
		now = 0;
		must(shoal_flights(cache, sum_waiters, &now) == SHOAL_OK);
		nanosleep(&(struct timespec){0, 100000}, NULL);
	} while (now != n);
}

static int none_comes(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	return 99; /* there is a leader */
}

/* One loads and four wait. */
static void coalesce(void)
{
	struct shoal_load *load = begin(users, key_of("shared"), SHOAL_LEAD);
	pid_t pids[4];
	unsigned i;

	for (i = 0; i < COUNT(pids); i++) {
		pids[i] = child();
		if (!pids[i]) {
			fetch(users, key_of("shared"), none_comes, NULL, SHOAL_OK);
			_exit(0);
		}
	}
	wait_for_waiters(COUNT(pids));
	must(shoal_load_publish(load, "x", 1) == SHOAL_OK);
	for (i = 0; i < COUNT(pids); i++)
		ended(pids[i], 0);
}

/* One is killed while it loads, and one that waits takes over. */
static void take_over(void)
{
	int fds[2];
	pid_t leader, heir;
	char c;

	must(!pipe(fds));
	leader = child();
	if (!leader) {
		begin(users, key_of("orphan"), SHOAL_LEAD);
		must(write(fds[1], "x", 1) == 1);
		for (;;)
			pause();
	}
	must(read(fds[0], &c, 1) == 1);
	heir = child();
	if (!heir) {
		fetch(users, key_of("orphan"), loader, NULL, SHOAL_OK);
		_exit(0);
	}
	wait_for_waiters(1);
	kill(leader, SIGKILL);
	ended(leader, SIGKILL);
	ended(heir, 0);
}

/* In keyspaces whose callers hardly wait: for the load of another, and for a permit. */
static void give_up(void)
{
	struct shoal_load *load = begin(users, key_of("slow"), SHOAL_LEAD),
			  *one = begin(few, key_of("one"), SHOAL_LEAD);
	pid_t pid = child();

	if (!pid) {
		fetch(hasty, key_of("slow"), loader, NULL, SHOAL_ERR_TIMEOUT);
		fetch(few, key_of("two"), loader, NULL, SHOAL_ERR_BUSY);
		_exit(0);
	}
	ended(pid, 0);
	must(shoal_load_publish(load, "x", 1) == SHOAL_OK);
	must(shoal_load_publish(one, "x", 1) == SHOAL_OK);
}

static void one_by_one(void)
{
	struct shoal_load *load;
	struct shoal_value value;
	unsigned i;

	must(shoal_expire(users, key_of("hot 0"), strlen(key_of("hot 0"))) == SHOAL_OK);
	for (i = 0; i < 7; i++)
		get(users, key_of("hot 0"), SHOAL_OK);
	for (i = 0; i < 3; i++)
		get(other, key_of("hot 1"), SHOAL_MISS);
	must(shoal_get(users, key_of("hot 2"), strlen(key_of("hot 2")), &value) == SHOAL_OK);
	must(shoal_reject(users, key_of("hot 2"), strlen(key_of("hot 2")), &value) == SHOAL_OK);
	load = begin(users, key_of("set"), SHOAL_LEAD);
	must(shoal_set(users, key_of("set"), strlen(key_of("set")), "x", 1) == SHOAL_OK);
	must(shoal_load_publish(load, "y", 1) == SHOAL_ERR_SUPERSEDED);
	fetch(users, key_of("private"), uncacheable, NULL, SHOAL_OK);
	fetch(users, key_of("big"), too_big, NULL, SHOAL_OK);
}

static void expect(const char *series, unsigned n)
{
	printf("%s %u\n", series, n);
}

#define OF_USERS "{keyspace=\"users\",version=\"1\""

static void exact(void)
{
	pid_t pids[WORKERS];
	unsigned i;

	for (i = 0; i < 10; i++)
		must(shoal_set(users, key_of("hot %u", i), strlen(key_of("hot %u", i)), "x", 1) == SHOAL_OK);
	for (i = 0; i < WORKERS; i++)
		if (!(pids[i] = child()))
			work(i);
	coalesce();
	take_over();
	for (i = 0; i < WORKERS; i++)
		ended(pids[i], i % 2 ? SIGKILL : 0);
	give_up();
	one_by_one();

	expect("shoal_hits_total" OF_USERS ",freshness=\"fresh\"}", 21 * 1000 + WORKERS * 50 + 1);
	expect("shoal_hits_total" OF_USERS ",freshness=\"stale\"}", 7);
	/* none; own and bad; shared and its waiters; orphan and its heir; slow, twice; set, private, big */
	expect("shoal_misses_total" OF_USERS ",reason=\"absent\"}", WORKERS * (100 + 50 + 10) + 5 + 2 + 2 + 3);
	expect("shoal_misses_total" OF_USERS ",reason=\"schema\"}", 3);
	expect("shoal_misses_total" OF_USERS ",reason=\"expired\"}", 0);
	expect("shoal_misses_total" OF_USERS ",reason=\"corrupt\"}", 0);
	/* own, bad; shared; orphan, and by its heir; slow, set, private, big */
	expect("shoal_loads_total" OF_USERS "}", WORKERS * 60 + 1 + 2 + 4);
	expect("shoal_load_errors_total" OF_USERS "}", WORKERS * 10);
	expect("shoal_coalesced_total" OF_USERS "}", 4);
	expect("shoal_takeovers_total" OF_USERS ",reason=\"dead\"}", 1);
	expect("shoal_takeovers_total" OF_USERS ",reason=\"gave_up\"}", 0);
	expect("shoal_superseded_total" OF_USERS "}", 1);
	expect("shoal_timeouts_total" OF_USERS "}", 1);
	expect("shoal_busy_total{keyspace=\"few\",version=\"1\"}", 1);
	expect("shoal_loads_total{keyspace=\"few\",version=\"1\"}", 1);
	expect("shoal_rejected_total" OF_USERS "}", 1);
	expect("shoal_uncached_total" OF_USERS ",reason=\"uncacheable\"}", 1);
	expect("shoal_uncached_total" OF_USERS ",reason=\"no_room\"}", 1);
	expect("shoal_misses_total{keyspace=\"users\",version=\"2\",reason=\"absent\"}", WORKERS * 50);
	expect("shoal_loads_total{keyspace=\"users\",version=\"2\"}", 0);
	/* all loads but that of who was killed have an end */
	expect("shoal_load_duration_seconds_count" OF_USERS "}", WORKERS * 60 + 1 + 1 + 4);
	expect("shoal_load_duration_seconds_bucket" OF_USERS ",le=\"+Inf\"}", WORKERS * 60 + 1 + 1 + 4);
}

/* ---- hold -------------------------------------------------------------------------------------------------- */

/* "alpha" is busy and has what is asked for; of "beta" every other look-up misses. */
static void hit_on(void)
{
	struct shoal_keyspace *alpha = keyspace("alpha", 1, NULL), *beta = keyspace("beta", 2, NULL);
	unsigned i;

	must(shoal_set(alpha, "hottest", 7, "x", 1) == SHOAL_OK);
	must(shoal_set(alpha, "warm", 4, "x", 1) == SHOAL_OK);
	must(shoal_set(beta, "tepid", 5, "x", 1) == SHOAL_OK);
	for (i = 0;; i++) {
		get(alpha, rand() % 4 ? "hottest" : "warm", SHOAL_OK);
		if (i % 100 == 0)
			get(beta, i % 200 ? "tepid" : "none", i % 200 ? SHOAL_OK : SHOAL_MISS);
		if (i % 400 == 0) {
			must(shoal_set(alpha, "hottest", 7, "x", 1) == SHOAL_OK);
			must(shoal_set(alpha, "warm", 4, "x", 1) == SHOAL_OK);
			must(shoal_set(beta, "tepid", 5, "x", 1) == SHOAL_OK);
			nanosleep(&(struct timespec){0, 4000000}, NULL);
		}
	}
}

static void hold(void)
{
	static const char key[] = "slow \t\x1b[31m\xff";
	pid_t pids[2];
	char c;

	begin(users, key, SHOAL_LEAD);
	pids[0] = child();
	if (!pids[0]) {
		fetch(users, key, none_comes, NULL, SHOAL_OK);
		_exit(0);
	}
	wait_for_waiters(1);
	pids[1] = child();
	if (!pids[1])
		hit_on();
	printf("%d\n", (int)getpid());
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	kill(pids[0], SIGKILL);
	kill(pids[1], SIGKILL);
}

int main(int argc, char **argv)
{
	if (argc >= 3)
		open_all(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "exact")) {
		run = (unsigned)atoi(argv[3]);
		exact();
	} else if (argc == 3 && !strcmp(argv[1], "hold")) {
		hold();
	} else {
		fprintf(stderr, "usage: workload exact CACHE RUN | hold CACHE\n");
		return 2;
	}
	return 0;
}
