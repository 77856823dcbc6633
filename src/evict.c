/* SPDX-License-Identifier: MIT */
/* The policy: see evict.h. */
#include "evict.h"
#include "ghost.h"

#define KEPT_AT 1u           /* with so many hits since it was stored or moved an entry is kept, */
#define PATIENCE 8u          /* and one more for every so many walks that one free extent has taken */
#define PROBATION_PERCENT 10 /* of the log, at first; what is learnt stays between the next two */
#define PROBATION_LEAST 3
#define PROBATION_MOST 30

static uint64_t permille_of_log(const struct segment *s, unsigned permille)
{
	return (uint64_t)s->geometry.extents * s->geometry.extent_size / 1000 * permille;
}

/* Dead bytes that are borne before extents are cleaned for them: what is cleaned costs copies of what lives beside, the
 * more the fewer dead bytes there are. In a log of few extents, the reserve and the open ones take more of what is to
 * be at most 15% in all. */
static uint64_t dead_most(const struct segment *s)
{
	return permille_of_log(s, 100 - (unsigned)min_u64(3000 / s->geometry.extents, 60));
}

static uint64_t probation_share(const struct segment *s)
{
	uint64_t learnt = w64_peek(&s->header->probation_bytes);

	return max_u64(learnt ? learnt : permille_of_log(s, PROBATION_PERCENT * 10), s->geometry.extent_size);
}

/* Too early an eviction from the probation log says that it is small; one from the main log, twice as loud, that it is
 * large. Racing learners lose a lesson. */
static void learn(const struct segment *s, enum log_kind from, uint32_t length)
{
	uint64_t least = permille_of_log(s, PROBATION_LEAST * 10), most = permille_of_log(s, PROBATION_MOST * 10);
	uint64_t share = probation_share(s);

	if (from == LOG_PROBATION)
		share += length;
	else
		share -= min_u64(share, 2 * (uint64_t)length);
	w64_poke(&s->header->probation_bytes, max_u64(min_u64(share, most), least));
}

void evict_dropped(const struct segment *s, enum log_kind from, uint64_t hash, uint32_t length)
{
	if (!(s->geometry.flags & SHOAL_FIFO))
		ghost_add(s, hash, length, from);
}

/* What the main log gave up was not hit there lately: it has to prove itself again. */
enum log_kind evict_admits(const struct segment *s, uint64_t hash, uint32_t length)
{
	struct ghost ghost;

	if (s->geometry.flags & SHOAL_FIFO || !ghost_take(s, hash, &ghost))
		return LOG_PROBATION;
	if (ghost.young)
		learn(s, ghost.from, length);
	return ghost.from == LOG_PROBATION ? LOG_MAIN : LOG_PROBATION;
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
	uint32_t live = EXTENT_LIVE(w64_peek(&e->counts));
	uint32_t used = (uint32_t)min_u64(w32_peek(&e->tail), s->geometry.extent_size);

	return live < used ? used - live : 0;
}

static void look_at_sealed(const struct segment *s, uint32_t x, uint32_t dead, struct evict_turn *t)
{
	const struct extent *e = &s->extents[x];
	uint64_t stamp = w64_peek(&e->stamp);

	if (!EXTENT_ENTRIES(w64_peek(&e->counts)))
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

	return !(s->geometry.flags & SHOAL_FIFO) && has(t, EVICT_DEAD) && t->dead > dead_most(s) &&
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
	if (has(t, EVICT_PROBATION) &&
	    ((uint64_t)t->probation * s->geometry.extent_size > probation_share(s) || !has(t, EVICT_MAIN)))
		return EVICT_PROBATION;
	return has(t, EVICT_MAIN) ? EVICT_MAIN : EVICT_REASONS;
}

void evict_pass(struct evict_turn *t, enum evict_reason reason)
{
	t->after[reason] = t->first[reason].order;
}

bool evict_keeps(const struct segment *s, enum evict_reason reason, enum log_kind kind, unsigned frequency,
                 uint32_t walks, enum log_kind *to, unsigned *left)
{
	*to = reason == EVICT_DEAD ? kind : LOG_MAIN;
	*left = reason == EVICT_PROBATION ? 0 : frequency - (reason == EVICT_MAIN);
	return reason == EVICT_DEAD || (!(s->geometry.flags & SHOAL_FIFO) && frequency >= KEPT_AT + walks / PATIENCE);
}
