/* SPDX-License-Identifier: MIT
 *
 * The life of the flights of one key, with the index cells they publish into.
 *
 * Each atomic step is one access of a shared word. Three reductions, each exact:
 *  - A flight word carries a sequence that never repeats, so "CAS from the word I read" succeeds exactly if the slot
 *    did not change since: seen[slot] holds one bit per process that remembers the word, every change clears it.
 *    The version of an EMPTY cell is modelled in the same way (cseen[cell]). So neither counter can wrap or hide ABA.
 *  - A CAS on another's word after tests that stay true while the word stays the same (its leader is dead, its lease is
 *    over) is one step with its read: a failed one reads again, as if it had come later.
 *  - A lease ends when somebody finds it over; before that nobody can tell.
 * A waiter's sleep is "the word changed, or the leader died, or the lease is over"; lost wakes cost a slice, no more.
 *
 * The rules that a first version of the protocol lacked; each has a mutant that breaks it:
 *  - Supersede first, then the index step, in publish, set and delete alike (supersede_last, sweep_first).
 *  - A flight whose generation is not stored yet counts as older (unknown_spared).
 *  - A PUBLISHING flight that would replace an entry: that entry is removed before the flight is detached, as an EMPTY
 *    target gets its new version before (entry_target_later, kill_after_detach).
 *  - What a publisher records lies in its own thread's slot: its stores may come after it was detached, when the flight
 *    slot has another leader (record_in_slot).
 *  - Who goes past a COMPUTING flight changes its word. PUBLISHING is gone past unchanged when late, so it is never
 *    taken over in place, dead or not: to FREE (takeover_publishing). After a failed index CAS such a flight is
 *    COMPUTING with its lease over: that is looked at before its leader's death (takeover_late).
 *  - Cancelled when OVERDUE: to FREE, never ORPHAN (orphan_overdue).
 *  - OVERDUE and CLAIMING of the dead: to FREE (dead_overdue_stays, dead_claim_stays).
 *  - Having aborted a claim behind mine I go on and don't look there again, or two claimants repeat it for ever
 *    (look_again).
 *
 * Keyspace barriers, expire's stale copy and entries that eviction appends again: expire.pml. Not modelled: several
 * leaderships of one thread, replaced words of another key.
 * I4 (visible generations never go back) is checked where there is no set: one stopped in its index
 * step may insert late.
 *
 * Every process can be killed at every step (MAXK), or stopped for ever (MAXS); a leader can be late (MAXL).
 */
#ifndef NC
#define NC 1                              /* index cells of the key */
#endif
#ifndef NS
#define NS 3                              /* flight slots, in the key's probe order */
#endif
#ifndef CALLERS
#define CALLERS 3
#endif
#ifndef MAXK
#define MAXK 1
#endif
#ifndef MAXS
#define MAXS 0
#endif
#ifndef MAXL
#define MAXL 1
#endif
#ifndef DELETERS
#define DELETERS 0
#endif
#ifndef EVICT
#define EVICT 0                           /* entries vanish at any time */
#endif
#ifndef ENDINGS
#define ENDINGS 0                         /* loads may fail or be cancelled too */
#endif
#ifndef SETTERS
#define SETTERS 0
#endif
#define NP (CALLERS + DELETERS + SETTERS) /* the last caller, numbered NP, comes when all others ended */
#define ALL ((1 << NP) - 1)
#define NONE 7
#define EVERY 255

/* flight words: kind and leader */
#define FREE 0
#define ORPHAN 1
#define FAILED 2
#define CLAIMING(p) (8 + (p))
#define COMPUTING(p) (16 + (p))
#define PUBLISHING(p) (24 + (p))
#define OVERDUE(p) (32 + (p))
#define kind(w) ((w) >> 3)
#define K_CLAIM 1
#define K_COMP 2
#define K_PUB 3
#define K_OVER 4
#define who(w) ((w) & 7)
#define bit(p) (1 << (p))

byte word[NS];
byte seen[NS];        /* who still knows the current word (its sequence) */
bit late[NS];         /* the lease is over, and the word does not say so: PUBLISHING, or COMPUTING after it */
byte cell[NC];        /* generation of the entry, 0: EMPTY(version) */
byte cseen[NC];       /* who still knows the current cell word */
byte gen[NP + 1];     /* generation of this thread's leadership, in its own slot, 0: not stored yet */
byte target[NP + 1];  /* the cell it publishes into, in its own slot */
bit entry[NP + 1];    /* ... where it expects an entry (and not EMPTY) */
byte counter;         /* the segment's generation counter */
byte dead, stopped, ended;
byte kills, stops, lates;

