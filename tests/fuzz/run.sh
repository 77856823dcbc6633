#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: run.sh LIBFUZZER-PROGRAM CORPUS       prints TAP
# Fuzzes for SHOAL_TEST_SECONDS (10), from the corpus on. What it finds is left in build/found.
program=$1 corpus=$2 seconds=${SHOAL_TEST_SECONDS:-10}
found=$(dirname "$program")/found
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$found"
"$program" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=4096 -max_len=512 -print_final_stats=1 \
	-artifact_prefix="$found/" "$scratch" "$corpus" >"$scratch.log" 2>&1
status=$?
sed -n 's/^stat::number_of_executed_units: */# executions: /p; s/^#.*DONE */# /p' "$scratch.log"
if [ $status = 0 ]; then
	echo "ok 1 - $(basename "$program")"
else
	sed 's/^/# /' "$scratch.log" | tail -n 60
	echo "not ok 1 - $(basename "$program")"
fi
rm -f "$scratch.log"
echo 1..1
exit $status
