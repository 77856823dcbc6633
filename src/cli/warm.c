/* SPDX-License-Identifier: MIT */
/*
 * shoal warm: load the keys of a file through a command, slowly, and stop before it hurts.
 *
 * The place in the file goes to --resume FILE, and from there on next time: the offset of the first key that is not
 * dealt with. It is written every second and at the end, under another name first, so it is whole whenever we are
 * killed; what was done since is looked up again, and is fresh.
 *
 * SIGINT, SIGTERM and SIGHUP are held back, and end the warming after the key in hand; its command gets them.
 */
#include "cli.h"
#include "command.h"
#include "escape.h"
#include "json.h"
#include "units.h"
#include "words.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS 256
#define EXIT_SLOW 7
#define EXIT_ERRORS 8

struct warm_options {
	struct cache_options cache;
	struct option_keyspace keyspace;
	const char *keys, *exec, *resume;
	bool zero, json;
	double rate;
	struct option_share stop_errors;
	uint32_t stop_latency, fresh, stale, stale_error, lease;
	uint64_t schema;
};

static const struct option_spec warm_table[] = {
	OPTION_CACHE(struct warm_options),
	{"keyspace", 'k', OPTION_KEYSPACE(struct warm_options, keyspace), "NAME[@VERSION]",
	 "the keyspace to warm; made if it isn't there", 0},
	{"keys", 0, OPTION_TEXT(struct warm_options, keys), "FILE",
	 "the keys, one a line, as shoal keys prints them; - is standard input", 0},
	{"null", '0', OPTION_FLAG(struct warm_options, zero), NULL, "they are plain bytes and end with a zero byte", 0},
	{"exec", 'x', OPTION_TEXT(struct warm_options, exec), "COMMAND",
	 "what prints the value of the key that is put in for {}", 0},
	{"rate", 'r', OPTION_RATE(struct warm_options, rate), "RATE",
	 "loads a second, of all who warm this keyspace (100/s)", 0},
	{"stop-latency", 0, OPTION_DURATION(struct warm_options, stop_latency), "DURATION",
	 "stop when two of 32 loads took longer (half of the lease)", 0},
	{"stop-errors", 0, OPTION_SHARE(struct warm_options, stop_errors), "SHARE",
	 "stop when more of 32 loads fail (20%)", 0},
	{"fresh", 'f', OPTION_DURATION(struct warm_options, fresh), "DURATION",
	 "how long a value is fresh (as its programs say; 60s)", 0},
	{"stale", 's', OPTION_DURATION(struct warm_options, stale), "DURATION",
	 "how long after that it is served while it is refreshed (likewise; none)", 0},
	{"stale-error", 'S', OPTION_DURATION(struct warm_options, stale_error), "DURATION",
	 "how long after that it is served if loading fails (likewise; none)", 0},
	{"schema", 0, OPTION_COUNT(struct warm_options, schema), "N", "the version of the values' encoding (0)", 0},
	{"lease", 0, OPTION_DURATION(struct warm_options, lease), "DURATION",
	 "how long a load may stand still (likewise; 30s)", 0},
	{"resume", 'R', OPTION_TEXT(struct warm_options, resume), "FILE",
	 "begin where FILE says, and keep the place in it", 0},
	{"json", 'j', OPTION_FLAG(struct warm_options, json), NULL, "the report as JSON, to standard output", 0},
	OPTIONS_END,
};

struct warm {
	const struct call *call;
	const struct warm_options *options;
	FILE *keys;
	char *line;
	size_t room;
	off_t begin, end; /* of the key that was given last */
	uint64_t before;  /* keys of earlier times */
	char *text, *words[WORDS + 1];
	size_t limit;     /* more than that can't be stored */
	sigset_t mask;    /* as we found it */
	int signal;       /* that ended it */
	bool terminal;    /* standard error is one */
	bool drawn;       /* a bar, on this line */
	uint64_t told_ms; /* when the progress was last told, since the beginning */
};

/* ---- the keys ---------------------------------------------------------------------------------------------- */

