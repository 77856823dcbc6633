#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: CC=... install.sh BUILD EXAMPLE
# Install into an empty directory, then build and run a program with nothing but what pkg-config says.
build=$1 example=$2
root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
n=0 failed=0

case_() { # NAME COMMAND...
	name=$1 && shift
	n=$((n + 1))
	if "$@" >"$root/log" 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		sed 's/^/# /' "$root/log"
		failed=1
	fi
}

case_ 'meson install' meson install -C "$build" --no-rebuild --destdir "$root/i"
pc=$(find "$root/i" -name shoal.pc)
PKG_CONFIG_PATH=$(dirname "${pc:-/nowhere}") PKG_CONFIG_SYSROOT_DIR=$root/i
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
libdir=$(dirname "$PKG_CONFIG_PATH")

case_ 'pkg-config finds it' pkg-config --print-errors --exists shoal
# shellcheck disable=SC2046,SC2086 # words
case_ 'a program links' $CC "$example" -o "$root/shared" $(pkg-config --cflags --libs shoal) -pthread
case_ 'a program runs' env LD_LIBRARY_PATH="$libdir" "$root/shared"
if [ -e "$libdir/libshoal.a" ]; then
	# shellcheck disable=SC2046,SC2086
	case_ 'a program links statically' $CC "$example" -o "$root/static" $(pkg-config --cflags shoal) \
		"$libdir/libshoal.a" -lurcu-bp -llz4 -lzstd -lm -pthread
	case_ 'a static program runs' "$root/static"
fi
for file in shoal.rules.yml shoal.dashboard.json; do
	case_ "$file" test -s "$root/i/usr/local/share/shoal/$file"
done
if [ -e "$build/src/cli/shoal" ]; then
	shoal=$(find "$root/i" -path '*/bin/shoal')
	case_ 'the command runs' env LD_LIBRARY_PATH="$libdir" "${shoal:-/nowhere}" version
	case_ 'its completion' grep -q 'complete .*shoal' "$root"/i/usr/local/share/bash-completion/completions/shoal.bash
fi
if [ -e "$build/src/man/shoal.3" ]; then
	for page in shoal.1 shoal.3 shoal.5 shoal.7 shoal-top.1 shoal-metrics.1 shoal-runbook.7; do
		case_ "manual page $page" test -s "$(find "$root/i" -path "*/man${page#*.}/$page*")"
	done
fi
echo "1..$n"
exit $failed
