#include "job.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "output_file.h"

namespace cli {
namespace {

// How much of the ids is used; 0: all there are.
struct Part {
  int64_t rows = 0, length = 0, tokens = 0;
};

absl::StatusOr<Part> ReadPart(const Session& session) {
  const absl::StatusOr<int64_t> rows = session.flags.GetCount("nsamples");
  if (!rows.ok()) return rows.status();
  const absl::StatusOr<int64_t> length = session.flags.GetCount("seqlen");
  if (!length.ok()) return length.status();
  const absl::StatusOr<int64_t> tokens = session.flags.GetCount("max-tokens");
  if (!tokens.ok()) return tokens.status();
  return Part{*rows, *length, *tokens};
}

// For a plan that is made before there are ids: as many as the flags say, a row of the embedding for each.
absl::StatusOr<CalibrationHandle> SupposeCalibration(const Part& part, const autoscheme_skeleton* model) {
  constexpr int64_t kRows = 16, kLength = 256, kMost = int64_t{1} << 26;
  auto info = Struct<autoscheme_skeleton_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_info(model, &info, error); }));
  const int64_t usual = info.max_positions > 0 ? std::min(kLength, info.max_positions) : kLength;
  const int64_t seqlen = part.length > 0 ? part.length : usual;
  const int64_t most = part.tokens > 0 ? part.tokens / seqlen : kRows;
  const int64_t nsamples = part.rows > 0 && (part.tokens == 0 || part.rows < most) ? part.rows : most;
  if (nsamples == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-tokens ", part.tokens, " holds no row of ", seqlen, " ids; give a smaller --seqlen"));
  }
  if (nsamples > kMost / seqlen) {
    return absl::InvalidArgumentError(absl::StrCat("--nsamples ", nsamples, " times --seqlen ", seqlen,
                                                   " is more than ", kMost, " ids, the most that is planned for"));
  }
  std::vector<int32_t> ids(nsamples * seqlen);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(static_cast<int64_t>(i) % info.vocab_size);
  CalibrationHandle supposed;
  CLI_RETURN_IF_ERROR(Make(supposed, [&](autoscheme_calibration** out, autoscheme_error** error) {
    return autoscheme_calibration_from_i32(ids.data(), nsamples, seqlen, out, error);
  }));
  return supposed;
}

absl::StatusOr<CalibrationHandle> LoadCalibration(const Session& session, const autoscheme_skeleton* model) {
  const absl::StatusOr<Part> part = ReadPart(session);
  if (!part.ok()) return part.status();
  const std::string path = session.flags.Get("tokens");
  if (path.empty()) return SupposeCalibration(*part, model);  // only plan does without
  CalibrationHandle used;
  CLI_RETURN_IF_ERROR(Make(used, [&](autoscheme_calibration** out, autoscheme_error** error) {
    return autoscheme_calibration_load_part(session.context.get(), path.c_str(), part->rows, part->length, part->tokens,
                                            out, error);
  }));
  return used;
}

}  // namespace

std::vector<std::string> RecipeFiles(const Flags& flags) {
  return absl::StrSplit(flags.Get("recipes"), ',', absl::SkipWhitespace());
}

std::vector<std::string> Inputs(const Session& session, const autoscheme_skeleton* model) {
  std::vector<std::string> inputs;
  for (int64_t i = 0; i < autoscheme_skeleton_file_count(model); ++i)
    inputs.push_back(autoscheme_skeleton_file_at(model, i));
  for (const char* flag : {"tokens", "verify-tokens", "scores", "schemes", "layer-config", "imatrix", "aliases"})
    inputs.push_back(session.flags.Get(flag));
  for (const std::string& recipes : RecipeFiles(session.flags)) inputs.push_back(recipes);
  return inputs;
}

absl::StatusOr<Job> PrepareJob(const Session& session, const std::vector<std::string>& outputs) {
  Job job;
  CLI_RETURN_IF_ERROR(Make(job.skeleton, [&](autoscheme_skeleton** out, autoscheme_error** error) {
    return autoscheme_skeleton_open(session.context.get(), session.flags.Get("model").c_str(), out, error);
  }));
  CLI_RETURN_IF_ERROR(CheckOutputs(session.context.get(), outputs, Inputs(session, job.skeleton.get())));
  absl::StatusOr<CalibrationHandle> calibration = LoadCalibration(session, job.skeleton.get());
  if (!calibration.ok()) return calibration.status();
  job.calibration = *std::move(calibration);
  // The number that a person gives is what the system shows for this process, not what the library itself holds.
  CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
    return autoscheme_options_set_i64(session.options.get(), AUTOSCHEME_OPTION_PROCESS_BUDGET, 1, error);
  }));
  // The threads are this program's own, too.
  if (!session.flags.Has("threads")) {
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_options_set_i64(session.options.get(), AUTOSCHEME_OPTION_THREADS, -1, error);
    }));
  }
  return job;
}

uint64_t MaxRam(const Session& session) {
  int64_t bytes = 0;
  const absl::Status status = Call([&](autoscheme_error** error) {
    return autoscheme_options_get_i64(session.options.get(), AUTOSCHEME_OPTION_MAX_RAM_BYTES, &bytes, error);
  });
  return status.ok() && bytes > 0 ? static_cast<uint64_t>(bytes) : 0;
}

bool Prints(const Session& session, const std::vector<std::string>& outputs) {
  return !session.flags.Has("quiet") && !AnyIsStdout(outputs);
}

}  // namespace cli
