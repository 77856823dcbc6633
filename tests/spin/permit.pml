/* SPDX-License-Identifier: MIT
 *
 * Permits: src/permit.c with NP callers of one or two keyspaces, each with a node of its own.
 *
 * Each atomic step is one access of a shared word, but for these:
 *  - A node's mark (kicked) is read together with its word: it decides on order and on aborts, never on a count.
 *  - "Its reader is dead" stays true, so the CAS that frees it is one step with the read of its word.
 *  - kick counter and futex are one bit: raised since its owner last read it.
 *  - `until` holds a number of its own for each lease and renewal; `past` has those whose time has come. It comes when
 *    somebody looks.
 *  - With COARSE=1 kick_next is one step, with COARSE=2 the survey too, once nobody may come late any more.
 * A word is {turn, state}: as in the code nothing else tells two tenancies of a node apart, and TAKING comes back.
 *
 * Checked:
 *   Q.1  when one becomes HELD: never more than M are HELD and not marked as over, nor B of a keyspace
 *   Q.2  a HELD node is freed by another only if its reader is dead or its lease, with its renewals, is past
 *   Q.4  without slices, kills and stops: everybody gets a permit (no invalid end state)
 *   Q.5  the last caller (-DLAST), who comes when all others are done, dead or stopped, gets one in a few looks
 */
#ifndef NP
#define NP 3
#endif
#ifndef M
#define M 1               /* of the machine; 0: no bound */
#endif
#ifndef B
#define B 0               /* of each keyspace; 0: no bound */
#endif
#ifndef KEYSPACES
#define KEYSPACES 1       /* caller i is of keyspace i % KEYSPACES */
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef MAXK
#define MAXK 0            /* kills */
#endif
#ifndef MAXS
#define MAXS 0            /* stops for ever */
#endif
#ifndef MAXL
#define MAXL 0            /* leases that end too early for their holders */
#endif
#ifndef MAXP
#define MAXP 0            /* nodes passed by though they only were slow */
#endif
#ifndef RENEW
#define RENEW 0
#endif
#ifndef SLICES
#define SLICES 1          /* sleepers wake by themselves */
#endif
#ifdef LAST
#define NN (NP + 1)
#else
#define NN NP
#endif
#define ALL ((1 << NP) - 1)
#define NONE 7
#define OVER 31
#define UNBOUND 100

#define FREE 0
#define QUEUED 1
#define TAKING 2
#define HELD 3
#define state(w) ((w) & 3)
#define order(w, i) (((w) >> 2) * 8 + (i))
#define bit(i) (1 << (i))
#define ks(i) ((i) % KEYSPACES)
#define min(a, b) ((a) < (b) -> (a) : (b))
#define room(bound, n) ((n) < ((bound) -> (bound) : UNBOUND) -> ((bound) -> (bound) : UNBOUND) - (n) : 0)

byte word[NN];
byte until[NN];
byte mark[NN];            /* 0; 1: told to take; 2: a while ago */
bit kicked[NN];
byte turn, last[2];       /* the machine's; the latest drawn of a keyspace */
int past;
byte rely[NN];            /* the number that a holder relies on (for the checks) */
byte dead, stopped, ended;
byte kills, stops, lates, passes;

#define counts(i) (state(word[i]) == HELD && until[i] != OVER)
#define is_of(i, k) (ks(i) == (k))
#if NN == 2
#define HOLDERS (counts(0) + counts(1))
#define HOLDERS_OF(k) ((counts(0) && is_of(0, k)) + (counts(1) && is_of(1, k)))
#elif NN == 3
#define HOLDERS (counts(0) + counts(1) + counts(2))
#define HOLDERS_OF(k) ((counts(0) && is_of(0, k)) + (counts(1) && is_of(1, k)) + (counts(2) && is_of(2, k)))
#else
#define HOLDERS (counts(0) + counts(1) + counts(2) + counts(3))
#define HOLDERS_OF(k) ((counts(0) && is_of(0, k)) + (counts(1) && is_of(1, k)) + (counts(2) && is_of(2, k)) + (counts(3) && is_of(3, k)))
#endif

/* One walk of the table serves all looks. */
#define SURVEY 0
#define BURY 1
#define FITS 2
#define ALONE 3
#define OCCUPIED 4

