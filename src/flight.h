/* SPDX-License-Identifier: MIT */
/*
 * Flights: at most one load per key at a time, on the whole machine.
 *
 *   FREE -> CLAIMING -> COMPUTING -> PUBLISHING -> FREE
 *   COMPUTING -> FAILED | UNCACHEABLE                       remembered until a time, then FREE
 *   COMPUTING -> OVERDUE                                    its lease is over: an heir claims another slot of the key
 *   COMPUTING -> ORPHAN                                     its leader gave up, or died and was recovered
 *   COMPUTING (dead leader) | ORPHAN -> COMPUTING (heir)    within the lease
 *   FAILED -> COMPUTING                                     tried again, when its time is over
 *   OVERDUE -> PUBLISHING | FREE                            the overdue leader publishes, or ends otherwise
 *   PUBLISHING -> COMPUTING                                 the index slot had changed: the publisher places again
 *   any of a key -> FREE                                    superseded by set, delete, expire, or an heir's value
 *
 * Each arrow is one CAS of the flight's word and adds 1 to its sequence. See flight.c for who may do what, and for what
 * is left when a process dies; tests/spin/ has the model.
 *
 *   operation          may run beside    another process is killed
 *   flight_claim       everything        CLAIMING: aborted by the next claimant of the key
 *   flight_sleep       everything        its leader: wakes at once if armed, else after a slice
 *   flight_watch       everything        its leader: its alive word tells; a sender of wakes: 250 ms
 *   flight_publishing  everything        PUBLISHING: freed by the next claimant, who looks the key up first
 *   flight_detach      everything        no effect
 */
#ifndef SHOAL_FLIGHT_H
#define SHOAL_FLIGHT_H

#include "flight_word.h"

/* The group of slots that a key may use: its first one. */
static inline uint32_t flight_group(const struct segment *s, uint64_t hash)
{
	return (uint32_t)((hash >> 20 & 0xffffffff) * (s->geometry.flights / FLIGHT_GROUP) >> 32) * FLIGHT_GROUP;
}

/* Which slots of the group may hold a flight of the key. Relaxed: each is read anew. And none is missed that drew its
 * generation before the caller did: its CAS came before its draw, and the draws of one counter follow each other. */
static inline unsigned flight_match(const struct segment *s, uint64_t hash)
{
	const word64 *words = &s->flight_words[flight_group(s, hash)];

	return w64_match8(words, 48, hash & 0xffff) | w64_match8(words + 8, 48, hash & 0xffff) << 8;
}

/* ---- claim (claim.c) ------------------------------------------------------------------------------------------ */

/* A key as flights know it. */
struct flight_key {
	uint64_t hash, second; /* of two seeds */
	uint32_t keyspace, size;
	const void *data;
};

/* A flight that one leads or waits for. */
struct ticket {
	uint32_t slot;
	uint32_t token; /* the sequence at which the leadership began */
	uint64_t word;  /* waiting: what it held */
	bool gave_up;   /* taken over: from one that had given up, not died */
};

enum flight_outcome {
	OUTCOME_LEAD = 1,    /* claimed, also to try again after a failure */
	OUTCOME_TAKEOVER,    /* claimed from a leader that died or gave up */
	OUTCOME_JOIN,        /* another leads */
	OUTCOME_FAILED,      /* a load failed a short while ago; *error */
	OUTCOME_UNCACHEABLE, /* load for yourself */
	OUTCOME_FULL,        /* no slot: load uncoalesced */
};

enum flight_outcome flight_claim(struct seat *seat, const struct flight_key *key, uint64_t now_ms, uint32_t lease_ms,
                                 struct ticket *ticket, int *error);

/* Does a live leader compute it, within its lease? By one of the hashes, the coarse clock, and without a write: no may
 * be wrong, and yes another key's. */
bool flight_is_led(struct seat *seat, uint64_t hash, uint64_t now_ms);

/* ---- the leader -------------------------------------------------------------------------------------------- */

