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
 * F.6  The words beside a flight's word only rise (raise()); a lease is written before the CAS that begins its
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
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "flight.h"
#include "futex.h"
#include "hash.h"
#include "life.h"

#define SEQUENCE_BITS 28
#define SEQUENCE_MASK ((1u << SEQUENCE_BITS) - 1)
#define PAYLOAD_BITS 36
#define PAYLOAD_MASK (((uint64_t)1 << PAYLOAD_BITS) - 1)
#define FINGERPRINT(word) ((word) >> 48)
#define SEQUENCE(word) ((uint32_t)((word) >> 4) & SEQUENCE_MASK)
#define TAG(value) ((uint32_t)((value) >> PAYLOAD_BITS))
#define RELAY 4
#define NOBODY 0xffffu /* leads an ORPHAN whose leader died; one that gave up stays named */
#define SLICE_MS 250u        /* a sleeper looks again after this, in case that a wake was lost */
#define LONG_SLICE_MS 2000u  /* a watch does: the words are glanced at in between (watch.c) */
#define UNARMED_SLICE_MS 10u /* both do, where nothing would tell them of the leader's death */
#define BACKOFF_CAP_MS 60000u
#define PATIENCE 4 /* turns in which a claimant ahead is given way to */

static uint64_t make_word(const struct flight_key *k, uint32_t leader, uint32_t sequence, enum flight_state state)
{
	return (k->hash & 0xffff) << 48 | (uint64_t)leader << 32 | (uint64_t)(sequence & SEQUENCE_MASK) << 4 | state;
}

/* The next word of a slot: another state and leader, one sequence on. FREE keeps nothing else. */
static uint64_t step(uint64_t word, uint32_t leader, enum flight_state state)
{
	uint64_t next = (uint64_t)((SEQUENCE(word) + 1) & SEQUENCE_MASK) << 4 | state;

	return state == FLIGHT_FREE ? next : next | FINGERPRINT(word) << 48 | (uint64_t)leader << 32;
}

static bool newer(uint32_t a, uint32_t b)
{
	return (int32_t)((a - b) << (32 - SEQUENCE_BITS)) > 0;
}

/* F.6: to a later sequence, or to more within the same one. */
static void raise(word64 *w, uint32_t sequence, uint64_t payload)
{
	uint64_t value = (uint64_t)sequence << PAYLOAD_BITS | (payload & PAYLOAD_MASK), now = w64_load(w);

	while (newer(sequence, TAG(now)) || (sequence == TAG(now) && value > now)) {
		if (w64_cas(w, now, value))
			return;
		now = w64_load(w);
	}
}

static uint64_t to_ticks(uint64_t ms)
{
	return (ms + 3) / 4;
}

static uint64_t ms_at(const word64 *w)
{
	return (w64_load(w) & PAYLOAD_MASK) * 4;
}

static bool is_over(const word64 *w, uint64_t now_ms)
{
	return ms_at(w) <= now_ms;
}

static struct flight *flight_at(const struct segment *s, uint32_t slot)
{
	return &s->flights[slot < s->geometry.flights ? slot : 0];
}

static word64 *word_of(const struct segment *s, const struct flight *f)
{
	return &s->flight_words[f - s->flights];
}

static uint32_t window(const struct segment *s)
{
	return (uint32_t)min_u64(FLIGHT_GROUP, s->geometry.flights);
}

static uint32_t probe(const struct segment *s, const struct flight_key *k, uint32_t i)
{
	return flight_group(s, k->hash) + (uint32_t)((k->hash >> 16) + i) % window(s);
}

static uint64_t identity_of(const struct flight_key *k, unsigned i)
{
	return (i ? k->second : k->hash >> 16) & PAYLOAD_MASK;
}

static bool is_of_key(const struct flight *f, const struct flight_key *k)
{
	return (w64_load(&f->identity[0]) & PAYLOAD_MASK) == identity_of(k, 0) &&
	       (w64_load(&f->identity[1]) & PAYLOAD_MASK) == identity_of(k, 1);
}

