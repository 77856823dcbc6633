/* SPDX-License-Identifier: MIT */
/*
 * Stopped at the worst places, and killed there. The parent single-steps a child, looks at the segment after each
 * instruction, and leaves it where it wants it: no hook in the library is needed. Others then use the segment for many
 * times its capacity: nothing may fail, and nothing may be wrong. Then the child goes on, or is killed.
 *
 *   place       what the segment shows
 *   READING     the child announces an entry it looks at
 *   LOCK        it holds the lock of a head
 *   COPY        WRITING is announced, the tail has moved, the index slot hasn't changed
 *   OPENING     it has opened an extent that is no head yet
 *   SEALING     it has given back the lock of a full one that is no head any more
 *   EVICTING    an extent is being evicted by it
 *   CLAIMING    a flight, by it
 *   PUBLISHING  a flight, by it
 *
 * Where the machine forbids ptrace, these cases say so and pass.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "traced.h"

#define SEGMENT ((size_t)4 << 20)
#define VALUE 15000u
#define OTHERS 500u
#define TIMES 4 /* the capacity is written over while somebody is stopped */
#define EXTENTS 256u /* more than such a segment has */
#define STEPS_MAX 2000000u
#define HOLDERS 8u
#define BOUND_S 170 /* a hang ends the program */

struct value {
	uint64_t key, version, pattern[VALUE / 8 - 2];
};

struct field {
	word32 reader, last, held, result, torn, shown;
	word64 version, shown_version;
};

static struct field *field;
static struct shoal *cache;
static struct shoal_keyspace *keyspace;
static uint64_t randomness = 1;

/* ---- the others -------------------------------------------------------------------------------------------- */

static struct value scratch;
static uint64_t latest[OTHERS]; /* version; 0: none */
static uint64_t version_now;

/* Sizes differ, so that entries of two lives of an extent don't lie at the same places. */
static size_t size_of(uint64_t key, uint64_t version)
{
	return sizeof(struct value) - (key * 7 + version * 13) % 500 * 8;
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

static bool is_whole(const struct shoal_value *got, uint64_t key)
{
	const struct value *v = got->data;
	size_t i;

	if (!v || got->size < 16 || v->key != key || got->size != size_of(key, v->version))
		return false;
	for (i = 0; i < (got->size - 16) / 8; i++)
		if (v->pattern[i] != key * 1000003 + v->version * 31 + i)
			return false;
	return true;
}

static int load_next(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	uint64_t k;

	memcpy(&k, key, sizeof(k));
	version_now++;
	return shoal_load_publish(load, make_value(&scratch, k, version_now), size_of(k, version_now));
}

static void check_other(uint64_t k, int r, struct shoal_value *v)
{
	if (r == SHOAL_OK) {
		crew_expect(is_whole(v, k), "key %" PRIu64 " is torn", k);
		crew_expect(v->data && ((const struct value *)v->data)->version == latest[k],
		            "key %" PRIu64 " shows another version", k);
	} else {
		crew_expect(r == SHOAL_MISS, "get: %s", shoal_strerror(r));
	}
	shoal_release(v);
}

/* One actor, so every get has one right answer: the last version, or none. */
static void use_one(void)
{
	uint64_t k = crew_below(&randomness, OTHERS), before;
	struct shoal_value v;
	int r;

	switch (crew_below(&randomness, 8)) {
	case 0:
		r = shoal_delete(keyspace, &k, sizeof(k));
		crew_expect(r == SHOAL_OK || r == SHOAL_MISS, "delete: %s", shoal_strerror(r));
		latest[k] = 0;
		return;
	case 1:
		before = version_now;
		r = shoal_fetch(keyspace, &k, sizeof(k), load_next, NULL, &v);
		if (version_now != before)
			latest[k] = version_now;
		crew_expect(r == SHOAL_OK, "fetch: %s", shoal_strerror(r));
		check_other(k, r, &v);
		return;
	case 2:
	case 3:
		r = shoal_get(keyspace, &k, sizeof(k), &v);
		check_other(k, r, &v);
		return;
	default:
		version_now++;
		r = shoal_set(keyspace, &k, sizeof(k), make_value(&scratch, k, version_now), size_of(k, version_now));
		crew_expect(r == SHOAL_OK, "set: %s", shoal_strerror(r));
		latest[k] = version_now;
	}
}

static void use(void)
{
	unsigned n;

	for (n = 0; n < TIMES * 2 * SEGMENT / VALUE && !w32_load(&crew_verdict->count); n++)
		use_one();
}

static void open_cache(uint32_t lease_ms)
{
	struct shoal_config config = {.size = SEGMENT, .max_entry = 16 << 10};
	struct shoal_policy policy = {.fresh_ms = 3600000, .stale_ms = 3600000, .lease_ms = lease_ms, .early = -1};

	alarm(BOUND_S);
	crew_begin();
	field = crew_memory(sizeof(*field));
	memset(latest, 0, sizeof(latest));
	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "stop", 1, &policy, &keyspace), SHOAL_OK);
}

