/* SPDX-License-Identifier: MIT */
/*
 * What is asked for: keys, the sizes of their values, and a sequence of requests drawn beforehand,
 * the same for every peer.
 *
 * The requests are read one after the other, keys and all, so that the processor fetches them ahead: what is measured
 * is the cache's own misses. A value begins with 8 bytes of zero and the number of its key; the zero is what the next
 * key's address is made of where gets are to be isolated.
 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

#define KEY_SIZE 20
#define VALUE_LEAST 16
#define VALUE_MOST (1u << 20)

struct request {
	char key[KEY_SIZE];
	uint32_t hint;   /* where `bound` put it; nobody else looks */
	uint32_t number; /* of the key */
	uint32_t write;  /* in a mixed run: a set */
};
_Static_assert(sizeof(struct request) == 32, "a key doesn't cross a line");

#define SIZE_PARTS 8

struct sizes { /* of values: by weight one of the parts, uniform within it */
	unsigned parts;
	struct { uint32_t from, to, weight; } part[SIZE_PARTS];
};

struct workload {
	/* asked for */
	uint32_t keys;
	struct sizes sizes_wanted;
	double zipf;                   /* exponent; 0 = uniform */
	unsigned writes;               /* percent of the requests */
	uint64_t seed;

	/* made */
	uint32_t *sizes; /* of each key's value */
	uint64_t value_bytes;
	uint32_t value_to; /* the largest */
	struct request *requests;
	uint32_t count; /* power of two */
};

int workload_make(struct workload *w); /* shared with the children forked later */
void workload_free(struct workload *w);

void workload_key(uint32_t number, char key[KEY_SIZE]);
void workload_value(const struct workload *w, uint32_t number, void *value); /* of sizes[number] bytes */
int workload_value_is_right(const struct workload *w, uint32_t number, const void *value, size_t size);

void *shared_memory(size_t size); /* zeroed, shared with children; exits without */
void shared_memory_free(void *memory, size_t size);
void shared_memory_huge(void *memory, size_t size); /* in huge pages from now on, where the system gives them */

#endif
