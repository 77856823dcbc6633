/* SPDX-License-Identifier: MIT */
#include "peer.h"

#include <string.h>

#define PEERS(peer)                                                                                                   \
	peer(bound)                                                                                                   \
	peer(bound_huge)                                                                                              \
	peer(shoal)                                                                                                   \
	peer(shoal_get)                                                                                               \
	peer(shoal_huge)

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
