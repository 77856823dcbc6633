/* SPDX-License-Identifier: MIT */
/*
 * Permits. A table of nodes; each is one caller that waits for a permit or has one. There is no count anywhere: who
 * wants to take one says so (TAKING), then counts.
 *
 * Who may do which arrow, all by CAS of the whole word:
 *   FREE -> QUEUED       any caller, with a turn that it drew
 *   QUEUED -> TAKING     its owner, having found nobody before it who could take
 *   TAKING -> HELD       its owner, having counted less than the bounds allow
 *   TAKING -> QUEUED     its owner (gives way), or another who is TAKING: one ahead of it, or one that passes it by
 *   QUEUED, HELD -> FREE its owner (gives up, returns)
 *   HELD -> FREE         anyone who found its lease over, and marked it so
 *   any -> FREE          anyone, if its reader is dead
 *
 * Q.1  Never more HELD than the bound allows, of the machine and of a keyspace (each taker keeps to the bound that it
 *      was given). Of a set of holders, look at the one that became TAKING last: it counted after that, all the others
 *      were TAKING or HELD from before it until now, and it counts both. It leaves out only who is aborted by its own
 *      CAS, so will never hold by that attempt, and who is past its lease. Order plays no part in this.
 * Q.2  A lease ends in `until`: its holder renews by CAS from the very value it wrote, who finds it over marks it by
 *      CAS from the value that was over. One of the two fails. A node is counted until it is marked, and freed after,
 *      so no holder within its lease is ever freed. `until` is written before HELD, while the node is its owner's
 *      alone.
 * Q.3  Words don't come back: each turn of a keyspace is drawn once. So a late return, a late recoverer, or one who
 *      found a lease over and slept, has a CAS that fails. But TAKING and QUEUED alternate: a late abort costs its
 *      victim one more look, and no more, since only the owner goes on to HELD.
 * Q.4  A node that can take is told so. The occupancy of the table (who is HELD or TAKING, or was told to take and has
 *      not looked yet) sinks only by steps after each of which the one who made it looks for nodes that now fit and
 *      tells them (kick_next): a return, an end found by another, giving way. A node looks after its kick counter was
 *      read and its mark cleared. So the last step of that kind is followed by a look that sees no more occupied than
 *      there is in the end; what is left untold doesn't fit. A kill between step and look costs its victim's successors
 *      250 ms.
 * Q.5  Who is told but doesn't move (stopped) is passed by after 10 ms, in the count of those ahead and when it is
 *      TAKING, till it looks again. Who is dead is freed when it is in the way: a holder when the bound is reached, one
 *      ahead when there is room.
 *
 * Order is start-time fair queueing: a turn is max(the machine's turn, the last one of the keyspace + 1), and the
 * machine's turn is that of the latest who took. So a keyspace's own are served as they came, and one that comes anew
 * stands beside the first of a keyspace that has thousands waiting, not behind the last. Who may take has fewer ahead
 * of it than there are permits; of a keyspace only as many count as its bound leaves, so that those who wait for their
 * own keyspace hold up no other. A keyspace that was held back by its own bound comes before others afterwards, within
 * that bound. The order is that of turns as seen: a caller that was stopped between the draw and its node is overtaken.
 * Turns are hints. A kill leaves them uneven, never wrong.
 *
 * What is counted by keyspace is counted on SHELVES shelves, 1.5 KB of the stack. In a segment with more keyspaces than
 * that some share a shelf; if they are busy they lose their turn among others at times, and may wait for a slice.
 *
 * What is left at a kill: a turn drawn for nothing; QUEUED, TAKING or HELD, all with the dead reader in the word; HELD
 * with its end marked, freed by the next who sees it; a node that is marked as told but wasn't, which is passed by
 * and looks by itself after its slice.
 *
 * Progress: lock-free. A scan is as long as the table was ever full. Of two who are TAKING and have room for one, the
 * one ahead aborts the other; one that was passed by has cleared its mark before it is TAKING again, so they do not
 * take turns at it. An abort means that somebody else takes, or gives way and tells the next.
 */
#include "futex.h"
#include "life.h"
#include "permit.h"

