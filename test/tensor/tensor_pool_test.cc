#include "tensor/tensor_pool.h"

#include <ATen/ATen.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "base/system_limits.h"

namespace autoscheme {
namespace {

constexpr int64_t kMiB = 1 << 20;

at::Tensor OfMiB(TensorPool& pool, int64_t n) { return NewTensor(&pool, {n * kMiB}, at::kByte); }

// Whether the system could read that byte.
bool Accessible(const std::byte* byte) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const bool done = write(ends[1], byte, 1) == 1;
  close(ends[0]), close(ends[1]);
  return done;
}

TEST_CASE("a freed place serves the next tensor of that size") {
  TensorPool pool;
  at::Tensor a = OfMiB(pool, 4), b = OfMiB(pool, 4);
  const void* place = a.data_ptr();
  a.reset();
  CHECK(OfMiB(pool, 4).data_ptr() == place);
  CHECK(OfMiB(pool, 5).data_ptr() != place);
  CHECK(b.data_ptr() != place);
  CHECK(pool.peak_bytes() == 9 * kMiB);
}

TEST_CASE("the smallest gap that fits is taken, and gaps that meet become one") {
  TensorPool pool;
  at::Tensor a = OfMiB(pool, 8), wall = OfMiB(pool, 1), b = OfMiB(pool, 2), c = OfMiB(pool, 2), end = OfMiB(pool, 1);
  const void *low = a.data_ptr(), *middle = b.data_ptr();
  a.reset(), b.reset();
  CHECK(OfMiB(pool, 2).data_ptr() == middle);
  c.reset();
  CHECK(OfMiB(pool, 4).data_ptr() == middle);
  CHECK(OfMiB(pool, 6).data_ptr() == low);
}

TEST_CASE("tensors alive at once share no byte, from several threads too") {
  TensorPool pool;
  std::vector<std::thread> threads;
  std::atomic<int> spoiled{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const int64_t bytes = TensorPool::kSmall + (i * 37 % 11) * 70'001;
        at::Tensor mine = NewTensor(&pool, {bytes}, at::kByte);
        std::memset(mine.data_ptr(), t + 1, bytes);
        at::Tensor other = NewLike(mine, {bytes / 2}, at::kByte);
        std::memset(other.data_ptr(), 99, bytes / 2);
        if (!mine.eq(t + 1).all().item<bool>()) ++spoiled;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(spoiled == 0);
}

TEST_CASE("what NewLike and Converted make lies in the pool of its model") {
  TensorPool pool;
  const at::Tensor x = NewTensor(&pool, {64, 1024}, at::kFloat).fill_(1.5);
  const uint64_t one = pool.peak_bytes();
  const at::Tensor y = NewLike(x.view({-1}).narrow(0, 0, 32768), {32768}, at::kFloat);
  CHECK(pool.peak_bytes() == one + 32768 * 4);
  const at::Tensor narrow = Converted(x, at::kBFloat16);
  CHECK(pool.peak_bytes() == one + 32768 * 4 + 65536 * 2);
  CHECK(narrow.eq(1.5).all().item<bool>());
  CHECK(Converted(x, at::kFloat).is_same(x));
  const at::Tensor outside = NewLike(at::ones({64, 1024}));
  CHECK(pool.peak_bytes() == one + 32768 * 4 + 65536 * 2);
}

TEST_CASE("a pool holds the pages of its busiest moment, and Trim gives back those of gaps") {
  TensorPool pool;
  at::Tensor kept = OfMiB(pool, 16).fill_(7);
  const uint64_t before = ReadProcessMemory().anon;
  if (before == 0) return;  // a system that does not say
  for (int i = 0; i < 8; ++i) OfMiB(pool, 64).fill_(1);
  const uint64_t busy = ReadProcessMemory().anon;
  CHECK(busy - before > 60 * kMiB);
  CHECK(busy - before < 80 * kMiB);
  pool.Trim();
  CHECK(ReadProcessMemory().anon < before + 8 * kMiB);
  CHECK(kept.eq(7).all().item<bool>());
}

TEST_CASE("a large pool consists of large pages where the system has them") {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string modes;
  if (!std::getline(file, modes) || modes.find("[never]") != std::string::npos) return;
  TensorPool pool;
  std::vector<at::Tensor> tensors = {OfMiB(pool, 80).fill_(1)};
  CHECK(reinterpret_cast<uintptr_t>(tensors[0].data_ptr()) % (2 * kMiB) == 0);
  const uint64_t before = ReadProcessMemory().anon;
  if (before == 0) return;  // a system that does not say
  // No multiple of a large page, one after the other: each ends inside one, which the next begins in, and which is
  // there whole.
  for (int64_t i = 1; i <= 7; ++i) {
    tensors.push_back(OfMiB(pool, 3).fill_(1));
    const std::byte* end = static_cast<const std::byte*>(tensors[0].data_ptr()) + (80 + 3 * i) * kMiB;
    CHECK(Accessible(end) == (i % 2 == 1));
    CHECK_FALSE(Accessible(end + 2 * kMiB));
  }
  CHECK(ReadProcessMemory().anon - before <= 24 * kMiB);
}

TEST_CASE("tensors that outlive their pool keep their memory") {
  at::Tensor left, other;
  {
    TensorPool pool;
    left = OfMiB(pool, 4).fill_(5);
    other = OfMiB(pool, 2);
  }
  other.reset();
  CHECK(left.eq(5).all().item<bool>());
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("where address space is limited a pool leaves room for others") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  rlimit limited = before;
  limited.rlim_cur = rlim_t{16} << 30;
  if (before.rlim_cur != RLIM_INFINITY || setrlimit(RLIMIT_AS, &limited) != 0) return;
  bool others = false;
  {
    TensorPool pool;
    CHECK(OfMiB(pool, 64).fill_(3).eq(3).all().item<bool>());
    others = at::empty({int64_t{2} << 30}, at::kByte).numel() > 0;
  }
  CHECK(setrlimit(RLIMIT_AS, &before) == 0);
  CHECK(others);
}
#endif

TEST_CASE("a pool that the system has no room for says so") {
  TensorPool pool;
  CHECK_THROWS_AS(NewTensor(&pool, {int64_t{1} << 60}, at::kByte), std::bad_alloc);
  at::Tensor still = OfMiB(pool, 1).fill_(3);
  CHECK(still.eq(3).all().item<bool>());
}

}  // namespace
}  // namespace autoscheme
