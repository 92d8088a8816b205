// SHA-256 (FIPS 180-4): fingerprints of headers and calibration data. Not for secrets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace autoscheme {

class Sha256Hasher {
 public:
  void Update(const void* data, size_t size);
  void Update(absl::string_view text) { Update(text.data(), text.size()); }
  // Lower-case hex of the digest. Ends the hasher's life: no Update may follow.
  std::string HexDigest();

 private:
  void Compress(const uint8_t* block);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t block_[64] = {};
  size_t fill_ = 0;     // bytes of block_ that are waiting
  uint64_t total_ = 0;  // bytes hashed
};

inline std::string Sha256Hex(absl::string_view text) {
  Sha256Hasher hasher;
  hasher.Update(text);
  return hasher.HexDigest();
}

}  // namespace autoscheme
