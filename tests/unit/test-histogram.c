/* SPDX-License-Identifier: MIT */
/* Log-linear histograms: every time has a bucket, buckets ascend, and their middle is an eighth off at most. */
#include "histogram.h"
#include "testing.h"

static void buckets_ascend(void **state)
{
	unsigned before = 0, b;
	uint64_t ns;

	for (ns = 0; ns < UINT64_C(1) << 43; ns += ns / 64 + 1) {
		b = histogram_bucket(ns);
		assert_true(b == before || b == before + 1);
		before = b;
	}
	assert_true(before >= HISTOGRAM_BUCKETS - 4);
}

static void every_time_has_a_bucket(void **state)
{
	unsigned shift;

	assert_int_equal(histogram_bucket(0), 0);
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	for (shift = 0; shift < 64; shift++) {
		assert_true(histogram_bucket(UINT64_C(1) << shift) < HISTOGRAM_BUCKETS);
		assert_true(histogram_bucket((UINT64_C(1) << shift) - 1) < HISTOGRAM_BUCKETS);
		assert_true(histogram_bucket((UINT64_C(1) << shift) - 1) <= histogram_bucket(UINT64_C(1) << shift));
	}
}

static void middles_are_near(void **state)
{
	uint64_t ns;
	double ms, is;

	for (ns = 4096; ns < UINT64_C(1) << 42; ns += ns / 50 + 1) {
		ms = histogram_ms(histogram_bucket(ns));
		is = (double)ns * 1e-6;
		assert_true(ms > is * 0.874 && ms < is * 1.126);
	}
	assert_true(histogram_ms(0) > 0 && histogram_ms(0) < 1.1e-3);
}

static void adding_counts(void **state)
{
	word64 histogram[HISTOGRAM_BUCKETS] = {0};
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < 1000; i++)
		histogram_add(histogram, (uint64_t)i * i * i * i);
	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum += w64_load(&histogram[i]);
	assert_int_equal(sum, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_ascend),
		cmocka_unit_test(every_time_has_a_bucket),
		cmocka_unit_test(middles_are_near),
		cmocka_unit_test(adding_counts),
	};

	return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
