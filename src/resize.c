/* SPDX-License-Identifier: MIT */
/*
 * Another size, under load: a new region is built beside the one that serves, and takes its place.
 *
 *   file     | region 0 ... |      | region 1 ... |      | region 2 ... |          offsets rise, none is used twice
 *                  moved ---------------^   moved --------------^
 *
 *   header.moved     SERVING{n} --freeze--> FROZEN{n + 1} --move--> MOVED{offset}
 *                         ^-------thaw----------'
 *
 * Each arrow is one CAS. The resizer freezes and moves; anybody thaws who waits and finds it dead or too slow. Then its
 * own CAS fails, and it tries again.
 *
 *   1  `resizer` is claimed, memory given out and laid out, with the same seed, so that a key's hash stays
 *   2  rounds without a freeze: each slot of the old index that has changed since the last one is carried over, first
 *      of all the most frequent ones; what was carried of it before is removed. The new region is never made to evict
 *   3  freeze; wait for the changes that had begun; one more round; keyspaces and counters
 *   4  move; wake who waits for loads, permits and the freeze
 *   5  each process follows at its next call (move.c): it maps the new region, puts it in the place of the old one
 *      under urcu-bp, and leaves that one when no value and no load of it is in hand
 *   6  the last one out gives its memory back
 *
 * Z.1  Readers never wait: they read the old region until it has moved. A call looks once, at its begin.
 * Z.2  A change announces itself in `reader.changing`, then looks at `moved`, and goes on only if it is SERVING. The
 *      resizer freezes, then has a barrier, then waits until each change that it sees announced has ended. (The pattern
 *      of rcu.h: either the announcement is seen, or the freeze.) So the last round sees every change that any reader
 *      has seen, and no reader sees a key go back, nor a deleted one come back, by going over to the new region. (To
 *      change first and look at `moved` then is not enough: a reader could see the change in the old region, and not in
 *      the new one until the changer has made up for it.)
 * Z.3  Whoever stands still in the midst of a change for QUIET_MS, stopped by a signal, is given up: by a CAS of its
 *      announcement, so that it knows. When it goes on and finds the region moved at the end of its change, it does it
 *      again in the new region under the same generation: so what is newer there stays. If it has ended before the
 *      move, the attempt is thawed. Nobody else does a change again: the last round has seen it, and a delete of it,
 *      too. (All of this but one thing holds for all readers: a change that goes on just during the last round, after
 *      its slot was passed, and is a few instructions from its end at the move, may be seen, missed, and seen again.)
 * Z.4  A load is never done again: its generation was drawn before it, and a delete in the new region has not met its
 *      flight. It is stored if the last round has seen it; else its value goes to its own caller (load.h, P.4).
 * Z.5  Generations go on 2^32 above those of the old region, so that those who are late there draw none that is used.
 * Z.6  A region is given back when it has moved and none of its process slots has an owner that lives. A process that
 *      joins looks at `moved` after it has claimed its slot. The header stays, to tell the way, and the alive words, of
 *      which threads may still have one locked.
 * Z.7  Counters are sums, and a region's own and inherited ones only rise. What the new one inherits is raised to them
 *      at the freeze, when a process goes over, when it has left, and before the memory goes: twice is harmless.
 *
 * tests/spin/resize.pml is the model of Z.2 to Z.4.
 *
 * What is left if the resizer dies:
 *   before `resizer`      nothing
 *   before the move       memory behind the serving region: whoever resizes next, recovers or reaps gives it back
 *                         (move.c, clean_behind). FROZEN: thawed by the first who waits, woken by its death
 *   after the move        nothing; sleepers wake after their slices; `latest` is a short cut
 * Stopped, it holds up changes for a second, once for each of its attempts, and other resizes until it goes on.
 * A follower's death leaves its process slots, in both regions, which are recovered as ever.
 */
#include <sched.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "evict.h"
#include "futex.h"
#include "life.h"
#include "store.h"

#define ATTEMPTS 8
#define ROUNDS 6      /* at most, before each attempt */
#define QUIET_MS 200u /* for a change to end */
#define GENERATION_STEP ((uint64_t)1 << 32)
#define SPARE_SHIFT 5 /* of the new extents a 32nd is left for the last rounds */

