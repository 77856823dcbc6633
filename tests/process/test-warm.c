/* SPDX-License-Identifier: MIT */
/*
 * Warming, on a clock that is set: it stands still but where a test moves it, so what is counted is exact.
 *
 *   W.1  a killed warmer leaves the rate as it is
 *   W.2  nobody waits for a slower one's turn
 */
#include <errno.h>
#include <math.h>

#include "testing.h"

#define MS 1000000u

struct job {
	struct place *p;
	const char *prefix;
	unsigned next, n;
	char key[32];
	/* the loader */
	unsigned loads;
	uint64_t load_ms;       /* a load takes so long ... */
	uint64_t slow, slow_ms; /* ... but these, as bits, so long */
	uint64_t fail, mute;    /* which fail with EIO, which are uncacheable */
	/* progress */
	unsigned told, waited;
	uint64_t step_ms;       /* time passes while it waits */
	bool stop;              /* when told; else never */
	struct shoal_warm_report first;
};

static int next_key(void *arg, struct shoal_slice *key)
{
	struct job *j = arg;

	if (j->next == j->n)
		return SHOAL_MISS;
	snprintf(j->key, sizeof(j->key), "%s%u", j->prefix ? j->prefix : "k", j->next++);
	*key = (struct shoal_slice){STR(j->key)};
	return SHOAL_OK;
}

static int load_key(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct job *j = arg;
	uint64_t bit = (uint64_t)1 << j->loads++ % 64;

	pass_ms(j->p->clock, j->slow & bit ? j->slow_ms : j->load_ms);
	if (j->mute & bit)
		shoal_load_uncacheable(load, 0);
	return j->fail & bit ? EIO : shoal_load_publish(load, key, key_size);
}

static int progress(const struct shoal_warm_report *so_far, void *arg)
{
	struct job *j = arg;

	if (!j->told++)
		j->first = *so_far;
	if (so_far->key.data) {
		j->waited++;
		pass_ms(j->p->clock, j->step_ms);
	}
	return j->stop || j->waited > 100000; /* in vain */
}

static struct shoal_warm_report warm(struct job *j, const struct shoal_warm *config)
{
	struct shoal_warm_report report;

	assert_int_equal(shoal_warm_keys(j->p->k, next_key, load_key, j, config, &report), SHOAL_OK);
	assert_int_equal(report.loaded + report.failed + report.fresh + report.migrated + report.skipped,
	                 report.consumed);
	return report;
}

static void check_stopped(struct shoal_warm_report report, enum shoal_warm_stop reason, uint64_t n, int line)
{
	if (report.stopped != reason || report.consumed != n)
		print_error("line %d: stopped %d after %" PRIu64 "\n", line, report.stopped, report.consumed);
	assert_int_equal(report.stopped, reason);
	assert_int_equal(report.consumed, n);
}

#define assert_stopped(report, reason, n) check_stopped(report, reason, n, __LINE__)

static const struct shoal_warm unbounded = {.per_second = INFINITY};

static int set_up(void **state)
{
	static struct place p;

	p = open_place(NULL, NULL);
	*state = &p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	assert_int_equal(stats_of(p->cache).pins, 0);
	assert_int_equal(stats_of(p->cache).flights, 0);
	assert_int_equal(stats_of(p->cache).permits_used, 0);
	close_place(p);
	return 0;
}

/* ---- which keys -------------------------------------------------------------------------------------------- */

static void loads_what_is_missing_or_stale(void **state)
{
	struct job j = {.p = *state, .n = 5};
	struct shoal_keyspace_stats counts;
	struct shoal_warm_report report;

	assert_set(j.p->k, "k2", "old");
	pass_ms(j.p->clock, 1000);
	assert_set(j.p->k, "k1", "set");
	report = warm(&j, &unbounded);
	assert_stopped(report, SHOAL_WARM_DONE, 5);
	assert_null(report.key.data);
	assert_int_equal(report.loaded, 4);
	assert_int_equal(report.fresh, 1);
	assert_int_equal(report.unstored, 0);
	assert_gives(j.p->k, "k0", "k0");
	assert_gives(j.p->k, "k1", "set");
	assert_gives(j.p->k, "k2", "k2");
	counts = counts_of(j.p->k);
	j.next = 0;
	report = warm(&j, NULL);
	assert_stopped(report, SHOAL_WARM_DONE, 5);
	assert_int_equal(report.fresh, 5);
	assert_int_equal(j.loads, 4);
	assert_int_equal(counts_of(j.p->k).loads, 4);
	assert_int_equal(counts_of(j.p->k).hits_fresh, counts.hits_fresh); /* a look is no hit */
	assert_int_equal(counts_of(j.p->k).misses, counts.misses);
}

