#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: migrate.py SHOAL MIGRATE        prints TAP"""
import subprocess
import sys

import lib
from lib import case, equal, keyspace_stat

lib.shoal, program = sys.argv[1:3]
folder = lib.folder()
file = f'{folder}/people'
people = {str(i): f'name{i}' for i in range(1, 31)}
PROCESSES = 8
first = [str(i) for i in range(1, 21)]


def write():
    with open(file, 'w') as f:
        f.writelines(f'{i} {name}\n' for i, name in people.items())


def begin(release, verb, *ids):
    return subprocess.Popen([program, str(release), file, verb, *ids], stdout=subprocess.PIPE)


def end(process):
    out = process.communicate(timeout=lib.PATIENCE)[0].decode()
    equal(process.returncode, 0)
    return [line.rsplit(' ', 1) for line in out.splitlines()]  # [said, (source)]


def run(*args):
    return end(begin(*args))


def counted(keyspace):
    """-> loads, values carried over"""
    s = keyspace_stat(keyspace)
    return s['loads'], s['migrated']


def old_release():
    equal(run(1, 'get', *first), [[f'user:{i}: {people[i]}', '(loaded)'] for i in first])
    equal(run(1, 'get', *first), [[f'user:{i}: {people[i]}', '(hit)'] for i in first])
    equal(counted('people@1'), (len(first), 0))


def new_release():
    """Many processes of it at once, and the old one among them."""
    processes = [begin(2, 'get', *first) for _ in range(PROCESSES)]
    old = begin(1, 'get', *first)
    for p in processes:
        equal([said for said, _ in end(p)], [f'{i}: name={people[i]}' for i in first])
    equal({source for _, source in end(old)}, {'(hit)'})
    equal(counted('people@2'), (0, len(first)))
    equal(counted('people@1')[0], len(first))


def unknown_to_the_old():
    equal(run(2, 'get', '21'), [['21: name=name21', '(loaded)']])
    equal(run(2, 'get', '21'), [['21: name=name21', '(hit)']])
    equal(counted('people@2')[0], 1)


def change():
    """It reaches the release that doesn't know of the new one."""
    people['7'] = 'other'
    write()
    equal(run(2, 'changed', '7'), [])
    equal(run(2, 'get', '7'), [['7: name=other', '(loaded)']])
    equal(run(1, 'get', '7'), [['user:7: other', '(loaded)']])


def makes_no_sense():
    subprocess.run([lib.shoal, 'set', '--keyspace', 'people@1', 'user:25'], input=b'', check=True)
    equal(run(2, 'get', '25'), [['25: name=name25', '(loaded)']])


write()
case('the old release loads', old_release)
case(f'{PROCESSES} processes of the new one load nothing, and carry each value over once', new_release)
case('what the old one did not have is loaded once', unknown_to_the_old)
case('a change by the new release reaches the old one', change)
case('a value that makes no sense is loaded', makes_no_sense)
lib.done()
