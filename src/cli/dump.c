/* SPDX-License-Identifier: MIT */
/* Verbs that take values to a file and back: dump, restore. The file is in dumpfile.h. */
#include "cli.h"
#include "dumpfile.h"
#include "json.h"
#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- dump -------------------------------------------------------------------------------------------------- */

struct dump_options {
	struct cache_options cache;
	struct option_keyspace keyspace;
	bool json;
};

static const struct option_spec dump_table[] = {
	OPTION_CACHE(struct dump_options),
	{"keyspace", 'k', OPTION_KEYSPACE(struct dump_options, keyspace), "NAME[@VERSION]",
	 "of this keyspace alone; NAME: of all its versions", 0},
	{"json", 'j', OPTION_FLAG(struct dump_options, json), NULL, "the report as JSON, to standard output", 0},
	OPTIONS_END,
};

struct dump {
	const struct dump_options *options;
	struct dump_out out;
	struct dump_keyspace *keyspaces;
	uint32_t count;
	unsigned char *value;
	size_t room;
	uint64_t unreadable; /* their bytes are damaged */
	int error;           /* errno, or 0 */
};

static uint64_t until(int64_t left, uint64_t now)
{
	return left == INT64_MAX ? DUMP_NEVER : left < 0 && (uint64_t)-left > now ? 0 : now + (uint64_t)left;
}

/* Its number, from 1 on; one that is new goes to the file first. 0: d->error. */
static uint32_t number_of(struct dump *d, const struct shoal_entry *entry)
{
	struct dump_keyspace *k;
	uint32_t i;

	for (i = 0; i < d->count; i++)
		if (d->keyspaces[i].version == entry->version && !strcmp(d->keyspaces[i].name, entry->keyspace))
			return i + 1;
	k = realloc(d->keyspaces, (d->count + 1) * sizeof(*k));
	if (!k)
		return 0;
	d->keyspaces = k;
	k[d->count] = (struct dump_keyspace){.version = entry->version};
	snprintf(k[d->count].name, sizeof(k->name), "%s", entry->keyspace);
	return dump_put_keyspace(&d->out, ++d->count, entry->keyspace, entry->version) ? d->count : 0;
}

static bool make_room(struct dump *d, size_t size)
{
	unsigned char *value;

	if (d->value && size <= d->room)
		return true;
	value = realloc(d->value, size + 1);
	if (!value)
		return false;
	d->value = value;
	d->room = size;
	return true;
}

static bool put_value(struct dump *d, const struct shoal_entry *entry)
{
	uint64_t now = now_ms();
	struct dump_entry e = {
		.keyspace = number_of(d, entry),
		.schema = entry->schema,
		.fresh_until = until(entry->fresh_left_ms, now),
		.stale_until = until(entry->stale_left_ms, now),
		.error_until = until(entry->error_left_ms, now),
		.key = entry->key.data,
		.key_size = entry->key.size,
		.value = d->value,
		.value_size = entry->size,
	};

	return e.keyspace && dump_put_entry(&d->out, &e);
}

static int put(const struct shoal_entry *entry, void *arg)
{
	struct dump *d = arg;
	const struct option_keyspace *only = &d->options->keyspace;

	if (only->given && !only->any && entry->version != only->version)
		return 0;
	if (make_room(d, entry->size)) {
		if (shoal_entry_read(entry, d->value, d->room)) {
			d->unreadable++;
			return 0;
		}
		if (put_value(d, entry))
			return 0;
	}
	d->error = errno;
	return 1;
}

/* 0, or an exit status, after a message. */
static int dump_to(const struct call *call, struct shoal *cache, FILE *to, const char *name)
{
	const struct dump_options *o = call->options;
	struct dump d = {.options = o};
	char size[UNIT_TEXT];
	int r = 0, status = EXIT_DONE;

	if (!dump_begin(&d.out, to, now_ms()) ||
	    (r = shoal_scan(cache, o->keyspace.given ? o->keyspace.name : NULL, put, &d)) || !dump_finish(&d.out)) {
		errno = d.error ? d.error : errno;
		if (r < 0)
			status = cli_failed(call, "the cache", r);
		else
			cli_error(call, "%s: %s", name, strerror(errno)), status = EXIT_FAILED;
	} else {
		fprintf(stderr, "%" PRIu64 " values of %" PRIu32 " keyspaces, %s\n", d.out.entries, d.count,
		        unit_size_text(d.out.bytes, size));
		if (o->json)
			status = json_print(json_pack("{s:I, s:i, s:I, s:I}", "values", (json_int_t)d.out.entries,
			                              "keyspaces", (int)d.count, "bytes", (json_int_t)d.out.bytes,
			                              "unreadable", (json_int_t)d.unreadable));
	}
	free(d.keyspaces);
	free(d.value);
	return status;
}

