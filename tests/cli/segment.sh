#!/bin/bash
# SPDX-License-Identifier: MIT
# create, info, check, reap, resize, destroy
. "$(dirname "$0")/lib.sh"

file() {
	ls /dev/shm/shoal."$SHOAL_CACHE".v*
}

file_has() { # FORMAT TEXT: of stat
	echo "$(stat -c "$1" "$(file)")" for "$2"
	[ "$(stat -c "$1" "$(file)")" = "$2" ]
}

# A process that has the cache open: a set that waits for its value. $holder
hold() {
	rm -f go && mkfifo go
	"$shoal" set -k held key - <go 4>&- &
	holder=$!
	exec 4>go
	until grep -q "shoal.$SHOAL_CACHE" /proc/$holder/maps; do
		kill -0 $holder || return
	done
}

# A process that dies after a call, with a slot in the segment that nobody has given back.
die_attached() {
	"$driver" "$SHOAL_CACHE" held 1 set:k die
	[ $? = 137 ] && json "row['processes'] == 1" info --json
}

head -c 100000 /dev/zero >text

echo '# create'
ok 'nothing is there at first' ends 3 'shoal create' check
ok 'it is made' prints '' create --size 2m --mode 640 --max-entry 16k --max-processes 8
ok 'its size' file_has %s 2097152
ok 'its mode' file_has %a 640
ok 'once more is no error, and changes nothing' prints '' create --size 4m
ok 'its size stays' file_has %s 2097152
ok 'exclusive: it is there' ends 3 'the segment exists' create --exclusive
ok 'a path' prints '' create --cache ./segment --size 1m
ok 'by its path' prints '' check --cache ./segment
ok 'a limit that does not fit' ends 2 'cache' create --cache "$SHOAL_CACHE-x" --size 1m --max-flights 4000000000
ok 'no room' ends 3 'No space left on device' create --cache "$SHOAL_CACHE-x" --size 2t

echo '# info'
ok 'info' shows '16 KiB' info
listed() {
	shows "$SHOAL_CACHE" info --all && json "any(r['cache'] == '$SHOAL_CACHE' and r['size'] == 2097152 \
		and r['mode'] == '640' \
		and r['path'] == '$(file)' and r['processes'] == 0 for r in rows)" info --all --json
}
ok 'the list' listed
unnamed() {
	(unset SHOAL_CACHE && shows LAYOUT info)
}
ok 'without a name: the list' unnamed
ok 'info as JSON' json "row['cache'] == '$SHOAL_CACHE' and row['size'] == 2097152 and row['max_entry'] == 16384 and \
	row['max_processes'] == 8 and row['mode'] == '640' and row['max_loads'] == 0 and row['checksum'] is False and \
	row['keyspaces'] == row['entries'] == row['processes'] == 0 \
	and '%d' % row['layout'] == '$(file)'.rpartition('.v')[2]" info --json
all_options() {
	"$shoal" create --cache ./all --size 8m --max-entry 100k --mean-entry 1k --max-processes 3 --max-threads 50 \
		--max-flights 99 \
		--max-keyspaces 7 --max-loads 5 --extents 70 --checksum --fifo --mode 660 &&
		json "(row['size'], row['max_entry'], row['mean_entry'], row['max_loads'], row['checksum'], \
			row['fifo'], row['mode']) == \
			(8 << 20, 102400, 1024, 5, True, True, '660') and 3 <= row['max_processes'] < 256 \
			and 50 <= row['max_threads'] < 1024 and 99 <= row['max_flights'] < 4096 \
			and 7 <= row['max_keyspaces'] < 64 and row['extents'] >= 70" info --cache ./all --json
}
ok 'what was asked for at creation is what info tells' all_options

echo '# check'
ok 'check finds nothing' prints '' check
scribble() {
	local path
	path=$(file)
	"$shoal" set -k a key 'a value that is there' || return
	cp "$path" before
	# behind the header
	head -c 2000000 /dev/urandom | dd of="$path" bs=65536 seek=1 conv=notrunc iflag=fullblock status=none
	ends 4 'fault' check && [ -s out ] || return
	run check --json
	[ "$status" = 4 ] &&
		python3 -c 'import json
assert all({"fault", "fault_base64"} & set(json.loads(l)) for l in open("out"))'
}
ok 'check names faults: exit status 4' scribble
cp before "$(file)"
header() {
	head -c 64 /dev/urandom | dd of=./segment bs=1 seek=24 conv=notrunc status=none
	ends 4 'shoal destroy' check --cache ./segment
}
ok 'a header that is wrong: exit status 4' header
ok 'not a cache at all: exit status 3' ends 3 'another release' check --cache ./text
ok 'a folder' ends 2 'regular file' check --cache /tmp/

echo '# reap, resize'
ok 'reap finds none' prints 0 reap
ok 'a process dies' die_attached
ok 'reap finds it' prints 1 reap
ok 'once' prints 0 reap
ok 'resize' prints '' resize 3m
bytes_are() {
	json "row['size'] == $1" info --json
}
ok 'its size now' bytes_are 3145728
ok 'resize to too little' ends 2 'too small' resize 1k
ok 'resize of what is not there' ends 3 'no such segment' resize --cache "$SHOAL_CACHE-none" 2m

echo '# destroy'
ok 'a process is there' hold
ok 'refused while it is attached' ends 6 '1 process is attached' destroy
ok 'it is still there' file_has %F 'regular file'
{ kill -9 $holder && wait $holder; } 2>/dev/null
exec 4>&-
ok 'a process dies' die_attached
touch /dev/shm/shoal."$SHOAL_CACHE".v1
ok 'the dead are recovered first; all layouts are removed' prints '' destroy
gone() {
	! ls /dev/shm/shoal."$SHOAL_CACHE".v* 2>/dev/null
}
ok 'it is gone' gone
ok 'destroy of nothing: exit status 1' ends 1 'no such segment' destroy
"$shoal" create
ok 'a process is there' hold
ok 'attached, but forced' ends 0 '1 process is still attached' destroy --force
ok 'that is gone, too' gone
exec 4>&-
ok 'and it has its own' wait $holder
ok 'no cache' ends 6 'no cache' destroy --cache ./text
ok 'a corrupt one' prints '' destroy --cache ./segment
ok 'it is gone, too' [ ! -e ./segment ]
finish
