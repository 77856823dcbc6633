#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: CC=... changes.sh LIBRARY INCLUDE     compare with libshoal.abi beside this, which is as abidw
#                                              saw the last release
#        changes.sh --renew LIBRARY INCLUDE    write libshoal.abi: before a release, or after a change that is meant
#
# What programs were compiled against stays: functions and their versions, arguments, structures with their sizes and
# offsets, numbers of enums. Functions may come, and so may numbers and fields, these where `reserved` was. Prints TAP.
# shellcheck disable=SC2317 # functions are called through case_
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/abi/tap.sh
. "$here/tap.sh"

dump() { # LIBRARY INCLUDE: what of the library a program with the public header sees
	abidw --exported-interfaces-only --drop-private-types --headers-dir "$2" --no-corpus-path --no-comp-dir-path \
		--no-show-locs --no-parameter-names --no-elf-needed --no-architecture --type-id-style hash "$1"
}

if [ "$1" = --renew ]; then
	dump "$2" "$3" >"$scratch/abi" && mv "$scratch/abi" "$here/libshoal.abi"
	exit
fi
library=$1 include=$2
if ! command -v abidiff >/dev/null; then
	skip_ 'nothing that programs were compiled against is gone or different' 'no abidiff'
	done_
fi

# The lines of abidiff's report that tell of more than growth. Of a structure whose size stays, fields that came and the
# reserve that gave way to them are no change; if anything else of it moved, abidiff says so in lines of its own.
changed() { # OLD NEW, both of dump()
	abidiff --leaf-changes-only --no-added-syms "$1" "$2" >"$scratch/report"
	[ $(($? & 3)) -eq 0 ] || { cat "$scratch/report" && return; } # its own failure
	awk '
		/^$/ || /summary:/ { next }
		/^[^ ]/ { head = $0; said = 0; reserve = 0 }
		/^.(struct|enum) [a-z_]+. changed:$/ { next }
		/^  (type size hasn.t changed|there are data member changes:)$/ { next }
		/^  [0-9]+ (data member|enumerator) insertions?:$/ { next }
		/^    .[^(]*, at offset [0-9]+ \(in bits\)( at .*)?$/ { next }
		/^    .[a-z_]+::SHOAL_[A-Z_]+. value .[0-9-]+.$/ || /^    .SHOAL_[A-Z_]+. value .[0-9-]+.$/ { next }
		/^    type .[a-z0-9_]+\[[0-9]+\]. of .[a-z_]+::reserved. changed:$/ { reserve = 1; next }
		/^    [^ ]/ && !/^    and offset changed/ { reserve = 0 }
		reserve { next }
		{ if (!said++ && head != $0) print head; print }' "$scratch/report"
}

# ---- does it see what it has to? libraries of the header as it is, and changed ---------------------------------------

stub='#include <shoal.h>
int shoal_open(const char *name, const struct shoal_config *config, struct shoal **cache)
{ return !name || !config || !cache; }
int shoal_keyspace_open(struct shoal *cache, const char *name, uint32_t version, const struct shoal_policy *policy,
	struct shoal_keyspace **keyspace) { return !cache || !name || !version || !policy || !keyspace; }
int shoal_get(struct shoal_keyspace *k, const void *key, size_t size, struct shoal_value *v)
{ return !k || !key || !size || !v; }
'
stats='int shoal_stats(struct shoal *cache, struct shoal_stats *stats) { return !cache || !stats; }'
variant() { # NAME SED-SCRIPT CODE: a header changed so, and the dump of a library with it
	mkdir -p "$scratch/$1"
	sed "$2" "$include/shoal.h" >"$scratch/$1/shoal.h"
	[ -z "$2" ] || ! cmp -s "$include/shoal.h" "$scratch/$1/shoal.h" || { echo "$1 changes nothing" && return 1; }
	printf '%s\n' "$stub" "$3" >"$scratch/$1/stub.c"
	# shellcheck disable=SC2086 # words
	$CC -g -shared -fPIC -w -I"$scratch/$1" "$scratch/$1/stub.c" -o "$scratch/$1/stub.so" &&
		dump "$scratch/$1/stub.so" "$scratch/$1" >"$scratch/$1/abi"
}
bears() { variant "$@" && nothing changed "$scratch/before/abi" "$scratch/$1/abi"; }
minds() { variant "$@" && ! nothing changed "$scratch/before/abi" "$scratch/$1/abi"; }
in_struct() { printf '/^struct %s {/,/^};/{%s}' "$1" "$2"; } # NAME SED-SCRIPT
take=$(in_struct shoal_config 's/uint64_t reserved\[5\];/uint64_t later, reserved[4];/')
over=$(in_struct shoal_config 's/uint64_t reserved\[5\];/uint64_t later, reserved[5];/')

case_ 'a library of this header' variant before '' "$stats"
case_ 'the same' bears same '' "$stats"
case_ 'one function more is none of it' bears more '' "$stats int shoal_more(void) { return 0; }"
case_ 'nor a field where reserved was' bears grown "$take" "$stats"
case_ 'nor a number' bears number 's/SHOAL_LOG_INFO };/SHOAL_LOG_INFO, SHOAL_LOG_MORE };/' "$stats"
case_ 'other numbers are' minds renumbered 's/enum shoal_level { /&SHOAL_LOG_MORE, /' "$stats"
case_ 'and a field past reserved' minds longer "$over" "$stats"
case_ 'and a field before the others' minds moved \
	"$(in_struct shoal_policy 's/uint32_t fresh_ms;/uint32_t later; &/')" "$stats"
case_ 'and one of another type' minds type "$(in_struct shoal_config 's/mode_t mode;/int mode;/')" "$stats"
case_ 'and one that goes into reserved, with a hole behind' minds hole \
	"$(in_struct shoal_value 's/size_t size;/size_t hole, size;/')" "$stats"
case_ 'and a function that is gone' minds gone '' ''
case_ 'and one that returns something else' minds returns 's/^int shoal_stats(/long shoal_stats(/' \
	"$(echo "$stats" | sed 's/^int/long/')"

# ---- the library -----------------------------------------------------------------------------------------------------

dump "$library" "$include" >"$scratch/now"
case_ 'nothing that programs were compiled against is gone or different' nothing changed \
	"$here/libshoal.abi" "$scratch/now"
done_
