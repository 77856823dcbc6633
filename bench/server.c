/* SPDX-License-Identifier: MIT */
/*
 * shoal-demo-server: a prefork HTTP server for the demo.
 *
 * The master opens the socket and the cache, forks the workers, and then only minds them: it replaces one that died
 * and tells the cache so. It also does the demo's killing (POST /kill/N), because a parent is the one process for
 * which a pid can't have become somebody else's.
 *
 * The cache is an anonymous segment: whatever happens to the demo, nothing of it is left in /dev/shm.
 */
#include "item.h"
#include "origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MID_LOAD_MS 15 /* a load is killed at this age: well begun, and far from done */

static const char *const mode_names[] = {"none", "habit", "shoal"};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int fail(const char *what)
{
	fprintf(stderr, "shoal-demo-server: %s: %s\n", what, strerror(errno));
	return -1;
}

/* Any free port of the loopback; its number goes into `port_file`, whole or not at all. */
static int listen_here(const char *port_file)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	char part[4096];
	FILE *file;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 1024) ||
	    getsockname(fd, (struct sockaddr *)&address, &size))
		return fail("socket");
	if (!port_file) {
		printf("%d\n", ntohs(address.sin_port));
		fflush(stdout);
		return fd;
	}
	snprintf(part, sizeof(part), "%s.part", port_file);
	file = fopen(part, "w");
	if (!file || fprintf(file, "%d\n", ntohs(address.sin_port)) < 0 || fclose(file) || rename(part, port_file))
		return fail(port_file);
	return fd;
}

/*
 * Nothing expires by time, the acts do that. Loads are bounded in the segment rather than in the keyspace, as what is
 * to be spared is the one database behind both versions.
 */
static int open_cache(struct site *site)
{
	struct shoal_config config = {.size = (size_t)site->segment_mb << 20, .max_loads = site->max_loads};
	struct shoal_policy policy = {
		.fresh_ms = 600000,
		.stale_ms = 60000,
		.error_ms = 300000,
		.wait_ms = 15000,
	};
	int rc = shoal_open(NULL, &config, &site->cache);

	for (uint32_t version = 1; !rc && version <= 2; version++)
		rc = shoal_keyspace_open(site->cache, "items", version, &policy, &site->items[version - 1]);
	if (!rc && site->mode == MODE_SHOAL && !site->no_fallback)
		rc = shoal_keyspace_fallback(site->items[1], site->items[0], item_old_key, NULL, NULL);
	if (rc)
		fprintf(stderr, "shoal-demo-server: cache: %s\n", shoal_strerror(rc));
	return rc;
}

static pid_t spawn(struct site *site)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing is left running when the master is killed */
	if (getppid() != site->master)
		_exit(0);
	_exit(worker_run(site));
}

static void respawn_dead(struct site *site, pid_t *workers)
{
	struct board *board = site->board;
	uint64_t load;
	pid_t dead;

	while ((dead = waitpid(-1, NULL, WNOHANG)) > 0) {
		load = board_get(board, hot_load);
		if ((pid_t)(load >> 32) == dead)
			atomic_compare_exchange_strong(&board->hot_load, &load, 0);
		if (site->cache)
			shoal_reap(site->cache);
		for (unsigned i = 0; i < site->workers; i++) {
			if (workers[i] != dead)
				continue;
			workers[i] = spawn(site);
			board_add(board, respawned);
		}
	}
}

/* Kill the worker whose load of the hottest item has been seen for long enough. */
struct watch {
	uint64_t load, since;
};

static void kill_loader(struct site *site, const pid_t *workers, struct watch *watch)
{
	uint64_t load = board_get(site->board, hot_load);
	pid_t pid = (pid_t)(load >> 32);

	if (load != watch->load) {
		watch->load = load;
		watch->since = now_ms();
		return;
	}
	if (!load || now_ms() - watch->since < MID_LOAD_MS)
		return;
	for (unsigned i = 0; i < site->workers; i++) {
		if (workers[i] != pid)
			continue;
		kill(pid, SIGKILL);
		waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT);
		if (board_get(site->board, hot_ended) != load)
			board_add(site->board, killed_loading);
		board_set(site->board, kill_done, board_get(site->board, kill_asked));
	}
}

static void mind(struct site *site, pid_t *workers, const sigset_t *signals)
{
	const struct timespec tick = {.tv_nsec = 1000000};
	struct watch watch = {0};
	int number, killing;

	for (;;) {
		killing = board_get(site->board, kill_asked) != board_get(site->board, kill_done);
		number = killing ? sigtimedwait(signals, NULL, &tick) : sigwaitinfo(signals, NULL);
		if (number == SIGTERM || number == SIGINT)
			return;
		respawn_dead(site, workers);
		if (killing)
			kill_loader(site, workers, &watch);
	}
}

