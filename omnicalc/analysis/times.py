"""How far apart in time the frames of an MDAnalysis reader are, as far as its format tells.

XTC, TRR and NetCDF files hold a time for each frame, which is looked at without reading the frames; DCD files hold one
spacing. For the rest MDAnalysis answers 1 ps where nobody told it: exactly that is taken as not known.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.quiet import quietly

_NOT_KNOWN = 1.0  # ps
_UNEVEN = 0.01  # of the spacing
_ROUNDING = 2.5e-7  # relative, of times in single precision
_XTC_TIME, _TRR_SIZES, _TRR_TIME = 12, 24, 76  # bytes from the start of a frame


def spacing_of(reader) -> tuple[float | None, str | None]:
    """Time between frames, ps, None where it is not known or not one; and, where it is not one, what differs."""
    if reader.n_frames < 2:
        return None, None
    with quietly():
        times = _stored_times(reader)
        if times is not None:
            return _even(times)
        try:
            dt = float(reader.dt)
        except (ValueError, ZeroDivisionError, AttributeError):
            return None, None
    known = np.isfinite(dt) and dt > 0 and (reader.format == "DCD" or dt != _NOT_KNOWN)
    return (dt if known else None), None


def _stored_times(reader) -> np.ndarray | None:
    """The time of each frame (F,), ps; None where the format has none."""
    if reader.format == "XTC":
        return _at(reader, _XTC_TIME, ">f4")
    if reader.format == "TRR":
        sizes = _at(reader, _TRR_SIZES, ">i4", 13)[0]
        box, positions, n_atoms = sizes[2], sizes[7], sizes[10]
        double = (box // 9 if box else positions // (3 * n_atoms)) == 8
        return _at(reader, _TRR_TIME, ">f8" if double else ">f4")
    if "NCDF" in reader.format and "time" in reader.trjfile.variables:
        return np.array(reader.trjfile.variables["time"][:], dtype=np.float64)
    return None


def _at(reader, place: int, kind: str, many: int = 1) -> np.ndarray:
    """Numbers at one place of every frame that reaches so far: (F,), or (F, many)."""
    data = np.memmap(reader.filename, dtype=np.uint8, mode="r")
    size = many * np.dtype(kind).itemsize
    starts = np.asarray(reader._xdr.offsets, dtype=np.int64) + place
    starts = starts[starts + size <= len(data)]
    found = np.ascontiguousarray(data[starts[:, None] + np.arange(size)]).view(kind)
    return found[:, 0].astype(np.float64) if many == 1 else found.astype(np.int64)


def _even(times: np.ndarray) -> tuple[float | None, str | None]:
    steps = np.diff(times)
    if not len(steps) or not np.isfinite(times).all() or not steps.any():
        return None, None
    dt = (times[-1] - times[0]) / len(steps)
    away = np.abs(times - times[0] - dt * np.arange(len(times)))
    if dt > 0 and away.max() <= _UNEVEN * dt + _ROUNDING * np.abs(times).max():
        return float(f"{dt:.6g}"), None  # as many digits as single precision gives
    usual = float(np.median(steps))
    other = np.abs(steps - usual)
    k = int(np.argmax(other > other.max() / 2))  # the first of them
    return None, f"frame {k + 1} comes {steps[k]:.4g} ps after frame {k}, and most others {usual:.4g} ps"
