# SPDX-License-Identifier: MIT
"""Caches and keyspaces.

Loads go in steps (shoal_begin, shoal_wait, shoal_load_publish) rather than by shoal_fetch: the loader is then called by
Python and not by C, so an exception has no C frames to cross, and signals are looked after between the parts of a wait.

Who waits in a thread is called back by nothing; a task of asyncio is, by _tasks.py, to wake it.

An exception may come after any call, also KeyboardInterrupt. So what a call writes its result into is made before it,
inside the `try` whose `finally` gives it back; and a load is taken out of there before the call that ends it.

Whoever is inside a call holds the handle by a local name, and it is closed when the last one has let go of it: so
close() may be called at any time.
"""
import contextlib
import contextvars
import functools
import hashlib
import inspect
import logging
import math
import os
import re
import sys
import threading
import time

from . import _keys, _tasks, _values
from ._errors import Closed, Deadlock, check, number_of
from ._library import NULL, ffi, lib

PART_S = 0.1  # of a wait in the main thread; a signal's handler runs when it is over

# The (keyspace, key) whose loaders run around this one, in this thread or task.
_loading = contextvars.ContextVar('shoal._loading', default=())
_NOTHING = object()
_log = logging.getLogger('shoal')


class _Undecodable(Exception):
    """A value that can't be decoded; it has been removed."""


class _Alone(Exception):
    """The loader is to run by itself: there is no place in the segment, or the load around it has the permit."""


def _ms(seconds):
    """As a policy has it: 0 is its default"""
    if seconds is None:
        return 0
    if seconds < 0 or seconds != seconds:
        raise ValueError(f'a duration of {seconds} seconds')
    if seconds == 0:
        return lib.SHOAL_NONE
    return lib.SHOAL_FOREVER if seconds == math.inf else min(max(round(seconds * 1000), 1), lib.SHOAL_FOREVER)


def _fields(struct):
    """A struct of counters as a dict"""
    out = {}
    for name, _ in ffi.typeof(struct).fields:
        if not name.startswith('reserved'):
            value = getattr(struct, name)
            if not isinstance(value, (int, float)):
                value = list(value) if name == 'evicted_by' else _fields(value)
            out[name] = value
    return out


def _end(load, end, *arguments):
    """End a load. Between taking it and the call there is no place for a signal."""
    ended, load[0] = load[0], NULL
    return end(ended, *arguments)


def open(name=None, *, size=0, max_entry=0, mean_entry=0, max_processes=0, max_threads=0, max_flights=0,
         max_keyspaces=0,
         max_loads=0, max_size=0, owner=0, mode=0, flags=0):
    """Create or attach a cache.

    name None: one of this process and those that it forks later. 'shop': the one of that name, /dev/shm/shoal.shop.vN,
    for all processes of this user. With a '/': that file. The rest is struct shoal_config of shoal.h, 0 the default;
    `flags` of EXCLUSIVE, ATTACH, HUGE_PAGES, CHECKSUM, FIFO. A cache that is there keeps its own configuration.
    """
    config = ffi.new('struct shoal_config *', {
        'size': size, 'max_entry': max_entry, 'mean_entry': mean_entry, 'max_processes': max_processes,
        'max_threads': max_threads, 'max_flights': max_flights, 'max_keyspaces': max_keyspaces, 'max_loads': max_loads,
        'max_size': max_size, 'owner': owner, 'mode': mode, 'flags': flags})
    out = ffi.new('struct shoal **')
    check(lib.shoal_open(NULL if name is None else os.fsencode(name), config, out))
    return Cache(ffi.gc(out[0], lib.shoal_close), owner)


