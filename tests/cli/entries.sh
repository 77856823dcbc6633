#!/bin/bash
# SPDX-License-Identifier: MIT
# keys, get, set, delete, expire, flush
. "$(dirname "$0")/lib.sh"

input() { # FILE ARGUMENT...
	local file=$1
	shift
	"$shoal" "$@" <"$file"
}

same() { # FILE ARGUMENT...: what comes out is what is in FILE
	local file=$1
	shift
	"$shoal" "$@" >out && cmp out "$file"
}

"$shoal" create --size 4m

echo '# set, get'
ok 'a keyspace that is not there is no place to look' ends 1 "no keyspace 'a@1'" get -k a key
ok 'and was not made by that' ends 1 "no keyspace 'a@1'" get -k a key
ok 'set' prints '' set -k a key 'some value'
printf 'some value' >value
ok 'get: the bytes alone' same value get -k a key
ok 'NAME is NAME@1' same value get -k a@1 key
ok 'versions are apart' ends 1 "no keyspace 'a@2'" get -k a@2 key
ok 'no value: exit status 1' ends 1 'no value' get -k a other
ok 'an empty value is one' prints '' set -k a empty ''
ok 'it is there' prints '' get -k a empty
head -c 10000 /dev/urandom >random
ok 'from standard input' input random set -k a random
ok 'byte by byte' same random get -k a random
ok '- is standard input, too' input value set -k a random -
ok 'it was replaced' same value get -k a random
ok 'a key that begins with -' prints '' set -k a -- -x 1
ok 'such keys are read likewise' same <(printf 1) get -k a -- -x
too_large() {
	head -c 9000000 /dev/zero >large
	input large set -k a large
	[ $? = 6 ] && ends 1 'no value' get -k a large
}
ok 'too large: exit status 6' ends 6 'largest entry' set -k a large "$(printf '%070000d' 0)"
ok 'larger than the cache: not even read to the end' too_large
ok 'a key of 65,535 bytes' ends 6 'largest entry' set -k a "$(printf '%065535d' 0)" x
ok 'a key of 65,536' ends 2 '1 to 65535 bytes' set -k a "$(printf '%065536d' 0)" x
ok 'no key' ends 2 '1 to 65535 bytes' set -k a '' x

echo '# lives'
ok 'set with lives' prints '' set -k lives --fresh 1h --stale 2d --stale-error 1d key value
lives() {
	json "row['fresh_left_ms'] > 3500000 and row['fresh_left_ms'] <= 3600000 and \
		0 <= row['stale_left_ms'] - row['fresh_left_ms'] - 2 * 86400000 < 1000" keys -k lives@1 --json
}
ok 'they are to the millisecond, without jitter' lives
"$shoal" set -k lives --fresh forever ever value
ok 'for ever is null' json "[r['fresh_left_ms'] for r in rows if r['key'] == 'ever'] == [None]" keys -k lives@1 --json
ok 'a schema' prints '' set -k schema --schema 3 key value
ok 'another schema: no value' ends 1 'no value' get -k schema key
ok 'the same schema' same <(printf value) get -k schema --schema 3 key
printf '%05000d' 0 >zeroes
for codec in lz4 zstd; do
	ok "packed by $codec" input zeroes set -k packed --compress $codec $codec
	ok "and unpacked: $codec" same zeroes get -k packed $codec
done

echo '# any bytes'
hard=$'a\tb\nc\\d\r\e[31m\x80é\u202e'
ok 'a key of any bytes' prints '' set -k hard "$hard" "$(printf '\377')"
shown='a\tb\nc\\d\r\x1b[31m\x80é\xe2\x80\xae'
ok 'is shown as one printable line' prints "$shown" keys -k hard@1
ok 'which can be read back' same <(printf '\377') get -k hard --escaped "$shown"
ok 'likewise by delete' prints '' delete -k hard --escaped "$shown"
ok 'it is gone' ends 1 'no value' get -k hard "$hard"
ok 'a backslash that means nothing' ends 2 'a key has a backslash' get -k hard --escaped 'a\q'
ok 'a NUL in a key' prints '' set -k hard -e 'a\x00b' x
ok 'a NUL is shown' prints 'a\x00b' keys -k hard@1
ok 'raw, with a NUL behind each' same <(printf 'a\0b\0') keys -k hard@1 --null
ok 'JSON: text is text' json "row['key'] == 'a\\0b' and row['value'] == 'x'" get -k hard -e --json 'a\x00b'
"$shoal" set -k hard -e '\xff' "$(printf '\376')"
ok 'JSON: base64 if it is no UTF-8' json "base64.b64decode(row['key_base64']) == b'\\xff' and \
	base64.b64decode(row['value_base64']) == b'\\xfe' and 'key' not in row \
	and 'value' not in row" get -k hard -e --json '\xff'

