"""What is installed, on what machine, and whether it works: a line per finding, advice where something is wrong.

Loads nothing heavy by itself: what can be found out without torch is said before torch is loaded.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from omnicalc import __version__
from omnicalc.errors import INSTALL_AGAIN, InputError, KernelError, OmniCalcError, WeightsError


@dataclass(frozen=True)
class Finding:
    """One line of the report. A ``problem`` makes the exit code 2; advice alone is a hint."""

    name: str
    text: str
    advice: str | None = None
    problem: bool = False


@dataclass(frozen=True)
class Package:
    """Something that may be installed: what for, and the extra that brings it (None: always needed)."""

    name: str
    purpose: str
    extra: str | None = None


PACKAGES = (
    Package("torch", "the models"),
    Package("ase", "structures and the calculator"),
    Package("numpy", "everything"),
    Package("scipy", "analysis, training"),
    Package("vesin", "neighbour lists"),
    Package("safetensors", "weights"),
    Package("MDAnalysis", "trajectories"),
    Package("matplotlib", "figures"),
    Package("triton", "kernels on GPUs", "torch"),
    Package("openmm", "the OpenMM interface", "openmm"),
    Package("openmmml", "the OpenMM interface", "openmm"),
    Package("pyscf", "labelling structures", "label"),
    Package("h5py", "training on SPICE (HDF5)", "train"),
    Package("lmdb", "training on ASE-LMDB", "train"),
)


def sections(device: str = "auto") -> Iterator[tuple[str, Iterator[Finding]]]:
    """Titles with findings, each made when it is asked for; later sections need what the earlier ones found."""
    missing = []
    yield "installed", _noting(missing, packages())
    if missing:
        return
    yield "machine", _guarded("machine", machine)
    yield "kernel", _guarded("CPU kernel", cpu_kernel)
    yield "weights", _guarded("weights", weights)
    yield "self-test", _guarded("self-test", lambda: _self_test(device))


def _noting(missing: list[Finding], found: Iterator[Finding]) -> Iterator[Finding]:
    for each in found:
        if each.problem:
            missing.append(each)
        yield each


def packages() -> Iterator[Finding]:
    """Versions of OmniCalc, Python and :data:`PACKAGES`; needed ones that are missing or too old are problems."""
    yield Finding("omnicalc", f"{__version__}, {os.path.dirname(__file__)}")
    yield Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    least = _least_versions()
    for package in PACKAGES:
        yield _package(package, least.get(package.name.lower()))


def _package(package: Package, least: str | None) -> Finding:
    needed = package.extra is None
    remedy = f"pip install '{package.name}{'>=' + least if least else ''}'"
    if package.extra == "torch":
        remedy = "pip install torch"  # each asks for one version of it
    elif package.extra:
        remedy = f"pip install 'omnicalc[{package.extra}]'"
    try:
        version = metadata.version(package.name)
    except metadata.PackageNotFoundError:
        text = f"not installed (for {package.purpose})"
        if package.extra == "torch":  # comes with torch, where torch has a use for it
            return Finding(package.name, text)
        return Finding(package.name, text, remedy if needed else None, problem=needed)
    if least and _numbers(version) < _numbers(least):
        return Finding(package.name, f"{version}; {least} or newer is needed", f"{remedy} --upgrade", problem=needed)
    return Finding(package.name, version)


def _least_versions() -> dict[str, str]:
    """Lower bounds that this installation was made with, by lower-case name."""
    try:
        wanted = metadata.requires("omnicalc") or []
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return {}
    found = (re.match(r"([\w.-]+)[^;]*>=\s*([\d.]+)", text) for text in wanted)
    return {match[1].lower(): match[2] for match in found if match}


def _numbers(version: str) -> list[int]:
    """Release numbers of a version, for comparing: 2.13.0+cpu is [2, 13, 0]."""
    return [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])]


def machine() -> Iterator[Finding]:
    """Cores, threads, GPUs."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    many = f"{threads} threads on {cores} cores slow each other down: export OMP_NUM_THREADS={cores}"
    text = f"{cores} cores for this process, of {os.cpu_count()}; torch uses {threads} threads"
    yield Finding("CPU", text, many if threads > cores else None)
    for k in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(k)
        yield Finding(f"cuda:{k}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        yield _no_gpu(torch.version.cuda)


def _no_gpu(built_for: str | None) -> Finding:
    if not os.path.exists("/proc/driver/nvidia/version"):
        return Finding("GPU", "none; everything runs on the CPU")
    why = f"torch was built for CUDA {built_for}" if built_for else "this torch is built for CPUs only"
    return Finding("GPU", f"an NVIDIA driver, but no GPU that torch can use: {why}",
                   "install a torch that fits the driver: https://pytorch.org/get-started/locally")  # fmt: skip


def cpu_kernel() -> Iterator[Finding]:
    """The native CPU kernel, or why there is none; plain torch works without it, slower."""
    from omnicalc.kernels.native.library import instruction_set

    try:
        yield Finding("CPU kernel", f"native, {instruction_set()}")
    except KernelError as error:
        yield Finding("CPU kernel", "plain torch", str(error))
    except InputError as error:
        yield Finding("CPU kernel", "none", str(error), problem=True)


def weights() -> Iterator[Finding]:
    """Every bundled potential and decoder, its file compared with the sha256 of its card."""
    from omnicalc import registry
    from omnicalc.decoding import weights as decoders

    names = [entry.full_name for entry in registry.list_models() if entry.status == "bundled"]
    if not names:
        yield Finding("weights", "none", INSTALL_AGAIN, problem=True)
    for name in names:
        yield _verified(name, lambda name=name: registry.resolve(name), registry.verified_bytes)
    for folder, card in decoders.list_decoders():
        if folder.parent == registry.BUNDLED:
            yield _verified(card.full_name, lambda both=(folder, card): both, decoders.verified_bytes)


def _verified(name: str, find: Callable[[], tuple], read: Callable[..., bytes]) -> Finding:
    try:
        folder, card = find()
        size = len(read(folder, card))
        return Finding(name, f"{size / 1e6:.1f} MB, sha256 {card.sha256[:16]}... as its card says")
    except WeightsError as error:
        return Finding(name, "damaged", str(error), problem=True)


def _self_test(device: str) -> Iterator[Finding]:
    from omnicalc.self_test import findings

    return findings(device)


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of ``look``; whatever it raises is a finding too: a report that stops half-way helps nobody."""
    try:
        yield from look()
    except OmniCalcError as error:
        yield Finding(name, "failed", str(error), problem=True)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(
            name, f"failed with {what}", "install the packages above again; then report this line", problem=True
        )
