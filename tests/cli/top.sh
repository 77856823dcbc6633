#!/bin/bash
# SPDX-License-Identifier: MIT
# top: as text, and on a terminal, which tmux plays
workload=$(realpath "${4:?}")
. "$(dirname "$0")/lib.sh"

"$shoal" create --size 4m --max-keyspaces 64
mkfifo end
"$workload" hold "$SHOAL_CACHE" <end >leader &
exec 4>end
until [ -s leader ]; do kill -0 $! || exit 1; done
leader=$(cat leader)

has() { # FILE TEXT
	grep -qF -e "$2" "$1"
}

before() { # FILE TEXT TEXT: this one's line comes first
	local a b
	a=$(grep -nFm1 -e "$2" "$1" | cut -d: -f1) b=$(grep -nFm1 -e "$3" "$1" | cut -d: -f1)
	[ -n "$a" ] && [ -n "$b" ] && [ "$a" -lt "$b" ]
}

echo '# text'
page() { # ARGUMENT...: one page, into "out"
	run top -1 --every 200ms "$@"
	[ "$status" = 0 ] && [ ! -s err ]
}
all() {
	page && has out 'alpha@1' && has out 'beta@2' && has out 'hottest' && has out cli-workload
}
ok 'one page, of all there is' all
ok 'a flight with its leader, one that waits, and its key' grep -qE \
	"^ +$leader +[0-9.]+(ms|s) +60m +1  loading +users@1 +slow \\\\t\\\\x1b\[31m\\\\xff\$" out
ok 'what is busy has all that it asks for' grep -qE '^alpha@1 +[0-9.]+k? +100% +0.0% +0 +0.000 ' out
ok 'what is half missed' grep -qE '^beta@2 +[0-9.]+k? +(4[0-9]|5[0-9]|60).[0-9]% +0.0% +0 ' out
ok 'what nobody asks for has no rates' grep -qE '^users@1 +0 +- +- +0 +- ' out
ok 'the processes' [ "$(grep -c '  cli-workload' out)" = 3 ]
sorted() {
	page -v keyspaces --sort name && before out alpha@1 beta@2 && before out few@1 users@2 &&
		before out users@1 users@2 &&
		page -v keyspaces --sort name --reverse && before out users@2 alpha@1 && page -v keyspaces -s hit &&
		before out beta@2 alpha@1 &&
		before out alpha@1 few@1 && page -v keyspaces -s hit -r && before out alpha@1 beta@2 &&
		before out beta@2 few@1
}
ok 'sorted; what has no figure comes last' sorted
totals() {
	page --totals -v keyspaces && has out 'LOADS' && ! has out 'LOAD/S' &&
		grep -qE '^users@1 +2 +0.0% +0.0% +1 +0.500 +0 ' out
}
ok 'totals' totals
memory() {
	page -v memory && grep -qE '^tables .*%' out && grep -qE '^flights +1/[0-9]+ ' out && has out 'no bound' &&
		! has out alpha@1
}
ok 'memory' memory
pages() {
	run top --count 3 --every 10ms -v flights
	[ "$status" = 0 ] && [ "$(grep -c 'shoal top: ' out)" = 3 ] && [ "$(grep -c ' slow ' out)" = 3 ]
}
ok 'three pages' pages
piped() {
	"$shoal" top --every 10ms -v keyspaces </dev/null | head -n 40 >out
	[ "${PIPESTATUS[0]}" = 141 ] && [ "$(wc -l <out)" = 40 ] && has out alpha@1
}
ok 'a pipe: until the reader goes' piped
full() {
	"$shoal" top -1 --every 1ms >/dev/full 2>err
	[ $? = 6 ] && has err 'No space left'
}
ok 'output that can not be written is an error' full
plain_ascii() {
	LC_ALL=C page -v flights && ! grep -q $'[^ -~]' out
}
ok 'nothing but ASCII where that is all there is' plain_ascii
ok 'no cache: exit status 3' ends 3 'no such segment' top --cache "$SHOAL_CACHE-none" -1
ok 'it leaves no trace' json "row['processes'] == 3" stat --json

if ! type tmux >/dev/null 2>&1; then
	skip 'on a terminal' 'no tmux'
	exec 4>&-
	finish
fi

# ---- on a terminal: $screen holds what is on it ----------------------------------------------------------------------

export TMUX_TMPDIR=$scratch
server=0
mux() {
	tmux -L $server -f /dev/null "$@"
}

clean_all() {
	mux kill-server 2>/dev/null
	clean
}
trap clean_all EXIT

begin() { # WIDTH HEIGHT ENVIRONMENT ARGUMENT...: top, and then a line that tells how it ended
	local width=$1 height=$2 environment=$3
	shift 3
	mux kill-server 2>/dev/null
	server=$((server + 1)) # the last one may still be about to end
	rm -f pid
	cat >pane <<PANE
trap : INT
echo before
sh -c 'echo \$\$ >pid; exec env $environment "$shoal" top $*'
echo "ended \$?"
stty -a | tr ' ;' '\n\n' | grep -xE -e '-?(icanon|echo)'
echo done
exec cat
PANE
	mux new-session -d -x "$width" -y "$height" sh pane \; set -g remain-on-exit on
}

shown() { # -e for colours
	mux capture-pane -p "$@" >screen
}

until_() { # COMMAND...: what is on the screen makes it succeed
	until shown && "$@"; do
		[ "$(mux display -p '#{pane_dead}')" = 0 ] || return
		sleep 0.05
	done
}

press() {
	mux send-keys "$@"
}