static int frequency_of(const struct shoal_entry *entry, void *arg)
{
	*(unsigned *)arg += entry->frequency;
	return 0;
}

static void a_look_makes_nothing_hot(void **state)
{
	struct job j = {.p = *state, .n = 3};
	static const char much[2000];
	unsigned sum = 0, i;

	warm(&j, &unbounded);
	for (i = 0; i < 100; i++) /* hits don't count where is still written to */
		assert_int_equal(shoal_set(j.p->k, &i, sizeof(i), much, sizeof(much)), SHOAL_OK);
	j.next = 0;
	assert_int_equal(warm(&j, &unbounded).fresh, 3);
	assert_int_equal(shoal_scan(j.p->cache, NULL, frequency_of, &sum), SHOAL_OK);
	assert_int_equal(sum, 0);
	assert_gives(j.p->k, "k0", "k0");
	assert_int_equal(shoal_scan(j.p->cache, NULL, frequency_of, &sum), SHOAL_OK);
	assert_int_equal(sum, 1);
}

static void what_others_load_is_skipped(void **state)
{
	struct job j = {.p = *state, .n = 4};
	struct shoal_load *load, *refresh, *failed;
	struct shoal_warm_report report;
	struct shoal_value value;

	assert_set(j.p->k, "k2", "old");
	pass_ms(j.p->clock, 1000);
	assert_int_equal(shoal_begin(j.p->k, STR("k1"), &load, &value), SHOAL_LEAD);
	assert_int_equal(shoal_begin(j.p->k, STR("k2"), &refresh, &value), SHOAL_REFRESH);
	shoal_release(&value);
	assert_int_equal(shoal_begin(j.p->k, STR("k3"), &failed, &value), SHOAL_LEAD);
	assert_int_equal(shoal_load_fail(failed, EIO), SHOAL_OK);
	report = warm(&j, &unbounded);
	assert_stopped(report, SHOAL_WARM_DONE, 4);
	assert_int_equal(report.loaded, 1);
	assert_int_equal(report.skipped, 3);
	assert_int_equal(report.failed, 0);
	assert_int_equal(counts_of(j.p->k).timeouts, 0);
	assert_int_equal(shoal_load_publish(load, "x", 1), SHOAL_OK);
	assert_int_equal(shoal_load_publish(refresh, "x", 1), SHOAL_OK);
}

static void what_is_not_stored_is_told(void **state)
{
	struct job j = {.p = *state, .n = 3, .mute = 2};
	struct shoal_warm_report report = warm(&j, &unbounded);

	assert_stopped(report, SHOAL_WARM_DONE, 3);
	assert_int_equal(report.loaded, 3);
	assert_int_equal(report.unstored, 1);
	assert_misses(j.p->k, "k1");
	pass_ms(j.p->clock, 1000);
}

static void what_is_carried_over_is_not_loaded(void **state)
{
	struct job j = {.p = *state, .n = 3};
	struct shoal_keyspace *old = keyspace(j.p->cache, "old", &steady);
	struct shoal_warm_report report;

	assert_set(old, "k1", "old");
	assert_int_equal(shoal_keyspace_fallback(j.p->k, old, NULL, NULL, NULL), SHOAL_OK);
	report = warm(&j, &unbounded);
	assert_stopped(report, SHOAL_WARM_DONE, 3);
	assert_int_equal(report.migrated, 1);
	assert_int_equal(report.loaded, 2);
	assert_gives(j.p->k, "k1", "old");
}

