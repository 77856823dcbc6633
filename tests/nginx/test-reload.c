/* SPDX-License-Identifier: MIT */
/*
 * Reloads, and workers that are told to end, amid loads and under clients that go on: `nginx -s reload` and SIGQUIT
 * lose no request. SIGTERM ends a worker at once, as nginx says: who waits in another gets the heir's value, and what
 * its own clients had in hand is lost.
 */
#include "load.h"

#define CLIENTS 6

static const char locations[] =
	"location /short/ { shoal ZONE; shoal_key $request_uri; shoal_fresh 10ms; proxy_pass http://origin; }\n"
	"location /stale/ { shoal ZONE; shoal_key $request_uri; shoal_fresh 10ms; shoal_stale 1h; "
	"proxy_pass http://origin; }\n";

static const struct setup setup = {.locations = locations, .zone = "size=64m", .tls = true}; /* for all that is new */

struct trouble {
	struct load *load;
	pid_t clients[CLIENTS + 1];
	unsigned n;
};

/* Something hot, something that is loaded all the time, something new, something that isn't stored. */
static void ask_one(struct caller *c, unsigned *seed)
{
	char path[64], target[128];
	unsigned kind = *seed % 4, i = *seed / 4;
	struct response r;
	size_t size = 64;

	*seed += 1;
	if (kind == 0)
		snprintf(path, sizeof(path), "/hot/%u", i % 8), snprintf(target, sizeof(target), "%s", path);
	else if (kind == 1)
		snprintf(path, sizeof(path), "/short/a"), snprintf(target, sizeof(target), "%s?size=30000", path),
			size = 30000;
	else if (kind == 2)
		snprintf(path, sizeof(path), "/new/%u", i), snprintf(target, sizeof(target), "%s", path);
	else
		snprintf(path, sizeof(path), "/stale/own"), snprintf(target, sizeof(target), "%s?h=Set-Cookie:a", path);
	r = call(c, "GET", target, NULL, NULL);
	if (r.status && (r.status != 200 || !body_number(&r, path, size)))
		wrong(c->load, target, &r);
	else if (r.status)
		w32_add(&c->load->answers, 1);
	web_free(&r);
}

/* A connection of many streams, one after the other; curl asks again what GOAWAY has refused. */
static void ask_streams(struct caller *c, unsigned *seed)
{
	uint32_t gone = w32_load(&c->load->gone);
	char target[64];
	FILE *f = curl_file("streams");
	pid_t pid;

	for (unsigned i = 0; i < 32; i++) {
		snprintf(target, sizeof(target), "/streams/%u?size=20000", (*seed + i) % 64);
		curl_ask(f, "streams", i, target, NULL);
	}
	pid = curl_run(f, "streams");
	await_curl(c->load, pid, gone);
	if (w32_load(&c->load->stop))
		return;
	for (unsigned i = 0; i < 32; i++) {
		struct response r;

		snprintf(target, sizeof(target), "/streams/%u?size=20000", (*seed + i) % 64);
		r = stream_answer(c, "streams", i, target, gone);
		*strchr(target, '?') = '\0';
		if (is_broken(&r, 20000))
			count_lost_stream(c->load, gone, target, &r);
		else if (!body_number(&r, target, 20000))
			wrong(c->load, target, &r);
		else
			w32_add(&c->load->answers, 1);
		web_free(&r);
	}
	*seed += 32;
}

static struct trouble begin_load(void)
{
	struct trouble t = {.load = share(sizeof(*t.load)), .n = CLIENTS};

	await_workers(&site);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct caller c = {.port = i % 3 ? site.port : site.port_tls,
		                   .connect_to = i % 3 ? web_connect : tls_connect};

		t.clients[i] = go_on(t.load, ask_one, c, i / 2);
	}
	if (has_streams())
		t.clients[t.n++] = go_on(t.load, ask_streams, (struct caller){.port = 0}, 0);
	await_answers(t.load, 500);
	return t;
}

