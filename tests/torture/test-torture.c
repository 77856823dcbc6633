/* SPDX-License-Identifier: MIT */
/*
 * Storms. Processes do everything at once to a small segment while their parent kills 300 of them a second, and stops
 * 20 for a while. Then the dust settles, and everything must be there and be whole.
 *
 *   killed_at_random               eight processes
 *   killed_where_slots_are_few     five process slots for them: who has none gets LIMIT, and by a fetch its value
 *   oversubscribed                 fifty processes for each processor
 *   killed_on_a_poor_machine       /dev/shm is full, half of the processes have no descriptor left, slots are few
 *
 * After each, all are killed at once, and it goes on for a fifth of the time with what they left.
 *
 * The blows fall at random times (a Poisson process), whatever the processes then do. A parent that comes late, since
 * the machine is busy, makes up for it; arrears of more than a second are dropped, and what was reached is printed.
 *
 * Each second is an audit: shoal_check while all are at it, and then the same with all of them stopped where they are,
 * and that nothing was made or lost:
 *   process slots    each is a process's that lives, once; the dead are recovered by one shoal_reap, which leaves none
 *   reader slots     no more than a process has threads
 *   flights          each that runs is led by a reader that is here; none leads two
 *   permits          no more than there are, none has two
 *   counters         what has been answered has been counted, and nothing that was not asked
 *
 *   SHOAL_TEST_SECONDS   how long the first (10); the others get a fifth of it
 *   SHOAL_TEST_SEED      what to repeat; printed
 *
 * Two families of keys. A value says which key and which version of it it is, and carries a pattern that follows from
 * both, so a torn or mixed one shows, also after it was held for a while.
 *   loaded keys   come from loads alone. An origin in shared memory counts their versions: a delete bumps it, then
 *                 deletes; a load reads it in its loader. So no version from before a finished delete may be seen, none
 *                 from before a finished expire may be fresh, and no reader sees a generation older than anyone saw.
 *                 Every fourth is never deleted nor expired: of those at most one loader runs at a time.
 *   set keys      are set, with long and short lives, fetched and deleted.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "crew.h"
#include "flight.h"
#include "permit.h"
#include "proc.h"

#define WORKERS_MOST 400u
#define KILLS 300u /* a second */
#define STOPS 20u
#define LOADED_KEYS 300u
#define SET_KEYS 700u
#define SEGMENT ((size_t)4 << 20)
#define VALUE_MAX 12000u
#define HELD 2u
#define SPAWNS ((uint32_t)1 << 24)
#define THREADS 2u /* of a worker, at most */
#define NAME "storm"
#define AGES 24u

enum op { GET, READ, SET, SET_SHORT, DELETE, EXPIRE, FETCH, STEPS, GET_MANY, SCAN, THREAD, REAP, ATTACH, RESIZE, OPS };
static const char *const op_names[OPS] = {"get",   "read",     "set",  "set_ttl", "delete", "expire", "fetch",
                                          "steps", "get_many", "scan", "thread",  "reap",   "attach", "resize"};
/* In a thousand; the last two on a poor machine alone. */
static const unsigned op_shares[OPS] = {250, 80, 150, 60, 60, 30, 220, 90, 34, 2, 12, 8, 3, 1};

/* What the origin knows of a key. */
struct origin {
	_Alignas(64) word64 version;
	word64 deleted, expired; /* finished at that version */
	word64 seen;             /* newest generation that was shown */
	word32 loading;          /* spawn number of whose loader runs */
};

struct worker {
	_Alignas(64) word64 beats;
	word32 op, key;
	word64 ops[OPS], ages[AGES];
	word64 asked, answered; /* look-ups */
	word64 led;             /* leaderships that a call has given it */
	word64 lag_ns; /* the coarse clock's, at most */
};

struct field {
	word32 finish, fresh_keys;
	word64 loads, without; /* calls that found no slot */
	word64 refused;        /* attaches and resizes, on a poor machine */
	struct worker workers[WORKERS_MOST];
	struct origin origins[LOADED_KEYS + SET_KEYS];
	_Atomic unsigned char doomed[SPAWNS]; /* by spawn number: killed, or about to be */
};

static struct field *field;
static struct shoal *cache;
static struct shoal_keyspace *loaded, *plain;
static uint64_t seed;
static unsigned workers;
static bool crowded; /* fewer slots than processes */
static bool poor;

/* ---- values ------------------------------------------------------------------------------------------------ */

struct content {
	uint64_t key, version, size, sum;
	uint64_t pattern[];
};

static uint64_t mixed(uint64_t a, uint64_t b)
{
	uint64_t state = a * 0x100000001b3u ^ b;

	return crew_random(&state);
}

static size_t size_of(uint64_t key, uint64_t version)
{
	uint64_t x = mixed(key, ~version);

	return sizeof(struct content) + (x % 16 ? x % 1200 : x % (VALUE_MAX - sizeof(struct content))) / 8 * 8;
}

static void write_content(void *to, uint64_t key, uint64_t version)
{
	struct content *c = to;
	size_t i, n = (size_of(key, version) - sizeof(*c)) / 8;

	*c = (struct content){key, version, size_of(key, version), mixed(key, version)};
	for (i = 0; i < n; i++)
		c->pattern[i] = c->sum + i;
}

static bool is_content(const void *data, size_t size, uint64_t key)
{
	const struct content *c = data;
	size_t i;

	if (size < sizeof(*c) || c->key != key || c->size != size || c->sum != mixed(key, c->version) ||
	    size != size_of(key, c->version))
		return false;
	for (i = 0; i < (size - sizeof(*c)) / 8; i++)
		if (c->pattern[i] != c->sum + i)
			return false;
	return true;
}

