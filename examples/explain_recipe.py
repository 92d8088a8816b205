#!/usr/bin/env python3
"""Says in plain words what the recipes in a file do to a model.

usage: explain_recipe.py RECIPE.json MODEL_FOLDER

Needs nothing but Python. Reads the sizes of the layers from the headers of the folder's safetensors files.
"""

import collections
import glob
import json
import math
import os
import re
import struct
import sys
import textwrap


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__.strip())
    recipe_path, folder = arguments
    with open(recipe_path, encoding="utf-8") as file:
        recipes = json.load(file)["recipes"]
    shapes, stored_bytes = read_tensor_headers(folder)
    for recipe in recipes:
        explain(recipe, shapes, stored_bytes)


def read_tensor_headers(folder):
    shapes, stored_bytes = {}, {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                shapes[name] = tensor["shape"]
                stored_bytes[name] = tensor["data_offsets"][1] - tensor["data_offsets"][0]
    return shapes, stored_bytes


def explain(recipe, shapes, stored_bytes):
    choice = {layer: entry["bits"] for layer, entry in recipe["layer_config"].items()}
    tensor = {layer: weight_of(layer, shapes) for layer in choice}
    weights = {layer: math.prod(shapes[tensor[layer]]) for layer in choice}
    layer_bytes_before = sum(stored_bytes[name] for name in tensor.values())
    layer_bytes_after = recipe["avg_bits"] * sum(weights.values()) / 8
    model_bytes_before = sum(stored_bytes.values())
    model_bytes_after = model_bytes_before - layer_bytes_before + layer_bytes_after

    say(f"In plain words, for the budget of {recipe['target_avg_bits']:g} bits a weight", wrap=False)
    say(
        f"The model's {len(choice)} linear layers hold {sum(weights.values()) / 1e6:.1f} million weights. They shrink from "
        f"{megabytes(layer_bytes_before)} to {megabytes(layer_bytes_after)} ({recipe['avg_bits']:.3f} bits a weight, "
        f"scales included); the whole model from {megabytes(model_bytes_before)} to {megabytes(model_bytes_after)}; "
        "its other tensors stay as they are."
    )
    count = collections.Counter(choice.values())
    say("Bits of a weight: " + ", ".join(f"{bits} in {count[bits]} layers" for bits in sorted(count)) + ".")

    groups = collections.defaultdict(list)
    for layer in choice:
        groups[kind(layer)].append(layer)
    average = {name: mean_bits(layers, choice, weights) for name, layers in groups.items()}
    order = sorted(average, key=average.get, reverse=True)
    say("By kind of layer, from spared to squeezed: " + ", ".join(f"{name} {average[name]:.2f}" for name in order) + ".")

    depth = depth_thirds(choice)
    if len(depth) == 3:
        parts = [f"{name} third {mean_bits(layers, choice, weights):.2f}" for name, layers in depth.items()]
        say("By depth: " + ", ".join(parts) + ".")
    most = [layer for layer in choice if choice[layer] == max(count)]
    say(f"The most bits, {max(count)}, went to {shown(most)}.")
    print()


def weight_of(layer, shapes):
    name = layer + ".weight"
    if name in shapes:
        return name
    embedding = "model.embed_tokens.weight"
    if layer == "lm_head" and embedding in shapes:  # tied
        return embedding
    # The stored names of a multimodal model have another prefix than its modules.
    inside = name[name.find("layers.") :]
    others = [n for n in shapes if n.endswith("." + inside) and not re.search("vision|visual|audio", n)]
    if inside.startswith("layers.") and len(others) == 1:
        return others[0]
    sys.exit(f"the recipe names {layer!r}, but the model has no tensor {name!r}")


def kind(layer):
    """The layer's own name: "q_proj" of "model.layers.0.self_attn.q_proj"."""
    return layer.rsplit(".", 1)[-1]


def depth_thirds(choice):
    blocks = {layer: int(match.group(1)) for layer in choice if (match := re.search(r"\.(\d+)\.", layer))}
    if not blocks or max(blocks.values()) < 2:
        return {}
    thirds = {"first": [], "middle": [], "last": []}
    for layer, block in blocks.items():
        thirds[list(thirds)[3 * block // (max(blocks.values()) + 1)]].append(layer)
    return thirds


def mean_bits(layers, choice, weights):
    return sum(choice[layer] * weights[layer] for layer in layers) / sum(weights[layer] for layer in layers)


def shown(layers, most=3):
    text = ", ".join(layers[:most])
    return text if len(layers) <= most else f"{text} and {len(layers) - most} more"


def megabytes(size):
    return f"{size / 1e6:.1f} MB"


def say(text, wrap=True):
    print(textwrap.fill(text, 110) if wrap else text + "\n" + "-" * len(text))


if __name__ == "__main__":
    main(sys.argv[1:])
