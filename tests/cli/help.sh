#!/bin/bash
# SPDX-License-Identifier: MIT
# help, completion, version; and the man pages: of each verb and each of its options, no more and no less.
. "$(dirname "$0")/lib.sh"

"$shoal" help | sed -n 's/^  \([a-z]*\) .*/\1/p' >verbs

options_of() { # VERB: as its help names them
	"$shoal" help "$1" | grep -oE '^  (-., |    )--[a-z-]+' | grep -oE -e '--[a-z-]+' | sort
}

echo '# help'
ok 'help' shows 'usage: shoal VERB' help
ok '--help' shows 'usage: shoal VERB' --help
ok '-h' shows 'usage: shoal VERB' -h
ok 'it fits 120 columns' sh -c "! '$shoal' help | grep -E '.{121}'"
helped() {
	local verb
	while read -r verb; do
		"$shoal" help "$verb" >one 2>&1 && "$shoal" "$verb" --help >two 2>&1 &&
			"$shoal" --help "$verb" >three && cmp one two &&
			cmp one three && [ "$(head -n 1 one | cut -d' ' -f1-3)" = "usage: shoal $verb" ] &&
			! grep -E '.{121}' one || return
	done <verbs
	[ "$(wc -l <verbs)" -gt 15 ]
}
ok 'each verb, in all ways that there are, in 120 columns' helped
ok 'version' sh -c "[ \"\$('$shoal' version)\" = \"\$('$shoal' --version)\" ] &&
	'$shoal' -V | grep -qE '^shoal [0-9]+\.[0-9]+\.[0-9]+, layout [0-9]+$'"

echo '# messages'
levels() { # SHOAL_LOG COUNT
	[ "$(SHOAL_LOG=$1 "$shoal" check --cache ./seg 2>&1 | wc -l)" = "$2" ]
}
"$shoal" create --cache ./seg --size 1m
ok 'nothing is said by itself' levels '' 0
ok 'SHOAL_LOG=info' levels info 0
ok 'SHOAL_LOG=debug' levels debug 1
ok 'another word is as none' levels loud 0
ok 'closed standard output is an error' sh -c "! '$shoal' version >&- 2>err"
coloured() { # ENVIRONMENT...
	script -qec "env TERM=xterm SHOAL_LOG=debug $* '$shoal' check --cache ./seg" /dev/null </dev/null >out
	cat -v out
	grep -q 'debug:' out && grep -q $'\e' out
}
ok 'colour on a terminal' coloured
ok 'none with NO_COLOR' sh -c 'exit $((! $1))' - "$(coloured NO_COLOR=1 >/dev/null; echo $?)"
ok 'none on a dumb terminal' sh -c 'exit $((! $1))' - "$(coloured TERM=dumb >/dev/null; echo $?)"

echo '# completion'
"$shoal" completion bash >completion
cat >complete.sh <<'COMPLETE'
. ./completion
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_shoal
printf '%s\n' "${COMPREPLY[@]}" | sort
COMPLETE
completes() { # EXPECTED WORD...: the last of them is being typed
	local expected=$1
	shift
	bash --norc complete.sh shoal "$@" >out 2>err
	cat out err
	[ ! -s err ] && [ "$(paste -sd' ' <out)" = "$expected" ]
}
ok 'a verb' completes create cre
ok 'verbs' completes 'delete destroy' de
all_completed() {
	local verb
	completes "$(sed '$a--help\n--version' verbs | sort | paste -sd' ')" '' || return
	while read -r verb; do
		completes "$(options_of "$verb" | paste -sd' ')" "$verb" -- || return
	done <verbs
}
ok 'all verbs, and of each the options that its help names' all_completed
ok 'a choice' completes 'lz4 zstd' set --compress ''
ok 'of a choice' completes zstd set --compress z
"$shoal" create --size 1m
ok 'a cache' completes "$SHOAL_CACHE" get --cache "${SHOAL_CACHE%?}"
ok 'a verb to be helped with' completes 'resize' help resi
ok 'nothing where anything may stand' completes '' set --fresh ''
ok 'nothing for what is no verb' completes '' nothing --
loaded() {
	bash --norc -c '. ./completion && complete -p shoal' | grep -q _shoal
}
ok 'bash has it' loaded

echo '# man pages'
verb_pages() { # VERB: the page that has a section of it
	grep -lxF "# ${1^^}" "$source"/src/man/shoal*.1.scd
}
section() { # VERB: of its page
	awk -v name="# ${1^^}" '$0 == name { on = 1; next } /^# / { on = 0 } on' "$(verb_pages "$1")"
}
documented() {
	local verb
	while read -r verb; do
		[ "$(verb_pages "$verb" | wc -l)" = 1 ] || 
			{ echo "$verb: not in one page: $(verb_pages "$verb")" && return 1; }
		{ section "$verb" | grep -oE '^\*(-.\*, \*)?--[a-z-]+\*' | grep -oE -e '--[a-z-]+'; echo --help; } |
			sort -u >page
		options_of "$verb" >table
		diff table page || { echo "$verb: < in its table, > in its page" && return 1; }
		section "$verb" | grep -qF "*shoal $verb*" || { echo "$verb: no synopsis" && return 1; }
		sed '/^# COMMON/,$d' "$source/src/man/shoal.1.scd" | grep -qF "*$verb*" ||
			{ echo "$verb: not in shoal(1)" && return 1; }
	done <verbs
}
ok 'each verb has a section, with its options' documented
if command -v scdoc >/dev/null; then
	pages() {
		local f
		for f in "$source"/src/man/*.scd; do
			scdoc <"$f" >page 2>err && [ ! -s err ] || { cat "$f" err | tail -n 5 && return 1; }
			! command -v man >/dev/null || LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=100 man --warnings \
				-E UTF-8 -l -Tutf8 -Z page 2>err >/dev/null
			[ ! -s err ] || { echo "$f" && cat err && return 1; }
		done
	}
	ok 'they are well formed' pages
else
	skip 'they are well formed' 'no scdoc'
fi
fields() {
	{ "$shoal" info --json && "$shoal" info --all --json && "$shoal" stat --json &&
		"$shoal" stat --watch 1ms --count 2 --json &&
		"$shoal" keys --json && "$shoal" get -k a --json key; } | python3 -c '
import json, sys
print(*sorted({field for line in sys.stdin for field in json.loads(line)}), sep="\n")' >found
	sed 's/\\_/_/g' "$source/src/man/shoal.5.scd" >page
	while read -r field; do
		grep -qF "*$field*" page || [ "$field" = seconds ] && grep -q '\*seconds\*' page ||
			{ echo "no $field" && return 1; }
	done <found
	[ "$(wc -l <found)" -gt 50 ]
}
"$shoal" set -k a key value
ok 'shoal(5) has all fields of the JSON' fields

linked() {
	local page
	grep -ohE '\*?shoal(-[a-z]+)?\*?\([0-9]\)' "$source"/src/man/*.scd "$source"/src/cli/*.c | tr -d '*' |
		sort -u >links
	while read -r page; do
		[ "$page" = 'shoal(3)' ] || [ -e "$source/src/man/$(echo "$page" | sed 's/(\(.\))/.\1.scd/')" ] ||
			{ echo "no $page" && return 1; }
	done <links
	[ -s links ]
}
ok 'what they refer to is there' linked
finish
