#!/usr/bin/env python3
"""Scores a Llama model as other programs do, by their published formulas: one scores.json for each, for `autoscheme select`.

usage: test/bench/rivals.py --model DIR --tokens FILE --scores SCORES.json --out FOLDER [--rivals NAME,NAME] [--rows N] [--alphas FILE]
       test/bench/rivals.py --model DIR --tokens FILE --kl NAME,NAME

SCORES.json is the program's own, by whichever scorer: layers, menu and bits are taken from it, the losses are replaced, and
FOLDER/NAME.json is written; an embedding keeps what SCORES.json says. With y = x W^T of a layer in the unquantized network,
and Wq the quantized weight, k-quants in their form without a search:

  modelopt  NVIDIA ModelOpt's auto_quantize by gradients: sum over tokens and outputs of g^2 (y - yq)^2, where g is the gradient
            at y of the text's cross entropy, and yq has quantized inputs too where the scheme quantizes them
  higgs     Malinovskii et al., Pushing the Limits of Large Language Model Quantization via the Linearity Theorem (2024):
            alpha |W - Wq|^2 / |W|^2. alpha is measured: of Gaussian noise of relative size t in this layer alone, the least
            squares fit of the relative entropy by alpha t^2. No menu enters it, so it is read from --alphas if that is there
  imatrix   the error that llama.cpp's quantizers weigh: sum over columns of mean x^2 (W - Wq)^2
  position  no measurement: weights * 4^(more - bits), where a layer wants one bit more in the first or last eighth of the blocks,
            and one more if it is v_proj or down_proj, as llama.cpp's mixtures do

--kl instead prints what a scheme in all layers does to the predictions, in nats per token, which `autoscheme eval` measures too:
so this network and these quantizers can be held against the program's.

Needs numpy only. Run with .deps/python/bin/python, which has it.
"""
import argparse
import json
import pathlib
import sys

import numpy

BATCH_ROWS = 8
NOISE = [0.1, 0.2]
RIVALS = ["modelopt", "imatrix", "position", "higgs"]
LAYERS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
          "mlp.down_proj"]


# ---- Quantize-dequantize: docs/algorithm.md, section 4. ----

def quantized(values, scheme, bits, group, kind):
    """What a scheme's weight or input becomes. Groups run along rows; the last of a row is filled up with zeros."""
    columns = values.shape[-1]
    group = min(group, columns)
    filling = -columns % group
    filled = numpy.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, filling)]) if filling else values
    rows = filled.reshape(-1, group)
    if kind == "int":
        rows = symmetric(rows, bits)
    elif kind == "int_asym_float_zp":
        rows = asymmetric(rows, bits)
    elif kind == "mx_fp":
        rows = mx(rows, bits)
    elif kind == "int_asym_dq":
        rows = k_quant_asymmetric(rows, bits, scheme["super_bits"], scheme["super_group_size"])
    elif kind == "int_sym_dq":
        rows = k_quant_symmetric(rows, bits, scheme["super_bits"], scheme["super_group_size"])
    else:
        sys.exit(f"data type {kind} is not one that this script quantizes")
    return rows.reshape(filled.shape)[..., :columns]


def half(values):
    return values.astype(numpy.float16).astype(numpy.float32)


def signed_peak(rows):
    """By group what falls on the lowest code: the negated peak of the larger side."""
    low, high = -numpy.minimum(rows.min(1), 0), numpy.maximum(rows.max(1), 0)
    return numpy.where(high < low, low, -high)


def symmetric(rows, bits):
    top, least = 2 ** (bits - 1), half(numpy.float32(1e-5))
    scale = half(signed_peak(rows) / top)
    scale = numpy.where(scale < 0, numpy.minimum(scale, -least), numpy.maximum(scale, least))[:, None]
    return numpy.clip(numpy.rint(rows / scale), -top, top - 1) * scale


def asymmetric(rows, bits):
    top = 2 ** bits - 1
    low, high = numpy.minimum(rows.min(1), 0), numpy.maximum(rows.max(1), 0)
    scale = numpy.maximum(half((high - low) / top), half(numpy.float32(1e-5)))[:, None]
    zero = -low[:, None] / scale
    return scale * (numpy.clip(numpy.rint(rows / scale) + zero, 0, top) - zero)


