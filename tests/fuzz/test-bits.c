/* SPDX-License-Identifier: MIT */
/*
 * Every bit. One bit of a small segment is flipped, and a process that joins it then goes through all operations: it
 * must not crash, nor hang, nor see a wrong value. Then the image is put back and the next bit is flipped. The bits are
 * those of all metadata and of the entries' headers and keys, in a random order, each once, for as long as there is time. Then the same with overwrites: up to 64 bytes anywhere, and words that
 * are likely to mislead.
 *
 *   SHOAL_TEST_SECONDS   how long, both together (10)
 *   SHOAL_TEST_SEED      what to repeat; printed
 *   SHOAL_TEST_AREA      bits of that one alone: header, heads, processes ...
 *   SHOAL_TEST_BIT, SHOAL_TEST_OVERWRITE    this one alone, as it was printed; the first with its seed
 */
#include "testing.h"

#include "scene.h"

enum { HANG_S = 20 };

static struct scene scene;
static struct shared {
	word64 began_ns;
	word32 faults; /* that a check said, right after the flip */
	char wrong[256], fault[320];
} *shared;
static struct shoal_value pinned;
static struct shoal_load *led;
static uint64_t seed;

/* ---- where ------------------------------------------------------------------------------------------------- */

enum { HEADER, HEADS, PROCESSES, READERS, FLIGHTS, PERMITS, KEYSPACES, LINES, EXTENTS, GHOSTS, INDEX, ENTRIES, AREAS };
static const char *const area_names[AREAS] = {"header",    "heads", "processes", "readers", "flights", "permits",
					      "keyspaces", "lines", "extents",   "ghosts",  "index",   "entries"};

struct range {
	uint64_t at, size;
	unsigned area;
};

static struct range *ranges;
static uint64_t range_count, bit_count;

static void add_range(unsigned area, const volatile void *at, uint64_t size)
{
	const char *only = getenv("SHOAL_TEST_AREA");

	if (only && strcmp(only, area_names[area]))
		return;
	ranges = realloc(ranges, (range_count + 1) * sizeof(*ranges));
	ranges[range_count++] = (struct range){(uint64_t)((const volatile char *)at - scene.s->base), size, area};
	bit_count += size * 8;
}

static void add_ranges(void)
{
	const struct segment *s = scene.s;
	const struct geometry *g = &s->geometry;
	struct log_entry e;
	uint64_t i, word;

	add_range(HEADER, s->header, offsetof(struct header, heads));
	add_range(HEADS, s->header->heads, sizeof(s->header->heads));
	add_range(PROCESSES, s->processes, g->processes * sizeof(struct process));
	add_range(READERS, s->readers, g->readers * sizeof(struct reader));
	add_range(FLIGHTS, s->flight_words, g->flights * sizeof(word64));
	add_range(FLIGHTS, s->flights, g->flights * sizeof(struct flight));
	add_range(PERMITS, s->permits, g->readers * sizeof(struct permit));
	add_range(KEYSPACES, s->keyspaces, g->keyspaces * sizeof(struct keyspace));
	add_range(LINES, s->lines, g->lines * sizeof(struct line));
	add_range(EXTENTS, s->extents, g->extents * sizeof(struct extent));
	add_range(GHOSTS, s->ghosts, g->ghosts * sizeof(struct ghosts));
	add_range(INDEX, s->index, g->buckets * sizeof(struct bucket));
	for (i = 0; i < index_slots(s); i++) {
		word = w64_load(&s->index[i / BUCKET_SLOTS].slots[i % BUCKET_SLOTS]);
		if (SLOT_IS_USED(word) && log_read(s, SLOT_BYTES(word), &e))
			add_range(ENTRIES, e.entry, sizeof(struct entry) + align_up(e.key_size, 8));
	}
}

static const struct range *range_of(uint64_t bit, uint64_t *at)
{
	uint64_t r;

	for (r = 0; bit >= ranges[r].size * 8; r++)
		bit -= ranges[r].size * 8;
	*at = ranges[r].at * 8 + bit;
	return &ranges[r];
}

/* ---- one try ----------------------------------------------------------------------------------------------- */

static int on_fault(const char *what, int recoverable, void *arg)
{
	if (!recoverable && !w32_load(&shared->faults))
		snprintf(shared->fault, sizeof(shared->fault), "%s", what);
	w32_add(&shared->faults, !recoverable);
	return 0;
}

