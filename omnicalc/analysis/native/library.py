"""The native counter of distances, called through plain pointers; None where it was not built."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np

from omnicalc.kernels.native.build import library, source_hash
from omnicalc.kernels.native.library import usable_sets

SOURCE = Path(__file__).parent / "pairs.cpp"
SWITCH = "OMNICALC_ANALYSIS_NATIVE"  # environment variable: 0 does without
_FEW = 200_000  # distances: below, a second thread costs more than it saves


def counter():
    """``count(a, b, molecules, edges, bin_width, n_bins) -> counts``, or None where the library cannot be used."""
    return None if os.environ.get(SWITCH) == "0" else _counter()


@cache
def _counter():
    path = next((library(name, SOURCE) for name in reversed(usable_sets(SOURCE))), None)
    if path is None:
        return None
    loaded = ctypes.CDLL(str(path))
    loaded.omnicalc_source.restype = ctypes.c_char_p
    if loaded.omnicalc_source().decode() != source_hash(SOURCE.parent):
        return None
    count = loaded.omnicalc_count_pairs
    pointer, i64, i32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    count.argtypes = [pointer, i64, pointer, pointer, i64, pointer, i32, pointer, ctypes.c_double, i32, i32, pointer]
    count.restype = None

    def call(a, b, molecules, edges, bin_width: float, n_bins: int) -> np.ndarray:
        """Ordered pairs per bin (n_bins,) int64 between atoms at a (3, Na) and b (3, Nb; None: a itself), float32 Å.

        ``molecules``: int32 numbers of both sets, or None; ``edges`` (3,) float32 of an upright box.
        """
        like = b is None
        b = a if like else b
        of_a, of_b = (None, None) if molecules is None else (m.ctypes.data for m in molecules)
        counts = np.empty(n_bins, dtype=np.int64)
        many = threads() if a.shape[1] * b.shape[1] > _FEW else 1
        count(a.ctypes.data, a.shape[1], of_a, b.ctypes.data, b.shape[1], of_b, like, edges.ctypes.data,
              1.0 / bin_width, n_bins, many, counts.ctypes.data)  # fmt: skip
        return counts

    return call


def threads() -> int:
    """As OMP_NUM_THREADS says, else the processors this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
