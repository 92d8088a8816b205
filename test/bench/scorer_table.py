#!/usr/bin/env python3
"""What recipes by each scorer really cost, beside those of other programs' rules: the tables of docs/scorers.md.

usage: test/bench/scorer_table.py PROGRAM [--model DIR] [--menu NAME ...] [--tokens FILE ...] [--text FILE ...]
         [--scorers NAME,NAME] [--rivals NAME,NAME] [--rows N] [--text-rows N] [--base NAME] [--folder DIR]

PROGRAM is the built autoscheme. Each menu is scored by each scorer on each --tokens (rows of 128 ids), a recipe is chosen for each
budget, and the recipes are measured by `autoscheme eval` on each --text, which must be other ids. Rivals are scored by rivals.py,
and chosen and measured alike. --tokens and --text may be kinds that make_text.py makes: docstrings, code, licences.

A cell is KL(full precision || recipe) in nats per token, and in brackets its share of what --base's recipe of the same calibration
has. The last column is the geometric mean of the shares, and its standard error over the rows of the text, which all recipes
share: that of the pairs, and so less than the errors of the figures make it. Below each table stand the schemes alone.

Scores and measurements are kept in --folder by what made them, so that an interrupted run goes on and a larger table adds what is
new. The program's name and version are part of that and its code is not: remove the folder after a change to that.

Needs, beside the program, .deps/python with numpy and gguf, which examples/smollm2/fetch.sh has made. SmolLM2-135M with 16 rows
takes about three hours on two cores; --rows 4 --text-rows 4 --menu int3 a tenth of that.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[2]
PYTHON = HERE / ".deps/python/bin/python"
MENUS = {"int3": ("W2A16,W4A16,W8A16", [3, 3.5, 4, 5]),
         "int": ("W2A16,W3A16,W4A16,W5A16,W6A16,W8A16", [2.5, 3, 3.17, 3.5, 4, 4.17, 5, 6]),
         "mx": ("MXFP4,MXFP8", [4.5, 5, 6]),
         "gguf": ("GGUF:Q2_K_S,GGUF:Q3_K_S,GGUF:Q4_0,GGUF:Q4_K_S,GGUF:Q5_K_S,GGUF:Q6_K,GGUF:Q8_0", [4.5, 4.75, 5, 5.5, 6])}
RECIPES_AT_ONCE = 12


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def digest(*things):
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_ids(path):
    """Rows of token ids, as the program reads them."""
    ids = read(pathlib.Path(path))
    return ids["input_ids"] if isinstance(ids, dict) else ids


def write(path, page):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(page), encoding="utf-8")
    partial.rename(path)


class Table:
    def __init__(self, args):
        self.args, self.folder = args, args.folder
        self.maker = [run(args.program, "--version").strip(), str(args.model)]
        self.limits = ["--max-ram", args.max_ram] + (["--threads", args.threads] if args.threads else [])

    def ids(self, name):
        """The file of a text, which is made where only its kind is named."""
        if name not in ("docstrings", "code", "licences"):
            return pathlib.Path(name)
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            print(run(PYTHON, HERE / "test/bench/make_text.py", name, path), end="", file=sys.stderr)
        return path

    def scores(self, scorer, menu, tokens):
        """The file of a scorer's or rival's scores."""
        rows, made_of = self.args.rows, [self.maker, read(tokens)]
        path = self.folder / "scores" / digest(made_of, rows, MENUS[menu][0]) / f"{scorer}.json"
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{menu} by {scorer} on {tokens.name}", file=sys.stderr, flush=True)
        if scorer in self.args.rivals:
            run(PYTHON, HERE / "test/bench/rivals.py", "--model", self.args.model, "--tokens", tokens, "--rows", rows,
                "--scores", self.scores("fisher", menu, tokens), "--out", path.parent,
                "--rivals", ",".join(name for name in self.args.rivals if not (path.parent / f"{name}.json").exists()),
                "--alphas", self.folder / "scores" / f"alphas-{digest(made_of)}.json")
        else:
            run(self.args.program, "score", "--model", self.args.model, "--tokens", tokens, "--nsamples", rows, "--seqlen", 128,
                "--schemes", MENUS[menu][0], "--scorer", scorer, *self.limits, "--quiet", "--out", path)
        return path

    def recipes(self, scorer, menu, tokens):
        """One recipe for each budget."""
        return json.loads(run(self.args.program, "select", "--scores", self.scores(scorer, menu, tokens), "--avg-bits",
                              ",".join(map(str, MENUS[menu][1])), "--quiet", "--out", "-"))["recipes"]

    def place(self, recipe, text):
        """Where the measurement of a recipe, or of the scheme of this name alone, is kept."""
        layers = recipe if isinstance(recipe, str) else recipe["layer_config"]
        return self.folder / "evals" / digest(self.maker, read(text), self.args.text_rows) / f"{digest(layers)}.json"

    def measure(self, recipes, menu, text):
        missing = list({place: recipe for recipe in recipes if not (place := self.place(recipe, text)).exists()}.items())
        for first in range(0, len(missing), RECIPES_AT_ONCE):
            part, files = missing[first:first + RECIPES_AT_ONCE], []
            for place, recipe in part:
                files.append(self.folder / "recipes" / place.name)
                write(files[-1], {"format": "autoscheme-recipe", "version": 1, "recipes": [recipe]})
            self.evaluate(["--recipes", ",".join(map(str, files))], text, [place for place, _ in part])
        alone = [scheme for scheme in MENUS[menu][0].split(",") if not self.place(scheme, text).exists()]
        if alone:
            self.evaluate(["--schemes", ",".join(alone)], text, [self.place(scheme, text) for scheme in alone])

    def evaluate(self, what, text, places):
        out = json.loads(run(self.args.program, "eval", "--model", self.args.model, "--tokens", text, *what, "--nsamples",
                             self.args.text_rows, "--seqlen", 128, *self.limits, "--progress", "none", "--json"))
        for place, one in zip(places, out["recipes"], strict=True):
            write(place, one)

    def found(self, recipe, text):
        return read(self.place(recipe, text))


def share(measured, base):
    """Geometric mean of the shares of the budgets, and its standard error over rows by the delta method."""
    rows = range(len(base[0]["row_kl"]))
    mean = sum(math.log(one["kl"] / other["kl"]) for one, other in zip(measured, base)) / len(base)
    by_row = [sum(one["row_kl"][r] / one["kl"] - other["row_kl"][r] / other["kl"] for one, other in zip(measured, base)) / len(base)
              for r in rows]
    error = math.sqrt(sum(value ** 2 for value in by_row) / (len(rows) * (len(rows) - 1))) if len(rows) > 1 else 0
    return math.exp(mean), math.exp(mean) * error


def print_table(table, menu, tokens, text, recipes):
    budgets = MENUS[menu][1]
    found = {scorer: [table.found(recipe, text) for recipe in ones] for scorer, ones in recipes.items()}
    alone = [table.found(scheme, text) for scheme in MENUS[menu][0].split(",")]
    error = max(one["kl_error"] / one["kl"] for ones in found.values() for one in ones)
    print(f"\n{MENUS[menu][0]} scored on {tokens.stem}, measured on {text.stem}, standard errors up to {100 * error:.0f}%\n")
    print("| scorer | " + " | ".join(f"{budget} bits" for budget in budgets) + " | mean share |\n|---" + "|---" * len(budgets) + "|---|")
    base = found[table.args.base]
    for scorer, ones in found.items():
        cells = [f"{one['kl']:.4g} ({one['kl'] / other['kl']:.2f})" for one, other in zip(ones, base)]
        mean, error = share(ones, base)
        print(f"| `{scorer}` | " + " | ".join(cells) + f" | {mean:.2f} +- {error:.2f} |")
    print("alone: " + ", ".join(f"{one['name']} at {one['avg_bits']:.2f} bits {one['kl']:.4g}" for one in alone), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=HERE / "build/models/smollm2_135m")
    parser.add_argument("--menu", action="append", choices=list(MENUS), help="default: all")
    parser.add_argument("--tokens", action="append", help="default: examples/smollm2/tokens.json and code")
    parser.add_argument("--text", action="append", help="default: docstrings and licences")
    parser.add_argument("--scorers", default="deltaloss,fisher,fisher-labels")
    parser.add_argument("--rivals", default="modelopt,higgs,imatrix,position")
    parser.add_argument("--base", default="fisher", help="what shares are of; default: fisher")
    parser.add_argument("--rows", type=int, default=16, help="of each calibration")
    parser.add_argument("--text-rows", type=int, default=16, help="of each text")
    parser.add_argument("--folder", type=pathlib.Path, default=HERE / "build/scorer_table")
    parser.add_argument("--max-ram", default="2GiB")
    parser.add_argument("--threads", type=int, help="of the program; for numpy set OPENBLAS_NUM_THREADS")
    args = parser.parse_args()
    args.rivals = [name for name in args.rivals.split(",") if name]
    scorers = args.scorers.split(",") + args.rivals
    if args.base not in scorers:
        parser.error(f"--base {args.base} is none of {', '.join(scorers)}")
    table = Table(args)
    calibrations = [table.ids(name) for name in args.tokens or [HERE / "examples/smollm2/tokens.json", "code"]]
    texts = [table.ids(name) for name in args.text or ["docstrings", "licences"]]
    for menu in args.menu or MENUS:
        for tokens in calibrations:
            recipes = {scorer: table.recipes(scorer, menu, tokens) for scorer in scorers}
            for text in texts:
                table.measure([recipe for ones in recipes.values() for recipe in ones], menu, text)
                print_table(table, menu, tokens, text, recipes)


if __name__ == "__main__":
    main()
