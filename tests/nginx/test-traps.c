/* SPDX-License-Identifier: MIT */
/*
 * Where the nginx module could say, keep or send on what isn't its business: one client's headers to another, a key's bytes in a
 * header, an error's page under the key of what has failed, what other directives say a second time.
 */
#include "suite.h"

static const char locations[] =
	"location /own/ { set $copy \"$http_range $http_if_none_match $http_x_own\"; shoal ZONE; shoal_key $uri; shoal_fresh 1h;\n"
	"  proxy_set_header X-Copy \"$http_range|$http_if_none_match|$http_x_own\"; proxy_pass http://origin; }\n"
	"location /key/ { shoal ZONE; shoal_key $uri; proxy_pass http://origin; }\n"
	"location /failing/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_intercept_errors on;\n"
	"  error_page 503 /sorry/page; proxy_pass http://origin; }\n"
	"location /hidden/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_intercept_errors on;\n"
	"  error_page 503 =200 /sorry/page; proxy_pass http://origin; }\n"
	"location /sorry/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_pass http://origin; }\n"
	"location /fallback/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; error_page 404 = @app; log_not_found off; }\n"
	"location @app { proxy_pass http://origin; }\n"
	"location /expires/ { expires 1h; shoal ZONE; shoal_key $request_uri; proxy_pass http://origin; }\n"
	"location /passed/ { proxy_pass_header Server; proxy_pass_header Date; shoal ZONE; shoal_key $request_uri;\n"
	"  proxy_pass http://origin; }\n"
	"location /index/ { index a; shoal ZONE; shoal_key $request_uri; shoal_wait 5s; }\n"
	"location = /index/a { shoal ZONE; shoal_key $request_uri; shoal_wait 5s; proxy_pass http://origin; }\n"
	"location /files/ { shoal ZONE; shoal_key $request_uri; }\n";

static const struct setup setup = {.locations = locations, .zone = "size=16m max_loads=1"};

/* How many header lines have this name. */
static unsigned lines_of(const struct response *r, const char *name)
{
	char line[64];
	const char *at = r->head;
	unsigned n = 0;

	snprintf(line, sizeof(line), "\r\n%s:", name);
	for (; (at = strcasestr(at, line)); at += strlen(line))
		n++;
	return n;
}

/* ---- one client's, and another's --------------------------------------------------------------------------- */

/* A variable that was known in the client's request is not, in the load's, if the header isn't. */
static void what_is_not_asked_for_all(void **state)
{
	struct response r = web_do(site.port, "GET", "/own/a", "Range: bytes=0-3\r\nIf-None-Match: \"x\"\r\nX-Own: yes\r\n");
	char *last = origin_last(&site, "/own/a");

	assert_int_equal(r.status, 206);
	assert_non_null(strstr(last, "X-Copy: ||yes\r\n"));
	free(last);
	web_free(&r);
	expect(&site, "/own/a", "HIT", "/own/a", 1);
}

static void a_key_is_no_header(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct response r = web_get(site.port, "/key/a%0d%0aX-Evil:%20yes%7f");

		assert_int_equal(r.status, 200);
		assert_null(web_header(&r, "X-Evil"));
		assert_non_null(strstr(web_header(&r, "X-Status"), " /key/a%0D%0AX-Evil: yes%7F "));
		assert_true(was(&r, i ? "HIT" : "MISS"));
		web_free(&r);
	}
}

/* ---- error_page -------------------------------------------------------------------------------------------- */

static void an_error_has_its_page(void **state)
{
	for (unsigned i = 1; i <= 3; i++) {
		struct response r = web_get(site.port, "/failing/a?status=503");

		assert_int_equal(r.status, 503);
		assert_body(&r, "/sorry/page", i, 64);
		web_free(&r);
	}
	COUNTS("/failing/a", 1);
}

static void an_error_is_one_whatever_its_page_says(void **state)
{
	unsigned n = (unsigned)origin(&site, "count?/sorry/page");

	for (unsigned i = 1; i <= 3; i++) {
		struct response r = web_get(site.port, "/hidden/a?status=503");

		assert_int_equal(r.status, 200);
		assert_body(&r, "/sorry/page", n + i, 64);
		web_free(&r);
	}
	COUNTS("/hidden/a", 1);
}

