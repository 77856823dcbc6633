/* SPDX-License-Identifier: MIT */
/*
 * TLS for the client of web.h (HTTP/1.1, by OpenSSL), and HTTP/2 over it by curl, whose answer is read into the same
 * struct response. Certificates are not looked at.
 */
#ifndef SHOAL_TEST_TLS_H
#define SHOAL_TEST_TLS_H

#include <openssl/ssl.h>

#include "crowd.h"

static SSL_CTX *tls_context;

static inline ssize_t tls_recv(struct web *w, void *data, size_t size)
{
	return SSL_read(w->session, data, (int)size);
}

static inline ssize_t tls_send(const struct web *w, const void *data, size_t size)
{
	return SSL_write(w->session, data, (int)size);
}

static inline void tls_end(struct web *w)
{
	SSL_free(w->session);
}

static const struct web_layer tls = {tls_recv, tls_send, tls_end};

static inline void tls_over(struct web *w)
{
	if (!tls_context)
		tls_context = SSL_CTX_new(TLS_client_method());
	assert_non_null(tls_context);
	signal(SIGPIPE, SIG_IGN);
	w->session = SSL_new(tls_context);
	w->layer = &tls;
	assert_int_equal(SSL_set_alpn_protos(w->session, (const unsigned char *)"\x08http/1.1", 9), 0);
	assert_int_equal(SSL_set_fd(w->session, w->fd), 1);
	(void)SSL_connect(w->session); /* if it fails, so does what is asked */
}

static inline struct web tls_connect(unsigned port)
{
	struct web w = web_connect(port);

	tls_over(&w);
	return w;
}

/* ---- by curl ----------------------------------------------------------------------------------------------- */

static inline bool has_streams(void)
{
	return !system("exec curl --version 2>/dev/null | grep -q HTTP2");
}

static inline void curl_header(FILE *f, const char *line, const char *end)
{
	fputs("header=\"", f);
	for (; line < end; line++) {
		if (*line == '"')
			putc('\\', f);
		putc(*line, f);
	}
	fputs("\"\n", f);
}

/* What a curl is to ask is written to its file first. The answers come to NAME.I, and each is asked by a stream. */
static inline FILE *curl_file(const char *name)
{
	FILE *f = fopen(site_file(&site, name), "w");

	assert_non_null(f);
	return f;
}

/* `more`: header lines, each with its CR LF. */
static inline void curl_ask(FILE *f, const char *name, unsigned i, const char *target, const char *more)
{
	const char *line, *end;
	char file[64];

	snprintf(file, sizeof(file), "%s.%u", name, i);
	unlink(site_file(&site, file)); /* of one that was given up */
	fprintf(f, "%ssilent\nshow-error\ninsecure\nhttp2\ninclude\nno-buffer\nmax-time=%d\n"
	        "url=\"https://127.0.0.1:%u%s\"\noutput=\"%s.%u\"\n",
	        i ? "next\n" : "", PATIENCE_S, site.port_tls, target, site_file(&site, name), i);
	for (line = more; line && (end = strstr(line, "\r\n")); line = end + 2)
		curl_header(f, line, end);
}

static inline pid_t curl_run(FILE *f, const char *name)
{
	pid_t pid;

	assert_int_equal(fclose(f), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		char errors[64];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(errors, sizeof(errors), "%s.errors", name);
		freopen(site_file(&site, errors), "w", stderr);
		execlp("curl", "curl", "-K", site_file(&site, name), "--no-progress-meter", "-Z", "--parallel-max",
		       "64", (char *)NULL);
		_exit(127);
	}
	return pid;
}

/* A process that ends when all are answered. */
static inline pid_t curl_start(const char *name, unsigned times, const char *target, const char *more)
{
	FILE *f = curl_file(name);

	for (unsigned i = 0; i < times; i++)
		curl_ask(f, name, i, target, more);
	return curl_run(f, name);
}

/* The ith answer; that of a curl without a response has the status 0. */
static inline struct response curl_answer(const char *name, unsigned i)
{
	static char all[2 << 20];
	struct response r = {0};
	char file[64], *body;
	size_t size = 0;
	FILE *f;

	snprintf(file, sizeof(file), "%s.%u", name, i);
	f = fopen(site_file(&site, file), "r");
	if (f) {
		size = fread(all, 1, sizeof(all) - 1, f);
		fclose(f);
		unlink(site_file(&site, file));
	}
	all[size] = '\0';
	if (sscanf(all, "HTTP/2 %d", &r.status) != 1 || !(body = strstr(all, "\r\n\r\n")))
		return r;
	body += 4;
	r.size = (size_t)(all + size - body);
	r.body = malloc(r.size + 1);
	assert_non_null(r.body);
	memcpy(r.body, body, r.size + 1);
	*body = '\0';
	r.head = strdup(all);
	return r;
}

/* ---- by either --------------------------------------------------------------------------------------------- */

static inline struct response tls_do(int version, const char *target, const char *more)
{
	struct response r;
	struct web w;

	if (version == 2) {
		assert_ends_well(curl_start("one", 1, target, more));
		return curl_answer("one", 0);
	}
	w = tls_connect(site.port_tls);
	web_ask(&w, "GET", target, more);
	r = web_read(&w);
	web_close(&w);
	return r;
}

#endif
