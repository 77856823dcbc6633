/* SPDX-License-Identifier: MIT */
/*
 * Lines of text from a look. A view has a table, or all of them, which then share the page's height: each gets what it
 * needs while there is enough, and else no more than the others.
 */
#include "escape.h"
#include "top.h"
#include "units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

/* ---- lines ------------------------------------------------------------------------------------------------- */

struct writer {
	struct top_page *page;
	const struct top_look *l;
	const struct top_choice *c;
	FILE *to; /* the line that is being written */
	char *text;
	size_t size;
	bool failed;
};

/* What is wide or no character here is told by its bytes. */
static unsigned put_character(FILE *to, const char *text, size_t size, size_t *used, unsigned room)
{
	mbstate_t state = {0};
	wchar_t c;
	size_t n = mbrtowc(&c, text, size, &state), i;
	int columns = n && n <= size ? wcwidth(c) : -1;

	*used = columns < 0 ? 1 : n;
	if (columns >= 0) {
		if ((unsigned)columns <= room)
			fwrite(text, 1, n, to);
		return (unsigned)columns;
	}
	if (n && n <= size)
		*used = n;
	for (i = 0; i < *used && 4 * (i + 1) <= room; i++)
		fprintf(to, "\\x%02x", (unsigned char)text[i]);
	return 4 * (unsigned)*used;
}

/* An allocated copy, of at most so many columns. */
static char *cut(const char *text, size_t size, unsigned width)
{
	char *result = NULL;
	size_t length, used;
	unsigned column = 0, taken;
	FILE *to = open_memstream(&result, &length);

	if (!to)
		return NULL;
	for (; size && (!width || column < width); text += used, size -= used) {
		taken = put_character(to, text, size, &used, width ? width - column : 1000);
		column += taken;
	}
	return fclose(to) ? free(result), NULL : result;
}

static void begin_line(struct writer *w)
{
	rewind(w->to);
}

static void end_line(struct writer *w, enum top_style style)
{
	struct top_page *p = w->page;
	struct top_line *lines;
	long at = ftell(w->to);

	if (w->failed || fflush(w->to) || at < 0)
		w->failed = true;
	if (w->failed || (p->height && p->count == p->height))
		return;
	lines = realloc(p->lines, (p->count + 1) * sizeof(*lines));
	if (!lines) {
		w->failed = true;
		return;
	}
	p->lines = lines;
	lines[p->count].style = style;
	lines[p->count].text = cut(w->text, (size_t)at, p->width);
	w->failed = !lines[p->count].text;
	p->count += !w->failed;
}

static void line(struct writer *w, enum top_style style, const char *text)
{
	begin_line(w);
	fputs(text, w->to);
	end_line(w, style);
}

void top_page_end(struct top_page *page)
{
	size_t i;

	for (i = 0; i < page->count; i++)
		free(page->lines[i].text);
	free(page->lines);
	page->lines = NULL;
	page->count = 0;
}

/* ---- figures, in five columns ------------------------------------------------------------------------------ */

enum kind { RATE, SHARE, RATIO, MILLISECONDS };

static void put_count(double n, char to[UNIT_TEXT])
{
	static const char units[] = " kMGTPE";
	unsigned u = 0;

	if (n < 99.95 && n != floor(n)) {
		snprintf(to, UNIT_TEXT, n < 9.995 ? "%.2f" : "%.1f", n);
		return;
	}
	for (; n >= (u ? 999.5 : 9999.5) && u < sizeof(units) - 2; u++)
		n /= 1000;
	snprintf(to, UNIT_TEXT, !u ? "%.0f" : n < 99.95 ? "%.1f%c" : "%.0f%c", n, units[u]);
}