static int delimiter(const struct warm *w)
{
	return w->options->zero ? 0 : '\n';
}

static int next_key(void *arg, struct shoal_slice *key)
{
	struct warm *w = arg;
	const char *wrong;
	size_t size;
	ssize_t n;

	for (;;) {
		w->begin = w->end;
		n = getdelim(&w->line, &w->room, delimiter(w), w->keys);
		if (n < 0)
			return ferror(w->keys) ? SHOAL_ERR_SYSTEM : SHOAL_MISS;
		w->end += n;
		if (w->line[n - 1] == delimiter(w))
			w->line[--n] = 0;
		size = (size_t)n;
		wrong = w->options->zero ? NULL : escape_undo(w->line, &size);
		if (wrong)
			return cli_error(w->call, "%s: the key at byte %jd %s", w->options->keys, (intmax_t)w->begin,
			                 wrong),
			       SHOAL_ERR_INVALID;
		if (size > KEY_MOST)
			cli_error(w->call, "%s: the key at byte %jd is left out: it is longer than %d",
			          w->options->keys, (intmax_t)w->begin, KEY_MOST);
		if (size > 0 && size <= KEY_MOST)
			break;
	}
	*key = (struct shoal_slice){w->line, size};
	return SHOAL_OK;
}

/* How many there are from here on; 0: can't be told beforehand. */
static uint64_t count_keys(const struct warm *w)
{
	char buffer[65536], last = 0;
	off_t at = w->end;
	uint64_t count = 0;
	ssize_t n, i;
	struct stat s;

	if (fstat(fileno(w->keys), &s) || !S_ISREG(s.st_mode))
		return 0;
	last = (char)delimiter(w);
	while ((n = pread(fileno(w->keys), buffer, sizeof(buffer), at)) > 0) {
		for (i = 0; i < n; last = buffer[i++])
			count += buffer[i] == delimiter(w) && last != delimiter(w);
		at += n;
	}
	return count + (last != delimiter(w));
}

/* ---- the place in them ------------------------------------------------------------------------------------- */

static bool keep_place(const struct warm *w, const struct shoal_warm_report *report)
{
	const char *name = w->options->resume;
	char *other = NULL;
	FILE *to;
	bool kept;

	if (!name)
		return true;
	if (asprintf(&other, "%s.new", name) < 0)
		return false;
	to = fopen(other, "we");
	kept = to && fprintf(to, "shoal-warm 1 %jd %" PRIu64 "\n", (intmax_t)(report->key.data ? w->begin : w->end),
	                     w->before + report->consumed) > 0;
	if (to)
		kept = !fclose(to) && kept;
	kept = kept && !rename(other, name);
	free(other);
	if (!kept)
		cli_error(w->call, "%s: %s", name, strerror(errno));
	return kept;
}

/* A place that is not between two keys of this file is of another. */
static bool is_place(struct warm *w, intmax_t offset)
{
	struct stat s;
	char before = (char)delimiter(w);

	if (fstat(fileno(w->keys), &s) || !S_ISREG(s.st_mode) || offset < 0 || offset > s.st_size)
		return false;
	if (offset && offset < s.st_size && pread(fileno(w->keys), &before, 1, offset - 1) != 1)
		return false;
	return before == delimiter(w) && !fseeko(w->keys, offset, SEEK_SET);
}

static int find_place(struct warm *w)
{
	const char *name = w->options->resume;
	FILE *from = name ? fopen(name, "re") : NULL;
	intmax_t offset = 0;
	char more;
	bool read;

	if (!from)
		return name && errno != ENOENT ? (cli_error(w->call, "%s: %s", name, strerror(errno)), EXIT_FAILED)
		                               : EXIT_DONE;
	read = fscanf(from, "shoal-warm 1 %jd %" SCNu64 "%c", &offset, &w->before, &more) == 3 && more == '\n';
	fclose(from);
	if (!read || !is_place(w, offset))
		return cli_usage(w->call, "%s: is no place in %s: to begin anew remove it", name, w->options->keys);
	w->begin = w->end = (off_t)offset;
	return EXIT_DONE;
}