/* What is known of a slot of the old index. */
struct carried {
	uint64_t word;     /* without its frequency; 0: nothing there */
	uint64_t offset;   /* of its copy in the new region; 0: not carried */
	uint32_t sequence; /* of its extent */
};

struct resize {
	struct seat *old;
	struct member *to;
	struct seat *new;
	struct carried *carried;
	uint64_t *standing; /* by reader: the change in which it stands still */
	uint64_t frozen;    /* our word, while it is FROZEN */
	unsigned spare;     /* free extents to be left */
	bool room;
};

static const struct segment *from(const struct resize *r)
{
	return &r->old->member->segment;
}

static const struct segment *to(const struct resize *r)
{
	return &r->to->segment;
}

/* ---- carry ------------------------------------------------------------------------------------------------- */

static const struct entry *copy_of(const struct resize *r, const struct carried *c)
{
	return log_at(to(r), c->offset);
}

/* The new region is seen by nobody: its entries stay where they are, and are settled (index.h, I.6). */
static void drop_copy(struct resize *r, struct carried *c)
{
	const struct entry *e = copy_of(r, c);
	struct key key = index_key(to(r), ENTRY_KEYSPACE(e->kind), e->key, ENTRY_KEY_SIZE(e->kind));
	struct index_hit hit;

	if (index_find(r->new, &key, WANT_NEWEST, READING, OTHER, &hit)) {
		if (hit.e.entry->generation == e->generation)
			index_drop(to(r), &hit);
		rcu_clear(r->new, hit.announced);
	}
	c->offset = 0;
}

static enum log_kind kind_at(const struct segment *s, uint64_t word)
{
	return extent_kind(s, extent_of(s, SLOT_BYTES(word)));
}

/* Is it of any use there? */
static bool is_wanted(const struct resize *r, const struct log_entry *e)
{
	static const struct shoal_policy any = {.stale_ms = SHOAL_FOREVER, .error_ms = SHOAL_FOREVER};
	struct bounds bounds;

	if (!e->key_size || e->keyspace >= from(r)->geometry.keyspaces ||
	    (uint64_t)e->key_size + e->value_size > to(r)->geometry.max_entry)
		return false;
	bounds = store_bounds(from(r), e->keyspace, e->entry, &any);
	return store_age(&bounds, clock_ms(&from(r)->clock)) < AGE_DEAD;
}

/* The entry as it is, but for its length: what was reserved for it and not used stays behind. */
static bool copy_entry(struct resize *r, const struct log_entry *e, enum log_kind kind, uint64_t *offset)
{
	uint32_t length = (uint32_t)log_length(to(r), e->key_size, e->value_size);
	bool opened = false;

	if (!r->room || log_append(r->new, WRITING, kind, length, offset, &opened))
		return false;
	memcpy((char *)log_at(to(r), *offset) + sizeof(word32), (const char *)e->entry + sizeof(word32),
	       length - sizeof(word32));
	if (opened)
		r->room = extents_count(to(r), EXTENT_FREE) > r->spare;
	return true;
}

static bool put_copy(struct resize *r, uint64_t offset, uint64_t frequency)
{
	struct entry *e = log_at(to(r), offset);
	struct key key = index_key(to(r), ENTRY_KEYSPACE(e->kind), e->key, ENTRY_KEY_SIZE(e->kind));
	struct index_target target;
	bool done;

	w64_max(&to(r)->header->generation, e->generation); /* has been drawn */
	if (index_place(r->new, &key, e->generation, READING, OTHER, &target))
		return false; /* the older one of two */
	done = index_commit(to(r), &target, index_word(&key, offset, SLOT_USED | SLOT_SETTLED | frequency),
	                    w32_peek(&e->length), log_end(e->born_ms, e->fresh_for, e->stale_for, e->error_for));
	rcu_clear(r->new, target.announced);
	return done;
}

static void carry(struct resize *r, const struct index_hit *hit, struct carried *c)
{
	uint64_t offset;

	if (!is_wanted(r, &hit->e) || !copy_entry(r, &hit->e, kind_at(from(r), hit->word), &offset))
		return;
	if (put_copy(r, offset, hit->word & SLOT_FREQUENCY))
		c->offset = offset;
	rcu_clear(r->new, WRITING);
}