/* what the checks remember */
byte loading;         /* leaders whose load nobody may double */
byte truth, lowest;   /* the origin's version; loads below `lowest` must never show again */
byte val[8];          /* what the load of a generation had read (EVERY: written by a set) */
byte newest;          /* newest generation that was ever visible */

#define is_dead(p) (dead & bit(p))
#define may_late(p) (lates < MAXL || (stopped & bit(p)))
#define RUN(k) (kind(word[k]) == K_COMP && !late[k] && !is_dead(who(word[k])))
#if NS == 1
#define RUNNING RUN(0)
#elif NS == 2
#define RUNNING (RUN(0) + RUN(1))
#else
#define RUNNING (RUN(0) + RUN(1) + RUN(2))
#endif
#if NC == 2
#define VISIBLE (cell[0] > cell[1] -> cell[0] : cell[1])
#define OLD_SHOWS(t) ((cell[0] && val[cell[0]] < (t)) || (cell[1] && val[cell[1]] < (t)))
#else
#define VISIBLE cell[0]
#define OLD_SHOWS(t) (cell[0] && val[cell[0]] < (t))
#endif

#ifdef MUTANT_entry_target_later
bit later[NS];
#endif
#ifdef MUTANT_record_in_slot            /* the record of a publication lies in the flight slot, plain stores */
#define REC(s, p) (s)
byte stored_by[NP + 1];
#define EXPECTS(s, p) stored_by[s]
#else
#define REC(s, p) (p)
#define EXPECTS(s, p) (p)
#endif

#ifdef REFRESH                            /* generation 1 is there from the start, and stale: callers refresh it */
#define FRESH(g) ((g) > 1)
#else
#define FRESH(g) (g)
#endif

inline put(s, w2) { /* model: a word of a new sequence: flight_step() */ word[s] = w2; seen[s] = 0 }
inline put_free(s) { /* end_here(), flight_detach(): to FREE */
  if :: word[s] >= CLAIMING(0) -> loading = loading & ~bit(who(word[s])) :: else fi;
  put(s, FREE); late[s] = 0
}
inline put_computing(s) { /* claim_once(), take_over(). I1: one leader, whoever was passed by */
  put(s, COMPUTING(me)); late[s] = 0;
  assert((loading & ~dead & ~bit(me)) == 0);
  loading = loading | bit(me);
  assert(RUNNING <= 1)
}
inline put_cell(k, g2) { /* index_commit(), index_drop(), index_kill() */
  cell[k] = g2; cseen[k] = 0;
  if :: g2 && val[g2] < lowest -> assert(false) /* I3 */ :: else fi;
#if SETTERS == 0
  assert(VISIBLE == 0 || VISIBLE >= newest); /* I4 */
  newest = (VISIBLE > newest -> VISIBLE : newest)
#endif
}
inline count_late(s) { /* model */ if :: stopped & bit(who(word[s])) :: else -> lates++ fi }

/* index_find(): the newest generation among the cells */
inline lookup(r) {
#if NC == 2
  r = cell[0];
  atomic { r = (cell[1] > r -> cell[1] : r); r = (FRESH(r) -> r : 0) }
#else
  r = (FRESH(cell[0]) -> cell[0] : 0)
#endif
}

/* index_remove(): every entry of the key older than `lim`, the oldest first */
inline sweep(lim) {
#if NC == 2
  do
  :: a = cell[0];
     atomic {
       b = cell[1];
       if
       :: a && a < lim && !(b && b < a) -> c = 0
       :: b && b < lim && !(a && a < lim && a < b) -> a = b; c = 1
       :: else -> a = 0; b = 0; break
       fi;
       b = 0
     }
     atomic { if :: cell[c] == a -> put_cell(c, 0) :: else fi; a = 0; c = 0 }
  od
#else
  atomic { if :: cell[0] && cell[0] < lim -> put_cell(0, 0) :: else fi }
#endif
}

#ifdef MUTANT_unknown_spared
#define OLDER(p, lim) (gen[p] != 0 && gen[p] < (lim))
#else
#define OLDER(p, lim) (gen[p] == 0 || gen[p] < (lim))
#endif

