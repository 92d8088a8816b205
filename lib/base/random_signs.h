// Random signs that are found by place: whoever asks for a part of a matrix of them, in any order, gets the same.
#pragma once

#include <cstdint>

namespace autoscheme {

// out[c] = 1 or -1 for columns first .. first + count of a row, by the halves of chance. Any thread.
void RandomSigns(uint64_t row, int64_t first, int64_t count, float* out);

}  // namespace autoscheme
