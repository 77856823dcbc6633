/* SPDX-License-Identifier: MIT */
/*
 * Extents and the log in them. Holds E.1 (an extent with a writer or a pin in it is not walked), E.2 (retired until its
 * readers have gone), L.1 (a dead owner's lock is taken over as it is) and L.2 (a busy head is passed by, and
 * replaced), and that no bytes, whatever they say, lead a reader out of its extent.
 */

#include "inside.h"

static int set_up(void **state)
{
	static struct inside in;

	in = go_inside(&(struct shoal_config){.size = 1 << 20});
	*state = &in;
	return 0;
}

static int tear_down(void **state)
{
	struct inside *in = *state;

	assert_true(is_clear(in->seat));
	close_place(&in->p);
	return 0;
}

static enum extent_state state_of(const struct inside *in, uint32_t x)
{
	return EXTENT_STATE(extents_word(in->s, x));
}

/* Append and let go; the extent it went to. */
static int64_t append(struct inside *in, uint32_t length, uint64_t *offset)
{
	bool opened = false;
	int r = log_append(in->seat, WRITING, LOG_PROBATION, length, offset, &opened);

	rcu_clear(in->seat, WRITING);
	return r ? -r : (int64_t)extent_of(in->s, *offset);
}

/* An extent that is full and SEALED. */
static uint32_t fill_one(struct inside *in)
{
	uint64_t offset;
	int64_t x = append(in, 512, &offset);

	assert_true(x >= 0);
	while (state_of(in, (uint32_t)x) == EXTENT_OPEN)
		assert_true(append(in, 512, &offset) >= 0);
	assert_int_equal(state_of(in, (uint32_t)x), EXTENT_SEALED);
	return (uint32_t)x;
}

static void an_extent_comes_round(void **state)
{
	struct inside *in = *state;
	uint32_t x = fill_one(in), at = 0, n = 0;
	unsigned free_ones;
	uint64_t offset, word = extents_word(in->s, x);

	assert_true(extents_claim(in->seat, x));
	assert_int_equal(state_of(in, x), EXTENT_EVICTING);
	assert_false(extents_claim(in->seat, x));
	rcu_announce(in->seat, WALKING, x); /* the second claim failed, and took its announcement back */
	while (log_next(in->s, x, &at, &offset)) {
		assert_int_equal(w32_load(&log_at(in->s, offset)->length), 512);
		n++;
	}
	assert_int_equal(n, in->s->geometry.extent_size / 512);
	extents_retire(in->seat, x);
	assert_int_equal(state_of(in, x), EXTENT_RETIRED);
	assert_true(is_clear(in->seat));
	free_ones = extents_count(in->s, EXTENT_FREE);
	rcu_announce(in->seat, READING, x); /* E.2 */
	assert_int_equal(extents_collect(in->seat), 0);
	pass_ms(in->p.clock, 40);
	assert_int_equal(extents_collect(in->seat), 0);
	assert_int_equal(state_of(in, x), EXTENT_RETIRED);
	pass_ms(in->p.clock, 2);
	rcu_clear(in->seat, READING);
	assert_int_equal(extents_collect(in->seat), 1);
	assert_int_equal(stats_of(in->p.cache).grace_blocked_ms, 42);
	assert_int_equal(state_of(in, x), EXTENT_FREE);
	assert_int_equal(extents_count(in->s, EXTENT_FREE), free_ones + 1);
	assert_true(EXTENT_SEQUENCE(extents_word(in->s, x)) > EXTENT_SEQUENCE(word));
}

static void arrows_are_from_a_word(void **state)
{
	struct inside *in = *state;
	uint32_t x = fill_one(in);
	uint64_t word = extents_word(in->s, x);

	assert_true(extents_move(in->seat, x, word, EXTENT_EVICTING));
	assert_false(extents_move(in->seat, x, word, EXTENT_RETIRED)); /* late */
	assert_false(extents_seal(in->seat, x, word));
	assert_true(extents_move(in->seat, x, extents_word(in->s, x), EXTENT_SEALED));
	assert_false(extents_move(in->seat, x, word, EXTENT_EVICTING)); /* the same state, a later sequence */
}

