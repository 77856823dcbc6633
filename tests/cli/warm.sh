#!/bin/bash
# SPDX-License-Identifier: MIT
# warm, migrate: as in run.sh each load appends a line to a file.
. "$(dirname "$0")/lib.sh"

script() { # NAME TEXT
	printf '#!/bin/bash\necho "$1" >>%s.loads\n%s\n' "$PWD/$1" "$2" >"$1"
	chmod +x "$1"
}

warm() { "$shoal" warm --keyspace "${keyspace-user@2}" --rate none "$@"; }

gives() { # TEXT ARGUMENT...
	local text=$1
	shift
	[ "$("$shoal" "$@")" = "$text" ] || { echo "$*: not $text" && return 1; }
}

loads() { # FILE WORDS
	[ "$(tr '\n' ' ' <"$1")" = "$2 " ] || { echo "loaded: $(cat "$1")" && return 1; }
}

ok 'no cache: nothing to warm' ends 3 'shoal create' warm --keyspace k --keys /dev/null --exec true
ok 'a cache' prints '' create --size 4m

all() {
	printf 'a\nb c\n\nd' >keys
	script load 'printf "of %s" "$1"'
	warm --keys keys --exec './load {}' --json >out 2>err && loads load.loads 'a b c d' || return
	[ "$(jq -r '"\(.stopped) \(.keys) \(.loaded) \(.failed)"' out)" = 'done 3 3 0' ] && grep -q '3 loaded' err &&
		[ "$("$shoal" get --keyspace user@2 'b c')" = 'of b c' ]
}
ok 'each key of a file is loaded' all

again() { # what is fresh is passed over
	warm --keys - --exec './load {}' --json <keys >out && [ "$(jq -r '"\(.loaded) \(.fresh)"' out)" = '0 3' ] &&
		loads load.loads 'a b c d'
}
ok 'again: all of them are fresh' again

words() {
	printf 'x\ny "z"$(touch hacked)\0' >keys0
	keyspace=words warm -0 --keys keys0 --exec 'printf "%s|" one\ two '"'"'$HOME'"'"' "a\"b {} {}"' 2>err &&
		[ "$("$shoal" get --keyspace words "$(printf 'x\ny "z"$(touch hacked)')")" = "$(
			printf '%s|' 'one two' '$HOME' "$(printf 'a"b x\ny "z"$(touch hacked) x\ny "z"$(touch hacked)')"
		)" ] && [ ! -e hacked ]
}
ok 'words are cut as by a shell, and keys are not looked into' words

escaped() {
	printf 'tab\\there\n\\xff\n' >keys
	keyspace=escaped warm --keys keys --exec 'echo {}' 2>err &&
		[ "$("$shoal" get -k escaped $'tab\there')" = $'tab\there' ] &&
		[ "$("$shoal" get -k escaped $'\xff')" = $'\xff' ] && "$shoal" keys -k escaped@1 | sort >out &&
		sort keys | cmp - out || return
	printf 'a\n\\q\n' >wrong
	ends 2 'wrong: the key at byte 2' warm -k escaped --keys wrong --exec 'echo {}'
}
ok 'keys are written as shoal keys prints them' escaped

wrong_words() {
	ends 2 'has no closing "' warm --keyspace k --keys keys --exec 'a "b' &&
		ends 2 'is empty' warm --keyspace k --keys keys --exec ' ' &&
		ends 2 'ends with a \' warm --keyspace k --keys keys --exec 'a\'
}
ok 'words that are not understood' wrong_words

failing() {
	seq 100 >keys
	script fail 'exit 3'
	keyspace=failing warm --keys keys --exec './fail {}' --stop-errors 5% --json >out 2>err
	[ $? = 8 ] && [ "$(jq -r '"\(.stopped) \(.failed) \(.load_error)"' out)" = 'errors 16 3' ] &&
		grep -q 'more loads fail' err &&
		[ "$(wc -l <fail.loads)" = 16 ]
}
ok 'it stops when loads fail: 8' failing

some_failures() {
	script odd '[ $(($1 % 2)) = 0 ] && echo even'
	keyspace=odd warm --keys keys --exec './odd {}' --stop-errors none --json >out &&
		[ "$(jq -r '"\(.loaded) \(.failed)"' out)" = '50 50' ]
}
ok 'or not, as told' some_failures

slow() {
	script slow 'sleep 0.02; echo value'
	keyspace=slow warm --keys keys --exec './slow {}' --stop-latency 1ms --json >out 2>err
	[ $? = 7 ] && [ "$(jq -r '"\(.stopped) \(.loaded)"' out)" = 'slow 2' ] && grep -q 'take longer' err
}
ok 'it stops when loads are slow: 7' slow

