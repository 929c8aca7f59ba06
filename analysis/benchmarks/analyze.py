"""Speed of analyses against MDAnalysis, on one DCD of 3,000 atoms (1,000 waters) that is made on the spot.

    python -m analysis.benchmarks.analyze --frames 2000 --threads 2
    python -m analysis.benchmarks.analyze --part rdf --part all --keep bench   # piece by piece, on the same file

Both sides read the same file in the same process, in turns; results have to be equal, or it says so and fails. Peak
memory is that of a process of its own that runs ``analyze all``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from omnicalc import __version__
from omnicalc.analysis.quiet import quietly
from omnicalc.files import write_atomically

WATERS = 1000
DISTANCE, ANGLE = 3.0, 150.0  # of MDAnalysis by default: donor to acceptor
PARTS = ("rdf", "hbonds", "all")
_ALONE = """
import json, resource, sys, time
from omnicalc.analysis.every import write_all
started = time.perf_counter()
only = sys.argv[3:] or None
write_all(sys.argv[1], only=only, out=sys.argv[2])
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


@click.command()
@click.option("--frames", default=2000, show_default=True, type=click.IntRange(50))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="Turns; the fastest counts.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this; repeat for more.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Folder of the trajectory, which is used again."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the numbers as JSON.")
def command(frames: int, threads: int, rounds: int, parts: tuple[str, ...], keep: Path | None, out: Path | None):
    """Time RDF and hydrogen bonds against MDAnalysis, and 'analyze all' against its slowest part."""
    parts = parts or PARTS
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory(prefix="omnicalc-bench-") as folder:
        path = trajectory(keep or Path(folder), frames)
        found = {"omnicalc": __version__, "machine": platform.processor() or platform.machine(), "frames": frames,
                 "atoms": 3 * WATERS, "threads": threads}  # fmt: skip
        for name, ours, theirs, compare in (("rdf", our_rdf, their_rdf, same_rdf),
                                            ("hbonds", our_bonds, their_bonds, same_bonds)):  # fmt: skip
            if name in parts:
                found[name] = _compared(name, path, rounds, ours, theirs, compare)
        if "all" in parts:
            found["all"] = _time_all(path, Path(folder), rounds)
        if out is not None:
            write_atomically(out, lambda part: part.write_text(json.dumps(found, indent=1) + "\n"))


def _compared(name: str, path: Path, rounds: int, ours, theirs, compare) -> dict:
    """Wall and CPU seconds of both sides in turns; results have to be equal."""
    times, results = {"ours": [], "MDAnalysis": []}, {}
    for _ in range(rounds):
        for who, work in (("ours", ours), ("MDAnalysis", theirs)):
            started, used = time.perf_counter(), time.process_time()
            results[who] = work(path)
            times[who].append((time.perf_counter() - started, time.process_time() - used))
    difference = compare(results["ours"], results["MDAnalysis"])
    best = {who: [min(column) for column in zip(*values, strict=True)] for who, values in times.items()}
    ratios = [b / a for a, b in zip(best["ours"], best["MDAnalysis"], strict=True)]
    for k, what in enumerate(("wall", "CPU")):
        click.echo(f"{name}: {what} {best['ours'][k]:.2f} s, MDAnalysis {best['MDAnalysis'][k]:.2f} s, "
                   f"{ratios[k]:.1f} times; {difference}")  # fmt: skip
    return {"wall_and_cpu_s": best, "ratios": ratios, "difference": difference}


def trajectory(folder: Path, frames: int) -> Path:
    """The one in ``folder``, or a new one if there is none of this length."""
    path = folder / "traj.dcd"
    if path.is_file():
        from omnicalc.analysis.trajectory import open_trajectory

        there = open_trajectory(path).n_frames
        if there != frames:
            raise click.ClickException(f"{path} holds {there} frames, not {frames}; give another folder with --keep")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    return make_trajectory(folder, frames)


