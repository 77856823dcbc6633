#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where the instructions and the cache lines of an operation go, part by part, in Markdown.

usage: profile.py BENCH-INSTRUCTIONS                    the program of tests/bench, with debug information
       profile.py BENCH-INSTRUCTIONS --readme README    rewrites what is between the marks in README


It is single-stepped (bench-instructions --trace), so the figures are the same on a busy machine. An instruction belongs
to the innermost function, of those that were inlined there, that PARTS knows; a cache line to the part that touches it
first. Lines are counted in the segment and outside of it: outside they are the thread's own, and hot. Needs binutils.
"""
import collections
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

BEGIN, END = '<!-- bench/instructions.sh --readme writes this -->', '<!-- until here: the profile -->'
REST = 'calls and the rest'
PARTS = (
    ('hash', r'XXH|hash_bytes|hash_mix|store_hash'),
    ('clock', r'clock_|__vdso|__cvdso|do_hres|do_coarse|no_time'),
    ('protection of the mapping',
     r'_?urcu_|handle_enter|handle_leave|move_member|segment_has_moved|registry_here|registry_settle'),
    ('resize', r'rcu_change|handle_change|move_'),
    ('announcement', r'rcu_announce$|rcu_clear|rcu_free_pin|store_pin|store_many'),
    ('counters', r'handle_count|count_lookup|tally_line'),
    ('frequency', r'store_touch|index_touch'),
    ('key', r'index_same|index_is$'),
    ('loads in the way', r'end_loads|flight_|store_supersede'),
    ('space in the log',
     r'room_|log_append|append|choose|move_tail|take_lock|unlock|seal|rest_of|evict_|ghost_|extents_(word|open)'),
    ('entry written', r'store_fill|store_lives|store_end|log_end|store_value_at|store_pack'),
    ('counts of the extents', r'extents_(add|drop)'),
    ('slot exchanged', r'index_commit|index_word|index_place|protect|settle'),
    ('bucket', r'index_(bucket|group|second|match|tag|guess|prefetch|find)|w64_match8|look'),
    ('entry', r'hit_find|hit_age|log_|extent_of|store_find|judge|find_newest'),
    ('copy', r'mem(cpy|move|set)|bound_(read|write)$'),
)
TABLES = (
    ('A hit', ('bound', 'hit', 'miss', 'bound-4k', 'hit-4k', 'hit-in-place-4k')),
    ('A set', ('bound-set', 'set', 'set-new')),
)
CALLS = ('attach', 'first-hit')
REGISTERS = ('r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss '
             'fs_base gs_base ds es fs gs').split()
STEP = struct.Struct(f'<{len(REGISTERS)}Q')
SYSCALLS = {0: 'read', 1: 'write', 2: 'open', 3: 'close', 5: 'fstat', 8: 'lseek', 9: 'mmap', 10: 'mprotect',
            11: 'munmap', 12: 'brk', 13: 'rt_sigaction', 14: 'rt_sigprocmask', 17: 'pread64', 28: 'madvise',
            39: 'getpid', 72: 'fcntl', 77: 'ftruncate', 79: 'getcwd', 89: 'readlink', 102: 'getuid', 107: 'geteuid',
            137: 'statfs', 186: 'gettid', 202: 'futex', 218: 'set_tid_address', 228: 'clock_gettime', 257: 'openat',
            262: 'newfstatat', 267: 'readlinkat', 273: 'set_robust_list', 274: 'get_robust_list', 285: 'fallocate',
            302: 'prlimit64', 318: 'getrandom',
            324: 'membarrier', 332: 'statx', 434: 'pidfd_open'}


def output(*command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


class Program:
    """One file that is mapped: what is at an address of it."""

    def __init__(self, path):
        self.path, self.code, self.frames = path, {}, {}
        self.loads = [tuple(int(f[i], 16) for i in (1, 2, 4))
                      for f in map(str.split, output('readelf', '-lW', path).splitlines())
                      if f[:1] == ['LOAD']]

    def address(self, offset):
        return next((offset - o + v for o, v, size in self.loads if o <= offset < o + size), offset)

    def learn(self, addresses):
        begin, end, function = min(addresses), max(addresses) + 16, ''
        for line in output('objdump', '-d', '--no-show-raw-insn', f'--start-address={begin}',
                           f'--stop-address={end}', self.path).splitlines():
            if m := re.match(r'[0-9a-f]+ <(.*)>:', line):
                function = m[1]
            elif m := re.match(r'\s*([0-9a-f]+):\s+(.*)', line):
                self.code[int(m[1], 16)] = function, re.split(r'[#<]', m[2])[0].strip()
        at = None
        for line in output('addr2line', '-aif', '-e', self.path,
                           text='\n'.join(map(hex, sorted(addresses)))).splitlines():
            if line.startswith('0x'):
                at = self.frames.setdefault(int(line, 16), [])
                name = True
            else:
                if name and line != '??':
                    at.append(line)
                name = not name


def part_of(path, frames):
    if path == '[vdso]':
        return 'clock'
    library = os.path.basename(path).split('.')[0]
    if library == 'liburcu-bp':
        return 'protection of the mapping'
    rest = 'copy' if library == 'libc' else REST  # its string functions, of which not all have a name there
    return next((part for name in frames for part, known in PARTS if re.match(known, name)), rest)


class Trace:
    """The middle one of the samples of an operation."""

    def __init__(self, program, operation):
        with tempfile.NamedTemporaryFile() as file:
            self.told = output(program, '--trace', operation, file.name).splitlines()
            steps = list(STEP.iter_unpack(file.read()))
        begins = [i for i, s in enumerate(steps) if not any(s)] + [len(steps)]
        samples = [steps[a + 1:b] for a, b in zip(begins, begins[1:])]
        middle = sorted(range(len(samples)), key=lambda i: len(samples[i]))[len(samples) // 2]
        self.steps = [dict(zip(REGISTERS, s)) for s in samples[middle]]
        self.faults = int([line for line in self.told if line.startswith('faults')][middle].split()[1])
        self.maps = [(*(int(x, 16) for x in f[0].split('-')), int(f[2], 16), f[5] if len(f) > 5 else '')
                     for f in map(str.split, self.told) if '-' in f[0]]
        self.programs = {}
        self.parts, self.calls = collections.Counter(), collections.Counter()
        self.lines = collections.defaultdict(collections.Counter)
        self.locked = 0
        self.attribute()

    def where(self, address):
        return next(((name, address - begin + offset) for begin, end, offset, name in self.maps
                     if begin <= address < end), ('', address))

    def attribute(self):
        seen, touched = collections.defaultdict(set), {}
        places = []
        for s in self.steps:
            path, offset = self.where(s['rip'])
            if path.startswith('/'):
                if path not in self.programs:
                    self.programs[path] = Program(path)
                offset = self.programs[path].address(offset)
                seen[path].add(offset)
            places.append((path, offset))
        for path, addresses in seen.items():
            self.programs[path].learn(addresses)
        for s, (path, offset) in zip(self.steps, places):
            program = self.programs.get(path)
            function, code = program.code.get(offset, ('', '')) if program else ('', '')
            part = part_of(path, (program and program.frames.get(offset)) or [function])
            self.parts[part] += 1
            self.locked += code.startswith(('lock', 'xchg'))
            if code.startswith('syscall'):
                self.calls[SYSCALLS.get(s['rax'], str(s['rax']))] += 1
            for line in self.operands(s, code):
                if line not in touched:
                    touched[line] = part
                    self.lines[self.is_shared(line)][part] += 1

    def is_shared(self, line):
        name = self.where(line * 64)[0]
        return 'memfd:' in name or name.startswith('/dev/shm') or name.startswith('/dev/zero')

    @staticmethod
    def operands(s, code):
        """Lines that an instruction reads or writes through its operand; string instructions and the stack's by push,
        pop and call are left out: those are few and hot."""
        m = re.search(r'(%fs:)?(-?0x[0-9a-f]+)?(?:\((%\w+)?(?:,(%\w+))?(?:,(\d))?\))', code)
        if not m or code.startswith(('lea', 'nop', 'cs nop', 'data16')):
            return
        address = int(m[2] or '0', 16) + (s['fs_base'] if m[1] else 0)
        address += s.get((m[3] or '%')[1:], 0) + s.get((m[4] or '%')[1:], 0) * int(m[5] or 1)
        size = 64 if '%zmm' in code else 32 if '%ymm' in code else 16 if '%xmm' in code else 8
        address &= 2 ** 64 - 1
        yield from range(address // 64, (address + size - 1 if size > 8 else address) // 64 + 1)


def table(head, rows):
    yield '| ' + ' | '.join(head) + ' |'
    yield '|' + '---|' * len(head)
    for row in rows:
        yield '| ' + ' | '.join(map(str, row)) + ' |'
    yield ''


def side_by_side(title, traces):
    known = [part for part, _ in PARTS] + [REST]
    used = [part for part in known if any(t.parts[part] for t in traces.values())]

    def cell(t, part):
        lines = t.lines[True][part]
        return (f'{t.parts[part]}' + (f' ({lines})' if lines else '')) if t.parts[part] else ''
    yield f'{title}: instructions, and in brackets the lines of shared memory that this part is the first to touch.'
    yield ''
    yield from table([''] + list(traces), [[part] + [cell(t, part) for t in traces.values()] for part in used] +
          [['all'] + [f'**{len(t.steps)}** ({sum(t.lines[True].values())})' for t in traces.values()],
           ['of them locked'] + [t.locked for t in traces.values()],
           ['lines that are the thread\'s own'] + [sum(t.lines[False].values()) for t in traces.values()]])


def everything(program):
    for title, operations in TABLES:
        yield from side_by_side(title, {o: Trace(program, o) for o in operations})
    traces = {o: Trace(program, o) for o in CALLS}
    yield 'The first calls of a process that was just forked:'
    yield ''
    yield from table(['', 'instructions', 'page faults', 'system calls'],
          [[o, len(t.steps), t.faults, ', '.join(f'{n} {name}' for name, n in t.calls.most_common())]
           for o, t in traces.items()])


def main(program, *options):
    text = '\n'.join(everything(program))
    if not options:
        print(text)
        return
    readme = pathlib.Path(options[1])
    before, mark, rest = readme.read_text().partition(BEGIN + '\n')
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f'{readme}: no lines "{BEGIN}" and "{END}"')
    readme.write_text(before + mark + text + end + after)


if __name__ == '__main__':
    if len(sys.argv) not in (2, 4) or sys.argv[2:3] not in ([], ['--readme']):
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
