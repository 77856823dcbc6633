/* SPDX-License-Identifier: MIT */
/*
 * The second level with a real redis-server behind three machines.
 *
 *   R.1  one load for each key over all machines, and one request of each machine for it
 *   R.2  who dies leaves nothing that outlasts the lease, and within its machine nothing at all
 *   R.3  Redis that fails is a miss, and after some of them it is left alone
 *   R.4  lives don't add up
 *   R.5  what was deleted doesn't come back
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "server.h"

#define MACHINES 3
#define WORKERS 4
#define KEYS 300

/* In shared memory. */
struct scene {
	word32 loads, here, entered;
	word32 gated, gate; /* a load that begins while `gated` waits until `gate` is its number */
	word32 of_key[KEYS];
	char text[32]; /* what is loaded */
	int fails;
	uint32_t fresh_ms;
	struct machine *crowd;    /* wait until all three have come to load */
	struct test_clock *clock; /* of which a load takes 10 ms */
};

/* What loads that begin from now on give. */
static void change_text(struct scene *s, const char *text)
{
	snprintf(s->text, sizeof(s->text), "%s", text);
}

static struct scene *new_scene(const char *text)
{
	struct scene *s = share(sizeof(*s));

	change_text(s, text);
	return s;
}

static void end_scene(struct scene *s)
{
	unshare_memory(s, sizeof(*s));
}

static bool all_have_come(const struct machine *m)
{
	uint64_t end = clock_system_ns(CLOCK_MONOTONIC) + PATIENCE_S * SECOND_NS;
	bool come;

	do {
		come = true;
		for (int i = 0; i < MACHINES; i++) {
			struct shoal_redis_stats stats;

			shoal_redis_stats(m[i].redis, &stats);
			come = come && stats.loads;
		}
		poll(NULL, 0, come ? 0 : 1);
	} while (!come && clock_system_ns(CLOCK_MONOTONIC) < end);
	return come;
}

static int source(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	struct scene *s = arg;
	char name[32], text[32];
	bool gated = w32_load(&s->gated);
	uint32_t n = w32_add(&s->loads, 1) + 1;

	snprintf(text, sizeof(text), "%s", s->text); /* as it was when the load began */
	snprintf(name, sizeof(name), "%.*s", (int)key_size, (const char *)key);
	if (*name == '#')
		w32_add(&s->of_key[atoi(name + 1)], 1);
	post(&s->entered);
	if (s->crowd && !all_have_come(s->crowd))
		return ETIMEDOUT;
	if (gated && !await(&s->gate, n))
		return ETIMEDOUT;
	pthread_testcancel();
	if (s->clock)
		pass_ms(s->clock, 10);
	if (s->fails)
		return s->fails;
	shoal_redis_ttl(fill, s->fresh_ms, 0);
	return shoal_redis_publish(fill, STR(text));
}

static int fetch_by(struct machine *m, shoal_redis_source *by, void *arg, const char *key, struct shoal_value *value)
{
	struct shoal_redis_loader loader = {m->k, by, arg, {0}};

	return shoal_fetch(shoal_redis_keyspace(m->k), STR(key), shoal_redis_load, &loader, value);
}

/* Does a fetch give this text? */
static bool fetches(struct machine *m, struct scene *s, const char *key, const char *text)
{
	struct shoal_value value;
	int r = fetch_by(m, source, s, key, &value);
	bool right = r == SHOAL_OK && holds(&value, text);

	if (!right)
		fprintf(stderr, "fetch %s: %d, load error %d, \"%.*s\", not \"%s\"\n", key, r, value.load_error,
		        (int)value.size, value.data ? (const char *)value.data : "", text);
	shoal_release(&value);
	return right;
}

#define assert_fetches(m, s, key, text) assert_true(fetches(m, s, key, text))

struct worker {
	struct machine *m;
	struct scene *s;
	const char *key, *text;
	unsigned parties; /* that begin together */
	int i;
};

static int fetch_one(void *arg)
{
	struct worker *w = arg;

	must(!w->parties || meet(&w->s->here, w->parties));
	must(fetches(w->m, w->s, w->key, w->text));
	return 0;
}

static int fetch_all(void *arg)
{
	static const int steps[MACHINES * WORKERS] = {1, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43};
	struct worker *w = arg;
	char key[16];

	must(meet(&w->s->here, w->parties));
	for (int i = 0; i < KEYS; i++) { /* all of them, in an order of its own */
		snprintf(key, sizeof(key), "#%d", (i * steps[w->i] + 7 * w->i) % KEYS);
		must(fetches(w->m, w->s, key, w->text));
	}
	return 0;
}

/* All workers of all machines do it at once. */
static void do_together(struct machine *m, struct scene *s, int (*body)(void *), const char *key, const char *text)
{
	struct worker w[MACHINES * WORKERS];
	pid_t pids[MACHINES * WORKERS];

	for (int i = 0; i < MACHINES * WORKERS; i++) {
		w[i] = (struct worker){&m[i % MACHINES], s, key, text, MACHINES * WORKERS, i};
		pids[i] = spawn(body, &w[i]);
	}
	for (int i = 0; i < MACHINES * WORKERS; i++)
		assert_ends_well(pids[i]);
}

/* ---- a stage for each case --------------------------------------------------------------------------------- */

struct stage {
	struct server server;
	struct machine m[MACHINES];
	struct scene *s;
};

