#include "base/json.h"

#include <catch2/catch.hpp>
#include <clocale>
#include <cmath>
#include <ctime>
#include <limits>
#include <string>

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;
using namespace std::string_literals;

std::string ErrorOf(const std::string& text) {
  const absl::StatusOr<Json> json = ParseJson(text, "test.json");
  if (json.ok()) return "accepted";
  CHECK(json.status().code() == absl::StatusCode::kDataLoss);
  return std::string(json.status().message());
}

TEST_CASE("JSON of every kind is read") {
  const absl::StatusOr<Json> json =
      ParseJson(" \t\r\n{\"a\": [1, -2, 3.5, true, false, null, \"x\\u00e9\\ud83d\\ude42\\n\"], \"b\": {}} ", "test");
  REQUIRE(json.ok());
  const JsonValue& a = (*json)["a"];
  REQUIRE(a.Size() == 7);
  CHECK(a[0].GetInt() == 1);
  CHECK(a[1].GetInt() == -2);
  CHECK(a[2].GetDouble() == 3.5);
  CHECK(a[3].GetBool());
  CHECK_FALSE(a[4].GetBool());
  CHECK(a[5].IsNull());
  CHECK(a[6].GetString() == "x\xc3\xa9\xf0\x9f\x99\x82\n"s);
  CHECK((*json)["b"].MemberCount() == 0);
}

TEST_CASE("A single scalar is a JSON text") {
  CHECK(ParseJson("42", "t")->GetInt() == 42);
  CHECK(ParseJson("\"s\"", "t")->GetString() == "s"s);
  CHECK(ParseJson("null", "t")->IsNull());
}

TEST_CASE("What JSON does not allow is DATA_LOSS with line and column") {
  for (const char* text :
       {"",     " ",      "{",        "[1,]",       "{\"a\":1,}", "{'a':1}", "{a:1}", "[1] x",
        "{}{}", "/*c*/1", "NaN",      "[Infinity]", "[-]",        "[01]",    "[1.]",  "[.5]",
        "[+1]", "[1e]",   "\"\x01\"", "\"\\x\"",    "[1 2]",      "tru",     "\"abc", "[\"\\u12g4\"]"}) {
    CAPTURE(text);
    CHECK_THAT(ErrorOf(text),
               Contains("test.json is not valid JSON") && Contains("at line 1, column ") && !Contains("byte"));
  }
  CHECK(ErrorOf("[1, 2, x]") == "test.json is not valid JSON: invalid value at line 1, column 8");
}

TEST_CASE("An error in JSON has its line, and its column in characters") {
  CHECK_THAT(ErrorOf("{\n  \"a\": 1,\n  \"b\": x\n}\n"), Contains("at line 3, column 8"));
  CHECK_THAT(ErrorOf("{\r\n\"a\": 1,\r\n\"b\": x}"), Contains("at line 3, column 6"));
  CHECK_THAT(ErrorOf("[\"Gr\xc3\xb6\xc3\x9f\x65 \xe6\xa8\xa1\", x]"), Contains("at line 1, column 13"));
  CHECK_THAT(ErrorOf("\n\n{\"a\": 1"), Contains("at line 3, column 8"));
  CHECK_THAT(ErrorOf("{\n\"a\": 1,\n\"a\": 2}"), Contains("duplicate key \"a\" at line 3"));
  CHECK_THAT(ErrorOf("[\n1e999]"), Contains("at line 2, column 1"));
}

TEST_CASE("NaN and the infinities are read where a file may hold them unused, and refused where they are used") {
  const std::string text = R"({"a": NaN, "b": [0.0, Infinity, {"c": -Infinity}], "d": 1})";
  CHECK_THAT(ErrorOf(text), Contains("NaN is no number of JSON at line 1, column 7"));
  CHECK_THAT(ErrorOf("[-Infinity]"), Contains("-Infinity is no number of JSON"));
  const absl::StatusOr<Json> json = ParseJson(text, "t", NonFiniteNumbers::kRead);
  REQUIRE(json.ok());
  CHECK(std::isnan((*json)["a"].GetDouble()));
  CHECK((*json)["b"][1].GetDouble() == std::numeric_limits<double>::infinity());
  CHECK((*json)["b"][2]["c"].GetDouble() == -std::numeric_limits<double>::infinity());
  CHECK(*JsonInt(*json, "d", "t") == 1);
  CHECK(JsonDouble(*json, "a", "t").status() == absl::InvalidArgumentError("t: \"a\" is nan, not a finite number"));
  CHECK(JsonDoubleOr((*json)["b"][2], "c", 1, "t").status() ==
        absl::InvalidArgumentError("t: \"c\" is -inf, not a finite number"));
  CHECK(JsonInt(*json, "a", "t").status().code() == absl::StatusCode::kInvalidArgument);
  for (const char* wrong : {"1e999", "nan", "inf", "Inf", "-Inf", "Infinit", "-NaN1", "+Infinity", "Nan", "[-]"}) {
    CAPTURE(wrong);
    CHECK_FALSE(ParseJson(wrong, "t", NonFiniteNumbers::kRead).ok());
  }
}

TEST_CASE("NUL bytes and a byte order mark are named") {
  CHECK_THAT(ErrorOf("{}\0"s), Contains("NUL byte at line 1, column 3"));
  CHECK_THAT(ErrorOf("\xef\xbb\xbf{}"), Contains("byte order mark"));
}

