"""Errors of a potential on labelled structures: what `omnicalc evaluate` prints and cards quote."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

from omnicalc.batches import batches
from omnicalc.data.misnamed_labels import misnamed_labels
from omnicalc.data.stress_label import stress_label
from omnicalc.errors import InputError
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems

ALL = "all"
_NO_VALUE = "none"  # group of the frames that lack the key
ATOMS_PER_BATCH = 1000


@dataclass(frozen=True)
class Errors:
    """Errors over frames: energies in meV/atom, force components in meV/Å, stress components (six) in meV/Å^3.

    ``energy_mean``: of predicted less labelled. ``relative_energy_mae``: of energies against the mean of the frames
    with the same atoms, so that the zero of energy does not matter. ``delta_energy_mae``: of the energy difference, in
    meV, between one frame and the next with the same atoms. NaN where no two frames have the same atoms.
    ``stress_mae``: over the ``stresses`` frames that have a stress label and are periodic along all axes, of models
    whose forces are the gradient of the energy; NaN where there are none. ``stress_mae_gpa``: the same in GPa.
    """

    frames: int
    energy_mae: float
    energy_rmse: float
    force_mae: float
    force_rmse: float
    energy_mean: float
    relative_energy_mae: float
    delta_energy_mae: float
    stresses: int = 0
    stress_mae: float = np.nan
    stress_mae_gpa: float = np.nan

    def to_dict(self) -> dict:
        """With None in place of NaN, which JSON does not know."""
        return {k: None if v != v else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Compared:
    """One frame: labels and what the potential says, in eV and eV/Å."""

    atoms: Atoms
    energy: float
    forces: np.ndarray  # (N, 3)
    energy_std: float | None = None  # of a committee whose spread is asked for
    forces_std: np.ndarray | None = None  # (N,)
    stress: np.ndarray | None = None  # (6,) Voigt, eV/Å^3, where there is a label

    @property
    def label(self) -> float:
        return self.atoms.get_potential_energy()

    @property
    def label_forces(self) -> np.ndarray:
        """(N, 3), also of atoms that are held in place."""
        return self.atoms.get_forces(apply_constraint=False)

    @property
    def label_stress(self) -> np.ndarray | None:
        """(6,) Voigt, eV/Å^3."""
        return stress_label(self.atoms)

    @property
    def energy_error(self) -> float:
        return self.energy - self.label

    @property
    def force_errors(self) -> np.ndarray:
        """(N,) eV/Å, size of the error of each atom's force."""
        return np.linalg.norm(self.forces - self.label_forces, axis=1)


@dataclass
class Evaluation:
    """All frames of a comparison, in their order."""

    head: str
    frames: list[Compared] = field(default_factory=list)

    def errors(self, chosen: Sequence[Compared] | None = None) -> Errors:
        """Of the chosen frames; None: of all."""
        chosen = self.frames if chosen is None else chosen
        energy = 1e3 * np.array([c.energy_error / len(c.atoms) for c in chosen])
        force = 1e3 * np.concatenate([(c.forces - c.label_forces).ravel() for c in chosen])
        stress = [c.stress - c.label_stress for c in chosen if c.stress is not None]
        stress_mae = float(np.abs(stress).mean()) if stress else None
        return Errors(
            frames=len(chosen),
            energy_mae=float(np.abs(energy).mean()),
            energy_rmse=float(np.sqrt(np.mean(energy**2))),
            force_mae=float(np.abs(force).mean()),
            force_rmse=float(np.sqrt(np.mean(force**2))),
            energy_mean=float(energy.mean()),
            relative_energy_mae=_relative(chosen),
            delta_energy_mae=_delta(chosen),
            stresses=len(stress),
            stress_mae=1e3 * stress_mae if stress else np.nan,
            stress_mae_gpa=stress_mae / GPa if stress else np.nan,
        )

    def by(self, key: str) -> dict[str, Errors]:
        """Errors of the frames with each value of the frame key ``key``."""
        groups: dict[str, list[Compared]] = {}
        for c in self.frames:
            groups.setdefault(str(c.atoms.info.get(key, _NO_VALUE)), []).append(c)
        return {name: self.errors(groups[name]) for name in sorted(groups)}


def _same_atoms(chosen: Sequence[Compared]) -> list[list[Compared]]:
    """Frames that differ in nothing but positions, at least two of each kind, in their order."""
    kinds: dict[tuple, list[Compared]] = {}
    for c in chosen:
        info = c.atoms.info
        kinds.setdefault((c.atoms.numbers.tobytes(), info.get("charge"), info.get("molecule")), []).append(c)
    return [frames for frames in kinds.values() if len(frames) > 1]


