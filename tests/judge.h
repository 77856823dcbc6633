/* SPDX-License-Identifier: MIT */
/*
 * One operation under single-step, and the judges of each state it makes of the segment: what the programs of "every
 * instruction" share. Each has a table of operations, and what these do.
 *
 * A child runs one operation under single-step; whenever the segment has changed, the state it is in is judged, by
 * processes that find it so:
 *
 *   dead        the child is, as far as the segment tells. Everything it held comes back: slots, flights,
 *               permits, locks, extents; each key shows one whole value that it may show, and can be set,
 *               deleted and loaded anew.
 *   stopped     the child is, right there. Nobody waits for it over another key, and over its own no longer than the
 *               policy says; the segment can be written over. Once its operation shows, it goes on showing.
 *   thread dead the child's thread is, while its process lives. Its values in hand stay; nobody waits for the rest.
 *   recoverer   the child is dead, or its thread, and who recovers what it held dies as well, at each state of its own.
 *   killed      by SIGKILL, a fresh child for each state: nothing is pretended. Then for each instruction.
 *   resumed     a fresh child, stopped till others have written the segment over, goes on to its end.
 *
 * The states are counted first; there is a least number of them for each operation, so that none is trivial. Where they
 * are few all are judged, dead and stopped, however long it takes; where they are very few, or there is a minute, each is
 * killed in earnest, too, and by night there are recoverers at all of them. Of the rest as many as SHOAL_STEP_SECONDS
 * allow, at random. Where the machine forbids ptrace, the cases say so and pass.
 *
 * An operation may have a companion: another process that leads, or holds what the child waits for. It acts once, when
 * the child sleeps in the kernel; the child is not looked at until it has.
 */
#ifndef SHOAL_TEST_JUDGE_H
#define SHOAL_TEST_JUDGE_H

#include <pthread.h>
#include <sys/resource.h>

#include "evict.h"
#include "permit.h"
#include "stepper.h"

#define SEGMENT ((size_t)1 << 20)
#define MAX_ENTRY 4096u
#define KEYS 24u
#define OWN ((uint64_t)999)
#define FILL_KEY ((uint64_t)1 << 40)
#define WAIT_MS 20u          /* over its own key */
#define RESIZE_MS 8000u      /* likewise, where changes may wait a second for one who resizes */
#define BOUND_MS 2000u       /* who slept and took longer, waited for somebody */
#define JUDGE_S 40           /* a judge that hangs is killed */
#define HOUR_MS 3600000u
#define POINTS 4096u
#define FEW 64u              /* states of one operation: all of them are judged */
#define FEW_KILLS 12u        /* states: at each one is killed in earnest, too, unless there is a minute for all */
#define MANY 600u            /* likewise, if there is a minute or more */
#define NIGHT_S 600u         /* and their recoverers, too, if there is so much */

/* What a key may show. */
enum { MISS = 1, OLD = 2, NEW = 4, ANY = MISS | OLD | NEW };
enum { NEW_VERSION = 2, LOADED_VERSION = 3, SET_VERSION = 4, BIG_VERSION = 5 }; /* BIG: new, too */

enum {
	UNJOINED = 1,  /* the operation is the child's first */
	EVICTS = 2,    /* other keys may go */
	THREAD = 4,    /* a second thread of the child is stepped, from its end of this operation on */
	FIRST = 8,     /* with THREAD: all of its life is */
	NAMED = 16,    /* the segment has a name */
	FAILS = 32,    /* its load may be remembered as failed */
	LED = 64,      /* the companion leads the key: who asks for it may wait in vain, as long as the policy says */
	HOGS = 128,    /* the companion has what all others need: it is dead in each verdict */
	LATE = 256,    /* the companion begins when the child has joined */
	RESIZES = 512, /* the segment moves */
	SLOW = 1024,   /* it goes through the index, which is a small one then */
	SCARCE = 2048, /* there is one permit to load; who holds it and is stopped keeps it */
	REAL = 4096,   /* also killed, and resumed, in earnest */
};

struct operation {
	const char *name;
	void (*prepare)(void);   /* by the parent, or NULL */
	void (*companion)(void); /* another process, or NULL */
	void (*run)(void);       /* by the child */
	unsigned before, after; /* what its key shows */
	unsigned flags;
	unsigned least;        /* distinct states of the tables */
};

struct field {
	word32 done, recovered, tid, torn, shown, result, guest, joined;
	word32 child;  /* the thread that is stepped, once it is */
	word32 ready;  /* the companion has what it shall have */
	word32 acting; /* ACTS, DIES */
};

