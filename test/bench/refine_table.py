#!/usr/bin/env python3
"""What refinement gains on rows that it has not seen: the table "Refinement" of docs/scorers.md.

usage: test/bench/refine_table.py PROGRAM --text FILE [--model DIR] [--tokens FILE] [--refine N] [--scorer NAME] [--held-back 4,1,2]

Of the 16 rows of --tokens the named quarters (1 to 4) are held back, one after the other, and the others are scored. Each time recipes
for all budgets are chosen without refinement and with it, and both are measured on --text, which must be other ids. A cell is the
KL(full precision || recipe) with refinement as a share of that without; 1 where the choice stayed. SmolLM2-135M takes about 5 minutes
for each quarter on two cores. Needs nothing but the program.
"""
import argparse
import json
import pathlib
import tempfile

from scorer_table import HERE, MENUS, read_ids, run

MENU, BUDGETS = MENUS["int"]


def shares(args, folder, rows, quarter):
    size = len(rows) // 4
    held_back = rows[size * (quarter - 1):size * quarter]
    scored = rows[:size * (quarter - 1)] + rows[size * quarter:]
    files = {name: folder / f"{name}.json" for name in ("scored", "held_back", "plain", "refined")}
    files["scored"].write_text(json.dumps(scored))
    files["held_back"].write_text(json.dumps(held_back))
    common = ["run", "--model", args.model, "--tokens", files["scored"], "--schemes", MENU, "--avg-bits", ",".join(map(str, BUDGETS)),
              "--scorer", args.scorer, "--max-ram", args.max_ram, "--quiet"]
    scores = folder / "scores.json"
    run(args.program, *common, "--verify-tokens", files["held_back"], "--refine", args.refine, "--out", files["refined"], "--save-scores",
        scores)
    run(args.program, "select", "--scores", scores, "--avg-bits", ",".join(map(str, BUDGETS)), "--quiet", "--out", files["plain"])
    out = json.loads(run(args.program, "eval", "--model", args.model, "--tokens", args.text, "--recipes",
                         f"{files['plain']},{files['refined']}", "--max-ram", args.max_ram, "--progress", "none", "--json"))
    kl = [recipe["kl"] for recipe in out["recipes"]]
    return [refined / plain for plain, refined in zip(kl[:len(BUDGETS)], kl[len(BUDGETS):])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--text", required=True)
    parser.add_argument("--model", default=HERE / "build/models/smollm2_135m")
    parser.add_argument("--tokens", default=HERE / "examples/smollm2/tokens.json")
    parser.add_argument("--refine", type=int, default=24)
    parser.add_argument("--scorer", default="fisher")
    parser.add_argument("--held-back", default="4,1,2", help="quarters of the rows, comma separated (default 4,1,2)")
    parser.add_argument("--max-ram", default="2GiB")
    args = parser.parse_args()
    rows = read_ids(args.tokens)
    print("| rows held back | " + " | ".join(f"{budget} bits" for budget in BUDGETS) + " |\n|---" + "|---" * len(BUDGETS) + "|")
    for quarter in map(int, args.held_back.split(",")):
        with tempfile.TemporaryDirectory(prefix="autoscheme-refine-") as folder:
            found = shares(args, pathlib.Path(folder), rows, quarter)
        size = len(rows) // 4
        print(f"| {size * (quarter - 1) + 1} to {size * quarter} | " + " | ".join(f"{share:.2f}" for share in found) + " |", flush=True)


if __name__ == "__main__":
    main()
