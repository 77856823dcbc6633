#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: replay.sh SHOAL-REPLAY
# The trace tool, on traces whose answers are known. Prints TAP.
replay=$(realpath "$1")
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
that() { # OUTPUT EXPRESSION-OVER-r: of the JSON in that file
	cat "$1"
	python3 -c "import json, sys; r = json.load(open('$1')); sys.exit(not ($2))"
}

# shellcheck disable=SC2317
ends() { # STATUS MESSAGE OPTION...
	status=$1 message=$2
	shift 2
	"$replay" "$@" >out 2>&1 </dev/null
	got=$?
	echo "exit status $got"
	cat out
	[ "$got" -eq "$status" ] && grep -qF -e "$message" out
}

# shellcheck disable=SC2317
same_misses() { # OUTPUT OUTPUT
	python3 -c "import json, sys; a, b = (json.load(open(f)) for f in sys.argv[1:])
print(a, b)
sys.exit(a['misses'] != b['misses'] or a['requests'] != b['requests'])" "$1" "$2"
}

run() { # OUTPUT TRACE CAPACITY OPTION...
	out=$1 trace=$2 capacity=$3
	shift 3
	"$replay" --trace "$trace" --capacity "$capacity" --json "$@" >"$out"
}

# 20,000 requests, some keys much more often than others; 100 to 1,500 bytes; a key's size is not always the same.
python3 -c '
import random
r = random.Random(1)
for i in range(20000):
    key = int(4000 * r.random() ** 3)
    print(key * 10000000019, 100 + (key * 37 + (i % 50 == 0)) % 1400)
' >trace
keys=$(cut -d' ' -f1 trace | sort -u | wc -l)
echo '# twice the footprint'
run fits trace 200%
ok 'all requests are made' that fits "r['requests'] == 20000 and r['keys'] == $keys"
ok 'what fits misses once' that fits "r['misses'] == $keys and r['evicted_extents'] == 0"
ok 'ratios, bytes and costs add up' that fits "abs(r['miss_ratio'] - r['misses'] / r['requests']) < 1e-5 \
	and 0 < r['byte_miss_ratio'] < 1 and r['value_bytes_peak'] <= r['footprint'] \
	and r['segment_bytes'] == r['log_bytes'] + r['reserve_bytes'] + r['table_bytes'] \
	and abs(r['log_bytes'] - r['header_bytes'] - r['capacity']) < 0.01 * r['capacity']"
ok 'what the README promises is there' that fits "all(k in r for k in ('reappended_bytes', 'hits_that_wrote'))"
run three trace 200% --processes 3
ok 'three processes: the same requests and misses' same_misses fits three
run single trace 200% --processes 3 --batch 1
ok 'so do turns of one request' same_misses fits single

echo '# two thirds of the footprint: it evicts'
run fifo trace 66% --policy fifo
run s3fifo trace 66% --policy s3fifo
ok 'too small: more misses' that fifo "r['requests'] == 20000 and r['misses'] > $keys and r['evicted_extents'] > 0"
ok 'values stay within the capacity' that fifo "0.9 * r['capacity'] < r['value_bytes_peak'] <= r['capacity']"
ok 'both policies' that s3fifo "r['requests'] == 20000 and r['misses'] > $keys and r['policy'] == 's3fifo'"
run two trace 66% --processes 2 --batch 1
ok 'two processes evict, too' that two "r['requests'] == 20000 and r['misses'] > $keys and r['evicted_extents'] > 0"

echo '# what a request means'
printf '%s\n' '7 100' '7 200' '8 0' '8 3000000' '9 5' >sizes
run meaning sizes 2000000
ok 'a hit changes nothing, and its own size is what it weighs' that meaning \
	"r['misses'] == 3 and abs(r['byte_miss_ratio'] - 105 / 3000305) < 1e-5"
printf '%s\n' '1 1000000' '1 1000000' '2 10' '2 10' >large
run too_big large 2000000
ok 'what fits no extent misses each time' that too_big "r['misses'] == 3 and r['too_big'] == 2"

echo '# input'
run piped - 200% <trace
ok 'standard input' same_misses fits piped
if command -v zstd >/dev/null; then
	zstd -q trace
	run packed trace.zst 200%
	ok 'zstd' same_misses fits packed
	head -c 3000 trace.zst >cut.zst
	ok 'zstd that is cut off' ends 1 'cut.zst: broken or cut off zstd' --trace cut.zst --capacity 200%
fi
printf '%s\n' '1 10' '2 20' '3' '4 40' >wrong
ok 'a wrong line is named' ends 1 'wrong:3: ' --trace wrong --capacity 2000000
printf '1 10\n2 -20\n' >wrong
ok 'a negative size' ends 1 'wrong:2: ' --trace wrong --capacity 2000000
: >empty
ok 'no line at all' ends 1 'empty: no request' --trace empty --capacity 2000000
ok 'no such trace' ends 1 'nowhere: No such file' --trace nowhere --capacity 2000000
ok 'a capacity that no segment is small enough for' ends 1 'too small' --trace trace --capacity 1000
ok 'more extents than it has room for' ends 1 'so many extents' --trace trace --capacity 2000000 --extents 1000000

echo '# the command line'
ok 'help' ends 0 'usage: replay' --help
ok 'no trace' ends 2 --trace --capacity 2000000
ok 'no capacity' ends 2 --capacity --trace trace
ok 'no such option' ends 2 --wish --trace trace --capacity 2000000 --wish
ok 'no such policy' ends 2 --policy --trace trace --capacity 2000000 --policy lru
ok 'a capacity that is no number' ends 2 --capacity --trace trace --capacity 2M
ok 'no process' ends 2 --processes --trace trace --capacity 2000000 --processes 0
ok 'one word too many' ends 2 more --trace trace --capacity 2000000 more

echo "1..$n"
exit $failed
