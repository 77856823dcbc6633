#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: module.py SHOAL NGINX MODULE [RUNTIME...]        prints TAP

The module in the nginx of the machine, with four workers. RUNTIMEs of sanitizers are loaded before nginx.

Its origin is a timer, which can't be held back. So a case that wants something to happen amid a load looks
whether it has, and if not, as on a slow machine, it begins anew with a load of twice the time. What has to hold
is held in each round.
"""
import itertools
import os
import re
import signal
import socket
import sys

import lib
from lib import Client, case, command, equal, stat, until

WORKERS = 4
CROWD = 64
lib.shoal, nginx, module, runtimes = sys.argv[1], sys.argv[2], os.path.realpath(sys.argv[3]), sys.argv[4:]
master = None
TIMES = [200 * 2**i for i in range(8)]  # milliseconds that a load takes: /200/... and so on
folder = lib.folder()
os.chmod(folder, 0o755)
keys = itertools.count()

# The port stays ours while nginx listens on it, by one socket for each worker.
port_holder = socket.socket()
port_holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
port_holder.bind(('127.0.0.1', 0))
port = port_holder.getsockname()[1]


def configuration():
    temp = '\n'.join(f'{name}_temp_path {folder}/{name};'
                     for name in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
    locations = ' '.join(f'location /{ms}/ {{ shoal_example {ms}ms; }}' for ms in TIMES)
    with open(f'{folder}/nginx.conf', 'w') as f:
        f.write(f'''load_module {module};
daemon off; pid nginx.pid; error_log error.log info; worker_processes {WORKERS};
events {{ worker_connections 512; }}
http {{
access_log off; keepalive_requests 1000000;
{temp}
server {{
    listen 127.0.0.1:{port} reuseport backlog=511;
    location = /pid {{ default_type text/plain; return 200 $pid; }}
    {locations}
}}
}}
''')


def starts(**settings):
    global master
    with open(f'{folder}/error.log', 'w'):
        pass
    environment = dict(os.environ, **settings)
    if runtimes:  # nginx leaves to exit() what it has
        environment['LD_PRELOAD'] = ' '.join(runtimes)
        environment['ASAN_OPTIONS'] = environment.get('ASAN_OPTIONS', '') + ':detect_leaks=0'
    master = lib.begin(nginx, '-p', folder, '-c', 'nginx.conf', env=environment,
                       stderr=open(f'{folder}/output', 'w'))

    def answers():
        if master.poll() is not None:
            raise AssertionError(open(f'{folder}/output').read())
        try:
            return pid_of(Client(port)) > 0
        except ConnectionRefusedError:
            return False

    until('nginx to listen', answers)


def pid_of(client):
    """The worker that has this client."""
    client.ask('/pid')
    return int(client.read()[1] or 0)


def connect(n):
    """-> clients by their workers, of whom each has some; n clients or a few more"""
    by_worker, gathered = {}, 0

    def enough():
        nonlocal gathered
        c = Client(port, keep=True)
        pid = pid_of(c)
        if pid:
            by_worker.setdefault(pid, []).append(c)
            gathered += 1
        return gathered >= n and len(by_worker) == WORKERS
    until('a client of each worker', enough)
    return by_worker


def line(answer):
    """-> the process that made it, and its number there"""
    equal(answer[0], 200)
    return tuple(int(n) for n in re.match(rb'process (\d+), line (\d+): ', answer[1]).groups())


def rounds(attempt, *args):
    """Until it could see what it was to see. Longer ones would outlive the lease."""
    if not any(attempt(f'/{ms}/{next(keys)}', *args) for ms in TIMES):
        raise AssertionError(f'not even in {TIMES[-1]} ms')


def crowd(key):
    before = stat()
    clients = [c for some in connect(CROWD).values() for c in some]
    for c in clients:
        c.ask(key)
    lines = {line(c.read()) for c in clients}
    equal(len(lines), 1)
    now = stat()
    equal(now['loads'] - before['loads'], 1)
    return now['coalesced'] > before['coalesced']


def asked(before):
    """Requests since then that have looked for their value."""
    now = stat()
    return sum(now[n] - before[n] for n in ('misses', 'hits_fresh', 'hits_stale'))


def first_asks(key):
    """-> clients, of a worker each, the first of which has caused a load; its worker; what was counted before"""
    before, by_worker = stat(), connect(WORKERS)
    clients = [some[0] for some in by_worker.values()]
    clients[0].ask(key)
    until('its load', lambda: stat()['loads'] > before['loads'])
    return clients, next(iter(by_worker)), before


def killed(key):
    (first, *others), worker, before = first_asks(key)
    for c in others:
        c.ask(key)
    until('the others', lambda: asked(before) == WORKERS)
    os.kill(worker, signal.SIGKILL)
    lines = {line(c.read()) for c in others}
    equal(len(lines), 1)
    if first.read()[0]:
        return False  # it had the line already
    taken = stat()['takeovers'] - before['takeovers']
    equal((stat()['loads'] - before['loads'], lines.pop()[0] != worker), (1 + taken, taken == 1))
    return taken == 1


def leaves(key, leading):
    """Of two clients that want a line one goes, and the other gets it."""
    (first, second, *_), worker, before = first_asks(key)
    second.ask(key)
    until('the other', lambda: asked(before) == 2)
    amid = stat()['running'] == 1
    gone, stays = (first, second) if leading else (second, first)
    gone.close()
    equal(line(stays.read())[0], worker)
    equal(stat()['loads'] - before['loads'], 1)
    until('nothing to be held', lambda: stat()['flights'] == 0 and stat()['pins'] == 0)
    return amid


def failure():
    before, key = stat(), f'/200/fail{next(keys)}'
    clients = [some[0] for some in connect(WORKERS).values()]
    for c in clients:
        c.ask(key)
    equal([c.read()[0] for c in clients], [502] * len(clients))
    equal(stat()['loads'] - before['loads'], 1)


def stale():
    key = f'/200/{next(keys)}'
    clients = [some[0] for some in connect(WORKERS).values()]
    clients[0].ask(key)
    old, before = line(clients[0].read()), stat()
    command('expire', '--keyspace', 'line@1', key)
    clients[1].ask(key)
    equal(line(clients[1].read()), old)  # which takes no load to be over

    def renewed():
        lines = set()
        for c in clients:
            c.ask(key)
            lines.add(line(c.read()))
        return len(lines) == 1 and lines != {old}
    until('the new one', renewed)
    equal(stat()['loads'] - before['loads'], 1)


def title(pid):
    try:
        with open(f'/proc/{pid}/cmdline') as f:
            return f.read()
    except FileNotFoundError:
        return ''


def reload(key):
    """Who is parked is answered by the worker that leaves; those that come find what there was."""
    before, old = stat(), connect(WORKERS)
    parked = [some[0] for some in old.values()]
    for c in parked:
        c.ask(key)
    until('them to be parked', lambda: asked(before) == len(parked))
    master.send_signal(signal.SIGHUP)
    until('the old workers to know', lambda: all('shutting down' in title(pid) or not title(pid) for pid in old))
    amid = stat()['running'] == 1
    lines = {line(c.read()) for c in parked}
    equal(len(lines), 1)
    until('the old workers to go', lambda: not any(title(pid) for pid in old))
    client = Client(port, key)
    equal(line(client.read()), lines.pop())
    equal(stat()['loads'] - before['loads'], 1)
    return amid


def ends(number, load):
    if load:
        Client(port, f'/{TIMES[-1]}/{next(keys)}')
        until('a load to run', lambda: stat()['running'] == 1)
    master.send_signal(number)
    equal(master.wait(timeout=lib.PATIENCE), 0)
    with open(f'{folder}/error.log') as log:
        bad = [text for text in log
               if re.search(r'\[(alert|crit|emerg)\]|Sanitizer|runtime error|exited with code', text)]
    equal([text for text in bad if not re.search('exited on signal 9|exited with code 0', text)], [])
    command('reap')
    equal((stat()['flights'], stat()['pins'], stat()['running']), (0, 0, 0))


def without():
    """A cache that can't be had: each request is worked for, and the log says why."""
    starts(SHOAL_CACHE='no such name')
    clients = [Client(port, '/200/without') for _ in range(3)]
    equal(len({line(c.read()) for c in clients}), 3)
    equal(Client(port, '/200/fail').read()[0], 502)
    with open(f'{folder}/error.log') as log:
        equal(len(re.findall(r'no cache, each request does the work: ', log.read())), 1)
    master.send_signal(signal.SIGQUIT)
    equal(master.wait(timeout=lib.PATIENCE), 0)


configuration()
case('nginx starts with it', starts)
case(f'{CROWD} cold requests, four workers, one load', rounds, crowd)
case('a worker is killed amid a load: another takes over', rounds, killed)
case('the client that leads leaves', rounds, leaves, True)
case('a client that waits leaves', rounds, leaves, False)
case('a failure is one for all', failure)
case('an old line is served while one worker makes the next', stale)
case('a reload keeps the cache, and answers who is parked', rounds, reload)
case('it ends in peace', ends, signal.SIGQUIT, False)
case('and again', starts)
case('it ends at once, amid a load', ends, signal.SIGTERM, True)
case('without a cache it works as well', without)
lib.done()
