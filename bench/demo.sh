#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A stampede on a real database, without a cache, with the usual one, and with shoal. See usage() below.
set -euo pipefail

usage() {
	cat <<'END'
usage: bench/demo.sh [--origin sqlite|postgres] [--trace FILE] [--out DIR] [--quick]

A prefork HTTP server (8 workers) answers /item/ID from a database whose query costs 20-100 ms. 64 connections ask for
items in four acts:

  1  a cold start
  2  the hot keys expire together
  3  the worker that loads the hottest key is killed, three times
  4  a deploy changes the key format under full load: "item:17" becomes "v2:item:17" in all workers at once

Acts 1 to 3 are played without a cache, with delete-then-refill, and with shoal (2 loads per core at once). Act 4 is
played with a naive new prefix (delete-then-refill, where nothing coalesces), with shoal_keyspace_fallback (the new keys
find the old values), and with shoal and a cold cache, at most 4 loads at once.

  --origin NAME  sqlite (default), or postgres: a server of our own, on a private port
  --trace FILE   replay a trace, lines "<key-id> <size>", plain or zstd, instead of Zipf 0.99 over 100 keys
  --out DIR      where measurements and picture go (default: build/demo)
  --quick        acts of 5 seconds instead of 12

What is missing is installed by apt, what isn't built is built, and the database is made once and kept in
~/.cache/shoal-demo (root: /var/cache/shoal-demo). Nothing is left running, however the demo ends.
END
}

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
build=$top/build
origin=sqlite trace='' out=$build/demo seconds=12
connections=64 keys=100
server_pid='' load_pid='' postgres_pid='' scratch='' postgres_run=''

fail() {
	echo "demo: $*" >&2
	exit 1
}

while [ $# -gt 0 ]; do
	case $1 in
	--origin) origin=${2-} && shift ;;
	--trace) trace=${2-} && shift ;;
	--out) out=${2-} && shift ;;
	--quick) seconds=5 ;;
	--help | -h) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
	shift || { usage >&2 && exit 2; }
done
case $origin in sqlite | postgres) ;; *) usage >&2 && exit 2 ;; esac
[ -n "$out" ] || { usage >&2 && exit 2; }
[ -z "$trace" ] || [ -r "$trace" ] || fail "$trace: not readable"

if [ -t 1 ] && [ -z "${NO_COLOR-}" ] && [ "${TERM-dumb}" != dumb ]; then
	bold=$'\e[1m' plain=$'\e[0m'
else
	bold='' plain=''
fi

say() {
	echo "$bold$*$plain"
}

# ---- nothing is left: only what this script started is ended ------------------------------------------------------

end() { # SIGNAL PID
	[ -n "$2" ] || return 0
	kill "-$1" "$2" 2>/dev/null || :
	wait "$2" 2>/dev/null || :
}

