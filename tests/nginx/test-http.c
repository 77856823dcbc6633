/* SPDX-License-Identifier: MIT */
/*
 * The nginx module as a cache of HTTP: what is stored and for how long, what is said of it, and that a client gets what
 * it would have got without it. One request at a time; test-share.c has many.
 */
#include "suite.h"

static const char locations[] =
	"location /stale/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  shoal_retry 1h; proxy_pass http://origin; }\n"
	"location /error/ { shoal ZONE keyspace=error; shoal_key $request_uri; shoal_stale_error 1h; shoal_retry 1h;\n"
	"  proxy_pass http://origin; }\n"
	"location /all/ { shoal ZONE keyspace=all version=3; shoal_key $request_uri; shoal_purge all $purge;\n"
	"  proxy_pass http://origin; }\n"
	"location /valid/ { shoal ZONE; shoal_key $request_uri; shoal_valid 404 503 1h; shoal_valid 410 0; "
	"shoal_fresh 1h;\n"
	"  proxy_pass http://origin; }\n"
	"location /choosy/ { shoal ZONE; shoal_key $request_uri; shoal_bypass $arg_bypass; "
	"shoal_no_store $arg_no_store;\n"
	"  shoal_methods GET; proxy_pass http://origin; }\n"
	"location /zip/ { gzip on; gzip_vary on; shoal ZONE; shoal_key $request_uri; proxy_pass http://origin; }\n"
	"location /off/ { shoal off; proxy_pass http://origin; }\n"
	"location /files/ { shoal ZONE; shoal_key $request_uri; }\n"
	"location /page/ { shoal ZONE; shoal_key $request_uri; proxy_intercept_errors on; error_page 503 /page.html;\n"
	"  proxy_pass http://origin; }\n"
	"location ~ ^/captured/(?<what>[a-z]+) { set $copy $what; shoal ZONE; shoal_key $request_uri;\n"
	"  proxy_set_header X-What \"$1 $what $copy $scheme $host\"; proxy_pass http://origin; }\n"
	"location = /page.html { return 503 'sorry'; }\n";

static const struct setup setup = {.locations = locations};

/* ---- the module -------------------------------------------------------------------------------------------- */

/* What nginx compares when it loads a module: where it stands in each file. */
static char *signature(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *found = NULL;
	size_t n;
	static char bytes[8 << 20];

	assert_non_null(f);
	n = fread(bytes, 1, sizeof(bytes), f);
	fclose(f);
	for (size_t i = 0; i + 40 < n && !found; i++)
		if (!memcmp(bytes + i, "8,4,8,", 6) && strspn(bytes + i, "014,8") > 30)
			found = strdup(bytes + i);
	assert_non_null(found);
	return found;
}

static void the_module_is_of_this_nginx(void **state)
{
	char *ours = signature(NGINX_MODULE), *theirs = signature(NGINX);

	assert_string_equal(ours, theirs);
	free(ours);
	free(theirs);
}

/* ---- hits -------------------------------------------------------------------------------------------------- */

static void a_miss_then_hits(void **state)
{
	struct response r = web_get(site.port, "/hit");

	assert_true(was(&r, "MISS"));
	assert_body(&r, "/hit", 1, 64);
	assert_string_equal(web_header(&r, "Cache-Status"), "shoal; fwd=uri-miss; stored");
	assert_non_null(web_header(&r, "Age"));
	assert_string_equal(web_header(&r, "Content-Type"), "text/plain");
	web_free(&r);
	for (int i = 0; i < 20; i++)
		expect(&site, "/hit", "HIT", "/hit", 1);
	r = web_get(site.port, "/hit");
	assert_memory_equal(web_header(&r, "Cache-Status"), "shoal; hit; ttl=3", 17);
	assert_memory_equal(web_header(&r, "X-Status"), "HIT /hit 0 0.0", 14);
	web_free(&r);
	COUNTS("/hit", 1);
}

