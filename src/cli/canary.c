/* SPDX-License-Identifier: MIT */
/*
 * shoal canary: is a keyspace as good as another one, or as it was before? For a deploy pipeline: exit status 0, or 7.
 *
 * Both are looked at twice, and what was counted in between is compared, so that what a keyspace has been through
 * before doesn't matter. A worse hit rate alone may be a cold start, and more loads alone may be more traffic: either
 * bound is of a rate. What has had too few requests is not judged: exit 5.
 */
#include "cli.h"
#include "json.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXIT_WORSE 7
#define LOOK_MS 100 /* between two looks whether there were enough requests */

struct canary_options {
	struct cache_options cache;
	struct option_keyspace keyspace, against;
	const char *baseline, *save;
	struct option_share max_drop, max_rise;
	uint32_t window;
	uint64_t requests, min_requests;
	bool json;
};

static const struct option_spec canary_table[] = {
	OPTION_CACHE(struct canary_options),
	{"keyspace", 'k', OPTION_KEYSPACE(struct canary_options, keyspace), "NAME[@VERSION]",
	 "the keyspace to be judged", 0},
	{"against", 'A', OPTION_KEYSPACE(struct canary_options, against), "NAME[@VERSION]",
	 "the one it is compared with, in the same time", 0},
	{"baseline", 'b', OPTION_TEXT(struct canary_options, baseline), "FILE",
	 "or what --save has kept of an earlier time", 0},
	{"save", 0, OPTION_TEXT(struct canary_options, save), "FILE", "keep what is found of the keyspace, as JSON", 0},
	{"max-drop", 'd', OPTION_SHARE(struct canary_options, max_drop), "SHARE",
	 "how much lower its hit rate may be, in points (5%)", 0},
	{"max-rise", 0, OPTION_SHARE(struct canary_options, max_rise), "SHARE",
	 "how many more loads it may make per request, in points (as --max-drop)", 0},
	{"for", 'f', OPTION_DURATION(struct canary_options, window), "DURATION", "how long to look (60s)", 0},
	{"requests", 'r', OPTION_COUNT(struct canary_options, requests), "N", "or until each has had so many requests",
         0},
	{"min-requests", 0, OPTION_COUNT(struct canary_options, min_requests), "N",
	 "with fewer it is not judged: exit 5 (100)", 0},
	{"json", 'j', OPTION_FLAG(struct canary_options, json), NULL, "what is found as JSON", 0},
	OPTIONS_END,
};

/* What was counted in the time. */
struct tally {
	char name[80];
	uint64_t requests, hits, stale, loads, errors;
};

struct side {
	struct shoal_keyspace *keyspace;
	struct tally before, tally;
};

/* ---- counting ---------------------------------------------------------------------------------------------- */

static int count(const struct side *side, struct tally *to)
{
	struct shoal_keyspace_stats s;
	int r = shoal_keyspace_stats(side->keyspace, &s);

	if (r)
		return r;
	to->hits = s.hits_fresh + s.hits_stale;
	to->stale = s.hits_stale;
	to->requests = to->hits + s.misses;
	to->loads = s.loads;
	to->errors = s.load_errors;
	return SHOAL_OK;
}

static int count_since(struct side *side)
{
	struct tally now, *t = &side->tally;
	int r = count(side, &now);

	if (r)
		return r;
	t->requests = now.requests - side->before.requests;
	t->hits = now.hits - side->before.hits;
	t->stale = now.stale - side->before.stale;
	t->loads = now.loads - side->before.loads;
	t->errors = now.errors - side->before.errors;
	return SHOAL_OK;
}

