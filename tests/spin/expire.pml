/* SPDX-License-Identifier: MIT
 *
 * shoal_expire's copy and the barriers of keyspaces, beside loads, sets, deletes and eviction: one key, its index cells
 * and one flight slot (how leaders follow each other is flight.pml's).
 *
 * A cell holds an entry {generation, stale} or EMPTY(version). Each atomic step is one access of a shared word, with
 * the reduction of flight.pml: no word comes back (a replaced entry lies elsewhere in the log and is announced, an
 * EMPTY has a number of its own), so "CAS from the word I read" succeeds exactly if the cell did not change since:
 * cseen[] has a bit for each process that remembers the present word, and seen[] likewise for the flight. So a copy of
 * the same generation, by expire or by an eviction that appends the entry again, is another word, though a reader can't
 * tell it from the first. A barrier's words are one step: who reads half of it runs beside the call.
 *
 * Checked, with the origin changed before each verb:
 *   X1  after expire returned, no older value is fresh, now or later; nor after the keyspace's
 *   X2  after delete returned, no older value shows at all; nor after the keyspace's, or a set
 *   X3  visible generations never go back, where nobody sets
 *   X4  where nothing was deleted or evicted, something is there in the end: expire doesn't lose a value
 *
 * Every process can be killed at every step (MAXK).
 */
#ifndef NC
#define NC 2              /* index cells of the key */
#endif
#ifndef LOADERS
#define LOADERS 1
#endif
#ifndef EXPIRERS
#define EXPIRERS 1
#endif
#ifndef DELETERS
#define DELETERS 0
#endif
#ifndef SETTERS
#define SETTERS 0
#endif
#ifndef BARRIERS
#define BARRIERS 0        /* calls that expire or delete the whole keyspace */
#endif
#ifndef MOVES
#define MOVES 0           /* entries that an eviction appends again */
#endif
#ifndef DROPS
#define DROPS 0           /* or drops */
#endif
#ifndef FULL
#define FULL 0            /* there may be no room for a copy */
#endif
#ifndef MAXK
#define MAXK 0
#endif
#define NP (LOADERS + EXPIRERS + DELETERS + SETTERS + BARRIERS)
#define EVICTOR NP
#define NONE 7
#define EVERY 255
#define ALL ((1 << NP) - 1)
#define bit(p) (1 << (p))

byte cell[NC];            /* generation, 0: EMPTY */
bit stale[NC];
byte cseen[NC];

#define FREE 0
#define COMPUTING 1
#define PUBLISHING 2
byte flight, leader, seen;
byte gen[NP + 1];         /* of the leadership; 0: not stored yet */
byte target[NP + 1];      /* what it publishes into, and ... */
byte expects[NP + 1];     /* the generation it expects there, 0: EMPTY */

byte counter;
byte deleted, expired;    /* the keyspace's barriers */
byte dead, ended, kills;

/* what the checks remember */
byte truth, gone, old;    /* the origin's version; what is older than `gone` never shows, than `old` never is fresh */
byte val[10];             /* what a generation has read */
byte newest;
byte removals;

#if NC == 2
#define TOP (cell[1] > cell[0] -> 1 : 0)
#else
#define TOP 0
#endif
#define SHOWS (cell[TOP] > deleted)
#define IS_FRESH (SHOWS && !stale[TOP] && cell[TOP] > expired)

inline check() { /* model */
  assert(!SHOWS || val[cell[TOP]] >= gone);        /* X2 */
  assert(!IS_FRESH || val[cell[TOP]] >= old);      /* X1 */
#if SETTERS == 0
  assert(!SHOWS || cell[TOP] >= newest);           /* X3 */
  newest = (SHOWS -> cell[TOP] : newest)
#endif
}
inline put(k, g2, s2) { /* index_commit(), index_drop(), index_kill() */ cell[k] = g2; stale[k] = s2; cseen[k] = 0; check() }
inline forget_cells() { /* model */
  cseen[0] = cseen[0] & ~bit(me);
#if NC == 2
  cseen[1] = cseen[1] & ~bit(me)
#endif
}
#define KNOWS(k) (cseen[k] & bit(me))

/* index_find(): a, where it is in c (NONE: no entry); its word is known in cseen. `want`:
 * 1 the newest, 0 the oldest. */
