#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: CC=... CXX=... header.sh INCLUDE VERSION [REDIS]: REDIS, where shoal-redis.h is
# The public header stands alone, compiles cleanly in every language it promises, and names the version it belongs to.
include=$1 version=$2 redis=${3-}
n=0 failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

case_() { # NAME COMMAND...: compile standard input
	name=$1 && shift
	n=$((n + 1))
	if "$@" >"$log" 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		sed 's/^/# /' "$log"
		failed=1
	fi
}

skip() {
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

twice='#include <shoal.h>
#include <shoal.h>
int main() { struct shoal_value v; v.size = sizeof(struct shoal_config); return v.size == 0; }'
c=$(echo "$twice" | sed 's/main()/main(void)/')
strict="-pedantic -Wall -Wextra -Werror -fsyntax-only -I$include"

# shellcheck disable=SC2317 # called through case_
compile() {
	printf '%s\n' "$text" | "$@" -
}

text=$c
for std in c11 gnu11 c17; do
	# shellcheck disable=SC2086 # words
	case_ "header as $std" compile $CC -std=$std $strict -Wstrict-prototypes -x c
done

text=$twice
for std in c++11 c++17; do
	if [ -z "${CXX-}" ]; then
		skip "header as $std" "no C++ compiler"
	else
		# shellcheck disable=SC2086
		case_ "header as $std" compile $CXX -std=$std $strict -x c++
	fi
done

if [ -n "$redis" ]; then
	text='#include <shoal-redis.h>
#include <shoal-redis.h>
int main() { struct shoal_redis_loader l; l.arg = 0; return l.arg != 0; }'
	# shellcheck disable=SC2086
	[ -z "${CXX-}" ] || case_ 'shoal-redis.h as c++11' compile $CXX -std=c++11 $strict -I"$redis" -x c++
	text=$(echo "$text" | sed 's/main()/main(void)/')
	# shellcheck disable=SC2086
	case_ 'shoal-redis.h as c11' compile $CC -std=c11 $strict -I"$redis" -Wstrict-prototypes -x c
fi

major=${version%%.*} minor=${version#*.}
patch=${minor#*.} minor=${minor%%.*}
text="#include <shoal.h>
_Static_assert(SHOAL_VERSION_MAJOR == $major && SHOAL_VERSION_MINOR == $minor && SHOAL_VERSION_PATCH == $patch, \"\");"
# shellcheck disable=SC2086
case_ "header is of version $version" compile $CC -std=c11 $strict -x c

echo "1..$n"
exit $failed
