#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: harness.sh SHOAL-BENCH
# Each command of the harness for a moment, and the shape of what it writes; no time is judged. Prints TAP.
bench=$(realpath "$1")
tables=$(realpath "$(dirname "$0")/../../bench/tables.py")
n=0 failed=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

ok() { # NAME COMMAND...
	name=$1
	shift
	n=$((n + 1))
	if "$@" >log 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		sed 's/^/# /' log
		failed=1
	fi
}

# shellcheck disable=SC2317 # called through ok
that() { # FILE EXPRESSION-OVER-r-AND-rows
	cat "$1"
	python3 -c "import json, sys; r = json.load(open('$1')); rows = r['results']
def one(peer, access): return [row for row in rows if row['peer'] == peer and row['access'] == access][0]
def sound(f): return f['min'] <= f['median'] <= f['max']
sys.exit(not ($2))"
}

# shellcheck disable=SC2317
ends() { # STATUS MESSAGE OPTION...
	status=$1 message=$2
	shift 2
	"$bench" "$@" >out 2>&1 </dev/null
	got=$?
	echo "exit status $got"
	cat out
	[ "$got" -eq "$status" ] && grep -qF -e "$message" out
}

run() { # OUTPUT COMMAND OPTION...
	out=$1
	shift
	"$bench" "$@" --seconds 0.01 --warm-up 0.01 --repeats 2 --json "$out" >table 2>errors || cat errors >>"$out"
	cat errors
}

# What is built here and has no server.
local=$("$bench" peers | awk '{ print $1 }' | grep -xE -e 'bound|bound-huge|shoal|shoal-get|shoal-named|shoal-huge' \
	-e 'rwlock|robust-mutex|lmdb|lfht-.*|ck-ht' | paste -sd,)
echo "# peers: $local"

run gets read --keys 500 --value 100 --peers "$local" --processes 2
ok 'every peer gives every value that was stored' that gets "len(rows) == 2 * len('$local'.split(',')) \
	and all(row['hits'] == 1 for row in rows)"
ok 'figures are in order' that gets "all(sound(row[f]) for row in rows for f in ('ns', 'ratio', 'per_second')) \
	and all(row['latency_ns']['p50'] <= row['latency_ns']['p99'] <= row['latency_ns']['p999'] \
	<= row['latency_ns']['max'] + 1 for row in rows)"
ok 'ratios are to the first peer' that gets "one('bound', 'isolated')['ratio']['max'] == 1 \
	and all(row['ratio']['median'] > 0 for row in rows)"
ok 'it says on what machine, with what options' that gets "r['command'] == 'read' \
	and r['machine']['processors'] > 0 and r['machine']['kernel'] and r['options']['repeats'] == 2 and r['shoal']"
ok 'a table for people' grep -q '^bound  *overlapped  *500  *100 ' table

run mixed mixed --keys 500 --value 16-300 --zipf 0.99 --writes 20 --peers "$local"
ok 'mixed: values of many sizes' that mixed "len(rows) == len('$local'.split(',')) \
	and all(row['value'] == '16-300' and row['hits'] > 0.99 for row in rows)"
run sizes read --keys 500 --value '64*3+1000-2000+3000*2' --peers bound,shoal
ok 'sizes by weight' that sizes "all(row['hits'] == 1 and row['value'] == '64*3+1000-2000*1+3000*2' for row in rows)"
run set set --keys 500 --peers "$local"
ok 'set' that set "len(rows) == len('$local'.split(',')) and all(row['hits'] == 1 for row in rows)"
run evicting read --keys 50k --value 100 --capacity 10% --peers shoal
ok 'a cache that is too small misses' that evicting "0 < one('shoal', 'overlapped')['hits'] < 1"
run multiget multiget --keys 500 --batch 16
ok 'multiget' that multiget "one('shoal', 'many')['hits'] == 1 and one('shoal', 'overlapped')['hits'] == 1"
run scale scale --keys 100,300 --value 16,200 --processes 1,2
ok 'scale: each of keys, values and processes' that scale "len(rows) == 32 \
	and len(set((row['keys'], row['value'], row['processes']) for row in rows)) == 8"

run stampede stampede --processes 2,8 --load-us 2000 --peers futex-relay,futex-wake-all,shoal,private
ok 'stampede: one load' that stampede "all(one(p, 'stampede')['loads']['max'] == 1 \
	for p in ('futex-relay', 'futex-wake-all', 'shoal'))"
ok 'private caches load each for itself' that stampede "sorted(row['loads']['min'] for row in rows \
	if row['peer'] == 'private') == [2, 8]"
ok 'everybody got it' that stampede "all(row['failed'] == 0 for row in rows) and len(rows) == 8"
run cold coldstart --keys 50 --zipf 0.99 --processes 3 --load-us 500 --peers private,shoal
ok 'coldstart: each key once, or once for each process' that cold \
	"one('shoal', 'coldstart')['loads'] == one('shoal', 'coldstart')['distinct'] \
	< one('private', 'coldstart')['loads'] and all(row['failed'] == 0 for row in rows)"
