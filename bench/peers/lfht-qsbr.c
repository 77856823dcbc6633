/* SPDX-License-Identifier: MIT */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-qsbr.h>

#include "lfht.h"

const struct peer peer_lfht_qsbr = {
	.name = "lfht-qsbr",
	.what = "liburcu cds_lfht, QSBR, a quiescent state after each operation, threads",
	LFHT_PEER,
};
