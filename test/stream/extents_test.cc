#include "stream/extents.h"

#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "stream/checksum.h"

namespace autoscheme {
namespace {

TensorInfo Tensor(const std::string& name, int shard, uint64_t offset, std::vector<int64_t> shape,
                  Dtype dtype = Dtype::kU8) {
  TensorInfo info;
  info.name = name;
  info.dtype = dtype;
  info.shape = std::move(shape);
  info.shard = shard;
  info.offset = offset;
  info.bytes = static_cast<uint64_t>(info.numel()) * DtypeBits(dtype) / 8;
  return info;
}

TEST_CASE("tensors that touch in the file are one extent, gaps and shards cut") {
  const TensorInfo a = Tensor("a", 0, 100, {10}), b = Tensor("b", 0, 110, {20});
  const TensorInfo c = Tensor("c", 0, 131, {5}), d = Tensor("d", 1, 130, {1});
  const auto plan = PlanStep({WholeTensor(d), WholeTensor(c), WholeTensor(b), WholeTensor(a)});
  REQUIRE(plan.ok());
  REQUIRE(plan->extents.size() == 3);
  CHECK(plan->extents[0].shard == 0);
  CHECK(plan->extents[0].file_offset == 100);
  CHECK(plan->extents[0].bytes == 30);
  CHECK(plan->extents[0].slot_offset == 100);
  CHECK(plan->extents[1].file_offset == 131);
  CHECK(plan->extents[1].slot_offset == 131);  // the same page: one read can bring both
  CHECK(plan->extents[2].shard == 1);
  CHECK(plan->extents[2].slot_offset == 4096 + 130);
  CHECK(plan->slot_offsets == std::vector<uint64_t>{4096 + 130, 131, 110, 100});
  CHECK(plan->read_bytes == 36);
  CHECK(plan->slot_bytes == 8192);
}

TEST_CASE("extents lie in the slot as in the file's pages, so that whole pages can be read into place") {
  const TensorInfo a = Tensor("a", 0, 4000, {5000}), b = Tensor("b", 0, 12287, {9}), c = Tensor("c", 0, 20480, {1});
  const TensorInfo d = Tensor("d", 0, 24578, {3}, Dtype::kF32), e = Tensor("e", 0, 30000, {2}, Dtype::kF32);
  const auto plan = PlanStep({WholeTensor(a), WholeTensor(b), WholeTensor(c), WholeTensor(d), WholeTensor(e)});
  REQUIRE(plan.ok());
  REQUIRE(plan->extents.size() == 5);
  CHECK(plan->extents[0].slot_offset == 4000);
  CHECK(plan->extents[1].slot_offset == 12287);  // a ends on the page before: they touch
  CHECK(SharesPages(plan->extents[0], plan->extents[1]));
  CHECK(plan->extents[2].slot_offset == 16384);  // pages 16384 to 20479 of the file are not read
  CHECK_FALSE(SharesPages(plan->extents[1], plan->extents[2]));
  // Misaligned in the file: aligned in the slot, and not direct.
  CHECK_FALSE(plan->extents[3].direct);
  CHECK(plan->extents[3].slot_offset == 20480);
  CHECK_FALSE(SharesPages(plan->extents[2], plan->extents[3]));
  CHECK(plan->extents[4].direct);
  CHECK(plan->extents[4].slot_offset == 24576 + 30000 % 4096);
  CHECK(plan->slot_bytes == 28672);
}

TEST_CASE("bytes that ranges share are read once") {
  const TensorInfo a = Tensor("a", 0, 8, {10, 4});
  const auto plan = PlanStep({{&a, 0, 6}, {&a, 4, 6}, WholeTensor(a), {&a, 2, 1}});
  REQUIRE(plan.ok());
  REQUIRE(plan->extents.size() == 1);
  CHECK(plan->read_bytes == 40);
  CHECK(plan->slot_offsets == std::vector<uint64_t>{8, 24, 8, 16});
}

TEST_CASE("empty tensors take no room and no read") {
  const TensorInfo zero = Tensor("zero", 0, 50, {0, 4}), a = Tensor("a", 0, 50, {4});
  const auto plan = PlanStep({WholeTensor(zero), WholeTensor(a), {&a, 4, 0}});
  REQUIRE(plan.ok());
  CHECK(plan->read_bytes == 4);
  CHECK(plan->extents.size() == 1);
  CHECK(PlanStep({})->slot_bytes == 0);
  CHECK(PlanStep({WholeTensor(zero)})->extents.empty());
}

TEST_CASE("a scalar is one row") {
  const TensorInfo scalar = Tensor("s", 0, 4, {}, Dtype::kF32);
  CHECK(WholeTensor(scalar).rows == 1);
  CHECK(PlanStep({WholeTensor(scalar)})->read_bytes == 4);
}

TEST_CASE("rows outside a tensor are refused with both numbers") {
  const TensorInfo a = Tensor("weight", 0, 8, {10, 4});
  for (const TensorRange& range : {TensorRange{&a, 8, 3}, TensorRange{&a, -1, 2}, TensorRange{&a, 0, -1},
                                   TensorRange{&a, 11, 0}, TensorRange{&a, INT64_MAX, INT64_MAX}}) {
    const absl::Status status = PlanStep({range}).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(absl::StrContains(status.message(), "\"weight\""));
    CHECK(absl::StrContains(status.message(), "10 rows"));
  }
  CHECK(PlanStep({TensorRange{}}).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("rows of a 4-bit tensor are refused only where they split a byte") {
  const TensorInfo odd = Tensor("odd", 0, 0, {2, 3}, Dtype::kF4), even = Tensor("even", 0, 0, {3, 4}, Dtype::kF4);
  CHECK(PlanStep({TensorRange{&odd, 0, 1}}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(PlanStep({WholeTensor(odd)})->read_bytes == 3);
  CHECK(PlanStep({TensorRange{&even, 1, 2}})->read_bytes == 4);
}

TEST_CASE("a checksum sees every flipped bit, the length and the owner") {
  std::vector<std::byte> bytes(77);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37);
  const uint64_t sum = Checksum64(5, bytes);
  CHECK(Checksum64(5, bytes) == sum);
  CHECK(Checksum64(6, bytes) != sum);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    REQUIRE(Checksum64(5, bytes) != sum);
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  }
  const std::vector<std::byte> zeros(64);
  for (size_t n = 0; n < zeros.size(); ++n) {
    CHECK(Checksum64(5, absl::MakeSpan(zeros).first(n)) != Checksum64(5, absl::MakeSpan(zeros).first(n + 1)));
  }
}

}  // namespace
}  // namespace autoscheme
