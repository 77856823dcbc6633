#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: cron.py SHOAL CRONTAB        prints TAP

Each line is run as cron runs it: by sh -c, in the poor environment that the crontab says, with an empty standard input.
Only where the programs, the origin and the output are is ours.
"""
import os
import re
import subprocess
import sys

import lib
from lib import Origin, case, equal, stat, until

lib.shoal, crontab = os.path.realpath(sys.argv[1]), sys.argv[2]
EACH = 8
folder = lib.folder()
origin = Origin()
variables, jobs = {}, []

for text in open(crontab):
    setting = re.match(r'(\w+)=(.*)\n', text)
    job = re.match(r'((?:[\d*/,-]+\s+){5})(.*)\n', text)
    if setting:
        variables[setting[1]] = setting[2]
    elif job:
        jobs.append(job[2])
    elif text.strip() and not text.startswith('#'):
        raise SystemExit(f'no line of a crontab: {text}')


def environment(out, gate):
    env = dict(variables, HOME=folder, LOGNAME='report', SHOAL_CACHE=lib.CACHE, OUT=f'{folder}/{out}')
    env['PATH'] = os.path.dirname(lib.shoal) + ':' + env['PATH']
    env['ORIGIN'] = f'http://127.0.0.1:{origin.port}'
    if gate:
        env['ORIGIN'] += f'/gated?gate={gate}&of='
    env.update({name: value for name, value in os.environ.items() if name.endswith('SAN_OPTIONS')})
    os.makedirs(env['OUT'], exist_ok=True)
    return env


def begin(line, out, gate=None):
    equal(re.findall(r'(?<!\\)%', line), [])
    env = environment(out, gate)
    return lib.begin(env['SHELL'], '-c', line.replace('\\%', '%'), env=env, cwd=folder, stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE)


def end(p):
    """-> status, what it sends by mail"""
    out, err = p.communicate(timeout=lib.PATIENCE)
    lib.processes.remove(p)
    return p.returncode, (out + err).decode()


def written(out, name):
    with open(f'{folder}/{out}/{name}', 'rb') as f:
        return f.read()


def at_once():
    lines = [line for line in jobs if '/export' in line]
    equal(len(lines), 2)
    begun = [begin(line, f'{i}-{n}', 'export') for n in range(EACH) for i, line in enumerate(lines)]
    until('all to miss', lambda: os.path.exists(f'/dev/shm/{segment()}') and stat()['misses'] >= len(begun))
    origin('open?export')
    equal([end(p) for p in begun], [(0, '')] * len(begun))
    equal(origin.count('/gated'), 1)
    body = (b'/gated 1|' * 8)[:64]
    for n in range(EACH):
        equal(written(f'0-{n}', 'export'), body)
        equal(written(f'1-{n}', 'total'), b'64\n')


def segment():
    layout = re.search(r'layout\D*(\d+)', lib.command('version'))[1]
    return f'shoal.{lib.CACHE}.v{layout}'


def yesterday():
    line = next(line for line in jobs if '/rates' in line).replace('--fresh 12h', '--fresh 1ms')
    equal(end(begin(line, 'rates')), (0, ''))
    origin('down')

    def down():
        status, mail = end(begin(line, 'rates'))
        equal(status, 0)
        equal(written('rates', 'rates'), (b'/rates 1|' * 8)[:64])
        return origin.count('/rates') > 1 and mail
    mail = until('the server to be asked while it is down', down)
    assert 'this is its output of' in mail, mail
    origin('up')


def nothing_old():
    """Where nothing was kept the job fails, and leaves what is there."""
    origin('down')
    line = next(line for line in jobs if '/rates' in line)
    os.makedirs(f'{folder}/none', exist_ok=True)
    with open(f'{folder}/none/rates', 'w') as f:
        f.write('before')
    status, mail = end(begin(line.replace('/rates >', '/none >'), 'none'))
    origin('up')
    equal((status != 0, written('none', 'rates')), (True, b'before'))
    assert 'curl: ' in mail, mail


case(f'{2 * EACH} jobs at once, one run', at_once)
case('an old output, and a mail, if the server is down', yesterday)
case('no old output: the job fails, and what it wrote before stays', nothing_old)
lib.done()
