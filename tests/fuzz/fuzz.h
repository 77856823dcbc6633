/* SPDX-License-Identifier: MIT */
/* One input. With clang libFuzzer finds them; else fuzz-corpus.c runs those of a folder. */
#ifndef SHOAL_TEST_FUZZ_H
#define SHOAL_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