static void headers_are_kept(void **state)
{
	const char *target =
		"/kept?h=X-One:1&h=Link:%3Ca%3E&h=Link:%3Cb%3E&h=Cache-Control:max-age%3D1000&h=Content-Type:a/b;"
		"charset%3Dutf-8&h=Location:http://elsewhere/&h=Age:7&h=Last-Modified:Wed,+01+Jan+2020+00:00:00+GMT";

	for (int i = 0; i < 2; i++) {
		struct response r = web_get(site.port, target);

		assert_string_equal(web_header(&r, "X-One"), "1");
		assert_string_equal(web_header(&r, "Content-Type"), "a/b;charset=utf-8");
		assert_string_equal(web_header(&r, "Location"), "http://elsewhere/");
		assert_string_equal(web_header(&r, "Cache-Control"), "max-age=1000");
		assert_string_equal(web_header(&r, "Last-Modified"), "Wed, 01 Jan 2020 00:00:00 GMT");
		assert_true(atoi(web_header(&r, "Age")) >= 7);
		assert_non_null(strstr(r.head, "Link: <a>"));
		assert_non_null(strstr(r.head, "Link: <b>"));
		web_free(&r);
	}
	COUNTS("/kept", 1);
}

static void a_request_reaches_the_origin_as_it_is(void **state)
{
	struct response r = web_do(site.port, "GET", "/captured/abc",
	                           "X-Own: yes\r\nRange: bytes=0-3\r\nCookie: a=b\r\n"
	                           "Accept-Encoding: gzip\r\nIf-None-Match: \"x\"\r\n");
	char *last = origin_last(&site, "/captured/abc");

	assert_int_equal(r.status, 206);
	assert_non_null(strstr(last, "GET /captured/abc HTTP/1.1\r\n"));
	assert_non_null(strstr(last, "X-Own: yes\r\n"));
	assert_non_null(strstr(last, "Cookie: a=b\r\n"));
	assert_non_null(strstr(last, "X-What: abc abc abc http shop\r\n"));
	assert_null(strstr(last, "Range"));
	assert_null(strstr(last, "Accept-Encoding"));
	assert_null(strstr(last, "If-None-Match"));
	free(last);
	web_free(&r);
}

static void a_file_is_cached(void **state)
{
	char *folder = strdup(site_file(&site, "files"));
	struct response r;
	FILE *f;

	assert_int_equal(mkdir(folder, 0755), 0);
	f = fopen(site_file(&site, "files/a"), "w");
	assert_non_null(f);
	for (int i = 0; i < 5000; i++)
		fprintf(f, "%08d", i);
	fclose(f);
	for (int i = 0; i < 2; i++) {
		r = web_get(site.port, "/files/a");
		assert_int_equal(r.status, 200);
		assert_true(was(&r, i ? "HIT" : "MISS"));
		assert_int_equal(r.size, 40000);
		assert_memory_equal(r.body + 39992, "00004999", 8);
		assert_non_null(web_header(&r, "ETag"));
		web_free(&r);
		unlink(site_file(&site, "files/a"));
	}
	r = web_get(site.port, "/files/none");
	assert_int_equal(r.status, 404);
	web_free(&r);
	free(folder);
}

/* ---- parts and forms --------------------------------------------------------------------------------------- */

static void head_and_range(void **state)
{
	struct response r = web_do(site.port, "HEAD", "/part?size=5000", NULL);

	assert_int_equal(r.status, 200);
	assert_string_equal(web_header(&r, "Content-Length"), "5000");
	web_free(&r);
	r = web_do(site.port, "GET", "/part?size=5000", "Range: bytes=9-17\r\n");
	assert_int_equal(r.status, 206);
	assert_string_equal(web_header(&r, "Content-Range"), "bytes 9-17/5000");
	assert_int_equal(r.size, 9);
	assert_memory_equal(r.body, &"/part 1|/part 1|/part 1|"[9], 9);
	web_free(&r);
	r = web_do(site.port, "GET", "/part?size=5000", "Range: bytes=0-1,4990-4999\r\n");
	assert_int_equal(r.status, 206);
	assert_non_null(strstr(web_header(&r, "Content-Type"), "multipart/byteranges"));
	web_free(&r);
	r = web_do(site.port, "GET", "/part?size=5000", "Range: bytes=5000-\r\n");
	assert_int_equal(r.status, 416);
	web_free(&r);
	r = web_get(site.port, "/part?size=5000");
	assert_body(&r, "/part", 1, 5000);
	web_free(&r);
	COUNTS("/part", 1);
}