static void end_load(struct trouble *t, bool may_lose)
{
	await_answers(t->load, 500);
	stop_all(t->load, t->clients, t->n);
	printf("# %u answers, %u idle connections closed, %u lost\n", w32_load(&t->load->answers),
	       w32_load(&t->load->closed), w32_load(&t->load->lost));
	assert_int_equal(w32_load(&t->load->wrong), 0);
	if (!may_lose)
		assert_int_equal(w32_load(&t->load->lost), 0);
	unshare_memory(t->load, sizeof(*t->load));
	await_workers(&site);
}

static void ask_held(const struct web *w, const char *path)
{
	char target[128];

	snprintf(target, sizeof(target), "%s?gate=%s", path, path + 1);
	web_ask(w, "GET", target, NULL);
}

/* A load is held up at the origin meanwhile, and has waiters in each generation of workers. */
static struct web held(const char *path)
{
	struct web w = web_connect(site.port);

	ask_held(&w, path);
	return w;
}

static void answered(struct web *w, const char *path, unsigned n)
{
	struct response r = web_read(w);

	assert_body(&r, path, n, 64);
	web_free(&r);
	web_close(w);
}

/* One of these, and those that came since: none. */
static bool are_new(const pid_t *old, unsigned n)
{
	pid_t now[64];
	unsigned left = workers_of(&site, now), others = 0;

	for (unsigned i = 0; i < left; i++) {
		bool known = false;

		for (unsigned j = 0; j < n; j++)
			known |= now[i] == old[j];
		others += !known;
	}
	return others >= WORKERS;
}

/* As administrators do it; a module with a sanitizer is not for every nginx to read. */
static void reload(void)
{
	char command[256];

	snprintf(command, sizeof(command), NGINX " -p '%s' -c nginx.conf -s reload 2>/dev/null", site.folder);
	if (*NGINX_RUNTIMES)
		kill(site.master, SIGHUP);
	else
		assert_int_equal(system(command), 0);
}

static void reloads_lose_nothing(void **state)
{
	struct trouble t = begin_load();
	char path[32];

	for (unsigned turn = 0; turn < (UNDER_ASAN ? 2 : 6) && !w32_load(&t.load->wrong); turn++) {
		pid_t old[64];
		unsigned n = workers_of(&site, old);
		struct web first, second;
		uint64_t began = 0;

		snprintf(path, sizeof(path), "/held%u", turn);
		first = held(path);
		origin(&site, "await?held%u&1", turn);
		reload();
		while (!are_new(old, n))
			site_turn(&began);
		second = held(path);
		await_answers(t.load, 300);
		origin(&site, "open?held%u", turn);
		answered(&first, path, 1);
		answered(&second, path, 1);
		COUNTS(path, 1);
		await_workers(&site);
	}
	for (uint64_t began = 0; !origin(&site, "count?/new/10");)
		site_turn(&began);
	end_load(&t, false);
	COUNTS("/hot/0", 1);
	COUNTS("/new/10", 1);
}

/* Streams that wait are answered by the worker that has them, old as it is. */
static void streams_outlive_a_reload(void **state)
{
	uint64_t misses = site_stats(&site).total.misses, began = 0;
	pid_t old[64], curl;
	unsigned n;

	if (!has_streams()) {
		skipped("no curl with HTTP/2");
		return;
	}
	await_workers(&site);
	n = workers_of(&site, old);
	curl = curl_start("held", 16, "/held-streams?gate=streams", NULL);
	while (site_stats(&site).total.misses < misses + 16)
		site_turn(&began);
	reload();
	while (!are_new(old, n))
		site_turn(&began);
	origin(&site, "open?streams");
	assert_ends_well(curl);
	for (unsigned i = 0; i < 16; i++) {
		struct response r = curl_answer("held", i);

		assert_body(&r, "/held-streams", 1, 64);
		web_free(&r);
	}
	COUNTS("/held-streams", 1);
}