echo '# keys'
for i in {1..20}; do "$shoal" set -k list@7 "user:$i" x; done
"$shoal" set -k list@8 'user:1' x
"$shoal" set -k list@8 'item:1' x
listed() { # COUNT ARGUMENT...
	local count=$1
	shift
	run keys "$@" && [ "$(wc -l <out)" = "$count" ]
}
ok 'of one version' listed 20 -k list@7
ok 'of all its versions' listed 22 -k list
ok 'then with the keyspace in front' shows "$(printf 'list@8\titem:1')" keys -k list
ok 'by prefix' listed 11 -k list@7 --prefix user:1
ok 'a prefix of many' listed 21 -k list --prefix user:
ok 'a prefix of none' listed 0 -k list --prefix x
ok 'no more than' listed 5 -k list --limit 5
ok 'of a keyspace that is not there' listed 0 -k none
ok 'all' shows "$(printf 'hard@1\t')" keys
ok 'long' shows 'KEYSPACE, KEY' keys --long
ok 'JSON' json "sorted(r['key'] for r in rows) == ['item:1', 'user:1'] and all(r['keyspace'] == 'list' \
	and r['version'] == 8 and r['size'] == 1 and r['age_ms'] >= 0 and r['stale_left_ms'] == r['fresh_left_ms'] > 0 \
	and r['frequency'] == 0 for r in rows)" keys -k list@8 --json
ok 'raw keys of several keyspaces would be mixed up' ends 2 '--null needs --keyspace' keys --null
ok 'one form at a time' ends 2 'one of --long, --json and --null' keys -lj
ok 'reading a list leaves no trace' json "row['processes'] == 0" info --json

echo '# delete, expire, flush'
ok 'delete' prints '' delete -k list@7 user:1
ok 'it is gone' ends 1 'no value' get -k list@7 user:1
ok 'once more: exit status 1' ends 1 'no value' delete -k list@7 user:1
ok 'several, of which one is not there' ends 1 '1 of 3 keys had no value' delete -k list@7 user:1 user:2 user:3
ok 'the others are gone' listed 17 -k list@7
ok 'of a keyspace that is not there' ends 1 "no keyspace 'none@1'" delete -k none user:1
fresh() { # MISS|fresh|stale KEYSPACE KEY
	json "row['freshness'] == '$1'" get -k "$2" --json "$3"
}
"$shoal" set -k soft --fresh 1h --stale 1d key x
ok 'it is fresh' fresh fresh soft key
ok 'expire' prints '' expire -k soft key
ok 'it is stale, for as long as the policy said that made the keyspace' json "row['fresh_left_ms'] <= 0 and \
	80000000 < row['stale_left_ms'] <= 86400000" keys -k soft@1 --json
ok 'get shows it as stale' fresh stale soft key
ok 'expire for less' prints '' expire -k soft --stale 10h key
ok 'for so long at most' json "30000000 < row['stale_left_ms'] <= 36000000" keys -k soft@1 --json
"$shoal" set -k soft --fresh 2h --stale none key x
"$shoal" set -k hardly --fresh 1h key x
ok 'expire where the policy has no stale is a delete' prints '' expire -k hardly key
ok 'it is gone' ends 1 'no value' get -k hardly key
policy() {
	json "(row['fresh_ms'], row['stale_ms']) == (3600000, 86400000)" stat -k soft --json
}
ok 'the policy that stat shows is of who made it: looking, setting, expiring changes nothing' policy
ok 'nor are looks counted as hits' \
	json "row['hits_fresh'] == row['hits_stale'] == row['misses'] == 0" stat -k soft --json
ok 'expire of nothing: exit status 1' ends 1 'no value' expire -k soft none
"$shoal" set -k soft other x
ok 'without lives: those of the policy' json "[r['stale_left_ms'] - r['fresh_left_ms'] for r in rows \
	if r['key'] == 'other'] == [86400000]" \
	keys -k soft@1 --json
"$shoal" set -k soft --fresh 1h other x
ok 'with one of them: no others' json "[r['stale_left_ms'] - r['fresh_left_ms'] for r in rows \
	if r['key'] == 'other'] == [0]" \
	keys -k soft@1 --json
"$shoal" delete -k soft other
ok 'expire for none is a delete' prints '' expire -k soft --stale none key
ok 'it is gone' ends 1 'no value' get -k soft key
"$shoal" set -k soft --fresh 1h --stale 1d key x
ok 'flush --expire' prints '' flush -k soft --expire
ok 'it is stale' fresh stale soft key
ok 'flush' prints '' flush -k list@7
ok 'all of it is gone' listed 0 -k list@7
ok 'and nothing else is' listed 2 -k list@8
ok 'flush of nothing: exit status 1' ends 1 "no keyspace 'none@1'" flush -k none

echo '# not for us'
ok 'no cache: exit status 3' ends 3 'no such segment' get --cache "$SHOAL_CACHE-none" -k a key
full() {
	"$shoal" get -k a key >/dev/full 2>err
	[ $? = 6 ] && grep -q 'No space left' err
}
ok 'output that can not be written is an error' full
finish
