#!/bin/bash
# SPDX-License-Identifier: MIT
# run: each command appends a line to a file of its name, so that runs are counted. What has to be in the midst of
# something waits on a fifo.
. "$(dirname "$0")/lib.sh"

shoal_run() { "$shoal" run "$@"; }

runs() { # FILE COUNT
	[ "$(cat "$1" 2>/dev/null | wc -l)" = "$2" ] ||
		{ echo "$1: $(cat "$1" 2>/dev/null | wc -l) runs, not $2" && return 1; }
}

# A count of keyspace run@1, or of KEYSPACE.
count() { # NAME [KEYSPACE]
	"$shoal" stat --json --keyspace "${2-run@1}" 2>/dev/null | jq -r ".$1"
}

until_count() { # NAME LEAST
	until [ "$(count "$1")" -ge "$2" ] 2>/dev/null; do :; done
}

until_lines() { # FILE COUNT
	until [ "$(wc -l <"$1" 2>/dev/null)" -ge "$2" ] 2>/dev/null; do :; done
}

command=
script() { # NAME TEXT: a command ./NAME, whose first line notes the run
	command=$PWD/$1
	printf '#!/bin/bash\necho $$ >>%s.runs\n%s\n' "$command" "$2" >"$1"
	chmod +x "$1"
}

# ---- what comes out --------------------------------------------------------------------------------------------------

twice() {
	script both 'echo out; echo err >&2; exit 0'
	for i in 1 2; do
		shoal_run --key both -- ./both >out 2>err || return
		[ "$(cat out) $(cat err)" = 'out err' ] || return
	done
	runs both.runs 1
}
ok 'the second time it is not run, and both streams are given' twice

order() {
	script order 'for i in {1..50}; do echo $i; echo e$i >&2; done'
	shoal_run --key order -- ./order >first 2>&1
	shoal_run --key order -- ./order >second 2>&1
	cmp first second && [ "$(wc -l <first)" = 100 ] && runs order.runs 1
}
ok 'the streams are given in the order they came in' order

binary() {
	head -c 100000 /dev/urandom >bytes
	script bytes_too 'cat bytes; tac bytes >&2'
	for i in 1 2; do
		shoal_run --key bytes -- ./bytes_too >out 2>err || return
		cmp out bytes && tac bytes | cmp - err || return
	done
	runs bytes_too.runs 1
}
ok 'any bytes, of both streams' binary

nothing_written() {
	script silent true
	shoal_run --key silent -- ./silent >out 2>err && shoal_run --key silent -- ./silent >>out 2>>err &&
		[ ! -s out ] &&
		[ ! -s err ] && runs silent.runs 1
}
ok 'no output is an output' nothing_written

empty_input() {
	script reads 'wc -c'
	[ "$(echo hello | shoal_run --key reads -- ./reads)" = 0 ]
}
ok 'the command reads nothing' empty_input

closed() {
	script closed 'echo hello'
	shoal_run --key closed -- ./closed <&- >&- 2>&-
	[ "$(shoal_run --key closed -- ./closed)" = hello ] && runs closed.runs 1 && "$shoal" check
}
ok 'with no standard streams at all' closed

streams_early() {
	mkfifo early
	script streams 'echo first; read -r x <early; echo second'
	shoal_run --key streams -- ./streams >came &
	until_lines came 1
	echo go >early
	wait $! && [ "$(tr '\n' ' ' <came)" = 'first second ' ]
}
ok 'the one who runs it sees the output as it comes' streams_early

# ---- keys ------------------------------------------------------------------------------------------------------------

keys() {
	script args 'echo "$#:$*:${COLOUR-unset}:$PWD"'
	mkdir -p elsewhere
	local a b c d e f
	a=$(shoal_run -a -- ./args ab c) b=$(shoal_run -a -- ./args a bc)
	c=$(COLOUR=red shoal_run -a --env COLOUR -- ./args x) d=$(COLOUR=blue shoal_run -a --env COLOUR -- ./args x)
	e=$(shoal_run -a --env COLOUR -- ./args x) f=$(COLOUR= shoal_run -a --env COLOUR -- ./args x)
	[ "$a" = "2:ab c:unset:$PWD" ] && [ "$b" = "2:a bc:unset:$PWD" ] && runs args.runs 6 &&
		[[ $c == *red* && $d == *blue* && $e == *unset* && $f == *::* ]] || return
	a=$(shoal_run -a --cwd -- "$PWD/args" x)
	b=$(cd elsewhere && shoal_run -a --cwd -- "$scratch/args" x)
	[ "$b" != "$a" ] && [ "$b" = "1:x:unset:$PWD/elsewhere" ] && runs args.runs 8
}
ok 'keys from arguments, variables and the directory' keys