static void close_cache(void)
{
	struct shoal_stats stats;

	if (!w32_load(&crew_verdict->count)) {
		shoal_reap(cache);
		assert_int_equal(shoal_stats(cache, &stats), SHOAL_OK);
		crew_expect(stats.processes == 1 && stats.threads == 1, "%u processes, %u threads are left",
		            stats.processes, stats.threads);
		crew_expect(!stats.pins && !stats.flights, "%u pins, %u flights are left", stats.pins, stats.flights);
		crew_expect(!stats.total.corrupt, "%" PRIu64 " corrupt", stats.total.corrupt);
		crew_fill(cache, keyspace);
	}
	shoal_close(cache);
	munmap(field, sizeof(*field));
	alarm(0);
	assert_int_equal(crew_wrongs(), 0);
}

/* ---- values in hand ---------------------------------------------------------------------------------------- */

static void hold_stopped(void *arg)
{
	uint64_t k = OTHERS + (uintptr_t)arg;
	struct shoal_value v;
	int r = shoal_get(keyspace, &k, sizeof(k), &v);

	crew_expect(r == SHOAL_OK, "holder: %s", shoal_strerror(r));
	raise(SIGSTOP);
	crew_expect(is_whole(&v, k), "key %" PRIu64 " changed in hand", k);
	shoal_release(&v);
}

static void stopped_with_values_in_hand(void **state)
{
	pid_t pids[HOLDERS];
	uintptr_t i;
	uint64_t k;

	open_cache(0);
	for (i = 0; i < HOLDERS; i++) {
		k = OTHERS + i;
		assert_int_equal(shoal_set(keyspace, &k, sizeof(k), make_value(&scratch, k, 1), size_of(k, 1)),
		                 SHOAL_OK);
		pids[i] = crew_fork(hold_stopped, (void *)i);
		crew_await_state(pids[i], "T");
	}
	use();
	for (i = 0; i < HOLDERS; i++)
		kill(pids[i], SIGCONT);
	for (i = 0; i < HOLDERS; i++)
		crew_join_well(pids[i]);
	close_cache();
}

/* ---- one child, step by step ------------------------------------------------------------------------------- */

enum place { AT_READING, AT_LOCK, AT_COPY, AT_OPENING, AT_SEALING, AT_EVICTING, AT_CLAIMING, AT_PUBLISHING, PLACES };
static const char *const place_names[PLACES] = {"READING",  "LOCK",	"COPY",	    "OPENING",
						"SEALING",  "EVICTING", "CLAIMING", "PUBLISHING"};

#define STOPPED_KEY ((uint64_t)999999)

static void report(const struct shoal_value *v)
{
	if (!is_whole(v, STOPPED_KEY))
		w32_store(&field->torn, 1);
}

static void get_own(void)
{
	uint64_t k = STOPPED_KEY;
	struct shoal_value v;
	int r = shoal_get(keyspace, &k, sizeof(k), &v);

	w32_store(&field->result, (uint32_t)r);
	if (r == SHOAL_OK)
		report(&v);
	shoal_release(&v);
}

static void set_own(void)
{
	static struct value v;
	uint64_t k = STOPPED_KEY, version = w64_add(&field->version, 1) + 1;

	w32_store(&field->result,
	          (uint32_t)shoal_set(keyspace, &k, sizeof(k), make_value(&v, k, version), size_of(k, version)));
}

static void load_own(void)
{
	static struct value v;
	uint64_t k = STOPPED_KEY;
	struct shoal_load *load;
	struct shoal_value old;
	uint64_t version;
	int r;

	if (crew_below(&randomness, 2))
		shoal_delete(keyspace, &k, sizeof(k));
	else
		shoal_expire(keyspace, &k, sizeof(k));
	r = shoal_begin(keyspace, &k, sizeof(k), &load, &old);
	version = w64_load(&field->version);
	if (r == SHOAL_LEAD || r == SHOAL_REFRESH)
		r = shoal_load_publish(load, make_value(&v, k, version), size_of(k, version));
	else if (r == SHOAL_WAIT)
		shoal_load_cancel(load);
	shoal_release(&old);
	w32_store(&field->result, (uint32_t)r);
}

