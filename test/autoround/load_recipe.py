#!/usr/bin/env python3
"""Loads recipes into AutoRound as its layer_config= and compares what it makes of every layer; nothing is quantized.

usage: load_recipe.py RECIPE MODEL [--scheme NAME]   one recipe.json of the model in a folder
       load_recipe.py --program PATH                 recipes that the program makes for a tiny model, over many menus

Needs the packages auto-round, transformers and gguf; without them it says so and exits with 77.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

SKIPPED = 77

# Menu, target, more flags. The first scheme is what AutoRound gets as scheme=: its rules on shapes go by it, as ours do.
ASYMMETRIC = '[{"name":"W3G64ASYM","bits":3,"group_size":64,"sym":false},"W4A16"]'
MENUS = [
    ("W2A16,W4A16,W8A16", 4.5, []),
    ("W4A16,W8A16,BF16", 9, ["--ignore-layers", "layers.0.self_attn", "--quant-lm-head"]),
    (ASYMMETRIC, 3.7, []),
    ("W4A16,W3A16,W2A16G32,W5A16,W6A16", 5, ["--layer-config", '{"layers.1.mlp":{"bits":8,"group_size":32}}']),
    ("MXFP4,MXFP8,BF16", 6, []),
    ("MXFP4_RCEIL,MXFP6,MXINT4,MXFP8_RCEIL", 5, []),
    ("NVFP4,FP8_STATIC", 6, []),
    ("NVFP4_E5M3,FPW8A16", 6, []),
    ("FP8_BLOCK,INT4", 6, []),
    ("INT8,INT4,BF16", 7, []),
    ("GGUF:Q4_0,GGUF:Q5_1,GGUF:Q8_0", 6, []),
    ("GGUF:Q4_K_S,GGUF:Q2_K_S,GGUF:Q3_K_S,GGUF:Q5_K_S,GGUF:Q6_K", 4.5, []),
]


LEGACY_GGUF = {"GGUF:Q4_0", "GGUF:Q4_1", "GGUF:Q5_0", "GGUF:Q5_1"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--scheme", help="AutoRound's scheme=; default: see resolve()")
    parser.add_argument("--program")
    arguments = parser.parse_args()
    if bool(arguments.program) == bool(arguments.recipe and arguments.model):
        parser.error("give either RECIPE and MODEL or --program")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["AR_LOG_LEVEL"] = "ERROR"
    try:
        import auto_round  # noqa: F401
        import gguf  # noqa: F401, what AutoRound needs for GGUF types
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}; pip install auto-round transformers gguf")
        return SKIPPED
    if arguments.recipe:
        return check(arguments.recipe, arguments.model, arguments.scheme)
    with tempfile.TemporaryDirectory() as folder:
        model, tokens = os.path.join(folder, "model"), os.path.join(folder, "tokens.json")
        make_model(model, tokens)
        return max(check_menu(arguments.program, model, tokens, os.path.join(folder, "recipe.json"), *menu) for menu in MENUS)


def make_model(folder, tokens):
    """A Llama of two blocks. Rows of 256 hold every k-quant; 160 rows of the k and v projections are no power of two."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=320, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8,
                         num_key_value_heads=4, head_dim=40, tie_word_embeddings=False, max_position_embeddings=64)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    with open(tokens, "w") as file:
        json.dump([[(7 * row + 3 * column) % 320 for column in range(16)] for row in range(4)], file)


def check_menu(program, model, tokens, recipe, menu, target, flags):
    print(f"{menu} at {target} bits: ", end="", flush=True)
    made = subprocess.run([program, "run", "--model", model, "--tokens", tokens, "--options", menu, "--avg-bits", str(target),
                    "--out", recipe, "--batch-size", "2", "--quiet", *flags], stdout=subprocess.DEVNULL)
    return check(recipe, model, None) if made.returncode == 0 else 1


def check(recipe_path, model_folder, scheme):
    from transformers import AutoConfig, AutoModelForCausalLM

    with open(recipe_path) as file:
        recipes = json.load(file)["recipes"]
    for recipe in recipes:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_folder))
        model.config._name_or_path = model_folder
        wrong = compare(recipe["layer_config"], resolve(model, recipe, scheme))
        if wrong:
            print(f"{len(wrong)} differences, the first ones:", *wrong[:5], sep="\n  ")
            return 1
    print(f"{len(recipe['layer_config'])} layers are as written")
    return 0


def resolve(model, recipe, scheme):
    """AutoRound's own resolution: {layer: fields}."""
    from auto_round import AutoRound

    free = [fields for name, fields in recipe["layer_config"].items() if name not in set(recipe["fixed_layers"])]
    names = [fields["scheme"] for fields in free if "scheme" in fields]
    k_quants = [fields["scheme"] for fields in free if fields.get("super_bits")]
    # By a k-quant AutoRound knows that embeddings take part; but with one it overrules the stand-ins of rows that k-quants do
    # not divide, Q4_1 by Q5_0.
    default = "W4A16" if LEGACY_GGUF & set(names) else (k_quants + names + ["W4A16"])[0]
    rounding = AutoRound(model, tokenizer=object(), scheme=scheme or default, iters=0, nsamples=1, seqlen=8,
                         device_map="cpu", disable_model_free=True, layer_config=recipe["layer_config"])
    rounding.post_init()
    return rounding.layer_config


def compare(written, resolved):
    wrong = []
    for name, fields in written.items():
        if name not in resolved and "embed" in name:
            print(f"{name} is left alone by this scheme=; ", end="")
            continue
        if name not in resolved:
            wrong.append(f"{name} is not among AutoRound's layers")
            continue
        for field, value in fields.items():
            if field == "scheme":
                continue
            got = resolved[name].get(field)
            got = list(got) if isinstance(got, tuple) else got
            if got != value:
                wrong.append(f"{name}: {field} is {got}, written {value}")
    quantized = {name for name, fields in resolved.items() if (fields.get("bits") or 16) <= 8}
    wrong += [f"{name} is quantized by AutoRound and not in the recipe" for name in sorted(quantized - set(written))]
    return wrong


if __name__ == "__main__":
    sys.exit(main())
