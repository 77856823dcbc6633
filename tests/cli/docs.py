#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the documentation shows: every block of README.md, CONTRIBUTING.md and the manual pages.

usage: docs.py SOURCE SHOAL FOLDER        prints TAP; FOLDER is empty, and somebody else's to remove

A block is one of these:
  held      its lines are those of a file in tests/examples, which has tests of its own
  C         it is compiled: alone if it has a main(), else inside a function where what it talks of is declared
  shell     it is run, in a folder of its own, by bash -e: there is a cache "shop" with values, and scripts stand in for
            programs of the user's (psql, curl, ssh, ./load-user ...). Commands that tests/docs.commands says another
            test runs are left out
  listed    what is neither is in tests/docs.commands, which says why, or which files have the same lines
  unknown   all else, and that is a failure: so is a line of the list that nothing needs

Besides, whatever is said of `shoal VERB --option` anywhere, in a block or in the midst of a sentence, has to be a
verb and an option of it; likewise the scripts of this tree. And what pages say in numbers and names is held
against the sources.
"""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

root, shoal, scratch = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
build = shoal.parent.parent.parent
PAGES = [root / 'README.md', root / 'CONTRIBUTING.md', *sorted((root / 'src/man').glob('*.scd'))]
GENEROUS = 300  # seconds: what hangs is stopped after that, and nothing is judged by it

count, failed = 0, False


def case(name, complaints):
    global count, failed
    complaints = list(complaints)  # which may skip something, and say so first
    count += 1
    failed = failed or bool(complaints)
    print('not ok' if complaints else 'ok', count, '-', name)
    for c in complaints:
        print('\n'.join('# ' + line for line in str(c).splitlines()))


def skip(name, why):
    global count
    count += 1
    print(f'ok {count} - {name} # SKIP {why}')


# ---- blocks ----------------------------------------------------------------------------------------------------------


class Block:
    def __init__(self, path, line, lines):
        self.where = f'{path.relative_to(root)}:{line}'
        while lines and not lines[-1].strip():
            lines.pop()
        self.lines = lines
        self.text = '\n'.join(lines) + '\n'

    def first(self):
        return ' '.join(next((line for line in self.lines if line.strip()), '').split())


def unindented(lines):
    least = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[least:] for line in lines]


def blocks_of(path):
    """Fenced ones; indented by four in Markdown; in scdoc, of indented paragraphs those that stand alone
    and are no prose."""
    lines = path.read_text().splitlines()
    page = path.suffix == '.scd'
    i, blank = 0, True
    while i < len(lines):
        line, at = lines[i], i
        if line.startswith('```'):
            i += 1
            begin = i
            while not lines[i].startswith('```'):
                i += 1
            yield Block(path, begin + 1, unindented(lines[begin:i]))
        elif blank and (line.startswith('\t') if page else line.startswith('    ')):
            while i < len(lines) and (lines[i].startswith(('\t', '    ')) or not lines[i].strip()):
                i += 1
            found = unindented([x.expandtabs(8) for x in lines[at:i]])
            if page:
                found = [re.sub(r'\\(.)', r'\1', re.sub(r'\+\+$', '', x)) for x in found]
            yield Block(path, at + 1, found)
            i -= 1
        blank = not lines[i].strip()
        i += 1


BLOCKS = [b for path in PAGES for b in blocks_of(path)]


# ---- the list --------------------------------------------------------------------------------------------------------


class Listed:
    """PATTERN <tab> KIND <tab> ...: see the head of tests/docs.commands."""

    def __init__(self, line):
        self.line, (self.pattern, self.kind, *self.rest) = line, line.split('\t')
        self.used = False

    def fits(self, text):
        fits = re.fullmatch('.*'.join(map(re.escape, self.pattern.split('*'))), text, re.S)
        self.used = self.used or bool(fits)
        return fits

    def complaints(self, block):
        if self.kind == 'test':
            path = root / self.rest[0]
            if not path.is_file():
                yield f'tests/docs.commands: {self.rest[0]}: there is no such test'
            elif not re.search(self.rest[1], path.read_text(), re.M):
                yield f'tests/docs.commands: {self.rest[0]} has no "{self.rest[1]}"'
        elif self.kind == 'lines':
            known = {x.strip() for name in self.rest for x in (root / name).read_text().splitlines()}
            yield from (f'not in {" ".join(self.rest)}: {x}' for x in block.lines
                        if x.strip() and x.strip() not in known)
        elif self.kind not in ('shown', 'not') or not self.rest:
            yield f'tests/docs.commands: {self.line}: what is that?'


LIST = [Listed(x) for x in (root / 'tests/docs.commands').read_text().splitlines() if x and not x.startswith('#')]


def listed(text):
    return next((entry for entry in LIST if entry.fits(text)), None)


# ---- what is held by an example --------------------------------------------------------------------------------------


def lines_of(text):
    return [line for line in (' '.join(x.split()) for x in text.splitlines()) if line]


EXAMPLES = [lines_of(f.read_text(errors='replace')) for f in sorted((root / 'tests/examples').iterdir()) if f.is_file()]


def is_held(block):
    """All its lines are in one of them, in that order."""
    lines = lines_of(block.text)
    for example in EXAMPLES:
        rest = iter(example)
        if all(line in rest for line in lines):
            return len(lines) > 1
    return False


# ---- C ---------------------------------------------------------------------------------------------------------------

SCAFFOLD = '''
#include <shoal.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
struct request;
void answer(struct request *, struct shoal_value *);
void ask_origin(struct request *, struct shoal_load *);
int commit(void *);
shoal_wake wake;
shoal_old_key old_key;
shoal_migrate convert;
int snippet(struct shoal *, struct shoal_load *, const void *, size_t, void *, void *, struct request *);
int snippet(struct shoal *cache, struct shoal_load *load, const void *key, size_t key_size, void *row, void *database,
            struct request *request)
{
	const void *id = key;
	size_t id_size = key_size;
	void *db = database;
	struct shoal_keyspace *profiles = NULL, *old = NULL;
	struct shoal_policy policy = {0};
	struct epoll_event event = {0};
	struct shoal_value value;
	int epoll = 0;
#ifdef SHOAL_REDIS_H
	struct shoal_redis *redis = NULL;
#endif

	{
#line 1 "%s"
%s
	}
	return 0;
}
'''


def is_c(block):
    return re.search(r'\bshoal_\w+\(|^struct shoal', block.text, re.M)


# Of the public headers.
INCLUDES = ['-I', str(root / 'include'), *(f'-I{f.parent}' for f in (root / 'src').glob('*/shoal-*.h'))]


def compiled(block):
    text = block.text
    if not re.search(r'^int main\(', text, re.M):
        first = ''.join(line + '\n' for line in block.lines if line.startswith('#include'))
        text = first + SCAFFOLD % (block.where, re.sub(r'^#include.*', '', text, flags=re.M))
    done = subprocess.run([*shlex.split(os.environ.get('CC', 'cc')), '-std=gnu11', '-fsyntax-only', '-Wall',
                           '-Werror', '-Wno-unused',
                           *INCLUDES, '-xc', '-'], input=text, text=True, capture_output=True)
    if done.returncode:
        yield f'{block.where}:\n{done.stderr}'


# ---- shell -----------------------------------------------------------------------------------------------------------

# The command with its caches in this folder, gigabytes as 8 MiB, /var/lib in this folder, and a port that is free. What
# goes on until a signal has it when it has shown something.
WRAPPER = r'''#!/bin/bash
here=%(here)s
args=() own=yes before= endless= bounded= output=
cache_at() { case $1 in */*) echo "$1" ;; *) echo "$here/$1.cache" ;; esac; }
for a; do
	[ "$a" != -- ] || own=
	if [ -n "$own" ]; then
		case $before in -c | --cache) a=$(cache_at "$a") ;; --listen) a=0 ;; esac
		case $a in
		--cache=*) a=--cache=$(cache_at "${a#--cache=}") ;;
		/var/lib/*) a=$here$a ;;
		--watch | -w | --listen | --every) endless=yes ;;
		-1 | --once | -n | --count) bounded=yes ;;
		esac
		[[ ! $a =~ ^[0-9]+g$ ]] || a=$((${a%%g} * 8))m
		[ "$before" != --output ] || output=$a
		before=$a
	fi
	args+=("$a")
done
[ -z "${SHOAL_CACHE-}" ] || SHOAL_CACHE=$(cache_at "$SHOAL_CACHE")
case $1 in top) endless=yes ;; stat | metrics) ;; *) endless= ;; esac
[ -n "$endless" ] && [ -z "$bounded" ] || exec %(real)s "${args[@]}"
shown=${output:-$here/shown.$$} said=$here/said.$$
set -m # or it would ignore SIGINT
%(real)s "${args[@]}" >"$said" 2>&1 &
child=$! deadline=$((SECONDS + %(generous)d))
[ -n "$output" ] || shown=$said
while [ ! -s "$shown" ] && [ $SECONDS -lt $deadline ] && kill -0 $child 2>/dev/null; do
	sleep 0.02
done
[ -s "$shown" ] && kill -0 $child 2>/dev/null && early= || early=yes
kill -INT $child 2>/dev/null
wait $child
status=$?
cat "$shown"
case $status in 0 | 130) [ -z "$early" ] ;; *) exit $status ;; esac
'''

STAND_INS = {
    'bin/psql': 'echo "42 rows"',
    'bin/curl': 'echo "EUR 1.0842"',
    'bin/ssh': 'shift; exec "$@"',
    'load-user': 'echo "{\\"name\\": \\"$1\\"}"',
    'deploy': 'true',
    'roll-back': 'true',
}
FILES = {
    'report.sql': 'select count(*) from orders;\n',
    'hot.txt': 'user:7\nuser:8\nuser:9\n',
    'Makefile': '.SILENT:\nreport:\n\techo built\n',
    'access.log': ''.join(f'::1 - - [now] "GET /{i % 7} HTTP/1.1" 200 {100 + i % 7}\n' for i in range(50)),
}
VALUES = {'user@1': ['v2:user:7', 'v2:user:8'], 'user@2': ['user:7'], 'user.profile@1': ['user:7'],
          'user.profile@2': ['user:7', 'user:7:address', 'user:8'], 'run@1': ['x'], 'try@1': ['x']}


def make_sandbox():
    """What each shell block finds."""
    here = scratch / 'sandbox'
    for folder in ('bin', 'var/lib/shop', 'var/lib/prometheus/node-exporter', 'bench'):
        (here / folder).mkdir(parents=True)
    for name, body in STAND_INS.items():
        (here / name).write_text(f'#!/bin/sh\n{body}\n')
        (here / name).chmod(0o755)
    for name, text in FILES.items():
        (here / name).write_text(text)
    shutil.copy(root / 'tests/examples/first.c', here)
    for name, limits in (('shop', ['--size', '4m', '--max-processes', '200', '--max-threads', '400']),
                         ('session', ['--size', '1m'])):
        subprocess.run([shoal, 'create', '--cache', here / f'{name}.cache', *limits], check=True)
    for keyspace, keys in VALUES.items():
        for key in keys:
            subprocess.run([shoal, 'set', '--cache', here / 'shop.cache', '-k', keyspace, '--fresh', '1h',
                            '--stale', '1h', key, '{"name": "Ada"}'],
                           check=True)
    subprocess.run([shoal, 'dump', '--cache', here / 'shop.cache', here / 'var/lib/shop/cache.dump'], check=True,
                   capture_output=True)
    return here


def sandboxed(template, n):
    here = scratch / f'run-{n}'
    shutil.copytree(template, here)
    (here / 'bin/shoal').write_text(WRAPPER % {'real': shlex.quote(str(shoal)), 'here': shlex.quote(str(here)),
                                               'generous': GENEROUS})
    (here / 'bin/shoal').chmod(0o755)
    return here


def environment(here):
    env = {**os.environ, 'PATH': f'{here}/bin:{os.environ["PATH"]}', 'SHOAL_CACHE': 'shop', 'HOME': str(here),
           'CFLAGS': '-O2',
           'PKG_CONFIG_PATH': str(build / 'meson-uninstalled'), 'LD_LIBRARY_PATH': str(build)}
    return env


def is_whole(text):
    return not text.rstrip().endswith('\\') and not subprocess.run(['bash', '-n', '-c', text],
                                                                   capture_output=True).returncode


def commands_of(block):
    """Its commands, each with the lines it goes on over."""
    found, so_far = [], ''
    for line in block.lines:
        so_far += line + '\n'
        if so_far.strip() and is_whole(so_far):
            found.append(so_far)
            so_far = ''
    return found + ([so_far] if so_far.strip() else [])


def words_of(command):
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return command.split()


def plain(command):
    """Without comments, in one line."""
    return ' '.join(re.sub(r'(?m)(^|\s)#(\s.*)?$', '', command).replace('\\\n', ' ').split())


def program_of(command):
    return next((w for w in words_of(command) if not re.match(r'\w+=', w)), '')


# What is run here: nothing that changes the machine, and nothing that takes minutes.
RUNS = {'shoal', 'for', 'export', 'source', 'awk', 'cat', 'cc'}


# What a machine may lack: then a command of it is left out, and that is said.
TOOLS = ('jq', 'make', 'pkg-config')


def is_sanitized():
    return any(re.search(rb'__(asan|tsan|ubsan)_', f.read_bytes()) for f in build.glob('libshoal.so.0.*')
               if f.is_file())


def lacking(command):
    missing = {t for t in TOOLS if re.search(rf'\b{t}\b', command) and not shutil.which(t)}
    if command.startswith('cc ') and is_sanitized():
        missing.add('compiler that links what sanitizers were built into')
    if '--listen' in command and b'built without libmicrohttpd' in shoal.read_bytes():
        missing.add('libmicrohttpd')
    return missing


def script_of(block, complaints, missing):
    """Those of its commands that are to be run."""
    script = ''
    for command in commands_of(block):
        if entry := listed(plain(command)):
            complaints += [f'{block.where}: {c}' for c in entry.complaints(block)]
        elif program_of(command) not in RUNS:
            complaints.append(f'{block.where}: neither C, nor a command that may be run, '
                              f'nor in tests/docs.commands: {command}')
            break
        elif lacks := lacking(command):
            missing |= lacks
        else:
            script += command
    return script


def run(block, template, n):
    complaints, missing = [], set()
    script = script_of(block, complaints, missing)
    for tool in sorted(missing):
        skip(f'{block.where}: all of it', f'no {tool}')
    yield from complaints
    if not script:
        return
    here = sandboxed(template, n)
    try:
        done = subprocess.run(['bash', '-eo', 'pipefail', '-c', script], cwd=here, env=environment(here),
                              capture_output=True, text=True,
                              errors='replace', stdin=subprocess.DEVNULL, timeout=2 * GENEROUS)
    except subprocess.TimeoutExpired:
        yield f'{block.where}: hangs:\n{script}'
        return
    if done.returncode:
        yield f'{block.where}: exit status {done.returncode}:\n{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'


# ---- verbs and options, wherever they are said -----------------------------------------------------------------------


def helped(*arguments):
    return subprocess.run([shoal, 'help', *arguments], capture_output=True, text=True).stdout


VERBS = {v: set(re.findall(r'(?<![\w-])--?[\w-]+', helped(v).split('\n\n', 2)[-1] + helped(v))) | {'--help', '-h'}
         for v in re.findall(r'^  ([a-z]+) ', helped(), re.M)}


def is_said(path):
    """Each `shoal VERB ...`, with what follows it up to the end of the command."""
    for b in BLOCKS:
        entry = listed(b.first())
        if b.where.startswith(f'{path.relative_to(root)}:') and not is_c(b) and not is_held(b) and \
                (not entry or entry.kind in ('test', 'not')):
            for command in commands_of(b):
                for m in re.finditer(r'(?<![\w./@-])shoal ([a-z]+)\b([^|&;<>()]*)', plain(command)):
                    yield b.where, m[1], m[2]
    text = path.read_text()
    around = '`' if path.suffix == '.md' else '_*'
    for m in re.finditer(rf'[{around}]shoal ([a-z]+)\b([^{around}\n]*)[{around}]', text):
        yield f'{path.relative_to(root)}:{text[:m.start()].count(chr(10)) + 1}', m[1], m[2]


def unknown():
    seen = 0
    for path in PAGES:
        for where, verb, rest in is_said(path):
            seen += 1
            if verb not in VERBS:
                if verb not in ('version', 'help', 'completion'):
                    yield f'{where}: shoal {verb}: there is no such verb'
                continue
            for option in re.findall(r'(?<![\w-])--?[a-zA-Z0-9][\w-]*', rest.split(' -- ')[0]):
                if option.rstrip('_') not in VERBS[verb]:
                    yield f'{where}: shoal {verb} {option}: there is no such option'
    if seen < 50:
        yield f'only {seen} were found'


def text_of(script):
    """Its own text, and that of the program that it becomes."""
    program = root / script
    also = {'bench/replay': 'bench/replay.c', 'bench/evict.sh': 'bench/replay.c'}.get(script)
    return program.read_text(errors='replace') + ((root / also).read_text() if also else '')


def paths():
    """Files and folders of this tree, and options of its scripts."""
    for path in PAGES + [root / 'CHANGELOG.md']:
        text = path.read_text()
        for m in re.finditer(r'(?<![\w/@.-])(?:\./)?((?:src|tests|bench|include)/[\w./-]*\w)((?: [^`\n|;&]*)?)', text):
            name, rest = m[1], re.sub(r' # .*', '', m[2])
            where = f'{path.relative_to(root)}:{text[:m.start()].count(chr(10)) + 1}'
            if 'NAME' in name or name.startswith('bench/results') or \
                    name.startswith('bench/') and not (root / 'bench').is_dir():
                continue
            name = name.rstrip('_')
            if not (root / name).exists():
                yield f'{where}: {name}: there is no such file'
            elif (root / name).is_file() and os.access(root / name, os.X_OK):
                said = text_of(name)
                yield from (f'{where}: {name} {o}: it does not know that'
                            for o in re.findall(r'(?<![\w-])--[a-z][a-z-]*', rest)
                            if not re.search(rf'(?<![\w-])(--)?{o[2:]}\b', said) and o not in ('--help',))


# ---- what pages say of the sources -----------------------------------------------------------------------------------


def page(name):
    return (root / f'src/man/{name}.scd').read_text().replace('\\_', '_')


def design_files():
    text = page('shoal-design.7')
    named = {m.strip('_') for m in re.findall(r'[\w/.-]+\.(?:c|h|map|pml|py|sh|txt|build)(?![a-zA-Z0-9])', text)}
    engine = {f.name for f in (root / 'src').iterdir() if f.suffix in ('.c', '.h', '.map')}
    yield from (f'src/{f} is not named' for f in sorted(engine - named))
    for f in sorted(named):
        if not any((root / folder / f).is_file() for folder in ('src', '.', 'include')):
            yield f'{f}: there is no such file'
    if len(re.findall(r'^\|  ', text, re.M)) < 40:
        yield 'the table of questions has fewer than 40 rows'


def design_bytes():
    text, layout = page('shoal-design.7'), (root / 'src/layout.h').read_text()
    areas = re.search(r'Order of a region.*?:\n \*\n(.*?)\n \*\n', layout, re.S)[1]
    areas = ' '.join(areas.replace('*', ' ').split()).split(' | ')
    drawn = [x.strip() for x in re.findall(r"^  \| ([a-z' ]+?) *\| ", text, re.M) if 'next region' not in x]
    if drawn != areas:
        yield f'drawn: {drawn}\nlayout.h: {areas}'
    version = re.search(r'LAYOUT_VERSION (\d+)', layout)[1]
    if f'LAYOUT_VERSION of _layout.h_: {version} in this release' not in text:
        yield f'the layout is of version {version}'


def table(text, head):
    """Rows of the table whose first cell is that."""
    rows, on = [], False
    for line in text.splitlines():
        if line.startswith('|'):
            if line.startswith('|['):
                on, cells = line[2:].strip() == f'*{head}*', []
            else:
                cells = [line[1:].strip()]
                if on:
                    rows.append(cells)
        elif on and line.startswith(':') and not line.startswith(':<'):
            cells.append(line[1:].strip())
        elif not line.strip():
            on = False
    return rows


def sizes():
    """Of structs, by the compiler."""
    what = {'entry': 'sizeof(struct entry)', 'process': 'sizeof(struct process)', 'extent': 'sizeof(struct extent)',
            'thread': 'sizeof(struct alive) + sizeof(struct reader) + sizeof(struct permit) + 2 * sizeof(struct line)',
            'flight': 'sizeof(struct flight) + sizeof(word64)', 'keyspace': 'sizeof(struct keyspace)'}
    rows = table(page('shoal-sizing.7'), 'each')
    if {r[0] for r in rows} != set(what):
        yield f'the table has {rows}'
    asserts = ''.join(f'_Static_assert({what[name]} == {size}, "{name}");\n' for name, size in rows if name in what)
    done = subprocess.run([*shlex.split(os.environ.get('CC', 'cc')), '-std=gnu11', '-D_GNU_SOURCE', '-fsyntax-only',
                           '-I', str(root / 'src'), '-I', str(root / 'include'), '-xc', '-'],
                          input='#include "layout.h"\n' + asserts, text=True, capture_output=True)
    if done.returncode:
        yield done.stderr


def geometry():
    """Of caches of those sizes, as they are made."""
    import json
    rows = table(page('shoal-sizing.7'), 'size')
    if len(rows) < 4:
        yield f'the table has {rows}'
    for row in rows:
        cache = str(scratch / f'size-{row[0]}')
        made = subprocess.run([shoal, 'create', '--cache', cache, '--size', row[0]], capture_output=True, text=True)
        if made.returncode:
            yield made.stderr
            continue
        info, stat = (json.loads(subprocess.run([shoal, verb, '--cache', cache, '--json'], capture_output=True,
                                                text=True, check=True)
                                 .stdout.splitlines()[0]) for verb in ('info', 'stat'))
        os.unlink(cache)
        true = [row[0], f'{100 * stat["bytes_overhead"] / info["size"]:.1f}%',
                f'{info["extents"]} of {info["extent_size"]}',
                *(str(info[x]) for x in ('max_entry', 'max_processes', 'max_threads', 'max_flights'))]
        if row != true:
            yield f'it says {row}\nit is    {true}'


def series():
    text = page('shoal-observe.7')
    for name in sorted(set(re.findall(r'"(shoal_[a-z_]+)"', (root / 'src/metrics.c').read_text()))):
        if f'*{name}*' not in text:
            yield f'{name} is not named'
    alerts = set(re.findall(r'- alert: (\w+)', (root / 'src/ops/shoal.rules.yml').read_text()))
    rows = {r[0] for r in table(text, 'alert')}
    yield from (f'{x} is {"not named" if x in alerts else "no alert"}' for x in sorted(alerts ^ rows))


def defaults():
    """Of the policy's fields, as the header has them."""
    header = (root / 'include/shoal.h').read_text()
    unit = {'ms': 1, 's': 1000}
    for field, said in re.findall(r'^\*(\w+)\* \(([\d.]+ ?(?:ms|s)?)(?:, [a-z ]*)?\)$', page('shoal-policy.7'), re.M):
        number, _, of = said.partition(' ')
        true = re.search(rf'{field};\s*/\*(?:(?!\*/).)*?(?:default ([\d ]+)|(0) = no bound|version of)', header, re.S)
        true = (true[1] or true[2] or '0').replace(' ', '')
        if float(number) * unit.get(of, 1) != float(true):
            yield f'{field}: {said}, and {true} in shoal.h'


