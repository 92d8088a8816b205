// What the machine can do at best: the matrix products of scoring a model, each run alone at the same shape, type and
// thread count, and the disk. (bfloat16 as the library multiplies it: see tensor/products.h.)
//
//   autoscheme_roofline MODEL [--tokens 16x256] [--batch-size 8] [--dtype float32] [--threads N] [--json]
//
// For every linear layer the output X W^T, the gradient of the input G W and of the weight G^T X; for the head the
// first two. "8 FLOP": the output is computed twice, forward and again for the gradient (8 per parameter and token); "6
// FLOP": once, activations kept. Seconds are of one scheme over all tokens.
//
// Each product is timed twice: on the same matrices again and again, which then lie in the processor's cache as far as
// they fit it, and on as many sets of matrices in turn as make a GiB, as a model's layers come: "of matrices from
// memory".
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "checkpoint/checkpoint.h"
#include "tensor/products.h"

namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Flags {
  std::string model, dtype = "float32";
  int64_t rows = 16, length = 256, batch_size = 8;
  int threads = 0;
  bool json = false;
};

// Seconds of one product of a batch.
struct Products {
  double output = 0, input_gradient = 0, weight_gradient = 0;
};

// One layer's matrices.
struct Matrices {
  Matrices(int64_t tokens, int64_t out, int64_t in, at::ScalarType dtype, bool head)
      : x(at::randn({tokens, in}).to(dtype)),
        w(at::randn({out, in}).to(dtype)),
        g(at::randn({tokens, out}).to(dtype)),
        y(at::zeros({tokens, out}, dtype)),
        dx(at::zeros({tokens, in}, dtype)),
        dw(at::zeros({head ? 0 : out, in}, dtype)) {}
  at::Tensor x, w, g, y, dx, dw;
  int64_t bytes() const { return static_cast<int64_t>(x.nbytes() + w.nbytes() + y.nbytes()); }  // moved by one product
};

// The median of at least three runs and half a second, after one of each set.
template <typename Product>
double Time(std::vector<Matrices>& sets, const Product& product) {
  for (Matrices& m : sets) product(m);
  std::vector<double> seconds;
  const Clock::time_point all = Clock::now();
  while (seconds.size() < 3 || (SecondsSince(all) < 0.5 && seconds.size() < 1000)) {
    Matrices& m = sets[seconds.size() % sets.size()];
    const Clock::time_point start = Clock::now();
    product(m);
    seconds.push_back(SecondsSince(start));
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

Products Measure(std::vector<Matrices>& sets, bool head) {
  Products seconds;
  seconds.output = Time(sets, [](Matrices& m) { autoscheme::Multiply(m.y, m.x, m.w.t()); });
  seconds.input_gradient = Time(sets, [](Matrices& m) { autoscheme::Multiply(m.dx, m.g, m.w); });
  if (!head) seconds.weight_gradient = Time(sets, [](Matrices& m) { autoscheme::Multiply(m.dw, m.g.t(), m.x); });
  return seconds;
}

// Bytes per second of one sequential reader past the page cache; 0 where the file system does not allow that.
double DiskRate(const std::string& path) {
  constexpr size_t kPiece = size_t{8} << 20;
  const int file = open(path.c_str(), O_RDONLY | O_DIRECT);
  if (file < 0) return 0;
  void* memory = nullptr;
  double rate = 0;
  if (posix_memalign(&memory, 4096, kPiece) == 0) {
    off_t done = 0;
    const Clock::time_point start = Clock::now();
    while (done < off_t{1} << 30) {
      const ssize_t got = pread(file, memory, kPiece, done);
      if (got <= 0) break;
      done += got;
      if (static_cast<size_t>(got) < kPiece) break;
    }
    rate = static_cast<double>(done) / SecondsSince(start);
    free(memory);
  }
  close(file);
  return rate;
}

bool Parse(int argc, char** argv, Flags* flags) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json") {
      flags->json = true;
    } else if (word.rfind("--", 0) != 0 && flags->model.empty()) {
      flags->model = word;
    } else if (i + 1 == argc) {
      return false;
    } else if (word == "--tokens") {
      if (std::sscanf(argv[++i], "%ldx%ld", &flags->rows, &flags->length) != 2) return false;
    } else if (word == "--batch-size") {
      flags->batch_size = std::atol(argv[++i]);
    } else if (word == "--threads") {
      flags->threads = std::atoi(argv[++i]);
    } else if (word == "--dtype") {
      flags->dtype = argv[++i];
    } else {
      return false;
    }
  }
  return !flags->model.empty() && flags->rows > 0 && flags->length > 0 && flags->batch_size > 0 &&
         (flags->dtype == "float32" || flags->dtype == "bfloat16");
}