/* Keys of several lengths. */
static size_t write_key(char *to, uint64_t key)
{
	return (size_t)sprintf(to, "%s-%" PRIu64 "%.*s", key < LOADED_KEYS ? "loaded" : "set", key, (int)(key % 40),
			       "........................................");
}

/* ---- one worker -------------------------------------------------------------------------------------------- */

struct self {
	struct worker *worker;
	uint32_t spawn;
	uint64_t random;
	struct {
		struct shoal_value value;
		uint64_t key;
	} held[HELD];
	bool in_thread;
	bool has_thread; /* it has one already: a worker has THREADS of them at most */
};

struct request { /* of one key */
	struct self *self;
	uint64_t key, deleted, expired, seen;
	char name[80];
	size_t length;
};

static void begin_request(struct request *r, struct self *self, uint64_t key)
{
	struct origin *o = &field->origins[key];

	r->self = self;
	r->key = key;
	r->length = write_key(r->name, key);
	r->deleted = w64_load(&o->deleted);
	r->expired = w64_load(&o->expired);
	r->seen = w64_load(&o->seen);
	w32_store(&self->worker->key, (uint32_t)key);
}

static void ask(const struct request *r, size_t n)
{
	w64_add(&r->self->worker->asked, n);
}

static void answered(const struct request *r, size_t n)
{
	w64_add(&r->self->worker->answered, n);
}

static struct shoal_keyspace *keyspace_of(uint64_t key)
{
	return key < LOADED_KEYS ? loaded : plain;
}

static bool is_undisturbed(uint64_t key)
{
	return key < LOADED_KEYS && key % 4 == 0;
}

static uint64_t coarse_lag(void)
{
	uint64_t precise = crew_now(), coarse = clock_system_ns(CLOCK_MONOTONIC_COARSE);

	return precise > coarse ? precise - coarse : 0;
}

static void check_data(const struct request *r, const char *how, const void *data, size_t size, bool fresh)
{
	uint64_t version;

	if (!is_content(data, size, r->key)) {
		crew_wrong("%s: key %" PRIu64 " is torn: %zu bytes, key %" PRIu64 ", version %" PRIu64, how, r->key,
		           size, size >= 8 ? ((const struct content *)data)->key : 0,
		           size >= 16 ? ((const struct content *)data)->version : 0);
		return;
	}
	version = ((const struct content *)data)->version;
	if (r->key >= LOADED_KEYS)
		return;
	crew_expect(version >= r->deleted, "%s: key %" PRIu64 " shows version %" PRIu64 ", deleted at %" PRIu64, how,
		    r->key, version, r->deleted);
	crew_expect(!fresh || version >= r->expired,
		    "%s: key %" PRIu64 " shows version %" PRIu64 " fresh, expired at %" PRIu64
		    " (the coarse clock lags %.1f ms)",
		    how, r->key, version, r->expired, (double)coarse_lag() / 1e6);
}

static void check_value(const struct request *r, const char *how, const struct shoal_value *v)
{
	struct origin *o = &field->origins[r->key];
	unsigned age = 0;

	if (!v->data) {
		crew_wrong("%s: key %" PRIu64 " has no data", how, r->key);
		return;
	}
	if (v->source == SHOAL_LOADED) { /* the caller's own, stored or not */
		crew_expect(is_content(v->data, v->size, r->key), "%s: key %" PRIu64 ": own value is torn", how,
		            r->key);
		return;
	}
	check_data(r, how, v->data, v->size, v->freshness == SHOAL_FRESH);
	if (r->key < LOADED_KEYS) {
		crew_expect(v->generation >= r->seen,
		            "%s: key %" PRIu64 " went back to generation %" PRIu64 " from %" PRIu64, how, r->key,
		            v->generation, r->seen);
		w64_max(&o->seen, v->generation);
	}
	while (age < AGES - 1 && v->age_ms >> age)
		age++;
	w64_add(&r->self->worker->ages[age], 1);
}

/* Give it back now, or hold it for a while; a held one is looked at once more before it goes. */
static void keep_or_release(const struct request *r, struct shoal_value *v)
{
	struct self *self = r->self;
	unsigned i = (unsigned)crew_below(&self->random, HELD * 4);

	if (i >= HELD || self->in_thread) {
		shoal_release(v);
		return;
	}
	if (self->held[i].value.data)
		crew_expect(is_content(self->held[i].value.data, self->held[i].value.size, self->held[i].key),
			    "held: key %" PRIu64 " changed in hand", self->held[i].key);
	shoal_release(&self->held[i].value);
	memcpy(&self->held[i].value, v, sizeof(*v)); /* moved, not copied: *v is forgotten */
	self->held[i].key = r->key;
}

static void wrong_result(const struct request *r, const char *how, int result)
{
	if (crowded && result == SHOAL_ERR_LIMIT) {
		w64_add(&field->without, 1);
		return;
	}
	crew_wrong("%s: key %" PRIu64 ": %s (%d, errno %d)", how, r->key, shoal_strerror(result), result, errno);
}

static void do_get(struct request *r)
{
	struct shoal_value v;
	int result;

	ask(r, 1);
	result = shoal_get(keyspace_of(r->key), r->name, r->length, &v);
	answered(r, result >= 0);
	if (result == SHOAL_OK) {
		check_value(r, "get", &v);
		keep_or_release(r, &v);
	} else if (result != SHOAL_MISS) {
		wrong_result(r, "get", result);
	}
}

static void do_read(struct request *r)
{
	_Alignas(8) char buffer[VALUE_MAX];
	size_t size = 0, capacity = crew_below(&r->self->random, 8) ? sizeof(buffer) : 100;
	int result;

	ask(r, 1);
	result = shoal_read(keyspace_of(r->key), r->name, r->length, buffer, capacity, &size);
	answered(r, result >= 0 || result == SHOAL_ERR_TOO_BIG);
	if (result == SHOAL_OK)
		check_data(r, "read", buffer, size, false);
	else if (result != SHOAL_MISS && !(result == SHOAL_ERR_TOO_BIG && size > capacity))
		wrong_result(r, "read", result);
}