/* store_supersede(), flight_next(), flight_detach(), index_kill(): detach every flight of the key older than `lim` (or
 * whose generation is not stored yet), but not `own`. When it returns none of them can change the index any more; so
 * the index step comes after it. */
#ifdef COARSE
inline detach_one(s, lim, own) { /* flight_detach() */
  if
  :: s != own && (word[s] == ORPHAN || word[s] == FAILED) -> put_free(s)
  :: s != own && kind(word[s]) >= K_COMP && OLDER(who(word[s]), lim) -> cseen[0] = cseen[0] & ~bit(who(word[s])); put_free(s)
  :: else
  fi
}
inline supersede(lim, own) { /* store_supersede() */
  atomic {
    detach_one(0, lim, own);
#if NS > 1
    detach_one(1, lim, own);
#endif
#if NS > 2
    detach_one(2, lim, own)
#endif
  }
}
#else
inline supersede(lim, own) { /* store_supersede() */
  j = 0;
again_supersede:
  do
  :: atomic {
       j < NS ->
       if
       :: j != own && (word[j] == ORPHAN || word[j] == FAILED) -> put_free(j); j++
       :: j != own && (kind(word[j]) == K_COMP || kind(word[j]) == K_OVER) && OLDER(who(word[j]), lim) -> put_free(j); j++
       :: j != own && kind(word[j]) == K_PUB && OLDER(who(word[j]), lim) ->
          /* the record, then the word again: unchanged, so they belong together */
          seen[j] = seen[j] | bit(me);
          c = REC(j, who(word[j]));
          e = entry[c]; a = target[c];
          cseen[a] = (cseen[a] & bit(EXPECTS(j, who(word[j]))) -> cseen[a] | bit(me) : cseen[a] & ~bit(me));
          c = 0;
          goto detach_publisher
       :: else -> j++
       fi
     }
  :: atomic { j >= NS -> j = 0; goto superseded_all }
  od;
detach_publisher:
#ifdef MUTANT_kill_after_detach
  atomic {
    if :: seen[j] & bit(me) -> put_free(j); j++ :: else -> cseen[a] = cseen[a] & ~bit(me); e = 0; a = 0; goto again_supersede fi
  }
#endif
  if
  :: atomic { e -> cseen[a] = cseen[a] & ~bit(me); e = 0; a = 0 }
#ifdef MUTANT_entry_target_later
     if :: lim == EVERY -> later[j] = 1; j++; goto again_supersede :: else -> sweep(lim) fi
#else
     sweep(lim) /* the entry it would replace; after it the late CAS fails */
#endif
  :: atomic {
       !e ->
#ifndef MUTANT_no_kill
       if :: cseen[a] & bit(me) -> put_cell(a, 0) :: else fi; /* EMPTY(new version) */
#endif
       cseen[a] = cseen[a] & ~bit(me); a = 0
     }
  fi;
#ifndef MUTANT_kill_after_detach
  atomic { if :: seen[j] & bit(me) -> put_free(j); j++ :: else fi }
#endif
  goto again_supersede;
superseded_all: skip
}
#endif

#define MINE(s) (word[s] == COMPUTING(me) || word[s] == OVERDUE(me))

/* index_place(), name_target(): the cell for generation g: the newest older entry, else any EMPTY one. Leaves c, or
 * NONE if a newer one is there, and what it expects in cseen. */
inline choose(g) {
  atomic { a = cell[0]; cseen[0] = cseen[0] | bit(me) }
#if NC == 2
  atomic {
    b = cell[1]; cseen[1] = cseen[1] | bit(me);
    if
    :: a > g || b > g -> c = NONE; cseen[0] = cseen[0] & ~bit(me); cseen[1] = cseen[1] & ~bit(me)
    :: a <= g && b <= g && a >= b && (a || !b) -> c = 0; cseen[1] = cseen[1] & ~bit(me)
    :: a <= g && b <= g && b >= a && (b || !a) -> c = 1; a = b; cseen[0] = cseen[0] & ~bit(me)
    fi;
    b = 0
  }
#else
  atomic { if :: a > g -> c = NONE; cseen[0] = cseen[0] & ~bit(me) :: else -> c = 0 fi }
#endif
}


