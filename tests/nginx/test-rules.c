/* SPDX-License-Identifier: MIT */
/*
 * The nginx module and the rules of RFC 9111 that concern more than one response: what another method changes, what a
 * 304 brings. Most locations here have keys without the query, so that a request can tell the origin what to answer.
 */
#include "suite.h"

#define IGNORING(name)                                                                                                \
	"location /ignoring/" name "/ { shoal ZONE keyspace=ignoring; shoal_key $uri; shoal_purge soft $purge; " \
	                           "shoal_fresh 1h;\n" \
	"  shoal_stale 1h; proxy_ignore_headers " name "; proxy_pass http://origin; }\n"

static const char locations[] =
	"location /post/ { shoal ZONE keyspace=post; shoal_key $uri; shoal_fresh 1h; shoal_stale 1h; "
	"shoal_stale_error 1h;\n"
	"  proxy_pass http://origin; }\n"
	"location /by-method/ { shoal ZONE; shoal_key \"$request_method $uri\"; shoal_fresh 1h; "
	"proxy_pass http://origin;\n"
	"  proxy_set_header X-Method $request_method; }\n"
	"location /full/ { shoal ZONE; shoal_fresh 1h; proxy_pass http://origin; }\n"
	"location /unmoved/ { shoal ZONE; shoal_key $uri; shoal_fresh 1h; shoal_invalidate off; "
	"proxy_pass http://origin; }\n"
	"location /renew/ { shoal ZONE keyspace=renew; shoal_key $uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  shoal_no_store $arg_no_store; proxy_pass http://origin; }\n"
	"location /keep/ { shoal ZONE keyspace=keep; shoal_key $uri; shoal_keep 1h; shoal_retry 1h; "
	"proxy_pass http://origin; }\n"
	"location /let-go/ { shoal ZONE keyspace=keep; shoal_key $uri; shoal_retry 1h; proxy_pass http://origin; }\n"
	IGNORING("Set-Cookie") IGNORING("Cache-Control") IGNORING("Expires") IGNORING("X-Accel-Expires")
	IGNORING("Vary");

static const struct setup setup = {.locations = locations};

/* One request, and how it was served: what the origin has sent first. */
static void expect_size(const char *target, const char *status, const char *path, size_t size)
{
	struct response r = web_get(site.port, target);

	assert_body(&r, path, 1, size);
	assert_true(was(&r, status));
	web_free(&r);
}

/* ---- other methods ----------------------------------------------------------------------------------------- */

static void change(const char *method, const char *target, int status)
{
	struct response r = web_do(site.port, method, target, "Content-Length: 0\r\n");

	assert_int_equal(r.status, status);
	web_free(&r);
}

static void what_succeeds_takes_it_away(void **state)
{
	const char *methods[] = {"POST", "PUT", "DELETE", "PATCH", "MKCOL", "FROB"};
	const int statuses[] = {200, 201, 204, 303, 304};
	unsigned n = 1;

	expect(&site, "/post/a", "MISS", "/post/a", n);
	for (size_t i = 0; i < COUNT(methods); i++)
		for (size_t j = 0; j < COUNT(statuses); j++) {
			char target[64];

			snprintf(target, sizeof(target), "/post/a?status=%d", statuses[j]);
			expect(&site, "/post/a", "HIT", "/post/a", n);
			change(methods[i], target, statuses[j]);
			n += 2;
			expect(&site, "/post/a", "MISS", "/post/a", n);
		}
	COUNTS("/post/a", n);
}

/* Not even in place of an error. */
static void it_is_not_served_stale(void **state)
{
	struct response r;

	expect(&site, "/post/gone", "MISS", "/post/gone", 1);
	change("POST", "/post/gone", 200);
	r = web_get(site.port, "/post/gone?status=500");
	assert_int_equal(r.status, 500);
	web_free(&r);
}

static void what_fails_or_is_safe_leaves_it(void **state)
{
	const char *methods[] = {"OPTIONS", "PROPFIND", "HEAD"};
	const int statuses[] = {400, 404, 409, 500, 503};
	char target[64];

	expect(&site, "/post/b", "MISS", "/post/b", 1);
	for (size_t j = 0; j < COUNT(statuses); j++) {
		snprintf(target, sizeof(target), "/post/b?status=%d", statuses[j]);
		change("POST", target, statuses[j]);
		expect(&site, "/post/b", "HIT", "/post/b", 1);
	}
	for (size_t i = 0; i < COUNT(methods); i++) {
		struct response r = web_do(site.port, methods[i], "/post/b", NULL);

		web_free(&r);
		expect(&site, "/post/b", "HIT", "/post/b", 1);
	}
	expect(&site, "/unmoved/a", "MISS", "/unmoved/a", 1);
	change("POST", "/unmoved/a", 200);
	expect(&site, "/unmoved/a", "HIT", "/unmoved/a", 1);
}

