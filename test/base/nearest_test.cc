#include "base/nearest.h"

#include <catch2/catch.hpp>

namespace autoscheme {
namespace {

TEST_CASE("names that differ least come first, quoted, at most so many") {
  const std::vector<std::string> known = {"q_proj", "k_proj", "up_proj", "lm_head"};
  CHECK(Nearest("kproj", known, 1) == "\"k_proj\"");
  CHECK(Nearest("UP_PROJ", known, 2) == "\"up_proj\", \"q_proj\"");
  CHECK(Nearest("head", known, 1) == "\"lm_head\"");
  CHECK(Nearest("q_porj", known, 9) == "\"q_proj\", \"k_proj\", \"up_proj\", \"lm_head\"");
  CHECK(Nearest("", known, 1) == "\"q_proj\"");
  CHECK(Nearest("x", {}) == "");
  CHECK(Nearest(std::string(100000, 'x'), known, 1) == "\"q_proj\"");
}

}  // namespace
}  // namespace autoscheme