static void put_ms(double ms, char to[UNIT_TEXT])
{
	if (ms < 0.9995)
		snprintf(to, UNIT_TEXT, "%.0fus", ms * 1000);
	else if (ms < 9999.5)
		snprintf(to, UNIT_TEXT, ms < 99.95 ? "%.1fms" : ms < 999.5 ? "%.0fms" : "%.2fs",
		         ms < 999.5 ? ms : ms / 1000);
	else if (ms < 6000e3)
		snprintf(to, UNIT_TEXT, ms < 999.5e3 ? "%.0fs" : "%.0fm", ms < 999.5e3 ? ms / 1e3 : ms / 60e3);
	else
		snprintf(to, UNIT_TEXT, ms < 360e6 ? "%.0fh" : "%.0fd", ms < 360e6 ? ms / 3600e3 : ms / 86400e3);
}

static const char *figure(enum kind kind, double value, char to[UNIT_TEXT])
{
	if (isnan(value) || value < 0)
		snprintf(to, UNIT_TEXT, "-");
	else if (kind == RATE)
		put_count(value, to);
	else if (kind == SHARE)
		snprintf(to, UNIT_TEXT, value >= 0.9995 ? "%.0f%%" : "%.1f%%", value * 100);
	else if (kind == RATIO)
		snprintf(to, UNIT_TEXT, value < 9.9995 ? "%.3f" : "%.1f", value);
	else
		put_ms(value, to);
	return to;
}

static const char *duration(double ms, char to[UNIT_TEXT])
{
	return figure(MILLISECONDS, ms, to);
}

static const char *count(double n, char to[UNIT_TEXT])
{
	return figure(RATE, n, to);
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

/* What is counted: since the last look, or ever. */
struct period {
	double requests, hits, stale, loads, coalesced, errors, seconds;
};

static struct period period_of(const struct top_keyspace *k, const struct top_look *l, bool totals)
{
	static const struct shoal_keyspace_stats zero;
	const struct shoal_keyspace_stats *from = totals ? &zero : &k->last;
	struct period p = {
		.hits = (double)(k->now.hits_fresh + k->now.hits_stale - from->hits_fresh - from->hits_stale),
		.stale = (double)(k->now.hits_stale - from->hits_stale),
		.loads = (double)(k->now.loads - from->loads),
		.coalesced = (double)(k->now.coalesced - from->coalesced),
		.errors = (double)(k->now.load_errors - from->load_errors),
		.seconds = totals ? 1 : l->seconds > 0 ? l->seconds : NAN,
	};

	p.requests = p.hits + (double)(k->now.misses - from->misses);
	if (isnan(p.seconds))
		p.hits = p.stale = p.loads = p.requests = NAN;
	return p;
}

/* 0 of 0: there is nothing to be told. */
static double part(double of, double whole)
{
	return whole > 0 ? of / whole : NAN;
}

enum { REQUESTS, HITS, STALE, LOADS, PER_REQUEST, COALESCED, LOAD50, LOAD99, WAIT50, WAIT99, OLDEST, ERRORS, DISTINCT,
       NAME };

/* In this order while there is room for them; of rates, the head without /s is for totals. */
static const struct column {
	const char *head, *total;
	unsigned width;
	enum kind kind;
} columns[] = {
	[REQUESTS] = {"REQ/S", "REQS", 6, RATE},
	[HITS] = {"HIT%", NULL, 6, SHARE},
	[STALE] = {"STALE", NULL, 6, SHARE},
	[LOADS] = {"LOAD/S", "LOADS", 7, RATE},
	[PER_REQUEST] = {"L/REQ", NULL, 6, RATIO},
	[COALESCED] = {"COAL/S", "COAL", 7, RATE},
	[LOAD50] = {"LD50", NULL, 7, MILLISECONDS},
	[LOAD99] = {"LD99", NULL, 7, MILLISECONDS},
	[WAIT50] = {"WT50", NULL, 7, MILLISECONDS},
	[WAIT99] = {"WT99", NULL, 7, MILLISECONDS},
	[OLDEST] = {"OLDEST", NULL, 7, MILLISECONDS},
	[ERRORS] = {"ERR/S", "ERRS", 6, RATE},
	[DISTINCT] = {"KEYS", NULL, 6, RATE},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))
#define NAME_LEAST 14u
_Static_assert(NAME == COLUMNS && TOP_SORT_COUNT == COLUMNS + 1, "TOP_SORTS");

const char *top_sort_name(unsigned sort)
{
	return sort < COLUMNS ? columns[sort].head : "KEYSPACE";
}

