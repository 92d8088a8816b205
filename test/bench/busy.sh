#!/usr/bin/env bash
# What other busy programs cost a run: seconds of scoring alone, and beside one busy loop for every core. Prints a Markdown table, once as
# the program is started and once with threads that spin as long as libgomp lets them by default.
#
# usage: test/bench/busy.sh MODEL [ROUNDS]      a folder with config.json and safetensors; 5 rounds by default
#
# Each figure is the median of the rounds, in which the cases take turns. Needs build/bin/autoscheme; test/run.sh builds it.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
model=$1 rounds=${2:-5}
folder=$(mktemp -d)
loops=()
finish() {
  [ ${#loops[@]} -eq 0 ] || kill "${loops[@]}" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

start_loops() {
  local core
  for ((core = 0; core < $(nproc); ++core)); do
    (while :; do :; done) &
    loops+=($!)
  done
}

stop_loops() {
  kill "${loops[@]}"
  wait "${loops[@]}" 2>/dev/null || true
  loops=()
}

# Appends the seconds of one run to the file of its case. `default` is libgomp's own count.
score() {
  local name=$1 spin=$2 from to
  from=$(date +%s.%N)
  env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT ${spin:+GOMP_SPINCOUNT=$spin} "$source_dir/build/bin/autoscheme" score --model "$model" \
    --tokens "$source_dir/examples/smollm2/tokens.json" --options W4A16 --scorer deltaloss --nsamples 2 --seqlen 64 --quiet --out "$folder/scores.json"
  to=$(date +%s.%N)
  echo "$from $to" | awk '{print $2 - $1}' >>"$folder/$name"
}

median() { sort -n "$folder/$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

for ((round = 0; round < rounds; ++round)); do
  score idle.short ""
  score idle.long 300000
  start_loops
  score busy.short ""
  score busy.long 300000
  stop_loops
done

echo "| threads spin | alone, s | beside $(nproc) busy loops, s | ratio |"
echo "|---|---|---|---|"
for spin in short long; do
  alone=$(median idle.$spin) beside=$(median busy.$spin)
  [ $spin = short ] && title="briefly (the program's own way)" || title="300,000 turns (libgomp's default)"
  echo "$title $alone $beside" | awk '{n = NF; r = $n / $(n - 1); b = $n; a = $(n - 1); NF -= 2; printf "| %s | %.2f | %.2f | %.2f |\n", $0, a, b, r}'
done
