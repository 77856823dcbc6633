/* SPDX-License-Identifier: MIT */
/* Verbs about entries: keys, get, set, delete, expire, flush. */
#include "cli.h"
#include "escape.h"
#include "json.h"
#include "units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the verbs about one key; each has some of these. */
struct entry {
	struct cache_options cache;
	struct option_keyspace keyspace;
	bool escaped, json;
	uint64_t schema;
	uint32_t fresh, stale, stale_error;
	unsigned compress;
};

#define OPTION_KEY \
	OPTION_CACHE(struct entry), \
	{"keyspace", 'k', OPTION_KEYSPACE(struct entry, keyspace), "KEYSPACE", \
	 "NAME or NAME@VERSION, the version being 1 by default", 0}, \
	{"escaped", 'e', OPTION_FLAG(struct entry, escaped), NULL, "the key is written as shoal keys prints it", 0}
#define OPTION_SCHEMA {"schema", 0, OPTION_COUNT(struct entry, schema), "N", "version of the value's encoding (0)", 0}

/* The key that an argument stands for; it is changed in place. */
static int take_key(const struct call *call, bool escaped, char *text, struct shoal_slice *key)
{
	size_t size = strlen(text);
	const char *wrong = escaped ? escape_undo(text, &size) : NULL;

	if (!wrong && (!size || size > KEY_MOST))
		wrong = "has to be of 1 to 65535 bytes";
	if (wrong)
		return cli_usage(call, "a key %s", wrong);
	*key = (struct shoal_slice){text, size};
	return EXIT_DONE;
}

static int no_keyspace(const struct call *call)
{
	return cli_usage(call, "which keyspace? --keyspace NAME or --keyspace NAME@VERSION");
}

/* How to open the cache: cli_look() or cli_attach(). */
typedef int open_cache(const struct call *call, const struct cache_options *cache, struct shoal **to);

static struct shoal_policy policy_of(const struct entry *o)
{
	return (struct shoal_policy){
		.fresh_ms = o->fresh,
		.stale_ms = o->stale,
		.error_ms = o->stale_error,
		.schema = (uint32_t)o->schema,
		.jitter_permille = SHOAL_NONE, /* what was asked for, to the millisecond */
		.flags = o->compress == 1 ? SHOAL_COMPRESS : o->compress == 2 ? SHOAL_COMPRESS_ZSTD : 0,
	};
}