/* Moved within the log by an eviction, or its extent's state has changed. */
static bool is_same(const struct resize *r, const struct carried *c, const struct entry *e)
{
	const struct entry *copy = copy_of(r, c);

	return copy->generation == e->generation && copy->born_ms == e->born_ms && copy->fresh_for == e->fresh_for &&
	       copy->stale_for == e->stale_for && copy->error_for == e->error_for;
}

static uint32_t sequence_at(const struct segment *s, uint64_t word)
{
	return log_holds(s, SLOT_BYTES(word)) ? EXTENT_SEQUENCE(extents_word(s, extent_of(s, SLOT_BYTES(word)))) : 0;
}

/* The slot isn't as it was. What changes while we look differs at the next round. */
static void carry_slot(struct resize *r, uint64_t number)
{
	struct carried *c = &r->carried[number];
	struct index_hit hit;
	bool there = index_at(r->old, number, READING, &hit);

	c->sequence = there ? sequence_at(from(r), hit.word) : 0;
	c->word = there ? SLOT_BARE(hit.word) : 0;
	if (!there || !c->offset || !is_same(r, c, hit.e.entry)) {
		if (c->offset)
			drop_copy(r, c);
		if (there)
			carry(r, &hit, c);
	}
	rcu_clear(r->old, READING);
}

/* ---- rounds ------------------------------------------------------------------------------------------------ */

static uint64_t word_at(const struct segment *s, uint64_t number)
{
	return w64_load(index_slot_at(s, number));
}

/* The main log's before the probation log's. */
#define CLASSES 8

static bool is_of_class(const struct segment *s, uint64_t word, unsigned class)
{
	return SLOT_IS_USED(word) && SLOT_FREQUENCY_OF(word) == class / 2 && log_holds(s, SLOT_BYTES(word)) &&
	       (unsigned)kind_at(s, word) == class % 2;
}

/* What there was no room for stays behind, until it changes. */
static void leave_rest(struct resize *r)
{
	uint64_t number, slots = index_slots(from(r)), word;

	for (number = 0; number < slots; number++) {
		word = SLOT_BARE(word_at(from(r), number));
		if (r->carried[number].word || !SLOT_IS_USED(word))
			continue;
		r->carried[number] = (struct carried){.word = word, .sequence = sequence_at(from(r), word)};
	}
}

/* The hottest first, as long as there is room. */
static void first_round(struct resize *r)
{
	uint64_t number, slots = index_slots(from(r));
	int class;

	for (class = CLASSES - 1; class >= 0 && r->room; class--)
		for (number = 0; number < slots && r->room; number++)
			if (!r->carried[number].word && is_of_class(from(r), word_at(from(r), number), (unsigned)class))
				carry_slot(r, number);
	if (!r->room)
		leave_rest(r);
}

static void spare(struct resize *r, unsigned extents)
{
	r->spare = evict_reserve(to(r)) + extents;
	r->room = extents_count(to(r), EXTENT_FREE) > r->spare;
}

/* What has changed since; returns how much. */
static uint64_t next_round(struct resize *r)
{
	uint64_t number, slots = index_slots(from(r)), word, changed = 0;
	const struct carried *c;

	for (number = 0; number < slots; number++) {
		c = &r->carried[number];
		word = SLOT_BARE(word_at(from(r), number));
		if (!SLOT_IS_USED(word) ? !c->word : c->word == word && c->sequence == sequence_at(from(r), word))
			continue;
		carry_slot(r, number);
		changed++;
	}
	return changed;
}

/* Until a round finds little to do. Some room is left for what changes last. */
static void carry_over(struct resize *r, bool first)
{
	uint64_t changed = UINT64_MAX, before;
	unsigned i;

	spare(r, to(r)->geometry.extents >> SPARE_SHIFT);
	if (first)
		first_round(r);
	spare(r, to(r)->geometry.extents >> (SPARE_SHIFT + 1));
	for (i = 0; i < ROUNDS; i++) {
		before = changed;
		changed = next_round(r);
		if (changed < 256 || changed > before / 2)
			break;
	}
}

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