/* The key is a GET's, and the origin is still told of a POST. */
static void a_key_has_the_method(void **state)
{
	char *last;

	expect(&site, "/by-method/a", "MISS", "/by-method/a", 1);
	change("POST", "/by-method/a", 200);
	last = origin_last(&site, "/by-method/a");
	assert_non_null(strstr(last, "POST /by-method/a HTTP/1.1\r\n"));
	assert_non_null(strstr(last, "X-Method: POST\r\n"));
	free(last);
	expect(&site, "/by-method/a", "MISS", "/by-method/a", 3);
}

/* What was loaded before is given to whom it was loaded for, and who waits for it gets what is loaded after. */
static void a_load_from_before_is_not_stored(void **state)
{
	struct web leader = web_connect(site.port), waiter = web_connect(site.port);
	uint64_t began = 0, misses = site_stats(&site).total.misses;
	struct response r;

	web_ask(&leader, "GET", "/post/c?gate=post-c", NULL);
	origin(&site, "await?post-c&1");
	web_ask(&waiter, "GET", "/post/c", NULL);
	while (site_stats(&site).total.misses < misses + 2)
		site_turn(&began);
	change("POST", "/post/c", 200);
	r = web_read(&waiter);
	assert_body(&r, "/post/c", 3, 64);
	web_free(&r);
	origin(&site, "open?post-c");
	r = web_read(&leader);
	assert_body(&r, "/post/c", 1, 64);
	assert_null(strstr(web_header(&r, "Cache-Status"), "stored"));
	web_free(&r);
	expect(&site, "/post/c", "HIT", "/post/c", 3);
	web_close(&leader);
	web_close(&waiter);
}

/* Of this scheme, host and port. */
static void what_the_answer_names_goes_too(void **state)
{
	const char *there[] = {"Location:/full/x", "Location:http://shop/full/x%23y", "location:HTTP://SHOP/full/x",
			       "Content-Location:/full/x", "Content-Location://shop/full/x"};
	const char *elsewhere[] = {"Location:http://shop.example/full/x", "Location:https://shop/full/x",
	                           "Location://shopping/full/x", "Location:http://shop:81/full/x", "Location:full/x",
	                           "X-Location:/full/x", "Location:http:", "Location:/full/../full/x", "Location:"};
	char target[128];
	unsigned n = 1;

	expect(&site, "/full/x", "MISS", "/full/x", 1);
	for (size_t i = 0; i < COUNT(elsewhere); i++) {
		snprintf(target, sizeof(target), "/full/other?status=201&h=%s", elsewhere[i]);
		change("POST", target, 201);
		expect(&site, "/full/x", "HIT", "/full/x", 1);
	}
	for (size_t i = 0; i < COUNT(there); i++) {
		snprintf(target, sizeof(target), "/full/other?status=201&h=%s", there[i]);
		change("POST", target, 201);
		expect(&site, "/full/x", "MISS", "/full/x", ++n);
		change("POST", "/full/other?status=409&h=Location:/full/x", 409);
		expect(&site, "/full/x", "HIT", "/full/x", n);
	}
	expect(&site, "/post/x", "MISS", "/post/x", 1); /* its key is of $uri */
	change("POST", "/post/other?status=303&h=Location:/post/%2578", 303);
	expect(&site, "/post/x", "MISS", "/post/x", 2);
}

/* ---- 304 --------------------------------------------------------------------------------------------------- */

/* The value is made stale, and refreshed by a request for this target. */
static void refresh_by(const char *target, const char *path)
{
	purge(&site, path, 204);
	expect(&site, target, "STALE", path, 1);
}

