/* SPDX-License-Identifier: MIT */
/*
 * Killed and stopped at every instruction. A child runs one operation under single-step; whenever the segment has changed,
 * the state it is in is judged, by processes that find it so:
 *
 *   dead        the child is, as far as the segment tells. Everything it held comes back: slots, flights, permits, locks,
 *               extents; each key shows one whole value that it may show, and can be set, deleted and loaded anew.
 *   stopped     the child is, right there. Nobody waits for it over another key, and over its own no longer than the policy
 *               says; the segment can be written over. Once its operation shows, it goes on showing.
 *   thread dead the child's thread is, while its process lives. Its values in hand stay; nobody waits for the rest.
 *   recoverer   the child is dead, and who recovers what it held dies as well, at each state of its own.
 *   killed      by SIGKILL, a fresh child for each state: nothing is pretended.
 *   resumed     a fresh child, stopped till others have written the segment over, goes on to its end.
 *
 * The states are counted first; there is a least number of them for each operation, so that none is trivial. Then as many
 * are judged as SHOAL_TEST_SECONDS allow, at random; dead and stopped all of them, unless they are hundreds. Where the machine forbids ptrace, the cases say so and pass.
 */
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "evict.h"
#include "permit.h"
#include "stepper.h"

#define SEGMENT ((size_t)1 << 20)
#define MAX_ENTRY 4096u
#define KEYS 24u
#define OWN ((uint64_t)999)
#define FILL_KEY ((uint64_t)1 << 40)
#define WAIT_MS 20u          /* over its own key */
#define BOUND_MS 2000u       /* who slept and took longer, waited for somebody */
#define JUDGE_S 40           /* a judge that hangs is killed */
#define HOUR_MS 3600000u
#define SECONDS 10           /* in all, if nobody says */
#define POINTS 4096u
#define FEW 64u              /* states of one operation: all of them are judged, dead and stopped */

/* What a key may show. */
enum { MISS = 1, OLD = 2, NEW = 4, ANY = MISS | OLD | NEW };
enum { NEW_VERSION = 2, LOADED_VERSION = 3, SET_VERSION = 4 };

enum { UNJOINED = 1, EVICTS = 2, THREAD = 4, NAMED = 8, CORPSE = 16 };

struct operation {
	const char *name;
	void (*prepare)(void); /* by the parent */
	void (*run)(void);     /* by the child */
	unsigned before, after; /* what its key shows */
	unsigned flags;
	unsigned least;        /* distinct states of the tables */
	bool real;             /* also killed, and resumed, in earnest */
};

struct field {
	word32 done, recovered, tid, torn, shown, result, guest, joined;
};

static struct field *field;
static struct shoal *cache;
static struct shoal_keyspace *keyspace; /* waits WAIT_MS */
static struct shoal_keyspace *patient;  /* the same one, and waits for ever */
static char path[64];
static uint64_t randomness;

/* ---- values ------------------------------------------------------------------------------------------------ */

struct value {
	uint64_t key, version, pattern[158];
};

static size_t size_of(uint64_t key, uint64_t version)
{
	return sizeof(struct value) - (key * 7 + version * 13) % 60 * 8;
}

static const struct value *make_value(struct value *v, uint64_t key, uint64_t version)
{
	size_t i;

	v->key = key;
	v->version = version;
	for (i = 0; i < sizeof(v->pattern) / 8; i++)
		v->pattern[i] = key * 1000003 + version * 31 + i;
	return v;
}

static bool is_whole(const void *data, size_t size, uint64_t key)
{
	const struct value *v = data;
	size_t i;

	if (!v || size < 16 || v->key != key || size != size_of(key, v->version))
		return false;
	for (i = 0; i < (size - 16) / 8; i++)
		if (v->pattern[i] != key * 1000003 + v->version * 31 + i)
			return false;
	return true;
}

static int set(struct shoal_keyspace *k, uint64_t key, uint64_t version)
{
	struct value v;

	return shoal_set(k, &key, sizeof(key), make_value(&v, key, version), size_of(key, version));
}

static int load_it(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	uint64_t k, version = *(uint64_t *)arg;
	struct value v;

	(void)size;
	memcpy(&k, key, sizeof(k));
	return shoal_load_publish(load, make_value(&v, k, version), size_of(k, version));
}

static int fetch(struct shoal_keyspace *k, uint64_t key, uint64_t version)
{
	struct shoal_value v;
	int r = shoal_fetch(k, &key, sizeof(key), load_it, &version, &v);

	if (r == SHOAL_OK && !is_whole(v.data, v.size, key))
		w32_store(&field->torn, 1);
	shoal_release(&v);
	return r;
}

