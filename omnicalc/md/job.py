"""What a run is about: the atoms, the forces on them, and how both are named in run.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.md.record import structure_hash

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.potential import Potential


@dataclass(frozen=True)
class Job:
    """Atoms and forces of a run.

    Where ``bound`` has a ``neighbor_list`` and ``systems``, as :class:`omnicalc.potential.BoundPotential`, a
    resumed run searches the list where the old one was searched. With a barostat ``bound`` also takes
    ``stress=True``, then gives ``stress`` (1, 3, 3), eV/Å^3, and computes in ``systems.cell``, which is replaced as
    the cell moves.
    """

    atoms: Atoms  # what their info has of charge and spin goes into every frame written
    bound: Callable  # positions (N, 3) float64, Å -> an object with energy (S,), eV, and forces (N, 3), eV/Å
    structure: Mapping  # for run.json; "sha256" must be the same on a resume
    model: Mapping = field(
        default_factory=dict
    )  # for run.json; "sha256", "head", "dtype", "device", "skin" must be the same on a resume

    unlike: Callable | None = None  # (positions (N, 3), cell (3, 3)) -> Unlike of known_surroundings, or None

    @property
    def device(self) -> str:
        return self.model.get("device", "cpu")


def build_job(
    atoms: Atoms,
    potential: Potential,
    *,
    file: Path | str,
    read_options: Mapping[str, object],
    charge: int | None = None,
    spin: int | None = None,
    head: str | None = None,
    skin: float | None = None,
) -> Job:
    """Bind ``potential`` to ``atoms``; ``read_options``: how they were read from ``file``, for run.json.

    Raises :class:`omnicalc.errors.InputError` for a structure that cannot be or that no head of the potential
    knows.
    """
    import torch

    from omnicalc.charge_and_spin import origins
    from omnicalc.neighbor_list import DEFAULT_SKIN
    from omnicalc.systems import Systems
    from omnicalc.unlike_training import unlike_along

    skin = DEFAULT_SKIN if skin is None else skin
    systems = Systems.from_atoms(atoms, charge=charge, spin=spin)
    bound = potential.bind(systems, head=head, skin=skin)
    kernel = potential.kernel.describe(potential, systems.numbers)
    total_charge, multiplicity = int(systems.charge[0]), int(systems.spin[0])
    charge_from, spin_from = origins(atoms, charge, spin)
    atoms = atoms.copy()
    atoms.info |= {"charge": total_charge, "spin": multiplicity}
    structure = {
        "file": str(file),
        "sha256": structure_hash(atoms, total_charge, multiplicity),
        "atoms": len(atoms),
        "formula": atoms.get_chemical_formula(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "charge": total_charge,
        "charge_from": charge_from,
        "spin": multiplicity,
        "spin_from": spin_from,
        "read_options": {**read_options, "charge": charge, "spin": spin},
    }
    model = {
        "name": potential.name_resolved,
        "sha256": potential.sha256,
        "head": bound.head,
        "conservative": potential.conservative,
        "stress_trained": stress_trained(potential),
        "dtype": str(potential.dtype).removeprefix("torch."),
        "device": str(potential.device),
        "skin": skin,
        "kernel": kernel,
        "threads": torch.get_num_threads(),
    }
    if (limit := uncertainty_limit(potential)) is not None:
        model["uncertainty_limit"] = limit
    return Job(atoms, bound, structure, model, unlike_along(potential, bound.head, systems))


def uncertainty_limit(potential: Potential) -> float | None:
    """Spread of a force over the committee, eV/Å, above which the weights are not to be trusted: what their card says
    under ``[training]``.
    """
    training = getattr(getattr(potential, "card", None), "training", None) or {}
    limit = training.get("uncertainty_limit")
    return None if limit is None else float(limit)


def stress_trained(potential: Potential) -> bool:
    """Whether the weights were fitted to stresses: what their card says under ``[training]``."""
    training = getattr(getattr(potential, "card", None), "training", None) or {}
    return bool(training.get("stress", False))
