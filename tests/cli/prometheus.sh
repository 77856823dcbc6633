#!/bin/bash
# SPDX-License-Identifier: MIT
# A real Prometheus scrapes a real cache, which processes use, some of which are killed: what it has
# then is what they did
workload=$(realpath "${4:?}")
. "$(dirname "$0")/lib.sh"

if ! type prometheus >/dev/null 2>&1; then
	skip 'a real Prometheus' 'no prometheus'
	finish
fi
if "$shoal" metrics --listen x 2>&1 | grep -q 'without libmicrohttpd'; then
	skip 'a real Prometheus' 'no libmicrohttpd'
	finish
fi

exporter='' prometheus=''
stop() { # PID: what we started, and nothing else
	[ -z "$1" ] || { kill -TERM "$1" && wait "$1"; }
}
clean_all() {
	stop "$prometheus"
	stop "$exporter"
	clean
}
trap clean_all EXIT

# Ask the API till the answer is as wanted, as long as both processes live. ask.py EXPRESSION CONDITION: of `v`, the
# values of an instant query by their labels without those that Prometheus adds; `one`, if there is just one, else None
cat >ask.py <<'PYTHON'
import json, sys, urllib.parse, urllib.request
base, query, condition = sys.argv[1:]
try:
    with urllib.request.urlopen(base + '/api/v1/query?' + urllib.parse.urlencode({'query': query})) as answer:
        result = json.load(answer)['data']['result']
except OSError as e:
    sys.exit(str(e))
v = [float(r['value'][1]) for r in result]
one = v[0] if len(v) == 1 else None
print(query, v[:5])
sys.exit(not eval(condition))
PYTHON
asks() { # EXPRESSION CONDITION
	python3 ask.py "http://127.0.0.1:$port" "$1" "$2"
}
until_asked() { # EXPRESSION CONDITION
	until asks "$1" "$2" >answer 2>&1; do
		kill -0 "$prometheus" && kill -0 "$exporter" || { cat answer prometheus.log && return 1; }
		sleep 0.1
	done
}

"$shoal" create --size 4m --max-processes 100
"$shoal" metrics --listen 0 2>said </dev/null &
exporter=$!
until grep -q http said; do kill -0 $exporter || exit 1; done
target=$(sed -n 's,.*http://\(.*\)/metrics,\1,p' said)
cat >prometheus.yml <<YAML
global: {scrape_interval: 200ms, evaluation_interval: 500ms}
rule_files: ['$source/src/ops/shoal.rules.yml']
scrape_configs: [{job_name: shoal, static_configs: [{targets: ['$target']}]}]
YAML

start() {
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address="127.0.0.1:$port" \
		--log.level=warn \
		>prometheus.log 2>&1 </dev/null &
	prometheus=$!
	until asks 'vector(1)' 'one == 1' >/dev/null 2>&1; do
		kill -0 $prometheus 2>/dev/null || return
		sleep 0.1
	done
}
# Somebody may take the port before it does.
for _ in 1 2 3 4 5; do
	start && break
done
ok 'it answers' asks 'vector(1)' 'one == 1'
ok 'it scrapes' until_asked 'up{job="shoal"}' 'one == 1'

# Each is exactly what that many workloads make of it, and never fell.
counts() { # RUNS
	python3 - "http://127.0.0.1:$port" "$1" <<'PYTHON'
import json, sys, urllib.parse, urllib.request
base, runs = sys.argv[1], int(sys.argv[2])
def value(query):
    with urllib.request.urlopen(base + '/api/v1/query?' + urllib.parse.urlencode({'query': query})) as answer:
        result = json.load(answer)['data']['result']
    return result[0]['value'][1] if len(result) == 1 else None
wrong = n = 0
for line in open('expected'):
    series, each = line.rsplit(' ', 1)
    wanted, got = str(int(each) * runs), (value(series), value(f'resets({series}[1h])'))
    n += 1
    if got != (wanted, '0'):
        print(series, 'is', got, 'and not', wanted)
        wrong += 1
sys.exit(wrong or n < 20)
PYTHON
}
now() {
	date +%s.%N
}
for i in 1 2 3; do
	ok "processes use it, and some are killed: $i" sh -c "'$workload' exact '$SHOAL_CACHE' $i >expected"
	ended=$(now)
	ok 'it has scraped since' until_asked 'timestamp(shoal_entries)' "one and one > $ended"
	ok "each count is exact, of $(wc -l <expected)" counts $i
done
ok 'all keyspaces together' asks 'sum(shoal_hits_total)' "one == 3 * (21000 + 300 + 1 + 7)"
ok 'the cache itself' asks 'sum(shoal_bytes)' "one == 4 * 1024 * 1024"
ok 'keys, about: each run has 376' asks 'shoal_distinct_keys{keyspace="users",version="1"}' '960 < one < 1300'
ok 'the rules are evaluated' until_asked 'shoal:requests:rate5m{keyspace="users",version="1"}' 'one and one > 0'
ratio() {
	until_asked 'shoal:keyspace_hit_ratio:rate5m{keyspace="users"}' 'one and 0.8 < one < 1'
}
ok 'the hit rate, of both versions' ratio
ok 'nothing pages' asks 'ALERTS{alertstate="firing",severity="page"}' 'not v'

"$shoal" destroy --force 2>/dev/null
ok 'the cache is destroyed: the target is down' until_asked 'up{job="shoal"}' 'one == 0'
"$shoal" create --size 2m
ok 'and up with the next one' until_asked 'sum(shoal_bytes)' 'one == 2 * 1024 * 1024'
ended_well() {
	kill -TERM $exporter && wait $exporter && exporter=
}
ok 'SIGTERM ends the exporter' ended_well
finish
