#!/bin/bash
# SPDX-License-Identifier: MIT
# stat: the counts of a workload that is known
. "$(dirname "$0")/lib.sh"

ok 'no cache: exit status 3' ends 3 'no such segment' stat
"$shoal" create --size 4m
ok 'an empty cache' json "len(rows) == 1 and row['cache'] == '$SHOAL_CACHE' and row['hit_rate'] is None \
	and row['entries'] == 0 and row['size'] == 4 << 20 == \
	row['bytes_live'] + row['bytes_dead'] + row['bytes_free'] + row['bytes_overhead']" stat --json
ok 'a table of it' shows 'total' stat
ok 'no keyspace: exit status 1' ends 1 "no keyspace 'user'" stat -k user

# 2 misses, 3 loads (each a miss), 1 failure (a miss), 4 fresh hits, 2 stale hits
workload=(get:a get:b load:a load:b load:c fail:d get:a get:b get:c load:a stale:e get:e get:e)
ok 'a workload' "$driver" "$SHOAL_CACHE" user 2 "${workload[@]}"
ok 'another version, another keyspace' "$driver" "$SHOAL_CACHE" user 3 get:a
"$driver" "$SHOAL_CACHE" item 1 set:x get:x
counted() {
	json "[r for r in rows if r.get('keyspace') == '$1' and r['version'] == $2 and $3] != [] " stat --json
}
ok 'hits, misses, loads' counted user 2 \
	"(r['hits_fresh'], r['hits_stale'], r['misses'], r['loads'], r['load_errors']) == (4, 2, 6, 4, 1)"
ok 'ratios' counted user 2 "(r['hit_rate'], r['stale_share'], r['loads_per_request']) == (0.5, 2 / 12, 4 / 12) or \
	abs(r['stale_share'] - 1 / 6) < 1e-6 and abs(r['loads_per_request'] - 1 / 3) < 1e-6 and r['hit_rate'] == 0.5"
# Distinct keys are an estimate: two of five may fall together.
ok 'keys, policy, times' counted user 2 "2 <= r['distinct_keys'] <= 5 \
	and (r['fresh_ms'], r['stale_ms'], r['error_ms'], r['lease_ms']) == \
	(3600000, 86400000, 0, 30000) and r['last_store_ms'] >= 0 and r['load_p50_ms'] > 0 and r['running'] == 0"
ok 'the other version' counted user 3 "(r['misses'], r['hits_fresh'], r['last_store_ms']) == (1, 0, None)"
ok 'the other keyspace' counted item 1 "(r['misses'], r['hits_fresh'], r['loads']) == (0, 1, 0)"
ok 'the sum of them is the total' json "'cache' in row and len(rows) == 4 and \
	all(row[f] == sum(r[f] for r in rows[1:]) for f in ('hits_fresh', 'hits_stale', 'misses', 'loads', \
	'load_errors', 'load_ns_sum')) and row['entries'] == 5" stat --json
ok 'one version' json "len(rows) == 1 and row['version'] == 3" stat -k user@3 --json
ok 'all versions of a keyspace, without the total' \
	json "sorted(r['version'] for r in rows) == [2, 3]" stat -k user --json
table() {
	"$shoal" stat >out
	cat out
	# REQ HITS STALE LOADS L/REQ COAL ERRORS TAKEN P50 P99 OLDEST KEYSPACE
	awk '$12 == "user@2" && $1 == 12 && $2 == "50.0%" && $3 == "16.7%" && $4 == 4 &&
		$5 == "0.3333" && $6 == 0 && $7 == 1 { found = 1 } END { exit !found }' out
}
ok 'the table says the same' table

echo '# again and again'
ok 'as many times as asked' json "len(rows) == 12" stat --json --watch 1ms --count 3
ok 'the first tells of all time, the others of the time since' json "rows[0]['misses'] == 7 \
	and rows[0]['seconds'] == 0 and all(r['misses'] == r['hits_fresh'] == r['evicted_entries'] == 0 \
	and r['seconds'] > 0 and r['entries'] == 5 for r in rows[4::4])" \
	stat --json --watch 1ms --count 3
# A table is there, then something is counted, then the next table shows that alone.
watched() {
	local line
	exec 4< <("$shoal" stat --json --watch 1ms -k item@1)
	read -r line <&4
	echo "$line" | grep -q '"hits_fresh":1,' || return
	"$driver" "$SHOAL_CACHE" item 1 get:x get:x
	until echo "$line" | grep -q '"hits_fresh":2,'; do
		read -r line <&4 || return
		echo "$line" | grep -qE '"hits_fresh":[0-2],' || return
	done
	exec 4<&-
}
ok 'what is counted meanwhile' watched
rates() {
	"$shoal" stat --watch 1ms --count 2 >out
	grep -q 'REQ/s' out && [ "$(grep -c total out)" = 2 ]
}
ok 'the second table has rates' rates
ok 'Prometheus text' shows '# TYPE shoal_' stat --prom
ok 'who looks is not there' json "row['processes'] == 0 and row['pins'] == 0" stat --json
full() {
	"$shoal" stat --watch 1ms >/dev/full 2>err
	[ $? = 6 ] && grep -q 'No space left' err
}
ok 'output that can not be written ends it' full
finish
