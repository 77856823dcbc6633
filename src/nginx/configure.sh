#!/bin/bash
# SPDX-License-Identifier: MIT
# usage: configure.sh NGINX-TREE OUTPUT-FOLDER SCRATCH-FOLDER
# The two headers of nginx that its package lacks, made by its own configure with the package's own flags.
set -eu
tree=$1
mkdir -p "$2" "$3"
out=$(cd "$2" && pwd) scratch=$(cd "$3" && pwd)
NGX_CONF_FLAGS=()
# shellcheck source=/dev/null
. "$tree/conf_flags"
cd "$tree"
if ! ./configure --builddir="$scratch" "${NGX_CONF_FLAGS[@]}" --with-cc-opt='-O2 -fPIC' >"$scratch/log" 2>&1; then
	tail -n 20 "$scratch/log" >&2
	exit 1
fi
cp "$scratch/ngx_auto_config.h" "$scratch/ngx_auto_headers.h" "$out"
