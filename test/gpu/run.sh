#!/usr/bin/env bash
# The first run on a GPU: every claim that needs one, each with a number and PASS or FAIL, in less than seven minutes.
#
# usage: test/gpu/run.sh [--dry] [STEP...]
#   --dry    everything but the GPU: tiny models, the processor in its place, speeds recorded and not judged; and a step
#            `failures`, which shows that what compares can fail
#   STEP     only these: machine speeds kernels golden blocks_4 blocks_32 operators
#
# Environment
#   AUTOSCHEME_BUILD         where the programs were built (default: build)
#   OUT                      where gpu.txt (the summary) and gpu.log go (default: gpu in the build)
#   AUTOSCHEME_GPU_WORK      a folder with room for 20 GB, in which gpu_work, or gpu_dry, is made anew (default: the build)
#   AUTOSCHEME_TORCH_LIB     LibTorch's folder of libraries, where it is not the one that is found
#   AUTOSCHEME_CUDA_PLUGIN   the plugin (default: lib/libautoscheme_cuda.so of the build)
#
# Runs in a tree that has been built, and in a folder that pack.sh has filled; there LibTorch is that of `python3 -c 'import torch'`.
# Exit status: 0 when all passed, 1 when something failed, 77 where there is no GPU (nvidia-smi), 2 for wrong usage.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${AUTOSCHEME_BUILD:-$root/build}
bin=$build/bin

# Seconds, at most. All steps together get no more than whole_s.
declare -A limit=([machine]=25 [speeds]=45 [kernels]=60 [golden]=45 [blocks_4]=90 [blocks_32]=150 [operators]=100 [failures]=60)
steps=(machine speeds kernels golden blocks_4 blocks_32 operators)
whole_s=415

main() {
  local chosen=() argument
  export dry=false OUT=${OUT:-$build/gpu} work=${AUTOSCHEME_GPU_WORK:-$build}/gpu_work
  for argument in "$@"; do
    case $argument in
      --dry) dry=true ;;
      --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; exit ;;
      *)
        [ -n "${limit[$argument]:-}" ] || { echo "run.sh: unknown argument $argument; see --help" >&2; exit 2; }
        chosen+=("$argument")
        ;;
    esac
  done
  $dry && steps+=(failures)
  [ ${#chosen[@]} -gt 0 ] || chosen=("${steps[@]}")
  if ! $dry && ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    echo "run.sh: there is no NVIDIA GPU here; --dry tries the script without one" >&2
    exit 77
  fi
  $dry && whole_s=$((4 * whole_s)) && work=${work%work}dry
  mkdir -p "$OUT"
  rm -rf "$work" && mkdir -p "$work"
  : >"$OUT/gpu.log"
  settings
  trap 'stop_maker; rm -rf "$work"/8b_*' EXIT
  prepare 2>&1 | tee -a "$OUT/gpu.log"
  start_maker "${chosen[*]}"
  for argument in "${chosen[@]}"; do step "$argument"; done
  summary
}

# Files and numbers that the steps share, for the dry run or for the real one.
settings() {
  export torch=${AUTOSCHEME_TORCH_LIB:-} torch_cuda="" plugin=${AUTOSCHEME_CUDA_PLUGIN:-$build/lib/libautoscheme_cuda.so} torch_hash=""
  export AUTOSCHEME_CUDA_PLUGIN=$plugin
  if $dry; then
    plugin=$build/lib/libautoscheme_stand_in.so
    export shrink="--shrink 32" device="--device cpu --max-ram 2GB" types="float32 float32" goal_type=float32 quick=--quick small=--small
    export few=2 many=3 rows=2
    unset AUTOSCHEME_CUDA_PLUGIN
  else
    export shrink="" device="--device cuda --max-vram 4GB --max-ram 2GB" types="float32 tf32" goal_type=tf32 quick="" small=""
    export few=4 many=32 rows=16
  fi
  if [ -n "$torch" ]; then
    :
  elif [ -e "$root/packed" ]; then
    torch=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
  else
    torch=$(ldd "$bin/autoscheme" | sed -n 's/.*libtorch_cpu.so => \(.*\)\/libtorch_cpu.so .*/\1/p')
  fi
  $dry || torch_cuda=$torch
  if [ -e "$root/packed" ]; then # what pack.sh writes: the hash of the LibTorch that the programs were built with
    torch_hash=$(cat "$root/packed")
    export LD_LIBRARY_PATH=$torch:$torch/../../nvidia/cu13/lib:$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
}

# A plugin that this machine does not load is built anew.
prepare() {
  $dry && return
  if ! "$bin/autoscheme_gpu_probe" load "$plugin"; then
    echo "the plugin does not load here, and is built by nvcc"
    timeout 100 "$here/build_plugin.sh" "$work/libautoscheme_cuda.so" && cp "$work/libautoscheme_cuda.so" "$plugin"
  fi
}

# start_maker STEPS: the models are made while the first steps run, in a process group of their own to stop them by.
start_maker() {
  case $1 in *speeds* | *blocks* | *operators*) ;; *) return ;; esac
  [[ $1 == *speeds* ]] || touch "$work/read_few"
  set -m
  make_models &
  maker=$!
  set +m
}
maker=""
stop_maker() { [ -z "$maker" ] || kill -- "-$maker" 2>/dev/null; }

