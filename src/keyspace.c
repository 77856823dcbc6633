/* SPDX-License-Identifier: MIT */
/*
 * Keyspaces. A record is claimed by one CAS of its identity, a hash of name and version, and never given back; the name
 * is written after it by whoever meets it without one, always the same bytes. So there is no half-made record and no
 * lock: of two racing creators of one keyspace both end with the same record, as both look from the first one on.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "handle.h"

static bool name_is_valid(const char *name)
{
	size_t i, n = strnlen(name, NAME_SIZE);

	for (i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	return n >= 1 && n < NAME_SIZE;
}

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
	uint64_t identity = hash_bytes(name, NAME_SIZE, s->geometry.seed ^ version) | 1, now;
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

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value == SHOAL_NONE ? 0 : value ? value : otherwise;
}

static struct shoal_policy resolve(const struct shoal_policy *given)
{
	struct shoal_policy p = {0};

	if (given)
		p = *given;
	p.fresh_ms = or_default(p.fresh_ms, 60000);
	p.stale_ms = or_default(p.stale_ms, 0);
	p.error_ms = or_default(p.error_ms, 0);
	p.retry_ms = or_default(p.retry_ms, 1000);
	p.wait_ms = or_default(p.wait_ms, 5000);
	p.lease_ms = or_default(p.lease_ms, 30000);
	p.jitter_permille = (uint32_t)min_u64(or_default(p.jitter_permille, 50), 1000);
	if (!(p.early > 0 || p.early < 0))
		p.early = 1;
	return p;
}

EXPORT int shoal_keyspace_open(struct shoal *cache, const char *name, uint32_t version, const struct shoal_policy *policy,
                               struct shoal_keyspace **keyspace)
{
	char padded[NAME_SIZE] = {0};
	struct shoal_keyspace *k;
	const struct segment *s;
	int64_t id;

	if (!cache || !name || !keyspace || !name_is_valid(name))
		return SHOAL_ERR_INVALID;
	k = calloc(1, sizeof(*k));
	if (!k)
		return SHOAL_ERR_SYSTEM;
	memcpy(padded, name, strlen(name));
	urcu_bp_read_lock();
	s = &rcu_dereference(cache->member)->segment;
	id = find_or_make(s, padded, version, !s->read_only);
	urcu_bp_read_unlock();
	if (id < 0) {
		free(k);
		return (int)id;
	}
	k->cache = cache;
	k->id = (uint32_t)id;
	k->policy = resolve(policy);
	k->next = cache->keyspaces;
	while (!atomic_compare_exchange_weak(&cache->keyspaces, &k->next, k))
		;
	*keyspace = k;
	return SHOAL_OK;
}

EXPORT int shoal_keyspace_fallback(struct shoal_keyspace *k, struct shoal_keyspace *old, shoal_old_key *old_key,
                                   shoal_migrate *convert, void *arg)
{
	struct fallback *f;

	if (!k || k == old || (old && (old->cache != k->cache || (old->id == k->id && !old_key))))
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

static const struct segment *enter(struct shoal_keyspace *k, struct keyspace **record)
{
	const struct segment *s;

	urcu_bp_read_lock();
	s = &rcu_dereference(k->cache->member)->segment;
	*record = &s->keyspaces[k->id];
	return s;
}

/* The barrier last: until then nobody looks at the rest. Words only rise, so a slower caller changes nothing. */
EXPORT int shoal_keyspace_delete(struct shoal_keyspace *k)
{
	const struct segment *s;
	struct keyspace *record;
	uint64_t generation;
	int r = SHOAL_ERR_PERMISSION;

	if (!k)
		return SHOAL_ERR_INVALID;
	s = enter(k, &record);
	if (!s->read_only) {
		generation = segment_draw(s);
		w64_max(&record->deleted, generation);
		w64_max(&record->barrier, generation);
		r = SHOAL_OK;
	}
	urcu_bp_read_unlock();
	return r;
}

/*
 * An expire has a generation and a time. The last BARRIERS of them are kept, so that a later one does not prolong what an
 * earlier one has bounded; what only an older one bounds is taken for gone. Killed in between: the slot is empty, and what
 * it bounded is gone (`forgotten` was raised first).
 */
static void add_expire(const struct segment *s, struct keyspace *record)
{
	struct barrier *b = &record->expired[w64_add(&record->expires, 1) % BARRIERS];
	uint64_t now = clock_ms(&s->clock), generation;

	w64_max(&record->forgotten, w64_load(&b->generation));
	w64_store(&b->generation, 0);
	w64_store(&b->at_ms, now);
	generation = segment_draw(s);
	w64_store(&b->generation, generation);
	w64_max(&record->barrier, generation);
}

EXPORT int shoal_keyspace_expire(struct shoal_keyspace *k)
{
	const struct segment *s;
	struct keyspace *record;
	bool read_only;

	if (!k)
		return SHOAL_ERR_INVALID;
	if (!k->policy.stale_ms)
		return shoal_keyspace_delete(k);
	s = enter(k, &record);
	read_only = s->read_only;
	if (!read_only)
		add_expire(s, record);
	urcu_bp_read_unlock();
	return read_only ? SHOAL_ERR_PERMISSION : SHOAL_OK;
}