/* MISS, OLD, NEW or, for what a judge has written, ANY; 0: it is wrong, and that was said. */
static unsigned show(uint64_t key, const char *when)
{
	struct shoal_value v;
	int r = shoal_get(keyspace, &key, sizeof(key), &v);
	unsigned shown = MISS;

	if (r == SHOAL_OK && !is_whole(v.data, v.size, key)) {
		crew_wrong("%s: key %" PRIu64 " is torn", when, key);
		shown = 0;
	} else if (r == SHOAL_OK) {
		shown = ((const struct value *)v.data)->version == 1 ? OLD :
			((const struct value *)v.data)->version == NEW_VERSION ? NEW : ANY;
	} else if (r != SHOAL_MISS) {
		crew_wrong("%s: get of key %" PRIu64 ": %s", when, key, shoal_strerror(r));
		shown = 0;
	}
	shoal_release(&v);
	return shown;
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static void nothing(void)
{
}

static void have_own(void)
{
	assert_int_equal(set(keyspace, OWN, 1), SHOAL_OK);
}

static void have_stale(void)
{
	uint64_t k = OWN;

	have_own();
	assert_int_equal(shoal_expire(keyspace, &k, sizeof(k)), SHOAL_OK);
}

static void lead_for_ever(void *arg)
{
	uint64_t k = arg ? 600 : OWN;
	struct shoal_load *load;
	struct shoal_value v;

	crew_expect(shoal_begin(keyspace, &k, sizeof(k), &load, &v) == SHOAL_LEAD, "no lead to die with");
	for (;;)
		pause();
}

static void hold_for_ever(void *arg)
{
	uint64_t k = 1;
	struct shoal_value v;

	shoal_get(keyspace, &k, sizeof(k), &v); /* held */
	lead_for_ever(arg);
}

static void leave_corpse(void (*body)(void *arg), void *arg)
{
	const struct segment *s = crew_segment(cache);
	pid_t pid = crew_fork(body, arg);
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000, oldest;

	while (!flight_running(s, UINT32_MAX, 0, &oldest) && crew_now() < end)
		sched_yield();
	crew_await_state(pid, "S");
	crew_kill(pid);
}

static void have_dead_leader(void)
{
	leave_corpse(lead_for_ever, NULL);
}

static void have_corpse(void)
{
	have_own();
	leave_corpse(hold_for_ever, cache);
}

/* So full that a set of the child evicts, and what is hit is worth moving. */
static void be_full(void)
{
	const struct segment *s = crew_segment(cache);
	uint64_t k = FILL_KEY, hot;
	struct shoal_value v;

	for (; extents_count(s, EXTENT_FREE) > evict_reserve(s); k++) {
		assert_int_equal(set(keyspace, k, 1), SHOAL_OK);
		for (hot = 0; hot < 3 && k - hot * 12 >= FILL_KEY; hot++) {
			uint64_t key = k - hot * 12;

			shoal_get(keyspace, &key, sizeof(key), &v);
			shoal_release(&v);
		}
	}
}

static void do_get(void)
{
	uint64_t k = OWN;
	struct shoal_value v;
	int r = shoal_get(keyspace, &k, sizeof(k), &v);

	w32_store(&field->result, (uint32_t)r);
	if (r == SHOAL_OK && !is_whole(v.data, v.size, k))
		w32_store(&field->torn, 1);
	shoal_release(&v);
}

static void do_read(void)
{
	uint64_t k = OWN;
	struct value v;
	size_t size;
	int r = shoal_read(keyspace, &k, sizeof(k), &v, sizeof(v), &size);

	w32_store(&field->result, (uint32_t)r);
	if (r == SHOAL_OK && !is_whole(&v, size, k))
		w32_store(&field->torn, 1);
}

static void do_set(void)
{
	w32_store(&field->result, (uint32_t)set(keyspace, OWN, NEW_VERSION));
}

static void do_evicting_sets(void)
{
	const struct segment *s = crew_segment(cache);
	uint64_t before = w64_load(&s->header->evicted_extents), k = FILL_KEY << 1;

	for (; w64_load(&s->header->evicted_extents) == before && k < (FILL_KEY << 1) + 64; k++)
		w32_store(&field->result, (uint32_t)set(keyspace, k, 1));
}

static void do_delete(void)
{
	uint64_t k = OWN;

	w32_store(&field->result, (uint32_t)shoal_delete(keyspace, &k, sizeof(k)));
}

static void do_expire(void)
{
	uint64_t k = OWN;

	w32_store(&field->result, (uint32_t)shoal_expire(keyspace, &k, sizeof(k)));
}

static struct shoal_load *begin(void)
{
	uint64_t k = OWN;
	struct shoal_load *load;
	struct shoal_value old;
	int r = shoal_begin(keyspace, &k, sizeof(k), &load, &old);

	w32_store(&field->result, (uint32_t)r);
	shoal_release(&old);
	return r == SHOAL_LEAD || r == SHOAL_REFRESH ? load : NULL;
}

static void do_publish(void)
{
	struct shoal_load *load = begin();
	struct value v;

	if (load)
		w32_store(&field->result, (uint32_t)shoal_load_publish(load, make_value(&v, OWN, NEW_VERSION),
								       size_of(OWN, NEW_VERSION)));
}

static void do_fail(void)
{
	struct shoal_load *load = begin();

	if (load)
		w32_store(&field->result, (uint32_t)shoal_load_fail(load, 5));
}

static void do_cancel(void)
{
	shoal_load_cancel(begin());
}

static void do_commit(void)
{
	struct shoal_load *load = begin();
	struct value v;
	void *space = load ? shoal_load_reserve(load, size_of(OWN, NEW_VERSION)) : NULL;

	if (!space)
		return;
	memcpy(space, make_value(&v, OWN, NEW_VERSION), size_of(OWN, NEW_VERSION));
	w32_store(&field->result, (uint32_t)shoal_load_commit(load, size_of(OWN, NEW_VERSION)));
}

static void do_renew_and_keep(void)
{
	struct shoal_load *load = begin();

	if (!load)
		return;
	shoal_load_renew(load);
	w32_store(&field->result, (uint32_t)shoal_load_keep(load));
}

static void do_uncacheable(void)
{
	struct shoal_load *load = begin();
	struct value v;

	if (!load)
		return;
	shoal_load_uncacheable(load, 0);
	w32_store(&field->result, (uint32_t)shoal_load_publish(load, make_value(&v, OWN, NEW_VERSION),
							       size_of(OWN, NEW_VERSION)));
}

static void do_reject(void)
{
	uint64_t k = OWN;
	struct shoal_value v;

	if (!shoal_get(keyspace, &k, sizeof(k), &v))
		w32_store(&field->result, (uint32_t)shoal_reject(keyspace, &k, sizeof(k), &v));
}

static void do_fetch(void)
{
	w32_store(&field->result, (uint32_t)fetch(keyspace, OWN, NEW_VERSION));
}

static void do_close(void)
{
	shoal_close(cache);
}

static void do_attach(void)
{
	const struct shoal_config config = {.flags = SHOAL_ATTACH};

	if (shoal_open(path, &config, &cache) || shoal_keyspace_open(cache, "step", 1, NULL, &keyspace))
		return;
	do_get();
	shoal_close(cache);
}

static void do_keyspace_open(void)
{
	struct shoal_keyspace *k;

	w32_store(&field->result, (uint32_t)shoal_keyspace_open(cache, "new", 1, NULL, &k));
}

static void do_keyspace_expire(void)
{
	w32_store(&field->result, (uint32_t)shoal_keyspace_expire(keyspace));
}

static void do_keyspace_delete(void)
{
	w32_store(&field->result, (uint32_t)shoal_keyspace_delete(keyspace));
}

static void do_reap(void)
{
	shoal_reap(cache);
}

static void *be_stepped_thread(void *arg)
{
	(void)arg;
	do_get();
	stepper_submit(&field->tid);
	return NULL;
}

static void be_stepped(void *arg)
{
	const struct operation *o = arg;
	pthread_t thread;

	if (!(o->flags & UNJOINED))
		show(1, "child");
	if (o->flags & THREAD) {
		if (!pthread_create(&thread, NULL, be_stepped_thread, NULL))
			pthread_join(thread, NULL);
	} else {
		stepper_submit(NULL);
		o->run();
	}
	w32_store(&field->done, 1);
	raise(SIGSTOP);
}

/* ---- judges ------------------------------------------------------------------------------------------------ */

enum verdict { DEAD, STOPPED, THREAD_DEAD, VERDICTS };

struct question {
	const struct operation *operation;
	enum verdict verdict;
	unsigned number;   /* of the state: what is done first depends on it */
	unsigned may_show; /* its key */
	bool loose;        /* other keys may be gone */
	int corpses;       /* so many processes at least are found dead, if they are looked for first */
};

struct span {
	uint64_t began;
	long slept;
};

static long sleeps(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_nvcsw;
}

static struct span begin_span(void)
{
	return (struct span){crew_now(), sleeps()};
}

static void end_span(const struct span *span, const char *what)
{
	uint64_t ms = (crew_now() - span->began) / 1000000;

	crew_expect(ms < BOUND_MS || sleeps() == span->slept, "%s waited %" PRIu64 " ms", what, ms);
}

#define timed(what, call)                                                                                             \
	({                                                                                                            \
		struct span span_ = begin_span();                                                                     \
		int result_ = (call);                                                                                 \
		end_span(&span_, what);                                                                               \
		result_;                                                                                              \
	})

static void judge_shown(const struct question *q)
{
	uint64_t k;
	unsigned shown;

	for (k = 0; k < KEYS; k++) {
		shown = show(k, "another key");
		crew_expect(!shown || shown == OLD || (shown == MISS && q->loose) || q->may_show == ANY, "key %" PRIu64 " is %s", k,
			    shown == MISS ? "gone" : "another");
	}
	shown = show(OWN, "its key");
	crew_expect(!shown || shown & q->may_show, "its key is %s", shown == MISS ? "gone" : shown == OLD ? "old" : "new");
	w32_store(&field->shown, shown);
}

/* Nobody else is here: what is done is seen. */
static void judge_others(void)
{
	uint64_t k;
	int r;

	for (k = 1; k < KEYS; k += 7) {
		r = timed("set of another key", set(patient, k, SET_VERSION));
		crew_expect(r == SHOAL_OK, "set of another key: %s", shoal_strerror(r));
		crew_expect(show(k, "set") == ANY, "key %" PRIu64 " is not what was set", k);
		r = timed("delete of another key", shoal_delete(patient, &k, sizeof(k)));
		crew_expect(r == SHOAL_OK, "delete of another key: %s", shoal_strerror(r));
		crew_expect(show(k, "deleted") == MISS, "key %" PRIu64 " is there, deleted", k);
		r = timed("fetch of another key", fetch(patient, k, LOADED_VERSION));
		crew_expect(r == SHOAL_OK, "fetch of another key: %s", shoal_strerror(r));
		crew_expect(show(k, "loaded") == ANY, "key %" PRIu64 " is not what was loaded", k);
		r = timed("expire of another key", shoal_expire(patient, &k, sizeof(k)));
		crew_expect(r == SHOAL_OK, "expire of another key: %s", shoal_strerror(r));
	}
}

static void judge_fetch(const struct question *q)
{
	int r = timed("fetch of its key", fetch(q->verdict == STOPPED ? keyspace : patient, OWN, LOADED_VERSION));
	bool waited = r == SHOAL_ERR_TIMEOUT || r == SHOAL_ERR_BUSY, failed = r == SHOAL_ERR_LOAD && q->operation->run == do_fail;

	crew_expect(r == SHOAL_OK || failed || (waited && q->verdict == STOPPED), "fetch of its key: %s", shoal_strerror(r));
}

static void judge_set(void)
{
	int r = timed("set of its key", set(keyspace, OWN, SET_VERSION));

	crew_expect(r == SHOAL_OK, "set of its key: %s", shoal_strerror(r));
	crew_expect(show(OWN, "set") == ANY, "its key is not what was set");
}

static void judge_delete(void)
{
	uint64_t k = OWN;
	int r = timed("delete of its key", shoal_delete(keyspace, &k, sizeof(k)));

	crew_expect(r == SHOAL_OK || r == SHOAL_MISS, "delete of its key: %s", shoal_strerror(r));
	crew_expect(show(OWN, "deleted") == MISS, "its key is there, deleted");
}

static void judge_own(const struct question *q)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		switch ((q->number + i) % 3) {
		case 0:
			judge_fetch(q);
			break;
		case 1:
			judge_set();
			break;
		default:
			judge_delete();
		}
	}
	judge_delete();
	/* Whoever led it is superseded now, so nobody is waited for. */
	i = (unsigned)timed("fetch after delete", fetch(patient, OWN, LOADED_VERSION));
	crew_expect(i == SHOAL_OK, "fetch after delete: %s", shoal_strerror((int)i));
	crew_expect(show(OWN, "loaded") == ANY, "its key is not what was loaded");
}

