/* SPDX-License-Identifier: MIT */
/*
 * metrics: what is counted, as Prometheus text: once, into a file again and again, or for who asks over HTTP.
 *
 * A cache is opened anew for each text, to look at it alone: so one that was destroyed and made again is found, and one
 * that is not there for a while is nobody's end.
 */
#include "cli.h"
#include "listen.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct metrics {
	struct option_list caches;
	const char *owner, *listen, *output;
	uint32_t every;
	bool label;
};

static const struct option_spec metrics_options[] = {
	{"cache", 'c', OPTION_LIST(struct metrics, caches), "NAME",
	 "a cache, by its name or path; may be given several times (SHOAL_CACHE)", 0},
	{"owner", 0, OPTION_TEXT(struct metrics, owner), "USER", "accept caches of this user, too", 0},
	{"label", 0, OPTION_FLAG(struct metrics, label), NULL, "a label 'cache' also if there is one cache alone", 0},
	{"listen", 0, OPTION_TEXT(struct metrics, listen), "ADDRESS",
	 "serve GET /metrics there: PORT (of 127.0.0.1) or HOST:PORT", 0},
	{"output", 'o', OPTION_TEXT(struct metrics, output), "FILE",
	 "into this file, which is replaced at once as a whole", 0},
	{"every", 0, OPTION_DURATION(struct metrics, every), "DURATION",
	 "of --output: again and again, until a signal ends it", 0},
	OPTIONS_END,
};

/* What to look at. */
struct wanted {
	const struct call *call;
	struct shoal_config config;
	unsigned n;
	const char *names[OPTION_LIST_MOST];
	bool gone[OPTION_LIST_MOST]; /* and it was said */
	bool label;
};

/* ---- the text ---------------------------------------------------------------------------------------------- */

static const char *reason(int outcome)
{
	return outcome == SHOAL_ERR_SYSTEM ? strerror(errno) : shoal_strerror(outcome);
}

static int open_one(struct wanted *w, unsigned i, struct shoal **to)
{
	int outcome = shoal_open(w->names[i], &w->config, to);

	if (outcome != SHOAL_OK && !w->gone[i])
		cli_log(w->call, LOG_WARNING, "cache '%s': %s", w->names[i], reason(outcome));
	if (outcome == SHOAL_OK && w->gone[i])
		cli_log(w->call, LOG_WARNING, "cache '%s' is there again", w->names[i]);
	w->gone[i] = outcome != SHOAL_OK;
	return outcome;
}

/* Of those that are there. None: why the last one isn't. */
static int write_text(FILE *to, void *arg)
{
	struct wanted *w = arg;
	struct shoal *caches[OPTION_LIST_MOST];
	const char *names[OPTION_LIST_MOST];
	int outcome = SHOAL_OK, last = SHOAL_OK;
	unsigned i, n = 0;

	for (i = 0; i < w->n; i++) {
		outcome = open_one(w, i, &caches[n]);
		if (outcome == SHOAL_OK)
			names[n++] = w->names[i];
		else
			last = outcome;
	}
	outcome = n ? shoal_metrics_all(caches, w->label ? names : NULL, n, to) : last;
	if (outcome != SHOAL_OK && !ferror(to))
		fprintf(to, "cache '%s': %s\n", n ? names[0] : w->names[w->n - 1], reason(outcome));
	while (n)
		shoal_close(caches[--n]);
	return outcome;
}

static int to_stdout(struct wanted *w)
{
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);
	int outcome;

	if (!to)
		return cli_failed(w->call, "metrics", SHOAL_ERR_SYSTEM);
	outcome = write_text(to, w);
	if (fclose(to)) {
		outcome = SHOAL_ERR_SYSTEM;
	} else if (outcome == SHOAL_OK) {
		fwrite(text, 1, size, stdout); /* main() looks whether it went out */
	}
	free(text);
	return outcome == SHOAL_OK ? EXIT_DONE : cli_failed(w->call, w->names[0], outcome);
}

/* ---- into a file ------------------------------------------------------------------------------------------- */

/* As open() would have made it. */
static mode_t file_mode(void)
{
	mode_t mask = umask(0);

	umask(mask);
	return 0666 & ~mask;
}

