#!/usr/bin/env python3
"""What recipes cost once their weights are tuned: the table "After tuning" of docs/scorers.md.

usage: test/bench/tuned_table.py PROGRAM --text FILE [--budgets BITS,BITS] [--seed N] [--iters N] [--folder DIR]
       test/bench/tuned_table.py --show [--folder DIR]

PROGRAM is the built autoscheme. It scores the wide menu by each scorer on the 16 x 128 ids of examples/smollm2/tokens.json and chooses
recipes for each budget; a scheme in all layers that leaves less than a tenth of a bit of the budget is a recipe too. AutoRound then rounds the weights by each recipe, plainly and tuned by SignRound, and the KL(full precision || rounded)
in nats per token is measured on --text, which must be other ids, in float32. Calibration of the tuning are the ids that recipes were
scored on and as many that the full-precision model writes itself.

One run takes about 4 minutes of one core and 2 GiB of memory for SmolLM2-135M with the settings below. Results are appended to
FOLDER/results.jsonl, and what is there is not done again; so a run that was cut off goes on, and two processes may share a folder if
they have different budgets. --show prints the table of what is there.

Needs AutoRound, which is not part of the build. In a Python environment of its own:

    python3 -m venv build/venv
    build/venv/bin/pip install auto-round==0.15.0 torch==2.11.0 transformers==4.57.6 accelerate
    build/venv/bin/python test/bench/tuned_table.py build/bin/autoscheme --text FILE
"""
import argparse
import gc
import hashlib
import json
import os
import pathlib
import time

from scorer_table import HERE, read_ids, run

SCHEMES = ["W2A16", "W3A16", "W4A16", "W5A16", "W6A16", "W8A16"]
SCORERS = ["deltaloss", "fisher"]
ROWS, LENGTH, BATCH = 16, 128, 4  # of the scored ids and of those that the model writes; rows of a step of tuning


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?")
    parser.add_argument("--text")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--budgets", default="3.17,4.17,2.5")
    parser.add_argument("--model", default=HERE / "build/models/smollm2_135m")
    parser.add_argument("--tokens", default=HERE / "examples/smollm2/tokens.json")
    parser.add_argument("--folder", type=pathlib.Path, default=HERE / "build/tuned")
    parser.add_argument("--iters", type=int, default=30)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if not args.show:
        if not (args.program and args.text):
            parser.error("give PROGRAM and --text, or --show")
        args.folder.mkdir(parents=True, exist_ok=True)
        measure(args)
    show(load(args.folder))


def measure(args):
    # Before AutoRound is imported, which reads them then.
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", AR_LOG_LEVEL="WARNING", TQDM_DISABLE="1",
                      AR_WORK_SPACE=str(args.folder / "autoround"))
    import torch
    torch.set_num_threads(args.threads)
    text = torch.tensor(read_ids(args.text))
    chosen = recipes(args)
    calibration = calibration_rows(args)
    for budget in map(float, args.budgets.split(",")):
        for name, recipe in chosen[budget].items():
            for iters in (0, args.iters):
                about = dict(budget=budget, recipe=name, iters=iters, seed=args.seed if iters else 0,
                             layers=digest(recipe["layer_config"]), text=digest(text.tolist()))
                if any(about.items() <= one.items() for one in load(args.folder)):
                    continue
                start = time.process_time()
                model = rounded(args, recipe["layer_config"], calibration, iters)
                seconds = time.process_time() - start
                rows = kl_of_rows(full_precision(args), model, text)
                del model
                gc.collect()
                about.update(avg_bits=recipe["avg_bits"], kl=mean(rows), kl_error=error_of_mean(rows), row_kl=rows, cpu_seconds=round(seconds, 1),
                             calibration=digest(calibration.tolist()))
                with open(args.folder / "results.jsonl", "a") as file:
                    file.write(json.dumps(about) + "\n")
                print(f"{name} at {budget} bits, {iters} iterations: KL {about['kl']:.4f}, {seconds:.0f} s of a core", flush=True)