int Run(const Flags& flags) {
  at::NoGradGuard no_grad;
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const auto skeleton = autoscheme::MetaSkeleton::Open({}, flags.model);
  if (!skeleton.ok()) {
    std::fprintf(stderr, "%s\n", skeleton.status().ToString().c_str());
    return 1;
  }
  const at::ScalarType dtype = flags.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  const int64_t batch_tokens = std::min(flags.rows, flags.batch_size) * flags.length;
  const double batches = static_cast<double>(flags.rows * flags.length) / static_cast<double>(batch_tokens);

  std::map<std::pair<int64_t, int64_t>, int> shapes;  // those of the blocks' linears, with how often they occur
  for (const autoscheme::Block& block : (*skeleton)->blocks()) {
    for (const autoscheme::LinearLayer& linear : block.linears) ++shapes[{linear.out_features, linear.in_features}];
  }
  const autoscheme::LinearLayer& head = (*skeleton)->head();

  // The same matrices again and again, and others in turn.
  struct Sums {
    double eight_s = 0, six_s = 0, head_s = 0;
  } cached, uncached;
  double eight_flops = 0, six_flops = 0;
  std::string lines;
  const auto add = [&](Sums& sums, const Products& seconds, double times, bool head) {
    const double both = times * (seconds.output + seconds.input_gradient);
    if (head) sums.head_s += both;
    sums.six_s += both + (head ? 0 : times * seconds.weight_gradient);
    sums.eight_s += both + (head ? 0 : times * (seconds.output + seconds.weight_gradient));
  };
  const auto measure = [&](int64_t out, int64_t in, int count, bool head) {
    const double times = count * batches;
    const double flops = 2.0 * static_cast<double>(batch_tokens) * static_cast<double>(out) * static_cast<double>(in);
    std::vector<Matrices> sets;
    sets.emplace_back(batch_tokens, out, in, dtype, head);
    const Products seconds = Measure(sets, head);
    add(cached, seconds, times, head);
    for (int64_t bytes = sets[0].bytes(), all = bytes; all < int64_t{1} << 30; all += bytes)
      sets.emplace_back(batch_tokens, out, in, dtype, head);
    add(uncached, sets.size() == 1 ? seconds : Measure(sets, head), times, head);
    six_flops += (head ? 2 : 3) * times * flops, eight_flops += (head ? 2 : 4) * times * flops;
    char line[200];
    std::snprintf(line, sizeof(line),
                  "%6ld x %-6ld %5d layers   GFLOP/s: output %6.0f   input gradient %6.0f   weight gradient %6.0f\n",
                  out, in, count, flops / seconds.output / 1e9, flops / seconds.input_gradient / 1e9,
                  flops / seconds.weight_gradient / 1e9);
    if (!head) lines += line;
  };
  for (const auto& [shape, count] : shapes) measure(shape.first, shape.second, count, false);
  measure(head.out_features, head.in_features, 1, true);
  const autoscheme::Checkpoint& checkpoint = (*skeleton)->checkpoint();
  const double disk = DiskRate(checkpoint.directory() + "/" + checkpoint.shards()[0].name);

  if (flags.json) {
    std::printf(
        "{\"dtype\": \"%s\", \"threads\": %d, \"tokens\": %ld, \"batch_tokens\": %ld, \"seconds_8_flop\": %.4g, "
        "\"seconds_6_flop\": %.4g, "
        "\"seconds_head\": %.4g, \"uncached_seconds_8_flop\": %.4g, \"uncached_seconds_6_flop\": %.4g, \"flops_8\": "
        "%.6g, \"flops_6\": %.6g, "
        "\"gflops_per_s\": %.4g, \"disk_bytes_per_s\": %.4g}\n",
        flags.dtype.c_str(), at::get_num_threads(), flags.rows * flags.length, batch_tokens, cached.eight_s,
        cached.six_s, cached.head_s, uncached.eight_s, uncached.six_s, eight_flops, six_flops,
        eight_flops / cached.eight_s / 1e9, disk);
    return 0;
  }
  std::printf("%s: %ld tokens in batches of %ld, %s, %d threads\n%s", flags.model.c_str(), flags.rows * flags.length,
              batch_tokens, flags.dtype.c_str(), at::get_num_threads(), lines.c_str());
  std::printf("head %ld x %ld: %.2f s\n", head.out_features, head.in_features, cached.head_s);
  std::printf("8 FLOP, head included: %.2f s for %.2f TFLOP, %.0f GFLOP/s; of matrices from memory: %.2f s\n",
              cached.eight_s, eight_flops / 1e12, eight_flops / cached.eight_s / 1e9, uncached.eight_s);
  std::printf("6 FLOP, head included: %.2f s for %.2f TFLOP; of matrices from memory: %.2f s\n", cached.six_s,
              six_flops / 1e12, uncached.six_s);
  std::printf("disk, one reader with O_DIRECT: %.2f GB/s\n", disk / 1e9);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  if (!Parse(argc, argv, &flags)) {
    std::fprintf(
        stderr,
        "usage: %s MODEL [--tokens 16x256] [--batch-size 8] [--dtype float32|bfloat16] [--threads N] [--json]\n",
        argv[0]);
    return 2;
  }
  return Run(flags);
}
