/* SPDX-License-Identifier: MIT */
/* The small world of a scenario, as its scripts and checks see it: see world.c. */
#ifndef SHOAL_WEAVE_WORLD_H
#define SHOAL_WEAVE_WORLD_H

#include "weave.h"

/* Of whoever acts. */
struct shoal *weave_cache(void);
struct shoal_keyspace *weave_keyspace(void);
struct seat *weave_seat(void);
const struct segment *weave_segment(void);
struct key weave_key(const char *text);

/* Words by which scripts tell each other, stored as any program would. */
word64 *weave_fact(unsigned i);
/* What threads leave for the check. */
uint64_t *weave_note(unsigned thread, unsigned i);

/* Values are numbers; each is stored with its complement, and a reader finds both or it is torn. */
int weave_put(const char *key, uint32_t value);
/* 0: none. *generation may be NULL. */
uint32_t weave_get(const char *key, uint64_t *generation);
uint32_t weave_value(const struct shoal_value *value);
int weave_publish(struct shoal_load *load, uint32_t value);

/* Slots that hold the key, duplicates and all. */
unsigned weave_count(const char *key);
/* The newest generation of the key that was ever written and not overwritten since, shown or not. */
uint64_t weave_newest(const char *key);
/* An entry in the log that no slot points to; its offset. */
uint64_t weave_write(const char *key, uint32_t value);
/* A second, older or newer, entry of a key that is there: what racing inserts may leave. */
void weave_duplicate(const char *key, uint32_t value);
/* Count a hit, so that a walk keeps the entry. */
void weave_hit(const char *key);
/* Fill the open extent and seal it: evictable. */
void weave_seal_heads(void);

/* The extents from that one on are written into by another, who is alive. */
void weave_occupy(uint32_t from);

/* As the observer: recover whoever is dead, and show that everything can go on. */
void weave_recover(void);

#endif
