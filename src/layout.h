/* SPDX-License-Identifier: MIT */
/*
 * Every struct that lies in the segment, drawn. The segment is one file, mapped at a different address in each
 * process: all references are indices or offsets. The file begins with one region; each resize puts another one behind
 * all that was ever used, and one of them serves (resize.c). Order of a region's areas, each beginning on a page:
 *
 *   header | alive words | processes | readers | flights' words | flights | permits | keyspaces | counter lines |
 *   extents | ghosts | index | log
 *
 * The alive words are mapped a second time on their own (registry.c says why). Change anything here and
 * LAYOUT_VERSION, which is part of the file's name, has to go up.
 */
#ifndef SHOAL_LAYOUT_H
#define SHOAL_LAYOUT_H

#include <pthread.h>

#include "atomic.h"
#include "counters.h"

#define LAYOUT_VERSION 5
#define LAYOUT_MAGIC 0x314c414f48530a1au /* not text, and a line end that a text-mode copy would change */

#define SIZE_MIN ((uint64_t)1 << 20)
#define SIZE_MAX_SEGMENT ((uint64_t)1 << 47)
#define KEY_MAX 65535u
#define READERS_MAX 65535u   /* a reader is named by 16 bits */
#define PROCESSES_MAX 65535u
#define KEYSPACES_MAX 65535u /* likewise, in an entry */
#define HEADS_MAX 4u
#define NAME_SIZE 64u        /* of a keyspace, with its 0 */
#define MEAN_ENTRY 512u      /* where the creator didn't say */

/* New entries go to the probation log, what has proved itself to the main log; evict.h. */
enum log_kind { LOG_PROBATION, LOG_MAIN, LOGS };

#define EVICTED_REASONS 5u /* enum shoal_evicted */

/* ---- header ------------------------------------------------------------------------------------------------ */

/* The part that is fixed at creation; `checksum` covers what is above it. */
struct geometry {
	uint64_t magic;
	uint32_t layout;
	uint32_t flags;         /* SHOAL_CHECKSUM, SHOAL_HUGE_PAGES, SHOAL_FIFO, SEGMENT_FENCE, SEGMENT_ANONYMOUS */
	uint64_t offset;        /* of this region in the file */
	uint64_t size;          /* of this region */
	uint64_t max_size;      /* that an anonymous segment may be resized to */
	uint64_t boot_id;
	uint64_t seed;          /* of the hash */
	uint32_t mode;          /* permission bits of the file */
	uint32_t processes, readers, flights, keyspaces, lines, heads;
	uint32_t extents, extent_size, max_entry, max_loads;
	uint32_t buckets;
	uint32_t ghosts;        /* buckets of them */
	/* What the creator configured, 0 where it left the default: a resize lays out the next region from it. */
	uint32_t asked_entry, asked_mean, asked_processes, asked_readers, asked_flights, asked_keyspaces, asked_extents;
	uint64_t alive_at, processes_at, readers_at, words_at, flights_at, permits_at, keyspaces_at, lines_at,
		extents_at, ghosts_at, index_at, log_at;
	uint64_t clock_id;      /* of the creator's time namespace; proc.h */
	uint64_t checksum;
};

#define SEGMENT_FENCE (1u << 31)     /* made where membarrier is refused: readers use a full fence instead */
#define SEGMENT_ANONYMOUS (1u << 30) /* a memfd without a name */

/*
 * header.moved   63                 2 1 0        SERVING  as it was made, or after attempts that failed
 *               +--------------------+---+       FROZEN   changes wait: a resize is about to end
 *               | attempt or offset  | s |       MOVED    for good, to the region at that offset / PAGE
 *               +--------------------+---+
 * The low half is a futex. Each attempt has its own number, so that a resizer that was given up can't go on.
 */
enum moved_state { SERVING, FROZEN, MOVED };
#define MOVED_STATE(word) ((enum moved_state)(((word) & 3) % 3)) /* a bad byte serves */
#define MOVED_NUMBER(word) ((word) >> 2)
#define MOVED_WORD(number, state) ((uint64_t)(number) << 2 | (state))
#define BEFORE_IS 1u /* header.before: there is one; its offset in the other bits */

