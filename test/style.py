#!/usr/bin/env python3
"""Checks the text of sources and pages: layout, widths, how comments begin, how long functions are, and that every source
of a room that is tested file by file has a test file, and that CTest takes the names of test cases whole.

usage: test/style.py SOURCE [--clang-format PROGRAM]

SOURCE is the root of the tree. Without a program the layout is not compared with what clang-format would make of it.
"""
import argparse
import pathlib
import re
import subprocess
import sys

CODE_FOLDERS = ["include", "lib", "capi", "examples", "test"]
CODE_SUFFIXES = {".h", ".cc", ".c", ".cu", ".cuh"}
SHORT_FUNCTION_FOLDERS = ["lib", "capi", "examples"]
ROOMS_WITH_A_TEST_FOR_EACH_SOURCE = ["exec", "plan", "planner", "scorers"]
MOST_COLUMNS = 120
MOST_FUNCTION_LINES = 60

# A comment that begins in one of these ways is the tail of a sentence that stands nowhere.
TAIL = re.compile(r"(of|that|and)\b", re.IGNORECASE)
COMMENT = re.compile(r"//+ ?|/\*+ ?")
LINK_TARGET = re.compile(r"(?<=\])\([^)]*\)")
SPLIT_TEST_NAME = re.compile(r'TEST_CASE\("[^"]*;')
# What a line at the edge begins with when the braces it opens hold no statements.
NOT_A_FUNCTION = re.compile(r"(namespace|class|struct|enum|union|extern)\b|template <[^{]*> *(class|struct)\b|.*= *\{")


def code_files(root, folders):
    return sorted(path for folder in folders for path in (root / folder).rglob("*") if path.suffix in CODE_SUFFIXES)


def pages(root):
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def comment_start(line):
    """Where the first comment of a line begins, -1 without: quotes before it come in pairs."""
    for match in COMMENT.finditer(line):
        before = line[: match.start()].replace("\\\\", "").replace('\\"', "").replace("'\"'", "")
        if before.count('"') % 2 == 0:
            return match.start()
    return -1


def tails(lines):
    """Numbers of the lines whose comment begins as the tail of a sentence; a line that carries on the comment above it, in
    the same column, may begin as it likes unless it begins a sentence."""
    above = -1
    for number, line in enumerate(lines, 1):
        start = comment_start(line)
        if start >= 0:
            text = COMMENT.sub("", line[start:], count=1)
            carries_on = line[:start].strip() == "" and start == above and line[start:].startswith("//")
            if TAIL.match(text) and (text[0].isupper() or not carries_on):
                yield number
        above = start


def long_functions(lines):
    """(line, length) of the bodies that are too long. Relies on the layout: the line that opens a function and the brace
    that closes it are indented alike, and all between them is indented further."""
    heads = {}  # indentation -> number of the last line that was no more indented than this
    for number, line in enumerate(lines, 1):
        text = line.lstrip()
        indentation = len(line) - len(text)
        if text == "" or text.startswith(("//", "#")) or indentation not in (0, 2):
            continue
        if text.startswith("}"):
            head = heads.get(indentation)
            if head is not None and not NOT_A_FUNCTION.match(lines[head - 1].lstrip()):
                opening = next((n for n in range(head, number) if lines[n - 1].endswith("{")), number)
                if number - opening - 1 > MOST_FUNCTION_LINES:
                    yield head, number - opening - 1
        heads[indentation] = number


def wide_lines_of_page(lines):
    """Rows of tables, examples (fenced or indented) and what links lead to cannot be folded; the rest can."""
    in_code = False
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.startswith(("|", "    ")) and len(LINK_TARGET.sub("", line)) > MOST_COLUMNS:
            yield number


def untested_sources(root):
    for room in ROOMS_WITH_A_TEST_FOR_EACH_SOURCE:
        for source in sorted((root / "lib" / room).glob("*.cc")):
            test = root / "test" / room / f"{source.stem}_test.cc"
            if not test.exists():
                yield f"{source.relative_to(root)}: has no {test.relative_to(root)}"


def misplaced(root, clang_format, files):
    run = subprocess.run([clang_format, "--dry-run", "-Werror", *map(str, files)], capture_output=True, text=True, cwd=root)
    for line in run.stderr.splitlines():
        if "[-Wclang-format-violations]" in line:
            yield line.replace(f"{root}/", "", 1)
    if run.returncode != 0 and "[-Wclang-format-violations]" not in run.stderr:
        yield f"{clang_format} ended with status {run.returncode}: {run.stderr.strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--clang-format", metavar="PROGRAM")
    arguments = parser.parse_args()
    root = arguments.source.resolve()

    found = []
    code = code_files(root, CODE_FOLDERS)
    for path in code:
        name, lines = path.relative_to(root), path.read_text(encoding="utf-8").split("\n")
        found += [f"{name}:{n}: {len(l)} columns" for n, l in enumerate(lines, 1) if len(l) > MOST_COLUMNS]
        found += [f"{name}:{n}: the comment begins as the tail of a sentence" for n in tails(lines)]
        found += [f"{name}:{n}: the name of a test case has a semicolon, at which CTest cuts it"
                  for n, l in enumerate(lines, 1) if SPLIT_TEST_NAME.match(l)]
        if name.parts[0] in SHORT_FUNCTION_FOLDERS:
            found += [f"{name}:{n}: a function of {length} lines" for n, length in long_functions(lines)]
    for path in pages(root):
        name, lines = path.relative_to(root), path.read_text(encoding="utf-8").split("\n")
        found += [f"{name}:{n}: {len(lines[n - 1])} columns" for n in wide_lines_of_page(lines)]
    found += untested_sources(root)
    if arguments.clang_format:
        found += misplaced(root, arguments.clang_format, code)

    print("\n".join(found))
    layout = "compared" if arguments.clang_format else "not compared"
    print(f"{len(code)} sources and {len(pages(root))} pages looked at, {len(found)} faults; layout {layout} with clang-format's")
    return 1 if found or not code else 0


if __name__ == "__main__":
    sys.exit(main())
