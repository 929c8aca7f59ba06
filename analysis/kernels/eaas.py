"""Times three routes to the same first-order values in one run, with the error of each beside its time.

    python analysis/kernels/eaas.py [--atoms 512] [--neighbors 38] [--channels 32] [--heads 8] [--l-max 2]

edge: this package's form, moments of unit edge vectors and one constant matrix per atom; eaas: the release's rotations
to the polar axis and back, per atom; dense: every edge's rows times every vector component through one dense table.
Random atoms at liquid density, float32; errors against the edge form in float64, relative to its largest entry.
"""

import click
import torch
from torch import Tensor
from turns import time_in_turns

from omnicalc.models.e2former.aggregate import aggregate
from omnicalc.models.e2former.angular import coupling_matrix
from omnicalc.models.e2former.eaas import Images, dense_first_order, eaas_first_order

DENSITY = 0.1  # atoms per cubic ångström, as in water


class Problem:
    """Random atoms without periodic images, each with its nearest neighbours."""

    def __init__(self, atoms: int, neighbors: int, channels: int, heads: int, l_max: int, device: str):
        generator = torch.Generator().manual_seed(0)
        side = (atoms / DENSITY) ** (1 / 3)
        positions = side * torch.rand(atoms, 3, dtype=torch.float64, generator=generator)
        distances = torch.cdist(positions, positions).fill_diagonal_(torch.inf)
        self.index = distances.topk(neighbors, largest=False).indices.to(device)
        self.positions = positions.to(device)
        self.alpha = torch.randn(atoms, heads, neighbors, dtype=torch.float64, generator=generator).to(device)
        self.value = torch.randn(atoms, (l_max + 1) ** 2, channels, dtype=torch.float64, generator=generator).to(device)
        self.matrix = coupling_matrix(l_max, False, False).to(device)

    def to(self, dtype: torch.dtype) -> "Problem":
        other = object.__new__(Problem)
        other.index = self.index
        for name in ("positions", "alpha", "value", "matrix"):
            setattr(other, name, getattr(self, name).to(dtype))
        return other

    def edges(self) -> tuple[Tensor, Tensor]:
        vectors = self.positions.unsqueeze(1) - self.positions[self.index]
        return vectors, vectors.square().sum(-1).sqrt()

    def edge(self) -> Tensor:
        vectors, distances = self.edges()
        unit = (vectors / distances.unsqueeze(-1)).transpose(1, 2).unsqueeze(1)
        return self.matrix @ aggregate(self.alpha.unsqueeze(2) * unit, self.value, self.index).flatten(1, 2)

    def dense(self) -> Tensor:
        vectors, distances = self.edges()
        return dense_first_order(self.alpha, vectors / distances.unsqueeze(-1), self.value, self.index, False)

    def eaas(self) -> Tensor:
        _, distances = self.edges()
        images = Images(torch.arange(len(self.index), device=self.index.device), self.positions, self.index)
        return eaas_first_order(self.alpha, distances, self.value, self.positions, images, False)

    def with_gradient(self, route: str) -> tuple[Tensor, Tensor]:
        """The values, and the gradient of half their square by positions."""
        self.positions.requires_grad_()
        out = getattr(self, route)()
        (gradient,) = torch.autograd.grad(out.square().sum() / 2, self.positions)
        return out.detach(), gradient


@click.command(help=__doc__.split("\n")[0])
@click.option("--atoms", default=512, show_default=True)
@click.option("--neighbors", default=38, show_default=True)
@click.option("--channels", default=32, show_default=True)
@click.option("--heads", default=8, show_default=True)
@click.option("--l-max", default=2, type=click.IntRange(1, 2), show_default=True)
@click.option("--rounds", default=7, show_default=True, help="The median is taken over these.")
def main(atoms: int, neighbors: int, channels: int, heads: int, l_max: int, rounds: int) -> None:
    if neighbors >= atoms or channels % heads:
        raise click.UsageError("fewer neighbours than atoms, and channels that are a multiple of heads, are needed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    exact = Problem(atoms, neighbors, channels, heads, l_max, device)
    rough = exact.to(torch.float32)
    wanted = exact.with_gradient("edge")
    routes = ("edge", "eaas", "dense")
    forward = time_in_turns({r: getattr(rough, r) for r in routes}, rounds)
    both = time_in_turns({r: lambda r=r: rough.with_gradient(r) for r in routes}, rounds)
    click.echo(f"{atoms} atoms, {neighbors} neighbours, {channels} channels, {heads} heads, l_max {l_max}, {device}")
    click.echo("route   forward ms   with gradient ms   float64 error   float32 error   float32 gradient error")
    for route in routes:
        fine = _error(exact.with_gradient(route)[0], wanted[0])
        values, gradient = (_error(a, b) for a, b in zip(rough.with_gradient(route), wanted, strict=True))
        row = f"{route:<7} {forward[route]:10.2f} {both[route]:18.2f} {fine:15.1e} {values:15.1e} {gradient:24.1e}"
        click.echo(row)


def _error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).abs().max() / b.abs().max())


if __name__ == "__main__":
    main()