#ifdef MUTANT_stopped_first
#define PASSED(j) (0)
#else
#define PASSED(j) (mark[j] == 2)
#endif
#define AHEAD(j) (order(word[j], j) < order(mine, me) && !PASSED(j))
#define add(k) if :: (k) == 0 -> h0++ :: else -> h1++ fi
#define clear() j = 0; h0 = 0; h1 = 0; q0 = 0; q1 = 0
#define forward() j++; if :: j == me && phase != OCCUPIED -> j++ :: else fi; if :: j >= NN -> goto walked :: else fi
#define H_OWN (ks(me) -> h1 : h0)
#define Q_OWN (ks(me) -> q1 : q0)
#define HAS_FREE (room(M, h0 + h1) && room(B, H_OWN))
#ifdef MUTANT_own_not_counted
#define HAS_PERMIT (room(M, h0 + h1))
#else
#define HAS_PERMIT (room(M, h0 + h1) && room(B, H_OWN))
#endif
#define IS_TURN (room(M, h0 + h1 + min(q0, room(B, h0)) + min(q1, room(B, h1))) && room(B, H_OWN + Q_OWN))

inline consider(i) { /* find_next() */
  if
  :: state(word[i]) == QUEUED && mark[i] == 0 && room(B, (ks(i) -> h1 : h0)) &&
     (next == NONE || order(word[i], i) < q0) -> next = i; q0 = order(word[i], i)
  :: else
  fi
}

/* me: node and process. The last one is numbered NP. A jump from one atomic into another would make them one step: what
 * is jumped to begins outside where that matters. */
