// What a layer takes in the files that runtimes load, beside the reference's accounting of bits (formats/bits.h).
#ifndef AUTOSCHEME_FORMATS_FILE_BYTES_H_
#define AUTOSCHEME_FORMATS_FILE_BYTES_H_

#include <cstdint>

#include "autoscheme/scheme.h"

namespace autoscheme {

// Bytes of a weight [out_features, in_features] with all that is stored beside it, without padding or headers of files:
//   GGUF types            whole blocks of each row, at the sizes that ggml gives them
//   integer               packed values; a float16 scale for each group; a packed zero point for each group where only the
//                         weight is quantized (that format stores it for symmetric schemes too) or the scheme is asymmetric
//   MXFP, MXINT           packed elements; a byte for each group's exponent
//   NVFP4                 packed elements; a byte for each group's scale; a float32 for the tensor
//   FP8                   a byte for each element; a float32 scale for each tile, row or tensor
//   16 and 32 bits        as they are
int64_t FileBytes(const Scheme& scheme, int64_t out_features, int64_t in_features);

}  // namespace autoscheme

#endif  // AUTOSCHEME_FORMATS_FILE_BYTES_H_