/* E.1 */
static void what_is_written_or_pinned_is_not_walked(void **state)
{
	struct inside *in = *state;
	uint32_t x = fill_one(in);
	const unsigned words[] = {WRITING, PINS, READER_WORDS - 1};
	size_t i;

	for (i = 0; i < COUNT(words); i++) {
		rcu_announce(in->seat, words[i], x);
		assert_false(extents_claim(in->seat, x));
		assert_int_equal(state_of(in, x), EXTENT_SEALED);
		rcu_clear(in->seat, words[i]);
		assert_true(is_clear(in->seat));
	}
	rcu_announce(in->seat, READING, x); /* who only reads isn't in the way of a walk */
	assert_true(extents_claim(in->seat, x));
	rcu_clear(in->seat, READING);
	extents_retire(in->seat, x);
	extents_collect(in->seat);
}

static void appends_do_not_overlap(void **state)
{
	struct inside *in = *state;
	char *used = calloc(1, in->s->geometry.size);
	uint64_t offset, seed = 1;
	int64_t x;
	int i;

	for (i = 0; i < 2000; i++) {
		uint32_t length = 48 + (uint32_t)(draw(&seed) % 40) * 8;

		x = append(in, length, &offset);
		if (x == -LOG_FULL)
			break;
		assert_int_equal(offset % 8, 0);
		assert_int_equal(extent_of(in->s, offset), extent_of(in->s, offset + length - 1));
		assert_null(memchr(used + offset, 1, length));
		memset(used + offset, 1, length);
	}
	assert_true(i > 1000);
	free(used);
}

static void a_full_log_says_so(void **state)
{
	struct inside *in = *state;
	uint64_t offset;
	bool opened;
	int i, r = 0;

	assert_int_equal(log_append(in->seat, WRITING, LOG_PROBATION, in->s->geometry.extent_size + 8, &offset,
	                            &opened),
	                 SHOAL_ERR_TOO_BIG);
	for (i = 0; i < 10000 && !r; i++)
		r = log_append(in->seat, WRITING, LOG_PROBATION, 2048, &offset, &opened);
	assert_int_equal(r, LOG_FULL);
	assert_int_equal(w64_load(&in->seat->reader->words[WRITING]), 0);
	assert_int_equal(extents_count(in->s, EXTENT_FREE), 0);
	rcu_clear(in->seat, WRITING);
}

/* ---- locks ------------------------------------------------------------------------------------------------- */

/* As appends of several threads leave them. */
static void make_all_heads(const struct inside *in, uint32_t extents[HEADS_MAX])
{
	uint64_t word;
	uint32_t h;
	int64_t x;

	for (h = 0; h < in->s->geometry.heads; h++) {
		assert_int_equal(w64_load(&in->s->header->heads[LOG_PROBATION][h]), 0);
		x = extents_open(in->seat, WRITING, LOG_PROBATION);
		assert_true(x >= 0);
		extents[h] = (uint32_t)x;
		word = extents_word(in->s, extents[h]);
		w64_store(&in->s->header->heads[LOG_PROBATION][h],
		          (uint64_t)EXTENT_SEQUENCE(word) << 32 | (extents[h] + 1));
		rcu_clear(in->seat, WRITING);
	}
}

static void lock_heads(const struct inside *in, const struct seat *seat)
{
	uint32_t h, x;

	for (h = 0; h < in->s->geometry.heads; h++) {
		x = (uint32_t)w64_load(&in->s->header->heads[LOG_PROBATION][h]) - 1;
		if (x < in->s->geometry.extents)
			must(w64_cas(&in->s->extents[x].lock, 0, seat->tag | (seat->index + 1)));
	}
}

struct locker {
	struct inside *in;
	word32 locked;
};

static int lock_and_stay(void *arg)
{
	struct locker *l = arg;
	int r;
	struct seat *seat = handle_enter(l->in->p.cache, &r);

	must(seat);
	lock_heads(l->in, seat);
	post(&l->locked);
	for (;;)
		pause();
	return 0;
}

