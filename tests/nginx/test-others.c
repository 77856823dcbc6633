/* SPDX-License-Identifier: MIT */
/*
 * The nginx module beside others: what they put into a response, keep from a client or send elsewhere is theirs,
 * whether it is a hit or not.
 */
#include "suite.h"

static char locations[4096] =
	"location /sent/ { shoal ZONE; shoal_key $uri; shoal_fresh 1h; proxy_pass http://origin; }\n"
	"location /unkept/ { proxy_pass http://origin; }\n"
	"location /file/ { internal; alias FOLDER/; }\n"
	"location /inner/ { internal; shoal ZONE; shoal_key $uri; shoal_fresh 1h; proxy_pass http://origin; }\n"
	"location /slow/ { limit_rate 16k; shoal ZONE; shoal_key $uri; proxy_pass http://origin; }\n";

/* ... and of modules that not every nginx has */
static const char with_ssi[] = "location /page- { ssi on; default_type text/html; shoal ZONE; shoal_key $uri; }\n";
static const char with_mirror[] =
	"location /mirrored/ { mirror /:mirror; shoal ZONE; shoal_key $uri; proxy_pass http://origin; }\n"
	"location = /:mirror { internal; proxy_pass http://origin/copy; }\n";
static const char with_auth[] =
	"location /guarded/ { auth_request /:auth; shoal ZONE; shoal_key $uri; proxy_pass http://origin; }\n"
	"location = /:auth { internal; shoal ZONE; shoal_key auth; proxy_pass "
	"http://origin/auth?status=$http_x_auth; }\n";

static const struct setup setup = {.locations = locations};

static bool has(const char *module, bool by_default)
{
	char command[256];

	snprintf(command, sizeof(command), NGINX " -V 2>&1 | grep -q -e '--%s-http_%s_module'",
	         by_default ? "without" : "with", module);
	return (system(command) == 0) != by_default;
}

static void add(const char *module, bool by_default, const char *text)
{
	if (has(module, by_default))
		strcat(locations, text);
}

