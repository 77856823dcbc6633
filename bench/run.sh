#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The whole comparison, in a quarter of an hour: installs the peers (Debian; told on stderr), builds, measures, and
# writes bench/results/: NAME.json, NAME.csv, NAME.png and NAME.svg of each measurement, bound.asm, instructions.txt,
# profile.md, and results.md, the tables of them all. Nothing else should run meanwhile.
#   bench/run.sh [--quick] [--readme] [NAME...]
# --quick: a tenth of the time, to see that it works. --readme: rewrites the table in README.md, too. NAME: those alone.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
results=$top/bench/results
time=(--seconds 0.15 --repeats 5) quick='' readme='' only=()
large=1M many=100k keys=1k,10k,100k,1M,4M,16M values=16,64,256,1k,4096,16384,65536,262144,1048576 herd=2,16,64,256 \
	crowd=1,2,4,8,16,32,64

while [ $# -gt 0 ]; do
	case $1 in
	--quick) quick=yes ;;
	--readme) readme=yes ;;
	-h | --help) sed -n '3,8s/^# \{0,1\}//p' "$0" && exit ;;
	-*) echo "run.sh: $1? See --help" >&2 && exit 2 ;;
	*) only+=("$1") ;;
	esac
	shift
done
# 16 M keys take 10 GB
awk '/^MemAvailable:/ { exit $2 < 14000000 }' /proc/meminfo || keys=${keys%,16M}
if [ -n "$quick" ]; then
	time=(--seconds 0.02 --warm-up 0.02 --repeats 3)
	large=50k many=2k keys=1k,10k,100k values=16,256,4096 herd=2,16 crowd=1,2,4
fi

# shellcheck source=../tests/packages.sh disable=SC1091
. "$top/tests/packages.sh"
need gcc libc6-dev binutils meson ninja-build pkg-config python3 gnuplot-nox liburcu-dev libxxhash-dev liblz4-dev \
	libzstd-dev libjansson-dev liblmdb-dev libck-dev memcached redis-server nginx-light libnginx-mod-http-lua \
	php-cli php-apcu >&2 || exit 1

bench() { "$top/bench/shoal-bench" "$@"; }

bench peers >/dev/null # builds
mkdir -p "$results"
cd "$results"
began=$SECONDS

has() { # PEER...: those of them that were built, comma-separated
	local built
	built=$(bench peers | awk '{ print $1 }')
	for peer; do
		! grep -qx "$peer" <<<"$built" || echo "$peer"
	done | paste -sd,
}

# A measurement goes on without a peer that fails; what failed altogether leaves no file.
measure() { # NAME COMMAND OPTION...
	local name=$1 command=$2 at=$SECONDS
	shift 2
	[ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $name "* ]] || return 0
	echo "== $name" >&2
	rm -f "$name".*
	if bench "$command" "${time[@]}" "$@" --json "$name.json" --csv "$name.csv" --plot "$name" >&2; then
		python3 - "$name.json" "bench/shoal-bench $command ${time[*]} $*" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
report['how'] = sys.argv[2]
json.dump(report, open(sys.argv[1], 'w'), indent=2)
END
	else
		echo "run.sh: $name failed" >&2
		failed=1
	fi
	echo "   $((SECONDS - at)) s" >&2
}

failed=0
inside=$(has bound shoal shoal-get rwlock robust-mutex lmdb lfht-memb lfht-qsbr ck-ht)
everybody=$inside,$(has apcu nginx-lua memcached redis)

measure hot read --keys 10k --value 100 --peers "$everybody"
measure hot-2 read --keys 10k --value 100 --processes 2 --peers "$everybody"
measure large read --keys $large --value 100 --zipf 0.99 --peers "$everybody"
measure big-values read --keys $many --value 4096 --zipf 0.99 --peers "$everybody"
measure mixed mixed --keys $large --value 100 --zipf 0.99 --processes 2 --peers "${everybody/,shoal-get/}"
measure set set --keys $large --value 100 --peers "${everybody/,shoal-get/}"
measure set-evicting set --keys $large --value 100 --capacity 50% --peers "$(has bound shoal apcu memcached redis)"
measure multiget multiget --keys $large --value 100 --zipf 0.99 --batch 16 \
	--peers "$(has bound shoal shoal-get lmdb memcached redis)"
measure huge-pages read --keys $large --value 100 --zipf 0.99 --peers "$(has bound bound-huge shoal shoal-huge)"
measure one-key scale --keys 1 --value 100 --processes 1,2 --access overlapped
measure stampede stampede --processes $herd \
	--peers "$(has futex-relay futex-wake-all shoal redis memcached nginx-cache apcu)"
measure coldstart coldstart --keys 1k --zipf 0.99 --processes 4,16 --load-us 1000
measure attach attach --keys 10k,$large --value 100
measure by-keys scale --keys "$keys" --value 100 --zipf 0.99
measure by-value scale --keys 500 --value $values
measure by-processes scale --keys 10k --value 100 --processes $crowd --access overlapped

objdump -d --no-show-raw-insn "$top/build/release/bench/shoal-bench" |
	awk '/^[0-9a-f]+ <bound_read>:$/, /^$/' >bound.asm
"$top/bench/instructions.sh" >instructions.txt || failed=1
"$top/bench/instructions.sh" --profile >profile.md || failed=1
python3 "$top/bench/tables.py" "$results" >results.md
if [ -n "$readme" ]; then
	python3 "$top/bench/tables.py" "$results" --readme "$top/README.md"
	"$top/bench/instructions.sh" --readme
fi
echo "$((SECONDS - began)) s; see $results/results.md" >&2
exit $failed
