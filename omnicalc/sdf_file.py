"""Structures of SDF and MOL files: every record, V2000 and V3000, with the charge that those of its atoms make."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_CODES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}  # of the atom block, which only count without property lines


def read_sdf(path: Path) -> list[Atoms]:
    """Structures of all records, in Å; ``info["charge"]`` of those that name charges of atoms.

    Raises :class:`InputError` naming the record that cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    records = [record for record in re.split(r"^\$\$\$\$.*\n?", text, flags=re.MULTILINE) if record.strip()]
    found = []
    for number, record in enumerate(records):
        try:
            found.append(_structure(record))
        except (ValueError, IndexError, KeyError) as error:
            what = f"unknown symbol {error}" if isinstance(error, KeyError) else "it is neither V2000 nor V3000"
            raise InputError(
                f"record {number} of {len(records)} cannot be read ({what}); write it again, as with "
                "obabel FILE -O NEW.sdf"
            ) from None
    return found


def _structure(record: str) -> Atoms:
    from ase import Atoms

    lines = record.splitlines()
    symbols, positions, charges = _v3000(record) if "V3000" in lines[3] else _v2000(lines)
    atoms = Atoms(symbols, positions)
    if charges:
        atoms.info["charge"] = sum(charges)
    return atoms


def _v2000(lines: list[str]) -> tuple[list[str], list[list[float]], list[int]]:
    count = int(lines[3][:3])
    rows = [line.split() for line in lines[4 : 4 + count]]
    if len(rows) < count:
        raise ValueError("cut off")
    properties = [line.split() for line in lines[4 + count :] if line.startswith(("M  CHG", "M  RAD"))]
    if properties:
        charges = [int(charge) for words in properties if words[1] == "CHG" for charge in words[4::2]]
    else:
        charges = [_CODES[code] for row in rows if len(row) > 5 and (code := int(row[5])) in _CODES]
    return [row[3] for row in rows], [[float(x) for x in row[:3]] for row in rows], charges


def _v3000(record: str) -> tuple[list[str], list[list[float]], list[int]]:
    whole = re.sub(r"-\s*\nM  V30 ", "", record)  # lines that go on
    block = re.search(r"M  V30 BEGIN ATOM\n(.*?)M  V30 END ATOM", whole, flags=re.DOTALL)
    if block is None:
        raise ValueError("no atoms")
    rows = [line.split()[2:] for line in block[1].splitlines()]
    charges = [int(charge) for charge in re.findall(r"\sCHG=([-+]?\d+)", block[1])]
    return [row[1] for row in rows], [[float(x) for x in row[2:5]] for row in rows], charges
