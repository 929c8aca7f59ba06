"""Runs of ``omnicalc md`` as this study reads them and makes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from omnicalc import __version__
from omnicalc.analysis.energy import EnergyLog, read_log
from omnicalc.analysis.results import fingerprint
from omnicalc.errors import InputError, RunError, WeightsError

LOG_EVERY_FS = 5.0  # of the runs made here


@dataclass(frozen=True)
class Run:
    """A run on disk: its run.json, and its log from ``skip_ps`` on."""

    folder: Path
    record: dict
    log: EnergyLog

    @classmethod
    def open(cls, folder: Path, ensemble: str, skip_ps: float) -> Run:
        """Raises InputError for a folder that holds no run, and for a run of another ensemble."""
        from omnicalc.md.folder import RunFolder

        record = RunFolder(folder).read_record()
        if record is None:
            raise InputError(f"{folder} holds no run; give a folder that 'omnicalc md' wrote")
        made = record["settings"]["ensemble"]
        if made != ensemble:
            raise InputError(f"{folder} is an {made} run; give one made with --ensemble {ensemble}")
        return cls(folder, record, read_log(folder / "log.csv").after(skip_ps))

    @property
    def atoms(self) -> int:
        return self.record["structure"]["atoms"]

    @property
    def settings(self) -> dict:
        return self.record["settings"]

    def frames(self, most: int | None = None) -> range:
        """Indices of evenly spaced frames over the time that the log covers, ``most`` at most."""
        first = math.ceil(self.log.step[0] / self.settings["interval"])
        last = int(self.log.step[-1]) // self.settings["interval"]
        stride = 1 if most is None else math.ceil((last + 1 - first) / most)
        return range(first, last + 1, stride)

    def positions(self, most: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Elements (N,), and positions (N, 3) float64, Å, of those frames."""
        from omnicalc.analysis.trajectory import open_trajectory

        trajectory, chosen = open_trajectory(self.folder / "traj.dcd"), self.frames(most)
        chosen = trajectory.select(chosen.start, min(chosen.stop, trajectory.n_frames), chosen.step)
        return trajectory.elements, [f.positions.astype(np.float64) for f in trajectory.frames(chosen)]

    def bind(self, elements: Iterable[str], positions: np.ndarray, weights: str | None = None):
        """The potential of the run in float64 on its atoms, the cell turned as in the trajectory.

        ``weights``: name or folder, if not the one in run.json. Raises WeightsError for weights of another
        sha256 than the run's.
        """
        from ase import Atoms

        from omnicalc.md.box import standard_box
        from omnicalc.registry import load_potential
        from omnicalc.systems import Systems

        model, structure = self.record["model"], self.record["structure"]
        name = weights or model["name"]
        potential = load_potential(name, dtype="float64")
        if potential.sha256 != model["sha256"]:
            raise WeightsError(
                f"{name} has the sha256 {potential.sha256}, but {self.folder} was made with "
                f"{model['sha256']}; give those weights with --model, or make the run again"
            )
        box = standard_box(np.array(structure["cell"]), np.array(structure["pbc"]))
        cell = None if box is None else box.dimensions
        atoms = Atoms(list(elements), positions=positions, cell=cell, pbc=structure["pbc"])
        systems = Systems.from_atoms(atoms, charge=structure["charge"], spin=structure["spin"])
        return potential.bind(systems, head=model["head"])

    def about(self) -> str:
        """One line for the reader."""
        model, s = self.record["model"], self.settings
        rest = "" if self.log.step[-1] + s["interval"] > s["steps"] else f", unfinished: {s['steps']} steps asked"
        return (
            f"{self.folder}: {self.record['structure']['formula']}, {model['name']}, head {model['head']}, "
            f"{model['dtype']}, {s['ensemble']}, {s['timestep_fs']:g} fs, "
            f"{self.log.time_ps[0]:g} to {self.log.time_ps[-1]:g} ps used{rest}"
        )

    def summary(self) -> dict:
        """What a result says of the run it came from."""
        return {
            "omnicalc": __version__,
            "settings": self.settings,
            "model": self.record["model"],
            "log": fingerprint(self.log.path),
            "used_ps": [float(self.log.time_ps[0]), float(self.log.time_ps[-1])],
        }


def make_run(
    atoms,
    potential,
    structure: Path,
    folder: Path,
    length_ps: float,
    every_fs: float = LOG_EVERY_FS,
    head: str | None = None,
    **settings,
):
    """Run NVT for ``length_ps`` in ``folder``, or go on with what is there; the bound potential.

    A frame and a line of the log come every ``every_fs``.

    ``settings`` as of :class:`omnicalc.md.settings.Settings`. Raises InputError when another run is there,
    RunError when this one stops early.
    """
    from omnicalc.md.folder import RunFolder
    from omnicalc.md.job import build_job
    from omnicalc.md.progress import for_stream
    from omnicalc.md.record import check_same, describe
    from omnicalc.md.run import run
    from omnicalc.md.settings import Settings

    h = settings["timestep_fs"]
    steps, interval = round(1000 * length_ps / h), max(1, round(every_fs / h))
    settings = Settings(steps=steps, interval=interval, **settings)
    job = build_job(atoms, potential, file=structure, read_options={"cell": None, "no_pbc": False}, head=head)
    place = RunFolder(folder)
    stored = place.read_record()
    if stored is not None and stored["settings"]["steps"] == steps:
        check_same(stored, describe(settings, job.structure, job.model, 3 * len(atoms)), folder)
        if place.log.exists() and read_log(place.log).step[-1] + interval > steps:
            click.echo(f"{folder} is there already", err=True)
            return job.bound
    click.echo(f"{folder}: {steps} steps of {h:g} fs", err=True)
    if not run(job, settings, place, resume=stored is not None, progress=for_stream()).finished:
        raise RunError(f"stopped by a signal; the state in {folder} is saved, the same command goes on")
    return job.bound
