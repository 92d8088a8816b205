#!/usr/bin/env bash
# Builds an earlier commit beside this one and runs both: tells whether a change that should change nothing did so.
#
# usage: test/bench/same_as.sh [--base COMMIT] [--quick] [--rounds N]
#   --base     the commit to compare with (default: cd7146b, the last one before the folders of lib/ were made anew)
#   --quick    the small models only: no peaks, no times
#   --rounds   paired runs of each of the timed cases (default 5)
#
# Compared, and the exit status is 1 if one differs:
#   scores     of the models in test/golden, in float32, mixed and bfloat16, and with a scored head: bit for bit
#   recipes    from those scores: equal
#   peaks      of SmolLM2-135M, 16 x 128 tokens, --max-ram 300MiB and 2GiB: not larger by more than 1%
#   times      of the same, the median of the ratios of runs that follow one another: within 3%
# The planner is free to choose. Where the two plans differ a score may differ in its last bits, and is compared to 1e-6.
#
# Needs build/bin/autoscheme, and for peaks and times build/models/smollm2_135m (test/run.sh makes both). The other commit is
# built in build/same_as/COMMIT, once.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$source_dir"

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$source_dir/test/bench/same_as.sh" | sed '$d'; }
fail() { echo "same_as.sh: $*" >&2; exit 2; }

base=cd7146b quick=false rounds=5
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage; exit ;;
    --quick) quick=true; shift ;;
    --base | --rounds)
      [ $# -ge 2 ] || fail "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
done
base=$(git rev-parse --verify --quiet "$base^{commit}") || fail "there is no such commit in this clone"
[ -x build/bin/autoscheme ] || fail "build first: cmake --preset release && cmake --build build"

export AUTOSCHEME_DEPS
AUTOSCHEME_DEPS=$(realpath -m "${AUTOSCHEME_DEPS:-.deps}")
folder=build/same_as/$base
if [ ! -x "$folder/build/bin/autoscheme" ]; then
  echo "building $base"
  mkdir -p "$folder"
  git archive "$base" | tar -x -C "$folder"
  (cd "$folder" && cmake --preset release -DAUTOSCHEME_BUILD_TESTS=OFF && cmake --build build --target autoscheme_cli) > "$folder.log" 2>&1 ||
    fail "$base does not build: see $folder.log"
fi

arguments=("$folder/build/bin/autoscheme" build/bin/autoscheme "--rounds=$rounds")
$quick || [ -e build/models/smollm2_135m/config.json ] || fail "build/models/smollm2_135m is missing; --quick does without"
$quick && arguments+=(--quick)
exec python3 test/bench/same_as.py "${arguments[@]}"
