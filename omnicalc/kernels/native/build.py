"""Compiles the native kernels: one shared library per instruction set, with whatever C++ compiler there is.

Runs when the package is installed (hatch_build.py), and by hand after a change to the sources:
``python omnicalc/kernels/native/build.py``. The kernels of the potential and of its training lie here,
that of the analysis in ``omnicalc/analysis/native``.
The libraries know nothing of Python or torch, so one build serves every version of both.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
POTENTIAL, ATTENTION, EDGES, NODES = (HERE / f"{name}.cpp" for name in ("e2former", "attention", "edges", "nodes"))
SOURCES = {  # what is compiled, and what does its work where that fails
    POTENTIAL: "the native CPU kernel is left out, and plain torch will do its work",
    **dict.fromkeys([ATTENTION, EDGES, NODES], "training of E2Former is left to plain torch, at half the speed"),
    HERE.parents[1] / "analysis" / "native" / "pairs.cpp": "MDAnalysis will count distances, more slowly",
}
FLAGS = ["-O3", "-std=c++20", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"]
FLAGS += ["-fno-math-errno", "-ffp-contract=fast"]  # square roots and fused multiply-adds without a detour
FLAGS += ["-Wno-psabi"]  # vectors cross no border of a library
SETS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    SETS |= {"avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}


def source_hash(source: Path) -> str:
    """Changes with a source file and the headers it includes, so that libraries built from others are noticed."""
    digest = hashlib.sha256()
    for path in sorted(_included(source)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _included(source: Path) -> set[Path]:
    """The file itself, the headers that it includes from its own folder, and those that they include."""
    names = re.findall(r'^#include "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    return {source}.union(*(_included(source.with_name(name)) for name in names))


def compiler(say=print) -> list[str] | None:
    """The command of the C++ compiler: $CXX, or the first of c++, g++ and clang++ on the path."""
    wanted = os.environ.get("CXX", "").strip()
    try:
        command = shlex.split(wanted)
    except ValueError:  # a quote that does not close
        command = []
    if command and shutil.which(command[0]):
        return command
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if wanted:
        say(f"$CXX is '{wanted}', which is no command here{f'; {found} takes its place' if found else ''}")
    return [found] if found else None


def library(name: str, source: Path = POTENTIAL) -> Path:
    """Where the library of an instruction set lies once it is built from a source file."""
    return source.with_name(f"{source.stem}-{name}.so")


def platform_tag() -> str:
    """Of a wheel with these libraries: the first that pip takes here, and that promises nothing of other systems.

    Not Python's own name of the platform: macosx_14_5_arm64, say, where pip knows no minor versions since macOS 11.
    """
    from packaging.tags import platform_tags  # comes with hatchling

    return next(tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))


def build(say=print) -> list[Path]:
    """Compile all libraries and return those that worked; none without a compiler, or on a system it does not suit."""
    cxx = compiler(say)
    if cxx is None or sys.platform == "win32":
        say("no C++ compiler found: " + "; ".join(dict.fromkeys(SOURCES.values())))
        return []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = [(source, name) for source in SOURCES for name in SETS]
        done = list(pool.map(lambda what: _compile(cxx, *what, say), wanted))
    return [path for path in done if path is not None]


def _compile(cxx: list[str], source: Path, name: str, say) -> Path | None:
    path = library(name, source)
    temporary = path.with_name(f".{path.name}")
    static = ["-static-libstdc++", "-static-libgcc"] if sys.platform == "linux" else []
    stamp = f'-DOMNICALC_SOURCE="{source_hash(source)}"'
    command = [*cxx, *FLAGS, *SETS[name], stamp, str(source), "-o", str(temporary), *static]
    try:
        found = subprocess.run(command, capture_output=True, text=True, errors="replace")
        last = (found.stderr.strip().splitlines() or ["no message"])[-1] if found.returncode else None
    except OSError as error:  # a file that can be executed but is no program
        last = error.strerror
    if last is not None:
        say(f"{source.name} for {name} was not built ({cxx[0]}: {last}): {SOURCES[source]}")
        return None
    temporary.replace(path)
    return path


if __name__ == "__main__":
    for path in build():
        print(path)
