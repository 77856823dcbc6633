# SPDX-License-Identifier: MIT
"""How calls are spelt as keys: the same in every process, and differently if anything differs.

Arguments are spelt as Python writes them, in ASCII: `profile(7, 'en')` has the key `7, 'en'`, which a person can read
in `shoal keys`. That is only done to what is written the same everywhere and tells its type: numbers, strings, bytes,
None, tuples, frozensets, dates, Decimal and UUID, of those types exactly. Anything else is refused rather than spelt by
an address or by a __repr__ that leaves something out: then `key=` says how.
"""
import datetime
import decimal
import hashlib
import inspect
import uuid

PLAIN = {type(None), bool, int, float, str, bytes}
BY_TEXT = {datetime.date, datetime.time, datetime.datetime, decimal.Decimal, uuid.UUID}
LONGEST = 1000  # of a spelling; what is longer goes by its digest
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def spell(value):
    """-> str: one argument"""
    kind = type(value)
    if kind in PLAIN:
        return ascii(value)
    if kind is tuple:
        return '(' + ''.join(spell(v) + ',' for v in value) + ')'
    if kind is frozenset:
        return '{' + ','.join(sorted(map(spell, value))) + '}'
    if kind in BY_TEXT:
        return f'{kind.__name__}({ascii(str(value))})'
    raise TypeError(f'{kind.__qualname__} has no spelling as part of a key: give the decorator key=, or pass something '
                    'else (see shoal.cached)')


def encode(key):
    """-> bytes: a key that the caller has spelt"""
    if type(key) is bytes:
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise TypeError(f'a key is str or bytes, not {type(key).__qualname__}')


def speller(function):
    """-> a function of the same arguments that returns their key. Calls that mean the same have the same key, whichever
    arguments they name or leave to their defaults."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    simple = all(p.kind in POSITIONAL for p in parameters)

    def key(*args, **kwargs):
        if kwargs or not simple or len(args) != len(parameters):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args = tuple(tuple(sorted(a.items())) if p.kind is p.VAR_KEYWORD else a
                         for p, a in zip(parameters, bound.arguments.values()))
        text = ', '.join(map(spell, args)).encode() or b'()'
        return text if len(text) <= LONGEST else \
            b'blake2b ' + hashlib.blake2b(text, digest_size=32).hexdigest().encode()

    return key
