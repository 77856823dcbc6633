#!/bin/bash
# SPDX-License-Identifier: MIT
# create, check, reap, resize, destroy
. "$(dirname "$0")/lib.sh"

file() { ls /dev/shm/shoal."$SHOAL_CACHE".v*; }
size_is() { [ "$(stat -c %s "$(file)")" -ge "$1" ]; }

ok 'nothing is there at first' ends 3 'shoal create' check
ok 'create' prints '' create --size 2m --mode 640
finish