static void be_stepped(void *arg)
{
	void (*const operations[PLACES])(void) = {get_own, set_own, set_own, set_own,
						    set_own, set_own, load_own, load_own};
	enum place place = (enum place)(uintptr_t)arg;

	set_own(); /* join, and the first faults */
	w32_store(&field->reader, registry_here(cache->member)->index + 1);
	randomness += (uint64_t)getpid();
	traced_submit(NULL);
	while (!w32_load(&field->last))
		operations[place]();
	raise(SIGSTOP);
}

/* Where the child is. Some places can only be told by what was before. */
struct watch {
	uint32_t reader;
	uint32_t writing, tail; /* COPY: the extent it announces, and its tail then */
	uint32_t opening;       /* OPENING: the extent + 1 */
	uint64_t words[EXTENTS];
};

static bool evicts(const struct segment *s, uint32_t reader)
{
	uint32_t x;
	uint64_t word;

	for (x = 0; x < s->geometry.extents; x++) {
		word = extents_word(s, x);
		if (EXTENT_STATE(word) == EXTENT_EVICTING && EXTENT_OWNER(word) == reader)
			return true;
	}
	return false;
}

/* From the CAS that makes a free extent OPEN to the one that makes it a head. */
static bool opens(const struct segment *s, struct watch *w)
{
	uint32_t x;
	uint64_t word;

	for (x = 0; x < s->geometry.extents && x < EXTENTS; x++) {
		word = extents_word(s, x);
		if (EXTENT_STATE(word) == EXTENT_OPEN && EXTENT_OWNER(word) == w->reader && w->words[x] &&
		    EXTENT_STATE(w->words[x]) == EXTENT_FREE)
			w->opening = x + 1;
		w->words[x] = word;
	}
	if (w->opening && (EXTENT_STATE(w->words[w->opening - 1]) != EXTENT_OPEN || crew_is_head(s, w->opening - 1)))
		w->opening = 0;
	return w->opening;
}

static bool holds_lock(const struct segment *s, uint32_t reader)
{
	uint64_t ref = w64_load(&s->readers[reader].owner) >> 32 << 32 | (reader + 1);
	uint32_t x;

	for (x = 0; x < s->geometry.extents; x++)
		if (w64_load(&s->extents[x].lock) == ref)
			return true;
	return false;
}

/* The lock is given back, and the extent is no head any more but still OPEN. */
static bool seals(const struct segment *s, uint32_t reader)
{
	uint32_t x = (uint32_t)w64_load(&s->readers[reader].words[WRITING]) - 1;

	return x < s->geometry.extents && EXTENT_STATE(extents_word(s, x)) == EXTENT_OPEN && !crew_is_head(s, x) &&
	       !w64_load(&s->extents[x].lock);
}

static bool has_flight(const struct segment *s, uint32_t reader, enum flight_state state)
{
	uint32_t i;
	uint64_t word;

	for (i = 0; i < s->geometry.flights; i++) {
		word = w64_load(&s->flight_words[i]);
		if (FLIGHT_STATE(word) == state && FLIGHT_LEADER(word) == reader)
			return true;
	}
	return false;
}

static bool is_in_index(const struct segment *s, uint64_t offset)
{
	uint64_t i, word;

	for (i = 0; i < index_slots(s); i++) {
		word = w64_load(&s->index[i / BUCKET_SLOTS].slots[i % BUCKET_SLOTS]);
		if (SLOT_IS_USED(word) && SLOT_BYTES(word) == offset)
			return true;
	}
	return false;
}

static bool copies(const struct segment *s, struct watch *w)
{
	uint32_t writing = (uint32_t)w64_load(&s->readers[w->reader].words[WRITING]);

	if (writing != w->writing) {
		w->writing = writing;
		w->tail = writing ? w32_load(&s->extents[writing - 1].tail) : 0;
	}
	return writing && w32_load(&s->extents[writing - 1].tail) > w->tail && !holds_lock(s, w->reader) &&
	       !is_in_index(s, s->geometry.log_at + (uint64_t)(writing - 1) * s->geometry.extent_size + w->tail);
}