/* Steps on a flight led by another; each stands inside an atomic, for one CAS. */
inline forget_free() { /* model */ if :: f != NONE -> seen[f] = seen[f] & ~bit(me); f = NONE :: else fi }
inline take(s) { /* take_over() */
  f = s; j = 0; had = FRESH(VISIBLE); put_computing(f)
}
inline overdue(s) { /* judge_running(): the lease is over; nobody passes it by without this */
  if :: !late[s] -> count_late(s) :: else fi;
  if
  :: is_dead(who(word[s])) -> put_free(s)
  :: else -> loading = loading & ~bit(who(word[s])); put(s, OVERDUE(who(word[s]))); late[s] = 0
  fi
}
inline pass_late(s) { /* judge_running(): LOOK_ON */ if :: !late[s] -> count_late(s); late[s] = 1 :: else fi }
inline join(s) { /* judge_running(): OUTCOME_JOIN; flight_join() */
  a = who(word[s]); seen[s] = seen[s] | bit(me)
}

#ifdef ORACLE                             /* who was given way to often enough does not move on: stopped, or dead */
#define PATIENT 1
#else
#define PATIENT 0
#endif
#define STUCK(p) ((dead | stopped) & bit(p))
#define MAY_ABORT(p) (STUCK(p) || (!PATIENT && me != NP))
#define MAY_GIVE_WAY(p) (!STUCK(p) || (!PATIENT && me != NP))

inline leave() { /* model */
  seen[0] = seen[0] & ~bit(me);
#if NS > 1
  seen[1] = seen[1] & ~bit(me);
#endif
#if NS > 2
  seen[2] = seen[2] & ~bit(me);
#endif
  cseen[0] = cseen[0] & ~bit(me);
#if NC > 1
  cseen[1] = cseen[1] & ~bit(me);
#endif
  ended = ended | bit(me)
}

