// kernel_bits: a plugin's kernels against the processor's loops, over every format of the catalogue.
//
// usage: kernel_bits PLUGIN [--quick]     --quick: small tensors only, for a run under compute-sanitizer
//
// Forward must agree to the bit (a NaN with any NaN), k-quants and amax too; gradients to 1e-6 of their row's largest;
// the fold's sums to 1e-12. Prints what differs on stderr, and on stdout one `name value` on each line. Exit status 0
// when all agree.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/scheme.h"
#include "device/device.h"
#include "formats/data_types.h"
#include "gpu/plugin.h"
#include "quant/codec.h"
#include "quant/device_quant_api.h"
#include "quant/fused.h"

namespace autoscheme {
namespace {

constexpr double kBackwardTolerance = 1e-6, kFoldTolerance = 1e-12;

void Must(const absl::Status& status) {
  if (!status.ok()) Fail(std::string(status.message()));
}

template <typename T>
T Must(absl::StatusOr<T> result) {
  Must(result.status());
  return *std::move(result);
}

Number NumberOf(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat ? Number::kF32 : t.scalar_type() == at::kHalf ? Number::kF16 : Number::kBF16;
}

const char* Name(at::ScalarType type) {
  return type == at::kFloat ? "float32" : type == at::kHalf ? "float16" : "bfloat16";
}

// What the device has of a tensor of the host, or room for one.
class There {
 public:
  There(const Device& device, const at::Tensor& t, bool copied = true) : device_(device), like_(t) {
    memory_ =
        Must(DeviceMemory::Allocate(device, DeviceMemory::Kind::kDevice, std::max<uint64_t>(bytes(), 1), "a test"));
    if (!copied) return;
    Must(device.Check(
        device.api().copy_up(device.handle(), DeviceStream::kCompute, memory_.data(), t.const_data_ptr(), bytes()),
        "copying up"));
    Must(device.Synchronize(DeviceStream::kCompute));
  }
  void* data() const { return memory_.data(); }
  at::Tensor Down() const {
    at::Tensor t = at::empty_like(like_);
    Must(device_.Check(device_.api().copy_down(device_.handle(), DeviceStream::kCompute, t.mutable_data_ptr(),
                                               memory_.data(), bytes()),
                       "copying down"));
    Must(device_.Synchronize(DeviceStream::kCompute));
    return t;
  }

 private:
  uint64_t bytes() const { return like_.numel() * like_.element_size(); }
  const Device& device_;
  at::Tensor like_;
  DeviceMemory memory_;
};

// Rows of what weights look like in turn with rows of all magnitudes, zeros of both signs and the ends of the range.
at::Tensor Values(int64_t rows, int64_t width, unsigned seed) {
  at::manual_seed(seed);
  at::Tensor x = at::randn({rows, width}) * 0.02;
  std::mt19937 random(seed);
  const float odd[] = {0.0f, -0.0f, 1e-45f, -1e-40f, 1.1754944e-38f, 65504.0f, -2e6f, 0.5f, 1.5f, 2.5f, 3.0e38f};
  auto* data = x.mutable_data_ptr<float>();
  for (int64_t row = 1; row < rows; row += 2) {
    for (int64_t i = row * width; i < (row + 1) * width; ++i) {
      const unsigned kind = random() % 64;
      if (kind < 2) data[i] = odd[random() % 11];
      if (kind == 2) data[i] = std::ldexp(data[i], static_cast<int>(random() % 280) - 150);
      if (kind == 3) data[i] = data[row * width];  // a second holder of a magnitude
    }
  }
  return x;
}

// Elements whose bits differ; where both are NaN their bits do not count.
int64_t Differences(const at::Tensor& a, const at::Tensor& b, const std::string& what) {
  const at::Tensor bits_a = a.view(a.element_size() == 4 ? at::kInt : at::kShort),
                   bits_b = b.view(bits_a.scalar_type());
  const at::Tensor differ = bits_a.ne(bits_b).logical_and(a.isnan().logical_and(b.isnan()).logical_not());
  const int64_t count = differ.sum().item<int64_t>();
  if (count > 0) {
    const auto first = differ.flatten().to(at::kByte).argmax().item<int64_t>();
    std::fprintf(stderr, "%s: %lld of %lld differ, the first at %lld: the processor has %.9g, the device %.9g\n",
                 what.c_str(), static_cast<long long>(count), static_cast<long long>(a.numel()),
                 static_cast<long long>(first), a.flatten()[first].item<double>(), b.flatten()[first].item<double>());
  }
  return count;
}

struct Totals {
  int64_t forward_elements = 0, forward_differences = 0, k_quant_elements = 0, k_quant_differences = 0, faults = 0;
  double backward_worst = 0, fold_worst = 0;
};

class Comparison {
 public:
  Comparison(const Device& device, bool quick) : device_(device), quick_(quick), quant_(*device.api().quant) {}

