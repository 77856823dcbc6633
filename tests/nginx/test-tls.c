/* SPDX-License-Identifier: MIT */
/*
 * The nginx module behind TLS, by HTTP/1.1 and HTTP/2, and in front of an origin that is asked by https. What is stored
 * and shared is the same; what differs is how it is sent (bytes of the segment are encrypted on their way), and what a
 * fill, which has no client, tells of its connection.
 */
#include "tls.h"

#define BIG 900000

static const char locations[] =
	"location /stale/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  proxy_pass http://origin; }\n"
	"location /zip/ { gzip on; shoal ZONE; shoal_key $request_uri; proxy_pass http://origin; }\n"
	"location /https/ { shoal ZONE; shoal_key $request_uri; shoal_fresh 1h; proxy_pass https://SECURE; }\n"
	"location /https/error/ { shoal ZONE; shoal_key $request_uri; shoal_fresh 1h; shoal_retry 1h; "
	"proxy_pass https://SECURE; }\n"
	"location /https/stale/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  shoal_retry 1h; proxy_pass https://SECURE; }\n"
	"location /scheme/ { shoal ZONE; proxy_set_header X-Scheme \"$scheme $https $server_port\"; "
	"proxy_pass http://origin; }\n"
	"location /told/ { shoal ZONE; shoal_key $request_uri; proxy_set_header X-Told \"$ssl_protocol|$ssl_cipher|"
	"$ssl_ciphers|\n"
	"$ssl_curves|$ssl_session_id|$ssl_session_reused|$ssl_early_data|$ssl_server_name|$ssl_client_verify|"
	"$ssl_client_s_dn|\n"
	"$ssl_client_cert|$ssl_client_fingerprint|$ssl_client_serial|\"; proxy_pass http://origin; }\n";

static const struct setup setup = {.locations = locations, .zone = "size=64m max_entry=1m", .tls = true};

static bool without_curl(int version)
{
	if (version == 2 && !has_streams()) {
		skipped("no curl with HTTP/2");
		return true;
	}
	return false;
}

static void wants(int version, const char *target, const char *status, const char *path, unsigned n, size_t size)
{
	struct response r = tls_do(version, target, NULL);

	assert_body(&r, path, n, size);
	if (!was(&r, status))
		fail_msg("%s: wanted %s, got %s", target, status, r.head);
	web_free(&r);
}

static void a_miss_then_hits(int version)
{
	char path[32];

	if (without_curl(version))
		return;
	snprintf(path, sizeof(path), "/hit-%d", version);
	for (unsigned i = 0; i < 5; i++)
		wants(version, path, i ? "HIT" : "MISS", path, 1, 64);
	COUNTS(path, 1);
}

static void hits_1(void **state)
{
	a_miss_then_hits(1);
}

static void hits_2(void **state)
{
	a_miss_then_hits(2);
}

/* What one has stored all get. */
static void all_protocols_share(void **state)
{
	struct response r;

	expect(&site, "/shared", "MISS", "/shared", 1);
	wants(1, "/shared", "HIT", "/shared", 1, 64);
	r = tls_do(2, "/shared", NULL);
	if (r.status)
		assert_body(&r, "/shared", 1, 64);
	web_free(&r);
	COUNTS("/shared", 1);
}

/* ---- crowds ------------------------------------------------------------------------------------------------ */

static void a_crowd_by(const char *target, const char *path, const char *gate)
{
	struct crowd c;

	gather_at(&c, CROWD, site.port_tls, tls_connect);
	all_ask(&c, target);
	await_crowd(&c, CROWD - 1);
	origin(&site, "open?%s", gate);
	all_get(&c, path, 1);
	COUNTS(path, 1);
	disperse(&c);
}

static void a_crowd_1(void **state)
{
	a_crowd_by("/crowd?gate=crowd", "/crowd", "crowd");
}

/* Four clients, each with sixteen streams. */
static void a_crowd_2(void **state)
{
	const char *const names[] = {"a", "b", "c", "d"};
	struct crowd c = {.n = 0};
	pid_t pids[COUNT(names)];

	if (without_curl(2))
		return;
	c.misses = site_stats(&site).total.misses;
	for (unsigned i = 0; i < COUNT(names); i++)
		pids[i] = curl_start(names[i], 16, "/streams?gate=streams&size=40000", NULL);
	await_crowd(&c, 63);
	origin(&site, "open?streams");
	for (unsigned i = 0; i < COUNT(names); i++) {
		assert_ends_well(pids[i]);
		for (unsigned j = 0; j < 16; j++) {
			struct response r = curl_answer(names[i], j);

			assert_body(&r, "/streams", 1, 40000);
			web_free(&r);
		}
	}
	COUNTS("/streams", 1);
}

