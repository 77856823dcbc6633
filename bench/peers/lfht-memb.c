/* SPDX-License-Identifier: MIT */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-memb.h>

#include "lfht.h"

const struct peer peer_lfht_memb = {
	.name = "lfht-memb", .what = "liburcu cds_lfht, membarrier flavor, threads", LFHT_PEER,
};
