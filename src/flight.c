/* SPDX-License-Identifier: MIT */
/*
 * Flights. A key may use the slots of one group, from its own position on and round (the probe order). Their words lie
 * side by side, in two lines, so that who sets or deletes sees at a glance that nobody loads the key.
 *
 * Who may do which arrow, all by CAS of the whole word:
 *   FREE -> CLAIMING                any claimant
 *   CLAIMING -> COMPUTING           its claimant, after it has looked at the whole window once more
 *   CLAIMING -> FREE                its claimant (gives way), or any other claimant of the same fingerprint (aborts it)
 *   COMPUTING -> OVERDUE            any claimant that finds its lease over
 *   -> PUBLISHING, -> FAILED ...    its leader (token)
 *   -> COMPUTING (heir)             any claimant, from ORPHAN or from a dead leader
 *   -> FREE                         who supersedes the load; the leader at the end
 *
 * F.1  At most one COMPUTING per key among live leaders within their lease: both of two racing claimants look at the
 *      window after their CLAIMING is visible, so at least one sees the other; and who is seen CLAIMING is aborted or
 *      given way to.
 * F.2  A leader's every step is a CAS from a word of its own leadership (token), so one that was superseded, overdue or
 *      taken over can't publish.
 * F.3  PUBLISHING names the index slot and the word it expects there, in the leader's own reader slot (a thread
 *      publishes one load at a time; in the flight's slot a late leader could write over its successor's). Who
 *      supersedes kills that target first and frees the flight after: so no late index CAS succeeds, and whoever
 *      supersedes next sees PUBLISHING until the target is dead.
 * F.4  Only a COMPUTING within its lease is taken over from a dead leader, and an ORPHAN within its lease: what may
 *      have been passed by (OVERDUE, PUBLISHING past its lease, and what became of it) is freed instead. A live leader
 *      is never replaced, but its lease may end: then it is marked OVERDUE first and passed by. It may still publish,
 *      if nothing newer happened.
 * F.5  No waiter waits on a stranger: a sleeper compares the flight's word, which carries the leader, and the leader's
 *      alive word, which life_of found to be that leader's. It sleeps 250 ms at most, then looks again.
 * F.6  The words beside a flight's word only rise (flight_raise()); a lease is written before the CAS that begins its
 *      leadership. So a reader that finds the word unchanged has read the present leadership's lease or a longer one.
 *
 * What is left at a kill: CLAIMING, aborted by the next claimant of the key or freed by recovery; COMPUTING, taken over
 * by a waiter or the next claimant of the key, or made an ORPHAN by recovery, which keeps it for the waiters;
 * PUBLISHING and OVERDUE, freed by either. An ORPHAN that nobody wants is used again when its window is full.
 *
 * Progress: claims of different keys never wait for each other. Of racing claimants of one key, the one behind is
 * aborted by the one ahead, and after a few turns the one ahead by the one behind, so a stopped claimant holds nobody
 * up.
 */
#include <limits.h>
#include <string.h>

#include "flight.h"
#include "hash.h"

#define SLICE_MS 250u        /* a sleeper looks again after this, in case that a wake was lost */
#define LONG_SLICE_MS 2000u  /* a watch does: the words are glanced at in between (watch.c) */
#define UNARMED_SLICE_MS 10u /* both do, where nothing would tell them of the leader's death */
#define BACKOFF_CAP_MS 60000u

/* ---- the leader -------------------------------------------------------------------------------------------- */

/* Move a flight that this leadership still holds (F.2); `from` is a mask of states. The word is read before the lease,
 * whose tag tells whose it is (F.6). An OVERDUE one was passed by: it may publish, and otherwise goes to FREE. */
