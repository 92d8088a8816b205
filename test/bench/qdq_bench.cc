// Quant-dequant of every scheme: weights forward, activations forward and backward, in GB/s of the bytes of the tensor
// that is quantized. The column memcpy_GB/s is the same bytes copied by the same threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "quant/quantizer.h"

namespace autoscheme {
namespace {

constexpr int64_t kRows = 4096, kTokens = 2048, kColumns = 4096;  // rows of a weight; of a batch; columns
constexpr int64_t kSearchRows = 512;                              // the searches are slow

at::Tensor Values(int64_t rows, at::ScalarType dtype) { return at::randn({rows, kColumns}).to(dtype); }

// Bytes per second of the best of some copies of `bytes`.
double MemcpySpeed(int64_t bytes, int threads) {
  static std::map<std::pair<int64_t, int>, double> known;
  double& speed = known[{bytes, threads}];
  if (speed > 0) return speed;
  const at::Tensor from = at::ones({bytes}, at::kByte), to = at::ones({bytes}, at::kByte);
  const char* source = static_cast<const char*>(from.const_data_ptr());
  char* target = static_cast<char*>(to.mutable_data_ptr());
  for (int i = 0; i < 10; ++i) {
    const auto start = std::chrono::steady_clock::now();
    at::parallel_for(0, bytes, 1 << 20, [&](int64_t begin, int64_t end) {
      std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
    });
    benchmark::ClobberMemory();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    speed = std::max(speed, static_cast<double>(bytes) / elapsed.count());
  }
  return speed;
}

void Measure(benchmark::State& state, const at::Tensor& x, const std::function<void()>& work) {
  const auto bytes = static_cast<int64_t>(x.nbytes());
  const double memcpy_speed = MemcpySpeed(bytes, at::get_num_threads());
  work();  // pages of results are touched once before the clock starts
  for (auto _ : state) work();
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(bytes * state.iterations()) * 1e-9, benchmark::Counter::kIsRate);
  state.counters["memcpy_GB/s"] = memcpy_speed * 1e-9;
}

at::ScalarType Begin(const benchmark::State& state) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  return state.range(1) == 32 ? at::kFloat : at::kBFloat16;
}

void Weight(benchmark::State& state, const Scheme& scheme, bool imatrix) {
  const at::Tensor w = Values(imatrix ? kSearchRows : kRows, Begin(state));
  const auto quantizer = MakeWeightQuantizer(scheme, imatrix ? at::rand({kColumns}) + 0.1 : at::Tensor()).value();
  const at::Tensor prepared = quantizer->Prepare(w);
  at::Tensor y = at::empty_like(w);
  Measure(state, w, [&] { quantizer->ForwardInto(w, prepared, y); });
}

void Activation(benchmark::State& state, const Scheme& scheme) {
  const at::Tensor x = Values(kTokens, Begin(state));
  const auto quantizer = MakeActivationQuantizer(scheme).value();
  at::Tensor y = at::empty_like(x);
  Measure(state, x, [&] { quantizer->ForwardInto(x, y); });
}

void ActivationBackward(benchmark::State& state, const Scheme& scheme) {
  const at::ScalarType dtype = Begin(state);
  const at::Tensor x = Values(kTokens, dtype), g = Values(kTokens, dtype);
  const auto quantizer = MakeActivationQuantizer(scheme).value();
  Measure(state, x, [&] { benchmark::DoNotOptimize(quantizer->Backward(x, g)); });
}

void Register(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->ArgNames({"threads", "dtype_bits"})
      ->ArgsProduct({{1, 2}, {32, 16}})
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

void RegisterAll() {
  for (const Scheme& scheme : SchemeCatalogue()) {
    if (scheme.QuantizesWeight()) {
      Register(scheme.name + "/weight", [&scheme](benchmark::State& state) { Weight(state, scheme, false); });
      if (scheme.super_bits.has_value()) {
        Register(scheme.name + "/weight_imatrix", [&scheme](benchmark::State& state) { Weight(state, scheme, true); });
      }
    }
    if (scheme.QuantizesActivation()) {
      Register(scheme.name + "/activation", [&scheme](benchmark::State& state) { Activation(state, scheme); });
      Register(scheme.name + "/activation_backward",
               [&scheme](benchmark::State& state) { ActivationBackward(state, scheme); });
    }
  }
}

}  // namespace
}  // namespace autoscheme

int main(int argc, char** argv) {
  // Gradients are allocated anew by each call. Freed memory stays with the process, so that page faults are not
  // measured.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  autoscheme::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