/* Streams are reset when their client goes: the load is nobody's, and goes on. */
static void streams_that_leave(void **state)
{
	struct crowd c = {.n = 0};
	pid_t gone, stays;
	struct response r;

	if (without_curl(2))
		return;
	c.misses = site_stats(&site).total.misses;
	gone = curl_start("gone", 8, "/leave?gate=leave", NULL);
	await_crowd(&c, 7);
	stays = curl_start("stays", 1, "/leave?gate=leave", NULL);
	await_crowd(&c, 8);
	kill_child(gone);
	origin(&site, "open?leave");
	assert_ends_well(stays);
	r = curl_answer("stays", 0);
	assert_body(&r, "/leave", 1, 64);
	web_free(&r);
	COUNTS("/leave", 1);
}

/* ---- forms ------------------------------------------------------------------------------------------------- */

static void stale_while_one_refreshes(int version)
{
	char path[32], target[64];

	if (without_curl(version))
		return;
	snprintf(path, sizeof(path), "/stale/%d", version);
	snprintf(target, sizeof(target), "%s?gate=stale-%d", path, version);
	origin(&site, "open?stale-%d", version);
	wants(version, target, "MISS", path, 1, 64);
	origin(&site, "shut?stale-%d", version);
	purge(&site, target, 204);
	for (unsigned i = 0; i < 3; i++)
		wants(version, target, "STALE", path, 1, 64);
	origin(&site, "await?stale-%d&2", version);
	origin(&site, "open?stale-%d", version);
	await_status(&site, target, "HIT");
	wants(version, target, "HIT", path, 2, 64);
	COUNTS(path, 2);
}

static void stale_1(void **state)
{
	stale_while_one_refreshes(1);
}

static void stale_2(void **state)
{
	stale_while_one_refreshes(2);
}

static void conditions_and_forms(int version)
{
	char path[32], target[64];
	struct response r;

	if (without_curl(version))
		return;
	snprintf(path, sizeof(path), "/zip/%d", version);
	snprintf(target, sizeof(target), "%s?size=5000&etag=a", path);
	wants(version, target, "MISS", path, 1, 5000);
	r = tls_do(version, target, "If-None-Match: \"a\"\r\n");
	assert_int_equal(r.status, 304);
	assert_int_equal(r.size, 0);
	web_free(&r);
	r = tls_do(version, target, "Range: bytes=5-9\r\n");
	assert_int_equal(r.status, 206);
	assert_int_equal(r.size, 5);
	web_free(&r);
	r = tls_do(version, target, "Accept-Encoding: gzip\r\n");
	assert_int_equal(r.status, 200);
	assert_string_equal(web_header(&r, "Content-Encoding"), "gzip");
	assert_true(r.size > 20 && r.size < 1000);
	assert_memory_equal(r.body, "\x1f\x8b", 2);
	web_free(&r);
	COUNTS(path, 1);
}

static void forms_1(void **state)
{
	conditions_and_forms(1);
}

static void forms_2(void **state)
{
	conditions_and_forms(2);
}

/* A body of many records, sent out of the segment while its client takes its time: it is pinned,
 * and deleted meanwhile. */
static void a_big_body_from_a_pin(void **state)
{
	const char *target = "/big?size=900000";
	struct response r;
	uint64_t began = 0;
	int little = 16384, much = 1 << 20;
	struct web w;

	wants(1, target, "MISS", "/big", 1, BIG);
	w = web_connect(site.port_tls);
	assert_int_equal(setsockopt(w.fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little)), 0);
	tls_over(&w);
	web_ask(&w, "GET", target, NULL);
	while (!site_stats(&site).pins)
		site_turn(&began);
	purge(&site, target, 204);
	wants(1, target, "MISS", "/big", 2, BIG);
	assert_true(site_stats(&site).pins > 0);
	assert_int_equal(setsockopt(w.fd, SOL_SOCKET, SO_RCVBUF, &much, sizeof(much)), 0);
	r = web_read(&w);
	assert_true(was(&r, "HIT"));
	assert_body(&r, "/big", 1, BIG);
	web_free(&r);
	web_close(&w);
	COUNTS("/big", 2);
}

static void big_bodies_by_streams(void **state)
{
	pid_t pid;

	if (without_curl(2))
		return;
	expect(&site, "/other", "MISS", "/other", 1);
	wants(2, "/bigs?size=900000", "MISS", "/bigs", 1, BIG);
	pid = curl_start("big", 8, "/bigs?size=900000", NULL);
	assert_ends_well(pid);
	for (unsigned i = 0; i < 8; i++) {
		struct response r = curl_answer("big", i);

		assert_true(was(&r, "HIT"));
		assert_body(&r, "/bigs", 1, BIG);
		web_free(&r);
	}
	COUNTS("/bigs", 1);
}

