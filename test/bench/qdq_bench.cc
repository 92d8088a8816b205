// Quant-dequant of a weight in GB/s of weight bytes read, with memcpy of the same bytes beside it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <cstring>
#include <functional>
#include <string>

#include "quant/quantizer.h"

namespace autoscheme {
namespace {

constexpr int64_t kRows = 2048, kColumns = 4096;

at::ScalarType DtypeOf(const benchmark::State& state) { return state.range(1) == 32 ? at::kFloat : at::kBFloat16; }

void Finish(benchmark::State& state, const at::Tensor& w) {
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(w.nbytes()));
}

// The same bytes, copied by the same threads.
void Memcpy(benchmark::State& state) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  const at::Tensor w = at::randn({kRows, kColumns}).to(DtypeOf(state)), y = at::empty_like(w);
  const auto* from = static_cast<const char*>(w.const_data_ptr());
  auto* to = static_cast<char*>(y.mutable_data_ptr());
  for (auto _ : state) {
    at::parallel_for(0, static_cast<int64_t>(w.nbytes()), 1 << 20, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
    benchmark::ClobberMemory();
  }
  Finish(state, w);
}

void Forward(benchmark::State& state, const Scheme& scheme, bool imatrix) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  // The searches are far slower than the rest; fewer rows keep the run short.
  const at::Tensor w = at::randn({imatrix ? 256 : kRows, kColumns}).to(DtypeOf(state));
  const at::Tensor h = imatrix ? at::rand({kColumns}) + 0.1 : at::Tensor();
  const auto quantizer = MakeWeightQuantizer(scheme, h).value();
  const at::Tensor prepared = quantizer->Prepare(w);
  for (auto _ : state) benchmark::DoNotOptimize(quantizer->Forward(w, prepared));
  Finish(state, w);
}

void Register(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->ArgNames({"threads", "dtype_bits"})
      ->ArgsProduct({{1, 2}, {32, 16}})
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

void RegisterAll() {
  Register("memcpy", Memcpy);
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (!scheme.QuantizesWeight()) continue;
    Register(scheme.name, [&scheme](benchmark::State& state) { Forward(state, scheme, false); });
    if (!scheme.super_bits.has_value()) continue;
    Register(scheme.name + "/imatrix", [&scheme](benchmark::State& state) { Forward(state, scheme, true); });
  }
}

}  // namespace
}  // namespace autoscheme

int main(int argc, char** argv) {
  // Results are allocated anew by each call. Freed memory stays with the process, so that page faults are not measured.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  autoscheme::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
