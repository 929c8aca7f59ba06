"""At what temperature labelled frames were sampled, and whether with classical nuclei, from their forces alone.

For classical nuclei at T, every coordinate x of every atom obeys <F_x²> = k_B T <d²U/dx²>: hydrogens and oxygens give
the same temperature. Quantum nuclei spread further than that, light ones most: the temperatures of water's hydrogens,
weighted by curvature as here, are mostly those of O-H stretches, and one of 3,500 1/cm has the zero-point energy of a
classical one at 2,500 K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms

from omnicalc.analysis.rdf_curves import Value
from omnicalc.md.observables import DISPLACEMENT, curvature, temperature_of_ratio

ALL = "all"


def sampled_temperatures(frames: Sequence[Atoms], bound: Callable, seed: int = 0) -> dict[str, Value]:
    """Temperature and its standard error, K, by element and of all atoms.

    ``frames`` have forces F as labels, eV/Å, and all the atoms and the cell that ``bound`` was made for; second
    derivatives are those of ``bound``, called with positions (N, 3), by one probe of independent ±1 per frame.
    The error is a jackknife over the frames, taken as independent.
    """
    generator = torch.Generator().manual_seed(seed)
    symbols = np.array(frames[0].get_chemical_symbols())
    groups = {element: symbols == element for element in dict.fromkeys(symbols)} | {ALL: symbols != ""}
    square, second = ({name: [] for name in groups} for _ in range(2))
    for atoms in frames:
        squares = atoms.get_forces() ** 2
        seconds = curvature(torch.from_numpy(atoms.positions), bound, DISPLACEMENT, generator).numpy()
        for name, members in groups.items():
            square[name].append(squares[members].sum())
            second[name].append(seconds[members].sum())
    found = {name: (np.array(square[name]), np.array(second[name])) for name in groups}
    return {name: Value(*temperature_of_ratio(*sums, blocks=len(frames))) for name, sums in found.items()}