#define TURN_BITS 30
#define TURN_MASK ((1u << TURN_BITS) - 1)
#define TURN(word) ((uint32_t)((word) >> 2) & TURN_MASK)
#define OVER UINT64_MAX
#define PATIENCE_MS 10 /* for one who was told to take */
#define SLICE_MS 250
#define TURNS 16       /* looks of one poll */
#define SHELVES 256u   /* power of two */
#define SHELF(keyspace) ((keyspace) & (SHELVES - 1))

static uint64_t make_word(uint32_t reader, uint32_t keyspace, uint64_t turn, enum permit_state state)
{
	return (uint64_t)reader << 48 | (uint64_t)(keyspace & 0xffff) << 32 | (turn & TURN_MASK) << 2 | state;
}

static uint64_t with_state(uint64_t word, enum permit_state state)
{
	return (word & ~(uint64_t)3) | state;
}

static const struct segment *segment_of(const struct permit_ticket *t)
{
	return &t->seat->member->segment;
}

static struct permit *node_of(const struct permit_ticket *t)
{
	return &segment_of(t)->permits[t->node];
}

static word64 *keyspace_turn(const struct segment *s, uint32_t keyspace)
{
	return &s->keyspaces[keyspace < s->geometry.keyspaces ? keyspace : 0].turn;
}

/* ---- a look at the table ----------------------------------------------------------------------------------- */

/* Taken together, so that one look has one order and one time. */
struct look {
	const struct member *m;
	const struct segment *s;
	uint32_t used;
	uint32_t turn;
	uint64_t now_ms;
	bool freed; /* somebody: others may fit */
};

/* The fence: what we changed is visible before we look at theirs. Its partner is the same line of another, for Q.1 (of
 * two who are TAKING, the later counts the earlier) and Q.4 (either a node sees the permit that was returned, or who
 * returned it sees the node untold). `used` is raised before a node can be anything but FREE (claim_node), so it covers
 * them too. */
static struct look begin_look(const struct member *m)
{
	const struct segment *s = &m->segment;

	barrier_full();
	return (struct look){
		.m = m,
		.s = s,
		.used = (uint32_t)min_u64(w32_load(&s->header->permits_used), s->geometry.readers),
		.turn = (uint32_t)w64_load(&s->header->turn),
		.now_ms = clock_ms(&s->clock),
	};
}

/* Turns lie around the machine's own; within one keyspace they differ, and the node's number decides between two. */
static uint64_t order_of(const struct look *l, uint64_t word, uint32_t node)
{
	return (uint64_t)((TURN(word) - l->turn + (1u << (TURN_BITS - 1))) & TURN_MASK) << 16 | node;
}

/* Q.2. If the CAS fails it was renewed, or is another's, who has time. */
static bool mark_if_over(struct permit *p, uint64_t now_ms)
{
	uint64_t until = w64_load(&p->until);

	return until == OVER || (until <= now_ms && w64_cas(&p->until, until, OVER));
}

/* A node's word, after its end if it had come. `until` is read after the word: it is that holder's, or a later one's,
 * who may be marked as well if it is over. */
static uint64_t look_at(struct look *l, uint32_t i)
{
	struct permit *p = &l->s->permits[i];
	uint64_t word = w64_load(&p->word);

	while (PERMIT_STATE(word) == PERMIT_HELD && mark_if_over(p, l->now_ms)) {
		if (w64_cas(&p->word, word, 0))
			l->freed = true;
		word = w64_load(&p->word);
	}
	return word;
}

static bool is_passed_by(const struct look *l, const struct permit *p)
{
	uint64_t kicked = w64_load(&p->kicked);

	return kicked && kicked + PATIENCE_MS <= l->now_ms;
}

/* The word is read before the reader is asked for: if that one is gone, so is whoever wrote the word. */
static bool free_if_dead(struct look *l, uint32_t i, uint64_t word)
{
	uint64_t ref = life_ref(l->m, PERMIT_READER(word));
	const word32 *alive;
	uint32_t seen;

	if ((ref && life_of(l->m, ref, &alive, &seen) < LIFE_THREAD_DEAD) ||
	    !w64_cas(&l->s->permits[i].word, word, 0))
		return false;
	return l->freed = true;
}

