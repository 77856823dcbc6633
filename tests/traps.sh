#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: traps.sh SOURCE-FOLDER       prints TAP, and traps.txt as a table
# Each trap of the design has a test: the cases that traps.txt names are there. One whose file is "-" has none since
# what it is about doesn't exist, and must get one as soon as its name shows in the header.
cd "$1/tests" || exit 1
traps=18 n=0 failed=0

is_there() { # FILE CASE
	case $1 in
	*.c) grep -Eq "(cmocka_unit_test[a-z_]*|CASE)\($2[,)]|\.name = \"$2\"|\{\"$2\"," "$1" ;;
	*) grep -qw -- "$2" "$1" ;;
	esac
}

for trap in $(seq $traps); do
	n=$((n + 1)) missing='' found=0
	lines=$(grep -E "^$trap +" traps.txt | sed -E 's/^([0-9]+) +([^ ]+) +/\1|\2|/; s/ {2,}/|/; t; s/$/|/')
	old=$IFS
	IFS='
'
	for line in $lines; do
		file=$(echo "$line" | cut -d'|' -f2) rest=$(echo "$line" | cut -d'|' -f3)
		name=$rest
		if [ "$file" = - ]; then
			! grep -qw "$name" ../include/shoal.h || missing="$missing; $name is there now"
			found=$((found + 1))
		else
			# Where the columns touch, the case is the longest beginning that names one.
			while [ -n "$name" ] && ! is_there "$file" "$name"; do
				case $name in
				*' '*) name=${name% *} ;;
				*) name= ;;
				esac
			done
			if [ -n "$name" ]; then found=$((found + 1)); else missing="$missing; $file: $rest"; fi
		fi
		printf '# %2s  %-24s %s\n' "$trap" "$file" "$(echo "$line" | cut -d'|' -f3- | tr '|' ' ')"
	done
	IFS=$old
	if [ $found -gt 0 ] && [ -z "$missing" ]; then
		echo "ok $n - trap $trap: $found"
	else
		echo "not ok $n - trap $trap$missing"
		failed=1
	fi
done
echo "1..$n"
exit $failed
