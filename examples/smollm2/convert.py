#!/usr/bin/env python3
"""Turns a Llama-architecture GGUF file into a Hugging Face folder: config.json and a bfloat16 model.safetensors.

usage: convert.py SOURCE.gguf FOLDER

Needs the packages gguf and numpy. Weights pass through one at a time. FOLDER appears only when it is complete; one that is there
and holds anything is left alone.
"""

import json
import os
import shutil
import struct
import sys

import numpy
from gguf import GGUFReader, dequantize

# GGUF spelling -> Hugging Face spelling.
OUTER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__.strip())
    source, folder = arguments
    if os.path.isdir(folder) and os.listdir(folder):
        sys.exit(f"{folder}: is there already, with other files; name another place or remove it")
    reader = GGUFReader(source)
    if field(reader, "general.architecture") != "llama":
        sys.exit(f"{source}: architecture {field(reader, 'general.architecture')!r}; only 'llama' is understood")

    tensors = {hugging_face_name(tensor.name, source): tensor for tensor in reader.tensors}
    partial = folder.rstrip("/") + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    write_config(reader, tensors, os.path.join(partial, "config.json"))
    write_weights(reader, tensors, os.path.join(partial, "model.safetensors"))
    os.rename(partial, folder)
    print(f"{folder}: {len(tensors)} tensors")


def field(reader, key):
    if key not in reader.fields:
        sys.exit(f"the GGUF file has no field {key!r}")
    return reader.fields[key].contents()


def hugging_face_name(name, source):
    if name in OUTER_TENSORS:
        return OUTER_TENSORS[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in BLOCK_MODULES:
        return f"model.layers.{parts[1]}.{BLOCK_MODULES[parts[2]]}.{parts[3]}"
    sys.exit(f"{source}: tensor {name!r} is not one that a Llama model has")


def write_config(reader, tensors, path):
    heads = field(reader, "llama.attention.head_count")
    hidden = field(reader, "llama.embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": field(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "rms_norm_eps": field(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": field(reader, "llama.rope.freq_base"),
        "max_position_embeddings": field(reader, "llama.context_length"),
        "vocab_size": matrix_shape(tensors["model.embed_tokens.weight"])[0],
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "torch_dtype": "bfloat16",
        "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
        "attention_bias": False,
        "mlp_bias": False,
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)


def write_weights(reader, tensors, path):
    heads_of = {
        "q_proj": field(reader, "llama.attention.head_count"),
        "k_proj": field(reader, "llama.attention.head_count_kv"),
    }
    names = sorted(tensors)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        shape = matrix_shape(tensors[name])
        end = offset + 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in names:
            weight = dequantize(tensors[name].data, tensors[name].tensor_type)
            module = name.split(".")[-2]
            if module in heads_of:
                weight = halves_from_pairs(weight, heads_of[module])
            file.write(bfloat16(weight).tobytes())


def matrix_shape(tensor):
    # GGUF names the fastest dimension first.
    return [int(size) for size in reversed(tensor.shape)]


def halves_from_pairs(weight, heads):
    """Rotary embedding: GGUF keeps the two rows of a rotation side by side, Hugging Face half a head apart."""
    rows_of_head = weight.shape[0] // heads
    paired = weight.reshape(heads, rows_of_head // 2, 2, -1)
    return paired.transpose(0, 2, 1, 3).reshape(weight.shape)


def bfloat16(values):
    """The upper halves of float32 numbers, rounded to nearest, ties to even. The numbers must be finite."""
    bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
    lowest_kept_bit = (bits >> 16) & 1
    return ((bits + 0x7FFF + lowest_kept_bit) >> 16).astype("<u2")


if __name__ == "__main__":
    main(sys.argv[1:])
