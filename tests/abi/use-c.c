/* SPDX-License-Identifier: MIT */
/* The installed header and the shared library, as a strict C11 program uses them: one function per part of the API. */
#define _POSIX_C_SOURCE 200809L
#include <shoal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

#define STR(text) (text), strlen(text)

static const struct shoal_policy steady = {
	.fresh_ms = 1000,
	.stale_ms = 1000,
	.error_ms = 1000,
	.retry_ms = 100,
	.jitter_permille = SHOAL_NONE,
	.early = -1,
};

static uint64_t now_ns = 1000000000;

static uint64_t test_clock(void *arg)
{
	return *(uint64_t *)arg;
}

static void pass(unsigned ms)
{
	now_ns += ms * UINT64_C(1000000);
}

static int holds(const struct shoal_value *value, const char *text)
{
	return value->data && value->size == strlen(text) && memcmp(value->data, text, value->size) == 0;
}

static int reads(struct shoal_keyspace *keyspace, const char *key, const char *text)
{
	struct shoal_value value;
	int good = shoal_get(keyspace, STR(key), &value) == SHOAL_OK && holds(&value, text);

	shoal_release(&value);
	return good;
}

static struct shoal *open_anonymous(void)
{
	struct shoal_config config = {.size = 8 << 20, .clock = test_clock, .clock_arg = &now_ns};
	struct shoal *cache = NULL;

	check(shoal_open(NULL, &config, &cache) == SHOAL_OK && cache, "an anonymous segment");
	if (!cache)
		exit(done());
	return cache;
}

static struct shoal_keyspace *open_keyspace(struct shoal *cache, const char *name, const struct shoal_policy *policy)
{
	struct shoal_keyspace *keyspace = NULL;

	check(shoal_keyspace_open(cache, name, 1, policy, &keyspace) == SHOAL_OK && keyspace, name);
	if (!keyspace)
		exit(done());
	return keyspace;
}

static void names(void)
{
	char version[32];
	int distinct = 1;

	snprintf(version, sizeof(version), "%d.%d.%d", SHOAL_VERSION_MAJOR, SHOAL_VERSION_MINOR, SHOAL_VERSION_PATCH);
	check(strcmp(shoal_version(), version) == 0, "the library is of the header's version");
	for (int a = SHOAL_ERR_NOT_FOUND; a <= SHOAL_WAIT; a++)
		for (int b = SHOAL_ERR_NOT_FOUND; b < a; b++)
			distinct &= strcmp(shoal_strerror(a), shoal_strerror(b)) != 0;
	check(distinct, "every code has a text of its own");
	check(shoal_strerror(12345) && shoal_strerror(-12345), "unknown codes have a text");
}

static void bad_arguments(struct shoal *cache, struct shoal_keyspace *keyspace)
{
	struct shoal *none = NULL;
	struct shoal_keyspace *nowhere = NULL;
	struct shoal_config tiny = {.size = 4096};
	struct shoal_value value;

	check(shoal_open(".hidden", NULL, &none) == SHOAL_ERR_INVALID && !none,
	      "a segment's name may not start with a dot");
	check(shoal_open("", NULL, &none) == SHOAL_ERR_INVALID && !none, "nor be empty");
	check(shoal_open(NULL, &tiny, &none) == SHOAL_ERR_INVALID && !none, "a segment under 1 MiB is refused");
	check(shoal_keyspace_open(cache, "no/slash", 1, NULL, &nowhere) == SHOAL_ERR_INVALID && !nowhere,
	      "a keyspace's name is checked");
	memset(&value, 0xff, sizeof(value));
	check(shoal_get(keyspace, "", 0, &value) == SHOAL_ERR_INVALID && !value.data && !value.size,
	      "an empty key is invalid");
	shoal_close(NULL);
	shoal_load_cancel(NULL);
	check(1, "closing and cancelling nothing is harmless");
}

