#!/bin/bash
# SPDX-License-Identifier: MIT
# Checks flight.pml, expire.pml, permit.pml, resize.pml, extent.pml, read.pml and index.pml exhaustively, and that
# each mutant of them is caught; and by names.py, that what they name is in src/, and that each mutant has its
# counterpart of the code.
#   run.sh           the configurations of a few minutes
#   run.sh --night   larger ones too: a quarter of an hour of one processor, up to 2.6 GB
# The searches are complete (no bitstate, no hashing of states), without partial order reduction, each below 4 GB.
# Needs spin and a C compiler.
set -u
here=$(cd "$(dirname "$0")" && pwd)
night=
case ${1-} in
  '') ;;
  --night) night=1 ;;
  *) echo "usage: ${0##*/} [--night]" >&2; exit 2 ;;
esac
for tool in spin python3 "${CC:-gcc}"; do
  command -v "$tool" >/dev/null || { echo "${0##*/}: $tool not found" >&2; exit 2; }
done
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
model=flight level=-O2

# check safety|live MODEL-OPTION...: leaves pan's output in $dir/pan.out
check() {
  local mode=$1 build args
  shift
  if [ "$mode" = live ]; then
    build='-DNP -DNFAIR=3' args='-l -f'
  else
    build=-DSAFETY args=
  fi
  rm -rf "$dir/w" && mkdir "$dir/w" || return 1
  : >"$dir/pan.out"
  (
    cd "$dir/w" || exit 1
    spin -a "$@" "$here/$model.pml" || exit 1
    # shellcheck disable=SC2086 # lists of options
    "${CC:-gcc}" $level -w $build -DCOLLAPSE -DNOREDUCE -DMEMLIM=3900 -o pan pan.c || exit 1
    # shellcheck disable=SC2086
    ./pan $args -n -m500000
  ) >"$dir/pan.out" 2>&1
}

result() { # 0|1 NAME TEXT
  if [ "$1" = 0 ]; then
    passed=$((passed + 1)); echo "ok $2 $3"
  else
    failed=$((failed + 1)); echo "not ok $2 $3"
  fi
}

# holds NAME safety|live MODEL-OPTION...
holds() {
  local name=$1 states
  shift
  check "$@"
  states=$(awk '/states, stored/ { print $1; exit }' "$dir/pan.out")
  if grep -q 'errors: 0' "$dir/pan.out" &&
    ! grep -Eq 'out of memory|max search depth too small|^error' "$dir/pan.out"; then
    result 0 "$name" "$states states"
  else
    result 1 "$name" "$(grep -E -m1 'pan:1|error|memory|depth too small' "$dir/pan.out")"
    sed 's/^/# /' "$dir/pan.out" | tail -40
  fi
}

# caught NAME safety|live MODEL-OPTION...
caught() {
  local name=$1
  shift
  check "$@" "-DMUTANT_$name"
  if grep -Eq '^pan:1: (assertion violated|invalid end state|non-progress cycle)' "$dir/pan.out" &&
     ! grep -q 'invalid array index' "$dir/pan.out"; then
    result 0 "mutant $name" caught
  else
    result 1 "mutant $name" "not caught: $*"
  fi
}

claim='-DCOARSE -DNS=2'           # one index cell, the scan of a publication in one step
index='-DNC=2 -DNS=2'             # two index cells, every access a step

# shellcheck disable=SC2086 # lists of options
configurations() {
  holds flight/claim safety $claim -DCALLERS=3 -DMAXK=1 -DMAXL=1 -DENDINGS=1
  holds flight/claim-3-slots safety -DCOARSE -DNS=3 -DCALLERS=2 -DMAXK=1 -DMAXS=1 -DMAXL=2 -DENDINGS=1 -DLAST
  holds flight/claim-refresh safety $claim -DCALLERS=2 -DMAXK=1 -DMAXL=2 -DENDINGS=1 -DREFRESH -DEVICT=1 -DLAST
  holds flight/nothing-stuck safety $claim -DCALLERS=2 -DMAXK=2 -DMAXS=1 -DMAXL=2 -DENDINGS=1 -DLAST
  holds flight/publish-evict safety $index -DCALLERS=2 -DMAXK=1 -DMAXL=1 -DEVICT=1 -DREFRESH
  holds flight/publish-delete safety $index -DCALLERS=2 -DDELETERS=1 -DMAXK=0 -DMAXL=1
  holds flight/delete-delete safety $index -DCALLERS=1 -DDELETERS=2 -DMAXK=1 -DMAXL=0 -DREFRESH -DEVICT=1
  holds flight/set-delete safety $index -DCALLERS=1 -DSETTERS=1 -DDELETERS=1 -DMAXK=0 -DREFRESH -DEVICT=1
  holds flight/waiters-end live $claim -DORACLE -DCALLERS=3 -DMAXK=0 -DMAXL=0
  holds flight/waiters-end-kill-stop live $claim -DORACLE -DCALLERS=2 -DMAXK=1 -DMAXS=1 -DMAXL=1 -DENDINGS=1
}

