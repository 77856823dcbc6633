/* SPDX-License-Identifier: MIT */
/*
 * The life of an extent: src/extents.c, log.c, room.c and recover.c, with one head, and one key of one index slot.
 *
 * Writers reserve a place, write, and let the slot point there; evictors sweep, claim an extent, walk it, retire it,
 * and collect. A slot's word is the place alone, so it comes back when an extent is used again. Readers are read.pml's,
 * but announcements are kept here as well. Where a membarrier stands all is seen: store buffers are read.pml's, too.
 *
 *   WRITERS, SETS      and how often each of them sets
 *   EVICTORS, TURNS    likewise
 *   NX, CAP            extents, and entries of each
 *   MAXK               kills. The dead are recovered by RECOVERERS, each once and at any time, and at the end
 *   THERE              1: an entry is there, in a sealed extent
 *   COARSE             1: the looks for a free extent, of a sweep and at announcements are one step each: they decide
 *                      nothing by themselves, but for the last, of which read.pml has the steps. 2: so is what is done
 *                      under a head's lock
 *
 * Each access of a shared word is a step, but: what is written under `reset` is one; so is "its owner is dead" with the
 * CAS that relies on it, as that stays true. A word has state, owner, sequence.
 *
 * Checked:
 *   E.1  nobody writes into, or publishes from, an extent that is walked, retired or free; no place is given out twice
 *   E.2  RETIRED: no index slot points into it
 *   E.3  a word that is EVICTING is taken from nobody who lives
 *   I.4  a CAS of the slot replaces the entry that was looked at, not another one at the same place
 *   E.5  entries counts no less than the slots that point there
 *   at the end, after a recovery and a sweep: no lock is held, nothing is EVICTING, nothing OPEN but the head
 *
 * A name with () in a comment is that of the function of src/ which takes these steps;
 * run.sh looks whether it is there.
 */
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef SETS
#define SETS 1
#endif
#ifndef EVICTORS
#define EVICTORS 1
#endif
#ifndef TURNS
#define TURNS 1
#endif
#ifndef NX
#define NX 2
#endif
#ifndef CAP
#define CAP 1
#endif
#ifndef MAXK
#define MAXK 0
#endif
#ifndef TRIES
#define TRIES 4           /* of an append: after them it is given up, as the code does after a thousand */
#endif
#ifndef RECOVERERS
#define RECOVERERS 0
#endif

#ifndef COARSE
#define COARSE 0
#endif
#ifndef THERE
#define THERE 0
#endif
#if COARSE
#define AS_ONE atomic
#else
#define AS_ONE
#endif
#if COARSE > 1
#define LOCKED atomic
#else
#define LOCKED
#endif

#define NP (WRITERS + EVICTORS)
#define FREE 0
#define OPEN 1
#define SEALED 2
#define EVICTING 3
#define RETIRED 4
#define NOBODY 7
#define state(w) ((w) & 7)
#define owner(w) (((w) >> 3) & 7)
#define moved(w, to, who) ((((w) >> 6) + 1) << 6 | (who) << 3 | (to))
#define HEAD(x, w) (((w) >> 6) << 3 | ((x) + 1))
#define head_extent(h) (((h) & 7) - 1)
#define head_sequence(h) ((h) >> 3)
#define place(x, at) ((x) * CAP + (at) + 1)
#define extent_of(p) (((p) - 1) / CAP)
#define is_dead(p) ((dead >> (p)) & 1)

short word[NX];
short head;
byte lock[NX];            /* process + 1 */
byte tail[NX], entries[NX];
byte slot;                /* a place */
byte bytes[NX * CAP];     /* whose; 0: nobody's, or overwritten */
byte reading[NP], writing[NP], walking[NP]; /* announcements: extent + 1 */
byte dead, kills, over;   /* masks */
bit walked[NX];           /* for the checks: its walker goes by what E.1 gives */

