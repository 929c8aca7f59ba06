"""What a run costs beyond its force calls: time of a step less the time spent in the potential itself.

    python analysis/engine/overhead.py [--atoms 648] [--steps 400] [--threads 1] [--only qtb]

Both are taken in the same steps, so that a busy machine slows both alike. A step has everything that a run does:
integrator, guards, and what is written: a frame and a line every 20 steps and a restart file every 200.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from ase.optimize import FIRE

from omnicalc import OmniCalc, load_potential
from omnicalc.benchmark import water_box
from omnicalc.cli.memory import keep_freed_memory
from omnicalc.md import loop
from omnicalc.md.folder import RunFolder
from omnicalc.md.job import build_job
from omnicalc.md.progress import Silent
from omnicalc.md.run import run
from omnicalc.md.settings import Settings

clock = time.process_time  # of this process alone, so that others on the same cores do not count
BOX = Path(__file__).parents[2] / "examples" / "water.xyz"
RUNS = {
    "nve": {"ensemble": "nve"},
    "langevin": {},
    "bussi": {"thermostat": "bussi"},
    "nhc": {"thermostat": "nhc"},
    "qtb": {"thermostat": "qtb"},
    "npt, rescale": {"ensemble": "npt", "thermostat": "bussi"},
    "npt, mc": {"ensemble": "npt", "barostat": "mc"},
}


class Timed:
    """A bound potential that adds up the time of its calls, s."""

    def __init__(self, bound):
        self.__dict__.update(bound=bound, spent=0.0)  # other attributes are those of the potential

    def __call__(self, positions, **more):
        start = clock()
        try:
            return self.bound(positions, **more)
        finally:
            self.__dict__["spent"] += clock() - start

    def __getattr__(self, name):
        return getattr(self.bound, name)

    def __setattr__(self, name, value):
        setattr(self.bound, name, value)


class Watch(Silent):
    """Seconds of every step, and of the force calls in it."""

    def __init__(self, bound: Timed):
        self.bound, self.rows = bound, []

    def start(self, *where):
        self.now, self.spent = clock(), self.bound.spent

    def update(self, *state):
        now, spent = clock(), self.bound.spent
        self.rows.append((now - self.now, spent - self.spent))
        self.now, self.spent = now, spent


def measure(potential, atoms, settings: Settings) -> tuple[float, float, float]:
    """Medians, ms, of the force calls of a step and of all else in it, and the mean of the latter, with all that is
    written.
    """
    job = build_job(atoms, potential, file=BOX, read_options={})
    timed = Timed(job.bound)
    watch = Watch(timed)
    with tempfile.TemporaryDirectory() as folder:
        run(replace(job, bound=timed), settings, RunFolder(Path(folder) / "run"), progress=watch)
    step, force = 1e3 * np.array(watch.rows[len(watch.rows) // 10 :]).T
    return float(np.median(force)), float(np.median(step - force)), float(np.mean(step - force))


def relaxed_box(model: str, n_atoms: int) -> Atoms:
    """Liquid water: the cut of copies of a box, let apart by 1 Å at the cut and relaxed."""
    atoms = water_box(read(BOX), n_atoms)
    atoms.cell[2] *= 1.0 + 1.0 / atoms.cell.lengths()[2]
    atoms.calc = OmniCalc(model)
    FIRE(atoms, logfile=None).run(fmax=1.0, steps=200)
    atoms.calc = None
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ubio-s3")
    parser.add_argument("--atoms", type=int, default=648)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="one of: " + "; ".join(RUNS))
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    loop.plots.draw = loop.plots.draw_cell = lambda *arguments, **keywords: None  # once, at the end of a run
    potential, atoms = load_potential(given.model), relaxed_box(given.model, given.atoms)
    print(f"{len(atoms)} atoms, {given.steps} steps, {given.threads} threads; ms per step")
    print(f"{'':14} {'force calls':>11} {'beyond them':>11} {'share':>7} {'with files':>11} {'share':>7}")
    for name, chosen in RUNS.items():
        if given.only not in (None, name):
            continue
        settings = Settings(steps=given.steps, interval=20, restart_interval=200, seed=1, **chosen)
        force, beyond, whole = measure(potential, atoms, settings)
        shares = f"{beyond:11.3f} {beyond / force:7.1%} {whole:11.3f} {whole / force:7.1%}"
        print(f"{name:14} {force:11.2f} {shares}", flush=True)


if __name__ == "__main__":
    main()
