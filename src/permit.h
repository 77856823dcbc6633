/* SPDX-License-Identifier: MIT */
/*
 * Permits: the right to run one loader. There are max_loads of them on the machine and, within these, so many for a
 * keyspace as its callers say. First come first served within a keyspace, in turn between keyspaces.
 *
 *   FREE -> QUEUED <-> TAKING -> HELD -> FREE
 *             \------------------------> FREE      gave up; or its reader is dead, or its lease over
 *
 * See permit.c for who may do what, and for what is left when a process dies; tests/spin/ has the model.
 *
 *   operation          may run beside      another process is killed
 *   permit_try, _poll  everything          QUEUED, TAKING, HELD: freed by who finds it in its way, or by recovery
 *   permit_sleep       everything          wakes within 250 ms, if the dead one was to wake it
 *   permit_watch       everything          likewise
 *   permit_renew       everything          no effect
 *   permit_return      everything          no effect
 *   permit_recover     everything, itself  a recoverer's death changes nothing: each step is a CAS from a dead
 *                                         one's word
 */
#ifndef SHOAL_PERMIT_H
#define SHOAL_PERMIT_H

#include "bell.h"

enum permit_state { PERMIT_FREE, PERMIT_QUEUED, PERMIT_TAKING, PERMIT_HELD };
#define PERMIT_STATE(word) ((enum permit_state)((word) & 3))
#define PERMIT_READER(word) ((uint32_t)((word) >> 48))
#define PERMIT_KEYSPACE(word) ((uint32_t)((word) >> 32 & 0xffff))

struct permit_request {
	uint32_t keyspace;
	uint32_t bound;    /* permits of this keyspace; 0: as many as the machine has */
	uint32_t lease_ms; /* from when it is had */
};

/* A place in the queue, or a permit. While it has one, `seat` counts a load, so that neither the mapping nor the reader
 * slot goes; whoever ends it calls registry_settle(seat, 0) afterwards, outside any read-side section. */
struct permit_ticket {
	struct seat *seat;
	struct permit_request request;
	uint32_t node;
	uint32_t seen;     /* of node.kick, before the last look */
	uint32_t slice_ms; /* to sleep at most */
	uint64_t word;     /* of the node; 0: nothing in hand */
	uint64_t until;    /* HELD: what we wrote there */
};

enum permit_outcome {
	PERMIT_GRANTED = 1, /* run the loader, then permit_return() */
	PERMIT_WAIT,        /* in the queue: sleep and poll, or permit_return() to leave it */
	PERMIT_FULL,        /* no node: nothing in hand. The machine has as many waiters and loaders as threads */
	PERMIT_LOST,        /* the thread that queued has died: nothing in hand; try again with a seat that lives */
};

/* If neither the machine nor the keyspace has a bound, don't ask. */
enum permit_outcome permit_try(struct seat *seat, const struct permit_request *request, struct permit_ticket *ticket);
/* Once more, by any thread of the process; WAIT or GRANTED, or LOST. */
enum permit_outcome permit_poll(struct permit_ticket *ticket);
/* Until the next poll is worth while, or the deadline, or 250 ms. */
void permit_sleep(const struct permit_ticket *ticket, uint64_t deadline_ns);
/* In place of sleeping: the bell of the process that queued rings when the next poll is worth while. False: it is
 * now. */
bool permit_watch(const struct permit_ticket *ticket, struct bell_words *words);
/* Has somebody told us to poll? For those who can't sleep. */
bool permit_is_kicked(const struct permit_ticket *ticket);

/* Is it had, and within its lease? */
bool permit_is_held(const struct permit_ticket *ticket);
/* False: the lease was over, and somebody has noticed. */
bool permit_renew(struct permit_ticket *ticket, uint32_t lease_ms);
/* The end of a ticket, GRANTED or WAIT; whoever is next is woken. False: it was not ours any more. */
bool permit_return(struct permit_ticket *ticket);

/* A dead reader's nodes become FREE. */
void permit_recover(const struct member *m, uint64_t ref);

/* Permits that are held now; of a keyspace or all (UINT32_MAX). */
uint32_t permit_held(const struct segment *s, uint32_t keyspace);

#endif
