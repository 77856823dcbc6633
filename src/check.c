/* SPDX-License-Identifier: MIT */
/*
 * The audit of a segment: walks every table and says what can't be, while others work.
 *
 * K.1  It writes nothing into the segment and takes no slot of it, so it holds nobody up and works on a read-only view.
 * K.2  What moves is no fault. A fault is said when two looks with a pause between them find the same one of the same
 *      words; what was copied out is judged only if its slot and its extent's word are still as before.
 * K.3  An extent's counts (extents.h, E.5) are compared with what the index holds at one moment: the slots that point
 *      into the extent are listed, its counts read, and the list looked at again. A slot's word does not come back, so
 *      what is there both times was there in between; if that is more than is counted, the count is wrong.
 * K.4  What a dead process left (its slots, pins, flights, extents) is not broken: it is recovered by who meets it.
 *
 * Killed or stopped processes leave counts that are too high, extents that are OPEN without a head, heads of extents
 * that were sealed before they became heads: none of these is a fault. After a resize the region that serves is looked
 * at.
 */
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proc.h"
#include "store.h"

#define LOOKS 4
#define TURNS 100 /* of regions, while one follows another */

struct check {
	struct shoal *cache;
	const struct member *m; /* of the present look */
	const struct segment *s;
	shoal_fault *fault;
	void *arg;
	uint64_t self;
	int found, stopped, error;
	bool moved;             /* to another region: begin anew there */
	uint64_t offset;        /* of this one */
	bool recoverable;       /* what is being said */
	char text[320];
	struct entry *copy;
	size_t capacity;
	uint32_t *entries;      /* by extent: slots of the index that point into it */
	uint64_t *live;         /* and their bytes */
};

/* One look at number i of a table: false, or a sentence in c->text. Inside a read-side section. */
typedef bool check_look(struct check *c, uint64_t i);

static __attribute__((format(printf, 2, 3))) bool wrong(struct check *c, const char *format, ...)
{
	va_list args;

	c->recoverable = false;
	va_start(args, format);
	vsnprintf(c->text, sizeof(c->text), format, args);
	va_end(args);
	return true;
}

static bool enter(struct check *c)
{
	c->m = handle_look(c->cache, &c->error);
	if (!c->m)
		return false;
	c->s = &c->m->segment;
	c->moved = c->entries && c->s->geometry.offset != c->offset;
	if (c->moved)
		handle_leave();
	return !c->moved;
}

/* Of a region that has moved meanwhile nothing counts: it may have been given back. */
static void leave(struct check *c)
{
	c->moved = segment_has_moved(c->s);
	handle_leave();
}

static void say(struct check *c)
{
	c->found += !c->recoverable;
	if (c->fault)
		c->stopped = c->fault(c->text, c->recoverable, c->arg);
}

/* K.2. The callback runs outside of any section: it may take its time. */
static void look(struct check *c, check_look *at, uint64_t i)
{
	char before[sizeof(c->text)] = "";
	bool found;
	int n;

	for (n = 0; n < LOOKS; n++) {
		if (!enter(c))
			return;
		found = at(c, i);
		leave(c);
		if (!found || c->moved)
			return;
		if (!strcmp(before, c->text)) {
			say(c);
			return;
		}
		strcpy(before, c->text);
		sched_yield();
	}
}

static void look_at_all(struct check *c, check_look *at, uint64_t n)
{
	uint64_t i;

	for (i = 0; i < n && !c->stopped && !c->moved && !c->error; i++)
		look(c, at, i);
}

/* ---- header ------------------------------------------------------------------------------------------------ */

static bool look_at_header(struct check *c, uint64_t i)
{
	const struct header *h = c->s->header;

	if (memcmp(&h->geometry, &c->s->geometry, sizeof(h->geometry)))
		return wrong(c, "header: its geometry is not what it was at attach");
	if (w32_load(&h->permits_used) > c->s->geometry.readers)
		return wrong(c, "header: %u permits used of %u", w32_load(&h->permits_used), c->s->geometry.readers);
	/* drawn beyond the end by racers */
	if (w32_load(&h->lines_used) > c->s->geometry.lines + c->s->geometry.readers)
		return wrong(c, "header: %u counter lines used of %u", w32_load(&h->lines_used), c->s->geometry.lines);
	return false;
}