static void body(unsigned turns)
{
	alarm(HANG_S);
	shoal_check(scene.cache, on_fault, NULL);
	if (!scene_script(&scene, turns))
		snprintf(shared->wrong, sizeof(shared->wrong), "%s", scene.wrong);
	_exit(shared->wrong[0] ? 3 : 0);
}

/* What is changed already; true if nothing bad came of it. */
static bool try(unsigned turns, const char *what)
{
	int status = 0;
	pid_t pid;

	shared->wrong[0] = shared->fault[0] = 0;
	w32_store(&shared->faults, 0);
	w64_store(&shared->began_ns, clock_system_ns(CLOCK_MONOTONIC));
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		body(turns);
	while (waitpid(pid, &status, 0) < 0)
		;
	if (!status)
		return true;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		printf("# %s: hangs\n", what);
	else if (WIFSIGNALED(status))
		printf("# %s: %s\n", what, strsignal(WTERMSIG(status)));
	else
		printf("# %s: %s\n", what, shared->wrong[0] ? shared->wrong : "ended badly");
	fflush(stdout);
	return false;
}

/* ---- the scene --------------------------------------------------------------------------------------------- */

/* Leaves a flight, a permit, a pin and its slots behind. */
static int die(void *arg)
{
	static struct shoal_value value; /* lies beyond the end */
	struct shoal_load *load;
	char name[64];

	must(shoal_get(scene.k, name, scene_key(name, 4), &value) == SHOAL_OK);
	must(shoal_begin(scene.k, STR("of the dead"), &load, &value) == SHOAL_LEAD);
	_exit(0);
}

static int setup(void **state)
{
	struct shoal_value none;
	char name[64], *text = getenv("SHOAL_TEST_SEED");

	shared = share(sizeof(*shared));
	seed = text ? strtoull(text, NULL, 0) : clock_system_ns(CLOCK_REALTIME);
	assert_true(scene_open(&scene, &shared->began_ns));
	assert_int_equal(shoal_get(scene.k, name, scene_key(name, 3), &pinned), SHOAL_OK);
	assert_int_equal(shoal_begin(scene.k, STR("led"), &led, &none), SHOAL_LEAD);
	assert_ends_well(spawn(die, NULL));
	add_ranges();
	scene_save(&scene);
	assert_true(try(600, "nothing"));
	assert_int_equal(w32_load(&shared->faults), 0);
	scene_restore(&scene);
	return 0;
}

static int teardown(void **state)
{
	scene_restore(&scene);
	shoal_load_cancel(led);
	shoal_release(&pinned);
	shoal_close(scene.cache);
	free(scene.image);
	free(ranges);
	return 0;
}

static uint64_t budget_ns(unsigned percent)
{
	const char *text = getenv("SHOAL_TEST_SECONDS");

	return (text ? strtoull(text, NULL, 0) : 10) * SECOND_NS / 100 * percent;
}

/* What the parent holds, it holds: unless what says so was changed. */
static bool hand_is_whole(unsigned area)
{
	return area == READERS || area == EXTENTS || area == AREAS || scene_version(pinned.data, pinned.size, 3) || !printf("# the pinned value changed\n");
}

/* ---- bits -------------------------------------------------------------------------------------------------- */

static uint64_t greatest_common(uint64_t a, uint64_t b)
{
	return b ? greatest_common(b, a % b) : a;
}

static bool flip(uint64_t bit, unsigned *area)
{
	uint64_t at;
	const struct range *r = range_of(bit, &at);
	char what[128];
	bool right;

	*area = r->area;
	snprintf(what, sizeof(what), "bit %" PRIu64 " (%s, byte %" PRIu64 ", bit %u)", bit, area_names[r->area], at / 8 - ranges[r - ranges].at, (unsigned)(at % 8));
	scene.s->base[at / 8] ^= (char)(1 << at % 8);
	right = try(bit % 8 ? 0 : 600, what) && hand_is_whole(r->area); /* every eighth turns the log over */
	scene_restore(&scene);
	return right;
}

