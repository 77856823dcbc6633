# shellcheck shell=sh
# SPDX-License-Identifier: MIT
# To be sourced: TAP, case by case. $scratch is a folder that goes when the script ends.
n=0 failed=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

case_() { # NAME COMMAND...: what it prints is shown if it fails
	name=$1 && shift
	n=$((n + 1))
	if "$@" >"$scratch/log" 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		tail -n 40 "$scratch/log" | sed 's/^/# /'
		failed=1
	fi
}

skip_() { # NAME WHY
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

# case_ NAME COMMAND..., or skip_ where the machine has no PROGRAM
case_with() { # PROGRAM NAME COMMAND...
	program=$1 && shift
	if command -v "$program" >/dev/null 2>&1; then
		case_ "$@"
	else
		skip_ "$1" "no $program"
	fi
}

done_() {
	echo "1..$n"
	exit $failed
}

nothing() { # COMMAND...: succeeds and says nothing
	said=$("$@") || return 1
	[ -z "$said" ] || { printf '%s\n' "$said" && return 1; }
}
