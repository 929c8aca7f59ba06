"""TG-mini: short trajectories of small CHNO molecules by GFN2-xTB, for decoders of several future frames.

Every molecule gets ``segments`` stretches of constant energy, each started by a stretch of Langevin dynamics (BAOAB) at
one temperature, so that the stretches are blocks of time with nothing in common. The motion of the centre of mass is
taken off; the rotation stays, as molecules in a gas have it. Every frame of the constant-energy stretches is kept.

One ``NAME.npz`` per molecule, written when it is whole, so that a build that was stopped goes on where it was:
``coords`` (S, F, N, 3) float32 Å, ``velocities`` (S, F, N, 3) float32 Å/fs, ``energies`` (S, F) float64 eV (potential),
``kinetic`` (S, F) float64 eV, ``nuclear_charges`` (N,), ``masses`` (N,) amu, ``spacing_fs``; ``settings.json`` beside.

Geometry and similarity of the molecules are in ``tg_mini.xyz``, made once: conformers of RDKit (ETKDG with seed 7, then
MMFF94), relaxed by GFN2-xTB to 0.01 eV/Å; Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits) to the
nearest other molecule of the training split.
"""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.trajectories import LEAST_FRAMES
from omnicalc.errors import InputError, RunError
from omnicalc.files import write_atomically

if TYPE_CHECKING:
    from ase import Atoms

MOLECULES = Path(__file__).with_name("tg_mini.xyz")
SETTINGS = "settings.json"
SPLITS = ("train", "valid", "test")
# a force of 1 eV/Å on 1 amu is this acceleration in Å/fs^2; a temperature of 1 K is _KB in eV
_FORCE_TO_ACCELERATION = 9.648533212e-3
_KB = 8.617333262e-5


@dataclass(frozen=True)
class Settings:
    """How the trajectories are made; the same settings and seed give the same trajectories on the same machine."""

    segments: int = 2
    frames: int = 1500  # per segment
    spacing_fs: float = 1.0  # the time step of velocity Verlet too: every frame is kept
    temperature: float = 300.0  # K
    equilibration_fs: float = 400.0  # Langevin dynamics before every segment
    friction_per_fs: float = 0.05
    seed: int = 0
    method: str = "gfn2-xtb"  # or functional/basis of PySCF, which takes a thousand times as long

    def check(self) -> None:
        """Raise :class:`InputError` for settings that make no trajectory."""
        for name, least in (("segments", 1), ("frames", LEAST_FRAMES)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)} given; {least} or more is needed")
        if not 0 < self.spacing_fs <= 1.5:
            raise InputError(f"spacing {self.spacing_fs} fs given; above 0 and at most 1.5 fs is needed (hydrogens)")
        for name in ("temperature", "equilibration_fs", "friction_per_fs"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} given; a finite number above 0 is needed")
        if self.seed < 0:
            raise InputError(f"seed {self.seed} given; 0 or more is needed")


def molecules() -> list[Atoms]:
    """The molecules at the minimum of GFN2-xTB, with ``info``: name, smiles, split, nearest, similarity.

    ``nearest`` is the most similar training molecule and ``similarity`` the Tanimoto index of the Morgan fingerprints
    (radius 2, 2048 bits); for a training molecule, of the other training molecules.
    """
    from ase.io import read

    return read(MOLECULES, index=":", format="extxyz")


def build(
    out: Path, settings: Settings, only: list[str] | None = None, report: Callable[[str], object] = print
) -> None:
    """Make all trajectories in ``out``, or those of the molecules named by ``only``; those there are not made again.

    Raises:
        InputError: bad settings, an unknown molecule, or a folder made with other settings.
    """
    settings.check()
    chosen = _chosen(only)
    _labeller(settings.method)  # before anything is written
    _own_folder(out, settings)
    for k, atoms in enumerate(chosen, 1):
        name = atoms.info["name"]
        file = out / f"{name}.npz"
        if file.exists():
            report(f"{k}/{len(chosen)} {name}: there already")
            continue
        arrays = trajectory(atoms, settings)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_atomically(file, lambda temporary, content=content: temporary.write_bytes(content.getbuffer()))
        report(f"{k}/{len(chosen)} {name}: {_drift(arrays)}")


def similarity_table() -> str:
    """Which split each molecule is in, and how similar it is to the training molecules."""
    rows = [f"{'molecule':<20} {'split':<6} {'nearest in train':<20} Tanimoto"]
    for atoms in sorted(molecules(), key=lambda a: SPLITS.index(a.info["split"])):
        info = atoms.info
        rows.append(f"{info['name']:<20} {info['split']:<6} {info['nearest']:<20} {info['similarity']:.2f}")
    return "\n".join(rows)


