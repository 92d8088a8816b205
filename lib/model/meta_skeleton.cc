#include "autoscheme/meta_skeleton.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/io.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "model/config_tensors.h"
#include "model/decoder_spec.h"
#include "model/ignored.h"
#include "model/missing.h"
#include "model/tensor_roles.h"

namespace autoscheme {

struct MetaSkeleton::Rep {
  std::string model, fingerprint;
  std::unique_ptr<Checkpoint> checkpoint;
  ModelSpec spec;
  std::vector<Block> blocks;
  const TensorInfo* embedding = nullptr;
  LinearLayer head;
  bool tied_head = false;
  std::vector<const TensorInfo*> others, untouched;
  std::vector<TensorRole> roles;
  std::vector<std::string> shards, warnings;
};

namespace {

bool IsFloat(const TensorInfo& info) {
  return info.dtype == Dtype::kBF16 || info.dtype == Dtype::kF16 || info.dtype == Dtype::kF32;
}

// Where the checkpoint's names differ from the modules' by a prefix: "model." left out, or another one in its place
// ("language_model.model.", "_orig_mod.model."). Found by the one tensor that ends like the embedding.
class StoredNames {
 public:
  StoredNames(const Checkpoint& checkpoint, const ModelSpec& spec) {
    const std::string& embedding = spec.input.embedding;  // "model.embed_tokens.weight"
    const size_t last = embedding.rfind('.'), before = embedding.rfind('.', last - 1);
    base_ = before == std::string::npos ? "" : embedding.substr(0, before + 1);
    stored_ = base_;
    std::vector<std::string> probes = {embedding};
    if (!spec.blocks.empty() && !spec.blocks[0].linears.empty()) {
      probes.push_back(absl::StrCat(spec.blocks[0].name, ".", spec.blocks[0].linears[0].name, ".weight"));
    }
    for (const std::string& probe : probes) {
      if (checkpoint.Find(probe) != nullptr) return;
      if (!absl::StartsWith(probe, base_)) continue;
      std::vector<std::string> prefixes;
      for (const TensorInfo& info : checkpoint.tensors()) {
        if (!absl::EndsWith(info.name, probe.substr(base_.size()))) continue;
        std::string prefix = info.name.substr(0, info.name.size() - (probe.size() - base_.size()));
        const bool other = absl::StrContains(prefix, "vision") || absl::StrContains(prefix, "visual") ||
                           absl::StrContains(prefix, "audio");
        if (!other && (prefix.empty() || prefix.back() == '.')) prefixes.push_back(std::move(prefix));
      }
      if (prefixes.size() != 1) continue;
      stored_ = prefixes[0];
      // What stands before the decoder stands before the head too, or nothing does.
      const std::string around = absl::EndsWith(stored_, "model.") ? stored_.substr(0, stored_.size() - 6) : stored_;
      for (const std::string& head : {around + spec.head.name, stored_ + spec.head.name}) {
        if (checkpoint.Find(spec.head.name + ".weight") != nullptr || checkpoint.Find(head + ".weight") == nullptr) {
          continue;
        }
        head_ = spec.head.name, stored_head_ = head;
        break;
      }
      return;
    }
  }

  std::string Stored(const std::string& name) const {
    if (!head_.empty() && absl::StartsWith(name, head_ + ".")) return stored_head_ + name.substr(head_.size());
    return absl::StartsWith(name, base_) && base_ != stored_ ? stored_ + name.substr(base_.size()) : name;
  }

 private:
  std::string base_, stored_, head_, stored_head_;
};

// Looks tensors of the architecture up in the checkpoint and checks them; collects every absent name, so that one
// message tells all.
class TensorFinder {
 public:
  TensorFinder(const Checkpoint& checkpoint, const ModelSpec& spec)
      : checkpoint_(checkpoint), spec_(spec), names_(checkpoint, spec) {}

