/* SPDX-License-Identifier: MIT */
/*
 * One key in its two buckets: index.h, I.1, I.6 and I.7. Its possible slots are two of the first bucket and one of the
 * second, empty at first. Writers insert generations 1, 2 ... and place by a look that may be long past when they
 * commit; which of the empty slots they saw they take is chosen freely, as the other keys of the buckets come and go.
 * Readers look twice.
 *
 *   WRITERS   inserts, each of its own generation; the last one's number is the newest
 *   READERS   look-ups, two each; DIRECT=1: the first without a try for a usual hit before it
 *
 * Each read of a slot is one step, each CAS is one. Checked: who looks is never shown an older generation than anybody
 * was shown before that look began. Who dies does nothing more, as any that is never its turn again: that is in all of
 * it. Nothing is deleted here: a look that misses the key between two inserts is no failure.
 *
 * A name with () in a comment is that of the function of src/ which takes these steps;
 * run.sh looks whether it is there.
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef READERS
#define READERS 1
#endif
#ifndef DIRECT
#define DIRECT 0
#endif

#define SLOTS 3
#define SECOND 2          /* the slot of the second bucket */
#define NONE 3

byte gen[SLOTS];          /* 0: empty */
bit settled[SLOTS];
byte version[SLOTS];      /* of an empty slot */
byte shown;               /* the newest generation that anybody was shown */

/* index_find(): the key's slots, one after the other. n: how many; newest and oldest: where. */
inline index_find()
{
	i = 0;
	do
	:: i < SLOTS -> atomic { g[i] = gen[i]; s[i] = settled[i]; v[i] = version[i]; i++ }
	:: else -> break
	od;
	skip;
	d_step {
		n = 0; newest = NONE; oldest = NONE; first = NONE; i = 0;
		do
		:: i < SLOTS && g[i] ->
			n++;
			if :: first == NONE -> first = i :: else fi;
			if :: newest == NONE -> newest = i :: newest != NONE && g[i] > g[newest] -> newest = i :: else fi;
			if :: oldest == NONE -> oldest = i :: oldest != NONE && g[i] < g[oldest] -> oldest = i :: else fi;
			i++
		:: i < SLOTS && !g[i] -> i++
		:: else -> break
		od;
		i = 0
	}
}

/* index_drop() */
inline index_drop(at)
{
	atomic {
		if
		:: gen[at] == g[at] -> gen[at] = 0; settled[at] = 0; version[at]++
		:: else
		fi
	}
}

/* index_settle(): `seen` is a generation, which is in one place in all its life */
inline index_settle()
{
	do
	:: true ->
		index_find();
		if
		:: n == 0 -> break
#ifdef MUTANT_newest_dropped
		:: n > 1 -> index_drop(newest)
#else
		:: n > 1 -> index_drop(oldest)
#endif
		:: n == 1 && s[newest] -> break
		:: n == 1 && !s[newest] && g[newest] != seen -> seen = g[newest]
		:: n == 1 && !s[newest] && g[newest] == seen ->
			atomic {
				if
				:: gen[newest] == g[newest] -> settled[newest] = 1; over = 1
				:: else -> seen = g[newest]
				fi
			}
			if :: over -> break :: else fi
		fi
	od;
	over = 0
}

#define LOCALS byte g[SLOTS]; bit s[SLOTS]; byte v[SLOTS]; byte i, n, newest, oldest, first, seen; bit over

/* put(): index_place(), index_commit() and index_settle(); or index_place_on() a slot that was seen,
 * and index_commit() */
proctype put(byte mine)
{
	LOCALS;
	byte at;

again:
	if
	:: at = 0
	:: at = 1
	:: at = SECOND
	:: goto place
	fi;
	atomic { g[at] = gen[at]; s[at] = settled[at] }
	if
#ifdef MUTANT_over_newer
	:: !g[at] || !s[at] -> goto place
#else
	:: !g[at] || !s[at] || g[at] > mine -> goto place
#endif
	:: else
	fi;
	atomic {
		if
		:: gen[at] == g[at] -> gen[at] = mine; goto over_it
		:: else -> goto again
		fi
	};
place:
	index_find();
	seen = 0;
	if
	:: n && g[newest] > mine -> goto settle
	:: n && g[newest] < mine -> at = newest
	:: !n && !g[0] -> at = 0
	:: !n && !g[1] -> at = 1
	:: !n && !g[SECOND] -> at = SECOND
	fi;
	atomic {
		if
		:: gen[at] == g[at] && version[at] == v[at] ->
			gen[at] = mine;
			/* in the place of one that was settled: is as well */
			settled[at] = g[at] && settled[at];
#ifdef MUTANT_born_settled
			settled[at] = 1;
#endif
			seen = mine
		:: else -> goto again
		fi
	}
settle:
	index_settle();
over_it:
	skip
}

/* store_find(), and hit_find() before it */
inline look()
{
	since = shown;
	if
	:: !DIRECT || looks ->
		atomic { g[0] = gen[0]; s[0] = settled[0] }
		atomic { g[1] = gen[1]; s[1] = settled[1] }
		if
		:: g[0] && !g[1] && s[0] -> result = g[0]; goto shows
		:: g[1] && !g[0] && s[1] -> result = g[1]; goto shows
		:: !g[0] && !g[1] ->
			if
			:: gen[SECOND] == 0 -> result = 0; goto shows
			:: else
			fi
		:: else
		fi
	:: else
	fi;
	do
	:: true ->
		index_find();
		if
		:: n == 0 -> result = 0; break
		:: n && newest == first && (newest != SECOND || s[newest]) -> result = g[newest]; break
#ifdef MUTANT_unsure
		:: n && newest == first && newest == SECOND && !s[newest] -> result = g[newest]; break
#else
		:: n && newest == first && newest == SECOND && !s[newest] -> seen = 0; index_settle()
#endif
		:: n && newest != first -> seen = 0; index_settle()
		fi
	od;
shows:
	atomic {
		assert(result == 0 || result >= since);
		if :: result > shown -> shown = result :: else fi
	}
}

/* shoal_get(), again and again */
proctype reader()
{
	LOCALS;
	byte since, result, looks;

	do
	:: looks < 2 -> look(); looks++
	:: else -> break
	od
}

init {
	byte k;

	atomic {
		k = 1;
		do :: k <= WRITERS -> run put(k); k++ :: else -> break od;
		k = 0;
		do :: k < READERS -> run reader(); k++ :: else -> break od
	}
}
