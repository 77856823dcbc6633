#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: loops.py SHOAL SERVER SERVER        prints TAP

Two servers, each of them one process with an event loop, the same or different ones, that share a cache.
"""
import sys

import lib
from lib import Client, Origin, case, command, crowd, equal, get, kill, leader, stat, start, until

lib.shoal = sys.argv[1]
origin = Origin()
servers = [start(program, str(origin.port)) for program in sys.argv[2:4]]
ports = [s.port for s in servers]
CROWD = 64


def body(path, n):
    return (f'{path} {n}|'.encode() * 64)[:64]


def all_ask(n, target):
    """All of them have missed: one leads, the others wait."""
    before = stat()['misses']
    clients = crowd(ports, n, target)
    until('all to miss', lambda: stat()['misses'] >= before + n)
    return clients


def one_load():
    before = stat()
    clients = all_ask(CROWD, '/cold?gate=cold')
    for port in ports:  # neither of the loops sleeps
        equal(get(port, f'/quick{port}'), (200, body(f'/quick{port}', 1)))
    origin('open?cold')
    for c in clients:
        equal(c.read(), (200, body('/cold', 1)))
    equal(origin.count('/cold'), 1)
    equal(stat()['coalesced'], before['coalesced'] + CROWD - 1)


def stale():
    """The old page at once, while the new one is on its way: for both, and for one load."""
    origin('open?old')
    equal(get(ports[0], '/old?gate=old'), (200, body('/old', 1)))
    origin('shut?old')
    command('expire', '--keyspace', 'page@1', '/old?gate=old')
    for i in range(8):
        equal(get(ports[i % 2], '/old?gate=old'), (200, body('/old', 1)))
    origin('await?old&2')
    equal(origin.count('/old'), 2)
    origin('open?old')
    for port in ports:
        until('the new page', lambda: get(port, '/old?gate=old') == (200, body('/old', 2)))
    equal(origin.count('/old'), 2)


def leader_leaves():
    """The client that caused the load goes; the load goes on, for the others."""
    first = Client(ports[0], '/left?gate=left')
    origin('await?left&1')
    others = all_ask(8, '/left?gate=left')
    first.close()
    equal(get(ports[0], '/after'), (200, body('/after', 1)))  # the loop has seen it go
    origin('open?left')
    for c in others:
        equal(c.read(), (200, body('/left', 1)))
    equal(origin.count('/left'), 1)


def waiter_leaves():
    first = Client(ports[0], '/bored?gate=bored')
    origin('await?bored&1')
    others = all_ask(8, '/bored?gate=bored')
    for c in others[:4]:
        c.close()
    for port in ports:
        get(port, '/after')
    origin('open?bored')
    for c in [first] + others[4:]:
        equal(c.read(), (200, body('/bored', 1)))
    until('nothing to be held', lambda: stat()['flights'] == 0 and stat()['pins'] == 0)


def failure():
    clients = all_ask(16, '/broken?status=504&gate=broken')
    origin('open?broken')
    equal([c.read()[0] for c in clients], [504] * 16)
    equal(origin.count('/broken'), 1)
    origin('down')
    equal([get(port, '/down')[0] for port in ports], [502, 502])
    origin('up')


def killed():
    """Its own clients lose their connections, the others wait on and get what one of them has asked for anew."""
    first = Client(ports[0], '/killed?gate=killed')
    origin('await?killed&1')
    all_there = all_ask(16, '/killed?gate=killed')
    equal(leader(), servers[0].pid)
    kill(servers[0])
    origin('await?killed&2')
    origin('open?killed')
    equal(first.read()[0], 0)
    for i, c in enumerate(all_there):
        equal(c.read(), (200, body('/killed', 2)) if i % 2 else (0, b''))
    equal(origin.count('/killed'), 2)


case(f'{CROWD} clients of two loops, one load, and neither sleeps', one_load)
case('an old page is served at once, and asked for once', stale)
case('the client that leads leaves', leader_leaves)
case('clients that wait leave', waiter_leaves)
case("an origin's failure is asked for once, and told to all", failure)
case('a server is killed amid a load: the other takes over', killed)
lib.done()
