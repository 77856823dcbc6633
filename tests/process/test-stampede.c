/* SPDX-License-Identifier: MIT */
/*
 * One load per key, whoever asks and whoever dies.
 *
 *   cold       32 processes ask for one cold key at once: one load
 *   expired    16 ask for an expired one: one loads, the others are answered stale meanwhile
 *   takeover   a leader is killed under eight waiters, a hundred times: one of them takes over, the others wait on
 *   deleted    a load that began before a delete, set or expire never shows after it (promise 3)
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crew.h"

#define COLD 32u
#define EXPIRED 16u
#define WAITERS 8u
#define ROUNDS 100u

struct field {
	word32 ready, go, answered, leading, done, loads;
	word32 round;
	word64 clock_ns, went_ns, killed_ns, led_ns[ROUNDS + 1];
	word64 answer_ns[COLD];
	word32 stale[COLD], leaders, fresh;
};

static struct field *field;
static struct shoal *cache;
static struct shoal_keyspace *keyspace;

static uint64_t test_clock(void *arg)
{
	return crew_now() + w64_load(arg);
}

static void open_cache(const struct shoal_policy *policy)
{
	struct shoal_config config = {.size = 8 << 20, .clock = test_clock};

	crew_begin();
	field = crew_memory(sizeof(*field));
	config.clock_arg = &field->clock_ns;
	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "stampede", 1, policy, &keyspace), SHOAL_OK);
}

static void close_cache(void)
{
	shoal_close(cache);
	munmap(field, sizeof(*field));
	assert_int_equal(crew_wrongs(), 0);
}

static struct shoal_stats stats_now(void)
{
	struct shoal_stats s;

	assert_int_equal(shoal_stats(cache, &s), SHOAL_OK);
	return s;
}

static bool is_text(const struct shoal_value *v, const char *text)
{
	return v->data && v->size == strlen(text) && !memcmp(v->data, text, v->size);
}

static void start(pid_t *pids, unsigned n, void (*body)(void *))
{
	unsigned i;

	for (i = 0; i < n; i++)
		pids[i] = crew_fork(body, (void *)(uintptr_t)i);
	crew_await(&field->ready, n);
	w64_store(&field->went_ns, crew_now());
	crew_signal(&field->go);
	for (i = 0; i < n; i++)
		crew_join_well(pids[i]);
}

/* ---- cold -------------------------------------------------------------------------------------------------- */

static int load_in_50_ms(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	w32_add(&field->loads, 1);
	crew_pass_us(50000);
	return shoal_load_publish(load, "value", 5);
}

static void ask_cold(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct shoal_value v;
	int r;

	crew_signal(&field->ready);
	crew_await(&field->go, 1);
	r = shoal_fetch(keyspace, "key", 3, load_in_50_ms, NULL, &v);
	w64_store(&field->answer_ns[i], crew_now() - w64_load(&field->went_ns));
	crew_expect(r == SHOAL_OK && is_text(&v, "value"), "process %u: %s", i, shoal_strerror(r));
	shoal_release(&v);
}

static void cold_key_is_loaded_once(void **state)
{
	uint64_t last = 0;
	pid_t pids[COLD];
	unsigned i;

	open_cache(NULL);
	start(pids, COLD, ask_cold);
	for (i = 0; i < COLD; i++)
		last = max_u64(last, w64_load(&field->answer_ns[i]));
	printf("# %u processes, one cold key, 50 ms to load: last answer after %.1f ms\n", COLD, (double)last / 1e6);
	crew_expect(w32_load(&field->loads) == 1, "%u loaders ran", w32_load(&field->loads));
	crew_expect(stats_now().total.loads == 1, "%u loads counted", (unsigned)stats_now().total.loads);
	crew_expect(stats_now().flights == 0, "a flight is left");
	close_cache();
}

/* ---- expired ----------------------------------------------------------------------------------------------- */

/* Takes 400 ms, and until the others have their answers. */
static int load_slowly(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	w32_add(&field->loads, 1);
	crew_pass_us(400000);
	crew_await(&field->answered, EXPIRED - 1);
	return shoal_load_publish(load, "new", 3);
}