def recipes(args):
    """{budget: {name: recipe}}, all of them made by the program."""
    budgets = [float(word) for word in args.budgets.split(",")]
    found = {budget: {} for budget in budgets}
    for scorer in SCORERS:
        scores = args.folder / f"{scorer}.scores.json"
        if not scores.exists():
            partial = args.folder / f"{scorer}.scores.{os.getpid()}"
            run(args.program, "score", "--model", args.model, "--tokens", args.tokens, "--nsamples", ROWS, "--seqlen", LENGTH, "--schemes",
                ",".join(SCHEMES), "--scorer", scorer, "--max-ram", "2GiB", "--threads", args.threads, "--quiet", "--out", partial)
            partial.rename(scores)
        made = run(args.program, "select", "--scores", scores, "--avg-bits", args.budgets, "--quiet", "--out", "-")
        for budget, recipe in zip(budgets, json.loads(made)["recipes"]):
            found[budget][scorer] = recipe
    for scheme in SCHEMES:
        front = run(args.program, "select", "--scores", scores, "--schemes", scheme, "--quiet", "--pareto", "-")
        bits = json.loads(front)["points"][0]["avg_bits"]
        for budget in budgets:
            if 0 <= budget - bits < 0.1:
                made = run(args.program, "select", "--scores", scores, "--schemes", scheme, "--avg-bits", bits, "--quiet", "--out", "-")
                found[budget][scheme] = json.loads(made)["recipes"][0]
    return found


def calibration_rows(args):
    """The scored ids, and as many sampled from the full-precision model, each row from the first id of a scored one on."""
    import torch
    scored = torch.tensor(read_ids(args.tokens))[:ROWS, :LENGTH]
    kept = args.folder / "written.json"
    if not kept.exists():
        torch.manual_seed(1)
        model = full_precision(args)
        with torch.no_grad():
            ids, past, logits = scored[:, :1], None, None
            while ids.shape[1] < LENGTH:
                out = model(ids if past is None else ids[:, -1:], past_key_values=past, use_cache=True)
                past, logits = out.past_key_values, out.logits[:, -1]
                ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], 1)
        partial = args.folder / f"written.{os.getpid()}"
        partial.write_text(json.dumps(ids.tolist()))
        partial.rename(kept)
    return torch.cat([scored, torch.tensor(read_ids(kept))])


def rounded(args, layer_config, calibration, iters):
    """The model with the weights that AutoRound makes of it, dequantized; without iterations by plain rounding."""
    from auto_round import AutoRound
    how = dict(iters=iters) if iters else dict(iters=0, disable_opt_rtn=True)
    # In float32 throughout: bfloat16 would round the dequantized weights a second time. Rows are cut evenly, so no row is padded, and no
    # tokenizer is needed to tell.
    tuning = AutoRound(full_precision(args), tokenizer=object(), scheme="W4A16", layer_config=layer_config, nsamples=len(calibration),
                       seqlen=LENGTH, batch_size=BATCH, dataset=list(calibration.split(BATCH)), seed=args.seed, device_map="cpu",
                       amp=False, enable_torch_compile=False, disable_model_free=True, **how)
    model, resolved = tuning.quantize()
    for name, fields in layer_config.items():
        if resolved[name]["bits"] != fields["bits"]:
            raise SystemExit(f"{name}: AutoRound took {resolved[name]['bits']} bits, the recipe says {fields['bits']}")
    return model.eval()


def full_precision(args):
    import torch
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()


def kl_of_rows(exact, rounded_model, text):
    """Mean KL of the predictions of each row; the last id of a row predicts nothing."""
    import torch
    found = []
    with torch.no_grad():
        for row in text:
            p, q = (model(row[None], use_cache=False).logits[0, :-1].double().log_softmax(-1) for model in (exact, rounded_model))
            found.append(float((p.exp() * (p - q)).sum(-1).mean()))
    return found


def load(folder):
    try:
        return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    except FileNotFoundError:
        return []


def show(results):
    """A row for each recipe; the last column compares tuned KL row by row with that of the first scorer at the same budget and seed."""
    print("\n| bits | recipe | rounded | tuned | seed | tuned, of `deltaloss` |\n|---|---|---|---|---|---|")
    for one in sorted((one for one in results if one["iters"]), key=lambda one: (one["budget"], one["seed"])):
        def same(recipe, iters):
            return next((other for other in results if other["budget"] == one["budget"] and other["recipe"] == recipe
                         and other["text"] == one["text"] and other["iters"] == iters
                         and other["seed"] == (one["seed"] if iters else 0)), None)
        plain, base = same(one["recipe"], 0), same(SCORERS[0], one["iters"])
        share = ""
        if base and base is not one:
            ratio = one["kl"] / base["kl"]
            error = error_of_mean([a - ratio * b for a, b in zip(one["row_kl"], base["row_kl"])]) / base["kl"]
            share = f"{ratio:.2f} +- {error:.2f}"
        print(f"| {one['budget']} | `{one['recipe']}` | {plain['kl']:.4g} +- {plain['kl_error']:.2g} | {one['kl']:.4g} +- "
              f"{one['kl_error']:.2g} | {one['seed']} | {share} |")


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def mean(values):
    return sum(values) / len(values)


def error_of_mean(values):
    return (sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1) / len(values)) ** 0.5


if __name__ == "__main__":
    main()