/* What stands in for what is not there is no failure. */
static void a_fallback_is_no_error(void **state)
{
	for (unsigned i = 1; i <= 3; i++) {
		struct response r = web_get(site.port, "/fallback/a");

		assert_int_equal(r.status, 200);
		assert_body(&r, "/fallback/a", i, 64);
		web_free(&r);
	}
}

/* Where one load is permitted at a time: a request that passes by in two locations, one after the other, needs one. */
static void a_request_is_not_in_its_own_way(void **state)
{
	FILE *f;

	assert_int_equal(mkdir(site_file(&site, "index"), 0755), 0);
	f = fopen(site_file(&site, "index/a"), "w");
	assert_non_null(f);
	fclose(f);
	for (unsigned i = 1; i <= 3; i++) {
		struct response r = web_get(site.port, "/index/?h=Set-Cookie:a");

		assert_int_equal(r.status, 200);
		assert_body(&r, "/index/a", i, 64);
		assert_true(was(&r, i == 1 ? "MISS" : "PASS"));
		web_free(&r);
	}
}

/* ---- other directives -------------------------------------------------------------------------------------- */

static void expires_is_said_once(void **state)
{
	const char *targets[] = {"/expires/a?h=Cache-Control:max-age%3D1000", "/expires/b?h=Cache-Control:max-age%3D1000&h=Set-Cookie:a"};

	for (size_t i = 0; i < COUNT(targets); i++)
		for (int turn = 0; turn < 2; turn++) {
			struct response r = web_get(site.port, targets[i]);

			assert_int_equal(lines_of(&r, "Cache-Control"), 1);
			assert_string_equal(web_header(&r, "Cache-Control"), "max-age=3600");
			web_free(&r);
		}
}

static void server_and_date_are_said_once(void **state)
{
	const char *target = "/passed/a?h=Server:theirs&h=Date:Wed,+01+Jan+2020+00:00:00+GMT&h=Set-Cookie:a";
	struct response r = web_get(site.port, target);

	assert_true(was(&r, "MISS"));
	assert_int_equal(lines_of(&r, "Server"), 1);
	assert_string_equal(web_header(&r, "Server"), "theirs");
	assert_int_equal(lines_of(&r, "Date"), 1);
	web_free(&r);
}

static void write_file(const char *name, size_t size)
{
	FILE *f = fopen(site_file(&site, name), "w");

	assert_non_null(f);
	for (size_t i = 0; i < size; i++)
		fputc('a' + (int)(i % 26), f);
	assert_int_equal(fclose(f), 0);
}

/* A file that is too big is relayed in pieces. */
static void parts_of_a_relay(void **state)
{
	struct response r;

	assert_int_equal(mkdir(site_file(&site, "files"), 0755), 0);
	write_file("files/one", 300000);
	write_file("files/several", 300000);
	r = web_do(site.port, "GET", "/files/one", "Range: bytes=26-28\r\n");
	assert_int_equal(r.status, 206);
	assert_string_equal(r.body, "abc");
	web_free(&r);
	r = web_do(site.port, "GET", "/files/several", "Range: bytes=0-1,290000-290001\r\n");
	assert_true(was(&r, "MISS"));
	assert_int_equal(r.status, 200); /* as of an origin that knows no parts */
	assert_int_equal(r.size, 300000);
	web_free(&r);
}

/* The shorter life of two. */
static void what_is_said_twice(void **state)
{
	for (unsigned i = 1; i <= 2; i++) {
		struct response r = web_get(site.port, "/twice?h=Cache-Control:max-age%3D0,max-age%3D1000&h=Cache-Control:max-age%3D100");

		assert_body(&r, "/twice", i, 64);
		web_free(&r);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(what_is_not_asked_for_all),
		CASE(a_key_is_no_header),
		CASE(an_error_has_its_page),
		CASE(an_error_is_one_whatever_its_page_says),
		CASE(a_fallback_is_no_error),
		CASE(a_request_is_not_in_its_own_way),
		CASE(expires_is_said_once),
		CASE(server_and_date_are_said_once),
		CASE(parts_of_a_relay),
		CASE(what_is_said_twice),
	};

	return RUN("traps", tests);
}