/* Only the parent and this judge have anything. */
static void judge_conserved(void)
{
	const struct segment *s = crew_segment(cache);
	uint32_t i, w, owned = 0;
	struct shoal_stats stats;

	shoal_reap(cache);
	crew_expect(!shoal_reap(cache), "somebody is dead still");
	for (i = 0; i < s->geometry.processes; i++)
		owned += w64_load(&s->processes[i].owner) != 0;
	crew_expect(owned == 2, "%u processes are left", owned);
	for (owned = i = 0; i < s->geometry.readers; i++) {
		owned += (uint32_t)w64_load(&s->readers[i].owner) != 0;
		for (w = 0; w < READER_WORDS; w++)
			crew_expect(!w64_load(&s->readers[i].words[w]), "word %u of reader %u is left", w, i);
	}
	crew_expect(owned == 2, "%u threads are left", owned);
	for (i = 0; i < s->geometry.flights; i++)
		crew_expect(FLIGHT_STATE(w64_load(&s->flight_words[i])) == FLIGHT_FREE ||
				    FLIGHT_STATE(w64_load(&s->flight_words[i])) >= FLIGHT_ORPHAN,
			    "flight %u is left in state %u", i, FLIGHT_STATE(w64_load(&s->flight_words[i])));
	for (i = 0; i < s->geometry.readers; i++)
		crew_expect(PERMIT_STATE(w64_load(&s->permits[i].word)) == PERMIT_FREE, "permit %u is left", i);
	for (i = 0; i < s->geometry.extents; i++) {
		crew_expect(!w64_load(&s->extents[i].lock), "the lock of extent %u is left", i);
		crew_expect(EXTENT_STATE(extents_word(s, i)) != EXTENT_EVICTING, "extent %u is being evicted for ever", i);
	}
	crew_expect(!shoal_stats(cache, &stats) && !stats.pins && !stats.flights, "pins or flights are counted");
}

