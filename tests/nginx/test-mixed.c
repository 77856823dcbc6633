/* SPDX-License-Identifier: MIT */
/*
 * Minutes of everything at once, while workers are killed and the configuration is reloaded: keys hot and cold, stored
 * and not, small and too big, purged and expired; parts, forms and conditions; clients that are slow, or leave. By
 * HTTP/1.1, TLS and streams of HTTP/2. Each body is looked at, byte for byte. What a killed worker's clients may lose
 * is told in load.h; a wrong body, another status, or anything that is still held in the end is a failure.
 */
#include <zlib.h>

#include "load.h"

#define CLIENTS 8
#define STREAMS 24
#define KEYS 64
#define LONGEST_S 600

static const char locations[] =
	"location /stale/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  shoal_stale_error 1h; proxy_pass http://origin; }\n"
	"location /zip/ { gzip on; shoal ZONE; shoal_key $request_uri; shoal_fresh 200ms; shoal_stale 1h; "
	"proxy_pass http://origin; }\n"
	"location /short/ { shoal ZONE; shoal_key $request_uri; shoal_fresh 20ms; shoal_stale 20ms; "
	"proxy_pass http://origin; }\n";

static const struct setup setup = {.locations = locations, .tls = true};

static unsigned next(unsigned *seed)
{
	return *seed = *seed * 1103515245 + 12345, *seed >> 8;
}

/* ---- what is asked for --------------------------------------------------------------------------------------- */

struct kind {
	const char *folder, *query;
	size_t size;
	bool tagged;
};

static const struct kind kinds[] = {
	{"/plain/", "", 64, false},
	{"/plain/", "&size=20000", 20000, false},
	{"/plain/", "&size=40000&chunked", 40000, false},
	{"/plain/", "&size=300000", 300000, false},
	{"/plain/", "&size=300000&chunked", 300000, false},
	{"/plain/", "&h=Set-Cookie:a&size=3000", 3000, false},
	{"/plain/", "&h=Cache-Control:no-store", 64, false},
	{"/stale/", "&etag=a", 64, true},
	{"/stale/", "&size=5000", 5000, false},
	{"/zip/", "&size=20000", 20000, false},
	{"/zip/", "&size=300000&chunked", 300000, false},
	{"/short/", "&size=3000", 3000, false},
	{"/short/", "&h=Cache-Control:max-age%3D1", 64, false},
};

struct question {
	const struct kind *kind;
	char path[64], target[128];
};

static struct question draw_question(unsigned *seed)
{
	unsigned i = next(seed) % COUNT(kinds);
	struct question q = {.kind = &kinds[i]};

	snprintf(q.path, sizeof(q.path), "%s%u/%u", kinds[i].folder, i, next(seed) % KEYS % (1 + next(seed) % KEYS));
	snprintf(q.target, sizeof(q.target), "%s?k%s", q.path, kinds[i].query);
	return q;
}

/* What came packed, as it was. */
static void unpack(struct response *r)
{
	z_stream z = {.next_in = (Bytef *)r->body, .avail_in = (uInt)r->size};
	size_t size = 1 << 20;
	char *plain = malloc(size);

	assert_non_null(plain);
	z.next_out = (Bytef *)plain;
	z.avail_out = (uInt)size;
	if (inflateInit2(&z, 15 + 16) != Z_OK || inflate(&z, Z_FINISH) != Z_STREAM_END)
		z.total_out = 0;
	inflateEnd(&z);
	free(r->body);
	r->body = plain;
	r->size = z.total_out;
}

static bool is_whole(struct response *r, const struct question *q)
{
	if (web_header(r, "Content-Encoding"))
		unpack(r);
	return r->status == 200 && body_number(r, q->path, q->kind->size);
}

static bool is_part(struct response *r, const struct question *q)
{
	return (r->status == 206 && body_number(r, q->path, 50)) || is_whole(r, q);
}

static void judge(struct caller *c, const struct question *q, struct response *r, bool right)
{

	if (r->status && !right)
		wrong(c->load, q->target, r);
	else if (r->status)
		w32_add(&c->load->answers, 1);
	web_free(r);
}