/* extents_move() */
inline move(x, from, to, who)
{
	d_step {
		if
		:: word[x] == from ->
			assert(state(from) != EVICTING || owner(from) == who || is_dead(owner(from)) || walking[owner(from)] != x + 1);
			word[x] = moved(from, to, who); done = true
		:: else -> done = false
		fi
	}
}

/* seal_if_no_head(), extents_seal() */
inline seal_if_no_head(x)
{
	w = word[x];
	if
	:: state(w) == OPEN && head_extent(head) != x -> move(x, w, SEALED, NOBODY)
	:: else
	fi
}

/* extents_open(), replace_head() */
inline replace_head()
{
	atomic { x = 0; done = false };
	do
	:: AS_ONE {
		do
		:: x < NX && state(word[x]) != FREE -> x++
		:: else -> break
		od
	   };
	   if
	   :: x == NX -> break
	   :: else ->
		w = word[x];
#ifndef MUTANT_open_unannounced
		writing[me] = x + 1; /* E.4 */
#endif
		if
		:: state(w) == FREE -> move(x, w, OPEN, me); if :: done -> break :: else fi
		:: else
		fi
	   fi
	od;
	if
	:: !done -> lacking = true; writing[me] = 0
	:: else ->
		d_step { tail[x] = 0; entries[x] = 0 }; /* reset() */
		w = word[x];
		d_step { if :: head == h -> head = HEAD(x, w); done = true :: else -> done = false fi };
		if
		:: done ->
			writing[me] = 0;
			if
			:: h != 0 ->
				x = head_extent(h);
				if :: lock[x] == 0 -> seal_if_no_head(x) :: else fi
			:: else
			fi
		:: else ->
			if
#ifdef MUTANT_loser_retires_anyway
			:: true -> move(x, w, RETIRED, me)
#else
			:: state(w) == OPEN -> move(x, w, RETIRED, me)
			:: else /* sealed since, or claimed */
#endif
			fi;
			writing[me] = 0
		fi
	fi
}

/* append_at() */
inline append_at()
{
	x = head_extent(h);
#ifndef MUTANT_writer_unannounced
	writing[me] = x + 1;
#endif
	w = word[x];
	if
	:: state(w) != OPEN || (w >> 6) != head_sequence(h) ->
		d_step { if :: head == h -> head = 0 :: else fi }
	:: else ->
		d_step { /* take_lock() */
			if
#ifdef MUTANT_lock_stolen
			:: true -> lock[x] = me + 1; done = true
#else
			:: lock[x] == 0 || is_dead(lock[x] - 1) -> lock[x] = me + 1; done = true
			:: else -> done = false
#endif
			fi
		};
		if
		:: !done -> busy++
		:: else -> LOCKED {
			if
			:: word[x] == w -> /* move_tail() */
				at = tail[x];
				if
				:: at < CAP -> tail[x] = at + 1; got = place(x, at)
				:: else
				fi
			:: else
			fi;
			atomic { if :: lock[x] == me + 1 -> lock[x] = 0 :: else fi; at = 0 } /* unlock() */
			};
			seal_if_no_head(x)
		fi
	fi;
	if :: got == 0 -> writing[me] = 0 :: else fi
}

#define is_mine_to_use(x) (!walked[x] && state(word[x]) >= OPEN && state(word[x]) < RETIRED)

/* index_commit(), with extents_add() and extents_drop() */
inline commit()
{
	do
	:: old = slot;
	   if
	   :: old == 0 -> break
	   :: else ->
#ifndef MUTANT_old_unannounced
		reading[me] = extent_of(old) + 1; /* protect() */
#endif
		atomic { if :: slot == old -> seen = bytes[old - 1]; break :: else fi }
	   fi
	od;
#ifndef MUTANT_counted_after
	entries[extent_of(got)]++;
#endif
	atomic {
		if
		:: slot == old ->
			assert(is_mine_to_use(extent_of(got)));
			assert(old == 0 || bytes[old - 1] == seen);
			slot = got; done = true
		:: else -> done = false
		fi
	};
#ifdef MUTANT_counted_after
	if :: done -> entries[extent_of(got)]++ :: else fi;
#endif
	if
	:: !done -> x = extent_of(got)
	:: else -> if :: old != 0 -> x = extent_of(old) :: else -> x = NX fi
	fi;
	if
#ifdef MUTANT_counted_after
	:: x < NX && done -> atomic { assert(entries[x] > 0); entries[x]-- }
#else
	:: x < NX -> atomic { assert(entries[x] > 0); entries[x]-- }
#endif
	:: else
	fi;
	reading[me] = 0
}

