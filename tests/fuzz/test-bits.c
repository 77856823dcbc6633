/* SPDX-License-Identifier: MIT */
/*
 * Every bit. One bit of a small segment is flipped, and a process then goes through all operations: it must not crash,
 * nor hang, nor see a wrong value. Then the image is put back and the next bit is flipped. The bits are those of all
 * metadata and of the entries' headers and keys, in a random order, each once, for as long as there is time. What no
 * reader may take for well, shoal_check names, and who reads it counts it as corrupt. Then the same with overwrites: up
 * to 64 bytes anywhere, and words that are likely to mislead.
 *
 * One process goes on from bit to bit until one is its end; the next one goes on behind that bit. It is a member of
 * the segment, as the image has it. What a process reads as it joins is flipped in front of a child that joins then,
 * and so is every sixteenth bit of the rest.
 *
 *   SHOAL_TEST_SECONDS   how long, both together (10)
 *   SHOAL_TEST_SEED      what to repeat; printed
 *   SHOAL_TEST_PART      K/N: every Nth bit from the Kth on, so that N programs of one seed have all
 *   SHOAL_TEST_OVERWRITES how many at most
 *   SHOAL_TEST_AREA      bits of that one alone: header, heads, processes ...
 *   SHOAL_TEST_BIT, SHOAL_TEST_OVERWRITE    this one alone, as it was printed; the first with its seed
 */
#include "testing.h"

#include "scene.h"

enum { HANG_S = 20, BAD_MOST = 20, TURNS = 600 };

/* The goings on of one case, which outlive who goes on. */
struct course {
	uint64_t n, tried, joined, bad;
	uint64_t by_area[16], named[16];
	bool over;
	char what[512]; /* is being tried */
};