proctype Caller(byte me) { /* permit_try(), permit_poll() */
  byte j, w, u, lease, mine, phase, h0, h1, q0, q1, next, rounds, tries;
  bit taken, freed, found, again;
  {
    me != NP || (ended | dead | stopped) == ALL;
    do
    :: atomic { rounds >= ROUNDS -> break }
    :: rounds < ROUNDS ->
       atomic { /* draw_turn(), claim_node() */
         rounds++;
         w = last[ks(me)] + 1;
         w = (turn > w -> turn : w);
         last[ks(me)] = w; mine = w << 2 | QUEUED; w = 0
       }
       word[me] = mine;

poll:  /* begin_look() */
       kicked[me] = 0;
       atomic { /* only the clearing of the mark is seen by others */
#ifndef MUTANT_mark_cleared_late
         mark[me] = 0;
#endif
         if
         :: me == NP -> /* time passes between its looks */
            tries++; assert(tries < 8); /* Q.5 */
            do
            :: j < NP ->
               if :: mark[j] == 1 -> mark[j] = 2 :: else fi;
               if :: state(word[j]) == HELD && until[j] != OVER && (stopped & bit(j)) -> past = past | bit(until[j]) :: else fi;
               j++
            :: else -> break
            od
         :: else
         fi;
         phase = SURVEY
       }
walk:  atomic { /* survey(), clear_the_way(), fits(), count_occupied(): by phase */
         clear(); found = 0;
#ifdef COARSE
         if
         :: phase == OCCUPIED ->
            do
            :: j < NN ->
               if
               :: counts(j) -> add(ks(j))
               :: (state(word[j]) == TAKING || (state(word[j]) == QUEUED && mark[j])) && !PASSED(j) -> add(ks(j));
#ifndef MUTANT_taking_unmarked
                  if :: state(word[j]) == TAKING && mark[j] == 0 -> mark[j] = 1; kicked[j] = 1 :: else fi
#endif
               :: else
               fi;
               j++
            :: else -> j = 0; break
            od;
            do
            :: room(M, h0 + h1) ->
               next = NONE;
               do
               :: j < NN -> consider(j); j++
               :: else -> j = 0; q0 = 0; break
               od;
               if
               :: next == NONE -> break
               :: next != NONE && (dead & bit(next)) -> word[next] = FREE
               :: next != NONE && !(dead & bit(next)) -> mark[next] = 1; kicked[next] = 1; add(ks(next))
               fi
            :: else -> break
            od;
            goto kicked_all
         :: phase == SURVEY && COARSE > 1 && lates == MAXL ->
            do
            :: j < NN ->
               if
               :: j == me || word[j] == FREE
               :: j != me && state(word[j]) == HELD && (until[j] == OVER || (past & bit(until[j]))) ->
                  assert((dead & bit(j)) || (past & bit(rely[j])));
                  until[j] = OVER; word[j] = FREE; freed = 1
               :: j != me && state(word[j]) == HELD && until[j] != OVER && !(past & bit(until[j])) -> add(ks(j))
               :: j != me && (state(word[j]) == QUEUED || state(word[j]) == TAKING) ->
                  if :: AHEAD(j) -> if :: ks(j) == 0 -> q0++ :: else -> q1++ fi :: else fi
               fi;
               j++
            :: else -> break
            od;
            goto walked
         :: else
         fi;
#endif
         j = (me == 0 && phase != OCCUPIED -> 1 : 0)
       }
       do
       :: atomic {
            !(state(word[j]) == HELD && j != me && phase != BURY) ->
            if
            :: word[j] == FREE
            :: j == me && phase == OCCUPIED && state(word[j]) == HELD -> add(ks(j))
            :: phase == BURY && j != me && word[j] != FREE ->
               if
               :: (dead & bit(j)) && (taken -> state(word[j]) == HELD : state(word[j]) != HELD && AHEAD(j)) ->
                  word[j] = FREE; found = 1; freed = 1
               :: else
               fi
            :: phase == SURVEY && j != me && word[j] != FREE ->
               if
               :: AHEAD(j) -> if :: ks(j) == 0 -> q0++ :: else -> q1++ fi
               :: else
               fi
            :: (phase == FITS || phase == ALONE) && j != me && state(word[j]) == QUEUED
            :: (phase == FITS || phase == ALONE) && j != me && state(word[j]) == TAKING ->
               if
               :: phase == ALONE && !AHEAD(j) ->
#ifndef MUTANT_alone_without_abort
                  word[j] = (word[j] & ~3) | QUEUED
#endif
               :: else ->
#ifndef MUTANT_taking_not_counted
                  add(ks(j))
#endif
               fi
            :: phase == OCCUPIED && (state(word[j]) == QUEUED || state(word[j]) == TAKING) ->
               if
               :: PASSED(j) || (state(word[j]) == QUEUED && mark[j] == 0)
               :: else -> add(ks(j))
               fi;
#ifndef MUTANT_taking_unmarked
               if
               :: state(word[j]) == TAKING && mark[j] == 0 -> mark[j] = 1; goto told
               :: else
               fi
#endif
            fi;
            forward()
          }
       :: atomic { state(word[j]) == HELD && j != me && phase != BURY -> w = word[j] }
          u = until[j];
          atomic { /* mark_if_over() */
            if
            :: u == OVER
            :: u != OVER && ((past & bit(u)) || lates < MAXL) ->
               if :: !(past & bit(u)) -> lates++; past = past | bit(u) :: else fi;
#ifndef MUTANT_freed_unmarked
               if :: until[j] == u -> until[j] = OVER :: else -> goto not_over fi
#endif
            :: u != OVER && !(past & bit(u)) -> goto not_over
            fi
          }
          atomic { /* look_at(). Fails: it is looked at again */
            if
#ifdef MUTANT_freed_by_state
            :: state(word[j]) == HELD ->
#else
            :: word[j] == w ->
#endif
               assert((dead & bit(j)) || (past & bit(rely[j]))); /* Q.2 */
               word[j] = FREE; freed = 1; u = 0; w = 0; forward(); goto walk_on
            :: else -> u = 0; w = 0; goto walk_on
            fi
          }
not_over: atomic { add(ks(j)); u = 0; w = 0; forward(); goto walk_on }
told:     kicked[j] = 1;
          atomic { forward() }
walk_on:  skip
       od;
walked:
       atomic {
         j = 0;
         if
         :: phase == SURVEY && IS_TURN -> again = 0; goto take
         :: phase == SURVEY && !IS_TURN && again -> again = 0; goto refused
#ifdef MUTANT_dead_stay
         :: phase == SURVEY && !IS_TURN && !again -> goto refused
#else
         :: phase == SURVEY && !IS_TURN && !again && !dead -> goto refused
         :: phase == SURVEY && !IS_TURN && !again && dead -> taken = !HAS_FREE; phase = BURY; goto walk
#endif
         :: phase == BURY && found -> again = 1; taken = 0; phase = SURVEY; goto walk
         :: phase == BURY && !found -> taken = 0; goto refused
         :: (phase == FITS || phase == ALONE) && HAS_PERMIT -> goto hold
         :: phase == FITS && !HAS_PERMIT -> phase = ALONE; goto walk
         :: phase == ALONE && !HAS_PERMIT -> goto give_way
         :: phase == OCCUPIED && room(M, h0 + h1)
         :: phase == OCCUPIED && !room(M, h0 + h1) -> goto kicked_all
         fi
       }
find_next: /* kick_next(), find_next(), with the counts as they are; free_if_dead() */
       atomic { j = 0; q0 = 0; next = NONE }
       do
       :: atomic { consider(j); j++; if :: j >= NN -> j = 0; break :: else fi }
       od;
       atomic {
         q0 = 0;
         if :: next == NONE -> goto kicked_all :: else fi;
         if :: (dead & bit(next)) && word[next] != FREE -> word[next] = FREE; goto find_next :: else fi
       }
       atomic { /* kick() */
         add(ks(next));
         if :: mark[next] == 0 -> mark[next] = 1 :: else -> goto next_kicked fi
       }
       kicked[next] = 1;
next_kicked:
       atomic { if :: room(M, h0 + h1) -> goto find_next :: else fi }
kicked_all:
#ifdef MUTANT_mark_cleared_late
       mark[me] = 0;
#endif
       atomic {
         clear(); phase = SURVEY; next = 0; freed = 0; found = 0;
         if
         :: state(mine) == FREE -> goto done
         :: state(mine) == HELD -> goto holding
         :: else
         fi
       }
       kicked[me] || SLICES || me == NP; /* permit_sleep() */
       goto poll;

take:  /* take() */
#ifdef MUTANT_no_announcement
       goto hold;
#endif
       assert(word[me] == mine);
       atomic { word[me] = (mine & ~3) | TAKING; phase = FITS; goto walk }
give_way: /* lose() */
       word[me] = (state(word[me]) == TAKING -> mine : word[me]);
refused: /* lose() */
#ifdef MUTANT_refused_silently
       goto kicked_all;
#else
       phase = OCCUPIED;
       goto walk;
#endif
hold:  /* take(), advance_turn() */
#ifdef MUTANT_until_after_held
       skip;
#else
       until[me] = me * 8 + lease + 1;
#endif
       atomic {
         if
#ifdef MUTANT_no_announcement
         :: true ->
#else
         :: state(word[me]) == TAKING ->
#endif
            mine = (mine & ~3) | HELD; word[me] = mine;
            lease++; assert(lease < 7);
            rely[me] = me * 8 + lease;
            turn = (mine >> 2 > turn -> mine >> 2 : turn);
            assert(!M || HOLDERS <= M);                  /* Q.1 */
            assert(!B || HOLDERS_OF(ks(me)) <= B)
         :: else -> goto poll                 /* aborted */
         fi
       }
#ifdef MUTANT_until_after_held
       until[me] = me * 8 + lease;
#endif
       atomic { if :: freed -> phase = OCCUPIED; goto walk :: else -> clear(); phase = SURVEY fi }
holding:
#if RENEW
       if
       :: atomic { /* permit_renew() */
            if
            :: until[me] == me * 8 + lease -> lease++; assert(lease < 7); until[me] = me * 8 + lease; rely[me] = me * 8 + lease
            :: else
            fi
          }
       :: skip
       fi;
#endif
#ifdef MUTANT_kick_first
       atomic { if :: !again -> again = 1; phase = OCCUPIED; goto walk :: else -> again = 0 fi }
       atomic { if :: word[me] == mine -> word[me] = FREE :: else fi; mine = 0; goto done }
#else
       atomic { /* permit_return(); late: it fails */
         rely[me] = 0;
         if
         :: word[me] == mine -> word[me] = FREE; mine = 0; phase = OCCUPIED; goto walk
         :: else -> mine = 0
         fi
       }
#endif
done:  atomic { tries = 0; freed = 0 }
    od
  } unless { (dead | stopped) & bit(me) };
  atomic {
    j = 0; w = 0; u = 0; lease = 0; mine = 0; phase = 0; h0 = 0; h1 = 0; q0 = 0; q1 = 0; next = 0; rounds = 0; tries = 0;
    taken = 0; freed = 0; found = 0; again = 0;
    ended = ended | bit(me)
  }
}