static void gzip_is_of_each_client(void **state)
{
	struct response r = web_do(site.port, "GET", "/zip/a?size=5000", "Accept-Encoding: gzip\r\n");

	assert_string_equal(web_header(&r, "Content-Encoding"), "gzip");
	assert_true(r.size < 1000);
	web_free(&r);
	r = web_get(site.port, "/zip/a?size=5000");
	assert_null(web_header(&r, "Content-Encoding"));
	assert_body(&r, "/zip/a", 1, 5000);
	web_free(&r);
	r = web_do(site.port, "GET", "/zip/a?size=5000", "Accept-Encoding: gzip\r\n");
	assert_string_equal(web_header(&r, "Content-Encoding"), "gzip");
	assert_string_equal(web_header(&r, "Vary"), "Accept-Encoding");
	assert_true(was(&r, "HIT"));
	web_free(&r);
	COUNTS("/zip/a", 1);
}

static void of_any_length(void **state)
{
	const size_t sizes[] = {0, 1, 4096, 32767, 32768, 32769, 60000};

	for (size_t i = 0; i < COUNT(sizes); i++)
		for (int chunked = 0; chunked < 2; chunked++)
			for (int turn = 0; turn < 2; turn++) {
				char path[64], target[128];
				struct response r;

				snprintf(path, sizeof(path), "/length/%zu/%d", sizes[i], chunked);
				snprintf(target, sizeof(target), "%s?size=%zu%s", path, sizes[i],
				         chunked ? "&chunked" : "");
				r = web_get(site.port, target);
				assert_body(&r, path, 1, sizes[i]);
				assert_true(was(&r, turn ? "HIT" : "MISS"));
				if (turn)
					assert_int_equal(atol(web_header(&r, "Content-Length")), sizes[i]);
				web_free(&r);
			}
}

/* 16 MiB have entries of 64 KiB. One client is slow to read what isn't stored. */
static void what_is_too_big_passes(void **state)
{
	const char *kinds[] = {"", "&chunked"};

	for (unsigned i = 0; i < 4; i++) {
		char path[64], target[128];
		struct response r;

		snprintf(path, sizeof(path), "/big%u", i / 2);
		snprintf(target, sizeof(target), "%s?size=3000000%s", path, kinds[i / 2]);
		r = web_get(site.port, target);
		assert_body(&r, path, i % 2 + 1, 3000000);
		web_free(&r);
		COUNTS(path, i % 2 + 1);
	}
}

static void http_2(void **state)
{
	char command[512], *text;

	snprintf(command, sizeof(command),
	         "exec curl -s -m 60 --http2-prior-knowledge -w '%%{http_version}' -H 'Host: shop' "
	         "'http://127.0.0.1:%u/two?size=20000' >'%s' 2>&1",
	         site.port_2, site_file(&site, "two"));
	if (system("exec curl --version >/dev/null 2>&1")) {
		skipped("no curl");
		return;
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(system(command), 0);
		text = read_whole(site_file(&site, "two"));
		assert_int_equal(strlen(text), 20001);
		assert_string_equal(text + 20000, "2");
		assert_memory_equal(text, "/two 1|/two 1|", 14);
		free(text);
	}
	COUNTS("/two", 1);
}

/* ---- what is stored ---------------------------------------------------------------------------------------- */

