/* SPDX-License-Identifier: MIT */
/*
 * shoal: shared-memory coalescing cache.
 *
 * One mmap'd segment is shared by the processes of one machine. A hit is a lock-free read of it; a miss is
 * computed by one process per key while the others wait for it or are served the stale generation.
 *
 * Conventions
 *   Results    SHOAL_OK (0), a positive outcome the caller must handle, or a negative error that shoal_strerror()
 *              names. After SHOAL_ERR_SYSTEM errno holds the system's reason. Out-parameters are unchanged on
 *              failure, but for struct shoal_value, which is zeroed (its load_error excepted).
 *   Structs    that a caller fills: zero means the default, and the zeroed `reserved` at the end lets them grow.
 *   Units      are in the name: _ms milliseconds, _permille thousandths, sizes in bytes.
 *   Threads    every function may be called by any thread at any time unless its comment says otherwise.
 *   Fork       handles work in a child of fork(). Values and loads in hand stay the parent's: a child's release of
 *              one leaves the parent's alone, and its publish is SHOAL_ERR_SUPERSEDED. The library registers
 *              liburcu-bp's fork hooks (pthread_atfork): a program that uses liburcu-bp itself must not register them a
 *              second time.
 *   Exec       ends a process for the cache like any other death: nothing is inherited, and what it held is recovered.
 *              Between vfork() and exec no call is allowed.
 *   Signals    none of these functions may be called by a signal handler. The library installs no handler.
 *   Output     the library never prints and never aborts.
 */
#ifndef SHOAL_H
#define SHOAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHOAL_VERSION_MAJOR 0
#define SHOAL_VERSION_MINOR 1
#define SHOAL_VERSION_PATCH 0

/* ---- outcomes and errors ----------------------------------------------------------------------------------- */

enum {
	SHOAL_OK = 0,
	SHOAL_MISS = 1,             /* no value (get), or nothing to delete */
	SHOAL_REFRESH = 2,          /* begin: a value, and the caller has won the right to refresh it */
	SHOAL_LEAD = 3,             /* begin: no value; the caller must load it */
	SHOAL_WAIT = 4,             /* begin: no value; another process is loading it */
	SHOAL_ERR_SYSTEM = -1,      /* a system call failed; errno says why */
	SHOAL_ERR_INVALID = -2,     /* an argument, or a file that is not a regular one */
	SHOAL_ERR_TOO_BIG = -3,     /* the value or the caller's buffer */
	SHOAL_ERR_NO_SPACE = -4,    /* every extent is pinned or in use */
	SHOAL_ERR_TIMEOUT = -5,     /* waited wait_ms for another process's load */
	SHOAL_ERR_LOAD = -6,        /* the loader failed, here or in the leader; value.load_error has its code */
	SHOAL_ERR_BUSY = -7,        /* no permit to load within wait_ms */
	SHOAL_ERR_SUPERSEDED = -8,  /* publish: something newer happened to the key (set, delete, expire,
	                               an heir's value) */
	SHOAL_ERR_DEADLOCK = -9,    /* a loader asks for the key it is loading */
	SHOAL_ERR_LAYOUT = -10,     /* not a segment, or one of another layout version or time namespace */
	SHOAL_ERR_CORRUPT = -11,    /* a segment whose size or header checksum is wrong */
	SHOAL_ERR_PERMISSION = -12, /* the segment belongs to someone we don't trust, or others may write it */
	SHOAL_ERR_LIMIT = -13,      /* too many processes, threads or keyspaces for this segment: see shoal_config */
	SHOAL_ERR_EXISTS = -14,     /* SHOAL_EXCLUSIVE and the segment is there */
	SHOAL_ERR_NOT_FOUND = -15,  /* SHOAL_ATTACH and no segment is there */
};

const char *shoal_version(void);      /* "0.1.0"; static storage */
unsigned shoal_layout(void);          /* version of the segment's layout: the N of /dev/shm/shoal.NAME.vN */
const char *shoal_strerror(int code); /* never NULL; static storage */

/* ---- the segment ------------------------------------------------------------------------------------------- */

enum {
	SHOAL_EXCLUSIVE = 1 << 0,  /* create or fail with SHOAL_ERR_EXISTS */
	SHOAL_ATTACH = 1 << 1,     /* attach or fail with SHOAL_ERR_NOT_FOUND */
	SHOAL_HUGE_PAGES = 1 << 2, /* of the segment: in huge pages where the system has them, else as without; creation
	                              takes longer (about a second per GB) and later calls fewer page faults */
	SHOAL_CHECKSUM = 1 << 3,   /* of the segment: verify every value on read; a bad one is a counted miss */
	SHOAL_INSPECT = 1 << 4,    /* of the handle: read-only; shoal_scan, shoal_peek, shoal_check and the functions of
	                              observation alone */
	SHOAL_FIFO = 1 << 5,       /* of the segment: evict first in, first out, whatever is hit; for comparison */
};

enum shoal_level { SHOAL_LOG_ERROR, SHOAL_LOG_WARNING, SHOAL_LOG_INFO };

/*
 * Told what happens seldom: a dead process was recovered, a load taken over, outlived its lease or failed; a corrupt
 * value; a long wait for a reader; a segment made, rebuilt, resized. Called in the thread that noticed, in the midst of
 * a call of this library: it must return soon, and not call any of its functions. `text` is one line, valid during the
 * call.
 */