proctype Caller(byte me) { /* begin_key(), begin_wait(), shoal_load_publish() */
  byte f = NONE, j, g, a, b, c, tries;
  bit e, had;
  {
    me != NP || (ended | dead | stopped) == ALL;                     /* I5: the last one comes late */
begin: /* begin_key(), begin_again() */
    atomic { f = NONE; j = 0; a = 0; if :: me == NP -> tries++; assert(tries < 6) :: else fi }
    lookup(a);
    if :: a -> goto out :: else fi;
    do /* claim_once(), judge_slot(): look for a flight of the key */
    :: atomic {
         j < NS ->
         if
         :: word[j] == FREE ->
            if :: f == NONE -> f = j; seen[j] = seen[j] | bit(me) :: else fi; j++
         :: word[j] == FAILED -> goto out                            /* the remembered failure */
         :: word[j] == FAILED -> put_free(j)                         /* ... expired */
         :: word[j] == ORPHAN -> forget_free(); take(j); goto lead
         #ifdef MUTANT_dead_claim_stays
         :: kind(word[j]) == K_CLAIM && is_dead(who(word[j])) -> j++
#else
         :: kind(word[j]) == K_CLAIM && is_dead(who(word[j])) -> put_free(j)
#endif
         :: kind(word[j]) == K_CLAIM && !is_dead(who(word[j])) -> j++
         :: kind(word[j]) == K_COMP && !late[j] && is_dead(who(word[j])) -> forget_free(); take(j); goto lead
#ifdef MUTANT_takeover_living
         :: kind(word[j]) == K_COMP && !late[j] -> forget_free(); take(j); goto lead
#endif
         :: kind(word[j]) == K_COMP && !late[j] && !is_dead(who(word[j])) -> forget_free(); join(j); goto wait
#ifdef MUTANT_takeover_late
         :: kind(word[j]) == K_COMP && late[j] && is_dead(who(word[j])) -> forget_free(); take(j); goto lead
#endif
         :: kind(word[j]) == K_COMP && (late[j] || may_late(who(word[j]))) -> overdue(j)
         #ifdef MUTANT_dead_overdue_stays
         :: kind(word[j]) == K_OVER && is_dead(who(word[j])) -> j++
#else
         :: kind(word[j]) == K_OVER && is_dead(who(word[j])) -> put_free(j)
#endif
         :: kind(word[j]) == K_OVER && !is_dead(who(word[j])) -> j++
#ifdef MUTANT_takeover_publishing
         :: kind(word[j]) == K_PUB && is_dead(who(word[j])) -> forget_free(); take(j); goto lead
#else
         :: kind(word[j]) == K_PUB && is_dead(who(word[j])) -> put_free(j)
#endif
         :: kind(word[j]) == K_PUB && !is_dead(who(word[j])) && !late[j] -> forget_free(); join(j); goto wait
         :: kind(word[j]) == K_PUB && !is_dead(who(word[j])) && (late[j] || may_late(who(word[j]))) -> pass_late(j); j++
         fi
       }
    :: atomic { j >= NS -> j = 0; break }
    od;
    atomic { /* claim_once(): CLAIMING */
      if
      :: f == NONE ->
         assert(me != NP);                                           /* I5: no slot may leak */
         goto out                                                    /* a load that is not coalesced */
      :: f != NONE && (seen[f] & bit(me)) -> put(f, CLAIMING(me))
      :: f != NONE && !(seen[f] & bit(me)) -> goto begin
      fi
    }
#ifndef MUTANT_no_rescan
    do /* look_for_rivals() */
    :: atomic {
         j < NS ->
         if
         :: j == f || word[j] == FREE -> j++
#ifdef MUTANT_look_again
         :: j > f && kind(word[j]) == K_CLAIM -> put_free(j)
#else
         :: j > f && kind(word[j]) == K_CLAIM -> put_free(j); j++    /* behind me: abort it; who comes there next sees me */
#endif
         :: j < f && kind(word[j]) == K_CLAIM && MAY_ABORT(who(word[j])) -> put_free(j); j++
         :: j < f && kind(word[j]) == K_CLAIM && MAY_GIVE_WAY(who(word[j])) -> goto give_up
         :: word[j] == FAILED -> goto give_up_out
         :: word[j] == FAILED -> put_free(j)
         :: word[j] == ORPHAN -> goto give_up
         :: kind(word[j]) == K_COMP && !late[j] -> join(j); goto give_up_wait
         :: kind(word[j]) == K_COMP && (late[j] || may_late(who(word[j]))) ->
#ifdef MUTANT_overdue_unchanged
            pass_late(j); loading = loading & ~bit(who(word[j])); j++
#else
            overdue(j)
#endif
         #ifdef MUTANT_dead_overdue_stays
         :: kind(word[j]) == K_OVER && is_dead(who(word[j])) -> j++
#else
         :: kind(word[j]) == K_OVER && is_dead(who(word[j])) -> put_free(j)
#endif
         :: kind(word[j]) == K_OVER && !is_dead(who(word[j])) -> j++
#ifdef MUTANT_takeover_publishing
         :: kind(word[j]) == K_PUB && !late[j] -> join(j); goto give_up_wait
         :: kind(word[j]) == K_PUB && late[j] -> j++
#else
         :: kind(word[j]) == K_PUB && is_dead(who(word[j])) -> put_free(j)
         :: kind(word[j]) == K_PUB && !is_dead(who(word[j])) && !late[j] -> join(j); goto give_up_wait
#endif
         :: kind(word[j]) == K_PUB && !is_dead(who(word[j])) && (late[j] || may_late(who(word[j]))) -> pass_late(j); j++
         fi
       }
    :: atomic { j >= NS -> j = 0; break }
    od;
#endif
    atomic { /* claim_once(): COMPUTING */
      j = 0;
      if :: word[f] == CLAIMING(me) -> had = FRESH(VISIBLE); put_computing(f); goto lead :: else -> goto begin fi
    }
give_up: atomic { if :: word[f] == CLAIMING(me) -> put_free(f) :: else fi; goto begin }
give_up_out: atomic { if :: word[f] == CLAIMING(me) -> put_free(f) :: else fi; goto out }
give_up_wait: atomic { if :: word[f] == CLAIMING(me) -> put_free(f) :: else fi; f = NONE; goto wait }

wait: /* flight_sleep(), look(). a: the leader of the flight in slot j */
    atomic {
      if
#ifdef MUTANT_death_unseen
      :: !(seen[j] & bit(me)) -> skip
#else
      :: !(seen[j] & bit(me)) || is_dead(a) -> skip
#endif
      :: (seen[j] & bit(me)) && !is_dead(a) && (late[j] || may_late(a)) ->
         if :: kind(word[j]) == K_COMP -> overdue(j) :: else -> pass_late(j) fi
      fi;
      seen[j] = seen[j] & ~bit(me)
    }
    lookup(b);
    atomic {
      if
      :: b -> b = 0; goto out
      :: !b && word[j] == FAILED -> goto out
      :: !b && (word[j] == COMPUTING(a) || word[j] == PUBLISHING(a)) && !late[j] && !is_dead(a) -> join(j); goto wait
      :: !b && word[j] == COMPUTING(a) && !late[j] && is_dead(a) -> a = 0; take(j); goto lead
      :: !b && word[j] == ORPHAN -> a = 0; take(j); goto lead
      :: else -> goto begin
      fi
    }

lead: /* become_leader(), flight_drew() */
    atomic { gen[me] = 0; counter++; g = counter }
    gen[me] = g;
#ifndef MUTANT_no_second_lookup
    lookup(a);
#endif
    atomic {
      if :: a -> goto release :: else fi;
#if DELETERS == 0 && SETTERS == 0 && EVICT == 0
      assert(!had);                                                  /* a value that was there needs no load */
#endif
      had = 0;
      val[g] = truth                                                 /* the load reads the origin */
    }
#ifdef MUTANT_overdue_unchanged
    atomic { if :: word[f] == COMPUTING(me) -> late[f] = 0; assert(RUNNING <= 1) :: else fi } /* renews its lease */
#endif
#if ENDINGS
    if
    :: skip
    :: atomic { if :: MINE(f) -> put_free(f); word[f] = FAILED :: else fi; goto out }                 /* flight_fail() */
    :: atomic {                                                                                       /* flight_end() */
         if
         :: word[f] == COMPUTING(me) -> put_free(f); word[f] = ORPHAN
#ifdef MUTANT_orphan_overdue
         :: word[f] == OVERDUE(me) -> put_free(f); word[f] = ORPHAN
#endif
         :: MINE(f) -> put_free(f)
         :: !MINE(f) -> skip
         fi;
         goto out
       }
    fi;
#endif
#ifndef MUTANT_supersede_last
    supersede(g, f);                                                 /* end_older() */
#endif
publish: /* publish_entry() */
#ifdef MUTANT_record_in_slot
    if :: MINE(f) :: else -> goto out fi;
#endif
    choose(g);
    atomic {
      if :: c == NONE -> goto release :: else fi;
      target[REC(f, me)] = c; entry[REC(f, me)] = (a != 0); a = 0
#ifdef MUTANT_record_in_slot
      ; stored_by[f] = me
#endif
    }
    atomic { /* flight_publishing() */
      if
      :: MINE(f) -> late[f] = (late[f] || word[f] == OVERDUE(me)); loading = loading & ~bit(me); put(f, PUBLISHING(me))
#ifdef MUTANT_publish_without_cas
      :: !MINE(f) -> skip
#else
      :: !MINE(f) -> goto out
#endif
      fi
    }
    atomic {
      if
      :: cseen[c] & bit(me) -> put_cell(c, g)
      :: else -> c = 0; goto once_more
      fi;
      c = 0
    }
#if NC == 2
    sweep(g);
#endif
#ifdef MUTANT_supersede_last
    supersede(g, f);
#endif
    atomic { if :: word[f] == PUBLISHING(me) -> put_free(f) :: else fi; goto out }    /* flight_end() */
once_more: /* flight_unpublish() */
    atomic {
      if
      :: word[f] == PUBLISHING(me) -> put(f, COMPUTING(me)); assert(RUNNING <= 1); goto publish
      :: else -> goto out
      fi
    }
release: /* flight_end() */
    atomic { if :: MINE(f) -> put_free(f) :: else fi }
out: skip
  } unless { (dead | stopped) & bit(me) };
  atomic {
    f = NONE; j = 0; g = 0; a = 0; b = 0; c = 0; e = 0; had = 0; tries = 0;
    leave()
  }
}

