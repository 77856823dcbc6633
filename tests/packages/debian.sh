#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: debian.sh [SOURCE]
# Build the Debian packages twice: the same bytes. Install them by dpkg into a root of its own, with the packages of
# this machine to depend on; build and run a program from there; remove them again. Prints TAP.
# shellcheck disable=SC2317 # functions are called through case_
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "${1:-$here/../..}" && pwd)
# shellcheck source=tests/abi/tap.sh
. "$here/../abi/tap.sh"

if ! command -v dpkg-buildpackage >/dev/null || ! command -v dh >/dev/null; then
	skip_ 'Debian packages' 'no dpkg-buildpackage, or no debhelper'
	done_
fi

out=$scratch/out root=$scratch/root
again() { # by another path, in another time zone, under another language and umask
	mkdir -p "$scratch/other/tree" "$scratch/a/longer/path"
	(cd "$source" && tar -c --exclude=__pycache__ meson.build meson_options.txt include src CHANGELOG.md) |
		tar -x -C "$scratch/other/tree"
	(umask 027 && TMPDIR=$scratch/a/longer/path TZ=Pacific/Kiritimati LANG=tr_TR.UTF-8 \
		"$scratch/other/tree/src/packages/build.sh" "$scratch/again")
}
same() {
	for f in "$out"/*.deb; do
		cmp "$f" "$scratch/again/${f##*/}"
	done
	for f in "$scratch/again"/*.deb; do
		[ -e "$out/${f##*/}" ] || echo "${f##*/}"
	done
}

case_ 'they build' "$source/src/packages/build.sh" "$out"
case_ 'and once more' again
case_ 'to the same bytes' nothing same

# ---- what is in them -------------------------------------------------------------------------------------------------

deb() { ls "$out/$1"_*.deb; } # PACKAGE
field() { dpkg-deb -f "$(deb "$1")" "$2"; }
version=$(field shoal Version)

contents() { # what is missing; $multi: where the machine's libraries lie
	multi=usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
	while read -r package file; do
		dpkg-deb --fsys-tarfile "$(deb "$package")" | tar -t | grep -qxF "./$file" || echo "$package: no $file"
	done <<-EOF
		libshoal0 $multi/libshoal.so.0
		libshoal0 $multi/libshoal.so.${version%-*}
		libshoal-dev usr/include/shoal.h
		libshoal-dev $multi/libshoal.so
		libshoal-dev $multi/libshoal.a
		libshoal-dev $multi/pkgconfig/shoal.pc
		libshoal-dev usr/share/man/man3/shoal.3.gz
		libshoal-redis0 $multi/libshoal-redis.so.0
		libshoal-redis0 $multi/libshoal-redis.so.${version%-*}
		libshoal-redis-dev usr/include/shoal-redis.h
		libshoal-redis-dev $multi/libshoal-redis.so
		libshoal-redis-dev $multi/libshoal-redis.a
		libshoal-redis-dev $multi/pkgconfig/shoal-redis.pc
		libshoal-redis-dev usr/share/man/man7/shoal-redis.7.gz
		shoal usr/bin/shoal
		shoal usr/share/man/man1/shoal.1.gz
		shoal usr/share/man/man5/shoal.5.gz
		shoal usr/share/man/man7/shoal.7.gz
		shoal usr/share/bash-completion/completions/shoal.bash
		python3-shoal usr/lib/python3/dist-packages/shoal/__init__.py
		python3-shoal usr/lib/python3/dist-packages/shoal/_header.py
	EOF
}
twice() { # files of two packages
	for f in "$out"/*.deb; do
		dpkg-deb --fsys-tarfile "$f" | tar -t | grep -v '/$'
	done | sort | uniq -d
}
depends() {
	field shoal Depends | grep -q "libshoal0 (>= ${version%-*})" ||
		echo 'shoal does not need libshoal0 of its version'
	field python3-shoal Depends | grep -q "libshoal0 (>= ${version%-*})" ||
		echo 'python3-shoal does not need libshoal0 of its version'
	field libshoal-dev Depends | grep -qF "libshoal0 (= $version)" || echo 'libshoal-dev goes with any libshoal0'
	field libshoal0 Depends | grep -q hiredis && echo 'libshoal0 needs hiredis'
	for p in $(PKG_CONFIG_PATH=$root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)/pkgconfig \
		pkg-config --print-requires-private shoal | sed 's/ .*//'); do
		of=$(dpkg-query -S "*/$p.pc" | sed 's/[:,].*//')
		field libshoal-dev Depends | grep -qw -- "$of" ||
			echo "libshoal-dev does not need $of, whose $p shoal.pc does"
	done
}
lint() { # it isn't on its way into Debian: no bug to close
	lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$out"/*.changes
}

