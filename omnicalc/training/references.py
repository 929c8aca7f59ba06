"""Reference energies: what every atom contributes to a total energy before the network adds its part."""

from collections.abc import Mapping, Sequence

import numpy as np

from omnicalc.errors import InputError


def fit_references(
    counts: Sequence[Mapping[int, int]], energies: Sequence[float], prior: Mapping[int, float]
) -> dict[int, float]:
    """Per-element energies (eV) whose composition sums fit the total ``energies`` best, in float64.

    ``counts``: atoms of each element (atomic number -> number) per structure. At fixed composition least squares leaves
    directions open; there the solution stays at ``prior`` (where an element is not listed: at the average energy per
    atom of the structures).
    """
    elements = sorted(set().union(*counts))
    table = np.array([[c.get(z, 0) for z in elements] for c in counts], dtype=float)
    energies = np.asarray(energies, dtype=float)
    if prior:
        missing = [z for z in elements if z not in prior]
        if missing:
            raise InputError(f"the recipe's reference_prior lacks atomic numbers {missing}; give an energy for each")
        start = np.array([prior[z] for z in elements])
    else:
        start = np.full(len(elements), float((energies / table.sum(1)).mean()))
    correction = np.linalg.lstsq(table, energies - table @ start, rcond=1e-10)[0]
    return dict(zip(elements, (start + correction).tolist(), strict=True))
