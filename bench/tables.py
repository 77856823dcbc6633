#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tables of bench/results, in Markdown.

usage: tables.py RESULTS                   all of them, on standard output
       tables.py RESULTS --readme README   rewrites what is between the marks in README: the chief ones
"""
import json
import pathlib
import re
import sys

BEGIN, END = '<!-- bench/run.sh --readme writes this -->', '<!-- until here -->'

LABELS = {
    'hot': '{keys} keys, {value} B, uniform, 1 process',
    'hot-2': '{keys} keys, {value} B, uniform, 2 processes',
    'large': '{keys} keys, {value} B, Zipf {zipf:g}, 1 process',
    'big-values': '{keys} keys, {value} B, Zipf {zipf:g}, 1 process',
    'mixed': '95/5 mix, {keys} keys, {value} B, Zipf {zipf:g}, 2 processes',
    'set': 'set, {keys} keys, {value} B, 1 process',
}


def load(folder):
    return {f.stem: json.loads(f.read_text()) for f in sorted(folder.glob('*.json'))}


def number(x):
    if isinstance(x, str):
        return x
    if x >= 100:
        return f'{x:,.0f}'
    return f'{x:.3g}' if x >= 10 else f'{x:.2f}'


def keys_text(n):
    return f'{n // 1000000} M' if n >= 1000000 else f'{n // 1000} k' if n >= 1000 else str(n)


def table(head, rows):
    yield '| ' + ' | '.join(head) + ' |'
    yield '|' + '---|' * len(head)
    for row in rows:
        yield '| ' + ' | '.join(row) + ' |'
    yield ''


def median(row, name):
    return row[name]['median'] if name in row else None


def label(name, row):
    return LABELS[name].format(**{**row, 'keys': keys_text(row['keys'])})


def by_peer(report, access):
    return {row['peer']: row for row in report['results'] if row['access'] == access}


def side_by_side(reports, access, figure, cell=number):
    """A line for each of the chief measurements, a column for each peer."""
    lines, peers = [], []
    for name in LABELS:
        if name not in reports:
            continue
        first = reports[name]['results'][0]
        which = first['access'] if first['access'] in ('mixed', 'set') else access
        if which != access and access != 'overlapped':
            continue
        rows = by_peer(reports[name], which)
        peers += [p for p in rows if p not in peers]
        lines.append((label(name, first), rows))
    yield from table([f'median {"ns" if figure == "ns" else figure} each'] + peers,
                     [[text] + [cell(median(rows[p], figure)) if p in rows else '' for p in peers]
                      for text, rows in lines])


def rows_of(report, columns, only=lambda row: True):
    def cell(row, path):
        for part in path.split('.'):
            row = row.get(part, '') if isinstance(row, dict) else ''
        if isinstance(row, dict):
            row = row.get('median', '')
        return number(row) if isinstance(row, float) else str(row)
    yield from table([c.split('=')[0] for c in columns],
                     [[cell(row, c.split('=')[-1]) for c in columns] for row in report['results'] if only(row)])


def machine(report):
    m = report['machine']
    kernel = '.'.join(m['kernel'].split('.')[:2])  # whose build it is, is nobody's business
    return (f"{m.get('processor', '?')}, {m['processors']} processors, L2 {m.get('l2', '?')}, "
            f"L3 {m.get('l3', '?')}, Linux {kernel}, "
            f"gcc {m['compiler']}; huge pages of shared memory: {m.get('shmem_hugepage', '?')}")


def chief(reports, whole=False):
    any_report = next(iter(reports.values()))
    yield machine(any_report)
    yield ''
    yield from side_by_side(reports, 'overlapped', 'ns')
    yield 'Isolated: each get waits for the value of the last one.'
    yield ''
    yield from side_by_side(reports, 'isolated', 'ns')
    if 'stampede' in reports:
        yield 'A stampede on one cold key, a load of 20 ms; delays in microseconds from the end of the load:'
        yield ''
        herds = sorted({row['processes'] for row in reports['stampede']['results']})
        shown = herds if whole else herds[1::2] or herds  # of 2, 16, 64, 256
        yield from rows_of(reports['stampede'], ['processes', 'peer', 'loads=loads.max', 'leader=leader_us',
                                                 'waiters, median=waiters_us', 'p99=waiters_p99_us',
                                                 'a key that is there meanwhile, at worst=bystander_us'],
                           lambda row: row['processes'] in shown)


def everything(folder, reports):
    yield '# Measured'
    yield ''
    yield from chief(reports, whole=True)
    for name, report in reports.items():
        yield f'## {name}'
        yield ''
        yield f"    {report.get('how', '')}"
        yield ''
        if 'ns' in report['results'][0]:
            yield from rows_of(report, ['peer', 'access', 'keys', 'value', 'processes', 'ns', 'min=ns.min',
                                        'max=ns.max', 'ratio', 'per second=per_second', 'p50=latency_ns.p50',
                                        'p99=latency_ns.p99', 'p99.9=latency_ns.p999',
                                        'max=latency_ns.max', 'hits'])
        else:
            columns = []
            for row in report['results']:
                columns += [c for c in row if c not in columns]
            yield from rows_of(report, columns)
        if (folder / f'{name}.png').exists():
            yield f'![{name}]({name}.png)'
            yield ''
    if (folder / 'profile.md').exists():
        yield f"## Where the instructions go\n\n{(folder / 'profile.md').read_text().strip()}\n"
    for text, title in (('instructions.txt', 'Instructions'), ('bound.asm', 'The bound, as it was compiled')):
        if (folder / text).exists():
            yield f'## {title}\n\n```\n{(folder / text).read_text().strip()}\n```\n'


def main(folder, *options):
    folder = pathlib.Path(folder)
    reports = load(folder)
    if not reports:
        sys.exit(f'{folder}: no results; bench/run.sh makes them')
    if not options:
        print('\n'.join(everything(folder, reports)))
        return
    readme = pathlib.Path(options[1])
    text, block = readme.read_text(), '\n'.join([BEGIN, *chief(reports), END])
    if BEGIN not in text:
        sys.exit(f'{readme}: no line "{BEGIN}"')
    readme.write_text(re.sub(re.escape(BEGIN) + '.*?' + re.escape(END), lambda m: block, text, flags=re.S))


if __name__ == '__main__':
    if len(sys.argv) not in (2, 4) or sys.argv[2:3] not in ([], ['--readme']):
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