static int write_temporary(struct wanted *w, char *path, int *outcome)
{
	int fd = mkstemp(path), r;
	FILE *to;

	if (fd < 0)
		return -1;
	to = fchmod(fd, file_mode()) ? NULL : fdopen(fd, "w");
	if (!to) {
		close(fd);
		return -1;
	}
	*outcome = write_text(to, w);
	r = ferror(to) ? -1 : 0;
	return fclose(to) ? -1 : r;
}

/* Whoever reads the file finds one text, whole. With no cache there it is removed: old figures would
 * look like new ones. */
static int to_file(struct wanted *w, const char *file)
{
	char path[4096];
	int outcome = SHOAL_OK, r = -1, error;

	/* Not *.prom: the collector would take it for one more. */
	if ((size_t)snprintf(path, sizeof(path), "%s.XXXXXX", file) >= sizeof(path))
		errno = ENAMETOOLONG;
	else if (!write_temporary(w, path, &outcome))
		r = outcome == SHOAL_OK ? rename(path, file) : 0;
	error = errno;
	if (r || outcome != SHOAL_OK)
		unlink(path);
	if (r) {
		cli_error(w->call, "%s: %s", file, strerror(error));
		return EXIT_FAILED;
	}
	if (outcome != SHOAL_OK)
		unlink(file);
	return EXIT_DONE;
}

static int to_file_every(struct wanted *w, const char *file, uint32_t ms)
{
	struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
	int status, failed = EXIT_DONE;
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	do {
		status = to_file(w, file);
		if (status)
			failed = status;
	} while (!failed && sigtimedwait(&ends, NULL, &pause) < 0 && (errno == EAGAIN || errno == EINTR));
	return failed;
}

/* ---- the verb ---------------------------------------------------------------------------------------------- */

/* Each is there at first, or the exit status tells of it; later they may come and go. */
static int find(struct wanted *w, const struct metrics *o)
{
	struct cache_options one = {.owner = o->owner};
	struct shoal *cache;
	unsigned i, j;
	int status;

	w->n = o->caches.count ? o->caches.count : 1;
	for (i = 0; i < w->n; i++) {
		one.name = o->caches.count ? o->caches.items[i] : NULL;
		status = cli_look(w->call, &one, &cache);
		if (status)
			return status;
		shoal_close(cache);
		w->names[i] = cli_cache_name(&one);
		for (j = 0; j < i; j++)
			if (!strcmp(w->names[i], w->names[j]))
				return cli_usage(w->call, "--cache %s twice", w->names[i]);
	}
	w->label = o->label || w->n > 1;
	w->config.flags = SHOAL_ATTACH | SHOAL_INSPECT;
	return cli_owner(w->call, o->owner, &w->config);
}

static int metrics(const struct call *call)
{
	const struct metrics *o = call->options;
	struct wanted w = {.call = call};
	int status;

	if (o->listen && o->output)
		return cli_usage(call, "one of --listen and --output");
	if (o->every && !o->output)
		return cli_usage(call, "--every needs --output");
	if (o->every == SHOAL_NONE || o->every == SHOAL_FOREVER)
		return cli_usage(call, "--every needs a duration above 0");
	status = find(&w, o);
	if (status)
		return status;
	if (o->listen)
		return listen_serve(call, o->listen, write_text, &w);
	if (o->output && o->every)
		return to_file_every(&w, o->output, o->every);
	status = o->output ? to_file(&w, o->output) : to_stdout(&w);
	return status;
}

const struct verb verb_metrics = {
	.name = "metrics", .group = GROUP_WATCH,
	.summary = "what is counted, as Prometheus text: to standard output, a file, or over HTTP",
	.options = metrics_options, .size = sizeof(struct metrics),
	.notes = "Several caches are told apart by a label 'cache'. Whoever may connect may read it, "
		 "names of keyspaces too: so it\n"
		 "listens on 127.0.0.1 unless another address is given. Caches have to be there when it starts; "
		 "one that goes later\n"
		 "is left out till it is there again. Alert rules and a dashboard come with it: see "
		 "shoal-runbook(7).\n\n"
		 "  shoal metrics --cache shop --cache session --listen 9123\n"
		 "  shoal metrics --cache shop --output /var/lib/prometheus/node-exporter/shoal.prom --every 15s\n",
	.run = metrics,
};
