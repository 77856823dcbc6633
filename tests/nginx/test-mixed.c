/* SPDX-License-Identifier: MIT */
/*
 * Minutes of everything at once: keys hot and cold, stored and not, small and too big, purged and expired, while workers are
 * killed and the configuration is reloaded. Each body is looked at, byte for byte. Lost connections are a killed worker's
 * right; a wrong body, another status, or anything that is still held in the end is not.
 */
#include "suite.h"

#define CLIENTS 8
#define KEYS 64

static const char locations[] =
	"location /stale/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; shoal_stale 1h;\n"
	"  shoal_stale_error 1h; proxy_pass http://origin; }\n"
	"location /short/ { shoal ZONE; shoal_key $request_uri; shoal_fresh 20ms; shoal_stale 20ms; proxy_pass http://origin; }\n";

static const struct setup setup = {.locations = locations};

struct tally {
	word32 answers, lost, wrong, stop;
};

static unsigned next(unsigned *seed)
{
	return *seed = *seed * 1103515245 + 12345, *seed >> 8;
}

struct kind {
	const char *folder, *query;
	size_t size;
};

static const struct kind kinds[] = {
	{"/plain/", "", 64},
	{"/plain/", "&size=20000", 20000},
	{"/plain/", "&size=40000&chunked", 40000},
	{"/plain/", "&size=300000", 300000},
	{"/plain/", "&size=300000&chunked", 300000},
	{"/plain/", "&h=Set-Cookie:a&size=3000", 3000},
	{"/stale/", "&etag=a", 64},
	{"/stale/", "&size=5000", 5000},
	{"/short/", "&size=3000", 3000},
	{"/short/", "&h=Cache-Control:max-age%3D1", 64},
};

static bool is_right(const struct response *r, const char *path, size_t size)
{
	unsigned n;

	return r->status == 200 && r->size > strlen(path) && !memcmp(r->body, path, strlen(path)) &&
	       sscanf(r->body + strlen(path), " %u|", &n) == 1 && is_body(r, path, n, size);
}

/* One turn; false: the connection was lost. */
static bool one(struct web *w, unsigned *seed, struct tally *tally)
{
	unsigned i = next(seed) % COUNT(kinds), way = next(seed) % 32;
	char path[64], target[128];
	struct response r;
	bool lost;

	snprintf(path, sizeof(path), "%s%u/%u", kinds[i].folder, i, next(seed) % KEYS % (1 + next(seed) % KEYS));
	snprintf(target, sizeof(target), "%s?k%s", path, kinds[i].query);
	web_ask(w, way ? way > 2 ? "GET" : "HEAD" : "PURGE", target, NULL);
	if (way == 31) /* gone before its answer */
		return false;
	r = web_read_any(w, way && way <= 2);
	lost = !r.status;
	if (lost)
		w32_add(&tally->lost, 1);
	else if (way > 2 && !is_right(&r, path, kinds[i].size)) {
		printf("# %s: %d, %zu bytes: %.60s\n%.600s\n", target, r.status, r.size, r.body, r.head);
		w32_add(&tally->wrong, 1);
	} else
		w32_add(&tally->answers, 1);
	web_free(&r);
	return !lost;
}

static void client(unsigned seed, struct tally *tally)
{
	struct web w = web_connect(site.port);

	while (!w32_load(&tally->stop) && !w32_load(&tally->wrong))
		if (!one(&w, &seed, tally)) {
			web_close(&w);
			w = web_connect(site.port);
		}
	web_close(&w);
}

/* Some worker; 0: there is none, the master is just making them. */
static pid_t some_worker(unsigned *seed)
{
	pid_t pids[64];
	unsigned n = workers_of(&site, pids);

	return n ? pids[next(seed) % n] : 0;
}

/* After each so many answers. */
static void trouble(struct tally *tally, unsigned *seed, unsigned *kills)
{
	uint32_t wanted = w32_load(&tally->answers) + 300 + next(seed) % 1000;
	uint64_t began = 0;
	pid_t worker;

	while (w32_load(&tally->answers) < wanted && !w32_load(&tally->wrong))
		site_turn(&began);
	if (!(next(seed) % 8))
		kill(site.master, SIGHUP);
	else if ((worker = some_worker(seed)) > 0) {
		kill(worker, next(seed) % 3 ? SIGKILL : SIGTERM);
		++*kills;
	}
}

static void workers_die_under_load(void **state)
{
	const char *given = getenv("SHOAL_TEST_SECONDS");
	uint64_t until = clock_system_ns(CLOCK_MONOTONIC) + (uint64_t)(given ? atoi(given) : 10) * SECOND_NS, began = 0;
	struct tally *tally = share(sizeof(*tally));
	unsigned seed = (unsigned)getpid(), kills = 0;
	pid_t clients[CLIENTS];
	int status;

	printf("# seed %u\n", seed);
	fflush(stdout);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = fork();
		assert_true(clients[i] >= 0);
		if (!clients[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			client(seed + i, tally);
			fflush(stdout);
			_exit(0);
		}
	}
	while (clock_system_ns(CLOCK_MONOTONIC) < until && !w32_load(&tally->wrong))
		trouble(tally, &seed, &kills);
	w32_store(&tally->stop, 1);
	for (unsigned i = 0; i < CLIENTS; i++) {
		assert_int_equal(waitpid(clients[i], &status, 0), clients[i]);
		assert_int_equal(status, 0);
	}
	printf("# %u answers, %u connections lost, %u workers killed\n", w32_load(&tally->answers), w32_load(&tally->lost), kills);
	assert_int_equal(w32_load(&tally->wrong), 0);
	assert_true(kills > 0);
	for (;;) { /* old workers have gone, and what the dead held is found by who meets it */
		struct response r = web_get(site.port, "/plain/last?k");

		web_free(&r);
		if (!site_stats(&site).pins && !site_flight(&site).leader && site_stats(&site).processes <= WORKERS + 1)
			break;
		if (began && clock_system_ns(CLOCK_MONOTONIC) - began > PATIENCE_S * SECOND_NS / 2)
			printf("# %u pins, %u processes\n", site_stats(&site).pins, site_stats(&site).processes);
		site_turn(&began);
	}
	assert_int_equal(shoal_check(site.cache, NULL, NULL), 0);
	assert_calm(&site, "exited on signal 9");
	unshare_memory(tally, sizeof(*tally));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_die_under_load),
	};

	return RUN("mixed", tests);
}