static struct field *field;
static struct shoal *cache;
static struct shoal_keyspace *keyspace; /* waits WAIT_MS */
static struct shoal_keyspace *patient;  /* the same one, and waits for ever */
static struct shoal_keyspace *own, *own_patient; /* likewise, of the key that the operation is about */
static pid_t companion;
static char path[64];
static uint64_t randomness;

/* ---- values ------------------------------------------------------------------------------------------------ */

#define VALUE_WORDS 500u /* of the big one; MAX_ENTRY has room for it and its key */

struct value {
	uint64_t key, version, pattern[VALUE_WORDS];
};

static size_t size_of(uint64_t key, uint64_t version)
{
	return (version == BIG_VERSION ? sizeof(struct value) : 1280) - (key * 7 + version * 13) % 60 * 8;
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
static unsigned show_in(struct shoal_keyspace *k, uint64_t key, const char *when)
{
	struct shoal_value v;
	int r = shoal_get(k, &key, sizeof(key), &v);
	unsigned shown = MISS;
	uint64_t version;

	if (r == SHOAL_OK && !is_whole(v.data, v.size, key)) {
		crew_wrong("%s: key %" PRIu64 " is torn", when, key);
		shown = 0;
	} else if (r == SHOAL_OK) {
		version = ((const struct value *)v.data)->version;
		shown = version == 1 ? OLD : version == NEW_VERSION || version == BIG_VERSION ? NEW : ANY;
	} else if (r != SHOAL_MISS) {
		crew_wrong("%s: get of key %" PRIu64 ": %s", when, key, shoal_strerror(r));
		shown = 0;
	}
	shoal_release(&v);
	return shown;
}

static unsigned show(uint64_t key, const char *when)
{
	return show_in(key == OWN ? own : keyspace, key, when);
}

/* ---- the child, and its companion -------------------------------------------------------------------------- */

enum { ACTS = 1, DIES = 2 };

static void submit(word32 *tid)
{
	w32_store(&field->child, (uint32_t)syscall(SYS_gettid));
	traced_submit(tid);
}

static void *be_stepped_thread(void *arg)
{
	const struct operation *o = arg;

	if (o->flags & FIRST)
		submit(&field->tid);
	o->run();
	if (!(o->flags & FIRST))
		submit(&field->tid);
	return NULL;
}

static void be_stepped(void *arg)
{
	const struct operation *o = arg;
	pthread_t thread;

	if (!(o->flags & UNJOINED))
		show(1, "child");
	if (o->flags & THREAD) {
		if (!pthread_create(&thread, NULL, be_stepped_thread, arg))
			pthread_join(thread, NULL);
	} else {
		submit(NULL);
		o->run();
	}
	w32_store(&field->done, 1);
	raise(SIGSTOP);
}

/* By the companion: the child sleeps, so nobody compares the segment with what it was. A child that never sleeps has
 * none that acts. */
static CREW_UNUSED void await_sleep(uint32_t how)
{
	crew_signal(&field->ready);
	while (!w32_load(&field->child) || crew_state((pid_t)w32_load(&field->child)) != 'S')
		crew_pass_us(300);
	w32_store(&field->acting, how);
}

static void be_companion(void *arg)
{
	const struct operation *o = arg;

	o->companion();
	w32_store(&field->acting, 0);
	futex_wake(&field->acting, 1);
	for (;;)
		pause();
}

/* What the companion does is over, its death included. */
static void settle(void)
{
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000;

	while (w32_load(&field->acting) == ACTS && crew_now() < end)
		futex_wait(&field->acting, ACTS, NULL, 0, end);
	crew_expect(w32_load(&field->acting) != ACTS, "the companion does not come to its end");
	if (w32_load(&field->acting) != DIES)
		return;
	crew_await_state(companion, "Z");
	w32_store(&field->acting, 0);
}

static bool companion_lives(void)
{
	char c = companion ? crew_state(companion) : 0;

	return c && c != 'Z';
}

/* ---- judges ------------------------------------------------------------------------------------------------ */

enum verdict { DEAD, STOPPED, THREAD_DEAD, VERDICTS };

struct question {
	const struct operation *operation;
	enum verdict verdict;
	unsigned number;   /* of the state: what is done first depends on it */
	unsigned may_show; /* its key */
	bool loose;        /* other keys may be gone */
	uint64_t blocks;   /* of the file, before */
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

static unsigned bound_ms;

static void end_span(const struct span *span, const char *what)
{
	uint64_t ms = (crew_now() - span->began) / 1000000;

	crew_expect(ms < bound_ms || sleeps() == span->slept, "%s waited %" PRIu64 " ms", what, ms);
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
		crew_expect(!shown || shown == OLD || (shown == MISS && q->loose) || q->may_show == ANY,
		            "key %" PRIu64 " is %s", k, shown == MISS ? "gone" : "another");
	}
	shown = show(OWN, "its key");
	crew_expect(!shown || shown & q->may_show, "its key is %s",
	            shown == MISS ? "gone" : shown == OLD ? "old" : "new");
	w32_store(&field->shown, shown);
}

/* The one permit is the child's, that is stopped. One that waits for it, or was told to take it, is passed by. */
static bool is_taken(const struct question *q)
{
	return q->operation->flags & SCARCE && q->verdict == STOPPED && permit_held(crew_segment(cache), UINT32_MAX);
}

/* Nobody else is here: what is done is seen. */
static void judge_others(const struct question *q)
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
		if (is_taken(q)) {
			r = timed("fetch of another key", fetch(keyspace, k, LOADED_VERSION));
			crew_expect(r == SHOAL_ERR_BUSY, "fetch of another key without a permit: %s",
			            shoal_strerror(r));
			continue;
		}
		r = timed("fetch of another key", fetch(patient, k, LOADED_VERSION));
		crew_expect(r == SHOAL_OK, "fetch of another key: %s", shoal_strerror(r));
		crew_expect(show(k, "loaded") == ANY, "key %" PRIu64 " is not what was loaded", k);
		r = timed("expire of another key", shoal_expire(patient, &k, sizeof(k)));
		crew_expect(r == SHOAL_OK, "expire of another key: %s", shoal_strerror(r));
	}
}

