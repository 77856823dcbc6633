/* SPDX-License-Identifier: MIT */
/*
 * Who is here and what is under way: how the segment was made, keyspaces, flights, processes. Each step is a short look
 * of its own, copied out, so a visit may take its time. Nothing here holds anybody up.
 */
#include <string.h>

#include "handle.h"
#include "proc.h"

EXPORT unsigned shoal_layout(void)
{
	return LAYOUT_VERSION;
}

EXPORT int shoal_info(struct shoal *cache, struct shoal_info *info)
{
	const struct geometry *g;
	struct member *m;
	int r;

	if (!cache || !info)
		return SHOAL_ERR_INVALID;
	m = handle_look(cache, &r);
	if (!m)
		return r;
	g = &m->segment.geometry;
	*info = (struct shoal_info){
		.size = g->size,
		.max_size = g->max_size,
		.max_entry = g->max_entry,
		.mean_entry = g->asked_mean ? g->asked_mean : MEAN_ENTRY,
		.extent_size = g->extent_size,
		.extents = g->extents,
		.max_processes = g->processes,
		.max_threads = g->readers,
		.max_flights = g->flights,
		.max_keyspaces = g->keyspaces,
		.max_loads = g->max_loads,
		.flags = g->flags & (SHOAL_HUGE_PAGES | SHOAL_CHECKSUM | SHOAL_FIFO),
		.layout = g->layout,
		.mode = (mode_t)g->mode,
	};
	handle_leave();
	return SHOAL_OK;
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

EXPORT int shoal_keyspaces(struct shoal *cache, shoal_keyspace_visit *visit, void *arg)
{
	struct shoal_keyspace_info info;
	struct shoal_keyspace k = {.cache = cache};
	char name[NAME_SIZE];
	struct member *m;
	bool here;
	int r = 0;

	if (!cache || !visit)
		return SHOAL_ERR_INVALID;
	for (here = true; here && !r; k.id++) {
		do {
			m = handle_look(cache, &r);
			if (!m)
				return r;
			here = k.id < m->segment.geometry.keyspaces && w64_load(&m->segment.keyspaces[k.id].identity);
			if (here) {
				handle_name(&m->segment.keyspaces[k.id], name);
				info.version = (uint32_t)w64_load(&m->segment.keyspaces[k.id].version);
				info.number = k.id;
			}
		} while (!handle_looked(m));
		if (!here || !*name) /* its maker is just about to write the name */
			continue;
		info.name = name;
		r = shoal_keyspace_stats(&k, &info.stats);
		if (!r)
			r = visit(&info, arg);
	}
	return r;
}

/* ---- flights ----------------------------------------------------------------------------------------------- */

struct shown_flight {
	struct shoal_flight flight;
	char name[NAME_SIZE];
	uint64_t key[FLIGHT_KEY / 8];
};

static void show_flight(const struct segment *s, uint32_t slot, uint64_t word, struct shown_flight *out)
{
	static const enum shoal_flight_state states[] = {
		[FLIGHT_COMPUTING] = SHOAL_FLIGHT_LOADING,   [FLIGHT_PUBLISHING] = SHOAL_FLIGHT_PUBLISHING,
		[FLIGHT_OVERDUE] = SHOAL_FLIGHT_OVERDUE,     [FLIGHT_ORPHAN] = SHOAL_FLIGHT_LEADERLESS,
		[FLIGHT_FAILED] = SHOAL_FLIGHT_FAILED,       [FLIGHT_UNCACHEABLE] = SHOAL_FLIGHT_UNCACHEABLE,
	};
	const struct flight *f = &s->flights[slot];
	struct flight_times times = flight_times(s, slot, word, clock_ms(&s->clock));
	uint32_t keyspace = w32_load(&f->keyspace), process = life_process(s, FLIGHT_LEADER(word));
	unsigned i;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < FLIGHT_KEY / 8; i++)
		out->key[i] = w64_load(&f->key[i]);
	out->flight.state = states[FLIGHT_STATE(word)];
	out->flight.keyspace = out->name;
	if (keyspace < s->geometry.keyspaces) {
		handle_name(&s->keyspaces[keyspace], out->name);
		out->flight.version = (uint32_t)w64_load(&s->keyspaces[keyspace].version);
	}
	out->flight.key_size = min_u64(w32_load(&f->key_size), KEY_MAX);
	out->flight.key = (struct shoal_slice){out->key, min_u64(out->flight.key_size, FLIGHT_KEY)};
	if (FLIGHT_STATE(word) <= FLIGHT_OVERDUE && process < s->geometry.processes)
		out->flight.leader = (pid_t)PROC_PID(w64_load(&s->processes[process].owner));
	out->flight.waiters = (int32_t)w32_load(&f->waiters) > 0 ? w32_load(&f->waiters) : 0;
	out->flight.age_ms = times.age_ms;
	out->flight.left_ms = times.left_ms;
	out->flight.error = times.error;
}

