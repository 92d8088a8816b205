#!/usr/bin/env python3
"""Prints the table of plans in docs/models.md: models by their configs alone (test/golden/configs), under several budgets.

usage: test/bench/plan_table.py PROGRAM [--configs DIR] [--dtype NAME] [--max-ram SIZE,SIZE]

PROGRAM is the built autoscheme. Nothing is downloaded and nothing is scored; times are estimated with the products of the
machine that this runs on: the least of three, since what else it does lengthens them.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

NAMES = {
    "llama-3.1-8b": "Llama-3.1-8B",
    "phi-4": "Phi-4",
    "mistral-small-24b": "Mistral-Small-24B",
    "gemma-3-27b": "Gemma-3-27B",
    "llama-3.1-70b": "Llama-3.1-70B",
    "qwen2.5-72b": "Qwen2.5-72B",
    "command-r-plus": "Command-R+",
    "llama-3.1-405b": "Llama-3.1-405B",
}
PLANNED = ["--schemes", "W2A16,W4A16,W8A16", "--scorer", "deltaloss", "--nsamples", "16", "--seqlen", "256", "--batch-size", "8"]


def size(count):
    for unit in ["B", "KiB", "MiB"]:
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB" if count < 1024 else f"{count / 1024:.1f} TiB"


def time(seconds):
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes / 60:.1f} h"


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def plan_cells(program, config, dtype, budget):
    command = [program, "plan", "--model", str(config), *PLANNED, "--dtype", dtype, "--max-ram", budget, "--json"]
    done = run(*command)
    if done.returncode == 0:
        plan = json.loads(done.stdout)
        times = [json.loads(run(*command).stdout)["estimated_s"] for _ in range(2)]
        tiles = ", tiled" if plan["tile_bytes"] > 0 else ""
        return [size(plan["peak_bytes"]), size(plan["read_bytes"]) + tiles, size(plan["spill_bytes"]), time(min(plan["estimated_s"], *times))]
    least = re.search(r"smallest that works is (\d+) bytes", done.stderr)
    if least is None:
        sys.exit(f"{config}: {done.stderr.strip()}")
    return [f"needs {size(int(least.group(1)))}", "", "", ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--configs", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "golden" / "configs")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max-ram", default="2GiB,4GiB,8GiB")
    options = parser.parse_args()
    print("| model | weights | `--max-ram` | peak | read | spilled | time |")
    print("|---|---|---|---|---|---|---|")
    for name, title in NAMES.items():
        config = options.configs / f"{name}.json"
        inspected = run(options.program, "inspect", "--model", str(config), "--json")
        if inspected.returncode != 0:
            sys.exit(inspected.stderr.strip())
        model = json.loads(inspected.stdout)
        first = [title, f"{model['total_params'] / 1e9:.2f} G, {size(model['total_bytes'])}"]
        for budget in options.max_ram.split(","):
            cells = [*first, budget.replace("GiB", " GiB"), *plan_cells(options.program, config, options.dtype, budget)]
            print("| " + " | ".join(cells) + " |")
            first = ["", ""]


if __name__ == "__main__":
    main()
