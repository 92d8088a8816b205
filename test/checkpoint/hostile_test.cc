// The corpus of 107 hostile and odd files, against the verdicts of the reference parser.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "checkpoint/safetensors.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

// What the reference accepts and we refuse, and why.
const std::map<std::string, std::string> kStricter = {
    {"031_dup_tensor_same_range", "two entries of one name: readers differ in which one counts"},
    {"033_dup_escaped_name", "the same, hidden behind an escape"},
    {"036_dup_key_in_metadata", "the format forbids duplicate keys everywhere"},
    {"042_name_nul", "ends a C string early"},
    {"043_name_1MB", "names have at most 1,024 bytes"},
    {"044_name_ansi_escape", "control characters drive terminals"},
    {"048_tensorinfo_as_array", "an accident of the reference's JSON library"},
    {"062_shape_rank_1000_ones", "at most 8 dimensions"},
    {"064_shape_0_then_huge", "each dimension is at most 2^48, also beside a 0"},
    {"103_nested_unknown_field_100", "at most 64 levels"},
    {"105_1.5M_zero_tensors_88MB", "at most 1,000,000 tensors in a file"},
    {"107_rank_40M_80MB", "at most 8 dimensions"},
};

std::string SharedFolder() {
  const char* shared = std::getenv("AUTOSCHEME_SHARED");
  return shared != nullptr && *shared != '\0' ? shared : std::string(AUTOSCHEME_SOURCE_DIR) + "/../shared";
}

// File name -> whether the reference accepts it.
std::map<std::string, bool> ReadOracle(const std::string& path) {
  std::map<std::string, bool> verdicts;
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    const size_t tab = line.find('\t');
    if (tab != std::string::npos) verdicts[line.substr(0, tab)] = line.compare(tab + 1, 6, "ACCEPT") == 0;
  }
  return verdicts;
}

TEST_CASE("The hostile corpus gets the reference's verdict or a stricter one", "[hostile][slow]") {
  const std::string folder = SharedFolder() + "/hostile";
  if (!std::filesystem::exists(folder + "/st_hostile_gen.py")) {
    WARN("skipped: no " << folder << " (set AUTOSCHEME_SHARED)");
    return;
  }
  const TempDir dir;
  REQUIRE(std::system(("python3 '" + folder + "/st_hostile_gen.py' '" + dir.path() + "'").c_str()) == 0);
  const std::map<std::string, bool> oracle = ReadOracle(folder + "/st_reference_oracle.tsv");
  REQUIRE(oracle.size() >= 107);

  std::set<std::string> stricter;
  for (const auto& [name, reference_accepts] : oracle) {
    CAPTURE(name);
    const absl::StatusOr<File> file = File::OpenRead(Io::Posix(), dir / name);
    REQUIRE(file.ok());
    const std::clock_t start = std::clock();  // processor time: a busy machine must not fail the test
    const absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(*file);
    const double elapsed_s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    CHECK(elapsed_s < 20);  // the slowest takes 1.2 s in a release build
    if (header.ok()) {
      CHECK(reference_accepts);
    } else {
      CAPTURE(header.status().ToString());
      CHECK(header.status().message().find('\n') == absl::string_view::npos);
      CHECK(header.status().message().size() < 1000);
      if (reference_accepts) stricter.insert(name);
    }
  }
  std::set<std::string> expected;
  for (const auto& [name, why] : kStricter) expected.insert(name);
  CHECK(stricter == expected);
}

}  // namespace
}  // namespace autoscheme