inline find(want) {
  atomic { forget_cells(); a = cell[0]; c = (a -> 0 : NONE); cseen[0] = cseen[0] | bit(me) }
#if NC == 2
  atomic {
    b = cell[1]; cseen[1] = cseen[1] | bit(me);
    if
    :: b && (!a || (b > a) == want) -> a = b; c = 1; cseen[0] = cseen[0] & ~bit(me)
    :: else -> if :: c == 0 -> cseen[1] = cseen[1] & ~bit(me) :: else fi
    fi;
    b = 0
  }
#endif
}

/* index_remove(): what is older than `lim`, the oldest first. */
inline remove(lim) {
  do
  :: find(0);
     atomic {
       if
       :: a == 0 || a >= lim -> forget_cells(); a = 0; c = 0; break
       :: else -> removals = 1; if :: KNOWS(c) -> put(c, 0, 0) :: else fi; forget_cells(); a = 0; c = 0
       fi
     }
  od
}

/* index_settle(): all but the newest go. */
inline settle() {
#if NC == 2
  do
  :: find(0);
     atomic {
       if
       :: a && cell[0] && cell[1] -> if :: KNOWS(c) -> put(c, 0, 0) :: else fi; forget_cells(); a = 0; c = 0
       :: else -> forget_cells(); a = 0; c = 0; break
       fi
     }
  od
#else
  skip
#endif
}

/* copy_expired(), put_expired(): an entry that is older than `lim` is replaced by its stale copy,
 * it and nothing else. */
inline copy(lim) {
  do
  :: find(1);
     atomic {
       if
       :: a == 0 || a <= deleted -> t = 1; forget_cells(); a = 0; c = 0; break
       :: a >= lim -> forget_cells(); a = 0; c = 0; break
#if FULL
       :: a && a < lim && a > deleted -> t = 1; forget_cells(); a = 0; c = 0; break
#endif
       :: a && a < lim && a > deleted
       fi
     }
     atomic {
#ifdef MUTANT_copy_is_newer
       counter++; val[counter] = val[a]; a = counter;
#endif
#ifdef MUTANT_copy_goes_anywhere
       if :: !KNOWS(c) && cell[c] == 0 -> cseen[c] = cseen[c] | bit(me) :: else fi;
#endif
#ifdef MUTANT_copy_over_anything
       if :: cell[c] -> cseen[c] = cseen[c] | bit(me) :: else fi;
#endif
       if
       :: KNOWS(c) -> put(c, a, 1); forget_cells(); a = 0; c = 0; break
       :: else -> forget_cells(); a = 0; c = 0
       fi
     }
  od;
  if
  :: atomic { t -> t = 0 }; remove(lim)
  :: !t; settle()
  fi
}

/* store_supersede(), index_kill(), flight_detach(): the flight of a generation below `lim` is ended; `change` is what
 * its publication expects in the index. A label for each use. */
#define OLDER(lim) (gen[leader] == 0 || gen[leader] < (lim))
#define LOOK(lim, change, kill, detach, again, done) \
again: atomic { \
    seen = seen | bit(me); \
    if \
    :: flight == FREE || !OLDER(lim) -> seen = seen & ~bit(me); goto done \
    :: flight == COMPUTING && OLDER(lim) -> goto detach \
    :: flight == PUBLISHING && OLDER(lim) -> \
       t = target[leader]; e = expects[leader]; \
       if \
       :: e && cell[t] == e && (cseen[t] & bit(leader)) -> t = 0; e = 0; goto change \
       :: else -> cseen[t] = (cseen[t] & bit(leader) -> cseen[t] | bit(me) : cseen[t] & ~bit(me)); goto kill \
       fi \
    fi \
  }
#ifdef MUTANT_no_kill
#define KILLS 0
#else
#define KILLS 1
#endif
#define KILL(kill, detach) \
kill: atomic { \
    if :: e == 0 && KILLS && KNOWS(t) -> put(t, 0, 0) :: else fi; \
    forget_cells(); t = 0; e = 0; goto detach \
  }
#define DETACH(detach, again, done) \
detach: atomic { \
    if \
    :: seen & bit(me) -> flight = FREE; leader = 0; seen = 0; goto done \
    :: else -> goto again \
    fi \
  }

