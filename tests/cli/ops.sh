#!/bin/bash
# SPDX-License-Identifier: MIT
# src/ops: the alert rules with their own tests, and the dashboard, as promtool has them;
# and against what is really written
. "$(dirname "$0")/lib.sh"
ops=$source/src/ops

"$shoal" create --size 1m
"$shoal" set -k a key value
"$shoal" metrics >metrics
python3 "$source/tests/cli/ops.py" "$source" metrics dashboard.yml >judgement
while read -r line; do
	case $line in
	'ok '* | 'not ok '*)
		name=${line#*- } n=$((n + 1))
		[[ $line == ok* ]] || failed=1
		echo "${line%% [0-9]*} $n - $name"
		;;
	'#'*) echo "$line" ;;
	esac
done <judgement
ok 'all of that was looked at' grep -qx '1..15' judgement

if type promtool >/dev/null 2>&1; then
	ok 'promtool: rules' promtool check rules "$ops/shoal.rules.yml"
	ok 'promtool: when they fire' promtool test rules "$ops/shoal.rules.test.yml" "$ops/shoal.keys.test.yml"
	dashboard() {
		promtool check rules dashboard.yml && [ "$(grep -c record: dashboard.yml)" -gt 30 ]
	}
	ok "promtool: each of the dashboard's expressions" dashboard
	ok 'promtool: metrics' promtool check metrics <metrics
else
	skip 'promtool' 'no promtool (package prometheus)'
fi
finish
