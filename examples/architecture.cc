// A model that the library does not know, described by its host: a Llama whose attention and MLP stand side by side
// behind one norm, with squared ReLU and no gate.
//
//     architecture MODEL_DIR     # a folder whose config.json says "model_type": "sideways"
#include "autoscheme/architecture.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "autoscheme/meta_skeleton.h"

namespace {

absl::StatusOr<autoscheme::ModelSpec> DescribeSideways(const autoscheme::Json& config) {
  autoscheme::DecoderBuilder d(config, "sideways");
  d.ReadCommonKeys();  // hidden_size, num_hidden_layers, num_attention_heads, ...
  d.ReadTie(/*fallback=*/false);
  const autoscheme::NormStyle rms = d.Rms("rms_norm_eps", 1e-5);
  autoscheme::MlpNames mlp_names;
  mlp_names.gate = "";
  mlp_names.bias = d.Bool("mlp_bias", false);  // a key of this model's own
  d.EachBlock("model.layers", [&](autoscheme::BlockBuilder& b, int64_t) {
    autoscheme::Attention attention = b.MakeAttention();
    attention.rotary = d.MakeRotary({});
    const autoscheme::Mlp mlp = b.MakeMlp(autoscheme::Activation::kSquaredRelu, mlp_names);
    const autoscheme::Norm before = b.MakeNorm(rms, "input_layernorm");
    b.AddParallel({{before, attention, {}}, {before, mlp, {}}});
  });
  d.FinalNorm(rms, "model.norm");
  return d.Finish();
}

absl::Status Run(const std::string& model_dir) {
  autoscheme::Context context;
  const std::vector<autoscheme::Architecture> architectures = {{"sideways", DescribeSideways}};
  context.architectures = std::make_shared<const std::vector<autoscheme::Architecture>>(architectures);
  // From here on all goes as in score.cc.
  auto model = autoscheme::MetaSkeleton::Open(context, model_dir);
  if (!model.ok()) return model.status();
  std::printf("%s: %d blocks\n", (*model)->model_type().c_str(), static_cast<int>((*model)->blocks().size()));
  for (const autoscheme::LinearLayer& linear : (*model)->blocks()[0].linears) {
    std::printf("  %s %lld x %lld\n", linear.name.c_str(), static_cast<long long>(linear.out_features),
                static_cast<long long>(linear.in_features));
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL_DIR\n", argv[0]);
    return 2;
  }
  const absl::Status status = Run(argv[1]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
