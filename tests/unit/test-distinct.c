/* SPDX-License-Identifier: MIT */
/* HyperLogLog: near the truth at every size, whoever sees a key how often, and merged like a union. */
#include "distinct.h"
#include "hash.h"
#include "testing.h"

static uint64_t key(uint64_t i)
{
	return hash_bytes(&i, sizeof(i), 42);
}

/* Six standard errors. */
static void assert_near(const word64 *registers, uint64_t truth)
{
	double is = (double)distinct_estimate(registers), off = (double)truth * 0.2 + 1;

	assert_true(is >= (double)truth - off && is <= (double)truth + off);
}

static void near_the_truth(void **state)
{
	static word64 registers[DISTINCT_WORDS];
	uint64_t i, next = 1;

	assert_int_equal(distinct_estimate(registers), 0);
	for (i = 1; i <= 3000000; i++) {
		distinct_add(registers, key(i));
		if (i == next) {
			assert_near(registers, i);
			next += next / 3 + 1;
		}
	}
}

static void a_key_counts_once(void **state)
{
	word64 registers[DISTINCT_WORDS] = {0};
	unsigned i, turn;
	uint64_t once = 0;

	for (turn = 0; turn < 10; turn++) {
		for (i = 0; i < 500; i++)
			distinct_add(registers, key(i));
		once = turn ? once : distinct_estimate(registers);
		assert_int_equal(distinct_estimate(registers), once);
	}
}

static void merged_like_a_union(void **state)
{
	word64 a[DISTINCT_WORDS] = {0}, b[DISTINCT_WORDS] = {0}, both[DISTINCT_WORDS] = {0};
	unsigned i;

	for (i = 0; i < 20000; i++) {
		distinct_add(i < 12000 ? a : b, key(i));
		distinct_add(both, key(i));
		if (i > 8000 && i < 12000)
			distinct_add(b, key(i));
	}
	distinct_merge(a, b);
	assert_memory_equal(a, both, sizeof(a));
	distinct_merge(a, b);
	assert_memory_equal(a, both, sizeof(a));
}

/* Any word gives a number. */
static void of_any_bytes(void **state)
{
	word64 registers[DISTINCT_WORDS];

	memset(registers, 0xff, sizeof(registers));
	assert_true(distinct_estimate(registers) > 0);
	distinct_add(registers, 0);
	distinct_add(registers, UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(near_the_truth),
		cmocka_unit_test(a_key_counts_once),
		cmocka_unit_test(merged_like_a_union),
		cmocka_unit_test(of_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