  std::string Stored(const std::string& name) const { return names_.Stored(name); }
  // Null if there is none; not counted as missing.
  const TensorInfo* Look(const std::string& name) const { return checkpoint_.Find(names_.Stored(name)); }
  const TensorInfo* Find(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorInfo* info = Look(name);
    if (info == nullptr) {
      missing_.push_back(names_.Stored(name));
      return nullptr;
    }
    used_.insert(info);
    if (info->shape != shape) {
      Fail(absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(info->name), " has shape ", ShapeText(info->shape),
                                                   ", config.json asks for ", ShapeText(shape))));
    } else if (!IsFloat(*info)) {
      Fail(absl::UnimplementedError(absl::StrCat("tensor ", Quoted(info->name), " has dtype ", DtypeName(info->dtype),
                                                 "; weights must be BF16, F16 or F32")));
    }
    return info;
  }

  absl::Status status() const {
    if (missing_.empty() && status_.ok()) return status_;
    std::vector<std::string> unused;
    for (const TensorInfo* info : Unused()) unused.push_back(info->name);
    ModelSpec stored = spec_;
    stored.head.name = names_.Stored(stored.head.name);
    stored.blocks.front().name = names_.Stored(stored.blocks.front().name);
    const absl::Status told = DiagnoseMissing(missing_, unused, stored);
    if (missing_.empty()) {
      return told.message().empty() ? status_
                                    : absl::Status(told.code(), absl::StrCat(status_.message(), told.message()));
    }
    return absl::Status(
        told.code(),
        absl::StrCat(Count(missing_.size(), "tensor"), " that config.json asks for ",
                     missing_.size() == 1 ? "is" : "are", " not in the checkpoint: ", FirstNames(missing_),
                     told.message(),
                     checkpoint_.index_ignored()
                         ? " (model.safetensors was read, and model.safetensors.index.json ignored: move the "
                           "former away if the shards are the weights that you mean)"
                         : ""));
  }
  // For a tensor that is needed in no other place.
  void MarkUsed(const TensorInfo* info) { used_.insert(info); }
  // Sorted by name.
  std::vector<const TensorInfo*> Unused() const {
    std::vector<const TensorInfo*> unused;
    for (const TensorInfo& info : checkpoint_.tensors()) {
      if (used_.count(&info) == 0) unused.push_back(&info);
    }
    return unused;
  }

 private:
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Checkpoint& checkpoint_;
  const ModelSpec& spec_;
  const StoredNames names_;
  std::vector<std::string> missing_;  // as they would be stored
  absl::flat_hash_set<const TensorInfo*> used_;
  absl::Status status_;
};

LinearLayer FindLinear(const std::string& prefix, const LinearSpec& spec, TensorFinder& finder) {
  LinearLayer layer;
  layer.name = prefix + spec.name;
  layer.out_features = spec.out_features;
  layer.in_features = spec.in_features;
  layer.sublayer = spec.sublayer;
  layer.transposed = spec.transposed;
  layer.weight = finder.Find(layer.name + ".weight", StoredShape(spec));
  if (spec.bias) layer.bias = finder.Find(layer.name + ".bias", {spec.out_features});
  return layer;
}

Block FindBlock(const BlockSpec& spec, TensorFinder& finder) {
  Block block;
  block.name = spec.name;
  block.sublayers.resize(spec.sublayers.size());
  for (const LinearSpec& linear : spec.linears) {
    block.linears.push_back(FindLinear(spec.name + ".", linear, finder));
    const LinearLayer& layer = block.linears.back();
    if (layer.weight != nullptr) block.sublayers[linear.sublayer].push_back(layer.weight);
    if (layer.bias != nullptr) block.sublayers[linear.sublayer].push_back(layer.bias);
  }
  for (const ParamSpec& param : spec.params) {
    const TensorInfo* info = finder.Find(spec.name + "." + param.name, param.shape);
    block.params.push_back(info);
    if (info != nullptr) block.sublayers[param.sublayer].push_back(info);
  }
  const auto by_place = [](const TensorInfo* a, const TensorInfo* b) {
    return std::make_pair(a->shard, a->offset) < std::make_pair(b->shard, b->offset);
  };
  for (const Sublayer& sublayer : spec.sublayers) {
    for (const int linear : LastProducts(sublayer)) block.linears[linear].last_product = true;
  }
  for (auto& tensors : block.sublayers) {
    std::sort(tensors.begin(), tensors.end(), by_place);
    block.tensors.insert(block.tensors.end(), tensors.begin(), tensors.end());
  }
  std::sort(block.tensors.begin(), block.tensors.end(), by_place);
  for (const TensorInfo* info : block.tensors) block.bytes += info->bytes;
  return block;
}

