#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Count test cases.

usage: report.py NAME TESTLOG.json           what `meson test` wrote
       report.py NAME OUTPUT EXIT-STATUS     what one program printed

Prints the details of what failed on stderr, and "PASSED FAILED SKIPPED" on stdout. A program that prints TAP counts by
its cases, plus one failure if it ended badly without naming any; another one counts as one case.
"""
import json
import re
import sys

TAIL = 60


def count(result, out, status):
    """-> passed, failed, skipped of one test program; result: ok, skip or anything else"""
    failed = len(re.findall(r'^not ok\b(?!.*# (?:TODO|SKIP))', out, re.M | re.I))
    skipped = len(re.findall(r'^(?:not )?ok\b.*# SKIP', out, re.M | re.I))
    passed = len(re.findall(r'^(?:not )?ok\b', out, re.M)) - failed - skipped
    if result == 'fail' and status == 0 and skipped and not failed:
        result = 'ok'  # cmocka 1.1.5 says "not ok # SKIP", which meson takes for a failure
    if result == 'skip' and status == 0 and not re.search(r'^1\.\.0', out, re.M):
        return 0, 1, 0  # meson takes silence for a skip; it left before it said anything
    if result == 'skip':
        return 0, 0, max(skipped, 1)
    if result == 'ok':
        return (passed, 0, skipped) if passed + skipped and not failed else (1, 0, 0)
    return passed, max(failed, 1), skipped


def show(build, name, result, out, err):
    print(f'\n--- {build}: {name}: {result}', file=sys.stderr)
    lines = [line for line in out.splitlines() if not re.match(r'ok\b|1\.\.\d', line)]
    for line in lines[-TAIL:] + err.splitlines()[-TAIL:]:
        print('    ' + line, file=sys.stderr)


def main(build, path, status=None):
    total = [0, 0, 0]
    tests = []
    text = open(path, errors='replace').read()
    if status is not None:
        result = {'0': 'ok', '77': 'skip'}.get(status, f'exit status {status}')
        tests.append((build, result, text, '', status))
    else:
        for line in text.splitlines():
            t = json.loads(line)
            result = {'OK': 'ok', 'EXPECTEDFAIL': 'ok', 'SKIP': 'skip'}.get(t['result'], t['result'].lower())
            tests.append((t['name'], result, t.get('stdout', ''), t.get('stderr', ''), t.get('returncode')))
    for name, result, out, err, exited in tests:
        counts = count(result, out, exited)
        if counts[1]:
            show(build, name, result, out, err)
        total = [a + b for a, b in zip(total, counts)]
    print(*total)


main(*sys.argv[1:])