static struct stage new_stage(const struct shoal_redis_config *config, const struct shoal_policy *policy)
{
	struct stage t = {.server = new_server(NULL), .s = new_scene("first")};

	for (int i = 0; i < MACHINES; i++)
		t.m[i] = new_machine(&t.server, config, policy);
	return t;
}

static void end_stage(struct stage *t)
{
	for (int i = 0; i < MACHINES; i++) {
		struct shoal_redis_stats stats = figures(&t->m[i]);

		assert_true(adds_up(&stats));
		end_machine(&t->m[i]);
	}
	end_scene(t->s);
	end_server(&t->server);
}

/* A worker of that machine that loads "k", and is held inside the source. */
static pid_t hold_load(struct stage *t, int machine, const char *text)
{
	struct worker w = {&t->m[machine], t->s, "k", text, 0, 0};
	uint32_t before = w32_load(&t->s->entered);
	pid_t pid;

	w32_store(&t->s->gated, 1);
	pid = spawn(fetch_one, &w);
	assert_true(await(&t->s->entered, before + 1));
	w32_store(&t->s->gated, 0);
	return pid;
}

/* It goes on, and gets what it loaded. */
static void let_end(struct stage *t, pid_t pid)
{
	w32_store(&t->s->gate, w32_load(&t->s->loads));
	futex_wake(&t->s->gate, INT_MAX);
	assert_ends_well(pid);
}

static const char value_key[] = "shoal:item@1:k", lock_key[] = "shoal:item@1#k";

static void age_in_redis(const struct server *s, uint64_t ms)
{
	redisContext *c = redisConnectUnix(s->socket);
	redisReply *stamp, *left;
	char older[17];

	assert_true(c && !c->err);
	stamp = redisCommand(c, "GETRANGE %s 0 15", value_key);
	left = redisCommand(c, "PTTL %s", value_key);
	assert_true(stamp && stamp->type == REDIS_REPLY_STRING && stamp->len == 16 && left &&
	            left->integer > (long long)ms);
	snprintf(older, sizeof(older), "%016llu", strtoull(stamp->str, NULL, 10) - ms);
	freeReplyObject(stamp);
	freeReplyObject(redisCommand(c, "SETRANGE %s 0 %s", value_key, older));
	freeReplyObject(redisCommand(c, "PEXPIRE %s %lld", value_key, left->integer - (long long)ms));
	freeReplyObject(left);
	redisFree(c);
}

/* ---- R.1 --------------------------------------------------------------------------------------------------- */

static void a_cold_key_is_loaded_once(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	uint64_t others = 0;

	t.s->crowd = t.m;
	do_together(t.m, t.s, fetch_one, "k", "first");
	assert_int_equal(w32_load(&t.s->loads), 1);
	for (int i = 0; i < MACHINES; i++) {
		struct shoal_redis_stats stats = figures(&t.m[i]);

		assert_int_equal(stats.loads, 1);
		assert_int_equal(stats.connections, stats.led + stats.hits + stats.waited); /* one each, by who loads */
		assert_int_equal(stats.errors, 0);
		others += stats.hits + stats.waited;
	}
	assert_int_equal(others, 2);
	assert_int_equal(tell_server(&t.server, "EXISTS %s", lock_key), 0);
	end_stage(&t);
}

static void each_of_many_keys_is_loaded_once(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	uint64_t loads = 0, led = 0;

	do_together(t.m, t.s, fetch_all, NULL, "first");
	for (int i = 0; i < KEYS; i++)
		assert_int_equal(w32_load(&t.s->of_key[i]), 1);
	for (int i = 0; i < MACHINES; i++) {
		loads += figures(&t.m[i]).loads;
		led += figures(&t.m[i]).led;
	}
	assert_int_equal(w32_load(&t.s->loads), KEYS);
	assert_int_equal(led, KEYS);
	assert_int_equal(loads, MACHINES * KEYS);
	assert_int_equal(tell_server(&t.server, "DBSIZE"), KEYS);
	end_stage(&t);
}

static void who_waited_in_vain_loads_beside(void **state)
{
	struct shoal_redis_config config = patient;
	struct stage t;
	pid_t pid;

	config.wait_ms = 1;
	t = new_stage(&config, &hourly);
	pid = hold_load(&t, 0, "first");
	change_text(t.s, "beside");
	assert_fetches(&t.m[1], t.s, "k", "beside");
	assert_figure(&t.m[1], unled, 1);
	assert_figure(&t.m[1], stored, 0);
	assert_figure(&t.m[1], locks_lost, 0);
	assert_int_equal(tell_server(&t.server, "EXISTS %s", value_key), 0);
	let_end(&t, pid);
	assert_figure(&t.m[0], stored, 1);
	assert_fetches(&t.m[2], t.s, "k", "first");
	end_stage(&t);
}

/* ---- R.2 --------------------------------------------------------------------------------------------------- */

static void a_machine_dies(void **state)
{
	struct shoal_redis_config config = patient;
	struct stage t;
	pid_t pid;

	config.lease_ms = 300; /* of its lock alone: the others take their time */
	t = new_stage(&patient, &hourly);
	end_machine(&t.m[0]);
	t.m[0] = new_machine(&t.server, &config, &hourly);
	pid = hold_load(&t, 0, "first");
	kill_child(pid); /* the only worker that it had */
	assert_fetches(&t.m[1], t.s, "k", "first");
	assert_int_equal(w32_load(&t.s->loads), 2);
	assert_figure(&t.m[1], led, 1);
	assert_figure(&t.m[1], inherited, 0);
	assert_fetches(&t.m[2], t.s, "k", "first");
	assert_int_equal(w32_load(&t.s->loads), 2);
	end_stage(&t);
}

