#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: report.sh SOURCE-FOLDER       prints TAP
# What report.py counts.
cd "$1/tests" || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
n=0 failed=0

counts() { # NAME WANTED STATUS [OPTION...]: of standard input
	name=$1 wanted=$2 status=$3 n=$((n + 1))
	shift 3
	cat >"$scratch/out"
	got=$(python3 report.py "$@" here "$scratch/out" "$status" 2>"$scratch/err")
	if [ "$got" = "$wanted" ]; then
		echo "ok $n - $name"
	else
		printf 'not ok %d - %s\n# %s, not %s\n' $n "$name" "$got" "$wanted"
		failed=1
	fi
}

some='1..3
ok 1 - a
# skipped: no such thing
ok 2 - b
ok 3 - c # SKIP none'
printf '# one line\nhere here b it is not there\n*\the?e\tc\tno compiler\n' >"$scratch/both"
printf 'h* * b it is not there\n' >"$scratch/one"
printf 'here here b\n' >"$scratch/bare"

counts 'a case that says so is skipped' '1 0 2' 0 <<EOF
$some
EOF
counts 'listed skips pass' '1 0 2' 0 --skips "$scratch/both" <<EOF
$some
EOF
counts 'one that is not listed fails' '1 1 1' 0 --skips "$scratch/one" <<EOF
$some
EOF
counts 'a list without a reason is none' '' 0 --skips "$scratch/bare" <<EOF
$some
EOF
counts 'who skips and fails has failed' '0 1 0' 1 <<EOF
1..1
# skipped: half of it
not ok 1 - a
EOF
counts 'a program that ends by 77 is skipped' '0 0 1' 77 <<EOF
# skipped: it can't run
EOF
counts 'unless it is not listed' '0 1 0' 77 --skips "$scratch/both" <<EOF
# skipped: it can't run
EOF
counts 'a death behind the last case is a failure' '1 1 0' 139 <<EOF
1..2
ok 1 - a
EOF
echo "1..$n"
exit $failed