typedef void shoal_log(enum shoal_level level, const char *text, void *arg);

struct shoal_config {
	size_t size;            /* bytes of the whole segment, allocated at once; default 64 MiB, at least 1 MiB */
	size_t max_entry;       /* largest key + value in bytes; default size / 256, at most 1 MiB;
	                           settable up to size / 64 */
	size_t mean_entry;      /* expected mean key + value, sizes the index; default 512 */
	unsigned max_processes; /* attached at once; default 256, fewer in segments under 8 MiB */
	unsigned max_threads;   /* over all processes; default 1024, fewer in segments under 16 MiB */
	unsigned max_flights;   /* keys in computation at once; default 4096, fewer in segments under 32 MiB */
	unsigned max_keyspaces; /* default 64, fewer in segments under 8 MiB */
	unsigned max_loads;     /* loaders that may run at once on this machine (one inside another counts once);
	                           0 = no bound */
	size_t max_size;        /* what shoal_resize may give an anonymous segment at most; default size */
	uid_t owner;            /* accept a segment of this user, too (by default: our own effective user, or root) */
	mode_t mode;            /* of a named segment; default 0600 */
	unsigned flags;         /* SHOAL_EXCLUSIVE ... */
	uint64_t (*clock)(void *arg); /* monotonic nanoseconds, the same in every process;
	                                 NULL = CLOCK_MONOTONIC. For tests */
	void *clock_arg;
	unsigned extents;       /* pieces that the log is cut into, the unit of eviction; default at least 64,
	                           of 1 MiB at most, or twice the largest entry. What doesn't fit one of them
	                           behaves as larger than max_entry */
	unsigned reserved32;
	shoal_log *log;         /* of the handle; NULL = silence. A child of fork inherits it */
	void *log_arg;
	uint64_t reserved[5];
};

struct shoal;
struct shoal_keyspace;
struct shoal_load;
struct shoal_value;

/*
 * Create or attach a segment.
 *   name NULL    anonymous: shared with the children forked later.
 *   "shop"       /dev/shm/shoal.shop.vN, N being the layout version. 1-63 of [A-Za-z0-9._-], not starting with a dot.
 *   with a '/'   that path, as it is.
 * An existing segment keeps its own configuration (size, limits, SHOAL_CHECKSUM, SHOAL_HUGE_PAGES); config NULL = all
 * defaults.
 * On success *cache is the caller's until shoal_close(). Call it before starting threads where you can: registering
 * for membarrier takes milliseconds in a process that has several.
 * Errors: INVALID, SYSTEM, LIMIT (process slots), EXISTS, NOT_FOUND and, of a segment that is there: INVALID (not a
 * regular file), PERMISSION (its owner is not us, root or config.owner, or others may write it beyond its mode),
 * LAYOUT (no shoal segment, another layout version, or made in another time namespace, whose clock is not ours),
 * CORRUPT (size or header checksum).
 */
int shoal_open(const char *name, const struct shoal_config *config, struct shoal **cache);

/*
 * Detach. No other thread may be inside a call on this handle or on one of its keyspaces, whose handles end here.
 * Values in hand stay valid until released; loads in hand must have ended. NULL is harmless. In a process whose other
 * threads used the handle, the segment's memory goes back to the system when they have exited.
 */
void shoal_close(struct shoal *cache);

/* Remove a named segment's name; those attached keep using it. SHOAL_ERR_NOT_FOUND if there is none. */
int shoal_unlink(const char *name);

/* Recover what dead processes held now, instead of when someone meets it (for a master on SIGCHLD). Returns how many
 * dead processes were found, or an error. */
int shoal_reap(struct shoal *cache);

/*
 * Another size, under load, for every process that is attached: each goes over at its next call, without a restart.
 * Values are carried over as they are, the most frequently used ones first as far as they fit; values in hand stay
 * valid. Loads under way end where they began: their value goes to their own caller and is not stored (in steps:
 * SUPERSEDED), those who wait for it begin anew, so there is at most one more load for each key that was being loaded.
 * Their permits don't count any more. A failure that was remembered (retry_ms) is forgotten.
 *
 * What the creator left to the default follows the size (max_entry, extents, tables: never fewer than are in use); a
 * max_entry of its own is cut to new_size / 64. While it runs the memory of both sizes is taken; the old one is given
 * back when the last process has left it, so a process that makes no call keeps it (all but address space: shoal_reap()
 * by any other process gives back what the dead have left). A few pages per resize stay for the life of the segment.
 *
 * Changes (set, delete, expire, publish) wait while it ends, for milliseconds; a look-up never does. A process that was
 * stopped while it resizes holds them up for a second. Any process may call it, one at a time.
 * Not inside a read-side section of liburcu-bp of the caller's own: nor any call while a segment may be resized.
 * On an error nothing has changed: INVALID (too small for its tables, or at all), TOO_BIG (an anonymous segment: more
 * than config.max_size), SYSTEM (ENOSPC: no memory for both), BUSY (another resize is at it, or it was stopped in every
 * attempt: try again), LIMIT, PERMISSION (SHOAL_INSPECT).
 */
int shoal_resize(struct shoal *cache, size_t new_size);

/* ---- keyspaces --------------------------------------------------------------------------------------------- */

#define SHOAL_NONE UINT32_MAX          /* in a millisecond or permille field: explicitly none (0 means the default) */
#define SHOAL_FOREVER (UINT32_MAX - 1) /* no end */

