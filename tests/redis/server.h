/* SPDX-License-Identifier: MIT */
/*
 * A redis-server of the test's own, on a socket in a folder of its own, and machines: segments whose processes share
 * nothing with the others' but that server. Children of the test are a machine's workers.
 */
#ifndef SHOAL_TEST_SERVER_H
#define SHOAL_TEST_SERVER_H

#include <errno.h>
#include <hiredis/hiredis.h>

#include "redis/shoal-redis.h"
#include "testing.h"

struct server {
	char folder[64], socket[96];
	pid_t pid;
	const char *password;
};

/* Until it says that it is ready, and on: its log is a pipe that nobody reads any more. */
static inline void start_server(struct server *s)
{
	int log[2];
	char line[256];
	FILE *f;

	assert_int_equal(pipe(log), 0);
	fflush(NULL);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (!s->pid) {
		become_child(getppid());
		alarm(0);
		dup2(log[1], 1);
		close(log[0]);
		signal(SIGPIPE, SIG_IGN);
		execlp(REDIS_SERVER, REDIS_SERVER, "--port", "0", "--unixsocket", s->socket, "--dir", s->folder,
		       "--save", "", "--appendonly", "no", s->password ? "--requirepass" : (char *)NULL, s->password,
		       (char *)NULL);
		_exit(127);
	}
	close(log[1]);
	f = fdopen(log[0], "r");
	assert_non_null(f);
	do
		assert_non_null(fgets(line, sizeof(line), f));
	while (!strstr(line, "ready to accept connections"));
	fclose(f);
}

static inline void stop_server(struct server *s)
{
	if (s->pid)
		kill_child(s->pid);
	s->pid = 0;
}

static inline struct server new_server(const char *password)
{
	struct server s = {.folder = "/tmp/shoal-redis-XXXXXX", .password = password};

	assert_non_null(mkdtemp(s.folder));
	snprintf(s.socket, sizeof(s.socket), "%s/redis.sock", s.folder);
	start_server(&s);
	return s;
}

static inline void end_server(struct server *s)
{
	stop_server(s);
	unlink(s->socket);
	assert_int_equal(rmdir(s->folder), 0);
}

/* A command of the test itself; its reply as a number, or as how long it is. -1: nil. */
static inline long long tell_server(const struct server *s, const char *format, ...)
{
	redisContext *c = redisConnectUnix(s->socket);
	redisReply *r;
	va_list args;
	long long n;

	assert_true(c && !c->err);
	va_start(args, format);
	r = redisvCommand(c, format, args);
	va_end(args);
	assert_non_null(r);
	assert_int_not_equal(r->type, REDIS_REPLY_ERROR);
	n = r->type == REDIS_REPLY_INTEGER ? r->integer : r->type == REDIS_REPLY_NIL ? -1 : (long long)r->len;
	freeReplyObject(r);
	redisFree(c);
	return n;
}

/* ---- machines ---------------------------------------------------------------------------------------------- */

struct machine {
	struct place place;
	struct shoal_redis *redis;
	struct shoal_redis_keyspace *k;
};

/* Whatever is slow here is no failure. */
static const struct shoal_redis_config patient = {
	.budget_ms = PATIENCE_S * 1000,
	.wait_ms = PATIENCE_S * 1000,
	.lease_ms = 10 * 60 * 1000,
};

static const struct shoal_policy hourly = {
	.fresh_ms = 3600 * 1000,
	.stale_ms = 3600 * 1000,
	.error_ms = 3600 * 1000,
	.wait_ms = PATIENCE_S * 1000,
	.lease_ms = 10 * 60 * 1000,
	.retry_ms = SHOAL_NONE,
	.jitter_permille = SHOAL_NONE,
	.early = -1,
};

static inline struct machine new_machine(const struct server *s, const struct shoal_redis_config *config,
                                         const struct shoal_policy *policy)
{
	struct machine m = {.place = open_place(NULL, NULL)};
	struct shoal_redis_config c = *config;

	c.socket = s->socket;
	assert_int_equal(shoal_redis_open(m.place.cache, &c, &m.redis), SHOAL_OK);
	assert_int_equal(shoal_redis_keyspace_open(m.redis, "item", 1, policy, &m.k), SHOAL_OK);
	return m;
}

static inline void end_machine(struct machine *m)
{
	shoal_redis_close(m->redis);
	close_place(&m->place);
}

static inline struct shoal_redis_stats figures(const struct machine *m)
{
	struct shoal_redis_stats stats;

	assert_int_equal(shoal_redis_stats(m->redis, &stats), SHOAL_OK);
	return stats;
}

/* Each load is counted once, as what it came to. */
static inline bool adds_up(const struct shoal_redis_stats *s)
{
	return s->loads == s->hits + s->waited + s->stale + s->led + s->unled + s->failed + s->passed;
}

#define assert_figure(machine, field, n) assert_int_equal(figures(machine).field, n)

#endif
