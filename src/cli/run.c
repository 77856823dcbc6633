/* SPDX-License-Identifier: MIT */
/*
 * shoal run: what a command writes, and its status, through the cache.
 *
 *   begin -> OK        replay it
 *         -> REFRESH   leave the refresh to a process behind us, and replay what is stale
 *         -> LEAD      run the command, and store what it wrote (lead.c)
 *         -> WAIT      for another's run, then as above
 *         -> LOAD      it failed a moment ago: replay that
 *         -> no cache  become the command
 *
 * A failure is no value: shoal_load_fail() tells it to those who wait, so that what is stale may be served in its place
 * and failures are counted as such. What it wrote is in a second keyspace, "NAME.failed", for a while.
 *
 * The refresh behind us. A load is of the process that began it, so the one behind us has to begin it. So that not
 * every caller starts one, we have won the refresh first, and give it up when the one behind is ready to take it:
 *
 *        we      REFRESH ... fork ---------- cancel, replay, exit
 *        behind               own session, own handle: ready | begin -> run, store; or another was faster: exit
 *
 * If we are killed between, our load is as any dead leader's. If the one behind is, the next who asks wins the refresh.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "units.h"

#define MARK "SHOAL_RUN_WITHIN="

static const struct option_spec run_table[] = {
	OPTION_CACHE(struct run_options),
	{"key", 0, OPTION_TEXT(struct run_options, key), "KEY", "what names the output", 0},
	{"key-from-args", 'a', OPTION_FLAG(struct run_options, key_from_args), NULL,
	 "the command and its arguments name it", 0},
	{"env", 'e', OPTION_LIST(struct run_options, env), "VARIABLE",
	 "so does this variable of the environment; repeatable", 0},
	{"cwd", 0, OPTION_FLAG(struct run_options, cwd), NULL, "so does the current directory", 0},
	{"keyspace", 'k', OPTION_KEYSPACE(struct run_options, keyspace), "NAME[@VERSION]", "the keyspace (run@1)", 0},
	{"fresh", 'f', OPTION_DURATION(struct run_options, fresh), "DURATION", "how long an output is fresh (60s)", 0},
	{"stale", 's', OPTION_DURATION(struct run_options, stale), "DURATION",
	 "how long after that it is served while one refreshes it (none)", 0},
	{"stale-error", 'S', OPTION_DURATION(struct run_options, stale_error), "DURATION",
	 "how long after that it is served if the command fails (none)", 0},
	{"timeout", 't', OPTION_DURATION(struct run_options, timeout), "DURATION",
	 "wait no longer than that for another's run: exit 5 (forever)", 0},
	{"max-loads", 'n', OPTION_COUNT(struct run_options, max_loads), "N",
	 "commands of this keyspace that run at once (any)", 0},
	{"retry", 0, OPTION_DURATION(struct run_options, retry), "DURATION",
	 "after a failure, no other run for so long; doubled for each in a row, up to 1m (1s)", 0},
	{"refresh-limit", 0, OPTION_DURATION(struct run_options, refresh_limit), "DURATION",
	 "how long a refresh in the background may take (5m)", 0},
	{"cache-failures", 0, OPTION_FLAG(struct run_options, cache_failures), NULL,
	 "keep the output of a command that fails as any other", 0},
	OPTIONS_END,
};

/* ---- the key ----------------------------------------------------------------------------------------------- */

static const char *wrong_variable(const struct option_list *env)
{
	unsigned i;

	for (i = 0; i < env->count; i++)
		if (!*env->items[i] || strchr(env->items[i], '=') || *env->items[i] == '/')
			return env->items[i];
	return NULL;
}

/*
 * KEY, or nothing, the number of arguments and each of them; then VARIABLE=VALUE, or VARIABLE if it is not set; then
 * the directory, which begins with a slash. A zero byte between any two. So different ones never have the same key, and
 * `shoal keys` shows what they are.
 */
