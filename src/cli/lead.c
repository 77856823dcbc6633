/* SPDX-License-Identifier: MIT */
/*
 * shoal run, as the one who runs the command.
 *
 * What it writes is kept in a frame, and goes on to our caller out of that, in its order, as fast as our caller takes
 * it: the command and those who wait for it don't have to wait for our caller. Once it is more than can be stored, the
 * load is declared uncacheable (those who wait run it themselves), and the frame is only a pipe any more, which holds
 * the command back while our caller doesn't read.
 *
 *	ended how                               its load               our caller
 *	exit 0, or --cache-failures             publish                has it already
 *	another exit, or its own fault          fail                   has it; or the stale output (--stale-error)
 *	stopped by a signal, or not executable  cancel: others try     has it
 *
 * With something stale to serve in place of a failure, nothing goes to our caller before the end is known.
 *
 * The lease is renewed while it runs. Killed, we leave a load that one of those who wait takes over;
 * the command gets SIGTERM.
 */
#include "run.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "units.h"

#define AHEAD 1048576 /* what isn't stored any more is read ahead of our caller so far */
#define REFRESH_LIMIT_MS 300000u
#define KILL_MS 5000 /* between SIGTERM and SIGKILL */

struct outlet {
	size_t most; /* that can be written once poll() says so, without waiting */
	bool gone;   /* nobody reads it */
};

struct lead {
	struct run *run;
	struct shoal_load *load; /* NULL: it has ended */
	struct command command;
	struct frame frame;
	struct frame_place place; /* up to there it has gone on */
	struct outlet outlets[2];
	bool behind, held, over;
	size_t limit;
	int64_t renew_at, end_at; /* ms; end_at: INT64_MAX is never */
	bool late;                /* it was told to end at end_at */
	int error;                /* of writing */
	void *previous;           /* a frame to serve if this fails, or NULL */
	size_t previous_size;
	uint64_t previous_age_ms;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- to our caller ----------------------------------------------------------------------------------------- */

static struct outlet outlet_of(int fd)
{
	struct stat s;

	if (fstat(fd, &s) || S_ISREG(s.st_mode))
		return (struct outlet){.most = AHEAD};
	return (struct outlet){.most = S_ISCHR(s.st_mode) ? 256 : 4096}; /* PIPE_BUF; and what a terminal calls room */
}

/* A reader that is gone stops nothing: others may wait for the output. */
static void pass_on(struct lead *l, const struct frame_part *part)
{
	struct outlet *outlet = &l->outlets[part->error];
	size_t size = part->size < outlet->most ? part->size : outlet->most;
	ssize_t n = (ssize_t)part->size;

	if (!outlet->gone)
		n = write(part->error ? STDERR_FILENO : STDOUT_FILENO, part->data, size);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < 0) {
		outlet->gone = true;
		l->error = l->error ? l->error : errno;
		return;
	}
	l->place.done += (size_t)n;
}

/* Is there something to write, and where? */
static bool is_due(struct lead *l, struct frame_part *part)
{
	return !l->behind && !l->held && frame_at(l->frame.bytes, l->frame.size, &l->place, part);
}

static size_t ahead(struct lead *l)
{
	struct frame_part part;

	return is_due(l, &part) ? l->frame.size - l->place.part - l->place.done : 0;
}

/* ---- from the command -------------------------------------------------------------------------------------- */

/* The most that can be stored. */
static size_t limit_of(const struct run *run)
{
	struct shoal_info info;

	return shoal_info(run->shoal, &info) == SHOAL_OK && info.max_entry > run->key_size
	               ? info.max_entry - run->key_size
	               : 1;
}

static void go_over(struct lead *l)
{
	l->over = true;
	l->held = false;
	if (l->load) {
		shoal_load_uncacheable(l->load, 0);
		shoal_load_publish(l->load, "", 0);
		l->load = NULL;
	}
}

static void take(struct lead *l, int stream)
{
	char buffer[65536];
	ssize_t n;

	if (l->over && (l->behind || l->outlets[stream].gone)) {
		command_close(&l->command, stream); /* the command is told as by a pipe */
		return;
	}
	n = command_read(&l->command, stream, buffer, sizeof(buffer));
	if (n <= 0)
		return;
	if (l->over && !ahead(l)) {
		frame_begin(&l->frame);
		l->place = (struct frame_place){0};
	}
	if (!frame_add(&l->frame, stream, buffer, (size_t)n))
		l->error = ENOMEM;
	if (!l->over && l->frame.size > l->limit)
		go_over(l);
}

/* ---- time -------------------------------------------------------------------------------------------------- */

static void keep_lease(struct lead *l, int64_t now)
{
	int r;

	if (now < l->renew_at)
		return;
	l->renew_at = now + RUN_LEASE_MS / 3;
	r = l->load ? shoal_load_renew(l->load) : SHOAL_OK;
	if (l->behind && r == SHOAL_ERR_SUPERSEDED) /* it would not be stored */
		l->end_at = l->late ? l->end_at : now;
}

static void keep_time(struct lead *l)
{
	int64_t now = now_ms();

	keep_lease(l, now);
	if (now < l->end_at || l->command.ended)
		return;
	kill(l->command.pid, l->late ? SIGKILL : SIGTERM);
	l->late = true;
	l->end_at = now + KILL_MS;
}

static int until_next(const struct lead *l)
{
	int64_t at = l->renew_at < l->end_at ? l->renew_at : l->end_at, now = now_ms();

	return at > now ? (int)(at - now) : 0;
}

/* ---- while it runs ----------------------------------------------------------------------------------------- */