static struct scene scene;
static char *without; /* the image without the one that goes on */
static struct shared {
	word64 began_ns;
	word32 faults; /* that a check said, right after the flip */
	word32 ready;
	char wrong[256], fault[320];
	struct course course;
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

static bool goes_well(unsigned turns)
{
	shoal_check(scene.cache, on_fault, NULL);
	if (!scene_script(&scene, turns))
		snprintf(shared->wrong, sizeof(shared->wrong), "%s", scene.wrong);
	return !shared->wrong[0];
}

static bool ended_well(const char *what, int status)
{
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

/* What is changed already; true if nothing bad came of it. A child joins now; else it is for who is a member. */
static bool try(unsigned turns, bool by_child)
{
	int status = 0;
	pid_t pid;

	shared->wrong[0] = shared->fault[0] = 0;
	w32_store(&shared->faults, 0);
	w64_store(&shared->began_ns, clock_system_ns(CLOCK_MONOTONIC));
	if (!by_child) {
		struct scene before = scene;
		bool right;

		alarm(HANG_S);
		right = goes_well(turns);
		scene = before;
		return right || ended_well(shared->course.what, 3 << 8);
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(HANG_S);
		madvise(scene.s->base, scene.s->geometry.size, MADV_POPULATE_WRITE); /* or fault by fault */
		_exit(goes_well(turns) ? 0 : 3);
	}
	alarm(2 * HANG_S);
	while (waitpid(pid, &status, 0) < 0)
		;
	return ended_well(shared->course.what, status);
}

/* ---- who goes on ------------------------------------------------------------------------------------------- */

/* One more of the course: false, it came to no good end. */
typedef bool step(struct course *c);

static int go_on(void *arg)
{
	step *one = *(step **)arg;
	struct course *c = &shared->course;
	bool right;

	signal(SIGFPE, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	signal(SIGSYS, SIG_DFL);
	must(scene_get(&scene, 5));
	post(&shared->ready);
	must(await(&shared->ready, 2));
	while (!c->over) {
		right = one(c);
		c->n++;
		c->tried++;
		if (!right) /* what it knows of the segment may be wrong now */
			return 3;
		scene_restore(&scene);
	}
	return 0;
}

/* Until the course is over. */
static void go_through(step *one)
{
	struct course *c = &shared->course;
	uint64_t n;
	int status;
	pid_t pid;

	while (!c->over && c->bad < BAD_MOST) {
		memcpy(scene.s->base, without, scene.s->geometry.size);
		w64_store(&shared->began_ns, clock_system_ns(CLOCK_MONOTONIC));
		w32_store(&shared->ready, 0);
		n = c->n;
		fflush(NULL);
		pid = spawn(go_on, &one);
		assert_true(await(&shared->ready, 1));
		assert_true(scene_save(&scene));
		post(&shared->ready);
		while (waitpid(pid, &status, 0) < 0)
			;
		if (!status)
			continue;
		c->bad++;
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 3) { /* in the midst of one */
			ended_well(c->what, status);
			c->n++;
			c->tried++;
		}
		assert_true(c->n > n);
	}
	memcpy(scene.s->base, without, scene.s->geometry.size);
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
	without = malloc(scene.s->geometry.size);
	memcpy(without, scene.s->base, scene.s->geometry.size);
	assert_true(scene_save(&scene)); /* maps it, for all who go on */
	return 0;
}

static int teardown(void **state)
{
	w64_store(&shared->began_ns, clock_system_ns(CLOCK_MONOTONIC));
	shoal_load_cancel(led);
	shoal_release(&pinned);
	if (scene.image)
		munmap(scene.image, scene.s->geometry.size);
	shoal_close(scene.cache);
	free(without);
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
	return area == READERS || area == EXTENTS || area == AREAS || scene_version(pinned.data, pinned.size, 3) ||
	       !printf("# the pinned value changed\n");
}

/* ---- bits -------------------------------------------------------------------------------------------------- */

static uint64_t greatest_common(uint64_t a, uint64_t b)
{
	return b ? greatest_common(b, a % b) : a;
}

/* A process reads them as it joins, or as who it is. */
static bool is_for_a_child(unsigned area)
{
	return area == HEADER || area == HEADS || area == PROCESSES || area == READERS || area == PERMITS ||
	       area == LINES;
}

/* What nobody may take for well: bytes of a header or a key that the checksum covers, and an index slot that points
 * elsewhere. (Bytes behind the key are nobody's, frequency and settled are hints, and of an emptied slot nothing
 * is left to tell.) */
static bool is_to_be_named(const struct range *r, uint64_t at)
{
	const char *image = scene.image + r->at;
	uint64_t word, in_word = at % 64;

	if (r->area == ENTRIES)
		return at / 8 - r->at <
		       sizeof(struct entry) + ENTRY_KEY_SIZE(((const struct entry *)(const void *)image)->kind);
	memcpy(&word, scene.image + at / 64 * 8, 8);
	return r->area == INDEX && SLOT_IS_USED(word) && in_word != 63 && (in_word < 44 || in_word > 46);
}

/* A look-up of its key comes to that entry, and to nothing but its header's bytes. */
static bool is_to_be_counted(const struct range *r, uint64_t at)
{
	uint64_t byte = at / 8 - r->at;

	return r->area == ENTRIES && ((byte >= offsetof(struct entry, stored) && byte < offsetof(struct entry, kind)) ||
				      /* the schema */
				      (byte >= offsetof(struct entry, kind) + 4 && byte < sizeof(struct entry)));
}

static bool is_noticed(const struct range *r, uint64_t at)
{
	struct shoal_stats stats;

	if (!w32_load(&shared->faults) && is_to_be_named(r, at))
		return !printf("# %s: shoal_check says nothing\n", shared->course.what);
	if (is_to_be_counted(r, at) && (shoal_stats(scene.cache, &stats) || !stats.total.corrupt))
		return !printf("# %s: not counted as corrupt\n", shared->course.what);
	return true;
}

static bool flip(struct course *c, uint64_t bit)
{
	uint64_t at;
	const struct range *r = range_of(bit, &at);
	bool by_child = is_for_a_child(r->area) || bit % 16 == 8 || !c;

	snprintf(shared->course.what, sizeof(shared->course.what), "bit %" PRIu64 " (%s, byte %" PRIu64 ", bit %u)",
	         bit, area_names[r->area], at / 8 - r->at, (unsigned)(at % 8));
	scene.s->base[at / 8] ^= (char)(1 << at % 8);
	shared->course.joined += by_child;
	/* every eighth turns the log over */
	return try(bit % 8 ? 0 : TURNS, by_child) && is_noticed(r, at) && hand_is_whole(r->area);
}

static struct {
	uint64_t first, step, part, parts, deadline;
} flips;

static bool next_bit(struct course *c)
{
	uint64_t bit = (uint64_t)((flips.first + (unsigned __int128)flips.step * (c->n * flips.parts + flips.part)) %
	                          bit_count),
		 at;
	unsigned area = range_of(bit, &at)->area;
	bool right = flip(c, bit);

	c->by_area[area]++;
	c->named[area] += w32_load(&shared->faults) != 0;
	c->over = (c->n + 1) * flips.parts + flips.part >= bit_count ||
	          clock_system_ns(CLOCK_MONOTONIC) >= flips.deadline;
	return right;
}

static void every_bit(void **state)
{
	uint64_t began = clock_system_ns(CLOCK_MONOTONIC);
	const char *one = getenv("SHOAL_TEST_BIT"), *part = getenv("SHOAL_TEST_PART");
	struct course *c = &shared->course;
	unsigned area;

	printf("# %" PRIu64 " bits, seed %" PRIu64 "\n", bit_count, seed);
	memset(c, 0, sizeof(*c));
	if (one) {
		bool right = flip(NULL, strtoull(one, NULL, 0));

		memcpy(scene.s->base, without, scene.s->geometry.size);
		assert_true(right);
		return;
	}
	flips.parts = 1;
	if (part && sscanf(part, "%" SCNu64 "/%" SCNu64, &flips.part, &flips.parts) != 2)
		fail_msg("SHOAL_TEST_PART is K/N");
	flips.deadline = began + budget_ns(70);
	flips.step = draw(&seed) % bit_count | 1;
	while (greatest_common(flips.step, bit_count) != 1)
		flips.step = (flips.step + 2) % bit_count | 1;
	flips.first = draw(&seed) % bit_count;
	go_through(next_bit);
	printf("# %" PRIu64 " of %" PRIu64 " bits flipped in %.1f s, %" PRIu64
	       " of them in front of a child that joined then\n",
	       c->tried, bit_count, (double)(clock_system_ns(CLOCK_MONOTONIC) - began) / 1e9, c->joined);
	printf("# flips that shoal_check names:");
	for (area = 0; area < AREAS; area++)
		printf(" %s %" PRIu64 "/%" PRIu64, area_names[area], c->named[area], c->by_area[area]);
	printf("\n");
	assert_int_equal(c->bad, 0);
}

/* ---- overwrites -------------------------------------------------------------------------------------------- */

static bool for_a_child; /* it is among what a process reads as it joins */

/* What was overwritten: the hash seed, and so the places, are new in each run. */
static __attribute__((format(printf, 1, 2))) void note(const char *format, ...)
{
	char *done = shared->course.what;
	size_t n = strlen(done);
	va_list args;

	va_start(args, format);
	vsnprintf(done + n, sizeof(shared->course.what) - n, format, args);
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
	note("; %s, byte %" PRIu64 ": %#" PRIx64, area_names[r->area], (uint64_t)((char *)at - scene.s->base) - r->at,
	     *at);
	memcpy(at, &word, 8);
	for_a_child |= is_for_a_child(r->area);
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
	for_a_child |= at < scene.s->geometry.flights_at ||
	               (at + size > scene.s->geometry.permits_at && at < scene.s->geometry.keyspaces_at) ||
	               (at + size > scene.s->geometry.lines_at && at < scene.s->geometry.extents_at);
}

static bool overwrite(uint64_t which, bool by_child)
{
	uint64_t random = which, n = 1 + draw(&random) % 4;

	snprintf(shared->course.what, sizeof(shared->course.what), "overwrite %#" PRIx64, which);
	for_a_child = by_child;
	while (n--)
		if (draw(&random) % 2)
			mislead(&random);
		else
			scribble(&random);
	shared->course.joined += for_a_child;
	return try(which % 8 ? 0 : TURNS, for_a_child);
}

static uint64_t overwrites_deadline, overwrites_most;

static bool next_overwrite(struct course *c)
{
	uint64_t random = seed ^ scene_mix(c->n + 1);
	bool right = overwrite(draw(&random), c->n % 16 == 0);

	c->over = c->n + 1 >= overwrites_most || clock_system_ns(CLOCK_MONOTONIC) >= overwrites_deadline;
	return right;
}

static void overwrites(void **state)
{
	const char *one = getenv("SHOAL_TEST_OVERWRITE"), *most = getenv("SHOAL_TEST_OVERWRITES");
	uint64_t began = clock_system_ns(CLOCK_MONOTONIC);
	struct course *c = &shared->course;

	memset(c, 0, sizeof(*c));
	if (one) {
		bool right = overwrite(strtoull(one, NULL, 0), true);

		memcpy(scene.s->base, without, scene.s->geometry.size);
		assert_true(right);
		return;
	}
	overwrites_most = most ? strtoull(most, NULL, 0) : UINT64_MAX;
	overwrites_deadline = began + budget_ns(30);
	go_through(next_overwrite);
	printf("# %" PRIu64 " overwrites in %.1f s, %" PRIu64 " of them in front of a child that joined then\n",
	       c->tried, (double)(clock_system_ns(CLOCK_MONOTONIC) - began) / 1e9, c->joined);
	assert_int_equal(c->bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit),
		cmocka_unit_test(overwrites),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
