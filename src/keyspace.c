/* SPDX-License-Identifier: MIT */
/*
 * Keyspaces. A record is claimed by one CAS of its identity, a hash of name and version, and never given back; the name
 * is written after it by whoever meets it without one, always the same bytes. So there is no half-made record and no
 * lock: of two racing creators of one keyspace both end with the same record, as both look from the first one on.
 */
#include <stdlib.h>
#include <string.h>

#include "handle.h"

static void write_name(struct keyspace *record, const char name[NAME_SIZE], uint32_t version)
{
	uint64_t part;
	unsigned i;

	w64_store(&record->version, version);
	for (i = 0; i < NAME_SIZE / 8; i++) {
		memcpy(&part, name + i * 8, 8);
		w64_store(&record->name[i], part);
	}
}

/* The record's number, or an error. */
static int64_t find_or_make(const struct segment *s, const char name[NAME_SIZE], uint32_t version, bool make)
{
	uint64_t identity = handle_keyspace_identity(s, name, version), now;
	uint32_t i;

	for (i = 0; i < s->geometry.keyspaces; i++) {
		now = w64_load(&s->keyspaces[i].identity);
		if (!now && !make)
			return SHOAL_ERR_NOT_FOUND;
		if (!now && w64_cas(&s->keyspaces[i].identity, 0, identity))
			now = identity;
		if (!now)
			now = w64_load(&s->keyspaces[i].identity);
		if (now != identity)
			continue;
		if (!s->read_only)
			write_name(&s->keyspaces[i], name, version);
		return i;
	}
	return make ? SHOAL_ERR_LIMIT : SHOAL_ERR_NOT_FOUND;
}

static struct shoal_policy resolve(const struct shoal_policy *given)
{
	struct shoal_policy p = {0};

	if (given)
		p = *given;
	p.fresh_ms = handle_or_default(p.fresh_ms, 60000);
	p.stale_ms = handle_or_default(p.stale_ms, 0);
	p.error_ms = handle_or_default(p.error_ms, 0);
	p.retry_ms = handle_or_default(p.retry_ms, 1000);
	p.wait_ms = handle_or_default(p.wait_ms, 5000);
	p.lease_ms = handle_or_default(p.lease_ms, 30000);
	p.jitter_permille = (uint32_t)min_u64(handle_or_default(p.jitter_permille, 50), 1000);
	if (!(p.early > 0 || p.early < 0))
		p.early = 1;
	return p;
}

/* For those who look. */
static void show_policy(const struct shoal_keyspace *k, struct keyspace *record)
{
	w32_store(&record->fresh_ms, k->policy.fresh_ms);
	w32_store(&record->stale_ms, k->policy.stale_ms);
	w32_store(&record->error_ms, k->policy.error_ms);
	w32_store(&record->lease_ms, k->policy.lease_ms);
}

/* ---- changes ----------------------------------------------------------------------------------------------- */

/* As handle_change(), for who may have no seat: what such a one changes just when the region is frozen may be seen
 * before and not just after the resize, until it has done it again. */
struct change {
	const struct segment *s;
	struct member *m;
	struct seat *seat;
};

static int begin_change(struct shoal *cache, struct change *c)
{
	uint64_t word;
	int r;

	while ((c->m = handle_look(cache, &r))) {
		c->s = &c->m->segment;
		c->seat = c->s->read_only ? NULL : registry_here(c->m);
		if (c->seat)
			rcu_change(c->seat);
		word = w64_load(&c->s->header->moved);
		if (MOVED_STATE(word) == SERVING || c->s->read_only)
			return SHOAL_OK;
		if (c->seat)
			rcu_changed(c->seat);
		if (MOVED_STATE(word) == FROZEN)
			move_wait(c->m, word);
		else
			move_mend(c->m, word);
		handle_leave();
	}
	return r;
}

/* False: do it again. */
static bool end_change(const struct change *c)
{
	bool done;

	if (c->seat)
		return handle_changed(c->seat);
	barrier_full(); /* after the change */
	done = c->s->read_only ? !segment_has_moved(c->s) : move_spared(c->m);
	handle_leave();
	return done;
}

