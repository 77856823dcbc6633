#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stands in src/ops and its manuals, held against what a cache really writes. Prints TAP.

usage: ops.py SOURCE-FOLDER METRICS OUT      METRICS: what `shoal metrics` wrote; OUT: a rules file to be made of the
                                             dashboard's expressions, for promtool
"""
import json
import pathlib
import re
import sys

root, metrics, out = (pathlib.Path(a) for a in sys.argv[1:])
rules = (root / 'src/ops/shoal.rules.yml').read_text()
tests = ''.join(p.read_text() for p in sorted((root / 'src/ops').glob('*.test.yml')))
dashboard = json.loads((root / 'src/ops/shoal.dashboard.json').read_text())
man = {p.name: p.read_text().replace('\\_', '_') for p in (root / 'src/man').glob('*.scd')}

families = dict(re.findall(r'^# TYPE (\w+) (\w+)$', metrics.read_text(), re.M))
series = set(families)
for name, kind in families.items():
    if kind == 'histogram':
        series |= {name + end for end in ('_bucket', '_sum', '_count')}
labels = {name: set() for name in series}
for name, text in re.findall(r'^(\w+)\{(.*)\} ', metrics.read_text(), re.M):
    labels[name] |= set(re.findall(r'(\w+)="', text))
labels['shoal_grace_blocking_extents'].add('pid')  # there only while somebody blocks
labels['shoal_last_store_age_seconds'] |= {'keyspace', 'version'}

alerts = re.findall(r'^ *- alert: (\w+)$', rules, re.M)
recorded = set(re.findall(r'^ *- record: (\S+)$', rules, re.M))
panels = [p for p in dashboard['panels'] if p['type'] != 'row']
expressions = [(p['title'], t['expr']) for p in panels for t in p['targets']]

failures = {}


def check(name, complaints):
    failures[name] = list(complaints)


def names_in(text):
    return set(re.findall(r'(?<![\w:])shoal_[a-z_]+', text))


def unknown(where, text):
    return (f'{where}: {name} is written by nobody' for name in sorted(names_in(text) - series))


def code_of(rules_text):
    return re.sub(r'^ *#.*$', '', rules_text, flags=re.M)


def unknown_labels(where, text):
    for name, selector in re.findall(r'(shoal_[a-z_]+)\{([^}]*)\}', text):
        for label in re.findall(r'(\w+)\s*[=!]', selector):
            if name in labels and label not in labels[name] | {'cache', 'le'}:
                yield f'{where}: {name} has no label {label}'


def values_in_vain(where, text):
    text_of = metrics.read_text()
    for name, selector in re.findall(r'(shoal_[a-z_]+)\{([^}]*)\}', text):
        for label, value in re.findall(r'(\w+)="([a-z_]+)"', selector):
            if not re.search(rf'^{name}\{{[^}}]*\b{label}="{value}"', text_of, re.M):
                yield f'{where}: {name} has no {label} {value}'


def section(alert):
    found = re.search(rf'^## {alert}\n(.*?)(?=^#)', man['shoal-runbook.7.scd'], re.M | re.S)
    return found[1] if found else ''


def without_runbook():
    for alert in alerts:
        for word in ('*It means*', '*Look at*', '*do*' if '*Look at* and *do*' in section(alert) else '*Do*'):
            if word not in section(alert):
                yield f'{alert}: no section of shoal-runbook(7) with {word}'
        if f"runbook: 'shoal-runbook(7): {alert}'" not in rules:
            yield f'{alert}: its annotation leads elsewhere'
    for alert in re.findall(r'^## (\w+)$', man['shoal-runbook.7.scd'], re.M):
        if alert not in alerts:
            yield f'shoal-runbook(7) has a section of {alert}, which is no alert'


def untested():
    for alert in alerts:
        if f'alertname="{alert}"' not in tests:
            yield f'{alert}: no test in which it fires'
        part = re.search(rf'^  # -+ {alert}\b.*?(?=^  # -)', tests + '  # -', re.M | re.S)
        if not part or 'exp_samples: []' not in part[0]:
            yield f'{alert}: no test in which it does not fire'


def pages():
    paging = re.findall(r'alert: (\w+)\n(?:(?!alert:).)*?severity: page', rules, re.S)
    if paging != ['ShoalHitRateFalls']:
        yield f'pages are {paging}'
    if len(re.findall(r'severity: (?:page|ticket)$', rules, re.M)) != len(alerts):
        yield 'an alert is neither a page nor a ticket'


def expanded(expr):
    for name, value in {'__rate_interval': '5m', 'cache': '.*', 'keyspace': 'k.*|l', 'version': '1|2'}.items():
        expr = expr.replace('$' + name, value)
    return expr


def write_rules():
    with out.open('w') as to:
        to.write('groups:\n  - name: dashboard\n    rules:\n')
        for i, (_, expr) in enumerate(expressions):
            to.write(f'      - {{record: "dashboard:{i}", expr: {json.dumps(expanded(expr))}}}\n')


def dashboard_itself():
    if len({p['id'] for p in dashboard['panels']}) != len(dashboard['panels']):
        yield 'panels share an id'
    variables = {v['name'] for v in dashboard['templating']['list']}
    for name in ('cache', 'keyspace', 'version'):
        if name not in variables:
            yield f'no variable {name}'
    for title, expr in expressions:
        for name in re.findall(r'\$(\w+)', expr):
            if name not in variables | {'__rate_interval'}:
                yield f'{title}: ${name} is no variable'
        if '$cache' not in expr:
            yield f'{title}: heeds no $cache'
    taken = {}
    for p in dashboard['panels']:
        g = p['gridPos']
        for x in range(g['x'], g['x'] + g['w']):
            for y in range(g['y'], g['y'] + g['h']):
                if (x, y) in taken or x >= 24:
                    yield f'{p["title"]} lies over {taken.get((x, y), "the edge")}'
                    return
                taken[x, y] = p['title']


def undocumented():
    page = man['shoal-metrics.1.scd']
    for name in sorted(families):
        if f'*{name}*' not in page:
            yield f'shoal-metrics(1) knows no {name}'


def undrawn():
    drawn = set().union(*(names_in(expr) for _, expr in expressions))
    for name in sorted(families):
        if not drawn & {name, name + '_bucket', name + '_sum', name + '_count'}:
            yield f'{name} is in no panel'


def documented_in_vain():
    for page, text in man.items():
        for name in re.findall(r'\*(shoal_[a-z_]+)\*(?!\(3\))|_(shoal_[a-z_]+?)_(?!\w)', text):
            name = name[0] or name[1]
            if re.search(r'_(total|seconds|limit|info|keys|bytes|extents)$', name) and name not in series:
                yield f'{page}: {name} is written by nobody'


check('there are metrics, alerts and panels',
      [] if len(families) > 30 and len(alerts) > 10 and len(panels) > 20 else ['too few'])
check('the rules use what is written', unknown('rules', code_of(rules)))
check('recorded names are recorded',
      (f'{n} is not' for n in sorted(set(re.findall(r'shoal:[\w:]+', rules)) - recorded)))
check('the rules know its labels', [*unknown_labels('rules', rules), *values_in_vain('rules', rules)])
check('their tests use what is written', unknown('tests', tests))
check('the dashboard uses what is written', (c for title, expr in expressions for c in unknown(title, expr)))
check('and knows its labels', (c for title, expr in expressions
                               for c in [*unknown_labels(title, expr), *values_in_vain(title, expr)]))
check('the dashboard holds together', dashboard_itself())
check('its variables ask for what is written', (c for v in dashboard['templating']['list']
                                                for c in unknown(v['name'], v.get('definition', ''))))
check('all that is written is drawn', undrawn())
check('all that is written is in shoal-metrics(1)', undocumented())
check('the manuals name what is written', documented_in_vain())
check('each alert has its section of the runbook, with what it means, what to look at and what to do',
      without_runbook())
check('each alert has tests in which it fires, and in which it does not', untested())
check('the hit rate pages, and nothing else', pages())
write_rules()

for i, (name, complaints) in enumerate(failures.items(), 1):
    print('not ok' if complaints else 'ok', i, '-', name)
    for c in complaints:
        print('#', c)
print(f'1..{len(failures)}')
sys.exit(any(failures.values()))
