# SPDX-License-Identifier: MIT
"""What can go wrong, by the codes of shoal.h."""
import errno
import os

from ._library import ffi, lib


class Error(Exception):
    """An error of the library. `code` is its number in shoal.h."""

    code = 0

    def __init__(self, message=None):
        super().__init__(message or ffi.string(lib.shoal_strerror(self.code)).decode())


class LoadError(Error):
    """The loader failed: in another process or thread, or here within the last `retry` seconds. (Where it fails, its
    own exception is raised.) `errno` is that of its exception if that was an OSError, else EIO."""

    code = lib.SHOAL_ERR_LOAD

    def __init__(self, number):
        super().__init__('the load failed: ' + os.strerror(number) if number else None)
        self.errno = number


class Timeout(Error):
    """Another process's load was waited for, for `wait` seconds."""

    code = lib.SHOAL_ERR_TIMEOUT


class Busy(Error):
    """As many loads run as may (max_loads), and did for `wait` seconds."""

    code = lib.SHOAL_ERR_BUSY


class Deadlock(Error):
    """A loader asks for the key that it is loading."""

    code = lib.SHOAL_ERR_DEADLOCK


class Closed(Error, ValueError):
    """The cache has been closed."""

    def __init__(self):
        super().__init__('the cache is closed')


CLASSES = {c.code: c for c in (Timeout, Busy, Deadlock)}


def check(outcome, load_error=0):
    """The outcome if it is none of the errors, which are raised"""
    if outcome >= 0:
        return outcome
    if outcome == lib.SHOAL_ERR_SYSTEM:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    if outcome == lib.SHOAL_ERR_LOAD:
        raise LoadError(load_error)
    if outcome in CLASSES:
        raise CLASSES[outcome]()
    error = Error(ffi.string(lib.shoal_strerror(outcome)).decode())
    error.code = outcome
    raise error


def number_of(exception):
    """What the others are told of it"""
    number = exception.errno if isinstance(exception, (OSError, LoadError)) else None
    return number if isinstance(number, int) and number > 0 else errno.EIO