# The model of few blocks, and when the disk has been measured with it, the one of many.
make_models() {
  make_model few "$few" && wait_for "$work/read_few" 60
  make_model many "$many"
}
make_model() {
  # shellcheck disable=SC2086  # words of their own
  python3 "$root/test/bench/make_model.py" llama-3.1-8b "$work/8b_$1" --blocks "$2" $shrink >/dev/null && touch "$work/made_$1"
}

# wait_for FILE SECONDS
wait_for() {
  local tenths=$(($2 * 10))
  until [ -e "$1" ]; do
    [ $((tenths--)) -gt 0 ] || return 1
    sleep 0.1
  done
}

# Runs one step by itself, within its time and the whole's. Its lines of PASS and FAIL are what the summary holds.
step() {
  local name=$1 start=$SECONDS seconds=${limit[$1]} status before
  $dry && seconds=$((4 * seconds)) # the processor is slower, and others use it
  [ $((whole_s - SECONDS)) -ge "$seconds" ] || seconds=$((whole_s - SECONDS))
  echo "== $name" | tee -a "$OUT/gpu.log"
  if [ "$seconds" -le 0 ]; then
    echo "FAIL  $name: no time was left" | tee -a "$OUT/gpu.log"
    return
  fi
  before=$(results)
  timeout -k 5 "$seconds" "${BASH_SOURCE[0]}" --step "$name" 2>&1 | tee -a "$OUT/gpu.log"
  status=${PIPESTATUS[0]}
  case $status in
    0 | 1) [ "$(results)" -gt "$before" ] || echo "FAIL  $name: said nothing" | tee -a "$OUT/gpu.log" ;;
    124 | 137) echo "FAIL  $name: not done after $seconds s" | tee -a "$OUT/gpu.log" ;;
    *) echo "FAIL  $name: ended with status $status" | tee -a "$OUT/gpu.log" ;;
  esac
  echo "-- $name took $((SECONDS - start)) s" | tee -a "$OUT/gpu.log"
}

results() { grep -cE '^(PASS|FAIL)' "$OUT/gpu.log"; }

summary() {
  local failed passed
  failed=$(grep -c '^FAIL' "$OUT/gpu.log") passed=$(grep -c '^PASS' "$OUT/gpu.log")
  {
    grep -E '^(==|PASS|FAIL|NOTE|--)' "$OUT/gpu.log"
    echo "$passed passed, $failed failed, in $SECONDS s$($dry && echo "; a dry run, without a GPU")"
  } >"$OUT/gpu.txt"
  echo "== summary"
  cat "$OUT/gpu.txt"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# judge LABEL VALUE UNIT [OPERATOR LIMIT]: one line, PASS where the value is a number and stands so to the limit.
judge() {
  local result=FAIL wanted=${4:+ (wanted: $4 $5)}
  awk -v v="${2:-}" -v op="${4:-}" -v l="${5:-}" 'BEGIN {
    ok = v ~ /^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$/
    if (op == "<=") ok = ok && v + 0 <= l + 0
    if (op == ">=") ok = ok && v + 0 >= l + 0
    if (op == "==") ok = ok && v + 0 == l + 0
    exit !ok }' && result=PASS
  echo "$result  $1: ${2:-no number} ${3}${wanted}"
  [ $result = PASS ]
}
# As judge, but the processor is not held to the limit.
speed() { if $dry; then judge "$1" "$2" "$3"; else judge "$@"; fi; }
# same LABEL WANT GOT
same() {
  if [ -n "$2" ] && [ "$2" = "$3" ]; then echo "PASS  $1: $3"; else echo "FAIL  $1: ${3:-nothing} (wanted: $2)"; fi
}
# figure FILE NAME: the number behind a name.
figure() { sed -n "s/^$2 //p" "$1" 2>/dev/null | head -1; }