#if MAXK + MAXS + MAXP
active proctype World() { /* model */
end:
  do
  :: atomic { kills < MAXK && !((dead | stopped | ended) & 1) -> kills++; dead = dead | 1 }
  :: atomic { NP > 1 && kills < MAXK && !((dead | stopped | ended) & 2) -> kills++; dead = dead | 2 }
  :: atomic { NP > 2 && kills < MAXK && !((dead | stopped | ended) & 4) -> kills++; dead = dead | 4 }
  :: atomic { stops < MAXS && !((dead | stopped | ended) & 1) -> stops++; stopped = stopped | 1 }
  :: atomic { NP > 1 && stops < MAXS && !((dead | stopped | ended) & 2) -> stops++; stopped = stopped | 2 }
  :: atomic { NP > 2 && stops < MAXS && !((dead | stopped | ended) & 4) -> stops++; stopped = stopped | 4 }
  :: atomic { passes < MAXP && mark[0] == 1 -> passes++; mark[0] = 2 }
  :: atomic { passes < MAXP && mark[1] == 1 -> passes++; mark[1] = 2 }
#if NN > 2
  :: atomic { passes < MAXP && mark[2] == 1 -> passes++; mark[2] = 2 }
#endif
  od
}
#endif

init {
  byte n;
  atomic {
    do
    :: n < NN -> run Caller(n); n++
    :: n >= NN -> break
    od;
    n = 0
  }
}
