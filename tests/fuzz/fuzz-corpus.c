/* SPDX-License-Identifier: MIT */
/*
 * usage: PROGRAM FOLDER       prints TAP
 *
 * Runs each input of a corpus, and for SHOAL_TEST_SECONDS / 5 what chance makes of them.
 * For compilers without libFuzzer.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fuzz.h"

#define INPUT_MAX 4096u
#define INPUTS_MAX 1024u

static struct {
	uint8_t data[INPUT_MAX];
	size_t size;
} inputs[INPUTS_MAX];
static size_t count;

static uint64_t draw(uint64_t *seed)
{
	uint64_t x = *seed += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 31;
}

static void read_folder(const char *folder)
{
	struct dirent *e;
	DIR *d = opendir(folder);
	char path[4096];
	FILE *f;

	while (d && count < INPUTS_MAX && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (e->d_name[0] == '.' || !(f = fopen(path, "rbe")))
			continue;
		inputs[count].size = fread(inputs[count].data, 1, INPUT_MAX, f);
		count++;
		fclose(f);
	}
	if (d)
		closedir(d);
}

/* One of the corpus, then the end of another, and some bytes changed. */
static void make(uint64_t *seed, uint8_t *to, size_t *size)
{
	size_t a = draw(seed) % count, b = draw(seed) % count, cut, i, n;

	cut = inputs[a].size ? draw(seed) % inputs[a].size : 0;
	memcpy(to, inputs[a].data, cut);
	n = inputs[b].size < INPUT_MAX - cut ? inputs[b].size : INPUT_MAX - cut;
	memcpy(to + cut, inputs[b].data + (inputs[b].size - n), n);
	*size = cut + n;
	for (i = draw(seed) % 8; i && *size; i--)
		to[draw(seed) % *size] = (uint8_t)draw(seed);
}

int main(int argc, char **argv)
{
	const char *text = getenv("SHOAL_TEST_SECONDS"), *seeded = getenv("SHOAL_TEST_SEED");
	uint64_t budget = (text ? strtoull(text, NULL, 0) : 10) * UINT64_C(200000000), begin, i, n;
	uint64_t seed = seeded ? strtoull(seeded, NULL, 0) : clock_system_ns(CLOCK_REALTIME);
	static uint8_t data[INPUT_MAX];
	size_t size;

	if (argc != 2)
		return fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 2;
	read_folder(argv[1]);
	printf("# %zu inputs, seed %" PRIu64 "\n", count, seed);
	for (i = 0; i < count; i++) {
		alarm(60);
		LLVMFuzzerTestOneInput(inputs[i].data, inputs[i].size);
	}
	printf("%s 1 - the corpus\n", count ? "ok" : "not ok");
	begin = clock_system_ns(CLOCK_MONOTONIC);
	for (n = 0; count && clock_system_ns(CLOCK_MONOTONIC) - begin < budget; n++) {
		make(&seed, data, &size);
		alarm(60);
		LLVMFuzzerTestOneInput(data, size);
	}
	printf("# %" PRIu64 " more\nok 2 - what chance makes of it\n1..2\n", n);
	return !count;
}