  Totals Run() {
    for (const Scheme& scheme : SchemeCatalogue()) {
      if (scheme.QuantizesWeight()) {
        TakeSide({true, TypeOf(scheme), scheme.bits, scheme.group, scheme.sym, scheme.act_bits.value_or(16)},
                 scheme.name);
      }
      if (!scheme.QuantizesActivation()) continue;
      const int bits = *scheme.act_bits;
      TakeSide({false, FindDataType(scheme.act_data_type.value_or(scheme.data_type), bits), bits,
                scheme.act_group.value_or(scheme.group), scheme.act_sym.value_or(scheme.sym), bits},
               scheme.name + "'s activations");
    }
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) Sums(type);
    return totals_;
  }

 private:
  void TakeSide(const Side& side, const std::string& name) {
    const std::unique_ptr<GroupCodec> codec = MakeCodec(side);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      if (const auto format = codec->FusedKQuant(dtype)) {
        if (IsNew(KeyOf(*format))) KQuants(*format, name);
      } else if (const auto format = codec->FusedForward(dtype);
                 format.has_value() && IsNew(KeyOf(*format, side.group))) {
        Groups(*format, codec->FusedBackward(dtype), side, !codec->backward_needs_whole_tensor(), dtype, name);
      }
    }
  }

  // Schemes share formats; each is compared once.
  bool IsNew(const std::string& key) { return seen_.insert(key).second; }
  static std::string KeyOf(const cpu::KFormat& f) {
    return absl::StrCat("k", f.bits, " ", f.group, " ", f.groups, " ", f.scale_bits, " ", f.sym, " ", f.narrow_range);
  }
  static std::string KeyOf(const cpu::Format& f, const GroupSize& group) {
    return absl::StrCat(f.family, " ", f.levels, " ", f.scale_type, " ", f.least_scale, " ", f.float_zero_point, " ",
                        f.binades, " ", f.log2_steps, " ", f.least_exponent, " ", f.top, " ", f.max_exponent, " ",
                        f.ceil_scale, " ", f.narrow) +
           absl::StrCat(" ", group.size, "x", group.rows);
  }

  std::vector<std::pair<int64_t, int64_t>> Shapes() const {
    std::vector<std::pair<int64_t, int64_t>> shapes = {{67, 1000}, {9, 24}};
    if (!quick_) shapes.insert(shapes.end(), {{130, 512}, {2048, 2048}});
    return shapes;
  }

