/* SPDX-License-Identifier: MIT */
/*
 * nginx's proxy_cache over a unix socket, a connection per worker, with proxy_cache_lock. The origin is a
 * process of ours: it answers /KEY/NUMBER with that key's value, and /KEY/SIZE/US with one that took it so long,
 * whose end it notes.
 */
#include "../crew.h"
#include "../loops.h"
#include "../ticks.h"
#include "wire.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- the origin --------------------------------------------------------------------------------------------- */

struct origin {
	int listener;
	const struct workload *workload;
};

struct visit {
	int fd;
	const struct workload *workload;
};

static size_t make_value(const struct workload *w, const char *key, unsigned a, unsigned us, int cold, char *value)
{
	if (!cold) {
		if (a >= w->keys)
			return 0;
		workload_value(w, a, value);
		return w->sizes[a];
	}
	nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
	memset(value, 7, a);
	memcpy(value, key, VALUE_LEAST);
	return a;
}

static void *answer(void *arg)
{
	struct visit *v = arg;
	char request[4096], head[256], key[KEY_SIZE + 1], *value = malloc(1 << 20);
	size_t n = 0, size;
	unsigned a, us;
	ssize_t got;
	int fields;

	while (n < sizeof(request) - 1 && (got = recv(v->fd, request + n, sizeof(request) - 1 - n, 0)) > 0) {
		request[n += (size_t)got] = 0;
		if (strstr(request, "\r\n\r\n"))
			break;
	}
	request[n] = 0;
	fields = sscanf(request, "GET /%20[^/]/%u/%u", key, &a, &us);
	size = fields >= 2 && a <= 1 << 20 ? make_value(v->workload, key, a, us, fields == 3, value) : 0;
	snprintf(head, sizeof(head), "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\nX-Loaded: %" PRIu64 "\r\n\r\n", size,
	         now_ns());
	if (send(v->fd, head, strlen(head), MSG_NOSIGNAL | MSG_MORE) > 0)
		send(v->fd, value, size, MSG_NOSIGNAL);
	close(v->fd);
	free(value);
	free(v);
	return NULL;
}

static void origin_main(void *arg)
{
	struct origin *o = arg;
	pthread_t thread;

	for (;;) {
		struct visit *v = malloc(sizeof(*v));

		*v = (struct visit){accept(o->listener, NULL, NULL), o->workload};
		if (v->fd < 0 || pthread_create(&thread, NULL, answer, v))
			_exit(1);
		pthread_detach(thread);
	}
}

static int origin_start(const struct peer_setup *setup)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct origin o = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), setup->workload};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/origin", setup->directory);
	if (bind(o.listener, (struct sockaddr *)&address, sizeof(address)) || listen(o.listener, 1024))
		return -1;
	return crew_fork(origin_main, &o) > 0 ? 0 : -1;
}

/* ---- the cache ---------------------------------------------------------------------------------------------- */

static int configure(const struct peer_setup *setup)
{
	char path[128];
	FILE *f;
	int rc;

	snprintf(path, sizeof(path), "%s/processes.conf", setup->directory);
	f = fopen(path, "we");
	if (!f)
		return -1;
	fprintf(f, "worker_processes 2;\n%s", geteuid() ? "" : "user root;\n");
	rc = fclose(f);
	snprintf(path, sizeof(path), "%s/server.conf", setup->directory);
	f = fopen(path, "we");
	if (!f)
		return -1;
	fprintf(f, "server {\n\tlisten unix:%s/nginx.sock;\n\tlocation / {\n\t\tproxy_pass http://unix:%s/origin;\n"
	        "\t\tproxy_set_header Connection close;\n\t\tproxy_cache bench;\n\t\tproxy_cache_key $uri;\n"
	        "\t\tproxy_cache_valid 200 1h;\n\t\tproxy_cache_lock on;\n"
	        "\t\tproxy_cache_lock_timeout 60s;\n\t\tproxy_cache_lock_age 60s;\n"
	        "\t\tadd_header X-Status $upstream_cache_status;\n\t}\n}\n", setup->directory, setup->directory);
	return fclose(f) | rc;
}

static int cache_open(const struct peer_setup *setup, void **state)
{
	char prefix[128];
	const char *argv[] = {"nginx", "-p", prefix, "-c", "nginx.conf", NULL};

	snprintf(prefix, sizeof(prefix), "%s/", setup->directory);
	if (configure(setup) || wire_link(setup->directory, "nginx.conf", BENCH_PEERS "/nginx-cache.conf") ||
	    origin_start(setup))
		return -1;
	if (wire_serve(setup->directory, argv) < 0) {
		fprintf(stderr, "nginx: can't be run\n");
		return -1;
	}
	*state = wire_open(setup->directory, "nginx.sock");
	return *state ? 0 : -1;
}

static size_t ask(struct wire *w, const char *path, void *buffer, struct fetched *fetched)
{
	const char *line;
	size_t size = 0;
	int ok;

	wire_print(w, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	if (wire_flush(w) || !(line = wire_line(w)))
		return 0;
	ok = !strncmp(line, "HTTP/1.1 200", 12);
	while ((line = wire_line(w)) && *line) {
		if (!strncasecmp(line, "Content-Length: ", 16))
			size = strtoul(line + 16, NULL, 10);
		else if (fetched && !strncmp(line, "X-Loaded: ", 10))
			fetched->loaded = strtoull(line + 10, NULL, 10);
		else if (fetched && !strncmp(line, "X-Status: ", 10))
			fetched->led = !strcmp(line + 10, "MISS");
	}
	return !wire_take(w, ok ? buffer : NULL, size) && ok ? size : 0;
}

static int fill(void *state, const char *key, uint32_t number, const void *value, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/%.*s/%u", KEY_SIZE, key, number);
	return ask(state, path, NULL, NULL) == size ? 0 : -1;
}

static int join(struct worker *worker)
{
	worker->state = wire_open(worker->setup->directory, "nginx.sock");
	return worker->state ? 0 : -1;
}

static size_t get(struct worker *worker, const struct request *r, void *buffer)
{
	char path[64];

	snprintf(path, sizeof(path), "/%.*s/%u", KEY_SIZE, r->key, r->number);
	return ask(worker->state, path, buffer, NULL);
}

static int set(struct worker *worker, const struct request *r, const void *value, size_t size)
{
	return -1;
}

static int fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	char path[96];

	snprintf(path, sizeof(path), "/%.*s/%zu/%" PRIu64, KEY_SIZE, key, load->size, load->us);
	return ask(worker->state, path, buffer, fetched) != load->size;
}

PEER_MANY(many, get)
PEER_RUN(run, get, set, many)

const struct peer peer_nginx_cache = {
	.name = "nginx-cache",
	.what = "nginx's proxy_cache over a unix socket, with proxy_cache_lock",
	.flags = PEER_SLOW | PEER_NO_SET,
	.open = cache_open,
	.join = join,
	.set = fill,
	.get = get,
	.run = run,
	.fetch = fetch,
};
