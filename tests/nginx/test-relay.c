/* SPDX-License-Identifier: MIT */
/*
 * What the nginx module does not store, on its way to the client that leads: through gzip, over HTTP/2, to
 * clients that are slow or leave amid it. A stream of HTTP/2 is asked for and read by hand (below), so that it
 * can be as rude as one.
 */
#include "suite.h"

static const char locations[] =
	"location /zip/ { gzip on; gzip_min_length 20; gzip_types text/plain; shoal ZONE; shoal_key $request_uri; "
	"shoal_retry 1h;\n"
	"  proxy_pass http://origin; }\n"
	"location /tight/ { gzip on; gzip_min_length 20; gzip_types text/plain; shoal ZONE; shoal_key $request_uri; "
	"shoal_retry 1h;\n"
	"  proxy_max_temp_file_size 0; proxy_pass http://origin; }\n"
	"location /unbuffered/ { gzip on; gzip_min_length 20; gzip_types text/plain; shoal ZONE; "
	"shoal_key $request_uri;\n"
	"  shoal_retry 1h; proxy_buffering off; proxy_pass http://origin; }\n";

static const char *const folders[] = {"/zip/", "/tight/", "/unbuffered/"};

static const struct setup setup = {.locations = locations};

#define BIG 3000000
#define WINDOW 65535 /* of a stream, if nothing is said */

static const char *const targets[] = {"size=3000000&h=Set-Cookie:a", "size=3000000&h=Set-Cookie:a&chunked",
                                      "size=3000000", "size=3000000&chunked"};

/* A path for each of the targets. */
static char *path_of(const char *folder, const char *name, size_t i)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s%s%zu", folder, name, i);
	return path;
}

/* By curl, which says with which version of HTTP. */
static void curl(unsigned port, const char *options, const char *target, const char *path, const char *version)
{
	char command[512], *text;
	struct response r = {.status = 200, .size = BIG};

	snprintf(command, sizeof(command),
	         "exec curl -s -S -m %d %s -w '%%{http_version}' 'http://127.0.0.1:%u%s?%s' >'%s'", PATIENCE_S, options,
	         port, path, target, site_file(&site, "got"));
	assert_int_equal(system(command), 0);
	text = read_whole(site_file(&site, "got"));
	assert_int_equal(strlen(text), BIG + strlen(version));
	assert_string_equal(text + BIG, version);
	r.body = text;
	assert_body(&r, path, 1, BIG);
	free(text);
}

static bool no_curl(void)
{
	return system("exec curl --version >/dev/null 2>&1") != 0;
}

/* gzip holds back what it has, which is not the client's being behind. Nor may the response be put aside
 * until it is whole. */
static void through_gzip(void **state)
{
	if (no_curl()) {
		skipped("no curl");
		return;
	}
	for (size_t f = 0; f < COUNT(folders); f++)
		for (size_t i = 0; i < COUNT(targets); i++) {
			curl(site.port, "--compressed", targets[i], path_of(folders[f], "one", i), "1.1");
			COUNTS(path_of(folders[f], "one", i), 1);
		}
}

static void over_http_2(void **state)
{
	if (no_curl()) {
		skipped("no curl");
		return;
	}
	for (size_t f = 0; f < COUNT(folders); f++)
		for (size_t i = 0; i < COUNT(targets); i++) {
			curl(site.port_2, "--http2-prior-knowledge", targets[i], path_of(folders[f], "two", i), "2");
			COUNTS(path_of(folders[f], "two", i), 1);
			curl(site.port_2, "--http2-prior-knowledge --compressed", targets[i],
			     path_of(folders[f], "packed", i), "2");
			COUNTS(path_of(folders[f], "packed", i), 1);
		}
}

/* ---- streams by hand --------------------------------------------------------------------------------------- */

enum { H2_DATA, H2_HEADERS, H2_RST_STREAM = 3, H2_SETTINGS, H2_WINDOW_UPDATE = 8 };

struct frame {
	unsigned type, flags, stream;
	size_t size;
	char *payload;
};

static void h2_send(struct web *w, unsigned type, unsigned flags, unsigned stream, const void *payload, size_t size)
{
	uint8_t bytes[512] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)type, (uint8_t)flags,
			      0, 0, (uint8_t)(stream >> 8), (uint8_t)stream};

	assert_true(size <= sizeof(bytes) - 9);
	if (size)
		memcpy(bytes + 9, payload, size);
	web_send(w, (const char *)bytes, 9 + size);
}

static struct web h2_connect(unsigned port)
{
	struct web w = web_connect(port);
	const char *preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

	web_send(&w, preface, strlen(preface));
	h2_send(&w, H2_SETTINGS, 0, 0, NULL, 0);
	return w;
}

/* GET by http of shop: three fields of HPACK's static table, and the path as it is. */
static void h2_ask(struct web *w, unsigned stream, const char *path)
{
	char block[256];
	int n = snprintf(block, sizeof(block), "\x82\x86\x41\x04shop\x04%c%s", (int)strlen(path), path);

	assert_true(strlen(path) < 127 && n > 0 && (size_t)n < sizeof(block));
	h2_send(w, H2_HEADERS, 0x5, stream, block, (size_t)n);
}

static void h2_more(struct web *w, unsigned stream, uint32_t n)
{
	n = htonl(n);
	h2_send(w, H2_WINDOW_UPDATE, 0, stream, &n, sizeof(n));
}