#if DELETERS
proctype Deleter(byte me) { /* remove_key(), end_loads() */
  byte j, a, b, c, before;
  bit e;
  {
    atomic { truth++; before = truth }
#ifdef MUTANT_sweep_first
    sweep(EVERY);
#endif
    supersede(EVERY, NONE);
#ifndef MUTANT_sweep_first
    sweep(EVERY);
#endif
#ifdef MUTANT_entry_target_later
    j = 0;
again_later:
    do
    :: atomic {
         j < NS ->
         if
         :: !later[j] -> j++
         :: later[j] && (seen[j] & bit(me)) -> put_free(j); j++
         :: later[j] && !(seen[j] & bit(me)) && (kind(word[j]) == K_COMP || kind(word[j]) == K_OVER) -> put_free(j); j++
         :: later[j] && !(seen[j] & bit(me)) && kind(word[j]) == K_PUB ->
            a = target[who(word[j])]; seen[j] = seen[j] | bit(me);
            if
            :: (cseen[a] & bit(who(word[j]))) && !entry[who(word[j])] -> put_cell(a, 0)
            :: else
            fi;
            a = 0
         :: else -> j++
         fi
       }
    :: atomic { j >= NS -> j = 0; break }
    od;
#endif
    atomic { /* it returns: no load that began before it shows, now or later (I3) */
      assert(!OLD_SHOWS(before));
      lowest = (before > lowest -> before : lowest)
    }
  } unless { (dead | stopped) & bit(me) };
  atomic {
    j = 0; a = 0; b = 0; c = 0; e = 0; before = 0;
    leave()
  }
}
#endif