enum {
	SHOAL_COMPRESS = 1 << 0,                          /* values from 512 bytes on are stored by lz4,
	                                                     if that is smaller */
	SHOAL_COMPRESS_ZSTD = SHOAL_COMPRESS | 1 << 1,    /* by zstd: smaller and slower */
	SHOAL_EXISTING = 1 << 2,                          /* of the handle: open it or fail with
	                                                     SHOAL_ERR_NOT_FOUND; for who looks after a
	                                                     keyspace of others: its policy is not shown */
};

struct shoal_policy {
	uint32_t fresh_ms;        /* how long a value is fresh; default 60 000 */
	uint32_t stale_ms;        /* then: how long it may be served while one process refreshes it;
	                             default 0 = never */
	uint32_t error_ms;        /* then: how long it may still be served when loading fails; default 0 = never */
	uint32_t retry_ms;        /* after a failed load, no other try for this long; default 1 000; doubled for each
	                             failure in a row, up to a minute */
	uint32_t wait_ms;         /* how long a caller waits for another process's load, or for a permit;
	                             default 5 000 */
	uint32_t lease_ms;        /* how long one load may run before a waiter takes over from a live leader;
	                             default 30 000 */
	uint32_t schema;          /* version of the value's encoding: an entry with another one is a miss,
	                             and counted */
	uint32_t max_loads;       /* loaders of this keyspace at once on this machine; 0 = no bound of its own */
	uint32_t jitter_permille; /* fresh_ms varies by up to this share; default 50 */
	float early;              /* XFetch beta; default 1; negative = no early refresh */
	unsigned flags;           /* SHOAL_COMPRESS ... */
	uint32_t reserved[9];
};

/*
 * Open a keyspace: a named, versioned family of keys with one policy and its own counters. (name, version) is the
 * identity; versions of one keyspace live side by side. Names: 1-63 of [A-Za-z0-9._-]. Each open gives a handle of its
 * own with its own policy (NULL = defaults), which decides for what is published through it. Closed with the cache.
 * Errors: INVALID, LIMIT (config.max_keyspaces), NOT_FOUND (SHOAL_EXISTING, or a handle by SHOAL_INSPECT, which makes
 * none).
 */
int shoal_keyspace_open(struct shoal *cache, const char *name, uint32_t version, const struct shoal_policy *policy,
                        struct shoal_keyspace **keyspace);

/*
 * The whole keyspace in O(1), for every process: all values stale (served meanwhile as the policy allows, its bounds
 * counted from now; in a keyspace without stale_ms they are gone), or all values gone. Loads under way are superseded:
 * who waits for one, or comes now, has another.
 */
int shoal_keyspace_expire(struct shoal_keyspace *keyspace);
int shoal_keyspace_delete(struct shoal_keyspace *keyspace);

/* How this key was spelt in the old keyspace: into buffer, its size into *size; non-zero: it had no old spelling. */
typedef int shoal_old_key(const void *key, size_t key_size, void *buffer, size_t capacity, size_t *size, void *arg);
/* As a loader: publishes the value in its new form and returns 0, or returns an error. */
typedef int shoal_migrate(struct shoal_load *load, const void *key, size_t key_size, const struct shoal_value *old,
                          void *arg);

/*
 * A rollout without a cold cache: where shoal_fetch or shoal_begin would load, the value of `old` (of the same cache,
 * under its old spelling; NULL: the same key) is carried over, converted (NULL: as it is), once per key across all
 * processes, and keeps its remaining life. A converter that fails is a normal miss. Set, delete and expire of a key
 * through `keyspace` reach the old one first, and what that falls back to. Of this handle; NULL `old` ends it.
 * `convert` runs in the calling thread. INVALID: of another cache, or `old` leads back to `keyspace`.
 */
int shoal_keyspace_fallback(struct shoal_keyspace *keyspace, struct shoal_keyspace *old, shoal_old_key *old_key,
                            shoal_migrate *convert, void *arg);

/* ---- values ------------------------------------------------------------------------------------------------ */

struct shoal_slice {
	const void *data;
	size_t size;
};

enum shoal_freshness { SHOAL_FRESH, SHOAL_STALE };
enum shoal_source { SHOAL_HIT, SHOAL_LOADED, SHOAL_COALESCED, SHOAL_MIGRATED };

/*
 * A value in hand. `data` lies in the segment (pinned: its extent is not reused meanwhile) or in a heap copy, is at
 * least 8-byte aligned and stays valid until shoal_release(), also across shoal_close(). Not to be copied by struct
 * assignment. Hold it briefly: a pin keeps one extent from being reused.
 */
struct shoal_value {
	const void *data;
	size_t size;
	uint64_t generation; /* grows with each publication in this segment */
	uint64_t age_ms;     /* since it was published */
	enum shoal_freshness freshness;
	enum shoal_source source;
	int load_error;      /* with SHOAL_ERR_LOAD, or with a stale value served in its place */
	int reserved;
	void *private_fields[6];
};

/* Give a value back, from any thread of the process. Twice, or of a zeroed struct, is harmless. */
void shoal_release(struct shoal_value *value);

/*
 * Look a key up; never loads, never waits. SHOAL_OK: *value is to be released, SHOAL_STALE if only within stale_ms.
 * SHOAL_MISS: none, or only within error_ms. Keys are 1 to 65,535 bytes, any bytes.
 * Errors: INVALID, LIMIT (thread or process slots of the segment).
 */
