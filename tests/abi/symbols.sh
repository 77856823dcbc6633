#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: symbols.sh LIBRARY HEADER [NAME]
# The shared library exports what the header declares, versioned, and nothing else.
library=$1 header=$2 name=${3-libshoal}
export LC_ALL=C
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort -u)
names=$(printf '%s\n' "$exported" | sed 's/@.*//')
declared=$(grep -v '^typedef' "$header" | sed -n 's/^[a-z].*[ *]\(shoal_[a-z0-9_]*\)(.*/\1/p' | sort -u)
n=0 failed=0

none() { # NAME COMPLAINTS
	n=$((n + 1))
	if [ -z "$2" ]; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		printf '%s\n' "$2" | sed 's/^/# /'
		failed=1
	fi
}

both=$(printf '%s\n' "$names" "$declared" | sort | uniq -d)
only() { printf '%s\n%s\n' "$1" "$both" | sort | uniq -u; }

none 'exports shoal_* alone' "$(printf '%s\n' "$names" | grep -v '^shoal_')"
none 'exports all that the header declares' "$(only "$declared")"
none 'exports nothing that the header does not declare' "$(only "$names")"
none 'every symbol has a version' "$(printf '%s\n' "$exported" | grep -v '@@SHOAL_[0-9]')"
none "soname is $name.so.0" "$(objdump -p "$library" | awk -v want="$name.so.0" '$1 == "SONAME" && $2 != want')"
# nothing a setuid program's caller could say
none 'reads no environment variable' \
	"$(nm -D --undefined-only "$library" | grep -E '[^a-z](secure_)?getenv(@|$)|[^a-z]environ(@|$)')"
echo "1..$n"
exit $failed