static void do_set(struct request *r, bool brief)
{
	uint64_t buffer[VALUE_MAX / 8], version = w64_add(&field->origins[r->key].version, 1) + 1;
	int result;

	write_content(buffer, r->key, version);
	result = shoal_set_ttl(plain, r->name, r->length, buffer, size_of(r->key, version),
			       brief ? 1 + (uint32_t)crew_below(&r->self->random, 20) : 0, brief ? 10 : 0);
	if (result != SHOAL_OK)
		wrong_result(r, "set", result);
}

static void do_delete(struct request *r)
{
	struct origin *o = &field->origins[r->key];
	uint64_t version = w64_add(&o->version, 1) + 1;
	int result = shoal_delete(keyspace_of(r->key), r->name, r->length);

	if (result != SHOAL_OK && result != SHOAL_MISS)
		wrong_result(r, "delete", result);
	else
		w64_max(&o->deleted, version);
}

static void do_expire(struct request *r)
{
	struct origin *o = &field->origins[r->key];
	uint64_t version = w64_add(&o->version, 1) + 1;
	int result = shoal_expire(keyspace_of(r->key), r->name, r->length);

	if (result != SHOAL_OK && result != SHOAL_MISS)
		wrong_result(r, "expire", result);
	else
		w64_max(&o->expired, version);
}

/* ---- loads ------------------------------------------------------------------------------------------------- */

/* Of an undisturbed key one loader runs at a time, but for those of the dead. */
static void enter_loader(const struct request *r)
{
	struct origin *o = &field->origins[r->key];
	uint32_t before;

	w64_add(&field->loads, 1);
	w64_add(&r->self->worker->led, 1);
	if (!is_undisturbed(r->key) || crowded) /* without a slot, loads are not coalesced */
		return;
	before = atomic_exchange(&o->loading, r->self->spawn);
	crew_expect(!before || atomic_load(&field->doomed[before % SPAWNS]),
		    "two load key %" PRIu64 " at once: %u, %u", r->key, before, r->self->spawn);
}

static void leave_loader(const struct request *r)
{
	if (is_undisturbed(r->key))
		w32_cas(&field->origins[r->key].loading, r->self->spawn, 0);
}

static void be_slow(struct self *self)
{
	uint64_t us = crew_below(&self->random, 4) ? 0 : crew_below(&self->random, 2000);

	if (us)
		crew_pass_us(us);
}

/* Load and publish, one way or another; 0, or an error code. What ended the load by itself is passed up in *result. */
static int load(struct request *r, struct shoal_load *l, int *result)
{
	uint64_t buffer[VALUE_MAX / 8], version, *space;
	unsigned way = (unsigned)crew_below(&r->self->random, 16);
	size_t size;

	enter_loader(r);
	version = w64_load(&field->origins[r->key].version);
	size = size_of(r->key, version);
	be_slow(r->self);
	if (way == 0 && !is_undisturbed(r->key)) {
		leave_loader(r);
		return 1000 + (int)(r->key % 7);
	}
	if (way < 8) {
		write_content(buffer, r->key, version);
		leave_loader(r);
		*result = shoal_load_publish(l, buffer, size);
		return 0;
	}
	space = shoal_load_reserve(l, way < 10 ? size / 2 : size);
	if (space && way < 10) {
		write_content(buffer, r->key, version);
		memcpy(space, buffer, size / 2);
		space = shoal_load_reserve(l, size);
		if (space)
			memcpy((char *)space + size / 2, (char *)buffer + size / 2, size - size / 2);
	} else if (space) {
		write_content(space, r->key, version);
	}
	leave_loader(r);
	if (!space) {
		crew_wrong("reserve: key %" PRIu64 ": errno %d", r->key, errno);
		return 1;
	}
	*result = shoal_load_commit(l, size);
	return 0;
}

static int loader(struct shoal_load *l, const void *key, size_t size, void *arg)
{
	struct request *r = arg;
	int result = SHOAL_OK, code = load(r, l, &result);

	if (!code && result)
		wrong_result(r, "publish inside fetch", result);
	return code;
}

static void do_fetch(struct request *r)
{
	struct shoal_value v;
	int result;

	ask(r, 1);
	result = shoal_fetch(keyspace_of(r->key), r->name, r->length, loader, r, &v);
	answered(r, !crowded);
	if (result == SHOAL_OK) {
		check_value(r, "fetch", &v);
		keep_or_release(r, &v);
	} else if (result != SHOAL_ERR_LOAD || is_undisturbed(r->key) ||
	           (v.load_error && v.load_error != 1000 + (int)(r->key % 7))) {
		wrong_result(r, "fetch", result);
	}
}

static void lead_in_steps(struct request *r, struct shoal_load *l)
{
	int result = SHOAL_OK, code;

	if (!is_undisturbed(r->key) && !crew_below(&r->self->random, 8)) {
		w64_add(&r->self->worker->led, 1);
		shoal_load_cancel(l);
		return;
	}
	code = load(r, l, &result);
	if (code)
		result = shoal_load_fail(l, code);
	if (result != SHOAL_OK &&
	    ((result != SHOAL_ERR_SUPERSEDED && result != SHOAL_ERR_LIMIT) || is_undisturbed(r->key)))
		wrong_result(r, "publish", result); /* LIMIT: it was superseded while it waited for its permit */
}

