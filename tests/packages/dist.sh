#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: dist.sh [SOURCE]
# What `meson dist` makes of the last commit builds, and passes its own quick tests. Prints TAP.
# shellcheck disable=SC2317 # functions are called through case_
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "${1:-$here/../..}" && pwd)
# shellcheck source=tests/abi/tap.sh
. "$here/../abi/tap.sh"

if ! git -C "$source" rev-parse HEAD >/dev/null 2>&1; then
	skip_ 'meson dist' 'no git repository'
	done_
fi

pack() {
	meson setup -Dtests=disabled -Dbench=disabled "$scratch/for-dist" "$source" &&
		meson dist -C "$scratch/for-dist" --allow-dirty --no-tests --formats gztar
}
unpack() {
	tar -xzf "$scratch"/for-dist/meson-dist/shoal-*.tar.gz -C "$scratch"
	tree=$(echo "$scratch"/shoal-*)
}
missing() { # of what git has
	git -C "$source" ls-tree -r --name-only HEAD | while read -r f; do
		[ -e "$tree/$f" ] || [ -L "$tree/$f" ] || echo "$f"
	done
}
tests() {
	SHOAL_TEST_SECONDS=${SHOAL_TEST_SECONDS:-10} meson test -C "$tree/build" --no-rebuild --suite unit --suite abi
}

case_ 'meson dist packs the last commit' pack
case_ 'it unpacks' unpack
case_ 'nothing is missing' nothing missing
case_ 'it configures, without git' meson setup -Dtests=enabled "$tree/build" "$tree"
case_ 'it builds' ninja -C "$tree/build" -j2
case_ 'its quick tests pass' tests
done_
