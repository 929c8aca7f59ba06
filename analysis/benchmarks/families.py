"""One table for weights of all families: size, errors on the same frames, speed, energy conservation, orientation.

    python -m analysis.benchmarks.families ubio-s3 allscaip --data pbe0-ts=water64_pbe0ts.extxyz.gz --threads 2

``--data HEAD=FILE`` names labelled frames of one level of theory; weights without this head are left out of them.
Errors are those of the frames with ``--split``. Speed is measured in turns on droplets of 63 and 192 atoms of water,
which every family takes (OMNIMOL refuses periodic boxes), in float32. Energy conservation is that of NVE dynamics from
the first frame of the first data that the weights know (``--nve-ps``, velocities of 300 K, the first tenth left out);
the spread over orientations is that of the first frames.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from ase import Atoms
from ase.io import read

from omnicalc import benchmark
from omnicalc.analysis.drift import energy_drift
from omnicalc.cli.memory import keep_freed_memory
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError
from omnicalc.evaluation import evaluate, labelled_frames
from omnicalc.md.folder import RunFolder
from omnicalc.md.job import build_job
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.potential import Potential
from omnicalc.registry import load_potential
from omnicalc.rotations import mean_spread, rotation_spread

MOLECULES = (21, 64)  # of the droplets
ORIENTATIONS, TURNED = 24, 5  # of each of so many frames
TIMESTEP_FS = 0.5


def droplet(box: Atoms, molecules: int) -> Atoms:
    """The molecules of a periodic box of O, H, H nearest to its middle, put together, without periodicity."""
    apart = np.array([box.get_distances(k - k % 3, [k], mic=True, vector=True)[0] for k in range(len(box))])
    positions = np.repeat(box.positions[::3], 3, axis=0) + apart
    far = np.linalg.norm(positions[::3] - box.cell.sum(0) / 2, axis=1)
    nearest = np.sort(np.argsort(far, kind="stable")[:molecules])
    atoms = (3 * nearest[:, None] + np.arange(3)).ravel()
    return Atoms(box.numbers[atoms], positions[atoms])


def accuracy(name: str, potential: Potential, data: dict[str, list[Atoms]]) -> None:
    """Prints one line per level of theory."""
    for head, frames in data.items():
        if head not in potential.heads:
            continue
        e = evaluate(potential, frames, head).errors()
        spread = mean_spread([rotation_spread(potential, a, ORIENTATIONS, head=head) for a in frames[:TURNED]])
        click.echo(
            f"{name:28} {head:18} {e.frames:4} frames  forces {e.force_mae:6.1f} / {e.force_rmse:6.1f} meV/Å  energy "
            f"{e.energy_mae:7.3f} meV/atom  spread {spread.force:7.3f} meV/Å, {spread.energy:.4f} meV/atom"
        )


def speed(potentials: dict[str, Potential], box: Atoms, rounds: int) -> None:
    """Prints ms per step of all weights on the droplets, measured in turns."""
    exact = {name: load_potential(name, device="cpu", dtype="float64") for name in potentials}
    for molecules in MOLECULES:
        atoms = droplet(box, molecules)
        calls = {name: benchmark.call_of(potential, atoms) for name, potential in potentials.items()}
        references = {name: benchmark.float64_reference(potential, atoms) for name, potential in exact.items()}
        for row in benchmark.time_all(calls, references, atoms, rounds):
            figures = f"{row.milliseconds:7.2f} ms/step  error {row.force_error:.1e} eV/Å"
            click.echo(f"{row.name:28} {row.atoms:4} atoms  {figures}")


def conservation(name: str, potential: Potential, atoms: Atoms, head: str, ps: float) -> None:
    """Prints the drift of the total energy in one run of constant energy."""
    steps = round(1000 * ps / TIMESTEP_FS)
    settings = Settings(steps=steps, timestep_fs=TIMESTEP_FS, ensemble="nve", seed=1)
    start = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    job = build_job(start, potential, file="the first frame", read_options={}, head=head)
    with tempfile.TemporaryDirectory() as folder:
        run(job, settings, RunFolder(Path(folder) / "nve"))
        found = energy_drift(Path(folder) / "nve", skip_ps=0.1 * ps)
    drift, temperature = found["drift of the conserved energy"], found["temperature"]
    click.echo(
        f"{name:28} {atoms.get_chemical_formula()}, {ps:g} ps NVE  drift {drift.value:+.4f} +- {drift.stderr:.4f} "
        f"meV/atom/ps at {temperature.value:.0f} K"
    )


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--data", "sources", multiple=True, metavar="HEAD=FILE", required=True)
@click.option("--split", default="valid", show_default=True)
@click.option("--box", type=click.Path(path_type=Path), default=Path("examples/water.xyz"), show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--nve-ps", default=5.0, show_default=True, help="0: none.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
def command(names, sources, split, box, rounds, nve_ps, threads):
    keep_freed_memory()
    torch.set_num_threads(threads)
    if any("=" not in source for source in sources):
        raise InputError(f"--data {' '.join(sources)} given; HEAD=FILE is needed")
    named = dict(source.rsplit("=", 1) for source in sources)
    data = {head: labelled_frames(open_frames(Path(file)), split, file) for head, file in named.items()}
    potentials = {name: load_potential(name, device="cpu") for name in names}
    for name, potential in potentials.items():
        click.echo(f"{name:28} {sum(p.numel() for p in potential.model.parameters()):,} parameters")
    for name, potential in potentials.items():
        accuracy(name, potential, data)
    speed(potentials, read(box), rounds)
    for name, potential in potentials.items():
        known = [head for head in data if head in potential.heads]
        if known and nve_ps and potential.conservative:
            conservation(name, potential, data[known[0]][0], known[0], nve_ps)


if __name__ == "__main__":
    command()
