#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: src/packages/build.sh [FOLDER]
# Build the Debian packages of this tree, libnginx-mod-http-shoal among them if the packages for it are installed, and
# put them into FOLDER (build/packages). The same tree gives the same bytes, wherever and whenever it is built.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$top/build/packages}
mkdir -p "$out"
out=$(cd "$out" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
umask 022

here=$(sed -n "s/^  version: '\(.*\)',$/\1/p" "$top/meson.build")
said=$(sed -n '1s/^shoal (\(.*\)-[0-9]*) .*/\1/p' "$top/src/packages/debian/changelog")
[ "$here" = "$said" ] || 
	{ echo "meson.build is of version $here, src/packages/debian/changelog of $said" >&2 && exit 1; }

tree=$scratch/shoal-$here
mkdir "$tree"
(cd "$top" && tar -c --exclude=__pycache__ meson.build meson_options.txt include src CHANGELOG.md) | tar -x -C "$tree"
mv "$tree/src/packages/debian" "$tree/debian"

profiles=
if [ ! -e "$tree/src/nginx/meson.build" ] || ! command -v dh_nginx >/dev/null; then
	profiles=--build-profiles=pkg.shoal.nonginx
	echo 'without libnginx-mod-http-shoal: it needs nginx-dev' >&2
fi
cd "$tree"
unset CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS DESTDIR MESONFLAGS MAKEFLAGS
LC_ALL=C.UTF-8 DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-parallel=2}" \
	dpkg-buildpackage --build=binary --unsigned-changes --unsigned-buildinfo $profiles # one word or none
cp "$scratch"/*.deb "$scratch"/*.changes "$scratch"/*.buildinfo "$out"