# shellcheck disable=SC2086
night_configurations() {
  holds night/claim-stop safety $claim -DCALLERS=3 -DMAXK=0 -DMAXS=1 -DMAXL=1 -DENDINGS=1 -DLAST
  holds night/claim-refresh safety $claim -DCALLERS=3 -DMAXK=1 -DMAXL=0 -DREFRESH -DEVICT=1
  holds night/claim-3-slots safety -DCOARSE -DNS=3 -DCALLERS=3 -DMAXK=1 -DMAXL=1
  holds night/publish-delete safety $index -DCALLERS=2 -DDELETERS=1 -DMAXK=0 -DMAXL=1 -DEVICT=1 -DREFRESH
  holds night/publish-delete-kill safety $index -DCALLERS=2 -DDELETERS=1 -DMAXK=1 -DMAXL=1
  holds night/publish-set safety $index -DCALLERS=2 -DSETTERS=1 -DMAXK=0 -DMAXL=0 -DEVICT=1
  holds night/one-slot safety -DNC=2 -DNS=1 -DCALLERS=2 -DDELETERS=2 -DMAXK=0 -DMAXL=0
  holds night/waiters-end-kill live $claim -DORACLE -DCALLERS=3 -DMAXK=1 -DMAXL=0
  holds night/waiters-end-delete live $claim -DORACLE -DCALLERS=2 -DDELETERS=1 -DMAXK=0 -DMAXS=1 -DMAXL=1
}

# shellcheck disable=SC2086
mutants() {
  caught no_rescan safety $claim -DCALLERS=2 -DMAXK=0 -DMAXL=0
  caught takeover_living safety $claim -DCALLERS=2 -DMAXK=0 -DMAXL=0
  caught no_second_lookup safety $claim -DCALLERS=2 -DMAXK=0 -DMAXL=0
  caught overdue_unchanged safety $claim -DCALLERS=2 -DMAXK=0 -DMAXL=1
  caught takeover_publishing safety $claim -DCALLERS=3 -DMAXK=1 -DMAXL=1
  caught takeover_late safety $claim -DCALLERS=3 -DMAXK=1 -DMAXL=1 -DREFRESH -DEVICT=1
  caught orphan_overdue safety $claim -DCALLERS=3 -DMAXK=1 -DMAXL=1 -DENDINGS=1
  caught dead_claim_stays safety $claim -DCALLERS=2 -DMAXK=2 -DMAXL=0 -DLAST
  caught dead_overdue_stays safety -DCOARSE -DNS=1 -DCALLERS=2 -DMAXK=1 -DMAXL=1 -DLAST
  caught death_unseen safety $claim -DCALLERS=2 -DMAXK=1 -DMAXL=0
  caught look_again live $claim -DORACLE -DCALLERS=2 -DMAXK=0 -DMAXL=0
  caught publish_without_cas safety $index -DCALLERS=1 -DDELETERS=1 -DMAXK=0
  caught no_kill safety $index -DCALLERS=1 -DDELETERS=1 -DMAXK=0 -DEVICT=1
  caught kill_after_detach safety $index -DCALLERS=1 -DDELETERS=2 -DMAXK=1 -DEVICT=1
  caught sweep_first safety $index -DCALLERS=1 -DDELETERS=1 -DMAXK=0
  caught entry_target_later safety $index -DCALLERS=1 -DDELETERS=1 -DMAXK=0 -DREFRESH -DEVICT=1
  caught set_alone safety $index -DCALLERS=1 -DSETTERS=1 -DMAXK=0 -DEVICT=1
  caught supersede_last safety $index -DCALLERS=2 -DMAXK=0 -DEVICT=1
  caught unknown_spared safety $index -DCALLERS=2 -DMAXK=0 -DEVICT=1
  caught record_in_slot safety -DNC=2 -DNS=1 -DCALLERS=2 -DDELETERS=2 -DMAXK=0 -DMAXL=0
}

expire_configurations() {
  holds expire/duplicates safety -DMOVES=2 -DDROPS=1 -DMAXK=1
  holds expire/expire safety -DNC=1 -DEXPIRERS=2 -DMOVES=1 -DFULL=1
  holds expire/delete safety -DNC=1 -DDELETERS=1 -DMOVES=1 -DMAXK=1
  holds expire/set safety -DNC=1 -DSETTERS=1 -DMOVES=1
  holds expire/barrier safety -DBARRIERS=1 -DMOVES=1
}