// The head is the embedding where the config says so; where it says nothing, if that means so in its family, or there
// is no tensor of the head.
bool SaysTied(const ModelSpec& spec, const TensorInfo* head) {
  return spec.tied_head || (!spec.tied_head_given && head == nullptr);
}

template <typename T>
T Load(const std::byte* data, int64_t index) {
  T value;
  std::memcpy(&value, data + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The value of an IEEE half: its exponent is made that of a float by a multiplication, which also brings denormals
// right.
float HalfToFloat(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, rest = uint32_t{half & 0x7FFFu} << 13;
  if ((half & 0x7C00u) == 0x7C00u) return FloatFromBits(sign | 0x7F800000u | rest);
  return std::copysign(FloatFromBits(rest) * 0x1p112f, FloatFromBits(sign));
}

float NumberAt(const std::vector<std::byte>& bytes, Dtype dtype, int64_t index) {
  if (dtype == Dtype::kBF16) return FloatFromBits(uint32_t{Load<uint16_t>(bytes.data(), index)} << 16);
  if (dtype == Dtype::kF16) return HalfToFloat(Load<uint16_t>(bytes.data(), index));
  return Load<float>(bytes.data(), index);
}

// Whether two tensors hold the same numbers, whatever their types. Reads chunks of both until a number differs.
absl::StatusOr<bool> SameNumbers(const Context& context, const Checkpoint& checkpoint, const TensorInfo& a,
                                 const TensorInfo& b) {
  constexpr int64_t kChunk = int64_t{1} << 19;  // numbers
  if (a.shape != b.shape || !IsFloat(a) || !IsFloat(b)) return false;
  std::vector<std::byte> bytes_a, bytes_b;
  const auto read = [&](const TensorInfo& info, int64_t begin, int64_t count, std::vector<std::byte>& bytes) {
    const int64_t width = DtypeBits(info.dtype) / 8;
    bytes.resize(static_cast<size_t>(count * width));
    return checkpoint.Read(info, static_cast<uint64_t>(begin * width), absl::MakeSpan(bytes));
  };
  for (int64_t begin = 0; begin < a.numel(); begin += kChunk) {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    const int64_t count = std::min(kChunk, a.numel() - begin);
    AUTOSCHEME_RETURN_IF_ERROR(read(a, begin, count, bytes_a));
    AUTOSCHEME_RETURN_IF_ERROR(read(b, begin, count, bytes_b));
    if (a.dtype == b.dtype && bytes_a == bytes_b) continue;
    for (int64_t i = 0; i < count; ++i) {
      if (NumberAt(bytes_a, a.dtype, i) != NumberAt(bytes_b, b.dtype, i)) return false;
    }
  }
  return true;
}

// The host's context, whose warnings are also appended to `warnings`.
Context Noting(const Context& host, std::vector<std::string>& warnings) {
  Context context = host;
  context.log = [&host, &warnings](LogLevel level, absl::string_view text) {
    if (level == LogLevel::kWarning) warnings.emplace_back(text);
    if (host.log) host.log(level, text);
  };
  return context;
}

// Whether a head that is said to be tied is so where it has a tensor of its own; a warning where not.
absl::StatusOr<bool> IsTiedIndeed(const Context& context, const Checkpoint& checkpoint, const ModelSpec& spec,
                                  const TensorInfo& embedding, const TensorInfo& head) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const bool same, SameNumbers(context, checkpoint, embedding, head));
  if (same) return true;
  context.Warn(absl::StrCat(
      "config.json says tie_word_embeddings",
      spec.tied_head_given ? "" : absl::StrCat(" by saying nothing, for model_type ", Quoted(spec.model_type)),
      ", but ", Quoted(head.name), " differs from ", Quoted(embedding.name),
      ": the head is not tied, as in transformers 5; set tie_word_embeddings to false to silence this, or remove the "
      "tensor to tie the head"));
  return false;
}