static struct frame h2_read(struct web *w)
{
	struct frame f = {0};
	uint8_t *head;

	assert_true(web_need(w, 9));
	head = (uint8_t *)web_take(w, 9);
	f.size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
	f.type = head[3];
	f.flags = head[4];
	f.stream = (unsigned)head[7] << 8 | head[8];
	free(head);
	assert_true(web_need(w, f.size));
	f.payload = web_take(w, f.size);
	if (f.type == H2_SETTINGS && !(f.flags & 1))
		h2_send(w, H2_SETTINGS, 1, 0, NULL, 0);
	return f;
}

/* Data of this stream goes to `body` until there is `size` of it; of others none may come. True:
 * the stream has ended. */
static bool h2_body(struct web *w, unsigned stream, struct response *body, size_t size)
{
	bool ended = false;

	while (!ended && body->size < size) {
		struct frame f = h2_read(w);

		if (f.type == H2_DATA) {
			assert_int_equal(f.stream, stream);
			body->body = body->body ? body->body : malloc(BIG + 1);
			assert_non_null(body->body);
			assert_true(body->size + f.size <= BIG);
			memcpy(body->body + body->size, f.payload, f.size);
			body->size += f.size;
		}
		assert_int_not_equal(f.type, H2_RST_STREAM);
		ended = f.stream == stream && (f.type == H2_DATA || f.type == H2_HEADERS) && f.flags & 1;
		free(f.payload);
	}
	return ended;
}

static void h2_get(struct web *w, unsigned stream, const char *path, unsigned n)
{
	struct response r = {.status = 200};
	struct frame f = {0};

	h2_ask(w, stream, path);
	if (!h2_body(w, stream, &r, 64)) {
		f = h2_read(w); /* an empty one that ends it */
		assert_int_equal(f.stream, stream);
		assert_true(f.flags & 1);
		free(f.payload);
	}
	assert_body(&r, path, n, 64);
	web_free(&r);
}

/* A stream whose client takes no more of it for a while, and others beside it: they are served,
 * and it goes on where it was. */
static void a_stream_waits_for_its_client(void **state)
{
	char target[256];

	for (size_t f = 0; f < COUNT(folders); f++)
		for (size_t i = 0; i < COUNT(targets); i++) {
			struct web w = h2_connect(site.port_2);
			struct response r = {.status = 200};
			const char *path = path_of(folders[f], "waits", i);

			snprintf(target, sizeof(target), "%s?%s", path, targets[i]);
			h2_more(&w, 0, 1 << 24);
			h2_ask(&w, 1, target);
			assert_false(h2_body(&w, 1, &r, WINDOW));
			h2_get(&w, 3, "/beside", 1);
			h2_get(&w, 5, "/beside", 1);
			for (size_t size = WINDOW; size < BIG; size += WINDOW) {
				h2_more(&w, 1, WINDOW);
				if (!h2_body(&w, 1, &r, size + WINDOW < BIG ? size + WINDOW : BIG) && r.size == BIG)
					free(h2_read(&w).payload);
			}
			assert_body(&r, path, 1, BIG);
			COUNTS(path, 1);
			web_free(&r);
			web_close(&w);
		}
}

static unsigned connections(void)
{
	struct response r = web_get(site.port, "/:pid");
	const char *active = strchr(r.body, ' ');
	unsigned n = active ? (unsigned)atoi(active) : 0;

	web_free(&r);
	return n;
}

/* Its client takes it back, or goes altogether, while the origin still sends; the connection serves others,
 * and nothing is left. */
static void a_stream_is_taken_back(void **state)
{
	const uint8_t cancel[4] = {0, 0, 0, 8};
	char target[256];
	uint64_t began = 0;

	for (size_t i = 0; i < 2 * COUNT(targets); i++) {
		struct web w = h2_connect(site.port_2);
		struct response r = {.status = 200};

		snprintf(target, sizeof(target), "%s?%s&body-gate=back", path_of("/", "back", i),
		         targets[i % COUNT(targets)]);
		h2_ask(&w, 1, target);
		h2_body(&w, 1, &r, 30000);
		if (i < COUNT(targets)) {
			h2_send(&w, H2_RST_STREAM, 0, 1, cancel, sizeof(cancel));
			h2_more(&w, 0, 1 << 24);
			h2_ask(&w, 3, "/beside");
			for (struct frame f = {0}; f.stream != 3; free(f.payload))
				f = h2_read(&w);
		}
		web_free(&r);
		web_close(&w);
	}
	origin(&site, "open?back");
	while (connections() != 1)
		site_turn(&began);
}

/* ---- half of one -------------------------------------------------------------------------------------------- */

/* Stored or not, it must not pass for the whole. */
static void half_a_body_unbuffered(void **state)
{
	const char *queries[] = {"truncate", "truncate&chunked", "truncate&h=Set-Cookie:a",
	                         "truncate&size=3000000&chunked"};

	for (size_t i = 0; i < COUNT(queries); i++) {
		char target[128];
		struct response r;

		snprintf(target, sizeof(target), "%s?%s", path_of("/unbuffered/", "half", i), queries[i]);
		r = web_get(site.port, target);
		assert_int_equal(r.status, i < 2 ? 502 : 0);
		web_free(&r);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(through_gzip),
		CASE(over_http_2),
		CASE(a_stream_waits_for_its_client),
		CASE(a_stream_is_taken_back),
		CASE(half_a_body_unbuffered),
	};

	return RUN("relay", tests);
}
