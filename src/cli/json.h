/* SPDX-License-Identifier: MIT */
/* JSON as the command writes it: one value a line, for programs; shoal(5) lists the fields. */
#ifndef SHOAL_CLI_JSON_H
#define SHOAL_CLI_JSON_H

#include <jansson.h>
#include <stddef.h>

/* object[name] = the bytes, or, if they are no UTF-8, object[name_base64]. */
void json_set_bytes(json_t *object, const char *name, const void *data, size_t size);

/* Milliseconds that are left; null: for ever. */
json_t *json_left(long long ms);

/* Print it on a line of its own, and give it back. Returns an exit status: output that fails is main()'s. */
int json_print(json_t *value);

#endif
