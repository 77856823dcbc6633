#!/bin/bash
# SPDX-License-Identifier: MIT
# What README, CONTRIBUTING and the manual pages show is run, compiled, or held by another test that
# tests/docs.commands names.
. "$(dirname "$0")/lib.sh"

python3 "$source/tests/cli/docs.py" "$source" "$shoal" "$scratch"
