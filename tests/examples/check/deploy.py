#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: deploy.py SHOAL SCRIPT PREFORK        prints TAP"""
import os
import subprocess
import sys

import lib
from lib import Origin, case, command, equal, get, start, stop, until

lib.shoal, script, server = [os.path.realpath(path) for path in sys.argv[1:4]]
folder = lib.folder()
origin = Origin()
KEYS = [f'/page/{i}' for i in range(6)]
MANY = [f'/many/{i}' for i in range(20)]  # of 16 is known whether they fail

os.chdir(folder)
for n in range(1, 5):
    os.makedirs(f'releases/{n}')
os.symlink('releases/1', 'current')
for name, keys in ('hot', KEYS), ('many', MANY):
    with open(name, 'w') as f:
        f.writelines(key + '\n' for key in keys)


def deploy(n, keyspace, keys='hot', **settings):
    """-> its exit status"""
    env = {**os.environ, 'RATE': 'none', 'STOP_LATENCY': 'none', **settings}
    env['PATH'] = os.path.dirname(lib.shoal) + ':' + env['PATH']
    p = subprocess.run(['sh', script, f'releases/{n}', keyspace, keys, f'http://127.0.0.1:{origin.port}'], env=env,
                       stdin=subprocess.DEVNULL, timeout=lib.PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print('# ' + p.stdout.decode().strip().replace('\n', '\n# '))
    return p.returncode


def asked(keys=KEYS):
    """How often the origin was, of all of them."""
    return sum(origin.count(key) for key in keys)


def no_cache():
    equal(deploy(2, 'page@1', SHOAL_CACHE=f'{lib.CACHE}-none'), 3)
    equal((os.readlink('current'), asked()), ('releases/1', 0))


def warm():
    command('create', '--size', '4m')
    equal(deploy(2, 'page@1'), 0)
    equal(os.readlink('current'), 'releases/2')
    equal([origin.count(key) for key in KEYS], [1] * len(KEYS))


def traffic():
    release = start(server, str(origin.port))
    for key in KEYS:
        equal(get(release.port, key), (200, (f'{key} 1|'.encode() * 64)[:64]))
    equal(asked(), len(KEYS))
    stop(release)


def again():
    equal(deploy(2, 'page@1'), 0)
    equal(asked(), len(KEYS))


def errors():
    origin('down')
    equal(deploy(3, 'page@3', 'many'), 8)
    origin('up')
    equal(os.readlink('current'), 'releases/2')
    assert 0 < asked(MANY) < len(MANY), asked(MANY)


def recovered():
    """What has failed is passed over for a second; the call after that loads it."""
    before = asked(MANY)
    until('all keys are loaded', lambda: deploy(3, 'page@3', 'many') == 0 and asked(MANY) - before == len(MANY))
    equal(os.readlink('current'), 'releases/3')


def slow():
    """A millisecond is less than it takes to run curl. The next call passes over what this one has loaded."""
    before = asked()
    equal(deploy(4, 'page@4', STOP_LATENCY='1ms'), 7)
    equal(os.readlink('current'), 'releases/3')
    assert 0 < asked() - before < len(KEYS), asked() - before
    equal(deploy(4, 'page@4'), 0)
    equal(os.readlink('current'), 'releases/4')
    equal(asked() - before, len(KEYS))


case('no cache: nothing is switched', no_cache)
case('what is hot is loaded, then the release is switched to', warm)
case('and none of its clients waits for the origin', traffic)
case('once more: all of it is fresh', again)
case('the origin fails: it is left alone, nothing is switched', errors)
case('it is well again: the next call loads them', recovered)
case('the origin is slow: likewise, and the next call goes on', slow)
lib.done()
