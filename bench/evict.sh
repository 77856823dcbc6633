#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# How good is the eviction? See usage() below.
set -euo pipefail

usage() {
	cat <<'END'
usage: bench/evict.sh --traces DIR [REPLAY-OPTION...]

Replays each DIR/NAME.txt.zst at 1%, 10% and 30% of its footprint, with both policies, and prints a Markdown table of
miss ratios beside those that DIR/anchors.tsv has for other algorithms. Its columns, tab-separated: trace, mode, share,
capacity, algorithm, request miss ratio; mode `bytes` is preferred to `count`, whose capacities are values of 4,096
bytes. A trace without anchors is replayed, and judged by nothing. Further options go to bench/replay: --processes 4,
--extents 128.

Exit status 1 when a point is more than 1.5 points (hundredths) above S3FIFO, or more than 0.3 above FIFO, or the mean
of all is not at least 1 below LRU, or a point that all of FIFO, LRU and S3FIFO agree about is elsewhere.
END
}

here=$(cd "$(dirname "$0")" && pwd)
shares='0.01 0.1 0.3'
traces=''

while [ $# -gt 0 ]; do
	case $1 in
	--traces) traces=${2-} && shift ;;
	--help | -h) usage && exit 0 ;;
	*) break ;;
	esac
	shift || { usage >&2 && exit 2; }
done
[ -n "$traces" ] || { usage >&2 && exit 2; }
anchors=$traces/anchors.tsv
[ -r "$anchors" ] || { echo "evict: $anchors: not readable" >&2 && exit 2; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

anchors_of() { # TRACE SHARE: lines "ALGORITHM RATIO CAPACITY-IN-BYTES"
	awk -F '\t' -v trace="$1" -v share="$2" '
		$1 == trace && $2 == "bytes" { has_bytes = 1 }
		$1 == trace && $3 == share { n++; mode[n] = $2; 
			line[n] = $5 " " $6 " " ($2 == "bytes" ? $4 : $4 * 4096) }
		END { for (i = 1; i <= n; i++)
			if (mode[i] == (has_bytes ? "bytes" : "count")) print line[i] }' "$anchors"
}

field() { # NAME: of the JSON on standard input
	sed -n "s/^ *\"$1\": \([0-9.]*\),*$/\1/p"
}

point() { # FILE SHARE [REPLAY-OPTION...]: one line of the results
	local file=$1 share=$2 name list capacity
	shift 2
	name=$(basename "$file" .txt.zst)
	list=$(anchors_of "$name" "$share")
	capacity=$(awk 'NR == 1 { print $3 }' <<<"$list")
	[ -n "$capacity" ] || capacity=$(awk -v share="$share" 'BEGIN { print 100 * share "%" }')
	for policy in s3fifo fifo; do
		"$here/replay" --trace "$file" --capacity "$capacity" "$@" --policy $policy --json >"$scratch/$policy"
	done
	printf '%s\t%s\t%s\t%s\t%s\t%s' "$name" "$share" "$(field capacity <"$scratch/s3fifo")" \
		"$(field miss_ratio <"$scratch/s3fifo")" "$(field miss_ratio <"$scratch/fifo")" \
		"$(awk '/"requests"|"misses"|"hits_that_wrote"/ { v[$1] = $2 + 0 }
			END { hits = v["\"requests\":"] - v["\"misses\":"]
				print hits ? 100 * v["\"hits_that_wrote\":"] / hits : 0 }' "$scratch/s3fifo")"
	for algorithm in FIFO LRU SIEVE S3FIFO ARC; do
		printf '\t%s' "$(awk -v a=$algorithm '$1 == a { print $2 }' <<<"$list")"
	done
	echo
}

table() { # RESULTS
	awk -F '\t' '
		function ratio(r) {
			return r == "" ? "-" : sprintf("%.4f", r)
		}
		function points(to) {
			return to == "" ? "-" : sprintf("%+.2f", 100 * ($4 - to))
		}
		function complain(what) {
			complaints = complaints "\n" $1 " at " 100 * $2 "%: " what
		}
		BEGIN {
			print "| trace | capacity | shoal | its FIFO | FIFO | LRU | SIEVE | S3FIFO | ARC | to S3FIFO " \
				"| to LRU | hits that write |"
			print "|---|---|---|---|---|---|---|---|---|---|---|---|"
		}
		{
			printf "| %s | %g%% = %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %.1f%% |\n", $1,
				100 * $2, $3, ratio($4), ratio($5), ratio($7), ratio($8), ratio($9), ratio($10),
				ratio($11), points($10),
				points($8), $6
		}
		$7 != "" && $8 != "" && $10 != "" {
			n++
			to_lru += 100 * ($4 - $8)
			to_s3fifo += 100 * ($4 - $10)
			if (100 * ($4 - $10) > 1.5)
				complain("more than 1.5 points above S3FIFO")
			if (100 * ($4 - $7) > 0.3)
				complain("more than 0.3 points above FIFO")
			if (sprintf("%.3f", $7) == sprintf("%.3f", $10) &&
				sprintf("%.3f", $8) == sprintf("%.3f", $10) &&
			    sprintf("%.3f", $4) != sprintf("%.3f", $10))
				complain("not what all the others have")
		}
		END {
			if (!n) {
				print "\nno point has anchors"
				exit 1
			}
			printf "\nMean of %d points: %+.2f to S3FIFO, %+.2f to LRU\n", n, to_s3fifo / n, to_lru / n
			if (to_lru / n > -1)
				complaints = complaints "\nthe mean is not 1 point below LRU"
			print complaints == "" ? "All within the bounds." : "Out of bounds:" complaints
			exit complaints != ""
		}' "$1"
}

for file in "$traces"/*.txt.zst; do
	[ -e "$file" ] || { echo "evict: no $file" >&2 && exit 2; }
	for share in $shares; do
		point "$file" "$share" "$@"
	done
done >"$scratch/results"
table "$scratch/results"
