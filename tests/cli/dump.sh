#!/bin/bash
# SPDX-License-Identifier: MIT
# dump, restore
. "$(dirname "$0")/lib.sh"

gives() { # TEXT ARGUMENT...
	local text=$1
	shift
	[ "$("$shoal" "$@")" = "$text" ] || { echo "$*: not $text" && return 1; }
}

fields() { # FILE EXPRESSION WANTED
	[ "$(jq -c "$2" "$1")" = "$3" ] || { cat "$1" && return 1; }
}

anew() { # a new cache in place of the old one
	"$shoal" destroy --force >log 2>&1
	"$shoal" create --size 8m
}

"$shoal" create --size 8m
head -c 20000 /dev/urandom >bytes
"$shoal" set -k page@2 --fresh 1h --stale 2h 'a' 'value a'
"$shoal" set -k page@2 --fresh forever $'b\n\x01\xff' 'value b'
"$shoal" set -k page@1 --fresh 1h 'a' 'older'
"$shoal" set -k empty --fresh 1h 'a' ''
"$shoal" set -k encoded --schema 9 --fresh 1h a 'of schema 9'
"$shoal" set -k bytes --fresh 1h 'a' - <bytes

whole() {
	"$shoal" dump dump --json >out 2>err && fields out '[.values, .keyspaces, .unreadable]' '[6,5,0]' &&
		grep -q '6 values of 5 keyspaces' err &&
		[ "$(stat -c %a dump)" = 600 ] && [ ! -e dump.new ] &&
		ends 0 '6 values are whole, 0 records are not' restore --check dump
}
ok 'dump' whole

back() {
	anew || return
	"$shoal" restore dump --json >out 2>err || { cat err && return 1; }
	fields out '[.values, .restored, .there, .expired, .refused, .damaged]' '[6,6,0,0,0,0]' &&
		grep -q '6 restored' err &&
		gives 'value a' get -k page@2 a && gives 'value b' get -k page@2 $'b\n\x01\xff' &&
		gives older get -k page@1 a &&
		gives '' get -k empty a && gives 'of schema 9' get -k encoded --schema 9 a &&
		ends 1 'no value' get -k encoded a &&
		"$shoal" get -k bytes a | cmp - bytes &&
		json 'sum(0 < r["fresh_left_ms"] <= 3600000 < r["stale_left_ms"] <= 10800000
			for r in rows if r["fresh_left_ms"]) == 1' keys --json -k page@2 &&
		json 'sum(r["fresh_left_ms"] is None for r in rows) == 1' keys --json -k page@2
}
ok 'restore: values, versions, schemas, and what is left of their lives' back

no_traffic() { # a look at all values, and what is put back, are none
	anew && "$shoal" set -k page@2 --fresh 1h a value && "$shoal" dump again 2>err && anew &&
		"$shoal" restore again 2>err &&
		json 'row["misses"] + row["hits_fresh"] + row["hits_stale"] + row["loads"] == 0
			and row["entries"] == 1' stat --json
}
ok 'that is no traffic' no_traffic

there() {
	anew && "$shoal" restore dump 2>err || return
	"$shoal" set -k page@2 a newer && "$shoal" restore dump --json >out 2>err &&
		fields out '[.restored, .there]' '[0,6]' && gives newer get -k page@2 a &&
		"$shoal" restore dump --overwrite --json >out 2>err && fields out '[.restored, .there]' '[6,0]' &&
		gives 'value a' get -k page@2 a
}
ok 'what the cache has is left alone, or not' there

part() {
	"$shoal" dump -k page - 2>err >part && ends 0 '3 values are whole' restore --check part &&
		"$shoal" dump -k page@1 - 2>err >part &&
		ends 0 '1 values are whole' restore --check part && anew && "$shoal" restore - <part 2>err &&
		gives older get -k page@1 a &&
		ends 1 'no keyspace' get -k page@2 a
}
ok 'of one keyspace, of one version; through standard output and input' part

