/* SPDX-License-Identifier: MIT */
/*
 * Loads: who leads one publishes its value, or ends it otherwise. begin.h has how one gets to lead, or to wait; fetch.h
 * puts both around a loader.
 *
 * P.1  The generation is drawn after the flight is COMPUTING: a set or delete that passed the flight by while it was
 *      CLAIMING has an older number, so what it stores or removes never loses to an older load.
 * P.2  The index CAS happens while the flight is PUBLISHING with that very target on record (flight.c, F.3). If it
 *      fails, the flight goes back to COMPUTING, unless someone has ended it.
 * P.3  A load that has no flight (no slot, not cacheable) is never stored: nobody could tell it of a delete.
 * P.4  A load belongs to the region in which it began, and ends there. After the region has moved its leader's value is
 *      stored nowhere: a delete that came since has not met it. Who waits for it, or for a permit, begins anew in the
 *      next region. So a resize costs at most one more load for each key that is being loaded.
 */
#ifndef SHOAL_LOAD_H
#define SHOAL_LOAD_H

#include "hit.h"
#include "watch.h"

enum load_state { LEADING, WAITING, ENDED };

struct shoal_load {
	struct shoal_keyspace *k;
	enum load_state state;
	bool warming;         /* by shoal_warm_keys */
	bool fetch;           /* inside shoal_fetch: the value is kept for the caller, the handle is fetch's */
	bool coalesced;       /* it leads a flight */
	bool joined;          /* counted among its flight's waiters */
	bool takeover;        /* from a leader that died or gave up */
	bool queued;          /* WAITING: for a permit, leading or not */
	bool permitted;       /* `permit` is in hand, queued or granted */
	bool published;       /* fetch: `result` has the value */
	int code;             /* what it was failed with */
	uint64_t epoch;       /* of the process that began it */
	struct seat *seat;    /* whom the flight names, or who waits; it has a hold on it: the load keeps its region */
	struct seat *left;    /* one that it has no use for any more, to be settled outside a read-side section */
	struct ticket ticket;
	struct permit_ticket permit;
	uint64_t generation;
	uint32_t fresh_ms, stale_ms, error_ms;
	bool migrating;       /* a converter runs: it can't end the leadership, which goes on as a normal load */
	struct lives inherited; /* then: the remaining life of the old value, */
	uint64_t inherited_ms;  /* from when on, */
	struct bounds bounds;   /* and its ends */
	bool uncacheable;
	uint32_t uncacheable_ms;
	uint64_t began_ns;       /* by the segment's clock, as deadlines are */
	uint64_t waits_ns;       /* since when it waits in parts, by CLOCK_MONOTONIC; 0: it doesn't */
	bool timed_out;          /* and that is counted */
	struct key key;
	struct flight_key fk;
	struct seat *space_seat; /* reserved space: in the log, pinned ... */
	unsigned pin;
	uint64_t offset;
	void *heap;              /* ... or here */
	const void *source;      /* what a value in reserved space was copied from; NULL: it was made there */
	size_t capacity;
	struct shoal_value previous, result;
	struct watched watched;
	bool woken;           /* a dispatch has looked: its outcome, and in `result` the value */
	int woken_with;
	struct shoal_load *outer; /* of the same thread: the loader that this one runs inside */
	struct refresher_job job; /* handed to a refresher thread, with this */
	const struct refresher_loader *refresher;
	unsigned char bytes[];    /* of the key */
};

/* The innermost loader that runs on this thread. */
extern _Thread_local struct shoal_load *load_running;

static inline const struct segment *load_segment(const struct shoal_load *l)
{
	return &l->seat->member->segment;
}

static inline uint64_t load_now_ms(const struct segment *s)
{
	return clock_ms(&s->clock);
}

static inline void load_count(const struct shoal_load *l, enum counter c)
{
	handle_count_now(l->k->cache, l->k->id, c, 1);
}

/* By a seat, or by none: then its value goes to its caller alone. NULL: no memory. */
struct shoal_load *load_new(struct shoal_keyspace *k, struct seat *seat, const struct key *key,
                            const struct flight_key *fk, bool fetch);
/* Begun by this process, and not by the one it was forked from. */
bool load_is_ours(const struct shoal_load *l);

/* Another seat, inside a read-side section, after load_settle_left(): the hold on a seat that is not used any more
 * ends. */
void load_take_seat(struct shoal_load *l, struct seat *seat);
void load_settle_left(struct shoal_load *l);
void load_give_permit_back(struct shoal_load *l);
void load_drop_space(struct shoal_load *l);
/* It is counted among its flight's waiters no more. */
void load_unjoin(struct shoal_load *l);

/* It has waited for so long, by CLOCK_MONOTONIC. */
void load_count_wait(const struct shoal_load *l, uint64_t ns);

/* Its leadership or its waiting is over; inside shoal_fetch the loader may still run, and keeps its permit. Outside a
 * read-side section. */
void load_end(struct shoal_load *l);
void load_free(struct shoal_load *l);

#endif
