/* SPDX-License-Identifier: MIT */
/*
 * nginx with the module, four workers, its own folder and segment, and an origin that counts (origin.py) behind
 * it. nginx inherits its listening socket from the test, so there is no port to lose and a connection waits
 * until somebody accepts.
 */
#ifndef SHOAL_TEST_SITE_H
#define SHOAL_TEST_SITE_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "web.h"

#define WORKERS 4

/* What a program's own is. In its texts ZONE is the zone, FOLDER the folder, PLAIN the origin's address,
 * SECURE that for https. */
struct setup {
	const char *locations; /* of each server */
	const char *http;      /* beside them; may be NULL */
	const char *zone;      /* the parameters of shoal_zone; NULL: size=16m */
	bool tls;              /* by https, too: HTTP/1.1 and 2 */
};

struct site {
	char folder[64], zone[64];
	pid_t master, origin;
	int origin_stdin;
	unsigned port, port_2, port_tls; /* of HTTP/1.1, of HTTP/2, of both by TLS */
	unsigned origin_port, origin_tls;
	struct shoal *cache; /* attached, to look at */
};

/* ---- its parts --------------------------------------------------------------------------------------------- */

static inline char *site_file(const struct site *s, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", s->folder, name);
	return path;
}

static inline char *read_whole(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t size = 0;

	if (!f)
		return strdup("");
	if (getdelim(&text, &size, '\0', f) < 0) {
		free(text);
		text = strdup("");
	}
	fclose(f);
	return text;
}

static inline int listen_somewhere(unsigned *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t size = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); /* as nginx makes its own */

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 1024), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
	*port = ntohs(at.sin_port);
	return fd;
}

/* A key, and a certificate that it signs itself. */
static inline void make_certificate(const struct site *s)
{
	char command[512], *certificate = strdup(site_file(s, "certificate"));

	snprintf(command, sizeof(command),
	         "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
	         "-subj /CN=shop -keyout '%s' -out '%s' 2>/dev/null",
	         site_file(s, "key"), certificate);
	assert_int_equal(system(command), 0);
	free(certificate);
}

static inline void start_origin(struct site *s, bool tls)
{
	int in[2], out[2];
	char line[32] = "";

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	s->origin = fork();
	assert_true(s->origin >= 0);
	if (!s->origin) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], 0);
		dup2(out[1], 1);
		execlp("python3", "python3", TEST_FOLDER "/origin.py", tls ? s->folder : NULL, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	s->origin_stdin = in[1];
	for (size_t n = 0; n < sizeof(line) - 1 && !strchr(line, '\n'); n++)
		assert_int_equal(read(out[0], line + n, 1), 1);
	assert_true(sscanf(line, "%u %u", &s->origin_port, &s->origin_tls) == 1 + tls);
	close(out[0]);
}

/* With the words in capitals replaced. */
static inline void write_text(const struct site *s, FILE *f, const char *text)
{
	char plain[32], secure[32];
	const char *const words[] = {"ZONE", "FOLDER", "PLAIN", "SECURE"},
		   *const means[] = {s->zone, s->folder, plain, secure};
	const char *next, *word;

	snprintf(plain, sizeof(plain), "127.0.0.1:%u", s->origin_port);
	snprintf(secure, sizeof(secure), "127.0.0.1:%u", s->origin_tls);
	for (; text && *text; text = next) {
		word = NULL;
		for (size_t i = 0; i < COUNT(words) && !word; i++)
			if (!strncmp(text, words[i], strlen(words[i]))) {
				word = means[i];
				next = text + strlen(words[i]);
			}
		if (word)
			fputs(word, f);
		else
			next = text + 1, putc(*text, f);
	}
}

static const char common[] =
	"location = /:pid { default_type text/plain; return 200 \"$pid $connections_active\"; }\n"
	"location = /:status { shoal_status; }\nlocation = /:metrics { shoal_metrics; }\n"
	"location /peer/ { proxy_cache peer; proxy_cache_lock on; proxy_cache_valid 1h; proxy_pass http://origin; }\n"
	"location / { shoal ZONE; shoal_key $request_uri; shoal_purge $purge; shoal_fresh 1h; shoal_retry 1h;\n"
	"  proxy_pass http://origin; }\n";

static inline void write_server(const struct site *s, FILE *f, const struct setup *setup, unsigned port,
                                const char *how)
{
	fprintf(f, "server {\nlisten 127.0.0.1:%u%s;\n", port, how);
	write_text(s, f, common);
	write_text(s, f, setup->locations);
	fprintf(f, "}\n");
}

