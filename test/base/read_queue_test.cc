#include "base/read_queue.h"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/io.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

constexpr int kDepth = 8;

struct Named {
  const char* name;
  std::unique_ptr<ReadQueue> queue;
};

std::vector<Named> Queues(Io& io) {
  std::vector<Named> queues;
  queues.push_back({"pread by Wait", std::make_unique<ReadQueue>(io, 0, kDepth)});
  queues.push_back({"pread by threads", std::make_unique<ReadQueue>(io, 3, kDepth)});
  return queues;
}

TEST_CASE("A queue brings every read's bytes under the read's tag") {
  const TempDir dir;
  std::string contents(10000, 0);
  for (size_t i = 0; i < contents.size(); ++i) contents[i] = static_cast<char>(i * 31 + i / 256);
  const std::string path = dir.Write("x", contents);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  for (Named& named : Queues(Io::Posix())) {
    CAPTURE(named.name);
    std::vector<std::vector<std::byte>> out(100, std::vector<std::byte>(100));
    int started = 0, under_way = 0;
    std::vector<bool> seen(100);
    while (started < 100 || under_way > 0) {
      if (started < 100 && under_way < kDepth) {
        named.queue->Submit({fd, out[started].data(), 100, 100u * started, started});
        ++started, ++under_way;
        continue;
      }
      const ReadQueue::Completion completion = named.queue->Wait();
      --under_way;
      REQUIRE(completion.result == 100);
      REQUIRE_FALSE(seen[completion.tag]);
      seen[completion.tag] = true;
      REQUIRE(std::equal(out[completion.tag].begin(), out[completion.tag].end(),
                         reinterpret_cast<const std::byte*>(contents.data()) + 100 * completion.tag));
    }
    // The end of the file is a short read, then none; a bad descriptor is a negative errno.
    std::byte beyond[100];
    named.queue->Submit({fd, beyond, 100, 9950, 7});
    CHECK(named.queue->Wait().result == 50);
    named.queue->Submit({fd, beyond, 100, 10000, 7});
    CHECK(named.queue->Wait().result == 0);
    named.queue->Submit({1000000, beyond, 100, 0, 7});
    CHECK(named.queue->Wait().result == -EBADF);
  }
  close(fd);
}

TEST_CASE("A queue that is dropped waits for its reads and leaves no descriptor") {
  const TempDir dir;
  const std::string path = dir.Write("x", std::string(1 << 20, 'x'));
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const int descriptors = OpenDescriptors();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::byte> out(kDepth << 17);  // freed after the queues: a late write would be seen by AddressSanitizer
    for (Named& named : Queues(Io::Posix())) {
      for (int i = 0; i < kDepth; ++i) {
        named.queue->Submit({fd, out.data() + (i << 17), 1 << 17, static_cast<uint64_t>(i) << 17, i});
      }
    }
  }
  CHECK(OpenDescriptors() == descriptors);
  close(fd);
}

}  // namespace
}  // namespace autoscheme
