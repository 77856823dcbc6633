# SPDX-License-Identifier: MIT
"""The example for gunicorn, in real workers, with a backend that holds its answers until the test lets them go."""
import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

import shoal
from crew import PATIENCE_S, until

WORKERS = 4


class Backend(http.server.ThreadingHTTPServer):
    """Who asked for what; a user is held while its number is in `held`"""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Answer)
        self.asked, self.held, self.changed = [], set(), threading.Condition()
        self.url = f'http://127.0.0.1:{self.server_port}'
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()

    def askers(self, number):
        return [pid for n, pid in self.asked if n == number]

    def release(self, number):
        with self.changed:
            self.held.discard(number)
            self.changed.notify_all()

    def handle_error(self, request, client_address):
        pass  # a worker that was killed


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        backend, number = self.server, int(self.path.rsplit('/', 1)[1])
        pid = int(self.headers['User-Agent'].rsplit('/', 1)[1])
        with backend.changed:
            backend.asked.append((number, pid))
            backend.changed.wait_for(lambda: number not in backend.held, PATIENCE_S)
        body = json.dumps({'user': number, 'loaded_by': pid}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost')
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self.path)


@unittest.skipUnless(importlib.util.find_spec('gunicorn'), 'gunicorn is not installed')
class Gunicorn(unittest.TestCase):
    def setUp(self):
        self.backend = Backend()
        self.addCleanup(self.backend.server_close)
        self.addCleanup(self.backend.shutdown)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.socket = scratch.name + '/socket'
        self.log = scratch.name + '/log'

    def serve(self, *options, **env):
        with open(self.log, 'w', encoding='utf-8') as log:
            self.master = subprocess.Popen(
                [sys.executable, '-m', 'gunicorn', *options, '--workers', str(WORKERS),
                 '--timeout', str(PATIENCE_S * 2), '--bind',
                 'unix:' + self.socket, '--chdir', os.environ['SHOAL_EXAMPLES'], 'gunicorn_app:app'],
                env=dict(os.environ, BACKEND=self.backend.url, no_proxy='*', **env), stdout=log, stderr=log)
        self.addCleanup(self.end)
        until(lambda: self.master.poll() is not None or len(self.workers()) == WORKERS and self.answers(), 'a server')
        if self.master.poll() is not None:
            with open(self.log, encoding='utf-8') as log:
                self.fail(log.read())

    def end(self):
        self.master.terminate()
        try:
            self.master.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.master.kill()
            self.master.wait()

    def answers(self):
        with contextlib.suppress(OSError):  # not there yet
            return self.ask(0)[1]

    def workers(self):
        with open(f'/proc/{self.master.pid}/task/{self.master.pid}/children', encoding='ascii') as children:
            return set(map(int, children.read().split()))

    def ask(self, number):
        """-> the worker, what it said; the worker may be killed: None, None"""
        connection = Connection(self.socket)
        try:
            connection.request('GET', f'/{number}')
            response = connection.getresponse()
            return int(response.headers['X-Worker']), json.load(response)
        except (ConnectionError, http.client.HTTPException):
            return None, None
        finally:
            connection.close()

    def crowd(self, number, n):
        said = []
        threads = [threading.Thread(target=lambda: said.append(self.ask(number))) for _ in range(n)]
        for thread in threads:
            thread.start()
        return threads, said

    def test_one_load_for_all_workers(self):
        self.serve('--preload')
        self.backend.held.add(7)
        threads, said = self.crowd(7, 32)
        until(lambda: self.backend.askers(7), 'a load')
        self.backend.release(7)
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual(len(self.backend.askers(7)), 1)
        self.assertEqual([body for _, body in said], [{'user': 7, 'loaded_by': self.backend.askers(7)[0]}] * 32)

        # New workers, of the same master: what the others have loaded is theirs.
        before = self.workers()
        self.master.send_signal(signal.SIGHUP)
        until(lambda: len(self.workers()) == WORKERS and not self.workers() & before, 'new workers')
        worker, body = self.ask(7)
        self.assertNotIn(worker, before)
        self.assertEqual(body['loaded_by'], self.backend.askers(7)[0])
        self.assertEqual(len(self.backend.askers(7)), 1)

    def by_name(self, *options):
        """Workers that share a cache by its name, which the test attaches to"""
        name = f'test-python-{os.getpid()}'
        cache = shoal.open(name, size=8 << 20)
        self.addCleanup(cache.close)
        self.addCleanup(shoal.unlink, name)
        self.serve(*options, SHOAL_CACHE=name)
        return cache

    def test_a_worker_is_killed_amid_a_load(self):
        cache = self.by_name('--preload')
        self.backend.held.add(8)
        begun = cache.stats()['total']
        threads, said = self.crowd(8, WORKERS)
        until(lambda: cache.stats()['total']['misses'] == begun['misses'] + WORKERS, 'all workers are waiting')
        until(lambda: self.backend.askers(8), 'a load')
        killed = self.backend.askers(8)[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(self.backend.askers(8)) == 2, 'an heir')
        self.backend.release(8)
        for thread in threads:
            thread.join(PATIENCE_S)
        heir = self.backend.askers(8)[1]
        self.assertNotEqual(heir, killed)
        self.assertEqual(sorted(map(str, (body for _, body in said))),
                         sorted(['None'] + [str({'user': 8, 'loaded_by': heir})] * (WORKERS - 1)))
        total = cache.stats()['total']
        self.assertEqual((total['takeovers'], total['loads'] - begun['loads']), (1, 2))
        self.assertEqual(self.ask(8)[1]['loaded_by'], heir)
        self.assertEqual(len(self.backend.askers(8)), 2)

    def test_by_name_without_preload(self):
        cache = self.by_name()
        threads, said = self.crowd(9, 32)
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual(len(self.backend.askers(9)), 1)
        self.assertEqual({body['loaded_by'] for _, body in said}, set(self.backend.askers(9)))
        self.assertEqual(cache.keyspace('gunicorn_app.user').stats()['loads'], 2)  # and the first one, of user 0