run attach attach --keys 2000 --peers shoal-named
ok 'attach' that attach "one('shoal-named', 'attach')['failed'] == 0 \
	and one('shoal-named', 'attach-threads')['failed'] == 0 \
	and all(sound(one('shoal-named', 'attach')[f]) for f in ('attach_us', 'first_hit_us', 'next_thousand_us'))"
ok 'hits during a load' that attach "all(one('shoal', a)['ns']['min'] > 0 \
	for a in ('read-hit', 'read-hit-during-load', \
	'read-stale-during-refresh', 'fetch-hit', 'fetch-hit-during-load', 'fetch-stale-during-refresh'))"

servers=
command -v redis-server >/dev/null && servers=$servers,redis
command -v memcached >/dev/null && servers=$servers,memcached
if "$bench" peers | grep -q '^apcu ' && php -d apc.enable_cli=1 \
	-r 'exit(!function_exists("apcu_entry") || !function_exists("pcntl_fork"));' 2>/dev/null; then
	servers=$servers,apcu
fi
if "$bench" peers | grep -q '^nginx-lua ' && command -v nginx >/dev/null &&
	[ -e /usr/share/nginx/modules-available/mod-http-lua.conf ]; then
	servers=$servers,nginx-lua
fi
echo "# servers: $servers"
if [ -n "$servers" ]; then
	run served read --keys 500 --peers "shoal$servers" --processes 2
	ok 'servers give what was stored, too' that served "len(rows) == 2 * len('shoal$servers'.split(',')) \
		and all(row['hits'] == 1 for row in rows)"
	locks=$(echo "$servers" | sed 's/,nginx-lua//')
	run locks stampede --processes 4 --load-us 2000 --peers "shoal$locks"
	ok 'their locks let one load' that locks "len(rows) == len('shoal$locks'.split(',')) \
		and all(row['loads']['max'] == 1 and row['failed'] == 0 for row in rows)"
fi

echo '# what is written'
"$bench" read --keys 300 --seconds 0.01 --warm-up 0.01 --repeats 2 --json again --csv again.csv --compare gets \
	>compared 2>&1
ok 'CSV: a line for each row, and all of equal length' \
	python3 -c "import csv; rows = list(csv.reader(open('again.csv')))
assert len(rows) == 7 and set(map(len, rows)) == {len(rows[0])} and rows[0][0] == 'peer'"
"$bench" read --keys 500 --seconds 0.01 --warm-up 0.01 --repeats 2 --processes 2 --compare gets >compared 2>&1
ok 'compared with an earlier run' grep -qE '^shoal +isolated +500 +100 .*%' compared
if command -v gnuplot >/dev/null; then
	"$bench" scale --keys 100,300 --seconds 0.01 --warm-up 0.01 --repeats 2 --plot picture >plotted 2>&1
	cat plotted
	ok 'plots' sh -c 'head -c 8 picture.png | grep -q PNG && grep -q "</svg>" picture.svg'
fi
printf '{"keys": 300, "value": [16, 64], "zipf": 0.9, "seconds": 0.01, "warm-up": 0.01, "repeats": 2,
	"peers": "bound"}' >config
"$bench" read --config config --json configured >/dev/null 2>errors || cat errors
ok 'options from a file' that configured "len(rows) == 4 and rows[0]['keys'] == 300 and rows[3]['value'] == '64' \
	and rows[0]['zipf'] == 0.9"

mkdir results && cp gets results/hot.json && cp stampede results/stampede.json
printf 'before\n<!-- bench/run.sh --readme writes this -->\nold\n<!-- until here -->\nafter\n' >README
# shellcheck disable=SC2317
readme_is_rewritten() {
	python3 "$tables" results --readme README && cat README && ! grep -q '^old$' README &&
		grep -q '^| 500 keys, 100 B' README &&
		grep -q '^| 8 | shoal | 1.00 |' README && [ "$(head -n 1 README)" = before ] &&
		[ "$(tail -n 1 README)" = after ]
}
ok 'tables for the README, between its marks' readme_is_rewritten
ok 'tables of everything' sh -c "python3 '$tables' results | grep -q '^## stampede'"

echo '# the command line'
ok 'help' ends 0 'usage: shoal-bench' --help
ok 'no command' ends 2 "no command"
ok 'no such command' ends 2 "no command 'write'" write
ok 'no such option' ends 2 --wish read --wish
ok 'a wrong number' ends 2 '--keys: many' read --keys many
ok 'a wrong size' ends 2 '--value: 4' read --value 4
ok 'no such peer' ends 1 'no such peer here: couch' read --peers couch
ok 'no such access' ends 1 'no such access: often' read --access often
ok 'replay is reached' ends 0 'usage: replay' replay --help

echo "1..$n"
exit $failed
