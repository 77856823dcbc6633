#!/bin/bash
# SPDX-License-Identifier: MIT
# usage: bench.sh NGINX MODULE [ROUNDS [SECONDS]]
# Hits per second of one worker, a body of 2 KiB: shoal beside proxy_cache and `return 200`, in turns; the medians.
# Needs wrk, curl and python3. The goals: 1.3 of proxy_cache, 0.85 of return.
set -eu
nginx=$1 module=$(realpath "$2") rounds=${3:-3} seconds=${4:-3}
dir=$(mktemp -d) master=''
finish() {
	[ -z "$master" ] || { kill -QUIT "$master" && wait "$master" || true; }
	rm -rf "$dir" /dev/shm/shoal.bench-$$.v*
}
trap finish EXIT
chmod 755 "$dir"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
body=$(printf 'x%.0s' {1..2048})
mkdir "$dir/origin"
printf '%s' "$body" >"$dir/origin/body"
cat >"$dir/nginx.conf" <<END
load_module $module;
daemon off; pid nginx.pid; error_log error.log error; worker_processes 1;
events { worker_connections 1024; }
http {
	access_log off; keepalive_requests 100000000;
	client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
	proxy_cache_path peer keys_zone=peer:8m;
	shoal_zone bench-$$ size=64m;
	server {
		listen 127.0.0.1:$port;
		default_type text/plain;
		location /origin/ { root $dir; }
		location = /return { return 200 "$body"; }
		location = /shoal { shoal bench-$$; shoal_fresh 1h; proxy_pass http://127.0.0.1:$port/origin/body; }
		location = /proxy_cache { proxy_cache peer; proxy_cache_valid 1h;
			proxy_pass http://127.0.0.1:$port/origin/body; }
	}
}
END
"$nginx" -p "$dir" -c nginx.conf &
master=$!
ways='return proxy_cache shoal'
for way in $ways; do
	curl -sf --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 20 -o "$dir/got" \
		"http://127.0.0.1:$port/$way"
	[ "$(wc -c <"$dir/got")" = 2048 ] || { echo "$way: no body" >&2 && exit 1; }
done
worker=$(pgrep -P "$master" -f worker)
ticks() { awk '{ print $14 + $15 }' "/proc/$worker/stat"; }
for ((i = 0; i < rounds; i++)); do
	for way in $ways; do
		before=$(ticks)
		wrk -t1 -c32 -d"${seconds}s" "http://127.0.0.1:$port/$way" >"$dir/wrk"
		awk '/Requests\/sec/ { print $2 }' "$dir/wrk" >>"$dir/$way.rates"
		awk -v t="$(($(ticks) - before))" -v hz="$(getconf CLK_TCK)" \
			'/requests in/ { print t / hz * 1e6 / $1 }' "$dir/wrk" >>"$dir/$way.us"
	done
done
median() { sort -n "$dir/$1" | awk '{ v[NR] = $1 }
	END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
for way in $ways; do
	printf '%-12s %7.0f hits/s  %6.2f us of CPU each  (%s)\n' "$way" \
		"$(median "$way.rates")" "$(median "$way.us")" \
		"$(tr '\n' ' ' <"$dir/$way.rates")"
done
compare() { # FILE-KIND WORD EXPONENT
	awk -v s="$(median "shoal.$1")" -v p="$(median "proxy_cache.$1")" -v r="$(median "return.$1")" \
		-v what="$2" -v e="$3" \
		'BEGIN { printf "shoal, by %s: %.2f of proxy_cache, %.2f of return\n", what, (s / p) ^ e, (s / r) ^ e }'
}
compare rates 'hits/s' 1
compare us 'CPU (which a busy machine blurs less)' -1
