/* SPDX-License-Identifier: MIT */
/*
 * shoal-demo-load: the demo's load generator.
 *
 * A closed loop: each connection asks for the next item as soon as it has its answer, so a slow answer is a visitor
 * who waits. wrk does that part as well; what it can't do is act in the middle (let the keys expire, have a worker
 * killed), replay a trace, check that the answer is the asked item's, and write down what happened when.
 *
 * An act: READY (the server's counters are read) -> FILL (each hot key once, if asked) -> RUN -> DRAIN (no new
 * requests; those on their way are waited for and belong to the act) -> DONE. The figures of an act in which something
 * happens are taken from the first such moment on: thousands of quick answers before it would only hide it.
 */
#include "client.h"
#include "control.h"
#include "record.h"
#include "stream.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define TICK_NS 100000000u
#define FILL_SECONDS 40
#define DRAIN_SECONDS 15

enum phase { READY, FILL, RUN, DRAIN, DONE };

struct load {
	unsigned port, connections, keys;
	double seconds;
	const char *act, *mode, *label, *trace, *csv, *summary;
	int fill, terminal;

	enum phase phase;
	uint64_t phase_began, run_began;
	unsigned filled, polls_before;
	double figures_from; /* seconds into the act */
	int epoll_fd;
	struct client *clients;
	struct control control;
	struct stream stream;
	struct record record;
	uint64_t lost, refused, wrong, unfinished; /* the errors, by kind */
};

static double since(uint64_t began)
{
	return (double)(client_now() - began) / 1e9;
}

static unsigned busy(const struct load *load)
{
	unsigned n = 0;

	for (unsigned i = 0; i < load->connections; i++)
		n += load->clients[i].busy != 0;
	return n;
}

static int measuring(const struct load *load)
{
	return load->phase == RUN || load->phase == DRAIN;
}

static void error(struct load *load, struct client *client, uint64_t *kind)
{
	if (!measuring(load))
		return;
	(*kind)++;
	record_error(&load->record, (client_now() - client->sent_ns) / 1000);
}

/* A request that fails at once is an error; its connection is used again at the next tick. */
static void ask(struct load *load, struct client *client)
{
	struct stream_request request;
	char path[64];

	if (load->phase == RUN)
		request = stream_next(&load->stream);
	else if (load->phase == FILL && load->filled < load->keys)
		request = (struct stream_request){.id = ++load->filled};
	else
		return;
	client->tag = request.id;
	if (request.size)
		snprintf(path, sizeof(path), "/item/%u?size=%u", request.id, request.size);
	else
		snprintf(path, sizeof(path), "/item/%u", request.id);
	if (client_send(client, "GET", path) == CLIENT_LOST)
		error(load, client, &load->lost);
}

static void take(struct load *load, struct client *client)
{
	char begin[32];
	int n = snprintf(begin, sizeof(begin), "{\"item\":%u,", client->tag);

	if (client->status != 200)
		error(load, client, &load->refused);
	else if (strncmp(client->text, begin, (size_t)n) != 0)
		error(load, client, &load->wrong);
	else if (measuring(load))
		record_answer(&load->record, (client_now() - client->sent_ns) / 1000);
}

static void ready(struct load *load, void *who)
{
	struct client *client = who;

	if (client == &load->control.client) {
		control_ready(&load->control);
		return;
	}
	switch (client_ready(client)) {
	case CLIENT_PENDING:
		return;
	case CLIENT_ANSWER:
		take(load, client);
		break;
	case CLIENT_LOST:
		error(load, client, &load->lost);
		break;
	}
	ask(load, client);
}

static void progress(const struct load *load)
{
	static unsigned ticks;
	const struct record *record = &load->record;

	if (++ticks % (load->terminal ? 3 : 20))
		return;
	printf("%s  %-28s ", load->terminal ? "\r\033[K" : "", load->label);
	if (load->phase < RUN)
		printf("warming up");
	else
		printf("%5.1f of %.0f s  %8llu answers  %5llu queries  %3llu errors", since(load->run_began),
		       load->seconds, (unsigned long long)record->answers,
		       (unsigned long long)(record->queries - record->first_queries),
		       (unsigned long long)record->errors);
	printf("%s", load->terminal ? "" : "\n");
	fflush(stdout);
}