struct rule {
	const char *query, *more;
	int status;
};

static void asked_twice(const char *folder, unsigned i, const struct rule *rule, unsigned loads)
{
	char path[64], target[512];

	snprintf(path, sizeof(path), "%s%u", folder, i);
	snprintf(target, sizeof(target), "%s?%s", path, rule->query);
	for (unsigned turn = 1; turn <= 2; turn++) {
		struct response r = web_do(site.port, "GET", target, rule->more);

		assert_int_equal(r.status, rule->status ? rule->status : 200);
		if (r.status != 204 && r.status != 304)
			assert_body(&r, path, loads == 2 ? turn : 1, 64);
		web_free(&r);
	}
	if (origin(&site, "count?%s", path) != loads)
		fail_msg("%s: %lu loads", target, origin(&site, "count?%s", path));
}

static void what_is_not_stored(void **state)
{
	const struct rule rules[] = {
		{.query = "h=Set-Cookie:a%3D1"},
		{.query = "h=Cache-Control:private"},
		{.query = "h=cache-control:max-age%3D10,+No-Store"},
		{.query = "h=Cache-Control:no-cache%3D%22x,y%22"},
		{.query = "h=Cache-Control:max-age%3D0"},
		{.query = "h=Cache-Control:max-age%3D10,+s-maxage%3D0"},
		{.query = "h=Cache-Control:max-age%3Dsoon"},
		/* a="\", b=", no-store: no string is open there */
		{.query = "h=Cache-Control:a%3D%22%5C%22,b%3D%22,no-store"},
		{.query = "h=Cache-Control:a%3D%22b,no-store"},
		{.query = "h=Cache-Control:max-age%3D10&h=Age:10"},
		{.query = "h=Expires:0"},
		{.query = "h=Expires:Wed,+01+Jan+2020+00:00:00+GMT"},
		{.query = "h=X-Accel-Expires:0&h=Cache-Control:max-age%3D10"},
		{.query = "h=X-Accel-Expires:@1"},
		{.query = "h=Vary:Cookie"},
		{.query = "h=Vary:*"},
		{.query = "h=Vary:Accept-Encoding,+Origin"},
		{.query = "h=Vary:Accept-Encoding&h=Content-Encoding:br"},
		{.query = "", .more = "Authorization: Basic eDp5\r\n"},
		{.query = "h=Cache-Control:max-age%3D10", .more = "Authorization: Basic eDp5\r\n"},
		{.query = "status=404", .status = 404},
		{.query = "status=302", .status = 302},
		{.query = "status=403", .status = 403},
		{.query = "status=204", .status = 204},
		{.query = "status=304", .status = 304},
	};

	for (unsigned i = 0; i < COUNT(rules); i++)
		asked_twice("/not-stored/", i, &rules[i], 2);
}

