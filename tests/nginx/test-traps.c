/* SPDX-License-Identifier: MIT */
/*
 * Where the nginx module could say, keep or send on what isn't its business: one client's headers to another, a key's
 * bytes in a header, an error's page under the key of what has failed, what other directives say a second time.
 */
#include "suite.h"

static const char locations[] =
	"location /own/ { set $copy \"$http_range $http_if_none_match $http_x_own\"; shoal ZONE; shoal_key $uri; "
	"shoal_fresh 1h;\n"
	"  proxy_set_header X-Copy \"$http_range|$http_if_none_match|$http_x_own\"; proxy_pass http://origin; }\n"
	"location /key/ { shoal ZONE; shoal_key $uri; proxy_pass http://origin; }\n"
	"location /failing/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_intercept_errors on;\n"
	"  shoal_bypass $http_x_bypass; error_page 503 /sorry/page; proxy_pass http://origin; }\n"
	"location /hidden/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_intercept_errors on;\n"
	"  error_page 503 =200 /sorry/page; proxy_pass http://origin; }\n"
	"location /sorry/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_pass http://origin; }\n"
	"location /fallback/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; error_page 404 = @app; "
	"log_not_found off; }\n"
	"location @app { proxy_pass http://origin; }\n"
	"location /expires/ { expires 1h; shoal ZONE; shoal_key $request_uri; proxy_pass http://origin; }\n"
	"location /passed/ { proxy_pass_header Server; proxy_pass_header Date; shoal ZONE; shoal_key $request_uri;\n"
	"  proxy_pass http://origin; }\n"
	"location /index/ { index a; shoal ZONE; shoal_key $request_uri; shoal_wait 5s; }\n"
	"location = /index/a { shoal ZONE; shoal_key $request_uri; shoal_wait 5s; proxy_pass http://origin; }\n"
	"location /files/ { shoal ZONE; shoal_key $request_uri; }\n"
	"location /sliced/ { slice 1k; proxy_set_header Range $slice_range; proxy_hide_header X-Status; shoal ZONE; "
	"shoal_key $request_uri;\n"
	"  proxy_pass http://127.0.0.1:$server_port/plain/$arg_file; }\n"
	"location /plain/ { alias FOLDER/; }\n"
	"location /inherits/ { shoal ZONE; shoal_key $request_uri; location /inherits/status { shoal_status; }\n"
	"  location /inherits/metrics { shoal_metrics; } }\n"
	"location /recursive/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; proxy_intercept_errors on;\n"
	"  shoal_bypass $http_x_bypass; recursive_error_pages on; error_page 503 /sorry/page; "
	"error_page 502 =200 /sorry/page; proxy_pass http://origin; }\n"
	"location /remembered/ { shoal ZONE; shoal_key $request_uri; shoal_retry 1h; recursive_error_pages on;\n"
	"  error_page 502 = /sorry/page; proxy_pass http://origin; }\n";

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
	struct response r =
		web_do(site.port, "GET", "/own/a", "Range: bytes=0-3\r\nIf-None-Match: \"x\"\r\nX-Own: yes\r\n");
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

/* Nor if pages of pages are allowed, where nginx doesn't say that it is one. */
static void an_error_has_its_page_recursively(void **state)
{
	const int statuses[] = {503, 502};
	char target[64];

	for (unsigned s = 0; s < COUNT(statuses); s++) {
		unsigned n = (unsigned)origin(&site, "count?/sorry/page");

		snprintf(target, sizeof(target), "/recursive/%u?status=%d", s, statuses[s]);
		for (unsigned i = 1; i <= 3; i++) {
			struct response r = web_get(site.port, target);

			assert_int_equal(r.status, s ? 200 : 503);
			assert_body(&r, "/sorry/page", n + i, 64);
			web_free(&r);
		}
		assert_int_equal(origin(&site, "count?/recursive/%u", s), 1);
	}
}