/* ---- how ----------------------------------------------------------------------------------------------------- */

static void purge_it(struct caller *c, const struct question *q)
{
	struct response r = call(c, "PURGE", q->target, NULL, NULL);

	/* where purging is not allowed it is a method of the origin's */
	judge(c, q, &r, r.status == 204 || r.status == 404 || (is_whole(&r, q) && was(&r, "PASS")));
}

static void ask_for_head(struct caller *c, const struct question *q)
{
	struct response r = call(c, "HEAD", q->target, NULL, NULL);

	judge(c, q, &r, r.status == 200);
}

static void ask_for_part(struct caller *c, const struct question *q)
{
	struct response r = call(c, "GET", q->target, "Range: bytes=0-49\r\n", NULL);

	judge(c, q, &r, is_part(&r, q));
}

static void ask_packed(struct caller *c, const struct question *q)
{
	struct response r = call(c, "GET", q->target, "Accept-Encoding: gzip\r\n", NULL);

	judge(c, q, &r, is_whole(&r, q));
}

static void ask_if_other(struct caller *c, const struct question *q)
{
	struct response r = call(c, "GET", q->target, "If-None-Match: \"a\"\r\n", NULL);

	judge(c, q, &r, q->kind->tagged ? r.status == 304 : is_whole(&r, q));
}

static void post_it(struct caller *c, const struct question *q)
{
	struct response r = call(c, "POST", q->target, "Content-Length: 5\r\n", "hello");

	judge(c, q, &r, is_whole(&r, q) && was(&r, "PASS"));
}

static void get_it(struct caller *c, const struct question *q)
{
	struct response r = call(c, "GET", q->target, NULL, NULL);

	judge(c, q, &r, is_whole(&r, q));
}

/* Gone before its answer, or in its midst. */
static void leave(struct caller *c, const struct question *q, bool amid)
{
	struct response r = {0};

	hang_up(c);
	c->web = c->connect_to(c->port);
	c->open = true;
	web_ask(&c->web, "GET", q->target, NULL);
	if (amid)
		web_head(&c->web, &r);
	web_free(&r);
	hang_up(c);
}

/* Asks for much, and reads it when the others have had some answers. */
static void be_slow(struct caller *c, const struct question *q)
{
	uint32_t gone = w32_load(&c->load->gone), wanted = w32_load(&c->load->answers) + 100;
	int little = 16384;

	hang_up(c);
	c->web = c->connect_to(c->port);
	c->open = true;
	setsockopt(c->web.fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little));
	for (int i = 0; i < 4; i++)
		web_ask(&c->web, "GET", q->target, NULL);
	while (w32_load(&c->load->answers) < wanted && !w32_load(&c->load->stop) && !w32_load(&c->load->wrong))
		poll(NULL, 0, 1);
	for (int i = 0; i < 4; i++) {
		struct response r = web_read(&c->web);
		bool nothing = !r.head && !c->web.size;

		if (r.status) {
			judge(c, q, &r, is_whole(&r, q));
			continue;
		}
		if (i && nothing) /* it quits: this was the last of the connection's */
			w32_add(&c->load->closed, 1);
		else
			count_lost(c->load, gone, q->target, &r);
		web_free(&r);
		break;
	}
	hang_up(c);
}

static void ask_one(struct caller *c, unsigned *seed)
{
	struct question q = draw_question(seed);

	switch (next(seed) % 64) {
	case 0:
	case 1: purge_it(c, &q); break;
	case 2:
	case 3: ask_for_head(c, &q); break;
	case 4:
	case 5: ask_for_part(c, &q); break;
	case 6:
	case 7:
	case 8:
	case 9: ask_packed(c, &q); break;
	case 10:
	case 11: ask_if_other(c, &q); break;
	case 12: post_it(c, &q); break;
	case 13: leave(c, &q, false); break;
	case 14: leave(c, &q, true); break;
	case 15:
		if (w32_add(&c->load->slow, 1) < CLIENTS / 4)
			be_slow(c, &q);
		w32_add(&c->load->slow, -1u);
		break;
	default: get_it(c, &q);
	}
}