static bool build_key(struct run *run)
{
	const struct run_options *o = run->options;
	FILE *to = open_memstream(&run->key, &run->key_size);
	char *cwd = o->cwd ? getcwd(NULL, 0) : NULL;
	const char *value;
	unsigned i;
	int n;

	if (!to || (o->cwd && !cwd))
		return false;
	if (o->key)
		fputs(o->key, to);
	else
		fprintf(to, "%c%d", 0, run->call->count);
	for (n = 0; !o->key && n < run->call->count; n++)
		fprintf(to, "%c%s", 0, run->call->arguments[n]);
	for (i = 0; i < o->env.count; i++) {
		value = getenv(o->env.items[i]);
		fprintf(to, "%c%s%s%s", 0, o->env.items[i], value ? "=" : "", value ? value : "");
	}
	if (cwd)
		fprintf(to, "%c%s", 0, cwd);
	free(cwd);
	return !fclose(to);
}

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
	const unsigned char *bytes = data;

	while (size--)
		hash = (hash ^ *bytes++) * 0x100000001b3; /* FNV-1a */
	return hash;
}

/* A command that asks for the output it is about to make would wait for itself. Its environment says what it is within;
 * false: it is within this very key. */
static bool mark(struct run *run)
{
	const char *within = getenv("SHOAL_RUN_WITHIN");
	uint64_t hash = 0xcbf29ce484222325;
	char word[18];

	hash = mix(hash, cli_cache_name(&run->cache), strlen(cli_cache_name(&run->cache)) + 1);
	hash = mix(hash, run->keyspace.name, sizeof(run->keyspace.name));
	hash = mix(hash, &run->keyspace.version, sizeof(run->keyspace.version));
	hash = mix(hash, run->key, run->key_size);
	snprintf(word, sizeof(word), "%016" PRIx64 " ", hash);
	if (within && strstr(within, word))
		return false;
	return asprintf(&run->mark, MARK "%s%s", within ? within : "", word) > 0;
}

/* ---- the cache --------------------------------------------------------------------------------------------- */

static int open_outputs(struct run *run)
{
	const struct run_options *o = run->options;
	struct shoal_policy policy = {
		.fresh_ms = o->fresh,
		.stale_ms = o->stale,
		.error_ms = o->stale_error,
		.retry_ms = o->retry,
		.wait_ms = o->timeout ? o->timeout : SHOAL_FOREVER,
		.lease_ms = RUN_LEASE_MS,
		.schema = 1, /* the version of the frame */
		.max_loads = (uint32_t)o->max_loads,
		.early = -1, /* what is fresh isn't run behind anybody's back */
	};

	return shoal_keyspace_open(run->shoal, run->keyspace.name, run->keyspace.version, &policy, &run->outputs);
}

struct shoal_keyspace *run_failures(struct run *run)
{
	struct shoal_policy policy = {.fresh_ms = RUN_FAILURE_MS, .schema = 1};
	struct shoal_keyspace *k;
	char name[sizeof(run->keyspace.name) + 8];

	snprintf(name, sizeof(name), "%s.failed", run->keyspace.name);
	return shoal_keyspace_open(run->shoal, name, run->keyspace.version, &policy, &k) ? NULL : k;
}

int run_open(struct run *run)
{
	struct shoal_config config = {.max_processes = 1000, .max_threads = 1000};
	int status = cli_open(run->call, &run->cache, &config, &run->shoal), r;

	if (status)
		return status;
	r = open_outputs(run);
	if (!r)
		return EXIT_DONE;
	cli_failed(run->call, run->keyspace.name, r);
	run_close(run);
	return EXIT_CANNOT_ATTACH;
}

void run_close(struct run *run)
{
	shoal_close(run->shoal);
	run->shoal = NULL;
}

/* ---- serving ----------------------------------------------------------------------------------------------- */

static bool write_all(int fd, const unsigned char *data, size_t size)
{
	struct pollfd room = {fd, POLLOUT, 0};
	ssize_t n;

	for (; size; data += n, size -= (size_t)n) {
		n = write(fd, data, size);
		if (n < 0 && errno == EAGAIN)
			poll(&room, 1, -1);
		else if (n < 0 && errno != EINTR)
			return false;
		n = n < 0 ? 0 : n;
	}
	return true;
}

int run_replay(const struct run *run, const void *bytes, size_t size, unsigned status)
{
	struct frame_place place = {0};
	struct frame_part part;

	while (frame_at(bytes, size, &place, &part)) {
		if (!write_all(part.error ? STDERR_FILENO : STDOUT_FILENO, part.data, part.size)) {
			cli_error(run->call, "%s: %s", part.error ? "standard error" : "standard output",
			          strerror(errno));
			return EXIT_FAILED;
		}
		place.done += part.size;
	}
	return (int)status;
}

static void say_stale(const struct run *run, const struct shoal_value *value)
{
	char age[UNIT_TEXT];

	if (value->freshness == SHOAL_STALE && value->load_error)
		cli_log(run->call, LOG_WARNING, "%s has failed with status %d: this is its output of %s ago",
		        run->call->arguments[0], value->load_error, unit_duration_text((int64_t)value->age_ms, age));
}

