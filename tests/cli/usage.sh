#!/bin/bash
# SPDX-License-Identifier: MIT
# Wrong input of every verb: exit status 2, a message that names what is wrong, nothing on standard
# output, no cache made.
. "$(dirname "$0")/lib.sh"

bad() { # TEXT ARGUMENT...
	local text=$1
	shift
	run "$@"
	[ "$status" = 2 ] && [ ! -s out ] && grep -qF -e "$text" err && grep -q '^shoal' err &&
		! ls /dev/shm/shoal."$SHOAL_CACHE".* 2>/dev/null
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
create --cache .hidden               | no dot first
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
info --all --cache x                | one of --all and --cache
info shop                           | one argument too many: 'shop'
destroy --froce                     | did you mean --force?
destroy shop                        | one argument too many: 'shop'
top shop                            | one argument too many: 'shop'
top --every 0                       | --every needs a duration above 0
top --every fast                    | --every: 'fast' is no number
top --sort size                     | --sort: 'size' is none of req|hit
top --view graph                    | --view: 'graph' is none of all|keyspaces
top -1 --count 2                    | one of --once and --count
top --count 0                       | --count: '0' is too small
metrics shop                        | one argument too many: 'shop'
metrics --listen 1 --output x       | one of --listen and --output
metrics --every 1s                  | --every needs --output
metrics --output x --every 0        | --every needs a duration above 0
metrics --output x --every 15       | needs a unit
metrics --lisen 9123                | did you mean --listen?
keys --keyspace a@b                 | --keyspace: 'a@b' is no keyspace: its version
keys --keyspace a/b                 | --keyspace: 'a/b' is no keyspace: NAME
keys --keyspace a@-1                | its version is no number
keys --keyspace @1                  | is no keyspace: NAME
keys --limit 0                      | --limit: '0' is too small
keys --null                         | --null needs --keyspace
keys all                            | one argument too many: 'all'
get key                             | which keyspace?
get -k a                            | it needs KEY
get -k a one two                    | one argument too many: 'two'
get -k a --schema x key             | --schema: 'x' is no number
set -k a                            | it needs KEY
set -k a key one two                | one argument too many: 'two'
set -k a --fresh 30 key x           | --fresh: '30' needs a unit
set -k a --fresh 30x key x          | needs a unit
set -k a --fresh -1s key x          | is negative
set -k a --fresh 1e3s key x         | needs a unit
set -k a --fresh nan key x          | is no number
set -k a --fresh 50d key x          | is more than 49 days
set -k a --fresh 0.5ms key x        | is too fine
set -k a --stale 9999999999999999999999s key x | is too large
set -k a --compress gzip key x      | --compress: 'gzip' is none of lz4|zstd
set key x                           | which keyspace?
delete -k a                         | it needs KEY...
delete key                          | which keyspace?
expire -k a                         | it needs KEY...
expire -k a --stale soon key        | is no number
stat --json --prom                  | one of --json and --prom
stat --prom --watch 1s              | --prom is of all keyspaces, once
stat --watch none                   | --watch needs a duration above 0
stat --watch 0                      | --watch needs a duration above 0
stat --watch forever                | --watch needs a duration above 0
stat --count 3                      | --count needs --watch
stat --watch 1                      | --watch: '1' needs a unit
stat all                            | one argument too many: 'all'
flush                               | which keyspace?
flush -k a b                        | one argument too many: 'b'
run                                 | it needs [--] COMMAND
run -- true                         | what names the output?
run --key k --key-from-args true    | what names the output?
run --key= true                     | an empty one names nothing
run --key                           | --key needs KEY
run --key k                         | it needs [--] COMMAND
run --key k --fresh 1x true         | --fresh: '1x' needs a unit
run --key k --fresh 30 true         | --fresh: '30' needs a unit
run --key k --stale -1s true        | --stale: '-1s' is negative
run --key k --retry 0 true          | --retry: has to be more than 0
run --key k --retry none true       | --retry: has to be more than 0
run --key k --max-loads 0 true      | --max-loads: '0' is too small
run --key k --env A=B true          | --env: 'A=B' is no name
run --key k --env /A true           | --env: '/A' is no name
run --key k --keyspace a/b true     | --keyspace: 'a/b' is no keyspace
run --key k -k 123456789012345678901234567890123456789012345678901234567 true | is too long: up to 56
run --key k --cache .hidden true    | 1 to 63 of
run --key k --owner no-such-user true | --owner: no user 'no-such-user'
run --kye k true                    | did you mean --key?
warm --keys f --exec true           | which keyspace?
warm --keyspace k --exec true       | which keys?
warm --keyspace k --keys f          | what gives their values?
warm --keyspace k --keys no-such --exec true | no-such: No such file
warm --keyspace k --keys f --exec true --rate fast | --rate: 'fast'
warm --keyspace k --keys f --exec true --rate 0 | --rate: '0'
warm --keyspace k --keys f --exec true --stop-errors 120% | --stop-errors: '120%'
warm --keyspace k --keys - --exec true --resume p | no going back
warm --keyspace k --keys f --exec true more | one argument too many: 'more'
migrate --from a@1                  | from where, and where to?
migrate --to a@1                    | from where, and where to?
migrate --from a --to a@1           | are the same keyspace
migrate --from a@x --to b           | --from: 'a@x'
migrate --from a --to b --schema 0  | --schema: '0' is too small
dump                                | it needs FILE
dump a b                            | one argument too many: 'b'
dump --json -                       | standard output has the dump
dump --keyspace a@b f               | --keyspace: 'a@b'
restore                             | it needs FILE
restore no-such-file                | no-such-file: No such file
restore --force f                   | no option --force
canary                              | which keyspace?
canary --keyspace a                 | compared with what?
canary --keyspace a --against b --baseline f | one of them
canary --keyspace a --baseline no-such | is not what --save makes
canary --keyspace a --against b --max-drop 5x | --max-drop: '5x'
canary --keyspace a --against b --for 1 | --for: '1' needs a unit
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
