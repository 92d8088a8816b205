#!/usr/bin/env python3
"""Makes a small reference file of a scores file: what compare_scores.py needs, and how to make model and scores again.

usage: write_reference.py SCORES OUT --model FOLDER --make "SHAPE --blocks N" --score "FLAGS"

`make` are the arguments of make_model.py, `score` those of `autoscheme score`. `weights` tells the model's bytes: of each
safetensors file its size, and a hash of its first 16 MiB and of tokens.json.
"""
import argparse
import hashlib
import json
import pathlib

HASHED_BYTES = 1 << 24
TERMS = ("weight", "activation")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores")
    parser.add_argument("out")
    parser.add_argument("--model", required=True, metavar="FOLDER")
    parser.add_argument("--make", required=True)
    parser.add_argument("--score", required=True)
    args = parser.parse_args()
    reference = load(args.scores)
    reference = {"format": "autoscheme-reference", "make": args.make, "score": args.score,
                 "weights": weights_of(args.model), **reference}
    text = json.dumps(reference, separators=(",", ":"))
    # One line for each member, one for each list of scores.
    for key in list(reference)[1:]:
        text = text.replace(f',"{key}":', f',\n"{key}":', 1)
    for scheme in reference["scores"]:
        text = text.replace(f'"{scheme}":{{', f'\n"{scheme}":{{')
    assert json.loads(text) == reference
    pathlib.Path(args.out).write_text(text + "\n")


def load(path):
    """A reference, or of a scores file the same members: lists in the order of `layers`, a term that is zero throughout left out."""
    file = json.loads(pathlib.Path(path).read_text())
    if file.get("format") == "autoscheme-reference":
        return file
    if file.get("format") != "autoscheme-scores":
        raise ValueError(f"{path} is no scores file: its format is {file.get('format')!r}")
    layers = [name for name, layer in file["model"]["layers"].items() if "fixed" not in layer]
    scores = {}
    for scheme, losses in file["schemes"].items():
        terms = {term: [losses[name][term] for name in layers] for term in TERMS}
        scores[scheme] = {term: values for term, values in terms.items() if term == "weight" or any(values)}
    return {"fingerprint": file["model"]["fingerprint"], "calibration": file["calibration"], "dtype": file["dtype"],
            "layers": layers, "ce_loss": file["ce_loss"], "scores": scores}


def weights_of(folder):
    files = sorted(pathlib.Path(folder).glob("*.safetensors"))
    digest = hashlib.sha256((pathlib.Path(folder) / "tokens.json").read_bytes())
    for file in files:
        with file.open("rb") as source:
            digest.update(source.read(HASHED_BYTES))
    return {"bytes": [file.stat().st_size for file in files], "sha256": digest.hexdigest()}


if __name__ == "__main__":
    main()