/* Workers end orderly, those that don't within two seconds are killed. */
static void stop(const pid_t *workers, unsigned n)
{
	uint64_t deadline = now_ms() + 2000;
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++)
		if (workers[i] > 0 && !kill(workers[i], SIGTERM))
			left++;
	while (left && now_ms() < deadline) {
		while (left && waitpid(-1, NULL, WNOHANG) > 0)
			left--;
		usleep(10000);
	}
	if (!left)
		return;
	for (unsigned i = 0; i < n; i++)
		if (workers[i] > 0 && !waitpid(workers[i], NULL, WNOHANG))
			kill(workers[i], SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static int serve(struct site *site, const char *port_file)
{
	pid_t workers[MAX_WORKERS] = {0};
	sigset_t signals;

	site->master = getpid();
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* and when the demo itself is */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	site->board = mmap(NULL, sizeof(*site->board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (site->board == MAP_FAILED)
		return fail("mmap");
	board_set(site->board, hot_item, UINT64_MAX);
	if (item_init() || (site->mode != MODE_NONE && open_cache(site)))
		return 1;
	site->listen_fd = listen_here(port_file);
	if (site->listen_fd < 0)
		return 1;
	for (unsigned i = 0; i < site->workers; i++)
		workers[i] = spawn(site);
	mind(site, workers, &signals);
	stop(workers, site->workers);
	shoal_close(site->cache);
	return 0;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Build the database unless it is there, and say what a query costs. */
static int prepare(const char *spec)
{
	struct origin_report report;
	struct origin *origin;
	struct timespec begin, end;
	double ms[9];

	if (origin_build(spec))
		return 1;
	origin = origin_open(spec);
	if (!origin)
		return 1;
	for (unsigned i = 0; i < 9; i++) {
		clock_gettime(CLOCK_MONOTONIC, &begin);
		if (origin_query(origin, i, &report))
			return 1;
		clock_gettime(CLOCK_MONOTONIC, &end);
		ms[i] = (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
	}
	origin_close(origin);
	qsort(ms, 9, sizeof(*ms), by_value);
	printf("%d rows; one query reads %d of them and takes %.0f ms (median of 9)\n",
	       ORIGIN_CATEGORIES * ORIGIN_CATEGORY_ROWS, ORIGIN_CATEGORY_ROWS, ms[4]);
	return 0;
}

static void usage(FILE *out)
{
	fputs("usage: shoal-demo-server --origin sqlite:FILE|postgres:CONNINFO [--prepare]\n"
	      "       [--mode none|habit|shoal] [--workers N] [--connections N] [--segment MIB] [--loads N]\n"
	      "       [--no-fallback] [--port-file FILE]\n",
	      out);
}

static int set_mode(struct site *site, const char *name)
{
	for (int i = MODE_NONE; i <= MODE_SHOAL; i++)
		if (!strcmp(name, mode_names[i])) {
			site->mode = (enum mode)i;
			site->mode_name = mode_names[i];
			return 0;
		}
	return -1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"origin", required_argument, NULL, 'o'},      {"mode", required_argument, NULL, 'm'},
		{"workers", required_argument, NULL, 'w'},     {"connections", required_argument, NULL, 'c'},
		{"segment", required_argument, NULL, 's'},     {"loads", required_argument, NULL, 'l'},
		{"port-file", required_argument, NULL, 'f'},   {"prepare", no_argument, NULL, 'p'},
		{"no-fallback", no_argument, NULL, 'n'},       {"help", no_argument, NULL, 'h'},
		{0},
	};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct site site = {
		.mode = MODE_SHOAL, .mode_name = "shoal", .workers = 8, .connections = 64, .segment_mb = 64};
	const char *port_file = NULL;
	int c, preparing = 0, wrong = 0;

	/* Two to a core: beside the visitors, who are on the same cores, a load gets about half of one. */
	site.max_loads = cores > 1 ? 2 * (unsigned)cores : 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'o': site.origin = optarg; break;
		case 'm': wrong |= set_mode(&site, optarg); break;
		case 'w': site.workers = (unsigned)atoi(optarg); break;
		case 'c': site.connections = (unsigned)atoi(optarg); break;
		case 's': site.segment_mb = (unsigned)atoi(optarg); break;
		case 'l': site.max_loads = (unsigned)atoi(optarg); break;
		case 'f': port_file = optarg; break;
		case 'p': preparing = 1; break;
		case 'n': site.no_fallback = 1; break;
		case 'h': usage(stdout); return 0;
		default: wrong = 1;
		}
	}
	if (wrong || !site.origin || optind < argc || site.workers < 1 || site.workers > MAX_WORKERS) {
		usage(stderr);
		return 2;
	}
	return preparing ? prepare(site.origin) : serve(&site, port_file);
}
