#!/usr/bin/env bash
# From a bare Debian machine to a quantization recipe of a real model: SmolLM2-135M at 4.5 bits a weight, under 400 MiB.
#
# usage: examples/quickstart.sh [FOLDER]      where recipe.json and scores.json go (default: build/quickstart, which git ignores)
#
# Installs what is missing (cmake/bootstrap.sh), builds the autoscheme program, fetches the model, runs. Safe to run
# again: each step leaves alone what is there.
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(realpath -m "${1:-$source_dir/build/quickstart}")
export AUTOSCHEME_DEPS
AUTOSCHEME_DEPS=$(realpath -m "${AUTOSCHEME_DEPS:-$source_dir/.deps}")
cd "$source_dir"

echo "== 1/4 what the build needs"
cmake/bootstrap.sh

echo "== 2/4 build (a few minutes the first time)"
echo "the compiler's output goes to build/quickstart.log"
mkdir -p build "$folder"
{ cmake --preset release && cmake --build build --target bin/autoscheme; } >build/quickstart.log 2>&1 ||
  { tail -30 build/quickstart.log; echo "the build failed; all of it is in build/quickstart.log" >&2; exit 1; }

echo "== 3/4 the model: SmolLM2-135M-Instruct"
model=build/models/smollm2_135m
examples/smollm2/fetch.sh "$model"

echo "== 4/4 score every layer under four schemes and choose"
run=(build/bin/autoscheme run --model "$model" --tokens examples/smollm2/tokens.json
  --schemes W3A16,W4A16,W6A16,W8A16 --avg-bits 4.5 --max-ram 400MiB
  --out "$folder/recipe.json" --save-scores "$folder/scores.json")
echo "${run[*]}"
"${run[@]}"

echo
python3 examples/explain_recipe.py "$folder/recipe.json" "$model"
cat <<END
What next? AutoRound quantizes the weights by the recipe (pip install auto-round):

    import json
    from auto_round import AutoRound

    layer_config = json.load(open("$folder/recipe.json"))["recipes"][0]["layer_config"]
    AutoRound("HuggingFaceTB/SmolLM2-135M-Instruct", scheme="W4A16",
              layer_config=layer_config).quantize_and_save("smollm2-4.5-bits")

Another budget takes no new run of the model, only its scores:

    $source_dir/build/bin/autoscheme select --scores $folder/scores.json --avg-bits 5 --out $folder/recipe-5.json
END