struct shelf {
	uint16_t held;    /* and who is about to, where that counts */
	uint16_t ahead;   /* in the queue */
	uint16_t room;    /* as its bound leaves; the least that any of them has */
};

static bool has_room(uint32_t n, uint32_t bound)
{
	return !bound || n < bound;
}

static void shelf_add(uint16_t *n)
{
	*n = *n < UINT16_MAX ? *n + 1 : *n;
}

/* ---- who is next ------------------------------------------------------------------------------------------- */

/* The mark, the counter, then the state: who goes to sleep after the counter was raised sees it. */
static void kick(const struct look *l, struct permit *p)
{
	uint64_t word;

	if (!w64_cas(&p->kicked, 0, max_u64(l->now_ms, 1)))
		return;
	w32_add(&p->kick, 1);
	word = w64_load(&p->word);
	if (PERMIT_STATE(word) != PERMIT_QUEUED)
		return;
	futex_wake(&p->kick, 1);
	bell_ring_reader(l->s, PERMIT_READER(word), BELL_BIT(p - l->s->permits));
}

/* HELD, TAKING, and told to take: not one of them can be told. One that is TAKING is marked, in case it stops there. */
static uint32_t count_occupied(struct look *l, struct shelf shelves[SHELVES])
{
	uint32_t i, n = 0;
	struct permit *p;
	uint64_t word;

	for (i = 0; i < l->used; i++) {
		p = &l->s->permits[i];
		word = look_at(l, i);
		if (PERMIT_STATE(word) == PERMIT_FREE || (PERMIT_STATE(word) != PERMIT_HELD && is_passed_by(l, p)) ||
		    (PERMIT_STATE(word) == PERMIT_QUEUED && !w64_load(&p->kicked)))
			continue;
		if (PERMIT_STATE(word) == PERMIT_TAKING)
			kick(l, p);
		n++;
		shelf_add(&shelves[SHELF(PERMIT_KEYSPACE(word))].held);
	}
	return n;
}

/* The foremost that waits untold and whose keyspace has room. */
static bool find_next(struct look *l, const struct shelf shelves[SHELVES], uint32_t *next, uint64_t *next_word)
{
	uint64_t word, order, best = UINT64_MAX;
	uint32_t i, bound;

	for (i = 0; i < l->used; i++) {
		struct permit *p = &l->s->permits[i];

		word = w64_load(&p->word);
		order = order_of(l, word, i);
		bound = w32_load(&p->bound);
		if (PERMIT_STATE(word) != PERMIT_QUEUED || w64_load(&p->kicked) || order >= best ||
		    !has_room(shelves[SHELF(PERMIT_KEYSPACE(word))].held, bound))
			continue;
		best = order;
		*next = i;
		*next_word = word;
	}
	return best != UINT64_MAX;
}

/* Q.4: tell exactly those who now fit. */
static void kick_next(const struct member *m)
{
	struct shelf shelves[SHELVES] = {{0}};
	struct look l = begin_look(m);
	uint32_t next, turns, occupied = count_occupied(&l, shelves);
	uint64_t word;

	for (turns = 0; turns < l.used && has_room(occupied, l.s->geometry.max_loads); turns++) {
		if (!find_next(&l, shelves, &next, &word))
			break;
		if (free_if_dead(&l, next, word))
			continue;
		kick(&l, &l.s->permits[next]);
		occupied++;
		shelf_add(&shelves[SHELF(PERMIT_KEYSPACE(word))].held);
	}
}

/* ---- take -------------------------------------------------------------------------------------------------- */

/* What stands between a QUEUED node and its permit. */
struct view {
	uint32_t held, held_own; /* on the machine, in its keyspace */
	uint32_t ahead, ahead_own;
};

static bool is_free_for(const struct permit_ticket *t, const struct view *v)
{
	return has_room(v->held, segment_of(t)->geometry.max_loads) && has_room(v->held_own, t->request.bound);
}

static bool is_its_turn(const struct permit_ticket *t, const struct view *v)
{
	return has_room(v->held + v->ahead, segment_of(t)->geometry.max_loads) &&
	       has_room(v->held_own + v->ahead_own, t->request.bound);
}

