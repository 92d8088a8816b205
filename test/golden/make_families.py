#!/usr/bin/env python3
"""Writes tiny causal language models with random weights, and the values that transformers computes for them.

usage: make_families.py [NAME...]      (no name: all of them)

Run by any Python 3.11, it makes a virtual environment for each release of transformers under build/golden-env and runs
itself there. Each model goes to families/NAME beside this file; families/README.md describes the files.
"""
import copy
import gc
import json
import os
import shutil
import subprocess
import sys
import unittest.mock
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
ENV = os.path.join(HERE, "..", "..", "build", "golden-env")
# The second environment takes what it lacks from the first, so that torch is installed once.
RELEASES = {
    "4": ["transformers==4.57.6", "torch==2.11.0", "torchvision==0.26.0", "numpy==2.4.6", "safetensors==0.8.0"],
    "5": ["transformers==5.24.0"],
}

VOCAB, SEQLEN, BLOCKS = 64, 24, 2
EPS = 2e-3
COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SIZES = {**COMMON, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": BLOCKS}
RMS = {**SIZES, **HEADS, "max_position_embeddings": 64, "rms_norm_eps": EPS}
RMS12 = {**RMS, "head_dim": 12}
LAYER_NORM = {**SIZES, **HEADS, "max_position_embeddings": 64, "layer_norm_eps": EPS}
TIED = {"tie_word_embeddings": True}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 7}
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 28, "patch_size": 7}

# ---- The families -------------------------------------------------------------------------------------------------
# Each function returns the folders of one family: name -> (class of the configuration, its settings, further keys).
# Further keys: "release", the key into RELEASES; "class" of the model where the configuration alone does not say it;
# "classic", the settings in which the configuration of a hub checkpoint differs from the saved one (None: absent).


