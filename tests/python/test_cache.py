# SPDX-License-Identifier: MIT
"""One process: values, policies, errors, decorators, and how long handles and values live."""
import contextlib
import errno
import gc
import json
import logging
import math
import os
import subprocess
import sys
import threading
import weakref

import shoal
from crew import PATIENCE_S, Case, until


class Values(Case):
    def test_what_is_kept(self):
        for serializer, value in (('pickle', {'a': (1, None)}), ('json', {'a': [1, None, 'ä']}), ('bytes', b'\0a'),
                                  ('bytes', b''), ('pickle', None), ('json', None), (json, [1])):
            k = self.cache.keyspace('values', serializer=serializer)
            k.delete_all()
            self.assertEqual(k.fetch('k', lambda v=value: v), value)
            self.assertEqual(k.fetch('k', self.fail), value)
            self.assertEqual(k.get('k', self), value)
            k.set('k', value)
            self.assertEqual(k.get(b'k', self), value)

    def test_all_get_what_was_kept(self):
        k = self.cache.keyspace('values', serializer='json')
        self.assertEqual(k.fetch('k', lambda: (1, 2)), [1, 2])
        self.assertEqual(k.fetch('k', self.fail), [1, 2])

    def test_no_value(self):
        k = self.cache.keyspace('values')
        self.assertIsNone(k.get('k'))
        self.assertEqual(k.get('k', 5), 5)
        self.assertFalse(k.delete('k'))
        k.set('k', 1)
        self.assertTrue(k.delete('k'))
        k.set('k', 1)
        self.assertTrue(k.expire('k'))  # without `stale`: gone
        self.assertIsNone(k.get('k'))
        k.set('k', 1)
        k.delete_all()
        self.assertIsNone(k.get('k'))

    def test_other_bytes_than_the_serializer_takes(self):
        with self.assertRaises(TypeError):
            self.cache.keyspace('values', serializer='bytes').set('k', 'text')
        with self.assertRaises(TypeError):
            self.cache.keyspace('values', serializer='bytes').fetch('k', lambda: 'text')
        with self.assertRaises(ValueError):
            self.cache.keyspace('values', serializer='xml')

    def test_undecodable_is_a_counted_miss(self):
        for serializer, bad in (('pickle', b'no pickle'), ('pickle', b''), ('pickle', b'cno.such_module\nf\n.'),
                                ('json', b'{'), ('json', b'\xff')):
            raw, k = (self.cache.keyspace('values', serializer=s) for s in ('bytes', serializer))
            before = k.stats()['rejected']
            raw.set('k', bad)
            self.assertIsNone(k.get('k'))
            raw.set('k', bad)
            self.assertEqual(k.fetch('k', lambda: 'new'), 'new')
            self.assertEqual(k.fetch('k', self.fail), 'new')
            self.assertEqual(k.stats()['rejected'] - before, 2)

    def test_what_never_decodes_is_loaded_and_not_returned(self):
        class Writer:
            dumps = staticmethod(lambda value: b'x')

            @staticmethod
            def loads(data):
                raise ValueError(data)

        k = self.cache.keyspace('values', serializer=Writer)
        with self.assertRaises(ValueError):
            k.fetch('k', lambda: 1)
        with self.assertRaises(shoal.LoadError):
            k.fetch('k', self.fail)

    def test_another_schema_is_a_counted_miss(self):
        old, new = self.cache.keyspace('values', schema=1), self.cache.keyspace('values', schema=2)
        old.set('k', 1)
        self.assertEqual(new.fetch('k', lambda: 2), 2)
        self.assertEqual(new.stats()['schema_mismatches'], 1)

    def test_too_big(self):
        k = self.cache.keyspace('values', serializer='bytes')
        big = bytes(8 << 20)
        with self.assertRaises(shoal.Error):
            k.set('k', big)
        self.assertEqual(k.fetch('k', lambda: big), big)  # its caller has it all the same
        for key in ('', 'x' * 65536):
            with self.assertRaises(shoal.Error):
                k.set(key, b'')

    def test_a_new_version_does_not_begin_empty(self):
        old, new = self.cache.keyspace('values', 1), self.cache.keyspace('values', 2)
        new.fallback(old)
        old.set('k', 'kept')
        self.assertEqual(new.fetch('k', self.fail), 'kept')
        self.assertEqual(new.stats()['migrated'], 1)

    def test_compressed(self):
        for how in ('lz4', 'zstd'):
            k = self.cache.keyspace('values.' + how, compress=how)
            k.set('k', 'x' * 20000)
            self.assertEqual(k.get('k'), 'x' * 20000)
        self.assertLess(self.cache.stats()['bytes_live'], 10000)

    def test_policies(self):
        k = self.cache.keyspace('policy', fresh=1.5, stale=0, stale_error=math.inf, lease=2)
        self.assertEqual([k.stats()[f] for f in ('fresh_ms', 'stale_ms', 'error_ms', 'lease_ms')],
                         [1500, 0, 2**32 - 2, 2000])
        k = self.cache.keyspace('policy', fresh=0.0001)
        self.assertEqual(k.stats()['fresh_ms'], 1)
        for wrong in (-1, math.nan):
            with self.assertRaises(ValueError):
                self.cache.keyspace('policy', fresh=wrong)

    def test_stats(self):
        k = self.cache.keyspace('values')
        k.fetch('k', lambda: 1)
        k.fetch('k', self.fail)
        mine, all_ = k.stats(), self.cache.stats()
        self.assertEqual((mine['loads'], mine['hits_fresh'], all_['total']['hits_fresh'], all_['entries']),
                         (1, 1, 1, 1))
        self.assertEqual(len(all_['evicted_by']), 8)
        self.assertFalse([name for name in (*mine, *all_) if name.startswith('reserved')])

    def test_another_size(self):
        with shoal.open(size=8 << 20, max_size=16 << 20) as cache:
            k = cache.keyspace('values')
            k.set('k', 1)
            cache.resize(16 << 20)
            self.assertEqual((k.get('k'), cache.stats()['size']), (1, 16 << 20))