static void a_304_brings_its_fields(void **state)
{
	const char *before =
		"/renew/a?etag=a&h=X-One:1&h=X-Two:1&h=Link:%3Ca%3E&h=Link:%3Cb%3E&h=Cache-Control:max-age%3D1000"
		"&h=Last-Modified:Wed,+01+Jan+2020+00:00:00+GMT&h=Content-Type:a/b;charset%3Dutf-8";
	const char *after =
		"/renew/a?etag=a&h=x-one:2&h=Link:%3Cc%3E&h=Link:%3Cd%3E&h=X-Three:3"
		"&h=Cache-Control:max-age%3D500&h=Age:7"
		"&h=Last-Modified:Thu,+02+Jan+2020+00:00:00+GMT&h=Connection:x&h=Content-Type:c/d"
		"&h=Content-Encoding:br";
	struct response r;

	expect(&site, before, "MISS", "/renew/a", 1);
	refresh_by(after, "/renew/a");
	await_status(&site, "/renew/a", "HIT");
	r = web_get(site.port, "/renew/a");
	assert_body(&r, "/renew/a", 1, 64);
	assert_string_equal(web_header(&r, "X-One"), "2");
	assert_string_equal(web_header(&r, "X-Two"), "1");
	assert_string_equal(web_header(&r, "X-Three"), "3");
	assert_string_equal(web_header(&r, "Cache-Control"), "max-age=500");
	assert_null(strstr(r.head, "<a>"));
	assert_null(strstr(r.head, "<b>"));
	assert_non_null(strstr(r.head, "Link: <c>\r\nLink: <d>\r\n"));
	assert_string_equal(web_header(&r, "Content-Type"), "a/b;charset=utf-8");
	assert_null(web_header(&r, "Content-Encoding"));
	assert_string_equal(web_header(&r, "Last-Modified"), "Thu, 02 Jan 2020 00:00:00 GMT");
	assert_int_equal(atoi(web_header(&r, "Age")) / 100, 0);
	assert_true(atoi(web_header(&r, "Age")) >= 7);
	assert_memory_equal(web_header(&r, "Cache-Status"), "shoal; hit; ttl=4", 17);
	web_free(&r);
	r = web_do(site.port, "GET", "/renew/a", "If-Modified-Since: Thu, 02 Jan 2020 00:00:00 GMT\r\n");
	assert_int_equal(r.status, 304);
	web_free(&r);
	COUNTS("/renew/a", 2);
}

/* What it doesn't say is as it was, the life, too. */
static void a_304_that_says_little(void **state)
{
	struct response r;

	expect(&site, "/renew/b?etag=a&h=Cache-Control:max-age%3D900,public&h=X-One:1", "MISS", "/renew/b", 1);
	refresh_by("/renew/b?status=304", "/renew/b");
	await_status(&site, "/renew/b", "HIT");
	r = web_get(site.port, "/renew/b");
	assert_body(&r, "/renew/b", 1, 64);
	assert_string_equal(web_header(&r, "X-One"), "1");
	assert_string_equal(web_header(&r, "ETag"), "\"a\"");
	assert_string_equal(web_header(&r, "Cache-Control"), "max-age=900,public");
	assert_in_range(atoi(web_header(&r, "Cache-Status") + strlen("shoal; hit; ttl=")), 800, 900);
	web_free(&r);
	refresh_by("/renew/b?status=304&h=ETag:W/%22a%22&h=Cache-Control:must-revalidate", "/renew/b");
	await_status(&site, "/renew/b", "HIT");
	r = web_get(site.port, "/renew/b");
	assert_string_equal(web_header(&r, "ETag"), "W/\"a\"");
	assert_string_equal(web_header(&r, "Cache-Control"), "must-revalidate");
	web_free(&r);
	COUNTS("/renew/b", 3);
}

/* Once what there was isn't served any more, it is what the third request has brought: that of a client who missed, or
 * of one who came while it was taken away, and refreshed it. */
static void await_third(const char *path)
{
	uint64_t began = 0;
	struct response r;

	for (r = web_get(site.port, path); was(&r, "STALE"); r = web_get(site.port, path)) {
		assert_body(&r, path, 1, 64);
		web_free(&r);
		site_turn(&began);
	}
	assert_body(&r, path, 3, 64);
	web_free(&r);
}