def trajectory(atoms: Atoms, settings: Settings) -> dict[str, np.ndarray]:
    """The arrays of one molecule's file, by Langevin and then constant-energy dynamics, ``segments`` times."""
    rng = np.random.default_rng([settings.seed, zlib.crc32(atoms.info["name"].encode())])
    masses = atoms.get_masses()[:, None]
    width = np.sqrt(_KB * settings.temperature * _FORCE_TO_ACCELERATION / masses)
    potential = Surface(atoms.numbers, settings.method)
    x, v = atoms.positions.copy(), width * rng.normal(size=atoms.positions.shape)
    equilibration = max(1, round(settings.equilibration_fs / settings.spacing_fs))
    kept: dict[str, list] = {"coords": [], "velocities": [], "energies": [], "kinetic": []}
    for _ in range(settings.segments):
        x, v = _langevin(potential, x, v, masses, width, settings, equilibration, rng)
        v = v - (masses * v).sum(0) / masses.sum()
        x = x - (masses * x).sum(0) / masses.sum()
        for key, values in _constant_energy(potential, x, v, masses, settings).items():
            kept[key].append(values)
        x, v = kept["coords"][-1][-1], kept["velocities"][-1][-1]
    single = {key: np.array(kept[key], dtype=np.float32) for key in ("coords", "velocities")}
    double = {key: np.array(kept[key]) for key in ("energies", "kinetic")}
    fixed = {"nuclear_charges": atoms.numbers, "masses": masses[:, 0], "spacing_fs": np.array(settings.spacing_fs)}
    return {**single, **double, **fixed}


def _langevin(potential, x, v, masses, width, settings, steps, rng):
    """BAOAB (Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013))."""
    h, keep = settings.spacing_fs, np.exp(-settings.friction_per_fs * settings.spacing_fs)
    a = potential.acceleration(x, masses)
    for _ in range(steps):
        v = v + 0.5 * h * a
        x = x + 0.5 * h * v
        v = keep * v + np.sqrt(1 - keep**2) * width * rng.normal(size=v.shape)
        x = x + 0.5 * h * v
        a = potential.acceleration(x, masses)
        v = v + 0.5 * h * a
    return x, v


def _constant_energy(potential, x, v, masses, settings) -> dict[str, np.ndarray]:
    """Velocity Verlet; ``frames`` frames, the first of them the start."""
    h, frames = settings.spacing_fs, {"coords": [], "velocities": [], "energies": [], "kinetic": []}
    a = potential.acceleration(x, masses)
    for k in range(settings.frames):
        frames["coords"].append(x)
        frames["velocities"].append(v)
        frames["energies"].append(potential.energy)
        frames["kinetic"].append(0.5 * float((masses * v * v).sum()) / _FORCE_TO_ACCELERATION)
        if k + 1 < settings.frames:
            v = v + 0.5 * h * a
            x = x + h * v
            a = potential.acceleration(x, masses)
            v = v + 0.5 * h * a
    return {key: np.array(values) for key, values in frames.items()}


class Surface:
    """Energy (eV) and forces (eV/Å) of one molecule along a course: of GFN2-xTB, or of PySCF by functional/basis."""

    def __init__(self, numbers: np.ndarray, method: str = "gfn2-xtb"):
        from ase import Atoms

        self._label, self._atoms, self.energy = _labeller(method), Atoms(numbers), np.nan

    def forces(self, positions: np.ndarray) -> np.ndarray:
        """(N, 3) eV/Å at ``positions`` (N, 3) Å; the energy is then in ``energy``.

        Raises:
            RunError: the electrons do not converge.
        """
        from omnicalc.data.labels.label import LabelError

        self._atoms.positions = positions
        try:
            label = self._label(self._atoms)
        except LabelError as error:
            raise RunError(f"{self._atoms.get_chemical_formula()}: {error}; try a smaller time step") from None
        self.energy = label.energy
        return label.forces

    def acceleration(self, positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """(N, 3) Å/fs^2 for ``masses`` (N, 1) amu."""
        return _FORCE_TO_ACCELERATION * self.forces(positions) / masses


def _labeller(method: str):
    """From structures to labels. Raises :class:`InputError` for an unknown method, or a program that is not there."""
    from omnicalc.data.labels.method import labeller, parse_method, program

    level = parse_method(method)
    program(level)
    if level.functional:
        return labeller(level)
    from omnicalc.data.labels.xtb import Xtb

    # neighbouring steps start from each other's charges; tblite's own accuracy is enough to move by
    return Xtb(reuse=True, accuracy=1.0)


def _chosen(only: list[str] | None) -> list[Atoms]:
    everything = molecules()
    names = {a.info["name"] for a in everything}
    unknown = sorted(set(only or ()) - names)
    if unknown:
        raise InputError(f"no molecule is named {', '.join(unknown)}; there are: {', '.join(sorted(names))}")
    return [a for a in everything if not only or a.info["name"] in only]


def _own_folder(out: Path, settings: Settings) -> None:
    """Make ``out``, or make sure that what is in it was made with the same settings."""
    text = json.dumps(asdict(settings), indent=1) + "\n"
    file = out / SETTINGS
    if file.exists():
        if file.read_text() != text:
            raise InputError(f"'{out}' was made with other settings (see {file}); give another --out")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' is not an empty folder; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda temporary: temporary.write_text(text))


def _drift(arrays: dict[str, np.ndarray]) -> str:
    total = arrays["energies"] + arrays["kinetic"]
    n_atoms = len(arrays["nuclear_charges"])
    temperature = 2 * arrays["kinetic"].mean() / (3 * (n_atoms - 1) * _KB)
    spread = 1e3 * (total - total.mean(1, keepdims=True)).std() / n_atoms
    return f"{total.size} frames, mean temperature {temperature:.0f} K, total energy within {spread:.2f} meV/atom"
