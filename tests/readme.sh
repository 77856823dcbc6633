#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: readme.sh ROOT
# The program that the README shows is the one that is built and run.
cd "$1" || exit 1
shown=$(awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md)
built=$(cat tests/examples/first.c)
if [ "$shown" = "$built" ]; then
	echo 'ok 1 - the README shows tests/examples/first.c'
	echo 1..1
else
	echo 'not ok 1 - the README shows tests/examples/first.c'
	echo 1..1
	exit 1
fi
