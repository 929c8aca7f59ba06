"""Native distances, called through plain pointers; None where they were not built."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np

from omnicalc.errors import KernelError
from omnicalc.kernels.native.library import open_library, usable_sets

SOURCE = Path(__file__).parent / "pairs.cpp"
SWITCH = "OMNICALC_ANALYSIS_NATIVE"  # environment variable: 0 does without
_POINTER, _I64, _I32, _F64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_double


def counter():
    """``count(a, b, molecules, edges, bin_width, n_bins, threads) -> counts``; None without the library."""
    loaded = _usable()
    return None if loaded is None else loaded.count


def selector():
    """``within(x, a, b, edges, cutoff) -> places, distances``; None without the library."""
    loaded = _usable()
    return None if loaded is None else loaded.within


def _usable() -> _Library | None:
    return None if os.environ.get(SWITCH) == "0" else _loaded()


@cache
def _loaded() -> _Library | None:
    built = usable_sets(SOURCE)
    try:
        return _Library(open_library(built[-1], SOURCE)) if built else None
    except KernelError:  # built from other sources
        return None


class _Library:
    """Both functions of the library; neither holds Python's lock while it works."""

    def __init__(self, loaded: ctypes.CDLL):
        self._count, self._within = loaded.omnicalc_count_pairs, loaded.omnicalc_within
        self._count.restype, self._within.restype = None, _I64
        self._count.argtypes = [
            *(_POINTER, _I64, _POINTER, _POINTER, _I64, _POINTER, _I32, _POINTER, _F64, _I32, _I32, _POINTER)
        ]
        self._within.argtypes = [_POINTER, _POINTER, _POINTER, _I64, _POINTER, _F64, _POINTER, _POINTER]

    def count(self, a, b, molecules, edges, bin_width: float, n_bins: int, threads: int) -> np.ndarray:
        """Ordered pairs per bin (n_bins,) int64 between atoms at a (3, Na) and b (3, Nb; None: a itself), float32 Å.

        ``molecules``: int32 numbers of both sets, or None; ``edges`` (3,) float32 of an upright box.
        """
        like = b is None
        b = a if like else b
        of_a, of_b = (None, None) if molecules is None else (m.ctypes.data for m in molecules)
        counts = np.empty(n_bins, dtype=np.int64)
        self._count(a.ctypes.data, a.shape[1], of_a, b.ctypes.data, b.shape[1], of_b, like, edges.ctypes.data,
                    1.0 / bin_width, n_bins, threads, counts.ctypes.data)  # fmt: skip
        return counts

    def within(self, x, a, b, edges, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        """Places (m,) int64 of the pairs of atoms a, b (n,) int64 up to ``cutoff`` Å apart, and their distances (m,).

        ``x`` (N, 3) float32 Å; ``edges`` (3,) float32 of an upright box, or None without a box.
        """
        places, distances = np.empty(len(a), dtype=np.int64), np.empty(len(a))
        found = self._within(x.ctypes.data, a.ctypes.data, b.ctypes.data, len(a),
                             None if edges is None else edges.ctypes.data, cutoff, places.ctypes.data,
                             distances.ctypes.data)  # fmt: skip
        return places[:found], distances[:found]


def threads() -> int:
    """As OMP_NUM_THREADS says, else the processors this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