def mx(rows, bits):
    codes, most, least, top = {4: (2, 2, 0, 6), 6: (8, 2, 0, 7.5), 8: (8, 8, -6, 448)}[bits]
    peak = numpy.abs(rows).max(1)
    exponent = numpy.where(peak > 0, numpy.floor(numpy.log2(numpy.maximum(peak, 1e-38))), 1) - most
    scale = numpy.exp2(numpy.clip(exponent, -127, 127)).astype(numpy.float32)[:, None]
    scaled = numpy.clip(rows / scale, -top, top)
    binade = numpy.floor(numpy.log2(numpy.maximum(numpy.abs(scaled), 2.0 ** least)))
    step = numpy.exp2(binade).astype(numpy.float32) / codes
    return numpy.clip(numpy.rint(scaled / step) * step, -top, top) * scale


def over(values, divisor):
    """Quotients, 0 where there is nothing to divide by."""
    return numpy.divide(values, divisor, out=numpy.zeros_like(values), where=divisor != 0)


def k_quant_asymmetric(rows, bits, super_bits, groups):
    top, most = 2 ** bits - 1, 2 ** super_bits - 1

    def coded(factors):
        factors = factors.reshape(-1, groups)
        peak = numpy.broadcast_to(numpy.maximum(factors.max(1, keepdims=True), 0), factors.shape)
        return (numpy.minimum(numpy.rint(over(factors * most, peak)), most) * (peak / most)).reshape(-1, 1)

    low, high = numpy.minimum(rows.min(1), 0), numpy.maximum(rows.max(1), 0)
    scale = numpy.maximum(coded(numpy.maximum((high - low) / top, 1e-8)), 1e-8)
    minimum = coded(-low)
    return (scale * numpy.clip(numpy.rint((rows + minimum) / scale), 0, top) - minimum).astype(numpy.float32)


def k_quant_symmetric(rows, bits, super_bits, groups):
    top, most = 2 ** (bits - 1), 2 ** (super_bits - 1)
    factors = (signed_peak(rows) / top).reshape(-1, groups)
    peak = numpy.take_along_axis(factors, numpy.abs(factors).argmax(1)[:, None], 1) / -most
    codes = numpy.clip(numpy.rint(over(factors, numpy.broadcast_to(peak, factors.shape))), -most, most - 1)
    scale = numpy.broadcast_to((codes * peak).reshape(-1, 1), rows.shape)
    return (scale * numpy.clip(numpy.rint(over(rows, scale)), -top, top - 1)).astype(numpy.float32)


def stand_in(scheme, columns):
    """The scheme that files hold instead of a k-quant whose blocks of 256 weights do not divide the rows."""
    if not scheme["data_type"].endswith("_dq") or columns % 256 == 0:
        return scheme
    bits, kind = {4: (4, "int_asym_float_zp"), 5: (5, "int_asym_float_zp"), 6: (8, "int")}.get(scheme["bits"], (5, "int"))
    return {"bits": bits, "group_size": 32, "data_type": kind, "act_bits": 16}


def quantized_weight(weight, scheme):
    scheme = stand_in(scheme, weight.shape[1])
    return quantized(weight, scheme, scheme["bits"], scheme["group_size"], scheme["data_type"])


def quantized_input(inputs, scheme):
    if scheme.get("act_bits", 16) > 8:
        return inputs
    return quantized(inputs, scheme, scheme["act_bits"], scheme["act_group_size"], scheme["act_data_type"])


# ---- The network: Llama in float32, forward with what backward needs, and backward. ----

