/* SPDX-License-Identifier: MIT */
/* A thread that its parent leads from instruction to instruction. Where the machine forbids ptrace it
 * ends with REFUSED. */
#ifndef SHOAL_TEST_TRACED_H
#define SHOAL_TEST_TRACED_H

#include <sys/ptrace.h>

#include "crew.h"

#define TRACED_REFUSED 7

enum stepped { STEP_MADE, STEP_ENDED, STEP_REFUSED, STEP_LOST };

/* To step takes long where traps are slow: so those who do may be given less than the others. */
static CREW_UNUSED unsigned traced_seconds(void)
{
	const char *text = getenv("SHOAL_STEP_SECONDS") ? getenv("SHOAL_STEP_SECONDS") : getenv("SHOAL_TEST_SECONDS");
	int n = text ? atoi(text) : 10;

	return n > 0 ? (unsigned)n : 1;
}

/* By the thread itself; `tid`: it is not the main one, and says there who it is. */
static void traced_submit(word32 *tid)
{
	if (ptrace(PTRACE_TRACEME, 0, 0, 0))
		_exit(TRACED_REFUSED);
	if (tid) {
		w32_store(tid, (uint32_t)syscall(SYS_gettid));
		futex_wake(tid, 1);
	}
	raise(SIGSTOP);
}

static enum stepped traced_await(pid_t tid, int signal)
{
	int status;

	if (waitpid(tid, &status, __WALL) != tid)
		return STEP_LOST;
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == TRACED_REFUSED ? STEP_REFUSED : STEP_ENDED;
	return WIFSTOPPED(status) && WSTOPSIG(status) == signal ? STEP_MADE : STEP_LOST;
}

static CREW_UNUSED enum stepped traced_step(pid_t tid)
{
	return ptrace(PTRACE_SINGLESTEP, tid, 0, 0) ? STEP_LOST : traced_await(tid, SIGTRAP);
}

#endif
