#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: profile.sh BENCH-INSTRUCTIONS
# The shape of what bench/profile.py says of it: the parts of each operation add up to all of it, and each has the parts
# that it can't be without. Prints TAP.
profile=$(dirname "$0")/../../bench/profile.py
for tool in objdump readelf addr2line python3; do
	command -v $tool >/dev/null || { echo "1..0 # SKIP no $tool here" && exit; }
done
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
"$1" | grep -q '^1\.\.0 # SKIP' && { echo '1..0 # SKIP ptrace is refused' && exit; }
python3 "$profile" "$1" >"$scratch/tables" 2>"$scratch/log" || 
	{ sed 's/^/# /' "$scratch/log" && echo 'not ok 1 - it runs' && echo 1..1 && exit 1; }
echo 'ok 1 - it runs'
python3 - "$scratch/tables" <<'END'
import re, sys
failed, tests = 0, 1


def ok(good, name):
    global failed, tests
    tests += 1
    failed += not good
    print(('ok' if good else 'not ok'), tests, '-', name)


def number(cell):
    return int(re.match(r'\**(\d+)', cell)[1]) if cell else 0


rows, head = {}, []
for line in open(sys.argv[1]):
    print('#', line.rstrip())
    cells = [c.strip() for c in line.strip().strip('|').split('|')]
    if line.startswith('|  |'):
        head = cells[1:]
        rows.update({name: {} for name in head})
    elif line.startswith('| '):
        for name, cell in zip(head, cells[1:]):
            rows[name][cells[0]] = cell
for name in ('bound', 'hit', 'hit-4k', 'bound-set', 'set'):
    parts = {k: number(v) for k, v in rows[name].items()}
    others = [n for k, n in parts.items() if k not in ('all', 'of them locked', "lines that are the thread's own")]
    ok(sum(others) == parts['all'] > 20, f'the parts of {name} are all of it')
    ok(parts['hash'] and parts['copy'], f'{name} has a hash and a copy')
ok(all(rows['hit'].get(part) for part in ('clock', 'protection of the mapping', 'announcement', 'counters', 'key',
                                          'bucket')),
   'a hit has a clock, protection, an announcement, a counter, a key and a bucket')
ok(number(rows['bound']['all']) < number(rows['hit']['all']) < number(rows['set']['all']),
   'a set is more than a hit, and that than the bound')
ok(number(rows['hit']['of them locked']) == 0 and 0 < number(rows['set']['of them locked']) < 9,
   'a hit has no locked instruction, a set a few')
ok('mmap' in rows['system calls']['attach'] and number(rows['page faults']['first-hit']) > 0,
   'an attach maps, a first hit meets new pages')
print(f'1..{tests}')
sys.exit(failed != 0)
END
