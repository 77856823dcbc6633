#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: none.sh WHY        in place of a check that can't be made here
echo "1..0 # SKIP $1"
