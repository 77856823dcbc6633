#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: CC=... php.sh LIBRARY-FOLDER SOURCE
# The example for PHP, which has a hand's copy of what it uses of shoal.h: forked, and as processes that share a name.
# shellcheck disable=SC2317 # functions are called through case_
libdir=$1 source=$2
# shellcheck source=tests/abi/tap.sh
. "$(dirname "$0")/tap.sh"

example=$source/tests/examples/first.php
cache=test-php-$$
trap 'rm -rf "$scratch"; rm -f /dev/shm/shoal.$cache.v*' EXIT

one() { # OUTPUT: eight lines that name one process
	[ "$(wc -l <"$1")" = 8 ] && [ "$(sed 's/.*process //' "$1" | sort -u | wc -l)" = 1 ]
}
run() { LD_LIBRARY_PATH=$libdir php -d ffi.enable=1 "$example" "$@"; }
forked() {
	run >"$scratch/forked" && cat "$scratch/forked" && one "$scratch/forked"
}
named() {
	running=
	for i in 1 2 3 4 5 6 7 8; do
		run "$cache" >"$scratch/said.$i" &
		running="$running $!"
	done
	for pid in $running; do
		wait "$pid" || return
	done
	cat "$scratch"/said.* >"$scratch/named" && cat "$scratch/named" && one "$scratch/named"
}
declarations() { # that the copy has the sizes of the header, and calls nothing that isn't there
	sed -n "/FFI::cdef('/,/^'/p" "$example" | sed '1d;$d' >"$scratch/copy.h"
	{
		printf '#include <stddef.h>\n#include <stdint.h>\n#define const\n' # which the copy may leave out
		echo '#define shoal_policy copy_policy'
		echo '#define shoal_value copy_value'
		sed -n '/^    struct .*{/p' "$scratch/copy.h"
		echo '#undef shoal_policy'
		echo '#undef shoal_value'
		echo '#undef const'
		echo '#include <shoal.h>'
		echo '_Static_assert(sizeof(struct copy_policy) == sizeof(struct shoal_policy), "policy");'
		for field in lease_ms wait_ms; do
			echo "_Static_assert(offsetof(struct copy_policy, $field) =="
			echo "	offsetof(struct shoal_policy, $field), \"$field\");"
		done
		echo '_Static_assert(sizeof(struct copy_value) == sizeof(struct shoal_value), "value");'
		echo '_Static_assert(offsetof(struct copy_value, size) == offsetof(struct shoal_value, size), "size");'
		echo "_Static_assert(SHOAL_REFRESH == 2 && SHOAL_LEAD == 3 && SHOAL_WAIT == 4 &&"
		echo '	SHOAL_FOREVER == 0xFFFFFFFE, "constants");'
		for function in $(grep -o 'shoal_[a-z_]*(' "$scratch/copy.h" | tr -d '('); do
			echo "void *use_$function = (void *)$function;"
		done
	} >"$scratch/copy.c"
	# shellcheck disable=SC2086 # words
	${CC:-cc} -std=gnu11 -fsyntax-only -I"$source/include" "$scratch/copy.c"
}

case_ 'its declarations are the header'"'"'s' declarations
if ! command -v php >/dev/null || ! php -m | grep -qx FFI || ! php -m | grep -qx pcntl; then
	skip_ 'forked by PHP' 'no php with FFI and pcntl'
	skip_ 'PHP by name' 'no php with FFI and pcntl'
else
	case_ 'forked by PHP' forked
	case_ 'PHP by name' named
fi
done_
