/* SPDX-License-Identifier: MIT */
/*
 * The hand that directs an act.
 */
#include "control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add(struct control *control, double at, enum deed deed, unsigned number)
{
	control->actions[control->count++] = (struct action){.at = at, .deed = deed, .number = number};
}

int control_init(struct control *control, int epoll_fd, unsigned port, const char *act, double seconds)
{
	memset(control, 0, sizeof(*control));
	client_init(&control->client, epoll_fd, port);
	if (!strcmp(act, "expire"))
		add(control, seconds / 6, EXPIRE_ALL, 0);
	else if (!strcmp(act, "kill"))
		for (unsigned i = 1; i <= 3; i++)
			add(control, seconds * (i * 0.3 - 0.2), KILL_LOADER, i);
	else if (!strcmp(act, "switch"))
		add(control, seconds / 4, NEW_KEYS, 0);
	else if (strcmp(act, "cold") != 0)
		return -1;
	return 0;
}

void control_tick(struct control *control, double at, uint32_t hottest)
{
	const struct action *next = &control->actions[control->done];
	char path[64];

	if (control->client.busy)
		return;
	control->acting = control->done < control->count && next->at <= at;
	if (!control->acting) {
		client_send(&control->client, "GET", "/stats");
		return;
	}
	if (next->deed == KILL_LOADER)
		snprintf(path, sizeof(path), "/kill/%u?item=%u", next->number, hottest);
	else
		snprintf(path, sizeof(path), next->deed == NEW_KEYS ? "/new-keys" : "/expire-all");
	client_send(&control->client, "POST", path);
}

void control_ready(struct control *control)
{
	struct client *client = &control->client;

	if (client_ready(client) != CLIENT_ANSWER)
		return;
	if (control->acting) {
		control->refused += client->status != 200;
		control->done++;
	} else if (client->status == 200) {
		memcpy(control->counters, client->text, client->text_size + 1);
		control->polls++;
	}
}

uint64_t control_counter(const struct control *control, const char *name)
{
	char quoted[64];
	const char *found;

	snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	found = strstr(control->counters, quoted);
	return found ? strtoull(found + strlen(quoted), NULL, 10) : 0;
}
