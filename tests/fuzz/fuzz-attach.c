/* SPDX-License-Identifier: MIT */
/*
 * Attach to a file whose first page is anything. An input is a byte of choices, then pieces {offset:16, length:8,
 * bytes} that are written over the header of a well-made segment; mostly its checksum is made right again after that,
 * as who means it ill would. What is let in is used, and must neither crash nor hang.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "scene.h"

enum { SUM = 1, BOOT = 2, TRUNCATED = 4, INSPECT = 8, LONGER = 16 };

static char path[64], *base, *map;
static size_t size;
static int file = -1;

static void gone(void)
{
	unlink(path);
}

static int begin(void)
{
	struct shoal_config config = {.size = 1 << 20, .max_processes = 8, .max_threads = 12, .max_flights = 24,
	                              .max_keyspaces = 4, .flags = SHOAL_CHECKSUM};
	struct shoal_keyspace *k;
	struct shoal *cache;
	uint64_t i;

	snprintf(path, sizeof(path), "/dev/shm/fuzz-attach-%d", (int)getpid());
	unlink(path);
	if (shoal_open(path, &config, &cache) || shoal_keyspace_open(cache, "scene", 1, NULL, &k))
		return -1;
	atexit(gone);
	for (i = 0; i < 200; i++)
		shoal_set(k, &i, sizeof(i), path, sizeof(path));
	shoal_close(cache);
	file = open(path, O_RDWR | O_CLOEXEC);
	size = (size_t)lseek(file, 0, SEEK_END);
	base = malloc(size);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	return map == MAP_FAILED || pread(file, base, size, 0) != (ssize_t)size ? -1 : 0;
}

static void overwrite(const uint8_t *data, size_t n)
{
	size_t at, length;

	while (n >= 3) {
		at = (size_t)(data[0] | data[1] << 8) % sizeof(struct header);
		length = min_u64(min_u64(data[2], n - 3), sizeof(struct header) - at);
		memcpy(map + at, data + 3, length);
		data += 3 + length;
		n -= 3 + length;
	}
}

static int visit(const struct shoal_entry *e, void *arg)
{
	uint64_t *sum = arg;

	*sum += e->key.size ? *(const unsigned char *)e->key.data : 0;
	return 0;
}

static void use(struct shoal *cache)
{
	struct shoal_keyspace *k;
	struct shoal_stats stats;
	struct shoal_value v;
	uint64_t i, sum = 0;

	shoal_check(cache, NULL, NULL);
	shoal_stats(cache, &stats);
	shoal_scan(cache, NULL, visit, &sum);
	if (shoal_keyspace_open(cache, "scene", 1, &scene_policy, &k))
		return;
	for (i = 0; i < 8; i++) {
		if (shoal_get(k, &i, sizeof(i), &v) == SHOAL_OK)
			sum += v.size ? *(const unsigned char *)v.data : 0;
		shoal_release(&v);
		shoal_set(k, &i, sizeof(i), base, 100 * i);
		shoal_delete(k, &i, sizeof(i));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct geometry *g;
	struct shoal_config config = {.flags = SHOAL_ATTACH};
	struct shoal *cache;
	int r;

	if (file < 0 && begin())
		abort();
	if (n < 1)
		return 0;
	memcpy(map, base, size);
	overwrite(data + 1, n - 1);
	g = (struct geometry *)(void *)map;
	if (data[0] & BOOT) {
		g->boot_id = ((const struct geometry *)(const void *)base)->boot_id;
		g->clock_id = ((const struct geometry *)(const void *)base)->clock_id;
	}
	if (data[0] & SUM)
		g->checksum = hash_bytes(g, offsetof(struct geometry, checksum), 0);
	if (data[0] & INSPECT)
		config.flags |= SHOAL_INSPECT;
	if (data[0] & TRUNCATED)
		r = ftruncate(file, n % 2 ? 4096 : 512);
	else if (data[0] & LONGER)
		r = ftruncate(file, (off_t)(size + 4096));
	if (shoal_open(path, &config, &cache) == SHOAL_OK) {
		use(cache);
		shoal_close(cache);
	}
	if (access(path, F_OK)) { /* taken for a file of an earlier boot */
		munmap(map, size);
		close(file);
		file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		r = ftruncate(file, (off_t)size);
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	}
	r = ftruncate(file, (off_t)size);
	(void)r;
	return 0;
}