def make_trajectory(folder: Path, frames: int) -> Path:
    """1,000 whole waters that librate and wander about their places: traj.dcd, topology.pdb."""
    import MDAnalysis
    from ase import Atoms
    from ase.io import read

    from omnicalc.md.topology import write_topology

    rng = np.random.default_rng(7)
    small = read(Path(__file__).parents[2] / "examples" / "water.xyz")
    box = small.repeat((2, 2, 4))
    edges = box.cell.lengths()
    x = box.positions.reshape(-1, 3, 3)
    x = x - edges * np.round((x - x[:, :1]) / edges)
    x = x[np.sort(rng.permutation(len(x))[:WATERS])]
    atoms = Atoms(["O", "H", "H"] * WATERS, positions=x.reshape(-1, 3), cell=edges, pbc=True)
    write_topology(folder / "topology.pdb", atoms)
    centres, arms = x[:, 0].copy(), x - x[:, :1]
    swing, drift, turn = (np.zeros_like(centres) for _ in range(3))
    universe = MDAnalysis.Universe.empty(3 * WATERS, trajectory=True)
    universe.dimensions = [*edges, 90, 90, 90]
    path = folder / "traj.dcd"
    with quietly(), MDAnalysis.Writer(str(path), 3 * WATERS, dt=0.1) as writer:
        for _ in range(frames):
            swing = 0.9 * swing + rng.normal(scale=0.03, size=swing.shape)
            turn = 0.8 * turn + rng.normal(scale=0.06, size=turn.shape)
            drift = 0.995 * drift + rng.normal(scale=0.005, size=drift.shape)
            turned = arms + np.cross(turn[:, None], arms)
            lengths = np.linalg.norm(arms[:, 1:], axis=2, keepdims=True)
            turned[:, 1:] *= lengths / np.linalg.norm(turned[:, 1:], axis=2, keepdims=True)
            universe.atoms.positions = ((centres + drift + swing)[:, None] + turned).reshape(-1, 3)
            writer.write(universe.atoms)
    return path


def our_rdf(path: Path):
    from omnicalc.analysis import radial_distributions

    return radial_distributions(path, ["O-O"]).pairs[0]


def their_rdf(path: Path):
    from MDAnalysis.analysis.rdf import InterRDF

    with quietly():
        universe = _universe(path)
        oxygens = universe.select_atoms("name O")
        reach = 0.02 * int(float(universe.dimensions[:3].min()) / 2 / 0.02 + 1e-6)
        return InterRDF(oxygens, oxygens, nbins=round(reach / 0.02), range=(0.0, reach), exclusion_block=(1, 1)).run()


def same_rdf(ours, theirs) -> str:
    difference = float(np.abs(ours.g - theirs.results.rdf).max())
    if difference > 1e-3:
        raise click.ClickException(f"g(r) differs by {difference:.2g}")
    return f"largest difference of g(r) {difference:.1e}"


def our_bonds(path: Path):
    from omnicalc.analysis import hydrogen_bonds

    return hydrogen_bonds(path, distance=DISTANCE, angle=ANGLE, donor_acceptor=True)


def their_bonds(path: Path):
    from MDAnalysis.analysis.hydrogenbonds import HydrogenBondAnalysis

    with quietly():
        universe = _universe(path)
        # with bonds, else it takes a hydrogen for bonded to every oxygen that comes within 1.2 Å in some frame;
        # asked for them once, as that takes it several times as long as all the rest
        oxygens = np.arange(0, 3 * WATERS, 3)
        universe.add_TopologyAttr("bonds", [(int(o), int(o) + k) for o in oxygens for k in (1, 2)])
        return HydrogenBondAnalysis(universe, hydrogens_sel="name H*", acceptors_sel="name O",
                                    d_a_cutoff=DISTANCE, d_h_a_angle_cutoff=ANGLE,
                                    update_selections=False).run()  # fmt: skip


def same_bonds(ours, theirs) -> str:
    counts = sum(column for name, column in ours.tables["series"].items() if name.startswith("bonds_"))
    different = int(np.abs(counts - theirs.count_by_time()).sum())
    if different:
        raise click.ClickException(f"{different} of {int(counts.sum())} hydrogen bonds differ")
    return f"{different} of {int(counts.sum())} bonds differ"


def _universe(path: Path):
    import MDAnalysis

    return MDAnalysis.Universe(str(path.parent / "topology.pdb"), str(path))


def _time_all(path: Path, folder: Path, rounds: int) -> dict:
    from omnicalc.analysis.every import VERBS

    verbs = [verb for verb in VERBS if verb not in ("metal", "vdos", "drift")]
    times = {verb: [np.inf] * 3 for verb in [*verbs, "all"]}
    for _ in range(rounds):
        for verb in times:
            out = folder / f"out_{verb}"
            asked = [sys.executable, "-c", _ALONE, str(path), str(out), *([] if verb == "all" else [verb])]
            done = subprocess.run(asked, capture_output=True, text=True, check=True)
            times[verb] = list(map(min, times[verb], json.loads(done.stdout.strip().splitlines()[-1])))
    for verb, (wall, cpu, memory) in times.items():
        click.echo(f"{verb}: wall {wall:.2f} s, CPU {cpu:.2f} s, {memory:.0f} MB")
    ratios = {}
    for k, what in enumerate(("wall", "CPU")):
        slowest = max(verbs, key=lambda verb: times[verb][k])
        ratios[what] = times["all"][k] / times[slowest][k]
        click.echo(f"all: {ratios[what]:.2f} times its slowest part, {slowest}, in {what} time")
    return {"wall_cpu_MB": times, "ratios": ratios}


if __name__ == "__main__":
    command()