static void set_get_delete(struct shoal_keyspace *keyspace)
{
	struct shoal_value value, newer, zeroed = {0};
	uint64_t generation;

	check(shoal_get(keyspace, STR("k"), &value) == SHOAL_MISS && !value.data && !value.size,
	      "nothing there: a miss");
	shoal_release(&value);
	check(shoal_set(keyspace, STR("k"), STR("one")) == SHOAL_OK, "set");
	check(shoal_get(keyspace, STR("k"), &value) == SHOAL_OK && holds(&value, "one"), "get");
	check(value.freshness == SHOAL_FRESH && value.source == SHOAL_HIT && value.age_ms == 0, "a fresh hit");
	check((uintptr_t)value.data % 8 == 0, "aligned to 8 bytes");
	generation = value.generation;

	pass(10);
	check(shoal_set(keyspace, STR("k"), STR("two")) == SHOAL_OK, "set again");
	check(shoal_get(keyspace, STR("k"), &newer) == SHOAL_OK && holds(&newer, "two"), "the new generation is read");
	check(newer.generation > generation, "generations grow");
	check(holds(&value, "one"), "the old one in hand is as it was");
	shoal_release(&value);
	shoal_release(&value);
	shoal_release(&newer);
	shoal_release(&zeroed);

	check(shoal_set(keyspace, STR("empty"), "", 0) == SHOAL_OK && reads(keyspace, "empty", ""),
	      "an empty value is a value");
	check(shoal_delete(keyspace, STR("k")) == SHOAL_OK, "delete");
	check(shoal_get(keyspace, STR("k"), &value) == SHOAL_MISS, "gone");
	check(shoal_delete(keyspace, STR("k")) == SHOAL_MISS, "deleting nothing says so");
}

static void read_and_get_many(struct shoal_keyspace *keyspace)
{
	struct shoal_slice keys[3] = {{STR("a")}, {STR("nothing")}, {STR("b")}};
	struct shoal_value values[3];
	int outcomes[3];
	char buffer[8];
	size_t size = 0;

	shoal_set(keyspace, STR("a"), STR("alpha"));
	shoal_set(keyspace, STR("b"), STR("beta"));
	check(shoal_read(keyspace, STR("a"), buffer, sizeof(buffer), &size) == SHOAL_OK && size == 5 &&
	              memcmp(buffer, "alpha", 5) == 0,
	      "read copies out");
	size = 0;
	check(shoal_read(keyspace, STR("a"), buffer, 4, &size) == SHOAL_ERR_TOO_BIG && size == 5,
	      "a small buffer: too big, and how big");
	check(shoal_read(keyspace, STR("nothing"), buffer, sizeof(buffer), &size) == SHOAL_MISS, "read of nothing");
	check(shoal_get_many(keyspace, keys, 3, values, outcomes) == SHOAL_OK, "get_many");
	check(outcomes[0] == SHOAL_OK && outcomes[1] == SHOAL_MISS && outcomes[2] == SHOAL_OK, "outcomes one by one");
	check(holds(&values[0], "alpha") && holds(&values[2], "beta"), "values one by one");
	for (int i = 0; i < 3; i++)
		shoal_release(&values[i]);
}

static void lives(struct shoal_keyspace *keyspace, struct shoal_keyspace *strict)
{
	struct shoal_value value;

	shoal_set(keyspace, STR("life"), STR("v"));
	pass(999);
	check(shoal_get(keyspace, STR("life"), &value) == SHOAL_OK && value.freshness == SHOAL_FRESH,
	      "fresh for fresh_ms");
	shoal_release(&value);
	pass(2);
	check(shoal_get(keyspace, STR("life"), &value) == SHOAL_OK && value.freshness == SHOAL_STALE, "then stale");
	check(value.age_ms == 1001, "its age is known");
	shoal_release(&value);
	pass(1000);
	check(shoal_get(keyspace, STR("life"), &value) == SHOAL_MISS, "then a miss");

	check(shoal_set_ttl(keyspace, STR("life"), STR("v"), 5000, SHOAL_NONE) == SHOAL_OK, "lives of its own");
	pass(4999);
	check(reads(keyspace, "life", "v"), "fresh as long as it was told");
	pass(2);
	check(shoal_get(keyspace, STR("life"), &value) == SHOAL_MISS, "and no stale life");

	shoal_set(keyspace, STR("life"), STR("v"));
	check(shoal_expire(keyspace, STR("life")) == SHOAL_OK, "expire");
	check(shoal_get(keyspace, STR("life"), &value) == SHOAL_OK && value.freshness == SHOAL_STALE, "stale at once");
	shoal_release(&value);
	check(shoal_expire(keyspace, STR("nothing")) == SHOAL_MISS, "expiring nothing says so");
	shoal_set(strict, STR("life"), STR("v"));
	check(shoal_expire(strict, STR("life")) == SHOAL_OK && shoal_get(strict, STR("life"), &value) == SHOAL_MISS,
	      "without stale_ms expire is delete");
}

