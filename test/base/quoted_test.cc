#include "autoscheme/quoted.h"

#include <catch2/catch.hpp>
#include <string>

#include "base/count.h"
#include "base/io.h"
#include "base/utf8.h"

namespace autoscheme {
namespace {

using namespace std::string_literals;

TEST_CASE("Quoted keeps ordinary text and puts it in quotes") {
  CHECK(Quoted("") == "\"\"");
  CHECK(Quoted("model.layers.0.mlp") == "\"model.layers.0.mlp\"");
  CHECK(Quoted("Größe 模型 🙂") == "\"Größe 模型 🙂\"");
}

TEST_CASE("Quoted escapes what could break a line or drive a terminal") {
  CHECK(Quoted("a\"b\\c") == R"("a\"b\\c")");
  CHECK(Quoted("a\nb\x1b[2J\x7f"s) == R"("a\x0ab\x1b[2J\x7f")");
  CHECK(Quoted("nul\0end"s) == R"("nul\x00end")");
  CHECK(Quoted("\xc2\x9b"
               "31m") == R"("\xc2\x9b31m")");  // C1 control sequence introducer
  CHECK(Quoted("\xe2\x80\xae"
               "abc") == R"("\xe2\x80\xaeabc")");  // right-to-left override
}

TEST_CASE("Quoted escapes ill-formed UTF-8 byte by byte") {
  CHECK(Quoted("\xff") == R"("\xff")");
  CHECK(Quoted("\xc0\xaf") == R"("\xc0\xaf")");          // overlong
  CHECK(Quoted("\xed\xa0\x80") == R"("\xed\xa0\x80")");  // surrogate
  CHECK(Quoted("\xe6\xa8") == R"("\xe6\xa8")");          // cut short
}

TEST_CASE("Quoted cuts long text at a character, after 200 bytes") {
  CHECK(Quoted(std::string(200, 'a')) == "\"" + std::string(200, 'a') + "\"");
  CHECK(Quoted(std::string(201, 'a')) == "\"" + std::string(200, 'a') + "...\"");
  CHECK(Quoted(std::string(199, 'a') + "é") == "\"" + std::string(199, 'a') + "...\"");
}

TEST_CASE("OneLine leaves good text alone, quotes and length included") {
  CHECK(OneLine("") == "");
  CHECK(OneLine(R"(layer "a\\x0a" has 模型 🙂)") == R"(layer "a\\x0a" has 模型 🙂)");
  CHECK(OneLine(std::string(5000, 'a')) == std::string(5000, 'a'));
}

TEST_CASE("OneLine makes one harmless line of anything") {
  CHECK(OneLine("a\nb\r\tc") == "a b  c");
  CHECK(OneLine("\x1b[31mred\x07"s) == R"(\x1b[31mred\x07)");
  CHECK(OneLine("nul\0end"s) == R"(nul\x00end)");
  CHECK(OneLine("\xff\xe6\xa8|\xc2\x9b") == R"(\xff\xe6\xa8|\xc2\x9b)");
  CHECK(OneLine("\xe2\x80\xa8|\xe2\x80\xae|\xe2\x80\x8f") == R"(\xe2\x80\xa8|\xe2\x80\xae|\xe2\x80\x8f)");
}

TEST_CASE("UTF-8 is accepted and refused at the edges of each length") {
  for (const char* good : {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CAPTURE(Quoted(good));
    CHECK(IsValidUtf8(good));
  }
  for (const char* bad : {"\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "a\xffz", "\xe2\x82"}) {
    CAPTURE(Quoted(bad));
    CHECK_FALSE(IsValidUtf8(bad));
  }
}

TEST_CASE("A count agrees with its noun") {
  CHECK(Count(0, "tensor") == "0 tensors");
  CHECK(Count(1, "tensor") == "1 tensor");
  CHECK(Count(12, "tensor") == "12 tensors");
  CHECK(Count(1, "batch", "batches") == "1 batch");
  CHECK(Count(2, "batch", "batches") == "2 batches");
}

TEST_CASE("Of many names the first five are shown, quoted") {
  CHECK(FirstNames({}) == "");
  CHECK(FirstNames({"a\nb"}) == R"("a\x0ab")");
  CHECK(FirstNames({"1", "2", "3", "4", "5"}) == R"("1", "2", "3", "4", "5")");
  CHECK(FirstNames({"1", "2", "3", "4", "5", "6"}) == R"("1", "2", "3", "4", "5", ...)");
}

}  // namespace
}  // namespace autoscheme
