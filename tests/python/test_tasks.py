# SPDX-License-Identifier: MIT
"""Tasks of asyncio: one load among them, other threads and other processes, while their loops go on."""
import asyncio
import errno
import os
import signal
import threading

import shoal
from crew import PATIENCE_S, Case, Gate
from shoal import _tasks

N = 16


class Tasks(Case):
    def setUp(self):
        super().setUp()
        self.k = self.cache.keyspace('tasks', wait=PATIENCE_S * 10, lease=PATIENCE_S * 10, early=0)

    def run_all(self, main):
        async def bounded():
            return await asyncio.wait_for(main(), PATIENCE_S)

        got = asyncio.run(bounded())
        self.assertEqual((_tasks._waiting, _tasks._watching), ({}, {}))
        return got

    async def until_counted(self, counter, n):
        while self.total(counter) < n:
            await asyncio.sleep(0.001)

    def never(self):
        raise AssertionError('loaded')

    def test_one_load_for_all(self):
        loads = []

        async def loader():
            loads.append(1)
            await self.until_counted('misses', N)  # so the loop goes on while they wait
            return 'value'

        async def main():
            return await asyncio.gather(*(self.k.fetch_async('k', loader) for _ in range(N)))

        self.assertEqual(self.run_all(main), ['value'] * N)
        self.assertEqual((loads, self.k.stats()['coalesced'], self.k.stats()['timeouts']), ([1], N - 1, 0))
        self.assertEqual(self.k.fetch('k', self.never), 'value')

    def test_another_process_loads(self):
        gate, leads = Gate(), Gate()

        def held():
            leads.open()
            gate.wait()
            return 'theirs'

        child = self.spawn(lambda: self.k.fetch('k', held) != 'theirs')
        leads.wait()

        async def main():
            tasks = [asyncio.ensure_future(self.k.fetch_async('k', self.never)) for _ in range(N)]
            await self.until_counted('misses', N + 1)
            gate.open()
            return await asyncio.gather(*tasks)

        self.assertEqual(self.run_all(main), ['theirs'] * N)
        self.assertEqual(self.ended(child), 0)

    def test_a_killed_leader_has_one_heir(self):
        gate, leads, loads = Gate(), Gate(), []
        child = self.spawn(lambda: self.k.fetch('k', lambda: leads.open() or gate.wait()))
        leads.wait()

        async def heir():
            loads.append(1)
            return 'heir'

        async def main():
            tasks = [asyncio.ensure_future(self.k.fetch_async('k', heir)) for _ in range(N)]
            await self.until_counted('misses', N + 1)
            os.kill(child, signal.SIGKILL)
            return await asyncio.gather(*tasks)

        self.assertEqual(self.run_all(main), ['heir'] * N)
        self.assertEqual((loads, self.k.stats()['takeovers']), ([1], 1))

    def test_a_failure(self):
        async def loader():
            await self.until_counted('misses', N)
            raise PermissionError(errno.EACCES, 'not me')

        async def main():
            return await asyncio.gather(*(self.k.fetch_async('k', loader) for _ in range(N)), return_exceptions=True)

        got = self.run_all(main)
        self.assertEqual(sorted(type(e).__name__ for e in got), ['LoadError'] * (N - 1) + ['PermissionError'])
        self.assertEqual({e.errno for e in got}, {errno.EACCES})

    def test_an_old_value_in_place_of_a_failure(self):
        k = self.cache.keyspace('stale', stale=PATIENCE_S, early=0)
        k.set('k', 'old')
        k.expire('k')

        async def loader():
            raise ValueError

        with self.assertLogs('shoal'):
            self.assertEqual(self.run_all(lambda: k.fetch_async('k', loader)), 'old')

    def test_cancelled(self):
        async def main():
            begun = asyncio.Event()

            async def loader():
                begun.set()
                await asyncio.Event().wait()

            async def heir():
                return 'heir'

            leader = asyncio.ensure_future(self.k.fetch_async('k', loader))
            await begun.wait()
            waiters = [asyncio.ensure_future(self.k.fetch_async('k', heir)) for _ in range(3)]
            await self.until_counted('misses', 4)
            waiters[0].cancel()
            await asyncio.wait(waiters[:1])
            leader.cancel()
            return await asyncio.gather(leader, *waiters, return_exceptions=True)

        got = self.run_all(main)
        self.assertEqual([type(e) for e in got[:2]], [asyncio.CancelledError] * 2)
        self.assertEqual(got[2:], ['heir'] * 2)
        self.assertEqual((self.k.stats()['takeovers_gave_up'], self.cache.stats()['flights']), (1, 0))

    def test_its_own_key(self):
        async def main():
            async def loader():
                return await self.k.fetch_async('k', self.never)

            with self.assertRaises(shoal.Deadlock):
                await self.k.fetch_async('k', loader)

        self.run_all(main)

    def test_it_times_out(self):
        k = self.cache.keyspace('impatient', wait=0.02)

        async def main():
            over = asyncio.Event()

            async def loader():
                await over.wait()
                return 1

            leader = asyncio.ensure_future(k.fetch_async('k', loader))
            while not k.stats()['misses']:
                await asyncio.sleep(0)
            with self.assertRaises(shoal.Timeout):
                await k.fetch_async('k', self.never)
            over.set()
            return await leader

        self.assertEqual(self.run_all(main), 1)
        self.assertEqual(k.stats()['timeouts'], 1)

    def test_loops_in_several_threads(self):
        loads, got = [], []

        async def loader():
            loads.append(1)
            await self.until_counted('misses', 4 * N)
            return 'value'

        async def main():
            got.extend(await asyncio.gather(*(self.k.fetch_async('k', loader) for _ in range(N))))

        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual((loads, got), ([1], ['value'] * 4 * N))

    def test_decorated(self):
        calls = []

        @self.cache.cached(keyspace='f')
        async def f(a, b=2):
            calls.append((a, b))
            return a + b

        async def main():
            return await f(1), await f(1, b=2), await f(2)

        self.assertEqual(self.run_all(main), (3, 3, 4))
        self.assertEqual(calls, [(1, 2), (2, 2)])
        self.assertTrue(f.delete(1))
