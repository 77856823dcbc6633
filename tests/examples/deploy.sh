#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: SHOAL_CACHE=NAME deploy.sh RELEASE KEYSPACE KEYS ORIGIN
#
# What a deploy calls before the new release takes traffic: load the keys that were asked for most into the new
# release's keyspace, at a pace the origin can bear beside its daily work, and switch the link `current` to RELEASE, a
# folder, when they are there. If the origin suffers, nothing is switched: the old release goes on, and another call
# passes over what this one has loaded.
#
#   deploy.sh releases/42 page@42 hot.keys http://origin.example.org
#
# KEYS is one key a line: `shoal keys --keyspace page@41` prints them. ORIGIN with a key behind it is
# what answers for it.
#
# RATE, STOP_LATENCY and STOP_ERRORS of the environment are as in shoal-warm(1).
set -u
release=$1 keyspace=$2 keys=$3 origin=$4

shoal warm --keyspace "$keyspace" --keys "$keys" --exec "curl -fsS --max-time 20 $origin{}" --rate "${RATE:-50/s}" \
	--stop-latency "${STOP_LATENCY:-500ms}" --stop-errors "${STOP_ERRORS:-20%}" \
	--fresh 10m --stale 1h # as the release itself has it
status=$?

case $status in
0) ;; # some may have failed: fewer than STOP_ERRORS, and they are loaded when they are asked for
5 | 7 | 8) echo "deploy: the origin suffers: $release is not switched to" >&2 && exit "$status" ;;
*) echo "deploy: not warmed (status $status): $release is not switched to" >&2 && exit "$status" ;;
esac

ln -sfn "$release" current.new && mv -T current.new current # in one step: there is always a current one
echo "deploy: $release takes traffic"