void flight_drew(struct seat *seat, const struct ticket *t, uint64_t generation);
/* True: the flight is PUBLISHING by `seat`, whose target and expected words are set. False: superseded. */
bool flight_publishing(struct seat *seat, const struct ticket *t);
/* Back to COMPUTING: the index CAS failed. False: superseded. */
bool flight_unpublish(struct seat *seat, const struct ticket *t);
/* The end of a leadership: to FREE, FAILED, UNCACHEABLE or ORPHAN; wakes. False: superseded. */
bool flight_end(struct seat *seat, const struct ticket *t, enum flight_state to);
/* To UNCACHEABLE until then: its waiters, and who asks, load for themselves. */
bool flight_refuse(struct seat *seat, const struct ticket *t, uint64_t until_ms);
/* To FAILED, with its code, for retry_ms; doubled for each failure in a row, up to a minute, less up to an eighth. */
bool flight_fail(struct seat *seat, const struct ticket *t, int code, uint64_t now_ms, uint32_t retry_ms);
/* False: superseded or overdue. */
bool flight_renew(struct seat *seat, const struct ticket *t, uint64_t now_ms, uint32_t lease_ms);

/* ---- waiters ----------------------------------------------------------------------------------------------- */

void flight_join(const struct segment *s, const struct ticket *t, int waiters); /* +1, -1 */
/* Has the joined flight failed, though its slot may be free again? */
bool flight_error(const struct segment *s, const struct ticket *t, int *error);
/* Sleep until the flight moves, its leader dies, or the deadline. */
void flight_sleep(struct seat *seat, const struct ticket *t, uint64_t deadline_ns);
/* About to sleep inside a loader: does this flight's leader wait, through others, for a flight of ours? */
bool flight_is_crossed(struct seat *seat, const struct ticket *t);
void flight_uncross(struct seat *seat);
/* In place of sleeping: this process's bell rings when it moves. False: look again, it has moved or its leader is
 * dead. */
bool flight_watch(struct seat *seat, const struct ticket *t, struct bell_words *words);
/* One that was rung for rings for some of the others. */
void flight_relay_bells(const struct segment *s, const struct ticket *t);
/* A woken waiter wakes some of the others. */
void flight_relay(const struct segment *s, const struct ticket *t);

/* ---- who supersedes ---------------------------------------------------------------------------------------- */

struct flight_seen {
	uint64_t below;            /* set by the caller: `older` compares with this generation */
	uint32_t slot;
	bool older;                /* or not known yet, or nobody's, or only remembered */
	bool publishing;
	uint64_t word;
	uint64_t target, expected; /* if publishing */
};
/* The next slot of the key from *cursor on that holds a load, running or remembered. */
bool flight_next(struct seat *seat, const struct flight_key *key, uint32_t *cursor, struct flight_seen *seen);
/* To FREE, if it is still as seen; wakes all. */
bool flight_detach(const struct segment *s, const struct flight_seen *seen);
/* Of a keyspace, those that are under way and have drawn a generation below that: for a barrier,
 * which is raised before. */
void flight_detach_all(const struct segment *s, uint32_t keyspace, uint64_t below);
/* Without a change: let its waiters look the key up. */
void flight_nudge(const struct segment *s, const struct flight_seen *seen);

/* A dead reader's flights become ORPHANs or FREE. */
void flight_recover(struct seat *seat, uint64_t ref);

/* Of a slot that holds that word: since when, and what is left of its lease or of the time it is remembered for. */
struct flight_times {
	uint64_t age_ms;
	int64_t left_ms;
	int error; /* FAILED */
};
struct flight_times flight_times(const struct segment *s, uint32_t slot, uint64_t word, uint64_t now_ms);

/* Flights that are being computed now; *oldest_ms: age of the oldest, of a keyspace or all (UINT32_MAX). */
uint32_t flight_running(const struct segment *s, uint32_t keyspace, uint64_t now_ms, uint64_t *oldest_ms);

#endif
