#!/usr/bin/env python3
"""Compiles CUDA sources for one architecture and reads the assembler's report: fails when a kernel spills registers or
has a stack in local memory, or when there is no kernel.

usage: test/cuda/ptxas_report.py --nvcc PROGRAM --include FOLDER --arch sm_90 SOURCE... -- OPTION...
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def kernels(report):
    """(name, stack, spilled bytes, registers) of each entry function of a report."""
    name, memory, found = None, None, []
    for line in report.splitlines():
        if match := ENTRY.search(line):
            name, memory = match[1], None
        elif name and (match := MEMORY.search(line)):
            memory = memory or (int(match[1]), int(match[2]) + int(match[3]))
        elif name and memory and (match := REGISTERS.search(line)):
            found.append((name, *memory, int(match[1])))
            name = None
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--include", required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("sources", nargs="+", type=pathlib.Path)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])

    faults = 0
    for source in arguments.sources:
        with tempfile.TemporaryDirectory() as folder:
            command = [arguments.nvcc, "-std=c++17", "-O3", f"-I{arguments.include}", f"-arch={arguments.arch}", "-cubin",
                       "-Xptxas", "-v", *sys.argv[split + 1:], str(source), "-o", f"{folder}/kernels.cubin"]
            run = subprocess.run(command, capture_output=True, text=True)
        report = run.stdout + run.stderr
        found = kernels(report)
        if run.returncode != 0 or not found:
            print(f"{source.name}: {len(found)} kernels, nvcc ended with status {run.returncode}\n{report}")
            faults += 1
            continue
        for name, stack, spilled, registers in found:
            if stack or spilled:
                print(f"{source.name}: {name}: {stack} bytes of stack, {spilled} spilled, {registers} registers")
                faults += 1
        most = max(found, key=lambda kernel: kernel[3])
        print(f"{source.name}: {len(found)} kernels for {arguments.arch}, at most {most[3]} registers ({most[0]})")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
