"""How near the golden cases of E2Former-V2 are met: a row for each, of plain torch and of the native CPU kernel.

Prints the largest errors of energies (eV) and forces (eV/Å) against what the published release computed.
From the top of a checkout: ``PYTHONPATH=. python analysis/kernels/golden.py [FOLDER of cases]``.
"""

import sys
from pathlib import Path

import torch

from omnicalc.kernels.native.library import instruction_set
from tests.conftest import GOLDEN
from tests.golden.test_e2former_v2 import FAMILY, Case


def row(folder: Path) -> str:
    """One case: errors in float64, in float32 and by the native kernel, or why that does not take it."""
    golden = Case(folder)
    results = [golden.predict(golden.potential(dtype)) for dtype in (torch.float64, torch.float32)]
    results.append(golden.by_native_kernel())
    cells = [x if isinstance(x, str) else "{:.0e}, {:.0e}".format(*golden.errors(x)) for x in results]
    return f"| {folder.name} | {golden.systems.n_atoms} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    cases = Path(sys.argv[1] if len(sys.argv) > 1 else GOLDEN) / FAMILY
    print(f"| case | atoms | float64 | float32 | native ({instruction_set()}) |\n|---|---|---|---|---|")
    for folder in sorted(path.parent for path in cases.glob("*/config.json")):
        print(row(folder))


if __name__ == "__main__":
    main()
