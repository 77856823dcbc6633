#!/bin/bash
# SPDX-License-Identifier: MIT
#
# usage: tests/run.sh [--quick | --ci | --night] [--suite NAME]...
#
# Installs what is missing (Debian), builds, and runs every test. The last line is "N passed, N failed", with
# ", N skipped" where something was, and the exit status says the same. Builds live in build/.
#
#   --quick   the default: one gcc build, every suite, ten seconds for each torture test
#   --ci      the default where CI is "true": also clang, both with -Werror, and the suites that sanitizers can judge
#             under ASan + UBSan and under TSan. What is skipped has to be in tests/skips.txt, with its reason
#   --night   as --ci, half an hour for the storm, and for the flips of every bit of a segment; what meson dist packs
#   --suite   unit, process, model, abi, examples, torture, fuzz, cli, nginx, python, redis, packages (the Debian ones:
#             with --ci, or if asked for)
#
# SHOAL_TEST_SECONDS   what the tests that take what they are given get in the gcc build (10, --ci 60, --night 1800),
#                      and libFuzzer by clang (10, 30, 600); else, and what is single-stepped (SHOAL_STEP_SECONDS), 15
#                      with --ci, and 60 with --night

cd "$(dirname "$0")/.." || exit 1

usage() {
	sed -n '4,20s/^# \{0,1\}//p' tests/run.sh
}

tier=quick nightly=
[ "${CI-}" = true ] && tier=ci
only=
while [ $# -gt 0 ]; do
	case $1 in
	--quick | --ci | --night) tier=${1#--} ;;
	--suite=*) only="$only ${1#--suite=}" ;;
	--suite) only="$only ${2?--suite needs a name}" && shift ;;
	-h | --help) usage && exit ;;
	*) usage >&2 && exit 2 ;;
	esac
	shift
done
for s in $only; do
	case $s in
	unit | process | model | abi | examples | torture | fuzz | cli | nginx | python | redis | packages) ;;
	*) echo "no suite $s" >&2 && exit 2 ;;
	esac
done

case $tier in
quick) seconds=${SHOAL_TEST_SECONDS:-10} short=$seconds fuzz=$seconds ;;
ci) seconds=${SHOAL_TEST_SECONDS:-60} short=15 fuzz=${SHOAL_TEST_SECONDS:-30} ;;
night) seconds=${SHOAL_TEST_SECONDS:-1800} short=60 fuzz=${SHOAL_TEST_SECONDS:-600} nightly=--night ;;
esac
steps= # as the rest
[ "$tier" != ci ] || steps=15
skips=
[ "$tier" = quick ] || skips='--skips tests/skips.txt'

passed=0 failed=0 skipped=0
scratch=$(mktemp -d) || exit 1
began=$SECONDS

finish() {
	[ -z "$aside" ] || kill -- "-$aside" 2>/dev/null
	rm -rf "$scratch"
	[ $((passed + failed)) -gt 0 ] || failed=1 # nothing ran: that is no success
	echo
	echo "$tier: $((SECONDS - began)) s"
	echo "$passed passed, $failed failed$([ $skipped -eq 0 ] || echo ", $skipped skipped")"
	exit $((failed > 0))
}
trap finish EXIT
running= aside=
trap 'failed=$((failed + 1)); [ -z "$running" ] || kill "$running"; exit 1' INT TERM HUP

say() { echo "== $* (after $((SECONDS - began)) s)"; }

fail() { # MESSAGE [LOG]
	echo "!! $1" >&2
	[ -z "${2-}" ] || tail -n 80 "$2" >&2
	failed=$((failed + 1))
}

wanted() { # SUITE
	[ -z "$only" ] || [[ " $only " == *" $1 "* ]]
}

add() { # "PASSED FAILED SKIPPED", or nothing if the counting itself went wrong
	local p f s
	read -r p f s <<<"$1"
	[ -n "$s" ] || f=1
	passed=$((passed + ${p:-0})) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
}

# ---- the machine -----------------------------------------------------------------------------------------------------

. tests/packages.sh
packages='gcc g++ libc6-dev binutils meson ninja-build pkg-config python3 libcmocka-dev
	liburcu-dev libxxhash-dev liblz4-dev libzstd-dev libjansson-dev libuv1-dev libevent-dev systemtap-sdt-dev
	patch zstd scdoc man-db bash-completion libmicrohttpd-dev libncurses-dev libhiredis-dev tmux jq make
	python3-cffi'
[ "$tier" = quick ] || packages="$packages clang libclang-rt-14-dev prometheus cmake make abigail-tools"
packaging= # has to be asked for where time is short
if wanted packages && { [ "$tier" != quick ] || [ -n "$only" ]; }; then
	packaging=true
	packages="$packages dpkg-dev debhelper dh-python lintian fakeroot"
	[ ! -e src/nginx ] || packages="$packages nginx-light nginx-dev"
