// Checksum64: a fast hash that tells whether spilled bytes came back as they were written. Not cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/types/span.h"

namespace autoscheme {

// Four lanes of multiply-rotate-multiply over 64-bit words, folded and finalized with the length; host byte order, so a
// value means nothing on another machine. Every step is a bijection of the word that it takes in: a change that is
// confined to one word is always seen, any other with probability 1 - 2^-64 or so. `seed` says whose bytes they are, so
// that swapped records do not pass for each other.
inline uint64_t Checksum64(uint64_t seed, absl::Span<const std::byte> bytes) {
  constexpr uint64_t kOdd1 = 0x9E3779B97F4A7C15, kOdd2 = 0xD6E8FEB86659FD93;
  const auto rotate = [](uint64_t x, int by) { return (x << by) | (x >> (64 - by)); };
  const auto mix = [&](uint64_t lane, uint64_t word) { return rotate(lane + word * kOdd1, 29) * kOdd2; };
  uint64_t lane[4] = {seed + kOdd1, seed ^ kOdd2, ~seed, seed * kOdd1 + 1};
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 32; p += 32, left -= 32) {
    uint64_t word[4];
    std::memcpy(word, p, 32);
    for (int i = 0; i < 4; ++i) lane[i] = mix(lane[i], word[i]);
  }
  for (int i = 0; left > 0; ++i) {
    uint64_t word = 0;
    const size_t n = left < 8 ? left : 8;
    std::memcpy(&word, p, n);
    lane[i] = mix(lane[i], word);
    p += n, left -= n;
  }
  uint64_t sum = bytes.size();
  for (uint64_t l : lane) sum = mix(sum, l);
  sum = (sum ^ (sum >> 32)) * kOdd1;
  return sum ^ (sum >> 29);
}

}  // namespace autoscheme