  void Groups(const cpu::Format& format, const std::optional<cpu::Format>& backward, const Side& side,
              bool constant_whole, at::ScalarType dtype, const std::string& name) {
    const bool needs_whole = NeedsWholeTensor(*side.type, side.group);
    const bool fused = format.family == cpu::Family::kFp8 || (side.group.size != 0 && side.group.rows == 0);
    if (!fused) return;  // no loop of the processor's takes such groups
    for (const auto& [rows, width] : Shapes()) {
      at::Tensor& values = values_[{rows, width}];
      if (!values.defined()) values = Values(rows, width, 1);
      const DeviceGroups groups = GroupsOf(side.group.size, side.group.rows, rows * width, width);
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const at::Tensor x = values.clamp(-6e4, 6e4).to(type);
        const at::Tensor whole = at::full({1}, needs_whole ? Amax(x).item<float>() : 0.0f);
        const There there(device_, x), whole_there(device_, whole);
        const auto* whole_data = needs_whole ? static_cast<const float*>(whole_there.data()) : nullptr;
        for (const at::ScalarType out : {at::kFloat, at::kBFloat16}) {
          const std::string what =
              absl::StrCat(name, " (", Name(dtype), "), ", rows, " x ", width, ", ", Name(type), " to ", Name(out));
          at::Tensor want = at::empty_like(x, x.options().dtype(out));
          FusedForward(format, side.group, x, whole, want);
          const There got(device_, want, false);
          Must(device_.Check(quant_.forward(device_.handle(), &format, &groups, there.data(), NumberOf(x), whole_data,
                                            got.data(), NumberOf(want)),
                             what));
          totals_.forward_elements += x.numel();
          totals_.forward_differences += Differences(want, got.Down(), what);
        }
        if (!backward.has_value() || side.group.rows > 0 || type != dtype) continue;
        Backward(*backward, side.group, groups, x, there, whole, whole_data, constant_whole, name);
      }
    }
  }

  void Backward(const cpu::Format& format, const GroupSize& group, const DeviceGroups& groups, const at::Tensor& x,
                const There& there, const at::Tensor& whole, const float* whole_data, bool constant_whole,
                const std::string& name) {
    const std::string what =
        absl::StrCat(name, "'s gradient, ", x.size(0), " x ", x.size(1), ", ", Name(x.scalar_type()));
    at::manual_seed(3);
    const at::Tensor grad = at::randn(x.sizes()).to(x.scalar_type());
    at::Tensor want = at::empty_like(x);
    FusedBackward(format, group, x, grad, whole, constant_whole, want);
    const There grad_there(device_, grad), got_there(device_, want, false);
    Must(device_.Check(quant_.backward(device_.handle(), &format, &groups, there.data(), NumberOf(x), grad_there.data(),
                                       whole_data, constant_whole ? 1 : 0, got_there.data(), NumberOf(x)),
                       what));
    const at::Tensor a = want.to(at::kDouble), b = got_there.Down().to(at::kDouble);
    // In bfloat16 a sum's last bit may round to the neighbouring number.
    const double unit = x.scalar_type() == at::kFloat ? 1 : kBackwardTolerance / 0x1p-7;
    const at::Tensor largest = a.abs().nan_to_num(0, 0, 0).amax(1, true).clamp_min(1e-300);
    const at::Tensor same = a.eq(b).logical_or(a.isnan().logical_and(b.isnan()));
    const auto worst = ((a - b).abs() / largest * unit).masked_fill(same, 0).nan_to_num(INFINITY).max().item<double>();
    if (!(worst <= kBackwardTolerance))
      std::fprintf(stderr, "%s: differs by %.3g of the row's largest\n", what.c_str(), worst);
    totals_.backward_worst = std::max(totals_.backward_worst, worst);
  }

  void KQuants(const cpu::KFormat& format, const std::string& name) {
    const int64_t rows = quick_ ? 6 : 200, width = 2048;
    const at::Tensor values = (Values(rows, width, 4)).clamp(-6e4, 6e4);
    const at::Tensor importance = at::rand({width}) * 3 + 1e-3;
    const There importance_there(device_, importance), overflowed(device_, at::zeros({1}, at::kInt));
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x = values.to(type);
      const There there(device_, x);
      for (const bool weighed : {false, true}) {
        const std::string what = absl::StrCat(name, weighed ? " with importance, " : ", ", Name(type));
        at::Tensor want = at::empty_like(x);
        const bool finite = FusedKQuant(format, x, weighed ? importance : at::Tensor(), want);
        const There got(device_, want, false);
        Must(device_.Check(
            quant_.k_quant(device_.handle(), &format, x.numel() / format.group, there.data(), NumberOf(x),
                           weighed ? static_cast<const float*>(importance_there.data()) : nullptr, width / format.group,
                           got.data(), NumberOf(want), static_cast<int32_t*>(overflowed.data())),
            what));
        totals_.k_quant_elements += x.numel();
        totals_.k_quant_differences += Differences(want, got.Down(), what);
        Expect(finite && overflowed.Down().item<int>() == 0, what + ": a result is not finite");
      }
    }
  }

  // The fold, the largest magnitude, and what is not finite.
  void Sums(at::ScalarType type) {
    const int64_t rows = quick_ ? 33 : 2048, width = 2048;
    at::manual_seed(5);
    const at::Tensor grad = at::randn({rows, width}).to(type), w = at::randn({rows, width}).to(type),
                     wq = at::randn({rows, width});
    const There grad_there(device_, grad), w_there(device_, w), wq_there(device_, wq),
        sum(device_, at::full({1}, 0.5, at::kDouble));
    Must(device_.Check(
        device_.api().add_abs_products(device_.handle(), grad_there.data(), NumberOf(grad), w_there.data(), NumberOf(w),
                                       wq_there.data(), Number::kF32, grad.numel(), static_cast<double*>(sum.data())),
        "adding products"));
    const auto want = (grad.to(at::kFloat) * (w.to(at::kFloat) - wq)).abs().to(at::kDouble).sum().item<double>() + 0.5;
    totals_.fold_worst = std::max(totals_.fold_worst, std::abs(sum.Down().item<double>() - want) / want);

    const There amax(device_, at::zeros({1}));
    Must(device_.Check(
        quant_.amax(device_.handle(), w_there.data(), NumberOf(w), w.numel(), static_cast<float*>(amax.data())),
        "amax"));
    Expect(amax.Down().item<float>() == Amax(w).item<float>(), "amax differs");

    at::Tensor bad = w.clone();
    bad.flatten()[width + 3] = INFINITY, bad.flatten()[width * (rows - 1) + 7] = NAN;
    for (const auto& [tensor, found] :
         {std::make_pair(w, NonFinite{0, -1}), std::make_pair(bad, NonFinite{2, width + 3})}) {
      const There there(device_, tensor), result(device_, at::zeros({2}, at::kLong));
      Must(device_.Check(
          device_.api().find_non_finite(device_.handle(), DeviceStream::kCompute, there.data(), tensor.numel(),
                                        NumberOf(tensor), static_cast<NonFinite*>(result.data())),
          "looking for what is not finite"));
      const at::Tensor got = result.Down();
      Expect(got[0].item<int64_t>() == found.count && got[1].item<int64_t>() == found.first,
             "what is not finite is not found");
    }
  }

  void Expect(bool ok, const std::string& what) {
    if (ok) return;
    ++totals_.faults;
    std::fprintf(stderr, "%s\n", what.c_str());
  }

  const Device& device_;
  const bool quick_;
  const DeviceQuantApi& quant_;
  std::set<std::string> seen_;
  std::map<std::pair<int64_t, int64_t>, at::Tensor> values_;  // by shape
  Totals totals_;
};

