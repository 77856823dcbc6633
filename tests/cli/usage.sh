#!/bin/bash
# SPDX-License-Identifier: MIT
# Wrong input of every verb: exit status 2, a message that names what is wrong, nothing on standard output, no cache made.
. "$(dirname "$0")/lib.sh"

bad() { # TEXT ARGUMENT...
	local text=$1
	shift
	run "$@"
	[ "$status" = 2 ] && [ ! -s out ] && grep -qF -e "$text" err && grep -q '^shoal' err && ! ls /dev/shm/shoal."$SHOAL_CACHE".* 2>/dev/null
}

# VERB ARGUMENTS | TEXT
table() {
	cat <<'TABLE'
create --size 1x                    | --size: '1x' needs one of k, m, g, t
create --size -1                    | --size: '-1' is negative
create --size 0                     | --size: '0' has to be more than 0
create --size 99999999999999999999  | is too large
create --size 16777216t             | is too large
create --size 1.0001                | is too fine
create --size 1.0000000001k         | has too many digits
create --size nan                   | --size: 'nan' is no number
create --size inf                   | is no number
create --size 0x10                  | needs one of k, m, g, t
create --size 4096                  | cache
create --max-processes 0            | --max-processes: '0' is too small
create --max-processes 1.5          | is no whole number
create --max-processes 4294967296   | is too large
create --mode 999                   | --mode: '999' is no mode
create --mode 7777                  | is no mode
create --sise 1m                    | did you mean --size?
create --max 1m                     | no option --max
create --size                       | --size needs SIZE
create --checksum=yes               | --checksum takes no value
create --owner no-such-user         | --owner: no user 'no-such-user'
create --cache .hidden              | a name is 1 to 63
create -Z                           | no option -Z
create shop                         | one argument too many: 'shop'
check --jsn                         | did you mean --json?
check shop                          | one argument too many: 'shop'
reap --cache                        | --cache needs NAME
reap all                            | one argument too many: 'all'
resize                              | it needs SIZE
resize 1m 2m                        | one argument too many: '2m'
resize much                         | SIZE: 'much' is no number
resize --now 1m                     | no option --now
help creat                          | did you mean 'create'?
help create check                   | one argument too many: 'check'
help --verbose                      | no option --verbose
completion                          | it needs bash
completion csh                      | for bash only, not 'csh'
version 1                           | one argument too many: '1'
creat                               | did you mean 'create'?
xyzzy                               | no verb 'xyzzy'
--cache shop check                  | the verb comes first
TABLE
}

while IFS='|' read -r words text; do
	# shellcheck disable=SC2086 # words
	ok "${words%%  *}" bad "${text# }" $words
done < <(table)

all_verbs() {
	local verb
	"$shoal" help | sed -n 's/^  \([a-z]*\) .*/\1/p' >verbs
	while read -r verb; do
		table | grep -q "^$verb " || { echo "no line of bad input for $verb" && return 1; }
	done <verbs
	[ -s verbs ]
}
ok 'every verb is in this table' all_verbs
ok 'no verb at all' ends 2 'usage: shoal VERB'

nameless() {
	(unset SHOAL_CACHE && ends 2 'which cache?' check)
}
ok 'no cache is named' nameless
finish
