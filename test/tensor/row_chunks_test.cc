#include "tensor/row_chunks.h"

#include <ATen/ATen.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/generic_device.h"

namespace autoscheme {
namespace {

TEST_CASE("every row is seen once, in stretches of bounded size") {
  const at::Tensor like = at::empty({1});
  for (const int64_t rows : {0, 1, 7, 1000, 40'000}) {
    for (const int64_t width : {1, 300, 100'000}) {
      std::vector<std::atomic<int>> seen(rows);
      std::atomic<bool> small{true};
      ForEachRowChunk(like, rows, width, [&](int64_t first, int64_t count) {
        for (int64_t i = first; i < first + count; ++i) ++seen[i];
        if (count > 1 && count * width > 32768) small = false;
      });
      bool once = true;
      for (const auto& n : seen) once = once && n == 1;
      CHECK(once);
      CHECK(small);
    }
  }
}

TEST_CASE("autograd does not see what the body does, and sees again what comes after") {
  at::Tensor x = at::ones({4096, 64}).requires_grad_(true), y = at::empty({4096, 64});
  const at::Tensor in = x.detach();
  ForEachRowChunk(in, 4096, 64, [&](int64_t first, int64_t count) {
    at::Tensor out = y.narrow(0, first, count);
    at::mul_out(out, in.narrow(0, first, count), in.narrow(0, first, count));
  });
  CHECK_FALSE(y.requires_grad());
  CHECK(y.eq(1).all().item<bool>());
  CHECK((x * 2).requires_grad());
}

TEST_CASE("what the body throws reaches the caller") {
  CHECK_THROWS_AS(
      ForEachRowChunk(at::empty({1}), 100'000, 64, [](int64_t, int64_t) { throw std::runtime_error("stop"); }),
      std::runtime_error);
}

TEST_CASE("a device is given large stretches, one after the other, by the calling thread") {
  const GenericDevice device;
  const at::Tensor like = at::empty({1});
  const std::thread::id caller = std::this_thread::get_id();
  int64_t next = 0, calls = 0;
  ForEachRowChunk(like, 2050, 1 << 12, [&](int64_t first, int64_t count) {
    CHECK(std::this_thread::get_id() == caller);
    CHECK(first == next);
    CHECK(count <= 1024);
    next = first + count, ++calls;
  });
  CHECK(next == 2050);
  CHECK(calls == 3);
}

}  // namespace
}  // namespace autoscheme
