"""The native library of this processor, called through plain pointers."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.ctypeslib import ndpointer

from omnicalc.errors import INSTALL_AGAIN, InputError, KernelError
from omnicalc.kernels.native.build import POTENTIAL, SETS, library, source_hash

INSTRUCTIONS = "OMNICALC_NATIVE"  # environment variable: an instruction set to use in place of the best

CPU_INFO = Path("/proc/cpuinfo")

KINDS = {  # of the arrays of NativeE2Former.evaluate: type and dimensions
    "positions": (np.float64, 2),  # (N, 3), Å
    "type": (np.int32, 1),  # (N,) row of each atom's element
    "system": (np.int32, 1),  # (N,) structure of each atom
    "head": (np.int32, 1),  # (N,) energy head of each atom
    "embedding": (np.float32, 2),  # (S, C) vector of each structure that every block adds to its scalars
    "row": (np.int64, 1),  # pairs as in omnicalc.neighbor_list.FlatPairs
    "source": (np.int32, 1),
    "reverse": (np.int32, 1),
    "offset": (np.float64, 2),
}

_MESSAGE = 200


def instruction_set(source: Path = POTENTIAL) -> str:
    """The best instruction set that this processor has and that a source file was built for.

    Raises:
        KernelError: nothing was built.
        InputError: $OMNICALC_NATIVE asks for a set that cannot be used.
    """
    usable = usable_sets(source)
    wanted = os.environ.get(INSTRUCTIONS)
    if wanted and wanted not in usable:
        raise InputError(
            f"{INSTRUCTIONS}={wanted} given; this machine and installation can use: {', '.join(usable) or 'none'}"
        )
    if not usable:
        raise KernelError(
            "the native CPU kernel was not built, because there was no C++ compiler when OmniCalc was installed; plain "
            f"torch does its work, several times slower; to have it, install a compiler (g++), then {INSTALL_AGAIN}",
            not_built=True,
        )
    return wanted or usable[-1]


def usable_sets(source: Path) -> list[str]:
    """Instruction sets of this processor for which a source file was compiled, the best last."""
    return [name for name in _supported() if library(name, source).exists()]


def _supported() -> list[str]:
    """Instruction sets of this processor that there are kernels for, the best last."""
    flags = _cpu_flags()
    needs = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}}
    return [name for name in SETS if needs.get(name, set()) <= flags]


@cache
def _cpu_flags() -> set[str]:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:  # not Linux
        return set()
    for line in lines:
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def open_library(name: str, source: Path) -> ctypes.CDLL:
    """The library of an instruction set. Raises :class:`KernelError` if it was built from another source file."""
    lib = ctypes.CDLL(str(library(name, source)))
    lib.omnicalc_source.restype = ctypes.c_char_p
    if lib.omnicalc_source().decode() != source_hash(source):
        raise KernelError(
            "the native CPU kernel was built from other sources than those here; plain torch does its work, several "
            "times slower; to build it again in a clone: python omnicalc/kernels/native/build.py",
            not_built=True,
        )
    return lib


@cache
def _load(name: str) -> ctypes.CDLL:
    lib = open_library(name, POTENTIAL)
    f32, i32 = (ndpointer(dtype=kind, ndim=1, flags="C_CONTIGUOUS") for kind in (np.float32, np.int32))
    text = [ctypes.c_char_p, ctypes.c_int]
    lib.omnicalc_e2former_create.restype = ctypes.c_void_p
    lib.omnicalc_e2former_create.argtypes = [
        i32, ctypes.c_float, f32, ctypes.c_int64, f32, ctypes.c_int64, *text,
    ]  # fmt: skip
    lib.omnicalc_e2former_destroy.restype = None
    lib.omnicalc_e2former_destroy.argtypes = [ctypes.c_void_p]
    lib.omnicalc_e2former_evaluate.restype = ctypes.c_int
    lib.omnicalc_e2former_evaluate.argtypes = [
        ctypes.c_void_p, ctypes.c_int, ctypes.c_int32, *12 * [ctypes.c_void_p], *text
    ]  # fmt: skip
    return lib


class Checked:
    """Arrays for the library, whose kinds are looked at once and not at every step."""

    def __init__(self, **arrays: np.ndarray):
        """By the name that :data:`KINDS` has for each, in the order that the library takes them.

        Raises :class:`TypeError` for another type or number of dimensions, and for one that is not contiguous.
        """
        for name, array in arrays.items():
            kind, dims = KINDS[name]
            if array.dtype != kind or array.ndim != dims or not array.flags.c_contiguous:
                raise TypeError(f"{name}: {dims} contiguous dimensions of {np.dtype(kind)} are needed")
        self._arrays = arrays  # alive as long as their addresses
        self.addresses = [array.ctypes.data for array in arrays.values()]

    def __reduce__(self):  # a copy has its own addresses
        return partial(Checked, **self._arrays), ()


class NativeE2Former:
    """The fused kernel with one set of weights; memory for the largest system so far is kept between calls."""

    def __init__(self, settings: np.ndarray, cutoff: float, weights: np.ndarray, table: np.ndarray):
        """``settings`` int32, ``weights`` and ``table`` float32, all flat, in the order that native/model.hpp reads."""
        self._made_from = settings, cutoff, weights, table
        self._lock = threading.Lock()  # the memory kept between calls serves one call at a time
        self.instructions = instruction_set()
        self._lib = _load(self.instructions)
        message = ctypes.create_string_buffer(_MESSAGE)
        self._handle = self._lib.omnicalc_e2former_create(
            settings, cutoff, weights, weights.size, table, table.size, message, _MESSAGE
        )
        if not self._handle:
            raise ValueError(message.value.decode())

    def __reduce__(self):
        return NativeE2Former, self._made_from

    def __del__(self):
        if getattr(self, "_handle", None):
            self._lib.omnicalc_e2former_destroy(self._handle)

    def evaluate(
        self,
        positions: np.ndarray,
        atoms: Checked,
        pairs: Checked,
        *,
        forces: bool = True,
        virial: bool = False,
        threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Per-atom energies (N,), forces (N, 3) and virials (N, 3, 3), float64; None for those not asked for.

        Args:
            positions: (N, 3) float64, Å.
            atoms: type, system, head and embedding of :data:`KINDS`.
            pairs: row, source, reverse and offset.
        """
        n = len(positions)
        energies = np.empty(n)
        found = np.empty((n, 3)) if forces or virial else None
        virials = np.empty((n, 3, 3)) if virial else None
        message = ctypes.create_string_buffer(_MESSAGE)
        with self._lock:
            failed = self._lib.omnicalc_e2former_evaluate(
                self._handle, threads, n, *Checked(positions=positions).addresses, *atoms.addresses, *pairs.addresses,
                _address(energies), _address(found), _address(virials), message, _MESSAGE,
            )  # fmt: skip
        if failed:
            raise MemoryError(f"native kernel: {message.value.decode()}")
        return energies, found, virials


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data