/* A head whose extent was sealed before it became one is dropped by the next writer (extents.h, E.4). */
static bool look_at_head(struct check *c, uint64_t i)
{
	uint64_t head = w64_load(&c->s->header->heads[i / HEADS_MAX][i % HEADS_MAX]), word, other;
	uint32_t x = (uint32_t)head - 1, sequence = (uint32_t)(head >> 32), k;

	if (!head)
		return false;
	if (i % HEADS_MAX >= c->s->geometry.heads)
		return wrong(c, "head %u of log %u: %#" PRIx64 ", but there are %u heads", (unsigned)(i % HEADS_MAX),
			     (unsigned)(i / HEADS_MAX), head, c->s->geometry.heads);
	if (x >= c->s->geometry.extents)
		return wrong(c, "head %u of log %u: names extent %u of %u", (unsigned)(i % HEADS_MAX),
		             (unsigned)(i / HEADS_MAX), x, c->s->geometry.extents);
	word = extents_word(c->s, x);
	if (EXTENT_STATE(word) == EXTENT_SEALED && EXTENT_SEQUENCE(word) == ((sequence + 1) & 0xfffffff) &&
	    !w32_load(&c->s->extents[x].tail))
		return false;
	if (EXTENT_STATE(word) != EXTENT_OPEN || EXTENT_SEQUENCE(word) != sequence)
		return wrong(
			c, "head %u of log %u: names extent %u as OPEN with sequence %u, which is in state %u with %u",
			(unsigned)(i % HEADS_MAX), (unsigned)(i / HEADS_MAX), x, sequence, (unsigned)EXTENT_STATE(word),
			EXTENT_SEQUENCE(word));
	if (w32_load(&c->s->extents[x].kind) != i / HEADS_MAX)
		return wrong(c, "head %u of log %u: names extent %u, which is of log %u", (unsigned)(i % HEADS_MAX),
			     (unsigned)(i / HEADS_MAX), x, w32_load(&c->s->extents[x].kind));
	for (k = 0; k < i; k++) {
		other = w64_load(&c->s->header->heads[k / HEADS_MAX][k % HEADS_MAX]);
		if ((uint32_t)other == x + 1)
			return wrong(c, "head %u of log %u: names extent %u, as head %u of log %u does",
			             (unsigned)(i % HEADS_MAX), (unsigned)(i / HEADS_MAX), x, k % HEADS_MAX,
			             k / HEADS_MAX);
	}
	return false;
}

/* ---- who --------------------------------------------------------------------------------------------------- */

static bool look_at_process(struct check *c, uint64_t i)
{
	uint64_t owner = w64_load(&c->s->processes[i].owner);

	if (!owner || proc_is_dead(owner, c->self) != PROC_DEAD)
		return false;
	wrong(c, "process slot %" PRIu64 ": process %u has died, and is to be recovered", i, PROC_PID(owner));
	c->recoverable = true;
	return true;
}

static bool names_a_process(const struct segment *s, uint64_t owner)
{
	uint32_t process = OWNER_PROCESS(owner) - 1;

	return process < s->geometry.processes && w64_load(&s->processes[process].owner) &&
	       (w32_load(&s->processes[process].incarnation) & 0xffff) == (owner & 0xffff);
}