static double value_of(unsigned column, const struct top_keyspace *k, const struct top_look *l, bool totals)
{
	struct period p = period_of(k, l, totals);
	bool loaded = k->now.load_p99_ms > 0, waited = k->now.wait_p99_ms > 0;

	switch (column) {
	case REQUESTS: return p.requests / p.seconds;
	case HITS: return part(p.hits, p.requests);
	case STALE: return part(p.stale, p.requests);
	case LOADS: return p.loads / p.seconds;
	case PER_REQUEST: return part(p.loads, p.requests);
	case COALESCED: return p.coalesced / p.seconds;
	case LOAD50: return loaded ? k->now.load_p50_ms : NAN;
	case LOAD99: return loaded ? k->now.load_p99_ms : NAN;
	case WAIT50: return waited ? k->now.wait_p50_ms : NAN;
	case WAIT99: return waited ? k->now.wait_p99_ms : NAN;
	case OLDEST: return k->now.running ? k->now.oldest_load_ms : NAN;
	case ERRORS: return p.errors / p.seconds;
	default: return (double)k->now.distinct_keys;
	}
}

static int by_name(const struct top_keyspace *a, const struct top_keyspace *b)
{
	int r = strcmp(a->name, b->name);

	return r ? r : (a->version > b->version) - (a->version < b->version);
}

/* What to look at first: the most, but of hits the least; and what has no such figure last. */
static int by_choice(const void *va, const void *vb, void *arg)
{
	const struct top_keyspace *a = va, *b = vb;
	const struct writer *w = arg;
	unsigned sort = w->c->sort;
	double x, y;
	int r = 0;

	if (sort < COLUMNS) {
		x = value_of(sort, a, w->l, w->c->totals);
		y = value_of(sort, b, w->l, w->c->totals);
		if (isnan(x) || isnan(y))
			return isnan(x) != isnan(y) ? isnan(x) - isnan(y) : by_name(a, b);
		r = (x < y) - (x > y);
		if (sort == HITS)
			r = -r;
	}
	if (!r && (sort < COLUMNS || !w->c->reverse))
		return by_name(a, b);
	if (!r)
		return -by_name(a, b);
	return w->c->reverse ? -r : r;
}

static unsigned columns_that_fit(unsigned width)
{
	unsigned n, taken = NAME_LEAST;

	for (n = 0; n < COLUMNS && (!width || taken + columns[n].width <= width); n++)
		taken += columns[n].width;
	return n;
}

static unsigned name_width(unsigned width, unsigned n)
{
	unsigned i, taken = 0;

	for (i = 0; i < n; i++)
		taken += columns[i].width;
	return width > taken + 30 || !width ? 30 : width > taken ? width - taken : 1;
}

static void put_name(FILE *to, const char *name, uint32_t version, unsigned width)
{
	char text[80];
	int n = snprintf(text, sizeof(text), "%s@%" PRIu32, name, version);

	/* Of a long one the end is left out, but for the version. */
	if ((unsigned)n > width && width > 8) {
		snprintf(text, sizeof(text), "@%" PRIu32, version);
		n = (int)strlen(text);
		fprintf(to, "%.*s~%s", (int)width > n + 1 ? (int)width - n - 1 : 0, name, text);
		return;
	}
	fprintf(to, "%-*.*s", (int)width, (int)width, text);
}

static void put_head(struct writer *w, const char *head, unsigned width, size_t shown, size_t n)
{
	char text[64];

	if (shown < n)
		snprintf(text, sizeof(text), "%s %zu/%zu", head, shown, n);
	else
		snprintf(text, sizeof(text), "%s", head);
	fprintf(w->to, "%-*s", (int)width, text);
}