fi
packages="$packages spin"
# shellcheck disable=SC2086 # words
need $packages || { fail 'packages are missing' && exit; }
# To install it starts it, where something starts services: not on a machine that is just to run the quick tests.
[ "$tier" != quick ] || [ -d /run/systemd/system ] || need prometheus ||
	echo 'note: alerts and metrics are tested without Prometheus'
[ "$tier" = quick ] && [ -d /run/systemd/system ] || need redis-server ||
	echo 'note: libshoal-redis is tested where redis-server is'
[ "$tier" = quick ] || need liblmdb-dev libck-dev gnuplot-nox memcached redis-server nginx-light php-cli php-apcu ||
	echo 'note: the bench harness is tested beside the peers that are here'

if [ "$tier" != quick ] || [[ " $only " == *" nginx "* ]]; then
	need nginx-light nginx-dev libpcre2-dev libssl-dev zlib1g-dev curl openssl ||
		echo 'note: the nginx module is built and tested where nginx and nginx-dev are'
	# php-fpm is another that starts
	[ "$tier" = quick ] && [ -d /run/systemd/system ] || need php-fpm uwsgi-core uwsgi-plugin-python3 ||
		echo 'note: the nginx module is tested with the applications that are here'
fi

if [ "$tier" != quick ] || [[ " $only " == *" python "* ]]; then
	need gunicorn || echo 'note: the Python package is tested without gunicorn'
fi
if [ "$tier" != quick ] || [[ " $only " == *" abi "* ]]; then
	need php-cli || echo 'note: the example for PHP is not run'
fi

ulimit -c 0
export ASAN_OPTIONS=detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:die_after_fork=0
[ ! -e tests/tsan.supp ] || TSAN_OPTIONS=$TSAN_OPTIONS:suppressions=$PWD/tests/tsan.supp

# Can programs with this sanitizer run here? Older runtimes don't cope with the address layout of newer kernels (and
# fail now and then only), nor leak detection with a container that forbids ptrace. Sets `under` to what helps.
sanitizer_runs() { # OPTION
	local run i
	printf '#include <stdlib.h>\nint main(void) { void *volatile p = malloc(1); free(p); return 0; }\n' \
		>"$scratch/probe.c"
	gcc -g "-fsanitize=$1" "$scratch/probe.c" -o "$scratch/probe" || return
	for run in '' 'env ASAN_OPTIONS=detect_leaks=0' "setarch $(uname -m) -R" \
		"setarch $(uname -m) -R env ASAN_OPTIONS=detect_leaks=0"; do
		# shellcheck disable=SC2034 # a dozen times
		for i in {1..12}; do
			$run "$scratch/probe" >/dev/null 2>&1 || continue 2
		done
		under=$run
		return 0
	done
	return 1
}

# ---- one build and its suites ----------------------------------------------------------------------------------------

targets_of() { # DIR SUITE...: what these run
	meson introspect --tests --targets "$1" 2>/dev/null | python3 -c '
import json, os, sys
root, suites, said = os.path.realpath(sys.argv[1]), set(sys.argv[2:]), json.load(sys.stdin)
wanted = {d for t in said["tests"] if suites & {s.split(":")[-1] for s in t["suite"]} for d in t["depends"]}
print(*(os.path.relpath(f, root) for t in said["targets"] if t["id"] in wanted for f in t["filename"]))' "$@"
}

build() { # NAME COMPILER MESON-OPTION...: all, or what `parts` run, the suites
	local dir=build/$1 cc=$2 cxx=g++ targets=
	[ "$cc" = gcc ] || cxx=clang++
	shift 2
	mkdir -p build
	set -- --buildtype=debugoptimized -Dtests=enabled "$@"
	if [ -e "$dir/build.ninja" ] && meson setup --reconfigure "$dir" "$@" >"$scratch/log" 2>&1; then
		:
	else
		rm -rf "$dir"
		if ! CC=$cc CXX=$cxx meson setup "$dir" "$@" >"$scratch/log" 2>&1; then
			fail "$dir: meson setup" "$scratch/log"
			return 1
		fi
	fi
	# shellcheck disable=SC2086 # words
	[ -z "$parts" ] || targets=$(targets_of "$dir" $parts)
	# shellcheck disable=SC2086 # words
	if ! ninja -C "$dir" $targets >"$scratch/log" 2>&1; then
		grep -vE '^\[[0-9]+/[0-9]+\]|^ninja:' "$scratch/log" >"$scratch/errors"
		fail "$dir: build" "$scratch/errors"
		return 1
	fi
	grep -A4 'warning:' "$scratch/log" | grep -vE '^\[[0-9]+/[0-9]+\]|^--$'
	return 0
}