static bool move(const struct segment *s, const struct ticket *t, unsigned from, enum flight_state to, int64_t leader)
{
	struct flight *f = flight_at(s, t->slot);
	uint64_t word;

	for (;;) {
		word = w64_load(flight_word_of(s, f));
		if (!(1u << FLIGHT_STATE(word) & from) || FLIGHT_TAG(w64_load(&f->lease)) != t->token)
			return false;
		if (FLIGHT_STATE(word) == FLIGHT_OVERDUE && to != FLIGHT_PUBLISHING)
			to = FLIGHT_FREE;
		if (w64_cas(flight_word_of(s, f), word,
		            flight_step(word, leader < 0 ? FLIGHT_LEADER(word) : (uint32_t)leader, to)))
			return true;
	}
}

#define IN(state) (1u << FLIGHT_##state)

void flight_drew(struct seat *seat, const struct ticket *t, uint64_t generation)
{
	flight_raise(&flight_at(&seat->member->segment, t->slot)->generation, t->token, generation);
}

bool flight_publishing(struct seat *seat, const struct ticket *t)
{
	return move(&seat->member->segment, t, IN(COMPUTING) | IN(OVERDUE), FLIGHT_PUBLISHING, seat->index);
}

bool flight_unpublish(struct seat *seat, const struct ticket *t)
{
	return move(&seat->member->segment, t, IN(PUBLISHING), FLIGHT_COMPUTING, -1);
}

bool flight_end(struct seat *seat, const struct ticket *t, enum flight_state to)
{
	const struct segment *s = &seat->member->segment;
	struct flight *f = flight_at(s, t->slot);

	if (to == FLIGHT_ORPHAN && !w32_load(&f->waiters))
		to = FLIGHT_FREE;
	if (!move(s, t, IN(COMPUTING) | IN(OVERDUE) | IN(PUBLISHING), to, -1))
		return false;
	flight_wake(s, f, FLIGHT_RELAY);
	return true;
}

bool flight_refuse(struct seat *seat, const struct ticket *t, uint64_t until_ms)
{
	flight_raise(&flight_at(&seat->member->segment, t->slot)->until, t->token, flight_ticks(until_ms));
	return flight_end(seat, t, FLIGHT_UNCACHEABLE);
}

/* How many times in a row this key has failed before: the error of an earlier leadership of the same claim tells. */
static unsigned failures_before(const struct flight *f)
{
	uint64_t error = w64_load(&f->error);

	return flight_is_newer(FLIGHT_TAG(error), FLIGHT_TAG(w64_load(&f->identity[0])))
		       ? (unsigned)(error >> 32 & 15) + 1
		       : 0;
}

bool flight_fail(struct seat *seat, const struct ticket *t, int code, uint64_t now_ms, uint32_t retry_ms)
{
	struct flight *f = flight_at(&seat->member->segment, t->slot);
	uint64_t n = min_u64(failures_before(f), 15),
		 wait = min_u64((uint64_t)retry_ms << n, max_u64(retry_ms, BACKOFF_CAP_MS));

	if (n) /* keys that failed together are not tried again together */
		wait -= wait / 8 * (hash_mix(now_ms ^ t->slot) >> 48) >> 16;
	flight_raise(&f->error, t->token, n << 32 | (uint32_t)code);
	/* 0: not remembered, over for any clock */
	flight_raise(&f->until, t->token, wait ? flight_ticks(now_ms + wait) : 0);
	return flight_end(seat, t, FLIGHT_FAILED);
}

/* The lease, then the word: who marks it OVERDUE has read the lease after the word, so one of the two CASes fails. */
bool flight_renew(struct seat *seat, const struct ticket *t, uint64_t now_ms, uint32_t lease_ms)
{
	flight_raise(&flight_at(&seat->member->segment, t->slot)->lease, t->token, flight_ticks(now_ms + lease_ms));
	return move(&seat->member->segment, t, IN(COMPUTING), FLIGHT_COMPUTING, -1);
}

/* ---- waiters ----------------------------------------------------------------------------------------------- */

void flight_join(const struct segment *s, const struct ticket *t, int waiters)
{
	w32_add(&flight_at(s, t->slot)->waiters, (uint32_t)waiters);
}