TEST_CASE("Text that is not UTF-8 is refused, in bytes and in escapes") {
  for (const char* text : {"\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xe2\x82\"", "{\"\xff\":1}",
                           "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "{\"\\udfff\":1}"}) {
    CAPTURE(text);
    CHECK(ErrorOf(text) != "accepted");
  }
}

TEST_CASE("Duplicate keys are refused at any depth, after unescaping") {
  CHECK_THAT(ErrorOf(R"({"w":1,"w":2})"), Contains("duplicate key \"w\""));
  CHECK_THAT(ErrorOf(R"({"w":1,"\u0077":2})"), Contains("duplicate key \"w\""));
  CHECK_THAT(ErrorOf(R"([{"a":{"b":1,"c":{"b":2},"b":3}}])"), Contains("duplicate key \"b\""));
  CHECK(ParseJson(R"([{"a":1},{"a":{"a":2}},{"b":1,"a":2}])", "t").ok());
}

TEST_CASE("A million keys are checked for duplicates in a bounded time") {
  std::string text = "{";
  for (int i = 0; i < 1000000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  const std::clock_t start = std::clock();  // processor time: a busy machine must not fail the test
  CHECK(ParseJson(text + "\"last\":0}", "t").ok());
  CHECK_THAT(ErrorOf(text + "\"k0\":0}"), Contains("duplicate key \"k0\""));
  CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 30);
}

TEST_CASE("Nesting is accepted to 64 levels, and no depth overflows a stack") {
  CHECK(ParseJson(std::string(64, '[') + std::string(64, ']'), "t").ok());
  CHECK_THAT(ErrorOf(std::string(65, '[') + std::string(65, ']')), Contains("deeper than 64"));
  CHECK_THAT(ErrorOf(std::string(100000, '[')), Contains("deeper than 64"));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  CHECK_THAT(ErrorOf(objects), Contains("deeper than 64"));
}

TEST_CASE("Numbers keep every bit") {
  const auto number = [](const char* text) { return ParseJson(text, "t")->GetDouble(); };
  CHECK(number("0.1") == 0.1);
  CHECK(number("1e-6") == 1e-6);
  CHECK(number("2.2250738585072014e-308") == std::numeric_limits<double>::min());
  CHECK(number("1.7976931348623157e308") == std::numeric_limits<double>::max());
  CHECK(number("4.9e-324") == std::numeric_limits<double>::denorm_min());
  CHECK(number("9007199254740993.0") == 9007199254740992.0);
  CHECK(number("123456789012345678901234567890") == 123456789012345678901234567890.0);
  CHECK(number("0.30000000000000004") == 0.30000000000000004);
  CHECK(number("1e-400") == 0.0);
  CHECK(ParseJson("9223372036854775807", "t")->GetInt64() == std::numeric_limits<int64_t>::max());
  CHECK(ParseJson("-9223372036854775808", "t")->GetInt64() == std::numeric_limits<int64_t>::min());
  CHECK(ParseJson("18446744073709551615", "t")->GetUint64() == std::numeric_limits<uint64_t>::max());
  CHECK(ErrorOf("1e400") != "accepted");
  CHECK(ErrorOf("[-1e999]") != "accepted");
}

TEST_CASE("Numbers do not depend on the locale") {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  const char* comma = std::setlocale(LC_ALL, "de_DE.UTF-8");
  CHECK(ParseJson("0.5", "t")->GetDouble() == 0.5);
  CHECK(ParseJson("1.5e-6", "t")->GetDouble() == 1.5e-6);
  std::setlocale(LC_ALL, before.c_str());
  if (comma == nullptr) WARN("no de_DE.UTF-8 locale here; checked under the C locale only");
}

TEST_CASE("Typed access gives values, fallbacks and errors with key and types") {
  const absl::StatusOr<Json> json = ParseJson(
      R"({"i": 7, "whole": 4096.0, "half": 0.5, "big": 9223372036854775808, "huge": 1e300,
          "s": "text", "t": true, "n": null, "a": []})",
      "t");
  REQUIRE(json.ok());
  const std::string what = "config.json";
  CHECK(*JsonInt(*json, "i", what) == 7);
  CHECK(*JsonInt(*json, "whole", what) == 4096);
  CHECK(*JsonDouble(*json, "i", what) == 7.0);
  CHECK(*JsonDouble(*json, "half", what) == 0.5);
  CHECK(*JsonBool(*json, "t", what));
  CHECK(*JsonString(*json, "s", what) == "text");

  CHECK(*JsonIntOr(*json, "absent", 3, what) == 3);
  CHECK(*JsonIntOr(*json, "n", 3, what) == 3);
  CHECK(*JsonIntOr(*json, "i", 3, what) == 7);
  CHECK(*JsonDoubleOr(*json, "absent", 2.5, what) == 2.5);
  CHECK(*JsonBoolOr(*json, "n", true, what));
  CHECK(*JsonStringOr(*json, "absent", "x", what) == "x");

  CHECK(JsonInt(*json, "absent", what).status() == absl::NotFoundError("config.json has no \"absent\""));
  CHECK(JsonInt(*json, "n", what).status().code() == absl::StatusCode::kNotFound);
  CHECK(JsonInt(*json, "s", what).status() ==
        absl::InvalidArgumentError("config.json: \"s\" is a string, not an integer"));
  CHECK(JsonIntOr(*json, "s", 3, what).status().code() == absl::StatusCode::kInvalidArgument);
  for (const char* key : {"half", "big", "huge"}) {
    CAPTURE(key);
    CHECK(JsonInt(*json, key, what).status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(JsonBool(*json, "i", what).status() ==
        absl::InvalidArgumentError("config.json: \"i\" is a number, not a boolean"));
  CHECK(JsonString(*json, "a", what).status() ==
        absl::InvalidArgumentError("config.json: \"a\" is an array, not a string"));
  CHECK(JsonFind(*json, "n") == nullptr);
  CHECK(JsonFind((*json)["a"], "x") == nullptr);
  CHECK(JsonFind(*json, "a") != nullptr);
}

}  // namespace
}  // namespace autoscheme