def probes():
    known = set(re.findall(r'^ \*   ([a-z_]+)  ', (root / 'src/probe.h').read_text(), re.M))
    text = (root / 'src/man/shoal-probes.7.scd').read_text().replace('\\_', '_')
    yield from (f'{x}: there is no such probe' for x in sorted(set(re.findall(r'usdt:LIB:shoal:(\w+)', text)) - known))


def directives():
    known = set(re.findall(r'ngx_string\("(shoal\w*)"\)',
                           ''.join(f.read_text() for f in (root / 'src/nginx').glob('*.[ch]'))))
    for b in BLOCKS:
        if b.first().startswith('load_module'):
            for name in re.findall(r'(?:^|[;{])\s*(shoal\w*) ', b.text, re.M):
                if name not in known:
                    yield f'{b.where}: {name}: there is no such directive'


# ---- all of it -------------------------------------------------------------------------------------------------------


def main():
    template = make_sandbox()
    for n, b in enumerate(BLOCKS):
        name = f'{b.where}: {b.first()[:60]}'.replace('#', '')
        entry = listed(b.first())
        if is_held(b):
            case(name, [])
        elif entry and entry.kind in ('lines', 'shown'):
            case(name, entry.complaints(b))
        else:
            case(name, compiled(b) if is_c(b) else run(b, template, n))
    case('the list has nothing that nobody needs', (f'tests/docs.commands: {e.line}' for e in LIST if not e.used))
    case('verbs and options are those that there are', unknown())
    case('so are files, and options of scripts', paths())
    case('shoal-design(7) names each file of the engine, and no other', design_files())
    case('it draws the bytes as layout.h has them', design_bytes())
    case('shoal-sizing(7): bytes of structs', sizes())
    case('shoal-sizing(7): what caches of some sizes have', geometry())
    case('shoal-observe(7) names each series and each alert', series())
    case('shoal-policy(7): defaults', defaults())
    case('shoal-probes(7): tracepoints', probes())
    if (root / 'src/nginx').is_dir():
        case('directives of nginx', directives())
    print(f'1..{count}')
    sys.exit(failed)


main()