def read_model(folder):
    """config.json, and the tensors of one bfloat16 safetensors file as float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    data = numpy.memmap(folder / "model.safetensors", dtype=numpy.uint8, mode="r")
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8:start]))
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            wide = data[start + first:start + last].view("<u2").astype(numpy.uint32) << 16
            tensors[name] = wide.view(numpy.float32).reshape(entry["shape"])
    return config, tensors


def rows_of(path, nsamples, seqlen):
    rows = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    rows = rows["input_ids"] if isinstance(rows, dict) else rows
    return numpy.array([row[:seqlen] for row in rows[:nsamples]])


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))


class Llama:
    """Activations are [rows, tokens, features]. `scheme`, where given, quantizes the inputs of all layers."""

    def __init__(self, folder):
        self.config, self.tensors = read_model(folder)
        self.blocks, self.heads = self.config["num_hidden_layers"], self.config["num_attention_heads"]
        self.groups, self.size = self.config["num_key_value_heads"], self.config["head_dim"]
        self.scheme = {}

    def weight(self, block, layer):
        return self.tensors[f"model.layers.{block}.{layer}.weight"]

    def head(self):
        return self.tensors.get("lm_head.weight", self.tensors["model.embed_tokens.weight"])

    def norm(self, inputs, weight):
        inverse = 1 / numpy.sqrt((inputs * inputs).mean(-1, keepdims=True) + numpy.float32(self.config["rms_norm_eps"]))
        return inputs * inverse * weight, inverse

    def norm_back(self, gradient, inputs, inverse, weight):
        scaled = gradient * weight
        return inverse * scaled - inputs * inverse ** 3 * (inputs * scaled).mean(-1, keepdims=True)

    def turned(self, values, way=1):
        """Rotary embedding of [rows, heads, tokens, size]; way = -1 turns back, which is its gradient."""
        half_size = self.size // 2
        rates = self.config["rope_theta"] ** (-numpy.arange(half_size) / half_size)
        angles = numpy.arange(values.shape[2])[:, None] * rates
        cosine, sine = numpy.cos(angles).astype(numpy.float32), way * numpy.sin(angles).astype(numpy.float32)
        first, second = values[..., :half_size], values[..., half_size:]
        return numpy.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)

    def by_head(self, values, heads):
        return values.reshape(*values.shape[:2], heads, self.size).swapaxes(1, 2)

    def by_token(self, values):
        values = values.swapaxes(1, 2)
        return numpy.ascontiguousarray(values).reshape(*values.shape[:2], -1)

    def shared(self, values):
        """Heads of keys or values, each as often as queries share it."""
        return numpy.repeat(values, self.heads // self.groups, axis=1)

    def unshared(self, gradient):
        return gradient.reshape(gradient.shape[0], self.groups, -1, *gradient.shape[2:]).sum(2)

    def block(self, number, hidden):
        """A block's output, and all that its backward pass needs: `inputs` has the input of each layer."""
        inputs, kept = {}, {"hidden": hidden}

        def layer(name, values):
            inputs[name] = values
            return quantized_input(values, self.scheme) @ self.weight(number, name).T

        prefix = f"model.layers.{number}."
        normed, kept["inverse_1"] = self.norm(hidden, self.tensors[prefix + "input_layernorm.weight"])
        queries = self.turned(self.by_head(layer("self_attn.q_proj", normed), self.heads))
        keys = self.turned(self.by_head(layer("self_attn.k_proj", normed), self.groups))
        values = self.by_head(layer("self_attn.v_proj", normed), self.groups)
        scores = queries @ self.shared(keys).swapaxes(2, 3) / numpy.float32(self.size ** 0.5)
        scores += numpy.triu(numpy.full(scores.shape[-2:], -numpy.inf, numpy.float32), 1)
        attention = numpy.exp(log_softmax(scores))
        middle = hidden + layer("self_attn.o_proj", self.by_token(attention @ self.shared(values)))
        normed, kept["inverse_2"] = self.norm(middle, self.tensors[prefix + "post_attention_layernorm.weight"])
        gate, up = layer("mlp.gate_proj", normed), layer("mlp.up_proj", normed)
        sigmoid = 1 / (1 + numpy.exp(-gate))
        kept |= {"queries": queries, "keys": keys, "values": values, "attention": attention, "middle": middle, "gate": gate, "up": up,
                 "sigmoid": sigmoid, "inputs": inputs}
        return middle + layer("mlp.down_proj", gate * sigmoid * up), kept

    def block_back(self, number, kept, gradient):
        """The gradient at the block's input, and that at each layer's output."""
        at = {"mlp.down_proj": gradient}

        def back(name):
            return at[name] @ self.weight(number, name)

        prefix = f"model.layers.{number}."
        product = back("mlp.down_proj")
        sigmoid, gate = kept["sigmoid"], kept["gate"]
        at["mlp.up_proj"] = product * gate * sigmoid
        at["mlp.gate_proj"] = product * kept["up"] * sigmoid * (1 + gate * (1 - sigmoid))
        middle = gradient + self.norm_back(back("mlp.gate_proj") + back("mlp.up_proj"), kept["middle"], kept["inverse_2"],
                                           self.tensors[prefix + "post_attention_layernorm.weight"])
        at["self_attn.o_proj"] = middle
        mixed = self.by_head(back("self_attn.o_proj"), self.heads)
        attention = kept["attention"]
        at["self_attn.v_proj"] = self.by_token(self.unshared(attention.swapaxes(2, 3) @ mixed))
        weights = mixed @ self.shared(kept["values"]).swapaxes(2, 3)
        scores = attention * (weights - (attention * weights).sum(-1, keepdims=True)) / numpy.float32(self.size ** 0.5)
        at["self_attn.q_proj"] = self.by_token(self.turned(scores @ self.shared(kept["keys"]), -1))
        at["self_attn.k_proj"] = self.by_token(self.turned(self.unshared(scores.swapaxes(2, 3) @ kept["queries"]), -1))
        entered = back("self_attn.q_proj") + back("self_attn.k_proj") + back("self_attn.v_proj")
        return middle + self.norm_back(entered, kept["hidden"], kept["inverse_1"], self.tensors[prefix + "input_layernorm.weight"]), at

    def embedded(self, ids):
        return self.tensors["model.embed_tokens.weight"][ids]

    def predictions(self, hidden):
        """Log probabilities of the token behind each but the last."""
        normed, _ = self.norm(hidden[:, :-1], self.tensors["model.norm.weight"])
        return log_softmax(normed @ self.head().T)

    def loss_back(self, hidden, ids):
        """The gradient at the last block's output of the cross entropy, summed over the predictions."""
        gradient = numpy.exp(self.predictions(hidden))
        rows, places = numpy.indices((ids.shape[0], ids.shape[1] - 1))
        gradient[rows, places, ids[:, 1:]] -= 1
        at_norm = numpy.zeros_like(hidden)
        at_norm[:, :-1] = gradient @ self.head()
        weight = self.tensors["model.norm.weight"]
        return self.norm_back(at_norm, hidden, self.norm(hidden, weight)[1], weight)


