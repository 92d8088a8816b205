#include "printable.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace cli {
namespace {

// Bytes of the well-formed character that `text` begins with, and its number; 0 bytes if it begins with none.
size_t FirstCharacter(absl::string_view text, uint32_t* number) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  constexpr size_t kLengths[] = {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 3, 4};  // by the first four bits
  const size_t length = kLengths[byte(0) >> 4];
  if (length == 0 || text.size() < length) return 0;
  *number = length == 1 ? byte(0) : byte(0) & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    *number = *number << 6 | (byte(i) & 0x3f);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};  // by length: what is smaller is overlong
  const bool surrogate = *number >= 0xd800 && *number <= 0xdfff;
  return *number < kLeast[length] || surrogate || *number > 0x10ffff ? 0 : length;
}

bool MovesCursor(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string Printable(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    uint32_t number = 0;
    const size_t valid = FirstCharacter(text, &number);
    const absl::string_view piece = text.substr(0, valid == 0 ? 1 : valid);
    if (valid != 0 && !MovesCursor(number)) {
      absl::StrAppend(&out, piece);
    } else {
      for (const char c : piece)
        absl::StrAppend(&out, "\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    }
    text.remove_prefix(piece.size());
  }
  return out;
}

}  // namespace cli
