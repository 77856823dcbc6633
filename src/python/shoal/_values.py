# SPDX-License-Identifier: MIT
"""How values become bytes: by pickle, by JSON, not at all, or by whatever has dumps() and loads()."""
import json
import pickle


def _to_bytes(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f'this keyspace keeps bytes, not {type(value).__qualname__}: see serializer=')


def _to_pickle(value):
    return pickle.dumps(value, 5)  # the same for every Python from 3.8 on that may share a segment


def _to_json(value):
    return json.dumps(value, separators=(',', ':'), ensure_ascii=False).encode()


def _from_json(data):
    return json.loads(bytes(data))


KNOWN = {'bytes': (_to_bytes, bytes), 'pickle': (_to_pickle, pickle.loads), 'json': (_to_json, _from_json)}


def functions_of(serializer, writable_by_others):
    """-> dumps, loads. loads gets a buffer whose bytes lie in the segment: it must not keep it."""
    if serializer is None:
        if writable_by_others:
            raise ValueError('other users may write this segment, and pickle runs what it reads: choose serializer='
                             "'json' or 'bytes', or say 'pickle' if you trust them")
        serializer = 'pickle'
    if isinstance(serializer, str):
        if serializer not in KNOWN:
            raise ValueError(f'no serializer {serializer!r}: {", ".join(KNOWN)} or an object with dumps and loads')
        return KNOWN[serializer]
    dumps, loads = serializer.dumps, serializer.loads

    def dump(value):
        data = dumps(value)
        return data.encode() if isinstance(data, str) else bytes(data)

    return dump, lambda data: loads(bytes(data))
