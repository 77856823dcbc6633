# SPDX-License-Identifier: MIT
"""Arguments as keys: other arguments, another key; the same ones, the same key, in every process."""
import datetime
import decimal
import enum
import math
import os
import random
import subprocess
import sys
import unittest
import uuid

from shoal import _keys
from shoal._cache import _name_of

SAMPLES = [None, True, False, 0, 1, -1, 2**70, 0.0, -0.0, 1.0, 1e300, math.inf, 0.1, '', '1', 'None', "'", '"',
           "a', 'b", ',',
           'ä', '\ud800', '\U0001f600', '\0', b'', b'1', b'\0', b"'", (), (1,), ((),), (1, 2), ('1, 2',), frozenset(),
           frozenset({1}), frozenset({1, 2}), frozenset({(1, 2)}), datetime.date(2020, 1, 2), '2020-01-02',
           datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc), datetime.time(1),
           decimal.Decimal('1'), decimal.Decimal('1.0'), uuid.UUID(int=1)]


def identity(value):
    """Distinct for what is to have distinct keys, by means other than a spelling"""
    if isinstance(value, tuple):
        return (tuple, tuple(map(identity, value)))
    if isinstance(value, frozenset):
        return (frozenset, frozenset(map(identity, value)))
    if isinstance(value, float):
        return (float, value.hex())
    if isinstance(value, decimal.Decimal):
        return (decimal.Decimal, value.as_tuple())
    return (type(value), value)


def chance(r, depth=3):
    kind = r.randrange(8 if depth else 5)
    if kind < 3:
        return r.choice(SAMPLES)
    if kind == 3:
        return ''.join(r.choice('\'"\\,() ab\n') for _ in range(r.randrange(4)))
    if kind == 4:
        return bytes(r.choice(b'\'"\\,() ab\n') for _ in range(r.randrange(4)))
    values = [chance(r, depth - 1) for _ in range(r.randrange(4))]
    return frozenset(values) if kind == 5 else tuple(values)


class Keys(unittest.TestCase):
    def test_other_arguments_other_keys(self):
        seed = random.randrange(2**32)
        print('# seed', seed)
        r, key, seen = random.Random(seed), _keys.speller(lambda *args: None), {}
        calls = [(a,) for a in SAMPLES] + [(a, b) for a in SAMPLES for b in SAMPLES]
        calls += [tuple(chance(r) for _ in range(r.randrange(5))) for _ in range(30000)]
        for args in calls:
            spelt = key(*args)
            self.assertEqual(seen.setdefault(spelt, identity(args)), identity(args), spelt)
        self.assertEqual(len(seen), len({identity(a) for a in calls}))

    def test_the_same_call_the_same_key(self):
        def f(a, b=2, *rest, c=3, **more):
            pass

        key = _keys.speller(f)
        for same in (key(1, 2), key(a=1), key(1, b=2, c=3)):
            self.assertEqual(same, key(1))
        self.assertEqual(key(1, x=1, y=2), key(1, y=2, x=1))
        for other in (key(2), key(1, 3), key(1, c=4), key(1, 2, 3), key(1, x=1)):
            self.assertNotEqual(other, key(1))
        with self.assertRaises(TypeError):
            key()

    def test_a_key_can_be_read(self):
        self.assertEqual(_keys.speller(lambda a, b: None)(7, 'en'), b"7, 'en'")

    def test_none_at_all(self):
        self.assertTrue(_keys.speller(lambda: None)())

    def test_a_long_one_goes_by_its_digest(self):
        key = _keys.speller(lambda a: None)
        long, other = key('a' * 100000), key('a' * 99999 + 'b')
        self.assertLess(len(long), 100)
        self.assertNotEqual(long, other)

    def test_what_has_no_spelling_is_refused(self):
        class Thing:
            pass

        class Words(str):
            def __repr__(self):
                return "''"

        class Colour(enum.IntEnum):
            RED = 1

        key = _keys.speller(lambda a: None)
        for value in (Thing(), [], {}, set(), Words('a'), Colour.RED, (1, [2]), frozenset({Thing()}), object, len):
            with self.assertRaises(TypeError):
                key(value)

    def test_the_same_in_another_process(self):
        program = ("from shoal import _keys; key = _keys.speller(lambda *a: None)\n"
                   "print(key('a', frozenset({'x', 'y', 'z', ('a', 1)}), 1.5, b'b'))")
        said = {subprocess.run([sys.executable, '-c', program], check=True, stdout=subprocess.PIPE,
                               env=dict(os.environ, PYTHONHASHSEED=seed)).stdout for seed in '123456'}
        self.assertEqual(len(said), 1)

    def test_keys_of_ones_own(self):
        self.assertEqual(_keys.encode('ä'), 'ä'.encode())
        self.assertEqual(_keys.encode(b'\xff'), b'\xff')
        for value in (7, None, ('a',)):
            with self.assertRaises(TypeError):
                _keys.encode(value)

    def test_names_of_functions(self):
        self.assertEqual(_name_of(chance), 'test_keys.chance')
        self.assertEqual(_name_of(Keys.test_names_of_functions), 'test_keys.Keys.test_names_of_functions')
        with self.assertRaises(ValueError):
            _name_of(lambda: None)

        def named(name):
            def f():
                pass
            f.__qualname__ = name
            return _name_of(f)

        names = [named('x' * n) for n in range(1, 100)] + [named('ä'), named('ö'), named('_')]
        self.assertEqual(len(set(names)), len(names))
        for name in names:
            self.assertRegex(name, r'^[A-Za-z0-9._-]{1,63}$')