static void judge_fetch(const struct question *q)
{
	bool may_wait = q->verdict == STOPPED || q->operation->flags & LED;
	int r = timed("fetch of its key", fetch(may_wait ? own : own_patient, OWN, LOADED_VERSION));
	bool waited = r == SHOAL_ERR_TIMEOUT || r == SHOAL_ERR_BUSY,
	     failed = r == SHOAL_ERR_LOAD && q->operation->flags & FAILS;

	crew_expect(r == SHOAL_OK || failed || (waited && may_wait), "fetch of its key: %s", shoal_strerror(r));
}

static void judge_set(void)
{
	int r = timed("set of its key", set(own, OWN, SET_VERSION));

	crew_expect(r == SHOAL_OK, "set of its key: %s", shoal_strerror(r));
	crew_expect(show(OWN, "set") == ANY, "its key is not what was set");
}

static void judge_delete(void)
{
	uint64_t k = OWN;
	int r = timed("delete of its key", shoal_delete(own, &k, sizeof(k)));

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
	if (is_taken(q))
		return;
	/* Whoever led it is superseded now, so nobody is waited for. */
	i = (unsigned)timed("fetch after delete", fetch(own_patient, OWN, LOADED_VERSION));
	crew_expect(i == SHOAL_OK, "fetch after delete: %s", shoal_strerror((int)i));
	crew_expect(show(OWN, "loaded") == ANY, "its key is not what was loaded");
}

/* Whose process is the companion, that lives. */
static bool is_companions(const struct segment *s, uint32_t reader)
{
	uint32_t process =
		reader < s->geometry.readers ? ((uint32_t)w64_load(&s->readers[reader].owner) >> 16) - 1 : UINT32_MAX;

	return process < s->geometry.processes && companion_lives() &&
	       PROC_PID(w64_load(&s->processes[process].owner)) == (uint32_t)companion;
}

/* A thread that is dead holds nothing but its values, and what it needs for these. */
static void judge_thread_left(void)
{
	const struct segment *s = crew_segment(cache);
	uint64_t word;
	uint32_t i;

	for (i = 0; i < s->geometry.extents; i++) {
		crew_expect(!w64_load(&s->extents[i].lock), "the lock of extent %u is left", i);
		crew_expect(EXTENT_STATE(extents_word(s, i)) != EXTENT_EVICTING, "extent %u is being evicted for ever",
		            i);
	}
	for (i = 0; i < s->geometry.flights; i++)
		crew_expect(FLIGHT_STATE(w64_load(&s->flight_words[i])) == FLIGHT_FREE ||
				    FLIGHT_STATE(w64_load(&s->flight_words[i])) >= FLIGHT_ORPHAN,
			    "flight %u is left in state %u", i, FLIGHT_STATE(w64_load(&s->flight_words[i])));
	for (i = 0; i < s->geometry.readers; i++) {
		word = w64_load(&s->permits[i].word);
		crew_expect(PERMIT_STATE(word) == PERMIT_FREE || is_companions(s, PERMIT_READER(word)),
		            "permit %u is left", i);
	}
}