apart() {
	script apart 'echo $1'
	[ "$(shoal_run --key k --keyspace one -- ./apart 1)" = 1 ] &&
		[ "$(shoal_run --key k --keyspace two -- ./apart 2)" = 2 ] &&
		[ "$(shoal_run --key k --keyspace two@2 -- ./apart 3)" = 3 ] &&
		[ "$(shoal_run --key k --keyspace one -- ./apart 4)" = 1 ]
}
ok 'keyspaces are apart' apart

long_key() {
	script long 'echo yes'
	[ "$(shoal_run --key "$(head -c 70000 /dev/zero | tr '\0' k)" -- ./long 2>err)" = yes ] && grep -q uncached err
}
ok 'a key that is too long: uncached' long_key

# ---- one run ---------------------------------------------------------------------------------------------------------

hundred() {
	python3 -c "
import sqlite3
db = sqlite3.connect('orders.db')
db.execute('create table orders (customer integer, amount integer)')
db.executemany('insert into orders values (?, ?)', ((i % 97, i) for i in range(20000)))
db.commit()"
	cat >report.py <<-'PYTHON'
		import sqlite3
		for row in sqlite3.connect('orders.db').execute(
		        'select customer, sum(amount) from orders group by 1 order by 2 desc limit 5'):
		    print(*row)
	PYTHON
	mkfifo gate
	script report 'read -r x <gate; exec python3 report.py'
	local before i
	before=$(count misses) || return
	for i in {1..100}; do
		shoal_run --key report -- ./report >answer.$i 2>&1 &
	done
	until_count misses $((before + 100)) # all have asked, and none has an answer
	echo go >gate
	wait
	for i in {1..100}; do
		cmp answer.1 answer.$i || return
	done
	[ "$(wc -l <answer.1)" = 5 ] && runs report.runs 1
}
ok 'a hundred at once: an SQL query is run once' hundred

bounded() {
	mkfifo gate-a gate-b
	script slot 'read -r x <gate-$1; echo $1'
	shoal_run --key slot-a --keyspace slots --max-loads 1 -- ./slot a >a &
	until_lines slot.runs 1
	ends 5 'no permit' run --key slot-b --keyspace slots --max-loads 1 --timeout 1ms -- ./slot b &&
		runs slot.runs 1 || return
	shoal_run --key slot-b --keyspace slots --max-loads 1 -- ./slot b >b &
	echo go >gate-a
	until_lines slot.runs 2
	echo go >gate-b
	wait
	[ "$(cat a b)" = $'a\nb' ]
}
ok '--max-loads bounds what runs at once' bounded

late() {
	mkfifo gate-late
	script late 'read -r x <gate-late; echo done'
	shoal_run --key late -- ./late >late.out &
	until_lines late.runs 1
	ends 5 'another still runs it' run --key late --timeout 1ms -- ./late &&
		ends 5 'another still runs it' run --key late --timeout none -- ./late || return
	echo go >gate-late
	wait $! && [ "$(cat late.out)" = done ] && runs late.runs 1
}
ok '--timeout: exit 5 while another runs it' late

within() {
	script inner 'echo inner'
	script outer "exec $shoal run --key nested -- ./inner"
	[ "$(shoal_run --key nested -- ./outer 2>err)" = inner ] && grep -q 'this very key' err
}
ok 'a run of the same key within itself does not wait for itself' within

# ---- stale -----------------------------------------------------------------------------------------------------------