static void ask_expired(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct shoal_value v;
	uint64_t called;
	int r;

	crew_expect(shoal_get(keyspace, "another", 7, &v) == SHOAL_MISS, "process %u joins", i);
	crew_signal(&field->ready);
	crew_await(&field->go, 1);
	called = crew_now(); /* of its own call: sixteen wake on fewer processors */
	r = shoal_fetch(keyspace, "key", 3, load_slowly, NULL, &v);
	w64_store(&field->answer_ns[i], crew_now() - called);
	if (r == SHOAL_OK && v.freshness == SHOAL_STALE && is_text(&v, "old"))
		w32_store(&field->stale[i], 1);
	else
		crew_expect(r == SHOAL_OK && is_text(&v, "new") && v.source == SHOAL_LOADED,
		            "process %u: %s, source %d", i, shoal_strerror(r), v.source);
	shoal_release(&v);
	crew_signal(&field->answered);
}

static void expired_key_is_served_stale(void **state)
{
	struct shoal_policy policy = {
		.fresh_ms = 1000, .stale_ms = 3600000, .jitter_permille = SHOAL_NONE, .early = -1};
	uint64_t slowest = 0;
	unsigned i, stale = 0;
	pid_t pids[EXPIRED];

	open_cache(&policy);
	assert_int_equal(shoal_set(keyspace, "key", 3, "old", 3), SHOAL_OK);
	w64_store(&field->clock_ns, 2000000000);
	start(pids, EXPIRED, ask_expired);
	for (i = 0; i < EXPIRED; i++) {
		if (!w32_load(&field->stale[i]))
			continue;
		stale++;
		slowest = max_u64(slowest, w64_load(&field->answer_ns[i]));
	}
	printf("# %u processes, one expired key, 400 ms to load: %u answered stale, the slowest call took %.3f ms\n",
	       EXPIRED, stale, (double)slowest / 1e6);
	crew_expect(stale == EXPIRED - 1, "%u were answered stale", stale);
	crew_expect(w32_load(&field->loads) == 1 && stats_now().total.loads == 1, "%u loads", w32_load(&field->loads));
	close_cache();
}

/* ---- takeover ---------------------------------------------------------------------------------------------- */

static int load_for_ever(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	crew_signal(&field->leading);
	for (;;)
		pause();
	return 0;
}

static void lead_and_die(void *arg)
{
	uint32_t round = w32_load(&field->round);
	struct shoal_value v;

	shoal_fetch(keyspace, &round, sizeof(round), load_for_ever, NULL, &v);
}

static int inherit(struct shoal_load *load, const void *key, size_t size, void *arg)
{
	uint32_t round = w32_load(&field->round);

	w64_store(&field->led_ns[round], crew_now());
	w32_add(&field->loads, 1);
	return shoal_load_publish(load, key, size);
}

static void wait_each_round(void *arg)
{
	struct shoal_value v;
	uint32_t round;
	int r;

	for (round = 1; round <= ROUNDS; round++) {
		crew_await(&field->go, round);
		r = shoal_fetch(keyspace, &round, sizeof(round), inherit, NULL, &v);
		crew_expect(r == SHOAL_OK && v.size == sizeof(round) && !memcmp(v.data, &round, sizeof(round)),
			    "round %u: %s", round, shoal_strerror(r));
		shoal_release(&v);
		crew_signal(&field->done);
	}
}

/* All waiters are counted in the flight and sleep. */
static void await_sleepers(const pid_t *pids)
{
	const struct segment *s = crew_segment(cache);
	uint64_t end = crew_now() + (uint64_t)CREW_PATIENCE_MS * 1000000;
	uint32_t i, most;

	do {
		most = 0;
		for (i = 0; i < s->geometry.flights; i++)
			if (FLIGHT_STATE(w64_load(&s->flight_words[i])) == FLIGHT_COMPUTING)
				most = w32_load(&s->flights[i].waiters);
		sched_yield();
	} while (most < WAITERS && crew_now() < end);
	crew_expect(most == WAITERS, "%u wait", most);
	for (i = 0; i < WAITERS; i++)
		crew_await_state(pids[i], "S");
}

