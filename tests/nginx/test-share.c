/* SPDX-License-Identifier: MIT */
/*
 * The nginx module under many clients and four workers: one load per key, whoever dies, leaves, is slow or reloads.
 * What the origin holds back is let go when the test has seen what it waits for, so nothing here depends on time.
 */
#include "crowd.h"

static const char locations[] =
	"location /stale/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  proxy_pass http://origin; }\n";

static const struct setup setup = {.locations = locations};

/* ---- crowds ------------------------------------------------------------------------------------------------ */

/* nginx's own cache, side by side: its figures are for show. */
static void peer(struct crowd *c)
{
	unsigned n = 0;
	double last;

	all_ask(c, "/peer/crowd?gate=peer");
	origin(&site, "await?peer&1");
	/* that many requests were read by now, or will be: it counts no waiters */
	for (uint64_t began = 0; n < c->n; n++)
		site_turn(&began);
	origin(&site, "open?peer");
	last = all_get(c, "/peer/crowd", 1);
	printf("# proxy_cache_lock: %lu loads, the last %.1f ms after the first\n", origin(&site, "count?/peer/crowd"),
	       last);
}

static void one_load_for_a_crowd(void **state)
{
	struct crowd c;
	double last;

	gather(&c, CROWD);
	all_ask(&c, "/crowd?gate=crowd");
	await_crowd(&c, CROWD - 1);
	origin(&site, "open?crowd");
	last = all_get(&c, "/crowd", 1);
	COUNTS("/crowd", 1);
	printf("# shoal: 1 load, the last of %d answered %.1f ms after the first\n", CROWD, last);
	peer(&c);
	disperse(&c);
}

/* Waiters are told of a failure as well, and of a response that each has to fetch for itself. */
static void a_crowd_shares_a_failure(void **state)
{
	struct crowd c;
	struct response r;

	gather(&c, 16);
	all_ask(&c, "/crowd-fails?gate=crowd-fails&status=500");
	await_crowd(&c, 15);
	origin(&site, "open?crowd-fails");
	for (unsigned i = 0; i < c.n; i++) {
		r = web_read(&c.clients[i]);
		assert_int_equal(r.status, 500);
		web_free(&r);
	}
	COUNTS("/crowd-fails", 1);
	disperse(&c);
}

static void a_crowd_is_let_go(void **state)
{
	struct crowd c;
	struct response r;
	bool seen[17] = {false};

	gather(&c, 16);
	all_ask(&c, "/crowd-own?gate=crowd-own&h=Set-Cookie:a&size=200000");
	await_crowd(&c, 15);
	origin(&site, "open?crowd-own");
	for (unsigned i = 0; i < c.n; i++) {
		unsigned n;

		r = web_read(&c.clients[i]);
		assert_int_equal(sscanf(r.body, "/crowd-own %u|", &n), 1);
		assert_true(n <= 16 && !seen[n]); /* nobody has another's cookie */
		seen[n] = true;
		assert_body(&r, "/crowd-own", n, 200000);
		web_free(&r);
	}
	COUNTS("/crowd-own", 16);
	disperse(&c);
}

/* ---- those who leave --------------------------------------------------------------------------------------- */

static void the_leader_leaves(void **state)
{
	struct web w = web_connect(site.port);

	web_ask(&w, "GET", "/left?gate=left", NULL);
	origin(&site, "await?left&1");
	web_close(&w);
	origin(&site, "open?left");
	await_status(&site, "/left?gate=left", "HIT");
	expect(&site, "/left?gate=left", "HIT", "/left", 1);
	COUNTS("/left", 1);
}

static void a_waiter_leaves(void **state)
{
	struct crowd c;
	uint64_t began = 0;

	gather(&c, 8);
	all_ask(&c, "/waiter?gate=waiter");
	await_crowd(&c, 7);
	for (unsigned i = 0; i < 4; i++)
		web_close(&c.clients[i]);
	while (site_flight(&site).waiters > 4) /* the leader may be among those who left */
		site_turn(&began);
	origin(&site, "open?waiter");
	for (unsigned i = 4; i < 8; i++) {
		struct response r = web_read(&c.clients[i]);

		assert_body(&r, "/waiter", 1, 64);
		web_free(&r);
		web_close(&c.clients[i]);
	}
	COUNTS("/waiter", 1);
}