/* ---- one worker --------------------------------------------------------------------------------------------- */

static pid_t leader_of_held(const char *path)
{
	char key[128];

	snprintf(key, sizeof(key), "%s?gate=%s", path, path + 1);
	return site_leader(&site, key);
}

/* A connection to another worker; where there is none to be had, false. */
static bool connect_elsewhere(pid_t worker, struct web *w)
{
	for (unsigned turn = 0; turn < 200; turn++) {
		*w = web_connect(site.port);
		if (worker_of(w) != worker)
			return true;
		web_close(w);
	}
	return false;
}

static void workers_quit(void **state)
{
	struct trouble t = begin_load();
	char path[32];

	for (unsigned turn = 0; turn < (UNDER_ASAN ? 2 : 4) && !w32_load(&t.load->wrong); turn++) {
		struct web first, second;
		pid_t pid;

		snprintf(path, sizeof(path), "/quits%u", turn);
		first = held(path);
		origin(&site, "await?quits%u&1", turn);
		pid = leader_of_held(path);
		kill(pid, SIGQUIT);
		await_answers(t.load, 200);
		second = held(path);
		origin(&site, "open?quits%u", turn);
		answered(&first, path, 1);
		answered(&second, path, 1);
		COUNTS(path, 1);
		await_workers(&site);
	}
	end_load(&t, false);
}

/* Its own clients' requests are lost, the one that leads too; those of others are not. */
static void workers_are_terminated(void **state)
{
	struct trouble t = begin_load();
	bool lonely = false;
	char path[32];

	for (unsigned turn = 0; turn < (UNDER_ASAN ? 2 : 4) && !lonely && !w32_load(&t.load->wrong); turn++) {
		struct web first, second;
		struct response r;
		pid_t pid;

		snprintf(path, sizeof(path), "/terminated%u", turn);
		first = held(path);
		origin(&site, "await?terminated%u&1", turn);
		pid = leader_of_held(path);
		lonely = !connect_elsewhere(pid, &second);
		if (!lonely)
			ask_held(&second, path);
		end_worker(t.load, pid, SIGTERM);
		r = web_read(&first);
		assert_int_equal(r.status, 0);
		web_free(&r);
		web_close(&first);
		if (!lonely) {
			origin(&site, "await?terminated%u&2", turn);
			origin(&site, "open?terminated%u", turn);
			answered(&second, path, 2);
			COUNTS(path, 2);
		}
		await_workers(&site);
	}
	end_load(&t, true);
	if (lonely)
		skipped("one worker has all the clients");
}

/* ---- all of it ----------------------------------------------------------------------------------------------- */

/* `nginx -s quit`: what was begun is answered. */
static void nginx_quits(void **state)
{
	struct site own;
	struct web clients[8];
	uint64_t began = 0;

	site_start(&own, &setup);
	for (unsigned i = 0; i < COUNT(clients); i++) {
		clients[i] = web_connect(own.port);
		web_ask(&clients[i], "GET", "/quit?gate=quit", NULL);
	}
	while (site_stats(&own).total.misses < COUNT(clients))
		site_turn(&began);
	kill(own.master, SIGQUIT);
	origin(&own, "open?quit");
	for (unsigned i = 0; i < COUNT(clients); i++)
		answered(&clients[i], "/quit", 1);
	assert_int_equal(origin(&own, "count?/quit"), 1);
	assert_calm(&own, NULL);
	site_stop(&own);
}

/* `nginx -s stop` answers nobody, and leaves nothing: the next nginx has what was stored,
 * and loads what was being loaded. */
