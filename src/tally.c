/* SPDX-License-Identifier: MIT */
/* Lines of counters hang on reader slots and stay there for the next owner, so nothing that was counted is lost. */
#include "tally.h"

static struct line *line_at(const struct segment *s, uint32_t number)
{
	return number && number <= s->geometry.lines ? &s->lines[number - 1] : NULL;
}

/* The slot's owner alone adds to its list. A kill between the draw and the link loses one line and no count. */
static struct line *new_line(struct seat *seat, uint32_t keyspace)
{
	const struct segment *s = &seat->member->segment;
	struct line *line;
	uint32_t number;

	if (w32_peek(&s->header->lines_used) >= s->geometry.lines)
		return NULL;
	number = w32_add(&s->header->lines_used, 1) + 1;
	line = line_at(s, number);
	if (!line)
		return NULL;
	w32_poke(&line->next, w32_peek(&seat->reader->first_line));
	w32_store(&line->keyspace, keyspace + 1);
	w32_store(&seat->reader->first_line, number);
	return line;
}

struct line *tally_line(struct seat *seat, uint32_t keyspace)
{
	const struct segment *s = &seat->member->segment;
	uint32_t steps;
	struct line *line;

	if (keyspace >= s->geometry.keyspaces)
		return NULL;
	if (seat->lines[keyspace])
		return seat->lines[keyspace];
	line = line_at(s, w32_load(&seat->reader->first_line));
	for (steps = 0; line && steps < s->geometry.keyspaces; steps++) {
		if (w32_load(&line->keyspace) == keyspace + 1)
			return seat->lines[keyspace] = line;
		line = line_at(s, w32_load(&line->next));
	}
	return seat->lines[keyspace] = new_line(seat, keyspace);
}

void tally_counts(const struct segment *s, uint32_t keyspace, uint64_t counts[COUNTER_COUNT])
{
	const struct keyspace *record = &s->keyspaces[keyspace];
	uint32_t i, c, n = (uint32_t)min_u64(w32_load(&s->header->lines_used), s->geometry.lines);

	for (c = 0; c < COUNTER_COUNT; c++)
		counts[c] += w64_peek(&record->counters[c]) + w64_peek(&record->inherited[c]);
	for (i = 0; i < n; i++)
		if (w32_load(&s->lines[i].keyspace) == keyspace + 1) {
			for (c = 0; c < COUNTERS_HOT; c++)
				counts[c] += w64_peek(&s->lines[i].counters[c]);
			counts[COUNTER_stale_ms_sum] += w64_peek(&s->lines[i].stale_ms);
		}
}

uint64_t tally_touches(const struct segment *s)
{
	uint32_t i, n = (uint32_t)min_u64(w32_load(&s->header->lines_used), s->geometry.lines);
	uint64_t sum = w64_peek(&s->header->touches);

	for (i = 0; i < n; i++)
		sum += w64_peek(&s->lines[i].touches);
	return sum;
}
