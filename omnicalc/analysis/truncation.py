"""Files that end inside a frame. MDAnalysis quietly drops such a tail; a user should hear of it."""

import struct
from pathlib import Path

import numpy as np

_XTC_HEADER = 92  # bytes before the compressed coordinates of a frame with more than 9 atoms
_XTC_SMALL = 9  # up to this many atoms are stored uncompressed: 56 bytes of header, 12 per atom
_XTC_64BIT = 2023  # magic number of frames whose byte count takes 8 bytes


def damage_of(path: Path, n_frames: int, reader) -> tuple[str | None, bool]:
    """What is wrong behind the last of ``n_frames`` whole frames that an MDAnalysis reader found, or None.

    Also whether ``n_frames`` leaves it out, so that the others can be used as they are: the reader of DCD files counts
    whole frames only, others count one that has begun.
    """
    kind = getattr(reader, "format", "")
    end = None
    if kind == "DCD":
        end = _dcd_end(path, n_frames, reader)
    elif kind == "XTC" and n_frames:
        end = _xtc_end(path, reader)
    elif kind == "TRR" and n_frames:
        end = _trr_end(path, reader)
    elif kind == "GRO" and n_frames == 1 and _more_than_one_gro_frame(path, reader):
        return "only the first frame of a .gro file can be read, and it holds more; convert it to .xtc", False
    size = path.stat().st_size
    if end is None or size <= end:
        return None, False
    return (
        f"the file ends inside frame {n_frames} ({size - end} bytes of it are there): "
        f"it was cut off, or a run is still writing it"
    ), kind == "DCD"


def _dcd_end(path: Path, n_frames: int, reader) -> int | None:
    """Byte behind the last whole frame of a DCD file, equal frames after a header; None for rare layouts."""
    with path.open("rb") as file:
        head = file.read(96)
    order = "<" if struct.unpack("<i", head[:4])[0] == 84 else ">"
    if struct.unpack(order + "i", head[:4])[0] != 84:
        return None  # 64-bit record marks
    control = struct.unpack(order + "20i", head[8:88])
    if control[8] or control[11]:
        return None  # fixed atoms, or a fourth coordinate
    titles = struct.unpack(order + "i", head[92:96])[0]
    header = 92 + (8 + titles) + 12
    n_atoms, has_box = (
        reader.n_atoms,
        control[10] and control[19],
    )  # X-PLOR files (version 0) have no box flag
    return header + n_frames * (3 * (8 + 4 * n_atoms) + (56 if has_box else 0))


def _more_than_one_gro_frame(path: Path, reader) -> bool:
    if path.suffix.lower() != ".gro":
        return False  # compressed: the size says nothing
    with path.open("rb") as file:
        return any(line.strip() for number, line in enumerate(file) if number >= reader.n_atoms + 3)


def _xtc_end(path: Path, reader) -> int | None:
    """Byte behind the last frame that the reader's offset table knows."""
    last = int(np.asarray(reader._xdr.offsets)[-1])
    with path.open("rb") as file:
        file.seek(last)
        head = file.read(_XTC_HEADER + 4)
    magic, n_atoms = struct.unpack(">2i", head[:8])
    if n_atoms <= _XTC_SMALL:
        return last + 56 + 12 * n_atoms
    wide = magic == _XTC_64BIT
    count = struct.unpack(">q" if wide else ">i", head[88:96] if wide else head[88:92])[0]
    return last + _XTC_HEADER + (4 if wide else 0) + (count + 3) // 4 * 4


def _trr_end(path: Path, reader) -> int:
    """Byte behind the last frame that the reader's offset table knows: a header that gives all sizes."""
    last = int(np.asarray(reader._xdr.offsets)[-1])
    with path.open("rb") as file:
        file.seek(last + 24)  # magic number and version string
        sizes = struct.unpack(">13i", file.read(52))
    arrays, box, positions, n_atoms = sizes[:10], sizes[2], sizes[7], sizes[10]
    real = box // 9 if box else positions // (3 * n_atoms) if positions else 4
    return last + 24 + 52 + 2 * real + sum(arrays)
