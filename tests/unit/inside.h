/* SPDX-License-Identifier: MIT */
/* For tests of the engine's floors: a seat to stand on, as a public verb has it. */
#ifndef SHOAL_INSIDE_H
#define SHOAL_INSIDE_H

#include "handle.h"
#include "room.h"
#include "store.h"
#include "testing.h"

struct inside {
	struct place p;
	struct seat *seat;
	const struct segment *s;
};

static inline struct seat *take_seat(struct shoal *cache)
{
	int r;
	struct seat *seat = handle_enter(cache, &r);

	assert_non_null(seat);
	handle_leave(); /* the test closes the handle last */
	return seat;
}

static inline struct inside go_inside(const struct shoal_config *config)
{
	struct inside in = {.p = open_place(NULL, config)};

	in.seat = take_seat(in.p.cache);
	in.s = &in.seat->member->segment;
	return in;
}

static inline struct key make_key(const struct inside *in, const char *text)
{
	struct key key;

	assert_true(store_key(in->p.k, text, strlen(text), &key));
	return key;
}

/* Nothing is announced, up to the pins. */
static inline bool is_clear(const struct seat *seat)
{
	unsigned i;

	for (i = 0; i < READER_WORDS; i++)
		if (w64_load(&seat->reader->words[i]))
			return false;
	return true;
}

#endif