/* Not handed to a thread that nobody bounds. */
static void refreshes_in_its_own_thread(void **state)
{
	struct job j = {.p = *state, .n = 1}, other = {.p = *state};

	assert_set(j.p->k, "k0", "old");
	pass_ms(j.p->clock, 1000);
	assert_int_equal(shoal_refresher_start(j.p->cache, 1, 1), SHOAL_OK);
	assert_int_equal(shoal_keyspace_refresher(j.p->k, load_key, NULL, NULL, &other), SHOAL_OK);
	assert_int_equal(warm(&j, &unbounded).loaded, 1);
	shoal_refresher_stop(j.p->cache);
	assert_int_equal(other.loads, 0);
	assert_gives(j.p->k, "k0", "k0");
}

/* ---- the rate ---------------------------------------------------------------------------------------------- */

static const struct shoal_warm hundred = {.per_second = 100, .progress_ms = SHOAL_NONE, .progress = progress};

static uint64_t now_ms(const struct place *p)
{
	return w64_load(&p->clock->ns) / MS;
}

static void the_rate_is_kept(void **state)
{
	struct job j = {.p = *state, .n = 50, .step_ms = 1};
	uint64_t began = now_ms(j.p);
	struct shoal_warm_report report = warm(&j, &hundred);

	assert_stopped(report, SHOAL_WARM_DONE, 50);
	assert_int_equal(now_ms(j.p) - began, (50 - 10) * 10); /* a burst of 10 at once, then one each 10 ms */
	assert_int_equal(report.elapsed_ms, 400);
	assert_int_equal(j.waited, 400);
	assert_true(report.loads_per_second > 124 && report.loads_per_second < 126);
	pass_ms(j.p->clock, 50);
	j.n = 60;
	warm(&j, &hundred); /* 5 of them at once */
	assert_int_equal(now_ms(j.p) - began, 450 + 5 * 10);
}

static void what_is_fresh_costs_nothing_of_it(void **state)
{
	struct shoal_warm one = {.per_second = 1, .progress_ms = SHOAL_NONE, .progress = progress};
	struct job j = {.p = *state, .prefix = "f", .n = 100};
	struct shoal_warm_report report;

	warm(&j, &unbounded);
	j.prefix = NULL;
	j.next = 0;
	j.n = 1;
	assert_int_equal(warm(&j, &one).loaded, 1);
	j.prefix = "f";
	j.next = 0;
	j.n = 100;
	report = warm(&j, &one);
	assert_int_equal(report.fresh, 100);
	assert_int_equal(j.waited, 0);
}

/* The turn had come when somebody else began to load the key: the next key gets it. */
static void a_turn_is_kept_for_the_next_key(void **state)
{
	struct shoal_warm one = {.per_second = 1, .progress_ms = SHOAL_NONE, .progress = progress};
	struct job j = {.p = *state, .n = 2};
	struct shoal_load *load;
	struct shoal_value value;

	assert_int_equal(shoal_begin(j.p->k, STR("k0"), &load, &value), SHOAL_LEAD);
	assert_int_equal(warm(&j, &one).loaded, 1);
	assert_int_equal(j.waited, 0);
	shoal_load_cancel(load);
}

static void as_many_begin_at_once_as_share_the_rate(void **state)
{
	struct shoal_warm slow = {.per_second = 1, .processes = 3, .progress_ms = SHOAL_NONE, .progress = progress};
	struct job j = {.p = *state, .n = 5, .step_ms = 1};
	uint64_t began = now_ms(j.p);

	warm(&j, &slow);
	assert_int_equal(now_ms(j.p) - began, 2000);
}

/* W.2 */
static void a_slower_one_holds_nobody_up(void **state)
{
	struct shoal_warm slow = {.per_second = 0.001}, fast = {.per_second = 1000, .progress_ms = SHOAL_NONE,
								.progress = progress};
	struct job j = {.p = *state, .n = 1, .step_ms = 1};
	uint64_t began;

	warm(&j, &slow);
	j.n = 51;
	began = now_ms(j.p);
	warm(&j, &fast);
	assert_int_equal(now_ms(j.p) - began, 50);
}

static void keyspaces_have_rates_of_their_own(void **state)
{
	struct job j = {.p = *state, .n = 10};
	struct place other = *j.p;
	struct job o = {.p = &other, .n = 10};

	other.k = keyspace(other.cache, "other", &steady);
	warm(&j, &hundred);
	warm(&o, &hundred);
	assert_int_equal(j.waited + o.waited, 0);
}