static bool is_ahead(const struct look *l, const struct permit_ticket *t, uint64_t word, uint32_t i)
{
	return (PERMIT_STATE(word) == PERMIT_QUEUED || PERMIT_STATE(word) == PERMIT_TAKING) &&
	       order_of(l, word, i) < order_of(l, t->word, t->node) && !is_passed_by(l, &l->s->permits[i]);
}

/* Of another keyspace as many are ahead as its bound leaves room for; the smallest of bounds, where they differ. */
static uint32_t count_ahead(const struct shelf shelves[SHELVES])
{
	uint32_t i, n = 0;

	for (i = 0; i < SHELVES; i++)
		n += (uint32_t)min_u64(shelves[i].ahead,
				       shelves[i].room > shelves[i].held ? shelves[i].room - shelves[i].held : 0);
	return n;
}

static struct view survey(struct look *l, const struct permit_ticket *t)
{
	struct shelf shelves[SHELVES] = {{0}}, *shelf;
	struct view v = {0};
	uint32_t i, bound;
	uint64_t word;
	bool own;

	for (i = 0; i < l->used; i++) {
		word = look_at(l, i);
		if (PERMIT_STATE(word) == PERMIT_FREE || i == t->node)
			continue;
		own = PERMIT_KEYSPACE(word) == t->request.keyspace;
		shelf = &shelves[SHELF(PERMIT_KEYSPACE(word))];
		if (PERMIT_STATE(word) == PERMIT_HELD) {
			v.held++;
			v.held_own += own;
			shelf_add(&shelf->held);
		} else if (is_ahead(l, t, word, i)) {
			v.ahead_own += own;
			bound = w32_load(&l->s->permits[i].bound);
			bound = bound ? (uint32_t)min_u64(bound, UINT16_MAX) : UINT16_MAX;
			shelf->room = (uint16_t)(shelf->ahead ? min_u64(shelf->room, bound) : bound);
			shelf_add(&shelf->ahead);
		}
	}
	v.ahead = count_ahead(shelves);
	return v;
}

/* Q.5: free the dead that are in the way. True: there were some. */
static bool clear_the_way(struct look *l, const struct permit_ticket *t, const struct view *v)
{
	bool full = !is_free_for(t, v), found = false;
	uint64_t word;
	uint32_t i;

	for (i = 0; i < l->used; i++) {
		word = w64_load(&l->s->permits[i].word);
		if (i != t->node && (full ? PERMIT_STATE(word) == PERMIT_HELD : is_ahead(l, t, word, i)))
			found |= free_if_dead(l, i, word);
	}
	return found;
}

/* Q.1: how many are HELD or TAKING, now that we are TAKING? `alone`: not counting who is behind us or was passed by,
 * and aborted. */
static bool fits(struct look *l, const struct permit_ticket *t, bool alone)
{
	uint32_t i, machine = 0, own = 0;
	uint64_t word, mine = order_of(l, t->word, t->node);

	for (i = 0; i < l->used; i++) {
		if (i == t->node)
			continue;
		word = look_at(l, i);
		if (alone && PERMIT_STATE(word) == PERMIT_TAKING &&
		    (order_of(l, word, i) > mine || is_passed_by(l, &l->s->permits[i]))) {
			if (!w64_cas(&l->s->permits[i].word, word, with_state(word, PERMIT_QUEUED)))
				i--; /* it has moved: look again */
			continue;
		}
		if (PERMIT_STATE(word) < PERMIT_TAKING)
			continue;
		machine++;
		own += PERMIT_KEYSPACE(word) == t->request.keyspace;
	}
	return has_room(machine, l->s->geometry.max_loads) && has_room(own, t->request.bound);
}

/* The machine's turn is that of the latest who took; turns in words are cut short. */
static void advance_turn(const struct segment *s, uint64_t word)
{
	uint64_t now = w64_load(&s->header->turn);
	uint32_t distance = (TURN(word) - (uint32_t)now) & TURN_MASK;

	if (distance && distance < 1u << (TURN_BITS - 1))
		w64_max(&s->header->turn, now + distance);
}

enum { LOOK_AGAIN = 0 }; /* besides enum permit_outcome */

