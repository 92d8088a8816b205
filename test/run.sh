#!/usr/bin/env bash
# Sets up, builds and runs every test. The last line is `N passed, N failed, N skipped`; exit status 0 if none failed.
#
# usage: test/run.sh [--quick]
#   --quick   build and CTest only: no set-up, no model, no fixtures, no sanitizers
#
# A test case is a CTest test (in the plain build or under a sanitizer) or a case of autoscheme_fixture_tests.
# Fixtures come from AUTOSCHEME_FIXTURES, else from ../shared/fixtures, else from test/golden, a part of them.
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$source_dir"
export AUTOSCHEME_DEPS
AUTOSCHEME_DEPS=$(realpath -m "${AUTOSCHEME_DEPS:-$source_dir/.deps}")

# Run under AddressSanitizer and UndefinedBehaviorSanitizer; under ThreadSanitizer. The prebuilt LibTorch is not
# instrumented, so ThreadSanitizer gets the parts that do without it.
asan_parts=(base checkpoint formats select writers stream)
tsan_parts=(base stream)
# Run once more with LibTorch's instructions capped, where the processor has more: what depends on products and vector loops.
avx2_parts=(tensor quant nn model exec planner pipeline memory)

passed=0 failed=0 skipped=0
step="start"

main() {
  local quick=false
  case "${1:-}" in
    "") ;;
    --quick) quick=true ;;
    *) echo "usage: $0 [--quick]" >&2; exit 2 ;;
  esac
  trap finish EXIT
  look_for_nvcc

  if ! $quick; then
    begin "set-up"
    cmake/bootstrap.sh
    begin "model"
    examples/smollm2/fetch.sh build/models/smollm2_135m || echo "SmolLM2 cannot be had; its cases are skipped"
  fi
  begin "build"
  cmake --preset release "${cuda_plugin[@]}"
  cmake --build build
  begin "tests"
  run_ctest build --exclude-regex '^fixtures$'
  if ! $quick; then
    local folder=${AUTOSCHEME_FIXTURES:-../shared/fixtures}
    [ -n "${AUTOSCHEME_FIXTURES:-}" ] || [ -d "$folder" ] || folder=test/golden
    begin "fixtures in $folder"
    run_fixtures "$folder"
    if has_more_than_avx2; then
      begin "as on a processor with AVX2: ${avx2_parts[*]}, fixtures"
      export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
      run_ctest build --tests-regex "^($(IFS='|'; echo "${avx2_parts[*]}")):"
      run_fixtures "$folder" scores logits families
      unset ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA
    fi
    sanitize asan "${asan_parts[@]}"
    sanitize tsan "${tsan_parts[@]}"
  fi
  step=""
}

# The plugin for CUDA is built, for one kind of device to save time, where the compiler for it is. Nothing here needs a device.
look_for_nvcc() {
  if nvcc --version 2>/dev/null | grep -q 'release 13\.'; then
    cuda_plugin=(-DAUTOSCHEME_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90)
  else
    echo "the plugin for CUDA is not built: there is no nvcc 13 on PATH"
    cuda_plugin=(-DAUTOSCHEME_CUDA=OFF)
  fi
}

begin() {
  step=$1
  echo "== $step ($(date +%T))"
}

# The results are taken from CTest's own report. A test that could not start is in no count but shows in the status.
run_ctest() {
  local build=$1 status=0 failures
  shift
  rm -f "$build/ctest.xml"
  # Two tests at a time, each with LibTorch's threads: ones that spin while they wait would take the other's core. The program sees to
  # it by itself (examples/cli/before_libraries.cc).
  OMP_WAIT_POLICY=passive ctest --test-dir "$build" --parallel 2 --output-on-failure --no-tests=error --output-junit ctest.xml "$@" || status=$?
  failures=$(attribute failures "$build/ctest.xml")
  if [ "$status" -ne 0 ] && [ "$failures" -eq 0 ]; then
    failures=1
  fi
  local omitted=$(($(attribute skipped "$build/ctest.xml") + $(attribute disabled "$build/ctest.xml")))
  passed=$((passed + $(attribute tests "$build/ctest.xml") - failures - omitted))
  failed=$((failed + failures))
  skipped=$((skipped + omitted))
}

attribute() {
  sed -n "s/^.*\<$1=\"\([0-9]*\)\".*$/\1/p;" "$2" 2>/dev/null | head -1 | grep . || echo 0
}

has_more_than_avx2() {
  grep -qw avx512f /proc/cpuinfo && [ -z "${ATEN_CPU_CAPABILITY:-}${ONEDNN_MAX_CPU_ISA:-}" ]
}

# The kinds of fixtures that are named, or all.
run_fixtures() {
  local folder=$1 status=0 counts
  shift
  AUTOSCHEME_FIXTURES=$folder build/bin/autoscheme_fixture_tests "$@" | tee build/fixtures.log || status=$?
  if counts=$(grep -Eo '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?' build/fixtures.log | tail -1) && [ -n "$counts" ]; then
    set -- $(grep -Eo '[0-9]+' <<<"$counts")
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + ${3:-0}))
    [ "$status" -eq 0 ] || [ "$2" -gt 0 ] || failed=$((failed + 1))
  else
    echo "autoscheme_fixture_tests ended with status $status and no summary"
    failed=$((failed + 1))
  fi
}

sanitize() {
  local preset=$1 part targets=() names
  shift
  for part in "$@"; do
    targets+=("autoscheme_${part}_tests")
  done
  names=$(IFS='|'; echo "$*")
  begin "$preset: $*"
  cmake --preset "$preset" -DAUTOSCHEME_BUILD_EXAMPLES=OFF
  cmake --build "build/$preset" --target "${targets[@]}"
  run_ctest "build/$preset" --tests-regex "^($names):"
}

finish() {
  if [ -n "$step" ]; then
    echo "stopped at: $step"
    failed=$((failed + 1))
  fi
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ] || exit 1
}

main "$@"
