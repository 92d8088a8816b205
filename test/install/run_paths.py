"""Where the loader looks for libraries, in all that is built and in all that is installed.

usage: run_paths.py --build DIR --cmake CMAKE --readelf READELF [--program PROGRAM]

Installs the build into a temporary folder. An entry of a run path (DT_RUNPATH, DT_RPATH) must be absolute or begin with
$ORIGIN, and nobody else may be able to put a library there: an empty entry or a relative one is the current folder of whoever
starts the program. What is installed must not point into the build tree.
"""
import argparse
import os
import re
import stat
import subprocess
import sys
import tempfile

ENTRY = re.compile(r"\((RUNPATH|RPATH)\).*?\[(.*)\]")
NEEDED = re.compile(r"\(NEEDED\).*?\[(.*)\]")


def elf_files(folder):
    """Programs and libraries under `folder`; not what they are linked from."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "CMakeFiles"]
        for name in files:
            path = os.path.join(root, name)
            if name.endswith(".o") or os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def dynamic_section(readelf, path):
    return subprocess.run([readelf, "-d", "-W", path], check=True, capture_output=True, text=True).stdout


def others_may_write(folder):
    """Whether somebody else could place files in `folder`, or make it or exchange it."""
    while True:
        if os.path.exists(folder):
            mode = os.stat(folder).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return True
        elif others_may_make(folder):
            return True
        parent = os.path.dirname(folder)
        if parent == folder:
            return False
        folder = parent


def others_may_make(folder):
    parent = os.path.dirname(folder)
    return os.path.exists(parent) and bool(os.stat(parent).st_mode & stat.S_IWOTH)


def complaint(path, entry):
    """What is wrong with an entry of the run path of the file `path`, or None."""
    if entry == "":
        return "is empty, which is the current folder"
    if not re.match(r"/|\$ORIGIN(/|$)|\$\{ORIGIN\}(/|$)", entry):
        return "is relative to the current folder"
    folder = re.sub(r"\$(ORIGIN|\{ORIGIN\})", lambda _: os.path.dirname(os.path.realpath(path)), entry)
    # The folder itself may be sticky, as /tmp is, and still take anybody's new files.
    folder = os.path.normpath(folder)
    if os.path.exists(folder) and os.stat(folder).st_mode & stat.S_IWOTH:
        return "can be written by anybody"
    return "can be written by anybody" if others_may_write(folder) else None


def check_tree(readelf, folder):
    """Complaints about the files under `folder`, and how many files there are."""
    found, count = [], 0
    for path in elf_files(folder):
        count += 1
        for kind, entries in ENTRY.findall(dynamic_section(readelf, path)):
            for entry in entries.split(":"):
                why = complaint(path, entry)
                if why is not None:
                    found.append(f"{path}: the entry {entry!r} of its {kind} {why}")
    return found, count


def check_installed(readelf, prefix, build):
    """Nothing that is installed names the build tree."""
    found = []
    for path in elf_files(prefix):
        for _, entries in ENTRY.findall(dynamic_section(readelf, path)):
            if build in entries:
                found.append(f"{path}: its run path leads into the build tree: {entries}")
    for root, _, files in os.walk(prefix):
        for name in files:
            if name.endswith((".cmake", ".pc")):
                path = os.path.join(root, name)
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                if build in text or "rpath" in text.lower():
                    found.append(f"{path}: names the build tree or a run path")
    return found


def check_planted(readelf, program, folder):
    """Starts the program where a file of no use stands for each library that it and they need."""
    needed = set()
    for path in [program] + subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split():
        if path.startswith("/") and os.path.isfile(path):
            needed.update(NEEDED.findall(dynamic_section(readelf, path)))
    for name in needed:
        with open(os.path.join(folder, os.path.basename(name)), "w", encoding="utf-8") as file:
            file.write("planted")
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    ran = subprocess.run([program, "--version"], cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode != 0 or not needed:
        return [f"{program} loads from the current folder: {ran.stderr.strip()}"]
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--cmake", required=True)
    parser.add_argument("--readelf", required=True)
    parser.add_argument("--program")
    arguments = parser.parse_args()
    build = os.path.realpath(arguments.build)
    with tempfile.TemporaryDirectory() as scratch:
        prefix, elsewhere = os.path.join(scratch, "prefix"), os.path.join(scratch, "elsewhere")
        os.mkdir(elsewhere)
        subprocess.run([arguments.cmake, "--install", build, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
        found, built = check_tree(arguments.readelf, build)
        more, installed = check_tree(arguments.readelf, prefix)
        found += more + check_installed(arguments.readelf, prefix, build)
        if arguments.program:
            found += check_planted(arguments.readelf, arguments.program, elsewhere)
    if built == 0 or installed == 0:
        found.append(f"{built} files are built and {installed} installed: something is missing")
    for line in found:
        print(line, file=sys.stderr)
    print(f"{built} built and {installed} installed files looked at, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
