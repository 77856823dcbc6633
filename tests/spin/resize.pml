/* SPDX-License-Identifier: MIT */
/*
 * A resize (src/resize.c) of a region with one key, beside callers that set and delete it, a load, and readers.
 *
 * A cell per region holds the key's value and its generation, 0 = none; two of one key, tags and the log are other
 * models'. What is said of one slot holds of each, as the last round looks at each between the freeze and the move.
 *
 *   CHANGES    callers, each of which sets or deletes once
 *   LOADS      loads, begun in the old region
 *   READS      looks of the reader
 *   ATTEMPTS   of the resizer
 *   MAXS       how many changes the resizer gives up to wait for: their process is stopped there
 *   MAXT       how often a waiter ends the freeze: the resizer is stopped
 *
 * Asserted, of what a look finds: it was not replaced or deleted by a change that began after its own had ended (or, a
 * load's: had begun) and that ended before the look did begin. And with MAXS = 0 a value that was gone from one look to
 * the next is not there again (see Z.3 for why not else).
 */
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef LOADS
#define LOADS 0
#endif
#ifndef READS
#define READS 3
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef MAXS
#define MAXS 0
#endif
#ifndef MAXT
#define MAXT 0
#endif

#define CHANGERS (CHANGES + LOADS)
#define STEP 100

mtype = { SERVING, FROZEN, MOVED };
mtype moved = SERVING;
bool changing[CHANGERS + 1];  /* of the old region; a caller changes once */
bool given_up[CHANGERS + 1];  /* with it one word */
byte cell[2] = { 1, 0 };    /* generation */
byte value[2] = { 1, 0 };   /* and whose: a bit for each caller, the first is the value that was there */
byte next[2] = { 2, STEP };
bool ended = false;         /* the load's flight in the old region */
byte old = 1;               /* values whose change has ended, or load begun */
byte dead = 0;              /* those that may be seen no more */
byte stops = 0, thaws = 0;
bool over = false;          /* the resizer gave up */

#define now_in() (moved == MOVED -> 1 : 0)

/* move_wait(), move_mend(): ends when it isn't frozen; or a waiter ends it. */
inline await_thaw()
{
	if
	:: moved != FROZEN
	:: atomic { moved == FROZEN && thaws < MAXT -> thaws++; moved = SERVING }
	fi
}

/* handle_change(), move_follow(). r: where it may change. */
inline begin_change(me)
{
	do
	:: r = now_in();
	   if
	   :: r == 1 -> break
	   :: else ->
		changing[me] = true;
		if
		:: atomic { moved == SERVING -> break }
		:: else -> changing[me] = false; await_thaw()
		fi
	fi
	od
}

/* handle_changed(), rcu_changed_late(). again: it was given up, and the region has moved. */
inline end_change(me)
{
	again = false;
	if
	:: r == 1
	:: else ->
		if
		:: atomic { moved == SERVING -> changing[me] = false; given_up[me] = false }
		:: else ->
			atomic { changing[me] = false; m = given_up[me]; given_up[me] = false };
#ifdef MUTANT_all_again
			m = true;
#endif
			if
			:: m ->
				await_thaw();
#ifndef MUTANT_no_redo
				again = (moved == MOVED)
#endif
			:: else
			fi
		fi
	fi
}

inline put(g, whose) /* index_commit() */
{
	atomic { if :: cell[r] < g -> cell[r] = g; value[r] = whose :: else fi }
}

proctype Changer(byte me) /* shoal_set(), shoal_delete() */
{
	byte r, g = 0, before;
	bool again = true, set, m;

	if :: set = true :: set = false fi;
	before = old;
	do
	:: again ->
		begin_change(me);
		atomic { if :: g == 0 -> g = next[r]; next[r]++ :: else fi };
		if :: r == 0 -> ended = true :: else fi; /* the load's, before the index */
		if
		:: set -> put(g, 2 << me)
		:: else -> atomic { if :: cell[r] < g -> cell[r] = 0; value[r] = 0 :: else fi }
		fi;
		end_change(me)
	:: else -> break
	od;
	atomic { dead = dead | before; old = old | (2 << me) }
}

proctype Load(byte me) /* become_leader(), publish() */
{
	byte r, g;
	bool again, m;

	if
	:: atomic { moved != MOVED -> g = next[0]; next[0]++; ended = false; old = old | (2 << me) }
	:: moved == MOVED -> goto none
	fi;
	begin_change(me);
	if
	:: r == 0 -> atomic { if :: !ended && cell[0] < g -> cell[0] = g; value[0] = 2 << me :: else fi }
	:: else ->
#ifdef MUTANT_late_load
		put(g, 2 << me)
#else
		skip
#endif
	fi;
	end_change(me); /* done again: never */
none:
	skip
}

proctype Reader() /* shoal_get() */
{
	byte i, r, v, not, last = 0, gone = 0;

	for (i : 1 .. READS) {
		not = dead;
		r = now_in();
		v = value[r];
		assert(!(v & not));
#if MAXS == 0
		if :: v != last -> gone = gone | last; last = v :: else fi;
		assert(!(v & gone));
#endif
	}
}

proctype Resizer() /* run(), attempt() */
{
	byte tries, i, v, w;
	bool standing[CHANGERS + 1], awake;

	for (tries : 1 .. ATTEMPTS) {
		atomic { v = cell[0]; w = value[0] }
		atomic { cell[1] = v; value[1] = w } /* next_round() */
		if :: atomic { moved == SERVING -> moved = FROZEN } fi; /* freeze() */
#ifndef MUTANT_no_wait
		for (i : 0 .. CHANGERS - 1) { /* await_changes() */
			standing[i] = false;
			if
			:: !changing[i]
			:: moved != FROZEN /* thawed: go on, the move will fail */
			:: atomic { changing[i] && stops < MAXS -> stops++; standing[i] = true; given_up[i] = true }
			fi
		}
#endif
#ifndef MUTANT_no_last_round
		atomic { v = cell[0]; w = value[0] }
		atomic { cell[1] = v; value[1] = w }
#endif
		awake = false; /* still_stand() */
		for (i : 0 .. CHANGERS - 1) {
			if :: standing[i] && !changing[i] -> awake = true :: else fi
		}
		atomic {
			if
#ifdef MUTANT_move_without_cas
			:: !awake -> moved = MOVED; goto done
#else
			:: !awake && moved == FROZEN -> moved = MOVED; goto done
#endif
			:: else -> if :: moved == FROZEN -> moved = SERVING :: else fi
			fi
		}
	}
	over = true;
done:
	skip
}

init
{
	byte i;

	atomic {
		run Resizer();
		run Reader();
#if CHANGES
		for (i : 0 .. CHANGES - 1) { run Changer(i) }
#endif
#if LOADS
		for (i : CHANGES .. CHANGERS - 1) { run Load(i) }
#endif
	}
}