/* ---- one load ---------------------------------------------------------------------------------------------- */

struct output {
	char *bytes;
	size_t size, room;
	bool over;
};

static void take(struct command *c, struct output *out, size_t limit)
{
	char buffer[65536], *bytes;
	ssize_t n = command_read(c, 0, buffer, sizeof(buffer));

	if (n <= 0 || out->over)
		return;
	if (out->size + (size_t)n > out->room) {
		out->room = (out->size + (size_t)n) * 2;
		bytes = realloc(out->bytes, out->room);
		out->over = !bytes || out->size + (size_t)n > limit;
		out->bytes = bytes ? bytes : out->bytes;
	}
	if (out->over)
		return;
	memcpy(out->bytes + out->size, buffer, (size_t)n);
	out->size += (size_t)n;
}

static void follow(struct warm *w, struct command *c, struct shoal_load *load, struct output *out)
{
	uint32_t lease = w->options->lease ? w->options->lease : 30000;

	while (!c->ended || command_has_more(c)) {
		struct pollfd fds[] = {{c->signals, POLLIN, 0}, {c->streams[0], POLLIN, 0}};

		poll(fds, 2, lease / 3 > 10000 ? 10000 : (int)(lease / 3) + 1);
		command_signals(c);
		if (fds[1].revents)
			take(c, out, w->limit);
		shoal_load_renew(load);
	}
	w->signal = c->told ? c->told : w->signal;
}

static int run_command(struct warm *w, struct shoal_load *load, char **argv)
{
	struct command_wish wish = {.argv = argv, .mask = &w->mask};
	struct output out = {0};
	struct command c;
	bool found;
	int status = command_start(&c, &wish, &found);

	if (status) {
		cli_error(w->call, "%s: %s", argv[0], strerror(status));
		return found ? status : 127;
	}
	follow(w, &c, load, &out);
	status = c.status;
	command_end(&c);
	if (!status && out.over)
		shoal_load_uncacheable(load, 0);
	if (!status)
		status = shoal_load_publish(load, out.bytes ? out.bytes : "", out.over ? 0 : out.size);
	free(out.bytes);
	return status;
}

static int load_key(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct warm *w = arg;
	char *argv[WORDS + 1] = {NULL}, *text;
	int status = ENOMEM;
	unsigned i;

	if (memchr(key, 0, key_size))
		return EINVAL; /* no argument of a command */
	text = strndup(key, key_size);
	for (i = 0; text && w->words[i]; i++)
		if (!(argv[i] = words_fill(w->words[i], text)))
			break;
	if (text && !w->words[i])
		status = run_command(w, load, argv);
	for (i = 0; argv[i]; i++)
		free(argv[i]);
	free(text);
	return status;
}

/* ---- progress ---------------------------------------------------------------------------------------------- */

static void draw(struct warm *w, const struct shoal_warm_report *r)
{
	char eta[UNIT_TEXT];
	unsigned width = 30,
		 full = r->total ? (unsigned)(r->consumed * width / (r->total < r->consumed ? r->consumed : r->total))
	                         : 0,
		 i;

	fputs("\r[", stderr);
	for (i = 0; i < width; i++)
		fputc(i < full ? '#' : '.', stderr);
	fprintf(stderr, "] %" PRIu64, r->consumed);
	if (r->total)
		fprintf(stderr, " of %" PRIu64, r->total);
	fprintf(stderr, ", %.1f loads/s, %" PRIu64 " failed", r->loads_per_second, r->failed);
	if (r->eta_ms >= 0)
		fprintf(stderr, ", %s left", unit_duration_text(r->eta_ms / 1000 * 1000, eta));
	fputs("\033[K", stderr);
	fflush(stderr);
	w->drawn = true;
}

static int pending_signal(void)
{
	sigset_t set;

	sigpending(&set);
	return sigismember(&set, SIGINT)    ? SIGINT
	       : sigismember(&set, SIGTERM) ? SIGTERM
	       : sigismember(&set, SIGHUP)  ? SIGHUP
	                                    : 0;
}