/* What processes warm together share. */
struct crew {
	struct place *p;
	word32 loads, waiting, ready, last;
	unsigned n;             /* keys of each */
	bool apart;             /* each has keys of its own */
	unsigned hang_at;       /* the load that never ends; 0: none */
	uint64_t began_ns;
	double per_second, burst;
};

struct member {
	struct crew *crew;
	unsigned number, next;
	char key[32];
};

static int member_next(void *arg, struct shoal_slice *key)
{
	struct member *m = arg;

	if (m->next == m->crew->n)
		return SHOAL_MISS;
	snprintf(m->key, sizeof(m->key), "%u/%u", m->crew->apart ? m->number : 0, m->next++);
	*key = (struct shoal_slice){STR(m->key)};
	return SHOAL_OK;
}

/* Counted before the clock is read: each load that is counted had its turn by then. */
static int member_load(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct crew *crew = ((struct member *)arg)->crew;
	unsigned n = w32_add(&crew->loads, 1) + 1;
	double seconds = (double)(w64_load(&crew->p->clock->ns) - crew->began_ns) / 1e9;

	must(isinf(crew->per_second) || n <= seconds * crew->per_second + crew->burst + 1e-6);
	futex_wake(&crew->loads, INT_MAX);
	while (n == crew->hang_at)
		pause();
	return shoal_load_publish(load, key, key_size);
}

static int member_progress(const struct shoal_warm_report *so_far, void *arg)
{
	if (so_far->key.data)
		post(&((struct member *)arg)->crew->waiting);
	return 0;
}

static int be_member(void *arg)
{
	struct member *m = arg;
	struct shoal_warm config = {.per_second = m->crew->per_second, .processes = 2, .progress_ms = SHOAL_NONE,
				    .progress = member_progress};
	struct shoal_warm_report report;

	must(meet(&m->crew->ready, 2));
	must(shoal_warm_keys(m->crew->p->k, member_next, member_load, m, &config, &report) == SHOAL_OK);
	must(report.stopped == SHOAL_WARM_DONE && report.consumed == m->crew->n && !report.failed);
	return 0;
}

static struct crew *new_crew(struct place *p, double per_second, unsigned n, bool apart)
{
	struct crew *crew = share(sizeof(*crew));

	crew->p = p;
	crew->began_ns = w64_load(&p->clock->ns);
	crew->per_second = per_second;
	crew->burst = fmax(2, per_second / 10);
	crew->n = n;
	crew->apart = apart;
	return crew;
}

/* The clock moves by one turn when what was due is loaded; the loader sees to it that it isn't more. */
static void processes_share_the_rate(void **state)
{
	struct crew *crew = new_crew(*state, 100, 100, true);
	struct member one = {crew, 1, 0, ""}, two = {crew, 2, 0, ""};
	pid_t a = spawn(be_member, &one), b = spawn(be_member, &two);
	unsigned due;

	for (due = 10; due < 200; due++) {
		assert_true(await(&crew->loads, due));
		assert_int_equal(w32_load(&crew->loads), due);
		pass_ms(crew->p->clock, 10);
	}
	assert_ends_well(a);
	assert_ends_well(b);
	assert_int_equal(w32_load(&crew->loads), 200);
	unshare_memory(crew, sizeof(*crew));
}

static void processes_that_warm_the_same_load_each_key_once(void **state)
{
	struct crew *crew = new_crew(*state, INFINITY, 500, false);
	struct member one = {crew, 1, 0, ""}, two = {crew, 2, 0, ""};
	pid_t a = spawn(be_member, &one), b = spawn(be_member, &two);

	assert_ends_well(a);
	assert_ends_well(b);
	assert_int_equal(w32_load(&crew->loads), 500);
	assert_int_equal(counts_of(crew->p->k).loads, 500);
	unshare_memory(crew, sizeof(*crew));
}

/* W.1: one is killed in its loader, one while it waits for its turn. */
static void the_killed_leave_the_rate(void **state)
{
	struct crew *crew = new_crew(*state, 100, 40, true);
	struct member one = {crew, 1, 0, ""}, two = {crew, 2, 0, ""};
	struct job j = {.p = *state, .n = 20, .step_ms = 1};
	uint64_t began;
	pid_t a, b;

	crew->hang_at = 5;
	a = spawn(be_member, &one);
	b = spawn(be_member, &two);
	assert_true(await(&crew->loads, 10)); /* the burst */
	assert_true(await(&crew->waiting, 3));
	kill_child(a);
	kill_child(b);
	assert_int_equal(w32_load(&crew->loads), 10);
	began = now_ms(j.p);
	assert_stopped(warm(&j, &hundred), SHOAL_WARM_DONE, 20);
	assert_int_equal(now_ms(j.p) - began, 20 * 10);
	assert_int_equal(shoal_reap(j.p->cache), 2);
	unshare_memory(crew, sizeof(*crew));
}

