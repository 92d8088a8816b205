#!/usr/bin/env python3
"""The memory contract, from outside: runs the autoscheme program as a child and compares what it promised with what the
system measured (the peak resident set of the finished child).

  contract.py PROGRAM plan      planned against measured peaks over models, budgets, menus and dtypes, as a table
  contract.py PROGRAM growth    a budget that holds for few blocks, schemes and tokens holds for many
  contract.py PROGRAM budgets   any budget gives the same scores; a refusal names the least one, which works
  contract.py PROGRAM eval      the same of `autoscheme eval`: peaks, bytes read and figures by budget
  contract.py PROGRAM run       scoring, refining and verifying in one process keep to the budget of the neediest of them

Models of up to 0.25 GB are written into a temporary folder. With --model DIR (repeatable) `plan` and `budgets` take those instead,
which is meant for large ones, by hand: --tokens, --options and --budgets then say what to run.
Exit status 0 if everything holds. Needs nothing but Python.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import make_model  # noqa: E402

MIB = 1 << 20

# Small enough for a minute in all, large enough that the process itself is not most of the peak.
LLAMA = dict(make_model.SHAPES["tinyllama-1.1b"], hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
             num_key_value_heads=2, vocab_size=16000)
WIDE = dict(make_model.SHAPES["llama-3.1-8b"], hidden_size=1024, intermediate_size=8192, num_hidden_layers=3, num_attention_heads=8,
            num_key_value_heads=2, vocab_size=8000)
QWEN = dict(make_model.SHAPES["qwen3-0.6b"], num_hidden_layers=3, vocab_size=24000)

# Model, menu, rows x length of the calibration, budget (times the least; 0 = all that is free, None = the program's own), further flags.
PLANS = [
    ("llama", "W4A16", (16, 128), 1.02, []),
    ("llama", "W2A16,W4A16,W8A16", (8, 128), 1.3, []),
    ("llama", "W4A16,W8A16", (8, 128), 0, []),
    ("llama", "W4A16,W8A16", (8, 128), None, []),
    ("llama", "W4A16,MXFP4", (8, 128), 1.02, []),
    ("llama", "MXFP4,NVFP4", (8, 256), 2.0, []),
    ("llama", "W2A16,W4A16", (16, 256), 1.1, ["--dtype", "bfloat16"]),
    ("llama", "W4A16,W8A16", (8, 256), 1.2, ["--threads", "1"]),
    ("wide", "W4A16", (8, 128), 1.02, []),
    ("wide", "W4A16,MXFP4", (8, 128), 1.2, []),
    ("wide", "W4A16,W8A16", (8, 64), 2.5, []),
    ("wide", "FP8_STATIC", (8, 64), 0, []),
    ("qwen", "W4A16", (4, 512), 1.02, []),
    ("qwen", "W4A16,MXFP8", (8, 256), 1.5, []),
    ("qwen", "W8A16", (8, 128), 1.1, ["--dtype", "bfloat16"]),
    ("llama", "GGUF:Q4_K_S", (8, 128), 1.2, []),
    ("qwen", "W4A16,W8A16", (8, 128), 0, []),
    ("llama", "W2A16,W3A16,W4A16,W8A16", (8, 128), 1.02, ["--scorer", "fisher"]),
    ("wide", "W4A16,MXFP4,MXFP8", (8, 128), 1.3, ["--scorer", "fisher"]),
    ("qwen", "W4A16,NVFP4", (8, 256), 1.2, ["--scorer", "fisher", "--dtype", "bfloat16"]),
]

# The same of `eval`, whose menus are measured side by side; each at its least budget, above it, and without one.
EVALS = [
    ("llama", "W2A16,W4A16,MXFP4,W8A16", (8, 128), []),
    ("wide", "W4A16,NVFP4,MXFP8", (8, 64), []),
    ("qwen", "W4A16,GGUF:Q4_K_S", (8, 128), ["--dtype", "bfloat16"]),
]

# Of `run`: menu and scorer.
RUNS = [("W2A16,W4A16,W8A16", "fisher"), ("W4A16,MXFP4,W8A16", "deltaloss")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("test", choices=["plan", "growth", "budgets", "eval", "run"])
    parser.add_argument("--model", action="append", default=[], help="a folder with a model")
    parser.add_argument("--tokens", default="16x256", help="rows x length (default 16x256)")
    parser.add_argument("--options", action="append", default=[], help="a menu; may be repeated (default W4A16,W8A16)")
    parser.add_argument("--budgets", default="1,1.5,3,0", help="times the least budget, or with a unit: 1.2,900MiB; 0 = no limit")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--scorer", default="deltaloss", help="of every case that does not name its own (default deltaloss)")
    parser.add_argument("--threads", help="threads that compute, in every case that does not name its own")
    parser.add_argument("--match", default="", help="only cases whose words, as the table has them, this regular expression finds")
    parser.add_argument("--tolerance", type=float, default=2e-5, help="how far apart scores of a layer may be (default 2e-5)")
    parser.add_argument("--least", type=float, default=0.9, help="of the planned peak that must be reached (default 0.9)")
    parser.add_argument("--most", type=float, default=1.0, help="of the planned peak that may be reached (default 1)")
    parser.add_argument("--out", help="append the table to this file as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoscheme-memory-") as folder:
        bench = Bench(args.program, folder, args.threads, args.scorer)
        if args.model:
            cases = chosen_cases(args)
        elif args.test == "run":
            cases = [Case(os.path.join(folder, "llama"), menu, 16, 128, 1.0, ["--scorer", scorer]) for menu, scorer in RUNS]
        elif args.test == "eval":
            cases = [Case(os.path.join(folder, model), menu, *shape, 1.0, more) for model, menu, shape, more in EVALS]
        else:
            cases = [Case(os.path.join(folder, model), menu, *shape, budget, more) for model, menu, shape, budget, more in PLANS]
        cases = [case for case in cases if re.search(args.match, case.words())]
        if not cases:
            parser.error(f"no case matches {args.match}")
        for name, shape in dict(llama=LLAMA, wide=WIDE, qwen=QWEN).items():
            if any(case.model == os.path.join(folder, name) for case in cases):
                bench.write(name, shape)
        failures = {"plan": plan, "growth": growth, "budgets": budgets, "eval": evaluations, "run": runs}[args.test](bench, cases, args)
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(1 if failures else 0)


def chosen_cases(args):
    rows, length = (int(n) for n in args.tokens.split("x"))
    return [Case(model, menu, rows, length, amount(budget), ["--dtype", args.dtype])
            for model in args.model for menu in args.options or ["W4A16,W8A16"] for budget in args.budgets.split(",")]


def amount(text):
    """Times the least budget as a float, or bytes as an int."""
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "MB": 10**6, "GB": 10**9}
    for unit, size in units.items():
        if text.endswith(unit):
            return int(float(text[:-len(unit)]) * size)
    return float(text)


class Case:
    def __init__(self, model, menu, rows, length, budget, more=()):
        self.model, self.menu, self.rows, self.length, self.budget, self.more = model, menu, rows, length, budget, list(more)

    def with_(self, **changes):
        case = Case(self.model, self.menu, self.rows, self.length, self.budget, self.more)
        case.__dict__.update(changes)
        return case

    def words(self):
        return f"{os.path.basename(self.model)} {self.menu} {self.rows}x{self.length} {' '.join(self.more)}".strip()


class Result:
    """Of a finished child: exit code, messages, peak in bytes, `run` and `schemes` of its scores.json, `recipes` of its eval.json or recipe.json."""

    def __init__(self, code, messages, peak, written):
        self.code, self.messages, self.peak = code, messages, peak
        self.run, self.schemes, self.recipes = written.get("run"), written.get("schemes"), written.get("recipes")


class Bench:
    def __init__(self, program, folder, threads, scorer):
        self.program, self.folder, self.threads, self.scorer, self.models = program, folder, threads, scorer, {}

    def write(self, name, config):
        path = os.path.join(self.folder, name)
        with open(os.devnull, "w") as quiet:
            make_model.write_model(path, config, log=quiet)
        self.models[name] = path
        return path

    def flags(self, case):
        scorer = [] if "--scorer" in case.more else ["--scorer", self.scorer]
        return [*self.common_flags(case), *scorer]

    def common_flags(self, case):
        with open(os.path.join(case.model, "config.json")) as file:
            vocabulary = json.load(file)["vocab_size"]
        tokens = os.path.join(self.folder, f"tokens-{vocabulary}-{case.rows}x{case.length}.json")
        if not os.path.exists(tokens):
            rng = random.Random(case.rows)
            with open(tokens, "w") as file:
                json.dump([[rng.randrange(vocabulary) for _ in range(case.length)] for _ in range(case.rows)], file)
        threads = ["--threads", self.threads] if self.threads and "--threads" not in case.more else []
        return ["--model", case.model, "--tokens", tokens, "--options", case.menu, "--work-dir", self.folder, *threads, *case.more]

    def least(self, case):
        """The smallest budget, as `plan` tells it."""
        done = subprocess.run([self.program, "plan", *self.flags(case), "--json"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["least_bytes"]

    def budget_bytes(self, case):
        return int(case.budget * self.least(case)) if isinstance(case.budget, float) else case.budget

    def score(self, case, max_ram):
        return self.child(["score", *self.flags(case)], max_ram)

    def eval(self, case, max_ram):
        return self.child(["eval", *self.common_flags(case)], max_ram)

    def child(self, arguments, max_ram):
        out, log = (os.path.join(self.folder, name) for name in ("out.json", "log"))
        command = [self.program, *arguments, "--out", out, "--progress", "none"]
        if max_ram is not None:
            command += ["--max-ram", str(max_ram) if max_ram else "free"]
        if os.path.exists(out):
            os.remove(out)
        # Beside other tests, threads that spin while they wait would take the others' cores.
        environment = dict(os.environ, OMP_WAIT_POLICY="passive")
        with open(log, "wb") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        written = {}
        if os.path.exists(out):
            with open(out) as file:
                written = json.load(file)
        with open(log) as file:
            return Result(child.returncode, file.read(), usage.ru_maxrss * 1024, written)


class Table:
    """Markdown, line by line to stdout and, if there is one, to a file."""

    def __init__(self, path, head):
        self.path = path
        self.add(head)
        self.add("|---" * (head.count("|") - 1) + "|")

    def add(self, line):
        print(line, flush=True)
        if self.path:
            with open(self.path, "a") as file:
                file.write(line + "\n")


def plan(bench, cases, args):
    table = Table(args.out, "| model and menu | budget MiB | planned MiB | measured MiB | measured / planned | s | |")
    failures = []
    for case in cases:
        max_ram = bench.budget_bytes(case)
        named = "own" if max_ram is None else f"{max_ram / MIB:.0f}"
        result = bench.score(case, max_ram)
        if result.code != 0:
            table.add(f"| {case.words()} | {named} | | | | | FAILED |")
            failures.append(f"{case.words()}: {result.messages.strip()}")
            continue
        planned, measured = result.run["planned_peak_bytes"], result.peak
        holds = args.least * planned <= measured <= args.most * planned and (not max_ram or measured <= args.most * max_ram)
        table.add(f"| {case.words()} | {named} | {planned / MIB:.0f} | {measured / MIB:.0f} | "
                  f"{measured / planned:.3f} | {result.run['total_s']:.1f} | {'' if holds else 'FAILED'} |")
        if not holds:
            failures.append(f"{case.words()}: planned {planned}, measured {measured}, budget {max_ram} bytes")
        if result.run["planned_read_bytes"] != result.run["read_bytes"]:
            failures.append(f"{case.words()}: planned to read {result.run['planned_read_bytes']} bytes, read {result.run['read_bytes']}")
    return failures


def growth(bench, _cases, args):
    shape = dict(LLAMA, intermediate_size=4096, vocab_size=4000)
    few = bench.write("4 blocks", dict(shape, num_hidden_layers=4))
    many = bench.write("16 blocks", dict(shape, num_hidden_layers=16))
    short = bench.write("1 block", dict(shape, num_hidden_layers=1))
    pairs = [
        ("blocks 4 -> 16", 1.05, Case(few, "W4A16", 8, 128, 1.05), dict(model=many)),
        ("schemes 1 -> 4, fisher", 1.10, Case(few, "W4A16", 8, 128, 1.10, ["--scorer", "fisher"]), dict(menu="W2A16,W3A16,W4A16,W8A16")),
        ("schemes 1 -> 4", 1.10, Case(few, "W4A16", 8, 128, 1.10), dict(menu="W2A16,W3A16,W4A16,W8A16")),
        ("tokens 4k -> 32k", 1.10, Case(short, "W4A16", 32, 128, 1.10), dict(rows=256)),
    ]
    failures = []
    table = Table(args.out, "| what grows | budget MiB | peak MiB before | after | ratio | at most |")
    for name, most, case, change in pairs:
        max_ram = bench.budget_bytes(case)
        before, after = bench.score(case, max_ram), bench.score(case.with_(**change), max_ram)
        if before.code != 0 or after.code != 0:
            failures.append(f"{name}: {(before.messages + after.messages).strip()}")
            continue
        ratio = after.peak / before.peak
        table.add(f"| {name} | {max_ram / MIB:.0f} | {before.peak / MIB:.0f} | {after.peak / MIB:.0f} | {ratio:.3f} | {most} |")
        if ratio > most or after.peak > args.most * max_ram:
            failures.append(f"{name}: peak grows from {before.peak} to {after.peak} bytes within a budget of {max_ram}")
    return failures


# Through the 30 blocks of a real model, 4-bit activations turn a last bit into a step of up to a percent: give --tolerance there.
def budgets(bench, cases, args):
    if not args.model:
        model = bench.models["llama"]
        cases = [Case(model, "W2A16,W4A16,MXFP8", 6, 64, budget, ["--batch-size", "4"]) for budget in (1.0, 1.1, 1.3, 1.7, 2.5, 0)]
    failures = refusal(bench, cases[0], args)
    wanted = bench.score(cases[0], 0).schemes
    table = Table(args.out, "| budget MiB | peak MiB | furthest score by scheme |")
    for case in cases:
        max_ram = bench.budget_bytes(case)
        result = bench.score(case, max_ram)
        if result.code != 0:
            failures.append(f"{case.words()} with {max_ram} bytes: {result.messages.strip()}")
            continue
        if max_ram and result.peak > args.most * max_ram:
            failures.append(f"{case.words()}: a peak of {result.peak} bytes within {max_ram}")
        furthest = {scheme: distance(wanted[scheme], result.schemes[scheme]) for scheme in wanted}
        table.add(f"| {max_ram / MIB:.0f} | {result.peak / MIB:.0f} | "
                  + ", ".join(f"{scheme} {far:.1e}" for scheme, far in furthest.items()) + " |")
        failures += [f"{case.words()} with {max_ram} bytes: a score of {scheme} is {far:.1e} away" for scheme, far in furthest.items()
                     if far > args.tolerance]
    return failures


def evaluations(bench, cases, args):
    failures = []
    table = Table(args.out, "| model and menu | budget MiB | planned MiB | measured MiB | furthest KL |")
    for case in cases:
        refused = bench.eval(case, 140 * MIB)
        named = re.search(r"smallest that works is (\d+) bytes", refused.messages)
        if refused.code != 1 or not named:
            failures.append(f"{case.words()}: 140 MiB were not refused with the least budget's name: {refused.messages.strip()}")
            continue
        wanted = None
        for max_ram in (0, int(named.group(1)), int(1.3 * int(named.group(1)))):
            result = bench.eval(case, max_ram)
            if result.code != 0:
                failures.append(f"{case.words()} with {max_ram} bytes: {result.messages.strip()}")
                continue
            kl = [recipe["kl"] for recipe in result.recipes]
            wanted = wanted or kl
            planned, measured = result.run["planned_peak_bytes"], result.peak
            furthest = max(abs(a - b) / b for a, b in zip(kl, wanted))
            table.add(f"| {case.words()} | {max_ram / MIB:.0f} | {planned / MIB:.0f} | {measured / MIB:.0f} | {furthest:.1e} |")
            if not args.least * planned <= measured <= args.most * planned or (max_ram and measured > args.most * max_ram):
                failures.append(f"{case.words()}: planned {planned}, measured {measured}, budget {max_ram} bytes")
            if result.run["planned_read_bytes"] != result.run["read_bytes"]:
                failures.append(f"{case.words()}: planned to read {result.run['planned_read_bytes']} bytes, read {result.run['read_bytes']}")
            if furthest > args.tolerance:
                failures.append(f"{case.words()} with {max_ram} bytes: a KL is {furthest:.1e} away")
    return failures


def runs(bench, cases, args):
    failures = []
    table = Table(args.out, "| model and menu | budget MiB | measured MiB | choice |")
    for case in cases:
        arguments = ["run", *bench.flags(case), "--avg-bits", "5", "--refine", "9"]
        refused = bench.child(arguments, 140 * MIB)
        named = [int(number) for number in re.findall(r"smallest that works is (\d+) bytes", refused.messages)]
        # The refusal is that of the refinement, which is planned first; scoring may need more.
        if refused.code != 1 or not named:
            failures.append(f"{case.words()}: 140 MiB were not refused with the least budget's name: {refused.messages.strip()}")
            continue
        chosen = []
        for max_ram in (max(named[0], bench.least(case)), 2 * named[0], 0):
            result = bench.child(arguments, max_ram)
            if result.code != 0:
                failures.append(f"{case.words()} with {max_ram} bytes: {result.messages.strip()}")
                continue
            chosen.append(result.recipes[0]["layer_config"])
            table.add(f"| {case.words()} | {max_ram / MIB:.0f} | {result.peak / MIB:.0f} | {'same' if chosen[-1] == chosen[0] else 'another'} |")
            if max_ram and result.peak > args.most * max_ram:
                failures.append(f"{case.words()}: a peak of {result.peak} bytes within {max_ram}")
            if "refined" not in result.recipes[0] or "verified" not in result.recipes[0]:
                failures.append(f"{case.words()}: the recipe was not refined and verified")
            if chosen[-1] != chosen[0]:
                failures.append(f"{case.words()} with {max_ram} bytes: another choice than with less")
    return failures


def distance(wanted, found):
    return max(abs(found[layer]["loss"] - score["loss"]) / max(abs(score["loss"]), 1e-30) for layer, score in wanted.items())


def refusal(bench, case, args):
    refused = bench.score(case, 140 * MIB)
    named = re.search(r"smallest that works is (\d+) bytes", refused.messages)
    if refused.code != 1 or not named or refused.schemes is not None:
        return [f"140 MiB were not refused with the least budget's name: {refused.code} {refused.messages.strip()}"]
    least = int(named.group(1))
    works = bench.score(case, least)
    if works.code != 0:
        return [f"the least budget of {least} bytes, as the refusal names it, does not work: {works.messages.strip()}"]
    return [] if works.peak <= args.most * least else [f"the least budget is {least} bytes, and the peak {works.peak}"]


if __name__ == "__main__":
    main()