/* A thread that is dead holds nothing but its values, and what it needs for these. */
static void judge_thread_left(void)
{
	const struct segment *s = crew_segment(cache);
	uint32_t i;

	for (i = 0; i < s->geometry.extents; i++) {
		crew_expect(!w64_load(&s->extents[i].lock), "the lock of extent %u is left", i);
		crew_expect(EXTENT_STATE(extents_word(s, i)) != EXTENT_EVICTING, "extent %u is being evicted for ever", i);
	}
	for (i = 0; i < s->geometry.flights; i++)
		crew_expect(FLIGHT_STATE(w64_load(&s->flight_words[i])) == FLIGHT_FREE ||
				    FLIGHT_STATE(w64_load(&s->flight_words[i])) >= FLIGHT_ORPHAN,
			    "flight %u is left in state %u", i, FLIGHT_STATE(w64_load(&s->flight_words[i])));
	for (i = 0; i < s->geometry.readers; i++)
		crew_expect(PERMIT_STATE(w64_load(&s->permits[i].word)) == PERMIT_FREE, "permit %u is left", i);
}

static void write_over(void)
{
	uint64_t k = FILL_KEY << 2, bytes = 0;
	struct span span = begin_span();
	int r = SHOAL_OK;

	for (; bytes < SEGMENT * 5 / 4 && !r; k++, bytes += size_of(k, 1))
		r = set(patient, k, 1);
	end_span(&span, "writing it over");
	crew_expect(!r, "set after %" PRIu64 " bytes: %s", bytes, shoal_strerror(r));
}

