# SPDX-License-Identifier: MIT
"""Processes for the tests: forked, waited for, and never left behind."""
import contextlib
import gc
import os
import signal
import sys
import time
import traceback
import unittest

import shoal

PATIENCE_S = 120  # a bound for what has long happened on any machine that works


def until(condition, what='it'):
    """Wait for a condition; the only thing that is waited for by looking again"""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f'{what} did not come about')
        time.sleep(0.001)


class Case(unittest.TestCase):
    def setUp(self):
        self.children = []
        self.cache = shoal.open(size=8 << 20)
        self.addCleanup(self.end)

    def end(self):
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.cache.close()
        gc.collect()

    def spawn(self, work):
        """-> the pid of a child that ends with what work() returns, or with 99 and its traceback"""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                status = work() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        self.children.append(pid)
        return pid

    def ended(self, pid):
        """-> how it ended, as a shell would say"""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen, status = os.waitpid(pid, os.WNOHANG)
            if seen:
                self.children.remove(pid)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        raise AssertionError(f'{pid} did not end')

    def total(self, counter):
        return self.cache.stats()['total'][counter]

    def until_counted(self, counter, n):
        until(lambda: self.total(counter) >= n, f'{counter} >= {n}')


class Gate:
    """Opened once, for all processes forked since it was made"""

    def __init__(self):
        self.out, self.into = os.pipe()

    def open(self):
        os.write(self.into, b'x')

    def wait(self):
        os.read(self.out, 1)
        self.open()

    def is_open(self):
        import select
        return bool(select.select([self.out], [], [], 0)[0])

    def __del__(self):
        os.close(self.out)
        os.close(self.into)
