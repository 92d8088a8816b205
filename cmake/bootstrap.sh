#!/usr/bin/env bash
# Installs what a build of autoscheme needs: Debian packages, and LibTorch from PyPI in a private folder.
#
# usage: cmake/bootstrap.sh [--cuda]
#   --cuda   also what LibTorch's CUDA half loads at run time (docs/cuda.md): about 2 GB more to fetch, 2.7 GB more on disk. The
#            driver and nvcc come from elsewhere.
#
# Environment
#   AUTOSCHEME_DEPS            the private folder (default: <source>/.deps); about 1.4 GB, with --cuda 4 GB
#   LIBTORCH_ROOT, Torch_DIR   a LibTorch that is there already; nothing is fetched from PyPI then
#
# Safe to run again: what is there is left alone, a half-done install is done anew. System packages need root or sudo,
# and only when one is missing.
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=${AUTOSCHEME_DEPS:-$source_dir/.deps}

# python3-venv brings its own pip, which a system Python that refuses pip (PEP 668) does not stop.
debian_packages=(g++ cmake ninja-build ccache git ca-certificates python3 python3-venv
  libabsl-dev rapidjson-dev catch2 libbenchmark-dev clang-format)

# Enough for CPU: libtorch_cpu.so loads the two CUDA libraries at start, nothing else of CUDA.
wheels=(torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)

# What libtorch_cuda.so of that wheel loads, and what it opens later: nvrtc and cusolver.
cuda_wheels=(nvidia-cublas==13.1.0.3 nvidia-cufft==12.0.0.61 nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35
  nvidia-cusparse==12.6.3.3 nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9
  nvidia-nvshmem-cu13==3.4.5 nvidia-nvjitlink==13.0.88 nvidia-cuda-nvrtc==13.0.88 nvidia-cusolver==12.0.4.66)

main() {
  local cuda=false
  case "${1:-}" in
    "") ;;
    --cuda) cuda=true ;;
    *) echo "usage: cmake/bootstrap.sh [--cuda]" >&2; exit 2 ;;
  esac
  install_debian_packages
  if [ -n "${LIBTORCH_ROOT:-}${Torch_DIR:-}" ]; then
    check_given_libtorch "$cuda"
  else
    install_libtorch
    if $cuda; then
      install_cuda_libraries
    fi
  fi
}

say() { echo "bootstrap: $*"; }
fail() { echo "bootstrap: $*" >&2; exit 1; }

install_debian_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "not a Debian system: make sure that these are installed: ${debian_packages[*]}"
    return
  fi
  local missing=() package
  for package in "${debian_packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "system packages are there"
    return
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "as root, run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing system packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
}

check_given_libtorch() {
  local root=${LIBTORCH_ROOT:-$Torch_DIR/../../..}
  [ -e "$root/lib/libtorch_cpu.so" ] || [ -e "$root/torch/lib/libtorch_cpu.so" ] ||
    fail "LIBTORCH_ROOT or Torch_DIR is set, but $root holds no lib/libtorch_cpu.so"
  if $1 && [ ! -e "$root/lib/libtorch_cuda.so" ] && [ ! -e "$root/torch/lib/libtorch_cuda.so" ]; then
    fail "LIBTORCH_ROOT or Torch_DIR is set, but $root holds no lib/libtorch_cuda.so: that LibTorch is for CPU only"
  fi
  say "LibTorch in $root is used"
}

# The folder is filled beside its place and renamed, so it is either complete or absent; the stamp tells the versions.
install_libtorch() {
  local stamp=$deps/libtorch/.wheels
  if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "${wheels[*]}" ]; then
    say "LibTorch is there: $deps/libtorch"
    return
  fi
  say "fetching ${wheels[*]} into $deps/libtorch (0.5 GB to fetch, 1.3 GB on disk)"
  rm -rf "$deps/libtorch.partial" "$deps/libtorch"
  fetch_wheels "$deps/libtorch.partial" "${wheels[@]}"
  echo "${wheels[*]}" >"$deps/libtorch.partial/.wheels"
  mv "$deps/libtorch.partial" "$deps/libtorch"
}

# Laid beside LibTorch, where its run path looks. A second stamp is written last, so an install that was cut off is done anew.
install_cuda_libraries() {
  local stamp=$deps/libtorch/.cuda_wheels
  if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "${cuda_wheels[*]}" ]; then
    say "the CUDA libraries are there: $deps/libtorch/nvidia"
    return
  fi
  say "fetching ${cuda_wheels[*]} into $deps/libtorch (about 2 GB to fetch, 2.7 GB on disk)"
  rm -rf "$deps/cuda.partial" "$stamp"
  fetch_wheels "$deps/cuda.partial" "${cuda_wheels[@]}"
  cp -rlf "$deps/cuda.partial/." "$deps/libtorch/"
  rm -rf "$deps/cuda.partial"
  echo "${cuda_wheels[*]}" >"$stamp"
}

# fetch_wheels FOLDER WHEEL...: unpacks them, and nothing that they depend on.
fetch_wheels() {
  local folder=$1 python=$deps/python/bin/python
  shift
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    say "making a Python environment in $deps/python"
    mkdir -p "$deps"
    python3 -m venv --clear "$deps/python" || fail "python3 -m venv failed: is the package python3-venv installed?"
  fi
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target "$folder" "$@"
}

main "$@"
