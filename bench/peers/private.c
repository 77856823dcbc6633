/* SPDX-License-Identifier: MIT */
/* What a worker has without a shared cache: a table of its own, which it fills by itself. */
#include "table.h"

static int private_open(const struct peer_setup *setup, void **state)
{
	return 0;
}

static int join(struct worker *worker)
{
	worker->state = table_new(worker->setup->workload);
	return worker->state ? 0 : -1;
}

static int fetch(struct worker *worker, const char *key, struct load *load, void *buffer, struct fetched *fetched)
{
	if (table_get(worker->state, key, buffer))
		return 0;
	fetched->led = 1;
	return table_set(worker->state, key, buffer, load->run(load, key, buffer));
}

const struct peer peer_private = {
	.name = "private",
	.what = "stampede and coldstart alone: a cache per process",
	.open = private_open,
	.join = join,
	.fetch = fetch,
};