static bool is_at(struct watch *w, enum place place)
{
	const struct segment *s = crew_segment(cache);

	switch (place) {
	case AT_READING:
		return w64_load(&s->readers[w->reader].words[PINS]) != 0;
	case AT_LOCK:
		return holds_lock(s, w->reader);
	case AT_COPY:
		return copies(s, w);
	case AT_OPENING:
		return opens(s, w);
	case AT_SEALING:
		return seals(s, w->reader);
	case AT_EVICTING:
		return evicts(s, w->reader);
	case AT_CLAIMING:
		return has_flight(s, w->reader, FLIGHT_CLAIMING);
	default:
		return has_flight(s, w->reader, FLIGHT_PUBLISHING);
	}
}

/* A child that is stopped `deep` instructions into the place, or as deep as it gets. */
static enum stepped stop_at(enum place place, unsigned deep, pid_t *pid)
{
	struct watch w = {0};
	unsigned steps, at = 0;
	enum stepped r;

	w32_store(&field->last, 0);
	w32_store(&field->torn, 0);
	*pid = crew_fork(be_stepped, (void *)(uintptr_t)place);
	r = traced_await(*pid, SIGSTOP);
	w.reader = w32_load(&field->reader) - 1;
	for (steps = 0; r == STEP_MADE && steps < STEPS_MAX; steps++) {
		r = traced_step(*pid);
		if (r == STEP_MADE && is_at(&w, place)) {
			if (at++ == deep)
				return STEP_MADE;
		} else if (at) { /* it was not that deep: the next time, half of it */
			deep = at > 1 ? (unsigned)crew_below(&randomness, at) : 0;
			at = 0;
		}
	}
	if (r != STEP_REFUSED)
		crew_wrong("%s was not met in %u steps (%d)", place_names[place], steps, r);
	return r == STEP_REFUSED ? r : STEP_LOST;
}

/* To the end of its operation; then it is gone. */
static void go_on(pid_t pid)
{
	w32_store(&field->last, 1);
	crew_expect(!ptrace(PTRACE_CONT, pid, 0, 0) && traced_await(pid, SIGSTOP) == STEP_MADE,
	            "the child did not come to its end");
}

static void let_go(pid_t pid)
{
	ptrace(PTRACE_DETACH, pid, 0, 0);
	kill(pid, SIGCONT);
	crew_join_well(pid);
}

/* What the others do to the key somebody is stopped over. */
enum deed { NOTHING, DELETED, SET_ANEW, EXPIRED, LOADED_ANEW, DEEDS };
static const char *const deed_names[DEEDS] = {"nothing", "delete", "set", "expire", "load"};

static int load_newer(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	uint64_t version = w64_add(&field->version, 1) + 1;

	return shoal_load_publish(load, make_value(&scratch, STOPPED_KEY, version), size_of(STOPPED_KEY, version));
}

/* Afterwards nothing of before that version may show. */
static uint64_t do_deed(enum deed deed)
{
	uint64_t k = STOPPED_KEY, version = w64_load(&field->version);
	struct shoal_value v;
	int r = SHOAL_OK;

	if (deed == NOTHING)
		return 0;
	if (deed != LOADED_ANEW)
		version = w64_add(&field->version, 1) + 1;
	if (deed == DELETED)
		r = shoal_delete(keyspace, &k, sizeof(k));
	else if (deed == SET_ANEW)
		r = shoal_set(keyspace, &k, sizeof(k), make_value(&scratch, k, version), size_of(k, version));
	else if (deed == EXPIRED)
		r = shoal_expire(keyspace, &k, sizeof(k));
	else
		r = shoal_fetch(keyspace, &k, sizeof(k), load_newer, NULL, &v);
	crew_expect(r == SHOAL_OK || r == SHOAL_MISS, "%s of the stopped one's key: %s", deed_names[deed],
	            shoal_strerror(r));
	if (deed == LOADED_ANEW) {
		crew_expect(is_whole(&v, k), "a torn value was loaded");
		shoal_release(&v);
	}
	return version;
}

