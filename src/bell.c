/* SPDX-License-Identifier: MIT */
/* See bell.h, and watch.c for the protocol. */
#include "bell.h"
#include "futex.h"

#define SHARES 64u /* processes share the bits of a watchers' word */

word32 *bell_listen(const struct member *m)
{
	struct process *p = &m->segment.processes[m->wiped->process];

	if (!w32_load(&p->listens))
		atomic_store(&p->listens, 1);
	return &p->bell;
}

static void ring(const struct segment *s, uint32_t process, uint32_t bits)
{
	struct process *p;

	if (process >= s->geometry.processes)
		return;
	p = &s->processes[process];
	if (atomic_load(&p->listens) && !atomic_fetch_or(&p->bell, bits))
		futex_wake(&p->bell, 1);
}

void bell_ring_reader(const struct segment *s, uint32_t reader, uint32_t bits)
{
	ring(s, life_process(s, reader), bits);
}

void bell_ring_everyone(const struct segment *s)
{
	uint32_t i;

	for (i = 0; i < s->geometry.processes; i++)
		ring(s, i, ~0u);
}

/* Seen set, it was not yet taken by who changes the word after our look at it. */
void bell_add_watcher(const struct member *m, word64 *watchers, struct bell_words *words)
{
	uint64_t bit = (uint64_t)1 << m->wiped->process % SHARES, seen = atomic_load(watchers);

	words->watchers = watchers;
	words->bit = bit;
	words->is_first = !(seen & bit);
	while (!(seen & bit) && !w64_cas(watchers, seen, seen | bit))
		seen = atomic_load(watchers);
}

void bell_ring_these(const struct segment *s, word64 *watchers, uint32_t number, int n)
{
	uint64_t seen, bit;
	uint32_t i;

	while (n-- > 0 && (seen = atomic_load(watchers))) {
		bit = seen & -seen;
		if (!w64_cas(watchers, seen, seen & ~bit))
			continue;
		for (i = (uint32_t)__builtin_ctzll(bit); i < s->geometry.processes; i += SHARES)
			ring(s, i, BELL_BIT(number));
	}
}
