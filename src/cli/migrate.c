/* SPDX-License-Identifier: MIT */
/*
 * shoal migrate: carry the values of one keyspace over to another, for the rest of their lives. The old ones stay.
 *
 * The library's own fallback does it, key by key: as the leader of the new key's flight, so that a load, a set or a
 * delete of the new key in the meantime wins. What the new keyspace has already is left alone.
 */
#include "cli.h"
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SCHEMAS 16

struct migrate_options {
	struct cache_options cache;
	struct option_keyspace from, to;
	const char *strip_prefix, *add_prefix;
	double rate;
	uint64_t schema;
	bool json;
};

static const struct option_spec migrate_table[] = {
	OPTION_CACHE(struct migrate_options),
	{"from", 0, OPTION_KEYSPACE(struct migrate_options, from), "NAME[@VERSION]", "the keyspace that has the values",
         0},
	{"to", 0, OPTION_KEYSPACE(struct migrate_options, to), "NAME[@VERSION]",
	 "the one that gets them; made if it isn't there", 0},
	{"strip-prefix", 0, OPTION_TEXT(struct migrate_options, strip_prefix), "TEXT",
	 "take this away from the beginning of each key; keys that don't have it are left out", 0},
	{"add-prefix", 0, OPTION_TEXT(struct migrate_options, add_prefix), "TEXT", "put this in front of each key", 0},
	{"rate", 'r', OPTION_RATE(struct migrate_options, rate), "RATE", "values a second (none)", 0},
	{"schema", 0, OPTION_COUNT(struct migrate_options, schema), "N",
	 "the schema they have there (the one they have here)", 0},
	{"json", 'j', OPTION_FLAG(struct migrate_options, json), NULL, "the report as JSON, to standard output", 0},
	OPTIONS_END,
};

struct pair {
	uint32_t schema;
	struct shoal_keyspace *from, *to;
};

struct migrate {
	const struct migrate_options *options;
	struct shoal *cache;
	struct pair pairs[SCHEMAS]; /* a handle for each schema of the old values */
	unsigned count;
	unsigned char old[KEY_MOST], key[KEY_MOST];
	size_t old_size, key_size;
	uint64_t seen, migrated, there, gone, left_out;
	int64_t began_ns;
};

/* ---- keys -------------------------------------------------------------------------------------------------- */

/* False: it has no place there. */
static bool spell(struct migrate *m, const struct shoal_slice *old)
{
	const char *strip = m->options->strip_prefix ? m->options->strip_prefix : "";
	const char *add = m->options->add_prefix ? m->options->add_prefix : "";
	size_t stripped = strlen(strip), added = strlen(add);

	if (old->size < stripped || memcmp(old->data, strip, stripped))
		return false;
	m->old_size = old->size;
	m->key_size = old->size - stripped + added;
	if (!m->key_size || m->key_size > KEY_MOST)
		return false;
	memcpy(m->old, old->data, old->size);
	memcpy(m->key, add, added);
	memcpy(m->key + added, m->old + stripped, old->size - stripped);
	return true;
}

static int spell_old(const void *key, size_t key_size, void *buffer, size_t capacity, size_t *size, void *arg)
{
	const struct migrate *m = arg;

	if (m->old_size > capacity)
		return 1;
	memcpy(buffer, m->old, m->old_size);
	*size = m->old_size;
	return 0;
}

/* ---- values ------------------------------------------------------------------------------------------------ */

static struct pair *pair_of(struct migrate *m, uint32_t schema)
{
	const struct migrate_options *o = m->options;
	struct shoal_policy from = {.schema = schema};
	struct shoal_policy to = {.schema = o->schema ? (uint32_t)o->schema : schema, .early = -1};
	struct pair *p;
	unsigned i;

	for (i = 0; i < m->count; i++)
		if (m->pairs[i].schema == schema)
			return &m->pairs[i];
	if (m->count == SCHEMAS)
		return NULL;
	p = &m->pairs[m->count];
	p->schema = schema;
	if (cli_keyspace_or_make(m->cache, &o->from, &from, &p->from) ||
	    cli_keyspace_or_make(m->cache, &o->to, &to, &p->to) ||
	    shoal_keyspace_fallback(p->to, p->from, spell_old, NULL, m))
		return NULL;
	m->count++;
	return p;
}