stale() {
	mkfifo gate-stale
	script page 'cat text; [ ! -e slow ] || read -r x <gate-stale'
	echo 1 >text
	[ "$(shoal_run --key page --fresh 1ms --stale 1h -- ./page)" = 1 ] || return
	echo 2 >text
	touch slow
	until [ "$(shoal_run --key page --fresh 1h --stale 1h -- ./page)" = 1 ] &&
		[ "$(wc -l <page.runs)" = 2 ]; do :; done
	for i in {1..20}; do # stale, at once, while one refreshes it
		[ "$(shoal_run --key page --fresh 1h --stale 1h -- ./page)" = 1 ] || return
	done
	runs page.runs 2 || return
	echo go >gate-stale
	until [ "$(shoal_run --key page --fresh 1h --stale 1h -- ./page)" = 2 ]; do :; done
	runs page.runs 2
}
ok 'stale at once, and one refresh in the background' stale

# Who waits for the end of our output, or for a lock that we have by a descriptor, must not wait for the refresh.
let_go() {
	mkfifo gate-go
	script go '[ ! -e slower ] || read -r x <gate-go; echo $1'
	shoal_run --key go --fresh 1ms --stale 1h -- ./go 1 >out || return
	touch slower lock
	exec 9>lock
	flock 9
	until [ "$(wc -l <go.runs)" = 2 ]; do
		# returns: the pipe has ended
		[ "$(shoal_run --key go --fresh 1h --stale 1h -- ./go 2 2>&1)" = 1 ] || return
	done
	exec 9>&-
	flock --nonblock lock true || { echo 'the lock is held' && return 1; }
	echo go >gate-go
	until [ "$(shoal_run --key go --fresh 1h --stale 1h -- ./go 3)" = 2 ]; do :; done
	runs go.runs 2
}
ok 'the refresh holds nothing of its caller open' let_go

limited() {
	mkfifo gate-limit
	script hangs '[ ! -e hang ] || read -r x <>gate-limit; echo 1'
	shoal_run --key hangs --fresh 1ms --stale 1h --keyspace limited -- ./hangs >out || return
	touch hang
	until [ "$(count load_errors limited@1)" -ge 1 ] 2>/dev/null; do
		[ "$(shoal_run --key hangs --fresh 1ms --stale 1h --keyspace limited --refresh-limit 1ms \
			-- ./hangs 2>/dev/null)" = 1 ] || return
	done
}
ok 'a refresh that hangs is ended, and has failed' limited

# ---- failures --------------------------------------------------------------------------------------------------------

failure() {
	mkfifo gate-fail
	script fails 'read -r x <gate-fail; echo out; echo err >&2; exit 7'
	local before i s
	before=$(count misses)
	for i in {1..10}; do
		(shoal_run --key fails --retry 1m -- ./fails >fail.$i 2>&1; echo "$?" >>fail.$i) &
	done
	until_count misses $((before + 10))
	echo go >gate-fail
	wait
	for i in {1..10}; do
		[ "$(tr '\n' ' ' <fail.$i)" = 'out err 7 ' ] || return
	done
	runs fails.runs 1
}
ok 'who waits for a run that fails gets its output and its status' failure

not_kept() {
	script flaky 'echo $1; exit $1'
	shoal_run --key flaky --retry 1ms -- ./flaky 3 >out
	[ $? = 3 ] || return
	until shoal_run --key flaky --retry 1ms -- ./flaky 0 >out; do :; done # within that millisecond it is remembered
	[ "$(cat out)" = 0 ]
}
ok 'a failure is not kept' not_kept

kept() {
	script fault 'echo $1; exit $1'
	shoal_run --key fault --cache-failures --retry 1ms -- ./fault 3 >out
	[ $? = 3 ] || return
	shoal_run --key fault --cache-failures --retry 1ms -- ./fault 4 >out
	[ $? = 3 ] && [ "$(cat out)" = 3 ] && runs fault.runs 1
}
ok '--cache-failures keeps it' kept

instead() {
	script source 'cat source.txt && echo complaint >&2 && exit $(cat source.status)'
	echo good >source.txt
	echo 0 >source.status
	shoal_run --key source --fresh 1ms --stale-error 1h -- ./source >out 2>/dev/null || return
	echo half >source.txt
	echo 9 >source.status
	until [ "$(wc -l <source.runs)" = 2 ]; do # fresh for a millisecond
		shoal_run --key source --fresh 1ms --stale-error 1h --retry 1m -- ./source >out 2>err || return
		[ "$(cat out)" = good ] || return
	done
	grep -q 'failed with status 9' err && grep -q complaint err || return
	# and so do others, who are told
	[ "$(shoal_run --key source --fresh 1ms --stale-error 1h --retry 1m -- ./source 2>err)" = good ] &&
		grep -q 'failed with status 9' err && runs source.runs 2
}
ok '--stale-error: what is stale, in place of a failure' instead