struct origin {
	int calls, code;
	struct shoal_keyspace *again;
	int outcome;
};

static int load_from_origin(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	struct origin *origin = arg;
	struct shoal_value value;

	origin->calls++;
	if (origin->again)
		origin->outcome = shoal_fetch(origin->again, key, key_size, load_from_origin, arg, &value);
	if (origin->code)
		return origin->code;
	return shoal_load_publish(load, STR("loaded"));
}

static int load_nothing(struct shoal_load *load, const void *key, size_t key_size, void *arg)
{
	(void)load, (void)key, (void)key_size, (void)arg;
	return 0;
}

static void fetch(struct shoal_keyspace *keyspace)
{
	struct origin origin = {0};
	struct shoal_value value;

	check(shoal_fetch(keyspace, STR("f"), load_from_origin, &origin, &value) == SHOAL_OK && holds(&value, "loaded"),
	      "fetch loads");
	check(value.source == SHOAL_LOADED && origin.calls == 1, "once");
	shoal_release(&value);
	check(shoal_fetch(keyspace, STR("f"), load_from_origin, &origin, &value) == SHOAL_OK && holds(&value, "loaded"),
	      "fetch again");
	check(value.source == SHOAL_HIT && origin.calls == 1, "is a hit");
	shoal_release(&value);

	origin = (struct origin){.code = 42};
	check(shoal_fetch(keyspace, STR("bad"), load_from_origin, &origin, &value) == SHOAL_ERR_LOAD,
	      "a loader that fails");
	check(!value.data && value.load_error == 42 && origin.calls == 1, "its code comes through");
	check(shoal_fetch(keyspace, STR("bad"), load_from_origin, &origin, &value) == SHOAL_ERR_LOAD &&
	              value.load_error == 42 && origin.calls == 1,
	      "and is remembered for retry_ms");
	pass(101);
	origin.code = 0;
	check(shoal_fetch(keyspace, STR("bad"), load_from_origin, &origin, &value) == SHOAL_OK && origin.calls == 2,
	      "not longer");
	shoal_release(&value);

	pass(2500); /* "bad" is within error_ms now */
	check(shoal_get(keyspace, STR("bad"), &value) == SHOAL_MISS, "within error_ms get misses");
	origin.code = 43;
	check(shoal_fetch(keyspace, STR("bad"), load_from_origin, &origin, &value) == SHOAL_OK &&
	              holds(&value, "loaded") && value.freshness == SHOAL_STALE && value.load_error == 43,
	      "a failed load is covered by the old value");
	shoal_release(&value);

	check(shoal_fetch(keyspace, STR("idle"), load_nothing, NULL, &value) == SHOAL_ERR_LOAD && value.load_error == 0,
	      "a loader that publishes nothing has failed");
	origin = (struct origin){.again = keyspace};
	check(shoal_fetch(keyspace, STR("self"), load_from_origin, &origin, &value) == SHOAL_OK &&
	              origin.outcome == SHOAL_ERR_DEADLOCK && origin.calls == 1,
	      "a loader that asks for its own key is told");
	shoal_release(&value);
}

