/* SPDX-License-Identifier: MIT */
/*
 * What callers may hand in: configurations, names, policies, keys of any size, lives and codes at their edges, in any
 * order of calls. An input is a configuration, then steps: a byte that says which, and its arguments. What a call may
 * answer is what the header says; and a value that is shown is the one that was stored, within the life it was given.
 *
 *   - a name, a key's size, a configuration: INVALID if and only if the header says so
 *   - after a store: fresh_left is at most what was asked, and less by the jitter at most; stale_left likewise
 *   - at any time later: FRESH before the end of fresh, STALE before the end of stale, then nothing
 *   - after an error of a store, a delete, the end of its life: no value
 *   - in the end nothing is held, the bytes add up, and shoal_check finds no fault
 */
#include <limits.h>
#include <math.h>

#include "fuzz.h"
#include "scene.h"

enum { KEYS = 6, VALUE_MOST = 40000, STEPS = 120 };

struct input {
	const uint8_t *data;
	size_t left;
};

/* What the cache may show of a key. */
struct known {
	bool unsure;  /* which of two it is that is there */
	bool expired; /* after 49 days its age is cut to fit */
	bool stored, there; /* to be shown; perhaps in the index, for error_ms or dead */
	size_t size;
	unsigned char seed;
	uint64_t born, fresh_end, stale_end; /* ms; UINT64_MAX: never */
};

static struct {
	struct shoal *cache;
	struct shoal_keyspace *k;
	struct shoal_policy policy; /* resolved */
	struct known known[KEYS];
	uint64_t now_ns;
	size_t max_entry;
	char name[64];
	uint32_t version;
} w;

static unsigned char value_bytes[VALUE_MOST + 256], key_bytes[KEYS][65536];

static struct input whole;

static void unexpected(int line, const char *what)
{
	size_t i;

	fprintf(stderr, "%s:%d: %s\ninput:", __FILE__, line, what);
	for (i = 0; i < whole.left; i++)
		fprintf(stderr, " %02x", whole.data[i]);
	fprintf(stderr, "\n");
	abort();
}

#define EXPECT(condition) ((condition) ? (void)0 : unexpected(__LINE__, #condition))

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes-- && in->left) {
		value = value << 8 | *in->data++;
		in->left--;
	}
	return value;
}