not_there() {
	shoal_run --key nowhere -- ./no-such-command >out 2>err
	[ $? = 127 ] && grep -q 'No such file' err || return
	: >plain-file
	shoal_run --key nowhere -- ./plain-file >out 2>err
	[ $? = 126 ] || return
	script now-there 'echo here'
	[ "$(shoal_run --key nowhere -- ./now-there)" = here ]
}
ok 'a command that is not there: 127, and nothing is remembered' not_there

# ---- big outputs -----------------------------------------------------------------------------------------------------

big() {
	local i
	# more than a 64th of 64 MiB
	script big 'mkfifo gate-$$; head -c 3000000 /dev/zero; echo $$ >>big.gates; read -r x <gate-$$; echo end'
	for i in {1..3}; do
		shoal_run --key big -- ./big | wc -c >big.$i &
	done
	until_lines big.gates 3 # those who wait are let go before the end
	for i in $(cat big.gates); do
		echo go >gate-$i
	done
	wait
	for i in {1..3}; do
		[ "$(cat big.$i)" = 3000004 ] || return
	done
	runs big.runs 3
}
ok 'more than can be stored: it goes through whole, and each runs it for itself' big

endless() {
	shoal_run --key endless -- yes | head -n 3 >out
	[ "${PIPESTATUS[0]}" = 141 ] && [ "$(wc -l <out)" = 3 ]
}
ok 'an endless command ends with its reader' endless

gone() {
	mkfifo gate-gone
	script gone 'read -r x <gate-gone; echo first; echo second'
	shoal_run --key gone -- ./gone | true &
	until_lines gone.runs 1
	echo go >gate-gone
	wait
	[ "$(shoal_run --key gone -- ./gone | wc -l)" = 2 ] && runs gone.runs 1
}
ok 'a reader that goes away does not keep the output from others' gone

# A caller who doesn't read holds neither the command up nor those who wait.
slow_reader() {
	mkfifo gate-slow
	script slow 'head -c 200000 /dev/zero | tr "\0" x'
	{ shoal_run --key slow -- ./slow; echo "$?" >slow.status; } | (read -r x <gate-slow; wc -c >slow.size) &
	until_lines slow.runs 1
	[ "$(shoal_run --key slow -- ./slow | wc -c)" = 200000 ] || return
	echo go >gate-slow
	wait
	[ "$(cat slow.size slow.status)" = $'200000\n0' ] && runs slow.runs 1
}
ok 'a reader that does not read holds nobody up' slow_reader

full() {
	[ -w /dev/full ] || return 0
	shoal_run --key full -- echo hello >/dev/full 2>err
	[ $? = 6 ] && grep -q 'No space' err && [ "$(shoal_run --key full -- false)" = hello ]
}
ok 'an output that cannot be written is an error, and is stored' full

# ---- deaths and signals ----------------------------------------------------------------------------------------------

takeover() {
	mkfifo gate-take
	script take 'echo $PPID >>take.leaders; read -r x <>gate-take; echo ran'
	local before i
	before=$(count misses)
	for i in {1..10}; do
		shoal_run --key take -- ./take >take.$i 2>&1 &
	done
	until_count misses $((before + 10))
	until_lines take.leaders 1
	kill -KILL "$(sed -n 1p take.leaders)"
	until_lines take.leaders 2
	while kill -0 "$(sed -n 1p take.runs)"; do :; done # the command of the dead one
	echo go >gate-take
	wait
	runs take.runs 2 && [ "$(cat take.? take.10 | grep -c ran)" = 9 ]
} 2>/dev/null
ok 'its process is killed: one of those who wait runs it, and its command is told' takeover