static void judge(void *arg)
{
	const struct question *q = arg;
	struct shoal_stats stats = {0};
	int found;

	if (!freopen("/dev/null", "w", stdout))
		_exit(1);
	alarm(JUDGE_S);
	if (q->verdict == DEAD && q->number % 2) {
		found = shoal_reap(cache);
		crew_expect(found >= q->corpses, "%d dead processes were found, not %d", found, q->corpses);
		crew_check(cache);
	}
	judge_shown(q);
	if (q->verdict == STOPPED)
		crew_check(cache);
	judge_others();
	judge_own(q);
	if (q->verdict == DEAD) {
		judge_conserved();
		crew_check(cache);
		crew_fill(cache, patient);
		judge_conserved();
	} else {
		write_over();
		crew_check(cache);
		if (q->verdict == THREAD_DEAD) {
			shoal_reap(cache);
			judge_thread_left();
		}
	}
	crew_expect(!shoal_stats(cache, &stats) && !stats.total.corrupt, "%" PRIu64 " values are corrupt", stats.total.corrupt);
}

/* ---- one state --------------------------------------------------------------------------------------------- */

static unsigned judged[8];
enum { IN_RECOVERER = VERDICTS, KILLED, RESUMED };

static bool ask(const struct question *q, const struct stepper *t, const char *how)
{
	uint32_t before = w32_load(&crew_verdict->count);

	w32_store(&field->torn, 0);
	crew_join_well(crew_fork(judge, (void *)(uintptr_t)q));
	crew_expect(!w32_load(&field->torn), "a fetch gave a torn value");
	if (w32_load(&crew_verdict->count) != before)
		crew_wrong("^ %s, state %u (instruction %" PRIu64 "), %s", q->operation->name, q->number, t->steps, how);
	return w32_load(&crew_verdict->count) == before;
}

static unsigned may_show(const struct operation *o)
{
	return o->before | o->after;
}

static bool judge_thread_dead(const struct operation *o, struct stepper *t)
{
	struct question q = {.operation = o, .verdict = THREAD_DEAD, .number = t->states + t->copying, .may_show = may_show(o),
			     .loose = o->flags & EVICTS};
	bool well;

	stepper_keep(t);
	stepper_declare_thread_dead(t);
	well = ask(&q, t, "its thread dead");
	stepper_put_back(t);
	return well;
}

static bool judge_dead(const struct operation *o, struct stepper *t, const char *how)
{
	struct question q = {.operation = o, .verdict = DEAD, .number = t->states + t->copying, .may_show = may_show(o),
			     .loose = o->flags & EVICTS};
	bool well;

	stepper_keep(t);
	q.corpses = stepper_declare_dead(t);
	well = ask(&q, t, how);
	stepper_put_back(t);
	return well;
}

