/* SPDX-License-Identifier: MIT */
/*
 * The hand that directs an act: a connection of its own, which does what the act's script says when its time has come
 * and polls the server's counters otherwise. A request that is lost with its worker is made again; the server's
 * actions bear that.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include "client.h"

enum deed { EXPIRE_ALL, KILL_LOADER, NEW_KEYS };

struct action {
	double at; /* seconds into the act */
	enum deed deed;
	unsigned number; /* of the kill */
};

struct control {
	struct client client;
	struct action actions[8];
	unsigned count, done;
	int acting;         /* the answer on its way is actions[done]'s */
	unsigned polls;     /* how often the counters have come */
	unsigned refused;   /* actions that the server answered with an error */
	char counters[1024]; /* JSON */
};

/* `act` is cold, expire, kill or switch. -1 if it is none of these. */
int control_init(struct control *control, int epoll_fd, unsigned port, const char *act, double seconds);

/* Regularly, with the time since the act began (negative before) and the item that is the hottest now. */
void control_tick(struct control *control, double at, uint32_t hottest);
void control_ready(struct control *control);

uint64_t control_counter(const struct control *control, const char *name);

#endif