/* The cache and its keyspace that the options name. */
static int open_entry(const struct call *call, open_cache *open, struct shoal **cache, struct shoal_keyspace **keyspace)
{
	const struct entry *o = call->options;
	struct shoal_policy policy = policy_of(o);
	int status;

	if (!o->keyspace.given)
		return no_keyspace(call);
	status = open(call, &o->cache, cache);
	if (status)
		return status;
	status = cli_keyspace(call, &o->cache, *cache, &o->keyspace, &policy, keyspace);
	if (status)
		shoal_close(*cache);
	return status;
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

struct keys {
	struct cache_options cache;
	struct option_keyspace keyspace;
	const char *prefix;
	uint64_t limit;
	bool escaped, json, extended, null;
};

static const struct option_spec keys_options[] = {
	OPTION_CACHE(struct keys),
	{"keyspace", 'k', OPTION_KEYSPACE(struct keys, keyspace), "KEYSPACE",
	 "of this one alone; NAME without @VERSION: all versions of it", 0},
	{"prefix", 'p', OPTION_TEXT(struct keys, prefix), "TEXT", "that begin with TEXT", 0},
	{"escaped", 'e', OPTION_FLAG(struct keys, escaped), NULL, "TEXT is written as keys are printed", 0},
	{"limit", 'n', OPTION_COUNT(struct keys, limit), "N", "stop after N", UINT64_MAX},
	{"long", 'l', OPTION_FLAG(struct keys, extended), NULL,
	 "size, age, what is left of fresh and stale, and hits remembered, too", 0},
	{"json", 'j', OPTION_FLAG(struct keys, json), NULL, "a line of JSON for each", 0},
	{"null", '0', OPTION_FLAG(struct keys, null), NULL, "the bytes of each and a NUL; of one keyspace only", 0},
	OPTIONS_END,
};

struct listing {
	const struct keys *o;
	struct shoal_slice prefix;
	bool named; /* with its keyspace before each key */
	uint64_t found;
};

static int print_json_key(const struct shoal_entry *e)
{
	json_t *o = json_object();

	json_set_bytes(o, "keyspace", e->keyspace, strlen(e->keyspace));
	json_object_set_new(o, "version", json_integer((json_int_t)e->version));
	json_set_bytes(o, "key", e->key.data, e->key.size);
	json_object_set_new(o, "size", json_integer((json_int_t)e->size));
	json_object_set_new(o, "age_ms", json_integer((json_int_t)e->age_ms));
	json_object_set_new(o, "fresh_left_ms", json_left(e->fresh_left_ms));
	json_object_set_new(o, "stale_left_ms", json_left(e->stale_left_ms));
	json_object_set_new(o, "error_left_ms", json_left(e->error_left_ms));
	json_object_set_new(o, "frequency", json_integer(e->frequency));
	json_object_set_new(o, "generation", json_integer((json_int_t)e->generation));
	json_object_set_new(o, "schema", json_integer(e->schema));
	return json_print(o);
}

static void print_key(const struct listing *l, const struct shoal_entry *e)
{
	char size[UNIT_TEXT], age[UNIT_TEXT], fresh[UNIT_TEXT], stale[UNIT_TEXT];

	if (l->o->extended)
		printf("%-9s %9s %9s %9s  %u  ", unit_size_text(e->size, size),
		       unit_duration_text((int64_t)e->age_ms, age), unit_duration_text(e->fresh_left_ms, fresh),
		       unit_duration_text(e->stale_left_ms, stale), e->frequency);
	if (l->named) {
		escape_print(stdout, e->keyspace, strlen(e->keyspace));
		printf("@%" PRIu32 "\t", e->version);
	}
	escape_print(stdout, e->key.data, e->key.size);
	putchar('\n');
}

static int visit_key(const struct shoal_entry *e, void *arg)
{
	struct listing *l = arg;
	const struct keys *o = l->o;
	int status = 0;

	if (o->keyspace.given && !o->keyspace.any && e->version != o->keyspace.version)
		return 0;
	if (e->key.size < l->prefix.size ||
	    (l->prefix.size && memcmp(e->key.data, l->prefix.data, l->prefix.size) != 0))
		return 0;
	if (o->json) {
		status = print_json_key(e);
	} else if (o->null) {
		fwrite(e->key.data, 1, e->key.size, stdout);
		putchar(0);
	} else {
		print_key(l, e);
	}
	l->found++;
	return status || ferror(stdout) || (o->limit && l->found >= o->limit);
}

static int keys(const struct call *call)
{
	const struct keys *o = call->options;
	struct listing l = {.o = o, .named = !o->keyspace.given || o->keyspace.any};
	char *prefix = o->prefix ? strdup(o->prefix) : NULL;
	struct shoal *cache = NULL;
	int status = EXIT_DONE, outcome;

	if (o->json + o->null + o->extended > 1)
		status = cli_usage(call, "one of --long, --json and --null");
	else if (o->null && l.named)
		status = cli_usage(call,
		                   "--null needs --keyspace NAME@VERSION, as keys alone don't tell whose they are");
	else if (prefix && *prefix)
		status = take_key(call, o->escaped, prefix, &l.prefix);
	if (!status)
		status = cli_look(call, &o->cache, &cache);
	if (!status) {
		if (o->extended)
			printf("%-9s %9s %9s %9s  %s  %s\n", "SIZE", "AGE", "FRESH", "STALE", "F",
			       l.named ? "KEYSPACE, KEY" : "KEY");
		outcome = shoal_scan(cache, o->keyspace.given ? o->keyspace.name : NULL, visit_key, &l);
		status = outcome < 0 ? cli_failed(call, cli_cache_name(&o->cache), outcome) : EXIT_DONE;
		shoal_close(cache);
	}
	free(prefix);
	return status;
}

const struct verb verb_keys = {
	.name = "keys", .group = GROUP_ENTRIES,
	.summary = "list the keys that have a value",
	.options = keys_options, .size = sizeof(struct keys),
	.notes = "One a line, behind its keyspace and a tab if it may be any. What would not be one printable line "
		 "is written as\n"
		 "\\t \\n \\r \\\\ and \\xHH; --escaped has the other verbs read it. Nothing is counted or held "
		 "meanwhile, and what comes or\n"
		 "goes may or may not be listed.\n\n"
		 "  shoal keys --cache shop --keyspace user.profile@2 --prefix user:\n",
	.run = keys,
};

/* ---- get --------------------------------------------------------------------------------------------------- */

static const struct option_spec get_options[] = {
	OPTION_KEY,
	OPTION_SCHEMA,
	{"json", 'j', OPTION_FLAG(struct entry, json), NULL, "the value and what is known of it as a line of JSON", 0},
	OPTIONS_END,
};

static int print_value(const struct entry *o, const struct shoal_slice *key, const struct shoal_value *value)
{
	json_t *j;

	if (!o->json)
		return fwrite(value->data, 1, value->size, stdout) < value->size ? EXIT_FAILED : EXIT_DONE;
	j = json_pack("{s:s, s:I}", "keyspace", o->keyspace.name, "version", (json_int_t)o->keyspace.version);
	json_set_bytes(j, "key", key->data, key->size);
	json_object_set_new(j, "size", json_integer((json_int_t)value->size));
	json_object_set_new(j, "age_ms", json_integer((json_int_t)value->age_ms));
	json_object_set_new(j, "freshness", json_string(value->freshness == SHOAL_FRESH ? "fresh" : "stale"));
	json_object_set_new(j, "generation", json_integer((json_int_t)value->generation));
	json_set_bytes(j, "value", value->data, value->size);
	return json_print(j);
}

static int no_value(const struct call *call)
{
	cli_error(call, "no value of this key");
	return EXIT_NONE;
}

static int get(const struct call *call)
{
	const struct entry *o = call->options;
	struct shoal_keyspace *k;
	struct shoal_value value;
	struct shoal_slice key;
	struct shoal *cache;
	int status = take_key(call, o->escaped, call->arguments[0], &key), outcome;

	if (!status)
		status = open_entry(call, cli_look, &cache, &k);
	if (status)
		return status;
	outcome = shoal_peek(k, key.data, key.size, &value);
	if (outcome == SHOAL_OK)
		status = print_value(o, &key, &value);
	else
		status = outcome == SHOAL_MISS ? no_value(call) : cli_failed(call, "the key", outcome);
	shoal_release(&value);
	shoal_close(cache);
	return status;
}

const struct verb verb_get = {
	.name = "get", .group = GROUP_ENTRIES,
	.summary = "print the value of a key, byte by byte",
	.arguments = "KEY", .least = 1, .most = 1,
	.options = get_options, .size = sizeof(struct entry),
	.notes = "Fresh or stale, as the programs that use the keyspace would see it. Nothing is put behind it, "
		 "not even a newline.\n"
		 "It is not counted as a hit, and leaves no trace. Exit status 1: there is no value, "
		 "or one of another schema.\n\n"
		 "  shoal get --cache shop --keyspace user.profile@2 user:7\n",
	.run = get,
};

/* ---- set --------------------------------------------------------------------------------------------------- */

static const struct option_spec set_options[] = {
	OPTION_KEY,
	OPTION_SCHEMA,
	{"fresh", 'f', OPTION_DURATION(struct entry, fresh), "DURATION",
	 "how long it is fresh (60s)", 0},
	{"stale", 's', OPTION_DURATION(struct entry, stale), "DURATION",
	 "then: how long it may be served while one refreshes it (none)", 0},
	{"stale-error", 0, OPTION_DURATION(struct entry, stale_error), "DURATION",
	 "then: how long, while loading it fails (none)", 0},
	{"compress", 0, OPTION_CHOICE(struct entry, compress), "lz4|zstd",
	 "store it packed, if it is 512 bytes or more", 0},
	OPTIONS_END,
};

/* All of standard input, `most` bytes of it and one more. NULL: no memory, or it can't be read. */
static char *read_input(size_t most, size_t *size)
{
	size_t room = 65536, n = 0;
	char *data = NULL, *more;
	ssize_t got = 1;

	while (got > 0 && n <= most) {
		if (!data || n == room) {
			room = data ? room * 2 : room;
			more = realloc(data, room);
			if (!more)
				break;
			data = more;
		}
		got = read(STDIN_FILENO, data + n, room - n);
		if (got > 0)
			n += (size_t)got;
		else if (got < 0 && errno == EINTR)
			got = 1;
	}
	if (got && n <= most) {
		free(data);
		return NULL;
	}
	*size = n;
	return data;
}

static int store(const struct call *call, struct shoal *cache, struct shoal_keyspace *k, const struct shoal_slice *key)
{
	const char *text = call->count > 1 && strcmp(call->arguments[1], "-") != 0 ? call->arguments[1] : NULL;
	struct shoal_stats stats;
	char *input = NULL;
	size_t size = 0;
	int outcome = shoal_stats(cache, &stats), status = EXIT_DONE;

	if (outcome == SHOAL_OK && !text) {
		input = read_input(stats.size, &size);
		if (!input) {
			cli_error(call, "standard input: %s", strerror(errno));
			return EXIT_FAILED;
		}
	}
	if (outcome == SHOAL_OK)
		outcome = shoal_set(k, key->data, key->size, text ? text : input, text ? strlen(text) : size);
	if (outcome == SHOAL_ERR_TOO_BIG) {
		cli_error(call, "key and value are larger than the largest entry of this cache (shoal info)");
		status = EXIT_FAILED;
	} else if (outcome != SHOAL_OK) {
		status = cli_failed(call, "the key", outcome);
	}
	free(input);
	return status;
}

/* Lives that are asked for are all there are; if none is, they are those of the keyspace's programs. */
static void choose_lives(struct shoal_policy *p)
{
	if (!p->fresh_ms && !p->stale_ms && !p->error_ms)
		return;
	p->fresh_ms = p->fresh_ms ? p->fresh_ms : 60000;
	p->stale_ms = p->stale_ms ? p->stale_ms : SHOAL_NONE;
	p->error_ms = p->error_ms ? p->error_ms : SHOAL_NONE;
}

/* A keyspace that is not there is made, with this policy. */
static int open_to_set(const struct call *call, struct shoal **cache, struct shoal_keyspace **keyspace)
{
	const struct entry *o = call->options;
	struct shoal_policy policy = policy_of(o);
	int status, outcome;

	choose_lives(&policy);
	if (!o->keyspace.given)
		return no_keyspace(call);
	status = cli_attach(call, &o->cache, cache);
	if (status)
		return status;
	outcome = cli_keyspace_or_make(*cache, &o->keyspace, &policy, keyspace);
	if (outcome == SHOAL_OK)
		return EXIT_DONE;
	shoal_close(*cache);
	return cli_failed(call, o->keyspace.name, outcome);
}

static int set(const struct call *call)
{
	const struct entry *o = call->options;
	struct shoal_keyspace *k;
	struct shoal_slice key;
	struct shoal *cache;
	int status = take_key(call, o->escaped, call->arguments[0], &key);

	if (!status)
		status = open_to_set(call, &cache, &k);
	if (status)
		return status;
	status = store(call, cache, k, &key);
	shoal_close(cache);
	return status;
}

const struct verb verb_set = {
	.name = "set", .group = GROUP_ENTRIES,
	.summary = "store a value",
	.arguments = "KEY [VALUE | -]", .least = 1, .most = 2,
	.options = set_options, .size = sizeof(struct entry),
	.notes = "Without VALUE, or with -, from standard input, byte by byte. A load of the key that is under way is "
		 "superseded. The\n"
		 "keyspace is made if it is not there. With none of the three lives given they are as the keyspace's "
		 "programs have them.\n\n"
		 "  shoal set --cache shop --keyspace banner --fresh 1h --stale 1d today 'Closed on Friday.'\n",
	.run = set,
};

/* ---- delete, expire ---------------------------------------------------------------------------------------- */

static const struct option_spec delete_options[] = {OPTION_KEY, OPTIONS_END};

static const struct option_spec expire_options[] = {
	OPTION_KEY,
	{"stale", 's', OPTION_DURATION(struct entry, stale), "DURATION",
	 "how long they may still be served, at most (as the policy says)", 0},
	OPTIONS_END,
};

typedef int change_key(struct shoal_keyspace *keyspace, const void *key, size_t key_size);

static int change_keys(const struct call *call, change_key *change)
{
	const struct entry *o = call->options;
	struct shoal_keyspace *k;
	struct shoal_slice key;
	struct shoal *cache;
	int status, outcome, i, missing = 0;

	status = open_entry(call, cli_attach, &cache, &k);
	if (status)
		return status;
	for (i = 0; i < call->count && !status; i++) {
		status = take_key(call, o->escaped, call->arguments[i], &key);
		if (status)
			break;
		outcome = change(k, key.data, key.size);
		missing += outcome == SHOAL_MISS;
		status = outcome < 0 ? cli_failed(call, "the key", outcome) : EXIT_DONE;
	}
	shoal_close(cache);
	if (!status && missing && call->count > 1)
		cli_error(call, "%d of %d keys had no value", missing, call->count);
	else if (!status && missing)
		return no_value(call);
	return status ? status : missing ? EXIT_NONE : EXIT_DONE;
}

static int delete(const struct call *call)
{
	return change_keys(call, shoal_delete);
}

static int expire(const struct call *call)
{
	return change_keys(call, shoal_expire);
}

const struct verb verb_delete = {
	.name = "delete", .group = GROUP_ENTRIES,
	.summary = "take values away, now",
	.arguments = "KEY...", .least = 1, .most = ANY_NUMBER,
	.options = delete_options, .size = sizeof(struct entry),
	.notes = "Who asks next has to load it, and everyone who asks waits for that. Consider shoal expire. "
		 "Loads under way are\n"
		 "superseded. Exit status 1: one of the keys had no value.\n",
	.run = delete,
};

const struct verb verb_expire = {
	.name = "expire", .group = GROUP_ENTRIES,
	.summary = "make values stale, so that they are refreshed",
	.arguments = "KEY...", .least = 1, .most = ANY_NUMBER,
	.options = expire_options, .size = sizeof(struct entry),
	.notes = "Meanwhile they are served for as long as the policy of the programs that use the keyspace allows, "
		 "or for --stale; a\n"
		 "value's life is never prolonged. Where that is none it is a delete. Exit status 1: "
		 "one of the keys had no value.\n",
	.run = expire,
};

/* ---- flush ------------------------------------------------------------------------------------------------- */

struct flush {
	struct cache_options cache;
	struct option_keyspace keyspace;
	bool expire;
};

static const struct option_spec flush_options[] = {
	OPTION_CACHE(struct flush),
	{"keyspace", 'k', OPTION_KEYSPACE(struct flush, keyspace), "KEYSPACE",
	 "NAME or NAME@VERSION, the version being 1 by default", 0},
	{"expire", 0, OPTION_FLAG(struct flush, expire), NULL, "make them stale; else they are gone", 0},
	OPTIONS_END,
};

static int flush(const struct call *call)
{
	const struct flush *o = call->options;
	/* Each reader's policy bounds what was made stale; with none of ours it would be a delete. */
	struct shoal_policy policy = {.stale_ms = SHOAL_FOREVER};
	struct shoal_keyspace *k;
	struct shoal *cache;
	int status, outcome;

	if (!o->keyspace.given)
		return no_keyspace(call);
	status = cli_attach(call, &o->cache, &cache);
	if (status)
		return status;
	status = cli_keyspace(call, &o->cache, cache, &o->keyspace, &policy, &k);
	if (!status) {
		outcome = o->expire ? shoal_keyspace_expire(k) : shoal_keyspace_delete(k);
		status = outcome == SHOAL_OK ? EXIT_DONE : cli_failed(call, o->keyspace.name, outcome);
	}
	shoal_close(cache);
	return status;
}

const struct verb verb_flush = {
	.name = "flush", .group = GROUP_ENTRIES,
	.summary = "take away or make stale a whole keyspace, at once",
	.options = flush_options, .size = sizeof(struct flush),
	.notes = "At no cost, however many there are. With --expire the values are served until they are refreshed, "
		 "as long as the\n"
		 "policy of who reads them allows; without it they are gone, and all will be loaded anew: "
		 "think of what that does to\n"
		 "where they come from. Loads under way are superseded.\n\n"
		 "  shoal flush --cache shop --keyspace user.profile@2 --expire\n",
	.run = flush,
};
