"""Mg2+ with its first shell, cut out of a run of a carved site, to be compared with DFT.

    python -m analysis.rna_mg.first_shell cut RUN --frames 10 --out shells.xyz
    omnicalc label shells.xyz --grid 2 --convergence 1e-7 --out shells-dft.extxyz
    python -m analysis.rna_mg.first_shell pull shells-dft.extxyz --model ubio-s3:wide

``cut`` keeps the ion, the waters and the phosphate at it, as dimethyl phosphate: bonds to the sugars' other atoms
become C-H of 1.09 Å. ``pull`` prints by how much the DFT draws each kind of ligand away from the ion beyond what the
model does (eV/Å, along the bond; a water as a whole), and the errors of all forces: where the first is nothing,
distances that are off in the run come from what lies beyond the first shell.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io import read

from omnicalc import OmniCalc
from omnicalc.analysis.trajectory import Frame, open_trajectory
from omnicalc.data.subset import write_frames

H, O, MG, P = (atomic_numbers[symbol] for symbol in ("H", "O", "Mg", "P"))
HEAD = "wb97m-d3bj/def2-svp"
C_H = 1.09  # Å
LIGAND = 2.7  # Å from the ion


def bonded(atoms: Atoms, k: int) -> list[int]:
    """Atoms bonded to ``k``; the ion is bonded to none."""
    away = np.linalg.norm(atoms.positions - atoms.positions[k], axis=1)
    reach = np.where((atoms.numbers == H) | (atoms.numbers[k] == H), 1.25, 1.9)
    return [int(j) for j in np.flatnonzero((away < reach) & (atoms.numbers != MG)) if j != k]


def is_water(atoms: Atoms, oxygen: int) -> bool:
    return sorted(atoms.numbers[bonded(atoms, oxygen)]) == [H, H]


def ligands(atoms: Atoms) -> tuple[int, list[int]]:
    """The ion, and the six oxygens nearest to it."""
    mg = int(np.flatnonzero(atoms.numbers == MG)[0])
    oxygens = np.flatnonzero(atoms.numbers == O)
    away = np.linalg.norm(atoms.positions[oxygens] - atoms.positions[mg], axis=1)
    return mg, [int(k) for k in oxygens[np.argsort(away)[:6]]]


def dimethyl_phosphate(atoms: Atoms, phosphorus: int) -> Atoms:
    """The phosphate at ``phosphorus`` with the carbons of its two esters as methyl groups."""
    kept, caps = [phosphorus], []
    for oxygen in bonded(atoms, phosphorus):
        kept.append(oxygen)
        for carbon in set(bonded(atoms, oxygen)) - {phosphorus}:
            kept.append(carbon)
            for other in set(bonded(atoms, carbon)) - {oxygen}:
                along = atoms.positions[other] - atoms.positions[carbon]
                cut = atoms.numbers[other] != H
                caps.append(atoms.positions[carbon] + along * (C_H / np.linalg.norm(along) if cut else 1.0))
    return Atoms(atoms.numbers[kept], positions=atoms.positions[kept]) + Atoms([H] * len(caps), positions=caps)


def first_shell(atoms: Atoms) -> Atoms:
    """``atoms`` is one frame of a site with one phosphate at its ion. Order: phosphate, Mg, waters as O, H, H."""
    mg, oxygens = ligands(atoms)
    waters = [k for k in oxygens if is_water(atoms, k)]
    held = [j for k in oxygens if k not in waters for j in bonded(atoms, k) if atoms.numbers[j] == P]
    if len(waters) + len(held) != 6 or len(held) != 1:
        raise SystemExit(f"{len(waters)} waters and {len(held)} phosphate oxygens at the ion; five and one are needed")
    kept = [mg, *(j for k in waters for j in (k, *bonded(atoms, k)))]
    shell = dimethyl_phosphate(atoms, held[0]) + Atoms(atoms.numbers[kept], positions=atoms.positions[kept])
    shell.info = {"charge": 1, "spin": 1, "config_type": "ion-phosphate", "molecule": "mg dmp"}
    shell.info |= {"system": f"mg dmp water*{len(waters)}", "origin": "rna300", "split": "test"}
    return shell


def cut(run: Path, frames: int) -> list[Atoms]:
    """Shells of equally spaced frames of the second half of a run."""
    trajectory = open_trajectory(run / "traj.dcd")
    half = trajectory.n_frames - trajectory.n_frames // 2
    chosen = range(trajectory.n_frames - half, trajectory.n_frames, max(1, half // frames))
    return [first_shell(around_ion(trajectory.elements, shown)) for shown in trajectory.frames(chosen)][:frames]


def around_ion(elements: list[str], shown: Frame) -> Atoms:
    """The frame with every atom by the nearest image to its ion."""
    atoms = Atoms(elements, positions=shown.positions, cell=shown.box, pbc=True)
    mg, _ = ligands(atoms)
    atoms.positions -= atoms.positions[mg] - atoms.cell.sum(axis=0) / 2
    atoms.wrap()
    return atoms


def pulls(frame: Atoms, forces: np.ndarray) -> dict[str, list[float]]:
    """Of each ligand the part of ``forces`` (eV/Å) away from the ion: a water as a whole, a phosphate's oxygen."""
    mg, oxygens = ligands(frame)
    found: dict[str, list[float]] = {"water": [], "phosphate oxygen": []}
    for k in oxygens:
        out = frame.positions[k] - frame.positions[mg]
        if np.linalg.norm(out) < LIGAND:
            water = is_water(frame, k)
            force = forces[[k, *bonded(frame, k)]].sum(axis=0) if water else forces[k]
            found["water" if water else "phosphate oxygen"].append(float(force @ out / np.linalg.norm(out)))
    return found


def pull(file: Path, model: str) -> None:
    differences: dict[str, list[float]] = {"water": [], "phosphate oxygen": []}
    errors, calculator = [], OmniCalc(model, head=HEAD)
    for frame in read(file, ":"):
        by_dft, bare = frame.get_forces(), frame.copy()
        bare.info, bare.calc = dict(frame.info), calculator
        by_model = bare.get_forces()
        errors.append(np.abs(by_dft - by_model).mean())
        for kind, values in pulls(frame, by_dft - by_model).items():
            differences[kind] += values
    print(f"{model}: {len(errors)} frames, forces MAE {1000 * np.mean(errors):.1f} meV/Å")
    for kind, values in differences.items():
        mean, error = np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5
        print(f"{kind}: away from the ion, DFT less model {mean:.3f} ± {error:.3f} eV/Å ({len(values)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    cutting, pulling = verbs.add_parser("cut"), verbs.add_parser("pull")
    cutting.add_argument("run", type=Path)
    cutting.add_argument("--frames", type=int, default=10)
    cutting.add_argument("--out", type=Path, required=True)
    pulling.add_argument("file", type=Path)
    pulling.add_argument("--model", default="ubio-s3:wide")
    options = parser.parse_args()
    if options.verb == "pull":
        pull(options.file, options.model)
    else:
        write_frames(options.out, cut(options.run, options.frames))


if __name__ == "__main__":
    main()