class Cache:
    """A cache. Ends with close(), at the end of a `with`, or when nobody has it any more."""

    def __init__(self, handle, owner=0):
        self._handle = handle
        info = ffi.new('struct shoal_info *')
        check(lib.shoal_info(handle, info))
        self._writable_by_others = bool(info.mode & 0o022 or owner)
        self._bounded = info.max_loads > 0

    def _open(self):
        handle = self._handle
        if handle is None:
            raise Closed()
        return handle

    def close(self):
        """Calls that are under way end as if it were open; later ones raise Closed."""
        self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def keyspace(self, name, version=1, *, fresh=None, stale=None, stale_error=None, retry=None, wait=None, lease=None,
                 early=None, jitter=None, max_loads=0, schema=0, compress=None, serializer=None):
        """Open a keyspace: a named, versioned family of keys with one policy.

        fresh        how long a value is fresh (60 s); `jitter`, 0 to 1 (0.05), is the share by which that varies
        stale        then: how long it is served while one caller replaces it (not at all)
        stale_error  then: how long it is served in place of a load that failed (not at all)
        retry        a load that failed is not tried again for so long (1 s)
        wait         how long to wait for another's load (5 s)
        lease        how long a load may take before a waiter begins one beside it (30 s)
        early        how eagerly one caller replaces a value before its end (1; 0: not at all)
        max_loads    how many loaders may run at once on this machine (any number)
        schema       of the values: those of another are counted misses. Raise it with each change of what is kept
        compress     None, 'lz4' or 'zstd'
        serializer   'pickle', 'json', 'bytes', or an object with dumps and loads. A value that can't be decoded is a
                     counted miss. Pickle is the default: it runs what it reads, which is fine among processes of one
                     user; where other users may write the segment it has to be asked for
        """
        policy = ffi.new('struct shoal_policy *', {
            'fresh_ms': _ms(fresh), 'stale_ms': _ms(stale), 'error_ms': _ms(stale_error), 'retry_ms': _ms(retry),
            'wait_ms': _ms(wait), 'lease_ms': _ms(lease), 'schema': schema, 'max_loads': max_loads,
            'jitter_permille': 0 if jitter is None else round(jitter * 1000) or lib.SHOAL_NONE,
            'early': 0 if early is None else early or -1,
            'flags': {None: 0, 'lz4': lib.SHOAL_COMPRESS, 'zstd': lib.SHOAL_COMPRESS_ZSTD}[compress]})
        functions = _values.functions_of(serializer, self._writable_by_others)
        cache, out = self._open(), ffi.new('struct shoal_keyspace **')
        check(lib.shoal_keyspace_open(cache, name.encode(), version, policy, out))
        return Keyspace(self, out[0], (name, version), functions, wait=5.0 if wait is None else wait,
                        bounded=self._bounded or max_loads > 0)

    def cached(self, *, keyspace=None, key=None, version=1, **policy):
        """A decorator: the function's values are kept in a keyspace of its own, named after its module and itself, or
        `keyspace`. `version` and the rest are Cache.keyspace's; `key` is Keyspace.cached's. A function inside another
        one has to be given a name: it may depend on more than its arguments."""

        def decorate(function):
            name = keyspace or _name_of(function)
            return self.keyspace(name, version, **policy).cached(key=key)(function)

        return decorate

    def stats(self):
        """Everything that is counted, of all processes: struct shoal_stats as a dict."""
        cache, stats = self._open(), ffi.new('struct shoal_stats *')
        check(lib.shoal_stats(cache, stats))
        return _fields(stats[0])

    def resize(self, size):
        """Give the cache another size, for every process; `max_size` bounds one without a name."""
        cache = self._open()
        check(lib.shoal_resize(cache, size))

    def reap(self):
        """Recover what killed processes held now, rather than when someone meets it. -> how many there were"""
        cache = self._open()
        return check(lib.shoal_reap(cache))


