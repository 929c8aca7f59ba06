"""Speed of an AllScAIP against the number of atoms, and the size from which attention between all atoms dominates.

    python -m analysis.allscaip.scaling [--preset tiny] [--cells 1,4,8] [--alone 768,3072] [--out analysis/allscaip]

Boxes of water made of copies of examples/water.xyz, random weights, float32, one thread; a step is energy and forces,
neighbour search included. The time of the process itself is taken, so that other work on the machine counts little.
The share of attention between all atoms is timed alone, forward and backward, on as many atoms: it needs no structure.
Writes scaling.csv and scaling.png.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch
from ase import Atoms
from ase.io import read

from analysis.common.figures import new_figure, save_figure
from analysis.common.trainings import write_rows
from omnicalc.models import build_model
from omnicalc.models.allscaip.layers import fused_attention
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems

TIMESTEP = 0.5e-6  # ns
DAY = 86400.0  # s


def boxes(sizes: list[int]) -> list[Atoms]:
    """Water boxes of so many copies of the one of 64 molecules, as nearly cubic as it goes."""
    water, found = read("examples/water.xyz"), []
    for copies in sizes:
        a = max(k for k in range(1, copies + 1) if copies % k == 0 and k**3 <= copies)
        b = max(k for k in range(1, copies + 1) if (copies // a) % k == 0 and k**2 <= copies // a)
        found.append(water * (a, b, copies // a // b))
    return found


def seconds(work, rounds: int) -> float:
    """The least processor time of ``rounds`` after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


def attention_alone(config, n_atoms: int, rounds: int) -> float:
    """Seconds of attention between ``n_atoms`` atoms in all layers, with its backward pass."""
    shape = (1, config.attention_heads, n_atoms, config.width // config.attention_heads)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    return config.layers * seconds(lambda: fused_attention(q, k, v, None).sum().backward(), rounds)


@click.command()
@click.option("--preset", default="tiny", show_default=True)
@click.option("--cells", default="1,4,8,16,27", show_default=True, help="Copies of the box of 192 atoms.")
@click.option("--alone", default="768,1536,3072,5184,10368", show_default=True, help="Atoms to time the attention on.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("analysis/allscaip"), show_default=True)
def main(preset: str, cells: str, alone: str, rounds: int, out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model("allscaip", {"heads": ["a"], "preset": preset}).requires_grad_(False).eval()
    potential = Potential(model, [Head("a", {1: 0.0, 8: 0.0})])
    rows = []
    for box in boxes([int(c) for c in cells.split(",")]):
        systems = Systems.from_atoms(box)

        def step(systems=systems):
            potential(systems, neighbors(systems, potential.cutoff), head="a")

        rows.append({"what": "step", "atoms": len(box), "seconds": seconds(step, rounds)})
        click.echo(f"{len(box):6d} atoms: {rows[-1]['seconds']:.3f} s a step")
    for n in (int(a) for a in alone.split(",")):
        rows.append({"what": "attention", "atoms": n, "seconds": attention_alone(model.config, n, rounds)})
        click.echo(f"{n:6d} atoms: {rows[-1]['seconds']:.3f} s of attention between all")
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "scaling.csv", rows)
    draw(rows, preset, out / "scaling.png")


def measured(rows: list[dict], what: str) -> np.ndarray:
    """Atoms and seconds (2, n) of all steps, or of the attention alone."""
    return np.array([(row["atoms"], row["seconds"]) for row in rows if row["what"] == what], dtype=float).T


def fits(rows: list[dict]) -> tuple[float, float]:
    """Seconds per atom of everything else, seconds per squared atom of attention between all, by least squares."""
    n, t = measured(rows, "attention")
    per_pair = float((t * n**2 / t**2).sum() / (n**4 / t**2).sum())
    n, t = measured(rows, "step")
    rest = t - per_pair * n**2
    return float((rest * n / t**2).sum() / (n**2 / t**2).sum()), per_pair


def draw(rows: list[dict], preset: str, path: Path) -> None:
    per_atom, per_pair = fits(rows)
    meeting = per_atom / per_pair
    click.echo(
        f"{1e3 * per_atom:.3f} ms per atom and {1e9 * per_pair:.2f} ns per pair: half of a step from {meeting:.0f} on"
    )
    n, t = measured(rows, "step")
    m, u = measured(rows, "attention")
    line = np.geomspace(n.min(), max(3 * meeting, m.max()), 200)
    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    left.loglog(n, t, "o", color="#1b5faa", label="a step, measured")
    left.loglog(line, per_atom * line + per_pair * line**2, "-", color="#1b5faa", linewidth=1, label="fit a N + b N²")
    left.loglog(m, u, "s", color="#b0413e", label="attention between all, measured")
    left.loglog(line, per_pair * line**2, "--", color="#b0413e", linewidth=1, label="b N²")
    left.axvline(meeting, color="0.5", linewidth=0.8, linestyle=":")
    left.text(meeting * 0.94, left.get_ylim()[0] * 1.6, f"{meeting:.0f} atoms", ha="right", fontsize=8, color="0.3")
    left.set(xlabel="atoms", ylabel="processor time, s")
    right.semilogx(n, n * DAY / t * TIMESTEP, "o", color="#1b5faa")
    right.semilogx(line, DAY * TIMESTEP / (per_atom + per_pair * line), "-", color="#1b5faa", linewidth=1)
    right.axvline(meeting, color="0.5", linewidth=0.8, linestyle=":")
    right.set(xlabel="atoms", ylabel="atoms x ns/day at 0.5 fs", ylim=(0, None))
    left.legend(fontsize=7.5, frameon=False)
    left.set_title(f"AllScAIP {preset}, one thread", fontsize=9)
    right.set_title("dotted: from here on attention between all is most of it", fontsize=9)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
