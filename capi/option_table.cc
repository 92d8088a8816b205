#include "option_table.h"

#include "handles.h"

namespace autoscheme::capi {
namespace {

constexpr int64_t kMostI64 = INT64_MAX;

constexpr OptionSpec Text(int32_t id, const char* name, const char* default_value, const char* choices,
                          const char* help) {
  return {id, AUTOSCHEME_TYPE_STR, name, help, "0.1", default_value, choices, 0, 0, 0, 0};
}
constexpr OptionSpec Flag(int32_t id, const char* name, const char* default_value, const char* help) {
  return {id, AUTOSCHEME_TYPE_BOOL, name, help, "0.1", default_value, nullptr, 0, 1, 0, 0};
}
constexpr OptionSpec Number(int32_t id, const char* name, const char* default_value, int64_t least, int64_t most,
                            const char* help) {
  return {id, AUTOSCHEME_TYPE_I64, name, help, "0.1", default_value, nullptr, least, most, 0, 0};
}
constexpr OptionSpec Bytes(int32_t id, const char* name, const char* default_value, int64_t least, const char* help) {
  return {id, AUTOSCHEME_TYPE_BYTES, name, help, "0.1", default_value, nullptr, least, kMostI64, 0, 0};
}
constexpr OptionSpec List(int32_t id, const char* name, double least, double most, const char* help) {
  return {id, AUTOSCHEME_TYPE_F64_LIST, name, help, "0.1", "", nullptr, 0, 0, least, most};
}

constexpr OptionSpec kOptions[] = {
    Text(AUTOSCHEME_OPTION_SCHEMES, "schemes", "", nullptr,
         "Schemes to choose from, comma separated: \"W2A16,W4A16,W8A16\"; or a JSON list of names and of objects of "
         "scheme fields. The first one decides which layers' shapes fit."),
    List(AUTOSCHEME_OPTION_AVG_BITS, "avg_bits", 0.1, 64,
         "Target average in bits per weight; several, comma separated, give a recipe each."),
    Flag(AUTOSCHEME_OPTION_IGNORE_SCALE_ZP_BITS, "ignore_scale_zp_bits", "0",
         "Count the bits of weights only, not those of scales and zero points."),
    Text(AUTOSCHEME_OPTION_SHARED_LAYERS, "shared_layers", "", nullptr,
         "Layers of a block that must get the same scheme: patterns separated by commas, groups by semicolons: "
         "\"q_proj,k_proj,v_proj;gate_proj,up_proj\". Or the name of a runtime, for what it fuses: vllm, sglang, "
         "tensorrt-llm, llama.cpp. Where some of a group are fixed, the others take their scheme."),
    Text(AUTOSCHEME_OPTION_IGNORE_LAYERS, "ignore_layers", "", nullptr,
         "Layers that stay at 16 bits: names or parts of names, comma separated."),
    Text(AUTOSCHEME_OPTION_LAYER_CONFIG, "layer_config", "", nullptr,
         "Schemes fixed beforehand, as a JSON object: a layer's name, a part of it or a regular expression -> a "
         "scheme's "
         "name or an object of its fields."),
    Flag(AUTOSCHEME_OPTION_QUANT_LM_HEAD, "quant_lm_head", "0",
         "Score the output head too and count it in the budget."),
    Text(AUTOSCHEME_OPTION_TARGET_SIZE, "target_size", "", nullptr,
         "Target size of the whole model in the files that runtimes load: 800MiB, 4.1GiB; several, comma separated, "
         "give "
         "a recipe each."),
    Flag(AUTOSCHEME_OPTION_REFERENCE_RULES, "reference_rules", "0",
         "Score, charge and choose exactly as AutoRound does, to compare with it. k-quants are then charged as "
         "themselves where "
         "other types replace them afterwards (rows that are no multiple of 256), so a recipe may exceed its target; a "
         "larger target "
         "may give more loss; and a fixed layer splits its group of shared_layers."),
    Text(AUTOSCHEME_OPTION_SCORER, "scorer", "deltaloss", "auto,deltaloss,fisher,fisher-labels",
         "How the loss of a scheme is measured. deltaloss: by the gradients of the network that is quantized with it, "
         "as AutoRound does. fisher: by one gradient for all schemes, in nats per token: 3 products of a layer's size "
         "and 1 for each scheme, where deltaloss takes 4 for each. "
         "fisher-labels: the same by the text's own labels. auto: "
         "what chooses best, which is fisher; with reference_rules deltaloss."),
    Number(AUTOSCHEME_OPTION_BATCH_SIZE, "batch_size", "8", 1, 1 << 20,
           "Rows of calibration in a batch. Scores of deltaloss depend on it by definition, those of fisher where a "
           "scheme's scale spans a batch."),
    Text(AUTOSCHEME_OPTION_IMATRIX_FILE, "imatrix_file", "", nullptr,
         "Importance matrix that llama-imatrix has made of this model (.gguf or .dat), for k-quants. Without it one is "
         "collected from the calibration."),
    Bytes(AUTOSCHEME_OPTION_MAX_RAM_BYTES, "max_ram_bytes", "0", -1,
          "Memory that must not be exceeded, in bytes. Refused before any work if it cannot be kept. 0 means the "
          "larger of 1 GiB "
          "and what full speed needs without saved activations, but at most half of what the system or the cgroup has "
          "free. "
          "\"free\", or -1, means no limit: up to a quarter of what is free may then serve to save time."),
    Flag(AUTOSCHEME_OPTION_PROCESS_BUDGET, "process_budget", "0",
         "max_ram_bytes is the peak resident memory of the whole process, not only what the library holds."),
    Text(AUTOSCHEME_OPTION_WORK_DIR, "work_dir", "", nullptr, "Folder for spill files; empty means TMPDIR, else /tmp."),
    Number(AUTOSCHEME_OPTION_THREADS, "threads", "0", -1, 4096,
           "Threads that compute; 0 leaves the process as it is set, -1 does too but takes no more than the CPU quota "
           "of the "
           "cgroups gives time to."),
    Text(AUTOSCHEME_OPTION_IO_ENGINE, "io_engine", "auto", "auto,direct,buffered",
         "How weights are read: direct goes past the page cache, buffered through it, which also takes over where "
         "direct "
         "does not work. auto: direct; small models buffered."),
    Flag(AUTOSCHEME_OPTION_NO_SPILL, "no_spill", "0",
         "Write nothing to disk while scoring: of the block inputs that memory has no room for some are computed "
         "again, which "
         "reads and multiplies more."),
    Bytes(AUTOSCHEME_OPTION_MAX_VRAM_BYTES, "max_vram_bytes", "0", 0,
          "Memory of a GPU that must not be exceeded, in bytes: what this process takes of it, its context included. "
          "Refused before any work if it cannot be kept. 0 means nine tenths of what is free there. Without effect on "
          "a CPU."),
    Flag(AUTOSCHEME_OPTION_PLAN_ONLY, "plan_only", "0",
         "The generator is for plans alone, and its device need not be there: max_vram_bytes must then be given."),
    Text(
        AUTOSCHEME_OPTION_DTYPE, "dtype", "default", "default,float32,tf32,bfloat16,mixed,auto",
        "Number format that is computed in. default: tf32 on a GPU, else float32. tf32: float32, but a GPU rounds "
        "the factors of the backward pass's products to TF32. mixed: float32, but the backward pass multiplies "
        "bfloat16 numbers; scores "
        "stay within 1% of float32. Without a CPU that multiplies bfloat16 in hardware, both formats that use it save "
        "memory but "
        "no time: products are formed in float32 and rounded. auto: tf32 on a GPU, mixed on such a CPU, else float32."),
    Text(AUTOSCHEME_OPTION_DEVICE, "device", "cpu", nullptr,
         "Device that computes: cpu; or cuda, cuda:N for the device of that number, or several of those, comma "
         "separated, "
         "with the plugin for CUDA, a LibTorch that has its CUDA half, and an NVIDIA driver."),
    Number(AUTOSCHEME_OPTION_STREAM_SLOTS, "stream_slots", "2", 1, 64,
           "Steps of a streamer that are in memory at a time; 1 means no read-ahead."),
    Text(AUTOSCHEME_OPTION_OFFLOAD_MODE, "offload_mode", "clean", "clean,offload",
         "clean: drop tensors and read them from the checkpoint again; offload: write them to a spill file first."),
    Number(AUTOSCHEME_OPTION_WORST_TOKENS, "worst_tokens", "0", 0, 1 << 20,
           "Tokens to list for each recipe that is evaluated: those whose prediction moved most."),
    Flag(AUTOSCHEME_OPTION_BY_POSITION, "by_position", "0",
         "Also give the mean KL at each position of the rows that are evaluated."),
};

}  // namespace

absl::Span<const OptionSpec> OptionTable() { return kOptions; }

const OptionSpec* FindOption(int32_t id) {
  for (const OptionSpec& spec : kOptions) {
    if (spec.id == id) return &spec;
  }
  return nullptr;
}

const OptionSpec* FindOption(absl::string_view name) {
  for (const OptionSpec& spec : kOptions) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

}  // namespace autoscheme::capi

extern "C" {

int64_t autoscheme_option_count(void) { return static_cast<int64_t>(autoscheme::capi::OptionTable().size()); }

int32_t autoscheme_option_at(int64_t index) {
  return index >= 0 && index < autoscheme_option_count() ? autoscheme::capi::OptionTable()[index].id : 0;
}

int32_t autoscheme_option_find(const char* name) {
  if (name == nullptr) return 0;
  const auto* spec = autoscheme::capi::FindOption(absl::string_view(name));
  return spec == nullptr ? 0 : spec->id;
}

autoscheme_status autoscheme_option_describe(int32_t id, autoscheme_option_info* info, autoscheme_error** error) {
  return autoscheme::capi::Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(info);
    const auto* spec = autoscheme::capi::FindOption(id);
    if (spec == nullptr) return absl::InvalidArgumentError(absl::StrCat("there is no option with id ", id));
    autoscheme_option_info filled{};
    filled.id = spec->id;
    filled.type = spec->type;
    filled.name = spec->name;
    filled.help = spec->help;
    filled.since = spec->since;
    filled.default_value = spec->default_value;
    filled.choices = spec->choices;
    filled.min_i64 = spec->min_i64;
    filled.max_i64 = spec->max_i64;
    filled.min_f64 = spec->min_f64;
    filled.max_f64 = spec->max_f64;
    return autoscheme::capi::FillStruct(filled, info);
  });
}

}  // extern "C"