static struct lookups lookups(const struct load *load)
{
	return (struct lookups){
		.epoch = control_counter(&load->control, "epoch"),
		.hits = control_counter(&load->control, "hits"),
		.count = control_counter(&load->control, "lookups"),
	};
}

static void enter(struct load *load, enum phase phase)
{
	load->phase = phase;
	load->phase_began = client_now();
	if (phase != RUN)
		return;
	load->run_began = load->phase_began;
	load->record.queries = control_counter(&load->control, "queries");
	load->record.first_queries = load->record.tick_queries = load->record.queries;
	load->record.counted = lookups(load);
}

static void wake_idle(struct load *load)
{
	for (unsigned i = 0; i < load->connections; i++)
		if (!load->clients[i].busy)
			ask(load, &load->clients[i]);
}

/* What is still on its way has waited this long and had no answer. */
static void give_up(struct load *load)
{
	for (unsigned i = 0; i < load->connections; i++) {
		if (!load->clients[i].busy)
			continue;
		error(load, &load->clients[i], &load->unfinished);
		client_close(&load->clients[i]);
	}
}

/* Counters that were asked for after the last answer came. */
static int final_counters(struct load *load)
{
	return load->control.polls >= load->polls_before + 2 || since(load->phase_began) > DRAIN_SECONDS;
}

static void step(struct load *load)
{
	double at = since(load->phase_began);

	switch (load->phase) {
	case READY:
		if (load->control.polls)
			enter(load, load->fill ? FILL : RUN);
		break;
	case FILL:
		/* The counters must be newer than the last of the filling, too. */
		if (load->filled < load->keys || busy(load))
			load->polls_before = load->control.polls;
		if (load->control.polls >= load->polls_before + 2 || at > FILL_SECONDS)
			enter(load, RUN);
		break;
	case RUN:
		if (at >= load->seconds) {
			load->polls_before = load->control.polls;
			enter(load, DRAIN);
		}
		break;
	case DRAIN:
		if (busy(load) && at < DRAIN_SECONDS) {
			load->polls_before = load->control.polls;
			break;
		}
		give_up(load);
		if (final_counters(load))
			load->phase = DONE;
		break;
	case DONE:
		break;
	}
	wake_idle(load);
}

static void tick(struct load *load)
{
	if (measuring(load)) {
		struct lookups now = lookups(load);

		load->record.queries = control_counter(&load->control, "queries");
		record_hits(&load->record, &now);
		if (load->phase == RUN || busy(load))
			record_tick(&load->record, since(load->run_began));
	}
	step(load);
	control_tick(&load->control, load->phase < RUN ? -1 : since(load->run_began), stream_hottest(&load->stream));
	if (load->control.acting && load->figures_from == 0) {
		load->figures_from = since(load->run_began);
		record_restart(&load->record);
	}
	progress(load);
}

/* Returns -1 when the server doesn't answer. */
static int run(struct load *load)
{
	struct epoll_event events[128];
	uint64_t next = client_now();

	enter(load, READY);
	while (load->phase != DONE) {
		uint64_t now = client_now();
		int n;

		if (now >= next) {
			tick(load);
			next += TICK_NS;
			if (load->phase == READY && since(load->phase_began) > 10)
				return -1;
			continue;
		}
		n = epoll_wait(load->epoll_fd, events, 128, (int)((next - now) / 1000000 + 1));
		for (int i = 0; i < n; i++)
			ready(load, events[i].data.ptr);
	}
	return 0;
}