EXPORT int shoal_keyspace_open(struct shoal *cache, const char *name, uint32_t version,
                               const struct shoal_policy *policy, struct shoal_keyspace **keyspace)
{
	char padded[NAME_SIZE] = {0};
	struct shoal_keyspace *k;
	struct change c;
	int64_t id;

	if (!cache || !name || !keyspace || !segment_is_name(name))
		return SHOAL_ERR_INVALID;
	k = calloc(1, sizeof(*k));
	if (!k)
		return SHOAL_ERR_SYSTEM;
	memcpy(padded, name, strlen(name));
	k->cache = cache;
	k->policy = resolve(policy);
	do {
		id = begin_change(cache, &c);
		if (id < 0)
			break;
		id = find_or_make(c.s, padded, version, !c.s->read_only && !(k->policy.flags & SHOAL_EXISTING));
		k->id = (uint32_t)id;
		handle_prepare(k, c.s);
		if (id >= 0 && !c.s->read_only && !(k->policy.flags & SHOAL_EXISTING))
			show_policy(k, handle_record(c.s, k));
	} while (!end_change(&c));
	if (id < 0) {
		free(k);
		return (int)id;
	}
	k->next = cache->keyspaces;
	while (!atomic_compare_exchange_weak(&cache->keyspaces, &k->next, k))
		;
	*keyspace = k;
	return SHOAL_OK;
}

/* Changes go on to the old one, and from there to its own: a ring would never end. */
static bool leads_to(const struct shoal_keyspace *from, const struct shoal_keyspace *k)
{
	const struct fallback *f;

	for (; from && from != k; from = f ? f->old : NULL)
		f = atomic_load(&((struct shoal_keyspace *)from)->fallback);
	return from;
}

EXPORT int shoal_keyspace_fallback(struct shoal_keyspace *k, struct shoal_keyspace *old, shoal_old_key *old_key,
                                   shoal_migrate *convert, void *arg)
{
	struct fallback *f;

	if (!k || (old && (old->cache != k->cache || (old->id == k->id && !old_key) || leads_to(old, k))))
		return SHOAL_ERR_INVALID;
	f = malloc(sizeof(*f));
	if (!f)
		return SHOAL_ERR_SYSTEM;
	*f = (struct fallback){.old = old, .old_key = old_key, .convert = convert, .arg = arg, .before = k->fallback};
	while (!atomic_compare_exchange_weak(&k->fallback, &f->before, f))
		;
	return SHOAL_OK;
}

EXPORT int shoal_keyspace_refresher(struct shoal_keyspace *k, shoal_loader *loader, shoal_setup *setup,
                                    shoal_teardown *teardown, void *arg)
{
	struct refresher_loader *l;

	if (!k)
		return SHOAL_ERR_INVALID;
	l = malloc(sizeof(*l));
	if (!l)
		return SHOAL_ERR_SYSTEM;
	*l = (struct refresher_loader){loader, setup, teardown, arg, k->refresher};
	while (!atomic_compare_exchange_weak(&k->refresher, &l->before, l))
		;
	return SHOAL_OK;
}

/* ---- barriers ---------------------------------------------------------------------------------------------- */

/* `generation` is the same when it is done again: what came after the first time stays. Loads of before it, which can't
 * be published any more, end at once: nobody joins them, and who has waits for another. */
static int change_all(struct shoal_keyspace *k,
                      void (*change)(const struct segment *s, struct keyspace *record, uint64_t *generation))
{
	uint64_t generation = 0;
	struct change c;
	int r;

	do {
		r = begin_change(k->cache, &c);
		if (r)
			return r;
		if (c.s->read_only) {
			r = SHOAL_ERR_PERMISSION;
		} else {
			change(c.s, &c.s->keyspaces[k->id], &generation);
			flight_detach_all(c.s, k->id, generation);
		}
	} while (!end_change(&c));
	return r;
}

/* The barrier last: until then nobody looks at the rest. Words only rise, so a slower caller changes nothing. */
static void add_delete(const struct segment *s, struct keyspace *record, uint64_t *generation)
{
	handle_draw(s, generation);
	w64_max(&record->deleted, *generation);
	w64_max(&record->barrier, *generation);
}

EXPORT int shoal_keyspace_delete(struct shoal_keyspace *k)
{
	return k ? change_all(k, add_delete) : SHOAL_ERR_INVALID;
}

/*
 * An expire has a generation and a time. The last BARRIERS of them are kept, so that a later one does not prolong what
 * an earlier one has bounded; what only an older one bounds is taken for gone. Killed in between: the slot is empty,
 * and what it bounded is gone (`forgotten` was raised first).
 */
static void add_expire(const struct segment *s, struct keyspace *record, uint64_t *drawn)
{
	struct barrier *b = &record->expired[w64_add(&record->expires, 1) % BARRIERS];
	uint64_t now = clock_ms(&s->clock), generation;

	w64_max(&record->forgotten, w64_load(&b->generation));
	w64_store(&b->generation, 0);
	w64_store(&b->at_ms, now);
	generation = handle_draw(s, drawn);
	w64_store(&b->generation, generation);
	w64_max(&record->barrier, generation);
}

EXPORT int shoal_keyspace_expire(struct shoal_keyspace *k)
{
	if (!k)
		return SHOAL_ERR_INVALID;
	return k->policy.stale_ms ? change_all(k, add_expire) : shoal_keyspace_delete(k);
}
