#include "base/utf8.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "autoscheme/quoted.h"
#include "base/io.h"

namespace autoscheme {
namespace {

constexpr size_t kQuotedBytes = 200;

uint32_t CodePoint(absl::string_view character) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(character[i])); };
  switch (character.size()) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3: return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  }
}

// Characters that move a terminal's cursor, break the line or reverse the writing direction.
bool RedirectsTerminal(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

// What `text` begins with: a character, or one byte that begins none.
struct Character {
  absl::string_view bytes;
  bool printable;
};

Character FirstCharacter(absl::string_view text) {
  const size_t valid = Utf8CharLength(text);
  const absl::string_view bytes = text.substr(0, valid == 0 ? 1 : valid);
  return {bytes, valid != 0 && !RedirectsTerminal(CodePoint(bytes))};
}

void AppendEscaped(std::string& out, absl::string_view bytes) {
  for (const char c : bytes) absl::StrAppend(&out, "\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
}

}  // namespace

size_t Utf8CharLength(absl::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  size_t length;
  unsigned char low = 0x80, high = 0xbf;  // range of the second byte
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return 0;
  }
  if (text.size() < length || byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8CharLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string Quoted(absl::string_view text) {
  std::string out = "\"";
  size_t used = 0;
  while (!text.empty()) {
    const Character character = FirstCharacter(text);
    if (used + character.bytes.size() > kQuotedBytes) {
      absl::StrAppend(&out, "...");
      break;
    }
    if (character.bytes == "\"" || character.bytes == "\\") {
      absl::StrAppend(&out, "\\", character.bytes);
    } else if (character.printable) {
      absl::StrAppend(&out, character.bytes);
    } else {
      AppendEscaped(out, character.bytes);
    }
    text.remove_prefix(character.bytes.size());
    used += character.bytes.size();
  }
  out += '"';
  return out;
}

std::string FirstNames(absl::Span<const std::string> names, size_t most) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < most; ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", Quoted(names[i]));
  return names.size() > most ? absl::StrCat(text, ", ...") : text;
}

std::string OneLine(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character character = FirstCharacter(text);
    if (character.printable) {
      absl::StrAppend(&out, character.bytes);
    } else if (character.bytes == "\n" || character.bytes == "\r" || character.bytes == "\t") {
      out += ' ';
    } else {
      AppendEscaped(out, character.bytes);
    }
    text.remove_prefix(character.bytes.size());
  }
  return out;
}

std::string ToUtf8(absl::string_view text) {
  if (IsValidUtf8(text)) return std::string(text);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8CharLength(text.substr(i));
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      ++i;
    } else {
      out.append(text.data() + i, length);
      i += length;
    }
  }
  return out;
}

}  // namespace autoscheme