/* Once it shows, it shows. */
static bool judge_stopped(const struct operation *o, struct stepper *t, bool *shows)
{
	struct question q = {.operation = o, .verdict = STOPPED, .number = t->states + t->copying,
			     .may_show = *shows ? o->after : may_show(o), .loose = o->flags & EVICTS};
	bool well;

	stepper_keep(t);
	well = ask(&q, t, "stopped");
	*shows |= o->before != o->after && w32_load(&field->shown) == o->after;
	stepper_put_back(t);
	return well;
}

/* The child is dead, and so is who was about to recover what it held. */
static void be_recoverer(void *arg)
{
	(void)arg;
	stepper_submit(NULL);
	shoal_reap(cache);
	w32_store(&field->recovered, 1);
	raise(SIGSTOP);
}

static bool judge_recoverer(const struct operation *o, struct stepper *t)
{
	struct stepper recoverer;
	bool well = true;
	unsigned n = 0;

	stepper_keep(t);
	stepper_declare_dead(t);
	w32_store(&field->recovered, 0);
	stepper_begin(&recoverer, t->segment, t->self, &field->recovered);
	if (stepper_take(&recoverer, crew_fork(be_recoverer, NULL), NULL) == STEP_MADE)
		while (well && stepper_next(&recoverer) == STEP_MADE) {
			well = judge_dead(o, &recoverer, "its recoverer dead, too");
			judged[IN_RECOVERER]++;
			n++;
		}
	crew_expect(n || !w32_load(&field->recovered) || o->flags & UNJOINED, "the recoverer of %s changed nothing", o->name);
	stepper_end(&recoverer);
	stepper_put_back(t);
	return well;
}

/* ---- one operation ----------------------------------------------------------------------------------------- */

struct run {
	const struct operation *o;
	struct stepper t;
	char *base;       /* the segment before it */
	unsigned states, copying;
	uint64_t steps;
	struct point *points; /* where each of the states is met */
	bool refused;
};

/* Somebody has the places before the child's while it joins, and is gone then: who joins after that takes these, and doesn't
 * chance on what the child leaves. */
static void be_guest(void *arg)
{
	(void)arg;
	show(1, "guest");
	crew_signal(&field->guest);
	crew_await(&field->joined, 1);
	shoal_close(cache);
}

static bool start(struct run *run)
{
	pid_t guest = 0;
	enum stepped r;

	memcpy(crew_segment(cache)->base, run->base, SEGMENT);
	w32_store(&field->done, 0);
	w32_store(&field->tid, 0);
	w32_store(&field->torn, 0);
	w32_store(&field->result, 0);
	w32_store(&field->guest, 0);
	w32_store(&field->joined, 0);
	if (!(run->o->flags & UNJOINED)) {
		guest = crew_fork(be_guest, NULL);
		crew_await(&field->guest, 1);
	}
	stepper_begin(&run->t, crew_segment(cache), registry_here(cache->member)->index, &field->done);
	r = stepper_take(&run->t, crew_fork(be_stepped, (void *)(uintptr_t)run->o), run->o->flags & THREAD ? &field->tid : NULL);
	crew_signal(&field->joined);
	if (guest)
		crew_join_well(guest);
	memcpy(run->t.last, run->t.segment->base, SEGMENT); /* it has joined, and what else comes before */
	run->refused = r == STEP_REFUSED;
	crew_expect(r == STEP_MADE || r == STEP_REFUSED, "the child was lost (%d)", r);
	return r == STEP_MADE;
}

static void finish(struct run *run)
{
	stepper_end(&run->t);
}

static bool count_states(struct run *run)
{
	enum stepped r = STEP_MADE;

	if (!start(run))
		return false;
	while (r == STEP_MADE) {
		r = stepper_next(&run->t);
		if (r == STEP_MADE && run->t.tables && run->t.states <= POINTS)
			run->points[run->t.states - 1] = stepper_point(&run->t);
	}
	crew_expect(r == STEP_ENDED, "its end was not met in %" PRIu64 " steps (%d)", run->t.steps, r);
	crew_expect(!w32_load(&field->torn), "it read a torn value");
	crew_expect((int)w32_load(&field->result) >= 0, "it ended with %s", shoal_strerror((int)w32_load(&field->result)));
	run->states = (unsigned)min_u64(run->t.states, POINTS);
	run->copying = run->t.copying;
	run->steps = run->t.steps;
	finish(run);
	return r == STEP_ENDED;
}

/* Of `all` that may be judged, is it this one's turn? At random, as many as fit into what is left of the time by what they
 * have taken so far; one at least. */
struct pace {
	uint64_t left, spent, began;
	unsigned all, met, done;
};

