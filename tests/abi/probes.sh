#!/bin/sh
# SPDX-License-Identifier: MIT
# The tracepoints that probe.h names are in the library, with their four arguments (grace: two). Prints TAP.
#   probes.sh LIBRARY

n=0 list=$(mktemp) || exit 1
readelf -n "$1" | awk '/Provider: shoal/ { at = 1 } at && /Name:/ { name = $2 }
	at && /Arguments:/ { print name, NF - 1; at = 0 }' | sort -u >"$list"
trap 'rm -f "$list"' EXIT
for probe in 'hit 4' 'miss 4' 'load__start 4' 'load__end 4' 'wait 4' 'takeover 4' 'evict 4' 'grace 2'; do
	n=$((n + 1))
	if grep -qx "$probe" "$list"; then
		echo "ok $n - shoal:$probe arguments"
	else
		echo "not ok $n - shoal:$probe arguments"
	fi
done
echo "1..$n"
