"""Molecular dynamics with a potential of OmniCalc, as ``omnicalc md`` does it: resumable, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from omnicalc.files import write_atomically

STEP_FS = 0.5
RELAX_STEPS, RELAX_FMAX = 150, 0.5  # eV/Å: what placed ions and solutes push on is pushed away, no more


def potential_for(atoms: Atoms, model: str, head: str | None):
    """The potential and its head for these atoms; InputError, saying what is known, where no head knows them all."""
    from omnicalc.registry import load_potential
    from omnicalc.systems import Systems

    potential = load_potential(model)
    return potential, potential.choose_head(Systems.from_atoms(atoms), head)


def run_model(
    atoms: Atoms,
    folder: Path,
    *,
    model: str,
    head: str | None,
    ps: float,
    frame_ps: float,
    temperature: float,
    seed: int,
) -> None:
    """Relax the atoms a little, then run ``ps`` picoseconds at constant volume; goes on with what is in ``folder``.

    Raises InputError for atoms that the model does not know, and for a folder with another run.
    """
    from ase.io import read

    from analysis.water.runs import make_run

    potential, head = potential_for(atoms, model, head)
    folder.mkdir(parents=True, exist_ok=True)
    start = folder.parent / f"{folder.name}_start.xyz"
    if not start.exists():
        _relax(atoms, potential, head, start)
    make_run(
        read(start),
        potential,
        start,
        folder,
        ps,
        every_fs=1000 * frame_ps,
        head=head,
        timestep_fs=STEP_FS,
        temperature_K=temperature,
        seed=seed,
    )


def _relax(atoms: Atoms, potential, head: str, path: Path) -> None:
    from ase.io import write
    from ase.optimize import FIRE

    from omnicalc import OmniCalc

    relaxed = atoms.copy()
    relaxed.calc = OmniCalc(potential, head=head)
    FIRE(relaxed, logfile=None, maxstep=0.1).run(fmax=RELAX_FMAX, steps=RELAX_STEPS)
    bare = Atoms(relaxed.numbers, positions=relaxed.positions, cell=relaxed.cell, pbc=relaxed.pbc)
    bare.info = {key: value for key, value in atoms.info.items() if key in ("charge", "spin")}
    write_atomically(path, lambda part: write(part, bare, format="extxyz"))