static void copy_words(const word64 *a, word64 *b, unsigned n)
{
	for (; n; n--)
		w64_store(b++, w64_load(a++));
}

/* At the same number, as entries and handles have it. Again at each attempt. */
static void copy_keyspace(const struct keyspace *a, struct keyspace *b)
{
	unsigned i;

	copy_words(&a->version, &b->version, 1);
	copy_words(a->name, b->name, NAME_SIZE / 8);
	copy_words(&a->turn, &b->turn, 1);
	copy_words(&a->warm, &b->warm, 1);
	copy_words(&a->barrier, &b->barrier, 1);
	copy_words(&a->deleted, &b->deleted, 1);
	copy_words(&a->forgotten, &b->forgotten, 1);
	copy_words(&a->expires, &b->expires, 1);
	for (i = 0; i < BARRIERS; i++) {
		copy_words(&a->expired[i].generation, &b->expired[i].generation, 1);
		copy_words(&a->expired[i].at_ms, &b->expired[i].at_ms, 1);
	}
	copy_words(a->load_histogram, b->load_histogram, HISTOGRAM_BUCKETS);
	copy_words(a->wait_histogram, b->wait_histogram, HISTOGRAM_BUCKETS);
	copy_words(&a->stored_ms, &b->stored_ms, 1);
	w32_store(&b->fresh_ms, w32_load(&a->fresh_ms));
	w32_store(&b->stale_ms, w32_load(&a->stale_ms));
	w32_store(&b->error_ms, w32_load(&a->error_ms));
	w32_store(&b->lease_ms, w32_load(&a->lease_ms));
	copy_words(&a->identity, &b->identity, 1);
}

static void copy_header(const struct header *a, struct header *b)
{
	w64_max(&b->generation, w64_load(&a->generation) + GENERATION_STEP); /* Z.5 */
	copy_words(&a->evicted_cold, &b->evicted_cold, 1);
	copy_words(&a->evicted_expired, &b->evicted_expired, 1);
	copy_words(&a->displaced_entries, &b->displaced_entries, 1);
	copy_words(a->evicted_by, b->evicted_by, EVICTED_REASONS);
	copy_words(&a->reappended_bytes, &b->reappended_bytes, 1);
	copy_words(&a->grace_blocked_ms, &b->grace_blocked_ms, 1);
	copy_words(&a->turn, &b->turn, 1);
}

/* What the policy has learnt, for another size. */
static void copy_policy(const struct segment *a, const struct segment *b)
{
	uint64_t bytes = w64_load(&a->header->probation_bytes),
		 log = (uint64_t)a->geometry.extents * a->geometry.extent_size;

	w64_store(&b->header->probation_bytes,
	          (uint64_t)((uint128)bytes * b->geometry.extents * b->geometry.extent_size / log));
}

static void copy_records(const struct resize *r)
{
	uint32_t k;

	copy_header(from(r)->header, to(r)->header);
	copy_policy(from(r), to(r));
	for (k = 0; k < from(r)->geometry.keyspaces && k < to(r)->geometry.keyspaces; k++)
		if (w64_load(&from(r)->keyspaces[k].identity))
			copy_keyspace(&from(r)->keyspaces[k], &to(r)->keyspaces[k]);
	move_inherit_next(from(r), to(r));
}

/* ---- freeze ------------------------------------------------------------------------------------------------ */

static void wake_frozen(const struct resize *r)
{
	futex_wake((const word32 *)(const void *)&from(r)->header->moved, INT32_MAX);
}

static void thaw(const struct resize *r)
{
	w64_cas(&from(r)->header->moved, r->frozen, MOVED_WORD(MOVED_NUMBER(r->frozen), SERVING));
	wake_frozen(r);
}

static bool freeze(struct resize *r)
{
	word64 *moved = &from(r)->header->moved;
	uint64_t word = w64_load(moved);

	if (MOVED_STATE(word) == MOVED)
		return false;
	if (MOVED_STATE(word) == FROZEN) { /* by one that died: there is no other who may be at it */
		r->frozen = word;
		thaw(r);
		word = MOVED_WORD(MOVED_NUMBER(word), SERVING);
	}
	r->frozen = MOVED_WORD(MOVED_NUMBER(word) + 1, FROZEN);
	return w64_cas(moved, word, r->frozen);
}