cleanup() {
	trap '' INT TERM HUP
	end TERM "$load_pid"
	end TERM "$server_pid"
	end INT "$postgres_pid"
	[ -z "$scratch" ] || rm -rf "$scratch"
	[ -z "$postgres_run" ] || rm -rf "$postgres_run"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'echo; exit 130' INT
trap 'exit 143' TERM

# ---- set-up -------------------------------------------------------------------------------------------------------

install_packages() {
	# shellcheck source=../tests/packages.sh disable=SC1091
	. "$top/tests/packages.sh"
	need gcc libc6-dev meson ninja-build pkg-config liburcu-dev libxxhash-dev liblz4-dev libzstd-dev \
		libmicrohttpd-dev libsqlite3-dev \
		gnuplot-nox zstd
	[ "$origin" = postgres ] || return 0
	local fresh=''
	[ -n "$(postgres_bin)" ] || fresh=yes
	need postgresql libpq-dev
	# The package starts a server by itself, which nobody asked for.
	if [ -n "$fresh" ]; then
		pg_lsclusters -h | while read -r version cluster _ status _; do
			[ "$status" != online ] || $(sudo_if_needed) pg_ctlcluster "$version" "$cluster" stop
		done
	fi
}

sudo_if_needed() {
	[ "$(id -u)" = 0 ] || echo sudo
}

postgres_bin() {
	local newest
	newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
	[ ! -x "$newest" ] || dirname "$newest"
}

build_programs() {
	local log=$scratch/build.log targets='bench/shoal-demo-server bench/shoal-demo-load'
	if [ -e "$build/build.ninja" ]; then
		meson setup --reconfigure "$build" "$top" -Dbench=enabled >"$log" 2>&1
	else
		meson setup "$build" "$top" --buildtype=release -Dbench=enabled >"$log" 2>&1
	fi || { tail -n 20 "$log" >&2 && fail 'meson failed'; }
	# shellcheck disable=SC2086 # words
	ninja -C "$build" $targets >"$log" 2>&1 || { tail -n 40 "$log" >&2 && fail 'the build failed'; }
}

as_postgres() { # run by the user that PostgreSQL accepts, and ended with this script even if that is killed
	local who=()
	[ "$(id -u)" != 0 ] || who=(--reuid=postgres --regid=postgres --init-groups)
	exec setpriv "${who[@]}" --pdeathsig INT -- "$@"
}

start_postgres() {
	local bin data port=54329 version
	bin=$(postgres_bin)
	version=$(basename "$(dirname "$bin")")
	data=$cache/postgres-$version
	postgres_run=$(mktemp -d /tmp/shoal-demo-postgres.XXXXXX)
	[ -d "$data" ] || install -d -m 0700 "$data"
	[ "$(id -u)" != 0 ] || chown postgres: "$data" "$postgres_run"
	if [ ! -e "$data/PG_VERSION" ]; then
		(cd / && as_postgres "$bin/initdb" -D "$data" -U demo -A trust -E UTF8 --locale=C --no-sync) \
			>"$scratch/initdb.log" 2>&1 || { cat "$scratch/initdb.log" >&2 && fail 'initdb failed'; }
	fi
	# Its port is a socket in a directory that nobody else may enter, so no password is needed and
	# no TCP port taken.
	(cd / && as_postgres "$bin/postgres" -D "$data" -k "$postgres_run" -p $port -c listen_addresses= \
		-c shared_buffers=256MB -c max_connections=200 -c dynamic_shared_memory_type=mmap -c fsync=off \
		-c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=64MB) \
		>"$out/postgres.log" 2>&1 &
	postgres_pid=$!
	for _ in $(seq 100); do
		"$bin/pg_isready" -q -h "$postgres_run" -p $port && break
		kill -0 $postgres_pid 2>/dev/null || { cat "$out/postgres.log" >&2 && fail 'PostgreSQL did not start'; }
		sleep 0.1
	done
	spec="postgres:host=$postgres_run port=$port user=demo dbname=postgres"
}

set_up() {
	scratch=$(mktemp -d "${TMPDIR:-/tmp}/shoal-demo.XXXXXX")
	say 'Set-up'
	install_packages
	echo '  building'
	build_programs
	server=$build/bench/shoal-demo-server load=$build/bench/shoal-demo-load
	cache=/var/cache/shoal-demo
	[ "$(id -u)" = 0 ] || cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal-demo
	mkdir -p "$cache" "$out"
	out=$(cd "$out" && pwd)
	rm -f "$out"/{cold,expire,kill}-{none,habit,shoal}.csv "$out"/switch-{naive,fallback,cold}.csv \
		"$out/summary.tsv" "$out/demo.png"
	if [ "$origin" = postgres ]; then start_postgres; else spec=sqlite:$cache/line-items-1.db; fi
	echo "  database: $origin, built once"
	echo "  $("$server" --origin "$spec" --prepare)"
	stream=(--keys "$keys")
	if [ -n "$trace" ]; then
		zstd -dcqf -- "$trace" >"$scratch/trace" || fail "$trace: not zstd"
		stream=(--trace "$scratch/trace")
		echo "  requests: $(wc -l <"$scratch/trace") of $trace"
	else
		echo "  requests: Zipf 0.99 over $keys keys"
	fi
}

# ---- the acts -----------------------------------------------------------------------------------------------------

start_server() { # MODE [OPTION...]
	local mode=$1
	shift
	rm -f "$scratch/port"
	"$server" --origin "$spec" --mode "$mode" --connections $connections --port-file "$scratch/port" "$@" &
	server_pid=$!
	for _ in $(seq 100); do
		[ ! -s "$scratch/port" ] || return 0
		kill -0 $server_pid 2>/dev/null || break
		sleep 0.05
	done
	fail 'the server did not start'
}

play() { # ACT MODE LABEL [OPTION...]
	local act=$1 mode=$2 label=$3 rc=0
	shift 3
	"$load" --port "$(cat "$scratch/port")" --act "$act" --mode "$mode" --label "$label" --seconds $seconds \
		--connections $connections "${stream[@]}" --csv "$out/$act-$mode.csv" \
		--summary "$out/summary.tsv" "$@" &
	load_pid=$!
	wait $load_pid || rc=$?
	load_pid=''
	[ $rc = 0 ] || fail "$label: the load generator failed"
}

stop_server() {
	end TERM "$server_pid"
	server_pid=''
}

play_mode() { # MODE TITLE
	local mode=$1 fill=()
	say "$2"
	# The later acts begin warm: what the first left out is asked for once. A trace is played again.
	[ -n "$trace" ] || [ "$mode" = none ] || fill=(--fill)
	start_server "$mode"
	play cold "$mode" '1 cold start'
	if [ "$mode" = none ]; then
		echo '  2 keys expire                nothing can expire without a cache: not played'
	else
		play expire "$mode" '2 keys expire together' "${fill[@]}"
	fi
	play kill "$mode" '3 loader is killed' "${fill[@]}"
	case $mode in
	habit) play switch naive '4 new keys, naive prefix' "${fill[@]}" ;;
	shoal) play switch fallback '4 new keys, fallback' "${fill[@]}" ;;
	esac
	stop_server
}

