/* SPDX-License-Identifier: MIT */
/* Records and the breaker, from inside and without a server; the breaker's clock is set. */
#include "redis/breaker.h"
#include "redis/record.h"
#include "redis/script.h"
#include "testing.h"

/* ---- records ----------------------------------------------------------------------------------------------- */

#define VALUE "some value"
#define SIZE (RECORD_STAMP + RECORD_HEADER + sizeof(VALUE) - 1)

static const struct shoal_slice key = {"key", 3}, other_key = {"kez", 3};

static void write_whole(unsigned char bytes[SIZE], const struct record_lives *lives)
{
	struct shoal_slice value = {VALUE, sizeof(VALUE) - 1};

	memcpy(bytes, "0001700000000000", RECORD_STAMP);
	record_write(bytes + RECORD_STAMP, lives, 7, &key, &value);
	memcpy(bytes + RECORD_STAMP + RECORD_HEADER, VALUE, sizeof(VALUE) - 1);
}

static struct record_lives left_after(const struct record_lives *lives, int64_t age_ms, int64_t left_ms)
{
	unsigned char bytes[SIZE];
	struct shoal_slice whole = {bytes, sizeof(bytes)};
	struct record r = {{0, 0, 0}, {NULL, 0}};

	write_whole(bytes, lives);
	if (record_read(&whole, 7, &key, age_ms, left_ms, &r) == RECORD_OK) {
		assert_int_equal(r.value.size, sizeof(VALUE) - 1);
		assert_memory_equal(r.value.data, VALUE, sizeof(VALUE) - 1);
	}
	return r.left;
}

#define assert_left(lives, age, left, fresh, stale, error)                                                             \
	do {                                                                                                           \
		struct record_lives l_ = left_after(lives, age, left);                                                 \
		assert_int_equal(l_.fresh_ms, fresh);                                                                  \
		assert_int_equal(l_.stale_ms, stale);                                                                  \
		assert_int_equal(l_.error_ms, error);                                                                  \
	} while (0)

static void lives_pass_in_turn(void **state)
{
	const struct record_lives l = {100, 200, 300};

	assert_left(&l, 0, 600, 100, 200, 300);
	assert_left(&l, -5, 600, 100, 200, 300); /* a clock that went back */
	assert_left(&l, 40, 560, 60, 200, 300);
	assert_left(&l, 100, 500, 0, 200, 300);
	assert_left(&l, 250, 350, 0, 50, 300);
	assert_left(&l, 599, 1, 0, 0, 1);
	assert_left(&l, 600, 1, 0, 0, 0);
	assert_left(&l, INT64_MAX, 1, 0, 0, 0);
	assert_int_equal(record_life(&l), 600);
}

static void redis_may_end_it_earlier(void **state)
{
	const struct record_lives l = {100, 200, 300};

	assert_left(&l, 10, 50, 50, 0, 0);
	assert_left(&l, 10, 150, 90, 60, 0);
	assert_left(&l, 10, 0, 0, 0, 0);
	assert_left(&l, 10, -1, 90, 200, 300);
}

static void some_have_no_end(void **state)
{
	const struct record_lives fresh = {SHOAL_FOREVER, 10, 20}, stale = {100, SHOAL_FOREVER, 20};

	assert_left(&fresh, INT64_MAX, -1, SHOAL_FOREVER, 10, 20);
	assert_left(&stale, 1000, -1, 0, SHOAL_FOREVER, 20);
	assert_left(&stale, 1000, 30, 0, 30, 0);
	assert_int_equal(record_life(&fresh), 0);
	assert_int_equal(record_life(&stale), 0);
}

/* Each bit and each length, but for the stamp's digits, which are Redis's. */
static void no_other_bytes_are_a_record(void **state)
{
	const struct record_lives l = {100, 200, 300};
	unsigned char bytes[SIZE];
	struct record r = {{1, 2, 3}, {bytes, 1}};

	write_whole(bytes, &l);
	for (size_t i = 8 * RECORD_STAMP; i < 8 * SIZE; i++) {
		bytes[i / 8] ^= (unsigned char)(1 << i % 8);
		assert_int_equal(record_read(&(struct shoal_slice){bytes, SIZE}, 7, &key, 0, -1, &r), RECORD_CORRUPT);
		bytes[i / 8] ^= (unsigned char)(1 << i % 8);
	}
	for (size_t size = 0; size < SIZE; size++) {
		unsigned char *exact = malloc(size ? size : 1); /* so that a sanitizer sees a byte too many */

		memcpy(exact, bytes, size);
		assert_int_equal(record_read(&(struct shoal_slice){exact, size}, 7, &key, 0, -1, &r), RECORD_CORRUPT);
		free(exact);
	}
	assert_int_equal(record_read(&(struct shoal_slice){bytes, SIZE}, 8, &key, 0, -1, &r), RECORD_CORRUPT);
	assert_int_equal(record_read(&(struct shoal_slice){bytes, SIZE}, 7, &other_key, 0, -1, &r), RECORD_CORRUPT);
	bytes[3] = '-';
	assert_int_equal(record_read(&(struct shoal_slice){bytes, SIZE}, 7, &key, 0, -1, &r), RECORD_CORRUPT);
	bytes[3] = '1';
	assert_true(r.value.size == 1 && r.left.fresh_ms == 1);
	assert_int_equal(record_read(&(struct shoal_slice){bytes, SIZE}, 7, &key, 0, -1, &r), RECORD_OK);
}