/* The slot is still the claim's that was joined, or nobody has claimed it since. */
bool flight_error(const struct segment *s, const struct ticket *t, int *error)
{
	struct flight *f = flight_at(s, t->slot);
	uint64_t word = w64_load(flight_word_of(s, f)), value = w64_load(&f->error);

	if (FLIGHT_STATE(word) != FLIGHT_FAILED && FLIGHT_STATE(word) != FLIGHT_FREE)
		return false;
	if (flight_is_newer(t->token, FLIGHT_TAG(value)) ||
	    flight_is_newer(FLIGHT_TAG(w64_load(&f->identity[0])), t->token))
		return false;
	*error = (int)(uint32_t)value;
	return true;
}

void flight_sleep(struct seat *seat, const struct ticket *t, uint64_t deadline_ns)
{
	const struct segment *s = &seat->member->segment;
	struct flight *f = flight_at(s, t->slot);
	uint64_t ref = life_ref(seat->member, FLIGHT_LEADER(t->word)), slice = clock_system_ns(CLOCK_MONOTONIC);
	const word32 *word = (const word32 *)(const void *)flight_word_of(s, f), *alive = NULL;
	enum life_state life;
	uint32_t seen = 0;

	if (!ref || w64_load(flight_word_of(s, f)) != t->word)
		return;
	life = life_of(seat->member, ref, &alive, &seen);
	if (life >= LIFE_THREAD_DEAD)
		return;
	slice += (life == LIFE_ARMED ? SLICE_MS : UNARMED_SLICE_MS) * 1000000u;
	futex_wait(word, (uint32_t)t->word, life == LIFE_ARMED ? alive : NULL, seen, min_u64(deadline_ns, slice));
	/* The kernel wakes one sleeper of a dead leader's; that one wakes the rest, whatever it finds next: the value
	 * may be there, and then nobody asks whether its leader lives. */
	if (life == LIFE_ARMED && w32_load(alive) != seen)
		life_of(seat->member, ref, &alive, &seen);
}

/* The end of the lease as well: nobody rings then. */
bool flight_watch(struct seat *seat, const struct ticket *t, struct bell_words *words)
{
	const struct segment *s = &seat->member->segment;
	struct flight *f = flight_at(s, t->slot);
	uint64_t ref = life_ref(seat->member, FLIGHT_LEADER(t->word)), now_ms = clock_ms(&s->clock), end_ms;
	const word32 *alive = NULL;
	enum life_state life;
	uint32_t seen = 0;

	if (!ref || w64_load(flight_word_of(s, f)) != t->word)
		return false;
	life = life_of(seat->member, ref, &alive, &seen);
	end_ms = flight_ms(&f->lease);
	if (life >= LIFE_THREAD_DEAD || end_ms <= now_ms)
		return false;
	*words = (struct bell_words){
		.word = flight_word_of(s, f),
		.word_seen = t->word,
		.low = life == LIFE_ARMED ? alive : NULL,
		.low_seen = seen,
		.is_life = life == LIFE_ARMED,
		.number = t->slot,
		.slice_ms = min_u64(life == LIFE_ARMED ? LONG_SLICE_MS : UNARMED_SLICE_MS, end_ms - now_ms),
	};
	bell_add_watcher(seat->member, &f->watchers, words);
	/* after it, seq_cst both; partner: flight_wake() after a CAS */
	return atomic_load(flight_word_of(s, f)) == t->word;
}

/*
 * Each thread that waits inside a loader names the flight it waits for; the flight names its leader. Of a circle of
 * waiters each names its flight before it looks with a fence between, so the last of them sees it whole.
 */
