/* SPDX-License-Identifier: MIT */
/*
 * SHOAL_HUGE_PAGES: large mappings lie where huge pages fit, values are what they were, and a system that refuses them
 * changes nothing. Whether there are any depends on the machine: their number is printed.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/stat.h>

#include "handle.h"
#include "testing.h"

#define MIB ((size_t)1 << 20)
#define HUGE (2 * MIB)
#define VALUES 20000u
#define MADVISE_HUGEPAGE 14
#define MADVISE_COLLAPSE 25

static const struct segment *segment_of(const struct place *p)
{
	return &move_member(&p->cache->member)->segment;
}

/* KiB that smaps has under that name for the mapping that begins there. */
static long smaps_of(const void *base, const char *name)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[256], begin[32];
	bool here = false;
	long kib = 0;

	if (!f)
		return 0;
	snprintf(begin, sizeof(begin), "%lx-", (unsigned long)(uintptr_t)base);
	while (fgets(line, sizeof(line), f)) {
		if (strchr("0123456789abcdef", line[0]))
			here = !strncmp(line, begin, strlen(begin));
		if (here && !strncmp(line, name, strlen(name)))
			kib = strtol(line + strlen(name), NULL, 10);
	}
	fclose(f);
	return kib;
}

static void fill(struct place *p)
{
	uint64_t i, bytes[100] = {0};

	for (i = 0; i < VALUES; i++) {
		bytes[99] = i;
		must(shoal_set(p->k, &i, sizeof(i), bytes, sizeof(bytes)) == SHOAL_OK);
	}
}

static bool is_right(struct shoal_keyspace *k)
{
	uint64_t i, bytes[100];
	size_t size;

	for (i = 0; i < VALUES; i++)
		if (shoal_read(k, &i, sizeof(i), bytes, sizeof(bytes), &size) || size != sizeof(bytes) ||
		    bytes[99] != i)
			return false;
	return true;
}

static bool is_aligned(const struct segment *s)
{
	return ((uintptr_t)s->base - s->geometry.offset) % HUGE == 0;
}

static void say_how_huge(const char *what, const struct segment *s)
{
	printf("# %s: %ld KiB by ShmemPmdMapped, %ld KiB by FilePmdMapped, of %" PRIu64 "\n", what,
	       smaps_of(s->base, "ShmemPmdMapped:"), smaps_of(s->base, "FilePmdMapped:"), s->geometry.size >> 10);
	fflush(stdout);
}

static int read_in_child(void *arg)
{
	struct place *p = arg;

	must(is_right(p->k));
	say_how_huge("a child", segment_of(p));
	return 0;
}

static void use(unsigned flags, const char *what)
{
	struct stat st;
	struct place p =
		open_place(NULL, &(struct shoal_config){.size = 64 * MIB, .max_size = 96 * MIB, .flags = flags});

	must(!!(segment_of(&p)->geometry.flags & SHOAL_HUGE_PAGES) == !!flags);
	must(is_aligned(segment_of(&p)));
	fill(&p);
	must(is_right(p.k));
	say_how_huge(what, segment_of(&p));
	assert_ends_well(spawn(read_in_child, &p));
	must(shoal_resize(p.cache, 96 * MIB) == SHOAL_OK);
	must(!!(segment_of(&p)->geometry.flags & SHOAL_HUGE_PAGES) == !!flags);
	must(is_aligned(segment_of(&p)) && is_right(p.k));
	say_how_huge("resized", segment_of(&p));
	must(!fstat(segment_of(&p)->fd, &st));
	printf("# file: %" PRIu64 " KiB\n", (uint64_t)st.st_blocks / 2);
	close_place(&p);
}

static void with_huge_pages(void **state)
{
	use(SHOAL_HUGE_PAGES, "with the flag");
}

static void without_them(void **state)
{
	use(0, "without the flag");
}

/* Attached by name: the flag is the segment's. */
static void attachers_have_them_too(void **state)
{
	const char *name = "test-huge";
	struct place p, q;

	shoal_unlink(name);
	p = open_place(name, &(struct shoal_config){.size = 32 * MIB, .flags = SHOAL_HUGE_PAGES});
	fill(&p);
	q = open_place(name, NULL);
	assert_true(segment_of(&q)->geometry.flags & SHOAL_HUGE_PAGES);
	assert_true(is_aligned(segment_of(&q)) && is_right(q.k));
	say_how_huge("attached", segment_of(&q));
	close_place(&q);
	close_place(&p);
	shoal_unlink(name);
}

/* Refuse these advices alone: others are needed. */
static bool refuse_advice(int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADVISE_HUGEPAGE, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADVISE_COLLAPSE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){COUNT(code), code});
}

static int use_where_refused(void *arg)
{
	if (!refuse_advice(*(int *)arg)) {
		skipped("seccomp is refused");
		return 0;
	}
	errno = 0;
	use(SHOAL_HUGE_PAGES, "refused");
	return 0;
}

static void where_they_are_refused(void **state)
{
	int errors[] = {EPERM, ENOSYS, EINVAL};
	size_t i;

	for (i = 0; i < COUNT(errors); i++)
		assert_ends_well(spawn(use_where_refused, &errors[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_huge_pages),
		cmocka_unit_test(without_them),
		cmocka_unit_test(attachers_have_them_too),
		cmocka_unit_test(where_they_are_refused),
	};

	return cmocka_run_group_tests_name("huge", tests, NULL, NULL);
}