/* One of a table, or any number. */
static uint64_t pick(struct input *in, const uint64_t *edges, size_t n)
{
	uint64_t i = take(in, 1);

	return i % (n + 1) < n ? edges[i % (n + 1)] : take(in, 4);
}
#define PICK(in, ...)                                                                                                  \
	pick(in, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static uint64_t now_ms(void)
{
	return w.now_ns / 1000000;
}

static uint64_t clock_now(void *arg)
{
	(void)arg;
	return w.now_ns;
}

static uint32_t take_ms(struct input *in)
{
	return (uint32_t)PICK(in, 0, 1, 2, 3, 4, 999, 1000, 60000, 1u << 30, INT32_MAX, 1u << 31, SHOAL_FOREVER - 1,
	                      SHOAL_FOREVER, SHOAL_NONE);
}

/* ---- what may be --------------------------------------------------------------------------------------------- */

static bool name_is_right(const char *name)
{
	size_t n = strlen(name);

	return n >= 1 && n <= 63 &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static void take_name(struct input *in, char name[80])
{
	size_t i, n = take(in, 1) % 70;
	unsigned kind = n % 3; /* what may be, what may be but for a byte, anything */

	for (i = 0; i < n; i++) {
		name[i] = (char)(kind < 2 ? "aZ09._-"[take(in, 1) % 7] : (int)take(in, 1));
		if (!name[i])
			name[i] = 1;
	}
	name[n] = 0;
	if (kind == 1 && n)
		name[take(in, 1) % n] = (char)(take(in, 1) | 1);
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value == SHOAL_NONE ? 0 : value ? value : otherwise;
}

static uint64_t plus(uint64_t at, uint64_t ms)
{
	return at == UINT64_MAX || ms == SHOAL_FOREVER ? UINT64_MAX : at + ms;
}

static int64_t left_till(uint64_t end)
{
	return end == UINT64_MAX ? INT64_MAX : (int64_t)(end - now_ms());
}

static const unsigned char *bytes_of(unsigned char seed)
{
	return value_bytes + seed;
}

/* ---- what is -------------------------------------------------------------------------------------------------- */

struct search {
	unsigned key;
	size_t key_size;
	bool found;
	struct shoal_entry entry;
};

static int on_entry(const struct shoal_entry *e, void *arg)
{
	struct search *s = arg;

	EXPECT(name_is_right(e->keyspace));
	EXPECT(e->key.size >= 1 && e->key.size <= 65535);
	EXPECT(e->frequency <= 3 && e->stale_left_ms >= e->fresh_left_ms);
	if (!strcmp(e->keyspace, w.name) && e->version == w.version && e->key.size == s->key_size &&
	    !memcmp(e->key.data, key_bytes[s->key], s->key_size)) {
		EXPECT(!s->found);
		s->found = true;
		s->entry = *e;
	}
	return 0;
}

/* Just stored, with these lives. */
static void look_at_life(unsigned key, size_t key_size, uint32_t fresh_ms, uint32_t stale_ms)
{
	struct search s = {.key = key, .key_size = key_size};
	struct known *n = &w.known[key];
	uint64_t fresh = or_default(fresh_ms, w.policy.fresh_ms), stale = or_default(stale_ms, w.policy.stale_ms);
	uint64_t jitter = min_u64(w.policy.jitter_permille, 1000), left;

	if (fresh_ms == 0)
		fresh = w.policy.fresh_ms;
	if (stale_ms == 0)
		stale = w.policy.stale_ms;
	EXPECT(shoal_scan(w.cache, w.name, on_entry, &s) == SHOAL_OK);
	if (!s.found) { /* it has no life, or was evicted since */
		n->stored = false;
		return;
	}
	EXPECT(s.entry.age_ms == 0 && s.entry.size == n->size);
	if (fresh == SHOAL_FOREVER) {
		EXPECT(s.entry.fresh_left_ms == INT64_MAX);
		n->fresh_end = UINT64_MAX;
	} else {
		left = s.entry.fresh_left_ms < 0 ? 0 : (uint64_t)s.entry.fresh_left_ms; /* negative: never was */
		EXPECT(left <= fresh && left >= fresh - fresh * jitter / 1000);
		n->fresh_end = now_ms() + left;
	}
	n->born = now_ms();
	n->stale_end = plus(n->fresh_end, stale);
	EXPECT(s.entry.stale_left_ms == left_till(n->stale_end));
}

static void look_at_value(unsigned key, const void *data, size_t size)
{
	const struct known *n = &w.known[key];

	EXPECT(n->unsure || (n->there && size == n->size && (!size || !memcmp(data, bytes_of(n->seed), size))));
}

static void look_at_shown(unsigned key, const struct shoal_value *v)
{
	const struct known *n = &w.known[key];

	EXPECT(v->data && (uintptr_t)v->data % 8 == 0);
	look_at_value(key, v->data, v->size);
	EXPECT(n->stored && now_ms() < n->stale_end);
	EXPECT((v->freshness == SHOAL_FRESH) == (now_ms() < n->fresh_end));
	EXPECT(n->expired ? v->age_ms <= now_ms() - n->born : v->age_ms == now_ms() - n->born);
}

static bool key_is_right(size_t size)
{
	return size >= 1 && size <= 65535;
}

/* ---- calls ---------------------------------------------------------------------------------------------------- */

/* One size for each key of this input, mostly: another size is another key, of which nothing is known. */
static size_t size_of_key(unsigned key)
{
	static const size_t sizes[KEYS] = {1, 7, 8, 63, 4000, 65535};

	return sizes[key];
}

static size_t take_size(struct input *in)
{
	return (size_t)PICK(in, 0, 1, 7, 8, 9, 511, 512, 513, 4096, 16384, w.max_entry - 1, w.max_entry,
	                    w.max_entry + 1, VALUE_MOST) % (VALUE_MOST + 1);
}

static void store_is(unsigned key, int r, size_t size, unsigned char seed, uint32_t fresh_ms, uint32_t stale_ms)
{
	struct known *n = &w.known[key];

	n->stored = n->there = r == SHOAL_OK;
	n->unsure = n->expired = false;
	n->size = size;
	n->seed = seed;
	if (n->stored)
		look_at_life(key, size_of_key(key), fresh_ms, stale_ms);
}

static void do_set(struct input *in, unsigned key)
{
	size_t size = take_size(in);
	unsigned char seed = (unsigned char)take(in, 1);
	uint32_t fresh = take_ms(in), stale = take_ms(in);
	int r = shoal_set_ttl(w.k, key_bytes[key], size_of_key(key), bytes_of(seed), size, fresh, stale);

	EXPECT(r == SHOAL_OK || r == SHOAL_ERR_TOO_BIG || r == SHOAL_ERR_NO_SPACE);
	EXPECT(r != SHOAL_ERR_TOO_BIG || size_of_key(key) + size > w.max_entry);
	/* compressed it may fit */
	EXPECT(r == SHOAL_ERR_TOO_BIG || size_of_key(key) + size <= w.max_entry || w.policy.flags);
	store_is(key, r, size, seed, fresh, stale);
}

static void do_get(unsigned key)
{
	struct shoal_value v;
	int r = shoal_get(w.k, key_bytes[key], size_of_key(key), &v);

	EXPECT(r == SHOAL_OK || r == SHOAL_MISS);
	if (!r)
		look_at_shown(key, &v);
	else
		EXPECT(!v.data && !v.size);
	shoal_release(&v);
	shoal_release(&v);
}

static void do_read(struct input *in, unsigned key)
{
	static unsigned char buffer[VALUE_MOST];
	size_t size = 12345, capacity = take_size(in);
	int r = shoal_read(w.k, key_bytes[key], size_of_key(key), buffer, capacity, &size);

	EXPECT(r == SHOAL_OK || r == SHOAL_MISS ||
	       (r == SHOAL_ERR_TOO_BIG && size > capacity && w.known[key].size == size));
	if (!r) {
		look_at_value(key, buffer, size);
		EXPECT(w.known[key].stored && now_ms() < w.known[key].stale_end);
	}
}

static void do_expire(unsigned key)
{
	struct known *n = &w.known[key];
	int r = shoal_expire(w.k, key_bytes[key], size_of_key(key));

	EXPECT(r == SHOAL_OK || r == SHOAL_MISS);
	EXPECT(r == SHOAL_MISS || n->there);
	n->expired = true;
	n->fresh_end = min_u64(n->fresh_end, now_ms());
	n->stale_end = min_u64(n->stale_end, plus(now_ms(), w.policy.stale_ms));
}

static void do_delete(unsigned key)
{
	int r = shoal_delete(w.k, key_bytes[key], size_of_key(key));

	EXPECT(r == SHOAL_MISS || (r == SHOAL_OK && w.known[key].there));
	w.known[key].stored = w.known[key].there = false;
}

static void do_keyspace(struct input *in)
{
	struct shoal_keyspace *k = NULL;
	struct shoal_policy p = {0};
	char name[80];
	uint32_t version = (uint32_t)PICK(in, 0, 1, UINT32_MAX);
	int r;

	take_name(in, name);
	p.fresh_ms = take_ms(in);
	p.stale_ms = take_ms(in);
	p.error_ms = take_ms(in);
	p.retry_ms = take_ms(in);
	p.wait_ms = 1 + (uint32_t)take(in, 1) % 3;
	p.lease_ms = take_ms(in);
	p.schema = (uint32_t)take(in, 1) % 2;
	p.max_loads = (uint32_t)PICK(in, 0, 1, UINT32_MAX);
	p.jitter_permille = (uint32_t)PICK(in, 0, 1, 999, 1000, 1001, UINT32_MAX - 1, UINT32_MAX);
	p.early = (float[]){0, -1, 1e30f, -1e30f, INFINITY, NAN, 1e-30f, 1}[take(in, 1) % 8];
	p.flags = (unsigned)take(in, 1) % 4;
	r = shoal_keyspace_open(w.cache, name, version, &p, &k);
	EXPECT((r == SHOAL_ERR_INVALID) == !name_is_right(name));
	EXPECT(r == SHOAL_OK || r == SHOAL_ERR_INVALID || (r == SHOAL_ERR_LIMIT && w.k));
	EXPECT(!k == (r != SHOAL_OK));
	if (r)
		return;
	p.fresh_ms = or_default(p.fresh_ms, 60000);
	p.stale_ms = or_default(p.stale_ms, 0);
	p.jitter_permille = or_default(p.jitter_permille, 50);
	w.k = k;
	w.policy = p;
	w.version = version;
	snprintf(w.name, sizeof(w.name), "%s", name);
	shoal_keyspace_delete(k); /* of what is there by that name nothing is known */
	memset(w.known, 0, sizeof(w.known));
	for (unsigned i = 0; i < KEYS; i++)
		w.known[i].there = true;
}

static void do_keyspace_all(unsigned how)
{
	unsigned i;

	EXPECT((how ? shoal_keyspace_delete(w.k) : shoal_keyspace_expire(w.k)) == SHOAL_OK);
	for (i = 0; i < KEYS; i++) {
		w.known[i].stored &= !how;
		w.known[i].fresh_end = min_u64(w.known[i].fresh_end, now_ms());
		w.known[i].stale_end = min_u64(w.known[i].stale_end, plus(now_ms(), w.policy.stale_ms));
	}
}

/* Sizes that are none, and arguments that are missing. */
static void do_wrong(struct input *in)
{
	size_t size = (size_t)PICK(in, 0, 65536, SIZE_MAX, SIZE_MAX / 2, UINT32_MAX, (uint64_t)UINT32_MAX + 2);
	struct shoal_value v = {0};
	struct shoal_slice slice = {key_bytes[0], size};
	struct shoal_load *load = NULL;
	int outcome = 0;
	size_t n;

	if (key_is_right(size))
		size = 0;
	slice.size = size;
	EXPECT(shoal_get(w.k, key_bytes[0], size, &v) == SHOAL_ERR_INVALID);
	EXPECT(shoal_read(w.k, key_bytes[0], size, &v, 1, &n) == SHOAL_ERR_INVALID);
	EXPECT(shoal_set(w.k, key_bytes[0], size, "x", 1) == SHOAL_ERR_INVALID);
	EXPECT(shoal_expire(w.k, key_bytes[0], size) == SHOAL_ERR_INVALID);
	EXPECT(shoal_delete(w.k, key_bytes[0], size) == SHOAL_ERR_INVALID);
	EXPECT(shoal_begin(w.k, key_bytes[0], size, &load, &v) == SHOAL_ERR_INVALID && !load);
	EXPECT(shoal_get_many(w.k, &slice, 1, &v, &outcome) == SHOAL_OK && outcome == SHOAL_ERR_INVALID);
	EXPECT(shoal_get(NULL, "x", 1, &v) == SHOAL_ERR_INVALID && shoal_get(w.k, NULL, 1, &v) == SHOAL_ERR_INVALID);
	EXPECT(shoal_set(w.k, "x", 1, NULL, 1) == SHOAL_ERR_INVALID &&
	       shoal_set(w.k, NULL, 1, "x", 1) == SHOAL_ERR_INVALID);
	EXPECT(shoal_set(w.k, "x", 1, "x", SIZE_MAX - take(in, 1)) == SHOAL_ERR_TOO_BIG);
	EXPECT(shoal_scan(NULL, NULL, on_entry, NULL) == SHOAL_ERR_INVALID && shoal_reap(NULL) == SHOAL_ERR_INVALID);
	EXPECT(shoal_wait(NULL, 0, &v) == SHOAL_ERR_INVALID && shoal_load_fail(NULL, 1) == SHOAL_ERR_INVALID);
	EXPECT(shoal_load_publish(NULL, "x", 1) == SHOAL_ERR_INVALID && shoal_load_renew(NULL) == SHOAL_ERR_INVALID);
	EXPECT(!shoal_load_reserve(NULL, 1) && !shoal_load_previous(NULL));
	EXPECT(shoal_keyspace_open(w.cache, NULL, 1, NULL, &w.k) == SHOAL_ERR_INVALID);
	shoal_load_cancel(NULL);
	shoal_release(NULL);
	shoal_close(NULL);
	EXPECT(shoal_strerror((int)take(in, 4)) != NULL);
}

/* A segment's name: nothing is made, and what has no '/' is one or INVALID. */
static void do_name(struct input *in)
{
	struct shoal *other = NULL;
	char name[80];
	int r;

	take_name(in, name);
	if (strchr(name, '/'))
		return;
	r = shoal_open(name, &(struct shoal_config){.flags = SHOAL_ATTACH}, &other);
	EXPECT(r == (name_is_right(name) && name[0] != '.' ? SHOAL_ERR_NOT_FOUND : SHOAL_ERR_INVALID) && !other);
	EXPECT(shoal_unlink(name) == r);
}

/* ---- loads ---------------------------------------------------------------------------------------------------- */

struct run {
	struct input *in;
	size_t size;
	unsigned char seed;
	uint32_t fresh, stale;
	int code;
	bool ran, published, uncacheable;
};

/* The end of a load, whatever it is. Inside a fetch `own` is false: what can't be stored is no error there. */
static int end_load(struct run *run, struct shoal_load *l, bool own)
{
	struct input *in = run->in;
	unsigned how = (unsigned)take(in, 1) % 12;
	size_t reserved;
	char *space;
	int r;

	run->ran = true;
	run->size = take_size(in);
	run->seed = (unsigned char)take(in, 1);
	if (take(in, 1) % 2) {
		run->fresh = take_ms(in);
		run->stale = take_ms(in);
		shoal_load_ttl(l, run->fresh, run->stale);
	}
	if (take(in, 1) % 8 == 0) {
		run->uncacheable = true;
		shoal_load_uncacheable(l, take_ms(in));
	}
	if (take(in, 1) % 4 == 0) {
		r = shoal_load_renew(l);
		EXPECT(r == SHOAL_OK || r == SHOAL_ERR_SUPERSEDED || r == SHOAL_ERR_INVALID); /* it has no flight */
	}
	switch (how) {
	case 0:
		run->code = (int)PICK(in, 1, INT_MAX, (uint32_t)INT_MIN, (uint32_t)-1, 0, 11);
		return own ? shoal_load_fail(l, run->code) : run->code;
	case 1:
		if (!own)
			return 0; /* without a word */
		shoal_load_cancel(l);
		run->uncacheable = true;
		return SHOAL_OK;
	case 2:
	case 3:
		reserved = take_size(in);
		space = shoal_load_reserve(l, reserved);
		if (space && how == 3) {
			reserved = reserved > run->size ? reserved : run->size;
			space = shoal_load_reserve(l, reserved);
		}
		if (!space || run->size > reserved) {
			if (own)
				shoal_load_cancel(l);
			run->uncacheable = true;
			run->code = 77;
			return own ? SHOAL_OK : 77;
		}
		memcpy(space, bytes_of(run->seed), run->size);
		run->published = true;
		return shoal_load_commit(l, run->size);
	default:
		run->published = true;
		return shoal_load_publish(l, bytes_of(run->seed), run->size);
	}
}

static int loader(struct shoal_load *l, const void *key, size_t size, void *arg)
{
	int r = end_load(arg, l, false);
	struct run *run = arg;

	EXPECT(key_is_right(size) && key);
	EXPECT(!run->published || r == SHOAL_OK);
	return r;
}

/* What a load left of the key: its value, of that generation or a later one; or the older one, if the new one could not
 * be stored; or none. */
static void after_load(unsigned key, const struct run *run, uint64_t generation)
{
	struct known *n = &w.known[key];
	struct shoal_value v;

	if (!run->published)
		return;
	if (shoal_get(w.k, key_bytes[key], size_of_key(key), &v) == SHOAL_OK && generation &&
	    v.generation >= generation) {
		*n = (struct known){.stored = true, .there = true, .size = run->size, .seed = run->seed};
		look_at_life(key, size_of_key(key), run->fresh, run->stale);
	} else if (v.data) {
		look_at_shown(key, &v);
	} else {
		n->stored = false;
		n->unsure = n->there = true;
	}
	shoal_release(&v);
}

static void do_fetch(struct input *in, unsigned key)
{
	struct run run = {.in = in};
	struct shoal_value v;
	int r = shoal_fetch(w.k, key_bytes[key], size_of_key(key), loader, &run, &v);

	EXPECT(r == SHOAL_OK || r == SHOAL_ERR_LOAD || r == SHOAL_ERR_BUSY || r == SHOAL_ERR_TIMEOUT);
	if (run.ran && run.published) {
		EXPECT(r == SHOAL_OK && v.size == run.size && !memcmp(v.data, bytes_of(run.seed), v.size) &&
		       v.source == SHOAL_LOADED);
		after_load(key, &run, run.uncacheable ? 0 : v.generation);
	} else if (r == SHOAL_OK) { /* fresh, or a stale one; within error_ms, too, if the load failed */
		look_at_value(key, v.data, v.size);
		EXPECT(!run.ran || v.load_error == run.code);
		EXPECT(v.freshness == SHOAL_STALE || now_ms() < w.known[key].fresh_end);
	} else if (run.ran) {
		EXPECT(r == SHOAL_ERR_LOAD && v.load_error == run.code);
	}
	shoal_release(&v);
}

static void do_steps(struct input *in, unsigned key)
{
	struct run run = {.in = in};
	struct shoal_load *l, *second;
	struct shoal_value v, other;
	uint64_t before = 0;
	int r = shoal_begin(w.k, key_bytes[key], size_of_key(key), &l, &v);

	EXPECT(!l == (r == SHOAL_OK || r < 0));
	if (r == SHOAL_OK || r == SHOAL_REFRESH)
		look_at_value(key, v.data, v.size);
	else
		EXPECT(!v.data);
	before = v.data ? v.generation : 0;
	shoal_release(&v);
	if (r != SHOAL_LEAD && r != SHOAL_REFRESH) {
		EXPECT(r == SHOAL_OK || r == SHOAL_ERR_LOAD);
		return;
	}
	if (take(in, 1) % 4 == 0) { /* once more, beside it */
		r = shoal_begin(w.k, key_bytes[key], size_of_key(key), &second, &other);
		shoal_release(&other);
		if (r == SHOAL_WAIT) {
			r = shoal_wait(second, (uint32_t)take(in, 1) % 2, &other);
			EXPECT((r == SHOAL_ERR_TIMEOUT || r == SHOAL_ERR_BUSY || r == SHOAL_LEAD) && !other.data);
		}
		shoal_load_cancel(second);
	}
	r = end_load(&run, l, true);
	EXPECT(r == SHOAL_OK || r == SHOAL_ERR_TOO_BIG || r == SHOAL_ERR_NO_SPACE || r == SHOAL_ERR_SUPERSEDED ||
	       r == SHOAL_ERR_LIMIT);
	after_load(key, &run, r || run.uncacheable ? 0 : before + 1);
}

/* ---- an input ------------------------------------------------------------------------------------------------- */

static void step(struct input *in)
{
	unsigned what = (unsigned)take(in, 1), key = what / 16 % KEYS;
	uint64_t ms;

	switch (what % 16) {
	case 0:
	case 1:
		do_set(in, key);
		break;
	case 2:
	case 3:
		do_get(key);
		break;
	case 4:
		do_read(in, key);
		break;
	case 5:
		do_expire(key);
		break;
	case 6:
		do_delete(key);
		break;
	case 7:
		do_keyspace(in);
		break;
	case 8:
		do_keyspace_all(key % 2);
		break;
	case 9:
		do_wrong(in);
		break;
	case 10:
		do_name(in);
		break;
	case 11:
	case 12:
		do_fetch(in, key);
		break;
	case 13:
		do_steps(in, key);
		break;
	default: /* time, up to two years of it */
		ms = PICK(in, 1, 2, 3, 4, 999, 1000, 59999, 60000, 1u << 30, INT32_MAX, UINT32_MAX);
		if (now_ms() + ms < UINT64_C(1) << 36)
			w.now_ns += ms * 1000000;
	}
}

static bool config_is_right(const struct shoal_config *c)
{
	size_t size = c->size > SIZE_MAX - 4095 ? 0 : (c->size + 4095) & ~(size_t)4095;

	return size >= 1 << 20 && size <= (size_t)1 << 47 && c->max_entry <= size / 64 &&
	       !(c->flags & SHOAL_ATTACH);
}

/* Sizes that can be had, or that are none: what lies between would take the machine's memory. */
static int open_cache(struct input *in)
{
	struct shoal_config c = {.clock = clock_now};
	bool plain = take(in, 1) % 4;
	int r;

	c.size = (size_t[]){1 << 20, 1 << 20, (1 << 20) + 1, 2 << 20,
	                    (1 << 20) - 1, 1, SIZE_MAX, ((size_t)1 << 47) + 1}[take(in, 1) % (plain ? 4 : 8)];
	if (!plain) {
		c.max_entry = (size_t)PICK(in, 0, 1, 7, 100, 4096, c.size / 64, c.size / 64 + 1, SIZE_MAX, UINT32_MAX);
		c.mean_entry = (size_t)PICK(in, 0, 1, 16, 512, c.size, c.size + 1, SIZE_MAX);
		c.max_processes = (unsigned)PICK(in, 0, 1, 8, 65535, 65536, UINT_MAX);
		c.max_threads = (unsigned)PICK(in, 0, 1, 12, 65535, 65536, UINT_MAX);
		c.max_flights = (unsigned)PICK(in, 0, 1, 24, UINT_MAX);
		c.max_keyspaces = (unsigned)PICK(in, 0, 1, 4, 65535, 65536, UINT_MAX);
		c.max_loads = (unsigned)PICK(in, 0, 1, 2, UINT_MAX);
		c.max_size = (size_t)PICK(in, 0, 1, c.size, 8 << 20, SIZE_MAX, (uint64_t)1 << 47, SIZE_MAX - 4096);
		c.mode = (mode_t)PICK(in, 0, 0600, 0666, 07777, UINT_MAX);
		c.extents = (unsigned)PICK(in, 0, 1, 2, 3, 64, 1000, UINT_MAX);
		c.flags = (unsigned)take(in, 1) & (SHOAL_EXCLUSIVE | SHOAL_ATTACH | SHOAL_CHECKSUM | SHOAL_FIFO);
	} else {
		c.flags = c.size & 1 || take(in, 1) % 2 ? SHOAL_CHECKSUM : 0;
	}
	r = shoal_open(NULL, &c, &w.cache);
	EXPECT(r == SHOAL_OK || r == SHOAL_ERR_INVALID || r == SHOAL_ERR_SYSTEM);
	EXPECT(config_is_right(&c) || r == SHOAL_ERR_INVALID);
	if (!r)
		w.max_entry = w.cache->member->segment.geometry.max_entry;
	return r;
}

static void look_at_end(void)
{
	struct shoal_stats stats;

	EXPECT(shoal_check(w.cache, NULL, NULL) == 0);
	EXPECT(shoal_stats(w.cache, &stats) == SHOAL_OK);
	EXPECT(stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_overhead == stats.size);
	EXPECT(stats.pins == 0 && stats.flights == 0 && stats.permits_used == 0 && stats.total.corrupt == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct input in = {data, n};
	unsigned i;

	for (i = 0; !value_bytes[1] && i < sizeof(value_bytes); i++)
		value_bytes[i] = (unsigned char)(i ^ i / 255);
	for (i = 0; i < KEYS; i++)
		memset(key_bytes[i], (int)('a' + i), sizeof(key_bytes[i]));
	whole = in;
	memset(&w, 0, sizeof(w));
	w.now_ns = UINT64_C(1000000000000);
	if (open_cache(&in))
		return 0;
	snprintf(w.name, sizeof(w.name), "first");
	w.version = 1;
	EXPECT(shoal_keyspace_open(w.cache, w.name, 1, NULL, &w.k) == SHOAL_OK);
	w.policy = (struct shoal_policy){.fresh_ms = 60000, .jitter_permille = 50};
	for (i = 0; i < STEPS && in.left; i++)
		step(&in);
	look_at_end();
	shoal_close(w.cache);
	return 0;
}