/* Only the parent and this judge have anything, and a companion that lives. */
static void judge_conserved(void)
{
	const struct segment *s = crew_segment(cache);
	uint32_t i, w, owned = 0, ours;
	struct shoal_stats stats;

	shoal_reap(cache);
	crew_expect(!shoal_reap(cache), "somebody is dead still");
	/* the parent stays in the first region */
	for (ours = s->geometry.offset ? 1 : 2, i = 0; i < s->geometry.readers; i++)
		if (is_companions(s, i))
			ours++;
	for (i = 0; i < s->geometry.processes; i++)
		owned += w64_load(&s->processes[i].owner) != 0;
	crew_expect(owned == ours, "%u processes are left, not %u", owned, ours);
	for (owned = i = 0; i < s->geometry.readers; i++) {
		owned += (uint32_t)w64_load(&s->readers[i].owner) != 0;
		for (w = 0; w < READER_WORDS; w++)
			crew_expect(!w64_load(&s->readers[i].words[w]), "word %u of reader %u is left", w, i);
	}
	crew_expect(owned == ours, "%u threads are left, not %u", owned, ours);
	judge_thread_left();
	crew_expect(!shoal_stats(cache, &stats) && !stats.pins && !stats.flights, "pins or flights are counted");
}

static uint64_t blocks_of_file(void)
{
	struct stat st;

	return fstat(segment_fd(crew_segment(cache)), &st) ? 0 : (uint64_t)st.st_blocks;
}

/* Nothing has changed, and the memory is back, or it has moved. And it can be resized. */
static void judge_resize(const struct question *q)
{
	const struct segment *s = crew_segment(cache);
	unsigned shown;
	int r;

	if (q->verdict == DEAD && !s->geometry.offset) {
		crew_expect(!w64_load(&s->header->resizer), "a dead one resizes");
		crew_expect(blocks_of_file() <= q->blocks + 64, "%" PRIu64 " blocks are left, not %" PRIu64,
		            blocks_of_file(), q->blocks);
	}
	r = shoal_resize(cache, SEGMENT);
	crew_expect(r == SHOAL_OK || (r == SHOAL_ERR_BUSY && q->verdict == STOPPED), "resize: %s", shoal_strerror(r));
	crew_check(cache);
	shown = show(OWN, "resized"); /* of a full one the coldest stay behind */
	crew_expect(shown == ANY || (shown == MISS && q->loose), "its key is not what was loaded before the resize");
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
	bound_ms = q->operation->flags & RESIZES ? RESIZE_MS : BOUND_MS;
	if (q->verdict == DEAD && q->number % 2) {
		found = shoal_reap(cache);
		crew_expect(found >= q->corpses, "%d dead processes were found, not %d", found, q->corpses);
		crew_check(cache);
	}
	judge_shown(q);
	if (q->verdict == STOPPED)
		crew_check(cache);
	judge_others(q);
	judge_own(q);
	if (q->verdict == DEAD)
		judge_conserved();
	if (q->operation->flags & RESIZES)
		judge_resize(q);
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
	crew_expect(!shoal_stats(cache, &stats) && !stats.total.corrupt, "%" PRIu64 " values are corrupt",
	            stats.total.corrupt);
}

/* ---- one state --------------------------------------------------------------------------------------------- */

static unsigned judged[VERDICTS + 8];
enum { IN_RECOVERER = VERDICTS, IN_THREAD_RECOVERER, RECOVERERS, THREAD_RECOVERERS, KILLED, RESUMED, KILLED_BETWEEN,
       MISSED };

static bool ask(const struct question *q, const struct stepper *t, const char *how)
{
	uint32_t before = w32_load(&crew_verdict->count);

	w32_store(&field->torn, 0);
	crew_join_well(crew_fork(judge, (void *)(uintptr_t)q));
	crew_expect(!w32_load(&field->torn), "a fetch gave a torn value");
	if (w32_load(&crew_verdict->count) != before)
		crew_wrong("^ %s, state %u (instruction %" PRIu64 "), %s", q->operation->name, q->number, t->steps,
		           how);
	return w32_load(&crew_verdict->count) == before;
}