static void a_dead_owners_lock_is_taken_over(void **state)
{
	struct inside *in = *state;
	struct locker *l = share(sizeof(*l));
	uint32_t heads[HEADS_MAX], i, taken = 0;
	uint64_t offset;
	int64_t x;
	pid_t pid;

	l->in = in;
	make_all_heads(in, heads);
	pid = spawn(lock_and_stay, l);
	assert_true(await(&l->locked, 1));
	kill_child(pid);
	x = append(in, 512, &offset);
	for (i = 0; i < HEADS_MAX; i++) {
		taken += x == heads[i];
		assert_int_equal(w64_load(&in->s->extents[heads[i]].lock) == 0, x == heads[i]);
	}
	assert_int_equal(taken, 1);
	assert_int_equal(append(in, 512, &offset), x);
	assert_int_equal(shoal_reap(in->p.cache), 1);
	unshare_memory(l, sizeof(*l));
}

static void recovery_gives_locks_back(void **state)
{
	struct inside *in = *state;
	struct locker *l = share(sizeof(*l));
	uint64_t offset;
	int64_t x = append(in, 512, &offset);
	pid_t pid;

	l->in = in;
	pid = spawn(lock_and_stay, l);
	assert_true(await(&l->locked, 1));
	assert_true(w64_load(&in->s->extents[x].lock));
	kill_child(pid);
	assert_int_equal(shoal_reap(in->p.cache), 1);
	assert_int_equal(w64_load(&in->s->extents[x].lock), 0);
	assert_int_equal(append(in, 512, &offset), x);
	unshare_memory(l, sizeof(*l));
}

/* L.2: stopped, not dead: a head is replaced, and the extent is sealed when it is given up. */
static void a_stopped_owner_is_passed_by(void **state)
{
	struct inside *in = *state;
	struct locker *l = share(sizeof(*l));
	uint32_t heads[HEADS_MAX], i, sealed = 0;
	uint64_t offset;
	int64_t x;
	pid_t pid;
	int n;

	l->in = in;
	make_all_heads(in, heads);
	pid = spawn(lock_and_stay, l);
	assert_true(await(&l->locked, 1));
	kill(pid, SIGSTOP);
	for (n = 0; n < 50; n++) {
		x = append(in, 512, &offset);
		assert_true(x >= 0);
		for (i = 0; i < HEADS_MAX; i++)
			assert_true(x != heads[i]); /* never stolen from the living */
	}
	for (i = 0; i < HEADS_MAX; i++)
		assert_int_equal(state_of(in, heads[i]), EXTENT_OPEN);
	kill_child(pid);
	assert_int_equal(shoal_reap(in->p.cache), 1);
	log_sweep(in->seat);
	for (i = 0; i < HEADS_MAX; i++)
		sealed += state_of(in, heads[i]) == EXTENT_SEALED;
	assert_in_range(sealed, 1, HEADS_MAX);
	unshare_memory(l, sizeof(*l));
}

static void the_sweep_seals_what_is_nobodys(void **state)
{
	struct inside *in = *state;
	uint64_t offset;
	int64_t head = append(in, 512, &offset), lost = extents_open(in->seat, WRITING, LOG_PROBATION);

	assert_true(head >= 0 && lost >= 0);
	rcu_clear(in->seat, WRITING);
	log_sweep(in->seat);
	assert_int_equal(state_of(in, (uint32_t)lost), EXTENT_SEALED);
	assert_int_equal(state_of(in, (uint32_t)head), EXTENT_OPEN);
	assert_int_equal(append(in, 512, &offset), head);
}

/* ---- what bytes say ---------------------------------------------------------------------------------------- */