/* The columns are named in demo.sh, which makes its table of these lines. */
static int summarize(struct load *load)
{
	const struct record *record = &load->record;
	FILE *file = load->summary ? fopen(load->summary, "a") : NULL;

	if (load->terminal)
		printf("\r\033[K");
	printf("  %-28s %8llu answers, %llu queries, %llu errors\n", load->label, (unsigned long long)record->answers,
	       (unsigned long long)(record->queries - record->first_queries), (unsigned long long)record->errors);
	if (!load->summary)
		return 0;
	if (!file)
		return -1;
	fprintf(file, "%s\t%s\t%llu\t%.0f\t%.2f\t%.2f\t%.0f\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%.1f\n",
	        load->act, load->mode, (unsigned long long)(record->queries - record->first_queries),
	        (double)record->all.count / (load->seconds - load->figures_from), histogram_ms(&record->all, 0.5),
	        histogram_ms(&record->all, 0.99), (double)record->all.max_us / 1000, (unsigned long long)record->errors,
	        (unsigned long long)load->lost, (unsigned long long)load->refused, (unsigned long long)load->wrong,
	        (unsigned long long)load->unfinished,
	        (unsigned long long)control_counter(&load->control, "killed_loading"), record->lowest_percent);
	return fclose(file);
}

static void usage(FILE *out)
{
	fputs("usage: shoal-demo-load --port PORT --act cold|expire|kill|switch [--mode NAME] [--label TEXT]\n"
	      "       [--seconds S] [--connections N] [--keys N | --trace FILE] [--fill] [--csv FILE] "
	      "[--summary FILE]\n",
	      out);
}

static int parse(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},    {"act", required_argument, NULL, 'a'},
		{"mode", required_argument, NULL, 'm'},    {"label", required_argument, NULL, 'l'},
		{"seconds", required_argument, NULL, 's'}, {"connections", required_argument, NULL, 'c'},
		{"keys", required_argument, NULL, 'k'},    {"trace", required_argument, NULL, 't'},
		{"fill", no_argument, NULL, 'f'},          {"csv", required_argument, NULL, 'v'},
		{"summary", required_argument, NULL, 'y'}, {"help", no_argument, NULL, 'h'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'p': load->port = (unsigned)atoi(optarg); break;
		case 'a': load->act = optarg; break;
		case 'm': load->mode = optarg; break;
		case 'l': load->label = optarg; break;
		case 's': load->seconds = atof(optarg); break;
		case 'c': load->connections = (unsigned)atoi(optarg); break;
		case 'k': load->keys = (unsigned)atoi(optarg); break;
		case 't': load->trace = optarg; break;
		case 'f': load->fill = 1; break;
		case 'v': load->csv = optarg; break;
		case 'y': load->summary = optarg; break;
		case 'h': usage(stdout); exit(0);
		default: return -1;
		}
	}
	if (optind < argc || !load->port || !load->act || !load->keys || !load->connections || load->connections > 4096)
		return -1;
	return load->seconds > 0 && load->seconds <= 300 ? 0 : -1;
}

static int prepare(struct load *load)
{
	int rc = load->trace ? stream_trace(&load->stream, load->trace)
	                     : stream_zipf(&load->stream, load->keys, 0.99, 42);

	if (rc) {
		fprintf(stderr, "shoal-demo-load: %s:%s\n", load->trace ? load->trace : "stream",
		        load->trace ? load->stream.trace.error : " out of memory");
		return -1;
	}
	load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	load->clients = calloc(load->connections, sizeof(*load->clients));
	if (load->epoll_fd < 0 || !load->clients || record_open(&load->record, load->csv)) {
		fprintf(stderr, "shoal-demo-load: %s\n", strerror(errno));
		return -1;
	}
	for (unsigned i = 0; i < load->connections; i++)
		client_init(&load->clients[i], load->epoll_fd, load->port);
	if (control_init(&load->control, load->epoll_fd, load->port, load->act, load->seconds)) {
		fprintf(stderr, "shoal-demo-load: no such act: %s\n", load->act);
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct load load = {.connections = 64, .keys = 100, .seconds = 10, .mode = "-", .label = ""};

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	load.terminal = isatty(STDOUT_FILENO);
	if (parse(&load, argc, argv)) {
		usage(stderr);
		return 2;
	}
	if (prepare(&load))
		return 1;
	if (run(&load)) {
		fprintf(stderr, "shoal-demo-load: no answer at port %u\n", load.port);
		return 1;
	}
	if (load.control.refused)
		fprintf(stderr, "shoal-demo-load: the server refused %u of the act's actions\n", load.control.refused);
	return record_close(&load.record) || summarize(&load) ? 1 : 0;
}