static unsigned may_show(const struct operation *o)
{
	return o->before | o->after;
}

static uint64_t blocks_before;

static struct question question(const struct operation *o, enum verdict verdict, unsigned number)
{
	return (struct question){.operation = o, .verdict = verdict, .number = number, .may_show = may_show(o),
				 .loose = o->flags & EVICTS, .blocks = blocks_before};
}

/* What the judge finds, and is put back afterwards. */
static void begin_state(const struct operation *o, struct stepper *t)
{
	stepper_keep(t);
	if (o->flags & HOGS)
		stepper_declare_dead(t->segment, companion, companion);
}

static bool judge_thread_dead(const struct operation *o, struct stepper *t, const char *how)
{
	struct question q = question(o, THREAD_DEAD, t->states + t->copying);
	bool well;

	begin_state(o, t);
	stepper_declare_thread_dead(t->segment, t->pid, t->tid);
	well = ask(&q, t, how);
	stepper_put_back(t);
	return well;
}

static bool judge_dead(const struct operation *o, struct stepper *t, const char *how)
{
	struct question q = question(o, DEAD, t->states + t->copying);
	bool well;

	begin_state(o, t);
	q.corpses = stepper_declare_dead(t->segment, t->pid, t->tid);
	well = ask(&q, t, how);
	stepper_put_back(t);
	return well;
}

/* Once it shows, it shows. */
static bool judge_stopped(const struct operation *o, struct stepper *t, bool *shows)
{
	struct question q = question(o, STOPPED, t->states + t->copying);
	bool well;

	if (*shows)
		q.may_show = o->after;
	begin_state(o, t);
	well = ask(&q, t, "stopped");
	*shows |= o->before != o->after && w32_load(&field->shown) == o->after;
	stepper_put_back(t);
	return well;
}

/* Of those who are here already: how one joins among the dead is what "reap" is about. */
static void be_recoverer(void *arg)
{
	(void)arg;
	show(1, "recoverer");
	traced_submit(NULL);
	shoal_reap(cache);
	w32_store(&field->recovered, 1);
	raise(SIGSTOP);
}

/* The child is dead, or its thread, and so is who recovers what it held, at each state of its own. */
static bool judge_recoverer(const struct operation *o, struct stepper *t, enum verdict verdict)
{
	struct stepper r;
	bool well = true;
	unsigned n = 0;
	int corpses = 0;

	begin_state(o, t);
	if (verdict == DEAD)
		corpses = stepper_declare_dead(t->segment, t->pid, t->tid);
	else
		stepper_declare_thread_dead(t->segment, t->pid, t->tid);
	w32_store(&field->recovered, 0);
	stepper_begin(&r, t->segment, t->self, &field->recovered);
	r.regions = t->regions;
	if (stepper_take(&r, crew_fork(be_recoverer, NULL), NULL) == STEP_MADE) {
		stepper_look_anew(&r);
		for (; well && stepper_next(&r) == STEP_MADE; n++) {
			struct question q = question(o, verdict, r.states + r.copying);

			stepper_keep(&r);
			/* it may have freed one */
			q.corpses = corpses + stepper_declare_dead(r.segment, r.pid, r.tid) - 1;
			well = ask(&q, &r,
			           verdict == DEAD ? "its recoverer dead, too" : "its thread dead, and its recoverer");
			stepper_put_back(&r);
			judged[verdict == DEAD ? IN_RECOVERER : IN_THREAD_RECOVERER]++;
		}
	}
	judged[verdict == DEAD ? RECOVERERS : THREAD_RECOVERERS]++;
	crew_expect(n || !corpses || !w32_load(&field->recovered), "the recoverer of %s changed nothing", o->name);
	stepper_end(&r);
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
	uint64_t *trail;  /* of the child that was counted */
	uint64_t *at;     /* the step after which each of the states is met */
	uint64_t left;    /* ns, for what is judged at random */
	bool refused;
};

/* Somebody has the places before the child's while it joins, and is gone then: who joins after that takes these, and
 * doesn't chance on what the child leaves. */
static void be_guest(void *arg)
{
	(void)arg;
	show(1, "guest");
	crew_signal(&field->guest);
	crew_await(&field->joined, 1);
	shoal_close(cache);
}

static void start_companion(const struct operation *o)
{
	companion = 0;
	if (!o->companion)
		return;
	companion = crew_fork(be_companion, (void *)(uintptr_t)o);
	crew_await(&field->ready, 1);
}