def gemma():
    pattern = {"layer_types": None, "_sliding_window_pattern": None, "sliding_window_pattern": 2}
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 6.0, "query_pre_attn_scalar": 20}
    gemma3 = {**RMS12, **ALTERNATING, "query_pre_attn_scalar": 20, "rope_theta": 5000.0, "rope_local_base_freq": 50.0}
    wrapped = {"text_config": {**gemma3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
               "vision_config": {**TOWER, "vision_use_head": False}, "mm_tokens_per_image": 4, "boi_token_index": 3,
               "eoi_token_index": 4, "image_token_index": 5}
    return {
        "gemma": ("GemmaConfig", RMS12, {}),
        "gemma2": ("Gemma2Config", {**RMS12, **caps, **ALTERNATING}, {"classic": {"layer_types": None}}),
        "gemma3": ("Gemma3TextConfig", gemma3, {"classic": pattern}),
        "gemma3_wrapped": ("Gemma3Config", wrapped, {"class": "Gemma3ForConditionalGeneration"}),
    }


def phi():
    odd = {"hidden_size": 40, "max_position_embeddings": 16, "partial_rotary_factor": 0.4,
           "rope_scaling": {"rope_type": "dynamic", "factor": 3.0}}
    return {
        "phi": ("PhiConfig", LAYER_NORM, {}),
        "phi_qk_layernorm": ("PhiConfig", {**LAYER_NORM, "qk_layernorm": True}, {}),
        "phi_dynamic": ("PhiConfig", {**LAYER_NORM, **TIED, **odd}, {}),
    }


def phi3():
    factors = {"type": "longrope", "short_factor": [1.0, 1.1, 1.25, 1.5], "long_factor": [1.2, 2.0, 3.0, 5.0]}
    partial = {"partial_rotary_factor": 0.75, "sliding_window": 7}
    return {
        "phi3": ("Phi3Config", RMS, {}),
        "phi3_long": ("Phi3Config", {**RMS, "original_max_position_embeddings": 16, "rope_scaling": factors}, {}),
        "phi3_short": ("Phi3Config", {**RMS, "original_max_position_embeddings": 32, "rope_scaling": factors}, {}),
        "phi3_partial": ("Phi3Config", {**RMS, **TIED, **partial}, {}),
    }


def olmo():
    plain = {k: v for k, v in RMS.items() if k != "rms_norm_eps"}
    return {
        "olmo": ("OlmoConfig", plain, {}),
        "olmo_clip": ("OlmoConfig", {**plain, **TIED, "clip_qkv": 1.5}, {}),
        "olmo2": ("Olmo2Config", RMS, {}),
    }


def granite():
    scales = {"embedding_multiplier": 3.0, "attention_multiplier": 0.6, "residual_multiplier": 0.7,
              "logits_scaling": 1.7}
    return {"granite": ("GraniteConfig", {**RMS, **TIED, **scales}, {})}


def cohere():
    scaled = {**LAYER_NORM, "logit_scale": 0.7}
    pattern = {"layer_types": None, "_sliding_window_pattern": None, "sliding_window_pattern": 2}
    return {
        "cohere": ("CohereConfig", scaled, {}),
        "cohere_qk_norm": ("CohereConfig", {**scaled, "use_qk_norm": True}, {}),
        "cohere2": ("Cohere2Config", {**scaled, **ALTERNATING}, {"classic": pattern}),
    }


def glm():
    return {"glm": ("GlmConfig", RMS12, {}), "glm4": ("Glm4Config", RMS12, {})}


def stablelm():
    parallel = {"use_parallel_residual": True, "qk_layernorm": True, "partial_rotary_factor": 0.5}
    return {
        "stablelm": ("StableLmConfig", {**LAYER_NORM, "use_qkv_bias": True, "num_attention_heads": 2,
                                        "num_key_value_heads": 1}, {}),
        "stablelm_parallel": ("StableLmConfig", {**LAYER_NORM, **parallel}, {}),
    }


def falcon():
    base = {**COMMON, "hidden_size": 32, "ffn_hidden_size": 48, "num_hidden_layers": BLOCKS, "num_attention_heads": 4,
            "max_position_embeddings": 64, "layer_norm_epsilon": EPS}
    grouped = {**base, "new_decoder_architecture": True, "num_kv_heads": 2}
    return {
        "falcon_7b": ("FalconConfig", {**base, "multi_query": True, "parallel_attn": True}, {}),
        "falcon_40b": ("FalconConfig", {**grouped, "num_ln_in_parallel_attn": 2}, {}),
        "falcon_11b": ("FalconConfig", {**grouped, "num_ln_in_parallel_attn": 1}, {}),
        "falcon_sequential": ("FalconConfig",
                              {**base, "multi_query": False, "parallel_attn": False, "bias": True}, {}),
    }


def gpt():
    small = {**COMMON, "n_embd": 32, "n_inner": 48, "n_layer": BLOCKS, "n_head": 4, "n_positions": 32,
             "layer_norm_epsilon": EPS}
    neox = {**SIZES, "num_attention_heads": 2, "max_position_embeddings": 64, "layer_norm_eps": EPS,
            "rotary_pct": 0.25, "rotary_emb_base": 100}
    sequential = {**neox, "num_attention_heads": 4, "use_parallel_residual": False, "rotary_pct": 0.5}
    return {
        "gpt2": ("GPT2Config", small, {}),
        "gptj": ("GPTJConfig", {**small, "rotary_dim": 4}, {}),
        "gpt_neox": ("GPTNeoXConfig", neox, {}),
        "gpt_neox_sequential": ("GPTNeoXConfig", sequential, {}),
    }


def starcoder2():
    settings = {**SIZES, **HEADS, "max_position_embeddings": 64, "norm_epsilon": EPS, "sliding_window": 7}
    return {"starcoder2": ("Starcoder2Config", settings, {})}


def opt():
    base = {**COMMON, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": BLOCKS, "num_attention_heads": 4,
            "max_position_embeddings": 32}
    return {
        "opt": ("OPTConfig", base, {}),
        "opt_350m": ("OPTConfig", {**base, "word_embed_proj_dim": 24, "do_layer_norm_before": False}, {}),
    }


def llama():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    stretched = {**RMS12, "max_position_embeddings": 256, "rope_theta": 100.0, "rope_scaling": yarn}
    dynamic = {"rope_type": "dynamic", "factor": 3.0}
    linear = {"rope_type": "linear", "factor": 2.5}
    tuned = {**yarn, "beta_fast": 8.0, "beta_slow": 0.5, "attention_factor": 1.3}
    return {
        "llama_yarn": ("LlamaConfig", stretched, {}),
        "llama_dynamic": ("LlamaConfig", {**RMS12, "max_position_embeddings": 16, "rope_scaling": dynamic}, {}),
        "llama_linear": ("LlamaConfig", {**RMS12, **TIED, "rope_scaling": linear}, {}),
        "qwen2_yarn": ("Qwen2Config", {**RMS, "max_position_embeddings": 256, "rope_theta": 100.0,
                                       "rope_scaling": tuned}, {}),
    }


def llama_like():
    return {
        "arcee": ("ArceeConfig", {**RMS12, **TIED}, {}),
        "exaone4": ("Exaone4Config", {**RMS, **ALTERNATING}, {}),
        "helium": ("HeliumConfig", {**RMS, "head_dim": 8}, {}),
        "ministral": ("MinistralConfig", {**RMS12, **TIED, **ALTERNATING}, {}),
        "nemotron": ("NemotronConfig", {**SIZES, **HEADS, "head_dim": 12, "max_position_embeddings": 64,
                                        "norm_eps": EPS}, {}),
        "seed_oss": ("SeedOssConfig", RMS12, {}),
        "smollm3": ("SmolLM3Config", {**RMS, **TIED, "no_rope_layers": [1, 0]}, {}),
    }


def release5():
    beta = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16,
            "beta_fast": 8.0, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3}
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 6.0}
    classic = {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "dynamic", "factor": 6.0},
               "architectures": ["InternLM3ForCausalLM"], "attention_bias": None, "mlp_bias": None, "qkv_bias": True,
               "bias": True}
    biased = {"attention_bias": True, "mlp_bias": True}
    mistral3 = {"text_config": {**RMS12, "model_type": "ministral3", "rope_parameters": beta},
                "vision_config": {**TOWER, "model_type": "pixtral", "head_dim": 8}, "image_token_index": 3}
    return {
        "ministral3": ("Ministral3Config", {**RMS12, "rope_parameters": beta}, {"release": "5"}),
        "mistral3_ministral3": ("Mistral3Config", mistral3,
                                {"release": "5", "class": "Mistral3ForConditionalGeneration"}),
        "internlm3": ("InternLM3Config", {**RMS12, **biased, "rope_parameters": dynamic},
                      {"release": "5", "classic": classic}),
    }