proctype Writer(byte me) /* room_reserve(), put() */
{
	short w, h;
	byte x, at, got, old, seen, busy, tries, sets;
	bool done, lacking;

	{
	do
	:: sets < SETS ->
		d_step { sets++; tries = 0; busy = 0; got = 0; lacking = false };
		do /* log_append() */
		:: got == 0 && !lacking && tries < TRIES ->
			tries++;
			h = head;
			if
			:: h == 0 || busy > 1 || tail[head_extent(h)] >= CAP -> busy = 0; replace_head()
			:: else -> append_at()
			fi
		:: else -> break
		od;
		if
		:: got == 0
		:: else ->
			d_step { assert(is_mine_to_use(extent_of(got))); assert(bytes[got - 1] == 0); bytes[got - 1] = me * SETS + sets };
			commit();
			writing[me] = 0
		fi;
		d_step { x = 0; w = 0; h = 0; old = 0; seen = 0; got = 0; done = false }
	:: else -> break
	od
	} unless { is_dead(me) };
	atomic { over = over | 1 << me; x = 0; w = 0; h = 0; old = 0; seen = 0; got = 0; at = 0; done = false; lacking = false; tries = 0; busy = 0; sets = 0 }
}

/* log_sweep(): is_astray() */
inline sweep()
{
	x = 0;
	do
	:: AS_ONE {
		do
		:: x == NX -> break
		:: x < NX ->
			w = word[x];
			if
			:: state(w) == EVICTING && walking[owner(w)] != x + 1 -> break
			:: state(w) == OPEN && lock[x] == 0 -> break
			:: else
			fi;
			x++
		od
	   };
	   if
	   :: x == NX -> break
	   :: x < NX && state(w) == EVICTING -> move(x, w, SEALED, NOBODY)
	   :: else -> seal_if_no_head(x)
	   fi;
	   x++
	od
}

/* rcu_announced(), from WRITING on or from READING on */
inline announced(x, all)
{
	held = false;
	p = 0;
	AS_ONE {
		do
		:: p < NP -> d_step {
			held = held || writing[p] == x + 1 || (p != me && walking[p] == x + 1) || (all && reading[p] == x + 1);
			p++
		}
		:: else -> p = 0; break
		od
	}
}

/* extents_claim() */
inline claim()
{
	w = word[x];
	if
	:: state(w) != SEALED -> done = false
	:: else ->
#ifndef MUTANT_walk_unannounced
		walking[me] = x + 1;
#endif
		move(x, w, EVICTING, me);
		if
		:: !done -> walking[me] = 0
		:: else ->
#ifdef MUTANT_claim_unscanned
			held = false;
#else
			announced(x, false);
#endif
			if
			:: !held -> walked[x] = true
			:: else -> w = word[x]; move(x, w, SEALED, me); walking[me] = 0; done = false
			fi
		fi
	fi
}

/* evict_one(): walk_extent(), index_drop(), extents_retire() */
inline evict()
{
	if
	:: entries[x] == 0 -> assert(slot == 0 || extent_of(slot) != x) /* E.5 */
	:: else ->
		do
		:: old = slot;
		   if
		   :: old == 0 || extent_of(old) != x -> break
		   :: else ->
			d_step { if :: slot == old -> slot = 0; done = true :: else -> done = false fi };
			if :: done -> d_step { assert(entries[x] > 0); entries[x]-- } :: else fi
		   fi
		od
	fi;
	w = word[x];
	atomic {
		assert(state(w) == EVICTING && owner(w) == me); /* E.3 */
		assert(slot == 0 || extent_of(slot) != x);      /* E.2 */
		walked[x] = false
	};
	move(x, w, RETIRED, me);
	walking[me] = 0
}

