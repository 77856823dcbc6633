/* SPDX-License-Identifier: MIT */
/*
 * A trivial reference cache behind the same verbs: one random script runs on both, on a clock that is set, and after
 * each step both must say the same. Holds C.1, C.2, P.1 and F.4 for scripts of one thread: what set, delete, expire,
 * begin, publish, fail, cancel and the clock do to each other.
 *
 *   roomy   nothing is evicted: outcome, value, freshness and age agree exactly
 *   tight   entries are evicted: a value may be missing, but is never another one nor past its bound
 *
 * The reference knows nothing of flights' slots, extents and buckets: a key has a value or none, and the loads that
 * run for it. SHOAL_TEST_SEED repeats one seed.
 */
#include "testing.h"

enum { KEYS = 40, LOADS = 24 };

static const struct shoal_policy policies[] = {
	{.fresh_ms = 400, .stale_ms = 300, .error_ms = 200, .retry_ms = 100, .lease_ms = 600,
	 .jitter_permille = SHOAL_NONE, .early = -1},
	{.fresh_ms = 400, .retry_ms = 100, .lease_ms = 600, .jitter_permille = SHOAL_NONE, .early = -1},
	{.fresh_ms = SHOAL_FOREVER, .stale_ms = 500, .retry_ms = 100, .lease_ms = 600, .jitter_permille = SHOAL_NONE,
	 .early = -1},
	{.fresh_ms = SHOAL_NONE, .stale_ms = SHOAL_FOREVER, .retry_ms = 100, .lease_ms = 600,
	 .jitter_permille = SHOAL_NONE, .early = -1},
};

/* ---- the reference ----------------------------------------------------------------------------------------- */

#define EVER UINT64_MAX

struct model_value {
	bool there;
	uint64_t number; /* what its bytes are made of */
	size_t size;
	uint64_t order;  /* when its writer began: a later one wins */
	uint64_t born, fresh_end, stale_end, error_end;
};

struct model_load {
	bool open, live;     /* has a handle; may still publish */
	int key;
	uint64_t order, lease_end;
	bool overdue;
	struct shoal_load *load;
};

struct model {
	uint64_t seed;
	struct place p;
	struct shoal_keyspace *k[COUNT(policies)];
	bool tight;
	uint64_t now, order, numbers;
	struct model_value values[KEYS];
	struct model_load loads[LOADS];
	uint64_t hits, lost, stale, published, superseded;
};

static const struct shoal_policy *policy_of(int key)
{
	return &policies[key % (int)COUNT(policies)];
}

static uint64_t choose(uint32_t life)
{
	return life == SHOAL_NONE ? 0 : life;
}

