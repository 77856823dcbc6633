# SPDX-License-Identifier: MIT
"""Loads that a task of asyncio waits for: its loop watches the descriptor of shoal_poll_fd.

shoal_dispatch calls back into Python, in the thread of a loop that watches, which may be another than the task's. What
it is given is a number and no object: a task that was cancelled meanwhile has taken its own out of the table.
"""
import asyncio
import contextlib
import functools
import itertools

from ._errors import check
from ._library import ffi, lib

_numbers = itertools.count(1)
_waiting = {}  # number -> loop, future
_watching = {}  # loop, descriptor -> how many tasks


def _settle(done):
    if not done.done():
        done.set_result(None)


@functools.lru_cache(maxsize=None)
def _wake():
    """The callback, made when it is first needed: some systems allow no program any"""

    @ffi.callback('void(struct shoal_load *, void *)')
    def wake(_, number):
        loop, done = _waiting.pop(int(ffi.cast('uintptr_t', number)), (None, None))
        with contextlib.suppress(RuntimeError):  # a loop that is closed
            loop is None or loop.call_soon_threadsafe(_settle, done)

    return wake


@contextlib.contextmanager
def _watched(cache, loop):
    key = loop, check(lib.shoal_poll_fd(cache))
    _watching[key] = _watching.get(key, 0) + 1
    if _watching[key] == 1:
        loop.add_reader(key[1], lib.shoal_dispatch, cache)
    try:
        yield
    finally:
        _watching[key] -= 1
        if not _watching[key]:
            del _watching[key]
            loop.remove_reader(key[1])


async def woken(cache, load):
    """Until a load that is waited for has an outcome"""
    loop, number = asyncio.get_running_loop(), next(_numbers)
    done = loop.create_future()
    with _watched(cache, loop):
        _waiting[number] = loop, done
        try:
            check(lib.shoal_watch(load, _wake(), ffi.cast('void *', number)))
            await done
        finally:
            _waiting.pop(number, None)
