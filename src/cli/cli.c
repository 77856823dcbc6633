/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- messages ---------------------------------------------------------------------------------------------- */

bool cli_colour(FILE *to)
{
	const char *none = secure_getenv("NO_COLOR"), *terminal = secure_getenv("TERM");

	return !(none && *none) && terminal && strcmp(terminal, "dumb") && isatty(fileno(to));
}

static void say(const struct call *call, const char *kind, const char *format, va_list args)
{
	bool colour = cli_colour(stderr);

	flockfile(stderr);
	fprintf(stderr, "shoal%s%s: ", call && call->verb ? " " : "", call && call->verb ? call->verb->name : "");
	if (*kind)
		fprintf(stderr, colour ? "\033[1m%s:\033[0m " : "%s: ", kind);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	funlockfile(stderr);
}

void cli_error(const struct call *call, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(call, "", format, args);
	va_end(args);
}

int cli_usage(const struct call *call, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(call, "", format, args);
	va_end(args);
	if (call && call->verb)
		fprintf(stderr, "see: shoal help %s\n", call->verb->name);
	else
		fputs("see: shoal help\n", stderr);
	return EXIT_USAGE;
}

bool cli_logs(enum cli_level level)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	const char *wanted = secure_getenv("SHOAL_LOG");
	unsigned i;

	for (i = 0; wanted && i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcasecmp(wanted, names[i]))
			return level <= i;
	return level <= LOG_WARNING;
}

void cli_log(const struct call *call, enum cli_level level, const char *format, ...)
{
	static const char *const kinds[] = {"", "warning", "note", "debug"};
	va_list args;

	if (!cli_logs(level))
		return;
	va_start(args, format);
	say(call, kinds[level], format, args);
	va_end(args);
}

int cli_status(int outcome)
{
	switch (outcome) {
	case SHOAL_OK:
		return EXIT_DONE;
	case SHOAL_MISS:
	case SHOAL_ERR_NOT_FOUND:
		return EXIT_NONE;
	case SHOAL_ERR_INVALID:
		return EXIT_USAGE;
	case SHOAL_ERR_LAYOUT:
	case SHOAL_ERR_PERMISSION:
	case SHOAL_ERR_LIMIT:
		return EXIT_CANNOT_ATTACH;
	case SHOAL_ERR_CORRUPT:
		return EXIT_CORRUPT;
	case SHOAL_ERR_TIMEOUT:
	case SHOAL_ERR_BUSY:
		return EXIT_TIMEOUT;
	default:
		return EXIT_FAILED;
	}
}

static const char *reason(int outcome)
{
	return outcome == SHOAL_ERR_SYSTEM ? strerror(errno) : shoal_strerror(outcome);
}

int cli_failed(const struct call *call, const char *what, int outcome)
{
	cli_error(call, "%s: %s", what, reason(outcome));
	return cli_status(outcome);
}

/* ---- the cache --------------------------------------------------------------------------------------------- */

const char *cli_cache_name(const struct cache_options *cache)
{
	const char *name = cache->name ? cache->name : secure_getenv("SHOAL_CACHE");

	return name && *name ? name : NULL;
}

/* What to do next. */
static const char *advice(int outcome, int error, bool create)
{
	switch (outcome) {
	case SHOAL_ERR_NOT_FOUND:
		return "start the program that makes it, or make it: shoal create (shoal info lists what is there)";
	case SHOAL_ERR_INVALID:
		if (create)
			return "a size or a limit that does not fit (--max-entry is size / 64 at most), or the "
			       "name: 1 to 63 of "
			       "A-Z a-z 0-9 . _ -, no dot first";
		return "a name is 1 to 63 of A-Z a-z 0-9 . _ - and begins with no dot; a path leads to a regular file";
	case SHOAL_ERR_PERMISSION:
		return "become the user it belongs to, or name that one with --owner if you trust them; "
		       "others may not write it";
	case SHOAL_ERR_LAYOUT:
		return "it was made by another release of the library, or it is no cache: "
		       "use the shoal command of that release";
	case SHOAL_ERR_CORRUPT:
		return "shoal destroy removes it; who opens it next makes a new one";
	case SHOAL_ERR_LIMIT:
		return "as many processes as it allows are attached: shoal reap, or a larger --max-processes "
		       "at its creation";
	case SHOAL_ERR_EXISTS:
		return "it is there: leave --exclusive out, or shoal destroy it first";
	case SHOAL_ERR_SYSTEM:
		return error == EACCES ? "become the user it belongs to" :
		       error == ENOSPC ? "ask for a smaller --size, or give /dev/shm more room" :
		       error == ENOMEM ? "ask for a smaller --size" : NULL;
	default:
		return NULL;
	}
}