/* In the midst of what is relayed to it, and of what is too big after all. */
static void a_client_of_a_relay_leaves(void **state)
{
	const char *targets[] = {"/relay0?size=5000000&h=Set-Cookie:a&body-gate=relay",
	                         "/relay1?size=5000000&chunked&body-gate=relay"};
	uint64_t began = 0;

	for (size_t i = 0; i < COUNT(targets); i++) {
		struct web w = web_connect(site.port);
		struct response r = {0};

		web_ask(&w, "GET", targets[i], NULL);
		assert_true(web_head(&w, &r));
		web_free(&r);
		web_close(&w);
	}
	origin(&site, "open?relay");
	for (;;) { /* all that is left is the asking itself */
		struct response r = web_get(site.port, "/:pid");
		const char *active = strchr(r.body, ' ');
		bool alone = active && atoi(active) == 1;

		web_free(&r);
		if (alone)
			break;
		site_turn(&began);
	}
}

/* ---- stale while one refreshes ----------------------------------------------------------------------------- */

/* The refresh is held up at the origin until its client has had more answers on the same connection. */
static void a_refresh_delays_nobody(void **state)
{
	const char *target = "/stale/a?gate=refresh", *other = "/stale/other";
	struct web w = web_connect(site.port);
	struct response r;
	struct web first = web_connect(site.port);

	web_ask(&first, "GET", target, NULL);
	origin(&site, "await?refresh&1");
	origin(&site, "open?refresh");
	r = web_read(&first);
	assert_body(&r, "/stale/a", 1, 64);
	web_free(&r);
	web_close(&first);
	expect(&site, other, "MISS", "/stale/other", 1);
	origin(&site, "shut?refresh");
	purge(&site, target, 204);
	for (unsigned turn = 0; turn < 3; turn++) {
		web_ask(&w, "GET", target, NULL);
		r = web_read(&w);
		assert_true(was(&r, "STALE"));
		assert_body(&r, "/stale/a", 1, 64);
		web_free(&r);
		origin(&site, "await?refresh&2");
		web_ask(&w, "GET", other, NULL);
		r = web_read(&w);
		assert_true(was(&r, "HIT"));
		web_free(&r);
	}
	COUNTS("/stale/a", 2);
	origin(&site, "open?refresh");
	await_status(&site, target, "HIT");
	expect(&site, target, "HIT", "/stale/a", 2);
	web_close(&w);
}

/* ---- those who are slow ------------------------------------------------------------------------------------ */

static void fill_the_cache(unsigned from, unsigned n)
{
	struct web w = web_connect(site.port);
	char target[64];

	for (unsigned i = 0; i < n; i++) {
		struct response r;

		snprintf(target, sizeof(target), "/filler/%u?size=50000", from + i);
		web_ask(&w, "GET", target, NULL);
		r = web_read(&w);
		assert_int_equal(r.status, 200);
		assert_int_equal(r.size, 50000);
		web_free(&r);
	}
	web_close(&w);
}

/* Clients that don't read hold little: twice the cache goes through it meanwhile, and all of it is stored. */
static void slow_clients_pin_little(void **state)
{
	struct crowd c = {.n = 16};
	struct shoal_stats before, after;
	char path[64], target[64];
	uint64_t began = 0;

	for (unsigned i = 0; i < c.n; i++) {
		c.clients[i] = web_connect(site.port);
		snprintf(target, sizeof(target), "/slow/%u?size=60000", i);
		for (unsigned turn = 0; turn < 80; turn++)
			web_ask(&c.clients[i], "GET", target, NULL);
	}
	before = site_stats(&site);
	fill_the_cache(0, 700);
	/* extents of the cache; for a moment what is being copied is held, too */
	while ((after = site_stats(&site)).pins > 64 / 8)
		site_turn(&began);
	assert_true(after.pins > 0);
	assert_true(after.evicted_extents > before.evicted_extents + 64);
	assert_int_equal(after.total.uncached, before.total.uncached);
	for (unsigned i = 0; i < c.n; i++) {
		snprintf(path, sizeof(path), "/slow/%u", i);
		for (unsigned turn = 0; turn < 80; turn++) {
			struct response r = web_read(&c.clients[i]);
			unsigned n;

			assert_int_equal(r.status, 200);
			sscanf(r.body + strlen(path), "%u", &n);
			assert_body(&r, path, n, 60000);
			web_free(&r);
		}
	}
	disperse(&c);
}