int shoal_get(struct shoal_keyspace *keyspace, const void *key, size_t key_size, struct shoal_value *value);

/* As shoal_get(), for those who look after a cache: it counts nothing and leaves no trace, and works by SHOAL_INSPECT,
 * too, with a copy of the value. */
int shoal_peek(struct shoal_keyspace *keyspace, const void *key, size_t key_size, struct shoal_value *value);

/* The same, copied out: nothing to release. *size is the value's size; with SHOAL_ERR_TOO_BIG it did not fit `capacity`
 * and the buffer's content is undefined. */
int shoal_read(struct shoal_keyspace *keyspace, const void *key, size_t key_size, void *buffer, size_t capacity,
               size_t *size);

/*
 * n gets with their cache misses overlapped. outcomes[i] is what shoal_get() would have returned for keys[i]; each
 * values[i] with SHOAL_OK is to be released. Returns SHOAL_OK, or INVALID when the arrays are.
 */
int shoal_get_many(struct shoal_keyspace *keyspace, const struct shoal_slice *keys, size_t n,
                   struct shoal_value *values, int *outcomes);

/*
 * Store a value under the keyspace's policy. It supersedes loads of the key that are under way. The data is copied;
 * an empty value is a value. Errors: INVALID, TOO_BIG (key + value over max_entry), NO_SPACE, LIMIT; after an error
 * the key has no value rather than an older one.
 */
int shoal_set(struct shoal_keyspace *keyspace, const void *key, size_t key_size, const void *data, size_t size);

/* The same with these lives; 0 = the policy's, SHOAL_NONE and SHOAL_FOREVER as in the policy. */
int shoal_set_ttl(struct shoal_keyspace *keyspace, const void *key, size_t key_size, const void *data, size_t size,
                  uint32_t fresh_ms, uint32_t stale_ms);

/*
 * Stale from now on: stale_ms of the policy counts from now, and never prolongs the life the value had. In a keyspace
 * without stale_ms this is a delete. A load that is under way can't bring the old value back. SHOAL_MISS: no value.
 */
int shoal_expire(struct shoal_keyspace *keyspace, const void *key, size_t key_size);

/*
 * The caller could not decode this value: it is counted, and removed if it is still of this generation, so that the
 * next fetch loads it anew, once. Releases the value. SHOAL_MISS: the key has another value already.
 */
int shoal_reject(struct shoal_keyspace *keyspace, const void *key, size_t key_size, struct shoal_value *value);

/* Gone now; a load that is under way is superseded. SHOAL_MISS: there was no value (loads are superseded all the
 * same). */
int shoal_delete(struct shoal_keyspace *keyspace, const void *key, size_t key_size);

struct shoal_entry {
	const char *keyspace;
	uint32_t version;
	struct shoal_slice key;
	size_t size;            /* of the value */
	uint64_t age_ms;
	int64_t fresh_left_ms;  /* negative: over; INT64_MAX: for ever */
	int64_t stale_left_ms;
	unsigned frequency;     /* 0-3 hits remembered */
	int64_t error_left_ms;  /* as the other two */
	uint64_t generation;
	uint32_t schema;
	const void *private_fields[2];
};
typedef int shoal_visit(const struct shoal_entry *entry, void *arg); /* non-zero stops the scan and is returned */

/*
 * Visit what is readable now, of one keyspace name (all its versions) or NULL = all. Entries that come or go meanwhile
 * may or may not be seen. Nothing is held between visits and `entry` is valid during its visit only; `visit` may call
 * any function of this header. Returns SHOAL_OK, what visit returned, or an error.
 */
int shoal_scan(struct shoal *cache, const char *keyspace, shoal_visit *visit, void *arg);

/*
 * During its visit: the value of an entry, copied out; its `size` bytes. This is no hit: nothing is counted, and no
 * schema asked for. TOO_BIG: more than `capacity`. CORRUPT: it can't be unpacked, or its checksum is wrong
 * (SHOAL_CHECKSUM).
 */
int shoal_entry_read(const struct shoal_entry *entry, void *buffer, size_t capacity);

/* `what` names the place and says what is wrong with it. Not a fault, and not counted, if `recoverable`: a dead process
 * left it, and who meets it recovers it (or shoal_reap). Non-zero ends the check. */
typedef int shoal_fault(const char *what, int recoverable, void *arg);

/*
 * Look at everything in the segment, also while others work, and say what can't be: a tool for tests and for doubts
 * about a machine, as every byte is checked where it is used anyway. What only moves is looked at again. Works on any
 * handle, also SHOAL_INSPECT; writes nothing. Takes as long as it takes to read the segment once. `fault` (or NULL) is
 * called once for each, and may call any function of this header. Returns how many faults, or an error.
 */
int shoal_check(struct shoal *cache, shoal_fault *fault, void *arg);

/* ---- load through the cache, blocking ---------------------------------------------------------------------- */

/*
 * Publishes with the calls below and returns 0, or returns its own non-zero error code. Runs in the calling thread;
 * it may use the cache, also for other keys. One that returns 0 without publishing has failed (load_error 0). One
 * that leaves by pthread_exit or cancellation ends its load as a failure; one that longjmps out holds it, and its
 * permit, until its lease ends: till then others wait for the key, and its thread is told DEADLOCK.
 */