/* With our TAKING visible. */
static int take(struct permit_ticket *t)
{
	uint64_t taking = with_state(t->word, PERMIT_TAKING), held = with_state(t->word, PERMIT_HELD);
	struct look l = begin_look(t->seat->member);
	struct permit *p = node_of(t);
	bool taken;

	if (!fits(&l, t, false) && !fits(&l, t, true)) {
		w64_cas(&p->word, taking, t->word);
		return PERMIT_WAIT;
	}
	t->until = l.now_ms + t->request.lease_ms;
	w64_store(&p->until, t->until); /* Q.2: before HELD */
	taken = w64_cas(&p->word, taking, held);
	if (taken) {
		t->word = held;
		advance_turn(l.s, held);
	}
	if (l.freed)
		kick_next(l.m);
	return taken ? PERMIT_GRANTED : LOOK_AGAIN;
}

static int poll_once(struct permit_ticket *t)
{
	struct permit *p = node_of(t);
	struct look l;
	struct view v;
	int r = PERMIT_WAIT;

	t->seen = w32_load(&p->kick);
	w64_store(&p->kicked, 0); /* Q.4: both before we look */
	l = begin_look(t->seat->member);
	v = survey(&l, t);
	if (!is_its_turn(t, &v) && clear_the_way(&l, t, &v))
		v = survey(&l, t);
	t->slice_ms = is_free_for(t, &v) ? PATIENCE_MS : SLICE_MS;
	if (is_its_turn(t, &v)) {
		if (!w64_cas(&p->word, t->word, with_state(t->word, PERMIT_TAKING)))
			return PERMIT_LOST;
		r = take(t);
	}
	if (r == PERMIT_WAIT || l.freed)
		kick_next(l.m);
	return r;
}

static enum permit_outcome lose(struct permit_ticket *t)
{
	registry_drop(t->seat);
	t->word = 0;
	return PERMIT_LOST;
}

enum permit_outcome permit_poll(struct permit_ticket *t)
{
	int turns, r = LOOK_AGAIN;

	if (PERMIT_STATE(t->word) != PERMIT_QUEUED)
		return t->word ? PERMIT_GRANTED : PERMIT_LOST;
	for (turns = 0; turns < TURNS && r == LOOK_AGAIN; turns++) {
		if (w64_load(&node_of(t)->word) != t->word)
			return lose(t);
		r = poll_once(t);
		if (r == PERMIT_WAIT && permit_is_kicked(t))
			r = LOOK_AGAIN;
	}
	if (r == PERMIT_LOST)
		return lose(t);
	return r == LOOK_AGAIN ? PERMIT_WAIT : (enum permit_outcome)r;
}

/* ---- the queue --------------------------------------------------------------------------------------------- */

/* Each turn of a keyspace once (Q.3). */
static uint64_t draw_turn(const struct segment *s, uint32_t keyspace)
{
	word64 *last = keyspace_turn(s, keyspace);
	uint64_t seen, turn;

	do {
		seen = w64_load(last);
		turn = max_u64(w64_load(&s->header->turn), seen + 1);
	} while (!w64_cas(last, seen, turn));
	return turn;
}

/* `used` is raised before the node can be anything but FREE; begin_look says why. */
static bool claim_node(const struct segment *s, uint64_t word, uint32_t *node)
{
	uint32_t i;

	for (i = 0; i < s->geometry.readers; i++) {
		if (w64_peek(&s->permits[i].word)) /* relaxed: the CAS decides */
			continue;
		if (w32_load(&s->header->permits_used) <= i)
			w32_max(&s->header->permits_used, i + 1);
		if (w64_cas(&s->permits[i].word, 0, word)) {
			*node = i;
			return true;
		}
	}
	return false;
}

/* The table is full: of the dead, perhaps, or of holders past their leases. */
static bool make_room(const struct member *m)
{
	struct look l = begin_look(m);
	uint64_t word;
	uint32_t i;

	for (i = 0; i < l.used; i++) {
		word = look_at(&l, i);
		if (PERMIT_STATE(word) != PERMIT_FREE)
			free_if_dead(&l, i, word);
	}
	if (l.freed)
		kick_next(m);
	return l.freed;
}

