/* SPDX-License-Identifier: MIT */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <jansson.h>

json_t *machine_facts(void); /* what a figure depends on */

#endif