typedef int shoal_loader(struct shoal_load *load, const void *key, size_t key_size, void *arg);

/*
 * The value of the key: fresh from the cache; stale while another process refreshes it; else loaded, by this caller or
 * by another process for which this one waits (wait_ms at most). A caller whose load succeeds gets its value even when
 * it can't be stored. On SHOAL_OK *value is to be released.
 * Errors: INVALID, LOAD (value.load_error is the loader's code, also another process's), TIMEOUT, BUSY, DEADLOCK.
 */
int shoal_fetch(struct shoal_keyspace *keyspace, const void *key, size_t key_size, shoal_loader *loader, void *arg,
                struct shoal_value *value);

/* ---- refreshing in the background -------------------------------------------------------------------------- */

typedef int shoal_setup(void *arg, void **context);   /* 0, or the loader can't run in this thread */
typedef void shoal_teardown(void *context);

/*
 * Start threads of this process that refresh: a caller of shoal_fetch that wins a refresh, in a keyspace that has a
 * refresher, hands it over and gets the old value at once. The queue holds up to `queue` of them; a caller that finds
 * it full refreshes in its own time, as without a refresher. A child of fork has none until it starts its own. Signals
 * are blocked in the threads. INVALID: no thread, no queue, or there is one already; SYSTEM, LIMIT, PERMISSION
 * (SHOAL_INSPECT).
 */
int shoal_refresher_start(struct shoal *cache, unsigned threads, unsigned queue);

/* End the threads, after the refresh that each of them is at; what is queued is given up, and refreshed by who asks
 * next. shoal_close() does it, too. Not from a loader. */
void shoal_refresher_stop(struct shoal *cache);

/*
 * The loader that refreshes this keyspace in the background: it gets a copy of the key and, in place of arg, what
 * `setup` made of `arg` for its thread (NULL: arg itself), until `teardown` when the thread ends. loader NULL ends it.
 */
int shoal_keyspace_refresher(struct shoal_keyspace *keyspace, shoal_loader *loader, shoal_setup *setup,
                             shoal_teardown *teardown, void *arg);

/* ---- the same in steps, for event loops and for loads that outlive a call ---------------------------------- */

/*
 * SHOAL_OK       *value holds a value to release (fresh, or stale while another refreshes); *load is NULL.
 * SHOAL_REFRESH  *value holds a stale value to release, and *load is the caller's to load.
 * SHOAL_LEAD     *load is the caller's to load.
 * SHOAL_WAIT     *load is to be waited for.
 * SHOAL_ERR_LOAD a load failed within retry_ms: value->load_error has its code; *load is NULL. Other errors likewise.
 * A load ends, and its handle with it, by publish, commit, keep, fail or cancel whatever they return, and by a
 * shoal_wait() that returns SHOAL_OK. It may be used by one thread at a time, any of the process.
 */
int shoal_begin(struct shoal_keyspace *keyspace, const void *key, size_t key_size, struct shoal_load **load,
                struct shoal_value *value);

/*
 * Wait for a load that began as SHOAL_WAIT, up to timeout_ms (0 = only ask; SHOAL_FOREVER is bounded by wait_ms).
 * SHOAL_OK: the value, and the handle has ended. SHOAL_LEAD: the leader died, gave up, or the key was deleted
 * meanwhile: the load is now the caller's. Negative (LOAD, TIMEOUT, ...): the handle is left for another wait or
 * shoal_load_cancel(). Who waits in parts, to look after signals between them, is counted as waiting once, and as timed
 * out after wait_ms or when it gives up.
 */
int shoal_wait(struct shoal_load *load, uint32_t timeout_ms, struct shoal_value *value);

/*
 * Publish the value of a load one leads: it replaces older generations and wakes the waiters. SUPERSEDED (also by a
 * resize), NO_SPACE, TOO_BIG, LIMIT (a load that is not coalesced: no flight slot was free): not stored (inside
 * shoal_fetch these are 0 and counted: the caller has its value). INVALID: the load is not led by the caller, or has
 * ended.
 */
int shoal_load_publish(struct shoal_load *load, const void *data, size_t size);

/*
 * Space for a value of up to `size` bytes, to be written in place and committed. A second reserve grows it and keeps
 * what was written; the pointer may change. It is the segment's own memory where there is room, else heap. NULL
 * (errno ENOMEM or EINVAL) when there is neither, or the load is not led by the caller. Cancelled with the load.
 */
void *shoal_load_reserve(struct shoal_load *load, size_t size);
int shoal_load_commit(struct shoal_load *load, size_t size);
/* Commit, and hand the value over, stored or not: on return *value is to be released if its data is not NULL. */
int shoal_load_commit_value(struct shoal_load *load, size_t size, struct shoal_value *value);

/* The stale generation that the load is to replace, or NULL; valid until the load ends. */
const struct shoal_value *shoal_load_previous(struct shoal_load *load);

/* "Not modified": the previous value is fresh again. INVALID: there is none. CORRUPT: its bytes have changed in hand
 * (SHOAL_CHECKSUM). Otherwise as publish. */
int shoal_load_keep(struct shoal_load *load);

/*
 * What will be published is for the caller alone: it is not stored, the waiters are released to load for themselves, in
 * parallel, and for for_ms (0: the policy's fresh_ms) the key's loads are not coalesced.
 */