/* Under another name until it is whole, and for nobody else's eyes: it has all values. */
static int dump_to_file(const struct call *call, struct shoal *cache, const char *name)
{
	char *other = NULL;
	int fd = -1, status = EXIT_FAILED;
	FILE *to = NULL;

	if (asprintf(&other, "%s.new", name) < 0)
		return EXIT_FAILED;
	fd = open(other, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	to = fd < 0 ? NULL : fdopen(fd, "w");
	if (to)
		status = dump_to(call, cache, to, name);
	else
		cli_error(call, "%s: %s", other, strerror(errno));
	if (to && !status && (fsync(fd) | fclose(to) || rename(other, name))) {
		cli_error(call, "%s: %s", name, strerror(errno));
		status = EXIT_FAILED;
	} else if (to && status) {
		fclose(to);
	}
	if (to && status)
		unlink(other);
	free(other);
	return status;
}

static int dump(const struct call *call)
{
	const struct dump_options *o = call->options;
	const char *name = call->arguments[0];
	bool standard = !strcmp(name, "-");
	struct shoal *cache;
	int status;

	if (standard && o->json)
		return cli_usage(call, "--json: standard output has the dump");
	if (standard && isatty(STDOUT_FILENO))
		return cli_usage(call, "a dump is no text: not to a terminal");
	status = cli_look(call, &o->cache, &cache);
	if (status)
		return status;
	status = standard ? dump_to(call, cache, stdout, "standard output") : dump_to_file(call, cache, name);
	shoal_close(cache);
	return status;
}

const struct verb verb_dump = {
	.name = "dump",
	.group = GROUP_MOVE,
	.summary = "write the values to a file, to be restored after a reboot or elsewhere",
	.arguments = "FILE",
	.least = 1,
	.most = 1,
	.options = dump_table,
	.size = sizeof(struct dump_options),
	.notes =
		"FILE is replaced when all is written, so that it is always whole; - is standard output. "
		"What may be served on errors\n"
		"alone is left out.\n",
	.run = dump,
};

/* ---- restore ----------------------------------------------------------------------------------------------- */

struct restore_options {
	struct cache_options cache;
	bool overwrite, check, json;
};

static const struct option_spec restore_table[] = {
	OPTION_CACHE(struct restore_options),
	{"overwrite", 0, OPTION_FLAG(struct restore_options, overwrite), NULL, "also what the cache has a value of", 0},
	{"check", 0, OPTION_FLAG(struct restore_options, check), NULL, "only look whether the file is whole", 0},
	{"json", 'j', OPTION_FLAG(struct restore_options, json), NULL, "the report as JSON, to standard output", 0},
	OPTIONS_END,
};

/* A keyspace of the file as its entries want it: the time on errors is the policy's. */
struct handle {
	uint32_t keyspace, schema, error_ms;
	struct shoal_keyspace *k;
};

struct restore {
	const struct restore_options *options;
	struct shoal *cache;
	struct dump_in in;
	struct handle *handles;
	size_t count;
	uint64_t now; /* never before the file was made */
	uint64_t restored, kept, expired, refused;
};

static uint32_t life(uint64_t from, uint64_t to)
{
	uint64_t ms = to <= from ? 0 : to - from;

	return to == DUMP_NEVER     ? SHOAL_FOREVER
	       : !ms                ? SHOAL_NONE
	       : ms < SHOAL_FOREVER ? (uint32_t)ms
	                            : SHOAL_FOREVER - 1;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static int restore_handle(struct restore *r, const struct dump_entry *e, struct shoal_keyspace **k)
{
	uint32_t error_ms = life(later(r->now, later(e->fresh_until, e->stale_until)), e->error_until);
	struct shoal_policy policy = {.schema = e->schema, .error_ms = error_ms, .jitter_permille = SHOAL_NONE};
	struct option_keyspace of = {.version = r->in.keyspaces[e->keyspace].version};
	struct handle *h;
	size_t i;
	int outcome;

	for (i = 0; i < r->count; i++) {
		h = &r->handles[i];
		if (h->keyspace == e->keyspace && h->schema == e->schema && h->error_ms == error_ms)
			return *k = h->k, SHOAL_OK;
	}
	h = realloc(r->handles, (r->count + 1) * sizeof(*h));
	if (!h)
		return SHOAL_ERR_SYSTEM;
	r->handles = h;
	h[r->count] = (struct handle){.keyspace = e->keyspace, .schema = e->schema, .error_ms = error_ms};
	memcpy(of.name, r->in.keyspaces[e->keyspace].name, sizeof(of.name));
	outcome = cli_keyspace_or_make(r->cache, &of, &policy, &h[r->count].k);
	if (!outcome)
		*k = h[r->count++].k;
	return outcome;
}

static bool is_there(const struct restore *r, struct shoal_keyspace *k, const struct dump_entry *e)
{
	struct shoal_value value;
	bool there = !r->options->overwrite && shoal_peek(k, e->key, e->key_size, &value) == SHOAL_OK;

	if (there)
		shoal_release(&value);
	return there;
}

static int restore_entry(struct restore *r, const struct dump_entry *e)
{
	struct shoal_keyspace *k;
	int outcome;

	r->now = later(now_ms(), r->in.made_ms);
	if (e->stale_until <= r->now && e->fresh_until <= r->now) {
		r->expired++;
		return SHOAL_OK;
	}
	outcome = restore_handle(r, e, &k);
	if (outcome == SHOAL_ERR_INVALID) /* a name that is none */
		return r->refused++, SHOAL_OK;
	if (outcome)
		return outcome;
	if (is_there(r, k, e)) {
		r->kept++;
		return SHOAL_OK;
	}
	outcome = shoal_set_ttl(k, e->key, e->key_size, e->value, e->value_size, life(r->now, e->fresh_until),
	                        life(later(r->now, e->fresh_until), e->stale_until));
	if (!outcome)
		r->restored++;
	else
		r->refused++;
	return outcome == SHOAL_ERR_TOO_BIG || outcome == SHOAL_ERR_NO_SPACE ? SHOAL_OK : outcome;
}

/* All that is good; 0, or an exit status, after a message. */
static int read_all(const struct call *call, struct restore *r, const char *name)
{
	struct dump_entry e;
	enum dump_found found;
	int outcome = SHOAL_OK;

	do {
		found = dump_next(&r->in, &e);
		if (found == DUMP_BAD)
			cli_error(call, "%s: %s, before byte %" PRIu64, name, r->in.why, r->in.offset);
		else if (found == DUMP_CORRUPT)
			cli_error(call, "%s: %s, at byte %" PRIu64, name, r->in.why, r->in.offset);
		else if (found == DUMP_ENTRY && !r->options->check)
			outcome = restore_entry(r, &e);
	} while (!outcome && (found == DUMP_ENTRY || found == DUMP_BAD));
	if (outcome)
		return cli_failed(call, "the cache", outcome);
	return found == DUMP_CORRUPT || r->in.bad ? EXIT_CORRUPT : EXIT_DONE;
}

static int report(const struct restore *r)
{
	json_t *json;

	if (r->options->check)
		fprintf(stderr, "%" PRIu64 " values are whole, %" PRIu64 " records are not\n", r->in.entries,
		        r->in.bad);
	else
		fprintf(stderr,
		        "%" PRIu64 " values: %" PRIu64 " restored, %" PRIu64 " there already, %" PRIu64
		        " at their end, %" PRIu64 " not stored\n",
		        r->in.entries, r->restored, r->kept, r->expired, r->refused);
	if (!r->options->json)
		return EXIT_DONE;
	json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "values", (json_int_t)r->in.entries, "restored",
	                 (json_int_t)r->restored, "there", (json_int_t)r->kept, "expired", (json_int_t)r->expired,
	                 "refused", (json_int_t)r->refused, "damaged", (json_int_t)r->in.bad);
	return json_print(json);
}

static int restore_from(const struct call *call, struct restore *r, FILE *from, const char *name)
{
	int status, told;

	if (dump_open(&r->in, from) != DUMP_END) {
		cli_error(call, "%s: %s", name, r->in.why);
		status = EXIT_CORRUPT;
	} else {
		status = r->options->check ? EXIT_DONE : cli_attach(call, &r->options->cache, &r->cache);
		if (status)
			return status;
		status = read_all(call, r, name);
		told = report(r);
		status = status ? status : told;
		shoal_close(r->cache);
	}
	free(r->handles);
	dump_close(&r->in);
	return status;
}

static int restore(const struct call *call)
{
	struct restore r = {.options = call->options};
	const char *name = call->arguments[0];
	FILE *from = strcmp(name, "-") ? fopen(name, "re") : stdin;
	int status;

	if (!from)
		return cli_usage(call, "%s: %s", name, strerror(errno));
	status = restore_from(call, &r, from, name);
	if (from != stdin)
		fclose(from);
	return status;
}

const struct verb verb_restore = {
	.name = "restore",
	.group = GROUP_MOVE,
	.summary = "take the values of a dump into a cache, for the rest of their lives",
	.arguments = "FILE",
	.least = 1,
	.most = 1,
	.options = restore_table,
	.size = sizeof(struct restore_options),
	.notes =
		"FILE - is standard input. The time since the dump counts. What the cache has already is left alone. "
		"Of a file that\n"
		"is damaged what is good is taken, and the exit status is 4. Do it before those who change what values "
		"are made of begin.\n",
	.run = restore,
};
