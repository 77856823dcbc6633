#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Keep the arrows of the architecture: a file includes its own floor's lower ranks and the floors below, nothing else.

usage: layers.py ROOT        prints TAP

The table is the architecture. One line a floor; `|` cuts it into ranks, left below right; names on one rank are
strangers to each other. A name is a file's stem, or a folder of src/. A new file needs a place here, and the same
place in the list of meson.build. The programs on top see <shoal.h> and their own folder only.
"""
import pathlib
import re
import sys

FLOORS = '''
0 machine      base | version probe tell atomic | clock hash | proc | futex mapping codec
1 bytes        counters | layout | geometry | histogram distinct segment
2 who          member | life | process | registry | tally bell
3 when         rcu
4 where        ghost | extents | log | evict
5 what         index permit flight_word | flight | claim
6 coordinator  move refresher watch | recover | handle room | store | hit | load | begin | fetch | stats | cache keyspace scan inspect metrics check warm resize dispatch
'''
PROGRAMS = ['src/cli', 'src/nginx', 'src/redis', 'bench', 'tests/abi', 'tests/examples']

root = pathlib.Path(sys.argv[1])
src = root / 'src'

rank, floor_of = {}, {}
for line in FLOORS.strip().splitlines():
    number, floor, names = line.split(None, 2)
    for group in names.split('|'):
        level = len(set(rank.values()))
        for name in group.split():
            rank[name], floor_of[name] = level, f'{number} {floor}'


def includes(path):
    for n, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if m:
            yield n, m[1] == '"', m[2]


def inside(path, folder):
    return folder in path.parents


programs = [root / p for p in PROGRAMS]
engine = sorted(f for f in src.rglob('*') if f.suffix in ('.c', '.h') and not any(inside(f, p) for p in programs))
failures = {}  # check -> complaints


def check(name, complaints):
    failures[name] = list(complaints)


def unplaced():
    for f in engine:
        if f.stem not in rank:
            yield f'{f.relative_to(root)}: not on any floor: give it a place in tests/layers.py'


def upward():
    for f in engine:
        for n, quoted, name in includes(f):
            to, at = pathlib.PurePosixPath(name), f'{f.relative_to(root)}:{n}'
            if not quoted:
                if (src / name).is_file():
                    yield f'{at}: <{name}> is a header of our own: write "{name}"'
            elif to.suffix != '.h':
                yield f'{at}: includes "{name}", which is no header'
            elif to.name == 'shoal.h' or to.stem == f.stem:
                pass
            elif to.stem not in rank:
                yield f'{at}: "{name}" is on no floor'
            elif f.stem in rank and rank[to.stem] >= rank[f.stem]:
                how = 'a stranger of the same rank' if rank[to.stem] == rank[f.stem] else 'above'
                yield f'{at}: {f.stem} ({floor_of[f.stem]}) includes "{name}" ({floor_of[to.stem]}): {how}'


def undeclared():
    for f in engine:
        if f.suffix == '.c':
            for n, line in enumerate(f.read_text(errors='replace').splitlines(), 1):
                if re.match(r'extern\b', line):
                    yield f'{f.relative_to(root)}:{n}: extern in a .c file goes round the headers'


def peeping():
    for folder in programs:
        for f in sorted(folder.rglob('*')):
            if f.suffix not in ('.c', '.h', '.cpp'):
                continue
            for n, quoted, name in includes(f):
                own = (f.parent / name).resolve()
                if name == 'shoal.h' or (quoted and own.is_file() and inside(own, folder.resolve())):
                    continue
                if quoted or (src / name).is_file():
                    yield f'{f.relative_to(root)}:{n}: a program sees <shoal.h> only, not "{name}"'


def unlisted():
    listed = re.findall(r"^\s*'src/([\w-]+)\.c'", (root / 'meson.build').read_text(), re.M)
    for f in engine:
        if f.suffix == '.c' and f.stem not in listed:
            yield f'{f.relative_to(root)}: not in meson.build'
    known = [s for s in listed if s in rank]
    for below, above in zip(known, known[1:]):
        if rank[below] > rank[above]:
            yield f'meson.build: {below}.c stands before {above}.c, which is below it'


check('every file has a floor', unplaced())
check('includes point down', upward())
check('functions are declared in headers', undeclared())
check('programs see the public header only', peeping())
check('meson.build lists the sources in floor order', unlisted())

for i, (name, complaints) in enumerate(failures.items(), 1):
    print('not ok' if complaints else 'ok', i, '-', name)
    for c in complaints:
        print('#', c)
print(f'1..{len(failures)}')
sys.exit(any(failures.values()))
