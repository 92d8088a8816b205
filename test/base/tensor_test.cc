#include "autoscheme/tensor.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>

namespace autoscheme {
namespace {

TEST_CASE("Each of the 22 dtypes has its bits and its spelling in the file format") {
  const std::pair<const char*, int> kAll[] = {
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
  std::set<Dtype> seen;
  for (const auto& [name, bits] : kAll) {
    CAPTURE(name);
    const std::optional<Dtype> dtype = DtypeFromName(name);
    REQUIRE(dtype.has_value());
    CHECK(DtypeBits(*dtype) == bits);
    CHECK(DtypeName(*dtype) == name);
    seen.insert(*dtype);
  }
  CHECK(seen.size() == 22);
}

TEST_CASE("A dtype's name is case-sensitive and complete") {
  for (const char* name : {"bf16", "F128", "", "F3", "BF16 ", "F8"}) CHECK_FALSE(DtypeFromName(name).has_value());
}

TEST_CASE("The number of elements is the product of the shape") {
  TensorInfo tensor;
  CHECK(tensor.numel() == 1);
  tensor.shape = {3, 5};
  CHECK(tensor.numel() == 15);
  tensor.shape = {3, 0, 5};
  CHECK(tensor.numel() == 0);
}

}  // namespace
}  // namespace autoscheme