static void begin(struct shoal_keyspace *keyspace)
{
	struct shoal_load *lead = NULL, *wait = NULL;
	struct shoal_value value;
	char *space;

	check(shoal_begin(keyspace, STR("b1"), &lead, &value) == SHOAL_LEAD && lead && !value.data, "begin: lead");
	check(!shoal_load_previous(lead), "nothing came before");
	check(shoal_begin(keyspace, STR("b1"), &wait, &value) == SHOAL_WAIT && wait, "another begin: wait");
	check(shoal_wait(wait, 0, &value) == SHOAL_ERR_TIMEOUT && !value.data, "not yet");
	check(shoal_load_publish(wait, STR("x")) == SHOAL_ERR_INVALID, "who waits can't publish");
	/* which has ended that handle */
	check(shoal_begin(keyspace, STR("b1"), &wait, &value) == SHOAL_WAIT && wait, "wait once more");
	check(shoal_load_renew(lead) == SHOAL_OK, "renew");
	check(shoal_load_publish(lead, STR("published")) == SHOAL_OK, "publish");
	check(shoal_wait(wait, 1000, &value) == SHOAL_OK && holds(&value, "published"), "the waiter has it");
	check(value.source == SHOAL_COALESCED, "without loading");
	shoal_release(&value);
	check(shoal_begin(keyspace, STR("b1"), &lead, &value) == SHOAL_OK && !lead && holds(&value, "published"),
	      "begin: a hit");
	shoal_release(&value);

	pass(1001);
	check(shoal_begin(keyspace, STR("b1"), &lead, &value) == SHOAL_REFRESH && lead && holds(&value, "published") &&
	              value.freshness == SHOAL_STALE,
	      "begin: refresh");
	shoal_release(&value);
	check(shoal_load_previous(lead) && holds(shoal_load_previous(lead), "published"), "the previous value");
	check(shoal_begin(keyspace, STR("b1"), &wait, &value) == SHOAL_OK && !wait && holds(&value, "published"),
	      "the others get the stale one");
	shoal_release(&value);
	space = shoal_load_reserve(lead, 4);
	check(space != NULL, "reserve");
	memcpy(space, "grow", 4);
	space = shoal_load_reserve(lead, 4000);
	check(space && memcmp(space, "grow", 4) == 0, "reserve more: it keeps what was written");
	memcpy(space + 4, "n!", 2);
	shoal_load_ttl(lead, 7000, 0);
	check(shoal_load_commit(lead, 6) == SHOAL_OK && reads(keyspace, "b1", "grown!"), "commit");
	pass(6999);
	check(shoal_get(keyspace, STR("b1"), &value) == SHOAL_OK && value.freshness == SHOAL_FRESH, "a load's own ttl");
	shoal_release(&value);

	check(shoal_begin(keyspace, STR("b2"), &lead, &value) == SHOAL_LEAD, "lead for a commit_value");
	space = shoal_load_reserve(lead, 3);
	memcpy(space, "mine", 3);
	check(shoal_load_commit_value(lead, 3, &value) == SHOAL_OK && holds(&value, "min"),
	      "commit hands the value over");
	shoal_release(&value);

	check(shoal_begin(keyspace, STR("b3"), &lead, &value) == SHOAL_LEAD, "lead for a failure");
	check(shoal_begin(keyspace, STR("b3"), &wait, &value) == SHOAL_WAIT, "and a waiter");
	check(shoal_load_fail(lead, 77) == SHOAL_OK, "fail");
	check(shoal_wait(wait, 1000, &value) == SHOAL_ERR_LOAD && value.load_error == 77, "the waiter hears of it");
	shoal_load_cancel(wait);
	check(shoal_begin(keyspace, STR("b3"), &lead, &value) == SHOAL_ERR_LOAD && !lead && value.load_error == 77,
	      "and so does who asks next");

	check(shoal_begin(keyspace, STR("b4"), &lead, &value) == SHOAL_LEAD, "lead to give up");
	check(shoal_begin(keyspace, STR("b4"), &wait, &value) == SHOAL_WAIT, "with a waiter");
	shoal_load_cancel(lead);
	check(shoal_wait(wait, 1000, &value) == SHOAL_LEAD, "the waiter leads now");
	check(shoal_load_publish(wait, STR("heir")) == SHOAL_OK && reads(keyspace, "b4", "heir"), "and publishes");

	check(shoal_begin(keyspace, STR("b5"), &lead, &value) == SHOAL_LEAD, "lead and be superseded");
	check(shoal_set(keyspace, STR("b5"), STR("newer")) == SHOAL_OK, "by a set");
	check(shoal_load_publish(lead, STR("older")) == SHOAL_ERR_SUPERSEDED && reads(keyspace, "b5", "newer"),
	      "it is told");
	check(shoal_begin(keyspace, STR("b6"), &lead, &value) == SHOAL_LEAD, "lead once more");
	check(shoal_delete(keyspace, STR("b6")) == SHOAL_MISS, "delete what is being loaded");
	check(shoal_load_publish(lead, STR("older")) == SHOAL_ERR_SUPERSEDED, "it does not come back");
	check(shoal_get(keyspace, STR("b6"), &value) == SHOAL_MISS, "it is not there");
}

