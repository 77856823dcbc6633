/* SPDX-License-Identifier: MIT */
/*
 * The read protocol: src/rcu.h, index.c's protect() and extents_collect(), under store buffers (TSO).
 *
 * One key, whose index slot points to an extent of one entry; a slot's word is its offset alone, so it comes back when
 * an extent is used again. Writers copy and publish, retire what they replaced and collect; readers read in place.
 * What a thread pokes into its own announcements waits in its buffer, first in, first out, till the machine, a fence
 * of its own or somebody's membarrier empties it. All else that is written is written by CAS, which empties the
 * buffer, or before one.
 *
 *   READERS   look-ups, LOOKS each
 *   WRITERS   which publish UPDATES times each; but the first, if there are two, FEW times
 *   NX        extents
 *   FENCE     1: fence mode, where membarrier is refused
 *
 * Each line that touches what is shared is one step. Checked:
 *   E.2  what is read is what was published, whole, until the announcement is cleared
 *   I.4  a writer's CAS replaces the entry that it looked at, not another one at the same place
 *
 * A name with () in a comment is that of the function of src/ which takes these steps;
 * run.sh looks whether it is there.
 */
#ifndef READERS
#define READERS 1
#endif
#ifndef LOOKS
#define LOOKS 1
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef UPDATES
#define UPDATES 1
#endif
#ifndef FEW
#define FEW UPDATES
#endif
#ifndef NX
#define NX 2
#endif
#ifndef FENCE
#define FENCE 0
#endif

#define NP (READERS + WRITERS)
#define READING 0         /* words of announcements, in the order of the scan */
#define PIN 1
#define RETIRED 1
#define OPEN 2            /* or sealed */
#define FREE 0
#define state(w) ((w) & 3)
#define next(w, to) ((((w) >> 2) + 1) << 2 | (to))

byte slot = 1;            /* extent + 1, or 0 */
byte word[NX];            /* sequence and state */
byte low[NX], high[NX];   /* the entry: whole if both are the same; 0: overwritten */
byte words[2 * NP];       /* announcements, as the others see them */
chan buffer[NP] = [3] of { byte, byte };
byte drawn = 1;           /* generations */

inline empty_buffer(p) /* model: the machine */
{
	do
	:: buffer[p]?u, v -> words[2 * p + u] = v
	:: empty(buffer[p]) -> break
	od
}

/* rcu_announce(), but for its barrier; rcu_clear() */
inline poke(which, value)
{
	buffer[me]!which, value
}

/* barrier_light(), barrier_full(): the reader's half */
inline barrier()
{
#if FENCE && !defined(MUTANT_no_fence)
	d_step { empty_buffer(me); u = 0; v = 0 }
#else
	skip
#endif
}

/* rcu_barrier(): membarrier puts a fence into everybody, at one moment or another */
inline rcu_barrier()
{
	d_step { empty_buffer(me); u = 0; v = 0 };
#if !FENCE && !defined(MUTANT_no_membarrier)
	i = 0;
	do
	:: i < NP -> d_step { empty_buffer(i); u = 0; v = 0; i++ }
	:: else -> i = 0; break
	od
#endif
}

/* protect(), for a look at slot or a change of it. ok: g is the generation that is announced. */
inline protect(which)
{
	ok = false;
	w = slot;
	if
	:: w == 0
	:: else ->
#ifndef MUTANT_writer_unannounced
		poke(which, w);
		barrier();
#else
		if :: me < READERS -> poke(which, w); barrier() :: else fi;
#endif
#ifdef MUTANT_no_second_look
		atomic { ok = true; g = low[w - 1] }
#else
		atomic { if :: slot == w -> ok = true; g = low[w - 1] :: else fi };
#endif
		if :: ok :: else -> poke(which, 0) fi
	fi
}

proctype Reader(byte me) /* index_find(), hit_get(), shoal_release() */
{
	byte w, g, u, v, looks = 0, which, i;
	bool ok;

	do
	:: looks < LOOKS ->
		looks++;
		if :: which = READING :: which = PIN fi; /* hit_get(): in its last word at once */
		protect(which);
		if
		:: !ok
		:: else ->
			assert(g != 0);
#ifdef MUTANT_announcement_moves
			if :: which == PIN -> poke(READING, w); poke(PIN, 0); which = READING :: else fi;
#endif
#ifdef MUTANT_cleared_early
			poke(which, 0);
#endif
			assert(low[w - 1] == g);
			assert(high[w - 1] == g);
			poke(which, 0)
		fi
	:: else -> break
	od
}

/* rcu_announced(), extents_collect() */
inline collect()
{
	x = 0;
	do
	:: x < NX ->
		c = word[x];
		if
		:: state(c) != RETIRED
		:: else ->
			rcu_barrier();
			held = false;
			i = 0;
			do
			:: i < 2 * NP -> held = held || words[i] == x + 1; i++
			:: else -> i = 0; break
			od;
			if
			:: held
			:: else ->
				atomic {
					if
#ifdef MUTANT_no_sequence
					:: state(word[x]) == RETIRED ->
#else
					:: word[x] == c ->
#endif
						word[x] = next(word[x], FREE); low[x] = 0; high[x] = 0
					:: else
					fi
				}
			fi
		fi;
		x++
	:: else -> x = 0; c = 0; held = false; break
	od
}

/* extents_retire() */
inline retire(which)
{
	atomic { assert(state(word[which]) == OPEN); word[which] = next(word[which], RETIRED) }
}

proctype Writer(byte me) /* log_append(), index_commit(), room_make() */
{
	byte w, g, u, v, x, c, mine, n, updates = 0, i;
	bool ok, held;

	do
	:: updates < (WRITERS > 1 && me == READERS -> FEW : UPDATES) ->
		updates++;
		mine = 0; /* extents_open() */
		do
		:: mine == NX -> break
		:: mine < NX ->
			atomic {
				if
				:: state(word[mine]) == FREE -> word[mine] = next(word[mine], OPEN); ok = true
				:: else -> ok = false
				fi
			}
			if :: ok -> break :: else -> mine++ fi
		od;
		if
		:: mine == NX
		:: else ->
			atomic { drawn++; n = drawn }
			low[mine] = n;  /* store_fill(), and the value */
			high[mine] = n;
			protect(READING);
#ifdef MUTANT_retired_first
			if :: ok -> retire(w - 1); x = 0; rcu_barrier() :: else fi;
#endif
			atomic { /* index_commit() */
				if
				:: ok && slot == w -> empty_buffer(me); assert(low[w - 1] == g); slot = mine + 1
				:: else -> empty_buffer(me); ok = false
				fi;
				u = 0; v = 0
			}
			if
			:: ok ->
#ifndef MUTANT_retired_first
				retire(w - 1)
#else
				skip
#endif
			:: else -> retire(mine)
			fi;
			atomic { poke(READING, 0); w = 0; g = 0; n = 0; mine = 0 }
		fi;
		atomic { ok = false; mine = 0 }
		collect()
	:: else -> break
	od
}

/* model: a buffer empties by itself, some time. */
proctype Machine(byte p)
{
	byte u, v;
end:
	do
	:: atomic { buffer[p]?u, v -> words[2 * p + u] = v; u = 0; v = 0 }
	od
}

init
{
	byte p;

	atomic {
		word[0] = OPEN;
		low[0] = 1;
		high[0] = 1;
		for (p : 0 .. READERS - 1) { run Reader(p); run Machine(p) }
		for (p : READERS .. NP - 1) { run Writer(p); run Machine(p) }
		p = 0
	}
}