/* extents_collect(), collect() */
inline collect()
{
	x = 0;
	do
	:: x < NX ->
		w = word[x];
		if
		:: state(w) != RETIRED
		:: state(w) == RETIRED ->
			announced(x, true);
#ifdef MUTANT_no_grace
			held = false;
#endif
			if
			:: held
			:: else -> d_step {
				if
				:: word[x] == w -> word[x] = moved(w, FREE, me); p = 0;
					do
					:: p < CAP -> bytes[x * CAP + p] = 0; p++
					:: else -> p = 0; break
					od
				:: else
				fi
			}
			fi
		fi;
		x++
	:: else -> x = 0; break
	od
}

proctype Evictor(byte me) /* room_make() */
{
	short w;
	byte x, p, old, turns;
	bool done, held;

	{
	do
	:: turns < TURNS -> /* room_make() */
		turns++;
		sweep();
		if :: x = 0 :: x = NX - 1 fi;
		claim();
		if :: done -> evict() :: else fi;
		collect();
		atomic { w = 0; old = 0; done = false; held = false }
	:: else -> break
	od
	} unless { is_dead(me) };
	atomic { over = over | 1 << me; w = 0; x = 0; p = 0; old = 0; done = false; held = false; turns = 0 }
}

/* recover_held(): log_recover(), recover_extents(); life_free_reader() */
inline recover()
{
	q = 0;
	do
	:: q < NP ->
		if
#ifdef MUTANT_dead_stay
		:: false ->
#else
		:: is_dead(q) ->
#endif
			x = 0;
			do
			:: x < NX ->
				d_step { if :: lock[x] == q + 1 -> lock[x] = 0 :: else fi };
				w = word[x];
				if
				:: state(w) == EVICTING && owner(w) == q -> d_step { if :: word[x] == w -> walked[x] = false :: else fi };
					move(x, w, SEALED, NOBODY)
				:: else
				fi;
				x++
			:: else -> break
			od;
			reading[q] = 0;
			writing[q] = 0;
			walking[q] = 0
		:: else
		fi;
		q++
	:: else -> break
	od
}

proctype Recoverer() /* recover_all() */
{
	short w;
	byte x, q;
	bool done;

	recover();
	over = over | 64
}

#if MAXK
active proctype Killer() /* model */
{
	byte p;

	do
	:: kills < MAXK -> select (p : 0 .. NP - 1);
		atomic { if :: !(over >> p & 1) && !is_dead(p) -> dead = dead | 1 << p; kills++ :: else -> break fi }
	:: true -> break
	od;
	atomic { kills = MAXK; p = 0 }
}
#endif

/* model: recover_all(), log_sweep(), by whoever comes when all are done or dead. */
active proctype Last()
{
	short w;
	byte x, q;
	bool done;

	(over & (1 << NP) - 1) == (1 << NP) - 1 && kills == MAXK && (RECOVERERS == 0 || over & 64);
	recover();
	sweep();
	for (x : 0 .. NX - 1) {
		assert(lock[x] == 0);
		assert(state(word[x]) != EVICTING);
		assert(state(word[x]) != OPEN || head_extent(head) == x);
		assert(slot == 0 || extent_of(slot) != x || (entries[x] > 0 && state(word[x]) != FREE && state(word[x]) != RETIRED))
	}
	for (q : 0 .. NP - 1) {
		assert(reading[q] == 0 && writing[q] == 0 && walking[q] == 0)
	}
}

init
{
	byte p;

	atomic {
		if
		:: THERE -> word[0] = SEALED; tail[0] = CAP; entries[0] = 1; slot = place(0, 0); bytes[0] = 100
		:: else
		fi;
		for (p : 0 .. WRITERS - 1) { run Writer(p) }
#if EVICTORS
		for (p : WRITERS .. NP - 1) { run Evictor(p) }
#endif
#if RECOVERERS
		run Recoverer();
#endif
		p = 0
	}
}
