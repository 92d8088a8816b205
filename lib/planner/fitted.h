// The numbers of the plan that are measured, not derived. "Small runs" are those of test/memory/contract.py, whose
// peaks come to 0.85 to 1 of their plan on two cores, with AVX-512 and without; a "server" is two cores of a present
// one.
#pragma once

#include <cstdint>

namespace autoscheme::fitted {

// Operator tables and code that a first backward pass makes resident; small runs.
inline constexpr uint64_t kRuntimeBytes = 26 << 20;
// Stack and buffers of a thread; small runs with one, two and four.
inline constexpr uint64_t kRuntimeThreadBytes = 3 << 20;
// The library that LibTorch takes products of bfloat16 to, which packs all of an operand; small runs in bfloat16.
inline constexpr uint64_t kBFloat16RuntimeBytes = 12 << 20;
// Quarters of both operands that float32 products keep packed; single products, and TinyLlama-1.1B under 900 MiB.
inline constexpr uint64_t kPackedQuarters = 3;
// Bytes of a large weight above which no more is packed; single products, and Llama-3.1-8B under 2 GB.
inline constexpr uint64_t kMostPacked = 128 << 20;
// Page tables and gaps: of what exceeds a small run, one part in so many; TinyLlama-1.1B and Llama-3.1-8B.
inline constexpr uint64_t kSmallRun = 256 << 20, kRuntimePart = 100;
// Gaps between saved activations of several sizes: of these, one part in so many; small runs without a limit.
inline constexpr uint64_t kSavedPerGap = 32;
// Ten tensors of 16,384 float32 of a thread that differentiates asymmetric integers; other activations need less.
inline constexpr uint64_t kQuantizerScratch = 640 << 10;

// Bytes per second that are copied in memory, into and out of saved inputs; a server.
inline constexpr double kCopyRate = 8e9;
// Tokens of a product that take as long again as their share of a large one; a server.
inline constexpr double kTokensAtHalfSpeed = 48;
// Bytes of a chunk of weights that would double the time of its products; a server.
inline constexpr double kChunkAtHalfSpeed = 0.02 * (1 << 20);
// Share of the reading that computing waits for although the next unit is read meanwhile; a server's cold disk.
inline constexpr double kUnhiddenReading = 0.1;
// Seconds to quantize a weight: by the dearest scheme, and by a search for k-quants; a server.
inline constexpr double kQuantizeSeconds = 4e-10, kSearchSeconds = 2e-8;

}  // namespace autoscheme::fitted