/* Streams of one connection, at once. */
static void ask_streams(struct caller *c, unsigned *seed)
{
	uint32_t gone = w32_load(&c->load->gone);
	struct question q[STREAMS];
	FILE *f = curl_file("streams");
	pid_t pid;

	for (unsigned i = 0; i < STREAMS; i++) {
		q[i] = draw_question(seed);
		curl_ask(f, "streams", i, q[i].target, NULL);
	}
	pid = curl_run(f, "streams");
	await_curl(c->load, pid, gone);
	if (w32_load(&c->load->stop))
		return;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct response r = stream_answer(c, "streams", i, q[i].target, gone);

		if (is_broken(&r, q[i].kind->size)) {
			count_lost_stream(c->load, gone, q[i].target, &r);
			web_free(&r);
		} else
			judge(c, &q[i], &r, is_whole(&r, &q[i]));
	}
}

/* ---- what happens meanwhile ---------------------------------------------------------------------------------- */

#define EXCUSES 4096

struct tale {
	unsigned kills, reloads, quits, excuses;
	char excused[EXCUSES][24];       /* SIGTERM amid a graceful end leaves connections,
	                                    of which nginx complains: whose lines */
	const char *excuse[EXCUSES + 1];
};

static void excuse(struct tale *tale, const char *format, ...)
{
	va_list args;

	assert_true(tale->excuses < EXCUSES);
	va_start(args, format);
	vsnprintf(tale->excused[tale->excuses], sizeof(tale->excused[0]), format, args);
	va_end(args);
	tale->excuse[tale->excuses] = tale->excused[tale->excuses];
	tale->excuses++;
}

static void end_some_worker(struct load *load, pid_t pid, unsigned *seed, struct tale *tale)
{
	int signal = next(seed) % 3 ? SIGKILL : SIGTERM;

	if (signal == SIGTERM)
		excuse(tale, " %d#%d: ", (int)pid, (int)pid);
	end_worker(load, pid, signal);
	tale->kills++;
}

/* After each so many answers. */
static void trouble(struct load *load, unsigned *seed, struct tale *tale)
{
	pid_t pids[64];
	unsigned n, way;

	await_answers(load, 300 + next(seed) % 1000);
	n = workers_of(&site, pids);
	way = next(seed) % 16;
	if (way < 2) {
		kill(site.master, SIGHUP);
		tale->reloads++;
	} else if (n && way < 4) {
		kill(pids[next(seed) % n], SIGQUIT);
		tale->quits++;
	} else if (n) {
		end_some_worker(load, pids[next(seed) % n], seed, tale);
	}
}

/* ---- what is left -------------------------------------------------------------------------------------------- */

static unsigned files_of(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static unsigned most_files(void)
{
	pid_t pids[64];
	unsigned n = workers_of(&site, pids), most = 0;

	for (unsigned i = 0; i < n; i++)
		if (files_of(pids[i]) > most)
			most = files_of(pids[i]);
	return most;
}

/* Ends of connections at this port, of the side that has accepted them, which somebody still has open. */
static unsigned connections_at(unsigned port)
{
	char line[512];
	FILE *f = fopen("/proc/net/tcp", "re");
	unsigned n = 0, local, state;
	unsigned long inode;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " %*d: %*8x:%x %*8x:%*x %x %*x:%*x %*x:%*x %*x %*u %*u %lu", &local, &state,
		           &inode) == 3 &&
		    local == port && state != 0x0a && inode)
			n++;
	fclose(f);
	return n;
}

static int count_loads(const struct shoal_flight *flight, void *arg)
{
	unsigned *n = arg;

	*n += flight->state != SHOAL_FLIGHT_FAILED && flight->state != SHOAL_FLIGHT_UNCACHEABLE;
	return 0;
}

static unsigned loads_now(void)
{
	unsigned n = 0;

	assert_int_equal(shoal_flights(site.cache, count_loads, &n), SHOAL_OK);
	return n;
}

