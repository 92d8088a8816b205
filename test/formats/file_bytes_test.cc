#include <catch2/catch.hpp>

#include "formats/bits.h"

namespace autoscheme {
namespace {

int64_t Bytes(const char* name, int64_t rows, int64_t cols) { return FileBytes(FindScheme(name).value(), rows, cols); }

TEST_CASE("GGUF types take whole blocks of every row") {
  CHECK(Bytes("GGUF:Q4_0", 10, 512) == 10 * 16 * 18);
  CHECK(Bytes("GGUF:Q4_1", 10, 512) == 10 * 16 * 20);
  CHECK(Bytes("GGUF:Q5_0", 10, 512) == 10 * 16 * 22);
  CHECK(Bytes("GGUF:Q5_1", 10, 512) == 10 * 16 * 24);
  CHECK(Bytes("GGUF:Q8_0", 10, 512) == 10 * 16 * 34);
  CHECK(Bytes("GGUF:Q2_K_S", 10, 512) == 10 * 2 * 84);
  CHECK(Bytes("GGUF:Q3_K_M", 10, 512) == 10 * 2 * 110);
  CHECK(Bytes("GGUF:Q4_K_S", 10, 512) == 10 * 2 * 144);
  CHECK(Bytes("GGUF:Q5_K_M", 10, 512) == 10 * 2 * 176);
  CHECK(Bytes("GGUF:Q6_K", 10, 512) == 10 * 2 * 210);
  CHECK(Bytes("GGUF:Q4_K_S", 3, 257) == 3 * 2 * 144);
  CHECK(Bytes("GGUF:Q8_0", 3, 33) == 3 * 2 * 34);
}

TEST_CASE("packed integers store a float16 scale and a packed zero point for each group") {
  CHECK(Bytes("W4A16", 64, 256) == 64 * 256 / 2 + 128 * 2 + 128 / 2);
  CHECK(Bytes("W2A16G32", 64, 256) == 64 * 256 / 4 + 512 * 2 + 512 / 4);
  CHECK(Bytes("W3A16", 64, 200) == 64 * 200 * 3 / 8 + 128 * 2 + 128 * 3 / 8);  // the last group of a row is short
  // Integers on both sides: a scale for each row, no zero point.
  CHECK(Bytes("INT8", 64, 256) == 64 * 256 + 64 * 2);
  Scheme asymmetric = FindScheme("INT8").value();
  asymmetric.sym = false;
  CHECK(FileBytes(asymmetric, 64, 256) == 64 * 256 + 64 * 2 + 64);
}

TEST_CASE("floating formats store the scales that their runtimes read") {
  CHECK(Bytes("MXFP4", 64, 256) == 64 * 128 + 64 * 8);
  CHECK(Bytes("MXFP6", 64, 256) == 64 * 192 + 64 * 8);
  CHECK(Bytes("MXFP8", 64, 256) == 64 * 256 + 64 * 8);
  CHECK(Bytes("MXINT4", 64, 256) == 64 * 128 + 64 * 8);
  CHECK(Bytes("NVFP4", 64, 256) == 64 * 128 + 64 * 16 + 4);
  CHECK(Bytes("FP8_STATIC", 64, 256) == 64 * 256 + 64 * 4);
  CHECK(Bytes("FPW8A16", 64, 256) == 64 * 256 + 4);
  CHECK(Bytes("FP8_BLOCK", 200, 256) == 200 * 256 + 2 * 2 * 4);
  CHECK(Bytes("BF16", 64, 256) == 64 * 256 * 2);
}

}  // namespace
}  // namespace autoscheme
