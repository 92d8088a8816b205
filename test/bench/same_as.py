#!/usr/bin/env python3
"""Runs two builds of autoscheme over the same cases and compares what they say; see same_as.sh."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "test/golden"
SMOLLM2 = ROOT / "build/models/smollm2_135m"
TOKENS = ROOT / "examples/smollm2/tokens.json"
MENU = "W2A16,W4A16,W8A16,MXFP4,MXFP8,NVFP4,FP8_STATIC,GGUF:Q4_K_S"
# What a plan chooses, as far as the last bits of a score may depend on it: by its names of then and of now.
CHOICES = {"slice_rows": "micro_batch_rows", "kept_units": "saved_units", "micro_batch_rows": "micro_batch_rows",
           "saved_units": "saved_units", "tile_bytes": "tile_bytes", "units": "units"}

failures = 0


def report(ok, case, what):
    global failures
    failures += not ok
    print(f"{'same  ' if ok else 'DIFFER'} {case}: {what}", flush=True)


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def scorer(program):
    """The program at hand takes another scorer by itself; earlier ones have no other and may not know the flag."""
    return ["--scorer", "deltaloss"] if "--scorer" in run(program, "score", "--help") else []


def score(program, flags, folder):
    out = pathlib.Path(folder) / "scores.json"
    run(program, "score", *flags, *scorer(program), "--quiet", "--out", out)
    return json.loads(out.read_text()), out


def choices(program, flags):
    plan = json.loads(run(program, "plan", *flags, *scorer(program), "--json"))
    return {CHOICES[key]: value for key, value in plan.items() if key in CHOICES}


def numbers(scores):
    """The parts of a scores file that must be equal: all but what the run cost."""
    return {key: value for key, value in scores.items() if key not in ("run", "autoscheme", "version", "scorer")}


def close(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return a == b


def compare_scores(base, new, case, flags, targets):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        before, before_file = score(base, flags, one)
        after, after_file = score(new, flags, two)
        if numbers(before) == numbers(after):
            report(True, case, "scores bit for bit")
        elif choices(base, flags) != choices(new, flags):
            report(close(numbers(before), numbers(after)), case, "scores to 1e-6; the plans differ")
        else:
            report(False, case, "scores, under the same plan")
        recipes = []
        for program, file, folder in ((base, before_file, one), (new, after_file, two)):
            out = pathlib.Path(folder) / "recipe.json"
            run(program, "select", "--scores", file, "--avg-bits", targets, "--quiet", "--out", out)
            recipes.append(json.loads(out.read_text())["recipes"])
        report([r["layer_config"] for r in recipes[0]] == [r["layer_config"] for r in recipes[1]], case, f"recipes of {targets} bits")


def golden_cases():
    for kind in ("scores", "logits"):
        for folder in sorted((GOLDEN / kind).iterdir()):
            if not (folder / "model/config.json").exists():
                continue
            flags = ["--model", folder / "model", "--tokens", folder / "tokens.json", "--batch-size", "2"]
            for dtype in ("float32", "mixed", "bfloat16"):
                yield f"{folder.name} {dtype}", flags + ["--options", MENU, "--dtype", dtype]
            yield f"{folder.name} head", flags + ["--options", "W4A16,MXFP4,W8A16", "--quant-lm-head"]


def compare_costs(base, new, budget, rounds):
    flags = ["--model", SMOLLM2, "--tokens", TOKENS, "--nsamples", "16", "--seqlen", "128", "--options", "W4A16,MXFP4,GGUF:Q4_K_S"]
    flags += ["--max-ram", budget]
    peaks, ratios = ([], []), []
    for _ in range(rounds):
        seconds = []
        for number, program in enumerate((base, new)):
            with tempfile.TemporaryDirectory() as folder:
                cost = score(program, flags, folder)[0]["run"]
            peaks[number].append(cost["peak_rss_bytes"])
            seconds.append(cost["total_s"])
        ratios.append(seconds[1] / seconds[0])
    growth = max(peaks[1]) / max(peaks[0])
    mib = [max(peak) / 2**20 for peak in peaks]
    report(growth <= 1.01, f"SmolLM2 {budget}", f"peak {mib[0]:.1f} -> {mib[1]:.1f} MiB ({growth - 1:+.1%})")
    ratio = statistics.median(ratios)
    shown = " ".join(f"{r:.3f}" for r in ratios)
    report(ratio <= 1.03, f"SmolLM2 {budget}", f"time, median ratio {ratio:.3f} of {shown}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("new")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for case, flags in golden_cases():
        compare_scores(options.base, options.new, case, flags, "4.5,6")
    if not options.quick:
        for budget in ("300MiB", "2GiB"):
            compare_costs(options.base, options.new, budget, options.rounds)
    print(f"{failures} differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
