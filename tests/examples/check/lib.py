# SPDX-License-Identifier: MIT
"""What the checks of the examples share: TAP, a cache of one's own, an origin that counts,
clients that are all there at once.

Nothing is waited for by time: until() asks until it is so, and gives up after PATIENCE seconds,
which only a fault takes.
"""
import atexit
import ctypes
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

PATIENCE = 120
HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = f'example-{os.getpid()}'

os.environ['SHOAL_CACHE'] = CACHE
shoal = None      # path of the command
processes = []    # started and not yet ended
cases = 0
failures = 0


def clean():
    for p in processes:
        if p.poll() is None:
            p.terminate()  # and not at once by force: a master sees to its workers
            try:
                p.wait(timeout=10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
    for path in glob.glob(f'/dev/shm/shoal.{CACHE}*.v*'):
        os.unlink(path)


atexit.register(clean)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def case(name, function, *args):
    global cases, failures
    cases += 1
    try:
        function(*args)
        print(f'ok {cases} - {name}', flush=True)
    except Exception:  # also those of a server that is not there any more
        failures += 1
        print(f'not ok {cases} - {name}')
        for line in traceback.format_exc().splitlines():
            print('#', line)
        sys.stdout.flush()


def skip(name, why):
    global cases
    cases += 1
    print(f'ok {cases} - {name} # SKIP {why}')


def done():
    print(f'1..{cases}')
    sys.exit(failures > 0)


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f'wanted {wanted!r}, got {got!r}')


def until(what, so):
    """-> what `so` returns, once that is true"""
    began = time.monotonic()
    while True:
        result = so()
        if result:
            return result
        if time.monotonic() - began > PATIENCE:
            raise AssertionError(f'in vain: {what}')
        time.sleep(0.005)


# ---- the cache, from outside -----------------------------------------------------------------------------------------

def command(*args):
    return subprocess.run([shoal, *args], stdout=subprocess.PIPE, check=True, timeout=PATIENCE).stdout.decode()


def stat():
    return json.loads(command('stat', '--json').splitlines()[0])


def keyspace_stat(name):
    for line in command('stat', '--json').splitlines()[1:]:
        row = json.loads(line)
        if f'{row["keyspace"]}@{row["version"]}' == name:
            return row
    return None


def leader():
    """-> the process that loads, of the only load that runs"""
    rows = [line.split() for line in command('top', '--once', '--plain', '--view', 'flights',
                                             '--every', '10ms').splitlines()]
    heads = [r for r in rows if 'LEADER' in r]
    for r in rows:
        if heads and 'loading' in r:
            return int(r[heads[0].index('LEADER')])
    return None


# ---- servers ---------------------------------------------------------------------------------------------------------

libc = ctypes.CDLL(None)


def end_with_parent():
    libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: also if the check is killed


def begin(*command, **options):
    p = subprocess.Popen(command, stdin=subprocess.PIPE, preexec_fn=end_with_parent, **options)
    processes.append(p)
    return p


def start(*command):
    """-> a server of which the first line of output has been read, as p.said"""
    p = begin(*command, stdout=subprocess.PIPE)
    p.said = p.stdout.readline().decode().strip()
    if not p.said:
        raise AssertionError(f'{command[0]} has said nothing')
    p.port = int(p.said.rsplit(':', 1)[-1])
    return p


def kill(p):
    p.kill()
    p.wait()
    processes.remove(p)


def stop(p):
    """As it is told to, and without a complaint."""
    p.terminate()
    equal(p.wait(timeout=PATIENCE), 0)
    processes.remove(p)


class Origin:
    """tests/nginx/origin.py: it counts, and holds back what it is told to."""

    def __init__(self):
        self.process = start(sys.executable, os.path.join(HERE, '../../nginx/origin.py'))
        self.port = self.process.port

    def __call__(self, word):
        return get(self.port, f'/:{word}')[1].decode()

    def count(self, path):
        return int(self(f'count?{path}'))


# ---- clients ---------------------------------------------------------------------------------------------------------

class Client:
    """One connection; it is closed after the first answer, unless it is kept."""

    def __init__(self, port, target=None, keep=False):
        self.keep = keep
        self.socket = socket.create_connection(('127.0.0.1', port), PATIENCE)
        if target:
            self.ask(target)

    def ask(self, target):
        self.socket.sendall(f'GET {target} HTTP/1.1\r\nHost: shop\r\n\r\n'.encode())

    def read(self):
        """-> status, body; 0: the connection has ended before the response"""
        data = b''
        try:
            while True:
                head, found, body = data.partition(b'\r\n\r\n')
                if found:
                    length = int(head.lower().split(b'content-length:')[1].split(b'\r\n')[0])
                    if len(body) >= length:
                        return int(head.split()[1]), body[:length]
                more = self.socket.recv(65536)
                if not more:
                    return 0, data
                data += more
        except ConnectionError:
            return 0, data
        finally:
            if not self.keep:
                self.close()

    def close(self):
        self.socket.close()


def get(port, target):
    return Client(port, target).read()


def crowd(ports, n, target):
    return [Client(ports[i % len(ports)], target) for i in range(n)]


def folder():
    f = tempfile.TemporaryDirectory()
    atexit.register(f.cleanup)
    return f.name