static void look_at_its_key(enum place place, enum deed deed, uint64_t floor)
{
	uint64_t k = STOPPED_KEY, version;
	struct shoal_value v;
	int r = shoal_get(keyspace, &k, sizeof(k), &v);

	if (r == SHOAL_OK && !is_whole(&v, k)) {
		crew_wrong("%s: its key is torn", place_names[place]);
	} else if (r == SHOAL_OK) {
		version = ((const struct value *)v.data)->version;
		crew_expect(version >= floor || (deed == EXPIRED && v.freshness == SHOAL_STALE),
			    "%s, %s: version %" PRIu64 " came back after %" PRIu64, place_names[place],
			    deed_names[deed], version, floor);
	} else {
		crew_expect(r == SHOAL_MISS, "%s: get: %s", place_names[place], shoal_strerror(r));
	}
	shoal_release(&v);
}

static unsigned depth_of(enum place place)
{
	static const unsigned most[PLACES] = {60, 12, 700, 10, 12, 3000, 200, 300};

	return (unsigned)crew_below(&randomness, most[place]);
}

static bool stop_once(enum place place, enum deed deed, bool killed)
{
	pid_t pid = 0;
	uint64_t floor;
	enum stepped stopped = stop_at(place, depth_of(place), &pid);
	int r;

	if (stopped != STEP_MADE) {
		if (stopped == STEP_REFUSED)
			skipped("ptrace is refused");
		else
			crew_kill(pid);
		return false;
	}
	floor = do_deed(deed);
	use();
	look_at_its_key(place, deed, place == AT_PUBLISHING ? floor : 0);
	if (killed) {
		crew_kill(pid);
		if (crew_below(&randomness, 2))
			crew_expect(shoal_reap(cache) >= 1, "%s: nobody was found dead", place_names[place]);
	} else {
		go_on(pid);
		r = (int)w32_load(&field->result);
		crew_expect(r >= 0 || r == SHOAL_ERR_SUPERSEDED, "%s: its operation ended with %s", place_names[place],
			    shoal_strerror(r));
		crew_expect(!w32_load(&field->torn), "%s: it read a torn value", place_names[place]);
	}
	/* A set that is under way counts as later than what happened meanwhile; a load began before it. */
	look_at_its_key(place, deed, place == AT_PUBLISHING ? floor : 0);
	if (!killed)
		let_go(pid);
	use();
	return !w32_load(&crew_verdict->count);
}

/* Of each place, resumed and killed: stepping is slow. */
static unsigned turns(void)
{
	return traced_seconds() >= 60 ? 8 : 3;
}

static void stop_all_over(enum place place, uint32_t lease_ms)
{
	unsigned turn, resumed = 0, killed = 0;
	bool kill_it;

	open_cache(lease_ms);
	use();
	for (turn = 0; turn < 2 * turns(); turn++) {
		kill_it = turn % 2;
		if (!stop_once(place, lease_ms ? LOADED_ANEW :
		               (enum deed)(turn / 2 % (place == AT_PUBLISHING ? LOADED_ANEW : EXPIRED)), kill_it))
			break;
		killed += kill_it;
		resumed += !kill_it;
	}
	printf("# %s%s: %u resumed, %u killed there\n", place_names[place], lease_ms ? " past its lease" : "", resumed,
	       killed);
	close_cache();
}

static void stopped_while_reading(void **state)
{
	stop_all_over(AT_READING, 0);
}

static void stopped_in_a_head_lock(void **state)
{
	stop_all_over(AT_LOCK, 0);
}

static void stopped_in_a_copy(void **state)
{
	stop_all_over(AT_COPY, 0);
}

static void stopped_opening_an_extent(void **state)
{
	stop_all_over(AT_OPENING, 0);
}

static void stopped_sealing_an_extent(void **state)
{
	stop_all_over(AT_SEALING, 0);
}

static void stopped_while_evicting(void **state)
{
	stop_all_over(AT_EVICTING, 0);
}

static void stopped_while_claiming(void **state)
{
	stop_all_over(AT_CLAIMING, 0);
}

static void stopped_while_publishing(void **state)
{
	stop_all_over(AT_PUBLISHING, 0);
}

static void stopped_while_publishing_past_the_lease(void **state)
{
	stop_all_over(AT_PUBLISHING, 1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stopped_with_values_in_hand),
		cmocka_unit_test(stopped_while_reading),
		cmocka_unit_test(stopped_in_a_head_lock),
		cmocka_unit_test(stopped_in_a_copy),
		cmocka_unit_test(stopped_opening_an_extent),
		cmocka_unit_test(stopped_sealing_an_extent),
		cmocka_unit_test(stopped_while_evicting),
		cmocka_unit_test(stopped_while_claiming),
		cmocka_unit_test(stopped_while_publishing),
		cmocka_unit_test(stopped_while_publishing_past_the_lease),
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