bool flight_is_crossed(struct seat *seat, const struct ticket *t)
{
	const struct segment *s = &seat->member->segment;
	uint64_t waits = (uint64_t)t->slot + 1, word;
	uint32_t leader, steps;

	w64_store(&seat->reader->waits, waits);
	barrier_full(); /* partner: the same line of the others in the circle */
	for (steps = 0; waits && waits <= s->geometry.flights && steps < s->geometry.readers; steps++) {
		word = w64_load(&s->flight_words[waits - 1]);
		leader = FLIGHT_LEADER(word);
		if (FLIGHT_STATE(word) != FLIGHT_COMPUTING || leader >= s->geometry.readers)
			return false;
		if (leader == seat->index)
			return true;
		waits = w64_load(&s->readers[leader].waits);
	}
	return false;
}

void flight_uncross(struct seat *seat)
{
	w64_store(&seat->reader->waits, 0);
}

void flight_relay_bells(const struct segment *s, const struct ticket *t)
{
	struct flight *f = flight_at(s, t->slot);

	if (w64_load(flight_word_of(s, f)) != t->word)
		bell_ring_some(s, &f->watchers, t->slot, FLIGHT_RELAY);
}

void flight_relay(const struct segment *s, const struct ticket *t)
{
	struct flight *f = flight_at(s, t->slot);

	if ((uint32_t)w64_load(flight_word_of(s, f)) != (uint32_t)t->word)
		flight_wake(s, f, FLIGHT_RELAY);
}

/* ---- who supersedes ---------------------------------------------------------------------------------------- */

/* A generation that this leadership has not written yet counts as older than any: its load is not under way, or its
 * leader was stopped between the draw and the write. */
static bool is_below(uint64_t low_bits, uint64_t generation)
{
	return (int64_t)((low_bits - generation) << (64 - FLIGHT_PAYLOAD_BITS)) < 0;
}

/* ... and so does one that nobody has drawn: the counter was put back by a scribble (index_is_ahead). */
static bool is_older(const struct segment *s, const struct flight *f, uint64_t generation)
{
	uint64_t seen = w64_load(&f->generation);

	return FLIGHT_TAG(seen) != FLIGHT_TAG(w64_load(&f->lease)) || is_below(seen, generation) ||
	       is_below(w64_load(&s->header->generation), seen);
}

/* Does the slot hold a load of the key, running or remembered? */
static bool look_at(const struct segment *s, const struct flight_key *key, struct flight_seen *seen)
{
	struct flight *f = flight_at(s, seen->slot);
	uint32_t leader;

	do {
		seen->word = w64_load(flight_word_of(s, f));
		if (FLIGHT_STATE(seen->word) <= FLIGHT_CLAIMING ||
		    FLIGHT_FINGERPRINT(seen->word) != (key->hash & 0xffff) ||
		    !flight_is_of(f, key->hash, key->second))
			return false;
		seen->publishing = FLIGHT_STATE(seen->word) == FLIGHT_PUBLISHING;
		seen->older = FLIGHT_STATE(seen->word) >= FLIGHT_ORPHAN || is_older(s, f, seen->below);
		leader = (uint32_t)min_u64(FLIGHT_LEADER(seen->word), s->geometry.readers - 1);
		seen->target = w64_load(&s->readers[leader].target);
		seen->expected = w64_load(&s->readers[leader].expected);
	} while (w64_load(flight_word_of(s, f)) != seen->word);
	return true;
}

bool flight_next(struct seat *seat, const struct flight_key *key, uint32_t *cursor, struct flight_seen *seen)
{
	const struct segment *s = &seat->member->segment;
	unsigned found = flight_match(s, key->hash) & ~0u << *cursor;

	for (; found; found &= found - 1) {
		*cursor = (uint32_t)__builtin_ctz(found) + 1;
		seen->slot = flight_group(s, key->hash) + *cursor - 1;
		if (look_at(s, key, seen))
			return true;
	}
	return false;
}

bool flight_detach(const struct segment *s, const struct flight_seen *seen)
{
	struct flight *f = flight_at(s, seen->slot);

	if (!w64_cas(flight_word_of(s, f), seen->word, flight_step(seen->word, 0, FLIGHT_FREE)))
		return false;
	flight_wake(s, f, INT_MAX);
	return true;
}