static void what_is_stored(void **state)
{
	const struct rule rules[] = {
		{.query = ""},
		{.query = "h=Cache-Control:max-age%3D1000"},
		{.query = "h=Cache-Control:max-age%3D0,+s-maxage%3D1000"},
		{.query = "h=Cache-Control:max-age%3D99999999999999999999"},
		{.query = "h=Cache-Control:max-age%3D1000&h=Age:900"},
		{.query = "h=Cache-Control:a%3D%22%5C%22,no-store%22,max-age%3D1000"},
		{.query = "h=Expires:Fri,+01+Jan+2100+00:00:00+GMT"},
		{.query = "h=Expires:0&h=Cache-Control:max-age%3D1000"},
		{.query = "h=X-Accel-Expires:1000&h=Cache-Control:no-cache"},
		{.query = "h=X-Accel-Expires:@4102444800"},
		{.query = "h=Vary:Accept-Encoding"},
		{.query = "h=Content-Encoding:br"},
		{.query = "h=Cache-Control:public,max-age%3D1000", .more = "Authorization: Basic eDp5\r\n"},
		{.query = "h=Cache-Control:s-maxage%3D1000", .more = "Authorization: Basic eDp5\r\n"},
		{.query = "h=Cache-Control:max-age%3D1000,must-revalidate", .more = "Authorization: Basic eDp5\r\n"},
		{.query = "status=301", .status = 301},
		{.query = "status=308", .status = 308},
		{.query = "status=404&h=Cache-Control:max-age%3D1000", .status = 404},
		{.query = "status=302&h=Cache-Control:max-age%3D1000", .status = 302},
		{.query = "status=204&h=Cache-Control:max-age%3D1000", .status = 204},
		{.query = "", .more = "Cache-Control: no-cache\r\nPragma: no-cache\r\n"},
	};

	for (unsigned i = 0; i < COUNT(rules); i++)
		asked_twice("/stored/", i, &rules[i], 1);
	asked_twice("/valid/", 0, &(struct rule){.query = "status=404", .status = 404}, 1);
	asked_twice("/valid/", 1, &(struct rule){.query = "status=404&h=Cache-Control:private", .status = 404}, 2);
	asked_twice("/valid/", 2, &(struct rule){.query = "status=410", .status = 410}, 2);
	asked_twice("/valid/", 3, &(struct rule){.query = "status=503", .status = 503}, 1);
	asked_twice("/valid/", 4, &(struct rule){.query = "status=503&h=Cache-Control:no-store", .status = 503}, 2);
	asked_twice("/off/", 0, &(struct rule){.query = ""}, 2);
}

static void choosy(void **state)
{
	struct response r;

	expect(&site, "/choosy/a", "MISS", "/choosy/a", 1);
	expect(&site, "/choosy/a?bypass=1", "BYPASS", "/choosy/a", 2);
	expect(&site, "/choosy/a?bypass=0", "MISS", "/choosy/a", 3);
	expect(&site, "/choosy/a", "HIT", "/choosy/a", 1);
	expect(&site, "/choosy/b?no_store=1", "MISS", "/choosy/b", 1);
	expect(&site, "/choosy/b?no_store=1", "PASS", "/choosy/b", 2);
	r = web_do(site.port, "HEAD", "/choosy/a", NULL);
	assert_true(was(&r, "PASS"));
	web_free(&r);
	COUNTS("/choosy/a", 4);
}

static void post_is_untouched(void **state)
{
	struct web w = web_connect(site.port);
	struct response r;
	char *last;

	for (unsigned i = 1; i <= 2; i++) {
		web_ask(&w, "POST", "/post", "Content-Length: 5\r\nContent-Type: x/y\r\n");
		web_send(&w, "hello", 5);
		r = web_read(&w);
		assert_true(was(&r, "PASS"));
		assert_string_equal(web_header(&r, "Cache-Status"), "shoal; fwd=method");
		assert_body(&r, "/post", i, 64);
		web_free(&r);
	}
	last = origin_last(&site, "/post");
	assert_non_null(strstr(last, "POST /post HTTP/1.1"));
	assert_non_null(strstr(last, "\r\n\r\nhello"));
	free(last);
	web_ask(&w, "GET", "/post", "Content-Length: 5\r\n");
	web_send(&w, "hello", 5);
	r = web_read(&w);
	assert_true(was(&r, "PASS"));
	assert_body(&r, "/post", 3, 64);
	web_free(&r);
	web_close(&w);
}

/* ---- conditions -------------------------------------------------------------------------------------------- */

