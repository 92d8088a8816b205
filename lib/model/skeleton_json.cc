// MetaSkeleton as text that programs read (docs/formats.md).
#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include "autoscheme/meta_skeleton.h"
#include "base/utf8.h"

namespace autoscheme {
namespace {

class SkeletonWriter {
 public:
  explicit SkeletonWriter(const MetaSkeleton& skeleton) : skeleton_(skeleton) { writer_.SetIndent(' ', 1); }

  std::string Write() {
    writer_.StartObject();
    Add("model", skeleton_.model());
    Add("model_type", skeleton_.model_type());
    Add("fingerprint", skeleton_.fingerprint());
    Key("hidden_size"), writer_.Int64(skeleton_.hidden_size());
    Key("vocab_size"), writer_.Int64(skeleton_.vocab_size());
    Key("tied_head"), writer_.Bool(skeleton_.tied_head());
    Key("max_positions"), writer_.Int64(skeleton_.max_positions());
    Key("total_params"), writer_.Int64(skeleton_.total_params());
    Key("total_bytes"), writer_.Uint64(skeleton_.total_bytes());
    Key("untouched_tensors"), writer_.Uint64(skeleton_.untouched_tensors().size());
    AddList("files", skeleton_.files());
    AddList("shards", skeleton_.shards());
    AddList("warnings", skeleton_.warnings());
    Key("head"), AddLinear(skeleton_.head());
    AddBlocks();
    AddTensorsOutside();
    writer_.EndObject();
    return std::string(buffer_.GetString(), buffer_.GetSize());
  }

 private:
  void Key(const char* key) { writer_.Key(key); }
  void Text(absl::string_view text) {
    const std::string utf8 = ToUtf8(text);
    writer_.String(utf8.data(), static_cast<rapidjson::SizeType>(utf8.size()));
  }
  void Add(const char* key, absl::string_view text) { Key(key), Text(text); }
  void AddList(const char* key, const std::vector<std::string>& texts) {
    Key(key), writer_.StartArray();
    for (const std::string& text : texts) Text(text);
    writer_.EndArray();
  }

  void AddBlocks() {
    const auto roles = skeleton_.tensors();
    Key("blocks"), writer_.StartArray();
    for (const Block& block : skeleton_.blocks()) {
      writer_.StartObject();
      Add("name", block.name);
      Key("bytes"), writer_.Uint64(block.bytes);
      Key("linears"), writer_.StartArray();
      for (const LinearLayer& layer : block.linears) AddLinear(layer);
      writer_.EndArray();
      Key("tensors"), writer_.StartArray();
      for (size_t i = 0; i < block.tensors.size(); ++i) AddTensor(roles[next_++]);
      writer_.EndArray();
      writer_.EndObject();
    }
    writer_.EndArray();
  }
  // What is left after the blocks: the embedding, the head's, the others, the untouched ones.
  void AddTensorsOutside() {
    const auto roles = skeleton_.tensors();
    const size_t others = roles.size() - skeleton_.untouched_tensors().size() - skeleton_.other_tensors().size();
    Key("embedding"), AddTensor(roles[next_++]);
    const auto add_until = [&](const char* key, size_t end) {
      Key(key), writer_.StartArray();
      while (next_ < end) AddTensor(roles[next_++]);
      writer_.EndArray();
    };
    add_until("head_tensors", others);
    add_until("others", others + skeleton_.other_tensors().size());
    add_until("untouched", roles.size());
  }

  void AddLinear(const LinearLayer& layer) {
    writer_.StartObject();
    Add("name", layer.name);
    Key("out_features"), writer_.Int64(layer.out_features);
    Key("in_features"), writer_.Int64(layer.in_features);
    Add("dtype", DtypeName(layer.weight->dtype));
    Key("bias"), writer_.Bool(layer.bias != nullptr);
    Key("quantizable"), writer_.Bool(layer.reason == nullptr);
    if (layer.reason != nullptr) Add("reason", layer.reason);
    Key("transposed"), writer_.Bool(layer.transposed);
    Add("weight_tensor", layer.weight->name);
    if (layer.bias != nullptr) Add("bias_tensor", layer.bias->name);
    writer_.EndObject();
  }

  void AddTensor(const TensorRole& role) {
    const TensorInfo& tensor = *role.tensor;
    writer_.StartObject();
    Add("name", tensor.name);
    Add("dtype", DtypeName(tensor.dtype));
    writer_.Key("shape");
    writer_.SetFormatOptions(rapidjson::kFormatSingleLineArray);
    writer_.StartArray();
    for (const int64_t extent : tensor.shape) writer_.Int64(extent);
    writer_.EndArray();
    writer_.SetFormatOptions(rapidjson::kFormatDefault);
    Key("bytes"), writer_.Uint64(tensor.bytes);
    if (tensor.shard >= 0 && static_cast<size_t>(tensor.shard) < skeleton_.shards().size()) {
      Add("shard", skeleton_.shards()[static_cast<size_t>(tensor.shard)]);
      Key("offset"), writer_.Uint64(tensor.offset);
    }
    Key("quantizable"), writer_.Bool(role.reason == nullptr);
    if (role.reason != nullptr) Add("reason", role.reason);
    writer_.EndObject();
  }

  const MetaSkeleton& skeleton_;
  rapidjson::StringBuffer buffer_;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> writer_{buffer_};
  size_t next_ = 0;  // in skeleton_.tensors()
};

}  // namespace

std::string MetaSkeleton::ToJson() const { return SkeletonWriter(*this).Write(); }

}  // namespace autoscheme
