/* SPDX-License-Identifier: MIT */
/*
 * Who gets in: other users, names that lead elsewhere, keys that were chosen to collide. What an attach refuses of a
 * file's contents is in unit/test-segment.c; that no environment variable is read, in abi/symbols.sh.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "handle.h"
#include "hash.h"
#include "testing.h"

#define NOBODY 65534

static char name[40], file[100];

static int set_up(void **state)
{
	snprintf(name, sizeof(name), "test-doors.%d", (int)getpid());
	snprintf(file, sizeof(file), "/dev/shm/shoal.%s.v%d", name, LAYOUT_VERSION);
	return 0;
}

static int tear_down(void **state)
{
	unlink(file);
	return 0;
}

static const struct shoal_config small = {.size = 1 << 20};

static int try_open(const char *where, const struct shoal_config *config)
{
	struct shoal *cache;
	int r = shoal_open(where, config, &cache);

	if (!r)
		shoal_close(cache);
	return r;
}

/* ---- other users ------------------------------------------------------------------------------------------- */

struct door {
	pid_t owner;
	uid_t trusted;
	int expected;
	unsigned flags;
};

static int come_as_nobody(void *arg)
{
	const struct door *d = arg;
	struct shoal_config config = {.owner = d->trusted, .flags = d->flags};

	must(!setgid(NOBODY) && !setuid(NOBODY));
	must(try_open(name, &config) == d->expected);
	if (d->expected)
		must(shoal_unlink(name) == SHOAL_ERR_PERMISSION);
	return 0;
}

/* Neither read nor write, unlink, cut short, make it theirs, nor signal who uses it. */
static int try_everything(void *arg)
{
	const struct door *d = arg;
	char path[64];

	must(!setgid(NOBODY) && !setuid(NOBODY));
	must(try_open(name, NULL) == SHOAL_ERR_PERMISSION);
	must(try_open(name, &(struct shoal_config){.owner = 0, .flags = SHOAL_INSPECT}) == SHOAL_ERR_PERMISSION);
	must(open(file, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	must(truncate(file, 0) && errno == EACCES);
	must(chmod(file, 0666) && errno == EPERM);
	must(unlink(file) && errno == EPERM);
	must(rename(file, "/dev/shm/theirs") && errno == EPERM);
	must(kill(d->owner, 0) && errno == EPERM);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)d->owner);
	must(open(path, O_RDWR | O_CLOEXEC) < 0);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)d->owner);
	must(open(path, O_RDONLY | O_CLOEXEC) < 0);
	return 0;
}

static bool am_root(void)
{
	if (!geteuid())
		return true;
	skipped("not root: no other user to be");
	return false;
}

static void others_stay_outside(void **state)
{
	struct door d = {.owner = getpid()};
	struct shoal_keyspace *k;
	struct shoal *cache;

	if (!am_root())
		return;
	assert_int_equal(shoal_open(name, &small, &cache), SHOAL_OK);
	k = keyspace(cache, "test", NULL);
	assert_set(k, "a", "x");
	assert_ends_well(spawn(try_everything, &d));
	assert_gives(k, "a", "x");
	shoal_close(cache);
}

/* Others may read by its creator's wish: they may look, and no more. */
static void readers_may_inspect(void **state)
{
	struct door look = {.flags = SHOAL_INSPECT}, attach = {.expected = SHOAL_ERR_PERMISSION};

	if (!am_root())
		return;
	assert_int_equal(try_open(name, &(struct shoal_config){.size = 1 << 20, .mode = 0644}), SHOAL_OK);
	assert_ends_well(spawn(come_as_nobody, &attach));
	assert_ends_well(spawn(come_as_nobody, &look));
}

/* 0666 is only as good as its creator's wish. */
static void a_mode_beyond_its_own(void **state)
{
	assert_int_equal(try_open(name, &small), SHOAL_OK);
	assert_int_equal(chmod(file, 0666), 0);
	assert_int_equal(try_open(name, &small), SHOAL_ERR_PERMISSION);
	assert_int_equal(try_open(name, &(struct shoal_config){.flags = SHOAL_INSPECT}), SHOAL_ERR_PERMISSION);
	assert_int_equal(try_open(name, &(struct shoal_config){.mode = 0666}), SHOAL_ERR_PERMISSION);
	assert_int_equal(shoal_unlink(name), SHOAL_OK);
	assert_int_equal(try_open(name, &(struct shoal_config){.size = 1 << 20, .mode = 0666}), SHOAL_OK);
	assert_int_equal(try_open(name, &small), SHOAL_OK);
}