/* Another warms just when this one reads the clock. */
struct meeting {
	struct test_clock time;
	struct place p;
	word32 go, done, loads;
	unsigned calls_left; /* till it happens */
};

static uint64_t interrupted_clock(void *arg)
{
	struct meeting *m = arg;
	bool fires = m->calls_left && !--m->calls_left;

	if (fires) {
		post(&m->go);
		await(&m->done, 1);
	}
	return test_clock_read(&m->time);
}

static int warm_one(struct meeting *m, const char *key)
{
	struct shoal_warm one = {.per_second = 1, .progress_ms = SHOAL_NONE, .progress = progress};
	struct job j = {.p = &m->p, .prefix = key, .n = 1, .stop = true};
	struct shoal_warm_report report;

	if (shoal_warm_keys(m->p.k, next_key, load_key, &j, &one, &report))
		return -1;
	w32_add(&m->loads, j.loads);
	return 0;
}

static int warm_when_told(void *arg)
{
	struct meeting *m = arg;

	must(await(&m->go, 1));
	must(!warm_one(m, "there"));
	post(&m->done);
	return 0;
}

static void a_turn_is_had_once(void **state)
{
	struct meeting *m = share(sizeof(*m));
	struct shoal_config config = {.size = 2 << 20, .clock = interrupted_clock, .clock_arg = m};
	unsigned call, early = 0;
	pid_t pid;

	for (call = 1; call <= 12; call++) {
		memset((void *)m, 0, sizeof(*m));
		m->p.clock = &m->time;
		w64_store(&m->time.ns, SECOND_NS);
		assert_int_equal(shoal_open(NULL, &config, &m->p.cache), SHOAL_OK);
		m->p.k = keyspace(m->p.cache, "test", &steady);
		pid = spawn(warm_when_told, m);
		m->calls_left = call;
		assert_int_equal(warm_one(m, "here"), 0);
		early += w32_load(&m->done);
		m->calls_left = 0;
		post(&m->go);
		assert_ends_well(pid);
		assert_int_equal(w32_load(&m->loads), 1);
		shoal_close(m->p.cache);
	}
	assert_true(early >= 3); /* it did happen */
	unshare_memory(m, sizeof(*m));
}

/* By the system's clock it sleeps. */
static void the_rate_is_kept_in_real_time(void **state)
{
	struct shoal_warm fast = {.per_second = 2000};
	struct job j = {.p = *state, .n = 240};
	struct place real = {.clock = j.p->clock};
	uint64_t began;

	assert_int_equal(shoal_open(NULL, &(struct shoal_config){.size = 2 << 20}, &real.cache), SHOAL_OK);
	real.k = keyspace(real.cache, "test", NULL);
	j.p = &real;
	began = clock_system_ns(CLOCK_MONOTONIC);
	assert_stopped(warm(&j, &fast), SHOAL_WARM_DONE, 240);
	assert_true(clock_system_ns(CLOCK_MONOTONIC) - began >= 20 * MS); /* 40 more than the burst */
	shoal_close(real.cache);
}

/* ---- stops ------------------------------------------------------------------------------------------------- */

static void slow_loads_stop_it(void **state)
{
	struct shoal_warm config = {.per_second = INFINITY, .stop_load_ms = 50};
	struct job j = {.p = *state, .n = 10, .load_ms = 1, .slow = 1 << 2 | 1 << 5, .slow_ms = 60};
	struct shoal_warm_report report = warm(&j, &config);
	unsigned i;
	char key[16];

	assert_stopped(report, SHOAL_WARM_SLOW, 6);
	assert_true(report.slowest_ms > 59 && report.slowest_ms < 61);
	assert_null(report.key.data);
	assert_int_equal(report.loaded, 6);
	j.next = (unsigned)report.consumed; /* so it is resumed */
	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 4);
	for (i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_gives(j.p->k, key, key);
	}
	assert_int_equal(j.loads, 10);
}