class Failures(Case):
    def test_the_exception_is_the_callers(self):
        k = self.cache.keyspace('failures', retry=PATIENCE_S)
        for error, number in ((ValueError('no'), errno.EIO), (FileNotFoundError(errno.ENOENT, 'no'), errno.ENOENT)):
            def loader(error=error):
                raise error

            with self.assertRaises(type(error)) as seen:
                k.fetch(str(number), loader)
            self.assertIs(seen.exception, error)
            with self.assertRaises(shoal.LoadError) as seen:  # remembered
                k.fetch(str(number), self.fail)
            self.assertEqual(seen.exception.errno, number)

    def test_what_is_no_value_fails_the_load(self):
        k = self.cache.keyspace('failures', serializer='json')
        with self.assertRaises(TypeError):
            k.fetch('k', object)
        with self.assertRaises(shoal.LoadError):
            k.fetch('k', self.fail)

    def test_not_remembered(self):
        k = self.cache.keyspace('failures', retry=0)

        def fails_anew():  # none is less than a millisecond
            with contextlib.suppress(ZeroDivisionError, shoal.LoadError):
                k.fetch('k', lambda: loads.append(1) or 1 / 0)
            return len(loads) == 3

        loads = []
        until(fails_anew)
        until(lambda: k.stats()['load_errors'] == 3)

    def test_an_old_value_in_place_of_a_failure(self):
        for name, policy in (('a', {'stale': PATIENCE_S}), ('b', {'stale': 0, 'stale_error': PATIENCE_S}),
                             ('c', {'stale': 0, 'stale_error': PATIENCE_S, 'retry': 0})):
            k = self.cache.keyspace(name, early=0, **policy)
            k.set('k', 'old', fresh=0.001 if name != 'a' else None)
            if name == 'a':
                k.expire('k')
            else:
                until(lambda k=k: k.get('k') is None)
            with self.assertLogs('shoal', logging.WARNING) as log:
                self.assertEqual(k.fetch('k', lambda: 1 / 0), 'old')
            self.assertIn('ZeroDivisionError', log.output[0])
            self.assertEqual(self.cache.stats()['flights'], 0)
            k.delete_all()

    def test_who_gives_up_leaves_nothing(self):
        k = self.cache.keyspace('failures')
        for error in (KeyboardInterrupt, SystemExit, GeneratorExit):
            def loader(error=error):
                raise error

            with self.assertRaises(error):
                k.fetch('k', loader)
            self.assertEqual(self.cache.stats()['flights'], 0)
        self.assertEqual(k.fetch('k', lambda: 1), 1)

    def test_a_loader_that_asks_for_its_own_key(self):
        k = self.cache.keyspace('failures', wait=5)
        with self.assertRaises(shoal.Deadlock):
            k.fetch('k', lambda: k.fetch('k', self.fail))
        again = self.cache.keyspace('failures', wait=5)
        with self.assertRaises(shoal.Deadlock):
            k.fetch('l', lambda: again.fetch('l', self.fail))

    def test_loads_inside_loads(self):
        k = self.cache.keyspace('failures')
        self.assertEqual(k.fetch('a', lambda: k.fetch('b', lambda: k.fetch('c', lambda: 1) + 1) + 1), 3)
        self.assertEqual(k.fetch('c', self.fail), 1)

    def test_one_permit_is_enough(self):
        with shoal.open(max_loads=1, size=8 << 20) as cache:
            k = cache.keyspace('bounded', wait=5)
            self.assertEqual(k.fetch('a', lambda: k.fetch('b', lambda: 1) + 1), 2)
            self.assertEqual(k.fetch('b', lambda: 3), 3)  # was not kept

    def test_a_load_without_a_permit_is_not_enough(self):
        k, free = self.cache.keyspace('bounded', max_loads=1, wait=0.001), self.cache.keyspace('free')

        def outer():
            with self.assertRaises(shoal.Busy):
                self.in_a_thread(lambda: free.fetch('b', lambda: k.fetch('c', self.fail)))
            return 1

        self.assertEqual(k.fetch('a', outer), 1)
        self.assertEqual(k.stats()['busy'], 1)

    def in_a_thread(self, work):
        out = []

        def run():
            try:
                out.append(work())
            except BaseException as error:
                out.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(PATIENCE_S)
        if isinstance(out[0], BaseException):
            raise out[0]
        return out[0]

    def test_it_times_out(self):
        k = self.cache.keyspace('failures', wait=0.02)
        busy, gate = threading.Event(), threading.Event()

        def slow():
            busy.set()
            gate.wait(PATIENCE_S)
            return 1

        thread = threading.Thread(target=lambda: k.fetch('k', slow))
        thread.start()
        try:
            busy.wait(PATIENCE_S)
            with self.assertRaises(shoal.Timeout):
                k.fetch('k', self.fail)
            self.assertEqual(k.stats()['timeouts'], 1)
            with self.assertRaises(shoal.Timeout):
                self.in_a_thread(lambda: k.fetch('k', self.fail))
            self.assertEqual(k.stats()['timeouts'], 2)
        finally:
            gate.set()
            thread.join(PATIENCE_S)
        self.assertEqual(k.fetch('k', self.fail), 1)

    def test_open(self):
        with self.assertRaises(shoal.Error):
            shoal.open('a/../../nowhere', flags=shoal.ATTACH)
        with self.assertRaises(shoal.Error):
            shoal.open('.dot')
        self.assertFalse(shoal.unlink(f'test-python-{os.getpid()}'))