/* A change of the reader, by a thread that lives; 0: none. */
static uint64_t change_of(const struct resize *r, uint32_t reader)
{
	uint64_t changing = w64_load(&from(r)->readers[reader].changing), ref = life_ref(r->old->member, reader);
	const word32 *alive;
	uint32_t seen;

	if (!changing || !ref || REF_INCARNATION(ref) != changing >> 32 ||
	    life_of(r->old->member, ref, &alive, &seen) >= LIFE_THREAD_DEAD)
		return 0;
	return changing;
}

/* Z.2. Whoever is not done in time stands still: Z.3. */
static int await_changes(struct resize *r)
{
	uint64_t end = clock_system_ns(CLOCK_MONOTONIC) + QUIET_MS * 1000000, first;
	word64 *changing;
	uint32_t i;

	if (rcu_barrier(from(r)))
		return SHOAL_ERR_SYSTEM;
	for (i = 0; i < from(r)->geometry.readers; i++) {
		changing = &from(r)->readers[i].changing;
		first = w64_load(changing) ? change_of(r, i) : 0;
		while (first && w64_load(changing) == first && clock_system_ns(CLOCK_MONOTONIC) < end)
			sched_yield();
		r->standing[i] =
			first && w64_cas(changing, first, first | CHANGE_GIVEN_UP) ? first | CHANGE_GIVEN_UP : 0;
	}
	return SHOAL_OK;
}

static bool still_stand(const struct resize *r)
{
	uint32_t i;

	for (i = 0; i < from(r)->geometry.readers; i++)
		if (r->standing[i] && w64_load(&from(r)->readers[i].changing) != r->standing[i])
			return false;
	return true;
}

/* SHOAL_OK: it has moved. SHOAL_ERR_BUSY: not this time. */
static int attempt(struct resize *r)
{
	uint64_t moved = MOVED_WORD(to(r)->geometry.offset / PAGE, MOVED);
	int result;

	if (!freeze(r))
		return SHOAL_ERR_BUSY;
	result = await_changes(r);
	if (!result) {
		spare(r, 0);
		next_round(r);
		copy_records(r);
		if (still_stand(r) && w64_cas(&from(r)->header->moved, r->frozen, moved)) /* the word that publishes */
			return SHOAL_OK;
		result = SHOAL_ERR_BUSY;
	}
	thaw(r);
	return result;
}

/* Those who sleep on the old region's words look again, and find that it has moved. */
static void wake_all(const struct resize *r)
{
	uint32_t i;

	wake_frozen(r);
	for (i = 0; i < from(r)->geometry.flights; i++)
		if (FLIGHT_STATE(w64_load(&from(r)->flight_words[i])) != FLIGHT_FREE)
			futex_wake((const word32 *)(const void *)&from(r)->flight_words[i], INT32_MAX);
	for (i = 0; i < from(r)->geometry.readers; i++)
		if (PERMIT_STATE(w64_load(&from(r)->permits[i].word)) != PERMIT_FREE) {
			w32_add(&from(r)->permits[i].kick, 1);
			futex_wake(&from(r)->permits[i].kick, INT32_MAX);
		}
	bell_ring_everyone(from(r));
}

/* ---- the call ---------------------------------------------------------------------------------------------- */

/* One at a time; a dead one's place, and its memory, is taken. */
static bool claim(struct seat *seat)
{
	word64 *resizer = &seat->member->segment.header->resizer;

	if (w64_cas(resizer, 0, member_ref(seat)))
		return true;
	move_clean(seat->member);
	return w64_cas(resizer, 0, member_ref(seat));
}

static void count_used(const struct segment *s, struct geometry_needs *needs)
{
	uint32_t i;

	*needs = (struct geometry_needs){0};
	for (i = 0; i < s->geometry.processes; i++)
		needs->processes += w64_load(&s->processes[i].owner) != 0;
	for (i = 0; i < s->geometry.readers; i++)
		needs->readers += (uint32_t)w64_load(&s->readers[i].owner) != 0;
	for (i = 0; i < s->geometry.keyspaces && w64_load(&s->keyspaces[i].identity); i++)
		needs->keyspaces = i + 1;
}

