/* SPDX-License-Identifier: MIT */
/*
 * A script of operations over a segment (scene.h) that is scribbled over meanwhile. An input is a sequence of steps: a
 * byte that says which, and its arguments. Values may be old ones, as a script may write what it likes, but never torn.
 */
#include "fuzz.h"
#include "scene.h"

static struct scene scene;
static word64 began;

struct input {
	const uint8_t *data;
	size_t left;
};

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes-- && in->left) {
		value = value << 8 | *in->data++;
		in->left--;
	}
	return value;
}

/* A place in the segment: metadata, or the log. */
static uint64_t place(struct input *in)
{
	uint64_t at = take(in, 3) % (scene.s->geometry.size - 8);

	if (at & 1)
		at %= scene.s->geometry.log_at;
	at &= ~(uint64_t)7;
	return scene_is_exempt(&scene, at) ? 0 : at;
}

static void scribble(struct input *in, unsigned how)
{
	char *at = scene.s->base + place(in);
	uint64_t word;

	memcpy(&word, at, 8);
	switch (how) {
	case 0:
		word ^= UINT64_C(1) << take(in, 1) % 64;
		break;
	case 1:
		word = take(in, 1);
		break;
	case 2:
		word += (uint64_t)(int64_t)(int8_t)take(in, 1);
		break;
	case 3:
		word = take(in, 8);
		break;
	default:
		memcpy(&word, scene.s->base + place(in), 8);
	}
	memcpy(at, &word, 8);
}

static void load_in_steps(uint64_t key, uint64_t how)
{
	struct scene_value made;
	struct shoal_load *load;
	struct shoal_value v;
	char name[64];
	int r = shoal_begin(scene.k, name, scene_key(name, key), &load, &v);

	shoal_release(&v);
	if (!load)
		return;
	if (r == SHOAL_WAIT || how % 4 == 0) {
		shoal_load_cancel(load);
	} else if (how % 4 == 1) {
		shoal_load_fail(load, 7);
	} else {
		if (how & 4)
			shoal_delete(scene.k, name, scene_key(name, key));
		scene.may[key] = ++scene.versions;
		shoal_load_publish(load, &made, scene_make(&made, key, scene.versions));
	}
}

static bool step(struct input *in)
{
	uint64_t what = take(in, 1), key = take(in, 1) % (2 * SCENE_KEYS);

	switch (what % 16) {
	case 0:
	case 1:
		return scene_get(&scene, key);
	case 2:
		return scene_set(&scene, key);
	case 3:
		return scene_delete(&scene, key);
	case 4:
		return scene_expire(&scene, key);
	case 5:
		return scene_fetch(&scene, key);
	case 6:
		load_in_steps(key, what >> 4);
		return true;
	case 7:
		return scene_look(&scene, true);
	case 8:
		return scene_turn_over(&scene, (unsigned)key);
	case 9:
		if (what & 16)
			shoal_keyspace_delete(scene.other);
		else
			shoal_keyspace_expire(scene.other);
		return true;
	default:
		scribble(in, (unsigned)(what >> 4) % 5);
		return true;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct input in = {data, n};
	unsigned steps;

	if (!scene.cache) {
		if (!scene_open(&scene, &began))
			abort();
		scene.lenient = true;
		scene_save(&scene);
	}
	for (steps = 0; steps < 200 && in.left; steps++)
		if (!step(&in))
			break;
	if (!scene.wrong[0])
		scene_look(&scene, true);
	if (scene.wrong[0]) {
		fprintf(stderr, "%s\n", scene.wrong);
		abort();
	}
	scene_restore(&scene);
	return 0;
}
