"""Errors of a potential on labelled structures: what `omnicalc evaluate` prints and cards quote."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from omnicalc.errors import InputError
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems


@dataclass(frozen=True)
class Errors:
    """Errors over all frames: energies in meV/atom, force components in meV/Å."""

    frames: int
    energy_mae: float
    energy_rmse: float
    force_mae: float
    force_rmse: float

    def to_dict(self) -> dict:
        return asdict(self)


def labelled_frames(frames: Sequence[Atoms], split: str | None, origin: str) -> list[Atoms]:
    """Frames with energy and forces, only those of one ``split`` when it is given.

    Raises:
        InputError: no frame is left, or a frame without labels (named).
    """
    if split is not None:
        frames = [a for a in frames if a.info.get("split") == split]
    frames = [a for a in frames if a.info.get("quality") != "outlier"]
    if not frames:
        of = f" with split={split}" if split is not None else ""
        raise InputError(f"no frames{of} in '{origin}'; leave out --split to use all")
    for k, atoms in enumerate(frames):
        if atoms.calc is None or not {"energy", "forces"} <= set(atoms.calc.results):
            raise InputError(
                f"frame {k} of '{origin}' has no energy and forces to compare with; give a file with labels, such as "
                "extended XYZ with energy= and a forces column"
            )
        if not (np.isfinite(atoms.get_potential_energy()) and np.isfinite(atoms.get_forces()).all()):
            raise InputError(f"frame {k} of '{origin}' has an energy or forces that are not finite; leave it out")
    return list(frames)


def evaluate(
    potential: Potential, frames: Sequence[Atoms], head: str | None = None, progress=None
) -> tuple[str, Errors]:
    """Head used and errors of ``potential`` against the labels of ``frames``, one frame at a time."""
    chosen, energy, force = None, [], []
    for k, atoms in enumerate(frames):
        try:
            systems = Systems.from_atoms(atoms).to(potential.device)
            chosen = potential.choose_head(systems, chosen or head)
        except InputError as error:
            raise InputError(f"frame {k}: {error}" if len(frames) > 1 else str(error)) from None
        result = potential(systems, neighbors(systems, potential.cutoff), head=chosen)
        energy.append((result.energy.item() - atoms.get_potential_energy()) / len(atoms))
        force.append((result.forces.cpu().numpy() - atoms.get_forces()).ravel())
        if progress is not None:
            progress(k + 1)
    e, f = 1e3 * np.array(energy), 1e3 * np.concatenate(force)
    rmse = [float(np.sqrt(np.mean(x * x))) for x in (e, f)]
    return chosen, Errors(len(e), float(np.abs(e).mean()), rmse[0], float(np.abs(f).mean()), rmse[1])
