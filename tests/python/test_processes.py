# SPDX-License-Identifier: MIT
"""Several processes: one load among them, whoever dies, is interrupted or forks."""
import errno
import os
import signal
import threading

import shoal
from crew import PATIENCE_S, Case, Gate, until

N = 16


class Processes(Case):
    def setUp(self):
        super().setUp()
        self.k = self.cache.keyspace('processes', wait=PATIENCE_S * 10, lease=PATIENCE_S * 10, early=0)

    def flights(self):
        return self.cache.stats()['flights']

    def held(self, gate, value='value', leads=None):
        """A loader that says when it runs, and ends when the gate is opened"""

        def loader():
            if leads:
                leads.open()
            gate.wait()
            return value

        return loader

    def test_one_load_for_all(self):
        def loader():
            self.until_counted('misses', N)
            return os.getpid()

        out, into = os.pipe()
        children = [self.spawn(lambda: os.write(into, b'%d\n' % self.k.fetch('k', loader)) and 0) for _ in range(N)]
        self.assertEqual([self.ended(pid) for pid in children], [0] * N)
        os.close(into)
        with os.fdopen(out) as lines:
            said = lines.read().split()
        self.assertEqual((len(said), len(set(said))), (N, 1))
        self.assertIn(int(said[0]), children)
        stats = self.k.stats()
        self.assertEqual((stats['loads'], stats['coalesced'], stats['timeouts']), (1, N - 1, 0))

    def test_a_failure_is_told_to_all(self):
        def loader():
            self.until_counted('misses', N)
            raise PermissionError(errno.EACCES, 'not me')

        def work():
            try:
                self.k.fetch('k', loader)
            except PermissionError:
                return 1
            except shoal.LoadError as error:
                return 2 if error.errno == errno.EACCES else 3

        ends = sorted(self.ended(pid) for pid in [self.spawn(work) for _ in range(N)])
        self.assertEqual(ends, [1] + [2] * (N - 1))
        self.assertEqual(self.k.stats()['loads'], 1)

    def test_the_old_one_is_served_while_one_refreshes(self):
        k, gate, leads = self.cache.keyspace('stale', stale=PATIENCE_S * 10, lease=PATIENCE_S * 10), Gate(), Gate()
        k.set('k', 'old')
        k.expire('k')
        child = self.spawn(lambda: k.fetch('k', self.held(gate, 'new', leads)) != 'new')
        leads.wait()
        for _ in range(10):
            self.assertEqual(k.fetch('k', self.fail), 'old')
        gate.open()
        self.assertEqual(self.ended(child), 0)
        self.assertEqual(k.fetch('k', self.fail), 'new')
        self.assertEqual(k.stats()['loads'], 1)

    def test_a_killed_leader_has_one_heir(self):
        gate, leads = Gate(), Gate()
        leader = self.spawn(lambda: self.k.fetch('k', self.held(gate, leads=leads)))
        leads.wait()
        waiters = [self.spawn(lambda: self.k.fetch('k', lambda: 'heir') != 'heir') for _ in range(4)]
        self.until_counted('misses', 5)
        os.kill(leader, signal.SIGKILL)
        self.assertEqual([self.ended(pid) for pid in waiters], [0] * 4)
        stats = self.k.stats()
        self.assertEqual((stats['loads'], stats['takeovers'], stats['takeovers_gave_up']), (2, 1, 0))

    def interrupted(self, work):
        """-> what a child does that is to be told KeyboardInterrupt, and goes on without leaving anything"""

        def run():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                work()
            except KeyboardInterrupt:
                return 7

        return run

    @staticmethod
    def sleeps(pid):
        """It has asked: the wait is all that it sleeps in"""
        with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] == 'S'

    def test_interrupted_while_it_waits(self):
        gate, leads = Gate(), Gate()
        leader = self.spawn(lambda: self.k.fetch('k', self.held(gate, leads=leads)) != 'value')
        leads.wait()
        waiter = self.spawn(self.interrupted(lambda: self.k.fetch('k', lambda: 1)))
        self.until_counted('misses', 2)
        until(lambda: self.sleeps(waiter), 'a wait')
        os.kill(waiter, signal.SIGINT)
        self.assertEqual(self.ended(waiter), 7)
        gate.open()
        self.assertEqual(self.ended(leader), 0)
        self.assertEqual((self.k.stats()['loads'], self.k.stats()['timeouts'], self.flights()), (1, 1, 0))

    def test_interrupted_while_it_loads(self):
        gate, leads, over = Gate(), Gate(), Gate()
        gives_up = self.interrupted(lambda: self.k.fetch('k', self.held(gate, leads=leads)))
        leader = self.spawn(lambda: gives_up() != 7 or over.wait())  # and lives on
        leads.wait()
        waiter = self.spawn(lambda: self.k.fetch('k', lambda: 'heir') != 'heir')
        self.until_counted('misses', 2)
        os.kill(leader, signal.SIGINT)
        self.assertEqual(self.ended(waiter), 0)
        stats = self.k.stats()
        self.assertEqual((stats['loads'], stats['takeovers_gave_up'], self.flights()), (2, 1, 0))
        over.open()
        self.assertEqual(self.ended(leader), 0)

    def test_interrupted_anywhere(self):
        """A storm of signals that raise: after each of them no load is held, and no pin."""

        class Stop(BaseException):
            pass

        def storm():
            def handler(*_):
                if armed:
                    armed.clear()
                    raise Stop

            armed, stops = [], 0
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for n in range(1_000_000):
                try:
                    armed.append(1)
                    self.k.fetch(str(n % 7), lambda: n)
                    self.k.delete(str(n % 7))
                    armed.clear()
                except Stop:
                    stops += 1
                    if stops == 300:
                        break
            signal.setitimer(signal.ITIMER_REAL, 0)
            stats = self.cache.stats()
            print('# stopped', stops, 'times in', n, 'loads; flights', stats['flights'], 'pins', stats['pins'])
            return stops < 300 or stats['flights'] or stats['pins']

        self.assertEqual(self.ended(self.spawn(storm)), 0)

    def test_a_pin_is_the_parents(self):
        k = self.cache.keyspace('bytes', serializer='bytes')
        k.set('k', b'value')
        pins = lambda: self.cache.stats()['pins']
        with k.pin('k') as view:
            def child():
                assert view == b'value'
                view.release()
                with k.pin('k') as own:
                    assert own == b'value' and pins() == 2, pins()
                assert pins() == 1

            self.assertEqual(self.ended(self.spawn(child)), 0)
            self.assertEqual((view, pins()), (b'value', 1))
        self.assertEqual(pins(), 0)

    def test_a_loader_forks(self):
        children = []

        def loader():
            pid = os.fork()
            if pid:
                children.append(pid)
                return 'parent'
            return 'child'

        def work():
            got = self.k.fetch('k', loader)
            if not children:
                os._exit(0 if got == 'child' else 5)
            return got != 'parent' or self.ended_here(children[0])

        self.assertEqual(self.ended(self.spawn(work)), 0)
        self.assertEqual(self.k.fetch('k', self.fail), 'parent')
        self.assertEqual(self.flights(), 0)

    @staticmethod
    def ended_here(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_forked_beside_threads_that_wait(self):
        gate, leads = Gate(), Gate()
        got = []
        threads = [threading.Thread(target=lambda: got.append(self.k.fetch('k', self.held(gate, leads=leads))))
                   for _ in range(3)]
        for thread in threads:
            thread.start()
        leads.wait()
        child = self.spawn(lambda: self.k.fetch('other', lambda: 1) != 1 or self.k.fetch('k', lambda: 1) != 'value')
        self.until_counted('misses', 5)
        gate.open()
        self.assertEqual(self.ended(child), 0)
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual(got, ['value'] * 3)

    def test_no_place_for_this_process(self):
        with shoal.open(size=8 << 20, max_processes=1) as cache:
            k = cache.keyspace('full')
            k.set('k', 'kept')
            self.assertEqual(self.ended(self.spawn(lambda: k.fetch('k', lambda: 'own') != 'own')), 0)
            self.assertEqual(k.fetch('k', self.fail), 'kept')

    def test_reap(self):
        child = self.spawn(lambda: self.k.get('k') or os.kill(os.getpid(), signal.SIGKILL))
        self.assertEqual(self.ended(child), -signal.SIGKILL)
        self.assertEqual(self.cache.reap(), 1)
