#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: CC=... subproject.sh SOURCE
# A project that has shoal as a subproject, strict about its own warnings, builds and runs; its options stay its own.
# shellcheck disable=SC2317 # functions are called through case_
source=$1
here=$(dirname "$0")
# shellcheck source=tests/abi/tap.sh
. "$here/tap.sh"

parent=$scratch/parent
cp -r "$here/embed" "$parent"
cp "$source/tests/examples/first.c" "$parent"
mkdir "$parent/subprojects/shoal"
cp -r "$source/include" "$source/src" "$source/meson.build" "$source/meson_options.txt" "$parent/subprojects/shoal"
plain=$scratch/plain
cp -r "$parent" "$plain"
cat >>"$parent/meson.build" <<'EOF'
executable('first-static', 'first.c', dependencies: dependency('shoal', static: true))
executable('first-shared', 'first.c', dependencies: dependency('shoal', static: false))
EOF
# warnings that shoal itself is not built with, nor free of
sed -i "3i add_global_arguments('-Wconversion', '-Wcast-qual', '-pedantic-errors', '-Werror', language: 'c')" \
	"$parent/meson.build"

configure() {
	meson setup --wrap-mode=nodownload --force-fallback-for=shoal "$@"
}

provided() {
	grep -q 'Dependency shoal found: YES.*overridden' "$parent/build/meson-logs/meson-log.txt"
}

options() { # of the parent alone that are not what it says
	meson introspect "$parent/build" --buildoptions | python3 -c '
import json, sys
has = {o["name"]: str(o["value"]) for o in json.load(sys.stdin)}
wants = {"c_std": "gnu99", "warning_level": "3", "werror": "True", "default_library": "static", "buildtype": "debug",
         "b_ndebug": "false", "b_sanitize": "none", "prefix": "/usr/local"}
for name, value in wants.items():
    if has[name] != value:
        print(name, "is", has[name])'
}

programs() { # of shoal that a subproject has no use for
	meson introspect "$parent/build" --targets | python3 -c '
import json, sys
for t in json.load(sys.stdin):
    if t["subproject"] == "shoal" and t["type"] not in ("shared library", "static library"):
        print(t["name"])'
}

runs() {
	said=$("$1") || return 1
	[ "$(echo "$said" | wc -l)" = 8 ] && [ "$(echo "$said" | sed 's/.*process //' | sort -u | wc -l)" = 1 ]
}

linked() { # PROGRAM YES-OR-NO: with libshoal.so.0?
	needs=no
	! readelf -d "$1" | grep -q 'NEEDED.*libshoal.so.0' || needs=yes
	[ "$needs" = "$2" ]
}

case_ 'a parent finds its dependency by the wrap' configure "$parent/build" "$parent"
case_ 'it is the subproject' provided
case_ 'its options are what it says' nothing options
case_ 'the subproject is the library alone' nothing programs
case_ 'it builds, with warnings as errors' ninja -C "$parent/build" -j2
for program in first first-static first-shared; do
	case_ "$program runs" runs "$parent/build/$program"
done
case_ 'static is static' linked "$parent/build/first-static" no
case_ 'shared is shared' linked "$parent/build/first-shared" yes
for kind in static shared; do
	case_ "with $kind libraries alone" configure "-Dshoal:default_library=$kind" "$scratch/$kind" "$plain"
done
done_
