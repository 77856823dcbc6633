#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Count test cases.

usage: report.py [--skips FILE] NAME TESTLOG.json           what `meson test` wrote
       report.py [--skips FILE] NAME OUTPUT EXIT-STATUS     what one program printed

Prints the details of what failed on stderr, and "PASSED FAILED SKIPPED" on stdout. A program that prints TAP counts by
its cases, plus one failure if it ended badly without naming any; another one counts as one case.

A case is skipped if it says "# skipped: WHY" in front of its line (skip.h), or by TAP's own "# SKIP WHY". Each is named
on stderr. With --skips one that no line of FILE allows has failed; such a line has patterns of the build's NAME, of
SUITE/TEST and of the case, and then the reason.
"""
import fnmatch
import json
import re
import sys

TAIL = 60


def skipped_cases(out):
    """-> (case, why) of each that says so"""
    cases, why = [], None
    for line in out.splitlines():
        said = re.match(r'# skipped: (.*)', line)
        end = re.match(r'(not )?ok\b\s*\d*\s*-?\s*(.*)', line)
        if said:
            why = why or said[1]
        elif end:
            case, _, own = re.sub(r'# SKIP\b', '# SKIP', end[2], flags=re.I).partition('# SKIP')
            own = own.strip() or 'no reason' if '# SKIP' in line.upper() else None
            if own or (why and not end[1]):
                cases.append((case.strip(), own or why))
            why = None
    if why:
        cases.append(('-', why))  # no case ends behind it
    return cases


def count(result, out, status):
    """-> passed, failed, skipped cases of one test program; result: ok, skip or anything else"""
    skipped = skipped_cases(out)
    failed = len(re.findall(r'^not ok\b(?!.*# (?:TODO|SKIP))', out, re.M | re.I))
    passed = max(len(re.findall(r'^(?:not )?ok\b', out, re.M)) - failed - len(skipped), 0)
    if result == 'fail' and status == 0 and skipped and not failed:
        result = 'ok'  # cmocka 1.1.5 says "not ok # SKIP", which meson takes for a failure
    if result == 'skip' and status == 0 and not re.search(r'^1\.\.0', out, re.M):
        return 0, 1, []  # meson takes silence for a skip; it left before it said anything
    if result == 'skip':
        return 0, 0, skipped or [('-', 'all of it')]
    if result == 'ok':
        return (passed, 0, skipped) if passed + len(skipped) and not failed else (1, 0, [])
    return passed, max(failed, 1), skipped


def read_skips(path):
    """-> [build, test and case patterns, reason]"""
    lines = [line.split(None, 3) for line in open(path) if line.strip() and not line.startswith('#')]
    for line in lines:
        if len(line) < 4:
            sys.exit(f'{path}: no reason: {" ".join(line)}')
    return lines


def is_allowed(skips, build, name, case):
    return any(fnmatch.fnmatchcase(build, b) and fnmatch.fnmatchcase(name, n) and fnmatch.fnmatchcase(case, c)
               for b, n, c, _ in skips)


def show(build, name, result, out, err):
    print(f'\n--- {build}: {name}: {result}', file=sys.stderr)
    lines = [line for line in out.splitlines() if not re.match(r'ok\b|1\.\.\d', line)]
    for line in lines[-TAIL:] + err.splitlines()[-TAIL:]:
        print('    ' + line, file=sys.stderr)


def main(build, path, status=None, skips=None):
    total = [0, 0, 0]
    tests = []
    text = open(path, errors='replace').read()
    if status is not None:
        result = {'0': 'ok', '77': 'skip'}.get(status, f'exit status {status}')
        tests.append((build, result, text, '', int(status)))
    else:
        for line in text.splitlines():
            t = json.loads(line)
            result = {'OK': 'ok', 'EXPECTEDFAIL': 'ok', 'SKIP': 'skip'}.get(t['result'], t['result'].lower())
            name = t['name'].split(':')[-1].replace(' / ', '/')  # "shoal:unit / proc"
            tests.append((name, result, t.get('stdout', ''), t.get('stderr', ''), t.get('returncode')))
    for name, result, out, err, exited in tests:
        passed, failed, skipped = count(result, out, exited)
        if failed:
            show(build, name, result, out, err)
        for case, why in skipped:
            allowed = skips is None or is_allowed(skips, build, name, case)
            print(f'--- {build}: {name}: {case}: skipped: {why}' +
                  ('' if allowed else ', which is not in the list of skips'),
                  file=sys.stderr)
            failed += not allowed
        total = [a + b for a, b in zip(total, (passed, failed, sum(skips is None or is_allowed(skips, build, name, case)
                                                                   for case, _ in skipped)))]
    print(*total)


arguments = sys.argv[1:]
listed = None
if arguments[:1] == ['--skips']:
    listed = read_skips(arguments[1])
    arguments = arguments[2:]
main(*arguments, skips=listed)