/* What the scripts read at fixed places, script.c. */
static void the_scripts_know_it(void **state)
{
	const struct record_lives l = {0x04030201, 0x08070605, 0x0c0b0a09};
	unsigned char bytes[SIZE];

	write_whole(bytes, &l);
	assert_memory_equal(bytes + 16, "SHR1\7\0\0\0\1\2\3\4\5\6\7\10\11\12\13\14", 20);
	assert_int_equal(RECORD_STAMP + RECORD_HEADER, 48);
	assert_int_equal(SCRIPT_ID, 16);
}

/* ---- the breaker ------------------------------------------------------------------------------------------- */

struct tried {
	struct place p;
	struct breaker b;
	_Atomic unsigned failed;
};

static void begin(struct tried *t)
{
	struct shoal_policy policy = {.stale_ms = SHOAL_FOREVER, .jitter_permille = SHOAL_NONE, .early = -1};

	t->p = open_place(NULL, NULL);
	t->b = (struct breaker){
		.keyspace = keyspace(t->p.cache, BREAKER_KEYSPACE, &policy),
		.key = {"server", 6},
		.cool_down_ms = 1000,
		.failures = 3,
		.failed = &t->failed,
	};
}

static enum breaker_change visit(struct tried *t, enum breaker_state expected, int failed)
{
	struct breaker_visit v = {0};

	assert_int_equal(breaker_ask(&t->b, &v), expected);
	return expected == BREAKER_OPEN ? BREAKER_AS_IT_WAS : breaker_tell(&t->b, &v, failed);
}

static void failures_in_a_row_open_it(void **state)
{
	struct tried t = {0};

	begin(&t);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_AS_IT_WAS);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_AS_IT_WAS);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 0), BREAKER_AS_IT_WAS);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_AS_IT_WAS);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_AS_IT_WAS);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_OPENED);
	visit(&t, BREAKER_OPEN, 0);
	pass_ms(t.p.clock, 999);
	visit(&t, BREAKER_OPEN, 0);
	close_place(&t.p);
}

static void one_probes_then(void **state)
{
	struct breaker_visit probe = {0};
	struct tried t = {0};

	begin(&t);
	t.b.failures = 1;
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_OPENED);
	for (unsigned ms = 1000; ms < 100000; ms *= 2) {
		pass_ms(t.p.clock, (ms > 16000 ? 16000 : ms) + 1);
		assert_int_equal(breaker_ask(&t.b, &probe), BREAKER_PROBE);
		visit(&t, BREAKER_OPEN, 0); /* the others */
		assert_int_equal(breaker_tell(&t.b, &probe, 1), BREAKER_REOPENED);
		probe = (struct breaker_visit){0};
		visit(&t, BREAKER_OPEN, 0);
	}
	pass_ms(t.p.clock, 16001);
	assert_int_equal(visit(&t, BREAKER_PROBE, 0), BREAKER_ENDED);
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_OPENED); /* for as long as the first time */
	pass_ms(t.p.clock, 1001);
	assert_int_equal(visit(&t, BREAKER_PROBE, 0), BREAKER_ENDED);
	close_place(&t.p);
}

static int probe_and_wait(void *arg)
{
	struct breaker_visit v = {0};
	word32 *inside = ((void **)arg)[1];

	must(breaker_ask(&((struct tried *)((void **)arg)[0])->b, &v) == BREAKER_PROBE);
	post(inside);
	await(inside, 2);
	return 1;
}

static void a_probe_has_an_heir(void **state)
{
	word32 *inside = share(sizeof(*inside));
	struct tried t = {0};
	pid_t pid;

	begin(&t);
	t.b.failures = 1;
	assert_int_equal(visit(&t, BREAKER_CLOSED, 1), BREAKER_OPENED);
	pass_ms(t.p.clock, 1001);
	pid = spawn(probe_and_wait, (void *[]){&t, inside});
	assert_true(await(inside, 1));
	visit(&t, BREAKER_OPEN, 0);
	kill_child(pid);
	shoal_reap(t.p.cache);
	assert_int_equal(visit(&t, BREAKER_PROBE, 0), BREAKER_ENDED);
	visit(&t, BREAKER_CLOSED, 0);
	unshare_memory(inside, sizeof(*inside));
	close_place(&t.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lives_pass_in_turn),  cmocka_unit_test(redis_may_end_it_earlier),
		cmocka_unit_test(some_have_no_end),    cmocka_unit_test(no_other_bytes_are_a_record),
		cmocka_unit_test(the_scripts_know_it), cmocka_unit_test(failures_in_a_row_open_it),
		cmocka_unit_test(one_probes_then),     cmocka_unit_test(a_probe_has_an_heir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