enum permit_outcome permit_try(struct seat *seat, const struct permit_request *request, struct permit_ticket *t)
{
	const struct segment *s = &seat->member->segment;
	uint64_t word = make_word(seat->index, request->keyspace, draw_turn(s, request->keyspace), PERMIT_QUEUED);
	uint32_t node;

	registry_hold(seat); /* before a node may name this seat */
	if (!claim_node(s, word, &node) && (!make_room(seat->member) || !claim_node(s, word, &node))) {
		registry_drop(seat);
		*t = (struct permit_ticket){.seat = seat};
		return PERMIT_FULL;
	}
	w32_store(&s->permits[node].bound, request->bound);
	*t = (struct permit_ticket){.seat = seat, .request = *request, .node = node, .word = word};
	return permit_poll(t);
}

bool permit_is_kicked(const struct permit_ticket *t)
{
	return w32_load(&node_of(t)->kick) != t->seen;
}

void permit_sleep(const struct permit_ticket *t, uint64_t deadline_ns)
{
	uint64_t slice = clock_system_ns(CLOCK_MONOTONIC) + (uint64_t)t->slice_ms * 1000000;

	if (PERMIT_STATE(t->word) == PERMIT_QUEUED)
		futex_wait(&node_of(t)->kick, t->seen, NULL, 0, min_u64(deadline_ns, slice));
}

bool permit_watch(const struct permit_ticket *t, struct bell_words *words)
{
	const struct permit *p = node_of(t);

	*words = (struct bell_words){
		.word = &p->word,
		.word_seen = t->word,
		.low = &p->kick,
		.low_seen = t->seen,
		.number = t->node,
		.slice_ms = t->slice_ms,
	};
	return PERMIT_STATE(t->word) == PERMIT_QUEUED && w64_load(&p->word) == t->word &&
	       atomic_load(&p->kick) == t->seen; /* after bell_listen(), seq_cst; partner: kick() */
}

/* ---- the holder -------------------------------------------------------------------------------------------- */

bool permit_is_held(const struct permit_ticket *t)
{
	return PERMIT_STATE(t->word) == PERMIT_HELD && w64_load(&node_of(t)->word) == t->word &&
	       t->until > clock_ms(&segment_of(t)->clock);
}

bool permit_renew(struct permit_ticket *t, uint32_t lease_ms)
{
	uint64_t until = clock_ms(&segment_of(t)->clock) + lease_ms;

	if (PERMIT_STATE(t->word) != PERMIT_HELD || !w64_cas(&node_of(t)->until, t->until, until))
		return false;
	t->until = until;
	return true;
}

bool permit_return(struct permit_ticket *t)
{
	bool mine;

	if (!t->word)
		return false;
	mine = w64_cas(&node_of(t)->word, t->word, 0);
	if (mine)
		kick_next(t->seat->member);
	registry_drop(t->seat); /* last: it keeps the mapping */
	t->word = 0;
	return mine;
}

/* ---- others ------------------------------------------------------------------------------------------------ */

/* Late is harmless: the word is read before the reader is asked for, and changed by CAS (Q.3). */
void permit_recover(const struct member *m, uint64_t ref)
{
	struct look l = begin_look(m);
	uint64_t word;
	uint32_t i;

	for (i = 0; i < l.used; i++) {
		word = w64_load(&l.s->permits[i].word);
		if (PERMIT_STATE(word) == PERMIT_FREE || PERMIT_READER(word) != REF_READER(ref) ||
		    life_ref(m, REF_READER(ref)) != ref)
			continue;
		l.freed |= w64_cas(&l.s->permits[i].word, word, 0);
	}
	if (l.freed)
		kick_next(m);
}

uint32_t permit_held(const struct segment *s, uint32_t keyspace)
{
	uint32_t i, n = 0, used = (uint32_t)min_u64(w32_load(&s->header->permits_used), s->geometry.readers);
	uint64_t word, until, now_ms = clock_ms(&s->clock);

	for (i = 0; i < used; i++) {
		word = w64_load(&s->permits[i].word);
		until = w64_load(&s->permits[i].until);
		n += PERMIT_STATE(word) == PERMIT_HELD && until > now_ms && until != OVER &&
		     (keyspace == UINT32_MAX || PERMIT_KEYSPACE(word) == keyspace);
	}
	return n;
}