static double per_request(uint64_t n, const struct tally *t)
{
	return t->requests ? (double)n / (double)t->requests : 0;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Look at the sides until the time is over, or all of them have had the requests that are wanted. */
static int watch(const struct canary_options *o, struct side *sides, unsigned n)
{
	int64_t end = now_ms() + (o->window == SHOAL_NONE ? 0 : o->window ? o->window : 60000), left;
	unsigned i, enough;
	int r = SHOAL_OK;

	for (i = 0; i < n && !r; i++)
		r = count(&sides[i], &sides[i].before);
	while (!r) {
		left = o->window == SHOAL_FOREVER ? LOOK_MS : end - now_ms();
		for (i = enough = 0; i < n && !r; i++) {
			r = count_since(&sides[i]);
			enough += o->requests && sides[i].tally.requests >= o->requests;
		}
		if (left <= 0 || enough == n)
			break;
		left = left < LOOK_MS || !o->requests ? left : LOOK_MS;
		nanosleep(&(struct timespec){left / 1000, left % 1000 * 1000000}, NULL);
	}
	return r;
}

/* ---- a baseline -------------------------------------------------------------------------------------------- */

static json_t *tally_json(const struct tally *t)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "keyspace", t->name, "requests",
	                 (json_int_t)t->requests, "hits", (json_int_t)t->hits, "stale", (json_int_t)t->stale, "loads",
	                 (json_int_t)t->loads, "load_errors", (json_int_t)t->errors, "hit_rate",
	                 per_request(t->hits, t), "loads_per_request", per_request(t->loads, t));
}

static int save(const struct call *call, const char *name, const struct tally *t)
{
	json_t *json = tally_json(t);
	char *other = NULL;
	bool saved = json && asprintf(&other, "%s.new", name) > 0 &&
	             !json_dump_file(json, other, JSON_COMPACT | JSON_REAL_PRECISION(9)) && !rename(other, name);

	if (!saved)
		cli_error(call, "%s: %s", name, errno ? strerror(errno) : "can't be written");
	free(other);
	json_decref(json);
	return saved ? EXIT_DONE : EXIT_FAILED;
}

static int read_baseline(const struct call *call, const char *name, struct tally *t)
{
	json_error_t error;
	json_t *json = json_load_file(name, JSON_REJECT_DUPLICATES, &error);
	json_int_t requests = -1, hits = -1, stale = -1, loads = -1, errors = -1;
	const char *keyspace = "";
	bool read = json &&
	            !json_unpack(json, "{s:s, s:I, s:I, s:I, s:I, s:I}", "keyspace", &keyspace, "requests", &requests,
	                         "hits", &hits, "stale", &stale, "loads", &loads, "load_errors", &errors);

	read = read && requests >= hits && hits >= stale && stale >= 0 && loads >= 0 && errors >= 0;
	*t = (struct tally){.requests = (uint64_t)requests,
	                    .hits = (uint64_t)hits,
	                    .stale = (uint64_t)stale,
	                    .loads = (uint64_t)loads,
	                    .errors = (uint64_t)errors};
	snprintf(t->name, sizeof(t->name), "%.60s, then", keyspace);
	json_decref(json);
	return read ? EXIT_DONE
	            : cli_usage(call, "--baseline: '%s' is not what --save makes: %s", name,
	                        json ? "other fields" : error.text);
}

/* ---- the judgement ----------------------------------------------------------------------------------------- */

enum judgement { GOOD, WORSE, TOO_FEW };

static double bound(const struct option_share *share, double otherwise)
{
	return share->given ? share->share : otherwise;
}

static enum judgement judge(const struct canary_options *o, const struct tally *t, const struct tally *other)
{
	uint64_t least = o->min_requests ? o->min_requests : 100;
	double drop = bound(&o->max_drop, 0.05), rise = bound(&o->max_rise, drop);
	const double slack = 1e-9; /* of what can't be said in binary */

	if (t->requests < least || (other && other->requests < least))
		return TOO_FEW;
	if (!other)
		return GOOD;
	if (per_request(t->hits, t) < per_request(other->hits, other) - drop - slack ||
	    per_request(t->loads, t) > per_request(other->loads, other) + rise + slack)
		return WORSE;
	return GOOD;
}