killed() {
	mkfifo gate-kill
	script kill_me 'read -r x <>gate-kill; echo "ran $x"'
	local before i
	before=$(count misses)
	for i in {1..5}; do
		(shoal_run --key kill_me -- ./kill_me >kill.$i 2>&1; echo $? >>kill.$i) &
	done
	until_count misses $((before + 5))
	until_lines kill_me.runs 1
	kill -KILL "$(sed -n 1p kill_me.runs)"
	until_lines kill_me.runs 2
	echo go >gate-kill
	wait
	[ "$(sort kill.? | uniq -c | tr -s ' \n' ' ')" = ' 4 0 1 137 4 ran go ' ] && runs kill_me.runs 2
}
ok 'the command is killed: 137, and one of those who wait runs it' killed

crash() {
	script crash 'kill -SEGV $$'
	shoal_run --key crash --retry 1m -- ./crash >out 2>&1
	[ $? = 139 ] || return
	shoal_run --key crash --retry 1m -- ./crash >out 2>&1
	[ $? = 139 ] && runs crash.runs 1
}
ok 'a command that crashes has failed: 139' crash

signals() {
	local name status pid
	mkfifo gate-signals
	script signals 'trap "echo got $2; exit 0" $2; read -r x <>gate-signals'
	for name in INT TERM HUP QUIT; do
		# a shell's background commands ignore INT and QUIT, and the tests may run under nohup
		env --default-signal=INT,QUIT,HUP,TERM "$shoal" run --key "signal $name" -- \
			bash -c 'trap "echo got '$name'; exit 0" '$name'; echo ready
				for ((;;)); do read -t 1000 -r x <>gate-signals; done' >signal.$name &
		pid=$!
		until_lines signal.$name 1
		kill -$name $pid
		wait $pid || return
		[ "$(tail -n 1 signal.$name)" = "got $name" ] || return
	done
	"$shoal" run --key dies -- bash -c 'echo ready; exec cat gate-signals' >dies &
	pid=$!
	until_lines dies 1
	kill -TERM $pid
	wait $pid
	status=$?
	[ $status = 143 ]
}
ok 'signals are passed on, and the status says which one ended it' signals

ignored() {
	mkfifo gate-hup
	(trap '' HUP && exec "$shoal" run --key hup -- bash -c 'echo ready; read -r x <gate-hup; echo $x') >hup &
	local pid=$!
	until_lines hup 1
	kill -HUP $pid
	echo survived >gate-hup
	wait $pid && [ "$(tail -n 1 hup)" = survived ]
}
ok 'what is ignored (nohup) stays so' ignored

behind() { # what a command leaves running is not waited for
	mkfifo gate-behind
	[ "$(shoal_run --key behind -- bash -c 'cat gate-behind & echo started')" = started ] && echo bye >gate-behind
}
ok 'what the command leaves behind is not waited for' behind

# ---- no cache --------------------------------------------------------------------------------------------------------

uncached() {
	script plain 'echo plain; exit 3'
	echo garbage >broken
	for cache in ./broken ./no-such-folder/cache; do
		shoal_run --cache $cache --key k -- ./plain >out 2>err
		[ $? = 3 ] && [ "$(cat out)" = plain ] && grep -q 'uncached' err || return
	done
	runs plain.runs 2 && [ "$(cat broken)" = garbage ]
}
ok 'no cache: it is run, with a message' uncached

nameless() {
	(
		unset SHOAL_CACHE
		name=/dev/shm/shoal.run-$(id -u)
		[ -z "$(ls "$name".v* 2>/dev/null)" ] || exit 0 # someone uses it
		[ "$(shoal_run --key k -- echo hello)" = hello ] && ls "$name".v* && rm -f "$name".v*
	)
}
ok 'without a name it is run-UID' nameless

foreign() { # an output that is no frame, or none of this version
	"$shoal" set -k run foreign value && [ "$(shoal_run --key foreign -- echo mine)" = mine ] || return
	"$shoal" set -k run --schema 1 foreign shrn_and_so_on && [ "$(shoal_run --key foreign -- echo mine)" = mine ] &&
		[ "$(count rejected)" = 1 ] && [ "$(shoal_run --key foreign -- false)" = mine ]
}
ok 'what is stored and no output is not given out' foreign

"$shoal" reap >log # those that were killed
ok 'the cache is sound' prints '' check
finish