static bool is_its_turn(struct pace *p)
{
	uint64_t rest = p->all > p->met ? p->all - p->met : 1, fit = p->left * (p->done + 1) / (p->spent + 20000000);

	p->met++;
	p->began = crew_now();
	return crew_below(&randomness, rest) < fit || (!p->done && rest == 1);
}

static void was_its_turn(struct pace *p)
{
	uint64_t took = crew_now() - p->began;

	p->done++;
	p->spent += took;
	p->left -= min_u64(p->left, took);
}

/* In one child, that is put on ice at each state. */
static bool judge_states(struct run *run, uint64_t ns)
{
	struct pace pace = {.left = ns / 2, .all = run->states + run->copying / 8}, deep = {.left = ns / 2, .all = run->states};
	bool well = true, shows = false;

	if (!start(run))
		return false;
	while (well && stepper_next(&run->t) == STEP_MADE) {
		if (!run->t.tables && run->t.copying % 8)
			continue;
		if ((run->t.tables && run->states <= FEW) || is_its_turn(&pace)) {
			well = judge_dead(run->o, &run->t, "dead") && judge_stopped(run->o, &run->t, &shows) &&
			       judge_thread_dead(run->o, &run->t);
			judged[DEAD]++;
			judged[STOPPED]++;
			judged[THREAD_DEAD]++;
			if (!run->t.tables || run->states > FEW)
				was_its_turn(&pace);
		}
		if (well && run->t.tables && is_its_turn(&deep)) {
			well = judge_recoverer(run->o, &run->t);
			was_its_turn(&deep);
		}
	}
	finish(run);
	return well;
}

/* A fresh child, to its n-th state. */
static bool start_to(struct run *run, unsigned n)
{
	if (!start(run))
		return false;
	return stepper_run_to(&run->t, run->points[n]);
}

static bool kill_at(struct run *run, unsigned n)
{
	struct question q = {.operation = run->o, .verdict = DEAD, .number = n, .may_show = may_show(run->o),
			     .loose = run->o->flags & EVICTS};
	bool well = true;

	if (start_to(run, n)) {
		crew_kill(run->t.pid);
		run->t.pid = 0;
		q.corpses = run->o->flags & UNJOINED ? 0 : 1;
		well = ask(&q, &run->t, "killed");
		judged[KILLED]++;
	}
	finish(run);
	return well;
}

static bool resume_at(struct run *run, unsigned n)
{
	struct question q = {.operation = run->o, .verdict = STOPPED, .number = n, .may_show = may_show(run->o),
			     .loose = run->o->flags & EVICTS};
	bool well = true;
	int r;

	if (start_to(run, n)) {
		well = ask(&q, &run->t, "to be resumed");
		crew_expect(stepper_finish(&run->t), "it did not come to its end");
		r = (int)w32_load(&field->result);
		crew_expect(!w32_load(&field->torn), "it read a torn value");
		crew_expect(r >= 0 || r == SHOAL_ERR_SUPERSEDED, "it ended with %s", shoal_strerror(r));
		crew_kill(run->t.pid);
		run->t.pid = 0;
		q = (struct question){.operation = run->o, .verdict = DEAD, .number = n, .may_show = ANY, .loose = true};
		well = ask(&q, &run->t, "resumed") && well;
		judged[RESUMED]++;
	}
	finish(run);
	return well && !w32_load(&crew_verdict->count);
}

static bool judge_in_earnest(struct run *run, uint64_t ns)
{
	struct pace pace = {.left = ns, .all = 2 * run->states};
	bool well = true;
	unsigned i;

	for (i = 0; well && i < 2 * run->states; i++) {
		if (!is_its_turn(&pace))
			continue;
		well = i % 2 ? resume_at(run, i / 2) : kill_at(run, i / 2);
		was_its_turn(&pace);
	}
	return well;
}

static void open_cache(const struct operation *o)
{
	struct shoal_config config = {.size = SEGMENT, .max_entry = MAX_ENTRY, .mean_entry = 1024, .max_processes = 8,
				      .max_threads = 8, .max_flights = 16, .max_keyspaces = 3, .max_loads = 2};
	struct shoal_policy policy = {.fresh_ms = HOUR_MS, .stale_ms = HOUR_MS, .lease_ms = HOUR_MS, .early = -1,
				      .wait_ms = WAIT_MS, .jitter_permille = SHOAL_NONE};
	uint64_t k;

	snprintf(path, sizeof(path), "/dev/shm/shoal-step-%d", (int)getpid());
	assert_int_equal(shoal_open(o->flags & NAMED ? path : NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "step", 1, &policy, &keyspace), SHOAL_OK);
	policy.wait_ms = 10 * BOUND_MS;
	assert_int_equal(shoal_keyspace_open(cache, "step", 1, &policy, &patient), SHOAL_OK);
	for (k = 0; k < KEYS; k++)
		assert_int_equal(set(keyspace, k, 1), SHOAL_OK);
}