static int cannot_open(const struct call *call, const char *name, int outcome, bool create)
{
	int error = errno;
	const char *next = advice(outcome, error, create);

	errno = error;
	cli_error(call, "cache '%s': %s", name, reason(outcome));
	if (next)
		fprintf(stderr, "%s\n", next);
	switch (outcome) {
	case SHOAL_ERR_CORRUPT:
		return EXIT_CORRUPT;
	case SHOAL_ERR_INVALID:
		return EXIT_USAGE;
	default:
		return EXIT_CANNOT_ATTACH;
	}
}

int cli_owner(const struct call *call, const char *owner, struct shoal_config *config)
{
	char *end;
	unsigned long id;
	const struct passwd *user;

	if (!owner)
		return EXIT_DONE;
	errno = 0;
	id = strtoul(owner, &end, 10);
	if (*owner >= '0' && *owner <= '9' && !*end && !errno && id < UINT32_MAX) {
		config->owner = (uid_t)id;
		return EXIT_DONE;
	}
	user = getpwnam(owner);
	if (!user)
		return cli_usage(call, "--owner: no user '%s'", owner);
	config->owner = user->pw_uid;
	return EXIT_DONE;
}

int cli_open(const struct call *call, const struct cache_options *cache, const struct shoal_config *config,
             struct shoal **to)
{
	const char *name = cli_cache_name(cache);
	struct shoal_config c = *config;
	int status, outcome;

	if (!name)
		return cli_usage(call, "which cache? --cache NAME, or SHOAL_CACHE in the environment");
	status = cli_owner(call, cache->owner, &c);
	if (status)
		return status;
	outcome = shoal_open(name, &c, to);
	if (outcome != SHOAL_OK)
		return cannot_open(call, name, outcome, !(c.flags & SHOAL_ATTACH));
	cli_log(call, LOG_DEBUG, "cache '%s' is open", name);
	return EXIT_DONE;
}

int cli_look(const struct call *call, const struct cache_options *cache, struct shoal **to)
{
	return cli_open(call, cache, &(struct shoal_config){.flags = SHOAL_ATTACH | SHOAL_INSPECT}, to);
}

int cli_attach(const struct call *call, const struct cache_options *cache, struct shoal **to)
{
	return cli_open(call, cache, &(struct shoal_config){.flags = SHOAL_ATTACH}, to);
}

static uint32_t or_recorded(uint32_t wanted, uint32_t recorded)
{
	return wanted ? wanted : recorded ? recorded : SHOAL_NONE;
}

/* One that is there. */
static int open_existing(struct shoal *cache, const struct option_keyspace *name, const struct shoal_policy *policy,
                         struct shoal_keyspace **to)
{
	struct shoal_policy p = policy ? *policy : (struct shoal_policy){0};
	struct shoal_keyspace_stats stats;
	struct shoal_keyspace *k;
	int outcome;

	p.flags |= SHOAL_EXISTING;
	outcome = shoal_keyspace_open(cache, name->name, name->version, &p, &k);
	if (outcome == SHOAL_OK)
		outcome = shoal_keyspace_stats(k, &stats);
	if (outcome == SHOAL_OK) {
		p.fresh_ms = or_recorded(p.fresh_ms, stats.fresh_ms);
		p.stale_ms = or_recorded(p.stale_ms, stats.stale_ms);
		p.error_ms = or_recorded(p.error_ms, stats.error_ms);
		p.lease_ms = or_recorded(p.lease_ms, stats.lease_ms);
		outcome = shoal_keyspace_open(cache, name->name, name->version, &p, to);
	}
	return outcome;
}

int cli_keyspace_or_make(struct shoal *cache, const struct option_keyspace *name, const struct shoal_policy *policy,
                         struct shoal_keyspace **to)
{
	int outcome = open_existing(cache, name, policy, to);

	return outcome == SHOAL_ERR_NOT_FOUND ? shoal_keyspace_open(cache, name->name, name->version, policy, to)
	                                      : outcome;
}

int cli_keyspace(const struct call *call, const struct cache_options *options, struct shoal *cache,
                 const struct option_keyspace *name, const struct shoal_policy *policy, struct shoal_keyspace **to)
{
	int outcome = open_existing(cache, name, policy, to);

	if (outcome == SHOAL_ERR_NOT_FOUND) {
		cli_error(call, "no keyspace '%s@%" PRIu32 "' in cache '%s'", name->name, name->version,
		          cli_cache_name(options));
		fputs("shoal stat lists those that are there\n", stderr);
		return EXIT_NONE;
	}
	return outcome == SHOAL_OK ? EXIT_DONE : cli_failed(call, name->name, outcome);
}