static inline void write_configuration(const struct site *s, const struct setup *setup)
{
	FILE *f = fopen(site_file(s, "nginx.conf"), "w");
	const char *const folders[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};

	assert_non_null(f);
	fprintf(f, "load_module %s;\ndaemon off;\npid nginx.pid;\nerror_log error.log info;\nworker_processes %d;\n",
	        NGINX_MODULE, WORKERS);
	fprintf(f, "worker_shutdown_timeout 30s;\nevents { worker_connections 1024; }\nhttp {\naccess_log off;\n");
	for (size_t i = 0; i < COUNT(folders); i++)
		fprintf(f, "%s_temp_path %s_temp;\n", folders[i], folders[i]);
	fprintf(f, "shoal_zone %s %s;\nproxy_cache_path peer keys_zone=peer:1m;\n", s->zone,
	        setup->zone ? setup->zone : "size=16m");
	fprintf(f, "map $request_method $purge { PURGE 1; default 0; }\nkeepalive_requests 1000000;\n");
	fprintf(f, "upstream origin { server 127.0.0.1:%u; keepalive 64; }\n", s->origin_port);
	fprintf(f,
	        "proxy_http_version 1.1;\nproxy_set_header Connection '';\ngzip_types text/plain;\n"
	        "gzip_min_length 20;\n");
	fprintf(f, "root %s;\nadd_header X-Status \"$shoal_status $shoal_key $shoal_age $shoal_fill_time\" always;\n",
	        s->folder);
	write_text(s, f, setup->http);
	write_server(s, f, setup, s->port, "");
	write_server(s, f, setup, s->port_2, " http2");
	if (setup->tls)
		write_server(s, f, setup, s->port_tls,
		             " ssl http2 sndbuf=64k;\nssl_certificate certificate;\nssl_certificate_key key");
	fprintf(f, "}\n");
	assert_int_equal(fclose(f), 0);
}

/* In a child, with these options. */
static inline void become_nginx(const struct site *s, const char *configuration, const char *option)
{
	char options[512];

	if (*NGINX_RUNTIMES) { /* nginx leaves to exit() what it has */
		snprintf(options, sizeof(options), "%s:detect_leaks=0",
		         getenv("ASAN_OPTIONS") ? getenv("ASAN_OPTIONS") : "");
		setenv("ASAN_OPTIONS", options, 1);
		setenv("LD_PRELOAD", NGINX_RUNTIMES, 1);
	}
	execl(NGINX, "nginx", "-p", s->folder, "-c", configuration, option, (char *)NULL);
	_exit(127);
}

/* With these sockets to listen on. */
static inline void start_nginx(struct site *s, const int *fds, unsigned n)
{
	char inherited[64] = "";

	s->master = fork();
	assert_true(s->master >= 0);
	if (s->master)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < n; i++)
		snprintf(inherited + strlen(inherited), sizeof(inherited) - strlen(inherited), "%d;", fds[i]);
	setenv("NGINX", inherited, 1);
	freopen(site_file(s, "output"), "w", stderr);
	become_nginx(s, "nginx.conf", NULL);
}

/* A moment of a wait for something that is counted. */
static inline void site_turn(uint64_t *began)
{
	if (!*began)
		*began = clock_system_ns(CLOCK_MONOTONIC);
	if (clock_system_ns(CLOCK_MONOTONIC) - *began > PATIENCE_S * SECOND_NS)
		fail_msg("in vain");
	poll(NULL, 0, 1);
}

/* The children of the master with this title, or with one that begins with it; returns how many. */
static inline unsigned children_of(const struct site *s, const char *title, bool whole, pid_t pids[64])
{
	char path[64], *list, *word, *rest;
	unsigned n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)s->master, (int)s->master);
	list = read_whole(path);
	for (word = strtok_r(list, " ", &rest); word && n < 64; word = strtok_r(NULL, " ", &rest)) {
		char *its;

		snprintf(path, sizeof(path), "/proc/%s/cmdline", word);
		its = read_whole(path);
		if (whole ? !strcmp(its, title) : !strncmp(its, title, strlen(title)))
			pids[n++] = atoi(word);
		free(its);
	}
	free(list);
	return n;
}

/* Those included that are about to end. */
static inline unsigned workers_of(const struct site *s, pid_t pids[64])
{
	return children_of(s, "nginx: worker process", false, pids);
}

