#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: CC=... [CXX=...] [PYTHON=...] install.sh BUILD SOURCE
# Install into an empty directory. Every file is where it belongs and nothing else is there; programs are built and run
# with nothing but what pkg-config says: by hand, from Make, from CMake, from C++, and statically.
# shellcheck disable=SC2317 # functions are called through case_
build=$1 source=$2
here=$(dirname "$0")
# shellcheck source=tests/abi/tap.sh
. "$here/tap.sh"

case_ 'meson install' meson install -C "$build" --no-rebuild --destdir "$scratch/i"
pc=$(find "$scratch/i" -name shoal.pc)
export PKG_CONFIG_PATH="$scratch/pc" # says where it all lies for now
prefix=$scratch/i$(sed -n 's/^prefix=//p' "$pc")
mkdir "$scratch/pc"
sed "s|^prefix=.*|prefix=$prefix|" "$pc" >"$scratch/pc/shoal.pc"
libdir=$(dirname "$(dirname "$pc")")
version=$(pkg-config --modversion shoal)
python=$(dirname "$(dirname "$(find "$prefix" -path '*/python3*/shoal/__init__.py')")")

# ---- the files -------------------------------------------------------------------------------------------------------

belongs() {
	[ -f "$prefix/include/shoal.h" ] || echo 'no include/shoal.h'
	[ "$(readlink "$libdir/libshoal.so")" = libshoal.so.0 ] || echo 'libshoal.so is no link to libshoal.so.0'
	[ "$(readlink "$libdir/libshoal.so.0")" = "libshoal.so.$version" ] ||
		echo "libshoal.so.0 is no link to libshoal.so.$version"
	[ -f "$libdir/libshoal.so.$version" ] || echo "no libshoal.so.$version"
	[ ! -e "$build/src/cli/shoal" ] || [ -x "$prefix/bin/shoal" ] || echo 'no bin/shoal'
	[ -f "$prefix/share/shoal/shoal.rules.yml" ] || echo 'no share/shoal/shoal.rules.yml'
	[ -f "$prefix/share/shoal/shoal.dashboard.json" ] || echo 'no share/shoal/shoal.dashboard.json'
	[ ! -e "$build/src/python" ] || (cd "$build/src/python" && find . -name '*.py') | while read -r file; do
		[ -f "$python/$file" ] || echo "no $file for Python"
	done
	[ -e "$build/src/man/shoal.3" ] || return 0
	[ -f "$prefix/share/man/man3/shoal.3" ] || echo 'no share/man/man3/shoal.3'
	for page in "$source"/src/man/*.scd; do
		page=$(basename "$page" .scd)
		[ -f "$prefix/share/man/man${page##*.}/$page" ] || echo "no $page"
	done
}

stray() {
	(cd "$prefix" && find . ! -type d) | sed 's/^\.//' | grep -vE '^(/bin/shoal|/include/shoal(-redis)?\.h'$(
	)'|/share/man/man[1357]/shoal[a-z-]*\.[1357]|/share/bash-completion/completions/shoal[a-z.]*|/share/shoal/shoal\.[a-z.]+'$(
	)'|/lib(/[a-z0-9_-]+)?/(libshoal(-redis)?\.(a|so|so\.0|so\.[0-9.]+)|pkgconfig/shoal(-redis)?\.pc|nginx/modules/ngx_http_shoal_module\.so))$'$(
	)'|^/lib/python3(\.[0-9]+)?/(dist|site)-packages/shoal/_[a-z_]+\.py$'
	find "$scratch/i" ! -type d ! -path "$prefix/*"
	find "$scratch/i" ! -type l -perm /022
	:
}

build_paths() { # the linked files' own
	grep -lF "$build" "$pc" "$libdir/pkgconfig/shoal-redis.pc" "$prefix/share/bash-completion/completions"/* \
		"$python"/shoal/* 2>/dev/null
	for f in "$libdir/libshoal.so" "$libdir/libshoal-redis.so" "$prefix/bin/shoal"; do
		[ ! -e "$f" ] || readelf -d "$f" | grep -E 'R(UN)?PATH'
	done
	:
}

case_ 'what is installed is where it belongs' nothing belongs
case_ 'nothing else is installed' nothing stray
case_ 'nothing installed points into the build' nothing build_paths
case_ 'pkg-config finds it' pkg-config --print-errors --exists shoal
case_ 'pkg-config names no library of its own use' test "$(pkg-config --libs-only-l shoal | tr -d ' ')" = -lshoal

# ---- programs --------------------------------------------------------------------------------------------------------

example=$source/tests/examples/first.c
runs() { # PROGRAM: eight lines that name one process, as the README says
	said=$(LD_LIBRARY_PATH=$libdir "$1") || return 1
	[ "$(echo "$said" | wc -l)" = 8 ] && [ "$(echo "$said" | sed 's/.*process //' | sort -u | wc -l)" = 1 ]
}

# shellcheck disable=SC2046,SC2086 # words
case_ 'a program links' $CC "$example" -o "$scratch/shared" $(pkg-config --cflags --libs shoal)
case_ 'a program runs' runs "$scratch/shared"

by_make() {
	cp "$here/embed/Makefile" "$example" "$1" && make -C "$1" CC="$CC" first && runs "$1/first"
}

by_cmake() {
	cp "$here/embed/CMakeLists.txt" "$example" "$1"
	CC=$CC cmake -S "$1" -B "$1/build" && cmake --build "$1/build" && runs "$1/build/first"
}

by_cpp() { # COMPILER FOLDER
	# shellcheck disable=SC2046,SC2086 # words
	$1 -std=c++11 -Wall -Wextra -Werror -pedantic "$source/tests/abi/use-cpp.cpp" -o "$2/cpp" \
		$(pkg-config --cflags --libs shoal) -pthread && LD_LIBRARY_PATH=$libdir "$2/cpp"
}

mkdir "$scratch/make" "$scratch/cmake" "$scratch/cpp"
case_with make 'from Make' by_make "$scratch/make"
case_with cmake 'from CMake' by_cmake "$scratch/cmake"
for cxx in g++ clang++; do
	case_with $cxx "from C++ by $cxx" by_cpp $cxx "$scratch/cpp"
done

# ---- the other examples ----------------------------------------------------------------------------------------------

builds() { # NAME [PACKAGE]: with nothing but what pkg-config says
	# shellcheck disable=SC2046,SC2086 # words
	$CC -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Werror "$source/tests/examples/$1.c" -o "$scratch/$1" \
		$(pkg-config --cflags --libs shoal ${2-})
}
case_ 'a prefork server builds' builds prefork
case_ 'an event loop builds' builds epoll
if pkg-config --exists libuv; then
	case_ "libuv's loop builds" builds libuv libuv
else
	skip_ "libuv's loop builds" 'libuv is not installed'
fi
if [ -e "$build/src/cli/shoal" ]; then
	case_ 'they run' env LD_LIBRARY_PATH="$libdir" python3 "$source/tests/examples/check/loops.py" \
		"$prefix/bin/shoal" \
		"$scratch/epoll" "$scratch/epoll"
fi

module() ( # TREE: as its author would, with what nginx-dev has there; nginx takes it
	cd "$1" || exit
	mkdir "$scratch/module" && cp "$source/tests/examples/module.c" "$source/tests/examples/config" \
		"$scratch/module" || exit
	# shellcheck disable=SC2016 # for the other shell
	bash -c 'NGX_CONF_FLAGS=() && . ./conf_flags &&
		./configure --builddir="$1/build" "${NGX_CONF_FLAGS[@]}" --add-dynamic-module="$1" &&
		make -f "$1/build/Makefile" modules' - "$scratch/module" || exit
	echo "load_module $scratch/module/build/ngx_http_shoal_example_module.so; pid $scratch/module/pid;
		error_log stderr; events {}
		http { access_log off; server { listen 127.0.0.1:1; location / { shoal_example 1s; } } }" \
		>"$scratch/module/conf"
	PATH=$PATH:/usr/sbin LD_LIBRARY_PATH=$libdir nginx -t -p "$scratch/module" -c "$scratch/module/conf"
)
if [ -e "$build/tests/ngx_http_shoal_example_module.so" ]; then
	tree=$(meson introspect "$build" --buildoptions | python3 -c 'import json, sys
print(*[o["value"] for o in json.load(sys.stdin) if o["name"] == "nginx_tree"])')
	case_with make "an nginx module of one's own builds, and nginx takes it" module "$tree"
fi

if [ -e "$libdir/libshoal.a" ]; then
	mkdir "$scratch/a"
	cp "$libdir/libshoal.a" "$scratch/a"
	# shellcheck disable=SC2046,SC2086
	case_ 'a program links with the static library' $CC "$example" -o "$scratch/static" \
		-L"$scratch/a" $(pkg-config --cflags shoal) $(pkg-config --static --libs shoal | sed "s|-L$libdir||")
	case_ 'it needs no libshoal.so' nothing sh -c "readelf -d '$scratch/static' | sed -n '/NEEDED.*libshoal/p'"
	case_ 'it runs' runs "$scratch/static"
	# shellcheck disable=SC2046,SC2086
	case_ 'a program links with static libraries alone' $CC -static "$example" -o "$scratch/alone" \
		$(pkg-config --static --cflags --libs shoal)
	case_ 'it runs, too' runs "$scratch/alone"
fi

if [ -e "$build/src/python" ] && [ -n "${PYTHON-}" ]; then
	# shellcheck disable=SC2016 # Python's
	case_ 'a Python program runs' env LD_LIBRARY_PATH="$libdir" PYTHONPATH="$python" PYTHONDONTWRITEBYTECODE=1 \
		"$PYTHON" -c 'import shoal
k = shoal.open().keyspace("k")
assert shoal.__file__.startswith("'"$python"'") and k.fetch("a", lambda: 1) == k.fetch("a", lambda: 2) == 1'
fi

# ---- the second level ------------------------------------------------------------------------------------------------

if [ -e "$libdir/pkgconfig/shoal-redis.pc" ]; then
	sed "s|^prefix=.*|prefix=$prefix|" "$libdir/pkgconfig/shoal-redis.pc" >"$scratch/pc/shoal-redis.pc"
	with_redis() { # there may be none: then it says so, and goes on
		said=$(LD_LIBRARY_PATH=$libdir "$1" "$scratch/no.sock" 2>"$scratch/why") &&
			[ "${said%%,*}" = user:7 ] &&
			grep -q 'connect: No such file or directory; going on without' "$scratch/why"
	}
	# shellcheck disable=SC2046,SC2086 # words
	case_ 'a program links with libshoal-redis' $CC "$source/tests/examples/redis.c" -o "$scratch/redis" \
		$(pkg-config --cflags --libs shoal-redis)
	case_ 'it runs without Redis' with_redis "$scratch/redis"
	case_ 'pkg-config names no library of its own use there' \
		test "$(pkg-config --libs-only-l shoal-redis | tr -s ' ' | sed 's/ $//')" = '-lshoal-redis -lshoal'
	case_ 'libshoal does not need it' nothing sh -c "readelf -d '$libdir/libshoal.so' | sed -n '/NEEDED.*redis/p'"
fi

# ---- the command and its pages ---------------------------------------------------------------------------------------

if [ -e "$build/src/cli/shoal" ]; then
	case_ 'the command runs' env LD_LIBRARY_PATH="$libdir" "$prefix/bin/shoal" version
	completes() {
		# shellcheck disable=SC2016 # for the other bash
		PATH=$prefix/bin:$PATH LD_LIBRARY_PATH=$libdir bash -c '. "$1"; COMP_WORDS=(shoal rest) COMP_CWORD=1
			complete -p shoal && _shoal shoal rest shoal && test "${COMPREPLY[*]}" = restore' - \
			"$prefix/share/bash-completion/completions/shoal.bash"
	}
	case_ 'its completion completes' completes
fi
if [ -e "$build/src/man/shoal.3" ]; then
	found() {
		find "$prefix/share/man" -type f | while read -r page; do
			name=${page##*/}
			[ "$(man -M "$prefix/share/man" -w "${name##*.}" "${name%.*}")" = "$page" ] || echo "$name"
		done
	}
	case_with man 'man finds the pages' nothing found
fi
done_
