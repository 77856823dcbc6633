/* SPDX-License-Identifier: MIT */
/*
 * shoal-bench: the library beside other caches, and beside what any cache has to do at least. See options.c.
 */
#include "measure.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST "bound,shoal"

static int run_read(const struct options *o, json_t *report)
{
	return measure(o, report, FIRST ",shoal-get", "overlapped,isolated");
}

static int run_mixed(const struct options *o, json_t *report)
{
	return measure(o, report, FIRST, "mixed");
}

static int run_set(const struct options *o, json_t *report)
{
	return measure(o, report, FIRST, "set");
}

static int run_multiget(const struct options *o, json_t *report)
{
	return measure(o, report, FIRST ",shoal-get", "overlapped,many");
}

static int run_scale(const struct options *o, json_t *report)
{
	return measure(o, report, FIRST, "overlapped,isolated");
}

static const struct command {
	const char *name;
	int (*run)(const struct options *o, json_t *report);
} commands[] = {
	{"read", run_read},         {"mixed", run_mixed},     {"set", run_set},   {"multiget", run_multiget},
	{"scale", run_scale},       {"stampede", stampede},   {"coldstart", coldstart},
	{"attach", attach},
};

/* The program beside this one. */
static int replay(char **argv)
{
	char path[PATH_MAX], program[PATH_MAX + 16];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = 0;
	snprintf(program, sizeof(program), "%s/shoal-replay", dirname(path));
	execv(program, argv);
	perror(program);
	return 1;
}

static int list_peers(void)
{
	for (unsigned i = 0; peers[i]; i++)
		printf("%-18s %s\n", peers[i]->name, peers[i]->what);
	return 0;
}

struct call {
	const struct command *command;
	const struct options *options;
};

static void call(void *arg)
{
	const struct call *c = arg;
	json_t *report = report_new(c->options);
	int rc = c->command->run(c->options, report) || report_write(report, c->options);

	json_decref(report);
	if (fflush(stdout))
		rc = 1;
	_exit(rc ? 1 : 0);
}

static volatile sig_atomic_t child;

static void on_signal(int number)
{
	kill(child, SIGTERM);
}

/* In a child, so that somebody tidies up when it is interrupted. */
static int run(const struct command *command, struct options *options)
{
	struct call c = {command, options};
	int status = -1;

	options->command = command->name;
	if (directory_begin())
		return 1;
	child = crew_fork(call, &c);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	directory_end();
	options_free(options);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	struct options options;
	int rc;

	if (!strcmp(name, "replay"))
		return replay(argv + 1);
	if (!strcmp(name, "peers"))
		return list_peers();
	options_default(&options);
	rc = options_parse(&options, argc - 1, argv + 1);
	if (rc > 0 || !strcmp(name, "--help"))
		return options_usage(), 0;
	for (unsigned i = 0; !rc && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			return run(&commands[i], &options);
	if (!rc)
		fprintf(stderr, "shoal-bench: no command '%s' (see --help)\n", name);
	return 2;
}