static void keyspaces(struct writer *w, size_t from, size_t to)
{
	unsigned n = columns_that_fit(w->page->width), width = name_width(w->page->width, n), c;
	const struct top_keyspace *k;
	char text[UNIT_TEXT];

	begin_line(w);
	put_head(w, "KEYSPACE", width, to - from, w->l->keyspaces_n);
	for (c = 0; c < n; c++)
		fprintf(w->to, "%*s", (int)columns[c].width,
		        w->c->totals && columns[c].total ? columns[c].total : columns[c].head);
	end_line(w, STYLE_HEAD);
	for (; from < to; from++) {
		k = &w->l->keyspaces[from];
		begin_line(w);
		put_name(w->to, k->name, k->version, width);
		for (c = 0; c < n; c++)
			fprintf(w->to, "%*s", (int)columns[c].width,
			        figure(columns[c].kind, value_of(c, k, w->l, w->c->totals), text));
		end_line(w, STYLE_PLAIN);
	}
}

/* ---- flights ----------------------------------------------------------------------------------------------- */

static int by_age(const void *va, const void *vb)
{
	const struct shoal_flight *a = &((const struct top_flight *)va)->flight,
				  *b = &((const struct top_flight *)vb)->flight;
	/* what is only remembered comes last */
	bool x = a->state >= SHOAL_FLIGHT_FAILED, y = b->state >= SHOAL_FLIGHT_FAILED;

	return x != y ? x - y : (a->age_ms < b->age_ms) - (a->age_ms > b->age_ms);
}

static void flight(struct writer *w, const struct top_flight *f)
{
	static const char *const states[] = {"loading", "publishing", "overdue", "leaderless", "failed", "uncacheable"};
	char age[UNIT_TEXT], left[UNIT_TEXT], leader[UNIT_TEXT] = "-";
	const struct shoal_flight *flight = &f->flight;

	begin_line(w);
	if (flight->leader)
		snprintf(leader, sizeof(leader), "%d", (int)flight->leader);
	fprintf(w->to, "%8s %7s %7s %5u  %-11s ", leader, duration((double)flight->age_ms, age),
	        duration((double)flight->left_ms, left), flight->waiters, states[flight->state]);
	put_name(w->to, f->name, flight->version, 16);
	fputc(' ', w->to);
	escape_print(w->to, f->key, flight->key.size);
	if (flight->key.size < flight->key_size)
		fputs("...", w->to);
	end_line(w, flight->state == SHOAL_FLIGHT_OVERDUE || flight->state == SHOAL_FLIGHT_FAILED ? STYLE_ALARM
	                                                                                          : STYLE_PLAIN);
}

