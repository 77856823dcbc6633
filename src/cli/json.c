/* SPDX-License-Identifier: MIT */
#include "json.h"
#include "cli.h"
#include "escape.h"

#include <stdint.h>
#include <stdlib.h>

void json_set_bytes(json_t *object, const char *name, const void *data, size_t size)
{
	char encoded[64], *text;

	if (escape_is_utf8(data, size)) {
		json_object_set_new(object, name, json_stringn_nocheck(data, size));
		return;
	}
	snprintf(encoded, sizeof(encoded), "%s_base64", name);
	text = escape_base64(data, size);
	json_object_set_new(object, encoded, text ? json_string_nocheck(text) : NULL);
	free(text);
}

json_t *json_left(long long ms)
{
	return ms == INT64_MAX ? json_null() : json_integer(ms);
}

int json_print(json_t *value)
{
	int failed = json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));

	putchar('\n');
	json_decref(value);
	if (failed && !ferror(stdout)) {
		cli_error(NULL, "no memory");
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}