resume() {
	seq 10 >keys
	script stops '[ "$1" != 4 ] || [ -e second ] || kill -TERM $PPID; echo value'
	keyspace=resumed warm --keys keys --exec './stops {}' --resume place 2>err
	[ $? = 143 ] && [ -s place ] && grep -q 'stopped as told' err || return
	touch second
	"$shoal" flush --keyspace resumed >out || return # what was done before is not looked at again
	keyspace=resumed warm --keys keys --exec './stops {}' --resume place --json >out && [ ! -e place ] &&
		[ "$(sort -nu stops.loads | tr '\n' ' ')" = '1 2 3 4 5 6 7 8 9 10 ' ] &&
		[ "$(wc -l <stops.loads)" -le 11 ] &&
		[ "$(jq '.before + .keys' out)" = 10 ]
}
ok 'stopped by a signal, and resumed' resume

other_place() {
	seq 10 >keys
	for text in 'shoal-warm 1 1 1' 'shoal-warm 1 1000 1' 'shoal-warm 1 -2 1' 'shoal-warm 2 2 1' 'rubbish' ''; do
		echo "$text" >place
		ends 2 'is no place in' warm --keyspace k --keys keys --exec true --resume place || return
	done
	ends 2 'no going back' warm --keyspace k --keys - --exec true --resume place
}
ok 'a place of another file' other_place

too_big() {
	keyspace=big warm --keys <(echo k) --exec 'head -c 1000000 /dev/zero' --json >out &&
		[ "$(jq -r '"\(.loaded) \(.unstored)"' out)" = '1 1' ]
}
ok 'what cannot be stored is counted' too_big

no_command() {
	keyspace=none warm --keys <(echo k) --exec './no-such-command {}' --json >out 2>err
	[ "$(jq -r '"\(.failed) \(.load_error)"' out)" = '1 127' ] && grep -q 'No such file' err
}
ok 'a command that is not there' no_command

bar() { # on a terminal
	seq 5 >keys
	SHELL=/bin/bash script_output=$(python3 - "$shoal" <<-'PYTHON'
		import os, pty, sys
		pid, fd = pty.fork()
		if not pid:
		    os.execv(sys.argv[1], [sys.argv[1], 'warm', '--keyspace', 'bar', '--keys', 'keys', '--exec',
		                           'sh -c "sleep 0.1; echo {}"', '--rate', 'none'])
		seen = b''
		while True:
		    try:
		        piece = os.read(fd, 4096)
		    except OSError:
		        break
		    if not piece:
		        break
		    seen += piece
		status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
		print(status, seen.decode())
	PYTHON
	)
	echo "$script_output"
	[[ $script_output == '0 '* && $script_output == *' of 5, '* && $script_output == *'5 loaded'* ]]
}
ok 'a bar on a terminal' bar

# ---- migrate ---------------------------------------------------------------------------------------------------------

migrate() {
	local i
	for i in 1 2 3; do
		"$shoal" set -k old@1 --fresh 1h --stale 2h "v2:$i" "value $i" || return
	done
	"$shoal" set -k old@1 --fresh forever "v1:4" "value 4" && "$shoal" set -k old@2 "v2:5" 'another version' &&
		"$shoal" set -k new@2 --fresh 1m 3 'newer' || return
	"$shoal" migrate --from old@1 --to new@2 --strip-prefix v2: --json >out 2>err || return
	[ "$(jq -c '[.values, .migrated, .there, .gone, .left_out]' out)" = '[4,2,1,0,1]' ] &&
		grep -q '2 carried over' err &&
		gives 'value 1' get -k new@2 1 && gives 'value 2' get -k new@2 2 && gives newer get -k new@2 3 &&
		gives 'value 1' get -k old v2:1 &&
		ends 1 '' get -k new@2 5 &&
		json 'sum(0 < r["fresh_left_ms"] <= 3600000 < r["stale_left_ms"] <= 10800000 for r in rows) == 2' \
			keys --json -k new@2
}
ok 'migrate: carried over with what is left of their lives; what is there stays' migrate

prefixes() {
	"$shoal" migrate --from old@1 --to all@1 --add-prefix x: --rate none 2>err &&
		gives 'value 4' get -k all x:v1:4 &&
		json '[r["key"] for r in rows if r["fresh_left_ms"] is None] == ["x:v1:4"]' keys --json -k all
}
ok 'migrate: what has no end has none there' prefixes

ok 'migrate: a keyspace that is not there' ends 1 "no keyspace 'other@1'" migrate --from other --to new
ok 'migrate: the same keyspace' ends 2 'the same keyspace' migrate --from a@1 --to a
ok 'the cache is sound' prints '' check
finish