static inline bool is_among(const pid_t *pids, unsigned n, pid_t pid)
{
	for (unsigned i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

static inline bool is_worker(const struct site *s, pid_t pid)
{
	pid_t pids[64];

	return is_among(pids, workers_of(s, pids), pid);
}

/* Each of them, and no other, as long as there is a master: none that is new has the master's title yet, none that
 * shuts down is there. */
static inline void await_workers(const struct site *s)
{
	uint64_t began = 0;
	pid_t pids[64];

	while (children_of(s, "nginx: master process", false, pids) || workers_of(s, pids) != WORKERS ||
	       children_of(s, "nginx: worker process", true, pids) != WORKERS) {
		if (waitpid(s->master, NULL, WNOHANG))
			fail_msg("nginx ended: %s", read_whole(site_file(s, "output")));
		site_turn(&began);
	}
}

static inline void site_attach(struct site *s)
{
	struct shoal_config config = {.flags = SHOAL_ATTACH | SHOAL_INSPECT};
	struct stat st;
	char path[128];

	snprintf(path, sizeof(path), "/dev/shm/shoal.%s.v%u", s->zone, shoal_layout());
	if (!stat(path, &st))
		config.owner = st.st_uid;
	assert_int_equal(shoal_open(s->zone, &config, &s->cache), SHOAL_OK);
}

/* nginx, at ports of its own; again, if it has ended. */
static inline void site_run(struct site *s, const struct setup *setup)
{
	unsigned *const ports[] = {&s->port, &s->port_2, &s->port_tls}, n = setup->tls ? 3 : 2;
	int fds[3];

	for (unsigned i = 0; i < n; i++)
		fds[i] = listen_somewhere(ports[i]);
	write_configuration(s, setup);
	start_nginx(s, fds, n);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
	await_workers(s);
}

static inline void site_start(struct site *s, const struct setup *setup)
{
	static unsigned sites;

	memset(s, 0, sizeof(*s));
	snprintf(s->folder, sizeof(s->folder), "/tmp/shoal-nginx-XXXXXX");
	assert_non_null(mkdtemp(s->folder));
	assert_int_equal(chmod(s->folder, 0755), 0);
	snprintf(s->zone, sizeof(s->zone), "nginx-%d-%u", (int)getpid(), sites++);
	if (setup->tls)
		make_certificate(s);
	start_origin(s, setup->tls);
	site_run(s, setup);
	site_attach(s);
}

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

/* Ends as it is told to, and without a complaint. */
static inline void site_stop(struct site *s)
{
	int status;

	shoal_close(s->cache);
	kill(s->master, SIGQUIT);
	assert_int_equal(waitpid(s->master, &status, 0), s->master);
	assert_int_equal(status, 0);
	close(s->origin_stdin);
	assert_int_equal(waitpid(s->origin, &status, 0), s->origin);
	assert_int_equal(status, 0);
	assert_int_equal(shoal_unlink(s->zone), SHOAL_OK);
	nftw(s->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- what is asked of it ----------------------------------------------------------------------------------- */

/* A word to the origin, and its answer as a number. */
static inline unsigned long origin(const struct site *s, const char *format, ...)
{
	char target[256] = "/:";
	struct response r;
	unsigned long n;
	va_list args;

	va_start(args, format);
	vsnprintf(target + 2, sizeof(target) - 2, format, args);
	va_end(args);
	r = web_get(s->origin_port, target);
	assert_int_equal(r.status, 200);
	n = strtoul(r.body, NULL, 10);
	web_free(&r);
	return n;
}

static inline char *origin_last(const struct site *s, const char *path)
{
	char target[256];
	struct response r;

	snprintf(target, sizeof(target), "/:last?%s", path);
	r = web_get(s->origin_port, target);
	assert_int_equal(r.status, 200);
	free(r.head);
	return r.body;
}

static inline struct shoal_stats site_stats(const struct site *s)
{
	struct shoal_stats stats;

	assert_int_equal(shoal_stats(s->cache, &stats), SHOAL_OK);
	return stats;
}

/* What one flight has, of the only one that loads. */
static inline int note_flight(const struct shoal_flight *flight, void *arg)
{
	struct shoal_flight *note = arg;

	if (flight->state == SHOAL_FLIGHT_LOADING)
		*note = *flight;
	return 0;
}

static inline struct shoal_flight site_flight(const struct site *s)
{
	struct shoal_flight flight = {.leader = 0};

	assert_int_equal(shoal_flights(s->cache, note_flight, &flight), SHOAL_OK);
	return flight;
}

struct wanted {
	const char *key;
	pid_t leader;
};

static inline int is_wanted(const struct shoal_flight *flight, void *arg)
{
	struct wanted *w = arg;

	if (flight->state == SHOAL_FLIGHT_LOADING && flight->key_size == strlen(w->key) &&
	    !memcmp(flight->key.data, w->key, flight->key.size))
		w->leader = flight->leader;
	return 0;
}

/* The worker that loads it; as soon as one does. */
static inline pid_t site_leader(const struct site *s, const char *key)
{
	struct wanted w = {.key = key};
	uint64_t began = 0;

	for (;; site_turn(&began)) {
		assert_int_equal(shoal_flights(s->cache, is_wanted, &w), SHOAL_OK);
		if (w.leader)
			return w.leader;
	}
}

/* Whom the connection is served by. */
static inline pid_t worker_of(struct web *w)
{
	struct response r;
	pid_t pid;

	web_ask(w, "GET", "/:pid", NULL);
	r = web_read(w);
	assert_int_equal(r.status, 200);
	pid = atoi(r.body);
	web_free(&r);
	return pid;
}

/* ---- what is expected of it -------------------------------------------------------------------------------- */

#define assert_body(r, path, n, size) assert_body_of(r, path, n, size, __FILE__, __LINE__)

static inline bool is_body(const struct response *r, const char *path, unsigned n, size_t size)
{
	char line[512];
	size_t length = (size_t)snprintf(line, sizeof(line), "%s %u|", path, n);

	if (r->size != size)
		return false;
	for (size_t i = 0; i < size; i++)
		if (r->body[i] != line[i % length])
			return false;
	return true;
}

static inline void assert_body_of(const struct response *r, const char *path, unsigned n, size_t size, const char *file,
                                  int line)
{
	if (r->status && is_body(r, path, n, size))
		return;
	fprintf(stderr, "wanted %s %u, %zu bytes; got %d, %zu bytes\n%.2000s\n%.80s\n", path, n, size, r->status,
	        r->size, r->head ? r->head : "", r->body ? r->body : "");
	_fail(file, line);
}

/* The first word of X-Status. */
static inline bool was(const struct response *r, const char *status)
{
	const char *is = web_header(r, "X-Status");

	return is && !strncmp(is, status, strlen(status)) && is[strlen(status)] == ' ';
}

/* One request, and how it was served. */
static inline void expect(const struct site *s, const char *target, const char *status, const char *path, unsigned n)
{
	struct response r = web_get(s->port, target);

	assert_int_equal(r.status, 200);
	if (!was(&r, status))
		fail_msg("%s: wanted %s, got %s", target, status, r.head);
	assert_body(&r, path, n, 64);
	web_free(&r);
}

/* Asked until it is so. */
static inline void await_status(const struct site *s, const char *target, const char *status)
{
	uint64_t began = 0;

	for (;;) {
		struct response r = web_get(s->port, target);
		bool so = was(&r, status);

		web_free(&r);
		if (so)
			return;
		site_turn(&began);
	}
}

static inline void purge(const struct site *s, const char *target, int status)
{
	struct response r = web_do(s->port, "PURGE", target, NULL);

	assert_int_equal(r.status, status);
	web_free(&r);
}

/* A sanitizer says what it has to say there, too. */
static inline bool is_bad(const char *line)
{
	const char *const words[] = {"[alert]",   "[crit]",        "[emerg]",
	                             "Sanitizer", "runtime error", "exited with code 1"};

	for (size_t i = 0; i < COUNT(words); i++)
		if (strstr(line, words[i]))
			return true;
	return false;
}

static inline bool is_excused(const char *line, const char *const *but)
{
	for (; *but; but++)
		if (strstr(line, *but))
			return true;
	return false;
}

/* Nothing is held when nothing is going on, and the log is calm but for what the test did:
 * lines that have one of these. */
static inline void assert_calm_but(const struct site *s, const char *const *but)
{
	char *log, *line, *rest;
	uint64_t began = 0;

	while (site_stats(s).pins || site_flight(s).leader)
		site_turn(&began);
	log = read_whole(site_file(s, "error.log"));
	for (line = strtok_r(log, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (is_bad(line) && !is_excused(line, but))
			fail_msg("%s\n%.9000s", line, rest);
	free(log);
}

static inline void assert_calm(const struct site *s, const char *but)
{
	const char *const excuse[] = {but, NULL};

	assert_calm_but(s, excuse);
}

#endif