/* A copy: a reader may take its time, and what is in hand keeps memory from being reused. 0:
 * it is no frame, and gone. */
static void *take(struct shoal_keyspace *k, const struct run *run, struct shoal_value *value, unsigned *status)
{
	void *copy = NULL;

	if (frame_check(value->data, value->size, status) && (copy = malloc(value->size)))
		memcpy(copy, value->data, value->size);
	if (copy)
		shoal_release(value);
	else
		shoal_reject(k, run->key, run->key_size, value);
	return copy;
}

static int serve(struct run *run, struct shoal_keyspace *k, struct shoal_value *value, bool *served)
{
	size_t size = value->size;
	unsigned status;
	void *copy;
	int r;

	say_stale(run, value);
	copy = take(k, run, value, &status);
	*served = copy;
	if (!copy)
		return EXIT_FAILED;
	run_close(run);
	r = run_replay(run, copy, size, status);
	free(copy);
	return r;
}

static int serve_failure(struct run *run, int code)
{
	struct shoal_keyspace *failures = run_failures(run);
	struct shoal_value value;
	bool served = false;
	int r = code & 0xff ? code & 0xff : EXIT_FAILED;

	if (failures && shoal_get(failures, run->key, run->key_size, &value) == SHOAL_OK)
		serve(run, failures, &value, &served);
	if (!served)
		cli_error(run->call, "%s has just failed with status %d, and what it wrote isn't there",
		          run->call->arguments[0], r);
	return r;
}

/* ---- the refresh behind us --------------------------------------------------------------------------------- */

static void close_from_to(unsigned from, unsigned to)
{
	long most = sysconf(_SC_OPEN_MAX);

	if (from > to || !close_range(from, to, 0))
		return;
	most = most > 0 && most < 65536 ? most : 65536;
	for (; from <= to && from < most; from++) /* before Linux 5.9, or not allowed */
		close((int)from);
}

/* Nothing of our caller's is kept open: it may wait for the end of a pipe, or hold a lock by a descriptor. */
static bool leave_descriptors(int ready, int go)
{
	unsigned low = (unsigned)(ready < go ? ready : go), high = (unsigned)(ready < go ? go : ready);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
		return false;
	close_from_to(STDERR_FILENO + 1, low - 1);
	close_from_to(low + 1, high - 1);
	close_from_to(high + 1, ~0u);
	return true;
}

static void refresh(struct run *run, int ready, int go)
{
	struct shoal_load *load;
	struct shoal_value value;
	char byte = 0;
	int r;

	setsid();
	run_close(run);
	if (!leave_descriptors(ready, go) || run_open(run) || write(ready, &byte, 1) != 1)
		return;
	close(ready);
	if (read(go, &byte, 1) < 0) /* until it is closed */
		return;
	close(go);
	r = shoal_begin(run->outputs, run->key, run->key_size, &load, &value);
	shoal_release(&value);
	if (r == SHOAL_REFRESH || r == SHOAL_LEAD)
		lead_run(run, load, true);
	else if (r == SHOAL_WAIT)
		shoal_load_cancel(load);
	run_close(run);
}

static void refresh_behind(struct run *run, struct shoal_load *load)
{
	int ready[2] = {-1, -1}, go[2] = {-1, -1};
	char byte;
	pid_t pid = -1;

	if (!command_pipe(ready) && !command_pipe(go))
		pid = fork();
	if (!pid) {
		close(ready[0]);
		close(go[1]);
		shoal_load_cancel(load); /* the handle alone: the load is our parent's */
		refresh(run, ready[1], go[0]);
		_exit(0);
	}
	if (pid > 0) {
		close(ready[1]);
		ready[1] = -1;
		while (read(ready[0], &byte, 1) < 0 && errno == EINTR)
			;
	}
	shoal_load_cancel(load);
	command_close_pipe(ready);
	command_close_pipe(go);
}

/* ---- the verb ---------------------------------------------------------------------------------------------- */

static int too_late(const struct run *run, int outcome)
{
	char time[UNIT_TEXT];

	cli_error(run->call, "%s after %s", outcome == SHOAL_ERR_BUSY ? "no permit to run it" : "another still runs it",
	          unit_duration_text(run->options->timeout == SHOAL_NONE ? 0 : run->options->timeout, time));
	return EXIT_TIMEOUT;
}