static void print_line(const struct tally *t)
{
	printf("%-40s %12" PRIu64 " %9.2f%% %9.2f%% %14.4f %8" PRIu64 "\n", t->name, t->requests,
	       100 * per_request(t->hits, t), 100 * per_request(t->stale, t), per_request(t->loads, t), t->errors);
}

static int tell(const struct call *call, const struct tally *t, const struct tally *other)
{
	static const char *const words[] = {[GOOD] = "good", [WORSE] = "worse", [TOO_FEW] = "too few requests"};
	static const int statuses[] = {[GOOD] = EXIT_DONE, [WORSE] = EXIT_WORSE, [TOO_FEW] = EXIT_TIMEOUT};
	const struct canary_options *o = call->options;
	enum judgement judgement = judge(o, t, other);
	json_t *json;

	if (o->json) {
		json = json_pack("{s:s, s:o}", "judgement", words[judgement], "keyspace", tally_json(t));
		if (other)
			json_object_set_new(json, "against", tally_json(other));
		if (json_print(json))
			return EXIT_FAILED;
	} else {
		printf("%-40s %12s %10s %10s %14s %8s\n", "", "requests", "hits", "stale", "loads/request", "errors");
		print_line(t);
		if (other)
			print_line(other);
		printf("%s\n", words[judgement]);
	}
	if (judgement == GOOD && o->save)
		return save(call, o->save, t);
	return statuses[judgement];
}

/* ---- the verb ---------------------------------------------------------------------------------------------- */

static int check(const struct call *call)
{
	const struct canary_options *o = call->options;

	if (!o->keyspace.given)
		return cli_usage(call, "which keyspace? --keyspace NAME@VERSION");
	if (o->against.given && o->baseline)
		return cli_usage(call, "--against and --baseline: one of them");
	if (!o->against.given && !o->baseline && !o->save)
		return cli_usage(
			call,
			"compared with what? --against NAME@VERSION or --baseline FILE; or --save FILE for later");
	return EXIT_DONE;
}

static void name_side(struct side *side, const struct option_keyspace *keyspace)
{
	snprintf(side->tally.name, sizeof(side->tally.name), "%s@%" PRIu32, keyspace->name, keyspace->version);
}

static int canary(const struct call *call)
{
	const struct canary_options *o = call->options;
	struct side sides[2] = {0};
	struct tally baseline;
	struct shoal *cache;
	int status = check(call), r;

	if (!status && o->baseline)
		status = read_baseline(call, o->baseline, &baseline);
	if (!status)
		status = cli_look(call, &o->cache, &cache);
	if (status)
		return status;
	name_side(&sides[0], &o->keyspace);
	name_side(&sides[1], &o->against);
	status = cli_keyspace(call, &o->cache, cache, &o->keyspace, NULL, &sides[0].keyspace);
	if (!status && o->against.given)
		status = cli_keyspace(call, &o->cache, cache, &o->against, NULL, &sides[1].keyspace);
	if (!status) {
		r = watch(o, sides, o->against.given ? 2 : 1);
		status = r ? cli_failed(call, o->keyspace.name, r)
		           : tell(call, &sides[0].tally,
		                  o->against.given ? &sides[1].tally
		                  : o->baseline    ? &baseline
		                                   : NULL);
	}
	shoal_close(cache);
	return status;
}

const struct verb verb_canary = {
	.name = "canary",
	.group = GROUP_WATCH,
	.summary = "is a keyspace as good as another, or as it was before?",
	.options = canary_table,
	.size = sizeof(struct canary_options),
	.notes = "Exit status: 0 it is, 7 it is worse, 5 too few requests to tell. A worse one is not saved.\n"
		 "\n"
		 "  shoal canary --keyspace user@2 --against user@1 --max-drop 5% --for 60s --min-requests 1000\n",
	.run = canary,
};
