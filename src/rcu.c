/* SPDX-License-Identifier: MIT */
/* The reclaimer's half: see rcu.h. */
#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rcu.h"

int rcu_barrier(const struct segment *s)
{
	barrier_full();
	if (s->fence)
		return SHOAL_OK;
	return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) ? SHOAL_ERR_SYSTEM : SHOAL_OK;
}

int rcu_announced(const struct segment *s, const struct seat *self, unsigned from_word, const uint32_t *extents,
                  unsigned n, bool *held)
{
	uint32_t r, extent, w;
	unsigned i;
	int result = rcu_barrier(s);

	memset(held, result ? 1 : 0, n * sizeof(*held));
	for (r = 0; r < s->geometry.readers && !result; r++) {
		const struct reader *reader = &s->readers[r];

		if (!(uint32_t)w64_load(&reader->owner))
			continue;
		for (w = from_word; w < READER_WORDS; w++) {
			extent = (uint32_t)w64_load(&reader->words[w]);
			if (!extent || (w == WALKING && reader == self->reader))
				continue;
			for (i = 0; i < n; i++)
				held[i] |= extents[i] == extent - 1;
		}
	}
	return result;
}

/* Extents that are 32,768 apart count as one, which is of no account where there are that many. */
uint32_t rcu_pinned(const struct segment *s, uint32_t *readers)
{
	uint64_t seen[512] = {0}, bit;
	uint32_t r, w, extent, n = 0;

	*readers = 0;
	for (r = 0; r < s->geometry.readers; r++) {
		if (!(uint32_t)w64_peek(&s->readers[r].owner))
			continue;
		++*readers;
		for (w = PINS; w < READER_WORDS; w++) {
			extent = (uint32_t)w64_peek(&s->readers[r].words[w]);
			bit = (uint64_t)1 << (extent & 63);
			if (!extent || seen[extent / 64 % 512] & bit)
				continue;
			seen[extent / 64 % 512] |= bit;
			n++;
		}
	}
	return n;
}