int Main(int argc, char** argv) {
  if (argc < 2 || (argc > 2 && std::strcmp(argv[2], "--quick") != 0)) {
    std::fprintf(stderr, "usage: kernel_bits PLUGIN [--quick]\n");
    return 2;
  }
  const DeviceApi& api = LoadPlugin(argv[1]);
  if (api.quant == nullptr) Fail("the plugin has no kernels for quantizers");
  const std::unique_ptr<Device> device = Must(Device::Open(api, 0));
  const Totals t = Comparison(*device, argc > 2).Run();
  std::printf("forward_elements %lld\nforward_differences %lld\n", static_cast<long long>(t.forward_elements),
              static_cast<long long>(t.forward_differences));
  std::printf("k_quant_elements %lld\nk_quant_differences %lld\n", static_cast<long long>(t.k_quant_elements),
              static_cast<long long>(t.k_quant_differences));
  std::printf("backward_worst %.3g\nfold_worst %.3g\nother_faults %lld\n", t.backward_worst, t.fold_worst,
              static_cast<long long>(t.faults));
  return t.forward_differences + t.k_quant_differences + t.faults == 0 && t.backward_worst <= kBackwardTolerance &&
                 t.fold_worst <= kFoldTolerance
             ? 0
             : 1;
}

}  // namespace
}  // namespace autoscheme

int main(int argc, char** argv) { return autoscheme::Main(argc, argv); }