/* Who was first to the name in a folder for everybody is not thereby trusted, not even by root. */
static void a_segment_of_another_owner(void **state)
{
	struct door theirs = {.expected = SHOAL_ERR_PERMISSION}, trusted = {.trusted = 12345};
	struct shoal_config config = {.size = 1 << 20, .mode = 0666};

	if (!am_root())
		return;
	assert_int_equal(try_open(name, &config), SHOAL_OK);
	assert_int_equal(chown(file, 12345, (gid_t)-1), 0);
	assert_ends_well(spawn(come_as_nobody, &theirs));
	assert_ends_well(spawn(come_as_nobody, &trusted));
	assert_int_equal(try_open(name, &config), SHOAL_ERR_PERMISSION);
	config.owner = 12345;
	assert_int_equal(try_open(name, &config), SHOAL_OK);
}

/* ---- names ------------------------------------------------------------------------------------------------- */

static void names_stay_in_dev_shm(void **state)
{
	static const char *const names[] = {".",    "..", ".x",   "..x", "%s", "a:b",
	                                    "a\\b", "~",  "-/..", "a b", "*",  "$HOME"};
	size_t i;

	for (i = 0; i < COUNT(names); i++) {
		if (strchr(names[i], '/'))
			continue; /* a path is the caller's own */
		assert_int_equal(try_open(names[i], &small), SHOAL_ERR_INVALID);
		assert_int_equal(shoal_unlink(names[i]), SHOAL_ERR_INVALID);
	}
}

static void assert_refused(void)
{
	assert_int_equal(try_open(name, &small), SHOAL_ERR_INVALID);
	assert_int_equal(try_open(name, &(struct shoal_config){.flags = SHOAL_ATTACH}), SHOAL_ERR_INVALID);
	assert_int_equal(try_open(name, &(struct shoal_config){.flags = SHOAL_INSPECT}), SHOAL_ERR_INVALID);
	assert_int_equal(try_open(name, &(struct shoal_config){.size = 1 << 20, .flags = SHOAL_EXCLUSIVE}),
	                 SHOAL_ERR_EXISTS);
}