inline leave() { /* model */
  forget_cells();
  seen = seen & ~bit(me);
  ended = ended | bit(me)
}
#define MORTAL unless { dead & bit(me) }

proctype Expirer(byte me) { /* expire() */
  byte a, b, c, g, before, t, e;
  {
    atomic { truth++; before = truth; counter++; g = counter }
#ifdef MUTANT_copy_first
    copy(g);
#endif
    LOOK(g, change, kill, detach, again, over)
change:
    copy(g);
    goto detach;
    KILL(kill, detach)
    DETACH(detach, again, over)
over:
#ifndef MUTANT_copy_first
    copy(g);
#endif
    atomic { old = (before > old -> before : old); check() }
  } MORTAL;
  atomic { a = 0; b = 0; c = 0; g = 0; before = 0; t = 0; e = 0; leave() }
}

#if DELETERS
proctype Deleter(byte me) { /* remove_key() */
  byte a, b, c, g, before, t, e;
  {
    atomic { truth++; before = truth; counter++; g = counter }
    LOOK(g, change, kill, detach, again, over)
change:
    remove(g);
    goto detach;
    KILL(kill, detach)
    DETACH(detach, again, over)
over:
    remove(g);
    atomic { gone = (before > gone -> before : gone); check() }
  } MORTAL;
  atomic { a = 0; b = 0; c = 0; g = 0; before = 0; t = 0; e = 0; leave() }
}
#endif

/* index_place() for generation g: c and its word known, a what is there; c NONE: a newer one. */
inline place(g2) {
  find(1);
  atomic {
    if
    :: a > g2 -> c = NONE; forget_cells()
    :: a && a <= g2
    :: a == 0 ->
       c = 0; cseen[0] = (cell[0] == 0 -> cseen[0] | bit(me) : cseen[0] & ~bit(me));
#if NC == 2
       if
       :: true -> cseen[1] = cseen[1] & ~bit(me)
       :: true -> c = 1; cseen[0] = cseen[0] & ~bit(me); cseen[1] = (cell[1] == 0 -> cseen[1] | bit(me) : cseen[1] & ~bit(me))
       fi
#endif
    fi
  }
}

#if SETTERS
proctype Setter(byte me) { /* set(), put() */
  byte a, b, c, g, before, t, e;
  {
    atomic { truth++; before = truth; counter++; g = counter; val[g] = EVERY }
    LOOK(g, change, kill, detach, again, insert)
change:
    remove(g);
    goto detach;
    KILL(kill, detach)
    DETACH(detach, again, insert)
insert:
    place(g);
    atomic {
      if
      :: c == NONE -> a = 0; c = 0
      :: c != NONE && KNOWS(c) -> put(c, g, 0); a = 0; c = 0
      :: else -> forget_cells(); a = 0; c = 0; goto insert
      fi
    }
    settle();
    atomic { gone = (before > gone -> before : gone); check() }
  } MORTAL;
  atomic { a = 0; b = 0; c = 0; g = 0; before = 0; t = 0; e = 0; leave() }
}
#endif

#if LOADERS
proctype Loader(byte me) { /* become_leader(), publish_entry() */
  byte a, b, c, g;
  {
    atomic { flight == FREE -> flight = COMPUTING; leader = me; seen = 0; gen[me] = 0 }
#ifndef MUTANT_drawn_late
    atomic { counter++; g = counter }
    gen[me] = g;
    val[g] = truth;                                    /* it asks the origin */
#else
    b = truth;
    atomic { counter++; g = counter; val[g] = b; b = 0 }
    gen[me] = g;
#endif
publish:
    atomic { /* is_behind_barrier() */
      if
      :: g <= deleted || g <= expired -> goto release
      :: else
      fi
    }
    place(g);
    atomic {
      if :: c == NONE -> a = 0; c = 0; goto release :: else fi;
      target[me] = c; expects[me] = a; a = 0
    }
    atomic {
      if
      :: flight == COMPUTING && leader == me -> flight = PUBLISHING; seen = 0
      :: else -> goto out
      fi
    }
    atomic {
      if
      :: KNOWS(c) -> put(c, g, 0); c = 0
      :: else -> c = 0; goto once_more
      fi
    }
    settle();
    goto release;
once_more:
    atomic {
      if
      :: flight == PUBLISHING && leader == me -> flight = COMPUTING; seen = 0; goto publish
      :: else -> goto out
      fi
    }
release: atomic { if :: flight && leader == me -> flight = FREE; leader = 0; seen = 0 :: else fi }
out: skip
  } MORTAL;
  atomic { /* recovery: PUBLISHING of the dead is freed; COMPUTING too, an heir is flight.pml's */
    if :: flight && leader == me -> flight = FREE; leader = 0; seen = 0 :: else fi;
    target[me] = 0; expects[me] = 0; gen[me] = 0;
    a = 0; b = 0; c = 0; g = 0; leave()
  }
}
#endif

