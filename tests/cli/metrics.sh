#!/bin/bash
# SPDX-License-Identifier: MIT
# metrics: to standard output, into a file, over HTTP
. "$(dirname "$0")/lib.sh"

here=$SHOAL_CACHE
"$shoal" create --size 1m
"$shoal" create --cache "$here-two" --size 1m
"$shoal" set -k a key value
"$shoal" set -c "$here-two" -k b@3 key value

# A process in the background whose standard error is the file "said". $started
start() { # ARGUMENT...
	rm -f served said # else the last one's might be taken for its own
	"$shoal" "$@" >served 2>said </dev/null &
	started=$!
}

stop() { # SIGNAL: it ends well by that
	kill -"$1" "$started" && wait "$started" && [ ! -s served ]
}

# Till the command succeeds, or the process in the background has ended.
until_() { # COMMAND...
	until "$@"; do
		kill -0 "$started" || return
		sleep 0.05
	done
}

has() { # FILE TEXT
	grep -qF -e "$2" "$1"
}

echo '# standard output'
ok 'one cache has no label' shows 'shoal_misses_total{keyspace="a",version="1",reason="absent"} 0' metrics
ok 'but on demand' shows "shoal_entries{cache=\"$here\"} 1" metrics --label
same() {
	"$shoal" stat --prom | grep -v '^shoal_last_store_age' >wanted
	"$shoal" metrics | grep -v '^shoal_last_store_age' | cmp - wanted && [ "$(wc -l <wanted)" -gt 100 ]
}
ok 'the same is stat --prom, but for ages' same
two() {
	shows "shoal_entries{cache=\"$here\"} 1" metrics -c "$here" -c "$here-two" &&
		has out "shoal_entries{cache=\"$here-two\"} 1" &&
		has out "{cache=\"$here-two\",keyspace=\"b\",version=\"3\"}" && ! has out 'shoal_entries 1'
}
ok 'several are told apart' two
ok 'reading it leaves no trace' json "row['processes'] == 0" info --json
if type promtool >/dev/null 2>&1; then
	judged() {
		"$shoal" "$@" | promtool check metrics
		[ "${PIPESTATUS[*]}" = '0 0' ]
	}
	ok 'promtool likes it' judged metrics
	ok 'that of several, too' judged metrics -c "$here" -c "$here-two"
else
	skip 'promtool likes it' 'no promtool (package prometheus)'
fi
ok 'a cache that is not there' ends 3 'no such segment' metrics -c "$here-none"
ok 'one of two is not there' ends 3 'no such segment' metrics -c "$here" -c "$here-none"
ok 'one named twice' ends 2 'twice' metrics -c "$here" -c "$here"
full() {
	"$shoal" metrics >/dev/full 2>err
	[ $? = 6 ] && has err 'No space left'
}
ok 'output that can not be written is an error' full

echo '# into a file'
mkdir dir
written() {
	(umask 026 && prints '' metrics --output dir/shoal.prom) && has dir/shoal.prom 'shoal_entries 1' &&
		[ "$(ls dir)" = shoal.prom ] &&
		[ "$(stat -c %a dir/shoal.prom)" = 640 ]
}
ok 'it is written, with the mode that the umask leaves' written
replaced() {
	exec 4<dir/shoal.prom
	echo old >dir/other && mv dir/other dir/shoal.prom && exec 5<dir/shoal.prom
	prints '' metrics --output dir/shoal.prom && [ "$(cat <&5)" = old ] && has dir/shoal.prom shoal_entries
	local r=$?
	exec 4<&- 5<&-
	return $r
}
ok 'who has the old file open reads it to its end' replaced
ok 'no such folder' ends 6 'No such file or directory' metrics --output none/shoal.prom
ok 'a folder is no file' ends 6 'Is a directory' metrics --output dir
ok 'and nothing is left of it' [ "$(echo dir*)" = dir ]
again() {
	start metrics --output dir/shoal.prom --every 10ms
	"$shoal" set -k a other value
	until_ has dir/shoal.prom 'shoal_entries 2' && stop TERM && [ "$(ls dir)" = shoal.prom ]
}
ok 'again and again, till SIGTERM' again
gone() {
	start metrics --cache "$here-gone" --output dir/gone.prom --every 10ms
	until_ [ -e dir/gone.prom ] && "$shoal" destroy --cache "$here-gone" && until_ [ ! -e dir/gone.prom ] &&
		has said 'no such segment' &&
		"$shoal" create --cache "$here-gone" --size 1m && until_ [ -e dir/gone.prom ] && stop INT &&
		[ "$(grep -c 'no such segment' said)" = 1 ] && has said 'is there again'
}
"$shoal" create --cache "$here-gone" --size 1m
ok 'a cache that goes and comes: no old figures meanwhile, and it is said once' gone