/* From 1.29 on hints are passed on where that is asked for. */
static bool passes_hints(void)
{
	FILE *f = popen(NGINX " -v 2>&1", "r");
	unsigned major = 0, minor = 0;

	assert_non_null(f);
	fscanf(f, "nginx version: nginx/%u.%u", &major, &minor);
	pclose(f);
	return major > 1 || minor >= 29;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(site_file(&site, name), "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void expect_text(const char *target, const char *status, const char *text)
{
	struct response r = web_get(site.port, target);

	assert_int_equal(r.status, 200);
	assert_string_equal(r.body, text);
	if (!was(&r, status))
		fail_msg("%s: wanted %s, got %s", target, status, r.head);
	web_free(&r);
}

/* ---- SSI --------------------------------------------------------------------------------------------------- */

static void expect_page(const char *status, unsigned n)
{
	struct response r = web_get(site.port, "/page-a");

	assert_true(was(&r, status));
	assert_int_equal(r.size, 66);
	assert_true(r.body[0] == '[' && r.body[65] == ']');
	memmove(r.body, r.body + 1, r.size = 64);
	assert_body(&r, "/part/a", n, 64);
	web_free(&r);
}

/* The page is stored as it is written, and each client's is put together; its parts are asked for each time. */
static void a_page_of_parts(void **state)
{
	if (!has("ssi", true))
		skipped("nginx without SSI");
	write_file("page-a", "[<!--# include virtual=\"/part/a\" -->]");
	expect_page("MISS", 1);
	write_file("page-a", "other");
	expect_page("HIT", 2);
	expect(&site, "/part/a", "MISS", "/part/a", 3);
	expect_page("HIT", 4);
	expect(&site, "/part/a", "HIT", "/part/a", 3);
}

/* ---- auth_request ------------------------------------------------------------------------------------------ */

static void guarded(unsigned auth, const char *status)
{
	char header[32];
	struct response r;

	snprintf(header, sizeof(header), "X-Auth: %u\r\n", auth);
	r = web_do(site.port, "GET", "/guarded/a", header);
	assert_int_equal(r.status, auth);
	if (auth == 200) {
		assert_body(&r, "/guarded/a", 1, 64);
		assert_true(was(&r, status));
	} else {
		assert_null(strstr(r.body, "/guarded/a"));
		assert_null(web_header(&r, "Cache-Status"));
	}
	web_free(&r);
}

/* Each is asked whether it may, and who may not neither gets what is stored nor has something stored. */
static void who_may_not_gets_nothing(void **state)
{
	const struct {
		unsigned auth;
		const char *status;
	} turns[] = {{401, ""}, {403, ""}, {200, "MISS"}, {401, ""}, {200, "HIT"}, {403, ""}, {200, "HIT"}};

	if (!has("auth_request", false))
		skipped("nginx without auth_request");
	for (unsigned i = 0; i < COUNT(turns); i++) {
		guarded(turns[i].auth, turns[i].status);
		COUNTS("/auth", i + 1);
		COUNTS("/guarded/a", i >= 2);
	}
}

/* ---- X-Accel-Redirect -------------------------------------------------------------------------------------- */

/* What it leads to is what is stored, under the key of what was asked for. */
static void the_origin_sends_elsewhere(void **state)
{
	write_file("sent", "a file");
	expect_text("/sent/a?h=X-Accel-Redirect:/file/sent", "MISS", "a file");
	expect_text("/sent/a", "HIT", "a file");
	COUNTS("/sent/a", 1);
	expect(&site, "/sent/b?h=X-Accel-Redirect:/inner/b", "MISS", "/inner/b", 1);
	expect(&site, "/sent/b", "HIT", "/inner/b", 1);
	COUNTS("/sent/b", 1);
	expect(&site, "/unkept/c?h=X-Accel-Redirect:/inner/c", "MISS", "/inner/c", 1);
	expect(&site, "/unkept/c?h=X-Accel-Redirect:/inner/c", "HIT", "/inner/c", 1);
	COUNTS("/unkept/c", 2);
}

static void the_origin_sends_elsewhere_and_forbids(void **state)
{
	const char *said[] = {"Set-Cookie:a%3D1", "Cache-Control:private", "X-Accel-Expires:0"};
	char target[128];

	write_file("sent", "a file");
	for (unsigned i = 0; i < COUNT(said); i++) {
		snprintf(target, sizeof(target), "/sent/no-%u?h=X-Accel-Redirect:/file/sent&h=%s", i, said[i]);
		expect_text(target, "MISS", "a file");
		expect_text(target, "PASS", "a file");
	}
}

/* ---- early hints ------------------------------------------------------------------------------------------- */

/* As without the module, whatever this nginx makes of them. */
static void hints_come_through(void **state)
{
	const char *folders[] = {"unkept", "sent"};

	for (unsigned turn = 1; turn <= 2; turn++)
		for (unsigned i = 0; i < COUNT(folders); i++) {
			struct web w = web_connect(site.port);
			char target[128], path[64];
			struct response r;

			snprintf(path, sizeof(path), "/%s/hints", folders[i]);
			snprintf(target, sizeof(target), "%s?early&h=Cache-Control:private", path);
			web_ask(&w, "GET", target, NULL);
			r = web_read_final(&w);
			assert_int_equal(r.status, 200);
			assert_body(&r, path, turn, 64);
			web_free(&r);
			web_close(&w);
		}
}

/* ---- mirror ------------------------------------------------------------------------------------------------ */

static void await_copies(unsigned n)
{
	uint64_t began = 0;

	while (origin(&site, "count?/copy") < n)
		site_turn(&began);
	COUNTS("/copy", n);
}

/* What is sent to the origin is sent there, too: loads, not hits. */
static void what_is_loaded_is_mirrored(void **state)
{
	if (!has("mirror", true))
		skipped("nginx without mirror");
	expect(&site, "/mirrored/a", "MISS", "/mirrored/a", 1);
	await_copies(1);
	expect(&site, "/mirrored/a", "HIT", "/mirrored/a", 1);
	expect(&site, "/mirrored/b?h=Set-Cookie:a%3D1", "MISS", "/mirrored/b", 1);
	await_copies(2);
	expect(&site, "/mirrored/b?h=Set-Cookie:a%3D1", "PASS", "/mirrored/b", 2);
	await_copies(3);
}

/* ---- clients ----------------------------------------------------------------------------------------------- */

/* More than one second's bytes: it needs one at least, whatever the machine is. */
static void a_hit_has_its_rate(void **state)
{
	uint64_t began;
	struct response r;

	r = web_get(site.port, "/slow/a?size=20000");
	web_free(&r);
	began = clock_system_ns(CLOCK_MONOTONIC);
	r = web_get(site.port, "/slow/a");
	assert_true(clock_system_ns(CLOCK_MONOTONIC) - began > SECOND_NS / 2);
	assert_true(was(&r, "HIT"));
	assert_body(&r, "/slow/a", 1, 20000);
	web_free(&r);
}

/* By HTTP/1.0, without a Host: all until the connection ends. */
static struct response get_by_1_0(const char *target)
{
	struct web w = web_connect(site.port);
	struct response r = {0};
	char request[256];

	web_send(&w, request, (size_t)snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\n\r\n", target));
	assert_true(web_head(&w, &r));
	while (web_more(&w))
		;
	r.size = w.size;
	r.body = web_take(&w, w.size);
	web_close(&w);
	return r;
}

static void a_client_of_1_0(void **state)
{
	const char *targets[] = {"/old/a", "/old/b?chunked&size=30000", "/old/c?chunked&h=Set-Cookie:a%3D1",
	                         "/old/d?chunked&size=200000"};
	const char *statuses[] = {"HIT", "HIT", "PASS", "PASS"};
	const size_t sizes[] = {64, 30000, 64, 200000};

	for (unsigned i = 0; i < COUNT(targets); i++)
		for (unsigned turn = 1; turn <= 2; turn++) {
			struct response r = get_by_1_0(targets[i]);
			char path[32];

			snprintf(path, sizeof(path), "%.6s", targets[i]);
			assert_true(was(&r, turn == 1 ? "MISS" : statuses[i]));
			assert_body(&r, path, i < 2 ? 1 : turn, sizes[i]);
			assert_null(web_header(&r, "Transfer-Encoding"));
			assert_string_equal(web_header(&r, "Connection"), "close");
			web_free(&r);
		}
}

/* Several on one connection before the first is answered: in turn. */
static void requests_in_a_row(void **state)
{
	const char *targets[] = {"/row/a?gate=row", "/row/b", "/row/c?h=Set-Cookie:a%3D1", "/row/a?gate=row",
	                         "/row/d?size=200000"};
	const char *paths[] = {"/row/a", "/row/b", "/row/c", "/row/a", "/row/d"},
		   *statuses[] = {"MISS", "HIT", "MISS", "HIT", "MISS"};
	struct web w = web_connect(site.port);
	char row[1024] = "";

	expect(&site, "/row/b", "MISS", "/row/b", 1);
	for (unsigned i = 0; i < COUNT(targets); i++)
		sprintf(row + strlen(row), "GET %s HTTP/1.1\r\nHost: shop\r\n\r\n", targets[i]);
	web_send(&w, row, strlen(row));
	origin(&site, "await?row&1");
	origin(&site, "open?row");
	for (unsigned i = 0; i < COUNT(targets); i++) {
		struct response r = web_read(&w);

		assert_body(&r, paths[i], 1, i == 4 ? 200000 : 64);
		assert_true(was(&r, statuses[i]));
		web_free(&r);
	}
	web_close(&w);
}

/* ---- another key ------------------------------------------------------------------------------------------- */

/* None of the old workers is left. */
static void reload(const struct site *s, const char *keyed)
{
	struct setup other = {.locations = keyed};
	pid_t old[64], now[64];
	unsigned n = workers_of(s, old), left;
	uint64_t began = 0;

	write_configuration(s, &other);
	kill(s->master, SIGHUP);
	do {
		unsigned known = 0;

		site_turn(&began);
		left = workers_of(s, now);
		for (unsigned i = 0; i < left; i++)
			for (unsigned j = 0; j < n; j++)
				known += now[i] == old[j];
		left += known;
	} while (left != WORKERS);
}

/* What is stored under the old one is not found any more, nor is it harmed. */
static void a_reload_changes_the_key(void **state)
{
	static const char by_path[] =
		"location /keyed/ { shoal ZONE; shoal_key $uri; shoal_fresh 1h; proxy_pass http://origin; }\n";
	static const char by_query[] =
		"location /keyed/ { shoal ZONE; shoal_key \"$uri $arg_x\"; shoal_fresh 1h; proxy_pass "
		"http://origin; }\n";
	struct setup first = {.locations = by_path};
	struct site own;

	site_start(&own, &first);
	expect(&own, "/keyed/a?x=1", "MISS", "/keyed/a", 1);
	expect(&own, "/keyed/a?x=2", "HIT", "/keyed/a", 1);
	reload(&own, by_query);
	expect(&own, "/keyed/a?x=1", "MISS", "/keyed/a", 2);
	expect(&own, "/keyed/a?x=2", "MISS", "/keyed/a", 3);
	expect(&own, "/keyed/a?x=1", "HIT", "/keyed/a", 2);
	reload(&own, by_path);
	expect(&own, "/keyed/a?x=3", "HIT", "/keyed/a", 1);
	assert_calm(&own, NULL);
	site_stop(&own);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(a_page_of_parts),
		CASE(who_may_not_gets_nothing),
		CASE(the_origin_sends_elsewhere),
		CASE(the_origin_sends_elsewhere_and_forbids),
		CASE(hints_come_through),
		CASE(what_is_loaded_is_mirrored),
		CASE(a_hit_has_its_rate),
		CASE(a_client_of_1_0),
		CASE(requests_in_a_row),
		CASE(a_reload_changes_the_key),
	};

	add("ssi", true, with_ssi);
	add("mirror", true, with_mirror);
	add("auth_request", false, with_auth);
	if (passes_hints())
		strcat(locations, "early_hints 1;\n");
	return RUN("others", tests);
}