def relative_entropy(full, other):
    return float((numpy.exp(full) * (full - other)).sum(-1, dtype=numpy.float64).mean())


# ---- The rivals. ----

def layer_names(model):
    return [(block, layer, f"model.layers.{block}.{layer}") for block in range(model.blocks) for layer in LAYERS]


def output_errors(model, ids, menu, wanted):
    """By rival, scheme and layer what one pass over the calibration measures: the losses of modelopt and imatrix."""
    found = {rival: {scheme: {name: 0.0 for _, _, name in layer_names(model)} for scheme in menu} for rival in ("modelopt", "imatrix")}
    batches = [ids[first:first + BATCH_ROWS] for first in range(0, len(ids), BATCH_ROWS)]
    for batch in batches:
        hidden, kept = model.embedded(batch), []
        for block in range(model.blocks):
            hidden, one = model.block(block, hidden)
            kept.append(one)
        gradient = model.loss_back(hidden, batch) if "modelopt" in wanted else None
        for block in reversed(range(model.blocks)):
            one = kept.pop()
            if gradient is not None:
                gradient, at = model.block_back(block, one, gradient)
            for layer in LAYERS:
                name, inputs, weight = f"model.layers.{block}.{layer}", one["inputs"][layer], model.weight(block, layer)
                squares = (inputs * inputs).sum((0, 1), dtype=numpy.float64) / ids.size
                for scheme, fields in menu.items():
                    rounded = quantized_weight(weight, fields)
                    found["imatrix"][scheme][name] += float((((weight - rounded) ** 2).sum(0, dtype=numpy.float64) * squares).sum())
                    if gradient is not None:
                        error = inputs @ weight.T - quantized_input(inputs, fields) @ rounded.T
                        found["modelopt"][scheme][name] += float(((at[layer] * error) ** 2).sum(dtype=numpy.float64))
    return {rival: losses for rival, losses in found.items() if rival in wanted}


def measured_alphas(model, ids):
    """By layer the least squares fit of the relative entropy by alpha t^2. Blocks before the layer's are computed once."""
    hidden, entered = model.embedded(ids), []
    for block in range(model.blocks):
        entered.append(hidden)
        hidden, _ = model.block(block, hidden)
    full, random, alphas = model.predictions(hidden), numpy.random.default_rng(1), {}
    for block, layer, name in layer_names(model):
        weight, entropies = model.weight(block, layer), []
        direction = random.standard_normal(weight.shape, dtype=numpy.float32)
        direction *= numpy.linalg.norm(weight) / numpy.linalg.norm(direction)
        for t in NOISE:
            model.tensors[name + ".weight"] = weight + numpy.float32(t) * direction
            hidden = entered[block]
            for later in range(block, model.blocks):
                hidden, _ = model.block(later, hidden)
            entropies.append(relative_entropy(full, model.predictions(hidden)))
        model.tensors[name + ".weight"] = weight
        alphas[name] = sum(kl * t ** 2 for kl, t in zip(entropies, NOISE)) / sum(t ** 4 for t in NOISE)
        print(f"{name}: alpha {alphas[name]:.4g} of {', '.join(f'{kl:.3g}' for kl in entropies)}", flush=True)
    return alphas


def linear_model(model, alphas, menu):
    losses = {}
    for scheme, fields in menu.items():
        losses[scheme] = {}
        for block, layer, name in layer_names(model):
            weight = model.weight(block, layer)
            error = ((weight - quantized_weight(weight, fields)) ** 2).sum(dtype=numpy.float64)
            losses[scheme][name] = alphas[name] * float(error / (weight ** 2).sum(dtype=numpy.float64))
    return losses