step_machine() {
  local out=$work/init.txt
  echo "NOTE  system: $(uname -sr), glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2), $(nproc) cores, $(df -h --output=avail "$work" | tail -1 | tr -d ' ') free"
  if ! $dry; then
    echo "NOTE  nvidia-smi: $(nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader | head -1)"
    same "LibTorch's build" "$(torch_hash_wanted)" "$(sed -n "s/^git_version = '\(.*\)'/\1/p" "$torch/../version.py")"
  fi
  "$bin/autoscheme_gpu_probe" init "$plugin" ${torch_cuda:+"$torch_cuda"} >"$out" || { echo "FAIL  the device cannot be opened"; return 1; }
  cat "$out"
  echo "NOTE  device: $(figure "$out" device), driver $(figure "$out" driver), runtime $(figure "$out" runtime)"
  speed "memory of the process with LibTorch and context" "$(figure "$out" rss_context_gb)" GB "<=" 0.9
  speed "memory of the device for the context" "$(context_gb "$out")" GB "<=" 0.6
}
torch_hash_wanted() { echo "${torch_hash:-$(sed -n "s/^git_version = '\(.*\)'/\1/p" "$torch/../version.py")}"; }
# By the driver where it says so of a process, else what is not free.
context_gb() {
  awk '{ f[$1] = $2 } END { p = f["device_process_gb"]; if (p + 0 == 0) p = f["device_total_gb"] - f["device_free_gb"]; print p }' "$1"
}