suites() { # NAME SECONDS STRETCH SUITE...: run those that are wanted; SUITE/PART: of that suite a part
	local dir=build/$1 name=$1 time=$2 stretch=$3 s args=()
	shift 3
	for s; do
		wanted "${s%/*}" && args+=(--suite "${s#*/}")
	done
	[ -z "$without" ] || args+=(--no-suite "$without")
	[ ${#args[@]} -gt 0 ] || return 0
	[ $((time / 60 + 1)) -le "$stretch" ] || stretch=$((time / 60 + 1))
	local log=$dir/meson-logs/testlog.json
	rm -f "$log"
	# shellcheck disable=SC2086 # words
	SHOAL_TEST_SECONDS=$time SHOAL_STEP_SECONDS=${steps:-$time} $under meson test -C "$dir" --no-rebuild \
		-t "$stretch" "${args[@]}" \
		>"$scratch/log" 2>&1 &
	running=$!
	tail -f --pid=$running "$scratch/log" 2>/dev/null | grep --line-buffered -E '^ *[0-9]+/[0-9]+ '
	wait $running
	local status=$?
	running=
	if [ -s "$log" ]; then
		# shellcheck disable=SC2086 # words
		add "$(python3 tests/report.py $skips "$name" "$log")"
	elif [ $status -ne 0 ]; then
		fail "$name: meson test" "$scratch/log"
	fi
}

start_aside() { # COMMAND...: what one processor is enough for, in the time that the others leave
	local least='chrt --idle 0'
	$least true 2>/dev/null || least='nice -n 19'
	# shellcheck disable=SC2086 # words
	setsid $least "$@" >"$scratch/aside" 2>&1 &
	aside=$!
}

end_of_aside() {
	wait "$aside"
	local status=$?
	aside=
	cat "$scratch/aside"
	return $status
}

program() { # NAME COMMAND...: something that is no meson test
	local name=$1
	shift
	say "$name"
	"$@" >"$scratch/log" 2>&1
	local status=$?
	# shellcheck disable=SC2086 # words
	add "$(python3 tests/report.py $skips "$name" "$scratch/log" $status)"
	[ $status -ne 0 ] || tail -n 3 "$scratch/log"
}

cannot_run() {
	echo '# skipped: this machine does not run such programs'
	return 77
}

# ---- the tiers -------------------------------------------------------------------------------------------------------

all='unit process model abi examples torture fuzz cli nginx python redis'
strict=true
[ "$tier" != quick ] || strict=false

for f in tests/{unit,process,model,torture,fuzz,nginx,redis}/test-*.c; do
	name=${f##*/test-}
	[ ! -e "$f" ] || grep -q "'${name%.c}'" tests/meson.build || echo "note: $f is not listed in tests/meson.build"
done

under=
without= # a part of the suites
parts= # to build
! wanted model || start_aside ./tests/spin/run.sh ${nightly:+"$nightly"}
say gcc
# shellcheck disable=SC2086 # words
build gcc gcc -Dwerror=$strict && {
	suites gcc "$seconds" 1 $all
}

if [ "$tier" != quick ]; then
	# By night alone: what is one program by either compiler; the command under ASan, which takes longer than all the
	# rest there; single-stepping by clang, many minutes where traps are slow.
	say clang
	[ "$tier" = night ] || without=stepped
	build clang clang -Dwerror=true && {
		suites clang "$short" 1 unit process model abi ${nightly:+python redis examples cli}
		suites clang "$fuzz" 1 fuzz
	}
	without=

	say 'asan + ubsan'
	if sanitizer_runs address,undefined; then
		parts="unit process model examples fuzz torture nginx redis ${nightly:+cli}"
		# shellcheck disable=SC2086 # words
		build asan gcc -Db_sanitize=address,undefined && suites asan "$short" 4 $parts
	else
		program asan cannot_run
	fi

	say tsan
	if sanitizer_runs thread; then
		parts='unit process model torture redis'
		# shellcheck disable=SC2086 # words
		build tsan gcc -Db_sanitize=thread -Doptimization=1 -Dc_args=-Wno-tsan && suites tsan "$short" 4 $parts
	else
		program tsan cannot_run
	fi
	under= parts=
fi

# Single-stepped, what the compiler makes of the sources is what is tested.
if [ "$tier" = night ] && wanted process; then
	say 'gcc -O0'
	build gcc-O0 gcc -Dwerror=true --buildtype=debug -Dbench=disabled && suites gcc-O0 "$short" 4 process/stepped
fi

if [ -n "$packaging" ]; then
	program packages ./tests/packages/debian.sh
	[ "$tier" != night ] || program dist ./tests/packages/dist.sh
fi

[ -z "$aside" ] || program spin end_of_aside

# Each rule of the policy, broken: some test has to notice.
if [ "$tier" = night ] && wanted process; then
	program mutants ./tests/mutants/run.sh
fi