static void wake(const struct segment *s, const struct flight *f, int n)
{
	bell_ring_some(s, &f->watchers, (uint32_t)(f - s->flights), n); /* first: theirs is the longer way */
	futex_wake((word32 *)(void *)word_of(s, f), n);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of the flight's word");

static bool leader_is_dead(const struct seat *seat, uint64_t word)
{
	const word32 *alive;
	uint32_t seen;
	uint64_t ref = life_ref(seat->member, FLIGHT_LEADER(word));

	return !ref || life_of(seat->member, ref, &alive, &seen) >= LIFE_THREAD_DEAD;
}

/* ---- claim ------------------------------------------------------------------------------------------------- */

struct claim {
	struct seat *seat;
	const struct flight_key *key;
	uint64_t now_ms;
	uint32_t lease_ms;
	struct ticket *ticket;
	int *error;
};

enum { LOOK_ON = 0, LOOK_AGAIN = -1, TAKE_OVER = -2 }; /* besides enum flight_outcome */

static enum flight_outcome lead(const struct claim *c, struct flight *f, uint32_t slot, uint32_t sequence)
{
	raise(&f->started, sequence, to_ticks(c->now_ms));
	*c->ticket = (struct ticket){.slot = slot, .token = sequence};
	return OUTCOME_LEAD;
}

/* From now on, not from when the caller asked: it may have been preempted, and another's lease have ended since. */
static uint64_t end_of_lease(const struct claim *c)
{
	return to_ticks(clock_ms(&c->seat->member->segment.clock) + c->lease_ms);
}

/* The lease first (F.6): of several heirs the longest counts, and only one CAS succeeds. */
static bool take_over(const struct claim *c, struct flight *f, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;
	uint32_t sequence = (SEQUENCE(word) + 1) & SEQUENCE_MASK;

	raise(&f->lease, sequence, end_of_lease(c));
	return w64_cas(word_of(s, f), word, step(word, c->seat->index, FLIGHT_COMPUTING));
}

/* To FREE, and whoever waits for it claims anew. */
static int end_here(const struct segment *s, struct flight *f, uint64_t word)
{
	if (w64_cas(word_of(s, f), word, step(word, 0, FLIGHT_FREE)))
		wake(s, f, RELAY);
	return LOOK_AGAIN;
}

static void count_overdue(const struct segment *s, const struct flight *f, uint32_t keyspace)
{
	w64_add(&s->keyspaces[keyspace].counters[COUNTER_overdue], 1);
	tell_of(&s->listener, SHOAL_LOG_WARNING,
	        "a load in keyspace %" PRIu32 " has outlived its lease: another begins beside it, flight %td", keyspace,
	        f - s->flights);
}

/* A running load. Its lease comes first: what is late is marked OVERDUE before anybody passes it by, so that neither it
 * nor its heir can be taken for the one that leads (F.4). The clock is read after the word. */
static int judge_running(const struct claim *c, struct flight *f, uint32_t slot, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;
	bool late = is_over(&f->lease, clock_ms(&s->clock));
	bool dead = leader_is_dead(c->seat, word);

	if (FLIGHT_STATE(word) == FLIGHT_PUBLISHING && dead)
		return end_here(s, f, word); /* somebody may have passed it by: never taken over in place */
	if (FLIGHT_STATE(word) == FLIGHT_PUBLISHING && late)
		return LOOK_ON;
	if (late && dead)
		return end_here(s, f, word);
	if (late) {
		if (w64_cas(word_of(s, f), word, step(word, FLIGHT_LEADER(word), FLIGHT_OVERDUE)))
			count_overdue(s, f, c->key->keyspace);
		return LOOK_AGAIN;
	}
	if (dead)
		return TAKE_OVER;
	*c->ticket = (struct ticket){slot, TAG(w64_load(&f->lease)), word, false};
	return w64_load(word_of(s, f)) == word ? OUTCOME_JOIN : LOOK_AGAIN;
}

/* A failure whose time is over is tried again in its place, so that the next one in a row is remembered for longer. */
static int judge_remembered(const struct claim *c, struct flight *f, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;

	if (is_over(&f->until, c->now_ms))
		return FLIGHT_STATE(word) == FLIGHT_FAILED ? TAKE_OVER : end_here(s, f, word);
	*c->error = (int)(uint32_t)w64_load(&f->error);
	if (w64_load(word_of(s, f)) != word)
		return LOOK_AGAIN;
	return FLIGHT_STATE(word) == FLIGHT_FAILED ? OUTCOME_FAILED : OUTCOME_UNCACHEABLE;
}

/* What does a slot of my key mean to a claimant? */
static int judge(const struct claim *c, struct flight *f, uint32_t slot, uint64_t word)
{
	const struct segment *s = &c->seat->member->segment;

	switch (FLIGHT_STATE(word)) {
	case FLIGHT_COMPUTING:
	case FLIGHT_PUBLISHING:
		return judge_running(c, f, slot, word);
	case FLIGHT_ORPHAN: /* one whose lease is over may have been passed by while it was PUBLISHING */
		return is_over(&f->lease, clock_ms(&s->clock)) ? end_here(s, f, word) : TAKE_OVER;
	case FLIGHT_OVERDUE:
		return leader_is_dead(c->seat, word) ? end_here(s, f, word) : LOOK_ON;
	case FLIGHT_FAILED:
	case FLIGHT_UNCACHEABLE:
		return judge_remembered(c, f, word);
	default:
		return LOOK_ON;
	}
}

/* Judge a slot if it holds my key. *word is what was judged. */
static int judge_slot(const struct claim *c, uint32_t slot, uint64_t *word)
{
	const struct segment *s = &c->seat->member->segment;
	struct flight *f = flight_at(s, slot);
	int r;

	do {
		*word = w64_load(word_of(s, f));
		if (FLIGHT_STATE(*word) <= FLIGHT_CLAIMING || FINGERPRINT(*word) != (c->key->hash & 0xffff) ||
		    !is_of_key(f, c->key))
			return LOOK_ON;
		r = judge(c, f, slot, *word);
	} while (r == LOOK_AGAIN);
	return r;
}

/* A full window: what is only remembered goes, the one that would be forgotten first before the others. */
static bool forget_one(const struct claim *c)
{
	const struct segment *s = &c->seat->member->segment;
	uint64_t word, oldest_word = 0, oldest = UINT64_MAX, until;
	struct flight *f, *found = NULL;
	uint32_t i;

	for (i = 0; i < window(s); i++) {
		f = flight_at(s, probe(s, c->key, i));
		word = w64_load(word_of(s, f));
		if (FLIGHT_STATE(word) < FLIGHT_ORPHAN || FLIGHT_STATE(word) > FLIGHT_UNCACHEABLE)
			continue;
		until = FLIGHT_STATE(word) == FLIGHT_ORPHAN ? w64_load(&f->lease) : w64_load(&f->until);
		until &= PAYLOAD_MASK;
		if (until < oldest) {
			oldest = until;
			oldest_word = word;
			found = f;
		}
	}
	return found && w64_cas(word_of(s, found), oldest_word, step(oldest_word, 0, FLIGHT_FREE));
}

static enum flight_outcome take(const struct claim *c, struct flight *f, uint32_t slot, uint64_t word)
{
	lead(c, f, slot, (SEQUENCE(word) + 1) & SEQUENCE_MASK);
	c->ticket->gave_up = FLIGHT_STATE(word) == FLIGHT_ORPHAN && FLIGHT_LEADER(word) != NOBODY;
	return FLIGHT_STATE(word) == FLIGHT_FAILED ? OUTCOME_LEAD : OUTCOME_TAKEOVER;
}

/* First look: what is there of my key, and where is room? *slot: the first FREE one, UINT32_MAX if none. */
static int look_for_room(const struct claim *c, uint32_t *slot)
{
	const struct segment *s = &c->seat->member->segment;
	uint32_t i, at;
	uint64_t word;
	int r;

	*slot = UINT32_MAX;
	for (i = 0; i < window(s); i++) {
		at = probe(s, c->key, i);
		r = judge_slot(c, at, &word);
		if (r == TAKE_OVER) {
			struct flight *f = flight_at(s, at);

			if (take_over(c, f, word))
				return take(c, f, at, word);
			i--; /* somebody else was first */
		} else if (r != LOOK_ON) {
			return r;
		}
		if (FLIGHT_STATE(word) == FLIGHT_FREE && *slot == UINT32_MAX)
			*slot = at;
	}
	return LOOK_ON;
}

/* Second look, with my CLAIMING visible. LOOK_ON: the key is mine. */
static int look_for_rivals(const struct claim *c, uint32_t mine, unsigned turn)
{
	const struct segment *s = &c->seat->member->segment;
	bool ahead = true;
	uint32_t i, at;
	uint64_t word;
	int r;

	for (i = 0; i < window(s); i++) {
		at = probe(s, c->key, i);
		if (at == mine) {
			ahead = false;
			continue;
		}
		r = judge_slot(c, at, &word);
		if (r != LOOK_ON)
			return r;
		/* A claimant's key may not be written yet: its fingerprint counts. A stranger with the same one is
		 * aborted for nothing, and claims again. */
		if (FLIGHT_STATE(word) != FLIGHT_CLAIMING || FINGERPRINT(word) != (c->key->hash & 0xffff))
			continue;
		if (ahead && turn < PATIENCE)
			return LOOK_AGAIN;
		/* Aborted: go on, whoever claims there next sees me. Not: look again. */
		if (!w64_cas(&s->flight_words[at], word, step(word, 0, FLIGHT_FREE)))
			i--;
	}
	return LOOK_ON;
}

static void describe(const struct claim *c, struct flight *f, uint32_t sequence)
{
	const struct flight_key *k = c->key;
	uint64_t part;
	uint32_t i;

	raise(&f->identity[0], sequence, identity_of(k, 0));
	raise(&f->identity[1], sequence, identity_of(k, 1));
	raise(&f->lease, (sequence + 1) & SEQUENCE_MASK, end_of_lease(c));
	w32_store(&f->waiters, 0);
	w32_store(&f->keyspace, k->keyspace);
	w32_store(&f->key_size, k->size);
	for (i = 0; i < FLIGHT_KEY / 8; i++) {
		part = 0;
		if (i * 8 < k->size)
			memcpy(&part, (const char *)k->data + i * 8, min_u64(8, k->size - i * 8));
		w64_poke(&f->key[i], part);
	}
}

static int claim_once(const struct claim *c, unsigned turn)
{
	const struct segment *s = &c->seat->member->segment;
	uint64_t free_word, word;
	uint32_t slot, sequence;
	struct flight *f;
	int r = look_for_room(c, &slot);

	if (r != LOOK_ON)
		return r;
	if (slot == UINT32_MAX)
		return forget_one(c) ? LOOK_AGAIN : OUTCOME_FULL;
	f = flight_at(s, slot);
	free_word = w64_load(word_of(s, f));
	sequence = (SEQUENCE(free_word) + 1) & SEQUENCE_MASK;
	word = make_word(c->key, c->seat->index, sequence, FLIGHT_CLAIMING);
	if (FLIGHT_STATE(free_word) != FLIGHT_FREE || !w64_cas(word_of(s, f), free_word, word))
		return LOOK_AGAIN;
	barrier_full(); /* F.1: mine is visible before I look at theirs; partner: the same line of a rival */
	describe(c, f, sequence);
	r = look_for_rivals(c, slot, turn);
	if (r == LOOK_ON && w64_cas(word_of(s, f), word, step(word, c->seat->index, FLIGHT_COMPUTING)))
		return lead(c, f, slot, (sequence + 1) & SEQUENCE_MASK);
	w64_cas(word_of(s, f), word, step(word, 0, FLIGHT_FREE));
	return r == LOOK_ON || r == TAKE_OVER ? LOOK_AGAIN : r;
}

enum flight_outcome flight_claim(struct seat *seat, const struct flight_key *key, uint64_t now_ms, uint32_t lease_ms,
                                 struct ticket *ticket, int *error)
{
	struct claim c = {seat, key, now_ms, lease_ms, ticket, error};
	unsigned turn;
	int r;

	registry_hold(seat); /* before a flight may name this seat */
	for (turn = 0;; turn++) {
		r = claim_once(&c, turn);
		if (r != LOOK_AGAIN)
			break;
		spin_hint();
	}
	if (r != OUTCOME_LEAD && r != OUTCOME_TAKEOVER)
		registry_drop(seat);
	return (enum flight_outcome)r;
}

bool flight_is_led(struct seat *seat, uint64_t hash, uint64_t now_ms)
{
	const struct segment *s = &seat->member->segment;
	struct flight_key key = {.hash = hash};
	unsigned found;
	struct flight *f;
	uint64_t word;

	for (found = flight_match(s, hash); found; found &= found - 1) {
		f = flight_at(s, flight_group(s, hash) + (uint32_t)__builtin_ctz(found));
		word = w64_load(word_of(s, f));
		if (FLIGHT_STATE(word) == FLIGHT_COMPUTING &&
		    (w64_load(&f->identity[0]) & PAYLOAD_MASK) == identity_of(&key, 0) &&
		    !is_over(&f->lease, now_ms + CLOCK_COARSE_LAG_MS) && !leader_is_dead(seat, word) &&
		    w64_load(word_of(s, f)) == word)
			return true;
	}
	return false;
}

/* ---- the leader -------------------------------------------------------------------------------------------- */

/* Move a flight that this leadership still holds (F.2); `from` is a mask of states. The word is read before the lease,
 * whose tag tells whose it is (F.6). An OVERDUE one was passed by: it may publish, and otherwise goes to FREE. */
static bool move(const struct segment *s, const struct ticket *t, unsigned from, enum flight_state to, int64_t leader)
{
	struct flight *f = flight_at(s, t->slot);
	uint64_t word;

	for (;;) {
		word = w64_load(word_of(s, f));
		if (!(1u << FLIGHT_STATE(word) & from) || TAG(w64_load(&f->lease)) != t->token)
			return false;
		if (FLIGHT_STATE(word) == FLIGHT_OVERDUE && to != FLIGHT_PUBLISHING)
			to = FLIGHT_FREE;
		if (w64_cas(word_of(s, f), word, step(word, leader < 0 ? FLIGHT_LEADER(word) : (uint32_t)leader, to)))
			return true;
	}
}

#define IN(state) (1u << FLIGHT_##state)

void flight_drew(struct seat *seat, const struct ticket *t, uint64_t generation)
{
	raise(&flight_at(&seat->member->segment, t->slot)->generation, t->token, generation);
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
	wake(s, f, RELAY);
	return true;
}

bool flight_refuse(struct seat *seat, const struct ticket *t, uint64_t until_ms)
{
	raise(&flight_at(&seat->member->segment, t->slot)->until, t->token, to_ticks(until_ms));
	return flight_end(seat, t, FLIGHT_UNCACHEABLE);
}

/* How many times in a row this key has failed before: the error of an earlier leadership of the same claim tells. */
static unsigned failures_before(const struct flight *f)
{
	uint64_t error = w64_load(&f->error);

	return newer(TAG(error), TAG(w64_load(&f->identity[0]))) ? (unsigned)(error >> 32 & 15) + 1 : 0;
}

bool flight_fail(struct seat *seat, const struct ticket *t, int code, uint64_t now_ms, uint32_t retry_ms)
{
	struct flight *f = flight_at(&seat->member->segment, t->slot);
	uint64_t n = min_u64(failures_before(f), 15),
		 wait = min_u64((uint64_t)retry_ms << n, max_u64(retry_ms, BACKOFF_CAP_MS));

	if (n) /* keys that failed together are not tried again together */
		wait -= wait / 8 * (hash_mix(now_ms ^ t->slot) >> 48) >> 16;
	raise(&f->error, t->token, n << 32 | (uint32_t)code);
	raise(&f->until, t->token, wait ? to_ticks(now_ms + wait) : 0); /* not remembered: over for any clock */
	return flight_end(seat, t, FLIGHT_FAILED);
}

/* The lease, then the word: who marks it OVERDUE has read the lease after the word, so one of the two CASes fails. */
bool flight_renew(struct seat *seat, const struct ticket *t, uint64_t now_ms, uint32_t lease_ms)
{
	raise(&flight_at(&seat->member->segment, t->slot)->lease, t->token, to_ticks(now_ms + lease_ms));
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
	uint64_t word = w64_load(word_of(s, f)), value = w64_load(&f->error);

	if (FLIGHT_STATE(word) != FLIGHT_FAILED && FLIGHT_STATE(word) != FLIGHT_FREE)
		return false;
	if (newer(t->token, TAG(value)) || newer(TAG(w64_load(&f->identity[0])), t->token))
		return false;
	*error = (int)(uint32_t)value;
	return true;
}

void flight_sleep(struct seat *seat, const struct ticket *t, uint64_t deadline_ns)
{
	const struct segment *s = &seat->member->segment;
	struct flight *f = flight_at(s, t->slot);
	uint64_t ref = life_ref(seat->member, FLIGHT_LEADER(t->word)), slice = clock_system_ns(CLOCK_MONOTONIC);
	const word32 *word = (const word32 *)(const void *)word_of(s, f), *alive = NULL;
	enum life_state life;
	uint32_t seen = 0;

	if (!ref || w64_load(word_of(s, f)) != t->word)
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

	if (!ref || w64_load(word_of(s, f)) != t->word)
		return false;
	life = life_of(seat->member, ref, &alive, &seen);
	end_ms = ms_at(&f->lease);
	if (life >= LIFE_THREAD_DEAD || end_ms <= now_ms)
		return false;
	*words = (struct bell_words){
		.word = word_of(s, f),
		.word_seen = t->word,
		.low = life == LIFE_ARMED ? alive : NULL,
		.low_seen = seen,
		.is_life = life == LIFE_ARMED,
		.number = t->slot,
		.slice_ms = min_u64(life == LIFE_ARMED ? LONG_SLICE_MS : UNARMED_SLICE_MS, end_ms - now_ms),
	};
	bell_add_watcher(seat->member, &f->watchers, words);
	return atomic_load(word_of(s, f)) == t->word; /* after it, seq_cst both; partner: wake() after a CAS */
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

	if (w64_load(word_of(s, f)) != t->word)
		bell_ring_some(s, &f->watchers, t->slot, RELAY);
}

void flight_relay(const struct segment *s, const struct ticket *t)
{
	struct flight *f = flight_at(s, t->slot);

	if ((uint32_t)w64_load(word_of(s, f)) != (uint32_t)t->word)
		wake(s, f, RELAY);
}

/* ---- who supersedes ---------------------------------------------------------------------------------------- */

/* A generation that this leadership has not written yet counts as older than any: its load is not under way, or its
 * leader was stopped between the draw and the write. */
static bool is_below(uint64_t low_bits, uint64_t generation)
{
	return (int64_t)((low_bits - generation) << (64 - PAYLOAD_BITS)) < 0;
}

/* ... and so does one that nobody has drawn: the counter was put back by a scribble (index_is_ahead). */
static bool is_older(const struct segment *s, const struct flight *f, uint64_t generation)
{
	uint64_t seen = w64_load(&f->generation);

	return TAG(seen) != TAG(w64_load(&f->lease)) || is_below(seen, generation) ||
	       is_below(w64_load(&s->header->generation), seen);
}

/* Does the slot hold a load of the key, running or remembered? */
static bool look_at(const struct segment *s, const struct flight_key *key, struct flight_seen *seen)
{
	struct flight *f = flight_at(s, seen->slot);
	uint32_t leader;

	do {
		seen->word = w64_load(word_of(s, f));
		if (FLIGHT_STATE(seen->word) <= FLIGHT_CLAIMING || FINGERPRINT(seen->word) != (key->hash & 0xffff) ||
		    !is_of_key(f, key))
			return false;
		seen->publishing = FLIGHT_STATE(seen->word) == FLIGHT_PUBLISHING;
		seen->older = FLIGHT_STATE(seen->word) >= FLIGHT_ORPHAN || is_older(s, f, seen->below);
		leader = (uint32_t)min_u64(FLIGHT_LEADER(seen->word), s->geometry.readers - 1);
		seen->target = w64_load(&s->readers[leader].target);
		seen->expected = w64_load(&s->readers[leader].expected);
	} while (w64_load(word_of(s, f)) != seen->word);
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

	if (!w64_cas(word_of(s, f), seen->word, step(seen->word, 0, FLIGHT_FREE)))
		return false;
	wake(s, f, INT_MAX);
	return true;
}

/* Not those that publish: what they put is of before the barrier. Nor those whose generation is not written yet: mostly it
 * is not drawn, either, and one that began before is told so when it publishes. */
void flight_detach_all(const struct segment *s, uint32_t keyspace, uint64_t below)
{
	struct flight_seen seen;
	struct flight *f;
	uint64_t generation;

	for (seen.slot = 0; seen.slot < s->geometry.flights; seen.slot++) {
		f = flight_at(s, seen.slot);
		seen.word = w64_load(word_of(s, f));
		if (FLIGHT_STATE(seen.word) != FLIGHT_COMPUTING && FLIGHT_STATE(seen.word) != FLIGHT_OVERDUE)
			continue;
		generation = w64_load(&f->generation);
		if (w32_load(&f->keyspace) == keyspace && TAG(generation) == TAG(w64_load(&f->lease)) && is_below(generation, below))
			flight_detach(s, &seen); /* what was read is of that word, or the CAS fails */
	}
}

void flight_nudge(const struct segment *s, const struct flight_seen *seen)
{
	wake(s, flight_at(s, seen->slot), INT_MAX);
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
		word = w64_load(word_of(s, f));
		state = FLIGHT_STATE(word);
		if (state == FLIGHT_FREE || state >= FLIGHT_ORPHAN || FLIGHT_LEADER(word) != REF_READER(ref) ||
		    life_ref(seat->member, REF_READER(ref)) != ref)
			continue;
		state = state == FLIGHT_COMPUTING && w32_load(&f->waiters) ? FLIGHT_ORPHAN : FLIGHT_FREE;
		if (w64_cas(word_of(s, f), word, step(word, NOBODY, state)))
			wake(s, f, RELAY);
	}
}

struct flight_times flight_times(const struct segment *s, uint32_t slot, uint64_t word, uint64_t now_ms)
{
	const struct flight *f = flight_at(s, slot);
	bool remembered = FLIGHT_STATE(word) == FLIGHT_FAILED || FLIGHT_STATE(word) == FLIGHT_UNCACHEABLE;
	uint64_t began = ms_at(&f->started);
	uint64_t end = ms_at(remembered ? &f->until : &f->lease);

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
		began = ms_at(&s->flights[i].started);
		*oldest_ms = max_u64(*oldest_ms, now_ms > began ? now_ms - began : 0);
	}
	return n;
}