class Threads(Case):
    def test_one_load_for_all(self):
        n, loads, got = 16, [], []
        k = self.cache.keyspace('threads', wait=PATIENCE_S)

        def loader():
            loads.append(1)
            self.until_counted('misses', n)
            return 'value'

        threads = [threading.Thread(target=lambda: got.append(k.fetch('k', loader))) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual((loads, got), ([1], ['value'] * n))
        self.assertEqual(k.stats()['coalesced'], n - 1)

    def test_closed_under_those_who_wait(self):
        k = self.cache.keyspace('threads', wait=PATIENCE_S)
        loading, gate, got = threading.Event(), threading.Event(), []

        def loader():
            loading.set()
            gate.wait(PATIENCE_S)
            return 'value'

        threads = [threading.Thread(target=lambda: got.append(k.fetch('k', loader))) for _ in range(4)]
        for thread in threads:
            thread.start()
        loading.wait(PATIENCE_S)
        self.until_counted('misses', 4)
        self.cache.close()
        with self.assertRaises(shoal.Closed):
            k.get('k')
        gate.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual(got, ['value'] * 4)


class Lives(Case):
    def test_use_after_close(self):
        k = self.cache.keyspace('lives')
        k.set('k', 1)
        self.cache.close()
        self.cache.close()
        for use in (lambda: k.get('k'), lambda: k.fetch('k', self.fail), lambda: k.set('k', 1), lambda: k.delete('k'),
                    lambda: k.expire('k'), k.stats, k.delete_all, k.expire_all, self.cache.stats, self.cache.reap,
                    lambda: k.pin('k').__enter__(), lambda: self.cache.keyspace('x'), lambda: k.fallback(k)):
            with self.assertRaises(shoal.Closed):
                use()

    def test_a_loader_closes(self):
        k = self.cache.keyspace('lives')
        self.assertEqual(k.fetch('k', lambda: self.cache.close() or 1), 1)

    def test_a_pin(self):
        k = self.cache.keyspace('lives', serializer='bytes')
        k.set('k', b'value')
        with k.pin('k') as view:
            self.assertEqual(view, b'value')
            self.assertTrue(view.readonly)
            self.assertEqual(self.cache.stats()['pins'], 1)
        self.assertEqual(self.cache.stats()['pins'], 0)
        with self.assertRaises(ValueError):
            view[0]
        with k.pin('other') as view:
            self.assertIsNone(view)
        with self.assertRaises(ZeroDivisionError), k.pin('k') as view:
            1 / 0
        self.assertEqual(self.cache.stats()['pins'], 0)

    def test_a_slice_holds_its_pin(self):
        k = self.cache.keyspace('lives', serializer='bytes')
        k.set('k', b'value')
        with k.pin('k') as view:
            kept = view[1:]
        k.delete('k')
        self.assertEqual(self.cache.stats()['pins'], 1)
        self.assertEqual(kept, b'alue')
        del kept
        self.assertEqual(self.cache.stats()['pins'], 0)

    def test_a_view_outlives_its_cache(self):
        k = self.cache.keyspace('lives', serializer='bytes')
        k.set('k', b'value')
        with k.pin('k') as view:
            self.cache.close()
            del k
            self.cache = shoal.open(size=8 << 20)
            gc.collect()
            self.assertEqual(view, b'value')

    def test_a_keyspace_holds_its_cache(self):
        cache = shoal.open(size=8 << 20)
        alive, k = weakref.ref(cache), cache.keyspace('lives')
        del cache
        k.set('k', 1)
        self.assertEqual(k.get('k'), 1)
        del k
        gc.collect()
        self.assertIsNone(alive())


class Decorated(Case):
    def setUp(self):
        super().setUp()
        self.calls = []

    def test_calls(self):
        @self.cache.cached(keyspace='f', fresh=PATIENCE_S)
        def f(a, b=2):
            """What it does"""
            self.calls.append((a, b))
            return a + b

        self.assertEqual([f(1), f(1, 2), f(a=1), f(b=2, a=1)], [3] * 4)
        self.assertEqual(self.calls, [(1, 2)])
        self.assertEqual((f(2), f(1.0)), (4, 3))
        self.assertEqual(len(self.calls), 3)
        self.assertEqual((f.__name__, f.__doc__, f.key(1), f.keyspace.name), ('f', 'What it does', b'1, 2', 'f'))
        self.assertTrue(f.delete(1))
        f(1, 2)
        self.assertEqual(len(self.calls), 4)
        self.assertTrue(f.expire(1))
        f.__wrapped__(1)
        self.assertEqual(len(self.calls), 5)

    def test_a_key_of_ones_own(self):
        test = self

        class Users:
            @self.cache.cached(keyspace='users', key=lambda self, user: f'user:{user}')
            def name(self, user):
                test.calls.append(user)
                return user * 2

            @self.cache.cached(keyspace='others')
            def other(self):
                test.fail()

        self.assertEqual((Users().name(4), Users().name(4), self.calls), (8, 8, [4]))
        self.assertEqual(Users.name.keyspace.get('user:4'), 8)
        with self.assertRaises(TypeError):
            Users().other()

    def test_what_is_refused(self):
        with self.assertRaises(ValueError):
            self.cache.cached()(lambda: 1)

    def test_the_default_cache(self):
        name = f'test-python-{os.getpid()}'
        program = ('import shoal\n@shoal.cached(fresh=600)\ndef f(): print("loads"); return 1\n'
                   'print(f(), f(), f.keyspace.name)')
        env = dict(os.environ, SHOAL_CACHE=name)
        try:
            said = [subprocess.run([sys.executable, '-c', program], check=True, stdout=subprocess.PIPE, text=True,
                                   env=env).stdout for _ in range(2)]
        finally:
            self.assertTrue(shoal.unlink(name))
        self.assertTrue(said[0].startswith('loads\n1 1 '), said)
        self.assertEqual(said[0], 'loads\n' + said[1])


class Doors(Case):
    def test_pickle_has_to_be_asked_for_where_others_may_write(self):
        name = f'test-python-{os.getpid()}'
        with shoal.open(name, size=1 << 20, mode=0o660) as cache:
            try:
                with self.assertRaises(ValueError):
                    cache.keyspace('values')
                for serializer in ('json', 'bytes', 'pickle'):
                    cache.keyspace('values', serializer=serializer)
            finally:
                shoal.unlink(name)
        with shoal.open(name, size=1 << 20) as cache:
            shoal.unlink(name)
            cache.keyspace('values')