struct seen {
	int visits, good, stop;
};

static int visit(const struct shoal_entry *entry, void *arg)
{
	struct seen *seen = arg;
	char value[3] = "";

	seen->visits++;
	seen->good += strcmp(entry->keyspace, "scanned") == 0 && entry->version == 1 && entry->key.size == 2 &&
	              entry->size == 3 && entry->fresh_left_ms == 1000 && entry->age_ms == 0 &&
	              shoal_entry_read(entry, value, 2) == SHOAL_ERR_TOO_BIG &&
	              shoal_entry_read(entry, value, 3) == SHOAL_OK &&
	              (!memcmp(value, "one", 3) || !memcmp(value, "two", 3));
	return seen->stop;
}

static void scan_and_stats(struct shoal *cache, struct shoal_keyspace *keyspace)
{
	struct seen seen = {0};
	struct shoal_stats stats;
	struct shoal_keyspace_stats before, after;
	struct origin origin = {0};
	struct shoal_value value;

	shoal_set(keyspace, STR("s1"), STR("one"));
	shoal_set(keyspace, STR("s2"), STR("two"));
	check(shoal_scan(cache, "scanned", visit, &seen) == SHOAL_OK && seen.visits == 2 && seen.good == 2,
	      "scan a keyspace");
	seen = (struct seen){.stop = 9};
	check(shoal_scan(cache, "scanned", visit, &seen) == 9 && seen.visits == 1, "a visitor can stop it");
	seen = (struct seen){0};
	check(shoal_scan(cache, NULL, visit, &seen) == SHOAL_OK && seen.visits > 2, "scan all");
	seen = (struct seen){0};
	check(shoal_scan(cache, "unheard-of", visit, &seen) >= SHOAL_OK && !seen.visits, "scan what is not there");

	check(shoal_keyspace_stats(keyspace, &before) == SHOAL_OK, "keyspace statistics");
	reads(keyspace, "s1", "one");
	shoal_get(keyspace, STR("nothing"), &value);
	shoal_fetch(keyspace, STR("s3"), load_from_origin, &origin, &value);
	shoal_release(&value);
	check(shoal_keyspace_stats(keyspace, &after) == SHOAL_OK, "and again");
	check(after.hits_fresh - before.hits_fresh == 1, "a hit is counted");
	check(after.misses - before.misses >= 2, "misses are");
	check(after.loads - before.loads == 1, "a load is");

	check(shoal_stats(cache, &stats) == SHOAL_OK, "statistics of the segment");
	check(stats.bytes_live + stats.bytes_dead + stats.bytes_free + stats.bytes_overhead == stats.size,
	      "every byte is one of four");
	check(stats.entries >= 3 && stats.processes == 1 && stats.threads >= 1 && !stats.pins && !stats.flights,
	      "entries, processes, and nothing held");
	check(stats.total.loads >= after.loads && stats.total.hits_fresh >= after.hits_fresh,
	      "the total covers its parts");
	check(shoal_reap(cache) == 0, "nobody has died");
}