class Keyspace:
    """A keyspace of a cache, by Cache.keyspace(). Keys are str or bytes; values what its serializer takes."""

    def __init__(self, cache, handle, identity, functions, *, wait, bounded):
        self._cache, self._handle, self._identity, self._wait_s, self._bounded = cache, handle, identity, wait, bounded
        self._dumps, self._loads = functions

    def _call(self, function, *arguments):
        held = self._cache._open()  # so long the cache is not closed
        outcome = check(function(self._handle, *arguments))
        del held
        return outcome

    @property
    def name(self):
        return self._identity[0]

    @property
    def version(self):
        return self._identity[1]

    # ---- through the cache -----------------------------------------------------------------------------------

    def fetch(self, key, loader):
        """The value of the key: from the cache; or what loader() returns, called here; or in another process, for which
        this one waits.

        An exception of the loader reaches who called it, here; who waits gets LoadError, and so does who asks within
        `retry`. Where there is an old value (stale_error) it is served to all of them, and the exception is logged.
        A loader that is left by KeyboardInterrupt, SystemExit or another exception that is no Exception gives up: a
        waiter takes over. Raises LoadError, Timeout, Busy, Deadlock. Where the segment has no place for this process
        or thread the loader's value is returned, and not kept.
        """
        held, key = self._cache._open(), _keys.encode(key)
        for _ in range(2):  # a value that can't be decoded is removed, and loaded anew
            try:
                return self._fetch(key, loader)
            except _Alone:
                break
            except _Undecodable:
                pass
        del held
        return self._loads(self._dumps(loader()))

    def _fetch(self, key, loader):
        load, value, waited = ffi.new('struct shoal_load **'), ffi.new('struct shoal_value *'), None
        try:
            outcome = lib.shoal_begin(self._handle, key, len(key), load, value)
            if outcome == lib.SHOAL_OK:
                return self._decode(key, value)
            if outcome == lib.SHOAL_WAIT:
                waited = ffi.new('struct shoal_value *')
                outcome = self._wait(key, load, waited)
                if outcome == lib.SHOAL_OK:
                    return self._decode(key, waited)
            if outcome in (lib.SHOAL_LEAD, lib.SHOAL_REFRESH):
                return self._lead(key, loader, load)
            self._cannot(outcome, waited or value)
        finally:
            if load[0] and not (waited and waited.generation):  # a wait that has got a value has ended its load
                _end(load, lib.shoal_load_cancel)
            lib.shoal_release(waited or value)  # one of them has something

    async def fetch_async(self, key, loader):
        """As fetch, in a task of asyncio: `loader` is a coroutine function, and while another process or task loads the
        key the others of this loop go on. A task that is cancelled gives up, and a waiter takes over."""
        cache, key = self._cache._open(), _keys.encode(key)
        for _ in range(2):
            try:
                return await self._fetch_async(cache, key, loader)
            except _Alone:
                break
            except _Undecodable:
                pass
        return self._loads(self._dumps(await loader()))

    async def _fetch_async(self, cache, key, loader):
        load, value, waited = ffi.new('struct shoal_load **'), ffi.new('struct shoal_value *'), None
        try:
            outcome = lib.shoal_begin(self._handle, key, len(key), load, value)
            if outcome == lib.SHOAL_OK:
                return self._decode(key, value)
            if outcome == lib.SHOAL_WAIT:
                waited = ffi.new('struct shoal_value *')
                outcome = self._look(key, load, waited)
                if outcome in (lib.SHOAL_ERR_TIMEOUT, lib.SHOAL_ERR_BUSY):
                    await _tasks.woken(cache, load[0])
                    outcome = lib.shoal_wait(load[0], 0, waited)
                if outcome == lib.SHOAL_OK:
                    return self._decode(key, waited)
            if outcome in (lib.SHOAL_LEAD, lib.SHOAL_REFRESH):
                return await self._lead_async(key, loader, load)
            self._cannot(outcome, waited or value)
        finally:
            if load[0] and not (waited and waited.generation):
                _end(load, lib.shoal_load_cancel)
            lib.shoal_release(waited or value)

    def _cannot(self, outcome, value):
        """Neither a value nor a load"""
        if outcome in (lib.SHOAL_ERR_LIMIT, lib.SHOAL_ERR_SYSTEM, lib.SHOAL_ERR_LAYOUT, lib.SHOAL_ERR_CORRUPT):
            raise _Alone
        check(outcome, value.load_error)

    def _look(self, key, load, waited):
        """Is a load that waits worth waiting for? -> as shoal_wait(), TIMEOUT or BUSY: yes"""
        around = _loading.get()
        outcome = lib.shoal_wait(load[0], 0, waited)
        if outcome == lib.SHOAL_ERR_BUSY and any(k._cache is self._cache and k._bounded for k, _ in around):
            raise _Alone  # or loads with a permit each might wait for another one for ever
        if outcome == lib.SHOAL_ERR_TIMEOUT and any(k._is(self) and other == key for k, other in around):
            raise Deadlock
        return outcome

    def _wait(self, key, load, waited):
        """-> as shoal_wait()"""
        outcome = self._look(key, load, waited)
        if outcome not in (lib.SHOAL_ERR_TIMEOUT, lib.SHOAL_ERR_BUSY):
            return outcome
        if threading.current_thread() is not threading.main_thread():
            return lib.shoal_wait(load[0], lib.SHOAL_FOREVER, waited)
        deadline = time.monotonic() + self._wait_s
        while True:
            left = max(deadline - time.monotonic(), 0)
            outcome = lib.shoal_wait(load[0], math.ceil(min(left, PART_S) * 1000) + 1, waited)
            if left <= PART_S or outcome not in (lib.SHOAL_ERR_TIMEOUT, lib.SHOAL_ERR_BUSY):  # the last part, or over
                return outcome

    def _is(self, other):
        return self._cache is other._cache and self._identity == other._identity

    def _lead(self, key, loader, load):
        token = _loading.set(_loading.get() + ((self, key),))
        try:
            data = self._dumps(loader())
            value = self._loads(data)  # what the others get, and they can read it
        except Exception as failure:
            value = self._failed(key, load, failure)
            if value is _NOTHING:
                raise
            return value
        finally:
            _loading.reset(token)
        _end(load, lib.shoal_load_publish, data, len(data))  # stored or not, the caller has its value
        return value

    async def _lead_async(self, key, loader, load):
        token = _loading.set(_loading.get() + ((self, key),))
        try:
            data = self._dumps(await loader())
            value = self._loads(data)
        except Exception as failure:
            value = self._failed(key, load, failure)
            if value is _NOTHING:
                raise
            return value
        finally:
            _loading.reset(token)
        _end(load, lib.shoal_load_publish, data, len(data))
        return value

    def _failed(self, key, load, failure):
        """-> an old value in place of the load, or _NOTHING"""
        _end(load, lib.shoal_load_fail, number_of(failure))
        value = self._instead(key)
        if value is not _NOTHING:
            _log.warning('%s@%s: an old value is served, as its load failed', *self._identity, exc_info=True)
        return value

    def _instead(self, key):
        """An old value in place of a load that has just failed"""
        load, value = ffi.new('struct shoal_load **'), ffi.new('struct shoal_value *')
        try:
            if lib.shoal_begin(self._handle, key, len(key), load, value) == lib.SHOAL_OK:
                return self._decode(key, value)
            previous = lib.shoal_load_previous(load[0])  # the failure is not remembered: this could be the next try
            return self._loads(ffi.buffer(previous.data, previous.size)) if previous else _NOTHING
        except Exception:
            return _NOTHING
        finally:
            if load[0]:
                _end(load, lib.shoal_load_cancel)
            lib.shoal_release(value)

    def _decode(self, key, value):
        try:
            return self._loads(ffi.buffer(value.data, value.size))
        except Exception as error:
            lib.shoal_reject(self._handle, key, len(key), value)
            raise _Undecodable from error

    def cached(self, key=None):
        """A decorator: calls of the function, a plain one or a coroutine function, go through the cache. `key`, called
        with the arguments, returns the key; without it they are spelt as they are, if they are numbers, strings, bytes,
        None, dates, Decimal, UUID, or tuples or frozensets of these, and else TypeError is raised.

        The function gets: key(...), the key of a call; expire(...) and delete(...), of the call with these arguments;
        keyspace; __wrapped__, itself without the cache. Two functions should not share a keyspace: their keys would.
        """

        def decorate(function):
            spell = key or _keys.speller(function)

            @functools.wraps(function)
            def call(*args, **kwargs):
                return self.fetch(spell(*args, **kwargs), lambda: function(*args, **kwargs))

            @functools.wraps(function)
            async def call_async(*args, **kwargs):
                return await self.fetch_async(spell(*args, **kwargs), lambda: function(*args, **kwargs))

            if inspect.iscoroutinefunction(function):
                call = call_async

            call.key = spell
            call.expire = lambda *args, **kwargs: self.expire(spell(*args, **kwargs))
            call.delete = lambda *args, **kwargs: self.delete(spell(*args, **kwargs))
            call.keyspace = self
            return call

        return decorate

    # ---- values ----------------------------------------------------------------------------------------------

    def get(self, key, default=None):
        """The value, fresh or stale, or `default`; never loads, never waits."""
        key, value = _keys.encode(key), ffi.new('struct shoal_value *')
        held = self._cache._open()
        try:
            if self._call(lib.shoal_get, key, len(key), value) == lib.SHOAL_OK:
                return self._decode(key, value)
        except _Undecodable:
            pass
        finally:
            lib.shoal_release(value)
            del held
        return default

    @contextlib.contextmanager
    def pin(self, key):
        """`with keyspace.pin(key) as view`: the bytes of the value where they lie in the segment, as a read-only
        memoryview, or None. They stay there for the `with`, and as long as there is a slice of the view."""
        key, value, view = _keys.encode(key), ffi.new('struct shoal_value *'), None
        if self._call(lib.shoal_get, key, len(key), value) == lib.SHOAL_OK:
            data = ffi.gc(ffi.cast('char *', value.data), lambda _, release=lib.shoal_release: release(value))
            view = memoryview(ffi.buffer(data, value.size)).toreadonly()
            del data
        try:
            yield view
        finally:
            if view is not None:
                with contextlib.suppress(BufferError):  # someone else looks into it
                    view.release()

    def set(self, key, value, fresh=None, stale=None):
        """Store a value. Loads of the key that are under way don't replace it. `fresh` and `stale`: of this value."""
        key, data = _keys.encode(key), self._dumps(value)
        self._call(lib.shoal_set_ttl, key, len(key), data, len(data), _ms(fresh), _ms(stale))

    def expire(self, key):
        """Stale from now on: served while one caller replaces it. Without `stale`, gone. False: there was no value."""
        key = _keys.encode(key)
        return self._call(lib.shoal_expire, key, len(key)) == lib.SHOAL_OK

    def delete(self, key):
        """Gone. False: there was no value."""
        key = _keys.encode(key)
        return self._call(lib.shoal_delete, key, len(key)) == lib.SHOAL_OK

    def expire_all(self):
        """Every value of the keyspace, for every process, at once."""
        self._call(lib.shoal_keyspace_expire)

    def delete_all(self):
        """Likewise."""
        self._call(lib.shoal_keyspace_delete)

    def fallback(self, old):
        """Where this keyspace would load, the value that `old`, of the same cache, has of the key is carried over: a
        new version that doesn't begin empty. The encoding has to be the same."""
        self._call(lib.shoal_keyspace_fallback, old._handle, NULL, NULL, NULL)

    def stats(self):
        """What is counted of the keyspace, in all processes: struct shoal_keyspace_stats as a dict."""
        stats = ffi.new('struct shoal_keyspace_stats *')
        self._call(lib.shoal_keyspace_stats, stats)
        return _fields(stats[0])


def _name_of(function):
    """-> the keyspace of a function: letters, digits, '.', '_' and '-', 63 at most"""
    module, name = function.__module__, function.__qualname__
    if '<' in name:
        raise ValueError(f'{name} needs a name, keyspace=: it may depend on more than its arguments')
    if module in ('__main__', '__mp_main__'):
        spec = getattr(sys.modules['__main__'], '__spec__', None)
        module = spec.name if spec else os.path.basename(function.__code__.co_filename)
    name = f'{module}.{name}'
    plain = re.sub(r'[^A-Za-z0-9._-]', '_', name)
    if plain == name and len(name) <= 63:
        return name
    return f'{plain[-54:]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}'
