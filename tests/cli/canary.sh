#!/bin/bash
# SPDX-License-Identifier: MIT
# canary: while it looks, requests are made without end, in the same proportions: it ends when each keyspace
# has had its number.
. "$(dirname "$0")/lib.sh"

"$shoal" create --size 4m
request() { # KEYSPACE KEY
	"$shoal" run -k "$1" --fresh forever --key "$2" -- true
}
for k in good@1 good@2 bad@1; do
	request $k hot
done
"$shoal" set -k quiet hot value

# hits of good@1 and good@2; of bad@1 a miss for each hit, and a load for each miss
traffic() { # plain | misses: also of good@2
	local i=0
	until [ -e stop ]; do
		i=$((i + 1))
		request good@1 hot && request good@2 hot && request bad@1 hot && request bad@1 "$BASHPID $i"
		[ "$1" != misses ] || request good@2 "$BASHPID $i"
	done >/dev/null 2>&1
}

under() { # TRAFFIC STATUS JUDGEMENT ARGUMENT...
	local kind=$1 wanted=$2 judgement=$3 pid
	shift 3
	rm -f stop
	traffic "$kind" &
	pid=$!
	run canary "$@" --for 1h --requests 20 --min-requests 20
	touch stop
	wait $pid
	[ "$status" = "$wanted" ] && grep -q "$judgement" out
}

ok 'as good as the other' under plain 0 good --keyspace good@2 --against good@1
ok 'better than the other' under plain 0 good --keyspace good@2 --against bad@1
ok 'a lower hit rate' under misses 7 worse --keyspace good@2 --against good@1 --max-rise 100%
ok 'within what is allowed' under misses 0 good --keyspace good@2 --against good@1 --max-drop 60%
ok 'more loads' under plain 7 worse --keyspace bad@1 --against good@1 --max-drop 100% --max-rise 5%

saved() {
	under plain 0 good --keyspace good@2 --save before --json &&
		jq -e '.requests >= 20 and .hits == .requests and .hit_rate == 1' before &&
		under plain 0 good --keyspace good@2 --baseline before &&
		under misses 7 worse --keyspace good@2 --baseline before --save after &&
		[ ! -e after ] && jq -e . before
}
ok 'as it was before, or not' saved

figures() {
	under misses 7 worse --keyspace good@2 --against good@1 --json &&
		jq -e '.judgement == "worse" and .keyspace.hit_rate < 0.6 and .against.hit_rate == 1
			and .keyspace.keyspace == "good@2"' out
}
ok 'its figures' figures

too_few() {
	run canary --keyspace quiet --against good@1 "$@"
	[ "$status" = 5 ] && grep -q 'too few requests' out
}
ok 'too few requests' too_few --for none
ok 'too few requests, if one is enough' too_few --for 1ms --min-requests 1
ok 'no such keyspace' ends 1 "no keyspace 'other@1'" canary --keyspace other --against good@1
wrong_baseline() {
	for text in '' '{}' '[1]' '{"keyspace":"a","requests":1,"hits":2,"stale":0,"loads":0,"load_errors":0}'; do
		echo "$text" >wrong
		ends 2 'is not what --save makes' canary --keyspace good@2 --baseline wrong || return
	done
	ends 2 'is not what --save makes' canary --keyspace good@2 --baseline no-such-file
}
ok 'a baseline that is none' wrong_baseline
finish