static void what_stands_at_a_name(void **state)
{
	char other[110];
	struct stat before, after;

	snprintf(other, sizeof(other), "%s.other", file);
	assert_int_equal(try_open(other, &small), SHOAL_OK);
	assert_int_equal(stat(other, &before), 0);
	assert_int_equal(symlink(other, file), 0); /* to a good one, */
	assert_refused();
	unlink(file);
	assert_int_equal(link(other, file), 0); /* by its second name, */
	assert_refused();
	unlink(file);
	assert_int_equal(symlink("/nowhere/to/be/made", file), 0); /* to nothing: nor is it made there, */
	assert_refused();
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0); /* a FIFO that nobody opens at its other end, */
	assert_refused();
	unlink(file);
	assert_int_equal(mkdir(file, 0700), 0); /* a folder */
	assert_refused();
	assert_int_equal(shoal_unlink(name), SHOAL_ERR_SYSTEM);
	rmdir(file);
	assert_int_equal(stat(other, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	unlink(other);
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

/*
 * The adversary knows the seed, which nobody can: XXH3 of eight bytes is a bijection, so each hash has its key. Its
 * last step back, x ^= rotl(x, 49) ^ rotl(x, 24), is linear, and its 64th power is the identity.
 */
static uint64_t rotate(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static uint64_t key_of_hash(uint64_t hash, uint64_t seed)
{
	const uint64_t prime = 0x9fb21c651e98df25u;
	uint64_t x = hash, inverse = prime, flip, h;
	int i;

	for (i = 0; i < 6; i++)
		inverse *= 2 - prime * inverse;
	x ^= x >> 28 ^ x >> 56;
	x *= inverse;
	for (h = x, i = 0; i < 64; i++) /* h ^ ((h >> 35) + 8) is x */
		h = x ^ ((h >> 35) + 8);
	x = h * inverse;
	for (i = 0; i < 63; i++)
		x = x ^ rotate(x, 49) ^ rotate(x, 24);
	seed ^= (uint64_t)__builtin_bswap32((uint32_t)seed) << 32;
	flip = (XXH_readLE64(XXH3_kSecret + 8) ^ XXH_readLE64(XXH3_kSecret + 16)) - seed;
	x ^= flip;
	return x >> 32 | x << 32;
}

/* Keys of one pair of buckets, one tag, one window of flights. */
static uint64_t chosen_key(const struct segment *s, const struct shoal_keyspace *k, unsigned i)
{
	uint64_t hash = UINT64_C(0x0000000012345678) | (uint64_t)i << 36,
		 key = key_of_hash(hash, s->geometry.seed + k->id);

	assert_int_equal(hash_bytes(&key, sizeof(key), s->geometry.seed + k->id), hash);
	return key;
}

enum { CHOSEN = 500, BYSTANDERS = 200 };

/* Used slots of the index, and in how many buckets. */
static unsigned used_slots(const struct segment *s, unsigned *buckets)
{
	unsigned n = 0, in;
	uint32_t b, i;

	*buckets = 0;
	for (b = 0; b < s->geometry.buckets; b++) {
		for (in = 0, i = 0; i < BUCKET_SLOTS; i++)
			in += SLOT_IS_USED(w64_load(&s->index[b].slots[i]));
		*buckets += in > 0;
		n += in;
	}
	return n;
}

/* However many of them there are, they have sixteen slots in two buckets, which is all that a look-up reads; they
 * displace each other and nobody else. */
static void chosen_keys_displace_each_other(void **state)
{
	struct shoal *cache;
	struct shoal_keyspace *k;
	const struct segment *s;
	unsigned i, buckets, kept = 0, found = 0;
	uint64_t key, value;
	size_t size;

	assert_int_equal(shoal_open(NULL, &small, &cache), SHOAL_OK);
	k = keyspace(cache, "test", NULL);
	s = &cache->member->segment;
	for (i = 0; i < CHOSEN; i++) {
		key = chosen_key(s, k, i);
		assert_int_equal(shoal_set(k, &key, sizeof(key), &key, sizeof(key)), SHOAL_OK);
		assert_int_equal(shoal_read(k, &key, sizeof(key), &value, sizeof(value), &size), SHOAL_OK);
		assert_true(value == key);
	}
	assert_int_equal(used_slots(s, &buckets), 16);
	assert_int_equal(buckets, 2);
	for (i = 0; i < BYSTANDERS; i++)
		assert_int_equal(shoal_set(k, &i, sizeof(i), &i, sizeof(i)), SHOAL_OK);
	for (i = 0; i < CHOSEN; i++) {
		key = chosen_key(s, k, i);
		shoal_set(k, &key, sizeof(key), &key, sizeof(key));
	}
	for (i = 0; i < BYSTANDERS; i++)
		kept += shoal_read(k, &i, sizeof(i), &value, sizeof(value), &size) == SHOAL_OK;
	for (i = 0; i < CHOSEN; i++) {
		key = chosen_key(s, k, i);
		if (shoal_read(k, &key, sizeof(key), &value, sizeof(value), &size))
			continue;
		assert_true(value == key); /* keys are compared whole */
		found++;
	}
	printf("# %d keys of one place: %u are found; %u of %d others\n", CHOSEN, found, kept, BYSTANDERS);
	assert_true(found <= 16 && found > 0);
	assert_true(kept >= BYSTANDERS - 16);
	shoal_close(cache);
}

/* Likewise their loads: a window of flights, and beyond it they are loaded uncoalesced. */
static void chosen_keys_have_a_window_of_flights(void **state)
{
	struct shoal_load *loads[64], *other, *again;
	struct shoal_keyspace *k;
	struct shoal_value value;
	struct shoal *cache;
	const char *bystander = "another";
	unsigned i, stored = 0;
	uint64_t key;
	int r;

	assert_int_equal(shoal_open(NULL, &small, &cache), SHOAL_OK);
	k = keyspace(cache, "test", NULL);
	for (i = 0; i < COUNT(loads); i++) {
		key = chosen_key(&cache->member->segment, k, i);
		assert_int_equal(shoal_begin(k, &key, sizeof(key), &loads[i], &value), SHOAL_LEAD);
	}
	assert_true(stats_of(cache).flights <= 16);
	assert_int_equal(shoal_begin(k, STR(bystander), &other, &value), SHOAL_LEAD);
	r = shoal_begin(k, STR(bystander), &again, &value);
	assert_true(r == SHOAL_WAIT || r == SHOAL_LEAD); /* its window may be theirs, by chance: one in eight */
	shoal_load_cancel(again);
	shoal_load_cancel(other);
	for (i = 0; i < COUNT(loads); i++) {
		r = shoal_load_publish(loads[i], "x", 1);
		assert_true(r == SHOAL_OK || r == SHOAL_ERR_LIMIT); /* without a flight: its caller's alone */
		stored += r == SHOAL_OK;
	}
	assert_int_equal(stored, 16);
	assert_int_equal(stats_of(cache).flights, 0);
	shoal_close(cache);
}

static void every_segment_has_its_seed(void **state)
{
	uint64_t seeds[3];
	struct shoal *cache;
	unsigned i;

	for (i = 0; i < COUNT(seeds); i++) {
		assert_int_equal(shoal_open(NULL, &small, &cache), SHOAL_OK);
		seeds[i] = cache->member->segment.geometry.seed;
		shoal_close(cache);
	}
	assert_true(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(others_stay_outside),
		CASE(readers_may_inspect),
		CASE(a_mode_beyond_its_own),
		CASE(a_segment_of_another_owner),
		CASE(names_stay_in_dev_shm),
		CASE(what_stands_at_a_name),
		CASE(chosen_keys_displace_each_other),
		CASE(chosen_keys_have_a_window_of_flights),
		CASE(every_segment_has_its_seed),
	};

	return cmocka_run_group_tests_name("doors", tests, NULL, NULL);
}
