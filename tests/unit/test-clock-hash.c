/* SPDX-License-Identifier: MIT */
/* The small inlines of floor 0: clocks and hashes, and that processes with different builds agree on the latter. */
#include "hash.h"
#include "testing.h"

static void a_given_clock_takes_the_systems_place(void **state)
{
	struct test_clock set = {1234567890};
	struct clock c = {test_clock_read, &set, NULL};

	assert_true(clock_ns(&c) == 1234567890);
	assert_int_equal(clock_ms(&c), 1234);
	assert_int_equal(clock_coarse_ms(&c), 1234);
	pass_ms(&set, 6);
	assert_int_equal(clock_ms(&c), 1240);
}

static void the_coarse_clock_lags_a_little(void **state)
{
	struct clock c = {.read = clock_find_reader()};
	int i;

	for (i = 0; i < 10000; i++) {
		uint64_t before = clock_ms(&c), coarse = clock_coarse_ms(&c), after = clock_ms(&c);

		assert_true(coarse <= after);
		assert_true(coarse + CLOCK_COARSE_LAG_MS >= before);
	}
}

/* Frozen: segments, and keys' places in them, outlive a build. */
static void hashes_are_frozen(void **state)
{
	assert_true(hash_bytes("", 0, 0) == UINT64_C(0x2d06800538d394c2));
	assert_true(hash_bytes("shoal", 5, 1) == XXH3_64bits_withSeed("shoal", 5, 1));
	assert_true(hash_bytes("shoal", 5, 1) != hash_bytes("shoal", 5, 2));
	assert_true(hash_bytes("shoal", 5, 1) != hash_bytes("shoaL", 5, 1));
	assert_true(hash_mix(1) == (UINT64_C(0x9e3779b97f4a7c15) ^ UINT64_C(0x9e3779b97f4a7c15) >> 29));
}

static void alignment_rounds_up(void **state)
{
	assert_int_equal(align_up(0, 8), 0);
	assert_int_equal(align_up(1, 8), 8);
	assert_int_equal(align_up(8, 8), 8);
	assert_int_equal(align_up(4097, PAGE), 2 * PAGE);
	assert_int_equal(min_u64(1, UINT64_MAX), 1);
	assert_true(max_u64(1, UINT64_MAX) == UINT64_MAX);
}

static void words_rise_only_by_max(void **state)
{
	word64 w = 5;

	w64_max(&w, 4);
	assert_int_equal(w64_load(&w), 5);
	w64_max(&w, 6);
	assert_int_equal(w64_load(&w), 6);
	assert_false(w64_cas(&w, 5, 7));
	assert_true(w64_cas(&w, 6, 7));
	assert_int_equal(w64_add(&w, 3), 7);
	assert_int_equal(w64_sub(&w, 1), 10);
	w64_bump(&w, 1);
	assert_int_equal(w64_peek(&w), 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_given_clock_takes_the_systems_place),
		cmocka_unit_test(the_coarse_clock_lags_a_little),
		cmocka_unit_test(hashes_are_frozen),
		cmocka_unit_test(alignment_rounds_up),
		cmocka_unit_test(words_rise_only_by_max),
	};

	return cmocka_run_group_tests_name("clock-hash", tests, NULL, NULL);
}
