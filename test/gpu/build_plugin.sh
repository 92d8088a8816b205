#!/usr/bin/env bash
# Builds libautoscheme_cuda.so by nvcc alone, for the device of this machine: no CMake, no LibTorch. Flags are those of cmake/Cuda.cmake.
#
# usage: test/gpu/build_plugin.sh OUT [ARCHITECTURE]     such as sm_90; default: that of the device here
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:?usage: build_plugin.sh OUT [ARCHITECTURE]}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "build_plugin.sh: nvcc is not there" >&2; exit 1; }

objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() {
  "$nvcc" -c -std=c++17 -O3 -arch="$2" -fmad=false -prec-div=true -prec-sqrt=true -ftz=false \
    -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off -I "$root/lib" "$1" -o "$objects/$(basename "$1").o"
}
jobs=()
for source in "$root"/lib/cuda/*.cc "$root"/lib/cuda/*.cu; do
  compile "$source" "${2:-native}" & jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
"$nvcc" -shared -cudart shared -arch="${2:-native}" "$objects"/*.o -lcublas -Xlinker "--version-script=$root/lib/cuda/plugin.map" \
  -Xlinker -z,nodelete -o "$out"