static void reciprocals_are_exact(void **state)
{
	static const size_t sizes[] = {1 << 20, 3 << 20, 5000000, 64 << 20, 100 << 20, 300 << 20};
	struct inside in;
	uint64_t begin;
	uint32_t x;
	size_t i;

	for (i = 0; i < COUNT(sizes); i++) {
		in = go_inside(&(struct shoal_config){.size = sizes[i]});
		for (x = 0; x < in.s->geometry.extents; x++) {
			begin = in.s->geometry.log_at + (uint64_t)x * in.s->geometry.extent_size;
			assert_int_equal(extent_of(in.s, begin), x);
			assert_int_equal(extent_of(in.s, begin + 8), x);
			assert_int_equal(extent_of(in.s, begin + in.s->geometry.extent_size - 8), x);
			assert_int_equal(extent_of(in.s, begin + in.s->geometry.extent_size - 1), x);
		}
		close_place(&in.p);
	}
}

/* Random bytes in an extent's place, and all offsets: what is accepted lies in one extent. */
static void no_bytes_lead_outside(void **state)
{
	struct inside *in = *state;
	uint64_t seed = 7, offset, end;
	struct log_entry e;
	unsigned accepted = 0;
	int round;

	for (round = 0; round < 20000; round++) {
		uint64_t at = in->s->geometry.log_at +
		              draw(&seed) % (in->s->geometry.size - in->s->geometry.log_at - 64) / 8 * 8;
		struct entry *entry = log_at(in->s, at);

		w32_store(&entry->length, (uint32_t)draw(&seed) >> draw(&seed) % 30);
		entry->stored = (uint32_t)draw(&seed) >> draw(&seed) % 30;
		entry->kind = ENTRY_KIND(0, 0, (uint16_t)(draw(&seed) >> draw(&seed) % 16));
		for (offset = at - 64; offset <= at + 64; offset += 8) {
			if (!log_read(in->s, offset, &e))
				continue;
			accepted++;
			assert_true(offset >= in->s->geometry.log_at);
			end = in->s->geometry.log_at +
			      (uint64_t)(extent_of(in->s, offset) + 1) * in->s->geometry.extent_size;
			assert_true(offset + e.length <= end);
			assert_true((const char *)e.key == in->s->base + offset + sizeof(struct entry));
			assert_true((const char *)e.value + e.value_size <= in->s->base + offset + e.length);
			assert_true((const char *)e.key + e.key_size <= in->s->base + offset + e.length);
		}
	}
	assert_true(accepted > 0);
	assert_false(log_read(in->s, 0, &e));
	assert_false(log_read(in->s, in->s->geometry.log_at - 8, &e));
	assert_false(log_read(in->s, in->s->geometry.size - 8, &e));
	assert_false(log_read(in->s, in->s->geometry.size, &e));
	assert_false(log_read(in->s, UINT64_MAX - 7, &e));
}

static void a_walk_ends(void **state)
{
	static const uint32_t lengths[] = {0, 1, 8, 44, 513, UINT32_MAX, 1 << 20};
	struct inside *in = *state;
	uint32_t x = fill_one(in), at, n;
	uint64_t offset, first;
	size_t i;

	for (i = 0; i < COUNT(lengths); i++) {
		at = 0;
		assert_true(log_next(in->s, x, &at, &first));
		at = 0;
		w32_store(&log_at(in->s, first)->length, lengths[i]);
		for (n = 0; log_next(in->s, x, &at, &offset); n++)
			assert_true(n < 1000 && extent_of(in->s, offset) == x);
		assert_int_equal(n, 0);
		w32_store(&log_at(in->s, first)->length, 512);
	}
	w32_store(&in->s->extents[x].tail, UINT32_MAX);
	at = 0;
	assert_false(log_next(in->s, x, &at, &offset));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(an_extent_comes_round),
		CASE(arrows_are_from_a_word),
		CASE(what_is_written_or_pinned_is_not_walked),
		CASE(appends_do_not_overlap),
		CASE(a_full_log_says_so),
		CASE(a_dead_owners_lock_is_taken_over),
		CASE(recovery_gives_locks_back),
		CASE(a_stopped_owner_is_passed_by),
		CASE(the_sweep_seals_what_is_nobodys),
		cmocka_unit_test(reciprocals_are_exact),
		CASE(no_bytes_lead_outside),
		CASE(a_walk_ends),
	};

	return cmocka_run_group_tests_name("extents-log", tests, NULL, NULL);
}
