/* SPDX-License-Identifier: MIT */
#include "workload.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REQUESTS_LEAST (1u << 16)
#define REQUESTS_MOST (1u << 21)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE ((size_t)2 << 20)

/* Begins where a huge page may. */
void *shared_memory(size_t size)
{
	size_t all = (size + HUGE - 1) & ~(HUGE - 1);
	char *at = mmap(NULL, all + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *p = at;

	if (at != MAP_FAILED) {
		p += (HUGE - (uintptr_t)at % HUGE) % HUGE;
		if (p > at)
			munmap(at, (size_t)(p - at));
		munmap(p + all, HUGE - (size_t)(p - at));
		p = mmap(p, all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	}
	if (p == MAP_FAILED) {
		perror("bench: memory");
		exit(1);
	}
	return p;
}

void shared_memory_free(void *memory, size_t size)
{
	munmap(memory, (size + HUGE - 1) & ~(HUGE - 1));
}

void shared_memory_huge(void *memory, size_t size)
{
	size = (size + HUGE - 1) & ~(HUGE - 1);
	madvise(memory, size, MADV_HUGEPAGE);
	madvise(memory, size, MADV_COLLAPSE);
}

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static double next_unit(uint64_t *state)
{
	return (double)(next_random(state) >> 11) * 0x1p-53;
}

void workload_key(uint32_t number, char key[KEY_SIZE])
{
	uint64_t state = number;
	char text[KEY_SIZE + 1];

	snprintf(text, sizeof(text), "user:%015llx", (unsigned long long)(next_random(&state) >> 4));
	memcpy(key, text, KEY_SIZE);
}

void workload_value(const struct workload *w, uint32_t number, void *value)
{
	uint64_t head[2] = {0, number};
	size_t size = w->sizes[number];

	memset(value, (int)(number * 31 + 7), size);
	memcpy(value, head, sizeof(head));
}

int workload_value_is_right(const struct workload *w, uint32_t number, const void *value, size_t size)
{
	const unsigned char *bytes = value;
	uint64_t head[2];

	if (size != w->sizes[number])
		return 0;
	memcpy(head, value, sizeof(head));
	if (head[0] != 0 || head[1] != number)
		return 0;
	for (size_t i = sizeof(head); i < size; i++)
		if (bytes[i] != (unsigned char)(number * 31 + 7))
			return 0;
	return 1;
}

/* The chance of a rank or a lower one. */
static double *chances(uint32_t keys, double zipf)
{
	double *sum = malloc(keys * sizeof(*sum)), total = 0;

	for (uint32_t i = 0; sum && i < keys; i++)
		sum[i] = total += pow((double)i + 1, -zipf);
	for (uint32_t i = 0; sum && i < keys; i++)
		sum[i] /= total;
	return sum;
}

static uint32_t rank_of(const double *sum, uint32_t keys, double unit)
{
	uint32_t low = 0, high = keys - 1;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (sum[middle] < unit)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Which key has which rank: neighbours in rank are no neighbours in memory. */
static uint32_t *shuffled(uint32_t keys, uint64_t *state)
{
	uint32_t *order = malloc(keys * sizeof(*order));

	for (uint32_t i = 0; order && i < keys; i++) {
		uint32_t j = (uint32_t)(next_random(state) % (i + 1));

		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

static int make_requests(struct workload *w, uint64_t *state)
{
	double *sum = w->zipf > 0 ? chances(w->keys, w->zipf) : NULL;
	uint32_t *order = shuffled(w->keys, state);
	int rc = order && (sum || !(w->zipf > 0)) ? 0 : -1;

	for (uint32_t i = 0; !rc && i < w->count; i++) {
		struct request *r = &w->requests[i];
		double unit = next_unit(state);

		r->number = order[sum ? rank_of(sum, w->keys, unit) : (uint32_t)(unit * w->keys)];
		r->write = next_random(state) % 100 < w->writes;
		workload_key(r->number, r->key);
	}
	free(sum);
	free(order);
	return rc;
}

static uint32_t draw_size(const struct sizes *sizes, uint64_t *state)
{
	uint64_t all = 0, at;
	unsigned i;

	for (i = 0; i < sizes->parts; i++)
		all += sizes->part[i].weight;
	at = next_random(state) % all;
	for (i = 0; at >= sizes->part[i].weight; i++)
		at -= sizes->part[i].weight;
	return sizes->part[i].from + (uint32_t)(next_random(state) % (sizes->part[i].to - sizes->part[i].from + 1));
}

int workload_make(struct workload *w)
{
	uint64_t state = w->seed;

	w->count = REQUESTS_LEAST;
	while (w->count < REQUESTS_MOST && w->count < 4ull * w->keys)
		w->count *= 2;
	w->sizes = shared_memory(w->keys * sizeof(*w->sizes));
	w->requests = shared_memory(w->count * sizeof(*w->requests));
	w->value_bytes = 0;
	w->value_to = 0;
	for (uint32_t i = 0; i < w->sizes_wanted.parts; i++)
		if (w->sizes_wanted.part[i].to > w->value_to)
			w->value_to = w->sizes_wanted.part[i].to;
	for (uint32_t i = 0; i < w->keys; i++) {
		w->sizes[i] = draw_size(&w->sizes_wanted, &state);
		w->value_bytes += w->sizes[i];
	}
	if (make_requests(w, &state)) {
		workload_free(w);
		return -1;
	}
	shared_memory_huge(w->requests, w->count * sizeof(*w->requests));
	return 0;
}

void workload_free(struct workload *w)
{
	shared_memory_free(w->sizes, w->keys * sizeof(*w->sizes));
	shared_memory_free(w->requests, w->count * sizeof(*w->requests));
}
