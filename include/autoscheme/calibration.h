// The token ids that scoring runs on.
#ifndef AUTOSCHEME_CALIBRATION_H_
#define AUTOSCHEME_CALIBRATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/context.h"

namespace autoscheme {

// nsamples rows of seqlen ids, row-major. Used in file order, batch_size rows at a time, no padding, labels = ids.
struct Calibration {
  int64_t nsamples = 0;
  int64_t seqlen = 0;
  std::vector<int32_t> ids;
  // Where these rows are a part of a larger calibration: the row of that which is the first here. Random directions
  // are found by it, so that parts scored apart are as parts of one run.
  int64_t first_row = 0;
};

// The first rows of a file and the first ids of each; 0 stands for all.
struct CalibrationPart {
  int64_t nsamples = 0;
  int64_t seqlen = 0;
  int64_t max_tokens = 0;  // no more rows than so many ids make
};

// Reads .json (a list of equally long lists; an object whose "input_ids" is one; a list of objects with "input_ids"),
// .npy (int32/int64, 2-D, C order) or .safetensors ("input_ids", I32/I64, 2-D); told apart by content, not by name. A
// mask, labels and positions beside the ids must say that every token counts and is its own label; what else is there
// is warned of. Where only a part is read, what stands beside the rest is not looked at. Errors: NOT_FOUND;
// INVALID_ARGUMENT with the row for ragged, empty, negative or over-large ids, for padding and for labels that differ,
// and for fewer rows or ids than `part` asks for; UNIMPLEMENTED for files of other kinds, DATA_LOSS for broken ones:
// the message says what the file is.
absl::StatusOr<Calibration> ReadCalibration(const Context& context, const std::string& path,
                                            const CalibrationPart& part = {});

// Keeps the first nsamples rows and the first seqlen ids of each; 0 keeps all. INVALID_ARGUMENT if there are fewer.
absl::StatusOr<Calibration> Truncate(Calibration calibration, int64_t nsamples, int64_t seqlen);

// Takes the last `rows` rows away and gives them: what is measured on them was chosen without them. 0: a quarter of
// all, at least one. INVALID_ARGUMENT if no row would stay.
absl::StatusOr<Calibration> HoldBack(Calibration& calibration, int64_t rows = 0);

// Lower-case hex of sha256 over the ids as int64 little-endian, row-major.
std::string Sha256(const Calibration& calibration);

}  // namespace autoscheme

#endif  // AUTOSCHEME_CALIBRATION_H_