static unsigned segments(void)
{
	char name[96];
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir("/dev/shm");

	assert_non_null(d);
	snprintf(name, sizeof(name), "shoal.%s.", site.zone);
	while ((e = readdir(d)))
		n += !strncmp(e->d_name, name, strlen(name));
	closedir(d);
	return n;
}

/* Old workers have gone, and what the dead held is found by who meets it. */
static bool is_quiet(void)
{
	struct response r = web_get(site.port, "/plain/last?k");
	struct shoal_stats stats = site_stats(&site);

	web_free(&r);
	return !stats.pins && !loads_now() && stats.processes <= WORKERS + 1 &&
	       connections_at(site.port) + connections_at(site.port_2) + connections_at(site.port_tls) == 0 &&
	       connections_at(site.origin_port) <= WORKERS * 64;
}

static void await_quiet(void)
{
	uint64_t began = 0;

	while (!is_quiet()) {
		struct shoal_stats stats = site_stats(&site);

		if (began && clock_system_ns(CLOCK_MONOTONIC) - began > PATIENCE_S * SECOND_NS / 2)
			printf("# %u pins, %u loads, %u processes; connections %u %u %u, origin %u\n", stats.pins,
			       loads_now(), stats.processes, connections_at(site.port), connections_at(site.port_2),
			       connections_at(site.port_tls), connections_at(site.origin_port));
		site_turn(&began);
	}
}

/* Sockets of the origin's may stay for a while; nothing else of one worker after the other adds up. */
static void assert_nothing_is_left(const struct tale *tale, unsigned master_files, unsigned worker_files)
{
	pid_t old[64];
	uint64_t began = 0;

	await_quiet();
	await_workers(&site);
	workers_of(&site, old);
	kill(site.master, SIGHUP); /* who leaves in peace complains of connections that he has left */
	while (is_worker(&site, old[0]) || is_worker(&site, old[1]) || is_worker(&site, old[2]) ||
	       is_worker(&site, old[3]))
		site_turn(&began);
	await_workers(&site);
	await_quiet();
	printf("# open files: master %u, then %u; workers %u, then at most %u\n", master_files, files_of(site.master),
	       worker_files, most_files());
	assert_true(files_of(site.master) <= master_files + 8);
	assert_true(most_files() <= worker_files + 16);
	assert_int_equal(segments(), 1);
	assert_int_equal(shoal_check(site.cache, NULL, NULL), 0);
	assert_calm_but(&site, tale->excuse);
}

static void workers_die_under_load(void **state)
{
	const char *given = getenv("SHOAL_TEST_SECONDS");
	uint64_t seconds = given ? (uint64_t)atoi(given) : 10, until;
	unsigned master_files = files_of(site.master), worker_files = most_files(), seed = (unsigned)getpid(),
		 n = CLIENTS;
	struct load *load = share(sizeof(*load));
	static struct tale tale;
	pid_t clients[CLIENTS + 1];

	until = clock_system_ns(CLOCK_MONOTONIC) + (seconds < LONGEST_S ? seconds : LONGEST_S) * SECOND_NS;
	printf("# seed %u\n", seed);
	excuse(&tale, "exited on signal 9");
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct caller c = {.port = i % 4 ? site.port : site.port_tls,
		                   .connect_to = i % 4 ? web_connect : tls_connect};

		clients[i] = go_on(load, ask_one, c, seed + i);
	}
	if (has_streams())
		clients[n++] = go_on(load, ask_streams, (struct caller){.port = 0}, seed + CLIENTS);
	while (clock_system_ns(CLOCK_MONOTONIC) < until && !w32_load(&load->wrong))
		trouble(load, &seed, &tale);
	stop_all(load, clients, n);
	printf("# %u answers; %u lost and %u kept connections closed; %u workers killed, %u quit, %u reloads\n",
	       w32_load(&load->answers), w32_load(&load->lost), w32_load(&load->closed), tale.kills, tale.quits,
	       tale.reloads);
	assert_int_equal(w32_load(&load->wrong), 0);
	assert_true(tale.kills > 0);
	assert_nothing_is_left(&tale, master_files, worker_files);
	unshare_memory(load, sizeof(*load));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_die_under_load),
	};

	return RUN("mixed", tests);
}
