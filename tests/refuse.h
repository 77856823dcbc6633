/* SPDX-License-Identifier: MIT */
/*
 * A poorer machine: system calls that are refused, as sandboxes do. For children, as nothing takes it back.
 */
#ifndef SHOAL_TEST_REFUSE_H
#define SHOAL_TEST_REFUSE_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "testing.h"

/* Of all threads of this process and what it forks from now on. */
static inline bool refuse(const int *calls, size_t n, int error)
{
	struct sock_filter code[16] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	unsigned at = 1;
	size_t i;

	for (i = 0; i < n; i++) {
		code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){(unsigned short)at, code});
}

#endif