static bool start(struct run *run)
{
	pid_t guest = 0;
	enum stepped r;

	memcpy(crew_segment(cache)->base, run->base, SEGMENT);
	stepper_clear_behind(crew_segment(cache));
	memset(field, 0, sizeof(*field));
	if (!(run->o->flags & LATE))
		start_companion(run->o);
	if (!(run->o->flags & UNJOINED)) {
		guest = crew_fork(be_guest, NULL);
		crew_await(&field->guest, 1);
	}
	stepper_begin(&run->t, crew_segment(cache), registry_here(cache->member)->index, &field->done);
	run->t.regions = run->o->flags & RESIZES;
	run->t.settle = run->o->companion ? settle : NULL;
	r = stepper_take(&run->t, crew_fork(be_stepped, (void *)(uintptr_t)run->o),
	                 run->o->flags & THREAD ? &field->tid : NULL);
	crew_signal(&field->joined);
	if (guest)
		crew_join_well(guest);
	if (run->o->flags & LATE)
		start_companion(run->o);
	stepper_look_anew(&run->t); /* it has joined, and what else comes before */
	run->refused = r == STEP_REFUSED;
	crew_expect(r == STEP_MADE || r == STEP_REFUSED, "the child was lost (%d)", r);
	return r == STEP_MADE;
}

static void finish(struct run *run)
{
	stepper_end(&run->t);
	if (companion)
		crew_kill(companion);
	companion = 0;
}

/* Not by the parent: it stays where it is. */
static void look_at_the_end(void *arg)
{
	const struct operation *o = arg;

	crew_expect(show(OWN, "ended") == o->after, "its key shows something else in the end");
}

static bool count_states(struct run *run)
{
	enum stepped r = STEP_MADE;

	if (!start(run)) {
		finish(run);
		return false;
	}
	while (r == STEP_MADE) {
		r = stepper_next(&run->t);
		if (r == STEP_MADE && run->t.tables && run->t.states <= POINTS)
			run->at[run->t.states - 1] = run->t.steps;
	}
	crew_expect(r == STEP_ENDED, "its end was not met in %" PRIu64 " steps (%d)", run->t.steps, r);
	crew_expect(!w32_load(&field->torn), "it read a torn value");
	crew_expect((int)w32_load(&field->result) >= 0, "it ended with %s",
	            shoal_strerror((int)w32_load(&field->result)));
	crew_join_well(crew_fork(look_at_the_end, (void *)(uintptr_t)run->o));
	run->states = (unsigned)min_u64(run->t.states, POINTS);
	run->copying = run->t.copying;
	run->steps = run->t.steps;
	run->trail = malloc((run->steps + 1) * sizeof(*run->trail));
	memcpy(run->trail, run->t.trail, run->steps * sizeof(*run->trail));
	finish(run);
	return r == STEP_ENDED;
}

/* Of so many states all are judged. */
static unsigned few(void)
{
	return traced_seconds() >= 60 ? MANY : FEW;
}

/* Of `all` that may be judged, is it this one's turn? At random, as many as fit into what is left of the time by what
 * they have taken so far; one at least. */
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
	struct pace pace = {.left = ns / 4, .all = run->states + run->copying / 8},
		    deep = {.left = ns - ns / 4, .all = 2 * run->states};
	bool well = true, shows = false, all = run->states <= few(), deep_all = all && traced_seconds() >= NIGHT_S;
	enum verdict v;

	if (!start(run)) {
		finish(run);
		return false;
	}
	while (well && stepper_next(&run->t) == STEP_MADE) {
		if (!run->t.tables && run->t.copying % 8)
			continue;
		if ((run->t.tables && all) || is_its_turn(&pace)) {
			well = judge_dead(run->o, &run->t, "dead") && judge_stopped(run->o, &run->t, &shows) &&
			       judge_thread_dead(run->o, &run->t, "its thread dead");
			judged[DEAD]++;
			judged[STOPPED]++;
			judged[THREAD_DEAD]++;
			if (!run->t.tables || !all)
				was_its_turn(&pace);
		}
		for (v = 0; well && run->t.tables && v <= THREAD_DEAD; v += THREAD_DEAD) {
			if (!is_its_turn(&deep) && !deep_all)
				continue;
			well = judge_recoverer(run->o, &run->t, v);
			was_its_turn(&deep);
		}
	}
	finish(run);
	run->left -= ns - pace.left - deep.left;
	return well;
}

