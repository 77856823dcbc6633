/* SPDX-License-Identifier: MIT */
/*
 * The nginx module and the rules of RFC 9111 that concern more than one response: what another method changes, what a 304
 * brings. Most locations here have keys without the query, so that a request can tell the origin what to answer.
 */
#include "site.h"

static struct site site;

static const char locations[] =
	"location /post/ { shoal ZONE keyspace=post; shoal_key $uri; shoal_fresh 1h; shoal_stale 1h; shoal_stale_error 1h;\n"
	"  proxy_pass http://origin; }\n"
	"location /by-method/ { shoal ZONE; shoal_key \"$request_method $uri\"; shoal_fresh 1h; proxy_pass http://origin;\n"
	"  proxy_set_header X-Method $request_method; }\n"
	"location /full/ { shoal ZONE; shoal_fresh 1h; proxy_pass http://origin; }\n"
	"location /unmoved/ { shoal ZONE; shoal_key $uri; shoal_fresh 1h; shoal_invalidate off; proxy_pass http://origin; }\n";

static int begin(void **state)
{
	site_start(&site, locations);
	return 0;
}

static int end(void **state)
{
	site_stop(&site);
	return 0;
}

static int calm(void **state)
{
	assert_calm(&site, NULL);
	return 0;
}

#define COUNTS(path, n) assert_int_equal(origin(&site, "count?%s", path), n)

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
	const char *elsewhere[] = {"Location:http://shop.example/full/x", "Location:https://shop/full/x", "Location://shopping/full/x",
				   "Location:http://shop:81/full/x", "Location:full/x", "X-Location:/full/x", "Location:http:",
				   "Location:/full/../full/x", "Location:"};
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

#define CASE(name) cmocka_unit_test_teardown(name, calm)

/* With a pattern: the cases of that name. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(what_succeeds_takes_it_away),
		CASE(it_is_not_served_stale),
		CASE(what_fails_or_is_safe_leaves_it),
		CASE(a_key_has_the_method),
		CASE(a_load_from_before_is_not_stored),
		CASE(what_the_answer_names_goes_too),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests_name("rules", tests, begin, end);
}