case_ 'each file is in its package' nothing contents
case_ 'no file is in two' nothing twice
case_with lintian 'lintian has no error and no warning' lint

# ---- installed -------------------------------------------------------------------------------------------------------

as_root=
[ "$(id -u)" = 0 ] || as_root=fakeroot
by_dpkg() { # as if on this machine; no maintainer script is run, as there is none
	$as_root dpkg --root="$root" --log=/dev/null --force-not-root "$@"
}
install() {
	mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/triggers"
	cp /var/lib/dpkg/status "$root/var/lib/dpkg/status"
	cp /var/lib/dpkg/arch "$root/var/lib/dpkg/" 2>/dev/null
	by_dpkg --install "$(deb libshoal0)" "$(deb libshoal-dev)" "$(deb libshoal-redis0)" \
		"$(deb libshoal-redis-dev)" "$(deb shoal)"
	for p in libshoal0 libshoal-dev libshoal-redis0 libshoal-redis-dev shoal; do
		[ "$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Status}' "$p")" = installed ] ||
			return
	done
}
lib=$root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
program() {
	mkdir -p "$scratch/pc"
	for p in shoal shoal-redis; do
		sed "s|^prefix=.*|prefix=$root/usr|" "$lib/pkgconfig/$p.pc" >"$scratch/pc/$p.pc"
	done
	# shellcheck disable=SC2046 # words
	${CC:-cc} "$source/tests/examples/first.c" -o "$scratch/first" \
		$(PKG_CONFIG_PATH="$scratch/pc" pkg-config --cflags --libs shoal) &&
		LD_LIBRARY_PATH=$lib "$scratch/first"
}
with_redis() { # without one
	lib=$root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
	# shellcheck disable=SC2046 # words
	${CC:-cc} "$source/tests/examples/redis.c" -o "$scratch/redis" \
		$(PKG_CONFIG_PATH="$scratch/pc" pkg-config --cflags --libs shoal-redis) &&
		LD_LIBRARY_PATH=$lib "$scratch/redis" "$scratch/no.sock" | grep '^user:7,'
}
command_() {
	[ "$(LD_LIBRARY_PATH=$root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH) "$root/usr/bin/shoal" version |
		grep -cF "${version%-*}")" -gt 0 ]
}
python() { # the package has maintainer scripts, of dh_python3: taken out as it is, for the library in $root
	dpkg-deb -x "$(deb python3-shoal)" "$scratch/python" && LD_LIBRARY_PATH=$lib PYTHONDONTWRITEBYTECODE=1 \
		PYTHONPATH=$scratch/python/usr/lib/python3/dist-packages /usr/bin/python3 -c '
import shoal
k = shoal.open().keyspace("k")
assert k.fetch("a", lambda: 1) == k.fetch("a", lambda: 2) == 1, k.stats()'
}
pages() {
	for page in 'shoal.1' 'shoal.3' 'shoal.5' 'shoal.7'; do
		[ "$(man -M "$root/usr/share/man" -w "${page#*.}" shoal)" = \
			"$root/usr/share/man/man${page#*.}/$page.gz" ] || echo "$page"
	done
}
remove() {
	by_dpkg --purge shoal libshoal-redis-dev libshoal-redis0 libshoal-dev libshoal0 &&
		nothing find "$root" -path "$root/var" -prune -o ! -type d -print
}

if [ -n "$as_root" ] && ! command -v fakeroot >/dev/null; then
	skip_ 'installed by dpkg' 'neither root nor fakeroot'
else
	case_ 'dpkg installs them' install
	case_ 'what they depend on' nothing depends
	case_ 'a program builds and runs' program
	case_ 'and one with the second level' with_redis
	case_ 'the command runs' command_
	case_ 'a Python program runs' python
	case_with man 'man finds the pages' nothing pages
	case_ 'dpkg removes them' remove
fi

# ---- the nginx module ------------------------------------------------------------------------------------------------

module() {
	dpkg-deb -x "$(deb libnginx-mod-http-shoal)" "$scratch/nginx"
	conf=$scratch/nginx/usr/share/nginx/modules-available/mod-http-shoal.conf
	[ "$(cat "$conf")" = 'load_module modules/ngx_http_shoal_module.so;' ] || return
	mkdir -p "$scratch/nginx/run"
	echo "load_module $scratch/nginx/usr/lib/nginx/modules/ngx_http_shoal_module.so;
		pid $scratch/nginx/run/pid; error_log stderr; events {}" >"$scratch/nginx/conf"
	PATH=$PATH:/usr/sbin nginx -t -p "$scratch/nginx/run" -c "$scratch/nginx/conf"
}
if ! deb libnginx-mod-http-shoal >/dev/null 2>&1; then
	skip_ 'nginx loads its module' 'the tree or the machine has none'
else
	case_ 'nginx loads its module' module
fi
done_