void shoal_load_uncacheable(struct shoal_load *load, uint32_t for_ms);

/* Lives of this load's value alone; 0 = the policy's. */
void shoal_load_ttl(struct shoal_load *load, uint32_t fresh_ms, uint32_t stale_ms);
void shoal_load_error_ttl(struct shoal_load *load, uint32_t error_ms); /* likewise, of the policy's error_ms */

/* Another lease_ms from now. SUPERSEDED: no longer the leader, or overdue: a late publish may still be stored. INVALID:
 * not led by the caller, or not coalesced: nobody waits for it, and it won't be stored. */
int shoal_load_renew(struct shoal_load *load);

/* The load failed: its waiters get `code`, and so does who asks within retry_ms. */
int shoal_load_fail(struct shoal_load *load, int code);

/* Give up leading or waiting; one of the waiters takes over. NULL is harmless. */
void shoal_load_cancel(struct shoal_load *load);

/*
 * For event loops, which must not sleep in shoal_wait(): a descriptor, one for each handle and process, that is
 * readable when a watched load may have ended. Add it to epoll, poll, libuv or libevent once, to be read (level or edge
 * triggered), and call shoal_dispatch() when it is readable; do nothing else with it. It is closed by shoal_close():
 * take it out of the loop before. The first call opens it and starts a thread of the library's, with a small stack and
 * all signals blocked, which sleeps until something rings; where threads are refused the descriptor becomes readable
 * each 10 ms instead while something is watched.
 *
 * After fork() the child has a descriptor of its own: it calls shoal_poll_fd() again. The number it inherited never
 * stops its calls from working and never has to be closed, but it is its parent's: take it out of an inherited loop (of
 * an epoll descriptor before the fork: it is shared). Returns the descriptor; or SYSTEM (EMFILE, ENFILE, ENOMEM),
 * LIMIT, INVALID, PERMISSION (SHOAL_INSPECT).
 */
int shoal_poll_fd(struct shoal *cache);

/* Then call shoal_wait(load, 0, &value) for the outcome. */
typedef void shoal_wake(struct shoal_load *load, void *arg);

/*
 * Have `wake` called once, by shoal_dispatch() and never by this call, when a load that began as SHOAL_WAIT has an
 * outcome: a value, a failure, SHOAL_LEAD because its leader died or gave up or a permit has come, or TIMEOUT or BUSY,
 * wait_ms of the policy after this call. So the wait that follows doesn't block, nor would it with a longer timeout. It
 * is called at once if there is an outcome already. Not called any more: after a shoal_wait() or shoal_load_cancel() of
 * the load, which end the watching, or shoal_close(); watch again for another wake.
 *
 * From any thread. `wake` runs in the thread that dispatches and may call any function of this header, also begin,
 * watch, cancel or shoal_close(). The load is still one thread's at a time: who cancels it while another thread
 * dispatches may find that its wake is just being called, so `arg` has to outlive it, or all is done in one thread.
 * What is published is noticed by who publishes; a lost wake (its sender died) and the death of a leader of which
 * nothing tells (without futex_waitv) are made up for within 250 ms. Any number of loads can be watched. INVALID: it
 * isn't waiting, is watched already, or wake is NULL. SUPERSEDED: the parent's, in a child of fork. Errors of
 * shoal_poll_fd(), which it calls.
 */
int shoal_watch(struct shoal_load *load, shoal_wake *wake, void *arg);

/*
 * Call the wakes that are due, and return. Never waits. From any thread, also several at once, and for nothing. Looks
 * at each load that is due, and leads those for which it says so: its thread's place is taken for that. SHOAL_OK, also
 * where nothing is watched; INVALID.
 */
int shoal_dispatch(struct shoal *cache);

/* ---- warming ----------------------------------------------------------------------------------------------- */

/*
 * The next key to warm: SHOAL_OK and *key, whose bytes stay the callback's and valid until it is called again;
 * SHOAL_MISS: no more; negative: an error, which shoal_warm_keys() returns.
 */
typedef int shoal_next_key(void *arg, struct shoal_slice *key);

enum shoal_warm_stop {
	SHOAL_WARM_RUNNING, /* in a progress call: it goes on */
	SHOAL_WARM_DONE,    /* no more keys */
	SHOAL_WARM_SLOW,    /* loads take longer than stop_load_ms */
	SHOAL_WARM_ERRORS,  /* more loads fail than stop_error_permille */
	SHOAL_WARM_CALLER,  /* `progress` said so */
	SHOAL_WARM_BUSY,    /* no permit to load within the policy's wait_ms: the origin has all the
	                       loads it may have */
	SHOAL_WARM_ABORTED, /* shoal_warm_keys() returned an error */
};

struct shoal_warm_report {
	enum shoal_warm_stop stopped;
	int load_error;          /* the code of the last loader that failed */
	uint64_t total;          /* as it was given */
	uint64_t consumed;       /* keys dealt with, each counted in one of the next five */
	uint64_t loaded;         /* by this caller */
	uint64_t failed;         /* its loader failed, here and now */
	uint64_t migrated;       /* carried over from an older version: shoal_keyspace_fallback() */
	uint64_t fresh;          /* nothing to do */
	uint64_t skipped;        /* another loads it, or its load failed within retry_ms,
	                            or stale and no permit is free */
	uint64_t unstored;       /* of `loaded`: not there afterwards (too big, uncacheable, superseded, no space) */
	uint64_t elapsed_ms;
	double loads_per_second; /* of this caller, so far */
	double slowest_ms;       /* of its loaders */
	int64_t eta_ms;          /* till `total` keys are consumed, at the pace so far; negative: not known */
	struct shoal_slice key;  /* taken from `next` and not consumed, as `next` gave it; data NULL: none */
	uint64_t reserved[8];
};