/* What is too big is relayed as it comes; the client of one of them leaves in its midst. */
static void what_is_too_big_passes(void **state)
{
	struct web w = tls_connect(site.port_tls);
	struct response r = {0};

	web_ask(&w, "GET", "/huge?size=5000000&chunked&body-gate=huge", NULL);
	assert_true(web_head(&w, &r));
	web_free(&r);
	web_close(&w);
	origin(&site, "open?huge");
	for (unsigned i = 0; i < 2; i++) {
		r = tls_do(1, "/huger?size=3000000", NULL);
		assert_body(&r, "/huger", 1 + i, 3000000);
		web_free(&r);
	}
	r = tls_do(1, "/zip/huge?size=3000000", "Accept-Encoding: gzip\r\n");
	assert_int_equal(r.status, 200);
	assert_string_equal(web_header(&r, "Content-Encoding"), "gzip");
	web_free(&r);
}

/* ---- the origin by https, and what a fill tells it ----------------------------------------------------------- */

static void an_origin_by_https(void **state)
{
	char *last;

	a_crowd_by("/https/crowd?gate=https&size=64", "/https/crowd", "https");
	expect(&site, "/https/crowd?gate=https&size=64", "HIT", "/https/crowd", 1);
	wants(1, "/https/big?size=900000", "MISS", "/https/big", 1, BIG);
	wants(1, "/https/big?size=900000", "HIT", "/https/big", 1, BIG);
	wants(1, "/https/stale/a?etag=a", "MISS", "/https/stale/a", 1, 64);
	purge(&site, "/https/stale/a?etag=a", 204);
	wants(1, "/https/stale/a?etag=a", "STALE", "/https/stale/a", 1, 64);
	await_status(&site, "/https/stale/a?etag=a", "HIT");
	COUNTS("/https/stale/a", 2);
	last = origin_last(&site, "/https/stale/a");
	assert_non_null(strstr(last, "If-None-Match: \"a\"\r\n"));
	free(last);
}

static void an_origin_by_https_fails(void **state)
{
	struct response r;

	wants(1, "/https/stale/b", "MISS", "/https/stale/b", 1, 64);
	purge(&site, "/https/stale/b", 204);
	origin(&site, "down");
	for (int i = 0; i < 3; i++) {
		r = tls_do(1, "/https/error/a", NULL);
		assert_int_equal(r.status, 502);
		assert_true(was(&r, i ? "ERROR" : "MISS"));
		web_free(&r);
		wants(1, "/https/stale/b", "STALE", "/https/stale/b", 1, 64);
	}
	origin(&site, "up");
	r = tls_do(1, "/https/error/half?truncate&size=900000", NULL);
	assert_int_equal(r.status, 502);
	web_free(&r);
	COUNTS("/https/error/half", 1);
}

/* A fill is of the scheme of its client, and the default key tells them apart. */
static void schemes_are_told(void **state)
{
	char *last, wanted[64];

	expect(&site, "/scheme/a", "MISS", "/scheme/a", 1);
	last = origin_last(&site, "/scheme/a");
	snprintf(wanted, sizeof(wanted), "X-Scheme: http  %u\r\n", site.port);
	assert_non_null(strstr(last, wanted));
	free(last);
	wants(1, "/scheme/a", "MISS", "/scheme/a", 2, 64);
	last = origin_last(&site, "/scheme/a");
	snprintf(wanted, sizeof(wanted), "X-Scheme: https on %u\r\n", site.port_tls);
	assert_non_null(strstr(last, wanted));
	free(last);
	expect(&site, "/scheme/a", "HIT", "/scheme/a", 1);
	wants(1, "/scheme/a", "HIT", "/scheme/a", 2, 64);
}

/* Its connection never shook hands: it may be asked whatever a client's is. */
static void a_fill_is_asked_for_its_session(void **state)
{
	char *last;

	wants(1, "/told/a", "MISS", "/told/a", 1, 64);
	last = origin_last(&site, "/told/a");
	assert_non_null(strstr(last, "X-Told: "));
	free(last);
	wants(1, "/told/a", "HIT", "/told/a", 1, 64);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(hits_1),
		CASE(hits_2),
		CASE(all_protocols_share),
		CASE(a_crowd_1),
		CASE(a_crowd_2),
		CASE(streams_that_leave),
		CASE(stale_1),
		CASE(stale_2),
		CASE(forms_1),
		CASE(forms_2),
		CASE(a_big_body_from_a_pin),
		CASE(big_bodies_by_streams),
		CASE(what_is_too_big_passes),
		CASE(an_origin_by_https),
		CASE(an_origin_by_https_fails),
		CASE(schemes_are_told),
		CASE(a_fill_is_asked_for_its_session),
	};
	int failed = RUN("tls", tests);

	SSL_CTX_free(tls_context);
	return failed;
}