static void not_modified_to_the_client(void **state)
{
	const char *conditions[] = {"If-None-Match: \"a\"\r\n", "If-None-Match: \"b\", \"a\"\r\n"};
	struct response r;

	expect(&site, "/condition?etag=a", "MISS", "/condition", 1);
	for (size_t i = 0; i < COUNT(conditions); i++) {
		r = web_do(site.port, "GET", "/condition?etag=a", conditions[i]);
		assert_int_equal(r.status, 304);
		assert_string_equal(web_header(&r, "ETag"), "\"a\"");
		web_free(&r);
	}
	r = web_do(site.port, "GET", "/condition?etag=a", "If-None-Match: \"b\"\r\n");
	assert_body(&r, "/condition", 1, 64);
	web_free(&r);
	/* of one that isn't there, either */
	r = web_do(site.port, "GET", "/condition2?etag=a", conditions[0]);
	assert_int_equal(r.status, 304);
	web_free(&r);
	expect(&site, "/condition2?etag=a", "HIT", "/condition2", 1);
	COUNTS("/condition", 1);
}

static void not_modified_by_the_origin(void **state)
{
	char *last;

	expect(&site, "/stale/condition?etag=a", "MISS", "/stale/condition", 1);
	purge(&site, "/stale/condition?etag=a", 204);
	expect(&site, "/stale/condition?etag=a", "STALE", "/stale/condition", 1);
	await_status(&site, "/stale/condition?etag=a", "HIT");
	expect(&site, "/stale/condition?etag=a", "HIT", "/stale/condition", 1);
	COUNTS("/stale/condition", 2);
	last = origin_last(&site, "/stale/condition");
	assert_non_null(strstr(last, "If-None-Match: \"a\"\r\n"));
	free(last);
}

/* ---- errors ------------------------------------------------------------------------------------------------ */

static void an_error_is_shared_for_a_while(void **state)
{
	struct response r = web_get(site.port, "/fails?status=503");

	assert_body(&r, "/fails", 1, 64);
	assert_int_equal(r.status, 503);
	web_free(&r);
	for (int i = 0; i < 5; i++) {
		r = web_get(site.port, "/fails?status=503");
		assert_int_equal(r.status, 503);
		assert_true(was(&r, "ERROR"));
		web_free(&r);
	}
	COUNTS("/fails", 1);
}

static void half_a_body_is_an_error(void **state)
{
	const char *targets[] = {"/half1?truncate", "/half2?truncate&chunked", "/half3?truncate&size=2000000"};

	for (size_t i = 0; i < COUNT(targets); i++) {
		struct response r = web_get(site.port, targets[i]);

		assert_int_equal(r.status, i < 2 ? 502 : 0); /* the last is relayed as it comes */
		web_free(&r);
	}
	COUNTS("/half1", 1);
	COUNTS("/half3", 1);
}

static void an_error_page_is_not_stored(void **state)
{
	for (int i = 0; i < 3; i++) {
		struct response r = web_get(site.port, "/page/a?status=503");

		assert_int_equal(r.status, 503);
		assert_string_equal(r.body, "sorry");
		web_free(&r);
	}
	COUNTS("/page/a", 1);
}

static void down_serves_stale_then_the_error(void **state)
{
	struct response r;
	uint64_t began = 0;

	expect(&site, "/stale/down", "MISS", "/stale/down", 1);
	purge(&site, "/stale/down", 204);
	origin(&site, "down");
	expect(&site, "/stale/down", "STALE", "/stale/down", 1);
	while (origin(&site, "count?/stale/down") < 2)
		site_turn(&began);
	for (int i = 0; i < 5; i++) {
		r = web_get(site.port, "/stale/down");
		assert_true(was(&r, "STALE"));
		assert_body(&r, "/stale/down", 1, 64);
		assert_string_equal(web_header(&r, "Cache-Status"), "shoal; hit; ttl=-1"); /* whatever it had left */
		web_free(&r);
	}
	purge(&site, "/stale/down", 204); /* repeated it prolongs nothing, and a failure is remembered */
	for (int i = 0; i < 3; i++) {
		r = web_get(site.port, "/gone");
		assert_int_equal(r.status, 502);
		assert_true(was(&r, i ? "ERROR" : "MISS"));
		web_free(&r);
	}
	assert_true(origin(&site, "count?/gone") >= 1);
	origin(&site, "up");
}