static void turn(struct lead *l)
{
	struct command *c = &l->command;
	struct frame_part part;
	bool due = is_due(l, &part), full = l->over && ahead(l) >= AHEAD;
	struct pollfd fds[] = {
		{c->signals, POLLIN, 0},
		{full ? -1 : c->streams[0], POLLIN, 0},
		{full ? -1 : c->streams[1], POLLIN, 0},
		{!due || l->outlets[part.error].gone ? -1
	         : part.error                        ? STDERR_FILENO
	                                             : STDOUT_FILENO,
	         POLLOUT, 0},
	};
	int n = poll(fds, 4, due && l->outlets[part.error].gone ? 0 : until_next(l));

	if (n > 0 && fds[0].revents)
		command_signals(c);
	if (due && (l->outlets[part.error].gone || (n > 0 && fds[3].revents)))
		pass_on(l, &part); /* before the frame grows, and moves */
	if (n > 0 && fds[1].revents)
		take(l, 0);
	if (n > 0 && fds[2].revents)
		take(l, 1);
	keep_time(l);
}

/* Until it has ended, and what it wrote till then is read. Who goes on to write after that is not waited for. */
static void follow(struct lead *l)
{
	while (!l->command.ended || command_has_more(&l->command))
		turn(l);
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

static void keep_failure(struct lead *l, int status)
{
	struct shoal_keyspace *failures = run_failures(l->run);

	frame_set_status(&l->frame, (unsigned)status);
	if (failures)
		shoal_set(failures, l->run->key, l->run->key_size, l->frame.bytes, l->frame.size);
	shoal_load_fail(l->load, status);
}

static void settle(struct lead *l, int status)
{
	if (!l->load)
		return;
	if (command_was_stopped(&l->command) && !l->late) {
		shoal_load_cancel(l->load);
	} else if (l->error == ENOMEM) {
		shoal_load_cancel(l->load);
	} else if (status && !(l->run->options->cache_failures && !l->late)) {
		keep_failure(l, status);
	} else {
		frame_set_status(&l->frame, (unsigned)status);
		shoal_load_publish(l->load, l->frame.bytes,
		                   l->frame.size); /* what isn't stored, our caller has all the same */
	}
	l->load = NULL;
}

static void write_rest(struct lead *l)
{
	struct frame_part part;

	l->outlets[0].most = l->outlets[1].most = SIZE_MAX; /* it may wait now */
	while (is_due(l, &part)) {
		poll(&(struct pollfd){part.error ? STDERR_FILENO : STDOUT_FILENO, POLLOUT, 0}, 1, -1);
		pass_on(l, &part);
	}
}

/* Its own complaints, and what is stale in place of its output. */
static int serve_previous(struct lead *l, int status)
{
	struct frame_place place = {0};
	struct frame_part part;
	unsigned before;
	char age[UNIT_TEXT];

	if (!frame_check(l->previous, l->previous_size, &before))
		return -1;
	while (frame_at(l->frame.bytes, l->frame.size, &place, &part)) {
		if (part.error)
			fwrite(part.data, 1, part.size, stderr);
		place.done += part.size;
	}
	cli_log(l->run->call, LOG_WARNING, "%s has failed with status %d: this is its output of %s ago",
	        l->run->call->arguments[0], status, unit_duration_text((int64_t)l->previous_age_ms, age));
	return run_replay(l->run, l->previous, l->previous_size, before);
}

static int finish(struct lead *l)
{
	int status = l->command.status, served = -1;
	bool stopped = command_was_stopped(&l->command);

	settle(l, status);
	run_close(l->run);
	command_end(&l->command);
	if (l->behind)
		return status;
	if (l->held && status && !stopped)
		served = serve_previous(l, status);
	if (served >= 0)
		return served;
	l->held = false;
	signal(SIGPIPE, SIG_IGN);
	write_rest(l);
	if (l->error == EPIPE)
		return 128 + SIGPIPE;
	if (l->error) {
		cli_error(l->run->call, "what the command wrote: %s", strerror(l->error));
		return EXIT_FAILED;
	}
	return status;
}

/* ---- the beginning ----------------------------------------------------------------------------------------- */

/* What is stale, in case of a failure. It is let go with the load. */
static void remember_previous(struct lead *l)
{
	const struct shoal_value *value = shoal_load_previous(l->load);

	if (!value || l->behind || !(l->previous = malloc(value->size + 1)))
		return;
	memcpy(l->previous, value->data, value->size);
	l->previous_size = value->size;
	l->previous_age_ms = value->age_ms;
	l->held = true;
}

static int not_started(struct lead *l, int error, bool found)
{
	char *const *argv = l->run->call->arguments;

	shoal_load_cancel(l->load);
	run_close(l->run);
	if (l->behind)
		return EXIT_FAILED;
	return found ? command_exec(argv) : command_not_run(argv[0], error);
}

int lead_run(struct run *run, struct shoal_load *load, bool behind)
{
	struct lead l = {.run = run, .load = load, .behind = behind, .end_at = INT64_MAX};
	uint32_t limit = run->options->refresh_limit ? run->options->refresh_limit : REFRESH_LIMIT_MS;
	struct command_wish wish = {.argv = run->call->arguments, .variable = run->mark, .both = true};
	int error = ENOMEM, status;
	bool found = true;

	remember_previous(&l);
	l.outlets[0] = outlet_of(STDOUT_FILENO);
	l.outlets[1] = outlet_of(STDERR_FILENO);
	l.limit = limit_of(run);
	l.renew_at = now_ms() + RUN_LEASE_MS / 3;
	if (behind && limit < SHOAL_FOREVER)
		l.end_at = now_ms() + limit;
	if (frame_begin(&l.frame))
		error = command_start(&l.command, &wish, &found);
	if (error) {
		status = not_started(&l, error, found);
	} else {
		follow(&l);
		status = finish(&l);
	}
	frame_end(&l.frame);
	free(l.previous);
	return status;
}