/* It may also forbid to keep what there is, or speak of something else. */
static void a_304_that_takes_it_away(void **state)
{
	const char *queries[] = {"h=Cache-Control:private", "h=Vary:Cookie", "h=Set-Cookie:a%3D1", "h=ETag:%22b%22",
	                         "h=ETag:%22aa%22", "h=Cache-Control:max-age%3D0", "no_store=1"};

	for (size_t i = 0; i < COUNT(queries); i++) {
		char path[64], target[128];

		snprintf(path, sizeof(path), "/renew/away%zu", i);
		snprintf(target, sizeof(target), "%s?etag=a", path);
		expect(&site, target, "MISS", path, 1);
		snprintf(target, sizeof(target), "%s?status=304&%s", path, queries[i]);
		refresh_by(target, path);
		await_third(path);
		expect(&site, path, "HIT", path, 3);
	}
}

/* Fields that don't fit: what there is stays as it is, and is fresh. */
static void a_304_with_too_much(void **state)
{
	char target[2048] = "/renew/much?etag=a&size=64500", fields[1901];
	size_t n = 0;
	struct response r;

	expect_size(target, "MISS", "/renew/much", 64500);
	while (n + 1 < sizeof(fields))
		fields[n++] = 'x';
	fields[n] = '\0';
	snprintf(target, sizeof(target), "/renew/much?etag=a&h=X-Much:%s", fields);
	purge(&site, "/renew/much", 204);
	r = web_get(site.port, target);
	assert_true(was(&r, "STALE"));
	web_free(&r);
	await_status(&site, "/renew/much", "HIT");
	expect_size("/renew/much", "HIT", "/renew/much", 64500);
	COUNTS("/renew/much", 2);
}

/* What is fresh for a second isn't any more, by the coarse clock that is read for hits, either.
 * A scan doesn't show what is kept. */
static void await_old(uint64_t since)
{
	uint64_t began = 0;

	while (clock_system_ns(CLOCK_MONOTONIC) < since + SECOND_NS + SECOND_NS / 4)
		site_turn(&began);
}

/* What is over is asked for by its condition, and is served to nobody without the origin's word. */
static void what_is_kept_is_asked_for(void **state)
{
	const char *life = "etag=a&h=Cache-Control:max-age%3D1,must-revalidate";
	const char *const paths[] = {"/keep/a", "/keep/b", "/let-go/a"};
	char target[128];
	struct response r;

	for (size_t i = 0; i < COUNT(paths); i++) {
		snprintf(target, sizeof(target), "%s?%s", paths[i], life);
		expect(&site, target, "MISS", paths[i], 1);
	}
	await_old(clock_system_ns(CLOCK_MONOTONIC));
	r = web_get(site.port, "/keep/a?etag=a&h=Cache-Control:max-age%3D1000");
	assert_body(&r, "/keep/a", 1, 64);
	assert_true(was(&r, "MISS"));
	assert_string_equal(web_header(&r, "Cache-Status"), "shoal; fwd=stale; fwd-status=304; stored");
	assert_string_equal(web_header(&r, "Cache-Control"), "max-age=1000");
	web_free(&r);
	expect(&site, "/keep/a", "HIT", "/keep/a", 1);
	COUNTS("/keep/a", 2);
	r = web_get(site.port, "/keep/b?status=503");
	assert_int_equal(r.status, 503);
	assert_body(&r, "/keep/b", 2, 64);
	web_free(&r);
	r = web_get(site.port, "/keep/b");
	assert_int_equal(r.status, 503);
	assert_true(was(&r, "ERROR"));
	web_free(&r);
	expect(&site, "/let-go/a?etag=a", "MISS", "/let-go/a", 2);
}

/*
 * Hints before the answer to such a question: nginx before 1.29 takes them for the response, and passes on what comes
 * after them as it is. That must not be a 304 that the client hasn't asked for.
 */
static void hints_before_a_304(void **state)
{
	struct web w;
	struct response r;

	expect(&site, "/keep/hints?etag=a&h=Cache-Control:max-age%3D1,must-revalidate", "MISS", "/keep/hints", 1);
	await_old(clock_system_ns(CLOCK_MONOTONIC));
	w = web_connect(site.port);
	web_ask(&w, "GET", "/keep/hints?etag=a&early&h=Cache-Control:private", NULL);
	r = web_read_final(&w);
	assert_int_equal(r.status, 200);
	assert_body(&r, "/keep/hints", (unsigned)origin(&site, "count?/keep/hints"), 64);
	web_free(&r);
	web_close(&w);
}

