#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Instructions per hit, miss, set, publish and so on, beside their budgets (tests/bench/instructions.budgets, or the
# file that is named). Exit status 1: one of them costs more. They are counted by single-stepping, which works where
# processors let nobody count, as in most virtual machines. The tests do the same with the build that they are of.
#   bench/instructions.sh [BUDGETS]
#   bench/instructions.sh --profile    where they go, part by part, and the cache lines, beside the bound's: in Markdown
#   bench/instructions.sh --readme     writes that into README.md
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
build=$top/build/instructions
profile=''
case ${1-} in
--profile | --readme) profile=$1 && shift ;;
esac
budgets=$(realpath "${1:-$top/tests/bench/instructions.budgets}")

# shellcheck source=../tests/packages.sh disable=SC1091
. "$top/tests/packages.sh"
need gcc libc6-dev binutils python3 meson ninja-build pkg-config liburcu-dev libxxhash-dev liblz4-dev libzstd-dev \
	libcmocka-dev >&2 || exit 1
log=$build.log
mkdir -p "$top/build"
if [ ! -e "$build/build.ninja" ]; then
	CC=gcc meson setup "$build" "$top" --buildtype=release -Ddebug=true -Dtests=enabled -Dbench=disabled \
		>"$log" 2>&1 || { cat "$log" >&2 && exit 1; }
fi
ninja -C "$build" tests/bench-instructions >"$log" 2>&1 || { cat "$log" >&2 && exit 1; }
case $profile in
--profile) exec python3 "$top/bench/profile.py" "$build/tests/bench-instructions" ;;
--readme) exec python3 "$top/bench/profile.py" "$build/tests/bench-instructions" --readme "$top/README.md" ;;
esac
exec "$build/tests/bench-instructions" "$budgets"