time_counts() { # it was made in the past, by a machine whose clock says so
	anew && "$shoal" set -k t --fresh 1h --stale 1h long 'long' &&
		"$shoal" set -k t --fresh 1ms --stale 1h stale 'stale' &&
		"$shoal" set -k t --fresh 1ms --stale none short 'short' || return
	until ! "$shoal" get -k t short >log 2>&1; do :; done
	"$shoal" dump timed 2>err && grep -q '2 values' err && anew && "$shoal" restore timed --json >out 2>err &&
		fields out '[.values, .restored]' '[2,2]' &&
		gives long get -k t long && json 'row["freshness"] == "stale"' get --json -k t stale
}
ok 'what is stale is so when it is back' time_counts

over_meanwhile() {
	anew && "$shoal" set -k t --fresh 400ms --stale none short 'short' &&
		"$shoal" set -k t --fresh 1h long 'long' && "$shoal" dump timed 2>err || return
	grep -q '2 values' err || return 0 # it took longer than that
	until ! "$shoal" get -k t short >log 2>&1; do :; done
	anew && "$shoal" restore timed --json >out 2>err && fields out '[.values, .restored, .expired]' '[2,1,1]' &&
		ends 1 'no value' get -k t short
}
ok 'the time between counts' over_meanwhile

many() {
	anew && seq 1000 | "$shoal" warm -k many --keys - --exec 'echo value {}' --rate none 2>err &&
		"$shoal" dump big 2>err && anew &&
		"$shoal" restore big --json >out 2>err && fields out .restored 1000 && gives 'value 777' get -k many 777
}
ok 'a thousand' many

truncated() { # at any byte: exit 4, and what is before it is there
	anew && "$shoal" set -k t --fresh 1h a 'value a' && "$shoal" set -k t --fresh 1h b 'value b' &&
		"$shoal" dump small 2>err || return
	local size i
	size=$(stat -c %s small)
	for ((i = 0; i < size; i++)); do
		head -c $i small >cut
		ends 4 'cut: it ' restore cut || return
	done >log.cut
	head -c $((size - 33)) small >cut # all but the end's record of 40 bytes, nearly
	anew && ends 4 'ends too early' restore cut && grep -q '2 restored' err && gives 'value a' get -k t a
}
ok 'a file that is cut off: 4, at any byte; what is good is restored' truncated

damaged() { # in any byte
	local f
	mkdir bad
	python3 -c "
whole = open('small', 'rb').read()
for i in range(len(whole)):
    b = bytearray(whole); b[i] ^= 1 << i % 8; open(f'bad/{i}', 'wb').write(b)"
	for f in bad/*; do
		ends 4 "$f: " restore --check "$f" || return
	done >log.bad
	cat small small >twice
	ends 4 'something follows its end' restore --check twice
}
ok 'a file that is damaged: 4, in any byte' damaged

in_order() { # two whole records in each other's place, or one twice
	python3 -c "
b = open('small', 'rb').read(); n = 16 + 36 + 1 + 7 + 8; i = b.index(b'value ') - 1 - 36 - 16
x, y = b[i:i + n], b[i + n:i + 2 * n]
assert x[16 + 36:][:1] + y[16 + 36:][:1] in (b'ab', b'ba')
open('swapped', 'wb').write(b[:i] + y + x + b[i + 2 * n:]); open('doubled', 'wb').write(b[:i] + x + x + b[i + 2 * n:])
open('lost', 'wb').write(b[:i] + y + b[i + 2 * n:])"
	for f in swapped doubled lost; do
		ends 4 "$f: " restore --check $f || return
	done
}
ok 'records that are lost, doubled or in another order' in_order

one_record() { # the others are restored
	python3 -c "
b = bytearray(open('small', 'rb').read()); i = b.index(b'value '); b[i] ^= 1; open('one', 'wb').write(b)"
	anew && ends 4 'the bytes of a record are damaged' restore one && grep -q '1 values: 1 restored' err
}
ok 'one damaged record: the others are restored' one_record

ok 'a file that is no dump' ends 4 'is no dump' restore /dev/null
ok 'a file that is not there' ends 2 'No such file' restore no-such-file
ok 'a folder that is not there' ends 6 'No such file' dump no-such-folder/dump
kept() { # what was there stays when writing fails
	[ -w /dev/full ] || return 0
	echo old >kept && ln -s /dev/full kept.new && ends 6 'No space' dump kept && [ "$(cat kept)" = old ]
}
ok 'a dump that cannot be written' kept
ok 'the cache is sound' prints '' check
finish