static void across_fork(struct shoal *cache, struct shoal_keyspace *keyspace)
{
	struct shoal_value held;
	int status = -1;
	pid_t child;

	shoal_set(keyspace, STR("parent"), STR("p"));
	shoal_get(keyspace, STR("parent"), &held);
	fflush(stdout);
	child = fork();
	if (child == 0) {
		int bad = 0;

		shoal_release(&held); /* the parent's: stays */
		bad |= !reads(keyspace, "parent", "p");
		bad |= shoal_set(keyspace, STR("child"), STR("c")) != SHOAL_OK;
		_exit(bad);
	}
	check(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a child uses the parent's handles");
	check(reads(keyspace, "child", "c"), "what a child set the parent reads");
	check(holds(&held, "p"), "what the parent held is still its own");
	shoal_release(&held);
	check(shoal_reap(cache) >= 0 && shoal_reap(cache) == 0, "the child's slots are recovered");
}

static void named(void)
{
	struct shoal_config small = {.size = 2 << 20}, exclusive = {.size = 2 << 20, .flags = SHOAL_EXCLUSIVE};
	struct shoal_config attach = {.flags = SHOAL_ATTACH}, inspect = {.flags = SHOAL_INSPECT | SHOAL_ATTACH};
	struct shoal *one = NULL, *two = NULL, *none = NULL, *looker = NULL;
	struct shoal_keyspace *k1 = NULL, *k2 = NULL;
	struct shoal_stats stats;
	struct seen seen = {0};
	char name[64];

	snprintf(name, sizeof(name), "abi-%ld", (long)getpid());
	check(shoal_open(name, &attach, &none) == SHOAL_ERR_NOT_FOUND && !none, "no segment to attach");
	check(shoal_unlink(name) == SHOAL_ERR_NOT_FOUND, "none to unlink");
	check(shoal_open(name, &small, &one) == SHOAL_OK && one, "a named segment");
	if (!one)
		return;
	check(shoal_open(name, &exclusive, &none) == SHOAL_ERR_EXISTS && !none, "it exists");
	check(shoal_open(name, &attach, &two) == SHOAL_OK && two, "attach it a second time");
	check(shoal_keyspace_open(one, "n", 1, NULL, &k1) == SHOAL_OK, "a keyspace through one handle");
	check(two && shoal_keyspace_open(two, "n", 1, NULL, &k2) == SHOAL_OK, "and through the other");
	check(k1 && shoal_set(k1, STR("k"), STR("v")) == SHOAL_OK, "set through one");
	check(k2 && reads(k2, "k", "v"), "get through the other");
	check(shoal_open(name, &inspect, &looker) == SHOAL_OK && looker, "a handle that only looks");
	check(looker && shoal_stats(looker, &stats) == SHOAL_OK && stats.size == small.size && stats.entries == 1,
	      "it sees the statistics");
	check(looker && shoal_scan(looker, NULL, visit, &seen) == SHOAL_OK && seen.visits == 1, "and the entries");
	shoal_close(looker);
	shoal_close(two);
	check(shoal_unlink(name) == SHOAL_OK && shoal_unlink(name) == SHOAL_ERR_NOT_FOUND, "unlink, once");
	check(k1 && reads(k1, "k", "v"), "those attached keep it");
	shoal_close(one);
}

static void outlive(struct shoal *cache, struct shoal_keyspace *keyspace)
{
	struct shoal_value value;

	shoal_set(keyspace, STR("last"), STR("word"));
	check(shoal_get(keyspace, STR("last"), &value) == SHOAL_OK, "a value in hand");
	shoal_close(cache);
	check(holds(&value, "word"), "outlives shoal_close");
	shoal_release(&value);
}

int main(void)
{
	struct shoal_policy without_stale = steady;
	struct shoal_keyspace *main_space, *strict, *scanned;
	struct shoal *cache;

	names();
	cache = open_anonymous();
	main_space = open_keyspace(cache, "main", &steady);
	without_stale.stale_ms = without_stale.error_ms = 0;
	strict = open_keyspace(cache, "strict", &without_stale);
	scanned = open_keyspace(cache, "scanned", &steady);
	bad_arguments(cache, main_space);
	set_get_delete(main_space);
	read_and_get_many(main_space);
	lives(main_space, strict);
	fetch(main_space);
	begin(main_space);
	scan_and_stats(cache, scanned);
	across_fork(cache, main_space);
	named();
	outlive(cache, main_space);
	return done();
}