static int build(struct resize *r, uint64_t size)
{
	struct geometry_needs needs;
	int result;

	count_used(from(r), &needs);
	needs.readers += needs.readers / 4 + 1; /* and the guest */
	r->to = calloc(1, sizeof(*r->to));
	if (!r->to)
		return SHOAL_ERR_SYSTEM;
	result = segment_extend(from(r), size, &needs, &r->to->segment);
	if (!result && (result = registry_succeed(r->to, r->old->member))) {
		segment_forget(from(r), &to(r)->geometry);
		segment_close(&r->to->segment);
	}
	if (result) {
		free(r->to);
		r->to = NULL;
		return result;
	}
	w64_store(&to(r)->header->before, from(r)->geometry.offset | BEFORE_IS);
	return registry_guest(r->to, &r->new);
}

static int run(struct resize *r, uint64_t size)
{
	int result, i;

	r->carried = calloc(index_slots(from(r)), sizeof(*r->carried));
	r->standing = calloc(from(r)->geometry.readers, sizeof(*r->standing));
	if (!r->carried || !r->standing)
		return SHOAL_ERR_SYSTEM;
	result = build(r, size);
	if (result)
		return result;
	result = SHOAL_ERR_BUSY;
	for (i = 0; i < ATTEMPTS && result == SHOAL_ERR_BUSY; i++) {
		carry_over(r, !i);
		result = attempt(r);
	}
	return result;
}

/* The calling process goes first. */
static void go_over(struct shoal *cache, struct resize *r)
{
	segment_raise_latest(from(r), to(r)->geometry.offset);
	wake_all(r);
	registry_end_guest(r->new);
	urcu_bp_read_lock();
	move_replace(&cache->member, r->old->member, r->to);
}

static void give_up(struct resize *r)
{
	struct geometry g;

	if (r->new)
		registry_end_guest(r->new);
	if (r->to) {
		g = to(r)->geometry;
		registry_close(r->to);
		segment_forget(from(r), &g);
	}
	w64_cas(&from(r)->header->resizer, member_ref(r->old), 0);
}

static int check(const struct segment *s, uint64_t size)
{
	if (s->geometry.flags & SEGMENT_ANONYMOUS && size > s->geometry.max_size)
		return SHOAL_ERR_TOO_BIG;
	return size < SIZE_MIN || size > SIZE_MAX_SEGMENT ? SHOAL_ERR_INVALID : SHOAL_OK;
}

/* Old regions that were left by the dead. */
static void clean_up(struct shoal *cache)
{
	struct seat *seat = handle_enter(cache, &(int){0});

	if (!seat)
		return;
	move_clean(seat->member);
	handle_leave();
}

/* The right to resize, and a hold on the region. */
static int begin(struct shoal *cache, uint64_t size, struct resize *r)
{
	bool moved;
	int result;

	do {
		r->old = handle_enter(cache, &result);
		if (!r->old)
			return result;
		result = check(from(r), size);
		if (!result && !claim(r->old))
			result = SHOAL_ERR_BUSY;
		moved = segment_has_moved(from(r)); /* meanwhile, by another resize */
		if (!result && !moved)
			registry_hold(r->old);
		handle_leave();
	} while (moved);
	return result;
}

EXPORT int shoal_resize(struct shoal *cache, size_t new_size)
{
	struct resize r = {0};
	uint64_t size = new_size > SIZE_MAX_SEGMENT ? new_size : align_up(new_size, PAGE);
	struct listener listener;
	int result;

	if (!cache)
		return SHOAL_ERR_INVALID;
	result = begin(cache, size, &r);
	if (result)
		return result;
	listener = from(&r)->listener;
	result = run(&r, size);
	if (result)
		give_up(&r);
	else
		go_over(cache, &r);
	registry_drop(r.old);
	registry_settle(r.old, 0);
	free(r.carried);
	free(r.standing);
	if (!result) {
		tell_of(&listener, SHOAL_LOG_INFO, "resized to %" PRIu64 " bytes", size);
		clean_up(cache);
	}
	return result;
}