/* Of the one key: till it is not fresh any more. */
static int is_over(const struct shoal_entry *entry, void *arg)
{
	return entry->key.size == strlen(arg) && !memcmp(entry->key.data, arg, entry->key.size)
	               ? entry->fresh_left_ms < 0 ? 1 : 2 : 0;
}

static void stale_if_error(void **state)
{
	char target[] = "/error/a?h=Cache-Control:max-age%3D1,stale-while-revalidate%3D0";
	char never[] = "/error/b?h=Cache-Control:max-age%3D1,must-revalidate";
	struct response r;
	uint64_t began = 0;

	expect(&site, target, "MISS", "/error/a", 1);
	expect(&site, never, "MISS", "/error/b", 1);
	while (shoal_scan(site.cache, "error", is_over, target) == 2 ||
	       shoal_scan(site.cache, "error", is_over, never) == 2)
		site_turn(&began);
	origin(&site, "down");
	for (int i = 0; i < 3; i++) {
		r = web_get(site.port, target);
		assert_true(was(&r, "STALE"));
		assert_body(&r, "/error/a", 1, 64);
		assert_string_equal(i ? "shoal; hit; ttl=-" : "shoal; fwd=stale",
		                    strndupa(web_header(&r, "Cache-Status"), i ? 17 : 99));
		web_free(&r);
		r = web_get(site.port, never);
		assert_int_equal(r.status, 502);
		web_free(&r);
	}
	origin(&site, "up");
}

/* ---- purge, and what is told ------------------------------------------------------------------------------- */

static void purges(void **state)
{
	purge(&site, "/purged", 404);
	expect(&site, "/purged", "MISS", "/purged", 1);
	purge(&site, "/purged", 204);
	expect(&site, "/purged", "MISS", "/purged", 2);
	expect(&site, "/all/a", "MISS", "/all/a", 1);
	expect(&site, "/all/b", "MISS", "/all/b", 1);
	purge(&site, "/all/", 204);
	expect(&site, "/all/a", "MISS", "/all/a", 2);
	expect(&site, "/all/b", "MISS", "/all/b", 2);
	expect(&site, "/purged", "HIT", "/purged", 2);
}

static void metrics_and_status(void **state)
{
	struct response r = web_get(site.port, "/:metrics");
	char label[80];

	assert_int_equal(r.status, 200);
	assert_memory_equal(web_header(&r, "Content-Type"), "text/plain; version=0.0.4", 25);
	snprintf(label, sizeof(label), "cache=\"%s\"", site.zone);
	assert_non_null(strstr(r.body, label));
	assert_non_null(strstr(r.body, "# TYPE shoal_"));
	web_free(&r);
	r = web_get(site.port, "/:status");
	assert_string_equal(web_header(&r, "Content-Type"), "application/json");
	assert_non_null(strstr(r.body, "\"keyspaces\":[{\"name\":\"http\""));
	assert_non_null(strstr(r.body, "{\"name\":\"all\",\"version\":3,"));
	web_free(&r);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_module_is_of_this_nginx),
		CASE(a_miss_then_hits),
		CASE(headers_are_kept),
		CASE(a_request_reaches_the_origin_as_it_is),
		CASE(a_file_is_cached),
		CASE(head_and_range),
		CASE(gzip_is_of_each_client),
		CASE(of_any_length),
		CASE(what_is_too_big_passes),
		CASE(http_2),
		CASE(what_is_not_stored),
		CASE(what_is_stored),
		CASE(choosy),
		CASE(post_is_untouched),
		CASE(not_modified_to_the_client),
		CASE(not_modified_by_the_origin),
		CASE(an_error_is_shared_for_a_while),
		CASE(half_a_body_is_an_error),
		CASE(an_error_page_is_not_stored),
		CASE(down_serves_stale_then_the_error),
		CASE(stale_if_error),
		CASE(purges),
		CASE(metrics_and_status),
	};

	return RUN("http", tests);
}