#if SETTERS
proctype Setter(byte me) { /* set(), end_loads(), put() */
  byte j, a, b, c, g, before;
  bit e;
  {
    atomic { truth++; before = truth; counter++; g = counter; val[g] = EVERY }
#ifndef MUTANT_set_alone
    supersede(g, NONE);
#endif
insert:
    choose(g);
    atomic {
      if
      :: c == NONE -> a = 0; c = 0
      :: c != NONE && (cseen[c] & bit(me)) -> put_cell(c, g); a = 0; c = 0
      :: else -> a = 0; c = 0; goto insert
      fi
    }
    sweep(g);
    atomic {
      assert(!OLD_SHOWS(before));
      lowest = (before > lowest -> before : lowest)
    }
  } unless { (dead | stopped) & bit(me) };
  atomic {
    j = 0; a = 0; b = 0; c = 0; e = 0; g = 0; before = 0;
    leave()
  }
}
#endif

#if EVICT
active proctype Evictor() { /* drop_entry(): older duplicates first */
  byte a, b, c;
end:
  do
  :: a = cell[0];
#if NC == 2
     atomic {
       b = cell[1];
       if :: b && (!a || b < a) -> a = b; c = 1 :: else fi;
       b = 0
     }
#endif
     atomic { if :: a && cell[c] == a -> put_cell(c, 0) :: else fi; a = 0; c = 0 }
  od
}
#endif

active proctype Killer() { /* model */
end:
  do
  :: atomic { kills < MAXK && !((dead | stopped | ended) & 1) -> kills++; dead = dead | 1 }
  :: atomic { NP > 1 && kills < MAXK && !((dead | stopped | ended) & 2) -> kills++; dead = dead | 2 }
  :: atomic { NP > 2 && kills < MAXK && !((dead | stopped | ended) & 4) -> kills++; dead = dead | 4 }
  :: atomic { NP > 3 && kills < MAXK && !((dead | stopped | ended) & 8) -> kills++; dead = dead | 8 }
  :: atomic { stops < MAXS && !((dead | stopped | ended) & 1) -> stops++; stopped = stopped | 1 }
  :: atomic { NP > 1 && stops < MAXS && !((dead | stopped | ended) & 2) -> stops++; stopped = stopped | 2 }
  :: atomic { NP > 2 && stops < MAXS && !((dead | stopped | ended) & 4) -> stops++; stopped = stopped | 4 }
  :: atomic { NP > 3 && stops < MAXS && !((dead | stopped | ended) & 8) -> stops++; stopped = stopped | 8 }
#ifdef ORACLE
  :: break                                /* fairness must not make it kill */
#endif
  od
}

init {
  byte n;
  atomic {
#ifdef REFRESH
    counter = 1; cell[0] = 1; newest = 1;
#endif
    do
    :: n < CALLERS -> run Caller(n); n++
#if DELETERS
    :: n >= CALLERS && n < CALLERS + DELETERS -> run Deleter(n); n++
#endif
#if SETTERS
    :: n >= CALLERS + DELETERS && n < NP -> run Setter(n); n++
#endif
    :: n == NP -> break
    od;
#ifdef LAST
    run Caller(NP);
#endif
    n = 0
  }
}