/* What a response needs to come it is not fresh for, if it says itself how long it is. */
static void the_way_is_age(void **state)
{
	const struct {
		const char *path, *said;
		int less; /* than this it has left */
	} cases[] = {{"/full/slow-a", "h=Cache-Control:max-age%3D1000&h=Age:100", 900},
	             {"/full/slow-b", "h=X-One:1", 3600}};
	char target[128];

	for (unsigned i = 0; i < COUNT(cases); i++) {
		const char *status;
		struct web w = web_connect(site.port);
		uint64_t began = 0;
		struct response r;

		snprintf(target, sizeof(target), "%s?gate=slow-%u&%s", cases[i].path, i, cases[i].said);
		web_ask(&w, "GET", target, NULL);
		origin(&site, "await?slow-%u&1", i);
		for (uint64_t since = clock_system_ns(CLOCK_MONOTONIC);
		     clock_system_ns(CLOCK_MONOTONIC) - since < 1100000000;)
			site_turn(&began);
		origin(&site, "open?slow-%u", i);
		r = web_read(&w);
		assert_true(was(&r, "MISS"));
		assert_true(atoi(web_header(&r, "Age")) >= (i ? 1 : 101));
		web_free(&r);
		web_close(&w);
		r = web_get(site.port, target);
		assert_true(was(&r, "HIT"));
		status = web_header(&r, "Cache-Status");
		assert_memory_equal(status, "shoal; hit; ttl=", 16);
		assert_true(atoi(status + 16) < cases[i].less || i);
		web_free(&r);
	}
}

/* ---- what nginx is told to ignore -------------------------------------------------------------------------- */

/* That, and nothing else; it is said to clients all the same, as nginx's own cache does. X-Accel-Expires nginx
 * says to nobody. */
static void what_is_ignored_is_no_rule(void **state)
{
	const char *const said[][2] = {{"Set-Cookie", "a=1"}, {"Cache-Control", "private"}, {"Expires", "0"},
	                               {"Vary", "Cookie"}, {"X-Accel-Expires", "0"}};
	char path[64], target[128];

	for (size_t i = 0; i < COUNT(said); i++)
		for (size_t j = 0; j < COUNT(said); j++) {
			snprintf(path, sizeof(path), "/ignoring/%s/%zu", said[i][0], j);
			snprintf(target, sizeof(target), "%s?h=%s:%s", path, said[j][0], j ? said[j][1] : "a%3D1");
			for (unsigned turn = 1; turn <= 2; turn++) {
				struct response r = web_get(site.port, target);
				const char *value = web_header(&r, said[j][0]);

				assert_body(&r, path, i == j ? 1 : turn, 64);
				assert_string_equal(value ? value : "0", said[j][1]);
				web_free(&r);
			}
		}
}

/* Nor is it when a 304 says so, or what it renews. */
static void a_304_with_what_is_ignored(void **state)
{
	const char *const cookies[] = {"Set-Cookie: a=1\r\nSet-Cookie: b=1\r\n", "Set-Cookie: c=1\r\n"};
	const char *const path = "/ignoring/Set-Cookie/a";

	expect(&site, "/ignoring/Set-Cookie/a?etag=a&h=Set-Cookie:a%3D1&h=Set-Cookie:b%3D1", "MISS", path, 1);
	for (unsigned i = 0; i < COUNT(cookies); i++) {
		struct response r;

		refresh_by(i ? "/ignoring/Set-Cookie/a?status=304&h=Set-Cookie:c%3D1" :
		               "/ignoring/Set-Cookie/a?status=304", path);
		await_status(&site, path, "HIT");
		r = web_get(site.port, path);
		assert_body(&r, path, 1, 64);
		assert_non_null(strstr(r.head, cookies[i]));
		assert_true(!i || !strstr(r.head, "a=1"));
		web_free(&r);
		COUNTS(path, 2 + i);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(what_succeeds_takes_it_away),
		CASE(it_is_not_served_stale),
		CASE(what_fails_or_is_safe_leaves_it),
		CASE(a_key_has_the_method),
		CASE(a_load_from_before_is_not_stored),
		CASE(what_the_answer_names_goes_too),
		CASE(a_304_brings_its_fields),
		CASE(a_304_that_says_little),
		CASE(a_304_that_takes_it_away),
		CASE(a_304_with_too_much),
		CASE(what_is_kept_is_asked_for),
		CASE(hints_before_a_304),
		CASE(the_way_is_age),
		CASE(what_is_ignored_is_no_rule),
		CASE(a_304_with_what_is_ignored),
	};

	return RUN("rules", tests);
}