static void nginx_stops(void **state)
{
	struct site own;
	struct response r;
	struct web w;
	int status;

	site_start(&own, &setup);
	expect(&own, "/kept", "MISS", "/kept", 1);
	w = web_connect(own.port);
	web_ask(&w, "GET", "/stops?gate=stops", NULL);
	origin(&own, "await?stops&1");
	kill(own.master, SIGTERM);
	assert_int_equal(waitpid(own.master, &status, 0), own.master);
	assert_int_equal(status, 0);
	r = web_read(&w);
	assert_int_equal(r.status, 0);
	web_free(&r);
	web_close(&w);
	origin(&own, "open?stops");
	site_run(&own, &setup);
	expect(&own, "/kept", "HIT", "/kept", 1);
	expect(&own, "/stops?gate=stops", "MISS", "/stops", 2);
	assert_calm(&own, NULL);
	site_stop(&own);
}

static bool log_has(const struct site *s, const char *text)
{
	char *log = read_whole(site_file(s, "error.log"));
	bool has = strstr(log, text);

	free(log);
	return has;
}

/* Of what only a new segment could have there is a warning, and no other. */
static void a_segment_keeps_its_limits(void **state)
{
	const struct setup other = {.locations = locations, .zone = "size=16m max_entry=4k max_loads=3"};
	struct setup first = other;
	struct site own;
	uint64_t began = 0;

	first.zone = "size=16m max_entry=8k";
	site_start(&own, &first);
	assert_false(log_has(&own, "its segment was made"));
	write_configuration(&own, &other);
	kill(own.master, SIGHUP);
	while (!log_has(&own, "its segment was made with max_entry=8192 max_loads=0 "))
		site_turn(&began);
	await_workers(&own);
	site_stop(&own);
}

/* What can't be had is told by `nginx -t`, so that no reload goes on without it. */
static bool is_accepted(const char *zone, const char *keyspace)
{
	const char *const folders[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};
	FILE *f = fopen(site_file(&site, "try.conf"), "w");
	pid_t child;
	int status;

	assert_non_null(f);
	fprintf(f, "load_module %s;\npid try.pid;\nerror_log try.log;\nevents {}\nhttp {\naccess_log off;\n",
	        NGINX_MODULE);
	for (size_t i = 0; i < COUNT(folders); i++)
		fprintf(f, "%s_temp_path %s_temp;\n", folders[i], folders[i]);
	fprintf(f, "shoal_zone %s;\nshoal %s;\n}\n", zone, keyspace);
	assert_int_equal(fclose(f), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		freopen(site_file(&site, "try.output"), "w", stderr);
		become_nginx(&site, "try.conf", "-t");
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return !status;
}

static void what_nginx_t_tells(void **state)
{
	const char *zones[] = {"a/b", ".a", "\"\"", "off", "a size=1k", "a size=64m max_entry=2m",
	                       "a max_loads=99999999999", "a max_loads=0", "a colour=1",
	                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	const char *keyspaces[] = {"b", "a keyspace=", "a keyspace=x/y", "a keyspace=.x", "a version=-1",
	                           "a version=4294967296",
	                           "a keyspace=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	                           "a colour=1"};

	assert_true(is_accepted("a", "a"));
	assert_true(is_accepted("A.b-c_9 size=64m max_entry=1m max_loads=2147483647",
	                        "A.b-c_9 keyspace=x.Y-z_0 version=4294967295"));
	for (size_t i = 0; i < COUNT(zones); i++)
		if (is_accepted(zones[i], "off"))
			fail_msg("shoal_zone %s", zones[i]);
	for (size_t i = 0; i < COUNT(keyspaces); i++)
		if (is_accepted("a", keyspaces[i]))
			fail_msg("shoal %s", keyspaces[i]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(reloads_lose_nothing),
		CASE(streams_outlive_a_reload),
		CASE(workers_quit),
		CASE(workers_are_terminated),
		CASE(nginx_quits),
		CASE(nginx_stops),
		CASE(a_segment_keeps_its_limits),
		CASE(what_nginx_t_tells),
	};

	return RUN("reload", tests);
}
