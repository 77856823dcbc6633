/* SPDX-License-Identifier: MIT */
/* shoal: see, use and repair caches from a shell. The table of verbs, help, and what is the same for all of them. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_LINE(name) &verb_##name,
static const struct verb *const verbs[] = {VERBS(TABLE_LINE)};
#undef TABLE_LINE

#define COUNT (sizeof(verbs) / sizeof(verbs[0]))

const struct verb *cli_verb(size_t i)
{
	return i < COUNT ? verbs[i] : NULL;
}

const struct verb *cli_find_verb(const char *name)
{
	size_t i;

	for (i = 0; i < COUNT; i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

static const char *verb_name(size_t i, const void *arg)
{
	return verbs[i]->name;
}

const char *cli_nearest_verb(const char *name)
{
	return options_nearest(name, verb_name, COUNT, NULL);
}

static void list_verbs(FILE *to)
{
	static const char *const groups[] = {
		[GROUP_SEGMENTS] = "caches", [GROUP_WATCH] = "watching",      [GROUP_ENTRIES] = "entries",
		[GROUP_RUN] = "commands",    [GROUP_MOVE] = "moving entries", [GROUP_HELP] = "help",
	};
	size_t i;

	fputs("usage: shoal VERB [OPTION...] [ARGUMENT...]\n", to);
	for (i = 0; i < COUNT; i++) {
		if (!i || verbs[i]->group != verbs[i - 1]->group)
			fprintf(to, "\n%s\n", groups[verbs[i]->group]);
		fprintf(to, "  %-11s %s\n", verbs[i]->name, verbs[i]->summary);
	}
	fputs("\nshoal help VERB or shoal VERB --help tell the rest. The environment's SHOAL_CACHE names the cache "
	      "where --cache\n"
	      "does not. See shoal(1), and shoal(7) for what a cache, a keyspace, fresh and stale are.\n", to);
}

void cli_help(const struct verb *verb, FILE *to)
{
	if (!verb) {
		list_verbs(to);
		return;
	}
	fprintf(to, "usage: shoal %s [OPTION...]%s%s\n\n%s\n\n", verb->name, verb->arguments ? " " : "",
	        verb->arguments ? verb->arguments : "", verb->summary);
	options_help(verb->options, to);
	if (verb->notes)
		fprintf(to, "\n%s", verb->notes);
}

static int no_verb(const char *name)
{
	const char *near = cli_nearest_verb(name);

	if (near)
		return cli_usage(NULL, "no verb '%s': did you mean '%s'?", name, near);
	return cli_usage(NULL, "no verb '%s'", name);
}

static int run(const struct verb *verb, int argc, char **argv)
{
	void *values = calloc(1, verb->size ? verb->size : 1);
	struct call call = {.verb = verb, .options = values};
	char error[OPTION_ERROR];
	int at, status;

	if (!values) {
		cli_error(&call, "no memory");
		return EXIT_FAILED;
	}
	at = options_parse(verb->options, verb->early, argc, argv, values, error);
	call.count = argc - at;
	call.arguments = argv + at;
	if (at == OPTIONS_HELP)
		cli_help(verb, stdout), status = EXIT_DONE;
	else if (at == OPTIONS_WRONG)
		status = cli_usage(&call, "%s", error);
	else if (call.count < verb->least)
		status = cli_usage(&call, "it needs %s", verb->arguments);
	else if (call.count > verb->most)
		status = cli_usage(&call, "one argument too many: '%s'", call.arguments[verb->most]);
	else
		status = verb->run(&call);
	free(values);
	return status;
}

static int dispatch(int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 2) {
		cli_help(NULL, stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return run(&verb_help, argc - 1, argv + 1);
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		return run(&verb_version, argc - 1, argv + 1);
	if (*argv[1] == '-')
		return cli_usage(NULL, "the verb comes first, then its options: '%s'", argv[1]);
	verb = cli_find_verb(argv[1]);
	return verb ? run(verb, argc - 1, argv + 1) : no_verb(argv[1]);
}

/* A standard stream that is closed must not become the next file that is opened: what is printed would be written
 * there. It is opened the wrong way round, so that using it is an error still. */
static bool hold_streams(void)
{
	int fd;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	int status = hold_streams() ? dispatch(argc, argv) : EXIT_FAILED;

	if (fflush(stdout) || ferror(stdout)) {
		cli_error(NULL, "standard output: %s", strerror(errno));
		return EXIT_FAILED;
	}
	return status;
}

/* ---- help, version ----------------------------------------------------------------------------------------- */

static const struct option_spec no_options[] = {OPTIONS_END};

static int help(const struct call *call)
{
	const struct verb *verb = call->count ? cli_find_verb(call->arguments[0]) : NULL;

	if (call->count && !verb)
		return no_verb(call->arguments[0]);
	cli_help(verb, stdout);
	return EXIT_DONE;
}

const struct verb verb_help = {
	.name = "help", .group = GROUP_HELP,
	.summary = "what there is, or how a verb is used",
	.arguments = "[VERB]", .most = 1,
	.options = no_options,
	.run = help,
};

static int version(const struct call *call)
{
	printf("shoal %s, layout %u\n", shoal_version(), shoal_layout());
	return EXIT_DONE;
}

const struct verb verb_version = {
	.name = "version", .group = GROUP_HELP,
	.summary = "the version of the library that is used, and of the layout of its caches",
	.options = no_options,
	.run = version,
};