/* Non-zero stops the warming. */
typedef int shoal_warm_progress(const struct shoal_warm_report *so_far, void *arg);

struct shoal_warm {
	double per_second;            /* loads begun by all who warm this keyspace; default 100; INFINITY = no bound */
	unsigned processes;           /* callers (processes or threads) that share it; default 1 */
	uint32_t stop_load_ms;        /* stop when two of the last 32 loads took longer; default half of the policy's
	                                 lease_ms; SHOAL_NONE = don't */
	unsigned stop_error_permille; /* stop when more of the last 32 loads failed, once there were 16; default 200;
	                                 SHOAL_NONE = don't */
	uint32_t progress_ms;         /* between two calls of `progress`; default 1 000; SHOAL_NONE = after every key,
	                                 and whenever it looks whether it may load */
	shoal_warm_progress *progress; /* optional */
	uint64_t total;               /* how many keys `next` will give; 0 = not known */
	uint64_t reserved[8];
};

/*
 * Warm deliberately: load what is missing or stale, one key after the other in the calling thread, without hurting the
 * origin. Keys that are fresh cost no load and nothing of the rate, and don't count as hits. A key that another loads
 * is not waited for.
 *
 * The rate is kept in the segment: it holds for all who warm this keyspace, whoever comes, goes or is killed, and
 * whatever `processes` says. In t seconds they begin per_second * t loads at most and a burst of 100 ms' worth, and at
 * least one for each of `processes`, so that they needn't queue to begin. (A caller whose turn came for a key that
 * needed no load any more keeps it for its next key.) They should agree on per_second and processes; if they don't,
 * their rates add up at most. They may share out the keys, or each go through all of them: a key is loaded once. How
 * many loads run at once is bounded by the number of callers, and by the permits (policy.max_loads, config.max_loads).
 *
 * Returns SHOAL_OK when it stopped for the reason in report->stopped. The limits look at the loads of this caller, and
 * at the time its loader takes. A loader that fails is counted, and the warming goes on. Errors: INVALID (also a key of
 * no valid size), what `next` returned, SYSTEM, LIMIT, PERMISSION (SHOAL_INSPECT). *report is filled whatever is
 * returned, but for NULL arguments or a negative rate.
 *
 * To resume: of the sequence of keys the first `consumed` are done and the others are not. A `next` that can't go back
 * to that place has to give a copy of report->key first, if there is one. Or begin anew: what is fresh is passed over.
 *
 * `arg` is for next, loader and progress, which may use the cache. `warm` NULL = all defaults.
 */
int shoal_warm_keys(struct shoal_keyspace *keyspace, shoal_next_key *next, shoal_loader *loader, void *arg,
                    const struct shoal_warm *warm, struct shoal_warm_report *report);

/* ---- observation ------------------------------------------------------------------------------------------- */

struct shoal_keyspace_stats {
	uint64_t hits_fresh, hits_stale, misses, loads, load_errors, coalesced, takeovers, superseded, timeouts, busy,
		uncached, early_refreshes, migrated, rejected, schema_mismatches, corrupt;
	uint64_t load_ns_sum, wait_ns_sum;
	double load_p50_ms, load_p95_ms, load_p99_ms, wait_p50_ms, wait_p99_ms;
	double oldest_load_ms; /* of the loads that run now */
	/* of misses: a value was there, but too old, or of another schema (schema_mismatches), or corrupt; else there
	 * was none */
	uint64_t misses_expired, misses_corrupt;
	uint64_t takeovers_gave_up;  /* of takeovers: the leader had given up; else it was dead */
	uint64_t overdue;            /* loads that outlived their lease, so that another began beside them */
	uint64_t uncacheable;        /* of uncached: the loader said so */
	uint64_t stale_ms_sum;       /* of hits_stale: for how long their values had not been fresh any more */
	uint64_t distinct_keys;      /* that were ever loaded or set: an estimate, off by 3% (HyperLogLog) */
	uint64_t running;            /* loads that run now */
	double last_store_ms;        /* since a value was last stored; negative: none was */
	uint32_t fresh_ms, stale_ms, error_ms, lease_ms; /* the policy that it was last opened with,
	                                                    without SHOAL_EXISTING */
	uint64_t reserved[21];
};

/* Why an extent was evicted. */
enum shoal_evicted {
	SHOAL_EVICTED_EMPTY,     /* nothing of it was left */
	SHOAL_EVICTED_EXPIRED,   /* everything in it had expired */
	SHOAL_EVICTED_DEAD,      /* to win back the room of what was replaced or deleted */
	SHOAL_EVICTED_PROBATION, /* for want of room: what was hit moved on */
	SHOAL_EVICTED_MAIN,      /* likewise, of the log of what had been hit */
};

