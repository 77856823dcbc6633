/* SPDX-License-Identifier: MIT */
/* The policy: see evict.h. */
#include "evict.h"

#define PROBATION_PERCENT 10
#define PROMOTED_AT 2u /* hits in probation */
#define KEPT_AT 1u     /* hits in the main log since it was appended to it */

/* Share of the log that dead bytes may take before extents are cleaned for them: what is cleaned costs copies of what
 * lives beside, and the more the fewer dead bytes there are. Small logs have less to give, their reserve takes more. */
static unsigned dead_percent(const struct segment *s)
{
	return s->geometry.extents < 128 ? 5 : 8;
}

static uint64_t percent_of_log(const struct segment *s, unsigned percent)
{
	return (uint64_t)s->geometry.extents * s->geometry.extent_size / 100 * percent;
}

static uint32_t probation_share(const struct segment *s)
{
	return (uint32_t)max_u64(s->geometry.extents * PROBATION_PERCENT / 100, 1);
}

static void propose(struct evict_turn *t, enum evict_reason reason, uint64_t order, uint32_t x)
{
	if (order <= t->after[reason] || order >= t->first[reason].order)
		return;
	t->first[reason].order = order;
	t->first[reason].x = x;
}

/* Bytes that were used and that no slot points to. The rest behind the tail is not worth a cleaning. */
static uint32_t dead_bytes(const struct segment *s, const struct extent *e)
{
	uint64_t live = w64_peek(&e->live);
	uint32_t used = (uint32_t)min_u64(w32_peek(&e->tail), s->geometry.extent_size);

	return live < used ? used - (uint32_t)live : 0;
}

static void look_at_sealed(const struct segment *s, uint32_t x, uint32_t dead, struct evict_turn *t)
{
	const struct extent *e = &s->extents[x];
	uint64_t stamp = w64_peek(&e->stamp);

	if (!w32_peek(&e->entries))
		propose(t, EVICT_EMPTY, stamp, x);
	if (w64_peek(&e->until_ms) <= t->now_ms)
		propose(t, EVICT_EXPIRED, stamp, x);
	if (dead)
		propose(t, EVICT_DEAD, (uint64_t)(UINT32_MAX - dead) << 32 | x, x);
	propose(t, w32_peek(&e->kind) == LOG_MAIN ? EVICT_MAIN : EVICT_PROBATION, stamp, x);
}

/* Relaxed: the victim is claimed by a CAS of its word, and only then is it decided on. */
void evict_look(const struct segment *s, struct evict_turn *t)
{
	enum extent_state state;
	unsigned reason;
	uint32_t x, dead;

	t->free = t->coming = t->retired = t->probation = 0;
	t->dead = 0;
	for (reason = 0; reason < EVICT_REASONS; reason++)
		t->first[reason].order = UINT64_MAX;
	for (x = 0; x < s->geometry.extents; x++) {
		state = EXTENT_STATE(w64_peek(&s->extents[x].word));
		t->free += state == EXTENT_FREE;
		t->retired += state == EXTENT_RETIRED;
		t->coming += state == EXTENT_RETIRED || state == EXTENT_EVICTING;
		if (state != EXTENT_OPEN && state != EXTENT_SEALED)
			continue;
		t->probation += w32_peek(&s->extents[x].kind) != LOG_MAIN;
		dead = dead_bytes(s, &s->extents[x]);
		t->dead += dead;
		if (state == EXTENT_SEALED)
			look_at_sealed(s, x, dead, t);
	}
}

static bool has(const struct evict_turn *t, enum evict_reason reason)
{
	return t->first[reason].order != UINT64_MAX;
}

static bool wants_cleaning(const struct segment *s, const struct evict_turn *t, bool urgent)
{
	uint32_t most = UINT32_MAX - (uint32_t)(t->first[EVICT_DEAD].order >> 32);

	return !(s->geometry.flags & SHOAL_FIFO) && has(t, EVICT_DEAD) && t->dead > percent_of_log(s, dead_percent(s)) &&
	       (!urgent || most >= s->geometry.extent_size / 2);
}

enum evict_reason evict_choose(const struct segment *s, const struct evict_turn *t, bool urgent)
{
	if (has(t, EVICT_EMPTY))
		return EVICT_EMPTY;
	if (has(t, EVICT_EXPIRED))
		return EVICT_EXPIRED;
	if (wants_cleaning(s, t, urgent))
		return EVICT_DEAD;
	if (has(t, EVICT_PROBATION) && (t->probation > probation_share(s) || !has(t, EVICT_MAIN)))
		return EVICT_PROBATION;
	return has(t, EVICT_MAIN) ? EVICT_MAIN : EVICT_REASONS;
}

void evict_pass(struct evict_turn *t, enum evict_reason reason)
{
	t->after[reason] = t->first[reason].order;
}

bool evict_keeps(const struct segment *s, enum evict_reason reason, enum log_kind kind, unsigned frequency,
                 enum log_kind *to, unsigned *left)
{
	*to = reason == EVICT_DEAD ? kind : LOG_MAIN;
	*left = frequency;
	if (reason == EVICT_DEAD)
		return true;
	if (s->geometry.flags & SHOAL_FIFO)
		return false;
	if (reason == EVICT_MAIN && frequency >= KEPT_AT) {
		--*left;
		return true;
	}
	if (reason == EVICT_PROBATION && frequency >= PROMOTED_AT) {
		*left = 0;
		return true;
	}
	return false;
}
