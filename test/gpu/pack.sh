#!/usr/bin/env bash
# Fills a folder with all that run.sh needs on a machine that has a GPU, a driver and, in its Python, LibTorch with CUDA, but not this
# tree's build: programs and their libraries, the plugin and its sources, scripts, tiny models and reference scores.
#
# usage: test/gpu/pack.sh [FOLDER]     default build/gpu_pack; made anew
#
# Then, there: FOLDER/run.sh. Refuses more than 60 MiB, and a program that does not start from the folder.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
pack=$(realpath -m "${1:-build/gpu_pack}")
most_bytes=$((60 << 20))
fail() { echo "pack.sh: $*" >&2; exit 1; }

programs=(autoscheme autoscheme_gpu_probe autoscheme_gpu_kernel_bits)
files=(test/gpu test/bench/make_model.py test/bench/compare_scores.py test/bench/write_reference.py test/bench/make_reference.sh
  test/golden/scores/qwen2 test/golden/scores/llama_ragged)
for blocks in 4 32; do
  file=test/bench/reference_8b_$blocks.json
  if [ -e $file ]; then files+=("$file"); else echo "pack.sh: $file is not there: its comparison will fail" >&2; fi
done

rm -rf "$pack"
mkdir -p "$pack/build/bin" "$pack/build/lib"
for program in "${programs[@]}"; do
  [ -x "build/bin/$program" ] || fail "build/bin/$program is not there; build first"
  cp "build/bin/$program" "$pack/build/bin/"
done
cp --parents -r "${files[@]}" "$pack"
find lib -name '*.h' -exec cp --parents {} "$pack" \;
[ ! -d lib/cuda ] || cp --parents -r lib/cuda "$pack"

# What a Linux with a C++ compiler and a Python with LibTorch lacks: Abseil, and what is ours.
libraries() { ldd "$@" | awk '$2 == "=>" { print $3 }' | sort -u; }
torch=$(libraries build/bin/autoscheme | sed -n 's/\/libtorch_cpu.so$//p')
libraries build/bin/autoscheme "${programs[@]/#/build/bin/}" | grep -E '/(libabsl_[^/]*|libautoscheme)\.so[^/]*$' | while read -r library; do
  cp -L "$library" "$pack/build/lib/"
done
for plugin in libautoscheme_cuda.so libautoscheme_stand_in.so; do
  if [ -e build/lib/$plugin ]; then cp -L build/lib/$plugin "$pack/build/lib/"; else echo "pack.sh: build/lib/$plugin is not there" >&2; fi
done

sed -n "s/^git_version = '\(.*\)'/\1/p" "$torch/../version.py" >"$pack/packed"
cat >"$pack/run.sh" <<'RUN'
#!/usr/bin/env bash
exec "$(dirname "${BASH_SOURCE[0]}")/test/gpu/run.sh" "$@"
RUN
chmod +x "$pack/run.sh"

for program in "$pack"/build/bin/*; do
  foreign=$(LD_LIBRARY_PATH=$torch:$pack/build/lib ldd "$program" | awk '$2 == "=>" { print $3 }' |
    grep -vE "^($torch/|$pack/|.*/(libc|libm|libdl|librt|libpthread|libutil|libstdc\+\+|libgcc_s)\.so)" | grep -vE '/nvidia/cu13/lib/' || true)
  [ -z "$foreign" ] || fail "$program needs what is not packed: $foreign"
done
LD_LIBRARY_PATH=$torch:$pack/build/lib "$pack/build/bin/autoscheme" --version >/dev/null || fail "the packed program does not start"
bytes=$(du -sb "$pack" | cut -f1)
[ "$bytes" -le $most_bytes ] || fail "$pack has $bytes bytes, more than $most_bytes"
echo "$pack: $((bytes >> 10)) KiB"
