/* SPDX-License-Identifier: MIT */
/* What the programs of the suite are: cases at one site, after each of which nothing is held and the log is calm. */
#ifndef SHOAL_TEST_SUITE_H
#define SHOAL_TEST_SUITE_H

#include "site.h"

static struct site site;
static const struct setup setup; /* the program's own */

static inline int begin(void **state)
{
	site_start(&site, &setup);
	return 0;
}

static inline int end(void **state)
{
	site_stop(&site);
	return 0;
}

static inline int calm(void **state)
{
	assert_calm(&site, NULL);
	return 0;
}

static inline int calm_but_for_kills(void **state)
{
	assert_calm(&site, "exited on signal 9");
	return 0;
}

#define CASE(name) cmocka_unit_test_teardown(name, calm)
#define CASE_WITH_KILLS(name) cmocka_unit_test_teardown(name, calm_but_for_kills)
#define COUNTS(path, n) assert_int_equal(origin(&site, "count?%s", path), n)

/* With a pattern: the cases of that name. */
#define RUN(name, tests)                                                                                              \
	(cmocka_set_test_filter(argc > 1 ? argv[1] : NULL), cmocka_run_group_tests_name(name, tests, begin, end))

#endif