static int plain(struct run *run, const char *why)
{
	if (why)
		cli_log(run->call, LOG_WARNING, "%s: %s runs uncached", why, run->call->arguments[0]);
	run_close(run);
	return command_exec(run->call->arguments);
}

static int begin(struct run *run, struct shoal_load **load, struct shoal_value *value)
{
	uint32_t timeout = run->options->timeout;
	int r = shoal_begin(run->outputs, run->key, run->key_size, load, value);

	if (r != SHOAL_WAIT)
		return r;
	r = shoal_wait(*load, timeout == SHOAL_NONE ? 0 : timeout ? timeout : SHOAL_FOREVER, value);
	if (r < 0)
		shoal_load_cancel(*load);
	return r;
}

static int through_cache(struct run *run)
{
	struct shoal_load *load;
	struct shoal_value value;
	bool served = false;
	int i, r, status;

	for (i = 0; i < 3; i++) { /* what isn't a frame is thrown out, and then it is run */
		r = begin(run, &load, &value);
		switch (r) {
		case SHOAL_REFRESH:
			refresh_behind(run, load);
			/* fall through */
		case SHOAL_OK:
			status = serve(run, run->outputs, &value, &served);
			if (served)
				return status;
			break;
		case SHOAL_LEAD:
			return lead_run(run, load, false);
		case SHOAL_ERR_LOAD:
			return serve_failure(run, value.load_error);
		case SHOAL_ERR_TIMEOUT:
		case SHOAL_ERR_BUSY:
			return too_late(run, r);
		default:
			return plain(run, shoal_strerror(r));
		}
	}
	return plain(run, "what is stored is not understood");
}

static int check(const struct call *call)
{
	const struct run_options *o = call->options;
	const char *wrong = wrong_variable(&o->env);

	if (!o->key == !o->key_from_args)
		return cli_usage(call, "what names the output? either --key KEY or --key-from-args");
	if (o->key && !*o->key)
		return cli_usage(call, "--key: an empty one names nothing");
	if (wrong)
		return cli_usage(call, "--env: '%s' is no name of a variable", wrong);
	if (o->keyspace.given && strlen(o->keyspace.name) + strlen(".failed") > 63)
		return cli_usage(call, "--keyspace: '%s' is too long: up to 56 characters here", o->keyspace.name);
	if (o->retry == SHOAL_NONE)
		return cli_usage(call,
		                 "--retry: has to be more than 0, so that those who wait for a run share its failure");
	return EXIT_DONE;
}

static int with_key(struct run *run)
{
	int status;

	if (!build_key(run))
		return plain(run, "no key");
	if (run->key_size > KEY_MOST)
		return plain(run, "the key would be longer than 65535 bytes");
	if (!mark(run))
		return plain(run, "it is run by a run of this very key");
	status = run_open(run);
	if (status)
		return status == EXIT_USAGE ? status : plain(run, "no cache");
	status = through_cache(run);
	run_close(run);
	return status;
}

static int run_verb(const struct call *call)
{
	const struct run_options *o = call->options;
	struct run run = {.call = call, .options = o, .cache = o->cache, .keyspace = o->keyspace};
	int status = check(call);

	if (status)
		return status;
	if (!cli_cache_name(&run.cache)) {
		snprintf(run.name, sizeof(run.name), "run-%u", (unsigned)geteuid());
		run.cache.name = run.name;
	}
	if (!run.keyspace.given)
		options_keyspace("run@1", &run.keyspace);
	status = with_key(&run);
	free(run.key);
	free(run.mark);
	return status;
}

const struct verb verb_run = {
	.name = "run",
	.group = GROUP_RUN,
	.summary = "run a command, or get what it wrote when it was run before",
	.arguments = "[--] COMMAND [ARGUMENT...]",
	.least = 1,
	.most = ANY_NUMBER,
	.early = true,
	.options = run_table,
	.size = sizeof(struct run_options),
	.notes =
		"Of all processes of this machine that ask for one key at once, one runs the command, "
		"and the others get what it\n"
		"wrote. Its standard input is empty. The cache is made if it isn't there; "
		"without a name it is run-UID.\n"
		"\n"
		"  shoal run --key report --fresh 5m --stale 1h -- psql -Atf report.sql\n"
		"  shoal run --key-from-args --env LANG --fresh 1h -- curl -fsS https://example.org/rates\n",
	.run = run_verb,
};
