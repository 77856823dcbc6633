#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Break the engine on purpose, one rule at a time: each NAME.patch here is applied to a copy of the tree, built, and the
# test that its first line names ("# red: process-fresh", "# red: fuzz-call tests/fuzz/corpus-call", or a script of
# tests: "# red: cli/entries.sh", "# red: abi/install.sh"; "# red: examples/prefork"; of the Python package "# red:
# python/cache") must fail. A mutant that survives, or a patch that no longer applies, is a failure. Prints TAP.
#   run.sh [NAME ...]
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
n=0 failed=0

result() { # 0|1 TEXT
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2" && failed=1; fi
}

# The tree as git sees it, uncommitted changes and all, in one build directory: a mutant rebuilds a file or two.
(cd "$top" && git ls-files -z --cached --others --exclude-standard include src tests meson.build meson_options.txt \
	'*.md' |
	tar -c --null -T - 2>/dev/null) | tar -x -C "$work" || exit 1
meson setup "$work/build" "$work" -Dbench=disabled -Dtests=enabled >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }

# What is installed, and what is made of it.
installed_is_red() { # abi/NAME.sh, packages/NAME.sh, readme.sh
	local arguments=("$work")
	if [ "$1" = readme.sh ]; then
		! "$work/tests/readme.sh" "$work" "$(sed -n "s/^  version: '\(.*\)',$/\1/p" "$work/meson.build")" \
			>"$work/log" 2>&1
		return
	fi
	[ -e "$work/plain" ] || meson setup "$work/plain" "$work" -Dbench=disabled -Dtests=disabled >"$work/log" 2>&1 ||
		return 2
	ninja -C "$work/plain" >"$work/log" 2>&1 || return 2
	case $1 in
	abi/changes.sh) arguments=("$work/plain/libshoal.so" "$work/include") ;;
	abi/install.sh) arguments=("$work/plain" "$work") ;;
	esac
	! CC=cc timeout 600 "$work/tests/$1" "${arguments[@]}" >"$work/log" 2>&1 </dev/null
}

# A test that hangs under a mutant has noticed it, too.
is_red() { # TEST [ARGUMENT, a path of the tree]
	if [[ $1 == abi/* || $1 == packages/* || $1 == readme.sh ]]; then
		installed_is_red "$1"
		return
	fi
	if [[ $1 == cli/* ]]; then
		ninja -C "$work/build" src/cli/shoal tests/cli-driver tests/cli-workload >"$work/log" 2>&1 || return 2
		! timeout 300 "$work/tests/$1" "$work/build/src/cli/shoal" "$work" "$work/build/tests/cli-driver" \
			"$work/build/tests/cli-workload" >"$work/log" 2>&1 </dev/null
		return
	fi
	if [[ $1 == examples/* ]]; then # each by its name, with all that is built for any of them
		local built
		built=$(ninja -C "$work/build" -t targets all |
			sed -n 's/^\(tests\/[^ /]*example[^ /]*\): .*LINKER.*/\1/p')
		# shellcheck disable=SC2086 # words
		ninja -C "$work/build" src/cli/shoal $built >"$work/log" 2>&1 || return 2
		! meson test -C "$work/build" --no-rebuild --suite examples -t 2 "${1#examples/}" >"$work/log" 2>&1 \
			</dev/null
		return
	fi
	if [[ $1 == python/* ]]; then
		local built
		built=$(ninja -C "$work/build" -t targets all | sed -n 's/^\(libshoal\.so[0-9.]*\): .*/\1/p')
		ninja -C "$work/build" "$built" src/python/shoal/_header.py >"$work/log" 2>&1 || return 2
		! timeout 300 meson test -C "$work/build" --suite python "${1#python/}" >"$work/log" 2>&1 </dev/null
		return
	fi
	ninja -C "$work/build" "tests/$1" >"$work/log" 2>&1 || return 2
	! timeout 300 "$work/build/tests/$1" ${2+"$work/$2"} >"$work/log" 2>&1 </dev/null
}

mutant() { # PATCH
	local name test status
	name=$(basename "$1" .patch)
	test=$(sed -n '1s/^# red: //p' "$1")
	if ! patch -s -F0 -p1 -d "$work" --dry-run <"$1" >/dev/null 2>&1; then
		result 1 "$name: the patch does not apply"
		return
	fi
	patch -s -p1 -d "$work" <"$1"
	# shellcheck disable=SC2086 # words
	is_red $test
	status=$?
	case $status in
	0) result 0 "$name: $test is red" ;;
	2) result 1 "$name: does not build" ;;
	*) result 1 "$name: $test stays green" ;;
	esac
	patch -s -R -p1 -d "$work" <"$1"
}

if [ $# -eq 0 ]; then
	set -- "$here"/*.patch
else
	set -- "${@/#/$here/}"
	set -- "${@/%/.patch}"
fi
for p; do
	mutant "$p"
done
echo "1..$n"
exit $failed
