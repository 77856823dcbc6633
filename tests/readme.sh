#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: readme.sh ROOT VERSION
# What the README shows is what is built and run, and what CONTRIBUTING and CHANGELOG name is there. Prints TAP.
# shellcheck disable=SC2317 # functions are called through case_
cd "$1" || exit 1
version=$2
# shellcheck source=tests/abi/tap.sh
. tests/abi/tap.sh

first() {
	awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md | diff - tests/examples/first.c
}
embed() { # lines of the examples that it doesn't have; it may leave out how a project begins
	grep -rhvE '^#|^$|^first:|^cmake_minimum|^project\(|^add_executable' tests/abi/embed | while read -r line; do
		grep -qxF "    $line" README.md || echo "$line"
	done
}
part() { # of module.c: what shoal-embed(7) shows whole
	awk '/^```$/ { on = !on; if (!on && block ~ /example_open/) printf "%s", block; block = ""; next }
		on { block = block $0 "\n" }' src/man/shoal-embed.7.scd >"$scratch/block"
	sed -n "/^\/\* ---- shoal's part/,/^\/\* ---- end of/p" tests/examples/module.c | sed '1,2d;$d' | sed '$d' |
		diff - "$scratch/block" && [ -s "$scratch/block" ]
}
quoted() { # lines of its blocks that no example has
	sed 's/^[ \t]*//' tests/examples/*.c tests/examples/config tests/abi/embed/Makefile \
		tests/abi/embed/CMakeLists.txt tests/abi/embed/meson.build |
		grep . >"$scratch/lines"
	awk '/^```$/ { on = !on; next } on && NF' src/man/shoal-embed.7.scd | sed 's/^[ \t]*//' >"$scratch/shown"
	[ -s "$scratch/shown" ] || echo 'it shows nothing'
	grep -vxFf "$scratch/lines" "$scratch/shown"
	:
}
build_depends() { # of the packages that its apt line lacks
	awk '/^Build-Depends:/ { on = 1; next } /^[^ ]/ { on = 0 } on && !/nonginx/ { gsub(/,/, ""); print $1 }' \
		src/packages/debian/control | sed 's/^debhelper-compat$/debhelper/' | while read -r package; do
		grep -A1 '^    apt install build-essential' README.md | grep -qw -- "$package" || echo "$package"
	done
}
paths() {
	grep -ohE '`(\./)?(src|tests|bench|include)/[A-Za-z0-9_./-]+' CONTRIBUTING.md CHANGELOG.md | tr -d '`' |
		sort -u | while read -r path; do
		case $path in
		*NAME*) ;;
		*) [ -e "$path" ] || echo "$path" ;;
		esac
	done
}
commands() { # options and suites of tests/run.sh
	grep -ohE 'tests/run\.sh --[a-z]+( [a-z]+)?' CONTRIBUTING.md README.md | sed 's/.*run\.sh //' | sort -u |
		while read -r option suite; do
		grep -q -- "$option" tests/run.sh || echo "$option"
		[ "$option" != --suite ] || grep -qE "[ |]${suite}[ |)].*;;" tests/run.sh || echo "$suite"
	done
}
versions() { # those of the changelogs
	sed -n 's/^## \([0-9.]*\).*/CHANGELOG.md \1/p' CHANGELOG.md | head -n 1
	sed -n '1s/^shoal (\(.*\)-[0-9]*) .*/debian\/changelog \1/p' src/packages/debian/changelog
}

case_ 'the README shows tests/examples/first.c' first
case_ 'and tests/abi/embed' nothing embed
case_ 'shoal-embed(7) shows a part of tests/examples/module.c' part
case_ 'and lines of the other examples' nothing quoted
case_ 'the README shows what the Debian packages need' nothing build_depends
case_ 'what CONTRIBUTING and CHANGELOG name is there' nothing paths
case_ 'so are the options of tests/run.sh' nothing commands
case_ "the changelogs begin with $version" \
	test "$(versions | tr '\n' ' ')" = "CHANGELOG.md $version debian/changelog $version "
done_
