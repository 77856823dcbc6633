# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# To be sourced by the tests of the command. Each script is run as: NAME.sh SHOAL SOURCE-FOLDER DRIVER WORKLOAD, and
# prints TAP; $driver is cli/driver.c, WORKLOAD is cli/workload.c. It has a cache of its own to make, named
# $SHOAL_CACHE, and an empty folder as its working directory; both are removed at the end.
#
#   ok NAME COMMAND...              a case: the command succeeds; what it printed is shown if it doesn't
#   prints TEXT ARGUMENT...         for ok: `shoal ARGUMENT...` ends with 0 and prints exactly TEXT and a
#                                   newline ('': nothing)
#   shows TEXT ARGUMENT...          likewise, its output contains TEXT
#   ends STATUS TEXT ARGUMENT...    likewise, with that status and TEXT somewhere on standard error,
#                                   which is not a crash
#   json EXPRESSION ARGUMENT...     likewise: of its output, JSON lines, a Python expression over
#                                   `rows` and `row` is true
#   finish                          the last line of the script

set -u
shoal=$(realpath "$1")
# shellcheck disable=SC2034 # for who sources it
source=$(realpath "${2:-.}") driver=$(realpath "${3:-/nonexistent}")
scratch=$(mktemp -d) || exit 1
cd "$scratch" || exit 1
export SHOAL_CACHE=test-cli-$$ LC_ALL=C.UTF-8
unset SHOAL_LOG NO_COLOR
n=0 failed=0 status=0

clean() {
	rm -rf "$scratch"
	rm -f /dev/shm/shoal."$SHOAL_CACHE".v* /dev/shm/shoal."$SHOAL_CACHE"-*.v*
}
trap clean EXIT

ok() { # NAME COMMAND...
	local name=$1
	shift
	n=$((n + 1))
	if "$@" >log 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		sed 's/^/# /' log
		failed=1
	fi
}

skip() { # NAME WHY
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

run() { # ARGUMENT...: out, err; $status
	status=0
	"$shoal" "$@" >out 2>err </dev/null || status=$?
	echo "shoal $*: exit status $status"
	head -c 4000 out
	head -c 4000 err
}

prints() { # TEXT ARGUMENT...
	local text=$1
	shift
	run "$@"
	[ "$status" = 0 ] && printf "${text:+%s\n}" "$text" | cmp out -
}

shows() { # TEXT ARGUMENT...
	local text=$1
	shift
	run "$@"
	[ "$status" = 0 ] && grep -qF -e "$text" out
}

ends() { # STATUS TEXT ARGUMENT...
	local wanted=$1 text=$2
	shift 2
	run "$@"
	[ "$status" = "$wanted" ] && grep -qF -e "$text" err
}

json() { # EXPRESSION ARGUMENT...
	local expression=$1
	shift
	run "$@"
	[ "$status" = 0 ] && python3 -c "
import json, sys, base64
rows = [json.loads(line) for line in open('out', encoding='utf-8')]
row = rows[0] if rows else None
assert ($expression), rows"
}

finish() {
	echo "1..$n"
	exit $failed
}