struct header {
	union {
		struct geometry geometry;
		char page[1024];
	};
	/* Looked at by every call, and written by a resize alone; resize.c. */
	_Alignas(CACHE_LINE) word64 moved;
	word64 resizer;                         /* READER_REF, in this region, of the thread that builds its
	                                           successor; 0 = none */
	word64 before;                          /* the region before, while somebody may be in it; 0 = none */
	word64 drained;                         /* nobody is left in it: its memory was given back */
	word64 latest;                          /* in the first region: where the latest one is; raised only */
	word64 reach;                           /* likewise: the end of all that was ever given out;
	                                           raised before it is used */
	_Alignas(CACHE_LINE) word64 generation; /* drawn by add: sets, claims, EMPTY versions of the index */
	_Alignas(CACHE_LINE) word64 stamp;      /* drawn by add: order of sealing */
	word32 free_hint;                       /* where the last free extent was found */
	word32 lines_used;                      /* counter lines handed out, never given back */
	word64 evicted_cold, evicted_expired, displaced_entries, reappended_bytes, grace_blocked_ms;
	word64 evicted_by[EVICTED_REASONS];     /* extents, by enum shoal_evicted */
	word64 ghost_bytes[LOGS];               /* of entries ever evicted from each log: the ghosts' clocks */
	word64 probation_bytes;                 /* what the probation log should take; 0 = not learnt yet; evict.c */
	word32 walks;                           /* of extents, for want of room, since a writer last opened one */
	word32 room_wanted;                     /* the reserve of free extents is not full: a hint to writers */
	word64 touches;                         /* the lines' counts of them in the regions before; raised only */
	word64 pins;                            /* the last count of pinned extents; store.h */
	_Alignas(CACHE_LINE) word64 turn;       /* virtual time of the permits' queue; permit.c */
	word32 permits_used;                    /* nodes below this one have been used; raised only */
	_Alignas(CACHE_LINE) word64 heads[LOGS][HEADS_MAX]; /* {extent's sequence:32 | extent + 1:32},
	                                                       0 = none; log.c */
};
_Static_assert(sizeof(struct header) <= PAGE, "the header is one page");

/* ---- who --------------------------------------------------------------------------------------------------- */

/* One per thread that holds a robust mutex for its life: the kernel marks and wakes `mutex`'s first word when the
 * thread dies, however it dies. Written by the holder alone. */
struct alive {
	_Alignas(CACHE_LINE) pthread_mutex_t mutex; /* glibc: the futex word is its first 32 bits */
	word64 holder;                              /* READER_REF of the reader slot this thread has */
};
_Static_assert(sizeof(struct alive) == CACHE_LINE, "one line per alive word");

/* A registered process. `owner` (proc.h's identity) is claimed and freed by CAS; `incarnation` is bumped by who
 * claimed it, so that a word which names {slot, incarnation} can be told from one of a later owner. */
struct process {
	word64 owner;
	word32 incarnation;
	word32 bell;      /* the futex: what rang, as bits; set by who completes something,
	                     cleared by the process; bell.h */
	word64 joined_ms; /* a hint, for display */
	word32 listens;   /* it has been told to ring: raised by the process, cleared by who claims the slot */
	uint32_t reserved;
};

/*
 * A thread's announcements. Each is {incarnation of the reader:32 | extent + 1:32}, 0 = none:
 *
 *   words[READING]  the entry being looked at        words[PINS ...] extents of values in hand, of reservations
 *   words[OTHER]    a second candidate of one look-up                and of scans
 *   words[WRITING]  the extent a set writes into
 *   words[WALKING]  the extent being evicted
 *   words[COPYING]  the extent that an entry is moved to out of it
 *
 * Written by the owning thread; pins are cleared by any thread of its process; all of them by a recoverer, by CAS.
 */
enum { READING, OTHER, WRITING, WALKING, COPYING, PINS, READER_WORDS = 24 };

struct reader {
	_Alignas(CACHE_LINE) word64 owner; /* {incarnation:32 | process slot + 1:16 | process incarnation:16};
	                                      low half 0 = free */
	word32 alive;                      /* its alive word's index + 1; 0: none, ask for the process */
	word32 first_line;                 /* head of its counter lines, index + 1; kept for the slot's next owner */
	word64 target, expected;           /* while a flight names this reader as PUBLISHING: index slot,
	                                      and what it holds */
	word64 waits;                      /* its thread waits inside a loader for this flight, slot + 1 */
	word64 changing;                   /* {incarnation:32 | number:31 | given up:1}: its thread changes the
	                                      region; resize.c */
	_Alignas(CACHE_LINE) word64 words[READER_WORDS];
};
_Static_assert(sizeof(struct reader) == 4 * CACHE_LINE, "identity, and three lines of announcements");

