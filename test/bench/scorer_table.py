#!/usr/bin/env python3
"""What recipes by each scorer really cost: the tables of docs/scorers.md.

usage: test/bench/scorer_table.py PROGRAM --text FILE [--text FILE ...] [--model DIR] [--tokens FILE] [--scorers NAME,NAME]

PROGRAM is the built autoscheme. Each menu is scored once by each scorer on --tokens (16 rows of 128 ids), a recipe is chosen for each
budget, and all recipes of a menu are measured in one run of `autoscheme eval` on each --text, which must be other ids. A cell is
KL(full precision || recipe) in nats per token, and in brackets its share of what the first scorer's recipe has. Below each menu stand
its schemes alone. SmolLM2-135M takes about 20 minutes for one text on two cores. Needs nothing but the program.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parents[2]
MENUS = [("W2A16,W4A16,W8A16", [3, 3.5, 4, 5]),
         ("W2A16,W3A16,W4A16,W5A16,W6A16,W8A16", [2.5, 3, 3.17, 3.5, 4, 4.17, 5, 6]),
         ("MXFP4,MXFP8", [4.5, 5, 6])]


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def recipes(args, folder, menu, budgets):
    """One file of recipes by scorer, with one for each budget."""
    files = {}
    for scorer in args.scorers.split(","):
        scores, files[scorer] = folder / f"{scorer}.scores.json", folder / f"{scorer}.json"
        run(args.program, "score", "--model", args.model, "--tokens", args.tokens, "--nsamples", 16, "--seqlen", 128, "--schemes", menu,
            "--scorer", scorer, "--max-ram", args.max_ram, "--quiet", "--out", scores)
        run(args.program, "select", "--scores", scores, "--avg-bits", ",".join(map(str, budgets)), "--quiet", "--out", files[scorer])
    return files


def measured(args, files, menu, text):
    """By scorer the KL of each budget's recipe, and by scheme bits and KL of it alone; and the largest standard error's share."""
    out = json.loads(run(args.program, "eval", "--model", args.model, "--tokens", text, "--recipes", ",".join(map(str, files.values())),
                         "--schemes", menu, "--max-ram", args.max_ram, "--progress", "none", "--json"))
    found = out["recipes"]
    budgets = (len(found) - len(menu.split(","))) // len(files)
    by_scorer = {scorer: [one["kl"] for one in found[i * budgets:(i + 1) * budgets]] for i, scorer in enumerate(files)}
    alone = [(one["name"], one["avg_bits"], one["kl"]) for one in found[len(files) * budgets:]]
    return by_scorer, alone, max(one["kl_error"] / one["kl"] for one in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--model", default=HERE / "build/models/smollm2_135m")
    parser.add_argument("--tokens", default=HERE / "examples/smollm2/tokens.json")
    parser.add_argument("--text", action="append", required=True)
    parser.add_argument("--scorers", default="deltaloss,fisher,fisher-labels")
    parser.add_argument("--max-ram", default="2GiB")
    args = parser.parse_args()
    for menu, budgets in MENUS:
        with tempfile.TemporaryDirectory(prefix="autoscheme-scorers-") as folder:
            files = recipes(args, pathlib.Path(folder), menu, budgets)
            for text in args.text:
                by_scorer, alone, error = measured(args, files, menu, text)
                print(f"\n{menu} on {pathlib.Path(text).name}, standard errors up to {100 * error:.0f}%\n")
                print("| scorer | " + " | ".join(f"{budget} bits" for budget in budgets) + " |\n|---" * 1 + "|---" * len(budgets) + "|")
                first = next(iter(by_scorer.values()))
                for scorer, values in by_scorer.items():
                    cells = [f"{kl:.4g}" + (f" ({kl / base:.2f})" if values is not first else "") for kl, base in zip(values, first)]
                    print(f"| `{scorer}` | " + " | ".join(cells) + " |")
                print("alone: " + ", ".join(f"{name} at {bits:.2f} bits {kl:.4g}" for name, bits, kl in alone), flush=True)


if __name__ == "__main__":
    main()