static void killed_leader_has_one_heir(void **state)
{
	struct shoal_policy policy = {.wait_ms = CREW_PATIENCE_MS, .lease_ms = CREW_PATIENCE_MS};
	struct shoal_keyspace_stats before, after = {0};
	uint64_t took[ROUNDS];
	pid_t pids[WAITERS], leader;
	uint32_t round;
	unsigned i;

	open_cache(&policy);
	for (i = 0; i < WAITERS; i++)
		pids[i] = crew_fork(wait_each_round, NULL);
	for (round = 1; round <= ROUNDS && !w32_load(&crew_verdict->count); round++) {
		before = after;
		w32_store(&field->round, round);
		leader = crew_fork(lead_and_die, NULL);
		crew_await(&field->leading, round);
		crew_signal(&field->go);
		await_sleepers(pids);
		w64_store(&field->killed_ns, crew_now());
		kill(leader, SIGKILL);
		crew_await(&field->done, round * WAITERS);
		crew_join(leader);
		took[round - 1] = w64_load(&field->led_ns[round]) - w64_load(&field->killed_ns);
		after = stats_now().total;
		crew_expect(after.loads - before.loads == 2, "round %u: %u loads", round,
		            (unsigned)(after.loads - before.loads));
		crew_expect(after.takeovers - before.takeovers == 1, "round %u: %u takeovers", round,
			    (unsigned)(after.takeovers - before.takeovers));
		crew_expect(w32_load(&field->loads) == round, "round %u: %u heirs", round, w32_load(&field->loads));
	}
	if (w32_load(&crew_verdict->count))
		for (i = 0; i < WAITERS; i++)
			crew_kill(pids[i]);
	else
		for (i = 0; i < WAITERS; i++)
			crew_join_well(pids[i]);
	crew_expect(after.timeouts == 0, "%u timed out", (unsigned)after.timeouts);
	if (!w32_load(&crew_verdict->count)) {
		qsort(took, ROUNDS, sizeof(took[0]), crew_compare);
		printf("# %u leaders killed under %u waiters: the heir leads after %.0f us (median), "
		       "%.0f us (longest)\n",
		       ROUNDS, WAITERS, (double)took[ROUNDS / 2] / 1e3, (double)took[ROUNDS - 1] / 1e3);
	}
	close_cache();
}

/* ---- deleted ----------------------------------------------------------------------------------------------- */

#define KEYS 24u
#define OPERATIONS 40000u
#define PLAYERS 6u

/* What the origin knows: a version for each key, and at which version a change of it was finished in the cache. */
struct truth {
	word64 version, gone, expired; /* of what is expired: the first version that may be fresh */
	word32 writer; /* of a set or delete: one at a time, or nobody could say which of two is newer */
};

struct play {
	struct truth keys[KEYS];
	word64 loads, sets, deletes, expires, gets, shown, superseded;
};

static struct play *play;

struct shown {
	uint64_t key, version, pattern[46];
};

static void show(struct shown *v, uint64_t key, uint64_t version)
{
	unsigned i;

	v->key = key;
	v->version = version;
	for (i = 0; i < 46; i++)
		v->pattern[i] = key ^ version << 8 ^ i;
}

static void dawdle(uint64_t *random)
{
	uint64_t n = crew_below(random, 8) ? 0 : crew_below(random, 2000);

	if (n == 1999)
		sched_yield();
	while (n--)
		spin_hint();
}

/* A key whose number is odd is never set: then nobody has to take turns, and deletes and expires race as they like. */
static bool take_turn(uint64_t key)
{
	return key % 2 || w32_cas(&play->keys[key].writer, 0, 1);
}

static void end_turn(uint64_t key)
{
	if (key % 2 == 0)
		w32_store(&play->keys[key].writer, 0);
}

static void play_load(uint64_t key, uint64_t *random)
{
	struct truth *t = &play->keys[key];
	struct shoal_load *load;
	struct shoal_value old;
	struct shown v;
	int r = shoal_begin(keyspace, &key, sizeof(key), &load, &old);

	shoal_release(&old);
	if (r == SHOAL_WAIT) {
		shoal_load_cancel(load);
	} else if (r == SHOAL_LEAD || r == SHOAL_REFRESH) {
		dawdle(random);
		show(&v, key, w64_load(&t->version));
		dawdle(random);
		r = shoal_load_publish(load, &v, sizeof(v));
		crew_expect(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED, "publish: %s", shoal_strerror(r));
		w64_add(&play->loads, 1);
		w64_add(&play->superseded, r != SHOAL_OK);
	} else {
		crew_expect(r == SHOAL_OK, "begin: %s", shoal_strerror(r));
	}
}

static void play_change(uint64_t key, uint64_t *random, unsigned what)
{
	struct truth *t = &play->keys[key];
	struct shown v;
	uint64_t version;
	int r;

	if (!take_turn(key))
		return;
	version = w64_add(&t->version, 1) + 1;
	dawdle(random);
	if (what == 0 && key % 2 == 0) {
		show(&v, key, version);
		r = shoal_set(keyspace, &key, sizeof(key), &v, sizeof(v));
		w64_add(&play->sets, 1);
	} else {
		r = shoal_delete(keyspace, &key, sizeof(key));
		w64_add(&play->deletes, 1);
	}
	crew_expect(r == SHOAL_OK || r == SHOAL_MISS, "change: %s", shoal_strerror(r));
	w64_max(&t->gone, version);
	end_turn(key);
}

