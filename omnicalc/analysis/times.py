"""How far apart in time frames are, as far as their file tells.

XTC, TRR and NetCDF files hold a time for each frame, which is looked at without reading the frames; DCD files hold one
spacing, in units of CHARMM. LAMMPS and CP2K write it in their own, which the file does not name, and VMD (mdtraj and
catdcd likewise) always 1: not known. For the rest MDAnalysis answers 1 ps where nobody told it: exactly that is
taken as not known.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.quiet import quietly

_NOT_KNOWN = 1.0  # ps
_AKMA = 0.04888821  # ps
_OTHER_UNITS = ("LAMMPS", "CP2K")  # in the title of a DCD file
_UNEVEN = 0.01  # of the spacing
_RESOLVED = 0.25  # of the spacing, that times must be written finer than for a missing frame to show
_XTC_TIME, _TRR_SIZES, _TRR_TIME = 12, 24, 76  # bytes from the start of a frame


def spacing_of(reader) -> tuple[float | None, np.ndarray | None]:
    """Time between frames, ps, None where it is not known or not one; and where not one that of each frame (F,)."""
    if reader.n_frames < 2:
        return None, None
    if reader.format == "DCD":
        return _of_dcd(reader), None
    given = getattr(reader, "_ts_kwargs", {}).get("dt")
    if given is not None:
        return float(given), None
    with quietly():
        if reader.format == "CHAIN":
            dts = {spacing_of(part)[0] for part in reader.readers}
            return (dts.pop() if len(dts) == 1 else None), None
        times = _stored_times(reader)
        if times is not None:
            return spacing_told(times)
        try:
            dt = float(reader.dt)
        except (ValueError, ZeroDivisionError, AttributeError):
            return None, None
    return (dt if np.isfinite(dt) and dt > 0 and dt != _NOT_KNOWN else None), None


def _of_dcd(reader) -> float | None:
    """What the header of a DCD file says in units of CHARMM, or what its reader was told in its place."""
    header, dt = reader._file.header, float(reader.dt)
    filled_in = header["delta"] == 1.0 and header["nsavc"] == 1  # 49 fs; no time step is that long
    own = header["delta"] * header["nsavc"] * _AKMA
    if np.isclose(dt, own, rtol=1e-5) and (filled_in or any(name in header["remarks"] for name in _OTHER_UNITS)):
        return None
    return dt if np.isfinite(dt) and dt > 0 else None


def spacing_told(times: np.ndarray) -> tuple[float | None, np.ndarray | None]:
    """As :func:`spacing_of`, from the time of each frame (F,), ps."""
    dt, uneven = evenness(times)
    return dt, times if uneven else None


def evenness(times: np.ndarray, frames: range | None = None) -> tuple[float | None, str | None]:
    """Spacing of ``times`` (F,), ps, and what differs where it is not one; neither where times are written too coarsely
    to tell. ``frames``: their numbers, for the words.
    """
    steps, n = np.diff(times), len(times) - 1
    if n < 1 or not np.isfinite(times).all() or not steps.any():
        return None, None
    single = np.array_equal(times, times.astype(np.float32))
    digit = float(np.spacing(np.abs(times).max().astype(np.float32 if single else np.float64)))
    dt = (times[-1] - times[0]) / n
    away = np.abs(times - times[0] - dt * np.arange(n + 1)).max()
    if dt > 0 and away <= _UNEVEN * dt + digit:
        known = digit <= _RESOLVED * dt and digit <= _UNEVEN * dt * n
        return (float(f"{dt:.6g}") if known else None), None  # as many digits as single precision gives
    usual = float(np.median(steps))
    other = np.abs(steps - usual)
    k = int(np.argmax(other > other.max() / 2))  # the first of them
    first, second = (k, k + 1) if frames is None else frames[k : k + 2]
    return None, f"frame {second} comes {steps[k]:.4g} ps after frame {first}, and most others {usual:.4g} ps"


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