static bool look_at_reader(struct check *c, uint64_t i)
{
	const struct reader *r = &c->s->readers[i];
	uint64_t owner = w64_load(&r->owner), word;
	uint32_t w;

	if (w32_load(&r->first_line) > c->s->geometry.lines)
		return wrong(c, "reader slot %" PRIu64 ": counter line %u of %u", i, w32_load(&r->first_line),
		             c->s->geometry.lines);
	if (!(uint32_t)owner)
		return false;
	if (!names_a_process(c->s, owner))
		return wrong(c, "reader slot %" PRIu64 ": owner %#" PRIx64 " is no process that is here", i, owner);
	if (w32_load(&r->alive) > c->s->geometry.readers)
		return wrong(c, "reader slot %" PRIu64 ": alive word %u of %u", i, w32_load(&r->alive),
		             c->s->geometry.readers);
	for (w = 0; w < READER_WORDS; w++) {
		word = w64_load(&r->words[w]);
		if (word && (!(uint32_t)word || (uint32_t)word > c->s->geometry.extents || word >> 32 != owner >> 32))
			return wrong(c,
			             "reader slot %" PRIu64 ": announcement %u is %#" PRIx64
			             ", of %u extents and incarnation %u",
			             i, w, word, c->s->geometry.extents, (uint32_t)(owner >> 32));
	}
	return false;
}

static bool look_at_line(struct check *c, uint64_t i)
{
	const struct line *l = &c->s->lines[i];

	if (w32_load(&l->keyspace) > c->s->geometry.keyspaces)
		return wrong(c, "counter line %" PRIu64 ": keyspace %u of %u", i, w32_load(&l->keyspace) - 1,
		             c->s->geometry.keyspaces);
	if (w32_load(&l->next) > c->s->geometry.lines)
		return wrong(c, "counter line %" PRIu64 ": next one is %u of %u", i, w32_load(&l->next),
		             c->s->geometry.lines);
	return false;
}

/* ---- flights, permits, keyspaces --------------------------------------------------------------------------- */

static bool look_at_flight(struct check *c, uint64_t i)
{
	uint64_t word = w64_load(&c->s->flight_words[i]);
	enum flight_state state = FLIGHT_STATE(word);

	if (state > FLIGHT_UNCACHEABLE)
		return wrong(c, "flight %" PRIu64 ": state %u in %#" PRIx64, i, (unsigned)state, word);
	if (state == FLIGHT_FREE && word >> 32)
		return wrong(c, "flight %" PRIu64 ": FREE, but with a key or a leader: %#" PRIx64, i, word);
	if (state >= FLIGHT_CLAIMING && state <= FLIGHT_OVERDUE && !life_ref(c->m, FLIGHT_LEADER(word)))
		return wrong(c, "flight %" PRIu64 ": %#" PRIx64 " is led by reader slot %u, which is free", i, word,
		             FLIGHT_LEADER(word));
	return false;
}

static bool look_at_permit(struct check *c, uint64_t i)
{
	uint64_t word = w64_load(&c->s->permits[i].word);

	if (!word)
		return false;
	if (PERMIT_STATE(word) == PERMIT_FREE)
		return wrong(c, "permit %" PRIu64 ": FREE, but %#" PRIx64, i, word);
	if (i >= w32_load(&c->s->header->permits_used))
		return wrong(c, "permit %" PRIu64 ": %#" PRIx64 " where none has been used yet", i, word);
	if (PERMIT_KEYSPACE(word) >= c->s->geometry.keyspaces)
		return wrong(c, "permit %" PRIu64 ": %#" PRIx64 " is for keyspace %u of %u", i, word,
		             PERMIT_KEYSPACE(word), c->s->geometry.keyspaces);
	if (!life_ref(c->m, PERMIT_READER(word)))
		return wrong(c, "permit %" PRIu64 ": %#" PRIx64 " is of reader slot %u, which is free", i, word,
		             PERMIT_READER(word));
	return false;
}

static bool beyond(const struct check *c, uint64_t generation)
{
	return generation > w64_load(&c->s->header->generation);
}