static int progress(const struct shoal_warm_report *r, void *arg)
{
	struct warm *w = arg;

	if (!w->signal)
		w->signal = pending_signal();
	if (r->elapsed_ms - w->told_ms < (w->terminal ? 200 : 1000))
		return w->signal;
	w->told_ms = r->elapsed_ms;
	if (w->terminal)
		draw(w, r);
	return w->signal || !keep_place(w, r);
}

/* ---- the report -------------------------------------------------------------------------------------------- */

static const char *why(const struct shoal_warm_report *r)
{
	static const char *const reasons[] = {
		[SHOAL_WARM_RUNNING] = "running", [SHOAL_WARM_DONE] = "done",     [SHOAL_WARM_SLOW] = "slow",
		[SHOAL_WARM_ERRORS] = "errors",   [SHOAL_WARM_CALLER] = "signal", [SHOAL_WARM_BUSY] = "busy",
		[SHOAL_WARM_ABORTED] = "aborted"};

	return reasons[r->stopped];
}

static void report_text(const struct shoal_warm_report *r)
{
	static const char *const said[] = {[SHOAL_WARM_DONE] = "",
	                                   [SHOAL_WARM_SLOW] = "stopped: loads take longer than --stop-latency; ",
	                                   [SHOAL_WARM_ERRORS] = "stopped: more loads fail than --stop-errors allows; ",
	                                   [SHOAL_WARM_CALLER] = "stopped as told; ",
	                                   [SHOAL_WARM_BUSY] = "stopped: no permit to load; ",
	                                   [SHOAL_WARM_ABORTED] = "stopped; "};

	fprintf(stderr,
	        "%s%" PRIu64 " keys: %" PRIu64 " loaded, %" PRIu64 " failed, %" PRIu64 " fresh, %" PRIu64 " skipped",
	        said[r->stopped], r->consumed, r->loaded, r->failed, r->fresh, r->skipped);
	if (r->unstored)
		fprintf(stderr, "; of those loaded %" PRIu64 " not stored", r->unstored);
	fprintf(stderr, "; %.1f loads/s, the slowest %.0f ms\n", r->loads_per_second, r->slowest_ms);
}

static int report_json(const struct warm *w, const struct shoal_warm_report *r)
{
	return json_print(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:i}", "stopped", why(r),
	                            "keys", (json_int_t)r->consumed, "before", (json_int_t)w->before, "loaded",
	                            (json_int_t)r->loaded, "failed", (json_int_t)r->failed, "fresh",
	                            (json_int_t)r->fresh, "skipped", (json_int_t)r->skipped, "unstored",
	                            (json_int_t)r->unstored, "elapsed_ms", (json_int_t)r->elapsed_ms,
	                            "loads_per_second", r->loads_per_second, "slowest_ms", r->slowest_ms, "load_error",
	                            r->load_error));
}

static int ended(struct warm *w, const struct shoal_warm_report *r, int outcome)
{
	int failed = EXIT_DONE;

	if (w->drawn)
		fputc('\n', stderr);
	if (r->stopped == SHOAL_WARM_DONE && w->options->resume)
		unlink(w->options->resume); /* nothing is left to resume */
	else if (!keep_place(w, r))
		failed = EXIT_FAILED;
	report_text(r);
	if (w->options->json && report_json(w, r))
		failed = EXIT_FAILED;
	switch (r->stopped) {
	case SHOAL_WARM_SLOW:
		return EXIT_SLOW;
	case SHOAL_WARM_ERRORS:
		return EXIT_ERRORS;
	case SHOAL_WARM_BUSY:
		return EXIT_TIMEOUT;
	case SHOAL_WARM_CALLER:
		return w->signal ? 128 + w->signal : EXIT_FAILED;
	case SHOAL_WARM_DONE:
		return failed;
	default:
		return cli_failed(w->call, w->options->keys, outcome);
	}
}