static void one_slow_load_in_32_is_borne(void **state)
{
	struct shoal_warm config = {.per_second = INFINITY, .stop_load_ms = 50};
	struct job j = {.p = *state, .n = 64, .slow = 1 | (uint64_t)1 << 32, .slow_ms = 51};

	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 64);
	j = (struct job){.p = *state, .prefix = "l", .n = 64, .slow = 1 | (uint64_t)1 << 31, .slow_ms = 51};
	assert_stopped(warm(&j, &config), SHOAL_WARM_SLOW, 32);
	j = (struct job){.p = *state, .prefix = "m", .n = 10, .load_ms = 50};
	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 10);
}

static void by_default_half_a_lease_is_slow(void **state)
{
	struct shoal_warm config = {.per_second = INFINITY};
	struct job j = {.p = *state, .n = 10, .load_ms = 15001};

	assert_stopped(warm(&j, &config), SHOAL_WARM_SLOW, 2);
	j.next = 0;
	config.stop_load_ms = SHOAL_NONE;
	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 10);
}

static void errors_stop_it(void **state)
{
	struct shoal_warm config = {.per_second = INFINITY};
	struct job j = {.p = *state, .n = 64, .fail = UINT64_MAX};
	struct shoal_warm_report report = warm(&j, &config);

	assert_stopped(report, SHOAL_WARM_ERRORS, 16);
	assert_int_equal(report.failed, 16);
	assert_int_equal(report.load_error, EIO);
	j = (struct job){.p = *state, .prefix = "l", .n = 64, .fail = 7 | (uint64_t)0x3f << 40}; /* 3 of 16, 6 of 32 */
	report = warm(&j, &config);
	assert_stopped(report, SHOAL_WARM_DONE, 64);
	assert_int_equal(report.failed, 9);
	j = (struct job){.p = *state, .prefix = "m", .n = 64, .fail = (uint64_t)0x7f << 40}; /* 7 of 32 */
	assert_stopped(warm(&j, &config), SHOAL_WARM_ERRORS, 47);
	config.stop_error_permille = 125;
	j = (struct job){.p = *state, .prefix = "o", .n = 20, .fail = 1 << 3 | 1 << 7}; /* 2 of 16: just that */
	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 20);
	config.stop_error_permille = SHOAL_NONE;
	j = (struct job){.p = *state, .prefix = "n", .n = 64, .fail = UINT64_MAX};
	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 64);
}

static void a_failed_refresh_is_a_failure(void **state)
{
	struct job j = {.p = *state, .n = 1, .fail = 1};
	struct shoal_warm_report report;

	assert_set(j.p->k, "k0", "old");
	pass_ms(j.p->clock, 1000);
	report = warm(&j, &unbounded);
	assert_stopped(report, SHOAL_WARM_DONE, 1);
	assert_int_equal(report.failed, 1);
	assert_gives(j.p->k, "k0", "old");
}

/* While it waits it has a key in hand, which isn't lost. */
static void the_caller_stops_it(void **state)
{
	struct job j = {.p = *state, .n = 20};
	struct shoal_warm config = hundred;
	struct shoal_warm_report report;

	j.stop = true;
	report = warm(&j, &config);
	assert_stopped(report, SHOAL_WARM_CALLER, 1);
	assert_null(report.key.data);
	config.progress_ms = 1;
	j.stop = false;
	warm(&(struct job){.p = j.p, .prefix = "l", .n = 9}, &hundred); /* the rest of the burst */
	pass_ms(j.p->clock, 5);
	config.progress_ms = SHOAL_NONE;
	j.stop = true;
	report = warm(&j, &config);
	assert_stopped(report, SHOAL_WARM_CALLER, 0);
	assert_int_equal(report.key.size, 2);
	assert_memory_equal(report.key.data, "k1", 2);
	j.stop = false;
	j.step_ms = 1;
	j.next = 1 + (unsigned)report.consumed;
	assert_stopped(warm(&j, &config), SHOAL_WARM_DONE, 19);
	assert_int_equal(j.loads, 20);
}