/* Whose lock lasts for ten minutes. */
static void an_heir_takes_the_lock_of_its_machine(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	pid_t leader;

	leader = hold_load(&t, 0, "first");
	kill_child(leader);
	assert_fetches(&t.m[0], t.s, "k", "first");
	assert_figure(&t.m[0], inherited, 1);
	assert_figure(&t.m[0], led, 2);
	assert_figure(&t.m[0], stored, 1);
	end_stage(&t);
}

static void an_overdue_load_stores_nothing(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	pid_t pid;

	pid = hold_load(&t, 0, "first");
	assert_int_equal(tell_server(&t.server, "DEL %s", lock_key), 1); /* as its lease does */
	let_end(&t, pid);
	assert_figure(&t.m[0], locks_lost, 1);
	assert_figure(&t.m[0], stored, 0);
	assert_int_equal(tell_server(&t.server, "EXISTS %s", value_key), 0);
	assert_gives(shoal_redis_keyspace(t.m[0].k), "k", "first"); /* its machine keeps it */
	end_stage(&t);
}

static int renewing(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	struct stage *t = arg;

	assert_int_equal(tell_server(&t->server, "PEXPIRE %s 60000", lock_key), 1);
	assert_int_equal(shoal_redis_renew(fill), SHOAL_OK);
	assert_true(tell_server(&t->server, "PTTL %s", lock_key) > 60000);
	return shoal_redis_publish(fill, STR("renewed"));
}

static void a_lease_is_renewed(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_value value;

	assert_int_equal(fetch_by(&t.m[0], renewing, &t, "k", &value), SHOAL_OK);
	assert_true(holds(&value, "renewed"));
	shoal_release(&value);
	assert_figure(&t.m[0], stored, 1);
	end_stage(&t);
}

static void *load_in_thread(void *arg)
{
	struct stage *t = arg;

	fetches(&t->m[0], t->s, "k", "first");
	return NULL;
}

static void a_cancelled_thread_lets_go(void **state)
{
	struct stage t;
	pthread_t thread;

	if (UNDER_ASAN) {
		skipped("AddressSanitizer takes the stack of a cancelled thread for poisoned");
		return;
	}
	t = new_stage(&patient, &hourly);
	w32_store(&t.s->gated, 1);
	assert_int_equal(pthread_create(&thread, NULL, load_in_thread, &t), 0);
	assert_true(await(&t.s->entered, 1));
	assert_int_equal(pthread_cancel(thread), 0);
	post(&t.s->gate);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_figure(&t.m[0], led, 1);
	assert_figure(&t.m[0], stored, 0);
	assert_int_equal(tell_server(&t.server, "EXISTS %s", lock_key), 0);
	end_stage(&t);
}

/* ---- R.3 --------------------------------------------------------------------------------------------------- */

static void remember(enum shoal_level level, const char *text, void *arg)
{
	snprintf(arg, 200, "%d %s", (int)level, text);
}

static void a_stopped_server_is_left_alone(void **state)
{
	char said[200] = "";
	struct shoal_redis_config config = patient;
	struct stage t;
	char key[16];
	int i;

	config.budget_ms = 50;
	config.cool_down_ms = 1000;
	config.failures = 3;
	config.log = remember;
	config.log_arg = said;
	t = new_stage(&config, &hourly);
	kill(t.server.pid, SIGSTOP);
	for (i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "#%d", i);
		assert_fetches(&t.m[0], t.s, key, "first");
	}
	assert_figure(&t.m[0], failed, 3);
	assert_figure(&t.m[0], errors, 3); /* one command each */
	assert_figure(&t.m[0], passed, 17);
	assert_figure(&t.m[0], opens, 1);
	assert_non_null(strstr(said, "is left alone: no answer in time"));
	pass_ms(t.m[0].place.clock, 1001);
	for (; i < 30; i++) {
		snprintf(key, sizeof(key), "#%d", i);
		assert_fetches(&t.m[0], t.s, key, "first");
	}
	assert_figure(&t.m[0], failed, 4); /* one probe */
	pass_ms(t.m[0].place.clock, 1001); /* twice as long by now */
	assert_fetches(&t.m[0], t.s, "#30", "first");
	assert_figure(&t.m[0], failed, 4);
	kill(t.server.pid, SIGCONT);
	for (i = 31; !figures(&t.m[0]).led && i < KEYS; i++) { /* a slow machine may need several */
		pass_ms(t.m[0].place.clock, 20000);
		snprintf(key, sizeof(key), "#%d", i);
		assert_fetches(&t.m[0], t.s, key, "first");
	}
	assert_figure(&t.m[0], led, 1);
	assert_non_null(strstr(said, "is back"));
	end_stage(&t);
}