def by_position(model, menu):
    def more(block, layer):
        at_an_end = block < model.blocks // 8 or block >= model.blocks - model.blocks // 8
        return at_an_end + (layer in ("self_attn.v_proj", "mlp.down_proj"))

    return {scheme: {name: model.weight(block, layer).size * 4.0 ** (more(block, layer) - stand_in(fields, model.weight(
        block, layer).shape[1])["bits"]) for block, layer, name in layer_names(model)} for scheme, fields in menu.items()}


def all_losses(model, args, menu, wanted):
    """Each rival's losses as soon as they are there: the slowest comes last."""
    ids = rows_of(args.tokens, args.rows, args.seqlen)
    if "modelopt" in wanted or "imatrix" in wanted:
        yield from output_errors(model, ids, menu, wanted).items()
    if "position" in wanted:
        yield "position", by_position(model, menu)
    if "higgs" in wanted:
        kept = args.alphas or args.out / "alphas.json"
        if not kept.exists():
            kept.write_text(json.dumps(measured_alphas(model, ids[:args.higgs_rows]), indent=1), encoding="utf-8")
        yield "higgs", linear_model(model, json.loads(kept.read_text(encoding="utf-8")), menu)


def write_scores(template, losses, path):
    """The program takes no scores of scorers that it does not know. Under fisher's name `weight` is the whole loss, which fits."""
    page = json.loads(json.dumps(template)) | {"scorer": "fisher", "ce_loss": {scheme: [] for scheme in template["menu"]}}
    for scheme, layers in page["schemes"].items():
        for name in losses[scheme]:
            entry = layers[name]
            entry.pop("standard_error", None)
            entry.update(loss=losses[scheme][name], weight=losses[scheme][name], activation=0)
    path.write_text(json.dumps(page, indent=1), encoding="utf-8")


def print_entropies(model, args):
    fields = {"W": {"group_size": 128, "data_type": "int", "act_bits": 16}, "MXFP": {"group_size": 32, "data_type": "mx_fp"}}
    k_quants = {"GGUF:Q2_K_S": (2, 16, "int_asym_dq", 4, 16), "GGUF:Q3_K_S": (3, 16, "int_sym_dq", 6, 16),
                "GGUF:Q4_K_S": (4, 32, "int_asym_dq", 6, 8), "GGUF:Q5_K_S": (5, 32, "int_asym_dq", 6, 8),
                "GGUF:Q6_K": (6, 16, "int_sym_dq", 8, 16)}
    ids, original = rows_of(args.tokens, args.rows, args.seqlen), dict(model.tensors)

    def predictions():
        hidden = model.embedded(ids)
        for block in range(model.blocks):
            hidden, _ = model.block(block, hidden)
        return model.predictions(hidden)

    full = predictions()
    for name in args.kl.split(","):
        if name in k_quants:
            scheme = dict(zip(["bits", "group_size", "data_type", "super_bits", "super_group_size"], k_quants[name]))
        elif name.startswith("MXFP"):
            scheme = {**fields["MXFP"], "bits": int(name[4:]), "act_bits": int(name[4:]), "act_group_size": 32, "act_data_type": "mx_fp"}
        else:
            scheme = {**fields["W"], "bits": int(name[1])}
        model.scheme = scheme
        for block, layer, key in layer_names(model):
            model.tensors[key + ".weight"] = quantized_weight(original[key + ".weight"], scheme)
        print(f"{name} {relative_entropy(full, predictions()):.6f}", flush=True)
        model.scheme, model.tensors = {}, dict(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--scores")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--rivals", default=",".join(RIVALS))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--alphas", type=pathlib.Path, help="default: FOLDER/alphas.json")
    parser.add_argument("--higgs-rows", type=int, default=2, help="rows that alphas are measured on")
    parser.add_argument("--seqlen", type=int, default=128)
    parser.add_argument("--kl", metavar="SCHEMES")
    args = parser.parse_args()
    model = Llama(args.model)
    if args.kl:
        print_entropies(model, args)
        return
    if not args.scores or not args.out:
        parser.error("--scores and --out, or --kl")
    template = json.loads(pathlib.Path(args.scores).read_text(encoding="utf-8"))
    args.out.mkdir(parents=True, exist_ok=True)
    for rival, losses in all_losses(model, args, template["menu"], args.rivals.split(",")):
        write_scores(template, losses, args.out / f"{rival}.json")


if __name__ == "__main__":
    main()