static uint64_t later(uint64_t begin, uint64_t life)
{
	return begin == EVER || life == SHOAL_FOREVER ? EVER : begin + life;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

enum { FRESH, STALE, ERROR, GONE };

static int age_of(const struct model *m, const struct model_value *v)
{
	return !v->there             ? GONE
	       : m->now < v->fresh_end ? FRESH
	       : m->now < v->stale_end ? STALE
	       : m->now < v->error_end ? ERROR
	                               : GONE;
}

/* 0 = the policy's */
static void model_put(struct model *m, int key, uint64_t number, size_t size, uint64_t order, uint32_t fresh,
                      uint32_t stale)
{
	const struct shoal_policy *p = policy_of(key);
	struct model_value *v = &m->values[key];

	*v = (struct model_value){.there = true, .number = number, .size = size, .order = order, .born = m->now};
	v->fresh_end = later(m->now, choose(fresh ? fresh : p->fresh_ms));
	v->stale_end = later(v->fresh_end, choose(stale ? stale : p->stale_ms));
	v->error_end = later(v->stale_end, choose(p->error_ms));
}

/* Something newer than every load of the key. */
static void model_supersede(struct model *m, int key, uint64_t below)
{
	int i;

	for (i = 0; i < LOADS; i++)
		if (m->loads[i].key == key && m->loads[i].order < below)
			m->loads[i].live = false;
}

static void model_expire(struct model *m, int key)
{
	const struct shoal_policy *p = policy_of(key);
	struct model_value *v = &m->values[key];

	v->fresh_end = least(v->fresh_end, m->now);
	v->stale_end = least(v->stale_end, later(m->now, choose(p->stale_ms)));
	v->error_end = least(v->error_end, later(v->stale_end, choose(p->error_ms)));
	v->order = ++m->order;
}

/* ---- bytes ------------------------------------------------------------------------------------------------- */

static size_t key_of(int key, char text[64])
{
	size_t n = (size_t)snprintf(text, 64, "key %d", key);

	memset(text + n, 'k', 64 - n);
	return n + (size_t)key % 13;
}

static void bytes_of(uint64_t number, size_t size, char *bytes)
{
	uint64_t seed = number, word;
	size_t i;

	for (i = 0; i < size; i += 8) {
		word = draw(&seed);
		memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
	}
}

static size_t draw_size(struct model *m)
{
	uint64_t x = draw(&m->seed);

	return x % 16 == 0 ? 0 : x % 16 < 12 ? x / 16 % 100 : x / 16 % (m->tight ? 4000 : 1500);
}

/* ---- one look at a key ------------------------------------------------------------------------------------- */

static void assert_is(struct model *m, int key, const void *data, size_t size)
{
	static char bytes[8192];
	const struct model_value *v = &m->values[key];

	assert_int_equal(size, v->size);
	bytes_of(v->number, v->size, bytes);
	assert_memory_equal(data, bytes, v->size);
}

static void check_outcome(struct model *m, int key, int r)
{
	int age = age_of(m, &m->values[key]);

	if (age > STALE)
		assert_int_equal(r, SHOAL_MISS);
	else if (!m->tight)
		assert_int_equal(r, SHOAL_OK);
	else
		assert_true(r == SHOAL_OK || r == SHOAL_MISS);
	m->hits += r == SHOAL_OK;
	m->stale += r == SHOAL_OK && age == STALE;
	if (r == SHOAL_MISS && age != GONE && age != ERROR) {
		m->values[key].there = false; /* evicted, which is for good */
		m->lost++;
	}
}

static void step_get(struct model *m, int key)
{
	struct shoal_value value;
	char text[64];
	size_t n = key_of(key, text);
	int r = shoal_get(m->k[key % (int)COUNT(policies)], text, n, &value);

	check_outcome(m, key, r);
	if (r == SHOAL_OK) {
		assert_is(m, key, value.data, value.size);
		assert_int_equal(value.freshness, age_of(m, &m->values[key]) == FRESH ? SHOAL_FRESH : SHOAL_STALE);
		assert_int_equal(value.age_ms, m->now - m->values[key].born);
	}
	shoal_release(&value);
}

static void step_read(struct model *m, int key)
{
	static char buffer[8192];
	char text[64];
	size_t n = key_of(key, text), size;
	int r = shoal_read(m->k[key % (int)COUNT(policies)], text, n, buffer, sizeof(buffer), &size);

	check_outcome(m, key, r);
	if (r == SHOAL_OK)
		assert_is(m, key, buffer, size);
}

/* ---- changes ----------------------------------------------------------------------------------------------- */

static uint32_t draw_life(struct model *m)
{
	uint64_t x = draw(&m->seed);

	return x % 8 == 0 ? SHOAL_NONE : x % 8 == 1 ? SHOAL_FOREVER : x % 8 < 4 ? 0 : 1 + (uint32_t)(x / 8 % 1000);
}

static void step_set(struct model *m, int key)
{
	static char bytes[8192];
	char text[64];
	size_t n = key_of(key, text), size = draw_size(m);
	uint64_t number = ++m->numbers;
	bool ttl = draw(&m->seed) % 2;
	uint32_t fresh = ttl ? draw_life(m) : 0, stale = ttl ? draw_life(m) : 0;
	struct shoal_keyspace *k = m->k[key % (int)COUNT(policies)];

	bytes_of(number, size, bytes);
	assert_int_equal(ttl ? shoal_set_ttl(k, text, n, bytes, size, fresh, stale)
	                     : shoal_set(k, text, n, bytes, size),
	                 SHOAL_OK);
	model_put(m, key, number, size, ++m->order, fresh, stale);
	model_supersede(m, key, m->order);
}

/* What was dead already may be there or not, which only its outcome shows. */
static void check_removal(struct model *m, int key, int r)
{
	assert_true(r == SHOAL_OK || r == SHOAL_MISS);
	if (!m->values[key].there)
		assert_int_equal(r, SHOAL_MISS);
	else if (!m->tight && age_of(m, &m->values[key]) <= STALE)
		assert_int_equal(r, SHOAL_OK);
}

static void step_delete(struct model *m, int key)
{
	char text[64];
	size_t n = key_of(key, text);

	check_removal(m, key, shoal_delete(m->k[key % (int)COUNT(policies)], text, n));
	m->values[key].there = false;
	model_supersede(m, key, ++m->order);
}

static void step_expire(struct model *m, int key)
{
	char text[64];
	size_t n = key_of(key, text);

	check_removal(m, key, shoal_expire(m->k[key % (int)COUNT(policies)], text, n));
	model_supersede(m, key, ++m->order);
	if (!policy_of(key)->stale_ms)
		m->values[key].there = false;
	else if (m->values[key].there)
		model_expire(m, key);
}

/* ---- loads ------------------------------------------------------------------------------------------------- */

/* Who leads the key within its lease; flights count in steps of 4 ms. */
static bool is_led(struct model *m, int key)
{
	int i;

	for (i = 0; i < LOADS; i++)
		if (m->loads[i].key == key && m->loads[i].live && !m->loads[i].overdue &&
		    m->now < m->loads[i].lease_end)
			return true;
	return false;
}

static void step_begin(struct model *m, int key)
{
	struct shoal_load *load;
	struct shoal_value value;
	char text[64];
	size_t n = key_of(key, text);
	bool led = is_led(m, key);
	int i, j, age = age_of(m, &m->values[key]), r;

	for (i = 0; i < LOADS && m->loads[i].open; i++)
		;
	if (i == LOADS)
		return;
	r = shoal_begin(m->k[key % (int)COUNT(policies)], text, n, &load, &value);
	if (m->tight && age < ERROR && !value.data) {
		m->values[key].there = false;
		m->lost++;
		age = GONE;
	}
	assert_int_equal(r, age == FRESH                  ? SHOAL_OK
	                    : led && age == STALE         ? SHOAL_OK
	                    : led                         ? SHOAL_WAIT
	                    : age == STALE                ? SHOAL_REFRESH
	                                                  : SHOAL_LEAD);
	if (value.data)
		assert_is(m, key, value.data, value.size);
	shoal_release(&value);
	if (r == SHOAL_WAIT) {
		assert_int_equal(shoal_wait(load, 0, &value), SHOAL_ERR_TIMEOUT);
		shoal_load_cancel(load);
	}
	if (r != SHOAL_REFRESH && r != SHOAL_LEAD)
		return;
	for (j = 0; j < LOADS; j++) /* it found them so */
		m->loads[j].overdue |= m->loads[j].key == key;
	m->loads[i] = (struct model_load){.open = true,
	                                  .live = true,
	                                  .key = key,
	                                  .order = ++m->order,
	                                  .lease_end = (m->now + policy_of(key)->lease_ms + 3) / 4 * 4,
	                                  .load = load};
}

static struct model_load *draw_load(struct model *m)
{
	struct model_load *l = &m->loads[draw(&m->seed) % LOADS];

	return l->open ? l : NULL;
}

static void step_publish(struct model *m, struct model_load *l)
{
	static char bytes[8192];
	size_t size = draw_size(m);
	uint64_t number = ++m->numbers;
	const struct model_value *v = &m->values[l->key];
	bool wins = l->live && (!v->there || v->order < l->order);
	int r;

	bytes_of(number, size, bytes);
	r = shoal_load_publish(l->load, bytes, size);
	/* In tight: the newer value, which an overdue leader lost to, may be evicted without our having seen it. */
	assert_int_equal(r, wins ? SHOAL_OK : SHOAL_ERR_SUPERSEDED);
	l->open = l->live = false;
	if (r) {
		m->superseded++;
		return;
	}
	m->published++;
	model_supersede(m, l->key, l->order);
	model_put(m, l->key, number, size, l->order, 0, 0);
}

static void step_renew(struct model *m, struct model_load *l)
{
	bool good = l->live && !l->overdue;

	assert_int_equal(shoal_load_renew(l->load), good ? SHOAL_OK : SHOAL_ERR_SUPERSEDED);
	if (good)
		l->lease_end = (m->now + policy_of(l->key)->lease_ms + 3) / 4 * 4;
}

static void step_cancel(struct model *m, struct model_load *l)
{
	shoal_load_cancel(l->load);
	l->open = l->live = false;
}

/* ---- scripts ----------------------------------------------------------------------------------------------- */

static void step(struct model *m)
{
	uint64_t x = draw(&m->seed);
	int key = (int)(draw(&m->seed) % KEYS);
	struct model_load *l;

	switch (x % 32) {
	case 0 ... 7:
		step_get(m, key);
		break;
	case 8 ... 10:
		step_read(m, key);
		break;
	case 11 ... 14:
		step_set(m, key);
		break;
	case 15:
		step_delete(m, key);
		break;
	case 16 ... 17:
		step_expire(m, key);
		break;
	case 18 ... 22:
		step_begin(m, key);
		break;
	case 23 ... 26:
		if ((l = draw_load(m)))
			step_publish(m, l);
		break;
	case 27:
		if ((l = draw_load(m)))
			step_renew(m, l);
		break;
	case 28:
		if ((l = draw_load(m)))
			step_cancel(m, l);
		break;
	default:
		x = 1 + draw(&m->seed) % (draw(&m->seed) % 16 ? 30 : 700);
		pass_ms(m->p.clock, x);
		m->now += x;
	}
}

static void run_script(uint64_t seed, int steps, const struct shoal_config *config, bool tight)
{
	struct model m = {.seed = seed, .tight = tight, .p = open_place(NULL, config)};
	static const char big[3000];
	char name[16];
	size_t i;
	int n, filler = 0;

	for (i = 0; i < COUNT(policies); i++) {
		snprintf(name, sizeof(name), "policy%zu", i);
		m.k[i] = keyspace(m.p.cache, name, &policies[i]);
	}
	m.now = test_clock_read(m.p.clock) / 1000000;
	for (n = 0; n < steps; n++) {
		step(&m);
		for (i = 0; tight && i < draw(&m.seed) % 16; i++) { /* somebody else's entries press */
			filler++;
			assert_int_equal(shoal_set_ttl(m.p.k, &filler, sizeof(filler), big, sizeof(big),
			                               SHOAL_FOREVER, 0), SHOAL_OK);
		}
	}
	for (i = 0; i < LOADS; i++)
		if (m.loads[i].open)
			shoal_load_cancel(m.loads[i].load);
	assert_int_equal(stats_of(m.p.cache).pins, 0);
	assert_int_equal(stats_of(m.p.cache).flights, 0);
	assert_true(m.hits > 100 && m.stale > 10 && m.published > 10 && m.superseded > 10);
	assert_int_equal(m.lost > 0, tight);
	printf("# seed %" PRIu64 ": %" PRIu64 " hits (%" PRIu64 " stale), %" PRIu64 " evicted, %" PRIu64
	       " loads published, %" PRIu64 " superseded\n",
	       seed, m.hits, m.stale, m.lost, m.published, m.superseded);
	close_place(&m.p);
}

static void run_scripts(int scripts, int steps, const struct shoal_config *config, bool tight)
{
	const char *chosen = getenv("SHOAL_TEST_SEED");
	uint64_t seeds = clock_system_ns(CLOCK_REALTIME), seed;
	int i;

	for (i = 0; i < (chosen ? 1 : scripts); i++) {
		seed = chosen ? strtoull(chosen, NULL, 0) : draw(&seeds);
		printf("# SHOAL_TEST_SEED=%" PRIu64 "\n", seed);
		fflush(stdout);
		run_script(seed, steps, config, tight);
	}
}

static void roomy(void **state)
{
	run_scripts(8, 20000, &(struct shoal_config){.size = 256 << 20, .max_flights = 4096}, false);
}

static void roomy_with_checksums(void **state)
{
	run_scripts(2, 20000, &(struct shoal_config){.size = 256 << 20, .max_flights = 4096, .flags = SHOAL_CHECKSUM},
	            false);
}

static void tight(void **state)
{
	run_scripts(8, 20000, &(struct shoal_config){.size = 1 << 20}, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(roomy),
		cmocka_unit_test(roomy_with_checksums),
		cmocka_unit_test(tight),
	};

	return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