/* The workers of a machine tell each other. */
static void one_process_opens_it_for_all(void **state)
{
	struct shoal_redis_config config = patient;
	struct shoal_redis *other;
	struct shoal_redis_keyspace *k;
	struct shoal_redis_stats stats;
	struct stage t;
	struct machine beside;

	config.failures = 1;
	config.cool_down_ms = 600000;
	t = new_stage(&config, &hourly);
	stop_server(&t.server);
	assert_fetches(&t.m[0], t.s, "k", "first");
	assert_figure(&t.m[0], failed, 1);
	config.socket = t.server.socket;
	assert_int_equal(shoal_redis_open(t.m[0].place.cache, &config, &other), SHOAL_OK); /* as another program does */
	assert_int_equal(shoal_redis_keyspace_open(other, "item", 1, &hourly, &k), SHOAL_OK);
	beside = (struct machine){.place = t.m[0].place, .redis = other, .k = k};
	assert_fetches(&beside, t.s, "another", "first");
	assert_int_equal(shoal_redis_stats(other, &stats), SHOAL_OK);
	assert_int_equal(stats.passed, 1);
	shoal_redis_close(other);
	end_stage(&t);
}

static void a_server_that_restarts(void **state)
{
	struct shoal_redis_config config = patient;
	struct stage t;

	config.failures = 1000;
	t = new_stage(&config, &hourly);
	assert_fetches(&t.m[0], t.s, "a", "first");
	stop_server(&t.server);
	assert_fetches(&t.m[0], t.s, "b", "first");
	assert_figure(&t.m[0], failed, 1);
	start_server(&t.server);
	assert_fetches(&t.m[0], t.s, "c", "first");
	assert_figure(&t.m[0], stored, 2);
	stop_server(&t.server);
	start_server(&t.server);
	assert_fetches(&t.m[0], t.s, "d", "first"); /* over a connection that was idle meanwhile */
	assert_figure(&t.m[0], failed, 1);
	assert_figure(&t.m[0], stored, 3);
	assert_figure(&t.m[0], connections, 3);
	tell_server(&t.server, "SCRIPT FLUSH");
	assert_fetches(&t.m[0], t.s, "e", "first");
	assert_figure(&t.m[0], stored, 4);
	assert_figure(&t.m[0], errors, 1);
	end_stage(&t);
}

static void a_wrong_password_is_told(void **state)
{
	struct server server = new_server("right");
	struct scene *s = new_scene("first");
	struct shoal_redis_config config = patient;
	const char *const passwords[] = {NULL, "wrong", "right"}, *const said[] = {"NOAUTH", "WRONGPASS", ""};

	for (int i = 0; i < 3; i++) {
		struct machine m;
		char why[200] = "";

		config.password = passwords[i];
		m = new_machine(&server, &config, &hourly);
		assert_int_equal(shoal_redis_check(m.redis, why, sizeof(why)), i < 2 ? SHOAL_ERR_PERMISSION : SHOAL_OK);
		assert_non_null(strstr(why, said[i]));
		assert_fetches(&m, s, "k", "first");
		assert_figure(&m, failed, i < 2);
		assert_figure(&m, stored, i == 2);
		end_machine(&m);
	}
	stop_server(&server);
	config.socket = server.socket;
	end_scene(s);
	end_server(&server);
}

static void nobody_listens(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	char why[200];

	stop_server(&t.server);
	assert_int_equal(shoal_redis_check(t.m[0].redis, why, sizeof(why)), SHOAL_ERR_SYSTEM);
	assert_int_equal(errno, ECONNREFUSED);
	assert_non_null(strstr(why, "connect: Connection refused"));
	assert_int_equal(shoal_redis_delete(t.m[0].k, STR("k")), SHOAL_ERR_SYSTEM);
	end_stage(&t);
}

/* ---- servers that are none --------------------------------------------------------------------------------- */

enum manner { CLOSES, CHATTERS, PROMISES, COUNTS, NESTS, DRIPS, IS_SILENT, MANNERS };

static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* Till who asked has gone; it never says anything that would be an answer. */
static void answer_by(enum manner manner, int fd)
{
	static const char *const first[MANNERS] = {
		[CHATTERS] = "HTTP/1.1 400 Bad Request\r\n\r\n", [PROMISES] = "$2147483647\r\n", [NESTS] = ""};
	char buffer[4096];

	if (first[manner] && !say(fd, first[manner]))
		return;
	for (;;) {
		ssize_t n = recv(fd, buffer, sizeof(buffer),
		                 manner == PROMISES || manner == DRIPS || manner == NESTS ? MSG_DONTWAIT : 0);

		if (!n || (n < 0 && errno != EAGAIN))
			return;
		if (manner == COUNTS && !say(fd, ":1\r\n"))
			return;
		if ((manner == PROMISES || manner == DRIPS || manner == NESTS) &&
		    !say(fd, manner == NESTS ? "*1\r\n" : "+"))
			return;
		if (manner == DRIPS)
			poll(NULL, 0, 1); /* a slow server: it goes on for ever */
	}
}

struct impostor {
	int fd;
	enum manner manner;
};

static int pretend(void *arg)
{
	const struct impostor *i = arg;
	int fd;

	while ((fd = accept(i->fd, NULL, NULL)) >= 0) {
		if (i->manner != CLOSES)
			answer_by(i->manner, fd);
		close(fd);
	}
	return 1;
}