/* Its creator may have died before it wrote the name: then who opens it next writes it. */
static bool look_at_keyspace(struct check *c, uint64_t i)
{
	const struct keyspace *k = &c->s->keyspaces[i];
	uint64_t identity = w64_load(&k->identity), version = w64_load(&k->version);
	union {
		uint64_t words[NAME_SIZE / 8];
		char text[NAME_SIZE];
	} name;
	unsigned w;

	if (!identity)
		return false;
	for (w = 0; w < NAME_SIZE / 8; w++)
		name.words[w] = w64_load(&k->name[w]);
	if (name.words[0] && identity != handle_keyspace_identity(c->s, name.text, version))
		return wrong(c,
		             "keyspace %" PRIu64 ": identity %#" PRIx64
		             " is not of its name \"%.*s\" and version %" PRIu64,
		             i, identity, (int)strnlen(name.text, NAME_SIZE), name.text, version);
	if (i && !w64_load(&k[-1].identity))
		return wrong(c, "keyspace %" PRIu64 ": stands behind a free one", i);
	if (beyond(c, w64_load(&k->barrier)) || beyond(c, w64_load(&k->deleted)) || beyond(c, w64_load(&k->forgotten)))
		return wrong(c, "keyspace %" PRIu64 ": a barrier is newer than any generation", i);
	for (w = 0; w < BARRIERS; w++)
		if (beyond(c, w64_load(&k->expired[w].generation)))
			return wrong(c, "keyspace %" PRIu64 ": expire %u is newer than any generation", i, w);
	return false;
}

/* ---- extents ----------------------------------------------------------------------------------------------- */

/* Entries follow each other up to the tail. */
static bool look_at_lengths(struct check *c, uint32_t x, uint64_t word)
{
	uint32_t at = 0, tail = w32_load(&c->s->extents[x].tail);
	uint64_t offset;

	while (log_next(c->s, x, &at, &offset))
		;
	return at != tail && tail == w32_load(&c->s->extents[x].tail) &&
	       wrong(c, "extent %u (%#" PRIx64 "): its entries end at %u, its tail is at %u", x, word, at, tail);
}

static bool look_at_extent(struct check *c, uint64_t i)
{
	const struct extent *e = &c->s->extents[i];
	uint64_t word = extents_word(c->s, (uint32_t)i), lock = w64_load(&e->lock), ref;
	enum extent_state state = EXTENT_STATE(word);
	uint32_t tail = w32_load(&e->tail), x = (uint32_t)i, owner = EXTENT_OWNER(word);
	uint64_t counts = w64_load(&e->counts);

	ref = life_ref(c->m, owner); /* 0 as well where there is no such slot */
	if (state > EXTENT_RETIRED)
		return wrong(c, "extent %u: state %u in %#" PRIx64, x, (unsigned)state, word);
	if (tail > c->s->geometry.extent_size || tail % 8)
		return wrong(c, "extent %u (%#" PRIx64 "): its tail is at %u of %u", x, word, tail,
		             c->s->geometry.extent_size);
	if (w32_load(&e->kind) >= LOGS)
		return wrong(c, "extent %u: of log %u", x, w32_load(&e->kind));
	if (lock && life_ref(c->m, REF_READER(lock)) != lock)
		return wrong(c, "extent %u: locked by %#" PRIx64 ", which is no reader that is here", x, lock);
	if (state == EXTENT_EVICTING && (!ref || (ref >> 32 & 0xffff) != EXTENT_OWNER_INCARNATION(word)))
		return wrong(c, "extent %u: %#" PRIx64 " is being evicted by reader slot %u, which another has or none",
		             x, word, owner);
	if (state == EXTENT_EVICTING && (uint32_t)w64_load(&c->s->readers[owner].words[WALKING]) != x + 1)
		return wrong(c, "extent %u: %#" PRIx64 " is being evicted by reader slot %u, which doesn't announce it",
		             x, word, owner);
	if (state == EXTENT_FREE || state == EXTENT_RETIRED)
		return false;
	if ((uint64_t)EXTENT_ENTRIES(counts) * sizeof(struct entry) > tail || EXTENT_LIVE(counts) > tail)
		return wrong(c, "extent %u (%#" PRIx64 "): counts %u entries of %u bytes, %u bytes are used", x, word,
			     EXTENT_ENTRIES(counts), EXTENT_LIVE(counts), tail);
	return look_at_lengths(c, x, word);
}

/* ---- index ------------------------------------------------------------------------------------------------- */

static const word64 *slot_at(const struct check *c, uint64_t i)
{
	return index_slot_at(c->s, i);
}