static void flights(struct writer *w, size_t from, size_t to)
{
	begin_line(w);
	fprintf(w->to, "%8s %7s %7s %5s  %-11s ", "LEADER", "AGE", "LEFT", "WAIT", "FLIGHT");
	put_head(w, "KEYSPACE", 16, to - from, w->l->flights_n);
	fputs(" KEY", w->to);
	end_line(w, STYLE_HEAD);
	for (; from < to; from++)
		flight(w, &w->l->flights[from]);
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

static int by_rate(const void *va, const void *vb)
{
	const struct top_key *a = va, *b = vb;

	return (a->rate < b->rate) - (a->rate > b->rate);
}

static void keys(struct writer *w, size_t from, size_t to)
{
	char rate[UNIT_TEXT], size[UNIT_TEXT];
	const struct top_key *k;
	size_t shown;

	begin_line(w);
	fprintf(w->to, "%8s %9s  ", "HITS/S~", "SIZE");
	put_head(w, "KEYSPACE", 16, to - from, w->l->keys_n);
	fputs(" HOTTEST KEY", w->to);
	end_line(w, STYLE_HEAD);
	for (; from < to; from++) {
		k = &w->l->keys[from];
		begin_line(w);
		fprintf(w->to, "%8s %9s  ", count(w->l->weight > 0 ? k->rate / w->l->weight : NAN, rate),
		        unit_size_text(k->size, size));
		put_name(w->to, k->name, k->version, 16);
		fputc(' ', w->to);
		shown = k->key_size < 256 ? k->key_size : 256;
		escape_print(w->to, k->key, shown);
		if (shown < k->key_size)
			fputs("...", w->to);
		end_line(w, STYLE_PLAIN);
	}
}

/* ---- processes --------------------------------------------------------------------------------------------- */

/* Those that hold something first. */
static int by_holding(const void *va, const void *vb)
{
	const struct shoal_process *a = &((const struct top_process *)va)->process,
				   *b = &((const struct top_process *)vb)->process;

	if (a->blocks != b->blocks)
		return a->blocks < b->blocks ? 1 : -1;
	if (a->flights != b->flights)
		return a->flights < b->flights ? 1 : -1;
	if (a->pins != b->pins)
		return a->pins < b->pins ? 1 : -1;
	return (a->pid > b->pid) - (a->pid < b->pid);
}

static void processes(struct writer *w, size_t from, size_t to)
{
	const struct shoal_process *p;
	char age[UNIT_TEXT];

	begin_line(w);
	fprintf(w->to, "%8s %7s %7s %5s %7s %6s  ", "PID", "AGE", "THREADS", "PINS", "FLIGHTS", "BLOCKS");
	put_head(w, "PROCESS", 16, to - from, w->l->processes_n);
	end_line(w, STYLE_HEAD);
	for (; from < to; from++) {
		p = &w->l->processes[from].process;
		begin_line(w);
		fprintf(w->to, "%8d %7s %7u %5u %7u %6u  ", (int)p->pid, duration((double)p->age_ms, age), p->threads,
		        p->pins, p->flights, p->blocks);
		if (p->other_namespace)
			fputs("(another pid namespace)", w->to);
		else if (!*w->l->processes[from].command)
			fputs("(dead)", w->to);
		else
			escape_print(w->to, w->l->processes[from].command, strlen(w->l->processes[from].command));
		end_line(w, p->blocks ? STYLE_ALARM : STYLE_PLAIN);
	}
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static void memory_state(struct writer *w, const char *name, uint64_t bytes, const char *what)
{
	const struct shoal_stats *s = &w->l->stats;
	char size[UNIT_TEXT], share[UNIT_TEXT], bar[41];
	size_t n = s->size ? (size_t)((double)bytes / (double)s->size * 40 + 0.5) : 0;

	memset(bar, '#', sizeof(bar));
	bar[n < 40 ? n : 40] = 0;
	begin_line(w);
	fprintf(w->to, "%-9s %9s %6s  %-20s %s", name, unit_size_text(bytes, size),
	        figure(SHARE, part((double)bytes, (double)s->size), share), what, bar);
	end_line(w, STYLE_PLAIN);
}

static void memory_rate(struct writer *w, const char *name, uint64_t now, uint64_t last, const char *what)
{
	char rate[UNIT_TEXT], all[UNIT_TEXT];
	double seconds = w->l->seconds;

	begin_line(w);
	fprintf(w->to, "%-9s %9s %6s  %s", name, count((double)now, all),
	        count(seconds > 0 && now >= last ? (double)(now - last) / seconds : NAN, rate), what);
	end_line(w, STYLE_PLAIN);
}

static void memory_limit(struct writer *w, const char *name, uint32_t used, unsigned most, const char *what)
{
	char share[UNIT_TEXT];

	begin_line(w);
	fprintf(w->to, "%-9s %4u/%-4u %6s  %s", name, used, most, figure(SHARE, part(used, most), share), what);
	end_line(w, most && used * 5ull > most * 4ull ? STYLE_ALARM : STYLE_PLAIN);
}

static void memory(struct writer *w)
{
	const struct shoal_stats *s = &w->l->stats, *l = &w->l->last;
	const struct shoal_info *i = &w->l->info;

	line(w, STYLE_HEAD, "MEMORY         SIZE  SHARE");
	memory_state(w, "live", s->bytes_live, "values, keys");
	memory_state(w, "dead", s->bytes_dead, "replaced, deleted");
	memory_state(w, "free", s->bytes_free, "");
	memory_state(w, "reserve", s->bytes_reserve, "of it, kept free");
	memory_state(w, "tables", s->bytes_overhead, "index, slots");
	line(w, STYLE_HEAD, "EVICTED         ALL     /S");
	memory_rate(w, "cold", s->evicted_entries - s->evicted_expired, l->evicted_entries - l->evicted_expired,
	            "entries, to make room");
	memory_rate(w, "expired", s->evicted_expired, l->evicted_expired, "entries whose time was over");
	memory_rate(w, "displaced", s->displaced_entries, l->displaced_entries, "entries, by others in the index");
	memory_rate(w, "probation", s->evicted_by[SHOAL_EVICTED_PROBATION], l->evicted_by[SHOAL_EVICTED_PROBATION],
	            "extents of what was not hit yet");
	memory_rate(w, "main", s->evicted_by[SHOAL_EVICTED_MAIN], l->evicted_by[SHOAL_EVICTED_MAIN],
	            "extents of what had been hit");
	memory_rate(w, "waiting", s->grace_waiting, s->grace_waiting, "extents, for readers to leave them");
	line(w, STYLE_HEAD, "SLOTS      USED/OF   SHARE");
	memory_limit(w, "processes", s->processes, i->max_processes, "attached");
	memory_limit(w, "threads", s->threads, i->max_threads, "that have used it");
	memory_limit(w, "flights", s->flights, i->max_flights, "keys that are being loaded");
	memory_limit(w, "keyspaces", (uint32_t)w->l->keyspaces_n, i->max_keyspaces, "");
	memory_limit(w, "permits", s->permits_used, i->max_loads, i->max_loads ? "loads at once" : "no bound");
}

/* ---- the page ---------------------------------------------------------------------------------------------- */

static const char *const view_names[] = {"all", "keyspaces", "flights", "keys", "processes", "memory", "help"};

static void summary(struct writer *w)
{
	const struct shoal_stats *s = &w->l->stats;
	char size[UNIT_TEXT], live[UNIT_TEXT], free_[UNIT_TEXT], entries[UNIT_TEXT], evicted[UNIT_TEXT], clock[16] = "";
	time_t now = time(NULL);
	struct tm local;
	uint64_t out = s->evicted_entries + s->displaced_entries,
		 last = w->l->last.evicted_entries + w->l->last.displaced_entries;

	if (localtime_r(&now, &local))
		strftime(clock, sizeof(clock), "%H:%M:%S", &local);
	begin_line(w);
	fputs("shoal top: ", w->to);
	escape_print(w->to, w->l->name, strlen(w->l->name));
	fprintf(w->to, ", %s%s%s", clock, w->c->totals ? ", totals" : "", w->c->paused ? ", PAUSED" : "");
	if (!*w->l->trouble)
		fprintf(w->to, ": %u processes, %u threads, %u flights, %u pins", s->processes, s->threads, s->flights,
		        s->pins);
	end_line(w, STYLE_TITLE);
	if (*w->l->trouble) {
		line(w, STYLE_ALARM, w->l->trouble);
		return;
	}
	begin_line(w);
	fprintf(w->to, "%s entries, %s live, %s free of %s, %s evicted/s", count((double)s->entries, entries),
	        unit_size_text(s->bytes_live, live), unit_size_text(s->bytes_free, free_),
	        unit_size_text(s->size, size),
	        count(w->l->seconds > 0 && out >= last ? (double)(out - last) / w->l->seconds : NAN, evicted));
	end_line(w, STYLE_PLAIN);
}

#define TABLES 4
typedef void table_fn(struct writer *w, size_t from, size_t to);
static table_fn *const tables[TABLES] = {keyspaces, flights, keys, processes};

static void sizes_of(const struct top_look *l, size_t n[TABLES])
{
	n[0] = l->keyspaces_n;
	n[1] = l->flights_n;
	n[2] = l->keys_n;
	n[3] = l->processes_n;
}

/* How many rows of each there are room for. */
static void share_out(const size_t wanted[TABLES], size_t room, size_t given[TABLES])
{
	unsigned i;
	bool any = true;

	memset(given, 0, TABLES * sizeof(given[0]));
	while (room && any)
		for (any = false, i = 0; i < TABLES && room; i++)
			if (given[i] < wanted[i])
				given[i]++, room--, any = true;
}

static void all_tables(struct writer *w)
{
	size_t wanted[TABLES], given[TABLES], height = w->page->height, taken = w->page->count + 2 * TABLES + 1;
	unsigned i;

	sizes_of(w->l, wanted);
	if (height)
		share_out(wanted, height > taken ? height - taken : 0, given);
	else
		memcpy(given, wanted, sizeof(given));
	for (i = 0; i < TABLES; i++) {
		line(w, STYLE_PLAIN, "");
		tables[i](w, 0, given[i]);
	}
}

static void one_table(struct writer *w, unsigned table, struct top_choice *c)
{
	size_t n[TABLES], height = w->page->height, taken = w->page->count + 3, room;

	sizes_of(w->l, n);
	room = !height ? n[table] : height > taken ? height - taken : 0;
	if (c->scroll + room > n[table])
		c->scroll = n[table] > room ? (unsigned)(n[table] - room) : 0;
	line(w, STYLE_PLAIN, "");
	tables[table](w, c->scroll, c->scroll + room < n[table] ? c->scroll + room : n[table]);
}

static void help(struct writer *w)
{
	static const char *const text[] = {
		"",
		"1 all  2 keyspaces  3 flights  4 keys  5 processes  6 memory; Tab: the next of them",
		"s or >, <   sort keyspaces by the next column, the one before; r the other way round",
		"space, p    pause    t  what was counted ever, or since the last refresh",
		"up, down, PgUp, PgDn, j, k   scroll    ? h  this help    q  quit",
		"",
		"HIT%    gets and fetches that found a value      STALE  that found a stale one",
		"L/REQ   loads for each of them: what the origin sees",
		"COAL/S  callers that got the value of another's load",
		"LD50 LD99 WT50 WT99  half, 99% of all loads, waits so far were no longer",
		"OLDEST  age of the oldest load that runs    KEYS  ever stored, about",
		"LEFT    of a load's lease    WAIT  callers that wait for it",
		"HITS/S~ estimated from samples of what each thread hit last",
		"PINS    values in hand    BLOCKS  evicted memory that it still reads",
	};
	size_t i;

	for (i = 0; i < sizeof(text) / sizeof(text[0]); i++)
		line(w, STYLE_PLAIN, text[i]);
}

/* What the last line of a screen is for. */
static void hints(struct writer *w)
{
	char text[160];

	while (w->page->count + 1 < w->page->height && !w->failed)
		line(w, STYLE_PLAIN, "");
	snprintf(text, sizeof(text), "q quit  ? help  space pause  s sort: %s%s  t totals  1-6 view: %s",
	         top_sort_name(w->c->sort), w->c->reverse ? " reversed" : "", view_names[w->c->view]);
	line(w, STYLE_TITLE, text);
}

static void write_view(struct writer *w, struct top_choice *c)
{
	if (c->view == VIEW_HELP) {
		help(w);
	} else if (*w->l->trouble) {
		return;
	} else if (c->view == VIEW_ALL) {
		all_tables(w);
	} else if (c->view == VIEW_MEMORY) {
		line(w, STYLE_PLAIN, "");
		memory(w);
	} else {
		one_table(w, c->view - VIEW_KEYSPACES, c);
	}
}

bool top_page(struct top_page *page, struct top_look *l, struct top_choice *choice)
{
	struct writer w = {.page = page, .l = l, .c = choice};

	w.to = open_memstream(&w.text, &w.size);
	if (!w.to)
		return false;
	if (l->keyspaces_n)
		qsort_r(l->keyspaces, l->keyspaces_n, sizeof(*l->keyspaces), by_choice, &w);
	if (l->flights_n)
		qsort(l->flights, l->flights_n, sizeof(*l->flights), by_age);
	if (l->keys_n)
		qsort(l->keys, l->keys_n, sizeof(*l->keys), by_rate);
	if (l->processes_n)
		qsort(l->processes, l->processes_n, sizeof(*l->processes), by_holding);
	summary(&w);
	write_view(&w, choice);
	if (page->height) {
		if (page->count == page->height) { /* the last line is the hints', whatever was there */
			free(page->lines[--page->count].text);
		}
		hints(&w);
	}
	fclose(w.to);
	free(w.text);
	return !w.failed;
}
