#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: prefork.py SHOAL PREFORK        prints TAP

Four workers. Each serves one client at a time, so four are with them and the others wait to be accepted.
"""
import os
import signal
import sys

import lib
from lib import Origin, case, crowd, equal, get, leader, stat, start, stop, until

WORKERS = 4
lib.shoal = sys.argv[1]
origin = Origin()
server = start(sys.argv[2], str(origin.port), str(WORKERS))


def body(path, n):
    return (f'{path} {n}|'.encode() * 64)[:64]


def workers_wait(before):
    """All workers are at the key: one leads, the others have missed and wait."""
    until('the workers to come', lambda: stat()['misses'] >= before + WORKERS)


def one_load():
    before = stat()['misses']
    clients = crowd([server.port], 64, '/cold?gate=cold')
    workers_wait(before)
    origin('open?cold')
    for c in clients:
        equal(c.read(), (200, body('/cold', 1)))
    equal(origin.count('/cold'), 1)
    now = stat()
    equal((now['loads'], now['coalesced']), (1, WORKERS - 1))


def keys_apart():
    """A load under way holds up nobody who asks for something else."""
    slow = crowd([server.port], 1, '/slow?gate=slow')
    origin('await?slow&1')
    equal(get(server.port, '/quick'), (200, body('/quick', 1)))
    origin('open?slow')
    equal(slow[0].read(), (200, body('/slow', 1)))


def killed():
    before = stat()
    clients = crowd([server.port], 64, '/killed?gate=killed')
    workers_wait(before['misses'])
    os.kill(leader(), signal.SIGKILL)
    origin('await?killed&2')  # another has asked in its place
    origin('open?killed')
    answers = [c.read() for c in clients]
    equal(sorted(answers)[:2], [(0, b''), (200, body('/killed', 2))])  # one client has lost its worker
    equal(answers.count((200, body('/killed', 2))), 63)
    equal(origin.count('/killed'), 2)
    equal(stat()['takeovers'], before['takeovers'] + 1)


def replaced():
    before = stat()['misses']
    clients = crowd([server.port], WORKERS, '/four?gate=four')
    workers_wait(before)
    origin('open?four')
    equal([c.read()[0] for c in clients], [200] * WORKERS)


def failure():
    before = stat()['misses']
    clients = crowd([server.port], WORKERS, '/broken?status=504&gate=broken')
    workers_wait(before)
    origin('open?broken')
    equal([c.read()[0] for c in clients], [504] * WORKERS)
    equal(origin.count('/broken'), 1)


def ends():
    stop(server)
    again = start(sys.argv[2], str(origin.port), str(WORKERS))
    equal(get(again.port, '/cold?gate=cold'), (200, body('/cold', 1)))
    equal(origin.count('/cold'), 1)
    stop(again)


case('64 clients, four workers, one load', one_load)
case('a slow page holds up no other', keys_apart)
case('a worker is killed amid a load: one asks in its place, and one client notices', killed)
case('the killed worker has a successor', replaced)
case("an origin's failure is asked for once, and told to all", failure)
case('it ends as it is told to, and another finds the cache warm', ends)
lib.done()