std::string Fingerprint(const Checkpoint& checkpoint) {
  std::string text = checkpoint.config_text();
  for (const TensorInfo& t : checkpoint.tensors()) {
    absl::StrAppend(&text, "\n", t.name, " ", DtypeName(t.dtype), " ", ShapeText(t.shape));
  }
  return Sha256Hex(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetaSkeleton>> MetaSkeleton::Open(const Context& host, const std::string& model) {
  struct stat st;
  Io& io = IoOf(host);
  if (absl::EndsWith(model, ".json") && io.Stat(model.c_str(), &st) == 0 && S_ISREG(st.st_mode)) {
    AUTOSCHEME_ASSIGN_OR_RETURN(std::string text, ReadFileToString(io, model, Checkpoint::kMaxConfigBytes));
    return OpenConfig(host, model, std::move(text), model);
  }
  auto rep = std::make_unique<Rep>();
  rep->model = model;
  const Context context = Noting(host, rep->warnings);
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->checkpoint, Checkpoint::Open(context, model));
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->spec, ReadModelSpec(rep->checkpoint->config(), ArchitecturesOf(context)));
  return Make(context, std::move(rep));
}

absl::StatusOr<std::unique_ptr<MetaSkeleton>> MetaSkeleton::FromConfig(const Context& host,
                                                                       absl::string_view config_json) {
  return OpenConfig(host, "config.json", std::string(config_json), "");
}

absl::StatusOr<std::unique_ptr<MetaSkeleton>> MetaSkeleton::OpenConfig(const Context& host, const std::string& model,
                                                                       std::string text, const std::string& path) {
  auto rep = std::make_unique<Rep>();
  rep->model = model;
  const Context context = Noting(host, rep->warnings);
  const auto tensors_of = [&](const Json& config) -> absl::StatusOr<std::vector<TensorInfo>> {
    AUTOSCHEME_ASSIGN_OR_RETURN(rep->spec, ReadModelSpec(config, ArchitecturesOf(context)));
    return TensorsOfConfig(context, config, rep->spec);
  };
  AUTOSCHEME_ASSIGN_OR_RETURN(rep->checkpoint, Checkpoint::FromConfig(std::move(text), path, tensors_of));
  return Make(context, std::move(rep));
}

absl::StatusOr<std::unique_ptr<MetaSkeleton>> MetaSkeleton::Make(const Context& context, std::unique_ptr<Rep> rep) {
  const Checkpoint& checkpoint = *rep->checkpoint;
  const ModelSpec& spec = rep->spec;

  TensorFinder finder(checkpoint, spec);
  const TensorInfo* head = finder.Look(spec.head.name + ".weight");
  // Some tied models hold the one tensor under the head's name.
  const bool head_alone = finder.Look(spec.input.embedding) == nullptr && head != nullptr && SaysTied(spec, head);
  rep->embedding =
      finder.Find(head_alone ? spec.head.name + ".weight" : spec.input.embedding, {spec.vocab_size, spec.input.width});
  for (const ParamSpec& param : spec.others) rep->others.push_back(finder.Find(param.name, param.shape));
  for (const BlockSpec& block : spec.blocks) {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    rep->blocks.push_back(FindBlock(block, finder));
  }
  if (head != nullptr && rep->embedding != nullptr) finder.MarkUsed(head);
  AUTOSCHEME_RETURN_IF_ERROR(finder.status());
  rep->tied_head = SaysTied(spec, head);
  if (rep->tied_head && !spec.tied_head && !head_alone) {
    context.Warn(absl::StrCat("config.json does not say tie_word_embeddings, and there is no ",
                              Quoted(finder.Stored(spec.head.name + ".weight")),
                              ": the head is taken to be the embedding; if it is not, the download lacks a tensor"));
  }
  if (rep->tied_head && head != nullptr && !head_alone) {
    AUTOSCHEME_ASSIGN_OR_RETURN(rep->tied_head, IsTiedIndeed(context, checkpoint, spec, *rep->embedding, *head));
  }
  if (rep->tied_head) {
    rep->head.name = spec.head.name;
    rep->head.out_features = spec.head.out_features;
    rep->head.in_features = spec.head.in_features;
    rep->head.weight = rep->embedding;
    if (spec.head.bias) rep->head.bias = finder.Find(spec.head.name + ".bias", {spec.vocab_size});
  } else {
    rep->head = FindLinear("", spec.head, finder);
  }
  AUTOSCHEME_RETURN_IF_ERROR(finder.status());
  int index = 0;
  for (Block& block : rep->blocks) {
    for (LinearLayer& layer : block.linears) layer.index = index++;
  }
  rep->head.index = index;
  rep->head.reason = rep->tied_head ? "tied to the embedding" : "head: only with quant_lm_head or k-quants";
  std::vector<std::string> ignored;
  for (const TensorInfo* info : finder.Unused()) {
    spec.multimodal ? rep->untouched.push_back(info) : ignored.push_back(info->name);
  }
  WarnOfIgnored(context, spec, checkpoint.config(), ignored);
  rep->fingerprint = Fingerprint(checkpoint);
  for (const Shard& shard : checkpoint.shards()) rep->shards.push_back(shard.name);
  std::unique_ptr<MetaSkeleton> skeleton(new MetaSkeleton(std::move(rep)));
  skeleton->rep_->roles = TensorRoles(*skeleton);
  return skeleton;
}

