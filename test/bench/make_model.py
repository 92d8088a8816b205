#!/usr/bin/env python3
"""Writes a checkpoint of a real model's shape with random bfloat16 weights, for measurements of memory and time.

The folder gets config.json, safetensors shards with their index, and tokens.json (16 rows of 256 ids). Weights are
N(0, 0.02), norms are near 1. Tensors are written one after the other, so memory does not grow with the model. Same
arguments, same bytes. Needs nothing but Python.
"""
import argparse
import array
import json
import os
import random
import struct

SHAPES = {
    "tinyllama-1.1b": dict(model_type="llama", hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
                           num_key_value_heads=4, head_dim=64, vocab_size=32000, rms_norm_eps=1e-5, rope_theta=10000.0,
                           max_position_embeddings=2048, tie_word_embeddings=False),
    "llama-3.1-8b": dict(model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                         num_key_value_heads=8, head_dim=128, vocab_size=128256, rms_norm_eps=1e-5, rope_theta=500000.0,
                         max_position_embeddings=131072, tie_word_embeddings=False,
                         rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                           original_max_position_embeddings=8192)),
    "qwen3-0.6b": dict(model_type="qwen3", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
                       num_key_value_heads=8, head_dim=128, vocab_size=151936, rms_norm_eps=1e-6, rope_theta=1000000.0,
                       max_position_embeddings=40960, tie_word_embeddings=True),
}
ARCHITECTURES = dict(llama="LlamaForCausalLM", qwen3="Qwen3ForCausalLM")
STD_DEV = 0.02


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder")
    parser.add_argument("--blocks", type=int, help="so many blocks instead of all")
    parser.add_argument("--shrink", type=int, default=1, metavar="K", help="divide heads, widths and vocabulary by K")
    parser.add_argument("--shard-bytes", type=int, default=5 * 10**9, help="most of one file (default 5 GB, as on the hub)")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()

    config = shrunk(SHAPES[args.shape], args.shrink)
    if args.blocks:
        config["num_hidden_layers"] = args.blocks
    write_model(args.folder, config, args.shard_bytes, args.seed)


def write_model(folder, config, shard_bytes=5 * 10**9, seed=5, log=None):
    rng = random.Random(seed)
    os.makedirs(folder, exist_ok=True)
    write_json(folder, "config.json", dict(config, architectures=[ARCHITECTURES[config["model_type"]]], hidden_act="silu",
                                           attention_bias=False, torch_dtype="bfloat16"))
    write_weights(folder, tensors_of(config), shard_bytes, rng, log)
    write_json(folder, "tokens.json",
               {"input_ids": [[rng.randrange(config["vocab_size"]) for _ in range(256)] for _ in range(16)]})


def shrunk(config, k):
    config = dict(config)
    if k > 1:
        for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
            config[key] = max(config[key] // k, 1)
        config["hidden_size"] = max(config["hidden_size"] // k, 1)
    return config


def tensors_of(c):
    """Names and shapes, in the hub's order."""
    hidden, mlp = c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", [c["vocab_size"], hidden]
    for block in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        yield prefix + "input_layernorm.weight", [hidden]
        yield prefix + "self_attn.q_proj.weight", [q, hidden]
        yield prefix + "self_attn.k_proj.weight", [kv, hidden]
        yield prefix + "self_attn.v_proj.weight", [kv, hidden]
        if c["model_type"] == "qwen3":
            yield prefix + "self_attn.q_norm.weight", [c["head_dim"]]
            yield prefix + "self_attn.k_norm.weight", [c["head_dim"]]
        yield prefix + "self_attn.o_proj.weight", [hidden, q]
        yield prefix + "post_attention_layernorm.weight", [hidden]
        yield prefix + "mlp.gate_proj.weight", [mlp, hidden]
        yield prefix + "mlp.up_proj.weight", [mlp, hidden]
        yield prefix + "mlp.down_proj.weight", [hidden, mlp]
    yield "model.norm.weight", [hidden]
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", [c["vocab_size"], hidden]


def write_weights(folder, tensors, shard_bytes, rng, log):
    shards = [[]]
    used = total = 0
    for name, shape in tensors:
        size = 2 * product(shape)
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append((name, shape, size))
        used += size
        total += size

    normals = Normals(rng)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(os.path.join(folder, file), shard, normals)
        weight_map.update((name, file) for name, _, _ in shard)
        print(f"{folder}/{file}: {sum(size for _, _, size in shard) / 1e9:.2f} GB", file=log)
    if len(shards) > 1:
        write_json(folder, "model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=weight_map))


def write_shard(path, tensors, normals):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, size in tensors:
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[offset, offset + size])
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, shape, size in tensors:
            if len(shape) == 1:
                out.write(normals.around_one(shape[0]))
            else:
                normals.write(out, size)


class Normals:
    """Bfloat16 bytes of normal numbers. Matrices are pieces of one tile, each from another place in it: as good for
    quantizers as fresh numbers, and as fast as the disk."""

    PIECE = 1 << 20  # bytes

    def __init__(self, rng):
        self.rng = rng
        self.tile = bfloat16(rng.gauss(0, STD_DEV) for _ in range(2 * self.PIECE))

    def write(self, out, size):
        view = memoryview(self.tile)
        while size > 0:
            piece = min(size, self.PIECE)
            start = 2 * self.rng.randrange((len(self.tile) - piece) // 2 + 1)
            out.write(view[start:start + piece])
            size -= piece

    def around_one(self, count):
        return bfloat16(1 + self.rng.gauss(0, STD_DEV) for _ in range(count))


def bfloat16(numbers):
    """The upper halves of the float32s."""
    floats = array.array("f", numbers).tobytes()
    halves = bytearray(len(floats) // 2)
    halves[0::2], halves[1::2] = floats[2::4], floats[3::4]
    return bytes(halves)


def product(shape):
    result = 1
    for dimension in shape:
        result *= dimension
    return result


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as out:
        json.dump(value, out, indent=1)


if __name__ == "__main__":
    main()