night_expire_configurations() {
  holds night/expire-delete safety -DDELETERS=1 -DMOVES=1
  holds night/expire-delete-barrier safety -DNC=1 -DDELETERS=1 -DBARRIERS=1
  holds night/expire-set safety -DNC=1 -DSETTERS=1 -DMOVES=1 -DDROPS=1
  holds night/expire-kill safety -DNC=1 -DEXPIRERS=2 -DMOVES=1 -DMAXK=1
}

expire_mutants() {
  caught copy_is_newer safety -DNC=1 -DDELETERS=1 -DLOADERS=0
  caught copy_goes_anywhere safety -DNC=1 -DDELETERS=1 -DLOADERS=0
  caught copy_over_anything safety -DNC=1 -DSETTERS=1 -DLOADERS=0
  caught copy_first safety -DNC=1
  caught no_kill safety -DNC=1 -DDROPS=1
  caught drawn_late safety -DNC=1 -DBARRIERS=1
  caught moved_by_generation safety -DNC=1 -DMOVES=1 -DLOADERS=0
  caught moved_anyhow safety -DNC=1 -DMOVES=1 -DDELETERS=1 -DLOADERS=0
}

alone='-DNP=2 -DCOARSE=1'          # permits: with every access a step but for kick_next
order='-DNP=3 -DCOARSE=1 -DSLICES=0' # nobody wakes but by being told

# shellcheck disable=SC2086
permit_configurations() {
  holds permit/bounds safety -DNP=3 -DCOARSE=2 -DM=2 -DB=1 -DKEYSPACES=2
  holds permit/lease safety $alone -DROUNDS=2 -DRENEW=1 -DMAXL=2
  holds permit/killed safety $alone -DMAXK=1 -DMAXL=1 -DLAST
  holds permit/stopped safety $alone -DMAXS=1 -DMAXP=1 -DLAST
  holds permit/everybody-is-told safety -DNP=2 -DROUNDS=2 -DSLICES=0
  holds permit/everybody-is-told-3 safety -DNP=3 -DCOARSE=2 -DSLICES=0
  holds permit/everybody-is-told-bounds safety $order -DM=2 -DB=1 -DKEYSPACES=2
}

# shellcheck disable=SC2086
night_permit_configurations() {
  holds night/permit-take safety -DNP=3 -DCOARSE=2
  holds night/permit-lease safety -DNP=3 -DCOARSE=2 -DM=2 -DMAXL=1
  holds night/permit-killed safety -DNP=3 -DCOARSE=2 -DMAXK=1
  holds night/permit-killed-again safety $alone -DROUNDS=2 -DMAXK=1 -DMAXL=1 -DLAST
  holds night/permit-stopped safety $alone -DMAXS=1 -DMAXP=1 -DMAXK=1 -DLAST
  holds night/permit-all-stopped safety $alone -DMAXS=2 -DMAXP=1 -DLAST
  holds night/permit-killed-stopped safety $alone -DROUNDS=2 -DMAXK=1 -DMAXS=1 -DLAST
  holds night/permit-everybody-is-told safety $order
  holds night/permit-everybody-is-told-2 safety $order -DM=2
}

# shellcheck disable=SC2086
permit_mutants() {
  caught no_announcement safety $alone
  caught taking_not_counted safety $alone
  caught own_not_counted safety $alone -DM=2 -DB=1
  caught alone_without_abort safety $alone
  caught freed_unmarked safety $alone -DRENEW=1 -DMAXL=1
  caught freed_by_state safety $alone -DROUNDS=2 -DMAXL=1 -DM=2
  caught until_after_held safety $alone -DROUNDS=2 -DMAXL=1
  caught dead_stay safety $alone -DMAXK=1 -DLAST
  caught stopped_first safety $alone -DMAXS=1 -DLAST
  caught taking_unmarked safety $alone -DMAXS=1 -DLAST
  caught kick_first safety -DNP=2 -DSLICES=0
  caught mark_cleared_late safety -DNP=3 -DCOARSE=2 -DSLICES=0
  caught refused_silently safety -DNP=3 -DCOARSE=2 -DSLICES=0
}

resize_configurations() {
  holds resize/changes safety -DCHANGES=2 -DREADS=2
  holds resize/load safety -DCHANGES=1 -DLOADS=1 -DREADS=2
  holds resize/thawed safety -DCHANGES=1 -DMAXT=2
  holds resize/given-up safety -DCHANGES=1 -DMAXS=1
}

night_resize_configurations() {
  holds night/resize-looks safety -DCHANGES=2
  holds night/resize-thawed safety -DCHANGES=2 -DMAXT=1 -DREADS=2
  holds night/resize-given-up safety -DCHANGES=2 -DMAXS=1 -DREADS=2
}

