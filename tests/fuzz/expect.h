/* SPDX-License-Identifier: MIT */
/* What must hold whatever the input: libFuzzer keeps one for which it does not. */
#ifndef SHOAL_TEST_EXPECT_H
#define SHOAL_TEST_EXPECT_H

#include <stdio.h>
#include <stdlib.h>

#define EXPECT(truth)                                                                                                 \
	do {                                                                                                          \
		if (!(truth)) {                                                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #truth);                                   \
			abort();                                                                                      \
		}                                                                                                     \
	} while (0)

#endif