static void do_steps(struct request *r)
{
	struct shoal_load *l;
	struct shoal_value v;
	int result;

	ask(r, 1);
	result = shoal_begin(keyspace_of(r->key), r->name, r->length, &l, &v);
	answered(r, result >= 0 || result == SHOAL_ERR_LOAD);
	if (result == SHOAL_WAIT) {
		begin_request(r, r->self, r->key);
		result = shoal_wait(l, (uint32_t)crew_below(&r->self->random, 4), &v);
		if (result < 0) {
			crew_expect(result == SHOAL_ERR_TIMEOUT || result == SHOAL_ERR_LOAD || result == SHOAL_ERR_BUSY,
			            "wait: key %" PRIu64 ": %s", r->key, shoal_strerror(result));
			shoal_load_cancel(l);
			return;
		}
	}
	if (result == SHOAL_OK || result == SHOAL_REFRESH)
		check_value(r, "begin", &v);
	else if (result != SHOAL_LEAD && result != SHOAL_ERR_LOAD)
		wrong_result(r, "begin", result);
	shoal_release(&v);
	if (result == SHOAL_LEAD || result == SHOAL_REFRESH)
		lead_in_steps(r, l);
}

/* ---- the rest ---------------------------------------------------------------------------------------------- */

static void do_get_many(struct self *self, uint64_t first)
{
	struct request requests[24];
	struct shoal_slice keys[24];
	struct shoal_value values[24];
	int outcomes[24], result;
	uint64_t base = first < LOADED_KEYS ? 0 : LOADED_KEYS, count = first < LOADED_KEYS ? LOADED_KEYS : SET_KEYS;
	size_t i, n = 1 + crew_below(&self->random, 24);

	for (i = 0; i < n; i++) {
		begin_request(&requests[i], self, base + (first - base + i * 7) % count);
		keys[i] = (struct shoal_slice){requests[i].name, requests[i].length};
	}
	ask(&requests[0], n);
	result = shoal_get_many(keyspace_of(first), keys, n, values, outcomes);
	answered(&requests[0], result ? 0 : n);
	if (result)
		wrong_result(&requests[0], "get_many", result);
	for (i = 0; i < n && !result; i++) {
		if (outcomes[i] == SHOAL_OK)
			check_value(&requests[i], "get_many", &values[i]);
		else if (outcomes[i] != SHOAL_MISS)
			wrong_result(&requests[i], "get_many", outcomes[i]);
		shoal_release(&values[i]);
	}
}

static int visit(const struct shoal_entry *e, void *arg)
{
	const char *dash = memchr(e->key.data, '-', min_u64(e->key.size, 7));

	w64_add(&((struct self *)arg)->worker->beats, 1);
	crew_expect(dash && e->size >= sizeof(struct content) && e->size <= VALUE_MAX,
		    "scan: a strange entry: key of %zu bytes, value of %zu", e->key.size, e->size);
	return 0;
}

static void do_scan(struct self *self)
{
	int result = shoal_scan(cache, crew_below(&self->random, 2) ? "loaded" : NULL, visit, self);

	crew_expect(result == 0 || (crowded && result == SHOAL_ERR_LIMIT), "scan: %s", shoal_strerror(result));
}

static void one_op(struct self *self);

static void *in_thread(void *arg)
{
	struct self self = {.worker = ((struct self *)arg)->worker,
			    .spawn = ((struct self *)arg)->spawn,
			    .random = crew_random(&((struct self *)arg)->random),
			    .in_thread = true};
	unsigned n = 1 + (unsigned)crew_below(&self.random, 20);

	while (n--)
		one_op(&self);
	return NULL;
}

/* An extent that one thread has read may come to the other through a third process that saw the reader gone: a chain
 * that ThreadSanitizer doesn't see. Under it the two take turns. */
#ifdef __SANITIZE_THREAD__
enum { TAKE_TURNS = 1 };
#else
enum { TAKE_TURNS = 0 };
#endif

static void do_thread(struct self *self)
{
	struct self copy = *self;
	pthread_t thread;

	copy.random = crew_random(&self->random);
	if (self->in_thread || self->has_thread || pthread_create(&thread, NULL, in_thread, &copy))
		return;
	self->has_thread = true;
	if (!TAKE_TURNS)
		one_op(self);
	pthread_join(thread, NULL);
	if (TAKE_TURNS)
		one_op(self);
	self->has_thread = false;
}

static enum op choose_op(struct self *self)
{
	unsigned at = (unsigned)crew_below(&self->random, 1000), op = 0;

	while (op < OPS - 1 && at >= op_shares[op])
		at -= op_shares[op++];
	return op < ATTACH || poor ? (enum op)op : GET;
}

/* Half of all goes to a fiftieth of the keys, where they meet. */
static uint64_t choose_key(struct self *self, enum op op)
{
	bool set = op == SET || op == SET_SHORT || crew_below(&self->random, 2);
	uint64_t n = set ? SET_KEYS : LOADED_KEYS, key;

	if (crew_below(&self->random, 2))
		n /= 50;
	key = (set ? LOADED_KEYS : 0) + crew_below(&self->random, n);
	return (op == DELETE || op == EXPIRE) && is_undisturbed(key) ? key + 1 : key;
}

/* By its name once more; without a descriptor it can't. */
static void do_attach(struct request *r)
{
	struct shoal_keyspace *k;
	struct shoal *again;
	int result = shoal_open(NAME, &(struct shoal_config){.flags = SHOAL_ATTACH}, &again);

	if (result) {
		w64_add(&field->refused, 1);
		if (result != SHOAL_ERR_SYSTEM || errno != EMFILE)
			wrong_result(r, "attach", result);
		return;
	}
	result = shoal_keyspace_open(again, "set", 1, NULL, &k);
	if (result)
		wrong_result(r, "open", result);
	shoal_close(again);
}