/* Not those that publish: what they put is of before the barrier. Nor those whose generation is not written yet: mostly
 * it is not drawn, either, and one that began before is told so when it publishes. */
void flight_detach_all(const struct segment *s, uint32_t keyspace, uint64_t below)
{
	struct flight_seen seen;
	struct flight *f;
	uint64_t generation;

	for (seen.slot = 0; seen.slot < s->geometry.flights; seen.slot++) {
		f = flight_at(s, seen.slot);
		seen.word = w64_load(flight_word_of(s, f));
		if (FLIGHT_STATE(seen.word) != FLIGHT_COMPUTING && FLIGHT_STATE(seen.word) != FLIGHT_OVERDUE)
			continue;
		generation = w64_load(&f->generation);
		if (w32_load(&f->keyspace) == keyspace && FLIGHT_TAG(generation) == FLIGHT_TAG(w64_load(&f->lease)) &&
		    is_below(generation, below))
			flight_detach(s, &seen); /* what was read is of that word, or the CAS fails */
	}
}

void flight_nudge(const struct segment *s, const struct flight_seen *seen)
{
	flight_wake(s, flight_at(s, seen->slot), INT_MAX);
}

/* Late is harmless: the word is read before the incarnation is asked for, and changed by CAS. */
void flight_recover(struct seat *seat, uint64_t ref)
{
	const struct segment *s = &seat->member->segment;
	enum flight_state state;
	struct flight *f;
	uint64_t word;
	uint32_t i;

	for (i = 0; i < s->geometry.flights; i++) {
		f = flight_at(s, i);
		word = w64_load(flight_word_of(s, f));
		state = FLIGHT_STATE(word);
		if (state == FLIGHT_FREE || state >= FLIGHT_ORPHAN || FLIGHT_LEADER(word) != REF_READER(ref) ||
		    life_ref(seat->member, REF_READER(ref)) != ref)
			continue;
		state = state == FLIGHT_COMPUTING && w32_load(&f->waiters) ? FLIGHT_ORPHAN : FLIGHT_FREE;
		if (w64_cas(flight_word_of(s, f), word, flight_step(word, FLIGHT_NOBODY, state)))
			flight_wake(s, f, FLIGHT_RELAY);
	}
}

struct flight_times flight_times(const struct segment *s, uint32_t slot, uint64_t word, uint64_t now_ms)
{
	const struct flight *f = flight_at(s, slot);
	bool remembered = FLIGHT_STATE(word) == FLIGHT_FAILED || FLIGHT_STATE(word) == FLIGHT_UNCACHEABLE;
	uint64_t began = flight_ms(&f->started);
	uint64_t end = flight_ms(remembered ? &f->until : &f->lease);

	return (struct flight_times){
		.age_ms = now_ms > began ? now_ms - began : 0,
		.left_ms = (int64_t)(end - now_ms),
		.error = FLIGHT_STATE(word) == FLIGHT_FAILED ? (int)(uint32_t)w64_load(&f->error) : 0,
	};
}

uint32_t flight_running(const struct segment *s, uint32_t keyspace, uint64_t now_ms, uint64_t *oldest_ms)
{
	uint32_t i, n = 0;
	uint64_t word, began;

	*oldest_ms = 0;
	for (i = 0; i < s->geometry.flights; i++) {
		word = w64_load(&s->flight_words[i]);
		if (FLIGHT_STATE(word) < FLIGHT_COMPUTING || FLIGHT_STATE(word) > FLIGHT_OVERDUE ||
		    (keyspace != UINT32_MAX && w32_load(&s->flights[i].keyspace) != keyspace))
			continue;
		n++;
		began = flight_ms(&s->flights[i].started);
		*oldest_ms = max_u64(*oldest_ms, now_ms > began ? now_ms - began : 0);
	}
	return n;
}