/* Nor does it become what is stored where a request has gone past the cache, and its page has another location. */
static void an_error_page_is_not_stored(void **state)
{
	const char *paths[] = {"/failing/past", "/recursive/past"};
	char target[64];

	for (unsigned i = 0; i < COUNT(paths); i++) {
		snprintf(target, sizeof(target), "%s?status=503", paths[i]);
		for (int turn = 0; turn < 2; turn++) {
			struct response r = web_do(site.port, "GET", target, turn ? NULL : "X-Bypass: 1\r\n");

			assert_int_equal(r.status, 503);
			web_free(&r);
		}
		assert_int_equal(origin(&site, "count?%s", paths[i]), 2);
	}
}

/* The first has the origin's own, the others an error that is remembered, and the page for that. */
static void a_remembered_error_has_its_page(void **state)
{
	unsigned n = (unsigned)origin(&site, "count?/sorry/page");

	for (unsigned i = 0; i < 3; i++) {
		struct response r = web_get(site.port, "/remembered/a?status=502");

		assert_int_equal(r.status, i ? 200 : 502);
		assert_body(&r, i ? "/sorry/page" : "/remembered/a", i ? n + i : 1, 64);
		web_free(&r);
	}
	COUNTS("/remembered/a", 1);
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
	const char *targets[] = {"/expires/a?h=Cache-Control:max-age%3D1000",
	                         "/expires/b?h=Cache-Control:max-age%3D1000&h=Set-Cookie:a"};

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

/* A load has its slices by subrequests of its own: all are in the response, whether it is stored or
 * too big for that. */
static void slices_are_one_response(void **state)
{
	const size_t sizes[] = {500, 1024, 10000, 200000};

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		char target[64];

		snprintf(target, sizeof(target), "slices-%u", i);
		write_file(target, sizes[i]);
		snprintf(target, sizeof(target), "/sliced/%u?file=slices-%u", i, i);
		for (int turn = 0; turn < 2; turn++) {
			struct response r = web_get(site.port, target);

			assert_int_equal(r.status, 200);
			assert_int_equal(r.size, sizes[i]);
			for (size_t at = 0; at < r.size; at++)
				assert_int_equal(r.body[at], 'a' + (int)(at % 26));
			assert_true(was(&r, !turn ? "MISS" : i == 3 ? "PASS" : "HIT"));
			web_free(&r);
		}
	}
}

/* Our own pages are of the moment, in a location that inherits a zone, too. */
static void our_pages_are_not_stored(void **state)
{
	const char *targets[] = {"/inherits/status", "/inherits/metrics"};

	for (unsigned i = 0; i < COUNT(targets); i++)
		for (int turn = 0; turn < 2; turn++) {
			struct response r = web_get(site.port, targets[i]);

			assert_int_equal(r.status, 200);
			assert_null(web_header(&r, "Cache-Status"));
			web_free(&r);
		}
}

/* An answer of HTTP/0.9 has no status that could be told or stored. */
static void without_a_status_it_is_a_failure(void **state)
{
	for (int turn = 0; turn < 2; turn++) {
		struct response r = web_get(site.port, "/key/bare?bare");

		assert_int_equal(r.status, 502);
		assert_true(was(&r, "ERROR"));
		web_free(&r);
	}
}

/* The shorter life of two. */
static void what_is_said_twice(void **state)
{
	for (unsigned i = 1; i <= 2; i++) {
		struct response r = web_get(site.port, "/twice?h=Cache-Control:max-age%3D0,max-age%3D1000"
		                                       "&h=Cache-Control:max-age%3D100");

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
		CASE(an_error_has_its_page_recursively),
		CASE(an_error_page_is_not_stored),
		CASE(a_remembered_error_has_its_page),
		CASE(a_fallback_is_no_error),
		CASE(a_request_is_not_in_its_own_way),
		CASE(expires_is_said_once),
		CASE(server_and_date_are_said_once),
		CASE(parts_of_a_relay),
		CASE(slices_are_one_response),
		CASE(our_pages_are_not_stored),
		CASE(without_a_status_it_is_a_failure),
		CASE(what_is_said_twice),
	};

	return RUN("traps", tests);
}