# Act 4 once more, on a server of its own: the bound is the segment's, and nothing falls back. It is warm before the
# switch (with a trace: as far as the trace has come).
play_cold_switch() { # TITLE
	local fill=()
	say "$1"
	[ -n "$trace" ] || fill=(--fill)
	start_server shoal --loads 4 --no-fallback
	play switch cold '4 new keys, cold' "${fill[@]}"
	stop_server
}

# ---- results ------------------------------------------------------------------------------------------------------

table() {
	local refreshable=$keys
	[ -z "$trace" ] || refreshable=0 # its keys are not counted
	awk -F '\t' -v bold="$bold" -v plain="$plain" -v keys="$refreshable" '
		function row(act, mode, name) {
			if ((act, mode) in line) {
				split(line[act, mode], f, FS)
				printf "  %-22s %9d %10d %10.1f %9.1f %9d %8d", name, f[3], f[4], f[5], f[6], f[7], f[8]
				if (act == "switch" && f[14] >= 0)
					printf " %9.1f", f[14]
				print ""
			} else
				printf "  %-22s %9s   nothing can expire without a cache\n", name, "-"
		}
		function act(id, title) {
			print bold title plain
			row(id, "none", "no cache")
			row(id, "habit", "delete, then refill")
			row(id, "shoal", "shoal")
		}
		$1 == "expire" && $2 == "shoal" { refreshed = $3 < keys ? $3 : keys }
		{ line[$1, $2] = $0; wrong += $11; refused += $10; unfinished += $12; killed[$2] = $13 }
		END {
			printf "\n%s%-24s %9s %10s %10s %9s %9s %8s %9s%s\n", bold, "", "database", "answers", "p50",
				"p99",
				"max", "errors", "lowest", plain
			printf "%s%-24s %9s %10s %10s %9s %9s %8s %9s%s\n", bold, "",
				"queries", "per s", "ms", "ms", "ms", "",
				"hit rate", plain
			act("cold", "1 Cold start on the hot keys")
			act("expire", "2 The hot keys expire together")
			act("kill", "3 The worker that loads the hottest key is killed, three times")
			print bold "4 The key format changes under full load" plain
			row("switch", "naive", "naive prefix")
			row("switch", "fallback", "shoal, fallback")
			row("switch", "cold", "shoal, cold, 4 loads")
			printf "\nActs 2 to 4 begin warm; their figures are taken from the first expiry, kill or " \
				"switch on.\n"
			if (keys)
				printf "Act 2 with shoal: %d of %d keys were refreshed when it ended%s.\n",
					refreshed, keys,
					refreshed < keys ? "; the rest of them fell to act 3" : ""
			printf "Act 3 has errors in every mode: what the killed worker had in hand is lost with it, " \
				"up to 10 requests\n"
			printf "each time. Killed in the middle of that query: %d of 3 without a cache " \
				"(where it is one of many, and\nnobody else waits for it), " \
				"%d of 3 with delete-then-refill, %d of 3 with shoal, where another worker\n" \
				"took the load over and the rest went on waiting.\n",
				killed["none"], killed["habit"], killed["shoal"]
			if (killed["none"] + killed["habit"] + killed["shoal"] < 9)
				print "(Where a kill is missing, nobody asked for that key again in time.)"
			printf "Act 4: the naive prefix is delete-then-refill with new keys, " \
				"so nothing coalesces and no load is bounded.\nA value that falls back is a hit. " \
				"The hit rate, in %%, is of the new keys, over 50 look-ups or more.\n"
			if (wrong + refused + unfinished)
				printf "Of all errors: %d answers of another item, %d refused, %d without an answer " \
					"at the end.\n", \
					wrong, refused, unfinished
		}' "$out/summary.tsv"
}

picture() {
	local what="$origin, Zipf 0.99 over $keys keys"
	[ -z "$trace" ] || what="$origin, $(basename "$trace")"
	gnuplot -c "$here/demo.gp" "$out" "$out/demo.png" "$seconds" "8 workers, $connections connections, $what"
	echo "picture: $out/demo.png"
}

set_up
began=$SECONDS
play_mode none 'Without a cache'
play_mode habit 'With a cache: delete, then refill'
play_mode shoal 'With shoal'
play_cold_switch 'With shoal: new keys without the old values, at most 4 loads'
table
echo
picture
echo "The acts took $((SECONDS - began)) seconds; measurements: $out/*.csv"