def wrapped():
    text = {**RMS, "model_type": "llama"}
    mrope = {**RMS, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}, "rope_theta": 1000.0,
             "hidden_act": "silu", "tie_word_embeddings": False}
    visual = {"depth": 1, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    qwen2_vl = {**visual, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 1}
    qwen2_5_vl = {**visual, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "window_size": 16,
                  "fullatt_block_indexes": [0]}
    qwen3_vl = {**visual, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24,
                "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    interleaved = {"rope_type": "default", "mrope_section": [2, 2, 2], "mrope_interleaved": True}
    qwen3 = {**RMS12, "rope_scaling": interleaved, "rope_theta": 1000.0}
    clip = {**TOWER, "model_type": "clip_vision_model"}
    mistral = {**RMS, "model_type": "mistral", "sliding_window": 7}
    tokens = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
    flat = {"text_config": None, **mrope}
    pixtral = {**TOWER, "model_type": "pixtral", "head_dim": 8}
    return {
        "llava": ("LlavaConfig", {"text_config": text, "vision_config": clip, "image_token_index": 3},
                  {"class": "LlavaForConditionalGeneration"}),
        "llava_next": ("LlavaNextConfig", {"text_config": mistral, "vision_config": clip, "image_token_index": 3,
                                           "image_grid_pinpoints": [[28, 28]]},
                       {"class": "LlavaNextForConditionalGeneration"}),
        "mistral3": ("Mistral3Config", {"text_config": {**RMS12, "model_type": "mistral", "sliding_window": None},
                                        "vision_config": pixtral, "image_token_index": 3},
                     {"class": "Mistral3ForConditionalGeneration"}),
        "idefics3": ("Idefics3Config", {"text_config": text, "vision_config": TOWER, "image_token_id": 3},
                     {"class": "Idefics3ForConditionalGeneration"}),
        "smolvlm": ("SmolVLMConfig", {"text_config": text, "vision_config": TOWER, "image_token_id": 3},
                    {"class": "SmolVLMForConditionalGeneration"}),
        "qwen2_vl": ("Qwen2VLConfig", {"text_config": mrope, "vision_config": qwen2_vl, **tokens},
                     {"class": "Qwen2VLForConditionalGeneration",
                      "classic": {**flat, "architectures": ["Qwen2VLForConditionalGeneration"]}}),
        "qwen3_vl": ("Qwen3VLConfig", {"text_config": qwen3, "vision_config": qwen3_vl, **tokens},
                     {"class": "Qwen3VLForConditionalGeneration"}),
        "qwen2_5_vl": ("Qwen2_5_VLConfig", {"text_config": mrope, "vision_config": qwen2_5_vl, **tokens},
                       {"class": "Qwen2_5_VLForConditionalGeneration",
                        "classic": {**flat, "architectures": ["Qwen2_5_VLForConditionalGeneration"]}}),
    }


FAMILIES = [gemma, phi, phi3, olmo, granite, cohere, glm, stablelm, falcon, gpt, starcoder2, opt, llama, llama_like,
            release5, wrapped]

# ---- One runner for all of them -----------------------------------------------------------------------------------


def randomize(model):
    """Weights large enough that a wrong setting shows in the logits."""
    import torch

    offset = type(model).__name__ == "NemotronForCausalLM"  # its norms multiply by 1 + weight, yet start at 1
    with torch.no_grad():
        for name, p in model.named_parameters():
            owner = model.get_submodule(name.rpartition(".")[0])
            noise = torch.randn(p.shape, generator=GENERATOR)
            if name.endswith("bias"):
                p.copy_(0.1 * noise)
            elif "norm" in type(owner).__name__.lower():
                p.copy_((p - 1 if offset else p) + 0.2 * noise)
            elif isinstance(owner, torch.nn.Embedding) or name.startswith(("lm_head", "embed_out")):
                p.copy_(0.5 * noise)
            else:
                p.copy_(0.2 * noise)


def open_model(cls, folder, dtype, **changes):
    """The saved model in `dtype`, with other settings where `changes` has some."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    for key, value in changes.items():
        setattr(text_config(config), key, value)
    config._attn_implementation = "eager"
    model, info = cls.from_pretrained(folder, config=config, dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


def text_config(config):
    return config.get_text_config()


def block_list(model):
    import torch

    count = text_config(model.config).num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)


def compute(model, ids):
    """The tensors of expected.safetensors, and the loss with its graph."""
    import torch

    seen = {}
    blocks = block_list(model)

    def keep_input(_, args, kwargs):
        seen["block.0.input"] = args[0] if args else kwargs["hidden_states"]

    def keep_output(index):
        def hook(_, __, out):
            seen[f"block.{index}.output"] = out[0] if isinstance(out, tuple) else out
        return hook

    blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True)
    for i, block in enumerate(blocks):
        block.register_forward_hook(keep_output(i))
    seen["logits"] = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(seen["logits"][:, :-1].reshape(-1, VOCAB), ids[:, 1:].reshape(-1))
    seen["loss"] = loss.reshape(1)
    return {k: v.detach().clone().contiguous() for k, v in seen.items()}, loss


def gradients(model, saved):
    """Sum of |d loss / d W| by checkpoint tensor name, for the linear weights of the blocks."""
    import torch
    from transformers.pytorch_utils import Conv1D

    names = {tensor.numpy(force=True).tobytes(): name for name, tensor in saved.items()}
    sums = {}
    for module in block_list(model).modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)):
            name = names[module.weight.detach().numpy().tobytes()]
            sums[name] = module.weight.grad.abs().sum(dtype=torch.float64).item()
    return sums


# A wrong value for a setting; the logits must tell it from the right one.
MISTAKES = {
    "rms_norm_eps": 1e-5, "layer_norm_eps": 1e-5, "layer_norm_epsilon": 1e-5, "norm_epsilon": 1e-5, "norm_eps": 1e-5,
    "rope_theta": 20000.0, "rope_local_base_freq": 10000.0, "rotary_dim": 8,
    "partial_rotary_factor": 1.0, "sliding_window": 8, "attn_logit_softcapping": None,
    "final_logit_softcapping": None, "query_pre_attn_scalar": 12, "clip_qkv": None, "logit_scale": 1.0,
    "embedding_multiplier": 1.0, "attention_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0,
    "hidden_act": "gelu", "hidden_activation": "gelu", "activation_function": "gelu", "activation": "gelu_new",
    "rope_scaling": None, "rope_parameters": {}, "no_rope_layers": [1, 1],
}


def wrong_settings(text):
    """Those of MISTAKES that apply to the configuration of a language model."""
    has = {k: getattr(text, k, None) for k in MISTAKES}
    if has["rope_parameters"] is not None or "mrope_section" in (has["rope_scaling"] or {}):
        del has["rope_scaling"]  # the older name, or a table that the model cannot do without
    wrong = {k: MISTAKES[k] for k, value in has.items() if value not in (None, MISTAKES[k])}
    if "rope_parameters" in wrong:
        wrong["rope_parameters"] = {**has["rope_parameters"], "rope_type": "default"}
    return wrong


def largest_change(cls, folder, ids, logits, dtype, **changes):
    import torch

    with torch.no_grad():
        got = compute(open_model(cls, folder, dtype, **changes), ids)[0]["logits"]
    return (got - logits).abs().max().item()


def write_json(path, value):
    with open(path, "w") as f:
        f.write(json.dumps(value, indent=1) + "\n")


def check_classic(cls, out, classic, ids, logits):
    """Writes config_classic.json, and makes sure that transformers reads it to the same logits."""
    import torch

    with open(os.path.join(out, "model", "config.json")) as f:
        config = json.load(f)
    config.update(classic)
    config = {k: v for k, v in sorted(config.items()) if v is not None}
    write_json(os.path.join(out, "config_classic.json"), config)
    copy = os.path.join(ENV, "classic")
    shutil.copytree(os.path.join(out, "model"), copy, dirs_exist_ok=True)
    write_json(os.path.join(copy, "config.json"), config)
    change = largest_change(cls, copy, ids, logits, torch.float32)
    assert change == 0, change


def make(name, config_class, settings, more):
    import safetensors.torch
    import torch
    import transformers

    out = os.path.join(HERE, "families", name)
    folder = os.path.join(out, "model")
    shutil.rmtree(out, ignore_errors=True)
    config = getattr(transformers, config_class)(**copy.deepcopy(settings))  # which it may change
    cls = getattr(transformers, more["class"]) if "class" in more else \
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    GENERATOR.manual_seed(zlib.crc32(name.encode()))
    with unittest.mock.patch.object(transformers.PreTrainedModel, "initialize_weights"):  # fails for some settings
        model = cls(config)
    randomize(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    for extra in os.listdir(folder):
        if extra not in ("config.json", "model.safetensors"):
            os.remove(os.path.join(folder, extra))
    ids = torch.randint(8, VOCAB, (2, SEQLEN), generator=GENERATOR)
    write_json(os.path.join(out, "tokens.json"), {"input_ids": ids.tolist()})

    model = open_model(cls, folder, torch.float32)
    values, loss = compute(model, ids)
    loss.backward()
    saved = {k: v.float() for k, v in safetensors.torch.load_file(os.path.join(folder, "model.safetensors")).items()}
    sums = gradients(model, saved)
    safetensors.torch.save_file(values, os.path.join(out, "expected.safetensors"))

    logits = values["logits"]
    if "classic" in more:
        check_classic(cls, out, more["classic"], ids, logits)
    text = text_config(model.config)
    wrong = {key: largest_change(cls, folder, ids, logits, torch.float32, **{key: value})
             for key, value in wrong_settings(text).items()}
    write_json(os.path.join(out, "expected.json"), {
        "class": cls.__name__, "model_type": model.config.model_type, "block_list": next(iter(sums)).split(".0.")[0],
        "num_blocks": text.num_hidden_layers, "transformers": transformers.__version__, "torch": torch.__version__,
        "loss": loss.item(), "logits_absmax": logits.abs().max().item(),
        "float64_max_abs_logit_change": largest_change(cls, folder, ids, logits, torch.float64),
        "wrong_setting_max_abs_logit_change": wrong, "weight_grad_l1": sums,
    })
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(out) for f in files)
    weakest = min(wrong.items(), key=lambda item: item[1], default=None)
    print(f"{name}: {size} bytes, loss {loss.item():.3f}, logits to {logits.abs().max().item():.1f}, "
          f"weakest mistake {weakest}", flush=True)
    assert size < 200000 and logits.isfinite().all()


def all_cases():
    return {name: case for family in FAMILIES for name, case in family().items()}


def python_of(release):
    return os.path.join(ENV, release, "bin", "python")


def install():
    for release, packages in RELEASES.items():
        if os.path.exists(python_of(release)):
            continue
        subprocess.run([sys.executable, "-m", "venv", os.path.join(ENV, release)], check=True)
        if release != "4":
            site = os.path.join("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
            with open(os.path.join(ENV, release, site, "base.pth"), "w") as f:
                f.write(os.path.abspath(os.path.join(ENV, "4", site)) + "\n")
        subprocess.run([python_of(release), "-m", "pip", "install", "-q", *packages], check=True)


def main():
    global GENERATOR
    names = sys.argv[1:] or list(all_cases())
    inside = os.environ.get("GOLDEN_RELEASE")
    if inside is None:
        install()
        for release in RELEASES:
            mine = [n for n in names if all_cases()[n][2].get("release", "4") == release]
            if mine:
                subprocess.run([python_of(release), os.path.abspath(__file__), *mine], check=True,
                               env={**os.environ, "GOLDEN_RELEASE": release})
        return
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    GENERATOR = torch.Generator()
    for name in names:
        make(name, *all_cases()[name])
        gc.collect()


if __name__ == "__main__":
    main()
