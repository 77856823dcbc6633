/* SPDX-License-Identifier: MIT */
#include "peer.h"

#include <string.h>

#ifdef WITH_LMDB
#define LMDB(peer) peer(lmdb)
#else
#define LMDB(peer)
#endif
#ifdef WITH_LFHT_MEMB
#define LFHT_MEMB(peer) peer(lfht_memb)
#else
#define LFHT_MEMB(peer)
#endif
#ifdef WITH_LFHT_QSBR
#define LFHT_QSBR(peer) peer(lfht_qsbr)
#else
#define LFHT_QSBR(peer)
#endif
#ifdef WITH_CK
#define CK(peer) peer(ck)
#else
#define CK(peer)
#endif

#define PEERS(peer)                                                                                                   \
	peer(bound)                                                                                                   \
	peer(bound_huge)                                                                                              \
	peer(shoal)                                                                                                   \
	peer(shoal_get)                                                                                               \
	peer(shoal_named)                                                                                             \
	peer(shoal_huge)                                                                                              \
	peer(rwlock)                                                                                                  \
	peer(mutex)                                                                                                   \
	LMDB(peer) LFHT_MEMB(peer) LFHT_QSBR(peer) CK(peer)                                                            \
	peer(memcached)                                                                                               \
	peer(apcu)                                                                                                    \
	peer(nginx_lua)                                                                                               \
	peer(nginx_cache)                                                                                             \
	peer(redis)                                                                                                   \
	peer(private)                                                                                                 \
	peer(relay)                                                                                                   \
	peer(wake_all)

#define DECLARE(name) extern const struct peer peer_##name;
#define ADDRESS(name) &peer_##name,
PEERS(DECLARE)
const struct peer *const peers[] = {PEERS(ADDRESS) NULL};

const struct peer *peer_named(const char *name)
{
	for (unsigned i = 0; peers[i]; i++)
		if (!strcmp(peers[i]->name, name))
			return peers[i];
	return NULL;
}
