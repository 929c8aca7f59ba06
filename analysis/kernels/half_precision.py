"""Force errors of the GPU's step with linear maps in half precision, in Triton's interpreter on a CPU; takes minutes.

    PYTHONPATH=. TRITON_INTERPRET=1 python analysis/kernels/half_precision.py [MODEL] [--atoms 24]

MODEL is a name of bundled weights, or (the default) the published configuration with random weights. The atoms are the
molecules nearest to one of examples/water.xyz, without a box; forces are compared with plain torch in float64.
"""

import click
import torch
from ase import Atoms
from ase.geometry import get_distances
from ase.io import read
from step import PUBLISHED

from omnicalc import load_potential
from omnicalc.models.e2former import E2Former
from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.device import DeviceModel
from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.kernels.interpreter import bfloat16_to_the_nearest, quicker

MAPS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def cluster(box: Atoms, n: int) -> Atoms:
    """The ``n`` // 3 water molecules (O, H, H one after another) whose oxygens are nearest to the first one's."""
    oxygen = [i for i, z in enumerate(box.numbers) if z == 8]
    towards = get_distances(box.positions[oxygen[:1]], box.positions[oxygen], cell=box.cell, pbc=box.pbc)[0][0]
    order = sorted(range(len(oxygen)), key=lambda m: float((towards[m] ** 2).sum()))[: n // 3]
    out = Atoms()
    for m in order:
        molecule = box[[oxygen[m], oxygen[m] + 1, oxygen[m] + 2]]
        inside = molecule.get_distances(0, [0, 1, 2], mic=True, vector=True)
        out += Atoms(molecule.numbers, positions=towards[m] + inside)
    return out


def potential_of(name: str | None) -> Potential:
    if name is not None:
        return load_potential(name)
    torch.manual_seed(0)
    model = E2Former(E2FormerConfig(**PUBLISHED)).requires_grad_(False)
    return Potential(model.float(), [Head("omol25", {1: 0.0, 8: 0.0})])


@click.command(help=__doc__.split("\n")[0])
@click.argument("name", metavar="[MODEL]", required=False)
@click.option("--atoms", default=24, show_default=True)
@click.option("--maps", default=",".join(MAPS), show_default=True)
def main(name, atoms, maps):
    potential, systems = potential_of(name), Systems.from_atoms(cluster(read("examples/water.xyz"), atoms))
    head = next(iter(potential.heads))
    wanted = potential.double()(systems, neighbors(systems, potential.cutoff), head=head).forces
    rows, index = NeighborList(potential.cutoff).rows_with_skin(systems), potential.head_index(head, systems)
    potential.float()
    click.echo(f"{systems.n_atoms} atoms, forces of rms {float(wanted.square().mean().sqrt()):.2e} eV/Å; errors, eV/Å:")
    for kind in maps.split(","):
        step = DeviceModel(potential.model, [1, 8], MAPS[kind]).prepare(systems, index)
        with quicker(), bfloat16_to_the_nearest():
            off = step(systems.positions, rows, forces=True)[1] - wanted
        click.echo(f"{kind:9} max {float(off.abs().max()):.2e} rms {float(off.square().mean().sqrt()):.2e}")


if __name__ == "__main__":
    main()