static void every_bit(void **state)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + budget_ns(70), n, bit, step, bad = 0;
	uint64_t tried[AREAS] = {0}, named[AREAS] = {0};
	const char *one = getenv("SHOAL_TEST_BIT");
	unsigned area;

	printf("# %" PRIu64 " bits, seed %" PRIu64 "\n", bit_count, seed);
	if (one) {
		assert_true(flip(strtoull(one, NULL, 0), &area));
		return;
	}
	step = draw(&seed) % bit_count | 1;
	while (greatest_common(step, bit_count) != 1)
		step = (step + 2) % bit_count | 1;
	bit = draw(&seed) % bit_count;
	for (n = 0; n < bit_count && clock_system_ns(CLOCK_MONOTONIC) < deadline && bad < 20; n++) {
		bad += !flip(bit, &area);
		tried[area]++;
		named[area] += w32_load(&shared->faults) != 0;
		bit = (bit + step) % bit_count;
	}
	printf("# %" PRIu64 " of %" PRIu64 " bits flipped; flips that shoal_check names:", n, bit_count);
	for (area = 0; area < AREAS; area++)
		printf(" %s %" PRIu64 "/%" PRIu64, area_names[area], named[area], tried[area]);
	printf("\n");
	assert_int_equal(bad, 0);
}

/* ---- overwrites -------------------------------------------------------------------------------------------- */

static char done[400]; /* what was overwritten: the hash seed, and so the places, are new in each run */

static __attribute__((format(printf, 1, 2))) void note(const char *format, ...)
{
	size_t n = strlen(done);
	va_list args;

	va_start(args, format);
	vsnprintf(done + n, sizeof(done) - n, format, args);
	va_end(args);
}

/* A word of the metadata becomes one that is likely to mislead: another one of its kind, next to it, or an extreme. */
static void mislead(uint64_t *random)
{
	const struct range *r = &ranges[draw(random) % range_count];
	uint64_t word, other, *at;

	while (r->area == ENTRIES && draw(random) % 16)
		r = &ranges[draw(random) % range_count];
	at = (uint64_t *)(void *)(scene.s->base + r->at + draw(random) % (r->size / 8) * 8);
	memcpy(&word, at, 8);
	memcpy(&other, scene.s->base + r->at + draw(random) % (r->size / 8) * 8, 8);
	switch (draw(random) % 8) {
	case 0:
		word = 0;
		break;
	case 1:
		word = UINT64_MAX;
		break;
	case 2:
		word += 1 + draw(random) % 3;
		break;
	case 3:
		word -= 1 + draw(random) % 3;
		break;
	case 4:
		word ^= draw(random) % 16 << draw(random) % 61;
		break;
	default:
		word = other;
	}
	note("; %s, byte %" PRIu64 ": %#" PRIx64, area_names[r->area], (uint64_t)((char *)at - scene.s->base) - r->at, *at);
	memcpy(at, &word, 8);
	note(" became %#" PRIx64, word);
}

static void scribble(uint64_t *random)
{
	uint64_t at, size, i;
	bool noise = draw(random) % 2;

	do {
		size = 1 + draw(random) % 64;
		at = draw(random) % ((draw(random) % 4 ? scene.s->geometry.log_at : scene.s->geometry.size) - size);
	} while (scene_is_exempt(&scene, at) || scene_is_exempt(&scene, at + size - 1));
	note("; %" PRIu64 " bytes at %" PRIu64, size, at);
	for (i = 0; i < size; i++)
		scene.s->base[at + i] = (char)(noise ? draw(random) : 0xff * (draw(random) % 2));
}

static bool overwrite(uint64_t which)
{
	uint64_t random = which, n = 1 + draw(&random) % 4;
	bool right;

	snprintf(done, sizeof(done), "overwrite %#" PRIx64, which);
	while (n--)
		if (draw(&random) % 2)
			mislead(&random);
		else
			scribble(&random);
	right = try(600, done);
	scene_restore(&scene);
	return right;
}

static void overwrites(void **state)
{
	uint64_t deadline = clock_system_ns(CLOCK_MONOTONIC) + budget_ns(30), n, bad = 0;
	const char *one = getenv("SHOAL_TEST_OVERWRITE");

	if (one) {
		assert_true(overwrite(strtoull(one, NULL, 0)));
		return;
	}
	for (n = 0; clock_system_ns(CLOCK_MONOTONIC) < deadline && bad < 20; n++)
		bad += !overwrite(draw(&seed));
	printf("# %" PRIu64 " overwrites\n", n);
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit),
		cmocka_unit_test(overwrites),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