/* A word that points to a well-formed entry, which is copied out; false: to none, *e has what was there. */
static bool copy_entry(struct check *c, uint64_t word, struct log_entry *e)
{
	struct entry *copy;

	if (!log_read(c->s, SLOT_BYTES(word), e))
		return false;
	if (e->length > c->capacity) {
		copy = realloc(c->copy, e->length);
		if (!copy)
			return false;
		c->copy = copy;
		c->capacity = e->length;
	}
	copy = c->copy;
	memcpy(copy, e->entry, e->length);
	e->entry = copy;
	e->key_size = ENTRY_KEY_SIZE(copy->kind);
	e->keyspace = ENTRY_KEYSPACE(copy->kind);
	e->stored = copy->stored;
	e->value_size = STORED_SIZE(e->stored);
	e->key = copy->key;
	e->value = e->key + align_up(e->key_size, 8);
	return log_length(c->s, e->key_size, e->value_size) <= e->length;
}

static bool judge_entry(struct check *c, uint64_t i, uint64_t word, const struct log_entry *e)
{
	struct index_hit hit;
	struct key key;
	bool alone;

	if (!e->key_size || e->keyspace >= c->s->geometry.keyspaces ||
	    !w64_load(&c->s->keyspaces[e->keyspace].identity))
		return wrong(c,
		             "index slot %" PRIu64 ": %#" PRIx64
		             " points to an entry of keyspace %u with a key of %u bytes",
		             i, word, e->keyspace, e->key_size);
	if ((c->s->geometry.flags & SHOAL_CHECKSUM) && !log_is_intact(e))
		return wrong(c, "index slot %" PRIu64 ": %#" PRIx64 " points to an entry whose checksum is wrong", i,
		             word);
	if (beyond(c, e->entry->generation))
		return wrong(c,
		             "index slot %" PRIu64 ": %#" PRIx64 " points to an entry of generation %" PRIu64
		             ", which nobody has drawn",
		             i, word, e->entry->generation);
	key = index_key(c->s, e->keyspace, e->key, e->key_size);
	if (!index_locate(c->s, &key, SLOT_BYTES(word), &hit, &alone))
		return wrong(c, "index slot %" PRIu64 ": %#" PRIx64 " points to an entry whose key has no place there",
		             i, word);
	if (hit.slot != slot_at(c, i))
		return wrong(c,
		             "index slot %" PRIu64 ": %#" PRIx64 " points to the entry that slot %" PRIu64 " points to",
		             i, word, index_number(c->s, hit.slot));
	return false;
}

static bool look_at_slot(struct check *c, uint64_t i)
{
	uint64_t word = w64_load(slot_at(c, i)), offset = SLOT_BYTES(word), extent, begin;
	struct log_entry e;
	enum extent_state state;
	bool found;
	uint32_t x;

	if (!SLOT_IS_USED(word))
		return false;
	if (!log_holds(c->s, offset))
		return wrong(c, "index slot %" PRIu64 ": %#" PRIx64 " points out of the log", i, word);
	x = extent_of(c->s, offset);
	extent = extents_word(c->s, x);
	state = EXTENT_STATE(extent);
	begin = c->s->geometry.log_at + (uint64_t)x * c->s->geometry.extent_size;
	if (state == EXTENT_FREE || state >= EXTENT_RETIRED)
		found = wrong(c, "index slot %" PRIu64 ": %#" PRIx64 " points into extent %u, which is in state %u", i,
		              word, x, (unsigned)state);
	else if (!copy_entry(c, word, &e))
		found = wrong(c, "index slot %" PRIu64 ": %#" PRIx64 " points to no entry in extent %u", i, word, x);
	else if (offset + e.length - begin > w32_load(&c->s->extents[x].tail))
		found = wrong(c, "index slot %" PRIu64 ": %#" PRIx64 " points behind the tail of extent %u", i, word,
		              x);
	else
		found = judge_entry(c, i, word, &e);
	barrier_full(); /* what was read was read before this second look */
	if (!SLOT_SAME(w64_load(slot_at(c, i)), word) || extents_word(c->s, x) != extent)
		return found && wrong(c, "index slot %" PRIu64 ": moves", i) && false;
	if (!found) {
		c->entries[x]++;
		c->live[x] += e.length;
	}
	return found;
}