/* There is no memory for both. */
static void do_resize(struct request *r)
{
	int result = shoal_resize(cache, SEGMENT * 2);

	w64_add(&field->refused, 1);
	if (result != SHOAL_ERR_BUSY && (result != SHOAL_ERR_SYSTEM || (errno != ENOSPC && errno != EMFILE)))
		wrong_result(r, "resize", result);
}

static void one_op(struct self *self)
{
	enum op op = choose_op(self);
	struct request r;

	begin_request(&r, self, choose_key(self, op));
	if (!self->in_thread)
		w32_store(&self->worker->op, op);
	switch (op) {
	case GET:
		do_get(&r);
		break;
	case READ:
		do_read(&r);
		break;
	case SET:
	case SET_SHORT:
		do_set(&r, op == SET_SHORT);
		break;
	case DELETE:
		do_delete(&r);
		break;
	case EXPIRE:
		do_expire(&r);
		break;
	case FETCH:
		do_fetch(&r);
		break;
	case STEPS:
		do_steps(&r);
		break;
	case GET_MANY:
		do_get_many(self, r.key);
		break;
	case SCAN:
		do_scan(self);
		break;
	case THREAD:
		do_thread(self);
		break;
	case ATTACH:
		do_attach(&r);
		break;
	case RESIZE:
		do_resize(&r);
		break;
	default: {
		int result = shoal_reap(cache);

		if (result < 0)
			wrong_result(&r, "reap", result);
	}
	}
	w64_add(&self->worker->ops[op], 1);
	w64_add(&self->worker->beats, 1);
	w64_max(&self->worker->lag_ns, coarse_lag());
}

struct birth {
	unsigned place;
	uint32_t spawn;
};

static void work(void *arg)
{
	const struct birth *b = arg;
	struct self self = {.worker = &field->workers[b->place], .spawn = b->spawn};
	unsigned i;

	self.random = mixed(seed, b->spawn);
	if (poor && b->spawn % 2) { /* no descriptor is left */
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){32, 32});
		while (dup(0) >= 0)
			;
	}
	while (!w32_load(&field->finish))
		one_op(&self);
	for (i = 0; i < HELD; i++) {
		if (self.held[i].value.data)
			crew_expect(is_content(self.held[i].value.data, self.held[i].value.size, self.held[i].key),
				    "held: key %" PRIu64 " changed in hand", self.held[i].key);
		shoal_release(&self.held[i].value);
	}
	if (b->place % 2)
		shoal_close(cache);
}

/* ---- the parent -------------------------------------------------------------------------------------------- */

struct place {
	pid_t pid;
	struct birth birth;
	uint64_t stopped_until; /* 0: runs */
};

struct corpses {
	pid_t pids[WORKERS_MOST];
	unsigned n;
};

struct blows {
	uint64_t kills, stops, stopped_kills, audits, recovered, dropped, ns;
};

static struct place places[WORKERS_MOST];
static uint32_t spawns;

static void spawn(unsigned i)
{
	places[i] = (struct place){.birth = {i, ++spawns}};
	if (spawns >= SPAWNS) {
		crew_wrong("too many processes");
		return;
	}
	places[i].pid = crew_fork(work, &places[i].birth);
}

static void bury(struct corpses *c)
{
	int status;

	while (c->n) {
		pid_t pid = c->pids[--c->n];

		status = crew_join(pid);
		crew_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "process %d: status %#x", (int)pid,
		            status);
	}
}