def _relative(chosen: Sequence[Compared]) -> float:
    off = []
    for frames in _same_atoms(chosen):
        error = np.array([c.energy_error / len(c.atoms) for c in frames])
        off += list(error - error.mean())
    return float(1e3 * np.abs(off).mean()) if off else np.nan


def _delta(chosen: Sequence[Compared]) -> float:
    off = [np.diff([c.energy_error for c in frames]) for frames in _same_atoms(chosen)]
    return float(1e3 * np.abs(np.concatenate(off)).mean()) if off else np.nan


def labelled_frames(
    frames: Sequence[Atoms],
    split: str | None,
    origin: str,
    report: Callable[[str], object] = lambda text: None,
    progress: Callable[[int, int], object] = lambda read, total: None,
) -> list[Atoms]:
    """Frames with energy and forces, only those of one ``split`` when it is given; ``report`` takes a line on outliers
    that are left out. ``progress`` (frames read, all frames): a file of many takes minutes to read.

    Raises:
        InputError: no frame is left, or a frame without labels (named).
    """
    there = []
    for k, atoms in enumerate(frames):
        if split is None or atoms.info.get("split") == split:
            there.append((k, atoms))
        progress(k + 1, len(frames))
    chosen = [(k, a) for k, a in there if a.info.get("quality") != "outlier"]
    if len(chosen) < len(there):
        report(f"{len(there) - len(chosen)} frames of '{origin}' left out, for they have quality=outlier")
    if not chosen:
        splits = sorted({str(a.info["split"]) for a in frames if "split" in a.info})
        of = f" with split={split} (there are: {', '.join(splits) or 'none'})" if split is not None else ""
        raise InputError(f"no frames{of} in '{origin}'; leave out --split to use all")
    for k, atoms in chosen:
        found = {} if atoms.calc is None else atoms.calc.results
        missing = [name for name in ("energy", "forces") if found.get(name) is None]
        if missing:
            there = misnamed_labels(atoms, missing)
            raise InputError(
                f"frame {k} of '{origin}' lacks {' and '.join(missing)}{there}; give a file whose frames all have "
                "labels, such as extended XYZ with energy= and a forces column"
            )
        if not (np.isfinite(found["energy"]) and np.isfinite(found["forces"]).all()):
            raise InputError(f"frame {k} of '{origin}' has an energy or forces that are not finite; leave it out")
    return [atoms for _, atoms in chosen]


def evaluate(
    potential: Potential,
    frames: Sequence[Atoms],
    head: str | None = None,
    progress: Callable[[int], object] | None = None,
    atoms_per_batch: int = ATOMS_PER_BATCH,
    spread: bool = False,
) -> Evaluation:
    """``potential`` against the labels of ``frames``, in batches of up to ``atoms_per_batch`` atoms.

    ``head`` None: the first that knows all elements of the first frame. ``spread``: with that of the head's committee,
    if it has one. Raises :class:`InputError` naming the frame.
    """
    stressed, chosen = [], head
    for k, atoms in enumerate(frames):
        try:
            systems = Systems.from_atoms(atoms)  # not kept: of many frames they take more memory than these
            stressed.append(potential.conservative and stress_label(atoms) is not None)
            chosen = potential.choose_head(systems, chosen)
        except InputError as error:
            raise InputError(f"frame {k}: {error}" if len(frames) > 1 else str(error)) from None
    if spread and chosen in potential.committee_heads:
        potential = copy.copy(potential)  # the same weights, other settings
        potential.spread = True
    found: list[Compared | None] = [None] * len(frames)
    done = 0
    order = sorted(range(len(frames)), key=lambda k: len(frames[k]))  # those of similar size together
    for run in batches([len(frames[k]) for k in order], atoms_per_batch):
        members = [order[k] for k in run]
        batch = Systems.from_atoms([frames[k] for k in members]).to(potential.device)
        near, stress = neighbors(batch, potential.cutoff), any(stressed[k] for k in members)
        result = potential(batch, near, head=chosen, stress=stress)
        ends = np.cumsum([len(frames[k]) for k in members])[:-1]
        columns = [result.energy.tolist(), np.split(result.forces.cpu().numpy(), ends)]
        if result.forces_std is not None:
            columns += [result.energy_std.tolist(), np.split(result.forces_std.cpu().numpy(), ends)]
        for n, (k, *values) in enumerate(zip(members, *columns, strict=True)):
            tension = full_3x3_to_voigt_6_stress(result.stress[n].cpu().numpy()) if stressed[k] else None
            found[k] = Compared(frames[k], *values, stress=tension)
        done += len(members)
        if progress is not None:
            progress(done)
    return Evaluation(chosen, found)
