// A struct that has grown since its first version: what happens to older callers.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "handles.h"

extern "C" {
struct first_info {
  size_t struct_size;
  int32_t a, b;
};
struct grown_info {
  size_t struct_size;
  int32_t a, b;
  int64_t c;  // appended
};
}

namespace autoscheme::capi {

CAPI_STRUCT(grown_info, b);

namespace {

// A caller's struct as its compiler made it, with other things of the caller behind it.
template <typename T>
struct Caller {
  explicit Caller(T value, size_t struct_size = sizeof(T)) {
    value.struct_size = struct_size;
    std::memcpy(bytes.data(), &value, sizeof(T));
  }
  grown_info* as_grown() { return reinterpret_cast<grown_info*>(bytes.data()); }
  T value() const {
    T copy;
    std::memcpy(&copy, bytes.data(), sizeof(T));
    return copy;
  }
  bool untouched_behind() const {
    return std::all_of(bytes.begin() + sizeof(T), bytes.end(), [](char byte) { return byte == 0x55; });
  }
  std::vector<char> bytes = std::vector<char>(64, 0x55);
};

TEST_CASE("an older caller's struct is filled as far as it goes") {
  Caller<first_info> older({0, -1, -1});
  REQUIRE(FillStruct(grown_info{0, 1, 2, 3}, older.as_grown()).ok());
  CHECK(older.value().struct_size == sizeof(first_info));
  CHECK(older.value().a == 1);
  CHECK(older.value().b == 2);
  CHECK(older.untouched_behind());

  Caller<grown_info> same({0, -1, -1, -1});
  REQUIRE(FillStruct(grown_info{0, 1, 2, 3}, same.as_grown()).ok());
  CHECK(same.value().c == 3);
  CHECK(same.untouched_behind());
}

TEST_CASE("an older caller's struct is read as far as it goes, and the rest is zero") {
  Caller<first_info> older({0, 1, 2});
  grown_info read{0, -1, -1, -1};
  REQUIRE(ReadStruct(older.as_grown(), &read).ok());
  CHECK(read.a == 1);
  CHECK(read.b == 2);
  CHECK(read.c == 0);
}

TEST_CASE("a struct smaller than its first version is refused with name and size, and left alone") {
  Caller<grown_info> small({0, 5, 6, 7}, sizeof(first_info) - 1);
  const absl::Status status = FillStruct(grown_info{0, 1, 2, 3}, small.as_grown());
  CHECK(absl::IsInvalidArgument(status));
  CHECK_THAT(std::string(status.message()), Catch::Contains("grown_info is 15") && Catch::Contains("at least 16"));
  CHECK(small.value().a == 5);
  CHECK(small.value().c == 7);
  grown_info read{0, 5, 6, 7};
  CHECK(absl::IsInvalidArgument(ReadStruct(small.as_grown(), &read)));
  CHECK(read.a == 5);
}

}  // namespace
}  // namespace autoscheme::capi