MetaSkeleton::MetaSkeleton(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
MetaSkeleton::~MetaSkeleton() = default;

const std::string& MetaSkeleton::model() const { return rep_->model; }
const std::string& MetaSkeleton::directory() const { return rep_->checkpoint->directory(); }
bool MetaSkeleton::has_weights() const { return rep_->checkpoint->has_weights(); }
const std::vector<std::string>& MetaSkeleton::files() const { return rep_->checkpoint->files(); }
const std::vector<std::string>& MetaSkeleton::shards() const { return rep_->shards; }
const std::vector<std::string>& MetaSkeleton::warnings() const { return rep_->warnings; }
const std::string& MetaSkeleton::model_type() const { return rep_->spec.model_type; }
const std::string& MetaSkeleton::fingerprint() const { return rep_->fingerprint; }
absl::Span<const Block> MetaSkeleton::blocks() const { return rep_->blocks; }
int64_t MetaSkeleton::hidden_size() const { return rep_->spec.hidden_size; }
int64_t MetaSkeleton::vocab_size() const { return rep_->spec.vocab_size; }
const TensorInfo* MetaSkeleton::embedding() const { return rep_->embedding; }
const LinearLayer& MetaSkeleton::head() const { return rep_->head; }
bool MetaSkeleton::tied_head() const { return rep_->tied_head; }
absl::Span<const TensorInfo* const> MetaSkeleton::other_tensors() const { return rep_->others; }
absl::Span<const TensorInfo* const> MetaSkeleton::untouched_tensors() const { return rep_->untouched; }
absl::Span<const TensorRole> MetaSkeleton::tensors() const { return rep_->roles; }
int64_t MetaSkeleton::max_positions() const { return rep_->spec.max_positions; }
const Checkpoint& MetaSkeleton::checkpoint() const { return *rep_->checkpoint; }
const ModelSpec& MetaSkeleton::spec() const { return rep_->spec; }

int64_t MetaSkeleton::total_params() const {
  int64_t n = rep_->embedding->numel();
  if (!rep_->tied_head) n += rep_->head.weight->numel();
  if (rep_->head.bias != nullptr) n += rep_->head.bias->numel();
  for (const TensorInfo* info : rep_->others) n += info->numel();
  for (const Block& block : rep_->blocks) {
    for (const TensorInfo* info : block.tensors) n += info->numel();
  }
  for (const TensorInfo* info : rep_->untouched) n += info->numel();
  return n;
}

uint64_t MetaSkeleton::total_bytes() const {
  uint64_t n = rep_->embedding->bytes;
  if (!rep_->tied_head) n += rep_->head.weight->bytes;
  if (rep_->head.bias != nullptr) n += rep_->head.bias->bytes;
  for (const TensorInfo* info : rep_->others) n += info->bytes;
  for (const Block& block : rep_->blocks) n += block.bytes;
  for (const TensorInfo* info : rep_->untouched) n += info->bytes;
  return n;
}

}  // namespace autoscheme