/* The flight at that slot, which didn't change while it was looked at. */
static bool look_at_flight(const struct segment *s, uint32_t slot, struct shown_flight *out)
{
	uint64_t word = w64_load(&s->flight_words[slot]);

	if (FLIGHT_STATE(word) <= FLIGHT_CLAIMING || FLIGHT_STATE(word) > FLIGHT_UNCACHEABLE)
		return false;
	show_flight(s, slot, word, out);
	return w64_load(&s->flight_words[slot]) == word;
}

EXPORT int shoal_flights(struct shoal *cache, shoal_flight_visit *visit, void *arg)
{
	struct shown_flight shown;
	struct member *m;
	uint32_t slot, n = 1;
	bool found;
	int r = 0;

	if (!cache || !visit)
		return SHOAL_ERR_INVALID;
	for (slot = 0; slot < n && !r; slot++) {
		m = handle_look(cache, &r);
		if (!m)
			return r;
		n = m->segment.geometry.flights;
		found = slot < n && look_at_flight(&m->segment, slot, &shown);
		if (handle_looked(m) && found)
			r = visit(&shown.flight, arg);
	}
	return r;
}

/* ---- processes --------------------------------------------------------------------------------------------- */

/* Of an extent that is announced: is it waited for? */
static bool blocks(const struct segment *s, uint64_t word)
{
	uint32_t x = (uint32_t)word - 1;

	return (uint32_t)word && x < s->geometry.extents && EXTENT_STATE(extents_word(s, x)) == EXTENT_RETIRED;
}

static void add_reader(const struct segment *s, const struct reader *r, struct shoal_process *p)
{
	uint64_t word;
	unsigned i;

	p->threads++;
	for (i = 0; i < READER_WORDS; i++) {
		word = w64_load(&r->words[i]);
		p->pins += i >= PINS && word;
		p->blocks += word && blocks(s, word);
	}
}

static bool look_at_process(const struct segment *s, uint32_t i, uint64_t self, struct shoal_process *p)
{
	uint64_t owner = w64_load(&s->processes[i].owner), joined = w64_load(&s->processes[i].joined_ms),
		 now = clock_ms(&s->clock), word;
	uint32_t r;

	if (!owner)
		return false;
	*p = (struct shoal_process){
		.pid = (pid_t)PROC_PID(owner),
		.other_namespace = PROC_NS(owner) != PROC_NS(self),
		.age_ms = now > joined ? now - joined : 0,
	};
	for (r = 0; r < s->geometry.readers; r++)
		if (life_process(s, r) == i)
			add_reader(s, &s->readers[r], p);
	for (r = 0; r < s->geometry.flights; r++) {
		word = w64_load(&s->flight_words[r]);
		p->flights += FLIGHT_STATE(word) >= FLIGHT_COMPUTING && FLIGHT_STATE(word) <= FLIGHT_OVERDUE &&
			      life_process(s, FLIGHT_LEADER(word)) == i;
	}
	return w64_load(&s->processes[i].owner) == owner;
}

EXPORT int shoal_processes(struct shoal *cache, shoal_process_visit *visit, void *arg)
{
	struct shoal_process shown;
	uint64_t self = proc_self();
	struct member *m;
	uint32_t i, n = 1;
	bool found;
	int r = 0;

	if (!cache || !visit)
		return SHOAL_ERR_INVALID;
	for (i = 0; i < n && !r; i++) {
		m = handle_look(cache, &r);
		if (!m)
			return r;
		n = m->segment.geometry.processes;
		found = i < n && look_at_process(&m->segment, i, self, &shown);
		if (handle_looked(m) && found)
			r = visit(&shown, arg);
	}
	return r;
}