step_speeds() {
  local out=$work/speeds.txt
  "$bin/autoscheme_gpu_probe" transfer "$plugin" >"$out"
  "$bin/autoscheme_gpu_probe" products "$plugin" $small >>"$out"
  if wait_for "$work/made_few" 40; then
    python3 "$here/checks.py" drop "$work/8b_few"
    "$bin/autoscheme_gpu_probe" disk "$work"/8b_few/*.safetensors >>"$out"
  fi
  touch "$work/read_few"
  cat "$out"
  speed "disk, past the page cache" "$(figure "$out" disk_gb_per_s)" GB/s ">=" 0.7
  speed "pinned copies to the device" "$(figure "$out" up_gb_per_s)" GB/s ">=" 40
  speed "the same, memory pinned in place" "$(figure "$out" up_pinned_in_place_gb_per_s)" GB/s ">=" 40
  speed "pinned copies from the device" "$(figure "$out" down_gb_per_s)" GB/s
  speed "products in float32" "$(figure "$out" float32_tflops)" TFLOP/s ">=" 45
  speed "products in tf32" "$(figure "$out" tf32_tflops)" TFLOP/s ">=" 300
  speed "products in bfloat16" "$(figure "$out" bfloat16_tflops)" TFLOP/s ">=" 550
}

step_kernels() {
  local out=$work/kernels.txt sanitizer
  "$bin/autoscheme_gpu_kernel_bits" "$plugin" $quick >"$out"
  cat "$out"
  judge "forward differences of $(figure "$out" forward_elements) elements" "$(figure "$out" forward_differences)" "" "==" 0
  judge "k-quant differences of $(figure "$out" k_quant_elements) elements" "$(figure "$out" k_quant_differences)" "" "==" 0
  judge "gradients, of their row's largest" "$(figure "$out" backward_worst)" "" "<=" 1e-6
  judge "sums of the fold" "$(figure "$out" fold_worst)" "" "<=" 1e-12
  judge "faults of amax and of the finite check" "$(figure "$out" other_faults)" "" "==" 0
  $dry && return
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
  if [ -z "$sanitizer" ]; then
    echo "FAIL  compute-sanitizer is not there"
  elif timeout 35 "$sanitizer" --tool memcheck --error-exitcode 9 "$bin/autoscheme_gpu_kernel_bits" "$plugin" --quick >"$work/sanitizer.txt" 2>&1; then
    echo "PASS  compute-sanitizer: $(grep -o 'ERROR SUMMARY.*' "$work/sanitizer.txt")"
  else
    echo "FAIL  compute-sanitizer: $(grep -o 'ERROR SUMMARY.*' "$work/sanitizer.txt" || tail -1 "$work/sanitizer.txt")"
    head -40 "$work/sanitizer.txt"
  fi
}

step_golden() {
  local out=$work/golden.txt
  mkdir -p "$work/golden"
  # shellcheck disable=SC2086
  python3 "$here/checks.py" golden "$bin/autoscheme" "$root/test/golden/scores" "$work/golden" $quick --dtype float32 $device >"$out"
  judge "scores of weight-only schemes, worst layer" "$(figure "$out" weight_only)" "" "<=" 1e-4
  judge "scores with quantized activations, worst layer" "$(figure "$out" activations)" "" "<=" 1e-2
  judge "scores of k-quants, worst layer" "$(figure "$out" k_quants)" "" "<=" 3e-3
}

# score MODEL ROWS TYPE NAME: a run that is watched; its figures are in NAME.txt, its scores in NAME.json.
score() {
  local model=$work/8b_$1 out=$work/$4.txt
  # shellcheck disable=SC2086
  python3 "$here/checks.py" watch "$work/$4.log" -- "$bin/autoscheme" score --model "$model" --tokens "$model/tokens.json" \
    --schemes W2A16,W4A16,W8A16 --scorer deltaloss --nsamples "$2" --seqlen 256 --batch-size 8 --dtype "$3" $device \
    --work-dir "$work" --progress none --out "$work/$4.json" >"$out" || { echo "FAIL  $4 did not run: $(tail -1 "$work/$4.log")"; return 1; }
  python3 "$here/checks.py" run "$work/$4.json" >>"$out"
  echo "NOTE  $4: $(figure "$out" wall_s) s, of which the run $(figure "$out" total_s): forward $(figure "$out" forward_s), head $(figure "$out" head_s)," \
    "backward $(figure "$out" backward_s), waiting for the disk $(figure "$out" stall_s); host $(figure "$out" host_gb) GB," \
    "device $(figure "$out" device_gb) GB; read $(figure "$out" disk_read_gb) GB from storage"
  sed "s/^/  $4 /" "$out"
}

# compare LABEL WANT GOT PERCENT [MODEL]
compare() {
  local text result=FAIL
  text=$(python3 "$root/test/bench/compare_scores.py" "$2" "$3" --brief --most "$4" ${5:+--model "$5"} 2>&1) && result=PASS
  echo "$result  $1: $text (wanted: <= $4 %)"
}

# rows REFERENCE: of its calibration.
rows() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["calibration"]["nsamples"])' "$1" 2>/dev/null || echo 2; }

# The scores to compare with: those of the tree, or of a shrunk model as the processor computes them now.
reference() {
  if ! $dry; then
    echo "$root/test/bench/reference_8b_$2.json"
    return
  fi
  # shellcheck disable=SC2086
  "$root/test/bench/make_reference.sh" "$2" 1 --folder "$work/reference" --program "$bin/autoscheme" --out "$work/reference_$1.json" \
    $shrink >/dev/null 2>&1
  echo "$work/reference_$1.json"
}

step_blocks_4() {
  local type number=0 most reference few_rows
  reference=$(reference few "$few")
  few_rows=$(rows "$reference")
  wait_for "$work/made_few" 30 || { echo "FAIL  the model of 4 blocks was not made"; return 1; }
  for type in $types; do
    number=$((number + 1)) most=0.01
    [ "$type" = float32 ] || most=0.1
    score few "$few_rows" "$type" "blocks_4_$number.$type.a" && score few "$few_rows" "$type" "blocks_4_$number.$type.b" || continue
    compare "4 blocks, $type, two runs" "$work/blocks_4_$number.$type.a.json" "$work/blocks_4_$number.$type.b.json" 0
    compare "4 blocks, $type, against the processor" "$reference" "$work/blocks_4_$number.$type.a.json" "$most" "$work/8b_few"
  done
}

# The goal: 16 x 256 ids in a minute. The processor's scores are of fewer rows, which a second run takes.
step_blocks_32() {
  local out=$work/goal.txt reference
  reference=$(reference many "$many")
  wait_for "$work/made_many" 90 || { echo "FAIL  the model of 32 blocks was not made"; return 1; }
  python3 "$here/checks.py" drop "$work/8b_many"
  if score many "$rows" $goal_type goal; then
    speed "32 blocks, page cache dropped, the whole process" "$(figure "$out" wall_s)" s "<=" 60
    speed "of it, read from storage" "$(figure "$out" disk_read_gb)" GB ">=" 14
    judge "host memory, by the system" "$(figure "$out" host_gb)" GB "<=" 2
    judge "host memory, by the run" "$(figure "$out" peak_rss_gb)" GB "<=" 2
    if ! $dry; then
      judge "device memory, by nvidia-smi" "$(figure "$out" device_gb)" GB "<=" 4
      judge "device memory, by the run" "$(figure "$out" peak_vram_gb)" GB "<=" 4
      judge "device memory, as planned" "$(figure "$out" planned_vram_gb)" GB "<=" 4
    fi
  fi
  score many "$(rows "$reference")" $goal_type compared &&
    compare "32 blocks, fewer rows, against the processor" "$reference" "$work/compared.json" 0.5 "$work/8b_many"
}

step_operators() {
  wait_for "$work/made_many" 1 || { echo "FAIL  the model of 32 blocks was not made"; return 1; }
  score many "$rows" $goal_type warm
  judge "32 blocks, page cache kept" "$(figure "$work/warm.txt" wall_s)" s
  export AUTOSCHEME_DEVICE_KERNELS=0
  score many "$rows" $goal_type operators
  judge "the same by LibTorch's operators" "$(figure "$work/operators.txt" wall_s)" s
  [ ! -e "$work/goal.json" ] || compare "scores of kernels and of operators" "$work/goal.json" "$work/operators.json" 0.5
}

# fails_with STATUS LABEL COMMAND...
fails_with() {
  local wanted=$1 label=$2 status=0
  shift 2
  "$@" >/dev/null 2>&1 || status=$?
  same "$label" "$wanted" "$status"
}

step_failures() {
  local scores=$work/blocks_4_1.float32.a.json compare=$root/test/bench/compare_scores.py
  python3 - "$scores" "$work" <<'EOF' || { echo "FAIL  there are no scores to spoil: blocks_4 comes first"; return 1; }
import json, sys
for name, spoil in (("moved", lambda s: s["schemes"]["W4A16"]["model.layers.1.mlp.up_proj"]),
                    ("nan", lambda s: s["schemes"]["W8A16"]["model.layers.0.self_attn.q_proj"])):
    scores = json.load(open(sys.argv[1]))
    term = spoil(scores)
    term["weight"] = "NaN" if name == "nan" else term["weight"] * 1.0002
    json.dump(scores, open(f"{sys.argv[2]}/spoilt_{name}.json", "w"))
scores["model"]["fingerprint"] = "0"
json.dump(scores, open(f"{sys.argv[2]}/spoilt_model.json", "w"))
EOF
  fails_with 1 "compare_scores, a score that is off by 0.02 %" python3 "$compare" "$scores" "$work/spoilt_moved.json" --most 0.01
  fails_with 0 "the same where more is allowed" python3 "$compare" "$scores" "$work/spoilt_moved.json" --most 0.03
  fails_with 1 "compare_scores, a score that is no number" python3 "$compare" "$scores" "$work/spoilt_nan.json" --most 50
  fails_with 2 "compare_scores, another model" python3 "$compare" "$scores" "$work/spoilt_model.json" --most 50
  fails_with 1 "kernel_bits, kernels that are wrong in a last bit" \
    env AUTOSCHEME_STAND_IN_FAULT=forward "$bin/autoscheme_gpu_kernel_bits" "$plugin" --quick
  fails_with 1 "probe, a plugin that is none" "$bin/autoscheme_gpu_probe" load "$bin/autoscheme_gpu_probe"
}

if [ "${1:-}" = --step ]; then
  "step_$2"
  exit
fi
main "$@"