static uint64_t seconds_ns(void)
{
	const char *seconds = getenv("SHOAL_TEST_SECONDS");
	int n = seconds ? atoi(seconds) : SECONDS;

	return (uint64_t)(n > 0 ? n : 1) * 400000000; /* to step takes the rest */
}

static void step_through(const struct operation *o, uint64_t ns)
{
	struct run run = {.o = o, .base = malloc(SEGMENT), .points = calloc(POINTS, sizeof(struct point))};
	bool well;

	crew_begin();
	memset(judged, 0, sizeof(judged));
	field = crew_memory(sizeof(*field));
	open_cache(o);
	if (o->prepare)
		o->prepare();
	memcpy(run.base, crew_segment(cache)->base, SEGMENT);
	well = count_states(&run);
	if (run.refused) {
		printf("# ptrace is refused here: nothing was stepped\n");
	} else if (well) {
		crew_expect(run.states >= o->least, "%s: %u states, not %u", o->name, run.states, o->least);
		well = judge_states(&run, o->real ? ns * 2 / 3 : ns) && (!o->real || judge_in_earnest(&run, ns / 3));
		printf("# %-16s %6" PRIu64 " instructions, %4u states and %4u while copying; judged: %u dead, %u stopped, "
		       "%u thread dead, %u recoverers, %u killed, %u resumed\n",
		       o->name, run.steps, run.states, run.copying, judged[DEAD], judged[STOPPED], judged[THREAD_DEAD], judged[IN_RECOVERER],
		       judged[KILLED], judged[RESUMED]);
	}
	memcpy(crew_segment(cache)->base, run.base, SEGMENT);
	if (o->flags & NAMED)
		unlink(path);
	shoal_close(cache);
	munmap(field, sizeof(*field));
	free(run.base);
	free(run.points);
	assert_int_equal(crew_wrongs(), 0);
	assert_true(well || run.refused);
}

static const struct operation operations[] = {
	{"get", have_own, do_get, OLD, OLD, 0, 2, true},
	{"read", have_own, do_read, OLD, OLD, 0, 2, false},
	{"get_miss", NULL, do_get, MISS, MISS, 0, 1, false},
	{"set_new", NULL, do_set, MISS, NEW, 0, 10, true},
	{"set_replacing", have_own, do_set, OLD, NEW, 0, 12, true},
	{"set_evicting", be_full, do_evicting_sets, MISS, MISS, EVICTS, 200, true},
	{"delete", have_own, do_delete, OLD, MISS, 0, 6, true},
	{"expire", have_own, do_expire, OLD, OLD, 0, 13, true},
	{"publish", NULL, do_publish, MISS, NEW, 0, 30, true},
	{"refresh", have_stale, do_publish, OLD, NEW, 0, 38, false},
	{"commit", NULL, do_commit, MISS, NEW, 0, 30, false},
	{"keep", have_stale, do_renew_and_keep, OLD, OLD, 0, 30, false},
	{"uncacheable", NULL, do_uncacheable, MISS, MISS, 0, 20, false},
	{"reject", have_own, do_reject, OLD, MISS, 0, 8, false},
	{"fail", NULL, do_fail, MISS, MISS, 0, 20, true},
	{"cancel", NULL, do_cancel, MISS, MISS, 0, 18, true},
	{"fetch", NULL, do_fetch, MISS, NEW, 0, 30, true},
	{"takeover", have_dead_leader, do_fetch, MISS, NEW, 0, 27, true},
	{"first_call", have_own, do_get, OLD, OLD, UNJOINED, 15, true},
	{"thread_exit", have_own, nothing, OLD, OLD, THREAD, 5, false},
	{"close", have_own, do_close, OLD, OLD, 0, 5, false},
	{"attach", have_own, do_attach, OLD, OLD, UNJOINED | NAMED, 20, false},
	{"keyspace_open", have_own, do_keyspace_open, OLD, OLD, 0, 3, false},
	{"keyspace_expire", have_own, do_keyspace_expire, OLD, OLD, 0, 4, false},
	{"keyspace_delete", have_own, do_keyspace_delete, OLD, MISS, EVICTS, 3, false},
	{"reap", have_corpse, do_reap, OLD, OLD, UNJOINED, 10, false},
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

static void step(void **state)
{
	step_through(*state, seconds_ns() / OPERATIONS);
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[OPERATIONS];
	size_t i;

	for (i = 0; i < OPERATIONS; i++)
		tests[i] = (struct CMUnitTest){.name = operations[i].name, .test_func = step,
					       .initial_state = (void *)(uintptr_t)&operations[i]};
	randomness = (uint64_t)getpid();
	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