/* ---- the verb ---------------------------------------------------------------------------------------------- */

static int warm_keyspace(struct warm *w, struct shoal_keyspace *k)
{
	const struct warm_options *o = w->options;
	struct shoal_warm config = {
		.per_second = o->rate,
		.stop_load_ms = o->stop_latency,
		.progress_ms = SHOAL_NONE, /* after each key: to see signals */
		.progress = progress,
		.total = count_keys(w),
	};
	struct shoal_warm_report report;
	sigset_t held;
	int r;

	if (o->stop_errors.given)
		config.stop_error_permille = isinf(o->stop_errors.share) ? SHOAL_NONE
		                             : o->stop_errors.share < 0.001
		                                     ? 1 /* 0 is the default */
		                                     : (unsigned)lrint(o->stop_errors.share * 1000);
	w->terminal = isatty(STDERR_FILENO);
	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTERM);
	sigaddset(&held, SIGHUP);
	sigprocmask(SIG_BLOCK, &held, &w->mask);
	r = shoal_warm_keys(k, next_key, load_key, w, &config, &report);
	return ended(w, &report, r);
}

static int open_and_warm(struct warm *w)
{
	const struct warm_options *o = w->options;
	struct shoal_policy policy = {.fresh_ms = o->fresh,
	                              .stale_ms = o->stale,
	                              .error_ms = o->stale_error,
	                              .lease_ms = o->lease,
	                              .schema = (uint32_t)o->schema};
	struct shoal_info info;
	struct shoal_keyspace *k;
	struct shoal *cache;
	int status = cli_attach(w->call, &o->cache, &cache), r;

	if (status)
		return status;
	w->limit = shoal_info(cache, &info) == SHOAL_OK ? info.max_entry : 0;
	r = cli_keyspace_or_make(cache, &o->keyspace, &policy, &k);
	status = r ? cli_failed(w->call, o->keyspace.name, r) : warm_keyspace(w, k);
	shoal_close(cache);
	return status;
}

static int check(const struct call *call)
{
	const struct warm_options *o = call->options;

	if (!o->keyspace.given)
		return cli_usage(call, "which keyspace? --keyspace NAME@VERSION");
	if (!o->keys)
		return cli_usage(call, "which keys? --keys FILE");
	if (!o->exec)
		return cli_usage(call, "what gives their values? --exec 'COMMAND {}'");
	if (o->resume && !strcmp(o->keys, "-"))
		return cli_usage(call, "--resume: there is no going back to a place in standard input");
	return EXIT_DONE;
}

static int warm(const struct call *call)
{
	const struct warm_options *o = call->options;
	struct warm w = {.call = call, .options = o};
	int status = check(call);
	const char *wrong;

	if (status)
		return status;
	w.text = strdup(o->exec);
	wrong = w.text ? words_cut(w.text, w.words, WORDS) : "no memory";
	if (wrong) {
		status = cli_usage(call, "--exec: '%s' %s", o->exec, wrong);
	} else if (!(w.keys = strcmp(o->keys, "-") ? fopen(o->keys, "re") : stdin)) {
		status = cli_usage(call, "%s: %s", o->keys, strerror(errno));
	} else {
		status = find_place(&w);
		status = status ? status : open_and_warm(&w);
		fclose(w.keys);
	}
	free(w.line);
	free(w.text);
	return status;
}

const struct verb verb_warm = {
	.name = "warm",
	.group = GROUP_RUN,
	.summary = "load the keys of a file ahead, slowly, and stop before it hurts",
	.options = warm_table,
	.size = sizeof(struct warm_options),
	.notes =
		"COMMAND is run without a shell; {} in it is the key. What it prints is the value. Exit status: "
		"0 all keys are dealt\n"
		"with, 5 no permit to load, 7 loads are slow, 8 loads fail, 128 + n told to end by signal n.\n"
		"\n"
		"  shoal warm --keyspace user@2 --keys hot.txt --exec './load-user {}' --rate 50/s "
		"--resume hot.place\n",
	.run = warm,
};
