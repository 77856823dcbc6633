# SPDX-License-Identifier: MIT
"""A cache that all processes of the machine share, with one load for each key among them.

    import shoal

    @shoal.cached(fresh=30, stale=300)
    def profile(user_id):
        return db.query(...)

Of all workers that call profile(7) at once one runs it, and the others wait for what it returns. For 30 seconds it is
fresh; for 300 more it is served while one caller replaces it. The worker that runs it may be killed: another takes
over. Coroutine functions are decorated alike.

It fits servers that fork: what is decorated before the fork (gunicorn --preload) is shared by the workers. Processes
that don't come from one parent share a cache by its name: SHOAL_CACHE=shop in their environment, or shoal.open('shop').

Durations are in seconds. None is the library's default, 0 is none at all, math.inf is without an end. The calls release
the interpreter's lock while they wait, and let Ctrl-C and other signals through. Handles work in a child of fork, in
any thread. They know nothing of gevent: a greenlet that waits holds its thread up.
"""
import os
import threading

from ._cache import Cache, Keyspace, open  # pylint: disable=redefined-builtin
from ._errors import Busy, Closed, Deadlock, Error, LoadError, Timeout
from ._library import ffi as _ffi, lib as _lib

__all__ = ['open', 'cached', 'default', 'unlink', 'Cache', 'Keyspace', 'Error', 'LoadError', 'Timeout', 'Busy',
           'Deadlock', 'Closed', 'EXCLUSIVE', 'ATTACH', 'HUGE_PAGES', 'CHECKSUM', 'FIFO']
__version__ = _ffi.string(_lib.shoal_version()).decode()

EXCLUSIVE, ATTACH = _lib.SHOAL_EXCLUSIVE, _lib.SHOAL_ATTACH
HUGE_PAGES, CHECKSUM, FIFO = _lib.SHOAL_HUGE_PAGES, _lib.SHOAL_CHECKSUM, _lib.SHOAL_FIFO

_default = None
_lock = threading.Lock()


def default():
    """The cache of shoal.cached, opened when it is first asked for: the one that SHOAL_CACHE names, else one of this
    process and those that it forks later."""
    global _default
    with _lock:
        if _default is None:
            _default = open(os.environ.get('SHOAL_CACHE') or None, max_keyspaces=256)
        return _default


def cached(**options):
    """Cache.cached, in the default cache."""
    return default().cached(**options)


def unlink(name):
    """Remove a named cache's name; those who have it open keep it. False: there is none."""
    from ._errors import check
    outcome = _lib.shoal_unlink(os.fsencode(name))
    return outcome != _lib.SHOAL_ERR_NOT_FOUND and check(outcome) == _lib.SHOAL_OK
