# SPDX-License-Identifier: MIT
"""What cffi was told, held against what the C compiler makes of shoal.h: each struct, constant and function."""
import os
import re
import shlex
import subprocess
import tempfile
import unittest

from shoal._library import ffi, lib

HEADER = os.environ['SHOAL_HEADER']
NO_NAME = {'FILE'}  # not ours


class Layout(unittest.TestCase):
    def compile(self, asserted):
        self.assertTrue(asserted)
        with tempfile.NamedTemporaryFile('w', suffix='.c') as source:
            print('#include <stddef.h>', '#include <stdint.h>', '#include <stdio.h>', '#include <sys/types.h>',
                  '#define const', f'#include "{HEADER}"', sep='\n', file=source)  # cffi knows of no const
            for line in asserted:
                print(f'_Static_assert({line}, "{line.split(",")[0]}");', file=source)
            source.flush()
            done = subprocess.run([*shlex.split(os.environ.get('CC', 'cc')), '-std=gnu11', '-fsyntax-only',
                                   source.name],
                                  stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_structs(self):
        names = ffi.list_types()[1]
        self.assertIn('shoal_value', names)
        asserted = []
        for name in names:
            kind = ffi.typeof(f'struct {name}')
            if kind.fields is None:
                continue
            asserted.append(f'sizeof(struct {name}) == {ffi.sizeof(kind)}')
            for field, of in kind.fields:
                asserted.append(f'offsetof(struct {name}, {field}) == {of.offset}')
                asserted.append(f'sizeof(((struct {name} *)0)->{field}) == {ffi.sizeof(of.type)}')
        self.compile(asserted)

    def test_every_struct_is_there(self):
        with open(HEADER, encoding='utf-8') as file:
            declared = set(re.findall(r'^struct (\w+) \{', file.read(), re.M))
        self.assertEqual(declared - {n for n in ffi.list_types()[1] if ffi.typeof(f'struct {n}').fields}, set())

    def test_constants(self):
        self.compile([f'{n} == {getattr(lib, n)}' for n in dir(lib) if n.startswith('SHOAL_')])

    def test_functions(self):
        names = [n for n in dir(lib) if n.startswith('shoal_')]
        kinds = {n: ffi.typeof(getattr(lib, n)) for n in names}
        self.compile([f'__builtin_types_compatible_p(__typeof__(&{n}), {ffi.getctype(k, "")})'
                      for n, k in kinds.items()])

    def test_every_function_is_there(self):
        with open(HEADER, encoding='utf-8') as file:
            text = re.sub(r'/\*.*?\*/', '', file.read(), flags=re.S)
        declared = set(re.findall(r'^(?!typedef)\w[\w ]*[ *](shoal_\w+)\(', text, re.M))
        self.assertGreater(len(declared), 40)
        self.assertEqual(declared, {n for n in dir(lib) if n.startswith('shoal_')})
