#!/usr/bin/env bash
# Scores one model several ways and prints a Markdown table: peak memory, seconds for each option, bytes read, and the
# ratio to the time that the matrix products alone take on this machine, measured anew in every round. A round is a run that
# keeps activations as far as memory goes, a streamed one from a disk, and the same streamed one with model and spill files in memory.
#
# usage: test/bench/compare.sh MODEL [--shape NAME] [--tokens FILE] [--nsamples N] [--seqlen N] [--options A,B]
#                              [--max-ram SIZE] [--kept-ram SIZE] [--dtype T] [--runs N]
#                              [--reference float32,default,streaming|none]
#   MODEL        a folder with config.json and safetensors; with --shape it is made if it is not there
#   --shape      a shape of make_model.py: tinyllama-1.1b, llama-3.1-8b, qwen3-0.6b
#   --tokens     calibration ids (default MODEL/tokens.json, else examples/smollm2/tokens.json)
#   --nsamples, --seqlen   of the calibration that is used (16, 256); batches have 8 rows
#   --options    default W4A16,W8A16
#   --max-ram    of the streamed runs (default 900MiB)
#   --kept-ram   --max-ram of the run that keeps activations (default: free, which keeps what a quarter of the free memory holds)
#   --dtype      of autoscheme: float32 (default), or another that it knows
#   --runs       rounds (default 3)
#   --reference  runs of AutoRound, each once: its arithmetic in float32, its default, its disk streaming (default: none)
#
# Needs build/bin/autoscheme and build/bin/autoscheme_roofline (cmake -DAUTOSCHEME_BUILD_BENCHMARKS=ON), and for the
# reference AUTOSCHEME_AUTOROUND_PYTHON, a Python in whose environment auto-round is installed. The page cache is dropped
# before every run where that is permitted (root); the table says whether it was. /dev/shm must have room for a copy of the
# model and the spill file.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$source_dir"

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$source_dir/test/bench/compare.sh" | sed '$d'; }
fail() { echo "compare.sh: $*" >&2; exit 1; }

model="" shape="" tokens="" nsamples=16 seqlen=256 options=W4A16,W8A16 max_ram=900MiB kept_ram=free dtype=float32 runs=3 reference=none
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage; exit ;;
    --shape | --tokens | --nsamples | --seqlen | --options | --max-ram | --kept-ram | --dtype | --runs | --reference)
      [ $# -ge 2 ] || fail "$1 needs a value"
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    -*) fail "unknown flag $1; see --help" ;;
    *) model=$1; shift ;;
  esac
done
[ -n "$model" ] || { usage >&2; exit 2; }

program=build/bin/autoscheme roofline=build/bin/autoscheme_roofline
[ -x $program ] && [ -x $roofline ] || fail "build first: cmake --preset release -DAUTOSCHEME_BUILD_BENCHMARKS=ON && cmake --build build"
if [ ! -e "$model/config.json" ]; then
  [ -n "$shape" ] || fail "$model is no model; give --shape to make one there"
  python3 test/bench/make_model.py "$shape" "$model" >&2
fi
if [ -z "$tokens" ]; then
  tokens=$model/tokens.json
  [ -e "$tokens" ] || tokens=examples/smollm2/tokens.json
fi

run_flags=(--tokens "$tokens" --nsamples "$nsamples" --seqlen "$seqlen" --batch-size 8 --options "$options" --dtype "$dtype")
spilled=$($program plan --model "$model" "${run_flags[@]}" --max-ram "$max_ram" --json | sed -n 's/.*"spill_bytes": *\([0-9]*\).*/\1/p')
needed=$(($(du -sLB1 "$model" | cut -f1) + spilled))
[ "$(df --output=avail -B1 /dev/shm | tail -1)" -ge "$needed" ] ||
  fail "/dev/shm has less than the $needed bytes free that model and spill file take; remount it larger (mount -o remount,size=)"
folder=$(mktemp -d)
memory=$(mktemp -d -p /dev/shm)
trap '[ $? -eq 0 ] && rm -rf "$folder" || echo "compare.sh: stopped; what was measured is in $folder" >&2; rm -rf "$memory"' EXIT
cache=warm
drop_cache() {
  sync
  if { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null; then cache=dropped; fi
}

# autoscheme_run NAME MODEL WORK_DIR [FLAG...]: the result is the file's `run` member.
autoscheme_run() {
  local name=$1 model=$2 work_dir=$3
  shift 3
  drop_cache
  $program score --scorer deltaloss --model "$model" "${run_flags[@]}" --work-dir "$work_dir" --progress none --quiet --out "$folder/$name.json" "$@"
}

# measure_products NAME TYPE: what the machine can do at this moment; machines that are shared change from minute to minute.
measure_products() {
  $roofline "$model" --tokens "${nsamples}x$seqlen" --dtype "$2" --json >"$folder/roofline.$1.json"
}

products=bfloat16 # every other type than float32 has operands of this
[ "$dtype" != float32 ] || products=float32
for run in $(seq "$runs"); do
  echo "round $run of $runs" >&2
  autoscheme_run "kept.$run" "$model" "$folder" --max-ram "$kept_ram"
  measure_products "$run" $products
  autoscheme_run "streamed.$run" "$model" "$folder" --max-ram "$max_ram"
  cp -rL "$model" "$memory/model" || fail "cannot copy the model to /dev/shm"
  autoscheme_run "in-ram.$run" "$memory/model" "$memory" --max-ram "$max_ram"
  rm -rf "$memory/model" # the next run is to have as much memory as this one had
done
if [ "$reference" != none ]; then
  python=${AUTOSCHEME_AUTOROUND_PYTHON:-}
  [ -n "$python" ] || fail "set AUTOSCHEME_AUTOROUND_PYTHON to a Python that has auto-round"
  menu=$options # of one scheme alone the reference makes no choice, and so scores nothing
  [[ $menu == *,* ]] || menu=$menu,BF16
  for kind in ${reference//,/ }; do
    echo "reference: $kind" >&2
    case $kind in
      default) flags=() ;;
      float32) flags=(--dtype float32) ;;
      streaming) flags=(--disk-streaming) ;;
      *) fail "--reference knows float32, default, streaming; not $kind" ;;
    esac
    drop_cache
    "$python" test/bench/autoround_baseline.py --model "$model" --tokens "$tokens" --nsamples "$nsamples" --seqlen "$seqlen" \
      --options "$menu" "${flags[@]}" 2>"$folder/log" | tail -1 >"$folder/reference-$kind.json" ||
      { tail -5 "$folder/log" >&2; cat "$folder/reference-$kind.json" >&2; }
    type=$(sed -n 's/.*"dtype": "\([a-z0-9]*\)".*/\1/p' "$folder/reference-$kind.json")
    [ -z "$type" ] || measure_products "$kind" "$type"
  done
fi

date=$(date -u +%F)
machine=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD 2>/dev/null || commit="$commit and changes"
python3 test/bench/compare_table.py "$folder" --title "$(basename "$(realpath "$model")"), $options, ${nsamples}x$seqlen tokens, $dtype" \
  --options "$options" --max-ram "$max_ram" --kept-ram "$kept_ram" --notes "$date; $(nproc) cores of $machine; commit $commit; page cache $cache"