/* ---- those who end ----------------------------------------------------------------------------------------- */

/* A worker that leads ends by this signal: its own clients lose their connections, the others get the heir's value. */
static void end_the_leader(int signal, const char *path, unsigned loads)
{
	struct crowd c;
	struct shoal_flight flight;
	struct shoal_stats before = site_stats(&site), after;
	char target[64];
	uint64_t began = 0;

	snprintf(target, sizeof(target), "%s?gate=%s", path, path + 1);
	gather(&c, CROWD);
	all_ask(&c, target);
	await_crowd(&c, CROWD - 1);
	origin(&site, "await?%s&1", path + 1); /* it is counted there, whenever its leader ends */
	flight = site_flight(&site);
	kill(flight.leader, signal);
	if (loads > 1)
		origin(&site, "await?%s&2", path + 1);
	origin(&site, "open?%s", path + 1);
	for (unsigned i = 0; i < c.n; i++) {
		struct response r = web_read(&c.clients[i]);

		if (signal == SIGQUIT || c.workers[i] != flight.leader)
			assert_body(&r, path, loads, 64);
		web_free(&r);
	}
	COUNTS(path, loads);
	after = site_stats(&site);
	if (loads > 1)
		assert_int_equal(after.total.takeovers, before.total.takeovers + 1);
	assert_int_equal(after.total.timeouts, before.total.timeouts);
	disperse(&c);
	while (is_worker(&site, flight.leader))
		site_turn(&began);
}

static void a_killed_worker_has_one_heir(void **state)
{
	end_the_leader(SIGKILL, "/killed", 2);
}

static void a_terminated_worker_has_one_heir(void **state)
{
	end_the_leader(SIGTERM, "/terminated", 2);
}

static void a_worker_that_quits_ends_its_load(void **state)
{
	end_the_leader(SIGQUIT, "/quits", 1);
}

/* Old workers end what they began, new ones join it, and have what was there. */
static void a_reload_amid_a_load(void **state)
{
	struct crowd c;
	struct web late;
	struct response r;
	uint64_t began = 0;
	pid_t old[64];
	unsigned n;

	expect(&site, "/before", "MISS", "/before", 1);
	gather(&c, CROWD);
	n = workers_of(&site, old);
	all_ask(&c, "/reload?gate=reload");
	await_crowd(&c, CROWD - 1);
	kill(site.master, SIGHUP);
	for (late = web_connect(site.port); is_among(old, n, worker_of(&late)); late = web_connect(site.port)) {
		web_close(&late);
		site_turn(&began);
	}
	expect(&site, "/before", "HIT", "/before", 1);
	web_ask(&late, "GET", "/reload?gate=reload", NULL);
	await_crowd(&c, CROWD);
	origin(&site, "open?reload");
	all_get(&c, "/reload", 1);
	r = web_read(&late);
	assert_body(&r, "/reload", 1, 64);
	assert_true(was(&r, "COALESCED"));
	web_free(&r);
	web_close(&late);
	COUNTS("/reload", 1);
	disperse(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(one_load_for_a_crowd),
		CASE(a_crowd_shares_a_failure),
		CASE(a_crowd_is_let_go),
		CASE(the_leader_leaves),
		CASE(a_waiter_leaves),
		CASE(a_client_of_a_relay_leaves),
		CASE(a_refresh_delays_nobody),
		CASE(slow_clients_pin_little),
		CASE(a_reload_amid_a_load),
		CASE(a_worker_that_quits_ends_its_load),
		CASE(a_terminated_worker_has_one_heir),
		CASE_WITH_KILLS(a_killed_worker_has_one_heir),
	};

	return RUN("share", tests);
}