/* ---- in earnest -------------------------------------------------------------------------------------------- */

/* A fresh child, to that step. One that takes another way there, as addresses and the time are others',
 * may end before. */
static bool start_to(struct run *run, uint64_t step)
{
	return start(run) && stepper_run_to(&run->t, stepper_point(run->trail, step));
}

/* To its n-th state, by steps if need be. */
static bool start_to_state(struct run *run, unsigned n)
{
	if (start_to(run, run->at[n]))
		return true;
	finish(run);
	if (!start(run))
		return false;
	while (stepper_next(&run->t) == STEP_MADE)
		if (run->t.states == n + 1)
			return true;
	return false;
}

static void kill_hog(const struct operation *o)
{
	if (!(o->flags & HOGS))
		return;
	crew_kill(companion);
	companion = 0;
}

static void kill_in_earnest(struct run *run)
{
	crew_kill(run->t.pid);
	run->t.pid = 0;
	kill_hog(run->o);
}

static bool kill_here(struct run *run, unsigned number, unsigned *count)
{
	struct question q = question(run->o, DEAD, number);

	kill_in_earnest(run);
	q.corpses = run->o->flags & UNJOINED ? 0 : 1;
	++*count;
	return ask(&q, &run->t, "killed");
}

static bool kill_at_state(struct run *run, unsigned n)
{
	bool well = true;

	if (start_to_state(run, n))
		well = kill_here(run, n, &judged[KILLED]);
	finish(run);
	return well && !w32_load(&crew_verdict->count);
}

static bool kill_at(struct run *run, uint64_t step)
{
	bool well = true;

	if (start_to(run, step))
		well = kill_here(run, (unsigned)step, &judged[KILLED_BETWEEN]);
	else
		judged[MISSED]++;
	finish(run);
	return well && !w32_load(&crew_verdict->count);
}

static bool resume_at(struct run *run, unsigned n)
{
	struct question q = question(run->o, STOPPED, n);
	bool well = true;
	int r;

	if (start_to_state(run, n)) {
		kill_hog(run->o);
		well = ask(&q, &run->t, "to be resumed");
		crew_expect(stepper_finish(&run->t), "it did not come to its end");
		r = (int)w32_load(&field->result);
		crew_expect(!w32_load(&field->torn), "it read a torn value");
		crew_expect(r >= 0 || r == SHOAL_ERR_SUPERSEDED || (r == SHOAL_ERR_BUSY && run->o->flags & RESIZES),
			    "it ended with %s", shoal_strerror(r));
		crew_kill(run->t.pid);
		run->t.pid = 0;
		q = question(run->o, DEAD, n);
		q.may_show = ANY;
		q.loose = true;
		well = ask(&q, &run->t, "resumed") && well;
		judged[RESUMED]++;
	}
	finish(run);
	return well && !w32_load(&crew_verdict->count);
}