# It ended so, and the terminal is as it was before.
restored() { # STATUS
	until_ has screen 'done' && has screen before && has screen "ended $1" && ! has screen KEYSPACE &&
		grep -qx icanon screen &&
		grep -qx echo screen
}

echo '# 80 x 24'
begin 80 24 TERM=screen --every 50ms
ok 'it begins' until_ has screen alpha@1
fits() {
	until_ has screen 'sort: REQ/S' && [ "$(tail -n 1 screen | cut -c1-6)" = 'q quit' ] && has screen beta@2 &&
		has screen users@2 &&
		grep -qE "^ +$leader .* 1  loading +users@1 +slow " screen && has screen cli-workload &&
		[ "$(grep -c KEYSPACE screen)" = 3 ]
}
ok 'there is room for all of it: keyspaces, a flight with its key and leader, keys, processes' fits
ok 'the busier comes first' before screen alpha@1 beta@2
hottest() {
	grep -qE '^ +[0-9.]+k +1 B  alpha@1 +hottest' screen &&
		before screen 'alpha@1          hottest' 'alpha@1          warm'
}
ok 'the hottest key, from samples' until_ hottest
press s
ok 's: sorted by the next column' until_ has screen 'sort: HIT%'
ok 'of hit rates the worst comes first' before screen beta@2 alpha@1
press r
ok 'r: the other way round' until_ has screen 'sort: HIT% reversed'
ok 'which is the best' before screen alpha@1 beta@2
press '<'
ok '<: the column before' until_ has screen 'sort: REQ/S'
press r t
ok 't: totals' until_ has screen 'LOADS'
press t Space
ok 'space: it is paused' until_ has screen PAUSED
"$shoal" set -k newcomer key value
press t
ok 'and can be looked at in other ways' until_ has screen totals
ok 'but tells of nothing that came later' sh -c '! grep -q newcomer screen'
press t Space
ok 'it goes on' until_ has screen newcomer
press 3
only_flights() {
	has screen 'view: flights' && has screen ' slow ' && ! has screen alpha@1
}
ok '3: flights alone' until_ only_flights
press Tab
ok 'Tab: the next view' until_ has screen 'view: keys'
press 6
whole() {
	has screen 'view: memory' && has screen 'permits' && has screen 'SLOTS' && has screen 'tables'
}
ok '6: memory, all of it' until_ whole
press '?'
ok '?: help' until_ has screen 'what the origin sees'
press Escape
ok 'Escape: back from it' until_ has screen 'view: memory'
press 2
ok 'keyspaces' until_ has screen 'view: keyspaces'
for i in {10..40}; do "$shoal" set -k "many-$i" key value; done
press '>' '<' t
cut_off() {
	grep -qE '^KEYSPACE [0-9]+/37 ' screen && ! has screen users@2
}
ok 'more than there is room for' until_ cut_off
press NPage NPage NPage NPage
ok 'scrolled to the end' until_ has screen users@2
press Home
ok 'and back' until_ has screen alpha@1
press 1 t
mux resize-window -x 130 -y 60
wide() {
	has screen OLDEST && has screen many-40 && [ "$(wc -l <screen)" -gt 50 ] && tail -n 1 screen | grep -q '^q quit'
}
ok 'a larger terminal: more columns, more rows' until_ wide
mux resize-window -x 20 -y 5
tiny() {
	[ "$(wc -l <screen)" = 5 ] && tail -n 1 screen | grep -q '^q quit' && ! grep -qE '.{21}' screen
}
ok 'a small one' until_ tiny
mux resize-window -x 80 -y 24
ok 'and the first again' until_ has screen ' slow '
press q
ok 'q: it ends, and the terminal is as it was' restored 0

echo '# how it ends'
begin 80 24 TERM=screen --every 50ms
until_ has screen alpha@1
press C-c
ok '^C' restored 0
for signal in TERM HUP QUIT; do
	begin 80 24 TERM=screen --every 50ms
	until_ has screen alpha@1
	kill -$signal "$(cat pid)"
	ok "SIG$signal, which is passed on" restored "$((128 + $(kill -l $signal)))"
done

echo '# colours'
begin 80 24 TERM=screen-256color --every 50ms
until_ has screen alpha@1
colours() {
	shown -e
	grep -qE $'\e''\[[0-9;]*3[0-7]m' screen
}
ok 'some' colours
begin 80 24 'TERM=screen-256color NO_COLOR=1' --every 50ms
until_ has screen alpha@1
none() {
	shown -e
	! grep -qE $'\e''\[[0-9;]*3[0-7]m' screen && grep -q $'\e' screen
}
ok 'none with NO_COLOR' none

echo '# what may come'
begin 80 24 TERM=no-such-terminal --every 50ms
ok 'a terminal that is not known: text' until_ has screen alpha@1
mux kill-server
"$shoal" create -c "$SHOAL_CACHE-other" --size 1m
begin 80 24 TERM=screen "--every 50ms --cache $SHOAL_CACHE-other"
ok 'another cache' until_ has screen 'KEYSPACE'
"$shoal" destroy --force -c "$SHOAL_CACHE-other" 2>/dev/null
ok 'is destroyed: it says so, and goes on' until_ has screen 'no such segment'
"$shoal" set -c "$SHOAL_CACHE-other" -k back key value 2>/dev/null || "$shoal" create -c "$SHOAL_CACHE-other" --size 1m
"$shoal" set -c "$SHOAL_CACHE-other" -k back key value
ok 'is made anew' until_ has screen 'back@1'
press q
ok 'and ends' restored 0
exec 4>&-
finish