#if BARRIERS
proctype Barrier(byte me) { /* shoal_keyspace_expire(), shoal_keyspace_delete() */
  byte g, before;
  {
    atomic { truth++; before = truth; counter++; g = counter }
    if
    :: atomic { deleted = (g > deleted -> g : deleted); removals = 1; gone = (before > gone -> before : gone); check() }
    :: atomic { expired = (g > expired -> g : expired); old = (before > old -> before : old); check() }
    fi
  } MORTAL;
  atomic { g = 0; before = 0; leave() }
}
#endif

#if MOVES + DROPS
/* It finds an entry in an extent that is to go. It appends it again, CAS of the same cell, unless there is a newer one;
 * or drops it, the older ones first: walk_entry(), move_entry(), drop_entry(). */
active proctype Evictor() {
  byte a, b, c, moves, drops, me = EVICTOR;
  bit s;
end:
  do
  :: moves < MOVES ->
     atomic {
       moves++; forget_cells();
       if
       :: cell[0] -> c = 0
#if NC == 2
       :: cell[1] -> c = 1
#endif
       :: else -> goto end
       fi;
       a = cell[c]; s = stale[c]; cseen[c] = cseen[c] | bit(me)
     }
#if NC == 2
     atomic {
       if
       :: cell[1 - c] > a -> if :: KNOWS(c) -> put(c, 0, 0) :: else fi; goto moved
       :: else
       fi
     }
#endif
     atomic {
#ifdef MUTANT_moved_by_generation
       if :: cell[c] == a -> cseen[c] = cseen[c] | bit(me) :: else fi;
#endif
#ifdef MUTANT_moved_anyhow
       cseen[c] = cseen[c] | bit(me);
#endif
       if :: KNOWS(c) -> put(c, a, s) :: else fi
     }
moved: atomic { forget_cells(); a = 0; c = 0; s = 0 }
  :: drops < DROPS ->
     drops++;
     find(0);
     atomic { if :: a && KNOWS(c) -> removals = 1; put(c, 0, 0) :: else fi; forget_cells(); a = 0; c = 0 }
  od
}
#endif

active proctype World() { /* model */
  byte n;
end:
  do
  :: atomic { kills < MAXK && ((dead | ended) & ALL) != ALL ->
       n = 0;
       do
       :: n < NP && !((dead | ended) & bit(n)) -> break
       :: n < NP - 1 -> n++
       :: n >= NP - 1 && ((dead | ended) & bit(n)) -> goto end
       od;
       kills++; dead = dead | bit(n); n = 0 }
  :: atomic { ended == ALL -> assert(removals || FULL || SHOWS) /* X4 */; break }
  od
}

init {
  byte n;
  atomic {
    counter = 1; cell[0] = 1; newest = 1; /* there from the start, and fresh */
    do
#if LOADERS
    :: n < LOADERS -> run Loader(n); n++
#endif
    :: n >= LOADERS && n < LOADERS + EXPIRERS -> run Expirer(n); n++
#if DELETERS
    :: n >= LOADERS + EXPIRERS && n < LOADERS + EXPIRERS + DELETERS -> run Deleter(n); n++
#endif
#if SETTERS
    :: n >= LOADERS + EXPIRERS + DELETERS && n < LOADERS + EXPIRERS + DELETERS + SETTERS -> run Setter(n); n++
#endif
#if BARRIERS
    :: n >= LOADERS + EXPIRERS + DELETERS + SETTERS && n < NP -> run Barrier(n); n++
#endif
    :: n == NP -> break
    od;
    n = 0
  }
}
