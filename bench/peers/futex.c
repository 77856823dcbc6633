/* SPDX-License-Identifier: MIT */
/*
 * The least that a stampede can cost: one word for the one key that is loaded, and no cache. `relay`: who publishes
 * wakes a few, and so does each that was woken. `wake-all`: the publisher wakes everybody. Neither survives a death.
 */
#include "../loops.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FEW 4
#define SIZE_MOST (1u << 20)

enum { COLD, LOADING, THERE };

struct state {
	_Atomic uint32_t word;
	char key[KEY_SIZE];
	size_t size;
	char value[SIZE_MOST];
};

static int futex_open(const struct peer_setup *setup, void **state)
{
	*state = shared_memory(sizeof(struct state));
	return 0;
}

static long futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
	return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

/* Each key is new to all who ask for it, and the last key's value has been seen by all. */
static int fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched,
                 uint32_t few)
{
	struct state *s = worker->state;
	uint32_t cold = COLD;

	if (atomic_load(&s->word) == THERE && memcmp(s->key, key, KEY_SIZE))
		atomic_compare_exchange_strong(&s->word, &(uint32_t){THERE}, COLD);
	if (atomic_compare_exchange_strong(&s->word, &cold, LOADING)) {
		s->size = load->run(load, key, s->value);
		memcpy(s->key, key, KEY_SIZE);
		fetched->led = 1;
		atomic_store(&s->word, THERE);
	}
	while (atomic_load(&s->word) != THERE)
		futex(&s->word, FUTEX_WAIT, LOADING);
	futex(&s->word, FUTEX_WAKE, few);
	memcpy(buffer, s->value, s->size);
	return 0;
}

static int relay(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	return fetch(worker, key, load, buffer, fetched, FEW);
}

static int wake_all(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	return fetch(worker, key, load, buffer, fetched, INT_MAX);
}

const struct peer peer_relay = {
	.name = "futex-relay",
	.what = "stampede alone: one word, each of those woken wakes four",
	.open = futex_open,
	.fetch = relay,
};

const struct peer peer_wake_all = {
	.name = "futex-wake-all",
	.what = "stampede alone: one word, the publisher wakes everybody",
	.open = futex_open,
	.fetch = wake_all,
};
