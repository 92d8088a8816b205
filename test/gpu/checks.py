#!/usr/bin/env python3
"""What run.sh does by Python: golden scores, the page cache, and a run that is watched from outside.

usage: checks.py golden PROGRAM FOLDER OUT [--quick] [FLAG..]
                                                       scores the tiny models of FOLDER with the flags added and compares them with the
                                                       reference's: `class worst` for each class of schemes; --quick: few of them
       checks.py drop FOLDER                           forgets the page cache of a folder's files, after writing them out
       checks.py watch OUT -- COMMAND..                runs it; `name value`: wall_s, host_gb (its peak), device_gb (what the GPU
                                                       holds at most more than before, by nvidia-smi; nan without)
       checks.py run SCORES                            `name value` of the `run` member of a scores file, bytes in GB
"""
import concurrent.futures
import json
import math
import os
import pathlib
import re
import resource
import subprocess
import sys
import threading
import time

# Schemes that are scored in one run: those which the same layers may have.
MENUS = {
    "weight_only": ["W2A16,W3A16,W4A16,W8A16", "GGUF:Q4_0,GGUF:Q8_0"],
    "activations": ["MXFP4,MXINT4", "MXFP8", "NVFP4", "FP8_STATIC", "INT8", "INT4"],
    "k_quants": ["GGUF:Q4_K_S", "GGUF:Q2_K_S"],
}
GOLDEN_MODELS = ["qwen2", "llama_ragged"]
GB = 1e9


def golden(program, folder, out, *flags):
    """Several runs at a time: most of a run of a tiny model is its start."""
    jobs = [(kind, menu, model) for kind, menus in MENUS.items() for menu in menus for model in GOLDEN_MODELS]
    if flags[:1] == ("--quick",):
        flags, jobs = flags[1:], [(kind, menus[0], GOLDEN_MODELS[0]) for kind, menus in MENUS.items()]
    worst = dict.fromkeys(MENUS, 0.0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda job: golden_run(program, pathlib.Path(folder) / job[2], pathlib.Path(out), job[1], flags), jobs)
        for (kind, menu, model), result in zip(jobs, results):
            if isinstance(result, str):
                print(f"{model} {menu}: {result}", file=sys.stderr)
                result = math.inf
            worst[kind] = max(worst[kind], result)
    for kind, value in worst.items():
        print(kind, f"{value:.3g}")
    return 0 if all(map(math.isfinite, worst.values())) else 1


def golden_run(program, folder, out, menu, flags):
    """The largest relative difference of a layer's loss, or what is wrong."""
    expected = json.loads((folder / "expected.json").read_text())
    scores = out / f"golden.{folder.name}.{re.sub('[^A-Za-z0-9]', '_', menu)}.json"
    command = [program, "score", "--model", folder / "model", "--tokens", folder / "tokens.json", "--schemes", menu, "--reference-rules",
               "--nsamples", expected["nsamples"], "--seqlen", expected["seqlen"], "--batch-size", expected["batch_size"],
               "--quiet", "--out", scores, *flags]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return done.stderr.strip() or f"exit status {done.returncode}"
    got = json.loads(scores.read_text())["schemes"]
    differences = []
    for scheme in menu.split(","):
        want = expected["singles"][scheme]["scores"]
        missing = want.keys() - got[scheme].keys()  # ours has more: the embedding, which the reference charges without a score
        if missing:
            return f"{scheme} has no score of {', '.join(sorted(missing))}"
        differences += [relative(bits_and_loss[1], got[scheme][layer]["loss"]) for layer, bits_and_loss in want.items()]
    return max(differences)


def relative(want, got):
    return abs(got - want) / max(abs(want), 1e-12) if isinstance(got, (int, float)) else math.inf


def drop(folder):
    for path in pathlib.Path(folder).iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only pages that are on the disk can be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return 0


def watch(out, *command):
    before = device_bytes()
    most = [before]
    ended = threading.Event()

    def look():
        while not ended.wait(0.1):
            most[0] = max(most[0], device_bytes())

    looker = threading.Thread(target=look)
    if not math.isnan(before):
        looker.start()
    start = time.monotonic()
    with open(out, "w") as log:
        status = subprocess.run(command[1:] if command[:1] == ("--",) else command, stdout=log, stderr=log, check=False).returncode
    wall = time.monotonic() - start
    ended.set()
    if looker.is_alive():
        looker.join()
    print(f"wall_s {wall:.2f}\nhost_gb {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GB:.3f}")
    print(f"device_gb {(most[0] - before) / GB:.3f}")
    if status != 0:
        print(pathlib.Path(out).read_text()[-2000:], file=sys.stderr)
    return min(status, 1) if status >= 0 else 1


def device_bytes():
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"], capture_output=True,
                              text=True, check=True)
        return int(done.stdout) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return math.nan


def run(scores):
    for name, value in json.loads(pathlib.Path(scores).read_text())["run"].items():
        if name.endswith("_bytes"):
            print(name.removesuffix("_bytes") + "_gb", f"{value / GB:.4g}")
        elif isinstance(value, (int, float)):
            print(name, f"{value:.4g}")
    return 0


if __name__ == "__main__":
    commands = {"golden": golden, "drop": drop, "watch": watch, "run": run}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
