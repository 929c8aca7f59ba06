"""Interaction energies of ions with water and with each other, beside wB97X-V: does a potential honour charges?

    python -m analysis.curriculum.ion_pairs ubio-s2 ubio-s3:wide --head gfn2-xtb --xtb --data data/ion-pairs --out ions

An interaction energy is that of the complex less those of its parts, each with its own charge, in the geometry that
they have in it: zero for parts far apart, whatever the zero of energy. The sets are gas-phase pairs of one ion and one
water, pairs of two ions against their distance, and ions between two chlorides (data/README.md). ``--xtb`` adds
GFN2-xTB itself, from which some heads learned. Writes ``ion_pairs.csv`` and ``ion_pairs.png``, with the curves of the
two pairs of ions.
"""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from ase import Atoms
from ase.units import kJ, mol

from analysis.common.figures import new_figure, save_figure
from analysis.common.trainings import write_rows
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems, cat

CHARGES = {"Na": 1, "Mg": 2, "Cl": -1}
SETS = ("h2o_na_aimd", "h2o_cl_aimd", "h2o_mg_aimd", "na_cl_scan", "mg_cl_scan", "na_cl2_scan", "mg_cl2_scan")
SCANS = ("na_cl_scan", "mg_cl_scan")
LABEL, DISTANCE = "int_kJmol", "distance_angstrom"


def with_parts(frame: Atoms) -> list[Atoms]:
    """The complex and its parts: every ion, and the water that the other atoms are; charges in their ``info``."""
    symbols = np.array(frame.get_chemical_symbols())
    ions = [k for k, s in enumerate(symbols) if s in CHARGES]
    water = [k for k in range(len(symbols)) if k not in ions]
    if water and sorted(symbols[water]) != ["H", "H", "O"]:
        raise InputError(f"{frame.get_chemical_formula()}: one water and ions of {', '.join(CHARGES)} are known here")
    parts = [frame[[k]] for k in ions] + ([frame[water]] if water else [])
    for part in (whole := frame.copy(), *parts):
        part.info = {"charge": sum(CHARGES.get(s, 0) for s in part.get_chemical_symbols()), "spin": 1}
    return [whole, *parts]


def interaction_energies(energies_of: Callable[[list[Atoms]], np.ndarray], frames: list[Atoms]) -> np.ndarray:
    """(F,) kJ/mol of frames with the same atoms; NaN where a part has no energy."""
    pieces = [with_parts(frame) for frame in frames]
    energies = energies_of([atoms for piece in pieces for atoms in piece]).reshape(len(frames), -1)
    return (energies[:, 0] - energies[:, 1:].sum(1)) / (kJ / mol)


def of_potential(potential: Potential, head: str | None) -> Callable[[list[Atoms]], np.ndarray]:
    """Energies (eV) by a potential, in batches."""

    def energies_of(structures: list[Atoms]) -> np.ndarray:
        systems = [Systems.from_atoms(atoms) for atoms in structures]
        chosen, energies = potential.choose_head(systems[0], head), []
        for first in range(0, len(systems), 400):
            batch = cat(systems[first : first + 400]).to(potential.device)
            found = potential(batch, neighbors(batch, potential.cutoff), head=chosen, forces=False)
            energies += found.energy.tolist()
        return np.array(energies)

    return energies_of


def of_xtb(structures: list[Atoms]) -> np.ndarray:
    """Energies (eV) by GFN2-xTB; NaN where its charges do not converge."""
    from omnicalc.data.labels.label import LabelError
    from omnicalc.data.labels.xtb import Xtb

    xtb, energies = Xtb(), []
    for atoms in structures:
        try:
            energies.append(xtb(atoms).energy)
        except LabelError:
            energies.append(np.nan)
    return np.array(energies)


def evenly(frames: list[Atoms], most: int) -> list[Atoms]:
    return [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, most).astype(int))]


def draw(path: Path, curves: dict[str, dict[str, np.ndarray]]) -> None:
    """Set -> name -> energies, with the distances under ``DISTANCE``."""
    figure = new_figure(4.6 * len(curves), 3.8)
    for axis, (name, lines) in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True):
        for line, values in lines.items():
            if line != DISTANCE:
                style = {"color": "black", "linewidth": 2.0} if line == LABEL else {"linewidth": 1.3}
                axis.plot(lines[DISTANCE], values, label="wB97X-V/def2-QZVPPD" if line == LABEL else line, **style)
        axis.set(xlabel="distance (Å)", ylabel="interaction energy (kJ/mol)", title=name)
        axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--head", help="Level of theory. [default: the first that knows the elements]")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--most", default=400, show_default=True, type=click.IntRange(min=2), help="Frames of a set, evenly.")
@click.option("--xtb", is_flag=True, help="GFN2-xTB itself beside them.")
def main(models, head, data, out, most, xtb):
    """Errors of MODELS on the sets below --data."""
    from omnicalc import load_potential

    ways = {name: of_potential(load_potential(name), head) for name in models} | ({"GFN2-xTB": of_xtb} if xtb else {})
    rows, curves = [], {}
    out.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        frames = evenly(list(open_frames(data / f"{name}.extxyz.gz")), most)
        wanted = np.array([a.info[LABEL] for a in frames])
        if name in SCANS:
            curves[name] = {DISTANCE: np.array([a.info[DISTANCE] for a in frames]), LABEL: wanted}
        for way, energies_of in ways.items():
            found = interaction_energies(energies_of, frames)
            rows.append({"set": name, "model": way} | errors(found, wanted))
            if name in SCANS:
                curves[name][way] = found
            click.echo(_in_words(rows[-1]))
    write_rows(out / "ion_pairs.csv", rows)
    draw(out / "ion_pairs.png", curves)


def errors(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """kJ/mol, of the frames that have an energy: mean of what is wanted, MAE, bias, MAE about the bias."""
    there = np.isfinite(found)
    off = (found - wanted)[there]
    values = (wanted[there].mean(), np.abs(off).mean(), off.mean(), np.abs(off - off.mean()).mean())
    names = ("mean_kJmol", "mae_kJmol", "bias_kJmol", "mae_without_bias_kJmol")
    return {"frames": int(there.sum())} | {n: round(float(v), 2) for n, v in zip(names, values, strict=True)}


def _in_words(row: dict) -> str:
    return (
        f"{row['set']:<14}{row['model']:<24}MAE {row['mae_kJmol']:8.1f} kJ/mol, without bias "
        f"{row['mae_without_bias_kJmol']:7.1f} ({row['frames']} frames, mean {row['mean_kJmol']:.0f})"
    )


if __name__ == "__main__":
    main()
