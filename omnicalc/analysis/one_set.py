"""Near pairs of one set of atoms, minimum image in any triclinic box."""

from __future__ import annotations

import numpy as np


def within_one_set(positions: np.ndarray, reach: float, box: np.ndarray | None) -> np.ndarray:
    """Pairs (n, 2) of different atoms (N, 3) up to ``reach`` Å apart, each once.

    Without a box MDAnalysis may lay a grid over a cube that holds all atoms: with molecules that have left a droplet
    and are thousands of Å away, it would take gigabytes.
    """
    if box is None:
        from scipy.spatial import cKDTree

        found = cKDTree(positions).query_pairs(reach, output_type="ndarray")
        return found[np.lexsort(found.T[::-1])]
    from MDAnalysis.lib.distances import self_capped_distance

    return self_capped_distance(positions, max_cutoff=reach, box=box, return_distances=False)
