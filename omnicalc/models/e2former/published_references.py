"""Reference energies of the UBio-MolFM release: which table a level of theory takes, and what is in it.

    E_total = E_model + factor * sum_i table[Z_i]

The release gives zeros to a level of theory without a table and to elements that a fit did not contain, in silence.
Here both are visible: no table is None, and an element that is not in a table is not among the head's elements.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("published_references.json")
_FAMILIES = ("svp", "tzvpd")  # data sets whose names begin so share a table


@dataclass(frozen=True)
class ReferenceTable:
    """Energies of free atoms, eV, by symbol."""

    name: str
    energies: Mapping[str, float]


def reference_table(data_name: str) -> ReferenceTable | None:
    """The table that the release takes for a data set's name, if it has one."""
    lower, tables = data_name.lower(), _tables()
    name = next((family for family in _FAMILIES if lower.startswith(family)), lower)
    if name not in tables:
        return None
    table = tables[name]
    return ReferenceTable(name, {symbol: table["factor"] * e for symbol, e in table["energies"].items()})


def table_names() -> list[str]:
    """Names of all tables."""
    return list(_tables())


def _tables() -> dict:
    return json.loads(_FILE.read_text(encoding="utf-8"))["tables"]