/*
 * Expires race with sets and deletes: that they take no turn is the point. A set that is under way may come after the
 * expire, whatever its number; what was finished before may not.
 */
static void play_expire(uint64_t key, uint64_t *random)
{
	struct truth *t = &play->keys[key];
	uint64_t finished = w64_load(&t->gone) + 1, version = w64_add(&t->version, 1) + 1;
	int r;

	dawdle(random);
	r = shoal_expire(keyspace, &key, sizeof(key));
	crew_expect(r == SHOAL_OK || r == SHOAL_MISS, "expire: %s", shoal_strerror(r));
	w64_max(&t->expired, key % 2 ? version : finished);
	w64_add(&play->expires, 1);
}

static void play_get(uint64_t key)
{
	struct truth *t = &play->keys[key];
	uint64_t gone = w64_load(&t->gone), expired = w64_load(&t->expired);
	const struct shown *v;
	struct shoal_value got;
	struct shown whole;

	w64_add(&play->gets, 1);
	if (shoal_get(keyspace, &key, sizeof(key), &got) != SHOAL_OK)
		return;
	v = got.data;
	show(&whole, key, v->version);
	crew_expect(got.size == sizeof(whole) && !memcmp(v, &whole, sizeof(whole)), "key %" PRIu64 " is torn", key);
	crew_expect(v->version >= gone, "key %" PRIu64 ": version %" PRIu64 " shows after a delete or set at %" PRIu64,
	            key, v->version, gone);
	crew_expect(v->version >= expired || got.freshness == SHOAL_STALE,
		    "key %" PRIu64 ": version %" PRIu64 " is fresh after an expire at %" PRIu64, key, v->version,
		    expired);
	w64_add(&play->shown, 1);
	shoal_release(&got);
}

/* Other keys, to fill the segment: extents go, and with them what lies beside. */
static void play_evict(uint64_t *random)
{
	static char bulk[3000];
	uint64_t key = 1000000 + crew_below(random, 100000);
	int r = shoal_set(keyspace, &key, sizeof(key), bulk, sizeof(bulk));

	crew_expect(r == SHOAL_OK, "set: %s", shoal_strerror(r));
}

static void play_on(void *arg)
{
	uint64_t random = (uintptr_t)arg * 7919 + crew_now(), key;
	unsigned n;

	crew_signal(&field->ready);
	crew_await(&field->go, 1);
	for (n = 0; n < OPERATIONS && !w32_load(&crew_verdict->count); n++) {
		key = crew_below(&random, crew_below(&random, 2) ? 2 : KEYS);
		switch (crew_below(&random, 8)) {
		case 0:
		case 1:
			play_load(key, &random);
			break;
		case 2:
			play_change(key, &random, (unsigned)crew_below(&random, 2));
			break;
		case 3:
			play_expire(key, &random);
			break;
		case 4:
			play_evict(&random);
			break;
		default:
			play_get(key);
		}
	}
}

static void older_load_never_shows(void **state)
{
	struct shoal_policy policy = {.fresh_ms = 3600000, .stale_ms = 3600000, .retry_ms = 1, .early = -1};
	struct shoal_config config = {.size = 1 << 20};
	pid_t pids[PLAYERS];

	crew_begin();
	field = crew_memory(sizeof(*field));
	play = crew_memory(sizeof(*play));
	assert_int_equal(shoal_open(NULL, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "truth", 1, &policy, &keyspace), SHOAL_OK);
	start(pids, PLAYERS, play_on);
	printf("# %u processes: %" PRIu64 " loads (%" PRIu64 " superseded), %" PRIu64 " sets, %" PRIu64
	       " deletes, %" PRIu64 " expires, %" PRIu64 " of %" PRIu64 " gets showed a value, %" PRIu64
	       " extents evicted\n",
	       PLAYERS, w64_load(&play->loads), w64_load(&play->superseded), w64_load(&play->sets),
	       w64_load(&play->deletes), w64_load(&play->expires), w64_load(&play->shown), w64_load(&play->gets),
	       stats_now().evicted_extents);
	munmap(play, sizeof(*play));
	close_cache();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cold_key_is_loaded_once),
		cmocka_unit_test(expired_key_is_served_stale),
		cmocka_unit_test(killed_leader_has_one_heir),
		cmocka_unit_test(older_load_never_shows),
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