static void without_a_permit_it_stops(void **state)
{
	struct shoal_policy policy = steady;
	struct place p = *(struct place *)*state;
	struct job j = {.p = &p, .n = 3};
	struct shoal_warm_report report;
	struct shoal_load *load;
	struct shoal_value value;

	policy.max_loads = 1;
	policy.wait_ms = 1;
	p.k = keyspace(p.cache, "bounded", &policy);
	assert_int_equal(shoal_begin(p.k, STR("other"), &load, &value), SHOAL_LEAD);
	report = warm(&j, &unbounded);
	assert_stopped(report, SHOAL_WARM_BUSY, 0);
	assert_memory_equal(report.key.data, "k0", 2);
	assert_int_equal(counts_of(p.k).busy, 1);
	assert_int_equal(shoal_load_publish(load, "x", 1), SHOAL_OK);
	j.next = (unsigned)report.consumed;
	report = warm(&j, &unbounded);
	assert_stopped(report, SHOAL_WARM_DONE, 3);
	assert_int_equal(report.loaded, 3);
}

static int broken_next(void *arg, struct shoal_slice *key)
{
	struct job *j = arg;
	int r = next_key(arg, key);

	return r == SHOAL_MISS ? (j->stop ? 77 : -77) : r;
}

static int empty_next(void *arg, struct shoal_slice *key)
{
	int r = next_key(arg, key);

	key->size = 0;
	return r;
}

static void errors_are_passed_up(void **state)
{
	struct job j = {.p = *state, .n = 3};
	struct shoal_warm_report report = {.consumed = 99};
	struct shoal_warm config = {.per_second = -1};
	struct shoal_keyspace *k = j.p->k;

	assert_int_equal(shoal_warm_keys(NULL, next_key, load_key, &j, NULL, &report), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_warm_keys(k, NULL, load_key, &j, NULL, &report), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_warm_keys(k, next_key, NULL, &j, NULL, &report), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_warm_keys(k, next_key, load_key, &j, NULL, NULL), SHOAL_ERR_INVALID);
	assert_int_equal(shoal_warm_keys(k, next_key, load_key, &j, &config, &report), SHOAL_ERR_INVALID);
	config.per_second = NAN;
	assert_int_equal(shoal_warm_keys(k, next_key, load_key, &j, &config, &report), SHOAL_ERR_INVALID);
	assert_int_equal(report.consumed, 99);
	assert_int_equal(shoal_warm_keys(k, broken_next, load_key, &j, NULL, &report), -77);
	assert_stopped(report, SHOAL_WARM_ABORTED, 3);
	assert_null(report.key.data);
	j.stop = true;
	assert_int_equal(shoal_warm_keys(k, broken_next, load_key, &j, NULL, &report), SHOAL_ERR_INVALID);
	j.next = 0;
	assert_int_equal(shoal_warm_keys(k, empty_next, load_key, &j, NULL, &report), SHOAL_ERR_INVALID);
	assert_stopped(report, SHOAL_WARM_ABORTED, 0);
	assert_non_null(report.key.data);
}

/* ---- what is hot ------------------------------------------------------------------------------------------- */

enum { KILOBYTE = 1024, HITS = 3, TIMES = 6 };

static int load_kilobyte(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	static const char value[KILOBYTE];

	return shoal_load_publish(load, value, sizeof(value));
}

/* Half of the room for values is a set whose keys were read three times each, none of them in an extent that is still
 * being filled: reads count in those that are full. */
static unsigned make_hot(struct place *p)
{
	static char value[KILOBYTE];
	size_t size, room = stats_of(p->cache).bytes_free / (sizeof(value) + 64);
	unsigned n, i, round;
	char key[32];

	n = (unsigned)room / 2;
	for (i = 0; i < n + room / 16; i++) {
		snprintf(key, sizeof(key), "%s%u", i < n ? "hot" : "after", i);
		assert_int_equal(shoal_set(p->k, STR(key), value, sizeof(value)), SHOAL_OK);
	}
	for (round = 0; round < HITS; round++)
		for (i = 0; i < n; i++) {
			snprintf(key, sizeof(key), "hot%u", i);
			assert_int_equal(shoal_read(p->k, STR(key), value, sizeof(value), &size), SHOAL_OK);
		}
	return n;
}