/* Not faster than told: this one is due so long after the beginning. */
static void keep_pace(const struct migrate *m)
{
	int64_t due;

	if (!(m->options->rate > 0) || isinf(m->options->rate))
		return;
	due = m->began_ns + (int64_t)((double)(m->migrated + m->there) * 1e9 / m->options->rate);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){due / 1000000000, due % 1000000000}, NULL);
}

static int carry_over(const struct shoal_entry *entry, void *arg)
{
	struct migrate *m = arg;
	struct pair *p;
	struct shoal_value value;
	struct shoal_load *load;
	int r;

	if (entry->version != m->options->from.version)
		return 0;
	m->seen++;
	p = pair_of(m, entry->schema);
	if (!p || !spell(m, &entry->key)) {
		m->left_out++;
		return 0;
	}
	keep_pace(m);
	r = shoal_begin(p->to, m->key, m->key_size, &load, &value);
	if (load)
		shoal_load_cancel(load);
	m->migrated += r == SHOAL_OK && value.source == SHOAL_MIGRATED;
	m->there += (r == SHOAL_OK && value.source != SHOAL_MIGRATED) || r == SHOAL_REFRESH || r == SHOAL_WAIT;
	m->gone += r == SHOAL_LEAD || r == SHOAL_ERR_LOAD;
	shoal_release(&value);
	return r < 0 && r != SHOAL_ERR_LOAD ? r : 0;
}

/* ---- the verb ---------------------------------------------------------------------------------------------- */

static int report(const struct call *call, const struct migrate *m, int outcome)
{
	int status = EXIT_DONE;

	fprintf(stderr,
	        "%" PRIu64 " values: %" PRIu64 " carried over, %" PRIu64 " there already, %" PRIu64
	        " gone meanwhile, %" PRIu64 " left out\n",
	        m->seen, m->migrated, m->there, m->gone, m->left_out);
	if (m->options->json)
		status = json_print(json_pack("{s:I, s:I, s:I, s:I, s:I}", "values", (json_int_t)m->seen, "migrated",
		                              (json_int_t)m->migrated, "there", (json_int_t)m->there, "gone",
		                              (json_int_t)m->gone, "left_out", (json_int_t)m->left_out));
	return outcome ? cli_failed(call, m->options->from.name, outcome) : status;
}

static int scan_from(const struct call *call, struct shoal *cache)
{
	const struct migrate_options *o = call->options;
	struct migrate *m = calloc(1, sizeof(*m));
	struct timespec now;
	int status;

	if (!m)
		return cli_failed(call, "memory", SHOAL_ERR_SYSTEM);
	clock_gettime(CLOCK_MONOTONIC, &now);
	m->options = o;
	m->cache = cache;
	m->began_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	status = report(call, m, shoal_scan(cache, o->from.name, carry_over, m));
	free(m);
	return status;
}

static int migrate(const struct call *call)
{
	const struct migrate_options *o = call->options;
	struct shoal_keyspace *from;
	struct shoal *cache;
	int status;

	if (!o->from.given || !o->to.given)
		return cli_usage(call, "from where, and where to? --from NAME@VERSION --to NAME@VERSION");
	if (!strcmp(o->from.name, o->to.name) && o->from.version == o->to.version)
		return cli_usage(call, "--from and --to are the same keyspace");
	status = cli_attach(call, &o->cache, &cache);
	if (status)
		return status;
	status = cli_keyspace(call, &o->cache, cache, &o->from, NULL, &from);
	if (!status)
		status = scan_from(call, cache);
	shoal_close(cache);
	return status;
}

const struct verb verb_migrate = {
	.name = "migrate",
	.group = GROUP_MOVE,
	.summary = "carry the values of a keyspace over to another, for the rest of their lives",
	.options = migrate_table,
	.size = sizeof(struct migrate_options),
	.notes = "The old values stay where they are, and what the new keyspace has already is left alone.\n"
		 "\n"
		 "  shoal migrate --from user@1 --to user@2 --strip-prefix v2: --rate 5000/s\n",
	.run = migrate,
};