#define READER_REF(incarnation, reader) ((uint64_t)(incarnation) << 32 | ((uint32_t)(reader) + 1))
#define REF_READER(ref) ((uint32_t)(ref) - 1)
#define REF_INCARNATION(ref) ((uint32_t)((ref) >> 32))

/* Counters of one keyspace that one reader slot has counted; belongs to that pair for the segment's life. */
struct line {
	_Alignas(CACHE_LINE) word32 keyspace; /* index + 1, written last by who took the line */
	word32 next;                          /* the next line of this reader slot, index + 1 */
	word64 counters[COUNTERS_HOT];        /* written by the slot's owner alone */
	word64 touches;                       /* likewise: hits that wrote their entry's frequency */
	word64 stale_ms;                      /* likewise: of stale hits, for how long their values
	                                         had not been fresh */
	word64 recent;                        /* likewise: hash of the key that was hit last; a sample */
};
_Static_assert(sizeof(struct line) == CACHE_LINE, "one line per line");

/* ---- where ------------------------------------------------------------------------------------------------- */

/*
 * extent.word   63    60 59            44 43            28 27                 0
 *               +-------+----------------+----------------+--------------------+
 *               | state | owner's reader | its incarnation|      sequence      |
 *               +-------+----------------+----------------+--------------------+
 */
enum extent_state { EXTENT_FREE, EXTENT_OPEN, EXTENT_SEALED, EXTENT_EVICTING, EXTENT_RETIRED };

struct extent {
	_Alignas(CACHE_LINE) word64 word;
	word64 lock;      /* head lock: READER_REF of who writes a length and moves the tail; 0 = free */
	word64 counts;    /* {entries:32 | bytes:32} of the index slots that point into it, or more (E.5); by who
	                     changes the index */
	word64 stamp;     /* OPEN: the last one drawn when it was opened; then its own, the order of sealing */
	word64 until_ms;  /* latest end of life of its entries, UINT64_MAX = for ever; RETIRED:
	                     blocked since then, 0 = not */
	word32 tail;      /* bytes used; moved under the lock */
	word32 kind;      /* which log it is of; written by the opener */
};
#define EXTENT_ENTRIES(counts) ((uint32_t)((counts) >> 32))
#define EXTENT_LIVE(counts) ((uint32_t)(counts))
_Static_assert(sizeof(struct extent) == CACHE_LINE, "one line per extent");

/*
 * Ghosts: keys that were evicted a short while ago; ghost.h. Hints: any word is harmless.
 */
#define GHOST_WAYS 16u
struct ghosts {
	_Alignas(CACHE_LINE) word32 words[GHOST_WAYS];
};

/*
 * An entry: one generation of a key, in an extent, 8-byte aligned. Immutable once the index points to it.
 *
 *   | struct entry | key, padded to 8 | value, padded to 8 | checksum (8, with SHOAL_CHECKSUM) |
 *
 * `length` alone is trusted by a walk of an extent: it is written under the head lock, before the tail moves.
 */
struct entry {
	word32 length;       /* of all of it, reserved; a multiple of 8 */
	uint32_t stored;     /* bytes of the value as it lies here, and the codec in the top 3 bits */
	uint64_t generation;
	uint64_t born_ms;    /* CLOCK_MONOTONIC */
	uint32_t fresh_for;  /* ms from born; SHOAL_FOREVER */
	uint32_t stale_for;  /* ms from the end of fresh */
	uint32_t error_for;  /* ms from the end of stale */
	uint32_t cost_us;    /* of its load, for early refresh */
	uint64_t kind;       /* {schema:32 | keyspace:16 | size of the key:16} */
	unsigned char key[];
};
#define ENTRY_KIND(schema, keyspace, key_size) ((uint64_t)(schema) << 32 | (uint64_t)(keyspace) << 16 | (key_size))
#define ENTRY_SCHEMA(kind) ((uint32_t)((kind) >> 32))
#define ENTRY_KEYSPACE(kind) ((uint16_t)((kind) >> 16))
#define ENTRY_KEY_SIZE(kind) ((uint16_t)(kind))
#define STORED(codec, size) ((uint32_t)(codec) << 29 | (uint32_t)(size))
#define STORED_SIZE(stored) ((stored) & 0x1fffffffu)
#define STORED_CODEC(stored) ((stored) >> 29)
_Static_assert(sizeof(struct entry) == 48, "48 bytes in front of the key");

/* ---- what -------------------------------------------------------------------------------------------------- */

/*
 * index slot    63  62          47 46  45   44   43               0
 *   occupied    +---+-------------+------+---------+----------------+
 *               | 1 |     tag     | freq | settled | offset / 8     |
 *               +---+-------------+------+---------+----------------+
 *   EMPTY       | 0 |  version: a number drawn from header.generation |
 */