/* K.3 */
struct listed {
	uint64_t number, word;
	uint32_t length;
};

static uint64_t list_slots(struct check *c, uint32_t x, struct listed *list, uint64_t most)
{
	uint64_t i, n = 0, word;
	struct log_entry e;

	for (i = 0; i < index_slots(c->s) && n < most; i++) {
		word = w64_load(slot_at(c, i));
		if (SLOT_IS_USED(word) && log_read(c->s, SLOT_BYTES(word), &e) &&
		    extent_of(c->s, SLOT_BYTES(word)) == x)
			list[n++] = (struct listed){i, word, e.length};
	}
	return n;
}

static bool look_at_counts(struct check *c, uint64_t i)
{
	const struct extent *e = &c->s->extents[i];
	uint64_t most = c->s->geometry.extent_size / sizeof(struct entry), n, k, bytes = 0,
		 counts = w64_load(&e->counts), word = extents_word(c->s, (uint32_t)i);
	struct listed *list;
	uint32_t there = 0;

	if (c->entries[i] <= EXTENT_ENTRIES(counts) && c->live[i] <= EXTENT_LIVE(counts))
		return false;
	list = malloc(most * sizeof(*list));
	if (!list)
		return false;
	n = list_slots(c, (uint32_t)i, list, most);
	barrier_full();
	counts = w64_load(&e->counts);
	barrier_full();
	for (k = 0; k < n; k++) {
		if (!SLOT_SAME(w64_load(slot_at(c, list[k].number)), list[k].word))
			continue;
		there++;
		bytes += list[k].length;
	}
	free(list);
	return extents_word(c->s, (uint32_t)i) == word &&
	       (there > EXTENT_ENTRIES(counts) || bytes > EXTENT_LIVE(counts)) &&
	       wrong(c, "extent %u (%#" PRIx64 "): counts %u entries of %u bytes, the index has %u of %" PRIu64,
	             (unsigned)i, word, EXTENT_ENTRIES(counts), EXTENT_LIVE(counts), there, bytes);
}

/* ---- all --------------------------------------------------------------------------------------------------- */

static void look_at_tables(struct check *c, const struct geometry *g)
{
	look(c, look_at_header, 0);
	look_at_all(c, look_at_head, LOGS * HEADS_MAX);
	look_at_all(c, look_at_process, g->processes);
	look_at_all(c, look_at_reader, g->readers);
	look_at_all(c, look_at_line, g->lines);
	look_at_all(c, look_at_flight, g->flights);
	look_at_all(c, look_at_permit, g->readers);
	look_at_all(c, look_at_keyspace, g->keyspaces);
	look_at_all(c, look_at_extent, g->extents);
	look_at_all(c, look_at_slot, (uint64_t)g->buckets * BUCKET_SLOTS);
	look_at_all(c, look_at_counts, g->extents);
}

static void look_at_everything(struct check *c)
{
	struct geometry geometry;

	if (!enter(c))
		return;
	geometry = c->s->geometry;
	handle_leave();
	c->offset = geometry.offset;
	c->entries = calloc(geometry.extents, sizeof(*c->entries));
	c->live = calloc(geometry.extents, sizeof(*c->live));
	if (c->entries && c->live)
		look_at_tables(c, &geometry);
	else
		c->error = SHOAL_ERR_SYSTEM;
	free(c->entries);
	free(c->live);
	c->entries = NULL;
	c->live = NULL;
}

EXPORT int shoal_check(struct shoal *cache, shoal_fault *fault, void *arg)
{
	struct check c = {.cache = cache, .fault = fault, .arg = arg};
	int turns;

	if (!cache)
		return SHOAL_ERR_INVALID;
	c.self = proc_self();
	for (turns = 0; turns < TURNS && (!turns || c.moved) && !c.error && !c.stopped; turns++)
		look_at_everything(&c);
	free(c.copy);
	return c.error ? c.error : c.found;
}