echo '# over HTTP'
url() { # what it said where it listens
	sed -n 's/^shoal metrics: \(http:.*\)/\1/p' said
}
listens() {
	[ -n "$(url)" ]
}
asks() { # STATUS TEXT [METHOD [PATH]]: the answer is in "answer"
	python3 - "$(url)" "$1" "${3-GET}" "${4-/metrics}" >answer <<'PYTHON' && has answer "$2"
import http.client, sys, urllib.parse
url, status, method, path = sys.argv[1:]
c = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
c.request(method, path)
r = c.getresponse()
print(r.status, r.getheader('Content-Type'), r.getheader('Content-Length'))
print(r.read().decode())
sys.exit(r.status != int(status))
PYTHON
}
listening() { # ARGUMENT...
	start metrics "$@"
	until_ listens
}
if "$shoal" metrics --listen x 2>&1 | grep -q 'without libmicrohttpd'; then
	skip 'over HTTP' 'no libmicrohttpd'
	finish
fi
ok 'it says where it listens' listening --listen 0
ok 'that is the loopback' has said 'http://127.0.0.1:'
ok 'GET' asks 200 'shoal_entries 2'
ok 'of that type' has answer 'text/plain; version=0.0.4; charset=utf-8'
"$shoal" delete -k a other
ok 'GET once more: as it is now' asks 200 'shoal_entries 1'
head_only() {
	asks 200 'version=0.0.4' HEAD && ! has answer shoal_entries
}
ok 'HEAD' head_only
ok 'another path' asks 404 'it is at /metrics' GET /
ok 'another method' asks 405 '' POST
port=$(url | grep -o '[0-9]*/metrics$' | cut -d/ -f1)
ok 'a port that is taken' ends 6 'another program listens there' metrics --listen "127.0.0.1:$port"
asks_quietly() {
	python3 - "$(url)" <<'PYTHON'
import sys, threading, urllib.request
wrong = []
def ask():
	for _ in range(20):
		if b'\nshoal_entries 1\n' not in urllib.request.urlopen(sys.argv[1]).read():
			wrong.append(1)
threads = [threading.Thread(target=ask) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
sys.exit(bool(wrong))
PYTHON
}
ok 'eight at once' asks_quietly
ok 'SIGTERM ends it' stop TERM
ok 'two caches' listening -c "$here" -c "$here-gone" --listen 127.0.0.1:0
ok 'GET' asks 200 "shoal_entries{cache=\"$here-gone\"} 0"
"$shoal" destroy -c "$here-gone"
left_out() {
	asks 200 "shoal_entries{cache=\"$here\"} 1" && ! has answer "cache=\"$here-gone\""
}
ok 'one that is gone is left out' left_out
ok 'SIGINT ends it, too' stop INT
"$shoal" create --cache "$here-gone" --size 1m
ok 'one cache' listening -c "$here-gone" --listen 0
"$shoal" destroy -c "$here-gone"
ok 'it is gone: 503, and why' asks 503 'no such segment'
"$shoal" create --cache "$here-gone" --size 2m
ok 'it is there again, and another one' asks 200 'shoal_bytes{state="free"}'
ok 'ends' stop TERM
for bad in x :9 127.0.0.1 127.0.0.1: 127.0.0.1:x 127.0.0.1:65536 localhost:9 256.0.0.1:1 ::1:9 '[::1:9' '[]:9' \
	127.0.0.1:-1; do
	ok "no address: $bad" ends 2 "'$bad' is no address" metrics --listen "$bad"
done
if [ -e /proc/net/if_inet6 ] && grep -q ' lo$' /proc/net/if_inet6; then
	ok 'IPv6' listening --listen '[::1]:0'
	ok 'GET' asks 200 'shoal_entries 1'
	ok 'ends' stop TERM
else
	skip 'IPv6' 'this machine has none'
fi
ok 'an address that is not ours' ends 6 'Cannot assign' metrics --listen 192.0.2.1:9123
finish