#define BUCKET_SLOTS 8u
#define INDEX_GROUP 64u /* buckets in a page: both of a key lie in one */
struct bucket {
	_Alignas(CACHE_LINE) word64 slots[BUCKET_SLOTS];
};

/*
 * flight word   63         48 47           32 31                4 3     0
 *               +------------+---------------+-------------------+-------+
 *               | fingerprint| leader reader |     sequence      | state |
 *               +------------+---------------+-------------------+-------+
 * The low half is the futex: it changes on every transition. FREE keeps the sequence.
 *
 * The other words are {sequence:28 | payload:36}, written by raising only (flight_word.h): who lost the slot and
 * wakes up late has an older sequence and writes nothing.
 */
#define FLIGHT_KEY 48u
struct flight {
	_Alignas(CACHE_LINE) word64 lease;         /* of the leadership that began at that sequence: its end, in 4 ms */
	word64 until;         /* FAILED, UNCACHEABLE: remembered till then, in 4 ms */
	word64 error;         /* {failures in a row before:4 | code:32} of the leadership that failed */
	word64 generation;    /* low bits of the one it drew */
	word64 identity[2];   /* of the key: 72 bits of two hashes; sequence of the claim */
	word32 waiters;       /* a hint */
	word32 keyspace;      /* a hint, for statistics */
	word64 watchers;      /* bits of processes whose bell is to ring when it moves; set by them, cleared by CAS by
	                         who rings (B.9) */
	_Alignas(CACHE_LINE) word64 started; /* in 4 ms */
	word32 key_size;                     /* hints, for display */
	word32 reserved;
	word64 key[FLIGHT_KEY / 8];
};
_Static_assert(sizeof(struct flight) == 2 * CACHE_LINE, "two lines per flight");
#define FLIGHT_GROUP 16u /* the words of so many lie side by side, in two lines */

/*
 * permit.word   63        48 47       32 31        2 1     0
 *               +-----------+-----------+-----------+-------+
 *               |  reader   | keyspace  |   turn    | state |
 *               +-----------+-----------+-----------+-------+
 */
struct permit {
	_Alignas(32) word64 word; /* by CAS alone */
	word64 until;             /* HELD: end of its lease, ms; UINT64_MAX: found over */
	word64 kicked;            /* told to take since then, ms; 0 = not, or it has looked */
	word32 kick;              /* the futex: counted up by who tells */
	word32 bound;             /* of its keyspace, as its owner has it; 0 = none */
};
_Static_assert(sizeof(struct permit) == 32, "two nodes per line");

/* An expire of a whole keyspace. */
struct barrier {
	word64 generation; /* generations up to this one are stale; 0 = none */
	word64 at_ms;      /* since then */
};

#define HISTOGRAM_BUCKETS 128u
#define BARRIERS 4u
#define DISTINCT_WORDS 128u /* of eight registers each; distinct.h */
struct keyspace {
	_Alignas(CACHE_LINE) word64 identity; /* hash of name and version, low bit 1; claimed by CAS,
	                                         never given back */
	word64 version;
	word64 name[NAME_SIZE / 8];
	word64 turn; /* the last one drawn for a permit */
	word64 warm; /* when the next load of a warming is due at its rate, ns; warm.c, W.1 */
	_Alignas(CACHE_LINE) word64 barrier;  /* generations above it are touched by none of what follows:
	                                         all a hit looks at */
	word64 deleted;                       /* up to this one they are gone */
	word64 forgotten;                     /* newest expire that `expired` has no room for:
	                                         up to it they are gone, too */
	word64 expires;                       /* drawn by add: which of `expired` is next */
	_Alignas(CACHE_LINE) struct barrier expired[BARRIERS];
	_Alignas(CACHE_LINE) word64 counters[COUNTER_COUNT];
	word64 inherited[COUNTER_COUNT]; /* what the regions before have counted; raised only */
	_Alignas(CACHE_LINE) word64 load_histogram[HISTOGRAM_BUCKETS];
	word64 wait_histogram[HISTOGRAM_BUCKETS];
	_Alignas(CACHE_LINE) word64 stored_ms; /* when a value was last stored; 0 = never */
	word32 fresh_ms, stale_ms, error_ms, lease_ms; /* of the policy that it was last opened with; for display */
	_Alignas(CACHE_LINE) word64 distinct[DISTINCT_WORDS];
};

#endif
