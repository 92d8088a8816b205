#!/usr/bin/env python3
"""Picks small cases out of a folder of quant-dequant fixtures and writes them in the same format.

usage: make_qdq_subset.py FIXTURES/qdq OUT [BYTES]

Every file keeps its smallest case; then forced inputs (groups of zeros, huge values) for one file of each family; then
further small cases with another kind of input, file by file, while BYTES (default 300000) of tensors last.
"""
import json
import os
import struct
import sys

KEPT = ("x", "g", "y", "dx", "imatrix")
FORCED = [("int_sym_w4", "special_huge"), ("mxfp4_weight", "special_zero"), ("mxfp8_act", "special_zero"),
          ("nvfp4_weight", "special_zero"), ("nvfp4_act", "special_zero"), ("nvfp4_e5m3_act", "special_zero"),
          ("gguf_q4_0", "special_zero"), ("int_sym_int8_act", "special_zero")]


def read(path):
    """name -> (entry of the header, bytes)"""
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    return {k: (v, data[slice(*v["data_offsets"])]) for k, v in header.items() if k != "__metadata__"}


def write(path, tensors):
    header, blobs, at = {}, [], 0
    for name, (entry, data) in tensors:
        header[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def main():
    source, out = sys.argv[1], sys.argv[2]
    budget = int(sys.argv[3]) if len(sys.argv) > 3 else 300000
    with open(os.path.join(source, "index.json")) as f:
        index = json.load(f)
    by_file = {}
    for case in index["cases"]:
        by_file.setdefault(case["file"], []).append(case)
    tensors = {file: read(os.path.join(source, file)) for file in by_file}

    def parts(case):
        names = [f"{case['case']}.{what}" for what in KEPT]
        return [(n, tensors[case["file"]][n]) for n in names if n in tensors[case["file"]]]

    def cost(case):
        return sum(len(data) for _, (_, data) in parts(case))

    chosen = []

    def take(case):
        nonlocal budget
        if case not in chosen:
            chosen.append(case)
            budget -= cost(case)

    ordered = {file: sorted(cases, key=cost) for file, cases in by_file.items()}
    for cases in ordered.values():
        take(next(c for c in cases if c["raised"] != "RuntimeError"))
    for stem, kind in FORCED:
        take(next(c for c in ordered[stem + ".safetensors"] if c["input"] == kind))
    for _ in range(len(index["cases"])):
        for file, cases in ordered.items():
            seen = {(c["input"], c["dtype"], c["imatrix"]) for c in chosen if c["file"] == file}
            fresh = [c for c in cases if (c["input"], c["dtype"], c["imatrix"]) not in seen]
            if fresh and cost(fresh[0]) <= min(budget, 4200):
                take(fresh[0])

    os.makedirs(out, exist_ok=True)
    for file, cases in by_file.items():
        kept = [c for c in cases if c in chosen]
        write(os.path.join(out, file), [part for c in kept for part in parts(c)])
    lines = [json.dumps(c) for cases in by_file.values() for c in cases if c in chosen]
    head = {k: v for k, v in index.items() if k != "cases"}
    with open(os.path.join(out, "index.json"), "w") as f:
        f.write(json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")
    print(f"{len(lines)} cases")


if __name__ == "__main__":
    main()