resize_mutants() {
  caught no_wait safety -DCHANGES=2
  caught no_last_round safety -DCHANGES=2
  caught no_redo safety -DCHANGES=2 -DMAXS=1
  caught all_again safety -DCHANGES=2
  caught late_load safety -DCHANGES=1 -DLOADS=1
  caught move_without_cas safety -DCHANGES=2 -DMAXT=1
}

read_configurations() {
  holds read/membarrier safety -DLOOKS=2 -DUPDATES=3
  holds read/fence safety -DLOOKS=2 -DUPDATES=3 -DFENCE=1
  holds read/readers safety -DREADERS=2 -DUPDATES=2 -DNX=3
  holds read/collectors safety -DWRITERS=2
  holds read/writers safety -DREADERS=0 -DWRITERS=2 -DUPDATES=2 -DNX=3
}

night_read_configurations() {
  holds night/read-readers safety -DREADERS=2 -DUPDATES=3
  holds night/read-reuse safety -DWRITERS=2 -DUPDATES=3 -DFEW=1
  holds night/read-reuse-fence safety -DWRITERS=2 -DUPDATES=3 -DFEW=1 -DFENCE=1
  holds night/read-collectors safety -DWRITERS=2 -DNX=3
}

read_mutants() {
  caught no_membarrier safety -DUPDATES=3
  caught no_fence safety -DUPDATES=3 -DFENCE=1
  caught no_second_look safety -DUPDATES=3
  caught announcement_moves safety -DUPDATES=3
  caught cleared_early safety -DUPDATES=3
  caught retired_first safety -DWRITERS=2
  caught writer_unannounced safety -DREADERS=0 -DWRITERS=2 -DUPDATES=2 -DNX=3
  level=-O2
  caught no_sequence safety -DWRITERS=2 -DUPDATES=3 -DFEW=1
}

index_configurations() {
  holds index/usual safety
  holds index/direct safety -DDIRECT=1
}

index_mutants() {
  caught born_settled safety
  caught newest_dropped safety
  caught unsure safety -DDIRECT=1
  caught over_newer safety
}

two='-DCOARSE=2 -DWRITERS=2 -DTRIES=2'

# shellcheck disable=SC2086
extent_configurations() {
  holds extent/life safety -DTHERE=1
  holds extent/reuse safety -DCOARSE=1 -DSETS=2 -DTURNS=2
  holds extent/writers safety -DWRITERS=2 -DEVICTORS=0 -DCAP=2
  holds extent/killed safety -DCOARSE=1 -DMAXK=1
  holds extent/evictors safety -DCOARSE=1 -DWRITERS=0 -DEVICTORS=2 -DTHERE=1 -DMAXK=1 -DRECOVERERS=1
}

# shellcheck disable=SC2086
night_extent_configurations() {
  holds night/extent-life-killed safety -DMAXK=1
  holds night/extent-reuse safety -DSETS=2 -DTURNS=2
  holds night/extent-writers safety $two
}

# shellcheck disable=SC2086
extent_mutants() {
  caught writer_unannounced safety -DCOARSE=1 -DSETS=2 -DTURNS=2
  caught claim_unscanned safety -DCOARSE=1 -DSETS=2 -DTURNS=2
  caught walk_unannounced safety -DCOARSE=1 -DWRITERS=0 -DEVICTORS=2 -DTHERE=1
  caught lock_stolen safety -DWRITERS=2 -DEVICTORS=0 -DCAP=2
  caught counted_after safety -DWRITERS=2 -DEVICTORS=0
  caught dead_stay safety -DCOARSE=1 -DMAXK=1
  level=-O2 # these are deep
  caught no_grace safety $two -DTHERE=1
  caught old_unannounced safety $two -DTHERE=1
  caught open_unannounced safety $two
  caught loser_retires_anyway safety $two
}

configurations
[ -z "$night" ] || night_configurations
mutants
model=expire
expire_configurations
[ -z "$night" ] || night_expire_configurations
level=-O0 # they are caught sooner than the compiler is done with -O2
expire_mutants
model=permit level=-O2
permit_configurations
[ -z "$night" ] || night_permit_configurations
level=-O0
permit_mutants
model=resize level=-O2
resize_configurations
[ -z "$night" ] || night_resize_configurations
level=-O0
resize_mutants
model=read level=-O2
read_configurations
[ -z "$night" ] || night_read_configurations
level=-O0
read_mutants
model=extent level=-O2
extent_configurations
[ -z "$night" ] || night_extent_configurations
level=-O0
extent_mutants
model=index level=-O2
index_configurations
index_mutants
while read -r how text; do
  case $how in
    ok) result 0 names "$text" ;;
    *) result 1 names "${text#ok }" ;;
  esac
done < <(python3 "$here/names.py")
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
