# shellcheck shell=sh
# SPDX-License-Identifier: MIT
# To be sourced. `need PACKAGE...` has these Debian packages installed: it asks apt for what is missing, and only then
# touches the network or asks for rights. It fails, and says why, if it can't.

need() (
	if ! command -v dpkg-query >/dev/null 2>&1; then
		echo "not a Debian: please see that you have what these packages hold: $*" >&2
		return 0
	fi

	missing=
	for package; do
		case $(dpkg-query -W -f '${db:Status-Status} ' "$package" 2>/dev/null) in
		installed*) ;;
		*) missing="$missing $package" ;;
		esac
	done
	[ -n "$missing" ] || return 0

	as_root=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null 2>&1; then
			echo "missing, and neither root nor sudo to install them: apt-get install$missing" >&2
			return 1
		fi
		if [ -t 0 ]; then as_root=sudo; else as_root='sudo -n'; fi
	fi

	echo "installing$missing" >&2
	log=$(mktemp) || return 1
	# shellcheck disable=SC2086 # words
	if ! { $as_root apt-get -q -o DPkg::Lock::Timeout=300 update
		$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 \
			install --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		echo "could not install:$missing" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
)
