"""One optimisation step's arithmetic: loss of a padded frame and its gradient by every parameter.

Forces are gradients of the energy, so the gradient of a force loss needs second derivatives. The whole computation
(energy, forces, loss, parameter gradients) can be traced once for fixed shapes and compiled, which about halves its
time on a CPU; the plain version stands beside it and gives the same numbers.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.func import functional_call

from omnicalc.gradients import forces_from_edges
from omnicalc.models.graph import Graph


@dataclass(frozen=True)
class Frame:
    """Labelled structures padded to N atoms and K neighbour slots; padding atoms have weight 0 and no neighbours."""

    numbers: Tensor  # (N,) int64
    head: Tensor  # (1,) int64
    index: Tensor  # (N, K) int64
    mask: Tensor  # (N, K) bool
    vectors: Tensor  # (N, K, 3) r_i - r_j, Å
    weight: Tensor  # (N,) 1 for atoms of the structure, 0 for padding
    energy: Tensor  # () label without reference energies, eV
    forces: Tensor  # (N, 3) eV/Å


@dataclass(frozen=True)
class Loss:
    """mean_i |dF_i|_2 + energy_weight |dE| / N: units eV/Å and eV per atom (the release's "atoml2mae")."""

    total: Tensor
    force: Tensor  # mean |dF_i|_2, eV/Å
    energy: Tensor  # |dE| / N, eV


def predict(
    model: nn.Module, parameters: dict[str, Tensor], frame: Frame, create_graph: bool = True
) -> tuple[Tensor, Tensor]:
    """Energy () and forces (N, 3) of a frame, differentiable in the parameters with ``create_graph``."""
    vectors = frame.vectors.detach().requires_grad_(True)
    zero = torch.zeros_like(frame.head)
    graph = Graph(
        numbers=frame.numbers,
        system=torch.zeros_like(frame.numbers),
        charge=zero,
        spin=zero + 1,
        head=frame.head,
        index=frame.index,
        shift=torch.zeros_like(frame.vectors),
        mask=frame.mask,
        vectors=vectors,
        distances=vectors.square().sum(-1).sqrt(),
    )
    energies = functional_call(model, parameters, (graph,)).energies
    energy = (energies * frame.weight).sum()
    (gradient,) = torch.autograd.grad(energy, vectors, create_graph=create_graph)
    return energy, forces_from_edges(gradient, frame.index)


def loss_of(model: nn.Module, parameters: dict[str, Tensor], frame: Frame, energy_weight: Tensor) -> Loss:
    """Loss of a frame; ``energy_weight`` () is a tensor so that a compiled step can change it."""
    energy, forces = predict(model, parameters, frame)
    n_atoms = frame.weight.sum()
    # the small constant keeps the gradient finite where a force is exact (and on padding atoms)
    distance = ((forces - frame.forces).square().sum(-1) + 1e-12).sqrt()
    force = (distance * frame.weight).sum() / n_atoms
    energy_error = (energy - frame.energy).abs() / n_atoms
    return Loss(force + energy_weight * energy_error, force, energy_error)


class Step:
    """Callable (parameters, frame, energy_weight) -> (force loss, energy loss, gradients), plain or compiled."""

    def __init__(self, model: nn.Module, compiled: bool = False):
        self.model = model
        self.names = [name for name, _ in model.named_parameters()]
        self._compiled = compiled
        self._run = None

    def __call__(self, parameters: dict[str, Tensor], frame: Frame, energy_weight: Tensor):
        arguments = [parameters[n] for n in self.names] + _unpack(frame) + [energy_weight]
        if self._run is None:
            self._run = self._trace(arguments) if self._compiled else self._plain
        force, energy, *gradients = self._run(*arguments)
        return force, energy, dict(zip(self.names, gradients, strict=True))

    def _plain(self, *arguments):
        n = len(self.names)
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_(True) for p in arguments[:n]]
            frame = Frame(*arguments[n:-1])
            loss = loss_of(self.model, dict(zip(self.names, leaves, strict=True)), frame, arguments[-1])
            gradients = torch.autograd.grad(loss.total, leaves, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, leaves, strict=True)]
        return [loss.force.detach(), loss.energy.detach(), *gradients]

    def _trace(self, arguments):
        """Record every operation of one step as a graph without autograd, and hand that to the compiler."""
        from torch.fx.experimental.proxy_tensor import make_fx

        graph = make_fx(self._plain)(*arguments)
        compiled = torch.compile(graph, dynamic=False)

        def run(*arguments):
            with torch.no_grad():
                return compiled(*arguments)

        return run


def _unpack(frame: Frame) -> list[Tensor]:
    return [getattr(frame, f.name) for f in fields(frame)]