/* However many keys are warmed: they begin in probation, and push each other out. */
static void what_is_warmed_evicts_nothing_hot(void **state)
{
	struct job j = {.p = *state, .prefix = "new"};
	unsigned i, hot = make_hot(j.p), left = 0, newest = 0;
	struct shoal_warm_report report;
	struct shoal_value value;
	char key[32];

	j.n = 2 * hot * TIMES;
	assert_int_equal(shoal_warm_keys(j.p->k, next_key, load_kilobyte, &j, &unbounded, &report), SHOAL_OK);
	assert_stopped(report, SHOAL_WARM_DONE, j.n);
	assert_int_equal(report.loaded, j.n);
	assert_int_equal(report.unstored, 0);
	for (i = 0; i < hot; i++) {
		snprintf(key, sizeof(key), "hot%u", i);
		left += shoal_get(j.p->k, STR(key), &value) == SHOAL_OK;
		shoal_release(&value);
	}
	for (i = j.n - 100; i < j.n; i++) {
		snprintf(key, sizeof(key), "new%u", i);
		newest += shoal_get(j.p->k, STR(key), &value) == SHOAL_OK;
		shoal_release(&value);
	}
	printf("# %u keys warmed beside %u hot ones, which fill half of the room: %u of them are left, "
	       "and %u of the last 100\n",
	       j.n, hot, left, newest);
	assert_true(left * 100 >= hot * 95);
	assert_int_equal(newest, 100);
}

/* ---- progress ---------------------------------------------------------------------------------------------- */

static void progress_is_told(void **state)
{
	struct shoal_warm config = {.per_second = INFINITY, .progress = progress, .total = 30};
	struct job j = {.p = *state, .n = 30, .load_ms = 100, .fail = 1 << 3};
	struct shoal_warm_report report = warm(&j, &config);

	assert_stopped(report, SHOAL_WARM_DONE, 30);
	assert_int_equal(j.told, 3); /* each second */
	assert_int_equal(j.first.stopped, SHOAL_WARM_RUNNING);
	assert_int_equal(j.first.consumed, 10);
	assert_int_equal(j.first.total, 30);
	assert_int_equal(j.first.loaded, 9);
	assert_int_equal(j.first.failed, 1);
	assert_int_equal(j.first.load_error, EIO);
	assert_int_equal(j.first.elapsed_ms, 1000);
	assert_int_equal(j.first.eta_ms, 2000);
	assert_true(j.first.loads_per_second > 9.9 && j.first.loads_per_second < 10.1);
	assert_int_equal(report.eta_ms, 0);
	config.total = 0;
	config.progress_ms = 100;
	j = (struct job){.p = *state, .prefix = "l", .n = 5, .load_ms = 100};
	assert_int_equal(warm(&j, &config).eta_ms, -1);
	assert_int_equal(j.told, 5);
	assert_int_equal(j.first.eta_ms, -1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(loads_what_is_missing_or_stale),
		CASE(a_look_makes_nothing_hot),
		CASE(what_others_load_is_skipped),
		CASE(what_is_not_stored_is_told),
		CASE(what_is_carried_over_is_not_loaded),
		CASE(refreshes_in_its_own_thread),
		CASE(the_rate_is_kept),
		CASE(what_is_fresh_costs_nothing_of_it),
		CASE(a_turn_is_kept_for_the_next_key),
		CASE(as_many_begin_at_once_as_share_the_rate),
		CASE(a_slower_one_holds_nobody_up),
		CASE(keyspaces_have_rates_of_their_own),
		CASE(processes_share_the_rate),
		CASE(processes_that_warm_the_same_load_each_key_once),
		CASE(the_killed_leave_the_rate),
		cmocka_unit_test(a_turn_is_had_once),
		CASE(the_rate_is_kept_in_real_time),
		CASE(slow_loads_stop_it),
		CASE(one_slow_load_in_32_is_borne),
		CASE(by_default_half_a_lease_is_slow),
		CASE(errors_stop_it),
		CASE(a_failed_refresh_is_a_failure),
		CASE(the_caller_stops_it),
		CASE(without_a_permit_it_stops),
		CASE(errors_are_passed_up),
		CASE(what_is_warmed_evicts_nothing_hot),
		CASE(progress_is_told),
	};

	return cmocka_run_group_tests_name("warm", tests, NULL, NULL);
}
