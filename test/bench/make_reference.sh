#!/usr/bin/env bash
# Makes test/bench/reference_8b_BLOCKS.json: the scores of make_model.py's llama-3.1-8b shape as the processor computes them in float32.
#
# usage: test/bench/make_reference.sh BLOCKS ROWS [--folder FOLDER] [--program PROGRAM] [--max-ram SIZE] [--out FILE] [--shrink K]
#   BLOCKS, ROWS   4 16, and 32 2: each takes about 100 TFLOP, 30 to 45 minutes on two cores of their own. Rows have 256 ids.
#   --folder       where the model is made, if it is not there: 4 or 16 GB (default build/reference)
#   --program      default build/bin/autoscheme
#   --max-ram      of the run (default 6GiB); scores do not depend on it
#   --shrink       a smaller shape, to try the script
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
fail() { echo "make_reference.sh: $*" >&2; exit 2; }

[[ ${1:-} =~ ^[0-9]+$ && ${2:-} =~ ^[0-9]+$ ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' >&2; exit 2; }
blocks=$1 rows=$2
shift 2
folder=$source_dir/build/reference program=$source_dir/build/bin/autoscheme max_ram=6GiB shrink=1
out=$source_dir/test/bench/reference_8b_$blocks.json
while [ $# -gt 0 ]; do
  case $1 in
    --folder | --program | --max-ram | --out | --shrink)
      [ $# -ge 2 ] || fail "$1 needs a value"
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    *) fail "unknown argument $1" ;;
  esac
done
[ -x "$program" ] || fail "$program is not there; build first: cmake --preset release && cmake --build build"

make="llama-3.1-8b --blocks $blocks"
[ "$shrink" = 1 ] || make="$make --shrink $shrink"
score="--schemes W2A16,W4A16,W8A16 --scorer deltaloss --nsamples $rows --seqlen 256 --batch-size 8 --dtype float32"
model=$folder/8b_$blocks
mkdir -p "$folder"
[ -e "$model/tokens.json" ] || python3 "$source_dir/test/bench/make_model.py" ${make/ / "$model" } # tokens.json is written last
"$program" score --model "$model" --tokens "$model/tokens.json" $score --max-ram "$max_ram" --work-dir "$folder" --out "$model.scores.json"
python3 "$source_dir/test/bench/write_reference.py" "$model.scores.json" "$out" --model "$model" --make "$make" --score "$score"
echo "$out: $(wc -c <"$out") bytes"