struct shoal_stats {
	struct shoal_keyspace_stats total; /* without distinct_keys, last_store_ms and the policy */
	/* bytes_live + bytes_dead + bytes_free + bytes_overhead == size; live and dead count headers and keys */
	uint64_t size, bytes_live, bytes_dead, bytes_free, bytes_overhead, entries;
	uint64_t evicted_entries, evicted_extents, reappended_bytes;
	uint32_t processes, threads, pins, flights, permits_used;
	uint32_t reserved32;
	uint64_t grace_blocked_ms; /* time that evicted extents had to wait for readers to leave them */
	uint64_t frequency_writes; /* hits that wrote their entry's frequency; of hits_fresh + hits_stale */
	uint64_t bytes_reserve;    /* of bytes_free and what is on its way to be: kept free,
	                              so that writers needn't wait */
	uint64_t evicted_expired;  /* of evicted_entries: they had expired */
	uint64_t displaced_entries;      /* evicted by the index, whose two buckets of a key were full; not in
	                                    evicted_entries */
	uint64_t evicted_by[8];          /* evicted_extents by enum shoal_evicted */
	uint64_t grace_waiting;          /* evicted extents that wait for readers now */
	uint64_t reserved[19];
};

int shoal_stats(struct shoal *cache, struct shoal_stats *stats);                               /* whole segment */
int shoal_keyspace_stats(struct shoal_keyspace *keyspace, struct shoal_keyspace_stats *stats); /* all processes */

/*
 * Everything that is counted, as Prometheus text (version 0.0.4), so that one scrape of one process tells of the whole
 * machine. Counters only rise for the life of the segment, whoever dies or resizes it. shoal-metrics(1) lists what
 * there is. The second form writes several caches as one text, each with a label `cache`. SYSTEM: the stream can't be
 * written.
 */
int shoal_metrics(struct shoal *cache, FILE *to);
int shoal_metrics_all(struct shoal *const *caches, const char *const *names, size_t n, FILE *to);

/* ---- a closer look ----------------------------------------------------------------------------------------- */

/* All of these work on any handle, also SHOAL_INSPECT, hold nobody up, and may show things some operations apart. What
 * a visit gets is valid during the visit only; it may call any function of this header; non-zero ends it, and is
 * returned. */

/* How the segment was made, its defaults resolved. */
struct shoal_info {
	size_t size, max_size, max_entry, mean_entry, extent_size;
	unsigned extents, max_processes, max_threads, max_flights, max_keyspaces, max_loads;
	unsigned flags;  /* SHOAL_HUGE_PAGES, SHOAL_CHECKSUM, SHOAL_FIFO */
	unsigned layout; /* version, as in the file's name */
	mode_t mode;     /* of a named segment */
	unsigned reserved32;
	uint64_t reserved[8];
};
int shoal_info(struct shoal *cache, struct shoal_info *info);

struct shoal_keyspace_info {
	const char *name;
	uint32_t version;
	uint32_t number; /* in the segment, from 0 on; for its life */
	struct shoal_keyspace_stats stats;
};
typedef int shoal_keyspace_visit(const struct shoal_keyspace_info *keyspace, void *arg);
int shoal_keyspaces(struct shoal *cache, shoal_keyspace_visit *visit, void *arg);

enum shoal_flight_state {
	SHOAL_FLIGHT_LOADING,
	SHOAL_FLIGHT_PUBLISHING,
	SHOAL_FLIGHT_OVERDUE,     /* outlived its lease: another may be loading the key, too */
	SHOAL_FLIGHT_LEADERLESS,  /* its leader died or gave up, and the next waiter has not come yet */
	SHOAL_FLIGHT_FAILED,      /* remembered: not tried again until its time is over */
	SHOAL_FLIGHT_UNCACHEABLE, /* remembered: not coalesced until its time is over */
};

/* A key that is being computed, or of which it is remembered that it can't be. */
struct shoal_flight {
	const char *keyspace;
	uint32_t version;
	enum shoal_flight_state state;
	struct shoal_slice key; /* its first 48 bytes */
	size_t key_size;        /* of the whole key */
	pid_t leader;           /* as its own pid namespace has it; 0: none */
	unsigned waiters;       /* that wait for it now, about */
	uint64_t age_ms;
	int64_t left_ms;        /* of its lease, or of its time to be remembered; negative: over */
	int error;              /* FAILED: the loader's code */
	uint64_t reserved[4];
};
typedef int shoal_flight_visit(const struct shoal_flight *flight, void *arg);
int shoal_flights(struct shoal *cache, shoal_flight_visit *visit, void *arg);

/* A process that is attached and has used the segment; a dead one as long as nobody has recovered it. */
struct shoal_process {
	pid_t pid;            /* as its own pid namespace has it */
	int other_namespace;  /* which is not the caller's */
	uint64_t age_ms;      /* since its first use of the segment */
	unsigned threads;     /* that have used it */
	unsigned pins;        /* extents held by values in hand */
	unsigned flights;     /* loads that it leads */
	unsigned blocks;      /* evicted extents that it reads, so that they can't be used again (a pinned one is
	                         not evicted) */
	uint64_t reserved[4];
};
typedef int shoal_process_visit(const struct shoal_process *process, void *arg);
int shoal_processes(struct shoal *cache, shoal_process_visit *visit, void *arg);

/*
 * What each thread has hit last in each keyspace it uses, once each. Called now and then, at times that have nothing to
 * do with the hits, it is a sample of them: the keys that come most often are the hottest.
 */
int shoal_recent(struct shoal *cache, shoal_visit *visit, void *arg);

#ifdef __cplusplus
}
#endif
#endif
