/* SPDX-License-Identifier: MIT */
/* top: the verb, and pages of text one after the other where there is no screen. */
#include "top.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

struct top {
	struct cache_options cache;
	uint32_t every;
	uint64_t count;
	unsigned sort, view;
	bool once, plain, reverse, totals;
};

static const struct option_spec top_options[] = {
	OPTION_CACHE(struct top),
	{"once", '1', OPTION_FLAG(struct top, once), NULL, "one page of text, of the --every that follows", 0},
	{"every", 'd', OPTION_DURATION(struct top, every), "DURATION", "between two looks (1s)", 0},
	{"sort", 's', OPTION_CHOICE(struct top, sort), TOP_SORTS, "order of keyspaces (req)", 0},
	{"reverse", 'r', OPTION_FLAG(struct top, reverse), NULL, "the other way round", 0},
	{"view", 'v', OPTION_CHOICE(struct top, view), "all|keyspaces|flights|keys|processes|memory",
	 "what to show (all)", 0},
	{"totals", 't', OPTION_FLAG(struct top, totals), NULL, "what was counted ever, instead of since the last look",
	 0},
	{"plain", 'p', OPTION_FLAG(struct top, plain), NULL, "text also on a terminal, a page for each look", 0},
	{"count", 'n', OPTION_COUNT(struct top, count), "N", "so many pages of text", 0},
	OPTIONS_END,
};

static void wait_until(double when)
{
	double left = when - top_now();
	struct timespec t;

	if (left <= 0)
		return;
	t.tv_sec = (time_t)left;
	t.tv_nsec = (long)((left - (double)t.tv_sec) * 1e9);
	nanosleep(&t, NULL);
}

/* Look, and take samples for so long before it. */
static bool look_after(struct top_look *l, double every)
{
	double end = top_now() + every, next;

	while ((next = top_now() + top_next_sample(every)) < end) {
		wait_until(next);
		if (!top_sample(l))
			return false;
	}
	while (top_now() < end)
		wait_until(end);
	return top_look(l);
}

static bool print_page(struct top_look *l, struct top_choice *choice, bool again)
{
	struct top_page page = {0};
	struct winsize size;
	bool done;
	size_t i;

	if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
		page.width = size.ws_col;
	done = top_page(&page, l, choice);
	if (again)
		putchar('\n');
	for (i = 0; done && i < page.count; i++)
		puts(page.lines[i].text);
	top_page_end(&page);
	return done;
}

/* Until there are enough of them, or nobody reads them any more. */
static int pages(const struct call *call, struct top_look *l, struct top_choice *choice, double every, uint64_t most)
{
	uint64_t i;

	for (i = 0; !most || i < most; i++) {
		if (!look_after(l, every) || !print_page(l, choice, i > 0))
			return cli_failed(call, "top", SHOAL_ERR_SYSTEM);
		if (fflush(stdout))
			break;
	}
	return EXIT_DONE;
}

static int show(const struct call *call, struct top_look *l)
{
	const struct top *o = call->options;
	double every = (o->every ? o->every : 1000) / 1e3;
	struct top_choice choice = {
		.view = o->view ? o->view - 1 : VIEW_ALL,
		.sort = o->sort ? o->sort - 1 : 0,
		.reverse = o->reverse,
		.totals = o->totals,
	};
	int status = SCREEN_NONE;

	if (!top_look(l))
		return cli_failed(call, "top", SHOAL_ERR_SYSTEM);
	if (!o->once && !o->plain && !o->count && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
		status = top_screen(call, l, &choice, every);
	return status == SCREEN_NONE ? pages(call, l, &choice, every, o->once ? 1 : o->count) : status;
}

static int top(const struct call *call)
{
	const struct top *o = call->options;
	struct top_look look = {.config = {.flags = SHOAL_ATTACH | SHOAL_INSPECT}};
	struct shoal *cache;
	int status;

	if (o->every == SHOAL_NONE || o->every == SHOAL_FOREVER)
		return cli_usage(call, "--every needs a duration above 0");
	if (o->once && o->count)
		return cli_usage(call, "one of --once and --count");
	status = cli_look(call, &o->cache, &cache);
	if (status)
		return status;
	shoal_close(cache);
	look.name = cli_cache_name(&o->cache);
	status = cli_owner(call, o->cache.owner, &look.config);
	if (status)
		return status;
	setlocale(LC_CTYPE, "");
	srand48(getpid());
	status = show(call, &look);
	top_forget(&look);
	return status;
}

const struct verb verb_top = {
	.name = "top", .group = GROUP_WATCH,
	.summary = "keyspaces, loads under way, hottest keys, processes and memory, as they are now",
	.options = top_options, .size = sizeof(struct top),
	.notes = "Without a terminal, or with --plain, pages of text follow each other until the reader goes. "
		 "Rates are of the time since\n"
		 "the last look; LD50, LD99, WT50 and WT99 of all loads and waits so far. "
		 "The hottest keys are an estimate, from samples.\n"
		 "It changes nothing in the cache and leaves no trace there. On a terminal ? tells the keys.\n\n"
		 "  shoal top --cache shop\n"
		 "  shoal top --cache shop -1 --sort hit\n",
	.run = top,
};
