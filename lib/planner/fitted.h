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
// Float64 temporaries of a thread that compares a chunk of logits (row_chunks.h).
inline constexpr uint64_t kEvalChunkScratch = 5 << 18;

// ---- A run on a GPU. None of these was measured on one yet: they are assumptions, named in docs/cuda.md. ----
// What products take as scratch: the plugin's workspace, and LibTorch's own.
inline constexpr uint64_t kDeviceWorkspaceBytes = uint64_t{96} << 20;
// Numbers that an operator works on at once, and how many tensors of so many it needs; what its allocator rounds up.
inline constexpr uint64_t kDeviceChunkNumbers = uint64_t{1} << 22, kDeviceTemporaries = 8;
inline constexpr uint64_t kDeviceRounding = uint64_t{64} << 20;
// Gaps in a pool that cannot grow: one part in so many.
inline constexpr uint64_t kDevicePoolPerGap = 16;
// Host memory that LibTorch's GPU libraries and the driver take: while they are loaded, and later on.
inline constexpr uint64_t kDeviceHostBytes = uint64_t{560} << 20, kDeviceLaterHostBytes = uint64_t{64} << 20;
// Products per second in float32, and with factors rounded to TF32 or bfloat16; bytes per second up and down; an H100.
inline constexpr double kDeviceFlops = 4.5e13, kDeviceRoundedFlops = 3e14, kDeviceLinkRate = 2.5e10;
// Tokens of a product that take as long again as their share of a large one.
inline constexpr double kDeviceTokensAtHalfSpeed = 512;
// Share of the budget that a host names none takes of what is free.
inline constexpr double kDeviceShare = 0.9;

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