/* Every state where they are very few, and then instructions, in the time that is left. */
static bool judge_in_earnest(struct run *run)
{
	uint64_t ns = run->left;
	struct pace kills = {.left = ns / 3, .all = run->states}, resumes = {.left = ns / 3, .all = run->states},
		    between = {.left = ns / 3, .all = (unsigned)run->steps};
	bool well = true, all = run->states <= (traced_seconds() >= 60 ? MANY : FEW_KILLS);
	unsigned i;

	for (i = 0; well && i < run->states; i++) {
		if (is_its_turn(&kills) || all) {
			well = kill_at_state(run, i);
			was_its_turn(&kills);
		}
		if (well && is_its_turn(&resumes)) {
			well = resume_at(run, i);
			was_its_turn(&resumes);
		}
	}
	between.left = ns - (ns / 3 - kills.left) - (ns / 3 - resumes.left);
	for (i = 1; well && i <= run->steps && between.left; i++) {
		if (!is_its_turn(&between))
			continue;
		well = kill_at(run, i);
		was_its_turn(&between);
	}
	run->left = between.left;
	return well;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static void open_cache(const struct operation *o)
{
	struct shoal_config config = {.size = SEGMENT, .max_entry = MAX_ENTRY, .max_processes = 8, .max_threads = 8,
				      .max_flights = 16, .max_keyspaces = 3, .max_loads = o->flags & SCARCE ? 1 : 2,
				      .mean_entry = o->flags & SLOW ? MAX_ENTRY : 1024};
	struct shoal_policy policy = {.fresh_ms = HOUR_MS, .stale_ms = HOUR_MS, .lease_ms = HOUR_MS, .early = -1,
				      .wait_ms = WAIT_MS, .jitter_permille = SHOAL_NONE};
	uint64_t k;

	snprintf(path, sizeof(path), "/dev/shm/shoal-step-%d", (int)getpid());
	assert_int_equal(shoal_open(o->flags & NAMED ? path : NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "step", 1, &policy, &keyspace), SHOAL_OK);
	policy.wait_ms = 10 * BOUND_MS;
	assert_int_equal(shoal_keyspace_open(cache, "step", 1, &policy, &patient), SHOAL_OK);
	own = keyspace;
	own_patient = patient;
	for (k = 0; k < KEYS; k++)
		assert_int_equal(set(keyspace, k, 1), SHOAL_OK);
}

static void report(const struct run *run)
{
	printf("# %s: %" PRIu64
	       " instructions, %u states and %u while copying. Judged: %u dead, %u stopped, %u thread dead",
	       run->o->name, run->steps, run->states, run->copying, judged[DEAD], judged[STOPPED], judged[THREAD_DEAD]);
	printf("; recoverers at %u of %u, dead in %u states of theirs, and over a dead thread at %u, in %u",
	       judged[RECOVERERS], run->states, judged[IN_RECOVERER], judged[THREAD_RECOVERERS],
	       judged[IN_THREAD_RECOVERER]);
	if (run->o->flags & REAL)
		printf("; killed at %u of %u, and at %u of %" PRIu64
		       " instructions (%u not come to again); resumed at %u",
		       judged[KILLED], run->states, judged[KILLED_BETWEEN], run->steps, judged[MISSED],
		       judged[RESUMED]);
	printf("\n");
}

/* Returns what is left of the time. */
static uint64_t step_through(const struct operation *o, uint64_t ns)
{
	struct run run = {.o = o, .left = ns, .base = malloc(SEGMENT), .at = calloc(POINTS, sizeof(uint64_t))};
	bool well;

	crew_begin();
	memset(judged, 0, sizeof(judged));
	field = crew_memory(sizeof(*field));
	open_cache(o);
	if (o->prepare)
		o->prepare();
	memcpy(run.base, crew_segment(cache)->base, SEGMENT);
	blocks_before = blocks_of_file();
	well = count_states(&run);
	if (run.refused) {
		skipped("ptrace is refused");
	} else if (well) {
		crew_expect(run.states >= o->least, "%s: %u states, not %u", o->name, run.states, o->least);
		well = judge_states(&run, o->flags & REAL ? ns / 2 : ns) &&
		       (!(o->flags & REAL) || judge_in_earnest(&run));
		report(&run);
	}
	memcpy(crew_segment(cache)->base, run.base, SEGMENT);
	stepper_clear_behind(crew_segment(cache));
	if (o->flags & NAMED)
		unlink(path);
	shoal_close(cache);
	munmap(field, sizeof(*field));
	free(run.base);
	free(run.at);
	free(run.trail);
	assert_int_equal(crew_wrongs(), 0);
	assert_true(well || run.refused);
	return run.left;
}

/* ---- the program ------------------------------------------------------------------------------------------- */

static uint64_t left;       /* ns */
static unsigned shares_left; /* an operation takes one, or, if it is judged in earnest as well, four */

static void step(void **state)
{
	const struct operation *o = *state;
	unsigned shares = o->flags & REAL ? 4 : 1;
	uint64_t ns = left * shares / shares_left;

	left -= ns;
	shares_left -= shares;
	left += step_through(o, ns);
}

static int step_all(const struct operation *operations, unsigned n, const char *filter)
{
	struct CMUnitTest *tests = calloc(n, sizeof(*tests));
	unsigned i;
	int r;

	for (shares_left = i = 0; i < n; i++) {
		shares_left += operations[i].flags & REAL ? 4 : 1;
		tests[i] = (struct CMUnitTest){.name = operations[i].name, .test_func = step,
					       .initial_state = (void *)(uintptr_t)&operations[i]};
	}
	/* to step takes the rest */
	left = (uint64_t)traced_seconds() * (traced_seconds() >= NIGHT_S ? 800000000 : 400000000);
	randomness = (uint64_t)getpid();
	if (filter) /* the name of one case, with wildcards */
		cmocka_set_test_filter(filter);
	r = _cmocka_run_group_tests("step", tests, n, NULL, NULL);
	free(tests);
	return r;
}

#endif