static int listen_at(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static void servers_that_are_none(void **state)
{
	struct shoal_redis_config config = patient;
	struct scene *s = new_scene("first");

	config.budget_ms = 200;
	for (int manner = 0; manner < MANNERS; manner++) {
		struct server server = new_server(NULL);
		struct impostor impostor = {.manner = (enum manner)manner};
		struct machine m;
		pid_t pid;

		stop_server(&server);
		unlink(server.socket);
		impostor.fd = listen_at(server.socket);
		pid = spawn(pretend, &impostor);
		close(impostor.fd);
		m = new_machine(&server, &config, &hourly);
		assert_fetches(&m, s, "k", "first");
		assert_figure(&m, failed, 1);
		assert_figure(&m, errors, 1);
		kill_child(pid);
		end_machine(&m);
		end_server(&server);
	}
	end_scene(s);
}

/* ---- R.4 --------------------------------------------------------------------------------------------------- */

static int see_lives(const struct shoal_entry *entry, void *arg)
{
	*(struct shoal_entry *)arg = *entry;
	return 1;
}

static void lives_do_not_add_up(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_entry seen = {0};
	int64_t hour = 3600 * 1000;

	assert_fetches(&t.m[0], t.s, "k", "first");
	age_in_redis(&t.server, 3000 * 1000);
	assert_fetches(&t.m[1], t.s, "k", "first");
	assert_figure(&t.m[1], hits, 1);
	assert_int_equal(shoal_scan(t.m[1].place.cache, "item", see_lives, &seen), 1);
	assert_in_range(seen.fresh_left_ms, 1, 600 * 1000);
	assert_in_range(seen.stale_left_ms, hour, 600 * 1000 + hour);
	assert_in_range(seen.error_left_ms, 2 * hour, 600 * 1000 + 2 * hour);
	age_in_redis(&t.server, 4000 * 1000); /* stale for 3400 s */
	pass_ms(t.m[1].place.clock, 4000 * 1000);
	tell_server(&t.server, "SET %s %s", lock_key, "0000000000000000another.machine.another.token");
	assert_fetches(&t.m[2], t.s, "k", "first");
	assert_figure(&t.m[2], stale, 1);
	assert_int_equal(shoal_scan(t.m[2].place.cache, "item", see_lives, &seen), 1);
	assert_in_range(seen.fresh_left_ms, 1, 50);
	assert_in_range(seen.stale_left_ms, 1, 200 * 1000);
	assert_in_range(seen.error_left_ms, hour, 200 * 1000 + hour);
	assert_int_equal(w32_load(&t.s->loads), 1);
	end_stage(&t);
}

static void the_stale_one_is_shared(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	pid_t pid;

	assert_fetches(&t.m[0], t.s, "k", "first");
	age_in_redis(&t.server, 3700 * 1000);
	change_text(t.s, "second");
	pid = hold_load(&t, 1, "second");
	assert_fetches(&t.m[2], t.s, "k", "first"); /* and doesn't wait */
	assert_figure(&t.m[2], stale, 1);
	assert_fetches(&t.m[2], t.s, "k", "first"); /* nor ask again for a while */
	assert_figure(&t.m[2], loads, 1);
	let_end(&t, pid);
	pass_ms(t.m[2].place.clock, 51);
	assert_fetches(&t.m[2], t.s, "k", "second");
	assert_int_equal(w32_load(&t.s->loads), 2);
	end_stage(&t);
}

/* What the segment refreshes early is refreshed in Redis, too; but not if another machine has done it. */
static void an_early_refresh_is_one_for_all(void **state)
{
	struct shoal_policy policy = hourly;
	struct stage t;

	policy.early = 1e9f; /* always */
	t = new_stage(&patient, &policy);
	t.s->clock = t.m[0].place.clock;
	assert_fetches(&t.m[0], t.s, "k", "first");
	pass_ms(t.m[0].place.clock, 3000 * 1000);
	age_in_redis(&t.server, 3000 * 1000);
	change_text(t.s, "second");
	assert_fetches(&t.m[0], t.s, "k", "second");
	assert_figure(&t.m[0], led, 2);
	assert_fetches(&t.m[1], t.s, "k", "second");
	pass_ms(t.m[0].place.clock, 3000 * 1000);
	assert_fetches(&t.m[0], t.s, "k", "second");
	assert_figure(&t.m[0], hits, 1);
	assert_int_equal(w32_load(&t.s->loads), 2);
	end_stage(&t);
}

static void a_value_for_ever(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_entry seen = {0};

	t.s->fresh_ms = SHOAL_FOREVER;
	assert_fetches(&t.m[0], t.s, "k", "first");
	assert_int_equal(tell_server(&t.server, "PTTL %s", value_key), -1);
	assert_fetches(&t.m[1], t.s, "k", "first");
	assert_int_equal(shoal_scan(t.m[1].place.cache, "item", see_lives, &seen), 1);
	assert_true(seen.fresh_left_ms == INT64_MAX);
	end_stage(&t);
}

/* ---- R.5 --------------------------------------------------------------------------------------------------- */

static void a_delete_stops_a_load_elsewhere(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	pid_t pid;

	pid = hold_load(&t, 0, "first");
	assert_int_equal(shoal_redis_delete(t.m[1].k, STR("k")), SHOAL_MISS);
	let_end(&t, pid); /* it has what it loaded */
	assert_figure(&t.m[0], superseded, 1);
	assert_int_equal(tell_server(&t.server, "EXISTS %s", value_key), 0);
	assert_misses(shoal_redis_keyspace(t.m[0].k), "k"); /* nor does its machine keep it */
	change_text(t.s, "second");
	assert_fetches(&t.m[0], t.s, "k", "second");
	assert_fetches(&t.m[1], t.s, "k", "second");
	assert_int_equal(w32_load(&t.s->loads), 2);
	end_stage(&t);
}

/* ... which is remembered when the next one has been loaded and stored. */
static void a_delete_is_remembered(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	pid_t pid;

	pid = hold_load(&t, 0, "first");
	assert_int_equal(shoal_redis_delete(t.m[1].k, STR("k")), SHOAL_MISS);
	change_text(t.s, "second");
	assert_fetches(&t.m[1], t.s, "k", "second");
	assert_figure(&t.m[1], stored, 1);
	let_end(&t, pid);
	assert_figure(&t.m[0], superseded, 1);
	assert_misses(shoal_redis_keyspace(t.m[0].k), "k");
	assert_fetches(&t.m[0], t.s, "k", "second");
	assert_fetches(&t.m[2], t.s, "k", "second");
	end_stage(&t);
}

/* What is in the database, and since when a machine's cache may not be older. */
struct storm {
	word32 here, wrong;
	word64 now[4], floor[MACHINES][4];
};

struct stormer {
	struct machine *m;
	struct storm *storm;
	int i;
};

static int read_database(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	struct storm *storm = arg;
	uint64_t now = w64_load(&storm->now[*(const char *)key - 'a']);

	sched_yield();
	return shoal_redis_publish(fill, &now, sizeof(now));
}

static void change_key(struct stormer *w, int key)
{
	char name = (char)('a' + key);
	word64 *floor = &w->storm->floor[w->i % MACHINES][key];
	uint64_t now = w64_add(&w->storm->now[key], 1) + 1, before;

	must(shoal_redis_delete(w->m->k, &name, 1) >= 0);
	while ((before = w64_load(floor)) < now && !w64_cas(floor, before, now))
		;
}

static void read_key(struct stormer *w, int key)
{
	struct shoal_redis_loader loader = {w->m->k, read_database, w->storm, {0}};
	char name = (char)('a' + key);
	uint64_t floor = w64_load(&w->storm->floor[w->i % MACHINES][key]), seen;
	struct shoal_value value;

	must(shoal_fetch(shoal_redis_keyspace(w->m->k), &name, 1, shoal_redis_load, &loader, &value) == SHOAL_OK);
	must(value.size == sizeof(seen));
	memcpy(&seen, value.data, sizeof(seen));
	shoal_release(&value);
	if (seen < floor)
		w32_add(&w->storm->wrong, 1);
}

static int storm_on(void *arg)
{
	struct stormer *w = arg;
	uint64_t seed = (uint64_t)w->i;

	must(meet(&w->storm->here, MACHINES * WORKERS));
	for (int n = 0; n < 500; n++) {
		int key = (int)(draw(&seed) % 4);

		if (draw(&seed) % 4)
			read_key(w, key);
		else
			change_key(w, key);
	}
	return 0;
}

/* Who has deleted a key never sees on its machine what there was before. */
static void a_storm_of_deletes(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct storm *storm = share(sizeof(*storm));
	struct stormer w[MACHINES * WORKERS];
	pid_t pids[MACHINES * WORKERS];

	for (int i = 0; i < MACHINES * WORKERS; i++) {
		w[i] = (struct stormer){&t.m[i % MACHINES], storm, i};
		pids[i] = spawn(storm_on, &w[i]);
	}
	for (int i = 0; i < MACHINES * WORKERS; i++)
		assert_ends_well(pids[i]);
	assert_int_equal(w32_load(&storm->wrong), 0);
	for (int i = 0; i < MACHINES; i++) {
		struct shoal_redis_stats stats = figures(&t.m[i]);

		printf("# machine %d: %llu loads, %llu led, %llu hits, %llu waited, %llu superseded\n", i,
		       (unsigned long long)stats.loads, (unsigned long long)stats.led, (unsigned long long)stats.hits,
		       (unsigned long long)stats.waited, (unsigned long long)stats.superseded);
		assert_int_equal(stats.errors, 0);
		assert_int_equal(stats.unled, 0);
	}
	unshare_memory(storm, sizeof(*storm));
	end_stage(&t);
}

static void deleted_is_gone_in_both(void **state)
{
	struct stage t = new_stage(&patient, &hourly);

	assert_fetches(&t.m[0], t.s, "k", "first");
	assert_int_equal(shoal_redis_delete(t.m[0].k, STR("k")), SHOAL_OK);
	assert_misses(shoal_redis_keyspace(t.m[0].k), "k");
	assert_int_equal(tell_server(&t.server, "EXISTS %s", value_key), 0);
	change_text(t.s, "second");
	assert_fetches(&t.m[0], t.s, "k", "second");
	assert_int_equal(shoal_redis_delete(t.m[0].k, STR("other")), SHOAL_MISS);
	end_stage(&t);
}

static void expired_is_stale_in_both(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_entry seen = {0};
	pid_t pid;

	assert_fetches(&t.m[0], t.s, "k", "first");
	assert_int_equal(shoal_redis_expire(t.m[0].k, STR("k")), SHOAL_OK);
	assert_int_equal(shoal_scan(t.m[0].place.cache, "item", see_lives, &seen), 1);
	assert_true(seen.fresh_left_ms <= 0);
	assert_in_range(tell_server(&t.server, "PTTL %s", value_key), 1, 2 * 3600 * 1000);
	change_text(t.s, "second");
	pid = hold_load(&t, 1, "second");
	assert_fetches(&t.m[2], t.s, "k", "first");
	let_end(&t, pid);
	assert_fetches(&t.m[0], t.s, "k", "second");
	assert_int_equal(w32_load(&t.s->loads), 2);
	end_stage(&t);
}

/* ---- what is stored ---------------------------------------------------------------------------------------- */

static void bytes_that_are_wrong(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_policy other = hourly;
	struct machine m;

	assert_fetches(&t.m[0], t.s, "k", "first");
	tell_server(&t.server, "SETRANGE %s 50 X", value_key);
	assert_fetches(&t.m[1], t.s, "k", "first");
	assert_figure(&t.m[1], corrupt, 1);
	assert_figure(&t.m[1], led, 1);
	assert_fetches(&t.m[2], t.s, "k", "first");
	assert_figure(&t.m[2], hits, 1);
	other.schema = 2;
	m = new_machine(&t.server, &patient, &other);
	assert_fetches(&m, t.s, "k", "first");
	assert_figure(&m, mismatches, 1);
	assert_figure(&m, led, 1);
	end_machine(&m);
	tell_server(&t.server, "SET %s short", value_key);
	m = new_machine(&t.server, &patient, &hourly);
	assert_fetches(&m, t.s, "k", "first");
	assert_figure(&m, mismatches, 1);
	end_machine(&m);
	end_stage(&t);
}

static void another_type_in_redis(void **state)
{
	struct stage t = new_stage(&patient, &hourly);

	tell_server(&t.server, "LPUSH %s x", value_key);
	assert_fetches(&t.m[0], t.s, "k", "first");
	assert_figure(&t.m[0], failed, 1);
	end_stage(&t);
}

static void a_failure_lets_go(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_value value;

	t.s->fails = EIO;
	assert_int_equal(fetch_by(&t.m[0], source, t.s, "k", &value), SHOAL_ERR_LOAD);
	assert_int_equal(value.load_error, EIO);
	assert_int_equal(tell_server(&t.server, "EXISTS %s", lock_key), 0);
	t.s->fails = 0;
	assert_fetches(&t.m[1], t.s, "k", "first");
	age_in_redis(&t.server, 3700 * 1000);
	t.s->fails = EIO;
	assert_fetches(&t.m[2], t.s, "k", "first"); /* in place of the failure */
	assert_figure(&t.m[2], bridged, 1);
	assert_figure(&t.m[2], led, 1);
	end_stage(&t);
}

static int in_place(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	char *space = shoal_redis_reserve(fill, 4);

	if (!space || shoal_redis_commit(fill, 5) != SHOAL_ERR_INVALID)
		return ENOMEM;
	memcpy(space, "here", 4);
	return shoal_redis_commit(fill, 4);
}

static int kept(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	return shoal_redis_keep(fill);
}

static int not_to_be_kept(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	shoal_redis_uncacheable(fill, 0);
	return shoal_redis_publish(fill, STR("mine"));
}

static int too_large(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	return shoal_redis_publish(fill, "1234567890123456789", 17);
}

static int silent(struct shoal_redis_fill *fill, const void *key, size_t key_size, void *arg)
{
	return 0;
}

static bool comes_to(struct machine *m, shoal_redis_source *by, const char *text)
{
	struct shoal_value value;
	int r = fetch_by(m, by, NULL, "k", &value);
	bool right = r == (text ? SHOAL_OK : SHOAL_ERR_LOAD) && (!text || holds(&value, text));

	shoal_release(&value);
	return right;
}

static void the_ways_to_publish(void **state)
{
	struct shoal_redis_config config = patient;
	struct stage t;

	config.max_value = 16;
	t = new_stage(&config, &hourly);
	assert_true(comes_to(&t.m[0], silent, NULL));
	assert_true(comes_to(&t.m[0], not_to_be_kept, "mine"));
	assert_true(comes_to(&t.m[1], too_large, "12345678901234567"));
	assert_figure(&t.m[1], too_big, 1);
	assert_int_equal(tell_server(&t.server, "DBSIZE"), 0);
	assert_true(comes_to(&t.m[2], in_place, "here"));
	assert_figure(&t.m[2], stored, 1);
	age_in_redis(&t.server, 3700 * 1000);
	pass_ms(t.m[2].place.clock, 3700 * 1000);
	assert_true(comes_to(&t.m[2], kept, "here"));
	assert_figure(&t.m[2], stored, 2);
	end_stage(&t);
}

static int begin_in_steps(struct machine *m, struct shoal_load **load)
{
	struct shoal_value value;

	return shoal_begin(shoal_redis_keyspace(m->k), STR("k"), load, &value);
}

static void in_steps(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_redis_loader loader = {t.m[0].k, source, t.s, {0}};
	struct shoal_load *load;

	assert_int_equal(begin_in_steps(&t.m[0], &load), SHOAL_LEAD);
	assert_int_equal(shoal_redis_load(load, STR("k"), &loader), 0);
	assert_gives(shoal_redis_keyspace(t.m[0].k), "k", "first");
	loader.keyspace = t.m[1].k;
	assert_int_equal(begin_in_steps(&t.m[1], &load), SHOAL_LEAD);
	assert_int_equal(shoal_redis_load(load, STR("k"), &loader), 0);
	assert_gives(shoal_redis_keyspace(t.m[1].k), "k", "first");
	assert_int_equal(w32_load(&t.s->loads), 1);
	end_stage(&t);
}

struct warmer {
	struct shoal_redis_loader loader; /* first: what warms gets this */
	int next;
	char key[16];
};

static int next_key(void *arg, struct shoal_slice *key)
{
	struct warmer *w = arg;

	if (w->next == 10)
		return SHOAL_MISS;
	snprintf(w->key, sizeof(w->key), "#%d", w->next++);
	*key = (struct shoal_slice){STR(w->key)};
	return SHOAL_OK;
}

static void warmed_once(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct shoal_warm warm = {.per_second = HUGE_VAL, .stop_load_ms = SHOAL_NONE};

	for (int i = 0; i < 2; i++) {
		struct warmer w = {.loader = {t.m[i].k, source, t.s, {0}}};
		struct shoal_warm_report report;

		assert_int_equal(shoal_warm_keys(shoal_redis_keyspace(t.m[i].k), next_key, shoal_redis_load, &w, &warm,
		                                 &report),
		                 0);
		assert_int_equal(report.loaded, 10);
	}
	assert_int_equal(w32_load(&t.s->loads), 10);
	assert_figure(&t.m[1], hits, 10);
	end_stage(&t);
}

/* ---- processes --------------------------------------------------------------------------------------------- */

static int load_in_child(void *arg)
{
	struct worker *w = arg;

	must(fetches(w->m, w->s, "child", "first"));
	must(fetches(w->m, w->s, "child's second", "first"));
	shoal_redis_close(w->m->redis);
	return 0;
}

static void a_child_has_connections_of_its_own(void **state)
{
	struct stage t = new_stage(&patient, &hourly);
	struct worker w = {&t.m[0], t.s, NULL, NULL, 0, 0};

	assert_fetches(&t.m[0], t.s, "parent", "first");
	assert_figure(&t.m[0], connections, 1);
	assert_ends_well(spawn(load_in_child, &w));
	assert_figure(&t.m[0], connections, 2);
	assert_fetches(&t.m[0], t.s, "parent's second", "first"); /* its own is as it was */
	assert_figure(&t.m[0], connections, 2);
	assert_figure(&t.m[0], stored, 4);
	assert_figure(&t.m[0], errors, 0);
	end_stage(&t);
}

static void what_makes_no_sense(void **state)
{
	struct place p = open_place(NULL, NULL);
	struct shoal_redis_config config = {.port = 65536};
	struct shoal_redis_stats stats;
	struct shoal_redis *redis = NULL;
	struct shoal_redis_keyspace *k;

	assert_int_equal(shoal_redis_open(NULL, NULL, &redis), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_redis_open(p.cache, NULL, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_redis_open(p.cache, &config, &redis), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_redis_open(p.cache, NULL, &redis), SHOAL_OK);
	assert_int_equal(shoal_redis_keyspace_open(redis, "no name", 1, NULL, &k), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_redis_keyspace_open(redis, "name", 1, NULL, &k), SHOAL_OK);
	assert_int_equal(shoal_redis_delete(k, "", 0), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_redis_stats(redis, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_redis_stats(redis, &stats), SHOAL_OK);
	assert_null(shoal_redis_keyspace(NULL));
	shoal_redis_close(redis);
	shoal_redis_close(NULL);
	close_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cold_key_is_loaded_once),
		cmocka_unit_test(each_of_many_keys_is_loaded_once),
		cmocka_unit_test(who_waited_in_vain_loads_beside),
		cmocka_unit_test(a_machine_dies),
		cmocka_unit_test(an_heir_takes_the_lock_of_its_machine),
		cmocka_unit_test(an_overdue_load_stores_nothing),
		cmocka_unit_test(a_lease_is_renewed),
		cmocka_unit_test(a_cancelled_thread_lets_go),
		cmocka_unit_test(a_stopped_server_is_left_alone),
		cmocka_unit_test(one_process_opens_it_for_all),
		cmocka_unit_test(a_server_that_restarts),
		cmocka_unit_test(a_wrong_password_is_told),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(servers_that_are_none),
		cmocka_unit_test(lives_do_not_add_up),
		cmocka_unit_test(the_stale_one_is_shared),
		cmocka_unit_test(an_early_refresh_is_one_for_all),
		cmocka_unit_test(a_value_for_ever),
		cmocka_unit_test(a_delete_stops_a_load_elsewhere),
		cmocka_unit_test(a_delete_is_remembered),
		cmocka_unit_test(a_storm_of_deletes),
		cmocka_unit_test(deleted_is_gone_in_both),
		cmocka_unit_test(expired_is_stale_in_both),
		cmocka_unit_test(bytes_that_are_wrong),
		cmocka_unit_test(another_type_in_redis),
		cmocka_unit_test(a_failure_lets_go),
		cmocka_unit_test(the_ways_to_publish),
		cmocka_unit_test(in_steps),
		cmocka_unit_test(warmed_once),
		cmocka_unit_test(a_child_has_connections_of_its_own),
		cmocka_unit_test(what_makes_no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