/* One that dies of something else than our blow shows here. */
static void look_for_crashes(void)
{
	siginfo_t info;
	unsigned i;

	for (i = 0; i < workers; i++) {
		info.si_pid = 0;
		if (!waitid(P_PID, (id_t)places[i].pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid) {
			crew_wrong("worker %u ended by itself: code %d, status %d, in %s of key %u", i, info.si_code,
			           info.si_status, op_names[w32_load(&field->workers[i].op) % OPS],
			           w32_load(&field->workers[i].key));
			return;
		}
	}
}

static void continue_those_due(uint64_t now)
{
	unsigned i;

	for (i = 0; i < workers; i++)
		if (places[i].stopped_until && places[i].stopped_until <= now) {
			places[i].stopped_until = 0;
			kill(places[i].pid, SIGCONT);
		}
}

static void stop(uint64_t *random, struct blows *blows)
{
	unsigned i = (unsigned)crew_below(random, workers);

	if (places[i].stopped_until)
		return;
	places[i].stopped_until = crew_now() + crew_below(random, 20000000);
	kill(places[i].pid, SIGSTOP);
	blows->stops++;
}

/* The one in place 0 is never killed: it tells a hang from a death. */
static void strike(uint64_t *random, struct blows *blows, struct corpses *corpses)
{
	unsigned i = 1 + (unsigned)crew_below(random, workers - 1);

	atomic_store(&field->doomed[places[i].birth.spawn], 1);
	kill(places[i].pid, SIGKILL);
	blows->kills++;
	blows->stopped_kills += places[i].stopped_until != 0;
	corpses->pids[corpses->n++] = places[i].pid;
	spawn(i);
	if (corpses->n == 16 || !crew_below(random, 4))
		bury(corpses);
}

/* ---- the audit --------------------------------------------------------------------------------------------- */

static unsigned place_of(uint32_t pid)
{
	unsigned i;

	for (i = 0; i < workers && (uint32_t)places[i].pid != pid; i++)
		;
	return i;
}

static void audit_processes(const struct segment *s)
{
	unsigned slots[WORKERS_MOST + 1] = {0}, threads[WORKERS_MOST + 1] = {0}, i;
	uint64_t owner, reader;
	uint32_t p, r;

	for (p = 0; p < s->geometry.processes; p++) {
		owner = w64_load(&s->processes[p].owner);
		if (!owner)
			continue;
		i = place_of(PROC_PID(owner));
		crew_expect(i < workers || PROC_PID(owner) == (uint32_t)getpid(),
		            "audit: process slot %u is of %u, which is none of us", p, PROC_PID(owner));
		/* or two handles */
		crew_expect(!slots[i]++ || poor, "audit: process %u has two slots", PROC_PID(owner));
		for (r = 0; r < s->geometry.readers; r++) {
			reader = w64_load(&s->readers[r].owner);
			threads[i] += (uint32_t)reader && (uint32_t)(reader >> 16 & 0xffff) == p + 1;
		}
		crew_expect(threads[i] <= THREADS + poor, "audit: process %u has %u reader slots", PROC_PID(owner),
		            threads[i]);
	}
}

static void audit_flights(const struct segment *s)
{
	static unsigned leads[READERS_MAX];
	enum flight_state state;
	uint64_t word;
	uint32_t f;

	memset(leads, 0, sizeof(leads));
	for (f = 0; f < s->geometry.flights; f++) {
		word = w64_load(&s->flight_words[f]);
		state = FLIGHT_STATE(word);
		if (state < FLIGHT_CLAIMING || state > FLIGHT_OVERDUE)
			continue;
		crew_expect(FLIGHT_LEADER(word) < s->geometry.readers &&
		                    (uint32_t)w64_load(&s->readers[FLIGHT_LEADER(word)].owner),
		            "audit: flight %u is led by reader slot %u, which is free", f, FLIGHT_LEADER(word));
		crew_expect(!leads[FLIGHT_LEADER(word)]++, "audit: reader slot %u leads two flights",
		            FLIGHT_LEADER(word));
	}
}

static void audit_permits(const struct segment *s)
{
	static unsigned has[READERS_MAX];
	unsigned held = 0;
	uint64_t word;
	uint32_t p;

	memset(has, 0, sizeof(has));
	for (p = 0; p < s->geometry.readers; p++) {
		word = w64_load(&s->permits[p].word);
		if (PERMIT_STATE(word) == PERMIT_FREE)
			continue;
		held += PERMIT_STATE(word) == PERMIT_HELD;
		crew_expect(!has[PERMIT_READER(word)]++, "audit: reader slot %u is in the permits' queue twice",
		            PERMIT_READER(word));
	}
	crew_expect(held <= s->geometry.max_loads, "audit: %u permits of %u are held", held, s->geometry.max_loads);
}

/* Each that was killed may have left a look-up and a leadership that were counted and not answered. (A thread of its,
 * too.) The dead's slots in the field are the next one's, who goes on counting there. */
static void audit_counters(const struct shoal_stats *stats, uint64_t births)
{
	uint64_t asked = 0, answers = 0, led = 0,
		 lookups = stats->total.hits_fresh + stats->total.hits_stale + stats->total.misses;
	unsigned i;

	for (i = 0; i < workers; i++) {
		asked += w64_load(&field->workers[i].asked);
		answers += w64_load(&field->workers[i].answered);
		led += w64_load(&field->workers[i].led);
	}
	crew_expect(lookups >= answers && lookups <= asked,
	            "audit: %" PRIu64 " look-ups are counted, %" PRIu64 " were asked, %" PRIu64 " answered", lookups,
	            asked, answers);
	crew_expect(stats->total.loads >= led && stats->total.loads <= led + births * THREADS,
		    "audit: %" PRIu64 " loads are counted, %" PRIu64 " were led by %" PRIu64 " processes",
		    stats->total.loads, led, births);
	crew_expect(stats->total.corrupt == 0, "audit: %" PRIu64 " are corrupt", stats->total.corrupt);
}

/* All stand still, some in the midst of something; nobody dies meanwhile. */
static void audit(struct blows *blows)
{
	const struct segment *s = crew_segment(cache);
	struct shoal_stats stats;
	unsigned i;
	int found;

	crew_check(cache); /* in the midst of it */
	for (i = 0; i < workers; i++)
		kill(places[i].pid, SIGSTOP);
	for (i = 0; i < workers; i++)
		crew_await_state(places[i].pid, "TZX");
	found = shoal_reap(cache);
	crew_expect(found >= 0, "audit: reap: %s", shoal_strerror(found));
	blows->recovered += found > 0 ? (uint64_t)found : 0;
	found = shoal_reap(cache);
	crew_expect(found == 0, "audit: reap found %d again", found);
	crew_check(cache);
	audit_processes(s);
	audit_flights(s);
	audit_permits(s);
	if (shoal_stats(cache, &stats))
		crew_wrong("audit: no statistics");
	else
		audit_counters(&stats, spawns);
	blows->audits++;
	for (i = 0; i < workers; i++)
		if (!places[i].stopped_until)
			kill(places[i].pid, SIGCONT);
}

/* ---- the storm --------------------------------------------------------------------------------------------- */

/* The eldest must move on; it is stopped for 20 ms at most. */
static void look_for_a_hang(uint64_t now)
{
	static uint64_t beats, since;
	struct worker *w = &field->workers[0];

	if (beats != w64_load(&w->beats) || !since) {
		beats = w64_load(&w->beats);
		since = now;
	}
	if (now - since < (uint64_t)CREW_PATIENCE_MS * 1000000)
		return;
	crew_wrong("worker 0 hangs in %s of key %u", op_names[w32_load(&w->op) % OPS], w32_load(&w->key));
}

/* When the next of so many a second is due, and not all of them at once after a long sleep. */
static uint64_t next_of(uint64_t *random, uint64_t due, unsigned rate, uint64_t now, struct blows *blows)
{
	uint64_t second = 1000000000;

	due += (uint64_t)(-log((double)(1 + crew_below(random, 1u << 30)) / (double)((1u << 30) + 1)) * (double)second /
	                  rate);
	if (due + second < now) {
		blows->dropped += (now - due) * rate / second;
		due = now;
	}
	return due;
}

static struct blows rage(uint64_t seconds, unsigned rate)
{
	uint64_t random = seed, begin = crew_now(), end = begin + seconds * 1000000000, now, kill_at = begin,
		 stop_at = begin, audit_at = begin + 500000000;
	struct corpses corpses = {.n = 0};
	struct blows blows = {0};
	unsigned i;

	for (i = 0; i < workers; i++)
		spawn(i);
	while ((now = crew_now()) < end && !w32_load(&crew_verdict->count)) {
		continue_those_due(now);
		if (now >= kill_at) {
			strike(&random, &blows, &corpses);
			kill_at = next_of(&random, kill_at, rate, now, &blows);
		}
		if (now >= stop_at) {
			stop(&random, &blows);
			stop_at = next_of(&random, stop_at, STOPS, now, &blows);
			look_for_crashes();
			look_for_a_hang(now);
		}
		if (now >= audit_at) {
			bury(&corpses);
			audit(&blows);
			audit_at = crew_now() + 1000000000;
		}
		now = crew_now();
		if (min_u64(kill_at, stop_at) > now)
			crew_pass_us(min_u64(min_u64(kill_at, stop_at) - now, 5000000) / 1000);
	}
	bury(&corpses);
	blows.ns = crew_now() - begin;
	return blows;
}

/* Nobody is left who knows what was going on. */
static void kill_all(struct blows *blows)
{
	struct corpses corpses = {.n = workers};
	unsigned i;

	for (i = 0; i < workers; i++) {
		atomic_store(&field->doomed[places[i].birth.spawn], 1);
		corpses.pids[i] = places[i].pid;
	}
	for (i = 0; i < workers; i++)
		kill(places[i].pid, SIGKILL);
	bury(&corpses);
	blows->kills += workers;
}

static void finish(void)
{
	unsigned i;

	w32_store(&field->finish, 1);
	continue_those_due(UINT64_MAX);
	for (i = 0; i < workers; i++)
		crew_join_well(places[i].pid);
}

/* ---- afterwards -------------------------------------------------------------------------------------------- */

/* Nobody waits for the dead any more. */
static void fetch_every_key(void *arg)
{
	struct self self = {.worker = &field->workers[0], .random = 1, .in_thread = true};
	struct request r;
	uint64_t key, began, longest = 0;

	for (key = 0; key < LOADED_KEYS + SET_KEYS; key++) {
		began = crew_now();
		begin_request(&r, &self, key);
		do_fetch(&r);
		longest = max_u64(longest, crew_now() - began);
		w32_add(&field->fresh_keys, 1);
	}
	crew_expect(longest < (uint64_t)CREW_PATIENCE_MS * 1000000, "a key took %.1f s", (double)longest / 1e9);
}

static void check_left_overs(void)
{
	const struct segment *s = crew_segment(cache);
	struct shoal_stats stats;
	uint32_t x;

	crew_expect(shoal_reap(cache) >= 0, "reap failed");
	crew_expect(shoal_reap(cache) == 0, "reap found someone again");
	assert_int_equal(shoal_stats(cache, &stats), SHOAL_OK);
	crew_expect(stats.processes == 1, "%u processes", stats.processes);
	crew_expect(stats.threads == 1, "%u threads", stats.threads);
	crew_expect(stats.pins == 0, "%u pins", stats.pins);
	crew_expect(stats.flights == 0, "%u flights", stats.flights);
	crew_expect(stats.permits_used == 0, "%u permits", stats.permits_used);
	crew_expect(stats.total.corrupt == 0, "%" PRIu64 " corrupt", stats.total.corrupt);
	for (x = 0; x < s->geometry.extents; x++) {
		crew_expect(!w64_load(&s->extents[x].lock), "extent %u is locked by %#" PRIx64, x,
		            w64_load(&s->extents[x].lock));
		crew_expect(EXTENT_STATE(extents_word(s, x)) != EXTENT_EVICTING, "extent %u is EVICTING", x);
	}
}

/* ---- figures ----------------------------------------------------------------------------------------------- */

static void print_figures(const struct blows *b)
{
	uint64_t sum, most = 1, ages[AGES] = {0};
	struct shoal_stats stats;
	unsigned i, j;

	printf("# seed %" PRIu64 ": in %.1f s %" PRIu64 " kills (%.0f a second; %" PRIu64
	       " of a stopped process), %" PRIu64 " stops (%.0f a second), %" PRIu64 " audits; %" PRIu64
	       " blows were dropped as too late, %" PRIu64 " of the dead were left for the audit to recover\n#",
	       seed, (double)b->ns / 1e9, b->kills, (double)b->kills * 1e9 / (double)b->ns, b->stopped_kills, b->stops,
	       (double)b->stops * 1e9 / (double)b->ns, b->audits, b->dropped, b->recovered);
	for (i = 0; i < OPS; i++) {
		for (sum = 0, j = 0; j < workers; j++)
			sum += w64_load(&field->workers[j].ops[i]);
		printf(" %s %" PRIu64, op_names[i], sum);
	}
	assert_int_equal(shoal_stats(cache, &stats), SHOAL_OK);
	printf("\n# loads %" PRIu64 " (%" PRIu64 " loaders ran), takeovers %" PRIu64 ", coalesced %" PRIu64
	       ", superseded %" PRIu64 ", uncached %" PRIu64 ", timeouts %" PRIu64 ", evicted extents %" PRIu64 "\n",
	       stats.total.loads, w64_load(&field->loads), stats.total.takeovers, stats.total.coalesced,
	       stats.total.superseded, stats.total.uncached, stats.total.timeouts, stats.evicted_extents);
	for (sum = 0, j = 0; j < workers; j++)
		sum = max_u64(sum, w64_load(&field->workers[j].lag_ns));
	printf("# the coarse clock lagged by %.1f ms at most\n", (double)sum / 1e6);
	for (i = 0; i < AGES; i++)
		for (j = 0; j < workers; j++)
			ages[i] += w64_load(&field->workers[j].ages[i]);
	for (i = 0; i < AGES; i++)
		most = max_u64(most, ages[i]);
	printf("# ages of values shown:\n");
	for (i = 0; i < AGES; i++)
		if (ages[i])
			printf("#  < %7u ms %9" PRIu64 " %.*s\n", 1u << i, ages[i], (int)(ages[i] * 50 / most),
			       "##################################################");
	fflush(stdout);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* /dev/shm is our own here. */
static void fill_up(void)
{
	int fd = open("/dev/shm/rest", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	char page[4096] = {1};

	assert_true(fd >= 0);
	while (write(fd, page, sizeof(page)) > 0)
		;
	assert_int_equal(errno, ENOSPC);
	close(fd);
}

struct storm {
	const char *name;
	unsigned workers, kills, slots, max_loads;
};

static void torture(uint64_t seconds, const struct storm *storm)
{
	struct shoal_config config = {.size = SEGMENT, .max_entry = 16 << 10, .max_processes = storm->slots,
	                              .max_loads = storm->max_loads};
	struct shoal_policy of_loaded = {.fresh_ms = 300, .stale_ms = 200, .retry_ms = 5, .wait_ms = CREW_PATIENCE_MS,
	                                 .lease_ms = CREW_PATIENCE_MS};
	struct shoal_policy of_plain = {.fresh_ms = 2000, .stale_ms = 200, .retry_ms = 5, .wait_ms = CREW_PATIENCE_MS,
	                                .lease_ms = CREW_PATIENCE_MS};
	struct blows blows, more;

	crew_begin();
	workers = storm->workers;
	crowded = storm->slots && storm->slots < workers;
	if (workers > 16) {
		config.max_processes = 2 * workers;
		config.max_threads = 4 * workers;
	}
	field = crew_memory(sizeof(*field));
	spawns = 0;
	seed = number("SHOAL_TEST_SEED", crew_now());
	printf("# seed %" PRIu64 ", %" PRIu64 " s, %u processes\n", seed, seconds, workers);
	config.flags = seed & 1 ? SHOAL_CHECKSUM : 0;
	assert_int_equal(shoal_open(storm->name, &config, &cache), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "loaded", 1, &of_loaded, &loaded), SHOAL_OK);
	assert_int_equal(shoal_keyspace_open(cache, "set", 1, &of_plain, &plain), SHOAL_OK);
	if (poor)
		fill_up();
	assert_int_equal(shoal_reap(cache), 0); /* the parent of all is registered, too */
	blows = rage(seconds, storm->kills);
	kill_all(&blows);
	crew_check(cache);
	crew_join_well(crew_fork(fetch_every_key, NULL));
	check_left_overs();
	w32_store(&field->fresh_keys, 0);
	more = rage(max_u64(seconds / 5, 1), storm->kills);
	blows.kills += more.kills;
	blows.audits += more.audits;
	blows.stops += more.stops;
	blows.stopped_kills += more.stopped_kills;
	blows.recovered += more.recovered;
	blows.dropped += more.dropped;
	blows.ns += more.ns;
	finish();
	crew_check(cache);
	print_figures(&blows);
	if (crowded)
		printf("# %" PRIu64 " calls found no slot\n", w64_load(&field->without));
	if (poor)
		printf("# %" PRIu64 " attaches and resizes were refused\n", w64_load(&field->refused));
	crew_join_well(crew_fork(fetch_every_key, NULL));
	crew_expect(w32_load(&field->fresh_keys) == LOADED_KEYS + SET_KEYS, "%u keys could be had",
	            w32_load(&field->fresh_keys));
	check_left_overs();
	if (!w32_load(&crew_verdict->count))
		crew_fill(cache, plain);
	shoal_close(cache);
	munmap(field, sizeof(*field));
	assert_int_equal(crew_wrongs(), 0);
}

/* Memory and processors are dearer under a sanitizer. */
static unsigned scaled(unsigned n)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	n = n / 4 + 1;
#endif
	return n;
}

static void killed_at_random(void **state)
{
	torture(number("SHOAL_TEST_SECONDS", 10),
	        &(struct storm){.workers = 8, .kills = scaled(KILLS), .max_loads = 6});
}

static uint64_t a_fifth(void)
{
	return max_u64(number("SHOAL_TEST_SECONDS", 10) / 5, 2);
}

static void killed_where_slots_are_few(void **state)
{
	torture(a_fifth(), &(struct storm){.workers = 8, .kills = scaled(KILLS), .slots = 5, .max_loads = 6});
}

/* Most of the time each is stopped by the scheduler, anywhere. */
static void oversubscribed(void **state)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = scaled((unsigned)min_u64(WORKERS_MOST, 50 * (uint64_t)max_u64((uint64_t)processors, 1)));

	torture(a_fifth(), &(struct storm){.workers = max_u64(n, 9), .kills = scaled(KILLS / 3), .max_loads = n / 2});
}

static void killed_on_a_poor_machine(void **state)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", "/dev/shm", "tmpfs", 0, "size=6m")) {
		skipped("a /dev/shm of our own is refused");
		return;
	}
	poor = true;
	torture(a_fifth(),
	        &(struct storm){.name = NAME, .workers = 8, .kills = scaled(KILLS), .slots = 6, .max_loads = 6});
	poor = false;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_at_random),
		cmocka_unit_test(killed_where_slots_are_few),
		cmocka_unit_test(oversubscribed),
		cmocka_unit_test(killed_on_a_poor_machine), /* the last: it leaves a mount behind */
	};

	if (argc > 1) /* the name of one case, with wildcards */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
