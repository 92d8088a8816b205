#include "plan/precision.h"

#include <catch2/catch.hpp>
#include <string>

namespace autoscheme {
namespace {

TEST_CASE("each precision computes and differentiates in its own formats") {
  struct Row {
    const char *option, *name;
    bool hardware;
    uint64_t element_bytes, operand_bytes;
    bool rounds, widens;
  };
  for (const Row& row :
       {Row{"float32", "float32", true, 4, 4, false, false}, Row{"bfloat16", "bfloat16", true, 2, 2, false, false},
        Row{"bfloat16", "bfloat16", false, 2, 2, false, true}, Row{"mixed", "mixed", true, 4, 2, true, false},
        Row{"mixed", "mixed", false, 4, 2, true, true}, Row{"auto", "mixed", true, 4, 2, true, false},
        Row{"auto", "float32", false, 4, 4, false, false}}) {
    INFO(row.option << ", hardware " << row.hardware);
    const Precision precision = ParsePrecision(row.option, {false, row.hardware}).value();
    CHECK(precision.name == row.name);
    CHECK(precision.element_bytes() == row.element_bytes);
    CHECK(precision.operand_bytes() == row.operand_bytes);
    CHECK(precision.rounds_operands() == row.rounds);
    CHECK(precision.widens_operands() == row.widens);
  }
}

TEST_CASE("a GPU computes in tf32 unless it is told otherwise, and a processor never does") {
  for (const char* option : {"default", "auto", "tf32"}) {
    const Precision precision = ParsePrecision(option, {true, false}).value();
    CHECK(precision.name == "tf32");
    CHECK(precision.tf32_gradients);
    CHECK_FALSE(precision.rounds_operands());  // the device rounds them as it multiplies
  }
  CHECK_FALSE(ParsePrecision("float32", {true, false})->tf32_gradients);
  CHECK_FALSE(ParsePrecision("bfloat16", {true, false})->widens_operands());
  CHECK(ParsePrecision("default", {false, true})->name == "float32");
  const absl::Status status = ParsePrecision("tf32", {false, true}).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Catch::Contains("GPU") && Catch::Contains("give float32"));
}

TEST_CASE("an unknown precision is refused with the names that there are") {
  const absl::Status status = ParsePrecision("float64", {false, true}).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(status.message()) ==
        "option dtype is \"float64\"; known: default, float32, tf32, bfloat16, mixed, auto");
}

}  // namespace
}  // namespace autoscheme
